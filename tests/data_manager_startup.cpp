// SPDX-License-Identifier: BSL-1.0
//
// Starts in the background: what the manager does while it is not known yet what the store holds. The store is held up
// by the test, which does something before each generation that is told, in the same thread or in another.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "garner/data_manager.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/storage/filesystem_storage.hpp"
#include "support/failing_volumes.hpp"
#include "support/memory_world.hpp"
#include "support/refusing_executor.hpp"
#include "support/temp_dir.hpp"

using garner::AsioExecutor;
using garner::ChunkId;
using garner::ChunkState;
using garner::DataChunk;
using garner::DataManager;
using garner::errc;
using garner::Error;
using garner::Event;
using garner::EventKind;
using garner::Generation;
using garner::MemoryDownloader;
using garner::MemoryStorage;
using garner::Options;
using garner::Partial;
using garner::Recovery;
using garner::Startup;
using garner::Status;
using garner::test::chunk;
using garner::test::content;
using garner::test::dataset;
using garner::test::DrivenFromOutside;
using garner::test::make_manager;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

/// How the test holds up a store, and what it learns of it.
struct Hold {
  std::function<void(std::size_t told)> before;  ///< each generation that is told, and once after the last
  std::error_code error;                         ///< in place of the rest, where `before` sets it
  bool throws = false;
  std::atomic<bool> is_stopped{false};
  std::atomic<int> recoveries{0};
  std::atomic<bool> is_reading{false};
  std::atomic<int> early_calls{0};  ///< that are not to come while it reads
  std::vector<std::string> calls;   ///< that change something
};

/// A MemoryStorage that is read as slowly as its test wants. It has the requirements of a Storage and nothing else.
class HeldStorage {
 public:
  using Location = MemoryStorage::Location;
  using Staging = MemoryStorage::Staging;
  using StagedFile = MemoryStorage::StagedFile;

  HeldStorage(const std::shared_ptr<MemoryStorage::Disk>& disk, std::shared_ptr<Hold> hold)
      : store_(disk), hold_(std::move(hold)) {}

  Recovery recover(const std::function<void(const Generation&)>& found) {
    ++hold_->recoveries;
    hold_->is_reading = true;
    std::vector<Generation> all;
    Recovery recovery = store_.recover([&all](const Generation& generation) { all.push_back(generation); });
    std::size_t told = 0;
    for (; told <= all.size(); ++told) {
      if (hold_->before) hold_->before(told);
      if (hold_->throws) throw std::runtime_error("a store's own");
      if (hold_->is_stopped) recovery.error = errc::cancelled;
      if (hold_->error) std::tie(recovery.error, recovery.subject) = std::pair(hold_->error, "the store's path");
      if (recovery.error || told == all.size()) break;
      found(all[told]);
    }
    hold_->is_reading = false;
    return recovery;
  }
  std::error_code clean_up(Partial partial) { return note("clean up"), store_.clean_up(partial); }
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    return note("stage"), store_.stage(chunk, number, ec);
  }
  Generation publish(Staging& staging, std::error_code& ec) { return note("publish"), store_.publish(staging, ec); }
  std::error_code discard(Staging& staging) { return note("discard"), store_.discard(staging); }
  [[nodiscard]] Location location(const Generation& generation) const { return store_.location(generation); }
  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    return store_.describe(generation, ec);
  }
  std::error_code doom(const Generation& generation) { return note("doom"), store_.doom(generation); }
  std::error_code spare(const Generation& generation) { return note("spare"), store_.spare(generation); }
  std::error_code remove(const Generation& generation) { return note("remove"), store_.remove(generation); }
  std::error_code quarantine(const Generation& generation, const std::string& reason) {
    return note("quarantine"), store_.quarantine(generation, reason);
  }
  [[nodiscard]] std::error_code verify(const Generation& generation, garner::VerifyDepth depth,
                                       const garner::VerifyProgress& progress) const {
    return note("verify"), store_.verify(generation, depth, progress);
  }
  [[nodiscard]] garner::StoreUsage usage() const {
    if (hold_->is_reading) ++hold_->early_calls;
    return store_.usage();
  }

 protected:
  void note(const std::string& call) const {
    if (hold_->is_reading) ++hold_->early_calls;
    hold_->calls.push_back(call);
  }

  MemoryStorage store_;
  std::shared_ptr<Hold> hold_;
};

