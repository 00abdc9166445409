// SPDX-License-Identifier: BSL-1.0
//
// Workloads: every sequence of a few calls, out of a small alphabet, on two chunks of the lake, and how much of the
// work that they cause is done between them. Numbered, shortest first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "simulation/calls.hpp"

namespace simulation {

/// One call. Chunk 3 is one file, and its version 2 is in another dataset; chunk 4 is two, and its version 2 has the
/// bytes of version 1 at other URLs.
struct Act {
  static constexpr unsigned none = 9;

  Call call;
  std::string_view name;  ///< for people
  unsigned chunk = none;
  unsigned version = none;
  unsigned other_version = none;  ///< of chunk 4, in an assignment
};

inline constexpr std::array<Act, 16> acts = {{
    {Call::download, "download chunk 3 as of version 0", 3, 0},
    {Call::download, "download chunk 3 as of version 1", 3, 1},
    {Call::download, "download chunk 3 as of version 2, in another dataset", 3, 2},
    {Call::download, "download chunk 4 as of version 0", 4, 0},
    {Call::download, "download chunk 4 as of version 1", 4, 1},
    {Call::download, "download chunk 4 as of version 2, which is version 1 elsewhere", 4, 2},
    {Call::remove, "delete chunk 3", 3},
    {Call::remove, "delete chunk 4", 4},
    {Call::assign, "assign chunk 3 as of version 0 and chunk 4 as of version 1", 3, 0, 1},
    {Call::assign, "assign chunk 3 as of version 1", 3, 1},
    {Call::assign, "assign nothing"},
    {Call::pin, "pin chunk 3", 3},
    {Call::unpin, "unpin"},
    {Call::verify, "verify"},
    {Call::rot, "flip a bit of chunk 3", 3},
    {Call::restart, "restart in good order"},
}};

/// How much is done after a call, before the next.
enum class Pause : std::uint8_t { none, one_task, until_quiet };
inline constexpr std::size_t pauses = 3;

constexpr std::string_view to_string(Pause pause) noexcept {
  constexpr std::array<std::string_view, pauses> names = {"at once", "after one task", "once it is quiet"};
  return names[static_cast<std::size_t>(pause)];
}

struct Step {
  const Act* act;
  Pause pause;  ///< before it
};

using Workload = std::vector<Step>;

/// All workloads of up to so many calls.
class Workloads {
 public:
  explicit Workloads(std::size_t most_calls) : most_calls_(most_calls) {}

  [[nodiscard]] std::uint64_t size() const {
    std::uint64_t size = 0;
    for (std::size_t length = 0; length <= most_calls_; ++length) size += of_length(length);
    return size;
  }

  /// Before the first call it is quiet.
  [[nodiscard]] static Workload at(std::uint64_t number) {
    std::size_t length = 0;
    for (; number >= of_length(length); ++length) number -= of_length(length);
    Workload out;
    for (; length > 0; --length) {
      const Act& act = acts[number % acts.size()];
      number /= acts.size();
      const auto pause = length == 1 ? Pause::until_quiet : static_cast<Pause>(number % pauses);
      if (length > 1) number /= pauses;
      out.insert(out.begin(), {&act, pause});
    }
    return out;
  }

 private:
  static std::uint64_t of_length(std::size_t length) {
    std::uint64_t size = 1;
    for (std::size_t i = 0; i < length; ++i) size *= acts.size() * (i == 0 ? 1 : pauses);
    return size;
  }

  std::size_t most_calls_;
};

inline std::string to_string(const Workload& workload) {
  std::string out;
  for (const Step& step : workload) {
    const bool is_first = &step == &workload.front();
    out +=
        (is_first ? std::string() : ", then " + std::string(to_string(step.pause)) + ' ') + std::string(step.act->name);
  }
  return workload.empty() ? "no call" : out;
}

}  // namespace simulation
