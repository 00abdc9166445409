// SPDX-License-Identifier: BSL-1.0
//
// An executor that refuses, by an exception, what its test says it is to refuse.
#pragma once

#include <functional>
#include <utility>

#include "garner/policies/executor.hpp"

namespace garner::test {

/// `E`, but `admit(is_timer)` is called first by `post` and `post_at`, and throws where they are to throw.
template <Executor E>
class Refusing {
 public:
  using Timer = typename E::Timer;
  using Admit = std::function<void(bool is_timer)>;

  Refusing(E executor, Admit admit) : executor_(std::move(executor)), admit_(std::move(admit)) {}

  void post(Task task) {
    admit_(false);
    executor_.post(std::move(task));
  }
  Timer post_at(Instant at, Task task) {
    admit_(true);
    return executor_.post_at(at, std::move(task));
  }
  void cancel(Timer& timer) { executor_.cancel(timer); }
  [[nodiscard]] Instant now() const { return executor_.now(); }
  bool run_one_until(Instant until) requires DrivenExecutor<E> { return executor_.run_one_until(until); }

 private:
  E executor_;
  Admit admit_;
};

}  // namespace garner::test
