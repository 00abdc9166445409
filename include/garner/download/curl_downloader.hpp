// SPDX-License-Identifier: BSL-1.0
//
// CurlDownloader: the default Downloader, HTTP/1.1 and HTTP/2 by libcurl's multi interface on Asio. Not here: retries,
// mirrors, or what a chunk is.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/download/curl_loop.hpp"
#include "garner/download/curl_pace.hpp"
#include "garner/download/curl_settings.hpp"
#include "garner/download/curl_shared.hpp"
#include "garner/download/curl_url.hpp"
#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"
#include "garner/status.hpp"

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
