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
  read,  ///< the description of something pinned
  work,  ///< lets a few tasks run
  wait,  ///< lets many tasks run, and time pass
  verify,
  options,
  rot,        ///< a bit of a chunk's file on the disk flips
  power_cut,  ///< soon
  kill,       ///< soon
  restart,    ///< of the worker, in good order
  close       ///< in the middle of things, and then a restart
};
inline constexpr std::size_t calls = 15;

constexpr const char* to_string(Call call) {
  constexpr std::array<const char*, calls> names = {"download", "delete",    "assign", "pin",     "unpin",
                                                    "read",     "work",      "wait",   "verify",  "options",
                                                    "bit rot",  "power cut", "kill",   "restart", "close"};
  return names[static_cast<std::size_t>(call)];
}

}  // namespace simulation
