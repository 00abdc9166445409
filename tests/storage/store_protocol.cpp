// SPDX-License-Identifier: BSL-1.0
//
// The order in which the store writes, syncs, renames and unlinks, and what it does when one of these fails: seen on a
// file system that writes down what is asked of it.
#include "garner/storage/store_protocol.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "contract/storage_contract.hpp"
#include "support/recording_file_system.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::Durability;
using garner::errc;
using garner::Generation;
using garner::contract::bytes_of;
using garner::contract::chunk_of;
using garner::store_layout::chunk_name;
using garner::store_layout::qualified_name;
using garner::test::Journal;
using garner::test::RecordingFileSystem;
using Store = garner::BasicStore<RecordingFileSystem>;
using Entries = std::vector<std::string>;

const std::map<std::string, std::string> hello = {{"a.bin", "hello"}};

/// A directory, the journal of what is done in it, and stores on it.
struct World {
  garner::test::TempDir dir;
  std::shared_ptr<Journal> journal = std::make_shared<Journal>();

  [[nodiscard]] garner::contract::Steps<Store> start(Durability durability = Durability::full) const {
    std::error_code ec;
    auto posix = garner::PosixFileSystem::open(dir.path(), ec);
    REQUIRE_FALSE(ec);
    return garner::contract::Steps(Store(RecordingFileSystem(std::move(posix), journal), durability));
  }

  /// Refuses what begins with `prefix` with `error`.
  void refuse(const std::string& prefix, std::error_code error) const {
    journal->refuse = [prefix, error](const std::string& entry) {
      return entry.starts_with(prefix) ? error : std::error_code();
    };
  }
};

/// The generation that the first `published("c", hello)` gives.
const Generation first{garner::ChunkId::from_name("c"), garner::DatasetId::from_name("d"), {10, 20}, 5, 1};
const std::string dataset = "chunks/" + first.dataset_id.to_hex();
const std::string in_place = dataset + '/' + chunk_name(first);
const std::string in_staging = "staging/" + first.id.to_hex() + ".1";
const std::string in_trash = "trash/" + qualified_name(first);
const std::string marker = "doomed/" + qualified_name(first);

std::size_t position(const Entries& entries, const std::string& entry) {
  const auto at = std::find(entries.begin(), entries.end(), entry);
  CAPTURE(entry);
  REQUIRE(at != entries.end());
  return static_cast<std::size_t>(at - entries.begin());
}

TEST_CASE("publish syncs each file, the descriptor and the staging directory, renames, and syncs the parent") {
  const World world;
  auto steps = world.start();
  world.journal->take();
  steps.published("c", hello);
  CHECK(world.journal->take() ==
        Entries{"make_directory " + in_staging, "open_directory " + in_staging, "create_file " + in_staging + "/a.bin",
                "write " + in_staging + "/a.bin", "remove_file " + in_staging + "/chunk.json",
                "create_file " + in_staging + "/chunk.json", "write " + in_staging + "/chunk.json",
                "sync_file " + in_staging + "/a.bin", "sync_file " + in_staging + "/chunk.json",
                "sync_directory " + in_staging + '/', "close " + in_staging + "/a.bin",
                "close " + in_staging + "/chunk.json", "make_directory " + dataset, "sync_directory chunks/",
                "open_directory " + dataset, "rename " + in_staging + " -> " + in_place,
                "sync_directory " + dataset + '/'});
  // The second in a dataset does not sync what was synced.
  steps.published("e", hello);
  const Entries second = world.journal->take({"sync_directory"});
  CHECK(std::count(second.begin(), second.end(), "sync_directory chunks/") == 0);
  CHECK(second.back() == "sync_directory " + dataset + '/');
}

using Request = garner::PublishRequest<Store::Staging>;

