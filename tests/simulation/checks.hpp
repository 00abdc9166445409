// SPDX-License-Identifier: BSL-1.0
//
// What must hold in a simulated life: after each step, after each start, and once nothing goes wrong any more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "garner/data_manager.hpp"
#include "garner/simulation/sim_downloader.hpp"
#include "garner/simulation/sim_machine.hpp"
#include "garner/simulation/sim_world.hpp"
#include "simulation/disks.hpp"
#include "simulation/durable.hpp"
#include "simulation/found.hpp"
#include "simulation/lake.hpp"
#include "simulation/model.hpp"
#include "simulation/troubles.hpp"

namespace simulation {

using Manager = garner::DataManager<garner::SimStorage, garner::SimDownloader, garner::SimExecutor>;
using Pins = std::vector<Pin<Manager::ChunkRef>>;

class Checks : public Troubles {
 public:
  /// What is known of the past.
  struct Past {
    Durable::Facts durable;
    std::size_t starts = 0;
    bool any_tampered = false;
  };

  /// `fail` takes what is wrong.
  Checks(const garner::SimWorld& world, const garner::SimMachine& machine, std::function<void(std::string)> fail)
      : Troubles(world, machine),
        durable(fail, [&world, &machine] { return machine.disks() > 1 ? disk_troubles(world) : 0; }),
        fail_(std::move(fail)) {}

  Durable durable;

  static std::vector<Manager::ChunkRef> served(const Manager& manager) {
    std::vector<Manager::ChunkRef> out;
    for (const garner::DatasetId& dataset : Lake::get().datasets()) {
      for (Manager::ChunkRef& ref : manager.find_chunks(dataset, Lake::all_blocks())) out.push_back(std::move(ref));
    }
    return out;
  }

  /// Which version is pinned; null where it is none.
  const Version* held(const Manager::ChunkRef& ref) { return fact(ref).holds; }
  const std::string& path(const Manager::ChunkRef& ref) { return fact(ref).path; }
  /// Whether what is wanted is known, and all of it can have been fetched.
  [[nodiscard]] bool knows(const Model& model) const {
    return !any_tampered_ && std::all_of(model.wanted.begin(), model.wanted.end(),
                                         [](const auto& entry) { return entry.second != nullptr; });
  }

  /// Of the files of chunks that are held or being fetched. What the start found and did not tell of is its clean-up's.
  [[nodiscard]] std::uint64_t bytes_on_disk() const {
    std::uint64_t total = 0;
    for (const auto& [path, bytes] : disks().tree()) {
      const std::size_t slash = path.rfind('/');
      if (!bytes || path.ends_with("/chunk.json") || path.substr(slash + 1).starts_with('.')) continue;
      if (is_litter(path) || leftovers_.contains(path.substr(0, slash))) continue;
      const std::string_view below = below_disk(path);
      if (below.starts_with("chunks/") || below.starts_with("staging/")) total += bytes->size();
    }
    return total;
  }

  [[nodiscard]] Past past() const { return {durable.facts(), starts_, any_tampered_}; }
  /// Goes on where another one was when its machine ended.
  void go_on_from(Past past) {
    durable.go_on_from(std::move(past.durable));
    starts_ = past.starts;
    any_tampered_ = past.any_tampered;
  }
  /// Something was changed on the disk behind the store's back.
  void note_tampering() noexcept {
    any_tampered_ = just_tampered_ = true;
    durable.doubt();
  }
  /// What is served is perhaps unlisted for a moment in the middle of the next call.
  void note_wavering() { unlisted_.insert(listed_.begin(), listed_.end()); }
  void after_step(const Manager& manager, const Model& model, const Pins& pins) {
    const std::vector<Manager::ChunkRef> listed = served(manager);
    check_told_corrupt(pins);
    std::uint64_t bytes = 0;
    std::set<Key> now;
    for (const Manager::ChunkRef& ref : listed) {
      if (!model.wanted.contains(ref.id())) fail_("a chunk is found that was deleted: " + ref.id().to_hex());
      check_whole(ref);
      if (bad_at_start_.contains(fact(ref).path))
        fail_("a chunk is served that cannot have been checked: " + path(ref));
      bytes += ref.bytes();
      now.emplace(ref.id(), ref.generation());
    }
    if (listed.size() != manager.list_chunks().size()) fail_("list_chunks and find_chunks do not agree");
    const garner::Status status = manager.status();
    if (status.bytes_ready != bytes) fail_("the bytes that are ready are counted wrong");
    if (status.ready + status.queued + status.downloading + status.waiting + status.parked + status.checking !=
        model.wanted.size()) {
      // Found wrong together with its description it is dropped: there is nothing left to fetch it from.
      if (!any_tampered_) fail_("what is wanted is counted wrong");
    }
    for (const auto& pin : pins) {
      if (tampered(pin.path)) continue;
      if (!Lake::holds(disks(), pin.path, *pin.holds)) fail_("a pinned chunk changed: " + pin.path);
    }
    just_tampered_ = false;
    note_unlisted(std::move(now));
    note_durable(manager, model, listed, status.converged);
  }

