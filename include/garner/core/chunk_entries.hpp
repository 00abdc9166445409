// SPDX-License-Identifier: BSL-1.0
//
// All chunks that anything is known of. Most of them are at rest, which takes little room; the others have an entry.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/id_table.hpp"
#include "garner/served.hpp"

namespace garner::core {

/// A chunk is at rest where the copy that is served is all there is to be known. What is known of it stands in the
/// object that serves it, and it has no entry until it is woken.
class ChunkEntries {
 public:
  ChunkEntries() = default;
  ChunkEntries(const ChunkEntries&) = delete;
  ChunkEntries& operator=(const ChunkEntries&) = delete;
  ~ChunkEntries() {
    visit([](ChunkEntry& entry) { delete &entry; });
  }

  /// What serves it, where it is at rest.
  [[nodiscard]] detail::Served* resting(const ChunkId& id) const noexcept { return resting_.find(id); }
  /// Its entry, where it is not.
  [[nodiscard]] ChunkEntry* find(const ChunkId& id) const noexcept { return awake_.find(id); }
  [[nodiscard]] ChunkEntry& at(const ChunkId& id) const noexcept { return *awake_.find(id); }

  [[nodiscard]] bool is_wanted(const ChunkId& id) const noexcept {
    const ChunkEntry* entry = find(id);
    return entry != nullptr ? entry->wanted : resting(id) != nullptr;
  }

  /// Its entry, an empty one where nothing was known. It stays where it is until it is settled.
  ChunkEntry& wake(const ChunkId& id) {
    if (ChunkEntry* entry = awake_.find(id)) return *entry;
    auto entry = std::make_unique<ChunkEntry>(id);
    if (detail::Served* served = resting_.find(id)) entry->take(*served);
    awake_.insert(*entry);
    resting_.take(id);
    return *entry.release();
  }

  /// Where there is no more to be known of it than what serves it tells, or nothing: it is an entry no more.
  void settle(ChunkEntry& entry) {
    if (entry.empty()) return erase(entry);
    if (!entry.at_rest()) return;
    detail::Served& served = entry.give();
    resting_.insert(served);
    erase(entry);
  }

  /// Calls `see(entry)` for each of those that are not at rest, and `see(served)` for each of the others. It changes
  /// none.
  template <class See>
  void visit(See&& see) const {
    awake_.visit(see);
  }
  template <class See>
  void visit_resting(See&& see) const {
    resting_.visit(see);
  }

 private:
  void erase(ChunkEntry& entry) { const std::unique_ptr<ChunkEntry> erased(awake_.take(entry.id)); }

  IdTable<detail::Served> resting_;
  IdTable<ChunkEntry> awake_;
};

}  // namespace garner::core
