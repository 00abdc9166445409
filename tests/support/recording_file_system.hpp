// SPDX-License-Identifier: BSL-1.0
//
// A FileSystem that passes everything on to the real one, writes down what was asked of it in which order, and refuses
// what it is told to refuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/storage/posix_file_system.hpp"

namespace garner::test {

/// What was asked, one entry each: "rename staging/x -> chunks/y", "sync_file staging/x/a.bin". Thread-safe.
class Journal {
 public:
  /// Called before each operation with its entry; an error is returned to the caller in the operation's place.
  std::function<std::error_code(const std::string&)> refuse;
  std::string boot_id = "boot 1";

  std::error_code add(const std::string& entry) {
    const std::lock_guard lock(mutex_);
    entries_.push_back(entry);
    return refuse ? refuse(entry) : std::error_code();
  }

  /// What came since the last call.
  std::vector<std::string> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(entries_, {});
  }

  /// As `take`, only what begins with one of `verbs`.
  std::vector<std::string> take(std::initializer_list<std::string_view> verbs) {
    std::vector<std::string> out;
    for (std::string& entry : take()) {
      for (const std::string_view verb : verbs) {
        if (entry.starts_with(verb)) out.push_back(entry);
      }
    }
    return out;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> entries_;
};

class RecordingFileSystem {
 public:
  using Mutex = std::mutex;
  static constexpr bool concurrent = true;
  struct Directory {
    PosixFileSystem::Directory handle;  ///< of the root none: that is `fs_`'s own
    std::string path;                   ///< below the root, with a slash at its end; empty for the root
  };
  struct File {
    PosixFileSystem::File handle;
    std::string path;
  };

  RecordingFileSystem(PosixFileSystem fs, std::shared_ptr<Journal> journal)
      : fs_(std::move(fs)), journal_(std::move(journal)) {}

  [[nodiscard]] std::filesystem::path path() const { return fs_.path(); }
  [[nodiscard]] const Directory& root() const { return root_; }

  Directory open_directory(const Directory& dir, const std::string& name, std::error_code& ec) {
    Directory out{{}, dir.path + name + '/'};
    ec = journal_->add("open_directory " + dir.path + name);
    if (!ec) out.handle = fs_.open_directory(real(dir), name, ec);
    return out;
  }
  std::error_code make_directory(const Directory& dir, const std::string& name) {
    return then("make_directory " + dir.path + name, [&] { return fs_.make_directory(real(dir), name); });
  }
  std::error_code list(const Directory& dir, const EntryVisitor& visitor) {
    return then("list " + dir.path, [&] { return fs_.list(real(dir), visitor); });
  }
  File create_file(const Directory& dir, const std::string& name, std::error_code& ec) {
    File out{{}, dir.path + name};
    ec = journal_->add("create_file " + out.path);
    if (!ec) out.handle = fs_.create_file(real(dir), name, ec);
    return out;
  }
  File open_file(const Directory& dir, const std::string& name, Access access, std::error_code& ec) {
    File out{{}, dir.path + name};
    ec = journal_->add("open_file " + out.path);
    if (!ec) out.handle = fs_.open_file(real(dir), name, access, ec);
    return out;
  }
  FileStatus status(const File& file, std::error_code& ec) {
    ec = journal_->add("status " + file.path);
    return ec ? FileStatus() : fs_.status(file.handle, ec);
  }
  FileStatus status(const Directory& dir, const std::string& name, std::error_code& ec) {
    ec = journal_->add("status " + dir.path + name);
    return ec ? FileStatus() : fs_.status(real(dir), name, ec);
  }
  std::size_t read(const File& file, std::uint64_t at, std::span<std::byte> to, std::error_code& ec) {
    ec = journal_->add("read " + file.path);
    return ec ? 0 : fs_.read(file.handle, at, to, ec);
  }
  std::error_code write(const File& file, std::uint64_t at, std::span<const std::byte> bytes) {
    return then("write " + file.path, [&] { return fs_.write(file.handle, at, bytes); });
  }
  std::error_code reserve(const File& file, std::uint64_t size) {
    return then("reserve " + file.path + ' ' + std::to_string(size), [&] { return fs_.reserve(file.handle, size); });
  }
  std::error_code truncate(const File& file, std::uint64_t size) {
    return then("truncate " + file.path + ' ' + std::to_string(size), [&] { return fs_.truncate(file.handle, size); });
  }
  std::error_code sync_file(const File& file) {
    return then("sync_file " + file.path, [&] { return fs_.sync_file(file.handle); });
  }
  std::error_code sync_directory(const Directory& dir) {
    return then("sync_directory " + dir.path, [&] { return fs_.sync_directory(real(dir)); });
  }
  std::error_code close(File& file) {
    return then("close " + file.path, [&] { return fs_.close(file.handle); });
  }
  std::error_code rename(const Directory& from, const std::string& name, const Directory& to,
                         const std::string& new_name) {
    return then("rename " + from.path + name + " -> " + to.path + new_name,
                [&] { return fs_.rename(real(from), name, real(to), new_name); });
  }
  std::error_code remove_file(const Directory& dir, const std::string& name) {
    return then("remove_file " + dir.path + name, [&] { return fs_.remove_file(real(dir), name); });
  }
  std::error_code remove_directory(const Directory& dir, const std::string& name) {
    return then("remove_directory " + dir.path + name, [&] { return fs_.remove_directory(real(dir), name); });
  }
  std::error_code lock(const File& file) {
    return then("lock " + file.path, [&] { return fs_.lock(file.handle); });
  }
  std::uint64_t free_space(std::error_code& ec) const { return fs_.free_space(ec); }
  std::string boot_id() const { return journal_->boot_id; }

 private:
  template <class Operation>
  std::error_code then(const std::string& entry, Operation operation) {
    const std::error_code ec = journal_->add(entry);
    return ec ? ec : operation();
  }

  [[nodiscard]] const PosixFileSystem::Directory& real(const Directory& dir) const {
    return dir.path.empty() ? fs_.root() : dir.handle;
  }

  PosixFileSystem fs_;
  std::shared_ptr<Journal> journal_;
  Directory root_;
};

static_assert(FileSystem<RecordingFileSystem>);

}  // namespace garner::test
