// SPDX-License-Identifier: BSL-1.0
//
// What a MemoryStorage keeps its chunks in, as a data directory keeps those of the other storage. Data alone: what is
// done with it is in memory_storage.hpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "garner/chunk.hpp"

namespace garner {

/// A published generation's files. Immutable; lives as long as anyone holds it.
struct MemoryChunk {
  std::map<std::string, std::vector<std::byte>> files;  ///< file name -> its bytes
};

/// What a data directory is to the other storage: it outlives the store, and one store at a time uses it. Opaque.
class MemoryDisk {
 public:
  /// `capacity`: bytes, of published and staged files together; more is `errc::no_space`.
  explicit MemoryDisk(std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max()) : capacity_(capacity) {}

 private:
  friend class MemoryStorage;

  struct StagedBytes {
    std::vector<std::byte> bytes;
    FileSource asked;
    std::string origin;          ///< of the last checkpoint
    std::size_t checkpoint = 0;  ///< bytes
    bool finished = false;
  };
  struct Staged {
    DataChunk chunk;
    bool is_partial = false;  ///< of an earlier store
    std::map<std::string, std::shared_ptr<StagedBytes>> files;
  };
  struct Held {
    DataChunk described;
    std::shared_ptr<MemoryChunk> chunk;
    std::map<std::string, std::uint64_t> checksums;
  };

  /// False where there is no room.
  bool take(std::uint64_t bytes) noexcept {
    std::uint64_t used = used_.load();
    do {
      if (bytes > capacity_ - used) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return true;
  }
  void give_back(std::uint64_t bytes) noexcept { used_ -= bytes; }

  const std::uint64_t capacity_;
  std::atomic<std::uint64_t> used_{0};
  std::mutex mutex_;                        ///< guards all below, but for the bytes of staged files
  std::map<std::uint64_t, Staged> staged_;  ///< generation number -> what it has so far
  std::map<std::uint64_t, Held> held_;      ///< likewise
  std::uint64_t held_bytes_ = 0;            ///< of their files
  std::set<std::uint64_t> doomed_;          ///< generation numbers
  bool in_use_ = false;
};

}  // namespace garner
