// SPDX-License-Identifier: BSL-1.0
//
// The rules of one chunk: `step` compares what is wanted of it with what there is of it, and asks for what is missing.
// Whose turn it is, of many, is in `core/chunk_turns.hpp`.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_entries.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/chunk_fetch.hpp"
#include "garner/core/fetch_rules.hpp"
#include "garner/core/schedule.hpp"
#include "garner/core/scrub.hpp"
#include "garner/core/tally.hpp"
#include "garner/status.hpp"

namespace garner::core {

class ChunkRules : protected FetchRules {
 protected:
  ChunkRules(const Options& options, std::uint64_t seed)
      : FetchRules(options, seed), startup_check_(options.startup_check), scrub_(seed) {}

  /// Changes one entry by `change`, then does what follows from it. All changes to entries go through here.
  template <class Change>
  void touch(const ChunkId& id, Instant now, Change&& change) {
    ChunkEntry& entry = entries_.wake(id);
    const std::optional<DatasetId> missed = entry.missing_from();
    tally_.count(entry, -1);
    if (entry.fetch) startable_.erase({entry.fetch->number(), id});
    if (entry.fetch) tally_.budget().reserve(entry.fetch->reserved(), -1);
    change(entry);
    step(id, entry, now);
    tally_.count(entry, +1);
    if (const std::optional<DatasetId> misses = entry.missing_from(); misses != missed) {
      if (missed) tally_.queue().count_missing(*missed, -1);
      if (misses) tally_.queue().count_missing(*misses, +1);
    }
    if (entry.fetch) tally_.budget().reserve(entry.fetch->reserved(), +1);
    if (entry.fetch && can_start(*entry.fetch)) startable_.emplace(entry.fetch->number(), id);
    if (!entry.parked) parked_.erase(id);
    if (entry.can_check()) {
      checkable_.insert(id);
    } else {
      checkable_.erase(id);
    }
    set_alarm(id, entry);
    entries_.settle(entry);
  }

  // ---- what is wanted

  void want(const Wish& wish, Instant now) {
    const detail::Served* served = entries_.resting(wish.chunk->id);
    if (served != nullptr && served->holds(wish.content, wish.bytes)) return;
    touch(wish.chunk->id, now, [&](ChunkEntry& entry) {
      const Copy* listed = entry.listed();
      if (entry.wanted && entry.want && *entry.want == *wish.chunk) return;
      if (entry.wanted && !entry.want && listed != nullptr && listed->holds(wish.content, wish.bytes)) return;
      leave_queue(entry);
      forget_failures(entry);
      entry.wanted = true;
      spend(std::exchange(entry.want, wish.chunk));
      entry.content = wish.content;
      entry.asked = ++asked_;
    });
  }

  void unwant(const ChunkId& id, Instant now) {
    if (!entries_.is_wanted(id)) return;
    touch(id, now, [this](ChunkEntry& entry) {
      leave_queue(entry);
      forget_failures(entry);
      forget_missed(entry);
      entry.wanted = false;
      spend(std::move(entry.want));
      entry.content.reset();
    });
  }

  // ---- copies

  Copy& add_copy(ChunkEntry& entry, const Generation& generation) {
    Copy& copy = entry.copies.emplace_back(generation);
    if (generation.volume < held_on_.size()) {
      held_on_[generation.volume].insert(generation.id);
      copy.away = volumes_[generation.volume].state == VolumeState::away;
    }
    return copy;
  }

  void erase_copy(ChunkEntry& entry, const Copy& copy) {
    const Generation generation = copy.generation;
    entry.copies.erase(entry.copies.begin() + (&copy - entry.copies.data()));
    const bool is_last = std::none_of(entry.copies.begin(), entry.copies.end(),
                                      [&](const Copy& other) { return other.generation.volume == generation.volume; });
    if (is_last && generation.volume < held_on_.size()) held_on_[generation.volume].erase(generation.id);
  }

  // ---- what is done about it

  void step(const ChunkId& id, ChunkEntry& entry, Instant now) {
    if (!entry.wanted) {
      if (Copy* copy = entry.listed()) unlist(*copy);
      stop_fetch(entry);
    } else if (entry.want) {
      find_or_fetch(entry);
    } else {
      find_missed(entry);
    }
    if (entry.fetch) settle_fetch(id, entry, now);
    settle_unchecked(entry);
    if (recovering_) return hold(id, entry);
    // One that was taken back may be marked as deleted yet: until it is not, the copy that it replaces is kept, or a
    // power cut would leave neither. And while it is not known what is wanted, any copy may be that.
    const Copy* listed = entry.listed();
    const bool is_safe = !entry.lost() && (listed == nullptr || listed->mark == Copy::Mark::none);
    for (Copy& copy : entry.copies) {
      if (copy.away || copy.told) continue;
      if (copy.listed || is_safe) settle_copy(copy);
    }
    forget_told(entry);
  }

