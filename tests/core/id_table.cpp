// SPDX-License-Identifier: BSL-1.0
//
// The hash table of chunks, against a map, while it grows and shrinks.
#include "garner/core/id_table.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "garner/core/schedule.hpp"

using garner::ChunkId;
using garner::core::IdTable;
using garner::core::Random;

namespace {

struct Node {
  ChunkId id;
  Node* next = nullptr;
};

/// Many of these have the same hash in their lowest bits: `number` counts up in the last byte but one.
ChunkId id_of(std::uint64_t number) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < 8; ++i) bytes.at(30 - i) = static_cast<std::uint8_t>(number >> (8 * i));
  return ChunkId(bytes);
}

}  // namespace

TEST_CASE("an empty table has nothing") {
  IdTable<Node> table;
  CHECK(table.find(id_of(1)) == nullptr);
  CHECK(table.take(id_of(1)) == nullptr);
  CHECK(table.size() == 0);
  table.visit([](Node&) { CHECK(false); });
}

TEST_CASE("what is in the table is found, and nothing else, while it grows and shrinks") {
  for (const std::uint64_t most : {1U, 3U, 255U, 256U, 257U, 3000U}) {
    CAPTURE(most);
    IdTable<Node> table;
    std::map<std::uint64_t, std::unique_ptr<Node>> model;
    Random random(most);
    for (std::uint64_t step = 0; step < 8 * most; ++step) {
      // Mostly in to the middle of it, and mostly out from there on.
      const bool is_in = random.next() % 4 < (step < 4 * most ? 3U : 1U);
      const std::uint64_t number = random.next() % most;
      const auto held = model.find(number);
      CHECK(table.find(id_of(number)) == (held == model.end() ? nullptr : held->second.get()));
      if (is_in && held == model.end()) {
        auto& node = model[number] = std::make_unique<Node>(Node{id_of(number)});
        table.insert(*node);
      } else if (!is_in && held != model.end()) {
        CHECK(table.take(id_of(number)) == held->second.get());
        model.erase(held);
      }
      CHECK(table.size() == model.size());
    }
    std::size_t seen = 0;
    table.visit([&](Node& node) {
      CHECK(table.find(node.id) == &node);
      ++seen;
    });
    CHECK(seen == model.size());
    for (const auto& [number, node] : model) CHECK(table.take(node->id) == node.get());
    CHECK(table.size() == 0);
  }
}

TEST_CASE("each may be freed as it is seen") {
  IdTable<Node> table;
  for (std::uint64_t i = 0; i < 1000; ++i) table.insert(*new Node{id_of(i)});
  std::size_t seen = 0;
  table.visit([&](Node& node) {
    ++seen;
    delete &node;
  });
  CHECK(seen == 1000);
}
