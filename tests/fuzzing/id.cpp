// SPDX-License-Identifier: BSL-1.0
//
// Ids as text: what is read is written as the same, in lower case. And the SHA-256 that makes ids of names, against
// libcrypto's.
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "fuzzing/fuzzing.hpp"
#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/ids.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using fuzzing::require;
  const std::string_view text = fuzzing::text(data, size);
  const auto id = garner::ChunkId::try_from_hex(text);
  bool parsed = true;
  try {
    require(garner::ChunkId::from_hex(text) == id, "from_hex and try_from_hex do not agree");
  } catch (const garner::Error& error) {
    parsed = false;
    require(error.code() == garner::errc::invalid_id, "another error than is promised");
  }
  require(parsed == id.has_value(), "from_hex and try_from_hex do not agree");
  if (id) {
    require(id->to_hex() == garner::detail::fold_case(text), "an id is written as another one");
    require(std::hash<garner::ChunkId>()(*id) == std::hash<garner::ChunkId>()(garner::ChunkId(id->bytes())),
            "an id has two hashes");
  }

  std::array<std::uint8_t, 32> expected{};
  SHA256(data, size, expected.data());
  require(garner::ChunkId::from_name(text).bytes() == expected, "SHA-256 is wrong");
  // In two pieces it is the same.
  garner::detail::Sha256 pieces;
  pieces.update(text.substr(0, size / 3));
  pieces.update(text.substr(size / 3));
  require(pieces.finish() == expected, "SHA-256 of two pieces is wrong");
  return 0;
}
