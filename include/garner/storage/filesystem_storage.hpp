// SPDX-License-Identifier: BSL-1.0
//
// FilesystemStorage, the default Storage: a directory of a real file system, or several of them. What it does there is
// in store_protocol.hpp, how it chooses in store_volumes.hpp; here is how it comes to the directories.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/posix_file_system.hpp"
#include "garner/storage/posix_sync.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_volumes.hpp"

namespace garner {

namespace detail {

/// Makes durable that `path` has its name in the directory above. `found`: it was there already. Then it may be
/// somebody else's: nobody but its owner can sync what may not be read, or what knows no syncs.
inline std::error_code sync_name(const std::filesystem::path& path, bool found) {
  const std::filesystem::path parent = path.parent_path();
  if (parent == path) return {};
  const Descriptor above(uninterrupted([&] { return ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!above) return found && (errno == EACCES || errno == EPERM) ? std::error_code() : errno_code(errno);
  if (::fsync(above.get()) == 0 || (found && (errno == EINVAL || errno == EROFS))) return {};
  return errc::sync_failed;
}

/// Makes the directory `path` and those above it that are missing, each of them durable in its parent.
inline std::error_code make_directories(const std::filesystem::path& path, Durability durability) {
  const std::filesystem::path parent = path.parent_path();
  std::error_code ec;
  if (::mkdir(path.c_str(), 0755) < 0) {
    if (errno == EEXIST) return {};  // what it is shows when it is opened
    if (errno != ENOENT || parent == path) return errno_code(errno);
    ec = make_directories(parent, durability);
    if (ec) return ec;
    if (::mkdir(path.c_str(), 0755) < 0) return errno == EEXIST ? ec : errno_code(errno);
  } else if (durability == Durability::full) {
    ec = sync_name(parent, true);  // whoever made it may have been killed before that
  }
  if (!ec && durability == Durability::full) ec = sync_name(path, false);
  // A second sync would prove nothing: the next start is to make it anew.
  if (ec) ::rmdir(path.c_str());
  return ec;
}

inline PosixFileSystem open_data_directory(const std::filesystem::path& data_dir, Durability durability,
                                           std::size_t max_sync_threads,
                                           std::uint64_t max_unwritten = PosixSync::little_unwritten) {
  std::error_code ec;
  PosixFileSystem fs = PosixFileSystem::open(data_dir, ec, max_sync_threads, max_unwritten);
  struct stat format {};
  if (ec == std::errc::no_such_file_or_directory) {
    ec = make_directories(fs.path(), durability);
    if (!ec) fs = PosixFileSystem::open(data_dir, ec, max_sync_threads, max_unwritten);
  } else if (!ec && durability == Durability::full &&
             ::lstat((fs.path() / store_layout::format_file).c_str(), &format) < 0) {
    ec = sync_name(fs.path(), true);  // made a moment ago, perhaps by a process that was killed
  }
  if (ec) throw Error(ec, fs.path().string());
  return fs;
}

/// Nothing where something is mounted at `path`, which is the root of that.
inline std::error_code require_mount_point(const std::filesystem::path& path) {
  struct stat inner {};
  struct stat outer {};
  if (::lstat(path.c_str(), &inner) < 0 || ::stat(path.parent_path().c_str(), &outer) < 0) return errno_code(errno);
  const bool is_root = inner.st_ino == outer.st_ino && path == path.root_path();
  return inner.st_dev != outer.st_dev || is_root ? std::error_code() : std::make_error_code(std::errc::no_such_device);
}

/// `max_unwritten`: as `PosixFileSystem::open` says.
inline std::vector<VolumePlace<PosixFileSystem>> places_of(const std::filesystem::path& data_dir,
                                                           const Options& options,
                                                           std::uint64_t max_unwritten = PosixSync::little_unwritten) {
  std::vector<Location> locations = options.locations;
  if (locations.empty()) locations.push_back({"."});
  std::vector<VolumePlace<PosixFileSystem>> places;
  for (const Location& location : locations) {
    std::filesystem::path path = absolute_directory(data_dir / location.path);
    const auto open = [path, must_be_mount_point = location.must_be_mount_point, durability = options.durability,
                       max_sync_threads = options.max_sync_threads, max_unwritten] {
      if (must_be_mount_point) {
        if (const std::error_code ec = require_mount_point(path)) throw Error(ec, path.string());
      }
      return open_data_directory(path, durability, max_sync_threads, max_unwritten);
    };
    places.push_back({std::move(path), open, location.max_bytes, location.keep_free_bytes});
  }
  return places;
}

}  // namespace detail

/// Keeps generations in a directory that it holds alone, with the names of store_layout.hpp; or in several, each of
/// which is one by itself (`Options::locations`).
///
/// Location: the absolute path of the generation's directory. Thread-safety and exceptions: as `Storage` says.
/// Lifetime: the lock is held until the object and all its staging areas are gone, however the process ends.
class FilesystemStorage : public BasicVolumes<PosixFileSystem> {
 public:
  /// Opens the store in `data_dir`, or those of `options.locations`; creates a directory, and those above it, where
  /// missing. Of the options uses `durability`, `max_sync_threads`, `quarantine_max_bytes` and `keep_free_bytes`
  /// besides. Throws `Error` that names the path, and changes nothing then that was there: `errc::not_a_directory`
  /// where a directory or a part of it is a link or a file; `errc::unknown_format`; `errc::directory_in_use` where
  /// another store, of this process or another, has it; what the file system reports.
  explicit FilesystemStorage(const std::filesystem::path& data_dir, const Options& options = {})
      : BasicVolumes(detail::places_of(data_dir, options), options.durability,
                     {options.quarantine_max_bytes, options.keep_free_bytes}) {}
};

static_assert(VolumeStorage<FilesystemStorage>);

}  // namespace garner
