// SPDX-License-Identifier: BSL-1.0
//
// A computer of a simulated world: its disk, and how it ends in the middle of anything. What runs on it is made by its
// user, from the store that it hands out, and thrown away by its user when it has ended.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_world.hpp"

namespace garner {

enum class SimEnd : std::uint8_t {
  power_cut,  ///< what was not durable is lost, or not, as is decided
  kill,       ///< of the process: the kernel and what it was given go on
};

constexpr std::string_view to_string(SimEnd end) noexcept { return end == SimEnd::kill ? "kill" : "power cut"; }

/// For each life of a worker: `start()`; make it on `storage()`; say when the life ends; run it until `ended()`; destroy it
/// and its pins.
///
/// Thread-safety: none, one thread. Lifetime: the world outlives it; it sets the world's `on_operation`.
class SimMachine {
 public:
  explicit SimMachine(SimWorld& world, SimDiskOptions options = {}) : SimMachine(world, SimDisk(options)) {}
  /// With a disk that something was done to before.
  SimMachine(SimWorld& world, SimDisk disk) : world_(world), disk_(std::make_shared<SimDisk>(std::move(disk))) {
    world_.on_operation = [this] {
      if (left_ != 0 && --left_ == 0) end_now(end_);
      if (on_operation && !disk_->dead()) on_operation();
    };
  }
  SimMachine(const SimMachine&) = delete;
  SimMachine& operator=(const SimMachine&) = delete;
  ~SimMachine() { world_.on_operation = nullptr; }

  /// On the disk as it is now. Once the machine has ended every operation of it fails, and changes nothing.
  [[nodiscard]] SimFileSystem file_system() const { return SimFileSystem(disk_, &world_); }
  /// As `file_system`. Throws as `BasicStore` does.
  [[nodiscard]] SimStorage storage(Durability durability = Durability::full,
                                   const QuarantineLimits& limits = {}) const {
    return SimStorage(file_system(), durability, limits);
  }

  /// Before the `operations`-th operation of the disk from now, counted from 1. 0: not at all.
  void end_after(std::uint64_t operations, SimEnd end = SimEnd::power_cut) noexcept {
    left_ = operations;
    end_ = end;
  }

  void end_now(SimEnd end = SimEnd::power_cut) {
    if (disk_->dead()) return;
    world_.note("*** ", to_string(end));
    next_.emplace(end == SimEnd::power_cut ? disk_->crash(world_.decisions()) : disk_->kill());
  }

  [[nodiscard]] bool ended() const noexcept { return next_.has_value(); }

  /// The next start: with the disk as the end left it, where there was an end. One that has not come is called off.
  void start() {
    left_ = 0;
    if (next_) disk_ = std::make_shared<SimDisk>(*std::exchange(next_, std::nullopt));
  }

  /// Called before each operation of the disk that still comes, where set: the place to look at what an end would leave.
  std::function<void()> on_operation;

  [[nodiscard]] SimDisk& disk() noexcept { return *disk_; }
  [[nodiscard]] const SimDisk& disk() const noexcept { return *disk_; }

 private:
  SimWorld& world_;
  std::shared_ptr<SimDisk> disk_;
  std::uint64_t left_ = 0;
  SimEnd end_ = SimEnd::power_cut;
  std::optional<SimDisk> next_;
};

}  // namespace garner
