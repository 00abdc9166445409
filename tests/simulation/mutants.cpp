// SPDX-License-Identifier: BSL-1.0
//
// How many seeds of the simulation it takes to catch each planted mistake. Compiled against the headers that
// tests/mutation/plant writes, with GARNER_MUTANTS defined; tests/mutants does that and runs it. A mutant may hang or
// crash, so each has a process of its own.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "garner/mutants.hpp"
#include "garner/simulation/decisions.hpp"
#include "simulation/scenario.hpp"

namespace {

using Clock = std::chrono::steady_clock;

/// Of processor time. A seed that takes longer hangs: most take a thousandth of a second.
constexpr time_t hung_after_seconds = 5;
/// A mistake may ask for memory without end.
constexpr rlim_t max_memory = rlim_t{4} << 30;

struct Settings {
  std::uint64_t seeds = 10'000;
  std::uint64_t clean_seeds = 500;
  std::uint64_t steps = 200;
  std::uint64_t jobs = std::max(1U, std::thread::hardware_concurrency());
  std::uint64_t limit_seconds = 120;
  std::vector<std::size_t> mutants;
  std::optional<int> status;  ///< nothing is to be run
};

/// What a child has to say; in memory that it shares with its parent, so that it outlives a crash.
struct Report {
  std::uint64_t seed;  ///< that is running, or was the last
  bool caught;
  std::array<char, 400> what;

  void say(std::string_view text) {
    const std::size_t size = std::min(text.size(), what.size() - 1);
    std::copy_n(text.begin(), size, what.begin());
    what.at(size) = '\0';
  }
};

/// A page of shared memory.
class SharedReport {
 public:
  SharedReport() {
    void* const memory = ::mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    report_ = new (memory) Report();
  }
  SharedReport(const SharedReport&) = delete;
  SharedReport& operator=(const SharedReport&) = delete;
  ~SharedReport() { ::munmap(report_, sizeof(Report)); }

  Report* operator->() const noexcept { return report_; }
  Report& operator*() const noexcept { return *report_; }

 private:
  Report* report_;
};

/// In the child: runs seeds until one fails. What it leaves in `report` is its answer.
[[noreturn]] void run_seeds(garner::Mutant mutant, std::uint64_t seeds, std::uint64_t steps, Report& report) {
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const rlimit memory{max_memory, max_memory};
  ::setrlimit(RLIMIT_AS, &memory);
  // An assertion's words would be in the middle of the table.
  if (std::freopen("/dev/null", "w", stderr) == nullptr) std::_Exit(1);

  garner::planted_mutant = mutant;
  const auto caught = [&report](std::string_view what) {
    report.say(what);
    report.caught = true;
    // Without destroying what a mistake may have put out of order.
    std::_Exit(0);
  };
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    report.seed = seed;
    const itimerval limit{{0, 0}, {hung_after_seconds, 0}};
    ::setitimer(ITIMER_VIRTUAL, &limit, nullptr);
    try {
      garner::SeededDecisions decisions(seed);
      simulation::Scenario scenario(decisions);
      if (const std::optional<std::string> failure = scenario.run(steps)) caught(*failure);
    } catch (const std::exception& error) {
      caught(std::string("threw: ") + error.what());
    }
  }
  std::_Exit(0);
}

struct Outcome {
  bool caught = false;
  std::uint64_t seeds = 0;  ///< that it took, or that were run
  std::string what;
  std::chrono::duration<double> time{};
};