TEST_CASE("chunks that are published together share the sync of their parent, and fail each by itself") {
  const World world;
  auto steps = world.start();
  std::vector<Store::Staging> stagings;
  for (const std::string name : {"c", "e", "f"}) stagings.push_back(steps.staged(chunk_of(name, hello), hello));
  std::vector<Request> requests;
  requests.reserve(4);
  for (Store::Staging& staging : stagings) requests.push_back({&staging});
  Store::Staging nothing;
  requests.push_back({&nothing});
  world.journal->take();
  const std::string of_e = "staging/" + garner::ChunkId::from_name("e").to_hex() + ".2/a.bin";
  SUBCASE("a sync of one's own") {
    world.refuse("sync_file " + of_e, errc::sync_failed);
    steps.store().publish(requests);
    CHECK(requests[1].error == errc::sync_failed);
    for (const std::size_t i : {0U, 2U}) {
      CHECK_FALSE(requests[i].error);
      CHECK_FALSE(steps.verify(requests[i].generation));
    }
    const Entries entries = world.journal->take();
    CHECK(std::count(entries.begin(), entries.end(), "sync_file " + of_e) == 1);
    CHECK(std::count(entries.begin(), entries.end(), "sync_directory " + dataset + '/') == 1);
    CHECK(steps.store().usage().bytes_used == 10);
    CHECK_FALSE(steps.store().discard(stagings[1]));
  }
  SUBCASE("the sync of their parent") {
    world.refuse("sync_directory " + dataset, errc::sync_failed);
    steps.store().publish(requests);
    for (const std::size_t i : {0U, 1U, 2U}) CHECK(requests[i].error == errc::sync_failed);
    CHECK(fs::is_empty(world.dir / dataset));
    CHECK(steps.store().usage().bytes_used == 0);
  }
  CHECK(requests[3].error == std::errc::bad_file_descriptor);
}

TEST_CASE("what is large, and what more descriptors would be held for than is good, is synced as soon as it is there") {
  const World world;
  auto steps = world.start();
  std::map<std::string, std::string> files;
  for (int i = 0; i < 130; ++i) files["f" + std::to_string(1000 + i)] = "x";
  files["a.large"] = std::string(garner::detail::UnsyncedFiles<garner::test::RecordingFileSystem>::large, 'x');
  auto staging = steps.stage(chunk_of("c", files));
  world.journal->take();
  std::size_t synced = 0;
  for (const auto& [name, bytes] : files) {
    auto file = steps.open(staging, name);
    REQUIRE_FALSE(file.write(bytes_of(bytes)));
    REQUIRE_FALSE(file.finish());
    const Entries syncs = world.journal->take({"sync_file"});
    if (name == "a.large") CHECK(syncs == Entries{"sync_file " + in_staging + "/a.large"});
    synced += syncs.size();
  }
  CHECK(synced == 3);
  CHECK_FALSE(steps.verify(steps.publish(staging)));
  CHECK(world.journal->take({"sync_file"}).size() == 129);
  // They are let go of: the next ones may wait again.
  steps.staged(chunk_of("e", hello), hello);
  CHECK(world.journal->take({"sync_file"}).empty());
}

TEST_CASE("a file has no checkpoint while it is synced, and none after a sync that failed") {
  const World world;
  auto steps = world.start();
  auto staging = steps.stage(chunk_of("c", hello));
  auto file = steps.open(staging, "a.bin");
  REQUIRE_FALSE(file.write(bytes_of("hello")));
  REQUIRE_FALSE(file.checkpoint("first"));
  REQUIRE_FALSE(file.checkpoint("second"));
  const std::string note = in_staging + '/' + garner::detail::checkpoint_name("a.bin", false);
  REQUIRE(fs::exists(world.dir / note));
  world.journal->take();
  SUBCASE("that is well") {
    REQUIRE_FALSE(file.finish());
    const Entries entries = world.journal->take();
    CHECK(position(entries, "remove_file " + note) < position(entries, "sync_file " + in_staging + "/a.bin"));
    CHECK(fs::exists(world.dir / in_staging / garner::detail::checkpoint_name("a.bin", true)));
  }
  SUBCASE("that is not") {
    world.refuse("sync_file", errc::sync_failed);
    CHECK(file.finish() == errc::sync_failed);
    CHECK_FALSE(fs::exists(world.dir / note));
    CHECK_FALSE(fs::exists(world.dir / in_staging / garner::detail::checkpoint_name("a.bin", true)));
  }
}

