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
#include <vector>

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
  bool is_lie = false;  ///< no server can give it
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
  /// What can be asked for and never be had.
  [[nodiscard]] const std::vector<Version>& lies() const noexcept { return lies_; }
  [[nodiscard]] const garner::ChunkId& id(std::size_t chunk) const { return version(chunk, 0).chunk.id; }
  [[nodiscard]] const std::array<garner::DatasetId, 2>& datasets() const noexcept { return datasets_; }
  [[nodiscard]] static garner::BlockRange all_blocks() noexcept { return {0, 1000}; }

  void fill(garner::SimNetwork& network) const {
    for (const Version& version : versions_) {
      for (const auto& [name, source] : version.chunk.files) {
        for (const std::string& url : source.urls) {
          network.put(url, version.files.at(name),
                      {.has_validators = source.digest || url != source.urls.back() || url.ends_with("/1/file0"),
                       .is_honest = !source.digest});
        }
      }
    }
    for (const Version& lie : lies_) {
      for (const auto& [name, bytes] : lie.files) {
        for (const std::string& url : lie.chunk.files.at(name).urls) network.put(url, bytes);
      }
    }
  }

  /// Whether a file at `url` is of what is wanted.
  [[nodiscard]] bool is_wanted(std::string_view url, const std::map<garner::ChunkId, const Version*>& wanted) const {
    const auto is_of = [url](const Version& version) {
      return std::any_of(version.chunk.files.begin(), version.chunk.files.end(), [url](const auto& file) {
        return std::find(file.second.urls.begin(), file.second.urls.end(), url) != file.second.urls.end();
      });
    };
    const auto is_asked_for = [&](const Version& version) {
      const auto at = wanted.find(version.chunk.id);
      if (at == wanted.end() || !is_of(version)) return false;
      return at->second == nullptr || (at->second->files == version.files && at->second->is_lie == version.is_lie);
    };
    return std::any_of(versions_.begin(), versions_.end(), is_asked_for) ||
           std::any_of(lies_.begin(), lies_.end(), is_asked_for);
  }

  /// Which version of the chunk the directory holds, whole; null where none.
  template <class Disk>
  [[nodiscard]] const Version* held(const Disk& disk, const garner::ChunkId& id, const std::string& path) const {
    for (const Version& version : versions_) {
      if (version.chunk.id == id && holds(disk, path, version)) return &version;
    }
    return nullptr;
  }

  template <class Disk>
  static bool holds(const Disk& disk, const std::string& path, const Version& version) {
    for (const auto& [name, bytes] : version.files) {
      std::string file = path;
      file += '/';
      file += name;
      const std::string* there = disk.contents(file);
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
    // The bytes of a version, but not as many of them.
    lie(version(1, 0), [](garner::FileSource& source) { source.size = 1000; });
    lie(version(4, 1), [](garner::FileSource& source) { source.size = *source.size - 1; });
    // More than anyone has room for before it is there.
    lie(version(3, 0), [](garner::FileSource& source) { source.size = 2 << 20; });
    // Longer than `chunk.json` may be.
    lie(version(2, 0),
        [](garner::FileSource& source) { source.urls.assign(10, source.urls.front() + std::string(7000, 'x')); });
    for (auto& [name, source] : lies_.back().chunk.files) lies_.back().files.erase(name);
  }

  template <class Change>
  void lie(const Version& version, const Change& change) {
    Version& out = lies_.emplace_back(version);
    out.name = "a lie about " + version.name;
    out.is_lie = true;
    for (auto& [name, source] : out.chunk.files) {
      for (std::string& url : source.urls) url += "?lie" + std::to_string(lies_.size());
      change(source);
    }
  }

  /// Chunk 0 overlaps others, and chunks 2 and 4 begin at one block; the last version of chunk 3 is in another dataset,
  /// and that of chunk 4 has the bytes of the one before at other URLs, and that of chunk 2 other blocks. Some files
  /// are empty, some of unknown size, some without a digest.
  void describe(unsigned chunk, unsigned number) {
    Version& version = versions_[std::size_t{chunk} * versions + number];
    const bool moved = chunk == 3 && number == 2;
    const unsigned content = chunk == 4 && number == 2 ? 1 : number;
    version.name = "chunk " + std::to_string(chunk) + " as of version " + std::to_string(number);
    version.chunk.id = garner::ChunkId::from_name("chunk " + std::to_string(chunk));
    version.chunk.dataset_id = datasets_[(chunk + (moved ? 1 : 0)) % 2];
    const unsigned begin = chunk == 4 ? 20 : chunk * 10;
    version.chunk.block_range = {begin, begin + (chunk == 0 ? 40U : 10U)};
    if (chunk == 2 && number == 2) version.chunk.block_range.end += 5;
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
      if ((chunk == 2 && file == 1) || ((chunk == 0 || chunk == 3) && number > 0)) source.digest.reset();
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
  std::vector<Version> lies_;
};

}  // namespace simulation
