// SPDX-License-Identifier: BSL-1.0
//
// One simulated life of a data manager: random calls, pins, faults and crashes, checked after each step against a model
// that is a few lines long. From decisions alone, so that a seed replays.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/data_manager.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_downloader.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_world.hpp"
#include "simulation/calls.hpp"

namespace simulation {

using Manager = garner::DataManager<garner::SimStorage, garner::SimDownloader, garner::SimExecutor>;

// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): in the order in which the members may be destroyed
class Scenario {
 public:
  explicit Scenario(garner::Decisions& decisions, std::function<void(std::string)> trace = nullptr)
      : decisions_(decisions), world_(decisions), network_(world_) {
    world_.trace = std::move(trace);
    disk_ = std::make_shared<garner::SimDisk>(
        garner::SimDiskOptions{decisions.choose(2) == 0 ? garner::CrashMode::adversarial : garner::CrashMode::ordered});
    for (bool& enabled : enabled_) enabled = decisions.chance(2, 3);
    enabled_[index(Call::download)] = enabled_[index(Call::work)] = true;
    revive_ = decisions.chance(2, 3);
    for (unsigned chunk = 0; chunk < chunks; ++chunk) {
      for (unsigned version = 0; version < versions; ++version) describe(chunk, version);
    }
    faults_ = garner::SimFaults::swarm(decisions);
    world_.on_operation = [this] { maybe_crash(); };
    open();
  }

  /// The first thing that went wrong, or nothing.
  std::optional<std::string> run(std::size_t steps) {
    for (std::size_t step = 0; step < steps && !failure_; ++step) {
      world_.faults = faults_;
      take_step();
      if (next_disk_) start_again();
      if (!failure_) check();
    }
    if (!failure_) finish();
    return failure_;
  }

  [[nodiscard]] const garner::SimWorld& world() const noexcept { return world_; }
  [[nodiscard]] const std::array<std::uint64_t, calls>& made() const noexcept { return made_; }

 private:
  static constexpr unsigned chunks = 5;
  static constexpr unsigned versions = 2;

  /// A description and the bytes that its URLs have.
  struct Version {
    garner::DataChunk chunk;
    std::map<std::string, std::string> files;
  };
  struct Pin {
    Manager::ChunkRef ref;
    std::string path;
    const Version* version;
  };

  static std::size_t index(Call call) { return static_cast<std::size_t>(call); }

  // ---- the world's inventory

  void describe(unsigned chunk, unsigned version) {
    Version& v = versions_[{chunk, version}];
    v.chunk.id = garner::ChunkId::from_name("chunk " + std::to_string(chunk));
    v.chunk.dataset_id = garner::DatasetId::from_name(chunk % 2 == 0 ? "even" : "odd");
    v.chunk.block_range = {chunk * 10, chunk * 10 + (chunk == 0 ? 40U : 10U)};
    const std::size_t files = 1 + chunk % 3;
    for (std::size_t file = 0; file < files; ++file) {
      const std::string name = "file" + std::to_string(file);
      std::string bytes;
      for (std::size_t i = 0; i < chunk * 7 + file * 13; ++i) {
        bytes += static_cast<char>('a' + (i * 31 + chunk * 7 + version * 3 + file) % 26);
      }
      bytes += version == 0 ? "old" : "new";
      const std::string tag = std::to_string(chunk) + '/' + std::to_string(version) + '/' + name;
      garner::FileSource source({"http://a/" + tag, "http://b/" + tag}, bytes.size(), sha256(bytes));
      for (const std::string& url : source.urls) network_.put(url, bytes);
      v.chunk.files[name] = std::move(source);
      v.files[name] = std::move(bytes);
    }
  }

  static garner::Digest sha256(const std::string& bytes) {
    return garner::Digest::parse("sha256:" + garner::ChunkId::from_name(bytes).to_hex());
  }

  // ---- what is done

