// SPDX-License-Identifier: BSL-1.0
//
// What can go wrong: the error codes with their category, the classes that decide what is done about each,
// and the exception that names the chunk, the file or the URL. Not here: the checks that produce the codes.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

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
