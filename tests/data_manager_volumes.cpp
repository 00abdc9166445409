// SPDX-License-Identifier: BSL-1.0
//
// A data manager over several disks, which fail, come back, or are others than they were: what is served, what is
// fetched, and what is told. On real directories.
#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/data_manager.hpp"
#include "support/failing_volumes.hpp"
#include "support/memory_world.hpp"

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

using garner::ChunkId;
using garner::DataChunk;
using garner::errc;
using garner::Event;
using garner::EventKind;
using garner::VolumeState;
using garner::test::DrivenFromOutside;
using garner::test::FailingVolumes;
using Storage = garner::BasicVolumes<garner::test::RecordingFileSystem>;
using Manager = garner::DataManager<Storage, garner::MemoryDownloader, DrivenFromOutside>;

struct World {
  FailingVolumes disks;
  garner::test::Outside outside;
  std::optional<Manager> manager;
  garner::Subscription subscription;
  std::vector<std::string> told;

  explicit World(std::vector<std::uint64_t> limits = {1 << 20, 1 << 20}) : disks(std::move(limits)) { start(); }

  void start() {
    subscription.reset();
    manager.reset();
    garner::Options options;
    options.seed = 1;
    manager.emplace(disks.store(), garner::MemoryDownloader(outside.origin), DrivenFromOutside(outside.clock), options);
    subscription = manager->subscribe([this](const Event& event) {
      const bool is_of_volume = event.kind == EventKind::volume_away || event.kind == EventKind::volume_read_only ||
                                event.kind == EventKind::volume_healthy;
      if (is_of_volume)
        told.push_back(std::string(to_string(event.kind)) + ' ' + fs::path(event.subject).filename().string());
    });
  }
  [[nodiscard]] bool converges() { return manager->wait_converged(20min); }
  /// Lets time pass.
  void pass(std::chrono::nanoseconds time) {
    manager->wait_converged(0ns);
    const auto until = outside.clock->now() + time;
    while (outside.clock->run_one_until(until)) {
    }
  }
  [[nodiscard]] static ChunkId id(const std::string& name) { return ChunkId::from_name(name); }
  [[nodiscard]] std::optional<Manager::ChunkRef> find(garner::BlockNumber block) const {
    return manager->find_chunk(garner::test::dataset(), block);
  }
  /// Where it is and what it holds, as in "disk0: bytes of …"; empty where it is not found.
  [[nodiscard]] std::string served(garner::BlockNumber block) const {
    const auto ref = find(block);
    if (!ref) return "";
    std::ifstream file(ref->path() / "data");
    const std::string disk = ref->path().parent_path().parent_path().parent_path().filename();
    return disk + ": " + std::string(std::istreambuf_iterator<char>(file), {});
  }
  [[nodiscard]] std::size_t disk_of(garner::BlockNumber block) const {
    return served(block).starts_with("disk1") ? 1 : 0;
  }
};

TEST_CASE("chunks are spread over the disks, and found there after a restart") {
  World world;
  for (unsigned i = 0; i < 4; ++i) {
    world.manager->download_chunk(world.outside.offer("c" + std::to_string(i), i * 10));
    REQUIRE(world.converges());
  }
  const garner::Status status = world.manager->status();
  REQUIRE(status.volumes.size() == 2);
  CHECK(status.volumes[0].bytes_used > 0);
  CHECK(status.volumes[1].bytes_used > 0);
  CHECK(status.volumes[0].bytes_used + status.volumes[1].bytes_used == status.store_bytes_used);
  CHECK(status.volumes[0].path == world.disks.place(0).string());
  world.start();
  CHECK(world.manager->list_chunks().size() == 4);
  CHECK(world.converges());
}

