// SPDX-License-Identifier: BSL-1.0
//
// One file of a DownloadManager on its way into a directory: a part under another name, mirrors in turn, rounds with
// backoff, the checks, and the rename at the end. What runs at the same time is decided in download_manager.hpp.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/schedule.hpp"
#include "garner/error.hpp"
#include "garner/manager/alarm.hpp"
#include "garner/manager/fetched_part.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/policies/downloader.hpp"
#include "garner/policies/executor.hpp"
#include "garner/status.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/incoming_file.hpp"

namespace garner {

/// One file of a download, at the moment of asking.
struct DownloadStatus {
  std::string name;
  std::uint64_t received = 0;             ///< bytes that are there; fewer again where it had to start over
  std::optional<std::uint64_t> expected;  ///< bytes, as the description or a server says
  bool done = false;
  std::error_code error;  ///< why it ended without a file; before that, why the last attempt failed
  std::string subject;    ///< beside `error`: the file, and the URL (redacted) or the directory
};

struct DownloadOptions {
  std::size_t max_concurrent_files = 8;  ///< being fetched, over all calls of a manager
  std::size_t max_concurrent_tasks = 4;  ///< of `pool_download`: files that are opened, checked or synced
  /// How often the mirrors of a file are tried, one after another, before its error is its result. After a round in
  /// which each mirror's answer was one that lasts (such as 403 and 404) there is no other.
  std::size_t attempts = 3;
  // Between two rounds: full jitter, uniform in [0, min(max_backoff, min_backoff * 2^round)). `Retry-After` is added,
  // as far as `max_backoff` allows.
  std::chrono::nanoseconds min_backoff = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max_backoff = std::chrono::seconds(10);
  Durability durability = Durability::full;  ///< full: a file that is done survives a power cut
  std::uint64_t seed = 0;                    ///< of the jitter; 0: a different one each time
};

namespace detail {

/// What can be told to stop. Thread-safe.
class DownloadJob {
 public:
  DownloadJob() = default;
  DownloadJob(const DownloadJob&) = delete;
  DownloadJob& operator=(const DownloadJob&) = delete;
  virtual ~DownloadJob() = default;
  virtual void cancel() = 0;
};

/// What a call's handle and its files share. Thread-safe.
struct DownloadState {
  std::function<void(const DownloadStatus&)> on_progress;
  std::function<bool(std::chrono::nanoseconds)> drive;  ///< until `left` is 0; none where the executor has threads

  std::recursive_mutex cancelling;                 ///< guards the next; a cancellation may call back
  std::vector<std::weak_ptr<DownloadJob>> jobs{};  ///< none once the manager is gone

  std::mutex mutex;  ///< guards the rest
  std::condition_variable changed;
  std::vector<DownloadStatus> files;
  std::size_t left = 0;  ///< that are not done

  void cancel() {
    const std::scoped_lock lock(cancelling);
    for (const auto& weak : jobs) {
      if (const auto job = weak.lock()) job->cancel();
    }
  }

  /// `change(status)` changes what is known of a file.
  template <class Change>
  void update(std::size_t file, const Change& change) {
    std::optional<DownloadStatus> told;
    {
      const std::scoped_lock lock(mutex);
      change(files[file]);
      if (on_progress) told = files[file];
    }
    if (told) guarded([&] { on_progress(*told); });
  }
};

/// What the files of a manager need of it. `spawn(batched, work)` runs work that may block; `ended` is the last call.
template <Downloader D, Executor E>
struct DownloadHooks {
  D& downloader;
  E& executor;
  const DownloadOptions& options;
  std::function<void(bool batched, Task work)> spawn;
  /// How long to wait after `round` rounds and one more, and what a server asked for.
  std::function<std::chrono::nanoseconds(std::uint64_t round, std::optional<std::chrono::nanoseconds> asked)> delay;
  std::function<void()> ended;
};

/// `begin` to end a chain of steps, one at a time: on the executor, and, for the bytes, on the downloader's thread.
template <Downloader D, Executor E, FileSystem F>
class FileDownload final : public FetchSink,
                           public DownloadJob,
                           public std::enable_shared_from_this<FileDownload<D, E, F>> {
 public:
  using Hooks = DownloadHooks<D, E>;

  /// File `index` of `state`, into the root of `fs`.
  FileDownload(const Hooks& hooks, std::shared_ptr<F> fs, std::shared_ptr<DownloadState> state, std::size_t index,
               std::string name, FileSource source, bool batched)
      : hooks_(hooks),
        fs_(std::move(fs)),
        state_(std::move(state)),
        index_(index),
        name_(std::move(name)),
        part_name_("." + name_ + ".part"),
        source_(std::move(source)),
        batched_(batched),
        alarm_(hooks.executor) {}

  /// Bytes that its part's name is longer than its own.
  static constexpr std::size_t longer = 6;

  void begin() { spawn(&FileDownload::attempt); }

  void cancel() override {
    std::optional<typename D::Transfer> transfer;
    bool was_waiting = false;
    {
      const std::scoped_lock lock(mutex_);
      cancelled_ = true;
      transfer = transfer_;
      was_waiting = alarm_.put_away();
    }
    if (transfer) guarded([&] { hooks_.downloader.cancel(*transfer); });
    if (was_waiting) spawn(&FileDownload::attempt);
  }

  std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) override {
    return guarded([&]() -> std::error_code {
      if (offset != file_->size()) {
        if (offset != 0) return errc::range_mismatch;
        if (const std::error_code error = restart()) return error;
      }
      part_.identity = identity;
      part_.url = redact_url(source_.urls[url_]);
      tell();
      return {};
    });
  }

