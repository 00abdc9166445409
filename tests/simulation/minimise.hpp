// SPDX-License-Identifier: BSL-1.0
//
// Makes a failing life smaller: the fewest steps and faults with which it still fails in the same way. Each step draws
// from a stream of its own, so that leaving one out leaves the others what they were (ddmin: Zeller, Hildebrandt,
// "Simplifying and isolating failure-inducing input", IEEE TSE 2002).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/plan.hpp"
#include "simulation/scenario.hpp"

namespace simulation {

class Minimiser {
 public:
  Minimiser(std::uint64_t seed, std::size_t steps) : seed_(seed), steps_(steps) {}

  /// Of a run that fails. `plan.trace` is kept as it is.
  Plan run() {
    Plan plan;
    const std::optional<std::string> failure = fails(plan);
    if (!failure) return plan;
    wanted_ = kind_of(*failure);
    for (bool smaller = true; smaller;) {
      smaller = reduce(
          steps_of(plan),
          [&plan](const auto& kept) {
            plan.steps = {kept.begin(), kept.end()};
          },
          plan);
      fails(plan);
      const std::vector<Strike> strikes = last_strikes_;
      smaller |= reduce(
          strikes,
          [&plan](const auto& kept) {
            plan.strikes = {kept.begin(), kept.end()};
          },
          plan);
    }
    fails(plan);
    plan.strikes = {last_strikes_.begin(), last_strikes_.end()};
    return plan;
  }

  [[nodiscard]] std::size_t runs() const noexcept { return runs_; }

 private:
  static constexpr std::size_t max_runs = 5000;

  /// What went wrong, without where.
  static std::string kind_of(const std::string& failure) { return failure.substr(0, failure.find(':')); }

  std::optional<std::string> fails(const Plan& plan) {
    ++runs_;
    garner::SeededDecisions decisions(seed_);
    Scenario scenario(decisions, plan);
    std::optional<std::string> failure = scenario.run(steps_);
    last_strikes_ = scenario.strikes();
    return failure;
  }

  [[nodiscard]] std::vector<std::size_t> steps_of(const Plan& plan) const {
    if (plan.steps) return {plan.steps->begin(), plan.steps->end()};
    std::vector<std::size_t> all(steps_);
    for (std::size_t step = 0; step < steps_; ++step) all[step] = step + 1;
    return all;
  }

  /// Leaves out of `parts` what is not needed, large pieces first; `set` puts what is kept into `plan`. True where any
  /// was left out.
  template <class Part, class Set>
  bool reduce(std::vector<Part> parts, const Set& set, Plan& plan) {
    bool any = false;
    for (std::size_t piece = parts.size(); piece > 0; piece /= 2) {
      for (std::size_t at = 0; at < parts.size() && runs_ < max_runs;) {
        std::vector<Part> kept = parts;
        const auto begin = kept.begin() + static_cast<std::ptrdiff_t>(at);
        kept.erase(begin, begin + static_cast<std::ptrdiff_t>(std::min(piece, kept.size() - at)));
        set(kept);
        const std::optional<std::string> failure = fails(plan);
        if (failure && kind_of(*failure) == wanted_) {
          parts = std::move(kept);
          any = true;
        } else {
          at += piece;
        }
      }
    }
    set(parts);
    return any;
  }

  std::uint64_t seed_;
  std::size_t steps_;
  std::string wanted_;
  std::vector<Strike> last_strikes_;
  std::size_t runs_ = 0;
};

}  // namespace simulation