TEST_CASE("what was on a disk that fails is fetched again elsewhere, and the rest is served meanwhile") {
  World world;
  world.manager->download_chunk(world.outside.offer("a", 0));
  REQUIRE(world.converges());
  world.manager->download_chunk(world.outside.offer("b", 10));
  REQUIRE(world.converges());
  REQUIRE(world.served(0) == "disk0: bytes of mem://a/1");
  REQUIRE(world.served(10) == "disk1: bytes of mem://b/1");
  auto pin = world.find(0);
  world.disks.fail(0);
  world.manager->verify();
  world.pass(0ns);
  CHECK(world.served(10) == "disk1: bytes of mem://b/1");
  REQUIRE(world.converges());
  CHECK(world.served(0) == "disk1: bytes of mem://a/1");
  CHECK(world.told == std::vector<std::string>{"volume away disk0"});
  CHECK(world.manager->status().volumes[0].state == VolumeState::away);
  CHECK(world.manager->status().away == 1);
  CHECK(pin->path().string().find("disk0") != std::string::npos);
  world.manager->download_chunk(world.outside.offer("c", 20));
  REQUIRE(world.converges());
  CHECK(world.served(20) == "disk1: bytes of mem://c/1");

  SUBCASE("a disk that is back is taken in, and what is there twice is removed there") {
    world.disks.mend(0);
    world.pass(2min);
    CHECK(world.told == std::vector<std::string>{"volume away disk0", "volume healthy disk0"});
    CHECK(world.served(0) == "disk1: bytes of mem://a/1");
    CHECK(fs::exists(pin->path() / "data"));
    pin.reset();
    REQUIRE(world.converges());
    CHECK(world.manager->status().away == 0);
    CHECK(world.manager->status().store_bytes_used == world.manager->status().bytes_ready);
    world.manager->download_chunk(world.outside.offer("d", 30));
    REQUIRE(world.converges());
    CHECK(world.served(30) == "disk0: bytes of mem://d/1");
  }
  SUBCASE("what was deleted meanwhile is not brought back, not by a restart either") {
    world.manager->delete_chunk(World::id("a"));
    world.disks.mend(0);
    world.pass(2min);
    pin.reset();
    REQUIRE(world.converges());
    CHECK(world.served(0) == "");
    world.start();
    CHECK(world.served(0) == "");
    CHECK(world.manager->list_chunks().size() == 2);
  }
  SUBCASE("a disk that was replaced by an empty one is taken in") {
    pin.reset();
    fs::remove_all(world.disks.place(0));
    world.disks.journals[0] = std::make_shared<garner::test::Journal>();
    world.pass(2min);
    REQUIRE(world.converges());
    CHECK(world.manager->status().away == 0);
    CHECK(world.manager->status().volumes[0].state == VolumeState::healthy);
    world.manager->download_chunk(world.outside.offer("d", 30));
    REQUIRE(world.converges());
    CHECK(world.served(30) == "disk0: bytes of mem://d/1");
  }
}

TEST_CASE("what is wanted and back before it could be fetched is served again, and no byte moves") {
  World world;
  world.manager->download_chunk(world.outside.offer("a", 0));
  REQUIRE(world.converges());
  world.disks.fail(0);
  world.disks.fail(1, errc::read_only, garner::test::changes);
  world.manager->verify();
  world.pass(0ns);
  CHECK_FALSE(world.manager->wait_converged(1min));
  CHECK(world.served(0) == "");
  CHECK(world.manager->chunk_status(World::id("a"))->wanted);
  const auto received = world.manager->status().bytes_received;
  world.disks.mend(0);
  REQUIRE(world.converges());
  CHECK(world.served(0) == "disk0: bytes of mem://a/1");
  CHECK(world.manager->status().bytes_received == received);
  CHECK(world.manager->status().volumes[1].state == VolumeState::read_only);
}

TEST_CASE("a start without a disk fetches again what was on it, by its description") {
  World world;
  world.manager->download_chunk(world.outside.offer("a", 0));
  REQUIRE(world.converges());
  world.manager->download_chunk(world.outside.offer("b", 10));
  REQUIRE(world.converges());
  const std::size_t lost = 1;
  REQUIRE(world.disk_of(10) == lost);
  world.manager.reset();
  world.disks.is_there[lost] = false;
  world.start();
  CHECK(world.manager->chunk_status(World::id("b"))->wanted);
  REQUIRE(world.converges());
  CHECK(world.served(10) == "disk0: bytes of mem://b/1");

  SUBCASE("and takes it in when it is there") {
    world.disks.is_there[lost] = true;
    world.pass(2min);
    REQUIRE(world.converges());
    CHECK(world.served(10) == "disk0: bytes of mem://b/1");
    CHECK(world.manager->status().bytes_ready == world.manager->status().store_bytes_used);
    CHECK(world.told == std::vector<std::string>{"volume healthy disk1"});
  }
  SUBCASE("and the copy that was fetched is the one that the next start finds") {
    world.manager.reset();
    world.disks.is_there[lost] = true;
    world.start();
    CHECK(world.served(10) == "disk0: bytes of mem://b/1");
    REQUIRE(world.converges());
    CHECK(world.manager->status().bytes_ready == world.manager->status().store_bytes_used);
  }
}

