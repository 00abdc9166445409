// SPDX-License-Identifier: BSL-1.0
//
// DownloadManager: named files from URLs into a directory, without a data manager: no chunks, no store, no state. How
// one file is fetched is in file_download.hpp.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/schedule.hpp"
#include "garner/download/file_download.hpp"
#include "garner/error.hpp"
#include "garner/execution/executor_ref.hpp"
#include "garner/execution/task_pool.hpp"
#include "garner/policies/downloader.hpp"
#include "garner/policies/executor.hpp"
#include "garner/status.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/filesystem_storage.hpp"
#include "garner/storage/posix_file_system.hpp"

namespace garner {

/// One call of a `DownloadManager`. Copies refer to the same call. Thread-safety: every member from any thread. May
/// outlive the manager, which ends the call first; with an executor that is driven nobody may be in `wait` then.
/// Dropping it changes nothing.
class DownloadHandle {
 public:
  /// Until all files are done; drives the executor meanwhile where it has no threads. False where `timeout`, by that
  /// executor's clock, is over before.
  bool wait(std::chrono::nanoseconds timeout = for_ever) const {
    std::unique_lock lock(state_->mutex);
    const auto all = [this] { return state_->left == 0; };
    if (!state_->drive || all()) return state_->changed.wait_for(lock, std::min(timeout, for_ever), all);
    lock.unlock();
    return state_->drive(std::min(timeout, for_ever));
  }

  /// Of all files, by name.
  [[nodiscard]] std::vector<DownloadStatus> status() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->files;
  }
  /// Waits, and tells whether all files are there.
  [[nodiscard]] bool succeeded() const {
    wait();
    const std::scoped_lock lock(state_->mutex);
    return std::all_of(state_->files.begin(), state_->files.end(),
                       [](const DownloadStatus& file) { return file.done && !file.error; });
  }

  /// What is not done ends soon with `errc::cancelled`. Does not wait for it.
  void cancel() const { state_->cancel(); }

 private:
  template <class, class, class>
  friend class DownloadManager;

  static constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);

  explicit DownloadHandle(std::shared_ptr<detail::DownloadState> state) : state_(std::move(state)) {}

  std::shared_ptr<detail::DownloadState> state_;
};

/// Fetches files into directories. What stands under a file's name is whole, has the size and the digest that its
/// source demands, and, with `Durability::full`, is durable once the file is done; until then it is called
/// ".{name}.part" there, and it is removed where the download fails. What an earlier process left of that name is taken
/// away.
///
/// Of a file's mirrors the next is tried at once where one fails, and it goes on where that stopped if the bytes are
/// certain to be the same ones. After some rounds (`DownloadOptions::attempts`) the last error is the result. Errors of
/// the directory end a file at once: `std::errc::file_exists` where its name is taken (nothing is ever replaced, and
/// nothing fetched then), `errc::directory_in_use` where another download of it is under way, `errc::no_space`,
/// `errc::sync_failed`.
///
/// Thread-safety: every member from any thread. Calls do not wait for the network.
/// Object lifetimes: owns its policies; the destructor cancels all that is under way, waits for its end, and must not
/// run inside of a task or a callback of the manager.
template <class D, class E, class F>
class DownloadManager {
  static_assert(diagnose_downloader<D>() && diagnose_executor<E>());
  static_assert(FileSystem<F>, "garner: the third parameter of a DownloadManager must be a FileSystem.");

 public:
  /// File name -> where from. Names as those of a chunk's files, of 249 bytes at most; unique but for case.
  using Files = std::map<std::string, FileSource>;
  /// Takes what is known of a file whenever that has changed: on the downloader's threads, so it must not block; of one
  /// file in order.
  using OnProgress = std::function<void(const DownloadStatus&)>;
  /// Opens a directory.
  using Open = std::function<F(const std::filesystem::path&, std::error_code&)>;

