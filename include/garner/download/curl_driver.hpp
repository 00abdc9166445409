// SPDX-License-Identifier: BSL-1.0
//
// Drives one libcurl multi handle from one Asio io_context: its sockets, its timer and nothing else. What the
// transfers are, and what becomes of those that end, is told by whoever owns it.
#pragma once

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "garner/error.hpp"

namespace garner::detail {

/// `curl_multi_socket_action` on Asio. Used on the io_context's one thread only, and destroyed when no handler of its
/// will run any more. A socket stays registered with Asio until libcurl closes it, not only while a transfer uses it.
class CurlDriver {
 public:
  /// `after` is called whenever transfers may have ended.
  CurlDriver(asio::io_context& io, std::function<void()> after)
      : io_(io), after_(std::move(after)), timer_(io), multi_(curl_multi_init()) {
    if (multi_ == nullptr) throw Error(std::make_error_code(std::errc::not_enough_memory), "libcurl");
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &CurlDriver::on_socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &CurlDriver::on_timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  }
  CurlDriver(const CurlDriver&) = delete;
  CurlDriver& operator=(const CurlDriver&) = delete;
  ~CurlDriver() { shut_down(); }

  /// Closes all connections. No easy handle may be left in the multi handle.
  void shut_down() noexcept {
    if (multi_ == nullptr) return;
    curl_multi_cleanup(std::exchange(multi_, nullptr));
    while (!sockets_.empty()) drop(sockets_.begin()->first);
    due_.reset();
    sleep_no_longer();
  }

  [[nodiscard]] CURLM* multi() const { return multi_; }

  /// A new socket, for `CURLOPT_OPENSOCKETFUNCTION`; -1 with `errno` where there is none.
  int open_socket(int family, int type, int protocol) {
    const int fd = ::socket(family, type | SOCK_CLOEXEC, protocol);
    if (fd >= 0 && add(fd, true) == nullptr) {
      const int why = errno;
      ::close(fd);
      errno = why;
      return -1;
    }
    return fd;
  }

  /// `CURLOPT_CLOSESOCKETFUNCTION`; its data is the driver.
  static int close_socket(void* self, curl_socket_t fd) noexcept {
    static_cast<CurlDriver*>(self)->drop(fd);
    return ::close(fd);
  }

  /// The transfer of `easy` has ended and is still in the multi handle: its connection, if libcurl has kept it, stands.
  void keep_connection(CURL* easy) noexcept {
    curl_socket_t fd = CURL_SOCKET_BAD;
    if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK) return;
    if (const auto found = sockets_.find(fd); found != sockets_.end()) found->second->stands = true;
  }

  /// Lets go of the sockets that libcurl has closed without a word. Not inside a call of libcurl.
  void sweep() noexcept {
    for (auto at = sockets_.begin(); at != sockets_.end();) {
      const Socket& socket = *(at++)->second;
      if (socket.wanted == 0 && !socket.stands) drop(socket.fd);
    }
  }

  /// Nothing is going on: an alarm that nobody waits for is taken back, so that an idle loop never wakes.
  void rest() noexcept {
    if (!due_) sleep_no_longer();
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// Asio has a duplicate of the descriptor, so that each side closes its own: libcurl 7.88 closes a connection that
  /// it gives up before it stands without a word to `CURLOPT_CLOSESOCKETFUNCTION`, and the number may be another
  /// file's by the time that we hear of it.
  struct Socket {
    Socket(asio::io_context& io, int number, int duplicate, bool opened_here)
        : fd(number), ours(opened_here), descriptor(io, duplicate) {}

    int fd;  // libcurl's
    bool ours;
    bool stands = false;   // libcurl keeps it in its cache, and will say when it closes it
    int wanted = 0;        // CURL_POLL_IN, CURL_POLL_OUT or both
    bool reading = false;  // a wait is pending; it may outlive the wish and serve the next one
    bool writing = false;
    asio::posix::stream_descriptor descriptor;
  };
  using SocketPtr = std::shared_ptr<Socket>;

  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept {
    auto& driver = *static_cast<CurlDriver*>(self);
    const auto found = driver.sockets_.find(fd);
    if (what == CURL_POLL_REMOVE) {
      if (found == driver.sockets_.end()) return 0;
      found->second->wanted = 0;
      if (!found->second->ours) driver.drop(fd);
      return 0;
    }
    // One that we did not open: libcurl's resolver has such. Without a descriptor it falls back to its timer.
    const SocketPtr socket = found != driver.sockets_.end() ? found->second : driver.add(fd, false);
    if (socket == nullptr) return 0;
    socket->wanted = what;
    driver.wait(socket);
    return 0;
  }

  /// Null with `errno` where there are no more descriptors.
  SocketPtr add(int fd, bool ours) {
    drop(fd);  // one of that number would be left from a connection that never stood
    const int duplicate = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) return nullptr;
    auto socket = std::make_shared<Socket>(io_, fd, duplicate, ours);
    sockets_[fd] = socket;
    return socket;
  }

