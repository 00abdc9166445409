// SPDX-License-Identifier: BSL-1.0
//
// The state machine and disks that forget: chunks that are checked before a start serves them, and passes over all
// that is held.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/table_bench.hpp"
#include "garner/error.hpp"

using garner::ChunkState;
using garner::errc;
using garner::Options;
using garner::StartupCheck;
using garner::test::describe;
using garner::test::TableBench;
using namespace std::chrono_literals;

namespace {

Options checking(StartupCheck check = StartupCheck::digests) {
  Options options;
  options.startup_check = check;
  return options;
}

}  // namespace

// ---- before a start serves them

TEST_CASE("what a start finds is served once it was checked, and not before") {
  TableBench bench(checking());
  CHECK(bench.recovered(describe("a"), 1) == "");
  CHECK(bench.recovery_done() == "clean up, verify 1");
  bench.cleaned_up();
  CHECK(bench.state_of("a") == ChunkState::checking);
  CHECK(bench.status().checking == 1);
  CHECK(bench.status().removing == 0);
  CHECK_FALSE(bench.status_of("a").served);
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.verified(1) == "list 1");
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.table.settled());
}

TEST_CASE("where sizes are to be checked, sizes are") {
  TableBench bench(checking(StartupCheck::sizes));
  bench.recovered(describe("a"), 1);
  CHECK(bench.recovery_done() == "clean up, verify sizes 1");
}

TEST_CASE("as many are checked at once as the limit says") {
  Options options = checking();
  options.max_concurrent_checks = 2;
  TableBench bench(options);
  for (std::uint64_t i = 1; i <= 5; ++i) bench.recovered(describe("c" + std::to_string(i)), i);
  const std::string first = bench.recovery_done();
  CHECK(std::count(first.begin(), first.end(), 'v') == 2);
  bench.cleaned_up();
  options.max_concurrent_checks = 4;
  const std::string more = bench.set_options(options);
  CHECK(std::count(more.begin(), more.end(), 'v') == 2);
}

TEST_CASE("what does not pass the check is never served, and fetched anew from its description") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  bench.told();
  const std::string next = bench.verified(1, errc::corrupt_chunk, describe("a"));
  CHECK(next == "quarantine 1, stage 2");
  CHECK(bench.told() == "failed 1");
  bench.staged(2);
  bench.done(2 - 1);
  CHECK(bench.published(2) == "list 2");
}

TEST_CASE("what does not pass the check and cannot be described is not wanted any more") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  CHECK(bench.verified(1, errc::corrupt_chunk) == "quarantine 1");
  bench.removed(1);
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("hostile 39: of several copies the newest that is whole is served") {
  TableBench bench(checking());
  bench.recovered(describe("a", 2), 5);
  bench.recovered(describe("a", 1), 3);
  bench.recovered(describe("a", 0), 2);
  CHECK(bench.recovery_done() == "clean up, verify 5");
  bench.cleaned_up();
  SUBCASE("the first") { CHECK(bench.verified(5) == "list 5, remove 3, remove 2"); }
  SUBCASE("the second, until what the first one held was fetched") {
    CHECK(bench.verified(5, errc::corrupt_chunk, describe("a", 2)) == "quarantine 5, verify 3");
    CHECK(bench.verified(3) == "list 3, describe 3, remove 2");
    CHECK(bench.described(3, describe("a", 1)) == "stage 6");
  }
  SUBCASE("the second, for good, where nobody knows what the first one held") {
    CHECK(bench.verified(5, errc::corrupt_chunk) == "quarantine 5, verify 3");
    CHECK(bench.verified(3) == "list 3, remove 2");
    CHECK(bench.state_of("a") == ChunkState::ready);
  }
}

TEST_CASE("a chunk that is wanted while it is checked is not fetched before that is known") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  bench.cleaned_up();
  Options options = checking();
  options.revive = false;  // nobody has let go of it
  bench.set_options(options);
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.verified(1) == "list 1, describe 1");
  CHECK(bench.described(1, describe("a")) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("a chunk that is deleted while it is checked is removed and never served") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  CHECK(bench.unwant("a") == "");
  CHECK(bench.verified(1) == "remove 1");
}

TEST_CASE("a chunk that waits for its check and is deleted is removed unchecked") {
  Options options = checking();
  options.max_concurrent_checks = 0;
  TableBench bench(options);
  bench.recovered(describe("a"), 1);
  CHECK(bench.recovery_done() == "clean up");
  CHECK(bench.unwant("a") == "remove 1");
}