  void take_step() {
    const auto call = static_cast<Call>(decisions_.choose(calls));
    if (!enabled_[index(call)]) return work();
    ++made_[index(call)];
    world_.note(to_string(call));
    switch (call) {
      case Call::download: return download();
      case Call::remove: return remove(static_cast<unsigned>(decisions_.choose(chunks)));
      case Call::assign: return assign();
      case Call::pin: return pin();
      case Call::unpin:
        if (!pins_.empty()) pins_.erase(pins_.begin() + static_cast<std::ptrdiff_t>(decisions_.choose(pins_.size())));
        return;
      case Call::work: return work();
      case Call::wait: return wait();
      case Call::verify: return manager_->verify();
      case Call::options: return change_options();
      case Call::power_cut:
      case Call::kill:
        // Not between two steps only, but in the middle of what comes next.
        crash_in_ = 1 + decisions_.choose(20);
        crash_is_power_cut_ = call == Call::power_cut;
        return work();
      case Call::restart:
        world_.faults = {};
        manager_->close();
        manager_.reset();
        pins_.clear();
        return open();
    }
  }

  void download() {
    const auto chunk = static_cast<unsigned>(decisions_.choose(chunks));
    const Version& version = versions_.at({chunk, static_cast<unsigned>(decisions_.choose(versions))});
    manager_->download_chunk(version.chunk);
    wanted_[version.chunk.id] = &version;
  }

  void remove(unsigned chunk) {
    const garner::ChunkId id = versions_.at({chunk, 0}).chunk.id;
    manager_->delete_chunk(id);
    wanted_.erase(id);
  }

  void assign() {
    std::vector<garner::DataChunk> assignment;
    wanted_.clear();
    for (unsigned chunk = 0; chunk < chunks; ++chunk) {
      const std::uint64_t which = decisions_.choose(versions + 1);
      if (which == versions) continue;
      const Version& version = versions_.at({chunk, static_cast<unsigned>(which)});
      assignment.push_back(version.chunk);
      wanted_[version.chunk.id] = &version;
    }
    manager_->set_assignment(assignment);
  }

  void pin() {
    const Version& version = versions_.at({static_cast<unsigned>(decisions_.choose(chunks)), 0});
    std::optional<Manager::ChunkRef> ref =
        manager_->find_chunk(version.chunk.dataset_id, version.chunk.block_range.begin + decisions_.choose(10));
    if (!ref) return;
    std::string path = path_of(*ref);
    const Version* held = version_at(path);
    if (held == nullptr) return fail("a chunk was found that is not whole: " + path);
    pins_.push_back({*std::move(ref), std::move(path), held});
  }

  void work() {
    for (std::uint64_t tasks = decisions_.choose(8); tasks > 0 && !next_disk_; --tasks) {
      world_.run_one_until(world_.now() + std::chrono::milliseconds(100));
    }
  }

  void wait() {
    for (std::uint64_t tasks = 64; tasks > 0 && !next_disk_; --tasks) {
      if (!world_.run_one_until(world_.now() + std::chrono::seconds(60))) return;
    }
  }

  void change_options() {
    options_.max_concurrent_chunks = 1 + decisions_.choose(4);
    options_.max_concurrent_files = 1 + decisions_.choose(4);
    manager_->set_options(options_);
  }

  // ---- ends and beginnings

