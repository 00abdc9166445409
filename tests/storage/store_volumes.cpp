// SPDX-License-Identifier: BSL-1.0
//
// A store of several volumes: the contract of a Storage over two of them, where what comes in is put, and what happens
// when one of them fails and comes back. On a file system that refuses what it is told to refuse.
#include "garner/storage/store_volumes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/storage_contract.hpp"
#include "garner/storage/filesystem_storage.hpp"
#include "support/failing_volumes.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::errc;
using garner::FilesystemStorage;
using garner::Generation;
using garner::Options;
using garner::VolumeState;
using garner::VolumeStatus;
using garner::contract::chunk_of;
using garner::contract::Steps;
using garner::test::changes;
using garner::test::Journal;
using Store = garner::BasicVolumes<garner::test::RecordingFileSystem>;
using World = garner::test::FailingVolumes;

const std::map<std::string, std::string> hello = {{"a.bin", "hello"}};

class OnTwoDisks {
 public:
  FilesystemStorage open() {
    Options options;
    // Limits that are alike: what has less on it takes the next.
    options.locations = {{dir_ / "one", 1 << 30}, {dir_ / "two", 1 << 30}};
    return FilesystemStorage("unused", options);
  }
  static std::optional<std::string> read(const FilesystemStorage& store, const Generation& generation,
                                         const std::string& name) {
    std::ifstream file(store.location(generation) / name, std::ios::binary);
    if (!file) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static void damage(const FilesystemStorage& store, const Generation& generation, const std::string& name) {
    std::fstream file(store.location(generation) / name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3);
    file.put('!');
    REQUIRE(file.good());
  }

 private:
  garner::test::TempDir dir_;
};

std::vector<VolumeState> states(const std::vector<VolumeStatus>& volumes) {
  std::vector<VolumeState> out;
  out.reserve(volumes.size());
  for (const VolumeStatus& volume : volumes) out.push_back(volume.state);
  return out;
}

std::vector<VolumeState> examined(Steps<Store>& steps) {
  return states(steps.store().examine([](const Generation&) { FAIL("nothing was opened anew"); }));
}

TEST_CASE("FilesystemStorage over two directories is a Storage") { garner::contract::storage_contract<OnTwoDisks>(); }

TEST_CASE("each chunk is put where the most free bytes are, and found there by the next start") {
  World world({100, 60});
  std::vector<Generation> published;
  {
    Steps steps = garner::contract::Steps(world.store());
    published.push_back(steps.published("c0", {{"a.bin", std::string(50, 'x')}}));  // of 100 and 60
    published.push_back(steps.published("c1", {{"a.bin", std::string(20, 'x')}}));  // of 50 and 60
    published.push_back(steps.published("c2", {{"a.bin", std::string(10, 'x')}}));  // of 50 and 40
    published.push_back(steps.published("c3", {{"a.bin", std::string(5, 'x')}}));   // of 40 and 40
    published.push_back(steps.published("c4", {{"a.bin", std::string(5, 'x')}}));   // of 35 and 40
    CHECK(published[4].volume == 1);
    CHECK(published[0].volume == 0);
    CHECK(published[1].volume == 1);
    CHECK(published[2].volume == 0);
    CHECK(steps.store().location(published[1]).parent_path().parent_path() == world.place(1) / "chunks");
    CHECK(fs::exists(steps.store().location(published[1]) / "chunk.json"));
    CHECK(steps.store().usage().bytes_used == 90);
    CHECK(steps.store().usage().bytes_free == 70);
  }
  Steps again = garner::contract::Steps(world.store());
  for (const Generation& generation : published) {
    CHECK(std::count(again.found().begin(), again.found().end(), generation) == 1);
  }
  CHECK(again.last_generation() == 5);  // of either
}

TEST_CASE("what is staged on a volume counts there before it is written") {
  World world({100, 60});
  Steps steps = garner::contract::Steps(world.store());
  auto first = steps.stage(chunk_of("c0", {{"a.bin", std::string(50, 'x')}}));
  auto second = steps.stage(chunk_of("c1", {{"a.bin", std::string(55, 'x')}}));
  std::error_code ec;
  steps.store().stage(chunk_of("c2", {{"a.bin", std::string(51, 'x')}}), steps.next(), ec);
  CHECK(ec == errc::no_space);
  CHECK_FALSE(fs::is_empty(world.place(0) / "staging"));
  CHECK_FALSE(fs::is_empty(world.place(1) / "staging"));
  CHECK_FALSE(steps.store().discard(first));
  steps.stage(chunk_of("c2", {{"a.bin", std::string(51, 'x')}}));
  CHECK_FALSE(steps.store().discard(second));
}

TEST_CASE("nothing is put into the bytes that a location is to keep free") {
  garner::test::TempDir dir;
  Options options;
  options.locations = {{dir / "one", garner::Options().max_bytes, std::uint64_t{1} << 62}};
  FilesystemStorage store(dir / "data", options);
  std::error_code ec;
  store.stage(chunk_of("c", hello), 1, ec);
  CHECK(ec == errc::no_space);
  CHECK(store.usage().bytes_free == 0);
  CHECK_FALSE(fs::exists(dir / "data"));
}

TEST_CASE("a relative location begins at the data directory, which itself is one where it is named") {
  garner::test::TempDir dir;
  Options options;
  { FilesystemStorage store(dir / "data", options); }
  options.locations = {{"."}, {"more"}};
  FilesystemStorage store(dir / "data", options);
  const std::vector<VolumeStatus> volumes = store.volumes();
  REQUIRE(volumes.size() == 2);
  CHECK(volumes[0].path == (dir / "data").string());
  CHECK(volumes[1].path == (dir / "data/more").string());
  CHECK(fs::exists(dir / "data/more/FORMAT"));
}

TEST_CASE("two locations that are one directory are refused") {
  garner::test::TempDir dir;
  Options options;
  options.locations = {{"a"}, {"a"}};
  CHECK_THROWS_AS(FilesystemStorage(dir.path(), options), garner::Error);
}

TEST_CASE(
    "a location that must be a mount point and is none is away while another is there, and nothing is written there") {
  garner::test::TempDir dir;
  Options options;
  options.locations = {{"one"}, {.path = "two", .must_be_mount_point = true}};
  fs::create_directories(dir / "two");
  FilesystemStorage store(dir.path(), options);
  CHECK(states(store.volumes()) == std::vector{VolumeState::healthy, VolumeState::away});
  CHECK(fs::is_empty(dir / "two"));
  options.locations = {{.path = "two", .must_be_mount_point = true}};
  CHECK_THROWS_AS(FilesystemStorage(dir.path(), options), garner::Error);
  options.locations = {{.path = "/proc", .must_be_mount_point = true}, {"three"}};
  // Is one, and no data directory can be there.
  CHECK(states(FilesystemStorage(dir.path(), options).volumes()) ==
        std::vector{VolumeState::away, VolumeState::healthy});
}

TEST_CASE("a volume that is in use, of another format or no directory ends the start, whatever the others are") {
  const World world;
  SUBCASE("in use") {
    const Store store = world.store();
    CHECK_THROWS_AS(static_cast<void>(world.store()), garner::Error);
  }
  SUBCASE("of another format") {
    fs::create_directories(world.place(1));
    std::ofstream(world.place(1) / "FORMAT") << "garner 9\n";
    CHECK_THROWS_AS(static_cast<void>(world.store()), garner::Error);
  }
  SUBCASE("no directory") {
    fs::create_directories(world.place(1));
    std::ofstream(world.place(1) / "chunks") << "no directory";
    CHECK_THROWS_AS(static_cast<void>(world.store()), garner::Error);
  }
}

TEST_CASE("a start is refused where no volume can be opened or read") {
  World world;
  SUBCASE("opened") {
    world.is_there = {false, false};
    CHECK_THROWS_AS(static_cast<void>(world.store()), garner::Error);
  }
  SUBCASE("read") {
    Store store = world.store();
    world.fail(0);
    world.fail(1);
    CHECK(store.recover([](const Generation&) {}).error == errc::io_error);
  }
}

TEST_CASE("a volume that refuses changes takes nothing more, and serves what it has") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation kept = steps.published("c0", hello);
  REQUIRE(kept.volume == 0);
  SUBCASE("found out by an examination") {
    world.fail(0, errc::read_only, changes);
    CHECK(examined(steps) == std::vector{VolumeState::read_only, VolumeState::healthy});
  }
  SUBCASE("found out by the first that is to be put there") {
    steps.published("c1", {{"a.bin", "hello!"}});
    world.fail(0, errc::read_only, changes);
    steps.published("c2", hello);
    CHECK(states(steps.store().volumes()) == std::vector{VolumeState::read_only, VolumeState::healthy});
  }
  SUBCASE("found out by a sync that fails") {
    world.fail(0, errc::sync_failed, {"sync_"});
    CHECK(examined(steps) == std::vector{VolumeState::read_only, VolumeState::healthy});
  }
  CHECK(steps.published("c3", hello).volume == 1);
  CHECK(steps.published("c4", hello).volume == 1);
  CHECK_FALSE(steps.verify(kept));
  CHECK(steps.store().doom(kept));
  world.mend(0);
  CHECK(examined(steps) == std::vector{VolumeState::healthy, VolumeState::healthy});
  CHECK(steps.published("c5", hello).volume == 0);
  CHECK_FALSE(steps.store().doom(kept));
  CHECK_FALSE(fs::exists(world.place(0) / "PROBE"));
}

