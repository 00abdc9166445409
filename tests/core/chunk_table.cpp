// SPDX-License-Identifier: BSL-1.0
//
// The state machine, row by row of section 3 of the design, and failure by failure of section 7: inputs in, actions
// out. No thread, no clock, no disk.
#include "garner/core/chunk_table.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <ostream>
#include <string>
#include <vector>

#include "core/table_bench.hpp"

using garner::ChunkState;
using garner::DataChunk;
using garner::DatasetId;
using garner::errc;
using garner::ErrorClass;
using garner::Options;
using garner::test::describe;
using garner::test::TableBench;
namespace core = garner::core;
using namespace std::chrono_literals;

// ---- download_chunk

TEST_CASE("an unknown chunk that is asked for is staged, fetched, published and then listed") {
  TableBench bench;
  CHECK(bench.want(describe("a")) == "stage 1");
  CHECK(bench.state_of("a") == ChunkState::downloading);
  CHECK(bench.staged(1) == "start 1 f0@0 (1)");
  CHECK(bench.done(1) == "publish 1");
  CHECK(bench.state_of("a") == ChunkState::publishing);
  CHECK_FALSE(bench.status_of("a").served);
  CHECK(bench.published(1) == "list 1");
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.status_of("a").served);
  CHECK(bench.told() == "ready 1");
  CHECK(bench.table.settled());
  CHECK(bench.table.idle());
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("a wanted chunk that is asked for again with the same description: nothing, at each step") {
  TableBench bench({.max_concurrent_chunks = 1});
  bench.want(describe("a"));
  CHECK(bench.want(describe("a")) == "");
  bench.staged(1);
  CHECK(bench.want(describe("a")) == "");
  bench.done(1, errc::timed_out);
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.status_of("a").attempts == 1);
  bench.wake();
  bench.done(2);
  CHECK(bench.want(describe("a")) == "");
  bench.published(1);
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("a wanted chunk that is asked for with another description starts over with it, at each step") {
  TableBench bench;
  bench.want(describe("a", 1));
  SUBCASE("while it is staged") {
    CHECK(bench.want(describe("a", 2)) == "");
    CHECK(bench.staged(1) == "discard 1");
    CHECK(bench.discarded(1) == "stage 2");
  }
  SUBCASE("while its files move") {
    bench.staged(1);
    CHECK(bench.want(describe("a", 2)) == "stop (1)");
    CHECK(bench.done(1, errc::cancelled) == "discard 1");
    CHECK(bench.discarded(1) == "stage 2");
  }
  SUBCASE("while it waits to be tried again") {
    bench.staged(1);
    bench.done(1, errc::timed_out);
    CHECK(bench.want(describe("a", 2)) == "discard 1");
    CHECK(bench.discarded(1) == "stage 2");
    CHECK(bench.status_of("a").attempts == 0);
  }
  SUBCASE("while it is published: what comes of that is removed") {
    bench.staged(1);
    bench.done(1);
    CHECK(bench.want(describe("a", 2)) == "");
    CHECK(bench.published(1) == "remove 1, stage 2");
    CHECK(bench.removed(1) == "");
  }
  bench.staged(2);
  bench.done(bench.last_transfer);
  CHECK(bench.published(2) == "list 2");
  CHECK(bench.table.settled());
}

TEST_CASE("a chunk that is queued and asked for with another description is fetched with that one alone") {
  TableBench bench({.max_concurrent_chunks = 1});
  bench.want(describe("a"));
  CHECK(bench.want(describe("b", 1)) == "");
  CHECK(bench.state_of("b") == ChunkState::queued);
  CHECK(bench.want(describe("b", 2)) == "");
  bench.staged(1);
  bench.done(1);
  CHECK(bench.published(1) == "list 1, stage 2");
  bench.staged(2);
  bench.done(2);
  bench.published(2);
  CHECK(bench.want(describe("b", 2)) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("a ready chunk that is asked for again with the same description: nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  CHECK(bench.want(describe("a")) == "");
  SUBCASE("a size that it has changes nothing") {
    DataChunk sized = describe("a");
    sized.files["f0"].size = 100;
    CHECK(bench.want(sized) == "");
    CHECK(bench.state_of("a") == ChunkState::ready);
  }
  SUBCASE("a size that it does not have is another description") {
    DataChunk sized = describe("a");
    sized.files["f0"].size = 99;
    CHECK(bench.want(sized) == "stage 2");
  }
}

TEST_CASE(
    "a ready chunk that is asked for with another description serves until the new one is published, then drains") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  CHECK(bench.want(describe("a", 2)) == "stage 2");
  CHECK(bench.status_of("a").served);
  CHECK(bench.state_of("a") == ChunkState::downloading);
  bench.staged(2);
  bench.done(2);
  CHECK(bench.status_of("a").served);
  bench.told();
  CHECK(bench.published(2) == "unlist 1, list 2, doom 1");
  CHECK(bench.told() == "unlisted 1, ready 2");
  CHECK_FALSE(bench.table.settled());
  bench.doomed(1);
  CHECK(bench.table.settled());  // a pin keeps it, and that is all
  CHECK(bench.status().draining == 1);
  CHECK(bench.drained(1) == "remove 1");
  CHECK(bench.status().removing == 1);
  bench.removed(1);
  CHECK(bench.told() == "removed 1");
  CHECK(bench.table.settled());
  CHECK(bench.status().ready == 1);
}

TEST_CASE("A, then B, then A again while B is fetched: A was never gone, and B's bytes go") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.want(describe("a", 2));
  bench.staged(2);
  CHECK(bench.want(describe("a", 1)) == "stop (2)");
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.done(2) == "discard 2");  // it had come to its end meanwhile
  CHECK(bench.discarded(2) == "");
  CHECK(bench.table.settled());
  CHECK(bench.told() == "ready 1");
}

TEST_CASE("A, then B, then A again while A is still pinned: A is served again and no byte moves") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.make_ready(describe("a", 2));
  CHECK(bench.want(describe("a", 1)) == "unlist 2, list 1");
  CHECK(bench.doomed(1) == "spare 1");
  // Not before: with both marked, a power cut would leave none.
  CHECK(bench.spared(1) == "doom 2");
}

// ---- delete_chunk

TEST_CASE("deleting an unknown chunk: nothing") {
  TableBench bench;
  CHECK(bench.unwant("a") == "");
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.table.settled());
}

