// SPDX-License-Identifier: BSL-1.0
//
// A simulated disk as a `FileSystem`, so that the very protocol that runs on a real one runs on it. Before each
// operation the world is asked: it may refuse it, run others meanwhile, or end. What a crash leaves is decided in
// sim_disk.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_handle.hpp"
#include "garner/simulation/sim_hooks.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_volumes.hpp"

namespace garner {

/// The file system of a simulated disk. Its errors are those of `PosixFileSystem`; every operation on a disk that
/// ended is `errc::io_error`. A write that does not fit is written as far as it does, with `errc::no_space`.
///
/// Thread-safety: as `FileSystem` says, if the hooks are. Lifetime: the hooks outlive it; handles may outlive it.
class SimFileSystem {
 public:
  using Mutex = SimMutex;
  static constexpr bool concurrent = false;
  class Directory : private SimHandle {
    friend class SimFileSystem;
    using SimHandle::SimHandle;
  };
  class File : private SimHandle {
    friend class SimFileSystem;
    using SimHandle::SimHandle;
    bool writable_ = true;
  };

  /// `hooks` may be null. `path` is what `path` returns, and nothing else.
  explicit SimFileSystem(std::shared_ptr<SimDisk> disk, SimHooks* hooks = nullptr, std::filesystem::path path = "/sim")
      : disk_(std::move(disk)), hooks_(hooks), path_(std::move(path)) {
    const std::lock_guard lock(disk_->names_->guard);
    root_ = Directory(disk_, SimDisk::root_node);
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const Directory& root() const noexcept { return root_; }
  [[nodiscard]] const std::shared_ptr<SimDisk>& disk() const noexcept { return disk_; }

  Directory open_directory(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::open_directory, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && !disk_->nodes_[node].directory) ec = errc::not_a_directory;
    return ec ? Directory() : Directory(disk_, node);
  }

  std::error_code make_directory(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::make_directory, directory, name);
    const Guard guard(*this);
    if (!ec) ec = check_free(directory, name);
    if (!ec) disk_->make(directory.node_, name, true);
    return ec;
  }

  /// The visitor sees the directory as it was when the operation began, and may use the file system.
  std::error_code list(const Directory& directory, const EntryVisitor& visitor) const {
    const std::error_code ec = begin(SimOperation::list, directory);
    if (ec) return ec;
    std::vector<std::pair<const std::string*, EntryKind>> entries;
    {
      const Guard guard(*this);
      for (const auto& [name, node] : disk_->nodes_[directory.node_].entries) {
        entries.emplace_back(&disk_->names_->text(name),
                             disk_->nodes_[node].directory ? EntryKind::directory : EntryKind::file);
      }
    }
    for (const auto& [name, kind] : entries) visitor(*name, kind);
    return {};
  }

