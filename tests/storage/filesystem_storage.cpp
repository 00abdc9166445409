// SPDX-License-Identifier: BSL-1.0
//
// FilesystemStorage beyond its contract: how it comes to its directory, what it makes of a hostile one, and what lies
// there when it is done. In which order it goes about it is store_protocol.cpp's.
#include "garner/storage/filesystem_storage.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "contract/storage_contract.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::errc;
using garner::FilesystemStorage;
using garner::Generation;
using garner::contract::bytes_of;
using garner::contract::chunk_of;
using garner::contract::Steps;
using garner::test::TempDir;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const fs::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  REQUIRE(file.flush().good());
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename());
  return names;
}

/// What opening a store in `data_dir` throws; its message must name `named`.
std::error_code refusal(const fs::path& data_dir, const fs::path& named) {
  try {
    const FilesystemStorage store(data_dir);
  } catch (const garner::Error& error) {
    CHECK(error.subject() == named);
    CHECK(std::string(error.what()).find(named) != std::string::npos);
    return error.code();
  }
  return {};
}

/// Runs `body` in a process of its own, whose exit code it gives.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("a data directory is made, with those above it") {
  const TempDir dir;
  const FilesystemStorage store(dir / "a/b/data");
  CHECK(names_in(dir / "a/b/data") ==
        std::set<std::string>{"FORMAT", "LOCK", "chunks", "doomed", "quarantine", "staging", "trash"});
  CHECK(read_file(dir / "a/b/data/FORMAT") == "garner 1\n");
  CHECK((fs::status(dir / "a/b/data/chunks").permissions() & fs::perms::others_write) == fs::perms::none);
}

TEST_CASE("an empty directory that is there is taken, and so is a store") {
  const TempDir dir;
  { const FilesystemStorage store(dir.path()); }
  const FilesystemStorage store(dir.path().string() + "/./");
  CHECK(store.location({}).string().starts_with(dir.path().string() + "/chunks/"));
}

TEST_CASE("a location is absolute where the data directory was relative") {
  const TempDir dir;
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  Steps steps(FilesystemStorage("data"));
  fs::current_path(before);
  const Generation generation = steps.published("c", {{"a.bin", "hello"}});
  const fs::path location = steps.store().location(generation);
  CHECK(location.is_absolute());
  CHECK(location.filename() == "0000000010-0000000020-0000000005-" + generation.id.to_hex() + ".1");
  CHECK(location.parent_path().filename() == generation.dataset_id.to_hex());
  CHECK(read_file(location / "a.bin") == "hello");
  CHECK(names_in(location) == std::set<std::string>{"a.bin", "chunk.json"});
}

TEST_CASE("a second manager on the same directory is refused, and the first is not disturbed") {
  const TempDir dir;
  Steps first{FilesystemStorage(dir.path())};
  CHECK(refusal(dir.path(), dir.path()) == errc::directory_in_use);
  CHECK(in_child([&] { return refusal(dir.path(), dir.path()) == errc::directory_in_use ? 7 : 1; }) == 7);
  first.published("c", {{"a.bin", "hello"}});
}

TEST_CASE("the lock is held by a moved store, and by what it staged") {
  const TempDir dir;
  FilesystemStorage first(dir.path());
  std::error_code ec;
  {
    FilesystemStorage second(std::move(first));
    CHECK(refusal(dir.path(), dir.path()) == errc::directory_in_use);
    FilesystemStorage::Staging staging = second.stage(chunk_of("c", {{"a.bin", "hello"}}), 1, ec);
    REQUIRE_FALSE(ec);
    { const FilesystemStorage last(std::move(second)); }
    CHECK(refusal(dir.path(), dir.path()) == errc::directory_in_use);
  }
  CHECK_FALSE(refusal(dir.path(), dir.path()));
}

