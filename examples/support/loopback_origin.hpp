// SPDX-License-Identifier: BSL-1.0
//
// A small HTTP/1.1 server on the loopback interface, so that an example runs without a network: keep-alive,
// GET and HEAD, one byte range (`Range`, `If-Range`), a rate to keep to, and connections that break when told
// to. It is on Asio because an off-the-shelf server neither honours If-Range nor resets a connection in the
// middle of a body.
#pragma once

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/steady_timer.hpp>
#include <asio/streambuf.hpp>
#include <asio/write.hpp>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace support {

struct Request {
  std::string method;
  std::string target;                          ///< path and query
  std::map<std::string, std::string> headers;  ///< names in lower case
};

/// What to answer. A 200 is cut to the range that was asked for and becomes a 206.
struct Reply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string etag;                                                     ///< with its quotes; empty for none
  std::uint64_t length = 0;                                             ///< of the whole body
  std::function<void(std::uint64_t offset, std::span<char> out)> fill;  ///< writes the body's bytes from offset on
  std::optional<std::uint64_t> reset_after;  ///< the connection is reset once so many bytes of the body went out

  /// A body that is at hand.
  static Reply of(std::string body, int status = 200) {
    Reply reply;
    reply.status = status;
    reply.length = body.size();
    reply.fill = [body = std::move(body)](std::uint64_t offset, std::span<char> out) {
      std::memcpy(out.data(), body.data() + offset, out.size());
    };
    return reply;
  }
};

/// Serves from construction to destruction. `handler` is called on the server's threads, several at a time.
class LoopbackOrigin {
 public:
  using Handler = std::function<Reply(const Request&)>;

