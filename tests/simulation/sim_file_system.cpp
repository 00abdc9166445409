// SPDX-License-Identifier: BSL-1.0
//
// The simulated file system: that it does and refuses what a real one does and refuses, what the world around it can
// do to an operation, and how a run ends. What crashes keep is in sim_disk.cpp.
#include "garner/simulation/sim_file_system.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/storage/posix_file_system.hpp"
#include "support/temp_dir.hpp"

namespace {

using garner::Access;
using garner::EntryKind;
using garner::errc;
using garner::PosixFileSystem;
using garner::SeededDecisions;
using garner::SimCall;
using garner::SimDisk;
using garner::SimFault;
using garner::SimFileSystem;
using garner::SimMutex;
using garner::SimOperation;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A world that is one function.
struct Hooks final : garner::SimHooks {
  std::function<SimFault(const SimCall&)> ask;
  SimFault before(const SimCall& call) override { return ask ? ask(call) : SimFault(); }
};

struct World {
  Hooks hooks;
  std::shared_ptr<SimDisk> disk = std::make_shared<SimDisk>();
  SimFileSystem fs{disk, &hooks};
  std::error_code ec;

  SimFileSystem::File create(const std::string& name, std::string_view text = {}) {
    auto file = fs.create_file(fs.root(), name, ec);
    REQUIRE_FALSE(ec);
    REQUIRE_FALSE(fs.write(file, 0, bytes_of(text)));
    return file;
  }
  void refuse(SimOperation operation, std::error_code error, std::uint64_t written = 0) {
    hooks.ask = [=](const SimCall& call) {
      return call.operation == operation ? SimFault{error, written, false} : SimFault();
    };
  }
};

std::string text_of(std::error_code ec) { return ec.category().name() + std::to_string(ec.value()); }

/// Random operations, and all that they tell, as text.
template <class F>
class Player {
 public:
  explicit Player(F& fs) : fs_(fs) {}

  std::string step(SeededDecisions& decisions) {
    constexpr std::array names = {"a", "b", "c", "d", ".", "..", "", "a/b"};
    const std::string name = names[decisions.choose(decisions.choose(10) == 0 ? names.size() : 4)];
    const std::string other = names[decisions.choose(decisions.choose(10) == 0 ? names.size() : 4)];
    const auto& from = directory(decisions);
    const auto& to = directory(decisions);
    const std::uint64_t number = 1 + decisions.choose(9);
    std::error_code ec;
    switch (decisions.choose(13)) {
      case 0: return "mkdir " + text_of(fs_.make_directory(from, name));
      case 1: {
        auto opened = fs_.open_directory(from, name, ec);
        const std::size_t at = number % directories_.size();
        if (!ec) directories_[at] = std::move(opened);
        opened_[at] = opened_[at] || !ec;
        return "opendir " + text_of(ec);
      }
      case 2: {
        auto file = fs_.create_file(from, name, ec);
        if (!ec) files_[number % files_.size()] = std::move(file);
        return "create " + text_of(ec);
      }
      case 3: {
        auto file = fs_.open_file(from, name, number < 3 ? Access::read : Access::write, ec);
        if (!ec) files_[number % files_.size()] = std::move(file);
        return "open " + text_of(ec);
      }
      case 4: return "unlink " + text_of(fs_.remove_file(from, name));
      case 5: return "rmdir " + text_of(fs_.remove_directory(from, name));
      case 6:
      case 7: return "rename " + text_of(fs_.rename(from, name, to, other));
      case 8: {
        std::set<std::pair<std::string, EntryKind>> entries;
        ec = fs_.list(from, [&](std::string_view entry, EntryKind kind) { entries.emplace(entry, kind); });
        std::string out = "list " + text_of(ec);
        for (const auto& [entry, kind] : entries) out += ' ' + entry + (kind == EntryKind::directory ? "/" : "");
        return out;
      }
      case 9: return "write " + text_of(fs_.write(file(decisions), number, bytes_of("0123456789").first(number)));
      case 10: return "truncate " + text_of(fs_.truncate(file(decisions), number));
      case 11: {
        std::string text(number, '?');
        text.resize(fs_.read(file(decisions), decisions.choose(10), std::as_writable_bytes(std::span(text)), ec));
        return "read " + text_of(ec) + ' ' + text;
      }
      default: {
        const auto status = fs_.status(file(decisions), ec);
        return ec ? text_of(ec) : "status " + std::to_string(status.size) + ' ' + std::to_string(status.links);
      }
    }
  }

