// SPDX-License-Identifier: BSL-1.0
//
// The main job, on the default policies, from a real nginx: manifests that real projects published are fetched and
// followed through their history, and the store is compared with what it should hold.
#include <doctest/doctest.h>
#include <garner/garner.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/expected_store.hpp"
#include "support/nginx.hpp"
#include "support/origin_tree.hpp"
#include "support/temp_dir.hpp"

namespace {

using garner::BlockNumber;
using garner::ChunkId;
using garner::DataChunk;
using garner::test::ExpectedStore;
using garner::test::Nginx;
using garner::test::OriginTree;
using garner::test::TempDir;
using Manager = garner::DataManager<>;
using ChunkRef = Manager::ChunkRef;

constexpr std::chrono::seconds patience(60);
constexpr std::uint64_t seed = 20'240'517;

/// A manifest, the server that has its files, and a data directory.
struct World {
  World(const char* name, garner::test::TreeScale scale, std::size_t max_chunks = SIZE_MAX)
      : server(document_root.path()), origin(document_root.path(), server.origin(), seed, scale) {
    const std::vector<std::filesystem::path> files = {std::filesystem::path(GARNER_TEST_DATA_DIR) / name};
    manifest = worker::load_manifests(files);
    auto& chunks = manifest.versions.front().downloaded;
    if (chunks.size() > max_chunks)
      chunks.erase(chunks.begin() + static_cast<std::ptrdiff_t>(max_chunks), chunks.end());
    origin.serve(manifest);
  }

