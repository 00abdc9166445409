// SPDX-License-Identifier: BSL-1.0
//
// Corrupt chunks in the store's protocol: how they are set aside, how long they are kept there, and what that costs.
#include "garner/storage/store_quarantine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/storage_steps.hpp"
#include "garner/storage/store_protocol.hpp"
#include "support/recording_file_system.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::errc;
using garner::Generation;
using garner::QuarantineLimits;
using garner::contract::chunk_of;
using garner::store_layout::chunk_name;
using garner::store_layout::qualified_name;
using garner::test::Journal;
using garner::test::RecordingFileSystem;
using Store = garner::BasicStore<RecordingFileSystem>;
using Entries = std::vector<std::string>;

const std::map<std::string, std::string> hello = {{"a.bin", "hello"}};

struct World {
  garner::test::TempDir dir;
  std::shared_ptr<Journal> journal = std::make_shared<Journal>();

  [[nodiscard]] garner::contract::Steps<Store> start(const QuarantineLimits& limits = {}) const {
    std::error_code ec;
    auto posix = garner::PosixFileSystem::open(dir.path(), ec);
    REQUIRE_FALSE(ec);
    return garner::contract::Steps(
        Store(RecordingFileSystem(std::move(posix), journal), garner::Durability::full, limits));
  }
  [[nodiscard]] fs::path aside(const Generation& generation) const {
    return dir / "quarantine" / qualified_name(generation);
  }
  [[nodiscard]] fs::path reason(const Generation& generation) const {
    return dir / "quarantine" / (qualified_name(generation) + ".reason");
  }
  [[nodiscard]] fs::path place(const Generation& generation) const {
    return dir / "chunks" / generation.dataset_id.to_hex() / chunk_name(generation);
  }
  [[nodiscard]] fs::path marker(const Generation& generation) const {
    return dir / "doomed" / qualified_name(generation);
  }
};

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("quarantine renames, syncs the parent, takes the marker away, and keeps all with its reason") {
  const World world;
  auto steps = world.start();
  const Generation bad = steps.published("c", hello);
  REQUIRE_FALSE(steps.store().doom(bad));
  world.journal->take();
  CHECK_FALSE(steps.store().quarantine(bad, "it is bad"));
  const std::string from = "chunks/" + bad.dataset_id.to_hex();
  const Entries entries = world.journal->take({"rename", "sync_directory", "remove_file"});
  const std::string name = qualified_name(bad);
  CHECK(entries == Entries{"rename " + from + '/' + chunk_name(bad) + " -> quarantine/" + name,
                           "sync_directory " + from + '/', "remove_file doomed/" + name, "sync_directory doomed/",
                           "sync_directory quarantine/"});
  CHECK(text_of(world.aside(bad) / "a.bin") == "hello");
  CHECK(text_of(world.reason(bad)) == "it is bad\n");
  CHECK(steps.store().usage().bytes_used == 0);
  CHECK(steps.verify(bad) == errc::no_such_generation);
}

TEST_CASE("what was set aside is no generation at the next start, and its number is not given again") {
  const World world;
  Generation bad;
  {
    auto steps = world.start();
    bad = steps.published("c", hello);
    steps.store().quarantine(bad, "why");
  }
  auto again = world.start();
  CHECK(again.found().empty());
  CHECK(again.last_generation() == bad.number);
  CHECK(again.store().unrecognised().empty());
  CHECK(again.store().usage().bytes_used == 0);
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(fs::exists(world.aside(bad)));
}

TEST_CASE("more than is allowed is not kept: the oldest goes first, those of earlier runs before") {
  const World world;
  const QuarantineLimits two{2 * (QuarantineLimits::entry_bytes + 5), 0};
  std::vector<Generation> bad;
  {
    auto steps = world.start(two);
    for (const char* name : {"c", "e"}) bad.push_back(steps.published(name, hello));
    for (const Generation& generation : bad) steps.store().quarantine(generation, "why");
    CHECK(fs::exists(world.aside(bad[0])));
  }
  {
    auto again = world.start(two);
    bad.push_back(again.published("f", hello));
    again.store().quarantine(bad.back(), "why");
    CHECK_FALSE(fs::exists(world.aside(bad[0])));
    CHECK_FALSE(fs::exists(world.reason(bad[0])));
    CHECK(fs::exists(world.aside(bad[1])));
    CHECK(fs::exists(world.aside(bad[2])));
  }
  auto none = world.start({0, 0});
  bad.push_back(none.published("g", hello));
  none.store().quarantine(bad.back(), "why");
  CHECK(fs::is_empty(world.dir / "quarantine"));
}

