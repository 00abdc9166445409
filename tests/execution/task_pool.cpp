// SPDX-License-Identifier: BSL-1.0
//
// TaskPool on executors with threads, without, simulated, and on one that refuses.
#include "garner/execution/task_pool.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "garner/execution/asio_executor.hpp"
#include "garner/execution/executor_ref.hpp"
#include "garner/execution/inline_executor.hpp"
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_world.hpp"
#include "support/refusing_executor.hpp"

namespace {

using garner::AbortHandle;
using garner::AsioExecutor;
using garner::errc;
using garner::Error;
using garner::ExecutorRef;
using garner::InlineExecutor;
using garner::SeededDecisions;
using garner::SimExecutor;
using garner::SimWorld;
using garner::TaskHandle;
using garner::TaskPool;
using garner::TaskPoolOptions;

struct OnThreads {
  AsioExecutor make() { return AsioExecutor(3); }
};
struct OnOneThread {
  AsioExecutor make() { return AsioExecutor(1); }
};
struct OnNone {
  InlineExecutor make() { return InlineExecutor::manual(); }
};
struct InAWorld {
  SimExecutor make() { return SimExecutor(world); }
  SeededDecisions decisions{7};
  SimWorld world{decisions};
};

template <class T>
std::error_code error_of(TaskHandle<T> handle) {
  try {
    handle.get();
  } catch (const std::system_error& error) {
    return error.code();
  }
  return {};
}

/// Closed until it is opened.
class Gate {
 public:
  void open() { opened_.set_value(); }
  void pass() const { waits_.wait(); }