TEST_CASE("a disk that does not give the bytes of a chunk is asked a few times, and then the chunk is lost") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  bench.cleaned_up();
  CHECK(bench.verified(1, errc::io_error) == "");
  CHECK(bench.state_of("a") == ChunkState::checking);
  CHECK(bench.wake() == "verify 1");
  SUBCASE("it gives them then") { CHECK(bench.verified(1) == "list 1"); }
  SUBCASE("it never does") {
    bench.verified(1, errc::io_error);
    CHECK(bench.wake() == "verify 1");
    CHECK(bench.verified(1, errc::io_error, describe("a")) == "quarantine 1, stage 2");
  }
}

TEST_CASE("what cannot be checked for want of something else is waited for") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  bench.cleaned_up();
  for (int i = 0; i < 10; ++i) {
    CHECK(bench.verified(1, errc::too_many_open_files) == "");
    CHECK(bench.wake() == "verify 1");
  }
}

TEST_CASE("a manager that is closed while it checks keeps what it found for the next start") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovered(describe("b"), 2);
  bench.recovery_done();
  bench.cleaned_up();
  CHECK(bench.close() == "");
  bench.told();
  CHECK(bench.verified(1, errc::cancelled) == "");
  CHECK(bench.verified(2) == "list 2");
  CHECK(bench.told() == "ready 2");
  CHECK(bench.table.idle());
}

// ---- passes over what is held

namespace {

Options scrubbing(std::uint64_t bytes_per_second = 0) {
  Options options;
  options.scrub_interval = 1h;
  options.scrub_bytes_per_second = bytes_per_second;
  return options;
}

/// Of "verify 2": 2.
std::uint64_t number_in(const std::string& action) { return std::stoull(action.substr(action.rfind(' '))); }

}  // namespace

