// SPDX-License-Identifier: BSL-1.0
//
// `worker --demo`: the main job from end to end on an embedded origin, which also misbehaves, and a check of
// each thing that is claimed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "signals.hpp"

namespace worker {

struct DemoOptions {
  std::vector<std::filesystem::path> manifests;  ///< empty: those that lie in tests/data
  std::size_t chunks = 400;
  std::uint64_t scale = 64;                      ///< the origin serves files of 1/scale of their size
  std::uint64_t seed = 1;                        ///< of the bytes, the sizes that no manifest tells, and the faults
  unsigned threads = 3;                          ///< that look up
  std::uint64_t bytes_per_second = 100'000'000;  ///< that the origin keeps to; 0: as fast as it goes
  bool keep = false;                             ///< leave the data directory behind
};

/// Prints to stdout what happens. Returns 0 only if all was as it should be, otherwise 1.
int run_demo(const DemoOptions& options, Signals& signals);

}  // namespace worker
