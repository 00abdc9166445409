// SPDX-License-Identifier: BSL-1.0
//
// What the programs of tests/bench share: a clock, percentiles, what /proc tells of this process, and the lines of
// "name value" in which they tell tests/bench/run what they measured. They measure and do not judge: that is its part.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;

inline double nanoseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::nano>(duration).count();
}
inline double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

inline void tell(std::string_view name, double value) {
  std::printf("%.*s %.9g\n", static_cast<int>(name.size()), name.data(), value);
  std::fflush(stdout);
}

[[noreturn]] inline void fail(const std::string& text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::_Exit(1);
}

inline std::uint64_t parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) fail("no number: '" + std::string(text) + "'");
  return number;
}

/// Of samples that it may put into another order; `share` 0.5 is the median.
template <class Value>
double percentile(std::span<Value> samples, double share) {
  if (samples.empty()) fail("nothing was measured");
  const auto last = static_cast<double>(samples.size() - 1);
  const auto at = samples.begin() + static_cast<std::ptrdiff_t>(last * share);
  std::nth_element(samples.begin(), at, samples.end());
  return static_cast<double>(*at);
}

/// The sum of the lines "name: value" of a file in /proc; 0 where there are none.
inline std::uint64_t proc_value(const std::filesystem::path& file, std::string_view name) {
  std::ifstream lines(file);
  std::uint64_t sum = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name) || line[name.size()] != ':') continue;
    sum += std::strtoull(line.c_str() + name.size() + 1, nullptr, 10);
  }
  return sum;
}

/// The most memory that this process has had. Not `ru_maxrss`: that begins with what the parent had at the fork.
inline std::uint64_t peak_bytes() { return proc_value("/proc/self/status", "VmHWM") * 1024; }

/// How often the threads of this process were switched to, or away from.
inline std::uint64_t context_switches() {
  std::uint64_t sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    sum += proc_value(task.path() / "status", "voluntary_ctxt_switches");
    sum += proc_value(task.path() / "status", "nonvoluntary_ctxt_switches");
  }
  return sum;
}

/// A file that is to be downloaded: line "path size" of a list.
struct ListedFile {
  std::string path;  ///< below the origin, and below the target: chunk/file
  std::uint64_t size = 0;
};

inline std::vector<ListedFile> read_list(const std::string& list) {
  std::ifstream lines(list);
  std::vector<ListedFile> files;
  ListedFile file;
  while (lines >> file.path >> file.size) files.push_back(file);
  if (files.empty()) fail(list + " names no file");
  return files;
}

}  // namespace bench
