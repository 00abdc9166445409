// SPDX-License-Identifier: BSL-1.0
//
// A data manager on a simulated machine: its starts and its ends, what is checked meanwhile, and how it must come to
// rest. What is done with it, step by step, is in scenario.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "garner/core/hosts.hpp"
#include "simulation/checks.hpp"
#include "simulation/disks.hpp"
#include "simulation/early_calls.hpp"
#include "simulation/lake.hpp"
#include "simulation/ledger.hpp"
#include "simulation/model.hpp"
#include "simulation/partial_fetches.hpp"
#include "simulation/plan.hpp"

namespace simulation {

// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): in the order in which the members may be destroyed
class Life {
 public:
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  /// The first thing that went wrong, or nothing.
  [[nodiscard]] const std::optional<std::string>& failure() const noexcept { return failure_; }
  /// The step in which it went wrong.
  [[nodiscard]] std::size_t failed_at() const noexcept { return failed_at_; }
  /// The faults that struck.
  [[nodiscard]] const std::vector<Strike>& strikes() const noexcept { return strikes_; }

 protected:
  static constexpr std::uint64_t plenty = std::uint64_t{1} << 30;  ///< bytes

  Life(garner::Decisions& decisions, Plan plan, std::vector<garner::SimDisk> disks)
      : decisions_(decisions),
        plan_(std::move(plan)),
        world_(decisions),
        network_(world_),
        machine_(world_, std::move(disks)),
        checks_(world_, machine_, [this](std::string what) { fail(std::move(what)); }),
        early_(world_, network_, [this](std::string what) { fail(std::move(what)); }) {
    world_.trace = plan_.trace;
    world_.allows = [this](garner::SimFaultKind kind) { return allows(kind); };
    machine_.on_operation = [this] {
      consider_power_cut();
      early_.consider();
    };
    power_cuts_ = garner::core::Random(decisions.choose(UINT32_MAX));
    Lake::get().fill(network_);
  }
  ~Life() = default;

  /// False where the plan leaves it out.
  bool begin_step(std::size_t step) {
    step_ = step;
    strikes_in_step_ = 0;
    decisions_.begin_part(step);
    return !plan_.steps || plan_.steps->contains(step);
  }

  // ---- ends and beginnings

