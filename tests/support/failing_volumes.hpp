// SPDX-License-Identifier: BSL-1.0
//
// Volumes of a store in directories of the real file system, each of which can be made to fail, or not to be there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/storage/posix_file_system.hpp"
#include "garner/storage/store_volumes.hpp"
#include "support/recording_file_system.hpp"
#include "support/temp_dir.hpp"

namespace garner::test {

/// Places of volumes, each with a journal that can make it fail.
struct FailingVolumes {
  explicit FailingVolumes(std::vector<std::uint64_t> limits = {1 << 20, 1 << 20}) : max_bytes(std::move(limits)) {
    for (std::size_t i = 0; i < max_bytes.size(); ++i) journals.push_back(std::make_shared<Journal>());
    is_there.assign(max_bytes.size(), true);
  }

  [[nodiscard]] std::filesystem::path place(std::size_t index) const { return dir / ("disk" + std::to_string(index)); }

  [[nodiscard]] BasicVolumes<RecordingFileSystem> store() const {
    std::vector<VolumePlace<RecordingFileSystem>> places;
    for (std::size_t i = 0; i < max_bytes.size(); ++i) {
      const auto open = [this, i] {
        std::filesystem::create_directories(place(i));
        std::error_code ec = is_there[i] ? std::error_code() : make_error_code(errc::io_error);
        auto posix = ec ? std::nullopt : std::optional(PosixFileSystem::open(place(i), ec));
        if (ec) throw Error(ec, place(i).string());
        return RecordingFileSystem(*std::move(posix), journals[i]);
      };
      places.push_back({place(i), open, max_bytes[i]});
    }
    return BasicVolumes<RecordingFileSystem>(std::move(places));
  }

  /// Every operation on it fails that begins with one of `verbs`; with none, every one.
  void fail(std::size_t index, std::error_code error = errc::io_error, std::vector<std::string> verbs = {""}) const {
    journals[index]->refuse = [error, verbs = std::move(verbs)](const std::string& entry) {
      const bool is_hit =
          std::any_of(verbs.begin(), verbs.end(), [&](const auto& verb) { return entry.starts_with(verb); });
      return is_hit ? error : std::error_code();
    };
  }
  void mend(std::size_t index) const { journals[index]->refuse = nullptr; }

  TempDir dir;
  std::vector<std::uint64_t> max_bytes;
  std::vector<std::shared_ptr<Journal>> journals;
  std::vector<bool> is_there;
};

inline const std::vector<std::string> changes = {"make_directory", "create_file", "write",
                                                 "rename",         "remove_",     "sync_"};

}  // namespace garner::test
