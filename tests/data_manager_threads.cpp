// SPDX-License-Identifier: BSL-1.0
//
// The whole on real threads: callers, pinners, observers and changing options at once, with close in the middle. What
// they can see at any moment is checked, and in the end the last call about each id has won. Made for sanitizers.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"
#include "garner/data_manager.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/storage/memory_storage.hpp"
#include "support/memory_world.hpp"

using garner::AsioExecutor;
using garner::ChunkId;
using garner::DataChunk;
using garner::errc;
using garner::Event;
using garner::EventKind;
using garner::MemoryDownloader;
using garner::MemoryStorage;
using garner::Options;
using garner::core::Random;
using garner::test::chunk;
using garner::test::content;
using garner::test::dataset;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

using Manager = garner::DataManager<MemoryStorage, MemoryDownloader, AsioExecutor>;

constexpr std::uint64_t ids = 12;

DataChunk some_chunk(std::uint64_t number, int version) {
  return chunk("c" + std::to_string(number), number * 10, version);
}

Outside filled() {
  Outside outside;
  for (std::uint64_t number = 0; number < ids; ++number) {
    for (int version = 1; version <= 2; ++version) outside.offer(some_chunk(number, version));
  }
  return outside;
}

Options quick() {
  Options options;
  options.min_backoff = 1us;
  options.max_backoff = 1ms;
  options.no_space_retry = 1ms;
  return options;
}

/// A manager with `threads` threads of its own, whose downloads run as tasks on some others.
struct World {
  explicit World(unsigned threads = 3, std::uint64_t capacity = ~std::uint64_t{0})
      : outside(filled()),
        network(std::make_unique<AsioExecutor>(2)),
        manager(std::make_unique<Manager>(
            MemoryStorage(capacity),
            MemoryDownloader(outside.origin, [n = network.get()](std::function<void()> f) { n->post(std::move(f)); }),
            AsioExecutor(threads), quick())) {}

  Outside outside;
  std::unique_ptr<AsioExecutor> network;
  std::unique_ptr<Manager> manager;
};

}  // namespace

