// SPDX-License-Identifier: BSL-1.0
//
// The whole, on memory policies and a manual clock in one thread: what the calls mean (section 3 of the design), pins,
// observers, restarts, and policies that throw.
#include "garner/data_manager.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/memory_world.hpp"

using garner::BlockRange;
using garner::ChunkId;
using garner::ChunkState;
using garner::DataChunk;
using garner::errc;
using garner::Event;
using garner::EventKind;
using garner::MemoryDownloader;
using garner::MemoryStorage;
using garner::Options;
using garner::test::chunk;
using garner::test::content;
using garner::test::dataset;
using garner::test::make_manager;
using garner::test::MemoryManager;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

errc code_of(const std::error_code& code) {
  return code.category() == garner::error_category() ? static_cast<errc>(code.value()) : errc();
}

/// What an observer was told, for instance "ready a, converged".
struct Told {
  std::vector<Event> events;
  std::function<void(const Event&)> observer() {
    return [this](const Event& event) { events.push_back(event); };
  }
  std::string text() {
    std::string out;
    for (const Event& event : std::exchange(events, {})) {
      out += (out.empty() ? "" : ", ") + std::string(to_string(event.kind));
    }
    return out;
  }
};

}  // namespace

// ---- download_chunk

TEST_CASE("a chunk that was asked for is fetched, found and listed") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 100));
  CHECK_FALSE(manager.find_chunk(dataset(), 100));
  CHECK(manager.list_chunks().empty());
  CHECK(manager.wait_converged(1s));
  CHECK(manager.list_chunks() == std::vector<ChunkId>{chunk("a").id});
  const auto found = manager.find_chunk(dataset(), 109);
  REQUIRE(found);
  CHECK(found->id() == chunk("a").id);
  CHECK(found->dataset_id() == dataset());
  CHECK(found->block_range() == BlockRange{100, 110});
  CHECK(content(*found) == "bytes of mem://a/1");
  CHECK(found->bytes() == 18);
  CHECK(found->files().at("data").size == 18);
  CHECK_FALSE(manager.find_chunk(dataset(), 99));
  CHECK_FALSE(manager.find_chunk(dataset(), 110));
  CHECK_FALSE(manager.find_chunk(dataset("other"), 100));
}

TEST_CASE("a repeated wish costs no byte") {
  Outside outside;
  auto manager = make_manager(outside);
  for (int i = 0; i < 3; ++i) manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  for (int i = 0; i < 3; ++i) manager.download_chunk(chunk("a"));
  CHECK(manager.wait_converged(0s));
  CHECK(outside.origin.transfers() == 1);
}

TEST_CASE("an invalid description changes nothing, whichever way it is told") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk bad = chunk("a");
  errc expected = errc::empty_block_range;
  SUBCASE("range") { bad.block_range = {5, 5}; }
  SUBCASE("scheme") {
    bad.files["data"] = "file:///etc/passwd";
    expected = errc::scheme_not_allowed;
  }
  SUBCASE("URL") {
    bad.files["data"] = "nonsense";
    expected = errc::invalid_url;
  }
  SUBCASE("a limit of the options") {
    Options options;
    options.max_files = 0;
    manager.set_options(options);
    expected = errc::too_many_files;
  }
  std::error_code error;
  manager.download_chunk(bad, error);
  CHECK(error == expected);
  try {
    manager.download_chunk(bad);
    FAIL("did not throw");
  } catch (const garner::Error& thrown) {
    CHECK(thrown.code() == expected);
    CHECK(thrown.subject().find(bad.id.to_hex()) != std::string::npos);
  }
  CHECK_THROWS_AS(manager.set_assignment(std::vector{bad}), garner::Error);
  CHECK_FALSE(manager.chunk_status(bad.id));
  CHECK(manager.status().assigned_epoch == 0);
}

TEST_CASE("hostile 13: a credential in a URL is not in the message of its rejection") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk bad = chunk("a");
  bad.files["data"] = "ftp://user:pass@host/x";
  try {
    manager.download_chunk(bad);
    FAIL("did not throw");
  } catch (const garner::Error& error) {
    CHECK(error.code() == errc::scheme_not_allowed);
    CHECK(std::string(error.what()).find("pass") == std::string::npos);
    CHECK(std::string(error.what()).find("ftp://host/x") != std::string::npos);
  }
}

TEST_CASE("a ready chunk that is replaced serves until the new one is published, and then drains") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 0, 1));
  manager.wait_converged(1s);
  auto old = manager.find_chunk(dataset(), 0);
  REQUIRE(old);
  outside.origin.hold("mem://a/2");
  manager.download_chunk(outside.offer("a", 0, 2));
  outside.run();
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
  outside.origin.release("mem://a/2");
  CHECK(manager.wait_converged(1s));
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/2");
  CHECK(content(*old) == "bytes of mem://a/1");
  CHECK(manager.status().draining == 1);
  CHECK(manager.list_chunks().size() == 1);
  old.reset();
  CHECK(manager.wait_converged(1s));
  CHECK(manager.status().draining == 0);
  CHECK(manager.status().chunks_removed == 1);
}

