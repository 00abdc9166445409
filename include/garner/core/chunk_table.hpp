// SPDX-License-Identifier: BSL-1.0
//
// The state machine of all chunks: calls, reports and the time go in, actions come out. No thread, lock, clock, disk or
// socket: it decides, `data_manager.hpp` does. Here are the inputs; the questions are in `core/chunk_questions.hpp`,
// the rules that every input ends in are in `core/chunk_rules.hpp`, the order of many in `core/chunk_turns.hpp`.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/chunk_fetch.hpp"
#include "garner/core/chunk_questions.hpp"
#include "garner/core/schedule.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// Thread-safety: none; one caller at a time. Each input is O(log n), but for `assign` and `close`, which are
/// O(n).
class ChunkTable : public ChunkQuestions {
 public:
  ChunkTable(const Options& options, std::uint64_t seed) : ChunkQuestions(options, seed) {}

  /// What is to be done, in order. Performed in that order, `List`, `Unlist` and `Condemn` at once.
  std::vector<Action>& actions() noexcept { return actions_; }

  /// Nobody needs it any more, and freeing it takes long: to be taken from here, and freed where it holds up nobody.
  std::vector<std::shared_ptr<const void>>& spent() noexcept { return spent_; }

  // ---- calls

  void download(const Wish& wish, Instant now) {
    if (closed_) return;
    note_wish(wish.chunk->id);
    want(wish, now);
    pump(now);
  }

  void remove(const ChunkId& id, Instant now) {
    if (closed_) return;
    note_deletion(id);
    unwant(id, now);
    pump(now);
  }

  /// Makes `wishes` what is wanted, and nothing else.
  Epoch assign(const std::vector<Wish>& wishes, Instant now) {
    if (closed_) return epoch_;
    if (!recovering_) deleted_unseen_.clear();
    for (const Wish& wish : wishes) note_wish(wish.chunk->id);
    ++epoch_;
    for (const Wish& wish : wishes) {
      want(wish, now);
      detail::Served* served = entries_.resting(wish.chunk->id);
      (served != nullptr ? served->named : entries_.at(wish.chunk->id).named) = true;
    }
    std::vector<ChunkId> unwanted;
    const auto see = [&unwanted](auto& chunk, bool is_wanted) {
      if (!std::exchange(chunk.named, false) && is_wanted) unwanted.push_back(chunk.id);
    };
    entries_.visit([&](ChunkEntry& entry) { see(entry, entry.wanted); });
    entries_.visit_resting([&](detail::Served& served) { see(served, true); });
    for (const ChunkId& id : unwanted) unwant(id, now);
    pump(now);
    return epoch_;
  }

  /// Re-reads these chunks, which are in their order, one after another, and behind the one that was re-read last, and
  /// looks at the volumes. Takes
  /// them; what is then in `ids` is to be freed.
  void verify(std::vector<ChunkId>& ids, Instant now) {
    if (closed_) return;
    examine_soon();
    scrub_.begin(ids, false, now);
    pump(now);
  }

  /// Takes `options`; what is then in there is to be destroyed.
  void set_options(Options& options, Instant now) {
    std::swap(options_, options);
    pump(now);
  }

  /// Stops what moves, keeps its staging, and asks for no more but the marks that make deletions outlive the
  /// process.
  void close(Instant now) {
    if (closed_) return;
    closed_ = true;
    scrub_.stop();
    std::vector<ChunkId> all;
    entries_.visit([&all](const ChunkEntry& entry) { all.push_back(entry.id); });
    // What waits to be tried again gets its last chance.
    for (const ChunkId& id : all) {
      touch(id, now, [](ChunkEntry& entry) {
        for (Copy& copy : entry.copies) copy.retry_at.reset();
      });
    }
  }

  void woken(Instant now) {
    if (clean_up_at_ && *clean_up_at_ <= now) clean_up_at_.reset();
    if (examine_at_ && *examine_at_ <= now) examine_at_.reset();
    if (partial_until_ && *partial_until_ <= now) drop_partial();
    while (const std::optional<ChunkId> id = alarms_.pop_due(now)) {
      touch(*id, now, [now](ChunkEntry& entry) {
        entry.alarm.reset();
        if (entry.retry_at && *entry.retry_at <= now) entry.retry_at.reset();
        for (Copy& copy : entry.copies) {
          if (copy.retry_at && *copy.retry_at <= now) copy.retry_at.reset();
        }
      });
    }
    pump(now);
  }

  // ---- reports: one for each action that asks for one; those about what is being fetched are in the base

  void cleaned_up(const Outcome& outcome, Instant now) {
    --unreported_;
    cleaning_ = false;
    if (outcome.ok()) {
      failed_clean_ups_ = 0;
    } else {
      doubt(outcome.error);
      litter_ = true;
      clean_up_at_ = now + Backoff{options_.min_backoff, options_.max_backoff}.delay(failed_clean_ups_++, random_);
    }
    pump(now);
  }