TEST_CASE("one directory twice, on two disks: the newest is served, and the other is removed") {
  World world;
  world.manager->download_chunk(world.outside.offer("a", 0));
  REQUIRE(world.converges());
  const fs::path path = world.find(0)->path();
  const fs::path dataset = path.parent_path().filename();
  world.manager.reset();
  fs::create_directories(world.disks.place(1) / "chunks" / dataset);
  SUBCASE("of one number") { fs::copy(path, world.disks.place(1) / "chunks" / dataset / path.filename()); }
  SUBCASE("of another number") {
    std::string older = path.filename();
    fs::rename(path, path.parent_path() / (older.substr(0, older.rfind('.')) + ".7"));
    fs::copy(path.parent_path() / (older.substr(0, older.rfind('.')) + ".7"),
             world.disks.place(1) / "chunks" / dataset / older);
  }
  world.start();
  CHECK(world.manager->list_chunks().size() == 1);
  REQUIRE(world.converges());
  CHECK(world.served(0).ends_with("bytes of mem://a/1"));
  CHECK(world.manager->status().store_bytes_used == world.manager->status().bytes_ready);
}

TEST_CASE("a chunk that fits on no disk waits, and others do not wait for it") {
  World world({60, 40});
  world.manager->download_chunk(world.outside.offer("a", 0));
  world.manager->download_chunk(world.outside.offer("b", 10));
  REQUIRE(world.converges());
  DataChunk large = world.outside.offer("large", 20);
  large.files["data"].size = 50;
  world.manager->download_chunk(large);
  world.manager->download_chunk(world.outside.offer("c", 30));
  CHECK_FALSE(world.manager->wait_converged(5min));
  CHECK_FALSE(world.served(30).empty());
  CHECK(world.manager->chunk_status(World::id("large"))->state == garner::ChunkState::parked);
  CHECK(world.manager->chunk_status(World::id("large"))->last_error == errc::no_space);
}

TEST_CASE("a store whose syncs fail twice is read-only: it says so, serves on, asks rarely, and recovers by itself") {
  World world({1 << 20});
  world.manager->download_chunk(world.outside.offer("a", 0));
  REQUIRE(world.converges());
  world.disks.fail(0, errc::sync_failed, {"sync_file"});
  for (unsigned i = 1; i <= 40; ++i)
    world.manager->download_chunk(world.outside.offer("c" + std::to_string(i), i * 10));
  world.pass(1h);
  CHECK(world.told == std::vector<std::string>{"volume read-only disk0"});
  const garner::Status status = world.manager->status();
  REQUIRE(status.volumes.size() == 1);
  CHECK(status.volumes[0].state == VolumeState::read_only);
  CHECK(status.ready == 1);
  CHECK(world.served(0) == "disk0: bytes of mem://a/1");
  CHECK(world.manager->chunk_status(World::id("c1"))->last_error_class == garner::ErrorClass::local);
  // Each half a minute the few that may be fetched at once.
  CHECK(status.attempts_failed < (garner::Options().max_concurrent_chunks + 1) * 240);
  const std::size_t transfers = world.outside.origin.transfers();
  world.pass(1h);
  CHECK(world.outside.origin.transfers() == transfers);
  world.disks.mend(0);
  REQUIRE(world.converges());
  CHECK(world.manager->list_chunks().size() == 41);
  CHECK(world.told == std::vector<std::string>{"volume read-only disk0", "volume healthy disk0"});
  CHECK(world.manager->status().volumes[0].state == VolumeState::healthy);
}

}  // namespace
