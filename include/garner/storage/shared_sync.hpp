// SPDX-License-Identifier: BSL-1.0
//
// One directory's syncs, shared by all who change it at the same time (group commit): while a sync runs the next
// changes gather, and one sync serves them all. There is no timer: who is alone syncs at once. Which directories are
// shared is the store's matter.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <set>
#include <system_error>

#include "garner/error.hpp"
#include "garner/storage/file_system.hpp"

namespace garner::detail {

/// For each change: `join`, change the directory, `commit`. Every sync of the directory goes this way while others may
/// use it: one that fails elsewhere would take the news with it.
///
/// A change is durable once a sync that *began* after it has succeeded: one that was running may have written the
/// directory before. And a sync that failed spoils all that was under way when it *ended*, also what was changed while
/// it ran, and what a later sync seems to cover: the kernel tells of a page that it could not write once, drops it, and
/// the next sync, which finds nothing dirty, succeeds. So everyone who had joined by then is told, and none of them
/// syncs again for the same change. Nobody else needs to be: who joins later makes his change later, too. For the same
/// reason a sync counts for others only when those that had begun before it have ended: one of them may have been told
/// of the failure already, and not have passed it on yet.
///
/// That may tell one too many (who joined and had changed nothing yet, or was covered by an earlier sync and has not
/// woken up yet), and never one too few.
///
/// Thread-safety: all members at the same time.
template <FileSystem F>
class SharedSync {
 public:
  /// Which failures come before a change. A value.
  class Ticket {
    friend class SharedSync;
    explicit Ticket(std::uint64_t failed) : failed_(failed) {}
    std::uint64_t failed_;
  };

  /// `at_once` syncs may run at the same time, and only more than that are shared: those who change one file system
  /// are served together by its journal, too, and to wait for a sync that will not do costs more than to begin the
  /// next. More than one only where each comes through a descriptor of its own, opened after `join`: one that all use
  /// tells of a failure to one of them, and not to the other.
  explicit SharedSync(std::size_t at_once)
      // Where all is one thread's (a simulation) nobody can be waited for, and none is in the middle of being told.
      : at_once_(F::concurrent ? at_once : std::numeric_limits<std::size_t>::max()) {}

  [[nodiscard]] Ticket join() {
    const std::lock_guard lock(mutex_);
    return Ticket(failed_);
  }

  /// Returns when what was changed since `ticket` was taken is durable, or may never be. `sync()` syncs the directory.
  /// It is called for this change and all others that were committed by then, or, where another's call does for this
  /// one, not at all.
  template <class Sync>
  std::error_code commit(const Ticket& ticket, const Sync& sync) {
    std::uint64_t number = 0;
    {
      std::unique_lock lock(mutex_);
      const std::uint64_t covering = begun_ + 1;
      const auto is_told = [&] { return failed_ != ticket.failed_ || served_ >= covering; };
      one_ended_.wait(lock, [&] { return is_told() || running_.size() < at_once_; });
      if (failed_ != ticket.failed_) return errc::sync_failed;
      if (is_told()) return {};
      number = ++begun_;
      running_.insert(number);
    }
    std::error_code ec;
    try {
      ec = sync();
    } catch (...) {
      end(number, false);  // for all that is known
      throw;
    }
    const bool spoiled = end(number, !ec) != ticket.failed_;
    return spoiled && !ec ? make_error_code(errc::sync_failed) : ec;
  }

 private:
  /// Returns how many have failed so far.
  std::uint64_t end(std::uint64_t number, bool succeeded) {
    const std::lock_guard lock(mutex_);
    running_.erase(number);
    if (succeeded) {
      last_good_ = std::max(last_good_, number);
    } else {
      ++failed_;
    }
    if (running_.empty() || *running_.begin() > last_good_) served_ = last_good_;
    one_ended_.notify_all();
    return failed_;
  }

  const std::size_t at_once_;
  typename F::Mutex mutex_;  ///< guards the rest; held across no operation
  std::condition_variable_any one_ended_;
  std::set<std::uint64_t> running_;  ///< syncs, by the order in which they began
  std::uint64_t begun_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t last_good_ = 0;  ///< the last that has succeeded
  std::uint64_t served_ = 0;     ///< the same, and none that began earlier is running
};

}  // namespace garner::detail
