// SPDX-License-Identifier: BSL-1.0
//
// Meters out bytes at a rate. Pure: the time is given to it, and it waits for nothing.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace garner::detail {

/// Over any time of w seconds it grants at most rate * (w + 0.1 s) bytes and one more, and all of rate * w where it is
/// asked for more throughout. Not thread-safe. Times do not go back; where they do, it is as if none had passed.
class TokenBucket {
 public:
  using Duration = std::chrono::nanoseconds;

  /// What may be granted at once is what comes in so long a time.
  static constexpr Duration depth = std::chrono::milliseconds(100);

  /// 0: no limit. What was saved at the old rate is kept as far as the new one could have saved it.
  void set_rate(std::uint64_t bytes_per_second, Duration now) {
    fill(now);
    rate_ = bytes_per_second;
    tokens_ = rate_ == 0 ? 0 : std::min(tokens_, capacity());
  }
  [[nodiscard]] std::uint64_t rate() const noexcept { return rate_; }

  /// Grants as many of `wanted` bytes as may pass now; whoever needs more asks again later for the rest.
  std::uint64_t take(std::uint64_t wanted, Duration now) {
    if (rate_ == 0) return wanted;
    fill(now);
    const std::uint64_t granted = std::min(wanted, static_cast<std::uint64_t>(std::max(tokens_, 0.0)));
    tokens_ -= static_cast<double>(granted);
    return granted;
  }

  /// `bytes` have passed that nobody could hold up. They are made up for.
  void charge(std::uint64_t bytes, Duration now) {
    if (rate_ == 0) return;
    fill(now);
    tokens_ -= static_cast<double>(bytes);
  }

  /// How long until `wanted` bytes can be granted in one piece, or as many of them as ever can.
  [[nodiscard]] Duration wait_for(std::uint64_t wanted, Duration now) {
    if (rate_ == 0) return {};
    fill(now);
    const double missing = std::min(static_cast<double>(wanted), capacity()) - tokens_;
    return missing <= 0 ? Duration()
                        : Duration(static_cast<Duration::rep>(missing * 1e9 / static_cast<double>(rate_)) + 1);
  }

 private:
  /// And one byte, or it would lose what makes up one, and at the lowest rates never grant any.
  [[nodiscard]] double capacity() const {
    return static_cast<double>(rate_) * std::chrono::duration<double>(depth).count() + 1;
  }

  void fill(Duration now) {
    if (now <= filled_) return;
    const double seconds = std::chrono::duration<double>(now - filled_).count();
    tokens_ = std::min(tokens_ + static_cast<double>(rate_) * seconds, capacity());
    filled_ = now;
  }

  std::uint64_t rate_ = 0;
  double tokens_ = 0;
  Duration filled_{};
};

}  // namespace garner::detail
