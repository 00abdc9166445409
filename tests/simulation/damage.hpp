// SPDX-License-Identifier: BSL-1.0
//
// What is done to a simulated life's disk behind the store's back: chunks that rot or vanish, litter, and other
// processes that start on it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "garner/storage/store_layout.hpp"
#include "simulation/disks.hpp"
#include "simulation/lake.hpp"
#include "simulation/life.hpp"
#include "simulation/odd_starts.hpp"

namespace simulation {

class Damage : public Life {
 protected:
  using Life::Life;
  ~Damage() = default;

  void rot() {
    std::vector<std::string> files;
    const Disks disk(machine_);
    for (const auto& [path, bytes] : disk.tree()) {
      const std::string_view below = below_disk(path);
      const bool is_of_chunk = below.starts_with("chunks/") && below.find('-') != std::string::npos &&
                               std::count(below.begin(), below.end(), '/') == 3;
      if (bytes && !bytes->empty() && is_of_chunk) files.push_back(path);
    }
    if (files.empty()) return;
    const std::string& path = files[static_cast<std::size_t>(decisions_.choose(files.size()))];
    if (has_another_rotten_copy(files, path)) return;
    const std::string bytes = *disk.contents(path);
    world_.note("  ", path);
    checks_.note_tampering();
    switch (decisions_.choose(12)) {
      case 0: return replace(path, {});
      case 1: return replace(path, bytes.substr(0, bytes.size() / 2));
      case 2: return replace(path, bytes + 'x');
      case 3:
        // A directory in its place, with something in it.
        if (!disk.uproot(path) || !disk.plant(path, {})) return;
        disk.plant(path + "/inner", "x");
        return checks_.note_litter(path);
      case 4: disk.plant(path + ".more", "x"); return;
      case 5:
        // Another one's of the same name.
        for (const std::string& other : files) {
          if (other != path && other.ends_with(path.substr(path.rfind('/'))))
            return replace(path, *disk.contents(other));
        }
        return;
      case 6: return take_away(path.substr(0, path.rfind('/')));
      default: break;
    }
    // One after another: compilers differ in which argument they evaluate first.
    const auto bit = static_cast<unsigned>(decisions_.choose(8));
    disk.corrupt(path, decisions_.choose(bytes.size()), bit);
  }

  /// A disk fails, refuses changes or is taken out; or one that does is mended.
  void change_disk() {
    const auto index = static_cast<std::size_t>(decisions_.choose(machine_.disks()));
    garner::SimDisk& disk = machine_.disk(index);
    checks_.note_disk_failure();
    if (disk.health() != garner::SimHealth::sound) {
      disk.set_health(garner::SimHealth::sound);
    } else if (options_.durability == garner::Durability::full && decisions_.chance(1, 4)) {
      machine_.unplug(index);
    } else {
      disk.set_health(decisions_.chance(1, 3) ? garner::SimHealth::read_only : garner::SimHealth::failing);
    }
    world_.note("  disk ", std::to_string(index), " is ", to_string(machine_.disk(index).health()));
    if (decisions_.chance(1, 4)) misdescribe();
  }

  /// What one disk says of another's chunk is changed, or is another's.
  void misdescribe() {
    const Disks disk(machine_);
    std::vector<std::string> descriptions;
    for (const auto& [path, bytes] : disk.tree()) {
      if (bytes && !bytes->empty() && below_disk(path).starts_with("descriptions/")) descriptions.push_back(path);
    }
    if (descriptions.empty()) return;
    const std::string& path = descriptions[static_cast<std::size_t>(decisions_.choose(descriptions.size()))];
    const std::string& other = descriptions[static_cast<std::size_t>(decisions_.choose(descriptions.size()))];
    const std::string bytes = *disk.contents(path);
    world_.note("  ", path);
    if (path != other) return replace(path, *disk.contents(other));
    const auto bit = static_cast<unsigned>(decisions_.choose(8));
    disk.corrupt(path, decisions_.choose(bytes.size()), bit);
  }