/// One that can be stopped, too.
class StoppableHeldStorage : public HeldStorage {
 public:
  using HeldStorage::HeldStorage;
  void stop_recovery() noexcept { hold_->is_stopped = true; }
};

static_assert(!garner::StoppableStorage<HeldStorage>);
static_assert(garner::StoppableStorage<StoppableHeldStorage>);

using HeldManager = DataManager<HeldStorage, MemoryDownloader, DrivenFromOutside>;

/// A disk with chunks a, b and c, of blocks 0, 100 and 200 on, and a manager that begins on it.
struct Begun : Outside {
  Begun() {
    auto earlier = make_manager(*this);
    for (const auto& [name, begin] : std::vector<std::pair<std::string, int>>{{"a", 0}, {"b", 100}, {"c", 200}}) {
      earlier.download_chunk(offer(name, static_cast<garner::BlockNumber>(begin)));
      earlier.wait_converged(1s);
    }
    options.startup = Startup::background;
    options.seed = 1;
  }

  /// The next step of the test, before the generation of this number, from 0, is told; 3: before the end.
  void at(std::size_t number, std::function<void(HeldManager&)> step) { steps[number] = std::move(step); }

  /// Begins a manager; its store has not been read yet.
  HeldManager& begin() {
    transfers = origin.transfers();
    hold->before = [this](std::size_t number) {
      if (steps.contains(number)) steps[number](*manager);
    };
    manager.emplace(HeldStorage(disk, hold), MemoryDownloader(origin), DrivenFromOutside(clock), options);
    subscription = manager->subscribe([this](const Event& event) {
      events.push_back(event);
      told += (told.empty() ? "" : ", ") + std::string(to_string(event.kind));
    });
    return *manager;
  }

  /// Since it began.
  [[nodiscard]] std::size_t fetched() const { return origin.transfers() - transfers; }
  [[nodiscard]] auto removed() const { return std::count(hold->calls.begin(), hold->calls.end(), "remove"); }
  [[nodiscard]] bool finds(garner::BlockNumber block) const {
    return manager->find_chunk(dataset(), block).has_value();
  }

  Options options;
  std::shared_ptr<Hold> hold = std::make_shared<Hold>();
  std::map<std::size_t, std::function<void(HeldManager&)>> steps;
  std::size_t transfers = 0;
  std::vector<Event> events;
  std::string told;
  std::optional<HeldManager> manager;
  garner::Subscription subscription;
};

}  // namespace

TEST_CASE("a start in the background returns before anything was read, and serves each chunk as it is read") {
  Begun world;
  auto& manager = world.begin();
  CHECK(world.hold->recoveries == 0);
  CHECK(manager.list_chunks().empty());
  CHECK(manager.status().recovering);
  CHECK_FALSE(manager.status().converged);
  CHECK_FALSE(manager.find_chunk(dataset(), 0));
  world.at(1, [&](HeldManager&) {
    CHECK(world.finds(0));
    CHECK(content(*manager.find_chunk(dataset(), 0)) == "bytes of mem://a/1");
    CHECK(manager.find_chunk(dataset(), 0)->files().size() == 1);
    CHECK_FALSE(world.finds(100));
    CHECK(manager.list_chunks().size() == 1);
    CHECK(manager.find_chunks(dataset(), {0, 1000}).size() == 1);
    CHECK(manager.status().recovering);
    CHECK(manager.status().ready == 1);
    CHECK(manager.chunk_status(chunk("a").id)->state == ChunkState::ready);
    CHECK_FALSE(manager.chunk_status(chunk("b").id));
    CHECK_FALSE(manager.status().converged);
  });
  CHECK(manager.wait_converged(1s));
  CHECK(manager.list_chunks().size() == 3);
  CHECK_FALSE(manager.status().recovering);
  CHECK_FALSE(manager.status().recovery_error);
  CHECK(manager.status().store_bytes_used > 0);
  world.run();
  CHECK(world.told == "ready, ready, ready, recovered, converged");
  CHECK(world.hold->early_calls == 0);
  CHECK(world.fetched() == 0);
}

