// SPDX-License-Identifier: BSL-1.0
#include "garner/storage/sync_threads.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <barrier>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include "garner/storage/posix_sync.hpp"

using garner::detail::SyncThreads;

TEST_CASE("everything is done once, and at the same time") {
  SyncThreads threads(3);
  // All of them must have come for any to go on.
  std::barrier together(4);
  std::vector<std::atomic<int>> done(4);
  for (int turn = 1; turn <= 100; ++turn) {
    threads.run(done.size(), [&](std::size_t i) {
      together.arrive_and_wait();
      ++done[i];
    });
    for (const std::atomic<int>& count : done) CHECK(count == turn);
  }
}

TEST_CASE("without threads, or with nothing to do, it is the caller's") {
  SyncThreads threads(0);
  threads.run(0, [](std::size_t) { FAIL("there is nothing"); });
  int done = 0;
  threads.run(5, [&](std::size_t) { ++done; });
  CHECK(done == 5);
}

TEST_CASE("what is thrown comes to the caller once all else is done") {
  SyncThreads threads(2);
  std::atomic<int> done{0};
  const auto work = [&](std::size_t i) {
    ++done;
    if (i % 2 == 0) throw std::runtime_error("even");
  };
  CHECK_THROWS_WITH_AS(threads.run(9, work), "even", std::runtime_error);
  CHECK(done == 9);
}

TEST_CASE("many callers at the same time, each of whom gets his own done") {
  SyncThreads threads(4);
  std::vector<std::thread> callers;
  callers.reserve(4);
  std::atomic<int> done{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (std::size_t turn = 0; turn < 200; ++turn) {
        std::atomic<std::size_t> mine{0};
        threads.run(turn % 7, [&](std::size_t) { ++mine; });
        done += mine == turn % 7 ? 1 : 0;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(done == 800);
}

TEST_CASE("how much the kernel has not written yet is known on Linux") {
  CHECK(garner::detail::bytes_unwritten() < (std::uint64_t{1} << 50));
}
