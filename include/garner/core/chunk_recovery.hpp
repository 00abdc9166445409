// SPDX-License-Identifier: BSL-1.0
//
// What the store held at the start, as it tells it: before all else, or while calls come already. Until all of it is
// known nothing is asked of the store, and nothing is fetched: what is not settled waits.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/fetch_reports.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"

namespace garner::core {

class ChunkRecovery : public FetchReports {
 public:
  /// From now on, until `recovery_done`, calls may come while `recovered` tells what the store holds.
  void begin_recovery() {
    recovering_ = true;
    ++unreported_;
    // What is found was asked for before.
    asked_ = std::uint64_t{1} << 40;
  }

  /// What nobody has said anything about is wanted. What was not wanted at some moment since the start counts as
  /// deleted, and is not served but where it turns out to be what is wanted now.
  void recovered(const Generation& generation) {
    last_generation_ = std::max(last_generation_, generation.number);
    touch(generation.id, Instant{}, [&](ChunkEntry& entry) {
      const bool is_deleted = was_deleted(entry, generation.id);
      const bool is_to_be_checked = startup_check_ != StartupCheck::names;
      if (closed_ && !is_deleted) return;  // as it is, for the next start
      const auto asked = recovering_ ? ++found_ : ++asked_;
      const bool is_newest = std::all_of(entry.copies.begin(), entry.copies.end(), [&](const Copy& other) {
        return !(other.listed || other.missed) || other.generation.number <= generation.number;
      });
      leave_queue(entry);
      Copy& copy = add_copy(entry, generation);
      copy.drained = true;
      copy.told = copy.away;
      if (is_deleted) {
        copy.unfit = is_to_be_checked;  // and nobody will
        return;
      }
      if (!entry.want) entry.asked = asked;
      if (is_to_be_checked && !copy.away) {
        entry.wanted = copy.unchecked = true;
        return;
      }
      if (!is_newest) {
        if (entry.listed() != nullptr) supersede(copy);
        return;
      }
      forget_missed(entry);
      entry.wanted = true;
      if (copy.away) {
        copy.missed = true;
        return;
      }
      if (Copy* older = entry.listed()) {
        unlist(*older);
        supersede(*older);
      }
      list(copy, entry.asked);
    });
  }

  /// New generations are numbered from above what was found. With an error it stays unknown what the store holds: what
  /// was told is served, and nothing else happens any more.
  void recovery_done(const Recovery& recovery, Instant now) {
    if (recovering_ && !end_recovery(recovery)) return;
    last_generation_ = std::max(last_generation_, recovery.last_generation);
    constexpr std::chrono::nanoseconds for_ever = std::chrono::hours(24 * 365 * 10);
    if (recovery.has_partial) partial_until_ = now + std::min(options_.staging_ttl, for_ever);
    if (options_.staging_ttl <= std::chrono::nanoseconds::zero()) drop_partial();
    litter_ = true;
    watch_volumes(now);
    while (closed_ && !held_.empty()) release(now);
    pump(now);
  }

  /// Before anything is recovered; where there is one, or the store has none, nothing of all that follows happens.
  void volumes_are(std::vector<VolumeStatus> volumes) { ChunkVolumes::volumes_are(std::move(volumes)); }

  /// Whether the store could not be read.
  [[nodiscard]] bool recovery_failed() const noexcept { return !recovery_failure_.ok(); }

 protected:
  using FetchReports::FetchReports;

  /// Before it is wanted: whether it is wanted anew.
  void note_wish(const ChunkId& id) {
    if (!recovering_) {
      deleted_unseen_.erase(id);
    } else if (epoch_ > 0 && !entries_.is_wanted(id)) {
      deleted_unseen_.insert(id);
    }
  }

  void note_deletion(const ChunkId& id) {
    if (recovering_ || (epoch_ == 0 && any_unseen())) deleted_unseen_.insert(id);
  }

  void fill_recovery(Status& status) const {
    status.recovering = recovering_ && !recovery_failed();
    status.recovery_error = recovery_failure_.error;
    status.recovery_subject = recovery_failure_.subject;
  }

 private:
  [[nodiscard]] bool was_deleted(const ChunkEntry& entry, const ChunkId& id) const {
    return recovering_ && (deleted_unseen_.contains(id) || (epoch_ > 0 && !entry.wanted));
  }

  /// A newer one is served, and this one would be on its way out by now: it does not come back for a wish that it
  /// holds.
  void supersede(Copy& older) const { older.unfit = older.unfit || recovering_; }

  /// False where nothing follows from it.
  bool end_recovery(const Recovery& recovery) {
    --unreported_;
    // What was told before it was stopped, and deleted, can be marked as that.
    const bool was_stopped = closed_ && recovery.error == errc::cancelled;
    const bool is_known = !recovery.error || was_stopped;
    if (!is_known) recovery_failure_ = {recovery.error, recovery.subject, std::nullopt};
    if (!was_stopped) notify_recovered(recovery_failure_);
    if (!is_known) return false;
    recovering_ = false;
    if (epoch_ > 0 || !any_unseen()) deleted_unseen_.clear();
    return true;
  }

  void notify_recovered(const Outcome& outcome) {
    notify(EventKind::recovered, {}, 0);
    auto& event = std::get<Event>(actions_.back());
    event.error = outcome.error;
    event.subject = outcome.subject;
  }

  std::uint64_t found_ = 0;
  Outcome recovery_failure_;
};

}  // namespace garner::core