TEST_CASE("a full volume is healthy, and descriptors that are short say nothing about it") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  world.fail(0, errc::no_space, {"create_file", "write"});
  CHECK(examined(steps) == std::vector{VolumeState::healthy, VolumeState::healthy});
  world.fail(0, errc::too_many_open_files, {"list"});
  world.fail(1, errc::too_many_open_files, {"create_file"});
  CHECK(examined(steps) == std::vector{VolumeState::healthy, VolumeState::healthy});
}

TEST_CASE("where all volumes refuse changes nothing is staged, and that is no want of room") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  world.fail(0, errc::read_only, changes);
  world.fail(1, errc::read_only, changes);
  std::error_code ec;
  for (int i = 0; i < 2; ++i) {
    steps.store().stage(chunk_of("c", hello), steps.next(), ec);
    CHECK(ec == errc::read_only);
  }
}

TEST_CASE("a volume that cannot be read is away, every operation there fails, and the other one goes on") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation on_first = steps.published("c0", hello);
  const Generation on_second = steps.published("c1", hello);
  auto staging = steps.stage(chunk_of("c2", hello));  // on the first
  REQUIRE(on_second.volume == 1);
  world.fail(0);
  CHECK(examined(steps) == std::vector{VolumeState::away, VolumeState::healthy});
  std::error_code ec;
  CHECK(steps.store().doom(on_first) == errc::io_error);
  CHECK(steps.store().spare(on_first) == errc::io_error);
  CHECK(steps.store().remove(on_first) == errc::io_error);
  CHECK(steps.verify(on_first) == errc::io_error);
  steps.store().publish(staging, ec);
  CHECK(ec == errc::io_error);
  CHECK(steps.store().discard(staging));
  CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
  CHECK(steps.store().location(on_first).parent_path().parent_path() == world.place(0) / "chunks");
  CHECK(steps.published("c3", hello).volume == 1);
  CHECK(steps.store().usage().bytes_used == 10);
  CHECK_FALSE(steps.verify(on_second));

  SUBCASE("and comes back as it was") {
    world.mend(0);
    CHECK(examined(steps) == std::vector{VolumeState::healthy, VolumeState::healthy});
    CHECK(steps.store().volumes()[0].openings == 1);
    CHECK_FALSE(steps.verify(on_first));
    CHECK_FALSE(fs::is_empty(world.place(0) / "staging"));
    CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
    CHECK(fs::is_empty(world.place(0) / "staging"));
    CHECK_FALSE(steps.store().remove(on_first));
  }
}

