// SPDX-License-Identifier: BSL-1.0
//
// Whose turn it is: `pump` hands out the places that are free, within the limits and the byte budget. What one chunk
// needs is in `core/chunk_rules.hpp`, the inputs are in `core/chunk_table.hpp`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "garner/core/chunk_volumes.hpp"

namespace garner::core {

class ChunkTurns : protected ChunkVolumes {
 protected:
  using ChunkVolumes::ChunkVolumes;

  /// As `touch`, and then hands out what may have become free.
  template <class Change>
  void report(const ChunkId& id, Instant now, Change&& change) {
    --unreported_;
    touch(id, now, std::forward<Change>(change));
    pump(now);
  }

  /// Starts what has its turn, within the limits.
  void pump(Instant now) {
    if (closed_ || recovering_) return;
    release(now);
    set_limits();
    attend_volumes(now);
    if (hold_until_ && *hold_until_ <= now) hold_until_.reset();
    hosts_.wake(now);
    do {
      begin_fetches(now);
    } while (start_files(now));
    if (litter_ && !cleaning_ && !clean_up_at_) {
      litter_ = false;
      cleaning_ = true;
      act(action::CleanUp{partial_});
    }
    while (checks_ < options_.max_concurrent_checks && !checkable_.empty()) {
      const ChunkId id = *checkable_.begin();
      touch(id, now, [this](ChunkEntry& entry) {
        ++checks_;
        begin(*entry.copy(entry.unchecked()->generation), Copy::Operation::check);
      });
    }
    scrub(now);
    set_limits();
  }

  /// Goes on with what has waited until it was known what the store holds, a few at a time.
  void release(Instant now) {
    for (std::size_t left = slice; left > 0 && !held_.empty(); --left) {
      touch(held_.extract(held_.begin()).value(), now, [](ChunkEntry&) {});
    }
  }

  [[nodiscard]] std::optional<Instant> next_release() const {
    return held_.empty() ? std::nullopt : std::optional(Instant{});
  }

  /// Those that count now. Whoever is filled stays so.
  void set_limits() {
    filled_ = filled_ || (tally_.settled() && tally_.any_ready());
    FetchLimits limits{options_.max_concurrent_chunks, options_.max_concurrent_files, options_.max_files_per_host,
                       options_.bytes_per_second};
    if (filled_ && options_.when_filled) limits = *options_.when_filled;
    limits.max_files_per_host = std::max<std::size_t>(limits.max_files_per_host, 1);
    limits_ = limits;
    const std::pair told(limits.max_files_per_host, limits.bytes_per_second);
    if (told_limits_ == told) return;
    told_limits_ = told;
    act(action::Limit{limits});
  }

  void begin_fetches(Instant now) {
    while (!hold_until_ && active_fetches_ < limits_.max_concurrent_chunks) {
      const auto front = tally_.queue().front([this](const FetchQueue::Lane& lane) { return is_open(lane); });
      if (!front) break;
      const auto& [id, lane] = *front;
      if (has_room(entries_.at(id))) {
        touch(id, now, [this, &at = lane](ChunkEntry& entry) { begin_fetch(entry, at); });
      } else if (!wait_for_room(id, now)) {
        break;
      }
    }
  }

  /// Whether more chunks of these servers are worth being begun.
  [[nodiscard]] bool is_open(const FetchQueue::Lane& lane) const {
    std::size_t left = lane.active;
    for (const HostPtr& host : lane.hosts()) {
      const std::size_t feeds = Hosts::feeds(*host, limits_.max_files_per_host);
      if (feeds > left) return true;
      left -= feeds;
    }
    return false;
  }

  /// Starts the files that can begin, of the oldest fetch first. Where a fetch has given up its place because all of
  /// its servers rest: true.
  bool start_files(Instant now) {
    bool left_place = false;
    const std::size_t most = limits_.max_files_per_host;
    for (auto at = startable_.begin(); !hold_until_ && at != startable_.end();) {
      if (moving_files_ >= limits_.max_concurrent_files) break;
      const auto key = *at;
      const ChunkFetch& fetch = *entries_.at(key.second).fetch;
      if (fetch.moving() == 0 && fetch.rest_until()) {
        touch(key.second, now, [](ChunkEntry&) {});
        left_place = true;
      } else if (fetch.can_start([=](std::span<const Mirror> mirrors) { return Hosts::can_choose(mirrors, most); })) {
        touch(key.second, now, [&](ChunkEntry& entry) {
          ++moving_files_;
          act(entry.fetch->start_next(++last_transfer_, [&](std::span<const Mirror> mirrors, bool any) {
            return Hosts::choose(mirrors, most, any, random_);
          }));
        });
        at = startable_.lower_bound(key);
        continue;
      }
      at = startable_.upper_bound(key);
    }
    return left_place;
  }

