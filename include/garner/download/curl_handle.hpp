// SPDX-License-Identifier: BSL-1.0
//
// A libcurl easy handle with what was chosen set on it: the network, trust, the proxy. Not here: what is of one
// transfer.
#pragma once

#include <curl/curl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

#include "garner/download/curl_settings.hpp"
#include "garner/download/curl_url.hpp"
#include "garner/error.hpp"

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
