// SPDX-License-Identifier: BSL-1.0
//
// The kinds of steps that a simulated life is made of, and what becomes of its starts in the background.
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
  rot,        ///< something of a chunk on the disk changes
  power_cut,  ///< soon
  kill,       ///< soon
  restart,    ///< of the worker, in good order
  close,      ///< in the middle of things, and then a restart
  lie,        ///< wants what no server can give
  reject,     ///< descriptions that are invalid
  converge,   ///< waits for it, not for long
  litter,     ///< something that is not garner's appears in the data directory
  odd_start,  ///< of another process: while this one runs, or on a copy of the disk
  disk        ///< one of several fails, or is mended
};
inline constexpr std::size_t calls = 21;

constexpr const char* to_string(Call call) {
  constexpr std::array<const char*, calls> names = {
      "download", "delete", "assign",  "pin",      "unpin",     "read",      "work",
      "wait",     "verify", "options", "bit rot",  "power cut", "kill",      "restart",
      "close",    "lie",    "reject",  "converge", "litter",    "odd start", "disk"};
  return names[static_cast<std::size_t>(call)];
}

/// What a start in the background can meet while the store is read.
enum class Reading : std::uint8_t {
  left_alone,
  called,              ///< and read to its end
  thrown_away,         ///< the manager, before anything was read
  closed_before,       ///< likewise
  closed_meanwhile,    ///< in the middle, or when all was read and nothing was done about it yet
  deletion_done,       ///< of what had been found when it was closed
  deletion_forgotten,  ///< of what had not
};
inline constexpr std::size_t readings = 7;

constexpr const char* to_string(Reading reading) {
  constexpr std::array<const char*, readings> names = {"left alone",        "called",           "thrown away",
                                                       "closed before",     "closed meanwhile", "deletion done",
                                                       "deletion forgotten"};
  return names[static_cast<std::size_t>(reading)];
}

}  // namespace simulation
