// SPDX-License-Identifier: BSL-1.0
//
// The two ways that a loop's transfers go: one at a time over each of several connections (HTTP/1.1), or many at a time
// over one (HTTP/2). Each way is a libcurl multi handle of its own, with its own connections.
#pragma once

#include <curl/curl.h>

#include <asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "garner/download/curl_driver.hpp"
#include "garner/download/curl_settings.hpp"
#include "garner/download/curl_url.hpp"

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