// ---- delete_chunk

TEST_CASE("after delete_chunk has returned the chunk is not found, and its pins are still good") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  auto pin = manager.find_chunk(dataset(), 0);
  manager.delete_chunk(chunk("a").id);
  CHECK_FALSE(manager.find_chunk(dataset(), 0));
  CHECK(manager.list_chunks().empty());
  CHECK(manager.find_chunks(dataset(), {0, 100}).empty());
  CHECK(manager.wait_converged(1s));
  CHECK(content(*pin) == "bytes of mem://a/1");
  CHECK(manager.chunk_status(chunk("a").id)->state == ChunkState::draining);
  auto copy = pin;
  pin.reset();
  manager.wait_converged(1s);
  CHECK(content(*copy) == "bytes of mem://a/1");
  copy.reset();
  CHECK(manager.wait_converged(1s));
  CHECK_FALSE(manager.chunk_status(chunk("a").id));
  CHECK(manager.status().store_bytes_used == 0);
}

TEST_CASE("deleting a chunk while it is fetched stops the transfer and removes the staged bytes") {
  Outside outside;
  auto manager = make_manager(outside);
  outside.origin.hold("mem://a/1", 5);
  manager.download_chunk(outside.offer("a"));
  outside.run();
  CHECK(manager.chunk_status(chunk("a").id)->state == ChunkState::downloading);
  manager.delete_chunk(chunk("a").id);
  CHECK(manager.wait_converged(1s));
  CHECK_FALSE(manager.chunk_status(chunk("a").id));
  CHECK(outside.origin.bytes() == 5);
  CHECK(manager.status().bytes_wasted == 5);
  CHECK(manager.status().store_bytes_used == 0);
}

TEST_CASE("a draining chunk that is asked for again is revived at once, and no byte moves") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  auto pin = manager.find_chunk(dataset(), 0);
  for (int i = 0; i < 5; ++i) {
    manager.delete_chunk(chunk("a").id);
    if (i % 2 == 0) manager.wait_converged(1s);
    manager.download_chunk(chunk("a"));
    CHECK(manager.find_chunk(dataset(), 0));  // before anything ran
    CHECK(manager.find_chunk(dataset(), 0)->generation() == pin->generation());
  }
  CHECK(manager.wait_converged(1s));
  pin.reset();
  CHECK(manager.wait_converged(1s));
  CHECK(manager.find_chunk(dataset(), 0));
  CHECK(outside.origin.transfers() == 1);
}

TEST_CASE("a revived chunk whose old pins go is removed when its new pins go, and not before") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  auto pin = manager.find_chunk(dataset(), 0);
  manager.delete_chunk(chunk("a").id);
  manager.download_chunk(chunk("a"));
  auto later = manager.find_chunk(dataset(), 0);
  manager.delete_chunk(chunk("a").id);
  pin.reset();
  manager.wait_converged(1s);
  CHECK(content(*later) == "bytes of mem://a/1");
  later.reset();
  manager.wait_converged(1s);
  CHECK(manager.status().chunks_removed == 1);
}

TEST_CASE("a draining chunk is fetched anew where revival is switched off") {
  Outside outside;
  Options options;
  options.revive = false;
  auto manager = make_manager(outside, options);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  const auto pin = manager.find_chunk(dataset(), 0);
  manager.delete_chunk(chunk("a").id);
  manager.download_chunk(chunk("a"));
  CHECK_FALSE(manager.find_chunk(dataset(), 0));
  CHECK(manager.wait_converged(1s));
  CHECK(manager.find_chunk(dataset(), 0)->generation() != pin->generation());
  CHECK(content(*pin) == "bytes of mem://a/1");
  CHECK(outside.origin.transfers() == 2);
}

TEST_CASE("a chunk that is asked for again while it is removed is fetched anew") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  manager.delete_chunk(chunk("a").id);
  manager.download_chunk(chunk("a"));
  CHECK(manager.wait_converged(1s));
  CHECK(manager.find_chunk(dataset(), 0));
  manager.delete_chunk(chunk("a").id);
  outside.run();
  CHECK_FALSE(manager.chunk_status(chunk("a").id));
}

// ---- lookups

TEST_CASE("where ranges overlap the greatest begin is found, and find_chunks tells all, by begin") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk wide = outside.offer("wide", 0);
  wide.block_range = {0, 100};
  manager.download_chunk(wide);
  manager.download_chunk(outside.offer("inner", 40));
  manager.download_chunk(outside.offer("fork", 40));
  manager.download_chunk(outside.offer("first", 5));
  REQUIRE(manager.wait_converged(1s));
  CHECK(manager.find_chunk(dataset(), 0)->id() == wide.id);
  CHECK(manager.find_chunk(dataset(), 7)->id() == chunk("first").id);
  CHECK(manager.find_chunk(dataset(), 45)->id() == chunk("fork").id);  // asked for last
  CHECK(manager.find_chunk(dataset(), 50)->id() == wide.id);
  std::vector<ChunkId> ids;
  for (const auto& ref : manager.find_chunks(dataset(), {10, 45})) ids.push_back(ref.id());
  CHECK(ids == std::vector<ChunkId>{wide.id, chunk("first").id, chunk("inner").id, chunk("fork").id});
  CHECK(manager.find_chunks(dataset(), {15, 40}).size() == 1);
  CHECK(manager.find_chunks(dataset(), {40, 40}).empty());
  CHECK(manager.find_chunks(dataset("other"), {0, 100}).empty());
  manager.delete_chunk(chunk("fork").id);
  CHECK(manager.find_chunk(dataset(), 45)->id() == chunk("inner").id);
}

