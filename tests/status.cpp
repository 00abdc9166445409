// SPDX-License-Identifier: BSL-1.0
//
// The values that a manager is told and tells with: names, and the life of a Subscription.
#include "garner/status.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <utility>

TEST_CASE("every state and every kind of event has a name of its own") {
  std::set<std::string> names;
  for (int value = 0; value <= static_cast<int>(garner::ChunkState::removing); ++value) {
    CHECK(names.insert(std::string(to_string(static_cast<garner::ChunkState>(value)))).second);
  }
  names.clear();
  for (int value = 0; value <= static_cast<int>(garner::EventKind::closed); ++value) {
    CHECK(names.insert(std::string(to_string(static_cast<garner::EventKind>(value)))).second);
  }
  CHECK(names.count("unknown") == 0);
  CHECK(to_string(static_cast<garner::ChunkState>(99)) == "unknown");
  CHECK(to_string(static_cast<garner::EventKind>(99)) == "unknown");
}

TEST_CASE("a subscription ends once, whoever held it last") {
  int ended = 0;
  const auto end = [&ended] { ++ended; };
  {
    garner::Subscription first(end);
    garner::Subscription second(std::move(first));
    CHECK(ended == 0);
    // NOLINTNEXTLINE(bugprone-use-after-move): a moved-from subscription holds nothing, which is tested here
    first.reset();
    CHECK(ended == 0);
    garner::Subscription third;
    third = std::move(second);
    CHECK(ended == 0);
  }
  CHECK(ended == 1);

  SUBCASE("early, where it is reset") {
    garner::Subscription subscription(end);
    subscription.reset();
    CHECK(ended == 2);
    subscription.reset();
  }
  SUBCASE("early, where another takes its place") {
    garner::Subscription subscription(end);
    subscription = garner::Subscription();
    CHECK(ended == 2);
  }
  SUBCASE("not by being assigned to itself") {
    garner::Subscription subscription(end);
    garner::Subscription& same = subscription;
    subscription = std::move(same);
    CHECK(ended == 1);
    subscription.reset();
  }
  CHECK(ended == 2);
}
