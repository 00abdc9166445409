// SPDX-License-Identifier: BSL-1.0
//
// The waits of a manager as asynchronous operations: with a callback, a future and co_await.
#include "garner/execution/async_wait.hpp"

#include <doctest/doctest.h>

#include <asio/awaitable.hpp>
#include <asio/bind_executor.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/storage/memory_storage.hpp"
#include "support/memory_world.hpp"

using garner::async_wait_converged;
using garner::async_wait_ready;
using garner::errc;
using garner::test::chunk;
using garner::test::dataset;
using garner::test::make_manager;
using garner::test::Outside;
using namespace std::chrono_literals;

TEST_CASE("a callback is called once, on its own executor, when all is converged") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  asio::io_context context;
  int calls = 0;
  std::error_code error = errc::policy_failed;
  async_wait_converged(manager, asio::bind_executor(context, [&](std::error_code result) {
                         ++calls;
                         error = result;
                       }));
  context.poll();
  CHECK(calls == 0);
  CHECK_FALSE(context.stopped());  // the wait is work that keeps run() running
  CHECK(manager.wait_converged(1s));
  outside.run();
  CHECK(calls == 0);  // not inside of the manager
  context.poll();
  CHECK(calls == 1);
  CHECK_FALSE(error);
  manager.delete_chunk(chunk("a").id);
  manager.wait_converged(1s);
  outside.run();
  context.restart();
  context.poll();
  CHECK(calls == 1);
}

TEST_CASE("a wait for what is so already completes, and not inside the call") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  asio::io_context context;
  int calls = 0;
  const auto count = [&calls](std::error_code error) { calls += error ? 100 : 1; };
  async_wait_converged(manager, asio::bind_executor(context, count));
  async_wait_ready(manager, chunk("a").id, asio::bind_executor(context, count));
  CHECK(calls == 0);
  context.run();
  CHECK(calls == 2);
}

TEST_CASE("a wait for one chunk ends when that one is served, and not before") {
  Outside outside;
  auto manager = make_manager(outside);
  outside.origin.hold("mem://a/1");
  manager.download_chunk(outside.offer("a", 0));
  asio::io_context context;
  int calls = 0;
  async_wait_ready(manager, chunk("a").id, asio::bind_executor(context, [&calls](std::error_code) { ++calls; }));
  manager.download_chunk(outside.offer("b", 10));
  outside.run();
  context.poll();
  CHECK(manager.find_chunk(dataset(), 10));
  CHECK(calls == 0);
  outside.origin.release("mem://a/1");
  outside.run();
  context.poll();
  CHECK(calls == 1);
}

TEST_CASE("a wait ends with an error where the manager is closed before") {
  Outside outside;
  asio::io_context context;
  std::error_code first;
  std::error_code second;
  {
    auto manager = make_manager(outside);
    outside.origin.hold("mem://a/1");
    manager.download_chunk(outside.offer("a"));
    async_wait_converged(manager, asio::bind_executor(context, [&first](std::error_code error) { first = error; }));
    SUBCASE("by a call") { manager.close(); }
    SUBCASE("by its end") {}
    if (manager.status().closed) {
      async_wait_ready(manager, chunk("a").id,
                       asio::bind_executor(context, [&second](std::error_code error) { second = error; }));
    }
  }
  context.run();
  CHECK(first == errc::closed);
  if (second) CHECK(second == errc::closed);
}

TEST_CASE("what a handler owns is let go of when it has run") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  asio::io_context context;
  auto owned = std::make_shared<int>(1);
  async_wait_converged(manager, asio::bind_executor(context, [owned](std::error_code) {}));
  CHECK(owned.use_count() > 1);
  manager.wait_converged(1s);
  outside.run();
  context.run();
  CHECK(owned.use_count() == 1);
}

namespace {

using Manager = garner::DataManager<garner::MemoryStorage, garner::MemoryDownloader, garner::AsioExecutor>;

struct Threaded {
  Outside outside;
  Manager manager{garner::MemoryStorage(), garner::MemoryDownloader(outside.origin), garner::AsioExecutor(2)};
};

}  // namespace

TEST_CASE("a future is ready once the chunk is") {
  Threaded world;
  auto ready = async_wait_ready(world.manager, chunk("a").id, asio::use_future);
  CHECK(ready.wait_for(0s) == std::future_status::timeout);
  world.manager.download_chunk(world.outside.offer("a"));
  REQUIRE(ready.wait_for(60s) == std::future_status::ready);
  ready.get();
  CHECK(world.manager.find_chunk(dataset(), 0));
  auto converged = async_wait_converged(world.manager, asio::use_future);
  REQUIRE(converged.wait_for(60s) == std::future_status::ready);
}

TEST_CASE("a future throws where the manager is closed before") {
  Threaded world;
  auto ready = async_wait_ready(world.manager, chunk("a").id, asio::use_future);
  world.manager.close();
  REQUIRE(ready.wait_for(60s) == std::future_status::ready);
  try {
    ready.get();
    FAIL("did not throw");
  } catch (const std::system_error& error) {
    CHECK(error.code() == errc::closed);
  }
}

#ifdef ASIO_HAS_CO_AWAIT  // Asio has none with Clang 14 on libstdc++

TEST_CASE("a coroutine awaits a chunk, deletes it, and awaits that") {
  Threaded world;
  asio::io_context context;
  bool done = false;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        const std::thread::id here = std::this_thread::get_id();
        for (int i = 0; i < 50; ++i) {
          world.manager.download_chunk(world.outside.offer("a"));
          co_await async_wait_ready(world.manager, chunk("a").id, asio::use_awaitable);
          CHECK(world.manager.find_chunk(dataset(), 0));
          CHECK(std::this_thread::get_id() == here);
          world.manager.delete_chunk(chunk("a").id);
          co_await async_wait_converged(world.manager, asio::use_awaitable);
          CHECK_FALSE(world.manager.chunk_status(chunk("a").id));
        }
        done = true;
      },
      asio::detached);
  context.run_for(60s);
  CHECK(done);
}

#endif
