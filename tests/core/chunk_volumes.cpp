// SPDX-License-Identifier: BSL-1.0
//
// The state machine and the volumes of a store: what becomes of copies on one that is away, and when it is back.
#include "garner/core/chunk_volumes.hpp"

#include <doctest/doctest.h>

#include <ostream>
#include <string>
#include <vector>

#include "core/table_bench.hpp"

using garner::ChunkState;
using garner::errc;
using garner::Options;
using garner::VolumeState;
using garner::test::describe;
using garner::test::TableBench;

namespace {

/// A start that has found `a` on the second of two volumes, cleaned up.
struct Started : TableBench {
  explicit Started(const Options& options = {}) : TableBench(options) {
    two_volumes();
    recovered(describe("a"), 1000);
    begin();
  }
  void begin() {
    table.recovery_done({{}, {}, 5000, false}, {});
    asked();
    cleaned_up();
    told();
  }
  /// The second volume fails in the middle of something else, and is found to be away.
  std::string goes_away() {
    scrub();
    CHECK(verified(1000, errc::io_error) == "examine");
    return examined(VolumeState::away);
  }
  /// Begins one, and finds nothing wrong with the volumes.
  void scrub() {
    CHECK(verify({"a"}) == "examine, verify 1000");
    CHECK(examined(VolumeState::healthy) == "");
  }
  std::string comes_back(std::uint64_t openings = 1) {
    CHECK(wake() == "examine");
    return examined(VolumeState::healthy, openings);
  }
};

}  // namespace

TEST_CASE("a failure of the store is looked into where there are several volumes, once at a time") {
  Started bench;
  bench.scrub();
  SUBCASE("what says nothing of a disk is not") {
    for (const errc error : {errc::too_many_open_files, errc::policy_failed, errc::no_space}) {
      CHECK(bench.verified(1000, error) == "");
      bench.scrub();
    }
    bench.verified(1000);
    CHECK(bench.wake() == "asleep");
    return;
  }
  CHECK(bench.table.settled());
  CHECK(bench.verified(1000, errc::io_error) == "examine");
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.verify({"a"}) == "verify 1000");
  CHECK(bench.verified(1000, errc::io_error) == "");
  CHECK(bench.examined(VolumeState::healthy) == "examine");
  CHECK(bench.examined(VolumeState::healthy) == "");
  CHECK(bench.table.settled());
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("a store of one volume is not examined, whatever fails") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  CHECK(bench.verified(1, errc::io_error) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("what is on a volume that is away is not served, is described from elsewhere, and is fetched anew") {
  Started bench;
  CHECK(bench.goes_away() == "unlist 1000, describe 1000");
  CHECK(bench.told() == "failed 1000, scrubbed 0, volume away 0, unlisted 1000");
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.status().away == 1);
  CHECK(bench.status().waiting == 1);
  CHECK(bench.status().bytes_ready == 0);
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.drained(1000) == "");
  CHECK(bench.described(1000, describe("a")) == "stage 5001");
  bench.staged(5001);
  bench.done(1);
  CHECK(bench.published(5001) == "list 5001");
}

TEST_CASE("what was wanted and is back is served again, and what is fetched meanwhile is not needed") {
  Started bench({.revive = false});
  bench.goes_away();
  bool is_described = false;
  SUBCASE("before it was described") { CHECK(bench.comes_back() == "list 1000, clean up"); }
  SUBCASE("before anything of it was fetched") {
    CHECK(bench.described(1000, describe("a")) == "stage 5001");
    is_described = true;
    CHECK(bench.comes_back() == "list 1000, clean up");
    CHECK(bench.staged(5001) == "discard 5001");
    bench.discarded(5001);
  }
  bench.cleaned_up();
  if (!is_described) bench.described(1000, describe("a"));
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.status().away == 0);
  CHECK(bench.table.settled());
  CHECK(bench.told().find("volume healthy") != std::string::npos);
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("what was deleted while its volume was away does not come back with it") {
  Started bench;
  bench.goes_away();
  bench.drained(1000);
  CHECK(bench.unwant("a") == "");
  bench.described(1000, describe("a"));
  CHECK(bench.table.settled());
  CHECK(bench.knows("a"));
  CHECK(bench.comes_back() == "remove 1000, clean up");
  bench.removed(1000);
  bench.cleaned_up();
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.table.settled());
}

TEST_CASE("what was deleted while its volume was away and is pinned is marked when that is back") {
  Started bench;
  bench.goes_away();
  bench.unwant("a");
  bench.described(1000, describe("a"));
  CHECK(bench.comes_back() == "doom 1000, clean up");
}

