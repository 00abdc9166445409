// SPDX-License-Identifier: BSL-1.0
//
// What simulated lives are about: a few small chunks, each in several versions, and the bytes that their URLs have. The
// same in every life.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "garner/chunk.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_downloader.hpp"

namespace simulation {

/// A description and the bytes that its URLs have.
struct Version {
  std::string name;  ///< for people
  garner::DataChunk chunk;
  std::map<std::string, std::string> files;
  std::uint64_t bytes = 0;
};

class Lake {
 public:
  static constexpr unsigned chunks = 5;
  static constexpr unsigned versions = 3;

  static const Lake& get() {
    static const Lake lake;
    return lake;
  }

  [[nodiscard]] const Version& version(std::size_t chunk, std::size_t version) const {
    return versions_[chunk * versions + version];
  }
  [[nodiscard]] const garner::ChunkId& id(std::size_t chunk) const { return version(chunk, 0).chunk.id; }
  [[nodiscard]] const std::array<garner::DatasetId, 2>& datasets() const noexcept { return datasets_; }
  [[nodiscard]] static garner::BlockRange all_blocks() noexcept { return {0, 1000}; }

  void fill(garner::SimNetwork& network) const {
    for (const Version& version : versions_) {
      for (const auto& [name, source] : version.chunk.files) {
        for (const std::string& url : source.urls) network.put(url, version.files.at(name));
      }
    }
  }

  /// Whether a file at `url` is of what is wanted.
  [[nodiscard]] bool is_wanted(std::string_view url, const std::map<garner::ChunkId, const Version*>& wanted) const {
    for (const Version& version : versions_) {
      for (const auto& [name, source] : version.chunk.files) {
        if (std::find(source.urls.begin(), source.urls.end(), url) == source.urls.end()) continue;
        const auto at = wanted.find(version.chunk.id);
        return at != wanted.end() && (at->second == nullptr || at->second->files == version.files);
      }
    }
    return false;
  }

  /// Which version of the chunk the directory holds, whole; null where none.
  [[nodiscard]] const Version* held(const garner::SimDisk& disk, const garner::ChunkId& id,
                                    const std::string& path) const {
    for (const Version& version : versions_) {
      if (version.chunk.id == id && holds(disk, path, version)) return &version;
    }
    return nullptr;
  }

  static bool holds(const garner::SimDisk& disk, const std::string& path, const Version& version) {
    for (const auto& [name, bytes] : version.files) {
      const std::string* there = disk.contents(path + '/' + name);
      if (there == nullptr || *there != bytes) return false;
    }
    return true;
  }

  /// `text` with the names of chunks and datasets for their ids.
  [[nodiscard]] std::string readable(std::string text) const {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
      replace(text, id(chunk).to_hex(), "<chunk " + std::to_string(chunk) + '>');
    }
    for (std::size_t dataset = 0; dataset < datasets_.size(); ++dataset) {
      replace(text, datasets_[dataset].to_hex(), "<dataset " + std::to_string(dataset) + '>');
    }
    return text;
  }

 private:
  Lake() {
    for (unsigned chunk = 0; chunk < chunks; ++chunk) {
      for (unsigned version = 0; version < versions; ++version) describe(chunk, version);
    }
  }

  /// Chunk 0 overlaps others; the last version of chunk 3 is in another dataset, and that of chunk 4 has the bytes of the
  /// one before at other URLs. Some files are empty, some of unknown size.
  void describe(unsigned chunk, unsigned number) {
    Version& version = versions_[std::size_t{chunk} * versions + number];
    const bool moved = chunk == 3 && number == 2;
    const unsigned content = chunk == 4 && number == 2 ? 1 : number;
    version.name = "chunk " + std::to_string(chunk) + " as of version " + std::to_string(number);
    version.chunk.id = garner::ChunkId::from_name("chunk " + std::to_string(chunk));
    version.chunk.dataset_id = datasets_[(chunk + (moved ? 1 : 0)) % 2];
    version.chunk.block_range = {chunk * 10, chunk * 10 + (chunk == 0 ? 40U : 10U)};
    for (unsigned file = 0; file < 1 + chunk % 3; ++file) {
      const std::string name = "file" + std::to_string(file);
      std::string bytes;
      for (unsigned i = 0; i < chunk * 7 + file * 13; ++i) {
        bytes += static_cast<char>('a' + (i * 31 + chunk * 7 + content * 3 + file) % 26);
      }
      if (file != 1 || content != 2) bytes += "version " + std::to_string(content);
      if (chunk == 2 && file == 2) bytes.clear();
      const std::string tag = std::to_string(chunk) + '/' + std::to_string(number) + '/' + name;
      garner::FileSource source({"http://a/" + tag, "http://b/" + tag}, bytes.size(), sha256(bytes));
      if (chunk == 1) source.size.reset();
      if (chunk == 0) source.urls.pop_back();
      version.bytes += bytes.size();
      version.chunk.files[name] = std::move(source);
      version.files[name] = std::move(bytes);
    }
  }

  static garner::Digest sha256(const std::string& bytes) {
    return garner::Digest::parse("sha256:" + garner::ChunkId::from_name(bytes).to_hex());
  }

  static void replace(std::string& text, std::string_view what, std::string_view by) {
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
      text.replace(at, what.size(), by);
    }
  }

  std::array<garner::DatasetId, 2> datasets_ = {garner::DatasetId::from_name("even"),
                                                garner::DatasetId::from_name("odd")};
  std::array<Version, std::size_t{chunks} * versions> versions_;
};

}  // namespace simulation
