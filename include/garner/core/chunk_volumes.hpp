// SPDX-License-Identifier: BSL-1.0
//
// The volumes that copies are on: which of them is away, what becomes of its copies then and when it is back, and when
// to look again. Copies are gone through a few at a time. Where there is one volume, nothing of this happens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/core/chunk_rules.hpp"

namespace garner::core {

class ChunkVolumes : protected ChunkRules {
 protected:
  using ChunkRules::ChunkRules;

  /// Copies that one input goes through.
  static constexpr std::size_t slice = 64;

  void volumes_are(std::vector<VolumeStatus> volumes) {
    volumes_ = std::move(volumes);
    if (volumes_.size() > 1) held_on_.resize(volumes_.size());
  }

  // ---- copies

  /// The copy that is found on a volume, if it is known. Who described it knew that some volume holds it, but not
  /// which.
  Copy* known_copy(ChunkEntry& entry, const Generation& generation) {
    if (Copy* copy = entry.copy(generation)) return copy;
    const auto told_of = std::find_if(entry.copies.begin(), entry.copies.end(), [&](const Copy& copy) {
      Generation there = copy.generation;
      there.volume = generation.volume;
      return copy.away && copy.told && there == generation;
    });
    if (told_of == entry.copies.end()) return nullptr;
    const bool was_missed = std::exchange(told_of->missed, false);
    const std::optional<ContentFingerprint> content = told_of->content;
    if (told_of->operation == Copy::Operation::none) erase_copy(entry, *told_of);
    Copy& copy = add_copy(entry, generation);
    copy.content = content;
    copy.missed = was_missed;
    copy.drained = copy.away = true;  // for the moment
    return &copy;
  }

  /// Its volume is back. What was served and is still wanted is served again: where that is what it holds no byte
  /// moves, and where another version was asked for since, it is served until that one is there.
  void come_back(ChunkEntry& entry, Copy& copy) {
    if (!std::exchange(copy.away, false)) return;
    copy.told = false;
    copy.retry_at.reset();
    if (!copy.missed || copy.unfit) return;
    if (copy.unchecked) {  // and is to be, now
      copy.missed = false;
      return;
    }
    if (!entry.want) return serve(entry, copy);
    forget_missed(entry);
    if (Copy* older = entry.listed()) unlist(*older);
    list(copy, entry.asked);
  }

  // ---- doubt

  /// An operation of the store failed: it may be that a disk did. What says nothing of a disk is not asked about.
  void doubt(std::error_code error) {
    if (volumes_.size() < 2 || classify(error) != ErrorClass::local) return;
    for (const errc other :
         {errc::corrupt_chunk, errc::no_such_generation, errc::too_many_open_files, errc::policy_failed}) {
      if (error == other) return;
    }
    in_doubt_ = true;
  }

  void examine_soon() { in_doubt_ = volumes_.size() > 1; }

  /// Whether it is not known yet what the volumes can do, or not all of what follows from it is done.
  [[nodiscard]] bool in_doubt() const noexcept { return in_doubt_ || examining_doubt_ || !sweeps_.empty(); }

  /// When there is something to be done about volumes.
  [[nodiscard]] std::optional<Instant> next_look() const {
    if (!sweeps_.empty()) return Instant{};
    return examine_at_;
  }

  /// Whether some volume has not been seen since the start.
  [[nodiscard]] bool any_unseen() const {
    return std::any_of(volumes_.begin(), volumes_.end(), [](const auto& volume) { return volume.openings == 0; });
  }

  /// Goes on with what is to be done; examines where that is due. Not before all is done that the last time showed:
  /// what comes back then comes to copies that are away.
  void attend_volumes(Instant now) {
    sweep(now);
    const bool is_due = in_doubt_ || (any_unhealthy() && !examine_at_);
    if (!is_due || examining_ || !sweeps_.empty()) return;
    examining_ = true;
    examining_doubt_ = std::exchange(in_doubt_, false);
    examine_at_.reset();
    adopted_.clear();
    act(action::Examine{});
  }

