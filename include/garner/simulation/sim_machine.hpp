// SPDX-License-Identifier: BSL-1.0
//
// A computer of a simulated world: its disks, and how it ends in the middle of anything. What runs on it is made by its
// user, from the store that it hands out, and thrown away by its user when it has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_world.hpp"

namespace garner {

enum class SimEnd : std::uint8_t {
  power_cut,  ///< what was not durable is lost, or not, as is decided
  kill,       ///< of the process: the kernel and what it was given go on
};

constexpr std::string_view to_string(SimEnd end) noexcept { return end == SimEnd::kill ? "kill" : "power cut"; }

/// For each life of a worker: `start()`; make it on `storage()`; say when the life ends; run it until `ended()`;
/// destroy it and its pins.
///
/// Of several disks the first is at `/sim`, the next at `/sim/@1`, and so on; they end together.
///
/// Thread-safety: none, one thread. Lifetime: the world outlives it, and it outlives its stores; it sets the world's
/// `on_operation`.
class SimMachine {
 public:
  explicit SimMachine(SimWorld& world, SimDiskOptions options = {}) : SimMachine(world, SimDisk(std::move(options))) {}
  /// With a disk that something was done to before.
  SimMachine(SimWorld& world, SimDisk disk) : SimMachine(world, one(std::move(disk))) {}
  SimMachine(SimWorld& world, std::vector<SimDisk> disks) : world_(world) {
    take(std::move(disks));
    world_.on_operation = [this] {
      if (left_ != 0 && --left_ == 0) end_now(end_);
      if (on_operation && !ended()) on_operation();
    };
  }
  SimMachine(const SimMachine&) = delete;
  SimMachine& operator=(const SimMachine&) = delete;
  ~SimMachine() { world_.on_operation = nullptr; }

  /// On a disk as it is now. Once the machine has ended every operation of it fails, and changes nothing.
  [[nodiscard]] SimFileSystem file_system(std::size_t disk = 0) const {
    return SimFileSystem(disks_[disk], &world_, path(disk));
  }
  /// On all disks. As `file_system`. Throws as `BasicVolumes` does.
  [[nodiscard]] SimStorage storage(Durability durability = Durability::full,
                                   const QuarantineLimits& limits = {}) const {
    if (disks_.size() == 1) return SimStorage(file_system(), durability, limits);
    std::vector<VolumePlace<SimFileSystem>> places;
    for (std::size_t disk = 0; disk < disks_.size(); ++disk) {
      places.push_back({path(disk), [this, disk] { return file_system(disk); }});
    }
    return SimStorage(std::move(places), durability, limits);
  }

  /// Before the `operations`-th operation of any disk from now, counted from 1. 0: not at all.
  void end_after(std::uint64_t operations, SimEnd end = SimEnd::power_cut) noexcept {
    left_ = operations;
    end_ = end;
  }

  void end_now(SimEnd end = SimEnd::power_cut) {
    if (ended()) return;
    world_.note("*** ", to_string(end));
    std::vector<SimDisk>& next = next_.emplace();
    for (const auto& disk : disks_) {
      next.push_back(end == SimEnd::power_cut ? disk->crash(world_.decisions()) : disk->kill());
      next.back().set_health(disk->health());
    }
  }

  [[nodiscard]] bool ended() const noexcept { return next_.has_value(); }

  /// The next start: with the disks as the end left them, where there was an end. One that has not come is called off.
  void start() {
    left_ = 0;
    if (next_) take(*std::exchange(next_, std::nullopt));
  }

  /// Takes a disk out, and puts it in again, failing: what is open of it fails for good, and what is opened anew as
  /// long as it is not sound.
  void unplug(std::size_t disk) {
    if (ended()) return;
    disks_[disk] = std::make_shared<SimDisk>(disks_[disk]->unplug(world_.decisions()));
    disks_[disk]->set_health(SimHealth::failing);
  }

  /// Called before each operation of a disk that still comes, where set: the place to look at what an end would leave.
  std::function<void()> on_operation;

  [[nodiscard]] std::size_t disks() const noexcept { return disks_.size(); }
  [[nodiscard]] SimDisk& disk(std::size_t disk = 0) noexcept { return *disks_[disk]; }
  [[nodiscard]] const SimDisk& disk(std::size_t disk = 0) const noexcept { return *disks_[disk]; }

 private:
  static std::vector<SimDisk> one(SimDisk disk) {
    std::vector<SimDisk> disks;
    disks.push_back(std::move(disk));
    return disks;
  }

  static std::filesystem::path path(std::size_t disk) { return disk == 0 ? "/sim" : "/sim/@" + std::to_string(disk); }

  void take(std::vector<SimDisk> disks) {
    disks_.clear();
    for (SimDisk& disk : disks) {
      const SimHealth health = disk.health();
      disks_.push_back(std::make_shared<SimDisk>(std::move(disk)));
      disks_.back()->set_health(health);
    }
  }

  SimWorld& world_;
  std::vector<std::shared_ptr<SimDisk>> disks_;
  std::uint64_t left_ = 0;
  SimEnd end_ = SimEnd::power_cut;
  std::optional<std::vector<SimDisk>> next_;
};

}  // namespace garner