  /// Not left to a destructor: a pending wait keeps the object, and is ended by this.
  void drop(int fd) noexcept {
    const auto found = sockets_.find(fd);
    if (found == sockets_.end()) return;
    // Not `close`: that relies on the kernel to forget a descriptor, which it does not while libcurl's is open.
    ::close(found->second->descriptor.release());
    sockets_.erase(found);
  }

  void wait(const SocketPtr& socket) {
    if ((socket->wanted & CURL_POLL_IN) != 0 && !socket->reading) {
      socket->reading = true;
      socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                    [this, socket](const std::error_code& error) {
                                      socket->reading = false;
                                      on_event(socket, error, CURL_POLL_IN, CURL_CSELECT_IN);
                                    });
    }
    if ((socket->wanted & CURL_POLL_OUT) != 0 && !socket->writing) {
      socket->writing = true;
      socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                                    [this, socket](const std::error_code& error) {
                                      socket->writing = false;
                                      on_event(socket, error, CURL_POLL_OUT, CURL_CSELECT_OUT);
                                    });
    }
  }

  void on_event(const SocketPtr& socket, const std::error_code& error, int wish, int event) {
    if (!socket->descriptor.is_open() || (socket->wanted & wish) == 0) return;
    act(socket->fd, error ? CURL_CSELECT_ERR : event);
    if (socket->descriptor.is_open()) wait(socket);
    after_();
  }

  static int on_timer(CURLM*, long milliseconds, void* self) noexcept {
    auto& driver = *static_cast<CurlDriver*>(self);
    driver.due_.reset();
    if (milliseconds == 0) {
      driver.act_soon();
    } else if (milliseconds > 0) {
      driver.due_ = Clock::now() + std::chrono::milliseconds(milliseconds);
      driver.sleep();
    }
    return 0;
  }

  /// Posted, not put through the timer: most of libcurl's timeouts are zero, and a timer costs system calls.
  void act_soon() {
    if (std::exchange(acting_soon_, true)) return;
    asio::post(io_, [this] {
      acting_soon_ = false;
      if (multi_ == nullptr) return;
      act(CURL_SOCKET_TIMEOUT, 0);
      after_();
    });
  }

  /// An alarm that is set for earlier stays and is set anew when it rings: libcurl moves its timeout with each request.
  void sleep() {
    if (alarm_ && *alarm_ <= *due_) return;
    alarm_ = due_;
    timer_.expires_at(*alarm_);
    timer_.async_wait([this, rings = *alarm_](const std::error_code& error) {
      if (error || alarm_ != rings) return;
      alarm_.reset();
      if (!due_) return;
      if (Clock::now() < *due_) return sleep();
      due_.reset();
      act(CURL_SOCKET_TIMEOUT, 0);
      after_();
    });
  }

  void sleep_no_longer() noexcept {
    if (!alarm_) return;
    alarm_.reset();
    try {
      timer_.cancel();
    } catch (const std::system_error&) {
      // It rings once more, for nothing.
    }
  }

  void act(curl_socket_t socket, int events) {
    int running = 0;
    curl_multi_socket_action(multi_, socket, events, &running);
  }

  asio::io_context& io_;
  std::function<void()> after_;
  asio::steady_timer timer_;
  CURLM* multi_;
  std::unordered_map<curl_socket_t, SocketPtr> sockets_;
  std::optional<Clock::time_point> due_;    // when libcurl wants to be called
  std::optional<Clock::time_point> alarm_;  // what the timer is set to; never later than `due_`
  bool acting_soon_ = false;
};

}  // namespace garner::detail