 private:
  const typename F::Directory& directory(SeededDecisions& decisions) {
    const std::size_t at = decisions.choose(directories_.size() + 2);
    return at < directories_.size() && opened_[at] ? directories_[at] : fs_.root();
  }
  typename F::File& file(SeededDecisions& decisions) { return files_[decisions.choose(files_.size())]; }

  F& fs_;
  std::array<typename F::Directory, 3> directories_;
  std::array<bool, 3> opened_{};
  std::array<typename F::File, 3> files_;
};

TEST_CASE("a simulated file system does and refuses what a real one does") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const garner::test::TempDir dir;
    std::error_code ec;
    PosixFileSystem posix = PosixFileSystem::open(dir.path(), ec);
    REQUIRE_FALSE(ec);
    SimFileSystem simulated(std::make_shared<SimDisk>());
    Player real(posix);
    Player same(simulated);
    SeededDecisions for_real(seed);
    SeededDecisions for_same(seed);
    for (int i = 0; i < 300; ++i) {
      CAPTURE(seed);
      CAPTURE(i);
      REQUIRE(same.step(for_same) == real.step(for_real));
    }
  }
}

/// Does `operation` on what stands in a world: files "file" and "empty", a directory "dir", and `file` and `dir`, which
/// are open. Nothing where the world has no such error.
std::error_code perform(SimOperation operation, SimFileSystem& fs, SimFileSystem::File& file,
                        const SimFileSystem::Directory& dir) {
  std::error_code ec;
  std::array<std::byte, 4> buffer{};
  switch (operation) {
    case SimOperation::open_directory: fs.open_directory(fs.root(), "dir", ec); break;
    case SimOperation::make_directory: ec = fs.make_directory(dir, "new"); break;
    case SimOperation::list: ec = fs.list(dir, [](std::string_view, EntryKind) {}); break;
    case SimOperation::create_file: fs.create_file(dir, "new", ec); break;
    case SimOperation::open_file: fs.open_file(fs.root(), "file", Access::read, ec); break;
    case SimOperation::status: fs.status(file, ec); break;
    case SimOperation::read: fs.read(file, 0, buffer, ec); break;
    case SimOperation::write: ec = fs.write(file, 0, bytes_of("changed")); break;
    case SimOperation::reserve: ec = fs.reserve(file, 100); break;
    case SimOperation::truncate: ec = fs.truncate(file, 1); break;
    case SimOperation::sync_file: ec = fs.sync_file(file); break;
    case SimOperation::sync_directory: ec = fs.sync_directory(fs.root()); break;
    case SimOperation::close: ec = fs.close(file); break;
    case SimOperation::rename: ec = fs.rename(fs.root(), "file", dir, "new"); break;
    case SimOperation::remove_file: ec = fs.remove_file(fs.root(), "file"); break;
    case SimOperation::remove_directory: ec = fs.remove_directory(fs.root(), "dir"); break;
    case SimOperation::lock: ec = fs.lock(file); break;
    case SimOperation::free_space: fs.free_space(ec); break;
  }
  return ec;
}

/// Calls `body(operation, world, file, dir)` for each operation, in a world of its own.
template <class Body>
void for_each_operation(const Body& body) {
  for (int i = 0; i <= static_cast<int>(SimOperation::free_space); ++i) {
    const auto operation = static_cast<SimOperation>(i);
    CAPTURE(to_string(operation));
    World world;
    auto file = world.create("file", "hello");
    REQUIRE_FALSE(world.fs.make_directory(world.fs.root(), "dir"));
    const auto dir = world.fs.open_directory(world.fs.root(), "dir", world.ec);
    body(operation, world, file, dir);
  }
}

TEST_CASE("the world is asked about each operation, once and by its path") {
  for_each_operation([](SimOperation operation, World& world, auto& file, auto& dir) {
    std::vector<std::string> asked;
    world.hooks.ask = [&](const SimCall& call) {
      CHECK(call.may_switch);
      const std::string to = call.new_path();
      asked.push_back(std::string(to_string(call.operation)) + ' ' + call.path() + (to.empty() ? "" : " -> " + to));
      return SimFault();
    };
    CHECK_FALSE(perform(operation, world.fs, file, dir));
    REQUIRE(asked.size() == 1);
    const std::string name(to_string(operation));
    const std::map<std::string, std::string> others = {{"open_directory", "dir"},
                                                       {"make_directory", "dir/new"},
                                                       {"list", "dir"},
                                                       {"create_file", "dir/new"},
                                                       {"sync_directory", ""},
                                                       {"rename", "file -> dir/new"},
                                                       {"remove_directory", "dir"},
                                                       {"free_space", ""}};
    CHECK(asked.front() == name + ' ' + (others.contains(name) ? others.at(name) : "file"));
  });
}

