// SPDX-License-Identifier: BSL-1.0
//
// The index against a model that is a plain list: overlaps, nested ranges, forks of one range, many datasets, batches
// of changes; and readers on other threads while it changes.
#include "garner/core/chunk_index.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"

using garner::BlockNumber;
using garner::BlockRange;
using garner::DatasetId;
using garner::core::Random;

namespace {

using Index = garner::core::ChunkIndex<const std::uint64_t>;

Index::ValuePtr value_of(std::uint64_t number) { return std::make_unique<const std::uint64_t>(number); }

constexpr BlockNumber most = std::numeric_limits<BlockNumber>::max();

DatasetId dataset(std::uint64_t number) { return DatasetId::from_name("dataset " + std::to_string(number)); }

/// What the index should say, said slowly.
class Model {
 public:
  struct Entry {
    DatasetId dataset;
    BlockRange range;
    std::uint64_t asked;
    Index::Key key;
  };

  std::vector<Entry> entries;

  [[nodiscard]] std::optional<std::uint64_t> find(const DatasetId& in, BlockNumber block) const {
    const Entry* best = nullptr;
    for (const Entry& entry : entries) {
      if (entry.dataset != in || !entry.range.contains(block)) continue;
      if (best == nullptr || std::pair(best->range.begin, best->asked) < std::pair(entry.range.begin, entry.asked)) {
        best = &entry;
      }
    }
    if (best == nullptr) return std::nullopt;
    return best->asked;
  }

  [[nodiscard]] std::vector<std::uint64_t> visit(const DatasetId& in, const BlockRange& range) const {
    std::vector<std::pair<BlockNumber, std::uint64_t>> found;
    for (const Entry& entry : entries) {
      if (entry.dataset == in && entry.range.meets(range)) found.emplace_back(entry.range.begin, entry.asked);
    }
    std::sort(found.begin(), found.end());
    std::vector<std::uint64_t> out;
    out.reserve(found.size());
    for (const auto& [begin, asked] : found) out.push_back(asked);
    return out;
  }
};

std::optional<std::uint64_t> find(const Index& index, const DatasetId& in, BlockNumber block) {
  return index.find(in, block, [](const std::uint64_t& value) { return value; });
}

std::vector<std::uint64_t> visit(const Index& index, const DatasetId& in, const BlockRange& range) {
  std::vector<std::uint64_t> out;
  index.visit(in, range, [&out](const std::uint64_t& value) { out.push_back(value); });
  return out;
}

void publish(Index& index) {
  index.publish();
  std::vector<Index::Garbage> garbage;
  index.collect(garbage);
}

/// An index and its model, changed together.
struct Pair {
  Index index;
  Model model;
  std::uint64_t asked = 0;

  void insert(const DatasetId& in, const BlockRange& range) {
    ++asked;
    const auto key = index.insert(in, range, asked, value_of(asked));
    model.entries.push_back({in, range, asked, key});
  }
  void erase(std::size_t at) {
    index.erase(model.entries[at].key);
    model.entries[at] = model.entries.back();
    model.entries.pop_back();
  }
  [[nodiscard]] std::size_t at(std::uint64_t asked_for) const {
    const auto it = std::find_if(model.entries.begin(), model.entries.end(),
                                 [asked_for](const auto& entry) { return entry.asked == asked_for; });
    return static_cast<std::size_t>(it - model.entries.begin());
  }
  void check_all() const {
    std::vector<std::uint64_t> all;
    index.visit_all([&all](const std::uint64_t& value) { all.push_back(value); });
    std::sort(all.begin(), all.end());
    std::vector<std::uint64_t> expected;
    for (const auto& entry : model.entries) expected.push_back(entry.asked);
    std::sort(expected.begin(), expected.end());
    REQUIRE(all == expected);
    REQUIRE(index.size() == expected.size());
  }
};

}  // namespace

TEST_CASE("an empty index finds nothing") {
  Index index;
  CHECK_FALSE(find(index, dataset(1), 0));
  CHECK(visit(index, dataset(1), {0, most}).empty());
  index.publish();
  CHECK_FALSE(find(index, dataset(1), 0));
  CHECK(index.size() == 0);
}

TEST_CASE("a change is seen at the next publish, and all changes before it at once") {
  Pair pair;
  pair.insert(dataset(1), {0, 10});
  pair.insert(dataset(2), {0, 10});
  CHECK_FALSE(find(pair.index, dataset(1), 5));
  CHECK_FALSE(find(pair.index, dataset(2), 5));
  publish(pair.index);
  CHECK(find(pair.index, dataset(1), 5) == 1);
  CHECK(find(pair.index, dataset(2), 5) == 2);
  pair.erase(pair.at(1));
  pair.insert(dataset(1), {5, 6});
  CHECK(find(pair.index, dataset(1), 5) == 1);
  publish(pair.index);
  CHECK(find(pair.index, dataset(1), 5) == 3);
  CHECK_FALSE(find(pair.index, dataset(1), 6));
}