// ---- pins

TEST_CASE("a pin outlives close and the manager, and holds the store until it is dropped") {
  Outside outside;
  std::optional<MemoryManager::ChunkRef> pin;
  {
    auto manager = make_manager(outside);
    manager.download_chunk(outside.offer("a"));
    manager.wait_converged(1s);
    pin = manager.find_chunk(dataset(), 0);
    manager.delete_chunk(chunk("a").id);
    manager.close();
    CHECK(content(*pin) == "bytes of mem://a/1");
  }
  CHECK(content(*pin) == "bytes of mem://a/1");
  CHECK(pin->files().contains("data"));
  try {
    const MemoryStorage second(outside.disk);
    FAIL("the store is held");
  } catch (const garner::Error& error) {
    CHECK(error.code() == errc::directory_in_use);
  }
  pin.reset();
  auto manager = make_manager(outside);
  // The deletion was asked for, and only the pin held it up.
  CHECK(manager.list_chunks().empty());
  CHECK(manager.wait_converged(1s));
  CHECK(manager.status().store_bytes_used == 0);
}

TEST_CASE("a pin may be dropped by an observer") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  auto pin = manager.find_chunk(dataset(), 0);
  const auto subscription = manager.subscribe([&pin](const Event&) { pin.reset(); });
  manager.delete_chunk(chunk("a").id);
  outside.run();
  CHECK_FALSE(pin);
  CHECK(manager.status().converged);
  CHECK(manager.status().chunks_removed == 1);
}

// ---- restarts

TEST_CASE("what the store holds is the desired state at the start, and asking for it costs no byte") {
  Outside outside;
  {
    auto manager = make_manager(outside);
    manager.download_chunk(outside.offer("a", 0));
    manager.download_chunk(outside.offer("b", 10));
    REQUIRE(manager.wait_converged(1s));
  }
  auto manager = make_manager(outside);
  CHECK(manager.list_chunks().size() == 2);
  CHECK(manager.status().ready == 2);
  CHECK(manager.wait_converged(1s));
  manager.download_chunk(chunk("a", 0));
  CHECK(manager.find_chunk(dataset(), 0));
  CHECK(manager.wait_converged(1s));
  CHECK(outside.origin.transfers() == 2);
  manager.download_chunk(outside.offer("a", 0, 2));
  CHECK(manager.wait_converged(1s));
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/2");
}

TEST_CASE("a transfer that close has stopped is fetched when its chunk is asked for at the next start") {
  Outside outside;
  outside.origin.hold("mem://a/1", 5);
  {
    auto manager = make_manager(outside);
    manager.download_chunk(outside.offer("a"));
    outside.run();
    manager.close();
    CHECK(manager.list_chunks().empty());
  }
  outside.origin.release("mem://a/1");
  auto manager = make_manager(outside);
  manager.download_chunk(chunk("a"));
  CHECK(manager.wait_converged(1s));
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
}

TEST_CASE("what an earlier run had of a chunk is gone on with, and costs no byte again") {
  Outside outside;
  garner::Options options;
  options.checkpoint_bytes = 4;
  outside.origin.hold("mem://a/1", 10);
  {
    auto manager = make_manager(outside, options);
    manager.download_chunk(outside.offer("a"));
    outside.run();
    manager.close();
    CHECK(outside.origin.bytes() == 10);
  }
  outside.origin.release("mem://a/1");
  SUBCASE("by a manager that is asked for it") {
    auto manager = make_manager(outside, options);
    manager.download_chunk(chunk("a"));
    REQUIRE(manager.wait_converged(1s));
    CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
    CHECK(outside.origin.bytes() == 18);
    const garner::Status status = manager.status();
    CHECK(status.bytes_resumed == 10);
    CHECK(status.bytes_received == 8);
    CHECK(status.bytes_wasted == 0);
  }
  SUBCASE("but not where the server has something else now") {
    outside.origin.put("mem://a/1", "other bytes");
    auto manager = make_manager(outside, options);
    manager.download_chunk(chunk("a"));
    REQUIRE(manager.wait_converged(1s));
    CHECK(content(manager.find_chunk(dataset(), 0).value()) == "other bytes");
    CHECK(manager.status().bytes_wasted == 10);
  }
  SUBCASE("nor where nobody has asked for it for too long") {
    options.staging_ttl = 10s;
    auto manager = make_manager(outside, options);
    CHECK(manager.wait_converged(1s));
    outside.clock->advance(9s);
    outside.run();
    CHECK(manager.status().store_bytes_free == UINT64_MAX - 10);
    outside.clock->advance(1s);
    outside.run();
    CHECK(manager.status().store_bytes_free == UINT64_MAX);
    manager.download_chunk(chunk("a"));
    REQUIRE(manager.wait_converged(1s));
    CHECK(manager.status().bytes_resumed == 0);
  }
}