  /// With the default policies, or those that are made like them.
  explicit DownloadManager(const DownloadOptions& options = {}) requires std::constructible_from<D, const Options&> &&
      std::default_initializable<E> && std::same_as<F, PosixFileSystem>
      : DownloadManager(D(to_options(options)), E(), options) {}
  /// With policies of one's own, into directories of the system, which are made where missing.
  DownloadManager(D downloader, E executor,
                  const DownloadOptions& options = {}) requires std::same_as<F, PosixFileSystem>
      : DownloadManager(std::move(downloader), std::move(executor), options, opener(options.durability)) {}
  /// Into what `open` opens.
  DownloadManager(D downloader, E executor, const DownloadOptions& options, Open open)
      : options_(options),
        open_(std::move(open)),
        random_(options.seed != 0 ? options.seed : std::random_device()()),
        executor_(std::move(executor)),
        loop_(ExecutorRef<E>(executor_), {1, {}}),
        pool_(ExecutorRef<E>(executor_), {std::max<std::size_t>(options.max_concurrent_tasks, 1), {}}),
        downloader_(std::move(downloader)),
        hooks_{downloader_,
               executor_,
               options_,
               [this](bool batched, const Task& work) { spawn(batched, work); },
               [this](std::uint64_t round, std::optional<std::chrono::nanoseconds> asked) {
                 const std::scoped_lock lock(mutex_);
                 return core::retry_delay(to_options(options_), ErrorClass::transient, asked, round, random_);
               },
               [this] { ended(); }} {}
  DownloadManager(const DownloadManager&) = delete;
  DownloadManager& operator=(const DownloadManager&) = delete;
  ~DownloadManager() {
    std::vector<std::weak_ptr<detail::DownloadState>> calls;
    {
      const std::scoped_lock lock(mutex_);
      calls = calls_;
    }
    for (const auto& call : calls) {
      if (const auto state = call.lock()) state->cancel();
    }
    while (!wait(std::chrono::hours(1), mutex_, [this] { return under_way_ == 0; })) {
    }
    // What begins or cancels a transfer may still be in the downloader.
    loop_.stop();
    pool_.stop();
    for (const auto& call : calls) {
      const auto state = call.lock();
      if (!state) continue;
      const std::scoped_lock lock(state->cancelling);
      state->jobs.clear();
    }
  }

  /// Fetches `files` into `directory`, interleaved: what is done on the executor (opening, checking, syncing) is done
  /// for one file at a time. Throws `Error` where a file is invalid or the directory does not open; nothing is fetched
  /// then.
  DownloadHandle batch_download(const Files& files, const std::filesystem::path& directory,
                                OnProgress on_progress = {}) {
    return download(files, directory, std::move(on_progress), true);
  }
  /// The same, and that work is spread over a task pool, several files at a time: for large files and slow syncs.
  DownloadHandle pool_download(const Files& files, const std::filesystem::path& directory,
                               OnProgress on_progress = {}) {
    return download(files, directory, std::move(on_progress), false);
  }

 private:
  using Job = detail::FileDownload<D, E, F>;

  static Options to_options(const DownloadOptions& options) {
    Options out;
    out.max_concurrent_files = options.max_concurrent_files;
    out.min_backoff = options.min_backoff;
    out.max_backoff = options.max_backoff;
    return out;
  }

  static Open opener(Durability durability) {
    return [durability](const std::filesystem::path& path, std::error_code& ec) {
      PosixFileSystem fs = PosixFileSystem::open(path, ec);
      if (ec != std::errc::no_such_file_or_directory) return fs;
      ec = detail::make_directories(fs.path(), durability);
      return ec ? std::move(fs) : PosixFileSystem::open(path, ec);
    };
  }

  void check(const Files& files) const {
    const auto invalid = [](std::error_code code, const std::string& name) {
      throw Error(code, "file '" + detail::printable(name) + "'");
    };
    std::set<std::string> folded;
    for (const auto& [name, source] : files) {
      if (const std::optional<Invalid> found = validate_file(name, source)) throw Error(found->code, found->subject);
      if (name.size() + Job::longer > 255) invalid(errc::invalid_file_name, name);
      if (!folded.insert(detail::fold_case(name)).second) invalid(errc::duplicate_file_name, name);
      for (const std::string& url : source.urls) {
        if (const std::error_code error = downloader_.check_url(url)) {
          throw Error(error, "file '" + name + "', URL '" + redact_url(url) + "'");
        }
      }
    }
  }

