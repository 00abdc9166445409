// SPDX-License-Identifier: BSL-1.0
//
// When a transfer that is held up now and then is too slow by its server's fault. Pure: the time is given to it.
#pragma once

#include <chrono>
#include <cstdint>

namespace garner::detail {

/// libcurl's rule (`CURLOPT_LOW_SPEED_LIMIT`) for a transfer that pauses: libcurl counts a pause as slowness as soon as
/// the transfer goes on. Looked at about once a second; a stretch that was paused for half of the time, or more, says
/// nothing of the server, and begins the count anew.
class StallRule {
 public:
  using Duration = std::chrono::nanoseconds;

  void begin(Duration now) {
    *this = StallRule();
    looked_ = now;
  }
  void moved(std::uint64_t bytes) noexcept { bytes_ += bytes; }
  void pause(Duration now) noexcept {
    if (!paused_) since_ = now;
    paused_ = true;
  }
  void resume(Duration now) noexcept {
    if (paused_) pauses_ += now - since_;
    paused_ = false;
  }

  /// Whether it has moved fewer than `bytes_per_second` for `time`.
  bool is_stalled(Duration now, std::uint32_t bytes_per_second, Duration time) {
    const bool paused = paused_;
    resume(now);
    const Duration active = now - looked_ - pauses_;
    const double needed = bytes_per_second * std::chrono::duration<double>(active).count();
    const bool slow = active * 2 > now - looked_ && static_cast<double>(bytes_) < needed;
    slow_ = slow ? slow_ + (now - looked_) : Duration();
    looked_ = now;
    bytes_ = 0;
    pauses_ = {};
    if (paused) pause(now);
    return slow && slow_ >= time;
  }

 private:
  Duration looked_{};
  Duration slow_{};
  Duration pauses_{};  // since it was looked at
  Duration since_{};
  std::uint64_t bytes_ = 0;  // likewise
  bool paused_ = false;
};

}  // namespace garner::detail
