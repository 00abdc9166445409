// SPDX-License-Identifier: BSL-1.0
//
// One node of the index (`core/chunk_index.hpp`), a leaf or a branch: sorted slots. Not the tree that is made of them.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "garner/chunk.hpp"

namespace garner::core {

/// Names one entry of an index. `asked` is its own, and decides between ranges of one begin: the greatest wins.
struct IndexKey {
  std::uint32_t dataset = 0;
  BlockNumber begin = 0;
  std::uint64_t asked = 0;
  friend constexpr auto operator<=>(const IndexKey&, const IndexKey&) noexcept = default;
};

struct IndexPosition {
  std::uint32_t dataset = 0;
  BlockNumber block = 0;
  friend constexpr auto operator<=>(const IndexPosition&, const IndexPosition&) noexcept = default;
};

/// Sorted slots: of a leaf (level 0) the entries, of a branch its children, each with its first key. A reader goes
/// through the first cache lines of a node, and one of `slots`; the rest is the writer's.
///
/// Thread-safety: as an `int`. Owns nothing.
template <class T>
struct alignas(64) IndexNode {
  static constexpr std::uint64_t latest = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::size_t capacity = 32;

  union Below {
    IndexNode* node;
    T* value;
  };

  /// What a reader needs of a slot once it has found it, side by side.
  struct Slot {
    Below below{};
    BlockNumber end = 0;  // the greatest below it
  };

  struct Item {
    IndexKey key;
    IndexPosition end;
    Below below;
  };

  IndexNode(std::uint64_t made_in, std::size_t height) : level(static_cast<std::uint32_t>(height)), batch(made_in) {
    begins.fill(latest);
  }

  std::uint32_t level;
  std::uint32_t size = 0;
  std::array<BlockNumber, capacity> begins{};  // behind the last one: the greatest number
  std::array<Slot, capacity> slots{};
  std::array<std::uint32_t, capacity> datasets{};
  std::array<std::uint32_t, capacity> end_datasets{};
  std::array<std::uint64_t, capacity> asked{};
  std::uint64_t batch;  // made in; while that is unpublished, the node may be changed in place

  [[nodiscard]] IndexKey key(std::size_t at) const noexcept { return {datasets[at], begins[at], asked[at]}; }
  [[nodiscard]] IndexPosition end(std::size_t at) const noexcept { return {end_datasets[at], slots[at].end}; }
  [[nodiscard]] Item item(std::size_t at) const noexcept { return {key(at), end(at), slots[at].below}; }

  /// Begins to load what a search in it reads.
  void prefetch() const noexcept {
#if defined(__GNUC__)
    for (std::size_t byte = 0; byte < offsetof(IndexNode, slots); byte += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(this) + byte);
    }
#endif
  }

  /// How many slots have a key that is not after `key`.
  [[nodiscard]] std::size_t count_not_after(const IndexKey& key) const noexcept {
    std::size_t low = 0;
    std::size_t high = size;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (key < this->key(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  /// How many slots begin at or before `position`.
  [[nodiscard]] std::size_t count_not_after(const IndexPosition& position) const noexcept {
    if (datasets[0] != position.dataset || datasets[size - 1] != position.dataset) {
      return count_not_after(IndexKey{position.dataset, position.block, latest});
    }
    // Without a branch that could be foretold wrongly.
    static_assert(capacity == 32);
    std::size_t count = 0;
    for (std::size_t step = 16; step > 0; step /= 2) {
      count += begins[count + step - 1] <= position.block ? step : 0;
    }
    count += begins[count] <= position.block ? std::size_t{1} : 0;
    return std::min<std::size_t>(count, size);
  }

  [[nodiscard]] IndexPosition greatest_end() const noexcept {
    IndexPosition greatest = end(0);
    for (std::size_t i = 1; i < size; ++i) greatest = std::max(greatest, end(i));
    return greatest;
  }

  void set(std::size_t at, const Item& item) noexcept {
    begins[at] = item.key.begin;
    slots[at] = {item.below, item.end.block};
    datasets[at] = item.key.dataset;
    end_datasets[at] = item.end.dataset;
    asked[at] = item.key.asked;
  }

  /// There is room.
  void put(std::size_t at, const Item& item) noexcept {
    for (std::size_t i = size; i > at; --i) set(i, this->item(i - 1));
    set(at, item);
    ++size;
  }

  void take_out(std::size_t at) noexcept {
    for (std::size_t i = at; i + 1 < size; ++i) set(i, item(i + 1));
    shrink(size - 1);
  }

  void shrink(std::size_t to) noexcept {
    std::fill(begins.begin() + static_cast<std::ptrdiff_t>(to), begins.end(), latest);
    size = static_cast<std::uint32_t>(to);
  }
};

}  // namespace garner::core
