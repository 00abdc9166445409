// SPDX-License-Identifier: BSL-1.0
//
// What is fetched next, how long a failure waits, and the alarms.
#include "garner/core/schedule.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using garner::ChunkId;
using garner::DatasetId;
using garner::core::Alarms;
using garner::core::Backoff;
using garner::core::FetchQueue;
using garner::core::Instant;
using garner::core::Random;
using namespace std::chrono_literals;

namespace {

ChunkId chunk(std::uint64_t number) { return ChunkId::from_name("chunk " + std::to_string(number)); }
DatasetId dataset(std::uint64_t number) { return DatasetId::from_name("dataset " + std::to_string(number)); }

}  // namespace

TEST_CASE("a seed replays, and is SplitMix64's") {
  Random random(1234567);  // the reference sequence of the paper's code
  CHECK(random.next() == 6457827717110365317U);
  CHECK(random.next() == 3203168211198807973U);
  CHECK(random.next() == 9817491932198370423U);
  Random same(42);
  Random again(42);
  for (int i = 0; i < 10; ++i) CHECK(same.next() == again.next());
}

TEST_CASE("a fraction is at least 0 and less than 1, and evenly spread") {
  Random random(3);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double fraction = random.fraction();
    REQUIRE(fraction >= 0);
    REQUIRE(fraction < 1);
    sum += fraction;
  }
  CHECK(sum > 4800);
  CHECK(sum < 5200);
}

TEST_CASE("backoff is full jitter below a bound that doubles up to the greatest delay") {
  const Backoff backoff{100ms, 10s};
  Random random(5);
  for (std::uint64_t failures = 0; failures < 100; ++failures) {
    const auto bound = failures < 7 ? std::min<std::chrono::nanoseconds>(10s, 100ms * (1 << failures)) : 10s;
    std::chrono::nanoseconds greatest = 0ns;
    for (int i = 0; i < 200; ++i) {
      const auto delay = backoff.delay(failures, random);
      REQUIRE(delay >= 0ns);
      REQUIRE(delay < bound);
      greatest = std::max(greatest, delay);
    }
    CHECK(greatest > bound * 8 / 10);
  }
  CHECK(backoff.delay(~std::uint64_t{0}, random) < 10s);
}

TEST_CASE("the slowest pace is between half of the greatest delay and all of it") {
  const Backoff backoff{100ms, 10s};
  Random random(6);
  for (int i = 0; i < 1000; ++i) {
    const auto delay = backoff.slowest(random);
    REQUIRE(delay >= 5s);
    REQUIRE(delay < 10s);
  }
}

TEST_CASE("backoff stays in range at the limits of what can be asked for") {
  Random random(7);
  const Backoff longest{std::chrono::nanoseconds::max(), std::chrono::nanoseconds::max()};
  CHECK(longest.delay(63, random) >= 0ns);
  CHECK(longest.slowest(random) > 0ns);
  const Backoff none{0ns, 0ns};
  CHECK(none.delay(10, random) == 0ns);
  CHECK(none.slowest(random) == 0ns);
}

TEST_CASE("within a dataset the chunk that was asked for first goes first") {
  FetchQueue queue;
  CHECK_FALSE(queue.front());
  for (const std::uint64_t asked : {5U, 2U, 9U}) {
    queue.count_missing(dataset(1), 1);
    queue.push(dataset(1), asked, chunk(asked));
  }
  for (const std::uint64_t asked : {2U, 5U, 9U}) {
    CHECK(queue.front() == chunk(asked));
    queue.erase(dataset(1), asked);
  }
  CHECK_FALSE(queue.front());
}

TEST_CASE("the dataset with the fewest missing chunks goes first, and counts what is not queued too") {
  FetchQueue queue;
  queue.count_missing(dataset(1), 1);
  queue.count_missing(dataset(1), 1);
  queue.push(dataset(1), 1, chunk(1));
  queue.count_missing(dataset(2), 1);
  queue.push(dataset(2), 2, chunk(2));
  CHECK(queue.front() == chunk(2));
  queue.count_missing(dataset(2), 1);
  CHECK(queue.front() == chunk(1));  // as many missing, and asked for before
  queue.count_missing(dataset(2), -1);
  CHECK(queue.front() == chunk(2));
}

TEST_CASE("the queue agrees with a plain list at random") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    FetchQueue queue;
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
          queue.push(dataset(in), asked, chunk(asked));
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
      REQUIRE(queue.front() == expected);
    }
  }
}

TEST_CASE("alarms come when they are due, the earliest first") {
  Alarms alarms;
  CHECK_FALSE(alarms.next());
  CHECK_FALSE(alarms.pop_due(Instant::max()));
  alarms.set(3s, chunk(3));
  alarms.set(1s, chunk(1));
  alarms.set(2s, chunk(2));
  alarms.set(1s, chunk(4));
  CHECK(alarms.next() == Instant(1s));
  CHECK_FALSE(alarms.pop_due(1s - 1ns));
  alarms.cancel(1s, chunk(4));
  CHECK(alarms.pop_due(2s) == chunk(1));
  CHECK(alarms.pop_due(2s) == chunk(2));
  CHECK_FALSE(alarms.pop_due(2s));
  CHECK(alarms.next() == Instant(3s));
  alarms.cancel(4s, chunk(3));  // of no alarm
  CHECK(alarms.pop_due(3s) == chunk(3));
}
