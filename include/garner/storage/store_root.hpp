// SPDX-License-Identifier: BSL-1.0
//
// A data directory, open: its format checked, its lock held, its top directories at hand. Also the few steps that all
// of the store's protocol is made of: a small file written or read, a tree removed little by little.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/status.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/unsynced_files.hpp"

namespace garner {

/// Holds the lock of a data directory while it lives. Thread-safe, as its file system is.
template <FileSystem F>
class StoreRoot {
 public:
  using Directory = typename F::Directory;
  using File = typename F::File;

  /// Larger files are cut down in steps of this many bytes before they are unlinked: freeing much at once holds up
  /// everything else that the file system's journal does.
  static constexpr std::uint64_t removal_step = std::uint64_t{16} << 20;

  /// Opens the store in the root of `fs`, and makes an empty directory one. Throws `Error` that names the path:
  /// `errc::unknown_format` before anything is touched, then `errc::directory_in_use`, then `errc::not_a_directory`
  /// where a part of it is a link or a file, and what the file system reports.
  StoreRoot(F fs, Durability durability) : fs_(std::move(fs)), durability_(durability) {
    check_format();
    take_lock();
    // Asked again under the lock: whoever held it may have been about to write it.
    if (!check_format()) write_format();
    for (auto [name, directory] :
         {std::pair{store_layout::chunks_directory, &chunks_}, std::pair{store_layout::staging_directory, &staging_},
          std::pair{store_layout::doomed_directory, &doomed_}, std::pair{store_layout::trash_directory, &trash_},
          std::pair{store_layout::quarantine_directory, &quarantine_}}) {
      std::error_code ec = fs_.make_directory(fs_.root(), name);
      if (!ec || ec == std::errc::file_exists) *directory = fs_.open_directory(fs_.root(), name, ec);
      require(ec, name);
    }
    // What an earlier process made here it may not have lived to sync.
    const std::error_code ec = sync_directory(fs_.root());
    if (ec) remove_empty();
    require(ec, "");
  }

  [[nodiscard]] F& fs() noexcept { return fs_; }
  [[nodiscard]] const Directory& chunks() const noexcept { return chunks_; }
  [[nodiscard]] const Directory& staging() const noexcept { return staging_; }
  [[nodiscard]] const Directory& doomed() const noexcept { return doomed_; }
  [[nodiscard]] const Directory& trash() const noexcept { return trash_; }
  [[nodiscard]] const Directory& quarantine() const noexcept { return quarantine_; }
  [[nodiscard]] std::filesystem::path path() { return fs_.path(); }

  /// Nothing that is written beneath this root will be published: another opening has taken its place.
  void give_up() noexcept { given_up_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool is_given_up() const noexcept { return given_up_.load(std::memory_order_relaxed); }

  /// As the file system's, and nothing where `Durability::relaxed` was asked for.
  std::error_code sync_file(File& file) {
    return durability_ == Durability::full ? fs_.sync_file(file) : std::error_code();
  }
  std::error_code sync_directory(const Directory& directory) {
    return durability_ == Durability::full ? fs_.sync_directory(directory) : std::error_code();
  }

  /// Whether syncs do anything.
  [[nodiscard]] bool is_durable() const noexcept { return durability_ == Durability::full; }
  /// Descriptors that wait for a sync, of all staging areas.
  [[nodiscard]] detail::UnsyncedCount& unsynced() noexcept { return unsynced_; }

  /// As each by itself, in any order.
  void sync_together(std::span<SyncRequest<File, Directory>> requests) {
    if (!is_durable()) return;
    if constexpr (SyncsTogether<F>) {
      fs_.sync_together(requests);
    } else {
      for (auto& request : requests) {
        request.error = request.file != nullptr ? fs_.sync_file(*request.file) : fs_.sync_directory(*request.directory);
      }
    }
  }

  /// Creates `name` with `text` in it, synced through the descriptor that wrote it.
  std::error_code write_small_file(const Directory& directory, const std::string& name, std::string_view text) {
    std::error_code ec;
    File file = fs_.create_file(directory, name, ec);
    if (!ec) ec = fs_.write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) ec = sync_file(file);
    if (!ec) ec = fs_.close(file);
    return ec;
  }

