// SPDX-License-Identifier: BSL-1.0
//
// ChunkId and DatasetId: 32 bytes each, two types that do not mix. Also the SHA-256 that turns a lake's text
// ids into them; it stands here, and not in libcrypto, because what includes this builds with the standard
// library alone.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "garner/error.hpp"

namespace garner {

namespace detail {

/// SHA-256 (FIPS 180-4) of bytes given in one or more pieces. For names and fingerprints, tens of bytes at a
/// time; files are digested by libcrypto in `storage/`.
class Sha256 {
 public:
  using Result = std::array<std::uint8_t, 32>;

  constexpr void update(std::string_view text) noexcept {
    for (const char c : text) {
      block_[used_++] = static_cast<std::uint8_t>(c);
      if (used_ == block_.size()) flush();
    }
    length_ += text.size();
  }

  constexpr void update(std::uint64_t number) noexcept {
    for (int shift = 56; shift >= 0; shift -= 8) {
      const char byte = static_cast<char>(static_cast<std::uint8_t>(number >> shift));
      update(std::string_view(&byte, 1));
    }
  }

  [[nodiscard]] constexpr Result finish() noexcept {
    const std::uint64_t bits = length_ * 8;
    update(std::string_view("\x80", 1));
    while (used_ != 56) update(std::string_view("\0", 1));
    update(bits);
    Result out{};
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }
    return out;
  }

 private:
  static constexpr std::array<std::uint32_t, 64> k = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

  constexpr void flush() noexcept {
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 16; ++i) {
      w[i] = (std::uint32_t{block_[4 * i]} << 24) | (std::uint32_t{block_[4 * i + 1]} << 16) |
             (std::uint32_t{block_[4 * i + 2]} << 8) | std::uint32_t{block_[4 * i + 3]};
    }
    for (std::size_t i = 16; i < 64; ++i) {
      const std::uint32_t a = w[i - 15];
      const std::uint32_t b = w[i - 2];
      w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) + w[i - 7] +
             (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint32_t t1 =
          h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
      const std::uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> add = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state_[i] += add[i];
    used_ = 0;
  }

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_{};
  std::size_t used_ = 0;
  std::uint64_t length_ = 0;
};

inline constexpr std::uint8_t no_digit = 0xff;

/// The value of each character as a hexadecimal digit.
inline constexpr std::array<std::uint8_t, 256> hex_values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(no_digit);
  for (std::uint8_t i = 0; i < 10; ++i) values[std::size_t{'0'} + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i) {
    values[std::size_t{'a'} + i] = values[std::size_t{'A'} + i] = static_cast<std::uint8_t>(10 + i);
  }
  return values;
}();

/// Reads exactly `size` bytes of hexadecimal digits into `out`; false where there are more, fewer or others.
constexpr bool parse_hex(std::string_view hex, std::uint8_t* out, std::size_t size) noexcept {
  if (hex.size() != 2 * size) return false;
  // A start parses millions, and digits are so random that no branch on them is foretold.
  unsigned seen = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned high = hex_values[static_cast<unsigned char>(hex[2 * i])];
    const unsigned low = hex_values[static_cast<unsigned char>(hex[2 * i + 1])];
    seen |= high | low;
    out[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return seen < 16;
}

inline std::string format_hex(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out(2 * size, '0');
  for (std::size_t i = 0; i < size; ++i) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  return out;
}

}  // namespace detail

/// A 32-byte identifier; `Tag` makes ids of different things different types. A value: ordered by its bytes,
/// hashable with `std::hash`, formattable with fmt (`garner/format.hpp`) as 64 hexadecimal digits.
template <class Tag>
class BasicId {
 public:
  constexpr BasicId() noexcept = default;
  constexpr explicit BasicId(std::array<std::uint8_t, 32> bytes) noexcept : bytes_(bytes) {}

  /// The id that `hex`, 64 hexadecimal digits of either case, stands for. Throws `Error` with
  /// `errc::invalid_id`.
  static BasicId from_hex(std::string_view hex) {
    std::optional<BasicId> id = try_from_hex(hex);
    if (!id) throw Error(errc::invalid_id, std::string(hex.substr(0, 80)));
    return *id;
  }

  /// As `from_hex`, with nothing where that throws.
  static constexpr std::optional<BasicId> try_from_hex(std::string_view hex) noexcept {
    BasicId id;
    if (!detail::parse_hex(hex, id.bytes_.data(), id.bytes_.size())) return std::nullopt;
    return id;
  }

  /// SHA-256 of the bytes of `name`: for lakes whose ids are text.
  static constexpr BasicId from_name(std::string_view name) noexcept {
    detail::Sha256 hash;
    hash.update(name);
    return BasicId(hash.finish());
  }

  [[nodiscard]] std::string to_hex() const { return detail::format_hex(bytes_.data(), bytes_.size()); }
  [[nodiscard]] constexpr const std::array<std::uint8_t, 32>& bytes() const noexcept { return bytes_; }

  friend constexpr bool operator==(const BasicId&, const BasicId&) noexcept = default;
  friend constexpr auto operator<=>(const BasicId&, const BasicId&) noexcept = default;

 private:
  std::array<std::uint8_t, 32> bytes_{};
};

/// Names one immutable chunk of a data lake.
using ChunkId = BasicId<struct ChunkTag>;
/// Names one dataset, the space in which block numbers are counted.
using DatasetId = BasicId<struct DatasetTag>;

}  // namespace garner

/// Ids are digests or random, so any eight bytes of one are a hash. All four words are folded in all the
/// same: a lake may count its ids up in the last byte.
template <class Tag>
struct std::hash<garner::BasicId<Tag>> {
  std::size_t operator()(const garner::BasicId<Tag>& id) const noexcept {
    std::array<std::uint64_t, 4> words{};
    std::memcpy(words.data(), id.bytes().data(), sizeof(words));
    std::uint64_t mixed = 0;
    for (const std::uint64_t word : words) mixed = (std::rotl(mixed, 23) ^ word) * 0x9e3779b97f4a7c15U;
    return static_cast<std::size_t>(mixed ^ (mixed >> 32));
  }
};
