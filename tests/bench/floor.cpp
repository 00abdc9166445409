// SPDX-License-Identifier: BSL-1.0
//
// The floor of the download tables: as little as can be done to have a server's files on a disk. Four threads, each
// with one connection that it keeps, send a request, read the head of the answer, and let the kernel move the body from
// the socket to the file. No errors are handled and nothing is checked; with --sync each file is synced at its end.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "measuring.hpp"

namespace {

constexpr unsigned thread_count = 4;
constexpr int pipe_bytes = 256 * 1024;

int check(long result, const char* call) {
  if (result < 0) bench::fail(std::string(call) + ": " + std::system_category().message(errno));
  return static_cast<int>(result);
}

class Connection {
 public:
  explicit Connection(std::uint16_t port) : fd_(check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "connect");
    const int on = 1;
    check(::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "setsockopt");
    check(::pipe2(pipe_.data(), O_CLOEXEC), "pipe2");
    check(::fcntl(pipe_[1], F_SETPIPE_SZ, pipe_bytes), "F_SETPIPE_SZ");
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    for (const int fd : {fd_, pipe_[0], pipe_[1]}) ::close(fd);
  }

  void fetch(const std::string& path, std::uint64_t size, int file) {
    const std::string request = "GET /" + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    check(::send(fd_, request.data(), request.size(), 0), "send");
    skip_head(path);
    while (size > 0) {
      const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(size, pipe_bytes));
      auto count = ::splice(fd_, nullptr, pipe_[1], nullptr, most, SPLICE_F_MOVE);
      if (check(count, "splice from the socket") == 0) bench::fail(path + " is too short");
      size -= static_cast<std::uint64_t>(count);
      while (count > 0) {
        const auto written = ::splice(pipe_[0], nullptr, file, nullptr, static_cast<std::size_t>(count), SPLICE_F_MOVE);
        count -= check(written, "splice to the file");
      }
    }
  }

 private:
  /// Reads as much as the head has, and nothing of the body.
  void skip_head(const std::string& path) const {
    std::array<char, 4096> head{};
    std::size_t end = 0;
    while (end == 0) {
      const auto count = ::recv(fd_, head.data(), head.size(), MSG_PEEK);
      if (check(count, "recv") == 0) bench::fail("the server has closed the connection");
      const std::string_view seen(head.data(), static_cast<std::size_t>(count));
      if (const std::size_t at = seen.find("\r\n\r\n"); at != std::string_view::npos) end = at + 4;
    }
    check(::recv(fd_, head.data(), end, MSG_WAITALL), "recv");
    if (!std::string_view(head.data(), end).starts_with("HTTP/1.1 200 ")) bench::fail(path + " is not served");
  }

  int fd_;
  std::array<int, 2> pipe_{};
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 3 || arguments.size() > 4) bench::fail("usage: bench_floor PORT LIST DIRECTORY [--sync]");
  const auto port = static_cast<std::uint16_t>(bench::parse_number(arguments[0]));
  const std::vector<bench::ListedFile> files = bench::read_list(arguments[1]);
  const std::filesystem::path directory = arguments[2];
  const bool sync = arguments.size() == 4;

  std::set<std::filesystem::path> chunks;
  for (const bench::ListedFile& file : files) chunks.insert((directory / file.path).parent_path());
  for (const std::filesystem::path& chunk : chunks) std::filesystem::create_directories(chunk);

  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < thread_count; ++i) {
    threads.emplace_back([&] {
      Connection connection(port);
      for (std::size_t at = next++; at < files.size(); at = next++) {
        const int file =
            check(::open((directory / files[at].path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), "open");
        connection.fetch(files[at].path, files[at].size, file);
        if (sync) check(::fsync(file), "fsync");
        check(::close(file), "close");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  bench::tell("peak", static_cast<double>(bench::peak_bytes()));
}