TEST_CASE("deleting a queued chunk: it is forgotten, and never fetched") {
  TableBench bench({.max_concurrent_chunks = 0});
  bench.want(describe("a"));
  CHECK(bench.unwant("a") == "");
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.set_options({}) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("deleting a chunk while it is staged: its staging is discarded as soon as it is there") {
  TableBench bench;
  bench.want(describe("a"));
  CHECK(bench.unwant("a") == "");
  CHECK(bench.state_of("a") == ChunkState::removing);
  CHECK(bench.staged(1) == "discard 1");
  CHECK(bench.discarded(1) == "");
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.table.settled());
}

TEST_CASE("deleting a chunk whose staging then fails: nothing is left, and no failure is told") {
  TableBench bench;
  bench.want(describe("a"));
  bench.unwant("a");
  CHECK(bench.staged(1, errc::io_error) == "clean up");
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.told() == "");
}

TEST_CASE("deleting a chunk while its files move: they are stopped, and then the staging is discarded") {
  TableBench bench;
  bench.want(describe("a", 1, 2));
  CHECK(bench.staged(1) == "start 1 f0@0 (1), start 1 f1@0 (2)");
  CHECK(bench.unwant("a") == "stop (1), stop (2)");
  CHECK(bench.done(1, errc::cancelled) == "");
  SUBCASE("the other one was cancelled") { CHECK(bench.done(2, errc::cancelled) == "discard 1"); }
  SUBCASE("the other one had completed") { CHECK(bench.done(2) == "discard 1"); }
  SUBCASE("the other one had failed") { CHECK(bench.done(2, errc::io_error) == "discard 1"); }
  bench.discarded(1);
  CHECK_FALSE(bench.knows("a"));
  CHECK(bench.told() == "");
  CHECK(bench.status().attempts_failed == 0);
}

TEST_CASE("deleting a chunk that waits to be tried again: its staging is discarded at once, and nothing wakes") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1, errc::timed_out);
  CHECK(bench.unwant("a") == "discard 1");
  CHECK(bench.discarded(1) == "");
  CHECK(bench.wake() == "asleep");
  CHECK(bench.want(describe("b")) == "stage 2");  // its place is free
}

TEST_CASE("deleting a chunk while it is published: it is never listed, and removed when that is done") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1);
  CHECK(bench.unwant("a") == "");
  CHECK(bench.published(1) == "remove 1");
  CHECK(bench.told() == "");
  bench.removed(1);
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("deleting a chunk whose publishing then fails: its staging is discarded") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1);
  bench.unwant("a");
  CHECK(bench.published(1, errc::sync_failed) == "discard 1, clean up");
  CHECK(bench.discarded(1) == "");
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("deleting a ready chunk: unlisted at once, doomed while it is pinned, removed once the last pin drops") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.told();
  CHECK(bench.unwant("a") == "unlist 1, doom 1");
  CHECK(bench.told() == "unlisted 1");
  CHECK(bench.state_of("a") == ChunkState::draining);
  CHECK(bench.doomed(1) == "");
  CHECK(bench.table.settled());
  CHECK(bench.drained(1) == "remove 1");
  CHECK(bench.state_of("a") == ChunkState::removing);
  CHECK(bench.removed(1) == "");
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("a removal waits for the mark that is under way, so that neither overtakes the other") {
  TableBench bench;
  bench.make_ready(describe("a"));
  CHECK(bench.unwant("a") == "unlist 1, doom 1");
  CHECK(bench.drained(1) == "");
  CHECK(bench.doomed(1) == "remove 1");
}

TEST_CASE("a mark is not made where the last pin has gone before that was begun") {
  TableBench bench;
  bench.make_ready(describe("a"));
  CHECK(bench.unwant("a") == "unlist 1, doom 1");
  SUBCASE("the chunk is removed at once") {
    bench.drained(1);
    CHECK(bench.about_to_doom(1) == "withdrawn: remove 1");
    CHECK(bench.removed(1) == "");
    CHECK_FALSE(bench.knows("a"));
  }
  SUBCASE("nor where it is served again") {
    CHECK(bench.want(describe("a")) == "list 1");
    CHECK(bench.about_to_doom(1) == "withdrawn: ");
    CHECK(bench.table.settled());
  }
  SUBCASE("where pins keep it the mark is made") {
    CHECK(bench.about_to_doom(1) == "");
    CHECK(bench.doomed(1) == "");
    CHECK(bench.table.settled());
  }
  SUBCASE("after a close, when nothing is removed, it is made") {
    bench.drained(1);
    bench.close();
    CHECK(bench.about_to_doom(1) == "");
    CHECK(bench.doomed(1) == "");
    CHECK(bench.table.idle());
  }
  SUBCASE("where the removal fails it is made at once, and that is tried again") {
    bench.drained(1);
    bench.about_to_doom(1);
    CHECK(bench.removed(1, errc::io_error) == "doom 1");
    CHECK(bench.about_to_doom(1) == "");
    CHECK(bench.doomed(1) == "remove 1");
    CHECK(bench.removed(1, errc::io_error) == "");
    CHECK(bench.wake() == "remove 1");
  }
  SUBCASE("where that fails too, the removal is tried again nevertheless") {
    bench.drained(1);
    bench.about_to_doom(1);
    bench.removed(1, errc::io_error);
    bench.about_to_doom(1);
    CHECK(bench.doomed(1, errc::no_space) == "");
    CHECK(bench.wake() == "remove 1");
    CHECK(bench.removed(1, errc::io_error) == "");
    CHECK(bench.wake() == "remove 1");
  }
}

TEST_CASE("a mark that may have been made by an earlier try is not taken for one that was not") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.about_to_doom(1);
  CHECK(bench.doomed(1, errc::sync_failed) == "");
  CHECK(bench.wake() == "doom 1");
  SUBCASE("it is taken back where the chunk is served again") {
    CHECK(bench.want(describe("a")) == "list 1");
    CHECK(bench.about_to_doom(1) == "");
    CHECK(bench.doomed(1) == "spare 1");
  }
  SUBCASE("it is made where the last pin goes, and the removal comes after it") {
    bench.drained(1);
    CHECK(bench.about_to_doom(1) == "");
    CHECK(bench.doomed(1) == "remove 1");
  }
}

