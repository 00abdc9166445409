// SPDX-License-Identifier: BSL-1.0
//
// One alarm on an executor, which can be set again and put away, and tells for certain whether its task will
// still run.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "garner/policies/executor.hpp"

namespace garner::detail {

/// Thread-safety: one caller at a time. The task may run on any thread.
template <Executor E>
class Alarm {
 public:
  explicit Alarm(E& executor) : executor_(executor) {}

  /// Runs `task` once at `at`, unless it is put away before.
  template <class Work>
  void set(Instant at, Work task) {
    claim_ = std::make_shared<std::atomic<bool>>(false);
    timer_.emplace(executor_.post_at(at, [claim = claim_, task = std::move(task)]() mutable {
      if (!claim->exchange(true)) task();
    }));
  }

  /// True where a task was set that has not begun, and now never will. An executor's `cancel` does not tell;
  /// so whoever claims the task first has it.
  bool put_away() {
    if (!timer_) return false;
    executor_.cancel(*timer_);
    timer_.reset();
    return !claim_->exchange(true);
  }

 private:
  E& executor_;
  std::optional<typename E::Timer> timer_;
  std::shared_ptr<std::atomic<bool>> claim_;
};

}  // namespace garner::detail
