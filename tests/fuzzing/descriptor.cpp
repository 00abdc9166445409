// SPDX-License-Identifier: BSL-1.0
//
// `chunk.json`: whatever is read can be written and is then read as the same; nothing else is read for a whole one. The
// digest at its end is made for the input, which would never guess it.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>

#include "fuzzing/fuzzing.hpp"
#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/storage/chunk_descriptor.hpp"

namespace {

using fuzzing::require;

/// As it is after it was written: without what is not stored.
garner::ChunkDescriptor redacted(garner::ChunkDescriptor descriptor) {
  for (auto& [name, source] : descriptor.chunk.files) {
    for (std::string& url : source.urls) url = garner::redact_url(url);
  }
  return descriptor;
}

void check(const garner::ChunkDescriptor& descriptor) {
  for (const auto& [name, source] : descriptor.chunk.files) {
    require(garner::detail::is_portable_file_name(name), "a name was read that is no file's: " + name);
    require(descriptor.found.contains(name), "a file was read that was not found: " + name);
  }
  require(descriptor.found.size() == descriptor.chunk.files.size(), "files were found that nobody asked for");
  const std::string text = garner::encode_descriptor(descriptor);
  require(text.size() <= garner::detail::descriptor_size_bound(descriptor.chunk), "it is longer than its bound");
  if (text.size() > garner::ChunkDescriptor::max_size) return;
  std::error_code ec;
  const garner::ChunkDescriptor again = garner::decode_descriptor(text, ec);
  require(!ec, "what was written cannot be read");
  require(again == redacted(descriptor), "what was written is read as something else");
  require(garner::encode_descriptor(again) == text, "what was read is written as something else");

  // One bit of it is another, or its end is missing.
  std::string changed = text;
  const std::size_t at = std::hash<std::string>()(text) % text.size();
  changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
  garner::decode_descriptor(changed, ec);
  require(ec == garner::errc::corrupt_chunk, "a flipped bit was not seen");
  garner::decode_descriptor(text.substr(0, at), ec);
  require(ec == garner::errc::corrupt_chunk, "a missing end was not seen");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzzing::text(data, size);
  std::error_code ec;
  garner::decode_descriptor(text, ec);
  require(!ec || ec == garner::errc::corrupt_chunk, "another error than is promised");
  // The input is all but the last member, which begins with a comma.
  const garner::ChunkDescriptor descriptor =
      garner::decode_descriptor(std::string(text) + garner::detail::check_member(text), ec);
  require(!ec || ec == garner::errc::corrupt_chunk, "another error than is promised");
  if (!ec) check(descriptor);
  return 0;
}
