// SPDX-License-Identifier: BSL-1.0
//
// Lives in which nothing is left to chance and nothing goes wrong: one that performs a workload, and one that comes
// after an end. At each operation of the disk someone may look at it, and think of an end there.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/lake.hpp"
#include "simulation/life.hpp"
#include "simulation/workload.hpp"

namespace simulation {

/// Each question has one answer, and the same life always makes the same operations of the disk: its points.
class Watched : public Life {
 public:
  /// Looks at the disk before the operation `point`, counted from 1, or after the last, and at what an end there must
  /// keep.
  using Watch = std::function<void(std::uint64_t point, const garner::SimDisk& disk, const Checks::Past& past)>;

 protected:
  Watched(garner::SimDisk disk, std::function<void(std::string)> trace, Watch watch)
      : Life(zeros(), Plan{{}, {}, std::move(trace)}, one(std::move(disk))), watch_(std::move(watch)) {
    world_.on_operation = [this] { look(world_.operations()); };
  }
  ~Watched() { world_.on_operation = nullptr; }

  /// Until nothing is left to be done, each task checked.
  void work(std::uint64_t most_tasks) {
    for (; most_tasks > 0 && !failure(); --most_tasks) {
      if (!world_.run_one_until(world_.now() + std::chrono::seconds(60))) return;
      check();
    }
  }

  /// It comes to rest, and may end there, too.
  void end_well() {
    if (!failure()) finish();
    if (!failure()) look(world_.operations() + 1);
  }

  bool is_watched_ = true;

 private:
  void look(std::uint64_t point) {
    if (is_watched_ && watch_) watch_(point, machine_.disk(), checks_.past());
  }

  static std::vector<garner::SimDisk> one(garner::SimDisk disk) {
    std::vector<garner::SimDisk> disks;
    disks.push_back(std::move(disk));
    return disks;
  }

  /// Has no state: everyone's.
  static garner::Decisions& zeros() {
    static garner::TapeDecisions zeros{std::span<const std::byte>()};
    return zeros;
  }

  Watch watch_;
};

/// Performs a workload on an empty disk. What comes before its last call is not watched: that is watched in the
/// workload that ends there.
class Performance final : public Watched {
 public:
  Performance(garner::CrashMode mode, std::function<void(std::string)> trace, Watch watch)
      : Watched(garner::SimDisk(garner::SimDiskOptions{mode}), std::move(trace), std::move(watch)) {}

  /// False where a call has nothing to do, and nothing was tried: it is the same as a shorter workload.
  bool run(const Workload& workload) {
    is_watched_ = workload.empty();
    open();
    for (const Step& step : workload) {
      work(step.pause == Pause::until_quiet ? enough : static_cast<std::uint64_t>(step.pause));
      is_watched_ = &step == &workload.back();
      world_.note("# ", step.act->name);
      if (failure() || !call(*step.act)) return failure().has_value();
      check();
    }
    work(enough);
    end_well();
    return true;
  }

 private:
  static constexpr std::uint64_t enough = 1000;

  /// False where it has nothing to do.
  bool call(const Act& act) {
    switch (act.call) {
      case Call::download: {
        const Version& version = Lake::get().version(act.chunk, act.version);
        manager_->download_chunk(version.chunk);
        model_.download(version);
        return true;
      }
      case Call::remove:
        manager_->delete_chunk(Lake::get().id(act.chunk));
        model_.remove(Lake::get().id(act.chunk));
        return true;
      case Call::assign: assign(act); return true;
      case Call::pin: return pin(act.chunk);
      case Call::unpin:
        if (pins_.empty()) return false;
        pins_.clear();
        return true;
      case Call::verify: manager_->verify(); return true;
      case Call::rot: return rot(act.chunk);
      case Call::restart:
        manager_->close();
        reopen();
        return true;
      default: fail("no act is made of this call"); return true;
    }
  }

  void assign(const Act& act) {
    std::vector<const Version*> versions;
    if (act.chunk != Act::none) versions.push_back(&Lake::get().version(act.chunk, act.version));
    if (act.other_version != Act::none) versions.push_back(&Lake::get().version(4, act.other_version));
    std::vector<garner::DataChunk> assignment;
    assignment.reserve(versions.size());
    for (const Version* version : versions) assignment.push_back(version->chunk);
    manager_->set_assignment(assignment);
    model_.assign(versions);
  }

  bool pin(unsigned chunk) {
    if (!pins_.empty()) return false;
    for (Manager::ChunkRef& ref : Checks::served(*manager_)) {
      const std::string path = checks_.path(ref);
      if (ref.id() != Lake::get().id(chunk) || checks_.tampered(path)) continue;
      const Version* held = checks_.held(ref);
      pins_.push_back({std::move(ref), path, held});
      return true;
    }
    return false;
  }

  bool rot(unsigned chunk) {
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) {
      if (ref.id() != Lake::get().id(chunk)) continue;
      checks_.note_tampering();
      return machine_.disk().corrupt(checks_.path(ref) + "/file0", 0);
    }
    return false;
  }
};

/// What comes after an end: a start on the disk that it left, and rest.
class Aftermath final : public Watched {
 public:
  Aftermath(garner::SimDisk disk, const Checks::Past& past, std::function<void(std::string)> trace, Watch watch)
      : Watched(std::move(disk), std::move(trace), std::move(watch)) {
    checks_.go_on_from(past);
  }

  void run() {
    open();
    if (failure()) return;
    checks_.starts_again(*manager_);
    end_well();
  }
};

}  // namespace simulation