TEST_CASE("after two fetches in a row whose syncs failed the store is read-only until it can write and sync again") {
  const World world;
  auto steps = world.start();
  const Generation kept = steps.published("kept", hello);
  const auto fail = [&] {
    world.refuse("sync_file staging/", errc::sync_failed);
    auto staging = steps.stage(chunk_of("c", hello));
    auto file = steps.open(staging, "a.bin");
    REQUIRE_FALSE(file.write(bytes_of("hello")));
    REQUIRE_FALSE(file.finish());
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec == errc::sync_failed);
    CHECK_FALSE(steps.store().discard(staging));
    world.refuse("nothing", {});
  };
  const auto stage = [&] {
    std::error_code ec;
    auto staging = steps.store().stage(chunk_of("c", hello), steps.next(), ec);
    CHECK_FALSE(steps.store().discard(staging));
    return ec;
  };
  fail();
  CHECK_FALSE(steps.store().is_read_only());
  SUBCASE("a fetch that succeeds between them shows that it was no more than that") {
    steps.published("between", hello);
    fail();
    CHECK_FALSE(steps.store().is_read_only());
  }
  SUBCASE("it says so, serves what it has, and tries with a small file of its own") {
    fail();
    CHECK(steps.store().is_read_only());
    world.refuse("sync_file PROBE", errc::sync_failed);
    CHECK(stage() == errc::read_only);
    CHECK(stage() == errc::read_only);
    CHECK_FALSE(steps.verify(kept));
    world.refuse("nothing", {});
    CHECK_FALSE(stage());
    CHECK_FALSE(steps.store().is_read_only());
    CHECK_FALSE(fs::exists(world.dir / "PROBE"));
    steps.published("later", hello);
  }
}

TEST_CASE("relaxed durability syncs nothing, ever") {
  const World world;
  {
    auto steps = world.start(Durability::relaxed);
    const Generation generation = steps.published("c", hello);
    CHECK_FALSE(steps.store().doom(generation));
    CHECK_FALSE(steps.store().spare(generation));
    steps.published("e", hello);
    CHECK_FALSE(steps.store().remove(generation));
  }
  auto again = world.start(Durability::relaxed);
  CHECK(again.found().size() == 1);
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(world.journal->take({"sync"}).empty());
}

TEST_CASE("a sync that fails is never repeated, nothing is published after it, and the next try has new files") {
  const World world;
  std::string failing;
  SUBCASE("of a file") { failing = "sync_file " + in_staging + "/a.bin"; }
  SUBCASE("of the descriptor") { failing = "sync_file " + in_staging + "/chunk.json"; }
  SUBCASE("of the staging directory") { failing = "sync_directory " + in_staging + '/'; }
  SUBCASE("of the directory of datasets") { failing = "sync_directory chunks/"; }
  SUBCASE("of the dataset's directory") { failing = "sync_directory " + dataset + '/'; }
  CAPTURE(failing);
  bool failed = false;
  {
    auto steps = world.start();
    world.journal->take();
    world.journal->refuse = [&](const std::string& entry) {
      const bool fails = !failed && entry == failing;
      failed = failed || fails;
      return fails ? make_error_code(errc::sync_failed) : std::error_code();
    };
    auto staging = steps.stage(chunk_of("c", hello));
    auto file = steps.open(staging, "a.bin");
    REQUIRE_FALSE(file.write(bytes_of("hello")));
    std::error_code ec = file.finish();
    if (!ec) steps.store().publish(staging, ec);
    CHECK(ec == errc::sync_failed);
    // Nor does anyone get it published who asks again.
    CHECK(file.finish());
    CHECK(file.restart());
    steps.store().publish(staging, ec);
    CHECK(ec);
    CHECK(steps.store().usage().bytes_used == 0);

    const Entries entries = world.journal->take();
    CHECK(std::count(entries.begin(), entries.end(), failing) == 1);
    for (std::size_t i = position(entries, failing); i < entries.size(); ++i) {
      CHECK_FALSE(entries[i].find("-> chunks/") != std::string::npos);
    }
    CHECK_FALSE(fs::exists(world.dir / in_place));

    CHECK_FALSE(steps.store().discard(staging));
    const Generation second = steps.published("c", hello);
    CHECK(second.number == 2);
    CHECK_FALSE(steps.verify(second));
  }
  auto again = world.start();
  REQUIRE(again.found().size() == 1);
  CHECK(again.found().front().number == 2);
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(fs::is_empty(world.dir / "trash"));
  CHECK(fs::is_empty(world.dir / "staging"));
}

TEST_CASE(
    "a generation whose parent did not sync is taken into the trash whole, since a power cut may bring it "
    "back") {
  const World world;
  auto steps = world.start();
  auto staging = steps.staged(chunk_of("c", hello), hello);
  world.refuse("sync_directory " + dataset, errc::sync_failed);
  std::error_code ec;
  steps.store().publish(staging, ec);
  CHECK(ec == errc::sync_failed);
  CHECK_FALSE(steps.store().discard(staging));
  CHECK(fs::exists(world.dir / in_trash / "a.bin"));
  CHECK(fs::exists(world.dir / in_trash / "chunk.json"));
}

