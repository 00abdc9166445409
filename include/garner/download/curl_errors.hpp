// SPDX-License-Identifier: BSL-1.0
//
// What libcurl's result codes mean in ours.
#pragma once

#include <curl/curl.h>

#include <system_error>

#include "garner/error.hpp"

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