TEST_CASE("a file that was whole when its run ended is not asked for again") {
  Outside outside;
  garner::Options options;
  options.checkpoint_bytes = 4;
  DataChunk both = chunk("a");
  both.files["more"] = "mem://more";
  outside.offer(both);
  outside.origin.hold("mem://more");
  {
    auto manager = make_manager(outside, options);
    manager.download_chunk(both);
    outside.run();
    CHECK(outside.origin.transfers("mem://a/1") == 1);
  }
  outside.origin.release("mem://more");
  auto manager = make_manager(outside, options);
  manager.download_chunk(both);
  REQUIRE(manager.wait_converged(1s));
  CHECK(outside.origin.transfers("mem://a/1") == 1);
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
}

// ---- assignments

TEST_CASE("an assignment is what is wanted and nothing else, and its number is converged to") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 0));
  manager.download_chunk(outside.offer("b", 10));
  manager.wait_converged(1s);
  CHECK(manager.status().converged_epoch == 0);
  CHECK(manager.set_assignment(std::vector{chunk("b", 10), outside.offer("c", 20)}) == 1);
  CHECK_FALSE(manager.find_chunk(dataset(), 0));
  CHECK(manager.find_chunk(dataset(), 10));
  CHECK(manager.status().converged_epoch == 0);
  CHECK(manager.wait_converged(1s));
  CHECK(manager.status().assigned_epoch == 1);
  CHECK(manager.status().converged_epoch == 1);
  CHECK(manager.status().ready == 2);
  SUBCASE("also where it says what is there already") {
    Told told;
    const auto subscription = manager.subscribe(told.observer());
    CHECK(manager.set_assignment(std::vector{chunk("b", 10), chunk("c", 20)}) == 2);
    CHECK(manager.wait_converged(1s));
    CHECK(manager.status().converged_epoch == 2);
    outside.run();
    REQUIRE(told.events.size() == 1);
    CHECK(told.events[0].kind == EventKind::converged);
    CHECK(told.events[0].epoch == 2);
  }
  SUBCASE("an empty one drops all") {
    manager.set_assignment({});
    CHECK(manager.list_chunks().empty());
    CHECK(manager.wait_converged(1s));
    CHECK(manager.status().store_bytes_used == 0);
  }
  SUBCASE("one with an invalid description changes nothing") {
    DataChunk bad = chunk("bad");
    bad.files.clear();
    CHECK_THROWS_AS(manager.set_assignment(std::vector{outside.offer("d", 30), bad}), garner::Error);
    CHECK(manager.status().assigned_epoch == 1);
    CHECK(manager.status().converged);
    CHECK(manager.list_chunks().size() == 2);
  }
}

// ---- waiting, counting, limits

TEST_CASE("wait_converged is false where it takes longer than the timeout, and takes exactly that long") {
  Outside outside;
  auto manager = make_manager(outside);
  outside.origin.hold("mem://a/1");
  manager.download_chunk(outside.offer("a"));
  const auto before = outside.clock->now();
  CHECK_FALSE(manager.wait_converged(90s));
  CHECK(outside.clock->now() == before + 90s);
  CHECK_FALSE(manager.wait_converged(0s));
  CHECK_FALSE(manager.wait_converged(-1s));
  outside.origin.release("mem://a/1");
  CHECK(manager.wait_converged(std::chrono::nanoseconds::max()));
}

TEST_CASE("a failed chunk is tried again for ever, and its status says why and when") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk wanted = chunk("a");
  wanted.files["data"] = "http://user:pass@host/a?token=t";
  outside.offer(wanted);
  outside.origin.fail(wanted.files.at("data").urls[0], {errc::server_unavailable, 0, 7s}, 3);
  Told told;
  const auto subscription = manager.subscribe(told.observer());
  manager.download_chunk(wanted);
  outside.run();
  const auto status = manager.chunk_status(wanted.id).value();
  CHECK(status.state == ChunkState::waiting);
  CHECK(status.wanted);
  CHECK_FALSE(status.served);
  CHECK(status.attempts == 1);
  CHECK(status.last_error == errc::server_unavailable);
  CHECK(status.last_error_subject.find("http://host/a") != std::string::npos);
  CHECK(status.last_error_subject.find("pass") == std::string::npos);
  CHECK(status.last_error_subject.find("token") == std::string::npos);
  REQUIRE(status.next_try_in);
  CHECK(*status.next_try_in >= 7s);
  CHECK(manager.status().waiting == 1);
  REQUIRE(told.events.size() == 1);
  CHECK(told.events[0].error == errc::server_unavailable);
  CHECK(told.events[0].subject.find("pass") == std::string::npos);
  CHECK(manager.wait_converged(1min));
  CHECK(manager.chunk_status(wanted.id)->attempts == 0);
  CHECK(manager.status().attempts_failed == 3);
}

