// SPDX-License-Identifier: BSL-1.0
//
// Work that is spread over threads: all of it is done and taken on one thread, and it ends early where it should.
#include "garner/storage/fan_out.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <latch>
#include <numeric>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using FanOut = garner::detail::FanOut<int>;

std::vector<int> numbers(std::size_t count) {
  std::vector<int> out(count);
  std::iota(out.begin(), out.end(), 0);
  return out;
}

TEST_CASE("each item is worked on once, and each result is taken on the thread that asked") {
  const std::vector<int> items = numbers(1000);
  for (const std::size_t most : {std::size_t{0}, std::size_t{1}, std::size_t{4}}) {
    std::vector<int> taken(items.size());
    const auto thread = std::this_thread::get_id();
    const auto work = [](int item, const auto& give) {
      CHECK(give(item));
      CHECK(give(item));
    };
    const auto take = [&](int result) {
      CHECK(std::this_thread::get_id() == thread);
      ++taken.at(static_cast<std::size_t>(result));
      return true;
    };
    FanOut::run(std::span(items), most, work, take);
    CHECK(taken == std::vector<int>(items.size(), 2));
  }
}

TEST_CASE("items are worked on at the same time") {
  const std::vector<int> items = numbers(3);
  std::latch all(3);
  const auto work = [&](int item, const auto& give) {
    all.arrive_and_wait();
    give(item);
  };
  int sum = 0;
  const auto take = [&](int result) {
    sum += result;
    return true;
  };
  FanOut::run(std::span(items), 3, work, take);
  CHECK(sum == 3);
}

TEST_CASE("what nobody wants any more is not worked on to its end") {
  const std::vector<int> items = numbers(4);
  for (const std::size_t most : {std::size_t{0}, std::size_t{2}}) {
    int taken = 0;
    // Each item gives until nobody takes.
    const auto work = [](int item, const auto& give) {
      while (give(item)) continue;
    };
    FanOut::run(std::span(items), most, work, [&](int) { return ++taken < 500; });
    CHECK(taken == 500);
  }
}

TEST_CASE("what is thrown comes through, and no thread is left") {
  const std::vector<int> items = numbers(100);
  const auto work = [](int item, const auto& give) {
    if (item == 50) throw std::runtime_error("work");
    give(item);
  };
  const auto thrower = [](int) -> bool { throw std::logic_error("take"); };
  for (const std::size_t most : {std::size_t{0}, std::size_t{3}}) {
    CHECK_THROWS_AS(FanOut::run(std::span(items), most, work, [](int) { return true; }), std::runtime_error);
    CHECK_THROWS_AS(FanOut::run(std::span(items).first(10), most, work, thrower), std::logic_error);
  }
}

}  // namespace
