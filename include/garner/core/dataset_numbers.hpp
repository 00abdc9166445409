// SPDX-License-Identifier: BSL-1.0
//
// A small number for each dataset that an index has: readers look it up without a lock. Not what is indexed
// (`core/chunk_index.hpp`).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "garner/ids.hpp"

namespace garner::core {

/// Numbers are given once and never taken back.
/// Thread-safety: `find` from any thread inside of a guard of the `Epochs` that what `of` replaces is retired to; `of`
/// from one thread at a time.
class DatasetNumbers {
 private:
  struct Known {
    std::vector<std::uint64_t> prefixes;  // of the ids, in their order: most searches end with these
    std::vector<std::pair<DatasetId, std::uint32_t>> sorted;
  };

 public:
  /// What a reader may still be in.
  using Replaced = std::unique_ptr<const Known>;

  DatasetNumbers() = default;
  DatasetNumbers(const DatasetNumbers&) = delete;
  DatasetNumbers& operator=(const DatasetNumbers&) = delete;
  /// No reader may be inside.
  ~DatasetNumbers() { delete known_.load(); }

  [[nodiscard]] std::optional<std::uint32_t> find(const DatasetId& dataset) const {
    const Known* known = known_.load(std::memory_order_seq_cst);
    if (known == nullptr) return std::nullopt;
    const std::vector<std::uint64_t>& prefixes = known->prefixes;
    const std::uint64_t prefix = prefix_of(dataset);
    auto at = static_cast<std::size_t>(std::lower_bound(prefixes.begin(), prefixes.end(), prefix) - prefixes.begin());
    for (; at < prefixes.size() && prefixes[at] == prefix; ++at) {
      if (known->sorted[at].first == dataset) return known->sorted[at].second;
    }
    return std::nullopt;
  }

  /// Its number, the next one where it has none yet: then `retire(replaced)` is called, or nothing was replaced.
  template <class Retire>
  std::uint32_t of(const DatasetId& dataset, Retire&& retire) {
    if (const auto number = find(dataset)) return *number;
    auto grown = std::make_unique<Known>();
    Known* const old = known_.load();
    if (old != nullptr) grown->sorted = old->sorted;
    const auto number = static_cast<std::uint32_t>(grown->sorted.size());
    grown->sorted.emplace_back(dataset, number);
    std::sort(grown->sorted.begin(), grown->sorted.end());
    for (const auto& entry : grown->sorted) grown->prefixes.push_back(prefix_of(entry.first));
    known_.store(grown.release(), std::memory_order_seq_cst);
    if (old != nullptr) retire(Replaced(old));
    return number;
  }

 private:
  /// The first bytes of an id as a number, which orders as they do.
  static std::uint64_t prefix_of(const DatasetId& id) noexcept {
    std::uint64_t prefix = 0;
    for (std::size_t i = 0; i < sizeof(prefix); ++i) prefix = prefix << 8 | id.bytes()[i];
    return prefix;
  }

  std::atomic<Known*> known_{nullptr};
};

}  // namespace garner::core