TEST_CASE("a dataset's directory whose name did not sync is made anew by the next that needs it") {
  const World world;
  auto steps = world.start();
  auto staging = steps.staged(chunk_of("c", hello), hello);
  world.refuse("sync_directory chunks/", errc::sync_failed);
  std::error_code ec;
  steps.store().publish(staging, ec);
  CHECK(ec == errc::sync_failed);
  CHECK_FALSE(fs::exists(world.dir / dataset));

  SUBCASE("where it could be taken away") {
    world.journal->refuse = nullptr;
    world.journal->take();
    steps.published("e", hello);
    const Entries entries = world.journal->take();
    CHECK(position(entries, "make_directory " + dataset) + 1 == position(entries, "sync_directory chunks/"));
  }
  SUBCASE("and where it could not, nothing is published into it until it can") {
    world.journal->refuse = [](const std::string& entry) {
      const bool fails = entry == "sync_directory chunks/" || entry.starts_with("remove_directory chunks/");
      return fails ? make_error_code(errc::sync_failed) : std::error_code();
    };
    for (int i = 0; i < 2; ++i) {
      auto next = steps.staged(chunk_of("e", hello), hello);
      steps.store().publish(next, ec);
      CHECK(ec == errc::sync_failed);
    }
    world.journal->refuse = nullptr;
    world.journal->take();
    steps.published("f", hello);
    const Entries entries = world.journal->take();
    const auto removed = position(entries, "remove_directory " + dataset);
    CHECK(removed + 1 == position(entries, "make_directory " + dataset));
    CHECK(removed + 2 == position(entries, "sync_directory chunks/"));
  }
}

TEST_CASE("what a start could not make durable in the data directory is made anew by the next") {
  const World world;
  world.refuse("sync_directory", errc::sync_failed);
  CHECK_THROWS_AS((void)world.start(), garner::Error);
  CHECK_FALSE(fs::exists(world.dir / "chunks"));
  world.journal->refuse = nullptr;
  world.start().published("c", hello);
  // What is in use was durable before.
  world.refuse("sync_directory", errc::sync_failed);
  CHECK_THROWS_AS((void)world.start(), garner::Error);
  world.journal->refuse = nullptr;
  CHECK(world.start().found().size() == 1);
}

TEST_CASE("an empty dataset's directory that a start finds is made anew: its sync may have failed for someone else") {
  const World world;
  { const auto steps = world.start(); }
  fs::create_directory(world.dir / dataset);
  auto again = world.start();
  world.journal->take();
  again.published("c", hello);
  const Entries entries = world.journal->take();
  CHECK(position(entries, "remove_directory " + dataset) + 1 == position(entries, "make_directory " + dataset));
}

TEST_CASE(
    "a stranger's file in a dataset's directory whose name did not sync does not keep chunks out of it for ever") {
  const World world;
  auto steps = world.start();
  // Its directory is made, a stranger is quick, and the sync fails.
  std::error_code ec;
  auto staging = steps.staged(chunk_of("c", hello), hello);
  world.journal->refuse = [&](const std::string& entry) {
    if (entry == "sync_directory chunks/") std::ofstream(world.dir / dataset / "stranger").flush();
    return entry == "sync_directory chunks/" ? make_error_code(errc::sync_failed) : std::error_code();
  };
  steps.store().publish(staging, ec);
  CHECK(ec == errc::sync_failed);
  CHECK(fs::exists(world.dir / dataset / "stranger"));
  // As long as it cannot be synced, nothing is published into it.
  auto next = steps.staged(chunk_of("e", hello), hello);
  steps.store().publish(next, ec);
  CHECK(ec == errc::sync_failed);
  world.journal->refuse = nullptr;
  world.journal->take();
  steps.published("f", hello);
  const Entries entries = world.journal->take();
  const auto back = position(entries, "rename " + dataset + ".lost -> " + dataset);
  CHECK(position(entries, "rename " + dataset + " -> " + dataset + ".lost") + 1 == back);
  CHECK(position(entries, "sync_directory chunks/") == back + 1);
  CHECK(fs::exists(world.dir / dataset / "stranger"));
  // The next one finds it as any other.
  steps.published("g", hello);
  CHECK(world.journal->take({"rename chunks/"}).empty());
}

