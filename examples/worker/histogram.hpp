// SPDX-License-Identifier: BSL-1.0
//
// Counts of durations in buckets that grow with them: a quantile is at most 3 % above the true one, whatever
// its size, in 15 KB and without an allocation. One thread records; histograms of several threads are merged.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace worker {

class Histogram {
 public:
  /// Counts one value (nanoseconds, or whatever unit the reader goes by).
  void record(std::uint64_t value) noexcept {
    ++counts_[bucket_of(value)];
    ++count_;
    max_ = std::max(max_, value);
  }

  void merge(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

  /// The least recorded value that `q` (0 to 1) of all are not above, rounded up to the end of its bucket,
  /// but never above `max()`. 0 where nothing was recorded.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
    const double wanted = std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_));
    const std::uint64_t rank = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= rank) return std::min(last_of(i), max_);
    }
    return max_;
  }

 private:
  // Values below 32 have a bucket each; above, each power of two is cut into 32 equal buckets.
  static constexpr unsigned sub_bits = 5;
  static constexpr std::uint64_t sub_count = std::uint64_t{1} << sub_bits;

  static constexpr std::size_t bucket_of(std::uint64_t value) noexcept {
    if (value < sub_count) return static_cast<std::size_t>(value);
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - sub_bits;
    return static_cast<std::size_t>((shift + 1) * sub_count + ((value >> shift) - sub_count));
  }

  static constexpr std::uint64_t last_of(std::size_t bucket) noexcept {
    if (bucket < sub_count) return bucket;
    const unsigned shift = static_cast<unsigned>(bucket / sub_count) - 1;
    return ((bucket % sub_count + sub_count + 1) << shift) - 1;
  }

  std::array<std::uint64_t, (64 - sub_bits + 1) * sub_count> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace worker
