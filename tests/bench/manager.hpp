// SPDX-License-Identifier: BSL-1.0
//
// Chunks by number, and a manager on memory that holds the first so many of them: for what is measured without a disk
// and without a network.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/data_manager.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/storage/memory_storage.hpp"
#include "measuring.hpp"

namespace bench {

inline constexpr std::uint64_t datasets = 8;
inline constexpr std::uint64_t blocks_a_chunk = 1000;
inline constexpr const char* url = "mem://lake/file";

inline const garner::DatasetId& dataset_of(std::uint64_t number) {
  static const auto ids = [] {
    std::array<garner::DatasetId, datasets> out;
    for (std::uint64_t i = 0; i < datasets; ++i) out[i] = garner::DatasetId::from_name("dataset " + std::to_string(i));
    return out;
  }();
  return ids[number % datasets];
}

inline garner::BlockRange range_of(std::uint64_t number) {
  const garner::BlockNumber begin = number / datasets * blocks_a_chunk;
  return {begin, begin + blocks_a_chunk};
}

/// Spread as real ids are, and made in no time.
inline garner::ChunkId id_of(std::uint64_t number) {
  std::array<std::uint8_t, 32> bytes{};
  std::uint64_t mixed = number + 1;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i % 8 == 0) mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9U + number;
    bytes[i] = static_cast<std::uint8_t>(mixed >> (56 - 8 * (i % 8)));
  }
  return garner::ChunkId(bytes);
}

inline garner::DataChunk chunk_of(std::uint64_t number, std::size_t files = 1) {
  garner::DataChunk chunk;
  chunk.id = id_of(number);
  chunk.dataset_id = dataset_of(number);
  chunk.block_range = range_of(number);
  for (std::size_t i = 0; i < files; ++i) chunk.files["file" + std::to_string(i)] = url;
  return chunk;
}

class MemoryWorld {
 public:
  using Manager = garner::DataManager<garner::MemoryStorage, garner::MemoryDownloader, garner::AsioExecutor>;

  /// The manager finds them as a start does; nothing is fetched.
  explicit MemoryWorld(std::uint64_t chunks, const garner::Options& options = {}) {
    origin_.put(url, "bytes");
    {
      garner::MemoryStorage store(disk_);
      for (std::uint64_t number = 0; number < chunks; ++number) publish(store, number);
    }
    manager_ = std::make_unique<Manager>(garner::MemoryStorage(disk_), garner::MemoryDownloader(origin_),
                                         garner::AsioExecutor(), options);
  }

  Manager& manager() { return *manager_; }

 private:
  static void publish(garner::MemoryStorage& store, std::uint64_t number) {
    const garner::DataChunk chunk = chunk_of(number);
    std::error_code ec;
    auto staging = store.stage(chunk, number + 1, ec);
    for (const auto& [name, source] : chunk.files) {
      auto file = staging.open(name, ec);
      if (!ec) ec = file.finish();
      if (ec) break;
    }
    if (!ec) store.publish(staging, ec);
    if (ec) fail("a chunk cannot be published: " + ec.message());
  }

  garner::MemoryOrigin origin_;
  std::shared_ptr<garner::MemoryStorage::Disk> disk_ = std::make_shared<garner::MemoryStorage::Disk>();
  std::unique_ptr<Manager> manager_;
};

}  // namespace bench
