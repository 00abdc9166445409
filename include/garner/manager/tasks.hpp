// SPDX-License-Identifier: BSL-1.0
//
// Work on an executor that may refuse it. What is refused is kept, in its order, until it is posted again or a
// thread that may block does it; it is never lost, and nobody who wanted it sees an exception.
#pragma once

#include <condition_variable>
#include <iterator>
#include <list>
#include <mutex>
#include <optional>
#include <utility>

#include "garner/manager/guarded.hpp"
#include "garner/policies/executor.hpp"

namespace garner::detail {

/// Shares the lock of its owner, which must not end before `empty()`; `changed` is notified under it at each change.
/// Thread-safety: as said for each part.
template <Executor E>
class Tasks {
 public:
  /// A task that has not ended.
  using Handle = std::list<Task>::iterator;

  Tasks(E& executor, std::mutex& mutex, std::condition_variable& changed)
      : executor_(executor), mutex_(mutex), changed_(changed) {}

  // ---- under the lock

  /// Takes on `work`, which is then to be posted.
  Handle keep(Task work) {
    tasks_.push_back(std::move(work));
    return std::prev(tasks_.end());
  }

  /// The first task that was refused, to be posted again.
  std::optional<Handle> take_refused() {
    if (refused_.empty()) return std::nullopt;
    const auto task = refused_.begin();
    tasks_.splice(tasks_.end(), refused_, task);
    return task;
  }

  [[nodiscard]] bool has_refused() const noexcept { return !refused_.empty(); }
  [[nodiscard]] bool empty() const noexcept { return tasks_.empty() && refused_.empty(); }

  // ---- without it, from any thread

  void post(Handle task) {
    if (!guarded([&] { executor_.post([this, task] { run(task); }); })) return;
    const std::scoped_lock lock(mutex_);
    refused_.splice(refused_.end(), tasks_, task);
    changed_.notify_all();
  }

  // ---- without it, from a thread that may block

  /// Does what was refused, and what that leads to.
  void do_refused() {
    std::optional<Handle> task;
    {
      const std::scoped_lock lock(mutex_);
      task = take_refused();
    }
    if (task) run(*task);
  }

 private:
  /// Whoever runs one task does those that were refused as well: so one that was taken is enough for all.
  void run(Handle task) {
    while (true) {
      {
        // What the work holds may refer to the owner, so it goes before the task counts as done.
        const Task work = std::move(*task);
        work();
      }
      // Under the lock to the end: after it, the owner and this object may end.
      const std::scoped_lock lock(mutex_);
      tasks_.erase(task);
      if (tasks_.empty()) changed_.notify_all();
      const std::optional<Handle> refused = take_refused();
      if (!refused) return;
      task = *refused;
    }
  }

  E& executor_;
  std::mutex& mutex_;
  std::condition_variable& changed_;
  std::list<Task> tasks_;    // posted or running; of one that runs the work is gone
  std::list<Task> refused_;  // by the executor
};

}  // namespace garner::detail
