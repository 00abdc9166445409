// SPDX-License-Identifier: BSL-1.0
//
// The names in a data directory: how they are written and how they are read. Reading is strict: a name that parses is
// the very name that would be written for what it says. Nothing here touches a disk.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/policies/storage.hpp"

namespace garner::store_layout {

inline constexpr const char* lock_file = "LOCK";
inline constexpr const char* format_file = "FORMAT";
inline constexpr const char* new_format_file = "FORMAT.new";  ///< renamed to `FORMAT` when it is whole
inline constexpr const char* probe_file = "PROBE";            ///< written to find out whether that is possible
inline constexpr std::string_view stride_prefix = "STRIDE.";  ///< then a number: see `BasicVolumes::recover`
inline constexpr const char* chunks_directory = "chunks";
inline constexpr const char* staging_directory = "staging";
inline constexpr const char* doomed_directory = "doomed";
inline constexpr const char* trash_directory = "trash";
inline constexpr const char* quarantine_directory = "quarantine";
inline constexpr const char* descriptions_directory = "descriptions";  ///< of what is on other volumes
inline constexpr const char* lost_suffix = ".lost";  ///< of a dataset's directory, while its name is made durable
inline constexpr const char* boot_file = "boot";     ///< in `doomed/`: in which boot of the machine it was last used
inline constexpr const char* descriptor_file = "chunk.json";

/// All that `FORMAT` holds.
inline constexpr std::string_view format_text = "garner 1\n";

}  // namespace garner::store_layout

namespace garner::detail {

inline constexpr std::size_t id_digits = 64;
inline constexpr std::size_t padded_digits = 10;

/// Zero-padded, so that `ls` shows chunks in the order of their blocks.
inline void append_padded(std::string& out, std::uint64_t number) {
  const std::string digits = std::to_string(number);
  if (digits.size() < padded_digits) out.append(padded_digits - digits.size(), '0');
  out += digits;
}

inline std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept {
  std::uint64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [last, error] = std::from_chars(digits.data(), end, number);
  if (digits.empty() || error != std::errc() || last != end) return std::nullopt;
  return number;
}

/// What `append_padded` writes, and nothing else.
inline std::optional<std::uint64_t> parse_padded(std::string_view digits) noexcept {
  if (digits.size() < padded_digits || (digits.size() > padded_digits && digits.front() == '0')) return std::nullopt;
  return parse_number(digits);
}

/// What is found is counted on from: nobody's name is to end that.
inline constexpr std::uint64_t most_generations = std::uint64_t{1} << 63;

/// A generation's number as it stands in a name: from 1, without leading zeros, and so that there are many above it.
inline std::optional<std::uint64_t> parse_generation(std::string_view digits) noexcept {
  if (digits.empty() || digits.front() == '0') return std::nullopt;
  const std::optional<std::uint64_t> number = parse_number(digits);
  return number && *number <= most_generations ? number : std::nullopt;
}

template <class Id>
std::optional<Id> parse_id(std::string_view hex) noexcept {
  bool has_upper_case = false;
  for (const char c : hex) has_upper_case |= static_cast<unsigned char>(c - 'A') < 6;  // without a branch
  if (has_upper_case) return std::nullopt;
  return Id::try_from_hex(hex);
}

/// Takes what stands before the first `separator` off `text`; nothing where there is none.
inline std::optional<std::string_view> take_field(std::string_view& text, char separator) noexcept {
  const std::size_t at = text.find(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view field = text.substr(0, at);
  text.remove_prefix(at + 1);
  return field;
}

}  // namespace garner::detail

namespace garner::store_layout {

/// A dataset's directory in `chunks/`: its id, 64 digits in lower case.
inline std::string dataset_name(const DatasetId& id) { return id.to_hex(); }

inline std::optional<DatasetId> parse_dataset_name(std::string_view name) noexcept {
  return detail::parse_id<DatasetId>(name);
}

/// A chunk's directory in its dataset's: `{begin}-{end}-{bytes}-{chunk id}.{generation}`, numbers in at least ten
/// digits. Generation 0, which no store gives out, has no suffix.
inline std::string chunk_name(const Generation& generation) {
  std::string name;
  name.reserve(160);
  for (const std::uint64_t number : {generation.block_range.begin, generation.block_range.end, generation.bytes}) {
    detail::append_padded(name, number);
    name += '-';
  }
  name += generation.id.to_hex();
  if (generation.number != 0) name += '.' + std::to_string(generation.number);
  return name;
}

/// The generation that `name` says, in dataset `dataset_id`; nothing where it is not such a name. Allocates nothing.
inline std::optional<Generation> parse_chunk_name(std::string_view name, const DatasetId& dataset_id) noexcept {
  std::array<std::uint64_t, 3> numbers{};
  for (std::uint64_t& number : numbers) {
    const auto field = detail::take_field(name, '-');
    const auto value = field ? detail::parse_padded(*field) : std::nullopt;
    if (!value) return std::nullopt;
    number = *value;
  }
  const auto id = detail::parse_id<ChunkId>(name.substr(0, detail::id_digits));
  if (!id || numbers[0] >= numbers[1]) return std::nullopt;
  Generation generation{*id, dataset_id, {numbers[0], numbers[1]}, numbers[2], 0};
  name.remove_prefix(detail::id_digits);
  if (!name.empty()) {
    const auto number = name.front() == '.' ? detail::parse_generation(name.substr(1)) : std::nullopt;
    if (!number) return std::nullopt;
    generation.number = *number;
  }
  return generation;
}

/// A generation's directory, below a data directory.
inline std::filesystem::path chunk_path(const Generation& generation) {
  return std::filesystem::path(chunks_directory) / dataset_name(generation.dataset_id) / chunk_name(generation);
}

/// A generation's name in `doomed/`, `trash/` and `quarantine/`, which hold those of all datasets: `{dataset id}-{chunk
/// name}`. At most 213 bytes.
inline std::string qualified_name(const Generation& generation) {
  return dataset_name(generation.dataset_id) + '-' + chunk_name(generation);
}

/// Beside a generation in `quarantine/`: why it is there.
inline constexpr std::string_view reason_suffix = ".reason";

inline std::string reason_name(const std::string& qualified_name) {
  return qualified_name + std::string(reason_suffix);
}

inline std::optional<Generation> parse_qualified_name(std::string_view name) noexcept {
  const auto dataset = detail::take_field(name, '-');
  const auto id = dataset ? parse_dataset_name(*dataset) : std::nullopt;
  return id ? parse_chunk_name(name, *id) : std::nullopt;
}

/// A generation's name in `staging/`, where its bytes are not known yet: `{chunk id}.{generation}`.
struct StagingName {
  ChunkId id;
  std::uint64_t number = 0;

  friend bool operator==(const StagingName&, const StagingName&) = default;
};

inline std::string staging_name(const StagingName& name) {
  return name.id.to_hex() + '.' + std::to_string(name.number);
}

inline std::optional<StagingName> parse_staging_name(std::string_view name) noexcept {
  const auto hex = detail::take_field(name, '.');
  const auto id = hex ? detail::parse_id<ChunkId>(*hex) : std::nullopt;
  const auto number = detail::parse_generation(name);
  if (!id || !number) return std::nullopt;
  return StagingName{*id, *number};
}

}  // namespace garner::store_layout
