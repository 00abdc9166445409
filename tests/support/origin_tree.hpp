// SPDX-License-Identifier: BSL-1.0
//
// Manifests' files as a web server serves them: each URL's path is a file below a document root, with bytes from
// a seed and a size that is scaled down; the descriptions then name that server, and the true sizes and digests.
#pragma once

#include <worker/content.hpp>
#include <worker/manifest.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace garner::test {

/// All bytes of a file; empty where it cannot be read.
inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream bytes;
  if (in) bytes << in.rdbuf();
  return bytes.str();
}

/// How large a file is: `size / scale` where the manifest tells its size, else a number in
/// [min_unknown, max_unknown] that follows from its URL.
struct TreeScale {
  std::uint64_t scale = 10'000;
  std::uint64_t min_unknown = 1;
  std::uint64_t max_unknown = 4096;
};

class OriginTree {
 public:
  /// Writes files below `document_root`, which the server at `origin` serves.
  OriginTree(std::filesystem::path document_root, std::string origin, std::uint64_t seed, TreeScale scale)
      : root_(std::move(document_root)), origin_(std::move(origin)), seed_(seed), scale_(scale) {}

  /// Writes all files of `manifest` and sends its descriptions here. Sizes and digests stay where they were given, and
  /// are those of the bytes that are served.
  void serve(worker::Manifest& manifest) const {
    worker::redirect(manifest, origin_);
    for (worker::Version& version : manifest.versions) {
      for (worker::NamedChunk& chunk : version.downloaded) {
        for (auto& [name, source] : chunk.description.files) serve(source);
      }
    }
  }

  /// The bytes that are served under `url`.
  [[nodiscard]] std::string bytes(std::string_view url) const { return read_file(file_of(url)); }

 private:
  [[nodiscard]] std::filesystem::path file_of(std::string_view url) const {
    return root_ / worker::url_path(url).substr(1);
  }

  void serve(FileSource& source) const {
    const std::uint64_t seed = worker::mix(seed_, worker::url_path(source.urls.front()));
    const std::uint64_t spread = scale_.max_unknown - scale_.min_unknown + 1;
    const worker::Content content{seed, source.size ? *source.size / scale_.scale : scale_.min_unknown + seed % spread};
    if (source.size) source.size = content.size;
    if (source.digest) source.digest = content.digest();
    std::string bytes(content.size, '\0');
    content.fill(0, bytes);
    for (const std::string& url : source.urls) {
      const std::filesystem::path file = file_of(url);
      std::filesystem::create_directories(file.parent_path());
      std::ofstream(file, std::ios::binary) << bytes;
    }
  }

  std::filesystem::path root_;
  std::string origin_;
  std::uint64_t seed_;
  TreeScale scale_;
};

}  // namespace garner::test
