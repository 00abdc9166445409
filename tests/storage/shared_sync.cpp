// SPDX-License-Identifier: BSL-1.0
//
// Who shares whose sync, and who is told of one that failed: real threads, and syncs that end when the test says so. A
// simulation, which has one thread, sees the failures and never a sync that is shared.
#include "garner/storage/shared_sync.hpp"

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <mutex>
#include <new>
#include <system_error>
#include <vector>

#include "garner/storage/posix_file_system.hpp"

namespace {

using garner::errc;
using garner::PosixFileSystem;

/// Counts its unlocks. One who is about to wait for somebody else unlocks first.
class CountedMutex {
 public:
  void lock() { mutex_.lock(); }
  void unlock() {
    mutex_.unlock();
    const std::lock_guard lock(count_mutex);
    ++count;
    counted.notify_all();
  }
  static std::size_t unlocks() {
    const std::lock_guard lock(count_mutex);
    return count;
  }
  static void wait_for_more_than(std::size_t unlocks) {
    std::unique_lock lock(count_mutex);
    counted.wait(lock, [&] { return count > unlocks; });
  }

 private:
  static inline std::mutex count_mutex;
  static inline std::condition_variable counted;
  static inline std::size_t count = 0;
  std::mutex mutex_;
};

struct Threads : PosixFileSystem {
  using Mutex = CountedMutex;
};
struct OneThread : PosixFileSystem {
  static constexpr bool concurrent = false;
};

/// Syncs of one directory, each of which begins and then waits to be told how it ends.
class World {
 public:
  using Shared = garner::detail::SharedSync<Threads>;

  explicit World(std::size_t at_once = 1) : shared_(at_once) {}

  Shared::Ticket join() { return shared_.join(); }

  /// In a thread of its own; returns when that one has begun a sync, or waits for somebody else's, or is told.
  std::future<std::error_code> commit(const Shared::Ticket& ticket) {
    const std::size_t before = CountedMutex::unlocks();
    auto result = std::async(std::launch::async, [this, ticket] {
      const std::error_code ec = shared_.commit(ticket, [this] { return sync(); });
      const std::lock_guard lock(mutex_);
      ++told_;
      changed_.notify_all();
      return ec;
    });
    CountedMutex::wait_for_more_than(before);
    return result;
  }
  std::future<std::error_code> change() { return commit(join()); }
  std::vector<std::future<std::error_code>> changes(std::size_t count) {
    std::vector<std::future<std::error_code>> out(count);
    for (auto& told : out) told = change();
    return out;
  }

  void wait_for_sync(std::size_t number) { wait_for(number, SIZE_MAX); }
  /// Until so many syncs have begun, or so many commits returned.
  void wait_for(std::size_t syncs, std::size_t told) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return begun_ >= syncs || told_ >= told; });
  }
  /// Of the sync of this number, also before it has begun.
  void end(std::size_t number, std::error_code result) {
    const std::lock_guard lock(mutex_);
    results_[number] = result;
    changed_.notify_all();
  }
  std::size_t syncs() {
    const std::lock_guard lock(mutex_);
    return begun_;
  }

 private:
  std::error_code sync() {
    std::unique_lock lock(mutex_);
    const std::size_t number = ++begun_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return results_.contains(number); });
    return results_.at(number);
  }

  Shared shared_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t begun_ = 0;
  std::size_t told_ = 0;
  std::map<std::size_t, std::error_code> results_;
};

TEST_CASE("who is alone syncs at once, once for each change, and a failure is told once") {
  World world;
  const std::vector<std::error_code> results = {{}, errc::io_error, {}};
  for (std::size_t i = 0; i < results.size(); ++i) {
    world.end(i + 1, results[i]);
    CHECK(world.change().get() == results[i]);
  }
  CHECK(world.syncs() == 3);
}