  std::error_code write(std::span<const std::byte> bytes) override {
    const std::error_code error = guarded([&] { return file_->write(*fs_, bytes); });
    if (!error) tell();
    return error;
  }

  void done(const FetchResult& result) override {
    // Finishing syncs, and the thread that moves bytes is not to wait for that.
    result_ = result;
    spawn(&FileDownload::finish);
  }

 private:
  void spawn(void (FileDownload::*step)()) {
    hooks_.spawn(batched_, [self = this->shared_from_this(), step] { (self.get()->*step)(); });
  }

  void attempt() {
    std::uint64_t number = 0;
    {
      const std::scoped_lock lock(mutex_);
      if (!cancelled_) number = ++attempts_;
    }
    if (number == 0) return end(errc::cancelled, of_file());
    result_ = {};
    if (const std::error_code error = guarded([&] { return prepare(); })) return end(error, of_file());
    if (is_whole(source_, part_)) return finish();
    std::optional<typename D::Transfer> transfer;
    const std::error_code refused = guarded(
        [&] { transfer = hooks_.downloader.start(request_rest(source_, part_, url_), this->shared_from_this()); });
    if (refused) {
      result_.error = refused;
      return finish();
    }
    // From here on nothing but what the mutex guards is this thread's.
    {
      const std::scoped_lock lock(mutex_);
      // It may have ended already, and another one have begun.
      if (number != attempts_) return;
      transfer_ = transfer;
      if (!cancelled_) return;
    }
    // `cancel` came before there was anything to cancel.
    guarded([&] { hooks_.downloader.cancel(*transfer); });
  }

  /// So that bytes can be taken, from `part_.size` on.
  std::error_code prepare() {
    if (!file_) {
      if (const std::error_code error = open()) return error;
    }
    part_.size = file_->size();
    return part_.size == 0 || can_resume(source_, part_, redact_url(source_.urls[url_])) ? std::error_code()
                                                                                         : restart();
  }

  std::error_code open() {
    std::error_code ec;
    fs_->status(fs_->root(), name_, ec);
    const bool is_other = ec == std::errc::is_a_directory || ec == std::errc::too_many_symbolic_link_levels ||
                          ec == std::errc::invalid_argument;
    if (!ec || is_other) return std::make_error_code(std::errc::file_exists);
    if (ec != std::errc::no_such_file_or_directory) return ec;
    typename F::File file = fs_->create_file(fs_->root(), part_name_, ec);
    if (ec == std::errc::file_exists) {
      ec = take_away_left();
      if (!ec) file = fs_->create_file(fs_->root(), part_name_, ec);
    }
    if (ec) return ec;
    // Held until it has its name: nobody else takes it for what is left of an earlier run. Who did so before it was
    // held has unlinked it, or holds it.
    ec = fs_->lock(file);
    if (!ec && fs_->status(file, ec).links == 0 && !ec) ec = errc::directory_in_use;
    if (ec && ec != errc::directory_in_use) fs_->remove_file(fs_->root(), part_name_);
    if (ec) return ec;
    file_.emplace(std::move(file), source_);
    return file_->reserve(*fs_);
  }

