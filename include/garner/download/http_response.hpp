// SPDX-License-Identifier: BSL-1.0
//
// Reads the head of an HTTP response, line by line and without trust, and judges what it means for a request: bytes
// from which offset on and how many, a redirect, or which error. No I/O, and no libcurl.
#pragma once

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/error.hpp"
#include "garner/http_header.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

inline std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

/// Digits and nothing else; nothing where it overflows.
inline std::optional<std::uint64_t> parse_decimal(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A validator that may be stored and sent back: it comes from a server, or from a file, and goes into a header.
inline bool is_clean_validator(std::string_view text) {
  if (text.empty() || text.size() > 1024) return false;
  for (const char c : text) {
    if (c < ' ' || c > '~') return false;
  }
  return true;
}

/// `Content-Range` of a 206 or a 416 (RFC 9110, 14.4).
struct ContentRange {
  std::optional<std::uint64_t> first;  ///< with `last`, or neither: `bytes */total`
  std::optional<std::uint64_t> last;   ///< included
  std::optional<std::uint64_t> total;

  static std::optional<ContentRange> parse(std::string_view text) {
    if (text.size() < 6 || !same_token(text.substr(0, 6), "bytes ")) return std::nullopt;
    text = trim(text.substr(6));
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const std::string_view range = text.substr(0, slash);
    const std::string_view whole = text.substr(slash + 1);
    ContentRange out;
    if (whole != "*") {
      out.total = parse_decimal(whole);
      if (!out.total) return std::nullopt;
    }
    if (range == "*") return out;
    const std::size_t dash = range.find('-');
    if (dash == std::string_view::npos) return std::nullopt;
    out.first = parse_decimal(range.substr(0, dash));
    out.last = parse_decimal(range.substr(dash + 1));
    if (!out.first || !out.last || *out.first > *out.last) return std::nullopt;
    if (*out.last == std::numeric_limits<std::uint64_t>::max() || (out.total && *out.last >= *out.total)) {
      return std::nullopt;
    }
    return out;
  }
};

/// What of a response's head matters here. Trailers and informational responses are counted and otherwise ignored.
class HttpHead {
 public:
  explicit HttpHead(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// Takes the next line, with its end. An error ends the transfer.
  std::error_code add_line(std::string_view line) {
    bytes_ += line.size();
    if (bytes_ > max_bytes_) return errc::malformed_response;
    if (complete_) return {};
    if (!in_fields_) return add_status_line(trim(line));
    if (trim(line).empty()) {
      in_fields_ = false;
      complete_ = status_ >= 200;
      return {};
    }
    return add_field(line);
  }

  /// The line that ends the head of a final response has been seen.
  [[nodiscard]] bool complete() const { return complete_; }
  /// 0 before there was one.
  [[nodiscard]] int status() const { return status_; }

  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool encoded = false;  ///< a Content-Encoding other than identity
  std::optional<std::string> content_range;
  std::string etag;
  std::string last_modified;
  std::string location;
  std::string retry_after;

 private:
  std::error_code add_status_line(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (line.substr(0, 5) != "HTTP/" || space == std::string_view::npos) return errc::malformed_response;
    const auto status = parse_decimal(line.substr(space + 1, 3));
    if (!status || *status < 100 || *status > 599) return errc::malformed_response;
    const std::size_t bytes = bytes_;
    *this = HttpHead(max_bytes_);
    bytes_ = bytes;
    status_ = static_cast<int>(*status);
    in_fields_ = true;
    return {};
  }

  std::error_code add_field(std::string_view line) {
    const std::size_t colon = line.find(':');
    // A folded line, or a space before the colon: what smuggling is made of (RFC 9112, 5.1 and 5.2).
    if (colon == std::string_view::npos || colon == 0 || line.find_first_of(" \t") < colon) {
      return errc::malformed_response;
    }
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = trim(line.substr(colon + 1));
    if (same_token(name, "content-length")) {
      const auto length = parse_decimal(value);
      if (content_length || chunked || !length) return errc::malformed_response;
      content_length = length;
    } else if (same_token(name, "transfer-encoding")) {
      // libcurl would undo a compression here without being asked to.
      if (!same_token(value, "chunked")) return errc::encoding_not_allowed;
      if (content_length || chunked) return errc::malformed_response;
      chunked = true;
    } else if (same_token(name, "content-encoding")) {
      encoded = encoded || !(value.empty() || same_token(value, "identity"));
    } else if (same_token(name, "content-range")) {
      if (content_range) return errc::malformed_response;
      content_range = std::string(value);
    } else if (same_token(name, "etag")) {
      if (is_clean_validator(value)) etag = value;
    } else if (same_token(name, "last-modified")) {
      if (is_clean_validator(value)) last_modified = value;
    } else if (same_token(name, "location")) {
      location = value;
    } else if (same_token(name, "retry-after")) {
      retry_after = value;
    }
    return {};
  }

  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  int status_ = 0;
  bool in_fields_ = false;
  bool complete_ = false;
};

/// What a response's head means for a request.
struct Verdict {
  enum class Kind : std::uint8_t {
    data,      ///< its body is the file's bytes from `offset` on
    complete,  ///< there is nothing after the bytes that are held already
    redirect,  ///< to the head's `location`
    refused,   ///< `error`; its body is nothing
  };
  Kind kind = Kind::refused;
  std::error_code error;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> body;  ///< bytes, where the server tells
  SourceIdentity identity;
};

/// The error that a status stands for which carries no data (DESIGN: failure).
inline errc error_of_status(int status) {
  switch (status) {
    case 401:
    case 403: return errc::credentials_rejected;
    case 404:
    case 410: return errc::not_found;
    case 408:
    case 425: return errc::server_unavailable;
    case 429:
    case 503: return errc::server_busy;
    default: return status >= 500 ? errc::server_unavailable : errc::unexpected_status;
  }
}

/// Judges `head`, which is complete, as the answer to `request`; nothing above `max_file_bytes` is accepted.
inline Verdict judge(const FetchRequest& request, const HttpHead& head, std::uint64_t max_file_bytes) {
  Verdict out;
  out.identity = {std::nullopt, head.etag, head.last_modified};
  const auto refuse = [&out](errc error) {
    out.kind = Verdict::Kind::refused;
    out.error = error;
    return out;
  };
  const int status = head.status();
  const bool redirects = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
  if (redirects && !head.location.empty()) {
    out.kind = Verdict::Kind::redirect;
    return out;
  }
  const auto range = head.content_range ? ContentRange::parse(*head.content_range) : std::nullopt;
  if (status == 416 && request.offset > 0) {
    const std::uint64_t offset = request.offset;
    const bool told = range && range->total;
    const bool known = request.size == offset || request.identity.length == offset;
    if (told ? *range->total != offset : !known) return refuse(errc::range_mismatch);
    if (request.size && *request.size != offset) return refuse(errc::range_mismatch);
    out.kind = Verdict::Kind::complete;
    out.offset = offset;
    out.body = 0;
    out.identity = request.identity;
    out.identity.length = offset;
    return out;
  }
  if (status != 200 && status != 206) return refuse(error_of_status(status));
  if (head.encoded) return refuse(errc::encoding_not_allowed);
  out.kind = Verdict::Kind::data;

  if (status == 200) {
    out.body = head.content_length;
    out.identity.length = head.content_length;
    if (out.body.value_or(0) > request.size.value_or(max_file_bytes)) return refuse(errc::body_too_long);
    if (out.body && request.size && *out.body < *request.size) return refuse(errc::body_too_short);
    return out;
  }

  if (!range || !range->first || *range->first != request.offset) return refuse(errc::range_mismatch);
  out.offset = request.offset;
  out.body = *range->last - *range->first + 1;
  if (head.content_length && *head.content_length != *out.body) return refuse(errc::range_mismatch);
  // All the rest was asked for, so a range that ends early is another one.
  out.identity.length = range->total ? range->total : request.size;
  if (out.identity.length && *out.identity.length != *range->last + 1) return refuse(errc::range_mismatch);
  if (request.size && *out.identity.length != *request.size) return refuse(errc::range_mismatch);
  if (request.identity.length && *request.identity.length != *range->last + 1) return refuse(errc::range_mismatch);
  if (*range->last >= max_file_bytes) return refuse(errc::body_too_long);
  if (request.offset > 0) {
    const SourceIdentity& held = request.identity;
    const bool other_etag = !held.etag.empty() && !head.etag.empty() && held.etag != head.etag;
    const bool other_date = held.etag.empty() && !held.last_modified.empty() && !head.last_modified.empty() &&
                            held.last_modified != head.last_modified;
    if (other_etag || other_date) return refuse(errc::source_changed);
    // A 206 need not repeat the validators (RFC 9110, 15.3.7).
    if (out.identity.etag.empty()) out.identity.etag = held.etag;
    if (out.identity.last_modified.empty()) out.identity.last_modified = held.last_modified;
  }
  return out;
}

/// The value of `If-Range` for a request from an offset on: a strong ETag or a date, else empty (RFC 9110, 13.1.5).
inline std::string if_range(const SourceIdentity& identity) {
  const bool strong = is_clean_validator(identity.etag) && identity.etag.substr(0, 2) != "W/";
  if (strong) return identity.etag;
  return is_clean_validator(identity.last_modified) ? identity.last_modified : std::string();
}

/// `Retry-After` as a number of seconds; `parse_date` gives seconds since the epoch for an HTTP date, or -1. Nothing
/// where it is garbage, negative or past (RFC 9110, 10.2.3).
template <class ParseDate>
std::optional<std::chrono::nanoseconds> parse_retry_after(const std::string& text, std::int64_t now,
                                                          ParseDate parse_date) {
  constexpr std::int64_t longest = std::int64_t{10} * 365 * 24 * 3600;
  if (const auto seconds = parse_decimal(text)) {
    const auto most = static_cast<std::uint64_t>(longest);
    return std::chrono::seconds(static_cast<std::int64_t>(*seconds < most ? *seconds : most));
  }
  if (text.empty() || (text.front() >= '0' && text.front() <= '9')) return std::nullopt;
  const std::int64_t date = parse_date(text);
  if (date < 0 || date <= now) return std::nullopt;
  return std::chrono::seconds(date - now < longest ? date - now : longest);
}

}  // namespace garner::detail
