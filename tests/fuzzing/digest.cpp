// SPDX-License-Identifier: BSL-1.0
//
// The digests that files are asked to have, as text: what is read is written as the same, in lower case.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuzzing/fuzzing.hpp"
#include "garner/chunk.hpp"
#include "garner/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using fuzzing::require;
  const std::string_view text = fuzzing::text(data, size);
  const auto digest = garner::Digest::try_parse(text);
  bool parsed = true;
  try {
    require(garner::Digest::parse(text) == digest, "parse and try_parse do not agree");
  } catch (const garner::Error& error) {
    parsed = false;
    require(error.code() == garner::errc::invalid_digest, "another error than is promised");
  }
  require(parsed == digest.has_value(), "parse and try_parse do not agree");
  if (!digest) return 0;
  require(digest->to_string() == garner::detail::fold_case(text), "a digest is written as another one");
  require(garner::Digest::try_parse(digest->to_string()) == digest, "what was written is read as something else");
  require(text.size() == to_string(digest->algorithm()).size() + 1 + 2 * digest->size(), "its size is wrong");
  return 0;
}
