// SPDX-License-Identifier: BSL-1.0
//
// One simulated life of a data manager: random calls, pins, faults and ends, checked after each step against a model
// that is a few lines long (life.hpp, model.hpp). From decisions alone, so that a seed replays.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "simulation/calls.hpp"
#include "simulation/damage.hpp"
#include "simulation/lake.hpp"
#include "simulation/plan.hpp"

namespace simulation {

class Scenario : public Damage {
 public:
  explicit Scenario(garner::Decisions& decisions, Plan plan = {})
      : Damage(decisions, std::move(plan), disks(decisions)) {
    for (bool& enabled : enabled_) enabled = decisions.chance(2, 3);
    enabled_[index(Call::download)] = enabled_[index(Call::work)] = true;
    faults_ = garner::SimFaults::swarm(decisions);
    observer_throws_ = decisions.chance(1, 4);
    calm_ = decisions.chance(1, 16);
    if (calm_) {
      faults_ = {};
      Disks(machine_).set_capacity(plenty);
      for (const Call call : {Call::power_cut, Call::close, Call::rot, Call::lie, Call::disk}) {
        enabled_[index(call)] = false;
      }
    }
    // What is never there is asked for again and again, and that takes time.
    if (!decisions.chance(1, 8)) enabled_[index(Call::lie)] = false;
    if (machine_.disks() == 1) enabled_[index(Call::disk)] = false;
    // Half of all lives are of what workers do every day, and have the more of it.
    if (decisions.chance(1, 2)) {
      for (const Call call : {Call::lie, Call::reject, Call::converge, Call::litter, Call::odd_start}) {
        enabled_[index(call)] = false;
      }
    }
    // A disk that fails rarely fails in one way alone.
    if (!calm_ && decisions.chance(1, 4)) {
      faults_[garner::SimFaultKind::sync_failure] = 192;
      faults_[garner::SimFaultKind::read_only] = 192;
      enabled_[index(Call::restart)] = enabled_[index(Call::power_cut)] = enabled_[index(Call::kill)] = true;
    }
    options_.revive = decisions.chance(2, 3);
    options_.checkpoint_bytes = 1 + (calm_ || decisions.chance(3, 4) ? 0 : decisions.choose(20));
    options_.staging_ttl = std::chrono::minutes(calm_ || decisions.chance(1, 2) ? 600 : decisions.choose(3));
    if (machine_.disks() == 1 && decisions.chance(1, 4)) {
      options_.startup_check = decisions.chance(1, 4) ? garner::StartupCheck::sizes : garner::StartupCheck::digests;
      options_.max_concurrent_checks = 1 + decisions.choose(3);
    }
    if (decisions.chance(1, 2)) {
      options_.refresh = [this](const garner::DataChunk& chunk, const std::string& file) {
        return fresh_source(chunk, file);
      };
    }
    if (decisions.chance(1, 4)) options_.quarantine_max_bytes = decisions.choose(4) * 5000;
    if (decisions.chance(1, 32)) {
      options_.durability = garner::Durability::relaxed;
      enabled_[index(Call::power_cut)] = false;
      checks_.expect_no_durability();
    }
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
    if (!failure()) be_reasonable();
    if (!failure()) finish();
    return failure();
  }

  [[nodiscard]] Counters counters() const {
    return {made_, world_.met(), ledger_.events(), ledger_.classes(), states_, early_.met()};
  }

 private:
  static std::size_t index(Call call) { return static_cast<std::size_t>(call); }

