// SPDX-License-Identifier: BSL-1.0
//
// ExecutorRef: an executor that somebody else owns, as an Executor. Data managers, task pools and download managers own
// their policies; this is how several of them share one.
#pragma once

#include <utility>

#include "garner/policies/executor.hpp"

namespace garner {

/// Passes everything on. Thread-safety and exceptions: those of `E`.
/// Object lifetimes: the executor must outlive whatever was given the reference.
template <Executor E>
class ExecutorRef {
 public:
  using Timer = typename E::Timer;

  explicit ExecutorRef(E& executor) noexcept : executor_(&executor) {}

  void post(Task task) { executor_->post(std::move(task)); }
  Timer post_at(Instant at, Task task) { return executor_->post_at(at, std::move(task)); }
  void cancel(Timer& timer) { executor_->cancel(timer); }
  [[nodiscard]] Instant now() const { return std::as_const(*executor_).now(); }
  bool run_one_until(Instant until) requires DrivenExecutor<E> { return executor_->run_one_until(until); }

 private:
  E* executor_;
};

}  // namespace garner
