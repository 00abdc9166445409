// SPDX-License-Identifier: BSL-1.0
//
// `worker origin`: the demonstration's origin by itself, for trying the worker where there is no network.
#pragma once

#include <filesystem>
#include <vector>

#include "origin.hpp"
#include "signals.hpp"

namespace worker {

struct ServeOptions {
  std::vector<std::filesystem::path> manifests;
  std::filesystem::path rewritten;  ///< the manifest that leads to the origin, with sizes and digests that are true
  OriginOptions origin;
};

/// Serves until a signal comes; returns the exit code. Throws `std::exception`s.
int serve_origin(const ServeOptions& options, Signals& signals);

}  // namespace worker
