// SPDX-License-Identifier: BSL-1.0
//
// The bytes that the embedded origin serves: made from a seed when they are asked for, the same ones each
// time, from any offset on. Also the digests of such bytes and of files.
#pragma once

#include <garner/chunk.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

namespace worker {

/// A file that is never stored: `size` bytes that follow from `seed`.
struct Content {
  std::uint64_t seed = 0;
  std::uint64_t size = 0;

  /// Writes the bytes from `offset` on into `out`. `offset + out.size()` is at most `size`.
  void fill(std::uint64_t offset, std::span<char> out) const noexcept;
  /// The SHA-256 of all bytes.
  [[nodiscard]] garner::Digest digest() const;
};

/// A number that follows from `seed` and `text`; other text, another number.
std::uint64_t mix(std::uint64_t seed, std::string_view text) noexcept;
/// A number that follows from `value`, with all its bits mixed (splitmix64).
std::uint64_t mix(std::uint64_t value) noexcept;

/// The SHA-256 of a file's bytes, or nothing where it cannot be read. `size` is set to how many there were.
std::optional<garner::Digest> digest_file(const std::filesystem::path& file, std::uint64_t& size);

}  // namespace worker