TEST_CASE("nobody is woken for a pass where none is asked for") {
  TableBench bench;
  bench.make_ready(describe("a"));
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("a pass begins at once, and the next one an interval after its begin") {
  TableBench bench(scrubbing());
  bench.now = 5s;
  bench.make_ready(describe("a"));
  CHECK(bench.held({"a"}) == "verify 1");
  CHECK(bench.status().scrub.running);
  CHECK(bench.status().scrub.chunks_total == 1);
  bench.told();
  bench.now += 10min;
  CHECK(bench.verified(1) == "");
  CHECK(bench.told() == "scrubbed 0");
  CHECK_FALSE(bench.status().scrub.running);
  CHECK(bench.status().scrub.chunks_done == 1);
  CHECK(bench.status().scrub.bytes_done == 100);
  CHECK(bench.status().scrub.passes == 1);
  CHECK(bench.wake() == "list held");
  CHECK(bench.now == 5s + 1h);
  CHECK(bench.wake() == "asleep");  // until it is listed
}

TEST_CASE("a pass that takes longer than its interval is followed by the next at once") {
  TableBench bench(scrubbing());
  bench.make_ready(describe("a"));
  bench.held({"a"});
  bench.now += 3h;
  bench.verified(1);
  CHECK(bench.wake() == "list held");
  CHECK(bench.now == 3h);
}

TEST_CASE("after a chunk of n bytes the next one waits until they are paid for") {
  TableBench bench(scrubbing(10));  // chunks have 100 bytes
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  const std::string first = bench.held({"a", "b"});
  bench.now += 3s;
  CHECK(bench.verified(number_in(first)) == "");
  const std::string second = bench.wake();
  CHECK(bench.now == 10s);
  CHECK(number_in(second) == 3 - number_in(first));
  SUBCASE("one that took longer than that has paid already") {
    bench.now += 1min;
    bench.verified(number_in(second));
    CHECK(bench.status().scrub.passes == 1);
  }
  SUBCASE("another rate counts at once") {
    bench.verified(number_in(second));
    bench.now = 1h;
    bench.wake();
    const std::string third = bench.held({"a", "b"});
    bench.verified(number_in(third));
    CHECK(bench.set_options(scrubbing(100)) == "");
    CHECK(bench.wake().starts_with("verify "));
    CHECK(bench.now == 1h + 1s);
  }
}

TEST_CASE("a pass that somebody asks for keeps no pace, and goes on where the last one was") {
  TableBench bench(scrubbing(1));
  for (const char* name : {"a", "b", "c", "d"}) bench.make_ready(describe(name));
  std::set<std::uint64_t> seen;
  std::string next = bench.held({"a", "b", "c", "d"});
  seen.insert(number_in(next));
  CHECK(bench.verified(number_in(next)) == "");
  next = bench.verify({"a", "b", "c", "d"});
  for (int i = 0; i < 3; ++i) {
    CHECK(seen.insert(number_in(next)).second);
    // Asked for again and again, it comes round all the same.
    CHECK(bench.verify({"a", "b", "c", "d"}) == "");
    next = bench.verified(number_in(next));
  }
  CHECK(seen.size() == 4);
  CHECK(bench.status().scrub.chunks_done == 0);
  for (int i = 0; i < 4; ++i) next = bench.verified(number_in(next));
  CHECK(bench.status().scrub.chunks_done == 4);
  CHECK(next == "");
}

TEST_CASE("a pass that is due does not slow down one that somebody asked for") {
  TableBench bench(scrubbing(1));
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  const std::string first = bench.verify({"a", "b"});
  CHECK(bench.held({"a", "b"}) == "");  // was on its way
  CHECK(bench.verified(number_in(first)).starts_with("verify "));
}

TEST_CASE("what is gone when its turn comes is passed over, and what came since waits for the next pass") {
  TableBench bench(scrubbing());
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  bench.make_ready(describe("c"));
  const std::uint64_t first = number_in(bench.held({"a", "b"}));
  bench.unwant(first == 1 ? "b" : "a");
  bench.told();
  CHECK(bench.verified(first) == "");
  CHECK(bench.told() == "scrubbed 0");
  CHECK(bench.status().scrub.chunks_done == 2);
  CHECK(bench.status().scrub.bytes_done == 100);
}

TEST_CASE("a chunk that something else is done with has its turn when that is done") {
  TableBench bench;
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  bench.cleaned_up();
  CHECK(bench.want(describe("a")) == "describe 1");
  CHECK(bench.verify({"a"}) == "");
  CHECK(bench.wake() == "asleep");
  CHECK(bench.described(1, describe("a")) == "verify 1");
}

TEST_CASE("a million chunks that are gone do not hold a pass up, nor it anyone else") {
  TableBench bench;
  std::vector<std::string> names;
  names.reserve(5000);
  for (int i = 0; i < 5000; ++i) names.push_back(std::to_string(i));
  CHECK(bench.verify(names) == "");
  int wakes = 0;
  for (; bench.status().scrub.running && wakes < 100; ++wakes) bench.wake();
  CHECK(wakes == 4);
  CHECK(bench.status().scrub.passes == 1);
}

TEST_CASE("a pass tells what it has found") {
  TableBench bench;
  for (const char* name : {"a", "b", "c"}) bench.make_ready(describe(name));
  std::string next = bench.verify({"a", "b", "c"});
  next = bench.verified(number_in(next), errc::io_error);
  const std::uint64_t corrupt = number_in(next);
  bench.verified(corrupt, errc::corrupt_chunk);
  CHECK(bench.condemned == std::vector{corrupt});
  CHECK(bench.status().scrub.unreadable == 1);
  CHECK(bench.status().scrub.corrupt == 1);
}

TEST_CASE("pins on a chunk that was deleted while it was found corrupt are told, too") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  bench.unwant("a");
  bench.verified(1, errc::corrupt_chunk);
  CHECK(bench.condemned == std::vector{std::uint64_t{1}});
}

TEST_CASE("an interval that never ends, or a rate of next to nothing, is no moment in the past") {
  Options options = scrubbing(1);
  options.scrub_interval = std::chrono::nanoseconds::max();
  TableBench bench(options);
  bench.now = 1h;
  bench.make_ready(describe("a"));
  bench.held({"a"});
  CHECK(bench.verified(1) == "");
  CHECK(bench.table.next_wake() == std::chrono::nanoseconds::max());
}

TEST_CASE("no pass begins or goes on after the end") {
  TableBench bench(scrubbing());
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  const std::string first = bench.held({"a", "b"});
  bench.close();
  CHECK(bench.verified(number_in(first), errc::cancelled).find("verify") == std::string::npos);
  CHECK_FALSE(bench.status().scrub.running);
  CHECK(bench.table.idle());
}