TEST_CASE("a volume whose handles are dead is opened anew, and tells what it holds") {
  World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation one = steps.published("c0", hello);
  const Generation other = steps.published("c1", hello);
  const Generation doomed = steps.published("c2", hello);
  REQUIRE(doomed.volume == 0);
  CHECK_FALSE(steps.store().doom(doomed));
  steps.published("c4", hello);
  auto staging = steps.stage(chunk_of("c3", hello));
  auto file = steps.open(staging, "a.bin");
  CHECK_FALSE(file.write({}));
  world.fail(0);
  world.is_there[0] = false;
  CHECK(examined(steps)[0] == VolumeState::away);
  // As a disk that was taken out and put in again is: what is open of it stays dead, and holds no lock.
  fs::copy(world.place(0), world.place(2), fs::copy_options::recursive);
  fs::remove_all(world.place(0));
  fs::rename(world.place(2), world.place(0));
  world.journals[0] = std::make_shared<Journal>();
  world.is_there[0] = true;
  std::vector<Generation> found;
  const std::vector<VolumeStatus> volumes =
      steps.store().examine([&found](const Generation& generation) { found.push_back(generation); });
  CHECK(states(volumes) == std::vector{VolumeState::healthy, VolumeState::healthy});
  CHECK(volumes[0].openings == 2);
  CHECK(volumes[1].openings == 1);
  // What this process marked as deleted may be pinned: it is told of, and taken away when it is asked to be.
  CHECK(found.size() == 2);
  CHECK(std::count(found.begin(), found.end(), one) == 1);
  CHECK(std::count(found.begin(), found.end(), doomed) == 1);
  CHECK_FALSE(steps.verify(one));
  CHECK_FALSE(steps.verify(other));
  // Told before anything is fetched for it.
  CHECK(file.write({}) == errc::io_error);
  std::error_code ec;
  steps.store().publish(staging, ec);
  CHECK(ec == errc::io_error);
  CHECK_FALSE(steps.store().discard(staging));
  CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
  CHECK(fs::is_empty(world.place(0) / "staging"));
  CHECK(fs::exists(steps.store().location(doomed)));
  CHECK_FALSE(steps.store().remove(doomed));
  CHECK(steps.store().usage().bytes_used == 15);
}