 private:
  std::promise<void> opened_;
  std::shared_future<void> waits_ = opened_.get_future().share();
};

TEST_CASE_TEMPLATE("a result is what the task returned, a value, nothing, or what can only be moved", On, OnThreads,
                   OnOneThread, OnNone, InAWorld) {
  On on;
  TaskPool pool(on.make());
  CHECK(pool.execute([] { return 6 * 7; }).get() == 42);
  bool ran = false;
  pool.execute([&] { ran = true; }).get();
  CHECK(ran);
  CHECK(*pool.execute([own = std::make_unique<int>(5)]() mutable { return std::move(own); }).get() == 5);
  auto handle = pool.execute([] { return std::string("here"); });
  handle.wait();
  CHECK(handle.done());
  CHECK(handle.valid());
  CHECK(handle.get() == "here");
  CHECK_FALSE(handle.valid());
  const int value = 3;
  const int copied = pool.execute([&]() -> const int& { return value; }).get();
  CHECK(copied == 3);
}

TEST_CASE_TEMPLATE("an exception is the result", On, OnThreads, OnNone, InAWorld) {
  On on;
  TaskPool pool(on.make());
  CHECK_THROWS_AS(pool.execute([]() -> int { throw std::out_of_range("x"); }).get(), std::out_of_range);
  CHECK(error_of(pool.execute([] { throw Error(errc::io_error, "disk"); })) == errc::io_error);
}

TEST_CASE_TEMPLATE("continuations run one after another with the result before, and exceptions pass them by", On,
                   OnThreads, OnOneThread, OnNone, InAWorld) {
  On on;
  TaskPool pool(on.make());
  auto text = pool.execute([] { return 20; })
                  .then([](int n) { return n + 1; })
                  .then([](int n) { return std::make_unique<int>(n * 2); })
                  .then([](std::unique_ptr<int> n) { return std::to_string(*n); });
  CHECK(text.get() == "42");

  bool called = false;
  auto failed = pool.execute([]() -> int { throw std::out_of_range("first"); }).then([&](int) { called = true; });
  CHECK_THROWS_AS(failed.then([&] { called = true; }).get(), std::out_of_range);
  CHECK_FALSE(called);
  CHECK_THROWS_AS(pool.execute([] {}).then([]() -> int { throw 1; }).get(), int);

  auto ended = pool.execute([] { return 1; });
  ended.wait();
  CHECK(ended.then([](int n) { return n + 1; }).get() == 2);
  auto ended_badly = pool.execute([]() -> int { throw 2; });
  ended_badly.wait();
  CHECK_THROWS_AS(ended_badly.then([](int n) { return n; }).get(), int);
}

TEST_CASE("a continuation runs on the pool too, and not inside of then") {
  InlineExecutor executor = InlineExecutor::manual();
  TaskPool pool{ExecutorRef(executor)};
  auto first = pool.execute([] { return 1; });
  CHECK(executor.run_ready() == 1);
  bool ran = false;
  auto second = first.then([&](int) { ran = true; });
  CHECK_FALSE(ran);
  CHECK(executor.run_ready() == 1);
  CHECK(ran);
}

TEST_CASE("a long chain of continuations needs no stack, whether it runs, fails or is aborted") {
  TaskPool pool(InlineExecutor::manual());
  for (int how = 0; how < 3; ++how) {
    auto first = pool.execute([how] {
      if (how == 1) throw 1;
    });
    const AbortHandle abort = first.abort_handle();
    auto last = std::move(first);
    for (int i = 0; i < 100'000; ++i) last = last.then([] {});
    if (how == 2) CHECK(abort.abort());
    last.wait();
    CHECK(last.done());
  }
}

TEST_CASE_TEMPLATE("what a forgotten task throws goes to the handler, and nothing ends for it", On, OnThreads, OnNone,
                   InAWorld) {
  std::atomic<int> told{0};
  On on;
  TaskPoolOptions options;
  options.on_error = [&](const std::exception_ptr& error) {
    ++told;
    std::rethrow_exception(error);  // a handler that fails itself
  };
  TaskPool pool(on.make(), options);
  pool.forget([] { throw std::out_of_range("x"); });
  pool.forget([] { throw 5; });
  pool.forget([] {});
  pool.stop();
  CHECK(told == 2);

  On again;
  TaskPool quiet(again.make());
  quiet.forget([] { throw 5; });
  quiet.stop();
}

TEST_CASE("a task that is aborted before it has begun is cancelled, at once, and never runs") {
  InlineExecutor executor = InlineExecutor::manual();
  TaskPool pool{ExecutorRef(executor)};
  bool ran = false;
  const auto held = std::make_shared<int>(1);
  auto handle = pool.execute([&ran, held] { ran = true; });
  CHECK(held.use_count() == 2);
  CHECK(handle.abort_handle().abort());
  CHECK(handle.done());
  CHECK(held.use_count() == 1);
  CHECK_FALSE(handle.abort());
  CHECK(error_of(std::move(handle)) == errc::cancelled);
  executor.run_ready();
  CHECK_FALSE(ran);

  SUBCASE("as does what continues it, and the one before is not touched by that") {
    auto first = pool.execute([] { return 1; });
    const AbortHandle abort_first = first.abort_handle();
    auto second = first.then([&](int) { ran = true; });
    const AbortHandle abort_second = second.abort_handle();
    auto third = second.then([&] { ran = true; });
    CHECK(abort_second.abort());
    CHECK(third.done());
    CHECK(error_of(std::move(third)) == errc::cancelled);
    executor.run_ready();
    CHECK_FALSE(ran);
    CHECK_FALSE(abort_first.abort());
  }
  SUBCASE("and a handle to no task aborts none") { CHECK_FALSE(AbortHandle().abort()); }
}

TEST_CASE("a task that is aborted while it runs sees it by its stop token, and its result stands") {
  Gate began;
  TaskPool pool(AsioExecutor(2));
  auto handle = pool.execute([&](const std::stop_token& token) {
    began.open();
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    changed.wait(lock, token, [] { return false; });
    return token.stop_requested();
  });
  began.pass();
  const AbortHandle abort = handle.abort_handle();
  CHECK_FALSE(abort.abort());
  CHECK(handle.get());
  CHECK_FALSE(abort.abort());
}

TEST_CASE("a continuation is told as well") {
  Gate began;
  TaskPool pool(AsioExecutor(2));
  auto handle = pool.execute([] { return 5; }).then([&](const std::stop_token& token, int n) {
    began.open();
    while (!token.stop_requested()) std::this_thread::yield();
    return n;
  });
  began.pass();
  CHECK_FALSE(handle.abort());
  CHECK(handle.get() == 5);
}

TEST_CASE_TEMPLATE("no more run at once than the limit says, and as many as that", On, OnThreads, OnNone, InAWorld) {
  On on;
  TaskPoolOptions options;
  options.max_concurrent = 2;
  TaskPool pool(on.make(), options);
  std::mutex mutex;
  int running = 0;
  int most = 0;
  std::vector<TaskHandle<int>> handles;
  handles.reserve(500);
  for (int i = 0; i < 500; ++i) {
    handles.push_back(pool.execute([&, i] {
      {
        const std::scoped_lock lock(mutex);
        most = std::max(most, ++running);
      }
      std::this_thread::yield();
      const std::scoped_lock lock(mutex);
      --running;
      return i;
    }));
  }
  for (int i = 499; i >= 0; --i) CHECK(handles[static_cast<std::size_t>(i)].get() == i);
  CHECK(most <= 2);

  if constexpr (std::is_same_v<On, OnThreads>) {
    Gate both;
    std::atomic<int> in{0};
    const auto meet = [&] {
      if (++in == 2) both.open();
      both.pass();
    };
    auto one = pool.execute(meet);
    auto two = pool.execute(meet);
    one.get();
    two.get();
  }
}

TEST_CASE_TEMPLATE("tasks may wait for tasks of their pool, whatever the limit", On, OnThreads, OnOneThread, OnNone,
                   InAWorld) {
  On on;
  TaskPoolOptions options;
  options.max_concurrent = 1;
  TaskPool pool(on.make(), options);
  const auto fibonacci = [&](const auto& self, int n) -> int {
    if (n < 2) return n;
    auto left = pool.execute([&self, n] { return self(self, n - 1); });
    auto right = pool.execute([&self, n] { return self(self, n - 2); }).then([](int value) { return value; });
    return right.get() + left.get();
  };
  CHECK(pool.execute([&] { return fibonacci(fibonacci, 10); }).get() == 55);
}

TEST_CASE_TEMPLATE("stop runs what was given to its end, and refuses what comes after", On, OnThreads, OnOneThread,
                   OnNone, InAWorld) {
  On on;
  std::atomic<int> ran{0};
  TaskPool pool(on.make());
  TaskHandle<void> last;
  for (int i = 0; i < 50; ++i) {
    pool.forget([&] { ++ran; });
    last = pool.execute([&] { ++ran; }).then([&] { ++ran; });
  }
  auto refused = pool.execute([&] {
    pool.stop();  // does not wait for itself
    try {
      pool.forget([&] { ++ran; });
    } catch (const Error& error) {
      return error.code();
    }
    return std::error_code();
  });
  pool.stop();
  CHECK(ran == 150);
  CHECK(refused.get() == errc::closed);
  CHECK(last.done());
  CHECK_THROWS_AS(pool.execute([] {}), Error);
  CHECK_THROWS_AS(last.then([] {}), Error);
  CHECK(last.valid());
  last.get();
  pool.stop();
}

TEST_CASE("the destructor stops, and handles outlive it") {
  TaskHandle<int> handle;
  {
    TaskPool pool(InlineExecutor::manual());
    handle = pool.execute([] { return 4; }).then([](int n) { return n + 1; });
  }
  CHECK(handle.done());
  CHECK_FALSE(handle.abort());
  CHECK_THROWS_AS(handle.then([](int) {}), Error);
  CHECK(handle.get() == 5);
}

TEST_CASE("on an executor that is driven the tasks run in their order, each as a task of its own") {
  InlineExecutor executor = InlineExecutor::manual();
  TaskPoolOptions options;
  options.max_concurrent = 1;
  TaskPool pool{ExecutorRef(executor), options};
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) pool.forget([&order, i] { order.push_back(i); });
  executor.post([&] { order.push_back(100); });
  CHECK(executor.run_one_until(executor.now()));
  CHECK(order == std::vector<int>{0});
  executor.run_ready();
  CHECK(order == std::vector<int>{0, 100, 1, 2});
}

TEST_CASE("where the executor refuses, the call throws that, and nothing has changed") {
  InlineExecutor executor = InlineExecutor::manual();
  bool refuses = true;
  const auto admit = [&](bool) {
    if (refuses) throw std::bad_alloc();
  };
  TaskPoolOptions options;
  options.max_concurrent = 2;
  TaskPool pool(garner::test::Refusing{ExecutorRef(executor), admit}, options);
  int ran = 0;
  for (int i = 0; i < 5; ++i) {
    CHECK_THROWS_AS(pool.forget([&] { ++ran; }), std::bad_alloc);
    CHECK_THROWS_AS(pool.execute([&] { ++ran; }), std::bad_alloc);
  }
  refuses = false;
  pool.forget([&] { ++ran; });
  refuses = true;
  SUBCASE("somebody is there already, who does it") {
    pool.forget([&] { ++ran; });
  }
  SUBCASE("an agent that cannot be relieved goes on") {
    pool.forget([&] { ++ran; });
    pool.forget([&] { ++ran; });
    auto chained = pool.execute([&] { ++ran; }).then([&] { ++ran; });
    CHECK(executor.run_ready() == 1);
    CHECK(ran == 5);
    CHECK(chained.done());
    ran = 2;
  }
  if (ran == 0) CHECK(executor.run_ready() == 1);
  CHECK(ran >= 1);
  // The limit is as it was.
  refuses = false;
  ran = 0;
  for (int i = 0; i < 4; ++i) pool.forget([&] { ++ran; });
  pool.stop();
  CHECK(ran == 4);
}

TEST_CASE("what an executor drops is done by who waits for it, or by stop") {
  struct Dropping {
    using Timer = int;
    void post(const garner::Task&) {}
    Timer post_at(garner::Instant, const garner::Task&) { return 0; }
    void cancel(Timer&) {}
    [[nodiscard]] garner::Instant now() const { return {}; }
  };
  TaskPool pool{Dropping()};
  int ran = 0;
  auto handle = pool.execute([&] { return ++ran; });
  CHECK(handle.get() == 1);
  pool.forget([&] { ++ran; });
  CHECK(ran == 1);
  pool.stop();
  CHECK(ran == 2);
}

TEST_CASE("a pool on a context that nobody runs stops all the same") {
  asio::io_context context;
  bool ran = false;
  {
    TaskPool pool{AsioExecutor(context)};
    pool.forget([&] { ran = true; });
  }
  CHECK(ran);
  context.run();
}

TEST_CASE("many threads give, wait, continue and abort at once") {
  std::atomic<int> ended{0};
  std::atomic<int> aborted{0};
  TaskPoolOptions options;
  options.max_concurrent = 2;
  {
    AsioExecutor executor(3);
    TaskPool pool{ExecutorRef(executor), options};
    std::vector<std::thread> threads;
    threads.reserve(4);
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 500; ++i) {
          pool.forget([&] { ++ended; });
          auto handle = pool.execute([&] { ++ended; });
          if ((i + t) % 3 == 0) {
            const AbortHandle abort = handle.abort_handle();
            auto next = handle.then([&] { ++ended; });
            if (abort.abort()) aborted += 2;
            next.wait();
          } else if (i % 2 == 0) {
            handle.wait();
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  int chained = 0;
  for (int t = 0; t < 4; ++t) {
    for (int i = 0; i < 500; ++i) chained += (i + t) % 3 == 0 ? 1 : 0;
  }
  CHECK(ended + aborted == 4000 + chained);
}

}  // namespace

TEST_CASE("what is given is run though nobody waits in the pool for it, however its threads come and go") {
  AsioExecutor executor(2);
  for (int round = 0; round < 3000; ++round) {
    TaskPool pool{ExecutorRef(executor), {.max_concurrent = 1}};
    std::latch left(6);
    for (int i = 0; i < 3; ++i) {
      pool.forget([&] {
        pool.forget([&] { left.count_down(); });
        left.count_down();
      });
    }
    left.wait();
  }
}