  /// `List` was performed: it serves the generation as long as that is listed, and may keep what is known of the chunk.
  void served(detail::Served& by) {
    ChunkEntry* const entry = entries_.find(by.id);
    Copy* const copy = entry == nullptr ? nullptr : entry->copy(by.generation());
    if (copy == nullptr || !copy->listed) return;  // not any more
    copy->served = &by;
    entries_.settle(*entry);
  }

  /// Nobody has a pin on this generation any more, and nobody can get one: it is not listed.
  void drained(const Generation& generation, Instant now) {
    touch(generation.id, now, [&](ChunkEntry& entry) {
      Copy* copy = entry.copy(generation);
      if (copy == nullptr || copy->listed) return;
      copy->drained = true;
      if (!closed_) copy->retry_at.reset();
    });
    pump(now);
  }

  /// When a Doom is about to be performed: true where it is not to be, and this was the report of it. Mostly the last
  /// pin has gone by then. Its removal needs no mark before it, as long as it comes soon: not where many are under way.
  bool withdraw_doom(const Generation& generation, Instant now) {
    constexpr std::uint64_t most_removing = std::uint64_t{1} << 30;  // a thousand small chunks, five of 200 MB
    Copy& copy = *entries_.at(generation.id).copy(generation);
    const bool is_soon = copy.drained && !copy.away && !closed_ && removing_ < most_removing;
    if (copy.mark == Copy::Mark::due && copy.failures == 0 && (is_soon || copy.listed)) {
      operation_done(generation, {}, now, [](ChunkEntry&, Copy& moot) { moot.mark = Copy::Mark::none; });
      return true;
    }
    copy.mark = Copy::Mark::unsure;
    return false;
  }

