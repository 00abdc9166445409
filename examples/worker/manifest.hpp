// SPDX-License-Identifier: BSL-1.0
//
// Reads manifests: one JSON object a line, which is either a chunk or a version of an assignment. Turns them
// into descriptions for the library, and keeps the names, which the library does not know.
#pragma once

#include <garner/chunk.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace worker {

/// SHA-256 of the name, unless it is 64 hexadecimal digits, which stand for themselves.
garner::ChunkId chunk_id_of(std::string_view name);
/// SHA-256 of the name.
garner::DatasetId dataset_id_of(std::string_view name);

/// A description with the names that its ids were made from.
struct NamedChunk {
  std::string dataset;
  std::string name;
  garner::DataChunk description;
};

/// One step of an assignment's history: first the deletions, then the downloads.
struct Version {
  std::uint64_t number = 0;
  std::vector<std::string> deleted;  ///< chunks' names
  std::vector<NamedChunk> downloaded;
};

struct Manifest {
  bool versioned = false;         ///< false: `versions` is one, of all the chunks
  std::vector<Version> versions;  ///< by rising number
  std::vector<std::string> warnings;

  /// What is assigned once `versions[0]` to `versions[index]` have been applied, in the order of asking.
  [[nodiscard]] std::vector<NamedChunk> assignment(std::size_t index) const;
  /// What is assigned at the end.
  [[nodiscard]] std::vector<NamedChunk> assignment() const {
    return versions.empty() ? std::vector<NamedChunk>() : assignment(versions.size() - 1);
  }
};

/// Thrown where any line of a manifest is bad. `what()` is for people: the first few problems, a line each,
/// as "file:line: what is wrong", and how many more there are.
class ManifestError : public std::runtime_error {
 public:
  explicit ManifestError(std::vector<std::string> problems);
  [[nodiscard]] const std::vector<std::string>& problems() const noexcept { return problems_; }

 private:
  std::vector<std::string> problems_;
};

/// Tells whether a URL is one that the downloader would take.
using UrlCheck = std::function<std::error_code(std::string_view)>;

/// Reads one manifest from `in`; `source` names it in messages. Throws `ManifestError`.
Manifest parse_manifest(std::istream& in, const std::string& source, const UrlCheck& check_url = {});

/// Reads several files as one manifest: one with versions stands alone. Throws `ManifestError`.
Manifest load_manifests(std::span<const std::filesystem::path> files, const UrlCheck& check_url = {});

/// The path of `url`, with its leading slash and without query and fragment.
std::string url_path(std::string_view url);

/// Sends every file of `manifest` to `base_url`, by the path of its URL: mirrors that have one path become
/// one.
void redirect(Manifest& manifest, std::string_view base_url);

}  // namespace worker
