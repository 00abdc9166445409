// SPDX-License-Identifier: BSL-1.0
//
// The whole on real threads in a storm (support/storm.hpp): on a store in memory, on a full one, on a directory; and
// closed in the middle. Made for sanitizers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "garner/storage/filesystem_storage.hpp"
#include "garner/storage/memory_storage.hpp"
#include "support/storm.hpp"
#include "support/temp_dir.hpp"

using garner::Durability;
using garner::FilesystemStorage;
using garner::MemoryStorage;
using garner::Options;
using garner::test::Storm;
using garner::test::TempDir;

namespace {

FilesystemStorage open_in(const std::filesystem::path& directory, Durability durability) {
  Options options;
  options.durability = durability;
  return FilesystemStorage(directory, options);
}

/// Files, and directories other than those of datasets. What is in `doomed/` says what is not there, and stays for a
/// while.
std::size_t entries_below(const std::filesystem::path& directory) {
  std::size_t count = 0;
  for (const char* const part : {"chunks", "staging", "trash"}) {
    for (auto it = std::filesystem::recursive_directory_iterator(directory / part);
         it != std::filesystem::recursive_directory_iterator(); ++it) {
      if (part != std::string("chunks") || it.depth() > 0) ++count;
    }
  }
  return count;
}

}  // namespace

TEST_CASE("in a storm the last call about each chunk wins, pins hold, and nothing is found that is not whole") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    const auto disk = std::make_shared<MemoryStorage::Disk>();
    Storm storm(MemoryStorage(disk), seed);
    for (int round = 0; round < 25; ++round) {
      storm.rage(40);
      storm.agree();
    }
    storm.settle();
    storm.end();
  }
}

TEST_CASE("in a storm on a store that is full now and then, all that fits is there in the end") {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    CAPTURE(seed);
    // Room for all, and for two to be replaced.
    Storm storm(MemoryStorage(14 * 50), seed);
    storm.rage(1000);
    storm.settle(false);
    storm.end();
  }
}

TEST_CASE("in a storm on a directory, what is pinned is read from its files, and nothing is left of what is gone") {
  for (const Durability durability : {Durability::relaxed, Durability::full}) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      CAPTURE(seed);
      const TempDir directory;
      Storm storm(open_in(directory.path(), durability), seed);
      storm.rage(durability == Durability::full ? 150 : 300);
      storm.settle();
      storm.end();
      CHECK(entries_below(directory.path()) == 0);
    }
  }
}

TEST_CASE("a storm that is closed in the middle by several threads ends at once, and its pins hold") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    const auto disk = std::make_shared<MemoryStorage::Disk>();
    {
      Storm storm(MemoryStorage(disk), seed);
      storm.rage(200, true);
      storm.end();
    }
    // Nobody holds the store any more.
    const MemoryStorage again(disk);
  }
}

TEST_CASE("a storm on a directory that is closed in the middle leaves whole chunks for the next start") {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    CAPTURE(seed);
    const TempDir directory;
    {
      Storm storm(open_in(directory.path(), Durability::relaxed), seed);
      storm.rage(100, true);
      storm.end();
    }
    {
      Storm<FilesystemStorage> storm(open_in(directory.path(), Durability::relaxed), seed);
      storm.calm();
      REQUIRE(storm.manager->wait_converged(std::chrono::minutes(1)));
      for (const auto& ref : storm.manager->find_chunks(garner::test::dataset(), {0, 1000})) {
        CHECK(garner::test::version_of(ref) != 0);
      }
      storm.manager->set_assignment({});
      REQUIRE(storm.manager->wait_converged(std::chrono::minutes(1)));
    }
    // What the first did not fetch to its end, and the second was not asked for, is kept for a while.
    FilesystemStorage store = open_in(directory.path(), Durability::relaxed);
    store.recover([](const garner::Generation&) {});
    CHECK_FALSE(store.clean_up(garner::Partial::remove));
    CHECK(entries_below(directory.path()) == 0);
  }
}
