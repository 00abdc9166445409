// SPDX-License-Identifier: BSL-1.0
//
// TaskPool: tasks with results, continuations and abortion on any Executor, and a limit of how many run at once.
// Standard library only. What it does in which order is in pool_work.hpp.
#pragma once

#include <cassert>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "garner/execution/pool_work.hpp"
#include "garner/policies/executor.hpp"

namespace garner {

struct TaskPoolOptions {
  std::size_t max_concurrent = 0;  ///< tasks that run at the same time; 0: as many as the executor runs
  /// Takes what a task of `forget` throws, on the thread that ran it; what it throws itself is dropped. None: dropped.
  std::function<void(std::exception_ptr)> on_error = {};
};

namespace detail {

template <class F, class... Args>
decltype(auto) invoke_stoppable(F& function, const std::stop_token& token, Args&&... args) {
  if constexpr (std::is_invocable_v<F&, std::stop_token, Args...>) {
    return function(token, std::forward<Args>(args)...);
  } else {
    return function(std::forward<Args>(args)...);
  }
}

/// What a task of `F` results in: a value.
template <class F, class... Args>
using PoolValue =
    std::remove_cvref_t<decltype(invoke_stoppable(std::declval<F&>(), std::stop_token(), std::declval<Args>()...))>;

template <class T>
class PoolResult : public PoolTask {
 public:
  T take() {
    if constexpr (!std::is_void_v<T>) return *std::move(value_);
  }

 protected:
  std::optional<std::conditional_t<std::is_void_v<T>, char, T>> value_;
};

/// A task of `execute`.
template <class F, class T>
class PoolCall : public PoolResult<T> {
 public:
  explicit PoolCall(F function) : function_(std::move(function)) {
    if constexpr (std::is_invocable_v<F&, std::stop_token>) this->stop_ = std::stop_source();
  }

 protected:
  void run() noexcept override {
    try {
      if constexpr (std::is_void_v<T>) {
        invoke_stoppable(*function_, this->stop_.get_token());
      } else {
        this->value_.emplace(invoke_stoppable(*function_, this->stop_.get_token()));
      }
    } catch (...) {
      this->error_ = std::current_exception();
    }
    drop();
  }
  void drop() noexcept override { function_.reset(); }

 private:
  std::optional<F> function_;
};

/// A task of `forget`.
template <class F>
class PoolForgotten final : public PoolCall<F, void> {
 public:
  PoolForgotten(F function, const PoolWork& work) : PoolCall<F, void>(std::move(function)), work_(work) {}

 private:
  void run() noexcept override {
    PoolCall<F, void>::run();
    if (this->error_) work_.report(this->error_);
  }

  const PoolWork& work_;
};

}  // namespace detail

/// Ends a task of a pool that is not wanted any more. Copies refer to the same task; default-constructed it refers to
/// none. Thread-safety: every member from any thread. May outlive the task and its pool, and keeps no result.
class AbortHandle {
 public:
  AbortHandle() = default;

  /// True where the task had not begun, and now never will: its result is `errc::cancelled`, at once. Where it runs,
  /// its `std::stop_token` says so, and it ends as it will. Otherwise nothing happens.
  bool abort() const {
    const std::shared_ptr<detail::PoolTask> task = task_.lock();
    return task != nullptr && work_->abort(task);
  }

 private:
  template <class T>
  friend class TaskHandle;

  AbortHandle(std::shared_ptr<detail::PoolWork> work, const std::shared_ptr<detail::PoolTask>& task)
      : work_(std::move(work)), task_(task) {}

  std::shared_ptr<detail::PoolWork> work_;
  std::weak_ptr<detail::PoolTask> task_;
};

/// The result of a task that was given to a pool, as a `std::future` is: it can be moved, and taken once. Dropping it
/// changes nothing for the task. After `get` and `then`, moved from, or default-constructed it refers to no task, and
/// only `valid`, assignment and destruction are allowed.
///
/// Waiting: a task that has not begun is run by the thread that waits for it, inside of its call, where that waits in a
/// task of the same pool (so tasks may wait for tasks, whatever the limit), or where the executor is driven by its
/// callers and the limit allows it (so a program of one thread need not drive it), or where the executor has dropped
/// what the pool posted. Otherwise, with threads, the executor's threads run it: to wait for a task on the only thread
/// that runs a borrowed `io_context`, outside of the pool's tasks, waits for ever.
///
/// Thread-safety: one thread at a time. May outlive the pool, which ends all tasks first.
template <class T>
class TaskHandle {
 public:
  TaskHandle() = default;
  TaskHandle(TaskHandle&&) noexcept = default;
  TaskHandle& operator=(TaskHandle&&) noexcept = default;
  ~TaskHandle() = default;

