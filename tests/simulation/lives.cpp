// SPDX-License-Identifier: BSL-1.0
//
// Simulated lives of the real data manager on the real store's protocol, from seeds: scenario.hpp says what happens in
// one and what is checked.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/scenario.hpp"

namespace {

constexpr std::size_t steps = 200;
constexpr std::uint64_t seeds = 300;

TEST_CASE("whatever is called and whatever fails, the store converges and never serves what is not whole") {
  std::array<std::uint64_t, garner::sim_fault_kinds> met{};
  std::array<std::uint64_t, simulation::calls> made{};
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    garner::SeededDecisions decisions(seed);
    simulation::Scenario scenario(decisions);
    const std::optional<std::string> failure = scenario.run(steps);
    CAPTURE(seed);
    CHECK_MESSAGE(!failure, *failure);
    for (std::size_t i = 0; i < met.size(); ++i) met[i] += scenario.world().met()[i];
    for (std::size_t i = 0; i < made.size(); ++i) made[i] += scenario.made()[i];
  }
  // A fault or a call that was never met was not tested.
  for (std::size_t i = 0; i < met.size(); ++i) {
    CHECK_MESSAGE(met[i] > 0, garner::to_string(static_cast<garner::SimFaultKind>(i)));
  }
  for (std::size_t i = 0; i < made.size(); ++i) {
    CHECK_MESSAGE(made[i] > 0, simulation::to_string(static_cast<simulation::Call>(i)));
  }
}

TEST_CASE("a seed replays exactly") {
  for (const std::uint64_t seed : {1U, 2U, 3U, 4U, 5U}) {
    std::array<std::vector<std::string>, 2> traces;
    for (auto& trace : traces) {
      garner::SeededDecisions decisions(seed);
      simulation::Scenario scenario(decisions, [&trace](std::string line) { trace.push_back(std::move(line)); });
      scenario.run(steps);
    }
    CAPTURE(seed);
    CHECK(traces[0].size() > steps);
    CHECK(traces[0] == traces[1]);
  }
}

}  // namespace
