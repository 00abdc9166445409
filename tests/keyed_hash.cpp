// SPDX-License-Identifier: BSL-1.0
//
// The keyed hash, against the vectors that its authors have published.
#include "garner/keyed_hash.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "garner/ids.hpp"

using garner::detail::KeyedHash;

namespace {

/// That of the vectors: bytes 0 to 15.
constexpr KeyedHash::Key key = {0x0706050403020100U, 0x0f0e0d0c0b0a0908U};

/// Bytes 0, 1, 2, ...
std::string input(std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i) out += static_cast<char>(i);
  return out;
}

std::string to_hex(const KeyedHash::Result& hash) { return garner::detail::format_hex(hash.data(), hash.size()); }

std::string hash_of(std::string_view text) {
  KeyedHash hash(key);
  hash.update(text);
  return to_hex(hash.finish());
}

}  // namespace

TEST_CASE("the keyed hash is SipHash-2-4-128: the vectors of its reference code") {
  const std::pair<std::size_t, std::string_view> vectors[] = {
      {0, "a3817f04ba25a8e66df67214c7550293"},  {1, "da87c1d86b99af44347659119b22fc45"},
      {7, "a1f1ebbed8dbc153c0b84aa61ff08239"},  {8, "3b62a9ba6258f5610f83e264f31497b4"},
      {15, "5493e99933b0a8117e08ec0f97cfc3d9"}, {16, "6ee2a4ca67b054bbfd3315bf85230577"},
      {63, "5150d1772f50834a503e069a973fbd7c"},
  };
  for (const auto& vector : vectors) {
    CAPTURE(vector.first);
    CHECK(hash_of(input(vector.first)) == vector.second);
  }
}

TEST_CASE("in whatever pieces the bytes come, their keyed hash is the same") {
  const std::string text = input(63);
  for (std::size_t first = 0; first <= text.size(); ++first) {
    for (std::size_t second = first; second <= text.size(); ++second) {
      KeyedHash hash(key);
      hash.update(std::string_view(text).substr(0, first));
      hash.update(std::string_view(text).substr(first, second - first));
      hash.update(std::string_view(text).substr(second));
      CHECK(to_hex(hash.finish()) == hash_of(text));
    }
  }
}

TEST_CASE("a number counts as its eight bytes, wherever it stands") {
  for (std::size_t before = 0; before < 9; ++before) {
    CAPTURE(before);
    KeyedHash hash(key);
    hash.update(std::string_view(input(before)));
    hash.update(std::uint64_t{0x0807060504030201U});
    hash.update(std::string_view("and more"));
    CHECK(to_hex(hash.finish()) == hash_of(input(before) + "\1\2\3\4\5\6\7\10" + "and more"));
  }
}

TEST_CASE("two keys give two hashes, and a process has one key") {
  KeyedHash one({1, 2});
  KeyedHash other({1, 3});
  CHECK(one.finish() != other.finish());
  CHECK(KeyedHash::process_key() == KeyedHash::process_key());
  CHECK(KeyedHash::process_key() != KeyedHash::Key{});
}
