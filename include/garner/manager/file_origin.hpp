// SPDX-License-Identifier: BSL-1.0
//
// Where the bytes of a staged file came from, as one text that a store keeps beside them: the URL without its secrets,
// and the server's identity for them. What was read from a store is as little trusted as the store.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

struct FileOrigin {
  std::string url;  ///< redacted
  SourceIdentity identity;

  friend bool operator==(const FileOrigin&, const FileOrigin&) = default;
};

/// One line each, in which none of them can hold a line's end.
inline std::string to_text(const FileOrigin& origin) {
  const SourceIdentity& identity = origin.identity;
  return origin.url + '\n' + identity.etag + '\n' + identity.last_modified + '\n' +
         (identity.length ? std::to_string(*identity.length) : std::string());
}

/// Nothing where `text` is not such a text. Its parts go into a request: no control byte is let through.
inline std::optional<FileOrigin> parse_origin(std::string_view text) {
  std::array<std::string_view, 4> lines;
  for (std::size_t line = 0; line < lines.size(); ++line) {
    const std::size_t stop = line + 1 < lines.size() ? text.find('\n') : text.size();
    if (stop == std::string_view::npos) return std::nullopt;
    lines[line] = text.substr(0, stop);
    text.remove_prefix(std::min(stop + 1, text.size()));
    const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
    if (std::any_of(lines[line].begin(), lines[line].end(), is_control)) return std::nullopt;
  }
  FileOrigin origin{std::string(lines[0]), {std::nullopt, std::string(lines[1]), std::string(lines[2])}};
  if (lines[3].empty()) return origin;
  std::uint64_t length = 0;
  const auto [end, error] = std::from_chars(lines[3].data(), lines[3].data() + lines[3].size(), length);
  if (error != std::errc() || end != lines[3].data() + lines[3].size()) return std::nullopt;
  origin.identity.length = length;
  return origin;
}

}  // namespace garner::detail
