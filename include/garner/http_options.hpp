// SPDX-License-Identifier: BSL-1.0
//
// What can be chosen about HTTP, for every downloader that speaks it. Plain values; that libcurl is what speaks it by
// default is not seen here.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace garner {

/// Fixed at construction, all of it. What does not parse, and a file that cannot be read, is an `Error` there. Nothing of
/// it ever comes from the environment.
struct HttpOptions {
  std::string user_agent = "garner";
  /// `http://host:port` or `https://host:port`, with `user:password@` where it wants them; empty: none. Names are then
  /// resolved by the proxy, and `allowed_hosts` cannot see to which address.
  std::string proxy;

  // TLS. Files are PEM.
  std::string ca_bundle;           ///< the authorities to trust, instead of the system's
  std::string client_certificate;  ///< with those between it and an authority; to whoever asks for one, but after a
                                   ///< redirect to another origin
  std::string client_key;          ///< empty: in the same file as the certificate
  std::string client_key_password;

  // When a transfer is given up (`errc::timed_out`).
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);  ///< name, connection and TLS together
  std::uint32_t low_speed_bytes_per_second = 1024;                       ///< slower than this ...
  std::chrono::seconds low_speed_time = std::chrono::seconds(30);        ///< ... for this long; 0: never
};

}  // namespace garner
