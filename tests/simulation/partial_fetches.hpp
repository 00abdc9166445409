// SPDX-License-Identifier: BSL-1.0
//
// What an earlier run had of chunks that it did not fetch to their end, as it lies in `staging/`: bytes that are not to
// be fetched again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "garner/manager/file_origin.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_machine.hpp"
#include "garner/storage/checkpoint.hpp"
#include "garner/storage/store_layout.hpp"
#include "simulation/lake.hpp"

namespace simulation {

class PartialFetches {
 public:
  /// After a start. Of several disks nobody knows which one goes on with it.
  void look(const garner::SimMachine& machine) {
    left_.clear();
    bytes_ = 0;
    for (std::size_t disk = 0; disk < machine.disks(); ++disk) look(machine.disk(disk), machine.disks() == 1);
  }

  /// All that there was after the start.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// The bytes of `version` that need not be fetched now that it is asked for. It can be gone on with once.
  std::uint64_t take(const garner::SimDisk& disk, const Version& version) {
    const auto left = left_.find(version.chunk.id);
    if (left == left_.end()) return 0;
    std::uint64_t bytes = 0;
    for (const auto& [name, source] : version.chunk.files) {
      const std::string* there = disk.contents(left->second.path + '/' + name);
      if (there == nullptr || !version.files.contains(name)) continue;
      std::uint64_t most = 0;
      for (const bool second : {false, true}) {
        const std::string* note =
            disk.contents(left->second.path + '/' + garner::detail::checkpoint_name(name, second));
        const auto checkpoint = note != nullptr ? garner::detail::decode_checkpoint(*note) : std::nullopt;
        if (!checkpoint || checkpoint->size > there->size()) continue;
        const bool same = version.files.at(name).starts_with(there->substr(0, checkpoint->size));
        if (same && can_go_on(*checkpoint, source)) most = std::max(most, checkpoint->size);
      }
      bytes += most;
    }
    left_.erase(left);
    return bytes;
  }

 private:
  static constexpr std::string_view place = "staging/";

  struct Left {
    std::string path;
    std::uint64_t number = 0;
  };

  void look(const garner::SimDisk& disk, bool is_only_one) {
    for (const auto& [path, bytes] : disk.tree()) {
      if (!path.starts_with(place)) continue;
      if (bytes) bytes_ += bytes->size();
      if (bytes || !is_only_one) continue;
      const auto name = garner::store_layout::parse_staging_name(path.substr(place.size()));
      if (name && (!left_.contains(name->id) || left_.at(name->id).number < name->number)) {
        left_[name->id] = {path, name->number};
      }
    }
  }

  static bool can_go_on(const garner::detail::Checkpoint& checkpoint, const garner::FileSource& source) {
    if (checkpoint.asked != garner::detail::asked_of(source)) return false;
    const auto from = garner::detail::parse_origin(checkpoint.origin);
    // Another server may have other bytes, and begin with the first of them.
    if (!from || from->url != source.urls.front()) return false;
    return source.digest || !(from->identity.etag + from->identity.last_modified).empty();
  }

  std::map<garner::ChunkId, Left> left_;
  std::uint64_t bytes_ = 0;
};

}  // namespace simulation