TEST_CASE("a generation that could be neither published, nor taken away, nor marked is marked when the store ends") {
  const World world;
  {
    auto steps = world.start();
    auto staging = steps.staged(chunk_of("c", hello), hello);
    world.journal->refuse = [](const std::string& entry) {
      const bool fails = entry.starts_with("sync_directory " + dataset) || entry.starts_with("create_file doomed/") ||
                         entry.starts_with("rename chunks/");
      return fails ? make_error_code(errc::sync_failed) : std::error_code();
    };
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec == errc::sync_failed);
    CHECK(steps.store().clean_up(garner::Partial::remove) == errc::sync_failed);
    CHECK(fs::exists(world.dir / in_place));
    CHECK(steps.store().usage().bytes_used == 5);
    world.journal->refuse = nullptr;
  }
  CHECK(fs::exists(world.dir / marker));
  CHECK(world.start().found().empty());
}

TEST_CASE("a full disk keeps a chunk from being published, and does not spoil it") {
  const World world;
  auto steps = world.start();
  auto staging = steps.stage(chunk_of("c", hello));
  auto file = steps.open(staging, "a.bin");
  world.refuse("write ", errc::no_space);
  CHECK(file.write(bytes_of("hello")) == errc::no_space);
  CHECK(file.size() == 0);
  world.journal->refuse = nullptr;
  REQUIRE_FALSE(file.write(bytes_of("hello")));
  REQUIRE_FALSE(file.finish());
  for (const std::string step : {"write ", "create_file ", "make_directory ", "rename "}) {
    world.refuse(step, errc::no_space);
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec == errc::no_space);
  }
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.verify(steps.publish(staging)));
}

TEST_CASE("room for a file is reserved from a megabyte on, and a full disk shows then") {
  const World world;
  auto steps = world.start();
  const std::string megabyte(std::size_t{1} << 20, 'x');
  auto staging = steps.stage(chunk_of("c", {{"a.bin", megabyte}, {"b.bin", megabyte.substr(1)}}));
  steps.open(staging, "a.bin");
  steps.open(staging, "b.bin");
  CHECK(world.journal->take({"reserve"}) == Entries{"reserve " + in_staging + "/a.bin 1048576"});
  world.refuse("reserve", errc::no_space);
  std::error_code ec;
  staging.open("a.bin", ec);
  CHECK(ec == errc::no_space);
}

TEST_CASE("remove renames, syncs the parent, takes the marker away, and only then unlinks") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  REQUIRE_FALSE(steps.store().doom(generation));
  world.journal->take();
  CHECK_FALSE(steps.store().remove(generation));
  Entries entries = world.journal->take({"rename", "sync", "remove"});
  REQUIRE(entries.size() == 7);
  std::sort(entries.begin() + 4, entries.begin() + 6);  // files, in the order of the directory
  CHECK(entries == Entries{"rename " + in_place + " -> " + in_trash, "sync_directory " + dataset + '/',
                           "remove_file " + marker, "sync_directory doomed/", "remove_file " + in_trash + "/a.bin",
                           "remove_file " + in_trash + "/chunk.json", "remove_directory " + in_trash});
}

TEST_CASE("what was removed but not synced away stays whole, and marked until the machine was started anew") {
  const World world;
  {
    auto steps = world.start();
    const Generation generation = steps.published("c", hello);
    world.refuse("sync_directory " + dataset, errc::sync_failed);
    CHECK_FALSE(steps.store().remove(generation));
    CHECK(fs::exists(world.dir / in_trash / "a.bin"));
    CHECK(fs::exists(world.dir / marker));
    CHECK(steps.store().remove(generation) == errc::no_such_generation);
    world.journal->refuse = nullptr;
  }
  SUBCASE("after that the clean-up syncs before it unlinks, and takes the marker last") {
    world.journal->boot_id = "boot 2";
    auto again = world.start();
    CHECK(again.found().empty());
    world.journal->take();
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    const Entries entries = world.journal->take({"sync", "remove"});
    CHECK(entries.front() == "sync_directory " + dataset + '/');
    CHECK(position(entries, "remove_directory " + in_trash) < position(entries, "remove_file " + marker));
    CHECK(entries.back() == "sync_directory doomed/");
  }
  SUBCASE("where the end of the marker does not sync it is seen yet, and its number is not used again") {
    world.journal->boot_id = "boot 2";
    auto again = world.start();
    world.refuse("sync_directory doomed/", errc::sync_failed);
    CHECK(again.store().clean_up(garner::Partial::remove) == errc::sync_failed);
    CHECK(fs::exists(world.dir / marker));
    world.journal->refuse = nullptr;
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    CHECK_FALSE(fs::exists(world.dir / marker));
  }
  SUBCASE("in the same boot the sync of a second process proves nothing, and the marker stays") {
    auto again = world.start();
    CHECK(again.found().empty());
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    CHECK_FALSE(fs::exists(world.dir / in_trash));
    CHECK(fs::exists(world.dir / marker));
  }
  SUBCASE("where the boot is not known, neither does it") {
    world.journal->boot_id.clear();
    auto again = world.start();
    CHECK(again.found().empty());
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    CHECK(fs::exists(world.dir / marker));
  }
  SUBCASE("and both stay where the sync fails") {
    world.journal->boot_id = "boot 2";
    auto again = world.start();
    world.refuse("sync_directory " + dataset, errc::sync_failed);
    CHECK(again.store().clean_up(garner::Partial::remove) == errc::sync_failed);
    CHECK(fs::exists(world.dir / in_trash / "a.bin"));
    CHECK(fs::exists(world.dir / marker));
  }
}

