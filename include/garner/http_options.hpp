// SPDX-License-Identifier: BSL-1.0
//
// What can be chosen about HTTP, for every downloader that speaks it. Plain values; that libcurl is what speaks it by
// default is not seen here.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "garner/http_header.hpp"

namespace garner {

/// Keys that requests are signed with: Signature Version 4 of AWS, by which S3 and what is like it know who asks.
struct S3Keys {
  std::string access_key;
  std::string secret_key;
  std::string session_token = {};  ///< of temporary keys
  std::string region = "us-east-1";
  std::string service = "s3";
};

/// What is sent to one host, or to several, with every request. To them alone: after a redirect to another origin
/// nothing of it is sent, not even where there are credentials for that. What a source brings along itself comes first:
/// its headers replace those of the same name, and one that brings a user in its URL, an `Authorization` header, or a
/// signature in its query gets neither token, password nor signature from here.
struct HostCredentials {
  /// A host's name (`lake.example`) or all names below one (`.lake.example`), which stand for https at any port; or an
  /// origin (`https://lake.example:8443`, `http://10.0.0.7:9000`).
  std::string host;
  std::vector<HttpHeader> headers = {};
  // One of these at most.
  std::string bearer_token = {};
  std::string user = {};  ///< with `password`: HTTP's Basic authentication
  std::string password = {};
  std::optional<S3Keys> s3 = std::nullopt;
};

/// Fixed at construction, all of it. What does not parse, and a file that cannot be read, is an `Error` there. Nothing
/// of it ever comes from the environment.
struct HttpOptions {
  std::string user_agent = "garner";
  /// `http://host:port` or `https://host:port`, with `user:password@` where it wants them; empty: none. Names are then
  /// resolved by the proxy, and `allowed_hosts` cannot see to which address.
  std::string proxy;

  /// Over TLS, where the server speaks HTTP/2, files of at most so many bytes share a connection (one for each loop).
  /// Larger ones, and those whose size is not known, have a connection each, by HTTP/1.1. 0: so do all.
  std::uint64_t http2_max_bytes = std::uint64_t{1} << 20;

  // TLS. Files are PEM.
  std::string ca_bundle;           ///< the authorities to trust, instead of the system's
  std::string client_certificate;  ///< with those between it and an authority; to whoever asks for one, but after a
                                   ///< redirect to another origin
  std::string client_key;          ///< empty: in the same file as the certificate
  std::string client_key_password;

  std::vector<HostCredentials> credentials = {};  ///< the first that is of a host counts

  // When a transfer is given up (`errc::timed_out`).
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);  ///< name, connection and TLS together
  std::uint32_t low_speed_bytes_per_second = 1024;                       ///< slower than this ...
  std::chrono::seconds low_speed_time = std::chrono::seconds(30);        ///< ... for this long; 0: never
};

}  // namespace garner
