// SPDX-License-Identifier: BSL-1.0
//
// ChunkId and DatasetId, and the SHA-256 that makes ids of names, held against libcrypto's.
#include "garner/ids.hpp"

#include <doctest/doctest.h>
#include <openssl/sha.h>

#include <array>
#include <cstdint>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <type_traits>
#include <unordered_set>

using garner::ChunkId;
using garner::DatasetId;
using garner::errc;

namespace {

using Bytes = std::array<std::uint8_t, 32>;

Bytes sha256_by_libcrypto(const std::string& text) {
  Bytes out{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data());
  return out;
}

std::string random_text(std::mt19937_64& random, std::size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(static_cast<std::uint8_t>(random()));
  return text;
}

}  // namespace

TEST_CASE("an id of a name is the SHA-256 of its bytes, at every length around the block size") {
  std::mt19937_64 random(1);
  for (std::size_t size = 0; size <= 260; ++size) {
    const std::string text = random_text(random, size);
    CAPTURE(size);
    CHECK(ChunkId::from_name(text).bytes() == sha256_by_libcrypto(text));
  }
}

TEST_CASE("an id of a name is the SHA-256 of its bytes, at random lengths") {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(random, random() % 5000);
    CAPTURE(text.size());
    CHECK(DatasetId::from_name(text).bytes() == sha256_by_libcrypto(text));
  }
}

TEST_CASE("SHA-256 does not depend on how its input is cut") {
  std::mt19937_64 random(3);
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_text(random, random() % 700);
    garner::detail::Sha256 hash;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t count = random() % 130;
      hash.update(std::string_view(text).substr(at, count));
      at += count;
    }
    CHECK(hash.finish() == sha256_by_libcrypto(text));
  }
}

TEST_CASE("a number is hashed as its eight bytes, the highest first") {
  garner::detail::Sha256 hash;
  hash.update(std::uint64_t{0x0102030405060780});
  CHECK(hash.finish() == sha256_by_libcrypto("\x01\x02\x03\x04\x05\x06\x07\x80"));
}

TEST_CASE("ids can be made at compile time") {
  constexpr ChunkId id = ChunkId::from_name("abc");
  static_assert(id.bytes()[0] == 0xba && id.bytes()[31] == 0xad);
  static_assert(ChunkId::try_from_hex("zz") == std::nullopt);
  static_assert(ChunkId() < id);
  CHECK(id.to_hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("an id becomes hexadecimal digits and comes back from either case of them") {
  std::mt19937_64 random(4);
  for (int i = 0; i < 100; ++i) {
    const ChunkId id = ChunkId::from_name(random_text(random, 8));
    const std::string hex = id.to_hex();
    CHECK(hex.size() == 64);
    CHECK(hex.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(ChunkId::from_hex(hex) == id);
    std::string upper = hex;
    for (char& c : upper) c = c >= 'a' ? static_cast<char>(c - 'a' + 'A') : c;
    CHECK(ChunkId::from_hex(upper) == id);
  }
}

TEST_CASE("what is not 64 hexadecimal digits is no id") {
  const std::string good(64, 'a');
  for (const std::string& bad : {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(62, 'a') + "0x",
                                 " " + std::string(63, 'a'), std::string(63, 'a') + "g",
                                 std::string(63, 'a') + std::string(1, '\0'), std::string(128, 'a')}) {
    CAPTURE(bad);
    CHECK_FALSE(ChunkId::try_from_hex(bad));
    try {
      ChunkId::from_hex(bad);
      FAIL("did not throw");
    } catch (const garner::Error& error) {
      CHECK(error.code() == errc::invalid_id);
      CHECK(error.subject() == bad.substr(0, 80));
    }
  }
  CHECK(ChunkId::try_from_hex(good));
}

TEST_CASE("ids are ordered by their bytes, the first one first") {
  Bytes low{};
  Bytes high{};
  low[31] = 0xff;
  high[0] = 0x01;
  CHECK(ChunkId(low) < ChunkId(high));
  std::mt19937_64 random(5);
  for (int i = 0; i < 200; ++i) {
    const ChunkId a = ChunkId::from_name(random_text(random, 4));
    const ChunkId b = ChunkId::from_name(random_text(random, 4));
    CHECK((a < b) == (a.to_hex() < b.to_hex()));
    CHECK((a == b) == (a.to_hex() == b.to_hex()));
  }
}

TEST_CASE("ids of different things do not mix") {
  static_assert(!std::is_same_v<ChunkId, DatasetId>);
  static_assert(!std::is_convertible_v<ChunkId, DatasetId> && !std::is_constructible_v<DatasetId, ChunkId>);
  static_assert(!std::is_convertible_v<Bytes, ChunkId>);
  CHECK(ChunkId::from_name("x").bytes() == DatasetId::from_name("x").bytes());
}

TEST_CASE("the hash of an id depends on all of its bytes, and spreads ids that are counted up in one of them") {
  std::unordered_set<ChunkId> ids;
  for (std::size_t at = 0; at < 32; ++at) {
    std::set<std::size_t> low_bits;
    for (int value = 0; value < 256; ++value) {
      Bytes bytes{};
      bytes[at] = static_cast<std::uint8_t>(value);
      ids.insert(ChunkId(bytes));
      low_bits.insert(std::hash<ChunkId>()(ChunkId(bytes)));
    }
    CAPTURE(at);
    CHECK(low_bits.size() == 256);
  }
  CHECK(ids.size() == 32 * 255 + 1);
}