  /// The whole of `name`, or, of a longer file, its first `limit + 1` bytes.
  std::string read_small_file(const Directory& directory, const std::string& name, std::size_t limit,
                              std::error_code& ec) {
    File file = fs_.open_file(directory, name, Access::read, ec);
    if (ec) return {};
    const FileStatus status = fs_.status(file, ec);
    if (ec) return {};
    std::string text(static_cast<std::size_t>(std::min<std::uint64_t>(status.size, limit + 1)), '\0');
    text.resize(fs_.read(file, 0, std::as_writable_bytes(std::span(text)), ec));
    return text;
  }

  /// Removes `name`, a file or a directory with all that is in it. Not an error where it is not there. `bytes`: of its
  /// files, where known.
  std::error_code remove_tree(const Directory& parent, const std::string& name, std::uint64_t bytes = UINT64_MAX) {
    return remove_tree(parent, name, bytes, max_depth);
  }

  /// The greatest stride that was written down here; 0 where none was.
  std::uint64_t read_stride() {
    std::uint64_t greatest = 0;
    fs_.list(fs_.root(), [&greatest](std::string_view name, EntryKind /*kind*/) {
      if (!name.starts_with(store_layout::stride_prefix)) return;
      name.remove_prefix(store_layout::stride_prefix.size());
      greatest = std::max(greatest, detail::parse_generation(name).value_or(0));
    });
    return greatest;
  }

  /// Durably, in the place of `before`.
  std::error_code write_stride(std::uint64_t stride, std::uint64_t before) {
    const auto name = [](std::uint64_t number) {
      return std::string(store_layout::stride_prefix) + std::to_string(number);
    };
    std::error_code ec;
    File file = fs_.create_file(fs_.root(), name(stride), ec);
    if (!ec) ec = fs_.close(file);
    if (!ec) ec = sync_directory(fs_.root());
    if (!ec && before != 0) ec = fs_.remove_file(fs_.root(), name(before));
    return ec;
  }

  /// Whether what is here can still be found and read. What the kernel remembers it gives without asking the disk.
  std::error_code probe_reading() {
    std::error_code ec = fs_.list(fs_.root(), [](std::string_view, EntryKind) {});
    const std::string text =
        ec ? std::string()
           : read_small_file(fs_.root(), store_layout::format_file, store_layout::format_text.size(), ec);
    return !ec && text != store_layout::format_text ? make_error_code(errc::unknown_format) : ec;
  }

  /// Whether something can still be written here and made durable. A full disk can.
  std::error_code probe_writing() {
    std::error_code ec = unless_missing(fs_.remove_file(fs_.root(), store_layout::probe_file));
    if (!ec) ec = write_small_file(fs_.root(), store_layout::probe_file, store_layout::format_text);
    const std::error_code removed = unless_missing(fs_.remove_file(fs_.root(), store_layout::probe_file));
    if (!ec || classify(ec) == ErrorClass::no_space) ec = removed;
    return ec;
  }

  /// `ec`, but none where it says that there was nothing.
  static std::error_code unless_missing(std::error_code ec) {
    return ec == std::errc::no_such_file_or_directory ? std::error_code() : ec;
  }

 private:
  /// Of directories in directories, which garner never makes and removes all the same. Each level holds a descriptor.
  static constexpr int max_depth = 16;

  static constexpr std::size_t max_unsynced = 128;  ///< descriptors

  void require(std::error_code ec, const std::string& name) {
    if (ec) throw Error(ec, name.empty() ? path().string() : (path() / name).string());
  }

