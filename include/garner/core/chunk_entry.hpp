// SPDX-License-Identifier: BSL-1.0
//
// All that is known of one chunk: what is wanted of it, its generations in the store, and the one on its way
// in. State and questions about it; the rules that change it are in `core/chunk_table.hpp`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/chunk_fetch.hpp"
#include "garner/core/schedule.hpp"
#include "garner/policies/storage.hpp"
#include "garner/served.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// A published generation.
struct Copy {
  enum class Operation : std::uint8_t { none, doom, spare, remove, describe, verify, check };

  /// Whether the next start would find it. `none`: it would; `due`: it would yet, and a doom is asked for, the first;
  /// `unsure`: a doom or a spare is under way or has failed, so nobody knows; `doomed`: it would not.
  enum class Mark : std::uint8_t { none, due, unsure, doomed };

  explicit Copy(const Generation& published) : generation(published) {}

  Generation generation;
  std::optional<ContentFingerprint> content;   ///< not known before it was described, after a start
  bool listed = false;                         ///< served
  bool drained = false;                        ///< nobody has a pin on it
  bool unfit = false;                          ///< not to be served again: its removal has begun, or it is corrupt
  bool unchecked = false;                      ///< found by the start, and not to be served before it was checked
  bool away = false;                           ///< its volume is: nothing is asked of it but what else tells it
  bool told = false;                           ///< it has not been seen: some volume that is away may have it
  bool missed = false;                         ///< it was served when its volume went away, and is wanted since
  std::unique_ptr<const std::string> corrupt;  ///< why it is; then it is set aside in the end
  Mark mark = Mark::none;
  Operation operation = Operation::none;  ///< in the store, under way: one at a time
  std::uint64_t failures = 0;             ///< of the operation that is due
  std::optional<Instant> retry_at;        ///< of it
  std::uint64_t asked = 0;                ///< the chunk's place in the order of asking, as it was listed last
  detail::Served* served = nullptr;       ///< what serves it, once that is there

  /// Whether nothing is under way or to be remembered.
  [[nodiscard]] bool at_rest() const {
    const bool is_odd = drained || unfit || unchecked || away || told || missed || corrupt;
    return served != nullptr && listed && !is_odd && mark == Mark::none && operation == Operation::none &&
           failures == 0 && !retry_at;
  }

  /// Whether it is known to hold `wanted`.
  [[nodiscard]] bool holds(const std::optional<ContentFingerprint>& wanted,
                           const std::optional<std::uint64_t>& bytes) const {
    return content && content == wanted && (!bytes || bytes == generation.bytes);
  }
};

/// Of the attempts to fetch, since the chunk was wanted or last ready.
struct Failures {
  std::uint64_t attempts = 0;
  std::uint64_t streak = 0;  ///< of them, those since the last file that came through
  std::error_code error;
  std::string subject;
};

struct ChunkEntry {
  explicit ChunkEntry(const ChunkId& chunk) : id(chunk) {}

  const ChunkId id;
  ChunkEntry* next = nullptr;  ///< in its table
  bool wanted = false;
  bool queued = false;
  bool parked = false;                        ///< the store was full
  std::uint64_t asked = 0;                    ///< its place in the order of asking
  bool named = false;                         ///< by the assignment that is being made
  std::shared_ptr<const DataChunk> want;      ///< what is wanted, until a copy is known to hold it
  std::optional<ContentFingerprint> content;  ///< of what is wanted, where that is known
  std::vector<Copy> copies;
  std::unique_ptr<ChunkFetch> fetch;
  std::optional<Instant> retry_at;  ///< nothing is fetched before
  std::unique_ptr<Failures> failures;
  std::optional<Instant> alarm;  ///< as set in the alarms

  [[nodiscard]] Copy* listed() {
    const auto it = std::find_if(copies.begin(), copies.end(), [](const Copy& copy) { return copy.listed; });
    return it == copies.end() ? nullptr : &*it;
  }

  [[nodiscard]] Copy* copy(const Generation& generation) {
    const auto it =
        std::find_if(copies.begin(), copies.end(), [&](const Copy& copy) { return copy.generation == generation; });
    return it == copies.end() ? nullptr : &*it;
  }