TEST_CASE("a mark that may not have been taken back is not taken for one that was, whatever has succeeded since") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.about_to_doom(1);
  bench.doomed(1);
  CHECK(bench.want(describe("a")) == "list 1, spare 1");
  CHECK(bench.spared(1, errc::io_error) == "");
  CHECK(bench.verify({"a"}) == "verify 1");
  CHECK(bench.verified(1) == "");
  CHECK(bench.unwant("a") == "unlist 1");
  CHECK(bench.wake() == "doom 1");
  CHECK(bench.want(describe("a")) == "list 1");
  CHECK(bench.about_to_doom(1) == "");
  CHECK(bench.doomed(1) == "spare 1");
}

TEST_CASE("of very many deletions at once those that have to wait for their removal are marked before it") {
  TableBench bench;
  std::uint64_t removing = 0;
  for (std::uint64_t number = 1; number <= 2000; ++number) {
    const std::string name = "a" + std::to_string(number);
    bench.make_ready(describe(name));
    bench.unwant(name);
    bench.drained(number);
    const std::string next = bench.about_to_doom(number);
    if (next == "withdrawn: remove " + std::to_string(number)) ++removing;
  }
  CHECK(removing > 500);
  CHECK(removing < 1500);
  CHECK(bench.doomed(2000) == "remove 2000");
}

TEST_CASE("deleting a chunk that is draining or being removed: nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  CHECK(bench.unwant("a") == "");
  bench.doomed(1);
  CHECK(bench.unwant("a") == "");
  bench.drained(1);
  CHECK(bench.unwant("a") == "");
}

TEST_CASE("deleting a chunk that is replaced: the old one and the new one both go") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.want(describe("a", 2));
  bench.staged(2);
  CHECK(bench.unwant("a") == "unlist 1, stop (2), doom 1");
  CHECK(bench.done(2, errc::cancelled) == "discard 2");
  bench.discarded(2);
  bench.drained(1);
  CHECK(bench.doomed(1) == "remove 1");
  bench.removed(1);
  CHECK_FALSE(bench.knows("a"));
}

// ---- wanted again

TEST_CASE("a draining chunk that is asked for again with the same description is revived at once, and no byte moves") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.doomed(1);
  bench.told();
  CHECK(bench.want(describe("a")) == "list 1, spare 1");
  CHECK(bench.told() == "ready 1");
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK_FALSE(bench.table.settled());  // the mark would still make the next start forget it
  CHECK(bench.spared(1) == "");
  CHECK(bench.table.settled());
}

TEST_CASE("a chunk that is revived and deleted again while its mark is taken back is marked again") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.doomed(1);
  bench.want(describe("a"));
  CHECK(bench.unwant("a") == "unlist 1");
  CHECK(bench.spared(1) == "doom 1");
}

TEST_CASE("a report that a chunk is drained, which a revival overtook, means nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.want(describe("a"));
  CHECK(bench.drained(1) == "");
  CHECK(bench.doomed(1) == "spare 1");
  CHECK(bench.status_of("a").served);
}

TEST_CASE("a draining chunk that is asked for with another description is fetched anew beside the draining one") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.unwant("a");
  CHECK(bench.want(describe("a", 2)) == "stage 2");
  bench.doomed(1);
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2");
  CHECK(bench.drained(1) == "remove 1");
}

TEST_CASE("a draining chunk is fetched anew where revival is switched off") {
  TableBench bench({.revive = false});
  bench.make_ready(describe("a"));
  bench.unwant("a");
  CHECK(bench.want(describe("a")) == "stage 2");
  bench.doomed(1);
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2");
  CHECK(bench.drained(1) == "remove 1");
  CHECK(bench.want(describe("a")) == "");
}

TEST_CASE("a chunk that is being removed and asked for again is a new generation") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.doomed(1);
  bench.drained(1);
  CHECK(bench.want(describe("a")) == "stage 2");
  CHECK(bench.removed(1) == "");
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2");
}

TEST_CASE("a chunk whose removal has failed is never served again: it may be half gone") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.doomed(1);
  bench.drained(1);
  CHECK(bench.removed(1, errc::io_error) == "");
  CHECK(bench.want(describe("a")) == "stage 2");
  CHECK(bench.wake() == "remove 1");
  CHECK(bench.removed(1) == "");
}

TEST_CASE("a chunk that is asked for again while its fetch is stopped is fetched anew, after it") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.unwant("a");
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.state_of("a") == ChunkState::queued);
  CHECK(bench.done(1, errc::cancelled) == "discard 1");
  CHECK(bench.discarded(1) == "stage 2");
}

TEST_CASE("a chunk that is deleted in publish and asked for again is served from what was published") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1);
  bench.unwant("a");
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.published(1) == "list 1");
  CHECK(bench.table.settled());
}

TEST_CASE("a change of mind a thousand times costs one transfer at most") {
  TableBench bench;
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    all += bench.want(describe("a"));
    all += bench.unwant("a");
  }
  CHECK(all == "stage 1");
}

// ---- recovery

TEST_CASE("what the store held is wanted and listed at once, and no file of it is opened") {
  TableBench bench;
  CHECK(bench.recovered(describe("a"), 5) == "list 5");
  bench.table.recovery_done({{}, {}, 9, false}, {});
  CHECK(bench.state_of("a") == ChunkState::ready);
  CHECK(bench.asked() == "clean up");
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.cleaned_up() == "");
  CHECK(bench.table.settled());
  CHECK(bench.told() == "ready 5");
  CHECK(bench.want(describe("b")) == "stage 10");  // above all that was in use
}

TEST_CASE("a recovered chunk that is asked for is described first, and no byte moves where that is it") {
  TableBench bench;
  bench.recovered(describe("a"), 5);
  CHECK(bench.want(describe("a")) == "describe 5");
  CHECK(bench.status_of("a").served);
  SUBCASE("it is what is wanted") {
    CHECK(bench.described(5, describe("a")) == "");
    CHECK(bench.state_of("a") == ChunkState::ready);
    CHECK(bench.table.settled());
  }
  SUBCASE("it is, and its size is known by now") {
    DataChunk found = describe("a");
    found.files["f0"].size = 100;
    CHECK(bench.described(5, found) == "");
    CHECK(bench.table.settled());
  }
  SUBCASE("it is another") {
    CHECK(bench.described(5, describe("a", 2)) == "stage 6");
    bench.staged(6);
    bench.done(1);
    CHECK(bench.published(6) == "unlist 5, list 6, doom 5");
  }
  SUBCASE("it cannot be told what it is") { CHECK(bench.described(5, std::nullopt) == "stage 6"); }
  SUBCASE("the store is short of something for a moment") {
    CHECK(bench.described(5, std::nullopt, errc::too_many_open_files) == "");
    CHECK_FALSE(bench.table.settled());
    CHECK(bench.wake() == "describe 5");
    CHECK(bench.described(5, describe("a")) == "");
    CHECK(bench.table.settled());
  }
  SUBCASE("the store does not tell for long") {
    for (int i = 0; i < 3; ++i) {
      CHECK(bench.described(5, std::nullopt, errc::io_error) == "");
      CHECK(bench.wake() == "describe 5");
    }
    CHECK(bench.described(5, std::nullopt, errc::io_error) == "stage 6");
  }
  SUBCASE("it is what is wanted, and the manager is closed meanwhile") {
    bench.unwant("a");
    bench.want(describe("a"));
    bench.close();
    CHECK(bench.described(5, describe("a")) == "list 5");  // no mark, or the next start would not find it
  }
}