TEST_CASE("callers, pinners, observers and changing options at once: the last call about each id wins") {
  World world;
  Manager& manager = *world.manager;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;

  // Events about one chunk come in the order in which they happened: never twice ready without unlisted between.
  std::set<ChunkId> ready;
  const auto subscription = manager.subscribe([&](const Event& event) {
    if (event.kind == EventKind::chunk_ready && !ready.insert(event.id).second) ++wrong;
    if (event.kind == EventKind::chunk_unlisted && ready.erase(event.id) == 0) ++wrong;
  });

  // Each caller has ids of its own, so that it knows which call was the last.
  constexpr std::uint64_t callers = 3;
  std::vector<std::optional<int>> desired(ids);
  for (std::uint64_t caller = 0; caller < callers; ++caller) {
    threads.emplace_back([&, caller] {
      Random random(caller);
      for (int i = 0; i < 300; ++i) {
        const std::uint64_t number = caller + callers * (random.next() % (ids / callers));
        if (random.next() % 2 == 0) {
          const int version = 1 + static_cast<int>(random.next() % 2);
          manager.download_chunk(some_chunk(number, version));
          desired[number] = version;
        } else {
          manager.delete_chunk(some_chunk(number, 1).id);
          desired[number].reset();
          if (manager.find_chunk(dataset(), number * 10)) ++wrong;  // linearizable
        }
      }
    });
  }
  std::vector<std::thread> others;
  for (std::uint64_t pinner = 0; pinner < 2; ++pinner) {
    others.emplace_back([&, pinner] {
      Random random(100 + pinner);
      std::vector<Manager::ChunkRef> pins;
      while (!stop) {
        const std::uint64_t number = random.next() % ids;
        if (auto pin = manager.find_chunk(dataset(), number * 10 + 5)) {
          if (pin->id() != some_chunk(number, 1).id) ++wrong;
          pins.push_back(*std::move(pin));
        }
        for (auto& pin : manager.find_chunks(dataset(), {0, ids * 10})) {
          if (random.next() % 8 == 0) pins.push_back(std::move(pin));
        }
        for (const auto& pin : pins) {
          const std::string name = "c" + std::to_string(pin.block_range().begin / 10);
          const std::string bytes = content(pin);
          if (bytes != "bytes of mem://" + name + "/1" && bytes != "bytes of mem://" + name + "/2") ++wrong;
          if (pin.files().size() != 1) ++wrong;
        }
        if (pins.size() > 20) pins.clear();
      }
    });
  }
  others.emplace_back([&] {
    Random random(200);
    while (!stop) {
      Options options = quick();
      options.max_concurrent_chunks = 1 + random.next() % 4;
      options.max_concurrent_files = 1 + random.next() % 4;
      options.revive = random.next() % 2 == 0;
      manager.set_options(options);
      const auto listed = manager.list_chunks();
      if (std::set<ChunkId>(listed.begin(), listed.end()).size() != listed.size()) ++wrong;
      static_cast<void>(manager.status());
      static_cast<void>(manager.chunk_status(some_chunk(random.next() % ids, 1).id));
      manager.verify();
      const auto brief = manager.subscribe([](const Event&) {});
      std::this_thread::yield();
    }
  });
  for (std::uint64_t i = 0; i < 200; ++i) {
    world.outside.origin.fail("mem://c" + std::to_string(i % ids) + "/1", {errc::connection_failed, i % 9});
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  for (std::thread& thread : others) thread.join();
  CHECK(wrong == 0);
  manager.set_options(quick());
  REQUIRE(manager.wait_converged(60s));
  for (std::uint64_t number = 0; number < ids; ++number) {
    CAPTURE(number);
    const auto found = manager.find_chunk(dataset(), number * 10);
    REQUIRE(found.has_value() == desired[number].has_value());
    if (!found) continue;
    CHECK(content(*found) == "bytes of mem://c" + std::to_string(number) + "/" + std::to_string(*desired[number]));
  }
  CHECK(manager.status().ready == manager.list_chunks().size());
}

TEST_CASE("readers see an assignment whole, whatever they catch") {
  World world;
  Manager& manager = *world.manager;
  std::vector<DataChunk> even;
  std::vector<DataChunk> odd;
  for (std::uint64_t number = 0; number < ids; ++number)
    (number % 2 == 0 ? even : odd).push_back(some_chunk(number, 1));
  std::vector<DataChunk> all = even;
  all.insert(all.end(), odd.begin(), odd.end());
  manager.set_assignment(all);
  REQUIRE(manager.wait_converged(60s));
  const auto pins = manager.find_chunks(dataset(), {0, ids * 10});  // so that all are revived at once
  REQUIRE(pins.size() == ids);
  manager.set_assignment(even);

  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> readers;
  readers.reserve(3);
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const auto seen = manager.find_chunks(dataset(), {0, ids * 10});
        if (seen.size() != ids / 2) ++wrong;
        for (const auto& ref : seen) {
          if (ref.block_range().begin / 10 % 2 != seen.front().block_range().begin / 10 % 2) ++wrong;
        }
      }
    });
  }
  garner::Epoch last = 0;
  for (int i = 0; i < 300; ++i) last = manager.set_assignment(i % 2 == 0 ? odd : even);
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  REQUIRE(manager.wait_converged(60s));
  CHECK(manager.status().converged_epoch == last);
}

TEST_CASE("close and the end of the manager while everything is under way") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    World world(1 + static_cast<unsigned>(seed % 3), seed % 4 == 0 ? 60 : ~std::uint64_t{0});
    Manager& manager = *world.manager;
    std::atomic<std::uint64_t> wrong{0};
    std::atomic<bool> closed{false};
    std::atomic<std::uint64_t> ended{0};
    const auto subscription = manager.subscribe([&](const Event& event) {
      if (closed) ++wrong;  // nothing after the last one
      if (event.kind == EventKind::closed) closed = true;
    });
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::vector<Manager::ChunkRef> pins;
    for (std::uint64_t caller = 0; caller < 3; ++caller) {
      threads.emplace_back([&, caller] {
        Random random(seed * 10 + caller);
        for (int i = 0; i < 60; ++i) {
          std::error_code error;
          manager.download_chunk(some_chunk(random.next() % ids, 1 + static_cast<int>(random.next() % 2)), error);
          if (error && error != errc::closed) ++wrong;
          manager.delete_chunk(some_chunk(random.next() % ids, 1).id);
          if (auto pin = manager.find_chunk(dataset(), random.next() % (ids * 10))) {
            const std::scoped_lock lock(mutex);
            pins.push_back(*std::move(pin));
          }
          if (caller == 0 && i == 20 + static_cast<int>(seed)) manager.close();
        }
        ++ended;
      });
    }
    for (std::thread& thread : threads) thread.join();
    manager.close();
    CHECK(closed);
    CHECK(ended == 3);
    // Pins are dropped on another thread while the manager ends.
    std::thread dropper([&pins] {
      while (pins.size() > 1) pins.pop_back();
    });
    world.manager.reset();
    dropper.join();
    for (const auto& pin : pins) CHECK(content(pin).starts_with("bytes of"));
    CHECK(wrong == 0);
  }
}

