// SPDX-License-Identifier: BSL-1.0
//
// One generation that is served, as the state machine, the index and the pins share it: what it is, and what the state
// machine knows of a chunk of which nothing is to be done. Who owns it is in `chunk_ref.hpp`.
#pragma once

#include <cstdint>
#include <optional>

#include "garner/chunk.hpp"
#include "garner/policies/storage.hpp"

namespace garner::detail {

/// What all that is served of one dataset shares.
struct DatasetHome {
  const DatasetId dataset_id;
};

/// A million of these is what a filled worker mostly has in memory.
struct Served {
  /// `of` is of the generation's dataset, and stays where it is.
  Served(const Generation& generation, const DatasetHome& of) noexcept
      : id(generation.id),
        home(&of),
        block_range(generation.block_range),
        bytes(generation.bytes),
        number(generation.number),
        volume(generation.volume) {}
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  [[nodiscard]] Generation generation() const noexcept {
    return {id, home->dataset_id, block_range, bytes, number, volume};
  }

  /// Whether it is known to hold `wanted`.
  [[nodiscard]] bool holds(const ContentFingerprint& wanted,
                           const std::optional<std::uint64_t>& declared) const noexcept {
    return is_content_known && content == wanted && (!declared || *declared == bytes);
  }

  // For all to read.
  const ChunkId id;
  const DatasetHome* const home;
  const BlockRange block_range;
  const std::uint64_t bytes;
  const std::uint64_t number;

  // The state machine's alone.
  Served* next = nullptr;        ///< in its table
  std::uint64_t asked = 0;       ///< its place in the order of asking
  ContentFingerprint content{};  ///< where that is known

  const std::uint32_t volume;
  bool is_content_known = false;
  bool named = false;  ///< by the assignment that is being made

 protected:
  ~Served() = default;
};

}  // namespace garner::detail