TEST_CASE("what is fetched for an earlier wish stops while the next one is compared with what is there") {
  TableBench bench;
  bench.recovered(describe("a"), 5);
  DataChunk moved = describe("a");
  moved.block_range = {10, 20};
  CHECK(bench.want(moved) == "stage 6");
  CHECK(bench.staged(6) == "start 6 f0@0 (1)");
  CHECK(bench.want(describe("a")) == "describe 5, stop (1)");
}

TEST_CASE("a recovered chunk that is deleted and asked for while it is described is revived") {
  TableBench bench;
  bench.recovered(describe("a"), 5);
  CHECK(bench.unwant("a") == "unlist 5, doom 5");
  CHECK(bench.want(describe("a")) == "");
  CHECK(bench.doomed(5) == "describe 5");
  CHECK(bench.described(5, describe("a")) == "list 5, spare 5");
}

TEST_CASE("a recovered chunk of another range or dataset needs no description to be told apart") {
  TableBench bench;
  bench.recovered(describe("a"), 5);
  DataChunk moved = describe("a");
  SUBCASE("range") { moved.block_range.end = 11; }
  SUBCASE("dataset") { moved.dataset_id = DatasetId::from_name("other"); }
  CHECK(bench.want(moved) == "stage 6");
}

TEST_CASE("of two recovered generations of one chunk the newer is served, and the older removed") {
  TableBench bench;
  SUBCASE("the older is found first") {
    CHECK(bench.recovered(describe("a"), 5) == "list 5");
    CHECK(bench.recovered(describe("a"), 6) == "unlist 5, list 6, doom 5");
    CHECK(bench.doomed(5) == "");
    CHECK(bench.drained(5) == "remove 5");
  }
  SUBCASE("the newer is found first") {
    CHECK(bench.recovered(describe("a"), 6) == "list 6");
    CHECK(bench.recovered(describe("a"), 5) == "remove 5");
  }
  CHECK_FALSE(bench.table.settled());
  bench.removed(5);
  CHECK(bench.table.settled());
  CHECK(bench.status_of("a").served);
}

TEST_CASE("two recovered generations that share a number, which a hand has put there, are told apart") {
  TableBench bench;
  garner::Generation first{describe("a").id, describe("a").dataset_id, {0, 10}, 100, 0};
  garner::Generation second = first;
  second.block_range = {10, 20};
  bench.table.recovered(first);
  bench.table.recovered(second);
  CHECK(bench.asked() == "list 0, unlist 0, list 0, doom 0");
  bench.table.doomed(first, {}, bench.now);
  bench.table.drained(first, bench.now);
  CHECK(bench.asked() == "remove 0");
  bench.table.removed(first, {}, bench.now);
  CHECK(bench.status_of("a").served);
  CHECK(bench.table.settled());
}

// ---- what is left over

TEST_CASE("what an earlier run left is cleaned up at the start, and tried again until that succeeds") {
  TableBench bench;
  bench.table.recovery_done({}, {});
  CHECK(bench.asked() == "clean up");
  CHECK(bench.cleaned_up(errc::io_error) == "");
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.wake() == "clean up");
  CHECK(bench.cleaned_up() == "");
  CHECK(bench.table.settled());
  CHECK(bench.table.idle());
  CHECK(bench.wake() == "asleep");
}

TEST_CASE("a staging area that could not be discarded is cleaned up, and its chunk goes on meanwhile") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1, errc::io_error);
  CHECK(bench.discarded(1, errc::io_error) == "clean up");
  CHECK(bench.wake() == "stage 2");
  CHECK(bench.cleaned_up() == "");
}

TEST_CASE("a store that is too full to open or to publish is not asked again at once because it was cleaned up") {
  TableBench bench;
  bench.want(describe("a"));
  SUBCASE("open") { CHECK(bench.staged(1, errc::no_space) == "clean up"); }
  SUBCASE("publish") {
    bench.staged(1);
    bench.done(1);
    CHECK(bench.published(1, errc::no_space) == "discard 1, clean up");
    CHECK(bench.discarded(1) == "");
  }
  CHECK(bench.cleaned_up() == "");
  CHECK(bench.state_of("a") == ChunkState::parked);
  CHECK(bench.table.next_wake().value() >= 15s);
  CHECK(bench.wake() == "stage 2");
}

TEST_CASE("after close nothing is cleaned up any more") {
  TableBench bench;
  bench.table.recovery_done({}, {});
  bench.asked();
  bench.close();
  CHECK_FALSE(bench.table.idle());
  CHECK(bench.cleaned_up(errc::io_error) == "");
  CHECK(bench.table.idle());
}

// ---- failure

TEST_CASE("a failure goes to the next mirror at once, and backs off after the last one") {
  TableBench bench;
  bench.want(describe("a", 1, 1, 3));
  CHECK(bench.staged(1) == "start 1 f0@0 (1)");
  CHECK(bench.done(1, errc::connection_failed) == "start 1 f0@1 (2)");
  CHECK(bench.done(2, errc::digest_mismatch) == "start 1 f0@2 (3)");
  CHECK(bench.told() == "");
  CHECK(bench.done(3, errc::server_unavailable) == "");
  CHECK(bench.told() == "failed 1");
  const auto status = bench.status_of("a");
  CHECK(status.state == ChunkState::waiting);
  CHECK(status.attempts == 1);
  CHECK(status.last_error == errc::server_unavailable);
  CHECK(status.last_error_class == ErrorClass::transient);
  CHECK(status.last_error_subject == "subject");
  REQUIRE(status.next_try_in);
  CHECK(*status.next_try_in < 100ms);
  CHECK(bench.wake() == "start 1 f0@0 (4)");  // the same generation: what it has is kept
}