  TempDir document_root;
  TempDir data_dir;
  Nginx server;
  OriginTree origin;
  worker::Manifest manifest;
};

/// A pin on this very chunk, whatever overlaps it.
std::optional<ChunkRef> pin(const Manager& manager, const DataChunk& chunk) {
  for (ChunkRef& ref : manager.find_chunks(chunk.dataset_id, chunk.block_range)) {
    if (ref.id() == chunk.id) return std::move(ref);
  }
  return std::nullopt;
}

/// Threads that look up `chunks` over and over, and check all that they get.
class Readers {
 public:
  Readers(const Manager& manager, const ExpectedStore& expected, std::vector<DataChunk> chunks, std::size_t count)
      : manager_(manager), expected_(expected), chunks_(std::move(chunks)) {
    for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  Readers(const Readers&) = delete;
  Readers& operator=(const Readers&) = delete;
  ~Readers() { stop(); }

  void stop() {
    stopped_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  [[nodiscard]] std::uint64_t found() const { return found_; }
  [[nodiscard]] std::uint64_t wrong() const { return wrong_; }

 private:
  void run(std::size_t number) {
    for (std::size_t pass = number; !stopped_; ++pass) {
      for (std::size_t i = 0; i < chunks_.size(); ++i) {
        const DataChunk& chunk = chunks_[i];
        const BlockNumber block = chunk.block_range.begin + pass % (chunk.block_range.end - chunk.block_range.begin);
        const auto any = manager_.find_chunk(chunk.dataset_id, block);
        if (any && !any->block_range().contains(block)) ++wrong_;
        const auto ref = pin(manager_, chunk);
        if (!ref) continue;
        ++found_;
        // To read all of them each time would leave no processor to the downloads.
        const bool is_right = pass % chunks_.size() == i ? expected_.is_whole(ref->path(), chunk)
                                                         : std::filesystem::exists(ref->path() / "chunk.json");
        if (!is_right) ++wrong_;
      }
      for (const ChunkId& id : manager_.list_chunks()) {
        const bool known = std::any_of(chunks_.begin(), chunks_.end(), [&](const DataChunk& c) { return c.id == id; });
        if (!known) ++wrong_;
      }
    }
  }

  const Manager& manager_;
  const ExpectedStore& expected_;
  const std::vector<DataChunk> chunks_;
  std::atomic<bool> stopped_ = false;
  std::atomic<std::uint64_t> found_ = 0;
  std::atomic<std::uint64_t> wrong_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE("100 chunks are fetched while others look them up, deleted under pins, and found by the next start") {
  const World world("sqd-chunks.jsonl", {1000, 1, 300'000}, 100);
  ExpectedStore expected(world.origin);
  std::vector<ChunkRef> pins;
  std::vector<DataChunk> deleted;
  {
    Manager manager(world.data_dir.path());
    for (const auto& chunk : world.manifest.assignment()) expected.download(chunk.description);
    REQUIRE(expected.wanted().size() == 100);
    const std::vector<DataChunk> all = expected.wanted();
    std::optional<Readers> readers(std::in_place, manager, expected, all, 3);
    for (const DataChunk& chunk : all) manager.download_chunk(chunk);
    REQUIRE(manager.wait_converged(patience));
    CHECK(expected.differences(manager, world.data_dir.path()) == "");

    for (std::size_t i = 0; i < all.size(); i += 7) deleted.push_back(all[i]);
    for (const DataChunk& chunk : deleted) {
      pins.push_back(pin(manager, chunk).value());
      manager.delete_chunk(chunk.id);
      CHECK_FALSE(pin(manager, chunk));
      expected.remove(chunk.id);
    }
    readers->stop();
    CHECK(readers->found() > 0);
    CHECK(readers->wrong() == 0);
    readers.reset();

    REQUIRE(manager.wait_converged(patience));
    CHECK(manager.list_chunks().size() == all.size() - deleted.size());
    CHECK(manager.status().draining == deleted.size());
    for (std::size_t i = 0; i < deleted.size(); ++i) CHECK(expected.is_whole(pins[i].path(), deleted[i]));

    const std::filesystem::path first = pins.front().path();
    pins.erase(pins.begin());
    deleted.erase(deleted.begin());
    REQUIRE(manager.wait_converged(patience));
    CHECK_FALSE(std::filesystem::exists(first));
    CHECK(manager.status().draining == deleted.size());
    CHECK(manager.status().attempts_failed == 0);
  }
  for (std::size_t i = 0; i < deleted.size(); ++i) CHECK(expected.is_whole(pins[i].path(), deleted[i]));
  CHECK_THROWS_AS(Manager(world.data_dir.path()), garner::Error);  // the pins hold the directory
  pins.clear();

  Manager manager(world.data_dir.path());
  REQUIRE(manager.wait_converged(patience));
  CHECK(expected.differences(manager, world.data_dir.path()) == "");
  for (const DataChunk& chunk : expected.wanted()) {
    const auto ref = pin(manager, chunk);
    REQUIRE(ref);
    CHECK(ref->bytes() == expected.bytes(chunk));
    for (const auto& [name, source] : chunk.files) {
      const garner::FileSource& found = ref->files().at(name);
      CHECK(found.size == world.origin.bytes(source.urls.front()).size());
      CHECK(found.digest == source.digest);
    }
  }
  CHECK(manager.status().bytes_received == 0);
  CHECK(world.server.error_log() == "");
}

TEST_CASE("a dump with gaps and overlaps is fetched with every digest checked, and each block finds its chunk") {
  const World world("wikipedia-dumps.jsonl", {});
  ExpectedStore expected(world.origin);
  for (const auto& chunk : world.manifest.assignment()) expected.download(chunk.description);
  REQUIRE(expected.wanted().size() == 250);
  std::uint64_t bytes = 0;
  for (const DataChunk& chunk : expected.wanted()) {
    bytes += expected.bytes(chunk);
    for (const auto& [name, source] : chunk.files) REQUIRE(source.digest);
  }

  garner::Options options;
  options.durability = garner::Durability::full;
  Manager manager(world.data_dir.path(), options);
  manager.set_assignment(expected.wanted());
  REQUIRE(manager.wait_converged(patience));
  CHECK(expected.differences(manager, world.data_dir.path()) == "");
  CHECK(manager.status().bytes_received == bytes);

  manager.verify();
  const garner::Epoch again = manager.set_assignment(expected.wanted());
  REQUIRE(manager.wait_converged(patience));
  CHECK(manager.status().converged_epoch == again);
  CHECK(manager.status().bytes_received == bytes);
  CHECK(manager.status().attempts_failed == 0);
  CHECK(expected.differences(manager, world.data_dir.path()) == "");
  CHECK(world.server.error_log() == "");
}

TEST_CASE("a history of 115 assignments is followed version by version, and the store is right after each") {
  const World world("erigon-mainnet-history.jsonl", {});
  REQUIRE(world.manifest.versions.size() == 115);
  ExpectedStore expected(world.origin);
  garner::Options options;
  options.durability = garner::Durability::relaxed;  // some seven thousand syncs are the other tests' matter
  Manager manager(world.data_dir.path(), options);
  std::size_t replaced = 0;
  for (const worker::Version& version : world.manifest.versions) {
    CAPTURE(version.number);
    // One chunk that comes back with other content is pinned as it was.
    std::optional<ChunkRef> old;
    DataChunk old_chunk;
    for (const worker::NamedChunk& chunk : version.downloaded) {
      for (const DataChunk& held : expected.wanted()) {
        if (held.id != chunk.description.id) continue;
        ++replaced;
        old = pin(manager, held);
        old_chunk = held;
      }
    }

    for (const std::string& name : version.deleted) {
      manager.delete_chunk(worker::chunk_id_of(name));
      expected.remove(worker::chunk_id_of(name));
    }
    for (const worker::NamedChunk& chunk : version.downloaded) {
      manager.download_chunk(chunk.description);
      expected.download(chunk.description);
    }
    REQUIRE(manager.wait_converged(patience));

    if (old) {
      CHECK(manager.status().draining == 1);
      CHECK(expected.is_whole(old->path(), old_chunk));
      old.reset();
      REQUIRE(manager.wait_converged(patience));
    }
    REQUIRE(expected.differences(manager, world.data_dir.path()) == "");
  }
  CHECK(replaced == 596);
  CHECK(manager.status().attempts_failed == 0);
  CHECK(world.server.error_log() == "");
}
