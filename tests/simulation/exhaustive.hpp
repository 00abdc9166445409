// SPDX-License-Identifier: BSL-1.0
//
// Every workload of a few calls, ended at every operation of the disk in every way: what is left must start, tell the
// same each time it starts, and come to rest. An end in the middle of the recovery that follows is tried, too.
#pragma once

#include <xxhash.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_state.hpp"
#include "simulation/checks.hpp"
#include "simulation/outcomes.hpp"
#include "simulation/watched.hpp"
#include "simulation/workload.hpp"

namespace simulation {

/// How a machine ends. The file system beneath one that is killed is an adversarial one.
enum class End : std::uint8_t { kill, ordered, adversarial };
inline constexpr std::size_t ends = 3;

constexpr std::string_view to_string(End end) noexcept {
  constexpr std::array<std::string_view, ends> names = {"kill", "ordered", "adversarial"};
  return names[static_cast<std::size_t>(end)];
}

constexpr garner::CrashMode mode_of(End end) noexcept {
  return end == End::ordered ? garner::CrashMode::ordered : garner::CrashMode::adversarial;
}

/// One end: before which operation of the disk, how, and what it left.
struct Ending {
  std::uint64_t point = 0;
  End end{};
  std::uint64_t outcome = 0;
};

/// How much is tried.
struct Depth {
  std::size_t calls = 3;              ///< of a workload, at most
  std::size_t calls_ended_twice = 2;  ///< workloads of so many are ended once more in what follows their end
  /// Of one power cut, the first and the second: where there are more only some are tried (outcomes.hpp).
  std::array<std::size_t, 2> outcomes = {1024, 32};
};

/// What was tried.
struct Tally {
  std::uint64_t points = 0;
  std::uint64_t new_points = 0;  ///< where an end finds what no end has found before
  std::uint64_t sampled = 0;     ///< of them, those with too many outcomes to try all
  std::uint64_t outcomes = 0;    ///< of ends at the new points
  std::uint64_t starts = 0;      ///< on the different disks among them: each was checked

  void add(const Tally& more) {
    points += more.points;
    new_points += more.new_points;
    sampled += more.sampled;
    outcomes += more.outcomes;
    starts += more.starts;
  }
};

struct Tallies {
  std::uint64_t workloads = 0;
  std::uint64_t shorter = 0;    ///< workloads in which a call has nothing to do: the same as a shorter one
  std::array<Tally, 2> ends{};  ///< in the workload; in what follows an end there

  void add(const Tallies& more) {
    workloads += more.workloads;
    shorter += more.shorter;
    for (std::size_t i = 0; i < ends.size(); ++i) ends[i].add(more.ends[i]);
  }
};

/// What was tried before, by any thread.
class Seen {
 public:
  /// True the first time.
  bool insert(char kind, std::size_t ends_left, const garner::SimDisk& disk, const Checks::Past& past) {
    std::string text = garner::sim_state(disk);
    for (const auto& [id, kept] : past.durable.kept) text += 'k' + id.to_hex() + std::to_string(kept.generation);
    for (const garner::ChunkId& id : past.durable.gone) text += 'g' + id.to_hex();
    text += std::to_string(past.starts) + (past.any_tampered ? 't' : '-') + std::to_string(ends_left) + kind;
    const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
    Part& part = parts_[hash.high64 % parts_.size()];
    const std::lock_guard lock(part.mutex);
    return part.hashes.insert({hash.low64, hash.high64}).second;
  }

 private:
  struct Hash {
    std::size_t operator()(const std::pair<std::uint64_t, std::uint64_t>& hash) const noexcept { return hash.first; }
  };
  struct Part {
    std::mutex mutex;
    std::unordered_set<std::pair<std::uint64_t, std::uint64_t>, Hash> hashes;
  };

  std::array<Part, 64> parts_;
};

/// Tries workloads. One thread each; they share what they have seen.
class Exhaustive {
 public:
  struct Failure {
    std::uint64_t workload = 0;
    std::vector<Ending> endings;  ///< none where it went wrong before any
    std::string what;
  };

  Exhaustive(Seen& seen, const Depth& depth) : seen_(seen), depth_(depth) {}

  /// Of a workload and all its ends: the first thing that goes wrong.
  std::optional<Failure> run(std::uint64_t number) {
    const Workload workload = Workloads::at(number);
    failure_.reset();
    ++tallies_.workloads;
    for (const garner::CrashMode mode : {garner::CrashMode::adversarial, garner::CrashMode::ordered}) {
      Performance life(mode, nullptr, watch(workload.size() <= depth_.calls_ended_twice ? 2 : 1));
      const bool is_shorter = !life.run(workload);
      if (life.failure() && !failure_) failure_ = {0, {}, *life.failure()};
      if (failure_) break;
      if (is_shorter) {
        ++tallies_.shorter;
        break;
      }
    }
    if (failure_) failure_->workload = number;
    return failure_;
  }

