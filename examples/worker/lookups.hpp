// SPDX-License-Identifier: BSL-1.0
//
// Threads that look up random blocks all the time, as queries would, time each lookup, and check each answer.
#pragma once

#include <garner/chunk.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "histogram.hpp"
#include "service.hpp"

namespace worker {

struct LookupReport {
  Histogram nanoseconds;    ///< of `find_chunk` and the drop of its pin
  std::uint64_t found = 0;  ///< of all lookups, those that found a chunk
  std::uint64_t wrong = 0;  ///< answers that must not be: another dataset or block, or a chunk after its deletion

  void merge(const LookupReport& other) noexcept {
    nanoseconds.merge(other.nanoseconds);
    found += other.found;
    wrong += other.wrong;
  }
};

class Lookups {
 public:
  /// Starts `threads` threads that look up blocks of `chunks`. `manager` outlives this.
  Lookups(const Service::Manager& manager, const std::vector<NamedChunk>& chunks, unsigned threads, std::uint64_t seed);
  Lookups(const Lookups&) = delete;
  Lookups& operator=(const Lookups&) = delete;
  ~Lookups() { stop(); }

  /// To be called after `delete_chunk` has returned: from now on no lookup may find the chunk.
  void expect_deleted(const garner::ChunkId& id);
  /// To be called before `download_chunk`: the chunk may be found again.
  void expect_any(const garner::ChunkId& id);

  /// Lookups so far.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  /// Ends the threads. What they saw; the same for each call.
  const LookupReport& stop();

 private:
  struct Target {
    garner::DatasetId dataset;
    garner::BlockRange blocks;
    std::atomic<std::uint32_t> changes = 0;  ///< odd while the chunk must not be found
  };

  LookupReport run(std::uint64_t seed);
  /// Whether nothing could have made the chunk be found, if `before` are all targets' changes before the
  /// lookup.
  [[nodiscard]] bool is_forbidden(const garner::ChunkId& id, const std::vector<std::uint32_t>& before) const;

  const Service::Manager& manager_;
  std::vector<std::unique_ptr<Target>> targets_;
  std::unordered_map<garner::ChunkId, std::size_t> places_;  ///< in `targets_`
  std::atomic<bool> stopping_ = false;
  std::atomic<std::uint64_t> count_ = 0;
  std::vector<LookupReport> reports_;  ///< one a thread
  std::vector<std::thread> threads_;
  LookupReport total_;
};

}  // namespace worker
