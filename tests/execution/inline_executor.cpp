// SPDX-License-Identifier: BSL-1.0
//
// InlineExecutor beyond the contract: its two clocks, and how it is driven.
#include "garner/execution/inline_executor.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

using garner::InlineExecutor;
using garner::Instant;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("nothing runs unless it is driven") {
  InlineExecutor executor;
  int ran = 0;
  executor.post([&] { ++ran; });
  executor.post_at(executor.now(), [&] { ++ran; });
  CHECK(ran == 0);
  CHECK(executor.run_ready() == 2);
  CHECK(ran == 2);
  CHECK(executor.run_ready() == 0);
}

TEST_CASE("run_one_until runs one task") {
  InlineExecutor executor = InlineExecutor::manual();
  int ran = 0;
  for (int i = 0; i < 3; ++i) executor.post([&] { ++ran; });
  CHECK(executor.run_one_until(executor.now()));
  CHECK(ran == 1);
}

TEST_CASE("a manual clock stands still, and moves to the next timer or to the end of a wait") {
  InlineExecutor executor = InlineExecutor::manual(seconds(100));
  std::vector<Instant> seen;
  executor.post_at(seconds(100) + hours(2), [&] { seen.push_back(executor.now()); });
  executor.post_at(seconds(100) + hours(1), [&] { seen.push_back(executor.now()); });
  executor.post([&] { seen.push_back(executor.now()); });
  CHECK(executor.now() == seconds(100));
  CHECK(executor.run_one_until(seconds(100) + hours(10)));
  CHECK(executor.run_one_until(seconds(100) + hours(10)));
  CHECK(executor.now() == seconds(100) + hours(1));
  CHECK_FALSE(executor.run_one_until(seconds(100) + milliseconds(4'000'000)));
  CHECK(executor.now() == seconds(100) + milliseconds(4'000'000));
  CHECK(executor.run_one_until(Instant::max()));
  CHECK(seen == std::vector<Instant>{seconds(100), seconds(100) + hours(1), seconds(100) + hours(2)});
  CHECK_FALSE(executor.run_one_until(Instant::max()));
  CHECK(executor.now() == seconds(100) + hours(2));
}

TEST_CASE("a manual clock does not go back for a wait that is over") {
  InlineExecutor executor = InlineExecutor::manual(seconds(100));
  CHECK_FALSE(executor.run_one_until(seconds(50)));
  CHECK(executor.now() == seconds(100));
}

TEST_CASE("advance runs all that becomes due, each at its time, and timers that those set") {
  InlineExecutor executor = InlineExecutor::manual();
  std::vector<Instant> seen;
  garner::Task tick = [&] {
    seen.push_back(executor.now());
    executor.post_at(executor.now() + seconds(1), tick);
  };
  executor.post_at(seconds(1), tick);
  CHECK(executor.advance(milliseconds(3500)) == 3);
  CHECK(seen == std::vector<Instant>{seconds(1), seconds(2), seconds(3)});
  CHECK(executor.now() == milliseconds(3500));
}

TEST_CASE("tasks that post tasks do not starve a timer, nor timers a task") {
  InlineExecutor executor = InlineExecutor::manual();
  bool timer_ran = false;
  bool task_ran = false;
  garner::Task again = [&] { executor.post(again); };
  garner::Task again_at = [&] { executor.post_at(executor.now(), again_at); };
  executor.post(again);
  executor.post_at(executor.now(), again_at);
  executor.post_at(executor.now(), [&] { timer_ran = true; });
  executor.post([&] { task_ran = true; });
  for (int i = 0; i < 10; ++i) executor.run_one_until(executor.now());
  CHECK(timer_ran);
  CHECK(task_ran);
}

TEST_CASE("on the steady clock, a wait ends with a task that another thread posts") {
  InlineExecutor executor;
  bool ran = false;
  std::thread poster([&] { executor.post([&] { ran = true; }); });
  CHECK(executor.run_one_until(Instant::max()));
  CHECK(ran);
  poster.join();
}

TEST_CASE("on the steady clock, a wait ends at its time where there is nothing to run") {
  InlineExecutor executor;
  executor.post_at(executor.now() + hours(1), [] {});
  const Instant until = executor.now() + milliseconds(5);
  CHECK_FALSE(executor.run_one_until(until));
  CHECK(executor.now() >= until);
}

TEST_CASE("a task may drive its executor") {
  InlineExecutor executor = InlineExecutor::manual();
  std::vector<int> order;
  executor.post([&] {
    order.push_back(1);
    executor.run_one_until(executor.now());
    order.push_back(3);
  });
  executor.post([&] { order.push_back(2); });
  executor.run_ready();
  CHECK(order == std::vector<int>{1, 2, 3});
}

TEST_CASE("an exception leaves through the call that ran the task, and the task is spent") {
  InlineExecutor executor;
  executor.post([] { throw 1; });
  CHECK_THROWS_AS(executor.run_ready(), int);
  CHECK(executor.run_ready() == 0);
}