TEST_CASE("the manager ends while an alarm rings and the last pins are dropped") {
  for (int i = 0; i < 300; ++i) {
    World world(2);
    world.outside.origin.fail("mem://c1/1", {errc::connection_failed}, 1'000'000);
    for (std::uint64_t number = 0; number < 4; ++number) world.manager->download_chunk(some_chunk(number, 1));
    std::vector<Manager::ChunkRef> pins;
    while (pins.size() < 3) pins = world.manager->find_chunks(dataset(), {0, ids * 10});
    for (const auto& pin : pins) world.manager->delete_chunk(pin.id());
    std::atomic<bool> ending{false};
    std::thread dropper([&] {
      while (!ending) std::this_thread::yield();
      pins.clear();
    });
    if (i % 2 == 0) world.manager->close();
    ending = true;
    world.manager.reset();
    dropper.join();
  }
}

TEST_CASE("a chunk that is deleted while its transfer is being started is stopped all the same") {
  // The race of a stop with the handle that it needs, in one thread: the downloader lets both happen inside `start`.
  struct Interrupted {
    using Transfer = MemoryDownloader::Transfer;
    MemoryDownloader downloader;
    std::shared_ptr<std::function<void()>> meanwhile;
    [[nodiscard]] std::error_code check_url(std::string_view url) const { return downloader.check_url(url); }
    Transfer start(garner::FetchRequest request, std::shared_ptr<garner::FetchSink> sink) {
      Transfer transfer = downloader.start(std::move(request), std::move(sink));
      (*meanwhile)();
      return transfer;
    }
    void cancel(const Transfer& transfer) { downloader.cancel(transfer); }
  };
  Outside outside;
  const auto meanwhile = std::make_shared<std::function<void()>>([] {});
  garner::DataManager<MemoryStorage, Interrupted, garner::test::DrivenFromOutside> manager(
      MemoryStorage(outside.disk), {MemoryDownloader(outside.origin), meanwhile},
      garner::test::DrivenFromOutside(outside.clock));
  const DataChunk wanted = outside.offer("a");
  outside.origin.hold("mem://a/1", 3);
  *meanwhile = [&] {
    manager.delete_chunk(wanted.id);
    outside.run();
  };
  manager.download_chunk(wanted);
  CHECK(manager.wait_converged(1s));
  CHECK_FALSE(manager.chunk_status(wanted.id));
}

TEST_CASE("hostile 46: an observer on the only thread there is may close the manager, and nothing waits for itself") {
  World world(1);
  world.outside.origin.hold("mem://c1/1");
  std::promise<void> inside;
  std::promise<void> closed;
  const auto subscription = world.manager->subscribe([&](const Event& event) {
    if (event.kind == EventKind::chunk_ready) {
      world.manager->close();
      inside.set_value();
    }
    if (event.kind == EventKind::closed) closed.set_value();
  });
  std::error_code error;
  world.manager->download_chunk(some_chunk(1, 1), error);
  CHECK_FALSE(error);
  world.manager->download_chunk(some_chunk(0, 1), error);
  CHECK_FALSE(error);
  REQUIRE(inside.get_future().wait_for(60s) == std::future_status::ready);
  REQUIRE(closed.get_future().wait_for(60s) == std::future_status::ready);
  world.manager->download_chunk(some_chunk(2, 1), error);
  CHECK(error == errc::closed);
  world.manager.reset();
}

TEST_CASE("hostile 46: a slow observer holds up nobody but other observers") {
  World world(2);
  std::promise<void> release;
  const auto released = release.get_future().share();
  const auto subscription = world.manager->subscribe([released](const Event&) { released.wait(); });
  for (std::uint64_t number = 0; number < ids; ++number) world.manager->download_chunk(some_chunk(number, 1));
  CHECK(world.manager->wait_converged(60s));
  CHECK(world.manager->list_chunks().size() == ids);
  release.set_value();
}