  /// What a volume has brought that was not there at the start, and that nobody had said anything about since.
  static void take_in(const Manager& manager, Model& model) {
    std::erase_if(model.may_return, [&](const garner::ChunkId& id) {
      const auto status = manager.chunk_status(id);
      if (!status || !status->wanted) return false;
      return model.wanted.try_emplace(id, nullptr).second;
    });
    std::erase_if(model.told_of, [&](const garner::ChunkId& id) {
      const auto status = manager.chunk_status(id);
      if (!status || !status->wanted) return model.wanted.erase(id) == 1;
      return status->state == garner::ChunkState::ready;
    });
  }

  /// Whether all that is there can be seen.
  [[nodiscard]] bool all_there(const Manager& manager) const {
    const garner::Status status = manager.status();
    // What is found on a disk that was not there at the start, after the end, is left as it is.
    return disks().all_sound() && status.away == 0 && !(status.closed && began_without_some_) &&
           std::all_of(status.volumes.begin(), status.volumes.end(),
                       [](const auto& volume) { return volume.state == garner::VolumeState::healthy; });
  }

  /// Whether a copy of it, or a description, is on some disk and may come back with it.
  [[nodiscard]] bool may_come_back(const Manager& manager, const garner::ChunkId& id) const {
    if (machine_.disks() == 1) return false;
    const auto tree = disks().tree();
    return std::any_of(tree.begin(), tree.end(), [&, is_there = all_there(manager)](const auto& entry) {
      const std::string_view below = below_disk(entry.first);
      const bool is_copy = !is_there && below.starts_with("chunks/");
      return (is_copy || below.starts_with("descriptions/")) && below.find(id.to_hex()) != std::string_view::npos;
    });
  }

  /// What a start has found is compared with what had to be there, and becomes what is wanted. `was_called`: since it
  /// began, so that not all that was found is served.
  void after_start(const Manager& manager, Model& model, const Found& names, garner::StartupCheck check,
                   bool was_called) {
    ++starts_;
    facts_.clear();
    unlisted_.clear();
    listed_.clear();
    condemned_.clear();
    bad_at_start_ = names.bad;
    std::map<garner::ChunkId, const Version*> found;
    std::map<garner::ChunkId, std::uint64_t> generations;
    if (check != garner::StartupCheck::names || was_called) {
      for (const auto& [id, generation] : names.newest) {
        const std::string disk = generation.volume == 0 ? "" : '@' + std::to_string(generation.volume) + '/';
        const std::string path = disk + "chunks/" + garner::store_layout::dataset_name(generation.dataset_id) + '/' +
                                 garner::store_layout::chunk_name(generation);
        found[id] = tampered(path) ? nullptr : Lake::get().held(disks(), id, path);
        generations[id] = generation.number;
      }
    }
    for (const Manager::ChunkRef& ref : served(manager)) {
      const Version* version = held(ref);
      if (version == nullptr && !tampered(path(ref))) fail_("a chunk was recovered that is not whole: " + path(ref));
      found[ref.id()] = tampered(path(ref)) ? nullptr : version;
      generations[ref.id()] = ref.generation();
    }
    leftovers_.clear();
    for (const auto& [path, bytes] : disks().tree()) {
      if (!bytes) leftovers_.insert(path);
    }
    for (const Manager::ChunkRef& ref : served(manager)) leftovers_.erase(path(ref));
    for (const std::string& told : names.paths) leftovers_.erase(told);
    std::set<garner::ChunkId> unknown;
    began_without_some_ = !disks().all_sound();
    model.may_return.clear();
    model.told_of.clear();
    for (std::size_t chunk = 0; chunk < Lake::chunks && !disks().all_sound(); ++chunk) {
      const garner::ChunkId& id = Lake::get().id(chunk);
      unknown.insert(id);
      const auto status = manager.chunk_status(id);
      // Known by its description alone, or a newer one of it is.
      const bool is_told_of = status && status->wanted && status->state != garner::ChunkState::ready;
      if (is_told_of) found[id] = nullptr;
      if (is_told_of) model.told_of.insert(id);
      if (!status || !status->wanted) model.may_return.insert(id);
    }
    durable.started(generations, unknown);
    model.wanted = std::move(found);
    model.asked.clear();
  }