  /// Until it is known what the store holds nothing is asked of it; what is to be done is done then. What is to be
  /// checked has its turn anyway.
  void hold(const ChunkId& id, const ChunkEntry& entry) {
    if (!entry.settled() && !entry.can_check()) held_.insert(id);
  }

  /// What was told of and is not where it might have been, once nobody needs to know any more what it is.
  void forget_told(ChunkEntry& entry) {
    for (std::size_t i = entry.copies.size(); i-- > 0 && !entry.lost();) {
      const Copy& copy = entry.copies[i];
      if (copy.told && !copy.away && copy.operation == Copy::Operation::none) erase_copy(entry, copy);
    }
  }

  /// Asks what it is that is wanted: what is on a volume that is away may be described elsewhere.
  void find_missed(ChunkEntry& entry) {
    for (Copy& copy : entry.copies) {
      const bool can_ask = copy.operation == Copy::Operation::none && !copy.retry_at && !closed_ && !recovering_;
      if (copy.missed && can_ask) begin(copy, Copy::Operation::describe);
    }
  }

  /// What is not wanted, or what another one has come for, need not be checked any more, and is not served either.
  static void settle_unchecked(ChunkEntry& entry) {
    if (entry.wanted && entry.listed() == nullptr) return;
    for (Copy& copy : entry.copies) {
      if (std::exchange(copy.unchecked, false) && copy.operation != Copy::Operation::check) copy.unfit = true;
    }
  }

  /// Serves the copy that holds what is wanted, where there is one; otherwise sees to it that there will be.
  void find_or_fetch(ChunkEntry& entry) {
    Copy* match = nullptr;
    bool comparing = false;
    const std::optional<std::uint64_t> bytes = declared_bytes(*entry.want);
    for (Copy& copy : entry.copies) {
      if (copy.unfit || copy.away || (!copy.listed && !copy.unchecked && !options_.revive)) continue;
      if (copy.generation.dataset_id != entry.want->dataset_id) continue;
      if (copy.generation.block_range != entry.want->block_range) continue;
      if (copy.unchecked) {
        comparing = true;
      } else if (!copy.content) {
        comparing = true;
        if (copy.operation == Copy::Operation::none && !copy.retry_at && !closed_ && !recovering_)
          begin(copy, Copy::Operation::describe);
      } else if (copy.holds(entry.content, bytes) && (match == nullptr || copy.listed)) {
        match = &copy;
      }
    }
    if (match != nullptr) return serve(entry, *match);
    follow_wish(entry);
    if (comparing || closed_) return;
    const bool can_queue = !entry.fetch || (entry.fetch->phase == ChunkFetch::Phase::waiting && !entry.fetch->stopping);
    if (can_queue && !entry.retry_at && !entry.queued) {
      tally_.queue().push(*entry.want, entry.asked,
                          entry.fetch ? entry.fetch->next_urls() : entry.want->files.begin()->second.urls);
      entry.queued = true;
    }
  }

  void serve(ChunkEntry& entry, Copy& copy) {
    if (!copy.listed) {
      if (Copy* older = entry.listed()) unlist(*older);
      list(copy, entry.asked);
    }
    leave_queue(entry);
    forget_failures(entry);
    forget_missed(entry);
    spend(std::move(entry.want));
    stop_fetch(entry);
  }

  void list(Copy& copy, std::uint64_t asked) {
    copy.listed = true;
    copy.drained = false;
    copy.asked = asked;
    copy.served = nullptr;  // until it is
    act(action::List{copy.generation, copy.asked});
    notify(EventKind::chunk_ready, copy.generation.id, copy.generation.number);
  }

  void unlist(Copy& copy) {
    copy.listed = false;
    copy.served = nullptr;
    act(action::Unlist{copy.generation, copy.asked});
    notify(EventKind::chunk_unlisted, copy.generation.id, copy.generation.number);
  }

  /// One operation at a time on each copy, and always the one that is due now: so a doom, the spare that
  /// takes it back and a removal cannot overtake each other.
  void settle_copy(Copy& copy) {
    if (copy.operation != Copy::Operation::none || copy.retry_at || copy.unchecked) return;
    if (copy.listed) {
      if (copy.mark != Copy::Mark::none) begin(copy, Copy::Operation::spare);
    } else if (copy.drained && !closed_ && !needs_mark_first(copy)) {
      begin(copy, Copy::Operation::remove);
    } else if (copy.mark != Copy::Mark::doomed) {
      begin(copy, Copy::Operation::doom);
    }
  }