TEST_CASE("a transient failure backs off for longer each time, within the limits, and for ever") {
  Options options;
  options.min_backoff = 100ms;
  options.max_backoff = 5s;
  TableBench bench(options);
  bench.want(describe("a"));
  bench.staged(1);
  for (int attempt = 0; attempt < 60; ++attempt) {
    bench.done(bench.last_transfer, errc::timed_out);
    const auto wait = bench.status_of("a").next_try_in.value();
    CHECK(wait < (attempt < 6 ? 100ms * (1 << attempt) : 5s));
    CHECK(bench.wake() != "asleep");
  }
  CHECK(bench.status_of("a").attempts == 60);
  CHECK(bench.status().attempts_failed == 60);
}

TEST_CASE("backoff starts anew where a file came through") {
  Options options;
  options.min_backoff = 100ms;
  TableBench bench(options);
  bench.want(describe("a", 1, 2));
  bench.staged(1);
  bench.done(1, errc::timed_out);
  bench.done(2, errc::timed_out);
  // Its server is asked for one file at a time by then.
  core::TransferId last = 2;
  const auto next = [&] {
    while (bench.last_transfer == last) REQUIRE(bench.wake() != "asleep");
    return ++last;
  };
  while (bench.status_of("a").attempts < 12) bench.done(next(), errc::timed_out);
  const core::TransferId through = next();
  CHECK(bench.done(through) == "start 1 f1@0 (" + std::to_string(through + 1) + ")");
  bench.done(++last, errc::timed_out);
  CHECK(bench.status_of("a").next_try_in.value() < 100ms);
  CHECK(bench.done(next()) == "publish 1");
}

TEST_CASE("what is gone, or needs other credentials, is tried again at the slowest pace") {
  for (const errc error : {errc::not_found, errc::credentials_rejected, errc::unexpected_status, errc::invalid_url}) {
    Options options;
    options.max_backoff = 5min;
    TableBench bench(options);
    bench.want(describe("a"));
    bench.staged(1);
    CHECK(bench.done(1, error) == "");
    CHECK(bench.state_of("a") == ChunkState::waiting);
    CHECK(bench.status_of("a").next_try_in.value() >= 150s);
    CHECK(bench.status_of("a").next_try_in.value() < 5min);
    CHECK(bench.wake() == "start 1 f0@0 (2)");
  }
}

TEST_CASE("Retry-After is honoured, and clamped at both ends") {
  Options options;
  options.min_backoff = 1ms;
  options.max_backoff = 60s;
  const auto wait_after = [&options](std::chrono::nanoseconds retry_after) {
    TableBench bench(options);
    bench.want(describe("a"));
    bench.staged(1);
    bench.done(1, errc::server_unavailable, retry_after);
    return bench.status_of("a").next_try_in.value();
  };
  CHECK(wait_after(10s) >= 10s);
  CHECK(wait_after(10s) < 10s + 1ms);
  CHECK(wait_after(std::chrono::hours(100000)) >= 60s);
  CHECK(wait_after(std::chrono::hours(100000)) < 60s + 1ms);
  CHECK(wait_after(std::chrono::nanoseconds::max()) < 60s + 1ms);
  CHECK(wait_after(-10s) < 1ms);
  CHECK(wait_after(std::chrono::nanoseconds::min()) < 1ms);
}

TEST_CASE("options that make no sense do no harm") {
  Options options;
  options.max_backoff = -1s;
  TableBench bench(options);
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1, errc::server_unavailable, 10s);
  CHECK(bench.wake() == "start 1 f0@0 (2)");
}

TEST_CASE("a store that cannot open a staging area: backoff, and a new generation") {
  TableBench bench;
  bench.want(describe("a"));
  CHECK(bench.staged(1, errc::too_many_open_files) == "clean up");
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.told() == "failed 1");
  CHECK(bench.wake() == "stage 2");
}

TEST_CASE("a local failure discards the staging, and fetches into new files") {
  TableBench bench;
  bench.want(describe("a", 1, 2, 2));
  bench.staged(1);
  SUBCASE("while its files move: the others are stopped") {
    CHECK(bench.done(1, errc::io_error) == "stop (2)");
    CHECK(bench.done(2, errc::cancelled) == "discard 1");
    CHECK(bench.status_of("a").last_error == errc::io_error);
  }
  SUBCASE("while its files move, and another fails because of it: the store's word counts") {
    CHECK(bench.done(1, errc::io_error) == "stop (2)");
    CHECK(bench.done(2, errc::connection_failed) == "discard 1");
    CHECK(bench.status_of("a").last_error == errc::io_error);
  }
  SUBCASE("at the end of a file") {
    bench.done(1);
    CHECK(bench.done(2, errc::sync_failed) == "discard 1");
  }
  SUBCASE("in publish") {
    bench.done(1);
    CHECK(bench.done(2) == "publish 1");
    CHECK(bench.published(1, errc::sync_failed) == "discard 1, clean up");
    CHECK(bench.status_of("a").last_error == errc::sync_failed);
  }
  CHECK(bench.told() == "failed 1");
  CHECK(bench.status_of("a").last_error_class == ErrorClass::local);
  CHECK(bench.wake() == "");  // not before the old staging is gone
  CHECK(bench.discarded(1) == "stage 2");
}

TEST_CASE("a full store parks downloads, starts nothing, and frees nothing that is wanted") {
  Options options;
  options.no_space_retry = 30s;
  options.max_concurrent_chunks = 2;
  TableBench bench(options);
  bench.make_ready(describe("kept"));
  bench.want(describe("a"));
  bench.staged(2);
  CHECK(bench.done(2, errc::no_space) == "discard 2");
  CHECK(bench.state_of("a") == ChunkState::parked);
  CHECK(bench.status().parked == 1);
  CHECK(bench.status_of("a").last_error_class == ErrorClass::no_space);
  CHECK(bench.discarded(2) == "");
  CHECK(bench.want(describe("b")) == "");
  CHECK(bench.state_of("b") == ChunkState::queued);
  SUBCASE("tried again from time to time") {
    const auto at = bench.table.next_wake().value();
    CHECK(at >= bench.now + 15s);
    CHECK(at < bench.now + 30s);
    CHECK(bench.wake() == "stage 3, stage 4");
    CHECK(bench.state_of("a") == ChunkState::downloading);
  }
  SUBCASE("tried again when something was removed") {
    bench.unwant("kept");
    bench.drained(1);
    CHECK(bench.doomed(1) == "remove 1");
    CHECK(bench.removed(1) == "stage 3, stage 4");
  }
  SUBCASE("a removal that failed makes no room") {
    bench.unwant("kept");
    bench.drained(1);
    bench.doomed(1);
    CHECK(bench.removed(1, errc::io_error) == "");
  }
  SUBCASE("deleted while it is parked") {
    CHECK(bench.unwant("a") == "");
    CHECK_FALSE(bench.knows("a"));
    CHECK(bench.wake() == "stage 3");
  }
  SUBCASE("asked for with another description while it is parked") {
    CHECK(bench.want(describe("a", 2)) == "");
    CHECK(bench.state_of("a") == ChunkState::queued);
    CHECK(bench.wake() == "stage 3, stage 4");
  }
}

