// SPDX-License-Identifier: BSL-1.0
//
// The histogram of the example worker.
#include "worker/histogram.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <memory>

using worker::Histogram;

TEST_CASE("an empty histogram has no count and its quantiles are 0") {
  const auto histogram = std::make_unique<Histogram>();
  CHECK(histogram->count() == 0);
  CHECK(histogram->max() == 0);
  CHECK(histogram->quantile(0.5) == 0);
}

TEST_CASE("small values are kept exactly") {
  const auto histogram = std::make_unique<Histogram>();
  for (std::uint64_t value = 0; value < 32; ++value) histogram->record(value);
  CHECK(histogram->quantile(0) == 0);
  CHECK(histogram->quantile(0.5) == 15);
  CHECK(histogram->quantile(1) == 31);
}

TEST_CASE("a quantile is at most 1/32 above the true one, at any size") {
  for (std::uint64_t scale = 1; scale < (std::uint64_t{1} << 50); scale *= 7) {
    const auto histogram = std::make_unique<Histogram>();
    for (std::uint64_t i = 1; i <= 1000; ++i) histogram->record(i * scale);
    for (const std::uint64_t percent : {1U, 50U, 90U, 99U, 100U}) {
      const std::uint64_t truth = percent * 10 * scale;
      const std::uint64_t found = histogram->quantile(static_cast<double>(percent) / 100);
      CHECK(found >= truth);
      CHECK(found <= truth + truth / 32);
    }
  }
}

TEST_CASE("the greatest value has its bucket, and no quantile is above the maximum") {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(std::numeric_limits<std::uint64_t>::max());
  histogram->record(1000);
  CHECK(histogram->quantile(1) == std::numeric_limits<std::uint64_t>::max());
  CHECK(histogram->quantile(0.5) <= 1031);
  const auto single = std::make_unique<Histogram>();
  single->record(1000);
  CHECK(single->quantile(0.99) == 1000);
}

TEST_CASE("a merge counts as if all had been recorded in one") {
  const auto a = std::make_unique<Histogram>();
  const auto b = std::make_unique<Histogram>();
  for (std::uint64_t i = 0; i < 100; ++i) (i % 2 == 0 ? *a : *b).record(i * i);
  a->merge(*b);
  CHECK(a->count() == 100);
  CHECK(a->max() == 99 * 99);
  CHECK(a->quantile(0.5) >= 49 * 49);
  CHECK(a->quantile(0.5) <= 49 * 49 + 49 * 49 / 32);
}
