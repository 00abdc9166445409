// SPDX-License-Identifier: BSL-1.0
//
// An executor that throws instead of taking a task: no call fails, no work is lost, and close returns. In one thread
// and a manual clock; on real threads in data_manager_threads.cpp.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "garner/data_manager.hpp"
#include "support/memory_world.hpp"
#include "support/refusing_executor.hpp"

using garner::ChunkState;
using garner::errc;
using garner::Event;
using garner::EventKind;
using garner::MemoryDownloader;
using garner::MemoryStorage;
using garner::test::chunk;
using garner::test::content;
using garner::test::dataset;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

using Refusing = garner::test::Refusing<garner::test::DrivenFromOutside>;
using Manager = garner::DataManager<MemoryStorage, MemoryDownloader, Refusing>;

/// Which of all tasks, by their number from 0, are refused.
struct Refusals {
  std::uint64_t first = ~std::uint64_t{0};
  std::uint64_t count = 0;
  bool posts = true;
  bool timers = true;
  std::uint64_t asked = 0;
  std::uint64_t refused = 0;

  void admit(bool is_timer) {
    const std::uint64_t number = asked++;
    if (number < first || number - first >= count || !(is_timer ? timers : posts)) return;
    switch (refused++ % 3) {
      case 0: throw std::bad_alloc();
      case 1: throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
      default: throw 1;
    }
  }
  void from_now_on() { first = asked, count = ~std::uint64_t{0}; }
  void no_more() { count = 0; }
};

struct World {
  Outside outside;
  std::shared_ptr<Refusals> refusals = std::make_shared<Refusals>();

  std::unique_ptr<Manager> make() const {
    garner::Options options;
    options.seed = 1;
    return std::make_unique<Manager>(
        MemoryStorage(outside.disk), MemoryDownloader(outside.origin),
        Refusing(garner::test::DrivenFromOutside(outside.clock), [r = refusals](bool timer) { r->admit(timer); }),
        options);
  }
};