TEST_CASE("a full store that another failure follows still parks") {
  TableBench bench;
  bench.want(describe("a", 1, 2));
  bench.staged(1);
  CHECK(bench.done(1, errc::no_space) == "stop (2)");
  bench.done(2, errc::connection_failed);
  CHECK(bench.state_of("a") == ChunkState::parked);
}

TEST_CASE("files of other chunks that wait for their turn are held back too while the store is full") {
  Options options;
  options.max_concurrent_files = 1;
  TableBench bench(options);
  bench.want(describe("a"));
  bench.want(describe("b"));
  bench.staged(1);
  CHECK(bench.staged(2) == "");
  CHECK(bench.done(1, errc::no_space) == "discard 1");
  CHECK(bench.discarded(1) == "");
  CHECK(bench.wake().find("start 2 f0@0") != std::string::npos);
}

TEST_CASE("a cancellation that nobody asked for is a failure like any other") {
  TableBench bench;
  bench.want(describe("a"));
  bench.staged(1);
  CHECK(bench.done(1, errc::cancelled) == "");
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.wake() == "start 1 f0@0 (2)");
}

TEST_CASE("a mark that failed may be there all the same: a chunk that is served again is spared") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  CHECK(bench.doomed(1, errc::sync_failed) == "");
  CHECK(bench.want(describe("a")) == "list 1");  // not before the store has had its rest
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.wake() == "spare 1");
  CHECK(bench.spared(1) == "");
  CHECK(bench.table.settled());
  SUBCASE("also while it is verified") {
    bench.unwant("a");
    bench.doomed(1);
    bench.want(describe("a"));
    bench.spared(1, errc::sync_failed);
    CHECK(bench.verify({"a"}) == "verify 1");
    CHECK_FALSE(bench.table.settled());
  }
  SUBCASE("and a spare that failed is no mark either") {
    bench.unwant("a");
    bench.doomed(1);
    bench.want(describe("a"));
    CHECK(bench.spared(1, errc::sync_failed) == "");
    bench.unwant("a");
    CHECK(bench.wake() == "doom 1");
  }
}

TEST_CASE("a mark, or its end, or a removal that fails is tried again until it succeeds") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.told();
  CHECK(bench.doomed(1, errc::io_error) == "");
  CHECK(bench.told() == "failed 1");
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.wake() == "doom 1");
  bench.doomed(1);
  CHECK(bench.want(describe("a")) == "list 1, spare 1");
  CHECK(bench.spared(1, errc::io_error) == "");
  CHECK_FALSE(bench.table.settled());
  CHECK(bench.wake() == "spare 1");
  bench.spared(1);
  CHECK(bench.table.settled());
  bench.unwant("a");
  bench.doomed(1);
  bench.drained(1);
  CHECK(bench.removed(1, errc::io_error) == "");
  CHECK(bench.wake() == "remove 1");
  CHECK(bench.removed(1) == "");
  CHECK_FALSE(bench.knows("a"));
}

TEST_CASE("a mark that failed is not waited for once the last pin is dropped") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.unwant("a");
  bench.doomed(1, errc::io_error);
  CHECK(bench.drained(1) == "remove 1");
}

// ---- limits and order

TEST_CASE("no more chunks and no more files are fetched at once than the limits say") {
  Options options;
  options.max_concurrent_chunks = 2;
  options.max_concurrent_files = 3;
  TableBench bench(options);
  CHECK(bench.want(describe("a", 1, 2)) == "stage 1");
  CHECK(bench.want(describe("b", 1, 2)) == "stage 2");
  CHECK(bench.want(describe("c", 1, 2)) == "");
  CHECK(bench.staged(2) == "start 2 f0@0 (1), start 2 f1@0 (2)");
  CHECK(bench.staged(1) == "start 1 f0@0 (3)");
  CHECK(bench.done(1) == "start 1 f1@0 (4)");
  CHECK(bench.done(2) == "publish 2");
  CHECK(bench.published(2) == "list 2, stage 3");
  CHECK(bench.staged(3) == "start 3 f0@0 (5)");
  SUBCASE("a limit that rises is used at once") {
    options.max_concurrent_files = 4;
    options.max_concurrent_chunks = 3;
    CHECK(bench.set_options(options) == "start 3 f1@0 (6)");
    CHECK(bench.want(describe("d")) == "stage 4");
  }
  SUBCASE("a limit that falls stops nothing, and starts nothing until it is met") {
    options.max_concurrent_files = 1;
    CHECK(bench.set_options(options) == "");
    CHECK(bench.done(3) == "");
    CHECK(bench.done(4) == "publish 1");
    CHECK(bench.done(5) == "start 3 f1@0 (6)");
  }
}

TEST_CASE("a chunk that waits to be tried again leaves its place to others") {
  Options options;
  options.max_concurrent_chunks = 1;
  TableBench bench(options);
  bench.want(describe("a"));
  bench.want(describe("b"));
  bench.staged(1);
  CHECK(bench.done(1, errc::timed_out) == "stage 2");
  CHECK(bench.wake() == "");
  CHECK(bench.state_of("a") == ChunkState::queued);
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2, start 1 f0@0 (3)");
}

TEST_CASE("the dataset with the fewest missing chunks goes first") {
  TableBench bench({.max_concurrent_chunks = 0});
  bench.want(describe("a1"));
  bench.want(describe("a2"));
  DataChunk other = describe("b1");
  other.dataset_id = DatasetId::from_name("other");
  bench.want(other);
  Options options;
  options.max_concurrent_chunks = 1;
  CHECK(bench.set_options(options) == "stage 1");
  CHECK(bench.state_of("b1") == ChunkState::downloading);
}

