// SPDX-License-Identifier: BSL-1.0
//
// What is wrong with a choice about HTTP, told where it is made and not by the first transfer that meets it.
#pragma once

#include <fstream>
#include <string>
#include <system_error>

#include "garner/download/curl_url.hpp"
#include "garner/error.hpp"
#include "garner/http_options.hpp"

namespace garner::detail {

/// Throws `Error`, which names the option and shows no secret.
inline void check_http_options(const HttpOptions& options) {
  const auto reject = [](std::errc why, const std::string& what) { throw Error(std::make_error_code(why), what); };
  if (!options.proxy.empty()) {
    CurlUrl proxy;
    if (const std::error_code error = CurlUrl::parse(options.proxy, false, proxy)) throw Error(error, "the proxy");
  }
  // libcurl reads them with the first connection, and then fails it as it would fail one to a server that is not trusted.
  for (const std::string& file : {options.ca_bundle, options.client_certificate, options.client_key}) {
    if (!file.empty() && !std::ifstream(file).is_open()) reject(std::errc::no_such_file_or_directory, file);
  }
  if (options.client_certificate.empty() && !options.client_key.empty()) {
    reject(std::errc::invalid_argument, "a client's key without its certificate");
  }
  if (options.user_agent.find_first_of(std::string("\r\n\0", 3)) != std::string::npos) {
    reject(std::errc::invalid_argument, "the user agent");
  }
}

}  // namespace garner::detail