TEST_CASE("by default all that is there is known when the constructor returns") {
  Begun world;
  world.options.startup = Startup::complete;
  CHECK(world.begin().list_chunks().size() == 3);
  CHECK_FALSE(world.manager->status().recovering);
}

TEST_CASE(
    "what is wanted while the store is read is not fetched before all is known, and not at all where it is there") {
  Begun world;
  auto& manager = world.begin();
  manager.download_chunk(world.offer("c", 200));
  manager.download_chunk(world.offer("new", 300));
  CHECK(manager.chunk_status(chunk("c").id)->state == ChunkState::queued);
  CHECK(manager.status().queued == 2);
  world.at(1, [&](HeldManager&) {
    manager.download_chunk(world.offer("a"));       // known already
    manager.download_chunk(world.offer("b", 100));  // the next
    world.run();
    CHECK(world.fetched() == 0);
  });
  world.at(3, [&](HeldManager&) {
    world.run();
    CHECK(world.finds(200));
    CHECK_FALSE(world.finds(300));
    CHECK(world.fetched() == 0);
  });
  CHECK(manager.wait_converged(1s));
  CHECK(world.fetched() == 1);
  CHECK(manager.find_chunk(dataset(), 300)->generation() == 4);
  CHECK(manager.list_chunks().size() == 4);
  CHECK(world.hold->early_calls == 0);
}

TEST_CASE("what is found is served until another version that was wanted before is there") {
  Begun world;
  auto& manager = world.begin();
  manager.download_chunk(world.offer("b", 100, 2));
  world.at(3, [&](HeldManager&) { CHECK(content(*manager.find_chunk(dataset(), 100)) == "bytes of mem://b/1"); });
  CHECK(manager.wait_converged(1s));
  CHECK(content(*manager.find_chunk(dataset(), 100)) == "bytes of mem://b/2");
  CHECK(world.removed() == 1);
}

TEST_CASE("what is deleted while the store is read is never served after that, and is removed") {
  Begun world;
  auto& manager = world.begin();
  manager.delete_chunk(chunk("c").id);
  std::optional<HeldManager::ChunkRef> pin;
  world.at(1, [&](HeldManager&) {
    pin = manager.find_chunk(dataset(), 0);
    manager.delete_chunk(chunk("a").id);
    CHECK_FALSE(world.finds(0));
    manager.delete_chunk(chunk("b").id);
  });
  world.at(2, [&](HeldManager&) { CHECK_FALSE(world.finds(100)); });
  world.at(3, [&](HeldManager&) {
    CHECK(manager.list_chunks().empty());
    CHECK(content(*pin) == "bytes of mem://a/1");
  });
  CHECK(manager.wait_converged(1s));
  CHECK(manager.list_chunks().empty());
  CHECK(world.removed() == 2);
  CHECK(content(*pin) == "bytes of mem://a/1");
  pin.reset();
  CHECK(manager.wait_converged(1s));
  CHECK(world.removed() == 3);
  CHECK(world.told.find("ready, unlisted") == 0);
  CHECK(world.hold->early_calls == 0);
}

TEST_CASE("of several calls about what is not known yet the last one counts, and no byte moves for what is there") {
  Begun world;
  auto& manager = world.begin();
  manager.delete_chunk(chunk("a").id);
  manager.download_chunk(world.offer("a"));
  manager.download_chunk(world.offer("b", 100));
  manager.delete_chunk(chunk("b").id);
  manager.delete_chunk(chunk("c").id);
  manager.download_chunk(world.offer("c", 200, 2));
  // What was deleted is not served before it is known to be what is wanted now.
  world.at(3, [&](HeldManager&) { CHECK(manager.list_chunks().empty()); });
  CHECK(manager.wait_converged(1s));
  CHECK(content(*manager.find_chunk(dataset(), 0)) == "bytes of mem://a/1");
  CHECK_FALSE(world.finds(100));
  CHECK(content(*manager.find_chunk(dataset(), 200)) == "bytes of mem://c/2");
  CHECK(world.fetched() == 1);
  CHECK(world.removed() == 2);
}

