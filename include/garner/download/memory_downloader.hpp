// SPDX-License-Identifier: BSL-1.0
//
// MemoryDownloader: a Downloader whose network is a map of URL to bytes, with faults to order. Standard library only;
// for tests, and for programs whose data comes with them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"

namespace garner {

namespace detail {
class MemoryWork;
}

/// Where a `MemoryDownloader` has its bytes from. A handle: copies share one map, and any number of downloaders can
/// use it while it changes.
///
/// Thread-safety: every member from any thread. A transfer sees the file as it was when the transfer began.
class MemoryOrigin {
 public:
  /// Ends a transfer from outside.
  struct Fault {
    std::error_code error = errc::connection_failed;
    std::uint64_t after_bytes = 0;  ///< sent before it; 0: nothing of the answer comes
    std::optional<std::chrono::nanoseconds> retry_after = std::nullopt;
  };

  /// Adds a file, or replaces it: then transfers from an offset on start over, where they say the ETag of the old one.
  /// An empty `etag` is made from the number of the replacement.
  void put(const std::string& url, std::string bytes, std::string etag = {}) {
    const std::lock_guard lock(shared_->mutex);
    if (etag.empty()) etag.append(1, '"').append(std::to_string(++shared_->versions)).append(1, '"');
    shared_->files[url] = {std::make_shared<const std::string>(std::move(bytes)), std::move(etag)};
  }
  /// From now on the URL is `errc::not_found`.
  void remove(const std::string& url) {
    const std::lock_guard lock(shared_->mutex);
    shared_->files.erase(url);
  }

  /// The next `times` transfers of `url` that begin end with `fault`.
  void fail(const std::string& url, Fault fault, std::size_t times = 1) {
    const std::lock_guard lock(shared_->mutex);
    shared_->faults[url].insert(shared_->faults[url].end(), times, fault);
  }

  /// Transfers of `url` stop after `after_bytes` of those that they were to send, until `release`.
  void hold(const std::string& url, std::uint64_t after_bytes = 0) {
    const std::lock_guard lock(shared_->mutex);
    shared_->held[url] = after_bytes;
  }
  /// Lets them go on: on this thread, where their downloader runs inline.
  void release(const std::string& url) {
    std::vector<std::function<void()>> waiting;
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->held.erase(url);
      waiting = std::exchange(shared_->waiting[url], {});
      shared_->waiting.erase(url);
    }
    for (const auto& resume : waiting) resume();
  }

  /// Transfers of `url`, or of all, that have begun.
  [[nodiscard]] std::size_t transfers(const std::string& url) const {
    const std::lock_guard lock(shared_->mutex);
    const auto found = shared_->transfers.find(url);
    return found == shared_->transfers.end() ? 0 : found->second;
  }
  [[nodiscard]] std::size_t transfers() const {
    const std::lock_guard lock(shared_->mutex);
    std::size_t all = 0;
    for (const auto& [url, count] : shared_->transfers) all += count;
    return all;
  }
  /// Bytes that sinks have taken.
  [[nodiscard]] std::uint64_t bytes() const { return shared_->bytes.load(); }

 private:
  friend class detail::MemoryWork;

  struct File {
    std::shared_ptr<const std::string> bytes;
    std::string etag;
  };

  struct Shared {
    std::mutex mutex;
    std::map<std::string, File> files;
    std::map<std::string, std::deque<Fault>> faults;
    std::map<std::string, std::uint64_t> held;
    std::map<std::string, std::vector<std::function<void()>>> waiting;  // to resume
    std::map<std::string, std::size_t> transfers;
    std::uint64_t versions = 0;
    std::atomic<std::uint64_t> bytes{0};
  };

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

namespace detail {

/// `http`, `https` or `mem`, and something after it.
inline std::error_code check_memory_url(std::string_view url) {
  const bool clean = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c <= '~'; });
  const std::size_t colon = url.find("://");
  if (!clean || colon == std::string_view::npos || colon == 0 || colon + 3 == url.size()) return errc::invalid_url;
  const std::string scheme = fold_case(url.substr(0, colon));
  if (scheme != "http" && scheme != "https" && scheme != "mem") return errc::scheme_not_allowed;
  return {};
}

/// The transfers of one downloader. Shared with what it has posted, which may come after its end.
class MemoryWork : public std::enable_shared_from_this<MemoryWork> {
 public:
  using Poster = std::function<void(std::function<void()>)>;