  void open() {
    world_.faults = {};
    options_.seed = 1 + decisions_.choose(1000);
    options_.revive = revive_;
    // So that a converged store stays what it is however long it takes.
    options_.max_backoff = std::chrono::minutes(5);
    // A crash in the middle of this is one more crash; the start after it is told no difference.
    while (!failure_ && !try_open()) {
    }
    if (failure_) return;
    // What was found is what is wanted.
    std::map<garner::ChunkId, const Version*> found;
    for (const garner::ChunkId& id : manager_->list_chunks()) found[id] = nullptr;
    for (const auto& [key, version] : versions_) {
      for (const Manager::ChunkRef& ref : manager_->find_chunks(version.chunk.dataset_id, version.chunk.block_range)) {
        if (ref.id() == version.chunk.id) found[ref.id()] = version_at(path_of(ref));
      }
    }
    for (const auto& [id, version] : found) {
      if (version == nullptr) return fail("a chunk was recovered that is not whole: " + id.to_hex());
    }
    for (const garner::ChunkId& id : gone_) {
      if (found.contains(id)) return fail("a chunk came back whose deletion was done: " + id.to_hex());
    }
    for (const auto& [id, version] : kept_) {
      if (!found.contains(id)) return fail("a chunk was lost that was ready and wanted: " + id.to_hex());
    }
    wanted_ = std::move(found);
    checked_.clear();
    note_durable();
  }

  bool try_open() {
    try {
      manager_.emplace(garner::SimStorage(garner::SimFileSystem(disk_, &world_)), garner::SimDownloader(network_),
                       garner::SimExecutor(world_), options_);
      return true;
    } catch (const garner::Error& error) {
      if (!next_disk_) fail(std::string("the store does not open: ") + error.what());
    }
    if (next_disk_) disk_ = std::make_shared<garner::SimDisk>(*std::exchange(next_disk_, std::nullopt));
    return false;
  }

  void maybe_crash() {
    if (crash_in_ == 0 || --crash_in_ > 0 || disk_->dead()) return;
    world_.note(crash_is_power_cut_ ? "*** power cut" : "*** killed");
    next_disk_.emplace(crash_is_power_cut_ ? disk_->crash(decisions_) : disk_->kill());
  }

  void start_again() {
    world_.faults = {};
    manager_.reset();
    pins_.clear();
    disk_ = std::make_shared<garner::SimDisk>(*std::exchange(next_disk_, std::nullopt));
    open();
  }

  // ---- what must hold

  void check() {
    note_durable();
    for (const auto& [key, version] : versions_) {
      if (key.second != 0) continue;
      for (const Manager::ChunkRef& ref : manager_->find_chunks(version.chunk.dataset_id, version.chunk.block_range)) {
        check_listed(ref);
      }
    }
    for (const garner::ChunkId& id : manager_->list_chunks()) {
      if (!wanted_.contains(id)) fail("a chunk is listed that was deleted: " + id.to_hex());
    }
    for (const Pin& pin : pins_) {
      if (version_at(pin.path) != pin.version) fail("a pinned chunk changed: " + pin.path);
    }
    if (network_.most_per_url() > 1) fail("a file was fetched twice at the same time");
  }

  void check_listed(const Manager::ChunkRef& ref) {
    const std::string path = path_of(ref);
    if (checked_.contains(path)) return;
    const Version* version = version_at(path);
    if (version == nullptr) return fail("a chunk is served that is not whole: " + path);
    for (const auto& [name, bytes] : version->files) {
      if (!disk_->always_durable(entry_of(path, name), bytes))
        return fail("a file is served that is not durable: " + path);
    }
    checked_.insert(path);
  }

  /// What a crash from now on must keep, and must not bring back.
  void note_durable() {
    gone_.clear();
    kept_.clear();
    const bool converged = manager_->status().converged;
    std::set<garner::ChunkId> listed;
    for (const garner::ChunkId& id : manager_->list_chunks()) listed.insert(id);
    for (unsigned chunk = 0; chunk < chunks; ++chunk) {
      const garner::ChunkId& id = versions_.at({chunk, 0}).chunk.id;
      const auto wanted = wanted_.find(id);
      if (wanted != wanted_.end() && converged && listed.contains(id)) kept_[id] = wanted->second;
      if (wanted == wanted_.end() && converged) gone_.insert(id);
    }
  }

