// SPDX-License-Identifier: BSL-1.0
//
// A directory of a Linux file system as a `FileSystem`: everything is opened relative to the root's descriptor, one
// component at a time and without following links, so that nothing in the directory can name a path outside it.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/error.hpp"
#include "garner/status.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/posix_sync.hpp"

namespace garner {

namespace detail {

/// Owns a file descriptor. What it closes in the destructor, it closes without looking at the error.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// 0, or -1 with `errno`. Gone either way: on Linux a failed close has closed (close(2), Notes).
  int close() noexcept { return fd_ >= 0 ? ::close(std::exchange(fd_, -1)) : 0; }

 private:
  int fd_ = -1;
};

/// garner's word for an error of the system, or the generic category's.
inline std::error_code errno_code(int number) noexcept {
  switch (number) {
    case ENOSPC:
    case EDQUOT: return errc::no_space;
    case EROFS: return errc::read_only;
    case EIO: return errc::io_error;
    case EMFILE:
    case ENFILE: return errc::too_many_open_files;
    case EACCES:
    case EPERM: return errc::permission_denied;
    case ENOTDIR: return errc::not_a_directory;
    default: return {number, std::generic_category()};
  }
}

inline std::error_code errno_result(long result) noexcept { return result < 0 ? errno_code(errno) : std::error_code(); }

/// Calls `call` again while a signal interrupts it.
template <class Call>
auto uninterrupted(Call&& call) noexcept {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

inline bool is_plain_name(std::string_view name) noexcept {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

/// Opens `name`, one component, in `directory`: for kernels without `openat2` (before 5.6).
inline int open_component(int directory, const char* name, int flags, mode_t mode) noexcept {
  return uninterrupted([&] { return ::openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC, mode); });
}

/// The same, and the kernel itself refuses to leave `directory` (openat2(2)).
inline int open_beneath(int directory, const char* name, int flags, mode_t mode) noexcept {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const long fd = uninterrupted([&] { return ::syscall(SYS_openat2, directory, name, &how, sizeof(how)); });
  // Some sandboxes answer a system call that they do not know with EPERM. Where EPERM was meant, it comes again.
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) return open_component(directory, name, flags, mode);
  return static_cast<int>(fd);
}

/// `path` made absolute, and without what would make a link at its end be followed: `link/`, `link/.`
inline std::filesystem::path absolute_directory(const std::filesystem::path& path) {
  std::filesystem::path out = std::filesystem::absolute(path);
  while ((out.filename().empty() || out.filename() == ".") && out.has_relative_path()) out = out.parent_path();
  return out;
}

}  // namespace detail

/// One directory and what lies below it. Directories are made with mode 0755 and files with 0644, less the umask; every
/// descriptor closes on exec. See `FileSystem` for what each member promises.
class PosixFileSystem {
 public:
  using Mutex = std::mutex;
  static constexpr bool concurrent = true;
  class Directory : private detail::Descriptor {
    friend class PosixFileSystem;
    using detail::Descriptor::Descriptor;
  };
  class File : private detail::Descriptor {
    friend class PosixFileSystem;
    using detail::Descriptor::Descriptor;
  };

  /// Opens the directory at `path`, which is not created. A link at the end of `path` is not followed
  /// (`errc::not_a_directory`); links on the way there are. `max_sync_threads`: as in `Options`.
  /// `max_unwritten`: where the whole machine has more bytes than that to write, many syncs are not made one syncfs.
  static PosixFileSystem open(const std::filesystem::path& path, std::error_code& ec,
                              std::size_t max_sync_threads = Options().max_sync_threads,
                              std::uint64_t max_unwritten = detail::PosixSync::little_unwritten) {
    std::filesystem::path absolute = detail::absolute_directory(path);
    const int fd = detail::open_component(AT_FDCWD, absolute.c_str(), O_RDONLY | O_DIRECTORY, 0);
    ec = detail::errno_result(fd);
    return {Directory(fd), std::move(absolute), std::make_unique<detail::PosixSync>(max_sync_threads, max_unwritten)};
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const Directory& root() const noexcept { return root_; }

  Directory open_directory(const Directory& directory, const std::string& name, std::error_code& ec) const {
    Directory out(open_at(directory, name, O_RDONLY | O_DIRECTORY));
    ec = !out && errno == ELOOP ? make_error_code(errc::not_a_directory) : detail::errno_result(out.get());
    return out;
  }

  std::error_code make_directory(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::mkdirat(directory.get(), name.c_str(), 0755));
  }

