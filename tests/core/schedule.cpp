// SPDX-License-Identifier: BSL-1.0
//
// How long a failure waits, and the alarms.
#include "garner/core/schedule.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <string>

using garner::ChunkId;
using garner::core::Alarms;
using garner::core::Backoff;
using garner::core::Instant;
using garner::core::Random;
using namespace std::chrono_literals;

namespace {

ChunkId chunk(std::uint64_t number) { return ChunkId::from_name("chunk " + std::to_string(number)); }

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
