// SPDX-License-Identifier: BSL-1.0
//
// How a real file system is made to write down many small things at once. Each fsync by itself costs a commit of the
// journal and a flush of the device; one syncfs does both for all that there is, and fsyncs that run at the same time
// share them.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <system_error>

#include "garner/storage/sync_threads.hpp"

namespace garner::detail {

/// Bytes, of the whole machine, that the kernel has not written yet; the most there can be where it does not say.
inline std::uint64_t bytes_unwritten() noexcept {
  std::array<char, 4096> text{};
  const int fd = ::open("/proc/meminfo", O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return UINT64_MAX;
  const ssize_t size = ::read(fd, text.data(), text.size());
  ::close(fd);
  const std::string_view all(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  std::uint64_t sum = 0;
  for (const std::string_view name : {"\nDirty:", "\nWriteback:"}) {
    const std::size_t begin = all.find(name);
    const std::size_t number =
        begin == std::string_view::npos ? begin : all.find_first_not_of(' ', begin + name.size());
    std::uint64_t kilobytes = 0;
    if (number == std::string_view::npos ||
        std::from_chars(all.data() + number, all.data() + all.size(), kilobytes).ec != std::errc()) {
      return UINT64_MAX;
    }
    sum += kilobytes << 10;
  }
  return sum;
}

/// Thread-safe; one descriptor in one thread at a time.
class PosixSync {
 public:
  /// A syncfs writes down what strangers have written, too: only where that cannot be more than this.
  static constexpr std::uint64_t little_unwritten = std::uint64_t{256} << 20;

  explicit PosixSync(std::size_t max_threads, std::uint64_t max_unwritten = little_unwritten)
      : max_unwritten_(max_unwritten), threads_(max_threads) {}

  struct Item {
    int fd = -1;
    bool is_file = true;
    bool is_durable = false;  ///< afterwards
  };

  /// Makes each of `items`, files that were written through their descriptors and directories on the file system of
  /// `root`, durable, and tells of which that is certain. None of them is to be synced again.
  void run(int root, std::span<Item> items) {
    if (items.size() >= few && bytes_unwritten() <= max_unwritten_ && sync_all(root, items)) return;
    threads_.run(items.size(), [&](std::size_t i) { items[i].is_durable = ::fsync(items[i].fd) == 0; });
  }

 private:
  /// Fewer are synced one by one.
  static constexpr std::size_t few = 12;

  /// False where it failed, for whomever: then it is known of none, and an fsync of each tells, since a descriptor is
  /// told of each failure that came after it was opened, whoever else was told before. A syncfs by itself is no such
  /// proof: what it tells, it tells once, and perhaps to another. So afterwards each file is asked for its own bytes,
  /// which costs no flush when they are written (sync_file_range(2)). What it does not tell of, a lost directory or
  /// journal, the kernel answers by taking no more changes: then the rename that comes next fails.
  static bool sync_all(int root, std::span<Item> items) noexcept {
    if (::syncfs(root) != 0) return false;
    constexpr unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    for (Item& item : items) item.is_durable = !item.is_file || ::sync_file_range(item.fd, 0, 0, all) == 0;
    return true;
  }

  const std::uint64_t max_unwritten_;
  SyncThreads threads_;
};

}  // namespace garner::detail
