// SPDX-License-Identifier: BSL-1.0
//
// The engine of a data manager: one lock around the state machine and the index, and everything that the
// state machine asks for, done outside of it. Calls and reports become inputs; the actions that come back are
// performed in their order by one task at a time, and what blocks gets a task of its own. What the executor
// refuses to take is kept, and is offered again or done by whoever comes next.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <system_error>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "garner/chunk_ref.hpp"
#include "garner/core/chunk_index.hpp"
#include "garner/core/chunk_table.hpp"
#include "garner/manager/alarm.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/manager/listing.hpp"
#include "garner/manager/observers.hpp"
#include "garner/manager/performer.hpp"
#include "garner/manager/recovery.hpp"
#include "garner/manager/tasks.hpp"
#include "garner/policies.hpp"
#include "garner/status.hpp"

namespace garner::detail {

template <Storage S, Downloader D, Executor E>
class Engine final : public DrainListener {
 public:
  Engine(S storage, D downloader, E executor, const Options& options)
      : max_files_(options.max_files),
        max_chunk_bytes_(options.max_chunk_bytes),
        executor_(std::move(executor)),
        host_(std::make_shared<PinHost<S>>(std::move(storage), this)),
        downloader_(std::move(downloader)),
        table_(options, options.seed != 0 ? options.seed : random_seed()),
        listing_(host_),
        performer_(*this, host_->storage, downloader_, options.checkpoint_bytes),
        recovery_(*this, host_->storage),
        alarm_(executor_) {
    start(options.startup);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() override {
    close();
    host_->detach();
  }

  /// Gives the state machine an input, and sees to what comes of it. From any thread; waits for nothing but
  /// the lock. `call(now)` runs under the lock.
  template <class Call>
  void input(Call&& call) {
    const Instant now = executor_.now();
    std::vector<std::shared_ptr<const void>> spent;
    std::vector<typename Listing<S>::Garbage> garbage;
    std::optional<Handle> due;
    {
      const std::scoped_lock lock(mutex_);
      call(now);
      spent.swap(table_.spent());
      take_actions();
      listing_.publish(garbage);
      if (!garbage.empty()) ++releasing_;
      due = note_progress();
    }
    if (due) tasks_.post(*due);
    if (garbage.empty()) return;
    // A pin that the index held may be the last on its generation: then this reports that it is drained.
    garbage.clear();
    {
      const std::scoped_lock lock(mutex_);
      --releasing_;
      due = note_progress();
    }
    if (due) tasks_.post(*due);
  }

  /// Runs `work()` on the executor; later, where that refuses it now. `close` waits for it.
  void spawn(Task work) {
    Handle task;
    {
      const std::scoped_lock lock(mutex_);
      task = tasks_.keep(std::move(work));
    }
    tasks_.post(task);
  }

  bool wait_converged(std::chrono::nanoseconds timeout) {
    bool converged = false;
    const auto done = [this, &converged] {
      converged = converged_;
      return converged_ || table_.closed() || table_.recovery_failed();
    };
    // Posts what was refused; and stands in for an alarm that was.
    wait(timeout, done, [this] { input([this](Instant now) { table_.woken(now); }); });
    return converged;
  }

  void close() {
    input([this](Instant now) { table_.close(now); });
    performer_.stop_reading();
    recovery_.stop();
    // An observer cannot wait for the task that it is called by, which may have the executor's only thread.
    if (observers_.is_observing()) return;
    const auto done = [this] { return closed_event_ && tasks_.empty() && alarms_ == 0; };
    // An executor that has been shut down before its manager may never take a task again.
    wait(std::chrono::nanoseconds::max(), done, [this] { tasks_.do_refused(); });
    performer_.transfers().clear();
  }

  [[nodiscard]] Status status() const {
    Status status;
    const Instant now = executor_.now();
    const Transfers<S, D>& transfers = performer_.transfers();
    status.bytes_received = transfers.received().total();
    status.bytes_per_second = transfers.received().per_second(now);
    status.bytes_resumed = transfers.resumed();
    status.bytes_wasted = transfers.wasted();
    const StoreUsage usage = performer_.usage();
    std::tie(status.store_bytes_used, status.store_bytes_free) = std::pair(usage.bytes_used, usage.bytes_free);
    status.bytes_verified = performer_.bytes_verified();
    status.volumes = performer_.volumes();
    const std::scoped_lock lock(mutex_);
    table_.fill(status);
    status.converged = converged_;
    status.converged_epoch = converged_epoch_;
    return status;
  }

  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id) const {
    const Instant now = executor_.now();
    const std::scoped_lock lock(mutex_);
    return table_.chunk_status(id, now);
  }