TEST_CASE("the world refuses any operation, which then does nothing") {
  for_each_operation([](SimOperation operation, World& world, auto& file, auto& dir) {
    world.refuse(operation, errc::too_many_open_files);
    const SimDisk::Tree before = world.disk->tree();
    const bool sync = operation == SimOperation::sync_file || operation == SimOperation::sync_directory;
    CHECK(perform(operation, world.fs, file, dir) == (sync ? errc::sync_failed : errc::too_many_open_files));
    CHECK(world.disk->tree() == before);
    CHECK(world.disk->used() == 5);
  });
}

TEST_CASE("of a disk that ended every operation fails and changes nothing, also the one that saw it end") {
  for_each_operation([](SimOperation operation, World& world, auto& file, auto& dir) {
    const SimDisk::Tree before = world.disk->tree();
    int asked = 0;
    world.hooks.ask = [&](const SimCall&) {
      ++asked;
      SeededDecisions decisions(1);
      world.disk->crash(decisions);
      return SimFault();
    };
    CHECK(perform(operation, world.fs, file, dir) == errc::io_error);
    CHECK(perform(operation, world.fs, file, dir) == (operation == SimOperation::close
                                                          ? std::make_error_code(std::errc::bad_file_descriptor)
                                                          : make_error_code(errc::io_error)));
    CHECK(asked == 1);
    CHECK(world.disk->tree() == before);
  });
}

