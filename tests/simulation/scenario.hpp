// SPDX-License-Identifier: BSL-1.0
//
// One simulated life of a data manager: random calls, pins, faults and ends, checked after each step against a model that
// is a few lines long (life.hpp, model.hpp). From decisions alone, so that a seed replays.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "simulation/calls.hpp"
#include "simulation/lake.hpp"
#include "simulation/life.hpp"
#include "simulation/plan.hpp"

namespace simulation {

class Scenario : public Life {
 public:
  explicit Scenario(garner::Decisions& decisions, Plan plan = {})
      : Life(decisions, std::move(plan), garner::SimDisk(disk_options(decisions))) {
    for (bool& enabled : enabled_) enabled = decisions.chance(2, 3);
    enabled_[index(Call::download)] = enabled_[index(Call::work)] = true;
    faults_ = garner::SimFaults::swarm(decisions);
    observer_throws_ = decisions.chance(1, 4);
    calm_ = decisions.chance(1, 16);
    if (calm_) {
      faults_ = {};
      machine_.disk().set_capacity(plenty);
      for (const Call call : {Call::power_cut, Call::kill, Call::restart, Call::close, Call::rot}) {
        enabled_[index(call)] = false;
      }
    }
    options_.revive = decisions.chance(2, 3);
    open();
  }

  /// The first thing that went wrong, or nothing.
  std::optional<std::string> run(std::size_t steps) {
    std::size_t step = 1;
    for (; step <= steps && !failure(); ++step) {
      if (!begin_step(step)) continue;
      world_.faults = faults_;
      take_step();
      if (machine_.ended()) start_again();
      if (!failure()) check();
    }
    begin_step(step);
    if (!failure()) finish();
    return failure();
  }

  [[nodiscard]] Counters counters() const {
    return {made_, world_.met(), ledger_.events(), ledger_.classes(), states_};
  }

 private:
  static std::size_t index(Call call) { return static_cast<std::size_t>(call); }

  static garner::SimDiskOptions disk_options(garner::Decisions& decisions) {
    garner::SimDiskOptions options;
    if (decisions.choose(2) == 1) options.mode = garner::CrashMode::ordered;
    if (decisions.chance(1, 8)) options.capacity = 3000 + decisions.choose(4000);
    return options;
  }

  // ---- what is done

  void take_step() {
    const auto call = static_cast<Call>(decisions_.choose(calls));
    if (!enabled_[index(call)]) return work();
    ++made_[index(call)];
    const std::string number = world_.trace ? '#' + std::to_string(step_) + ' ' : std::string();
    world_.note(number, to_string(call));
    switch (call) {
      case Call::download: return download();
      case Call::remove: return remove();
      case Call::assign: return assign();
      case Call::pin: return pin();
      case Call::unpin: return unpin();
      case Call::read: return read();
      case Call::work: return work();
      case Call::wait: return wait();
      case Call::verify: return manager_->verify();
      case Call::options: return change_options();
      case Call::rot: return rot();
      case Call::power_cut:
      case Call::kill:
        // Not between two steps only, but in the middle of what comes next.
        machine_.end_after(1 + decisions_.choose(20),
                           call == Call::kill ? garner::SimEnd::kill : garner::SimEnd::power_cut);
        return work();
      case Call::restart: return restart();
      case Call::close:
        manager_->close();
        if (machine_.ended()) return;
        check();
        // What could not be written down before the end is known to nobody.
        machine_.end_now(garner::SimEnd::kill);
        return;
    }
  }

  const Version& any_version() {
    return Lake::get().version(decisions_.choose(Lake::chunks), decisions_.choose(Lake::versions));
  }

  void download() {
    const Version& version = any_version();
    world_.note("  ", version.name);
    count_bytes(version);
    manager_->download_chunk(version.chunk);
    model_.download(version);
  }

  void remove() {
    const std::uint64_t chunk = decisions_.choose(Lake::chunks);
    world_.note("  chunk ", std::to_string(chunk));
    manager_->delete_chunk(Lake::get().id(chunk));
    model_.remove(Lake::get().id(chunk));
  }

