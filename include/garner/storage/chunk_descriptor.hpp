// SPDX-License-Identifier: BSL-1.0
//
// `chunk.json`, which lies beside a chunk's files: the description, and the size and digests found in each file.
// Written once, before the chunk is published; read when someone asks, and then not trusted. No file is touched here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/digest_stream.hpp"

namespace garner {

/// A file as it was found when its last byte had come.
struct FoundFile {
  std::uint64_t size = 0;  ///< bytes
  FoundDigests digests;

  friend bool operator==(const FoundFile&, const FoundFile&) = default;
};

/// What `chunk.json` holds. Version 1; a later one is not read.
struct ChunkDescriptor {
  static constexpr std::uint64_t version = 1;
  /// Bytes: no larger descriptor is read, and none is written.
  static constexpr std::size_t max_size = std::size_t{1} << 20;
  /// Nesting: no deeper JSON is read. Ours has five levels.
  static constexpr int max_depth = 8;

  DataChunk chunk;  ///< as it was asked for; its URLs are redacted when they are written
  std::uint64_t generation = 0;
  std::map<std::string, FoundFile> found;  ///< the same names as `chunk.files`

  /// The sum of the found sizes; nothing where it overflows.
  [[nodiscard]] std::optional<std::uint64_t> bytes() const noexcept {
    std::uint64_t total = 0;
    for (const auto& [name, file] : found) {
      if (file.size > std::numeric_limits<std::uint64_t>::max() - total) return std::nullopt;
      total += file.size;
    }
    return total;
  }

  /// The description with what was found in the place of what was asked for: each file's size, and the digest of the
  /// algorithm that was asked for.
  [[nodiscard]] DataChunk described() const {
    DataChunk out = chunk;
    for (auto& [name, source] : out.files) {
      const FoundFile& file = found.at(name);
      source.size = file.size;
      source.digest = file.digests.asked;
    }
    return out;
  }

  friend bool operator==(const ChunkDescriptor&, const ChunkDescriptor&) = default;
};

namespace detail {

/// An upper bound of the size of the descriptor of `chunk`, bytes: known before anything is fetched. URLs and names
/// count six times, the longest that JSON makes of one byte.
inline std::size_t descriptor_size_bound(const DataChunk& chunk) noexcept {
  std::size_t bound = 512;
  for (const auto& [name, source] : chunk.files) {
    bound += 1024 + 6 * name.size();
    for (const std::string& url : source.urls) bound += 16 + 6 * url.size();
  }
  return bound;
}

inline std::string xxh3_text(const Xxh3& xxh3) { return "xxh3-128:" + format_hex(xxh3.data(), xxh3.size()); }

inline std::optional<Xxh3> parse_xxh3(std::string_view text) noexcept {
  constexpr std::string_view prefix = "xxh3-128:";
  Xxh3 xxh3{};
  if (!text.starts_with(prefix) || !parse_hex(text.substr(prefix.size()), xxh3.data(), xxh3.size())) {
    return std::nullopt;
  }
  return xxh3;
}

/// The end of `chunk.json`: its last member, a digest of all that stands before it. What is fetched anew is fetched
/// from these URLs, under these names and against these digests, so a flipped bit in one of them must not pass for
/// another.
inline std::string check_member(std::string_view before) {
  DigestStream digest;
  digest.update(std::as_bytes(std::span(before)));
  return ",\n \"check\": \"" + xxh3_text(digest.digests().xxh3) + "\"\n}\n";
}

inline bool is_checked(std::string_view text) {
  const std::size_t size = check_member("").size();
  return text.size() >= size && text.substr(text.size() - size) == check_member(text.substr(0, text.size() - size));
}

/// Reads members of JSON that may be anything: whatever is missing or of another type throws `Malformed`.
struct Malformed {};

inline const nlohmann::json& json_member(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) throw Malformed();
  const auto at = object.find(key);
  if (at == object.end()) throw Malformed();
  return *at;
}

inline std::uint64_t json_number(const nlohmann::json& value) {
  if (!value.is_number_unsigned()) throw Malformed();
  return value.get<std::uint64_t>();
}

inline const std::string& json_text(const nlohmann::json& value) {
  if (!value.is_string()) throw Malformed();
  return value.get_ref<const std::string&>();
}

inline const nlohmann::json& json_array(const nlohmann::json& value) {
  if (!value.is_array()) throw Malformed();
  return value;
}

template <class T>
T well_formed(std::optional<T> value) {
  if (!value) throw Malformed();
  return *std::move(value);
}

inline FileSource read_source(const nlohmann::json& file) {
  FileSource source;
  for (const nlohmann::json& url : json_array(json_member(file, "urls"))) source.urls.push_back(json_text(url));
  const nlohmann::json& asked = json_member(file, "asked");
  if (!asked.is_object()) throw Malformed();
  if (asked.contains("size")) source.size = json_number(asked["size"]);
  if (asked.contains("digest")) source.digest = well_formed(Digest::try_parse(json_text(asked["digest"])));
  return source;
}

inline FoundFile read_found(const nlohmann::json& file) {
  const nlohmann::json& found = json_member(file, "found");
  FoundFile out;
  out.size = json_number(json_member(found, "size"));
  bool has_xxh3 = false;
  for (const nlohmann::json& digest : json_array(json_member(found, "digests"))) {
    const std::string& text = json_text(digest);
    if (const auto xxh3 = parse_xxh3(text)) {
      out.digests.xxh3 = *xxh3;
      has_xxh3 = true;
    } else {
      out.digests.asked = well_formed(Digest::try_parse(text));
    }
  }
  if (!has_xxh3) throw Malformed();
  return out;
}

inline ChunkDescriptor read_descriptor(const nlohmann::json& json) {
  if (json_number(json_member(json, "version")) != ChunkDescriptor::version) throw Malformed();
  ChunkDescriptor out;
  out.chunk.id = well_formed(ChunkId::try_from_hex(json_text(json_member(json, "chunk_id"))));
  out.chunk.dataset_id = well_formed(DatasetId::try_from_hex(json_text(json_member(json, "dataset_id"))));
  out.chunk.block_range.begin = json_number(json_member(json, "begin"));
  out.chunk.block_range.end = json_number(json_member(json, "end"));
  out.generation = json_number(json_member(json, "generation"));
  const nlohmann::json& files = json_member(json, "files");
  if (!files.is_object()) throw Malformed();
  for (const auto& [name, file] : files.items()) {
    if (!is_portable_file_name(name) || fold_case(name) == "chunk.json") throw Malformed();
    const FileSource& source = out.chunk.files[name] = read_source(file);
    const FoundFile& found = out.found[name] = read_found(file);
    // A file that was not as it was asked for is never published.
    if (source.size.value_or(found.size) != found.size || source.digest != found.digests.asked) throw Malformed();
  }
  return out;
}

}  // namespace detail