  /// A scrub re-reads what is served. Where that is wrong and a pinned copy takes its place, that one is not re-read.
  [[nodiscard]] bool has_another_rotten_copy(const std::vector<std::string>& files, const std::string& path) const {
    const std::string chunk = path.substr(path.rfind('-') + 1, 64);
    const std::string generation = path.substr(0, path.rfind('/'));
    return std::any_of(files.begin(), files.end(), [&](const std::string& file) {
      return file.find(chunk) != std::string::npos && !file.starts_with(generation) &&
             checks_.tampered(file.substr(0, file.rfind('/')));
    });
  }

  /// A chunk; or puts a file in its place.
  void take_away(const std::string& path) {
    const Disks disk(machine_);
    std::vector<std::string> below;
    for (const auto& [name, bytes] : disk.tree()) {
      if (name == path || name.starts_with(path + '/')) below.insert(below.begin(), name);
    }
    for (const std::string& name : below) disk.uproot(name);
    if (disk.exists(path)) return;
    checks_.note_taken_away(path);
    if (!decisions_.chance(1, 2) || !disk.plant(path, "x")) return;
    checks_.note_litter(path);
    checks_.note_litter(trash_of(path));  // where it is not recognised, either
  }

  /// Where a chunk goes when it is removed.
  static std::string trash_of(std::string path) {
    path.replace(path.size() - below_disk(path).size(), 7, "trash/");
    return path.replace(path.rfind('/'), 1, "-");
  }

  void replace(const std::string& path, const std::optional<std::string>& bytes) {
    const Disks disk(machine_);
    if (disk.uproot(path) && bytes) disk.plant(path, bytes);
  }

  /// Names that garner does not make, and some that only it makes where it has made none.
  void litter() {
    const std::array<std::string, 5> places = {"chunks", "staging", "doomed", "trash", "quarantine"};
    std::string path = places[static_cast<std::size_t>(decisions_.choose(places.size()))];
    const std::vector<Manager::ChunkRef> listed = Checks::served(*manager_);
    switch (decisions_.choose(5)) {
      case 0: path += "/litter"; break;
      case 1: {
        std::vector<std::string> datasets;
        for (const auto& [name, bytes] : machine_.disk().tree()) {
          if (!bytes && name.starts_with("chunks/") && name.size() == 7 + 64) datasets.push_back(name);
        }
        if (datasets.empty()) return;
        path = datasets[static_cast<std::size_t>(decisions_.choose(datasets.size()))] + "/litter";
        break;
      }
      case 2: path += '/' + Lake::get().id(0).to_hex() + ".litter"; break;
      case 3:
        // Markers of what nobody knows.
        for (std::size_t number = 1'000'000; number < 1'000'003; ++number) {
          plant_file("doomed/" + garner::store_layout::qualified_name(
                                     {Lake::get().id(0), Lake::get().datasets()[0], {0, 1}, 1, number}));
        }
        return;
      default:
        if (listed.empty()) return;
        path = trash_of(checks_.path(listed[static_cast<std::size_t>(decisions_.choose(listed.size()))]));
    }
    world_.note("  ", path);
    if (decisions_.chance(1, 2)) return plant_file(path);
    if (!Disks(machine_).plant(path, {})) return;
    checks_.note_litter(path);
    Disks(machine_).plant(path + "/inner", {});
    Disks(machine_).plant(path + "/inner/most", "x");
  }

  void plant_file(const std::string& path) {
    if (Disks(machine_).plant(path, "")) checks_.note_litter(path);
  }

  void odd_start() {
    if (machine_.ended() || machine_.disks() > 1 || !decisions_.chance(1, 32)) return;
    OddStarts starts(machine_.disk(), decisions_, [this](std::string what) { fail(std::move(what)); });
    starts.while_in_use(machine_.file_system().disk());
    starts.of_another_format();
    starts.that_fail();
  }
};

}  // namespace simulation