  void assign() {
    std::vector<const Version*> versions;
    std::vector<garner::DataChunk> assignment;
    for (unsigned chunk = 0; chunk < Lake::chunks; ++chunk) {
      const std::uint64_t which = decisions_.choose(Lake::versions + 1);
      if (which == Lake::versions) continue;
      const Version& version = Lake::get().version(chunk, which);
      world_.note("  ", version.name);
      count_bytes(version);
      versions.push_back(&version);
      assignment.push_back(version.chunk);
    }
    manager_->set_assignment(assignment);
    model_.assign(versions);
  }

  /// A change of mind costs at most one transfer; a repeated wish costs nothing.
  void count_bytes(const Version& version) {
    const auto at = model_.wanted.find(version.chunk.id);
    if (at == model_.wanted.end() || at->second != &version) allowed_bytes_ += version.bytes;
  }

  void pin() {
    const Version& version = any_version();
    std::optional<Manager::ChunkRef> ref = manager_->find_chunk(
        version.chunk.dataset_id, version.chunk.block_range.begin + decisions_.choose(version.chunk.block_range.end -
                                                                                      version.chunk.block_range.begin));
    if (!ref) return;
    const std::string path = checks_.path(*ref);
    const Version* held = checks_.held(*ref);
    if (checks_.tampered(path)) return;
    if (held == nullptr) return fail("a chunk was found that is not whole: " + path);
    world_.note("  ", path);
    pins_.push_back({*std::move(ref), path, held});
  }

  void unpin() {
    if (!pins_.empty()) pins_.erase(pins_.begin() + static_cast<std::ptrdiff_t>(decisions_.choose(pins_.size())));
  }

  void read() {
    if (pins_.empty()) return;
    const auto& pin = pins_[static_cast<std::size_t>(decisions_.choose(pins_.size()))];
    try {
      const std::map<std::string, garner::FileSource>& files = pin.ref.files();
      if (machine_.ended() || checks_.tampered(pin.path)) return;
      bool same = files.size() == pin.holds->files.size();
      for (const auto& [name, bytes] : pin.holds->files) {
        const auto file = files.find(name);
        same = same && file != files.end() && file->second.size == bytes.size();
      }
      if (!same) fail("a pinned chunk's description is not its own: " + pin.path);
    } catch (const garner::Error&) {
      // The disk did not give it.
      const bool can_fail = machine_.ended() || checks_.tampered(pin.path) ||
                            faults_.chance[static_cast<std::size_t>(garner::SimFaultKind::disk_error)] > 0 ||
                            faults_.chance[static_cast<std::size_t>(garner::SimFaultKind::out_of_handles)] > 0;
      if (!can_fail) fail("a pinned chunk's description cannot be read: " + pin.path);
    }
  }

  void work() {
    for (std::uint64_t tasks = decisions_.choose(8); tasks > 0 && !machine_.ended(); --tasks) {
      world_.run_one_until(world_.now() + std::chrono::milliseconds(100));
    }
  }

  void wait() {
    for (std::uint64_t tasks = 64; tasks > 0 && !machine_.ended(); --tasks) {
      if (!world_.run_one_until(world_.now() + std::chrono::seconds(60))) return;
    }
  }

  void change_options() {
    options_.max_concurrent_chunks = 1 + decisions_.choose(4);
    options_.max_concurrent_files = 1 + decisions_.choose(4);
    options_.revive = decisions_.chance(2, 3);
    options_.max_bytes = !calm_ && decisions_.chance(1, 4) ? 40 + decisions_.choose(300) : garner::Options().max_bytes;
    budget_ = std::max(budget_, options_.max_bytes);
    most_files_ = std::max(most_files_, options_.max_concurrent_files);
    most_chunks_ = std::max(most_chunks_, options_.max_concurrent_chunks);
    manager_->set_options(options_);
  }

  void rot() {
    std::vector<std::string> files;
    for (const auto& [path, bytes] : machine_.disk().tree()) {
      if (bytes && !bytes->empty() && path.starts_with("chunks/")) files.push_back(path);
    }
    if (files.empty()) return;
    const std::string& path = files[static_cast<std::size_t>(decisions_.choose(files.size()))];
    const std::uint64_t size = machine_.disk().contents(path)->size();
    world_.note("  ", path);
    checks_.note_tampering();
    machine_.disk().corrupt(path, decisions_.choose(size), static_cast<unsigned>(decisions_.choose(8)));
  }

  std::array<bool, calls> enabled_{};
  std::array<std::uint64_t, calls> made_{};
};

}  // namespace simulation
