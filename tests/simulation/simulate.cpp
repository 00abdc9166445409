// SPDX-License-Identifier: BSL-1.0
//
// Runs simulated lives of the data manager: many, to find a seed that fails; or one, to see what happens in it. Started
// by tests/simulate, which builds it and says how it is used.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/batch.hpp"
#include "simulation/command_line.hpp"
#include "simulation/minimise.hpp"
#include "simulation/scenario.hpp"

namespace simulation {
namespace {

struct Arguments {
  std::uint64_t first = 0;
  std::uint64_t last = 9'999;
  bool one = false;
  std::size_t steps = 200;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  std::chrono::seconds limit = std::chrono::seconds::max();
  Plan plan;
};

std::vector<std::string> fields(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string field; std::getline(in, field, separator);) out.push_back(field);
  return out;
}

void parse_seeds(const std::string& text, Arguments& out) {
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos) refuse("--seeds needs A..B");
  out.first = number(text.substr(0, dots));
  out.last = number(text.substr(dots + 2));
  if (out.last < out.first) refuse("--seeds needs A..B with A no greater than B");
}

std::set<Strike> parse_strikes(const std::string& text) {
  std::set<Strike> out;
  for (const std::string& strike : fields(text, ',')) {
    const std::vector<std::string> parts = fields(strike, '.');
    if (parts.size() != 2) refuse("--strikes needs STEP.NUMBER, …");
    out.insert({number(parts[0]), number(parts[1]), {}});
  }
  return out;
}

Arguments parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (i + 1 == argc) refuse(option + " needs a value");
    const std::string value = argv[++i];
    if (option == "--seed") {
      out.first = out.last = number(value);
      out.one = true;
    } else if (option == "--seeds") {
      parse_seeds(value, out);
    } else if (option == "--seconds") {
      out.limit = std::chrono::seconds(number(value));
      out.last = std::numeric_limits<std::uint64_t>::max() - 1;
    } else if (option == "--steps") {
      out.steps = number(value);
    } else if (option == "--jobs") {
      out.jobs = static_cast<unsigned>(std::clamp<std::uint64_t>(number(value), 1, 1024));
    } else if (option == "--only") {
      out.plan.steps.emplace();
      for (const std::string& step : fields(value, ',')) out.plan.steps->insert(number(step));
    } else if (option == "--strikes") {
      out.plan.strikes = parse_strikes(value);
    } else {
      refuse('\'' + option + "' is no option");
    }
  }
  return out;
}

// ---- one life

/// Up to the failure: what comes after it only tidies up.
std::function<void(std::string)> printer() {
  return [has_failed = false](const std::string& line) mutable {
    if (!has_failed) std::cout << Lake::get().readable(line) << '\n';
    has_failed = has_failed || line.find("FAILED: ") != std::string::npos;
  };
}

std::optional<std::string> run(std::uint64_t seed, std::size_t steps, const Plan& plan) {
  garner::SeededDecisions decisions(seed);
  Scenario scenario(decisions, plan);
  return scenario.run(steps);
}

int show(const Arguments& arguments) {
  Plan plan = arguments.plan;
  plan.trace = printer();
  const std::optional<std::string> failure = run(arguments.first, arguments.steps, plan);
  std::cout << "seed " << arguments.first << (failure ? " fails: " + Lake::get().readable(*failure) : " is clean")
            << '\n';
  return failure ? 1 : 0;
}

template <class Items, class Text>
std::string join(const Items& items, const Text& text) {
  std::string out;
  for (const auto& item : items) out += (out.empty() ? "" : ",") + text(item);
  return out;
}

/// Makes the failing life smaller, and shows it.
void explain(std::uint64_t seed, std::size_t steps) {
  Minimiser minimiser(seed, steps);
  Plan plan = minimiser.run();
  std::cout << "\nwhat of it is needed (found in " << minimiser.runs() << " runs): " << plan.steps->size() << " of "
            << steps << " steps, " << plan.strikes->size() << " faults\n\n";
  plan.trace = printer();
  run(seed, steps, plan);
  std::cout << "\nto see it again:  tests/simulate --seed " << seed << " --steps " << steps << " --only '"
            << join(*plan.steps, [](std::size_t step) { return std::to_string(step); }) << "' --strikes '"
            << join(*plan.strikes,
                    [](const Strike& strike) {
                      return std::to_string(strike.step) + '.' + std::to_string(strike.number);
                    })
            << "'\nto see all of it: tests/simulate --seed " << seed << " --steps " << steps << '\n';
}