  [[nodiscard]] const Tallies& tallies() const noexcept { return tallies_; }

 private:
  Watched::Watch watch(std::size_t ends_left) {
    return [this, ends_left](std::uint64_t point, const garner::SimDisk& disk, const Checks::Past& past) {
      if (failure_) return;
      ++tally().points;
      // Most operations change nothing: an end before one of them is an end before the next.
      if (!seen_.insert('p', ends_left, disk, past)) return;
      ++tally().new_points;
      end_at(point, disk, past, ends_left - 1);
    };
  }

  void end_at(std::uint64_t point, const garner::SimDisk& disk, const Checks::Past& past, std::size_t ends_left) {
    const bool is_ordered = disk.options().mode == garner::CrashMode::ordered;
    std::vector<std::pair<Ending, garner::SimDisk>> ended;
    const auto start = [&](const Ending& ending, garner::SimDisk left) {
      ++tally().starts;
      endings_.push_back(ending);
      start_on(left, past, nullptr);
      endings_.pop_back();
      if (ends_left > 0) ended.emplace_back(ending, std::move(left));
    };
    Outcomes outcomes(disk, depth_.outcomes[endings_.size()]);
    outcomes.each([&](std::uint64_t outcome, garner::SimDisk left) {
      ++tally().outcomes;
      if (seen_.insert('s', ends_left, left, past)) {
        start({point, is_ordered ? End::ordered : End::adversarial, outcome}, std::move(left));
      }
      return !failure_;
    });
    if (!outcomes.complete()) ++tally().sampled;
    if (!failure_ && (!is_ordered || !endings_.empty())) {
      ++tally().outcomes;
      start({point, End::kill, 0}, disk);
    }
    // Only then, so that no second end is blamed for what one alone does.
    for (const auto& [ending, left] : ended) {
      if (failure_) return;
      endings_.push_back(ending);
      start_on(left, past, watch(ends_left));
      endings_.pop_back();
    }
  }

  void start_on(const garner::SimDisk& disk, const Checks::Past& past, Watched::Watch watch) {
    Aftermath life(disk, past, nullptr, std::move(watch));
    life.run();
    if (life.failure() && !failure_) failure_ = {0, endings_, *life.failure()};
  }

  /// Of the next end.
  Tally& tally() { return tallies_.ends[endings_.size()]; }

  Seen& seen_;
  Depth depth_;
  std::vector<Ending> endings_;  ///< that led to where it is
  std::optional<Failure> failure_;
  Tallies tallies_;
};

/// Workloads in several threads. Ends at the first that fails; of several the shortest counts.
class ExhaustiveBatch {
 public:
  ExhaustiveBatch(const Depth& depth, unsigned jobs)
      : size_(Workloads(depth.calls).size()), depth_(depth), jobs_(jobs) {}

  /// Calls `progress()` from time to time.
  void run(const std::function<void()>& progress) {
    std::vector<std::thread> threads;
    for (unsigned job = 0; job < jobs_; ++job) threads.emplace_back([this] { work(); });
    {
      std::unique_lock lock(mutex_);
      while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return finished_ == jobs_; })) progress();
    }
    for (std::thread& thread : threads) thread.join();
    progress();
  }

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint64_t done() const noexcept { return done_; }

  // After `run`:
  [[nodiscard]] const std::optional<Exhaustive::Failure>& failure() const noexcept { return failure_; }
  [[nodiscard]] const Tallies& tallies() const noexcept { return tallies_; }

 private:
  void work() {
    Exhaustive exhaustive(seen_, depth_);
    for (std::uint64_t number = next_++; number < size_ && !stop_; number = next_++) {
      std::optional<Exhaustive::Failure> failure = exhaustive.run(number);
      ++done_;
      if (!failure) continue;
      const std::lock_guard lock(mutex_);
      stop_ = true;
      if (!failure_ || failure->workload < failure_->workload) failure_ = std::move(failure);
    }
    const std::lock_guard lock(mutex_);
    tallies_.add(exhaustive.tallies());
    ++finished_;
    changed_.notify_all();
  }

  std::uint64_t size_;
  Depth depth_;
  unsigned jobs_;
  Seen seen_;
  std::atomic<std::uint64_t> next_{0};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned finished_ = 0;
  std::optional<Exhaustive::Failure> failure_;
  Tallies tallies_;
};

}  // namespace simulation