  void set_options(const Options& options) {
    // What the old ones hold may call back when it is destroyed: not under the lock.
    Options old = options;
    input([&](Instant now) {
      max_files_ = options.max_files;
      max_chunk_bytes_ = options.max_chunk_bytes;
      table_.set_options(old, now);
    });
  }

  /// What descriptions are held to.
  [[nodiscard]] ChunkLimits limits() const noexcept { return {max_files_, max_chunk_bytes_}; }

  // Inside of `input`:
  [[nodiscard]] core::ChunkTable& table() noexcept { return table_; }
  /// Serves, unserves and takes down events at once, and queues everything else.
  void take_actions() {
    for (core::Action& action : table_.actions()) {
      if (auto* list = std::get_if<core::action::List>(&action)) {
        table_.served(listing_.list(list->generation, list->asked));
      } else if (auto* unlist = std::get_if<core::action::Unlist>(&action)) {
        listing_.unlist(unlist->generation, unlist->asked);
      } else if (auto* condemn = std::get_if<core::action::Condemn>(&action)) {
        listing_.condemn(condemn->generation);
      } else if (auto* event = std::get_if<Event>(&action)) {
        tell(*event);
      } else {
        actions_.push_back(std::move(action));
      }
    }
    core::clear(table_.actions());
  }

  void refresh_usage() { performer_.refresh_usage(); }
  [[nodiscard]] const Listing<S>& listing() const noexcept { return listing_; }
  [[nodiscard]] const D& downloader() const noexcept { return downloader_; }
  [[nodiscard]] Instant now() const { return executor_.now(); }
  [[nodiscard]] Observers& observers() noexcept { return observers_; }

 private:
  using Handle = typename Tasks<E>::Handle;

  static constexpr std::chrono::milliseconds soon{1};

  static std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
  }

  void start(Startup startup) {
    if (startup == Startup::background) {
      table_.begin_recovery();
      return spawn([this] { recovery_.in_background(); });
    }
    const Recovery recovery = recovery_.at_once();
    if (!recovery.error) return;
    host_->detach();
    throw Error(recovery.error, recovery.subject);
  }

  // ---- under the lock

  void tell(EventKind kind) {
    Event event;
    event.kind = kind;
    event.epoch = kind == EventKind::converged ? converged_epoch_ : 0;
    tell(event);
  }

  /// The observers keep it, and the pump posts the task that tells them. `closed` is the last.
  void tell(const Event& event) {
    if (!closed_event_ && observers_.push(event)) untold_ = true;
  }

  /// What follows from a change. Returns what is then to be posted.
  std::optional<Handle> note_progress() {
    const bool converged = table_.settled() && !listing_.pending() && releasing_ == 0;
    if (converged && (!converged_ || converged_epoch_ != table_.epoch())) {
      converged_epoch_ = table_.epoch();
      tell(EventKind::converged);
    }
    converged_ = converged;
    const bool ended = table_.closed() && table_.idle() && releasing_ == 0;
    if (ended && !closed_event_) {
      tell(EventKind::closed);
      closed_event_ = true;
    }
    // Whoever waits is not woken by what cannot be what is waited for: it would take the lock, each time.
    if (converged_ || table_.closed() || table_.recovery_failed() || is_refused()) changed_.notify_all();
    const bool todo = !actions_.empty() || untold_ || is_alarm_wrong(wake_at());
    if (!todo || pumping_) return tasks_.take_refused();
    pumping_ = true;
    return tasks_.keep([this] { pump(); });
  }

  /// Whether something is to be done that the executor has not taken.
  [[nodiscard]] bool is_refused() const { return tasks_.has_refused() || (!pumping_ && is_alarm_wrong(wake_at())); }

  /// An alarm that comes early does no harm; one that comes late, or after `close`, does.
  [[nodiscard]] bool is_alarm_wrong(const std::optional<Instant>& wake) const {
    return wake ? !armed_at_ || *wake < *armed_at_ : armed_at_ && table_.closed();
  }

  [[nodiscard]] std::optional<Instant> wake_at() const {
    if (table_.closed()) return std::nullopt;
    std::optional<Instant> wake = table_.next_wake();
    // A reader is inside the index: what was replaced can be freed once it has left, which is soon.
    if (listing_.pending()) {
      const Instant then = executor_.now() + soon;
      if (!wake || then < *wake) wake = then;
    }
    return wake;
  }

