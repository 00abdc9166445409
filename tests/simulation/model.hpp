// SPDX-License-Identifier: BSL-1.0
//
// What a data manager must make true, as short as it can be said: the last call about each id wins, and pins hold. What is
// compared with it, and when, is in checks.hpp.
#pragma once

#include <map>
#include <vector>

#include "garner/chunk.hpp"
#include "simulation/lake.hpp"

namespace simulation {

struct Model {
  std::map<garner::ChunkId, const Version*> wanted;  ///< null: whatever version was there at a start

  void download(const Version& version) { wanted[version.chunk.id] = &version; }
  void remove(const garner::ChunkId& id) { wanted.erase(id); }
  void assign(const std::vector<const Version*>& versions) {
    wanted.clear();
    for (const Version* version : versions) download(*version);
  }
};

/// Must be held at its path, as it was, while it is kept.
template <class Ref>
struct Pin {
  Ref ref;
  std::string path;
  const Version* holds;
};

}  // namespace simulation
