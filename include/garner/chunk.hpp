// SPDX-License-Identifier: BSL-1.0
//
// What a chunk is: its block range, its files and where they come from, and what makes such a description
// valid. Values only. The one check that is not here is whether a URL parses: that is the Downloader's, which
// will use it.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/http_header.hpp"
#include "garner/ids.hpp"
#include "garner/keyed_hash.hpp"

namespace garner {

/// A block's number within its dataset.
using BlockNumber = std::uint64_t;

/// A half-open range of blocks: [begin, end).
struct BlockRange {
  BlockNumber begin = 0;
  BlockNumber end = 0;

  [[nodiscard]] constexpr bool contains(BlockNumber block) const noexcept { return begin <= block && block < end; }
  [[nodiscard]] constexpr bool meets(const BlockRange& other) const noexcept {
    return begin < other.end && other.begin < end;
  }
  friend constexpr auto operator<=>(const BlockRange&, const BlockRange&) noexcept = default;
};

enum class DigestAlgorithm : std::uint8_t { md5, sha1, sha256, sha512 };

constexpr std::string_view to_string(DigestAlgorithm algorithm) noexcept {
  switch (algorithm) {
    case DigestAlgorithm::md5: return "md5";
    case DigestAlgorithm::sha1: return "sha1";
    case DigestAlgorithm::sha256: return "sha256";
    case DigestAlgorithm::sha512: return "sha512";
  }
  return "unknown";
}

/// A cryptographic digest that a file's bytes must have.
class Digest {
 public:
  /// Reads "algorithm:hex" (`sha256:…`, `sha1:…`, `sha512:…`, `md5:…`; hex of either case).
  /// Throws `Error` with `errc::invalid_digest`.
  static Digest parse(std::string_view text) {
    std::optional<Digest> digest = try_parse(text);
    if (!digest) throw Error(errc::invalid_digest, std::string(text.substr(0, 160)));
    return *digest;
  }

  /// As `parse`, with nothing where that throws.
  static std::optional<Digest> try_parse(std::string_view text) noexcept {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    for (const auto algorithm :
         {DigestAlgorithm::md5, DigestAlgorithm::sha1, DigestAlgorithm::sha256, DigestAlgorithm::sha512}) {
      if (text.substr(0, colon) != garner::to_string(algorithm)) continue;
      Digest digest(algorithm);
      if (!detail::parse_hex(text.substr(colon + 1), digest.bytes_.data(), digest.size())) return std::nullopt;
      return digest;
    }
    return std::nullopt;
  }

  /// "algorithm:hex", in lower case.
  [[nodiscard]] std::string to_string() const {
    return std::string(garner::to_string(algorithm_)) + ":" + detail::format_hex(bytes_.data(), size());
  }

  [[nodiscard]] DigestAlgorithm algorithm() const noexcept { return algorithm_; }
  /// Length in bytes: 16, 20, 32 or 64.
  [[nodiscard]] std::size_t size() const noexcept {
    constexpr std::array<std::size_t, 4> sizes = {16, 20, 32, 64};
    return sizes[static_cast<std::size_t>(algorithm_)];
  }
  /// `size()` bytes; valid while the digest lives.
  [[nodiscard]] const std::uint8_t* data() const noexcept { return bytes_.data(); }

  friend bool operator==(const Digest&, const Digest&) noexcept = default;

 private:
  explicit Digest(DigestAlgorithm algorithm) noexcept : algorithm_(algorithm) {}

  DigestAlgorithm algorithm_;
  std::array<std::uint8_t, 64> bytes_{};
};

/// Where one file comes from, and what is known about its bytes. Converts from one URL.
struct FileSource {
  FileSource() = default;
  FileSource(std::string url) : urls{std::move(url)} {}  // NOLINT(google-explicit-constructor): a URL is a source
  FileSource(const char* url) : urls{url} {}             // NOLINT(google-explicit-constructor)
  FileSource(std::vector<std::string> mirrors, std::optional<std::uint64_t> bytes, std::optional<Digest> expected)
      : urls(std::move(mirrors)), size(bytes), digest(expected) {}

  std::vector<std::string> urls;      ///< mirrors, in order of preference
  std::optional<std::uint64_t> size;  ///< bytes
  std::optional<Digest> digest;
  std::vector<HttpHeader> headers = {};  ///< for all mirrors: tokens and the like

  friend bool operator==(const FileSource&, const FileSource&) = default;
};

/// The description of one immutable chunk.
struct DataChunk {
  ChunkId id;
  DatasetId dataset_id;
  BlockRange block_range;
  std::map<std::string, FileSource> files;  ///< file name -> where from

