// SPDX-License-Identifier: BSL-1.0
//
// The simulated world: one thread, virtual time, tasks that run in an order that is decided, and faults that strike
// when it is decided. The disk and the network are in headers of their own; they ask the world before each step.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/policies/executor.hpp"
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_hooks.hpp"

namespace garner {

/// What can go wrong, and what can be met. Counted, so that a run can tell what it has never seen.
enum class SimFaultKind : std::uint8_t {
  task_switch,       ///< another task ran in the middle of a storage operation
  disk_full,         ///< a write found no room
  disk_error,        ///< a read or a write failed
  short_write,       ///< a part of a write was written before it failed
  sync_failure,      ///< a sync failed, and what was dirty is lost
  read_only,         ///< a change was refused
  out_of_handles,    ///< an open was refused
  slow_disk,         ///< an operation took its time
  connection_reset,  ///< in the middle of a body
  stall,             ///< a transfer stopped for a while and was cut
  server_error,      ///< 5xx, or 429 with a Retry-After of any kind
  not_found,         ///< 404
  forbidden,         ///< 403
  truncated_body,    ///< shorter than declared
  wrong_bytes,       ///< a flipped byte
  source_changed,    ///< another validator in the middle
  late_completion,   ///< a cancelled transfer went on for a while
  misdirected,       ///< a write to a file that is being staged went to another file
  not_started,       ///< a transfer was refused before it began
  long_body,         ///< longer than declared
  wrong_range,       ///< bytes from another offset than the one that was asked for
};
inline constexpr std::size_t sim_fault_kinds = 21;

constexpr std::string_view to_string(SimFaultKind kind) noexcept {
  constexpr std::array<std::string_view, sim_fault_kinds> names = {
      "task switch", "disk full", "disk error",      "short write",  "sync failure", "read only", "no handles",
      "slow disk",   "reset",     "stall",           "server error", "not found",    "forbidden", "truncated",
      "wrong bytes", "changed",   "late completion", "misdirected",  "not started",  "long body", "wrong range"};
  return names[static_cast<std::size_t>(kind)];
}

/// How often each kind of fault strikes: in `chance[kind]` of 1,024 cases.
struct SimFaults {
  std::array<std::uint32_t, sim_fault_kinds> chance{};

  [[nodiscard]] std::uint32_t& operator[](SimFaultKind kind) { return chance[static_cast<std::size_t>(kind)]; }

  /// Each kind off or on, and how often, as is decided: most of what goes wrong together shows only where the rest does
  /// not ("swarm testing", Groce et al., ISSTA 2012).
  static SimFaults swarm(Decisions& decisions) {
    constexpr std::array<std::uint32_t, 4> rates = {4, 16, 64, 256};
    SimFaults faults;
    for (std::uint32_t& chance : faults.chance) {
      if (decisions.chance(1, 3)) chance = rates[decisions.choose(rates.size())];
    }
    return faults;
  }
};

/// Thread-safety: none, one thread. Lifetime: outlives everything that runs on it.
class SimWorld final : public SimHooks {
 public:
  explicit SimWorld(Decisions& decisions) : decisions_(decisions) {}

  [[nodiscard]] Decisions& decisions() noexcept { return decisions_; }
  [[nodiscard]] Instant now() const noexcept { return now_; }

  SimFaults faults;                          ///< what strikes from now on
  std::function<bool(SimFaultKind)> allows;  ///< asked before a fault strikes, where set: whether it does. For leaving
                                             ///< faults out of a run that is known
  std::function<void(std::string)> trace;    ///< takes a line for each thing that happens, where set

  /// How often each fault struck.
  [[nodiscard]] const std::array<std::uint64_t, sim_fault_kinds>& met() const noexcept { return met_; }

  /// Whether a fault of this kind strikes now.
  bool strikes(SimFaultKind kind) {
    const std::uint32_t chance = faults[kind];
    if (chance == 0 || !decisions_.chance(chance, 1024)) return false;
    if (allows && !allows(kind)) return false;
    ++met_[static_cast<std::size_t>(kind)];
    return true;
  }

  template <class... Parts>
  void note(const Parts&... parts) {
    if (!trace) return;
    std::string line = "[" + std::to_string(now_.count() / 1000) + " us] ";
    ((line += parts), ...);
    trace(std::move(line));
  }

  // ---- tasks

  void post(Task task) { ready_.push_back(std::move(task)); }

  std::uint64_t post_at(Instant at, Task task) {
    timers_.emplace(std::pair(at, ++last_timer_), std::move(task));
    return last_timer_;
  }

  void cancel(std::uint64_t timer) {
    for (auto it = timers_.begin(); it != timers_.end(); ++it) {
      if (it->first.second != timer) continue;
      timers_.erase(it);
      return;
    }
  }

  [[nodiscard]] bool has_ready() const noexcept { return !ready_.empty(); }
  [[nodiscard]] std::size_t timers() const noexcept { return timers_.size(); }