TEST_CASE("an assignment while the store is read says what is wanted of what is found after it, too") {
  Begun world;
  auto& manager = world.begin();
  world.at(1, [&](HeldManager&) {
    const std::vector<DataChunk> assignment = {world.offer("b", 100), world.offer("new", 300)};
    CHECK(manager.set_assignment(assignment) == 1);
    CHECK(manager.list_chunks().empty());
  });
  world.at(3, [&](HeldManager&) {
    CHECK(manager.list_chunks() == std::vector<ChunkId>{chunk("b").id});
    CHECK(world.fetched() == 0);
  });
  CHECK(manager.wait_converged(1s));
  CHECK(manager.status().converged_epoch == 1);
  CHECK(manager.list_chunks() == std::vector<ChunkId>{chunk("b").id, chunk("new").id});
  CHECK(world.fetched() == 1);
  CHECK(world.removed() == 2);
}

TEST_CASE("nothing is cleaned up or checked before all is known") {
  Begun world;
  world.options.startup_check = garner::StartupCheck::digests;
  auto& manager = world.begin();
  manager.verify();
  world.at(3, [&](HeldManager&) {
    world.run();
    CHECK(world.hold->calls.empty());
    CHECK(manager.list_chunks().empty());
    CHECK(manager.status().checking == 3);
  });
  CHECK(manager.wait_converged(1s));
  CHECK(world.hold->early_calls == 0);
  CHECK(world.hold->calls == std::vector<std::string>{"clean up", "verify", "verify", "verify"});
  CHECK(manager.list_chunks().size() == 3);
}

TEST_CASE("where the store cannot be read the manager serves what was found, says so, and changes nothing") {
  Begun world;
  auto& manager = world.begin();
  errc expected = errc::io_error;
  SUBCASE("it says so") {
    world.at(2, [&](HeldManager&) { world.hold->error = errc::io_error; });
  }
  SUBCASE("it throws") {
    world.at(2, [&](HeldManager&) { world.hold->throws = true; });
    expected = errc::policy_failed;
  }
  manager.download_chunk(world.offer("new", 300));
  CHECK_FALSE(manager.wait_converged(24h));
  CHECK(world.clock->now() < 1h);  // it does not wait for what cannot come
  const Status status = manager.status();
  CHECK_FALSE(status.recovering);
  CHECK(status.recovery_error == expected);
  CHECK(status.recovery_subject == (expected == errc::io_error ? "the store's path" : ""));
  CHECK(manager.list_chunks().size() == 2);
  CHECK(world.finds(0));
  world.run();
  REQUIRE(world.told == "ready, ready, recovered");
  CHECK(world.events.back().error == expected);
  manager.delete_chunk(chunk("a").id);
  CHECK_FALSE(world.finds(0));
  manager.download_chunk(world.offer("newer", 400));
  manager.verify();
  world.run();
  manager.close();
  CHECK(world.fetched() == 0);
  CHECK(world.hold->calls.empty());
}

TEST_CASE("a manager that is closed before its store was read does not read it") {
  Begun world;
  auto& manager = world.begin();
  manager.delete_chunk(chunk("a").id);
  SUBCASE("closed") {
    manager.close();
    CHECK(manager.status().closed);
    CHECK_THROWS_AS(manager.download_chunk(chunk("a")), Error);
  }
  SUBCASE("destroyed") { world.manager.reset(); }
  CHECK(world.hold->recoveries == 0);
  CHECK(world.hold->calls.empty());
}

TEST_CASE("what was found and deleted when the manager is closed in the middle does not come back") {
  Begun world;
  const auto disk = world.disk;
  SUBCASE("a store that can be stopped") {
    DataManager manager(StoppableHeldStorage(disk, world.hold), MemoryDownloader(world.origin),
                        DrivenFromOutside(world.clock), world.options);
    std::optional<garner::Subscription> observer;
    std::vector<EventKind> told;
    observer = manager.subscribe([&](const Event& event) { told.push_back(event.kind); });
    std::thread closer;
    world.hold->before = [&](std::size_t at) {
      if (at != 2) return;
      manager.delete_chunk(chunk("a").id);
      // Waits for this very task, in another thread.
      closer = std::thread([&] { manager.close(); });
      while (!world.hold->is_stopped) std::this_thread::yield();
    };
    world.clock->run_ready();
    closer.join();
    world.clock->run_ready();
    CHECK_FALSE(manager.find_chunk(dataset(), 0));
    CHECK(world.hold->calls == std::vector<std::string>{"doom"});
    CHECK_FALSE(manager.status().recovery_error);
    CHECK(told.back() == EventKind::closed);
  }
  world.hold = std::make_shared<Hold>();
  auto manager = make_manager(world);
  CHECK(manager.list_chunks() == std::vector<ChunkId>{chunk("b").id, chunk("c").id});
}

