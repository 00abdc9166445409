// SPDX-License-Identifier: BSL-1.0
//
// The kinds of steps that a simulated life is made of.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace simulation {

/// What a run may do. Each kind is on or off for a whole run.
enum class Call : std::uint8_t {
  download,
  remove,
  assign,
  pin,
  unpin,
  work,
  wait,
  verify,
  options,
  power_cut,
  kill,
  restart
};
inline constexpr std::size_t calls = 12;

constexpr const char* to_string(Call call) {
  constexpr std::array<const char*, calls> names = {"download", "delete", "assign",  "pin",       "unpin", "work",
                                                    "wait",     "verify", "options", "power cut", "kill",  "restart"};
  return names[static_cast<std::size_t>(call)];
}

}  // namespace simulation
