// SPDX-License-Identifier: BSL-1.0
//
// Runs the exhaustive tier (exhaustive.hpp): all of it, or one workload with one end, to see what happens. Started by
// tests/simulate --exhaustive, which builds it and says how it is used.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "simulation/command_line.hpp"
#include "simulation/exhaustive.hpp"
#include "simulation/lake.hpp"
#include "simulation/outcomes.hpp"
#include "simulation/watched.hpp"
#include "simulation/workload.hpp"

namespace simulation {
namespace {

struct Arguments {
  Depth depth;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  std::optional<std::uint64_t> workload;
  std::vector<Ending> endings;
};

End end_of(std::string_view text) {
  for (const End end : {End::kill, End::ordered, End::adversarial}) {
    if (text == to_string(end)) return end;
  }
  refuse("--end needs kill, ordered or adversarial");
}

Arguments parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc) refuse(option + " needs a value");
    const std::string value = argv[i + 1];
    if (option == "--point") {
      out.endings.push_back({number(value), End::kill, 0});
    } else if (option == "--end" || option == "--outcome") {
      if (out.endings.empty()) refuse(option + " needs a --point before it");
      if (option == "--end") out.endings.back().end = end_of(value);
      if (option == "--outcome") out.endings.back().outcome = number(value);
    } else if (option == "--calls") {
      out.depth.calls = std::min<std::size_t>(number(value), 6);
    } else if (option == "--twice") {
      out.depth.calls_ended_twice = number(value);
    } else if (option == "--outcomes") {
      out.depth.outcomes.front() = number(value);
    } else if (option == "--jobs") {
      out.jobs = static_cast<unsigned>(std::clamp<std::uint64_t>(number(value), 1, 1024));
    } else if (option == "--workload") {
      out.workload = number(value);
    } else {
      refuse('\'' + option + "' is no option");
    }
  }
  if (out.endings.size() > out.depth.outcomes.size()) refuse("so many ends are never tried");
  return out;
}

// ---- one workload

void print(const std::string& line) { std::cout << Lake::get().readable(line) << '\n'; }

/// What an end took away, and what it brought back.
void print_changes(const garner::SimDisk& before, const garner::SimDisk& after) {
  const garner::SimDisk::Tree was = before.tree();
  const garner::SimDisk::Tree is = after.tree();
  for (const auto& [path, bytes] : was) {
    const auto at = is.find(path);
    if (at == is.end()) {
      print("    lost: " + path);
    } else if (at->second != bytes) {
      print("    torn: " + path + ", " + std::to_string(at->second ? at->second->size() : 0) + " bytes of " +
            std::to_string(bytes ? bytes->size() : 0));
    }
  }
  for (const auto& [path, bytes] : is) {
    if (!was.contains(path)) print("    back: " + path);
  }
  if (was == is) print("    all is as it was");
}

/// Shows a workload and its ends, one life after another.
class Show {
 public:
  Show(const Depth& depth, std::vector<Ending> endings) : depth_(depth), endings_(std::move(endings)) {}

  /// What goes wrong in the last of them.
  std::optional<std::string> run(std::uint64_t workload) {
    const garner::CrashMode mode = endings_.empty() ? garner::CrashMode::adversarial : mode_of(endings_.front().end);
    Performance performance(mode, trace(), watch());
    performance.run(Workloads::at(workload));
    if (endings_.empty() || !left_) return performance.failure();
    while (true) {
      ++life_;
      is_shown_ = true;
      garner::SimDisk disk = *std::exchange(left_, std::nullopt);
      Aftermath aftermath(std::move(disk), past_, trace(), watch());
      aftermath.run();
      if (!left_) return aftermath.failure();
    }
  }

  /// Whether each end was come by.
  [[nodiscard]] bool complete() const noexcept { return life_ == endings_.size(); }

 private:
  std::function<void(std::string)> trace() {
    return [this](const std::string& line) {
      if (is_shown_) print(line);
    };
  }

