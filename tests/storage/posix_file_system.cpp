// SPDX-License-Identifier: BSL-1.0
//
// PosixFileSystem against the table of FileSystem: what it must refuse, and in which words.
#include "garner/storage/posix_file_system.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::Access;
using garner::EntryKind;
using garner::errc;
using garner::PosixFileSystem;
using garner::test::TempDir;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

PosixFileSystem open_at(const fs::path& path) {
  std::error_code ec;
  PosixFileSystem out = PosixFileSystem::open(path, ec);
  REQUIRE_FALSE(ec);
  return out;
}

TEST_CASE("a file is created once, written anywhere, and read up to its end") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  std::error_code ec;
  PosixFileSystem::File file = posix.create_file(posix.root(), "a", ec);
  REQUIRE_FALSE(ec);
  posix.create_file(posix.root(), "a", ec);
  CHECK(ec == std::errc::file_exists);
  CHECK_FALSE(posix.write(file, 0, bytes_of("hello")));
  CHECK_FALSE(posix.write(file, 5, bytes_of(" world")));
  CHECK_FALSE(posix.write(file, 5, {}));
  std::string text(100, '\0');
  CHECK(posix.read(file, 6, std::as_writable_bytes(std::span(text)), ec) == 5);
  CHECK_FALSE(ec);
  CHECK(text.substr(0, 5) == "world");
  CHECK(posix.read(file, 50, std::as_writable_bytes(std::span(text)), ec) == 0);
  CHECK_FALSE(ec);
  CHECK_FALSE(posix.truncate(file, 3));
  fs::create_hard_link(dir / "a", dir / "b");
  CHECK(posix.status(file, ec).size == 3);
  CHECK(posix.status(file, ec).links == 2);
  CHECK_FALSE(posix.reserve(file, 1 << 20));
  CHECK(posix.status(file, ec).size == 3);
  CHECK_FALSE(posix.sync_file(file));
  CHECK_FALSE(posix.close(file));
  CHECK_FALSE(posix.close(file));
  CHECK(posix.write(file, 0, bytes_of("x")) == std::errc::bad_file_descriptor);
}

TEST_CASE("descriptors close on exec, and what is made is no one else's to write") {
  const TempDir dir;
  const mode_t before = ::umask(0);
  const PosixFileSystem posix = open_at(dir.path());
  std::error_code ec;
  const int expected = ::dup(0);
  ::close(expected);
  const PosixFileSystem::File file = posix.create_file(posix.root(), "a", ec);
  CHECK((::fcntl(expected, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK_FALSE(posix.make_directory(posix.root(), "d"));
  ::umask(before);
  CHECK(fs::status(dir / "a").permissions() == fs::perms(0644));
  CHECK(fs::status(dir / "d").permissions() == fs::perms(0755));
}

TEST_CASE("a listing tells each entry's kind, and follows no link") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  fs::create_directory(dir / "directory");
  std::ofstream(dir / "file").flush();
  fs::create_symlink("file", dir / "link");
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  for (int twice = 0; twice < 2; ++twice) {
    std::map<std::string, EntryKind> found;
    CHECK_FALSE(posix.list(posix.root(), [&](std::string_view name, EntryKind kind) { found.emplace(name, kind); }));
    CHECK(found == std::map<std::string, EntryKind>{{"directory", EntryKind::directory},
                                                    {"file", EntryKind::file},
                                                    {"link", EntryKind::other},
                                                    {"fifo", EntryKind::other}});
  }
}

TEST_CASE("only a regular file is opened as a file, and only a directory as a directory") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  fs::create_directory(dir / "directory");
  std::ofstream(dir / "file").flush();
  fs::create_symlink("file", dir / "link");
  fs::create_directory_symlink("directory", dir / "directory_link");
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  const auto file_error = [&](const std::string& name, Access access) {
    std::error_code ec;
    posix.open_file(posix.root(), name, access, ec);
    return ec;
  };
  for (const Access access : {Access::read, Access::write}) {
    CHECK_FALSE(file_error("file", access));
    CHECK(file_error("directory", access) == std::errc::is_a_directory);
    CHECK(file_error("link", access) == std::errc::too_many_symbolic_link_levels);
    CHECK(file_error("fifo", access) == std::errc::invalid_argument);
    CHECK(file_error("nothing", access) == std::errc::no_such_file_or_directory);
  }
  const auto directory_error = [&](const std::string& name) {
    std::error_code ec;
    posix.open_directory(posix.root(), name, ec);
    return ec;
  };
  CHECK_FALSE(directory_error("directory"));
  for (const char* name : {"file", "link", "directory_link", "fifo"}) {
    CHECK(directory_error(name) == errc::not_a_directory);
  }
  CHECK(directory_error("nothing") == std::errc::no_such_file_or_directory);
}

TEST_CASE("a name that is more than one component never reaches the system") {
  const TempDir dir;
  fs::create_directory(dir / "inner");
  const PosixFileSystem posix = open_at(dir / "inner");
  for (const std::string& name : {std::string(".."), std::string("."), std::string(), std::string("../x"),
                                  std::string("/tmp"), std::string("a/b"), std::string("a\0b", 3)}) {
    std::error_code ec;
    posix.open_directory(posix.root(), name, ec);
    CHECK(ec);
    posix.create_file(posix.root(), name, ec);
    CHECK(ec);
    posix.open_file(posix.root(), name, Access::write, ec);
    CHECK(ec);
    CHECK(posix.make_directory(posix.root(), name) == errc::invalid_file_name);
    CHECK(posix.remove_file(posix.root(), name) == errc::invalid_file_name);
    CHECK(posix.remove_directory(posix.root(), name) == errc::invalid_file_name);
    CHECK(posix.rename(posix.root(), name, posix.root(), "x") == errc::invalid_file_name);
    CHECK(posix.rename(posix.root(), "x", posix.root(), name) == errc::invalid_file_name);
  }
  CHECK(fs::is_empty(dir / "inner"));
}

TEST_CASE("with openat2 and without, no link is followed") {
  const TempDir dir;
  std::ofstream(dir / "file").flush();
  fs::create_symlink("file", dir / "link");
  const int root = ::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (const auto open : {garner::detail::open_beneath, garner::detail::open_component}) {
    const garner::detail::Descriptor file(open(root, "file", O_RDONLY, 0));
    CHECK(file);
    const garner::detail::Descriptor link(open(root, "link", O_RDONLY, 0));
    CHECK_FALSE(link);
    CHECK(errno == ELOOP);
  }
  ::close(root);
}

TEST_CASE("rename replaces nothing") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  fs::create_directories(dir / "from/full");
  fs::create_directories(dir / "to/empty");
  std::error_code ec;
  const PosixFileSystem::Directory from = posix.open_directory(posix.root(), "from", ec);
  const PosixFileSystem::Directory to = posix.open_directory(posix.root(), "to", ec);
  CHECK(posix.rename(from, "full", to, "empty") == std::errc::file_exists);
  CHECK(posix.rename(from, "nothing", to, "new") == std::errc::no_such_file_or_directory);
  CHECK_FALSE(posix.rename(from, "full", to, "new"));
  CHECK(fs::exists(dir / "to/new"));
  CHECK_FALSE(posix.sync_directory(from));
  CHECK_FALSE(posix.sync_directory(to));
  CHECK(posix.remove_directory(posix.root(), "to") == std::errc::directory_not_empty);
  CHECK_FALSE(posix.remove_directory(to, "new"));
  CHECK(posix.remove_file(to, "new") == std::errc::no_such_file_or_directory);
}

