// SPDX-License-Identifier: BSL-1.0
//
// AsioExecutor beyond the contract: what it owns, what it borrows, and what is left when it ends.
#include "garner/execution/asio_executor.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <asio/io_context.hpp>
#include <asio/thread_pool.hpp>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

using garner::AsioExecutor;

TEST_CASE("on threads of its own, tasks run at the same time") {
  AsioExecutor executor(2);
  std::promise<void> first;
  std::promise<void> second;
  executor.post([&] {
    first.set_value();
    CHECK(second.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  });
  std::promise<void> both;
  executor.post([&] {
    CHECK(first.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    second.set_value();
    both.set_value();
  });
  CHECK(both.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
}

TEST_CASE("its destructor waits for the task that is running, and drops the others") {
  std::atomic<bool> finished{false};
  std::atomic<bool> dropped{true};
  const auto held = std::make_shared<int>(0);
  {
    std::promise<void> running;
    std::promise<void> go_on;
    AsioExecutor executor(1);
    executor.post([&, until = go_on.get_future().share()] {
      running.set_value();
      until.wait();
      finished = true;
    });
    executor.post_at(executor.now() + std::chrono::hours(1), [&, held] { dropped = false; });
    running.get_future().wait();
    go_on.set_value();
  }
  CHECK(finished);
  CHECK(dropped);
  CHECK(held.use_count() == 1);
}

TEST_CASE("what was posted to a borrowed context runs after the executor has ended") {
  asio::io_context context;
  int ran = 0;
  {
    AsioExecutor executor(context);
    executor.post([&] { ++ran; });
    executor.post_at(executor.now(), [&] { ++ran; });
  }
  context.run();
  CHECK(ran == 2);
}

TEST_CASE("it runs nothing of a borrowed context itself") {
  asio::io_context context;
  const AsioExecutor::Timer none;
  int ran = 0;
  AsioExecutor executor(context);
  executor.post([&] { ++ran; });
  CHECK(ran == 0);
  CHECK(context.poll() == 1);
  CHECK(ran == 1);
}

TEST_CASE("what was posted to a borrowed pool runs after the executor has ended") {
  asio::thread_pool pool(1);
  std::atomic<int> ran{0};
  {
    AsioExecutor executor(pool);
    executor.post([&] { ++ran; });
  }
  pool.join();
  CHECK(ran == 1);
}

TEST_CASE("a timer may outlive its executor") {
  AsioExecutor::Timer timer;
  {
    AsioExecutor executor(1);
    timer = executor.post_at(executor.now() + std::chrono::hours(1), [] {});
  }
  AsioExecutor other(1);
  other.cancel(timer);
}

TEST_CASE("a timer that is cancelled when its time has come does not run") {
  // The context is not run until both are due, so the cancellation meets a wait that is already over.
  asio::io_context context;
  AsioExecutor executor(context);
  bool ran = false;
  AsioExecutor::Timer timer;
  executor.post_at(executor.now() - std::chrono::seconds(2), [&] { executor.cancel(timer); });
  timer = executor.post_at(executor.now() - std::chrono::seconds(1), [&] { ran = true; });
  context.run();
  CHECK_FALSE(ran);
}

TEST_CASE("a timer needs no descriptor that was not there before") {
  const auto set_one = [](AsioExecutor& executor, const auto& run) {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit none{0, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    std::promise<void> ran;
    bool refused = false;
    try {
      executor.post_at(executor.now(), [&] { ran.set_value(); });
    } catch (const std::system_error&) {
      refused = true;
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    REQUIRE_FALSE(refused);
    run();
    CHECK(ran.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  };
  AsioExecutor own(1);
  set_one(own, [] {});
  asio::io_context context;
  AsioExecutor borrowing(context);
  set_one(borrowing, [&] { context.run(); });
  asio::thread_pool pool(1);
  AsioExecutor sharing(pool);
  set_one(sharing, [] {});
}