TEST_CASE(
    "a volume that is not there at a start is taken in later, and its numbers are below all that came meanwhile") {
  World world;
  Generation held;
  {
    Steps steps = garner::contract::Steps(world.store());
    steps.published("c0", hello);
    held = steps.published("c1", hello);
    REQUIRE(held.volume == 1);
  }
  world.is_there[1] = false;
  Steps steps = garner::contract::Steps(world.store());
  CHECK(states(steps.store().volumes()) == std::vector{VolumeState::healthy, VolumeState::away});
  const Generation meanwhile = steps.published("c1", hello);
  CHECK(meanwhile.number > held.number);
  CHECK(meanwhile.number > (std::uint64_t{1} << 32));
  std::vector<Generation> found;
  world.is_there[1] = true;
  steps.store().examine([&found](const Generation& generation) { found.push_back(generation); });
  CHECK(found == std::vector{held});
}

TEST_CASE(
    "a volume whose names cannot be read at a start is away, and what is told of it is what another one describes") {
  const World world;
  {
    Steps steps = garner::contract::Steps(world.store());
    steps.published("c0", hello);
    steps.published("c1", hello);
  }
  Store store = world.store();
  world.fail(1, errc::io_error, {"list chunks/"});
  std::vector<Generation> found;
  const auto take = [&found](const Generation& generation) { found.push_back(generation); };
  CHECK_FALSE(store.recover(take).error);
  REQUIRE(found.size() == 2);
  CHECK(found[0].volume == 0);
  CHECK(found[1].volume == 1);
  CHECK(states(store.volumes()) == std::vector{VolumeState::healthy, VolumeState::away});
  CHECK(states(store.examine(take))[1] == VolumeState::away);
  world.mend(1);
  CHECK(states(store.examine(take))[1] == VolumeState::healthy);
  REQUIRE(found.size() == 3);
  CHECK(found[2] == found[1]);
}

TEST_CASE("one volume is not examined: what fails there is told by what fails") {
  const World world({1 << 20});
  Steps steps = garner::contract::Steps(world.store());
  world.fail(0);
  CHECK(examined(steps) == std::vector{VolumeState::healthy});
}

// ---- descriptions

fs::path description_of(const World& world, std::size_t index, const Generation& generation) {
  return world.place(index) / "descriptions" / garner::store_layout::qualified_name(generation);
}

TEST_CASE("what is on a volume is described on another one, until it is deleted") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation first = steps.published("c0", hello);
  const Generation second = steps.published("c1", hello);
  CHECK(fs::exists(description_of(world, 1, first)));
  CHECK(fs::exists(description_of(world, 0, second)));
  CHECK_FALSE(steps.store().doom(first));
  CHECK_FALSE(fs::exists(description_of(world, 1, first)));
  CHECK_FALSE(steps.store().spare(first));
  CHECK(fs::exists(description_of(world, 1, first)));
  CHECK_FALSE(steps.store().remove(first));
  CHECK_FALSE(fs::exists(description_of(world, 1, first)));
  CHECK(fs::exists(description_of(world, 0, second)));
}

TEST_CASE("one volume describes nothing elsewhere, and has no directory for it") {
  const World world({1 << 20});
  Steps steps = garner::contract::Steps(world.store());
  steps.published("c", hello);
  CHECK_FALSE(fs::exists(world.place(0) / "descriptions"));
}