TEST_CASE("a full store parks, and goes on once something was removed") {
  Outside outside;
  outside.disk = std::make_shared<MemoryStorage::Disk>(20);
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 0));
  REQUIRE(manager.wait_converged(1s));
  manager.download_chunk(outside.offer("b", 10));
  CHECK_FALSE(manager.wait_converged(5min));
  CHECK(manager.status().parked == 1);
  CHECK(manager.find_chunk(dataset(), 0));
  CHECK(manager.chunk_status(chunk("b").id)->last_error_class == garner::ErrorClass::no_space);
  manager.delete_chunk(chunk("a").id);
  CHECK(manager.wait_converged(1s));
  CHECK(manager.find_chunk(dataset(), 10));
}

TEST_CASE("limits change while it runs") {
  Outside outside;
  Options options;
  options.max_concurrent_chunks = 1;
  auto manager = make_manager(outside, options);
  for (int i = 0; i < 4; ++i) {
    const std::string name = std::to_string(i);
    outside.origin.hold("mem://" + name + "/1");
    manager.download_chunk(outside.offer(name, static_cast<garner::BlockNumber>(i) * 10));
  }
  outside.run();
  CHECK(outside.origin.transfers() == 1);
  CHECK(manager.status().queued == 3);
  options.max_concurrent_chunks = 3;
  manager.set_options(options);
  outside.run();
  CHECK(outside.origin.transfers() == 3);
  CHECK(manager.status().downloading == 3);
  for (int i = 0; i < 4; ++i) outside.origin.release("mem://" + std::to_string(i) + "/1");
  CHECK(manager.wait_converged(1s));
}

TEST_CASE("the status tells bytes and counts") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 0));
  manager.download_chunk(outside.offer("b", 10));
  manager.wait_converged(1s);
  manager.delete_chunk(chunk("b").id);
  manager.wait_converged(1s);
  const garner::Status status = manager.status();
  CHECK(status.ready == 1);
  CHECK(status.bytes_ready == 18);
  CHECK(status.bytes_received == 36);
  CHECK(status.bytes_per_second > 0);
  CHECK(status.store_bytes_used == 18);
  CHECK(status.chunks_published == 2);
  CHECK(status.chunks_removed == 1);
  CHECK(status.converged);
  CHECK_FALSE(status.closed);
  outside.clock->advance(1min);
  CHECK(manager.status().bytes_per_second == 0);
}

TEST_CASE("verify finds a chunk that changed, serves it no more, and fetches it anew") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a", 0));
  manager.download_chunk(outside.offer("b", 10));
  manager.wait_converged(1s);
  const auto good = manager.find_chunk(dataset(), 10)->generation();
  Told told;
  const auto subscription = manager.subscribe(told.observer());
  manager.verify();
  outside.run();
  CHECK(told.text() == "scrubbed");
  CHECK(manager.status().scrub.chunks_done == 2);
  CHECK(manager.status().bytes_verified == manager.status().bytes_ready);
  const auto corrupt = manager.find_chunk(dataset(), 0).value();
  {
    auto& held = const_cast<garner::MemoryChunk&>(*manager.find_chunk(dataset(), 0)->location());
    held.files.at("data")[3] = std::byte{0};
  }
  manager.verify();
  CHECK(manager.wait_converged(1s));
  outside.run();
  REQUIRE(told.events.size() >= 4);
  CHECK(told.events[0].kind == EventKind::chunk_failed);
  CHECK(told.events[0].error == errc::corrupt_chunk);
  CHECK(told.events[0].generation == corrupt.generation());
  CHECK(told.text() == "failed, unlisted, scrubbed, ready, converged");
  const auto copy = corrupt;  // NOLINT(performance-unnecessary-copy-initialization): it is what is asked
  CHECK(copy.is_corrupt());
  CHECK_FALSE(manager.find_chunk(dataset(), 0)->is_corrupt());
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
  CHECK(manager.find_chunk(dataset(), 10)->generation() == good);
}

// ---- observers

TEST_CASE("observers are told what happens, in order, and closed last") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.wait_converged(1s);
  Told told;
  auto subscription = manager.subscribe(told.observer());
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  outside.run();
  CHECK(told.text() == "ready, converged");
  manager.delete_chunk(chunk("a").id);
  manager.wait_converged(1s);
  outside.run();
  CHECK(told.text() == "unlisted, removed, converged");
  manager.close();
  CHECK(told.text() == "closed");
  manager.close();
  outside.run();
  CHECK(told.text() == "");
  subscription.reset();
}

TEST_CASE("an observer that was unsubscribed is not called any more, and may unsubscribe inside itself") {
  Outside outside;
  auto manager = make_manager(outside);
  int calls = 0;
  garner::Subscription subscription;
  subscription = manager.subscribe([&](const Event&) {
    ++calls;
    subscription.reset();
  });
  Told told;
  auto other = manager.subscribe(told.observer());
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  outside.run();
  CHECK(calls == 1);
  CHECK(told.text() == "ready, converged");
  other.reset();
  manager.delete_chunk(chunk("a").id);
  manager.wait_converged(1s);
  CHECK(told.text() == "");
}

