// SPDX-License-Identifier: BSL-1.0
//
// Many simulated lives at the same time, one thread each: the first seed that fails, and what all of them have met.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"
#include "simulation/scenario.hpp"

namespace simulation {

class Batch {
 public:
  struct Failure {
    std::uint64_t seed = 0;
    std::size_t step = 0;
    std::string what;
    bool is_reproducible = true;
  };

  /// Of seeds `first` to `last`, both among them.
  Batch(std::uint64_t first, std::uint64_t last, std::size_t steps, unsigned jobs)
      : next_(first), end_(last + 1), steps_(steps), busy_(jobs) {}

  /// Until all are run, or one has failed, or `limit` is over. Calls `progress(is_last)` from time to time.
  template <class Progress>
  void run(std::chrono::seconds limit, const Progress& progress) {
    std::vector<std::thread> threads;
    for (Slot& slot : busy_) threads.emplace_back([this, &slot] { work(slot); });
    {
      std::unique_lock lock(mutex_);
      while (!changed_.wait_for(lock, interval, [this] { return finished_ == busy_.size(); })) {
        if (limit != std::chrono::seconds::max() && seconds() > static_cast<double>(limit.count())) stop_ = true;
        check_alive();
        progress(false);
      }
    }
    for (std::thread& thread : threads) thread.join();
    progress(true);
  }

  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
  }
  [[nodiscard]] std::uint64_t done() const noexcept { return done_; }
  /// Seeds that were run twice.
  [[nodiscard]] std::uint64_t repeated() const noexcept { return repeated_; }

  // After `run`:
  [[nodiscard]] const std::optional<Failure>& failure() const noexcept { return failure_; }
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds interval{1};
  static constexpr std::chrono::seconds patience{60};  ///< with one seed
  static constexpr std::uint64_t repeat_every = 100;   ///< seeds

  struct Slot {
    std::atomic<std::uint64_t> seed{0};
    std::atomic<Clock::rep> since{0};  ///< 0: idle
  };

  void work(Slot& slot) {
    Counters met;
    for (std::uint64_t seed = next_++; seed < end_ && !stop_; seed = next_++) {
      slot.seed = seed;
      slot.since = Clock::now().time_since_epoch().count();
      if (std::optional<Failure> failure = run_one(seed, met)) note(*std::move(failure));
      ++done_;
    }
    slot.since = 0;
    const std::lock_guard lock(mutex_);
    counters_.add(met);
    ++finished_;
    changed_.notify_all();
  }

  std::optional<Failure> run_one(std::uint64_t seed, Counters& met) {
    const bool is_traced = seed % repeat_every == 0;
    const Run first = run_once(seed, is_traced);
    met.add(first.met);
    if (first.failure) return Failure{seed, first.step, *first.failure};
    if (!is_traced) return std::nullopt;
    ++repeated_;
    const Run second = run_once(seed, is_traced);
    if (first.trace == second.trace) return std::nullopt;
    std::size_t at = 0;
    while (at < std::min(first.trace.size(), second.trace.size()) && first.trace[at] == second.trace[at]) ++at;
    const auto line = [at](const Run& run) { return at < run.trace.size() ? run.trace[at] : "the end"; };
    return Failure{seed, 0, "it went another way the second time: " + line(first) + " / " + line(second), false};
  }

  struct Run {
    std::optional<std::string> failure;
    std::size_t step = 0;
    Counters met;
    std::vector<std::string> trace;
  };

  [[nodiscard]] Run run_once(std::uint64_t seed, bool is_traced) const {
    Run out;
    Plan plan;
    if (is_traced) plan.trace = [&out](std::string line) { out.trace.push_back(std::move(line)); };
    garner::SeededDecisions decisions(seed);
    Scenario scenario(decisions, std::move(plan));
    out.failure = scenario.run(steps_);
    out.step = scenario.failed_at();
    out.met = scenario.counters();
    return out;
  }

  /// The lowest seed counts, whichever thread was faster.
  void note(Failure failure) {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (!failure_ || failure.seed < failure_->seed) failure_ = std::move(failure);
  }

  /// A life that does not end would be waited for for ever.
  void check_alive() {
    for (const Slot& slot : busy_) {
      const Clock::rep since = slot.since;
      if (since == 0 || Clock::now().time_since_epoch() - Clock::duration(since) < patience) continue;
      std::fprintf(stderr, "\nseed %llu has not ended after %lld seconds\n",
                   static_cast<unsigned long long>(slot.seed.load()), static_cast<long long>(patience.count()));
      std::_Exit(1);
    }
  }

  std::atomic<std::uint64_t> next_;
  std::uint64_t end_;
  std::size_t steps_;
  std::vector<Slot> busy_;
  Clock::time_point begun_ = Clock::now();
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<std::uint64_t> repeated_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t finished_ = 0;
  Counters counters_;
  std::optional<Failure> failure_;
};

}  // namespace simulation
