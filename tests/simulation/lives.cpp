// SPDX-License-Identifier: BSL-1.0
//
// A slice of the simulated lives of the real data manager on the real store's protocol: scenario.hpp says what happens
// in one, life.hpp and checks.hpp what must hold. tests/simulate runs as many as one likes.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/batch.hpp"
#include "simulation/minimise.hpp"
#include "simulation/scenario.hpp"

namespace {

constexpr std::size_t steps = 200;

TEST_CASE("whatever is called and whatever fails, the store converges and never serves what is not whole") {
  simulation::Batch batch(0, 799, steps, 2);
  batch.run(std::chrono::seconds::max(), [](bool) {});
  if (batch.failure()) {
    FAIL("seed ", batch.failure()->seed, ": ", batch.failure()->what);
  }
  CHECK(batch.done() == 800);
  CHECK(batch.repeated() == 8);
  // A fault or a call that was never met was not tested.
  const simulation::Counters& met = batch.counters();
  for (std::size_t i = 0; i < met.faults.size(); ++i) {
    CHECK_MESSAGE(met.faults[i] > 0, garner::to_string(static_cast<garner::SimFaultKind>(i)));
  }
  for (std::size_t i = 0; i < met.calls_made.size(); ++i) {
    CHECK_MESSAGE(met.calls_made[i] > 0, simulation::to_string(static_cast<simulation::Call>(i)));
  }
  for (std::size_t i = 0; i < met.states.size(); ++i) {
    CHECK_MESSAGE(met.states[i] > 0, garner::to_string(static_cast<garner::ChunkState>(i)));
  }
  for (std::size_t i = 0; i < met.readings_met.size(); ++i) {
    CHECK_MESSAGE(met.readings_met[i] > 0, simulation::to_string(static_cast<simulation::Reading>(i)));
  }
}

TEST_CASE("a step that is left out leaves the others what they are") {
  const auto calls_of = [](const std::optional<std::set<std::size_t>>& only) {
    std::vector<std::string> calls;
    simulation::Plan plan;
    plan.steps = only;
    plan.trace = [&calls](const std::string& line) {
      const std::size_t at = line.find('#');
      if (at != std::string::npos) calls.push_back(line.substr(at));
    };
    garner::SeededDecisions decisions(7);
    simulation::Scenario(decisions, plan).run(steps);
    return calls;
  };
  const std::vector<std::string> all = calls_of(std::nullopt);
  REQUIRE(all.size() > 50);
  const std::vector<std::string> few = calls_of(std::set<std::size_t>{1, 2, 3, 50, 51, 52, 150});
  REQUIRE_FALSE(few.empty());
  for (const std::string& call : few) CHECK(std::find(all.begin(), all.end(), call) != all.end());
}

}  // namespace