TEST_CASE("an observer may own its own subscription and others, and end with them inside itself") {
  Outside outside;
  auto manager = make_manager(outside);
  struct Owner {
    garner::Subscription own;
    garner::Subscription other;
    int* ended = nullptr;
    ~Owner() { ++*ended; }
  };
  int ended = 0;
  int others = 0;
  {
    auto owner = std::make_shared<Owner>();
    owner->ended = &ended;
    owner->other = manager.subscribe([&others](const Event&) { ++others; });
    owner->own = manager.subscribe([owner](const Event&) { owner->own.reset(); });
  }
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  outside.run();
  CHECK(ended == 1);
  CHECK(others == 1);
}

TEST_CASE("a subscription may be dropped after the manager is gone") {
  Outside outside;
  garner::Subscription subscription;
  Told told;
  {
    auto manager = make_manager(outside);
    subscription = manager.subscribe(told.observer());
  }
  CHECK(told.text().find("closed") != std::string::npos);
  subscription.reset();
}

TEST_CASE("hostile 46: an observer that throws disturbs nobody") {
  Outside outside;
  auto manager = make_manager(outside);
  Told told;
  const auto throws = manager.subscribe([](const Event&) { throw std::runtime_error("observer"); });
  const auto throws_int = manager.subscribe([](const Event&) { throw 1; });
  const auto good = manager.subscribe(told.observer());
  manager.download_chunk(outside.offer("a"));
  CHECK(manager.wait_converged(1s));
  outside.run();
  CHECK(told.text() == "ready, converged");
}

TEST_CASE("hostile 46: an observer may call the manager back in any way, close among them") {
  Outside outside;
  auto manager = make_manager(outside);
  outside.offer("b", 10);
  outside.origin.hold("mem://c/1");
  manager.download_chunk(outside.offer("c", 20));
  std::vector<EventKind> kinds;
  bool called = false;
  garner::Subscription inner;
  const auto subscription = manager.subscribe([&](const Event& event) {
    kinds.push_back(event.kind);
    if (event.kind != EventKind::chunk_ready || std::exchange(called, true)) return;
    manager.download_chunk(chunk("b", 10));
    manager.delete_chunk(chunk("a").id);
    manager.set_options({});
    manager.verify();
    inner = manager.subscribe([](const Event&) {});
    CHECK(manager.status().ready + manager.status().downloading > 0);
    CHECK_FALSE(manager.wait_converged(1ms));
    CHECK(manager.find_chunks(dataset(), {0, 100}).size() == 1);
    CHECK(manager.set_assignment(std::vector{chunk("b", 10), chunk("c", 20)}) == 1);
    manager.close();
    CHECK(manager.status().closed);
  });
  manager.download_chunk(outside.offer("a"));
  outside.run();
  CHECK(called);
  manager.close();
  CHECK(kinds.back() == EventKind::closed);
  CHECK(std::count(kinds.begin(), kinds.end(), EventKind::closed) == 1);
  CHECK(manager.find_chunk(dataset(), 10));
}

TEST_CASE("hostile 46: a slow observer is told that events were dropped, and memory does not grow with them") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  outside.run();
  const auto pin = manager.find_chunk(dataset(), 0);
  std::size_t events = 0;
  std::size_t dropped = 0;
  const auto subscription = manager.subscribe([&](const Event& event) {
    ++events;
    if (event.kind == EventKind::events_dropped) ++dropped;
  });
  for (int i = 0; i < 40000; ++i) {
    manager.delete_chunk(chunk("a").id);
    manager.download_chunk(chunk("a"));
  }
  outside.run();
  CHECK(dropped == 1);
  CHECK(events < 65536);
  CHECK(events > 10000);
}

// ---- close

TEST_CASE("calls after close fail with a clear error or do nothing, and lookups go on") {
  Outside outside;
  auto manager = make_manager(outside);
  manager.download_chunk(outside.offer("a"));
  manager.wait_converged(1s);
  manager.close();
  manager.close();
  std::error_code error;
  manager.download_chunk(outside.offer("b", 10), error);
  CHECK(error == errc::closed);
  try {
    manager.download_chunk(chunk("b", 10));
    FAIL("did not throw");
  } catch (const garner::Error& thrown) {
    CHECK(code_of(thrown.code()) == errc::closed);
  }
  CHECK_THROWS_AS(manager.set_assignment({}), garner::Error);
  manager.delete_chunk(chunk("a").id);
  manager.verify();
  manager.set_options({});
  CHECK(manager.status().closed);
  CHECK(manager.find_chunk(dataset(), 0));
  CHECK(manager.list_chunks().size() == 1);
  CHECK(manager.chunk_status(chunk("a").id)->served);
  CHECK(outside.clock->run_ready() == 0);
  CHECK(outside.clock->advance(1h) == 0);
}