  friend bool operator==(const DataChunk&, const DataChunk&) = default;
};

namespace detail {

inline std::string fold_case(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

/// Whether a parameter says who asks, or until when, and not for what. `name` in lower case; the exact ones are those
/// of Azure's shared access signatures.
inline bool is_signing_parameter(std::string_view name) {
  for (const std::string_view part : {"x-amz-", "x-goog-", "sig", "token", "secret", "password", "credential",
                                      "accesskeyid", "key-pair-id", "expires", "policy"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  for (const std::string_view exact : {"se", "sp", "sv", "sr", "st", "spr", "sip", "skt", "ske", "sks", "skv"}) {
    if (name == exact) return true;
  }
  return false;
}

/// Stands for the parameters of a query that is not shown: "-" and a short digest of those that may tell one file from
/// another; empty where there is none.
inline std::string query_digest(std::string_view query) {
  Sha256 hash;
  bool any = false;
  while (!query.empty()) {
    query.remove_prefix(1);  // the mark, or the ampersand
    const std::string_view parameter = query.substr(0, query.find('&'));
    query.remove_prefix(parameter.size());
    if (parameter.empty() || is_signing_parameter(fold_case(parameter.substr(0, parameter.find('='))))) continue;
    hash.update(parameter);
    hash.update(std::string_view("&"));
    any = true;
  }
  if (!any) return {};
  std::string out = "-";
  out += format_hex(hash.finish().data(), 6);
  return out;
}

/// Where not, `redact_url` leaves it as it is: a user ends in an at-sign, and a query begins with a mark.
inline bool may_have_secrets(std::string_view url) noexcept {
  return url.find('@') != std::string_view::npos || url.find('?') != std::string_view::npos ||
         url.find('#') != std::string_view::npos;
}

}  // namespace detail

/// `url` without what must not be shown or stored: its user and password, and a query that carries a signature, a token
/// or a key. In the place of such a query stands "?redacted", with a digest of 48 bits of those of its parameters that
/// may name the file (`key=` among them), so that the URLs of two files stay two. Works on text that is no valid URL
/// too, and then removes rather too much.
inline std::string redact_url(std::string_view url) {
  std::string out(url);
  std::size_t start = out.find("://");
  const bool has_scheme = start < out.find_first_of("/?#\\@");
  start = has_scheme ? start + 3 : 0;
  const std::size_t authority = std::min(out.find_first_of("/?#\\", start), out.size());
  // A password with an unescaped slash ends the authority early, at something that is no port number.
  const std::size_t colon = out.find(':', start);
  const bool cut_password = colon < authority && out.find_first_not_of("0123456789", colon + 1) < authority;
  const bool is_odd = cut_password || !has_scheme || authority == start;
  const std::size_t at = out.rfind('@', is_odd ? std::string::npos : authority);
  if (at != std::string::npos && at >= start) out.erase(start, at + 1 - start);

  const std::size_t query = std::min(out.find_first_of("?#", start), out.size());
  const std::string folded = detail::fold_case(std::string_view(out).substr(query));
  for (const std::string_view secret : {"sig", "token", "secret", "password", "credential", "key"}) {
    if (folded.find(secret) == std::string::npos) continue;
    const std::string kept = detail::query_digest(std::string_view(out).substr(query));
    out.replace(query, std::string::npos, "?redacted" + kept);
    break;
  }
  return out;
}

/// What a chunk holds, as a number: equal for descriptions that name the same content. Of a file with a digest the
/// digest counts, and not its mirrors; of one without, its (redacted) URLs do. Sizes do not count: a description that
/// tells them and one that does not may be of the same content (see `declared_bytes`). Headers do not: they say who
/// asks. Of this process alone: its key is random, so that no two descriptions can be made to be taken for one.
using ContentFingerprint = detail::KeyedHash::Result;

inline ContentFingerprint content_fingerprint(const DataChunk& chunk) {
  detail::KeyedHash hash(detail::KeyedHash::process_key());
  const auto bytes = [&hash](const std::uint8_t* data, std::size_t size) {
    hash.update(std::string_view(reinterpret_cast<const char*>(data), size));
  };
  const auto text = [&hash](std::string_view value) {
    hash.update(std::uint64_t{value.size()});
    hash.update(value);
  };
  bytes(chunk.id.bytes().data(), 32);
  bytes(chunk.dataset_id.bytes().data(), 32);
  hash.update(chunk.block_range.begin);
  hash.update(chunk.block_range.end);
  for (const auto& [name, source] : chunk.files) {
    text(name);
    // A digest begins with more than any number of URLs.
    if (source.digest) {
      hash.update(~static_cast<std::uint64_t>(source.digest->algorithm()));
      bytes(source.digest->data(), source.digest->size());
      continue;
    }
    hash.update(std::uint64_t{source.urls.size()});
    for (const std::string& url : source.urls) {
      // Mostly there is nothing to be redacted.
      if (detail::may_have_secrets(url)) {
        text(redact_url(url));
      } else {
        text(url);
      }
    }
  }
  return hash.finish();
}

/// The chunk's size in bytes, where the description tells the size of each file. Of a valid description.
inline std::optional<std::uint64_t> declared_bytes(const DataChunk& chunk) noexcept {
  std::uint64_t total = 0;
  for (const auto& [name, source] : chunk.files) {
    if (!source.size) return std::nullopt;
    total += *source.size;
  }
  return total;
}

/// The limits that `validate` holds a description to.
struct ChunkLimits {
  std::size_t max_files = 10;
  std::uint64_t max_chunk_bytes = std::uint64_t{1} << 40;  ///< of all files whose size is declared, together
};

/// What is wrong with a description; `subject` names the chunk and the file or URL, redacted.
struct Invalid {
  std::error_code code;
  std::string subject;
};

namespace detail {

constexpr bool is_portable_file_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

/// `text` with everything but printable ASCII as `\xNN`, and cut short: for naming hostile input in a
/// message.
inline std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 120)) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      const auto byte = static_cast<std::uint8_t>(c);
      out += "\\x" + format_hex(&byte, 1);
    }
  }
  if (text.size() > 120) out += "...";
  return out;
}

}  // namespace detail