TEST_CASE("a description goes, durably, before what it describes is marked or removed; where it cannot, that waits") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation first = steps.published("c0", hello);
  world.journals[0]->take();
  world.journals[1]->take();
  world.fail(1, errc::io_error, {"remove_file descriptions/"});
  CHECK(steps.store().doom(first) == errc::io_error);
  CHECK(steps.store().remove(first) == errc::io_error);
  world.fail(1, errc::sync_failed, {"sync_directory descriptions/"});
  CHECK(steps.store().remove(first) == errc::sync_failed);
  CHECK(world.journals[0]->take({"rename", "create_file"}).empty());
  SUBCASE("but not for a volume that is away") {
    world.fail(1);
    CHECK(examined(steps)[1] == VolumeState::away);
    CHECK_FALSE(steps.store().remove(first));
  }
  SUBCASE("but not for a volume that refuses changes") {
    world.fail(1, errc::read_only, changes);
    CHECK(examined(steps)[1] == VolumeState::read_only);
    CHECK_FALSE(steps.store().remove(first));
  }
}

TEST_CASE("what is on a volume that is away is described by another one, and compared with what was asked for") {
  const World world;
  Steps steps = garner::contract::Steps(world.store());
  const Generation first = steps.published("c0", hello);
  const Generation second = steps.published("c1", {{"b.bin", "hello"}});
  std::error_code ec;
  const garner::DataChunk described = steps.store().describe(first, ec);
  world.fail(0);
  examined(steps);
  CHECK(steps.store().describe(first, ec) == described);
  CHECK_FALSE(ec);
  SUBCASE("one that is cut short is none") {
    fs::resize_file(description_of(world, 1, first), 100);
    steps.store().describe(first, ec);
    CHECK(ec == errc::io_error);
  }
  SUBCASE("one that was changed by a bit is none") {
    std::fstream file(description_of(world, 1, first), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(30);
    file.put('!');
    file.close();
    steps.store().describe(first, ec);
    CHECK(ec == errc::io_error);
  }
  SUBCASE("another's is none") {
    fs::copy_file(steps.store().location(second) / "chunk.json", description_of(world, 1, first),
                  fs::copy_options::overwrite_existing);
    steps.store().describe(first, ec);
    CHECK(ec == errc::io_error);
  }
  SUBCASE("a link is none") {
    fs::rename(description_of(world, 1, first), world.place(1) / "elsewhere");
    fs::create_symlink(world.place(1) / "elsewhere", description_of(world, 1, first));
    steps.store().describe(first, ec);
    CHECK(ec);
  }
}

TEST_CASE(
    "a start without a volume finds what is described of it, and where all are there, nothing but what is there") {
  World world;
  Generation first, second, doomed;
  {
    Steps steps = garner::contract::Steps(world.store());
    first = steps.published("c0", hello);
    second = steps.published("c1", hello);
    doomed = steps.published("c2", hello);
    REQUIRE(doomed.volume == 0);
    CHECK_FALSE(steps.store().doom(doomed));
  }
  SUBCASE("one that is described and not there any more is found while its volume is away, and else forgotten") {
    fs::copy_file(description_of(world, 1, first), world.dir / "kept");
    {
      Steps steps = garner::contract::Steps(world.store());
      CHECK_FALSE(steps.store().remove(first));
    }
    fs::copy_file(world.dir / "kept", description_of(world, 1, first));
    Steps steps = garner::contract::Steps(world.store());
    CHECK(steps.found() == std::vector{second});
    CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
    CHECK_FALSE(fs::exists(description_of(world, 1, first)));
    CHECK(fs::exists(description_of(world, 0, second)));
    return;
  }
  SUBCASE("one that is not described is described") {
    fs::remove_all(world.place(1) / "descriptions");
    Steps steps = garner::contract::Steps(world.store());
    CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
    CHECK(fs::exists(description_of(world, 1, first)));
    CHECK_FALSE(fs::exists(description_of(world, 1, doomed)));
    return;
  }
  world.is_there[0] = false;
  Steps steps = garner::contract::Steps(world.store());
  CHECK(steps.found() == std::vector{second, first});
  CHECK_FALSE(steps.store().clean_up(garner::Partial::keep));
  std::error_code ec;
  CHECK(steps.store().describe(first, ec).id == first.id);
  CHECK_FALSE(ec);
  CHECK(fs::exists(description_of(world, 1, first)));
}

}  // namespace
