// SPDX-License-Identifier: BSL-1.0
//
// signalfd(2).
#include "signals.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>

namespace worker {

namespace {

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

Signals::Signals() {
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  descriptor_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
}

Signals::~Signals() { ::close(descriptor_); }

bool Signals::wait(std::chrono::milliseconds timeout) {
  if (received_) {
    std::this_thread::sleep_for(timeout);
    return true;
  }
  pollfd ready{descriptor_, POLLIN, 0};
  signalfd_siginfo info{};
  if (poll(&ready, 1, static_cast<int>(timeout.count())) == 1 &&
      read(descriptor_, &info, sizeof(info)) == sizeof(info)) {
    received_ = true;
    const sigset_t set = stop_signals();
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
  return received_;
}

}  // namespace worker
