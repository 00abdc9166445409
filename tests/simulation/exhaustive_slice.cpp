// SPDX-License-Identifier: BSL-1.0
//
// A slice of the exhaustive tier (exhaustive.hpp): workloads of up to two calls, and fewer outcomes of each power cut.
// tests/simulate --exhaustive runs all of it.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <system_error>

#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_state.hpp"
#include "simulation/exhaustive.hpp"
#include "simulation/outcomes.hpp"
#include "simulation/workload.hpp"

namespace {

TEST_CASE("wherever a short workload ends, in whatever way, what is left starts, is right, and comes to rest") {
  simulation::ExhaustiveBatch batch({2, 0, {24, 16}}, 2);
  batch.run([] {});
  if (const auto& failure = batch.failure()) {
    FAIL("workload ", failure->workload, ", ", simulation::to_string(simulation::Workloads::at(failure->workload)),
         ": ", failure->what);
  }
  CHECK(batch.done() == batch.size());
  CHECK(batch.tallies().ends[0].starts > 20'000);
  CHECK(batch.tallies().ends[1].starts > 1'000);
}

TEST_CASE("each workload is listed once, the shorter first") {
  const std::uint64_t size = simulation::Workloads(2).size();
  CHECK(size == 1 + 16 + 16 * 3 * 16);
  std::set<std::string> names;
  std::size_t calls = 0;
  for (std::uint64_t number = 0; number < size; ++number) {
    const simulation::Workload workload = simulation::Workloads::at(number);
    CHECK(workload.size() >= calls);
    calls = workload.size();
    names.insert(to_string(workload));
  }
  CHECK(calls == 2);
  CHECK(names.size() == size);
}

/// A disk with `files` files that no sync has made durable.
garner::SimDisk unsynced(int files, garner::CrashMode mode) {
  const auto disk = std::make_shared<garner::SimDisk>(garner::SimDiskOptions{mode});
  const garner::SimFileSystem fs(disk);
  for (int file = 0; file < files; ++file) {
    std::error_code ec;
    fs.create_file(fs.root(), "file" + std::to_string(file), ec);
  }
  return *disk;
}

std::size_t distinct_outcomes(const garner::SimDisk& disk, std::size_t most, bool& complete) {
  std::set<std::string> states;
  simulation::Outcomes outcomes(disk, most);
  outcomes.each([&states](std::uint64_t, const garner::SimDisk& left) {
    states.insert(garner::sim_state(left));
    return true;
  });
  complete = outcomes.complete();
  return states.size();
}

TEST_CASE("of few changes each outcome of a power cut is tried") {
  bool complete = false;
  CHECK(distinct_outcomes(unsynced(5, garner::CrashMode::adversarial), 32, complete) == 32);
  CHECK(complete);
  CHECK(distinct_outcomes(unsynced(5, garner::CrashMode::ordered), 32, complete) == 6);
  CHECK(complete);
}

TEST_CASE("of many changes each is lost alone, and kept alone") {
  bool complete = true;
  // All, none, and ten of either; of those some are among the first, and some at random are new.
  CHECK(distinct_outcomes(unsynced(10, garner::CrashMode::adversarial), 2, complete) >= 22);
  CHECK_FALSE(complete);
}

TEST_CASE("two disks are the same where nobody can tell one from the other, by a crash neither") {
  const auto one = std::make_shared<garner::SimDisk>();
  const auto other = std::make_shared<garner::SimDisk>();
  const garner::SimFileSystem fs(one);
  const garner::SimFileSystem other_fs(other);
  std::error_code ec;
  // Made in another order, and something else beside it that is gone for good.
  auto file = fs.create_file(fs.root(), "file", ec);
  other_fs.create_file(other_fs.root(), "gone", ec);
  other_fs.remove_file(other_fs.root(), "gone");
  auto other_file = other_fs.create_file(other_fs.root(), "file", ec);
  CHECK(garner::sim_state(*one) != garner::sim_state(*other));  // a crash may bring it back
  fs.sync_directory(fs.root());
  other_fs.sync_directory(other_fs.root());
  CHECK(garner::sim_state(*one) == garner::sim_state(*other));

  const std::string text = "bytes";
  fs.write(file, 0, std::as_bytes(std::span(text)));
  CHECK(garner::sim_state(*one) != garner::sim_state(*other));
  other_fs.write(other_file, 0, std::as_bytes(std::span(text)));
  CHECK(garner::sim_state(*one) == garner::sim_state(*other));
  fs.sync_file(file);
  CHECK(garner::sim_state(*one) != garner::sim_state(*other));
  other_fs.sync_file(other_file);
  CHECK(garner::sim_state(*one) == garner::sim_state(*other));
  CHECK(garner::sim_state(*one) == garner::sim_state(garner::SimDisk(*one)));
}

}  // namespace
