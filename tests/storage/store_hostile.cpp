// SPDX-License-Identifier: BSL-1.0
//
// What lies in the data directory and should not, and what it gets: HOSTILE.md, rows 34 to 44 as far as they concern
// the store. On a real directory; where a chunk is to be served no more and fetched anew, with a whole data manager on
// it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/storage_steps.hpp"
#include "garner/data_manager.hpp"
#include "garner/storage/filesystem_storage.hpp"
#include "support/memory_world.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

using garner::ChunkState;
using garner::errc;
using garner::FilesystemStorage;
using garner::Generation;
using garner::Options;
using garner::StartupCheck;
using garner::contract::Steps;
using garner::test::TempDir;
using Manager = garner::DataManager<FilesystemStorage, garner::MemoryDownloader, garner::test::DrivenFromOutside>;

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

std::error_code refusal(const fs::path& data_dir, const fs::path& named) {
  try {
    const FilesystemStorage store(data_dir);
  } catch (const garner::Error& error) {
    CHECK(error.subject() == named);
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

/// How it is found out what was done to a chunk.
enum class Way { scrub, scrub_by_itself, start_with_sizes, start_with_digests };

/// A worker with one chunk of one file in a real directory, which is in it from the start.
struct Worker {
  TempDir dir;
  TempDir elsewhere;
  garner::test::Outside outside;
  garner::DataChunk chunk = outside.offer("c");
  Options options;
  std::optional<Manager> manager;

  Worker() {
    start();
    manager->download_chunk(chunk);
    REQUIRE(manager->wait_converged(1min));
  }

  void start() {
    manager.reset();
    options.seed = 1;
    manager.emplace(FilesystemStorage(dir.path(), options), garner::MemoryDownloader(outside.origin),
                    garner::test::DrivenFromOutside(outside.clock), options);
  }

  [[nodiscard]] auto found() const { return manager->find_chunk(chunk.dataset_id, 0); }
  [[nodiscard]] fs::path path() const { return found().value().path(); }

  /// Lets it find out what was done behind its back, in each of the ways that there are. What is wrong is not served,
  /// is set aside with its reason, and is fetched anew, with which its pins have nothing to do.
  void finds_out_and_fetches_anew(Way way) {
    const std::string name = path().filename();
    std::optional<Manager::ChunkRef> pin;
    switch (way) {
      case Way::scrub:
        pin = found();
        manager->verify();
        break;
      case Way::scrub_by_itself:
        options.scrub_interval = 1h;
        manager->set_options(options);
        break;
      case Way::start_with_sizes:
      case Way::start_with_digests:
        options.startup_check = way == Way::start_with_sizes ? StartupCheck::sizes : StartupCheck::digests;
        start();
        CHECK_FALSE(found());
    }
    outside.run();
    REQUIRE(manager->wait_converged(1min));
    if (pin) {
      CHECK(pin->is_corrupt());
      CHECK(fs::exists(fs::symlink_status(pin->path())));
      pin.reset();
      REQUIRE(manager->wait_converged(1min));
    }
    if (!found()) manager->download_chunk(chunk);  // its description was damaged as well: it is somebody else's to know
    REQUIRE(manager->wait_converged(1min));
    CHECK(path().filename() != name);
    CHECK(read_file(path() / "data") == "bytes of " + chunk.files.at("data").urls.front());
    CHECK_FALSE(found()->is_corrupt());
    const std::set<std::string> aside = names_in(dir / "quarantine");
    const std::string qualified = chunk.dataset_id.to_hex() + '-' + name;
    CHECK(aside == std::set<std::string>{qualified, qualified + ".reason"});
    CHECK(read_file(dir / "quarantine" / (qualified + ".reason")).find("corrupt") != std::string::npos);
    CHECK(manager->status().chunks_quarantined == 1);
    CHECK(manager->status().store_bytes_used == found()->bytes());
    CHECK(names_in(dir / "trash").empty());
    // Nor does the next start know of it.
    const std::uint64_t generation = found()->generation();
    options.startup_check = StartupCheck::names;
    start();
    CHECK(found().value().generation() == generation);
    CHECK(manager->list_chunks().size() == 1);
  }
};

/// Does `damage` to a worker's chunk, and looks at what becomes of it, for each way to find it out.
void quarantines(const std::function<void(Worker&)>& damage) {
  for (const Way way : {Way::scrub, Way::scrub_by_itself, Way::start_with_sizes, Way::start_with_digests}) {
    CAPTURE(static_cast<int>(way));
    Worker worker;
    damage(worker);
    worker.finds_out_and_fetches_anew(way);
  }
}

}  // namespace

TEST_CASE("hostile 34: a link where a top directory should be keeps the store from starting, and is not followed") {
  const TempDir dir;
  const TempDir elsewhere;
  SUBCASE("the data directory") {
    fs::create_directory_symlink(elsewhere.path(), dir / "data");
    CHECK(refusal(dir / "data", dir / "data") == errc::not_a_directory);
  }
  SUBCASE("one of its own") {
    for (const char* part : {"chunks", "staging", "doomed", "trash", "quarantine"}) {
      fs::create_directory_symlink(elsewhere.path(), dir / part);
      CHECK(refusal(dir.path(), dir / part) == errc::not_a_directory);
      fs::remove(dir / part);
    }
  }
  CHECK(names_in(elsewhere.path()).empty());
}

TEST_CASE("hostile 34: a link where a dataset or a chunk should be is left alone and told") {
  const TempDir dir;
  const TempDir elsewhere;
  Generation generation;
  {
    Steps steps{FilesystemStorage(dir.path())};
    generation = steps.published("c", {{"a.bin", "hello"}});
  }
  const fs::path dataset = dir / "chunks" / generation.dataset_id.to_hex();
  const fs::path chunk = dataset / garner::store_layout::chunk_name(generation);
  fs::path replaced = chunk;
  SUBCASE("a chunk") {}
  SUBCASE("a dataset") { replaced = dataset; }
  fs::rename(replaced, elsewhere / "moved");
  fs::create_directory_symlink(elsewhere / "moved", replaced);
  Steps again{FilesystemStorage(dir.path())};
  CHECK(again.found().empty());
  CHECK(again.store().unrecognised() == std::vector{replaced.lexically_relative(dir.path()).generic_string()});
  CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
  CHECK(fs::is_symlink(replaced));
  CHECK(names_in(elsewhere.path()) == std::set<std::string>{"moved"});
}

TEST_CASE("hostile 34: a link where a chunk's file should be is quarantined, and not followed") {
  quarantines([](Worker& worker) {
    const fs::path file = worker.path() / "data";
    fs::rename(file, worker.elsewhere / "same");
    fs::create_symlink(worker.elsewhere / "same", file);
  });
}

TEST_CASE(
    "hostile 35: a FIFO, a socket or a directory where a file should be is quarantined, and waited for by nobody") {
  std::function<void(const fs::path&)> plant;
  SUBCASE("a FIFO") {
    plant = [](const fs::path& file) { REQUIRE(::mkfifo(file.c_str(), 0600) == 0); };
  }
  SUBCASE("a socket") {
    plant = [](const fs::path& file) { REQUIRE(::mknod(file.c_str(), S_IFSOCK | 0600, 0) == 0); };
  }
  SUBCASE("a directory") {
    plant = [](const fs::path& file) { fs::create_directories(file / "with/more"); };
  }
  quarantines([&](Worker& worker) {
    const fs::path file = worker.path() / "data";
    fs::remove(file);
    plant(file);
  });
}

TEST_CASE("hostile 35: a FIFO or a file where a chunk's directory should be is left alone and told") {
  const TempDir dir;
  const Generation generation{garner::ChunkId::from_name("c"), garner::DatasetId::from_name("d"), {0, 1}, 1, 7};
  { const FilesystemStorage store(dir.path()); }
  const fs::path dataset = dir / "chunks" / generation.dataset_id.to_hex();
  fs::create_directory(dataset);
  const fs::path place = dataset / garner::store_layout::chunk_name(generation);
  SUBCASE("a FIFO") { REQUIRE(::mkfifo(place.c_str(), 0600) == 0); }
  SUBCASE("a file") { write_file(place, "x"); }
  Steps steps{FilesystemStorage(dir.path())};
  CHECK(steps.found().empty());
  CHECK(steps.store().unrecognised().size() == 1);
  CHECK_FALSE(steps.store().clean_up(garner::Partial::remove));
  CHECK(fs::exists(place));
}

TEST_CASE("hostile 36: a directory whose name does not parse is left alone and told") {
  const TempDir dir;
  Generation generation;
  {
    Steps steps{FilesystemStorage(dir.path())};
    generation = steps.published("c", {{"a.bin", "hello"}});
  }
  const fs::path dataset = dir / "chunks" / generation.dataset_id.to_hex();
  const std::string good = garner::store_layout::chunk_name(generation);
  for (const std::string& name : {good + "x", "1-2-3-" + generation.id.to_hex() + ".1", std::string("tmp")}) {
    CAPTURE(name);
    fs::rename(dataset / good, dataset / name);
    {
      Steps steps{FilesystemStorage(dir.path())};
      CHECK(steps.found().empty());
      CHECK(steps.store().unrecognised().size() == 1);
      CHECK_FALSE(steps.store().clean_up(garner::Partial::remove));
    }
    CHECK(read_file(dataset / name / "a.bin") == "hello");
    fs::rename(dataset / name, dataset / good);
  }
}

TEST_CASE("hostile 36: a chunk whose chunk.json disagrees with its name is quarantined") {
  SUBCASE("with its range") {
    quarantines([](Worker& worker) {
      const garner::DataChunk other = worker.outside.offer("other", 20);
      worker.manager->download_chunk(other);
      REQUIRE(worker.manager->wait_converged(1min));
      fs::copy_file(worker.manager->find_chunk(other.dataset_id, 20).value().path() / "chunk.json",
                    worker.path() / "chunk.json", fs::copy_options::overwrite_existing);
      worker.manager->delete_chunk(other.id);
      REQUIRE(worker.manager->wait_converged(1min));
    });
  }
  SUBCASE("with its generation") {
    quarantines([](Worker& worker) {
      const fs::path place = worker.path();
      worker.manager.reset();
      fs::rename(place, place.parent_path() / (place.filename().string() + '5'));
      worker.start();
    });
  }
}

TEST_CASE("hostile 37: a file of a chunk that is truncated, missing or one too many is quarantined") {
  std::function<void(const fs::path&)> change;
  SUBCASE("truncated") {
    change = [](const fs::path& file) { fs::resize_file(file, 3); };
  }
  SUBCASE("longer") {
    change = [](const fs::path& file) { write_file(file, read_file(file) + "x"); };
  }
  SUBCASE("missing") {
    change = [](const fs::path& file) { fs::remove(file); };
  }
  SUBCASE("one too many") {
    change = [](const fs::path& file) { write_file(file.parent_path() / "more", ""); };
  }
  quarantines([&](Worker& worker) { change(worker.path() / "data"); });
}

TEST_CASE("hostile 37: a file of a chunk that is changed is found by whatever reads it, and by nothing else") {
  Worker worker;
  const fs::path file = worker.path() / "data";
  std::string bytes = read_file(file);
  bytes[3] ^= 1;
  write_file(file, bytes);
  worker.options.startup_check = StartupCheck::sizes;
  worker.start();
  REQUIRE(worker.manager->wait_converged(1min));
  CHECK(read_file(worker.path() / "data") == bytes);
  SUBCASE("a scrub") { worker.manager->verify(); }
  SUBCASE("a start that checks digests") {
    worker.options.startup_check = StartupCheck::digests;
    worker.start();
    CHECK(worker.manager->chunk_status(worker.chunk.id)->state == ChunkState::checking);
  }
  worker.outside.run();
  REQUIRE(worker.manager->wait_converged(1min));
  CHECK(read_file(worker.path() / "data") != bytes);
  CHECK(names_in(worker.dir / "quarantine").size() == 2);
}

TEST_CASE("hostile 38: a chunk.json that is truncated, deep, huge, of a later version or not UTF-8 is quarantined") {
  const auto sealed = [](std::string json) {
    json.resize(json.size() - 2);
    return json + garner::detail::check_member(json);
  };
  std::function<std::string(std::string)> change;
  SUBCASE("truncated") {
    change = [](const std::string& text) { return text.substr(0, text.size() / 2); };
  }
  SUBCASE("empty") {
    change = [](const std::string&) { return std::string(); };
  }
  SUBCASE("deep") {
    change = [&](const std::string&) {
      return sealed(R"({"version": 1, "a": )" + std::string(100000, '[') + std::string(100000, ']') + "\n}");
    };
  }
  SUBCASE("huge") {
    change = [](const std::string& text) { return text + std::string(std::size_t{64} << 20, ' '); };
  }
  SUBCASE("of a later version") {
    change = [&](const std::string&) { return sealed("{\"version\": 2\n}"); };
  }
  SUBCASE("not UTF-8") {
    change = [&](const std::string&) { return sealed("{\"version\": \"\xff\xfe\"\n}"); };
  }
  SUBCASE("a flipped bit") {
    change = [](std::string text) {
      text[text.size() / 3] ^= 4;
      return text;
    };
  }
  quarantines([&](Worker& worker) {
    const fs::path file = worker.path() / "chunk.json";
    write_file(file, change(read_file(file)));
  });
}

TEST_CASE(
    "hostile 39: of two directories for one chunk the newest that is whole is served, and the rest is set aside") {
  Worker worker;
  const fs::path place = worker.path();
  const Generation old{worker.chunk.id, worker.chunk.dataset_id, worker.chunk.block_range, worker.found()->bytes(),
                       worker.found()->generation()};
  worker.manager.reset();
  bool is_whole = false;
  SUBCASE("the newer one is a copy that says that it is another") {
    Generation newer = old;
    newer.number = 9;
    fs::copy(place, place.parent_path() / garner::store_layout::chunk_name(newer), fs::copy_options::recursive);
  }
  SUBCASE("the newer one is in another dataset") {
    Generation other = old;
    other.dataset_id = garner::DatasetId::from_name("another");
    other.number = 9;
    const fs::path dataset = worker.dir / "chunks" / other.dataset_id.to_hex();
    fs::create_directory(dataset);
    fs::copy(place, dataset / garner::store_layout::chunk_name(other), fs::copy_options::recursive);
  }
  SUBCASE("the newer one is whole") {
    is_whole = true;
    Steps steps{FilesystemStorage(worker.dir.path())};
    const std::string bytes = read_file(place / "data");
    auto staging = steps.staged(worker.chunk, {{"data", bytes}});
    CHECK(steps.publish(staging).number == old.number + 1);
  }
  worker.options.startup_check = StartupCheck::digests;
  worker.start();
  CHECK_FALSE(worker.found());
  REQUIRE(worker.manager->wait_converged(1min));
  REQUIRE(worker.found());
  CHECK(worker.found()->generation() == old.number + (is_whole ? 1 : 0));
  CHECK(worker.manager->list_chunks().size() == 1);
  CHECK(names_in(worker.dir / "quarantine").size() == (is_whole ? 0 : 2));
}

TEST_CASE("hostile 40: a second process, and a second store in this one, are refused, and the first is not disturbed") {
  const TempDir dir;
  Steps first{FilesystemStorage(dir.path())};
  CHECK(refusal(dir.path(), dir.path()) == errc::directory_in_use);
  CHECK(in_child([&] { return refusal(dir.path(), dir.path()) == errc::directory_in_use ? 7 : 1; }) == 7);
  first.published("c", {{"a.bin", "hello"}});
}

TEST_CASE("hostile 41: a killed process's lock is taken over at once") {
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

TEST_CASE("hostile 42: a FORMAT of a later version, or garbage, is refused, and nothing is touched") {
  const TempDir dir;
  SUBCASE("a later version") { write_file(dir / "FORMAT", "garner 2\n"); }
  SUBCASE("garbage") { write_file(dir / "FORMAT", std::string(1 << 20, '\xff')); }
  SUBCASE("a FIFO") { REQUIRE(::mkfifo((dir / "FORMAT").c_str(), 0600) == 0); }
  CHECK(refusal(dir.path(), dir / "FORMAT") == errc::unknown_format);
  CHECK(names_in(dir.path()) == std::set<std::string>{"FORMAT"});
}

TEST_CASE("hostile 43: a data directory that is a file, or that may not be written, is a clear error at the start") {
  const TempDir dir;
  SUBCASE("a file") {
    write_file(dir / "data", "precious");
    CHECK(refusal(dir / "data", dir / "data") == errc::not_a_directory);
    CHECK(read_file(dir / "data") == "precious");
  }
  SUBCASE("not to be written") {
    fs::create_directory(dir / "data");
    fs::permissions(dir.path(), fs::perms(0755));
    fs::permissions(dir / "data", fs::perms(0555));
    CHECK(in_child([&] {
            // Root may write everywhere, so that the test is somebody else.
            if (::geteuid() == 0 && ::setuid(65534) != 0) return 2;
            return refusal(dir / "data", dir / "data/LOCK") == errc::permission_denied ? 7 : 1;
          }) == 7);
  }
}

TEST_CASE("hostile 43: a data directory that vanishes while it is used costs what was in it, and nothing else") {
  Worker worker;
  const auto pin = worker.found().value();
  fs::remove_all(worker.dir.path());
  CHECK(worker.found());  // nobody has looked yet
  worker.manager->verify();
  worker.outside.run();
  CHECK_FALSE(worker.found());
  CHECK(pin.is_corrupt());
  CHECK(worker.manager->list_chunks().empty());
  fs::create_directory(worker.dir.path());
}

TEST_CASE("hostile 44: what an earlier run has staged is never taken for a chunk") {
  const TempDir dir;
  {
    Steps steps{FilesystemStorage(dir.path())};
    auto staging = steps.stage(garner::contract::chunk_of("c", {{"a.bin", "hello"}}));
    auto file = steps.open(staging, "a.bin");
    REQUIRE_FALSE(file.write(garner::contract::bytes_of("hell")));
  }
  const std::string name = *names_in(dir / "staging").begin();
  SUBCASE("as it was left") {}
  SUBCASE("longer than its file was to be") { write_file(dir / "staging" / name / "a.bin", "hello, hello"); }
  SUBCASE("with a description of what it is not") { write_file(dir / "staging" / name / "chunk.json", "{}"); }
  Steps again{FilesystemStorage(dir.path())};
  CHECK(again.found().empty());
  CHECK(again.last_generation() == 1);
  CHECK(again.store().usage().bytes_used == 0);
  // What is asked for again begins anew, under another number.
  const Generation next = again.published("c", {{"a.bin", "hello"}});
  CHECK(next.number == 2);
  CHECK_FALSE(again.verify(next));
}

// ---- where the kernel has no openat2

namespace {

/// From now on in this process every openat2 fails with `error`. False where that is not to be had.
bool refuse_openat2(int error) {
  const std::array<sock_filter, 4> code = {
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {static_cast<unsigned short>(code.size()), const_cast<sock_filter*>(code.data())};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return false;
  return ::syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0) < 0 && errno == error;
}

}  // namespace

TEST_CASE("hostile 34: a kernel or a sandbox without openat2 opens the same things, and still follows no link") {
  const TempDir dir;
  const TempDir elsewhere;
  int error = 0;
  SUBCASE("an old kernel") { error = ENOSYS; }
  SUBCASE("a sandbox that does not know it") { error = EPERM; }
  Generation linked;
  {
    Steps steps{FilesystemStorage(dir.path())};
    linked = steps.published("linked", {{"a.bin", "hello"}});
    const fs::path file = steps.store().location(linked) / "a.bin";
    write_file(elsewhere / "a.bin", "hello");
    fs::remove(file);
    fs::create_symlink(elsewhere / "a.bin", file);
  }
  const int result = in_child([&] {
    if (!refuse_openat2(error)) return 77;
    {
      Steps steps{FilesystemStorage(dir.path())};
      if (steps.found() != std::vector{linked}) return 1;
      if (steps.verify(linked) != errc::corrupt_chunk) return 2;
      const Generation generation = steps.published("c", {{"a.bin", "hello"}});
      if (steps.verify(generation)) return 3;
      if (steps.store().quarantine(linked, "a link")) return 4;
      if (steps.store().remove(generation)) return 5;
    }
    fs::remove(dir / "trash");
    fs::create_directory_symlink(elsewhere.path(), dir / "trash");
    if (refusal(dir.path(), dir / "trash") != errc::not_a_directory) return 6;
    return 7;
  });
  if (result == 77) MESSAGE("seccomp is not to be had here");
  CHECK((result == 7 || result == 77));
  CHECK(names_in(elsewhere.path()) == std::set<std::string>{"a.bin"});
}