  [[nodiscard]] bool valid() const noexcept { return task_ != nullptr; }
  /// Whether the task has ended: with a result, an exception, or aborted.
  [[nodiscard]] bool done() const { return work_->has_ended(task_); }
  /// Until it has.
  void wait() const { work_->wait(task_); }

  /// Waits, and takes the result; throws what the task threw, and `Error` with `errc::cancelled` where it was aborted.
  T get() {
    wait();
    const auto task = std::exchange(task_, nullptr);
    if (task->error()) std::rethrow_exception(task->error());
    return task->take();
  }

  /// Runs `function` on the pool with the result, if there is one (and a `std::stop_token` before it, where it takes
  /// that); where there is none it is not called, and the error passes on. Throws as `TaskPool::execute` does; this
  /// handle is as it was then.
  template <class F>
  auto then(F function) {
    auto call = [first = task_,
                 function = std::move(function)](const std::stop_token& token) mutable -> decltype(auto) {
      if constexpr (std::is_void_v<T>) {
        return detail::invoke_stoppable(function, token);
      } else {
        return detail::invoke_stoppable(function, token, first->take());
      }
    };
    using Result = detail::PoolValue<decltype(call)>;
    auto next = std::make_shared<detail::PoolCall<decltype(call), Result>>(std::move(call));
    work_->chain(task_, next);
    task_.reset();
    return TaskHandle<Result>(work_, std::move(next));
  }

  bool abort() { return work_->abort(task_); }
  [[nodiscard]] AbortHandle abort_handle() const { return {work_, task_}; }

 private:
  template <class>
  friend class TaskPool;
  template <class>
  friend class TaskHandle;

  TaskHandle(std::shared_ptr<detail::PoolWork> work, std::shared_ptr<detail::PoolResult<T>> task)
      : work_(std::move(work)), task_(std::move(task)) {}

  std::shared_ptr<detail::PoolWork> work_;
  std::shared_ptr<detail::PoolResult<T>> task_;
};

/// Runs tasks on an executor that it owns; on another's with `ExecutorRef`. In the order in which they were given, as
/// far as the executor keeps it.
///
/// Thread-safety: every member from any thread, tasks of the pool among them.
/// Object lifetimes: the destructor stops, and must not run inside of a task of the pool. An executor on a borrowed
/// context need not be run for that. Exception safety: no exception of a task reaches the executor. Where the
/// executor's `post` throws, the call that wanted it throws that, and has changed nothing; what was taken on before is
/// done all the same.
template <class E>
class TaskPool {
  static_assert(diagnose_executor<E>());

 public:
  explicit TaskPool(E executor, TaskPoolOptions options = {})
      : executor_(std::move(executor)),
        work_(std::make_shared<detail::PoolWork>(
            options.max_concurrent, DrivenExecutor<E>, [this](Task task) { executor_.post(std::move(task)); },
            std::move(options.on_error))) {}
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;
  ~TaskPool() { stop(); }

  /// Runs `function()`, or `function(std::stop_token)`, whose result is the handle's. Throws `Error` with
  /// `errc::closed` after `stop`.
  template <class F>
  auto execute(F function) {
    using Result = detail::PoolValue<F>;
    auto task = std::make_shared<detail::PoolCall<F, Result>>(std::move(function));
    work_->give(task);
    return TaskHandle<Result>(work_, std::move(task));
  }

  /// Runs `function()`, and forgets it: what it throws goes to `TaskPoolOptions::on_error`. Throws as `execute` does.
  template <class F>
  void forget(F function) {
    work_->give(std::make_shared<detail::PoolForgotten<F>>(std::move(function), *work_));
  }

  /// Refuses new tasks from now on, runs all that were given to their end, continuations too (those that have not begun
  /// on this thread, if it comes to them first), and returns then. Inside of a task of the pool it does not wait.
  void stop() { work_->stop(); }

 private:
  E executor_;
  std::shared_ptr<detail::PoolWork> work_;
};

}  // namespace garner
