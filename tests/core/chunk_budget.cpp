// SPDX-License-Identifier: BSL-1.0
//
// The byte budget: what is reserved before the first byte moves, who waits, and when the wait is over.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "core/table_bench.hpp"

using garner::ChunkState;
using garner::DataChunk;
using garner::errc;
using garner::Options;
using garner::test::describe;
using garner::test::TableBench;
using namespace std::chrono_literals;

namespace {

/// A chunk of one file. On the bench every chunk that is published has 100 bytes.
DataChunk sized(const std::string& name, std::uint64_t bytes = 100, int version = 1) {
  DataChunk chunk = describe(name, version);
  chunk.files.at("f0").size = bytes;
  return chunk;
}

Options budget(std::uint64_t max_bytes) {
  Options options;
  options.max_bytes = max_bytes;
  return options;
}

}  // namespace

TEST_CASE("what does not fit waits, is told once, and begins when something was removed") {
  TableBench bench(budget(250));
  bench.make_ready(sized("a"));
  CHECK(bench.want(sized("b")) == "stage 2");
  CHECK(bench.status().bytes_reserved == 100);
  CHECK(bench.want(sized("c")) == "");
  CHECK(bench.state_of("c") == ChunkState::parked);
  CHECK(bench.status_of("c").last_error == errc::over_budget);
  CHECK(bench.want(sized("d")) == "");
  CHECK(bench.state_of("d") == ChunkState::queued);
  CHECK(bench.told() == "ready 1, failed 0");

  bench.unwant("a");
  bench.doomed(1);
  bench.drained(1);
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.removed(1) == "stage 3");
  CHECK(bench.state_of("c") == ChunkState::downloading);
}

TEST_CASE("a smaller chunk does not overtake a larger one that waits for room") {
  TableBench bench(budget(250));
  bench.make_ready(sized("a"));
  CHECK(bench.want(sized("large", 200)) == "");
  CHECK(bench.want(sized("small", 10)) == "");
  CHECK(bench.unwant("large") == "stage 2");
}

TEST_CASE("a chunk that is larger than the whole budget stands aside, and is tried again from time to time") {
  TableBench bench(budget(250));
  CHECK(bench.want(sized("huge", 300)) == "");
  CHECK(bench.state_of("huge") == ChunkState::parked);
  CHECK(bench.status_of("huge").next_try_in.value() <= 5min);
  CHECK(bench.want(sized("small", 10)) == "stage 1");
  CHECK(bench.set_options(budget(1000)) == "");
  CHECK(bench.wake() == "stage 2");
}

TEST_CASE("a reservation ends with its fetch, however that ends") {
  TableBench bench(budget(250));
  bench.want(sized("a"));
  SUBCASE("it was not wanted any more") {
    bench.staged(1);
    bench.unwant("a");
    bench.done(1, errc::cancelled);
    bench.discarded(1);
  }
  SUBCASE("the store could not stage it") {
    bench.staged(1, errc::io_error);
    bench.unwant("a");
  }
  SUBCASE("it was published, and counts for what it has") {
    bench.staged(1);
    bench.done(1);
    bench.published(1);
    CHECK(bench.want(sized("b", 150)) == "stage 2");
    return;
  }
  CHECK(bench.status().bytes_reserved == 0);
  CHECK(bench.want(sized("b", 250)) == "stage 2");
}

TEST_CASE("what waits between two rounds keeps its reservation, as it keeps its bytes") {
  TableBench bench(budget(250));
  bench.want(sized("a", 200));
  bench.staged(1);
  bench.done(1, errc::connection_failed);
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.status().bytes_reserved == 200);
  CHECK(bench.want(sized("b")) == "");
}

TEST_CASE("a size that only the server tells is reserved when it is told") {
  TableBench bench(budget(250));
  bench.want(describe("a", 1, 2));
  bench.staged(1);
  CHECK(bench.status().bytes_reserved == 0);
  SUBCASE("it fits") {
    CHECK(bench.sized(1, 150));
    CHECK(bench.sized(2, 100));
    CHECK(bench.status().bytes_reserved == 250);
    CHECK(bench.want(describe("b")) == "");
    CHECK(bench.state_of("b") == ChunkState::parked);
  }
  SUBCASE("it does not: what has come is thrown away, and it waits") {
    CHECK(bench.sized(1, 200));
    CHECK_FALSE(bench.sized(2, 200));
    CHECK(bench.status().bytes_reserved == 200);
    CHECK(bench.done(2, errc::over_budget) == "stop (1)");
    CHECK(bench.done(1, errc::cancelled) == "discard 1");
    bench.discarded(1);
    CHECK(bench.state_of("a") == ChunkState::parked);
    CHECK(bench.status_of("a").last_error == errc::over_budget);
    CHECK(bench.status().bytes_reserved == 0);
  }
}

TEST_CASE("a chunk that is to take the place of another has to fit beside it") {
  TableBench bench(budget(250));
  bench.make_ready(describe("a"));
  bench.want(describe("a", 2));
  bench.staged(2);
  CHECK_FALSE(bench.sized(2, 200));
  CHECK(bench.sized(2, 150));
}

TEST_CASE("sizes that overflow are over every budget") {
  TableBench bench(budget(UINT64_MAX - 1));
  bench.want(describe("a", 1, 2));
  bench.staged(1);
  CHECK(bench.sized(1, UINT64_MAX - 1));
  CHECK_FALSE(bench.sized(2, UINT64_MAX));
}

TEST_CASE("room that is to be kept free is measured, and what was staged by then is not counted twice") {
  Options options;
  options.keep_free_bytes = 1000;
  TableBench bench(options);
  CHECK(bench.want(sized("a")) == "");  // nobody has measured yet
  CHECK(bench.measured(1099, 0) == "");
  CHECK(bench.measured(1100, 0) == "stage 1");
  CHECK(bench.want(sized("b")) == "");
  CHECK(bench.measured(1140, 60) == "stage 2");
  bench.unwant("b");
}

TEST_CASE("who waits for room asks from time to time whether there is some") {
  Options options = budget(50);
  TableBench bench(options);
  bench.measured(0, 0);
  bench.want(sized("a", 50));
  bench.want(sized("b", 50));
  CHECK(bench.wake() == "clean up");
  CHECK(bench.now <= options.no_space_retry);
  CHECK(bench.cleaned_up() == "");
  CHECK(bench.wake() == "clean up");
}

TEST_CASE("a larger budget is room, and a smaller one removes nothing") {
  TableBench bench(budget(100));
  bench.make_ready(sized("a"));
  CHECK(bench.want(sized("b")) == "");
  CHECK(bench.set_options(budget(200)) == "stage 2");
  CHECK(bench.set_options(budget(10)) == "");
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2");
  CHECK(bench.status_of("a").served);
}
