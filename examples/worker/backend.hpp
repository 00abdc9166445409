// SPDX-License-Identifier: BSL-1.0
//
// What can be asked of a worker: list, find, delete. Answered by a data manager of this process (service.hpp)
// or by a running worker over HTTP (control_client.hpp); `worker list` and the like do not know which.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace worker {

/// One chunk, as text and numbers. What is not known is empty.
struct ChunkRow {
  std::string id;       ///< hexadecimal
  std::string name;     ///< the manifest's; empty where no manifest was read
  std::string dataset;  ///< the manifest's name, or the id in hexadecimal
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string state;  ///< "ready", "downloading", … as `garner::ChunkState`
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t attempts = 0;  ///< failed ones
  std::string error;           ///< the last one, where it is not ready
};

struct FileRow {
  std::string name;
  std::string path;
  std::uint64_t bytes = 0;
  std::string digest;
};

/// A chunk that is served, with where it lies. Nothing pins it once this has been answered.
struct FoundChunk {
  ChunkRow chunk;
  std::string path;
  std::vector<FileRow> files;
};

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  /// All that is wanted or held, by dataset and block.
  virtual std::vector<ChunkRow> list() = 0;
  /// The chunk that serves a block. `dataset` is a name, or an id in hexadecimal.
  virtual std::optional<FoundChunk> find(const std::string& dataset, std::uint64_t block) = 0;
  /// Deletes a chunk by its name, or its id in hexadecimal. The id; nothing where it was neither wanted nor
  /// held.
  virtual std::optional<std::string> remove(const std::string& chunk) = 0;
};

}  // namespace worker