  struct Job {
    enum class State : std::uint8_t { waiting, running, ended };
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
    State state = State::waiting;  // under the lock
    std::atomic<bool> cancelled{false};
    // Of the thread that runs it.
    bool begun = false;
    MemoryOrigin::File file;
    std::optional<MemoryOrigin::Fault> fault;
    std::uint64_t position = 0;
    std::uint64_t sent = 0;
  };
  using JobPtr = std::shared_ptr<Job>;

  MemoryWork(MemoryOrigin origin, Poster poster) : origin_(std::move(origin)), poster_(std::move(poster)) {}

  JobPtr start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    auto job = std::make_shared<Job>();
    job->request = std::move(request);
    job->sink = std::move(sink);
    {
      const std::lock_guard lock(mutex_);
      job->cancelled = stopped_;
      jobs_.push_back(job);
    }
    dispatch(job);
    return job;
  }

  void cancel(const JobPtr& job) {
    if (job->cancelled.exchange(true)) return;
    dispatch(job);  // where it is held; one that runs looks for itself
  }

  /// Ends all, and waits for what other threads are in.
  void stop() {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    while (!jobs_.empty()) {
      const JobPtr job = jobs_.front();
      job->cancelled = true;
      lock.unlock();
      run(job);
      lock.lock();
      left_.wait(lock, [&] { return job->state != Job::State::running; });
    }
  }

 private:
  void dispatch(const JobPtr& job) {
    if (!poster_) return run(job);
    poster_([self = shared_from_this(), job] { self->run(job); });
  }

  void run(const JobPtr& job) {
    {
      const std::lock_guard lock(mutex_);
      if (job->state != Job::State::waiting) return;
      job->state = Job::State::running;
    }
    FetchResult result;
    if (!step(*job, result)) return park(job);
    std::exchange(job->sink, nullptr)->done(result);
    const std::lock_guard lock(mutex_);
    job->state = Job::State::ended;
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), job));
    left_.notify_all();
  }

  /// Sends what may be sent. False: it is held.
  bool step(Job& job, FetchResult& result) {
    const auto end = [&](std::error_code error, int status) {
      result.error = error;
      result.http_status = status;
      if (error) result.detail = redact_url(job.request.url);
      return true;
    };
    if (job.cancelled) return end(errc::cancelled, 0);
    if (job.file.bytes == nullptr) {
      if (const std::error_code error = look_up(job)) return end(error, error == errc::not_found ? 404 : 0);
    }
    if (!job.begun) {
      if (job.fault && job.fault->after_bytes == 0) {
        result.retry_after = job.fault->retry_after;
        return end(job.fault->error, 0);
      }
      if (held_after(job.request.url) == 0) return false;
      job.begun = true;
      if (const std::error_code error = begin(job)) return end(error, status_of(job));
    }
    while (true) {
      if (job.cancelled) return end(errc::cancelled, status_of(job));
      const std::uint64_t left = job.file.bytes->size() - job.position;
      if (job.fault && (left == 0 || job.sent >= job.fault->after_bytes)) {
        result.retry_after = job.fault->retry_after;
        return end(job.fault->error, status_of(job));
      }
      const auto hold = held_after(job.request.url);
      if (hold && job.sent >= *hold) return false;
      if (left == 0) return end({}, status_of(job));
      std::uint64_t count = std::min(left, piece_bytes);
      if (hold) count = std::min(count, *hold - job.sent);
      if (job.fault) count = std::min(count, job.fault->after_bytes - job.sent);
      const auto piece = std::as_bytes(std::span(*job.file.bytes)).subspan(job.position, count);
      if (const std::error_code error = job.sink->write(piece)) return end(error, status_of(job));
      job.position += count;
      job.sent += count;
      origin_.shared_->bytes += count;
    }
  }

  static int status_of(const Job& job) { return job.position > 0 && job.request.offset > 0 ? 206 : 200; }

  std::error_code look_up(Job& job) {
    if (const std::error_code error = check_memory_url(job.request.url)) return error;
    const std::lock_guard lock(origin_.shared_->mutex);
    ++origin_.shared_->transfers[job.request.url];
    auto& faults = origin_.shared_->faults[job.request.url];
    if (!faults.empty()) {
      job.fault = faults.front();
      faults.pop_front();
    }
    const auto found = origin_.shared_->files.find(job.request.url);
    if (found != origin_.shared_->files.end()) {
      job.file = found->second;
      return {};
    }
    const bool unreachable = job.fault && job.fault->after_bytes == 0;
    return unreachable ? job.fault->error : errc::not_found;
  }

  /// As a server that knows `Range` and `If-Range` does.
  static std::error_code begin(Job& job) {
    const std::uint64_t length = job.file.bytes->size();
    const SourceIdentity& held = job.request.identity;
    job.position = held.etag.empty() || held.etag == job.file.etag ? job.request.offset : 0;
    if (job.position > length) return errc::range_mismatch;
    if (job.request.size && length > *job.request.size) return errc::body_too_long;
    if (job.request.size && length < *job.request.size) return errc::body_too_short;
    return job.sink->begin(job.position, {length, job.file.etag, {}});
  }

  /// Where transfers of `url` are to stop, if they are.
  [[nodiscard]] std::optional<std::uint64_t> held_after(const std::string& url) const {
    const std::lock_guard lock(origin_.shared_->mutex);
    const auto found = origin_.shared_->held.find(url);
    return found == origin_.shared_->held.end() ? std::nullopt : std::optional(found->second);
  }

  /// Waits for `release`, or for a cancellation that came meanwhile.
  void park(const JobPtr& job) {
    {
      const std::lock_guard lock(mutex_);
      job->state = Job::State::waiting;
      left_.notify_all();
    }
    bool again = job->cancelled;
    if (!again) {
      const std::lock_guard lock(origin_.shared_->mutex);
      const auto found = origin_.shared_->held.find(job->request.url);
      again = found == origin_.shared_->held.end() || found->second > job->sent;
      if (!again) {
        origin_.shared_->waiting[job->request.url].push_back(
            [weak = weak_from_this(), weak_job = std::weak_ptr<Job>(job)] {
              const auto self = weak.lock();
              const auto waiting = weak_job.lock();
              if (self != nullptr && waiting != nullptr) self->dispatch(waiting);
            });
      }
    }
    if (again) dispatch(job);
  }

  static constexpr std::uint64_t piece_bytes = 64 * 1024;

  MemoryOrigin origin_;
  Poster poster_;
  std::mutex mutex_;
  std::condition_variable left_;  // a thread has left a job
  std::vector<JobPtr> jobs_;
  bool stopped_ = false;
};

}  // namespace detail