TEST_CASE("a removal that failed goes on where it stopped when it is called again") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  world.refuse("remove_file " + in_trash, errc::io_error);
  CHECK(steps.store().remove(generation) == errc::io_error);
  CHECK_FALSE(fs::exists(world.dir / in_place));
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.store().remove(generation));
  CHECK(fs::is_empty(world.dir / "trash"));
  CHECK(steps.store().remove(generation) == errc::no_such_generation);
}

TEST_CASE("what could not be discarded is the clean-up's") {
  const World world;
  auto steps = world.start();
  auto staging = steps.staged(chunk_of("c", hello), hello);
  world.refuse("remove_file " + in_staging, errc::io_error);
  CHECK(steps.store().discard(staging) == errc::io_error);
  CHECK(steps.store().clean_up(garner::Partial::remove) == errc::io_error);
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.store().clean_up(garner::Partial::remove));
  CHECK(fs::is_empty(world.dir / "staging"));
}

TEST_CASE("a name that is taken in the trash does not keep a generation from being removed") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  fs::create_directories(world.dir / in_trash / "leftover");
  CHECK_FALSE(steps.store().remove(generation));
  CHECK(fs::is_empty(world.dir / "trash"));
}

TEST_CASE("doom and spare sync, and where that fails the next of them changes the marker anew before it syncs") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  world.journal->take();
  const auto refuse = [&] { world.refuse("sync_directory doomed/", errc::sync_failed); };

  refuse();
  CHECK(steps.store().doom(generation) == errc::sync_failed);
  world.journal->refuse = nullptr;
  world.journal->take();
  CHECK_FALSE(steps.store().doom(generation));
  CHECK(world.journal->take() ==
        Entries{"remove_file " + marker, "create_file " + marker, "close " + marker, "sync_directory doomed/"});
  CHECK_FALSE(steps.store().doom(generation));
  CHECK(world.journal->take() == Entries{"create_file " + marker});

  refuse();
  CHECK(steps.store().spare(generation) == errc::sync_failed);
  CHECK(fs::exists(world.dir / marker));
  world.journal->refuse = nullptr;
  world.journal->take();
  CHECK_FALSE(steps.store().spare(generation));
  CHECK(world.journal->take() == Entries{"remove_file " + marker, "sync_directory doomed/"});
  CHECK_FALSE(steps.store().spare(generation));
  CHECK(world.journal->take() == Entries{"remove_file " + marker});
}

TEST_CASE("a doomed generation that somebody has taken away is nothing to be cleaned up for ever") {
  const World world;
  {
    auto steps = world.start();
    REQUIRE_FALSE(steps.store().doom(steps.published("c", hello)));
  }
  auto again = world.start();
  fs::remove_all(world.dir / in_place);
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
}

TEST_CASE("a deletion is marked on a full disk, too") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  world.refuse("write doomed/", errc::no_space);
  CHECK_FALSE(steps.store().doom(generation));
  CHECK(fs::exists(world.dir / marker));
  world.journal->refuse = nullptr;
  CHECK_FALSE(steps.store().spare(generation));
  CHECK_FALSE(steps.store().doom(generation));
  std::ifstream boot(world.dir / "doomed/boot");
  CHECK(std::string(std::istreambuf_iterator<char>(boot), {}) == world.journal->boot_id);
}

