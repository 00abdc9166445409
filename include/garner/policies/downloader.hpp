// SPDX-License-Identifier: BSL-1.0
//
// The Downloader policy: its requirement table, the concept made of one named fragment a row, a diagnosis
// with one sentence a fragment, and what passes between a downloader and whoever takes the bytes.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/http_header.hpp"

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
