// SPDX-License-Identifier: BSL-1.0
//
// A real nginx of a test's own, on a free port of the loopback interface. It inherits the listening socket from the
// test, as it does from itself in a binary upgrade: the port cannot be lost to another process.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/temp_dir.hpp"

namespace garner::test {

/// How it is reached, where not by plain HTTP/1.1.
struct NginxTls {
  std::filesystem::path directory;  ///< has `certificate.pem` and `key.pem`
  bool http2 = true;
  std::filesystem::path clients = {};  ///< where not empty: the certificate that a client must have
};

/// Serves a directory from construction to destruction. Works as root and as anybody else.
class Nginx {
 public:
  /// Serves what is below `document_root`, then or later; at most `bytes_per_second` on each connection, 0 for no
  /// limit. Throws where nginx is not installed, or does not answer: then with what it logged.
  explicit Nginx(const std::filesystem::path& document_root, std::uint64_t bytes_per_second = 0,
                 std::optional<NginxTls> tls = std::nullopt)
      : tls_(std::move(tls)) {
    const std::string program = find_program();
    listen();
    write_config(document_root, bytes_per_second);
    try {
      start(program);
      wait_until_ready();
    } catch (const std::exception& problem) {
      stop();
      throw std::runtime_error(std::string(problem.what()) + "\n" + error_log());
    }
  }
  Nginx(const Nginx&) = delete;
  Nginx& operator=(const Nginx&) = delete;
  ~Nginx() {
    stop();
    if (std::uncaught_exceptions() > exceptions_) std::cerr << "nginx logged:\n" << error_log() << '\n';
  }

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] std::string origin() const {
    return (tls_ ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(port_);
  }

  /// One line for each request that has ended, where it speaks TLS: the protocol, the number of the connection, the
  /// status and the path.
  [[nodiscard]] std::vector<std::string> access_log() const {
    std::ifstream log(prefix_ / "access.log");
    std::vector<std::string> lines;
    for (std::string line; std::getline(log, line);) lines.push_back(line);
    return lines;
  }

  /// What went wrong so far, as the server sees it: a request of a file that is not there, too.
  [[nodiscard]] std::string error_log() const {
    std::ifstream log(prefix_ / "error.log");
    std::string text;
    for (std::string line; std::getline(log, line);) {
      // Such as that it inherited a socket.
      if (line.find("[notice]") == std::string::npos) text += line + '\n';
    }
    return text;
  }

 private:
  class Descriptor {
   public:
    explicit Descriptor(int number = -1) noexcept : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor& operator=(Descriptor&& other) noexcept {
      std::swap(number_, other.number_);
      return *this;
    }
    ~Descriptor() {
      if (number_ >= 0) ::close(number_);
    }
    [[nodiscard]] int get() const noexcept { return number_; }

   private:
    int number_;
  };

  static void require(bool condition, const char* what) {
    if (!condition) throw std::system_error(errno, std::generic_category(), what);
  }

  static std::string find_program() {
    const char* const path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): no test sets it
    // Users other than root do not have the sbin directories in theirs.
    std::istringstream directories(std::string(path != nullptr ? path : "") + ":/usr/sbin:/usr/local/sbin:/sbin");
    for (std::string directory; std::getline(directories, directory, ':');) {
      std::string program = directory + "/nginx";
      if (!directory.empty() && ::access(program.c_str(), X_OK) == 0) return program;
    }
    throw std::runtime_error("nginx is not installed; tests/setup test installs it");
  }

