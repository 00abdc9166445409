// SPDX-License-Identifier: BSL-1.0
//
// The rules of a fetch: how it begins, what it waits for, and what becomes of it when it fails. When one is needed is
// in `core/chunk_rules.hpp`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/chunk_fetch.hpp"
#include "garner/core/fetch_queue.hpp"
#include "garner/core/hosts.hpp"
#include "garner/core/schedule.hpp"
#include "garner/core/tally.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"

namespace garner::core {

class FetchRules : protected ActionList {
 protected:
  FetchRules(Options options, std::uint64_t seed) : options_(std::move(options)), random_(seed) {}

  /// It had its turn in `lane`.
  void begin_fetch(ChunkEntry& entry, FetchQueue::LanePtr lane) {
    leave_queue(entry);
    entry.parked = false;
    if (entry.fetch) {
      entry.fetch->phase = ChunkFetch::Phase::transferring;
    } else {
      entry.fetch = std::make_unique<ChunkFetch>(++last_generation_, entry.want, *entry.content, hosts_);
      act(action::Stage{last_generation_, entry.want});
    }
    ++active_fetches_;
    ++lane->active;
    entry.fetch->lane = std::move(lane);
  }

  /// Others may have its place.
  void leave_place(ChunkFetch& fetch) {
    --active_fetches_;
    if (fetch.lane) --fetch.lane->active;
    fetch.lane.reset();
  }

  void settle_fetch(const ChunkId& id, ChunkEntry& entry, Instant now) {
    ChunkFetch& fetch = *entry.fetch;
    const bool waiting = fetch.phase == ChunkFetch::Phase::waiting;
    if (fetch.phase != ChunkFetch::Phase::transferring && !waiting) return;
    if (fetch.stopping || fetch.spoiled || closed_) halt(fetch);
    if (fetch.moving() > 0) return;
    if (closed_) return drop_fetch(entry);
    if (fetch.stopping || fetch.spoiled) {
      if (!fetch.stopping) attempt_failed(entry, id, fetch.failure, now);
      if (waiting) ++active_fetches_;
      fetch.phase = ChunkFetch::Phase::discarding;
      return act(action::Discard{id, fetch.number()});
    }
    if (waiting) return;
    if (fetch.complete()) {
      fetch.phase = ChunkFetch::Phase::publishing;
      return act(action::Publish{id, fetch.number()});
    }
    std::optional<Instant> rest = fetch.rest_until();
    if (fetch.has_pending() && !rest) return;
    // A mirror that only rests may have what no other has.
    const bool goes_on = rest && (fetch.failure.ok() || classify(fetch.failure.error) != ErrorClass::transient);
    if (!goes_on) {
      attempt_failed(entry, id, fetch.failure, now);
      fetch.new_round();
      rest = fetch.rest_until();
    }
    if (rest) entry.retry_at = std::max(*rest, entry.retry_at.value_or(*rest));
    fetch.phase = ChunkFetch::Phase::waiting;
    leave_place(fetch);
  }

  /// What is fetched are the bytes that are wanted; where those are others than before it ends, and where they are to
  /// come from elsewhere it goes on with that.
  void follow_wish(ChunkEntry& entry) {
    if (!entry.fetch || *entry.fetch->chunk() == *entry.want) return;
    if (!entry.fetch->is_of(*entry.want, entry.content)) return stop_fetch(entry);
    entry.fetch->take_sources(entry.want, hosts_);
  }

  /// The fetch is not wanted any more; it goes once nothing moves.
  static void stop_fetch(ChunkEntry& entry) {
    if (entry.fetch) entry.fetch->stopping = true;
  }

  void halt(ChunkFetch& fetch) {
    if (std::exchange(fetch.halted, true)) return;
    for (const TransferId transfer : fetch.transfers()) act(action::StopFile{transfer});
  }

  void drop_fetch(ChunkEntry& entry) {
    if (entry.fetch->phase != ChunkFetch::Phase::waiting) leave_place(*entry.fetch);
    spend(std::move(entry.fetch));
  }

  void attempt_failed(ChunkEntry& entry, const ChunkId& id, const Outcome& outcome, Instant now) {
    if (!entry.wanted || entry.fetch->stopping) return;
    if (!entry.failures) entry.failures = std::make_unique<Failures>();
    Failures& failures = *entry.failures;
    // What comes through and then cannot be kept is no progress.
    if (entry.fetch->progressed() && !entry.fetch->spoiled) failures.streak = 0;
    ++failures.attempts;
    ++attempts_failed_;
    failures.error = outcome.error;
    failures.subject = outcome.subject;
    const ErrorClass cls = classify(outcome.error);
    entry.retry_at = now + retry_delay(options_, cls, outcome.retry_after, failures.streak++, random_);
    // A store that takes nothing is asked by a few, and not by all that wait.
    const bool is_read_only = outcome.error == errc::read_only;
    if (is_read_only) entry.retry_at = now + Backoff{{}, options_.no_space_retry}.slowest(random_);
    if (cls == ErrorClass::no_space || is_read_only) {
      entry.parked = true;
      parked_.insert(id);
      hold_until_ = entry.retry_at;
      if (!is_read_only) drop_partial();
    }
    notify_failure(id, entry.fetch->number(), outcome);
  }

  // ---- small things

  void leave_queue(ChunkEntry& entry) {
    if (!std::exchange(entry.queued, false)) return;
    tally_.queue().erase(entry.want->dataset_id, entry.asked);
  }

  /// What an earlier run did not fetch to its end is not waited for any longer.
  void drop_partial() {
    if (!std::exchange(partial_until_, std::nullopt)) return;
    partial_ = Partial::remove;
    litter_ = true;
  }

  /// It is needed no more, and takes long to be freed: not under the lock of whoever performs the actions. Of many at a
  /// time only some.
  void spend(std::shared_ptr<const void> what) {
    constexpr std::size_t most = 64;
    if (what && spent_.size() < most) spent_.push_back(std::move(what));
  }

  static void forget_failures(ChunkEntry& entry) {
    entry.failures.reset();
    entry.retry_at.reset();
    entry.parked = false;
  }

  static bool can_start(const ChunkFetch& fetch) {
    return fetch.phase == ChunkFetch::Phase::transferring && !fetch.halted && fetch.has_pending();
  }

  Options options_;
  FetchLimits limits_;                                                // that count now
  std::optional<std::pair<std::size_t, std::uint64_t>> told_limits_;  // what a downloader was told of them
  bool filled_ = false;                                               // it had converged once, and served chunks
  Random random_;
  Hosts hosts_;
  Tally tally_{hosts_};
  std::set<ChunkId> parked_;
  std::optional<Instant> hold_until_;     // the store is full: nothing starts
  bool litter_ = false;                   // something is left to be cleaned up
  Partial partial_ = Partial::keep;       // by the next clean-up
  std::optional<Instant> partial_until_;  // where there is any
  bool closed_ = false;
  std::uint64_t last_generation_ = 0;
  TransferId last_transfer_ = 0;
  std::vector<std::shared_ptr<const void>> spent_;
  std::size_t active_fetches_ = 0;
  std::uint64_t attempts_failed_ = 0;
};

}  // namespace garner::core
