// SPDX-License-Identifier: BSL-1.0
//
// FilesystemStorage, the default Storage: one directory of a real file system. What it does there is in
// store_protocol.hpp; here is how it comes to the directory.
#pragma once

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/posix_file_system.hpp"
#include "garner/storage/store_protocol.hpp"

namespace garner {

namespace detail {

/// Makes the directory `path` and those above it that are missing, each of them durable in its parent.
inline std::error_code make_directories(const std::filesystem::path& path, Durability durability) {
  const std::filesystem::path parent = path.parent_path();
  if (::mkdir(path.c_str(), 0755) < 0) {
    if (errno == EEXIST) return {};  // what it is shows when it is opened
    if (errno != ENOENT || parent == path) return errno_code(errno);
    const std::error_code ec = make_directories(parent, durability);
    if (ec) return ec;
    if (::mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) return errno_code(errno);
  }
  if (durability == Durability::relaxed) return {};
  const Descriptor above(uninterrupted([&] { return ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!above) return errno_code(errno);
  return ::fsync(above.get()) < 0 ? make_error_code(errc::sync_failed) : std::error_code();
}

inline PosixFileSystem open_data_directory(const std::filesystem::path& data_dir, Durability durability) {
  std::error_code ec;
  PosixFileSystem fs = PosixFileSystem::open(data_dir, ec);
  if (ec == std::errc::no_such_file_or_directory) {
    ec = make_directories(fs.path(), durability);
    if (!ec) fs = PosixFileSystem::open(data_dir, ec);
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
