// SPDX-License-Identifier: BSL-1.0
//
// HTTPS origins for tests, with a certificate made to order: `openssl s_server` for one raw response, and h2_server.py
// for what a bad server of HTTP/2 may do.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/certificate.hpp"
#include "support/child.hpp"
#include "support/temp_dir.hpp"

namespace garner::test {

/// Serves one raw response as /file. Thread-safety: none. The destructor ends the process and removes its files.
class TlsServer {
 public:
  /// With a self-signed certificate for `alternative_name` (as OpenSSL writes it: `IP:127.0.0.1`) that has been valid
  /// for a day and ends `seconds_left` from now.
  TlsServer(const std::string& alternative_name, long seconds_left, const std::string& response)
      : child_(command(directory_.path(), alternative_name, seconds_left, response), directory_.path()),
        port_(child_.read_after("ACCEPT 127.0.0.1:")) {}

  [[nodiscard]] std::string url() const { return "https://127.0.0.1:" + port_ + "/file"; }
  [[nodiscard]] std::string certificate() const { return directory_ / "certificate.pem"; }

 private:
  static std::vector<std::string> command(const std::filesystem::path& directory, const std::string& alternative_name,
                                          long seconds_left, const std::string& response) {
    make_certificate(directory, alternative_name, seconds_left);
    std::ofstream(directory / "file", std::ios::binary) << response;
    return {"openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", "certificate.pem", "-key", "key.pem", "-HTTP"};
  }

  const TempDir directory_;
  Child child_;
  const std::string port_;
};

/// Answers every request over HTTP/2 in one way, which h2_server.py knows by its name.
class H2Server {
 public:
  explicit H2Server(const std::string& behaviour)
      : child_(command(directory_.path(), behaviour), directory_.path()), port_(child_.read_after("port ")) {}

  [[nodiscard]] std::string url() const { return "https://127.0.0.1:" + port_ + "/file"; }
  [[nodiscard]] std::string certificate() const { return directory_ / "certificate.pem"; }

 private:
  static std::vector<std::string> command(const std::filesystem::path& directory, const std::string& behaviour) {
    make_certificate(directory, "IP:127.0.0.1");
    return {"python3", std::string(GARNER_TEST_DATA_DIR) + "/../support/h2_server.py", behaviour};
  }

  const TempDir directory_;
  Child child_;
  const std::string port_;
};

}  // namespace garner::test
