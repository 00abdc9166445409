// SPDX-License-Identifier: BSL-1.0
//
// Threads that wait for the disk. A sync by itself costs a flush of the device, and syncs that run at the same time
// share it: so what several syncs are needed for is given to several threads. What is synced, and in which order, is
// the store's matter.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace garner::detail {

/// Threads are made when there is first something for them to do, at most as many as were asked for, and sleep in
/// between.
///
/// Thread-safety: `run` from any number of threads. Lifetime: destroyed when no `run` is under way.
class SyncThreads {
 public:
  explicit SyncThreads(std::size_t most) : most_(most) {}
  SyncThreads(const SyncThreads&) = delete;
  SyncThreads& operator=(const SyncThreads&) = delete;
  ~SyncThreads() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      work_came_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  /// Calls `work(i)` once for each `i` below `count`, in any order, some by this thread; returns when all have ended.
  /// Throws what the first of them threw. Where no thread can be made this one does everything.
  void run(std::size_t count, const std::function<void(std::size_t)>& work) {
    if (count == 0) return;
    Batch batch{count, work};
    std::unique_lock lock(mutex_);
    batches_.push_back(&batch);
    add_threads(count - 1);
    for (std::size_t i = 1; i < std::min(count, most_ + 1); ++i) work_came_.notify_one();
    while (batch.next < batch.count) do_next(batch, lock);
    batch.all_ended.wait(lock, [&] { return batch.ended == batch.count; });
    if (batch.thrown) std::rethrow_exception(batch.thrown);
  }

 private:
  struct Batch {
    const std::size_t count;
    const std::function<void(std::size_t)>& work;
    std::size_t next = 0;
    std::size_t ended = 0;
    std::exception_ptr thrown = nullptr;
    std::condition_variable all_ended{};
  };

  /// So that `more` are idle, if that many may be.
  void add_threads(std::size_t more) {
    try {
      while (idle_ < more && threads_.size() < most_) {
        threads_.reserve(threads_.size() + 1);
        threads_.emplace_back([this] { serve(); });
        ++idle_;  // from now on; it cannot look before the lock is let go
      }
    } catch (const std::exception&) {
      return;  // those that there are do it
    }
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_came_.wait(lock, [this] { return ended_ || !batches_.empty(); });
      if (ended_) return;
      --idle_;
      while (!batches_.empty()) do_next(*batches_.front(), lock);
      ++idle_;
    }
  }

  /// One of its pieces, of which there is one.
  void do_next(Batch& batch, std::unique_lock<std::mutex>& lock) {
    const std::size_t i = batch.next++;
    if (batch.next == batch.count) std::erase(batches_, &batch);
    lock.unlock();
    std::exception_ptr thrown;
    try {
      batch.work(i);
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    if (thrown && !batch.thrown) batch.thrown = thrown;
    if (++batch.ended == batch.count) batch.all_ended.notify_one();
  }

  const std::size_t most_;
  std::mutex mutex_;  ///< guards the rest
  std::condition_variable work_came_;
  std::deque<Batch*> batches_;  ///< with pieces that nobody has begun
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool ended_ = false;
};

}  // namespace garner::detail