TEST_CASE("a killed process's lock is taken over at once") {
  const TempDir dir;
  std::array<int, 2> ready{};
  REQUIRE(::pipe(ready.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const FilesystemStorage store(dir.path());
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(refusal(dir.path(), dir.path()) == errc::directory_in_use);
  REQUIRE(::kill(child, SIGKILL) == 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK_FALSE(refusal(dir.path(), dir.path()));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("a FORMAT of a later version, or garbage, is refused and nothing is touched") {
  const TempDir dir;
  const fs::path format = dir / "FORMAT";
  SUBCASE("a later version") { write_file(format, "garner 2\n"); }
  SUBCASE("more than a version") { write_file(format, "garner 1\nand more\n"); }
  SUBCASE("garbage") { write_file(format, std::string(1 << 20, '\xff')); }
  SUBCASE("nothing in it") { write_file(format, ""); }
  SUBCASE("a directory") { fs::create_directory(format); }
  SUBCASE("a FIFO") { REQUIRE(::mkfifo(format.c_str(), 0600) == 0); }
  SUBCASE("a link to a good one") {
    write_file(dir / "good", "garner 1\n");
    fs::create_symlink("good", format);
  }
  const auto before = names_in(dir.path());
  const auto modified = fs::last_write_time(dir.path());
  CHECK(refusal(dir.path(), format) == errc::unknown_format);
  CHECK(names_in(dir.path()) == before);
  CHECK(fs::last_write_time(dir.path()) == modified);
}

TEST_CASE("a FORMAT that a crash cut short is written anew") {
  const TempDir dir;
  write_file(dir / "FORMAT.new", "garn");
  const FilesystemStorage store(dir.path());
  CHECK(read_file(dir / "FORMAT") == "garner 1\n");
  CHECK_FALSE(fs::exists(dir / "FORMAT.new"));
}

TEST_CASE("a link or a file where a directory should be is refused") {
  const TempDir dir;
  const TempDir elsewhere;
  SUBCASE("the data directory is a link") {
    fs::create_directory_symlink(elsewhere.path(), dir / "data");
    CHECK(refusal(dir / "data", dir / "data") == errc::not_a_directory);
    CHECK(refusal(dir.path().string() + "/data/", dir / "data") == errc::not_a_directory);
    CHECK(refusal(dir.path().string() + "/data/.", dir / "data") == errc::not_a_directory);
  }
  SUBCASE("the data directory is a link to nothing") {
    fs::create_directory_symlink(elsewhere / "nothing", dir / "data");
    CHECK(refusal(dir / "data", dir / "data") == errc::not_a_directory);
  }
  SUBCASE("the data directory is a file") {
    write_file(dir / "data", "precious");
    CHECK(refusal(dir / "data", dir / "data") == errc::not_a_directory);
    CHECK(read_file(dir / "data") == "precious");
  }
  SUBCASE("the data directory is below a file") {
    write_file(dir / "file", "precious");
    CHECK(refusal(dir / "file/data", dir / "file/data") == errc::not_a_directory);
  }
  SUBCASE("a part of it is a link") {
    for (const char* part : {"chunks", "staging", "doomed", "trash"}) {
      fs::create_directory_symlink(elsewhere.path(), dir / part);
      CHECK(refusal(dir.path(), dir / part) == errc::not_a_directory);
      fs::remove(dir / part);
    }
  }
  SUBCASE("the lock is a link") {
    write_file(elsewhere / "file", "precious");
    fs::create_symlink(elsewhere / "file", dir / "LOCK");
    CHECK(refusal(dir.path(), dir / "LOCK") == std::errc::too_many_symbolic_link_levels);
    fs::remove(elsewhere / "file");
  }
  CHECK(names_in(elsewhere.path()).empty());
}

TEST_CASE("a data directory that may not be written is a clear error") {
  const TempDir dir;
  fs::create_directory(dir / "data");
  fs::permissions(dir.path(), fs::perms(0755));
  fs::permissions(dir / "data", fs::perms(0555));
  const int result = in_child([&] {
    // Root may write everywhere, so that the test is somebody else.
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 2;
    const bool inside = refusal(dir / "data", dir / "data/LOCK") == errc::permission_denied;
    const bool above = refusal(dir / "data/new", dir / "data/new") == errc::permission_denied;
    return inside && above ? 7 : 1;
  });
  CHECK(result == 7);
}

TEST_CASE("what an earlier run left half-done is taken away by the clean-up, and nothing else") {
  const TempDir dir;
  Generation kept;
  Generation doomed;
  {
    Steps steps{FilesystemStorage(dir.path())};
    kept = steps.published("kept", {{"a.bin", "hello"}});
    doomed = steps.published("doomed", {{"a.bin", "hello"}});
    REQUIRE_FALSE(steps.store().doom(doomed));
    steps.staged(chunk_of("staged", {{"a.bin", "hello"}}), {{"a.bin", "hello"}});
  }
  Generation removed = kept;
  removed.number = 40;
  const fs::path in_trash = dir / "trash" / garner::store_layout::qualified_name(removed);
  fs::create_directories(in_trash / "deeper/still");
  write_file(in_trash / "a.bin", "hello");
  removed.number = 50;
  write_file(dir / "doomed" / garner::store_layout::qualified_name(removed), "");

  Steps again{FilesystemStorage(dir.path())};
  CHECK(again.found() == std::vector{kept});
  CHECK(again.last_generation() == 50);
  CHECK(again.store().unrecognised().empty());
  auto begun = again.staged(chunk_of("begun", {{"a.bin", "hello"}}), {{"a.bin", "hello"}});
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(names_in(dir / "staging").size() == 1);
  CHECK(names_in(dir / "trash").empty());
  // A marker without its chunk may be of a removal whose sync failed: it stays until the machine was started anew.
  CHECK(names_in(dir / "doomed") == std::set<std::string>{"boot", garner::store_layout::qualified_name(removed)});
  CHECK_FALSE(fs::exists(again.store().location(doomed)));
  again.publish(begun);
  CHECK(again.store().usage().bytes_used == 10);
}

TEST_CASE("what garner did not make is left alone and told") {
  const TempDir dir;
  const TempDir elsewhere;
  Generation generation;
  {
    Steps steps{FilesystemStorage(dir.path())};
    generation = steps.published("c", {{"a.bin", "hello"}});
  }
  const std::string dataset = generation.dataset_id.to_hex();
  const std::string other = garner::DatasetId::from_name("other").to_hex();
  const std::string name = fs::path(garner::store_layout::chunk_name(generation)).filename();
  write_file(dir / "chunks/file", "x");
  fs::create_directory(dir / "chunks/lost+found");
  fs::create_directory_symlink(elsewhere.path(), dir / "chunks" / other);
  fs::create_directory(dir / "chunks" / dataset / (name + "x"));
  fs::create_directory_symlink(elsewhere.path(), dir / "chunks" / dataset / (name + "7"));
  write_file(dir / "chunks" / dataset / (name + "8"), "a file");
  fs::create_directory(dir / "staging/mine");
  fs::create_directory(dir / "trash/mine\n");
  write_file(dir / "doomed/mine", "");
  fs::create_directory(dir / "doomed" / garner::store_layout::qualified_name(generation));

  Steps again{FilesystemStorage(dir.path())};
  CHECK(again.found() == std::vector{generation});
  CHECK(again.last_generation() == 18);  // what stands there, of whatever kind, has its name
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  const std::vector<std::string> told = again.store().unrecognised();
  const std::set<std::string> expected = {"chunks/file",
                                          "chunks/lost+found",
                                          "chunks/" + other,
                                          "chunks/" + dataset + '/' + name + 'x',
                                          "chunks/" + dataset + '/' + name + '7',
                                          "chunks/" + dataset + '/' + name + '8',
                                          "staging/mine",
                                          "trash/mine\\x0a",
                                          "doomed/mine",
                                          "doomed/" + garner::store_layout::qualified_name(generation)};
  CHECK(std::set<std::string>(told.begin(), told.end()) == expected);
  CHECK(fs::exists(dir / "trash/mine\n"));
  CHECK(names_in(dir / "chunks" / dataset).size() == 4);
}

TEST_CASE("a published chunk that was changed behind the store's back is found by verify") {
  const TempDir dir;
  const TempDir elsewhere;
  Steps steps{FilesystemStorage(dir.path())};
  const Generation generation = steps.published("c", {{"a.bin", "hello"}, {"b.bin", "world"}});
  const fs::path location = steps.store().location(generation);
  const std::string descriptor = read_file(location / "chunk.json");
  REQUIRE_FALSE(steps.verify(generation));
  bool described = true;
  SUBCASE("truncated") { fs::resize_file(location / "a.bin", 4); }
  SUBCASE("longer") { write_file(location / "a.bin", "hello!"); }
  SUBCASE("missing") { fs::remove(location / "a.bin"); }
  SUBCASE("one too many") { write_file(location / "c.bin", ""); }
  SUBCASE("a link to the same bytes") {
    write_file(elsewhere / "a.bin", "hello");
    fs::remove(location / "a.bin");
    fs::create_symlink(elsewhere / "a.bin", location / "a.bin");
  }
  SUBCASE("a directory") {
    fs::remove(location / "a.bin");
    fs::create_directory(location / "a.bin");
  }
  SUBCASE("a FIFO") {
    fs::remove(location / "a.bin");
    REQUIRE(::mkfifo((location / "a.bin").c_str(), 0600) == 0);
  }
  SUBCASE("a descriptor cut short") {
    fs::resize_file(location / "chunk.json", descriptor.size() / 2);
    described = false;
  }
  SUBCASE("no descriptor") {
    fs::remove(location / "chunk.json");
    described = false;
  }
  SUBCASE("a huge descriptor") {
    write_file(location / "chunk.json", descriptor + std::string(std::size_t{2} << 20, ' '));
    described = false;
  }
  SUBCASE("another generation's descriptor") {
    const Generation other = steps.published("c", {{"a.bin", "hello"}, {"b.bin", "world"}});
    fs::copy_file(steps.store().location(other) / "chunk.json", location / "chunk.json",
                  fs::copy_options::overwrite_existing);
    described = false;
  }
  SUBCASE("a link in the directory's place") {
    fs::rename(location, elsewhere / "chunk");
    fs::create_directory_symlink(elsewhere / "chunk", location);
    described = false;
  }
  CHECK(steps.verify(generation) == errc::corrupt_chunk);
  std::error_code ec;
  steps.store().describe(generation, ec);
  CHECK(ec == (described ? std::error_code() : make_error_code(errc::corrupt_chunk)));
  // Whatever it is, it can be removed, and what a link led to stays.
  CHECK_FALSE(steps.store().remove(generation));
  CHECK(names_in(dir / "trash").empty());
  const bool linked = fs::exists(elsewhere / "a.bin") || fs::exists(elsewhere / "chunk/a.bin");
  CHECK(linked == !names_in(elsewhere.path()).empty());
}

TEST_CASE("a data directory that vanishes while the store runs is an error of each call") {
  const TempDir dir;
  Steps steps{FilesystemStorage(dir / "data")};
  const Generation generation = steps.published("c", {{"a.bin", "hello"}});
  auto staging = steps.staged(chunk_of("e", {{"a.bin", "hello"}}), {{"a.bin", "hello"}});
  fs::remove_all(dir / "data");
  std::error_code ec;
  steps.store().publish(staging, ec);
  CHECK(ec);
  steps.store().stage(chunk_of("f", {{"a.bin", "hello"}}), 9, ec);
  CHECK(ec);
  steps.store().describe(generation, ec);
  CHECK(ec == errc::no_such_generation);
  CHECK(steps.verify(generation) == errc::no_such_generation);
  CHECK(steps.store().remove(generation) == errc::no_such_generation);
  CHECK(steps.store().doom(generation));
  CHECK_FALSE(fs::exists(dir / "data"));
}

TEST_CASE("a description too long for its descriptor is refused before anything is fetched") {
  const TempDir dir;
  Steps steps{FilesystemStorage(dir.path())};
  garner::DataChunk chunk = chunk_of("c", {{"a.bin", "hello"}});
  chunk.files["a.bin"].urls.push_back("http://host/" + std::string(1 << 20, 'x'));
  std::error_code ec;
  steps.store().stage(chunk, 1, ec);
  CHECK(ec == errc::chunk_too_large);
  CHECK(names_in(dir / "staging").empty());
}

TEST_CASE("a large file's room is reserved and given back with what was not needed") {
  const TempDir dir;
  Steps steps{FilesystemStorage(dir.path())};
  garner::DataChunk chunk = chunk_of("c", {{"a.bin", std::string(8 << 20, 'x')}});
  auto staging = steps.stage(chunk);
  auto file = steps.open(staging, "a.bin");
  const fs::path path = dir / "staging" / *names_in(dir / "staging").begin() / "a.bin";
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_size == 0);
  CHECK(file.size() == 0);
  CHECK_FALSE(file.write(bytes_of("hello")));
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_size == 5);
}

}  // namespace
