// SPDX-License-Identifier: BSL-1.0
//
// The meter of bytes, in virtual time.
#include "garner/download/token_bucket.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

using garner::detail::TokenBucket;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

namespace {

TokenBucket bucket_of(std::uint64_t rate) {
  TokenBucket bucket;
  bucket.set_rate(rate, seconds(1));
  return bucket;
}

}  // namespace

TEST_CASE("without a rate all is granted") {
  TokenBucket bucket;
  CHECK(bucket.take(UINT64_MAX, seconds(5)) == UINT64_MAX);
  CHECK(bucket.wait_for(UINT64_MAX, seconds(5)) == nanoseconds(0));
}

TEST_CASE("a fresh bucket is empty, and saves no more than a tenth of a second's worth") {
  TokenBucket bucket = bucket_of(1000);
  CHECK(bucket.take(1, seconds(1)) == 0);
  CHECK(bucket.take(1000, seconds(100)) == 101);
  CHECK(bucket.take(1000, seconds(100)) == 0);
  CHECK(bucket.take(1000, seconds(100) + milliseconds(50)) == 50);
}

TEST_CASE("it says how long to wait, and not longer than for as much as it can save") {
  TokenBucket bucket = bucket_of(1000);
  const nanoseconds wait = bucket.wait_for(30, seconds(1));
  CHECK(wait >= milliseconds(30));
  CHECK(wait < milliseconds(31));
  CHECK(bucket.take(30, seconds(1) + wait) == 30);
  CHECK(bucket.wait_for(1'000'000, seconds(2)) == nanoseconds(0));
  CHECK(bucket.take(1'000'000, seconds(2)) == 101);
  CHECK(bucket.wait_for(1'000'000, seconds(2)) <= milliseconds(102));
}

TEST_CASE(
    "over any window of w seconds no more than rate * (w + 0.1 s) is granted, and what is asked for steadily comes") {
  for (const std::uint64_t rate : {std::uint64_t{7}, std::uint64_t{10'000}, std::uint64_t{123'456'789}}) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      std::mt19937_64 random(seed);
      TokenBucket bucket = bucket_of(rate);
      nanoseconds now = seconds(1);
      std::vector<std::pair<nanoseconds, std::uint64_t>> granted;
      const bool greedy = seed % 2 == 0;
      std::uint64_t total = 0;
      while (now < seconds(6)) {
        now += nanoseconds(random() % (greedy ? 50'000'000 : 400'000'000));
        const std::uint64_t bytes = bucket.take(greedy ? UINT64_MAX : random() % rate, now);
        granted.emplace_back(now, bytes);
        total += bytes;
      }
      for (std::size_t from = 0; from < granted.size(); ++from) {
        std::uint64_t sum = 0;
        for (std::size_t to = from; to < granted.size(); ++to) {
          sum += granted[to].second;
          const double w = std::chrono::duration<double>(granted[to].first - granted[from].first).count();
          REQUIRE(static_cast<double>(sum) <= static_cast<double>(rate) * (w + 0.1) * 1.000001 + 1);
        }
      }
      if (greedy) CHECK(static_cast<double>(total) >= static_cast<double>(rate) * 4.9);
    }
  }
}

TEST_CASE("the rate can change, and what was saved is then worth no more than before and no more than can be saved") {
  TokenBucket bucket = bucket_of(1000);
  bucket.set_rate(100, seconds(10));
  CHECK(bucket.take(1000, seconds(10)) == 11);
  bucket.set_rate(1000, seconds(10));
  CHECK(bucket.take(1000, seconds(10)) == 0);
  CHECK(bucket.take(1000, seconds(10) + milliseconds(20)) == 20);
  bucket.set_rate(0, seconds(11));
  CHECK(bucket.take(1000, seconds(11)) == 1000);
  bucket.set_rate(1000, seconds(12));
  CHECK(bucket.take(1000, seconds(12)) == 0);
}

TEST_CASE("what passed without being asked for is made up for") {
  TokenBucket bucket = bucket_of(1000);
  bucket.charge(500, seconds(2));
  CHECK(bucket.take(1, seconds(2)) == 0);
  CHECK(bucket.wait_for(100, seconds(2)) >= milliseconds(498));
  CHECK(bucket.take(1000, seconds(2) + milliseconds(450)) == 51);
}

TEST_CASE("time that goes back grants nothing") {
  TokenBucket bucket = bucket_of(1000);
  CHECK(bucket.take(1000, seconds(10)) == 101);
  CHECK(bucket.take(1000, seconds(9)) == 0);
  CHECK(bucket.take(1000, seconds(10)) == 0);
}
