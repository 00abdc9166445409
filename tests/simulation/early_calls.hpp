// SPDX-License-Identifier: BSL-1.0
//
// Calls to a manager that does not know yet what its store holds (`Startup::background`), before that is read and in
// the middle of it; what must hold meanwhile; and what they mean, to be said of what the start would have found without
// them, or, where the manager was closed before all was read, of what the next one finds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_downloader.hpp"
#include "garner/simulation/sim_hooks.hpp"
#include "garner/simulation/sim_world.hpp"
#include "simulation/calls.hpp"
#include "simulation/checks.hpp"
#include "simulation/found.hpp"
#include "simulation/lake.hpp"
#include "simulation/model.hpp"

namespace simulation {

class EarlyCalls {
 public:
  /// `fail` takes what is wrong.
  EarlyCalls(garner::SimWorld& world, garner::SimNetwork& network, std::function<void(std::string)> fail)
      : decisions_(world.decisions()), world_(world), network_(network), fail_(std::move(fail)) {}

  /// Of a manager that has just begun, and will find `names`.
  void begin(Manager& manager, const Found& names, bool may_call) {
    manager_ = &manager;
    names_ = &names;
    calls_.clear();
    deleted_.clear();
    left_ = may_call ? decisions_.choose(6) : 0;
    moved_ = network_.bytes_moved();
    closes_in_ = may_call && decisions_.chance(1, 3) ? 1 + decisions_.choose(16) : 0;
    if (closes_in_ > 0) {
      // Nobody but an observer can close it in the middle without waiting for what is under way, and go on.
      closer_ = manager.subscribe([this](const garner::Event&) {
        if (closes_in_ == 1 && manager_ != nullptr) manager_->close();
      });
    }
    make_some();
  }
  void end() {
    closer_.reset();
    manager_ = nullptr;
  }
  void forget() { calls_.clear(); }

  /// At each operation of a disk: looks at it, and calls it now and then.
  void consider() {
    if (manager_ == nullptr || !manager_->status().recovering) return;
    look();
    if (manager_->status().closed) return;
    if (left_ > 0 && decisions_.chance(1, 4)) make_one();
    if (closes_in_ > 1) --closes_in_;
    // As soon as there is anything to tell an observer.
    while (closes_in_ == 1 && world_.has_ready() && !garner::SimMutex::any_held() && !manager_->status().closed) {
      world_.run_one_until(world_.now());
    }
  }

  void note(Reading reading) noexcept { ++met_[static_cast<std::size_t>(reading)]; }
  [[nodiscard]] const std::array<std::uint64_t, readings>& met() const noexcept { return met_; }

  [[nodiscard]] bool any() const noexcept { return !calls_.empty(); }

  /// Deleted at any moment, whether or not it was wanted again.
  [[nodiscard]] const std::set<garner::ChunkId>& deleted() const noexcept { return deleted_; }
  /// Whether the last call about it wants it.
  [[nodiscard]] bool wants(const garner::ChunkId& id) const {
    Model model;
    replay(model, [](const Version&) {});
    return model.wanted.contains(id);
  }
  /// In their order, said to `model`; `wanted(version)` before each that is wanted.
  template <class Wanted>
  void replay(Model& model, const Wanted& wanted) const {
    for (const auto& [kind, versions, id] : calls_) {
      if (kind == Kind::assign) {
        for (const Version* version : versions) wanted(*version);
        model.assign(versions);
      } else if (kind == Kind::download) {
        wanted(*versions.front());
        model.download(*versions.front());
      } else {
        model.remove(id);
      }
    }
  }

 private:
  enum class Kind : std::uint8_t { download, remove, assign };
  struct Early {
    Kind kind;
    std::vector<const Version*> versions{};
    garner::ChunkId id{};
  };

  /// Before anything was read.
  void make_some() {
    for (std::uint64_t some = decisions_.choose(4); some > 0; --some) {
      if (left_ > 0) make_one();
      look();
    }
  }

  void make_one() {
    --left_;
    const std::uint64_t kind = decisions_.choose(8);
    if (kind == 0) return assign();
    const std::uint64_t chunk = decisions_.choose(Lake::chunks);
    if (kind < 4) {
      const garner::ChunkId& id = Lake::get().id(chunk);
      manager_->delete_chunk(id);
      deleted_.insert(id);
      calls_.push_back({.kind = Kind::remove, .id = id});
    } else {
      const Version& version = Lake::get().version(chunk, decisions_.choose(Lake::versions));
      std::error_code error;
      manager_->download_chunk(version.chunk, error);
      if (!error) calls_.push_back({.kind = Kind::download, .versions = {&version}});
    }
    look();
  }

  void assign() {
    std::vector<const Version*> versions;
    std::vector<garner::DataChunk> assignment;
    std::set<garner::ChunkId> rest;
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      const std::uint64_t which = decisions_.choose(Lake::versions + 1);
      if (which == Lake::versions) {
        rest.insert(Lake::get().id(chunk));
        continue;
      }
      versions.push_back(&Lake::get().version(chunk, which));
      assignment.push_back(versions.back()->chunk);
    }
    try {
      manager_->set_assignment(assignment);
    } catch (const garner::Error&) {
      return;  // the limits of the options
    }
    deleted_.insert(rest.begin(), rest.end());
    calls_.push_back({.kind = Kind::assign, .versions = std::move(versions)});
    look();
  }

  /// Nothing is served that was deleted since, or that is not there; and nothing is fetched.
  void look() {
    for (const Manager::ChunkRef& ref : Checks::served(*manager_)) {
      if (deleted_.contains(ref.id()))
        fail_("a chunk is found that was deleted before it was read: " + ref.id().to_hex());
      if (!names_->generations.contains({ref.id(), ref.generation()})) {
        fail_("a chunk is found that the store does not hold: " + ref.id().to_hex());
      }
    }
    if (network_.active() != 0 || network_.bytes_moved() != moved_) fail_("something is fetched before all is known");
    if (manager_->status().converged) fail_("it has converged before all is known");
  }

  garner::Decisions& decisions_;
  garner::SimWorld& world_;
  garner::SimNetwork& network_;
  std::function<void(std::string)> fail_;
  std::array<std::uint64_t, readings> met_{};
  garner::Subscription closer_;
  std::uint64_t closes_in_ = 0;  ///< operations; 1: whenever it can be, 0: not
  Manager* manager_ = nullptr;
  const Found* names_ = nullptr;
  std::vector<Early> calls_;
  std::set<garner::ChunkId> deleted_;  ///< and perhaps wanted again since
  std::uint64_t left_ = 0;
  std::uint64_t moved_ = 0;
};

}  // namespace simulation