TEST_CASE(
    "another version that was asked for while a volume was away takes the place of what is back once it is there") {
  Started bench({.revive = false});
  bench.goes_away();
  bench.drained(1000);
  CHECK(bench.want(describe("a", 2)) == "stage 5001");
  bench.described(1000, describe("a"));
  SUBCASE("still being fetched") {
    CHECK(bench.comes_back() == "list 1000, clean up");
    CHECK(bench.state_of("a") == ChunkState::downloading);
    bench.staged(5001);
    bench.done(1);
    CHECK(bench.published(5001) == "unlist 1000, list 5001, doom 1000");
  }
  SUBCASE("and there") {
    bench.staged(5001);
    bench.done(1);
    bench.published(5001);
    CHECK(bench.comes_back() == "remove 1000, clean up");
    CHECK(bench.state_of("a") == ChunkState::ready);
  }
}

TEST_CASE("without a description what is on a volume that is away waits for it, or for another wish") {
  Started bench;
  bench.goes_away();
  CHECK(bench.described(1000, {}) == "");
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK_FALSE(bench.table.settled());
  SUBCASE("its volume") {
    std::string led_to;
    for (int i = 0; i < 10 && led_to != "examine"; ++i) {
      led_to = bench.wake();
      if (led_to == "describe 1000") bench.described(1000, {});
    }
    CHECK(bench.examined(VolumeState::healthy) == "list 1000, clean up");
  }
  SUBCASE("a wish") { CHECK(bench.want(describe("a")) == "stage 5001"); }
  SUBCASE("whoever describes it, asked from time to time") {
    std::string led_to;
    for (int i = 0; i < 10 && led_to.find("describe") == std::string::npos; ++i) led_to += bench.wake();
    CHECK(bench.described(1000, describe("a")) == "stage 5001");
  }
}

TEST_CASE("a volume that was opened anew has what it has told of, and nothing else") {
  Started bench;
  bench.goes_away();
  bench.described(1000, describe("a"));
  bench.drained(1000);
  CHECK(bench.wake() == "examine");
  SUBCASE("what is there is served again") {
    CHECK(bench.found(describe("a"), 1000) == "list 1000");
    CHECK(bench.examined(VolumeState::healthy, 2) == "clean up");
    bench.staged(5001);
    bench.discarded(5001);
    CHECK(bench.state_of("a") == ChunkState::ready);
  }
  SUBCASE("what is not there is gone, and is fetched") {
    CHECK(bench.examined(VolumeState::healthy, 2) == "remove 1000, clean up");
    bench.removed(1000);
    CHECK(bench.state_of("a") == ChunkState::downloading);
    CHECK(bench.status().away == 0);
  }
}

TEST_CASE("what is gone with its volume and was never described is not removed before it is, and then given up") {
  Started bench;
  bench.goes_away();
  bench.drained(1000);
  CHECK(bench.wake() == "examine");
  CHECK(bench.examined(VolumeState::healthy, 2) == "clean up");
  SUBCASE("described") { CHECK(bench.described(1000, describe("a")) == "remove 1000, stage 5001"); }
  SUBCASE("not described") {
    CHECK(bench.described(1000, {}) == "remove 1000");
    CHECK_FALSE(bench.status_of("a").wanted);
  }
}

TEST_CASE("what nobody knows on a volume that was not there at the start counts as found by it") {
  TableBench bench;
  bench.two_volumes(VolumeState::away, 0);
  bench.recovered(describe("b"), 1);
  bench.table.recovery_done({{}, {}, 5000, false}, {});
  bench.asked();
  bench.cleaned_up();
  CHECK(bench.table.settled());
  SUBCASE("and is wanted, the newest copy of it") {
    CHECK(bench.wake() == "examine");
    CHECK(bench.found(describe("a"), 1001) == "list 1001");
    CHECK(bench.found(describe("a"), 1003) == "unlist 1001, list 1003, doom 1001");
    CHECK(bench.found(describe("a"), 1002) == "remove 1002");
    CHECK(bench.found(describe("b"), 1004) == "remove 1004");  // nobody asked for another one of it
    bench.examined(VolumeState::healthy);
    CHECK(bench.state_of("a") == ChunkState::ready);
  }
  SUBCASE("but it was deleted since") {
    bench.unwant("a");
    CHECK(bench.wake() == "examine");
    CHECK(bench.found(describe("a"), 1001) == "remove 1001");
  }
  SUBCASE("but it was deleted since, and then asked for: then that is compared") {
    bench.unwant("a");
    bench.want(describe("a"));
    CHECK(bench.wake() == "examine");
    CHECK(bench.found(describe("a"), 1001) == "describe 1001");
    CHECK(bench.described(1001, describe("a")) == "list 1001");
  }
  SUBCASE("but an assignment was made since") {
    bench.assign({describe("b")});
    bench.described(1, describe("b"));
    CHECK(bench.wake() == "examine");
    CHECK(bench.found(describe("a"), 1001) == "remove 1001");
  }
  SUBCASE("but the manager was closed since: then it stays as it is") {
    CHECK(bench.wake() == "examine");
    bench.close();
    CHECK(bench.found(describe("a"), 1001) == "");
    CHECK(bench.examined(VolumeState::healthy) == "");
    CHECK_FALSE(bench.knows("a"));
    CHECK(bench.table.idle());
  }
}