  [[nodiscard]] sockaddr_in address() const {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  static Descriptor open_socket() {
    Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    require(socket.get() >= 0, "socket");
    return socket;
  }

  void listen() {
    listener_ = open_socket();
    sockaddr_in bound = address();
    socklen_t length = sizeof(bound);
    auto* const generic = reinterpret_cast<sockaddr*>(&bound);
    require(::bind(listener_.get(), generic, length) == 0, "bind");
    require(::listen(listener_.get(), 511) == 0, "listen");
    require(::getsockname(listener_.get(), generic, &length) == 0, "getsockname");
    port_ = ntohs(bound.sin_port);
  }

  void write_config(const std::filesystem::path& document_root, std::uint64_t bytes_per_second) const {
    std::ostringstream text;
    text << std::ifstream(std::filesystem::path(GARNER_TEST_DATA_DIR) / "../support/nginx.conf").rdbuf();
    std::string config = text.str();
    const std::map<std::string, std::string> values = {{"@PORT@", std::to_string(port_)},
                                                       {"@ROOT@", std::filesystem::absolute(document_root)},
                                                       {"@RATE@", std::to_string(bytes_per_second)},
                                                       {"@SENDFILE@", bytes_per_second == 0 ? "on" : "off"}};
    const std::size_t directives = config.find("\nworker_processes");
    for (const auto& [name, value] : values) {
      config.replace(config.find(name, directives), name.size(), value);
    }
    if (tls_) {
      const std::string log = "access_log off;";
      config.replace(config.find(log), log.size(),
                     "log_format tls '$server_protocol $connection $status $request_uri'; access_log access.log tls;");
      std::string tls = tls_->http2 ? " ssl http2;" : " ssl;";
      tls += "\n    ssl_certificate \"" + (tls_->directory / "certificate.pem").string() + "\";";
      tls += "\n    ssl_certificate_key \"" + (tls_->directory / "key.pem").string() + "\";";
      if (!tls_->clients.empty()) {
        tls += "\n    ssl_verify_client on; ssl_client_certificate \"" + tls_->clients.string() + "\";";
      }
      const std::string listen = "listen 127.0.0.1:" + std::to_string(port_);
      config.replace(config.find(listen) + listen.size(), 1, tls);
    }
    std::ofstream(prefix_ / "nginx.conf") << config;
  }

  void start(const std::string& program) {
    std::vector<std::string> arguments = {program, "-p",       prefix_.path().string() + "/", "-c", "nginx.conf",
                                          "-e",    "error.log"};
    // Its worker would give up root for a user who may not read the test's directory.
    const bool is_root = ::geteuid() == 0;
    arguments.insert(arguments.end(), {"-g", is_root ? "daemon off; user root;" : "daemon off;"});
    std::vector<std::string> environment = {"NGINX=" + std::to_string(listener_.get()) + ";"};
    for (char** variable = ::environ; *variable != nullptr; ++variable) environment.emplace_back(*variable);
    const std::vector<char*> argv = pointers(arguments);
    const std::vector<char*> envp = pointers(environment);
    const std::string log = prefix_ / "error.log";
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    require(pid_ >= 0, "fork");
    if (pid_ == 0) {
      // Only what is safe after a fork of a program with threads.
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(126);
      const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(out, STDOUT_FILENO);
      ::dup2(out, STDERR_FILENO);
      ::fcntl(listener_.get(), F_SETFD, 0);
      ::execve(program.c_str(), argv.data(), envp.data());
      ::_exit(127);
    }
    // From here on the socket is nginx's alone, and goes when nginx does.
    listener_ = Descriptor();
  }

  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> out;
    out.reserve(texts.size() + 1);
    for (std::string& text : texts) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
  }

  /// The connection is there at once, since the socket listens already; the answer comes when nginx does.
  void wait_until_ready() const {
    const Descriptor socket = open_socket();
    const sockaddr_in server = address();
    require(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&server), sizeof(server)) == 0,
            "connect to nginx");
    const std::string request = "GET /is-ready HTTP/1.0\r\n\r\n";
    require(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) > 0, "send to nginx");
    pollfd readable{socket.get(), POLLIN, 0};
    constexpr int patience_ms = 20'000;
    if (::poll(&readable, 1, patience_ms) != 1) throw std::runtime_error("nginx does not answer");
    std::string reply(12, '\0');
    require(::recv(socket.get(), reply.data(), reply.size(), MSG_WAITALL) > 0, "nginx ended");
    // One that speaks TLS answers that the request should have.
    if (reply != (tls_ ? "HTTP/1.1 400" : "HTTP/1.1 204")) throw std::runtime_error("nginx answered " + reply);
  }

  void stop() noexcept {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }

  const int exceptions_ = std::uncaught_exceptions();
  const std::optional<NginxTls> tls_;
  const TempDir prefix_;
  Descriptor listener_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace garner::test
