// SPDX-License-Identifier: BSL-1.0
//
// Threads that wait for what the engine does; and do it themselves, where the executor has no threads of its own.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "garner/core/schedule.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/policies.hpp"

namespace garner::detail {

/// One who runs tasks of a driven executor while he waits sleeps until there is one: when another thread does the last of what
/// he waits for, he is sent one that does nothing.
///
/// Thread-safety: as said for each; the lock is the engine's.
template <Executor E>
class Waiting {
 public:
  Waiting(E& executor, std::mutex& mutex) : executor_(executor), mutex_(mutex) {}

  /// Under the lock: what somebody waits for may have come. Nothing of this is used after the lock is let go.
  void notify() {
    changed_.notify_all();
    for (const std::thread::id& driver : drivers_) {
      if (driver != std::this_thread::get_id()) guarded([this] { executor_.post([] {}); });
    }
  }

  /// Without it: waits for `done()`, at most for `timeout`; returns what that says last. While `is_refused()`, `help()` is
  /// called now and then, without the lock; the other two run under it.
  template <class Done, class IsRefused, class Help>
  bool wait(std::chrono::nanoseconds timeout, const Done& done, const IsRefused& is_refused, const Help& help) {
    constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);
    const Driving driving(*this);
    const core::Instant until = clock() + std::min(timeout, for_ever);
    while (true) {
      core::Instant next = until;
      {
        std::unique_lock lock(mutex_);
        if (done()) return true;
        if (is_refused()) next = std::min(until, clock() + soon);
        if constexpr (!DrivenExecutor<E>) {
          const auto at = std::chrono::steady_clock::time_point(next);
          if (changed_.wait_until(lock, at) == std::cv_status::no_timeout) continue;
        }
      }
      if constexpr (DrivenExecutor<E>) {
        if (executor_.run_one_until(next)) continue;
      }
      if (next == until) {
        const std::scoped_lock lock(mutex_);
        return done();
      }
      help();
    }
  }

 private:
  static constexpr std::chrono::milliseconds soon{1};

  /// Makes this thread known as long as it waits.
  class Driving {
   public:
    explicit Driving(Waiting& waiting) : waiting_(waiting) {
      if constexpr (!DrivenExecutor<E>) return;
      const std::scoped_lock lock(waiting_.mutex_);
      waiting_.drivers_.push_back(std::this_thread::get_id());
    }
    Driving(const Driving&) = delete;
    Driving& operator=(const Driving&) = delete;
    ~Driving() {
      if constexpr (!DrivenExecutor<E>) return;
      const std::scoped_lock lock(waiting_.mutex_);
      auto& drivers = waiting_.drivers_;
      drivers.erase(std::find(drivers.begin(), drivers.end(), std::this_thread::get_id()));
    }

   private:
    Waiting& waiting_;
  };

  /// The time that `wait` waits by: the executor's own where it is driven, the machine's where it has threads.
  [[nodiscard]] core::Instant clock() const {
    if constexpr (DrivenExecutor<E>) {
      return executor_.now();
    } else {
      return std::chrono::steady_clock::now().time_since_epoch();
    }
  }

  E& executor_;
  std::mutex& mutex_;
  std::condition_variable changed_;
  std::vector<std::thread::id> drivers_;  ///< that wait
};

}  // namespace garner::detail
