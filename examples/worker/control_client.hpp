// SPDX-License-Identifier: BSL-1.0
//
// Asks a running worker, over its HTTP interface.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend.hpp"
#include "control.hpp"

namespace worker {

class ControlClient : public Backend {
 public:
  explicit ControlClient(ControlAddress address) : address_(std::move(address)) {}

  /// The worker that the control file names, if it answers and keeps just this directory: a file that a
  /// killed worker left behind may name a port that is another's by now.
  static std::unique_ptr<ControlClient> connect(const std::filesystem::path& control_file,
                                                const std::filesystem::path& data_dir);

  // Throw `std::runtime_error` where the worker cannot answer.
  std::vector<ChunkRow> list() override;
  std::optional<FoundChunk> find(const std::string& dataset, std::uint64_t block) override;
  std::optional<std::string> remove(const std::string& chunk) override;

 private:
  const ControlAddress address_;
};

}  // namespace worker