  /// A start tells the same however often it comes, and whether or not it has cleaned up.
  void starts_again(const Manager& manager) {
    if (!all_there(manager)) return;
    const StoppedDisks stopped(disks());
    std::set<Key> listed;
    for (const Manager::ChunkRef& ref : served(manager)) listed.emplace(ref.id(), ref.generation());
    for (int start = 0; start < 2; ++start) {
      std::map<garner::ChunkId, std::uint64_t> found;
      garner::SimStorage store = stopped.storage();
      store.recover([&found](const garner::Generation& generation) {
        found[generation.id] = std::max(found[generation.id], generation.number);
      });
      if (std::set<Key>(found.begin(), found.end()) != listed) fail_("a second start finds something else");
      store.clean_up(garner::Partial::remove);
    }
  }

  /// An observer was told that this generation is corrupt.
  void not_served(const Manager& manager, const garner::Event& event) {
    condemned_.emplace(event.id, event.generation);
    for (const Manager::ChunkRef& ref : served(manager)) {
      if (ref.id() == event.id && ref.generation() == event.generation)
        fail_("a corrupt chunk is served: " + path(ref));
    }
  }

  /// Bytes that may move from now on, if nothing goes wrong any more.
  [[nodiscard]] std::uint64_t bytes_missing(const Manager& manager, const Model& model) {
    std::map<garner::ChunkId, const Version*> right;
    for (const Manager::ChunkRef& ref : served(manager)) {
      if (!tampered(path(ref))) right[ref.id()] = held(ref);
    }
    std::uint64_t bytes = 0;
    for (const auto& [id, version] : model.wanted) {
      const auto at = right.find(id);
      // A copy that the disk would not tell the description of, for too long, is fetched anew.
      const auto status = manager.chunk_status(id);
      const bool is_known = status && status->state == garner::ChunkState::ready;
      const bool is_there =
          at != right.end() && (version == nullptr || same(at->second, version)) && (is_known || !was_unreadable());
      if (!is_there && version != nullptr) bytes += version->bytes;
      if (!is_there && version == nullptr) bytes += biggest(id);
    }
    // A file in the place of a chunk keeps the next of its number out, which is then fetched once more.
    for (const std::string& path : taken_away_) {
      if (is_litter(path) && disks().exists(path)) {
        bytes += biggest(garner::ChunkId::from_hex(path.substr(path.rfind('-') + 1, 64)));
      }
    }
    // What is staged may be in vain already, and end only when some more of it has come.
    for (const auto& [path, contents] : disks().tree()) {
      const std::string below(below_disk(path));
      if (below.starts_with("staging/") && !contents && !is_litter(path))
        bytes += biggest(garner::ChunkId::from_hex(below.substr(8, 64)));
    }
    return bytes;
  }

  /// Nothing goes wrong any more, and it says that it has converged.
  void at_rest(const Manager& manager, const Model& model, const Pins& pins) {
    facts_.clear();  // to be looked at afresh
    std::set<std::string> held_paths;
    std::uint64_t bytes = 0;
    std::map<garner::ChunkId, const Version*> found;
    for (const Manager::ChunkRef& ref : served(manager)) {
      found[ref.id()] = held(ref);
      held_paths.insert(path(ref));
      bytes += ref.bytes();
    }
    if (found.size() != model.wanted.size()) fail_("not all that is wanted is found");
    for (const auto& [id, version] : model.wanted) {
      const auto at = found.find(id);
      if (at == found.end() || !same(at->second, version)) {
        fail_("a chunk is not the version that was asked for last: " + id.to_hex());
      }
    }
    for (const auto& pin : pins) {
      if (held_paths.insert(pin.path).second) bytes += pin.ref.bytes();
    }
    const garner::Status status = manager.status();
    if (status.ready != model.wanted.size() || status.removing != 0 || status.away != 0)
      fail_("chunks are counted wrong");
    if (status.bytes_reserved != 0) fail_("bytes are reserved for nothing");
    if (status.converged_epoch != status.assigned_epoch) fail_("the last assignment is not told as converged");
    if (disks().handles() != handles * machine_.disks()) fail_("a handle is left");
    // What was taken away while its disk was out nobody knows of.
    const bool is_known = taken_away_.empty() || machine_.disks() == 1;
    if (is_known && status.store_bytes_used != bytes) fail_("the bytes of the store are counted wrong");
    if (pins.empty() && machine_.disks() == 1) check_quarantine();
    check_order(manager, model);
    check_leftovers(held_paths);
  }

