// SPDX-License-Identifier: BSL-1.0
//
// InlineExecutor: an Executor without threads that runs tasks where and when its caller says so, for tests and for
// programs of one thread. Goes by the steady clock, or by a manual one that moves only when it is told to.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "garner/policies/executor.hpp"

namespace garner {

/// Runs tasks inside `run_one_until`, `run_ready` and `advance`, on the thread that calls them: posted ones in their
/// order, timers in the order of their times, and of a posted task and a timer that is due the one that came first.
///
/// Thread-safety: every member from any thread; tasks may be posted while another thread waits for one. Several
/// threads may run tasks at the same time, and a task may run others.
/// Object lifetimes: the destructor drops what has not run. A `Timer` may outlive it.
/// Exception safety: an exception leaves a task through the call that ran it; that task is spent.
class InlineExecutor {
 public:
  /// Refers to one task of `post_at`; empty when default-constructed.
  class Timer {
   public:
    Timer() = default;

   private:
    friend class InlineExecutor;
    Timer(Instant at, std::uint64_t sequence) : key_{at, sequence} {}

    std::pair<Instant, std::uint64_t> key_{};
  };

  /// Goes by `std::chrono::steady_clock`.
  InlineExecutor() : state_(std::make_unique<State>()) {}

  /// Goes by a clock of its own that starts at `start` and never waits: where nothing is due, `run_one_until` moves it
  /// to the next timer, or to the end of its wait.
  static InlineExecutor manual(Instant start = Instant::zero()) {
    InlineExecutor executor;
    executor.state_->manual_now = start;
    return executor;
  }

  void post(Task task) {
    const std::lock_guard lock(state_->mutex);
    state_->ready.push_back({++state_->sequence, std::move(task)});
    state_->changed.notify_one();
  }

  Timer post_at(Instant at, Task task) {
    const std::lock_guard lock(state_->mutex);
    const Timer timer(at, ++state_->sequence);
    state_->timers.emplace(timer.key_, std::move(task));
    state_->changed.notify_one();
    return timer;
  }

  void cancel(Timer& timer) noexcept {
    Task dropped;  // Destroyed after the lock: what a task holds may call back.
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->timers.find(timer.key_);
    if (found == state_->timers.end()) return;
    dropped = std::move(found->second);
    state_->timers.erase(found);
  }

  [[nodiscard]] Instant now() const noexcept {
    const std::lock_guard lock(state_->mutex);
    return state_->now();
  }

  /// Runs one task and returns true; or waits for one until `until`, and returns false. With the manual clock the wait
  /// takes no time: the clock moves instead (and stays where it is for `Instant::max()`, the end of time).
  bool run_one_until(Instant until) {
    std::unique_lock lock(state_->mutex);
    while (true) {
      if (std::optional<Task> task = state_->take_due()) {
        lock.unlock();
        (*task)();
        return true;
      }
      const bool timer_in_time = !state_->timers.empty() && state_->timers.begin()->first.first <= until;
      const Instant next = timer_in_time ? state_->timers.begin()->first.first : until;
      if (state_->manual_now) {
        if (next != Instant::max()) state_->manual_now = std::max(*state_->manual_now, next);
        if (!timer_in_time) return false;
      } else if (next == Instant::max()) {
        state_->changed.wait(lock);
      } else if (!timer_in_time && state_->now() >= until) {
        return false;
      } else {
        state_->changed.wait_until(lock, std::chrono::steady_clock::time_point(next));
      }
    }
  }

  /// Runs what is due, and what that posts, without waiting; returns how many tasks ran.
  std::size_t run_ready() {
    std::size_t count = 0;
    for (;; ++count) {
      std::unique_lock lock(state_->mutex);
      std::optional<Task> task = state_->take_due();
      lock.unlock();
      if (!task) return count;
      (*task)();
    }
  }

  /// Runs all that becomes due within `duration` from now, each at its time; returns how many tasks ran. Takes that
  /// long with the steady clock, and no time with the manual one.
  std::size_t advance(std::chrono::nanoseconds duration) {
    const Instant until = now() + duration;
    std::size_t count = 0;
    while (run_one_until(until)) ++count;
    return count;
  }

 private:
  struct Ready {
    std::uint64_t sequence;
    Task task;
  };

  struct State {
    [[nodiscard]] Instant now() const noexcept {
      return manual_now ? *manual_now : Instant(std::chrono::steady_clock::now().time_since_epoch());
    }

    /// In the order of posting, so that neither timers nor tasks can starve the other.
    std::optional<Task> take_due() {
      const auto timer = timers.begin();
      const bool due = timer != timers.end() && timer->first.first <= now();
      if (due && (ready.empty() || timer->first.second < ready.front().sequence)) {
        Task task = std::move(timer->second);
        timers.erase(timer);
        return task;
      }
      if (ready.empty()) return std::nullopt;
      Task task = std::move(ready.front().task);
      ready.pop_front();
      return task;
    }

    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Instant> manual_now;
    std::uint64_t sequence = 0;
    std::deque<Ready> ready;
    std::map<std::pair<Instant, std::uint64_t>, Task> timers;
  };

  std::unique_ptr<State> state_;
};

static_assert(diagnose_executor<InlineExecutor>() && DrivenExecutor<InlineExecutor>);

}  // namespace garner
