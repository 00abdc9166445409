// SPDX-License-Identifier: BSL-1.0
//
// Holds transfers up so that all of them together stay below a rate: one meter for all loops, and for each loop the
// transfers that wait, with one timer.
#pragma once

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/download/curl_settings.hpp"
#include "garner/download/stall_rule.hpp"
#include "garner/download/token_bucket.hpp"

namespace garner::detail {

/// Thread-safe.
class SharedBucket {
 public:
  using Duration = TokenBucket::Duration;

  static Duration now() { return std::chrono::steady_clock::now().time_since_epoch(); }

  [[nodiscard]] std::uint64_t rate() const noexcept { return rate_.load(std::memory_order_relaxed); }
  void set_rate(std::uint64_t bytes_per_second) {
    const std::lock_guard lock(mutex_);
    bucket_.set_rate(bytes_per_second, now());
    rate_.store(bytes_per_second, std::memory_order_relaxed);
  }
  std::uint64_t take(std::uint64_t wanted) {
    if (rate() == 0) return wanted;
    const std::lock_guard lock(mutex_);
    return bucket_.take(wanted, now());
  }
  void charge(std::uint64_t bytes) {
    if (rate() == 0) return;
    const std::lock_guard lock(mutex_);
    bucket_.charge(bytes, now());
  }
  Duration wait_for(std::uint64_t wanted) {
    const std::lock_guard lock(mutex_);
    return bucket_.wait_for(wanted, now());
  }

 private:
  std::mutex mutex_;
  TokenBucket bucket_;
  std::atomic<std::uint64_t> rate_{0};
};

/// What is held up. Used by its loop's `CurlPace`.
class Paced {
 public:
  Paced() = default;
  Paced(const Paced&) = delete;
  Paced& operator=(const Paced&) = delete;
  virtual ~Paced() = default;

 private:
  friend class CurlPace;
  /// Goes on, at once. False where that was its end.
  virtual bool resume() = 0;

  std::uint64_t wanted_ = 0;  // bytes that it has and may not take yet
  std::uint64_t credit_ = 0;  // of those, granted
  bool watched_ = false;      // it has been held up
  StallRule stall_;
};

/// Used on its loop's thread only. Its timer is set while something waits or is watched, and at no other time.
class CurlPace {
 public:
  /// `after` is called whenever transfers may have ended.
  CurlPace(asio::io_context& io, SharedBucket& bucket, const CurlSettings& settings, std::function<void()> after)
      : bucket_(bucket), settings_(settings), after_(std::move(after)), timer_(io) {}

  [[nodiscard]] std::uint64_t rate() const noexcept { return bucket_.rate(); }

  /// Whether `transfer` may take `bytes` now. Where not, it is to pause, and is told to resume.
  bool admit(Paced& transfer, std::uint64_t bytes) {
    if (rate() == 0) return moved(transfer, bytes);
    // Not ahead of those that wait already, but for what it was granted.
    if (waiting_.empty() && transfer.credit_ < bytes) transfer.credit_ += bucket_.take(bytes - transfer.credit_);
    if (transfer.credit_ >= bytes) {
      transfer.credit_ -= bytes;
      return moved(transfer, bytes);
    }
    transfer.wanted_ = bytes;
    waiting_.push_back(&transfer);
    const Duration now = SharedBucket::now();
    if (!std::exchange(transfer.watched_, true)) {
      transfer.stall_.begin(now);
      if (watched_.empty()) look_ = now + std::chrono::seconds(1);
      watched_.push_back(&transfer);
    }
    transfer.stall_.pause(now);
    sleep();
    return false;
  }

  /// They pass, whatever may pass: they came over a connection that others share, and to pause one is to pause all.
  void charge(std::uint64_t bytes) { bucket_.charge(bytes); }