  /// In good order: then what is not wanted does not come back, whether or not there was time to remove it.
  void restart() {
    world_.faults = {};
    const garner::Instant before = world_.now();
    manager_->close();
    if (machine_.ended()) return;
    if (world_.now() - before > std::chrono::seconds(20)) fail("close waited for the network");
    std::set<garner::ChunkId> may_come_back;
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      const garner::ChunkId& id = Lake::get().id(chunk);
      if (model_.may_return.contains(id) || checks_.may_come_back(*manager_, id)) may_come_back.insert(id);
    }
    throw_away();
    if (machine_.ended()) return;
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      const garner::ChunkId& id = Lake::get().id(chunk);
      if (!model_.wanted.contains(id) && !may_come_back.contains(id)) checks_.durable.forget(id);
    }
    open();
  }

  /// The worker, and its pins.
  void throw_away() {
    subscription_.reset();
    manager_.reset();
    pins_.clear();
  }

  void reopen() {
    throw_away();
    if (!machine_.ended()) open();
  }

  void start_again() {
    world_.faults = {};
    throw_away();
    machine_.end_after(0);
    machine_.start();
    // Now and then it ends again before it has come up.
    if (decisions_.chance(1, 4)) machine_.end_after(1 + decisions_.choose(40), any_end());
    open();
  }

  /// Without syncs a power cut may leave anything, and nothing is promised.
  [[nodiscard]] garner::SimEnd any_end() const {
    return options_.durability == garner::Durability::full ? garner::SimEnd::power_cut : garner::SimEnd::kill;
  }

  void open() {
    world_.faults = {};
    options_.seed = 1 + decisions_.choose(1000);
    options_.startup = decisions_.chance(1, 4) ? garner::Startup::background : garner::Startup::complete;
    const Disks disks(machine_);
    bool any_sound = false;
    for (std::size_t disk = 0; disk < disks.size(); ++disk) {
      any_sound = any_sound || disks[disk].health() == garner::SimHealth::sound;
    }
    if (!any_sound) disks[0].set_health(garner::SimHealth::sound);
    while (!failure_ && !try_open()) {
    }
    if (failure_) return;
    most_files_ = options_.max_concurrent_files;
    most_chunks_ = options_.max_concurrent_chunks;
    most_per_host_ = options_.max_files_per_host;
    budget_ = options_.max_bytes;
    bytes_before_ = garner::Options().max_bytes;
    network_.take_most_active();
    const bool is_background = options_.startup == garner::Startup::background;
    checks_.after_start(*manager_, model_, names_, options_.startup_check, is_background && early_.any());
    partial_.look(machine_);
    if (is_background) {
      early_.replay(model_, [this](const Version& version) { count_bytes(version); });
    } else {
      subscribe(Checks::served(*manager_));
    }
    const bool names_alone = options_.startup_check == garner::StartupCheck::names;
    if (decisions_.chance(1, 8) && names_alone && !early_.any()) checks_.starts_again(*manager_);
    if (!machine_.ended()) check();
  }

  /// `served`: what has been told of already.
  void subscribe(const std::vector<Manager::ChunkRef>& served) {
    ledger_.begin(served, names_.generations);
    subscription_ = manager_->subscribe([this](const garner::Event& event) {
      if (event.kind == garner::EventKind::chunk_ready) {
        ledger_.take_ready(event, Checks::served(*manager_));
      } else {
        ledger_.take(event);
      }
      if (event.error == garner::errc::corrupt_chunk) checks_.not_served(*manager_, event);
      if (observer_throws_) throw std::runtime_error("an observer's own");
    });
  }

  bool try_open() {
    early_.forget();
    try {
      names_ = Found::by_names(ConstDisks(machine_), options_.startup_check);
      checks_.quarantine_max_bytes = options_.quarantine_max_bytes;
      manager_.emplace(machine_.storage(options_.durability, {options_.quarantine_max_bytes, 0}),
                       garner::SimDownloader(network_), garner::SimExecutor(world_), options_);
      if (!machine_.ended() && wait_for_start()) return true;
      throw_away();
    } catch (const garner::Error& error) {
      if (!machine_.ended()) fail(std::string("the store does not open: ") + error.what());
    }
    machine_.start();
    return false;
  }

  /// False where it ends before all is known: what was called meanwhile has changed nothing.
  bool wait_for_start() {
    if (options_.startup == garner::Startup::complete) return true;
    subscribe({});
    early_.begin(*manager_, names_, ConstDisks(machine_).all_sound());
    if (decisions_.chance(1, 16)) {
      early_.end();
      const bool is_closed = decisions_.chance(1, 2);
      early_.note(is_closed ? Reading::closed_before : Reading::thrown_away);
      if (is_closed) close_early(false);
      return false;
    }
    while (manager_->status().recovering && !machine_.ended()) {
      if (!world_.run_one_until(world_.now() + std::chrono::seconds(1))) fail("the store is not read");
      if (failure_) break;
    }
    early_.end();
    if (machine_.ended()) return false;
    if (manager_->status().closed) {
      early_.note(Reading::closed_meanwhile);
      close_early(true);
      return false;
    }
    early_.note(early_.any() ? Reading::called : Reading::left_alone);
    if (manager_->status().recovery_error) fail("the store cannot be read: " + manager_->status().recovery_subject);
    return true;
  }

  /// Before all was read, or any of it where that was not begun. A deletion of what had been found by then is done, one
  /// of what had not is forgotten; all else is as it was. What was deleted and then wanted again is there or not.
  void close_early(bool was_begun) {
    std::set<garner::ChunkId> open;  // what is to be marked as deleted need not outlive it from now on
    for (const garner::ChunkId& id : early_.deleted()) {
      if (!manager_->chunk_status(id)) continue;
      open.insert(id);
      model_.remove(id);
    }
    checks_.durable.follow(model_);
    manager_->close();
    if (ledger_.wrong()) fail(*ledger_.wrong());
    if (machine_.ended()) return;
    const Found left = Found::by_names(ConstDisks(machine_), options_.startup_check);
    std::map<garner::ChunkId, std::size_t> copies;
    for (const auto& [id, generation] : names_.generations) ++copies[id];
    for (const auto& [id, newest] : names_.newest) {
      const bool is_there = left.generations.contains({id, newest.number});
      if (!open.contains(id)) {
        // An older copy that was found beside it may go.
        if (!is_there) fail("a chunk is gone whose deletion was not known to be one: " + id.to_hex());
        if (early_.deleted().contains(id) && was_begun) early_.note(Reading::deletion_forgotten);
      } else if (copies[id] == 1 && !early_.wants(id)) {
        // Of several copies perhaps not all had been found.
        if (is_there) fail("a chunk is there whose deletion was done before the end: " + id.to_hex());
        checks_.durable.forget(id);
        early_.note(Reading::deletion_done);
      }
    }
    throw_away();
    if (decisions_.chance(1, 2)) machine_.end_now(any_end());
  }

  /// A change of mind costs at most one transfer; a repeated wish costs nothing, and what an earlier run had of it is
  /// not fetched again.
  void count_bytes(const Version& version) {
    const auto at = model_.wanted.find(version.chunk.id);
    if (at != model_.wanted.end() && at->second == &version) return;
    allowed_bytes_ += version.bytes - partial_.take(machine_.disk(), version);
  }

  // ---- what must hold

  /// What a power cut at this moment would leave, now and then; nothing of the life depends on it.
  void consider_power_cut() {
    // What is lost by a failed sync is seen in no other way.
    const bool loses = faults_.chance[static_cast<std::size_t>(garner::SimFaultKind::sync_failure)] > 0;
    if (power_cuts_.next() % (loses ? 8 : 128) != 0 || failure_ || checks_.just_tampered()) return;
    if (options_.durability == garner::Durability::relaxed) return;
    garner::SeededDecisions decisions(power_cuts_.next());
    std::vector<garner::SimDisk> left;
    for (std::size_t disk = 0; disk < machine_.disks(); ++disk) {
      left.push_back(machine_.disk(disk).after_crash(decisions));
    }
    checks_.durable.would_start(std::move(left), model_);
  }

  void check() {
    Checks::take_in(*manager_, model_);
    checks_.after_step(*manager_, model_, pins_);
    if (ledger_.wrong()) fail(*ledger_.wrong());
    if (network_.most_per_url() > 1) fail("a file was fetched twice at the same time");
    check_limits();
    check_budget();
    if (calm_ && network_.bytes_moved() > allowed_bytes_) fail("more bytes were moved than the changes of mind cost");
    const auto status = manager_->chunk_status(Lake::get().id(step_ % Lake::chunks));
    if (status) ++states_[static_cast<std::size_t>(status->state)];
  }

  /// What is held and what is being fetched stays within the largest budget since nothing was being fetched, and where
  /// it is above that already, it does not grow.
  void check_budget() {
    // What could not be discarded or taken back is the clean-up's, and nobody counts it.
    if (budget_ == garner::Options().max_bytes || checks_.met_disk_faults()) {
      bytes_before_ = garner::Options().max_bytes;
      return;
    }
    const std::uint64_t bytes = checks_.bytes_on_disk();
    // What an earlier run left begins to count when it is gone on with, and may be of another version, and longer.
    const std::uint64_t ours = bytes - std::min(bytes, partial_.bytes());
    if (ours > std::max(budget_, bytes_before_)) fail("more bytes are held than the budget allows");
    bytes_before_ = bytes;
    if (manager_->status().bytes_reserved == 0 && !world_.has_ready()) budget_ = options_.max_bytes;
  }

  /// What was decided under the options before may begin yet, until nothing is ready to run.
  void check_limits() {
    if (network_.take_most_active() > most_files_) fail("more files were fetched at the same time than was allowed");
    const std::size_t fetching = manager_->status().downloading;
    if (fetching > most_chunks_) fail("more chunks were fetched at the same time than was allowed");
    most_chunks_ = std::max(options_.max_concurrent_chunks, std::min(most_chunks_, fetching));
    std::map<std::string, std::size_t> per_host;
    for (const auto& [url, transfers] : network_.active_by_url()) per_host[garner::core::origin_of(url)] += transfers;
    std::size_t most = options_.max_files_per_host;
    for (const auto& [host, transfers] : per_host) {
      if (transfers > most_per_host_) fail("more files were fetched from one server than was allowed: " + host);
      most = std::max(most, transfers);
    }
    if (world_.has_ready()) return;
    most_per_host_ = most;
    if (network_.active() <= options_.max_concurrent_files) most_files_ = options_.max_concurrent_files;
    for (const auto& [url, transfers] : network_.active_by_url()) {
      if (!Lake::get().is_wanted(url, model_.wanted)) fail("a file is still fetched that nobody wants: " + url);
    }
  }

  /// Once nothing goes wrong any more the store becomes what is wanted, in bounded time, with no byte more than it
  /// takes, and nothing is left over.
  void finish() {
    world_.note("no more faults");
    world_.faults = {};
    machine_.end_after(0);
    Disks(machine_).set_capacity(plenty);
    options_.max_bytes = budget_ = garner::Options().max_bytes;
    options_.keep_free_bytes = 0;
    options_.scrub_interval = {};  // hours go by until all is given up
    manager_->set_options(options_);
    if (!mend_all()) return;
    const std::uint64_t most =
        network_.bytes_moved() + network_.bytes_in_flight() + checks_.bytes_missing(*manager_, model_);
    if (!converge()) return;
    if (network_.bytes_moved() > most) fail("more bytes were moved than were missing");
    check();
    if (Disks(machine_).any_tampered()) scrub();
    if (!checks_.knows(model_)) ask_again();
    if (failure_ || !converge()) return;
    outwait_partial();
    if (converge()) at_rest();
  }

  /// All disks are sound, and taken in.
  bool mend_all() {
    for (std::size_t disk = 0; disk < machine_.disks(); ++disk) {
      machine_.disk(disk).set_health(garner::SimHealth::sound);
    }
    if (machine_.disks() == 1) return true;
    // One that was taken out and put in again nobody has missed, as long as nothing is asked of it.
    manager_->verify();
    while (world_.has_ready()) world_.run_one_until(world_.now());
    const garner::Instant until = world_.now() + std::chrono::minutes(20);
    while (!checks_.all_there(*manager_)) {
      if (!world_.run_one_until(until)) {
        fail("a disk that is back is not taken in");
        return false;
      }
    }
    Checks::take_in(*manager_, model_);
    return true;
  }

  /// Finds what was changed behind the store's back.
  void scrub() {
    world_.note("scrub");
    std::vector<garner::ChunkId> described;
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) {
      const std::string description = checks_.path(ref) + "/chunk.json";
      if (Disks(machine_).exists(description) && !checks_.tampered(description)) described.push_back(ref.id());
    }
    if (decisions_.chance(1, 2)) {
      scrub_at_a_pace();
    } else {
      manager_->verify();
      while (world_.has_ready()) world_.run_one_until(world_.now());
    }
    if (!converge()) return;
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) {
      const std::string& path = checks_.path(ref);
      const Version* whole = Lake::get().held(Disks(machine_), ref.id(), path);
      if (whole == nullptr) fail("a scrub did not find what is wrong: " + path);
      std::erase(described, ref.id());
    }
    for (const garner::ChunkId& id : described) fail("what a scrub took away was not fetched anew: " + id.to_hex());
  }

  /// By a pass that begins by itself, and takes its time.
  void scrub_at_a_pace() {
    options_.scrub_interval = std::chrono::seconds(1);
    options_.scrub_bytes_per_second = 1 + decisions_.choose(100);
    manager_->set_options(options_);
    if (!pass()) return;
    const garner::Instant before = world_.now();
    // For the last chunk nobody has waited; where it was found corrupt it is not served any more.
    std::uint64_t most = most_served();
    if (!pass()) return;
    const garner::ScrubStatus scrub = manager_->status().scrub;
    options_.scrub_interval = {};
    manager_->set_options(options_);
    most = std::max(most, most_served());
    const std::uint64_t paid = scrub.bytes_done > most ? scrub.bytes_done - most : 0;
    const std::chrono::milliseconds least(paid * 1000 / options_.scrub_bytes_per_second);
    if (world_.now() - before < least) fail("a scrub is faster than it was told to be");
  }

  /// Bytes of one chunk.
  [[nodiscard]] std::uint64_t most_served() const {
    std::uint64_t most = 0;
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) most = std::max(most, ref.bytes());
    return most;
  }

  /// Lets time pass until the next pass has ended.
  bool pass() {
    const std::uint64_t passes = manager_->status().scrub.passes;
    for (int tasks = 0; manager_->status().scrub.passes == passes; ++tasks) {
      if (tasks < 100'000 && world_.run_one_until(world_.now() + std::chrono::hours(24))) continue;
      fail("a pass does not come to its end");
      return false;
    }
    return true;
  }

  /// For what is wanted: that costs nothing. But what was found wrong together with its own description is fetched only
  /// then, and what a start could not tell the version of gets one.
  void ask_again() {
    for (unsigned chunk = 0; chunk < Lake::chunks; ++chunk) {
      const auto at = model_.wanted.find(Lake::get().id(chunk));
      if (at == model_.wanted.end()) continue;
      if (at->second == nullptr) at->second = &Lake::get().version(chunk, 0);
      manager_->download_chunk(at->second->chunk);
    }
  }

  /// What an earlier run left, and nobody has asked for, is given up in the end.
  void outwait_partial() {
    const garner::Instant until = world_.now() + options_.staging_ttl;
    while (world_.run_one_until(until)) {
    }
  }

  bool converge() {
    const bool converged = manager_->wait_converged(std::chrono::minutes(20));
    if (!converged) fail("the store does not converge");
    return converged;
  }

  void at_rest() {
    while (world_.has_ready()) world_.run_one_until(world_.now());
    checks_.at_rest(*manager_, model_, pins_);
    check_told();
    check_waste();
    if (network_.active() != 0) fail("a transfer is left");
    pins_.clear();
    if (!manager_->wait_converged(std::chrono::minutes(20))) return fail("what was pinned is not removed");
    checks_.at_rest(*manager_, model_, pins_);
    subscription_.reset();
    manager_.reset();
    // An alarm that was put away after its time had come is still to be run, and does nothing.
    while (world_.has_ready()) world_.run_one_until(world_.now());
    if (world_.timers() != 0) fail("a timer is left");
    if (Disks(machine_).handles() != 0) fail("a handle is left");
  }

  /// What came and was not thrown away is what was published.
  void check_waste() {
    const std::optional<std::uint64_t> published = ledger_.published_bytes();
    if (!published || checks_.met_disk_faults()) return;
    const garner::Status status = manager_->status();
    if (status.bytes_received + status.bytes_resumed - status.bytes_wasted != *published)
      fail("the bytes that were wasted are counted wrong");
  }

  /// Whoever was told all events knows what is served.
  void check_told() {
    const auto told = ledger_.served();
    if (!told) return;
    std::map<garner::ChunkId, std::uint64_t> served;
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) served[ref.id()] = ref.generation();
    if (*told != served) fail("an observer was told something else than is served");
  }

  void fail(std::string what) {
    world_.note("FAILED: ", what);
    if (failure_) return;
    failure_ = std::move(what);
    failed_at_ = step_;
  }

 private:
  bool allows(garner::SimFaultKind kind) {
    const Strike strike{step_, strikes_in_step_++, kind};
    if (plan_.strikes && !plan_.strikes->contains(strike)) return false;
    if (kind == garner::SimFaultKind::misdirected) checks_.note_tampering();
    strikes_.push_back(strike);
    return true;
  }

 protected:
  garner::Decisions& decisions_;
  Plan plan_;
  garner::core::Random power_cuts_{0};
  std::size_t step_ = 0;
  std::size_t strikes_in_step_ = 0;
  std::vector<Strike> strikes_;
  std::size_t failed_at_ = 0;
  std::optional<std::string> failure_;
  garner::SimWorld world_;
  garner::SimNetwork network_;
  garner::SimMachine machine_;
  garner::SimFaults faults_;
  std::array<std::uint64_t, chunk_states> states_{};
  bool observer_throws_ = false;
  bool calm_ = false;  ///< nothing goes wrong in this life
  garner::Options options_;
  std::size_t most_files_ = 0;  ///< at the same time, allowed since the last step
  std::size_t most_chunks_ = 0;
  std::size_t most_per_host_ = 0;
  std::uint64_t budget_ = garner::Options().max_bytes;
  std::uint64_t bytes_before_ = garner::Options().max_bytes;
  std::uint64_t allowed_bytes_ = 0;
  PartialFetches partial_;
  Found names_;
  Ledger ledger_;
  Model model_;
  Checks checks_;
  EarlyCalls early_;
  std::optional<Manager> manager_;
  garner::Subscription subscription_;
  Pins pins_;
};

}  // namespace simulation
