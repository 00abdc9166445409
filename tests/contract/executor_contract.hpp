// SPDX-License-Identifier: BSL-1.0
//
// What every Executor must do, as a suite that can be run over one's own: call `executor_contract<Fixture>()` in a
// doctest test case.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "garner/policies/executor.hpp"

namespace garner::test {

/// Counts what has run, for a thread that waits for it or an executor that has to be driven.
class Progress {
 public:
  void step() {
    const std::lock_guard lock(mutex_);
    ++steps_;
    changed_.notify_all();
  }
  [[nodiscard]] int steps() const {
    const std::lock_guard lock(mutex_);
    return steps_;
  }

  template <class E>
  bool wait(E& executor, int steps) {
    if constexpr (DrivenExecutor<E>) {
      const Instant until = executor.now() + std::chrono::seconds(20);
      while (this->steps() < steps && executor.run_one_until(until)) {
      }
      return this->steps() >= steps;
    } else {
      std::unique_lock lock(mutex_);
      return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return steps_ >= steps; });
    }
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int steps_ = 0;
};

/// The contract of DESIGN's section 4. A `Fixture` is default-constructible and offers `make()`: a new executor, whose
/// tasks run for as long as the fixture lives, or when it is driven.
template <class Fixture>
void executor_contract() {
  using std::chrono::milliseconds;
  Progress progress;  // outlives the threads of the fixture
  Fixture fixture;
  using E = std::decay_t<decltype(fixture.make())>;
  static_assert(Executor<E>);
  E executor = fixture.make();

  SUBCASE("runs what is posted, once") {
    for (int i = 0; i < 100; ++i) executor.post([&] { progress.step(); });
    REQUIRE(progress.wait(executor, 100));
    executor.post([&] { progress.step(); });
    REQUIRE(progress.wait(executor, 101));
    CHECK(progress.steps() == 101);
  }
  SUBCASE("never runs a task inside post or post_at") {
    // A lock that the task wants as well: inside, it would wait for itself.
    std::mutex mutex;
    const Task task = [&] {
      { const std::lock_guard lock(mutex); }
      progress.step();
    };
    {
      const std::lock_guard lock(mutex);
      executor.post(task);
      executor.post_at(executor.now() - milliseconds(1), task);
    }
    CHECK(progress.wait(executor, 2));
  }
  SUBCASE("a task may post the next") {
    Task again = [&] {
      progress.step();
      if (progress.steps() < 50) executor.post(again);
    };
    executor.post(again);
    CHECK(progress.wait(executor, 50));
  }
  SUBCASE("runs no timer before its time, and earlier ones first where the times are apart") {
    const Instant start = executor.now();
    std::mutex mutex;
    std::vector<int> order;
    const auto at = [&](int ms) {
      executor.post_at(start + milliseconds(ms), [&, ms] {
        {
          const std::lock_guard lock(mutex);
          CHECK(executor.now() >= start + milliseconds(ms));
          order.push_back(ms);
        }
        progress.step();
      });
    };
    at(120);
    at(0);
    at(60);
    REQUIRE(progress.wait(executor, 3));
    CHECK(order == std::vector<int>{0, 60, 120});
  }
  SUBCASE("does not run a timer that was cancelled") {
    std::atomic<bool> ran{false};
    auto timer = executor.post_at(executor.now() + milliseconds(20), [&] { ran = true; });
    executor.cancel(timer);
    executor.cancel(timer);
    executor.post_at(executor.now() + milliseconds(40), [&] { progress.step(); });
    REQUIRE(progress.wait(executor, 1));
    CHECK_FALSE(ran.load());
  }
  SUBCASE("a cancellation lets go of what the task holds, soon") {
    const auto held = std::make_shared<int>(1);
    auto timer = executor.post_at(executor.now() + std::chrono::hours(1), [held] { CHECK(*held == 2); });
    executor.cancel(timer);
    for (int i = 1; held.use_count() > 1 && i < 1000; ++i) {
      executor.post([&] { progress.step(); });
      REQUIRE(progress.wait(executor, i));
    }
    CHECK(held.use_count() == 1);
  }
  SUBCASE("a cancellation after the run changes nothing") {
    auto timer = executor.post_at(executor.now(), [&] { progress.step(); });
    REQUIRE(progress.wait(executor, 1));
    executor.cancel(timer);
    executor.post([&] { progress.step(); });
    CHECK(progress.wait(executor, 2));
  }
  SUBCASE("a cancellation of no timer does nothing") {
    typename E::Timer none{};
    executor.cancel(none);
  }
  SUBCASE("a timer that is moved can still be cancelled") {
    std::atomic<bool> ran{false};
    auto timer = executor.post_at(executor.now() + milliseconds(20), [&] { ran = true; });
    auto moved = std::move(timer);
    executor.cancel(moved);
    executor.post_at(executor.now() + milliseconds(40), [&] { progress.step(); });
    REQUIRE(progress.wait(executor, 1));
    CHECK_FALSE(ran.load());
  }
  SUBCASE("its clock does not run backwards") {
    Instant last = executor.now();
    for (int i = 0; i < 1000; ++i) {
      const Instant now = executor.now();
      CHECK(now >= last);
      last = now;
    }
  }
  SUBCASE("any thread may post, wait and cancel") {
    std::atomic<int> cancelled{0};
    std::vector<std::thread> threads;
    threads.reserve(4);
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) {
          executor.post([&] { progress.step(); });
          executor.post_at(executor.now() + milliseconds(i % 3), [&] { progress.step(); });
          auto timer = executor.post_at(executor.now() + std::chrono::hours(1), [&] { ++cancelled; });
          executor.cancel(timer);
        }
      });
    }
    // One that is driven may find nothing to wait for before the threads have begun.
    if constexpr (!DrivenExecutor<E>) CHECK(progress.wait(executor, 100));
    for (std::thread& thread : threads) thread.join();
    CHECK(progress.wait(executor, 400));
    CHECK(progress.steps() == 400);
    CHECK(cancelled.load() == 0);
  }
  SUBCASE("is moved with what was posted") {
    executor.post_at(executor.now() + milliseconds(20), [&] { progress.step(); });
    executor.post([&] { progress.step(); });
    E moved = std::move(executor);
    CHECK(progress.wait(moved, 2));
  }
}

}  // namespace garner::test
