// SPDX-License-Identifier: BSL-1.0
//
// The room that the options allow: what the store holds, what is reserved for what is being fetched, and whether more
// may be begun. Knows nothing of chunks.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "garner/policies/storage.hpp"
#include "garner/status.hpp"

namespace garner::core {

class Budget {
 public:
  /// Bytes of published generations, wanted or not, until they are gone. `sign`: +1 or -1.
  void hold(std::uint64_t bytes, int sign) noexcept { held_ += bytes * static_cast<std::uint64_t>(sign); }
  /// Bytes that will be held when what is being fetched is published.
  void reserve(std::uint64_t bytes, int sign) noexcept { reserved_ += bytes * static_cast<std::uint64_t>(sign); }

  /// What the store has just told. `staged`: bytes of what is being fetched that were written by then.
  void measured(const StoreUsage& usage, std::uint64_t staged) noexcept { free_ = sum(usage.bytes_free, staged); }

  /// Whether `bytes` more may be reserved.
  [[nodiscard]] bool fits(const Options& options, std::uint64_t bytes) const noexcept {
    const std::uint64_t reserved = sum(reserved_, bytes);
    if (sum(held_, reserved) > options.max_bytes) return false;
    return options.keep_free_bytes == 0 || (free_ && sum(reserved, options.keep_free_bytes) <= *free_);
  }

  [[nodiscard]] std::uint64_t reserved() const noexcept { return reserved_; }

 private:
  /// Sizes come from outside: they do not overflow here.
  static std::uint64_t sum(std::uint64_t a, std::uint64_t b) noexcept {
    return b > std::numeric_limits<std::uint64_t>::max() - a ? std::numeric_limits<std::uint64_t>::max() : a + b;
  }

  std::uint64_t held_ = 0;
  std::uint64_t reserved_ = 0;
  std::optional<std::uint64_t> free_;
};

}  // namespace garner::core