/// Some of everything that a manager has tasks for. The same in the end, whatever is refused.
void live(World& world) {
  world.outside.disk = std::make_shared<MemoryStorage::Disk>(10'000);
  auto manager = world.make();
  int ready = 0;
  int closed = 0;
  const auto subscription = manager->subscribe([&](const Event& event) {
    if (event.kind == EventKind::chunk_ready) ++ready;
    if (event.kind == EventKind::closed) ++closed;
  });
  world.outside.origin.fail("mem://a/1", {errc::timed_out, 4, {}}, 2);
  manager->download_chunk(world.outside.offer("a", 0));
  manager->download_chunk(world.outside.offer("b", 10));
  REQUIRE(manager->wait_converged(1h));
  {
    const auto pin = manager->find_chunk(dataset(), 0);
    REQUIRE(pin);
    CHECK(content(*pin) == "bytes of mem://a/1");
    manager->delete_chunk(chunk("a").id);
    REQUIRE(manager->wait_converged(1h));
    manager->download_chunk(chunk("a", 0));  // revived
    manager->download_chunk(world.outside.offer("b", 10, 2));
    manager->verify();
    REQUIRE(manager->wait_converged(1h));
    manager->delete_chunk(chunk("a").id);
  }
  world.outside.origin.hold("mem://c/1", 3);
  manager->download_chunk(world.outside.offer("c", 20));
  CHECK_FALSE(manager->wait_converged(1s));
  manager->delete_chunk(chunk("c").id);
  REQUIRE(manager->wait_converged(1h));
  CHECK(manager->list_chunks().size() == 1);
  CHECK(content(manager->find_chunk(dataset(), 10).value()) == "bytes of mem://b/2");
  const garner::Status status = manager->status();
  CHECK(status.chunks_published == 3);
  CHECK(status.chunks_removed == 2);
  CHECK(status.store_bytes_free == 10'000 - 18);
  manager->download_chunk(world.outside.offer("c", 20));
  manager->close();
  CHECK(closed == 1);
  CHECK(ready == 4);
  manager.reset();
  CHECK(world.outside.clock->advance(24h) == 0);
}

}  // namespace

TEST_CASE("hostile 47: an executor that refuses any one task, or several in a row, loses no work") {
  World measured;
  live(measured);
  REQUIRE(measured.refusals->asked > 30);
  for (std::uint64_t first = 0; first < measured.refusals->asked; ++first) {
    for (const std::uint64_t count : {1U, 2U, 20U}) {
      CAPTURE(first);
      CAPTURE(count);
      World world;
      world.refusals->first = first;
      world.refusals->count = count;
      live(world);
      CHECK(world.refusals->refused > 0);
    }
  }
}

TEST_CASE("hostile 47: an executor that takes no timer at all loses no work as long as somebody waits") {
  World world;
  world.refusals->posts = false;
  world.refusals->from_now_on();
  live(world);
  CHECK(world.refusals->refused > 0);
}

TEST_CASE("hostile 47: what was refused is done after the next call, whatever that is") {
  World world;
  auto manager = world.make();
  manager->download_chunk(world.outside.offer("b", 10));
  REQUIRE(manager->wait_converged(1s));
  auto pin = manager->find_chunk(dataset(), 10);
  manager->delete_chunk(chunk("b").id);
  REQUIRE(manager->wait_converged(1s));
  world.refusals->from_now_on();
  manager->download_chunk(world.outside.offer("a", 0));
  world.outside.run();
  world.refusals->no_more();
  CHECK(manager->chunk_status(chunk("a").id)->state == ChunkState::downloading);
  CHECK_FALSE(manager->find_chunk(dataset(), 0));
  SUBCASE("a download") { manager->download_chunk(world.outside.offer("c", 20)); }
  SUBCASE("the deletion of a chunk that is not there") { manager->delete_chunk(chunk("nothing").id); }
  SUBCASE("other options") { manager->set_options({}); }
  SUBCASE("a scrub") { manager->verify(); }
  SUBCASE("the drop of a pin") { pin.reset(); }
  world.outside.run();
  CHECK(manager->find_chunk(dataset(), 0));
  CHECK(manager->status().chunks_removed == (pin ? 0 : 1));
}

TEST_CASE("hostile 47: an alarm that was refused is set with the next call") {
  World world;
  auto manager = world.make();
  world.refusals->posts = false;
  world.refusals->from_now_on();
  world.outside.origin.fail("mem://a/1", {errc::timed_out, 0, {}}, 1);
  manager->download_chunk(world.outside.offer("a"));
  CHECK(world.outside.clock->advance(24h) < 100);  // it does not insist
  CHECK(manager->chunk_status(chunk("a").id)->state == ChunkState::waiting);
  world.refusals->no_more();
  manager->delete_chunk(chunk("nothing").id);
  world.outside.clock->advance(1s);
  CHECK(manager->find_chunk(dataset(), 0));
}

TEST_CASE("hostile 47: an executor that was shut down takes nothing any more, and the manager closes all the same") {
  for (std::uint64_t first = 0; first < 40; ++first) {
    CAPTURE(first);
    World world;
    world.refusals->first = first;
    world.refusals->count = ~std::uint64_t{0};
    auto manager = world.make();
    int closed = 0;
    garner::Subscription subscription = manager->subscribe([&](const Event& event) {
      if (event.kind == EventKind::closed) ++closed;
      manager->close();
    });
    world.outside.origin.hold("mem://b/1", 3);
    manager->download_chunk(world.outside.offer("a", 0));
    manager->download_chunk(world.outside.offer("b", 10));
    world.outside.run();
    auto pin = manager->find_chunk(dataset(), 0);
    manager->delete_chunk(chunk("a").id);
    world.outside.run();
    manager->close();
    CHECK(closed == 1);
    CHECK(manager->status().closed);
    if (pin) CHECK(content(*pin) == "bytes of mem://a/1");
    pin.reset();
    std::error_code error;
    manager->download_chunk(chunk("a", 0), error);
    CHECK(error == errc::closed);
    manager.reset();
    CHECK(world.outside.clock->advance(24h) == 0);
  }
}