/// The first thing that is wrong with one file, or nothing. Looks at everything but whether the URLs parse; `subject`
/// names the file and the URL.
inline std::optional<Invalid> validate_file(const std::string& name, const FileSource& source) {
  const auto invalid = [&name](errc code, const std::string& detail) {
    return Invalid{code, "file '" + detail::printable(name) + "'" + detail};
  };
  if (!detail::is_portable_file_name(name)) return invalid(errc::invalid_file_name, "");
  if (const HttpHeader* header = detail::find_invalid_header(source.headers)) {
    return invalid(errc::invalid_header, ", " + detail::describe_header(*header));
  }
  if (source.urls.empty()) return invalid(errc::no_url, "");
  for (const std::string& url : source.urls) {
    const bool clean = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c <= '~'; });
    if (url.empty() || !clean) {
      return invalid(errc::invalid_url, ", URL '" + detail::printable(redact_url(url)) + "'");
    }
  }
  return std::nullopt;
}

/// The first thing that is wrong with `chunk`, or nothing. Looks at everything but whether the URLs parse.
inline std::optional<Invalid> validate(const DataChunk& chunk, const ChunkLimits& limits = {}) {
  const auto invalid = [&chunk](errc code, const std::string& detail) {
    return Invalid{code, "chunk " + chunk.id.to_hex() + detail};
  };
  if (chunk.block_range.begin >= chunk.block_range.end) {
    return invalid(errc::empty_block_range, ", blocks [" + std::to_string(chunk.block_range.begin) + ", " +
                                                std::to_string(chunk.block_range.end) + ")");
  }
  if (chunk.files.empty()) return invalid(errc::no_files, "");
  if (chunk.files.size() > limits.max_files) {
    return invalid(errc::too_many_files, ", " + std::to_string(chunk.files.size()) + " files");
  }
  std::uint64_t total = 0;
  // Names that are all in lower case are as distinct as they stand there.
  const bool must_fold = std::any_of(chunk.files.begin(), chunk.files.end(), [](const auto& file) {
    return std::any_of(file.first.begin(), file.first.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  });
  std::set<std::string> folded;
  for (const auto& [name, source] : chunk.files) {
    if (const std::optional<Invalid> found = validate_file(name, source)) {
      return Invalid{found->code, "chunk " + chunk.id.to_hex() + ", " + found->subject};
    }
    const auto invalid_file = [&, &of = name](errc code) { return invalid(code, ", file '" + of + "'"); };
    const std::string lower = detail::fold_case(name);
    if (lower == "chunk.json") return invalid_file(errc::reserved_file_name);
    if (must_fold && !folded.insert(lower).second) return invalid_file(errc::duplicate_file_name);
    const std::uint64_t size = source.size.value_or(0);
    if (size > limits.max_chunk_bytes || total > limits.max_chunk_bytes - size) {
      return invalid_file(errc::chunk_too_large);
    }
    total += size;
  }
  return std::nullopt;
}

}  // namespace garner
