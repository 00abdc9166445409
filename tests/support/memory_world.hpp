// SPDX-License-Identifier: BSL-1.0
//
// A data manager on memory policies and a manual clock, and chunks to fill it with: for tests that look at the whole.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/data_manager.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/inline_executor.hpp"
#include "garner/storage/memory_storage.hpp"

namespace garner::test {

/// An InlineExecutor that its test can still drive once a manager owns it.
class DrivenFromOutside {
 public:
  using Timer = InlineExecutor::Timer;
  explicit DrivenFromOutside(std::shared_ptr<InlineExecutor> executor) : executor_(std::move(executor)) {}

  void post(Task task) { executor_->post(std::move(task)); }
  Timer post_at(Instant at, Task task) { return executor_->post_at(at, std::move(task)); }
  void cancel(Timer& timer) { executor_->cancel(timer); }
  [[nodiscard]] Instant now() const { return executor_->now(); }
  bool run_one_until(Instant until) { return executor_->run_one_until(until); }

 private:
  std::shared_ptr<InlineExecutor> executor_;
};

inline DatasetId dataset(const std::string& name = "dataset") { return DatasetId::from_name(name); }

/// Chunk `name` of blocks [begin, begin + 10), with one file.
inline DataChunk chunk(const std::string& name, BlockNumber begin = 0, int version = 1) {
  DataChunk out;
  out.id = ChunkId::from_name(name);
  out.dataset_id = dataset();
  out.block_range = {begin, begin + 10};
  out.files["data"] = "mem://" + name + "/" + std::to_string(version);
  return out;
}

/// Where chunks come from, and the disk that outlives managers.
struct Outside {
  MemoryOrigin origin;
  std::shared_ptr<MemoryStorage::Disk> disk = std::make_shared<MemoryStorage::Disk>();
  std::shared_ptr<InlineExecutor> clock = std::make_shared<InlineExecutor>(InlineExecutor::manual());

  /// Makes the origin have what `chunk` asks for.
  const DataChunk& offer(const DataChunk& chunk) {
    for (const auto& [name, source] : chunk.files) {
      for (const std::string& url : source.urls) origin.put(url, "bytes of " + url);
    }
    return chunk;
  }
  DataChunk offer(const std::string& name, BlockNumber begin = 0, int version = 1) {
    return offer(chunk(name, begin, version));
  }

  /// Runs what is due now.
  void run() { clock->run_ready(); }
};

using MemoryManager = DataManager<MemoryStorage, MemoryDownloader, DrivenFromOutside>;

inline MemoryManager make_manager(const Outside& outside, Options options = {}) {
  if (options.seed == 0) options.seed = 1;
  return {MemoryStorage(outside.disk), MemoryDownloader(outside.origin), DrivenFromOutside(outside.clock), options};
}

/// The bytes of the file of a chunk made by `chunk`.
template <class Ref>
std::string content(const Ref& ref) {
  const auto place = ref.location();
  if (place == nullptr) return "nowhere";
  const std::vector<std::byte>& bytes = place->files.at("data");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace garner::test
