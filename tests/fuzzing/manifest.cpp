// SPDX-License-Identifier: BSL-1.0
//
// The example worker's manifests: whatever is read is valid, can be written, and is then read as the same; a problem is
// told in text that a terminal can show.
#include "manifest.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "fuzzing/fuzzing.hpp"
#include "garner/chunk.hpp"

namespace {

using fuzzing::require;
using nlohmann::json;

json to_json(const worker::NamedChunk& chunk) {
  json files = json::object();
  for (const auto& [name, source] : chunk.description.files) {
    json& file = files[name];
    file["urls"] = source.urls;
    if (source.size) file["size"] = *source.size;
    if (source.digest) file["digest"] = source.digest->to_string();
  }
  return {{"dataset", chunk.dataset},
          {"id", chunk.name},
          {"blocks", {chunk.description.block_range.begin, chunk.description.block_range.end}},
          {"files", files}};
}

std::string to_text(const worker::Manifest& manifest) {
  std::string text;
  for (const worker::Version& version : manifest.versions) {
    json downloads = json::array();
    for (const worker::NamedChunk& chunk : version.downloaded) {
      downloads.push_back(to_json(chunk));
      if (!manifest.versioned) text += downloads.back().dump() + '\n';
    }
    if (!manifest.versioned) continue;
    text += json({{"version", version.number}, {"delete", version.deleted}, {"download", downloads}}).dump() + '\n';
  }
  return text;
}

/// What is assigned in the end, one step after another.
std::map<garner::ChunkId, garner::DataChunk> replay(const worker::Manifest& manifest, std::size_t versions) {
  std::map<garner::ChunkId, garner::DataChunk> assigned;
  for (std::size_t i = 0; i < versions; ++i) {
    for (const std::string& name : manifest.versions[i].deleted) assigned.erase(worker::chunk_id_of(name));
    for (const worker::NamedChunk& chunk : manifest.versions[i].downloaded) {
      assigned[chunk.description.id] = chunk.description;
    }
  }
  return assigned;
}

void check(const worker::Manifest& manifest) {
  require(!manifest.versions.empty(), "a manifest of nothing was read");
  for (std::size_t i = 0; i < manifest.versions.size(); ++i) {
    require(i == 0 || manifest.versions[i - 1].number < manifest.versions[i].number, "versions do not rise");
    for (const worker::NamedChunk& chunk : manifest.versions[i].downloaded) {
      require(!garner::validate(chunk.description), "a chunk was read that is not valid: " + chunk.name);
      require(chunk.description.id == worker::chunk_id_of(chunk.name), "a chunk has another one's id");
    }
    std::map<garner::ChunkId, garner::DataChunk> assigned;
    for (const worker::NamedChunk& chunk : manifest.assignment(i)) {
      require(assigned.emplace(chunk.description.id, chunk.description).second, "a chunk is assigned twice");
    }
    require(assigned == replay(manifest, i + 1), "the assignment is not what the versions add up to");
  }
  std::istringstream in(to_text(manifest));
  const worker::Manifest again = worker::parse_manifest(in, "again");
  require(again.warnings.empty(), "what was written is not understood");
  require(to_text(again) == to_text(manifest), "what was written is read as something else");
}

void check_printable(std::string_view text) {
  const bool clean = std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\n' || (c != '\x7f' && static_cast<unsigned char>(c) >= ' ');
  });
  require(clean, "a problem is told with control characters: " + garner::detail::printable(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream in{std::string(fuzzing::text(data, size))};
  worker::Manifest manifest;
  try {
    manifest = worker::parse_manifest(in, "input");
  } catch (const worker::ManifestError& error) {
    require(!error.problems().empty(), "a problem is not told");
    check_printable(error.what());
    return 0;
  }
  for (const std::string& warning : manifest.warnings) check_printable(warning);
  check(manifest);
  return 0;
}
