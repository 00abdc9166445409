// SPDX-License-Identifier: BSL-1.0
//
// Bytes a second over the last few seconds, counted by many threads without a lock.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace garner::detail {

/// A ring of one-second buckets. Near the edge of a second an update may land in the bucket next to its own;
/// the rate is for people, and the total is exact.
class RateMeter {
 public:
  void add(std::chrono::nanoseconds now, std::uint64_t bytes) noexcept {
    total_.fetch_add(bytes, std::memory_order_relaxed);
    const std::int64_t second = seconds(now);
    Bucket& bucket = buckets_[static_cast<std::size_t>(second) % buckets_.size()];
    if (bucket.second.exchange(second, std::memory_order_relaxed) != second) {
      bucket.bytes.store(0, std::memory_order_relaxed);
    }
    bucket.bytes.fetch_add(bytes, std::memory_order_relaxed);
  }

  [[nodiscard]] std::uint64_t total() const noexcept { return total_.load(std::memory_order_relaxed); }

  /// Over the last five seconds, the current part of a second included.
  [[nodiscard]] double per_second(std::chrono::nanoseconds now) const noexcept {
    constexpr std::int64_t window = 5;
    const std::int64_t second = seconds(now);
    std::int64_t first = second;
    std::uint64_t bytes = 0;
    for (const Bucket& bucket : buckets_) {
      const std::int64_t at = bucket.second.load(std::memory_order_relaxed);
      if (at > second || at <= second - window) continue;
      first = at < first ? at : first;
      bytes += bucket.bytes.load(std::memory_order_relaxed);
    }
    const std::chrono::duration<double> span = now - std::chrono::seconds(first);
    return static_cast<double>(bytes) / (span.count() > 0.1 ? span.count() : 0.1);
  }

 private:
  static std::int64_t seconds(std::chrono::nanoseconds now) noexcept {
    return std::chrono::duration_cast<std::chrono::seconds>(now).count();
  }

  struct Bucket {
    std::atomic<std::int64_t> second{-1};
    std::atomic<std::uint64_t> bytes{0};
  };
  std::array<Bucket, 8> buckets_;
  std::atomic<std::uint64_t> total_{0};
};

}  // namespace garner::detail