  /// When a server that something waits for has rested.
  [[nodiscard]] std::optional<Instant> next_rested() const {
    return startable_.empty() && tally_.queue().empty() ? std::nullopt : hosts_.next_wake();
  }

  /// Goes on with the pass over what is held, where it is time.
  void scrub(Instant now) {
    if (scrub_.is_due(options_, now)) {
      scrub_.list();
      act(action::ListHeld{});
    }
    // What was deleted since the pass began is passed over, but not a million at once: the next look comes at once.
    for (int steps = 0; steps < 1000; ++steps) {
      const std::optional<ChunkId> id = scrub_.turn(options_, now);
      if (!id) break;
      const detail::Served* resting = entries_.resting(*id);
      ChunkEntry* const entry = entries_.find(*id);
      const Copy* listed = entry == nullptr ? nullptr : entry->listed();
      if (resting == nullptr && listed == nullptr) {
        scrub_.skip();
      } else if (resting == nullptr && listed->operation != Copy::Operation::none) {
        scrub_.hold_up();
        break;
      } else {
        scrub_.read(resting != nullptr ? resting->bytes : listed->generation.bytes, now);
        touch(*id, now, [this](ChunkEntry& of) { begin(*of.listed(), Copy::Operation::verify); });
      }
    }
    action::FreeIds spent;
    if (!scrub_.ends(spent.ids)) return;
    notify(EventKind::scrubbed, {}, 0);
    act(std::move(spent));
  }

  /// Ends the copy's operation; `finish(entry, copy)` where it succeeded, otherwise it is tried again later.
  template <class Finish>
  void operation_done(const Generation& generation, const Outcome& outcome, Instant now, Finish&& finish) {
    report(generation.id, now, [&](ChunkEntry& entry) {
      Copy& copy = *entry.copy(generation);
      const Copy::Operation operation = std::exchange(copy.operation, Copy::Operation::none);
      if (operation == Copy::Operation::remove) removing_ -= weight_of(copy);
      if (outcome.ok()) {
        copy.failures = 0;
        finish(entry, copy);
        return;
      }
      notify_failure(generation.id, generation.number, outcome);
      if (!copy.away) doubt(outcome.error);
      if (copy.away && operation != Copy::Operation::describe) return;
      // After `close` a removal is not tried again; the mark that the next start goes by comes instead.
      if (closed_ && operation == Copy::Operation::remove) return;
      const Backoff backoff{options_.min_backoff, options_.max_backoff};
      const std::chrono::nanoseconds delay = backoff.delay(copy.failures++, random_);
      if (operation == Copy::Operation::remove && needs_mark_first(copy)) return;  // at once: the removal waits for it
      copy.retry_at = now + delay;
    });
  }

  [[nodiscard]] std::uint64_t failures_of(const Generation& generation) {
    return entries_.at(generation.id).copy(generation)->failures;
  }

  // ---- room

  [[nodiscard]] bool has_room(const ChunkEntry& entry) const {
    return entry.fetch || tally_.budget().fits(options_, bytes_of(entry));
  }

  /// Of the chunk whose turn it is. It keeps its turn, and none overtakes it, or a large one would never come through;
  /// but one that can never fit stands aside: then true.
  bool wait_for_room(const ChunkId& id, Instant now) {
    const bool never_fits = bytes_of(entries_.at(id)) > options_.max_bytes;
    if (never_fits || !entries_.at(id).parked) {
      touch(id, now, [&](ChunkEntry& entry) {
        entry.parked = true;
        if (!entry.failures) entry.failures = std::make_unique<Failures>();
        entry.failures->error = errc::over_budget;
        entry.failures->subject = "chunk " + id.to_hex();
        notify_failure(id, 0, {entry.failures->error, entry.failures->subject, std::nullopt});
        if (!never_fits) return;
        leave_queue(entry);
        entry.retry_at = now + Backoff{{}, options_.max_backoff}.slowest(random_);
      });
    }
    // What was left half-done may be in the way; the disk is measured with it.
    if (!never_fits) drop_partial();
    if (!never_fits && !litter_ && !cleaning_) {
      litter_ = true;
      clean_up_at_ = now + options_.no_space_retry;
    }
    return never_fits;
  }

  /// Where the size is not known, whatever there is room for begins.
  static std::uint64_t bytes_of(const ChunkEntry& entry) {
    return std::max<std::uint64_t>(1, declared_bytes(*entry.want).value_or(1));
  }

  /// There may be room again: what is parked need not wait.
  void end_parking(Instant now) {
    hold_until_.reset();
    const std::set<ChunkId> parked = std::exchange(parked_, {});
    for (const ChunkId& id : parked) {
      if (entries_.find(id) == nullptr) continue;
      touch(id, now, [](ChunkEntry& entry) {
        if (!std::exchange(entry.parked, false)) return;
        entry.retry_at.reset();
      });
    }
    pump(now);
  }
};

}  // namespace garner::core
