// SPDX-License-Identifier: BSL-1.0
//
// The state machine and disks that forget: chunks that are checked before a start serves them.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "core/table_bench.hpp"
#include "garner/error.hpp"

using garner::ChunkState;
using garner::DataChunk;
using garner::errc;
using garner::Options;
using garner::StartupCheck;
using garner::test::describe;
using garner::test::TableBench;

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
  CHECK(next == "remove 1, stage 2");
  CHECK(bench.told() == "failed 1");
  bench.staged(2);
  bench.done(2 - 1);
  CHECK(bench.published(2) == "list 2");
}

TEST_CASE("what does not pass the check and cannot be described is not wanted any more") {
  TableBench bench(checking());
  bench.recovered(describe("a"), 1);
  bench.recovery_done();
  CHECK(bench.verified(1, errc::corrupt_chunk) == "remove 1");
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
    CHECK(bench.verified(5, errc::corrupt_chunk, describe("a", 2)) == "remove 5, verify 3");
    CHECK(bench.verified(3) == "list 3, describe 3, remove 2");
    CHECK(bench.described(3, describe("a", 1)) == "stage 6");
  }
  SUBCASE("the second, for good, where nobody knows what the first one held") {
    CHECK(bench.verified(5, errc::corrupt_chunk) == "remove 5, verify 3");
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
    CHECK(bench.verified(1, errc::io_error, describe("a")) == "remove 1, stage 2");
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