TEST_CASE("close leaves nothing behind on the executor, whatever was under way") {
  Outside outside;
  auto manager = std::make_unique<MemoryManager>(MemoryStorage(outside.disk), MemoryDownloader(outside.origin),
                                                 garner::test::DrivenFromOutside(outside.clock));
  outside.origin.hold("mem://held/1", 3);
  outside.origin.fail("mem://failing/1", {errc::timed_out}, 100);
  manager->download_chunk(outside.offer("a", 0));
  manager->wait_converged(1s);
  auto pin = manager->find_chunk(dataset(), 0);
  manager->delete_chunk(chunk("a").id);
  manager->download_chunk(outside.offer("held", 10));
  manager->download_chunk(outside.offer("failing", 20));
  outside.run();
  manager->close();
  CHECK(outside.clock->run_ready() == 0);
  pin.reset();
  manager.reset();
  CHECK(outside.clock->advance(24h) == 0);
}

// ---- amounts

TEST_CASE("hostile 45: a million calls for one id cost one transfer, and leave no pile of work") {
  Outside outside;
  auto manager = make_manager(outside);
  const DataChunk wanted = outside.offer("a");
  for (int i = 0; i < 100'000; ++i) {
    manager.download_chunk(wanted);
    for (int again = 0; again < 8; ++again) manager.delete_chunk(wanted.id);
    manager.download_chunk(wanted);
  }
  CHECK(outside.clock->run_ready() < 100);
  CHECK(manager.wait_converged(1s));
  CHECK(outside.origin.transfers() <= 1);
  CHECK(manager.status().chunks_published == 1);
}

// ---- policies that throw

namespace {

/// Calls that are to throw, and how often.
struct Trap {
  std::map<std::string, int> due;
  std::set<std::string> sprung;
  void spring(const std::string& call) {
    const auto found = due.find(call);
    if (found == due.end() || found->second == 0) return;
    --found->second;
    sprung.insert(call);
    throw std::runtime_error(call);
  }
};
using TrapPtr = std::shared_ptr<Trap>;

class ThrowingStorage {
 public:
  using Location = MemoryStorage::Location;

  struct StagedFile {
    MemoryStorage::StagedFile file;
    TrapPtr trap;
    [[nodiscard]] std::uint64_t size() const { return trap->spring("size"), file.size(); }
    std::error_code write(std::span<const std::byte> bytes) { return trap->spring("write"), file.write(bytes); }
    std::error_code restart() { return trap->spring("restart"), file.restart(); }
    std::error_code finish() { return trap->spring("finish"), file.finish(); }
    [[nodiscard]] std::string origin() const { return trap->spring("origin"), file.origin(); }
    std::error_code checkpoint(std::string_view text) { return trap->spring("checkpoint"), file.checkpoint(text); }
  };
  struct Staging {
    MemoryStorage::Staging staging;
    TrapPtr trap;
    StagedFile open(const std::string& name, std::error_code& ec) {
      trap->spring("open");
      return {staging.open(name, ec), trap};
    }
  };

  ThrowingStorage(MemoryStorage storage, TrapPtr trap) : storage_(std::move(storage)), trap_(std::move(trap)) {}

  garner::Recovery recover(const std::function<void(const garner::Generation&)>& found) {
    return trap_->spring("recover"), storage_.recover(found);
  }
  std::error_code clean_up(garner::Partial partial) { return trap_->spring("clean_up"), storage_.clean_up(partial); }
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    trap_->spring("stage");
    return {storage_.stage(chunk, number, ec), trap_};
  }
  garner::Generation publish(Staging& staging, std::error_code& ec) {
    return trap_->spring("publish"), storage_.publish(staging.staging, ec);
  }
  std::error_code discard(Staging& staging) {
    const std::error_code error = storage_.discard(staging.staging);
    trap_->spring("discard");
    return error;
  }
  [[nodiscard]] Location location(const garner::Generation& generation) const {
    return trap_->spring("location"), storage_.location(generation);
  }
  DataChunk describe(const garner::Generation& generation, std::error_code& ec) const {
    return trap_->spring("describe"), storage_.describe(generation, ec);
  }
  std::error_code doom(const garner::Generation& g) { return trap_->spring("doom"), storage_.doom(g); }
  std::error_code spare(const garner::Generation& g) { return trap_->spring("spare"), storage_.spare(g); }
  std::error_code remove(const garner::Generation& g) {
    trap_->spring("remove");
    const std::error_code error = storage_.remove(g);
    trap_->spring("remove, done");
    return error;
  }
  std::error_code quarantine(const garner::Generation& g, const std::string& reason) {
    return trap_->spring("quarantine"), storage_.quarantine(g, reason);
  }
  [[nodiscard]] std::error_code verify(const garner::Generation& g, garner::VerifyDepth depth,
                                       const garner::VerifyProgress& progress) const {
    return trap_->spring("verify"), storage_.verify(g, depth, progress);
  }
  [[nodiscard]] garner::StoreUsage usage() const { return trap_->spring("usage"), storage_.usage(); }

 private:
  MemoryStorage storage_;
  TrapPtr trap_;
};

class ThrowingDownloader {
 public:
  using Transfer = MemoryDownloader::Transfer;
  ThrowingDownloader(MemoryDownloader downloader, TrapPtr trap)
      : downloader_(std::move(downloader)), trap_(std::move(trap)) {}