  /// Runs one of the tasks that are ready, which one is decided; where none is, the clock moves to the next timer, or
  /// to `until`: then false.
  bool run_one_until(Instant until) {
    fire_timers();
    if (ready_.empty()) {
      if (timers_.empty() || timers_.begin()->first.first > until) {
        if (until != Instant::max() && until > now_) now_ = until;
        return false;
      }
      now_ = timers_.begin()->first.first;
      fire_timers();
    }
    run_ready();
    return true;
  }

  /// A point at which another task may run, and sometimes does.
  void may_switch() {
    if (depth_ < max_depth && has_ready() && !SimMutex::any_held() && strikes(SimFaultKind::task_switch)) run_ready();
  }

  // ---- disks

  /// Before each operation of a file system: others may run, and the operation may fail.
  SimFault before(const SimCall& call) override {
    ++operations_;
    if (trace) {
      const std::string new_path = call.new_path();
      note("  disk ", to_string(call.operation), " ", call.disk.options().name, call.path(),
           new_path.empty() ? "" : " -> ", new_path);
    }
    if (strikes(SimFaultKind::slow_disk)) now_ += std::chrono::milliseconds(1 + decisions_.choose(1000));
    if (on_operation) on_operation();
    if (call.may_switch) may_switch();
    return fault(call);
  }

  /// Called before each operation of a disk: the place to end it.
  std::function<void()> on_operation;
  /// Of all disks, so far.
  [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }

 private:
  // Tasks inside of tasks inside of tasks: more only costs stack.
  static constexpr unsigned max_depth = 4;

  void fire_timers() {
    while (!timers_.empty() && timers_.begin()->first.first <= now_) {
      ready_.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
  }

  void run_ready() {
    const auto at = static_cast<std::ptrdiff_t>(decisions_.choose(ready_.size()));
    const Task task = std::move(ready_[static_cast<std::size_t>(at)]);
    ready_.erase(ready_.begin() + at);
    ++depth_;
    task();
    --depth_;
  }

  SimFault fault(const SimCall& call) {
    SimFault out;
    switch (call.operation) {
      case SimOperation::write:
        if (strikes(SimFaultKind::disk_full)) out.error = errc::no_space;
        if (strikes(SimFaultKind::disk_error)) out.error = errc::io_error;
        if (call.bytes > 0 && strikes(SimFaultKind::short_write)) {
          out.error = errc::io_error;
          out.written = decisions_.choose(call.bytes);
        }
        if (!out.error && strikes(SimFaultKind::misdirected) && call.path().starts_with("staging/")) {
          out.misdirected = any_chunk_file(call.disk);
        }
        break;
      case SimOperation::read:
      case SimOperation::status:
        if (strikes(SimFaultKind::disk_error)) out.error = errc::io_error;
        break;
      case SimOperation::sync_file:
      case SimOperation::sync_directory:
        if (strikes(SimFaultKind::sync_failure)) out.error = errc::sync_failed;
        break;
      case SimOperation::open_directory:
      case SimOperation::open_file:
        if (strikes(SimFaultKind::out_of_handles)) out.error = errc::too_many_open_files;
        break;
      case SimOperation::make_directory:
      case SimOperation::create_file:
      case SimOperation::reserve:
        if (strikes(SimFaultKind::disk_full)) out.error = errc::no_space;
        [[fallthrough]];
      case SimOperation::truncate:
      case SimOperation::rename:
      case SimOperation::remove_file:
      case SimOperation::remove_directory:
        if (strikes(SimFaultKind::read_only)) out.error = errc::read_only;
        break;
      case SimOperation::list:
      case SimOperation::close:
      case SimOperation::lock:
      case SimOperation::free_space: break;
    }
    if (trace && out.error) note("    fails: ", out.error.message());
    if (out.misdirected) note("    goes to ", *out.misdirected);
    return out;
  }

  /// Empty where there is none. The store's own few files are not hit: without them it does not open, and says so.
  std::string any_chunk_file(const SimDisk& disk) {
    std::vector<std::string> files;
    for (auto& [path, bytes] : disk.tree()) {
      if (bytes && path.starts_with("chunks/")) files.push_back(path);
    }
    return files.empty() ? std::string() : files[static_cast<std::size_t>(decisions_.choose(files.size()))];
  }

  Decisions& decisions_;
  Instant now_{0};
  std::vector<Task> ready_;
  std::map<std::pair<Instant, std::uint64_t>, Task> timers_;
  std::uint64_t last_timer_ = 0;
  std::uint64_t operations_ = 0;
  unsigned depth_ = 0;
  std::array<std::uint64_t, sim_fault_kinds> met_{};
};

/// The Executor of a simulated world, driven by whoever waits.
class SimExecutor {
 public:
  using Timer = std::uint64_t;

  explicit SimExecutor(SimWorld& world) : world_(&world) {}

  void post(Task task) { world_->post(std::move(task)); }
  Timer post_at(Instant at, Task task) { return world_->post_at(at, std::move(task)); }
  void cancel(Timer& timer) { world_->cancel(timer); }
  [[nodiscard]] Instant now() const { return world_->now(); }
  bool run_one_until(Instant until) { return world_->run_one_until(until); }

 private:
  SimWorld* world_;
};

static_assert(diagnose_executor<SimExecutor>() && DrivenExecutor<SimExecutor>);

}  // namespace garner