  /// What is set aside stays within this, where nothing fails.
  std::uint64_t quarantine_max_bytes = 0;

 private:
  /// Who holds what was found corrupt can see that; and no other is told so.
  void check_told_corrupt(const Pins& pins) {
    for (const auto& pin : pins) {
      const bool was_told = condemned_.contains({pin.ref.id(), pin.ref.generation()});
      if (was_told && !pin.ref.is_corrupt()) fail_("a pin does not know that its chunk is corrupt: " + pin.path);
      if (pin.ref.is_corrupt() && !any_tampered_) fail_("a pin says that its chunk is corrupt: " + pin.path);
    }
  }

  void check_quarantine() const {
    const Quarantine kept =
        Quarantine::of(machine_.disk(), [this](const std::string& path) { return is_litter(path); });
    // What could not be taken away is the next start's, which takes it for the oldest.
    const bool may_stay = met_disk_errors() || starts_ > 1;
    if (kept.bytes > quarantine_max_bytes && !may_stay) fail_("more is set aside than is allowed");
    if (met_disk_errors() || !taken_away_.empty() || !litter_.empty() || !is_roomy_) return;
    if (quarantine_max_bytes < garner::Options().quarantine_max_bytes) return;
    for (const auto& [id, generation] : condemned_) {
      if (!kept.chunks.contains({id, generation})) fail_("what was found corrupt was not set aside: " + id.to_hex());
    }
  }

  static constexpr std::size_t handles = 7;  ///< of a store at rest: its root, its lock, and five directories

  using Key = std::pair<garner::ChunkId, std::uint64_t>;
  /// Of one generation; does not change while it is there.
  struct Fact {
    std::string path;
    const Version* holds = nullptr;
    bool is_durable = false;
  };

  Fact& fact(const Manager::ChunkRef& ref) {
    const auto [at, is_new] = facts_.try_emplace({ref.id(), ref.generation()});
    Fact& fact = at->second;
    if (is_new) {
      fact.path = ref.path().lexically_relative("/sim").generic_string();
      fact.holds = Lake::get().held(disks(), ref.id(), fact.path);
    }
    return fact;
  }

  static bool same(const Version* a, const Version* b) {
    return a != nullptr && b != nullptr && a->files == b->files && a->chunk.dataset_id == b->chunk.dataset_id;
  }

  static std::uint64_t biggest(const garner::ChunkId& id) {
    std::uint64_t bytes = 0;
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      if (Lake::get().id(chunk) != id) continue;
      for (std::size_t version = 0; version < Lake::versions; ++version) {
        bytes = std::max(bytes, Lake::get().version(chunk, version).bytes);
      }
    }
    return bytes;
  }

  /// Visible implies whole, right and durable, in every crash that may come now.
  void check_whole(const Manager::ChunkRef& ref) {
    Fact& known = fact(ref);
    if (known.is_durable || tampered(known.path)) return;
    if (known.holds == nullptr) return fail_("a chunk is served that is not whole: " + known.path);
    for (const auto& [name, bytes] : known.holds->files) {
      if (is_relaxed_ || disks().always_durable(known.path + '/' + name, bytes)) continue;
      return fail_("a file is served that is not durable: " + known.path + '/' + name);
    }
    known.is_durable = true;
  }

  void note_unlisted(std::set<Key> now) {
    for (const Key& key : listed_) {
      if (!now.contains(key)) unlisted_.insert(key);
    }
    listed_ = std::move(now);
  }

