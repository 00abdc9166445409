// SPDX-License-Identifier: BSL-1.0
//
// What a store that has converged should hold, kept the simplest way: the wanted chunks in the order of asking. And
// the comparison with what a manager answers and with what lies in its data directory, byte for byte.
#pragma once

#include <garner/data_manager.hpp>
#include <garner/storage/store_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/origin_tree.hpp"

namespace garner::test {

class ExpectedStore {
 public:
  explicit ExpectedStore(const OriginTree& origin) : origin_(origin) {}

  void download(DataChunk chunk) {
    remove(chunk.id);
    wanted_.push_back(std::move(chunk));
  }
  void remove(const ChunkId& id) {
    std::erase_if(wanted_, [&id](const DataChunk& chunk) { return chunk.id == id; });
  }

  [[nodiscard]] const std::vector<DataChunk>& wanted() const noexcept { return wanted_; }

  /// The chunk of the greatest begin; among equals, the one asked for last.
  [[nodiscard]] const DataChunk* find(const DatasetId& dataset, BlockNumber block) const {
    const DataChunk* best = nullptr;
    for (const DataChunk& chunk : wanted_) {
      if (chunk.dataset_id != dataset || !chunk.block_range.contains(block)) continue;
      if (best == nullptr || chunk.block_range.begin >= best->block_range.begin) best = &chunk;
    }
    return best;
  }

  /// Whether the files in `directory` are those of `chunk`, as the origin serves them.
  [[nodiscard]] bool is_whole(const std::filesystem::path& directory, const DataChunk& chunk) const {
    return std::all_of(chunk.files.begin(), chunk.files.end(), [&](const auto& file) {
      const std::filesystem::path path = directory / file.first;
      return std::filesystem::is_regular_file(path) && read_file(path) == origin_.bytes(file.second.urls.front());
    });
  }

  /// What the origin serves of `chunk`, bytes.
  [[nodiscard]] std::uint64_t bytes(const DataChunk& chunk) const {
    std::uint64_t total = 0;
    for (const auto& [name, source] : chunk.files) total += origin_.bytes(source.urls.front()).size();
    return total;
  }

  /// In which way a manager and its data directory are not as they should be, a line each; empty where they are.
  template <class Manager>
  [[nodiscard]] std::string differences(const Manager& manager, const std::filesystem::path& data_dir) const {
    return listed(manager) + looked_up(manager) + stored(data_dir);
  }

 private:
  static std::string name(const DataChunk& chunk) {
    return chunk.id.to_hex() + " [" + std::to_string(chunk.block_range.begin) + ", " +
           std::to_string(chunk.block_range.end) + ")";
  }

  template <class Manager>
  std::string listed(const Manager& manager) const {
    std::vector<ChunkId> actual = manager.list_chunks();
    std::vector<ChunkId> expected;
    for (const DataChunk& chunk : wanted_) expected.push_back(chunk.id);
    std::sort(actual.begin(), actual.end());
    std::sort(expected.begin(), expected.end());
    if (actual == expected) return {};
    return "listed are " + std::to_string(actual.size()) + " chunks, or other ones than the " +
           std::to_string(expected.size()) + " expected\n";
  }

  /// Looks at both sides of both ends of every chunk.
  template <class Manager>
  std::string looked_up(const Manager& manager) const {
    std::string out;
    std::set<std::pair<DatasetId, BlockNumber>> blocks;
    for (const DataChunk& chunk : wanted_) {
      const auto [begin, end] = chunk.block_range;
      for (const BlockNumber block : {begin, end - 1, end}) blocks.emplace(chunk.dataset_id, block);
      if (begin > 0) blocks.emplace(chunk.dataset_id, begin - 1);
    }
    for (const auto& [dataset, block] : blocks) {
      const DataChunk* const expected = find(dataset, block);
      const auto actual = manager.find_chunk(dataset, block);
      const bool same =
          expected == nullptr ? !actual : actual && actual->id() == expected->id && is_described(*actual, *expected);
      if (!same) {
        out += "block " + std::to_string(block) + ": expected " + (expected == nullptr ? "nothing" : name(*expected)) +
               ", found " + (actual ? actual->id().to_hex() : "nothing") + "\n";
      }
    }
    return out;
  }

  template <class Ref>
  bool is_described(const Ref& ref, const DataChunk& chunk) const {
    return ref.dataset_id() == chunk.dataset_id && ref.block_range() == chunk.block_range &&
           std::equal(ref.files().begin(), ref.files().end(), chunk.files.begin(), chunk.files.end(),
                      [](const auto& actual, const auto& expected) {
                        return actual.first == expected.first && actual.second.urls == expected.second.urls &&
                               actual.second.digest == expected.second.digest;
                      });
  }

  std::string stored(const std::filesystem::path& data_dir) const {
    using std::filesystem::directory_iterator;
    std::string out;
    for (const char* const area :
         {store_layout::staging_directory, store_layout::trash_directory, store_layout::doomed_directory}) {
      for (const auto& entry : directory_iterator(data_dir / area)) {
        if (entry.path().filename() != store_layout::boot_file) out += "left over: " + entry.path().string() + "\n";
      }
    }
    std::map<ChunkId, const DataChunk*> missing;
    for (const DataChunk& chunk : wanted_) missing.emplace(chunk.id, &chunk);
    for (const auto& dataset : directory_iterator(data_dir / store_layout::chunks_directory)) {
      const auto dataset_id = store_layout::parse_dataset_name(dataset.path().filename().string());
      if (!dataset_id) out += "foreign: " + dataset.path().string() + "\n";
      for (const auto& entry : directory_iterator(dataset)) {
        const auto held =
            store_layout::parse_chunk_name(entry.path().filename().string(), dataset_id.value_or(DatasetId()));
        const auto expected = held ? missing.find(held->id) : missing.end();
        if (expected == missing.end()) {
          out += "not wanted: " + entry.path().string() + "\n";
          continue;
        }
        const DataChunk& chunk = *expected->second;
        missing.erase(expected);
        const auto files = std::distance(directory_iterator(entry), directory_iterator());
        const bool is_right = held->dataset_id == chunk.dataset_id && held->block_range == chunk.block_range &&
                              held->bytes == bytes(chunk) && is_whole(entry, chunk) &&
                              static_cast<std::size_t>(files) == chunk.files.size() + 1;  // chunk.json
        if (!is_right) out += "not as the origin has it: " + entry.path().string() + "\n";
      }
    }
    for (const auto& [id, chunk] : missing) out += "not on the disk: " + name(*chunk) + "\n";
    return out;
  }

  const OriginTree& origin_;
  std::vector<DataChunk> wanted_;
};

}  // namespace garner::test