// ---- threads

namespace {

/// Lets a store be read step by step, by another thread.
struct Steps {
  explicit Steps(Hold& hold) {
    hold.before = [this, &hold](std::size_t) {
      reached.release();
      while (!go.try_acquire_for(1ms)) {
        if (hold.is_stopped) return;
      }
    };
  }
  /// Waits until the next generation, or the end, is due.
  void wait() { reached.acquire(); }
  void next() { go.release(); }

  std::counting_semaphore<> reached{0};
  std::counting_semaphore<> go{0};
};

}  // namespace

TEST_CASE("an executor of one thread reads the store while other threads look up and call") {
  Begun world;
  Steps steps(*world.hold);
  {
    DataManager manager(StoppableHeldStorage(world.disk, world.hold), MemoryDownloader(world.origin), AsioExecutor(1),
                        world.options);
    steps.wait();
    CHECK(manager.list_chunks().empty());
    CHECK_FALSE(manager.wait_converged(0s));
    manager.delete_chunk(chunk("b").id);
    manager.download_chunk(world.offer("c", 200));
    steps.next();
    steps.wait();
    CHECK(manager.find_chunk(dataset(), 0));
    SUBCASE("to the end") {
      for (int i = 0; i < 3; ++i) steps.next();
      CHECK(manager.wait_converged(1min));
      CHECK(manager.list_chunks() == std::vector<ChunkId>{chunk("a").id, chunk("c").id});
    }
    SUBCASE("closed in the middle") { manager.close(); }
    SUBCASE("destroyed in the middle") {}
  }
  CHECK(world.hold->early_calls == 0);
}

TEST_CASE("a store that cannot be stopped is waited for") {
  Begun world;
  Steps steps(*world.hold);
  DataManager manager(HeldStorage(world.disk, world.hold), MemoryDownloader(world.origin), AsioExecutor(1),
                      world.options);
  steps.wait();
  std::atomic<bool> is_closed{false};
  std::thread closer([&] {
    manager.close();
    is_closed = true;
  });
  while (!manager.status().closed) std::this_thread::yield();
  CHECK_FALSE(is_closed);
  for (int i = 0; i < 4; ++i) steps.next();
  closer.join();
  CHECK(manager.list_chunks().empty());  // what came after the end is the next start's
}

TEST_CASE("an observer closes the manager while the store is read") {
  Begun world;
  Steps steps(*world.hold);
  std::binary_semaphore is_closed{0};
  {
    DataManager manager(StoppableHeldStorage(world.disk, world.hold), MemoryDownloader(world.origin), AsioExecutor(2),
                        world.options);
    const auto subscription = manager.subscribe([&](const Event& event) {
      if (event.kind != EventKind::chunk_ready) return;
      manager.close();
      is_closed.release();
    });
    steps.wait();
    steps.next();
    is_closed.acquire();
  }
  CHECK(world.hold->is_stopped);
}

TEST_CASE("an executor that refuses the reading is offered it again") {
  Begun world;
  bool refuses = true;
  const auto admit = [&](bool /*is_timer*/) {
    if (refuses) throw std::runtime_error("no");
  };
  DataManager manager(HeldStorage(world.disk, world.hold), MemoryDownloader(world.origin),
                      garner::test::Refusing(DrivenFromOutside(world.clock), admit), world.options);
  CHECK(world.hold->recoveries == 0);
  SUBCASE("later") {
    refuses = false;
    CHECK(manager.wait_converged(1s));
    CHECK(manager.list_chunks().size() == 3);
  }
  SUBCASE("and never takes it") {
    manager.close();
    CHECK(world.hold->recoveries == 0);
  }
}

