// SPDX-License-Identifier: BSL-1.0
//
// What is served: the index of listed generations, and the pins that it hands out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/chunk_ref.hpp"
#include "garner/core/chunk_index.hpp"
#include "garner/policies/storage.hpp"

namespace garner::detail {

/// Thread-safety: `find`, `find_all` and `ids` from any thread, without a lock; all else from one thread at a
/// time.
template <Storage S>
class Listing {  // NOLINT(clang-analyzer-optin.performance.Padding): there is one
 private:
  using Listed = Pinned<S>;
  using Index = core::ChunkIndex<Listed, Unlist<S>>;

 public:
  using Garbage = typename Index::Garbage;

  explicit Listing(std::shared_ptr<PinHost<S>> host) : host_(std::move(host)) {}

  /// What serves it from now on.
  Served& list(const Generation& generation, std::uint64_t asked) {
    Pinned<S>* pinned = nullptr;
    // Of a generation that is taken back the old pins may be gone, with the report of it on its way: that
    // report is then not current.
    const auto known = unlisted_.find(generation);
    if (known != unlisted_.end() && known->second->try_share()) pinned = known->second;
    const std::unique_ptr<const Pinned<S>, Release> shared(pinned);
    Home& home = homes_[generation.dataset_id];
    if (++home.listed == 1) home.shared.reset(new PinHome<S>(generation.dataset_id, host_));
    if (pinned == nullptr) pinned = new Pinned<S>(generation, *home.shared);
    pinned->listed();
    if (known != unlisted_.end()) unlisted_.erase(known);
    index_.insert(generation.dataset_id, generation.block_range, asked, ListedPtr(pinned));
    changed_ = true;
    return *pinned;
  }

  /// `asked` is that of its `list`.
  void unlist(const Generation& generation, std::uint64_t asked) {
    const auto key = index_.key_of(generation.dataset_id, generation.block_range, asked);
    unlisted_.insert_or_assign(generation, &index_.erase(key));
    changed_ = true;
    const auto home = homes_.find(generation.dataset_id);
    if (--home->second.listed == 0) homes_.erase(home);  // pins have it yet
  }

  /// It is corrupt, and was unlisted: whoever has a pin on it can see that from now on.
  void condemn(const Generation& generation) {
    if (const auto it = unlisted_.find(generation); it != unlisted_.end()) it->second->condemn();
  }

  /// Lets readers see what has changed, and appends to `garbage` what none of them can see any more. To be
  /// destroyed outside of every lock: among it are pins.
  void publish(std::vector<Garbage>& garbage) {
    if (std::exchange(changed_, false)) index_.publish();
    index_.collect(garbage);
  }

  /// Whether readers are still inside what was replaced.
  [[nodiscard]] bool pending() const noexcept { return index_.pending(); }

  /// What is pinned no more: true where that is the last listing of this generation, and over. Called before `pinned`
  /// is freed.
  bool forget(const Generation& generation, const void* pinned) {
    const auto it = unlisted_.find(generation);
    if (it == unlisted_.end() || it->second != pinned) return false;
    unlisted_.erase(it);
    return true;
  }

  // ---- readers

  [[nodiscard]] std::optional<DataChunkRef<S>> find(const DatasetId& dataset, BlockNumber block) const {
    return index_.find(dataset, block, [this](const Listed& listed) { return DataChunkRef<S>(listed, slots_); });
  }

  [[nodiscard]] std::vector<DataChunkRef<S>> find_all(const DatasetId& dataset, const BlockRange& range) const {
    std::vector<DataChunkRef<S>> out;
    index_.visit(dataset, range, [&out, this](const Listed& listed) { out.emplace_back(listed, slots_); });
    return out;
  }

  [[nodiscard]] std::vector<ChunkId> ids() const {
    std::vector<ChunkId> out;
    index_.visit_all([&out](const Listed& listed) { out.push_back(listed.id); });
    return out;
  }

  [[nodiscard]] std::vector<ChunkId> sorted_ids() const {
    std::vector<ChunkId> out = ids();
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  using ListedPtr = typename Index::ValuePtr;

  /// By all that names a generation: in a directory that somebody put together, a number alone may stand for several.
  struct Hash {
    std::size_t operator()(const Generation& generation) const noexcept {
      return std::hash<ChunkId>()(generation.id) ^ static_cast<std::size_t>(generation.number);
    }
  };

  struct Home {
    std::unique_ptr<const PinHome<S>, Release> shared;
    std::size_t listed = 0;
  };

  std::shared_ptr<PinHost<S>> host_;
  PinSlots& slots_ = host_->slots();
  std::unordered_map<DatasetId, Home> homes_;  // of all that is listed
  Index index_;
  std::unordered_map<Generation, Listed*, Hash> unlisted_;  // until it is reported that no pin keeps them
  bool changed_ = false;
};

}  // namespace garner::detail
