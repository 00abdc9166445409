// SPDX-License-Identifier: BSL-1.0
//
// The quick start: ask for a chunk, find it by a block, and read it while it is deleted. What stands between the two
// marks is in the README as it is here; below it is a server on loopback, so that it runs without a network.
// [readme]
#include <garner/garner.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

void quick_start(const std::filesystem::path& data_dir, const std::string& lake) {
  garner::DataManager<> manager(data_dir);  // finds what an earlier run left there

  garner::DataChunk chunk;
  chunk.id = garner::ChunkId::from_name("ethereum-mainnet/0-99");
  chunk.dataset_id = garner::DatasetId::from_name("ethereum-mainnet");
  chunk.block_range = {0, 100};  // half-open: blocks 0 to 99
  chunk.files = {{"blocks.jsonl", lake + "/0-99/blocks.jsonl"}, {"logs.jsonl", lake + "/0-99/logs.jsonl"}};
  manager.download_chunk(chunk);  // returns at once; the store converges in the background
  if (!manager.wait_converged(std::chrono::seconds(30))) return;

  if (const auto pin = manager.find_chunk(chunk.dataset_id, 42)) {  // any thread, at any rate
    manager.delete_chunk(chunk.id);                                 // nobody finds it from now on, but …
    std::ifstream blocks(pin->path() / "blocks.jsonl");             // … while it is pinned it stays as it is
    for (std::string line; std::getline(blocks, line);) std::cout << line << '\n';
  }  // the last pin is dropped, and the files are removed
}
// [readme]

#include "support/loopback_origin.hpp"
#include "support/temporary_directory.hpp"

int main() {
  const support::LoopbackOrigin origin([](const support::Request& request) {
    if (request.target == "/0-99/blocks.jsonl") return support::Reply::of("{\"number\": 0}\n{\"number\": 99}\n");
    if (request.target == "/0-99/logs.jsonl") return support::Reply::of("{\"block\": 99, \"log\": 0}\n");
    return support::Reply::of("no such file\n", 404);
  });
  const support::TemporaryDirectory directory("garner-quick-start");
  quick_start(directory.path() / "chunks", origin.url());
}
