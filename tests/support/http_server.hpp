// SPDX-License-Identifier: BSL-1.0
//
// A scripted HTTP/1.1 server on real sockets, in the test's own process: each path has a script that sees the request
// and sends what it likes, well-formed or not. One thread a connection.
#pragma once

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/connect.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/write.hpp>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace garner::test {

/// Opens once; whoever waits gives up after ten seconds, so that a failing test ends.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

/// A request, and the way to answer it.
class Exchange {
 public:
  Exchange(asio::ip::tcp::socket& socket, int number) : connection(number), socket_(socket) {}

  int connection;  ///< from 1, in the order of arrival
  std::string method;
  std::string target;
  std::map<std::string, std::string> fields;  ///< names in lower case

  [[nodiscard]] std::string field(const std::string& name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? std::string() : found->second;
  }

  /// Bytes as they are; false where the client is gone.
  bool send(std::string_view bytes) {
    std::error_code error;
    asio::write(socket_, asio::buffer(bytes), error);
    return !error;
  }
  /// A whole response with its Content-Length; `more` are further lines, each with its end.
  bool reply(const std::string& status, std::string_view body = {}, const std::string& more = {}) {
    return send("HTTP/1.1 " + status + "\r\n" + more + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                std::string(body));
  }
  /// Serves `body` as a good server does: Range, If-Range and 416.
  bool serve(std::string_view body, const std::string& etag = "\"v1\"") {
    const std::string tag = "ETag: " + etag + "\r\nAccept-Ranges: bytes\r\n";
    const std::string range = field("range");
    const std::string condition = field("if-range");
    if (range.substr(0, 6) != "bytes=" || !(condition.empty() || condition == etag)) return reply("200 OK", body, tag);
    const std::size_t offset = std::stoull(range.substr(6));
    const std::string total = std::to_string(body.size());
    if (offset >= body.size())
      return reply("416 Range Not Satisfiable", "", "Content-Range: bytes */" + total + "\r\n");
    return reply("206 Partial Content", body.substr(offset),
                 tag + "Content-Range: bytes " + std::to_string(offset) + "-" + std::to_string(body.size() - 1) + "/" +
                     total + "\r\n");
  }
  /// Ends the connection after what was sent.
  void close() { ended_ = true; }
  /// Ends it with a RST, when the script returns.
  void reset() { ended_ = reset_ = true; }
  /// Waits until the client has hung up, or the server ends.
  void wait_for_hang_up() {
    ended_ = true;
    std::error_code error;
    char byte = 0;
    while (!error) socket_.read_some(asio::buffer(&byte, 1), error);
  }

 private:
  friend class HttpServer;
  asio::ip::tcp::socket& socket_;
  bool ended_ = false;
  bool reset_ = false;
};

/// Thread-safety: every member from any thread; scripts run on the connections' threads. The destructor hangs up on
/// everybody and joins.
class HttpServer {
 public:
  using Script = std::function<void(Exchange&)>;

  HttpServer() : acceptor_(io_, {asio::ip::address_v4::loopback(), 0}) {
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer() {
    io_.stop();
    thread_.join();
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      std::error_code ignored;
      for (Connection& connection : connections_) {
        if (connection.live) connection.socket.shutdown(asio::socket_base::shutdown_both, ignored);
      }
    }
    for (Connection& connection : connections_) connection.thread.join();
  }

  /// What is done for requests of `path`, the query left out. Without a script the answer is 404.
  void on(const std::string& path, Script script) {
    const std::lock_guard lock(mutex_);
    scripts_[path] = std::move(script);
  }

  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  [[nodiscard]] std::string origin() const { return "http://127.0.0.1:" + std::to_string(port()); }
  [[nodiscard]] std::string url(const std::string& path) const { return origin() + path; }

  [[nodiscard]] int connections() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(connections_.size());
  }
  /// All requests so far, by their arrival.
  [[nodiscard]] std::vector<Exchange> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  struct Connection {
    explicit Connection(asio::ip::tcp::socket accepted) : socket(std::move(accepted)) {}
    asio::ip::tcp::socket socket;
    std::thread thread;
    bool live = true;
  };

  void accept() {
    acceptor_.async_accept([this](const std::error_code& error, asio::ip::tcp::socket socket) {
      if (error) return;
      const std::lock_guard lock(mutex_);
      if (stopped_) return;
      Connection& connection = connections_.emplace_back(std::move(socket));
      const int number = static_cast<int>(connections_.size());
      connection.thread = std::thread([this, &connection, number] { serve(connection, number); });
      accept();
    });
  }

  void serve(Connection& connection, int number) {
    std::string buffer;
    bool reset = false;
    while (true) {
      Exchange exchange(connection.socket, number);
      if (!read(connection.socket, buffer, exchange)) break;
      Script script;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(exchange);
        const auto found = scripts_.find(exchange.target.substr(0, exchange.target.find('?')));
        if (found != scripts_.end()) script = found->second;
      }
      if (script) {
        script(exchange);
      } else {
        exchange.reply("404 Not Found", "nothing here");
      }
      reset = exchange.reset_;
      if (exchange.ended_) break;
    }
    const std::lock_guard lock(mutex_);
    connection.live = false;
    std::error_code ignored;
    if (reset) {
      connection.socket.set_option(asio::socket_base::linger(true, 0), ignored);
    } else {
      connection.socket.shutdown(asio::socket_base::shutdown_both, ignored);
    }
    connection.socket.close(ignored);
  }

  static bool read(asio::ip::tcp::socket& socket, std::string& buffer, Exchange& exchange) {
    std::error_code error;
    const std::size_t size = asio::read_until(socket, asio::dynamic_buffer(buffer), "\r\n\r\n", error);
    if (error) return false;
    std::istringstream head(buffer.substr(0, size));
    buffer.erase(0, size);
    head >> exchange.method >> exchange.target;
    std::string line;
    std::getline(head, line);
    while (std::getline(head, line) && line != "\r") {
      const std::size_t colon = line.find(':');
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      exchange.fields[name] = line.substr(colon + 2, line.size() - colon - 3);
    }
    return true;
  }

  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::map<std::string, Script> scripts_;
  std::vector<Exchange> requests_;
  std::list<Connection> connections_;
  bool stopped_ = false;
};

}  // namespace garner::test
