// SPDX-License-Identifier: BSL-1.0
//
// What a data manager must make true, as short as it can be said: the last call about each id wins, and pins hold. What
// is compared with it, and when, is in checks.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "simulation/lake.hpp"

namespace simulation {

struct Model {
  std::map<garner::ChunkId, const Version*> wanted;  ///< null: whatever version was there at a start

  std::map<garner::ChunkId, std::uint64_t> asked;  ///< their order; not of what was wanted otherwise before

  /// What nobody knows of and a disk may bring that was not there at the start: until something is said about it.
  std::set<garner::ChunkId> may_return;
  /// What a start knows by a description alone: it may be of what was deleted when nobody could take it away.
  std::set<garner::ChunkId> told_of;

  void download(const Version& version) {
    may_return.erase(version.chunk.id);
    told_of.erase(version.chunk.id);
    const auto [at, is_new] = wanted.try_emplace(version.chunk.id, &version);
    if (is_new) asked[version.chunk.id] = ++last;
    if (std::exchange(at->second, &version) != &version) asked.erase(version.chunk.id);
  }
  void remove(const garner::ChunkId& id) {
    wanted.erase(id);
    asked.erase(id);
    may_return.erase(id);
    told_of.erase(id);
  }
  void assign(const std::vector<const Version*>& versions) {
    may_return.clear();
    told_of.clear();
    std::erase_if(wanted, [&](const auto& entry) {
      return std::none_of(versions.begin(), versions.end(),
                          [&](const Version* version) { return version->chunk.id == entry.first; });
    });
    std::erase_if(asked, [this](const auto& entry) { return !wanted.contains(entry.first); });
    for (const Version* version : versions) download(*version);
  }

  std::uint64_t last = 0;
};

/// Must be held at its path, as it was, while it is kept.
template <class Ref>
struct Pin {
  Ref ref;
  std::string path;
  const Version* holds = nullptr;
};

}  // namespace simulation
