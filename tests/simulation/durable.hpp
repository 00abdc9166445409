// SPDX-License-Identifier: BSL-1.0
//
// What no end of the machine may take away, and what none may bring back. Noted after each step; looked at by every
// start, and by what a power cut would leave at any moment, were it to come.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "simulation/disks.hpp"
#include "simulation/lake.hpp"
#include "simulation/model.hpp"

namespace simulation {

class Durable {
 public:
  struct Kept {
    std::uint64_t generation = 0;  ///< the oldest that will do
    const Version* version = nullptr;
    std::uint64_t troubles = 0;  ///< of the disks, when that was noted
  };
  struct Facts {
    std::map<garner::ChunkId, Kept> kept;
    std::set<garner::ChunkId> gone;
  };

  /// `fail` takes what is wrong; `troubles` counts those of the disks where there are several.
  Durable(std::function<void(std::string)> fail, std::function<std::uint64_t()> troubles)
      : fail_(std::move(fail)), troubles_(std::move(troubles)) {}

  /// `generation` of `id` holds `version`, whole, wanted and durable: it is there from now on, or a newer one.
  void keep(const garner::ChunkId& id, std::uint64_t generation, const Version* version) {
    facts_.kept[id] = {generation, version, troubles_()};
  }
  /// Which copy of it is there is open for the moment; one is.
  void keep_any(const garner::ChunkId& id) {
    if (facts_.kept.contains(id)) facts_.kept[id].generation = 0;
  }
  /// Its bytes were changed behind the store's back.
  void give_up(const garner::ChunkId& id) { facts_.kept.erase(id); }
  /// Any bytes may have been changed: what takes the place of another may be found wrong at once.
  void doubt() noexcept { is_doubtful_ = true; }
  /// Its deletion is done.
  void forget(const garner::ChunkId& id) { facts_.gone.insert(id); }

  /// What is not wanted may go, what is wanted may come, and what was wanted before may take the place of what is
  /// there.
  void follow(const Model& model) {
    for (auto& [id, kept] : facts_.kept) {
      const auto wanted = model.wanted.find(id);
      if (wanted == model.wanted.end() || wanted->second == nullptr) continue;
      if (wanted->second->files != kept.version->files) kept.generation = 0;
    }
    std::erase_if(facts_.kept, [&](const auto& entry) { return !model.wanted.contains(entry.first); });
    std::erase_if(facts_.gone, [&](const garner::ChunkId& id) { return model.wanted.contains(id); });
  }

  /// What a start has found. Everything begins anew with it. `unknown`: those of which a copy is where nobody can look.
  void started(const std::map<garner::ChunkId, std::uint64_t>& found, const std::set<garner::ChunkId>& unknown) {
    for (const garner::ChunkId& id : unknown) facts_.kept.erase(id);
    compare(found, "");
    facts_.kept.clear();
    facts_.gone.clear();
  }

  /// Takes the disks, as a power cut now would leave them, for a start's.
  void would_start(std::vector<garner::SimDisk> left, const Model& model) {
    follow(model);
    StoppedDisks stopped(std::move(left));
    const ConstDisks disks = stopped.view();
    std::optional<garner::SimStorage> opened;
    try {
      opened.emplace(stopped.storage());
    } catch (const garner::Error& error) {
      return fail_(std::string("a power cut would leave a store that does not open: ") + error.what());
    }
    garner::SimStorage& store = *opened;
    std::map<garner::ChunkId, std::uint64_t> found;
    std::vector<garner::Generation> generations;
    const garner::Recovery recovery = store.recover([&](const garner::Generation& generation) {
      found[generation.id] = std::max(found[generation.id], generation.number);
      generations.push_back(generation);
    });
    if (recovery.error) fail_("a power cut would leave a store that does not start: " + recovery.subject);
    for (const garner::Generation& generation : generations) {
      const std::string path = store.location(generation).lexically_relative("/sim").generic_string();
      if (!disks.tampered(path) && Lake::get().held(disks, generation.id, path) == nullptr) {
        fail_("a power cut would leave a chunk that is not whole: " + path);
      }
      if (disks.tampered(path)) found[generation.id] = UINT64_MAX;
    }
    compare(found, " by a power cut");
  }

  [[nodiscard]] const Facts& facts() const noexcept { return facts_; }
  /// Goes on where another one was when its machine ended.
  void go_on_from(Facts facts) { facts_ = std::move(facts); }

 private:
  void compare(const std::map<garner::ChunkId, std::uint64_t>& found, const std::string& how) {
    for (const auto& [id, kept] : facts_.kept) {
      const auto at = found.find(id);
      if (at == found.end() && kept.generation == 0 && is_doubtful_) continue;
      if (at == found.end()) {
        fail_("a chunk was lost" + how + " that was ready and wanted: " + id.to_hex());
      } else if (at->second < kept.generation && kept.troubles == troubles_()) {
        // While a disk is away for a moment, an older copy on another may take the place of one there, which then goes.
        fail_("an older copy came back" + how + ": " + id.to_hex());
      }
    }
    for (const garner::ChunkId& id : facts_.gone) {
      if (found.contains(id)) fail_("a chunk came back" + how + " whose deletion was done: " + id.to_hex());
    }
  }

  std::function<void(std::string)> fail_;
  std::function<std::uint64_t()> troubles_;
  Facts facts_;
  bool is_doubtful_ = false;
};

}  // namespace simulation