TEST_CASE("where ranges overlap the greatest begin wins, and among equals the one asked for last") {
  Pair pair;
  pair.insert(dataset(1), {0, 100});
  pair.insert(dataset(1), {50, 60});
  pair.insert(dataset(1), {0, 100});
  pair.insert(dataset(1), {0, 40});
  publish(pair.index);
  CHECK(find(pair.index, dataset(1), 0) == 4);
  CHECK(find(pair.index, dataset(1), 39) == 4);
  CHECK(find(pair.index, dataset(1), 40) == 3);
  CHECK(find(pair.index, dataset(1), 50) == 2);
  CHECK(find(pair.index, dataset(1), 60) == 3);
  CHECK(visit(pair.index, dataset(1), {0, 100}) == std::vector<std::uint64_t>{1, 3, 4, 2});
  CHECK(visit(pair.index, dataset(1), {60, 61}) == std::vector<std::uint64_t>{1, 3});
  CHECK(visit(pair.index, dataset(1), {61, 61}).empty());
  CHECK(visit(pair.index, dataset(1), {70, 60}).empty());
}

TEST_CASE("the last block number and the greatest end are nothing special") {
  Pair pair;
  pair.insert(dataset(1), {0, most});
  pair.insert(dataset(1), {most - 1, most});
  pair.insert(dataset(2), {0, 1});
  publish(pair.index);
  CHECK(find(pair.index, dataset(1), most - 1) == 2);
  CHECK(find(pair.index, dataset(1), most - 2) == 1);
  CHECK_FALSE(find(pair.index, dataset(1), most));
  CHECK(visit(pair.index, dataset(1), {most - 1, most}) == std::vector<std::uint64_t>{1, 2});
  CHECK_FALSE(find(pair.index, dataset(2), 1));
}

TEST_CASE("a tree of three levels that grew by appending can be erased again from either end") {
  for (const bool from_the_end : {true, false}) {
    for (const std::uint64_t count : {1024U, 1025U, 1030U, 1060U, 2100U}) {
      CAPTURE(count);
      CAPTURE(from_the_end);
      Pair pair;
      for (std::uint64_t i = 0; i < count; ++i) pair.insert(dataset(1), {10 * i, 10 * i + 10});
      publish(pair.index);
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t asked = from_the_end ? count - i : i + 1;
        pair.index.erase(pair.model.entries[asked - 1].key);
        if (i % 3 == 0) publish(pair.index);
        if (i % 50 == 0) {
          publish(pair.index);
          const BlockNumber gone = 10 * (asked - 1) + 5;
          REQUIRE_FALSE(find(pair.index, dataset(1), gone));
          if (i + 1 < count) {
            const BlockNumber next = from_the_end ? gone - 10 : gone + 10;
            REQUIRE(find(pair.index, dataset(1), next) == (from_the_end ? asked - 1 : asked + 1));
          }
        }
      }
      publish(pair.index);
      CHECK(pair.index.size() == 0);
      CHECK_FALSE(find(pair.index, dataset(1), 5));
    }
  }
}

TEST_CASE("every value that was put in is released once, when no reader is inside") {
  struct Release {
    void operator()(int* count) const noexcept { ++*count; }
  };
  using Counting = garner::core::ChunkIndex<int, Release>;
  int released = 0;
  {
    Counting index;
    std::vector<Counting::Key> keys;
    for (std::uint64_t i = 0; i < 100; ++i) {
      keys.push_back(index.insert(dataset(1), {i, i + 1}, i, Counting::ValuePtr(&released)));
    }
    index.publish();
    const auto seen = index.find(dataset(1), 50, [&](int& count) {
      for (std::size_t i = 0; i < 60; ++i) index.erase(keys[i]);
      index.publish();
      std::vector<Counting::Garbage> garbage;
      index.collect(garbage);
      garbage.clear();
      CHECK(index.pending());
      return count;
    });
    CHECK(seen == 0);
    std::vector<Counting::Garbage> garbage;
    index.collect(garbage);
    CHECK_FALSE(index.pending());
    CHECK(released == 0);
    garbage.clear();
    CHECK(released == 60);
  }
  CHECK(released == 100);
}

