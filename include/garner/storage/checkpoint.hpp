// SPDX-License-Identifier: BSL-1.0
//
// The note beside a staged file that lets another run go on with it: how many of its bytes are right, their digest, and
// where they came from. Its names and its text; what is done with it is in staging.hpp, and nothing here touches a
// disk.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/storage/digest_stream.hpp"

namespace garner::detail {

/// Nobody has synced the bytes, and after a power cut some of them may be zeros, or there may be fewer: what counts is
/// what has the digest.
struct Checkpoint {
  static constexpr std::size_t max_size = std::size_t{16} << 10;  ///< bytes of a note

  std::uint64_t size = 0;  ///< bytes
  Xxh3 xxh3{};             ///< of so many bytes
  std::string asked;       ///< of the file: `asked_of`
  std::string origin;      ///< the user's own text
};

/// A note's name, for a file of any legal name. It begins with a dot, so that it is no file's. There are two, in turn:
/// the next one is written before the last one is taken away.
inline std::string checkpoint_name(std::string_view file, bool second) {
  DigestStream digest;
  digest.update(std::as_bytes(std::span(file)));
  const Xxh3 hash = digest.xxh3();
  return (second ? ".checkpoint-2-" : ".checkpoint-1-") + format_hex(hash.data(), hash.size());
}

/// What a description asks of a file, in one line.
inline std::string asked_of(const FileSource& source) {
  return (source.size ? std::to_string(*source.size) : std::string("any")) + ' ' +
         (source.digest ? source.digest->to_string() : std::string("any"));
}

inline std::string encode_checkpoint(const Checkpoint& checkpoint) {
  return std::to_string(checkpoint.size) + '\n' + format_hex(checkpoint.xxh3.data(), checkpoint.xxh3.size()) + '\n' +
         checkpoint.asked + '\n' + checkpoint.origin + "\nend\n";
}

/// Nothing where `note` is not a whole one.
inline std::optional<Checkpoint> decode_checkpoint(std::string_view note) {
  constexpr std::string_view end = "\nend\n";
  if (note.size() > Checkpoint::max_size || !note.ends_with(end)) return std::nullopt;
  note.remove_suffix(end.size());
  std::array<std::string_view, 3> lines;
  for (std::string_view& line : lines) {
    const std::size_t stop = note.find('\n');
    if (stop == std::string_view::npos) return std::nullopt;
    line = note.substr(0, stop);
    note.remove_prefix(stop + 1);
  }
  Checkpoint checkpoint;
  const char* const last = lines[0].data() + lines[0].size();
  const auto [stop, error] = std::from_chars(lines[0].data(), last, checkpoint.size);
  if (error != std::errc() || stop != last) return std::nullopt;
  if (!parse_hex(lines[1], checkpoint.xxh3.data(), checkpoint.xxh3.size())) return std::nullopt;
  checkpoint.asked = lines[2];
  checkpoint.origin = note;
  return checkpoint;
}

}  // namespace garner::detail