  [[nodiscard]] std::error_code check_url(std::string_view url) const {
    return trap_->spring("check_url"), downloader_.check_url(url);
  }
  Transfer start(garner::FetchRequest request, std::shared_ptr<garner::FetchSink> sink) {
    return trap_->spring("start"), downloader_.start(std::move(request), std::move(sink));
  }
  void cancel(const Transfer& transfer) {
    downloader_.cancel(transfer);
    trap_->spring("cancel");
  }

 private:
  MemoryDownloader downloader_;
  TrapPtr trap_;
};

struct Throwing {
  Outside outside;
  TrapPtr trap = std::make_shared<Trap>();

  garner::DataManager<ThrowingStorage, ThrowingDownloader, garner::test::DrivenFromOutside> make() const {
    return {ThrowingStorage(MemoryStorage(outside.disk), trap),
            ThrowingDownloader(MemoryDownloader(outside.origin), trap), garner::test::DrivenFromOutside(outside.clock)};
  }
};

}  // namespace

TEST_CASE("hostile 47: a storage or a downloader that throws anywhere fails that operation, and it is tried again") {
  for (const std::string call :
       {"clean_up", "stage", "open", "size", "write", "restart", "finish", "publish", "discard", "doom", "spare",
        "remove", "remove, done", "usage", "start", "cancel", "describe"}) {
    for (const int times : {1, 2, 7}) {
      CAPTURE(call);
      CAPTURE(times);
      Throwing world;
      world.outside.disk = std::make_shared<MemoryStorage::Disk>(10'000);
      world.trap->due[call] = times;
      auto manager = world.make();
      DataChunk wanted = world.outside.offer("a");
      // Its second file comes in two parts, the first of which is of no use.
      wanted.files["more"] = "mem://more";
      world.outside.origin.put("mem://more", "more bytes");
      world.outside.origin.fail("mem://more", {errc::digest_mismatch, 4});
      manager.download_chunk(wanted);
      REQUIRE(manager.wait_converged(1h));
      CHECK(content(manager.find_chunk(dataset(), 0).value()) == "bytes of mem://a/1");
      {
        auto pin = manager.find_chunk(dataset(), 0);
        manager.delete_chunk(wanted.id);
        REQUIRE(manager.wait_converged(1h));
        manager.download_chunk(wanted);
        REQUIRE(manager.wait_converged(1h));
      }
      world.outside.origin.hold("mem://b/1", 3);
      manager.download_chunk(world.outside.offer("b", 10));
      world.outside.clock->advance(1h);
      manager.delete_chunk(wanted.id);
      manager.delete_chunk(chunk("b").id);
      REQUIRE(manager.wait_converged(1h));
      CHECK((world.trap->sprung.contains(call) || call == "describe"));
      CHECK(manager.list_chunks().empty());
      world.trap->due.clear();
      // Nothing leaks: a last chunk is fetched and goes, and the disk is as empty as it was.
      manager.download_chunk(world.outside.offer("c", 20));
      REQUIRE(manager.wait_converged(1h));
      manager.delete_chunk(chunk("c").id);
      REQUIRE(manager.wait_converged(1h));
      CHECK(manager.status().store_bytes_free == 10'000);
    }
  }
}

TEST_CASE("hostile 47: a storage that throws at the start is an error of the constructor, and gives the store back") {
  Throwing world;
  world.trap->due["recover"] = 1;
  try {
    auto manager = world.make();
    FAIL("did not throw");
  } catch (const garner::Error& error) {
    CHECK(error.code() == errc::policy_failed);
  }
  auto manager = world.make();
  CHECK(manager.wait_converged(1s));
}

TEST_CASE("hostile 47: a storage that throws in clean_up, describe or verify costs that answer alone") {
  Throwing world;
  {
    auto manager = world.make();
    manager.download_chunk(world.outside.offer("a"));
    REQUIRE(manager.wait_converged(1s));
  }
  world.trap->due["clean_up"] = 1;
  auto manager = world.make();
  REQUIRE(manager.wait_converged(1s));
  CHECK(world.trap->sprung.contains("clean_up"));
  const auto pin = manager.find_chunk(dataset(), 0);
  SUBCASE("a pin's description") {
    world.trap->due["describe"] = 1;
    try {
      static_cast<void>(pin->files());
      FAIL("did not throw");
    } catch (const garner::Error& error) {
      CHECK(error.code() == errc::policy_failed);
    }
    CHECK(pin->files().size() == 1);
  }
  SUBCASE("a recovered chunk that is asked for") {
    world.trap->due["describe"] = 1;
    manager.download_chunk(chunk("a"));
    CHECK(manager.wait_converged(1h));
    CHECK(manager.find_chunk(dataset(), 0));
  }
  SUBCASE("a scrub") {
    world.trap->due["verify"] = 1;
    manager.verify();
    CHECK(manager.wait_converged(1h));
    CHECK(manager.find_chunk(dataset(), 0));
  }
  SUBCASE("a URL's check") {
    world.trap->due["check_url"] = 1;
    std::error_code error;
    manager.download_chunk(world.outside.offer("b", 10), error);
    CHECK(error == errc::policy_failed);
    CHECK_FALSE(manager.chunk_status(chunk("b").id));
  }
}
