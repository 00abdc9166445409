// SPDX-License-Identifier: BSL-1.0
//
// What this program makes of the library: a data manager with its default policies, the names of what it
// keeps, and the assignment that it was given.
#pragma once

#include <garner/garner.hpp>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend.hpp"
#include "failures.hpp"
#include "manifest.hpp"
#include "progress.hpp"

namespace worker {

/// Thread-safety: every member from any thread.
class Service : public Backend {
 public:
  using Manager = garner::DataManager<>;

  /// Throws `garner::Error`, for one where another process holds the directory.
  Service(std::filesystem::path data_dir, const garner::Options& options);

  [[nodiscard]] Manager& manager() noexcept { return *manager_; }
  [[nodiscard]] const std::filesystem::path& data_dir() const noexcept { return data_dir_; }
  [[nodiscard]] const Failures& failures() const noexcept { return *failures_; }

  /// Learns what the manifest's chunks and datasets are called. Nothing is downloaded.
  void learn(const Manifest& manifest);
  /// Makes these chunks what is wanted, and nothing else. Throws `garner::Error`.
  void assign(std::span<const NamedChunk> chunks);
  /// Makes these chunks wanted beside the others. Throws `garner::Error`.
  void add(std::span<const NamedChunk> chunks);
  /// Whether what is served are these chunks, by their ids, and no others.
  [[nodiscard]] bool holds(std::span<const NamedChunk> chunks) const;

  /// What the display needs; without what `Progress` adds by itself.
  [[nodiscard]] Frame frame() const;
  /// The chunk's name, or its id.
  [[nodiscard]] std::string name_of(const garner::ChunkId& id) const;

  std::vector<ChunkRow> list() override;
  std::optional<FoundChunk> find(const std::string& dataset, std::uint64_t block) override;
  std::optional<std::string> remove(const std::string& chunk) override;

 private:
  using ChunkRef = Manager::ChunkRef;

  /// A chunk that some manifest named.
  struct Known {
    std::string name;
    garner::DatasetId dataset;
    garner::BlockRange blocks;
    std::size_t files = 0;
    std::uint64_t bytes = 0;  ///< of the files whose size is known
    bool all_sizes_known = true;
    bool wanted = false;
  };

  void learn(const NamedChunk& chunk, bool wanted);
  void unlearn_wish(const garner::ChunkId& id);
  [[nodiscard]] std::vector<ChunkRef> held() const;
  [[nodiscard]] std::vector<garner::DatasetId> held_datasets() const;
  [[nodiscard]] ChunkRow row_of(const ChunkRef& ref) const;
  [[nodiscard]] std::string dataset_name(const garner::DatasetId& id) const;

  const std::filesystem::path data_dir_;
  const std::shared_ptr<Failures> failures_ = std::make_shared<Failures>();
  const std::unique_ptr<Manager> manager_;
  garner::Subscription subscription_;

  mutable std::mutex mutex_;  ///< of all below
  std::unordered_map<garner::ChunkId, Known> known_;
  std::map<garner::DatasetId, std::string> datasets_;
  std::uint64_t bytes_wanted_ = 0;  ///< of `known_`'s wanted ones
  std::size_t sizes_missing_ = 0;   ///< wanted chunks with a file whose size is not known
};

}  // namespace worker
