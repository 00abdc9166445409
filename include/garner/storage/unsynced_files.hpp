// SPDX-License-Identifier: BSL-1.0
//
// Files that are whole and not durable yet: they stay open, each through the descriptor that wrote it, until they are
// synced together. Small ones only, and not many: they hold descriptors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "garner/storage/file_system.hpp"

namespace garner::detail {

/// How many descriptors are held for files that wait to be synced. Thread-safe.
class UnsyncedCount {
 public:
  explicit UnsyncedCount(std::size_t most) : most_(most) {}

  /// False where there are enough.
  bool add() noexcept {
    std::size_t count = count_.load(std::memory_order_relaxed);
    do {
      if (count >= most_) return false;
    } while (!count_.compare_exchange_weak(count, count + 1, std::memory_order_relaxed));
    return true;
  }
  void subtract(std::size_t count) noexcept { count_.fetch_sub(count, std::memory_order_relaxed); }

 private:
  const std::size_t most_;
  std::atomic<std::size_t> count_{0};
};

/// Those of one staging area, by name. Thread-safe. Destroyed, it closes them.
template <FileSystem F>
class UnsyncedFiles {
 public:
  /// From this size on a file is worth a sync of its own, as soon as it is there.
  static constexpr std::uint64_t large = std::uint64_t{256} << 10;

  UnsyncedFiles() = default;
  UnsyncedFiles(const UnsyncedFiles&) = delete;
  UnsyncedFiles& operator=(const UnsyncedFiles&) = delete;
  ~UnsyncedFiles() {
    if (count_ != nullptr) count_->subtract(counted_);
  }

  /// Takes `file`, of `size` bytes, if it may wait.
  bool offer(const std::string& name, std::uint64_t size, typename F::File& file, UnsyncedCount& count) {
    if (size >= large || !count.add()) return false;
    const std::lock_guard lock(mutex_);
    count_ = &count;
    ++counted_;
    files_.insert_or_assign(name, std::move(file));
    return true;
  }

  /// Takes one that waits in any case.
  void put(const std::string& name, typename F::File file) {
    const std::lock_guard lock(mutex_);
    files_.insert_or_assign(name, std::move(file));
  }

  /// It is not to be synced any more.
  void drop(const std::string& name) {
    const std::lock_guard lock(mutex_);
    files_.erase(name);
  }

  /// All of them, in the order of their names.
  std::vector<typename F::File> take() {
    const std::lock_guard lock(mutex_);
    std::vector<typename F::File> out;
    out.reserve(files_.size());
    for (auto& [name, file] : files_) out.push_back(std::move(file));
    files_.clear();
    if (count_ != nullptr) count_->subtract(std::exchange(counted_, 0));
    return out;
  }

 private:
  std::mutex mutex_;  ///< guards the rest; held across no operation but a close
  std::map<std::string, typename F::File> files_;
  UnsyncedCount* count_ = nullptr;
  std::size_t counted_ = 0;  ///< there
};

}  // namespace garner::detail
