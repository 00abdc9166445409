// SPDX-License-Identifier: BSL-1.0
//
// Which volume of a store describes what is on which other one: kept, found and dropped with what they describe, and
// compared with that by each start. The files themselves are in store_descriptions.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/store_descriptions.hpp"
#include "garner/storage/store_volume.hpp"

namespace garner::detail {

/// Does nothing where there is one volume. Thread-safe, if one generation's calls come one after another.
template <FileSystem F>
class VolumeDescriptions {
 public:
  using Volumes = std::vector<std::unique_ptr<Volume<F>>>;

  explicit VolumeDescriptions(const Volumes& volumes) : volumes_(volumes) {}

  /// Has what is on a volume described by the next one that takes it. Where none does, it is not described.
  void keep(const Generation& generation) const {
    const auto home = volumes_.size() > 1 ? volumes_[generation.volume]->store() : nullptr;
    std::error_code ec;
    const std::string text = home ? home->descriptor_text(generation, ec) : std::string();
    if (!home || ec) return;
    for (std::size_t step = 1; step < volumes_.size(); ++step) {
      const Volume<F>& volume = *volumes_[(generation.volume + step) % volumes_.size()];
      const auto store = volume.store();
      if (!store || volume.state() != VolumeState::healthy) continue;
      if (!StoreDescriptions<F>(*store->root_handle()).write(generation, text)) return;
    }
  }

  /// Before what it describes goes: a start without that one's volume would want it back. Where a volume is away or
  /// refuses changes, its description stays until a start at which all are there.
  std::error_code drop(const Generation& generation) const {
    std::error_code first;
    for (std::size_t index = 0; volumes_.size() > 1 && index < volumes_.size(); ++index) {
      const auto store = volumes_[index]->store();
      if (!store || index == generation.volume || volumes_[index]->state() != VolumeState::healthy) continue;
      const std::error_code ec = StoreDescriptions<F>(*store->root_handle()).remove(generation);
      if (!first) first = ec;
    }
    return first;
  }

  /// With `errc::no_such_generation` where nobody describes it.
  DataChunk find(const Generation& generation, std::error_code& ec) const {
    ec = errc::no_such_generation;
    for (std::size_t index = 0; volumes_.size() > 1 && index < volumes_.size(); ++index) {
      const auto store = volumes_[index]->store();
      if (!store) continue;
      std::error_code one;
      DataChunk chunk = StoreDescriptions<F>(*store->root_handle()).read(generation, one);
      if (!one) {
        ec.clear();
        return chunk;
      }
      if (one != errc::no_such_generation) ec = one;
    }
    return {};
  }

  /// A start has found `held`. Where volumes are away: calls `found` for what is described and not on any of the
  /// others. Where none is: what is described and not there, and what is there and not described, is for `clean_up`.
  void compare(const std::vector<Generation>& held, const std::function<void(const Generation&)>& found) {
    if (volumes_.size() < 2) return;
    const std::unordered_set<Generation, Hash> all = without_volumes(held);
    std::unordered_set<Generation, Hash> described;
    for (const auto& volume : volumes_) {
      const auto store = volume->store();
      if (!store) continue;
      StoreDescriptions<F>(*store->root_handle()).list([&](const Generation& generation) {
        described.insert(generation);
      });
    }
    const std::optional<std::uint32_t> away = first_away();
    for (Generation generation : described) {
      if (all.contains(generation)) continue;
      if (!away) {
        orphans_.push_back(generation);
      } else if (!is_on_any(generation)) {
        generation.volume = *away;
        found(generation);
      }
    }
    for (const Generation& generation : held) {
      Generation anywhere = generation;
      anywhere.volume = 0;
      if (!away && !described.contains(anywhere)) undescribed_.push_back(generation);
    }
  }

  /// What `compare` has left, as far as that is possible.
  void clean_up() {
    std::vector<Generation> orphans;
    std::vector<Generation> undescribed;
    {
      const std::lock_guard lock(mutex_);
      orphans.swap(orphans_);
      undescribed.swap(undescribed_);
    }
    for (const Generation& generation : orphans) {
      for (const auto& volume : volumes_) {
        if (const auto store = volume->store()) StoreDescriptions<F>(*store->root_handle()).remove(generation);
      }
    }
    for (const Generation& generation : undescribed) keep(generation);
  }

 private:
  struct Hash {
    std::size_t operator()(const Generation& generation) const noexcept {
      return std::hash<ChunkId>()(generation.id) ^ static_cast<std::size_t>(generation.number);
    }
  };

  static std::unordered_set<Generation, Hash> without_volumes(const std::vector<Generation>& held) {
    std::unordered_set<Generation, Hash> out;
    out.reserve(held.size());
    for (Generation generation : held) {
      generation.volume = 0;
      out.insert(generation);
    }
    return out;
  }

  [[nodiscard]] std::optional<std::uint32_t> first_away() const {
    for (std::uint32_t index = 0; index < volumes_.size(); ++index) {
      if (!volumes_[index]->store()) return index;
    }
    return std::nullopt;
  }

  /// Though doomed, and so not found.
  [[nodiscard]] bool is_on_any(const Generation& generation) const {
    for (const auto& volume : volumes_) {
      const auto store = volume->store();
      if (store && store->holds(generation)) return true;
    }
    return false;
  }

  const Volumes& volumes_;
  std::mutex mutex_;  ///< guards the next two
  std::vector<Generation> orphans_;
  std::vector<Generation> undescribed_;
};

}  // namespace garner::detail