TEST_CASE("others may use the same file system while the world is asked") {
  World world;
  auto file = world.create("file", "hello");
  std::error_code inner;
  bool busy = false;
  world.hooks.ask = [&](const SimCall& call) {
    if (!std::exchange(busy, true)) {
      for (int i = 0; i < 300; ++i) {
        const std::string name = std::to_string(i);
        world.fs.make_directory(world.fs.root(), name);
        if (i % 2 == 0) world.fs.remove_directory(world.fs.root(), name);
      }
      CHECK(call.path() == "file");
      inner = world.fs.remove_file(world.fs.root(), "file");
    }
    return SimFault();
  };
  std::error_code ec;
  world.fs.open_file(world.fs.root(), "file", Access::read, ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(inner);
  // What is open is there.
  CHECK_FALSE(world.fs.write(file, 5, bytes_of("!")));
  CHECK(world.disk->used() == 6);
  CHECK_FALSE(world.fs.close(file));
  CHECK(world.disk->used() == 0);
}

TEST_CASE("a visitor may use the file system") {
  World world;
  for (const std::string name : {"a", "b", "c"}) world.create(name);
  int seen = 0;
  CHECK_FALSE(world.fs.list(world.fs.root(), [&](std::string_view name, EntryKind) {
    ++seen;
    CHECK_FALSE(world.fs.remove_file(world.fs.root(), std::string(name)));
  }));
  CHECK(seen == 3);
  CHECK(world.disk->tree().empty());
}

TEST_CASE("while a lock is held no task may be switched to") {
  World world;
  SimMutex mutex;
  bool may_switch = true;
  world.hooks.ask = [&](const SimCall& call) {
    may_switch = call.may_switch;
    return SimFault();
  };
  {
    const std::lock_guard lock(mutex);
    world.fs.make_directory(world.fs.root(), "a");
    CHECK_FALSE(may_switch);
  }
  world.fs.make_directory(world.fs.root(), "b");
  CHECK(may_switch);
}

TEST_CASE("a write that fails may have written a part") {
  World world;
  auto file = world.create("file", "hello");
  world.refuse(SimOperation::write, errc::io_error, 3);
  CHECK(world.fs.write(file, 3, bytes_of("abcdef")) == errc::io_error);
  CHECK(*world.disk->contents("file") == "helabc");
  CHECK(world.disk->used() == 6);
}

TEST_CASE("a disk has room for its capacity, and gives it back when the last name and the last handle are gone") {
  World world;
  world.disk->set_capacity(10);
  auto first = world.create("a", "hello");
  auto second = world.create("b");
  CHECK(world.fs.write(second, 0, bytes_of("world!")) == errc::no_space);
  CHECK(*world.disk->contents("b") == "world");
  CHECK(world.fs.free_space(world.ec) == 0);
  CHECK_FALSE(world.fs.write(first, 1, bytes_of("ollo")));
  CHECK(world.fs.reserve(first, 6) == errc::no_space);
  CHECK_FALSE(world.fs.truncate(second, 1));
  CHECK_FALSE(world.fs.reserve(first, 9));
  CHECK(world.disk->free() == 0);
  CHECK(world.fs.write(second, 1, bytes_of("x")) == errc::no_space);
  CHECK_FALSE(world.fs.write(first, 5, bytes_of("1234")));
  CHECK(world.disk->used() == 10);
  CHECK_FALSE(world.fs.remove_file(world.fs.root(), "a"));
  CHECK(world.disk->used() == 10);
  CHECK_FALSE(world.fs.close(first));
  CHECK(world.disk->used() == 1);
  { const auto gone = std::move(second); }
  CHECK_FALSE(world.fs.remove_file(world.fs.root(), "b"));
  CHECK(world.disk->used() == 0);
}

TEST_CASE("a lock is one handle's until that is closed or the machine is gone") {
  World world;
  auto first = world.create("LOCK");
  auto second = world.fs.open_file(world.fs.root(), "LOCK", Access::write, world.ec);
  CHECK_FALSE(world.fs.lock(first));
  CHECK_FALSE(world.fs.lock(first));
  CHECK(world.fs.lock(second) == errc::directory_in_use);
  {
    SimFileSystem copy(std::make_shared<SimDisk>(*world.disk));
    const auto third = copy.open_file(copy.root(), "LOCK", Access::write, world.ec);
    CHECK_FALSE(copy.lock(third));
  }
  CHECK_FALSE(world.fs.close(first));
  CHECK_FALSE(world.fs.lock(second));
}

TEST_CASE("a sync that failed is told once to each who had it open") {
  World world;
  auto first = world.create("file", "hello");
  auto second = world.fs.open_file(world.fs.root(), "file", Access::write, world.ec);
  world.refuse(SimOperation::sync_file, errc::io_error);
  CHECK(world.fs.sync_file(first) == errc::sync_failed);
  world.hooks.ask = nullptr;
  CHECK_FALSE(world.fs.sync_file(first));
  CHECK(world.fs.sync_file(second) == errc::sync_failed);
  CHECK_FALSE(world.fs.sync_file(second));
  const auto third = world.fs.open_file(world.fs.root(), "file", Access::write, world.ec);
  CHECK_FALSE(world.fs.sync_file(third));
  CHECK_FALSE(world.fs.sync_directory(world.fs.root()));
  CHECK_FALSE(world.disk->always_durable("file", "hello"));
}

TEST_CASE("a disk that lies makes nothing durable") {
  World world;
  const auto file = world.create("file", "hello");
  world.hooks.ask = [](const SimCall&) { return SimFault{{}, 0, true}; };
  CHECK_FALSE(world.fs.sync_file(file));
  CHECK_FALSE(world.fs.sync_directory(world.fs.root()));
  CHECK_FALSE(world.disk->always_durable("file", "hello"));
  world.hooks.ask = nullptr;
  CHECK_FALSE(world.fs.sync_file(file));
  CHECK_FALSE(world.fs.sync_directory(world.fs.root()));
  CHECK(world.disk->always_durable("file", "hello"));
}

TEST_CASE("handles are counted, and keep their disk") {
  auto disk = std::make_shared<SimDisk>();
  SimFileSystem::File file;
  {
    SimFileSystem fs(disk);
    std::error_code ec;
    file = fs.create_file(fs.root(), "file", ec);
    CHECK(disk->handles() == 2);
    file = fs.open_file(fs.root(), "file", Access::read, ec);
    CHECK(disk->handles() == 2);
    CHECK(fs.write(file, 0, bytes_of("x")) == std::errc::bad_file_descriptor);
    CHECK(fs.write(SimFileSystem::File(), 0, bytes_of("x")) == std::errc::bad_file_descriptor);
  }
  CHECK(disk->handles() == 1);
  disk.reset();
}

}  // namespace