/// A mutant and the process that looks for a seed that catches it.
class Hunt {
 public:
  Hunt(std::size_t mutant, std::uint64_t seeds, const Settings& settings) : mutant_(mutant) {
    std::cout.flush();
    child_ = ::fork();
    if (child_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (child_ == 0) run_seeds(static_cast<garner::Mutant>(mutant), seeds, settings.steps, *report_);
  }

  [[nodiscard]] pid_t child() const noexcept { return child_; }
  [[nodiscard]] std::size_t mutant() const noexcept { return mutant_; }
  [[nodiscard]] bool is_over(std::chrono::seconds limit) const { return Clock::now() - began_ > limit; }

  void give_up() {
    given_up_ = true;
    ::kill(child_, SIGKILL);
  }

  /// `status`: how the child ended, as `waitpid` tells it.
  [[nodiscard]] Outcome outcome(int status) const {
    Outcome out;
    out.time = Clock::now() - began_;
    out.seeds = report_->seed + 1;
    if (report_->caught) {
      out.caught = true;
      out.what = report_->what.data();
    } else if (given_up_) {
      out.what = "out of time";
    } else if (WIFSIGNALED(status)) {
      out.caught = true;
      out.what = WTERMSIG(status) == SIGVTALRM ? "hung" : std::string("crashed: ") + ::sigdescr_np(WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
      out.caught = true;
      out.what = "ended with status " + std::to_string(WEXITSTATUS(status));
    }
    return out;
  }

 private:
  std::size_t mutant_;
  SharedReport report_;
  Clock::time_point began_ = Clock::now();
  bool given_up_ = false;
  pid_t child_ = 0;
};

/// Waits for the next child to end, or for one whose time is over.
Outcome next_outcome(std::vector<std::unique_ptr<Hunt>>& hunts, std::chrono::seconds limit, std::size_t& mutant) {
  while (true) {
    for (auto hunt = hunts.begin(); hunt != hunts.end(); ++hunt) {
      int status = 0;
      if (::waitpid((*hunt)->child(), &status, WNOHANG) == 0) {
        if ((*hunt)->is_over(limit)) (*hunt)->give_up();
        continue;
      }
      Outcome outcome = (*hunt)->outcome(status);
      mutant = (*hunt)->mutant();
      hunts.erase(hunt);
      return outcome;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void print(std::size_t mutant, const Outcome& outcome) {
  const std::string seeds = outcome.caught ? std::to_string(outcome.seeds) : "NOT CAUGHT";
  const std::string what =
      outcome.caught || !outcome.what.empty() ? outcome.what : std::to_string(outcome.seeds) + " seeds, all clean";
  // A path or an id at its end would make every line three lines long.
  std::printf("%-34s %10s  %6.2f s  %.100s\n", garner::mutant_texts.at(mutant).name, seeds.c_str(),
              outcome.time.count(), what.c_str());
  std::fflush(stdout);
}

int run(const Settings& settings) {
  std::printf("%-34s %10s  %8s  %s\n", "mutant", "seeds", "time", "what failed");
  std::size_t mutant = 0;
  std::vector<std::unique_ptr<Hunt>> hunts;
  hunts.push_back(std::make_unique<Hunt>(0, settings.clean_seeds, settings));
  const Outcome clean = next_outcome(hunts, std::chrono::seconds(settings.limit_seconds), mutant);
  if (clean.caught || !clean.what.empty()) {
    std::printf("without a mistake, seed %llu: %s\n", static_cast<unsigned long long>(clean.seeds - 1),
                clean.what.c_str());
    return 1;
  }

  std::deque<std::size_t> waiting(settings.mutants.begin(), settings.mutants.end());
  std::map<std::size_t, Outcome> outcomes;
  auto next = settings.mutants.begin();
  while (!waiting.empty() || !hunts.empty()) {
    while (!waiting.empty() && hunts.size() < settings.jobs) {
      hunts.push_back(std::make_unique<Hunt>(waiting.front(), settings.seeds, settings));
      waiting.pop_front();
    }
    const Outcome outcome = next_outcome(hunts, std::chrono::seconds(settings.limit_seconds), mutant);
    outcomes.emplace(mutant, outcome);
    // In the order of the list, as soon as it can be told.
    for (; next != settings.mutants.end() && outcomes.contains(*next); ++next) print(*next, outcomes.at(*next));
  }

  const auto caught =
      std::count_if(outcomes.begin(), outcomes.end(), [](const auto& entry) { return entry.second.caught; });
  const auto missed = static_cast<std::ptrdiff_t>(outcomes.size()) - caught;
  std::printf("%td of %zu mutants caught\n", caught, outcomes.size());
  for (const auto& [number, outcome] : outcomes) {
    if (outcome.caught) continue;
    const garner::MutantText& text = garner::mutant_texts.at(number);
    std::printf("NOT CAUGHT: %s: %s\n", text.name, text.says);
  }
  return missed == 0 ? 0 : 1;
}

/// Nothing is run then.
Settings refuse(std::string_view argument) {
  std::cerr << "mutants: '" << argument << "' is not understood; see tests/mutants --help\n";
  Settings settings;
  settings.status = 2;
  return settings;
}

void list_mutants() {
  for (std::size_t i = 1; i < garner::mutant_texts.size(); ++i) {
    std::cout << garner::mutant_texts.at(i).name << ": " << garner::mutant_texts.at(i).says << '\n';
  }
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) return std::nullopt;
  return number;
}

Settings parse(const std::vector<std::string_view>& arguments) {
  Settings settings;
  const std::map<std::string_view, std::uint64_t*> numbers = {{"--seeds", &settings.seeds},
                                                              {"--clean", &settings.clean_seeds},
                                                              {"--steps", &settings.steps},
                                                              {"--jobs", &settings.jobs},
                                                              {"--limit", &settings.limit_seconds}};
  const auto& texts = garner::mutant_texts;
  for (auto at = arguments.begin(); at != arguments.end(); ++at) {
    if (*at == "--list") {
      list_mutants();
      settings.status = 0;
      return settings;
    }
    if (const auto number = numbers.find(*at); number != numbers.end()) {
      const std::string_view option = *at;
      const auto value = ++at == arguments.end() ? std::nullopt : parse_number(*at);
      if (!value) return refuse(option);
      *number->second = *value;
      continue;
    }
    const auto* const text = std::find_if(texts.begin() + 1, texts.end(),
                                          [at](const garner::MutantText& mutant) { return mutant.name == *at; });
    if (text == texts.end()) return refuse(*at);
    settings.mutants.push_back(static_cast<std::size_t>(text - texts.begin()));
  }
  if (settings.mutants.empty()) {
    for (std::size_t i = 1; i < texts.size(); ++i) settings.mutants.push_back(i);
  }
  return settings;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse({argv + 1, argv + argc});
  return settings.status ? *settings.status : run(settings);
}