TEST_CASE("what was set aside goes when its room is needed, and counts as free until then") {
  const World world;
  std::uint64_t keep_free = 0;
  SUBCASE("a chunk is too large with it") {
    keep_free = std::uint64_t{1} << 60;  // more than any disk has
  }
  SUBCASE("a disk is full") {}
  auto steps = world.start({QuarantineLimits().max_bytes, keep_free});
  const Generation bad = steps.published("c", hello);
  const std::uint64_t free = steps.store().usage().bytes_free;
  steps.store().quarantine(bad, "why");
  CHECK(steps.store().usage().bytes_free + (std::uint64_t{64} << 20) > free);
  auto staging = steps.stage(chunk_of("e", hello));
  CHECK(fs::exists(world.aside(bad)) == (keep_free == 0));
  auto file = steps.open(staging, "a.bin");
  world.journal->refuse = [](const std::string& entry) {
    return entry.starts_with("write ") ? make_error_code(errc::no_space) : std::error_code();
  };
  CHECK(file.write(garner::contract::bytes_of("hello")) == errc::no_space);
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.store().discard(staging));
  CHECK(fs::is_empty(world.dir / "quarantine"));
}

TEST_CASE("what cannot be set aside is removed") {
  const World world;
  auto steps = world.start();
  const Generation bad = steps.published("c", hello);
  SUBCASE("something stands there") { fs::create_directory(world.aside(bad)); }
  SUBCASE("the directory is gone") { fs::remove(world.dir / "quarantine"); }
  CHECK_FALSE(steps.store().quarantine(bad, "why"));
  CHECK_FALSE(fs::exists(world.place(bad)));
  CHECK(fs::is_empty(world.dir / "trash"));
  CHECK(steps.store().usage().bytes_used == 0);
}

TEST_CASE("what was set aside but not synced away is marked, and stays whole: a power cut may bring it back") {
  const World world;
  Generation bad;
  {
    auto steps = world.start({0, 0});
    bad = steps.published("c", hello);
    world.journal->refuse = [](const std::string& entry) {
      return entry.starts_with("sync_directory chunks/") ? make_error_code(errc::sync_failed) : std::error_code();
    };
    CHECK_FALSE(steps.store().quarantine(bad, "why"));
    world.journal->refuse = nullptr;
    CHECK(fs::exists(world.marker(bad)));
    CHECK(fs::exists(world.aside(bad) / "chunk.json"));
    CHECK(steps.store().usage().bytes_used == 0);
  }
  fs::rename(world.aside(bad), world.place(bad));  // as a power cut may
  CHECK(world.start().found().empty());
}

TEST_CASE("setting aside goes on where it stopped when it is called again") {
  const World world;
  auto steps = world.start();
  const Generation bad = steps.published("c", hello);
  REQUIRE_FALSE(steps.store().doom(bad));
  world.journal->refuse = [](const std::string& entry) {
    return entry.starts_with("sync_directory doomed/") ? make_error_code(errc::sync_failed) : std::error_code();
  };
  CHECK(steps.store().quarantine(bad, "why") == errc::sync_failed);
  CHECK(steps.store().usage().bytes_used == 0);
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.store().quarantine(bad, "why"));
  CHECK(steps.store().usage().bytes_used == 0);
  CHECK(text_of(world.reason(bad)) == "why\n");
  CHECK_FALSE(fs::exists(world.marker(bad)));
}

TEST_CASE("an earlier run's is taken away only once where it came from was synced") {
  const World world;
  Generation bad;
  {
    auto steps = world.start();
    bad = steps.published("c", hello);
    steps.store().quarantine(bad, "why");
  }
  auto again = world.start({0, 0});
  const Generation next = again.published("e", hello);
  world.journal->take();
  again.store().quarantine(next, "why");
  const Entries entries = world.journal->take({"sync_directory chunks/", "remove_directory"});
  const auto removed = std::find(entries.begin(), entries.end(), "remove_directory quarantine/" + qualified_name(bad));
  REQUIRE(removed != entries.end());
  CHECK(removed[-1] == "sync_directory chunks/" + bad.dataset_id.to_hex() + '/');
}

TEST_CASE("the bytes of what somebody else has taken away are given back once") {
  const World world;
  auto steps = world.start();
  const Generation gone = steps.published("c", hello);
  steps.published("e", {{"a.bin", "world!"}});
  SUBCASE("the chunk") { fs::remove_all(world.place(gone)); }
  SUBCASE("its dataset's directory, for a file") {
    fs::remove_all(world.place(gone).parent_path());
    std::ofstream(world.place(gone).parent_path()).flush();
  }
  CHECK(steps.store().usage().bytes_used == 11);
  for (int i = 0; i < 3; ++i) {
    CHECK(steps.store().remove(gone) == errc::no_such_generation);
    CHECK(steps.store().quarantine(gone, "why") == errc::no_such_generation);
    CHECK(steps.store().usage().bytes_used == 6);
  }
}

TEST_CASE("the bytes of a deletion that somebody else has finished are given back, too") {
  const World world;
  Generation doomed;
  {
    auto steps = world.start();
    doomed = steps.published("c", hello);
    REQUIRE_FALSE(steps.store().doom(doomed));
  }
  auto again = world.start();
  CHECK(again.store().usage().bytes_used == 5);
  fs::remove_all(world.place(doomed));
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(again.store().usage().bytes_used == 0);
}

}  // namespace