  /// One, as a rule.
  static std::vector<garner::SimDisk> disks(garner::Decisions& decisions) {
    std::vector<garner::SimDisk> out;
    const std::uint64_t count = decisions.chance(1, 3) ? 2 + decisions.choose(2) : 1;
    for (std::uint64_t disk = 0; disk < count; ++disk) {
      garner::SimDiskOptions options = disk_options(decisions);
      if (disk > 0) options.name = '@' + std::to_string(disk) + '/';
      out.emplace_back(std::move(options));
    }
    return out;
  }

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
      case Call::restart:
        // In the middle of something, where nothing else goes wrong.
        if (calm_) begin_something();
        return machine_.ended() ? void() : restart();
      case Call::close:
        close();
        if (machine_.ended()) return;
        check();
        // What could not be written down before the end is known to nobody.
        machine_.end_now(garner::SimEnd::kill);
        return;
      case Call::lie: return lie();
      case Call::reject: return reject();
      case Call::converge: return wait_converged();
      case Call::litter: return litter();
      case Call::odd_start: return odd_start();
      case Call::disk: return change_disk();
    }
  }

  const Version& any_version() {
    // One after another: compilers differ in which argument they evaluate first.
    const std::uint64_t version = decisions_.choose(Lake::versions);
    return Lake::get().version(decisions_.choose(Lake::chunks), version);
  }

  void download() { want(any_version()); }

  void want(const Version& version) {
    world_.note("  ", version.name);
    std::error_code error;
    manager_->download_chunk(version.chunk, error);
    if (error != expected(version)) return fail("a wish is answered otherwise: " + error.message());
    if (error) return;
    count_bytes(version);
    model_.download(version);
  }

  /// What it is answered.
  [[nodiscard]] std::error_code expected(const Version& version) const {
    return version.chunk.files.size() > options_.max_files ? make_error_code(garner::errc::too_many_files)
                                                           : std::error_code();
  }

  void remove() {
    const std::uint64_t chunk = decisions_.choose(Lake::chunks);
    world_.note("  chunk ", std::to_string(chunk));
    if (decisions_.chance(1, 8)) return change_mind(Lake::get().id(chunk));
    manager_->delete_chunk(Lake::get().id(chunk));
    model_.remove(Lake::get().id(chunk));
  }

  /// Deletes what is served and pinned, and wants it again, with or without its being taken back.
  void change_mind(const garner::ChunkId& id) {
    for (Manager::ChunkRef& ref : Checks::served(*manager_)) {
      if (ref.id() != id) continue;
      const Version* held = checks_.held(ref);
      const std::string path = checks_.path(ref);
      if (held == nullptr || checks_.tampered(path)) return;
      pins_.push_back({std::move(ref), path, held});
      options_.revive = decisions_.chance(1, 2);
      manager_->set_options(options_);
      manager_->delete_chunk(id);
      model_.remove(id);
      check();  // sees that it is not served
      return want(*held);
    }
  }

  void assign() {
    std::vector<const Version*> versions;
    std::vector<garner::DataChunk> assignment;
    const Model before = model_;
    const std::uint64_t allowed = allowed_bytes_;
    bool is_valid = true;
    const bool is_same = decisions_.chance(1, 4);  // as what is wanted already
    for (unsigned chunk = 0; chunk < Lake::chunks; ++chunk) {
      const auto wanted = before.wanted.find(Lake::get().id(chunk));
      const Version* same = wanted != before.wanted.end() ? wanted->second : nullptr;
      // Now and then the same chunk twice: the last one counts.
      for (std::uint64_t times = decisions_.chance(1, 16) ? 2 : 1; times > 0; --times) {
        const std::uint64_t which = decisions_.choose(Lake::versions + 1);
        if (is_same ? same == nullptr : which == Lake::versions) continue;
        const Version& version = is_same ? *same : Lake::get().version(chunk, which);
        world_.note("  ", version.name);
        is_valid = is_valid && !expected(version);
        count_bytes(version);
        model_.download(version);
        versions.push_back(&version);
        assignment.push_back(version.chunk);
      }
    }
    Model named;
    named.assign(versions);
    if (named.wanted.size() != versions.size()) checks_.note_wavering();
    bool was_taken = true;
    try {
      manager_->set_assignment(assignment);
    } catch (const garner::Error&) {
      was_taken = false;
    }
    if (was_taken != is_valid) return fail("an assignment is answered otherwise");
    model_ = before;
    if (is_valid) {
      model_.assign(versions);
    } else {
      allowed_bytes_ = allowed;
    }
  }

  void pin() {
    const Version& version = any_version();
    const garner::BlockRange& range = version.chunk.block_range;
    const garner::BlockNumber block = range.begin + decisions_.choose(range.end - range.begin);
    std::optional<Manager::ChunkRef> ref = manager_->find_chunk(version.chunk.dataset_id, block);
    if (!ref) return;
    if (!ref->block_range().contains(block)) return fail("a chunk was found that does not have the block");
    if (decisions_.chance(1, 4)) ref = std::optional(*ref);  // the copy is what is kept
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
      const bool can_fail = machine_.ended() || checks_.tampered(pin.path) || checks_.any_disk_failed() ||
                            faults_.chance[static_cast<std::size_t>(garner::SimFaultKind::disk_error)] > 0 ||
                            faults_.chance[static_cast<std::size_t>(garner::SimFaultKind::out_of_handles)] > 0;
      if (!can_fail) fail("a pinned chunk's description cannot be read: " + pin.path);
    }
  }

  void begin_something() {
    download();
    work();
    if (!machine_.ended()) check();
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
    options_.max_files_per_host = 1 + decisions_.choose(4);
    options_.when_filled.reset();
    if (decisions_.chance(1, 4)) {
      // No more than otherwise: what is checked holds for both.
      garner::FetchLimits& filled = options_.when_filled.emplace();
      filled.max_concurrent_chunks = 1 + decisions_.choose(options_.max_concurrent_chunks);
      filled.max_concurrent_files = 1 + decisions_.choose(options_.max_concurrent_files);
      filled.max_files_per_host = 1 + decisions_.choose(options_.max_files_per_host);
    }
    options_.revive = decisions_.chance(2, 3);
    options_.max_bytes = !calm_ && decisions_.chance(1, 4) ? 40 + decisions_.choose(300) : garner::Options().max_bytes;
    options_.keep_free_bytes = decisions_.chance(1, 8) ? 1 + decisions_.choose(3000) : 0;
    budget_ = std::max(budget_, options_.max_bytes);
    options_.max_files = decisions_.chance(1, 8) ? 2 : garner::Options().max_files;
    options_.scrub_interval =
        decisions_.chance(1, 2) ? std::chrono::seconds(1 + decisions_.choose(100)) : std::chrono::seconds(0);
    options_.scrub_bytes_per_second = decisions_.choose(100);
    most_per_host_ = std::max(most_per_host_, options_.max_files_per_host);
    most_files_ = std::max(most_files_, options_.max_concurrent_files);
    most_chunks_ = std::max(most_chunks_, options_.max_concurrent_chunks);
    manager_->set_options(options_);
  }

  void lie() {
    const std::vector<Version>& lies = Lake::get().lies();
    // The last one is huge.
    want(lies[decisions_.chance(1, 256) ? lies.size() - 1 : decisions_.choose(lies.size() - 1)]);
  }

  /// Lets go of what cannot be had, and of options with which not all of it can be wanted.
  void be_reasonable() {
    world_.faults = {};
    options_.max_files = garner::Options().max_files;
    manager_->set_options(options_);
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      const auto at = model_.wanted.find(Lake::get().id(chunk));
      if (at == model_.wanted.end() || at->second == nullptr || !at->second->is_lie) continue;
      manager_->delete_chunk(Lake::get().id(chunk));
      model_.remove(Lake::get().id(chunk));
    }
    if (machine_.ended()) start_again();
  }

  /// Where a file is to be had from, now and then; once asked, what it is has been told.
  garner::FileSource fresh_source(const garner::DataChunk& chunk, const std::string& file) {
    garner::FileSource source = chunk.files.at(file);
    switch (decisions_.choose(8)) {
      case 0: throw std::runtime_error("no more credentials");
      case 1: source.urls.front() = "ftp://nowhere/"; break;
      case 2: source.urls.clear(); break;
      case 3: source.size = 1; break;  // what the bytes are is not for it to say
      case 4: want_from_elsewhere(chunk.id); break;
      default: break;
    }
    return source;
  }

  /// While it is asked where they are to be had from. One chunk has two versions of the same bytes.
  void want_from_elsewhere(const garner::ChunkId& id) {
    if (manager_->status().closed) return;
    const auto at = model_.wanted.find(id);
    const Version& one = Lake::get().version(4, 1);
    const Version& other = Lake::get().version(4, 2);
    if (at == model_.wanted.end() || (at->second != &one && at->second != &other)) return;
    want(at->second == &one ? other : one);
  }

  // ---- calls that change nothing

  void reject() {
    garner::DataChunk chunk = any_version().chunk;
    garner::FileSource& source = chunk.files.begin()->second;
    switch (decisions_.choose(7)) {
      case 0: chunk.block_range.end = chunk.block_range.begin; break;
      case 1: chunk.files.clear(); break;
      case 2: chunk.files["../x"] = source; break;
      case 3: chunk.files["chunk.json"] = source; break;
      case 4: source.urls.clear(); break;
      case 5: source.urls.front() = "ftp://a/b"; break;
      default: source.size = options_.max_chunk_bytes + 1; break;
    }
    if (decisions_.chance(1, 2)) {
      refused([&] { manager_->download_chunk(chunk); });
    } else {
      const std::vector<garner::DataChunk> assignment = {Lake::get().version(0, 0).chunk, chunk};
      refused([&] { manager_->set_assignment(assignment); });
    }
    const garner::ChunkId unknown = garner::ChunkId::from_name("unknown");
    manager_->delete_chunk(unknown);
    if (manager_->chunk_status(unknown)) fail("an unknown chunk has a status");
    if (manager_->find_chunk(garner::DatasetId::from_name("unknown"), 0))
      fail("a chunk is found in an unknown dataset");
  }

  template <class Call>
  void refused(const Call& call) {
    try {
      call();
    } catch (const garner::Error&) {
      return;
    }
    fail("what is invalid, or comes too late, was accepted");
  }

  void wait_converged() {
    const bool converged = manager_->wait_converged(std::chrono::milliseconds(decisions_.choose(100)));
    if (converged != manager_->status().converged) fail("it has converged, and has not");
  }

  /// Now and then once more from inside of an observer, or by a call that comes too late.
  void close() {
    garner::Subscription closes_again;
    if (decisions_.chance(1, 2)) {
      closes_again = manager_->subscribe([this](const garner::Event&) { manager_->close(); });
    }
    manager_->close();
    if (decisions_.chance(1, 2)) return;
    const Version& version = any_version();
    refused([&] { manager_->download_chunk(version.chunk); });
    refused([&] { manager_->set_assignment({}); });
    manager_->delete_chunk(version.chunk.id);
    manager_->verify();
    manager_->set_options(options_);
    manager_->wait_converged(std::chrono::seconds(1));
    unpin();
    manager_->close();
  }

  std::array<bool, calls> enabled_{};
  std::array<std::uint64_t, calls> made_{};
};

}  // namespace simulation
