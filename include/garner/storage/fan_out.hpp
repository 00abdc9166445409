// SPDX-License-Identifier: BSL-1.0
//
// Work that is spread over a few threads, whose results one thread takes: for a scan of many directories, which waits
// for the disk or parses names, while whoever is told of them need not be thread-safe.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace garner::detail {

/// Calls `work(item, give)` for each of `items` on at most `most` threads, and `take(result)` on this one for each
/// result that was given, `bool give(Result)` in any number for each item. What was not taken yet waits in a queue that
/// is short, so that memory does not grow with the items.
///
/// Ends when all is done, or when `take` returns false: nothing is taken then any more, and `give` returns false, too.
/// What `work` or `take` throws is thrown when all threads have ended. Where no thread can be made, this one works.
template <class Result>
class FanOut {
 public:
  template <class Item, class Work, class Take>
  static void run(std::span<const Item> items, std::size_t most, const Work& work, const Take& take) {
    FanOut fan_out;
    const Join join{fan_out};
    for (std::size_t i = 0; i < std::min(most, items.size()); ++i) {
      if (!fan_out.start([&] { fan_out.work_on(items, work); })) break;
    }
    if (!fan_out.threads_.empty()) return fan_out.take_all(take);
    bool goes_on = true;
    for (std::size_t i = 0; goes_on && i < items.size(); ++i) {
      work(items[i], [&](Result result) { return goes_on = goes_on && take(std::move(result)); });
    }
  }

 private:
  static constexpr std::size_t most_waiting = 64;

  struct Join {
    FanOut& fan_out;
    ~Join() { fan_out.stop(); }
  };

  template <class Run>
  bool start(const Run& run) {
    threads_.reserve(threads_.size() + 1);
    try {
      threads_.emplace_back(run);
    } catch (const std::system_error&) {
      return false;
    }
    const std::lock_guard lock(mutex_);
    ++working_;
    return true;
  }

  template <class Item, class Work>
  void work_on(std::span<const Item> items, const Work& work) {
    std::unique_lock lock(mutex_);
    try {
      while (!stopped_ && next_ < items.size()) {
        const Item& item = items[next_++];
        lock.unlock();
        work(item, [this](Result result) { return give(std::move(result)); });
        lock.lock();
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      thrown_ = std::current_exception();
      stopped_ = true;
    }
    ++ended_;
    changed_.notify_all();
  }

  bool give(Result result) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_ || results_.size() < most_waiting; });
    if (stopped_) return false;
    results_.push_back(std::move(result));
    changed_.notify_all();
    return true;
  }

  template <class Take>
  void take_all(const Take& take) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopped_ || !results_.empty() || ended_ == working_; });
      if (thrown_) std::rethrow_exception(thrown_);
      if (results_.empty()) return;
      Result result = std::move(results_.front());
      results_.pop_front();
      changed_.notify_all();
      lock.unlock();
      if (!take(std::move(result))) return;
      lock.lock();
    }
  }

  void stop() noexcept {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;  ///< guards the rest
  std::condition_variable changed_;
  std::deque<Result> results_;
  std::exception_ptr thrown_;
  std::size_t next_ = 0;     ///< item
  std::size_t working_ = 0;  ///< threads
  std::size_t ended_ = 0;    ///< of them
  bool stopped_ = false;
};

}  // namespace garner::detail