TEST_CASE("a lock is one handle's, and is free when that is closed") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  std::error_code ec;
  PosixFileSystem::File first = posix.create_file(posix.root(), "LOCK", ec);
  const PosixFileSystem::File second = posix.open_file(posix.root(), "LOCK", Access::write, ec);
  CHECK_FALSE(posix.lock(first));
  CHECK_FALSE(posix.lock(first));
  CHECK(posix.lock(second) == errc::directory_in_use);
  CHECK_FALSE(posix.close(first));
  CHECK_FALSE(posix.lock(second));
}

TEST_CASE("the system's errors are told in garner's words where it has one") {
  using garner::detail::errno_code;
  CHECK(errno_code(ENOSPC) == errc::no_space);
  CHECK(errno_code(EDQUOT) == errc::no_space);
  CHECK(errno_code(EROFS) == errc::read_only);
  CHECK(errno_code(EIO) == errc::io_error);
  CHECK(errno_code(EMFILE) == errc::too_many_open_files);
  CHECK(errno_code(ENFILE) == errc::too_many_open_files);
  CHECK(errno_code(EACCES) == errc::permission_denied);
  CHECK(errno_code(EPERM) == errc::permission_denied);
  CHECK(errno_code(ENOTDIR) == errc::not_a_directory);
  CHECK(errno_code(ENOENT) == std::errc::no_such_file_or_directory);
}

TEST_CASE("a sync of what cannot be synced is a failed sync") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  CHECK(posix.sync_file(PosixFileSystem::File()) == errc::sync_failed);
  CHECK(posix.sync_directory(PosixFileSystem::Directory()) == errc::sync_failed);
}

TEST_CASE("what is synced together is each told of by itself, few or many") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  using Request = garner::SyncRequest<PosixFileSystem::File, PosixFileSystem::Directory>;
  for (const std::size_t count : {1U, 4U, 40U}) {
    CAPTURE(count);
    std::vector<PosixFileSystem::File> files(count);
    PosixFileSystem::File none;
    std::vector<Request> requests;
    for (std::size_t i = 0; i < count; ++i) {
      std::error_code ec;
      files[i] = posix.create_file(posix.root(), std::to_string(count) + '.' + std::to_string(i), ec);
      REQUIRE_FALSE(ec);
      REQUIRE_FALSE(posix.write(files[i], 0, bytes_of("hello")));
      requests.push_back({&files[i]});
    }
    requests.push_back({nullptr, &posix.root()});
    requests.push_back({&none});
    posix.sync_together(requests);
    CHECK(requests.back().error == errc::sync_failed);
    requests.pop_back();
    for (const Request& request : requests) CHECK_FALSE(request.error);
  }
  posix.sync_together({});
}

TEST_CASE("descriptors that have run out are told as that") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int next = ::dup(0);
  ::close(next);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(next);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  std::error_code ec;
  posix.create_file(posix.root(), "a", ec);
  const std::error_code listed = posix.list(posix.root(), [](std::string_view, EntryKind) {});
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(ec == errc::too_many_open_files);
  CHECK(listed == errc::too_many_open_files);
}

TEST_CASE("free space is told") {
  const TempDir dir;
  const PosixFileSystem posix = open_at(dir.path());
  std::error_code ec;
  CHECK(posix.free_space(ec) > 0);
  CHECK_FALSE(ec);
  CHECK(posix.path() == dir.path());
}

}  // namespace
