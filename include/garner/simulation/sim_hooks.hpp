// SPDX-License-Identifier: BSL-1.0
//
// What a simulated file system asks of the world around it: before each operation, whether and how it fails. The
// file system is in sim_file_system.hpp; what a world answers is the world's.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/simulation/sim_disk.hpp"

namespace garner {

enum class SimOperation : std::uint8_t {
  open_directory,
  make_directory,
  list,
  create_file,
  open_file,
  status,
  read,
  write,
  reserve,
  truncate,
  sync_file,
  sync_directory,
  close,
  rename,
  remove_file,
  remove_directory,
  lock,
  free_space,
};

constexpr std::string_view to_string(SimOperation operation) noexcept {
  switch (operation) {
    case SimOperation::open_directory: return "open_directory";
    case SimOperation::make_directory: return "make_directory";
    case SimOperation::list: return "list";
    case SimOperation::create_file: return "create_file";
    case SimOperation::open_file: return "open_file";
    case SimOperation::status: return "status";
    case SimOperation::read: return "read";
    case SimOperation::write: return "write";
    case SimOperation::reserve: return "reserve";
    case SimOperation::truncate: return "truncate";
    case SimOperation::sync_file: return "sync_file";
    case SimOperation::sync_directory: return "sync_directory";
    case SimOperation::close: return "close";
    case SimOperation::rename: return "rename";
    case SimOperation::remove_file: return "remove_file";
    case SimOperation::remove_directory: return "remove_directory";
    case SimOperation::lock: return "lock";
    case SimOperation::free_space: return "free_space";
  }
  return "unknown";
}

/// One operation, as the world is asked about it. Valid while it is.
struct SimCall {
  SimOperation operation;
  std::uint64_t bytes;  ///< of a read or a write; of a truncation or a reservation the size that is asked for
  bool may_switch;      ///< no task that was run now would wait for what this one holds

  /// Of what it is about, of a rename the old name; relative to the root. Built when it is asked for.
  [[nodiscard]] std::string path() const { return disk.path_of(node, name); }
  /// Of a rename; else empty.
  [[nodiscard]] std::string new_path() const {
    return new_name.empty() ? std::string() : disk.path_of(new_node, new_name);
  }

  const SimDisk& disk;
  detail::SimNode node;
  std::string_view name;
  detail::SimNode new_node;
  std::string_view new_name;
};

/// What the world does to an operation. By default nothing.
struct SimFault {
  std::error_code error;      ///< instead of it. A sync's is always told as `errc::sync_failed`, and means that
                              ///< what was dirty is lost
  std::uint64_t written = 0;  ///< with an error of a write: bytes that are written before it
  bool ignored = false;       ///< a sync that does nothing and says that it has: a disk that lies
  /// A write goes over this file instead, where there is one, and says that it has gone where it should.
  std::optional<std::string> misdirected = std::nullopt;
};

/// The world around file systems. `before` may run other tasks, on the same file systems too (their operations
/// are asked about in their turn), may take its time, and may end a disk (`SimDisk::crash`, `kill`), after which
/// the operation fails. It does not throw.
class SimHooks {
 public:
  SimHooks() = default;
  SimHooks(const SimHooks&) = delete;
  SimHooks& operator=(const SimHooks&) = delete;
  virtual ~SimHooks() = default;

  virtual SimFault before(const SimCall& call) = 0;
};

/// A lock that is held across operations. While any is held (by this thread), no other task may be run: it could
/// wait for it and would never get it.
class SimMutex {
 public:
  void lock() {
    mutex_.lock();
    ++held;
  }
  void unlock() {
    --held;
    mutex_.unlock();
  }
  [[nodiscard]] static bool any_held() noexcept { return held != 0; }

 private:
  static inline thread_local unsigned held = 0;
  std::mutex mutex_;
};

}  // namespace garner
