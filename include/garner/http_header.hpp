// SPDX-License-Identifier: BSL-1.0
//
// A header line that goes along with a request, as a value, and what makes one valid (RFC 9110, 5.1 and 5.5).
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace garner {

/// Its value may be a secret: it is written to no file, is in no message, and is sent to the origin that it was given
/// for and to no other.
struct HttpHeader {
  std::string name;
  std::string value;

  friend bool operator==(const HttpHeader&, const HttpHeader&) = default;
};

namespace detail {

constexpr std::size_t most_headers = 32;
constexpr std::size_t most_header_bytes = 16 * 1024;  // of all of them; servers take 8 KiB, as a rule

/// Equal but for the case of ASCII letters.
inline bool same_token(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

inline bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

/// Those that say what is asked for, how it is framed and where it goes: garner writes them itself.
inline bool is_own_header(std::string_view name) {
  for (const std::string_view own :
       {"host", "range", "if-range", "accept-encoding", "content-length", "content-encoding", "transfer-encoding",
        "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "http2-settings", "user-agent"}) {
    if (same_token(name, own)) return true;
  }
  return name.size() >= 6 && same_token(name.substr(0, 6), "proxy-");
}

inline bool is_header_value(std::string_view value) {
  if (!value.empty() && (value.front() == ' ' || value.back() == ' ')) return false;
  return std::none_of(value.begin(), value.end(), [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; });
}

/// The first that may not be sent, or null. Where there are too many, or too much, that is the one too many.
inline const HttpHeader* find_invalid_header(const std::vector<HttpHeader>& headers) {
  std::size_t bytes = 0;
  std::size_t count = 0;
  for (const HttpHeader& header : headers) {
    bytes += header.name.size() + header.value.size();
    const bool valid = is_token(header.name) && !is_own_header(header.name) && is_header_value(header.value);
    if (!valid || ++count > most_headers || bytes > most_header_bytes) return &header;
  }
  return nullptr;
}

/// For a message: its name where that is one. Text that is none may hold the value.
inline std::string describe_header(const HttpHeader& header) {
  return is_token(header.name) && header.name.size() <= 64 ? "header '" + header.name + "'" : "a header";
}

}  // namespace detail

}  // namespace garner
