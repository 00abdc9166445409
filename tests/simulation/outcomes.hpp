// SPDX-License-Identifier: BSL-1.0
//
// What a power cut may leave of a disk: each outcome, or, where there are too many, those in which most of what can go
// wrong shows. Numbered, so that one can be had again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"

namespace simulation {

class Outcomes {
 public:
  Outcomes(const garner::SimDisk& disk, std::size_t most) : disk_(disk), most_(most) {}

  /// Calls `take(number, disk left)` until it says false. The first `most` in the order of `ExhaustiveDecisions`; where
  /// there are more of them, also: everything kept, everything lost, each change lost or torn alone, each kept alone,
  /// and some at random.
  template <class Take>
  void each(const Take& take) {
    garner::ExhaustiveDecisions all;
    do {
      if (number_ == most_) return some(take);
      if (!take(number_++, disk_.after_crash(all))) return;
    } while (all.next());
  }

  /// Whether `each` came by every one.
  [[nodiscard]] bool complete() const noexcept { return complete_; }

 private:
  static constexpr std::uint64_t random_outcomes = 16;

  /// Every change is kept, or every change is lost, but for one.
  class OneOff final : public garner::Decisions {
   public:
    OneOff(bool keep, bool is_ordered, std::size_t at, std::uint64_t answer)
        : keep_(keep), is_ordered_(is_ordered), at_(at), answer_(answer) {}

    std::uint64_t choose(std::uint64_t n) override {
      asked_.push_back(n);
      if (asked_.size() == at_ + 1) return std::min(answer_, n - 1);
      if (keep_) return 0;
      // The first question to an ordered disk is how many changes are lost, and not whether one is.
      return asked_.size() == 1 && is_ordered_ ? n - 1 : std::min<std::uint64_t>(1, n - 1);
    }
    std::uint64_t lean(std::uint64_t) override { return 0; }
    bool chance(std::uint64_t, std::uint64_t) override { return choose(2) == 1; }

    [[nodiscard]] const std::vector<std::uint64_t>& asked() const noexcept { return asked_; }

   private:
    bool keep_;
    bool is_ordered_;
    std::size_t at_;
    std::uint64_t answer_;
    std::vector<std::uint64_t> asked_;
  };

  template <class Take>
  void some(const Take& take) {
    complete_ = false;
    const bool is_ordered = disk_.options().mode == garner::CrashMode::ordered;
    for (const bool keep : {true, false}) {
      OneOff all(keep, is_ordered, SIZE_MAX, 0);
      if (!take(number_++, disk_.after_crash(all))) return;
      for (std::size_t at = 0; at < all.asked().size(); ++at) {
        for (std::uint64_t answer = keep ? 1 : 0; answer < (keep ? all.asked()[at] : 1); ++answer) {
          OneOff one(keep, is_ordered, at, answer);
          if (!take(number_++, disk_.after_crash(one))) return;
        }
      }
    }
    for (std::uint64_t seed = 0; seed < random_outcomes; ++seed) {
      garner::SeededDecisions random(seed);
      if (!take(number_++, disk_.after_crash(random))) return;
    }
  }

  const garner::SimDisk& disk_;
  std::size_t most_;
  std::uint64_t number_ = 0;
  bool complete_ = true;
};

}  // namespace simulation
