// SPDX-License-Identifier: BSL-1.0
//
// An HTTPS origin for tests: a certificate made to order, and `openssl s_server` serving one raw response with it.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "support/certificate.hpp"

namespace garner::test {

/// Thread-safety: none. The destructor ends the process and removes its files.
class TlsServer {
 public:
  /// Serves `response` as /file, with a self-signed certificate for `alternative_name` (as OpenSSL writes it:
  /// `IP:127.0.0.1`) that has been valid for a day and ends `seconds_left` from now.
  TlsServer(const std::string& alternative_name, long seconds_left, const std::string& response) {
    std::string pattern = (std::filesystem::temp_directory_path() / "garner-tls-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = pattern;
    make_certificate(directory_, alternative_name, seconds_left);
    std::ofstream(directory_ / "file", std::ios::binary) << response;
    spawn();
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  ~TlsServer() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    ::close(output_);
    std::filesystem::remove_all(directory_);
  }

  [[nodiscard]] std::string url() const { return "https://127.0.0.1:" + std::to_string(port_) + "/file"; }
  [[nodiscard]] std::string certificate() const { return (directory_ / "certificate.pem").string(); }

 private:
  void spawn() {
    std::array<int, 2> output{};
    if (::pipe2(output.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory_.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    std::array<std::string, 9> words = {"openssl",         "s_server", "-accept", "127.0.0.1:0", "-cert",
                                        "certificate.pem", "-key",     "key.pem", "-HTTP"};
    std::array<char*, 10> arguments{};
    for (std::size_t i = 0; i < words.size(); ++i) arguments[i] = words[i].data();
    const int error = ::posix_spawnp(&process_, "openssl", &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(output[1]);
    if (error != 0) throw std::runtime_error("openssl does not start");
    // It says "ACCEPT 127.0.0.1:port" when it listens.
    std::string said;
    char c = 0;
    while (::read(output[0], &c, 1) == 1) {
      said += c;
      const std::size_t at = said.find("ACCEPT ");
      if (c == '\n' && at != std::string::npos) break;
    }
    output_ = output[0];
    const std::size_t at = said.find("ACCEPT ");
    if (at == std::string::npos) throw std::runtime_error("openssl does not listen");
    port_ = std::stoi(said.substr(said.find(':', at) + 1));
  }

  std::filesystem::path directory_;
  pid_t process_ = -1;
  int output_ = -1;
  int port_ = 0;
};

}  // namespace garner::test
