// SPDX-License-Identifier: BSL-1.0
//
// Chunks that have numbers instead of names, in any number of versions each, and their bytes, which nobody has to keep:
// what a chunk should be is told by its number and its version. Also the look at one that tells whether it is so.
#pragma once

#include <garner/garner.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace torturing {

/// Spreads `value` over all 64 bits.
inline std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111eb;
  return value ^ (value >> 31U);
}

inline std::string numbered_file_url(std::uint64_t number, std::uint64_t version, std::size_t file) {
  return "mem://" + std::to_string(number) + '/' + std::to_string(version) + '/' + std::to_string(file);
}

/// Of the file behind `url`: up to `2 * scale`, no word of them like one of another file or another place.
inline std::string numbered_file_bytes(std::string_view url, std::uint64_t scale) {
  std::uint64_t seed = 0;
  for (const char c : url) seed = mix(seed ^ static_cast<unsigned char>(c));
  const std::uint64_t size = seed % 8 == 0 ? seed / 8 % 100 : seed / 8 % (2 * scale);
  std::string bytes(static_cast<std::size_t>(size), '\0');
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(seed)) {
    seed += 0x9e3779b97f4a7c15;
    std::memcpy(bytes.data() + at, &seed, std::min(sizeof(seed), bytes.size() - at));
  }
  return bytes;
}

constexpr garner::BlockNumber numbered_blocks = 10;  ///< of each chunk
constexpr std::uint64_t numbered_datasets = 3;

inline garner::ChunkId numbered_id(std::uint64_t number) {
  return garner::ChunkId::from_name("chunk " + std::to_string(number));
}
inline garner::DatasetId numbered_dataset(std::uint64_t number) {
  return garner::DatasetId::from_name("dataset " + std::to_string(number % numbered_datasets));
}

/// Chunk `number` as it is asked for in `version`: one to three files, some with sizes and digests and some without.
inline garner::DataChunk numbered_chunk(std::uint64_t number, std::uint64_t version, std::uint64_t scale) {
  const std::uint64_t kind = mix(number * 1'000'003 + version);
  garner::DataChunk chunk;
  chunk.id = numbered_id(number);
  chunk.dataset_id = numbered_dataset(number);
  chunk.block_range = {number * numbered_blocks, (number + 1) * numbered_blocks};
  for (std::size_t file = 0; file <= kind % 3; ++file) {
    garner::FileSource source = numbered_file_url(number, version, file);
    const std::string bytes = numbered_file_bytes(source.urls.front(), scale);
    if ((kind >> 8U) % 2 == 0) source.size = bytes.size();
    if ((kind >> 9U) % 4 == 0) {
      garner::DigestStream stream(garner::DigestAlgorithm::sha256);
      stream.update(std::as_bytes(std::span(bytes)));
      source.digest = stream.digests().asked;
    }
    chunk.files.emplace("file" + std::to_string(file), std::move(source));
  }
  return chunk;
}

/// What a chunk was found to be.
struct Look {
  std::uint64_t number = 0;
  std::uint64_t version = 0;
  std::error_code unreadable;  ///< the disk did not give its bytes: nothing is known of them
  std::string wrong;           ///< empty where all is as it should be
};

/// All bytes of the file, or an error.
inline std::string read_file(const std::filesystem::path& path, std::error_code& ec) {
  const garner::detail::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string bytes;
  std::array<char, 1 << 16> part{};
  for (ssize_t count = file ? 1 : -1; count != 0;) {
    if (file) count = ::read(file.get(), part.data(), part.size());
    if (count < 0) {
      ec = {errno, std::generic_category()};
      return {};
    }
    bytes.append(part.data(), static_cast<std::size_t>(count));
  }
  return bytes;
}

/// Reads all that is pinned, and compares it with what it should be.
template <class Ref>
Look look_at(const Ref& ref, std::uint64_t scale) {
  Look look;
  look.number = ref.block_range().begin / numbered_blocks;
  if (ref.id() != numbered_id(look.number) || ref.dataset_id() != numbered_dataset(look.number)) {
    look.wrong = "it is a chunk that nobody asked for";
    return look;
  }
  std::string url;
  try {
    url = ref.files().begin()->second.urls.front();
  } catch (const garner::Error& error) {
    look.unreadable = error.code();
    if (error.code() == garner::errc::corrupt_chunk) look.wrong = error.what();
    return look;
  }
  look.version = std::stoull(url.substr(url.find('/', 6) + 1));
  const garner::DataChunk expected = numbered_chunk(look.number, look.version, scale);
  std::set<std::string> names;
  for (std::filesystem::directory_iterator entry(ref.path(), look.unreadable), end; !look.unreadable && entry != end;
       entry.increment(look.unreadable)) {
    names.insert(entry->path().filename().string());
  }
  if (look.unreadable) return look;
  for (const auto& [name, source] : expected.files) {
    names.erase(name);
    const std::string bytes = read_file(ref.path() / name, look.unreadable);
    if (look.unreadable == std::errc::no_such_file_or_directory) look.wrong = name + " is missing";
    if (look.unreadable) return look;
    const std::string should_be = numbered_file_bytes(source.urls.front(), scale);
    if (bytes == should_be) continue;
    const auto differs = std::mismatch(bytes.begin(), bytes.end(), should_be.begin(), should_be.end());
    look.wrong = name + " has " + std::to_string(bytes.size()) + " bytes of " + std::to_string(should_be.size()) +
                 " and differs at " + std::to_string(differs.first - bytes.begin());
    return look;
  }
  names.erase(garner::store_layout::descriptor_file);
  if (!names.empty()) look.wrong = *names.begin() + " should not be there";
  return look;
}

}  // namespace torturing