TEST_CASE("what is changed while a sync runs is served by the next one, all of it, and not by the one that runs") {
  World world;
  auto first = world.change();
  world.wait_for_sync(1);
  auto others = world.changes(5);
  world.end(1, {});
  CHECK_FALSE(first.get());
  world.wait_for_sync(2);
  auto last = world.change();
  world.end(2, {});
  for (auto& other : others) CHECK_FALSE(other.get());
  world.end(3, {});
  CHECK_FALSE(last.get());
  CHECK(world.syncs() == 3);
}

TEST_CASE("a sync that failed is told to all who had joined when it ended, and none of them syncs again") {
  World world;
  const auto unchanged = world.join();
  auto first = world.change();
  world.wait_for_sync(1);
  auto waiting = world.change();
  const auto late = world.join();
  world.end(1, errc::io_error);
  CHECK(first.get() == errc::io_error);
  CHECK(waiting.get() == errc::sync_failed);
  // Nor does a later sync that succeeds make good what was lost.
  world.end(2, {});
  CHECK_FALSE(world.change().get());
  CHECK(world.commit(late).get() == errc::sync_failed);
  CHECK(world.commit(unchanged).get() == errc::sync_failed);
  CHECK(world.syncs() == 2);
}

TEST_CASE("a sync that serves many and fails is told to all of them") {
  World world;
  auto first = world.change();
  world.wait_for_sync(1);
  auto others = world.changes(3);
  world.end(1, {});
  world.wait_for_sync(2);
  world.end(2, errc::sync_failed);
  CHECK_FALSE(first.get());
  for (auto& other : others) CHECK(other.get());
  CHECK(world.syncs() == 2);
}

TEST_CASE("where two may run at once the second waits for nobody, and the others share the next ones") {
  World world(2);
  auto first = world.change();
  world.wait_for_sync(1);
  auto second = world.change();
  world.wait_for_sync(2);
  auto others = world.changes(5);
  world.end(2, {});
  CHECK_FALSE(second.get());
  world.wait_for_sync(3);
  world.end(1, {});
  CHECK_FALSE(first.get());
  world.wait_for_sync(4);
  world.end(3, {});
  world.wait_for(SIZE_MAX, 6);
  world.end(4, {});
  for (auto& other : others) CHECK_FALSE(other.get());
  CHECK(world.syncs() == 4);
}

TEST_CASE("a sync counts for others only when none that began before it may still fail") {
  World world(2);
  auto first = world.change();
  world.wait_for_sync(1);
  auto second = world.change();
  world.wait_for_sync(2);
  auto third = world.change();
  auto fourth = world.change();
  world.end(2, {});
  world.wait_for_sync(3);
  world.end(3, {});
  // One of the last two has begun that one; the other begins one more.
  world.wait_for(4, 3);
  world.end(1, errc::sync_failed);
  CHECK(first.get() == errc::sync_failed);
  world.end(4, {});
  CHECK_FALSE(second.get());
  const std::error_code third_result = third.get();
  CHECK(third_result != fourth.get());
}

TEST_CASE("a sync that is thrown out of counts as failed") {
  garner::detail::SharedSync<PosixFileSystem> shared(1);
  const auto other = shared.join();
  const auto succeed = [] { return std::error_code(); };
  CHECK_THROWS_AS(shared.commit(shared.join(), []() -> std::error_code { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK(shared.commit(other, succeed) == errc::sync_failed);
  CHECK_FALSE(shared.commit(shared.join(), succeed));
}

TEST_CASE("where there is one thread nobody waits, and a failure in the middle of a sync spoils that one, too") {
  garner::detail::SharedSync<OneThread> shared(1);
  int syncs = 0;
  const auto sync = [&](std::error_code result) {
    return [&syncs, result] {
      ++syncs;
      return result;
    };
  };
  for (const std::error_code inner : {std::error_code(), make_error_code(errc::sync_failed)}) {
    const std::error_code outer = shared.commit(shared.join(), [&] {
      CHECK(shared.commit(shared.join(), sync(inner)) == inner);
      return sync({})();
    });
    CHECK(outer == inner);
  }
  CHECK(syncs == 4);
}

}  // namespace