  // ---- outside of the lock

  /// The time that `wait` waits by: the executor's own where it is driven, the machine's where it has threads.
  [[nodiscard]] Instant clock() const {
    if constexpr (DrivenExecutor<E>) {
      return executor_.now();
    } else {
      return std::chrono::steady_clock::now().time_since_epoch();
    }
  }

  /// Waits, while driving the executor where it has no threads of its own. `done()` runs under the lock; `help()`
  /// does not, and is called now and then while something is refused.
  template <class Done, class Help>
  bool wait(std::chrono::nanoseconds timeout, const Done& done, const Help& help) {
    constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);
    const Instant until = clock() + std::min(timeout, for_ever);
    while (true) {
      Instant wake = until;
      {
        std::unique_lock lock(mutex_);
        if (done()) return true;
        if (is_refused()) wake = std::min(until, clock() + soon);
        if constexpr (!DrivenExecutor<E>) {
          const auto at = std::chrono::steady_clock::time_point(wake);
          if (changed_.wait_until(lock, at) == std::cv_status::no_timeout) continue;
        }
      }
      if constexpr (DrivenExecutor<E>) {
        if (executor_.run_one_until(wake)) continue;
      }
      if (wake == until) {
        const std::scoped_lock lock(mutex_);
        return done();
      }
      help();
    }
  }

  /// Performs what is queued, in its order. One at a time.
  void pump() {
    std::vector<core::Action> actions;
    bool refused = false;  // the alarm: a second try is the next input's
    while (true) {
      std::optional<Instant> wake;
      bool rearm = false;
      bool deliver = false;
      core::clear(actions);
      {
        const std::scoped_lock lock(mutex_);
        actions.swap(actions_);
        wake = wake_at();
        rearm = !refused && is_alarm_wrong(wake);
        deliver = std::exchange(untold_, false);
        if (actions.empty() && !rearm && !deliver) {
          pumping_ = false;
          if (is_refused()) changed_.notify_all();
          return;
        }
      }
      for (core::Action& action : actions) performer_.perform(action);
      if (deliver) spawn([this] { observers_.deliver(); });
      if (rearm) refused = !arm(wake);
    }
  }

  /// By the pump only. False where the executor refuses.
  bool arm(std::optional<Instant> wake) {
    if (alarm_.put_away()) alarm_done();
    {
      const std::scoped_lock lock(mutex_);
      armed_at_ = wake;
      if (wake) ++alarms_;
    }
    if (!wake) return true;
    const auto ring = [this, at = *wake] {
      input([&](Instant now) {
        if (armed_at_ == at) armed_at_.reset();
        table_.woken(now);
      });
      tasks_.do_refused();
      alarm_done();
    };
    if (!guarded([&] { alarm_.set(*wake, ring); })) return true;
    {
      const std::scoped_lock lock(mutex_);
      armed_at_.reset();
    }
    alarm_done();
    return false;
  }

  void alarm_done() {
    const std::scoped_lock lock(mutex_);
    --alarms_;
    changed_.notify_all();
  }

  void drained(const Generation& generation, const void* pinned) noexcept override {
    input([&](Instant now) {
      if (listing_.forget(generation, pinned)) table_.drained(generation, now);
    });
  }

  std::atomic<std::size_t> max_files_;  // these two: written under the lock
  std::atomic<std::uint64_t> max_chunk_bytes_;
  E executor_;
  std::shared_ptr<PinHost<S>> host_;
  D downloader_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  core::ChunkTable table_;
  Listing<S> listing_;
  Performer<Engine, S, D> performer_;
  StoreRecovery<Engine, S> recovery_;
  Observers observers_;
  Tasks<E> tasks_{executor_, mutex_, changed_};
  std::vector<core::Action> actions_;  // to be performed
  bool pumping_ = false;               // a pump is posted or running
  bool untold_ = false;                // observers have events and no task that tells them
  std::size_t alarms_ = 0;             // armed or ringing
  std::size_t releasing_ = 0;          // garbage that is being destroyed
  bool converged_ = false;
  bool closed_event_ = false;
  Epoch converged_epoch_ = 0;
  std::optional<Instant> armed_at_;
  Alarm<E> alarm_;  // the pump's own
};

}  // namespace garner::detail