/// The bytes of `chunk.json`. Each file of `descriptor.chunk` is in `descriptor.found`.
inline std::string encode_descriptor(const ChunkDescriptor& descriptor) {
  nlohmann::ordered_json json;
  json["version"] = ChunkDescriptor::version;
  json["chunk_id"] = descriptor.chunk.id.to_hex();
  json["dataset_id"] = descriptor.chunk.dataset_id.to_hex();
  json["begin"] = descriptor.chunk.block_range.begin;
  json["end"] = descriptor.chunk.block_range.end;
  json["generation"] = descriptor.generation;
  nlohmann::ordered_json& files = json["files"] = nlohmann::ordered_json::object();
  for (const auto& [name, source] : descriptor.chunk.files) {
    nlohmann::ordered_json& file = files[name];
    nlohmann::ordered_json& urls = file["urls"] = nlohmann::ordered_json::array();
    for (const std::string& url : source.urls) urls.push_back(redact_url(url));
    nlohmann::ordered_json& asked = file["asked"] = nlohmann::ordered_json::object();
    if (source.size) asked["size"] = *source.size;
    if (source.digest) asked["digest"] = source.digest->to_string();
    const FoundFile& found = descriptor.found.at(name);
    file["found"]["size"] = found.size;
    nlohmann::ordered_json& digests = file["found"]["digests"] = nlohmann::ordered_json::array();
    digests.push_back(detail::xxh3_text(found.digests.xxh3));
    if (found.digests.asked) digests.push_back(found.digests.asked->to_string());
  }
  // A description that skipped `validate` may hold what is not UTF-8.
  std::string text = json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize(text.size() - 2);  // "\n}"
  return text + detail::check_member(text);
}

/// Reads what `encode_descriptor` wrote. Anything else (changed by a bit, truncated, deep, too long, not UTF-8, of
/// another version, with names that are no file names) is `errc::corrupt_chunk`. Memory is bounded by a multiple of
/// `max_size`.
inline ChunkDescriptor decode_descriptor(std::string_view text, std::error_code& ec) {
  ec.clear();
  bool too_deep = false;
  const auto within_depth = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > ChunkDescriptor::max_depth;
    return !too_deep;  // what is discarded takes no memory
  };
  try {
    if (text.size() > ChunkDescriptor::max_size || !detail::is_checked(text)) throw detail::Malformed();
    const nlohmann::json json = nlohmann::json::parse(text, within_depth, false);
    if (json.is_discarded() || too_deep) throw detail::Malformed();
    return detail::read_descriptor(json);
  } catch (const detail::Malformed&) {
    ec = errc::corrupt_chunk;
    return {};
  }
}

/// Whether `descriptor` is that of `generation`, whose name tells the same things.
inline bool agrees(const ChunkDescriptor& descriptor, const Generation& generation) noexcept {
  return descriptor.chunk.id == generation.id && descriptor.chunk.dataset_id == generation.dataset_id &&
         descriptor.chunk.block_range == generation.block_range && descriptor.generation == generation.number &&
         descriptor.bytes() == generation.bytes;
}

}  // namespace garner
