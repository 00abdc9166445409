// SPDX-License-Identifier: BSL-1.0
//
// What is on a simulated disk, as the names there tell it: what a start will find, and what was set aside.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_quarantine.hpp"
#include "simulation/disks.hpp"

namespace simulation {

/// What a start will find, and which of it cannot pass the check that it is to make.
struct Found {
  std::map<garner::ChunkId, garner::Generation> newest;
  std::set<std::pair<garner::ChunkId, std::uint64_t>> generations;  ///< all
  std::set<std::string> paths;                                      ///< likewise
  std::set<std::string> bad;                                        ///< of these

  static Found by_names(const ConstDisks& disks, garner::StartupCheck check) {
    Found out;
    const StoppedDisks stopped(disks);
    garner::SimStorage store = stopped.storage();
    std::vector<garner::Generation> found;
    store.recover([&found](const garner::Generation& generation) { found.push_back(generation); });
    const auto depth = check == garner::StartupCheck::sizes ? garner::VerifyDepth::sizes : garner::VerifyDepth::digests;
    for (const garner::Generation& generation : found) {
      garner::Generation& newest = out.newest.try_emplace(generation.id, generation).first->second;
      if (newest.number < generation.number) newest = generation;
      out.generations.emplace(generation.id, generation.number);
      const std::string path = store.location(generation).lexically_relative("/sim").generic_string();
      out.paths.insert(path);
      if (check == garner::StartupCheck::names) continue;
      if (store.verify(generation, depth, [](std::uint64_t) { return true; }) == garner::errc::corrupt_chunk) {
        out.bad.insert(path);
      }
    }
    return out;
  }
};

/// What was set aside.
struct Quarantine {
  std::uint64_t bytes = 0;  ///< as they count against the limit
  std::set<std::pair<garner::ChunkId, std::uint64_t>> chunks;

  static Quarantine of(const garner::SimDisk& disk, const std::function<bool(const std::string&)>& is_litter) {
    Quarantine out;
    for (const auto& [path, contents] : disk.tree()) {
      if (!path.starts_with("quarantine/") || is_litter(path)) continue;
      const auto generation = garner::store_layout::parse_qualified_name(path.substr(11));
      if (!generation) continue;
      out.bytes += generation->bytes + garner::QuarantineLimits::entry_bytes;
      out.chunks.emplace(generation->id, generation->number);
    }
    return out;
  }
};

}  // namespace simulation
