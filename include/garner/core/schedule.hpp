// SPDX-License-Identifier: BSL-1.0
//
// When: backoff with full jitter, and the alarms of chunks that wait. Decides only; it is told the time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "garner/error.hpp"
#include "garner/ids.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// Nanoseconds since a moment of the caller's choosing; the same as an Executor's `Instant`.
using Instant = std::chrono::nanoseconds;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): small, and the same
/// on every standard library, so that a seed replays.
class Random {
 public:
  explicit constexpr Random(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  /// Uniform in [0, 1).
  constexpr double fraction() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t state_;
};

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015).
struct Backoff {
  std::chrono::nanoseconds min = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max = std::chrono::minutes(5);

  /// Uniform in [0, min(max, min * 2^failures)).
  [[nodiscard]] std::chrono::nanoseconds delay(std::uint64_t failures, Random& random) const {
    const auto base = static_cast<double>(min.count());
    const auto cap = static_cast<double>(max.count());
    const double grown = base * static_cast<double>(std::uint64_t{1} << std::min<std::uint64_t>(failures, 40));
    return std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(cap, grown) * random.fraction()));
  }

  /// For what is unlikely to mend soon: uniform in [max / 2, max).
  [[nodiscard]] std::chrono::nanoseconds slowest(Random& random) const {
    return std::chrono::nanoseconds(
        static_cast<std::int64_t>(static_cast<double>(max.count()) * (0.5 + random.fraction() / 2)));
  }
};

/// How long to wait after a failure, the `streak`-th in a row, counted from 0. `retry_after`: as a server asked.
inline std::chrono::nanoseconds retry_delay(const Options& options, ErrorClass cls,
                                            std::optional<std::chrono::nanoseconds> retry_after, std::uint64_t streak,
                                            Random& random) {
  const Backoff backoff{options.min_backoff, options.max_backoff};
  switch (cls) {
    case ErrorClass::gone:
    case ErrorClass::credentials:
    case ErrorClass::invalid: return backoff.slowest(random);
    case ErrorClass::no_space: return Backoff{{}, options.no_space_retry}.slowest(random);
    case ErrorClass::none:
    case ErrorClass::transient:
    case ErrorClass::wrong_bytes:
    case ErrorClass::local:
    case ErrorClass::cancelled: break;
  }
  const auto delay = backoff.delay(streak, random);
  if (!retry_after) return delay;
  // As the server asked, within our limits, and not all at the same moment.
  return delay + std::max(std::chrono::nanoseconds{}, std::min(*retry_after, options.max_backoff));
}

/// The moments at which chunks are to be looked at again. O(log n) each.
class Alarms {
 public:
  void set(Instant at, const ChunkId& id) { alarms_.emplace(at, id); }
  void cancel(Instant at, const ChunkId& id) { alarms_.erase({at, id}); }

  [[nodiscard]] std::optional<Instant> next() const {
    if (alarms_.empty()) return std::nullopt;
    return alarms_.begin()->first;
  }

  /// Takes out one that is due at `now`, the earliest first.
  std::optional<ChunkId> pop_due(Instant now) {
    if (alarms_.empty() || alarms_.begin()->first > now) return std::nullopt;
    const ChunkId id = alarms_.begin()->second;
    alarms_.erase(alarms_.begin());
    return id;
  }

 private:
  std::set<std::pair<Instant, ChunkId>> alarms_;
};

}  // namespace garner::core
