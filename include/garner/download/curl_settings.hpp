// SPDX-License-Identifier: BSL-1.0
//
// What can be chosen about CurlDownloader. Plain values.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace garner {

/// Fixed at a downloader's construction.
struct CurlSettings {
  // How the work is spread.
  unsigned loops = 2;                      ///< threads, each with its own connections; at least 1
  std::size_t connections_per_host = 8;    ///< over all loops; more transfers wait for a free one
  std::size_t idle_connections = 32;       ///< kept open, over all hosts and loops
  std::size_t write_bytes = 256 * 1024;    ///< what is gathered before it goes to the sink: one buffer a transfer
  std::size_t receive_bytes = 256 * 1024;  ///< what one read from a socket may take (`CURLOPT_BUFFERSIZE`)

  // When a transfer is given up (`errc::timed_out`).
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);  ///< name, connection and TLS together
  std::uint32_t low_speed_bytes_per_second = 1024;                       ///< slower than this ...
  std::chrono::seconds low_speed_time = std::chrono::seconds(30);        ///< ... for this long; 0: never

  // What a server may do.
  bool require_https = false;
  unsigned max_redirects = 5;
  std::size_t max_header_bytes = 64 * 1024;  ///< of one response, informational ones and trailers included
  std::uint64_t max_file_bytes = std::uint64_t{1} << 40;
  /// Where not empty, nothing else is connected to. An entry is a host's name (`lake.example`), all names below one
  /// (`.lake.example`), or an address or network (`10.0.0.0/8`, `::1`). Where there are networks, the address that a
  /// name resolves to must lie in one of them too, so DNS cannot lead elsewhere.
  std::vector<std::string> allowed_hosts;

  std::string user_agent = "garner";
  std::string ca_bundle;  ///< a PEM file of the authorities to trust instead of the system's
};

}  // namespace garner
