// SPDX-License-Identifier: BSL-1.0
//
// Too slow, or only held up: in virtual time.
#include "garner/download/stall_rule.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>

using garner::detail::StallRule;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

namespace {

/// The second at which a transfer is given up that moves so many bytes in each, paused for so long in each; 100: never.
int given_up(std::uint64_t bytes, milliseconds pause) {
  StallRule rule;
  rule.begin(seconds(50));
  for (int second = 1; second < 100; ++second) {
    const nanoseconds now = seconds(50 + second);
    rule.pause(now - pause);
    rule.moved(bytes);
    rule.resume(now);
    if (rule.is_stalled(now, 1000, seconds(10))) return second;
  }
  return 100;
}

}  // namespace

TEST_CASE("a trickle is given up after its time, and what is fast enough never") {
  CHECK(given_up(1, milliseconds(0)) == 10);
  CHECK(given_up(999, milliseconds(0)) == 10);
  CHECK(given_up(1000, milliseconds(0)) == 100);
}

TEST_CASE("a pause is not held against it, and one of half of the time excuses it") {
  CHECK(given_up(700, milliseconds(400)) == 100);
  CHECK(given_up(500, milliseconds(400)) == 10);
  CHECK(given_up(1, milliseconds(600)) == 100);
  CHECK(given_up(0, milliseconds(1000)) == 100);
}

TEST_CASE("a good second begins the count anew") {
  StallRule rule;
  rule.begin(seconds(0));
  for (int second = 1; second < 40; ++second) {
    if (second % 9 == 0) rule.moved(5000);
    CHECK_FALSE(rule.is_stalled(seconds(second), 1000, seconds(10)));
  }
}

TEST_CASE("a pause goes on over a look") {
  StallRule rule;
  rule.begin(seconds(0));
  rule.pause(seconds(0));
  for (int second = 1; second < 40; ++second) CHECK_FALSE(rule.is_stalled(seconds(second), 1000, seconds(10)));
  rule.resume(seconds(39));
  for (int second = 40; second < 49; ++second) CHECK_FALSE(rule.is_stalled(seconds(second), 1000, seconds(10)));
  CHECK(rule.is_stalled(seconds(49), 1000, seconds(10)));
}