  /// Once nothing goes wrong any more the store becomes what is wanted, in bounded time, and nothing is left over.
  void finish() {
    world_.note("no more faults");
    world_.faults = {};
    crash_in_ = 0;
    if (!manager_->wait_converged(std::chrono::minutes(20))) return fail("the store does not converge");
    check();
    const std::vector<garner::ChunkId> listed = manager_->list_chunks();
    if (listed.size() != wanted_.size()) return fail("not all that is wanted is listed");
    std::set<std::string> held;
    for (const auto& [id, version] : wanted_) {
      bool right = false;
      for (const Manager::ChunkRef& ref :
           manager_->find_chunks(version->chunk.dataset_id, version->chunk.block_range)) {
        if (ref.id() != id) continue;
        held.insert(path_of(ref));
        right = right || version_at(path_of(ref)) == version;
      }
      if (!right) return fail("a chunk is not the version that was asked for last: " + id.to_hex());
    }
    for (const Pin& pin : pins_) held.insert(pin.path);
    check_leftovers(held);
    if (network_.active() != 0) fail("a transfer is left");
    pins_.clear();
    if (!manager_->wait_converged(std::chrono::minutes(20))) return fail("what was pinned is not removed");
    manager_.reset();
    // An alarm that was put away after its time had come is still to be run, and does nothing.
    while (world_.has_ready()) world_.run_one_until(world_.now());
    if (world_.timers() != 0) fail("a timer is left");
    if (disk_->handles() != 0) fail("a handle is left");
  }

  void check_leftovers(const std::set<std::string>& held) {
    for (const auto& [path, bytes] : disk_->tree()) {
      if (path.starts_with("staging/")) fail("left over: " + path);
      // What a failed sync may have lost stays until the next start.
      const bool lost = world_.met()[static_cast<std::size_t>(garner::SimFaultKind::sync_failure)] > 0;
      if (path.starts_with("trash/") && !lost) fail("left over: " + path);
      if (!path.starts_with("chunks/") || bytes) continue;
      const std::size_t dataset = path.find('/', 7);
      if (dataset != std::string::npos && !held.contains(path)) fail("left over: " + path);
    }
  }

  // ---- small things

  static std::string path_of(const Manager::ChunkRef& ref) {
    return ref.path().lexically_relative("/sim").generic_string();
  }
  static std::string entry_of(const std::string& path, const std::string& name) { return path + '/' + name; }

  /// Which version of its chunk the directory holds, whole; null where none.
  [[nodiscard]] const Version* version_at(const std::string& path) const {
    for (const auto& [key, version] : versions_) {
      if (path.find(version.chunk.id.to_hex()) == std::string::npos) continue;
      bool same = true;
      for (const auto& [name, bytes] : version.files) {
        const std::string* there = disk_->contents(entry_of(path, name));
        same = same && there != nullptr && *there == bytes;
      }
      if (same) return &version;
    }
    return nullptr;
  }

  void fail(std::string what) {
    world_.note("FAILED: ", what);
    if (!failure_) failure_ = std::move(what);
  }

  garner::Decisions& decisions_;
  garner::SimWorld world_;
  garner::SimNetwork network_;
  garner::SimFaults faults_;
  std::shared_ptr<garner::SimDisk> disk_;
  std::map<std::pair<unsigned, unsigned>, Version> versions_;
  std::array<bool, calls> enabled_{};
  std::array<std::uint64_t, calls> made_{};
  bool revive_ = true;
  garner::Options options_;
  std::optional<Manager> manager_;
  std::vector<Pin> pins_;
  std::map<garner::ChunkId, const Version*> wanted_;  // the model: the last call about each id
  std::map<garner::ChunkId, const Version*> kept_;
  std::set<garner::ChunkId> gone_;
  std::set<std::string> checked_;
  std::uint64_t crash_in_ = 0;
  bool crash_is_power_cut_ = false;
  std::optional<garner::SimDisk> next_disk_;
  std::optional<std::string> failure_;
};

}  // namespace simulation