  /// Whether something may be put where it could not be put before.
  bool take_examination(const std::vector<VolumeStatus>& volumes, Instant now) {
    bool is_better = false;
    examining_ = examining_doubt_ = false;
    adopted_.clear();
    for (std::uint32_t index = 0; index < std::min(volumes.size(), volumes_.size()); ++index) {
      const VolumeStatus& is = volumes[index];
      const VolumeStatus was = std::exchange(volumes_[index], is);
      if (was.state == is.state) continue;
      is_better = is_better || is.state == VolumeState::healthy;
      looks_ = 0;
      tell(is);
      if (is.state == VolumeState::away) {
        sweeps_.push_back({index, Change::went_away, std::nullopt});
      } else if (was.state == VolumeState::away) {
        const Change change = was.openings == is.openings ? Change::came_back : Change::was_opened;
        sweeps_.push_back({index, change, std::nullopt});
        litter_ = true;
      }
    }
    if (!any_unseen()) deleted_unseen_.clear();
    watch_volumes(now);
    return is_better;
  }

  /// Looks again at what is not healthy: soon at first, and then less and less often.
  void watch_volumes(Instant now) {
    examine_at_.reset();
    if (!any_unhealthy()) return;
    examine_at_ =
        now + options_.min_backoff + Backoff{options_.min_backoff, options_.no_space_retry}.delay(looks_++, random_);
  }

  /// Where there is one volume, nothing can be examined, and the store finds out by itself.
  void note_only_volume(const VolumeStatus& volume) {
    if (std::exchange(only_state_, volume.state) != volume.state) tell(volume);
  }

  /// The store found out by itself that something cannot be put there.
  void note_read_only(const std::vector<VolumeStatus>& volumes, Instant now) {
    for (std::size_t index = 0; index < std::min(volumes.size(), volumes_.size()); ++index) {
      const bool is_news =
          volumes_[index].state == VolumeState::healthy && volumes[index].state == VolumeState::read_only;
      if (!is_news || examining_) continue;
      volumes_[index].state = VolumeState::read_only;
      tell(volumes_[index]);
      watch_volumes(now);
    }
  }

  std::optional<Instant> examine_at_;
  std::set<ChunkId> adopted_;         ///< found by the examination that is under way, and wanted since
  std::set<ChunkId> deleted_unseen_;  ///< since the start, while some volume has not been seen

 private:
  enum class Change : std::uint8_t { went_away, came_back, was_opened };
  struct Sweep {
    std::uint32_t volume;
    Change change;
    std::optional<ChunkId> last;
  };

  [[nodiscard]] bool any_unhealthy() const {
    return volumes_.size() > 1 && std::any_of(volumes_.begin(), volumes_.end(), [](const VolumeStatus& volume) {
             return volume.state != VolumeState::healthy;
           });
  }

  void tell(const VolumeStatus& volume) {
    switch (volume.state) {
      case VolumeState::healthy: return notify_volume(EventKind::volume_healthy, volume.path);
      case VolumeState::read_only: return notify_volume(EventKind::volume_read_only, volume.path);
      case VolumeState::away: return notify_volume(EventKind::volume_away, volume.path);
    }
  }

  void sweep(Instant now) {
    for (std::size_t left = slice; left > 0 && !sweeps_.empty(); --left) {
      Sweep& sweep = sweeps_.front();
      const std::set<ChunkId>& ids = held_on_[sweep.volume];
      const auto at = sweep.last ? ids.upper_bound(*sweep.last) : ids.begin();
      if (at == ids.end()) {
        sweeps_.erase(sweeps_.begin());
        continue;
      }
      const ChunkId id = *(sweep.last = *at);
      touch(id, now, [&, volume = sweep.volume, change = sweep.change](ChunkEntry& entry) {
        for (std::size_t i = entry.copies.size(); i-- > 0;) {
          if (entry.copies[i].generation.volume == volume) apply(change, entry, entry.copies[i]);
        }
      });
    }
  }

  void apply(Change change, ChunkEntry& entry, Copy& copy) {
    if (change == Change::came_back) return come_back(entry, copy);
    if (change == Change::went_away) return set_aside(entry, copy);
    if (!copy.away) return;
    // It is not on its volume any more: taken for one that is to be removed, which then finds nothing; one that nobody
    // has seen is forgotten.
    copy.away = false;
    copy.unfit = true;
    copy.retry_at.reset();
  }

  void set_aside(ChunkEntry& entry, Copy& copy) {
    if (copy.away) return;
    copy.away = true;
    copy.retry_at.reset();
    if (!copy.listed && !copy.unchecked) return;
    if (copy.listed) unlist(copy);
    copy.missed = entry.wanted;
  }

  std::vector<Sweep> sweeps_;
  bool in_doubt_ = false;
  bool examining_ = false;
  bool examining_doubt_ = false;
  std::uint64_t looks_ = 0;
  VolumeState only_state_ = VolumeState::healthy;
};

}  // namespace garner::core
