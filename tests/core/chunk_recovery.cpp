// SPDX-License-Identifier: BSL-1.0
//
// The state machine while it is being told what the store holds: calls count as they do after it, and nothing is asked
// of the store before all of it is known.
#include "garner/core/chunk_recovery.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <string>
#include <system_error>
#include <variant>

#include "core/table_bench.hpp"

using garner::ChunkState;
using garner::errc;
using garner::Options;
using garner::StartupCheck;
using garner::VolumeState;
using garner::test::describe;
using garner::test::TableBench;

namespace {

/// That is being told what the store holds, while calls come.
struct Recovering : TableBench {
  explicit Recovering(const Options& options = {}) : TableBench(options) { table.begin_recovery(); }

  std::string ends(std::error_code error = {}) {
    table.recovery_done({error, error ? "path" : "", 50, false}, now);
    return asked();
  }
};

}  // namespace

TEST_CASE("what is found is listed as it is found, and nothing is settled or cleaned up before all is known") {
  Recovering bench;
  CHECK(bench.recovered(describe("a"), 5) == "list 5");
  CHECK_FALSE(bench.table.settled());
  CHECK_FALSE(bench.table.idle());
  CHECK(bench.status().recovering);
  CHECK(bench.wake() == "asleep");
  CHECK(bench.recovered(describe("b"), 6) == "list 6");
  CHECK(bench.ends() == "clean up");
  CHECK_FALSE(bench.status().recovering);
  CHECK(bench.cleaned_up() == "");
  CHECK(bench.table.settled());
  CHECK(bench.told() == "ready 5, ready 6, recovered 0");
}

TEST_CASE("a wish is fetched when all is known, numbered from above all that was found") {
  Recovering bench;
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.state_of("a") == ChunkState::queued);
  CHECK(bench.recovered(describe("b"), 60) == "list 60");
  CHECK(bench.ends() == "stage 61, clean up");
}

TEST_CASE("a wish for what is found costs no byte, whichever comes first") {
  Recovering bench;
  SUBCASE("wish first") {
    CHECK(bench.want(describe("a")) == "");
    CHECK(bench.recovered(describe("a"), 5) == "list 5");
  }
  SUBCASE("found first") {
    CHECK(bench.recovered(describe("a"), 5) == "list 5");
    CHECK(bench.want(describe("a")) == "");
  }
  SUBCASE("by an assignment") {
    CHECK(bench.assign({describe("a")}) == "");
    CHECK(bench.recovered(describe("a"), 5) == "list 5");
  }
  CHECK(bench.ends() == "describe 5, clean up");
  CHECK(bench.described(5, describe("a")) == "");
  CHECK(bench.state_of("a") == ChunkState::ready);
}

TEST_CASE("where another version is wanted what is found is served until that is there") {
  Recovering bench;
  bench.want(describe("a", 2));
  CHECK(bench.recovered(describe("a"), 5) == "list 5");
  CHECK(bench.ends() == "describe 5, clean up");
  CHECK(bench.described(5, describe("a")) == "stage 51");
  bench.staged(51);
  bench.done(1);
  CHECK(bench.published(51) == "unlist 5, list 51, doom 5");
}

