// SPDX-License-Identifier: BSL-1.0
//
// Running counts over all chunks, so that telling the status costs the same at a million chunks as at one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "garner/core/budget.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/fetch_queue.hpp"
#include "garner/core/hosts.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// Each entry is counted before and after it changes, with `sign` -1 and +1.
class Tally {
 public:
  explicit Tally(Hosts& hosts) : missing_(hosts) {}

  void count(const ChunkEntry& entry, int sign) {
    if (entry.wanted) add(of(entry), sign);
    for (const Copy& copy : entry.copies) {
      if (copy.away) {
        add(counts_.away, sign);
        continue;
      }
      budget_.hold(copy.generation.bytes, sign);
      if (copy.listed) {
        bytes_ready_ += copy.generation.bytes * static_cast<std::uint64_t>(sign);
      } else if (!copy.unchecked) {
        add(copy.drained || copy.operation == Copy::Operation::remove ? counts_.removing : counts_.draining, sign);
      }
    }
    if (!entry.settled()) add(unsettled_, sign);
  }

  [[nodiscard]] bool settled() const noexcept { return unsettled_ == 0; }
  [[nodiscard]] bool any_ready() const noexcept { return counts_.ready > 0; }
  [[nodiscard]] FetchQueue& queue() noexcept { return missing_; }
  [[nodiscard]] const FetchQueue& queue() const noexcept { return missing_; }
  [[nodiscard]] Budget& budget() noexcept { return budget_; }
  [[nodiscard]] const Budget& budget() const noexcept { return budget_; }

  void fill(Status& status) const {
    status.ready = counts_.ready;
    status.queued = counts_.queued;
    status.downloading = counts_.downloading;
    status.waiting = counts_.waiting;
    status.parked = counts_.parked;
    status.checking = counts_.checking;
    status.draining = counts_.draining;
    status.removing = counts_.removing;
    status.away = counts_.away;
    status.bytes_ready = bytes_ready_;
    status.bytes_reserved = budget_.reserved();
  }

 private:
  static void add(std::size_t& count, int sign) { count += static_cast<std::size_t>(sign); }

  std::size_t& of(const ChunkEntry& entry) {
    switch (entry.state()) {
      case ChunkState::queued: return counts_.queued;
      case ChunkState::downloading:
      case ChunkState::publishing: return counts_.downloading;
      case ChunkState::waiting: return counts_.waiting;
      case ChunkState::parked: return counts_.parked;
      case ChunkState::checking: return counts_.checking;
      case ChunkState::ready:
      case ChunkState::draining:
      case ChunkState::removing: break;
    }
    return counts_.ready;
  }

  struct Counts {
    std::size_t ready = 0, queued = 0, downloading = 0, waiting = 0, parked = 0, checking = 0, draining = 0,
                removing = 0, away = 0;
  };
  Counts counts_;
  std::uint64_t bytes_ready_ = 0;
  std::size_t unsettled_ = 0;
  FetchQueue missing_;
  Budget budget_;
};

}  // namespace garner::core
