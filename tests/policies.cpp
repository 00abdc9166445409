// SPDX-License-Identifier: BSL-1.0
//
// The smallest models of the policies: they conform, and a manager on them does its job. What a class that falls short
// is told is in tests/policies_diagnostics.
#include "garner/policies.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <optional>

#include "garner/data_manager.hpp"

namespace minimal = garner::minimal;
using namespace std::chrono_literals;

static_assert(garner::Storage<minimal::Storage> && garner::diagnose_storage<minimal::Storage>());
static_assert(garner::Downloader<minimal::Downloader> && garner::diagnose_downloader<minimal::Downloader>());
static_assert(garner::Executor<minimal::Executor> && garner::diagnose_executor<minimal::Executor>());
static_assert(garner::DrivenExecutor<minimal::Executor>);
static_assert(!garner::Storage<int> && !garner::Downloader<int> && !garner::Executor<int>);
static_assert(!garner::Storage<minimal::Downloader> && !garner::Executor<minimal::Storage>);

TEST_CASE("a manager on the smallest policies fetches, finds and removes a chunk") {
  garner::DataManager manager{minimal::Storage(), minimal::Downloader(), minimal::Executor()};
  garner::DataChunk chunk;
  chunk.id = garner::ChunkId::from_name("chunk");
  chunk.dataset_id = garner::DatasetId::from_name("dataset");
  chunk.block_range = {0, 10};
  chunk.files["data"] = "http://host/data";
  manager.download_chunk(chunk);
  REQUIRE(manager.wait_converged(1s));
  auto found = manager.find_chunk(chunk.dataset_id, 3);
  REQUIRE(found);
  CHECK(found->location() == found->generation());
  CHECK(found->files() == chunk.files);
  manager.delete_chunk(chunk.id);
  CHECK_FALSE(manager.find_chunk(chunk.dataset_id, 3));
  REQUIRE(manager.wait_converged(1s));
  CHECK(manager.chunk_status(chunk.id)->state == garner::ChunkState::draining);
  found.reset();
  REQUIRE(manager.wait_converged(1s));
  CHECK_FALSE(manager.chunk_status(chunk.id));
}