  /// Whether there is one; throws where it is not ours.
  bool check_format() {
    std::error_code ec;
    const std::string text =
        read_small_file(fs_.root(), store_layout::format_file, store_layout::format_text.size(), ec);
    if (ec == std::errc::no_such_file_or_directory) return false;
    const bool no_file = ec == std::errc::is_a_directory || ec == std::errc::invalid_argument ||
                         ec == std::errc::too_many_symbolic_link_levels;
    if (no_file || (!ec && text != store_layout::format_text)) ec = errc::unknown_format;
    require(ec, store_layout::format_file);
    return true;
  }

  void write_format() {
    // Under another name first: a FORMAT that was cut short by a crash would be refused for ever.
    std::error_code ec = unless_missing(fs_.remove_file(fs_.root(), store_layout::new_format_file));
    if (!ec) ec = write_small_file(fs_.root(), store_layout::new_format_file, store_layout::format_text);
    if (!ec) {
      ec = fs_.rename(fs_.root(), store_layout::new_format_file, fs_.root(), store_layout::format_file);
    }
    require(ec, store_layout::format_file);
  }

  /// After a failed sync of the root: what is empty may be lost, and no later sync would tell, so the next start is to
  /// make it anew. Something is put in only after a sync that succeeded.
  void remove_empty() {
    for (const char* const name : {store_layout::chunks_directory, store_layout::staging_directory,
                                   store_layout::doomed_directory, store_layout::trash_directory}) {
      fs_.remove_directory(fs_.root(), name);
    }
  }

  void take_lock() {
    std::error_code ec;
    lock_ = fs_.open_file(fs_.root(), store_layout::lock_file, Access::write, ec);
    if (ec == std::errc::no_such_file_or_directory) {
      lock_ = fs_.create_file(fs_.root(), store_layout::lock_file, ec);
      // Another one was quicker.
      if (ec == std::errc::file_exists) {
        lock_ = fs_.open_file(fs_.root(), store_layout::lock_file, Access::write, ec);
      }
    }
    if (!ec) ec = fs_.lock(lock_);
    // In use is the directory, as far as anyone who reads the message is concerned.
    require(ec, ec == errc::directory_in_use ? "" : store_layout::lock_file);
  }

  std::error_code remove_tree(const Directory& parent, const std::string& name, std::uint64_t bytes, int depth) {
    std::error_code ec;
    Directory directory = fs_.open_directory(parent, name, ec);
    if (ec == errc::not_a_directory) return remove_file(parent, name, bytes);
    if (ec) return unless_missing(ec);
    std::vector<std::pair<std::string, EntryKind>> entries;
    ec = fs_.list(directory, [&](std::string_view entry, EntryKind kind) { entries.emplace_back(entry, kind); });
    for (const auto& [entry, kind] : entries) {
      if (ec) return ec;
      if (kind != EntryKind::directory) {
        ec = remove_file(directory, entry, bytes);
      } else if (depth > 0) {
        ec = remove_tree(directory, entry, bytes, depth - 1);
      }
    }
    return ec ? ec : unless_missing(fs_.remove_directory(parent, name));
  }

  std::error_code remove_file(const Directory& directory, const std::string& name, std::uint64_t bytes) {
    if (bytes > removal_step) shrink(directory, name);
    return unless_missing(fs_.remove_file(directory, name));
  }

  /// Does what it can: a file that cannot be cut down is unlinked as it is.
  void shrink(const Directory& directory, const std::string& name) {
    std::error_code ec;
    File file = fs_.open_file(directory, name, Access::write, ec);
    if (ec) return;
    const FileStatus status = fs_.status(file, ec);
    // Someone who made a hard link of it wants to keep the bytes.
    if (ec || status.links != 1) return;
    for (std::uint64_t size = status.size; size > removal_step && !ec;) {
      size -= removal_step;
      ec = fs_.truncate(file, size);
    }
  }

  F fs_;
  Durability durability_;
  std::atomic<bool> given_up_{false};
  File lock_;
  Directory chunks_, staging_, doomed_, trash_, quarantine_;
  detail::UnsyncedCount unsynced_{max_unsynced};
};

}  // namespace garner
