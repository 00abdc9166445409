// SPDX-License-Identifier: BSL-1.0
#include "garner/storage/sync_threads.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "garner/storage/posix_file_system.hpp"
#include "garner/storage/posix_sync.hpp"
#include "support/temp_dir.hpp"

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

TEST_CASE("where not all can be synced at once, each is synced by itself, and told of by itself") {
  const garner::test::TempDir dir;
  garner::detail::PosixSync sync(3);
  std::vector<garner::detail::Descriptor> files;
  std::vector<garner::detail::PosixSync::Item> items;
  for (int i = 0; i < 20; ++i) {
    const std::string path = dir.path() / std::to_string(i);
    files.emplace_back(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(::write(files.back().get(), "hello", 5) == 5);
    items.push_back({files.back().get()});
  }
  items.push_back({-1});
  constexpr int no_root = -1;
  sync.run(no_root, items);
  CHECK_FALSE(items.back().is_durable);
  items.pop_back();
  for (const auto& item : items) CHECK(item.is_durable);
}

TEST_CASE("how much the kernel has not written yet is known on Linux") {
  CHECK(garner::detail::bytes_unwritten() < (std::uint64_t{1} << 50));
}