  /// `transfer` ends, or begins anew.
  void forget(Paced& transfer) {
    std::erase(waiting_, &transfer);
    std::erase(ended_, &transfer);
    std::erase(stalled_, &transfer);
    if (std::exchange(transfer.watched_, false)) std::erase(watched_, &transfer);
    if (watched_.empty()) rest();
    transfer.wanted_ = transfer.credit_ = 0;
  }

  /// The rate has changed.
  void refresh() {
    if (!waiting_.empty()) tick();
  }

  /// Those whose end came here; true: because they stalled.
  std::vector<std::pair<Paced*, bool>> take_ended() {
    std::vector<std::pair<Paced*, bool>> out;
    for (Paced* transfer : std::exchange(ended_, {})) out.emplace_back(transfer, false);
    for (Paced* transfer : std::exchange(stalled_, {})) out.emplace_back(transfer, true);
    return out;
  }

  /// Nothing waits: an alarm that nobody needs is taken back.
  void rest() noexcept {
    if (!alarm_) return;
    alarm_.reset();
    try {
      timer_.cancel();
    } catch (const std::system_error&) {
      // It rings once more, for nothing.
    }
  }

 private:
  using Duration = TokenBucket::Duration;

  static bool moved(Paced& transfer, std::uint64_t bytes) {
    if (transfer.watched_) transfer.stall_.moved(bytes);
    return true;
  }

  void tick() {
    // In turn, a piece each; one that goes on may be back here, behind the others, before its `resume` returns.
    while (!waiting_.empty()) {
      Paced& transfer = *waiting_.front();
      transfer.credit_ += bucket_.take(transfer.wanted_ - std::min(transfer.wanted_, transfer.credit_));
      if (transfer.credit_ < transfer.wanted_) break;
      waiting_.pop_front();
      transfer.stall_.resume(SharedBucket::now());
      if (transfer.resume()) continue;
      ended_.push_back(&transfer);
      if (std::exchange(transfer.watched_, false)) std::erase(watched_, &transfer);  // it ends once
    }
    const Duration now = SharedBucket::now();
    if (!watched_.empty() && now >= look_) look(now);
    sleep();
    after_();
  }

  void look(Duration now) {
    look_ = now + std::chrono::seconds(1);
    if (settings_.low_speed_time.count() <= 0) return;
    for (Paced* transfer : watched_) {
      const bool stalled =
          transfer->stall_.is_stalled(now, settings_.low_speed_bytes_per_second, settings_.low_speed_time);
      if (stalled) stalled_.push_back(transfer);
    }
  }

  void sleep() {
    if (watched_.empty()) return;
    Duration wait = std::max(look_ - SharedBucket::now(), Duration());
    if (!waiting_.empty()) {
      const Paced& next = *waiting_.front();
      const Duration due = bucket_.wait_for(next.wanted_ - std::min(next.wanted_, next.credit_));
      wait = std::min(wait, std::clamp(due, Duration(shortest), Duration(longest)));
    }
    const auto rings = std::chrono::steady_clock::now() + wait;
    if (alarm_ && *alarm_ <= rings) return;
    alarm_ = rings;
    timer_.expires_at(rings);
    timer_.async_wait([this, rings](const std::error_code& error) {
      if (error || alarm_ != rings) return;
      alarm_.reset();
      tick();
    });
  }

  // Of a wait: half of what a bucket can save is not lost, and a loop does not wake for each byte.
  static constexpr std::chrono::milliseconds shortest{2};
  static constexpr std::chrono::milliseconds longest{50};

  SharedBucket& bucket_;
  const CurlSettings& settings_;
  std::function<void()> after_;
  asio::steady_timer timer_;
  std::optional<std::chrono::steady_clock::time_point> alarm_;  // what the timer is set to
  std::deque<Paced*> waiting_;
  std::vector<Paced*> watched_;
  std::vector<Paced*> ended_;
  std::vector<Paced*> stalled_;
  Duration look_{};  // when the watched ones are looked at next
};

}  // namespace garner::detail
