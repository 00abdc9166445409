// SPDX-License-Identifier: BSL-1.0
//
// The worker at work: keeps a data directory as a manifest says, shows how far it is, and answers questions.
#pragma once

#include <garner/status.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "signals.hpp"

namespace worker {

struct RunOptions {
  std::vector<std::filesystem::path> manifests;
  std::filesystem::path data_dir;
  std::string base_url;                ///< empty: each file from its own URLs
  std::filesystem::path control_file;  ///< empty: beside the data directory
  std::string listen = "127.0.0.1:0";
  std::optional<std::uint64_t> version;  ///< of a manifest with versions: this one, without those before it
  bool add = false;                      ///< keep what is held and not in the manifest
  bool once = false;                     ///< end when all is there
  garner::Options manager;
};

/// Returns the exit code: 0, or 1 where `once` was cut short by a signal. Throws `std::exception`s, among
/// them `ManifestError` before anything is touched.
int run(const RunOptions& options, Signals& signals);

}  // namespace worker