// ---- many lives

std::string clock(double seconds) {
  const auto total = static_cast<std::uint64_t>(seconds);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%llu:%02llu:%02llu", static_cast<unsigned long long>(total / 3600),
                static_cast<unsigned long long>(total / 60 % 60), static_cast<unsigned long long>(total % 60));
  return text.data();
}

void show_progress(const Batch& batch, const Arguments& arguments, bool is_last) {
  static const bool is_terminal = ::isatty(STDERR_FILENO) == 1;
  const double seconds = std::max(batch.seconds(), 1e-3);
  const std::uint64_t done = batch.done();
  const double rate = static_cast<double>(done) / seconds;
  std::string line = std::to_string(done) + " seeds in " + clock(seconds) + ", " +
                     std::to_string(static_cast<std::uint64_t>(rate * static_cast<double>(arguments.steps))) +
                     " steps/s";
  if (arguments.limit == std::chrono::seconds::max() && rate > 0 && !is_last) {
    line += ", " + clock(static_cast<double>(arguments.last - arguments.first + 1 - done) / rate) + " left";
  }
  std::cerr << (is_terminal ? "\r\x1b[K" : "") << line << (is_terminal && !is_last ? "" : "\n") << std::flush;
}

/// True where each of them was met.
template <class Name>
bool show_counts(const char* title, const auto& counts, const Name& name) {
  bool all_met = true;
  std::cout << title << '\n';
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::string text(name(i));
    if (text.empty()) continue;
    std::cout << "  " << text << std::string(20 - std::min<std::size_t>(text.size(), 19), ' ') << counts[i]
              << (counts[i] == 0 ? "   NEVER MET" : "") << '\n';
    all_met = all_met && counts[i] > 0;
  }
  return all_met;
}

bool show_counters(const Counters& counters) {
  bool all_met =
      show_counts("calls", counters.calls_made, [](std::size_t i) { return to_string(static_cast<Call>(i)); });
  all_met &= show_counts("faults", counters.faults,
                         [](std::size_t i) { return garner::to_string(static_cast<garner::SimFaultKind>(i)); });
  all_met &= show_counts("states of chunks", counters.states,
                         [](std::size_t i) { return garner::to_string(static_cast<garner::ChunkState>(i)); });
  all_met &= show_counts("starts in the background", counters.readings_met,
                         [](std::size_t i) { return to_string(static_cast<Reading>(i)); });
  all_met &= show_counts("events", counters.events, [](std::size_t i) {
    const auto kind = static_cast<garner::EventKind>(i);
    return kind == garner::EventKind::events_dropped ? "" : garner::to_string(kind);  // needs a slow observer: threads
  });
  all_met &= show_counts("failures of attempts", counters.classes, [](std::size_t i) -> std::string_view {
    switch (static_cast<garner::ErrorClass>(i)) {
      case garner::ErrorClass::transient: return "transient";
      case garner::ErrorClass::credentials: return "credentials";
      case garner::ErrorClass::wrong_bytes: return "wrong bytes";
      case garner::ErrorClass::gone: return "gone";
      case garner::ErrorClass::no_space: return "no space";
      case garner::ErrorClass::local: return "local";
      case garner::ErrorClass::none:
      case garner::ErrorClass::invalid:
      case garner::ErrorClass::cancelled: break;  // no attempt fails so
    }
    return "";
  });
  return all_met;
}

int search(const Arguments& arguments) {
  constexpr std::uint64_t enough = 10'000;  // in so many seeds everything must have been met
  Batch batch(arguments.first, arguments.last, arguments.steps, arguments.jobs);
  batch.run(arguments.limit, [&](bool is_last) { show_progress(batch, arguments, is_last); });
  if (const auto failure = batch.failure()) {
    std::cout << "seed " << failure->seed << " fails in step " << failure->step << ": "
              << Lake::get().readable(failure->what) << '\n';
    if (failure->is_reproducible) explain(failure->seed, arguments.steps);
    return 1;
  }
  const bool all_met = show_counters(batch.counters());
  std::cout << batch.done() << " seeds of " << arguments.steps << " steps are clean; " << batch.repeated()
            << " of them were run twice and went the same way\n";
  if (all_met || batch.done() < enough) return 0;
  std::cout << "FAILED: what was never met was not tested\n";
  return 1;
}

}  // namespace
}  // namespace simulation

int main(int argc, char** argv) {
  const simulation::Arguments arguments = simulation::parse(argc, argv);
  return arguments.one ? simulation::show(arguments) : simulation::search(arguments);
}
