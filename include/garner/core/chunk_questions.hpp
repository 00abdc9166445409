// SPDX-License-Identifier: BSL-1.0
//
// What can be asked of the state machine, and changes nothing in it.
#pragma once

#include <algorithm>
#include <optional>

#include "garner/chunk.hpp"
#include "garner/core/chunk_entry.hpp"
#include "garner/core/chunk_recovery.hpp"
#include "garner/core/schedule.hpp"
#include "garner/error.hpp"
#include "garner/status.hpp"

namespace garner::core {

class ChunkQuestions : public ChunkRecovery {
 public:
  /// When to call `woken`.
  [[nodiscard]] std::optional<Instant> next_wake() const {
    if (recovering_) return std::nullopt;
    std::optional<Instant> next = alarms_.next();
    for (const std::optional<Instant>& at : {hold_until_, clean_up_at_, partial_until_, scrub_.wake(options_),
                                             next_look(), next_rested(), next_release()}) {
      if (at && (!next || *at < *next)) next = at;
    }
    return next;
  }
  /// Whether what is wanted is served, and what is not wanted is only kept by pins.
  [[nodiscard]] bool settled() const noexcept {
    return tally_.settled() && !litter_ && !cleaning_ && !in_doubt() && !recovering_;
  }
  /// Whether every action has been reported on.
  [[nodiscard]] bool idle() const noexcept { return unreported_ == 0; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }
  [[nodiscard]] Epoch epoch() const noexcept { return epoch_; }

  void fill(Status& status) const {
    tally_.fill(status);
    fill_recovery(status);
    status.scrub = scrub_.status();
    status.chunks_published = chunks_published_;
    status.chunks_removed = chunks_removed_;
    status.chunks_quarantined = chunks_quarantined_;
    status.attempts_failed = attempts_failed_;
    status.assigned_epoch = epoch_;
    status.filled = filled_;
    status.closed = closed_;
  }

  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id, Instant now) const {
    ChunkStatus status;
    if (entries_.resting(id) != nullptr) {
      status.state = ChunkState::ready;
      status.wanted = status.served = true;
      return status;
    }
    const ChunkEntry* entry = entries_.find(id);
    if (entry == nullptr) return std::nullopt;
    status.state = entry->state();
    status.wanted = entry->wanted;
    status.served =
        std::any_of(entry->copies.begin(), entry->copies.end(), [](const Copy& copy) { return copy.listed; });
    if (entry->failures) {
      status.attempts = entry->failures->attempts;
      status.last_error = entry->failures->error;
      status.last_error_class = classify(entry->failures->error);
      status.last_error_subject = entry->failures->subject;
    }
    if (entry->retry_at) status.next_try_in = std::max(Instant{}, *entry->retry_at - now);
    return status;
  }

 protected:
  using ChunkRecovery::ChunkRecovery;
};

}  // namespace garner::core
