// SPDX-License-Identifier: BSL-1.0
//
// The inputs about what is being fetched: the reports of staging, transfers and publishing, and what the store has room
// for.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/chunk_fetch.hpp"
#include "garner/core/chunk_turns.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"

namespace garner::core {

class FetchReports : protected ChunkTurns {
 public:
  void staged(const ChunkId& id, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      entry.fetch->phase = ChunkFetch::Phase::transferring;
      if (!outcome.ok()) {
        attempt_failed(entry, id, outcome, now);
        drop_fetch(entry);
      }
    });
  }

  void file_done(const ChunkId& id, TransferId transfer, const Outcome& outcome, Instant now) {
    --moving_files_;
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      ChunkFetch& fetch = *entry.fetch;
      const ErrorClass cls = classify(outcome.error);
      const ChunkFetch::Ended ended = outcome.ok() ? fetch.file_done(transfer) : fetch.file_failed(transfer, cls);
      hosts_.ended(ended.host, ended.began, outcome, options_, limits_.max_files_per_host, now, random_);
      // Where the store failed, that is what counts, whatever else ends because of it.
      if (outcome.ok() || fetch.spoiled || (cls == ErrorClass::cancelled && fetch.halted)) return;
      if (hope(outcome) >= hope(fetch.failure)) fetch.failure = outcome;
      if (cls == ErrorClass::local || cls == ErrorClass::no_space) fetch.spoiled = true;
      if (!options_.refresh || fetch.spoiled || fetch.stopping || closed_ || !fetch.needs_refresh(transfer)) return;
      action::Refresh refresh = fetch.refresh(transfer);
      refresh.ask = options_.refresh;
      act(std::move(refresh));
    });
  }

  /// `source` is where the file is to come from now; the transfer's server had rejected the credentials. With an error,
  /// why there is none.
  void refreshed(const ChunkId& id, TransferId transfer, const std::optional<FileSource>& source,
                 const Outcome& outcome, Instant now) {
    report(id, now, [&](ChunkEntry& entry) {
      ChunkFetch& fetch = *entry.fetch;
      fetch.refreshed(transfer, source ? &*source : nullptr, hosts_);
      if (!outcome.ok() && hope(outcome) >= hope(fetch.failure)) fetch.failure = outcome;
    });
  }

  /// The server answers a transfer that was to find out about it.
  void answered(const ChunkId& id, TransferId transfer, Instant now) {
    entries_.at(id).fetch->answered(transfer);
    pump(now);
  }

  /// A server has told the size of a file that is being fetched, which nobody had declared. False where the budget does
  /// not allow it: then the transfer is to end with `errc::over_budget`, before a byte of it is kept.
  bool sized(const ChunkId& id, TransferId transfer, std::uint64_t bytes, Instant now) {
    touch(id, now, [&](ChunkEntry& entry) { entry.fetch->sized(transfer, bytes); });
    if (tally_.budget().fits(options_, 0)) return true;
    touch(id, now, [&](ChunkEntry& entry) { entry.fetch->sized(transfer, 0); });
    return false;
  }

  /// What the store has and has room for; `staged`: bytes of it that are being fetched.
  void measured(const StoreUsage& usage, std::uint64_t staged, Instant now) {
    tally_.budget().measured(usage, staged);
    pump(now);
  }

  void published(const ChunkId& id, const Generation& generation, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [&](ChunkEntry& entry) {
      if (!outcome.ok()) {
        entry.fetch->failure = outcome;
        entry.fetch->spoiled = true;
        entry.fetch->phase = ChunkFetch::Phase::transferring;
        return;
      }
      ++chunks_published_;
      // Its volume may have been opened anew meanwhile, and have told of it.
      Copy* known = entry.copy(generation);
      Copy& copy = known != nullptr ? *known : add_copy(entry, generation);
      copy.content = entry.fetch->content();
      copy.drained = !copy.listed;  // nobody has seen it yet
      drop_fetch(entry);
      if (entry.want && !copy.away && !copy.unfit && copy.holds(entry.content, declared_bytes(*entry.want)))
        serve(entry, copy);
    });
  }

  /// With an error, something is left to be cleaned up.
  void discarded(const ChunkId& id, const Outcome& outcome, Instant now) {
    litter_ = litter_ || !outcome.ok();
    doubt(outcome.error);
    report(id, now, [this](ChunkEntry& entry) { drop_fetch(entry); });
  }

 protected:
  using ChunkTurns::ChunkTurns;

 private:
  /// Of several failures the one that may mend first says when it is worth trying again.
  static int hope(const Outcome& outcome) noexcept {
    switch (classify(outcome.error)) {
      case ErrorClass::none: return 0;
      case ErrorClass::invalid:
      case ErrorClass::gone: return 1;
      case ErrorClass::credentials: return 2;
      case ErrorClass::wrong_bytes: return 3;
      case ErrorClass::transient: return 4;
      case ErrorClass::cancelled: return 5;
      case ErrorClass::local:
      case ErrorClass::no_space: break;
    }
    return 6;
  }
};

}  // namespace garner::core
