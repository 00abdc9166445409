// SPDX-License-Identifier: BSL-1.0
//
// SIGINT and SIGTERM as something to wait for. Blocked in all threads and read from a descriptor, so no code
// runs in a signal handler.
#pragma once

#include <chrono>

namespace worker {

class Signals {
 public:
  /// Blocks the signals. To be made before any thread is started, since threads inherit what is blocked. Also
  /// ignores SIGPIPE: a reader that goes away is an error of the write.
  Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals();

  /// Waits until a signal has come, or for `timeout`. True from the first signal on. After that one a second
  /// signal ends the process at once, as if this class were not there.
  bool wait(std::chrono::milliseconds timeout);

 private:
  int descriptor_;
  bool received_ = false;
};

}  // namespace worker