TEST_CASE("a marker whose end failed and cannot be seen is made again to be taken away for certain") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  REQUIRE_FALSE(steps.store().doom(generation));
  world.journal->refuse = [](const std::string& entry) {
    const bool fails = entry == "sync_directory doomed/" || entry.starts_with("create_file doomed/");
    return fails ? make_error_code(errc::sync_failed) : std::error_code();
  };
  CHECK(steps.store().spare(generation) == errc::sync_failed);
  CHECK_FALSE(fs::exists(world.dir / marker));
  world.journal->refuse = nullptr;
  world.journal->take();
  CHECK_FALSE(steps.store().spare(generation));
  CHECK(world.journal->take({"create", "remove", "sync"}) ==
        Entries{"remove_file " + marker, "create_file " + marker, "remove_file " + marker, "sync_directory doomed/"});
}

TEST_CASE("large files are cut down in steps of 16 MB before they are unlinked") {
  const World world;
  auto steps = world.start(Durability::relaxed);
  const Generation small = steps.published("c", {{"a.bin", "hello"}});
  world.journal->take();
  CHECK_FALSE(steps.store().remove(small));
  CHECK(world.journal->take({"truncate", "open_file"}).empty());

  const std::string large((std::size_t{40} << 20) + 1, 'x');
  const Generation generation = steps.published("c", {{"a.bin", large}, {"b.bin", "hello"}});
  const Generation linked = steps.published("e", {{"a.bin", large}});
  fs::create_hard_link(steps.store().location(linked) / "a.bin", world.dir / "kept");
  world.journal->take();
  CHECK_FALSE(steps.store().remove(generation));
  const std::string path = "trash/" + qualified_name(generation) + "/a.bin";
  CHECK(world.journal->take({"truncate", "remove_file trash/" + qualified_name(generation) + "/a"}) ==
        Entries{"truncate " + path + " 25165825", "truncate " + path + " 8388609", "remove_file " + path});

  CHECK_FALSE(steps.store().remove(linked));
  CHECK(world.journal->take({"truncate"}).empty());
  CHECK(fs::file_size(world.dir / "kept") == large.size());
}

TEST_CASE("a start opens no file") {
  const World world;
  {
    auto steps = world.start();
    steps.published("c", hello);
    REQUIRE_FALSE(steps.store().doom(steps.published("e", hello)));
    steps.staged(chunk_of("f", hello), hello);
  }
  world.journal->take();
  auto again = world.start();
  CHECK(again.found() == std::vector{first});
  const Entries entries = world.journal->take({"open_file", "status", "read", "create_file", "write"});
  // FORMAT is read before and under the lock; of the chunks nothing.
  CHECK(entries == Entries{"open_file FORMAT", "status FORMAT", "read FORMAT", "open_file LOCK", "open_file FORMAT",
                           "status FORMAT", "read FORMAT"});
}

TEST_CASE("a start syncs what an earlier process may not have lived to sync, before it tells of it") {
  const World world;
  { world.start().published("c", hello); }
  world.journal->take();
  auto again = world.start();
  CHECK(world.journal->take({"sync", "list"}) == Entries{"sync_directory ", "sync_directory doomed/", "list doomed/",
                                                         "list staging/", "list trash/", "list quarantine/",
                                                         "sync_directory chunks/", "list chunks/",
                                                         "sync_directory " + dataset + '/', "list " + dataset + '/'});
}

TEST_CASE("a start that cannot read a directory says which") {
  const World world;
  { world.start().published("c", hello); }
  std::error_code ec;
  Store store(RecordingFileSystem(garner::PosixFileSystem::open(world.dir.path(), ec), world.journal));
  std::string place;
  SUBCASE("the doomed") { place = "doomed"; }
  SUBCASE("the staging") { place = "staging"; }
  SUBCASE("the trash") { place = "trash"; }
  SUBCASE("the datasets") { place = "chunks"; }
  SUBCASE("one dataset") { place = dataset; }
  world.refuse("list " + place, errc::io_error);
  const garner::Recovery recovery = store.recover([](const Generation&) {});
  CHECK(recovery.error == errc::io_error);
  CHECK(recovery.subject == world.dir / place);
}

