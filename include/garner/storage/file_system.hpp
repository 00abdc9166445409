// SPDX-License-Identifier: BSL-1.0
//
// What the store asks of a file system: a requirement table and its concept. `PosixFileSystem` is the real one; one
// that loses, tears and refuses writes runs the very same store in the simulation.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace garner {

/// What stands behind a name. Links, FIFOs, devices and sockets are `other`.
enum class EntryKind : std::uint8_t { file, directory, other };

struct FileStatus {
  std::uint64_t size = 0;   ///< bytes
  std::uint64_t links = 1;  ///< names that the file has
};

enum class Access : std::uint8_t { read, write };

/// Takes one entry of a directory; the name is only lent.
using EntryVisitor = std::function<void(std::string_view, EntryKind)>;

/// One of several things that are to be made durable, and what became of it.
template <class File, class Directory>
struct SyncRequest {
  File* file = nullptr;                  ///< lent
  const Directory* directory = nullptr;  ///< lent, where there is no file
  std::error_code error = {};
};

/// FileSystem
/// ==========
/// `Directory` and `File` are open handles: default-constructed they hold nothing, destroyed they close. A name is
/// one plain component (no `/`, not `.` or `..`), is looked up in its directory alone, and no link is followed.
/// `Mutex` is what is locked across operations: `std::mutex`, or one that a simulated file system knows of.
/// `concurrent` says whether other threads may be waited for and made use of; false where one thread does everything.
///
/// | expression                      | result             | must promise                                         |
/// |---------------------------------|--------------------|------------------------------------------------------|
/// | `fs.path()`                     | `path`             | absolute, of the root; for naming, not opened again  |
/// | `fs.root()`                     | `const Directory&` | the root                                             |
/// | `fs.open_directory(dir, n, ec)` | `Directory`        | `errc::not_a_directory` where anything else stands   |
/// | `fs.make_directory(dir, n)`     | `std::error_code`  | `std::errc::file_exists` where anything stands there |
/// | `fs.list(dir, visitor)`         | `std::error_code`  | visits each entry but `.` and `..` once; opens none  |
/// | `fs.create_file(dir, n, ec)`    | `File`             | a new, empty file, for reading and writing;          |
/// |                                 |                    | `std::errc::file_exists` where anything stands there |
/// | `fs.open_file(dir, n, acc, ec)` | `File`             | a regular file that is there; never waits on a FIFO  |
/// | `fs.status(file, ec)`           | `FileStatus`       |                                                      |
/// | `fs.status(dir, n, ec)`         | `FileStatus`       | of a regular file that is there; does not open it    |
/// | `fs.read(file, at, to, ec)`     | `std::size_t`      | fewer bytes than `to` has only at the file's end     |
/// | `fs.write(file, at, bytes)`     | `std::error_code`  | all of them; with an error, any part of them         |
/// | `fs.reserve(file, size)`        | `std::error_code`  | room for `size` bytes, and the file's size stays.    |
/// |                                 |                    | An error only where there is no room                 |
/// | `fs.truncate(file, size)`       | `std::error_code`  |                                                      |
/// | `fs.sync_file(file)`            | `std::error_code`  | bytes and size are durable, or `errc::sync_failed`:  |
/// |                                 |                    | they may be lost, and a second sync proves nothing   |
/// | `fs.sync_directory(dir)`        | `std::error_code`  | its entries are durable, or `errc::sync_failed`      |
/// | `fs.close(file)`                | `std::error_code`  | the handle is gone, error or not                     |
/// | `fs.rename(dir, n, dir2, n2)`   | `std::error_code`  | atomic; `std::errc::file_exists` where anything is   |
/// | `fs.remove_file(dir, n)`        | `std::error_code`  | whatever is not a directory                          |
/// | `fs.remove_directory(dir, n)`   | `std::error_code`  | an empty one                                         |
/// | `fs.lock(file)`                 | `std::error_code`  | this handle alone has the lock until it is closed,   |
/// |                                 |                    | if by the process's end; or `errc::directory_in_use` |
/// | `fs.free_space(ec)`             | `std::uint64_t`    | bytes that may still be written                      |
/// | `fs.boot_id()`                  | `std::string`      | another one after each start of the machine; empty   |
/// |                                 |                    | where that is not known                              |
/// | where it can (`SyncsTogether`): |                 |                                                      |
/// | `fs.sync_together(requests)`    |                 | each as `sync_file` or `sync_directory`, for less;   |
/// |                                 |                 | of a `std::span<SyncRequest<File, Directory>>`       |
/// Errors: garner's `errc` where it has a word for it, else the generic category. A missing entry is
/// `std::errc::no_such_file_or_directory`.
/// Thread-safety: all members at the same time; a `File` is used by one thread at a time, a `Directory` by many.
/// Throws: `std::bad_alloc`, and what a visitor throws.
template <class F>
concept FileSystem = std::move_constructible<F> && std::movable<typename F::Directory> &&
    std::movable<typename F::File> && std::default_initializable<typename F::Directory> &&
    std::default_initializable<typename F::File> && std::default_initializable<typename F::Mutex> &&
    requires(F& fs, typename F::Mutex& mutex, const typename F::Directory& dir, typename F::File& file,
             const std::string& name, const EntryVisitor& visitor, std::uint64_t at, std::span<std::byte> to,
             std::span<const std::byte> bytes, std::error_code& ec) {
  requires std::same_as<decltype(F::concurrent), const bool>;
  mutex.lock();
  mutex.unlock();
  { fs.path() } -> std::convertible_to<std::filesystem::path>;
  { fs.root() } -> std::same_as<const typename F::Directory&>;
  { fs.open_directory(dir, name, ec) } -> std::same_as<typename F::Directory>;
  { fs.make_directory(dir, name) } -> std::same_as<std::error_code>;
  { fs.list(dir, visitor) } -> std::same_as<std::error_code>;
  { fs.create_file(dir, name, ec) } -> std::same_as<typename F::File>;
  { fs.open_file(dir, name, Access::read, ec) } -> std::same_as<typename F::File>;
  { fs.status(file, ec) } -> std::same_as<FileStatus>;
  { fs.status(dir, name, ec) } -> std::same_as<FileStatus>;
  { fs.read(file, at, to, ec) } -> std::same_as<std::size_t>;
  { fs.write(file, at, bytes) } -> std::same_as<std::error_code>;
  { fs.reserve(file, at) } -> std::same_as<std::error_code>;
  { fs.truncate(file, at) } -> std::same_as<std::error_code>;
  { fs.sync_file(file) } -> std::same_as<std::error_code>;
  { fs.sync_directory(dir) } -> std::same_as<std::error_code>;
  { fs.close(file) } -> std::same_as<std::error_code>;
  { fs.rename(dir, name, dir, name) } -> std::same_as<std::error_code>;
  { fs.remove_file(dir, name) } -> std::same_as<std::error_code>;
  { fs.remove_directory(dir, name) } -> std::same_as<std::error_code>;
  { fs.lock(file) } -> std::same_as<std::error_code>;
  { fs.free_space(ec) } -> std::same_as<std::uint64_t>;
  { fs.boot_id() } -> std::same_as<std::string>;
};

template <class F>
concept SyncsTogether = FileSystem<F> &&
    requires(F& fs, std::span<SyncRequest<typename F::File, typename F::Directory>> requests) {
  fs.sync_together(requests);
};

}  // namespace garner
