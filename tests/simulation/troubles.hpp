// SPDX-License-Identifier: BSL-1.0
//
// What has gone wrong in a simulated life, and so excuses something: faults of the disk, and what was done to it behind
// the store's back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <utility>

#include "garner/simulation/sim_machine.hpp"
#include "garner/simulation/sim_world.hpp"
#include "garner/storage/store_layout.hpp"
#include "simulation/disks.hpp"

namespace simulation {

class Troubles {
 public:
  /// Of the disk itself, whatever anybody has done to it.
  [[nodiscard]] bool met_disk_errors() const {
    using enum garner::SimFaultKind;
    return met(disk_full) || met(disk_error) || met(short_write) || met(sync_failure) || met(read_only) ||
           met(out_of_handles);
  }
  [[nodiscard]] bool met_disk_faults() const { return met_disk_errors() || any_tampered_ || any_disk_failed_; }
  /// One of several disks fails, or was taken out.
  void note_disk_failure() noexcept { any_disk_failed_ = true; }
  [[nodiscard]] bool any_disk_failed() const noexcept { return any_disk_failed_; }

  /// Since the last step, so that what must be kept is not known.
  [[nodiscard]] bool just_tampered() const noexcept { return just_tampered_; }
  /// Someone else put it there, and the store leaves it alone, or takes it away at its next start.
  void note_litter(std::string path) { litter_.insert(std::move(path)); }
  /// Someone else than the store has changed it on the disk, and nobody but a scrub can know.
  [[nodiscard]] bool tampered(const std::string& path) const {
    // Once nobody knows its number any more, another may stand there, and be whole.
    return disks().tampered(path) || (taken_away_.contains(path) && !disks().exists(path));
  }
  /// Nothing is synced in this life.
  void expect_no_durability() noexcept { is_relaxed_ = true; }
  /// A generation is not at its path any more.
  void note_taken_away(const std::string& path) { taken_away_.insert(path); }

 protected:
  Troubles(const garner::SimWorld& world, const garner::SimMachine& machine)
      : world_(world), machine_(machine), is_roomy_(machine.disk().options().capacity > 1'000'000) {}
  ~Troubles() = default;

  [[nodiscard]] ConstDisks disks() const { return ConstDisks(machine_); }

  [[nodiscard]] bool met(garner::SimFaultKind kind) const { return world_.met()[static_cast<std::size_t>(kind)] > 0; }

  [[nodiscard]] bool was_unreadable() const {
    return met(garner::SimFaultKind::disk_error) || met(garner::SimFaultKind::out_of_handles);
  }

  /// Litter, or below it; in a dataset's directory, too, that an end has left under the name that it has for a moment
  /// only.
  [[nodiscard]] bool is_litter(const std::string& path) const {
    if (path.find(garner::store_layout::lost_suffix) != std::string::npos) return true;
    return std::any_of(litter_.begin(), litter_.end(),
                       [&path](const std::string& litter) { return path == litter || path.starts_with(litter + '/'); });
  }

  const garner::SimWorld& world_;
  const garner::SimMachine& machine_;
  const bool is_roomy_;  ///< what is set aside never has to make room
  bool any_tampered_ = false;
  bool any_disk_failed_ = false;
  bool just_tampered_ = false;
  bool is_relaxed_ = false;
  std::set<std::string> litter_;
  std::set<std::string> taken_away_;
};

}  // namespace simulation