TEST_CASE("what was deleted is not listed when it is found, and removed when all is known") {
  Recovering bench;
  SUBCASE("before it was found") {
    bench.unwant("a");
    CHECK(bench.recovered(describe("a"), 5) == "");
  }
  SUBCASE("after it was found") {
    bench.recovered(describe("a"), 5);
    CHECK(bench.unwant("a") == "unlist 5");
    bench.drained(5);
  }
  SUBCASE("before an older copy is found, too") {
    bench.recovered(describe("a"), 5);
    CHECK(bench.unwant("a") == "unlist 5");
    bench.drained(5);
    CHECK(bench.recovered(describe("a"), 4) == "");
    CHECK(bench.ends() == "remove 5, remove 4, clean up");
    return;
  }
  SUBCASE("by an assignment that does not name it") {
    CHECK(bench.assign({}) == "");
    CHECK(bench.recovered(describe("a"), 5) == "");
  }
  SUBCASE("by an assignment after it was found") {
    bench.recovered(describe("a"), 5);
    CHECK(bench.assign({}) == "unlist 5");
    bench.drained(5);
  }
  CHECK(bench.ends() == "remove 5, clean up");
  CHECK(bench.removed(5) == "");
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("what was deleted and is wanted again is served where it turns out to be that, and not before") {
  Recovering bench;
  SUBCASE("deleted") { bench.unwant("a"); }
  SUBCASE("not named by an assignment") { bench.assign({describe("b")}); }
  SUBCASE("wanted before that, too") {
    bench.want(describe("a", 2));
    bench.unwant("a");
  }
  SUBCASE("deleted, and named by an assignment") {
    bench.unwant("a");
    bench.assign({describe("a")});
  }
  SUBCASE("not named by the first assignment, and by the second") {
    bench.assign({});
    bench.assign({describe("a")});
  }
  bench.want(describe("a"));
  CHECK(bench.recovered(describe("a"), 5) == "");
  const std::string first = bench.ends();
  CHECK(first.find("describe 5") != std::string::npos);
  CHECK(bench.described(5, describe("a")).find("list 5") == 0);
}

TEST_CASE("without revival what was deleted and is wanted again is fetched anew") {
  Options options;
  options.revive = false;
  Recovering bench(options);
  bench.unwant("a");
  bench.want(describe("a"));
  CHECK(bench.recovered(describe("a"), 5) == "");
  CHECK(bench.ends() == "remove 5, stage 51, clean up");
}

TEST_CASE("of several copies the newest is listed, in whatever order they are found") {
  Recovering bench;
  SUBCASE("newest last") {
    CHECK(bench.recovered(describe("a"), 4) == "list 4");
    CHECK(bench.recovered(describe("a"), 5) == "unlist 4, list 5");
  }
  SUBCASE("newest first") {
    CHECK(bench.recovered(describe("a"), 5) == "list 5");
    CHECK(bench.recovered(describe("a"), 4) == "");
  }
  bench.drained(4);
  CHECK(bench.ends() == "remove 4, clean up");
}

TEST_CASE("an older copy that holds what is wanted does not take the place of the newest") {
  Recovering bench;
  bench.recovered(describe("a"), 4);
  bench.recovered(describe("a"), 5);
  bench.recovered(describe("a"), 3);
  bench.drained(4);
  bench.want(describe("a"));
  CHECK(bench.ends() == "describe 5, remove 4, remove 3, clean up");
  CHECK(bench.described(5, describe("a")) == "");
}

TEST_CASE("what was found is older than any wish, for ranges of one begin") {
  Recovering bench;
  const auto listed_as = [&](std::uint64_t number) {
    for (const garner::core::Action& action : bench.table.actions()) {
      const auto* list = std::get_if<garner::core::action::List>(&action);
      if (list != nullptr && list->generation.number == number) return list->asked;
    }
    return std::uint64_t{0};
  };
  bench.want(describe("a"));
  bench.recovered(describe("b"), 5);
  bench.recovered(describe("c"), 6);
  bench.table.recovered({describe("a").id, describe("a").dataset_id, {0, 10}, 100, 7});
  bench.table.recovered({describe("d").id, describe("d").dataset_id, {0, 10}, 100, 8});
  CHECK(listed_as(8) > 0);
  CHECK(listed_as(7) > listed_as(8));
}

TEST_CASE("what is found is checked when all is known, and served then") {
  Options options;
  options.startup_check = StartupCheck::digests;
  Recovering bench(options);
  CHECK(bench.recovered(describe("a"), 5) == "");
  CHECK(bench.state_of("a") == ChunkState::checking);
  SUBCASE("as it is") {
    CHECK(bench.ends() == "clean up, verify 5");
    CHECK(bench.verified(5) == "list 5");
  }
  SUBCASE("wanted meanwhile") {
    CHECK(bench.want(describe("a")) == "");
    CHECK(bench.ends() == "clean up, verify 5");
    CHECK(bench.verified(5) == "list 5, describe 5");
  }
  SUBCASE("deleted and wanted again meanwhile") {
    bench.unwant("a");
    bench.want(describe("a"));
    CHECK(bench.recovered(describe("a"), 4) == "");
    CHECK(bench.ends() == "remove 5, remove 4, stage 51, clean up");
  }
}

TEST_CASE("a pass over what is held begins when all is known") {
  Recovering bench;
  bench.recovered(describe("a"), 5);
  CHECK(bench.verify({"a"}) == "");
  CHECK(bench.wake() == "asleep");
  CHECK(bench.ends() == "clean up, verify 5");
}

TEST_CASE("what waits until all is known goes on a few at a time") {
  Recovering bench;
  for (std::uint64_t number = 1; number <= 200; ++number) {
    bench.unwant(std::to_string(number));
    bench.recovered(describe(std::to_string(number)), number);
  }
  const auto count = [](const std::string& text) { return std::count(text.begin(), text.end(), ','); };
  CHECK(count(bench.ends()) == 64);  // and the clean-up
  CHECK(count(bench.wake()) == 63);
  CHECK(count(bench.wake()) == 63);
  CHECK(count(bench.wake()) == 7);
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("where the store cannot be read what was found is served, and nothing else is done") {
  Recovering bench;
  bench.recovered(describe("a"), 5);
  bench.want(describe("b"));
  CHECK(bench.ends(errc::io_error) == "");
  CHECK(bench.status().recovery_error == errc::io_error);
  CHECK(bench.status().recovery_subject == "path");
  CHECK_FALSE(bench.status().recovering);
  CHECK(bench.table.recovery_failed());
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.table.idle());
  CHECK(bench.want(describe("c")) == "");
  CHECK(bench.unwant("a") == "unlist 5");
  CHECK(bench.drained(5) == "");
  CHECK(bench.wake() == "asleep");
  CHECK(bench.close() == "");
  CHECK(bench.table.idle());
  bench.asked();
  REQUIRE(bench.events.size() == 3);
  CHECK(bench.events[1].kind == garner::EventKind::recovered);
  CHECK(bench.events[1].error == errc::io_error);
  CHECK(bench.events[1].subject == "path");
}

TEST_CASE("at the end what was found and deleted is marked as that, and nothing else is touched") {
  Recovering bench;
  bench.recovered(describe("a"), 5);
  bench.unwant("a");
  bench.unwant("b");
  bench.want(describe("c"));
  CHECK(bench.close() == "");
  CHECK_FALSE(bench.table.idle());
  CHECK(bench.recovered(describe("b"), 6) == "");
  CHECK(bench.recovered(describe("d"), 7) == "");
  CHECK(bench.ends(errc::cancelled) == "doom 6, doom 5");  // by id
  bench.doomed(5);
  bench.doomed(6);
  CHECK(bench.table.idle());
  CHECK_FALSE(bench.status().recovery_error);
}

TEST_CASE("what only a volume that is away may hold is fetched when all is known, and not when it is deleted") {
  Recovering bench;
  bench.two_volumes(VolumeState::away, 0);
  SUBCASE("nobody has said anything about it") {
    CHECK(bench.recovered(describe("a"), 1000) == "");
    CHECK(bench.ends() == "describe 1000, clean up");
    CHECK(bench.described(1000, describe("a")) == "stage 1001");
  }
  SUBCASE("deleted") {
    bench.unwant("a");
    CHECK(bench.recovered(describe("a"), 1000) == "");
    CHECK(bench.ends() == "clean up");
  }
}
