// SPDX-License-Identifier: BSL-1.0
//
// SipHash-2-4 of 128 bits: a hash that nobody can make two texts collide in who does not know its key. For what stays
// in this process; names and files are digested by SHA-256.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>

namespace garner::detail {

/// Aumasson, Bernstein: "SipHash: a fast short-input PRF" (2012), with the output of 128 bits of their reference code.
/// Of bytes given in one or more pieces; results are the same on every machine.
class KeyedHash {
 public:
  using Key = std::array<std::uint64_t, 2>;
  using Result = std::array<std::uint8_t, 16>;

  constexpr explicit KeyedHash(const Key& key) noexcept
      : v0_(key[0] ^ 0x736f6d6570736575U),
        v1_(key[1] ^ 0x646f72616e646f6dU ^ 0xee),
        v2_(key[0] ^ 0x6c7967656e657261U),
        v3_(key[1] ^ 0x7465646279746573U) {}

  /// Of this process: random, and the same from the first call on.
  static const Key& process_key() {
    static const Key key = [] {
      std::random_device device;
      const auto word = [&device] { return (std::uint64_t{device()} << 32) | device(); };
      const std::uint64_t first = word();
      return Key{first, word()};
    }();
    return key;
  }

  constexpr void update(std::string_view text) noexcept {
    length_ += text.size();
    if (used_ != 0) {
      const std::size_t more = std::min(text.size(), 8 - used_);
      take(text.substr(0, more));
      text.remove_prefix(more);
    }
    while (text.size() >= 8) {
      mix(word_of(text.substr(0, 8)));
      text.remove_prefix(8);
    }
    take(text);
  }

  /// Its eight bytes, the lowest first.
  constexpr void update(std::uint64_t number) noexcept {
    length_ += 8;
    if (used_ == 0) return mix(number);
    mix(partial_ | (number << (8 * used_)));
    partial_ = number >> (64 - 8 * used_);
  }

  [[nodiscard]] constexpr Result finish() noexcept {
    mix(partial_ | (length_ << 56));
    v2_ ^= 0xee;
    for (int i = 0; i < 4; ++i) round();
    const std::uint64_t low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < 4; ++i) round();
    const std::uint64_t high = v0_ ^ v1_ ^ v2_ ^ v3_;
    Result out{};
    for (std::size_t i = 0; i < 8; ++i) {
      out[i] = static_cast<std::uint8_t>(low >> (8 * i));
      out[i + 8] = static_cast<std::uint8_t>(high >> (8 * i));
    }
    return out;
  }

 private:
  /// Of up to eight bytes, the first the lowest.
  static constexpr std::uint64_t word_of(std::string_view bytes) noexcept {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      word |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
    }
    return word;
  }

  /// No more than what is missing to a word.
  constexpr void take(std::string_view bytes) noexcept {
    if (bytes.empty()) return;
    partial_ |= word_of(bytes) << (8 * used_);
    used_ += bytes.size();
    if (used_ < 8) return;
    mix(partial_);
    partial_ = used_ = 0;
  }

  constexpr void mix(std::uint64_t word) noexcept {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }

  constexpr void round() noexcept {
    v0_ += v1_, v1_ = std::rotl(v1_, 13), v1_ ^= v0_, v0_ = std::rotl(v0_, 32);
    v2_ += v3_, v3_ = std::rotl(v3_, 16), v3_ ^= v2_;
    v0_ += v3_, v3_ = std::rotl(v3_, 21), v3_ ^= v0_;
    v2_ += v1_, v1_ = std::rotl(v1_, 17), v1_ ^= v2_, v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t partial_ = 0;  // of the word that is not full yet
  std::size_t used_ = 0;       // bytes of it
  std::uint64_t length_ = 0;
};

}  // namespace garner::detail