  File create_file(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::create_file, directory, name, bad_argument());
    const Guard guard(*this);
    if (!ec) ec = check_free(directory, name);
    return ec ? File() : File(disk_, disk_->make(directory.node_, name, false));
  }

  File open_file(const Directory& directory, const std::string& name, Access access, std::error_code& ec) const {
    ec = begin(SimOperation::open_file, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    if (ec) return {};
    File file(disk_, node);
    file.writable_ = access == Access::write;
    return file;
  }

  FileStatus status(const File& file, std::error_code& ec) const {
    ec = begin(SimOperation::status, file);
    const Guard guard(*this);
    if (ec) return {};
    const SimDisk::Inode& inode = disk_->nodes_[file.node_];
    return {inode.contents.size(), inode.linked ? std::uint64_t{1} : std::uint64_t{0}};
  }

  FileStatus status(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::status, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    return ec ? FileStatus() : FileStatus{disk_->nodes_[node].contents.size(), 1};
  }

  std::size_t read(const File& file, std::uint64_t at, std::span<std::byte> to, std::error_code& ec) const {
    ec = begin(SimOperation::read, file, to.size());
    const Guard guard(*this);
    if (ec) return 0;
    const std::string& bytes = disk_->nodes_[file.node_].contents.now();
    if (at >= bytes.size()) return 0;
    const std::span from = std::as_bytes(std::span(bytes)).subspan(static_cast<std::size_t>(at));
    const std::size_t count = std::min(from.size(), to.size());
    std::copy_n(from.begin(), count, to.begin());
    return count;
  }

  std::error_code write(const File& file, std::uint64_t at, std::span<const std::byte> bytes) const {
    const SimFault fault = ask(SimOperation::write, file.node_, {}, bytes.size());
    std::error_code ec = check(file, fault.error);
    const Guard guard(*this);
    if (ec && ec != fault.error) return ec;
    if (!file.writable_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (ec) bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(fault.written, bytes.size())));
    const std::uint64_t most = disk_->nodes_[file.node_].room() + disk_->free();
    if (at + bytes.size() > most) {
      bytes = bytes.first(static_cast<std::size_t>(most > at ? most - at : 0));
      if (!ec) ec = errc::no_space;
    }
    if (!ec && fault.misdirected) {
      disk_->misdirect(file.node_, *fault.misdirected, at, bytes);
      disk_->resize(file.node_, at + bytes.size(),
                    [&](auto& inode) { inode.contents.truncate(std::max(at + bytes.size(), inode.contents.size())); });
      return {};
    }
    disk_->resize(file.node_, at + bytes.size(), [&](auto& inode) { inode.contents.write(at, bytes); });
    return ec;
  }

  std::error_code reserve(const File& file, std::uint64_t size) const {
    const std::error_code ec = begin(SimOperation::reserve, file, size);
    const Guard guard(*this);
    if (ec) return ec;
    const bool fits =
        disk_->resize(file.node_, size, [size](auto& inode) { inode.reserved = std::max(inode.reserved, size); });
    return fits ? std::error_code() : make_error_code(errc::no_space);
  }

  std::error_code truncate(const File& file, std::uint64_t size) const {
    std::error_code ec = begin(SimOperation::truncate, file, size);
    const Guard guard(*this);
    if (!ec && !file.writable_) ec = bad_argument();
    if (ec) return ec;
    const bool fits = disk_->resize(file.node_, size, [size](auto& inode) {
      inode.contents.truncate(size);
      inode.reserved = 0;
    });
    return fits ? std::error_code() : make_error_code(errc::no_space);
  }

  std::error_code sync_file(const File& file) const {
    return sync(
        SimOperation::sync_file, file, [&] { disk_->sync_file(file.node_); },
        [&] { disk_->nodes_[file.node_].contents.fail_sync(); });
  }

  std::error_code sync_directory(const Directory& directory) const {
    return sync(
        SimOperation::sync_directory, directory, [&] { disk_->sync_directory(directory.node_); },
        [&] { disk_->log_.fail_sync(directory.node_); });
  }

  std::error_code close(File& file) const {
    const std::error_code ec = begin(SimOperation::close, file);
    file.SimHandle::close();
    return ec;
  }

  std::error_code rename(const Directory& from, const std::string& name, const Directory& to,
                         const std::string& new_name) const {
    const SimFault fault = ask(SimOperation::rename, from.node_, name, 0, to.node_, new_name);
    std::error_code ec = check(to, check(from, fault.error));
    const Guard guard(*this);
    if (!ec && !(is_plain(name) && is_plain(new_name))) ec = errc::invalid_file_name;
    const detail::SimNode node = ec ? detail::sim_none : find(from, name, ec);
    if (!ec) ec = check_free(to, new_name);
    if (!ec && is_below(to.node_, node)) ec = std::make_error_code(std::errc::invalid_argument);
    if (ec) return ec;
    disk_->change({.from = from.node_,
                   .from_name = disk_->names_->intern(name),
                   .to = to.node_,
                   .to_name = disk_->names_->intern(new_name),
                   .node = node});
    return {};
  }

  std::error_code remove_file(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::remove_file, directory, name);
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    if (!ec) remove(directory, name, node);
    return ec;
  }

  std::error_code remove_directory(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::remove_directory, directory, name);
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && !disk_->nodes_[node].directory) ec = errc::not_a_directory;
    if (!ec && !disk_->nodes_[node].entries.empty()) ec = std::make_error_code(std::errc::directory_not_empty);
    if (!ec) remove(directory, name, node);
    return ec;
  }

  std::error_code lock(const File& file) const {
    const std::error_code ec = begin(SimOperation::lock, file);
    const Guard guard(*this);
    if (ec) return ec;
    std::uint64_t& holder = disk_->nodes_[file.node_].lock;
    if (holder != 0 && holder != file.number_) return errc::directory_in_use;
    holder = file.number_;
    return {};
  }

  std::uint64_t free_space(std::error_code& ec) const {
    ec = begin(SimOperation::free_space, root_);
    const Guard guard(*this);
    return ec ? 0 : disk_->free();
  }

  [[nodiscard]] std::string boot_id() const { return std::to_string(1'000'000'000 + disk_->boots()); }

 private:
  struct Guard {
    explicit Guard(const SimFileSystem& fs) : lock(fs.disk_->names_->guard) {}
    std::lock_guard<std::mutex> lock;
  };

  // The world is asked before anything is looked at, and nothing is remembered across the question.

  SimFault ask(SimOperation operation, detail::SimNode node, std::string_view name, std::uint64_t bytes = 0,
               detail::SimNode new_node = detail::sim_none, std::string_view new_name = {}) const {
    SimFault fault;
    if (node == detail::sim_none || disk_->dead()) return fault;
    if (hooks_ != nullptr) {
      fault = hooks_->before({operation, bytes, !SimMutex::any_held(), *disk_, node, name, new_node, new_name});
    }
    const std::error_code refused = refusal(operation);
    if (refused) fault = {refused};
    return fault;
  }

  [[nodiscard]] std::error_code refusal(SimOperation operation) const {
    if (disk_->health() == SimHealth::sound) return {};
    if (disk_->health() == SimHealth::failing) return errc::io_error;
    switch (operation) {
      case SimOperation::make_directory:
      case SimOperation::create_file:
      case SimOperation::write:
      case SimOperation::reserve:
      case SimOperation::truncate:
      case SimOperation::rename:
      case SimOperation::remove_file:
      case SimOperation::remove_directory: return errc::read_only;
      default: return {};
    }
  }

  /// `error`, unless there is one that comes first.
  std::error_code check(const SimHandle& handle, std::error_code error) const {
    if (!handle.disk_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (disk_->dead()) return errc::io_error;
    return error;
  }

  std::error_code begin(SimOperation operation, const SimHandle& handle, std::uint64_t bytes = 0) const {
    return check(handle, ask(operation, handle.node_, {}, bytes).error);
  }

  std::error_code begin(SimOperation operation, const SimHandle& handle, std::string_view name,
                        std::error_code not_plain = errc::invalid_file_name) const {
    const std::error_code ec = check(handle, ask(operation, handle.node_, name).error);
    return ec || is_plain(name) ? ec : not_plain;
  }

  template <class Sync, class Fail>
  std::error_code sync(SimOperation operation, const SimHandle& handle, const Sync& sync, const Fail& fail) const {
    const SimFault fault = ask(operation, handle.node_, {});
    const std::error_code ec = check(handle, {});
    const Guard guard(*this);
    if (ec) return ec;
    // Who has had it open since before a sync failed is told so once (errseq_t in Linux' Documentation).
    std::uint32_t& failures = disk_->nodes_[handle.node_].failed_syncs;
    const bool untold = std::exchange(handle.seen_, failures) != failures;
    if (fault.error) {
      fail();
      handle.seen_ = ++failures;
    } else if (!fault.ignored) {
      sync();
    }
    return fault.error || untold ? make_error_code(errc::sync_failed) : std::error_code();
  }

  static std::error_code bad_argument() { return std::make_error_code(std::errc::invalid_argument); }

  static bool is_plain(std::string_view name) noexcept {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
           name.find('\0') == std::string_view::npos;
  }

  // With the guard held:

  detail::SimNode find(const Directory& directory, std::string_view name, std::error_code& ec) const {
    const detail::SimNode node = disk_->find(directory.node_, name);
    if (node == detail::sim_none) ec = std::make_error_code(std::errc::no_such_file_or_directory);
    return node;
  }

  /// Whether something new may stand there.
  std::error_code check_free(const Directory& directory, std::string_view name) const {
    if (!disk_->nodes_[directory.node_].linked) return std::make_error_code(std::errc::no_such_file_or_directory);
    const bool is_free = disk_->find(directory.node_, name) == detail::sim_none;
    return is_free ? std::error_code() : std::make_error_code(std::errc::file_exists);
  }

  [[nodiscard]] bool is_below(detail::SimNode node, detail::SimNode top) const {
    for (; node != SimDisk::root_node; node = disk_->nodes_[node].parent) {
      if (node == top) return true;
    }
    return false;
  }

  void remove(const Directory& directory, std::string_view name, detail::SimNode node) const {
    disk_->change({.from = directory.node_,
                   .from_name = disk_->names_->intern(name),
                   .node = node,
                   .removes_directory = disk_->nodes_[node].directory});
  }

  std::shared_ptr<SimDisk> disk_;
  SimHooks* hooks_;
  std::filesystem::path path_;
  Directory root_;
};

static_assert(FileSystem<SimFileSystem>);

/// The real protocol on a simulated disk, or on several.
using SimStorage = BasicVolumes<SimFileSystem>;

static_assert(VolumeStorage<SimStorage>);

}  // namespace garner