// ---- assignment

TEST_CASE("an assignment is what is wanted, and nothing else, in one step") {
  TableBench bench;
  bench.make_ready(describe("kept"));
  bench.make_ready(describe("dropped"));
  bench.want(describe("stopped"));
  bench.staged(3);
  CHECK(bench.table.epoch() == 0);
  const std::string all = bench.assign({describe("kept"), describe("new")});
  CHECK(bench.table.epoch() == 1);
  CHECK(all.find("unlist 2") != std::string::npos);
  CHECK(all.find("stop (3)") != std::string::npos);
  CHECK(all.find("stage 4") != std::string::npos);
  CHECK(all.find("list 1") == std::string::npos);
  CHECK_FALSE(bench.status_of("dropped").wanted);
  CHECK(bench.status_of("new").wanted);
  CHECK(bench.status().assigned_epoch == 1);
}

TEST_CASE("an assignment that says the same again costs nothing but its number") {
  TableBench bench;
  bench.make_ready(describe("a"));
  CHECK(bench.assign({describe("a")}) == "");
  CHECK(bench.assign({describe("a")}) == "");
  CHECK(bench.table.epoch() == 2);
}

TEST_CASE("an empty assignment drops all, and one that names a chunk twice means the last") {
  TableBench bench;
  bench.assign({describe("a", 1), describe("a", 2)});
  bench.staged(1);
  CHECK(bench.want(describe("a", 2)) == "");
  bench.assign({});
  CHECK_FALSE(bench.status_of("a").wanted);
}

// ---- verify

TEST_CASE("what is held is verified one after another, and again where it is asked for again") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  const std::string first = bench.verify({"a", "b", "unknown"});
  const std::uint64_t one = first == "verify 1" ? 1 : 2;
  CHECK(first == "verify " + std::to_string(one));
  CHECK(bench.table.settled());
  CHECK(bench.verified(one) == "verify " + std::to_string(3 - one));
  CHECK(bench.verified(3 - one) == "");
  CHECK(bench.verify({"a"}) == "verify 1");
}

TEST_CASE("a scrub that is asked for a thousand times waits in line once") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  std::string next = bench.verify({"a", "b"});
  for (int i = 0; i < 1000; ++i) CHECK(bench.verify({"a", "b"}) == "");
  int verified = 0;
  for (; !next.empty() && verified < 10; ++verified) next = bench.verified(next == "verify 1" ? 1 : 2);
  CHECK(verified == 3);  // the one that was under way, and each once more
  CHECK(bench.table.idle());
}

TEST_CASE("a corrupt chunk is not served any more, is told, and is fetched anew from its description") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  bench.told();
  CHECK(bench.verified(1, errc::corrupt_chunk, describe("a")) == "unlist 1, doom 1, stage 2");
  CHECK(bench.told() == "failed 1, unlisted 1, scrubbed 0");
  CHECK(bench.status_of("a").wanted);
  CHECK_FALSE(bench.status_of("a").served);
  bench.drained(1);
  CHECK(bench.doomed(1) == "quarantine 1");
  CHECK(bench.removed(1) == "");
  CHECK(bench.status().chunks_quarantined == 1);
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "list 2");
}

TEST_CASE("a pinned copy that nobody has re-read does not take the place of a corrupt one") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.make_ready(describe("a", 2));
  bench.doomed(1);
  Options options;
  options.revive = false;
  bench.set_options(options);
  bench.make_ready(describe("a"));
  bench.set_options(Options());
  bench.verify({"a"});
  CHECK(bench.verified(3, errc::corrupt_chunk, describe("a")).find("list 1") == std::string::npos);
  CHECK(bench.last_generation == 4);
}

TEST_CASE("a chunk that somebody has taken away from the store is not served on") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  CHECK(bench.verified(1, errc::no_such_generation) == "unlist 1, doom 1");
  CHECK_FALSE(bench.status_of("a").served);
}

TEST_CASE("a corrupt chunk is not wanted any more where its description cannot be trusted") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  std::optional<DataChunk> chunk = describe("a");
  SUBCASE("there is none") { chunk.reset(); }
  SUBCASE("it is of another chunk") { chunk->id = garner::ChunkId::from_name("b"); }
  SUBCASE("it has a file without a URL") { chunk->files["f0"].urls.clear(); }
  SUBCASE("it has no files") { chunk->files.clear(); }
  SUBCASE("it has a file outside of the directory") { chunk->files["../x"] = "mem://x"; }
  CHECK(bench.verified(1, errc::corrupt_chunk, chunk) == "unlist 1, doom 1");
  CHECK_FALSE(bench.status_of("a").wanted);
  CHECK(bench.want(describe("a")) == "stage 2");
}

TEST_CASE("a copy that is found corrupt when another has taken its place costs that one nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  bench.want(describe("a", 2));
  bench.staged(2);
  bench.done(2);
  CHECK(bench.published(2) == "unlist 1, list 2");
  CHECK(bench.verified(1, errc::corrupt_chunk) == "doom 1");
  CHECK(bench.status_of("a").wanted);
  CHECK(bench.status_of("a").served);
}

TEST_CASE("a corrupt chunk that is deleted meanwhile is removed, and one that is replaced is not fetched twice") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.verify({"a"});
  SUBCASE("deleted") {
    CHECK(bench.unwant("a") == "unlist 1");
    CHECK(bench.verified(1, errc::corrupt_chunk, describe("a", 1)) == "doom 1");
    CHECK_FALSE(bench.status_of("a").wanted);
  }
  SUBCASE("replaced") {
    bench.want(describe("a", 2));
    CHECK(bench.verified(1, errc::corrupt_chunk, describe("a", 1)) == "unlist 1, doom 1");
    CHECK(bench.state_of("a") == ChunkState::downloading);
  }
  SUBCASE("revived: it is not taken back") {
    bench.verified(1, errc::corrupt_chunk, describe("a", 1));
    bench.unwant("a");
    bench.staged(2);
    bench.discarded(2);
    CHECK(bench.want(describe("a", 1)) == "stage 3");
  }
}

TEST_CASE("a chunk that could not be read for another reason is told and still served") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.verify({"a"});
  bench.told();
  CHECK(bench.verified(1, errc::io_error) == "");
  CHECK(bench.told() == "failed 1, scrubbed 0");
  CHECK(bench.status_of("a").served);
  CHECK(bench.table.settled());
}

