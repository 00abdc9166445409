// SPDX-License-Identifier: BSL-1.0
//
// The Executor policy: its requirement table, the concept made of one named fragment a row, and a diagnosis
// with one sentence a fragment.
#pragma once

#include <chrono>
#include <concepts>
#include <functional>
#include <utility>

namespace garner {

/// A unit of work. Runs once, or never where its executor ends first.
using Task = std::function<void()>;

/// A moment on an executor's own clock: nanoseconds since a moment of its choosing. Never runs backwards.
using Instant = std::chrono::nanoseconds;

/// Executor
/// ========
/// | expression                 | result     | must promise                                                      |
/// |----------------------------|------------|-------------------------------------------------------------------|
/// | `e.post(task)`             |            | runs `task` soon, once, never inside `post` itself                |
/// | `e.post_at(instant, task)` | `E::Timer` | runs `task` once, not before `instant`, never inside `post_at`    |
/// | `e.cancel(timer)`          |            | a task that has not begun will not run; otherwise nothing happens |
/// | `e.now()`                  | `Instant`  | the clock that `post_at` goes by                                  |
/// | `e.run_one_until(instant)` | `bool`     | *optional*, for an executor that its callers drive: runs one task |
/// |                            |            | on this thread, waiting for one until `instant`; false: none ran  |
///
/// Thread-safety: every member from any thread at any time. Tasks may run at the same time and in any order.
/// Throws: `post` and `post_at` may throw anything, and have then not taken the task; the others throw nothing.
/// Where it throws: no call of the manager fails, and no work is lost. What was refused is posted again with the next
/// call or report; or done by a task of the manager that ends before that; tried every millisecond while somebody is in
/// `wait_converged`; and done by `close` on its own thread. So an executor that is shut down before its manager should
/// throw, rather than drop what it is given: then `close` still returns. An alarm that was refused is set as late.
/// In return: tasks do not throw, and may block on I/O (those that a Storage makes them do). The manager posts nothing
/// after its `close()` has returned, and outlives each task that it has posted. Tasks still queued when the executor is
/// destroyed may be dropped.
// clang-format off
namespace fragments {
template <class E>
concept executor_moves = std::move_constructible<E>;
template <class E>
concept executor_posts = requires(E& e, Task task) { e.post(std::move(task)); };
template <class E>
concept executor_has_timer = requires { typename E::Timer; } && std::movable<typename E::Timer>;
template <class E>
concept executor_posts_at = !executor_has_timer<E> || requires(E& e, Instant at, Task task) {
  { e.post_at(at, std::move(task)) } -> std::same_as<typename E::Timer>;
};
template <class E>
concept executor_cancels = !executor_has_timer<E> || requires(E& e, typename E::Timer& timer) { e.cancel(timer); };
template <class E>
concept executor_tells_time = requires(const E& e) {
  { e.now() } -> std::convertible_to<Instant>;
};
}  // namespace fragments

template <class E>
concept Executor = fragments::executor_moves<E> && fragments::executor_posts<E> && fragments::executor_has_timer<E> &&
                   fragments::executor_posts_at<E> && fragments::executor_cancels<E> &&
                   fragments::executor_tells_time<E>;

/// An executor that runs nothing unless its callers drive it.
template <class E>
concept DrivenExecutor = Executor<E> && requires(E& e, Instant until) {
  { e.run_one_until(until) } -> std::same_as<bool>;
};
// clang-format on

/// Compiles where `E` is an Executor; otherwise each requirement that it misses is one sentence.
template <class E>
constexpr bool diagnose_executor() {
  static_assert(fragments::executor_moves<E>, "garner: an Executor must be move-constructible.");
  static_assert(fragments::executor_posts<E>, "garner: an Executor must have post(garner::Task).");
  static_assert(fragments::executor_has_timer<E>, "garner: an Executor must have a movable type Timer.");
  static_assert(fragments::executor_posts_at<E>,
                "garner: an Executor must have post_at(garner::Instant, garner::Task) that returns its Timer.");
  static_assert(fragments::executor_cancels<E>, "garner: an Executor must have cancel(Timer&).");
  static_assert(fragments::executor_tells_time<E>,
                "garner: an Executor must have now() const that returns a garner::Instant.");
  return Executor<E>;
}

}  // namespace garner