TEST_CASE("a start reads many datasets at the same time, and tells of them one after another") {
  const World world;
  { const auto steps = world.start(); }
  std::set<std::string> made;
  std::string last;
  for (std::uint64_t i = 0; i < 200; ++i) {
    Generation generation = first;
    generation.dataset_id = garner::DatasetId::from_name(std::to_string(i));
    last = "chunks/" + generation.dataset_id.to_hex();
    for (std::uint64_t j = 1; j <= 3; ++j) {
      generation.number = (3 * i) + j;
      made.insert(qualified_name(generation));
      fs::create_directories(world.dir / last / chunk_name(generation));
    }
  }
  // A dataset that is larger than what is told at once, and one without anything in it.
  for (std::uint64_t i = 1000; i < 4000; ++i) {
    Generation generation = first;
    generation.number = i;
    made.insert(qualified_name(generation));
    fs::create_directories(world.dir / dataset / chunk_name(generation));
  }
  fs::create_directory(world.dir / "chunks" / garner::DatasetId::from_name("empty").to_hex());

  std::error_code ec;
  Store store(RecordingFileSystem(garner::PosixFileSystem::open(world.dir.path(), ec), world.journal));
  std::set<std::string> told;
  const auto thread = std::this_thread::get_id();
  const auto found = [&](const Generation& generation) {
    CHECK(std::this_thread::get_id() == thread);
    told.insert(qualified_name(generation));
  };
  SUBCASE("all of them") {
    const garner::Recovery recovery = store.recover(found);
    CHECK_FALSE(recovery.error);
    CHECK(recovery.last_generation == 3999);
    CHECK(told == made);
    CHECK(store.usage().bytes_used == 5 * made.size());
  }
  SUBCASE("and says which one it cannot read") {
    world.refuse("list " + last, errc::io_error);
    const garner::Recovery recovery = store.recover(found);
    CHECK(recovery.error == errc::io_error);
    CHECK(recovery.subject == world.dir / last);
  }
  SUBCASE("or sync") {
    world.refuse("sync_directory " + last, errc::sync_failed);
    const garner::Recovery recovery = store.recover(found);
    CHECK(recovery.error == errc::sync_failed);
    CHECK(recovery.subject == world.dir / last);
  }
  SUBCASE("and ends when whoever is told throws") {
    const auto refuse = [](const Generation&) { throw std::runtime_error("enough"); };
    CHECK_THROWS_AS(store.recover(refuse), std::runtime_error);
  }
}

TEST_CASE("a number that stands in a name of the wrong kind is not given out again") {
  const World world;
  { const auto steps = world.start(); }
  Generation numbered = first;
  numbered.number = 77;
  SUBCASE("a file in a dataset") {
    fs::create_directories(world.dir / dataset);
    std::ofstream(world.dir / dataset / chunk_name(numbered));
  }
  SUBCASE("a file in the trash") { std::ofstream(world.dir / "trash" / qualified_name(numbered)); }
  SUBCASE("a file in the staging") { std::ofstream(world.dir / "staging" / (first.id.to_hex() + ".77")); }
  SUBCASE("a directory among the doomed") { fs::create_directories(world.dir / "doomed" / qualified_name(numbered)); }
  std::error_code ec;
  Store store(RecordingFileSystem(garner::PosixFileSystem::open(world.dir.path(), ec), world.journal));
  CHECK(store.recover([](const Generation&) {}).last_generation == 77);
  CHECK(store.unrecognised().size() == 1);
}

TEST_CASE("a clean-up that fails in one place goes on in the others and says so") {
  const World world;
  {
    auto steps = world.start();
    steps.staged(chunk_of("c", hello), hello);
    steps.staged(chunk_of("e", hello), hello);
    REQUIRE_FALSE(steps.store().doom(steps.published("f", hello)));
  }
  auto again = world.start();
  world.refuse("remove_file " + in_staging, errc::io_error);
  CHECK(again.store().clean_up(garner::Partial::remove) == errc::io_error);
  CHECK(fs::exists(world.dir / in_staging));
  CHECK(std::distance(fs::directory_iterator(world.dir / "staging"), {}) == 1);
  CHECK(again.store().usage().bytes_used == 0);
}

TEST_CASE("a disk that does not give the bytes is not a corrupt chunk") {
  const World world;
  auto steps = world.start();
  const Generation generation = steps.published("c", hello);
  world.refuse("read " + in_place + "/a.bin", errc::io_error);
  CHECK(steps.verify(generation) == errc::io_error);
}

}  // namespace
