// SPDX-License-Identifier: BSL-1.0
//
// FilesystemStorage, the default Storage: one directory of a real file system. What it does there is in
// store_protocol.hpp; here is how it comes to the directory.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/posix_file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_protocol.hpp"

namespace garner {

namespace detail {

/// Makes durable that `path` has its name in the directory above. `found`: it was there already. Then it may be somebody
/// else's: nobody but its owner can sync what may not be read, or what knows no syncs.
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

inline PosixFileSystem open_data_directory(const std::filesystem::path& data_dir, Durability durability) {
  std::error_code ec;
  PosixFileSystem fs = PosixFileSystem::open(data_dir, ec);
  struct stat format {};
  if (ec == std::errc::no_such_file_or_directory) {
    ec = make_directories(fs.path(), durability);
    if (!ec) fs = PosixFileSystem::open(data_dir, ec);
  } else if (!ec && durability == Durability::full &&
             ::lstat((fs.path() / store_layout::format_file).c_str(), &format) < 0) {
    ec = sync_name(fs.path(), true);  // made a moment ago, perhaps by a process that was killed
  }
  if (ec) throw Error(ec, fs.path().string());
  return fs;
}

}  // namespace detail

/// Keeps generations in a directory that it holds alone, with the names of store_layout.hpp.
///
/// Location: the absolute path of the generation's directory. Thread-safety and exceptions: as `Storage` says.
/// Lifetime: the lock is held until the object and all its staging areas are gone, however the process ends.
class FilesystemStorage : public BasicStore<PosixFileSystem> {
 public:
  /// Opens the store in `data_dir`; creates the directory, and those above it, where missing. Uses `options.durability`,
  /// `quarantine_max_bytes` and `keep_free_bytes`. Throws `Error` that names the path, and changes nothing then that was there: `errc::not_a_directory` where
  /// `data_dir` or a part of it is a link or a file; `errc::unknown_format`; `errc::directory_in_use` where another
  /// store, of this process or another, has it; what the file system reports.
  explicit FilesystemStorage(const std::filesystem::path& data_dir, const Options& options = {})
      : BasicStore(detail::open_data_directory(data_dir, options.durability), options.durability,
                   {options.quarantine_max_bytes, options.keep_free_bytes}) {}
};

static_assert(Storage<FilesystemStorage>);

}  // namespace garner