TEST_CASE("what a change replaced is kept for the next ones, once no reader is inside; of very much only some is") {
  Index index;
  std::uint64_t next = 0;
  const auto change = [&](std::uint64_t chunks) {
    for (std::uint64_t i = 0; i < chunks; ++i, ++next) {
      index.insert(dataset(1), {next, next + 1}, next, std::make_unique<const std::uint64_t>(next));
    }
    index.publish();
    std::vector<Index::Garbage> garbage;
    index.collect(garbage);
    return garbage.size();
  };
  change(1000);
  for (int i = 0; i < 100; ++i) CHECK(change(1) == 0);
  index.visit(dataset(1), {0, 1}, [&](const std::uint64_t&) {
    for (int i = 0; i < 100; ++i) CHECK(change(1) == 0);
    CHECK(index.pending());
  });
  CHECK(change(1) > 100);
  CHECK_FALSE(index.pending());
  CHECK(change(1) == 0);
}

TEST_CASE("the index agrees with the model after random batches of changes") {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const auto below = [&random](std::uint64_t n) { return random.next() % n; };
    Pair pair;
    // Each seed has a world of its own: few or many datasets, disjoint or overlapping ranges, growing or shrinking.
    const std::uint64_t datasets = 1 + below(seed % 2 == 0 ? 3 : 40);
    const std::uint64_t space = 20 + below(5000);
    const std::uint64_t longest = 1 + below(seed % 3 == 0 ? space : 12);
    const std::size_t target = 10 + below(1600);
    const auto some_range = [&] {
      if (!pair.model.entries.empty() && below(4) == 0) {  // a fork of one that is there, or nested in it
        const BlockRange of = pair.model.entries[below(pair.model.entries.size())].range;
        if (below(2) == 0) return of;
        const BlockNumber begin = of.begin + below(of.end - of.begin);
        return BlockRange{begin, begin + 1 + below(of.end - begin)};
      }
      const BlockNumber begin = below(space);
      return BlockRange{begin, begin + 1 + below(longest)};
    };
    for (int batch = 0; batch < 60; ++batch) {
      const bool growing = batch < 40;
      for (std::uint64_t change = below(80); change > 0; --change) {
        const bool insert = pair.model.entries.size() < target ? below(10) < (growing ? 9U : 2U) : below(10) < 3;
        if (insert || pair.model.entries.empty()) {
          pair.insert(dataset(below(datasets)), some_range());
        } else {
          pair.erase(below(pair.model.entries.size()));
        }
      }
      publish(pair.index);
      for (int question = 0; question < 20; ++question) {
        const DatasetId in = dataset(below(datasets + 1));
        const BlockNumber block = below(space + longest);
        REQUIRE(find(pair.index, in, block) == pair.model.find(in, block));
        const BlockRange range{block, block + 1 + below(60)};
        REQUIRE(visit(pair.index, in, range) == pair.model.visit(in, range));
      }
      if (batch % 10 == 9) pair.check_all();
    }
    while (!pair.model.entries.empty()) pair.erase(below(pair.model.entries.size()));
    publish(pair.index);
    pair.check_all();
    CHECK_FALSE(pair.index.pending());
  }
}

TEST_CASE("readers on other threads see every batch whole while the index changes") {
  // Each batch moves one range from one place to another. A reader that sees a batch half-done finds none or two.
  Index index;
  constexpr std::uint64_t places = 300;
  const auto insert = [&index](std::uint64_t place, std::uint64_t asked) {
    return index.insert(dataset(1), {place * 10, place * 10 + 10}, asked, value_of(asked));
  };
  std::uint64_t asked = 0;
  for (std::uint64_t i = 1; i < places; i += 2) insert(i, ++asked);
  Index::Key key = insert(0, ++asked);
  publish(index);
  const std::uint64_t settled = asked - 1;

  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> rounds{0};
  std::vector<std::thread> readers;
  readers.reserve(3);
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&, i] {
      Random random(static_cast<std::uint64_t>(i));
      while (!stop.load(std::memory_order_relaxed)) {
        std::size_t seen = 0;
        std::size_t moving = 0;
        index.visit(dataset(1), {0, places * 10}, [&](const std::uint64_t& value) {
          ++seen;
          if (value > settled) ++moving;
        });
        if (moving != 1 || seen != settled + 1) ++wrong;
        const std::uint64_t place = 1 + 2 * (random.next() % (places / 2));
        const auto found = find(index, dataset(1), place * 10 + 3);
        if (!found || *found > settled) ++wrong;
        ++rounds;
      }
    });
  }
  Random random(99);
  for (int batch = 0; batch < 4000 || rounds.load() < 50; ++batch) {
    index.erase(key);
    key = insert(2 * (random.next() % (places / 2)), ++asked);
    publish(index);
    if (batch % 100 == 0) index.insert(dataset(static_cast<std::uint64_t>(batch)), {0, 1}, ++asked, nullptr);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  publish(index);
  CHECK_FALSE(index.pending());
}