  /// A removal that has failed may take its time: before it is tried again the next start is told, once.
  static bool needs_mark_first(const Copy& copy) noexcept {
    return copy.unfit && copy.failures > 0 && copy.mark == Copy::Mark::none;
  }

  /// Of a removal, about, in bytes: what it takes by itself is as much as it takes to give a few more back.
  static std::uint64_t weight_of(const Copy& copy) noexcept { return copy.generation.bytes + (std::uint64_t{1} << 20); }

  void begin(Copy& copy, Copy::Operation operation) {
    copy.operation = operation;
    switch (operation) {
      case Copy::Operation::none: break;
      case Copy::Operation::doom:
        copy.mark = copy.mark == Copy::Mark::none ? Copy::Mark::due : Copy::Mark::unsure;
        return act(action::Doom{copy.generation});
      case Copy::Operation::spare: copy.mark = Copy::Mark::unsure; return act(action::Spare{copy.generation});
      case Copy::Operation::remove:
        copy.unfit = true;  // even where it fails: it may be half gone
        removing_ += weight_of(copy);
        if (copy.corrupt) return act(action::Quarantine{copy.generation, *copy.corrupt});
        return act(action::Remove{copy.generation});
      case Copy::Operation::describe: return act(action::Describe{copy.generation});
      case Copy::Operation::verify: return act(action::Verify{copy.generation, VerifyDepth::digests});
      case Copy::Operation::check: return act(action::Verify{copy.generation, startup_depth()});
    }
  }

  /// Fetches anew from where it came from; without a description there is nothing to fetch it from. That comes from a
  /// disk, so it is as little trusted as that.
  void want_again(ChunkEntry& entry, const std::optional<DataChunk>& chunk) {
    if (!is_fit(entry.copies.front().generation.id, chunk)) {
      forget_missed(entry);
      // An older copy that is served is better than none.
      entry.wanted = entry.listed() != nullptr || entry.unchecked() != nullptr;
      return;
    }
    const Wish wish(*chunk);
    entry.want = wish.chunk;
    entry.content = wish.content;
  }

  [[nodiscard]] bool is_fit(const ChunkId& id, const std::optional<DataChunk>& chunk) const {
    return chunk && chunk->id == id && !validate(*chunk, {options_.max_files, options_.max_chunk_bytes});
  }

  // ---- small things

  [[nodiscard]] VerifyDepth startup_depth() const noexcept {
    return startup_check_ == StartupCheck::sizes ? VerifyDepth::sizes : VerifyDepth::digests;
  }

  static void forget_missed(ChunkEntry& entry) {
    for (Copy& copy : entry.copies) copy.missed = false;
  }

  void set_alarm(const ChunkId& id, ChunkEntry& entry) {
    std::optional<Instant> next = entry.retry_at;
    for (const Copy& copy : entry.copies) {
      if (copy.retry_at && (!next || *copy.retry_at < *next)) next = copy.retry_at;
    }
    if (next == entry.alarm) return;
    if (entry.alarm) alarms_.cancel(*entry.alarm, id);
    if (next) alarms_.set(*next, id);
    entry.alarm = next;
  }

  const StartupCheck startup_check_;
  ChunkEntries entries_;
  std::vector<VolumeStatus> volumes_;
  std::vector<std::set<ChunkId>> held_on_;  // by volume, which chunks have a copy there; none where there is one volume
  Alarms alarms_;
  std::set<std::pair<std::uint64_t, ChunkId>> startable_;  // fetches with pending files, the oldest first
  std::set<ChunkId> checkable_;
  std::uint64_t removing_ = 0;  // the weights of the removals that are under way
  bool recovering_ = false;     // it is not known yet what the store holds
  std::set<ChunkId> held_;      // what waits for that
  std::size_t checks_ = 0;      // under way
  Scrub scrub_;
  bool cleaning_ = false;
  std::uint64_t failed_clean_ups_ = 0;
  std::optional<Instant> clean_up_at_;  // not before
  std::uint64_t asked_ = 0;
  Epoch epoch_ = 0;
  std::size_t moving_files_ = 0;
  std::uint64_t chunks_published_ = 0;
  std::uint64_t chunks_removed_ = 0;
  std::uint64_t chunks_quarantined_ = 0;
};

}  // namespace garner::core
