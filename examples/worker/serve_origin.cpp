// SPDX-License-Identifier: BSL-1.0
//
// Writes a manifest out again in the form that it was read in.
#include "serve_origin.hpp"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "manifest.hpp"
#include "text.hpp"

namespace worker {

namespace {

using nlohmann::ordered_json;

ordered_json chunk_json(const NamedChunk& chunk) {
  const garner::BlockRange& blocks = chunk.description.block_range;
  ordered_json files = ordered_json::object();
  for (const auto& [name, source] : chunk.description.files) {
    files[name] = {{"urls", source.urls}};
    if (source.size) files[name]["size"] = *source.size;
    if (source.digest) files[name]["digest"] = source.digest->to_string();
  }
  return {{"dataset", chunk.dataset}, {"id", chunk.name}, {"blocks", {blocks.begin, blocks.end}}, {"files", files}};
}

void write(const Manifest& manifest, const std::filesystem::path& file) {
  std::ofstream out(file);
  for (const Version& version : manifest.versions) {
    ordered_json chunks = ordered_json::array();
    for (const NamedChunk& chunk : version.downloaded) chunks.push_back(chunk_json(chunk));
    if (manifest.versioned) {
      out << ordered_json{{"version", version.number}, {"delete", version.deleted}, {"download", chunks}} << '\n';
    } else {
      for (const ordered_json& chunk : chunks) out << chunk << '\n';
    }
  }
  if (!out.flush()) throw std::runtime_error(fmt::format("{}: cannot be written", file.string()));
}

}  // namespace

int serve_origin(const ServeOptions& options, Signals& signals) {
  Manifest manifest = load_manifests(options.manifests);
  const Origin origin(manifest, options.origin);
  write(manifest, options.rewritten);
  fmt::print("{} serves {}, {}: worker --manifest {} --data-dir DIR\n", origin.url(),
             format_plural(origin.files(), "file"), format_bytes(origin.bytes()), options.rewritten.string());
  std::fflush(stdout);
  while (!signals.wait(std::chrono::seconds(1))) {
  }
  return 0;
}

}  // namespace worker