TEST_CASE("what a start was told of a volume that is away is wanted, and an older copy is served meanwhile") {
  TableBench bench;
  bench.two_volumes(VolumeState::away, 0);
  bench.recovered(describe("a"), 1);
  CHECK(bench.recovered(describe("a", 2), 1001) == "describe 1001");
  CHECK(bench.recovered(describe("b"), 1002) == "describe 1002");
  bench.table.recovery_done({{}, {}, 5000, false}, {});
  bench.asked();
  CHECK(bench.status_of("a").served);
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.described(1001, describe("a", 2)) == "describe 1");
  CHECK(bench.described(1, describe("a")) == "stage 5001");
  CHECK(bench.described(1002, describe("b")) == "stage 5002");
  bench.staged(5001);
  bench.done(1);
  CHECK(bench.published(5001) == "unlist 1, list 5001, doom 1");
}

TEST_CASE("what is put onto a volume that is found to be away at that moment is not served, and is fetched again") {
  TableBench bench;
  bench.two_volumes();
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1);
  bench.want(describe("b"));
  CHECK(bench.staged(2, errc::io_error) == "examine, clean up");
  bench.examined(VolumeState::away);
  garner::Generation generation = bench.generation(1);
  generation.volume = 1;
  bench.table.published(generation.id, generation, {}, bench.now);
  CHECK(bench.asked().starts_with("stage"));
  CHECK(bench.status().away == 1);
}

TEST_CASE("a volume that refuses changes is told, looked at again, and what it has is served") {
  Started bench;
  bench.table.volumes_told(TableBench::volumes(VolumeState::read_only), bench.now);
  CHECK(bench.told() == "volume read-only 0");
  CHECK(bench.table.settled());
  CHECK(bench.wake() == "examine");
  CHECK(bench.examined(VolumeState::read_only) == "");
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.wake() == "examine");
  CHECK(bench.examined(VolumeState::healthy) == "");
  CHECK(bench.told() == "volume healthy 0");
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("a volume that is away is looked at again, less and less often, and not more often than once at a time") {
  const Options options;
  Started bench;
  bench.goes_away();
  bench.described(1000, describe("a"));
  std::chrono::nanoseconds longest{};
  for (int i = 0; i < 40; ++i) {
    const auto before = bench.now;
    CHECK(bench.wake() == "examine");
    longest = std::max(longest, bench.now - before);
    CHECK(bench.now - before >= options.min_backoff);
    CHECK(bench.now - before <= options.min_backoff + options.no_space_retry);
    CHECK(bench.examined(VolumeState::away) == "");
  }
  CHECK(longest > options.no_space_retry / 2);
}

TEST_CASE("many copies are gone through a few at a time") {
  TableBench bench;
  bench.two_volumes();
  constexpr std::uint64_t count = 1000;
  for (std::uint64_t i = 0; i < count; ++i) bench.recovered(describe("c" + std::to_string(i)), 1000 + i);
  bench.table.recovery_done({{}, {}, 1000 + count, false}, {});
  bench.asked();
  bench.cleaned_up();
  CHECK(bench.verify({"c0"}) == "examine, verify 1000");
  std::string led_to = bench.examined(VolumeState::away);
  std::size_t inputs = 1;
  for (; bench.status().away < count; ++inputs) {
    REQUIRE(bench.status().away <= inputs * 2 * 64);
    CHECK_FALSE(bench.table.settled());
    led_to = bench.wake();
    REQUIRE_FALSE(led_to.empty());
  }
  CHECK(inputs > 5);
  CHECK(bench.status().bytes_ready == 0);
}