/// Moves files out of a `MemoryOrigin`. URLs are `http`, `https` or `mem`, and are compared as text.
///
/// Thread-safety: every member from any thread. Where it was given a poster, transfers run as the tasks that it posts;
/// otherwise inside `start`, and one that is held inside `MemoryOrigin::release` or `cancel`.
/// Object lifetimes: the destructor cancels what has not ended, and returns after each `done`; not inside a sink. What
/// the poster was given may run, or be dropped, at any later time.
class MemoryDownloader {
 public:
  using Origin = MemoryOrigin;
  using Poster = std::function<void(std::function<void()>)>;

  /// Refers to one transfer; empty when default-constructed.
  class Transfer {
   public:
    Transfer() = default;

   private:
    friend class MemoryDownloader;
    explicit Transfer(const std::shared_ptr<detail::MemoryWork::Job>& job) : job_(job) {}

    std::weak_ptr<detail::MemoryWork::Job> job_;
  };

  explicit MemoryDownloader(Origin origin = {}, Poster poster = nullptr)
      : work_(std::make_shared<detail::MemoryWork>(std::move(origin), std::move(poster))) {}
  MemoryDownloader(MemoryDownloader&&) noexcept = default;
  MemoryDownloader& operator=(MemoryDownloader&&) = delete;
  ~MemoryDownloader() {
    if (work_ != nullptr) work_->stop();
  }

  [[nodiscard]] std::error_code check_url(std::string_view url) const { return detail::check_memory_url(url); }

  Transfer start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    return Transfer(work_->start(std::move(request), std::move(sink)));
  }

  void cancel(const Transfer& transfer) {
    if (const auto job = transfer.job_.lock()) work_->cancel(job);
  }

 private:
  std::shared_ptr<detail::MemoryWork> work_;
};

static_assert(diagnose_downloader<MemoryDownloader>());

}  // namespace garner
