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
 public:
  explicit Listing(std::shared_ptr<PinHost<S>> host) : host_(std::move(host)) {}

  void list(const Generation& generation, std::uint64_t asked) {
    Record& record = records_[generation];
    std::shared_ptr<const Pinned<S>> pin = record.pin.lock();
    // Of a generation that is taken back the old pins may be gone, with the report of it on its way: that
    // report is then of another serial, and not current.
    if (!pin) pin = std::make_shared<const Pinned<S>>(generation, ++record.serial, host_);
    record.pin = pin;
    pin->listed();
    record.key = index_.insert(generation.dataset_id, generation.block_range, asked, ListedPtr(pin.get()));
    changed_ = true;
  }

  void unlist(const Generation& generation) {
    index_.erase(records_.at(generation).key);
    changed_ = true;
  }

  /// It is corrupt: whoever has a pin on it can see that from now on.
  void condemn(const Generation& generation) {
    const auto it = records_.find(generation);
    if (it == records_.end()) return;
    // It may turn out to be the last one, which must not be dropped here: it reports that.
    if (std::shared_ptr<const Pinned<S>> pin = it->second.pin.lock()) {
      pin->condemn();
      condemned_.push_back(std::move(pin));
    }
  }

  /// The generation is gone.
  void forget(const Generation& generation) { records_.erase(generation); }

  /// Lets readers see what has changed, and appends to `garbage` what none of them can see any more. To be
  /// destroyed outside of every lock: among it are pins.
  void publish(std::vector<core::Epochs::Garbage>& garbage) {
    if (std::exchange(changed_, false)) index_.publish();
    index_.collect(garbage);
    garbage.insert(garbage.end(), condemned_.begin(), condemned_.end());
    condemned_.clear();
  }

  /// Whether readers are still inside what was replaced.
  [[nodiscard]] bool pending() const noexcept { return index_.pending(); }

  /// Whether `serial` is the last listing of this generation.
  [[nodiscard]] bool is_current(const Generation& generation, std::uint64_t serial) const {
    const auto it = records_.find(generation);
    return it != records_.end() && it->second.serial == serial;
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
    index_.visit_all([&out](const Listed& listed) { out.push_back(listed.generation().id); });
    return out;
  }

  [[nodiscard]] std::vector<ChunkId> sorted_ids() const {
    std::vector<ChunkId> out = ids();
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  using Listed = const Pinned<S>;
  using Index = core::ChunkIndex<Listed, Unlist<S>>;
  using ListedPtr = typename Index::ValuePtr;
  struct Record {
    typename Index::Key key;
    std::weak_ptr<const Pinned<S>> pin;
    std::uint64_t serial = 0;
  };

  std::shared_ptr<PinHost<S>> host_;
  PinSlots& slots_ = host_->slots();
  Index index_;
  /// By all that names a generation: in a directory that somebody put together, a number alone may stand for several.
  struct Hash {
    std::size_t operator()(const Generation& generation) const noexcept {
      return std::hash<ChunkId>()(generation.id) ^ static_cast<std::size_t>(generation.number);
    }
  };

  std::unordered_map<Generation, Record, Hash> records_;
  std::vector<core::Epochs::Garbage> condemned_;
  bool changed_ = false;
};

}  // namespace garner::detail
