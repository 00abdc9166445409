// SPDX-License-Identifier: BSL-1.0
//
// All disks of a simulated machine as one tree: what is on the second is below "@1/", and so on, as it is for those who
// are told its paths. Looks at what is there, however well the disks are.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_machine.hpp"

namespace simulation {

/// `path` below the disk that it is on.
inline std::string_view below_disk(std::string_view path) {
  return path.starts_with('@') ? path.substr(std::min(path.find('/'), path.size() - 1) + 1) : path;
}

template <class Disk>
class DisksOf {
 public:
  template <class Machine>
  explicit DisksOf(Machine& machine) {
    for (std::size_t disk = 0; disk < machine.disks(); ++disk) disks_.push_back(&machine.disk(disk));
  }
  explicit DisksOf(std::vector<Disk*> disks) : disks_(std::move(disks)) {}

  [[nodiscard]] std::size_t size() const noexcept { return disks_.size(); }
  [[nodiscard]] Disk& operator[](std::size_t index) const { return *disks_[index]; }

  [[nodiscard]] garner::SimDisk::Tree tree() const {
    garner::SimDisk::Tree out = disks_.front()->tree();
    for (std::size_t index = 1; index < disks_.size(); ++index) {
      for (auto& [path, bytes] : disks_[index]->tree()) {
        out.emplace('@' + std::to_string(index) + '/' + path, std::move(bytes));
      }
    }
    return out;
  }
  [[nodiscard]] const std::string* contents(std::string_view path) const { return at(path).contents(below_disk(path)); }
  [[nodiscard]] bool exists(std::string_view path) const { return at(path).exists(below_disk(path)); }
  [[nodiscard]] bool always_durable(std::string_view path, std::string_view bytes) const {
    return at(path).always_durable(below_disk(path), bytes);
  }
  [[nodiscard]] bool tampered(std::string_view path) const { return at(path).tampered(below_disk(path)); }
  [[nodiscard]] bool any_tampered() const {
    return std::any_of(disks_.begin(), disks_.end(), [](Disk* disk) { return disk->tampered(""); });
  }
  [[nodiscard]] std::size_t handles() const {
    std::size_t handles = 0;
    for (Disk* disk : disks_) handles += disk->handles();
    return handles;
  }
  [[nodiscard]] bool all_sound() const {
    return std::all_of(disks_.begin(), disks_.end(),
                       [](Disk* disk) { return disk->health() == garner::SimHealth::sound; });
  }

  void set_capacity(std::uint64_t bytes) const {
    for (Disk* disk : disks_) disk->set_capacity(bytes);
  }
  bool corrupt(std::string_view path, std::uint64_t offset, unsigned bit) const {
    return at(path).corrupt(below_disk(path), offset, bit);
  }
  bool plant(std::string_view path, const std::optional<std::string>& bytes) const {
    return at(path).plant(below_disk(path), bytes);
  }
  bool uproot(std::string_view path) const { return at(path).uproot(below_disk(path)); }

 private:
  [[nodiscard]] Disk& at(std::string_view path) const {
    std::size_t index = 0;
    if (path.starts_with('@')) std::from_chars(path.data() + 1, path.data() + path.size(), index);
    return *disks_.at(index);
  }

  std::vector<Disk*> disks_;
};

using Disks = DisksOf<garner::SimDisk>;
using ConstDisks = DisksOf<const garner::SimDisk>;

/// Disks that no machine runs on: copies, for a look at what a start would find on them.
class StoppedDisks {
 public:
  explicit StoppedDisks(std::vector<garner::SimDisk> disks) {
    for (garner::SimDisk& disk : disks) disks_.push_back(std::make_shared<garner::SimDisk>(std::move(disk)));
  }
  explicit StoppedDisks(const ConstDisks& disks) {
    for (std::size_t index = 0; index < disks.size(); ++index) {
      disks_.push_back(std::make_shared<garner::SimDisk>(disks[index]));
    }
  }

  /// Throws as a start does.
  [[nodiscard]] garner::SimStorage storage() const {
    if (disks_.size() == 1) return garner::SimStorage(garner::SimFileSystem(disks_.front()));
    std::vector<garner::VolumePlace<garner::SimFileSystem>> places;
    for (std::size_t index = 0; index < disks_.size(); ++index) {
      const std::string path = index == 0 ? "/sim" : "/sim/@" + std::to_string(index);
      places.push_back({path, [disk = disks_[index], path] { return garner::SimFileSystem(disk, nullptr, path); }});
    }
    return garner::SimStorage(std::move(places));
  }
  [[nodiscard]] ConstDisks view() const {
    std::vector<const garner::SimDisk*> out;
    for (const auto& disk : disks_) out.push_back(disk.get());
    return ConstDisks(std::move(out));
  }

 private:
  std::vector<std::shared_ptr<garner::SimDisk>> disks_;
};

}  // namespace simulation