// ---- the stores of this library

TEST_CASE("a directory is read in the background, while threads look up and delete") {
  constexpr std::uint64_t chunks = 2'000;
  const garner::test::TempDir dir;
  const auto name = [](std::uint64_t number) { return "chunk" + std::to_string(number); };
  const auto place = [](std::uint64_t number) { return dataset("dataset" + std::to_string(number % 4)); };
  { const garner::FilesystemStorage store(dir.path()); }
  for (std::uint64_t number = 0; number < chunks; ++number) {
    const Generation generation{
        ChunkId::from_name(name(number)), place(number), {number * 10, number * 10 + 10}, 1, number + 1};
    std::filesystem::create_directories(dir / garner::store_layout::chunk_path(generation));
  }
  Options options;
  options.startup = Startup::background;
  DataManager manager(garner::FilesystemStorage(dir.path(), options), MemoryDownloader(garner::MemoryOrigin()),
                      AsioExecutor(2), options);
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t number = thread; number < chunks; number += 100) {
        manager.delete_chunk(ChunkId::from_name(name(number)));
        // After the end it would be too late.
        CHECK((!manager.find_chunk(place(number), number * 10) || manager.status().closed));
        const auto other = manager.find_chunk(place(number + 50), (number + 50) * 10);
        CHECK((!other || other->id() == ChunkId::from_name(name(number + 50))));
      }
    });
  }
  bool is_finished = true;
  SUBCASE("to the end") {}
  SUBCASE("closed in the middle") {
    manager.close();
    is_finished = false;
  }
  for (std::thread& thread : threads) thread.join();
  if (!is_finished) return;
  CHECK(manager.wait_converged(5min));
  CHECK(manager.list_chunks().size() == chunks - chunks / 50);
}

TEST_CASE("a store that was told to stop before it is read tells little or nothing") {
  const garner::test::TempDir dir;
  {
    garner::FilesystemStorage store(dir.path());
    const Generation generation{ChunkId::from_name("a"), dataset(), {0, 10}, 1, 1};
    std::filesystem::create_directories(dir / garner::store_layout::chunk_path(generation));
  }
  garner::FilesystemStorage store(dir.path());
  store.stop_recovery();
  const Recovery recovery = store.recover([](const Generation&) { FAIL("it was stopped"); });
  CHECK(recovery.error == errc::cancelled);
}

TEST_CASE("of several locations it is known at the end which are away, and what they held is fetched then") {
  garner::test::FailingVolumes volumes;
  garner::MemoryOrigin origin;
  Options options;
  options.seed = 1;
  const auto clock = std::make_shared<garner::InlineExecutor>(garner::InlineExecutor::manual());
  const auto start = [&] {
    return DataManager(volumes.store(), MemoryDownloader(origin), DrivenFromOutside(clock), options);
  };
  std::vector<ChunkId> all;
  {
    auto manager = start();
    for (const char* name : {"a", "b", "c", "d"}) {
      const DataChunk wanted = chunk(name, 10 * static_cast<garner::BlockNumber>(all.size()));
      origin.put(wanted.files.at("data").urls.front(), std::string(100, *name));
      manager.download_chunk(wanted);
      CHECK(manager.wait_converged(1s));
      all.push_back(wanted.id);
    }
  }
  const std::size_t before = origin.transfers();
  volumes.is_there[1] = false;
  options.startup = Startup::background;
  auto manager = start();
  CHECK(manager.list_chunks().empty());
  manager.delete_chunk(all[0]);
  CHECK(manager.wait_converged(1s));
  CHECK(manager.list_chunks().size() == 3);
  CHECK(origin.transfers() > before);
  CHECK(origin.transfers() < before + 4);
  // What was deleted does not come back with its volume.
  volumes.is_there[1] = true;
  const garner::Instant until = clock->now() + 10min;
  while (manager.status().away != 0 && clock->run_one_until(until)) {
  }
  CHECK(manager.wait_converged(1min));
  CHECK(manager.list_chunks() == std::vector<ChunkId>(all.begin() + 1, all.end()));
}