  Watched::Watch watch() {
    return [this](std::uint64_t point, const garner::SimDisk& disk, const Checks::Past& past) {
      if (life_ >= endings_.size() || point != endings_[life_].point) return;
      const Ending& ending = endings_[life_];
      if (ending.end == End::kill) {
        left_.emplace(disk);
      } else {
        Outcomes(disk, depth_.outcomes[life_]).each([&](std::uint64_t outcome, garner::SimDisk left) {
          if (outcome == ending.outcome) left_.emplace(std::move(left));
          return outcome != ending.outcome;
        });
      }
      if (!left_) refuse("there is no such outcome");
      past_ = past;
      print("*** before operation " + std::to_string(point) + ": " +
            (ending.end == End::kill ? "killed" : "power cut, " + std::string(to_string(ending.end))));
      print_changes(disk, *left_);
      is_shown_ = false;  // what goes on is only what would have been
    };
  }

  Depth depth_;
  std::vector<Ending> endings_;
  std::size_t life_ = 0;
  bool is_shown_ = true;
  std::optional<garner::SimDisk> left_;
  Checks::Past past_;
};

int show(std::uint64_t workload, const Depth& depth, const std::vector<Ending>& endings) {
  std::cout << "workload " << workload << ": " << to_string(Workloads::at(workload)) << '\n';
  Show show(depth, endings);
  const std::optional<std::string> failure = show.run(workload);
  if (!show.complete()) refuse("there is no such point");
  std::cout << (failure ? "fails: " + Lake::get().readable(*failure) : std::string("is clean")) << '\n';
  return failure ? 1 : 0;
}

// ---- all of them

void show_tally(const char* what, const Tally& tally) {
  std::cout << what << ": " << tally.points << " points, of which " << tally.new_points << " were new; "
            << tally.outcomes << " outcomes; " << tally.starts << " starts, each on another disk, checked; at "
            << tally.sampled << " points not every outcome was tried\n";
}

int run_all(const Arguments& arguments) {
  const bool is_terminal = ::isatty(STDERR_FILENO) == 1;
  const auto begun = std::chrono::steady_clock::now();
  ExhaustiveBatch batch(arguments.depth, arguments.jobs);
  batch.run([&] {
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begun).count();
    if (!is_terminal && seconds % 30 != 0) return;
    std::cerr << (is_terminal ? "\r\x1b[K" : "") << batch.done() << " of " << batch.size() << " workloads in "
              << seconds << " s" << (is_terminal ? "" : "\n") << std::flush;
  });
  if (is_terminal) std::cerr << '\n';
  if (const auto& failure = batch.failure()) {
    show(failure->workload, arguments.depth, failure->endings);
    std::cout << "\nto see it again:  tests/simulate --exhaustive --outcomes " << arguments.depth.outcomes.front()
              << " --workload " << failure->workload;
    for (const Ending& ending : failure->endings) {
      std::cout << " --point " << ending.point << " --end " << to_string(ending.end) << " --outcome " << ending.outcome;
    }
    std::cout << '\n';
    return 1;
  }
  const Tallies& tallies = batch.tallies();
  std::cout << tallies.workloads << " workloads of up to " << arguments.depth.calls << " calls, of which "
            << tallies.shorter << " are the same as a shorter one, are clean\n";
  show_tally("ends", tallies.ends[0]);
  show_tally(
      ("second ends, of workloads of up to " + std::to_string(arguments.depth.calls_ended_twice) + " calls").c_str(),
      tallies.ends[1]);
  return 0;
}

}  // namespace
}  // namespace simulation

int main(int argc, char** argv) {
  const simulation::Arguments arguments = simulation::parse(argc, argv);
  if (arguments.workload) return simulation::show(*arguments.workload, arguments.depth, arguments.endings);
  return simulation::run_all(arguments);
}
