// SPDX-License-Identifier: BSL-1.0
//
// garner 0.1.0 in a single header. Generated from include/garner by single_include/generate:
// what is to change changes there.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/address.hpp>
#include <asio/ip/network_v4.hpp>
#include <asio/ip/network_v6.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/system_executor.hpp>
#include <asio/thread_pool.hpp>
#include <curl/curl.h>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <compare>
#include <concepts>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

// garner/garner.hpp -----------------------------------------------------------------------------------------
// All of garner, in the order in which to read it: a header includes only what stands above it here, or in
// its own folder. This is also the one place where the default policies are named.

// Not sorted: the order is the point.
// clang-format off
// The vocabulary.

// garner/version.hpp ----------------------------------------------------------------------------------------
// The version of garner, and its only copy: CMake, Meson and the single header read it from here.

#define GARNER_VERSION_MAJOR 0
#define GARNER_VERSION_MINOR 1
#define GARNER_VERSION_PATCH 0

// garner/error.hpp ------------------------------------------------------------------------------------------
// What can go wrong: the error codes with their category, the classes that decide what is done about each,
// and the exception that names the chunk, the file or the URL. Not here: the checks that produce the codes.

namespace garner {

/// Every error that garner itself reports. What a policy reports in another category is classified by its
/// `std::errc` condition where it has one (see `classify`).
enum class errc : std::uint8_t {
  // A description that is invalid: rejected before any I/O, nothing changed.
  invalid_id = 1,       ///< an id is not 64 hexadecimal digits
  empty_block_range,    ///< the block range is empty or reversed
  no_files,             ///< the chunk has no file
  too_many_files,       ///< the chunk has more than `Options::max_files` files
  invalid_file_name,    ///< not a plain portable file name: `[A-Za-z0-9._-]`, 1 to 255 bytes, no leading dot
  duplicate_file_name,  ///< two names are equal but for case
  reserved_file_name,   ///< the store uses this name itself (`chunk.json`)
  chunk_too_large,      ///< sizes overflow, or are above `Options::max_chunk_bytes`
  invalid_digest,       ///< unknown algorithm, wrong length, or not hexadecimal
  no_url,               ///< a file has no URL
  invalid_url,          ///< a URL that does not parse, or has control bytes or spaces in it
  scheme_not_allowed,   ///< a URL's scheme is not `http` or `https` (or not `https`, where so configured)
  invalid_header,       ///< a header that is malformed, that garner writes itself, or too many or too long ones

  // A call that cannot be served.
  closed,  ///< the manager was closed

  // A transfer that failed.
  cancelled,             ///< it was no longer wanted
  resolve_failed,        ///< the host's name did not resolve
  connection_failed,     ///< no connection, or it was reset
  timed_out,             ///< no connection in time, or the transfer was too slow for too long
  server_unavailable,    ///< 408, 425 or 5xx: worth another try
  server_busy,           ///< 429 or 503: worth another try, and less of it at once
  credentials_rejected,  ///< 401 or 403
  refresh_failed,        ///< `Options::refresh` did not give a source that can be used
  not_found,             ///< 404 or 410
  unexpected_status,     ///< any other status that carries no data
  body_too_long,         ///< more bytes than were declared
  body_too_short,        ///< fewer bytes than were declared
  digest_mismatch,       ///< right length, wrong bytes
  range_mismatch,        ///< the server answered another range than was asked for
  source_changed,        ///< the source's validator changed between two parts
  redirect_not_allowed,  ///< to another scheme, from https to http, to a host that is not allowed, or too
                         ///< many
  encoding_not_allowed,  ///< a Content-Encoding that was not asked for
  malformed_response,    ///< headers too long, or a response that is not HTTP
  tls_failed,            ///< no trusted TLS connection

  // A store that failed.
  no_space,             ///< the disk or the quota is full
  over_budget,          ///< `Options::max_bytes` or `keep_free_bytes` does not allow it now
  read_only,            ///< the file system is read-only
  io_error,             ///< the disk failed a read or a write
  sync_failed,          ///< bytes may be lost: a sync failed, and is never retried
  too_many_open_files,  ///< out of descriptors
  permission_denied,    ///< the store may not touch its own files
  directory_in_use,     ///< another manager holds the data directory's lock
  not_a_directory,      ///< the data directory, or a part of it, is not a directory of its own
  unknown_format,       ///< the data directory's FORMAT is not one that this version reads
  no_such_generation,   ///< the store does not hold this generation
  corrupt_chunk,        ///< a stored chunk disagrees with its descriptor or its name

  policy_failed,  ///< a policy threw something that is not a `std::system_error`
};

/// What kind of failure an error is, which decides what is done about it (DESIGN: failure).
enum class ErrorClass : std::uint8_t {
  none,         ///< no error
  invalid,      ///< the caller's description, or a call at the wrong time: not retried
  transient,    ///< the network or the server, for a while: the next mirror, then backoff
  credentials,  ///< the source must be refreshed; until then the slowest pace
  wrong_bytes,  ///< drop those bytes, take the next mirror
  gone,         ///< the next mirror, then the slowest pace
  no_space,     ///< downloads are parked until there is room
  local,        ///< the store: throw the staging away, fetch into new files
  cancelled,    ///< not wanted any more
};

namespace detail {

struct ErrorInfo {
  errc code;
  ErrorClass cls;
  const char* text;
};

inline constexpr ErrorInfo error_table[] = {
    {errc::invalid_id, ErrorClass::invalid, "an id is 64 hexadecimal digits"},
    {errc::empty_block_range, ErrorClass::invalid, "the block range is empty or reversed"},
    {errc::no_files, ErrorClass::invalid, "the chunk has no files"},
    {errc::too_many_files, ErrorClass::invalid, "the chunk has too many files"},
    {errc::invalid_file_name, ErrorClass::invalid,
     "not a portable file name ([A-Za-z0-9._-], 1 to 255 bytes, no leading dot)"},
    {errc::duplicate_file_name, ErrorClass::invalid, "two file names are equal but for case"},
    {errc::reserved_file_name, ErrorClass::invalid, "the file name is reserved for the store"},
    {errc::chunk_too_large, ErrorClass::invalid, "the chunk's sizes overflow or are above the limit"},
    {errc::invalid_digest, ErrorClass::invalid, "not a digest (algorithm:hex, of sha256, sha1, sha512 or md5)"},
    {errc::no_url, ErrorClass::invalid, "the file has no URL"},
    {errc::invalid_url, ErrorClass::invalid, "not a valid URL"},
    {errc::scheme_not_allowed, ErrorClass::invalid, "the URL's scheme is not allowed"},
    {errc::invalid_header, ErrorClass::invalid, "a header is malformed, garner's own, or too much"},
    {errc::closed, ErrorClass::invalid, "the data manager is closed"},
    {errc::cancelled, ErrorClass::cancelled, "cancelled"},
    {errc::resolve_failed, ErrorClass::transient, "the host's name does not resolve"},
    {errc::connection_failed, ErrorClass::transient, "the connection failed or was reset"},
    {errc::timed_out, ErrorClass::transient, "the transfer was too slow for too long"},
    {errc::server_unavailable, ErrorClass::transient, "the server cannot answer at the moment"},
    {errc::server_busy, ErrorClass::transient, "the server asks for less"},
    {errc::credentials_rejected, ErrorClass::credentials, "the server rejected the credentials"},
    {errc::refresh_failed, ErrorClass::transient, "no fresh source could be had"},
    {errc::not_found, ErrorClass::gone, "the server does not have the file"},
    {errc::unexpected_status, ErrorClass::gone, "the server answered with a status that carries no data"},
    {errc::body_too_long, ErrorClass::wrong_bytes, "the body is longer than was declared"},
    {errc::body_too_short, ErrorClass::transient, "the body is shorter than was declared"},
    {errc::digest_mismatch, ErrorClass::wrong_bytes, "the bytes do not match their digest"},
    {errc::range_mismatch, ErrorClass::wrong_bytes, "the server answered another range than was asked for"},
    {errc::source_changed, ErrorClass::wrong_bytes, "the source changed while it was being fetched"},
    {errc::redirect_not_allowed, ErrorClass::wrong_bytes, "the redirect is not allowed"},
    {errc::encoding_not_allowed, ErrorClass::wrong_bytes, "the body has an encoding that was not asked for"},
    {errc::malformed_response, ErrorClass::wrong_bytes, "the response is malformed or its headers are too long"},
    {errc::tls_failed, ErrorClass::transient, "no trusted TLS connection"},
    {errc::no_space, ErrorClass::no_space, "the store is full"},
    {errc::over_budget, ErrorClass::no_space, "the byte budget does not allow it now"},
    {errc::read_only, ErrorClass::local, "the store is read-only"},
    {errc::io_error, ErrorClass::local, "the store failed to read or write"},
    {errc::sync_failed, ErrorClass::local, "the store failed to make bytes durable"},
    {errc::too_many_open_files, ErrorClass::local, "too many open files"},
    {errc::permission_denied, ErrorClass::local, "the store may not touch its files"},
    {errc::directory_in_use, ErrorClass::local, "another manager holds the data directory"},
    {errc::not_a_directory, ErrorClass::local, "not a directory"},
    {errc::unknown_format, ErrorClass::local, "the data directory has a format that this version does not read"},
    {errc::no_such_generation, ErrorClass::local, "the store does not hold this generation"},
    {errc::corrupt_chunk, ErrorClass::local, "the stored chunk is corrupt"},
    {errc::policy_failed, ErrorClass::local, "a policy threw an exception"},
};

constexpr const ErrorInfo* find_error(int value) noexcept {
  for (const ErrorInfo& info : error_table) {
    if (static_cast<int>(info.code) == value) return &info;
  }
  return nullptr;
}

class ErrorCategory final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "garner"; }
  [[nodiscard]] std::string message(int value) const override {
    const ErrorInfo* info = find_error(value);
    return info != nullptr ? info->text : "unknown error";
  }
};

}  // namespace detail

/// The category of `errc`. One object for the whole program.
inline const std::error_category& error_category() noexcept {
  static const detail::ErrorCategory category;
  return category;
}

inline std::error_code make_error_code(errc code) noexcept { return {static_cast<int>(code), error_category()}; }

}  // namespace garner

template <>
struct std::is_error_code_enum<garner::errc> : std::true_type {};

namespace garner {

/// The class of `code`: of ours by its table; of another category by the `std::errc` condition it is
/// equivalent to; what is neither is `ErrorClass::local`.
inline ErrorClass classify(const std::error_code& code) noexcept {
  if (!code) return ErrorClass::none;
  if (code.category() == error_category()) {
    const detail::ErrorInfo* info = detail::find_error(code.value());
    return info != nullptr ? info->cls : ErrorClass::local;
  }
  if (code == std::errc::no_space_on_device) return ErrorClass::no_space;
#ifdef EDQUOT
  // POSIX, and not among std::errc.
  const bool is_errno = code.category() == std::generic_category() || code.category() == std::system_category();
  if (is_errno && code.value() == EDQUOT) return ErrorClass::no_space;
#endif
  if (code == std::errc::operation_canceled) return ErrorClass::cancelled;
  for (const std::errc network :
       {std::errc::connection_refused, std::errc::connection_reset, std::errc::connection_aborted, std::errc::timed_out,
        std::errc::host_unreachable, std::errc::network_unreachable, std::errc::network_down, std::errc::network_reset,
        std::errc::broken_pipe}) {
    if (code == network) return ErrorClass::transient;
  }
  return ErrorClass::local;
}

constexpr std::string_view to_string(ErrorClass cls) noexcept {
  switch (cls) {
    case ErrorClass::none: return "none";
    case ErrorClass::invalid: return "invalid";
    case ErrorClass::transient: return "transient";
    case ErrorClass::credentials: return "credentials";
    case ErrorClass::wrong_bytes: return "wrong bytes";
    case ErrorClass::gone: return "gone";
    case ErrorClass::no_space: return "no space";
    case ErrorClass::local: return "local";
    case ErrorClass::cancelled: return "cancelled";
  }
  return "unknown";
}

/// Thrown by constructors, and by the throwing twins of calls that validate their input.
/// `subject()` names what it is about: a chunk, a file, a URL or a path, with its secrets redacted.
class Error : public std::system_error {
 public:
  Error(std::error_code code, std::string subject) : std::system_error(code, subject), subject_(std::move(subject)) {}

  [[nodiscard]] const std::string& subject() const noexcept { return subject_; }

 private:
  std::string subject_;
};

}  // namespace garner

// garner/ids.hpp --------------------------------------------------------------------------------------------
// ChunkId and DatasetId: 32 bytes each, two types that do not mix. Also the SHA-256 that turns a lake's text
// ids into them; it stands here, and not in libcrypto, because what includes this builds with the standard
// library alone.

namespace garner {

namespace detail {

/// SHA-256 (FIPS 180-4) of bytes given in one or more pieces. For names and fingerprints, tens of bytes at a
/// time; files are digested by libcrypto in `storage/`.
class Sha256 {
 public:
  using Result = std::array<std::uint8_t, 32>;

  constexpr void update(std::string_view text) noexcept {
    for (const char c : text) {
      block_[used_++] = static_cast<std::uint8_t>(c);
      if (used_ == block_.size()) flush();
    }
    length_ += text.size();
  }

  constexpr void update(std::uint64_t number) noexcept {
    for (int shift = 56; shift >= 0; shift -= 8) {
      const char byte = static_cast<char>(static_cast<std::uint8_t>(number >> shift));
      update(std::string_view(&byte, 1));
    }
  }

  [[nodiscard]] constexpr Result finish() noexcept {
    const std::uint64_t bits = length_ * 8;
    update(std::string_view("\x80", 1));
    while (used_ != 56) update(std::string_view("\0", 1));
    update(bits);
    Result out{};
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }
    return out;
  }

 private:
  static constexpr std::array<std::uint32_t, 64> k = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

  constexpr void flush() noexcept {
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 16; ++i) {
      w[i] = (std::uint32_t{block_[4 * i]} << 24) | (std::uint32_t{block_[4 * i + 1]} << 16) |
             (std::uint32_t{block_[4 * i + 2]} << 8) | std::uint32_t{block_[4 * i + 3]};
    }
    for (std::size_t i = 16; i < 64; ++i) {
      const std::uint32_t a = w[i - 15];
      const std::uint32_t b = w[i - 2];
      w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) + w[i - 7] +
             (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint32_t t1 =
          h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
      const std::uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> add = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state_[i] += add[i];
    used_ = 0;
  }

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_{};
  std::size_t used_ = 0;
  std::uint64_t length_ = 0;
};

inline constexpr std::uint8_t no_digit = 0xff;

/// The value of each character as a hexadecimal digit.
inline constexpr std::array<std::uint8_t, 256> hex_values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(no_digit);
  for (std::uint8_t i = 0; i < 10; ++i) values[std::size_t{'0'} + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i) {
    values[std::size_t{'a'} + i] = values[std::size_t{'A'} + i] = static_cast<std::uint8_t>(10 + i);
  }
  return values;
}();

/// Reads exactly `size` bytes of hexadecimal digits into `out`; false where there are more, fewer or others.
constexpr bool parse_hex(std::string_view hex, std::uint8_t* out, std::size_t size) noexcept {
  if (hex.size() != 2 * size) return false;
  // A start parses millions, and digits are so random that no branch on them is foretold.
  unsigned seen = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned high = hex_values[static_cast<unsigned char>(hex[2 * i])];
    const unsigned low = hex_values[static_cast<unsigned char>(hex[2 * i + 1])];
    seen |= high | low;
    out[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return seen < 16;
}

inline std::string format_hex(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out(2 * size, '0');
  for (std::size_t i = 0; i < size; ++i) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  return out;
}

}  // namespace detail

/// A 32-byte identifier; `Tag` makes ids of different things different types. A value: ordered by its bytes,
/// hashable with `std::hash`, formattable with fmt (`garner/format.hpp`) as 64 hexadecimal digits.
template <class Tag>
class BasicId {
 public:
  constexpr BasicId() noexcept = default;
  constexpr explicit BasicId(std::array<std::uint8_t, 32> bytes) noexcept : bytes_(bytes) {}

  /// The id that `hex`, 64 hexadecimal digits of either case, stands for. Throws `Error` with
  /// `errc::invalid_id`.
  static BasicId from_hex(std::string_view hex) {
    std::optional<BasicId> id = try_from_hex(hex);
    if (!id) throw Error(errc::invalid_id, std::string(hex.substr(0, 80)));
    return *id;
  }

  /// As `from_hex`, with nothing where that throws.
  static constexpr std::optional<BasicId> try_from_hex(std::string_view hex) noexcept {
    BasicId id;
    if (!detail::parse_hex(hex, id.bytes_.data(), id.bytes_.size())) return std::nullopt;
    return id;
  }

  /// SHA-256 of the bytes of `name`: for lakes whose ids are text.
  static constexpr BasicId from_name(std::string_view name) noexcept {
    detail::Sha256 hash;
    hash.update(name);
    return BasicId(hash.finish());
  }

  [[nodiscard]] std::string to_hex() const { return detail::format_hex(bytes_.data(), bytes_.size()); }
  [[nodiscard]] constexpr const std::array<std::uint8_t, 32>& bytes() const noexcept { return bytes_; }

  friend constexpr bool operator==(const BasicId&, const BasicId&) noexcept = default;
  friend constexpr auto operator<=>(const BasicId&, const BasicId&) noexcept = default;

 private:
  std::array<std::uint8_t, 32> bytes_{};
};

/// Names one immutable chunk of a data lake.
using ChunkId = BasicId<struct ChunkTag>;
/// Names one dataset, the space in which block numbers are counted.
using DatasetId = BasicId<struct DatasetTag>;

}  // namespace garner

/// Ids are digests or random, so any eight bytes of one are a hash. All four words are folded in all the
/// same: a lake may count its ids up in the last byte.
template <class Tag>
struct std::hash<garner::BasicId<Tag>> {
  std::size_t operator()(const garner::BasicId<Tag>& id) const noexcept {
    std::array<std::uint64_t, 4> words{};
    std::memcpy(words.data(), id.bytes().data(), sizeof(words));
    std::uint64_t mixed = 0;
    for (const std::uint64_t word : words) mixed = (std::rotl(mixed, 23) ^ word) * 0x9e3779b97f4a7c15U;
    return static_cast<std::size_t>(mixed ^ (mixed >> 32));
  }
};

// garner/keyed_hash.hpp -------------------------------------------------------------------------------------
// SipHash-2-4 of 128 bits: a hash that nobody can make two texts collide in who does not know its key. For what stays
// in this process; names and files are digested by SHA-256.

namespace garner::detail {

/// Aumasson, Bernstein: "SipHash: a fast short-input PRF" (2012), with the output of 128 bits of their reference code.
/// Of bytes given in one or more pieces; results are the same on every machine.
class KeyedHash {
 public:
  using Key = std::array<std::uint64_t, 2>;
  using Result = std::array<std::uint8_t, 16>;

  constexpr explicit KeyedHash(const Key& key) noexcept
      : v0_(key[0] ^ 0x736f6d6570736575U),
        v1_(key[1] ^ 0x646f72616e646f6dU ^ 0xee),
        v2_(key[0] ^ 0x6c7967656e657261U),
        v3_(key[1] ^ 0x7465646279746573U) {}

  /// Of this process: random, and the same from the first call on.
  static const Key& process_key() {
    static const Key key = [] {
      std::random_device device;
      const auto word = [&device] { return (std::uint64_t{device()} << 32) | device(); };
      const std::uint64_t first = word();
      return Key{first, word()};
    }();
    return key;
  }

  constexpr void update(std::string_view text) noexcept {
    length_ += text.size();
    if (used_ != 0) {
      const std::size_t more = std::min(text.size(), 8 - used_);
      take(text.substr(0, more));
      text.remove_prefix(more);
    }
    while (text.size() >= 8) {
      mix(word_of(text.substr(0, 8)));
      text.remove_prefix(8);
    }
    take(text);
  }

  /// Its eight bytes, the lowest first.
  constexpr void update(std::uint64_t number) noexcept {
    length_ += 8;
    if (used_ == 0) return mix(number);
    mix(partial_ | (number << (8 * used_)));
    partial_ = number >> (64 - 8 * used_);
  }

  [[nodiscard]] constexpr Result finish() noexcept {
    mix(partial_ | (length_ << 56));
    v2_ ^= 0xee;
    for (int i = 0; i < 4; ++i) round();
    const std::uint64_t low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < 4; ++i) round();
    const std::uint64_t high = v0_ ^ v1_ ^ v2_ ^ v3_;
    Result out{};
    for (std::size_t i = 0; i < 8; ++i) {
      out[i] = static_cast<std::uint8_t>(low >> (8 * i));
      out[i + 8] = static_cast<std::uint8_t>(high >> (8 * i));
    }
    return out;
  }

 private:
  /// Of up to eight bytes, the first the lowest.
  static constexpr std::uint64_t word_of(std::string_view bytes) noexcept {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      word |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
    }
    return word;
  }

  /// No more than what is missing to a word.
  constexpr void take(std::string_view bytes) noexcept {
    if (bytes.empty()) return;
    partial_ |= word_of(bytes) << (8 * used_);
    used_ += bytes.size();
    if (used_ < 8) return;
    mix(partial_);
    partial_ = used_ = 0;
  }

  constexpr void mix(std::uint64_t word) noexcept {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }

  constexpr void round() noexcept {
    v0_ += v1_, v1_ = std::rotl(v1_, 13), v1_ ^= v0_, v0_ = std::rotl(v0_, 32);
    v2_ += v3_, v3_ = std::rotl(v3_, 16), v3_ ^= v2_;
    v0_ += v3_, v3_ = std::rotl(v3_, 21), v3_ ^= v0_;
    v2_ += v1_, v1_ = std::rotl(v1_, 17), v1_ ^= v2_, v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t partial_ = 0;  // of the word that is not full yet
  std::size_t used_ = 0;       // bytes of it
  std::uint64_t length_ = 0;
};

}  // namespace garner::detail

// garner/http_header.hpp ------------------------------------------------------------------------------------
// A header line that goes along with a request, as a value, and what makes one valid (RFC 9110, 5.1 and 5.5).

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

// garner/chunk.hpp ------------------------------------------------------------------------------------------
// What a chunk is: its block range, its files and where they come from, and what makes such a description
// valid. Values only. The one check that is not here is whether a URL parses: that is the Downloader's, which
// will use it.

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

// garner/http_options.hpp -----------------------------------------------------------------------------------
// What can be chosen about HTTP, for every downloader that speaks it. Plain values; that libcurl is what speaks it by
// default is not seen here.

namespace garner {

/// Keys that requests are signed with: Signature Version 4 of AWS, by which S3 and what is like it know who asks.
struct S3Keys {
  std::string access_key;
  std::string secret_key;
  std::string session_token = {};  ///< of temporary keys
  std::string region = "us-east-1";
  std::string service = "s3";
};

/// What is sent to one host, or to several, with every request. To them alone: after a redirect to another origin
/// nothing of it is sent, not even where there are credentials for that. What a source brings along itself comes first:
/// its headers replace those of the same name, and one that brings a user in its URL, an `Authorization` header, or a
/// signature in its query gets neither token, password nor signature from here.
struct HostCredentials {
  /// A host's name (`lake.example`) or all names below one (`.lake.example`), which stand for https at any port; or an
  /// origin (`https://lake.example:8443`, `http://10.0.0.7:9000`).
  std::string host;
  std::vector<HttpHeader> headers = {};
  // One of these at most.
  std::string bearer_token = {};
  std::string user = {};  ///< with `password`: HTTP's Basic authentication
  std::string password = {};
  std::optional<S3Keys> s3 = std::nullopt;
};

/// Fixed at construction, all of it. What does not parse, and a file that cannot be read, is an `Error` there. Nothing
/// of it ever comes from the environment.
struct HttpOptions {
  std::string user_agent = "garner";
  /// `http://host:port` or `https://host:port`, with `user:password@` where it wants them; empty: none. Names are then
  /// resolved by the proxy, and `allowed_hosts` cannot see to which address.
  std::string proxy;

  /// Over TLS, where the server speaks HTTP/2, files of at most so many bytes share a connection (one for each loop).
  /// Larger ones, and those whose size is not known, have a connection each, by HTTP/1.1. 0: so do all.
  std::uint64_t http2_max_bytes = std::uint64_t{1} << 20;

  // TLS. Files are PEM.
  std::string ca_bundle;           ///< the authorities to trust, instead of the system's
  std::string client_certificate;  ///< with those between it and an authority; to whoever asks for one, but after a
                                   ///< redirect to another origin
  std::string client_key;          ///< empty: in the same file as the certificate
  std::string client_key_password;

  std::vector<HostCredentials> credentials = {};  ///< the first that is of a host counts

  // When a transfer is given up (`errc::timed_out`).
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);  ///< name, connection and TLS together
  std::uint32_t low_speed_bytes_per_second = 1024;                       ///< slower than this ...
  std::chrono::seconds low_speed_time = std::chrono::seconds(30);        ///< ... for this long; 0: never
};

}  // namespace garner

// garner/policies.hpp ---------------------------------------------------------------------------------------
// The three policies of a data manager: what each must offer, what it must promise, and what it is promised
// in return. One header each, with its requirement table, its concept and its diagnosis; and the smallest
// model of each.

// garner/policies/downloader.hpp ----------------------------------------------------------------------------
// The Downloader policy: its requirement table, the concept made of one named fragment a row, a diagnosis
// with one sentence a fragment, and what passes between a downloader and whoever takes the bytes.

namespace garner {

/// What identifies the bytes that a server has, so that a transfer can go on with the same ones.
struct SourceIdentity {
  std::optional<std::uint64_t> length;  ///< of the whole file, bytes
  std::string etag;                     ///< empty where the server gave none
  std::string last_modified;            ///< likewise

  friend bool operator==(const SourceIdentity&, const SourceIdentity&) = default;
};

/// One file's bytes, from one URL.
struct FetchRequest {
  std::string url;
  std::uint64_t offset = 0;              ///< the first byte that is wanted
  SourceIdentity identity;               ///< where `offset` > 0: of the bytes before it (RFC 9110, 13.1.5)
  std::optional<std::uint64_t> size;     ///< of the whole file, where it is known: no more is accepted
  std::vector<HttpHeader> headers = {};  ///< for the URL's origin alone; what is not HTTP has no use for them
};

/// How a transfer ended.
struct FetchResult {
  std::error_code error;                                ///< none: the source's last byte was given to the sink
  int http_status = 0;                                  ///< 0 where there was none
  std::optional<std::chrono::nanoseconds> retry_after;  ///< as the server asked, not yet clamped
  std::string detail;                                   ///< beside `error`, for people: the URL that was asked last
                                                        ///< (redacted) and what it answered; or empty
};

/// What a downloader is held to, over all of its transfers.
struct DownloadLimits {
  std::size_t connections_per_host = 8;  ///< at least 1
  std::uint64_t bytes_per_second = 0;    ///< of files' bytes; 0: no limit

  friend bool operator==(const DownloadLimits&, const DownloadLimits&) = default;
};

/// Takes the bytes of one transfer. `begin`, `write` and `done` are called by one thread at a time, in this
/// order: `begin` at most once, `write` any number of times after it, `done` exactly once and last. Where
/// `begin` or `write` returns an error, the transfer stops and `done` reports that error.
class FetchSink {
 public:
  FetchSink() = default;
  FetchSink(const FetchSink&) = delete;
  FetchSink& operator=(const FetchSink&) = delete;
  virtual ~FetchSink() = default;

  /// The server answered with bytes from `offset` on: the one that was asked for, or 0 where it starts over.
  virtual std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) = 0;
  /// The next bytes. They are only lent.
  virtual std::error_code write(std::span<const std::byte> bytes) = 0;
  /// The transfer is over, and the sink is not touched again.
  virtual void done(const FetchResult& result) = 0;
};

/// Downloader
/// ==========
/// | expression               | result            | must promise                                                        |
/// |--------------------------|-------------------|---------------------------------------------------------------------|
/// | `d.check_url(text)`      | `std::error_code` | none where `start` would take it; `errc::invalid_url` or            |
/// |                          |                   | `errc::scheme_not_allowed`; by the parser that `start` uses         |
/// | `d.start(request, sink)` | `D::Transfer`     | moves the bytes of `request` into `sink` and reports by its `done`, |
/// |                          |                   | exactly once. Does not wait for the network                         |
/// | `d.cancel(transfer)`     |                   | the transfer ends soon: its `done` comes with `errc::cancelled`, or |
/// |                          |                   | with what had happened before. Does not wait for it. Nothing        |
/// |                          |                   | happens where the transfer has ended                                |
/// | `d.set_limits(limits)`   |                   | optional: from soon on, for transfers that run too. Does not wait.  |
/// |                          |                   | Connections that are open may stay open. Over w seconds at most     |
/// |                          |                   | `bytes_per_second` * (w + 0.1 s) bytes are let through, and what    |
/// |                          |                   | waits for that is not taken for slow                                |
///
/// Thread-safety: every member from any thread. The sink of one transfer is called by one thread at a time.
/// Throws: `start` may throw; then the sink is not touched. The others throw nothing.
/// Body: only a success (200, 206) is data. More bytes than `request.size` or than the server declared, or fewer, are
/// an error. A downloader does not retry, and does not know about chunks or mirrors. Ends: its destructor stops all
/// transfers, and returns after their `done`. The sink may be called before `start` returns. In return: sinks do not
/// throw, and block at most for a write to a disk. The manager keeps the sink alive until its `done`.
// clang-format off
namespace fragments {
template <class D>
concept downloader_moves = std::move_constructible<D>;
template <class D>
concept downloader_checks_urls = requires(const D& d, std::string_view url) {
  { d.check_url(url) } -> std::same_as<std::error_code>;
};
template <class D>
concept downloader_has_transfer = requires { typename D::Transfer; } && std::copyable<typename D::Transfer>;
template <class D>
concept downloader_starts =
    !downloader_has_transfer<D> || requires(D& d, FetchRequest request, std::shared_ptr<FetchSink> sink) {
      { d.start(std::move(request), std::move(sink)) } -> std::same_as<typename D::Transfer>;
    };
template <class D>
concept downloader_cancels =
    !downloader_has_transfer<D> || requires(D& d, const typename D::Transfer& transfer) { d.cancel(transfer); };
}  // namespace fragments

template <class D>
concept Downloader =
    fragments::downloader_moves<D> && fragments::downloader_checks_urls<D> && fragments::downloader_has_transfer<D> &&
    fragments::downloader_starts<D> && fragments::downloader_cancels<D>;

/// A Downloader that has the optional `set_limits`.
template <class D>
concept LimitedDownloader = Downloader<D> && requires(D& d, const DownloadLimits& limits) { d.set_limits(limits); };
// clang-format on

/// Compiles where `D` is a Downloader; otherwise each requirement that it misses is one sentence.
template <class D>
constexpr bool diagnose_downloader() {
  static_assert(fragments::downloader_moves<D>, "garner: a Downloader must be move-constructible.");
  static_assert(fragments::downloader_checks_urls<D>,
                "garner: a Downloader must have check_url(std::string_view) const that returns a std::error_code.");
  static_assert(fragments::downloader_has_transfer<D>, "garner: a Downloader must have a copyable type Transfer.");
  static_assert(fragments::downloader_starts<D>,
                "garner: a Downloader must have start(garner::FetchRequest, std::shared_ptr<garner::FetchSink>) that "
                "returns its Transfer.");
  static_assert(fragments::downloader_cancels<D>, "garner: a Downloader must have cancel(const Transfer&).");
  return Downloader<D>;
}

}  // namespace garner

// garner/policies/executor.hpp ------------------------------------------------------------------------------
// The Executor policy: its requirement table, the concept made of one named fragment a row, and a diagnosis
// with one sentence a fragment.

namespace garner {

/// A unit of work. Runs once, or never where its executor ends first.
using Task = std::function<void()>;

/// A moment on an executor's own clock: nanoseconds since a moment of its choosing. Never runs backwards.
using Instant = std::chrono::nanoseconds;

/// Executor
/// ========
/// | expression                 | result     | must promise                                                      |
/// |----------------------------|------------|-------------------------------------------------------------------|
/// | `e.post(task)`             |            | runs `task` soon, once, never inside `post` itself                |
/// | `e.post_at(instant, task)` | `E::Timer` | runs `task` once, not before `instant`, never inside `post_at`    |
/// | `e.cancel(timer)`          |            | a task that has not begun will not run; otherwise nothing happens |
/// | `e.now()`                  | `Instant`  | the clock that `post_at` goes by                                  |
/// | `e.run_one_until(instant)` | `bool`     | *optional*, for an executor that its callers drive: runs one task |
/// |                            |            | on this thread, waiting for one until `instant`; false: none ran  |
///
/// Thread-safety: every member from any thread at any time. Tasks may run at the same time and in any order.
/// Throws: `post` and `post_at` may throw anything, and have then not taken the task; the others throw nothing.
/// Where it throws: no call of the manager fails, and no work is lost. What was refused is posted again with the next
/// call or report; or done by a task of the manager that ends before that; tried every millisecond while somebody is in
/// `wait_converged`; and done by `close` on its own thread. So an executor that is shut down before its manager should
/// throw, rather than drop what it is given: then `close` still returns. An alarm that was refused is set as late.
/// In return: tasks do not throw, and may block on I/O (those that a Storage makes them do). The manager posts nothing
/// after its `close()` has returned, and outlives each task that it has posted. Tasks still queued when the executor is
/// destroyed may be dropped.
// clang-format off
namespace fragments {
template <class E>
concept executor_moves = std::move_constructible<E>;
template <class E>
concept executor_posts = requires(E& e, Task task) { e.post(std::move(task)); };
template <class E>
concept executor_has_timer = requires { typename E::Timer; } && std::movable<typename E::Timer>;
template <class E>
concept executor_posts_at = !executor_has_timer<E> || requires(E& e, Instant at, Task task) {
  { e.post_at(at, std::move(task)) } -> std::same_as<typename E::Timer>;
};
template <class E>
concept executor_cancels = !executor_has_timer<E> || requires(E& e, typename E::Timer& timer) { e.cancel(timer); };
template <class E>
concept executor_tells_time = requires(const E& e) {
  { e.now() } -> std::convertible_to<Instant>;
};
}  // namespace fragments

template <class E>
concept Executor = fragments::executor_moves<E> && fragments::executor_posts<E> && fragments::executor_has_timer<E> &&
                   fragments::executor_posts_at<E> && fragments::executor_cancels<E> &&
                   fragments::executor_tells_time<E>;

/// An executor that runs nothing unless its callers drive it.
template <class E>
concept DrivenExecutor = Executor<E> && requires(E& e, Instant until) {
  { e.run_one_until(until) } -> std::same_as<bool>;
};
// clang-format on

/// Compiles where `E` is an Executor; otherwise each requirement that it misses is one sentence.
template <class E>
constexpr bool diagnose_executor() {
  static_assert(fragments::executor_moves<E>, "garner: an Executor must be move-constructible.");
  static_assert(fragments::executor_posts<E>, "garner: an Executor must have post(garner::Task).");
  static_assert(fragments::executor_has_timer<E>, "garner: an Executor must have a movable type Timer.");
  static_assert(fragments::executor_posts_at<E>,
                "garner: an Executor must have post_at(garner::Instant, garner::Task) that returns its Timer.");
  static_assert(fragments::executor_cancels<E>, "garner: an Executor must have cancel(Timer&).");
  static_assert(fragments::executor_tells_time<E>,
                "garner: an Executor must have now() const that returns a garner::Instant.");
  return Executor<E>;
}

}  // namespace garner

// garner/policies/minimal.hpp -------------------------------------------------------------------------------
// The smallest class that conforms to each policy: what to copy when writing one of one's own.

// garner/policies/storage.hpp -------------------------------------------------------------------------------
// The Storage policy: its requirement table, the concept made of one named fragment a row, and a diagnosis
// with one sentence a fragment.

namespace garner {

/// Names one published generation of a chunk: all that a store must tell of it without opening a file.
struct Generation {
  ChunkId id;
  DatasetId dataset_id;
  BlockRange block_range;
  std::uint64_t bytes = 0;   ///< of all its files
  std::uint64_t number = 0;  ///< its own: no other generation in this store has it
  std::uint32_t volume = 0;  ///< which of the store's volumes holds it; the store's own, opaque to the manager

  friend bool operator==(const Generation&, const Generation&) = default;
};

/// What `recover` found.
struct Recovery {
  std::error_code error;
  std::string subject;                ///< with an error: the path that it is about
  std::uint64_t last_generation = 0;  ///< the greatest number that is in use anywhere, leftovers included
  bool has_partial = false;           ///< chunks that an earlier run did not fetch to their end can be gone on with
};

/// What `clean_up` does with chunks that an earlier run did not fetch to their end.
enum class Partial : std::uint8_t { keep, remove };

/// How much of a generation is looked at.
enum class VerifyDepth : std::uint8_t {
  sizes,  ///< the description is read, and each file's kind and size compared with it; no file is opened for its bytes
  digests,  ///< every byte is read
};

/// Is told of each block that was read; false: no more is to be read.
using VerifyProgress = std::function<bool(std::uint64_t bytes)>;

struct StoreUsage {
  std::uint64_t bytes_used = 0;  ///< by published generations
  std::uint64_t bytes_free = 0;  ///< left for more
};

/// What a volume can do, as it was examined last.
enum class VolumeState : std::uint8_t {
  healthy,
  read_only,  ///< its generations are served; nothing is put there, and nothing there is removed
  away,       ///< set aside: nothing of it can be read
};

constexpr std::string_view to_string(VolumeState state) noexcept {
  switch (state) {
    case VolumeState::healthy: return "healthy";
    case VolumeState::read_only: return "read-only";
    case VolumeState::away: return "away";
  }
  return "unknown";
}

/// One of the places, each with limits of its own, that a store puts generations in.
struct VolumeStatus {
  std::string path;  ///< or what else people know it by
  VolumeState state = VolumeState::healthy;
  std::uint64_t bytes_used = 0;  ///< by published generations; 0 while it is away
  std::uint64_t bytes_free = 0;  ///< that may still be put there, within its limits; 0 where it is not healthy
  /// How often it was opened: a volume that was away and has come back as another opening has told by `found`
  /// what it holds, and holds nothing else.
  std::uint64_t openings = 0;
};

/// A staging area all of whose files are finished, and what became of it.
template <class Staging>
struct PublishRequest {
  Staging* staging;            ///< lent
  Generation generation = {};  ///< where there is no error
  std::error_code error = {};
};

/// Storage
/// =======
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.recover(found)`           | `Recovery`        | called first and once; calls `found(generation)` for each that |
/// |                              |                   | is published and not doomed, before it returns and one after   |
/// |                              |                   | another. Opens none of them                                    |
/// | `s.clean_up(partial)`        | `std::error_code` | takes away what an earlier run left half-done (doomed, half    |
/// |                              |                   | removed), what could not be discarded since, and, as `partial` |
/// |                              |                   | says, what could be gone on with; after an error it is called  |
/// |                              |                   | again, later                                                   |
/// | `s.stage(chunk, number, ec)` | `S::Staging`      | a staging area for this generation: empty, or with what an     |
/// |                              |                   | earlier run had of this chunk; with an error, nothing, or what |
/// |                              |                   | the next `clean_up` takes away                                 |
/// | `staging.open(name, ec)`     | `S::StagedFile`   | the staged file of this name: as it was at its last            |
/// |                              |                   | checkpoint, by an earlier run too, or empty                    |
/// | `file.size()`                | `std::uint64_t`   | the bytes that it has                                          |
/// | `file.write(bytes)`          | `std::error_code` | appends all of them; of none, tells whether more can be        |
/// |                              |                   | written, as far as that is known without trying                |
/// | `file.checkpoint(origin)`    | `std::error_code` | a later run opens the file with the bytes that it has now, and |
/// |                              |                   | with `origin`, as far as that can be done                      |
/// | `file.origin()`              | `std::string`     | of the last checkpoint, if by an earlier run                   |
/// | `file.restart()`             | `std::error_code` | empties it; there is no checkpoint any more                    |
/// | `file.finish()`              | `std::error_code` | it is whole: its size and digest are as the description says   |
/// |                              |                   | (or an error); it is durable, or will be when it is published  |
/// | `s.publish(staging, ec)`     | `Generation`      | all of it, durable, or nothing. Every file was finished        |
/// | `s.discard(staging)`         | `std::error_code` | the staging area is gone, or is the next `clean_up`'s          |
/// | `s.location(generation)`     | `S::Location`     | where it is; const, does not block                             |
/// | `s.describe(generation, ec)` | `DataChunk`       | the description it was staged with, sizes and digests as       |
/// |                              |                   | found, URLs redacted; const                                    |
/// | `s.doom(generation)`         | `std::error_code` | from now on the next start does not recover it; durable. After |
/// |                              |                   | an error, of this or of `spare`, either may be the case        |
/// | `s.spare(generation)`        | `std::error_code` | takes a `doom` back, that of one that failed too; durable      |
/// | `s.remove(generation)`       | `std::error_code` | gone, durably; its location is free. Called again after an     |
/// |                              |                   | error, and then goes on where it stopped                       |
/// | `s.quarantine(generation,    | `std::error_code` | as `remove`, of one that is corrupt: it may be kept for        |
/// |   reason)`                   |                   | whoever wants to know why, but not for ever                    |
/// | `s.verify(generation, depth, | `std::error_code` | `errc::corrupt_chunk` where it disagrees with what was         |
/// |   progress)`                 |                   | published; `errc::cancelled` where `progress(bytes)`, which is |
/// |                              |                   | called after each block that was read, says false; const       |
/// | `s.usage()`                  | `StoreUsage`      | const                                                          |
///
/// A store of several volumes that can fail one by one has these, too (`VolumeStorage`); a store may also have them
/// and one volume.
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.volumes()`                | `std::vector<     | as examined last; the same ones from construction on, and a    |
/// |                              | VolumeStatus>`    | generation's `volume` is an index into them; const             |
/// | `s.examine(found)`           | `std::vector<     | finds out what each volume can do now. Of one that has come    |
/// |                              | VolumeStatus>`    | back and was opened anew: calls `found(generation)` for each   |
/// |                              |                   | that it holds, as `recover` does                               |
///
/// One that publishes several generations for less than each by itself, since they can share their syncs, has this, too
/// (`BatchStorage`); small chunks come so.
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.publish(requests)`        |                   | each as `s.publish(staging, ec)`, and by itself: of            |
/// |                              |                   | `std::span<PublishRequest<S::Staging>>`, each with an error    |
/// |                              |                   | before. Those that have none afterwards were published, also   |
/// |                              |                   | where it throws                                                |
///
/// One that may take long to recover can have this, too (`StoppableStorage`):
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.stop_recovery()`          | `void`            | `recover` returns soon, with `errc::cancelled` where it has    |
/// |                              |                   | not told all; what it has told can be doomed then. Called by   |
/// |                              |                   | any thread, also before `recover` and after it; does not block |
///
/// `recover` may tell of generations on a volume that is away: they are wanted, and `describe` may know them from
/// elsewhere. Every other operation on a volume that is away fails. The manager calls `examine` after operations have
/// failed and from time to time while a volume is not healthy, once at a time, and where there is more than one volume.
///
/// Thread-safety: members may be called at the same time for different generations. One generation's calls come one
/// after another, except that its staged files are opened and written at the same time, each by one thread.
/// Throws: may throw; a `std::system_error`'s code counts as returned, anything else as `errc::policy_failed`.
/// A start in the background (`Options::startup`) calls `recover` on the executor. Until it has returned nothing else
/// is called but `location` and `describe`, for generations that were told, `volumes` before, and `stop_recovery`; and
/// after an error no more than these.
/// Blocking: everything but `location` may block, and is called on the executor, but for `size`, `write`, `restart` and
/// `checkpoint`, which are called by the thread that has the bytes. `describe` is also called by whoever asks a pin.
/// Ends: the store outlives the manager where pins do. Dropping a `Staging` or a `StagedFile` keeps what is on disk.
/// In return: only generations that `recover` or `publish` gave are named, and none after its `remove`. A generation is
/// removed when nobody holds a pin on it.
// clang-format off
namespace fragments {
template <class S>
concept storage_moves = std::move_constructible<S>;
template <class S>
concept storage_recovers = requires(S& s, const std::function<void(const Generation&)>& found) {
  { s.recover(found) } -> std::same_as<Recovery>;
};
template <class S>
concept storage_cleans_up = requires(S& s) {
  { s.clean_up(Partial::keep) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_has_staging = requires { typename S::Staging; } && std::movable<typename S::Staging>;
template <class S>
concept storage_stages =
    !storage_has_staging<S> || requires(S& s, const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
      { s.stage(chunk, number, ec) } -> std::same_as<typename S::Staging>;
    };
template <class S>
concept storage_has_staged_file = requires { typename S::StagedFile; } && std::movable<typename S::StagedFile>;
template <class S>
concept storage_opens_files =
    !storage_has_staging<S> || !storage_has_staged_file<S> ||
    requires(typename S::Staging& staging, const std::string& name, std::error_code& ec) {
      { staging.open(name, ec) } -> std::same_as<typename S::StagedFile>;
    };
template <class S>
concept storage_writes_files =
    !storage_has_staged_file<S> || requires(typename S::StagedFile& file, std::span<const std::byte> bytes) {
      { file.size() } -> std::convertible_to<std::uint64_t>;
      { file.write(bytes) } -> std::same_as<std::error_code>;
      { file.restart() } -> std::same_as<std::error_code>;
      { file.finish() } -> std::same_as<std::error_code>;
    };
template <class S>
concept storage_keeps_checkpoints =
    !storage_has_staged_file<S> || requires(typename S::StagedFile& file, std::string_view origin) {
      { file.origin() } -> std::convertible_to<std::string>;
      { file.checkpoint(origin) } -> std::same_as<std::error_code>;
    };
template <class S>
concept storage_publishes =
    !storage_has_staging<S> || requires(S& s, typename S::Staging& staging, std::error_code& ec) {
      { s.publish(staging, ec) } -> std::same_as<Generation>;
    };
template <class S>
concept storage_discards = !storage_has_staging<S> || requires(S& s, typename S::Staging& staging) {
  { s.discard(staging) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_locates =
    requires { typename S::Location; } && requires(const S& s, const Generation& generation) {
      { s.location(generation) } -> std::same_as<typename S::Location>;
    };
template <class S>
concept storage_describes = requires(const S& s, const Generation& generation, std::error_code& ec) {
  { s.describe(generation, ec) } -> std::same_as<DataChunk>;
};
template <class S>
concept storage_dooms = requires(S& s, const Generation& generation) {
  { s.doom(generation) } -> std::same_as<std::error_code>;
  { s.spare(generation) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_removes = requires(S& s, const Generation& generation) {
  { s.remove(generation) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_quarantines = requires(S& s, const Generation& generation, const std::string& reason) {
  { s.quarantine(generation, reason) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_verifies = requires(const S& s, const Generation& generation, const VerifyProgress& progress) {
  { s.verify(generation, VerifyDepth::digests, progress) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_tells_usage = requires(const S& s) {
  { s.usage() } -> std::same_as<StoreUsage>;
};
template <class S>
concept storage_publishes_batches = requires(S& s, std::span<PublishRequest<typename S::Staging>> requests) {
  s.publish(requests);
};
template <class S>
concept storage_has_volumes = requires(S& s, const S& as_const, const std::function<void(const Generation&)>& found) {
  { as_const.volumes() } -> std::same_as<std::vector<VolumeStatus>>;
  { s.examine(found) } -> std::same_as<std::vector<VolumeStatus>>;
};
}  // namespace fragments

template <class S>
concept Storage =
    fragments::storage_moves<S> && fragments::storage_recovers<S> && fragments::storage_cleans_up<S> &&
    fragments::storage_has_staging<S> && fragments::storage_stages<S> && fragments::storage_has_staged_file<S> &&
    fragments::storage_opens_files<S> && fragments::storage_writes_files<S> && fragments::storage_keeps_checkpoints<S> &&
    fragments::storage_publishes<S> &&
    fragments::storage_discards<S> && fragments::storage_locates<S> && fragments::storage_describes<S> &&
    fragments::storage_dooms<S> && fragments::storage_removes<S> && fragments::storage_quarantines<S> &&
    fragments::storage_verifies<S> && fragments::storage_tells_usage<S>;

template <class S>
concept VolumeStorage = Storage<S> && fragments::storage_has_volumes<S>;

template <class S>
concept BatchStorage = Storage<S> && fragments::storage_publishes_batches<S>;

template <class S>
concept StoppableStorage = Storage<S> && requires(S& s) { s.stop_recovery(); };
// clang-format on

/// Compiles where `S` is a Storage; otherwise each requirement that it misses is one sentence.
template <class S>
constexpr bool diagnose_storage() {
  static_assert(fragments::storage_moves<S>, "garner: a Storage must be move-constructible.");
  static_assert(fragments::storage_recovers<S>,
                "garner: a Storage must have recover(const std::function<void(const garner::Generation&)>&) that "
                "returns a garner::Recovery.");
  static_assert(fragments::storage_cleans_up<S>,
                "garner: a Storage must have clean_up(garner::Partial) that returns a std::error_code.");
  static_assert(fragments::storage_has_staging<S>, "garner: a Storage must have a movable type Staging.");
  static_assert(fragments::storage_stages<S>,
                "garner: a Storage must have stage(const garner::DataChunk&, std::uint64_t, std::error_code&) that "
                "returns its Staging.");
  static_assert(fragments::storage_has_staged_file<S>, "garner: a Storage must have a movable type StagedFile.");
  static_assert(fragments::storage_opens_files<S>,
                "garner: a Storage's Staging must have open(const std::string&, std::error_code&) that returns a "
                "StagedFile.");
  static_assert(fragments::storage_writes_files<S>,
                "garner: a Storage's StagedFile must have size(), and write(std::span<const std::byte>), restart() "
                "and finish() that return a std::error_code.");
  static_assert(fragments::storage_keeps_checkpoints<S>,
                "garner: a Storage's StagedFile must have origin() that returns a std::string, and "
                "checkpoint(std::string_view) that returns a std::error_code.");
  static_assert(fragments::storage_publishes<S>,
                "garner: a Storage must have publish(Staging&, std::error_code&) that returns a garner::Generation.");
  static_assert(fragments::storage_discards<S>,
                "garner: a Storage must have discard(Staging&) that returns a std::error_code.");
  static_assert(fragments::storage_locates<S>,
                "garner: a Storage must have a type Location, and location(const garner::Generation&) const that "
                "returns it.");
  static_assert(fragments::storage_describes<S>,
                "garner: a Storage must have describe(const garner::Generation&, std::error_code&) const that returns "
                "a garner::DataChunk.");
  static_assert(fragments::storage_dooms<S>,
                "garner: a Storage must have doom(const garner::Generation&) and spare(const garner::Generation&) "
                "that return a std::error_code.");
  static_assert(fragments::storage_removes<S>,
                "garner: a Storage must have remove(const garner::Generation&) that returns a std::error_code.");
  static_assert(fragments::storage_quarantines<S>,
                "garner: a Storage must have quarantine(const garner::Generation&, const std::string&) that returns a "
                "std::error_code.");
  static_assert(fragments::storage_verifies<S>,
                "garner: a Storage must have verify(const garner::Generation&, garner::VerifyDepth, const "
                "garner::VerifyProgress&) const that returns a std::error_code.");
  static_assert(fragments::storage_tells_usage<S>,
                "garner: a Storage must have usage() const that returns a garner::StoreUsage.");
  return Storage<S>;
}

}  // namespace garner

/// Compiled here, run in the tests, and good for nothing else.
namespace garner::minimal {

/// Runs tasks when its caller says so, and keeps no time of its own: timers are due at once. One thread only.
class Executor {
 public:
  using Timer = std::shared_ptr<Task>;

  void post(Task task) { tasks_->push_back(std::make_shared<Task>(std::move(task))); }
  Timer post_at(Instant, Task task) {
    post(std::move(task));
    return tasks_->back();
  }
  void cancel(Timer& timer) {
    if (timer) *timer = nullptr;
  }
  [[nodiscard]] Instant now() const { return {}; }
  bool run_one_until(Instant) {
    if (tasks_->empty()) return false;
    const Timer task = std::move(tasks_->front());
    tasks_->pop_front();
    if (*task) (*task)();
    return true;
  }

 private:
  std::shared_ptr<std::deque<Timer>> tasks_ = std::make_shared<std::deque<Timer>>();
};

/// Every URL's bytes are the URL itself.
class Downloader {
 public:
  using Transfer = int;

  [[nodiscard]] std::error_code check_url(std::string_view) const { return {}; }
  Transfer start(const FetchRequest& request, const std::shared_ptr<FetchSink>& sink) {
    FetchResult result;
    result.error = sink->begin(0, {});
    if (!result.error) result.error = sink->write(std::as_bytes(std::span(request.url)));
    sink->done(result);
    return 0;
  }
  void cancel(Transfer) {}
};

/// Swallows every byte and remembers only what it was told to hold.
class Storage {
 public:
  using Location = std::uint64_t;
  struct StagedFile {
    std::uint64_t bytes = 0;
    [[nodiscard]] std::uint64_t size() const { return bytes; }
    std::error_code write(std::span<const std::byte> more) { return bytes += more.size(), std::error_code(); }
    std::error_code restart() { return bytes = 0, std::error_code(); }
    [[nodiscard]] std::string origin() const { return {}; }
    std::error_code checkpoint(std::string_view) { return {}; }
    std::error_code finish() { return {}; }
  };
  struct Staging {
    DataChunk chunk;
    std::uint64_t number = 0;
    StagedFile open(const std::string&, std::error_code&) { return {}; }
  };

  Recovery recover(const std::function<void(const Generation&)>&) { return {}; }
  std::error_code clean_up(Partial) { return {}; }
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code&) { return {chunk, number}; }
  Generation publish(Staging& staging, std::error_code&) {
    held_[staging.number] = staging.chunk;
    return {staging.chunk.id, staging.chunk.dataset_id, staging.chunk.block_range, 0, staging.number};
  }
  std::error_code discard(Staging&) { return {}; }
  [[nodiscard]] Location location(const Generation& generation) const { return generation.number; }
  DataChunk describe(const Generation& generation, std::error_code&) const { return held_.at(generation.number); }
  std::error_code doom(const Generation&) { return {}; }
  std::error_code spare(const Generation&) { return {}; }
  std::error_code remove(const Generation& generation) { return held_.erase(generation.number), std::error_code(); }
  std::error_code quarantine(const Generation& generation, const std::string&) { return remove(generation); }
  [[nodiscard]] std::error_code verify(const Generation&, VerifyDepth, const VerifyProgress&) const { return {}; }
  [[nodiscard]] StoreUsage usage() const { return {}; }

 private:
  std::map<std::uint64_t, DataChunk> held_;
};

static_assert(garner::Executor<Executor> && garner::Downloader<Downloader> && garner::Storage<Storage>);

}  // namespace garner::minimal

// garner/status.hpp -----------------------------------------------------------------------------------------
// What a data manager is told and what it tells: options, the status of the whole and of one chunk, and
// events. Plain values, copied out; nothing here refers back to the manager.

namespace garner {

/// How much of the publish protocol's syncing is done.
enum class Durability : std::uint8_t {
  full,     ///< ready means durable: what was found once is there after a power cut
  relaxed,  ///< nothing is synced: after a power cut (not after a mere crash of the process) chunks may be
            ///< missing, empty or partly zero, and the store has to be thrown away. For caches, and for
            ///< comparing.
};

/// What a start does with the chunks that it finds, before it serves them.
enum class StartupCheck : std::uint8_t {
  names,    ///< nothing: they are served as soon as their names were read
  sizes,    ///< each is served once its description was read and its files have the sizes that it says
  digests,  ///< each is served once all its bytes were read and are what was published
};

/// How much of a start its constructor waits for. It always takes the lock and checks the format, or throws.
enum class Startup : std::uint8_t {
  /// All names are read, and all that is there is known. Throws where it cannot be read.
  complete,
  /// Nothing more: names are read in the background, by one task of the executor, and what is there is served as it is
  /// found; of a store with several locations once all were read. What was not found yet is not found by lookups, and
  /// calls about it count as they do after a complete start, the last one of each id. Until all is known nothing is
  /// fetched, removed, checked or changed, and the manager has not converged; `Status::recovering` and the event
  /// `recovered` tell. Where the store cannot be read they tell that, too: what was found is served, and nothing else
  /// is done until the next start. `close` ends the reading early; a deletion of what had not been found by then is
  /// forgotten.
  background,
};

/// A place of a data directory that is made of several (`Options::locations`): a directory, as a rule of a disk of its
/// own, which is a complete data directory by itself.
struct Location {
  std::filesystem::path path;  ///< a relative one begins at the manager's data_dir; "." is that itself
  /// Of the files of all chunks that are put there.
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t keep_free_bytes = 0;  ///< on its disk, for others
  /// While nothing is mounted there it is away, and nothing is written into the directory below the mount.
  bool must_be_mount_point = false;
};

/// How much is fetched at once.
struct FetchLimits {
  std::size_t max_concurrent_chunks = 32;  ///< chunks being fetched, or published
  std::size_t max_concurrent_files = 8;    ///< transfers, over all chunks
  std::size_t max_files_per_host = 8;      ///< of them, from one server
  std::uint64_t bytes_per_second = 0;      ///< over all transfers; 0: as fast as it goes

  friend bool operator==(const FetchLimits&, const FetchLimits&) = default;
};

/// What can be chosen. All of it can be changed while the manager runs (`set_options`), except where it says
/// not.
struct Options {
  // What a description may hold.
  std::size_t max_files = 10;                              ///< files a chunk
  std::uint64_t max_chunk_bytes = std::uint64_t{1} << 40;  ///< declared sizes of one chunk, together
  bool require_https = false;                              ///< reject `http`; fixed at construction

  // Whom it talks to, and how; fixed at construction.
  /// Where not empty, nothing else is connected to. An entry is a host's name (`lake.example`), all names below one
  /// (`.lake.example`), or an address or network (`10.0.0.0/8`, `::1`). Where there are networks, the address that a
  /// name resolves to must lie in one of them too, so DNS cannot lead elsewhere.
  std::vector<std::string> allowed_hosts = {};
  HttpOptions http = {};

  // How much happens at once. A server that answers that it is too much (429, 503) gets less, until it bears more
  // again.
  std::size_t max_concurrent_chunks = 32;  ///< chunks being fetched, or published
  std::size_t max_concurrent_files = 8;    ///< transfers, over all chunks
  std::size_t max_files_per_host = 8;      ///< of them, from one server
  std::uint64_t bytes_per_second = 0;      ///< over all transfers, where the downloader can; 0: as fast as it goes
  /// In place of these four, from the moment on at which chunks are served and nothing that is wanted is missing: a
  /// worker that is being filled may take all that the network gives, and one that answers queries may not.
  /// `Status::filled` tells.
  std::optional<FetchLimits> when_filled = std::nullopt;

  // How much is kept. What does not fit waits, in its turn, until something was removed; nothing that is wanted is
  // removed for it.
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();  ///< of all chunks' files, held or being fetched
  std::uint64_t keep_free_bytes = 0;                                    ///< on the store's disk, for others

  // What is done with chunks that an earlier run did not fetch to their end.
  /// From the start on they are kept for so long, for being asked for again; not longer than there is room.
  std::chrono::nanoseconds staging_ttl = std::chrono::hours(1);
  /// So many bytes of each file, at most, are fetched again after a process was killed; fixed at construction.
  std::uint64_t checkpoint_bytes = std::uint64_t{8} << 20;

  // What is done about failures. Delays are full jitter: uniform in [0, min(max_backoff, min_backoff *
  // 2^attempt)].
  std::chrono::nanoseconds min_backoff = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max_backoff = std::chrono::minutes(5);
  std::chrono::nanoseconds no_space_retry = std::chrono::seconds(30);  ///< while parked, and nothing is removed; a disk
                                                                       ///< that is not healthy is looked at that often

  /// Asked for where else to get one file of a chunk from, once its sources have rejected the credentials (401, 403: a
  /// presigned URL that has expired, as a rule). Called on the executor, where it may block, but must not call
  /// `close`; from several threads at once.
  /// Of what it returns the URLs and headers count; the bytes are still those that the description tells of. The
  /// transfer goes on where it was. Where it throws, or returns nothing that can be used, the file is tried again after
  /// a while.
  std::function<FileSource(const DataChunk& chunk, const std::string& file)> refresh = {};

  /// Whether a deleted chunk that is still pinned is taken back at once when it is wanted again (no byte
  /// moves).
  bool revive = true;

  Durability durability = Durability::full;  ///< fixed at construction
  /// Threads of `FilesystemStorage`, for each of its locations, that wait for the disk: syncs that run at the same time
  /// share what they cost. Made when there is something for them to do. 0: the executor's threads sync one thing after
  /// another. Fixed at construction.
  std::size_t max_sync_threads = 15;

  Startup startup = Startup::complete;  ///< fixed at construction

  // What is done about disks that forget.
  StartupCheck startup_check = StartupCheck::names;  ///< in the background; fixed at construction
  std::size_t max_concurrent_checks = 4;             ///< chunks that are checked after a start

  /// From the begin of one pass that re-reads all that is held to the begin of the next; the first begins at once.
  /// Zero: none but those that `verify` asks for.
  std::chrono::nanoseconds scrub_interval{};
  /// Of such a pass: after n bytes the next chunk waits until they are paid for. 0: as fast as it goes.
  std::uint64_t scrub_bytes_per_second = 0;

  /// Bytes of corrupt chunks that are set aside for whoever wants to know why. The oldest go first, and all where space
  /// is short. Fixed at construction.
  std::uint64_t quarantine_max_bytes = std::uint64_t{1} << 30;
  /// Where chunks are kept: each of them on the location with the most free bytes. None: in the data_dir alone, which
  /// otherwise is no location unless it is among them. Fixed at construction.
  std::vector<Location> locations = {};

  /// Seeds the jitter; fixed at construction. 0: a different one each time.
  std::uint64_t seed = 0;
};

/// Counts assignments (`set_assignment`), from 1.
using Epoch = std::uint64_t;

/// Where a chunk is in its life.
enum class ChunkState : std::uint8_t {
  queued,       ///< wanted, waiting for its turn
  downloading,  ///< wanted, bytes are moving
  publishing,   ///< wanted, whole, being made durable
  waiting,      ///< wanted, waiting to be tried again
  parked,       ///< wanted, waiting for space, or for a store that takes nothing
  ready,        ///< whole, durable and served
  draining,     ///< not wanted, still pinned
  removing,     ///< not wanted, being taken away
  checking,     ///< wanted, found by the start, and not served before it was checked (`Options::startup_check`)
};

constexpr std::string_view to_string(ChunkState state) noexcept {
  switch (state) {
    case ChunkState::queued: return "queued";
    case ChunkState::downloading: return "downloading";
    case ChunkState::publishing: return "publishing";
    case ChunkState::waiting: return "waiting";
    case ChunkState::parked: return "parked";
    case ChunkState::ready: return "ready";
    case ChunkState::draining: return "draining";
    case ChunkState::removing: return "removing";
    case ChunkState::checking: return "checking";
  }
  return "unknown";
}

/// One chunk, at the moment of asking.
struct ChunkStatus {
  ChunkState state = ChunkState::queued;
  bool wanted = false;
  bool served = false;         ///< `find_chunk` can return it now (perhaps an older generation of it)
  std::uint64_t attempts = 0;  ///< failed attempts since it was wanted or last ready
  std::error_code last_error;  ///< of the last failed attempt
  ErrorClass last_error_class = ErrorClass::none;
  std::string last_error_subject;  ///< the file and the redacted URL that failed, or the store's path
  std::optional<std::chrono::nanoseconds> next_try_in;  ///< from now; where the state is waiting or parked
};

/// A pass that re-reads what is held, at the moment of asking; where none is running, the last one.
struct ScrubStatus {
  bool running = false;
  std::size_t chunks_done = 0;   ///< re-read, or gone before their turn
  std::size_t chunks_total = 0;  ///< held when it began
  std::uint64_t bytes_done = 0;  ///< of the chunks that were re-read
  std::size_t corrupt = 0;       ///< found; each is told as a `chunk_failed` event
  std::size_t unreadable = 0;    ///< the disk did not give the bytes; likewise, and served on
  std::uint64_t passes = 0;      ///< that came to their end, since construction
};

/// The whole, at the moment of asking.
struct Status {
  // Wanted chunks; their sum is what is wanted.
  std::size_t ready = 0;  ///< served, and as they are wanted
  std::size_t queued = 0;
  std::size_t downloading = 0;  ///< includes publishing
  std::size_t waiting = 0;      ///< to be tried again
  std::size_t parked = 0;       ///< for space
  std::size_t checking = 0;     ///< found by the start, and not served before that was checked
  // Generations that are not wanted any more.
  std::size_t draining = 0;  ///< still pinned
  std::size_t removing = 0;
  std::size_t away = 0;  ///< wanted or not, on a volume that is set aside

  std::uint64_t bytes_ready = 0;         ///< of all generations that are served
  std::uint64_t bytes_received = 0;      ///< over the network, since construction
  std::uint64_t bytes_resumed = 0;       ///< that an earlier run had received, and were gone on with
  std::uint64_t bytes_wasted = 0;        ///< of both, thrown away
  double bytes_per_second = 0;           ///< received, over the last few seconds
  std::uint64_t chunks_published = 0;    ///< since construction
  std::uint64_t chunks_removed = 0;      ///< corrupt ones included
  std::uint64_t chunks_quarantined = 0;  ///< of those, corrupt ones, which the store may have set aside
  std::uint64_t attempts_failed = 0;
  std::uint64_t bytes_reserved = 0;    ///< for what is being fetched, as far as sizes are known
  std::uint64_t store_bytes_used = 0;  ///< as the store last told
  std::uint64_t store_bytes_free = 0;
  std::uint64_t bytes_verified = 0;  ///< re-read, since construction
  ScrubStatus scrub;
  std::vector<VolumeStatus> volumes;  ///< likewise; none where the storage does not tell

  // Of a start in the background (`Options::startup`).
  bool recovering = false;         ///< it is not known yet what the store holds
  std::error_code recovery_error;  ///< the store could not be read, ...
  std::string recovery_subject;    ///< ... at this path

  Epoch assigned_epoch = 0;   ///< of the last `set_assignment`; 0 before the first
  Epoch converged_epoch = 0;  ///< the last one that the store had converged to
  bool filled = false;        ///< it had converged once, and served chunks then (`Options::when_filled`)
  bool converged = false;     ///< nothing wanted is missing, nothing unwanted is left unpinned
  bool closed = false;
};

enum class EventKind : std::uint8_t {
  chunk_ready,       ///< served from now on
  chunk_unlisted,    ///< not found from now on; `generation` may still be pinned
  chunk_removed,     ///< a generation is gone from the store
  chunk_failed,      ///< an attempt failed; it will be tried again
  converged,         ///< nothing wanted is missing, nothing unwanted is left unpinned
  scrubbed,          ///< a pass that re-read all that is held has ended; `Status::scrub` tells of it
  volume_away,       ///< a volume failed and is set aside; what it held is fetched again elsewhere
  volume_read_only,  ///< nothing can be written to a volume; what it holds is served
  volume_healthy,    ///< a volume is as it should be again
  recovered,         ///< a start in the background knows what the store holds or, with an error, could not read it
  events_dropped,    ///< an observer was so slow that events were dropped: look at `status` afresh
  closed,            ///< the last event
};

constexpr std::string_view to_string(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::chunk_ready: return "ready";
    case EventKind::chunk_unlisted: return "unlisted";
    case EventKind::chunk_removed: return "removed";
    case EventKind::chunk_failed: return "failed";
    case EventKind::converged: return "converged";
    case EventKind::scrubbed: return "scrubbed";
    case EventKind::volume_away: return "volume away";
    case EventKind::volume_read_only: return "volume read-only";
    case EventKind::volume_healthy: return "volume healthy";
    case EventKind::recovered: return "recovered";
    case EventKind::events_dropped: return "events dropped";
    case EventKind::closed: return "closed";
  }
  return "unknown";
}

/// Something that happened. Events about one chunk arrive in the order in which they happened.
struct Event {
  EventKind kind = EventKind::converged;
  ChunkId id;                    ///< of the `chunk_…` kinds
  std::uint64_t generation = 0;  ///< likewise
  std::error_code error;         ///< `chunk_failed`, `recovered`
  std::string subject;           ///< `chunk_failed`: the file and the redacted URL, or the store's path;
                                 ///< `volume_…`: the volume's path; `recovered`, with an error: the path
  Epoch epoch = 0;               ///< `converged`: the assignment converged to
};

/// Keeps an observer subscribed; dropping it unsubscribes. After that no new call of the observer begins; one
/// that is running on another thread may still finish. May be dropped inside the observer, and after the
/// manager is gone.
class Subscription {
 public:
  Subscription() = default;
  explicit Subscription(std::function<void()> unsubscribe) : unsubscribe_(std::move(unsubscribe)) {}
  Subscription(Subscription&& other) noexcept : unsubscribe_(std::exchange(other.unsubscribe_, nullptr)) {}
  Subscription& operator=(Subscription&& other) noexcept {
    if (this != &other) {
      reset();
      unsubscribe_ = std::exchange(other.unsubscribe_, nullptr);
    }
    return *this;
  }
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription() { reset(); }

  void reset() noexcept {
    if (auto unsubscribe = std::exchange(unsubscribe_, nullptr)) unsubscribe();
  }

 private:
  std::function<void()> unsubscribe_;
};

}  // namespace garner

// garner/served.hpp -----------------------------------------------------------------------------------------
// One generation that is served, as the state machine, the index and the pins share it: what it is, and what the state
// machine knows of a chunk of which nothing is to be done. Who owns it is in `chunk_ref.hpp`.

namespace garner::detail {

/// What all that is served of one dataset shares.
struct DatasetHome {
  const DatasetId dataset_id;
};

/// A million of these is what a filled worker mostly has in memory.
struct Served {
  /// `of` is of the generation's dataset, and stays where it is.
  Served(const Generation& generation, const DatasetHome& of) noexcept
      : id(generation.id),
        home(&of),
        block_range(generation.block_range),
        bytes(generation.bytes),
        number(generation.number),
        volume(generation.volume) {}
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  [[nodiscard]] Generation generation() const noexcept {
    return {id, home->dataset_id, block_range, bytes, number, volume};
  }

  /// Whether it is known to hold `wanted`.
  [[nodiscard]] bool holds(const ContentFingerprint& wanted,
                           const std::optional<std::uint64_t>& declared) const noexcept {
    return is_content_known && content == wanted && (!declared || *declared == bytes);
  }

  // For all to read.
  const ChunkId id;
  const DatasetHome* const home;
  const BlockRange block_range;
  const std::uint64_t bytes;
  const std::uint64_t number;

  // The state machine's alone.
  Served* next = nullptr;        ///< in its table
  std::uint64_t asked = 0;       ///< its place in the order of asking
  ContentFingerprint content{};  ///< where that is known

  const std::uint32_t volume;
  bool is_content_known = false;
  bool named = false;  ///< by the assignment that is being made

 protected:
  ~Served() = default;
};

}  // namespace garner::detail

// garner/chunk_ref.hpp --------------------------------------------------------------------------------------
// The pin: DataChunkRef keeps one generation of a chunk where it is and as it is. And what pins share with
// the manager that gave them, which they may outlive.

// garner/pin_slots.hpp --------------------------------------------------------------------------------------
// Where threads write down what they are using, so that taking a pin costs a store and no counter that all threads
// share. Not here: what is pinned, and who waits for it (`chunk_ref.hpp`).

namespace garner::detail {

/// Hazard pointers (Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS 2004) that are
/// kept for as long as their holder likes, and by whatever thread: a few slots for each thread, in which it alone takes
/// places, and which any thread may free. Where all of its slots are taken, its pins are counted instead.
///
/// Why nothing is missed. A slot is taken inside of a grace period's guard (`core/epoch.hpp`), of something that was
/// listed then; so when that was unlisted and the grace period is over, every slot that holds it is seen, and none will
/// hold it again. `watch` then marks each of them with a compare-and-swap, and a slot is freed with an exchange: of the
/// two the second one sees the first. So either `watch` finds the slot free, or whoever frees it finds the mark and has
/// to tell.
///
/// Thread-safety: every member from any thread. Object lifetimes: there is one for the program, which is never
/// destroyed.
class PinSlots {
 public:
  using Slot = std::atomic<std::uintptr_t>;

  PinSlots(const PinSlots&) = delete;
  PinSlots& operator=(const PinSlots&) = delete;

  static PinSlots& instance() {
    static auto* const slots = new PinSlots;  // pins may outlive every static object
    return *slots;
  }

  /// A slot of this thread's that holds `pinned` now, which is aligned to two bytes at least; null where none is free.
  Slot* take(const void* pinned) noexcept {
    Block* const block = mine.of == this ? mine.block : begin_thread();
    if (block == nullptr) return nullptr;
    for (Slot& slot : block->slots) {
      // Acquired, so that who freed it has done so before whoever waits for that sees what stands here next.
      if (slot.load(std::memory_order_acquire) != 0) continue;
      slot.store(reinterpret_cast<std::uintptr_t>(pinned), std::memory_order_release);
      return &slot;
    }
    return nullptr;
  }

  /// Frees a slot. True where what it held is waited for: the caller tells that.
  [[nodiscard]] static bool drop(Slot& slot) noexcept {
    return (slot.exchange(0, std::memory_order_acq_rel) & watched) != 0;
  }

  /// Marks the slots that hold `pinned` and are not marked yet; returns how many they were.
  [[nodiscard]] std::size_t watch(const void* pinned) noexcept {
    const auto sought = reinterpret_cast<std::uintptr_t>(pinned);
    std::size_t found = 0;
    for (Block* block = blocks_.load(std::memory_order_acquire); block != nullptr; block = block->next) {
      for (Slot& slot : block->slots) {
        std::uintptr_t held = slot.load(std::memory_order_acquire);
        if (held != sought) continue;
        if (slot.compare_exchange_strong(held, held | watched, std::memory_order_acq_rel)) ++found;
      }
    }
    return found;
  }

 private:
  static constexpr std::uintptr_t watched = 1;
  static constexpr std::size_t slots_a_thread = 16;

  /// One thread's at a time. Two cache lines, and nobody else's.
  struct alignas(128) Block {
    std::array<Slot, slots_a_thread> slots{};
    Block* next = nullptr;
    std::atomic<bool> taken{true};
  };

  /// What this thread has, and of whom: each of several shared libraries may have an instance of its own.
  struct Mine {
    PinSlots* of;
    Block* block;
    bool ended;
  };

  /// Gives the thread's block to another one when it ends. What is pinned in it stays so.
  struct Leave {
    ~Leave() {
      if (mine.block != nullptr) mine.block->taken.store(false, std::memory_order_release);
      mine = {nullptr, nullptr, true};
    }
  };

  PinSlots() = default;

  Block* begin_thread() noexcept {
    if (mine.ended || mine.of != nullptr) return nullptr;
    thread_local const Leave leave;
    static_cast<void>(leave);
    mine.of = this;
    for (Block* block = blocks_.load(std::memory_order_acquire); block != nullptr; block = block->next) {
      if (!block->taken.load(std::memory_order_relaxed) && !block->taken.exchange(true, std::memory_order_acquire)) {
        return mine.block = block;
      }
    }
    auto* const block = new (std::nothrow) Block;
    if (block == nullptr) return nullptr;
    block->next = blocks_.load(std::memory_order_relaxed);
    while (!blocks_.compare_exchange_weak(block->next, block, std::memory_order_release, std::memory_order_relaxed)) {
    }
    return mine.block = block;
  }

  static inline thread_local constinit Mine mine{nullptr, nullptr, false};

  std::atomic<Block*> blocks_{nullptr};  // never fewer
};

}  // namespace garner::detail

namespace garner {

namespace detail {

/// Is told that the last pin on a generation is gone.
class DrainListener {
 public:
  /// `pinned` tells apart the times that one generation was listed: it is an address, and nothing else has it before
  /// this returns. Does not block on I/O.
  virtual void drained(const Generation& generation, const void* pinned) noexcept = 0;

  DrainListener() = default;
  DrainListener(const DrainListener&) = delete;
  DrainListener& operator=(const DrainListener&) = delete;
  virtual ~DrainListener() = default;
};

/// The store, shared by the manager and all pins: it lives, and holds its lock, as long as any of them.
template <Storage S>
class PinHost {
 public:
  PinHost(S policy, DrainListener* listener) : storage(std::move(policy)), listener_(listener) {}

  [[nodiscard]] PinSlots& slots() const noexcept { return slots_; }

  void drained(const Generation& generation, const void* pinned) noexcept {
    calls_.fetch_add(1);
    if (DrainListener* listener = listener_.load()) listener->drained(generation, pinned);
    // Whoever detaches may end the listener as soon as this is zero, but not this object: the caller holds
    // it.
    calls_.fetch_sub(1);
    calls_.notify_all();
  }

  /// No call of the listener begins after this, and none is running when it returns.
  void detach() noexcept {
    listener_.store(nullptr);
    for (std::uint64_t calls = calls_.load(); calls != 0; calls = calls_.load()) calls_.wait(calls);
  }

  S storage;
  std::mutex ownership;  ///< who owns what is pinned

 private:
  PinSlots& slots_ = PinSlots::instance();
  std::atomic<DrainListener*> listener_;
  std::atomic<std::uint64_t> calls_{0};
};

// NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete): it takes each owner for the last
/// Ends what a pointer owned of something that counts its owners.
struct Release {
  template <class Counted>
  void operator()(const Counted* counted) const noexcept {
    counted->release();
  }
};

/// What all pins of one dataset share: its id, which is there once, and the store. As many chunks refer to it as there
/// are, so it counts them itself.
template <Storage S>
class PinHome : public DatasetHome {
 public:
  PinHome(const DatasetId& id, std::shared_ptr<PinHost<S>> where) : DatasetHome{id}, host(std::move(where)) {}
  PinHome(const PinHome&) = delete;
  PinHome& operator=(const PinHome&) = delete;

  void share() const noexcept { owners_.fetch_add(1, std::memory_order_relaxed); }
  void release() const noexcept {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  const std::shared_ptr<PinHost<S>> host;

 private:
  ~PinHome() = default;

  mutable std::atomic<std::uint64_t> owners_{1};  // who made it is the first
};

/// One generation that is or was listed. It is owned as long as the index has it or a slot holds it, and by each pin
/// that is counted: the last of them deletes it, which tells that it is drained.
template <Storage S>
class Pinned : public Served {
 public:
  /// Nobody owns it yet; `listed` comes first.
  Pinned(const Generation& generation, const PinHome<S>& of) : Served(generation, of) { of.share(); }

  // ---- owners

  /// The index has it from now on; and later no reader can come upon it there any more. It may be listed again before
  /// that.
  void listed() const {
    const std::scoped_lock lock(host().ownership);
    if (listings_ == 0 && slots_ == 0) share();
    ++listings_;
  }
  void unlisted() const noexcept {
    disown([this] {
      --listings_;
      slots_ += static_cast<std::uint32_t>(host().slots().watch(this));
    });
  }
  /// A slot that held it and was watched is free.
  void slot_dropped() const noexcept {
    disown([this] { --slots_; });
  }

  /// One owner more. Somebody owns it.
  void share() const noexcept { owners_.fetch_add(1, std::memory_order_relaxed); }
  /// The same, where somebody does; false where it is being deleted.
  [[nodiscard]] bool try_share() const noexcept {
    std::uint32_t owners = owners_.load(std::memory_order_relaxed);
    while (owners != 0) {
      if (owners_.compare_exchange_weak(owners, owners + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }
  /// One less.
  void release() const noexcept {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  [[nodiscard]] const S& storage() const noexcept { return host().storage; }
  [[nodiscard]] bool is_corrupt() const noexcept { return corrupt_.load(std::memory_order_acquire); }
  void condemn() const noexcept { corrupt_.store(true, std::memory_order_release); }

  [[nodiscard]] const DataChunk& description() const {
    if (const DataChunk* known = description_.load(std::memory_order_acquire)) return *known;
    std::error_code error;
    std::unique_ptr<const DataChunk> read;
    try {
      read = std::make_unique<const DataChunk>(host().storage.describe(generation(), error));
    } catch (const std::system_error& thrown) {
      error = thrown.code();
    } catch (...) {
      error = errc::policy_failed;
    }
    if (error || !read) throw Error(error, "chunk " + id.to_hex());
    const DataChunk* expected = nullptr;
    // Where another thread was faster, its description stays, as references to it may be out already.
    if (!description_.compare_exchange_strong(expected, read.get(), std::memory_order_acq_rel)) return *expected;
    return *read.release();
  }

 private:
  ~Pinned() {
    const std::unique_ptr<const PinHome<S>, Release> mine(&pin_home());
    delete description_.load(std::memory_order_acquire);
    host().drained(generation(), this);
  }

  [[nodiscard]] const PinHome<S>& pin_home() const noexcept { return static_cast<const PinHome<S>&>(*home); }
  [[nodiscard]] PinHost<S>& host() const noexcept { return *pin_home().host; }

  template <class Change>
  void disown(const Change& change) const noexcept {
    std::unique_ptr<const Pinned, Release> last;  // goes without the lock: it may report that it is drained
    const std::scoped_lock lock(host().ownership);
    change();
    if (listings_ == 0 && slots_ == 0) last.reset(this);
  }

  mutable std::atomic<bool> corrupt_{false};
  mutable std::atomic<std::uint32_t> owners_{0};  // all listings and watched slots together are one
  mutable std::uint32_t listings_ = 0;            // this and the next: under the host's `ownership`
  mutable std::uint32_t slots_ = 0;               // that are watched and hold it
  mutable std::atomic<const DataChunk*> description_{nullptr};
};

/// What the index does with what it has.
template <Storage S>
struct Unlist {
  void operator()(const Pinned<S>* pinned) const noexcept { pinned->unlisted(); }
};

}  // namespace detail

/// A pin on one generation of a chunk: until the last copy of it is dropped, the generation's files stay at
/// the same place and unchanged, whatever is called meanwhile; after `close()` and after the manager's
/// destruction too. The store's lock is held as long.
///
/// Cheap to take and to drop: a few nanoseconds for the first sixteen that a thread has at a time, and an atomic
/// increment for more of them and for copies. Dropping it never blocks on I/O. Thread-safety: distinct objects may be
/// used by distinct threads, whatever they pin; one object as an `int`.
template <Storage S>
class DataChunkRef {
 public:
  using Location = typename S::Location;

  /// For the manager, of what is listed now and cannot be destroyed before this returns.
  DataChunkRef(const detail::Pinned<S>& listed, detail::PinSlots& slots) noexcept
      : pin_(&listed), slot_(slots.take(&listed)) {
    if (slot_ == nullptr) pin_->share();
  }
  DataChunkRef(const DataChunkRef& other) noexcept : pin_(other.pin_) {
    if (pin_ != nullptr) pin_->share();
  }
  DataChunkRef(DataChunkRef&& other) noexcept
      : pin_(std::exchange(other.pin_, nullptr)), slot_(std::exchange(other.slot_, nullptr)) {}
  DataChunkRef& operator=(DataChunkRef other) noexcept {
    std::swap(pin_, other.pin_);
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~DataChunkRef() {
    const std::unique_ptr<const detail::Pinned<S>, detail::Release> counted(slot_ == nullptr ? pin_ : nullptr);
    if (slot_ == nullptr) return;
    // What is watched lives until it was told.
    if (detail::PinSlots::drop(*slot_)) pin_->slot_dropped();
  }

  [[nodiscard]] const ChunkId& id() const noexcept { return pin_->id; }
  [[nodiscard]] const DatasetId& dataset_id() const noexcept { return pin_->home->dataset_id; }
  [[nodiscard]] const BlockRange& block_range() const noexcept { return pin_->block_range; }
  /// Of all files together.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return pin_->bytes; }
  /// The number of this copy of the chunk; another copy of it has another.
  [[nodiscard]] std::uint64_t generation() const noexcept { return pin_->number; }

  /// The files, with their sizes and digests as found, and their URLs without secrets. The first call for a
  /// generation reads the store, later ones do not. Throws `Error` where that fails. Valid as long as a copy
  /// of this pin.
  [[nodiscard]] const std::map<std::string, FileSource>& files() const { return pin_->description().files; }

  /// Whether a scrub has found that it is not as it was published any more: then whatever was read of it is in doubt.
  /// True from then on, of all pins on this generation.
  [[nodiscard]] bool is_corrupt() const noexcept { return pin_->is_corrupt(); }

  /// Where the store has the chunk.
  [[nodiscard]] Location location() const { return pin_->storage().location(pin_->generation()); }

  /// The chunk's directory.
  [[nodiscard]] std::filesystem::path path() const requires std::convertible_to<Location, std::filesystem::path> {
    return location();
  }

 private:
  const detail::Pinned<S>* pin_;  // owned where there is no slot
  detail::PinSlots::Slot* slot_ = nullptr;
};
// NOLINTEND(clang-analyzer-cplusplus.NewDelete)

}  // namespace garner

// Decides, and does nothing.

// garner/core/epoch.hpp -------------------------------------------------------------------------------------
// Deferred reclamation: readers mark that they are inside, a writer learns when all that were inside at some
// moment have left. Not a lock: a reader never waits, and a writer never waits for a reader, it looks again
// later.

namespace garner::core {

/// Grace periods in the manner of sleepable RCU (McKenney, "Sleepable Read-Copy Update", LWN 2006): two sets
/// of reader counts, of which readers enter the current one, and a flip between them per grace period.
///
/// Why it is right. A reader increments a count and then loads the shared pointer; a writer replaces the
/// pointer and then reads the counts; all four are sequentially consistent. If the writer's read misses the
/// increment, the reader's load comes after the replacement and finds the new object. So what was replaced is
/// free once every count has been seen at zero after the replacement. With one set of counts that might never
/// happen, as new readers keep entering; so first the set that is not current is seen at zero (only late
/// readers can be in it), then the two are swapped, and then the other set is seen at zero.
///
/// `Garbage` owns what is not to be destroyed while a reader may see it; its destructor may do anything.
///
/// Thread-safety: `enter` from any thread; all else from one thread at a time.
template <class Garbage>
class Epochs {
 public:
  /// A reader's stay. Short: nothing that was retired during it is freed before it ends.
  class Guard {
   public:
    explicit Guard(std::atomic<std::uint64_t>& count) noexcept : count_(count) {
      count_.fetch_add(1, std::memory_order_seq_cst);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() { count_.fetch_sub(1, std::memory_order_release); }

   private:
    std::atomic<std::uint64_t>& count_;
  };

  [[nodiscard]] Guard enter() const noexcept {
    Stripe& stripe = stripes_[thread_number() % stripes];
    return Guard(stripe.inside[current_.load(std::memory_order_relaxed) & 1]);
  }

  /// Hands over what readers cannot reach any more, but may have reached before.
  void retire(Garbage garbage) { retired_.push_back(std::move(garbage)); }

  /// Appends to `out` what no reader can see any more. The caller destroys it, where its destructors do no
  /// harm.
  void collect(std::vector<Garbage>& out) {
    while (true) {
      if (phase_ == Phase::rest) {
        if (retired_.empty()) return;
        waiting_.swap(retired_);
        phase_ = Phase::late_readers;
      }
      if (phase_ == Phase::late_readers) {
        if (!left(current_.load(std::memory_order_relaxed) + 1)) return;
        current_.fetch_add(1, std::memory_order_seq_cst);
        phase_ = Phase::readers;
      }
      if (!left(current_.load(std::memory_order_relaxed) + 1)) return;
      out.insert(out.end(), std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
      if (waiting_.capacity() > 1024) std::vector<Garbage>().swap(waiting_);  // a great change is past
      waiting_.clear();
      phase_ = Phase::rest;
    }
  }

  /// Whether something is retired and not yet collected.
  [[nodiscard]] bool pending() const noexcept { return !retired_.empty() || !waiting_.empty(); }

 private:
  enum class Phase : std::uint8_t { rest, late_readers, readers };

  // Threads are spread over stripes so that their counts do not share a cache line.
  static constexpr std::size_t stripes = 16;
  struct alignas(64) Stripe {
    std::array<std::atomic<std::uint64_t>, 2> inside{};
  };

  static std::size_t thread_number() noexcept {
    static std::atomic<std::size_t> next{0};
    thread_local const std::size_t number = next.fetch_add(1, std::memory_order_relaxed);
    return number;
  }

  [[nodiscard]] bool left(std::uint64_t set) const noexcept {
    for (const Stripe& stripe : stripes_) {
      if (stripe.inside[set & 1].load(std::memory_order_seq_cst) != 0) return false;
    }
    return true;
  }

  mutable std::array<Stripe, stripes> stripes_;
  std::atomic<std::uint64_t> current_{0};
  Phase phase_ = Phase::rest;
  std::vector<Garbage> retired_;
  std::vector<Garbage> waiting_;
};

}  // namespace garner::core

// garner/core/dataset_numbers.hpp ---------------------------------------------------------------------------
// A small number for each dataset that an index has: readers look it up without a lock. Not what is indexed
// (`core/chunk_index.hpp`).

namespace garner::core {

/// Numbers are given once and never taken back.
/// Thread-safety: `find` from any thread inside of a guard of the `Epochs` that what `of` replaces is retired to; `of`
/// from one thread at a time.
class DatasetNumbers {
 private:
  struct Known {
    std::vector<std::uint64_t> prefixes;  // of the ids, in their order: most searches end with these
    std::vector<std::pair<DatasetId, std::uint32_t>> sorted;
  };

 public:
  /// What a reader may still be in.
  using Replaced = std::unique_ptr<const Known>;

  DatasetNumbers() = default;
  DatasetNumbers(const DatasetNumbers&) = delete;
  DatasetNumbers& operator=(const DatasetNumbers&) = delete;
  /// No reader may be inside.
  ~DatasetNumbers() { delete known_.load(); }

  [[nodiscard]] std::optional<std::uint32_t> find(const DatasetId& dataset) const {
    const Known* known = known_.load(std::memory_order_seq_cst);
    if (known == nullptr) return std::nullopt;
    const std::vector<std::uint64_t>& prefixes = known->prefixes;
    const std::uint64_t prefix = prefix_of(dataset);
    auto at = static_cast<std::size_t>(std::lower_bound(prefixes.begin(), prefixes.end(), prefix) - prefixes.begin());
    for (; at < prefixes.size() && prefixes[at] == prefix; ++at) {
      if (known->sorted[at].first == dataset) return known->sorted[at].second;
    }
    return std::nullopt;
  }

  /// Its number, the next one where it has none yet: then `retire(replaced)` is called, or nothing was replaced.
  template <class Retire>
  std::uint32_t of(const DatasetId& dataset, Retire&& retire) {
    if (const auto number = find(dataset)) return *number;
    auto grown = std::make_unique<Known>();
    Known* const old = known_.load();
    if (old != nullptr) grown->sorted = old->sorted;
    const auto number = static_cast<std::uint32_t>(grown->sorted.size());
    grown->sorted.emplace_back(dataset, number);
    std::sort(grown->sorted.begin(), grown->sorted.end());
    for (const auto& entry : grown->sorted) grown->prefixes.push_back(prefix_of(entry.first));
    known_.store(grown.release(), std::memory_order_seq_cst);
    if (old != nullptr) retire(Replaced(old));
    return number;
  }

 private:
  /// The first bytes of an id as a number, which orders as they do.
  static std::uint64_t prefix_of(const DatasetId& id) noexcept {
    std::uint64_t prefix = 0;
    for (std::size_t i = 0; i < sizeof(prefix); ++i) prefix = prefix << 8 | id.bytes()[i];
    return prefix;
  }

  std::atomic<Known*> known_{nullptr};
};

}  // namespace garner::core

// garner/core/index_node.hpp --------------------------------------------------------------------------------
// One node of the index (`core/chunk_index.hpp`), a leaf or a branch: sorted slots. Not the tree that is made of them.

namespace garner::core {

/// Names one entry of an index. `asked` is its own, and decides between ranges of one begin: the greatest wins.
struct IndexKey {
  std::uint32_t dataset = 0;
  BlockNumber begin = 0;
  std::uint64_t asked = 0;
  friend constexpr auto operator<=>(const IndexKey&, const IndexKey&) noexcept = default;
};

struct IndexPosition {
  std::uint32_t dataset = 0;
  BlockNumber block = 0;
  friend constexpr auto operator<=>(const IndexPosition&, const IndexPosition&) noexcept = default;
};

/// Sorted slots: of a leaf (level 0) the entries, of a branch its children, each with its first key. A reader goes
/// through the first cache lines of a node, and one of `slots`; the rest is the writer's.
///
/// Thread-safety: as an `int`. Owns nothing.
template <class T>
struct alignas(64) IndexNode {
  static constexpr std::uint64_t latest = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::size_t capacity = 32;

  union Below {
    IndexNode* node;
    T* value;
  };

  /// What a reader needs of a slot once it has found it, side by side.
  struct Slot {
    Below below{};
    BlockNumber end = 0;  // the greatest below it
  };

  struct Item {
    IndexKey key;
    IndexPosition end;
    Below below;
  };

  IndexNode(std::uint64_t made_in, std::size_t height) : level(static_cast<std::uint32_t>(height)), batch(made_in) {
    begins.fill(latest);
  }

  std::uint32_t level;
  std::uint32_t size = 0;
  std::array<BlockNumber, capacity> begins{};  // behind the last one: the greatest number
  std::array<Slot, capacity> slots{};
  std::array<std::uint32_t, capacity> datasets{};
  std::array<std::uint32_t, capacity> end_datasets{};
  std::array<std::uint64_t, capacity> asked{};
  std::uint64_t batch;  // made in; while that is unpublished, the node may be changed in place

  [[nodiscard]] IndexKey key(std::size_t at) const noexcept { return {datasets[at], begins[at], asked[at]}; }
  [[nodiscard]] IndexPosition end(std::size_t at) const noexcept { return {end_datasets[at], slots[at].end}; }
  [[nodiscard]] Item item(std::size_t at) const noexcept { return {key(at), end(at), slots[at].below}; }

  /// Begins to load what a search in it reads.
  void prefetch() const noexcept {
#if defined(__GNUC__)
    for (std::size_t byte = 0; byte < offsetof(IndexNode, slots); byte += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(this) + byte);
    }
#endif
  }

  /// How many slots have a key that is not after `key`.
  [[nodiscard]] std::size_t count_not_after(const IndexKey& key) const noexcept {
    std::size_t low = 0;
    std::size_t high = size;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (key < this->key(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  /// How many slots begin at or before `position`.
  [[nodiscard]] std::size_t count_not_after(const IndexPosition& position) const noexcept {
    if (datasets[0] != position.dataset || datasets[size - 1] != position.dataset) {
      return count_not_after(IndexKey{position.dataset, position.block, latest});
    }
    // Without a branch that could be foretold wrongly.
    static_assert(capacity == 32);
    std::size_t count = 0;
    for (std::size_t step = 16; step > 0; step /= 2) {
      count += begins[count + step - 1] <= position.block ? step : 0;
    }
    count += begins[count] <= position.block ? std::size_t{1} : 0;
    return std::min<std::size_t>(count, size);
  }

  [[nodiscard]] IndexPosition greatest_end() const noexcept {
    IndexPosition greatest = end(0);
    for (std::size_t i = 1; i < size; ++i) greatest = std::max(greatest, end(i));
    return greatest;
  }

  void set(std::size_t at, const Item& item) noexcept {
    begins[at] = item.key.begin;
    slots[at] = {item.below, item.end.block};
    datasets[at] = item.key.dataset;
    end_datasets[at] = item.end.dataset;
    asked[at] = item.key.asked;
  }

  /// There is room.
  void put(std::size_t at, const Item& item) noexcept {
    for (std::size_t i = size; i > at; --i) set(i, this->item(i - 1));
    set(at, item);
    ++size;
  }

  void take_out(std::size_t at) noexcept {
    for (std::size_t i = at; i + 1 < size; ++i) set(i, item(i + 1));
    shrink(size - 1);
  }

  void shrink(std::size_t to) noexcept {
    std::fill(begins.begin() + static_cast<std::ptrdiff_t>(to), begins.end(), latest);
    size = static_cast<std::uint32_t>(to);
  }
};

}  // namespace garner::core

// garner/core/chunk_index.hpp -------------------------------------------------------------------------------
// (dataset, block) -> chunk, for readers that never wait: an immutable B+ tree behind one atomic pointer. A
// change copies the path to the leaf and nothing else; after a grace period (`core/epoch.hpp`) what it replaced is the
// room for the next one, or freed.

namespace garner::core {

/// An index of block ranges, mostly disjoint and sometimes overlapping, in many datasets. It owns its values, each an
/// object that `Release` takes once no reader can come upon it any more.
///
/// All datasets share one tree, so that one store publishes changes to any of them: a dataset is a small number, and
/// positions are (dataset, block). Each node keeps the greatest end below each of its slots (an interval tree: Cormen
/// et al., Introduction to Algorithms, 14.3), which makes the last range that begins at or before a block *and* ends
/// after it an O(log n) question whatever overlaps. Mostly nothing does, and then that range is the last one that
/// begins at or before the block: this is looked for first, in the begins alone.
///
/// Thread-safety: `find`, `visit` and `visit_all` from any thread at any time. `insert`, `erase`, `publish` and
/// `collect` from one thread at a time. A change is seen by readers at the next `publish`, and all changes before it at
/// once.
template <class T, class Release = std::default_delete<T>>
class ChunkIndex {
 private:
  using Node = IndexNode<T>;
  using NodePtr = std::unique_ptr<Node>;

 public:
  using Key = IndexKey;
  using ValuePtr = std::unique_ptr<T, Release>;
  /// What no reader can see any more.
  using Garbage = std::variant<NodePtr, ValuePtr, DatasetNumbers::Replaced>;

  ChunkIndex() = default;
  ChunkIndex(const ChunkIndex&) = delete;
  ChunkIndex& operator=(const ChunkIndex&) = delete;
  /// No reader may be inside.
  ~ChunkIndex() {
    if (working_ != nullptr) destroy(working_);
  }

  Key insert(const DatasetId& dataset, const BlockRange& range, std::uint64_t asked, ValuePtr value) {
    const auto retire = [this](DatasetNumbers::Replaced replaced) { epochs_.retire(std::move(replaced)); };
    const Key key{datasets_.of(dataset, retire), range.begin, asked};
    Item item{key, {key.dataset, range.end}, {}};
    item.below.value = value.release();
    if (working_ == nullptr) {
      working_ = make_node(0).release();
      working_->put(0, item);
    } else if (Node* right = insert_below(working_, item)) {
      NodePtr root = make_node(working_->level + 1);
      root->put(0, item_of(working_));
      root->put(1, item_of(right));
      working_ = root.release();
    }
    ++size_;
    return key;
  }

  /// The key that `insert` gave for these.
  [[nodiscard]] Key key_of(const DatasetId& dataset, const BlockRange& range, std::uint64_t asked) const {
    return {datasets_.find(dataset).value(), range.begin, asked};
  }

  /// `key` is one that `insert` gave and that was not erased. What it stood for: not released before the next
  /// `collect`.
  T& erase(const Key& key) {
    T* erased = nullptr;
    working_ = erase_below(working_, key, erased);
    while (working_ != nullptr && working_->level > 0 && working_->size == 1) {
      Node* child = working_->slots[0].below.node;
      retire(working_);
      working_ = child;
    }
    --size_;
    return *erased;
  }

  /// Lets readers see the changes so far. O(1).
  void publish() {
    root_.store(working_, std::memory_order_seq_cst);
    ++batch_;
  }

  /// Appends to `out` what no reader can see any more, erased values among it, but for nodes that are kept for the next
  /// changes (less than 100 KB). The caller destroys it, outside its locks. Nothing may be unpublished.
  void collect(std::vector<Garbage>& out) {
    epochs_.collect(out);
    // The next change copies a path again, mostly of as many nodes: they cost no allocation then.
    std::erase_if(out, [this](Garbage& garbage) {
      auto* node = std::get_if<NodePtr>(&garbage);
      if (node == nullptr || spare_.size() >= most_spare) return false;
      spare_.push_back(std::move(*node));
      return true;
    });
  }
  /// Whether `collect` will have more to give once the readers that are inside now have left.
  [[nodiscard]] bool pending() const noexcept { return epochs_.pending(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Of the ranges that contain `block`, the one of the greatest begin; among equals, the one asked for last: what
  /// `take(value)` makes of it. The value is not released before `take` has returned.
  template <class Take>
  [[nodiscard]] std::optional<std::invoke_result_t<Take, T&>> find(const DatasetId& dataset, BlockNumber block,
                                                                   Take&& take) const {
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = datasets_.find(dataset);
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (!number || root == nullptr) return std::nullopt;
    const Position position{*number, block};
    T* value = find_disjoint(*root, position);
    if (value == nullptr) value = find_last(*root, position);
    if (value == nullptr) return std::nullopt;
    return take(*value);
  }

  /// Calls `take(value)` for each range that meets `range`, by begin and then by order of asking.
  template <class Take>
  void visit(const DatasetId& dataset, const BlockRange& range, Take&& take) const {
    if (range.begin >= range.end) return;
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = datasets_.find(dataset);
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (number && root != nullptr) {
      visit_below(*root, Position{*number, range.begin}, Key{*number, range.end, 0}, take);
    }
  }

  /// Calls `take(value)` for all.
  template <class Take>
  void visit_all(Take&& take) const {
    const auto guard = epochs_.enter();
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (root != nullptr) visit_below(*root, Position{}, Key{~std::uint32_t{0}, latest, latest}, take);
  }

 private:
  using Position = IndexPosition;
  using Item = typename Node::Item;

  static constexpr std::uint64_t latest = Node::latest;
  static constexpr std::size_t capacity = Node::capacity;
  static constexpr std::size_t most_spare = 64;

  // -- readers

  /// The last range that begins at or before `position`, where it ends after it: then it is the answer. Null says
  /// nothing.
  static T* find_disjoint(const Node& root, const Position& position) noexcept {
    const Node* node = &root;
    while (true) {
      const std::size_t count = node->count_not_after(position);
      if (count == 0) return nullptr;
      const auto& slot = node->slots[count - 1];
      if (node->level == 0) {
        return slot.end > position.block && node->datasets[count - 1] == position.dataset ? slot.below.value : nullptr;
      }
      node = slot.below.node;
      node->prefetch();
    }
  }

  static T* find_last(const Node& node, const Position& position) noexcept {
    for (std::size_t i = node.count_not_after(position); i-- > 0;) {
      if (node.end(i) <= position) continue;
      if (node.level == 0) return node.slots[i].below.value;
      // Below any but the last of these slots every key is within the bound, so the answer is there for
      // certain.
      if (T* value = find_last(*node.slots[i].below.node, position)) return value;
    }
    return nullptr;
  }

  template <class Take>
  static void visit_below(const Node& node, const Position& after, const Key& before, Take& take) {
    for (std::size_t i = 0; i < node.size && node.key(i) < before; ++i) {
      if (node.end(i) <= after) continue;
      if (node.level == 0) {
        take(*node.slots[i].below.value);
      } else {
        visit_below(*node.slots[i].below.node, after, before, take);
      }
    }
  }

  // -- the writer

  void retire(Node* node) { epochs_.retire(NodePtr(node)); }

  /// An empty one, that readers cannot see.
  NodePtr make_node(std::size_t level) { return take_spare(Node(batch_, level)); }

  NodePtr take_spare(const Node& as) {
    if (spare_.empty()) return std::make_unique<Node>(as);
    NodePtr node = std::move(spare_.back());
    spare_.pop_back();
    *node = as;
    return node;
  }

  /// `node` itself where readers cannot see it yet, else a copy of it that they cannot.
  Node* writable(Node* node) {
    if (node->batch == batch_) return node;
    NodePtr copy = take_spare(*node);
    copy->batch = batch_;
    retire(node);
    return copy.release();
  }

  static Item item_of(Node* node) {
    Item item{node->key(0), node->greatest_end(), {}};
    item.below.node = node;
    return item;
  }

  /// Puts `item` into `node`, which is writable; returns the right half where it had to be split.
  Node* put_or_split(Node& node, std::size_t at, const Item& item) {
    if (node.size < capacity) {
      node.put(at, item);
      return nullptr;
    }
    // Chunks mostly arrive in order of their blocks, or nearly so: then the left node is left full, or nearly so.
    const std::size_t half = at >= capacity * 3 / 4 ? at : capacity / 2;
    NodePtr right = make_node(node.level);
    for (std::size_t i = half; i < node.size; ++i) right->put(right->size, node.item(i));
    node.shrink(half);
    if (at > half || half == capacity) {
      right->put(at - half, item);
    } else {
      node.put(at, item);
    }
    return right.release();
  }

  Node* insert_below(Node*& node, const Item& item) {
    node = writable(node);
    const std::size_t count = node->count_not_after(item.key);
    if (node->level == 0) return put_or_split(*node, count, item);
    const std::size_t at = count == 0 ? 0 : count - 1;
    Node* right = insert_below(node->slots[at].below.node, item);
    node->set(at, item_of(node->slots[at].below.node));
    return right == nullptr ? nullptr : put_or_split(*node, at + 1, item_of(right));
  }

  Node* erase_below(Node* node, const Key& key, T*& erased) {
    node = writable(node);
    const std::size_t at = node->count_not_after(key) - 1;
    if (node->level == 0) {
      erased = node->slots[at].below.value;
      epochs_.retire(ValuePtr(erased));
      node->take_out(at);
    } else if (Node* child = erase_below(node->slots[at].below.node, key, erased)) {
      node->set(at, item_of(child));
      // A branch may have one child: appending starts one with it.
      if (child->size < capacity / 4 && node->size > 1) merge(*node, at + 1 < node->size ? at : at - 1);
    } else {
      node->take_out(at);
    }
    if (node->size > 0) return node;
    retire(node);
    return nullptr;
  }

  /// Merges the children at `at` and right of it where they fit into one with room to grow.
  void merge(Node& node, std::size_t at) {
    Node* right = node.slots[at + 1].below.node;
    if (node.slots[at].below.node->size + right->size > capacity * 3 / 4) return;
    Node* left = writable(node.slots[at].below.node);
    for (std::size_t i = 0; i < right->size; ++i) left->put(left->size, right->item(i));
    retire(right);
    node.set(at, item_of(left));
    node.take_out(at + 1);
  }

  static void destroy(Node* node) {
    for (std::size_t i = 0; i < node->size; ++i) {
      if (node->level > 0) {
        destroy(node->slots[i].below.node);
      } else {
        ValuePtr(node->slots[i].below.value).reset();
      }
    }
    delete node;
  }

  Epochs<Garbage> epochs_;
  std::vector<NodePtr> spare_;
  std::atomic<const Node*> root_{nullptr};
  DatasetNumbers datasets_;
  Node* working_ = nullptr;
  std::uint64_t batch_ = 1;
  std::size_t size_ = 0;
};

}  // namespace garner::core

// garner/core/schedule.hpp ----------------------------------------------------------------------------------
// When: backoff with full jitter, and the alarms of chunks that wait. Decides only; it is told the time.

namespace garner::core {

/// Nanoseconds since a moment of the caller's choosing; the same as an Executor's `Instant`.
using Instant = std::chrono::nanoseconds;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): small, and the same
/// on every standard library, so that a seed replays.
class Random {
 public:
  explicit constexpr Random(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  /// Uniform in [0, 1).
  constexpr double fraction() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t state_;
};

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015).
struct Backoff {
  std::chrono::nanoseconds min = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max = std::chrono::minutes(5);

  /// Uniform in [0, min(max, min * 2^failures)).
  [[nodiscard]] std::chrono::nanoseconds delay(std::uint64_t failures, Random& random) const {
    const auto base = static_cast<double>(min.count());
    const auto cap = static_cast<double>(max.count());
    const double grown = base * static_cast<double>(std::uint64_t{1} << std::min<std::uint64_t>(failures, 40));
    return std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(cap, grown) * random.fraction()));
  }

  /// For what is unlikely to mend soon: uniform in [max / 2, max).
  [[nodiscard]] std::chrono::nanoseconds slowest(Random& random) const {
    return std::chrono::nanoseconds(
        static_cast<std::int64_t>(static_cast<double>(max.count()) * (0.5 + random.fraction() / 2)));
  }
};

/// How long to wait after a failure, the `streak`-th in a row, counted from 0. `retry_after`: as a server asked.
inline std::chrono::nanoseconds retry_delay(const Options& options, ErrorClass cls,
                                            std::optional<std::chrono::nanoseconds> retry_after, std::uint64_t streak,
                                            Random& random) {
  const Backoff backoff{options.min_backoff, options.max_backoff};
  switch (cls) {
    case ErrorClass::gone:
    case ErrorClass::credentials:
    case ErrorClass::invalid: return backoff.slowest(random);
    case ErrorClass::no_space: return Backoff{{}, options.no_space_retry}.slowest(random);
    case ErrorClass::none:
    case ErrorClass::transient:
    case ErrorClass::wrong_bytes:
    case ErrorClass::local:
    case ErrorClass::cancelled: break;
  }
  const auto delay = backoff.delay(streak, random);
  if (!retry_after) return delay;
  // As the server asked, within our limits, and not all at the same moment.
  return delay + std::max(std::chrono::nanoseconds{}, std::min(*retry_after, options.max_backoff));
}

/// The moments at which chunks are to be looked at again. O(log n) each.
class Alarms {
 public:
  void set(Instant at, const ChunkId& id) { alarms_.emplace(at, id); }
  void cancel(Instant at, const ChunkId& id) { alarms_.erase({at, id}); }

  [[nodiscard]] std::optional<Instant> next() const {
    if (alarms_.empty()) return std::nullopt;
    return alarms_.begin()->first;
  }

  /// Takes out one that is due at `now`, the earliest first.
  std::optional<ChunkId> pop_due(Instant now) {
    if (alarms_.empty() || alarms_.begin()->first > now) return std::nullopt;
    const ChunkId id = alarms_.begin()->second;
    alarms_.erase(alarms_.begin());
    return id;
  }

 private:
  std::set<std::pair<Instant, ChunkId>> alarms_;
};

}  // namespace garner::core

// garner/core/scrub.hpp -------------------------------------------------------------------------------------
// Passes over all that is held: who is to be re-read next, and when. Knows ids, bytes and the time; what a chunk is,
// and whether it can be re-read just now, is known to whoever asks.

namespace garner::core {

/// A pass goes round: it begins behind the chunk that was re-read last, the first one at a place that `seed` chooses.
/// So what was not re-read for the longest time comes first, and a worker that is started again and again does not
/// always re-read the same chunks, nor does one that is asked for a pass again and again.
///
/// Each member is O(log n) or less; of a pass that is replaced, the ids are freed.
class Scrub {
 public:
  explicit Scrub(std::uint64_t seed) {
    Random random(seed);
    std::array<std::uint8_t, 32> bytes{};
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
    last_ = ChunkId(bytes);
  }

  /// Whether the time has come for the next pass, which begins with a list of what is held.
  [[nodiscard]] bool is_due(const Options& options, Instant now) const {
    const std::optional<Instant> at = due(options);
    return at && *at <= now;
  }

  /// The list was asked for.
  void list() { listing_ = true; }

  /// Begins a pass over `ids`, which are in their order, in the place of the one that is running; what that one had is
  /// in `ids` then, to be freed where it holds nobody up. A `paced` one keeps to `Options::scrub_bytes_per_second`, and
  /// does not take the place of one that need not.
  void begin(std::vector<ChunkId>& ids, bool paced, Instant now) {
    if (paced) listing_ = false;
    if (is_stopped_ || (paced && status_.running && !paced_)) return;
    paced_ = paced;
    began_ = now;
    first_ = static_cast<std::size_t>(std::upper_bound(ids.begin(), ids.end(), last_) - ids.begin());
    ids_.swap(ids);
    next_ = 0;
    ++pass_;
    const std::uint64_t passes = status_.passes;
    status_ = {};
    status_.running = true;
    status_.chunks_total = ids_.size();
    status_.passes = passes;
  }

  /// Whose turn it is; nothing where none is running, where it is not time yet, or while one is being re-read.
  [[nodiscard]] std::optional<ChunkId> turn(const Options& options, Instant now) {
    is_held_up_ = false;
    if (reading_ || next_ == ids_.size() || now < next_at(options)) return std::nullopt;
    return ids_[(first_ + next_) % ids_.size()];
  }

  /// The chunk whose turn it was is not held any more.
  void skip() {
    ++next_;
    ++status_.chunks_done;
  }

  /// It cannot be re-read before something else was reported, which leads to another look at whose turn it is.
  void hold_up() { is_held_up_ = true; }

  /// It is being re-read.
  void read(std::uint64_t bytes, Instant now) {
    last_ = ids_[(first_ + next_) % ids_.size()];
    ++next_;
    reading_ = pass_;
    read_at_ = now;
    read_bytes_ = bytes;
  }

  enum class Result : std::uint8_t { whole, corrupt, unreadable, cancelled };

  /// It was.
  void done(Result result) {
    // What was found is news for the pass that has begun meanwhile, too; but that one re-reads the chunk itself.
    if (result == Result::corrupt) ++status_.corrupt;
    if (result == Result::unreadable) ++status_.unreadable;
    if (std::exchange(reading_, std::nullopt) != pass_) return;
    ++status_.chunks_done;
    status_.bytes_done += read_bytes_;
  }

  /// Whether the pass has just come to its end. True once; `ids` is then to be freed where it holds nobody up.
  bool ends(std::vector<ChunkId>& ids) {
    if (!status_.running || reading_ || next_ != ids_.size()) return false;
    status_.running = false;
    ++status_.passes;
    ids.swap(ids_);
    next_ = 0;
    return true;
  }

  /// When to look again. Nothing where something else comes first.
  [[nodiscard]] std::optional<Instant> wake(const Options& options) const {
    if (reading_ || is_held_up_) return std::nullopt;
    return next_ == ids_.size() ? due(options) : next_at(options);
  }

  /// No pass begins or goes on any more.
  void stop() {
    is_stopped_ = true;
    std::vector<ChunkId>().swap(ids_);
    next_ = 0;
    status_.running = false;
  }

  [[nodiscard]] const ScrubStatus& status() const noexcept { return status_; }

 private:
  /// Of the next pass.
  [[nodiscard]] std::optional<Instant> due(const Options& options) const {
    if (options.scrub_interval <= Instant{} || status_.running || listing_ || is_stopped_) return std::nullopt;
    return began_ ? later(*began_, options.scrub_interval) : Instant{};
  }

  /// After `n` bytes, `n / rate` later; so that the rate does not depend on how long it took to read them.
  [[nodiscard]] Instant next_at(const Options& options) const {
    if (!paced_ || options.scrub_bytes_per_second == 0) return Instant{};
    const double seconds = static_cast<double>(read_bytes_) / static_cast<double>(options.scrub_bytes_per_second);
    constexpr double most = 1e9;  // thirty years
    return later(read_at_, Instant(static_cast<std::int64_t>(std::min(seconds, most) * 1e9)));
  }

  static Instant later(Instant at, Instant by) { return by > Instant::max() - at ? Instant::max() : at + by; }

  std::vector<ChunkId> ids_;
  std::size_t first_ = 0;
  std::size_t next_ = 0;  ///< counted from the first
  ChunkId last_;          ///< re-read
  std::uint64_t pass_ = 0;
  std::optional<std::uint64_t> reading_;  ///< for which pass
  Instant read_at_{};
  std::uint64_t read_bytes_ = 0;
  std::optional<Instant> began_;
  bool paced_ = false;
  bool listing_ = false;
  bool is_held_up_ = false;
  bool is_stopped_ = false;
  ScrubStatus status_;
};

}  // namespace garner::core

// garner/core/chunk_table.hpp -------------------------------------------------------------------------------
// The state machine of all chunks: calls, reports and the time go in, actions come out. No thread, lock, clock, disk or
// socket: it decides, `data_manager.hpp` does. Here are the inputs; the questions are in `core/chunk_questions.hpp`,
// the rules that every input ends in are in `core/chunk_rules.hpp`, the order of many in `core/chunk_turns.hpp`.

// garner/core/actions.hpp -----------------------------------------------------------------------------------
// What the state machine wants done, and the outcomes that come back. Values only: who performs an action, on
// which thread and how, is not known here.

namespace garner::core {

/// Names one transfer of one file; never used twice.
using TransferId = std::uint64_t;

/// What `download_chunk` asks for, with its fingerprint computed where no lock is held.
struct Wish {
  explicit Wish(DataChunk description)
      : chunk(std::make_shared<const DataChunk>(std::move(description))),
        content(content_fingerprint(*chunk)),
        bytes(declared_bytes(*chunk)) {}

  std::shared_ptr<const DataChunk> chunk;
  ContentFingerprint content;
  std::optional<std::uint64_t> bytes;  ///< declared
};

/// How an action ended.
struct Outcome {
  std::error_code error;
  std::string subject;                                  ///< with an error: the file and redacted URL, or the path
  std::optional<std::chrono::nanoseconds> retry_after;  ///< as a server asked
  std::uint64_t bytes = 0;                              ///< of a transfer: that it moved, ...
  std::chrono::nanoseconds took{};                      ///< ... from its start to its last

  [[nodiscard]] bool ok() const noexcept { return !error; }
};

/// Each action but the last six is answered by exactly one report: `staged`, `file_done`, and so on.
namespace action {

/// Open a staging area for a new generation.
struct Stage {
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
};
/// Fetch one file of a staged generation, from the `url`-th of its mirrors.
struct StartFile {
  TransferId transfer;
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
  const std::string* name;  ///< into `chunk`
  std::shared_ptr<const FileSource> source;
  std::size_t url;
  bool finds_out = false;  ///< whether its server is well again: `answered` is to tell as soon as it answers
};
/// Ask for a new source of one file, whose credentials were rejected.
struct Refresh {
  TransferId transfer;  ///< that was told so
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
  const std::string* name;  ///< into `chunk`
  std::function<FileSource(const DataChunk&, const std::string&)> ask = {};
};
struct Publish {
  ChunkId id;
  std::uint64_t number;
};
/// Take a staging area away. Nothing writes to it any more.
struct Discard {
  ChunkId id;
  std::uint64_t number;
};
/// Make sure that the next start does not find this generation: it is still pinned, or its removal has failed. To be
/// asked about first, by `withdraw_doom`.
struct Doom {
  Generation generation;
};
struct Spare {
  Generation generation;
};
/// Take a generation away. Nobody has a pin on it.
struct Remove {
  Generation generation;
};
struct Describe {
  Generation generation;
};
/// As Remove, of one that is corrupt.
struct Quarantine {
  Generation generation;
  std::string reason;
};
struct Verify {
  Generation generation;
  VerifyDepth depth;
};

/// Tell the ids of all that is listed, for a pass over them.
struct ListHeld {};

/// Take away what was left half-done.
struct CleanUp {
  Partial partial;
};

/// Find out what each volume can do. `found` comes before the report, for each generation on one that was opened anew.
struct Examine {};

/// From now on, for a downloader that can be told.
struct Limit {
  FetchLimits limits;
};
/// End a transfer early. Its `file_done` comes all the same.
struct StopFile {
  TransferId transfer;
};
/// They are many, and nobody needs them any more.
struct FreeIds {
  std::vector<ChunkId> ids;
};
/// Serve a generation / serve it no more. Performed before the call that caused it returns.
struct List {
  Generation generation;
  std::uint64_t asked;
};
struct Unlist {
  Generation generation;
  std::uint64_t asked;  ///< as it was listed
};
/// Tell all pins on it that it is corrupt; it is not listed. Likewise at once.
struct Condemn {
  Generation generation;
};

}  // namespace action

using Action = std::variant<action::Stage, action::StartFile, action::Refresh, action::Publish, action::Discard,
                            action::Doom, action::Spare, action::Remove, action::Quarantine, action::Describe,
                            action::Verify, action::ListHeld, action::CleanUp, action::Examine, action::Limit,
                            action::StopFile, action::FreeIds, action::List, action::Unlist, action::Condemn, Event>;

/// Keeps the room for a few: a great assignment is not to hold its memory for ever.
inline void clear(std::vector<Action>& actions) {
  if (actions.capacity() <= 128) return actions.clear();
  std::vector<Action>().swap(actions);
}

/// What is to be done, in order, and how much of it is still to be reported on.
class ActionList {
 protected:
  template <class Done>
  void act(Done action) {
    constexpr bool reported = !std::is_same_v<Done, action::Limit> && !std::is_same_v<Done, action::StopFile> &&
                              !std::is_same_v<Done, action::FreeIds> && !std::is_same_v<Done, action::List> &&
                              !std::is_same_v<Done, action::Unlist> && !std::is_same_v<Done, action::Condemn>;
    if (reported) ++unreported_;
    actions_.emplace_back(std::move(action));
  }

  void notify(EventKind kind, const ChunkId& id, std::uint64_t number) {
    Event event;
    event.kind = kind;
    event.id = id;
    event.generation = number;
    actions_.emplace_back(std::move(event));
  }

  void notify_failure(const ChunkId& id, std::uint64_t number, const Outcome& outcome) {
    notify(EventKind::chunk_failed, id, number);
    auto& event = std::get<Event>(actions_.back());
    event.error = outcome.error;
    event.subject = outcome.subject;
  }

  void notify_volume(EventKind kind, const std::string& path) {
    notify(kind, {}, 0);
    std::get<Event>(actions_.back()).subject = path;
  }

  std::vector<Action> actions_;
  std::size_t unreported_ = 0;
};

}  // namespace garner::core

// garner/core/chunk_entry.hpp -------------------------------------------------------------------------------
// All that is known of one chunk: what is wanted of it, its generations in the store, and the one on its way
// in. State and questions about it; the rules that change it are in `core/chunk_table.hpp`.

// garner/core/chunk_fetch.hpp -------------------------------------------------------------------------------
// One generation on its way in: which of its files are there, which are moving, which mirrors are left to try. Knows
// nothing of other chunks, of limits or of time.

// garner/core/fetch_queue.hpp -------------------------------------------------------------------------------
// The queue that chooses which chunk is fetched next. Decides only; how many are, and when, is in
// `core/chunk_turns.hpp`.

// garner/core/hosts.hpp -------------------------------------------------------------------------------------
// The servers that chunks come from: how many transfers each of them bears at the moment, when one that failed is to be
// left alone, and which of a file's mirrors is the best. Decides from what it is told of transfers; knows nothing of
// chunks.

namespace garner::core {

/// The part of `url` up to its path, in lower case and without credentials: what has a server of its own. Of text that
/// is no URL, some part of it.
inline std::string origin_of(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const std::size_t start = scheme == std::string_view::npos ? 0 : scheme + 3;
  const std::string_view authority = url.substr(start, url.find_first_of("/?#", start) - start);
  const std::size_t at = authority.rfind('@');
  std::string origin(url.substr(0, start));
  origin += authority.substr(at == std::string_view::npos ? 0 : at + 1);
  return detail::fold_case(origin);
}

/// One server. Who fetches from it keeps it.
struct Host {
  static constexpr double unlimited = std::numeric_limits<double>::infinity();

  explicit Host(std::string of) : origin(std::move(of)) {}

  std::string origin;
  std::size_t moving = 0;              ///< transfers
  double bears = unlimited;            ///< transfers at once, where it has said that there were too many
  std::uint64_t setbacks = 0;          ///< in a row
  std::uint64_t setbacks_ever = 0;     ///< a transfer that began before the last one tells nothing new by failing too
  std::optional<Instant> rests_until;  ///< nothing is asked of it before
  double bytes_per_second = 0;         ///< of one transfer, lately
  std::uint64_t measured = 0;          ///< transfers that this was learnt from
};
using HostPtr = std::shared_ptr<Host>;

/// One of the places that a file can be had from.
struct Mirror {
  HostPtr host;
  bool tried = false;  ///< in this round
};

/// Thread-safety: none. Each member is O(log n) in the number of hosts, but for those that say otherwise.
class Hosts {
 public:
  HostPtr at(std::string_view url) {
    std::string origin = origin_of(url);
    if (const auto found = hosts_.find(origin); found != hosts_.end()) return found->second;
    if (hosts_.size() >= room_) forget_idle();
    auto host = std::make_shared<Host>(origin);
    hosts_.emplace(std::move(origin), host);
    return host;
  }

  /// Transfers that may run at once.
  [[nodiscard]] static std::size_t bears(const Host& host, std::size_t most) noexcept {
    // Asked by one, until it has answered.
    if (is_on_probation(host)) return 1;
    return host.bears >= static_cast<double>(most) ? most : static_cast<std::size_t>(host.bears);
  }
  /// Chunks that are worth being fetched from it at once: while some are published, together, others move.
  [[nodiscard]] static std::size_t feeds(const Host& host, std::size_t most) noexcept {
    if (host.rests_until) return 0;
    const std::size_t transfers = bears(host, most);
    if (is_on_probation(host)) return transfers;
    return transfers > std::numeric_limits<std::size_t>::max() / 4 ? transfers : 4 * transfers;
  }
  /// It has failed again and again, and not answered since.
  [[nodiscard]] static bool is_on_probation(const Host& host) noexcept { return host.setbacks >= many_setbacks; }

  /// Whether a transfer can begin from one of these now.
  [[nodiscard]] static bool can_choose(std::span<const Mirror> mirrors, std::size_t most) noexcept {
    const std::optional<std::size_t> best = rank(mirrors).first;
    return best && has_room(*mirrors[*best].host, most);
  }

  /// The mirror that it is to begin from: the first that does not rest, unless another is known to be at least twice as
  /// fast; and now and then, where it may be any, the one that least is known of. None where the best one bears no
  /// more.
  [[nodiscard]] static std::optional<std::size_t> choose(std::span<const Mirror> mirrors, std::size_t most,
                                                         bool may_explore, Random& random) {
    const auto [best, other] = rank(mirrors);
    if (!best || !has_room(*mirrors[*best].host, most)) return std::nullopt;
    const bool explores =
        other && may_explore && random.next() % explore_one_in == 0 && has_room(*mirrors[*other].host, most);
    return explores ? other : best;
  }

  /// When the first of those that are left to try can be asked again; nothing where one can be now, or none is left.
  [[nodiscard]] static std::optional<Instant> rest_until(std::span<const Mirror> mirrors) noexcept {
    std::optional<Instant> first;
    for (const Mirror& mirror : mirrors) {
      if (mirror.tried) continue;
      const std::optional<Instant>& until = mirror.host->rests_until;
      if (!until) return std::nullopt;
      if (!first || *until < *first) first = until;
    }
    return first;
  }

  /// A transfer has begun. What is returned is given back at its end.
  static std::uint64_t began(Host& host) noexcept {
    ++host.moving;
    return host.setbacks_ever;
  }

  /// A transfer has ended so. `most`: that may go to one server at once.
  void ended(const HostPtr& host, std::uint64_t began, const Outcome& outcome, const Options& options, std::size_t most,
             Instant now, Random& random) {
    --host->moving;
    const ErrorClass cls = classify(outcome.error);
    measure(*host, outcome);
    if (cls == ErrorClass::transient) {
      if (began == host->setbacks_ever) set_back(host, outcome, options, now, random);
    } else if (cls == ErrorClass::none) {
      host->setbacks = 0;
      host->bears += 1 / host->bears;
      if (host->bears >= static_cast<double>(most)) host->bears = Host::unlimited;
    } else if (cls == ErrorClass::gone || cls == ErrorClass::credentials) {
      answered(*host, began);
    }
  }

  /// It answers a transfer that has begun, whatever it says.
  static void answered(Host& host, std::uint64_t began) noexcept {
    if (began == host.setbacks_ever) host.setbacks = 0;
  }

  /// Those that have rested are asked again.
  void wake(Instant now) {
    while (!resting_.empty() && resting_.begin()->first <= now) {
      resting_.begin()->second->rests_until.reset();
      resting_.erase(resting_.begin());
    }
  }

  [[nodiscard]] std::optional<Instant> next_wake() const {
    if (resting_.empty()) return std::nullopt;
    return resting_.begin()->first;
  }

 private:
  static constexpr std::uint64_t many_setbacks = 2;
  static constexpr std::uint64_t explore_one_in = 32;
  static constexpr std::uint64_t enough_measured = 4;
  static constexpr std::uint64_t least_measured_bytes = 64 * 1024;  // less tells of the way there, and not of its width
  static constexpr std::size_t most_idle = 1024;

  /// The best of those that can be asked, and of the others the one that least is known of.
  static std::pair<std::optional<std::size_t>, std::optional<std::size_t>> rank(
      std::span<const Mirror> mirrors) noexcept {
    // Nobody waits for one that is being found out about, where there is another.
    const auto can_be_asked = [](const Mirror& mirror) {
      const Host& host = *mirror.host;
      return !mirror.tried && !host.rests_until && !(is_on_probation(host) && host.moving > 0);
    };
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < mirrors.size(); ++i) {
      if (!can_be_asked(mirrors[i])) continue;
      if (!best || is_faster(*mirrors[i].host, *mirrors[*best].host)) best = i;
    }
    if (!best) return {};
    std::optional<std::size_t> other;
    for (std::size_t i = 0; i < mirrors.size(); ++i) {
      if (!can_be_asked(mirrors[i]) || mirrors[i].host == mirrors[*best].host) continue;
      if (!other || mirrors[i].host->measured < mirrors[*other].host->measured) other = i;
    }
    return {best, other};
  }

  static bool has_room(const Host& host, std::size_t most) noexcept { return host.moving < bears(host, most); }

  static bool is_faster(const Host& host, const Host& than) noexcept {
    return host.measured >= enough_measured && than.measured >= enough_measured &&
           host.bytes_per_second >= 2 * than.bytes_per_second;
  }

  static void measure(Host& host, const Outcome& outcome) noexcept {
    if (outcome.bytes < least_measured_bytes || outcome.took <= std::chrono::nanoseconds::zero()) return;
    const double rate = static_cast<double>(outcome.bytes) / std::chrono::duration<double>(outcome.took).count();
    host.bytes_per_second = host.measured == 0 ? rate : 0.75 * host.bytes_per_second + 0.25 * rate;
    ++host.measured;
  }

  /// Additive increase, multiplicative decrease (Chiu, Jain: Analysis of the increase and decrease algorithms for
  /// congestion avoidance, 1989), once for all the transfers that were under way.
  void set_back(const HostPtr& host, const Outcome& outcome, const Options& options, Instant now, Random& random) {
    ++host->setbacks_ever;
    ++host->setbacks;
    const bool is_busy = outcome.error == errc::server_busy;
    if (is_busy) {
      const auto now_moving = static_cast<double>(host->moving + 1);
      host->bears = std::max(1.0, std::min(host->bears, now_moving) / 2);
    }
    // One transfer that broke says little about a server.
    if (!is_busy && !outcome.retry_after && host->setbacks < many_setbacks) return;
    const auto rest = retry_delay(options, ErrorClass::transient, outcome.retry_after, host->setbacks - 1, random);
    if (host->rests_until) resting_.erase({*host->rests_until, host});
    host->rests_until = std::max(now + rest, host->rests_until.value_or(now));
    resting_.emplace(*host->rests_until, host);
  }

  /// O(n), and rare: lakes have a few hosts.
  void forget_idle() {
    std::erase_if(hosts_, [](const auto& entry) { return entry.second.use_count() == 1; });
    room_ = std::max(most_idle, 2 * hosts_.size());
  }

  std::unordered_map<std::string, HostPtr> hosts_;
  std::set<std::pair<Instant, HostPtr>> resting_;
  std::size_t room_ = most_idle;
};

}  // namespace garner::core

namespace garner::core {

/// The chunks that wait for their turn. The dataset with the fewest missing chunks goes first, so that whole datasets
/// become answerable early; then the order of asking. The chunks of each server (that of the first file's mirrors)
/// stand in a lane of their own, so that one that rests holds up no other. O(log n) each, n being chunks and datasets.
class FetchQueue {
 private:
  using Rank = std::tuple<std::size_t, std::uint64_t, DatasetId>;  // missing, first asked, which
  using Queued = std::map<std::uint64_t, ChunkId>;                 // by order of asking

 public:
  /// Chunks that come from the same place.
  class Lane {
   public:
    [[nodiscard]] const std::vector<HostPtr>& hosts() const noexcept { return hosts_; }
    std::size_t active = 0;  ///< chunks that are being fetched

   private:
    friend class FetchQueue;

    /// Whether these are of its servers, as they are mostly written; false says nothing.
    [[nodiscard]] bool serves(const std::vector<std::string>& urls) const noexcept {
      return std::equal(urls.begin(), urls.end(), origins_.begin(), origins_.end(),
                        [](const std::string& url, const std::string& origin) {
                          return url.starts_with(origin) && url.size() > origin.size() && url[origin.size()] == '/';
                        });
    }

    std::vector<HostPtr> hosts_;
    std::vector<std::string> origins_;  // of each URL, in their order
    std::set<Rank> order_;
    std::optional<Rank> standing_;  // in `lanes_`: its first
  };
  using LanePtr = std::shared_ptr<Lane>;

  explicit FetchQueue(Hosts& hosts) : hosts_(hosts) {}

  /// Counts one more (`delta` = 1) or one less (-1) missing chunk of `dataset`, queued or not.
  void count_missing(const DatasetId& dataset, int delta) {
    const auto at = datasets_.try_emplace(dataset).first;
    change(at, [&] {
      at->second.missing = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(at->second.missing) + delta);
    });
  }

  /// `asked` is the chunk's place in the order of asking, and its own; `urls` are where it comes from next.
  void push(const DataChunk& chunk, std::uint64_t asked, const std::vector<std::string>& urls) {
    const auto at = datasets_.try_emplace(chunk.dataset_id).first;
    const LanePtr lane = lane_of(at->second, urls);
    change(at, [&] {
      auto& lanes = at->second.lanes;
      auto part = std::find_if(lanes.begin(), lanes.end(), [&](const Part& other) { return other.lane == lane; });
      if (part == lanes.end()) part = lanes.insert(part, Part{lane, {}, {}});
      part->queued.emplace(asked, chunk.id);
    });
  }

  void erase(const DatasetId& dataset, std::uint64_t asked) {
    const auto at = datasets_.find(dataset);
    change(at, [&] {
      for (Part& part : at->second.lanes) {
        if (part.queued.erase(asked) > 0) return;
      }
    });
  }

  /// Whose turn it is, and where it stands; it stays queued. Lanes that are not `open` are passed over.
  template <class Open>
  [[nodiscard]] std::optional<std::pair<ChunkId, LanePtr>> front(Open&& open) const {
    for (const auto& [rank, lane] : lanes_) {
      if (!open(*lane)) continue;
      const Dataset& dataset = datasets_.at(std::get<DatasetId>(rank));
      const auto part = std::find_if(dataset.lanes.begin(), dataset.lanes.end(),
                                     [at = lane](const Part& other) { return other.lane.get() == at; });
      return std::pair(part->queued.begin()->second, part->lane);
    }
    return std::nullopt;
  }

  [[nodiscard]] bool empty() const noexcept { return lanes_.empty(); }

 private:
  /// Of a dataset, what stands in one lane.
  struct Part {
    LanePtr lane;
    Queued queued;
    std::optional<Rank> rank = {};  // by which it stands in the lane
  };
  struct Dataset {
    std::size_t missing = 0;
    std::vector<Part> lanes;  // a few; none is empty
  };
  using Datasets = std::unordered_map<DatasetId, Dataset>;

  /// The lanes of a dataset are looked through one by one: what comes from yet another place stands with the others.
  static constexpr std::size_t most_lanes = 16;

  template <class Change>
  void change(Datasets::iterator at, Change&& change) {
    Dataset& dataset = at->second;
    change();
    for (Part& part : dataset.lanes) {
      std::optional<Rank> rank;
      if (!part.queued.empty()) rank.emplace(dataset.missing, part.queued.begin()->first, at->first);
      if (rank == part.rank) continue;  // as mostly, where one more has come
      move(part.lane->order_, part.rank, rank);
      part.rank = rank;
      stand(*part.lane);
    }
    std::erase_if(dataset.lanes, [](const Part& part) { return part.queued.empty(); });
    if (dataset.lanes.empty() && dataset.missing == 0) datasets_.erase(at);
  }

  /// In the place of `from`, which is there if it is anything, comes `to`, if that is.
  template <class Set, class Value>
  static void move(Set& set, const std::optional<Value>& from, const std::optional<Value>& to) {
    if (!from) {
      if (to) set.insert(*to);
      return;
    }
    auto node = set.extract(*from);
    if (!to) return;
    node.value() = *to;
    set.insert(std::move(node));
  }

  void stand(Lane& lane) {
    std::optional<Rank> first;
    if (!lane.order_.empty()) first = *lane.order_.begin();
    if (first == lane.standing_) return;
    const auto place = [&lane](const std::optional<Rank>& rank) {
      return rank ? std::optional(std::pair(*rank, &lane)) : std::nullopt;
    };
    move(lanes_, place(lane.standing_), place(first));
    lane.standing_ = first;
  }

  LanePtr lane_of(const Dataset& dataset, const std::vector<std::string>& urls) {
    // As a rule where the others are.
    for (const Part& part : dataset.lanes) {
      if (part.lane->serves(urls)) return part.lane;
    }
    std::string key;
    for (const std::string& url : urls) key += origin_of(url) + '\n';
    const auto known = known_.find(key);
    const auto stands_here = [&](const Part& part) { return known != known_.end() && part.lane == known->second; };
    const bool is_new_here = std::none_of(dataset.lanes.begin(), dataset.lanes.end(), stands_here);
    if (is_new_here && dataset.lanes.size() >= most_lanes) {
      const auto awake = std::find_if(dataset.lanes.begin(), dataset.lanes.end(), [](const Part& part) {
        return std::any_of(part.lane->hosts_.begin(), part.lane->hosts_.end(),
                           [](const HostPtr& host) { return !host->rests_until; });
      });
      return (awake == dataset.lanes.end() ? dataset.lanes.front() : *awake).lane;
    }
    if (known != known_.end()) return known->second;
    if (known_.size() >= room_) forget_idle();
    auto lane = std::make_shared<Lane>();
    for (const std::string& url : urls) {
      HostPtr host = hosts_.at(url);
      lane->origins_.push_back(host->origin);
      if (std::find(lane->hosts_.begin(), lane->hosts_.end(), host) == lane->hosts_.end()) {
        lane->hosts_.push_back(std::move(host));
      }
    }
    known_.emplace(std::move(key), lane);
    return lane;
  }

  /// O(n), and rare.
  void forget_idle() {
    std::erase_if(known_, [](const auto& entry) { return entry.second.use_count() == 1; });
    room_ = std::max(most_idle, 2 * known_.size());
  }

  static constexpr std::size_t most_idle = 256;

  Hosts& hosts_;
  Datasets datasets_;
  std::unordered_map<std::string, LanePtr> known_;  // by the origins of their hosts
  std::size_t room_ = most_idle;
  std::set<std::pair<Rank, Lane*>> lanes_;  // that have something, by their first
};

}  // namespace garner::core

namespace garner::core {

/// The files of one chunk while they are fetched.
class ChunkFetch {
 public:
  enum class Phase : std::uint8_t {
    staging,       ///< the staging area is being opened
    transferring,  ///< files move, or wait for a free transfer
    publishing,    ///< all files are there
    waiting,       ///< some file failed at every mirror; what is there is kept for the next round
    discarding,    ///< the staging area is being taken away
  };

  /// A transfer that has ended, and what its server is to be told of it.
  struct Ended {
    HostPtr host;
    std::uint64_t began;
  };

  ChunkFetch(std::uint64_t number, std::shared_ptr<const DataChunk> chunk, const ContentFingerprint& content,
             Hosts& hosts)
      : number_(number), chunk_(std::move(chunk)), content_(content) {
    files_.reserve(chunk_->files.size());
    for (const auto& [name, source] : chunk_->files) {
      File& file = files_.emplace_back();
      file.name = &name;
      set_source(file, {chunk_, &source}, hosts);
    }
  }

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  [[nodiscard]] const std::shared_ptr<const DataChunk>& chunk() const noexcept { return chunk_; }
  [[nodiscard]] const ContentFingerprint& content() const noexcept { return content_; }
  /// Files that are moving, or whose source is being refreshed.
  [[nodiscard]] std::size_t moving() const noexcept { return moving_; }

  Phase phase = Phase::staging;
  bool stopping = false;     ///< not wanted any more: to be discarded when nothing moves
  bool halted = false;       ///< its transfers were told to stop, and no more are started
  bool spoiled = false;      ///< the store failed under it: its staging cannot be trusted
  Outcome failure;           ///< of this round, the one that says most about when it is worth trying again
  FetchQueue::LanePtr lane;  ///< that it counts as active in

  [[nodiscard]] bool has_pending() const {
    return std::any_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::pending; });
  }
  [[nodiscard]] bool complete() const {
    return std::all_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::done; });
  }
  /// Where the next file comes from.
  [[nodiscard]] const std::vector<std::string>& next_urls() const {
    const auto pending =
        std::find_if(files_.begin(), files_.end(), [](const File& file) { return file.state == State::pending; });
    return (pending == files_.end() ? files_.front() : *pending).source->urls;
  }
  /// Whether any file was finished in this round.
  [[nodiscard]] bool progressed() const noexcept { return progressed_; }

  /// Where no pending file can begin, because all servers that it is left with are resting: until when.
  [[nodiscard]] std::optional<Instant> rest_until() const {
    std::optional<Instant> first;
    for (const File& file : files_) {
      if (file.state != State::pending) continue;
      const std::optional<Instant> until = Hosts::rest_until(file.mirrors);
      if (!until) return std::nullopt;
      if (!first || *until < *first) first = until;
    }
    return first;
  }

  /// Whether `can_choose` says so of the mirrors of any pending file.
  template <class CanChoose>
  [[nodiscard]] bool can_start(CanChoose&& can_choose) const {
    return std::any_of(files_.begin(), files_.end(), [&](const File& file) {
      return file.state == State::pending && can_choose(std::span<const Mirror>(file.mirrors));
    });
  }

  /// Starts the first pending file of whose mirrors `choose(mirrors, any)` tells one; there is such a file. `any`: what
  /// is there of it can be gone on with from any of them, as a digest tells whether that was right.
  template <class Choose>
  action::StartFile start_next(TransferId transfer, Choose&& choose) {
    std::optional<std::size_t> mirror;
    File& file = *std::find_if(files_.begin(), files_.end(), [&](const File& candidate) {
      if (candidate.state != State::pending) return false;
      mirror = choose(std::span<const Mirror>(candidate.mirrors), candidate.source->digest.has_value());
      return mirror.has_value();
    });
    file.state = State::moving;
    file.transfer = transfer;
    file.url = *mirror;
    file.host = file.mirrors[*mirror].host;
    file.began = Hosts::began(*file.host);
    ++moving_;
    return {transfer, number_, chunk_, file.name, file.source, file.url, Hosts::is_on_probation(*file.host)};
  }

  /// The transfers that are under way.
  [[nodiscard]] std::vector<TransferId> transfers() const {
    std::vector<TransferId> out;
    for (const File& file : files_) {
      if (file.state == State::moving) out.push_back(file.transfer);
    }
    return out;
  }

  Ended file_done(TransferId transfer) {
    File& file = find(transfer);
    file.state = State::done;
    progressed_ = true;
    --moving_;
    return {file.host, file.began};
  }

  /// Its server answers.
  void answered(TransferId transfer) {
    const File& file = find(transfer);
    Hosts::answered(*file.host, file.began);
  }

  /// A server has told the size of a file.
  void sized(TransferId transfer, std::uint64_t bytes) { find(transfer).bytes = bytes; }

  /// Bytes of all files, as far as they are known.
  [[nodiscard]] std::uint64_t reserved() const noexcept {
    std::uint64_t total = 0;
    for (const File& file : files_) {
      const std::uint64_t bytes = file.source->size.value_or(file.bytes);
      total = bytes > UINT64_MAX - total ? UINT64_MAX : total + bytes;
    }
    return total;
  }

  /// The transfer failed: its file is pending again with the mirrors that were not tried yet in this round. Those of a
  /// source that has come since all are.
  Ended file_failed(TransferId transfer, ErrorClass cls) {
    File& file = find(transfer);
    --moving_;
    if (!std::exchange(file.is_old, false)) {
      file.mirrors[file.url].tried = true;
      file.was_rejected = file.was_rejected || cls == ErrorClass::credentials;
    }
    file.state = is_exhausted(file) ? State::failed : State::pending;
    return {file.host, file.began};
  }

  /// Whether another source may help: every mirror was tried, and one at least rejected the credentials. Once a round.
  [[nodiscard]] bool needs_refresh(TransferId transfer) {
    const File& file = *at(transfer);
    return file.state == State::failed && file.was_rejected && !file.was_refreshed;
  }

  /// To be answered by `refreshed`.
  action::Refresh refresh(TransferId transfer) {
    File& file = *at(transfer);
    file.state = State::refreshing;
    file.was_refreshed = true;
    ++moving_;
    return {transfer, number_, chunk_, file.name, {}};
  }

  /// There is another source for the file, unless there is none.
  void refreshed(TransferId transfer, const FileSource* source, Hosts& hosts) {
    File& file = *at(transfer);
    --moving_;
    if (std::exchange(file.is_old, false)) {
      file.state = State::pending;
      return;
    }
    file.state = State::failed;
    if (source == nullptr) return;
    set_source(file, std::make_shared<const FileSource>(*source), hosts);
    file.was_rejected = false;
    file.state = State::pending;
  }

  /// Whether `chunk` names the same bytes, from elsewhere perhaps.
  [[nodiscard]] bool is_of(const DataChunk& chunk, const std::optional<ContentFingerprint>& content) const {
    const auto same = [](const auto& mine, const auto& other) { return mine.second.size == other.second.size; };
    return content == content_ &&
           std::equal(chunk_->files.begin(), chunk_->files.end(), chunk.files.begin(), chunk.files.end(), same);
  }

  /// From now on the sources are those of `chunk`, which names the same bytes. What is moving goes on as it is.
  void take_sources(const std::shared_ptr<const DataChunk>& chunk, Hosts& hosts) {
    auto file = files_.begin();
    for (const auto& [name, source] : chunk->files) {
      file->name = &name;
      file->is_old = file->state == State::moving || file->state == State::refreshing;
      set_source(*file, {chunk, &source}, hosts);
      file->was_rejected = file->was_refreshed = false;
      if (file->state == State::failed) file->state = State::pending;
      ++file;
    }
    chunk_ = chunk;
    if (!spoiled) failure = {};
  }

  /// What failed may be tried again, at every mirror.
  void new_round() {
    for (File& file : files_) {
      for (Mirror& mirror : file.mirrors) mirror.tried = false;
      file.was_rejected = file.was_refreshed = false;
      if (file.state == State::failed) file.state = State::pending;
    }
    progressed_ = false;
    failure = {};
  }

 private:
  enum class State : std::uint8_t { pending, moving, refreshing, done, failed };
  struct File {
    const std::string* name = nullptr;
    std::shared_ptr<const FileSource> source;
    std::vector<Mirror> mirrors;  // its URLs, in their order
    State state = State::pending;
    bool was_rejected = false;   // in this round, by some mirror
    bool was_refreshed = false;  // in this round
    bool is_old = false;         // what is under way is about a source that was replaced meanwhile
    TransferId transfer = 0;     // the last one, as are the next three
    std::size_t url = 0;
    HostPtr host;
    std::uint64_t began = 0;
    std::uint64_t bytes = 0;  // as a server told, where it was not declared
  };

  static void set_source(File& file, std::shared_ptr<const FileSource> source, Hosts& hosts) {
    file.source = std::move(source);
    file.mirrors.clear();
    file.mirrors.reserve(file.source->urls.size());
    for (const std::string& url : file.source->urls) file.mirrors.push_back({hosts.at(url)});
  }

  static bool is_exhausted(const File& file) {
    return std::all_of(file.mirrors.begin(), file.mirrors.end(), [](const Mirror& mirror) { return mirror.tried; });
  }

  std::vector<File>::iterator at(TransferId transfer) {
    return std::find_if(files_.begin(), files_.end(), [=](const File& file) { return file.transfer == transfer; });
  }
  File& find(TransferId transfer) { return *at(transfer); }

  std::uint64_t number_;
  std::shared_ptr<const DataChunk> chunk_;
  ContentFingerprint content_;
  std::vector<File> files_;
  std::size_t moving_ = 0;
  bool progressed_ = false;
};

}  // namespace garner::core

namespace garner::core {

/// A published generation.
struct Copy {
  enum class Operation : std::uint8_t { none, doom, spare, remove, describe, verify, check };

  /// Whether the next start would find it. `none`: it would; `due`: it would yet, and a doom is asked for, the first;
  /// `unsure`: a doom or a spare is under way or has failed, so nobody knows; `doomed`: it would not.
  enum class Mark : std::uint8_t { none, due, unsure, doomed };

  explicit Copy(const Generation& published) : generation(published) {}

  Generation generation;
  std::optional<ContentFingerprint> content;   ///< not known before it was described, after a start
  bool listed = false;                         ///< served
  bool drained = false;                        ///< nobody has a pin on it
  bool unfit = false;                          ///< not to be served again: its removal has begun, or it is corrupt
  bool unchecked = false;                      ///< found by the start, and not to be served before it was checked
  bool away = false;                           ///< its volume is: nothing is asked of it but what else tells it
  bool told = false;                           ///< it has not been seen: some volume that is away may have it
  bool missed = false;                         ///< it was served when its volume went away, and is wanted since
  std::unique_ptr<const std::string> corrupt;  ///< why it is; then it is set aside in the end
  Mark mark = Mark::none;
  Operation operation = Operation::none;  ///< in the store, under way: one at a time
  std::uint64_t failures = 0;             ///< of the operation that is due
  std::optional<Instant> retry_at;        ///< of it
  std::uint64_t asked = 0;                ///< the chunk's place in the order of asking, as it was listed last
  detail::Served* served = nullptr;       ///< what serves it, once that is there

  /// Whether nothing is under way or to be remembered.
  [[nodiscard]] bool at_rest() const {
    const bool is_odd = drained || unfit || unchecked || away || told || missed || corrupt;
    return served != nullptr && listed && !is_odd && mark == Mark::none && operation == Operation::none &&
           failures == 0 && !retry_at;
  }

  /// Whether it is known to hold `wanted`.
  [[nodiscard]] bool holds(const std::optional<ContentFingerprint>& wanted,
                           const std::optional<std::uint64_t>& bytes) const {
    return content && content == wanted && (!bytes || bytes == generation.bytes);
  }
};

/// Of the attempts to fetch, since the chunk was wanted or last ready.
struct Failures {
  std::uint64_t attempts = 0;
  std::uint64_t streak = 0;  ///< of them, those since the last file that came through
  std::error_code error;
  std::string subject;
};

struct ChunkEntry {
  explicit ChunkEntry(const ChunkId& chunk) : id(chunk) {}

  const ChunkId id;
  ChunkEntry* next = nullptr;  ///< in its table
  bool wanted = false;
  bool queued = false;
  bool parked = false;                        ///< the store was full
  std::uint64_t asked = 0;                    ///< its place in the order of asking
  bool named = false;                         ///< by the assignment that is being made
  std::shared_ptr<const DataChunk> want;      ///< what is wanted, until a copy is known to hold it
  std::optional<ContentFingerprint> content;  ///< of what is wanted, where that is known
  std::vector<Copy> copies;
  std::unique_ptr<ChunkFetch> fetch;
  std::optional<Instant> retry_at;  ///< nothing is fetched before
  std::unique_ptr<Failures> failures;
  std::optional<Instant> alarm;  ///< as set in the alarms

  [[nodiscard]] Copy* listed() {
    const auto it = std::find_if(copies.begin(), copies.end(), [](const Copy& copy) { return copy.listed; });
    return it == copies.end() ? nullptr : &*it;
  }

  [[nodiscard]] Copy* copy(const Generation& generation) {
    const auto it =
        std::find_if(copies.begin(), copies.end(), [&](const Copy& copy) { return copy.generation == generation; });
    return it == copies.end() ? nullptr : &*it;
  }

  /// Of what the start found, the newest that may still be served. None once another is.
  [[nodiscard]] const Copy* unchecked() const {
    const Copy* newest = nullptr;
    for (const Copy& copy : copies) {
      if (copy.listed) return nullptr;
      if (!copy.unchecked || copy.away) continue;
      if (newest == nullptr || newest->generation.number < copy.generation.number) newest = &copy;
    }
    return newest;
  }

  /// Whether that one is to be checked now.
  [[nodiscard]] bool can_check() const {
    const Copy* copy = wanted ? unchecked() : nullptr;
    return copy != nullptr && copy->operation == Copy::Operation::none && !copy->retry_at;
  }

  /// It is wanted, and what it is is known to nobody but a volume that is away.
  [[nodiscard]] bool lost() const {
    if (!wanted || want) return false;
    return std::any_of(copies.begin(), copies.end(), [](const Copy& copy) { return copy.missed; });
  }

  /// The dataset that it is missing from: what is wanted is not there.
  [[nodiscard]] std::optional<DatasetId> missing_from() const {
    return wanted && want ? std::optional(want->dataset_id) : std::nullopt;
  }

  [[nodiscard]] bool empty() const noexcept { return !wanted && copies.empty() && !fetch; }

  /// Whether there is nothing to be known but what `give` can keep.
  [[nodiscard]] bool at_rest() const {
    const bool is_odd = want || queued || parked || fetch || retry_at || failures || alarm;
    return wanted && !is_odd && copies.size() == 1 && copies.front().at_rest() && copies.front().asked == asked;
  }

  /// Puts what is known into what serves it.
  [[nodiscard]] detail::Served& give() const {
    const Copy& copy = copies.front();
    detail::Served& served = *copy.served;
    served.asked = asked;
    served.is_content_known = copy.content.has_value();
    served.content = copy.content.value_or(ContentFingerprint{});
    served.named = named;
    return served;
  }

  /// The other way round, into one that is empty.
  void take(detail::Served& served) {
    wanted = true;
    asked = served.asked;
    named = served.named;
    Copy& copy = copies.emplace_back(served.generation());
    if (served.is_content_known) copy.content = served.content;
    copy.listed = true;
    copy.asked = asked;
    copy.served = &served;
  }

  /// Nothing is left to do: what is wanted is served, what is not wanted is doomed and only pins keep it.
  [[nodiscard]] bool settled() const {
    if ((wanted && want) || fetch || lost()) return false;
    return std::all_of(copies.begin(), copies.end(), [](const Copy& copy) {
      if (copy.away) return true;
      if (copy.listed && copy.operation == Copy::Operation::verify) return copy.mark == Copy::Mark::none;
      if (copy.operation != Copy::Operation::none) return false;
      return copy.listed ? copy.mark == Copy::Mark::none : copy.mark == Copy::Mark::doomed && !copy.drained;
    });
  }

  [[nodiscard]] ChunkState state() const {
    if (!wanted) {
      const bool pinned = std::any_of(copies.begin(), copies.end(), [](const Copy& copy) {
        return !copy.drained && copy.operation != Copy::Operation::remove;
      });
      return pinned ? ChunkState::draining : ChunkState::removing;
    }
    const bool is_unchecked = unchecked() != nullptr;
    if (!want) return is_unchecked ? ChunkState::checking : lost() ? ChunkState::waiting : ChunkState::ready;
    if (queued) return parked ? ChunkState::parked : ChunkState::queued;
    if (fetch && !fetch->stopping) {
      if (fetch->phase == ChunkFetch::Phase::staging || fetch->phase == ChunkFetch::Phase::transferring) {
        return ChunkState::downloading;
      }
      if (fetch->phase == ChunkFetch::Phase::publishing) return ChunkState::publishing;
    }
    if (is_unchecked) return ChunkState::checking;
    if (parked) return ChunkState::parked;
    return retry_at ? ChunkState::waiting : ChunkState::queued;
  }
};

}  // namespace garner::core

// garner/core/chunk_questions.hpp ---------------------------------------------------------------------------
// What can be asked of the state machine, and changes nothing in it.

// garner/core/chunk_recovery.hpp ----------------------------------------------------------------------------
// What the store held at the start, as it tells it: before all else, or while calls come already. Until all of it is
// known nothing is asked of the store, and nothing is fetched: what is not settled waits.

// garner/core/fetch_reports.hpp -----------------------------------------------------------------------------
// The inputs about what is being fetched: the reports of staging, transfers and publishing, and what the store has room
// for.

// garner/core/chunk_turns.hpp -------------------------------------------------------------------------------
// Whose turn it is: `pump` hands out the places that are free, within the limits and the byte budget. What one chunk
// needs is in `core/chunk_rules.hpp`, the inputs are in `core/chunk_table.hpp`.

// garner/core/chunk_volumes.hpp -----------------------------------------------------------------------------
// The volumes that copies are on: which of them is away, what becomes of its copies then and when it is back, and when
// to look again. Copies are gone through a few at a time. Where there is one volume, nothing of this happens.

// garner/core/chunk_rules.hpp -------------------------------------------------------------------------------
// The rules of one chunk: `step` compares what is wanted of it with what there is of it, and asks for what is missing.
// Whose turn it is, of many, is in `core/chunk_turns.hpp`.

// garner/core/chunk_entries.hpp -----------------------------------------------------------------------------
// All chunks that anything is known of. Most of them are at rest, which takes little room; the others have an entry.

// garner/core/id_table.hpp ----------------------------------------------------------------------------------
// A hash table of chunks that never stops to grow: no call pays for all that is in it. It owns nothing.

namespace garner::core {

/// Linear hashing (Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980): there is a bucket
/// for each node, and with each node that comes one bucket is split, with each that goes some may be joined. A `Node`
/// has an `id` and a `next`, which is the table's as long as it is in there. It is not touched by the destructor.
///
/// Thread-safety: none. Exception safety: an `insert` that throws has changed nothing.
template <class Node>
class IdTable {
 public:
  [[nodiscard]] Node* find(const ChunkId& id) const noexcept {
    if (buckets_ == 0) return nullptr;
    Node* node = *bucket_of(id);
    while (node != nullptr && node->id != id) node = node->next;
    return node;
  }

  /// No other one of its id is in there.
  void insert(Node& node) {
    if (size_ >= buckets_) split();
    push(*bucket_of(node.id), node);
    ++size_;
  }

  /// Takes out the one of this id, if it is there.
  Node* take(const ChunkId& id) noexcept {
    if (buckets_ == 0) return nullptr;
    Node** at = bucket_of(id);
    while (*at != nullptr && (*at)->id != id) at = &(*at)->next;
    Node* const node = *at;
    if (node == nullptr) return nullptr;
    *at = std::exchange(node->next, nullptr);
    --size_;
    // By two, so that no more than twice as many buckets are left as there are nodes, whatever there were.
    for (int i = 0; i < 2 && size_ < buckets_ / 2; ++i) join();
    return node;
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Calls `see(node)` for each; it changes nothing here.
  template <class See>
  void visit(See&& see) const {
    for (std::size_t i = 0; i < buckets_; ++i) {
      for (Node* node = *bucket(i); node != nullptr;) see(*std::exchange(node, node->next));
    }
  }

 private:
  static constexpr std::size_t segment = 256;
  using Segment = std::array<Node*, segment>;

  [[nodiscard]] Node** bucket(std::size_t at) const noexcept { return &(*segments_[at / segment])[at % segment]; }

  [[nodiscard]] Node** bucket_of(const ChunkId& id) const noexcept {
    const std::size_t mask = std::bit_ceil(buckets_) - 1;
    const std::size_t at = std::hash<ChunkId>()(id) & mask;
    return bucket(at < buckets_ ? at : at & (mask >> 1));
  }

  /// Whose nodes this bucket shares while it is not there.
  static std::size_t parent(std::size_t at) noexcept { return at - std::bit_floor(at); }

  static void push(Node*& bucket, Node& node) noexcept {
    node.next = bucket;
    bucket = &node;
  }

  void split() {
    if (buckets_ % segment == 0) segments_.push_back(std::make_unique<Segment>());
    ++buckets_;
    if (buckets_ == 1) return;
    for (Node* node = std::exchange(*bucket(parent(buckets_ - 1)), nullptr); node != nullptr;) {
      Node* const next = node->next;
      push(*bucket_of(node->id), *node);
      node = next;
    }
  }

  void join() noexcept {
    --buckets_;
    Node** const left = bucket(parent(buckets_));
    for (Node* node = std::exchange(*bucket(buckets_), nullptr); node != nullptr;) {
      Node* const next = node->next;
      push(*left, *node);
      node = next;
    }
    if (buckets_ % segment == 0) segments_.pop_back();
  }

  std::vector<std::unique_ptr<Segment>> segments_;
  std::size_t buckets_ = 0;
  std::size_t size_ = 0;
};

}  // namespace garner::core

namespace garner::core {

/// A chunk is at rest where the copy that is served is all there is to be known. What is known of it stands in the
/// object that serves it, and it has no entry until it is woken.
class ChunkEntries {
 public:
  ChunkEntries() = default;
  ChunkEntries(const ChunkEntries&) = delete;
  ChunkEntries& operator=(const ChunkEntries&) = delete;
  ~ChunkEntries() {
    visit([](ChunkEntry& entry) { delete &entry; });
  }

  /// What serves it, where it is at rest.
  [[nodiscard]] detail::Served* resting(const ChunkId& id) const noexcept { return resting_.find(id); }
  /// Its entry, where it is not.
  [[nodiscard]] ChunkEntry* find(const ChunkId& id) const noexcept { return awake_.find(id); }
  [[nodiscard]] ChunkEntry& at(const ChunkId& id) const noexcept { return *awake_.find(id); }

  [[nodiscard]] bool is_wanted(const ChunkId& id) const noexcept {
    const ChunkEntry* entry = find(id);
    return entry != nullptr ? entry->wanted : resting(id) != nullptr;
  }

  /// Its entry, an empty one where nothing was known. It stays where it is until it is settled.
  ChunkEntry& wake(const ChunkId& id) {
    if (ChunkEntry* entry = awake_.find(id)) return *entry;
    auto entry = std::make_unique<ChunkEntry>(id);
    if (detail::Served* served = resting_.find(id)) entry->take(*served);
    awake_.insert(*entry);
    resting_.take(id);
    return *entry.release();
  }

  /// Where there is no more to be known of it than what serves it tells, or nothing: it is an entry no more.
  void settle(ChunkEntry& entry) {
    if (entry.empty()) return erase(entry);
    if (!entry.at_rest()) return;
    detail::Served& served = entry.give();
    resting_.insert(served);
    erase(entry);
  }

  /// Calls `see(entry)` for each of those that are not at rest, and `see(served)` for each of the others. It changes
  /// none.
  template <class See>
  void visit(See&& see) const {
    awake_.visit(see);
  }
  template <class See>
  void visit_resting(See&& see) const {
    resting_.visit(see);
  }

 private:
  void erase(ChunkEntry& entry) { const std::unique_ptr<ChunkEntry> erased(awake_.take(entry.id)); }

  IdTable<detail::Served> resting_;
  IdTable<ChunkEntry> awake_;
};

}  // namespace garner::core

// garner/core/fetch_rules.hpp -------------------------------------------------------------------------------
// The rules of a fetch: how it begins, what it waits for, and what becomes of it when it fails. When one is needed is
// in `core/chunk_rules.hpp`.

// garner/core/tally.hpp -------------------------------------------------------------------------------------
// Running counts over all chunks, so that telling the status costs the same at a million chunks as at one.

// garner/core/budget.hpp ------------------------------------------------------------------------------------
// The room that the options allow: what the store holds, what is reserved for what is being fetched, and whether more
// may be begun. Knows nothing of chunks.

namespace garner::core {

class Budget {
 public:
  /// Bytes of published generations, wanted or not, until they are gone. `sign`: +1 or -1.
  void hold(std::uint64_t bytes, int sign) noexcept { held_ += bytes * static_cast<std::uint64_t>(sign); }
  /// Bytes that will be held when what is being fetched is published.
  void reserve(std::uint64_t bytes, int sign) noexcept { reserved_ += bytes * static_cast<std::uint64_t>(sign); }

  /// What the store has just told. `staged`: bytes of what is being fetched that were written by then.
  void measured(const StoreUsage& usage, std::uint64_t staged) noexcept { free_ = sum(usage.bytes_free, staged); }

  /// Whether `bytes` more may be reserved.
  [[nodiscard]] bool fits(const Options& options, std::uint64_t bytes) const noexcept {
    const std::uint64_t reserved = sum(reserved_, bytes);
    if (sum(held_, reserved) > options.max_bytes) return false;
    return options.keep_free_bytes == 0 || (free_ && sum(reserved, options.keep_free_bytes) <= *free_);
  }

  [[nodiscard]] std::uint64_t reserved() const noexcept { return reserved_; }

 private:
  /// Sizes come from outside: they do not overflow here.
  static std::uint64_t sum(std::uint64_t a, std::uint64_t b) noexcept {
    return b > std::numeric_limits<std::uint64_t>::max() - a ? std::numeric_limits<std::uint64_t>::max() : a + b;
  }

  std::uint64_t held_ = 0;
  std::uint64_t reserved_ = 0;
  std::optional<std::uint64_t> free_;
};

}  // namespace garner::core

namespace garner::core {

/// Each entry is counted before and after it changes, with `sign` -1 and +1.
class Tally {
 public:
  explicit Tally(Hosts& hosts) : missing_(hosts) {}

  void count(const ChunkEntry& entry, int sign) {
    if (entry.wanted) add(of(entry), sign);
    for (const Copy& copy : entry.copies) {
      if (copy.away) {
        add(counts_.away, sign);
        continue;
      }
      budget_.hold(copy.generation.bytes, sign);
      if (copy.listed) {
        bytes_ready_ += copy.generation.bytes * static_cast<std::uint64_t>(sign);
      } else if (!copy.unchecked) {
        add(copy.drained || copy.operation == Copy::Operation::remove ? counts_.removing : counts_.draining, sign);
      }
    }
    if (!entry.settled()) add(unsettled_, sign);
  }

  [[nodiscard]] bool settled() const noexcept { return unsettled_ == 0; }
  [[nodiscard]] bool any_ready() const noexcept { return counts_.ready > 0; }
  [[nodiscard]] FetchQueue& queue() noexcept { return missing_; }
  [[nodiscard]] const FetchQueue& queue() const noexcept { return missing_; }
  [[nodiscard]] Budget& budget() noexcept { return budget_; }
  [[nodiscard]] const Budget& budget() const noexcept { return budget_; }

  void fill(Status& status) const {
    status.ready = counts_.ready;
    status.queued = counts_.queued;
    status.downloading = counts_.downloading;
    status.waiting = counts_.waiting;
    status.parked = counts_.parked;
    status.checking = counts_.checking;
    status.draining = counts_.draining;
    status.removing = counts_.removing;
    status.away = counts_.away;
    status.bytes_ready = bytes_ready_;
    status.bytes_reserved = budget_.reserved();
  }

 private:
  static void add(std::size_t& count, int sign) { count += static_cast<std::size_t>(sign); }

  std::size_t& of(const ChunkEntry& entry) {
    switch (entry.state()) {
      case ChunkState::queued: return counts_.queued;
      case ChunkState::downloading:
      case ChunkState::publishing: return counts_.downloading;
      case ChunkState::waiting: return counts_.waiting;
      case ChunkState::parked: return counts_.parked;
      case ChunkState::checking: return counts_.checking;
      case ChunkState::ready:
      case ChunkState::draining:
      case ChunkState::removing: break;
    }
    return counts_.ready;
  }

  struct Counts {
    std::size_t ready = 0, queued = 0, downloading = 0, waiting = 0, parked = 0, checking = 0, draining = 0,
                removing = 0, away = 0;
  };
  Counts counts_;
  std::uint64_t bytes_ready_ = 0;
  std::size_t unsettled_ = 0;
  FetchQueue missing_;
  Budget budget_;
};

}  // namespace garner::core

namespace garner::core {

class FetchRules : protected ActionList {
 protected:
  FetchRules(Options options, std::uint64_t seed) : options_(std::move(options)), random_(seed) {}

  /// It had its turn in `lane`.
  void begin_fetch(ChunkEntry& entry, FetchQueue::LanePtr lane) {
    leave_queue(entry);
    entry.parked = false;
    if (entry.fetch) {
      entry.fetch->phase = ChunkFetch::Phase::transferring;
    } else {
      entry.fetch = std::make_unique<ChunkFetch>(++last_generation_, entry.want, *entry.content, hosts_);
      act(action::Stage{last_generation_, entry.want});
    }
    ++active_fetches_;
    ++lane->active;
    entry.fetch->lane = std::move(lane);
  }

  /// Others may have its place.
  void leave_place(ChunkFetch& fetch) {
    --active_fetches_;
    if (fetch.lane) --fetch.lane->active;
    fetch.lane.reset();
  }

  void settle_fetch(const ChunkId& id, ChunkEntry& entry, Instant now) {
    ChunkFetch& fetch = *entry.fetch;
    const bool waiting = fetch.phase == ChunkFetch::Phase::waiting;
    if (fetch.phase != ChunkFetch::Phase::transferring && !waiting) return;
    if (fetch.stopping || fetch.spoiled || closed_) halt(fetch);
    if (fetch.moving() > 0) return;
    if (closed_) return drop_fetch(entry);
    if (fetch.stopping || fetch.spoiled) {
      if (!fetch.stopping) attempt_failed(entry, id, fetch.failure, now);
      if (waiting) ++active_fetches_;
      fetch.phase = ChunkFetch::Phase::discarding;
      return act(action::Discard{id, fetch.number()});
    }
    if (waiting) return;
    if (fetch.complete()) {
      fetch.phase = ChunkFetch::Phase::publishing;
      return act(action::Publish{id, fetch.number()});
    }
    std::optional<Instant> rest = fetch.rest_until();
    if (fetch.has_pending() && !rest) return;
    // A mirror that only rests may have what no other has.
    const bool goes_on = rest && (fetch.failure.ok() || classify(fetch.failure.error) != ErrorClass::transient);
    if (!goes_on) {
      attempt_failed(entry, id, fetch.failure, now);
      fetch.new_round();
      rest = fetch.rest_until();
    }
    if (rest) entry.retry_at = std::max(*rest, entry.retry_at.value_or(*rest));
    fetch.phase = ChunkFetch::Phase::waiting;
    leave_place(fetch);
  }

  /// What is fetched are the bytes that are wanted; where those are others than before it ends, and where they are to
  /// come from elsewhere it goes on with that.
  void follow_wish(ChunkEntry& entry) {
    if (!entry.fetch || *entry.fetch->chunk() == *entry.want) return;
    if (!entry.fetch->is_of(*entry.want, entry.content)) return stop_fetch(entry);
    entry.fetch->take_sources(entry.want, hosts_);
  }

  /// The fetch is not wanted any more; it goes once nothing moves.
  static void stop_fetch(ChunkEntry& entry) {
    if (entry.fetch) entry.fetch->stopping = true;
  }

  void halt(ChunkFetch& fetch) {
    if (std::exchange(fetch.halted, true)) return;
    for (const TransferId transfer : fetch.transfers()) act(action::StopFile{transfer});
  }

  void drop_fetch(ChunkEntry& entry) {
    if (entry.fetch->phase != ChunkFetch::Phase::waiting) leave_place(*entry.fetch);
    spend(std::move(entry.fetch));
  }

  void attempt_failed(ChunkEntry& entry, const ChunkId& id, const Outcome& outcome, Instant now) {
    if (!entry.wanted || entry.fetch->stopping) return;
    if (!entry.failures) entry.failures = std::make_unique<Failures>();
    Failures& failures = *entry.failures;
    // What comes through and then cannot be kept is no progress.
    if (entry.fetch->progressed() && !entry.fetch->spoiled) failures.streak = 0;
    ++failures.attempts;
    ++attempts_failed_;
    failures.error = outcome.error;
    failures.subject = outcome.subject;
    const ErrorClass cls = classify(outcome.error);
    entry.retry_at = now + retry_delay(options_, cls, outcome.retry_after, failures.streak++, random_);
    // A store that takes nothing is asked by a few, and not by all that wait.
    const bool is_read_only = outcome.error == errc::read_only;
    if (is_read_only) entry.retry_at = now + Backoff{{}, options_.no_space_retry}.slowest(random_);
    if (cls == ErrorClass::no_space || is_read_only) {
      entry.parked = true;
      parked_.insert(id);
      hold_until_ = entry.retry_at;
      if (!is_read_only) drop_partial();
    }
    notify_failure(id, entry.fetch->number(), outcome);
  }

  // ---- small things

  void leave_queue(ChunkEntry& entry) {
    if (!std::exchange(entry.queued, false)) return;
    tally_.queue().erase(entry.want->dataset_id, entry.asked);
  }

  /// What an earlier run did not fetch to its end is not waited for any longer.
  void drop_partial() {
    if (!std::exchange(partial_until_, std::nullopt)) return;
    partial_ = Partial::remove;
    litter_ = true;
  }

  /// It is needed no more, and takes long to be freed: not under the lock of whoever performs the actions. Of many at a
  /// time only some.
  void spend(std::shared_ptr<const void> what) {
    constexpr std::size_t most = 64;
    if (what && spent_.size() < most) spent_.push_back(std::move(what));
  }

  static void forget_failures(ChunkEntry& entry) {
    entry.failures.reset();
    entry.retry_at.reset();
    entry.parked = false;
  }

  static bool can_start(const ChunkFetch& fetch) {
    return fetch.phase == ChunkFetch::Phase::transferring && !fetch.halted && fetch.has_pending();
  }

  Options options_;
  FetchLimits limits_;                                                // that count now
  std::optional<std::pair<std::size_t, std::uint64_t>> told_limits_;  // what a downloader was told of them
  bool filled_ = false;                                               // it had converged once, and served chunks
  Random random_;
  Hosts hosts_;
  Tally tally_{hosts_};
  std::set<ChunkId> parked_;
  std::optional<Instant> hold_until_;     // the store is full: nothing starts
  bool litter_ = false;                   // something is left to be cleaned up
  Partial partial_ = Partial::keep;       // by the next clean-up
  std::optional<Instant> partial_until_;  // where there is any
  bool closed_ = false;
  std::uint64_t last_generation_ = 0;
  TransferId last_transfer_ = 0;
  std::vector<std::shared_ptr<const void>> spent_;
  std::size_t active_fetches_ = 0;
  std::uint64_t attempts_failed_ = 0;
};

}  // namespace garner::core

namespace garner::core {

class ChunkRules : protected FetchRules {
 protected:
  ChunkRules(const Options& options, std::uint64_t seed)
      : FetchRules(options, seed), startup_check_(options.startup_check), scrub_(seed) {}

  /// Changes one entry by `change`, then does what follows from it. All changes to entries go through here.
  template <class Change>
  void touch(const ChunkId& id, Instant now, Change&& change) {
    ChunkEntry& entry = entries_.wake(id);
    const std::optional<DatasetId> missed = entry.missing_from();
    tally_.count(entry, -1);
    if (entry.fetch) startable_.erase({entry.fetch->number(), id});
    if (entry.fetch) tally_.budget().reserve(entry.fetch->reserved(), -1);
    change(entry);
    step(id, entry, now);
    tally_.count(entry, +1);
    if (const std::optional<DatasetId> misses = entry.missing_from(); misses != missed) {
      if (missed) tally_.queue().count_missing(*missed, -1);
      if (misses) tally_.queue().count_missing(*misses, +1);
    }
    if (entry.fetch) tally_.budget().reserve(entry.fetch->reserved(), +1);
    if (entry.fetch && can_start(*entry.fetch)) startable_.emplace(entry.fetch->number(), id);
    if (!entry.parked) parked_.erase(id);
    if (entry.can_check()) {
      checkable_.insert(id);
    } else {
      checkable_.erase(id);
    }
    set_alarm(id, entry);
    entries_.settle(entry);
  }

  // ---- what is wanted

  void want(const Wish& wish, Instant now) {
    const detail::Served* served = entries_.resting(wish.chunk->id);
    if (served != nullptr && served->holds(wish.content, wish.bytes)) return;
    touch(wish.chunk->id, now, [&](ChunkEntry& entry) {
      const Copy* listed = entry.listed();
      if (entry.wanted && entry.want && *entry.want == *wish.chunk) return;
      if (entry.wanted && !entry.want && listed != nullptr && listed->holds(wish.content, wish.bytes)) return;
      leave_queue(entry);
      forget_failures(entry);
      entry.wanted = true;
      spend(std::exchange(entry.want, wish.chunk));
      entry.content = wish.content;
      entry.asked = ++asked_;
    });
  }

  void unwant(const ChunkId& id, Instant now) {
    if (!entries_.is_wanted(id)) return;
    touch(id, now, [this](ChunkEntry& entry) {
      leave_queue(entry);
      forget_failures(entry);
      forget_missed(entry);
      entry.wanted = false;
      spend(std::move(entry.want));
      entry.content.reset();
    });
  }

  // ---- copies

  Copy& add_copy(ChunkEntry& entry, const Generation& generation) {
    Copy& copy = entry.copies.emplace_back(generation);
    if (generation.volume < held_on_.size()) {
      held_on_[generation.volume].insert(generation.id);
      copy.away = volumes_[generation.volume].state == VolumeState::away;
    }
    return copy;
  }

  void erase_copy(ChunkEntry& entry, const Copy& copy) {
    const Generation generation = copy.generation;
    entry.copies.erase(entry.copies.begin() + (&copy - entry.copies.data()));
    const bool is_last = std::none_of(entry.copies.begin(), entry.copies.end(),
                                      [&](const Copy& other) { return other.generation.volume == generation.volume; });
    if (is_last && generation.volume < held_on_.size()) held_on_[generation.volume].erase(generation.id);
  }

  // ---- what is done about it

  void step(const ChunkId& id, ChunkEntry& entry, Instant now) {
    if (!entry.wanted) {
      if (Copy* copy = entry.listed()) unlist(*copy);
      stop_fetch(entry);
    } else if (entry.want) {
      find_or_fetch(entry);
    } else {
      find_missed(entry);
    }
    if (entry.fetch) settle_fetch(id, entry, now);
    settle_unchecked(entry);
    if (recovering_) return hold(id, entry);
    // One that was taken back may be marked as deleted yet: until it is not, the copy that it replaces is kept, or a
    // power cut would leave neither. And while it is not known what is wanted, any copy may be that.
    const Copy* listed = entry.listed();
    const bool is_safe = !entry.lost() && (listed == nullptr || listed->mark == Copy::Mark::none);
    for (Copy& copy : entry.copies) {
      if (copy.away || copy.told) continue;
      if (copy.listed || is_safe) settle_copy(copy);
    }
    forget_told(entry);
  }

  /// Until it is known what the store holds nothing is asked of it; what is to be done is done then. What is to be
  /// checked has its turn anyway.
  void hold(const ChunkId& id, const ChunkEntry& entry) {
    if (!entry.settled() && !entry.can_check()) held_.insert(id);
  }

  /// What was told of and is not where it might have been, once nobody needs to know any more what it is.
  void forget_told(ChunkEntry& entry) {
    for (std::size_t i = entry.copies.size(); i-- > 0 && !entry.lost();) {
      const Copy& copy = entry.copies[i];
      if (copy.told && !copy.away && copy.operation == Copy::Operation::none) erase_copy(entry, copy);
    }
  }

  /// Asks what it is that is wanted: what is on a volume that is away may be described elsewhere.
  void find_missed(ChunkEntry& entry) {
    for (Copy& copy : entry.copies) {
      const bool can_ask = copy.operation == Copy::Operation::none && !copy.retry_at && !closed_ && !recovering_;
      if (copy.missed && can_ask) begin(copy, Copy::Operation::describe);
    }
  }

  /// What is not wanted, or what another one has come for, need not be checked any more, and is not served either.
  static void settle_unchecked(ChunkEntry& entry) {
    if (entry.wanted && entry.listed() == nullptr) return;
    for (Copy& copy : entry.copies) {
      if (std::exchange(copy.unchecked, false) && copy.operation != Copy::Operation::check) copy.unfit = true;
    }
  }

  /// Serves the copy that holds what is wanted, where there is one; otherwise sees to it that there will be.
  void find_or_fetch(ChunkEntry& entry) {
    Copy* match = nullptr;
    bool comparing = false;
    const std::optional<std::uint64_t> bytes = declared_bytes(*entry.want);
    for (Copy& copy : entry.copies) {
      if (copy.unfit || copy.away || (!copy.listed && !copy.unchecked && !options_.revive)) continue;
      if (copy.generation.dataset_id != entry.want->dataset_id) continue;
      if (copy.generation.block_range != entry.want->block_range) continue;
      if (copy.unchecked) {
        comparing = true;
      } else if (!copy.content) {
        comparing = true;
        if (copy.operation == Copy::Operation::none && !copy.retry_at && !closed_ && !recovering_)
          begin(copy, Copy::Operation::describe);
      } else if (copy.holds(entry.content, bytes) && (match == nullptr || copy.listed)) {
        match = &copy;
      }
    }
    if (match != nullptr) return serve(entry, *match);
    follow_wish(entry);
    if (comparing || closed_) return;
    const bool can_queue = !entry.fetch || (entry.fetch->phase == ChunkFetch::Phase::waiting && !entry.fetch->stopping);
    if (can_queue && !entry.retry_at && !entry.queued) {
      tally_.queue().push(*entry.want, entry.asked,
                          entry.fetch ? entry.fetch->next_urls() : entry.want->files.begin()->second.urls);
      entry.queued = true;
    }
  }

  void serve(ChunkEntry& entry, Copy& copy) {
    if (!copy.listed) {
      if (Copy* older = entry.listed()) unlist(*older);
      list(copy, entry.asked);
    }
    leave_queue(entry);
    forget_failures(entry);
    forget_missed(entry);
    spend(std::move(entry.want));
    stop_fetch(entry);
  }

  void list(Copy& copy, std::uint64_t asked) {
    copy.listed = true;
    copy.drained = false;
    copy.asked = asked;
    copy.served = nullptr;  // until it is
    act(action::List{copy.generation, copy.asked});
    notify(EventKind::chunk_ready, copy.generation.id, copy.generation.number);
  }

  void unlist(Copy& copy) {
    copy.listed = false;
    copy.served = nullptr;
    act(action::Unlist{copy.generation, copy.asked});
    notify(EventKind::chunk_unlisted, copy.generation.id, copy.generation.number);
  }

  /// One operation at a time on each copy, and always the one that is due now: so a doom, the spare that
  /// takes it back and a removal cannot overtake each other.
  void settle_copy(Copy& copy) {
    if (copy.operation != Copy::Operation::none || copy.retry_at || copy.unchecked) return;
    if (copy.listed) {
      if (copy.mark != Copy::Mark::none) begin(copy, Copy::Operation::spare);
    } else if (copy.drained && !closed_ && !needs_mark_first(copy)) {
      begin(copy, Copy::Operation::remove);
    } else if (copy.mark != Copy::Mark::doomed) {
      begin(copy, Copy::Operation::doom);
    }
  }

  /// A removal that has failed may take its time: before it is tried again the next start is told, once.
  static bool needs_mark_first(const Copy& copy) noexcept {
    return copy.unfit && copy.failures > 0 && copy.mark == Copy::Mark::none;
  }

  /// Of a removal, about, in bytes: what it takes by itself is as much as it takes to give a few more back.
  static std::uint64_t weight_of(const Copy& copy) noexcept { return copy.generation.bytes + (std::uint64_t{1} << 20); }

  void begin(Copy& copy, Copy::Operation operation) {
    copy.operation = operation;
    switch (operation) {
      case Copy::Operation::none: break;
      case Copy::Operation::doom:
        copy.mark = copy.mark == Copy::Mark::none ? Copy::Mark::due : Copy::Mark::unsure;
        return act(action::Doom{copy.generation});
      case Copy::Operation::spare: copy.mark = Copy::Mark::unsure; return act(action::Spare{copy.generation});
      case Copy::Operation::remove:
        copy.unfit = true;  // even where it fails: it may be half gone
        removing_ += weight_of(copy);
        if (copy.corrupt) return act(action::Quarantine{copy.generation, *copy.corrupt});
        return act(action::Remove{copy.generation});
      case Copy::Operation::describe: return act(action::Describe{copy.generation});
      case Copy::Operation::verify: return act(action::Verify{copy.generation, VerifyDepth::digests});
      case Copy::Operation::check: return act(action::Verify{copy.generation, startup_depth()});
    }
  }

  /// Fetches anew from where it came from; without a description there is nothing to fetch it from. That comes from a
  /// disk, so it is as little trusted as that.
  void want_again(ChunkEntry& entry, const std::optional<DataChunk>& chunk) {
    if (!is_fit(entry.copies.front().generation.id, chunk)) {
      forget_missed(entry);
      // An older copy that is served is better than none.
      entry.wanted = entry.listed() != nullptr || entry.unchecked() != nullptr;
      return;
    }
    const Wish wish(*chunk);
    entry.want = wish.chunk;
    entry.content = wish.content;
  }

  [[nodiscard]] bool is_fit(const ChunkId& id, const std::optional<DataChunk>& chunk) const {
    return chunk && chunk->id == id && !validate(*chunk, {options_.max_files, options_.max_chunk_bytes});
  }

  // ---- small things

  [[nodiscard]] VerifyDepth startup_depth() const noexcept {
    return startup_check_ == StartupCheck::sizes ? VerifyDepth::sizes : VerifyDepth::digests;
  }

  static void forget_missed(ChunkEntry& entry) {
    for (Copy& copy : entry.copies) copy.missed = false;
  }

  void set_alarm(const ChunkId& id, ChunkEntry& entry) {
    std::optional<Instant> next = entry.retry_at;
    for (const Copy& copy : entry.copies) {
      if (copy.retry_at && (!next || *copy.retry_at < *next)) next = copy.retry_at;
    }
    if (next == entry.alarm) return;
    if (entry.alarm) alarms_.cancel(*entry.alarm, id);
    if (next) alarms_.set(*next, id);
    entry.alarm = next;
  }

  const StartupCheck startup_check_;
  ChunkEntries entries_;
  std::vector<VolumeStatus> volumes_;
  std::vector<std::set<ChunkId>> held_on_;  // by volume, which chunks have a copy there; none where there is one volume
  Alarms alarms_;
  std::set<std::pair<std::uint64_t, ChunkId>> startable_;  // fetches with pending files, the oldest first
  std::set<ChunkId> checkable_;
  std::uint64_t removing_ = 0;  // the weights of the removals that are under way
  bool recovering_ = false;     // it is not known yet what the store holds
  std::set<ChunkId> held_;      // what waits for that
  std::size_t checks_ = 0;      // under way
  Scrub scrub_;
  bool cleaning_ = false;
  std::uint64_t failed_clean_ups_ = 0;
  std::optional<Instant> clean_up_at_;  // not before
  std::uint64_t asked_ = 0;
  Epoch epoch_ = 0;
  std::size_t moving_files_ = 0;
  std::uint64_t chunks_published_ = 0;
  std::uint64_t chunks_removed_ = 0;
  std::uint64_t chunks_quarantined_ = 0;
};

}  // namespace garner::core

namespace garner::core {

class ChunkVolumes : protected ChunkRules {
 protected:
  using ChunkRules::ChunkRules;

  /// Copies that one input goes through.
  static constexpr std::size_t slice = 64;

  void volumes_are(std::vector<VolumeStatus> volumes) {
    volumes_ = std::move(volumes);
    if (volumes_.size() > 1) held_on_.resize(volumes_.size());
  }

  // ---- copies

  /// The copy that is found on a volume, if it is known. Who described it knew that some volume holds it, but not
  /// which.
  Copy* known_copy(ChunkEntry& entry, const Generation& generation) {
    if (Copy* copy = entry.copy(generation)) return copy;
    const auto told_of = std::find_if(entry.copies.begin(), entry.copies.end(), [&](const Copy& copy) {
      Generation there = copy.generation;
      there.volume = generation.volume;
      return copy.away && copy.told && there == generation;
    });
    if (told_of == entry.copies.end()) return nullptr;
    const bool was_missed = std::exchange(told_of->missed, false);
    const std::optional<ContentFingerprint> content = told_of->content;
    if (told_of->operation == Copy::Operation::none) erase_copy(entry, *told_of);
    Copy& copy = add_copy(entry, generation);
    copy.content = content;
    copy.missed = was_missed;
    copy.drained = copy.away = true;  // for the moment
    return &copy;
  }

  /// Its volume is back. What was served and is still wanted is served again: where that is what it holds no byte
  /// moves, and where another version was asked for since, it is served until that one is there.
  void come_back(ChunkEntry& entry, Copy& copy) {
    if (!std::exchange(copy.away, false)) return;
    copy.told = false;
    copy.retry_at.reset();
    if (!copy.missed || copy.unfit) return;
    if (copy.unchecked) {  // and is to be, now
      copy.missed = false;
      return;
    }
    if (!entry.want) return serve(entry, copy);
    forget_missed(entry);
    if (Copy* older = entry.listed()) unlist(*older);
    list(copy, entry.asked);
  }

  // ---- doubt

  /// An operation of the store failed: it may be that a disk did. What says nothing of a disk is not asked about.
  void doubt(std::error_code error) {
    if (volumes_.size() < 2 || classify(error) != ErrorClass::local) return;
    for (const errc other :
         {errc::corrupt_chunk, errc::no_such_generation, errc::too_many_open_files, errc::policy_failed}) {
      if (error == other) return;
    }
    in_doubt_ = true;
  }

  void examine_soon() { in_doubt_ = volumes_.size() > 1; }

  /// Whether it is not known yet what the volumes can do, or not all of what follows from it is done.
  [[nodiscard]] bool in_doubt() const noexcept { return in_doubt_ || examining_doubt_ || !sweeps_.empty(); }

  /// When there is something to be done about volumes.
  [[nodiscard]] std::optional<Instant> next_look() const {
    if (!sweeps_.empty()) return Instant{};
    return examine_at_;
  }

  /// Whether some volume has not been seen since the start.
  [[nodiscard]] bool any_unseen() const {
    return std::any_of(volumes_.begin(), volumes_.end(), [](const auto& volume) { return volume.openings == 0; });
  }

  /// Goes on with what is to be done; examines where that is due. Not before all is done that the last time showed:
  /// what comes back then comes to copies that are away.
  void attend_volumes(Instant now) {
    sweep(now);
    const bool is_due = in_doubt_ || (any_unhealthy() && !examine_at_);
    if (!is_due || examining_ || !sweeps_.empty()) return;
    examining_ = true;
    examining_doubt_ = std::exchange(in_doubt_, false);
    examine_at_.reset();
    adopted_.clear();
    act(action::Examine{});
  }

  /// Whether something may be put where it could not be put before.
  bool take_examination(const std::vector<VolumeStatus>& volumes, Instant now) {
    bool is_better = false;
    examining_ = examining_doubt_ = false;
    adopted_.clear();
    for (std::uint32_t index = 0; index < std::min(volumes.size(), volumes_.size()); ++index) {
      const VolumeStatus& is = volumes[index];
      const VolumeStatus was = std::exchange(volumes_[index], is);
      if (was.state == is.state) continue;
      is_better = is_better || is.state == VolumeState::healthy;
      looks_ = 0;
      tell(is);
      if (is.state == VolumeState::away) {
        sweeps_.push_back({index, Change::went_away, std::nullopt});
      } else if (was.state == VolumeState::away) {
        const Change change = was.openings == is.openings ? Change::came_back : Change::was_opened;
        sweeps_.push_back({index, change, std::nullopt});
        litter_ = true;
      }
    }
    if (!any_unseen()) deleted_unseen_.clear();
    watch_volumes(now);
    return is_better;
  }

  /// Looks again at what is not healthy: soon at first, and then less and less often.
  void watch_volumes(Instant now) {
    examine_at_.reset();
    if (!any_unhealthy()) return;
    examine_at_ =
        now + options_.min_backoff + Backoff{options_.min_backoff, options_.no_space_retry}.delay(looks_++, random_);
  }

  /// Where there is one volume, nothing can be examined, and the store finds out by itself.
  void note_only_volume(const VolumeStatus& volume) {
    if (std::exchange(only_state_, volume.state) != volume.state) tell(volume);
  }

  /// The store found out by itself that something cannot be put there.
  void note_read_only(const std::vector<VolumeStatus>& volumes, Instant now) {
    for (std::size_t index = 0; index < std::min(volumes.size(), volumes_.size()); ++index) {
      const bool is_news =
          volumes_[index].state == VolumeState::healthy && volumes[index].state == VolumeState::read_only;
      if (!is_news || examining_) continue;
      volumes_[index].state = VolumeState::read_only;
      tell(volumes_[index]);
      watch_volumes(now);
    }
  }

  std::optional<Instant> examine_at_;
  std::set<ChunkId> adopted_;         ///< found by the examination that is under way, and wanted since
  std::set<ChunkId> deleted_unseen_;  ///< since the start, while some volume has not been seen

 private:
  enum class Change : std::uint8_t { went_away, came_back, was_opened };
  struct Sweep {
    std::uint32_t volume;
    Change change;
    std::optional<ChunkId> last;
  };

  [[nodiscard]] bool any_unhealthy() const {
    return volumes_.size() > 1 && std::any_of(volumes_.begin(), volumes_.end(), [](const VolumeStatus& volume) {
             return volume.state != VolumeState::healthy;
           });
  }

  void tell(const VolumeStatus& volume) {
    switch (volume.state) {
      case VolumeState::healthy: return notify_volume(EventKind::volume_healthy, volume.path);
      case VolumeState::read_only: return notify_volume(EventKind::volume_read_only, volume.path);
      case VolumeState::away: return notify_volume(EventKind::volume_away, volume.path);
    }
  }

  void sweep(Instant now) {
    for (std::size_t left = slice; left > 0 && !sweeps_.empty(); --left) {
      Sweep& sweep = sweeps_.front();
      const std::set<ChunkId>& ids = held_on_[sweep.volume];
      const auto at = sweep.last ? ids.upper_bound(*sweep.last) : ids.begin();
      if (at == ids.end()) {
        sweeps_.erase(sweeps_.begin());
        continue;
      }
      const ChunkId id = *(sweep.last = *at);
      touch(id, now, [&, volume = sweep.volume, change = sweep.change](ChunkEntry& entry) {
        for (std::size_t i = entry.copies.size(); i-- > 0;) {
          if (entry.copies[i].generation.volume == volume) apply(change, entry, entry.copies[i]);
        }
      });
    }
  }

  void apply(Change change, ChunkEntry& entry, Copy& copy) {
    if (change == Change::came_back) return come_back(entry, copy);
    if (change == Change::went_away) return set_aside(entry, copy);
    if (!copy.away) return;
    // It is not on its volume any more: taken for one that is to be removed, which then finds nothing; one that nobody
    // has seen is forgotten.
    copy.away = false;
    copy.unfit = true;
    copy.retry_at.reset();
  }

  void set_aside(ChunkEntry& entry, Copy& copy) {
    if (copy.away) return;
    copy.away = true;
    copy.retry_at.reset();
    if (!copy.listed && !copy.unchecked) return;
    if (copy.listed) unlist(copy);
    copy.missed = entry.wanted;
  }

  std::vector<Sweep> sweeps_;
  bool in_doubt_ = false;
  bool examining_ = false;
  bool examining_doubt_ = false;
  std::uint64_t looks_ = 0;
  VolumeState only_state_ = VolumeState::healthy;
};

}  // namespace garner::core

namespace garner::core {

class ChunkTurns : protected ChunkVolumes {
 protected:
  using ChunkVolumes::ChunkVolumes;

  /// As `touch`, and then hands out what may have become free.
  template <class Change>
  void report(const ChunkId& id, Instant now, Change&& change) {
    --unreported_;
    touch(id, now, std::forward<Change>(change));
    pump(now);
  }

  /// Starts what has its turn, within the limits.
  void pump(Instant now) {
    if (closed_ || recovering_) return;
    release(now);
    set_limits();
    attend_volumes(now);
    if (hold_until_ && *hold_until_ <= now) hold_until_.reset();
    hosts_.wake(now);
    do {
      begin_fetches(now);
    } while (start_files(now));
    if (litter_ && !cleaning_ && !clean_up_at_) {
      litter_ = false;
      cleaning_ = true;
      act(action::CleanUp{partial_});
    }
    while (checks_ < options_.max_concurrent_checks && !checkable_.empty()) {
      const ChunkId id = *checkable_.begin();
      touch(id, now, [this](ChunkEntry& entry) {
        ++checks_;
        begin(*entry.copy(entry.unchecked()->generation), Copy::Operation::check);
      });
    }
    scrub(now);
    set_limits();
  }

  /// Goes on with what has waited until it was known what the store holds, a few at a time.
  void release(Instant now) {
    for (std::size_t left = slice; left > 0 && !held_.empty(); --left) {
      touch(held_.extract(held_.begin()).value(), now, [](ChunkEntry&) {});
    }
  }

  [[nodiscard]] std::optional<Instant> next_release() const {
    return held_.empty() ? std::nullopt : std::optional(Instant{});
  }

  /// Those that count now. Whoever is filled stays so.
  void set_limits() {
    filled_ = filled_ || (tally_.settled() && tally_.any_ready());
    FetchLimits limits{options_.max_concurrent_chunks, options_.max_concurrent_files, options_.max_files_per_host,
                       options_.bytes_per_second};
    if (filled_ && options_.when_filled) limits = *options_.when_filled;
    limits.max_files_per_host = std::max<std::size_t>(limits.max_files_per_host, 1);
    limits_ = limits;
    const std::pair told(limits.max_files_per_host, limits.bytes_per_second);
    if (told_limits_ == told) return;
    told_limits_ = told;
    act(action::Limit{limits});
  }

  void begin_fetches(Instant now) {
    while (!hold_until_ && active_fetches_ < limits_.max_concurrent_chunks) {
      const auto front = tally_.queue().front([this](const FetchQueue::Lane& lane) { return is_open(lane); });
      if (!front) break;
      const auto& [id, lane] = *front;
      if (has_room(entries_.at(id))) {
        touch(id, now, [this, &at = lane](ChunkEntry& entry) { begin_fetch(entry, at); });
      } else if (!wait_for_room(id, now)) {
        break;
      }
    }
  }

  /// Whether more chunks of these servers are worth being begun.
  [[nodiscard]] bool is_open(const FetchQueue::Lane& lane) const {
    std::size_t left = lane.active;
    for (const HostPtr& host : lane.hosts()) {
      const std::size_t feeds = Hosts::feeds(*host, limits_.max_files_per_host);
      if (feeds > left) return true;
      left -= feeds;
    }
    return false;
  }

  /// Starts the files that can begin, of the oldest fetch first. Where a fetch has given up its place because all of
  /// its servers rest: true.
  bool start_files(Instant now) {
    bool left_place = false;
    const std::size_t most = limits_.max_files_per_host;
    for (auto at = startable_.begin(); !hold_until_ && at != startable_.end();) {
      if (moving_files_ >= limits_.max_concurrent_files) break;
      const auto key = *at;
      const ChunkFetch& fetch = *entries_.at(key.second).fetch;
      if (fetch.moving() == 0 && fetch.rest_until()) {
        touch(key.second, now, [](ChunkEntry&) {});
        left_place = true;
      } else if (fetch.can_start([=](std::span<const Mirror> mirrors) { return Hosts::can_choose(mirrors, most); })) {
        touch(key.second, now, [&](ChunkEntry& entry) {
          ++moving_files_;
          act(entry.fetch->start_next(++last_transfer_, [&](std::span<const Mirror> mirrors, bool any) {
            return Hosts::choose(mirrors, most, any, random_);
          }));
        });
        at = startable_.lower_bound(key);
        continue;
      }
      at = startable_.upper_bound(key);
    }
    return left_place;
  }

  /// When a server that something waits for has rested.
  [[nodiscard]] std::optional<Instant> next_rested() const {
    return startable_.empty() && tally_.queue().empty() ? std::nullopt : hosts_.next_wake();
  }

  /// Goes on with the pass over what is held, where it is time.
  void scrub(Instant now) {
    if (scrub_.is_due(options_, now)) {
      scrub_.list();
      act(action::ListHeld{});
    }
    // What was deleted since the pass began is passed over, but not a million at once: the next look comes at once.
    for (int steps = 0; steps < 1000; ++steps) {
      const std::optional<ChunkId> id = scrub_.turn(options_, now);
      if (!id) break;
      const detail::Served* resting = entries_.resting(*id);
      ChunkEntry* const entry = entries_.find(*id);
      const Copy* listed = entry == nullptr ? nullptr : entry->listed();
      if (resting == nullptr && listed == nullptr) {
        scrub_.skip();
      } else if (resting == nullptr && listed->operation != Copy::Operation::none) {
        scrub_.hold_up();
        break;
      } else {
        scrub_.read(resting != nullptr ? resting->bytes : listed->generation.bytes, now);
        touch(*id, now, [this](ChunkEntry& of) { begin(*of.listed(), Copy::Operation::verify); });
      }
    }
    action::FreeIds spent;
    if (!scrub_.ends(spent.ids)) return;
    notify(EventKind::scrubbed, {}, 0);
    act(std::move(spent));
  }

  /// Ends the copy's operation; `finish(entry, copy)` where it succeeded, otherwise it is tried again later.
  template <class Finish>
  void operation_done(const Generation& generation, const Outcome& outcome, Instant now, Finish&& finish) {
    report(generation.id, now, [&](ChunkEntry& entry) {
      Copy& copy = *entry.copy(generation);
      const Copy::Operation operation = std::exchange(copy.operation, Copy::Operation::none);
      if (operation == Copy::Operation::remove) removing_ -= weight_of(copy);
      if (outcome.ok()) {
        copy.failures = 0;
        finish(entry, copy);
        return;
      }
      notify_failure(generation.id, generation.number, outcome);
      if (!copy.away) doubt(outcome.error);
      if (copy.away && operation != Copy::Operation::describe) return;
      // After `close` a removal is not tried again; the mark that the next start goes by comes instead.
      if (closed_ && operation == Copy::Operation::remove) return;
      const Backoff backoff{options_.min_backoff, options_.max_backoff};
      const std::chrono::nanoseconds delay = backoff.delay(copy.failures++, random_);
      if (operation == Copy::Operation::remove && needs_mark_first(copy)) return;  // at once: the removal waits for it
      copy.retry_at = now + delay;
    });
  }

  [[nodiscard]] std::uint64_t failures_of(const Generation& generation) {
    return entries_.at(generation.id).copy(generation)->failures;
  }

  // ---- room

  [[nodiscard]] bool has_room(const ChunkEntry& entry) const {
    return entry.fetch || tally_.budget().fits(options_, bytes_of(entry));
  }

  /// Of the chunk whose turn it is. It keeps its turn, and none overtakes it, or a large one would never come through;
  /// but one that can never fit stands aside: then true.
  bool wait_for_room(const ChunkId& id, Instant now) {
    const bool never_fits = bytes_of(entries_.at(id)) > options_.max_bytes;
    if (never_fits || !entries_.at(id).parked) {
      touch(id, now, [&](ChunkEntry& entry) {
        entry.parked = true;
        if (!entry.failures) entry.failures = std::make_unique<Failures>();
        entry.failures->error = errc::over_budget;
        entry.failures->subject = "chunk " + id.to_hex();
        notify_failure(id, 0, {entry.failures->error, entry.failures->subject, std::nullopt});
        if (!never_fits) return;
        leave_queue(entry);
        entry.retry_at = now + Backoff{{}, options_.max_backoff}.slowest(random_);
      });
    }
    // What was left half-done may be in the way; the disk is measured with it.
    if (!never_fits) drop_partial();
    if (!never_fits && !litter_ && !cleaning_) {
      litter_ = true;
      clean_up_at_ = now + options_.no_space_retry;
    }
    return never_fits;
  }

  /// Where the size is not known, whatever there is room for begins.
  static std::uint64_t bytes_of(const ChunkEntry& entry) {
    return std::max<std::uint64_t>(1, declared_bytes(*entry.want).value_or(1));
  }

  /// There may be room again: what is parked need not wait.
  void end_parking(Instant now) {
    hold_until_.reset();
    const std::set<ChunkId> parked = std::exchange(parked_, {});
    for (const ChunkId& id : parked) {
      if (entries_.find(id) == nullptr) continue;
      touch(id, now, [](ChunkEntry& entry) {
        if (!std::exchange(entry.parked, false)) return;
        entry.retry_at.reset();
      });
    }
    pump(now);
  }
};

}  // namespace garner::core

namespace garner::core {

class FetchReports : protected ChunkTurns {
 public:
  void staged(const ChunkId& id, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      entry.fetch->phase = ChunkFetch::Phase::transferring;
      if (!outcome.ok()) {
        attempt_failed(entry, id, outcome, now);
        drop_fetch(entry);
      }
    });
  }

  void file_done(const ChunkId& id, TransferId transfer, const Outcome& outcome, Instant now) {
    --moving_files_;
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      ChunkFetch& fetch = *entry.fetch;
      const ErrorClass cls = classify(outcome.error);
      const ChunkFetch::Ended ended = outcome.ok() ? fetch.file_done(transfer) : fetch.file_failed(transfer, cls);
      hosts_.ended(ended.host, ended.began, outcome, options_, limits_.max_files_per_host, now, random_);
      // Where the store failed, that is what counts, whatever else ends because of it.
      if (outcome.ok() || fetch.spoiled || (cls == ErrorClass::cancelled && fetch.halted)) return;
      if (hope(outcome) >= hope(fetch.failure)) fetch.failure = outcome;
      if (cls == ErrorClass::local || cls == ErrorClass::no_space) fetch.spoiled = true;
      if (!options_.refresh || fetch.spoiled || fetch.stopping || closed_ || !fetch.needs_refresh(transfer)) return;
      action::Refresh refresh = fetch.refresh(transfer);
      refresh.ask = options_.refresh;
      act(std::move(refresh));
    });
  }

  /// `source` is where the file is to come from now; the transfer's server had rejected the credentials. With an error,
  /// why there is none.
  void refreshed(const ChunkId& id, TransferId transfer, const std::optional<FileSource>& source,
                 const Outcome& outcome, Instant now) {
    report(id, now, [&](ChunkEntry& entry) {
      ChunkFetch& fetch = *entry.fetch;
      fetch.refreshed(transfer, source ? &*source : nullptr, hosts_);
      if (!outcome.ok() && hope(outcome) >= hope(fetch.failure)) fetch.failure = outcome;
    });
  }

  /// The server answers a transfer that was to find out about it.
  void answered(const ChunkId& id, TransferId transfer, Instant now) {
    entries_.at(id).fetch->answered(transfer);
    pump(now);
  }

  /// A server has told the size of a file that is being fetched, which nobody had declared. False where the budget does
  /// not allow it: then the transfer is to end with `errc::over_budget`, before a byte of it is kept.
  bool sized(const ChunkId& id, TransferId transfer, std::uint64_t bytes, Instant now) {
    touch(id, now, [&](ChunkEntry& entry) { entry.fetch->sized(transfer, bytes); });
    if (tally_.budget().fits(options_, 0)) return true;
    touch(id, now, [&](ChunkEntry& entry) { entry.fetch->sized(transfer, 0); });
    return false;
  }

  /// What the store has and has room for; `staged`: bytes of it that are being fetched.
  void measured(const StoreUsage& usage, std::uint64_t staged, Instant now) {
    tally_.budget().measured(usage, staged);
    pump(now);
  }

  void published(const ChunkId& id, const Generation& generation, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      if (!outcome.ok()) {
        entry.fetch->failure = outcome;
        entry.fetch->spoiled = true;
        entry.fetch->phase = ChunkFetch::Phase::transferring;
        return;
      }
      ++chunks_published_;
      // Its volume may have been opened anew meanwhile, and have told of it.
      Copy* known = entry.copy(generation);
      Copy& copy = known != nullptr ? *known : add_copy(entry, generation);
      copy.content = entry.fetch->content();
      copy.drained = !copy.listed;  // nobody has seen it yet
      drop_fetch(entry);
      if (entry.want && !copy.away && !copy.unfit && copy.holds(entry.content, declared_bytes(*entry.want)))
        serve(entry, copy);
    });
  }

  /// With an error, something is left to be cleaned up.
  void discarded(const ChunkId& id, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [this](ChunkEntry& entry) { drop_fetch(entry); });
  }

 protected:
  using ChunkTurns::ChunkTurns;

 private:
  /// Of several failures the one that may mend first says when it is worth trying again.
  static int hope(const Outcome& outcome) noexcept {
    switch (classify(outcome.error)) {
      case ErrorClass::none: return 0;
      case ErrorClass::invalid:
      case ErrorClass::gone: return 1;
      case ErrorClass::credentials: return 2;
      case ErrorClass::wrong_bytes: return 3;
      case ErrorClass::transient: return 4;
      case ErrorClass::cancelled: return 5;
      case ErrorClass::local:
      case ErrorClass::no_space: break;
    }
    return 6;
  }
};

}  // namespace garner::core

namespace garner::core {

class ChunkRecovery : public FetchReports {
 public:
  /// From now on, until `recovery_done`, calls may come while `recovered` tells what the store holds.
  void begin_recovery() {
    recovering_ = true;
    ++unreported_;
    // What is found was asked for before.
    asked_ = std::uint64_t{1} << 40;
  }

  /// What nobody has said anything about is wanted. What was not wanted at some moment since the start counts as
  /// deleted, and is not served but where it turns out to be what is wanted now.
  void recovered(const Generation& generation) {
    last_generation_ = std::max(last_generation_, generation.number);
    touch(generation.id, Instant{}, [&](ChunkEntry& entry) {
      const bool is_deleted = was_deleted(entry, generation.id);
      const bool is_to_be_checked = startup_check_ != StartupCheck::names;
      if (closed_ && !is_deleted) return;  // as it is, for the next start
      const auto asked = recovering_ ? ++found_ : ++asked_;
      const bool is_newest = std::all_of(entry.copies.begin(), entry.copies.end(), [&](const Copy& other) {
        return !(other.listed || other.missed) || other.generation.number <= generation.number;
      });
      leave_queue(entry);
      Copy& copy = add_copy(entry, generation);
      copy.drained = true;
      copy.told = copy.away;
      if (is_deleted) {
        copy.unfit = is_to_be_checked;  // and nobody will
        return;
      }
      if (!entry.want) entry.asked = asked;
      if (is_to_be_checked && !copy.away) {
        entry.wanted = copy.unchecked = true;
        return;
      }
      if (!is_newest) {
        if (entry.listed() != nullptr) supersede(copy);
        return;
      }
      forget_missed(entry);
      entry.wanted = true;
      if (copy.away) {
        copy.missed = true;
        return;
      }
      if (Copy* older = entry.listed()) {
        unlist(*older);
        supersede(*older);
      }
      list(copy, entry.asked);
    });
  }

  /// New generations are numbered from above what was found. With an error it stays unknown what the store holds: what
  /// was told is served, and nothing else happens any more.
  void recovery_done(const Recovery& recovery, Instant now) {
    if (recovering_ && !end_recovery(recovery)) return;
    last_generation_ = std::max(last_generation_, recovery.last_generation);
    constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);
    if (recovery.has_partial) partial_until_ = now + std::min(options_.staging_ttl, for_ever);
    if (options_.staging_ttl <= std::chrono::nanoseconds::zero()) drop_partial();
    litter_ = true;
    watch_volumes(now);
    while (closed_ && !held_.empty()) release(now);
    pump(now);
  }

  /// Before anything is recovered; where there is one, or the store has none, nothing of all that follows happens.
  void volumes_are(std::vector<VolumeStatus> volumes) { ChunkVolumes::volumes_are(std::move(volumes)); }

  /// Whether the store could not be read.
  [[nodiscard]] bool recovery_failed() const noexcept { return !recovery_failure_.ok(); }

 protected:
  using FetchReports::FetchReports;

  /// Before it is wanted: whether it is wanted anew.
  void note_wish(const ChunkId& id) {
    if (!recovering_) {
      deleted_unseen_.erase(id);
    } else if (epoch_ > 0 && !entries_.is_wanted(id)) {
      deleted_unseen_.insert(id);
    }
  }

  void note_deletion(const ChunkId& id) {
    if (recovering_ || (epoch_ == 0 && any_unseen())) deleted_unseen_.insert(id);
  }

  void fill_recovery(Status& status) const {
    status.recovering = recovering_ && !recovery_failed();
    status.recovery_error = recovery_failure_.error;
    status.recovery_subject = recovery_failure_.subject;
  }

 private:
  [[nodiscard]] bool was_deleted(const ChunkEntry& entry, const ChunkId& id) const {
    return recovering_ && (deleted_unseen_.contains(id) || (epoch_ > 0 && !entry.wanted));
  }

  /// A newer one is served, and this one would be on its way out by now: it does not come back for a wish that it
  /// holds.
  void supersede(Copy& older) const { older.unfit = older.unfit || recovering_; }

  /// False where nothing follows from it.
  bool end_recovery(const Recovery& recovery) {
    --unreported_;
    // What was told before it was stopped, and deleted, can be marked as that.
    const bool was_stopped = closed_ && recovery.error == errc::cancelled;
    const bool is_known = !recovery.error || was_stopped;
    if (!is_known) recovery_failure_ = {recovery.error, recovery.subject, std::nullopt};
    if (!was_stopped) notify_recovered(recovery_failure_);
    if (!is_known) return false;
    recovering_ = false;
    if (epoch_ > 0 || !any_unseen()) deleted_unseen_.clear();
    return true;
  }

  void notify_recovered(const Outcome& outcome) {
    notify(EventKind::recovered, {}, 0);
    auto& event = std::get<Event>(actions_.back());
    event.error = outcome.error;
    event.subject = outcome.subject;
  }

  std::uint64_t found_ = 0;
  Outcome recovery_failure_;
};

}  // namespace garner::core

namespace garner::core {

class ChunkQuestions : public ChunkRecovery {
 public:
  /// When to call `woken`.
  [[nodiscard]] std::optional<Instant> next_wake() const {
    if (recovering_) return std::nullopt;
    std::optional<Instant> next = alarms_.next();
    for (const std::optional<Instant>& at : {hold_until_, clean_up_at_, partial_until_, scrub_.wake(options_),
                                             next_look(), next_rested(), next_release()}) {
      if (at && (!next || *at < *next)) next = at;
    }
    return next;
  }
  /// Whether what is wanted is served, and what is not wanted is only kept by pins.
  [[nodiscard]] bool settled() const noexcept {
    return tally_.settled() && !litter_ && !cleaning_ && !in_doubt() && !recovering_;
  }
  /// Whether every action has been reported on.
  [[nodiscard]] bool idle() const noexcept { return unreported_ == 0; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }
  [[nodiscard]] Epoch epoch() const noexcept { return epoch_; }

  void fill(Status& status) const {
    tally_.fill(status);
    fill_recovery(status);
    status.scrub = scrub_.status();
    status.chunks_published = chunks_published_;
    status.chunks_removed = chunks_removed_;
    status.chunks_quarantined = chunks_quarantined_;
    status.attempts_failed = attempts_failed_;
    status.assigned_epoch = epoch_;
    status.filled = filled_;
    status.closed = closed_;
  }

  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id, Instant now) const {
    ChunkStatus status;
    if (entries_.resting(id) != nullptr) {
      status.state = ChunkState::ready;
      status.wanted = status.served = true;
      return status;
    }
    const ChunkEntry* entry = entries_.find(id);
    if (entry == nullptr) return std::nullopt;
    status.state = entry->state();
    status.wanted = entry->wanted;
    status.served =
        std::any_of(entry->copies.begin(), entry->copies.end(), [](const Copy& copy) { return copy.listed; });
    if (entry->failures) {
      status.attempts = entry->failures->attempts;
      status.last_error = entry->failures->error;
      status.last_error_class = classify(entry->failures->error);
      status.last_error_subject = entry->failures->subject;
    }
    if (entry->retry_at) status.next_try_in = std::max(Instant{}, *entry->retry_at - now);
    return status;
  }

 protected:
  using ChunkRecovery::ChunkRecovery;
};

}  // namespace garner::core

namespace garner::core {

/// Thread-safety: none; one caller at a time. Each input is O(log n), but for `assign` and `close`, which are
/// O(n).
class ChunkTable : public ChunkQuestions {
 public:
  ChunkTable(const Options& options, std::uint64_t seed) : ChunkQuestions(options, seed) {}

  /// What is to be done, in order. Performed in that order, `List`, `Unlist` and `Condemn` at once.
  std::vector<Action>& actions() noexcept { return actions_; }

  /// Nobody needs it any more, and freeing it takes long: to be taken from here, and freed where it holds up nobody.
  std::vector<std::shared_ptr<const void>>& spent() noexcept { return spent_; }

  // ---- calls

  void download(const Wish& wish, Instant now) {
    if (closed_) return;
    note_wish(wish.chunk->id);
    want(wish, now);
    pump(now);
  }

  void remove(const ChunkId& id, Instant now) {
    if (closed_) return;
    note_deletion(id);
    unwant(id, now);
    pump(now);
  }

  /// Makes `wishes` what is wanted, and nothing else.
  Epoch assign(const std::vector<Wish>& wishes, Instant now) {
    if (closed_) return epoch_;
    if (!recovering_) deleted_unseen_.clear();
    for (const Wish& wish : wishes) note_wish(wish.chunk->id);
    ++epoch_;
    for (const Wish& wish : wishes) {
      want(wish, now);
      detail::Served* served = entries_.resting(wish.chunk->id);
      (served != nullptr ? served->named : entries_.at(wish.chunk->id).named) = true;
    }
    std::vector<ChunkId> unwanted;
    const auto see = [&unwanted](auto& chunk, bool is_wanted) {
      if (!std::exchange(chunk.named, false) && is_wanted) unwanted.push_back(chunk.id);
    };
    entries_.visit([&](ChunkEntry& entry) { see(entry, entry.wanted); });
    entries_.visit_resting([&](detail::Served& served) { see(served, true); });
    for (const ChunkId& id : unwanted) unwant(id, now);
    pump(now);
    return epoch_;
  }

  /// Re-reads these chunks, which are in their order, one after another, and behind the one that was re-read last, and
  /// looks at the volumes. Takes
  /// them; what is then in `ids` is to be freed.
  void verify(std::vector<ChunkId>& ids, Instant now) {
    if (closed_) return;
    examine_soon();
    scrub_.begin(ids, false, now);
    pump(now);
  }

  /// Takes `options`; what is then in there is to be destroyed.
  void set_options(Options& options, Instant now) {
    std::swap(options_, options);
    pump(now);
  }

  /// Stops what moves, keeps its staging, and asks for no more but the marks that make deletions outlive the
  /// process.
  void close(Instant now) {
    if (closed_) return;
    closed_ = true;
    scrub_.stop();
    std::vector<ChunkId> all;
    entries_.visit([&all](const ChunkEntry& entry) { all.push_back(entry.id); });
    // What waits to be tried again gets its last chance.
    for (const ChunkId& id : all) {
      touch(id, now, [](ChunkEntry& entry) {
        for (Copy& copy : entry.copies) copy.retry_at.reset();
      });
    }
  }

  void woken(Instant now) {
    if (clean_up_at_ && *clean_up_at_ <= now) clean_up_at_.reset();
    if (examine_at_ && *examine_at_ <= now) examine_at_.reset();
    if (partial_until_ && *partial_until_ <= now) drop_partial();
    while (const std::optional<ChunkId> id = alarms_.pop_due(now)) {
      touch(*id, now, [now](ChunkEntry& entry) {
        entry.alarm.reset();
        if (entry.retry_at && *entry.retry_at <= now) entry.retry_at.reset();
        for (Copy& copy : entry.copies) {
          if (copy.retry_at && *copy.retry_at <= now) copy.retry_at.reset();
        }
      });
    }
    pump(now);
  }

  // ---- reports: one for each action that asks for one; those about what is being fetched are in the base

  void cleaned_up(const Outcome& outcome, Instant now) {
    --unreported_;
    cleaning_ = false;
    if (outcome.ok()) {
      failed_clean_ups_ = 0;
    } else {
      doubt(outcome.error);
      litter_ = true;
      clean_up_at_ = now + Backoff{options_.min_backoff, options_.max_backoff}.delay(failed_clean_ups_++, random_);
    }
    pump(now);
  }

  /// `List` was performed: it serves the generation as long as that is listed, and may keep what is known of the chunk.
  void served(detail::Served& by) {
    ChunkEntry* const entry = entries_.find(by.id);
    Copy* const copy = entry == nullptr ? nullptr : entry->copy(by.generation());
    if (copy == nullptr || !copy->listed) return;  // not any more
    copy->served = &by;
    entries_.settle(*entry);
  }

  /// Nobody has a pin on this generation any more, and nobody can get one: it is not listed.
  void drained(const Generation& generation, Instant now) {
    touch(generation.id, now, [&](ChunkEntry& entry) {
      Copy* copy = entry.copy(generation);
      if (copy == nullptr || copy->listed) return;
      copy->drained = true;
      if (!closed_) copy->retry_at.reset();
    });
    pump(now);
  }

  /// When a Doom is about to be performed: true where it is not to be, and this was the report of it. Mostly the last
  /// pin has gone by then. Its removal needs no mark before it, as long as it comes soon: not where many are under way.
  bool withdraw_doom(const Generation& generation, Instant now) {
    constexpr std::uint64_t most_removing = std::uint64_t{1} << 30;  // a thousand small chunks, five of 200 MB
    Copy& copy = *entries_.at(generation.id).copy(generation);
    const bool is_soon = copy.drained && !copy.away && !closed_ && removing_ < most_removing;
    if (copy.mark == Copy::Mark::due && copy.failures == 0 && (is_soon || copy.listed)) {
      operation_done(generation, {}, now, [](ChunkEntry&, Copy& moot) { moot.mark = Copy::Mark::none; });
      return true;
    }
    copy.mark = Copy::Mark::unsure;
    return false;
  }

  void doomed(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [](ChunkEntry&, Copy& copy) { copy.mark = Copy::Mark::doomed; });
  }

  void spared(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [](ChunkEntry&, Copy& copy) { copy.mark = Copy::Mark::none; });
  }

  void removed(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [&](ChunkEntry& entry, const Copy& copy) {
      if (copy.corrupt) ++chunks_quarantined_;
      erase_copy(entry, copy);
      ++chunks_removed_;
      notify(EventKind::chunk_removed, generation.id, generation.number);
    });
    if (outcome.ok()) end_parking(now);
  }

  /// `chunk` is what the generation holds. Where that cannot be told it is not what is wanted, but a store that is
  /// short of something for a moment is asked a few times before a whole chunk is fetched for that.
  void described(const Generation& generation, const Outcome& outcome, const std::optional<DataChunk>& chunk,
                 Instant now) {
    constexpr std::uint64_t max_failures = 3;
    const bool is_certain = outcome.error == errc::corrupt_chunk || outcome.error == errc::no_such_generation;
    ChunkEntry& of = entries_.at(generation.id);
    const Copy& asked = *of.copy(generation);
    // Who else could describe what is on a volume that is away may be away itself; and what cannot be wanted under
    // these options can be under others.
    const bool may_yet = of.lost() && (asked.away || any_unseen());
    const bool is_of_use = outcome.ok() && (!may_yet || is_fit(generation.id, chunk));
    const bool is_moot = asked.told && !asked.away && !asked.missed;
    const bool is_open = may_yet || asked.away || (!is_certain && failures_of(generation) < max_failures);
    const bool again = !is_of_use && is_open && !is_moot;
    // What is wrong with a description elsewhere is not wrong with the chunk.
    const bool is_own = !outcome.ok() && !is_certain;
    const Outcome told = is_own ? outcome : Outcome{errc::io_error, "chunk " + generation.id.to_hex(), std::nullopt};
    operation_done(generation, again ? told : Outcome(), now, [&](ChunkEntry& entry, Copy& copy) {
      copy.content = chunk ? content_fingerprint(*chunk) : ContentFingerprint{};
      if (!copy.missed || !entry.lost()) return;
      if (!chunk) notify_failure(generation.id, generation.number, outcome);
      want_again(entry, chunk);
    });
  }

  /// With `errc::corrupt_chunk`: `chunk` is the generation's description, where it can still be read. What is not there
  /// at all (`errc::no_such_generation`) is no better.
  void verified(const Generation& generation, const Outcome& outcome, const std::optional<DataChunk>& chunk,
                Instant now) {
    const Copy& verified = *entries_.at(generation.id).copy(generation);
    if (verified.operation == Copy::Operation::check) return checked(verified, outcome, chunk, now);
    scrub_.done(outcome.ok()                       ? Scrub::Result::whole
                : is_wrong(outcome)                ? Scrub::Result::corrupt
                : outcome.error == errc::cancelled ? Scrub::Result::cancelled
                                                   : Scrub::Result::unreadable);
    operation_done(generation, {}, now, [&](ChunkEntry& entry, Copy& copy) {
      if (outcome.ok() || outcome.error == errc::cancelled) return;
      notify_failure(generation.id, generation.number, outcome);
      doubt(outcome.error);
      if (is_wrong(outcome)) condemn(entry, copy, outcome, chunk);
    });
  }

  /// The ids of all that is listed, in their order; as `verify` takes them.
  void held(std::vector<ChunkId>& ids, Instant now) {
    --unreported_;
    scrub_.begin(ids, true, now);
    pump(now);
  }

  // ---- volumes

  /// What the store has told of its volumes by the way.
  void volumes_told(const std::vector<VolumeStatus>& volumes, Instant now) {
    if (volumes_.empty() && volumes.size() == 1) note_only_volume(volumes.front());
    note_read_only(volumes, now);
    pump(now);
  }

  /// On a volume that was away and has been opened anew there is this generation. What nobody knows counts as found by
  /// a start; but once an assignment has been made, nothing is wanted that it does not name.
  void found(const Generation& generation, Instant now) {
    last_generation_ = std::max(last_generation_, generation.number);
    touch(generation.id, now, [&](ChunkEntry& entry) {
      if (Copy* copy = known_copy(entry, generation)) return come_back(entry, *copy);
      const bool is_unknown = entry.empty();
      if (is_unknown && closed_) return;  // as it is, for the next start
      Copy* listed = entry.listed();
      const bool is_newer = adopted_.contains(generation.id) && listed != nullptr && !entry.want &&
                            listed->generation.number < generation.number;
      if (is_newer) unlist(*listed);
      Copy& copy = add_copy(entry, generation);
      copy.away = false;
      copy.drained = true;
      const bool is_adopted = is_unknown && epoch_ == 0 && !deleted_unseen_.contains(generation.id);
      if (!is_adopted && !is_newer) return;
      adopted_.insert(generation.id);
      entry.wanted = true;
      if (is_unknown) entry.asked = ++asked_;
      list(copy, entry.asked);
    });
    pump(now);
  }

  void examined(const std::vector<VolumeStatus>& volumes, Instant now) {
    --unreported_;
    if (take_examination(volumes, now)) return end_parking(now);
    pump(now);
  }

 private:
  static bool is_wrong(const Outcome& outcome) {
    return outcome.error == errc::corrupt_chunk || outcome.error == errc::no_such_generation;
  }

  /// The check after a start. Served is what passed it. A disk that does not give the bytes of a chunk is asked a few
  /// times, where it tells at least what to fetch; whatever else keeps one from being checked, it waits for.
  void checked(const Copy& checked, const Outcome& outcome, const std::optional<DataChunk>& chunk, Instant now) {
    constexpr std::uint64_t max_failures = 3;
    --checks_;
    const bool is_lost =
        is_wrong(outcome) || (outcome.error == errc::io_error && is_fit(checked.generation.id, chunk) &&
                              checked.failures + 1 >= max_failures);
    const bool again = !is_lost && checked.unchecked && outcome.error != errc::cancelled;
    const Generation generation = checked.generation;
    operation_done(generation, again ? outcome : Outcome(), now, [&](ChunkEntry& entry, Copy& copy) {
      if (is_lost) {
        notify_failure(generation.id, generation.number, outcome);
        condemn(entry, copy, outcome, chunk);
      } else if (copy.away) {
        // When its volume is back it is checked again.
      } else if (!outcome.ok()) {
        copy.unfit = copy.unfit || !copy.unchecked;  // nobody will check it again
      } else if (std::exchange(copy.unchecked, false)) {
        list(copy, entry.asked);
      }
    });
  }

  /// The copy is not to be served again.
  void condemn(ChunkEntry& entry, Copy& copy, const Outcome& outcome, const std::optional<DataChunk>& chunk) {
    const bool was_needed = copy.listed || copy.unchecked;
    copy.unfit = true;
    copy.unchecked = false;
    if (outcome.error != errc::no_such_generation)
      copy.corrupt = std::make_unique<const std::string>(outcome.subject + ": " + outcome.error.message());
    if (copy.listed) {
      unlist(copy);
      // Nobody has re-read the others: none of them takes its place.
      for (Copy& other : entry.copies) other.unfit = true;
    }
    act(action::Condemn{copy.generation});
    // Meanwhile another copy may have taken its place.
    if (!was_needed) return;
    if (!entry.wanted || entry.want) return;
    if (is_fit(copy.generation.id, chunk)) return want_again(entry, chunk);
    // Of several that the start found an older one may still be whole, or one that is away.
    entry.wanted = entry.unchecked() != nullptr || entry.lost();
  }
};

}  // namespace garner::core

// Does it.

// garner/manager/engine.hpp ---------------------------------------------------------------------------------
// The engine of a data manager: one lock around the state machine and the index, and everything that the
// state machine asks for, done outside of it. Calls and reports become inputs; the actions that come back are
// performed in their order by one task at a time, and what blocks gets a task of its own. What the executor
// refuses to take is kept, and is offered again or done by whoever comes next.

// garner/manager/alarm.hpp ----------------------------------------------------------------------------------
// One alarm on an executor, which can be set again and put away, and tells for certain whether its task will
// still run.

namespace garner::detail {

/// Thread-safety: one caller at a time. The task may run on any thread.
template <Executor E>
class Alarm {
 public:
  explicit Alarm(E& executor) : executor_(executor) {}

  /// Runs `task` once at `at`, unless it is put away before.
  template <class Work>
  void set(Instant at, Work task) {
    claim_ = std::make_shared<std::atomic<bool>>(false);
    timer_.emplace(executor_.post_at(at, [claim = claim_, task = std::move(task)]() mutable {
      if (!claim->exchange(true)) task();
    }));
  }

  /// True where a task was set that has not begun, and now never will. An executor's `cancel` does not tell;
  /// so whoever claims the task first has it.
  bool put_away() {
    if (!timer_) return false;
    executor_.cancel(*timer_);
    timer_.reset();
    return !claim_->exchange(true);
  }

 private:
  E& executor_;
  std::optional<typename E::Timer> timer_;
  std::shared_ptr<std::atomic<bool>> claim_;
};

}  // namespace garner::detail

// garner/manager/guarded.hpp --------------------------------------------------------------------------------
// Calls into policies: whatever they throw becomes an error code.

namespace garner::detail {

/// Runs `call()`, which returns nothing or a `std::error_code`. What it throws is returned: the code of a
/// `std::system_error`, `errc::policy_failed` for anything else.
template <class Call>
std::error_code guarded(Call&& call) noexcept {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Call>>) {
      std::forward<Call>(call)();
      return {};
    } else {
      return std::forward<Call>(call)();
    }
  } catch (const std::system_error& error) {
    return error.code() ? error.code() : make_error_code(errc::policy_failed);
  } catch (...) {
    return errc::policy_failed;
  }
}

}  // namespace garner::detail

// garner/manager/listing.hpp --------------------------------------------------------------------------------
// What is served: the index of listed generations, and the pins that it hands out.

namespace garner::detail {

/// Thread-safety: `find`, `find_all` and `ids` from any thread, without a lock; all else from one thread at a
/// time.
template <Storage S>
class Listing {  // NOLINT(clang-analyzer-optin.performance.Padding): there is one
 private:
  using Listed = Pinned<S>;
  using Index = core::ChunkIndex<Listed, Unlist<S>>;

 public:
  using Garbage = typename Index::Garbage;

  explicit Listing(std::shared_ptr<PinHost<S>> host) : host_(std::move(host)) {}

  /// What serves it from now on.
  Served& list(const Generation& generation, std::uint64_t asked) {
    Pinned<S>* pinned = nullptr;
    // Of a generation that is taken back the old pins may be gone, with the report of it on its way: that
    // report is then not current.
    const auto known = unlisted_.find(generation);
    if (known != unlisted_.end() && known->second->try_share()) pinned = known->second;
    const std::unique_ptr<const Pinned<S>, Release> shared(pinned);
    Home& home = homes_[generation.dataset_id];
    if (++home.listed == 1) home.shared.reset(new PinHome<S>(generation.dataset_id, host_));
    if (pinned == nullptr) pinned = new Pinned<S>(generation, *home.shared);
    pinned->listed();
    if (known != unlisted_.end()) unlisted_.erase(known);
    index_.insert(generation.dataset_id, generation.block_range, asked, ListedPtr(pinned));
    changed_ = true;
    return *pinned;
  }

  /// `asked` is that of its `list`.
  void unlist(const Generation& generation, std::uint64_t asked) {
    const auto key = index_.key_of(generation.dataset_id, generation.block_range, asked);
    unlisted_.insert_or_assign(generation, &index_.erase(key));
    changed_ = true;
    const auto home = homes_.find(generation.dataset_id);
    if (--home->second.listed == 0) homes_.erase(home);  // pins have it yet
  }

  /// It is corrupt, and was unlisted: whoever has a pin on it can see that from now on.
  void condemn(const Generation& generation) {
    if (const auto it = unlisted_.find(generation); it != unlisted_.end()) it->second->condemn();
  }

  /// Lets readers see what has changed, and appends to `garbage` what none of them can see any more. To be
  /// destroyed outside of every lock: among it are pins.
  void publish(std::vector<Garbage>& garbage) {
    if (std::exchange(changed_, false)) index_.publish();
    index_.collect(garbage);
  }

  /// Whether readers are still inside what was replaced.
  [[nodiscard]] bool pending() const noexcept { return index_.pending(); }

  /// What is pinned no more: true where that is the last listing of this generation, and over. Called before `pinned`
  /// is freed.
  bool forget(const Generation& generation, const void* pinned) {
    const auto it = unlisted_.find(generation);
    if (it == unlisted_.end() || it->second != pinned) return false;
    unlisted_.erase(it);
    return true;
  }

  // ---- readers

  [[nodiscard]] std::optional<DataChunkRef<S>> find(const DatasetId& dataset, BlockNumber block) const {
    return index_.find(dataset, block, [this](const Listed& listed) { return DataChunkRef<S>(listed, slots_); });
  }

  [[nodiscard]] std::vector<DataChunkRef<S>> find_all(const DatasetId& dataset, const BlockRange& range) const {
    std::vector<DataChunkRef<S>> out;
    index_.visit(dataset, range, [&out, this](const Listed& listed) { out.emplace_back(listed, slots_); });
    return out;
  }

  [[nodiscard]] std::vector<ChunkId> ids() const {
    std::vector<ChunkId> out;
    index_.visit_all([&out](const Listed& listed) { out.push_back(listed.id); });
    return out;
  }

  [[nodiscard]] std::vector<ChunkId> sorted_ids() const {
    std::vector<ChunkId> out = ids();
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  using ListedPtr = typename Index::ValuePtr;

  /// By all that names a generation: in a directory that somebody put together, a number alone may stand for several.
  struct Hash {
    std::size_t operator()(const Generation& generation) const noexcept {
      return std::hash<ChunkId>()(generation.id) ^ static_cast<std::size_t>(generation.number);
    }
  };

  struct Home {
    std::unique_ptr<const PinHome<S>, Release> shared;
    std::size_t listed = 0;
  };

  std::shared_ptr<PinHost<S>> host_;
  PinSlots& slots_ = host_->slots();
  std::unordered_map<DatasetId, Home> homes_;  // of all that is listed
  Index index_;
  std::unordered_map<Generation, Listed*, Hash> unlisted_;  // until it is reported that no pin keeps them
  bool changed_ = false;
};

}  // namespace garner::detail

// garner/manager/observers.hpp ------------------------------------------------------------------------------
// Who is told, and what is still to be told to them. Events wait here until a task delivers them, so that an
// observer that is slow, throws or calls the manager back disturbs nobody.

namespace garner::detail {

/// Thread-safety: every member from any thread. `deliver` by one thread at a time.
class Observers {
 public:
  using Observer = std::function<void(const Event&)>;

  Subscription subscribe(Observer observer) {
    const std::scoped_lock lock(state_->mutex);
    const std::uint64_t number = ++state_->last_number;
    state_->observers.emplace_back(number, std::make_shared<const Observer>(std::move(observer)));
    return Subscription([weak = std::weak_ptr<State>(state_), number] {
      if (const auto state = weak.lock()) state->unsubscribe(number);
    });
  }

  /// Keeps `event` for those who are subscribed now. True where the caller is to see to a `deliver`.
  bool push(const Event& event) {
    const std::scoped_lock lock(state_->mutex);
    if (state_->observers.empty()) return false;
    if (state_->events.size() >= max_waiting) {
      state_->events.clear();
      state_->events.push_back(dropped());
    }
    state_->events.push_back(event);
    return !std::exchange(state_->delivering, true);
  }

  /// Tells everybody everything that waits.
  void deliver() {
    std::unique_lock lock(state_->mutex);
    state_->thread = std::this_thread::get_id();
    while (!state_->events.empty()) {
      const Event event = std::move(state_->events.front());
      state_->events.pop_front();
      auto observers = state_->observers;
      for (const auto& [number, observer] : observers) {
        if (!state_->is_subscribed(number)) continue;
        lock.unlock();
        try {
          (*observer)(event);
        } catch (...) {  // NOLINT(bugprone-empty-catch): what an observer throws concerns nobody else
        }
        lock.lock();
      }
      lock.unlock();
      observers.clear();  // it may hold the last of one that has unsubscribed, which may own anything
      lock.lock();
    }
    state_->thread = {};
    state_->delivering = false;
  }

  /// Whether the calling thread is inside an observer of this manager.
  [[nodiscard]] bool is_observing() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->thread == std::this_thread::get_id();
  }

 private:
  static constexpr std::size_t max_waiting = 65536;

  static Event dropped() {
    Event event;
    event.kind = EventKind::events_dropped;
    return event;
  }

  struct State {
    [[nodiscard]] bool is_subscribed(std::uint64_t number) const {
      return std::any_of(observers.begin(), observers.end(), [number](const auto& o) { return o.first == number; });
    }
    void unsubscribe(std::uint64_t number) {
      std::shared_ptr<const Observer> last;  // destroyed outside of the lock: it may own anything
      const std::scoped_lock lock(mutex);
      const auto it =
          std::find_if(observers.begin(), observers.end(), [number](const auto& o) { return o.first == number; });
      if (it == observers.end()) return;
      last = std::move(it->second);
      observers.erase(it);
    }

    std::mutex mutex;
    std::vector<std::pair<std::uint64_t, std::shared_ptr<const Observer>>> observers;
    std::deque<Event> events;
    std::uint64_t last_number = 0;
    bool delivering = false;
    std::thread::id thread;
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace garner::detail

// garner/manager/performer.hpp ------------------------------------------------------------------------------
// The hands of the engine: performs the state machine's actions through the policies, and gives it the
// reports. What blocks is done by a task of its own; nothing here is decided.

// garner/manager/store_calls.hpp ----------------------------------------------------------------------------
// The storage's calls about published generations, as the state machine wants them: an outcome each, whatever
// is thrown.

namespace garner::detail {

/// Every member blocks on I/O.
template <Storage S>
class StoreCalls {
 public:
  explicit StoreCalls(S& storage) : storage_(storage) {}

  core::Outcome doom(const Generation& generation) {
    return about(generation, guarded([&] { return storage_.doom(generation); }));
  }
  core::Outcome spare(const Generation& generation) {
    return about(generation, guarded([&] { return storage_.spare(generation); }));
  }
  core::Outcome remove(const Generation& generation) {
    std::error_code error = guarded([&] { return storage_.remove(generation); });
    if (error == errc::no_such_generation) error.clear();  // an earlier try went further than it said
    return about(generation, error);
  }
  core::Outcome quarantine(const Generation& generation, const std::string& reason) {
    std::error_code error = guarded([&] { return storage_.quarantine(generation, reason); });
    if (error == errc::no_such_generation) error.clear();  // as above
    return about(generation, error);
  }
  core::Outcome verify(const Generation& generation, VerifyDepth depth, const VerifyProgress& progress) const {
    return about(generation, guarded([&] { return storage_.verify(generation, depth, progress); }));
  }

  /// With an error, `chunk` is nothing.
  core::Outcome describe(const Generation& generation, std::optional<DataChunk>& chunk) const {
    const std::error_code error = guarded([&] {
      std::error_code ec;
      chunk = storage_.describe(generation, ec);
      return ec;
    });
    if (error) chunk.reset();
    return about(generation, error);
  }

  std::optional<StoreUsage> usage() const {
    std::optional<StoreUsage> usage;
    guarded([&] { usage = storage_.usage(); });
    return usage;
  }

  /// None where the storage has none.
  std::vector<VolumeStatus> volumes() const {
    std::vector<VolumeStatus> volumes;
    if constexpr (VolumeStorage<S>) guarded([&] { volumes = storage_.volumes(); });
    return volumes;
  }
  std::vector<VolumeStatus> examine(const std::function<void(const Generation&)>& found) {
    std::vector<VolumeStatus> volumes;
    if constexpr (VolumeStorage<S>) guarded([&] { volumes = storage_.examine(found); });
    return volumes;
  }

  core::Outcome clean_up(Partial partial) {
    return {guarded([&] { return storage_.clean_up(partial); }), "leftovers of the store", std::nullopt};
  }

 private:
  static core::Outcome about(const Generation& generation, std::error_code error) {
    if (!error) return {};
    return {error, "chunk " + generation.id.to_hex(), std::nullopt};
  }

  S& storage_;
};

}  // namespace garner::detail

// garner/manager/transfers.hpp ------------------------------------------------------------------------------
// The chunks that are being fetched, as the policies see them: staging areas, staged files, and the transfers
// that fill them. Does what it is told and reports; decides only whether a file can go on where it stopped.

// garner/manager/fetched_part.hpp ---------------------------------------------------------------------------
// What is there of a file that was not fetched to its end, and how it is gone on with: whether it may be, and what is
// to be asked of a server.

namespace garner::detail {

struct FetchedPart {
  std::uint64_t size = 0;   ///< bytes
  SourceIdentity identity;  ///< of these
  std::string url;          ///< that they came from, redacted: signatures may change; empty where that is not known
};

/// All bytes are there, of an earlier attempt. Nothing is to be asked of a server then.
inline bool is_whole(const FileSource& source, const FetchedPart& part) {
  return part.size != 0 && part.size == source.size.value_or(part.identity.length.value_or(0));
}

/// Whether what is there and what comes from `url`, redacted, are certain to be parts of the same bytes, or a digest
/// will tell.
inline bool can_resume(const FileSource& source, const FetchedPart& part, const std::string& url) {
  if (source.digest) return true;
  return part.url == url && !(part.identity.etag.empty() && part.identity.last_modified.empty());
}

/// For the rest of it, from the mirror `url`.
inline FetchRequest request_rest(const FileSource& source, const FetchedPart& part, std::size_t url) {
  FetchRequest request;
  request.url = source.urls[url];
  request.offset = part.size;
  if (request.offset > 0) {
    // Another mirror's validators mean nothing to this one.
    if (part.url == redact_url(request.url)) request.identity = part.identity;
    request.identity.length = part.identity.length;
  }
  request.size = source.size;
  request.headers = source.headers;
  return request;
}

}  // namespace garner::detail

// garner/manager/file_origin.hpp ----------------------------------------------------------------------------
// Where the bytes of a staged file came from, as one text that a store keeps beside them: the URL without its secrets,
// and the server's identity for them. What was read from a store is as little trusted as the store.

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

// garner/manager/rate_meter.hpp -----------------------------------------------------------------------------
// Bytes a second over the last few seconds, counted by many threads without a lock.

namespace garner::detail {

/// A ring of one-second buckets. Near the edge of a second an update may land in the bucket next to its own;
/// the rate is for people, and the total is exact.
class RateMeter {
 public:
  void add(std::chrono::nanoseconds now, std::uint64_t bytes) noexcept {
    total_.fetch_add(bytes, std::memory_order_relaxed);
    const std::int64_t second = seconds(now);
    Bucket& bucket = buckets_[static_cast<std::size_t>(second) % buckets_.size()];
    if (bucket.second.exchange(second, std::memory_order_relaxed) != second) {
      bucket.bytes.store(0, std::memory_order_relaxed);
    }
    bucket.bytes.fetch_add(bytes, std::memory_order_relaxed);
  }

  [[nodiscard]] std::uint64_t total() const noexcept { return total_.load(std::memory_order_relaxed); }

  /// Over the last five seconds, the current part of a second included.
  [[nodiscard]] double per_second(std::chrono::nanoseconds now) const noexcept {
    constexpr std::int64_t window = 5;
    const std::int64_t second = seconds(now);
    std::int64_t first = second;
    std::uint64_t bytes = 0;
    for (const Bucket& bucket : buckets_) {
      const std::int64_t at = bucket.second.load(std::memory_order_relaxed);
      if (at > second || at <= second - window) continue;
      first = at < first ? at : first;
      bytes += bucket.bytes.load(std::memory_order_relaxed);
    }
    const std::chrono::duration<double> span = now - std::chrono::seconds(first);
    return static_cast<double>(bytes) / (span.count() > 0.1 ? span.count() : 0.1);
  }

 private:
  static std::int64_t seconds(std::chrono::nanoseconds now) noexcept {
    return std::chrono::duration_cast<std::chrono::seconds>(now).count();
  }

  struct Bucket {
    std::atomic<std::int64_t> second{-1};
    std::atomic<std::uint64_t> bytes{0};
  };
  std::array<Bucket, 8> buckets_;
  std::atomic<std::uint64_t> total_{0};
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safety: every member from any thread; the calls about one generation come in the order of the
/// protocol.
template <Storage S, Downloader D>
class Transfers {
 public:
  /// `spawn` runs a task on the executor; `now` tells the time; `report` takes the end of each transfer,
  /// `answered` that a server answers that was to be found out about, `sized` the bytes of a file whose size was not
  /// declared, and tells whether there is room.
  struct Hooks {
    std::function<void(Task)> spawn;
    std::function<Instant()> now;
    std::function<void(const ChunkId&, core::TransferId, const core::Outcome&)> report;
    std::function<void(const ChunkId&, core::TransferId)> answered;
    std::function<bool(const ChunkId&, core::TransferId, std::uint64_t)> sized;
  };

  struct Published {
    Generation generation;
    core::Outcome outcome;
  };

  /// After each `checkpoint_bytes` of a file another run could go on with it.
  Transfers(S& storage, D& downloader, std::uint64_t checkpoint_bytes, Hooks hooks)
      : storage_(storage), downloader_(downloader), checkpoint_bytes_(checkpoint_bytes), hooks_(std::move(hooks)) {}
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  /// Opens the staging area of a generation. Blocks.
  core::Outcome stage(const core::action::Stage& action) {
    std::optional<typename S::Staging> staging;
    const std::error_code error = guarded([&] {
      std::error_code ec;
      staging.emplace(storage_.stage(*action.chunk, action.number, ec));
      return ec;
    });
    if (error) return about_chunk(action.chunk->id, error);
    auto fetch = std::make_shared<Fetch>(std::move(*staging));
    for (const auto& [name, source] : action.chunk->files) fetch->files[name];
    const std::scoped_lock lock(mutex_);
    fetches_[action.number] = std::move(fetch);
    return {};
  }

  /// Makes a transfer known, so that `stop` can reach it from now on; the executor starts it.
  void start(const core::action::StartFile& action) {
    auto transfer = std::make_shared<Transfer>(*this, action);
    {
      const std::scoped_lock lock(mutex_);
      const std::shared_ptr<Fetch>& fetch = fetches_.at(action.number);
      transfer->fetch = fetch;
      transfer->file = &fetch->files.at(*action.name);
      transfers_[action.transfer] = transfer;
    }
    hooks_.spawn([this, transfer] { begin(transfer); });
  }

  /// Ends a transfer early. Its report comes all the same.
  void stop(core::TransferId id) {
    std::optional<typename D::Transfer> handle;
    {
      const std::scoped_lock lock(mutex_);
      const auto it = transfers_.find(id);
      if (it == transfers_.end()) return;
      it->second->stopped = true;
      handle = it->second->handle;
    }
    if (handle) cancel(*handle);
  }

  /// Each by itself; together where the storage can, since they share their syncs then. Blocks.
  std::vector<Published> publish(std::span<const core::action::Publish> actions) {
    std::vector<Published> out(actions.size());
    std::vector<std::shared_ptr<Fetch>> fetches;
    std::vector<PublishRequest<typename S::Staging>> requests;
    for (const core::action::Publish& action : actions) {
      fetches.push_back(find(action.number));
      requests.push_back({&fetches.back()->staging, {}, errc::policy_failed});
    }
    if constexpr (BatchStorage<S>) {
      const std::error_code thrown = guarded([&] { storage_.publish(std::span(requests)); });
      for (auto& request : requests) {
        if (request.error && thrown) request.error = thrown;
      }
    } else {
      for (auto& request : requests) {
        request.error = guarded([&] {
          std::error_code ec;
          request.generation = storage_.publish(*request.staging, ec);
          return ec;
        });
      }
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (requests[i].error) {
        out[i].outcome = about_chunk(actions[i].id, requests[i].error);
        continue;
      }
      out[i].generation = requests[i].generation;
      staged_.fetch_sub(out[i].generation.bytes, std::memory_order_relaxed);
      forget(actions[i].number);
    }
    return out;
  }

  /// Takes a staging area away. What fails here is left for the store's `clean_up`. Blocks.
  core::Outcome discard(const core::action::Discard& action) {
    const std::shared_ptr<Fetch> fetch = find(action.number);
    for (auto& entry : fetch->files) {
      File& file = entry.second;
      guarded([&] {
        if (file.staged) waste(file.staged->size());
      });
      file.staged.reset();
    }
    const std::error_code error = guarded([&] { return storage_.discard(fetch->staging); });
    forget(action.number);
    return error ? about_chunk(action.id, error) : core::Outcome();
  }

  /// Lets go of all staging areas; the store keeps what is in them.
  void clear() {
    const std::scoped_lock lock(mutex_);
    fetches_.clear();
  }

  /// Bytes that were received for what is being fetched.
  [[nodiscard]] std::uint64_t staged() const noexcept { return staged_.load(std::memory_order_relaxed); }
  [[nodiscard]] const RateMeter& received() const noexcept { return received_; }
  /// Bytes of an earlier run that were gone on with.
  [[nodiscard]] std::uint64_t resumed() const noexcept { return resumed_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t wasted() const noexcept { return wasted_.load(std::memory_order_relaxed); }

 private:
  using StagedFile = typename S::StagedFile;

  struct File {
    std::optional<StagedFile> staged;
    FetchedPart part;              // that is there; its size as it was when the last transfer began
    std::uint64_t checkpoint = 0;  // of the bytes
  };

  struct Fetch {
    explicit Fetch(typename S::Staging area) : staging(std::move(area)) {}
    typename S::Staging staging;
    std::map<std::string, File> files;  // all of them, from the start
  };

  class Transfer final : public FetchSink, public std::enable_shared_from_this<Transfer> {
   public:
    Transfer(Transfers& transfers, core::action::StartFile start)
        : action(std::move(start)), url(redact_url(action.source->urls[action.url])), transfers_(transfers) {}

    std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) override {
      if (action.finds_out) transfers_.hooks_.answered(action.chunk->id, action.transfer);
      return guarded([&]() -> std::error_code {
        if (offset != file->staged->size()) {
          if (offset != 0) return errc::range_mismatch;
          if (const std::error_code error = transfers_.restart(*file)) return error;
        }
        file->part.identity = identity;
        file->part.url = url;
        return transfers_.check_size(*this);
      });
    }

    std::error_code write(std::span<const std::byte> bytes) override {
      latest = transfers_.hooks_.now();
      received += bytes.size();
      transfers_.received_.add(latest, bytes.size());
      const std::error_code error = guarded([&] { return file->staged->write(bytes); });
      // What could not be written does not count as written, however much of it was.
      (error ? transfers_.wasted_ : transfers_.staged_).fetch_add(bytes.size(), std::memory_order_relaxed);
      return error ? error : transfers_.checkpoint(*this, transfers_.checkpoint_bytes_);
    }

    void done(const FetchResult& result) override {
      // Finishing syncs, and the thread that moves bytes is not to wait for that.
      transfers_.hooks_.spawn([self = this->shared_from_this(), result] { self->transfers_.finish(self, result); });
    }

    core::action::StartFile action;
    const std::string url;  // redacted
    Instant started{};
    Instant latest{};  // bytes came
    std::uint64_t received = 0;
    std::shared_ptr<Fetch> fetch;
    File* file = nullptr;                        // in `fetch`
    std::optional<typename D::Transfer> handle;  // guarded by the mutex of `Transfers`
    bool stopped = false;                        // likewise

   private:
    Transfers& transfers_;
  };

  /// On the executor.
  void begin(const std::shared_ptr<Transfer>& transfer) {
    FetchResult failed;
    failed.error = guarded([&] { return open(*transfer); });
    if (!failed.error && is_stopped(*transfer)) failed.error = errc::cancelled;
    if (failed.error || is_whole(*transfer->action.source, transfer->file->part)) return finish(transfer, failed);

    transfer->started = transfer->latest = hooks_.now();
    std::optional<typename D::Transfer> handle;
    failed.error = guarded([&] {
      const core::action::StartFile& action = transfer->action;
      handle = downloader_.start(request_rest(*action.source, transfer->file->part, action.url), transfer);
    });
    if (failed.error) return finish(transfer, failed);
    bool stopped = false;
    {
      const std::scoped_lock lock(mutex_);
      transfer->handle = handle;
      stopped = transfer->stopped;
    }
    // `stop` came before there was a handle to stop.
    if (stopped) cancel(*handle);
  }

  void cancel(const typename D::Transfer& handle) {
    guarded([&] { downloader_.cancel(handle); });
  }

  std::error_code open(Transfer& transfer) {
    File& file = *transfer.file;
    if (!file.staged) {
      std::error_code error;
      StagedFile opened = transfer.fetch->staging.open(*transfer.action.name, error);
      if (error) return error;
      file.staged.emplace(std::move(opened));
      take_over(transfer);
    } else if (const std::error_code error = file.staged->write({})) {
      return error;  // its volume is gone: known before anything is moved in vain
    }
    file.part.size = file.staged->size();
    if (file.part.size == 0) return {};
    return can_resume(*transfer.action.source, file.part, transfer.url) ? check_size(transfer) : restart(file);
  }

  /// What an earlier run had of the file.
  void take_over(const Transfer& transfer) {
    File& file = *transfer.file;
    const std::uint64_t size = file.staged->size();
    if (size == 0) return;
    staged_.fetch_add(size, std::memory_order_relaxed);
    resumed_.fetch_add(size, std::memory_order_relaxed);
    file.checkpoint = size;
    std::optional<FileOrigin> origin = parse_origin(file.staged->origin());
    if (!origin) return;
    file.part.identity = std::move(origin->identity);
    file.part.url = std::move(origin->url);
  }

  /// So that another run can go on from here, where `step` bytes have come since the last time, and enough in all.
  std::error_code checkpoint(const Transfer& transfer, std::uint64_t step) {
    File& file = *transfer.file;
    return guarded([&]() -> std::error_code {
      const std::uint64_t size = file.staged->size();
      if (size < checkpoint_bytes_ || size - file.checkpoint < step) return {};
      file.checkpoint = size;
      return file.staged->checkpoint(to_text({file.part.url, file.part.identity}));
    });
  }

  /// Tells the size of a file whose size was not declared; whether there is room for it.
  std::error_code check_size(const Transfer& transfer) {
    const std::optional<std::uint64_t>& length = transfer.file->part.identity.length;
    if (transfer.action.source->size || !length) return {};
    const bool fits = hooks_.sized(transfer.action.chunk->id, transfer.action.transfer, *length);
    return fits ? std::error_code() : errc::over_budget;
  }

  /// On the executor, after the downloader has let go of the sink.
  void finish(const std::shared_ptr<Transfer>& transfer, const FetchResult& result) {
    File& file = *transfer->file;
    core::Outcome outcome;
    outcome.error = result.error;
    outcome.bytes = transfer->received;
    outcome.took = transfer->latest - transfer->started;
    if (!outcome.error) outcome.error = guarded([&] { return file.staged->finish(); });
    const ErrorClass cls = classify(outcome.error);
    if (cls == ErrorClass::wrong_bytes) {
      if (const std::error_code error = guarded([&] { return restart(file); })) outcome.error = error;
    } else if (file.staged && !file.part.url.empty() && cls != ErrorClass::none && cls != ErrorClass::local) {
      // It may be long until it goes on, or be another run that does.
      checkpoint(*transfer, 1);
    }
    if (outcome.error) {
      const std::string& from = result.detail.empty() ? transfer->url : result.detail;
      outcome.subject = "file '" + *transfer->action.name + "' from " + from;
      outcome.retry_after = result.retry_after;
    }
    {
      const std::scoped_lock lock(mutex_);
      transfers_.erase(transfer->action.transfer);
    }
    hooks_.report(transfer->action.chunk->id, transfer->action.transfer, outcome);
  }

  std::error_code restart(File& file) {
    if (!file.staged) return {};
    waste(file.staged->size());
    file.part = {};
    file.checkpoint = 0;
    return file.staged->restart();
  }

  void waste(std::uint64_t bytes) noexcept {
    wasted_.fetch_add(bytes, std::memory_order_relaxed);
    staged_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  bool is_stopped(const Transfer& transfer) {
    const std::scoped_lock lock(mutex_);
    return transfer.stopped;
  }

  std::shared_ptr<Fetch> find(std::uint64_t number) {
    const std::scoped_lock lock(mutex_);
    return fetches_.at(number);
  }

  void forget(std::uint64_t number) {
    const std::scoped_lock lock(mutex_);
    fetches_.erase(number);
  }

  static core::Outcome about_chunk(const ChunkId& id, std::error_code error) {
    return {error, "chunk " + id.to_hex(), std::nullopt};
  }

  S& storage_;
  D& downloader_;
  const std::uint64_t checkpoint_bytes_;
  Hooks hooks_;
  RateMeter received_;
  std::atomic<std::uint64_t> resumed_{0};
  std::atomic<std::uint64_t> wasted_{0};
  std::atomic<std::uint64_t> staged_{0};
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Fetch>> fetches_;
  std::unordered_map<core::TransferId, std::shared_ptr<Transfer>> transfers_;
};

}  // namespace garner::detail

// garner/manager/validity.hpp -------------------------------------------------------------------------------
// Whether a description can be wanted: what `validate` says of it, and what the downloader says of its URLs.

namespace garner::detail {

/// The first thing that is wrong with `chunk`, or nothing.
template <Downloader D>
std::optional<Invalid> check(const DataChunk& chunk, const ChunkLimits& limits, const D& downloader) {
  if (std::optional<Invalid> invalid = validate(chunk, limits)) return invalid;
  for (const auto& [name, source] : chunk.files) {
    for (const std::string& url : source.urls) {
      const std::error_code error = guarded([&] { return downloader.check_url(url); });
      if (!error) continue;
      return Invalid{error,
                     "chunk " + chunk.id.to_hex() + ", file '" + name + "', URL '" + printable(redact_url(url)) + "'"};
    }
  }
  return std::nullopt;
}

/// `fresh` in the place of a source of `chunk`, where that can be wanted: what is known of the bytes stays as it was.
template <Downloader D>
std::optional<Invalid> replace_source(const DataChunk& chunk, const std::string& name, FileSource& fresh,
                                      const ChunkLimits& limits, const D& downloader) {
  const FileSource& source = chunk.files.at(name);
  fresh.size = source.size;
  fresh.digest = source.digest;
  DataChunk changed{chunk.id, chunk.dataset_id, chunk.block_range, {{name, fresh}}};
  return check(changed, limits, downloader);
}

}  // namespace garner::detail

namespace garner::detail {

/// `Engine` has `spawn(task)`, `input(call)`, `now()`, `listing()`; and, inside of `input`, `table()`. Thread-safety:
/// `perform` one at a time, in the order of the actions; the rest from any thread.
template <class Engine, Storage S, Downloader D>
class Performer {
 public:
  Performer(Engine& engine, S& storage, D& downloader, std::uint64_t checkpoint_bytes)
      : engine_(engine),
        downloader_(downloader),
        store_(storage),
        transfers_(storage, downloader, checkpoint_bytes,
                   {[this](Task task) { engine_.spawn(std::move(task)); }, [this] { return engine_.now(); },
                    [this](const ChunkId& id, core::TransferId transfer, const core::Outcome& outcome) {
                      report(&core::ChunkTable::file_done, id, transfer, outcome);
                    },
                    [this](const ChunkId& id, core::TransferId transfer) {
                      report(&core::ChunkTable::answered, id, transfer);
                    },
                    [this](const ChunkId& id, core::TransferId transfer, std::uint64_t bytes) {
                      bool fits = false;
                      engine_.input([&](core::Instant now) { fits = engine_.table().sized(id, transfer, bytes, now); });
                      return fits;
                    }}) {}

  /// Does not block.
  void perform(core::Action& action) {
    std::visit([this](auto& what) { this->perform(what); }, action);
  }

  /// What is being re-read is read no further, from now on.
  void stop_reading() noexcept { stop_reading_ = true; }
  /// Bytes that were re-read since construction.
  [[nodiscard]] std::uint64_t bytes_verified() const noexcept { return bytes_verified_; }

  [[nodiscard]] Transfers<S, D>& transfers() noexcept { return transfers_; }
  [[nodiscard]] const Transfers<S, D>& transfers() const noexcept { return transfers_; }

  /// As the store last told.
  [[nodiscard]] StoreUsage usage() const {
    const std::scoped_lock lock(usage_mutex_);
    return usage_;
  }

  [[nodiscard]] std::vector<VolumeStatus> volumes() const {
    const std::scoped_lock lock(usage_mutex_);
    return volumes_;
  }

  /// Blocks.
  void refresh_usage() {
    after_usage([](core::Instant) {});
  }

 private:
  /// What the store holds now becomes known, and then, in the same input, `call(now)` is made. Blocks. Of several at
  /// once the one that asked last is believed.
  template <class Call>
  void after_usage(const Call& call) {
    const std::uint64_t turn = ++usage_turns_;
    // Before the store is asked: what comes meanwhile then counts twice rather than not at all.
    const std::uint64_t staged = transfers_.staged();
    const std::optional<StoreUsage> usage = store_.usage();
    std::vector<VolumeStatus> volumes;
    if (usage) volumes = store_.volumes();
    engine_.input([&](core::Instant now) {
      if (usage && turn > last_usage_) {
        last_usage_ = turn;
        if (!volumes.empty()) engine_.table().volumes_told(volumes, now);
        engine_.table().measured(*usage, staged, now);
        const std::scoped_lock lock(usage_mutex_);
        usage_ = *usage;
        volumes_.swap(volumes);
      }
      call(now);
    });
  }

  /// As the store last told: what can be staged again may be healthy.
  [[nodiscard]] bool any_unhealthy() const {
    const std::scoped_lock lock(usage_mutex_);
    return std::any_of(volumes_.begin(), volumes_.end(),
                       [](const VolumeStatus& volume) { return volume.state != VolumeState::healthy; });
  }

  void perform(core::action::Stage& action) {
    engine_.spawn([this, action] {
      const core::Outcome outcome = transfers_.stage(action);
      if (!outcome.ok() || any_unhealthy()) refresh_usage();
      report(&core::ChunkTable::staged, action.chunk->id, outcome);
    });
  }

  void perform(core::action::StartFile& action) { transfers_.start(action); }
  void perform(core::action::Limit& action) {
    if constexpr (LimitedDownloader<D>) {
      guarded([&] { downloader_.set_limits({action.limits.max_files_per_host, action.limits.bytes_per_second}); });
    }
  }
  void perform(core::action::StopFile& action) { transfers_.stop(action.transfer); }

  void perform(core::action::Refresh& action) {
    engine_.spawn([this, action] {
      std::optional<FileSource> source;
      const core::Outcome outcome = ask_for_source(action, source);
      report(&core::ChunkTable::refreshed, action.chunk->id, action.transfer, source, outcome);
    });
  }

  /// Of the caller, whose code it is that runs here: what it throws is its answer.
  core::Outcome ask_for_source(const core::action::Refresh& action, std::optional<FileSource>& source) const {
    std::string why;
    try {
      FileSource fresh = action.ask(*action.chunk, *action.name);
      const std::optional<Invalid> invalid =
          replace_source(*action.chunk, *action.name, fresh, engine_.limits(), engine_.downloader());
      if (!invalid) {
        source = std::move(fresh);
        return {};
      }
      why = invalid->code.message() + ": " + invalid->subject;
    } catch (const std::exception& error) {
      why = printable(redact_url(error.what()));
    } catch (...) {
      why = "an unknown exception";
    }
    core::Outcome failed;
    failed.error = errc::refresh_failed;
    failed.subject = "file '" + *action.name + "': " + why;
    return failed;
  }

  void perform(core::action::Publish& action) {
    {
      const std::scoped_lock lock(publishes_mutex_);
      publishes_.push_back(action);
      if (publishers_ == max_publishers) return;
      ++publishers_;
    }
    engine_.spawn([this] { publish_some(); });
  }

  /// What came while others were being published is published together: alone it is at once, and with a thousand others
  /// for a fraction of a thousand times what it takes.
  void publish_some() {
    std::vector<core::action::Publish> some;
    {
      const std::scoped_lock lock(publishes_mutex_);
      const auto end = publishes_.begin() + static_cast<std::ptrdiff_t>(std::min(publishes_.size(), max_together));
      some.assign(publishes_.begin(), end);
      publishes_.erase(publishes_.begin(), end);
    }
    if (!some.empty()) {
      const auto published = transfers_.publish(some);
      after_usage([&](core::Instant now) {
        for (std::size_t i = 0; i < some.size(); ++i) {
          engine_.table().published(some[i].id, published[i].generation, published[i].outcome, now);
        }
      });
    }
    {
      const std::scoped_lock lock(publishes_mutex_);
      if (publishes_.empty()) {
        --publishers_;
        return;
      }
    }
    engine_.spawn([this] { publish_some(); });
  }

  void perform(core::action::Discard& action) {
    engine_.spawn([this, action] {
      const core::Outcome outcome = transfers_.discard(action);
      after_usage([&](core::Instant now) { engine_.table().discarded(action.id, outcome, now); });
    });
  }

  void perform(core::action::Doom& action) {
    engine_.spawn([this, generation = action.generation] {
      bool is_withdrawn = false;
      engine_.input([&](core::Instant now) { is_withdrawn = engine_.table().withdraw_doom(generation, now); });
      if (is_withdrawn) return;
      const core::Outcome outcome = store_.doom(generation);
      report(&core::ChunkTable::doomed, generation, outcome);
    });
  }

  void perform(core::action::Spare& action) {
    engine_.spawn([this, generation = action.generation] {
      const core::Outcome outcome = store_.spare(generation);
      report(&core::ChunkTable::spared, generation, outcome);
    });
  }

  void perform(core::action::Remove& action) {
    engine_.spawn([this, generation = action.generation] { removed(generation, store_.remove(generation)); });
  }

  void perform(core::action::Quarantine& action) {
    engine_.spawn([this, what = std::move(action)] {
      removed(what.generation, store_.quarantine(what.generation, what.reason));
    });
  }

  void removed(const Generation& generation, const core::Outcome& outcome) {
    after_usage([&](core::Instant now) { engine_.table().removed(generation, outcome, now); });
  }

  void perform(core::action::Describe& action) {
    engine_.spawn([this, generation = action.generation] {
      std::optional<DataChunk> chunk;
      const core::Outcome outcome = store_.describe(generation, chunk);
      report(&core::ChunkTable::described, generation, outcome, chunk);
    });
  }

  void perform(core::action::Verify& action) {
    engine_.spawn([this, generation = action.generation, depth = action.depth] {
      const core::Outcome outcome = store_.verify(generation, depth, [this](std::uint64_t bytes) {
        bytes_verified_ += bytes;
        return !stop_reading_;
      });
      std::optional<DataChunk> chunk;
      if (!outcome.ok()) store_.describe(generation, chunk);
      report(&core::ChunkTable::verified, generation, outcome, chunk);
    });
  }

  void perform(core::action::ListHeld& /*action*/) {
    engine_.spawn([this] {
      std::vector<ChunkId> ids = engine_.listing().sorted_ids();
      engine_.input([&](core::Instant now) { engine_.table().held(ids, now); });
    });
  }

  void perform(core::action::CleanUp& action) {
    engine_.spawn([this, partial = action.partial] {
      const core::Outcome outcome = store_.clean_up(partial);
      after_usage([&](core::Instant now) { engine_.table().cleaned_up(outcome, now); });
    });
  }

  void perform(core::action::FreeIds& action) { std::vector<ChunkId>().swap(action.ids); }
  void perform(core::action::Examine& /*action*/) {
    engine_.spawn([this] {
      const std::vector<VolumeStatus> volumes =
          store_.examine([this](const Generation& generation) { report(&core::ChunkTable::found, generation); });
      after_usage([&](core::Instant now) { engine_.table().examined(volumes, now); });
    });
  }

  // The engine performed these when they were decided.
  void perform(const core::action::List&) {}
  void perform(const core::action::Unlist&) {}
  void perform(const core::action::Condemn&) {}
  void perform(const Event&) {}

  template <class Report, class... Args>
  void report(Report input, const Args&... args) {
    engine_.input([&](core::Instant now) { (engine_.table().*input)(args..., now); });
  }

  static constexpr std::size_t max_publishers = BatchStorage<S> ? 2 : std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_together = BatchStorage<S> ? 64 : 1;

  Engine& engine_;
  D& downloader_;
  StoreCalls<S> store_;
  Transfers<S, D> transfers_;
  std::atomic<bool> stop_reading_{false};
  std::atomic<std::uint64_t> bytes_verified_{0};
  std::atomic<std::uint64_t> usage_turns_{0};
  std::uint64_t last_usage_ = 0;  // of those, the latest that has told; inside of `input`
  std::mutex publishes_mutex_;    // guards the next two
  std::deque<core::action::Publish> publishes_;
  std::size_t publishers_ = 0;  // tasks
  mutable std::mutex usage_mutex_;
  StoreUsage usage_;
  std::vector<VolumeStatus> volumes_;
};

}  // namespace garner::detail

// garner/manager/recovery.hpp -------------------------------------------------------------------------------
// What the store holds at a start, told to the state machine: all of it before anybody knows the manager, or in the
// background while it is in use. Nothing is decided here.

namespace garner::detail {

/// `Engine` has `input(call)`, `now()`, `refresh_usage()`; and, inside of `input`, `table()` and `take_actions()`. Each
/// of both ways once at most.
template <class Engine, Storage S>
class StoreRecovery {
 public:
  StoreRecovery(Engine& engine, S& storage) : engine_(engine), storage_(storage) {}

  /// While nobody knows the engine. Blocks. With an error the engine is of no use.
  Recovery at_once() {
    const auto take = [this](const Generation& generation) {
      engine_.table().recovered(generation);
      engine_.take_actions();
    };
    Recovery recovery =
        read([this](std::vector<VolumeStatus> volumes) { engine_.table().volumes_are(std::move(volumes)); }, take);
    if (recovery.error) return recovery;
    engine_.table().recovery_done(recovery, engine_.now());
    engine_.refresh_usage();
    return recovery;
  }

  /// On the executor. Blocks.
  void in_background() {
    std::vector<Generation> found;
    const auto tell = [&] {
      engine_.input([&](core::Instant) {
        for (const Generation& generation : found) engine_.table().recovered(generation);
      });
      found.clear();
    };
    std::size_t most = 1;  // the first ones at once, and then several at a time
    const auto take = [&](const Generation& generation) {
      found.push_back(generation);
      if (found.size() < most) return;
      tell();
      most = std::min(2 * most, most_at_once);
    };
    Recovery recovery;
    recovery.error = errc::cancelled;
    if (!stopped_) {
      recovery = read(
          [this](std::vector<VolumeStatus> volumes) {
            engine_.input([&](core::Instant) { engine_.table().volumes_are(std::move(volumes)); });
          },
          take);
    }
    tell();
    if (!recovery.error) engine_.refresh_usage();  // before anything is put there
    engine_.input([&](core::Instant now) { engine_.table().recovery_done(recovery, now); });
  }

  /// What runs in the background ends soon, if the store can do that.
  void stop() noexcept {
    stopped_ = true;
    if constexpr (StoppableStorage<S>) guarded([this] { storage_.stop_recovery(); });
  }

 private:
  static constexpr std::size_t most_at_once = 64;  // under the lock

  template <class VolumesAre, class Take>
  Recovery read(const VolumesAre& volumes_are, const Take& take) {
    Recovery recovery;
    const std::error_code thrown = guarded([&] {
      if constexpr (VolumeStorage<S>) {
        if (storage_.volumes().size() > 1) {
          std::vector<Generation> all;  // which volumes are away is known when all have been read
          recovery = storage_.recover([&all](const Generation& generation) { all.push_back(generation); });
          volumes_are(storage_.volumes());
          std::for_each(all.begin(), all.end(), take);
          return;
        }
      }
      recovery = storage_.recover(take);
    });
    if (thrown) recovery.error = thrown;
    return recovery;
  }

  Engine& engine_;
  S& storage_;
  std::atomic<bool> stopped_{false};
};

}  // namespace garner::detail

// garner/manager/tasks.hpp ----------------------------------------------------------------------------------
// Work on an executor that may refuse it. What is refused is kept, in its order, until it is posted again or a
// thread that may block does it; it is never lost, and nobody who wanted it sees an exception.

namespace garner::detail {

/// Shares the lock of its owner, which must not end before `empty()`; `changed` is notified under it at each change.
/// Thread-safety: as said for each part.
template <Executor E>
class Tasks {
 public:
  /// A task that has not ended.
  using Handle = std::list<Task>::iterator;

  Tasks(E& executor, std::mutex& mutex, std::condition_variable& changed)
      : executor_(executor), mutex_(mutex), changed_(changed) {}

  // ---- under the lock

  /// Takes on `work`, which is then to be posted.
  Handle keep(Task work) {
    tasks_.push_back(std::move(work));
    return std::prev(tasks_.end());
  }

  /// The first task that was refused, to be posted again.
  std::optional<Handle> take_refused() {
    if (refused_.empty()) return std::nullopt;
    const auto task = refused_.begin();
    tasks_.splice(tasks_.end(), refused_, task);
    return task;
  }

  [[nodiscard]] bool has_refused() const noexcept { return !refused_.empty(); }
  [[nodiscard]] bool empty() const noexcept { return tasks_.empty() && refused_.empty(); }

  // ---- without it, from any thread

  void post(Handle task) {
    if (!guarded([&] { executor_.post([this, task] { run(task); }); })) return;
    const std::scoped_lock lock(mutex_);
    refused_.splice(refused_.end(), tasks_, task);
    changed_.notify_all();
  }

  // ---- without it, from a thread that may block

  /// Does what was refused, and what that leads to.
  void do_refused() {
    std::optional<Handle> task;
    {
      const std::scoped_lock lock(mutex_);
      task = take_refused();
    }
    if (task) run(*task);
  }

 private:
  /// Whoever runs one task does those that were refused as well: so one that was taken is enough for all.
  void run(Handle task) {
    while (true) {
      {
        // What the work holds may refer to the owner, so it goes before the task counts as done.
        const Task work = std::move(*task);
        work();
      }
      // Under the lock to the end: after it, the owner and this object may end.
      const std::scoped_lock lock(mutex_);
      tasks_.erase(task);
      if (tasks_.empty()) changed_.notify_all();
      const std::optional<Handle> refused = take_refused();
      if (!refused) return;
      task = *refused;
    }
  }

  E& executor_;
  std::mutex& mutex_;
  std::condition_variable& changed_;
  std::list<Task> tasks_;    // posted or running; of one that runs the work is gone
  std::list<Task> refused_;  // by the executor
};

}  // namespace garner::detail

namespace garner::detail {

template <Storage S, Downloader D, Executor E>
class Engine final : public DrainListener {
 public:
  Engine(S storage, D downloader, E executor, const Options& options)
      : max_files_(options.max_files),
        max_chunk_bytes_(options.max_chunk_bytes),
        executor_(std::move(executor)),
        host_(std::make_shared<PinHost<S>>(std::move(storage), this)),
        downloader_(std::move(downloader)),
        table_(options, options.seed != 0 ? options.seed : random_seed()),
        listing_(host_),
        performer_(*this, host_->storage, downloader_, options.checkpoint_bytes),
        recovery_(*this, host_->storage),
        alarm_(executor_) {
    start(options.startup);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() override {
    close();
    host_->detach();
  }

  /// Gives the state machine an input, and sees to what comes of it. From any thread; waits for nothing but
  /// the lock. `call(now)` runs under the lock.
  template <class Call>
  void input(Call&& call) {
    const Instant now = executor_.now();
    std::vector<std::shared_ptr<const void>> spent;
    std::vector<typename Listing<S>::Garbage> garbage;
    std::optional<Handle> due;
    {
      const std::scoped_lock lock(mutex_);
      call(now);
      spent.swap(table_.spent());
      take_actions();
      listing_.publish(garbage);
      if (!garbage.empty()) ++releasing_;
      due = note_progress();
    }
    if (due) tasks_.post(*due);
    if (garbage.empty()) return;
    // A pin that the index held may be the last on its generation: then this reports that it is drained.
    garbage.clear();
    {
      const std::scoped_lock lock(mutex_);
      --releasing_;
      due = note_progress();
    }
    if (due) tasks_.post(*due);
  }

  /// Runs `work()` on the executor; later, where that refuses it now. `close` waits for it.
  void spawn(Task work) {
    Handle task;
    {
      const std::scoped_lock lock(mutex_);
      task = tasks_.keep(std::move(work));
    }
    tasks_.post(task);
  }

  bool wait_converged(std::chrono::nanoseconds timeout) {
    bool converged = false;
    const auto done = [this, &converged] {
      converged = converged_;
      return converged_ || table_.closed() || table_.recovery_failed();
    };
    // Posts what was refused; and stands in for an alarm that was.
    wait(timeout, done, [this] { input([this](Instant now) { table_.woken(now); }); });
    return converged;
  }

  void close() {
    input([this](Instant now) { table_.close(now); });
    performer_.stop_reading();
    recovery_.stop();
    // An observer cannot wait for the task that it is called by, which may have the executor's only thread.
    if (observers_.is_observing()) return;
    const auto done = [this] { return closed_event_ && tasks_.empty() && alarms_ == 0; };
    // An executor that has been shut down before its manager may never take a task again.
    wait(std::chrono::nanoseconds::max(), done, [this] { tasks_.do_refused(); });
    performer_.transfers().clear();
  }

  [[nodiscard]] Status status() const {
    Status status;
    const Instant now = executor_.now();
    const Transfers<S, D>& transfers = performer_.transfers();
    status.bytes_received = transfers.received().total();
    status.bytes_per_second = transfers.received().per_second(now);
    status.bytes_resumed = transfers.resumed();
    status.bytes_wasted = transfers.wasted();
    const StoreUsage usage = performer_.usage();
    std::tie(status.store_bytes_used, status.store_bytes_free) = std::pair(usage.bytes_used, usage.bytes_free);
    status.bytes_verified = performer_.bytes_verified();
    status.volumes = performer_.volumes();
    const std::scoped_lock lock(mutex_);
    table_.fill(status);
    status.converged = converged_;
    status.converged_epoch = converged_epoch_;
    return status;
  }

  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id) const {
    const Instant now = executor_.now();
    const std::scoped_lock lock(mutex_);
    return table_.chunk_status(id, now);
  }

  void set_options(const Options& options) {
    // What the old ones hold may call back when it is destroyed: not under the lock.
    Options old = options;
    input([&](Instant now) {
      max_files_ = options.max_files;
      max_chunk_bytes_ = options.max_chunk_bytes;
      table_.set_options(old, now);
    });
  }

  /// What descriptions are held to.
  [[nodiscard]] ChunkLimits limits() const noexcept { return {max_files_, max_chunk_bytes_}; }

  // Inside of `input`:
  [[nodiscard]] core::ChunkTable& table() noexcept { return table_; }
  /// Serves, unserves and takes down events at once, and queues everything else.
  void take_actions() {
    for (core::Action& action : table_.actions()) {
      if (auto* list = std::get_if<core::action::List>(&action)) {
        table_.served(listing_.list(list->generation, list->asked));
      } else if (auto* unlist = std::get_if<core::action::Unlist>(&action)) {
        listing_.unlist(unlist->generation, unlist->asked);
      } else if (auto* condemn = std::get_if<core::action::Condemn>(&action)) {
        listing_.condemn(condemn->generation);
      } else if (auto* event = std::get_if<Event>(&action)) {
        tell(*event);
      } else {
        actions_.push_back(std::move(action));
      }
    }
    core::clear(table_.actions());
  }

  void refresh_usage() { performer_.refresh_usage(); }
  [[nodiscard]] const Listing<S>& listing() const noexcept { return listing_; }
  [[nodiscard]] const D& downloader() const noexcept { return downloader_; }
  [[nodiscard]] Instant now() const { return executor_.now(); }
  [[nodiscard]] Observers& observers() noexcept { return observers_; }

 private:
  using Handle = typename Tasks<E>::Handle;

  static constexpr std::chrono::milliseconds soon{1};

  static std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
  }

  void start(Startup startup) {
    if (startup == Startup::background) {
      table_.begin_recovery();
      return spawn([this] { recovery_.in_background(); });
    }
    const Recovery recovery = recovery_.at_once();
    if (!recovery.error) return;
    host_->detach();
    throw Error(recovery.error, recovery.subject);
  }

  // ---- under the lock

  void tell(EventKind kind) {
    Event event;
    event.kind = kind;
    event.epoch = kind == EventKind::converged ? converged_epoch_ : 0;
    tell(event);
  }

  /// The observers keep it, and the pump posts the task that tells them. `closed` is the last.
  void tell(const Event& event) {
    if (!closed_event_ && observers_.push(event)) untold_ = true;
  }

  /// What follows from a change. Returns what is then to be posted.
  std::optional<Handle> note_progress() {
    const bool converged = table_.settled() && !listing_.pending() && releasing_ == 0;
    if (converged && (!converged_ || converged_epoch_ != table_.epoch())) {
      converged_epoch_ = table_.epoch();
      tell(EventKind::converged);
    }
    converged_ = converged;
    const bool ended = table_.closed() && table_.idle() && releasing_ == 0;
    if (ended && !closed_event_) {
      tell(EventKind::closed);
      closed_event_ = true;
    }
    // Whoever waits is not woken by what cannot be what is waited for: it would take the lock, each time.
    if (converged_ || table_.closed() || table_.recovery_failed() || is_refused()) changed_.notify_all();
    const bool todo = !actions_.empty() || untold_ || is_alarm_wrong(wake_at());
    if (!todo || pumping_) return tasks_.take_refused();
    pumping_ = true;
    return tasks_.keep([this] { pump(); });
  }

  /// Whether something is to be done that the executor has not taken.
  [[nodiscard]] bool is_refused() const { return tasks_.has_refused() || (!pumping_ && is_alarm_wrong(wake_at())); }

  /// An alarm that comes early does no harm; one that comes late, or after `close`, does.
  [[nodiscard]] bool is_alarm_wrong(const std::optional<Instant>& wake) const {
    return wake ? !armed_at_ || *wake < *armed_at_ : armed_at_ && table_.closed();
  }

  [[nodiscard]] std::optional<Instant> wake_at() const {
    if (table_.closed()) return std::nullopt;
    std::optional<Instant> wake = table_.next_wake();
    // A reader is inside the index: what was replaced can be freed once it has left, which is soon.
    if (listing_.pending()) {
      const Instant then = executor_.now() + soon;
      if (!wake || then < *wake) wake = then;
    }
    return wake;
  }

  // ---- outside of the lock

  /// The time that `wait` waits by: the executor's own where it is driven, the machine's where it has threads.
  [[nodiscard]] Instant clock() const {
    if constexpr (DrivenExecutor<E>) {
      return executor_.now();
    } else {
      return std::chrono::steady_clock::now().time_since_epoch();
    }
  }

  /// Waits, while driving the executor where it has no threads of its own. `done()` runs under the lock; `help()`
  /// does not, and is called now and then while something is refused.
  template <class Done, class Help>
  bool wait(std::chrono::nanoseconds timeout, const Done& done, const Help& help) {
    constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);
    const Instant until = clock() + std::min(timeout, for_ever);
    while (true) {
      Instant wake = until;
      {
        std::unique_lock lock(mutex_);
        if (done()) return true;
        if (is_refused()) wake = std::min(until, clock() + soon);
        if constexpr (!DrivenExecutor<E>) {
          const auto at = std::chrono::steady_clock::time_point(wake);
          if (changed_.wait_until(lock, at) == std::cv_status::no_timeout) continue;
        }
      }
      if constexpr (DrivenExecutor<E>) {
        if (executor_.run_one_until(wake)) continue;
      }
      if (wake == until) {
        const std::scoped_lock lock(mutex_);
        return done();
      }
      help();
    }
  }

  /// Performs what is queued, in its order. One at a time.
  void pump() {
    std::vector<core::Action> actions;
    bool refused = false;  // the alarm: a second try is the next input's
    while (true) {
      std::optional<Instant> wake;
      bool rearm = false;
      bool deliver = false;
      core::clear(actions);
      {
        const std::scoped_lock lock(mutex_);
        actions.swap(actions_);
        wake = wake_at();
        rearm = !refused && is_alarm_wrong(wake);
        deliver = std::exchange(untold_, false);
        if (actions.empty() && !rearm && !deliver) {
          pumping_ = false;
          if (is_refused()) changed_.notify_all();
          return;
        }
      }
      for (core::Action& action : actions) performer_.perform(action);
      if (deliver) spawn([this] { observers_.deliver(); });
      if (rearm) refused = !arm(wake);
    }
  }

  /// By the pump only. False where the executor refuses.
  bool arm(std::optional<Instant> wake) {
    if (alarm_.put_away()) alarm_done();
    {
      const std::scoped_lock lock(mutex_);
      armed_at_ = wake;
      if (wake) ++alarms_;
    }
    if (!wake) return true;
    const auto ring = [this, at = *wake] {
      input([&](Instant now) {
        if (armed_at_ == at) armed_at_.reset();
        table_.woken(now);
      });
      tasks_.do_refused();
      alarm_done();
    };
    if (!guarded([&] { alarm_.set(*wake, ring); })) return true;
    {
      const std::scoped_lock lock(mutex_);
      armed_at_.reset();
    }
    alarm_done();
    return false;
  }

  void alarm_done() {
    const std::scoped_lock lock(mutex_);
    --alarms_;
    changed_.notify_all();
  }

  void drained(const Generation& generation, const void* pinned) noexcept override {
    input([&](Instant now) {
      if (listing_.forget(generation, pinned)) table_.drained(generation, now);
    });
  }

  std::atomic<std::size_t> max_files_;  // these two: written under the lock
  std::atomic<std::uint64_t> max_chunk_bytes_;
  E executor_;
  std::shared_ptr<PinHost<S>> host_;
  D downloader_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  core::ChunkTable table_;
  Listing<S> listing_;
  Performer<Engine, S, D> performer_;
  StoreRecovery<Engine, S> recovery_;
  Observers observers_;
  Tasks<E> tasks_{executor_, mutex_, changed_};
  std::vector<core::Action> actions_;  // to be performed
  bool pumping_ = false;               // a pump is posted or running
  bool untold_ = false;                // observers have events and no task that tells them
  std::size_t alarms_ = 0;             // armed or ringing
  std::size_t releasing_ = 0;          // garbage that is being destroyed
  bool converged_ = false;
  bool closed_event_ = false;
  Epoch converged_epoch_ = 0;
  std::optional<Instant> armed_at_;
  Alarm<E> alarm_;  // the pump's own
};

}  // namespace garner::detail

// garner/data_manager.hpp -----------------------------------------------------------------------------------
// DataManager: the face of the library. It validates what it is told, hands it to the engine, and answers
// lookups from the index; what decides is in `core/`, what does is in `manager/` and the policies.

namespace garner {

/// Where a class given as a policy is not one: says in one sentence each what it misses.
template <class S, class D, class E>
class DataManager {
  static_assert(diagnose_storage<S>() && diagnose_downloader<D>() && diagnose_executor<E>());
};

/// Makes a local store converge to the chunks that were asked for, and hands out pins on those that are
/// there.
///
/// `download_chunk`, `delete_chunk` and `set_assignment` set a desired state, in which the last call about an
/// id wins; the store converges to it in the background. `find_chunk`, `find_chunks` and `list_chunks` tell
/// what is served: whole, verified, durable chunks. Their effects are linearizable: after `delete_chunk`
/// returned, no thread finds the chunk.
///
/// *Thread-safety*: every member may be called from any thread at any time. None blocks on I/O; only
/// `wait_converged` and `close` wait. Lookups take no lock that a writer takes.
///
/// *Object lifetimes*: owns its policies. The destructor closes. Pins (`ChunkRef`) may outlive the manager,
/// and keep the store. The manager must not be destroyed by one of its own observers, nor, with a borrowed
/// executor, by a task of it.
///
/// *Exception safety*: a call that throws has changed nothing. `std::bad_alloc` inside a background task ends
/// the program.
template <Storage S, Downloader D, Executor E>
class DataManager<S, D, E> {
 public:
  using ChunkRef = DataChunkRef<S>;

  /// Opens the store at `data_dir`, with the other policies made from `options`. Reads the names of what is there (or
  /// leaves that to the background, `Options::startup`), and nothing else; what more is to be checked before it is
  /// served (`Options::startup_check`) is checked in the background. Throws `Error` that names the path:
  /// `errc::directory_in_use`, `errc::unknown_format`, …
  explicit DataManager(std::filesystem::path data_dir, Options options = {}) requires
      std::constructible_from<S, std::filesystem::path, const Options&> && std::constructible_from<D, const Options&> &&
      std::default_initializable<E> : DataManager(S(std::move(data_dir), options), D(options), E(), options) {}

  /// With policies of one's own. Throws `Error` where the storage's `recover` fails, unless that is called in the
  /// background.
  DataManager(S storage, D downloader, E executor, Options options = {})
      : engine_(std::move(storage), std::move(downloader), std::move(executor), options) {}

  /// Wants `chunk`. Throws `Error` where the description is invalid (nothing has changed then) or after
  /// `close`.
  void download_chunk(DataChunk chunk) {
    if (const std::optional<Invalid> invalid = want(std::move(chunk))) throw Error(invalid->code, invalid->subject);
  }

  /// As above, with the error in `error`, which is cleared on success.
  void download_chunk(DataChunk chunk, std::error_code& error) {
    const std::optional<Invalid> invalid = want(std::move(chunk));
    error = invalid ? invalid->code : std::error_code();
  }

  /// Does not want the chunk any more. It is not found from now on, and removed once the last pin on it is
  /// dropped. Nothing happens where it is unknown, or after `close`.
  void delete_chunk(const ChunkId& id) noexcept {
    engine_.input([&](core::Instant now) { engine_.table().remove(id, now); });
  }

  /// The chunks that `find_chunk` can return now, by dataset and range.
  [[nodiscard]] std::vector<ChunkId> list_chunks() const { return engine_.listing().ids(); }

  /// A pin on the chunk that has `block`. Where ranges overlap: the one of the greatest begin; among equals,
  /// the one asked for last.
  [[nodiscard]] std::optional<ChunkRef> find_chunk(const DatasetId& dataset, BlockNumber block) const {
    return engine_.listing().find(dataset, block);
  }

  /// Pins on all chunks that meet `range`, by begin.
  [[nodiscard]] std::vector<ChunkRef> find_chunks(const DatasetId& dataset, BlockRange range) const {
    return engine_.listing().find_all(dataset, range);
  }

  /// Wants these chunks and no others, in one step: no reader sees a part of it. Throws as `download_chunk`
  /// does, at the first description that is invalid, and has changed nothing then. Returns the assignment's
  /// number, which `Status::converged_epoch` reaches.
  Epoch set_assignment(std::span<const DataChunk> chunks) {
    const ChunkLimits limits = engine_.limits();
    std::vector<core::Wish> wishes;
    wishes.reserve(chunks.size());
    for (const DataChunk& chunk : chunks) {
      if (const std::optional<Invalid> invalid = check(chunk, limits)) throw Error(invalid->code, invalid->subject);
      wishes.emplace_back(chunk);
    }
    std::optional<Epoch> epoch;
    engine_.input([&](core::Instant now) {
      if (!engine_.table().closed()) epoch = engine_.table().assign(wishes, now);
    });
    if (!epoch) throw Error(errc::closed, "set_assignment");
    return *epoch;
  }

  /// Waits until nothing wanted is missing, and nothing unwanted is left unpinned; false where that takes
  /// longer than `timeout`, or the manager was closed before, or the store could not be read
  /// (`Status::recovery_error`). With an executor that has no threads of its own, runs its tasks; then one thread at a
  /// time should: what another one has run is not seen before there is a task, or the timeout.
  bool wait_converged(std::chrono::nanoseconds timeout) { return engine_.wait_converged(timeout); }

  /// Counts, bytes and rates; the cost does not depend on how many chunks there are.
  [[nodiscard]] Status status() const { return engine_.status(); }

  /// Nothing where the chunk is neither wanted nor held.
  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id) const { return engine_.chunk_status(id); }

  /// Calls `observer` for each event from now on, one at a time and in order, on the executor. It may throw,
  /// be slow and call the manager back (but not destroy it); what it throws is dropped, and where it is
  /// slower than what happens, events are dropped and it is told so.
  [[nodiscard]] Subscription subscribe(std::function<void(const Event&)> observer) {
    return engine_.observers().subscribe(std::move(observer));
  }

  /// Changes the limits while it runs. Options that are fixed at construction are ignored.
  void set_options(Options options) { engine_.set_options(options); }

  /// Asks for everything that is held to be re-read and compared with what was published, and for every disk of a store
  /// of several to be looked at, in the background and as fast as it goes; a pass that is running begins anew. What is
  /// corrupt is not served any more, is told as a `chunk_failed` event, and is fetched anew; `Status::scrub` tells how
  /// far it is. While a start in the background goes on: of what it has found by now, and once it has ended.
  void verify() {
    std::vector<ChunkId> all = engine_.listing().sorted_ids();
    engine_.input([&](core::Instant now) { engine_.table().verify(all, now); });
  }

  /// Stops all transfers, keeps what they have for the next start, and waits for what is under way in the
  /// store; never for a pin. Called by an observer, it waits for nothing. Lookups go on until the manager is
  /// destroyed; other calls fail with `errc::closed` or do nothing.
  void close() { engine_.close(); }

 private:
  std::optional<Invalid> check(const DataChunk& chunk, const ChunkLimits& limits) const {
    return detail::check(chunk, limits, engine_.downloader());
  }

  std::optional<Invalid> want(DataChunk chunk) {
    if (std::optional<Invalid> invalid = check(chunk, engine_.limits())) return invalid;
    const core::Wish wish(std::move(chunk));
    bool closed = false;
    engine_.input([&](core::Instant now) {
      closed = engine_.table().closed();
      engine_.table().download(wish, now);
    });
    if (closed) return Invalid{errc::closed, "chunk " + wish.chunk->id.to_hex()};
    return std::nullopt;
  }

  detail::Engine<S, D, E> engine_;
};

template <Storage S, Downloader D, Executor E>
DataManager(S, D, E) -> DataManager<S, D, E>;
template <Storage S, Downloader D, Executor E>
DataManager(S, D, E, Options) -> DataManager<S, D, E>;

}  // namespace garner

// The policies.

// garner/storage/filesystem_storage.hpp ---------------------------------------------------------------------
// FilesystemStorage, the default Storage: a directory of a real file system, or several of them. What it does there is
// in store_protocol.hpp, how it chooses in store_volumes.hpp; here is how it comes to the directories.

// garner/storage/posix_file_system.hpp ----------------------------------------------------------------------
// A directory of a Linux file system as a `FileSystem`: everything is opened relative to the root's descriptor, one
// component at a time and without following links, so that nothing in the directory can name a path outside it.

// garner/storage/file_system.hpp ----------------------------------------------------------------------------
// What the store asks of a file system: a requirement table and its concept. `PosixFileSystem` is the real one; one
// that loses, tears and refuses writes runs the very same store in the simulation.

namespace garner {

/// What stands behind a name. Links, FIFOs, devices and sockets are `other`.
enum class EntryKind : std::uint8_t { file, directory, other };

struct FileStatus {
  std::uint64_t size = 0;   ///< bytes
  std::uint64_t links = 1;  ///< names that the file has
};

enum class Access : std::uint8_t { read, write };

/// Takes one entry of a directory; the name is only lent.
using EntryVisitor = std::function<void(std::string_view, EntryKind)>;

/// One of several things that are to be made durable, and what became of it.
template <class File, class Directory>
struct SyncRequest {
  File* file = nullptr;                  ///< lent
  const Directory* directory = nullptr;  ///< lent, where there is no file
  std::error_code error = {};
};

/// FileSystem
/// ==========
/// `Directory` and `File` are open handles: default-constructed they hold nothing, destroyed they close. A name is
/// one plain component (no `/`, not `.` or `..`), is looked up in its directory alone, and no link is followed.
/// `Mutex` is what is locked across operations: `std::mutex`, or one that a simulated file system knows of.
/// `concurrent` says whether other threads may be waited for and made use of; false where one thread does everything.
///
/// | expression                      | result             | must promise                                         |
/// |---------------------------------|--------------------|------------------------------------------------------|
/// | `fs.path()`                     | `path`             | absolute, of the root; for naming, not opened again  |
/// | `fs.root()`                     | `const Directory&` | the root                                             |
/// | `fs.open_directory(dir, n, ec)` | `Directory`        | `errc::not_a_directory` where anything else stands   |
/// | `fs.make_directory(dir, n)`     | `std::error_code`  | `std::errc::file_exists` where anything stands there |
/// | `fs.list(dir, visitor)`         | `std::error_code`  | visits each entry but `.` and `..` once; opens none  |
/// | `fs.create_file(dir, n, ec)`    | `File`             | a new, empty file, for reading and writing;          |
/// |                                 |                    | `std::errc::file_exists` where anything stands there |
/// | `fs.open_file(dir, n, acc, ec)` | `File`             | a regular file that is there; never waits on a FIFO  |
/// | `fs.status(file, ec)`           | `FileStatus`       |                                                      |
/// | `fs.status(dir, n, ec)`         | `FileStatus`       | of a regular file that is there; does not open it    |
/// | `fs.read(file, at, to, ec)`     | `std::size_t`      | fewer bytes than `to` has only at the file's end     |
/// | `fs.write(file, at, bytes)`     | `std::error_code`  | all of them; with an error, any part of them         |
/// | `fs.reserve(file, size)`        | `std::error_code`  | room for `size` bytes, and the file's size stays.    |
/// |                                 |                    | An error only where there is no room                 |
/// | `fs.truncate(file, size)`       | `std::error_code`  |                                                      |
/// | `fs.sync_file(file)`            | `std::error_code`  | bytes and size are durable, or `errc::sync_failed`:  |
/// |                                 |                    | they may be lost, and a second sync proves nothing   |
/// | `fs.sync_directory(dir)`        | `std::error_code`  | its entries are durable, or `errc::sync_failed`      |
/// | `fs.close(file)`                | `std::error_code`  | the handle is gone, error or not                     |
/// | `fs.rename(dir, n, dir2, n2)`   | `std::error_code`  | atomic; `std::errc::file_exists` where anything is   |
/// | `fs.remove_file(dir, n)`        | `std::error_code`  | whatever is not a directory                          |
/// | `fs.remove_directory(dir, n)`   | `std::error_code`  | an empty one                                         |
/// | `fs.lock(file)`                 | `std::error_code`  | this handle alone has the lock until it is closed,   |
/// |                                 |                    | if by the process's end; or `errc::directory_in_use` |
/// | `fs.free_space(ec)`             | `std::uint64_t`    | bytes that may still be written                      |
/// | `fs.boot_id()`                  | `std::string`      | another one after each start of the machine; empty   |
/// |                                 |                    | where that is not known                              |
/// | where it can (`SyncsTogether`): |                 |                                                      |
/// | `fs.sync_together(requests)`    |                 | each as `sync_file` or `sync_directory`, for less;   |
/// |                                 |                 | of a `std::span<SyncRequest<File, Directory>>`       |
/// Errors: garner's `errc` where it has a word for it, else the generic category. A missing entry is
/// `std::errc::no_such_file_or_directory`.
/// Thread-safety: all members at the same time; a `File` is used by one thread at a time, a `Directory` by many.
/// Throws: `std::bad_alloc`, and what a visitor throws.
template <class F>
concept FileSystem = std::move_constructible<F> && std::movable<typename F::Directory> &&
    std::movable<typename F::File> && std::default_initializable<typename F::Directory> &&
    std::default_initializable<typename F::File> && std::default_initializable<typename F::Mutex> &&
    requires(F& fs, typename F::Mutex& mutex, const typename F::Directory& dir, typename F::File& file,
             const std::string& name, const EntryVisitor& visitor, std::uint64_t at, std::span<std::byte> to,
             std::span<const std::byte> bytes, std::error_code& ec) {
  requires std::same_as<decltype(F::concurrent), const bool>;
  mutex.lock();
  mutex.unlock();
  { fs.path() } -> std::convertible_to<std::filesystem::path>;
  { fs.root() } -> std::same_as<const typename F::Directory&>;
  { fs.open_directory(dir, name, ec) } -> std::same_as<typename F::Directory>;
  { fs.make_directory(dir, name) } -> std::same_as<std::error_code>;
  { fs.list(dir, visitor) } -> std::same_as<std::error_code>;
  { fs.create_file(dir, name, ec) } -> std::same_as<typename F::File>;
  { fs.open_file(dir, name, Access::read, ec) } -> std::same_as<typename F::File>;
  { fs.status(file, ec) } -> std::same_as<FileStatus>;
  { fs.status(dir, name, ec) } -> std::same_as<FileStatus>;
  { fs.read(file, at, to, ec) } -> std::same_as<std::size_t>;
  { fs.write(file, at, bytes) } -> std::same_as<std::error_code>;
  { fs.reserve(file, at) } -> std::same_as<std::error_code>;
  { fs.truncate(file, at) } -> std::same_as<std::error_code>;
  { fs.sync_file(file) } -> std::same_as<std::error_code>;
  { fs.sync_directory(dir) } -> std::same_as<std::error_code>;
  { fs.close(file) } -> std::same_as<std::error_code>;
  { fs.rename(dir, name, dir, name) } -> std::same_as<std::error_code>;
  { fs.remove_file(dir, name) } -> std::same_as<std::error_code>;
  { fs.remove_directory(dir, name) } -> std::same_as<std::error_code>;
  { fs.lock(file) } -> std::same_as<std::error_code>;
  { fs.free_space(ec) } -> std::same_as<std::uint64_t>;
  { fs.boot_id() } -> std::same_as<std::string>;
};

template <class F>
concept SyncsTogether = FileSystem<F> &&
    requires(F& fs, std::span<SyncRequest<typename F::File, typename F::Directory>> requests) {
  fs.sync_together(requests);
};

}  // namespace garner

// garner/storage/posix_sync.hpp -----------------------------------------------------------------------------
// How a real file system is made to write down many small things at once. Each fsync by itself costs a commit of the
// journal and a flush of the device; one syncfs does both for all that there is, and fsyncs that run at the same time
// share them.

// garner/storage/sync_threads.hpp ---------------------------------------------------------------------------
// Threads that wait for the disk. A sync by itself costs a flush of the device, and syncs that run at the same time
// share it: so what several syncs are needed for is given to several threads. What is synced, and in which order, is
// the store's matter.

namespace garner::detail {

/// Threads are made when there is first something for them to do, at most as many as were asked for, and sleep in
/// between.
///
/// Thread-safety: `run` from any number of threads. Lifetime: destroyed when no `run` is under way.
class SyncThreads {
 public:
  explicit SyncThreads(std::size_t most) : most_(most) {}
  SyncThreads(const SyncThreads&) = delete;
  SyncThreads& operator=(const SyncThreads&) = delete;
  ~SyncThreads() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      work_came_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  /// Calls `work(i)` once for each `i` below `count`, in any order, some by this thread; returns when all have ended.
  /// Throws what the first of them threw. Where no thread can be made this one does everything.
  void run(std::size_t count, const std::function<void(std::size_t)>& work) {
    if (count == 0) return;
    Batch batch{count, work};
    std::unique_lock lock(mutex_);
    batches_.push_back(&batch);
    add_threads(count - 1);
    for (std::size_t i = 1; i < std::min(count, most_ + 1); ++i) work_came_.notify_one();
    while (batch.next < batch.count) do_next(batch, lock);
    batch.all_ended.wait(lock, [&] { return batch.ended == batch.count; });
    if (batch.thrown) std::rethrow_exception(batch.thrown);
  }

 private:
  struct Batch {
    const std::size_t count;
    const std::function<void(std::size_t)>& work;
    std::size_t next = 0;
    std::size_t ended = 0;
    std::exception_ptr thrown = nullptr;
    std::condition_variable all_ended{};
  };

  /// So that `more` are idle, if that many may be.
  void add_threads(std::size_t more) {
    try {
      while (idle_ < more && threads_.size() < most_) {
        threads_.reserve(threads_.size() + 1);
        threads_.emplace_back([this] { serve(); });
        ++idle_;  // from now on; it cannot look before the lock is let go
      }
    } catch (const std::exception&) {
      return;  // those that there are do it
    }
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_came_.wait(lock, [this] { return ended_ || !batches_.empty(); });
      if (ended_) return;
      --idle_;
      while (!batches_.empty()) do_next(*batches_.front(), lock);
      ++idle_;
    }
  }

  /// One of its pieces, of which there is one.
  void do_next(Batch& batch, std::unique_lock<std::mutex>& lock) {
    const std::size_t i = batch.next++;
    if (batch.next == batch.count) std::erase(batches_, &batch);
    lock.unlock();
    std::exception_ptr thrown;
    try {
      batch.work(i);
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    if (thrown && !batch.thrown) batch.thrown = thrown;
    if (++batch.ended == batch.count) batch.all_ended.notify_one();
  }

  const std::size_t most_;
  std::mutex mutex_;  ///< guards the rest
  std::condition_variable work_came_;
  std::deque<Batch*> batches_;  ///< with pieces that nobody has begun
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool ended_ = false;
};

}  // namespace garner::detail

namespace garner::detail {

/// Bytes, of the whole machine, that the kernel has not written yet; the most there can be where it does not say.
inline std::uint64_t bytes_unwritten() noexcept {
  std::array<char, 4096> text{};
  const int fd = ::open("/proc/meminfo", O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return UINT64_MAX;
  const ssize_t size = ::read(fd, text.data(), text.size());
  ::close(fd);
  const std::string_view all(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  std::uint64_t sum = 0;
  for (const std::string_view name : {"\nDirty:", "\nWriteback:"}) {
    const std::size_t begin = all.find(name);
    const std::size_t number =
        begin == std::string_view::npos ? begin : all.find_first_not_of(' ', begin + name.size());
    std::uint64_t kilobytes = 0;
    if (number == std::string_view::npos ||
        std::from_chars(all.data() + number, all.data() + all.size(), kilobytes).ec != std::errc()) {
      return UINT64_MAX;
    }
    sum += kilobytes << 10;
  }
  return sum;
}

/// Thread-safe; one descriptor in one thread at a time.
class PosixSync {
 public:
  /// A syncfs writes down what strangers have written, too: only where that cannot be more than this.
  static constexpr std::uint64_t little_unwritten = std::uint64_t{256} << 20;

  explicit PosixSync(std::size_t max_threads, std::uint64_t max_unwritten = little_unwritten)
      : max_unwritten_(max_unwritten), threads_(max_threads) {}

  struct Item {
    int fd = -1;
    bool is_file = true;
    bool is_durable = false;  ///< afterwards
  };

  /// Makes each of `items`, files that were written through their descriptors and directories on the file system of
  /// `root`, durable, and tells of which that is certain. None of them is to be synced again.
  void run(int root, std::span<Item> items) {
    if (items.size() >= few && bytes_unwritten() <= max_unwritten_ && sync_all(root, items)) return;
    threads_.run(items.size(), [&](std::size_t i) { items[i].is_durable = ::fsync(items[i].fd) == 0; });
  }

 private:
  /// Fewer are synced one by one.
  static constexpr std::size_t few = 12;

  /// False where it failed, for whomever: then it is known of none, and an fsync of each tells, since a descriptor is
  /// told of each failure that came after it was opened, whoever else was told before. A syncfs by itself is no such
  /// proof: what it tells, it tells once, and perhaps to another. So afterwards each file is asked for its own bytes,
  /// which costs no flush when they are written (sync_file_range(2)). What it does not tell of, a lost directory or
  /// journal, the kernel answers by taking no more changes: then the rename that comes next fails.
  static bool sync_all(int root, std::span<Item> items) noexcept {
    if (::syncfs(root) != 0) return false;
    constexpr unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    for (Item& item : items) item.is_durable = !item.is_file || ::sync_file_range(item.fd, 0, 0, all) == 0;
    return true;
  }

  const std::uint64_t max_unwritten_;
  SyncThreads threads_;
};

}  // namespace garner::detail

namespace garner {

namespace detail {

/// Owns a file descriptor. What it closes in the destructor, it closes without looking at the error.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// 0, or -1 with `errno`. Gone either way: on Linux a failed close has closed (close(2), Notes).
  int close() noexcept { return fd_ >= 0 ? ::close(std::exchange(fd_, -1)) : 0; }

 private:
  int fd_ = -1;
};

/// garner's word for an error of the system, or the generic category's.
inline std::error_code errno_code(int number) noexcept {
  switch (number) {
    case ENOSPC:
    case EDQUOT: return errc::no_space;
    case EROFS: return errc::read_only;
    case EIO: return errc::io_error;
    case EMFILE:
    case ENFILE: return errc::too_many_open_files;
    case EACCES:
    case EPERM: return errc::permission_denied;
    case ENOTDIR: return errc::not_a_directory;
    default: return {number, std::generic_category()};
  }
}

inline std::error_code errno_result(long result) noexcept { return result < 0 ? errno_code(errno) : std::error_code(); }

/// Calls `call` again while a signal interrupts it.
template <class Call>
auto uninterrupted(Call&& call) noexcept {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

inline bool is_plain_name(std::string_view name) noexcept {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

/// Opens `name`, one component, in `directory`: for kernels without `openat2` (before 5.6).
inline int open_component(int directory, const char* name, int flags, mode_t mode) noexcept {
  return uninterrupted([&] { return ::openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC, mode); });
}

/// The same, and the kernel itself refuses to leave `directory` (openat2(2)).
inline int open_beneath(int directory, const char* name, int flags, mode_t mode) noexcept {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const long fd = uninterrupted([&] { return ::syscall(SYS_openat2, directory, name, &how, sizeof(how)); });
  // Some sandboxes answer a system call that they do not know with EPERM. Where EPERM was meant, it comes again.
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) return open_component(directory, name, flags, mode);
  return static_cast<int>(fd);
}

/// `path` made absolute, and without what would make a link at its end be followed: `link/`, `link/.`
inline std::filesystem::path absolute_directory(const std::filesystem::path& path) {
  std::filesystem::path out = std::filesystem::absolute(path);
  while ((out.filename().empty() || out.filename() == ".") && out.has_relative_path()) out = out.parent_path();
  return out;
}

}  // namespace detail

/// One directory and what lies below it. Directories are made with mode 0755 and files with 0644, less the umask; every
/// descriptor closes on exec. See `FileSystem` for what each member promises.
class PosixFileSystem {
 public:
  using Mutex = std::mutex;
  static constexpr bool concurrent = true;
  class Directory : private detail::Descriptor {
    friend class PosixFileSystem;
    using detail::Descriptor::Descriptor;
  };
  class File : private detail::Descriptor {
    friend class PosixFileSystem;
    using detail::Descriptor::Descriptor;
  };

  /// Opens the directory at `path`, which is not created. A link at the end of `path` is not followed
  /// (`errc::not_a_directory`); links on the way there are. `max_sync_threads`: as in `Options`.
  /// `max_unwritten`: where the whole machine has more bytes than that to write, many syncs are not made one syncfs.
  static PosixFileSystem open(const std::filesystem::path& path, std::error_code& ec,
                              std::size_t max_sync_threads = Options().max_sync_threads,
                              std::uint64_t max_unwritten = detail::PosixSync::little_unwritten) {
    std::filesystem::path absolute = detail::absolute_directory(path);
    const int fd = detail::open_component(AT_FDCWD, absolute.c_str(), O_RDONLY | O_DIRECTORY, 0);
    ec = detail::errno_result(fd);
    return {Directory(fd), std::move(absolute), std::make_unique<detail::PosixSync>(max_sync_threads, max_unwritten)};
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const Directory& root() const noexcept { return root_; }

  Directory open_directory(const Directory& directory, const std::string& name, std::error_code& ec) const {
    Directory out(open_at(directory, name, O_RDONLY | O_DIRECTORY));
    ec = !out && errno == ELOOP ? make_error_code(errc::not_a_directory) : detail::errno_result(out.get());
    return out;
  }

  std::error_code make_directory(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::mkdirat(directory.get(), name.c_str(), 0755));
  }

  std::error_code list(const Directory& directory, const EntryVisitor& visitor) const {
    // A descriptor of its own: the position that readdir moves belongs to the open file, which others may be reading.
    const int fd = detail::open_component(directory.get(), ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return detail::errno_code(errno);
    const std::unique_ptr<DIR, CloseDirectory> entries(::fdopendir(fd));
    if (!entries) {
      const int error = errno;
      ::close(fd);
      return detail::errno_code(error);
    }
    for (;;) {
      errno = 0;
      // NOLINTNEXTLINE(concurrency-mt-unsafe): on a stream of one's own it is safe (readdir(3), Attributes)
      const dirent* const entry = ::readdir(entries.get());
      if (entry == nullptr) return errno != 0 ? detail::errno_code(errno) : std::error_code();
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      visitor(name, kind_of(directory, *entry));
    }
  }

  File create_file(const Directory& directory, const std::string& name, std::error_code& ec) const {
    File file(open_at(directory, name, O_RDWR | O_CREAT | O_EXCL, 0644));
    ec = detail::errno_result(file.get());
    return file;
  }

  /// A link is `std::errc::too_many_symbolic_link_levels`, a directory `std::errc::is_a_directory`, anything else that
  /// is no regular file `std::errc::invalid_argument`.
  File open_file(const Directory& directory, const std::string& name, Access access, std::error_code& ec) const {
    // O_NONBLOCK: to open a FIFO that nobody writes to would wait for ever.
    File file(open_at(directory, name, (access == Access::read ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY));
    ec = detail::errno_result(file.get());
    if (ec) return file;
    struct stat status {};
    ec = detail::errno_result(::fstat(file.get(), &status));
    if (!ec) ec = check_regular(status);
    return ec ? File() : std::move(file);
  }

  FileStatus status(const File& file, std::error_code& ec) const {
    struct stat status {};
    ec = detail::errno_result(::fstat(file.get(), &status));
    return {static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_nlink)};
  }

  /// What is no regular file is as `open_file` says.
  FileStatus status(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = detail::is_plain_name(name) ? std::error_code() : detail::errno_code(EINVAL);
    struct stat status {};
    if (!ec) ec = detail::errno_result(::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW));
    if (!ec) ec = check_regular(status);
    return {static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_nlink)};
  }

  std::size_t read(const File& file, std::uint64_t at, std::span<std::byte> to, std::error_code& ec) const {
    std::size_t done = 0;
    while (done < to.size()) {
      const auto count = detail::uninterrupted(
          [&] { return ::pread(file.get(), to.data() + done, to.size() - done, static_cast<off_t>(at + done)); });
      ec = detail::errno_result(count);
      if (count <= 0) return done;
      done += static_cast<std::size_t>(count);
    }
    ec.clear();
    return done;
  }

  std::error_code write(const File& file, std::uint64_t at, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const auto count = detail::uninterrupted(
          [&] { return ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)); });
      if (count < 0) return detail::errno_code(errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      at += static_cast<std::uint64_t>(count);
    }
    return {};
  }

  std::error_code reserve(const File& file, std::uint64_t size) const {
    const int result = detail::uninterrupted(
        [&] { return ::fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)); });
    // A file system that cannot reserve (EOPNOTSUPP, EINVAL, ENOSYS) will tell at the write that there is no room.
    if (result == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG && errno != EIO)) return {};
    return detail::errno_code(errno);
  }

  std::error_code truncate(const File& file, std::uint64_t size) const {
    return detail::errno_result(
        detail::uninterrupted([&] { return ::ftruncate(file.get(), static_cast<off_t>(size)); }));
  }

  std::error_code sync_file(const File& file) const { return sync(file.get()); }
  std::error_code sync_directory(const Directory& directory) const { return sync(directory.get()); }

  void sync_together(std::span<SyncRequest<File, Directory>> requests) const {
    std::vector<detail::PosixSync::Item> items;
    items.reserve(requests.size());
    for (const auto& request : requests) {
      const bool is_file = request.file != nullptr;
      items.push_back({is_file ? request.file->get() : request.directory->get(), is_file});
    }
    sync_->run(root_.get(), items);
    for (std::size_t i = 0; i < items.size(); ++i) {
      requests[i].error = items[i].is_durable ? std::error_code() : make_error_code(errc::sync_failed);
    }
  }

  std::error_code close(File& file) const {
    const int result = static_cast<detail::Descriptor&>(file).close();
    return result < 0 && errno != EINTR ? detail::errno_code(errno) : std::error_code();
  }

  std::error_code rename(const Directory& from, const std::string& name, const Directory& to,
                         const std::string& new_name) const {
    if (!detail::is_plain_name(name) || !detail::is_plain_name(new_name)) return errc::invalid_file_name;
    const long result =
        ::syscall(SYS_renameat2, from.get(), name.c_str(), to.get(), new_name.c_str(), RENAME_NOREPLACE);
    if (result == 0 || (errno != EINVAL && errno != ENOSYS)) return detail::errno_result(result);
    // A file system that cannot refuse (NFS, some FUSE): looked up first, which is enough for the holder of the lock.
    struct stat status {};
    if (::fstatat(to.get(), new_name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      return std::make_error_code(std::errc::file_exists);
    }
    return detail::errno_result(::renameat(from.get(), name.c_str(), to.get(), new_name.c_str()));
  }

  std::error_code remove_file(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::unlinkat(directory.get(), name.c_str(), 0));
  }

  std::error_code remove_directory(const Directory& directory, const std::string& name) const {
    if (!detail::is_plain_name(name)) return errc::invalid_file_name;
    return detail::errno_result(::unlinkat(directory.get(), name.c_str(), AT_REMOVEDIR));
  }

  /// An open-file-description lock (fcntl(2)): it belongs to this handle, not to the process, so that a second handle
  /// of the same process is refused as well, and it ends with the process whatever kills it.
  std::error_code lock(const File& file) const {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const int result = detail::uninterrupted([&] { return ::fcntl(file.get(), F_OFD_SETLK, &lock); });
    if (result < 0 && (errno == EAGAIN || errno == EACCES)) return errc::directory_in_use;
    return detail::errno_result(result);
  }

  /// What an unprivileged user may still write.
  std::uint64_t free_space(std::error_code& ec) const {
    struct statvfs status {};
    ec = detail::errno_result(detail::uninterrupted([&] { return ::fstatvfs(root_.get(), &status); }));
    return std::uint64_t{status.f_bavail} * status.f_frsize;
  }

  /// As random(4) tells it; empty where /proc is not mounted.
  static std::string boot_id() {
    const detail::Descriptor file(detail::uninterrupted(
        [] { return ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC | O_NOCTTY); }));
    if (!file) return {};
    std::string id(36, '\0');
    const ssize_t count = detail::uninterrupted([&] { return ::read(file.get(), id.data(), id.size()); });
    id.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    return id;
  }

 private:
  struct CloseDirectory {
    void operator()(DIR* directory) const noexcept { ::closedir(directory); }
  };

  PosixFileSystem(Directory root, std::filesystem::path path, std::unique_ptr<detail::PosixSync> sync)
      : root_(std::move(root)), path_(std::move(path)), sync_(std::move(sync)) {}

  static int open_at(const Directory& directory, const std::string& name, int flags, mode_t mode = 0) noexcept {
    if (!detail::is_plain_name(name)) return errno = EINVAL, -1;
    return detail::open_beneath(directory.get(), name.c_str(), flags, mode);
  }

  /// Not called again after an interruption either: the first call may have taken the news of a lost page with it.
  static std::error_code sync(int fd) noexcept {
    return ::fsync(fd) < 0 ? make_error_code(errc::sync_failed) : std::error_code();
  }

  static std::error_code check_regular(const struct stat& status) noexcept {
    if (S_ISREG(status.st_mode)) return {};
    if (S_ISDIR(status.st_mode)) return std::make_error_code(std::errc::is_a_directory);
    if (S_ISLNK(status.st_mode)) return std::make_error_code(std::errc::too_many_symbolic_link_levels);
    return std::make_error_code(std::errc::invalid_argument);
  }

  static EntryKind kind_of(const Directory& directory, const dirent& entry) noexcept {
    if (entry.d_type == DT_REG) return EntryKind::file;
    if (entry.d_type == DT_DIR) return EntryKind::directory;
    if (entry.d_type != DT_UNKNOWN) return EntryKind::other;
    struct stat status {};  // XFS without ftype, some FUSE: only the inode knows
    if (::fstatat(directory.get(), entry.d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) return EntryKind::other;
    if (S_ISREG(status.st_mode)) return EntryKind::file;
    return S_ISDIR(status.st_mode) ? EntryKind::directory : EntryKind::other;
  }

  Directory root_;
  std::filesystem::path path_;
  std::unique_ptr<detail::PosixSync> sync_;
};

static_assert(FileSystem<PosixFileSystem>);

}  // namespace garner

// garner/storage/store_layout.hpp ---------------------------------------------------------------------------
// The names in a data directory: how they are written and how they are read. Reading is strict: a name that parses is
// the very name that would be written for what it says. Nothing here touches a disk.

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

// garner/storage/store_volumes.hpp --------------------------------------------------------------------------
// A store of several volumes, each of them a complete data directory by itself: which of them takes what comes in. A
// store of one is that one, and nothing else. One volume is in store_volume.hpp.

// garner/storage/staging.hpp --------------------------------------------------------------------------------
// A generation while it is being fetched: its directory in `staging/`, and its files, each of which is checked and
// synced through the descriptor that wrote it. What becomes of it, the store decides (store_protocol.hpp).

// garner/storage/checkpoint.hpp -----------------------------------------------------------------------------
// The note beside a staged file that lets another run go on with it: how many of its bytes are right, their digest, and
// where they came from. Its names and its text; what is done with it is in staging.hpp, and nothing here touches a
// disk.

// garner/storage/digest_stream.hpp --------------------------------------------------------------------------
// Digests of a file while its bytes go by: XXH3-128 always, which finds bad disks at the speed of memory, and the one
// that the description asks for, by libcrypto.

namespace garner {

/// XXH3-128 with seed 0, in its canonical (big-endian) form. Against accidents, not against attackers.
using Xxh3 = std::array<std::uint8_t, 16>;

/// What a file's bytes have for digests.
struct FoundDigests {
  Xxh3 xxh3{};
  std::optional<Digest> asked;  ///< of the algorithm that was asked for

  friend bool operator==(const FoundDigests&, const FoundDigests&) = default;
};

/// Digests bytes given in pieces. One thread at a time; movable.
class DigestStream {
 public:
  /// `algorithm`: what is wanted beside XXH3-128. Throws `Error` with `errc::invalid_digest` where libcrypto does not
  /// have it (MD5 in FIPS mode), and `std::bad_alloc`.
  explicit DigestStream(std::optional<DigestAlgorithm> algorithm = std::nullopt)
      : algorithm_(algorithm), xxh3_(XXH3_createState()) {
    if (algorithm_) evp_.reset(EVP_MD_CTX_new());
    if (!xxh3_ || (algorithm_ && !evp_)) throw std::bad_alloc();
    restart();
  }

  /// Forgets all bytes.
  void restart() {
    check(XXH3_128bits_reset(xxh3_.get()) == XXH_OK);
    if (evp_) check(EVP_DigestInit_ex(evp_.get(), evp_algorithm(), nullptr) == 1);
  }

  void update(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    check(XXH3_128bits_update(xxh3_.get(), bytes.data(), bytes.size()) == XXH_OK);
    if (evp_) check(EVP_DigestUpdate(evp_.get(), bytes.data(), bytes.size()) == 1);
  }

  /// Of all bytes so far; more may follow.
  [[nodiscard]] Xxh3 xxh3() const noexcept {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh3_.get()));
    static_assert(sizeof(canonical.digest) == std::tuple_size_v<Xxh3>);
    Xxh3 out{};
    std::copy_n(canonical.digest, out.size(), out.begin());
    return out;
  }

  /// Likewise.
  [[nodiscard]] FoundDigests digests() const {
    FoundDigests found;
    found.xxh3 = xxh3();
    if (evp_) {
      const Evp copy(EVP_MD_CTX_new());
      if (!copy) throw std::bad_alloc();
      std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
      unsigned int size = 0;
      check(EVP_MD_CTX_copy_ex(copy.get(), evp_.get()) == 1);
      check(EVP_DigestFinal_ex(copy.get(), bytes.data(), &size) == 1);
      found.asked = Digest::parse(std::string(to_string(*algorithm_)) + ':' + detail::format_hex(bytes.data(), size));
    }
    return found;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  using Evp = std::unique_ptr<EVP_MD_CTX, Free>;

  void check(bool done) const {
    if (done) return;
    throw Error(errc::invalid_digest, std::string(algorithm_ ? to_string(*algorithm_) : "xxh3-128") +
                                          " is not available in this program's libcrypto");
  }

  [[nodiscard]] const EVP_MD* evp_algorithm() const noexcept {
    switch (*algorithm_) {
      case DigestAlgorithm::md5: return EVP_md5();
      case DigestAlgorithm::sha1: return EVP_sha1();
      case DigestAlgorithm::sha256: return EVP_sha256();
      case DigestAlgorithm::sha512: return EVP_sha512();
    }
    return nullptr;
  }

  std::optional<DigestAlgorithm> algorithm_;
  std::unique_ptr<XXH3_state_t, Free> xxh3_;
  Evp evp_;
};

}  // namespace garner

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

// garner/storage/chunk_descriptor.hpp -----------------------------------------------------------------------
// `chunk.json`, which lies beside a chunk's files: the description, and the size and digests found in each file.
// Written once, before the chunk is published; read when someone asks, and then not trusted. No file is touched here.

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

// garner/storage/incoming_file.hpp --------------------------------------------------------------------------
// A file while its bytes come: written in order, never beyond the size that was declared, and digested as they go by.
// Not here: what it is called, how it is made durable, and what becomes of it.

namespace garner::detail {

/// One thread at a time. Throws, beside what the file system throws, what `DigestStream` does.
template <FileSystem F>
class IncomingFile {
 public:
  /// From this size on a file's room is reserved, so that a full disk shows before the transfer.
  static constexpr std::uint64_t reserve_from = std::uint64_t{1} << 20;

  IncomingFile() = default;
  /// `file`: open for reading and writing. Of `asked` the size and the digest count.
  IncomingFile(typename F::File file, const FileSource& asked)
      : file_(std::move(file)), size_asked_(asked.size), digest_asked_(asked.digest) {
    digests_.emplace(asked.digest ? std::optional(asked.digest->algorithm()) : std::nullopt);
  }

  [[nodiscard]] typename F::File& handle() noexcept { return file_; }
  /// Bytes that were written.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// Bytes that it has taken of what was free.
  [[nodiscard]] std::uint64_t taken() const noexcept { return std::max(size_, reserved_); }
  /// That it may have.
  [[nodiscard]] std::uint64_t max_size() const noexcept {
    return size_asked_.value_or(std::numeric_limits<std::int64_t>::max());
  }

  /// Makes sure of the room for the declared size, where that is worth it.
  std::error_code reserve(F& fs) {
    const std::uint64_t size = size_asked_.value_or(0);
    const bool is_large = size >= reserve_from;
    const std::error_code ec = is_large ? fs.reserve(file_, size) : std::error_code();
    reserved_ = is_large && !ec ? size : 0;
    return ec;
  }

  /// Appends all of `bytes`, or none that counts. `errc::body_too_long` where they go beyond the declared size: none of
  /// them is written then.
  std::error_code write(F& fs, std::span<const std::byte> bytes) {
    if (bytes.size() > max_size() - size_) return errc::body_too_long;
    const std::error_code ec = fs.write(file_, size_, bytes);
    if (ec) return ec;
    digests_->update(bytes);
    size_ += bytes.size();
    return {};
  }

  /// Empties it.
  std::error_code restart(F& fs) {
    const std::error_code ec = fs.truncate(file_, 0);
    if (ec) return ec;
    size_ = 0;
    digests_->restart();
    return reserve(fs);
  }

  /// Takes the first `size` bytes that are in the file as written, and cuts off what follows. Asks before that whether
  /// their XXH3 is the right one: `is_right(xxh3)`.
  template <class IsRight>
  std::error_code take_over(F& fs, std::uint64_t size, const IsRight& is_right) {
    std::error_code ec;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(size, std::size_t{256} << 10)));
    while (size_ < size && !ec) {
      const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(size - size_, buffer.size()));
      const std::size_t count = fs.read(file_, size_, std::span(buffer).first(most), ec);
      if (!ec && count == 0) ec = errc::io_error;
      if (ec) return ec;
      digests_->update(std::span(buffer).first(count));
      size_ += count;
    }
    return is_right(digests_->xxh3()) ? fs.truncate(file_, size_) : make_error_code(errc::digest_mismatch);
  }

  [[nodiscard]] Xxh3 xxh3() const noexcept { return digests_->xxh3(); }

  /// Whether this is all (`errc::body_too_short`), and the right bytes (`errc::digest_mismatch`).
  std::error_code check(FoundDigests& found) const {
    if (size_ < size_asked_.value_or(0)) return errc::body_too_short;
    found = digests_->digests();
    if (found.asked != digest_asked_) return errc::digest_mismatch;
    return {};
  }

 private:
  typename F::File file_;
  std::optional<std::uint64_t> size_asked_;
  std::optional<Digest> digest_asked_;
  std::uint64_t size_ = 0;
  std::uint64_t reserved_ = 0;
  std::optional<DigestStream> digests_;
};

}  // namespace garner::detail

// garner/storage/store_root.hpp -----------------------------------------------------------------------------
// A data directory, open: its format checked, its lock held, its top directories at hand. Also the few steps that all
// of the store's protocol is made of: a small file written or read, a tree removed little by little.

// garner/storage/unsynced_files.hpp -------------------------------------------------------------------------
// Files that are whole and not durable yet: they stay open, each through the descriptor that wrote it, until they are
// synced together. Small ones only, and not many: they hold descriptors.

namespace garner::detail {

/// How many descriptors are held for files that wait to be synced. Thread-safe.
class UnsyncedCount {
 public:
  explicit UnsyncedCount(std::size_t most) : most_(most) {}

  /// False where there are enough.
  bool add() noexcept {
    std::size_t count = count_.load(std::memory_order_relaxed);
    do {
      if (count >= most_) return false;
    } while (!count_.compare_exchange_weak(count, count + 1, std::memory_order_relaxed));
    return true;
  }
  void subtract(std::size_t count) noexcept { count_.fetch_sub(count, std::memory_order_relaxed); }

 private:
  const std::size_t most_;
  std::atomic<std::size_t> count_{0};
};

/// Those of one staging area, by name. Thread-safe. Destroyed, it closes them.
template <FileSystem F>
class UnsyncedFiles {
 public:
  /// From this size on a file is worth a sync of its own, as soon as it is there.
  static constexpr std::uint64_t large = std::uint64_t{256} << 10;

  UnsyncedFiles() = default;
  UnsyncedFiles(const UnsyncedFiles&) = delete;
  UnsyncedFiles& operator=(const UnsyncedFiles&) = delete;
  ~UnsyncedFiles() {
    if (count_ != nullptr) count_->subtract(counted_);
  }

  /// Takes `file`, of `size` bytes, if it may wait.
  bool offer(const std::string& name, std::uint64_t size, typename F::File& file, UnsyncedCount& count) {
    if (size >= large || !count.add()) return false;
    const std::lock_guard lock(mutex_);
    count_ = &count;
    ++counted_;
    files_.insert_or_assign(name, std::move(file));
    return true;
  }

  /// Takes one that waits in any case.
  void put(const std::string& name, typename F::File file) {
    const std::lock_guard lock(mutex_);
    files_.insert_or_assign(name, std::move(file));
  }

  /// It is not to be synced any more.
  void drop(const std::string& name) {
    const std::lock_guard lock(mutex_);
    files_.erase(name);
  }

  /// All of them, in the order of their names.
  std::vector<typename F::File> take() {
    const std::lock_guard lock(mutex_);
    std::vector<typename F::File> out;
    out.reserve(files_.size());
    for (auto& [name, file] : files_) out.push_back(std::move(file));
    files_.clear();
    if (count_ != nullptr) count_->subtract(std::exchange(counted_, 0));
    return out;
  }

 private:
  std::mutex mutex_;  ///< guards the rest; held across no operation but a close
  std::map<std::string, typename F::File> files_;
  UnsyncedCount* count_ = nullptr;
  std::size_t counted_ = 0;  ///< there
};

}  // namespace garner::detail

namespace garner {

/// Holds the lock of a data directory while it lives. Thread-safe, as its file system is.
template <FileSystem F>
class StoreRoot {
 public:
  using Directory = typename F::Directory;
  using File = typename F::File;

  /// Larger files are cut down in steps of this many bytes before they are unlinked: freeing much at once holds up
  /// everything else that the file system's journal does.
  static constexpr std::uint64_t removal_step = std::uint64_t{16} << 20;

  /// Opens the store in the root of `fs`, and makes an empty directory one. Throws `Error` that names the path:
  /// `errc::unknown_format` before anything is touched, then `errc::directory_in_use`, then `errc::not_a_directory`
  /// where a part of it is a link or a file, and what the file system reports.
  StoreRoot(F fs, Durability durability) : fs_(std::move(fs)), durability_(durability) {
    check_format();
    take_lock();
    // Asked again under the lock: whoever held it may have been about to write it.
    if (!check_format()) write_format();
    for (auto [name, directory] :
         {std::pair{store_layout::chunks_directory, &chunks_}, std::pair{store_layout::staging_directory, &staging_},
          std::pair{store_layout::doomed_directory, &doomed_}, std::pair{store_layout::trash_directory, &trash_},
          std::pair{store_layout::quarantine_directory, &quarantine_}}) {
      std::error_code ec = fs_.make_directory(fs_.root(), name);
      if (!ec || ec == std::errc::file_exists) *directory = fs_.open_directory(fs_.root(), name, ec);
      require(ec, name);
    }
    // What an earlier process made here it may not have lived to sync.
    const std::error_code ec = sync_directory(fs_.root());
    if (ec) remove_empty();
    require(ec, "");
  }

  [[nodiscard]] F& fs() noexcept { return fs_; }
  [[nodiscard]] const Directory& chunks() const noexcept { return chunks_; }
  [[nodiscard]] const Directory& staging() const noexcept { return staging_; }
  [[nodiscard]] const Directory& doomed() const noexcept { return doomed_; }
  [[nodiscard]] const Directory& trash() const noexcept { return trash_; }
  [[nodiscard]] const Directory& quarantine() const noexcept { return quarantine_; }
  [[nodiscard]] std::filesystem::path path() { return fs_.path(); }

  /// Nothing that is written beneath this root will be published: another opening has taken its place.
  void give_up() noexcept { given_up_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool is_given_up() const noexcept { return given_up_.load(std::memory_order_relaxed); }

  /// As the file system's, and nothing where `Durability::relaxed` was asked for.
  std::error_code sync_file(File& file) {
    return durability_ == Durability::full ? fs_.sync_file(file) : std::error_code();
  }
  std::error_code sync_directory(const Directory& directory) {
    return durability_ == Durability::full ? fs_.sync_directory(directory) : std::error_code();
  }

  /// Whether syncs do anything.
  [[nodiscard]] bool is_durable() const noexcept { return durability_ == Durability::full; }
  /// Descriptors that wait for a sync, of all staging areas.
  [[nodiscard]] detail::UnsyncedCount& unsynced() noexcept { return unsynced_; }

  /// As each by itself, in any order.
  void sync_together(std::span<SyncRequest<File, Directory>> requests) {
    if (!is_durable()) return;
    if constexpr (SyncsTogether<F>) {
      fs_.sync_together(requests);
    } else {
      for (auto& request : requests) {
        request.error = request.file != nullptr ? fs_.sync_file(*request.file) : fs_.sync_directory(*request.directory);
      }
    }
  }

  /// Creates `name` with `text` in it, synced through the descriptor that wrote it.
  std::error_code write_small_file(const Directory& directory, const std::string& name, std::string_view text) {
    std::error_code ec;
    File file = fs_.create_file(directory, name, ec);
    if (!ec) ec = fs_.write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) ec = sync_file(file);
    if (!ec) ec = fs_.close(file);
    return ec;
  }

  /// The whole of `name`, or, of a longer file, its first `limit + 1` bytes.
  std::string read_small_file(const Directory& directory, const std::string& name, std::size_t limit,
                              std::error_code& ec) {
    File file = fs_.open_file(directory, name, Access::read, ec);
    if (ec) return {};
    const FileStatus status = fs_.status(file, ec);
    if (ec) return {};
    std::string text(static_cast<std::size_t>(std::min<std::uint64_t>(status.size, limit + 1)), '\0');
    text.resize(fs_.read(file, 0, std::as_writable_bytes(std::span(text)), ec));
    return text;
  }

  /// Removes `name`, a file or a directory with all that is in it. Not an error where it is not there. `bytes`: of its
  /// files, where known.
  std::error_code remove_tree(const Directory& parent, const std::string& name, std::uint64_t bytes = UINT64_MAX) {
    return remove_tree(parent, name, bytes, max_depth);
  }

  /// The greatest stride that was written down here; 0 where none was.
  std::uint64_t read_stride() {
    std::uint64_t greatest = 0;
    fs_.list(fs_.root(), [&greatest](std::string_view name, EntryKind /*kind*/) {
      if (!name.starts_with(store_layout::stride_prefix)) return;
      name.remove_prefix(store_layout::stride_prefix.size());
      greatest = std::max(greatest, detail::parse_generation(name).value_or(0));
    });
    return greatest;
  }

  /// Durably, in the place of `before`.
  std::error_code write_stride(std::uint64_t stride, std::uint64_t before) {
    const auto name = [](std::uint64_t number) {
      return std::string(store_layout::stride_prefix) + std::to_string(number);
    };
    std::error_code ec;
    File file = fs_.create_file(fs_.root(), name(stride), ec);
    if (!ec) ec = fs_.close(file);
    if (!ec) ec = sync_directory(fs_.root());
    if (!ec && before != 0) ec = fs_.remove_file(fs_.root(), name(before));
    return ec;
  }

  /// Whether what is here can still be found and read. What the kernel remembers it gives without asking the disk.
  std::error_code probe_reading() {
    std::error_code ec = fs_.list(fs_.root(), [](std::string_view, EntryKind) {});
    const std::string text =
        ec ? std::string()
           : read_small_file(fs_.root(), store_layout::format_file, store_layout::format_text.size(), ec);
    return !ec && text != store_layout::format_text ? make_error_code(errc::unknown_format) : ec;
  }

  /// Whether something can still be written here and made durable. A full disk can.
  std::error_code probe_writing() {
    std::error_code ec = unless_missing(fs_.remove_file(fs_.root(), store_layout::probe_file));
    if (!ec) ec = write_small_file(fs_.root(), store_layout::probe_file, store_layout::format_text);
    const std::error_code removed = unless_missing(fs_.remove_file(fs_.root(), store_layout::probe_file));
    if (!ec || classify(ec) == ErrorClass::no_space) ec = removed;
    return ec;
  }

  /// `ec`, but none where it says that there was nothing.
  static std::error_code unless_missing(std::error_code ec) {
    return ec == std::errc::no_such_file_or_directory ? std::error_code() : ec;
  }

 private:
  /// Of directories in directories, which garner never makes and removes all the same. Each level holds a descriptor.
  static constexpr int max_depth = 16;

  static constexpr std::size_t max_unsynced = 128;  ///< descriptors

  void require(std::error_code ec, const std::string& name) {
    if (ec) throw Error(ec, name.empty() ? path().string() : (path() / name).string());
  }

  /// Whether there is one; throws where it is not ours.
  bool check_format() {
    std::error_code ec;
    const std::string text =
        read_small_file(fs_.root(), store_layout::format_file, store_layout::format_text.size(), ec);
    if (ec == std::errc::no_such_file_or_directory) return false;
    const bool no_file = ec == std::errc::is_a_directory || ec == std::errc::invalid_argument ||
                         ec == std::errc::too_many_symbolic_link_levels;
    if (no_file || (!ec && text != store_layout::format_text)) ec = errc::unknown_format;
    require(ec, store_layout::format_file);
    return true;
  }

  void write_format() {
    // Under another name first: a FORMAT that was cut short by a crash would be refused for ever.
    std::error_code ec = unless_missing(fs_.remove_file(fs_.root(), store_layout::new_format_file));
    if (!ec) ec = write_small_file(fs_.root(), store_layout::new_format_file, store_layout::format_text);
    if (!ec) {
      ec = fs_.rename(fs_.root(), store_layout::new_format_file, fs_.root(), store_layout::format_file);
    }
    require(ec, store_layout::format_file);
  }

  /// After a failed sync of the root: what is empty may be lost, and no later sync would tell, so the next start is to
  /// make it anew. Something is put in only after a sync that succeeded.
  void remove_empty() {
    for (const char* const name : {store_layout::chunks_directory, store_layout::staging_directory,
                                   store_layout::doomed_directory, store_layout::trash_directory}) {
      fs_.remove_directory(fs_.root(), name);
    }
  }

  void take_lock() {
    std::error_code ec;
    lock_ = fs_.open_file(fs_.root(), store_layout::lock_file, Access::write, ec);
    if (ec == std::errc::no_such_file_or_directory) {
      lock_ = fs_.create_file(fs_.root(), store_layout::lock_file, ec);
      // Another one was quicker.
      if (ec == std::errc::file_exists) {
        lock_ = fs_.open_file(fs_.root(), store_layout::lock_file, Access::write, ec);
      }
    }
    if (!ec) ec = fs_.lock(lock_);
    // In use is the directory, as far as anyone who reads the message is concerned.
    require(ec, ec == errc::directory_in_use ? "" : store_layout::lock_file);
  }

  std::error_code remove_tree(const Directory& parent, const std::string& name, std::uint64_t bytes, int depth) {
    std::error_code ec;
    Directory directory = fs_.open_directory(parent, name, ec);
    if (ec == errc::not_a_directory) return remove_file(parent, name, bytes);
    if (ec) return unless_missing(ec);
    std::vector<std::pair<std::string, EntryKind>> entries;
    ec = fs_.list(directory, [&](std::string_view entry, EntryKind kind) { entries.emplace_back(entry, kind); });
    for (const auto& [entry, kind] : entries) {
      if (ec) return ec;
      if (kind != EntryKind::directory) {
        ec = remove_file(directory, entry, bytes);
      } else if (depth > 0) {
        ec = remove_tree(directory, entry, bytes, depth - 1);
      }
    }
    return ec ? ec : unless_missing(fs_.remove_directory(parent, name));
  }

  std::error_code remove_file(const Directory& directory, const std::string& name, std::uint64_t bytes) {
    if (bytes > removal_step) shrink(directory, name);
    return unless_missing(fs_.remove_file(directory, name));
  }

  /// Does what it can: a file that cannot be cut down is unlinked as it is.
  void shrink(const Directory& directory, const std::string& name) {
    std::error_code ec;
    File file = fs_.open_file(directory, name, Access::write, ec);
    if (ec) return;
    const FileStatus status = fs_.status(file, ec);
    // Someone who made a hard link of it wants to keep the bytes.
    if (ec || status.links != 1) return;
    for (std::uint64_t size = status.size; size > removal_step && !ec;) {
      size -= removal_step;
      ec = fs_.truncate(file, size);
    }
  }

  F fs_;
  Durability durability_;
  std::atomic<bool> given_up_{false};
  File lock_;
  Directory chunks_, staging_, doomed_, trash_, quarantine_;
  detail::UnsyncedCount unsynced_{max_unsynced};
};

}  // namespace garner

namespace garner {

namespace detail {

/// What a staging and its files share, in the order of its life.
template <FileSystem F>
struct StagingArea {
  std::shared_ptr<StoreRoot<F>> root;
  DataChunk chunk;
  std::uint64_t number = 0;
  std::string name;  ///< in `staging/`
  typename F::Directory directory;
  UnsyncedFiles<F> unsynced;  ///< of those that are finished

  std::atomic<bool> met_no_space{false};  ///< the disk was too full for some of it
  std::atomic<std::uint64_t> taken{0};    ///< bytes that its files have taken of what is free

  std::mutex mutex;                        ///< guards the next three; held across no operation
  std::map<std::string, FoundFile> found;  ///< the files that are finished
  std::set<std::string> notes;             ///< names of the checkpoints that may be there
  bool sync_failed = false;                ///< bytes may be lost: none of it is published any more
  bool left_staging = false;               ///< published or taken away: `name` is not in `staging/` any more.
                                           ///< Only `publish` and `discard` look, which come one after another

  /// False where it cannot be written, which costs no more than bytes that another run fetches again.
  bool write_note(const std::string& note, std::string_view text) {
    if (remove_note(note)) return false;
    {
      const std::lock_guard lock(mutex);
      notes.insert(note);
    }
    std::error_code ec;
    typename F::File file = root->fs().create_file(directory, note, ec);
    if (!ec) ec = root->fs().write(file, 0, std::as_bytes(std::span(text)));
    return !ec && !root->fs().close(file);
  }

  std::error_code remove_note(const std::string& note) {
    {
      const std::lock_guard lock(mutex);
      if (!notes.contains(note)) return {};
    }
    const std::error_code ec = root->unless_missing(root->fs().remove_file(directory, note));
    const std::lock_guard lock(mutex);
    if (!ec) notes.erase(note);
    return ec;
  }

  /// Nothing but the files may be published.
  std::error_code remove_notes() {
    std::set<std::string> all;
    {
      const std::lock_guard lock(mutex);
      all = notes;
    }
    std::error_code ec;
    for (const std::string& note : all) {
      if (!ec) ec = remove_note(note);
    }
    return ec;
  }

  /// Takes away what an earlier run left that is none of this description's files, and learns which have a checkpoint.
  std::error_code adopt() {
    std::set<std::string> known;
    for (const auto& [file, source] : chunk.files) {
      for (const bool second : {false, true}) known.insert(checkpoint_name(file, second));
    }
    std::vector<std::string> others;
    std::error_code ec = root->fs().list(directory, [&](std::string_view entry, EntryKind kind) {
      std::string found_name(entry);
      if (kind == EntryKind::file && known.contains(found_name)) {
        notes.insert(std::move(found_name));
      } else if (!chunk.files.contains(found_name)) {
        others.push_back(std::move(found_name));
      }
    });
    for (const std::string& other : others) {
      if (!ec) ec = root->remove_tree(directory, other);
    }
    return ec;
  }
};

}  // namespace detail

/// One file of a staging area. One thread at a time. Default-constructed and after a finish that succeeded or failed to
/// sync it holds no file, and every call fails with `std::errc::bad_file_descriptor`.
template <FileSystem F>
class BasicStagedFile {
 public:
  /// From this size on a file's room is reserved when it is opened.
  static constexpr std::uint64_t reserve_from = detail::IncomingFile<F>::reserve_from;

  BasicStagedFile() = default;

  /// Bytes that were written.
  [[nodiscard]] std::uint64_t size() const noexcept { return file_.size(); }

  /// Appends all of `bytes`, or none that counts. `errc::body_too_long` where they go beyond the declared size: none of
  /// them is written then. `errc::io_error` where the area is one of a disk that was lost and came back.
  std::error_code write(std::span<const std::byte> bytes) {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (area_->root->is_given_up()) return errc::io_error;
    if (bytes.empty()) return {};
    return noted(file_.write(fs(), bytes));
  }

  /// Empties the file, and takes its checkpoint away.
  std::error_code restart() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const std::error_code ec = remove_checkpoint();
    return ec ? ec : noted(file_.restart(fs()));
  }

  /// Of the last checkpoint.
  [[nodiscard]] const std::string& origin() const noexcept { return origin_; }

  /// Written down in a small file beside this one, which is not synced. No error where that cannot be done: the one
  /// before counts then.
  std::error_code checkpoint(std::string_view origin) {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    write_checkpoint(*area_, {file_.size(), file_.xxh3(), detail::asked_of(asked_), std::string(origin)});
    origin_ = origin;
    return {};
  }

  /// Checks the size (`errc::body_too_short`) and the digest (`errc::digest_mismatch`), after which the file can be
  /// gone on with or restarted; then syncs and closes it, or, where it is small, leaves that to `publish`. A failed
  /// sync is `errc::sync_failed`: the whole staging area can only be discarded then.
  std::error_code finish() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    FoundFile found{file_.size(), {}};
    std::error_code ec = file_.check(found.digests);
    if (ec) return ec;
    // After a sync that failed nobody may go on with these bytes: not the next process either, to which they look well,
    // and which would be told of a good sync. So there is no checkpoint while they are synced.
    const std::string origin = origin_;
    ec = remove_checkpoint();
    if (ec) return ec;
    const auto area = std::exchange(area_, nullptr);
    typename F::File file = std::move(file_.handle());
    StoreRoot<F>& root = *area->root;
    // What has a checkpoint gets another one once it is synced: a later run need not fetch it again.
    if (origin.empty() && root.is_durable() && area->unsynced.offer(name_, found.size, file, root.unsynced())) {
      const std::lock_guard lock(area->mutex);
      area->found.insert_or_assign(name_, found);
      return {};
    }
    ec = root.sync_file(file);
    const std::error_code close_error = root.fs().close(file);
    {
      const std::lock_guard lock(area->mutex);
      area->sync_failed = area->sync_failed || ec;
      if (!ec && !close_error) area->found.insert_or_assign(name_, found);
    }
    if (ec || close_error) return ec ? ec : close_error;
    if (!origin.empty()) write_checkpoint(*area, {found.size, found.digests.xxh3, detail::asked_of(asked_), origin});
    return {};
  }

 private:
  template <FileSystem>
  friend class BasicStaging;

  BasicStagedFile(std::shared_ptr<detail::StagingArea<F>> area, std::string name, typename F::File file)
      : area_(std::move(area)),
        name_(std::move(name)),
        asked_(area_->chunk.files.at(name_)),
        file_(std::move(file), asked_) {}

  [[nodiscard]] F& fs() const noexcept { return area_->root->fs(); }

  void write_checkpoint(detail::StagingArea<F>& area, const detail::Checkpoint& checkpoint) {
    const std::string note = detail::encode_checkpoint(checkpoint);
    if (note.size() > detail::Checkpoint::max_size) return;
    if (!area.write_note(detail::checkpoint_name(name_, !second_), note)) return;
    area.remove_note(detail::checkpoint_name(name_, second_));
    second_ = !second_;
  }

  std::error_code remove_checkpoint() {
    origin_.clear();
    const std::error_code ec = area_->remove_note(detail::checkpoint_name(name_, false));
    return ec ? ec : area_->remove_note(detail::checkpoint_name(name_, true));
  }

  /// Goes back to the last checkpoint that another run wrote down; false where there is none that is true.
  bool go_on() {
    std::optional<detail::Checkpoint> last;
    for (const bool second : {false, true}) {
      std::error_code ec;
      const std::string note = area_->root->read_small_file(area_->directory, detail::checkpoint_name(name_, second),
                                                            detail::Checkpoint::max_size, ec);
      auto checkpoint = ec ? std::nullopt : detail::decode_checkpoint(note);
      if (!checkpoint || checkpoint->asked != detail::asked_of(asked_)) continue;
      if (last && last->size >= checkpoint->size) continue;
      last = std::move(checkpoint);
      second_ = second;
    }
    if (!last || last->size > file_.max_size()) return false;
    const auto is_right = [&last](const Xxh3& found) { return found == last->xxh3; };
    if (file_.take_over(fs(), last->size, is_right)) return false;
    origin_ = last->origin;
    return true;
  }

  std::error_code reserve() { return noted(file_.reserve(fs())); }

  /// Tells the area what the file has taken by now, and whether there was room.
  std::error_code noted(std::error_code ec) {
    if (ec == errc::no_space) area_->met_no_space = true;
    area_->taken += file_.taken() - std::exchange(taken_, file_.taken());
    return ec;
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
  std::string name_;
  FileSource asked_;
  detail::IncomingFile<F> file_;
  std::uint64_t taken_ = 0;
  std::string origin_;
  bool second_ = false;  ///< of the two names of its checkpoint, the one in use
};

/// A generation's staging area. Dropping it keeps what is on disk, for the next start to take away.
template <FileSystem F>
class BasicStaging {
 public:
  BasicStaging() = default;

  /// The file for `name`, one of the description's names (else `errc::invalid_file_name`): as it was at its last
  /// checkpoint, or empty.
  BasicStagedFile<F> open(const std::string& name, std::error_code& ec) {
    ec = check(name);
    if (ec) return {};
    {
      const std::lock_guard lock(area_->mutex);
      area_->found.erase(name);
    }
    area_->unsynced.drop(name);
    typename F::File handle = fs().create_file(area_->directory, name, ec);
    if (ec == std::errc::file_exists) {
      std::optional<BasicStagedFile<F>> left = open_left(name);
      ec.clear();
      if (left) return *std::move(left);
      // A new file, and not this one emptied: a sync of it may have failed for an earlier process, and no later one
      // tells.
      ec = area_->root->remove_tree(area_->directory, name);
      for (const bool second : {false, true}) {
        if (!ec) ec = area_->remove_note(detail::checkpoint_name(name, second));
      }
      if (!ec) handle = fs().create_file(area_->directory, name, ec);
    }
    if (ec) return {};
    BasicStagedFile<F> file(area_, name, std::move(handle));
    ec = file.reserve();
    return ec ? BasicStagedFile<F>() : std::move(file);
  }

 private:
  template <FileSystem>
  friend class BasicStore;
  template <FileSystem>
  friend class BasicVolumes;

  explicit BasicStaging(std::shared_ptr<detail::StagingArea<F>> area) : area_(std::move(area)) {}

  [[nodiscard]] F& fs() const noexcept { return area_->root->fs(); }

  /// What stands there already, where it can be gone on with.
  std::optional<BasicStagedFile<F>> open_left(const std::string& name) {
    std::error_code ec;
    typename F::File handle = fs().open_file(area_->directory, name, Access::write, ec);
    if (ec) return std::nullopt;
    BasicStagedFile<F> file(area_, name, std::move(handle));
    if (!file.go_on()) return std::nullopt;
    return file;
  }

  [[nodiscard]] std::error_code check(const std::string& name) const {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const bool known = detail::is_portable_file_name(name) && area_->chunk.files.contains(name);
    if (!known || detail::fold_case(name) == store_layout::descriptor_file) return errc::invalid_file_name;
    return {};
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
};

}  // namespace garner

// garner/storage/store_protocol.hpp -------------------------------------------------------------------------
// The store's protocol: in which order things are written, synced and renamed so that a power cut at any moment leaves
// whole generations or none. It is a Storage over any FileSystem; `FilesystemStorage` is it on a real one.

// garner/storage/store_datasets.hpp -------------------------------------------------------------------------
// The directories of `chunks/`, one for each dataset, while they are used: how one is made durable before anything is
// renamed into it, and how all who use it at the same time share its syncs.

// garner/storage/shared_sync.hpp ----------------------------------------------------------------------------
// One directory's syncs, shared by all who change it at the same time (group commit): while a sync runs the next
// changes gather, and one sync serves them all. There is no timer: who is alone syncs at once. Which directories are
// shared is the store's matter.

namespace garner::detail {

/// For each change: `join`, change the directory, `commit`. Every sync of the directory goes this way while others may
/// use it: one that fails elsewhere would take the news with it.
///
/// A change is durable once a sync that *began* after it has succeeded: one that was running may have written the
/// directory before. And a sync that failed spoils all that was under way when it *ended*, also what was changed while
/// it ran, and what a later sync seems to cover: the kernel tells of a page that it could not write once, drops it, and
/// the next sync, which finds nothing dirty, succeeds. So everyone who had joined by then is told, and none of them
/// syncs again for the same change. Nobody else needs to be: who joins later makes his change later, too. For the same
/// reason a sync counts for others only when those that had begun before it have ended: one of them may have been told
/// of the failure already, and not have passed it on yet.
///
/// That may tell one too many (who joined and had changed nothing yet, or was covered by an earlier sync and has not
/// woken up yet), and never one too few.
///
/// Thread-safety: all members at the same time.
template <FileSystem F>
class SharedSync {
 public:
  /// Which failures come before a change. A value.
  class Ticket {
    friend class SharedSync;
    explicit Ticket(std::uint64_t failed) : failed_(failed) {}
    std::uint64_t failed_;
  };

  /// `at_once` syncs may run at the same time, and only more than that are shared: those who change one file system
  /// are served together by its journal, too, and to wait for a sync that will not do costs more than to begin the
  /// next. More than one only where each comes through a descriptor of its own, opened after `join`: one that all use
  /// tells of a failure to one of them, and not to the other.
  explicit SharedSync(std::size_t at_once)
      // Where all is one thread's (a simulation) nobody can be waited for, and none is in the middle of being told.
      : at_once_(F::concurrent ? at_once : std::numeric_limits<std::size_t>::max()) {}

  [[nodiscard]] Ticket join() {
    const std::lock_guard lock(mutex_);
    return Ticket(failed_);
  }

  /// Returns when what was changed since `ticket` was taken is durable, or may never be. `sync()` syncs the directory.
  /// It is called for this change and all others that were committed by then, or, where another's call does for this
  /// one, not at all.
  template <class Sync>
  std::error_code commit(const Ticket& ticket, const Sync& sync) {
    std::uint64_t number = 0;
    {
      std::unique_lock lock(mutex_);
      const std::uint64_t covering = begun_ + 1;
      const auto is_told = [&] { return failed_ != ticket.failed_ || served_ >= covering; };
      one_ended_.wait(lock, [&] { return is_told() || running_.size() < at_once_; });
      if (failed_ != ticket.failed_) return errc::sync_failed;
      if (is_told()) return {};
      number = ++begun_;
      running_.insert(number);
    }
    std::error_code ec;
    try {
      ec = sync();
    } catch (...) {
      end(number, false);  // for all that is known
      throw;
    }
    const bool spoiled = end(number, !ec) != ticket.failed_;
    return spoiled && !ec ? make_error_code(errc::sync_failed) : ec;
  }

 private:
  /// Returns how many have failed so far.
  std::uint64_t end(std::uint64_t number, bool succeeded) {
    const std::lock_guard lock(mutex_);
    running_.erase(number);
    if (succeeded) {
      last_good_ = std::max(last_good_, number);
    } else {
      ++failed_;
    }
    if (running_.empty() || *running_.begin() > last_good_) served_ = last_good_;
    one_ended_.notify_all();
    return failed_;
  }

  const std::size_t at_once_;
  typename F::Mutex mutex_;  ///< guards the rest; held across no operation
  std::condition_variable_any one_ended_;
  std::set<std::uint64_t> running_;  ///< syncs, by the order in which they began
  std::uint64_t begun_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t last_good_ = 0;  ///< the last that has succeeded
  std::uint64_t served_ = 0;     ///< the same, and none that began earlier is running
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safety: all members at the same time. Lifetime: outlives each `Dataset` that it gave. What is kept of a
/// dataset goes with the last who uses it.
template <FileSystem F>
class StoreDatasets {
  /// What all who use one dataset share.
  struct Shared {
    typename F::Mutex making;  ///< held while it is made durable
    SharedSync<F> syncs{2};    ///< each through the descriptor of a `Dataset`
    std::size_t users = 0;
  };
  using AllShared = std::map<DatasetId, Shared>;

  struct Leave {
    StoreDatasets* datasets;
    void operator()(const typename AllShared::value_type* shared) const noexcept { datasets->leave(shared->first); }
  };
  using Share = std::unique_ptr<typename AllShared::value_type, Leave>;

 public:
  /// A dataset's directory, open, in the hand of one who is going to change it.
  class Dataset {
   public:
    [[nodiscard]] const typename F::Directory& directory() const noexcept { return directory_; }

    /// Once, after the change: what `SharedSync::commit` says.
    std::error_code sync() {
      return share_->second.syncs.commit(ticket_, [this] { return root_->sync_directory(directory_); });
    }

   private:
    friend class StoreDatasets;
    // Joined before it is opened, as `SharedSync` asks.
    Dataset(StoreRoot<F>& root, Share share)
        : root_(&root), share_(std::move(share)), ticket_(share_->second.syncs.join()) {}

    StoreRoot<F>* root_;
    Share share_;
    typename SharedSync<F>::Ticket ticket_;
    typename F::Directory directory_;
  };

  explicit StoreDatasets(StoreRoot<F>& root) : root_(root) {}
  StoreDatasets(const StoreDatasets&) = delete;
  StoreDatasets& operator=(const StoreDatasets&) = delete;
  ~StoreDatasets() = default;

  /// One that is there.
  Dataset open(const DatasetId& id, std::error_code& ec) {
    ec.clear();
    return open(share(id), ec);
  }

  /// The same, made and durable.
  Dataset make(const DatasetId& id, std::error_code& ec) {
    Share share = this->share(id);
    {
      // One that is there was synced by whoever made it, under this lock, or by `recover`; but for one that failed to
      // be synced and then could not be removed. That is still to be removed, and made anew.
      const std::lock_guard making(share->second.making);
      const std::string name = store_layout::dataset_name(id);
      ec = is_lost(name) ? remove(name) : std::error_code();
      if (!ec) ec = make_durable(name);
    }
    return open(std::move(share), ec);
  }

  /// These are there, and nobody knows whether they are durable: whoever made them may have failed to sync that, and no
  /// later sync would tell.
  void distrust(const std::vector<std::string>& names) {
    const std::lock_guard lock(mutex_);
    lost_.insert(names.begin(), names.end());
  }

 private:
  Share share(const DatasetId& id) {
    const std::lock_guard lock(mutex_);
    const auto at = shared_.try_emplace(id).first;
    ++at->second.users;
    return Share(&*at, Leave{this});
  }

  void leave(const DatasetId& id) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = shared_.find(id);
    if (--at->second.users == 0) shared_.erase(at);
  }

  Dataset open(Share share, std::error_code& ec) {
    const std::string name = store_layout::dataset_name(share->first);
    Dataset dataset(root_, std::move(share));
    if (!ec) dataset.directory_ = root_.fs().open_directory(root_.chunks(), name, ec);
    return dataset;
  }

  std::error_code make_durable(const std::string& name) {
    const auto ticket = syncs_.join();
    std::error_code ec = root_.fs().make_directory(root_.chunks(), name);
    if (ec == std::errc::file_exists) return {};
    if (ec) return ec;
    ec = syncs_.commit(ticket, [this] { return root_.sync_directory(root_.chunks()); });
    if (ec) remove(name);
    return ec;
  }

  [[nodiscard]] bool is_lost(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return lost_.contains(name);
  }

  /// A name that was not synced is on the disk for certain only once it was changed anew, and that was synced. So the
  /// directory is removed, and made anew by whoever needs it; and where a stranger's file is in it, it is renamed and
  /// renamed back. A power cut may leave it under the other name, with nothing of ours in it; that name is nobody's
  /// then.
  std::error_code remove(const std::string& name) {
    const auto ticket = syncs_.join();
    std::error_code ec = root_.unless_missing(root_.fs().remove_directory(root_.chunks(), name));
    if (ec == std::errc::directory_not_empty) {
      const std::string aside = name + store_layout::lost_suffix;
      ec = root_.fs().rename(root_.chunks(), name, root_.chunks(), aside);
      if (!ec) ec = root_.fs().rename(root_.chunks(), aside, root_.chunks(), name);
      if (!ec) ec = syncs_.commit(ticket, [this] { return root_.sync_directory(root_.chunks()); });
    }
    const std::lock_guard lock(mutex_);
    if (ec) {
      lost_.insert(name);
    } else {
      lost_.erase(name);
    }
    return ec;
  }

  StoreRoot<F>& root_;
  SharedSync<F> syncs_{1};  ///< of `chunks/`
  std::mutex mutex_;        ///< guards the next two; held across no operation
  AllShared shared_;
  std::set<std::string> lost_;  ///< names of directories that were made, and failed to be synced or removed
};

}  // namespace garner::detail

// garner/storage/store_publisher.hpp ------------------------------------------------------------------------
// The publish protocol: many staging areas at a time, so that their syncs share what a sync costs. Each becomes a
// generation of its own, or fails by itself.

// garner/storage/store_remover.hpp --------------------------------------------------------------------------
// How a store takes things away: generations that are doomed, spared and removed, staging areas that are discarded, and
// what was left half-done. The other half of the protocol, how things come in, is in store_protocol.hpp.

// garner/storage/store_recovery.hpp -------------------------------------------------------------------------
// The scan at a store's start: names alone tell what it holds and what was left half-done. No file is opened, nothing
// is stat'ed and nothing is changed; what was found to be taken away is taken away by `clean_up` (store_protocol.hpp).

// garner/storage/fan_out.hpp --------------------------------------------------------------------------------
// Work that is spread over a few threads, whose results one thread takes: for a scan of many directories, which waits
// for the disk or parses names, while whoever is told of them need not be thread-safe.

namespace garner::detail {

/// Calls `work(item, give)` for each of `items` on at most `most` threads, and `take(result)` on this one for each
/// result that was given, `bool give(Result)` in any number for each item. What was not taken yet waits in a queue that
/// is short, so that memory does not grow with the items.
///
/// Ends when all is done, or when `take` returns false: nothing is taken then any more, and `give` returns false, too.
/// What `work` or `take` throws is thrown when all threads have ended. Where no thread can be made, this one works.
template <class Result>
class FanOut {
 public:
  template <class Item, class Work, class Take>
  static void run(std::span<const Item> items, std::size_t most, const Work& work, const Take& take) {
    FanOut fan_out;
    const Join join{fan_out};
    for (std::size_t i = 0; i < std::min(most, items.size()); ++i) {
      if (!fan_out.start([&] { fan_out.work_on(items, work); })) break;
    }
    if (!fan_out.threads_.empty()) return fan_out.take_all(take);
    bool goes_on = true;
    for (std::size_t i = 0; goes_on && i < items.size(); ++i) {
      work(items[i], [&](Result result) { return goes_on = goes_on && take(std::move(result)); });
    }
  }

 private:
  static constexpr std::size_t most_waiting = 64;

  struct Join {
    FanOut& fan_out;
    ~Join() { fan_out.stop(); }
  };

  template <class Run>
  bool start(const Run& run) {
    threads_.reserve(threads_.size() + 1);
    try {
      threads_.emplace_back(run);
    } catch (const std::system_error&) {
      return false;
    }
    const std::lock_guard lock(mutex_);
    ++working_;
    return true;
  }

  template <class Item, class Work>
  void work_on(std::span<const Item> items, const Work& work) {
    std::unique_lock lock(mutex_);
    try {
      while (!stopped_ && next_ < items.size()) {
        const Item& item = items[next_++];
        lock.unlock();
        work(item, [this](Result result) { return give(std::move(result)); });
        lock.lock();
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      thrown_ = std::current_exception();
      stopped_ = true;
    }
    ++ended_;
    changed_.notify_all();
  }

  bool give(Result result) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_ || results_.size() < most_waiting; });
    if (stopped_) return false;
    results_.push_back(std::move(result));
    changed_.notify_all();
    return true;
  }

  template <class Take>
  void take_all(const Take& take) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopped_ || !results_.empty() || ended_ == working_; });
      if (thrown_) std::rethrow_exception(thrown_);
      if (results_.empty()) return;
      Result result = std::move(results_.front());
      results_.pop_front();
      changed_.notify_all();
      lock.unlock();
      if (!take(std::move(result))) return;
      lock.lock();
    }
  }

  void stop() noexcept {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;  ///< guards the rest
  std::condition_variable changed_;
  std::deque<Result> results_;
  std::exception_ptr thrown_;
  std::size_t next_ = 0;     ///< item
  std::size_t working_ = 0;  ///< threads
  std::size_t ended_ = 0;    ///< of them
  bool stopped_ = false;
};

}  // namespace garner::detail

namespace garner::detail {

/// What an earlier run left half-done.
struct Leftovers {
  std::vector<Generation> doomed;    ///< in `chunks/` with a marker in `doomed/`
  std::vector<std::string> markers;  ///< in `doomed/`, of generations that are in `chunks/` no more
  std::vector<std::string> staging;  ///< names in `staging/`, to be taken away
  std::vector<std::string> partial;  ///< names in `staging/` that can be gone on with
  std::vector<std::string> trash;    ///< names in `trash/`
  std::vector<Generation> unmarked;  ///< that a power cut may bring back, and have no marker in `doomed/` yet

  void append(const Leftovers& more) {
    doomed.insert(doomed.end(), more.doomed.begin(), more.doomed.end());
    markers.insert(markers.end(), more.markers.begin(), more.markers.end());
    staging.insert(staging.end(), more.staging.begin(), more.staging.end());
    partial.insert(partial.end(), more.partial.begin(), more.partial.end());
    trash.insert(trash.end(), more.trash.begin(), more.trash.end());
    unmarked.insert(unmarked.end(), more.unmarked.begin(), more.unmarked.end());
  }
};

/// What a scan tells beside the generations that are held.
struct StoreScan {
  Recovery recovery;
  std::uint64_t bytes = 0;  ///< of all in `chunks/`, doomed or not
  Leftovers leftovers;
  std::vector<Generation> quarantined;      ///< in `quarantine/`
  std::vector<std::string> empty_datasets;  ///< names in `chunks/`
  std::vector<std::string> unrecognised;    ///< paths below the data directory, control bytes escaped
};

template <FileSystem F>
class StoreScanner {
 public:
  /// Ends early, with `errc::cancelled`, once `stopped`. `known`: names in `doomed/` that are no leftovers, and are
  /// found like all others.
  StoreScanner(StoreRoot<F>& root, const std::function<void(const Generation&)>& found,
               const std::atomic<bool>& stopped, std::set<std::string> known = {})
      : root_(root), found_(found), stopped_(stopped), known_(std::move(known)) {}

  StoreScan run() {
    const bool done = scan_doomed() && scan_staging() && scan_trash() && scan_quarantine() && scan_chunks();
    for (const std::string& name : markers_) {
      if (done) scan_.leftovers.markers.push_back(name);
    }
    return std::move(scan_);
  }

 private:
  using Directory = typename F::Directory;

  /// What was found in a part of a dataset's directory, or, at its end, in all of it that was not told yet.
  struct Found {
    const std::string* dataset = nullptr;  ///< its name
    std::vector<Generation> generations{};
    std::vector<std::string> unrecognised{};
    std::uint64_t last_generation = 0;  ///< of what is not recognised
    bool is_empty = false;              ///< the directory
    std::error_code error{};
  };
  static constexpr std::size_t told_at_once = 1024;

  /// Threads are made when as much as this was read and there is more: it takes some ten milliseconds. A dataset counts
  /// as much as so many names, since its directory is to be opened, synced and read.
  static constexpr std::size_t names_for_threads = 32'768;
  static constexpr std::size_t dataset_in_names = 256;
  static constexpr std::size_t most_threads = 8;

  bool scan_doomed() {
    const auto marker = [this](std::string_view name, EntryKind kind) {
      if (name == store_layout::boot_file) return;
      const auto generation = store_layout::parse_qualified_name(name);
      if (generation) saw(generation->number);
      if (kind != EntryKind::file || !generation) return unrecognised(store_layout::doomed_directory, name);
      if (!known_.contains(std::string(name))) markers_.emplace(name);
    };
    return scan(root_.doomed(), store_layout::doomed_directory, marker);
  }

  bool scan_staging() {
    const auto staged = [this](std::string_view name, EntryKind kind) {
      const auto staging = store_layout::parse_staging_name(name);
      if (staging) saw(staging->number);
      if (kind != EntryKind::directory || !staging) return unrecognised(store_layout::staging_directory, name);
      scan_.leftovers.partial.emplace_back(name);
      scan_.recovery.has_partial = true;
    };
    return check(root_.fs().list(root_.staging(), staged), store_layout::staging_directory);
  }

  bool scan_trash() {
    const auto removed = [this](std::string_view name, EntryKind kind) {
      const auto generation = store_layout::parse_qualified_name(name);
      if (generation) saw(generation->number);
      if (kind != EntryKind::directory || !generation) return unrecognised(store_layout::trash_directory, name);
      scan_.leftovers.trash.emplace_back(name);
    };
    return check(root_.fs().list(root_.trash(), removed), store_layout::trash_directory);
  }

  bool scan_quarantine() {
    const auto kept = [this](std::string_view name, EntryKind kind) {
      const bool is_reason = kind == EntryKind::file && name.ends_with(store_layout::reason_suffix);
      const std::string_view of = is_reason ? name.substr(0, name.size() - store_layout::reason_suffix.size()) : name;
      const auto generation = store_layout::parse_qualified_name(of);
      const bool is_known = generation && (is_reason || kind == EntryKind::directory);
      if (!is_known) return unrecognised(store_layout::quarantine_directory, name);
      saw(generation->number);
      if (!is_reason) scan_.quarantined.push_back(*generation);
    };
    return check(root_.fs().list(root_.quarantine(), kept), store_layout::quarantine_directory);
  }

  bool scan_chunks() {
    std::vector<std::string> datasets;
    const auto dataset = [&](std::string_view name, EntryKind kind) {
      if (kind != EntryKind::directory || !store_layout::parse_dataset_name(name)) {
        return unrecognised(store_layout::chunks_directory, name);
      }
      datasets.emplace_back(name);
    };
    if (!scan(root_.chunks(), store_layout::chunks_directory, dataset)) return false;
    std::span<const std::string> rest(datasets);
    std::size_t names = 0;
    const auto take = [&](Found found) {
      names += found.generations.size();
      return this->take(std::move(found));
    };
    for (; !rest.empty() && !scan_.recovery.error; rest = rest.subspan(1)) {
      names += dataset_in_names;
      if (F::concurrent && rest.size() > 1 && names > names_for_threads) {
        const std::size_t threads = std::min<std::size_t>(std::thread::hardware_concurrency(), most_threads);
        const auto work = [this](const std::string& name, const auto& give) { this->scan_dataset(name, give); };
        FanOut<Found>::run(rest, threads, work, take);
        break;
      }
      scan_dataset(rest.front(), take);
    }
    return !scan_.recovery.error;
  }

  /// Of several datasets at the same time: changes nothing here, and tells `bool give(Found)`.
  template <class Give>
  void scan_dataset(const std::string& name, const Give& give) const {
    const DatasetId id = *store_layout::parse_dataset_name(name);
    Found found{.dataset = &name, .is_empty = true};
    const Directory directory = root_.fs().open_directory(root_.chunks(), name, found.error);
    bool goes_on = true;
    const auto chunk = [&](std::string_view entry, EntryKind kind) {
      const auto generation = store_layout::parse_chunk_name(entry, id);
      if (generation && kind == EntryKind::directory) {
        found.is_empty = false;  // of ours: what was published there made its name durable
        found.generations.push_back(*generation);
      } else {
        found.unrecognised.emplace_back(entry);
        if (generation) found.last_generation = std::max(found.last_generation, generation->number);
      }
      if (found.generations.size() + found.unrecognised.size() < told_at_once) return;
      goes_on = goes_on && give(std::exchange(found, {.dataset = &name}));
      found.generations.reserve(told_at_once);
    };
    if (!found.error) found.error = list_synced(directory, chunk);
    if (goes_on) give(std::move(found));
  }

  bool take(Found found) {
    const std::string place = std::string(store_layout::chunks_directory) + '/' + *found.dataset;
    if (stopped_) return check(errc::cancelled, place);
    for (const Generation& generation : found.generations) {
      saw(generation.number);
      scan_.bytes += generation.bytes;
      // Most stores have no marker at all, and a million names are not worth writing down to find that out.
      if (!markers_.empty() && markers_.erase(store_layout::qualified_name(generation)) != 0) {
        scan_.leftovers.doomed.push_back(generation);
      } else {
        found_(generation);
      }
    }
    for (const std::string& entry : found.unrecognised) unrecognised(place, entry);
    saw(found.last_generation);
    if (!check(found.error, place)) return false;
    if (found.is_empty) scan_.empty_datasets.push_back(*found.dataset);
    return true;
  }

  /// Lists a directory whose entries count as durable once they were reported. An earlier process may have been killed
  /// between making them and syncing them, so they are synced first; that costs nothing where nothing is new.
  std::error_code list_synced(const Directory& directory, const EntryVisitor& visitor) const {
    const std::error_code ec = root_.sync_directory(directory);
    return ec ? ec : root_.fs().list(directory, visitor);
  }

  bool scan(const Directory& directory, const std::string& place, const EntryVisitor& visitor) {
    return check(list_synced(directory, visitor), place);
  }

  bool check(std::error_code ec, const std::string& place) {
    if (!ec) return true;
    scan_.recovery.error = ec;
    scan_.recovery.subject = (root_.path() / place).string();
    return false;
  }

  /// Of names of another kind than they should be, too: what stands there keeps its name from being used once more.
  void saw(std::uint64_t number) { scan_.recovery.last_generation = std::max(scan_.recovery.last_generation, number); }

  void unrecognised(const std::string& place, std::string_view name) {
    std::string path = place + '/';
    for (; !name.empty(); name.remove_prefix(std::min<std::size_t>(name.size(), 64))) {
      path += printable(name.substr(0, 64));
    }
    scan_.unrecognised.push_back(std::move(path));
  }

  StoreRoot<F>& root_;
  const std::function<void(const Generation&)>& found_;
  const std::atomic<bool>& stopped_;
  std::set<std::string> known_;
  std::unordered_set<std::string> markers_;
  StoreScan scan_;
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safety: as `Storage` asks.
template <FileSystem F>
class StoreRemover {
 public:
  StoreRemover(std::shared_ptr<StoreRoot<F>> root, StoreDatasets<F>& datasets)
      : root_(std::move(root)), datasets_(datasets) {}
  StoreRemover(const StoreRemover&) = delete;
  StoreRemover& operator=(const StoreRemover&) = delete;
  /// Markers that could not be made or taken away are tried once more: nobody knows of them afterwards.
  ~StoreRemover() {
    for (const auto& [name, is_doomed] : std::exchange(pending_, {})) mark(name, is_doomed);
  }

  /// Leaves `leftovers` to the next `clean_up`.
  void leave(const Leftovers& leftovers) {
    const std::lock_guard lock(mutex_);
    leftovers_.append(leftovers);
  }

  /// Whether an earlier run had something of this chunk.
  [[nodiscard]] bool has_partial(const ChunkId& id) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(leftovers_.partial.begin(), leftovers_.partial.end(),
                       [&id](const std::string& name) { return store_layout::parse_staging_name(name)->id == id; });
  }

  /// Nothing of an earlier run is gone on with: all of it is for the next `clean_up`.
  void give_up_partial() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string>& partial = leftovers_.partial;
    leftovers_.staging.insert(leftovers_.staging.end(), partial.begin(), partial.end());
    partial.clear();
  }

  /// The name in `staging/` of what an earlier run had of this chunk, the newest, which is the caller's now; or empty.
  std::string take_partial(const ChunkId& id) {
    const std::lock_guard lock(mutex_);
    std::vector<std::string>& partial = leftovers_.partial;
    auto newest = partial.end();
    std::uint64_t number = 0;
    for (auto at = partial.begin(); at != partial.end(); ++at) {
      const auto name = store_layout::parse_staging_name(*at);
      if (name->id != id || name->number < number) continue;
      number = name->number;
      newest = at;
    }
    if (newest == partial.end()) return {};
    std::string name = std::move(*newest);
    partial.erase(newest);
    return name;
  }

  /// Takes away what `recover` found half-done, and what could not be discarded since. Goes on where something fails,
  /// keeps it for the next call, and returns the first error. `freed`: bytes that have left `chunks/`.
  std::error_code clean_up(Partial partial, std::uint64_t& freed) {
    Leftovers leftovers;
    {
      const std::lock_guard lock(mutex_);
      leftovers = std::exchange(leftovers_, {});
      auto& to = partial == Partial::keep ? leftovers_.partial : leftovers.staging;
      to.insert(to.end(), leftovers.partial.begin(), leftovers.partial.end());
    }
    Leftovers left;
    std::error_code first;
    freed = 0;
    const auto failed = [&first](std::error_code ec) {
      first = first ? first : ec;
      return static_cast<bool>(ec);
    };
    for (const Generation& generation : leftovers.unmarked) {
      if (failed(doom(generation))) left.unmarked.push_back(generation);
    }
    for (const Generation& generation : leftovers.doomed) {
      bool has_left = false;
      const std::error_code ec = remove(generation, has_left);
      // What somebody else has taken away will not come back by being asked for.
      if (ec != errc::no_such_generation && failed(ec)) left.doomed.push_back(generation);
      freed += has_left ? generation.bytes : 0;
    }
    for (const std::string& name : leftovers.staging) {
      if (failed(root().remove_tree(root().staging(), name))) left.staging.push_back(name);
    }
    left.trash = clean_trash(leftovers.trash, failed);
    // Last: while a power cut may bring a doomed generation back, its marker stays.
    if (first || failed(remove_markers(leftovers.markers))) left.markers = leftovers.markers;
    const std::lock_guard lock(mutex_);
    leftovers_.append(left);
    return first;
  }

  std::error_code doom(const Generation& generation) { return mark(store_layout::qualified_name(generation), true); }
  std::error_code spare(const Generation& generation) { return mark(store_layout::qualified_name(generation), false); }

  /// Into `trash/` by one rename, then a sync of where it was, then unlinked little by little. Where that sync fails
  /// it stays in `trash/` whole, and is doomed: a power cut may bring it back, and must not bring back half of it, nor
  /// have it served. After any error it can be called again, and goes on where it stopped. `left`: in this call it has
  /// left `chunks/`, or was found to have been taken from there by somebody else.
  std::error_code remove(const Generation& generation, bool& left) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    left = false;
    auto dataset = datasets_.open(generation.dataset_id, ec);
    if (!ec && removal_of(name) == Removal::none) {
      ec = throw_away(dataset.directory(), store_layout::chunk_name(generation), name);
      left = !ec;
      if (left) sync_removal(name, dataset);
    }
    if (ec == std::errc::no_such_file_or_directory || ec == errc::not_a_directory) return gone(name, left);
    return ec ? ec : finish_removal(generation, name);
  }

  /// As `remove`, but into `quarantine/`, where it stays. What cannot go there is removed: it is corrupt, and no start
  /// must find it. `kept`: it stands there, and will not come back.
  std::error_code set_aside(const Generation& generation, bool& left, bool& kept) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    left = kept = false;
    auto dataset = datasets_.open(generation.dataset_id, ec);
    if (ec) return remove(generation, left);
    if (removal_of(name) == Removal::none) {
      if (fs().rename(dataset.directory(), store_layout::chunk_name(generation), root().quarantine(), name)) {
        return remove(generation, left);
      }
      left = true;
      sync_removal(name, dataset);
    }
    bool is_durable = false;
    ec = finish_removal(generation, name, &is_durable);
    if (ec || !is_durable) return ec;
    std::error_code there;
    fs().open_directory(root().quarantine(), name, there);
    kept = there != std::errc::no_such_file_or_directory;
    return {};
  }

  /// Renames a generation into `trash/`. What stands there under its name, whose number is its alone, is a leftover.
  std::error_code throw_away(const typename F::Directory& dataset, const std::string& name,
                             const std::string& trash_name) {
    std::error_code ec = fs().rename(dataset, name, root().trash(), trash_name);
    if (ec != std::errc::file_exists) return ec;
    ec = root().remove_tree(root().trash(), trash_name);
    return ec ? ec : fs().rename(dataset, name, root().trash(), trash_name);
  }

 private:
  /// How far the removal of a generation has come.
  enum class Removal : std::uint8_t { none, lost, durable };

  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *root_; }
  [[nodiscard]] F& fs() const noexcept { return root_->fs(); }

  [[nodiscard]] Removal removal_of(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto at = removals_.find(name);
    return at == removals_.end() ? Removal::none : at->second;
  }

  void note_removal(const std::string& name, Removal removal) {
    const std::lock_guard lock(mutex_);
    if (removal == Removal::none) {
      removals_.erase(name);
    } else {
      removals_.insert_or_assign(name, removal);
    }
  }

  /// Its bytes are given back once.
  std::error_code gone(const std::string& name, bool& left) {
    const std::lock_guard lock(mutex_);
    left = removals_.erase(name) == 0 && gone_.insert(name).second;
    return errc::no_such_generation;
  }

  /// What comes once it has left `chunks/`: until that is durable it counts as lost.
  void sync_removal(const std::string& name, typename StoreDatasets<F>::Dataset& dataset) {
    note_removal(name, Removal::lost);
    if (!dataset.sync()) note_removal(name, Removal::durable);
  }

  /// What comes then.
  std::error_code finish_removal(const Generation& generation, const std::string& name, bool* is_durable = nullptr) {
    const Removal removal = removal_of(name);
    std::error_code ec;
    if (removal == Removal::lost) {
      ec = doom(generation);
    } else {
      // Its marker goes when it cannot come back any more, or it might come back undoomed.
      ec = spare(generation);
      if (!ec) ec = root().remove_tree(root().trash(), name, generation.bytes);
    }
    if (!ec) note_removal(name, Removal::none);
    if (is_durable != nullptr) *is_durable = removal == Removal::durable;
    return ec;
  }

  /// Syncs each dataset before what was removed from it is unlinked: an earlier process may have been killed between.
  /// Returns what it could not remove.
  template <class Failed>
  std::vector<std::string> clean_trash(const std::vector<std::string>& names, const Failed& failed) {
    std::map<DatasetId, std::error_code> synced;
    std::vector<std::string> left;
    for (const std::string& name : names) {
      const Generation generation = *store_layout::parse_qualified_name(name);
      const auto [at, is_new] = synced.try_emplace(generation.dataset_id);
      if (is_new) {
        auto dataset = datasets_.open(generation.dataset_id, at->second);
        at->second = at->second ? root().unless_missing(at->second) : dataset.sync();
      }
      if (failed(at->second ? at->second : root().remove_tree(root().trash(), name))) left.push_back(name);
    }
    return left;
  }

  /// Sees to it that there is a marker of this name in `doomed/`, an empty file, or that there is none. Of one name one
  /// after another, as all calls about one generation are.
  std::error_code mark(const std::string& name, bool is_doomed) {
    const std::error_code ec = is_doomed ? make_marker(name) : take_marker(name);
    const std::lock_guard lock(mutex_);
    if (ec) {
      pending_[name] = is_doomed;
    } else {
      pending_.erase(name);
    }
    return ec;
  }

  // After a failed sync what is seen of a marker may not be what is on the disk, and the next sync does not tell: only
  // a new change of it, and that one's sync, do. What was not changed is as durable as it was, and stays untouched.

  std::error_code make_marker(const std::string& name) {
    std::error_code ec = enter_boot();
    const auto ticket = doomed_syncs_.join();
    if (!ec && is_unsure(name)) ec = root().unless_missing(fs().remove_file(root().doomed(), name));
    if (!ec) ec = create_marker(name);
    if (ec == std::errc::file_exists) return {};
    return ec ? ec : sync_marker(name, ticket);
  }

  std::error_code take_marker(const std::string& name) {
    const auto ticket = doomed_syncs_.join();
    std::error_code ec = fs().remove_file(root().doomed(), name);
    if (ec == std::errc::no_such_file_or_directory) {
      if (!is_unsure(name)) return {};
      ec = create_marker(name);
      if (!ec) ec = fs().remove_file(root().doomed(), name);
    }
    if (!ec) ec = sync_marker(name, ticket);
    // As long as it may still be on the disk it must be seen here, for the next start too, which would neither know it
    // for doomed nor its number for taken.
    if (ec) create_marker(name);
    return ec;
  }

  std::error_code create_marker(const std::string& name) {
    std::error_code ec;
    typename F::File marker = fs().create_file(root().doomed(), name, ec);
    if (!ec) fs().close(marker);  // there is nothing in it to be lost
    return ec;
  }

  std::error_code sync_marker(const std::string& name, const typename SharedSync<F>::Ticket& ticket) {
    note_unsure(name, true);
    const std::error_code ec = doomed_syncs_.commit(ticket, [this] { return root().sync_directory(root().doomed()); });
    if (!ec) note_unsure(name, false);
    return ec;
  }

  [[nodiscard]] bool is_unsure(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    return unsure_.contains(name);
  }

  void note_unsure(const std::string& name, bool is_unsure) {
    const std::lock_guard lock(mutex_);
    if (is_unsure) {
      unsure_.insert(name);
    } else {
      unsure_.erase(name);
    }
  }

  /// Writes down in which boot of the machine markers are made, before the first one, and finds out whether those that
  /// are there are of an earlier one. Not synced: whatever a power cut leaves of it is not this boot's. Where it cannot
  /// be written, as on a full disk, which has room for a marker yet, the boot counts as not known.
  std::error_code enter_boot() {
    const std::lock_guard lock(boot_mutex_);
    if (boot_entered_) return {};
    const std::string now = fs().boot_id();
    std::error_code ec;
    const std::string then = root().read_small_file(root().doomed(), store_layout::boot_file, now.size(), ec);
    if (root().unless_missing(ec)) return ec;
    const bool is_known = !ec && !now.empty() && then.size() == now.size();
    is_new_boot_ = is_new_boot_ || (is_known && then != now);
    boot_entered_ = is_known && then == now;
    if (boot_entered_) return {};
    ec = root().unless_missing(fs().remove_file(root().doomed(), store_layout::boot_file));
    if (!ec) boot_entered_ = write_boot(now);
    return ec;
  }

  /// A part of it is as good as none.
  bool write_boot(const std::string& id) {
    std::error_code ec;
    typename F::File file = fs().create_file(root().doomed(), store_layout::boot_file, ec);
    if (!ec) ec = fs().write(file, 0, std::as_bytes(std::span(id)));
    return !ec && !fs().close(file);
  }

  /// Of generations that are gone as far as one can see. A sync that failed in an earlier process of this boot may have
  /// lost that, and no later sync tells: a power cut may bring them back, and then they are to be known for doomed.
  std::error_code remove_markers(const std::vector<std::string>& names) {
    if (const std::error_code ec = enter_boot()) return ec;
    {
      const std::lock_guard lock(boot_mutex_);
      if (!is_new_boot_) return {};
    }
    for (const std::string& name : names) {
      if (const std::error_code ec = mark(name, false)) return ec;
    }
    return {};
  }

  std::shared_ptr<StoreRoot<F>> root_;
  StoreDatasets<F>& datasets_;
  SharedSync<F> doomed_syncs_{1};  ///< of `doomed/`
  typename F::Mutex boot_mutex_;   ///< held while the boot is found out; guards the next two
  bool boot_entered_ = false;
  bool is_new_boot_ = false;             ///< the machine was started anew since the last process
  mutable std::mutex mutex_;             ///< guards the rest; held across no operation
  std::set<std::string> unsure_;         ///< markers whose last change is not known to be durable
  std::map<std::string, bool> pending_;  ///< markers that are to be there, or not, and failed to be
  Leftovers leftovers_;
  std::map<std::string, Removal> removals_;  ///< that have begun and not ended, by their name in `trash/`
  std::set<std::string> gone_;               ///< that somebody else has taken away
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safe; one area is published by one thread at a time.
template <FileSystem F>
class StorePublisher {
 public:
  using Area = StagingArea<F>;

  struct Request {
    Area* area;
    Generation generation = {};
    std::error_code error = {};
    bool is_unsure = false;  ///< failed, and the next start may find it: its bytes count until it is taken away
  };

  StorePublisher(StoreRoot<F>& root, StoreDatasets<F>& datasets, StoreRemover<F>& remover)
      : root_(root), datasets_(datasets), remover_(remover) {}

  /// Of each: `chunk.json` written; that, the staging directory, and those of its files synced that are not yet;
  /// renamed; its new parent synced. Only then is it published. After a failed sync none is, and what was renamed is
  /// taken back.
  void publish(std::span<Request> requests) {
    for (Request& request : requests) request.error = seal(*request.area, request.generation);
    sync(requests);
    enter(requests);
    for (Request& request : requests) {
      Area& area = *request.area;
      if (request.error == errc::no_space) area.met_no_space = true;
      const std::lock_guard lock(area.mutex);
      area.sync_failed = area.sync_failed || request.error == errc::sync_failed;
    }
  }

 private:
  /// Writes `chunk.json`, which waits to be synced with the files.
  std::error_code seal(Area& area, Generation& generation) {
    if (area.left_staging) return std::make_error_code(std::errc::bad_file_descriptor);
    ChunkDescriptor descriptor{area.chunk, area.number, {}};
    {
      const std::lock_guard lock(area.mutex);
      if (area.sync_failed) return errc::sync_failed;
      if (area.found.size() != area.chunk.files.size()) return errc::body_too_short;
      descriptor.found = area.found;
    }
    const auto bytes = descriptor.bytes();
    if (!bytes) return errc::chunk_too_large;
    generation = {area.chunk.id, area.chunk.dataset_id, area.chunk.block_range, *bytes, area.number};
    const std::string text = encode_descriptor(descriptor);
    // Of an earlier attempt, which may have run out of space here.
    area.unsynced.drop(store_layout::descriptor_file);
    std::error_code ec = root_.unless_missing(root_.fs().remove_file(area.directory, store_layout::descriptor_file));
    if (!ec) ec = area.remove_notes();
    if (ec) return ec;
    typename F::File file = root_.fs().create_file(area.directory, store_layout::descriptor_file, ec);
    if (!ec) ec = root_.fs().write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) area.unsynced.put(store_layout::descriptor_file, std::move(file));
    return ec;
  }

  void sync(std::span<Request> requests) {
    std::vector<Request*> owners;
    std::deque<typename F::File> files;  // which stay where they are
    std::vector<SyncRequest<typename F::File, typename F::Directory>> syncs;
    for (Request& request : requests) {
      if (request.error) continue;
      for (typename F::File& file : request.area->unsynced.take()) {
        files.push_back(std::move(file));
        owners.push_back(&request);
        syncs.push_back({&files.back()});
      }
      owners.push_back(&request);
      syncs.push_back({nullptr, &request.area->directory});
    }
    root_.sync_together(syncs);
    for (std::size_t i = 0; i < syncs.size(); ++i) {
      std::error_code ec = syncs[i].error;
      const std::error_code close_error =
          syncs[i].file != nullptr ? root_.fs().close(*syncs[i].file) : std::error_code();
      if (!ec) ec = close_error;
      if (!owners[i]->error) owners[i]->error = ec;
    }
  }

  void enter(std::span<Request> requests) {
    std::map<DatasetId, std::vector<Request*>> by_dataset;
    for (Request& request : requests) {
      if (!request.error) by_dataset[request.generation.dataset_id].push_back(&request);
    }
    for (auto& [id, group] : by_dataset) enter(group);
  }

  /// Renames what is to be in one dataset, and makes that durable.
  void enter(std::vector<Request*>& group) {
    std::error_code ec;
    auto dataset = datasets_.make(group.front()->generation.dataset_id, ec);
    for (Request* request : group) {
      const std::string name = store_layout::chunk_name(request->generation);
      request->error = ec ? ec : root_.fs().rename(root_.staging(), request->area->name, dataset.directory(), name);
      if (!request->error) request->area->left_staging = true;
    }
    std::erase_if(group, [](const Request* request) { return bool(request->error); });
    if (group.empty()) return;
    ec = dataset.sync();
    if (!ec) return;
    for (Request* request : group) {
      request->error = ec;
      take_back(dataset.directory(), *request);
    }
  }

  /// A power cut may bring its new name back: it stays in `trash/` whole until the next start, and is not to be served.
  void take_back(const typename F::Directory& dataset, Request& request) {
    const Generation& generation = request.generation;
    Leftovers leftovers;
    const std::string name = store_layout::chunk_name(generation);
    if (remover_.throw_away(dataset, name, store_layout::qualified_name(generation))) {
      leftovers.doomed.push_back(generation);
      request.is_unsure = true;
    }
    if (remover_.doom(generation)) leftovers.unmarked.push_back(generation);
    remover_.leave(leftovers);
  }

  StoreRoot<F>& root_;
  StoreDatasets<F>& datasets_;
  StoreRemover<F>& remover_;
};

}  // namespace garner::detail

// garner/storage/store_quarantine.hpp -----------------------------------------------------------------------
// What was found corrupt and is kept for whoever wants to know why: whole directories in `quarantine/`, each with its
// reason beside it, no more bytes of them than is allowed, the oldest going first. How they come there is in
// store_remover.hpp; nothing here is ever served.

namespace garner {

/// How much of it is kept, and for how long.
struct QuarantineLimits {
  std::uint64_t max_bytes = std::uint64_t{1} << 30;  ///< of files, and `entry_bytes` for each directory
  std::uint64_t keep_free_bytes = 0;                 ///< on the disk: less than that, and some of it goes

  static constexpr std::uint64_t entry_bytes = 4096;
};

namespace detail {

/// Thread-safe.
template <FileSystem F>
class StoreQuarantine {
 public:
  StoreQuarantine(std::shared_ptr<StoreRoot<F>> root, const QuarantineLimits& limits)
      : root_(std::move(root)), limits_(limits) {}

  /// What the start has found there, in any order.
  void found(std::vector<Generation> generations) {
    std::sort(generations.begin(), generations.end(),
              [](const Generation& a, const Generation& b) { return a.number < b.number; });
    const std::lock_guard lock(mutex_);
    for (const Generation& generation : generations) push(generation);
  }

  /// It stands there. Its reason is written as well as may be, and what is too much now goes.
  void keep(const Generation& generation, const std::string& reason) {
    const std::string name = store_layout::qualified_name(generation);
    root().write_small_file(root().quarantine(), store_layout::reason_name(name), reason + '\n');
    root().sync_directory(root().quarantine());
    {
      const std::lock_guard lock(mutex_);
      push(generation);
    }
    shrink([this] { return bytes_ > limits_.max_bytes; });
  }

  /// Sees to it that `bytes` more can be written, as far as what is kept here is in the way of that.
  void make_room(std::uint64_t bytes) {
    if (this->bytes() == 0) return;
    std::error_code ec;
    const std::uint64_t free = root().fs().free_space(ec);
    const std::uint64_t needed = bytes > std::numeric_limits<std::uint64_t>::max() - limits_.keep_free_bytes
                                     ? std::numeric_limits<std::uint64_t>::max()
                                     : bytes + limits_.keep_free_bytes;
    std::uint64_t gone = 0;
    shrink([&] { return ec || (free < needed && needed - free > gone); }, &gone);
  }

  /// All that may go.
  [[nodiscard]] std::uint64_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *root_; }

  static std::uint64_t size_of(const Generation& generation) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();  // names are anyone's: sums stay sums
    return std::min(generation.bytes, most * QuarantineLimits::entry_bytes) + QuarantineLimits::entry_bytes;
  }

  void push(const Generation& generation) {
    kept_.push_back(generation);
    bytes_ += size_of(generation);
  }

  /// Removes the oldest while `too_much()`, which is asked under the lock. What cannot be removed is the next start's.
  template <class TooMuch>
  void shrink(const TooMuch& too_much, std::uint64_t* gone = nullptr) {
    for (;;) {
      Generation oldest;
      {
        const std::lock_guard lock(mutex_);
        if (kept_.empty() || !too_much()) return;
        oldest = kept_.front();
        kept_.pop_front();
        bytes_ -= size_of(oldest);
      }
      if (gone != nullptr) *gone += size_of(oldest);
      take_away(oldest);
    }
  }

  /// An earlier process may have been killed before it synced where it was taken from: half of it must not come back.
  void take_away(const Generation& generation) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    const typename F::Directory dataset =
        root().fs().open_directory(root().chunks(), store_layout::dataset_name(generation.dataset_id), ec);
    if (root().unless_missing(ec)) return;
    if (!ec && root().sync_directory(dataset)) return;
    root().fs().remove_file(root().quarantine(), store_layout::reason_name(name));
    root().remove_tree(root().quarantine(), name, generation.bytes);
  }

  std::shared_ptr<StoreRoot<F>> root_;
  const QuarantineLimits limits_;
  mutable std::mutex mutex_;  ///< guards the next two; held across no operation
  std::deque<Generation> kept_;
  std::uint64_t bytes_ = 0;
};

}  // namespace detail
}  // namespace garner

// garner/storage/store_reader.hpp ---------------------------------------------------------------------------
// How a store reads what it has published: `chunk.json`, and the files compared with it. Nothing that lies there is
// trusted, and nothing is changed; how things come and go is in store_protocol.hpp and store_remover.hpp.

namespace garner::detail {

/// Thread-safety: as its root.
template <FileSystem F>
class StoreReader {
 public:
  explicit StoreReader(StoreRoot<F>& root) : root_(root) {}

  /// `errc::corrupt_chunk` where it is not whole or is another generation's.
  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(generation, ec);
    const ChunkDescriptor descriptor = ec ? ChunkDescriptor() : read_descriptor(directory, generation, ec);
    return ec ? DataChunk() : descriptor.described();
  }

  /// The bytes of `chunk.json`, whatever they are.
  std::string descriptor_text(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(generation, ec);
    return ec ? std::string()
              : root_.read_small_file(directory, store_layout::descriptor_file, ChunkDescriptor::max_size, ec);
  }

  /// Whether it is in `chunks/`, doomed or not.
  [[nodiscard]] bool holds(const Generation& generation) const {
    std::error_code ec;
    const Directory directory = open(generation, ec);
    return !ec;
  }

  /// As `BasicStore` says.
  std::error_code verify(const Generation& generation, VerifyDepth depth, const VerifyProgress& progress) const {
    std::error_code ec;
    const Directory directory = open(generation, ec);
    if (ec) return ec;
    const ChunkDescriptor descriptor = read_descriptor(directory, generation, ec);
    if (ec) return ec;
    bool as_published = true;
    ec = fs().list(directory, [&](std::string_view name, EntryKind kind) {
      const bool known = name == store_layout::descriptor_file || descriptor.found.contains(std::string(name));
      as_published = as_published && known && kind == EntryKind::file;
    });
    if (!ec && !as_published) ec = errc::corrupt_chunk;
    for (const auto& [name, found] : descriptor.found) {
      if (ec) break;
      ec = depth == VerifyDepth::sizes ? verify_size(directory, name, found)
                                       : verify_bytes(directory, name, found, progress);
    }
    return ec;
  }

 private:
  using Directory = typename F::Directory;

  [[nodiscard]] F& fs() const noexcept { return root_.fs(); }

  Directory open(const Generation& generation, std::error_code& ec) const {
    const Directory dataset =
        fs().open_directory(root_.chunks(), store_layout::dataset_name(generation.dataset_id), ec);
    if (!ec) {
      Directory directory = fs().open_directory(dataset, store_layout::chunk_name(generation), ec);
      if (!ec) return directory;
    }
    if (ec == std::errc::no_such_file_or_directory) ec = errc::no_such_generation;
    if (ec == errc::not_a_directory) ec = errc::corrupt_chunk;
    return {};
  }

  /// What stands where a published file should be, or does not, is the chunk's fault; the rest is the disk's.
  static std::error_code as_corruption(std::error_code ec) {
    for (const std::errc wrong : {std::errc::no_such_file_or_directory, std::errc::too_many_symbolic_link_levels,
                                  std::errc::is_a_directory, std::errc::invalid_argument}) {
      if (ec == wrong) return errc::corrupt_chunk;
    }
    return ec;
  }

  ChunkDescriptor read_descriptor(const Directory& directory, const Generation& generation, std::error_code& ec) const {
    const std::string text =
        root_.read_small_file(directory, store_layout::descriptor_file, ChunkDescriptor::max_size, ec);
    ec = as_corruption(ec);
    if (ec) return {};
    ChunkDescriptor descriptor = decode_descriptor(text, ec);
    if (!ec && !agrees(descriptor, generation)) ec = errc::corrupt_chunk;
    return descriptor;
  }

  std::error_code verify_size(const Directory& directory, const std::string& name, const FoundFile& published) const {
    std::error_code ec;
    const FileStatus status = fs().status(directory, name, ec);
    if (ec) return as_corruption(ec);
    return status.size == published.size ? std::error_code() : make_error_code(errc::corrupt_chunk);
  }

  std::error_code verify_bytes(const Directory& directory, const std::string& name, const FoundFile& published,
                               const VerifyProgress& progress) const {
    std::error_code ec;
    typename F::File file = fs().open_file(directory, name, Access::read, ec);
    if (ec) return as_corruption(ec);
    // One byte more than there should be, so that a file that is no longer takes one read.
    constexpr std::size_t most = std::size_t{256} << 10;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(published.size, most - 1)) + 1);
    DigestStream digests;
    std::uint64_t size = 0;
    for (std::size_t count = buffer.size(); count == buffer.size();) {
      count = fs().read(file, size, buffer, ec);
      if (ec) return ec;
      digests.update(std::span(buffer).first(count));
      size += count;
      if (size > published.size) return errc::corrupt_chunk;
      if (!progress(count)) return errc::cancelled;
    }
    const bool same = size == published.size && digests.digests().xxh3 == published.digests.xxh3;
    return same ? std::error_code() : make_error_code(errc::corrupt_chunk);
  }

  StoreRoot<F>& root_;
};

}  // namespace garner::detail

namespace garner {

/// A Storage that keeps each generation as a directory. See `Storage` for what each member promises; here stands how.
///
/// A sync that failed means that bytes are lost (the kernel forgets that they were dirty, and the next sync succeeds).
/// So none is ever repeated on what it failed for, and nothing is renamed after it.
///
/// Thread-safety: as `Storage` asks. Lifetime: a `Staging` and its files keep the directory's lock; the store may be
/// moved meanwhile, and a moved-from store can only be destroyed.
template <FileSystem F>
class BasicStore {
 public:
  using Location = std::filesystem::path;  ///< absolute, of the generation's directory
  using Staging = BasicStaging<F>;
  using StagedFile = BasicStagedFile<F>;

  /// Opens the store in the root of `fs`. Throws `Error` as `StoreRoot` does.
  explicit BasicStore(F fs, Durability durability = Durability::full, const QuarantineLimits& limits = {})
      : state_(std::make_unique<State>(std::move(fs), durability, limits)) {}

  /// Reads names only (store_recovery.hpp). What an earlier process had no time to sync is synced before it is told.
  /// `known`: qualified names of generations that are told although they are doomed.
  Recovery recover(const std::function<void(const Generation&)>& found, const std::set<std::string>& known = {}) {
    detail::StoreScan scan = detail::StoreScanner<F>(root(), found, state_->is_recovery_stopped, known).run();
    state_->bytes_used += scan.bytes;
    state_->remover.leave(scan.leftovers);
    state_->datasets.distrust(scan.empty_datasets);
    state_->quarantine.found(std::move(scan.quarantined));
    const std::lock_guard lock(state_->mutex);
    state_->unrecognised = std::move(scan.unrecognised);
    return std::move(scan.recovery);
  }

  /// `recover` ends early, with `errc::cancelled`: within some thousand names.
  void stop_recovery() noexcept { state_->is_recovery_stopped = true; }

  /// What `recover` found that garner did not make: paths below the data directory. Left alone.
  [[nodiscard]] std::vector<std::string> unrecognised() const {
    const std::lock_guard lock(state_->mutex);
    return state_->unrecognised;
  }

  /// As `StoreRemover` says.
  std::error_code clean_up(Partial partial) {
    std::uint64_t freed = 0;
    const std::error_code ec = state_->remover.clean_up(partial, freed);
    give_back(freed);
    return ec;
  }
  std::error_code doom(const Generation& generation) { return state_->remover.doom(generation); }
  std::error_code spare(const Generation& generation) { return state_->remover.spare(generation); }
  std::error_code remove(const Generation& generation) {
    bool left = false;
    const std::error_code ec = state_->remover.remove(generation, left);
    if (left) give_back(generation.bytes);
    return ec;
  }

  /// As `remove`, into `quarantine/`; see `StoreQuarantine` for what becomes of it there.
  std::error_code quarantine(const Generation& generation, const std::string& reason) {
    bool left = false;
    bool kept = false;
    const std::error_code ec = state_->remover.set_aside(generation, left, kept);
    if (left) give_back(generation.bytes);
    if (kept) state_->quarantine.keep(generation, reason);
    return ec;
  }

  /// With what an earlier run had of this chunk, whatever its description was then: each file is looked at when it is
  /// opened. `errc::chunk_too_large` where the description would not fit into `chunk.json`.
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    ec.clear();
    if (detail::descriptor_size_bound(chunk) > ChunkDescriptor::max_size) ec = errc::chunk_too_large;
    if (!ec && is_read_only() && probe_writing()) ec = errc::read_only;
    if (ec) return {};
    state_->quarantine.make_room(declared_bytes(chunk).value_or(0));
    auto area = std::make_shared<detail::StagingArea<F>>();
    area->root = state_->root;
    area->chunk = chunk;
    area->number = number;
    area->name = store_layout::staging_name({chunk.id, number});
    const bool is_adopted = adopt_partial(chunk.id, area->name, ec);
    if (!ec && !is_adopted) ec = fs().make_directory(root().staging(), area->name);
    if (ec == errc::read_only) state_->is_read_only = true;
    if (ec) return {};
    area->directory = fs().open_directory(root().staging(), area->name, ec);
    Staging staging(std::move(area));
    if (!ec && is_adopted) ec = staging.area_->adopt();
    if (!ec) return staging;
    discard(staging);
    return {};
  }

  /// As `StorePublisher` says, each of `requests` by itself. `errc::body_too_short` where a file is not finished,
  /// `errc::sync_failed` where any of the syncs failed: then the staging can only be discarded.
  void publish(std::span<PublishRequest<Staging>> requests) {
    std::vector<typename detail::StorePublisher<F>::Request> asked;
    asked.reserve(requests.size());
    for (PublishRequest<Staging>& request : requests) {
      request.error = std::make_error_code(std::errc::bad_file_descriptor);
      if (request.staging->area_) asked.push_back({request.staging->area_.get()});
    }
    state_->publisher.publish(asked);
    auto at = asked.begin();
    for (PublishRequest<Staging>& request : requests) {
      if (!request.staging->area_) continue;
      request.generation = at->generation;
      request.error = at->error;
      if (!at->error || at->is_unsure) state_->bytes_used += at->generation.bytes;
      if (!at->error) state_->failed_fetches = 0;
      ++at;
    }
  }

  Generation publish(Staging& staging, std::error_code& ec) {
    PublishRequest<Staging> request{&staging};
    publish(std::span(&request, 1));
    ec = request.error;
    return ec ? Generation() : request.generation;
  }

  std::error_code discard(Staging& staging) {
    if (!staging.area_) return {};
    note_failed_sync(*staging.area_);
    if (std::exchange(staging.area_->left_staging, true)) return {};
    staging.area_->unsynced.take();
    const std::error_code ec = root().remove_tree(root().staging(), staging.area_->name);
    if (staging.area_->met_no_space) state_->quarantine.make_room(std::numeric_limits<std::uint64_t>::max());
    if (!ec) return {};
    detail::Leftovers leftovers;
    leftovers.staging.push_back(staging.area_->name);
    state_->remover.leave(leftovers);
    return ec;
  }

  /// Computed from the name; the disk is not asked.
  [[nodiscard]] Location location(const Generation& generation) const {
    return root().path() / store_layout::chunk_path(generation);
  }

  /// Reads `chunk.json`: `errc::corrupt_chunk` where it is not whole or is another generation's.
  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    return reader().describe(generation, ec);
  }

  /// Compares the directory's entries with the names in `chunk.json`, and what it says of each with the size or, with
  /// `VerifyDepth::digests`, with size and XXH3-128. `errc::io_error` where the disk does not give the bytes.
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    return reader().verify(generation, depth, progress);
  }

  /// What is set aside counts as free: it goes when the room is needed.
  [[nodiscard]] StoreUsage usage() const {
    std::error_code ec;
    const std::uint64_t free = fs().free_space(ec);
    return {state_->bytes_used.load(), ec ? 0 : free + state_->quarantine.bytes()};
  }

  /// After two fetches in a row whose syncs failed, or where the file system says so: `stage` fails then with
  /// `errc::read_only`, until it could write something and sync that. What is there can be read.
  [[nodiscard]] bool is_read_only() const noexcept { return state_->is_read_only; }

  /// Finds out whether something can be written and synced; where it can, the store is not read-only.
  std::error_code probe_writing() {
    const std::lock_guard lock(state_->probe_mutex);
    if (const std::error_code ec = root().probe_writing()) return ec;
    state_->failed_fetches = 0;
    state_->is_read_only = false;
    return {};
  }

  /// Whether `stage` would go on with what an earlier run had of this chunk.
  [[nodiscard]] bool has_partial(const ChunkId& id) const { return state_->remover.has_partial(id); }
  void give_up_partial() { state_->remover.give_up_partial(); }

  /// The bytes of `chunk.json`, whatever they are.
  std::string descriptor_text(const Generation& generation, std::error_code& ec) const {
    return reader().descriptor_text(generation, ec);
  }

  /// Whether it is in `chunks/`, doomed or not.
  [[nodiscard]] bool holds(const Generation& generation) const { return reader().holds(generation); }

  /// What else is kept in this directory, and how well it does.
  [[nodiscard]] const std::shared_ptr<StoreRoot<F>>& root_handle() const noexcept { return state_->root; }

 private:
  struct State {
    State(F fs, Durability durability, const QuarantineLimits& limits)
        : root(std::make_shared<StoreRoot<F>>(std::move(fs), durability)),
          datasets(*root),
          remover(root, datasets),
          publisher(*root, datasets, remover),
          quarantine(root, limits) {}

    std::shared_ptr<StoreRoot<F>> root;  ///< shared with the staging areas
    std::atomic<std::uint64_t> bytes_used{0};
    std::atomic<unsigned> failed_fetches{0};  ///< in a row, by syncs
    std::atomic<bool> is_read_only{false};
    std::atomic<bool> is_recovery_stopped{false};
    detail::StoreDatasets<F> datasets;
    detail::StoreRemover<F> remover;
    detail::StorePublisher<F> publisher;
    detail::StoreQuarantine<F> quarantine;
    typename F::Mutex probe_mutex;  ///< held while it is found out whether it is read-only yet
    std::mutex mutex;               ///< guards the next one
    std::vector<std::string> unrecognised;
  };

  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *state_->root; }
  [[nodiscard]] F& fs() const noexcept { return state_->root->fs(); }
  [[nodiscard]] detail::StoreReader<F> reader() const { return detail::StoreReader<F>(root()); }

  /// A second try, into new files, that fails like the first one says that it is the disk.
  void note_failed_sync(detail::StagingArea<F>& area) {
    const std::lock_guard lock(area.mutex);
    if (area.sync_failed && ++state_->failed_fetches >= 2) state_->is_read_only = true;
  }

  /// Of what has left `chunks/`. What somebody put there in the place of a chunk was never counted.
  void give_back(std::uint64_t bytes) noexcept {
    std::uint64_t used = state_->bytes_used.load();
    while (!state_->bytes_used.compare_exchange_weak(used, used - std::min(used, bytes))) {
    }
  }

  /// Renames what an earlier run had of this chunk; false where there is nothing.
  bool adopt_partial(const ChunkId& id, const std::string& name, std::error_code& ec) {
    const std::string partial = state_->remover.take_partial(id);
    if (partial.empty()) return false;
    ec = fs().rename(root().staging(), partial, root().staging(), name);
    if (!ec) return true;
    detail::Leftovers leftovers;
    leftovers.staging.push_back(partial);
    state_->remover.leave(leftovers);
    return false;
  }

  std::unique_ptr<State> state_;
};

}  // namespace garner

// garner/storage/store_volume.hpp ---------------------------------------------------------------------------
// One of the volumes of a store: where it is, what may be put there, and the store in it. Which of several is taken is
// decided in store_volumes.hpp.

namespace garner {

/// Where a volume is, and its limits.
template <FileSystem F>
struct VolumePlace {
  std::filesystem::path path;  ///< absolute; what `F::path` will say
  std::function<F()> open;     ///< throws `Error`
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t keep_free_bytes = 0;
};

namespace detail {

/// Thread-safe, but for `open`, which is called by one thread at a time. Calls of the store are made outside of its
/// lock.
template <FileSystem F>
class Volume {
 public:
  using Store = BasicStore<F>;
  using Area = StagingArea<F>;

  Volume(VolumePlace<F> place, Durability durability, const QuarantineLimits& quarantine)
      : place_(std::move(place)), durability_(durability), quarantine_(quarantine) {}
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;
  ~Volume() = default;

  /// Throws as `BasicStore` does. What staging areas there are of an earlier opening stay that one's.
  void open() { take(std::make_shared<Store>(place_.open(), durability_, quarantine_)); }
  void take(std::shared_ptr<Store> store) {
    const std::lock_guard lock(mutex_);
    if (store_) store_->root_handle()->give_up();
    store_ = std::move(store);
    state_ = VolumeState::healthy;
    areas_.clear();
    ++openings_;
  }

  /// What is open cannot be used, and is to be opened anew.
  void forget() {
    const std::lock_guard lock(mutex_);
    store_.reset();
    state_ = VolumeState::away;
    openings_ = 0;  // it was not seen, as far as anyone was told
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return place_.path; }

  /// Null where it is away.
  [[nodiscard]] std::shared_ptr<Store> store() const {
    const std::lock_guard lock(mutex_);
    return state_ == VolumeState::away ? nullptr : store_;
  }

  /// Also while it is away, where it was open before.
  [[nodiscard]] std::shared_ptr<Store> opened() const {
    const std::lock_guard lock(mutex_);
    return store_;
  }

  [[nodiscard]] VolumeState state() const {
    const std::lock_guard lock(mutex_);
    return state_;
  }
  void set_state(VolumeState state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
  }

  /// Finds out what it can do now. Where it was away and could be opened anew only, `found` is called for each
  /// generation that it holds, and last for none; nothing that was staged on it before counts. Blocks; one thread at a
  /// time.
  void examine(const std::function<void(const Generation&)>& found) {
    std::shared_ptr<Store> store = opened();
    std::error_code ec = store ? store->root_handle()->probe_reading() : make_error_code(errc::io_error);
    if (ec == errc::too_many_open_files) return;  // says nothing of the disk
    if (ec) {
      // First it is told to be away: only what is away can come back.
      const bool was_away = state() == VolumeState::away;
      set_state(VolumeState::away);
      if (!was_away) return;
      std::vector<Generation> held;
      store = open_anew(held);
      if (!store) return;
      take(store);
      for (const Generation& generation : held) found(generation);
    }
    ec = store->probe_writing();
    if (ec == errc::too_many_open_files) return;
    set_state(ec ? VolumeState::read_only : VolumeState::healthy);
  }

  /// May block.
  [[nodiscard]] VolumeStatus status() const {
    Limits limits;
    return status(limits);
  }

  /// Bytes that nothing has been promised yet; nothing where there are fewer than `bytes`, or it was found not to be
  /// healthy: a store that says so of itself is to be asked, or it would never find out more. May block.
  [[nodiscard]] std::optional<std::uint64_t> room_for(std::uint64_t bytes) const {
    Limits limits;
    status(limits);
    const bool is_healthy = state() == VolumeState::healthy;
    const std::uint64_t room = std::min(less(limits.on_disk, limits.to_come), less(limits.allowed, limits.declared));
    if (!is_healthy || room < std::max<std::uint64_t>(bytes, 1)) return std::nullopt;
    return room;
  }

  /// Remembers which generations this process has doomed and not removed yet: they may be pinned, and are no leftovers
  /// to another opening.
  void note_doomed(const Generation& generation, bool is_doomed) {
    const std::lock_guard lock(mutex_);
    if (is_doomed) {
      doomed_.insert(store_layout::qualified_name(generation));
    } else if (!doomed_.empty()) {
      doomed_.erase(store_layout::qualified_name(generation));
    }
  }

  /// What is staged on it counts until it is dropped, or gone.
  void add(const std::shared_ptr<Area>& area) {
    const std::lock_guard lock(mutex_);
    std::erase_if(areas_, [](const std::weak_ptr<Area>& weak) { return weak.expired(); });
    areas_.push_back(area);
  }
  void drop(const std::shared_ptr<Area>& area) {
    const std::lock_guard lock(mutex_);
    std::erase_if(areas_, [&](const std::weak_ptr<Area>& weak) { return weak.lock() == area; });
  }

 private:
  struct Limits {
    std::uint64_t on_disk = 0;   ///< bytes that may still be written
    std::uint64_t allowed = 0;   ///< bytes that may still be published
    std::uint64_t declared = 0;  ///< of what is being staged
    std::uint64_t to_come = 0;   ///< of that, not written yet
  };

  [[nodiscard]] std::set<std::string> doomed() const {
    const std::lock_guard lock(mutex_);
    return doomed_;
  }

  /// Null where that fails, with whatever error.
  std::shared_ptr<Store> open_anew(std::vector<Generation>& held) const {
    if (!place_.open) return nullptr;
    try {
      auto store = std::make_shared<Store>(place_.open(), durability_, quarantine_);
      const auto take = [&held](const Generation& generation) { held.push_back(generation); };
      const Recovery recovery = store->recover(take, doomed());
      store->give_up_partial();  // this run began anew elsewhere
      return recovery.error ? nullptr : store;
    } catch (const std::system_error&) {
      return nullptr;
    }
  }

  static std::uint64_t less(std::uint64_t bytes, std::uint64_t by) noexcept { return bytes - std::min(bytes, by); }

  VolumeStatus status(Limits& limits) const {
    VolumeStatus status;
    status.path = place_.path.string();
    std::shared_ptr<Store> store;
    {
      const std::lock_guard lock(mutex_);
      status.state = state_;
      status.openings = openings_;
      if (state_ != VolumeState::away) store = store_;
      for (const std::weak_ptr<Area>& weak : areas_) {
        const auto area = weak.lock();
        const std::uint64_t bytes = area ? declared_bytes(area->chunk).value_or(0) : 0;
        limits.declared += bytes;
        limits.to_come += area ? less(bytes, area->taken) : 0;
      }
    }
    if (!store) return status;
    const StoreUsage usage = store->usage();
    limits.on_disk = less(usage.bytes_free, place_.keep_free_bytes);
    limits.allowed = less(place_.max_bytes, usage.bytes_used);
    status.bytes_used = usage.bytes_used;
    if (status.state == VolumeState::healthy && store->is_read_only()) status.state = VolumeState::read_only;
    if (status.state == VolumeState::healthy) status.bytes_free = std::min(limits.on_disk, limits.allowed);
    return status;
  }

  VolumePlace<F> place_;
  Durability durability_;
  QuarantineLimits quarantine_;
  mutable std::mutex mutex_;  ///< guards the rest; held across no operation
  std::shared_ptr<Store> store_;
  VolumeState state_ = VolumeState::away;
  std::uint64_t openings_ = 0;
  std::vector<std::weak_ptr<Area>> areas_;
  std::set<std::string> doomed_;  ///< qualified names
};

}  // namespace detail
}  // namespace garner

// garner/storage/volume_descriptions.hpp --------------------------------------------------------------------
// Which volume of a store describes what is on which other one: kept, found and dropped with what they describe, and
// compared with that by each start. The files themselves are in store_descriptions.hpp.

// garner/storage/store_descriptions.hpp ---------------------------------------------------------------------
// Descriptions of what is on the other volumes of a store: copies of their `chunk.json`, so that a chunk whose volume
// is away can be fetched again. Nothing depends on them but that: they are written unsynced, and compared when read.

namespace garner::detail {

/// Those that one volume keeps: `descriptions/{dataset id}-{chunk name}`, made when there is something to be kept.
template <FileSystem F>
class StoreDescriptions {
 public:
  explicit StoreDescriptions(StoreRoot<F>& root) : root_(root) {}

  /// As far as that is possible.
  std::error_code write(const Generation& generation, std::string_view text) {
    std::error_code ec = fs().make_directory(fs().root(), store_layout::descriptions_directory);
    if (ec == std::errc::file_exists) ec.clear();
    if (ec) return ec;
    const Directory directory = open(ec);
    const std::string name = store_layout::qualified_name(generation);
    if (!ec) ec = root_.unless_missing(fs().remove_file(directory, name));
    if (ec) return ec;
    typename F::File file = fs().create_file(directory, name, ec);
    if (!ec) ec = fs().write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) ec = fs().close(file);
    return ec;
  }

  /// `errc::no_such_generation` where there is none, `errc::corrupt_chunk` where it is another's or not whole.
  DataChunk read(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(ec);
    std::string text;
    if (!ec) {
      text = root_.read_small_file(directory, store_layout::qualified_name(generation), ChunkDescriptor::max_size, ec);
    }
    if (ec == std::errc::no_such_file_or_directory) ec = errc::no_such_generation;
    if (ec) return {};
    const ChunkDescriptor descriptor = decode_descriptor(text, ec);
    if (!ec && !agrees(descriptor, generation)) ec = errc::corrupt_chunk;
    return ec ? DataChunk() : descriptor.described();
  }

  /// Gone, durably. No error where there is none.
  std::error_code remove(const Generation& generation) {
    std::error_code ec;
    const Directory directory = open(ec);
    if (!ec) ec = fs().remove_file(directory, store_layout::qualified_name(generation));
    if (ec == std::errc::no_such_file_or_directory) return {};
    return ec ? ec : root_.sync_directory(directory);
  }

  /// Calls `found(generation)` for each; what does not read as one is left alone.
  std::error_code list(const std::function<void(const Generation&)>& found) const {
    std::error_code ec;
    const Directory directory = open(ec);
    if (ec) return root_.unless_missing(ec);
    return fs().list(directory, [&found](std::string_view name, EntryKind kind) {
      const auto generation = store_layout::parse_qualified_name(name);
      if (kind == EntryKind::file && generation) found(*generation);
    });
  }

 private:
  using Directory = typename F::Directory;

  [[nodiscard]] F& fs() const noexcept { return root_.fs(); }

  Directory open(std::error_code& ec) const {
    return fs().open_directory(fs().root(), store_layout::descriptions_directory, ec);
  }

  StoreRoot<F>& root_;
};

}  // namespace garner::detail

namespace garner::detail {

/// Does nothing where there is one volume. Thread-safe, if one generation's calls come one after another.
template <FileSystem F>
class VolumeDescriptions {
 public:
  using Volumes = std::vector<std::unique_ptr<Volume<F>>>;

  explicit VolumeDescriptions(const Volumes& volumes) : volumes_(volumes) {}

  /// Has what is on a volume described by the next one that takes it. Where none does, it is not described.
  void keep(const Generation& generation) const {
    const auto home = volumes_.size() > 1 ? volumes_[generation.volume]->store() : nullptr;
    std::error_code ec;
    const std::string text = home ? home->descriptor_text(generation, ec) : std::string();
    if (!home || ec) return;
    for (std::size_t step = 1; step < volumes_.size(); ++step) {
      const Volume<F>& volume = *volumes_[(generation.volume + step) % volumes_.size()];
      const auto store = volume.store();
      if (!store || volume.state() != VolumeState::healthy) continue;
      if (!StoreDescriptions<F>(*store->root_handle()).write(generation, text)) return;
    }
  }

  /// Before what it describes goes: a start without that one's volume would want it back. Where a volume is away or
  /// refuses changes, its description stays until a start at which all are there.
  std::error_code drop(const Generation& generation) const {
    std::error_code first;
    for (std::size_t index = 0; volumes_.size() > 1 && index < volumes_.size(); ++index) {
      const auto store = volumes_[index]->store();
      if (!store || index == generation.volume || volumes_[index]->state() != VolumeState::healthy) continue;
      const std::error_code ec = StoreDescriptions<F>(*store->root_handle()).remove(generation);
      if (!first) first = ec;
    }
    return first;
  }

  /// With `errc::no_such_generation` where nobody describes it.
  DataChunk find(const Generation& generation, std::error_code& ec) const {
    ec = errc::no_such_generation;
    for (std::size_t index = 0; volumes_.size() > 1 && index < volumes_.size(); ++index) {
      const auto store = volumes_[index]->store();
      if (!store) continue;
      std::error_code one;
      DataChunk chunk = StoreDescriptions<F>(*store->root_handle()).read(generation, one);
      if (!one) {
        ec.clear();
        return chunk;
      }
      if (one != errc::no_such_generation) ec = one;
    }
    return {};
  }

  /// A start has found `held`. Where volumes are away: calls `found` for what is described and not on any of the
  /// others. Where none is: what is described and not there, and what is there and not described, is for `clean_up`.
  void compare(const std::vector<Generation>& held, const std::function<void(const Generation&)>& found) {
    if (volumes_.size() < 2) return;
    const std::unordered_set<Generation, Hash> all = without_volumes(held);
    std::unordered_set<Generation, Hash> described;
    for (const auto& volume : volumes_) {
      const auto store = volume->store();
      if (!store) continue;
      StoreDescriptions<F>(*store->root_handle()).list([&](const Generation& generation) {
        described.insert(generation);
      });
    }
    const std::optional<std::uint32_t> away = first_away();
    for (Generation generation : described) {
      if (all.contains(generation)) continue;
      if (!away) {
        orphans_.push_back(generation);
      } else if (!is_on_any(generation)) {
        generation.volume = *away;
        found(generation);
      }
    }
    for (const Generation& generation : held) {
      Generation anywhere = generation;
      anywhere.volume = 0;
      if (!away && !described.contains(anywhere)) undescribed_.push_back(generation);
    }
  }

  /// What `compare` has left, as far as that is possible.
  void clean_up() {
    std::vector<Generation> orphans;
    std::vector<Generation> undescribed;
    {
      const std::lock_guard lock(mutex_);
      orphans.swap(orphans_);
      undescribed.swap(undescribed_);
    }
    for (const Generation& generation : orphans) {
      for (const auto& volume : volumes_) {
        if (const auto store = volume->store()) StoreDescriptions<F>(*store->root_handle()).remove(generation);
      }
    }
    for (const Generation& generation : undescribed) keep(generation);
  }

 private:
  struct Hash {
    std::size_t operator()(const Generation& generation) const noexcept {
      return std::hash<ChunkId>()(generation.id) ^ static_cast<std::size_t>(generation.number);
    }
  };

  static std::unordered_set<Generation, Hash> without_volumes(const std::vector<Generation>& held) {
    std::unordered_set<Generation, Hash> out;
    out.reserve(held.size());
    for (Generation generation : held) {
      generation.volume = 0;
      out.insert(generation);
    }
    return out;
  }

  [[nodiscard]] std::optional<std::uint32_t> first_away() const {
    for (std::uint32_t index = 0; index < volumes_.size(); ++index) {
      if (!volumes_[index]->store()) return index;
    }
    return std::nullopt;
  }

  /// Though doomed, and so not found.
  [[nodiscard]] bool is_on_any(const Generation& generation) const {
    for (const auto& volume : volumes_) {
      const auto store = volume->store();
      if (store && store->holds(generation)) return true;
    }
    return false;
  }

  const Volumes& volumes_;
  std::mutex mutex_;  ///< guards the next two
  std::vector<Generation> orphans_;
  std::vector<Generation> undescribed_;
};

}  // namespace garner::detail

namespace garner {

/// A Storage over one or more `BasicStore`s, on each of which the protocol of store_protocol.hpp holds by itself: no
/// generation is on two volumes, and none of them needs another to be read. What is staged goes to the volume that has
/// the most free bytes, within its limits and less what is staged there already.
///
/// Thread-safety, lifetime and exceptions: as `BasicStore`.
template <FileSystem F>
class BasicVolumes {
 public:
  using Location = std::filesystem::path;  ///< absolute, of the generation's directory
  using Staging = BasicStaging<F>;
  using StagedFile = BasicStagedFile<F>;

  /// One volume, without limits. Throws as `BasicStore` does.
  explicit BasicVolumes(F fs, Durability durability = Durability::full, const QuarantineLimits& quarantine = {})
      : state_(std::make_unique<State>()) {
    VolumePlace<F> place{fs.path(), nullptr, no_limit, 0};
    state_->volumes.push_back(std::make_unique<Volume>(std::move(place), durability, quarantine));
    state_->volumes.front()->take(std::make_shared<BasicStore<F>>(std::move(fs), durability, quarantine));
  }

  /// As `places` says: there is at least one. Throws as `BasicStore` does where none can be opened; one of several is
  /// away then, unless what is wrong with it is no failure: it is in use, or of another format, or no directory.
  explicit BasicVolumes(std::vector<VolumePlace<F>> places, Durability durability = Durability::full,
                        const QuarantineLimits& quarantine = {})
      : state_(std::make_unique<State>()) {
    for (VolumePlace<F>& place : places) {
      state_->is_limited = state_->is_limited || place.max_bytes != no_limit || place.keep_free_bytes != 0;
      state_->volumes.push_back(std::make_unique<Volume>(std::move(place), durability, quarantine));
    }
    std::optional<Error> failed;
    std::uint32_t open = 0;
    for (std::uint32_t index = 0; index < count(); ++index) {
      try {
        volume(index).open();
        ++open;
      } catch (const Error& error) {
        for (const errc refusal : {errc::directory_in_use, errc::unknown_format, errc::not_a_directory}) {
          if (error.code() == refusal) throw;
        }
        if (!failed) failed = error;
      }
    }
    if (open == 0 && failed) throw Error(*failed);
  }

  /// Of several volumes, one that cannot be read is away; what the others describe of it is found there. New
  /// generations are numbered from above all that any volume has; while one is away what it has is not known, and a
  /// number that no store has come to by counting is above it, too.
  Recovery recover(const std::function<void(const Generation&)>& found) {
    if (count() == 1) return volume(0).store()->recover(found);
    Recovery out;
    bool any_away = false;
    std::optional<std::uint32_t> first;
    std::vector<Generation> all;
    for (std::uint32_t index = 0; index < count(); ++index) {
      Recovery one;
      std::vector<Generation> held;
      if (const auto store = volume(index).store()) {
        one = store->recover([&held](const Generation& generation) { held.push_back(generation); });
        if (one.error == errc::cancelled) return one;
        if (one.error) volume(index).forget();
      } else {
        any_away = true;
        continue;
      }
      out.last_generation = std::max(out.last_generation, one.last_generation);
      out.has_partial = out.has_partial || one.has_partial;
      if (one.error) {
        any_away = true;
        if (!out.error) std::tie(out.error, out.subject) = std::pair(one.error, one.subject);
        continue;
      }
      if (!first) first = index;
      for (Generation& generation : held) {
        generation.volume = index;
        found(generation);
      }
      all.insert(all.end(), held.begin(), held.end());
    }
    if (first) out.error.clear();
    state_->descriptions.compare(all, [&](const Generation& generation) {
      out.last_generation = std::max(out.last_generation, generation.number);
      found(generation);
    });
    if (any_away && first) out.last_generation = begin_stride(out.last_generation, *first);
    return out;
  }

  /// As `BasicStore`.
  void stop_recovery() noexcept {
    for (const auto& volume : state_->volumes) {
      if (const auto store = volume->opened()) store->stop_recovery();
    }
  }

  /// What `recover` found that garner did not make, on all volumes.
  [[nodiscard]] std::vector<std::string> unrecognised() const {
    std::vector<std::string> out;
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) {
        for (std::string& path : store->unrecognised()) out.push_back(std::move(path));
      }
    }
    return out;
  }

  /// As `BasicStore`, of all volumes; the first error.
  std::error_code clean_up(Partial partial) {
    std::error_code first;
    for (std::uint32_t index = 0; index < count(); ++index) {
      const auto store = volume(index).store();
      const std::error_code ec = store ? store->clean_up(partial) : std::error_code();
      if (!first) first = ec;
    }
    state_->descriptions.clean_up();
    return first;
  }

  /// Where an earlier run had something of the chunk, or else on the volume with the most free bytes; `errc::no_space`
  /// where none has room for all that is declared.
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    ec = any_healthy() ? errc::no_space : errc::read_only;
    for (const Candidate& candidate : candidates_for(chunk)) {
      Volume& volume = this->volume(candidate.index);
      const auto store = volume.store();
      if (!store) continue;
      Staging staging = store->stage(chunk, number, ec);
      if (ec == errc::read_only && count() > 1) {
        volume.set_state(VolumeState::read_only);
        continue;
      }
      if (!ec) volume.add(staging.area_);
      return staging;
    }
    return {};
  }

  /// As `BasicStore`. `errc::io_error` where its volume is away, or was opened anew since.
  void publish(std::span<PublishRequest<Staging>> requests) {
    std::map<std::uint32_t, std::vector<std::size_t>> by_volume;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      PublishRequest<Staging>& request = requests[i];
      const std::optional<std::uint32_t> index = index_of(*request.staging);
      request.error = request.staging->area_ ? make_error_code(errc::io_error)
                                             : std::make_error_code(std::errc::bad_file_descriptor);
      if (index) by_volume[*index].push_back(i);
    }
    for (const auto& [index, members] : by_volume) {
      const auto store = volume(index).store();
      if (!store) continue;
      std::vector<PublishRequest<Staging>> part;
      for (const std::size_t i : members) part.push_back(requests[i]);
      store->publish(std::span(part));
      // All are told first: what follows may throw, and changes nothing about that.
      for (std::size_t i = 0; i < part.size(); ++i) {
        part[i].generation.volume = index;
        requests[members[i]] = part[i];
      }
      for (const PublishRequest<Staging>& request : part) {
        if (request.error) continue;
        volume(index).drop(request.staging->area_);
        state_->descriptions.keep(request.generation);
      }
    }
  }
  Generation publish(Staging& staging, std::error_code& ec) {
    PublishRequest<Staging> request{&staging};
    publish(std::span(&request, 1));
    ec = request.error;
    return ec ? Generation() : request.generation;
  }

  std::error_code discard(Staging& staging) {
    const std::optional<std::uint32_t> index = index_of(staging);
    if (!index) return {};  // found by the opening since
    volume(*index).drop(staging.area_);
    return volume(*index).opened()->discard(staging);
  }

  [[nodiscard]] Location location(const Generation& generation) const {
    return volume(generation.volume).path() / store_layout::chunk_path(generation);
  }

  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const auto store = volume(generation.volume).store();
    ec = store ? std::error_code() : make_error_code(errc::io_error);
    DataChunk chunk = store ? store->describe(generation, ec) : DataChunk();
    if (!ec || count() == 1) return chunk;
    std::error_code elsewhere;
    chunk = state_->descriptions.find(generation, elsewhere);
    if (!elsewhere) ec.clear();
    return chunk;
  }

  std::error_code doom(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      const std::error_code ec = state_->descriptions.drop(generation);
      if (count() > 1) volume(generation.volume).note_doomed(generation, true);
      return ec ? ec : store.doom(generation);
    });
  }
  std::error_code spare(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      const std::error_code ec = store.spare(generation);
      if (ec) return ec;
      volume(generation.volume).note_doomed(generation, false);
      state_->descriptions.keep(generation);
      return ec;
    });
  }
  std::error_code remove(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      std::error_code ec = state_->descriptions.drop(generation);
      if (!ec) ec = store.remove(generation);
      if (!ec) volume(generation.volume).note_doomed(generation, false);
      return ec;
    });
  }
  std::error_code quarantine(const Generation& generation, const std::string& reason) {
    return with(generation, [&](BasicStore<F>& store) {
      std::error_code ec = state_->descriptions.drop(generation);
      if (!ec) ec = store.quarantine(generation, reason);
      if (!ec) volume(generation.volume).note_doomed(generation, false);
      return ec;
    });
  }
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    return with(generation, [&](const BasicStore<F>& store) { return store.verify(generation, depth, progress); });
  }

  /// The sums of all volumes: free is what may still be put there, within their limits.
  [[nodiscard]] StoreUsage usage() const {
    StoreUsage usage;
    for (const VolumeStatus& volume : volumes()) {
      usage.bytes_used += volume.bytes_used;
      usage.bytes_free += volume.bytes_free;
    }
    return usage;
  }

  /// With one volume there is nothing to be found out: what fails is told by what fails.
  std::vector<VolumeStatus> examine(const std::function<void(const Generation&)>& found) {
    for (std::uint32_t index = 0; count() > 1 && index < count(); ++index) {
      volume(index).examine([index, &found](Generation generation) {
        generation.volume = index;
        found(generation);
      });
    }
    return volumes();
  }

  [[nodiscard]] std::vector<VolumeStatus> volumes() const {
    std::vector<VolumeStatus> out;
    for (const auto& volume : state_->volumes) out.push_back(volume->status());
    return out;
  }

 private:
  using Volume = detail::Volume<F>;

  static constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

  struct State {
    std::vector<std::unique_ptr<Volume>> volumes;
    bool is_limited = false;  ///< any of them
    detail::VolumeDescriptions<F> descriptions{volumes};
  };

  struct Candidate {
    std::uint64_t room;
    std::uint32_t index;
  };

  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(state_->volumes.size()); }
  [[nodiscard]] Volume& volume(std::uint32_t index) const { return *state_->volumes.at(index); }

  [[nodiscard]] bool any_healthy() const {
    return std::any_of(state_->volumes.begin(), state_->volumes.end(),
                       [](const auto& volume) { return volume->state() == VolumeState::healthy; });
  }

  /// Those that have room for the chunk; the one that has a part of it first, and then the one with the most room.
  [[nodiscard]] std::vector<Candidate> candidates_for(const DataChunk& chunk) const {
    if (count() == 1 && !state_->is_limited) return {{0, 0}};
    const std::uint64_t bytes = declared_bytes(chunk).value_or(0);
    std::vector<Candidate> out;
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto room = volume(index).room_for(bytes)) out.push_back({*room, index});
    }
    std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) { return a.room > b.room; });
    std::stable_partition(out.begin(), out.end(), [&](const Candidate& candidate) {
      const auto store = volume(candidate.index).store();
      return store && store->has_partial(chunk.id);
    });
    return out;
  }

  /// Of the volume that it is on; nothing where that was opened anew since.
  std::optional<std::uint32_t> index_of(const Staging& staging) const {
    for (std::uint32_t index = 0; staging.area_ && index < count(); ++index) {
      const auto store = volume(index).opened();
      if (store && store->root_handle() == staging.area_->root) return index;
    }
    return std::nullopt;
  }

  template <class Call>
  std::error_code with(const Generation& generation, const Call& call) const {
    const auto store = volume(generation.volume).store();
    return store ? call(*store) : make_error_code(errc::io_error);
  }

  /// While a volume is away its numbers are not known. So each start without one begins a stride of numbers of its own,
  /// and writes that down on all that are there. `first` of these: starts that have none in common do not come to the
  /// same.
  [[nodiscard]] std::uint64_t begin_stride(std::uint64_t number, std::uint64_t first) const {
    constexpr std::uint64_t stride = std::uint64_t{1} << 32;
    std::uint64_t last = number / stride;
    std::vector<std::uint64_t> written(count(), 0);
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) written[index] = store->root_handle()->read_stride();
      last = std::max(last, written[index]);
    }
    if (last > UINT64_MAX / stride - 1 - count()) return number;
    do ++last;
    while (last % count() != first);
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) store->root_handle()->write_stride(last, written[index]);
    }
    return last * stride;
  }

  std::unique_ptr<State> state_;
};

}  // namespace garner

namespace garner {

namespace detail {

/// Makes durable that `path` has its name in the directory above. `found`: it was there already. Then it may be
/// somebody else's: nobody but its owner can sync what may not be read, or what knows no syncs.
inline std::error_code sync_name(const std::filesystem::path& path, bool found) {
  const std::filesystem::path parent = path.parent_path();
  if (parent == path) return {};
  const Descriptor above(uninterrupted([&] { return ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!above) return found && (errno == EACCES || errno == EPERM) ? std::error_code() : errno_code(errno);
  if (::fsync(above.get()) == 0 || (found && (errno == EINVAL || errno == EROFS))) return {};
  return errc::sync_failed;
}

/// Makes the directory `path` and those above it that are missing, each of them durable in its parent.
inline std::error_code make_directories(const std::filesystem::path& path, Durability durability) {
  const std::filesystem::path parent = path.parent_path();
  std::error_code ec;
  if (::mkdir(path.c_str(), 0755) < 0) {
    if (errno == EEXIST) return {};  // what it is shows when it is opened
    if (errno != ENOENT || parent == path) return errno_code(errno);
    ec = make_directories(parent, durability);
    if (ec) return ec;
    if (::mkdir(path.c_str(), 0755) < 0) return errno == EEXIST ? ec : errno_code(errno);
  } else if (durability == Durability::full) {
    ec = sync_name(parent, true);  // whoever made it may have been killed before that
  }
  if (!ec && durability == Durability::full) ec = sync_name(path, false);
  // A second sync would prove nothing: the next start is to make it anew.
  if (ec) ::rmdir(path.c_str());
  return ec;
}

inline PosixFileSystem open_data_directory(const std::filesystem::path& data_dir, Durability durability,
                                           std::size_t max_sync_threads,
                                           std::uint64_t max_unwritten = PosixSync::little_unwritten) {
  std::error_code ec;
  PosixFileSystem fs = PosixFileSystem::open(data_dir, ec, max_sync_threads, max_unwritten);
  struct stat format {};
  if (ec == std::errc::no_such_file_or_directory) {
    ec = make_directories(fs.path(), durability);
    if (!ec) fs = PosixFileSystem::open(data_dir, ec, max_sync_threads, max_unwritten);
  } else if (!ec && durability == Durability::full &&
             ::lstat((fs.path() / store_layout::format_file).c_str(), &format) < 0) {
    ec = sync_name(fs.path(), true);  // made a moment ago, perhaps by a process that was killed
  }
  if (ec) throw Error(ec, fs.path().string());
  return fs;
}

/// Nothing where something is mounted at `path`, which is the root of that.
inline std::error_code require_mount_point(const std::filesystem::path& path) {
  struct stat inner {};
  struct stat outer {};
  if (::lstat(path.c_str(), &inner) < 0 || ::stat(path.parent_path().c_str(), &outer) < 0) return errno_code(errno);
  const bool is_root = inner.st_ino == outer.st_ino && path == path.root_path();
  return inner.st_dev != outer.st_dev || is_root ? std::error_code() : std::make_error_code(std::errc::no_such_device);
}

/// `max_unwritten`: as `PosixFileSystem::open` says.
inline std::vector<VolumePlace<PosixFileSystem>> places_of(const std::filesystem::path& data_dir,
                                                           const Options& options,
                                                           std::uint64_t max_unwritten = PosixSync::little_unwritten) {
  std::vector<Location> locations = options.locations;
  if (locations.empty()) locations.push_back({"."});
  std::vector<VolumePlace<PosixFileSystem>> places;
  for (const Location& location : locations) {
    std::filesystem::path path = absolute_directory(data_dir / location.path);
    const auto open = [path, must_be_mount_point = location.must_be_mount_point, durability = options.durability,
                       max_sync_threads = options.max_sync_threads, max_unwritten] {
      if (must_be_mount_point) {
        if (const std::error_code ec = require_mount_point(path)) throw Error(ec, path.string());
      }
      return open_data_directory(path, durability, max_sync_threads, max_unwritten);
    };
    places.push_back({std::move(path), open, location.max_bytes, location.keep_free_bytes});
  }
  return places;
}

}  // namespace detail

/// Keeps generations in a directory that it holds alone, with the names of store_layout.hpp; or in several, each of
/// which is one by itself (`Options::locations`).
///
/// Location: the absolute path of the generation's directory. Thread-safety and exceptions: as `Storage` says.
/// Lifetime: the lock is held until the object and all its staging areas are gone, however the process ends.
class FilesystemStorage : public BasicVolumes<PosixFileSystem> {
 public:
  /// Opens the store in `data_dir`, or those of `options.locations`; creates a directory, and those above it, where
  /// missing. Of the options uses `durability`, `max_sync_threads`, `quarantine_max_bytes` and `keep_free_bytes`
  /// besides. Throws `Error` that names the path, and changes nothing then that was there: `errc::not_a_directory`
  /// where a directory or a part of it is a link or a file; `errc::unknown_format`; `errc::directory_in_use` where
  /// another store, of this process or another, has it; what the file system reports.
  explicit FilesystemStorage(const std::filesystem::path& data_dir, const Options& options = {})
      : BasicVolumes(detail::places_of(data_dir, options), options.durability,
                     {options.quarantine_max_bytes, options.keep_free_bytes}) {}
};

static_assert(VolumeStorage<FilesystemStorage>);

}  // namespace garner

// garner/storage/memory_storage.hpp -------------------------------------------------------------------------
// MemoryStorage: a Storage in memory, with the standard library alone. For tests and for what need not outlive the
// program; its "disk" is an object that can be handed to the next store, as a data directory is at a restart.

// garner/storage/memory_disk.hpp ----------------------------------------------------------------------------
// What a MemoryStorage keeps its chunks in, as a data directory keeps those of the other storage. Data alone: what is
// done with it is in memory_storage.hpp.

namespace garner {

/// A published generation's files. Immutable; lives as long as anyone holds it.
struct MemoryChunk {
  std::map<std::string, std::vector<std::byte>> files;  ///< file name -> its bytes
};

/// What a data directory is to the other storage: it outlives the store, and one store at a time uses it. Opaque.
class MemoryDisk {
 public:
  /// `capacity`: bytes, of published and staged files together; more is `errc::no_space`.
  explicit MemoryDisk(std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max()) : capacity_(capacity) {}

 private:
  friend class MemoryStorage;

  struct StagedBytes {
    std::vector<std::byte> bytes;
    FileSource asked;
    std::string origin;          ///< of the last checkpoint
    std::size_t checkpoint = 0;  ///< bytes
    bool finished = false;
  };
  struct Staged {
    DataChunk chunk;
    bool is_partial = false;  ///< of an earlier store
    std::map<std::string, std::shared_ptr<StagedBytes>> files;
  };
  struct Held {
    DataChunk described;
    std::shared_ptr<MemoryChunk> chunk;
    std::map<std::string, std::uint64_t> checksums;
  };

  /// False where there is no room.
  bool take(std::uint64_t bytes) noexcept {
    std::uint64_t used = used_.load();
    do {
      if (bytes > capacity_ - used) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return true;
  }
  void give_back(std::uint64_t bytes) noexcept { used_ -= bytes; }

  const std::uint64_t capacity_;
  std::atomic<std::uint64_t> used_{0};
  std::mutex mutex_;                        ///< guards all below, but for the bytes of staged files
  std::map<std::uint64_t, Staged> staged_;  ///< generation number -> what it has so far
  std::map<std::uint64_t, Held> held_;      ///< likewise
  std::uint64_t held_bytes_ = 0;            ///< of their files
  std::set<std::uint64_t> doomed_;          ///< generation numbers
  bool in_use_ = false;
};

}  // namespace garner

namespace garner {

/// Location: a `std::shared_ptr<const MemoryChunk>`, null for a generation that the store does not hold.
///
/// Digests: SHA-256 is checked. Others need more than the standard library, so they are **not** checked unless the
/// constructor is given a check that knows them; sizes always are.
///
/// Thread-safety: as `Storage` asks. Copying is not offered; moving keeps what was staged valid.
class MemoryStorage {
 public:
  using Location = std::shared_ptr<const MemoryChunk>;
  /// Whether `bytes` have this digest. Called by any thread, several at a time.
  using DigestCheck = std::function<bool(const Digest& digest, std::span<const std::byte> bytes)>;

  using Disk = MemoryDisk;

  /// A file of a staging area. One thread at a time; default-constructed it holds none.
  class StagedFile {
   public:
    StagedFile() = default;

    [[nodiscard]] std::uint64_t size() const noexcept { return file_ ? file_->bytes.size() : 0; }

    std::error_code write(std::span<const std::byte> bytes) {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      if (bytes.size() > asked_.size.value_or(std::numeric_limits<std::uint64_t>::max()) - size()) {
        return errc::body_too_long;
      }
      if (!disk_->take(bytes.size())) return errc::no_space;
      try {
        file_->bytes.insert(file_->bytes.end(), bytes.begin(), bytes.end());
      } catch (const std::bad_alloc&) {
        disk_->give_back(bytes.size());
        return errc::no_space;
      }
      return {};
    }

    std::error_code restart() {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      disk_->give_back(size());
      file_->bytes.clear();
      file_->origin.clear();
      file_->checkpoint = 0;
      return {};
    }

    [[nodiscard]] std::string origin() const { return file_ ? file_->origin : std::string(); }
    std::error_code checkpoint(std::string_view origin) {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      file_->origin = origin;
      file_->checkpoint = file_->bytes.size();
      return {};
    }

    std::error_code finish() {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      if (size() < asked_.size.value_or(0)) return errc::body_too_short;
      if (asked_.digest && !(*check_)(*asked_.digest, file_->bytes)) return errc::digest_mismatch;
      file_->finished = true;
      return {};
    }

   private:
    friend class MemoryStorage;

    [[nodiscard]] bool is_open() const noexcept { return file_ && !file_->finished; }

    std::shared_ptr<Disk> disk_;
    std::shared_ptr<const DigestCheck> check_;
    FileSource asked_;
    std::shared_ptr<Disk::StagedBytes> file_;
  };

  class Staging {
   public:
    Staging() = default;

    /// `errc::invalid_file_name` for a name that is not in the description.
    StagedFile open(const std::string& name, std::error_code& ec) {
      const auto source = chunk_.files.find(name);
      if (!disk_ || source == chunk_.files.end() || !detail::is_portable_file_name(name)) {
        ec = disk_ ? make_error_code(errc::invalid_file_name) : std::make_error_code(std::errc::bad_file_descriptor);
        return {};
      }
      ec.clear();
      StagedFile file;
      file.disk_ = disk_;
      file.check_ = check_;
      file.asked_ = source->second;
      const std::lock_guard lock(disk_->mutex_);
      std::shared_ptr<Disk::StagedBytes>& slot = disk_->staged_[number_].files[name];
      if (!slot || !can_go_on(*slot, source->second)) {
        if (slot) disk_->give_back(slot->bytes.size());
        slot = std::make_shared<Disk::StagedBytes>();
        slot->asked = {{}, source->second.size, source->second.digest};
      }
      disk_->give_back(slot->bytes.size() - slot->checkpoint);
      slot->bytes.resize(slot->checkpoint);
      slot->finished = false;
      file.file_ = slot;
      return file;
    }

   private:
    friend class MemoryStorage;

    static bool can_go_on(const Disk::StagedBytes& left, const FileSource& asked) {
      return left.checkpoint != 0 && left.asked.size == asked.size && left.asked.digest == asked.digest;
    }

    std::shared_ptr<Disk> disk_;
    std::shared_ptr<const DigestCheck> check_;
    DataChunk chunk_;
    std::uint64_t number_ = 0;
  };

  /// `disk`: empty, or what an earlier store left. Throws `Error` with `errc::directory_in_use` where another store has
  /// it. `check`: what digests are checked with.
  explicit MemoryStorage(std::shared_ptr<Disk> disk = std::make_shared<Disk>(), DigestCheck check = check_sha256)
      : disk_(std::move(disk)), check_(std::make_shared<const DigestCheck>(std::move(check))) {
    const std::lock_guard lock(disk_->mutex_);
    if (std::exchange(disk_->in_use_, true)) throw Error(errc::directory_in_use, "memory");
  }
  /// As above, on a new disk of `capacity` bytes.
  explicit MemoryStorage(std::uint64_t capacity) : MemoryStorage(std::make_shared<Disk>(capacity)) {}

  MemoryStorage(MemoryStorage&&) noexcept = default;
  MemoryStorage& operator=(MemoryStorage&&) = delete;
  MemoryStorage(const MemoryStorage&) = delete;
  MemoryStorage& operator=(const MemoryStorage&) = delete;
  ~MemoryStorage() {
    if (!disk_) return;
    const std::lock_guard lock(disk_->mutex_);
    disk_->in_use_ = false;
  }

  Recovery recover(const std::function<void(const Generation&)>& found) {
    Recovery recovery;
    std::vector<Generation> held;
    {
      const std::lock_guard lock(disk_->mutex_);
      const auto saw = [&recovery](std::uint64_t number) {
        recovery.last_generation = std::max(recovery.last_generation, number);
      };
      for (auto& [number, staged] : disk_->staged_) staged.is_partial = true, saw(number);
      recovery.has_partial = !disk_->staged_.empty();
      for (const std::uint64_t number : disk_->doomed_) leftovers_.push_back(number), saw(number);
      for (const auto& [number, generation] : disk_->held_) {
        saw(number);
        if (!disk_->doomed_.contains(number)) held.push_back(describe_briefly(number, generation));
      }
    }
    for (const Generation& generation : held) found(generation);
    return recovery;
  }

  std::error_code clean_up(Partial partial) {
    const std::lock_guard lock(disk_->mutex_);
    for (const std::uint64_t number : std::exchange(leftovers_, {})) erase(number);
    if (partial == Partial::keep) return {};
    for (auto at = disk_->staged_.begin(); at != disk_->staged_.end();) {
      const auto staged = at++;
      if (staged->second.is_partial) erase_staged(staged->first);
    }
    return {};
  }

  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    Staging staging;
    {
      const std::lock_guard lock(disk_->mutex_);
      const bool is_new = !disk_->held_.contains(number) && !disk_->staged_.contains(number);
      ec = is_new ? std::error_code() : std::make_error_code(std::errc::file_exists);
      if (ec) return staging;
      Disk::Staged& staged = disk_->staged_[number] = take_partial(chunk.id);
      staged.chunk = chunk;
      drop_unnamed(staged);
    }
    staging.disk_ = disk_;
    staging.check_ = check_;
    staging.chunk_ = chunk;
    staging.number_ = number;
    return staging;
  }

  Generation publish(Staging& staging, std::error_code& ec) {
    const std::lock_guard lock(disk_->mutex_);
    const auto staged = disk_->staged_.find(staging.number_);
    ec = staged == disk_->staged_.end() ? std::make_error_code(std::errc::bad_file_descriptor) : std::error_code();
    if (ec) return {};
    const auto& files = staged->second.files;
    const bool whole = files.size() == staging.chunk_.files.size() &&
                       std::all_of(files.begin(), files.end(), [](const auto& file) { return file.second->finished; });
    if (!whole) ec = errc::body_too_short;
    if (ec) return {};
    Disk::Held held{staging.chunk_, std::make_shared<MemoryChunk>(), {}};
    for (auto& [name, source] : held.described.files) {
      for (std::string& url : source.urls) url = redact_url(url);
      source.headers.clear();
      std::vector<std::byte>& bytes = held.chunk->files[name] = std::move(files.at(name)->bytes);
      source.size = bytes.size();
      held.checksums[name] = checksum(bytes);
    }
    disk_->staged_.erase(staged);
    disk_->held_bytes_ += bytes_of(held);
    const auto at = disk_->held_.insert_or_assign(staging.number_, std::move(held)).first;
    return describe_briefly(staging.number_, at->second);
  }

  std::error_code discard(Staging& staging) {
    const std::lock_guard lock(disk_->mutex_);
    erase_staged(staging.number_);
    return {};
  }

  [[nodiscard]] Location location(const Generation& generation) const {
    const std::lock_guard lock(disk_->mutex_);
    const Disk::Held* held = find(generation);
    return held != nullptr ? held->chunk : nullptr;
  }

  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const std::lock_guard lock(disk_->mutex_);
    const Disk::Held* held = find(generation);
    ec = held != nullptr ? std::error_code() : make_error_code(errc::no_such_generation);
    return held != nullptr ? held->described : DataChunk();
  }

  std::error_code doom(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    disk_->doomed_.insert(generation.number);
    return {};
  }

  std::error_code spare(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    disk_->doomed_.erase(generation.number);
    return {};
  }

  std::error_code remove(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    if (find(generation) == nullptr) return errc::no_such_generation;
    erase(generation.number);
    return {};
  }

  /// Memory is too dear to keep it.
  std::error_code quarantine(const Generation& generation, const std::string& /*reason*/) { return remove(generation); }

  /// A file is a block.
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    Disk::Held held;
    {
      const std::lock_guard lock(disk_->mutex_);
      const Disk::Held* at = find(generation);
      if (at == nullptr) return errc::no_such_generation;
      held = *at;
    }
    const auto& files = held.chunk->files;
    if (files.size() != held.checksums.size()) return errc::corrupt_chunk;
    for (const auto& [name, bytes] : files) {
      const auto published = held.checksums.find(name);
      if (published == held.checksums.end()) return errc::corrupt_chunk;
      if (held.described.files.at(name).size != bytes.size()) return errc::corrupt_chunk;
      if (depth == VerifyDepth::sizes) continue;
      if (published->second != checksum(bytes)) return errc::corrupt_chunk;
      if (!progress(bytes.size())) return errc::cancelled;
    }
    return {};
  }

  [[nodiscard]] StoreUsage usage() const {
    StoreUsage usage;
    const std::lock_guard lock(disk_->mutex_);
    usage.bytes_used = disk_->held_bytes_;
    usage.bytes_free = disk_->capacity_ - disk_->used_.load();
    return usage;
  }

  /// The default check: true where `bytes` have `digest`, or where it is not a SHA-256.
  static bool check_sha256(const Digest& digest, std::span<const std::byte> bytes) {
    if (digest.algorithm() != DigestAlgorithm::sha256) return true;
    detail::Sha256 hash;
    hash.update(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    const auto found = hash.finish();
    return std::equal(found.begin(), found.end(), digest.data());
  }

 private:
  /// 64-bit FNV-1a (draft-eastlake-fnv): tells a changed byte, and no more is wanted of it.
  static std::uint64_t checksum(std::span<const std::byte> bytes) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3U;
    return hash;
  }

  static std::uint64_t bytes_of(const Disk::Held& held) noexcept {
    std::uint64_t bytes = 0;
    for (const auto& [name, source] : held.described.files) bytes += source.size.value_or(0);
    return bytes;
  }

  static Generation describe_briefly(std::uint64_t number, const Disk::Held& held) {
    const DataChunk& chunk = held.described;
    return {chunk.id, chunk.dataset_id, chunk.block_range, bytes_of(held), number};
  }

  [[nodiscard]] const Disk::Held* find(const Generation& generation) const {
    const auto at = disk_->held_.find(generation.number);
    return at != disk_->held_.end() && at->second.described.id == generation.id ? &at->second : nullptr;
  }

  /// What an earlier store had of this chunk, taken out of the disk; or nothing.
  Disk::Staged take_partial(const ChunkId& id) {
    const auto left = std::find_if(disk_->staged_.begin(), disk_->staged_.end(), [&id](const auto& staged) {
      return staged.second.is_partial && staged.second.chunk.id == id;
    });
    if (left == disk_->staged_.end()) return {};
    Disk::Staged staged = std::move(disk_->staged_.extract(left).mapped());
    staged.is_partial = false;
    return staged;
  }

  /// Files that the description does not name any more.
  void drop_unnamed(Disk::Staged& staged) {
    std::erase_if(staged.files, [&](const auto& file) {
      const bool is_named = staged.chunk.files.contains(file.first);
      if (!is_named) disk_->give_back(file.second->bytes.size());
      return !is_named;
    });
  }

  void erase_staged(std::uint64_t number) {
    const auto staged = disk_->staged_.find(number);
    if (staged == disk_->staged_.end()) return;
    for (const auto& [name, file] : staged->second.files) disk_->give_back(file->bytes.size());
    disk_->staged_.erase(staged);
  }

  /// All that there is of this generation.
  void erase(std::uint64_t number) {
    erase_staged(number);
    if (const auto held = disk_->held_.find(number); held != disk_->held_.end()) {
      disk_->give_back(bytes_of(held->second));
      disk_->held_bytes_ -= bytes_of(held->second);
      disk_->held_.erase(held);
    }
    disk_->doomed_.erase(number);
  }

  std::shared_ptr<Disk> disk_;
  std::shared_ptr<const DigestCheck> check_;
  std::vector<std::uint64_t> leftovers_;
};

static_assert(Storage<MemoryStorage>);

}  // namespace garner

// garner/download/curl_downloader.hpp -----------------------------------------------------------------------
// CurlDownloader: the default Downloader, HTTP/1.1 and HTTP/2 by libcurl's multi interface on Asio. Not here: retries,
// mirrors, or what a chunk is.

// garner/download/curl_loop.hpp -----------------------------------------------------------------------------
// One thread that runs transfers: an io_context, a libcurl multi handle with its connections, and the orders that
// other threads leave for it.

// garner/download/curl_driver.hpp ---------------------------------------------------------------------------
// Drives one libcurl multi handle from one Asio io_context: its sockets, its timer and nothing else. What the
// transfers are, and what becomes of those that end, is told by whoever owns it.

namespace garner::detail {

/// `curl_multi_socket_action` on Asio. Used on the io_context's one thread only, and destroyed when no handler of its
/// will run any more. A socket stays registered with Asio until libcurl closes it, not only while a transfer uses it.
class CurlDriver {
 public:
  /// `after` is called whenever transfers may have ended.
  CurlDriver(asio::io_context& io, std::function<void()> after)
      : io_(io), after_(std::move(after)), timer_(io), multi_(curl_multi_init()) {
    if (multi_ == nullptr) throw Error(std::make_error_code(std::errc::not_enough_memory), "libcurl");
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &CurlDriver::on_socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &CurlDriver::on_timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  }
  CurlDriver(const CurlDriver&) = delete;
  CurlDriver& operator=(const CurlDriver&) = delete;
  ~CurlDriver() { shut_down(); }

  /// Closes all connections. No easy handle may be left in the multi handle.
  void shut_down() noexcept {
    if (multi_ == nullptr) return;
    curl_multi_cleanup(std::exchange(multi_, nullptr));
    while (!sockets_.empty()) drop(sockets_.begin()->first);
    due_.reset();
    sleep_no_longer();
  }

  [[nodiscard]] CURLM* multi() const { return multi_; }

  /// A new socket, for `CURLOPT_OPENSOCKETFUNCTION`; -1 with `errno` where there is none.
  int open_socket(int family, int type, int protocol) {
    const int fd = ::socket(family, type | SOCK_CLOEXEC, protocol);
    if (fd >= 0 && add(fd, true) == nullptr) {
      const int why = errno;
      ::close(fd);
      errno = why;
      return -1;
    }
    return fd;
  }

  /// `CURLOPT_CLOSESOCKETFUNCTION`; its data is the driver.
  static int close_socket(void* self, curl_socket_t fd) noexcept {
    static_cast<CurlDriver*>(self)->drop(fd);
    return ::close(fd);
  }

  /// The transfer of `easy` has ended and is still in the multi handle: its connection, if libcurl has kept it, stands.
  void keep_connection(CURL* easy) noexcept {
    curl_socket_t fd = CURL_SOCKET_BAD;
    if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK) return;
    if (const auto found = sockets_.find(fd); found != sockets_.end()) found->second->stands = true;
  }

  /// Lets go of the sockets that libcurl has closed without a word. Not inside a call of libcurl.
  void sweep() noexcept {
    for (auto at = sockets_.begin(); at != sockets_.end();) {
      const Socket& socket = *(at++)->second;
      if (socket.wanted == 0 && !socket.stands) drop(socket.fd);
    }
  }

  /// Nothing is going on: an alarm that nobody waits for is taken back, so that an idle loop never wakes.
  void rest() noexcept {
    if (!due_) sleep_no_longer();
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// Asio has a duplicate of the descriptor, so that each side closes its own: libcurl 7.88 closes a connection that
  /// it gives up before it stands without a word to `CURLOPT_CLOSESOCKETFUNCTION`, and the number may be another
  /// file's by the time that we hear of it.
  struct Socket {
    Socket(asio::io_context& io, int number, int duplicate, bool opened_here)
        : fd(number), ours(opened_here), descriptor(io, duplicate) {}

    int fd;  // libcurl's
    bool ours;
    bool stands = false;   // libcurl keeps it in its cache, and will say when it closes it
    int wanted = 0;        // CURL_POLL_IN, CURL_POLL_OUT or both
    bool reading = false;  // a wait is pending; it may outlive the wish and serve the next one
    bool writing = false;
    asio::posix::stream_descriptor descriptor;
  };
  using SocketPtr = std::shared_ptr<Socket>;

  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept {
    auto& driver = *static_cast<CurlDriver*>(self);
    const auto found = driver.sockets_.find(fd);
    if (what == CURL_POLL_REMOVE) {
      if (found == driver.sockets_.end()) return 0;
      found->second->wanted = 0;
      if (!found->second->ours) driver.drop(fd);
      return 0;
    }
    // One that we did not open: libcurl's resolver has such. Without a descriptor it falls back to its timer.
    const SocketPtr socket = found != driver.sockets_.end() ? found->second : driver.add(fd, false);
    if (socket == nullptr) return 0;
    socket->wanted = what;
    driver.wait(socket);
    return 0;
  }

  /// Null with `errno` where there are no more descriptors.
  SocketPtr add(int fd, bool ours) {
    drop(fd);  // one of that number would be left from a connection that never stood
    const int duplicate = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) return nullptr;
    auto socket = std::make_shared<Socket>(io_, fd, duplicate, ours);
    sockets_[fd] = socket;
    return socket;
  }

  /// Not left to a destructor: a pending wait keeps the object, and is ended by this.
  void drop(int fd) noexcept {
    const auto found = sockets_.find(fd);
    if (found == sockets_.end()) return;
    // Not `close`: that relies on the kernel to forget a descriptor, which it does not while libcurl's is open.
    ::close(found->second->descriptor.release());
    sockets_.erase(found);
  }

  void wait(const SocketPtr& socket) {
    if ((socket->wanted & CURL_POLL_IN) != 0 && !socket->reading) {
      socket->reading = true;
      socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                    [this, socket](const std::error_code& error) {
                                      socket->reading = false;
                                      on_event(socket, error, CURL_POLL_IN, CURL_CSELECT_IN);
                                    });
    }
    if ((socket->wanted & CURL_POLL_OUT) != 0 && !socket->writing) {
      socket->writing = true;
      socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                                    [this, socket](const std::error_code& error) {
                                      socket->writing = false;
                                      on_event(socket, error, CURL_POLL_OUT, CURL_CSELECT_OUT);
                                    });
    }
  }

  void on_event(const SocketPtr& socket, const std::error_code& error, int wish, int event) {
    if (!socket->descriptor.is_open() || (socket->wanted & wish) == 0) return;
    act(socket->fd, error ? CURL_CSELECT_ERR : event);
    if (socket->descriptor.is_open()) wait(socket);
    after_();
  }

  static int on_timer(CURLM*, long milliseconds, void* self) noexcept {
    auto& driver = *static_cast<CurlDriver*>(self);
    driver.due_.reset();
    if (milliseconds == 0) {
      driver.act_soon();
    } else if (milliseconds > 0) {
      driver.due_ = Clock::now() + std::chrono::milliseconds(milliseconds);
      driver.sleep();
    }
    return 0;
  }

  /// Posted, not put through the timer: most of libcurl's timeouts are zero, and a timer costs system calls.
  void act_soon() {
    if (std::exchange(acting_soon_, true)) return;
    asio::post(io_, [this] {
      acting_soon_ = false;
      if (multi_ == nullptr) return;
      act(CURL_SOCKET_TIMEOUT, 0);
      after_();
    });
  }

  /// An alarm that is set for earlier stays and is set anew when it rings: libcurl moves its timeout with each request.
  void sleep() {
    if (alarm_ && *alarm_ <= *due_) return;
    alarm_ = due_;
    timer_.expires_at(*alarm_);
    timer_.async_wait([this, rings = *alarm_](const std::error_code& error) {
      if (error || alarm_ != rings) return;
      alarm_.reset();
      if (!due_) return;
      if (Clock::now() < *due_) return sleep();
      due_.reset();
      act(CURL_SOCKET_TIMEOUT, 0);
      after_();
    });
  }

  void sleep_no_longer() noexcept {
    if (!alarm_) return;
    alarm_.reset();
    try {
      timer_.cancel();
    } catch (const std::system_error&) {
      // It rings once more, for nothing.
    }
  }

  void act(curl_socket_t socket, int events) {
    int running = 0;
    curl_multi_socket_action(multi_, socket, events, &running);
  }

  asio::io_context& io_;
  std::function<void()> after_;
  asio::steady_timer timer_;
  CURLM* multi_;
  std::unordered_map<curl_socket_t, SocketPtr> sockets_;
  std::optional<Clock::time_point> due_;    // when libcurl wants to be called
  std::optional<Clock::time_point> alarm_;  // what the timer is set to; never later than `due_`
  bool acting_soon_ = false;
};

}  // namespace garner::detail

// garner/download/curl_lanes.hpp ----------------------------------------------------------------------------
// The two ways that a loop's transfers go: one at a time over each of several connections (HTTP/1.1), or many at a time
// over one (HTTP/2). Each way is a libcurl multi handle of its own, with its own connections.

// garner/download/curl_settings.hpp -------------------------------------------------------------------------
// What can be chosen about CurlDownloader: what is chosen for HTTP in general, and what is its own. Plain values.

namespace garner {

/// Fixed at a downloader's construction.
struct CurlSettings : HttpOptions {
  // How the work is spread.
  unsigned loops = 2;                      ///< threads, each with its own connections; at least 1
  std::size_t connections_per_host = 8;    ///< over all loops, beside the shared one of each
                                           ///< (`http2_max_bytes`); more transfers wait for a free one
  std::size_t idle_connections = 32;       ///< kept open, over all hosts and loops
  std::size_t write_bytes = 256 * 1024;    ///< what is gathered before it goes to the sink: one buffer a transfer
  std::size_t receive_bytes = 512 * 1024;  ///< what one read from a socket may take (`CURLOPT_BUFFERSIZE`)

  // What a server may do.
  bool require_https = false;
  std::vector<std::string> allowed_hosts = {};  ///< as `Options::allowed_hosts`
  unsigned max_redirects = 5;
  std::size_t max_header_bytes = 64 * 1024;  ///< of one response, informational ones and trailers included
  std::uint64_t max_file_bytes = std::uint64_t{1} << 40;
};

}  // namespace garner

// garner/download/curl_url.hpp ------------------------------------------------------------------------------
// A URL as libcurl's own parser understands it, which is the only parser here: what was checked is what is fetched.
// Takes credentials out of it. Not here: which hosts are allowed.

namespace garner::detail {

/// Initialises libcurl, once for the program. It is not cleaned up: others in the program may use it too.
inline void init_curl() {
  static const CURLcode result = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (result != CURLE_OK) throw Error(std::make_error_code(std::errc::not_supported), "libcurl");
}

/// An `http` or `https` URL without credentials, which stand beside it. Thread-safe as a value is.
class CurlUrl {
 public:
  /// Empty; what `parse` and `resolve` fill.
  CurlUrl() = default;

  /// Reads a whole URL; no scheme is guessed. `errc::invalid_url` or `errc::scheme_not_allowed`, and then `out` is
  /// unchanged.
  static std::error_code parse(std::string_view text, bool require_https, CurlUrl& out) {
    if (!is_clean(text)) return errc::invalid_url;
    Handle handle(curl_url());
    if (handle == nullptr) return std::make_error_code(std::errc::not_enough_memory);
    return finish(std::move(handle), std::string(text), 0, require_https, out);
  }

  /// Follows `location`, absolute or relative, from here (RFC 3986, 5). Credentials of this URL go along to the same
  /// origin only; such as `location` brings along itself are ignored. Never from https to http. All that is wrong with
  /// it is `errc::redirect_not_allowed`.
  std::error_code resolve(const std::string& location, bool require_https, CurlUrl& out) const {
    CurlUrl next;
    Handle handle(curl_url_dup(handle_.get()));
    if (handle == nullptr) return std::make_error_code(std::errc::not_enough_memory);
    const bool secure = require_https || scheme() == "https";
    // A server's spaces and bytes above ASCII are encoded, as browsers do.
    if (finish(std::move(handle), location, CURLU_URLENCODE, secure, next) || !is_clean(next.text())) {
      return errc::redirect_not_allowed;
    }
    const bool same_origin = next.origin() == origin();
    next.user_ = same_origin ? user_ : std::string();
    next.password_ = same_origin ? password_ : std::string();
    out = std::move(next);
    return {};
  }

  /// Whether its query says already who asks, as a presigned URL's does.
  [[nodiscard]] bool is_signed() const {
    const std::string query = "&" + fold_case(part(CURLUPART_QUERY));
    for (const char* name : {"&x-amz-signature=", "&x-goog-signature=", "&signature=", "&sig="}) {
      if (query.find(name) != std::string::npos) return true;
    }
    return false;
  }

  /// For `CURLOPT_CURLU`; valid as long as this object.
  [[nodiscard]] CURLU* handle() const { return handle_.get(); }
  [[nodiscard]] const std::string& user() const { return user_; }
  [[nodiscard]] const std::string& password() const { return password_; }
  [[nodiscard]] std::string scheme() const { return part(CURLUPART_SCHEME); }
  /// Without the brackets of an IPv6 address.
  [[nodiscard]] std::string host() const {
    std::string host = part(CURLUPART_HOST);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    return fold_case(host);
  }
  /// Scheme, host and port.
  [[nodiscard]] std::string origin() const {
    return scheme() + "://" + host() + ":" + part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
  }
  /// The whole, without credentials. May hold a signature: not for people.
  [[nodiscard]] std::string text() const { return part(CURLUPART_URL); }

 private:
  struct Cleanup {
    void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
    void operator()(char* text) const { curl_free(text); }
  };
  using Handle = std::unique_ptr<CURLU, Cleanup>;

  /// Printable ASCII without spaces; libcurl would stop at a NUL.
  static bool is_clean(std::string_view text) {
    for (const char c : text) {
      if (c <= ' ' || c > '~') return false;
    }
    return !text.empty();
  }

  static std::error_code finish(Handle handle, const std::string& text, unsigned flags, bool require_https,
                                CurlUrl& out) {
    // Schemes that libcurl does not speak are read too, to tell them from what is no URL.
    const CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), flags | CURLU_NON_SUPPORT_SCHEME);
    if (code == CURLUE_OUT_OF_MEMORY) return std::make_error_code(std::errc::not_enough_memory);
    if (code != CURLUE_OK) return errc::invalid_url;
    CurlUrl url;
    url.handle_ = std::move(handle);
    const std::string scheme = fold_case(url.scheme());
    if (scheme != "https" && (require_https || scheme != "http")) return errc::scheme_not_allowed;
    if (url.host().empty()) return errc::invalid_url;
    if (!url.take(CURLUPART_USER, url.user_) || !url.take(CURLUPART_PASSWORD, url.password_)) {
      return errc::invalid_url;
    }
    std::string options;
    url.take(CURLUPART_OPTIONS, options);
    out = std::move(url);
    return {};
  }

  /// Moves a part out of the URL, decoded; false where its decoded form has control bytes.
  bool take(CURLUPart which, std::string& value) {
    char* text = nullptr;
    const CURLUcode code = curl_url_get(handle_.get(), which, &text, CURLU_URLDECODE);
    const std::unique_ptr<char, Cleanup> owner(text);
    if (code == CURLUE_OK && text != nullptr) value = text;
    curl_url_set(handle_.get(), which, nullptr, 0);
    return code != CURLUE_URLDECODE;
  }

  [[nodiscard]] std::string part(CURLUPart which, unsigned flags = 0) const {
    char* text = nullptr;
    const CURLUcode code = curl_url_get(handle_.get(), which, &text, flags);
    const std::unique_ptr<char, Cleanup> owner(text);
    return code == CURLUE_OK && text != nullptr ? std::string(text) : std::string();
  }

  Handle handle_;
  std::string user_;
  std::string password_;
};

}  // namespace garner::detail

namespace garner::detail {

/// Many small files share a connection well: there is no wait between an answer and the next request. A large one holds
/// up all others there, and is held up by them: one connection's window, one thread's decryption. So it has one of its
/// own, and so has one whose size nobody knows.
///
/// Two handles, since in one they meet: libcurl 7.88 sent small files over the idle connections that large ones had
/// left, by HTTP/1.1, and at first opened as many connections for them as it was allowed.
///
/// Used on its loop's thread only.
class CurlLanes {
 public:
  CurlLanes(asio::io_context& io, const CurlSettings& settings, const std::function<void()>& after)
      : settings_(settings), parallel_(io, after), shared_(io, after) {
    curl_multi_setopt(parallel_.multi(), CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_NOTHING));
    curl_multi_setopt(shared_.multi(), CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));
    curl_multi_setopt(shared_.multi(), CURLMOPT_MAX_HOST_CONNECTIONS, 1L);
  }

  [[nodiscard]] CurlDriver& parallel() { return parallel_; }
  [[nodiscard]] CurlDriver& shared() { return shared_; }

  /// For `bytes` of `url`, where it is known how many.
  CurlDriver& choose(const CurlUrl& url, std::optional<std::uint64_t> bytes) {
    const bool small = bytes && *bytes <= settings_.http2_max_bytes && settings_.http2_max_bytes > 0;
    const bool shares = small && url.scheme() == "https" && !goes_alone(url.origin());
    return shares ? shared_ : parallel_;
  }

  /// The server of `url` answered in HTTP/1.1, or its shared connection has come to a standstill: libcurl would keep
  /// that, and have one transfer after the other run into it. What waits for that connection does so in vain.
  void learn_alone(const CurlUrl& url) {
    if (alone_.size() >= most_known) alone_.clear();
    alone_[url.origin()] = Clock::now() + time_alone;
    learnt_ = true;
  }

  /// Whether something was learnt since the last call.
  bool take_news() { return std::exchange(learnt_, false); }

  void rest() noexcept {
    parallel_.rest();
    shared_.rest();
  }

  void shut_down() noexcept {
    parallel_.shut_down();
    shared_.shut_down();
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool goes_alone(const std::string& origin) {
    const auto found = alone_.find(origin);
    if (found == alone_.end()) return false;
    if (Clock::now() < found->second) return true;
    alone_.erase(found);
    return false;
  }

  static constexpr std::size_t most_known = 1024;
  static constexpr std::chrono::minutes time_alone{10};

  const CurlSettings& settings_;
  CurlDriver parallel_;
  CurlDriver shared_;
  std::unordered_map<std::string, Clock::time_point> alone_;  // origins, and until when
  bool learnt_ = false;
};

}  // namespace garner::detail

// garner/download/curl_pace.hpp -----------------------------------------------------------------------------
// Holds transfers up so that all of them together stay below a rate: one meter for all loops, and for each loop the
// transfers that wait, with one timer.

// garner/download/stall_rule.hpp ----------------------------------------------------------------------------
// When a transfer that is held up now and then is too slow by its server's fault. Pure: the time is given to it.

namespace garner::detail {

/// libcurl's rule (`CURLOPT_LOW_SPEED_LIMIT`) for a transfer that pauses: libcurl counts a pause as slowness as soon as
/// the transfer goes on. Looked at about once a second; a stretch that was paused for half of the time, or more, says
/// nothing of the server, and begins the count anew.
class StallRule {
 public:
  using Duration = std::chrono::nanoseconds;

  void begin(Duration now) {
    *this = StallRule();
    looked_ = now;
  }
  void moved(std::uint64_t bytes) noexcept { bytes_ += bytes; }
  void pause(Duration now) noexcept {
    if (!paused_) since_ = now;
    paused_ = true;
  }
  void resume(Duration now) noexcept {
    if (paused_) pauses_ += now - since_;
    paused_ = false;
  }

  /// Whether it has moved fewer than `bytes_per_second` for `time`.
  bool is_stalled(Duration now, std::uint32_t bytes_per_second, Duration time) {
    const bool paused = paused_;
    resume(now);
    const Duration active = now - looked_ - pauses_;
    const double needed = bytes_per_second * std::chrono::duration<double>(active).count();
    const bool slow = active * 2 > now - looked_ && static_cast<double>(bytes_) < needed;
    slow_ = slow ? slow_ + (now - looked_) : Duration();
    looked_ = now;
    bytes_ = 0;
    pauses_ = {};
    if (paused) pause(now);
    return slow && slow_ >= time;
  }

 private:
  Duration looked_{};
  Duration slow_{};
  Duration pauses_{};  // since it was looked at
  Duration since_{};
  std::uint64_t bytes_ = 0;  // likewise
  bool paused_ = false;
};

}  // namespace garner::detail

// garner/download/token_bucket.hpp --------------------------------------------------------------------------
// Meters out bytes at a rate. Pure: the time is given to it, and it waits for nothing.

namespace garner::detail {

/// Over any time of w seconds it grants at most rate * (w + 0.1 s) bytes and one more, and all of rate * w where it is
/// asked for more throughout. Not thread-safe. Times do not go back; where they do, it is as if none had passed.
class TokenBucket {
 public:
  using Duration = std::chrono::nanoseconds;

  /// What may be granted at once is what comes in so long a time.
  static constexpr Duration depth = std::chrono::milliseconds(100);

  /// 0: no limit. What was saved at the old rate is kept as far as the new one could have saved it.
  void set_rate(std::uint64_t bytes_per_second, Duration now) {
    fill(now);
    rate_ = bytes_per_second;
    tokens_ = rate_ == 0 ? 0 : std::min(tokens_, capacity());
  }
  [[nodiscard]] std::uint64_t rate() const noexcept { return rate_; }

  /// Grants as many of `wanted` bytes as may pass now; whoever needs more asks again later for the rest.
  std::uint64_t take(std::uint64_t wanted, Duration now) {
    if (rate_ == 0) return wanted;
    fill(now);
    const std::uint64_t granted = std::min(wanted, static_cast<std::uint64_t>(std::max(tokens_, 0.0)));
    tokens_ -= static_cast<double>(granted);
    return granted;
  }

  /// `bytes` have passed that nobody could hold up. They are made up for.
  void charge(std::uint64_t bytes, Duration now) {
    if (rate_ == 0) return;
    fill(now);
    tokens_ -= static_cast<double>(bytes);
  }

  /// How long until `wanted` bytes can be granted in one piece, or as many of them as ever can.
  [[nodiscard]] Duration wait_for(std::uint64_t wanted, Duration now) {
    if (rate_ == 0) return {};
    fill(now);
    const double missing = std::min(static_cast<double>(wanted), capacity()) - tokens_;
    return missing <= 0 ? Duration()
                        : Duration(static_cast<Duration::rep>(missing * 1e9 / static_cast<double>(rate_)) + 1);
  }

 private:
  /// And one byte, or it would lose what makes up one, and at the lowest rates never grant any.
  [[nodiscard]] double capacity() const {
    return static_cast<double>(rate_) * std::chrono::duration<double>(depth).count() + 1;
  }

  void fill(Duration now) {
    if (now <= filled_) return;
    const double seconds = std::chrono::duration<double>(now - filled_).count();
    tokens_ = std::min(tokens_ + static_cast<double>(rate_) * seconds, capacity());
    filled_ = now;
  }

  std::uint64_t rate_ = 0;
  double tokens_ = 0;
  Duration filled_{};
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safe.
class SharedBucket {
 public:
  using Duration = TokenBucket::Duration;

  static Duration now() { return std::chrono::steady_clock::now().time_since_epoch(); }

  [[nodiscard]] std::uint64_t rate() const noexcept { return rate_.load(std::memory_order_relaxed); }
  void set_rate(std::uint64_t bytes_per_second) {
    const std::lock_guard lock(mutex_);
    bucket_.set_rate(bytes_per_second, now());
    rate_.store(bytes_per_second, std::memory_order_relaxed);
  }
  std::uint64_t take(std::uint64_t wanted) {
    if (rate() == 0) return wanted;
    const std::lock_guard lock(mutex_);
    return bucket_.take(wanted, now());
  }
  void charge(std::uint64_t bytes) {
    if (rate() == 0) return;
    const std::lock_guard lock(mutex_);
    bucket_.charge(bytes, now());
  }
  Duration wait_for(std::uint64_t wanted) {
    const std::lock_guard lock(mutex_);
    return bucket_.wait_for(wanted, now());
  }

 private:
  std::mutex mutex_;
  TokenBucket bucket_;
  std::atomic<std::uint64_t> rate_{0};
};

/// What is held up. Used by its loop's `CurlPace`.
class Paced {
 public:
  Paced() = default;
  Paced(const Paced&) = delete;
  Paced& operator=(const Paced&) = delete;
  virtual ~Paced() = default;

 private:
  friend class CurlPace;
  /// Goes on, at once. False where that was its end.
  virtual bool resume() = 0;

  std::uint64_t wanted_ = 0;  // bytes that it has and may not take yet
  std::uint64_t credit_ = 0;  // of those, granted
  bool watched_ = false;      // it has been held up
  StallRule stall_;
};

/// Used on its loop's thread only. Its timer is set while something waits or is watched, and at no other time.
class CurlPace {
 public:
  /// `after` is called whenever transfers may have ended.
  CurlPace(asio::io_context& io, SharedBucket& bucket, const CurlSettings& settings, std::function<void()> after)
      : bucket_(bucket), settings_(settings), after_(std::move(after)), timer_(io) {}

  [[nodiscard]] std::uint64_t rate() const noexcept { return bucket_.rate(); }

  /// Whether `transfer` may take `bytes` now. Where not, it is to pause, and is told to resume.
  bool admit(Paced& transfer, std::uint64_t bytes) {
    if (rate() == 0) return moved(transfer, bytes);
    // Not ahead of those that wait already, but for what it was granted.
    if (waiting_.empty() && transfer.credit_ < bytes) transfer.credit_ += bucket_.take(bytes - transfer.credit_);
    if (transfer.credit_ >= bytes) {
      transfer.credit_ -= bytes;
      return moved(transfer, bytes);
    }
    transfer.wanted_ = bytes;
    waiting_.push_back(&transfer);
    const Duration now = SharedBucket::now();
    if (!std::exchange(transfer.watched_, true)) {
      transfer.stall_.begin(now);
      if (watched_.empty()) look_ = now + std::chrono::seconds(1);
      watched_.push_back(&transfer);
    }
    transfer.stall_.pause(now);
    sleep();
    return false;
  }

  /// They pass, whatever may pass: they came over a connection that others share, and to pause one is to pause all.
  void charge(std::uint64_t bytes) { bucket_.charge(bytes); }

  /// `transfer` ends, or begins anew.
  void forget(Paced& transfer) {
    std::erase(waiting_, &transfer);
    std::erase(ended_, &transfer);
    std::erase(stalled_, &transfer);
    if (std::exchange(transfer.watched_, false)) std::erase(watched_, &transfer);
    if (watched_.empty()) rest();
    transfer.wanted_ = transfer.credit_ = 0;
  }

  /// The rate has changed.
  void refresh() {
    if (!waiting_.empty()) tick();
  }

  /// Those whose end came here; true: because they stalled.
  std::vector<std::pair<Paced*, bool>> take_ended() {
    std::vector<std::pair<Paced*, bool>> out;
    for (Paced* transfer : std::exchange(ended_, {})) out.emplace_back(transfer, false);
    for (Paced* transfer : std::exchange(stalled_, {})) out.emplace_back(transfer, true);
    return out;
  }

  /// Nothing waits: an alarm that nobody needs is taken back.
  void rest() noexcept {
    if (!alarm_) return;
    alarm_.reset();
    try {
      timer_.cancel();
    } catch (const std::system_error&) {
      // It rings once more, for nothing.
    }
  }

 private:
  using Duration = TokenBucket::Duration;

  static bool moved(Paced& transfer, std::uint64_t bytes) {
    if (transfer.watched_) transfer.stall_.moved(bytes);
    return true;
  }

  void tick() {
    // In turn, a piece each; one that goes on may be back here, behind the others, before its `resume` returns.
    while (!waiting_.empty()) {
      Paced& transfer = *waiting_.front();
      transfer.credit_ += bucket_.take(transfer.wanted_ - std::min(transfer.wanted_, transfer.credit_));
      if (transfer.credit_ < transfer.wanted_) break;
      waiting_.pop_front();
      transfer.stall_.resume(SharedBucket::now());
      if (transfer.resume()) continue;
      ended_.push_back(&transfer);
      if (std::exchange(transfer.watched_, false)) std::erase(watched_, &transfer);  // it ends once
    }
    const Duration now = SharedBucket::now();
    if (!watched_.empty() && now >= look_) look(now);
    sleep();
    after_();
  }

  void look(Duration now) {
    look_ = now + std::chrono::seconds(1);
    if (settings_.low_speed_time.count() <= 0) return;
    for (Paced* transfer : watched_) {
      const bool stalled =
          transfer->stall_.is_stalled(now, settings_.low_speed_bytes_per_second, settings_.low_speed_time);
      if (stalled) stalled_.push_back(transfer);
    }
  }

  void sleep() {
    if (watched_.empty()) return;
    Duration wait = std::max(look_ - SharedBucket::now(), Duration());
    if (!waiting_.empty()) {
      const Paced& next = *waiting_.front();
      const Duration due = bucket_.wait_for(next.wanted_ - std::min(next.wanted_, next.credit_));
      wait = std::min(wait, std::clamp(due, Duration(shortest), Duration(longest)));
    }
    const auto rings = std::chrono::steady_clock::now() + wait;
    if (alarm_ && *alarm_ <= rings) return;
    alarm_ = rings;
    timer_.expires_at(rings);
    timer_.async_wait([this, rings](const std::error_code& error) {
      if (error || alarm_ != rings) return;
      alarm_.reset();
      tick();
    });
  }

  // Of a wait: half of what a bucket can save is not lost, and a loop does not wake for each byte.
  static constexpr std::chrono::milliseconds shortest{2};
  static constexpr std::chrono::milliseconds longest{50};

  SharedBucket& bucket_;
  const CurlSettings& settings_;
  std::function<void()> after_;
  asio::steady_timer timer_;
  std::optional<std::chrono::steady_clock::time_point> alarm_;  // what the timer is set to
  std::deque<Paced*> waiting_;
  std::vector<Paced*> watched_;
  std::vector<Paced*> ended_;
  std::vector<Paced*> stalled_;
  Duration look_{};  // when the watched ones are looked at next
};

}  // namespace garner::detail

// garner/download/curl_shared.hpp ---------------------------------------------------------------------------
// What all loops of one CurlDownloader have in common: what was chosen, checked where it is chosen and not by the first
// transfer that meets it.

// garner/download/credentials.hpp ---------------------------------------------------------------------------
// What a request says about who asks: what its source brings along, and beside that what was chosen for its host. Not
// here: to which origins that may go.

namespace garner::detail {

/// Reads `HttpOptions::credentials`, which says what the entries mean. Immutable, so thread-safe.
class CredentialStore {
 public:
  /// Throws `Error`, which names the host and shows no secret.
  explicit CredentialStore(const std::vector<HostCredentials>& all) {
    for (const HostCredentials& credentials : all) {
      const std::string subject = "credentials for " + printable(redact_url(credentials.host));
      if (const HttpHeader* header = find_invalid_header(credentials.headers)) {
        throw Error(errc::invalid_header, subject + ", " + describe_header(*header));
      }
      if (!is_header_value(credentials.bearer_token)) throw Error(errc::invalid_header, subject + ", bearer token");
      if (credentials.s3 && !is_header_value(credentials.s3->session_token)) {
        throw Error(errc::invalid_header, subject + ", session token");
      }
      const int ways = static_cast<int>(!credentials.bearer_token.empty()) +
                       static_cast<int>(!credentials.user.empty() || !credentials.password.empty()) +
                       static_cast<int>(credentials.s3.has_value());
      const std::string host = fold_case(credentials.host);
      const bool is_origin = host.find("://") != std::string::npos;
      CurlUrl url;
      const std::string name = is_origin ? host : "https://" + host.substr(host.starts_with('.') ? 1 : 0);
      const std::error_code error = CurlUrl::parse(name, false, url);
      // What is more than a host, or an origin, is a misunderstanding.
      const bool plain = !error && url.user().empty() && url.password().empty() &&
                         host.find_first_of("/?#@", is_origin ? host.find("://") + 3 : 0) == std::string::npos;
      if (!plain || ways > 1) throw Error(std::make_error_code(std::errc::invalid_argument), subject);
      std::string match = is_origin ? url.origin() : host.front() == '.' ? "." + url.host() : url.host();
      entries_.push_back({std::move(match), is_origin, credentials});
    }
  }

  /// Null where there is nothing for it.
  [[nodiscard]] const HostCredentials* find(const CurlUrl& url) const {
    if (entries_.empty()) return nullptr;
    const std::string host = url.scheme() == "https" ? url.host() : std::string();
    const std::string origin = url.origin();
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      if (entry.is_origin) return entry.match == origin;
      if (!entry.match.starts_with('.')) return entry.match == host;
      return host.size() > entry.match.size() && host.ends_with(entry.match);
    });
    return found != entries_.end() ? &found->credentials : nullptr;
  }

 private:
  struct Entry {
    std::string match;
    bool is_origin;
    HostCredentials credentials;
  };
  std::vector<Entry> entries_;
};

/// `url` as its signature must be made of it: its path and its query with everything encoded that may be, and the query
/// in order. Servers compute the signature from that, whatever was sent; libcurl 7.88 from what is sent.
inline std::string encode_for_signature(const std::string& url) {
  const auto encode = [](std::string_view text, char kept) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
      auto byte = static_cast<std::uint8_t>(text[at]);
      if (text[at] == '%' && at + 2 < text.size() && parse_hex(text.substr(at + 1, 2), &byte, 1)) at += 2;
      const char c = static_cast<char>(byte);
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == kept ||
                         c == '-' || c == '.' || c == '_' || c == '~';
      if (plain) {
        out += c;
      } else {
        out.append(1, '%').append(1, digits[byte >> 4]).append(1, digits[byte & 15]);
      }
    }
    return out;
  };
  const std::string whole = url.substr(0, url.find('#'));
  const std::size_t path = std::min(whole.find('/', whole.find("://") + 3), whole.size());
  const std::size_t query = std::min(whole.find('?', path), whole.size());
  std::vector<std::string> parameters;
  for (std::size_t at = query; at < whole.size();) {
    const std::size_t end = std::min(whole.find('&', at + 1), whole.size());
    const std::string parameter = whole.substr(at + 1, end - at - 1);
    const std::size_t name = std::min(parameter.find('='), parameter.size());
    if (!parameter.empty()) {
      const std::string value = parameter.substr(std::min(name + 1, parameter.size()));
      parameters.push_back(encode(parameter.substr(0, name), '~') + "=" + encode(value, '~'));
    }
    at = end;
  }
  std::sort(parameters.begin(), parameters.end());
  std::string out = whole.substr(0, path) + encode(whole.substr(path, query - path), '/');
  for (std::size_t i = 0; i < parameters.size(); ++i) out += (i == 0 ? "?" : "&") + parameters[i];
  return out;
}

/// Who asks, as one request says it.
struct Identification {
  std::vector<HttpHeader> headers;
  std::string user;
  std::string password;
  const S3Keys* s3 = nullptr;  ///< as long as the credentials that it is of

  /// Of a request for `url` that `source` headers came with; `host` may be null.
  static Identification of(const CurlUrl& url, const std::vector<HttpHeader>& source, const HostCredentials* host) {
    Identification out{source, url.user(), url.password(), nullptr};
    if (host == nullptr) return out;
    const auto has = [&out](std::string_view name) {
      return std::any_of(out.headers.begin(), out.headers.end(),
                         [&](const HttpHeader& header) { return same_token(header.name, name); });
    };
    const bool identified = !out.user.empty() || !out.password.empty() || has("authorization") || url.is_signed();
    std::vector<HttpHeader> more;
    for (const HttpHeader& header : host->headers) {
      if (!has(header.name) && !(identified && same_token(header.name, "authorization"))) more.push_back(header);
    }
    out.headers.insert(out.headers.end(), more.begin(), more.end());
    if (identified || has("authorization")) return out;
    if (!host->bearer_token.empty()) out.headers.push_back({"Authorization", "Bearer " + host->bearer_token});
    out.user = host->user;
    out.password = host->password;
    if (host->s3) {
      out.s3 = &*host->s3;
      // S3 wants to be told the digest of the body, which is empty; libcurl 7.88 does not tell it.
      const char* const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
      if (!has("x-amz-content-sha256")) out.headers.push_back({"x-amz-content-sha256", digest});
      if (!host->s3->session_token.empty()) out.headers.push_back({"x-amz-security-token", host->s3->session_token});
    }
    return out;
  }
};

}  // namespace garner::detail

// garner/download/host_filter.hpp ---------------------------------------------------------------------------
// Which hosts may be connected to: by name, and again by the address that the name resolved to. No I/O.

namespace garner::detail {

/// Of an IPv4 or IPv6 socket.
inline asio::ip::address address_of(const sockaddr& address) {
  if (address.sa_family == AF_INET6) {
    asio::ip::address_v6::bytes_type bytes;
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    std::copy_n(v6.sin6_addr.s6_addr, bytes.size(), bytes.begin());
    return asio::ip::address_v6(bytes);
  }
  return asio::ip::address_v4(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
}

/// Reads `Options::allowed_hosts`, which says what the entries mean. Immutable, so thread-safe.
class HostFilter {
 public:
  /// Throws `Error` for an entry that is a network and does not parse.
  explicit HostFilter(const std::vector<std::string>& entries) {
    for (const std::string& entry : entries) {
      std::error_code error;
      const auto address = asio::ip::make_address(entry, error);
      const bool slash = entry.find('/') != std::string::npos;
      if (error && !slash) {
        names_.push_back(fold_case(entry));
      } else if (!slash) {
        networks_.emplace_back(address.is_v4() ? Network(asio::ip::network_v4(address.to_v4(), 32))
                                               : Network(asio::ip::network_v6(address.to_v6(), 128)));
      } else {
        networks_.push_back(parse_network(entry));
      }
    }
  }

  /// `host` as a URL has it: a name, or an address without brackets.
  [[nodiscard]] bool allows_host(const std::string& host) const {
    std::error_code error;
    const auto address = asio::ip::make_address(host, error);
    if (!error) return allows_address(address) && (names_.empty() || !networks_.empty());
    const auto matches = [folded = fold_case(host)](const std::string& name) {
      return name.starts_with('.') ? folded.size() > name.size() && folded.ends_with(name) : folded == name;
    };
    return names_.empty() || std::any_of(names_.begin(), names_.end(), matches);
  }

  /// The address that is about to be connected to.
  [[nodiscard]] bool allows_address(asio::ip::address address) const {
    if (networks_.empty()) return true;
    if (address.is_v6() && address.to_v6().is_v4_mapped()) {
      address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
    }
    return std::any_of(networks_.begin(), networks_.end(), [&](const Network& n) { return n.contains(address); });
  }

 private:
  struct Network {
    explicit Network(const asio::ip::network_v4& network) : base(network.network()), prefix(network.prefix_length()) {}
    explicit Network(const asio::ip::network_v6& network) : base(network.network()), prefix(network.prefix_length()) {}

    [[nodiscard]] bool contains(const asio::ip::address& address) const {
      if (address.is_v4() != base.is_v4()) return false;
      if (base.is_v4()) return asio::ip::network_v4(address.to_v4(), prefix).network() == base.to_v4();
      return asio::ip::network_v6(address.to_v6(), prefix).network() == base.to_v6();
    }

    asio::ip::address base;
    unsigned short prefix;
  };

  static Network parse_network(const std::string& entry) {
    std::error_code error;
    const auto v4 = asio::ip::make_network_v4(entry, error);
    if (!error) return Network(v4);
    const auto v6 = asio::ip::make_network_v6(entry, error);
    if (error) throw Error(std::make_error_code(std::errc::invalid_argument), "allowed host " + printable(entry));
    return Network(v6);
  }

  std::vector<std::string> names_;
  std::vector<Network> networks_;
};

}  // namespace garner::detail

namespace garner::detail {

/// Immutable, so thread-safe.
class CurlShared {
 public:
  /// Throws `Error`, which names the option and shows no secret.
  explicit CurlShared(CurlSettings chosen)
      : settings(limit(std::move(chosen))), filter(settings.allowed_hosts), credentials(settings.credentials) {
    init_curl();
    check_proxy();
    check_files();
    check_signing();
    if (!is_header_value(settings.user_agent)) reject(std::errc::invalid_argument, "the user agent");
  }

  const CurlSettings settings;
  const HostFilter filter;
  const CredentialStore credentials;

 private:
  static CurlSettings limit(CurlSettings chosen) {
    chosen.connections_per_host = std::max<std::size_t>(chosen.connections_per_host, 1);
    const auto most = static_cast<unsigned>(std::min<std::size_t>(chosen.connections_per_host, 64));
    chosen.loops = std::clamp(chosen.loops, 1U, most);
    const bool has_http2 = (curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_HTTP2) != 0;
    if (!has_http2) chosen.http2_max_bytes = 0;
    return chosen;
  }

  [[noreturn]] static void reject(std::errc why, const std::string& what) {
    throw Error(std::make_error_code(why), what);
  }

  void check_proxy() const {
    if (settings.proxy.empty()) return;
    CurlUrl proxy;
    if (const std::error_code error = CurlUrl::parse(settings.proxy, false, proxy)) throw Error(error, "the proxy");
  }

  /// libcurl reads them with the first connection, and then fails it as it would fail one to a server without trust.
  void check_files() const {
    for (const std::string& file : {settings.ca_bundle, settings.client_certificate, settings.client_key}) {
      if (!file.empty() && !std::ifstream(file).is_open()) reject(std::errc::no_such_file_or_directory, file);
    }
    if (settings.client_certificate.empty() && !settings.client_key.empty()) {
      reject(std::errc::invalid_argument, "a client's key without its certificate");
    }
  }

  void check_signing() const {
    const auto signs = [](const HostCredentials& of) { return of.s3.has_value(); };
    if (std::none_of(settings.credentials.begin(), settings.credentials.end(), signs)) return;
    const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), curl_easy_cleanup);
    if (easy == nullptr || curl_easy_setopt(easy.get(), CURLOPT_AWS_SIGV4, "aws:amz") != CURLE_OK) {
      reject(std::errc::not_supported, "this libcurl signs no requests");
    }
  }
};

}  // namespace garner::detail

// garner/download/curl_transfer.hpp -------------------------------------------------------------------------
// One transfer on one reusable libcurl easy handle: the request it sends, what it does with each piece of the answer,
// and how it ends. Redirects are followed here, hop by hop, so that each is held to the same rules.

// garner/download/curl_errors.hpp ---------------------------------------------------------------------------
// What libcurl's result codes mean in ours.

namespace garner::detail {

/// The error that `code` stands for; `answered`: a response's head had arrived whole (libcurl-errors(3)).
inline std::error_code error_of_curl(CURLcode code, bool answered) {
  switch (code) {
    case CURLE_OK: return {};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY: return errc::resolve_failed;
    case CURLE_OPERATION_TIMEDOUT: return errc::timed_out;
    case CURLE_PARTIAL_FILE: return errc::body_too_short;
    case CURLE_FILESIZE_EXCEEDED: return errc::body_too_long;
    case CURLE_URL_MALFORMAT: return errc::invalid_url;
    case CURLE_TOO_MANY_REDIRECTS: return errc::redirect_not_allowed;
    case CURLE_BAD_CONTENT_ENCODING: return errc::encoding_not_allowed;
    case CURLE_UNSUPPORTED_PROTOCOL:  // The scheme was checked, so this is HTTP/0.9, which is to say garbage.
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_WRITE_ERROR: return errc::malformed_response;
    case CURLE_OUT_OF_MEMORY:
      // Also what libcurl 7 says of a header line above 100 KB.
      if (!answered) return errc::malformed_response;
      return std::make_error_code(std::errc::not_enough_memory);
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_USE_SSL_FAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_SHUTDOWN_FAILED:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS: return errc::tls_failed;
    default: return errc::connection_failed;
  }
}

}  // namespace garner::detail

// garner/download/curl_handle.hpp ---------------------------------------------------------------------------
// A libcurl easy handle with what was chosen set on it: the network, trust, the proxy. Not here: what is of one
// transfer.

namespace garner::detail {

/// `settings` outlives it. Used by one thread at a time.
class CurlHandle {
 public:
  /// Empty before `renew`.
  explicit CurlHandle(const CurlSettings& settings) : settings_(settings) {}

  [[nodiscard]] CURL* easy() const { return easy_.get(); }

  /// An option that libcurl refuses is a protection that is missing.
  template <class Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(easy_.get(), option, value);
    if (code != CURLE_OK) throw Error(std::make_error_code(std::errc::not_supported), curl_easy_strerror(code));
  }

  /// A new one, and not only a reset one: where others still use the connection of a transfer that has ended, libcurl
  /// 7.88 keeps its buffer, and then lets nobody say how large that is to be.
  void renew() {
    easy_.reset(curl_easy_init());
    if (easy_ == nullptr) throw Error(std::make_error_code(std::errc::not_enough_memory), "libcurl");
    set_network_options();
    set_trust_options();
  }

  /// Before each request; `rate`: that all transfers together are held to, or 0.
  void set_speeds(std::uint64_t rate) {
    if (settings_.low_speed_time.count() > 0) {
      set(CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(settings_.low_speed_bytes_per_second));
      set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(settings_.low_speed_time.count()));
    }
    // Small pieces make a low rate an even one. Where the buffer cannot be changed now, the rate is less so.
    const std::uint64_t piece = rate == 0 ? settings_.receive_bytes : std::max<std::uint64_t>(rate / 50, 1024);
    const auto bytes = static_cast<long>(std::min<std::uint64_t>(piece, settings_.receive_bytes));
    static_cast<void>(curl_easy_setopt(easy_.get(), CURLOPT_BUFFERSIZE, bytes));
  }

  void stop_stall_rule() noexcept { static_cast<void>(curl_easy_setopt(easy_.get(), CURLOPT_LOW_SPEED_LIMIT, 0L)); }

  /// Whoever a chain of redirects leads to is not whom it was meant for.
  void show_client_certificate(bool shown) {
    if (settings_.client_certificate.empty()) return;
    const auto text = [shown](const std::string& value) { return shown && !value.empty() ? value.c_str() : nullptr; };
    set(CURLOPT_SSLCERT, text(settings_.client_certificate));
    set(CURLOPT_SSLKEY, text(settings_.client_key.empty() ? settings_.client_certificate : settings_.client_key));
    set(CURLOPT_KEYPASSWD, text(settings_.client_key_password));
  }

 private:
  struct Cleanup {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  };

  void set_network_options() {
    set(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    set(CURLOPT_QUICK_EXIT, 1L);  // or else to cancel would wait for a resolver that hangs
#endif
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_BUFFERSIZE, static_cast<long>(settings_.receive_bytes));
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings_.connect_timeout.count()));
    if (!settings_.user_agent.empty()) set(CURLOPT_USERAGENT, settings_.user_agent.c_str());
  }

  void set_trust_options() {
#if LIBCURL_VERSION_NUM >= 0x075500
    const char* schemes = settings_.require_https ? "https" : "http,https";
    set(CURLOPT_PROTOCOLS_STR, schemes);
    set(CURLOPT_REDIR_PROTOCOLS_STR, schemes);
#else
    const long schemes = settings_.require_https ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS;
    set(CURLOPT_PROTOCOLS, schemes);
    set(CURLOPT_REDIR_PROTOCOLS, schemes);
#endif
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_UNRESTRICTED_AUTH, 0L);
    set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    set_proxy();
    set(CURLOPT_HTTP_CONTENT_DECODING, 0L);
    set(CURLOPT_SSL_VERIFYPEER, 1L);
    set(CURLOPT_SSL_VERIFYHOST, 2L);
    set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!settings_.ca_bundle.empty()) set(CURLOPT_CAINFO, settings_.ca_bundle.c_str());
  }

  void set_proxy() {
    if (settings_.proxy.empty()) {
      set(CURLOPT_PROXY, "");
      set(CURLOPT_NOPROXY, "*");
      return;
    }
    CurlUrl proxy;
    const std::error_code error = CurlUrl::parse(settings_.proxy, false, proxy);
    if (error) throw Error(error, "the proxy");
    set(CURLOPT_PROXY, proxy.text().c_str());
    set(CURLOPT_NOPROXY, "");
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // ours are none of its business
    set(CURLOPT_PROXYAUTH, static_cast<long>(CURLAUTH_BASIC));
    if (!proxy.user().empty()) set(CURLOPT_PROXYUSERNAME, proxy.user().c_str());
    if (!proxy.password().empty()) set(CURLOPT_PROXYPASSWORD, proxy.password().c_str());
    set(CURLOPT_PROXY_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!settings_.ca_bundle.empty()) set(CURLOPT_PROXY_CAINFO, settings_.ca_bundle.c_str());
  }

  const CurlSettings& settings_;
  std::unique_ptr<CURL, Cleanup> easy_;
};

}  // namespace garner::detail

// garner/download/gather_buffer.hpp -------------------------------------------------------------------------
// Gathers the small pieces in which a body arrives into writes of a size that file systems like. libcurl hands out at
// most 16 KB at a time, and a write of that size costs more than its copy.

namespace garner::detail {

/// Used by one thread at a time. Its memory comes with the first piece that has to wait, and stays.
class GatherBuffer {
 public:
  explicit GatherBuffer(std::size_t capacity) : capacity_(std::max<std::size_t>(capacity, 1)) {}

  /// Takes `piece`; whole buffers go to `sink`, whose error is returned. The `last` piece goes at once.
  std::error_code add(std::span<const std::byte> piece, bool last, FetchSink& sink) {
    // What needs not wait is not copied: all of a small file, as a rule.
    if (size_ == 0 && last) return piece.empty() ? std::error_code() : sink.write(piece);
    if (memory_ == nullptr) memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity_);
    while (!piece.empty()) {
      const std::size_t count = std::min(piece.size(), capacity_ - size_);
      std::memcpy(memory_.get() + size_, piece.data(), count);
      size_ += count;
      piece = piece.subspan(count);
      if (size_ == capacity_) {
        if (const std::error_code error = flush(sink)) return error;
      }
    }
    return last ? flush(sink) : std::error_code();
  }

  /// Gives the sink what is there.
  std::error_code flush(FetchSink& sink) {
    if (size_ == 0) return {};
    const std::size_t count = size_;
    size_ = 0;
    return sink.write({memory_.get(), count});
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  void clear() { size_ = 0; }

 private:
  std::size_t capacity_;
  std::size_t size_ = 0;
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace garner::detail

// garner/download/http_response.hpp -------------------------------------------------------------------------
// Reads the head of an HTTP response, line by line and without trust, and judges what it means for a request: bytes
// from which offset on and how many, a redirect, or which error. No I/O, and no libcurl.

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

namespace garner::detail {

/// Used on its loop's thread only. Does not deliver `done`: its loop does, when it has let go of the handle.
class CurlTransfer final : public Paced {
 public:
  CurlTransfer(const CurlShared& shared, CurlLanes& lanes, CurlPace& pace)
      : shared_(shared),
        settings_(shared.settings),
        lanes_(lanes),
        pace_(pace),
        driver_(&lanes.parallel()),
        handle_(shared.settings),
        head_(shared.settings.max_header_bytes),
        buffer_(shared.settings.write_bytes) {
    set_up();
  }
  CurlTransfer(const CurlTransfer&) = delete;
  CurlTransfer& operator=(const CurlTransfer&) = delete;

  [[nodiscard]] CURL* easy() const { return handle_.easy(); }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// Of the multi handle that it is to be in.
  [[nodiscard]] CurlDriver& driver() const { return *driver_; }
  /// Whether it does more than wait for a connection that it may use.
  [[nodiscard]] bool has_begun() const { return begun_; }

  /// Not while it is in a multi handle.
  void choose_lane() {
    const std::optional<std::uint64_t> size = request_.size ? request_.size : request_.identity.length;
    const bool left = size && *size >= request_.offset;
    // What shares a connection cannot be held up by itself.
    const bool may_share = left && pace_.rate() == 0;
    driver_ = &lanes_.choose(url_, may_share ? std::optional(*size - request_.offset) : std::nullopt);
    const bool shares = driver_ == &lanes_.shared();
    set(CURLOPT_HTTP_VERSION, static_cast<long>(shares ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    set(CURLOPT_PIPEWAIT, shares ? 1L : 0L);
    set(CURLOPT_CLOSESOCKETDATA, driver_);
  }

  /// No more of the body is taken: libcurl may go on with it for a hundred reads before it hears of anything else. On
  /// the loop's thread, from inside of the sink too.
  void cancel() noexcept { cancelled_ = true; }

  /// Prepares the handle. Where this is an error, the transfer is over, with that result.
  std::error_code assign(std::uint64_t id, FetchRequest request, std::shared_ptr<FetchSink> sink) {
    id_ = id;
    request_ = std::move(request);
    sink_ = std::move(sink);
    redirects_ = 0;
    cancelled_ = false;
    left_origin_ = false;
    error_ = CurlUrl::parse(request_.url, settings_.require_https, url_);
    const HttpHeader* const invalid = find_invalid_header(request_.headers);
    if (!error_ && invalid != nullptr) {
      error_ = errc::invalid_header;
      reason_ = describe_header(*invalid);
    }
    if (error_ && reason_.empty()) reason_ = "not fetched";
    if (!error_) prepare();
    return error_;
  }

  /// libcurl is done with the handle. True: so is the transfer. False: it goes on at another URL.
  bool finish(CURLcode code) {
    const bool stuck = code == CURLE_OPERATION_TIMEDOUT || code == CURLE_HTTP2;
    if (stuck && driver_ == &lanes_.shared()) lanes_.learn_alone(url_);
    if (!error_ && verdict_.kind == Verdict::Kind::redirect && answered_) return !follow();
    if (!error_ && answered_ && verdict_.kind == Verdict::Kind::refused) error_ = verdict_.error;
    if (error_ || (answered_ && verdict_.kind == Verdict::Kind::complete)) return true;
    if (code == CURLE_OK && !answered_) code = CURLE_GOT_NOTHING;  // it was cut within the head
    if (answered_) error_ = buffer_.flush(*sink_);  // also before a failure: the transfer resumes from there
    if (error_) return true;
    error_ = code == CURLE_OK ? check_end() : connect_error_ ? connect_error_ : error_of_curl(code, answered_);
    if (code != CURLE_OK && reason_.empty())
      reason_ = error_text_[0] != '\0' ? error_text_.data() : curl_easy_strerror(code);
    return true;
  }

  bool resume() override { return curl_easy_pause(easy(), CURLPAUSE_CONT) == CURLE_OK; }

  /// The end that somebody else decided on.
  void fail(std::error_code error) {
    if (!error_) error_ = error;
  }

  /// Leaves the transfer empty, for the next one.
  std::pair<std::shared_ptr<FetchSink>, FetchResult> take() {
    FetchResult result;
    result.error = error_;
    result.http_status = head_.status();
    if (error_) {
      const auto date = [](const std::string& text) { return std::int64_t{curl_getdate(text.c_str(), nullptr)}; };
      result.retry_after = parse_retry_after(head_.retry_after, std::int64_t{std::time(nullptr)}, date);
      result.detail = describe();
    }
    head_ = HttpHead(settings_.max_header_bytes);
    buffer_.clear();
    url_ = CurlUrl();
    error_ = {};
    reason_.clear();
    long opened = 0;
    curl_easy_getinfo(easy(), CURLINFO_NUM_CONNECTS, &opened);
    if (opened > 0) set_up();
    return {std::exchange(sink_, nullptr), std::move(result)};
  }

 private:
  struct Cleanup {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };

  /// Also after each transfer that opened a connection: perhaps because a kept one had just been closed, which libcurl
  /// counts, gives up at the sixth, and does not forget: the count is the handle's, not the transfer's.
  void set_up() {
    handle_.renew();
    signs_ = false;
    set(CURLOPT_PRIVATE, this);
    set(CURLOPT_ERRORBUFFER, error_text_.data());
    set(CURLOPT_HEADERFUNCTION, &CurlTransfer::on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &CurlTransfer::on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_OPENSOCKETFUNCTION, &CurlTransfer::on_open);
    set(CURLOPT_OPENSOCKETDATA, this);
    set(CURLOPT_CLOSESOCKETFUNCTION, &CurlDriver::close_socket);
#if LIBCURL_VERSION_NUM >= 0x075000
    set(CURLOPT_PREREQFUNCTION, &CurlTransfer::on_request);
    set(CURLOPT_PREREQDATA, this);
#endif
  }

  template <class Value>
  void set(CURLoption option, Value value) {
    handle_.set(option, value);
  }

  /// Sets up the handle for `url_`.
  void prepare() {
    head_ = HttpHead(settings_.max_header_bytes);
    verdict_ = {};
    begun_ = false;
    answered_ = false;
    ignored_ = 0;
    connect_error_ = {};
    error_text_[0] = '\0';
    if (!shared_.filter.allows_host(url_.host())) {
      error_ = redirects_ == 0 ? errc::connection_failed : errc::redirect_not_allowed;
      reason_ = "the host is not allowed";
      return;
    }
    headers_.reset();
    add_header("Accept-Encoding: identity");
    identify();
    set(CURLOPT_CURLU, url_.handle());
    choose_lane();
    handle_.set_speeds(pace_.rate());
    if (request_.offset == 0) {
      set(CURLOPT_RANGE, static_cast<const char*>(nullptr));
    } else {
      set(CURLOPT_RANGE, (std::to_string(request_.offset) + "-").c_str());
      const std::string validator = if_range(request_.identity);
      if (!validator.empty()) add_header("If-Range: " + validator);
    }
    set(CURLOPT_HTTPHEADER, headers_.get());
  }

  /// Says who asks: to the origin that was asked first, and to nobody else.
  void identify() {
    Identification who;
    if (!left_origin_) who = Identification::of(url_, request_.headers, shared_.credentials.find(url_));
    handle_.show_client_certificate(!left_origin_);
    for (const HttpHeader& header : who.headers) {
      add_header(header.name + (header.value.empty() ? ";" : ": " + header.value));
    }
    if (who.s3 != nullptr) {
      set(CURLOPT_AWS_SIGV4, ("aws:amz:" + who.s3->region + ":" + who.s3->service).c_str());
      who.user = who.s3->access_key;
      who.password = who.s3->secret_key;
      CurlUrl::parse(encode_for_signature(url_.text()), settings_.require_https, url_);
    } else if (std::exchange(signs_, false)) {
      set(CURLOPT_AWS_SIGV4, static_cast<const char*>(nullptr));
      set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    }
    signs_ = who.s3 != nullptr;
    const bool named = !who.user.empty() || !who.password.empty();
    set(CURLOPT_USERNAME, named ? who.user.c_str() : nullptr);
    set(CURLOPT_PASSWORD, named ? who.password.c_str() : nullptr);
  }

  void add_header(const std::string& line) {
    curl_slist* const longer = curl_slist_append(headers_.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(headers_.release());
    headers_.reset(longer);
  }

  /// False where the redirect may not be followed, or not begun.
  bool follow() {
    CurlUrl next;
    if (++redirects_ > settings_.max_redirects) {
      error_ = errc::redirect_not_allowed;
      reason_ = "too many redirects";
      return false;
    }
    error_ = url_.resolve(head_.location, settings_.require_https, next);
    if (error_) return false;
    left_origin_ = left_origin_ || next.origin() != url_.origin();
    url_ = std::move(next);
    prepare();
    return !error_;
  }

  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self) noexcept {
    return static_cast<CurlTransfer*>(self)->take_header({data, size}) ? size : 0;
  }

  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) noexcept {
    auto& transfer = *static_cast<CurlTransfer*>(self);
    const std::span<const std::byte> piece = std::as_bytes(std::span(data, size));
    if (transfer.is_data() && !transfer.may_take(piece.size())) return transfer.hold_back();
    return transfer.take_body(piece) ? size : 0;
  }

  static int on_request(void* self, char*, char*, int, int) noexcept {
    static_cast<CurlTransfer*>(self)->begun_ = true;
    return 0;
  }

  static curl_socket_t on_open(void* self, curlsocktype, curl_sockaddr* address) noexcept {
    auto& transfer = *static_cast<CurlTransfer*>(self);
    transfer.begun_ = true;
    const bool direct = transfer.settings_.proxy.empty();
    if (direct && !transfer.shared_.filter.allows_address(address_of(address->addr))) {
      transfer.reason_ = "the host's address is not allowed";
      return CURL_SOCKET_BAD;
    }
    const int fd = transfer.driver_->open_socket(address->family, address->socktype, address->protocol);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) transfer.connect_error_ = errc::too_many_open_files;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
  }

  [[nodiscard]] bool is_multiplexed() const {
    long version = 0;
    return curl_easy_getinfo(easy(), CURLINFO_HTTP_VERSION, &version) == CURLE_OK &&
           version >= static_cast<long>(CURL_HTTP_VERSION_2_0);
  }

  bool take_header(std::string_view line) {
    error_ = head_.add_line(line);
    if (error_) return false;
    if (answered_ || !head_.complete()) return true;
    answered_ = true;
    if (driver_ == &lanes_.shared() && !is_multiplexed()) lanes_.learn_alone(url_);
    verdict_ = judge(request_, head_, settings_.max_file_bytes);
    received_ = 0;
    switch (verdict_.kind) {
      case Verdict::Kind::redirect:
      case Verdict::Kind::refused: return head_.content_length.value_or(0) <= most_ignored;
      case Verdict::Kind::complete:
      case Verdict::Kind::data: break;
    }
    limit_ = verdict_.body.value_or(request_.size.value_or(settings_.max_file_bytes));
    error_ = sink_->begin(verdict_.offset, verdict_.identity);
    return !error_;
  }

  [[nodiscard]] bool is_data() const { return answered_ && verdict_.kind == Verdict::Kind::data; }

  bool may_take(std::size_t bytes) {
    if (driver_ == &lanes_.parallel()) return pace_.admit(*this, bytes);
    pace_.charge(bytes);
    return true;
  }

  /// Until `resume`: libcurl then comes with the same bytes again.
  std::size_t hold_back() {
    // From now on it is the pace that looks for stalls.
    handle_.stop_stall_rule();
    driver_->keep_connection(easy());
    // The sink is to see bytes as they come, and not a buffer's worth every now and then.
    if (buffer_.size() >= pace_.rate() / 10) error_ = buffer_.flush(*sink_);
    return error_ ? 0 : CURL_WRITEFUNC_PAUSE;
  }

  bool take_body(std::span<const std::byte> piece) {
    if (cancelled_) {
      error_ = errc::cancelled;
      return false;
    }
    if (!answered_) {
      error_ = errc::malformed_response;
      return false;
    }
    if (!is_data()) {
      // A short one is read to its end for the sake of the connection.
      ignored_ += piece.size();
      return ignored_ <= most_ignored;
    }
    if (piece.size() > limit_ - received_) {
      error_ = errc::body_too_long;
      return false;
    }
    received_ += piece.size();
    error_ = buffer_.add(piece, verdict_.body && received_ == limit_, *sink_);
    return !error_;
  }

  [[nodiscard]] std::error_code check_end() const {
    if (verdict_.body && received_ < *verdict_.body) return errc::body_too_short;
    if (request_.size && verdict_.offset + received_ < *request_.size) return errc::body_too_short;
    return {};
  }

  [[nodiscard]] std::string describe() const {
    std::string text = redact_url(url_.handle() != nullptr ? url_.text() : request_.url);
    if (redirects_ > 0) text += " (redirected from " + redact_url(request_.url) + ")";
    if (head_.status() != 0) text += ", status " + std::to_string(head_.status());
    if (!reason_.empty()) text += " (" + printable(reason_) + ")";
    return text;
  }

  /// Of a body that is not data; more of it is not worth a connection.
  static constexpr std::size_t most_ignored = 16 * 1024;

  const CurlShared& shared_;
  const CurlSettings& settings_;  // of `shared_`
  CurlLanes& lanes_;
  CurlPace& pace_;
  CurlDriver* driver_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  std::unique_ptr<curl_slist, Cleanup> headers_;
  CurlUrl url_;
  CurlHandle handle_;

  std::uint64_t id_ = 0;
  FetchRequest request_;
  std::shared_ptr<FetchSink> sink_;
  unsigned redirects_ = 0;
  bool cancelled_ = false;
  bool signs_ = false;        // the handle is set to sign
  bool left_origin_ = false;  // for one that was redirected to; coming back to it changes nothing

  HttpHead head_;
  Verdict verdict_;
  bool begun_ = false;          // it has a connection, or opens one
  bool answered_ = false;       // the head was whole, and judged
  std::uint64_t received_ = 0;  // of the body that is data
  std::uint64_t limit_ = 0;     // the most that it may be
  std::size_t ignored_ = 0;
  GatherBuffer buffer_;

  std::error_code error_;  // set where we ended it; else libcurl's result decides
  std::error_code connect_error_;
  std::string reason_;
};

}  // namespace garner::detail

namespace garner::detail {

/// Thread-safety: every member from any thread, but `join` from one. Idle, it does not wake.
/// Object lifetimes: `shared` outlives it. The destructor stops it and joins; not on its own thread.
class CurlLoop {
 public:
  CurlLoop(const CurlShared& shared, SharedBucket& bucket, std::size_t connections_per_host)
      : shared_(shared),
        lanes_(io_, shared.settings, [this] { reap(); }),
        pace_(io_, bucket, shared.settings, [this] { reap(); }),
        guard_(io_.get_executor()) {
    const auto share = [loops = shared.settings.loops](std::size_t all) {
      return static_cast<long>((all + loops - 1) / loops);
    };
    CURLM* const parallel = lanes_.parallel().multi();
    curl_multi_setopt(parallel, CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(connections_per_host));
    curl_multi_setopt(parallel, CURLMOPT_MAXCONNECTS, share(shared.settings.idle_connections));
    curl_multi_setopt(lanes_.shared().multi(), CURLMOPT_MAXCONNECTS, share(shared.settings.idle_connections));
    // The first one is made here, where an option that this libcurl does not have can still throw.
    spare_.push_back(std::make_unique<CurlTransfer>(shared_, lanes_, pace_));
    thread_ = std::thread([this] { run(); });
    thread_id_ = thread_.get_id();
  }
  CurlLoop(const CurlLoop&) = delete;
  CurlLoop& operator=(const CurlLoop&) = delete;
  ~CurlLoop() {
    stop();
    join();
  }

  /// Transfers that have not ended.
  [[nodiscard]] std::size_t load() const noexcept { return load_.load(std::memory_order_relaxed); }

  void start(std::uint64_t id, FetchRequest request, std::shared_ptr<FetchSink> sink) {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped_) {
        orders_.push_back({id, std::move(request), std::move(sink)});
        load_.fetch_add(1, std::memory_order_relaxed);
        return wake();
      }
    }
    sink->done(cancelled());
  }

  void cancel(std::uint64_t id) {
    if (std::this_thread::get_id() == thread_id_) {
      if (const auto found = running_.find(id); found != running_.end()) found->second->cancel();
    }
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    orders_.push_back({id, {}, nullptr});
    wake();
  }

  /// The rate is the bucket's.
  void set_limits(std::size_t connections_per_host) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    asio::post(io_, [this, connections_per_host] { apply(connections_per_host); });
  }

  /// Ends all transfers soon, and the thread after their `done`.
  void stop() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    asio::post(io_, [this] { shut_down(); });
  }

  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  /// To start a transfer, or without a sink to cancel one.
  struct Order {
    std::uint64_t id;
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
  };
  using TransferPtr = std::unique_ptr<CurlTransfer>;

  static FetchResult cancelled() {
    FetchResult result;
    result.error = errc::cancelled;
    return result;
  }

  void run() {
    // Signals are the program's business, and are handled on its own threads.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    io_.run();
  }

  /// With the lock held. One wake-up serves all orders that come before it is heard.
  void wake() {
    if (std::exchange(woken_, true)) return;
    asio::post(io_, [this] { obey(); });
  }

  void obey() {
    std::vector<Order> orders;
    {
      const std::lock_guard lock(mutex_);
      woken_ = false;
      orders.swap(orders_);
    }
    for (Order& order : orders) {
      if (order.sink != nullptr) {
        begin(std::move(order));
      } else if (const auto found = running_.find(order.id); found != running_.end()) {
        end(*found->second, errc::cancelled);
      }
    }
    reap();
  }

  void begin(Order order) {
    TransferPtr transfer;
    if (!spare_.empty()) {
      transfer = std::move(spare_.back());
      spare_.pop_back();
    }
    FetchResult failed;
    try {
      if (transfer == nullptr) transfer = std::make_unique<CurlTransfer>(shared_, lanes_, pace_);
      CurlTransfer& started = *transfer;
      const std::error_code error = started.assign(order.id, std::move(order.request), order.sink);
      running_.emplace(order.id, std::move(transfer));
      if (error || !add(started)) end(started, errc::connection_failed);
      return;
    } catch (const std::exception& error) {
      failed.error = std::make_error_code(std::errc::not_enough_memory);
      failed.detail = error.what();
    }
    load_.fetch_sub(1, std::memory_order_relaxed);
    order.sink->done(failed);
  }

  static bool add(CurlTransfer& transfer) {
    return curl_multi_add_handle(transfer.driver().multi(), transfer.easy()) == CURLM_OK;
  }

  /// Delivers `done`, with `error` unless the transfer has one of its own; a transfer is spent after it.
  void end(CurlTransfer& transfer, std::error_code error = {}) {
    curl_multi_remove_handle(transfer.driver().multi(), transfer.easy());
    transfer.driver().sweep();
    pace_.forget(transfer);
    if (error) transfer.fail(error);
    const auto found = running_.find(transfer.id());
    auto [sink, result] = transfer.take();
    if (spare_.size() < most_spare) spare_.push_back(std::move(found->second));
    running_.erase(found);
    load_.fetch_sub(1, std::memory_order_relaxed);
    sink->done(result);
  }

  /// Takes leave of the transfers that have ended.
  void reap() {
    for (const auto& [ended, stalled] : pace_.take_ended()) {
      auto& transfer = static_cast<CurlTransfer&>(*ended);
      transfer.finish(stalled ? CURLE_OPERATION_TIMEDOUT : CURLE_WRITE_ERROR);
      end(transfer);
    }
    reap(lanes_.parallel());
    reap(lanes_.shared());
    if (lanes_.take_news()) disperse();
    if (running_.empty()) lanes_.rest();
  }

  void reap(CurlDriver& driver) {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(driver.multi(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CurlTransfer* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      driver.keep_connection(transfer->easy());
      curl_multi_remove_handle(driver.multi(), transfer->easy());
      if (transfer->finish(code)) {
        end(*transfer);
      } else if (!add(*transfer)) {
        end(*transfer, errc::connection_failed);
      }
    }
  }

  /// Sends those that wait for a shared connection, and will not find one, on connections of their own.
  void disperse() {
    std::vector<CurlTransfer*> waiting;
    for (const auto& [id, transfer] : running_) {
      if (!transfer->has_begun() && &transfer->driver() == &lanes_.shared()) waiting.push_back(transfer.get());
    }
    for (CurlTransfer* transfer : waiting) start_again(*transfer);
  }

  void start_again(CurlTransfer& transfer) {
    curl_multi_remove_handle(transfer.driver().multi(), transfer.easy());
    transfer.choose_lane();
    if (!add(transfer)) end(transfer, errc::connection_failed);
  }

  void apply(std::size_t connections_per_host) {
    const auto connections = static_cast<long>(connections_per_host);
    curl_multi_setopt(lanes_.parallel().multi(), CURLMOPT_MAX_HOST_CONNECTIONS, connections);
    // libcurl looks at those that wait for a connection when one becomes free, and not when more are allowed.
    std::vector<CurlTransfer*> waiting;
    for (const auto& [id, transfer] : running_) {
      if (!transfer->has_begun()) waiting.push_back(transfer.get());
    }
    for (CurlTransfer* transfer : waiting) start_again(*transfer);
    pace_.refresh();
    reap();
  }

  void shut_down() {
    obey();
    while (!running_.empty()) end(*running_.begin()->second, errc::cancelled);
    spare_.clear();
    pace_.rest();
    lanes_.shut_down();
    guard_.reset();
  }

  /// Handles that are kept for the next transfers, with their buffers.
  static constexpr std::size_t most_spare = 8;

  const CurlShared& shared_;
  asio::io_context io_{1};
  CurlLanes lanes_;
  CurlPace pace_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  std::unordered_map<std::uint64_t, TransferPtr> running_;
  std::vector<TransferPtr> spare_;
  std::atomic<std::size_t> load_{0};

  std::mutex mutex_;
  std::vector<Order> orders_;
  bool woken_ = false;
  bool stopped_ = false;

  std::thread thread_;
  std::thread::id thread_id_;  // as `thread_` says, until it is joined
};

}  // namespace garner::detail

namespace garner {

/// Moves files over `http` and `https` on a few threads of its own, over connections that all transfers share and
/// that are kept alive.
///
/// What it does not trust, and how it shows, is in `CurlSettings` and in the tests named after HOSTILE.md. Proxies and
/// `.netrc` of the environment are ignored (a proxy is an option). Bytes that follow a body of the declared length are
/// no part of it (RFC 9112, 6.3): they are dropped with their connection. A body that only the end of its connection
/// ends is whole as far as libcurl 7.88 can tell, also over TLS without TLS's own end; a size or a digest tells.
///
/// Thread-safety: every member from any thread, from inside a sink too. A sink is called on a downloader's thread, and
/// holds up the other transfers of that thread while it blocks.
/// Object lifetimes: the destructor cancels what is running, and returns after each `done`; it must not run inside a
/// sink. A sink is kept until its `done`.
/// Exception safety: construction throws `Error`, and `std::system_error` where no thread can be started; `start`
/// throws `std::bad_alloc` alone, and then has done nothing.
class CurlDownloader {
 public:
  using Settings = CurlSettings;

  /// Refers to one transfer; empty when default-constructed.
  class Transfer {
   public:
    Transfer() = default;

   private:
    friend class CurlDownloader;
    Transfer(std::size_t loop, std::uint64_t id) : loop_(loop), id_(id) {}

    std::size_t loop_ = 0;
    std::uint64_t id_ = 0;
  };

  explicit CurlDownloader(const Options& options = {}) : CurlDownloader(from_options(options)) {}
  explicit CurlDownloader(Settings settings) : work_(std::make_unique<Work>(std::move(settings))) {}
  CurlDownloader(CurlDownloader&&) noexcept = default;
  CurlDownloader& operator=(CurlDownloader&&) = delete;
  ~CurlDownloader() = default;

  /// `errc::invalid_url` or `errc::scheme_not_allowed`, by the parser that the transfer uses. Looks at no name and no
  /// address: that is done when a connection is made.
  [[nodiscard]] std::error_code check_url(std::string_view text) const {
    detail::CurlUrl url;
    return detail::CurlUrl::parse(text, work_->shared.settings.require_https, url);
  }

  /// On the thread with the fewest transfers. A URL that `check_url` rejects ends with its error.
  Transfer start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    std::size_t best = 0;
    const std::size_t active = work_->active.load(std::memory_order_relaxed);
    for (std::size_t i = 1; i < active; ++i) {
      if (work_->loops[i]->load() < work_->loops[best]->load()) best = i;
    }
    const std::uint64_t id = work_->next_id.fetch_add(1, std::memory_order_relaxed);
    work_->loops[best]->start(id, std::move(request), std::move(sink));
    return {best, id};
  }

  void cancel(const Transfer& transfer) noexcept {
    if (transfer.id_ != 0) work_->loops[transfer.loop_]->cancel(transfer.id_);
  }

  /// From the next moment on, for what is running too. While there is a rate, no connection is shared (HTTP/2).
  void set_limits(const DownloadLimits& limits) {
    const std::size_t connections = std::max<std::size_t>(limits.connections_per_host, 1);
    const std::lock_guard lock(work_->limits_mutex);
    work_->bucket.set_rate(limits.bytes_per_second);
    work_->active = std::min(connections, work_->loops.size());
    for (std::size_t i = 0; i < work_->loops.size(); ++i) work_->loops[i]->set_limits(work_->share(i, connections));
  }

  /// What `options` say about downloading, and the defaults for the rest.
  static Settings from_options(const Options& options) {
    Settings settings;
    static_cast<HttpOptions&>(settings) = options.http;
    settings.require_https = options.require_https;
    settings.allowed_hosts = options.allowed_hosts;
    settings.connections_per_host = std::max<std::size_t>(options.max_concurrent_files, 1);
    settings.max_file_bytes = options.max_chunk_bytes;
    return settings;
  }

 private:
  struct Work {
    explicit Work(Settings chosen) : shared(std::move(chosen)) {
      const std::size_t connections = shared.settings.connections_per_host;
      for (unsigned i = 0; i < shared.settings.loops; ++i) {
        loops.push_back(std::make_unique<detail::CurlLoop>(shared, bucket, share(i, connections)));
      }
      active = loops.size();
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    ~Work() {
      // All stop before any is gone: a `done` may call `start`.
      for (auto& loop : loops) loop->stop();
      for (auto& loop : loops) loop->join();
    }

    /// Of the connections of a host, those of one loop: together all of them. A loop that gets no transfers any more
    /// may still have some.
    [[nodiscard]] std::size_t share(std::size_t loop, std::size_t connections) const {
      const std::size_t all = shared.settings.loops;
      return std::max<std::size_t>(connections / all + (loop < connections % all ? 1 : 0), 1);
    }

    const detail::CurlShared shared;
    detail::SharedBucket bucket;
    std::mutex limits_mutex;             // so that all loops end with the same limits
    std::atomic<std::size_t> active{0};  // loops that get new transfers
    std::vector<std::unique_ptr<detail::CurlLoop>> loops;
    std::atomic<std::uint64_t> next_id{1};
  };

  std::unique_ptr<Work> work_;
};

static_assert(diagnose_downloader<CurlDownloader>() && LimitedDownloader<CurlDownloader>);

}  // namespace garner

// garner/download/memory_downloader.hpp ---------------------------------------------------------------------
// MemoryDownloader: a Downloader whose network is a map of URL to bytes, with faults to order. Standard library only;
// for tests, and for programs whose data comes with them.

namespace garner {

namespace detail {
class MemoryWork;
}

/// Where a `MemoryDownloader` has its bytes from. A handle: copies share one map, and any number of downloaders can
/// use it while it changes.
///
/// Thread-safety: every member from any thread. A transfer sees the file as it was when the transfer began.
class MemoryOrigin {
 public:
  /// Ends a transfer from outside.
  struct Fault {
    std::error_code error = errc::connection_failed;
    std::uint64_t after_bytes = 0;  ///< sent before it; 0: nothing of the answer comes
    std::optional<std::chrono::nanoseconds> retry_after = std::nullopt;
  };

  /// Adds a file, or replaces it: then transfers from an offset on start over, where they say the ETag of the old one.
  /// An empty `etag` is made from the number of the replacement.
  void put(const std::string& url, std::string bytes, std::string etag = {}) {
    const std::lock_guard lock(shared_->mutex);
    if (etag.empty()) etag.append(1, '"').append(std::to_string(++shared_->versions)).append(1, '"');
    shared_->files[url] = {std::make_shared<const std::string>(std::move(bytes)), std::move(etag)};
  }
  /// From now on the URL is `errc::not_found`.
  void remove(const std::string& url) {
    const std::lock_guard lock(shared_->mutex);
    shared_->files.erase(url);
  }

  /// The next `times` transfers of `url` that begin end with `fault`.
  void fail(const std::string& url, Fault fault, std::size_t times = 1) {
    const std::lock_guard lock(shared_->mutex);
    shared_->faults[url].insert(shared_->faults[url].end(), times, fault);
  }

  /// Transfers of `url` stop after `after_bytes` of those that they were to send, until `release`.
  void hold(const std::string& url, std::uint64_t after_bytes = 0) {
    const std::lock_guard lock(shared_->mutex);
    shared_->held[url] = after_bytes;
  }
  /// Lets them go on: on this thread, where their downloader runs inline.
  void release(const std::string& url) {
    std::vector<std::function<void()>> waiting;
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->held.erase(url);
      waiting = std::exchange(shared_->waiting[url], {});
      shared_->waiting.erase(url);
    }
    for (const auto& resume : waiting) resume();
  }

  /// Transfers of `url`, or of all, that have begun.
  [[nodiscard]] std::size_t transfers(const std::string& url) const {
    const std::lock_guard lock(shared_->mutex);
    const auto found = shared_->transfers.find(url);
    return found == shared_->transfers.end() ? 0 : found->second;
  }
  [[nodiscard]] std::size_t transfers() const {
    const std::lock_guard lock(shared_->mutex);
    std::size_t all = 0;
    for (const auto& [url, count] : shared_->transfers) all += count;
    return all;
  }
  /// Bytes that sinks have taken.
  [[nodiscard]] std::uint64_t bytes() const { return shared_->bytes.load(); }

 private:
  friend class detail::MemoryWork;

  struct File {
    std::shared_ptr<const std::string> bytes;
    std::string etag;
  };

  struct Shared {
    std::mutex mutex;
    std::map<std::string, File> files;
    std::map<std::string, std::deque<Fault>> faults;
    std::map<std::string, std::uint64_t> held;
    std::map<std::string, std::vector<std::function<void()>>> waiting;  // to resume
    std::map<std::string, std::size_t> transfers;
    std::uint64_t versions = 0;
    std::atomic<std::uint64_t> bytes{0};
  };

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

namespace detail {

/// `http`, `https` or `mem`, and something after it.
inline std::error_code check_memory_url(std::string_view url) {
  const bool clean = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c <= '~'; });
  const std::size_t colon = url.find("://");
  if (!clean || colon == std::string_view::npos || colon == 0 || colon + 3 == url.size()) return errc::invalid_url;
  const std::string scheme = fold_case(url.substr(0, colon));
  if (scheme != "http" && scheme != "https" && scheme != "mem") return errc::scheme_not_allowed;
  return {};
}

/// The transfers of one downloader. Shared with what it has posted, which may come after its end.
class MemoryWork : public std::enable_shared_from_this<MemoryWork> {
 public:
  using Poster = std::function<void(std::function<void()>)>;

  struct Job {
    enum class State : std::uint8_t { waiting, running, ended };
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
    State state = State::waiting;  // under the lock
    std::atomic<bool> cancelled{false};
    // Of the thread that runs it.
    bool begun = false;
    MemoryOrigin::File file;
    std::optional<MemoryOrigin::Fault> fault;
    std::uint64_t position = 0;
    std::uint64_t sent = 0;
  };
  using JobPtr = std::shared_ptr<Job>;

  MemoryWork(MemoryOrigin origin, Poster poster) : origin_(std::move(origin)), poster_(std::move(poster)) {}

  JobPtr start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    auto job = std::make_shared<Job>();
    job->request = std::move(request);
    job->sink = std::move(sink);
    {
      const std::lock_guard lock(mutex_);
      job->cancelled = stopped_;
      jobs_.push_back(job);
    }
    dispatch(job);
    return job;
  }

  void cancel(const JobPtr& job) {
    if (job->cancelled.exchange(true)) return;
    dispatch(job);  // where it is held; one that runs looks for itself
  }

  /// Ends all, and waits for what other threads are in.
  void stop() {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    while (!jobs_.empty()) {
      const JobPtr job = jobs_.front();
      job->cancelled = true;
      lock.unlock();
      run(job);
      lock.lock();
      left_.wait(lock, [&] { return job->state != Job::State::running; });
    }
  }

 private:
  void dispatch(const JobPtr& job) {
    if (!poster_) return run(job);
    poster_([self = shared_from_this(), job] { self->run(job); });
  }

  void run(const JobPtr& job) {
    {
      const std::lock_guard lock(mutex_);
      if (job->state != Job::State::waiting) return;
      job->state = Job::State::running;
    }
    FetchResult result;
    if (!step(*job, result)) return park(job);
    std::exchange(job->sink, nullptr)->done(result);
    const std::lock_guard lock(mutex_);
    job->state = Job::State::ended;
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), job));
    left_.notify_all();
  }

  /// Sends what may be sent. False: it is held.
  bool step(Job& job, FetchResult& result) {
    const auto end = [&](std::error_code error, int status) {
      result.error = error;
      result.http_status = status;
      if (error) result.detail = redact_url(job.request.url);
      return true;
    };
    if (job.cancelled) return end(errc::cancelled, 0);
    if (job.file.bytes == nullptr) {
      if (const std::error_code error = look_up(job)) return end(error, error == errc::not_found ? 404 : 0);
    }
    if (!job.begun) {
      if (job.fault && job.fault->after_bytes == 0) {
        result.retry_after = job.fault->retry_after;
        return end(job.fault->error, 0);
      }
      if (held_after(job.request.url) == 0) return false;
      job.begun = true;
      if (const std::error_code error = begin(job)) return end(error, status_of(job));
    }
    while (true) {
      if (job.cancelled) return end(errc::cancelled, status_of(job));
      const std::uint64_t left = job.file.bytes->size() - job.position;
      if (job.fault && (left == 0 || job.sent >= job.fault->after_bytes)) {
        result.retry_after = job.fault->retry_after;
        return end(job.fault->error, status_of(job));
      }
      const auto hold = held_after(job.request.url);
      if (hold && job.sent >= *hold) return false;
      if (left == 0) return end({}, status_of(job));
      std::uint64_t count = std::min(left, piece_bytes);
      if (hold) count = std::min(count, *hold - job.sent);
      if (job.fault) count = std::min(count, job.fault->after_bytes - job.sent);
      const auto piece = std::as_bytes(std::span(*job.file.bytes)).subspan(job.position, count);
      if (const std::error_code error = job.sink->write(piece)) return end(error, status_of(job));
      job.position += count;
      job.sent += count;
      origin_.shared_->bytes += count;
    }
  }

  static int status_of(const Job& job) { return job.position > 0 && job.request.offset > 0 ? 206 : 200; }

  std::error_code look_up(Job& job) {
    if (const std::error_code error = check_memory_url(job.request.url)) return error;
    const std::lock_guard lock(origin_.shared_->mutex);
    ++origin_.shared_->transfers[job.request.url];
    auto& faults = origin_.shared_->faults[job.request.url];
    if (!faults.empty()) {
      job.fault = faults.front();
      faults.pop_front();
    }
    const auto found = origin_.shared_->files.find(job.request.url);
    if (found != origin_.shared_->files.end()) {
      job.file = found->second;
      return {};
    }
    const bool unreachable = job.fault && job.fault->after_bytes == 0;
    return unreachable ? job.fault->error : errc::not_found;
  }

  /// As a server that knows `Range` and `If-Range` does.
  static std::error_code begin(Job& job) {
    const std::uint64_t length = job.file.bytes->size();
    const SourceIdentity& held = job.request.identity;
    job.position = held.etag.empty() || held.etag == job.file.etag ? job.request.offset : 0;
    if (job.position > length) return errc::range_mismatch;
    if (job.request.size && length > *job.request.size) return errc::body_too_long;
    if (job.request.size && length < *job.request.size) return errc::body_too_short;
    return job.sink->begin(job.position, {length, job.file.etag, {}});
  }

  /// Where transfers of `url` are to stop, if they are.
  [[nodiscard]] std::optional<std::uint64_t> held_after(const std::string& url) const {
    const std::lock_guard lock(origin_.shared_->mutex);
    const auto found = origin_.shared_->held.find(url);
    return found == origin_.shared_->held.end() ? std::nullopt : std::optional(found->second);
  }

  /// Waits for `release`, or for a cancellation that came meanwhile.
  void park(const JobPtr& job) {
    {
      const std::lock_guard lock(mutex_);
      job->state = Job::State::waiting;
      left_.notify_all();
    }
    bool again = job->cancelled;
    if (!again) {
      const std::lock_guard lock(origin_.shared_->mutex);
      const auto found = origin_.shared_->held.find(job->request.url);
      again = found == origin_.shared_->held.end() || found->second > job->sent;
      if (!again) {
        origin_.shared_->waiting[job->request.url].push_back(
            [weak = weak_from_this(), weak_job = std::weak_ptr<Job>(job)] {
              const auto self = weak.lock();
              const auto waiting = weak_job.lock();
              if (self != nullptr && waiting != nullptr) self->dispatch(waiting);
            });
      }
    }
    if (again) dispatch(job);
  }

  static constexpr std::uint64_t piece_bytes = 64 * 1024;

  MemoryOrigin origin_;
  Poster poster_;
  std::mutex mutex_;
  std::condition_variable left_;  // a thread has left a job
  std::vector<JobPtr> jobs_;
  bool stopped_ = false;
};

}  // namespace detail

/// Moves files out of a `MemoryOrigin`. URLs are `http`, `https` or `mem`, and are compared as text.
///
/// Thread-safety: every member from any thread. Where it was given a poster, transfers run as the tasks that it posts;
/// otherwise inside `start`, and one that is held inside `MemoryOrigin::release` or `cancel`.
/// Object lifetimes: the destructor cancels what has not ended, and returns after each `done`; not inside a sink. What
/// the poster was given may run, or be dropped, at any later time.
class MemoryDownloader {
 public:
  using Origin = MemoryOrigin;
  using Poster = std::function<void(std::function<void()>)>;

  /// Refers to one transfer; empty when default-constructed.
  class Transfer {
   public:
    Transfer() = default;

   private:
    friend class MemoryDownloader;
    explicit Transfer(const std::shared_ptr<detail::MemoryWork::Job>& job) : job_(job) {}

    std::weak_ptr<detail::MemoryWork::Job> job_;
  };

  explicit MemoryDownloader(Origin origin = {}, Poster poster = nullptr)
      : work_(std::make_shared<detail::MemoryWork>(std::move(origin), std::move(poster))) {}
  MemoryDownloader(MemoryDownloader&&) noexcept = default;
  MemoryDownloader& operator=(MemoryDownloader&&) = delete;
  ~MemoryDownloader() {
    if (work_ != nullptr) work_->stop();
  }

  [[nodiscard]] std::error_code check_url(std::string_view url) const { return detail::check_memory_url(url); }

  Transfer start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    return Transfer(work_->start(std::move(request), std::move(sink)));
  }

  void cancel(const Transfer& transfer) {
    if (const auto job = transfer.job_.lock()) work_->cancel(job);
  }

 private:
  std::shared_ptr<detail::MemoryWork> work_;
};

static_assert(diagnose_downloader<MemoryDownloader>());

}  // namespace garner

// garner/execution/asio_executor.hpp ------------------------------------------------------------------------
// AsioExecutor: the default Executor, on threads of its own or on an io_context or thread_pool that a program has
// already. Not here: any notion of what the tasks do, or of how many of them should run at once.

namespace garner {

/// Runs tasks on Asio. An idle one wakes no thread: there is no polling, only posted tasks and timers that are due.
///
/// Thread-safety: every member from any thread.
/// Object lifetimes: with threads of its own, the destructor drops the tasks that have not begun, waits for those that
/// have, and joins; it must not run inside a task. A borrowed context or pool must outlive the executor; tasks and
/// timers that were posted to it stay there when the executor ends, and run after it. A `Timer` may outlive
/// everything.
/// Exception safety: a task that throws ends the program on threads of our own, as it would in a `std::thread`; on a
/// borrowed context the exception leaves `run()`.
class AsioExecutor {
 private:
  /// Owned by the pending wait alone, so that no timer is left when its context goes.
  struct Alarm {
    Alarm(const asio::any_io_executor& executor, Instant at, Task what)
        : timer(executor, std::chrono::steady_clock::time_point(
                              std::chrono::duration_cast<std::chrono::steady_clock::duration>(at))),
          task(std::move(what)) {}

    asio::steady_timer timer;
    Task task;
    std::atomic<bool> claimed{false};  // by the run or by a cancellation, whichever is first
  };

 public:
  /// Refers to one task of `post_at`; empty when default-constructed.
  class Timer {
   public:
    Timer() = default;

   private:
    friend class AsioExecutor;
    explicit Timer(const std::shared_ptr<Alarm>& alarm) : alarm_(alarm) {}

    std::weak_ptr<Alarm> alarm_;
  };

  /// Owns `threads` threads, at least one. This constructor and the next two throw `std::system_error` where there are
  /// no threads or no descriptors left.
  explicit AsioExecutor(unsigned threads = 4)
      : own_(std::make_unique<asio::thread_pool>(threads == 0 ? 1 : threads)), executor_(own_->get_executor()) {
    open_timers();
  }
  /// Borrows `context`; somebody must run it.
  explicit AsioExecutor(asio::io_context& context) : executor_(context.get_executor()) { open_timers(); }
  /// Borrows `pool`.
  explicit AsioExecutor(asio::thread_pool& pool) : executor_(pool.get_executor()) { open_timers(); }

  AsioExecutor(AsioExecutor&&) noexcept = default;
  AsioExecutor& operator=(AsioExecutor&&) = delete;
  ~AsioExecutor() = default;

  void post(Task task) { asio::post(executor_, std::move(task)); }

  Timer post_at(Instant at, Task task) {
    auto alarm = std::make_shared<Alarm>(executor_, at, std::move(task));
    Timer handle(alarm);
    asio::steady_timer& timer = alarm->timer;
    timer.async_wait([alarm = std::move(alarm)](const std::error_code&) {
      if (!alarm->claimed.exchange(true)) alarm->task();
    });
    return handle;
  }

  void cancel(Timer& timer) noexcept {
    const std::shared_ptr<Alarm> alarm = timer.alarm_.lock();
    // Asio does not take back a wait whose time has come, so the claim decides; and it lets one thread only touch the
    // timer, which is not safe for two.
    if (alarm == nullptr || alarm->claimed.exchange(true)) return;
    try {
      alarm->timer.cancel();
    } catch (const std::system_error&) {
      // It stays until it is due and then finds itself claimed.
    }
  }

  /// Of `std::chrono::steady_clock`.
  [[nodiscard]] Instant now() const noexcept { return std::chrono::steady_clock::now().time_since_epoch(); }

 private:
  /// Asio opens the descriptors that timers need with a context's first timer. That must not be the one that waits for
  /// descriptors to be free again.
  void open_timers() const { const asio::steady_timer first(executor_); }

  std::unique_ptr<asio::thread_pool> own_;
  asio::any_io_executor executor_;
};

static_assert(diagnose_executor<AsioExecutor>());

}  // namespace garner

// garner/execution/async_wait.hpp ---------------------------------------------------------------------------
// The waits of a data manager as Asio operations: with a callback, a future, or `co_await` and
// `asio::use_awaitable`.

namespace garner {

namespace detail {

/// One wait: completes its handler once, when `is_over(event)` or the manager is closed.
template <class Handler>
class AsyncWait : public std::enable_shared_from_this<AsyncWait<Handler>> {
 public:
  explicit AsyncWait(Handler handler)
      : handler_(std::move(handler)), work_(asio::get_associated_executor(*handler_, asio::system_executor())) {}

  /// `is_over` is asked at once, and then at each event.
  template <class Manager, class IsOver>
  void start(Manager& manager, IsOver is_over) {
    auto self = this->shared_from_this();
    Subscription subscription = manager.subscribe([self, &manager, is_over](const Event& event) {
      if (is_over(manager)) return self->complete({});
      if (event.kind == EventKind::closed) self->complete(errc::closed);
      if (event.kind == EventKind::recovered && event.error) self->complete(event.error);
    });
    // After subscribing, so that nothing falls between.
    const bool over = is_over(manager);
    const Status status = manager.status();
    std::optional<std::error_code> error;
    {
      const std::scoped_lock lock(mutex_);
      subscription_ = std::move(subscription);
      starting_ = false;
      error = early_;
    }
    // The handler may end the manager, so that is not touched any more.
    if (error) return complete(*error);
    if (over) return complete({});
    if (status.closed) return complete(errc::closed);
    if (status.recovery_error) complete(status.recovery_error);
  }

 private:
  void complete(std::error_code error) {
    std::optional<Handler> handler;
    Subscription subscription;
    {
      const std::scoped_lock lock(mutex_);
      if (starting_) {
        if (!early_) early_ = error;
        return;
      }
      // A handler need not be assignable.
      if (handler_) handler.emplace(*std::move(handler_));
      handler_.reset();
      subscription = std::move(subscription_);
    }
    if (!handler) return;
    const auto executor = work_.get_executor();
    asio::post(executor, [handler = *std::move(handler), error]() mutable { std::move(handler)(error); });
    work_.reset();
  }

  using Executor = asio::associated_executor_t<Handler, asio::system_executor>;

  std::mutex mutex_;
  std::optional<Handler> handler_;
  asio::executor_work_guard<Executor> work_;
  Subscription subscription_;
  bool starting_ = true;                  // nothing completes before `start` is through
  std::optional<std::error_code> early_;  // what was to complete then
};

template <class Manager, class IsOver, class Token>
auto async_wait(Manager& manager, IsOver is_over, Token&& token) {
  return asio::async_initiate<Token, void(std::error_code)>(
      [&manager, is_over = std::move(is_over)](auto handler) {
        using Handler = decltype(handler);
        std::make_shared<AsyncWait<Handler>>(std::move(handler))->start(manager, is_over);
      },
      token);
}

}  // namespace detail

/// Completes with no error once nothing wanted is missing and nothing unwanted is left unpinned, with
/// `errc::closed` where the manager is closed before, and with `Status::recovery_error` where there is one. The
/// handler, `void(std::error_code)`, runs on its associated executor. The manager must live until then.
template <class S, class D, class E, class Token>
auto async_wait_converged(DataManager<S, D, E>& manager, Token&& token) {
  return detail::async_wait(
      manager, [](const DataManager<S, D, E>& m) { return m.status().converged; }, std::forward<Token>(token));
}

/// As `async_wait_converged`, once the chunk is served.
template <class S, class D, class E, class Token>
auto async_wait_ready(DataManager<S, D, E>& manager, const ChunkId& id, Token&& token) {
  return detail::async_wait(
      manager,
      [id](const DataManager<S, D, E>& m) {
        const std::optional<ChunkStatus> status = m.chunk_status(id);
        return status && status->served;
      },
      std::forward<Token>(token));
}

}  // namespace garner

// garner/execution/inline_executor.hpp ----------------------------------------------------------------------
// InlineExecutor: an Executor without threads that runs tasks where and when its caller says so, for tests and for
// programs of one thread. Goes by the steady clock, or by a manual one that moves only when it is told to.

namespace garner {

/// Runs tasks inside `run_one_until`, `run_ready` and `advance`, on the thread that calls them: posted ones in their
/// order, timers in the order of their times, and of a posted task and a timer that is due the one that came first.
///
/// Thread-safety: every member from any thread; tasks may be posted while another thread waits for one. Several
/// threads may run tasks at the same time, and a task may run others.
/// Object lifetimes: the destructor drops what has not run. A `Timer` may outlive it.
/// Exception safety: an exception leaves a task through the call that ran it; that task is spent.
class InlineExecutor {
 public:
  /// Refers to one task of `post_at`; empty when default-constructed.
  class Timer {
   public:
    Timer() = default;

   private:
    friend class InlineExecutor;
    Timer(Instant at, std::uint64_t sequence) : key_{at, sequence} {}

    std::pair<Instant, std::uint64_t> key_{};
  };

  /// Goes by `std::chrono::steady_clock`.
  InlineExecutor() : state_(std::make_unique<State>()) {}

  /// Goes by a clock of its own that starts at `start` and never waits: where nothing is due, `run_one_until` moves it
  /// to the next timer, or to the end of its wait.
  static InlineExecutor manual(Instant start = Instant::zero()) {
    InlineExecutor executor;
    executor.state_->manual_now = start;
    return executor;
  }

  void post(Task task) {
    const std::lock_guard lock(state_->mutex);
    state_->ready.push_back({++state_->sequence, std::move(task)});
    state_->changed.notify_one();
  }

  Timer post_at(Instant at, Task task) {
    const std::lock_guard lock(state_->mutex);
    const Timer timer(at, ++state_->sequence);
    state_->timers.emplace(timer.key_, std::move(task));
    state_->changed.notify_one();
    return timer;
  }

  void cancel(Timer& timer) noexcept {
    Task dropped;  // Destroyed after the lock: what a task holds may call back.
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->timers.find(timer.key_);
    if (found == state_->timers.end()) return;
    dropped = std::move(found->second);
    state_->timers.erase(found);
  }

  [[nodiscard]] Instant now() const noexcept {
    const std::lock_guard lock(state_->mutex);
    return state_->now();
  }

  /// Runs one task and returns true; or waits for one until `until`, and returns false. With the manual clock the wait
  /// takes no time: the clock moves instead (and stays where it is for `Instant::max()`, the end of time).
  bool run_one_until(Instant until) {
    std::unique_lock lock(state_->mutex);
    while (true) {
      if (std::optional<Task> task = state_->take_due()) {
        lock.unlock();
        (*task)();
        return true;
      }
      const bool timer_in_time = !state_->timers.empty() && state_->timers.begin()->first.first <= until;
      const Instant next = timer_in_time ? state_->timers.begin()->first.first : until;
      if (state_->manual_now) {
        if (next != Instant::max()) state_->manual_now = std::max(*state_->manual_now, next);
        if (!timer_in_time) return false;
      } else if (next == Instant::max()) {
        state_->changed.wait(lock);
      } else if (!timer_in_time && state_->now() >= until) {
        return false;
      } else {
        state_->changed.wait_until(lock, std::chrono::steady_clock::time_point(next));
      }
    }
  }

  /// Runs what is due, and what that posts, without waiting; returns how many tasks ran.
  std::size_t run_ready() {
    std::size_t count = 0;
    for (;; ++count) {
      std::unique_lock lock(state_->mutex);
      std::optional<Task> task = state_->take_due();
      lock.unlock();
      if (!task) return count;
      (*task)();
    }
  }

  /// Runs all that becomes due within `duration` from now, each at its time; returns how many tasks ran. Takes that
  /// long with the steady clock, and no time with the manual one.
  std::size_t advance(std::chrono::nanoseconds duration) {
    const Instant until = now() + duration;
    std::size_t count = 0;
    while (run_one_until(until)) ++count;
    return count;
  }

 private:
  struct Ready {
    std::uint64_t sequence;
    Task task;
  };

  struct State {
    [[nodiscard]] Instant now() const noexcept {
      return manual_now ? *manual_now : Instant(std::chrono::steady_clock::now().time_since_epoch());
    }

    /// In the order of posting, so that neither timers nor tasks can starve the other.
    std::optional<Task> take_due() {
      const auto timer = timers.begin();
      const bool due = timer != timers.end() && timer->first.first <= now();
      if (due && (ready.empty() || timer->first.second < ready.front().sequence)) {
        Task task = std::move(timer->second);
        timers.erase(timer);
        return task;
      }
      if (ready.empty()) return std::nullopt;
      Task task = std::move(ready.front().task);
      ready.pop_front();
      return task;
    }

    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Instant> manual_now;
    std::uint64_t sequence = 0;
    std::deque<Ready> ready;
    std::map<std::pair<Instant, std::uint64_t>, Task> timers;
  };

  std::unique_ptr<State> state_;
};

static_assert(diagnose_executor<InlineExecutor>() && DrivenExecutor<InlineExecutor>);

}  // namespace garner

// Two parts that stand by themselves.

// garner/execution/executor_ref.hpp -------------------------------------------------------------------------
// ExecutorRef: an executor that somebody else owns, as an Executor. Data managers, task pools and download managers own
// their policies; this is how several of them share one.

namespace garner {

/// Passes everything on. Thread-safety and exceptions: those of `E`.
/// Object lifetimes: the executor must outlive whatever was given the reference.
template <Executor E>
class ExecutorRef {
 public:
  using Timer = typename E::Timer;

  explicit ExecutorRef(E& executor) noexcept : executor_(&executor) {}

  void post(Task task) { executor_->post(std::move(task)); }
  Timer post_at(Instant at, Task task) { return executor_->post_at(at, std::move(task)); }
  void cancel(Timer& timer) { executor_->cancel(timer); }
  [[nodiscard]] Instant now() const { return std::as_const(*executor_).now(); }
  bool run_one_until(Instant until) requires DrivenExecutor<E> { return executor_->run_one_until(until); }

 private:
  E* executor_;
};

}  // namespace garner

// garner/execution/task_pool.hpp ----------------------------------------------------------------------------
// TaskPool: tasks with results, continuations and abortion on any Executor, and a limit of how many run at once.
// Standard library only. What it does in which order is in pool_work.hpp.

// garner/execution/pool_work.hpp ----------------------------------------------------------------------------
// What a task pool has been given and has not done yet: a queue, the agents that it has on an executor to work on it,
// and who waits for what. The results and the handles are in task_pool.hpp.

namespace garner::detail {

/// One task. Its work and its result are the derived class's.
class PoolTask : public std::enable_shared_from_this<PoolTask> {
 public:
  PoolTask() = default;
  PoolTask(const PoolTask&) = delete;
  PoolTask& operator=(const PoolTask&) = delete;
  virtual ~PoolTask() = default;

  /// In the place of a result. Of a task that has ended.
  [[nodiscard]] const std::exception_ptr& error() const noexcept { return error_; }

 protected:
  /// Does the work, sets a result or an error, and lets go of all that the work held.
  virtual void run() noexcept = 0;
  /// Lets go of it undone.
  virtual void drop() noexcept = 0;

  std::exception_ptr error_;
  std::stop_source stop_{std::nostopstate};

 private:
  friend class PoolWork;
  enum class State : std::uint8_t {
    waiting,  ///< for the task that it continues
    queued,
    running,  ///< or about to end without having run
    ended,
  };

  // Guarded by the lock of the pool's work.
  State state_ = State::waiting;
  std::shared_ptr<PoolTask> continues_;  ///< while it waits for that
  std::shared_ptr<PoolTask> next_;       ///< that continues this one

  // Its place in the queue is made with it, so that it can be queued where nothing may fail.
  using Places = std::list<std::shared_ptr<PoolTask>>;
  Places place_ = Places(1);
  Places::iterator at_ = place_.begin();
};

/// Shared by the pool, its handles and its agents. An agent is a task of the executor: it does one task of the pool,
/// and is posted anew where there are more, so that whoever else uses the executor has a turn.
///
/// Thread-safety: every member from any thread. Tasks, and what they hold, are run and destroyed outside of the lock.
class PoolWork : public std::enable_shared_from_this<PoolWork> {
 public:
  using TaskPtr = std::shared_ptr<PoolTask>;
  using Poster = std::function<void(Task)>;
  using ErrorHandler = std::function<void(std::exception_ptr)>;

  /// At most `max_concurrent` tasks run at the same time; 0: any number. `driven`: the executor has no threads, so
  /// whoever waits does the work.
  PoolWork(std::size_t max_concurrent, bool driven, Poster poster, ErrorHandler on_error)
      : max_(max_concurrent == 0 ? std::numeric_limits<std::size_t>::max() : max_concurrent),
        driven_(driven),
        poster_(std::move(poster)),
        on_error_(std::move(on_error)) {}
  PoolWork(const PoolWork&) = delete;
  PoolWork& operator=(const PoolWork&) = delete;
  ~PoolWork() = default;

  /// Takes on `task`. Throws `Error` with `errc::closed`, and what the executor throws where it refuses and nobody else
  /// is there to do it; nothing has changed then.
  void give(const TaskPtr& task) {
    std::unique_lock lock(mutex_);
    check_open();
    ++open_;
    give(lock, task);
  }

  /// Takes on `task`, to be run after `first`, or to fail with its error.
  void chain(const TaskPtr& first, const TaskPtr& task) {
    std::unique_lock lock(mutex_);
    check_open();
    ++open_;
    if (first->state_ != PoolTask::State::ended) {
      first->next_ = task;
      task->continues_ = first;
    } else if (first->error_) {
      fail(lock, task, first->error_);
    } else {
      give(lock, task);
    }
  }

  /// True where `task` had not begun, and now never will. Where it runs, its stop token says so from now on.
  bool abort(const TaskPtr& task) {
    TaskPtr first;
    std::unique_lock lock(mutex_);
    if (task->state_ == PoolTask::State::ended) return false;
    if (task->state_ == PoolTask::State::running) {
      lock.unlock();
      task->stop_.request_stop();
      return false;
    }
    if (task->state_ == PoolTask::State::queued) unlink(*task);
    first = std::move(task->continues_);
    if (first) first->next_.reset();
    fail(lock, task, std::make_exception_ptr(Error(errc::cancelled, "task")));
    return true;
  }

  [[nodiscard]] bool has_ended(const TaskPtr& task) {
    const std::scoped_lock lock(mutex_);
    return task->state_ == PoolTask::State::ended;
  }

  /// Until `task` has ended. Does it on this thread where nobody else could.
  void wait(const TaskPtr& task) {
    TaskPtr next;  // that continues what was run last, so that a long chain is not walked for each of its tasks
    std::unique_lock lock(mutex_);
    while (task->state_ != PoolTask::State::ended) {
      if (next && (next->state_ != PoolTask::State::queued || !may_help())) {
        lock.unlock();
        next.reset();
        lock.lock();
        continue;
      }
      if (!next) {
        PoolTask* first = task.get();
        while (first->state_ == PoolTask::State::waiting) first = first->continues_.get();
        if (first->state_ == PoolTask::State::queued && may_help()) next = first->shared_from_this();
      }
      if (!next) {
        changed_.wait(lock);
        continue;
      }
      TaskPtr first = std::move(next);
      next = first->next_;
      help(lock, std::move(first));
    }
  }

  /// Refuses what comes from now on, and returns when all that was given has ended. Inside of a task it does not wait.
  void stop() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    if (is_inside()) return;
    while (open_ != 0 || posting_ != 0) {
      if (TaskPtr task = active_ < max_ ? take() : nullptr) {
        ++agents_;
        run(lock, std::move(task), true);
        leave();
      } else {
        changed_.wait(lock);
      }
    }
  }

  /// What a task threw that has nobody else to tell.
  void report(const std::exception_ptr& error) const noexcept {
    try {
      if (on_error_) on_error_(error);
    } catch (...) {
      // A handler that fails has nobody to tell either.
    }
  }

 private:
  /// Posted to the executor. One that is dropped there, or refused, takes itself off.
  class Agent {
   public:
    explicit Agent(std::shared_ptr<PoolWork> work) : work_(std::move(work)) {}
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;
    ~Agent() {
      if (!work_) return;
      const std::scoped_lock lock(work_->mutex_);
      work_->leave();
    }
    void run() {
      const std::shared_ptr<PoolWork> work = std::exchange(work_, nullptr);
      std::unique_lock lock(work->mutex_);
      work->work(lock);
    }

   private:
    std::shared_ptr<PoolWork> work_;
  };

  /// One for each task of a pool that this thread is in.
  struct Frame {
    explicit Frame(const PoolWork* owner) : work(owner), above(std::exchange(innermost, this)) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { innermost = above; }

    const PoolWork* work;
    Frame* above;
    static inline thread_local Frame* innermost = nullptr;
  };

  [[nodiscard]] bool is_inside() const noexcept {
    for (const Frame* frame = Frame::innermost; frame != nullptr; frame = frame->above) {
      if (frame->work == this) return true;
    }
    return false;
  }

  // ---- under the lock

  void check_open() const {
    if (closed_) throw Error(errc::closed, "task pool");
  }

  void push(const TaskPtr& task) noexcept {
    task->state_ = PoolTask::State::queued;
    *task->at_ = task;
    queue_.splice(queue_.end(), task->place_);
  }

  /// Out of the queue, and this thread's to run or to fail.
  TaskPtr unlink(PoolTask& task) noexcept {
    task.state_ = PoolTask::State::running;
    task.place_.splice(task.place_.end(), queue_, task.at_);
    return std::exchange(*task.at_, nullptr);
  }

  TaskPtr take() noexcept { return queue_.empty() ? nullptr : unlink(*queue_.front()); }

  /// An agent is gone.
  void leave() noexcept {
    if (--agents_ == 0) changed_.notify_all();
  }

  [[nodiscard]] bool may_help() const noexcept {
    // Whoever waits inside of a task lends that one its own place.
    return is_inside() || ((driven_ || agents_ == 0) && active_ < max_);
  }

  // ---- under the lock, which they let go of meanwhile

  void give(std::unique_lock<std::mutex>& lock, const TaskPtr& task) {
    push(task);
    if (agents_ >= max_) return;
    const std::exception_ptr refusal = post_agent(lock);
    if (!refusal || agents_ != 0) return;
    const bool refused = task->state_ == PoolTask::State::queued;
    if (refused) {
      unlink(*task);
      --open_;
    }
    // An agent may have left meanwhile, since this one was to come.
    ++agents_;
    work(lock);
    if (refused) std::rethrow_exception(refusal);
  }

  /// What the executor threw, where it refused.
  std::exception_ptr post_agent(std::unique_lock<std::mutex>& lock) noexcept {
    ++agents_;
    ++posting_;
    lock.unlock();
    std::exception_ptr refusal;
    bool counted = false;  // off, by the agent itself
    try {
      auto agent = std::make_shared<Agent>(shared_from_this());
      counted = true;
      poster_([agent = std::move(agent)] { agent->run(); });
    } catch (...) {
      refusal = std::current_exception();
    }
    lock.lock();
    if (refusal && !counted) leave();
    if (--posting_ == 0) changed_.notify_all();
    return refusal;
  }

  /// As one of the agents, which leaves at the end.
  void work(std::unique_lock<std::mutex>& lock) noexcept {
    do {
      TaskPtr task = active_ < max_ ? take() : nullptr;
      if (!task) break;
      run(lock, std::move(task), true);
    } while (!is_relieved(lock));
    leave();
  }

  /// On a thread that waits for it.
  void help(std::unique_lock<std::mutex>& lock, TaskPtr task) noexcept {
    unlink(*task);
    if (is_inside()) return run(lock, std::move(task), false);
    ++agents_;
    run(lock, std::move(task), true);
    if (is_relieved(lock)) return leave();
    work(lock);
  }

  /// Whether an agent may leave: each task in the queue has another one, that has not begun yet.
  bool is_relieved(std::unique_lock<std::mutex>& lock) noexcept {
    // As many as may run now. Looked at once more after each that was posted: others may have left because this one was
    // still here.
    while (std::min(queue_.size(), max_ - active_) > agents_ - active_ - 1) {
      if (post_agent(lock)) return false;
    }
    return true;
  }

  void run(std::unique_lock<std::mutex>& lock, TaskPtr task, bool counts) noexcept {
    if (counts) ++active_;
    lock.unlock();
    {
      const Frame frame(this);
      task->run();
    }
    lock.lock();
    if (counts) --active_;
    finish(lock, std::move(task));
  }

  void fail(std::unique_lock<std::mutex>& lock, TaskPtr task, std::exception_ptr error) noexcept {
    task->state_ = PoolTask::State::running;
    lock.unlock();
    task->error_ = std::move(error);
    task->drop();
    lock.lock();
    finish(lock, std::move(task));
  }

  /// After its work. What continues a task that failed ends here as well.
  void finish(std::unique_lock<std::mutex>& lock, TaskPtr task) noexcept {
    while (task) {
      task->state_ = PoolTask::State::ended;
      changed_.notify_all();
      TaskPtr next = std::exchange(task->next_, nullptr);
      if (next) next->continues_.reset();
      if (next && !task->error_) push(std::exchange(next, nullptr));
      if (next) next->state_ = PoolTask::State::running;
      const std::exception_ptr error = task->error_;
      lock.unlock();
      // The result, where nobody wants it, goes before the task counts as done.
      task = std::move(next);
      if (task) {
        task->error_ = error;
        task->drop();
      }
      lock.lock();
      if (--open_ == 0) changed_.notify_all();
    }
  }

  const std::size_t max_;
  const bool driven_;
  const Poster poster_;
  const ErrorHandler on_error_;

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  PoolTask::Places queue_;
  std::size_t agents_ = 0;   // posted, or at work; who helps is one
  std::size_t active_ = 0;   // tasks that run, but for those inside of others
  std::size_t open_ = 0;     // tasks that were given and have not ended
  std::size_t posting_ = 0;  // threads that are in the executor
  bool closed_ = false;
};

}  // namespace garner::detail

namespace garner {

struct TaskPoolOptions {
  std::size_t max_concurrent = 0;  ///< tasks that run at the same time; 0: as many as the executor runs
  /// Takes what a task of `forget` throws, on the thread that ran it; what it throws itself is dropped. None: dropped.
  std::function<void(std::exception_ptr)> on_error = {};
};

namespace detail {

template <class F, class... Args>
decltype(auto) invoke_stoppable(F& function, const std::stop_token& token, Args&&... args) {
  if constexpr (std::is_invocable_v<F&, std::stop_token, Args...>) {
    return function(token, std::forward<Args>(args)...);
  } else {
    return function(std::forward<Args>(args)...);
  }
}

/// What a task of `F` results in: a value.
template <class F, class... Args>
using PoolValue =
    std::remove_cvref_t<decltype(invoke_stoppable(std::declval<F&>(), std::stop_token(), std::declval<Args>()...))>;

template <class T>
class PoolResult : public PoolTask {
 public:
  T take() {
    if constexpr (!std::is_void_v<T>) return *std::move(value_);
  }

 protected:
  std::optional<std::conditional_t<std::is_void_v<T>, char, T>> value_;
};

/// A task of `execute`.
template <class F, class T>
class PoolCall : public PoolResult<T> {
 public:
  explicit PoolCall(F function) : function_(std::move(function)) {
    if constexpr (std::is_invocable_v<F&, std::stop_token>) this->stop_ = std::stop_source();
  }

 protected:
  void run() noexcept override {
    try {
      if constexpr (std::is_void_v<T>) {
        invoke_stoppable(*function_, this->stop_.get_token());
      } else {
        this->value_.emplace(invoke_stoppable(*function_, this->stop_.get_token()));
      }
    } catch (...) {
      this->error_ = std::current_exception();
    }
    drop();
  }
  void drop() noexcept override { function_.reset(); }

 private:
  std::optional<F> function_;
};

/// A task of `forget`.
template <class F>
class PoolForgotten final : public PoolCall<F, void> {
 public:
  PoolForgotten(F function, const PoolWork& work) : PoolCall<F, void>(std::move(function)), work_(work) {}

 private:
  void run() noexcept override {
    PoolCall<F, void>::run();
    if (this->error_) work_.report(this->error_);
  }

  const PoolWork& work_;
};

}  // namespace detail

/// Ends a task of a pool that is not wanted any more. Copies refer to the same task; default-constructed it refers to
/// none. Thread-safety: every member from any thread. May outlive the task and its pool, and keeps no result.
class AbortHandle {
 public:
  AbortHandle() = default;

  /// True where the task had not begun, and now never will: its result is `errc::cancelled`, at once. Where it runs,
  /// its `std::stop_token` says so, and it ends as it will. Otherwise nothing happens.
  bool abort() const {
    const std::shared_ptr<detail::PoolTask> task = task_.lock();
    return task != nullptr && work_->abort(task);
  }

 private:
  template <class T>
  friend class TaskHandle;

  AbortHandle(std::shared_ptr<detail::PoolWork> work, const std::shared_ptr<detail::PoolTask>& task)
      : work_(std::move(work)), task_(task) {}

  std::shared_ptr<detail::PoolWork> work_;
  std::weak_ptr<detail::PoolTask> task_;
};

/// The result of a task that was given to a pool, as a `std::future` is: it can be moved, and taken once. Dropping it
/// changes nothing for the task. After `get` and `then`, moved from, or default-constructed it refers to no task, and
/// only `valid`, assignment and destruction are allowed.
///
/// Waiting: a task that has not begun is run by the thread that waits for it, inside of its call, where that waits in a
/// task of the same pool (so tasks may wait for tasks, whatever the limit), or where the executor is driven by its
/// callers and the limit allows it (so a program of one thread need not drive it), or where the executor has dropped
/// what the pool posted. Otherwise, with threads, the executor's threads run it: to wait for a task on the only thread
/// that runs a borrowed `io_context`, outside of the pool's tasks, waits for ever.
///
/// Thread-safety: one thread at a time. May outlive the pool, which ends all tasks first.
template <class T>
class TaskHandle {
 public:
  TaskHandle() = default;
  TaskHandle(TaskHandle&&) noexcept = default;
  TaskHandle& operator=(TaskHandle&&) noexcept = default;
  ~TaskHandle() = default;

  [[nodiscard]] bool valid() const noexcept { return task_ != nullptr; }
  /// Whether the task has ended: with a result, an exception, or aborted.
  [[nodiscard]] bool done() const { return work_->has_ended(task_); }
  /// Until it has.
  void wait() const { work_->wait(task_); }

  /// Waits, and takes the result; throws what the task threw, and `Error` with `errc::cancelled` where it was aborted.
  T get() {
    wait();
    const auto task = std::exchange(task_, nullptr);
    if (task->error()) std::rethrow_exception(task->error());
    return task->take();
  }

  /// Runs `function` on the pool with the result, if there is one (and a `std::stop_token` before it, where it takes
  /// that); where there is none it is not called, and the error passes on. Throws as `TaskPool::execute` does; this
  /// handle is as it was then.
  template <class F>
  auto then(F function) {
    auto call = [first = task_,
                 function = std::move(function)](const std::stop_token& token) mutable -> decltype(auto) {
      if constexpr (std::is_void_v<T>) {
        return detail::invoke_stoppable(function, token);
      } else {
        return detail::invoke_stoppable(function, token, first->take());
      }
    };
    using Result = detail::PoolValue<decltype(call)>;
    auto next = std::make_shared<detail::PoolCall<decltype(call), Result>>(std::move(call));
    work_->chain(task_, next);
    task_.reset();
    return TaskHandle<Result>(work_, std::move(next));
  }

  bool abort() { return work_->abort(task_); }
  [[nodiscard]] AbortHandle abort_handle() const { return {work_, task_}; }

 private:
  template <class>
  friend class TaskPool;
  template <class>
  friend class TaskHandle;

  TaskHandle(std::shared_ptr<detail::PoolWork> work, std::shared_ptr<detail::PoolResult<T>> task)
      : work_(std::move(work)), task_(std::move(task)) {}

  std::shared_ptr<detail::PoolWork> work_;
  std::shared_ptr<detail::PoolResult<T>> task_;
};

/// Runs tasks on an executor that it owns; on another's with `ExecutorRef`. In the order in which they were given, as
/// far as the executor keeps it.
///
/// Thread-safety: every member from any thread, tasks of the pool among them.
/// Object lifetimes: the destructor stops, and must not run inside of a task of the pool. An executor on a borrowed
/// context need not be run for that. Exception safety: no exception of a task reaches the executor. Where the
/// executor's `post` throws, the call that wanted it throws that, and has changed nothing; what was taken on before is
/// done all the same.
template <class E>
class TaskPool {
  static_assert(diagnose_executor<E>());

 public:
  explicit TaskPool(E executor, TaskPoolOptions options = {})
      : executor_(std::move(executor)),
        work_(std::make_shared<detail::PoolWork>(
            options.max_concurrent, DrivenExecutor<E>, [this](Task task) { executor_.post(std::move(task)); },
            std::move(options.on_error))) {}
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;
  ~TaskPool() { stop(); }

  /// Runs `function()`, or `function(std::stop_token)`, whose result is the handle's. Throws `Error` with
  /// `errc::closed` after `stop`.
  template <class F>
  auto execute(F function) {
    using Result = detail::PoolValue<F>;
    auto task = std::make_shared<detail::PoolCall<F, Result>>(std::move(function));
    work_->give(task);
    return TaskHandle<Result>(work_, std::move(task));
  }

  /// Runs `function()`, and forgets it: what it throws goes to `TaskPoolOptions::on_error`. Throws as `execute` does.
  template <class F>
  void forget(F function) {
    work_->give(std::make_shared<detail::PoolForgotten<F>>(std::move(function), *work_));
  }

  /// Refuses new tasks from now on, runs all that were given to their end, continuations too (those that have not begun
  /// on this thread, if it comes to them first), and returns then. Inside of a task of the pool it does not wait.
  void stop() { work_->stop(); }

 private:
  E executor_;
  std::shared_ptr<detail::PoolWork> work_;
};

}  // namespace garner

// garner/download/download_manager.hpp ----------------------------------------------------------------------
// DownloadManager: named files from URLs into a directory, without a data manager: no chunks, no store, no state. How
// one file is fetched is in file_download.hpp.

// garner/download/file_download.hpp -------------------------------------------------------------------------
// One file of a DownloadManager on its way into a directory: a part under another name, mirrors in turn, rounds with
// backoff, the checks, and the rename at the end. What runs at the same time is decided in download_manager.hpp.

namespace garner {

/// One file of a download, at the moment of asking.
struct DownloadStatus {
  std::string name;
  std::uint64_t received = 0;             ///< bytes that are there; fewer again where it had to start over
  std::optional<std::uint64_t> expected;  ///< bytes, as the description or a server says
  bool done = false;
  std::error_code error;  ///< why it ended without a file; before that, why the last attempt failed
  std::string subject;    ///< beside `error`: the file, and the URL (redacted) or the directory
};

struct DownloadOptions {
  std::size_t max_concurrent_files = 8;  ///< being fetched, over all calls of a manager
  std::size_t max_concurrent_tasks = 4;  ///< of `pool_download`: files that are opened, checked or synced
  /// How often the mirrors of a file are tried, one after another, before its error is its result. After a round in
  /// which each mirror's answer was one that lasts (such as 403 and 404) there is no other.
  std::size_t attempts = 3;
  // Between two rounds: full jitter, uniform in [0, min(max_backoff, min_backoff * 2^round)). `Retry-After` is added,
  // as far as `max_backoff` allows.
  std::chrono::nanoseconds min_backoff = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max_backoff = std::chrono::seconds(10);
  Durability durability = Durability::full;  ///< full: a file that is done survives a power cut
  std::uint64_t seed = 0;                    ///< of the jitter; 0: a different one each time
};

namespace detail {

/// What can be told to stop. Thread-safe.
class DownloadJob {
 public:
  DownloadJob() = default;
  DownloadJob(const DownloadJob&) = delete;
  DownloadJob& operator=(const DownloadJob&) = delete;
  virtual ~DownloadJob() = default;
  virtual void cancel() = 0;
};

/// What a call's handle and its files share. Thread-safe.
struct DownloadState {
  std::function<void(const DownloadStatus&)> on_progress;
  std::function<bool(std::chrono::nanoseconds)> drive;  ///< until `left` is 0; none where the executor has threads

  std::recursive_mutex cancelling;                 ///< guards the next; a cancellation may call back
  std::vector<std::weak_ptr<DownloadJob>> jobs{};  ///< none once the manager is gone

  std::mutex mutex;  ///< guards the rest
  std::condition_variable changed;
  std::vector<DownloadStatus> files;
  std::size_t left = 0;  ///< that are not done

  void cancel() {
    const std::scoped_lock lock(cancelling);
    for (const auto& weak : jobs) {
      if (const auto job = weak.lock()) job->cancel();
    }
  }

  /// `change(status)` changes what is known of a file.
  template <class Change>
  void update(std::size_t file, const Change& change) {
    std::optional<DownloadStatus> told;
    {
      const std::scoped_lock lock(mutex);
      change(files[file]);
      if (on_progress) told = files[file];
    }
    if (told) guarded([&] { on_progress(*told); });
  }
};

/// What the files of a manager need of it. `spawn(batched, work)` runs work that may block; `ended` is the last call.
template <Downloader D, Executor E>
struct DownloadHooks {
  D& downloader;
  E& executor;
  const DownloadOptions& options;
  std::function<void(bool batched, Task work)> spawn;
  /// How long to wait after `round` rounds and one more, and what a server asked for.
  std::function<std::chrono::nanoseconds(std::uint64_t round, std::optional<std::chrono::nanoseconds> asked)> delay;
  std::function<void()> ended;
};

/// `begin` to end a chain of steps, one at a time: on the executor, and, for the bytes, on the downloader's thread.
template <Downloader D, Executor E, FileSystem F>
class FileDownload final : public FetchSink,
                           public DownloadJob,
                           public std::enable_shared_from_this<FileDownload<D, E, F>> {
 public:
  using Hooks = DownloadHooks<D, E>;

  /// File `index` of `state`, into the root of `fs`.
  FileDownload(const Hooks& hooks, std::shared_ptr<F> fs, std::shared_ptr<DownloadState> state, std::size_t index,
               std::string name, FileSource source, bool batched)
      : hooks_(hooks),
        fs_(std::move(fs)),
        state_(std::move(state)),
        index_(index),
        name_(std::move(name)),
        part_name_("." + name_ + ".part"),
        source_(std::move(source)),
        batched_(batched),
        alarm_(hooks.executor) {}

  /// Bytes that its part's name is longer than its own.
  static constexpr std::size_t longer = 6;

  void begin() { spawn(&FileDownload::attempt); }

  void cancel() override {
    std::optional<typename D::Transfer> transfer;
    bool was_waiting = false;
    {
      const std::scoped_lock lock(mutex_);
      cancelled_ = true;
      transfer = transfer_;
      was_waiting = alarm_.put_away();
    }
    if (transfer) guarded([&] { hooks_.downloader.cancel(*transfer); });
    if (was_waiting) spawn(&FileDownload::attempt);
  }

  std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) override {
    return guarded([&]() -> std::error_code {
      if (offset != file_->size()) {
        if (offset != 0) return errc::range_mismatch;
        if (const std::error_code error = restart()) return error;
      }
      part_.identity = identity;
      part_.url = redact_url(source_.urls[url_]);
      tell();
      return {};
    });
  }

  std::error_code write(std::span<const std::byte> bytes) override {
    const std::error_code error = guarded([&] { return file_->write(*fs_, bytes); });
    if (!error) tell();
    return error;
  }

  void done(const FetchResult& result) override {
    // Finishing syncs, and the thread that moves bytes is not to wait for that.
    result_ = result;
    spawn(&FileDownload::finish);
  }

 private:
  void spawn(void (FileDownload::*step)()) {
    hooks_.spawn(batched_, [self = this->shared_from_this(), step] { (self.get()->*step)(); });
  }

  void attempt() {
    std::uint64_t number = 0;
    {
      const std::scoped_lock lock(mutex_);
      if (!cancelled_) number = ++attempts_;
    }
    if (number == 0) return end(errc::cancelled, of_file());
    result_ = {};
    if (const std::error_code error = guarded([&] { return prepare(); })) return end(error, of_file());
    if (is_whole(source_, part_)) return finish();
    std::optional<typename D::Transfer> transfer;
    const std::error_code refused = guarded(
        [&] { transfer = hooks_.downloader.start(request_rest(source_, part_, url_), this->shared_from_this()); });
    if (refused) {
      result_.error = refused;
      return finish();
    }
    // From here on nothing but what the mutex guards is this thread's.
    {
      const std::scoped_lock lock(mutex_);
      // It may have ended already, and another one have begun.
      if (number != attempts_) return;
      transfer_ = transfer;
      if (!cancelled_) return;
    }
    // `cancel` came before there was anything to cancel.
    guarded([&] { hooks_.downloader.cancel(*transfer); });
  }

  /// So that bytes can be taken, from `part_.size` on.
  std::error_code prepare() {
    if (!file_) {
      if (const std::error_code error = open()) return error;
    }
    part_.size = file_->size();
    return part_.size == 0 || can_resume(source_, part_, redact_url(source_.urls[url_])) ? std::error_code()
                                                                                         : restart();
  }

  std::error_code open() {
    std::error_code ec;
    fs_->status(fs_->root(), name_, ec);
    const bool is_other = ec == std::errc::is_a_directory || ec == std::errc::too_many_symbolic_link_levels ||
                          ec == std::errc::invalid_argument;
    if (!ec || is_other) return std::make_error_code(std::errc::file_exists);
    if (ec != std::errc::no_such_file_or_directory) return ec;
    typename F::File file = fs_->create_file(fs_->root(), part_name_, ec);
    if (ec == std::errc::file_exists) {
      ec = take_away_left();
      if (!ec) file = fs_->create_file(fs_->root(), part_name_, ec);
    }
    if (ec) return ec;
    // Held until it has its name: nobody else takes it for what is left of an earlier run. Who did so before it was
    // held has unlinked it, or holds it.
    ec = fs_->lock(file);
    if (!ec && fs_->status(file, ec).links == 0 && !ec) ec = errc::directory_in_use;
    if (ec && ec != errc::directory_in_use) fs_->remove_file(fs_->root(), part_name_);
    if (ec) return ec;
    file_.emplace(std::move(file), source_);
    return file_->reserve(*fs_);
  }

  std::error_code take_away_left() {
    std::error_code ec;
    typename F::File left = fs_->open_file(fs_->root(), part_name_, Access::write, ec);
    if (!ec && fs_->lock(left) == errc::directory_in_use) return errc::directory_in_use;
    return fs_->remove_file(fs_->root(), part_name_);
  }

  std::error_code restart() {
    const std::error_code error = file_->restart(*fs_);
    part_ = {};
    tell();
    return error;
  }

  void finish() {
    {
      const std::scoped_lock lock(mutex_);
      transfer_.reset();
      ++attempts_;
    }
    std::error_code error = result_.error;
    if (!error) error = guarded([&] { return publish(); });
    if (!error) return end({}, {});
    const ErrorClass cls = classify(error);
    std::string subject = of_file();
    if (cls != ErrorClass::local && cls != ErrorClass::no_space) {
      subject =
          "file '" + name_ + "' from " + (result_.detail.empty() ? redact_url(source_.urls[url_]) : result_.detail);
    }
    bool goes_on = false;
    switch (cls) {
      case ErrorClass::wrong_bytes:
        if (const std::error_code failed = guarded([&] { return restart(); })) return end(failed, of_file());
        [[fallthrough]];
      case ErrorClass::transient: may_mend_ = true; [[fallthrough]];
      case ErrorClass::gone:
      case ErrorClass::credentials: goes_on = true; break;
      default: break;
    }
    if (!goes_on) return end(error, subject);
    state_->update(index_, [&](DownloadStatus& status) {
      status.error = error;
      status.subject = subject;
    });
    if (++url_ < source_.urls.size()) return spawn(&FileDownload::attempt);
    url_ = 0;
    if (++rounds_ >= hooks_.options.attempts || !std::exchange(may_mend_, false)) return end(error, subject);
    if (const std::error_code refused = guarded([&] { wait_for_next_round(); })) end(refused, of_file());
  }

  void wait_for_next_round() {
    const auto delay = hooks_.delay(rounds_ - 1, result_.retry_after);
    const std::scoped_lock lock(mutex_);
    const Instant at = hooks_.executor.now() + (cancelled_ ? std::chrono::nanoseconds{} : delay);
    alarm_.set(at, [self = this->shared_from_this()] { self->spawn(&FileDownload::attempt); });
  }

  /// Whole, checked, durable, and only then under its name.
  std::error_code publish() {
    FoundDigests found;
    if (const std::error_code error = file_->check(found)) return error;
    const bool syncs = hooks_.options.durability == Durability::full;
    if (syncs) {
      if (const std::error_code error = fs_->sync_file(file_->handle())) return error;
    }
    std::error_code error = fs_->rename(fs_->root(), part_name_, fs_->root(), name_);
    if (error) return error;
    error = fs_->close(file_->handle());
    file_.reset();
    if (!error && syncs) error = fs_->sync_directory(fs_->root());
    if (error) fs_->remove_file(fs_->root(), name_);
    return error;
  }

  /// With the file under its name, or with an error and nothing.
  void end(std::error_code error, const std::string& subject) {
    if (file_) {
      guarded([&] { return fs_->remove_file(fs_->root(), part_name_); });
      file_.reset();
    }
    state_->update(index_, [&](DownloadStatus& status) {
      status.done = true;
      status.error = error;
      status.subject = subject;
    });
    {
      const std::scoped_lock lock(state_->mutex);
      if (--state_->left == 0) state_->changed.notify_all();
    }
    hooks_.ended();
  }

  void tell() {
    state_->update(index_, [&](DownloadStatus& status) {
      status.received = file_->size();
      status.expected = source_.size ? source_.size : part_.identity.length;
    });
  }

  [[nodiscard]] std::string of_file() const { return "file '" + name_ + "' in " + fs_->path().string(); }

  const Hooks& hooks_;
  const std::shared_ptr<F> fs_;
  const std::shared_ptr<DownloadState> state_;
  const std::size_t index_;
  const std::string name_;
  const std::string part_name_;
  const FileSource source_;
  const bool batched_;

  // Of the step that runs.
  std::optional<IncomingFile<F>> file_;
  FetchedPart part_;
  FetchResult result_;
  std::size_t url_ = 0;
  std::size_t rounds_ = 0;  // over all mirrors, that are over
  bool may_mend_ = false;   // some mirror's error in this round

  std::mutex mutex_;  // guards the rest
  std::optional<typename D::Transfer> transfer_;
  std::uint64_t attempts_ = 0;
  Alarm<E> alarm_;
  bool cancelled_ = false;
};

}  // namespace detail

}  // namespace garner

namespace garner {

/// One call of a `DownloadManager`. Copies refer to the same call. Thread-safety: every member from any thread. May
/// outlive the manager, which ends the call first; with an executor that is driven nobody may be in `wait` then.
/// Dropping it changes nothing.
class DownloadHandle {
 public:
  /// Until all files are done; drives the executor meanwhile where it has no threads. False where `timeout`, by that
  /// executor's clock, is over before.
  bool wait(std::chrono::nanoseconds timeout = for_ever) const {
    std::unique_lock lock(state_->mutex);
    const auto all = [this] { return state_->left == 0; };
    if (!state_->drive || all()) return state_->changed.wait_for(lock, std::min(timeout, for_ever), all);
    lock.unlock();
    return state_->drive(std::min(timeout, for_ever));
  }

  /// Of all files, by name.
  [[nodiscard]] std::vector<DownloadStatus> status() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->files;
  }
  /// Waits, and tells whether all files are there.
  [[nodiscard]] bool succeeded() const {
    wait();
    const std::scoped_lock lock(state_->mutex);
    return std::all_of(state_->files.begin(), state_->files.end(),
                       [](const DownloadStatus& file) { return file.done && !file.error; });
  }

  /// What is not done ends soon with `errc::cancelled`. Does not wait for it.
  void cancel() const { state_->cancel(); }

 private:
  template <class, class, class>
  friend class DownloadManager;

  static constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);

  explicit DownloadHandle(std::shared_ptr<detail::DownloadState> state) : state_(std::move(state)) {}

  std::shared_ptr<detail::DownloadState> state_;
};

/// Fetches files into directories. What stands under a file's name is whole, has the size and the digest that its
/// source demands, and, with `Durability::full`, is durable once the file is done; until then it is called
/// ".{name}.part" there, and it is removed where the download fails. What an earlier process left of that name is taken
/// away.
///
/// Of a file's mirrors the next is tried at once where one fails, and it goes on where that stopped if the bytes are
/// certain to be the same ones. After some rounds (`DownloadOptions::attempts`) the last error is the result. Errors of
/// the directory end a file at once: `std::errc::file_exists` where its name is taken (nothing is ever replaced, and
/// nothing fetched then), `errc::directory_in_use` where another download of it is under way, `errc::no_space`,
/// `errc::sync_failed`.
///
/// Thread-safety: every member from any thread. Calls do not wait for the network.
/// Object lifetimes: owns its policies; the destructor cancels all that is under way, waits for its end, and must not
/// run inside of a task or a callback of the manager.
template <class D, class E, class F>
class DownloadManager {
  static_assert(diagnose_downloader<D>() && diagnose_executor<E>());
  static_assert(FileSystem<F>, "garner: the third parameter of a DownloadManager must be a FileSystem.");

 public:
  /// File name -> where from. Names as those of a chunk's files, of 249 bytes at most; unique but for case.
  using Files = std::map<std::string, FileSource>;
  /// Takes what is known of a file whenever that has changed: on the downloader's threads, so it must not block; of one
  /// file in order.
  using OnProgress = std::function<void(const DownloadStatus&)>;
  /// Opens a directory.
  using Open = std::function<F(const std::filesystem::path&, std::error_code&)>;

  /// With the default policies, or those that are made like them.
  explicit DownloadManager(const DownloadOptions& options = {}) requires std::constructible_from<D, const Options&> &&
      std::default_initializable<E> && std::same_as<F, PosixFileSystem>
      : DownloadManager(D(to_options(options)), E(), options) {}
  /// With policies of one's own, into directories of the system, which are made where missing.
  DownloadManager(D downloader, E executor,
                  const DownloadOptions& options = {}) requires std::same_as<F, PosixFileSystem>
      : DownloadManager(std::move(downloader), std::move(executor), options, opener(options.durability)) {}
  /// Into what `open` opens.
  DownloadManager(D downloader, E executor, const DownloadOptions& options, Open open)
      : options_(options),
        open_(std::move(open)),
        random_(options.seed != 0 ? options.seed : std::random_device()()),
        executor_(std::move(executor)),
        loop_(ExecutorRef<E>(executor_), {1, {}}),
        pool_(ExecutorRef<E>(executor_), {std::max<std::size_t>(options.max_concurrent_tasks, 1), {}}),
        downloader_(std::move(downloader)),
        hooks_{downloader_,
               executor_,
               options_,
               [this](bool batched, const Task& work) { spawn(batched, work); },
               [this](std::uint64_t round, std::optional<std::chrono::nanoseconds> asked) {
                 const std::scoped_lock lock(mutex_);
                 return core::retry_delay(to_options(options_), ErrorClass::transient, asked, round, random_);
               },
               [this] { ended(); }} {}
  DownloadManager(const DownloadManager&) = delete;
  DownloadManager& operator=(const DownloadManager&) = delete;
  ~DownloadManager() {
    std::vector<std::weak_ptr<detail::DownloadState>> calls;
    {
      const std::scoped_lock lock(mutex_);
      calls = calls_;
    }
    for (const auto& call : calls) {
      if (const auto state = call.lock()) state->cancel();
    }
    while (!wait(std::chrono::hours(1), mutex_, [this] { return under_way_ == 0; })) {
    }
    // What begins or cancels a transfer may still be in the downloader.
    loop_.stop();
    pool_.stop();
    for (const auto& call : calls) {
      const auto state = call.lock();
      if (!state) continue;
      const std::scoped_lock lock(state->cancelling);
      state->jobs.clear();
    }
  }

  /// Fetches `files` into `directory`, interleaved: what is done on the executor (opening, checking, syncing) is done
  /// for one file at a time. Throws `Error` where a file is invalid or the directory does not open; nothing is fetched
  /// then.
  DownloadHandle batch_download(const Files& files, const std::filesystem::path& directory,
                                OnProgress on_progress = {}) {
    return download(files, directory, std::move(on_progress), true);
  }
  /// The same, and that work is spread over a task pool, several files at a time: for large files and slow syncs.
  DownloadHandle pool_download(const Files& files, const std::filesystem::path& directory,
                               OnProgress on_progress = {}) {
    return download(files, directory, std::move(on_progress), false);
  }

 private:
  using Job = detail::FileDownload<D, E, F>;

  static Options to_options(const DownloadOptions& options) {
    Options out;
    out.max_concurrent_files = options.max_concurrent_files;
    out.min_backoff = options.min_backoff;
    out.max_backoff = options.max_backoff;
    return out;
  }

  static Open opener(Durability durability) {
    return [durability](const std::filesystem::path& path, std::error_code& ec) {
      PosixFileSystem fs = PosixFileSystem::open(path, ec);
      if (ec != std::errc::no_such_file_or_directory) return fs;
      ec = detail::make_directories(fs.path(), durability);
      return ec ? std::move(fs) : PosixFileSystem::open(path, ec);
    };
  }

  void check(const Files& files) const {
    const auto invalid = [](std::error_code code, const std::string& name) {
      throw Error(code, "file '" + detail::printable(name) + "'");
    };
    std::set<std::string> folded;
    for (const auto& [name, source] : files) {
      if (const std::optional<Invalid> found = validate_file(name, source)) throw Error(found->code, found->subject);
      if (name.size() + Job::longer > 255) invalid(errc::invalid_file_name, name);
      if (!folded.insert(detail::fold_case(name)).second) invalid(errc::duplicate_file_name, name);
      for (const std::string& url : source.urls) {
        if (const std::error_code error = downloader_.check_url(url)) {
          throw Error(error, "file '" + name + "', URL '" + redact_url(url) + "'");
        }
      }
    }
  }

  DownloadHandle download(const Files& files, const std::filesystem::path& directory, OnProgress on_progress,
                          bool batched) {
    check(files);
    std::error_code ec;
    auto fs = std::make_shared<F>(open_(directory, ec));
    if (ec) throw Error(ec, directory.string());
    auto state = std::make_shared<detail::DownloadState>();
    state->on_progress = std::move(on_progress);
    if constexpr (DrivenExecutor<E>) {
      state->drive = [this, call = state.get()](std::chrono::nanoseconds timeout) {
        return wait(timeout, call->mutex, [call] { return call->left == 0; });
      };
    }
    std::vector<std::shared_ptr<Job>> jobs;
    for (const auto& [name, source] : files) {
      jobs.push_back(std::make_shared<Job>(hooks_, fs, state, jobs.size(), name, source, batched));
      state->files.push_back({name, 0, source.size, false, {}, {}});
    }
    state->left = jobs.size();
    state->jobs.assign(jobs.begin(), jobs.end());
    {
      const std::scoped_lock lock(mutex_);
      std::erase_if(calls_, [](const auto& call) { return call.expired(); });
      calls_.push_back(state);
      under_way_ += jobs.size();
      queue_.insert(queue_.end(), jobs.begin(), jobs.end());
    }
    begin_next();
    return DownloadHandle(state);
  }

  void begin_next() {
    while (true) {
      std::shared_ptr<Job> job;
      {
        const std::scoped_lock lock(mutex_);
        if (queue_.empty() || running_ >= std::max<std::size_t>(options_.max_concurrent_files, 1)) return;
        job = std::move(queue_.front());
        queue_.pop_front();
        ++running_;
      }
      job->begin();
    }
  }

  void ended() {
    {
      const std::scoped_lock lock(mutex_);
      --running_;
    }
    begin_next();
    // Under the lock to the end: after it, the manager may end.
    const std::scoped_lock lock(mutex_);
    if (--under_way_ == 0) changed_.notify_all();
  }

  /// What the executor refuses is done on this thread.
  void spawn(bool batched, const Task& work) {
    if (detail::guarded([&] { (batched ? loop_ : pool_).forget(work); })) work();
  }

  /// Until `done()`, which is asked under the lock of `mutex`; drives the executor meanwhile where it has no threads.
  template <class Done>
  bool wait(std::chrono::nanoseconds timeout, std::mutex& mutex, const Done& done) {
    if constexpr (DrivenExecutor<E>) {
      const Instant until = executor_.now() + timeout;
      while (true) {
        {
          const std::scoped_lock lock(mutex);
          if (done()) return true;
        }
        if (executor_.run_one_until(until)) continue;
        const std::scoped_lock lock(mutex);
        return done();
      }
    } else {
      std::unique_lock lock(mutex);
      return changed_.wait_for(lock, timeout, done);
    }
  }

  const DownloadOptions options_;
  const Open open_;

  std::mutex mutex_;  // guards the next six
  std::condition_variable changed_;
  core::Random random_{0};
  std::deque<std::shared_ptr<Job>> queue_;  // files that have not begun
  std::size_t running_ = 0;                 // those that have
  std::size_t under_way_ = 0;               // both
  std::vector<std::weak_ptr<detail::DownloadState>> calls_;

  // In this order: what a downloader and a pool still have to do needs what stands above them.
  E executor_;
  TaskPool<ExecutorRef<E>> loop_;
  TaskPool<ExecutorRef<E>> pool_;
  D downloader_;
  detail::DownloadHooks<D, E> hooks_;
};

template <class D, class E>
DownloadManager(D, E, DownloadOptions = {}) -> DownloadManager<D, E, PosixFileSystem>;

}  // namespace garner

// A seeded world to run them in.

// garner/simulation/decisions.hpp ---------------------------------------------------------------------------
// Where a simulation's chances come from: a seed, a tape of bytes (a fuzzer's), or all of them one after
// another. What is chosen with them, and what it means, is its user's.

namespace garner {

/// Answers questions. The same source asked the same questions gives the same answers, so that a run replays.
/// 0 is the answer that does least harm, by everyone's agreement: a tape that ran out does none.
///
/// Thread-safety: one thread at a time.
class Decisions {
 public:
  Decisions() = default;
  Decisions(const Decisions&) = delete;
  Decisions& operator=(const Decisions&) = delete;
  virtual ~Decisions() = default;

  /// One of [0, n), where `n` is not 0.
  virtual std::uint64_t choose(std::uint64_t n) = 0;

  /// As `choose`, of what changes how likely something is and never what is possible.
  virtual std::uint64_t lean(std::uint64_t n) { return choose(n); }

  /// A part of a run begins. What is asked from now on need not depend on how much was asked before, so that a part can
  /// be left out and the others stay what they are. By default nothing.
  virtual void begin_part(std::uint64_t) {}

  /// True in `yes` of `of` cases, where 0 < `yes` < `of`; `choose` answered 0 is false.
  virtual bool chance(std::uint64_t yes, std::uint64_t of) { return choose(of) >= of - yes; }
};

/// Uniform, from a seed.
class SeededDecisions final : public Decisions {
 public:
  explicit SeededDecisions(std::uint64_t seed) noexcept : seed_(seed), random_(seed) {}

  void begin_part(std::uint64_t part) override {
    // Each seed's parts are as far from each other as the parts of two seeds (Knuth's multiplier, TAOCP 3.3.4).
    random_ = core::Random(seed_ + (part + 1) * 6364136223846793005U);
  }

  std::uint64_t choose(std::uint64_t n) override {
    const std::uint64_t bits = random_.next();
    return n <= UINT32_MAX ? (bits >> 32) * n >> 32 : bits % n;
  }

 private:
  std::uint64_t seed_;
  core::Random random_;
};

/// From bytes that are only lent, as few for each answer as hold it. All 0 where they ran out.
class TapeDecisions final : public Decisions {
 public:
  explicit TapeDecisions(std::span<const std::byte> tape) noexcept : tape_(tape) {}

  std::uint64_t choose(std::uint64_t n) override {
    std::uint64_t value = 0;
    for (std::uint64_t rest = n - 1; rest != 0 && !tape_.empty(); rest >>= 8) {
      value = value << 8 | std::to_integer<std::uint64_t>(tape_.front());
      tape_ = tape_.subspan(1);
    }
    return value % n;
  }

  [[nodiscard]] bool exhausted() const noexcept { return tape_.empty(); }

 private:
  std::span<const std::byte> tape_;
};

/// Every sequence of answers once:
///
///     ExhaustiveDecisions all;
///     do run(all); while (all.next());
class ExhaustiveDecisions final : public Decisions {
 public:
  std::uint64_t choose(std::uint64_t n) override {
    if (at_ == path_.size()) path_.push_back({0, n});
    return path_[at_++].answer;
  }
  std::uint64_t lean(std::uint64_t) override { return 0; }
  bool chance(std::uint64_t, std::uint64_t) override { return choose(2) == 1; }

  /// Begins the next sequence; false where there is none.
  bool next() {
    at_ = 0;
    while (!path_.empty() && path_.back().answer + 1 == path_.back().of) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().answer;
    return true;
  }

 private:
  struct Step {
    std::uint64_t answer;
    std::uint64_t of;
  };

  std::vector<Step> path_;
  std::size_t at_ = 0;
};

}  // namespace garner

// garner/simulation/sim_disk.hpp ----------------------------------------------------------------------------
// A disk that loses, tears and reorders what was not synced: what is there now, what is durable, what may be
// there after a crash, and the room that is left. How programs use it, and faults, are in sim_file_system.hpp.

// garner/simulation/sim_volume.hpp --------------------------------------------------------------------------
// What is on a simulated disk, as a tree: files and directories, as they are now and as they are durable, and how they
// are found. What changes them, and what a crash makes of them, is in sim_disk.hpp.

// garner/simulation/sim_contents.hpp ------------------------------------------------------------------------
// One file of a simulated disk: its bytes as they are read now, as they are durable, and the changes between.
// What of the changes a crash keeps is decided here; names and directories are in sim_disk.hpp.

namespace garner::detail {

/// A crash keeps what was synced, and of each later change all, nothing, or, of a write, its size without its
/// bytes, its first sectors with or without the size, or its last sectors. Changes are kept independently of each other
/// and put on top of each other in their order.
///
/// A sync that failed forgets that its changes were dirty, as kernels do: they are read as before, no later
/// sync makes them durable, and yet a crash may find them there.
class SimContents {
 public:
  [[nodiscard]] const std::string& now() const noexcept { return now_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return now_.size(); }

  void write(std::uint64_t at, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    begin_change();
    changes_.push_back({at, static_cast<std::uint32_t>(log_.size()), static_cast<std::uint32_t>(text.size()),
                        Kind::write, State::dirty});
    log_ += text;
    put(now_, at, text);
  }

  void truncate(std::uint64_t size) {
    if (size == now_.size()) return;
    begin_change();
    changes_.push_back({size, 0, 0, Kind::truncate, State::dirty});
    now_.resize(static_cast<std::size_t>(size));
  }

  void sync() {
    const bool any_lost =
        std::any_of(changes_.begin(), changes_.end(), [](const Change& change) { return change.state == State::lost; });
    if (!any_lost) return forget();
    // What was lost stays lost beneath what is on top of it.
    for (Change& change : changes_) {
      if (change.state == State::dirty) change.state = State::durable;
    }
  }

  void fail_sync() {
    for (Change& change : changes_) {
      if (change.state == State::dirty) change.state = State::lost;
    }
  }

  /// Whether every crash leaves these bytes as they are now.
  [[nodiscard]] bool is_durable() const noexcept { return changes_.empty(); }

  /// What a crash leaves. `sector`: bytes that are kept or lost together.
  [[nodiscard]] std::string survive(Decisions& decisions, std::uint64_t sector) const {
    if (changes_.empty()) return now_;
    std::string out = durable_;
    for (const Change& change : changes_) {
      if (change.kind == Kind::truncate) {
        const bool keep = change.state == State::durable || decisions.choose(2) == 0;
        if (keep) out.resize(static_cast<std::size_t>(change.at));
      } else if (change.state == State::durable) {
        put(out, change.at, bytes_of(change));
      } else {
        keep_part(out, change, decisions, sector);
      }
    }
    return out;
  }

  /// Calls `part` with numbers and texts that together tell all of this apart from any other.
  template <class Part>
  void write_state(const Part& part) const {
    part(std::string_view(now_));
    part(static_cast<std::uint64_t>(changes_.size()));
    if (changes_.empty()) return;
    part(std::string_view(durable_));
    for (const Change& change : changes_) {
      part(change.at);
      part(static_cast<std::uint64_t>(change.kind) * 4 + static_cast<std::uint64_t>(change.state));
      part(bytes_of(change));
    }
  }

  /// Becomes what a crash left.
  void assign(std::string bytes) {
    now_ = std::move(bytes);
    forget();
  }

  /// Flips one bit of what is there now and of what is durable.
  void corrupt(std::uint64_t at, unsigned bit) {
    const auto flip = [at, bit](std::string& bytes) {
      if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    };
    flip(now_);
    flip(durable_);
  }

  /// Puts `bytes`, as far as the file goes, over what is there now and over what is durable.
  void overwrite(std::uint64_t at, std::span<const std::byte> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (std::string* to : {&now_, &durable_}) {
      if (at < to->size()) text.copy(to->data() + at, std::min(text.size(), to->size() - static_cast<std::size_t>(at)));
    }
  }

 private:
  enum class Kind : std::uint8_t { write, truncate };
  enum class State : std::uint8_t { dirty, lost, durable };

  struct Change {
    std::uint64_t at = 0;     ///< of a truncation: the new size
    std::uint32_t begin = 0;  ///< in `log_`
    std::uint32_t length = 0;
    Kind kind = Kind::write;
    State state = State::dirty;
  };

  [[nodiscard]] std::string_view bytes_of(const Change& change) const noexcept {
    return std::string_view(log_).substr(change.begin, change.length);
  }

  static void put(std::string& to, std::uint64_t at, std::string_view bytes) {
    const auto begin = static_cast<std::size_t>(at);
    if (to.size() < begin + bytes.size()) to.resize(begin + bytes.size());
    bytes.copy(to.data() + begin, bytes.size());
  }

  void keep_part(std::string& out, const Change& change, Decisions& decisions, std::uint64_t sector) const {
    const std::string_view bytes = bytes_of(change);
    const auto end = static_cast<std::size_t>(change.at) + bytes.size();
    const std::uint64_t first = change.at / sector;
    const std::uint64_t sectors = (end - 1) / sector - first + 1;
    // Torn in the middle only where it has one; a size without bytes only where it was longer than the file.
    const std::uint64_t outcome = decisions.choose(sectors > 1 ? 4 : 3);
    if (outcome == 0) return put(out, change.at, bytes);
    if (outcome == 1) return;
    const std::size_t cut =
        outcome == 2 ? 0 : static_cast<std::size_t>((first + 1 + decisions.choose(sectors - 1)) * sector - change.at);
    const std::uint64_t tear = outcome == 2 ? 1 : decisions.choose(3);
    if (tear != 0 && out.size() < end) out.resize(end);
    if (tear < 2) {
      put(out, change.at, bytes.substr(0, cut));
    } else {
      put(out, change.at + cut, bytes.substr(cut));
    }
  }

  void begin_change() {
    if (changes_.empty()) durable_ = now_;
  }

  void forget() {
    changes_.clear();
    log_.clear();
    durable_.clear();
  }

  std::string now_;
  std::string durable_;  ///< what was synced last; meaningless where there are no changes
  std::string log_;      ///< the bytes of all changes
  std::vector<Change> changes_;
};

}  // namespace garner::detail

// garner/simulation/sim_tree.hpp ----------------------------------------------------------------------------
// What a simulated disk is made of but files' bytes: names, entries, and the log of changes to directories that
// are not durable yet, which decides what of them a crash may keep. No operation and no error is here.

namespace garner {

/// What a crash keeps of the changes to directories that were not synced. What was synced it always keeps.
enum class CrashMode : std::uint8_t {
  ordered,      ///< all of them up to some moment: a journaled file system (ext4, xfs). A sync makes durable
                ///< what came before what it promises
  adversarial,  ///< any, in each directory and for each name on its own, as long as none comes without those
                ///< before it on the same name. All that POSIX lets a program count on
};

namespace detail {

using SimName = std::uint32_t;
using SimNode = std::uint32_t;
inline constexpr std::uint32_t sim_none = UINT32_MAX;

/// Numbers for names. Shared by a disk and its copies; `guard` is theirs.
class SimNames {
 public:
  std::mutex guard;

  SimName intern(std::string_view text) {
    if (const auto at = numbers_.find(text); at != numbers_.end()) return at->second;
    const auto number = static_cast<SimName>(texts_.size());
    numbers_.emplace(texts_.emplace_back(text), number);
    return number;
  }
  [[nodiscard]] SimName find(std::string_view text) const {
    const auto at = numbers_.find(text);
    return at != numbers_.end() ? at->second : sim_none;
  }
  [[nodiscard]] const std::string& text(SimName name) const { return texts_[name]; }

 private:
  std::deque<std::string> texts_;
  std::unordered_map<std::string_view, SimName> numbers_;
};

/// A directory's entries, in the order in which they came.
class SimEntries {
 public:
  struct Entry {
    SimName name;
    SimNode node;
  };

  [[nodiscard]] SimNode find(SimName name) const noexcept {
    for (const Entry& entry : entries_) {
      if (entry.name == name) return entry.node;
    }
    return sim_none;
  }
  void add(SimName name, SimNode node) { entries_.push_back({name, node}); }
  void remove(SimName name) {
    entries_.erase(
        std::find_if(entries_.begin(), entries_.end(), [name](const Entry& entry) { return entry.name == name; }));
  }
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  [[nodiscard]] auto begin() const noexcept { return entries_.begin(); }
  [[nodiscard]] auto end() const noexcept { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
};

/// One change of one or, by a rename, two directories.
struct SimChange {
  SimNode from = sim_none;  ///< the directory that loses `from_name`; none where something is made
  SimName from_name = 0;
  SimNode to = sim_none;  ///< the directory that gets `to_name`; none where something is removed
  SimName to_name = 0;
  SimNode node = sim_none;  ///< what is made, removed or renamed
  bool removes_directory = false;
  bool lost = false;  ///< its sync failed: no later sync makes it durable, and a crash may keep it yet

  [[nodiscard]] bool touches(SimNode directory) const noexcept { return from == directory || to == directory; }
  [[nodiscard]] bool touches(SimNode directory, SimName name) const noexcept {
    return (from == directory && from_name == name) || (to == directory && to_name == name);
  }

  /// Whether this cannot be durable unless `earlier` is: they are about the same name, or this removes the
  /// directory that `earlier` is in, which has to be empty.
  [[nodiscard]] bool needs(const SimChange& earlier) const noexcept {
    return (from != sim_none && earlier.touches(from, from_name)) || (to != sim_none && earlier.touches(to, to_name)) ||
           (removes_directory && earlier.touches(node));
  }

  /// Does it. `entries_of(SimNode)`: a directory's `SimEntries&`.
  template <class EntriesOf>
  void apply(const EntriesOf& entries_of) const {
    if (from != sim_none) entries_of(from).remove(from_name);
    if (to != sim_none) entries_of(to).add(to_name, node);
  }
};

/// The changes that are not durable, in their order.
class SimLog {
 public:
  explicit SimLog(CrashMode mode) noexcept : mode_(mode) {}

  [[nodiscard]] bool empty() const noexcept { return changes_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return changes_.size(); }
  [[nodiscard]] const std::vector<SimChange>& changes() const noexcept { return changes_; }
  void add(const SimChange& change) { changes_.push_back(change); }

  /// Makes durable what a sync of what `covers` selects promises; `apply` is called with each in their order.
  template <class Covers, class Apply>
  void sync(const Covers& covers, const Apply& apply) {
    std::size_t end = 0;
    marks_.assign(changes_.size(), false);
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (changes_[i].lost || !covers(changes_[i])) continue;
      marks_[i] = true;
      end = i + 1;
    }
    if (end == 0) return;
    if (mode_ == CrashMode::ordered) {
      for (std::size_t i = 0; i < end; ++i) marks_[i] = !changes_[i].lost;
    }
    add_needed(marks_, end);
    take_out(marks_, apply);
  }

  void fail_sync(SimNode directory) {
    for (SimChange& change : changes_) change.lost = change.lost || change.touches(directory);
  }

  /// What was lost is as good as what was never synced.
  void forgive() {
    for (SimChange& change : changes_) change.lost = false;
  }

  /// Makes the oldest `count` durable, lost or not: time passed, and the kernel wrote them.
  template <class Apply>
  void write_back(std::size_t count, const Apply& apply) {
    marks_.assign(changes_.size(), false);
    std::fill_n(marks_.begin(), std::min(count, changes_.size()), true);
    take_out(marks_, apply);
  }

  /// What a crash keeps, one for each change. An `ExhaustiveDecisions` comes by each legal set once.
  [[nodiscard]] std::vector<bool> survive(Decisions& decisions) const {
    std::vector<bool> kept(changes_.size(), false);
    if (mode_ == CrashMode::ordered) {
      const auto ordered =
          std::count_if(changes_.begin(), changes_.end(), [](const SimChange& change) { return !change.lost; });
      auto count = static_cast<std::uint64_t>(ordered);
      count -= decisions.choose(count + 1);
      for (std::size_t i = 0; i < kept.size() && count != 0; ++i) {
        if (changes_[i].lost) continue;
        kept[i] = true;
        --count;
      }
      add_needed(kept, kept.size());
    }
    const std::uint64_t yes = changes_.empty() ? 0 : std::uint64_t{1} << (2 * decisions.lean(3));  // 1, 4, 16
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const bool open = mode_ == CrashMode::adversarial || (changes_[i].lost && !kept[i]);
      if (open && has_needed(kept, i)) kept[i] = !decisions.chance(yes, 17);
    }
    return kept;
  }

 private:
  void add_needed(std::vector<bool>& marks, std::size_t end) const {
    for (std::size_t i = end; i-- > 0;) {
      if (!marks[i]) continue;
      for (std::size_t j = 0; j < i; ++j) {
        if (!marks[j] && changes_[i].needs(changes_[j])) marks[j] = true;
      }
    }
  }

  [[nodiscard]] bool has_needed(const std::vector<bool>& marks, std::size_t i) const {
    for (std::size_t j = 0; j < i; ++j) {
      if (!marks[j] && changes_[i].needs(changes_[j])) return false;
    }
    return true;
  }

  template <class Apply>
  void take_out(const std::vector<bool>& marks, const Apply& apply) {
    std::size_t left = 0;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (marks[i]) {
        apply(changes_[i]);
      } else {
        changes_[left++] = changes_[i];
      }
    }
    changes_.resize(left);
  }

  CrashMode mode_;
  std::vector<SimChange> changes_;
  std::vector<bool> marks_;  ///< of `sync`; kept for its memory
};

}  // namespace detail
}  // namespace garner

namespace garner {

struct SimDiskOptions {
  CrashMode mode = CrashMode::adversarial;
  std::uint64_t capacity = std::uint64_t{1} << 30;  ///< bytes, of all files together
  std::uint64_t sector = 8;                         ///< bytes of a write that a crash keeps or loses together
  std::string name = {};                            ///< stands before its paths in a trace
};

/// Whether a disk does what it is asked to do at all.
enum class SimHealth : std::uint8_t {
  sound,
  read_only,  ///< every change is refused
  failing,    ///< every operation fails
};

constexpr std::string_view to_string(SimHealth health) noexcept {
  switch (health) {
    case SimHealth::sound: return "sound";
    case SimHealth::read_only: return "read-only";
    case SimHealth::failing: return "failing";
  }
  return "unknown";
}

namespace detail {

class SimVolume {
 public:
  /// Every path that is there; a file's bytes, or nothing for a directory.
  using Tree = std::map<std::string, std::optional<std::string>>;

  SimVolume& operator=(const SimVolume&) = delete;
  SimVolume& operator=(SimVolume&&) = delete;

 protected:
  static constexpr SimNode root_node = 0;
  struct Inode {
    bool directory = false;
    bool linked = true;  ///< has a name now
    bool freed = false;  ///< its room was given back
    bool tampered = false;
    std::uint32_t handles = 0;
    std::uint32_t failed_syncs = 0;
    SimNode parent = root_node;  ///< with `name` where it is, or was last
    SimName name = 0;
    std::uint64_t lock = 0;      ///< of which handle; 0: of none
    std::uint64_t reserved = 0;  ///< bytes that it has room for
    SimEntries entries;          ///< as they are now
    SimEntries durable;          ///< as they are in every crash, but for what is in the log
    SimContents contents;

    [[nodiscard]] std::uint64_t room() const noexcept { return std::max(reserved, contents.size()); }
  };

  SimVolume(SimDiskOptions options, std::shared_ptr<SimNames> names)
      : options_(std::move(options)), names_(std::move(names)), log_(options_.mode), nodes_(1) {
    nodes_[root_node].directory = true;
  }
  SimVolume(const SimVolume&) = default;
  SimVolume(SimVolume&&) = default;
  ~SimVolume() = default;

  /// Calls `step(directory, name)` for each name of `path`, until it gives none.
  template <class Step>
  static SimNode walk(std::string_view path, const Step& step) {
    SimNode node = root_node;
    while (!path.empty() && node != sim_none) {
      const std::size_t end = std::min(path.find('/'), path.size());
      node = step(node, path.substr(0, end));
      path.remove_prefix(std::min(end + 1, path.size()));
    }
    return node;
  }

  [[nodiscard]] SimNode find(SimNode directory, std::string_view name) const {
    const SimName number = names_->find(name);
    return number != sim_none ? nodes_[directory].entries.find(number) : sim_none;
  }

  [[nodiscard]] SimNode find(std::string_view path) const {
    return walk(path, [this](SimNode directory, std::string_view name) { return find(directory, name); });
  }

  /// What is at `path` in every crash. What a crash may keep of a name is what is durable of it, or what any of
  /// the pending changes of it made of it; no two of these are the same.
  [[nodiscard]] SimNode find_durable(std::string_view path) const {
    return walk(path, [this](SimNode directory, std::string_view name) {
      const SimName number = names_->find(name);
      const auto& changes = log_.changes();
      const bool settled = std::none_of(changes.begin(), changes.end(),
                                        [&](const SimChange& change) { return change.touches(directory, number); });
      return settled ? nodes_[directory].durable.find(number) : sim_none;
    });
  }

  /// The directory and the name; no directory where there is none.
  [[nodiscard]] std::pair<SimNode, std::string_view> place_of(std::string_view path) const {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return {root_node, path};
    const SimNode directory = find(path.substr(0, slash));
    const bool is_one = directory != sim_none && nodes_[directory].directory;
    return {is_one ? directory : sim_none, path.substr(slash + 1)};
  }

  /// Whether no change of this name, or of what it stands for, is pending.
  [[nodiscard]] bool is_settled(SimNode directory, std::string_view name) const {
    const SimName number = names_->find(name);
    const auto& changes = log_.changes();
    return number == sim_none || std::none_of(changes.begin(), changes.end(),
                                              [&](const auto& change) { return change.touches(directory, number); });
  }

  [[nodiscard]] bool never_below(SimNode node, std::string_view path) const {
    if (path.empty()) return false;
    const std::size_t end = std::min(path.find('/'), path.size());
    const SimName name = names_->find(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
    const SimNode durable = nodes_[node].durable.find(name);
    if (durable != sim_none && !never_below(durable, path)) return false;
    return std::all_of(log_.changes().begin(), log_.changes().end(), [&](const SimChange& change) {
      return change.to != node || change.to_name != name || never_below(change.node, path);
    });
  }

  [[nodiscard]] bool any_tampered(SimNode node) const {
    const auto& entries = nodes_[node].entries;
    return nodes_[node].tampered ||
           std::any_of(entries.begin(), entries.end(), [this](const auto& entry) { return any_tampered(entry.node); });
  }

  void add_to_tree(SimNode directory, const std::string& path, Tree& out) const {
    for (const auto& [name, node] : nodes_[directory].entries) {
      const std::string below = path.empty() ? names_->text(name) : path + '/' + names_->text(name);
      if (nodes_[node].directory) {
        out.emplace(below, std::nullopt);
        add_to_tree(node, below, out);
      } else {
        out.emplace(below, nodes_[node].contents.now());
      }
    }
  }

  /// Of `node`, of an entry of it, or where it was last.
  [[nodiscard]] std::string path_of(SimNode node, std::string_view name) const {
    std::string path(name);
    for (; node != root_node; node = nodes_[node].parent) {
      if (!path.empty()) path.insert(0, 1, '/');
      path.insert(0, names_->text(nodes_[node].name));
    }
    return path;
  }

  SimDiskOptions options_;
  std::shared_ptr<SimNames> names_;
  SimLog log_;
  std::vector<Inode> nodes_;
};

}  // namespace detail
}  // namespace garner

namespace garner {

namespace detail {
class SimStateWriter;
}  // namespace detail

/// Paths are relative to the root, with `/` between names; the root's is empty.
///
/// A copy is a disk of its own in the same state, but that nothing of it is open or locked, and that it is sound.
///
/// Thread-safety: `SimFileSystem`'s operations on one disk and its copies may run at the same time; everything
/// else only while none does. Replays only where one thread uses it.
class SimDisk : private detail::SimVolume {
 public:
  using detail::SimVolume::Tree;

  explicit SimDisk(SimDiskOptions options = {}) : SimDisk(std::move(options), std::make_shared<detail::SimNames>()) {}

  SimDisk(SimDisk&&) = default;
  SimDisk(const SimDisk& other) : detail::SimVolume(other), used_(other.used_), boots_(other.boots_) {
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      nodes_[node].lock = 0;
      nodes_[node].handles = 0;
      give_back(node);
    }
  }
  SimDisk& operator=(const SimDisk&) = delete;
  SimDisk& operator=(SimDisk&&) = delete;
  ~SimDisk() = default;

  // What ends a run.

  /// Pulls the plug: gives the disk that the next start finds. Of this one every operation fails from now on with
  /// `errc::io_error`, and changes nothing.
  SimDisk crash(Decisions& decisions) {
    dead_ = true;
    return after_crash(decisions);
  }

  /// Kills the process: gives the disk with all that it wrote, as durable as it was. Of this one as after `crash`.
  /// A failed sync of a directory is forgiven, though: no program could know of one that another was told of.
  SimDisk kill() {
    dead_ = true;
    SimDisk out(*this);
    out.log_.forgive();
    out.health_ = health_;
    return out;
  }

  /// Takes the disk out of a machine that goes on: as `crash`, but for the machine.
  SimDisk unplug(Decisions& decisions) {
    SimDisk out = crash(decisions);
    out.boots_ = boots_;
    return out;
  }

  /// What `crash` would give; goes on.
  [[nodiscard]] SimDisk after_crash(Decisions& decisions) const {
    const std::vector<bool> kept = log_.survive(decisions);
    std::vector<detail::SimEntries> tree(nodes_.size());
    for (std::size_t i = 0; i < nodes_.size(); ++i) tree[i] = nodes_[i].durable;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (kept[i]) log_.changes()[i].apply([&tree](detail::SimNode node) -> auto& { return tree[node]; });
    }
    SimDisk out(options_, names_);
    copy_survivors(tree, root_node, out, root_node, decisions);
    out.boots_ = boots_ + 1;
    return out;
  }

  [[nodiscard]] bool dead() const noexcept { return dead_; }

  // What is there, for checks.

  [[nodiscard]] const SimDiskOptions& options() const noexcept { return options_; }

  /// A file's bytes as they are read now; nothing where no file is there. Valid until the disk is used.
  [[nodiscard]] const std::string* contents(std::string_view path) const {
    const detail::SimNode node = find(path);
    return node != detail::sim_none && !nodes_[node].directory ? &nodes_[node].contents.now() : nullptr;
  }

  [[nodiscard]] bool exists(std::string_view path) const { return find(path) != detail::sim_none; }

  [[nodiscard]] Tree tree() const {
    Tree out;
    add_to_tree(root_node, "", out);
    return out;
  }

  /// Whether in every crash that may come now the file is there with exactly these bytes.
  [[nodiscard]] bool always_durable(std::string_view path, std::string_view bytes) const {
    const detail::SimNode node = find_durable(path);
    return node != detail::sim_none && !nodes_[node].directory && nodes_[node].contents.is_durable() &&
           nodes_[node].contents.now() == bytes;
  }

  /// Whether in every crash that may come now the directory is there.
  [[nodiscard]] bool always_durable(std::string_view path) const {
    const detail::SimNode node = find_durable(path);
    return node != detail::sim_none && nodes_[node].directory;
  }

  /// Whether nothing is there now, nor may be after a crash.
  [[nodiscard]] bool never_there(std::string_view path) const { return never_below(root_node, path); }

  /// Whether the file, or any below the directory, was changed behind everyone's back.
  [[nodiscard]] bool tampered(std::string_view path) const {
    const detail::SimNode node = find(path);
    return node != detail::sim_none && any_tampered(node);
  }

  /// Changes to directories that a crash may lose.
  [[nodiscard]] std::size_t pending() const noexcept { return log_.size(); }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_; }
  /// Crashes that led to it: the machine was started anew after each.
  [[nodiscard]] std::uint64_t boots() const noexcept { return boots_; }
  [[nodiscard]] std::uint64_t free() const noexcept {
    return used_ < options_.capacity ? options_.capacity - used_ : 0;
  }
  /// Handles that are open.
  [[nodiscard]] std::size_t handles() const noexcept {
    std::size_t count = 0;
    for (const Inode& inode : nodes_) count += inode.handles;
    return count;
  }

  // What happens to it.

  void set_health(SimHealth health) noexcept { health_ = health; }
  [[nodiscard]] SimHealth health() const noexcept { return health_; }

  /// May be less than what is used.
  void set_capacity(std::uint64_t bytes) noexcept { options_.capacity = bytes; }

  /// Flips one bit of a file, behind everyone's back and for good. False where there is no such byte.
  bool corrupt(std::string_view path, std::uint64_t at, unsigned bit = 0) {
    const detail::SimNode node = find(path);
    if (node == detail::sim_none || nodes_[node].directory || at >= nodes_[node].contents.size()) return false;
    nodes_[node].contents.corrupt(at, bit);
    nodes_[node].tampered = true;
    return true;
  }

  /// Makes a file, or a directory where there are no bytes, behind everyone's back and for good. False where it cannot
  /// stand there.
  bool plant(std::string_view path, const std::optional<std::string>& bytes) {
    const auto [directory, name] = place_of(path);
    if (directory == detail::sim_none || !is_settled(directory, name) || find(directory, name) != detail::sim_none) {
      return false;
    }
    const auto node = static_cast<detail::SimNode>(nodes_.size());
    Inode& inode = nodes_.emplace_back();
    inode.directory = !bytes;
    inode.parent = directory;
    inode.name = names_->intern(name);
    inode.tampered = true;
    if (bytes) inode.contents.assign(*bytes);
    used_ += inode.room();
    nodes_[directory].entries.add(inode.name, node);
    nodes_[directory].durable.add(inode.name, node);
    return true;
  }

  /// Takes a file or an empty directory away, likewise. False where there is none.
  bool uproot(std::string_view path) {
    const auto [directory, name] = place_of(path);
    const detail::SimNode node = directory != detail::sim_none ? find(directory, name) : detail::sim_none;
    if (node == detail::sim_none || !nodes_[node].entries.empty() || !is_settled(directory, name)) return false;
    const detail::SimName number = nodes_[node].name;
    if (nodes_[directory].durable.find(number) != node) return false;
    nodes_[directory].entries.remove(number);
    nodes_[directory].durable.remove(number);
    nodes_[directory].tampered = true;
    nodes_[node].linked = false;
    give_back(node);
    return true;
  }

  /// Makes the oldest half of what is pending in directories durable, and all that is dirty in files: the kernel
  /// does it when time has passed.
  void write_back() {
    for (Inode& inode : nodes_) inode.contents.sync();
    write_back_directories();
  }

 private:
  friend class SimFileSystem;
  friend class SimHandle;
  friend class detail::SimStateWriter;
  friend struct SimCall;

  /// Beyond this many pending changes the oldest half is written back.
  static constexpr std::size_t max_pending = 64;

  SimDisk(SimDiskOptions options, std::shared_ptr<detail::SimNames> names)
      : detail::SimVolume(std::move(options), std::move(names)) {}

  void copy_survivors(const std::vector<detail::SimEntries>& tree, detail::SimNode from, SimDisk& out,
                      detail::SimNode to, Decisions& decisions) const {
    for (const auto& [name, node] : tree[from]) {
      const auto copy = static_cast<detail::SimNode>(out.nodes_.size());
      out.nodes_.emplace_back();
      out.nodes_[to].entries.add(name, copy);
      out.nodes_[to].durable.add(name, copy);
      out.nodes_[copy].directory = nodes_[node].directory;
      out.nodes_[copy].tampered = nodes_[node].tampered;
      out.nodes_[copy].parent = to;
      out.nodes_[copy].name = name;
      if (nodes_[node].directory) {
        copy_survivors(tree, node, out, copy, decisions);
      } else {
        out.nodes_[copy].contents.assign(nodes_[node].contents.survive(decisions, options_.sector));
        out.used_ += out.nodes_[copy].contents.size();
      }
    }
  }

  // What SimFileSystem does, once it has checked that it can be done.

  void change(const detail::SimChange& change) {
    change.apply([this](detail::SimNode node) -> auto& { return nodes_[node].entries; });
    Inode& inode = nodes_[change.node];
    inode.linked = change.to != detail::sim_none;
    if (inode.linked) {
      inode.parent = change.to;
      inode.name = change.to_name;
    }
    log_.add(change);
    give_back(change.node);
    if (log_.size() > max_pending) write_back_directories();
  }

  detail::SimNode make(detail::SimNode directory, std::string_view name, bool is_directory) {
    if (unused_.empty() && nodes_.size() >= collect_at_) collect();
    auto node = static_cast<detail::SimNode>(nodes_.size());
    if (unused_.empty()) {
      nodes_.emplace_back();
    } else {
      node = unused_.back();
      unused_.pop_back();
      nodes_[node] = Inode();
    }
    nodes_[node].directory = is_directory;
    change({.to = directory, .to_name = names_->intern(name), .node = node});
    return node;
  }

  /// Changes a file; what more room it needs than there is, it does not get.
  template <class Change>
  bool resize(detail::SimNode node, std::uint64_t room, const Change& change) {
    const std::uint64_t before = nodes_[node].room();
    if (room > before && room - before > free()) return false;
    change(nodes_[node]);
    used_ = used_ - before + nodes_[node].room();
    return true;
  }

  void sync_file(detail::SimNode node) {
    nodes_[node].contents.sync();
    // A journal commits the file's creation with it.
    if (options_.mode == CrashMode::ordered) {
      sync_changes([node](const detail::SimChange& change) { return change.node == node; });
    }
  }

  void sync_directory(detail::SimNode node) {
    const bool ordered = options_.mode == CrashMode::ordered;
    sync_changes([node, ordered](const detail::SimChange& change) {
      return change.touches(node) || (ordered && change.node == node);
    });
  }

  template <class Covers>
  void sync_changes(const Covers& covers) {
    log_.sync(covers, [this](const detail::SimChange& change) { apply_durably(change); });
  }

  void write_back_directories() {
    log_.write_back((log_.size() + 1) / 2, [this](const detail::SimChange& change) { apply_durably(change); });
  }

  void apply_durably(const detail::SimChange& change) {
    change.apply([this](detail::SimNode node) -> auto& { return nodes_[node].durable; });
  }

  /// Instead of a write to `file`.
  void misdirect(detail::SimNode file, std::string_view path, std::uint64_t at, std::span<const std::byte> bytes) {
    nodes_[file].tampered = true;
    const detail::SimNode other = find(path);
    if (other == detail::sim_none || nodes_[other].directory) return;
    nodes_[other].contents.overwrite(at, bytes);
    nodes_[other].tampered = true;
  }

  void open(detail::SimNode node) { ++nodes_[node].handles; }
  void close(detail::SimNode node, std::uint64_t handle) {
    --nodes_[node].handles;
    if (nodes_[node].lock == handle) nodes_[node].lock = 0;
    give_back(node);
  }

  /// The room of a file that nobody can reach any more.
  void give_back(detail::SimNode node) {
    Inode& inode = nodes_[node];
    if (inode.linked || inode.handles != 0 || inode.freed) return;
    inode.freed = true;
    used_ -= inode.room();
  }

  /// Finds inodes that are out of everyone's reach, a crash's too.
  void collect() {
    std::vector<bool> reached(nodes_.size(), false);
    reached[root_node] = true;
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      if (nodes_[node].linked || nodes_[node].handles != 0) reached[node] = true;
      for (const auto& entry : nodes_[node].durable) reached[entry.node] = true;
    }
    for (const detail::SimChange& change : log_.changes()) {
      reached[change.node] = true;
    }
    unused_.clear();
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      if (!reached[node]) unused_.push_back(node);
    }
    collect_at_ = std::max<std::size_t>(collect_at_, 2 * (nodes_.size() - unused_.size()));
  }

  std::vector<detail::SimNode> unused_;
  std::size_t collect_at_ = 128;
  std::uint64_t used_ = 0;
  std::uint64_t boots_ = 0;
  std::uint64_t last_handle_ = 0;
  bool dead_ = false;
  SimHealth health_ = SimHealth::sound;
};

}  // namespace garner

// garner/simulation/sim_file_system.hpp ---------------------------------------------------------------------
// A simulated disk as a `FileSystem`, so that the very protocol that runs on a real one runs on it. Before each
// operation the world is asked: it may refuse it, run others meanwhile, or end. What a crash leaves is decided in
// sim_disk.hpp.

// garner/simulation/sim_handle.hpp --------------------------------------------------------------------------
// What a program has open on a simulated disk: a file, or a directory. What it can do with that is in
// sim_file_system.hpp.

namespace garner {

/// Something open on a disk, which it keeps. Closes when it is destroyed, and the world is not asked.
class SimHandle {
 public:
  SimHandle() = default;
  SimHandle(SimHandle&&) noexcept = default;
  SimHandle& operator=(SimHandle&& other) noexcept {
    if (this != &other) {
      close();
      disk_ = std::move(other.disk_);
      node_ = other.node_;
      seen_ = other.seen_;
      number_ = other.number_;
    }
    return *this;
  }
  SimHandle(const SimHandle&) = delete;
  SimHandle& operator=(const SimHandle&) = delete;
  ~SimHandle() { close(); }

 private:
  friend class SimFileSystem;

  /// The disk's guard is held.
  SimHandle(std::shared_ptr<SimDisk> disk, detail::SimNode node)
      : disk_(std::move(disk)), node_(node), seen_(disk_->nodes_[node].failed_syncs), number_(++disk_->last_handle_) {
    disk_->open(node_);
  }

  void close() noexcept {
    if (!disk_) return;
    {
      const std::lock_guard lock(disk_->names_->guard);
      disk_->close(node_, number_);
    }
    disk_.reset();
  }

  std::shared_ptr<SimDisk> disk_;
  detail::SimNode node_ = detail::sim_none;
  mutable std::uint32_t seen_ = 0;  ///< of the failed syncs
  std::uint64_t number_ = 0;
};

}  // namespace garner

// garner/simulation/sim_hooks.hpp ---------------------------------------------------------------------------
// What a simulated file system asks of the world around it: before each operation, whether and how it fails. The
// file system is in sim_file_system.hpp; what a world answers is the world's.

namespace garner {

enum class SimOperation : std::uint8_t {
  open_directory,
  make_directory,
  list,
  create_file,
  open_file,
  status,
  read,
  write,
  reserve,
  truncate,
  sync_file,
  sync_directory,
  close,
  rename,
  remove_file,
  remove_directory,
  lock,
  free_space,
};

constexpr std::string_view to_string(SimOperation operation) noexcept {
  switch (operation) {
    case SimOperation::open_directory: return "open_directory";
    case SimOperation::make_directory: return "make_directory";
    case SimOperation::list: return "list";
    case SimOperation::create_file: return "create_file";
    case SimOperation::open_file: return "open_file";
    case SimOperation::status: return "status";
    case SimOperation::read: return "read";
    case SimOperation::write: return "write";
    case SimOperation::reserve: return "reserve";
    case SimOperation::truncate: return "truncate";
    case SimOperation::sync_file: return "sync_file";
    case SimOperation::sync_directory: return "sync_directory";
    case SimOperation::close: return "close";
    case SimOperation::rename: return "rename";
    case SimOperation::remove_file: return "remove_file";
    case SimOperation::remove_directory: return "remove_directory";
    case SimOperation::lock: return "lock";
    case SimOperation::free_space: return "free_space";
  }
  return "unknown";
}

/// One operation, as the world is asked about it. Valid while it is.
struct SimCall {
  SimOperation operation;
  std::uint64_t bytes;  ///< of a read or a write; of a truncation or a reservation the size that is asked for
  bool may_switch;      ///< no task that was run now would wait for what this one holds

  /// Of what it is about, of a rename the old name; relative to the root. Built when it is asked for.
  [[nodiscard]] std::string path() const { return disk.path_of(node, name); }
  /// Of a rename; else empty.
  [[nodiscard]] std::string new_path() const {
    return new_name.empty() ? std::string() : disk.path_of(new_node, new_name);
  }

  const SimDisk& disk;
  detail::SimNode node;
  std::string_view name;
  detail::SimNode new_node;
  std::string_view new_name;
};

/// What the world does to an operation. By default nothing.
struct SimFault {
  std::error_code error;      ///< instead of it. A sync's is always told as `errc::sync_failed`, and means that
                              ///< what was dirty is lost
  std::uint64_t written = 0;  ///< with an error of a write: bytes that are written before it
  bool ignored = false;       ///< a sync that does nothing and says that it has: a disk that lies
  /// A write goes over this file instead, where there is one, and says that it has gone where it should.
  std::optional<std::string> misdirected = std::nullopt;
};

/// The world around file systems. `before` may run other tasks, on the same file systems too (their operations
/// are asked about in their turn), may take its time, and may end a disk (`SimDisk::crash`, `kill`), after which
/// the operation fails. It does not throw.
class SimHooks {
 public:
  SimHooks() = default;
  SimHooks(const SimHooks&) = delete;
  SimHooks& operator=(const SimHooks&) = delete;
  virtual ~SimHooks() = default;

  virtual SimFault before(const SimCall& call) = 0;
};

/// A lock that is held across operations. While any is held (by this thread), no other task may be run: it could
/// wait for it and would never get it.
class SimMutex {
 public:
  void lock() {
    mutex_.lock();
    ++held;
  }
  void unlock() {
    --held;
    mutex_.unlock();
  }
  [[nodiscard]] static bool any_held() noexcept { return held != 0; }

 private:
  static inline thread_local unsigned held = 0;
  std::mutex mutex_;
};

}  // namespace garner

namespace garner {

/// The file system of a simulated disk. Its errors are those of `PosixFileSystem`; every operation on a disk that
/// ended is `errc::io_error`. A write that does not fit is written as far as it does, with `errc::no_space`.
///
/// Thread-safety: as `FileSystem` says, if the hooks are. Lifetime: the hooks outlive it; handles may outlive it.
class SimFileSystem {
 public:
  using Mutex = SimMutex;
  static constexpr bool concurrent = false;
  class Directory : private SimHandle {
    friend class SimFileSystem;
    using SimHandle::SimHandle;
  };
  class File : private SimHandle {
    friend class SimFileSystem;
    using SimHandle::SimHandle;
    bool writable_ = true;
  };

  /// `hooks` may be null. `path` is what `path` returns, and nothing else.
  explicit SimFileSystem(std::shared_ptr<SimDisk> disk, SimHooks* hooks = nullptr, std::filesystem::path path = "/sim")
      : disk_(std::move(disk)), hooks_(hooks), path_(std::move(path)) {
    const std::lock_guard lock(disk_->names_->guard);
    root_ = Directory(disk_, SimDisk::root_node);
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const Directory& root() const noexcept { return root_; }
  [[nodiscard]] const std::shared_ptr<SimDisk>& disk() const noexcept { return disk_; }

  Directory open_directory(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::open_directory, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && !disk_->nodes_[node].directory) ec = errc::not_a_directory;
    return ec ? Directory() : Directory(disk_, node);
  }

  std::error_code make_directory(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::make_directory, directory, name);
    const Guard guard(*this);
    if (!ec) ec = check_free(directory, name);
    if (!ec) disk_->make(directory.node_, name, true);
    return ec;
  }

  /// The visitor sees the directory as it was when the operation began, and may use the file system.
  std::error_code list(const Directory& directory, const EntryVisitor& visitor) const {
    const std::error_code ec = begin(SimOperation::list, directory);
    if (ec) return ec;
    std::vector<std::pair<const std::string*, EntryKind>> entries;
    {
      const Guard guard(*this);
      for (const auto& [name, node] : disk_->nodes_[directory.node_].entries) {
        entries.emplace_back(&disk_->names_->text(name),
                             disk_->nodes_[node].directory ? EntryKind::directory : EntryKind::file);
      }
    }
    for (const auto& [name, kind] : entries) visitor(*name, kind);
    return {};
  }

  File create_file(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::create_file, directory, name, bad_argument());
    const Guard guard(*this);
    if (!ec) ec = check_free(directory, name);
    return ec ? File() : File(disk_, disk_->make(directory.node_, name, false));
  }

  File open_file(const Directory& directory, const std::string& name, Access access, std::error_code& ec) const {
    ec = begin(SimOperation::open_file, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    if (ec) return {};
    File file(disk_, node);
    file.writable_ = access == Access::write;
    return file;
  }

  FileStatus status(const File& file, std::error_code& ec) const {
    ec = begin(SimOperation::status, file);
    const Guard guard(*this);
    if (ec) return {};
    const SimDisk::Inode& inode = disk_->nodes_[file.node_];
    return {inode.contents.size(), inode.linked ? std::uint64_t{1} : std::uint64_t{0}};
  }

  FileStatus status(const Directory& directory, const std::string& name, std::error_code& ec) const {
    ec = begin(SimOperation::status, directory, name, bad_argument());
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    return ec ? FileStatus() : FileStatus{disk_->nodes_[node].contents.size(), 1};
  }

  std::size_t read(const File& file, std::uint64_t at, std::span<std::byte> to, std::error_code& ec) const {
    ec = begin(SimOperation::read, file, to.size());
    const Guard guard(*this);
    if (ec) return 0;
    const std::string& bytes = disk_->nodes_[file.node_].contents.now();
    if (at >= bytes.size()) return 0;
    const std::span from = std::as_bytes(std::span(bytes)).subspan(static_cast<std::size_t>(at));
    const std::size_t count = std::min(from.size(), to.size());
    std::copy_n(from.begin(), count, to.begin());
    return count;
  }

  std::error_code write(const File& file, std::uint64_t at, std::span<const std::byte> bytes) const {
    const SimFault fault = ask(SimOperation::write, file.node_, {}, bytes.size());
    std::error_code ec = check(file, fault.error);
    const Guard guard(*this);
    if (ec && ec != fault.error) return ec;
    if (!file.writable_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (ec) bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(fault.written, bytes.size())));
    const std::uint64_t most = disk_->nodes_[file.node_].room() + disk_->free();
    if (at + bytes.size() > most) {
      bytes = bytes.first(static_cast<std::size_t>(most > at ? most - at : 0));
      if (!ec) ec = errc::no_space;
    }
    if (!ec && fault.misdirected) {
      disk_->misdirect(file.node_, *fault.misdirected, at, bytes);
      disk_->resize(file.node_, at + bytes.size(),
                    [&](auto& inode) { inode.contents.truncate(std::max(at + bytes.size(), inode.contents.size())); });
      return {};
    }
    disk_->resize(file.node_, at + bytes.size(), [&](auto& inode) { inode.contents.write(at, bytes); });
    return ec;
  }

  std::error_code reserve(const File& file, std::uint64_t size) const {
    const std::error_code ec = begin(SimOperation::reserve, file, size);
    const Guard guard(*this);
    if (ec) return ec;
    const bool fits =
        disk_->resize(file.node_, size, [size](auto& inode) { inode.reserved = std::max(inode.reserved, size); });
    return fits ? std::error_code() : make_error_code(errc::no_space);
  }

  std::error_code truncate(const File& file, std::uint64_t size) const {
    std::error_code ec = begin(SimOperation::truncate, file, size);
    const Guard guard(*this);
    if (!ec && !file.writable_) ec = bad_argument();
    if (ec) return ec;
    const bool fits = disk_->resize(file.node_, size, [size](auto& inode) {
      inode.contents.truncate(size);
      inode.reserved = 0;
    });
    return fits ? std::error_code() : make_error_code(errc::no_space);
  }

  std::error_code sync_file(const File& file) const {
    return sync(
        SimOperation::sync_file, file, [&] { disk_->sync_file(file.node_); },
        [&] { disk_->nodes_[file.node_].contents.fail_sync(); });
  }

  std::error_code sync_directory(const Directory& directory) const {
    return sync(
        SimOperation::sync_directory, directory, [&] { disk_->sync_directory(directory.node_); },
        [&] { disk_->log_.fail_sync(directory.node_); });
  }

  std::error_code close(File& file) const {
    const std::error_code ec = begin(SimOperation::close, file);
    file.SimHandle::close();
    return ec;
  }

  std::error_code rename(const Directory& from, const std::string& name, const Directory& to,
                         const std::string& new_name) const {
    const SimFault fault = ask(SimOperation::rename, from.node_, name, 0, to.node_, new_name);
    std::error_code ec = check(to, check(from, fault.error));
    const Guard guard(*this);
    if (!ec && !(is_plain(name) && is_plain(new_name))) ec = errc::invalid_file_name;
    const detail::SimNode node = ec ? detail::sim_none : find(from, name, ec);
    if (!ec) ec = check_free(to, new_name);
    if (!ec && is_below(to.node_, node)) ec = std::make_error_code(std::errc::invalid_argument);
    if (ec) return ec;
    disk_->change({.from = from.node_,
                   .from_name = disk_->names_->intern(name),
                   .to = to.node_,
                   .to_name = disk_->names_->intern(new_name),
                   .node = node});
    return {};
  }

  std::error_code remove_file(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::remove_file, directory, name);
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && disk_->nodes_[node].directory) ec = std::make_error_code(std::errc::is_a_directory);
    if (!ec) remove(directory, name, node);
    return ec;
  }

  std::error_code remove_directory(const Directory& directory, const std::string& name) const {
    std::error_code ec = begin(SimOperation::remove_directory, directory, name);
    const Guard guard(*this);
    const detail::SimNode node = ec ? detail::sim_none : find(directory, name, ec);
    if (!ec && !disk_->nodes_[node].directory) ec = errc::not_a_directory;
    if (!ec && !disk_->nodes_[node].entries.empty()) ec = std::make_error_code(std::errc::directory_not_empty);
    if (!ec) remove(directory, name, node);
    return ec;
  }

  std::error_code lock(const File& file) const {
    const std::error_code ec = begin(SimOperation::lock, file);
    const Guard guard(*this);
    if (ec) return ec;
    std::uint64_t& holder = disk_->nodes_[file.node_].lock;
    if (holder != 0 && holder != file.number_) return errc::directory_in_use;
    holder = file.number_;
    return {};
  }

  std::uint64_t free_space(std::error_code& ec) const {
    ec = begin(SimOperation::free_space, root_);
    const Guard guard(*this);
    return ec ? 0 : disk_->free();
  }

  [[nodiscard]] std::string boot_id() const { return std::to_string(1'000'000'000 + disk_->boots()); }

 private:
  struct Guard {
    explicit Guard(const SimFileSystem& fs) : lock(fs.disk_->names_->guard) {}
    std::lock_guard<std::mutex> lock;
  };

  // The world is asked before anything is looked at, and nothing is remembered across the question.

  SimFault ask(SimOperation operation, detail::SimNode node, std::string_view name, std::uint64_t bytes = 0,
               detail::SimNode new_node = detail::sim_none, std::string_view new_name = {}) const {
    SimFault fault;
    if (node == detail::sim_none || disk_->dead()) return fault;
    if (hooks_ != nullptr) {
      fault = hooks_->before({operation, bytes, !SimMutex::any_held(), *disk_, node, name, new_node, new_name});
    }
    const std::error_code refused = refusal(operation);
    if (refused) fault = {refused};
    return fault;
  }

  [[nodiscard]] std::error_code refusal(SimOperation operation) const {
    if (disk_->health() == SimHealth::sound) return {};
    if (disk_->health() == SimHealth::failing) return errc::io_error;
    switch (operation) {
      case SimOperation::make_directory:
      case SimOperation::create_file:
      case SimOperation::write:
      case SimOperation::reserve:
      case SimOperation::truncate:
      case SimOperation::rename:
      case SimOperation::remove_file:
      case SimOperation::remove_directory: return errc::read_only;
      default: return {};
    }
  }

  /// `error`, unless there is one that comes first.
  std::error_code check(const SimHandle& handle, std::error_code error) const {
    if (!handle.disk_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (disk_->dead()) return errc::io_error;
    return error;
  }

  std::error_code begin(SimOperation operation, const SimHandle& handle, std::uint64_t bytes = 0) const {
    return check(handle, ask(operation, handle.node_, {}, bytes).error);
  }

  std::error_code begin(SimOperation operation, const SimHandle& handle, std::string_view name,
                        std::error_code not_plain = errc::invalid_file_name) const {
    const std::error_code ec = check(handle, ask(operation, handle.node_, name).error);
    return ec || is_plain(name) ? ec : not_plain;
  }

  template <class Sync, class Fail>
  std::error_code sync(SimOperation operation, const SimHandle& handle, const Sync& sync, const Fail& fail) const {
    const SimFault fault = ask(operation, handle.node_, {});
    const std::error_code ec = check(handle, {});
    const Guard guard(*this);
    if (ec) return ec;
    // Who has had it open since before a sync failed is told so once (errseq_t in Linux' Documentation).
    std::uint32_t& failures = disk_->nodes_[handle.node_].failed_syncs;
    const bool untold = std::exchange(handle.seen_, failures) != failures;
    if (fault.error) {
      fail();
      handle.seen_ = ++failures;
    } else if (!fault.ignored) {
      sync();
    }
    return fault.error || untold ? make_error_code(errc::sync_failed) : std::error_code();
  }

  static std::error_code bad_argument() { return std::make_error_code(std::errc::invalid_argument); }

  static bool is_plain(std::string_view name) noexcept {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
           name.find('\0') == std::string_view::npos;
  }

  // With the guard held:

  detail::SimNode find(const Directory& directory, std::string_view name, std::error_code& ec) const {
    const detail::SimNode node = disk_->find(directory.node_, name);
    if (node == detail::sim_none) ec = std::make_error_code(std::errc::no_such_file_or_directory);
    return node;
  }

  /// Whether something new may stand there.
  std::error_code check_free(const Directory& directory, std::string_view name) const {
    if (!disk_->nodes_[directory.node_].linked) return std::make_error_code(std::errc::no_such_file_or_directory);
    const bool is_free = disk_->find(directory.node_, name) == detail::sim_none;
    return is_free ? std::error_code() : std::make_error_code(std::errc::file_exists);
  }

  [[nodiscard]] bool is_below(detail::SimNode node, detail::SimNode top) const {
    for (; node != SimDisk::root_node; node = disk_->nodes_[node].parent) {
      if (node == top) return true;
    }
    return false;
  }

  void remove(const Directory& directory, std::string_view name, detail::SimNode node) const {
    disk_->change({.from = directory.node_,
                   .from_name = disk_->names_->intern(name),
                   .node = node,
                   .removes_directory = disk_->nodes_[node].directory});
  }

  std::shared_ptr<SimDisk> disk_;
  SimHooks* hooks_;
  std::filesystem::path path_;
  Directory root_;
};

static_assert(FileSystem<SimFileSystem>);

/// The real protocol on a simulated disk, or on several.
using SimStorage = BasicVolumes<SimFileSystem>;

static_assert(VolumeStorage<SimStorage>);

}  // namespace garner

// garner/simulation/sim_world.hpp ---------------------------------------------------------------------------
// The simulated world: one thread, virtual time, tasks that run in an order that is decided, and faults that strike
// when it is decided. The disk and the network are in headers of their own; they ask the world before each step.

namespace garner {

/// What can go wrong, and what can be met. Counted, so that a run can tell what it has never seen.
enum class SimFaultKind : std::uint8_t {
  task_switch,       ///< another task ran in the middle of a storage operation
  disk_full,         ///< a write found no room
  disk_error,        ///< a read or a write failed
  short_write,       ///< a part of a write was written before it failed
  sync_failure,      ///< a sync failed, and what was dirty is lost
  read_only,         ///< a change was refused
  out_of_handles,    ///< an open was refused
  slow_disk,         ///< an operation took its time
  connection_reset,  ///< in the middle of a body
  stall,             ///< a transfer stopped for a while and was cut
  server_error,      ///< 5xx, or 429 with a Retry-After of any kind
  not_found,         ///< 404
  forbidden,         ///< 403
  truncated_body,    ///< shorter than declared
  wrong_bytes,       ///< a flipped byte
  source_changed,    ///< another validator in the middle
  late_completion,   ///< a cancelled transfer went on for a while
  misdirected,       ///< a write to a file that is being staged went to another file
  not_started,       ///< a transfer was refused before it began
  long_body,         ///< longer than declared
  wrong_range,       ///< bytes from another offset than the one that was asked for
};
inline constexpr std::size_t sim_fault_kinds = 21;

constexpr std::string_view to_string(SimFaultKind kind) noexcept {
  constexpr std::array<std::string_view, sim_fault_kinds> names = {
      "task switch", "disk full", "disk error",      "short write",  "sync failure", "read only", "no handles",
      "slow disk",   "reset",     "stall",           "server error", "not found",    "forbidden", "truncated",
      "wrong bytes", "changed",   "late completion", "misdirected",  "not started",  "long body", "wrong range"};
  return names[static_cast<std::size_t>(kind)];
}

/// How often each kind of fault strikes: in `chance[kind]` of 1,024 cases.
struct SimFaults {
  std::array<std::uint32_t, sim_fault_kinds> chance{};

  [[nodiscard]] std::uint32_t& operator[](SimFaultKind kind) { return chance[static_cast<std::size_t>(kind)]; }

  /// Each kind off or on, and how often, as is decided: most of what goes wrong together shows only where the rest does
  /// not ("swarm testing", Groce et al., ISSTA 2012).
  static SimFaults swarm(Decisions& decisions) {
    constexpr std::array<std::uint32_t, 4> rates = {4, 16, 64, 256};
    SimFaults faults;
    for (std::uint32_t& chance : faults.chance) {
      if (decisions.chance(1, 3)) chance = rates[decisions.choose(rates.size())];
    }
    return faults;
  }
};

/// Thread-safety: none, one thread. Lifetime: outlives everything that runs on it.
class SimWorld final : public SimHooks {
 public:
  explicit SimWorld(Decisions& decisions) : decisions_(decisions) {}

  [[nodiscard]] Decisions& decisions() noexcept { return decisions_; }
  [[nodiscard]] Instant now() const noexcept { return now_; }

  SimFaults faults;                          ///< what strikes from now on
  std::function<bool(SimFaultKind)> allows;  ///< asked before a fault strikes, where set: whether it does. For leaving
                                             ///< faults out of a run that is known
  std::function<void(std::string)> trace;    ///< takes a line for each thing that happens, where set

  /// How often each fault struck.
  [[nodiscard]] const std::array<std::uint64_t, sim_fault_kinds>& met() const noexcept { return met_; }

  /// Whether a fault of this kind strikes now.
  bool strikes(SimFaultKind kind) {
    const std::uint32_t chance = faults[kind];
    if (chance == 0 || !decisions_.chance(chance, 1024)) return false;
    if (allows && !allows(kind)) return false;
    ++met_[static_cast<std::size_t>(kind)];
    return true;
  }

  template <class... Parts>
  void note(const Parts&... parts) {
    if (!trace) return;
    std::string line = "[" + std::to_string(now_.count() / 1000) + " us] ";
    ((line += parts), ...);
    trace(std::move(line));
  }

  // ---- tasks

  void post(Task task) { ready_.push_back(std::move(task)); }

  std::uint64_t post_at(Instant at, Task task) {
    timers_.emplace(std::pair(at, ++last_timer_), std::move(task));
    return last_timer_;
  }

  void cancel(std::uint64_t timer) {
    for (auto it = timers_.begin(); it != timers_.end(); ++it) {
      if (it->first.second != timer) continue;
      timers_.erase(it);
      return;
    }
  }

  [[nodiscard]] bool has_ready() const noexcept { return !ready_.empty(); }
  [[nodiscard]] std::size_t timers() const noexcept { return timers_.size(); }

  /// Runs one of the tasks that are ready, which one is decided; where none is, the clock moves to the next timer, or
  /// to `until`: then false.
  bool run_one_until(Instant until) {
    fire_timers();
    if (ready_.empty()) {
      if (timers_.empty() || timers_.begin()->first.first > until) {
        if (until != Instant::max() && until > now_) now_ = until;
        return false;
      }
      now_ = timers_.begin()->first.first;
      fire_timers();
    }
    run_ready();
    return true;
  }

  /// A point at which another task may run, and sometimes does.
  void may_switch() {
    if (depth_ < max_depth && has_ready() && !SimMutex::any_held() && strikes(SimFaultKind::task_switch)) run_ready();
  }

  // ---- disks

  /// Before each operation of a file system: others may run, and the operation may fail.
  SimFault before(const SimCall& call) override {
    ++operations_;
    if (trace) {
      const std::string new_path = call.new_path();
      note("  disk ", to_string(call.operation), " ", call.disk.options().name, call.path(),
           new_path.empty() ? "" : " -> ", new_path);
    }
    if (strikes(SimFaultKind::slow_disk)) now_ += std::chrono::milliseconds(1 + decisions_.choose(1000));
    if (on_operation) on_operation();
    if (call.may_switch) may_switch();
    return fault(call);
  }

  /// Called before each operation of a disk: the place to end it.
  std::function<void()> on_operation;
  /// Of all disks, so far.
  [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }

 private:
  // Tasks inside of tasks inside of tasks: more only costs stack.
  static constexpr unsigned max_depth = 4;

  void fire_timers() {
    while (!timers_.empty() && timers_.begin()->first.first <= now_) {
      ready_.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
  }

  void run_ready() {
    const auto at = static_cast<std::ptrdiff_t>(decisions_.choose(ready_.size()));
    const Task task = std::move(ready_[static_cast<std::size_t>(at)]);
    ready_.erase(ready_.begin() + at);
    ++depth_;
    task();
    --depth_;
  }

  SimFault fault(const SimCall& call) {
    SimFault out;
    switch (call.operation) {
      case SimOperation::write:
        if (strikes(SimFaultKind::disk_full)) out.error = errc::no_space;
        if (strikes(SimFaultKind::disk_error)) out.error = errc::io_error;
        if (call.bytes > 0 && strikes(SimFaultKind::short_write)) {
          out.error = errc::io_error;
          out.written = decisions_.choose(call.bytes);
        }
        if (!out.error && strikes(SimFaultKind::misdirected) && call.path().starts_with("staging/")) {
          out.misdirected = any_chunk_file(call.disk);
        }
        break;
      case SimOperation::read:
      case SimOperation::status:
        if (strikes(SimFaultKind::disk_error)) out.error = errc::io_error;
        break;
      case SimOperation::sync_file:
      case SimOperation::sync_directory:
        if (strikes(SimFaultKind::sync_failure)) out.error = errc::sync_failed;
        break;
      case SimOperation::open_directory:
      case SimOperation::open_file:
        if (strikes(SimFaultKind::out_of_handles)) out.error = errc::too_many_open_files;
        break;
      case SimOperation::make_directory:
      case SimOperation::create_file:
      case SimOperation::reserve:
        if (strikes(SimFaultKind::disk_full)) out.error = errc::no_space;
        [[fallthrough]];
      case SimOperation::truncate:
      case SimOperation::rename:
      case SimOperation::remove_file:
      case SimOperation::remove_directory:
        if (strikes(SimFaultKind::read_only)) out.error = errc::read_only;
        break;
      case SimOperation::list:
      case SimOperation::close:
      case SimOperation::lock:
      case SimOperation::free_space: break;
    }
    if (trace && out.error) note("    fails: ", out.error.message());
    if (out.misdirected) note("    goes to ", *out.misdirected);
    return out;
  }

  /// Empty where there is none. The store's own few files are not hit: without them it does not open, and says so.
  std::string any_chunk_file(const SimDisk& disk) {
    std::vector<std::string> files;
    for (auto& [path, bytes] : disk.tree()) {
      if (bytes && path.starts_with("chunks/")) files.push_back(path);
    }
    return files.empty() ? std::string() : files[static_cast<std::size_t>(decisions_.choose(files.size()))];
  }

  Decisions& decisions_;
  Instant now_{0};
  std::vector<Task> ready_;
  std::map<std::pair<Instant, std::uint64_t>, Task> timers_;
  std::uint64_t last_timer_ = 0;
  std::uint64_t operations_ = 0;
  unsigned depth_ = 0;
  std::array<std::uint64_t, sim_fault_kinds> met_{};
};

/// The Executor of a simulated world, driven by whoever waits.
class SimExecutor {
 public:
  using Timer = std::uint64_t;

  explicit SimExecutor(SimWorld& world) : world_(&world) {}

  void post(Task task) { world_->post(std::move(task)); }
  Timer post_at(Instant at, Task task) { return world_->post_at(at, std::move(task)); }
  void cancel(Timer& timer) { world_->cancel(timer); }
  [[nodiscard]] Instant now() const { return world_->now(); }
  bool run_one_until(Instant until) { return world_->run_one_until(until); }

 private:
  SimWorld* world_;
};

static_assert(diagnose_executor<SimExecutor>() && DrivenExecutor<SimExecutor>);

}  // namespace garner

// garner/simulation/sim_machine.hpp -------------------------------------------------------------------------
// A computer of a simulated world: its disks, and how it ends in the middle of anything. What runs on it is made by its
// user, from the store that it hands out, and thrown away by its user when it has ended.

namespace garner {

enum class SimEnd : std::uint8_t {
  power_cut,  ///< what was not durable is lost, or not, as is decided
  kill,       ///< of the process: the kernel and what it was given go on
};

constexpr std::string_view to_string(SimEnd end) noexcept { return end == SimEnd::kill ? "kill" : "power cut"; }

/// For each life of a worker: `start()`; make it on `storage()`; say when the life ends; run it until `ended()`;
/// destroy it and its pins.
///
/// Of several disks the first is at `/sim`, the next at `/sim/@1`, and so on; they end together.
///
/// Thread-safety: none, one thread. Lifetime: the world outlives it, and it outlives its stores; it sets the world's
/// `on_operation`.
class SimMachine {
 public:
  explicit SimMachine(SimWorld& world, SimDiskOptions options = {}) : SimMachine(world, SimDisk(std::move(options))) {}
  /// With a disk that something was done to before.
  SimMachine(SimWorld& world, SimDisk disk) : SimMachine(world, one(std::move(disk))) {}
  SimMachine(SimWorld& world, std::vector<SimDisk> disks) : world_(world) {
    take(std::move(disks));
    world_.on_operation = [this] {
      if (left_ != 0 && --left_ == 0) end_now(end_);
      if (on_operation && !ended()) on_operation();
    };
  }
  SimMachine(const SimMachine&) = delete;
  SimMachine& operator=(const SimMachine&) = delete;
  ~SimMachine() { world_.on_operation = nullptr; }

  /// On a disk as it is now. Once the machine has ended every operation of it fails, and changes nothing.
  [[nodiscard]] SimFileSystem file_system(std::size_t disk = 0) const {
    return SimFileSystem(disks_[disk], &world_, path(disk));
  }
  /// On all disks. As `file_system`. Throws as `BasicVolumes` does.
  [[nodiscard]] SimStorage storage(Durability durability = Durability::full,
                                   const QuarantineLimits& limits = {}) const {
    if (disks_.size() == 1) return SimStorage(file_system(), durability, limits);
    std::vector<VolumePlace<SimFileSystem>> places;
    for (std::size_t disk = 0; disk < disks_.size(); ++disk) {
      places.push_back({path(disk), [this, disk] { return file_system(disk); }});
    }
    return SimStorage(std::move(places), durability, limits);
  }

  /// Before the `operations`-th operation of any disk from now, counted from 1. 0: not at all.
  void end_after(std::uint64_t operations, SimEnd end = SimEnd::power_cut) noexcept {
    left_ = operations;
    end_ = end;
  }

  void end_now(SimEnd end = SimEnd::power_cut) {
    if (ended()) return;
    world_.note("*** ", to_string(end));
    std::vector<SimDisk>& next = next_.emplace();
    for (const auto& disk : disks_) {
      next.push_back(end == SimEnd::power_cut ? disk->crash(world_.decisions()) : disk->kill());
      next.back().set_health(disk->health());
    }
  }

  [[nodiscard]] bool ended() const noexcept { return next_.has_value(); }

  /// The next start: with the disks as the end left them, where there was an end. One that has not come is called off.
  void start() {
    left_ = 0;
    if (next_) take(*std::exchange(next_, std::nullopt));
  }

  /// Takes a disk out, and puts it in again, failing: what is open of it fails for good, and what is opened anew as
  /// long as it is not sound.
  void unplug(std::size_t disk) {
    if (ended()) return;
    disks_[disk] = std::make_shared<SimDisk>(disks_[disk]->unplug(world_.decisions()));
    disks_[disk]->set_health(SimHealth::failing);
  }

  /// Called before each operation of a disk that still comes, where set: the place to look at what an end would leave.
  std::function<void()> on_operation;

  [[nodiscard]] std::size_t disks() const noexcept { return disks_.size(); }
  [[nodiscard]] SimDisk& disk(std::size_t disk = 0) noexcept { return *disks_[disk]; }
  [[nodiscard]] const SimDisk& disk(std::size_t disk = 0) const noexcept { return *disks_[disk]; }

 private:
  static std::vector<SimDisk> one(SimDisk disk) {
    std::vector<SimDisk> disks;
    disks.push_back(std::move(disk));
    return disks;
  }

  static std::filesystem::path path(std::size_t disk) { return disk == 0 ? "/sim" : "/sim/@" + std::to_string(disk); }

  void take(std::vector<SimDisk> disks) {
    disks_.clear();
    for (SimDisk& disk : disks) {
      const SimHealth health = disk.health();
      disks_.push_back(std::make_shared<SimDisk>(std::move(disk)));
      disks_.back()->set_health(health);
    }
  }

  SimWorld& world_;
  std::vector<std::shared_ptr<SimDisk>> disks_;
  std::uint64_t left_ = 0;
  SimEnd end_ = SimEnd::power_cut;
  std::optional<std::vector<SimDisk>> next_;
};

}  // namespace garner

// garner/simulation/sim_downloader.hpp ----------------------------------------------------------------------
// The simulated network: files at URLs, and the Downloader that moves them piece by piece, each piece a task of the
// world, with whatever a bad network and a bad server do to them.

namespace garner {

/// How a server is, where it is not like most.
struct SimServer {
  bool has_validators = true;  ///< gives an ETag, so that transfers can go on where they stopped
  bool is_honest = false;      ///< flips no bit: for bytes that no digest guards
};

/// What servers hold, and what was asked of them. One thread. Outlives the downloaders.
class SimNetwork {
 public:
  explicit SimNetwork(SimWorld& world) : world_(world) {}

  /// A file, replaced where the URL has one.
  void put(const std::string& url, std::string bytes, SimServer server = {}) {
    File& file = files_[url];
    file.bytes = std::move(bytes);
    file.server = server;
    ++file.version;
  }

  [[nodiscard]] std::size_t active() const noexcept { return active_.size(); }  ///< transfers under way
  /// How many transfers are under way from each URL, where there are any.
  [[nodiscard]] const std::map<std::string, std::size_t>& active_by_url() const noexcept { return active_; }
  [[nodiscard]] std::uint64_t started() const noexcept { return started_; }  ///< transfers, so far
  [[nodiscard]] std::uint64_t bytes_moved() const noexcept { return bytes_moved_; }
  /// The most transfers that one URL ever had at the same time.
  [[nodiscard]] std::size_t most_per_url() const noexcept { return most_per_url_; }
  /// Bytes of the files of all transfers under way.
  [[nodiscard]] std::uint64_t bytes_in_flight() const {
    std::uint64_t bytes = 0;
    for (const auto& [url, transfers] : active_) {
      const auto file = files_.find(url);
      if (file != files_.end()) bytes += file->second.bytes.size() * transfers;
    }
    return bytes;
  }
  /// The most transfers under way at the same time since the last call.
  std::uint64_t take_most_active() noexcept { return std::exchange(most_active_, active_.size()); }

 private:
  friend class SimDownloader;
  struct File {
    std::string bytes;
    std::uint64_t version = 0;
    SimServer server;
  };

  SimWorld& world_;
  std::map<std::string, File> files_;
  std::map<std::string, std::size_t> active_;  // per URL
  std::uint64_t started_ = 0;
  std::uint64_t bytes_moved_ = 0;
  std::size_t most_per_url_ = 0;
  std::uint64_t most_active_ = 0;
};

/// Thread-safety: none, one thread. Lifetime: the network outlives it; its destructor drives the world until all its
/// transfers have ended.
class SimDownloader {
  struct Flow;

 public:
  using Transfer = std::weak_ptr<Flow>;

  explicit SimDownloader(SimNetwork& network) : state_(std::make_unique<State>(network)) {}
  SimDownloader(SimDownloader&&) noexcept = default;
  SimDownloader& operator=(SimDownloader&&) = delete;
  ~SimDownloader() {
    if (!state_) return;
    for (const auto& [number, flow] : state_->flows) flow->cancelled = true;
    while (!state_->flows.empty() && state_->network.world_.run_one_until(Instant::max())) {
    }
  }

  [[nodiscard]] std::error_code check_url(std::string_view url) const {
    return url.starts_with("http://") || url.starts_with("https://") ? std::error_code()
                                                                     : make_error_code(errc::scheme_not_allowed);
  }

  Transfer start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    SimNetwork& network = state_->network;
    if (network.world_.strikes(SimFaultKind::not_started)) throw std::system_error(errc::too_many_open_files);
    auto flow = std::make_shared<Flow>(*state_, std::move(request), std::move(sink));
    state_->flows.emplace(++network.started_, flow);
    flow->number = network.started_;
    const std::size_t active = ++network.active_[flow->request.url];
    network.most_per_url_ = std::max(network.most_per_url_, active);
    network.most_active_ = std::max<std::uint64_t>(network.most_active_, network.active_.size());
    network.world_.note("  get ", flow->request.url, " from ", std::to_string(flow->request.offset));
    Flow::later(flow, [](Flow& f) { f.respond(); });
    network.world_.may_switch();
    return flow;
  }

  void cancel(const Transfer& transfer) {
    const auto flow = transfer.lock();
    if (!flow || std::exchange(flow->cancelled, true) || flow->stalled == 0) return;
    flow->world().cancel(std::exchange(flow->stalled, 0));
    Flow::later(flow, [](Flow& f) { f.end(errc::cancelled); });
  }

 private:
  struct State {
    explicit State(SimNetwork& net) : network(net) {}
    SimNetwork& network;
    std::map<std::uint64_t, std::shared_ptr<Flow>> flows;
  };

  /// One transfer. Its steps are tasks of the world, each of which holds it.
  struct Flow : std::enable_shared_from_this<Flow> {
    Flow(State& owner, FetchRequest asked, std::shared_ptr<FetchSink> taker)
        : state(owner), request(std::move(asked)), sink(std::move(taker)) {}

    template <class Step>
    static void later(const std::shared_ptr<Flow>& flow, Step step) {
      flow->world().post([flow, step] { step(*flow); });
    }

    [[nodiscard]] SimWorld& world() const { return state.network.world_; }
    [[nodiscard]] std::uint64_t choose(std::uint64_t n) const { return world().decisions().choose(n); }

    /// The status line and the headers.
    void respond() {
      if (cancelled) return end(errc::cancelled);
      if (world().strikes(SimFaultKind::server_error)) {
        FetchResult result;
        result.http_status = choose(2) == 0 ? 503 : 429;
        result.detail = request.url + " answered " + std::to_string(result.http_status);
        if (choose(2) == 1) result.retry_after = std::chrono::seconds(static_cast<std::int64_t>(choose(100'000)) - 10);
        return end(errc::server_busy, std::move(result));
      }
      if (world().strikes(SimFaultKind::forbidden)) return end(errc::credentials_rejected);
      const auto file = state.network.files_.find(request.url);
      if (file == state.network.files_.end() || world().strikes(SimFaultKind::not_found)) return end(errc::not_found);

      bytes = file->second.bytes;
      SourceIdentity identity;
      identity.length = bytes.size();
      const SimServer server = file->second.server;
      if (server.has_validators) identity.etag = '"' + std::to_string(file->second.version) + '"';
      const bool changed = world().strikes(SimFaultKind::source_changed);
      if (changed) identity.etag = "\"changed\"";
      // If-Range: a validator that does not match, or none, gets the whole (RFC 9110, 13.1.5).
      const bool is_same = !identity.etag.empty() && request.identity.etag == identity.etag;
      at = request.offset > 0 && is_same ? request.offset : 0;
      if (at > bytes.size()) at = 0;
      if (at > 0 && world().strikes(SimFaultKind::wrong_range)) return end(errc::range_mismatch);
      if (!server.is_honest && !bytes.empty() && world().strikes(SimFaultKind::wrong_bytes)) {
        bytes[choose(bytes.size())] ^= 1;
      }
      if (request.size && world().strikes(SimFaultKind::long_body)) bytes += "and more";
      if (const std::error_code error = sink->begin(at, identity)) return end(error);
      next_piece();
    }

    void next_piece() {
      if (!cancelled && world().strikes(SimFaultKind::stall)) {
        stalled = world().post_at(world().now() + std::chrono::seconds(30), [self = shared_from_this()] {
          self->stalled = 0;
          self->end(self->cancelled ? errc::cancelled : errc::timed_out);
        });
        return;
      }
      later(shared_from_this(), [](Flow& flow) { flow.deliver(); });
    }

    void deliver() {
      if (cancelled && !world().strikes(SimFaultKind::late_completion)) return end(errc::cancelled);
      if (at == bytes.size()) return end({});
      if (world().strikes(SimFaultKind::connection_reset)) return end(errc::connection_failed);
      if (world().strikes(SimFaultKind::truncated_body)) return end(errc::body_too_short);
      const std::size_t left = bytes.size() - at;
      const std::size_t count = left - static_cast<std::size_t>(choose(left));
      if (request.size && at + count > *request.size) return end(errc::body_too_long);
      state.network.bytes_moved_ += count;
      const std::error_code error = sink->write(std::as_bytes(std::span(bytes).subspan(at, count)));
      if (error) return end(error);
      at += count;
      next_piece();
    }

    void end(std::error_code error, FetchResult result = {}) {
      if (std::exchange(ended, true)) return;
      const auto self = shared_from_this();
      result.error = error;
      if (world().trace) world().note("  end of ", request.url, error ? ": " + error.message() : std::string());
      SimNetwork& network = state.network;
      if (--network.active_[request.url] == 0) network.active_.erase(request.url);
      state.flows.erase(number);
      const auto taker = std::move(sink);
      taker->done(result);
    }

    State& state;
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
    std::uint64_t number = 0;
    bool cancelled = false;
    bool ended = false;
    std::uint64_t stalled = 0;  ///< the timer that ends it
    std::string bytes;
    std::size_t at = 0;
  };

  std::unique_ptr<State> state_;
};

static_assert(diagnose_downloader<SimDownloader>());

}  // namespace garner

// For people.

// garner/format.hpp -----------------------------------------------------------------------------------------
// fmt formatters of the public values: ids as hex, ranges as [begin, end), digests, states, events and error
// codes by name. Takes the standard string format specification (width, alignment).

namespace garner::detail {

template <class Tag>
std::string as_text(const BasicId<Tag>& id) {
  return id.to_hex();
}
inline std::string as_text(const Digest& digest) { return digest.to_string(); }
inline std::string as_text(const BlockRange& range) { return fmt::format("[{}, {})", range.begin, range.end); }
inline std::string_view as_text(ChunkState state) { return to_string(state); }
inline std::string_view as_text(EventKind kind) { return to_string(kind); }
inline std::string_view as_text(ErrorClass cls) { return to_string(cls); }
inline std::string as_text(errc code) { return make_error_code(code).message(); }

/// Formats a `T` as the text that `as_text(const T&)` gives for it.
template <class T>
struct TextFormatter : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const T& value, Context& context) const {
    return fmt::formatter<std::string_view>::format(as_text(value), context);
  }
};

}  // namespace garner::detail

template <class Tag>
struct fmt::formatter<garner::BasicId<Tag>> : garner::detail::TextFormatter<garner::BasicId<Tag>> {};
template <>
struct fmt::formatter<garner::Digest> : garner::detail::TextFormatter<garner::Digest> {};
template <>
struct fmt::formatter<garner::BlockRange> : garner::detail::TextFormatter<garner::BlockRange> {};
template <>
struct fmt::formatter<garner::ChunkState> : garner::detail::TextFormatter<garner::ChunkState> {};
template <>
struct fmt::formatter<garner::EventKind> : garner::detail::TextFormatter<garner::EventKind> {};
template <>
struct fmt::formatter<garner::ErrorClass> : garner::detail::TextFormatter<garner::ErrorClass> {};
template <>
struct fmt::formatter<garner::errc> : garner::detail::TextFormatter<garner::errc> {};
// clang-format on

namespace garner {

template <class S = FilesystemStorage, class D = CurlDownloader, class E = AsioExecutor>
class DataManager;

template <class E = AsioExecutor>
class TaskPool;

template <class D = CurlDownloader, class E = AsioExecutor, class F = PosixFileSystem>
class DownloadManager;

}  // namespace garner