  DownloadHandle download(const Files& files, const std::filesystem::path& directory, OnProgress on_progress,
                          bool batched) {
    check(files);
    std::error_code ec;
    auto fs = std::make_shared<F>(open_(directory, ec));
    if (ec) throw Error(ec, directory.string());
    auto state = std::make_shared<detail::DownloadState>();
    state->on_progress = std::move(on_progress);
    if constexpr (DrivenExecutor<E>) {
      state->drive = [this, call = state.get()](std::chrono::nanoseconds timeout) {
        return wait(timeout, call->mutex, [call] { return call->left == 0; });
      };
    }
    std::vector<std::shared_ptr<Job>> jobs;
    for (const auto& [name, source] : files) {
      jobs.push_back(std::make_shared<Job>(hooks_, fs, state, jobs.size(), name, source, batched));
      state->files.push_back({name, 0, source.size, false, {}, {}});
    }
    state->left = jobs.size();
    state->jobs.assign(jobs.begin(), jobs.end());
    {
      const std::scoped_lock lock(mutex_);
      std::erase_if(calls_, [](const auto& call) { return call.expired(); });
      calls_.push_back(state);
      under_way_ += jobs.size();
      queue_.insert(queue_.end(), jobs.begin(), jobs.end());
    }
    begin_next();
    return DownloadHandle(state);
  }

  void begin_next() {
    while (true) {
      std::shared_ptr<Job> job;
      {
        const std::scoped_lock lock(mutex_);
        if (queue_.empty() || running_ >= std::max<std::size_t>(options_.max_concurrent_files, 1)) return;
        job = std::move(queue_.front());
        queue_.pop_front();
        ++running_;
      }
      job->begin();
    }
  }

  void ended() {
    {
      const std::scoped_lock lock(mutex_);
      --running_;
    }
    begin_next();
    // Under the lock to the end: after it, the manager may end.
    const std::scoped_lock lock(mutex_);
    if (--under_way_ == 0) changed_.notify_all();
  }

  /// What the executor refuses is done on this thread.
  void spawn(bool batched, const Task& work) {
    if (detail::guarded([&] { (batched ? loop_ : pool_).forget(work); })) work();
  }

  /// Until `done()`, which is asked under the lock of `mutex`; drives the executor meanwhile where it has no threads.
  template <class Done>
  bool wait(std::chrono::nanoseconds timeout, std::mutex& mutex, const Done& done) {
    if constexpr (DrivenExecutor<E>) {
      const Instant until = executor_.now() + timeout;
      while (true) {
        {
          const std::scoped_lock lock(mutex);
          if (done()) return true;
        }
        if (executor_.run_one_until(until)) continue;
        const std::scoped_lock lock(mutex);
        return done();
      }
    } else {
      std::unique_lock lock(mutex);
      return changed_.wait_for(lock, timeout, done);
    }
  }

  const DownloadOptions options_;
  const Open open_;

  std::mutex mutex_;  // guards the next six
  std::condition_variable changed_;
  core::Random random_{0};
  std::deque<std::shared_ptr<Job>> queue_;  // files that have not begun
  std::size_t running_ = 0;                 // those that have
  std::size_t under_way_ = 0;               // both
  std::vector<std::weak_ptr<detail::DownloadState>> calls_;

  // In this order: what a downloader and a pool still have to do needs what stands above them.
  E executor_;
  TaskPool<ExecutorRef<E>> loop_;
  TaskPool<ExecutorRef<E>> pool_;
  D downloader_;
  detail::DownloadHooks<D, E> hooks_;
};

template <class D, class E>
DownloadManager(D, E, DownloadOptions = {}) -> DownloadManager<D, E, PosixFileSystem>;

}  // namespace garner