  std::error_code list(const Directory& directory, const EntryVisitor& visitor) const {
    // A descriptor of its own: the position that readdir moves belongs to the open file, which others may be reading.
    const int fd = detail::open_component(directory.get(), ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return detail::errno_code(errno);
    const std::unique_ptr<DIR, CloseDirectory> entries(::fdopendir(fd));
    if (!entries) {
      const int error = errno;
      ::close(fd);
      return detail::errno_code(error);
    }
    for (;;) {
      errno = 0;
      // NOLINTNEXTLINE(concurrency-mt-unsafe): on a stream of one's own it is safe (readdir(3), Attributes)
      const dirent* const entry = ::readdir(entries.get());
      if (entry == nullptr) return errno != 0 ? detail::errno_code(errno) : std::error_code();
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      visitor(name, kind_of(directory, *entry));
    }
  }

  File create_file(const Directory& directory, const std::string& name, std::error_code& ec) const {
    File file(open_at(directory, name, O_RDWR | O_CREAT | O_EXCL, 0644));
    ec = detail::errno_result(file.get());
    return file;
  }

  /// A link is `std::errc::too_many_symbolic_link_levels`, a directory `std::errc::is_a_directory`, anything else that
  /// is no regular file `std::errc::invalid_argument`.
  File open_file(const Directory& directory, const std::string& name, Access access, std::error_code& ec) const {
    // O_NONBLOCK: to open a FIFO that nobody writes to would wait for ever.
    File file(open_at(directory, name, (access == Access::read ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY));
    ec = detail::errno_result(file.get());
    if (ec) return file;
    struct stat status {};
    ec = detail::errno_result(::fstat(file.get(), &status));
    if (!ec) ec = check_regular(status);
    return ec ? File() : std::move(file);
  }

  FileStatus status(const File& file, std::error_code& ec) const {
    struct stat status {};
    ec = detail::errno_result(::fstat(file.get(), &status));
    return {static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_nlink)};
  }

  /// What is no regular file is as `open_file` says.
  FileStatus status(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = detail::is_plain_name(name) ? std::error_code() : detail::errno_code(EINVAL);
    struct stat status {};
    if (!ec) ec = detail::errno_result(::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW));
    if (!ec) ec = check_regular(status);
    return {static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_nlink)};
  }

  std::size_t read(const File& file, std::uint64_t at, std::span<std::byte> to, std::error_code& ec) const {
    std::size_t done = 0;
    while (done < to.size()) {
      const auto count = detail::uninterrupted(
          [&] { return ::pread(file.get(), to.data() + done, to.size() - done, static_cast<off_t>(at + done)); });
      ec = detail::errno_result(count);
      if (count <= 0) return done;
      done += static_cast<std::size_t>(count);
    }
    ec.clear();
    return done;
  }

  std::error_code write(const File& file, std::uint64_t at, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const auto count = detail::uninterrupted(
          [&] { return ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)); });
      if (count < 0) return detail::errno_code(errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      at += static_cast<std::uint64_t>(count);
    }
    return {};
  }

  std::error_code reserve(const File& file, std::uint64_t size) const {
    const int result = detail::uninterrupted(
        [&] { return ::fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)); });
    // A file system that cannot reserve (EOPNOTSUPP, EINVAL, ENOSYS) will tell at the write that there is no room.
    if (result == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG && errno != EIO)) return {};
    return detail::errno_code(errno);
  }

  std::error_code truncate(const File& file, std::uint64_t size) const {
    return detail::errno_result(
        detail::uninterrupted([&] { return ::ftruncate(file.get(), static_cast<off_t>(size)); }));
  }

  std::error_code sync_file(const File& file) const { return sync(file.get()); }
  std::error_code sync_directory(const Directory& directory) const { return sync(directory.get()); }

  void sync_together(std::span<SyncRequest<File, Directory>> requests) const {
    std::vector<detail::PosixSync::Item> items;
    items.reserve(requests.size());
    for (const auto& request : requests) {
      const bool is_file = request.file != nullptr;
      items.push_back({is_file ? request.file->get() : request.directory->get(), is_file});
    }
    sync_->run(root_.get(), items);
    for (std::size_t i = 0; i < items.size(); ++i) {
      requests[i].error = items[i].is_durable ? std::error_code() : make_error_code(errc::sync_failed);
    }
  }

  std::error_code close(File& file) const {
    const int result = static_cast<detail::Descriptor&>(file).close();
    return result < 0 && errno != EINTR ? detail::errno_code(errno) : std::error_code();
  }

  std::error_code rename(const Directory& from, const std::string& name, const Directory& to,
                         const std::string& new_name) const {
    if (!detail::is_plain_name(name) || !detail::is_plain_name(new_name)) return errc::invalid_file_name;
    const long result =
        ::syscall(SYS_renameat2, from.get(), name.c_str(), to.get(), new_name.c_str(), RENAME_NOREPLACE);
    if (result == 0 || (errno != EINVAL && errno != ENOSYS)) return detail::errno_result(result);
    // A file system that cannot refuse (NFS, some FUSE): looked up first, which is enough for the holder of the lock.
    struct stat status {};
    if (::fstatat(to.get(), new_name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      return std::make_error_code(std::errc::file_exists);
    }
    return detail::errno_result(::renameat(from.get(), name.c_str(), to.get(), new_name.c_str()));
  }

  std::error_code remove_file(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::unlinkat(directory.get(), name.c_str(), 0));
  }

  std::error_code remove_directory(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::unlinkat(directory.get(), name.c_str(), AT_REMOVEDIR));
  }

  /// An open-file-description lock (fcntl(2)): it belongs to this handle, not to the process, so that a second handle
  /// of the same process is refused as well, and it ends with the process whatever kills it.
  std::error_code lock(const File& file) const {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const int result = detail::uninterrupted([&] { return ::fcntl(file.get(), F_OFD_SETLK, &lock); });
    if (result < 0 && (errno == EAGAIN || errno == EACCES)) return errc::directory_in_use;
    return detail::errno_result(result);
  }

  /// What an unprivileged user may still write.
  std::uint64_t free_space(std::error_code& ec) const {
    struct statvfs status {};
    ec = detail::errno_result(detail::uninterrupted([&] { return ::fstatvfs(root_.get(), &status); }));
    return std::uint64_t{status.f_bavail} * status.f_frsize;
  }

  /// As random(4) tells it; empty where /proc is not mounted.
  static std::string boot_id() {
    const detail::Descriptor file(detail::uninterrupted(
        [] { return ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC | O_NOCTTY); }));
    if (!file) return {};
    std::string id(36, '\0');
    const ssize_t count = detail::uninterrupted([&] { return ::read(file.get(), id.data(), id.size()); });
    id.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    return id;
  }

 private:
  struct CloseDirectory {
    void operator()(DIR* directory) const noexcept { ::closedir(directory); }
  };

  PosixFileSystem(Directory root, std::filesystem::path path, std::unique_ptr<detail::PosixSync> sync)
      : root_(std::move(root)), path_(std::move(path)), sync_(std::move(sync)) {}

  static int open_at(const Directory& directory, const std::string& name, int flags, mode_t mode = 0) noexcept {
    if (!detail::is_plain_name(name)) return errno = EINVAL, -1;
    return detail::open_beneath(directory.get(), name.c_str(), flags, mode);
  }

  /// Not called again after an interruption either: the first call may have taken the news of a lost page with it.
  static std::error_code sync(int fd) noexcept {
    return ::fsync(fd) < 0 ? make_error_code(errc::sync_failed) : std::error_code();
  }

  static std::error_code check_regular(const struct stat& status) noexcept {
    if (S_ISREG(status.st_mode)) return {};
    if (S_ISDIR(status.st_mode)) return std::make_error_code(std::errc::is_a_directory);
    if (S_ISLNK(status.st_mode)) return std::make_error_code(std::errc::too_many_symbolic_link_levels);
    return std::make_error_code(std::errc::invalid_argument);
  }

  static EntryKind kind_of(const Directory& directory, const dirent& entry) noexcept {
    if (entry.d_type == DT_REG) return EntryKind::file;
    if (entry.d_type == DT_DIR) return EntryKind::directory;
    if (entry.d_type != DT_UNKNOWN) return EntryKind::other;
    struct stat status {};  // XFS without ftype, some FUSE: only the inode knows
    if (::fstatat(directory.get(), entry.d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) return EntryKind::other;
    if (S_ISREG(status.st_mode)) return EntryKind::file;
    return S_ISDIR(status.st_mode) ? EntryKind::directory : EntryKind::other;
  }

  Directory root_;
  std::filesystem::path path_;
  std::unique_ptr<detail::PosixSync> sync_;
};

static_assert(FileSystem<PosixFileSystem>);

}  // namespace garner
