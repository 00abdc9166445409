// SPDX-License-Identifier: BSL-1.0
//
// The chunks that the victim of the torture asks for, and their bytes, which are as good as random and need no file.
// Also the look at a directory that tells which of them lies there, and whether it is whole.
#pragma once

#include <garner/garner.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torturing {

/// A chunk as it was described once, or again: `a.1`, and later `a.2`.
struct Version {
  std::string name;  ///< `a`
  int number = 1;
  garner::DataChunk chunk;
  std::map<std::string, std::string, std::less<>> bytes;  ///< by the file's name

  [[nodiscard]] std::string title() const { return name + '.' + std::to_string(number); }
};

/// `size` bytes that are those of no other URL and of no other place in the file.
inline std::string bytes_of(std::string_view url, std::size_t size) {
  std::uint64_t seed = 0xcbf29ce484222325;
  for (const char c : url) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  std::string bytes(size, '\0');
  std::uint64_t word = seed;
  for (std::size_t at = 0; at < size; at += sizeof(word)) {
    word += 0x9e3779b97f4a7c15;
    std::memcpy(bytes.data() + at, &word, std::min(sizeof(word), size - at));
  }
  return bytes;
}

/// All versions, each made when it is first asked for.
class Lake {
 public:
  static constexpr std::array names = {"a", "b", "c", "d", "e", "f", "g", "h", "l"};

  /// Throws `std::out_of_range` where there is none.
  const Version& version(const std::string& name, int number) {
    const auto at = made_.find({name, number});
    return at != made_.end() ? at->second : made_.emplace(std::pair(name, number), make(name, number)).first->second;
  }
  const Version& version(const std::string& title) { return version(title.substr(0, 1), std::stoi(title.substr(2))); }

  /// How many versions of a chunk there are, from 1 on.
  static int versions(const std::string& name) { return name == "a" || name == "c" ? 2 : 1; }

  static garner::DatasetId dataset(const std::string& name) {
    return garner::DatasetId::from_name(name == "d" || name == "h" ? "rivers" : "lakes");
  }
  static garner::ChunkId id(const std::string& name) { return garner::ChunkId::from_name(name); }
  static std::string name_of(const garner::ChunkId& id) {
    const auto* const at =
        std::find_if(names.begin(), names.end(), [&](const char* name) { return Lake::id(name) == id; });
    return at == names.end() ? std::string() : *at;
  }

  /// Makes the origin have the version's files.
  static const Version& offer(const Version& version, garner::MemoryOrigin& origin) {
    for (const auto& [name, source] : version.chunk.files) origin.put(source.urls.front(), version.bytes.at(name));
    return version;
  }

  /// The version of chunk `name` whose files are those in `directory`, each byte and no other file; nothing where there
  /// is none.
  const Version* find_in(const std::filesystem::path& directory, const std::string& name) {
    for (int number = 1; number <= versions(name); ++number) {
      const Version& candidate = version(name, number);
      if (is_whole(directory, candidate)) return &candidate;
    }
    return nullptr;
  }

  static bool is_whole(const std::filesystem::path& directory, const Version& version) {
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      const std::string name = entry.path().filename().string();
      ++files;
      if (name == garner::store_layout::descriptor_file) continue;
      const auto expected = version.bytes.find(name);
      if (expected == version.bytes.end() || !entry.is_regular_file()) return false;
      if (entry.file_size() != expected->second.size() || read(entry.path()) != expected->second) return false;
    }
    return files == version.bytes.size() + 1;
  }

 private:
  struct File {
    std::string name;
    std::size_t size = 0;
    bool sized = false;     ///< the description says the size
    bool digested = false;  ///< and the SHA-256
  };

  /// The smallest that take every path: an empty file, some in one piece, some in more, one that is reserved before it
  /// is written (from 1 MiB on), one that is cut down before it is removed (beyond 16 MiB), and small ones that have
  /// enough syncs together for one of the whole file system.
  static std::vector<File> files(const std::string& title) {
    if (title == "a.1") return {{"empty", 0, false, false}, {"head", 10, true, false}, {"rows", 70'000, true, true}};
    if (title == "a.2") return {{"head", 10, true, false}, {"rows", 3'000, true, true}};
    if (title == "b.1") return {{"rows", (std::size_t{1} << 20) + 70'000, true, true}};
    if (title == "c.1") return {{"rows", 3'000, true, false}};
    if (title == "c.2") return {{"rows", 4'000, true, true}};
    if (title == "d.1") return {{"rows", 5'000, false, false}};
    if (title == "e.1") return {{"head", 6'000, true, false}, {"rows", 140'000, true, false}};
    if (title == "f.1") return {{"head", 10, true, false}, {"rows", 900, true, true}};
    if (title == "g.1") return {{"head", 20, true, true}, {"rows", 700, true, false}};
    if (title == "h.1") return {{"head", 30, false, false}, {"rows", 500, true, true}};
    if (title == "l.1") return {{"rows", (std::size_t{17} << 20) + 1, true, false}};
    throw std::out_of_range("there is no version " + title);
  }

  static Version make(const std::string& name, int number) {
    Version version{name, number, {}, {}};
    version.chunk.id = id(name);
    version.chunk.dataset_id = dataset(name);
    const auto begin = static_cast<garner::BlockNumber>(name.front() - 'a') * 10;
    version.chunk.block_range = {begin, begin + 10};
    for (const File& file : files(version.title())) {
      const std::string url = "mem://" + version.title() + '/' + file.name;
      std::string bytes = bytes_of(url, file.size);
      garner::FileSource& source = version.chunk.files[file.name];
      source.urls = {url};
      if (file.sized) source.size = file.size;
      if (file.digested) source.digest = digest_of(bytes);
      version.bytes.emplace(file.name, std::move(bytes));
    }
    return version;
  }

  static std::optional<garner::Digest> digest_of(const std::string& bytes) {
    garner::DigestStream stream(garner::DigestAlgorithm::sha256);
    stream.update(std::as_bytes(std::span(bytes)));
    return stream.digests().asked;
  }

  static std::string read(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::string bytes(std::filesystem::file_size(path), '\0');
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(in.gcount()));
    return bytes;
  }

  std::map<std::pair<std::string, int>, Version> made_;
};

}  // namespace torturing
