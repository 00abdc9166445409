// SPDX-License-Identifier: BSL-1.0
//
// `worker list`, `find` and `delete`: one question to the running worker, or to the data directory where none
// runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace worker {

struct CommandOptions {
  std::filesystem::path data_dir;
  std::filesystem::path control_file;            ///< empty: beside the data directory
  std::vector<std::filesystem::path> manifests;  ///< for names, where no worker runs
  bool json = false;
};

/// Each prints to stdout and returns the exit code: 0, or 1 where there is no such chunk. Throw
/// `std::exception`s.
int list_chunks(const CommandOptions& options);
int find_chunk(const CommandOptions& options, const std::string& dataset, std::uint64_t block);
int delete_chunk(const CommandOptions& options, const std::string& chunk);

}  // namespace worker
