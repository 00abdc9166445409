// SPDX-License-Identifier: BSL-1.0
//
// AsioExecutor: the default Executor, on threads of its own or on an io_context or thread_pool that a program has
// already. Not here: any notion of what the tasks do, or of how many of them should run at once.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/thread_pool.hpp>
#include <atomic>
#include <chrono>
#include <memory>
#include <system_error>
#include <utility>

#include "garner/policies/executor.hpp"

namespace garner {

/// Runs tasks on Asio. An idle one wakes no thread: there is no polling, only posted tasks and timers that are due.
///
/// Thread-safety: every member from any thread.
/// Object lifetimes: with threads of its own, the destructor drops the tasks that have not begun, waits for those that
/// have, and joins; it must not run inside a task. A borrowed context or pool must outlive the executor; tasks and
/// timers that were posted to it stay there when the executor ends, and run after it. A `Timer` may outlive
/// everything.
/// Exception safety: a task that throws ends the program on threads of our own, as it would in a `std::thread`; on a
/// borrowed context the exception leaves `run()`.
class AsioExecutor {
 private:
  /// Owned by the pending wait alone, so that no timer is left when its context goes.
  struct Alarm {
    Alarm(const asio::any_io_executor& executor, Instant at, Task what)
        : timer(executor, std::chrono::steady_clock::time_point(
                              std::chrono::duration_cast<std::chrono::steady_clock::duration>(at))),
          task(std::move(what)) {}

    asio::steady_timer timer;
    Task task;
    std::atomic<bool> claimed{false};  // by the run or by a cancellation, whichever is first
  };

 public:
  /// Refers to one task of `post_at`; empty when default-constructed.
  class Timer {
   public:
    Timer() = default;

   private:
    friend class AsioExecutor;
    explicit Timer(const std::shared_ptr<Alarm>& alarm) : alarm_(alarm) {}

    std::weak_ptr<Alarm> alarm_;
  };

  /// Owns `threads` threads, at least one. This constructor and the next two throw `std::system_error` where there are
  /// no threads or no descriptors left.
  explicit AsioExecutor(unsigned threads = 4)
      : own_(std::make_unique<asio::thread_pool>(threads == 0 ? 1 : threads)), executor_(own_->get_executor()) {
    open_timers();
  }
  /// Borrows `context`; somebody must run it.
  explicit AsioExecutor(asio::io_context& context) : executor_(context.get_executor()) { open_timers(); }
  /// Borrows `pool`.
  explicit AsioExecutor(asio::thread_pool& pool) : executor_(pool.get_executor()) { open_timers(); }

  AsioExecutor(AsioExecutor&&) noexcept = default;
  AsioExecutor& operator=(AsioExecutor&&) = delete;
  ~AsioExecutor() = default;

  void post(Task task) { asio::post(executor_, std::move(task)); }

  Timer post_at(Instant at, Task task) {
    auto alarm = std::make_shared<Alarm>(executor_, at, std::move(task));
    Timer handle(alarm);
    asio::steady_timer& timer = alarm->timer;
    timer.async_wait([alarm = std::move(alarm)](const std::error_code&) {
      if (!alarm->claimed.exchange(true)) alarm->task();
    });
    return handle;
  }

  void cancel(Timer& timer) noexcept {
    const std::shared_ptr<Alarm> alarm = timer.alarm_.lock();
    // Asio does not take back a wait whose time has come, so the claim decides; and it lets one thread only touch the
    // timer, which is not safe for two.
    if (alarm == nullptr || alarm->claimed.exchange(true)) return;
    try {
      alarm->timer.cancel();
    } catch (const std::system_error&) {
      // It stays until it is due and then finds itself claimed.
    }
  }

  /// Of `std::chrono::steady_clock`.
  [[nodiscard]] Instant now() const noexcept { return std::chrono::steady_clock::now().time_since_epoch(); }

 private:
  /// Asio opens the descriptors that timers need with a context's first timer. That must not be the one that waits for
  /// descriptors to be free again.
  void open_timers() const { const asio::steady_timer first(executor_); }

  std::unique_ptr<asio::thread_pool> own_;
  asio::any_io_executor executor_;
};

static_assert(diagnose_executor<AsioExecutor>());

}  // namespace garner