  /// What was unlisted once may be marked as deleted, until the store has converged.
  void note_durable(const Manager& manager, const Model& model, const std::vector<Manager::ChunkRef>& listed,
                    bool converged) {
    durable.follow(model);
    for (const Manager::ChunkRef& ref : listed) {
      const Fact& known = fact(ref);
      const auto wanted = model.wanted.find(ref.id());
      const bool is_right =
          wanted != model.wanted.end() && (wanted->second == nullptr || same(wanted->second, known.holds));
      const bool is_certain = is_right && (converged || !unlisted_.contains({ref.id(), ref.generation()}));
      if (known.holds == nullptr || tampered(known.path)) {
        durable.give_up(ref.id());
      } else if (is_certain) {
        durable.keep(ref.id(), ref.generation(), known.holds);
      } else {
        durable.keep_any(ref.id());
      }
    }
    if (any_tampered_) {
      for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
        const garner::ChunkId& id = Lake::get().id(chunk);
        const bool is_listed =
            std::any_of(listed.begin(), listed.end(), [&](const auto& ref) { return ref.id() == id; });
        if (!is_listed) durable.give_up(id);
      }
    }
    const bool lost = met(garner::SimFaultKind::sync_failure);
    for (std::size_t chunk = 0; chunk < Lake::chunks; ++chunk) {
      const garner::ChunkId& id = Lake::get().id(chunk);
      if (model.wanted.contains(id) || model.may_return.contains(id)) continue;
      if (!converged && (lost || manager.chunk_status(id))) continue;
      if (!may_come_back(manager, id)) durable.forget(id);
    }
  }

  // ---- small things

  static std::uint64_t disk_troubles(const garner::SimWorld& world) {
    std::uint64_t count = 0;
    for (const auto kind :
         {garner::SimFaultKind::disk_full, garner::SimFaultKind::disk_error, garner::SimFaultKind::short_write,
          garner::SimFaultKind::sync_failure, garner::SimFaultKind::read_only, garner::SimFaultKind::out_of_handles}) {
      count += world.met()[static_cast<std::size_t>(kind)];
    }
    return count;
  }

  /// Of two that begin at one block the one is found that was asked for last.
  void check_order(const Manager& manager, const Model& model) {
    if (any_tampered_) return;  // what was found wrong may have been asked for again
    const auto has_order = [&](const Manager::ChunkRef& ref) { return model.asked.contains(ref.id()); };
    std::vector<Manager::ChunkRef> all = served(manager);
    std::erase_if(all, [&](const Manager::ChunkRef& ref) { return !has_order(ref); });
    for (const Manager::ChunkRef& one : all) {
      const auto found = manager.find_chunk(one.dataset_id(), one.block_range().begin);
      if (!found || !has_order(*found) || found->block_range().begin != one.block_range().begin) continue;
      if (model.asked.at(found->id()) < model.asked.at(one.id()))
        fail_("another chunk is found than was asked for last");
    }
  }

  void check_leftovers(const std::set<std::string>& held) {
    // What a failed sync may have lost stays, whole and marked, until the next start.
    const bool lost = met(garner::SimFaultKind::sync_failure);
    std::size_t markers = 0;
    for (const auto& [path, bytes] : disks().tree()) {
      if (is_litter(path)) continue;
      const std::string_view below = below_disk(path);
      if (below.starts_with("staging/")) fail_("left over: " + path);
      if (below.starts_with("trash/") && !lost) fail_("left over: " + path);
      if (below.starts_with("doomed/") && below != "doomed/boot") ++markers;
      if (!below.starts_with("chunks/") || bytes) continue;
      const std::size_t dataset = below.find('/', 7);
      if (dataset != std::string::npos && !held.contains(path)) fail_("left over: " + path);
    }
    // Those that a start has found stay until the machine was started anew, and known to be.
    if (!lost && starts_ == 1 && taken_away_.empty() && markers > held.size()) fail_("markers are left over");
  }

  std::function<void(std::string)> fail_;
  std::map<Key, Fact> facts_;
  std::set<Key> listed_;     ///< after the last step
  std::set<Key> unlisted_;   ///< since the start
  std::set<Key> condemned_;  ///< an observer was told that they are corrupt
  std::set<std::string> bad_at_start_;
  std::set<std::string> leftovers_;
  bool began_without_some_ = false;
  std::size_t starts_ = 0;
};

}  // namespace simulation