  /// `bytes_per_second` is for all connections together; 0 is as fast as it goes.
  explicit LoopbackOrigin(Handler handler, unsigned threads = 1, double bytes_per_second = 0)
      : shared_{std::move(handler), bytes_per_second, {}, {}},
        acceptor_(context_, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    accept();
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { context_.run(); });
  }
  LoopbackOrigin(const LoopbackOrigin&) = delete;
  LoopbackOrigin& operator=(const LoopbackOrigin&) = delete;
  ~LoopbackOrigin() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  /// "http://127.0.0.1:PORT", to be followed by a path.
  [[nodiscard]] std::string url() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct Shared {
    Handler handler;
    double bytes_per_second;
    std::mutex mutex;
    Clock::time_point free_at;  ///< when the bytes that were let through so far are paid for
  };

  /// One connection. Its operations follow one another, so it needs no lock.
  class Session : public std::enable_shared_from_this<Session> {
   public:
    Session(asio::ip::tcp::socket socket, Shared& shared)
        : socket_(std::move(socket)), timer_(socket_.get_executor()), shared_(shared), in_(max_head) {}

    void read_request() {
      asio::async_read_until(socket_, in_, "\r\n\r\n",
                             [self = shared_from_this()](asio::error_code error, std::size_t n) {
                               if (!error) self->answer(n);
                             });
    }

   private:
    static constexpr std::size_t max_head = 64 * 1024;
    static constexpr std::size_t piece = 128 * 1024;

    void answer(std::size_t head_size) {
      const auto* data = static_cast<const char*>(in_.data().data());
      const Request request = parse(std::string_view(data, head_size));
      in_.consume(head_size);
      const bool known = request.method == "GET" || request.method == "HEAD";
      reply_ = known ? shared_.handler(request) : Reply::of("no such method\n", 405);
      offset_ = 0;
      end_ = reply_.length;
      if (reply_.status == 200) cut_to_range(request);
      if (request.method == "HEAD") end_ = offset_;
      const auto connection = request.headers.find("connection");
      close_ = connection != request.headers.end() && connection->second == "close";
      sent_ = 0;
      write(head(), false);
    }

    static Request parse(std::string_view head) {
      Request request;
      const auto next_line = [&head] {
        const std::size_t end = head.find("\r\n");
        const std::string_view line = head.substr(0, end);
        head.remove_prefix(std::min(end + 2, head.size()));
        return line;
      };
      const std::string_view first = next_line();
      const std::size_t space = std::min(first.find(' '), first.size());
      request.method = first.substr(0, space);
      if (space < first.size()) {
        const std::string_view rest = first.substr(space + 1);
        request.target = rest.substr(0, rest.find(' '));
      }
      for (std::string_view line = next_line(); !line.empty(); line = next_line()) {
        const std::size_t colon = std::min(line.find(':'), line.size());
        std::string name(line.substr(0, colon));
        for (char& c : name) {
          if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        }
        line.remove_prefix(std::min(colon + 1, line.size()));
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        request.headers[name] = line;
      }
      return request;
    }

    /// RFC 9110, 14: one range of bytes; what is not understood is answered with the whole.
    void cut_to_range(const Request& request) {
      const auto range = request.headers.find("range");
      if (range == request.headers.end() || !range->second.starts_with("bytes=")) return;
      const auto condition = request.headers.find("if-range");
      if (condition != request.headers.end() && condition->second != reply_.etag) return;
      const char* at = range->second.data() + 6;
      const char* const stop = range->second.data() + range->second.size();
      std::uint64_t first = 0;
      std::uint64_t last = reply_.length > 0 ? reply_.length - 1 : 0;
      const auto [dash, error] = std::from_chars(at, stop, first);
      if (error != std::errc() || dash == stop || *dash != '-') return;
      if (dash + 1 != stop) {
        std::uint64_t asked = 0;
        const auto [tail, bad] = std::from_chars(dash + 1, stop, asked);
        if (bad != std::errc() || tail != stop || asked < first) return;
        last = std::min(last, asked);
      }
      if (first >= reply_.length) {
        reply_.headers.emplace_back("Content-Range", "bytes */" + std::to_string(reply_.length));
        reply_.status = 416;
        offset_ = end_ = 0;
        return;
      }
      reply_.status = 206;
      reply_.headers.emplace_back("Content-Range", "bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
                                                       std::to_string(reply_.length));
      offset_ = first;
      end_ = last + 1;
    }

    std::string head() const {
      const bool partial = reply_.status == 206;
      const std::uint64_t length = partial ? end_ - offset_ : reply_.status == 416 ? 0 : reply_.length;
      std::string text = "HTTP/1.1 " + std::to_string(reply_.status) + " \r\n";
      text += "Content-Length: " + std::to_string(length) + "\r\n";
      if (!reply_.etag.empty()) text += "ETag: " + reply_.etag + "\r\nAccept-Ranges: bytes\r\n";
      for (const auto& [name, value] : reply_.headers) text.append(name).append(": ").append(value).append("\r\n");
      return text + "\r\n";
    }

    /// Sends `text` (the head) or the next piece of the body, and goes on until all of it is out.
    void write(std::string text, bool paid) {
      out_.assign(text.begin(), text.end());
      std::uint64_t room = std::min<std::uint64_t>(end_ - offset_, piece);
      if (reply_.reset_after) room = std::min(room, *reply_.reset_after - std::min(sent_, *reply_.reset_after));
      if (!paid && wait_turn(room, text)) return;
      const std::size_t head_size = out_.size();
      out_.resize(head_size + static_cast<std::size_t>(room));
      if (room > 0) reply_.fill(offset_, std::span(out_).subspan(head_size));
      offset_ += room;
      sent_ += room;
      asio::async_write(socket_, asio::buffer(out_), [self = shared_from_this()](asio::error_code error, std::size_t) {
        if (!error) self->written();
      });
    }

    /// Where the rate says "not yet": comes back to `write` when it is time, and returns true.
    bool wait_turn(std::uint64_t bytes, const std::string& text) {
      if (shared_.bytes_per_second <= 0 || bytes == 0) return false;
      Clock::duration cost = std::chrono::duration_cast<Clock::duration>(
          std::chrono::duration<double>(static_cast<double>(bytes) / shared_.bytes_per_second));
      Clock::time_point turn;
      {
        const std::lock_guard lock(shared_.mutex);
        turn = std::max(shared_.free_at, Clock::now());
        shared_.free_at = turn + cost;
      }
      if (turn <= Clock::now()) return false;
      timer_.expires_at(turn);
      timer_.async_wait([self = shared_from_this(), text](asio::error_code error) {
        if (!error) self->write(text, true);
      });
      return true;
    }

    void written() {
      asio::error_code ignored;
      if (reply_.reset_after && sent_ >= *reply_.reset_after) {
        socket_.set_option(asio::socket_base::linger(true, 0), ignored);  // makes close send a RST
        socket_.close(ignored);
      } else if (offset_ < end_) {
        write({}, false);
      } else if (close_) {
        socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
      } else {
        read_request();
      }
    }

    asio::ip::tcp::socket socket_;
    asio::steady_timer timer_;
    Shared& shared_;
    asio::streambuf in_;
    Reply reply_;
    std::uint64_t offset_ = 0;  ///< of the next byte of the body
    std::uint64_t end_ = 0;
    std::uint64_t sent_ = 0;  ///< bytes of the body that went out in this reply
    bool close_ = false;
    std::vector<char> out_;
  };

  void accept() {
    acceptor_.async_accept([this](asio::error_code error, asio::ip::tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error) {
        asio::error_code ignored;
        socket.set_option(asio::ip::tcp::no_delay(true), ignored);
        std::make_shared<Session>(std::move(socket), shared_)->read_request();
      }
      accept();
    });
  }

  Shared shared_;
  asio::io_context context_;
  asio::ip::tcp::acceptor acceptor_;
  std::vector<std::thread> threads_;
};

}  // namespace support
