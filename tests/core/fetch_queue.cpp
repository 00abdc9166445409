// SPDX-License-Identifier: BSL-1.0
//
// Which chunk is fetched next.
#include "garner/core/fetch_queue.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"

using garner::ChunkId;
using garner::DataChunk;
using garner::DatasetId;
using garner::core::FetchQueue;
using garner::core::Hosts;
using garner::core::Random;

namespace {

ChunkId chunk(std::uint64_t number) { return ChunkId::from_name("chunk " + std::to_string(number)); }
DatasetId dataset(std::uint64_t number) { return DatasetId::from_name("dataset " + std::to_string(number)); }

DataChunk chunk_of(std::uint64_t in, std::uint64_t number, const std::string& host = "a") {
  DataChunk chunk;
  chunk.id = ::chunk(number);
  chunk.dataset_id = dataset(in);
  chunk.files["f"] = "http://" + host + "/f";
  return chunk;
}

void push(FetchQueue& queue, const DataChunk& chunk, std::uint64_t asked) {
  queue.push(chunk, asked, chunk.files.at("f").urls);
}

std::optional<ChunkId> front(const FetchQueue& queue) {
  const auto front = queue.front([](const FetchQueue::Lane&) { return true; });
  return front ? std::optional(front->first) : std::nullopt;
}

/// Of those that do not come from `host`.
std::optional<ChunkId> front_without(const FetchQueue& queue, const std::string& host) {
  const auto front =
      queue.front([&](const FetchQueue::Lane& lane) { return lane.hosts().front()->origin != "http://" + host; });
  return front ? std::optional(front->first) : std::nullopt;
}

}  // namespace

TEST_CASE("within a dataset the chunk that was asked for first goes first") {
  Hosts hosts;
  FetchQueue queue(hosts);
  CHECK_FALSE(front(queue));
  for (const std::uint64_t asked : {5U, 2U, 9U}) {
    queue.count_missing(dataset(1), 1);
    push(queue, chunk_of(1, asked), asked);
  }
  for (const std::uint64_t asked : {2U, 5U, 9U}) {
    CHECK(front(queue) == chunk(asked));
    queue.erase(dataset(1), asked);
  }
  CHECK_FALSE(front(queue));
}

TEST_CASE("the dataset with the fewest missing chunks goes first, and counts what is not queued too") {
  Hosts hosts;
  FetchQueue queue(hosts);
  queue.count_missing(dataset(1), 1);
  queue.count_missing(dataset(1), 1);
  push(queue, chunk_of(1, 1), 1);
  queue.count_missing(dataset(2), 1);
  push(queue, chunk_of(2, 2), 2);
  CHECK(front(queue) == chunk(2));
  queue.count_missing(dataset(2), 1);
  CHECK(front(queue) == chunk(1));  // as many missing, and asked for before
  queue.count_missing(dataset(2), -1);
  CHECK(front(queue) == chunk(2));
}

TEST_CASE("the queue agrees with a plain list at random") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    Hosts hosts;
    FetchQueue queue(hosts);
    std::map<std::uint64_t, std::size_t> missing;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> queued;  // dataset, asked
    std::uint64_t asked = 0;
    for (int i = 0; i < 2000; ++i) {
      const std::uint64_t in = random.next() % 6;
      switch (random.next() % 4) {
        case 0:
          queue.count_missing(dataset(in), 1);
          ++missing[in];
          break;
        case 1:
          if (missing[in] > 0) {
            queue.count_missing(dataset(in), -1);
            --missing[in];
          }
          break;
        case 2:
          ++asked;
          push(queue, chunk_of(in, asked), asked);
          queued.emplace_back(in, asked);
          break;
        default:
          if (queued.empty()) break;
          const std::size_t at = random.next() % queued.size();
          queue.erase(dataset(queued[at].first), queued[at].second);
          queued.erase(queued.begin() + static_cast<std::ptrdiff_t>(at));
      }
      std::optional<ChunkId> expected;
      // Fewest missing, then the dataset that has waited longest, then the order of asking.
      std::map<std::uint64_t, std::uint64_t> first;
      for (const auto& [d, a] : queued) first[d] = first.contains(d) ? std::min(first[d], a) : a;
      std::pair<std::size_t, std::uint64_t> best{~std::size_t{0}, ~std::uint64_t{0}};
      for (const auto& [d, a] : first) best = std::min(best, std::pair(missing[d], a));
      if (!first.empty()) expected = chunk(best.second);
      REQUIRE(front(queue) == expected);
    }
  }
}

TEST_CASE("chunks of a server that is passed over hold up none of another, in their dataset or behind it") {
  Hosts hosts;
  FetchQueue queue(hosts);
  for (const std::uint64_t in : {1U, 2U}) {
    for (int i = 0; i < 3; ++i) queue.count_missing(dataset(in), 1);
  }
  push(queue, chunk_of(1, 1, "bad"), 1);
  push(queue, chunk_of(1, 2, "good"), 2);
  push(queue, chunk_of(2, 3, "bad"), 3);
  push(queue, chunk_of(2, 4, "good"), 4);
  CHECK(front(queue) == chunk(1));
  CHECK(front_without(queue, "bad") == chunk(2));
  queue.erase(dataset(1), 2);
  CHECK(front_without(queue, "bad") == chunk(4));
  CHECK(front_without(queue, "good") == chunk(1));
  queue.erase(dataset(2), 4);
  CHECK_FALSE(front_without(queue, "bad"));
  CHECK(front(queue) == chunk(1));
}

TEST_CASE("a dataset from very many servers stays cheap: those that come late share a lane") {
  Hosts hosts;
  FetchQueue queue(hosts);
  const std::uint64_t many = 1000;
  for (std::uint64_t i = 1; i <= many; ++i) {
    queue.count_missing(dataset(1), 1);
    push(queue, chunk_of(1, i, "host" + std::to_string(i)), i);
  }
  std::size_t lanes = 0;
  CHECK_FALSE(queue.front([&lanes](const FetchQueue::Lane&) { return ++lanes == 0; }));
  CHECK(lanes == 16);
  for (std::uint64_t i = 1; i <= many; ++i) {
    REQUIRE(front(queue) == chunk(i));
    queue.erase(dataset(1), i);
    queue.count_missing(dataset(1), -1);
  }
  CHECK(queue.empty());
}
