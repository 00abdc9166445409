// SPDX-License-Identifier: BSL-1.0
//
// What of a simulated life is left out, and what is told of it afterwards.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "garner/simulation/sim_world.hpp"
#include "simulation/calls.hpp"
#include "simulation/ledger.hpp"

namespace simulation {

inline constexpr std::size_t chunk_states = 9;

/// One fault that struck: the how manieth of its step.
struct Strike {
  std::size_t step = 0;
  std::size_t number = 0;
  garner::SimFaultKind kind{};

  friend bool operator<(const Strike& a, const Strike& b) {
    return std::pair(a.step, a.number) < std::pair(b.step, b.number);
  }
};

/// What of a life is left out, for making a failure smaller; and what of it is told.
struct Plan {
  std::optional<std::set<std::size_t>> steps;  ///< only these, where set
  std::optional<std::set<Strike>> strikes;     ///< only these, where set
  std::function<void(std::string)> trace;
};

/// What a life has met.
struct Counters {
  std::array<std::uint64_t, calls> calls_made{};
  std::array<std::uint64_t, garner::sim_fault_kinds> faults{};
  std::array<std::uint64_t, event_kinds> events{};
  std::array<std::uint64_t, error_classes> classes{};
  std::array<std::uint64_t, chunk_states> states{};  ///< of chunks, as `chunk_status` told them
  std::array<std::uint64_t, readings> readings_met{};

  void add(const Counters& more) {
    add(calls_made, more.calls_made);
    add(faults, more.faults);
    add(events, more.events);
    add(classes, more.classes);
    add(states, more.states);
    add(readings_met, more.readings_met);
  }

 private:
  template <class Counts>
  static void add(Counts& to, const Counts& more) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  }
};

}  // namespace simulation
