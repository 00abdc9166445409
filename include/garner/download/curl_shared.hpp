// SPDX-License-Identifier: BSL-1.0
//
// What all loops of one CurlDownloader have in common: what was chosen, checked where it is chosen and not by the first
// transfer that meets it.
#pragma once

#include <curl/curl.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/download/credentials.hpp"
#include "garner/download/curl_settings.hpp"
#include "garner/download/curl_url.hpp"
#include "garner/download/host_filter.hpp"
#include "garner/error.hpp"

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