  std::error_code take_away_left() {
    std::error_code ec;
    typename F::File left = fs_->open_file(fs_->root(), part_name_, Access::write, ec);
    if (!ec && fs_->lock(left) == errc::directory_in_use) return errc::directory_in_use;
    return fs_->remove_file(fs_->root(), part_name_);
  }

  std::error_code restart() {
    const std::error_code error = file_->restart(*fs_);
    part_ = {};
    tell();
    return error;
  }

  void finish() {
    {
      const std::scoped_lock lock(mutex_);
      transfer_.reset();
      ++attempts_;
    }
    std::error_code error = result_.error;
    if (!error) error = guarded([&] { return publish(); });
    if (!error) return end({}, {});
    const ErrorClass cls = classify(error);
    std::string subject = of_file();
    if (cls != ErrorClass::local && cls != ErrorClass::no_space) {
      subject =
          "file '" + name_ + "' from " + (result_.detail.empty() ? redact_url(source_.urls[url_]) : result_.detail);
    }
    bool goes_on = false;
    switch (cls) {
      case ErrorClass::wrong_bytes:
        if (const std::error_code failed = guarded([&] { return restart(); })) return end(failed, of_file());
        [[fallthrough]];
      case ErrorClass::transient: may_mend_ = true; [[fallthrough]];
      case ErrorClass::gone:
      case ErrorClass::credentials: goes_on = true; break;
      default: break;
    }
    if (!goes_on) return end(error, subject);
    state_->update(index_, [&](DownloadStatus& status) {
      status.error = error;
      status.subject = subject;
    });
    if (++url_ < source_.urls.size()) return spawn(&FileDownload::attempt);
    url_ = 0;
    if (++rounds_ >= hooks_.options.attempts || !std::exchange(may_mend_, false)) return end(error, subject);
    if (const std::error_code refused = guarded([&] { wait_for_next_round(); })) end(refused, of_file());
  }

  void wait_for_next_round() {
    const auto delay = hooks_.delay(rounds_ - 1, result_.retry_after);
    const std::scoped_lock lock(mutex_);
    const Instant at = hooks_.executor.now() + (cancelled_ ? std::chrono::nanoseconds{} : delay);
    alarm_.set(at, [self = this->shared_from_this()] { self->spawn(&FileDownload::attempt); });
  }

  /// Whole, checked, durable, and only then under its name.
  std::error_code publish() {
    FoundDigests found;
    if (const std::error_code error = file_->check(found)) return error;
    const bool syncs = hooks_.options.durability == Durability::full;
    if (syncs) {
      if (const std::error_code error = fs_->sync_file(file_->handle())) return error;
    }
    std::error_code error = fs_->rename(fs_->root(), part_name_, fs_->root(), name_);
    if (error) return error;
    error = fs_->close(file_->handle());
    file_.reset();
    if (!error && syncs) error = fs_->sync_directory(fs_->root());
    if (error) fs_->remove_file(fs_->root(), name_);
    return error;
  }

  /// With the file under its name, or with an error and nothing.
  void end(std::error_code error, const std::string& subject) {
    if (file_) {
      guarded([&] { return fs_->remove_file(fs_->root(), part_name_); });
      file_.reset();
    }
    state_->update(index_, [&](DownloadStatus& status) {
      status.done = true;
      status.error = error;
      status.subject = subject;
    });
    {
      const std::scoped_lock lock(state_->mutex);
      if (--state_->left == 0) state_->changed.notify_all();
    }
    hooks_.ended();
  }

  void tell() {
    state_->update(index_, [&](DownloadStatus& status) {
      status.received = file_->size();
      status.expected = source_.size ? source_.size : part_.identity.length;
    });
  }

  [[nodiscard]] std::string of_file() const { return "file '" + name_ + "' in " + fs_->path().string(); }

  const Hooks& hooks_;
  const std::shared_ptr<F> fs_;
  const std::shared_ptr<DownloadState> state_;
  const std::size_t index_;
  const std::string name_;
  const std::string part_name_;
  const FileSource source_;
  const bool batched_;

  // Of the step that runs.
  std::optional<IncomingFile<F>> file_;
  FetchedPart part_;
  FetchResult result_;
  std::size_t url_ = 0;
  std::size_t rounds_ = 0;  // over all mirrors, that are over
  bool may_mend_ = false;   // some mirror's error in this round

  std::mutex mutex_;  // guards the rest
  std::optional<typename D::Transfer> transfer_;
  std::uint64_t attempts_ = 0;
  Alarm<E> alarm_;
  bool cancelled_ = false;
};

}  // namespace detail

}  // namespace garner