// ---- close

TEST_CASE("close stops what moves, keeps its staging, and starts nothing") {
  TableBench bench;
  SUBCASE("queued") {
    Options options;
    options.max_concurrent_chunks = 0;
    bench.set_options(options);
    bench.want(describe("a"));
    CHECK(bench.close() == "");
  }
  SUBCASE("while it is staged") {
    bench.want(describe("a"));
    CHECK(bench.close() == "");
    CHECK(bench.staged(1) == "");
  }
  SUBCASE("while staging fails") {
    bench.want(describe("a"));
    bench.close();
    CHECK(bench.staged(1, errc::io_error) == "");
  }
  SUBCASE("while its files move") {
    bench.want(describe("a", 1, 2));
    bench.staged(1);
    CHECK(bench.close() == "stop (1), stop (2)");
    CHECK(bench.done(1, errc::cancelled) == "");
    SUBCASE("the other was cancelled") { CHECK(bench.done(2, errc::cancelled) == ""); }
    SUBCASE("the other was complete") { CHECK(bench.done(2) == ""); }
  }
  SUBCASE("while its last file moves, which completes: it is not published") {
    bench.want(describe("a"));
    bench.staged(1);
    CHECK(bench.close() == "stop (1)");
    CHECK(bench.done(1) == "");
  }
  SUBCASE("while it waits to be tried again") {
    bench.want(describe("a"));
    bench.staged(1);
    bench.done(1, errc::timed_out);
    CHECK(bench.close() == "");
  }
  SUBCASE("in publish: it is still served") {
    bench.want(describe("a"));
    bench.staged(1);
    bench.done(1);
    CHECK(bench.close() == "");
    CHECK(bench.published(1) == "list 1");
  }
  SUBCASE("in publish, which fails") {
    bench.want(describe("a"));
    bench.staged(1);
    bench.done(1);
    bench.close();
    CHECK(bench.published(1, errc::io_error) == "");
  }
  SUBCASE("while it is discarded") {
    bench.want(describe("a"));
    bench.unwant("a");
    bench.staged(1);
    CHECK(bench.close() == "");
    CHECK(bench.discarded(1) == "");
  }
  CHECK(bench.table.idle());
  CHECK(bench.table.closed());
}

TEST_CASE("close makes deletions that pins hold up outlive the process, and removes nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  SUBCASE("marked already") {
    bench.unwant("a");
    bench.doomed(1);
    CHECK(bench.close() == "");
    CHECK(bench.drained(1) == "");
  }
  SUBCASE("while it is marked") {
    bench.unwant("a");
    CHECK(bench.close() == "");
    CHECK(bench.doomed(1) == "");
  }
  SUBCASE("while it is taken back and deleted again") {
    bench.unwant("a");
    bench.doomed(1);
    bench.want(describe("a"));
    bench.unwant("a");
    bench.close();
    CHECK(bench.spared(1) == "doom 1");
    CHECK(bench.doomed(1) == "");
  }
  SUBCASE("a mark that failed gets one more chance, and no more") {
    bench.unwant("a");
    bench.doomed(1, errc::io_error);
    CHECK(bench.close() == "doom 1");
    CHECK(bench.doomed(1, errc::io_error) == "");
    CHECK(bench.drained(1) == "");
  }
  SUBCASE("a removal that fails after it is replaced by the mark") {
    bench.unwant("a");
    bench.drained(1);
    bench.doomed(1, errc::io_error);
    bench.wake();
    CHECK(bench.close() == "");
    CHECK(bench.removed(1, errc::io_error) == "doom 1");
    CHECK(bench.doomed(1) == "");
  }
  SUBCASE("deleted in publish") {
    bench.want(describe("b"));
    bench.staged(2);
    bench.done(2);
    bench.unwant("b");
    bench.close();
    CHECK(bench.published(2) == "doom 2");
    CHECK(bench.doomed(2) == "");
  }
  CHECK(bench.table.idle());
}

TEST_CASE("calls after close do nothing") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.want(describe("b"));
  bench.staged(2);
  bench.close();
  bench.done(2, errc::cancelled);
  CHECK(bench.close() == "");
  CHECK(bench.want(describe("c")) == "");
  CHECK(bench.unwant("a") == "");
  CHECK(bench.assign({}) == "");
  CHECK(bench.verify({"a"}) == "");
  CHECK(bench.set_options({}) == "");
  CHECK(bench.table.epoch() == 0);
  CHECK(bench.status_of("a").served);
  CHECK_FALSE(bench.knows("c"));
  CHECK(bench.table.idle());
}

TEST_CASE("a scrub that close interrupts reports once more and goes no further") {
  TableBench bench;
  bench.make_ready(describe("a"));
  bench.make_ready(describe("b"));
  const std::string first = bench.verify({"a", "b"});
  CHECK(bench.close() == "");
  CHECK(bench.verified(first == "verify 1" ? 1 : 2) == "");
  CHECK(bench.table.idle());
}

// ---- telling

TEST_CASE("the status counts each wanted chunk once, and each unwanted generation once") {
  Options options;
  options.max_concurrent_chunks = 1;
  TableBench bench(options);
  bench.make_ready(describe("ready"));
  bench.make_ready(describe("draining"));
  bench.unwant("draining");
  bench.doomed(2);
  bench.make_ready(describe("removing"));
  bench.unwant("removing");
  bench.doomed(3);
  bench.drained(3);
  bench.want(describe("waiting"));
  bench.staged(4);
  bench.done(4, errc::not_found);
  bench.want(describe("downloading"));
  bench.want(describe("queued"));
  const garner::Status status = bench.status();
  CHECK(status.ready == 1);
  CHECK(status.draining == 1);
  CHECK(status.removing == 1);
  CHECK(status.waiting == 1);
  CHECK(status.downloading == 1);
  CHECK(status.queued == 1);
  CHECK(status.parked == 0);
  CHECK(status.bytes_ready == 100);
  CHECK(status.chunks_published == 3);
  CHECK(status.chunks_removed == 0);
  CHECK(status.attempts_failed == 1);
}

TEST_CASE("a chunk that is replaced counts as missing, and its old generation still as served bytes") {
  TableBench bench;
  bench.make_ready(describe("a", 1));
  bench.want(describe("a", 2));
  CHECK(bench.status().ready == 0);
  CHECK(bench.status().downloading == 1);
  CHECK(bench.status().bytes_ready == 100);
  CHECK_FALSE(bench.table.settled());
}
