// SPDX-License-Identifier: BSL-1.0
//
// What can be chosen about CurlDownloader: what is chosen for HTTP in general, and what is its own. Plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "garner/http_options.hpp"

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