  void doomed(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [](ChunkEntry&, Copy& copy) { copy.mark = Copy::Mark::doomed; });
  }

  void spared(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [](ChunkEntry&, Copy& copy) { copy.mark = Copy::Mark::none; });
  }

  void removed(const Generation& generation, const Outcome& outcome, Instant now) {
    operation_done(generation, outcome, now, [&](ChunkEntry& entry, const Copy& copy) {
      if (copy.corrupt) ++chunks_quarantined_;
      erase_copy(entry, copy);
      ++chunks_removed_;
      notify(EventKind::chunk_removed, generation.id, generation.number);
    });
    if (outcome.ok()) end_parking(now);
  }

  /// `chunk` is what the generation holds. Where that cannot be told it is not what is wanted, but a store that is
  /// short of something for a moment is asked a few times before a whole chunk is fetched for that.
  void described(const Generation& generation, const Outcome& outcome, const std::optional<DataChunk>& chunk,
                 Instant now) {
    constexpr std::uint64_t max_failures = 3;
    const bool is_certain = outcome.error == errc::corrupt_chunk || outcome.error == errc::no_such_generation;
    ChunkEntry& of = entries_.at(generation.id);
    const Copy& asked = *of.copy(generation);
    // Who else could describe what is on a volume that is away may be away itself; and what cannot be wanted under
    // these options can be under others.
    const bool may_yet = of.lost() && (asked.away || any_unseen());
    const bool is_of_use = outcome.ok() && (!may_yet || is_fit(generation.id, chunk));
    const bool is_moot = asked.told && !asked.away && !asked.missed;
    const bool is_open = may_yet || asked.away || (!is_certain && failures_of(generation) < max_failures);
    const bool again = !is_of_use && is_open && !is_moot;
    // What is wrong with a description elsewhere is not wrong with the chunk.
    const bool is_own = !outcome.ok() && !is_certain;
    const Outcome told = is_own ? outcome : Outcome{errc::io_error, "chunk " + generation.id.to_hex(), std::nullopt};
    operation_done(generation, again ? told : Outcome(), now, [&](ChunkEntry& entry, Copy& copy) {
      copy.content = chunk ? content_fingerprint(*chunk) : ContentFingerprint{};
      if (!copy.missed || !entry.lost()) return;
      if (!chunk) notify_failure(generation.id, generation.number, outcome);
      want_again(entry, chunk);
    });
  }

  /// With `errc::corrupt_chunk`: `chunk` is the generation's description, where it can still be read. What is not there
  /// at all (`errc::no_such_generation`) is no better.
  void verified(const Generation& generation, const Outcome& outcome, const std::optional<DataChunk>& chunk,
                Instant now) {
    const Copy& verified = *entries_.at(generation.id).copy(generation);
    if (verified.operation == Copy::Operation::check) return checked(verified, outcome, chunk, now);
    scrub_.done(outcome.ok()                       ? Scrub::Result::whole
                : is_wrong(outcome)                ? Scrub::Result::corrupt
                : outcome.error == errc::cancelled ? Scrub::Result::cancelled
                                                   : Scrub::Result::unreadable);
    operation_done(generation, {}, now, [&](ChunkEntry& entry, Copy& copy) {
      if (outcome.ok() || outcome.error == errc::cancelled) return;
      notify_failure(generation.id, generation.number, outcome);
      doubt(outcome.error);
      if (is_wrong(outcome)) condemn(entry, copy, outcome, chunk);
    });
  }

  /// The ids of all that is listed, in their order; as `verify` takes them.
  void held(std::vector<ChunkId>& ids, Instant now) {
    --unreported_;
    scrub_.begin(ids, true, now);
    pump(now);
  }

  // ---- volumes

  /// What the store has told of its volumes by the way.
  void volumes_told(const std::vector<VolumeStatus>& volumes, Instant now) {
    if (volumes_.empty() && volumes.size() == 1) note_only_volume(volumes.front());
    note_read_only(volumes, now);
    pump(now);
  }

  /// On a volume that was away and has been opened anew there is this generation. What nobody knows counts as found by
  /// a start; but once an assignment has been made, nothing is wanted that it does not name.
  void found(const Generation& generation, Instant now) {
    last_generation_ = std::max(last_generation_, generation.number);
    touch(generation.id, now, [&](ChunkEntry& entry) {
      if (Copy* copy = known_copy(entry, generation)) return come_back(entry, *copy);
      const bool is_unknown = entry.empty();
      if (is_unknown && closed_) return;  // as it is, for the next start
      Copy* listed = entry.listed();
      const bool is_newer = adopted_.contains(generation.id) && listed != nullptr && !entry.want &&
                            listed->generation.number < generation.number;
      if (is_newer) unlist(*listed);
      Copy& copy = add_copy(entry, generation);
      copy.away = false;
      copy.drained = true;
      const bool is_adopted = is_unknown && epoch_ == 0 && !deleted_unseen_.contains(generation.id);
      if (!is_adopted && !is_newer) return;
      adopted_.insert(generation.id);
      entry.wanted = true;
      if (is_unknown) entry.asked = ++asked_;
      list(copy, entry.asked);
    });
    pump(now);
  }

  void examined(const std::vector<VolumeStatus>& volumes, Instant now) {
    --unreported_;
    if (take_examination(volumes, now)) return end_parking(now);
    pump(now);
  }

 private:
  static bool is_wrong(const Outcome& outcome) {
    return outcome.error == errc::corrupt_chunk || outcome.error == errc::no_such_generation;
  }

  /// The check after a start. Served is what passed it. A disk that does not give the bytes of a chunk is asked a few
  /// times, where it tells at least what to fetch; whatever else keeps one from being checked, it waits for.
  void checked(const Copy& checked, const Outcome& outcome, const std::optional<DataChunk>& chunk, Instant now) {
    constexpr std::uint64_t max_failures = 3;
    --checks_;
    const bool is_lost =
        is_wrong(outcome) || (outcome.error == errc::io_error && is_fit(checked.generation.id, chunk) &&
                              checked.failures + 1 >= max_failures);
    const bool again = !is_lost && checked.unchecked && outcome.error != errc::cancelled;
    const Generation generation = checked.generation;
    operation_done(generation, again ? outcome : Outcome(), now, [&](ChunkEntry& entry, Copy& copy) {
      if (is_lost) {
        notify_failure(generation.id, generation.number, outcome);
        condemn(entry, copy, outcome, chunk);
      } else if (copy.away) {
        // When its volume is back it is checked again.
      } else if (!outcome.ok()) {
        copy.unfit = copy.unfit || !copy.unchecked;  // nobody will check it again
      } else if (std::exchange(copy.unchecked, false)) {
        list(copy, entry.asked);
      }
    });
  }

  /// The copy is not to be served again.
  void condemn(ChunkEntry& entry, Copy& copy, const Outcome& outcome, const std::optional<DataChunk>& chunk) {
    const bool was_needed = copy.listed || copy.unchecked;
    copy.unfit = true;
    copy.unchecked = false;
    if (outcome.error != errc::no_such_generation)
      copy.corrupt = std::make_unique<const std::string>(outcome.subject + ": " + outcome.error.message());
    if (copy.listed) {
      unlist(copy);
      // Nobody has re-read the others: none of them takes its place.
      for (Copy& other : entry.copies) other.unfit = true;
    }
    act(action::Condemn{copy.generation});
    // Meanwhile another copy may have taken its place.
    if (!was_needed) return;
    if (!entry.wanted || entry.want) return;
    if (is_fit(copy.generation.id, chunk)) return want_again(entry, chunk);
    // Of several that the start found an older one may still be whole, or one that is away.
    entry.wanted = entry.unchecked() != nullptr || entry.lost();
  }
};

}  // namespace garner::core
