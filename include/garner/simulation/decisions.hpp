// SPDX-License-Identifier: BSL-1.0
//
// Where a simulation's chances come from: a seed, a tape of bytes (a fuzzer's), or all of them one after
// another. What is chosen with them, and what it means, is its user's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "garner/core/schedule.hpp"

namespace garner {

/// Answers questions. The same source asked the same questions gives the same answers, so that a run replays.
/// 0 is the answer that does least harm, by everyone's agreement: a tape that ran out does none.
///
/// Thread-safety: one thread at a time.
class Decisions {
 public:
  Decisions() = default;
  Decisions(const Decisions&) = delete;
  Decisions& operator=(const Decisions&) = delete;
  virtual ~Decisions() = default;

  /// One of [0, n), where `n` is not 0.
  virtual std::uint64_t choose(std::uint64_t n) = 0;

  /// As `choose`, of what changes how likely something is and never what is possible.
  virtual std::uint64_t lean(std::uint64_t n) { return choose(n); }

  /// A part of a run begins. What is asked from now on need not depend on how much was asked before, so that a part can
  /// be left out and the others stay what they are. By default nothing.
  virtual void begin_part(std::uint64_t) {}

  /// True in `yes` of `of` cases, where 0 < `yes` < `of`; `choose` answered 0 is false.
  virtual bool chance(std::uint64_t yes, std::uint64_t of) { return choose(of) >= of - yes; }
};

/// Uniform, from a seed.
class SeededDecisions final : public Decisions {
 public:
  explicit SeededDecisions(std::uint64_t seed) noexcept : seed_(seed), random_(seed) {}

  void begin_part(std::uint64_t part) override {
    // Each seed's parts are as far from each other as the parts of two seeds (Knuth's multiplier, TAOCP 3.3.4).
    random_ = core::Random(seed_ + (part + 1) * 6364136223846793005U);
  }

  std::uint64_t choose(std::uint64_t n) override {
    const std::uint64_t bits = random_.next();
    return n <= UINT32_MAX ? (bits >> 32) * n >> 32 : bits % n;
  }

 private:
  std::uint64_t seed_;
  core::Random random_;
};

/// From bytes that are only lent, as few for each answer as hold it. All 0 where they ran out.
class TapeDecisions final : public Decisions {
 public:
  explicit TapeDecisions(std::span<const std::byte> tape) noexcept : tape_(tape) {}

  std::uint64_t choose(std::uint64_t n) override {
    std::uint64_t value = 0;
    for (std::uint64_t rest = n - 1; rest != 0 && !tape_.empty(); rest >>= 8) {
      value = value << 8 | std::to_integer<std::uint64_t>(tape_.front());
      tape_ = tape_.subspan(1);
    }
    return value % n;
  }

  [[nodiscard]] bool exhausted() const noexcept { return tape_.empty(); }

 private:
  std::span<const std::byte> tape_;
};

/// Every sequence of answers once:
///
///     ExhaustiveDecisions all;
///     do run(all); while (all.next());
class ExhaustiveDecisions final : public Decisions {
 public:
  std::uint64_t choose(std::uint64_t n) override {
    if (at_ == path_.size()) path_.push_back({0, n});
    return path_[at_++].answer;
  }
  std::uint64_t lean(std::uint64_t) override { return 0; }
  bool chance(std::uint64_t, std::uint64_t) override { return choose(2) == 1; }

  /// Begins the next sequence; false where there is none.
  bool next() {
    at_ = 0;
    while (!path_.empty() && path_.back().answer + 1 == path_.back().of) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().answer;
    return true;
  }

 private:
  struct Step {
    std::uint64_t answer;
    std::uint64_t of;
  };

  std::vector<Step> path_;
  std::size_t at_ = 0;
};

}  // namespace garner