  /// Of what the start found, the newest that may still be served. None once another is.
  [[nodiscard]] const Copy* unchecked() const {
    const Copy* newest = nullptr;
    for (const Copy& copy : copies) {
      if (copy.listed) return nullptr;
      if (!copy.unchecked || copy.away) continue;
      if (newest == nullptr || newest->generation.number < copy.generation.number) newest = &copy;
    }
    return newest;
  }

  /// Whether that one is to be checked now.
  [[nodiscard]] bool can_check() const {
    const Copy* copy = wanted ? unchecked() : nullptr;
    return copy != nullptr && copy->operation == Copy::Operation::none && !copy->retry_at;
  }

  /// It is wanted, and what it is is known to nobody but a volume that is away.
  [[nodiscard]] bool lost() const {
    if (!wanted || want) return false;
    return std::any_of(copies.begin(), copies.end(), [](const Copy& copy) { return copy.missed; });
  }

  /// The dataset that it is missing from: what is wanted is not there.
  [[nodiscard]] std::optional<DatasetId> missing_from() const {
    return wanted && want ? std::optional(want->dataset_id) : std::nullopt;
  }

  [[nodiscard]] bool empty() const noexcept { return !wanted && copies.empty() && !fetch; }

  /// Whether there is nothing to be known but what `give` can keep.
  [[nodiscard]] bool at_rest() const {
    const bool is_odd = want || queued || parked || fetch || retry_at || failures || alarm;
    return wanted && !is_odd && copies.size() == 1 && copies.front().at_rest() && copies.front().asked == asked;
  }

  /// Puts what is known into what serves it.
  [[nodiscard]] detail::Served& give() const {
    const Copy& copy = copies.front();
    detail::Served& served = *copy.served;
    served.asked = asked;
    served.is_content_known = copy.content.has_value();
    served.content = copy.content.value_or(ContentFingerprint{});
    served.named = named;
    return served;
  }

  /// The other way round, into one that is empty.
  void take(detail::Served& served) {
    wanted = true;
    asked = served.asked;
    named = served.named;
    Copy& copy = copies.emplace_back(served.generation());
    if (served.is_content_known) copy.content = served.content;
    copy.listed = true;
    copy.asked = asked;
    copy.served = &served;
  }

  /// Nothing is left to do: what is wanted is served, what is not wanted is doomed and only pins keep it.
  [[nodiscard]] bool settled() const {
    if ((wanted && want) || fetch || lost()) return false;
    return std::all_of(copies.begin(), copies.end(), [](const Copy& copy) {
      if (copy.away) return true;
      if (copy.listed && copy.operation == Copy::Operation::verify) return copy.mark == Copy::Mark::none;
      if (copy.operation != Copy::Operation::none) return false;
      return copy.listed ? copy.mark == Copy::Mark::none : copy.mark == Copy::Mark::doomed && !copy.drained;
    });
  }

  [[nodiscard]] ChunkState state() const {
    if (!wanted) {
      const bool pinned = std::any_of(copies.begin(), copies.end(), [](const Copy& copy) {
        return !copy.drained && copy.operation != Copy::Operation::remove;
      });
      return pinned ? ChunkState::draining : ChunkState::removing;
    }
    const bool is_unchecked = unchecked() != nullptr;
    if (!want) return is_unchecked ? ChunkState::checking : lost() ? ChunkState::waiting : ChunkState::ready;
    if (queued) return parked ? ChunkState::parked : ChunkState::queued;
    if (fetch && !fetch->stopping) {
      if (fetch->phase == ChunkFetch::Phase::staging || fetch->phase == ChunkFetch::Phase::transferring) {
        return ChunkState::downloading;
      }
      if (fetch->phase == ChunkFetch::Phase::publishing) return ChunkState::publishing;
    }
    if (is_unchecked) return ChunkState::checking;
    if (parked) return ChunkState::parked;
    return retry_at ? ChunkState::waiting : ChunkState::queued;
  }
};

}  // namespace garner::core
