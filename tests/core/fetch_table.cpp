// SPDX-License-Identifier: BSL-1.0
//
// The state machine on a bench: servers that are resting or bear little, mirrors, fresh sources.
#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>

#include "core/table_bench.hpp"

using garner::ChunkState;
using garner::DataChunk;
using garner::errc;
using garner::ErrorClass;
using garner::FileSource;
using garner::Options;
using garner::test::describe;
using garner::test::TableBench;
using namespace std::chrono_literals;

namespace {

/// As `describe`, from `host`.
DataChunk from(const std::string& host, const std::string& name, std::size_t files = 1) {
  DataChunk chunk = describe(name, 1, files);
  for (auto& [file, source] : chunk.files)
    source.urls = {std::string("http://").append(host).append("/").append(name).append("/").append(file)};
  return chunk;
}

Options refreshing() {
  Options options;
  options.refresh = [](const DataChunk&, const std::string&) { return FileSource(); };
  return options;
}

}  // namespace

TEST_CASE("a server that asks for less holds up its own chunks, and none of another's") {
  Options options;
  options.max_concurrent_chunks = 2;
  TableBench bench(options);
  for (const char* name : {"a", "b", "c", "d"}) bench.want(from("busy", name));
  bench.want(from("idle", "e"));
  bench.staged(1);
  bench.staged(2);
  // The first that failed gives its place to the one from elsewhere, and the second one too, once it has ended.
  CHECK(bench.done(1, errc::server_busy, 10s) == "stage 3");
  CHECK(bench.state_of("e") == ChunkState::downloading);
  CHECK(bench.done(2, errc::server_busy, 10s) == "");
  CHECK(bench.staged(3) == "start 3 f0@0 (3)");
  CHECK(bench.done(3) == "publish 3");
  CHECK(bench.state_of("c") == ChunkState::queued);
  CHECK(bench.state_of("d") == ChunkState::queued);
}

TEST_CASE("what waits for a transfer when its server begins to rest gives up its place, without a failure") {
  Options options;
  options.max_concurrent_chunks = 2;
  options.max_concurrent_files = 1;
  TableBench bench(options);
  bench.want(from("busy", "a"));
  bench.want(from("busy", "b"));
  bench.want(from("idle", "c"));
  CHECK(bench.staged(1) == "start 1 f0@0 (1)");
  CHECK(bench.staged(2) == "");
  CHECK(bench.done(1, errc::server_busy, 10s) == "stage 3");
  CHECK(bench.state_of("b") == ChunkState::waiting);
  CHECK(bench.status_of("b").attempts == 0);
  CHECK(bench.status_of("b").next_try_in.value() >= 10s);
  CHECK(bench.staged(3) == "start 3 f0@0 (2)");
  bench.done(2);
  bench.published(3);
  // It bears one at a time now.
  while (bench.last_transfer == 2) REQUIRE(bench.wake() != "asleep");
  CHECK(bench.last_transfer == 3);
  CHECK(bench.done(3).find("publish") != std::string::npos);
}

TEST_CASE("a server that is away is asked by one, and not by everybody whose turn it is") {
  TableBench bench;
  for (int i = 0; i < 100; ++i) bench.want(from("away", "chunk " + std::to_string(i)));
  std::uint64_t staged = 0;
  garner::core::TransferId ended = 0;
  for (int i = 0; i < 500; ++i) {
    if (staged < bench.last_generation) {
      bench.staged(++staged);
    } else if (ended < bench.last_transfer) {
      bench.done(++ended, errc::connection_failed);
      // Those that were under way when it failed for the second time are the last that go together.
      if (ended >= 16) CHECK(bench.last_transfer - ended <= 1);
    } else {
      CHECK(bench.wake() != "asleep");
    }
  }
  CHECK(ended > 30);
  CHECK(bench.now > 5min);
  CHECK(bench.last_generation < 60);
}

TEST_CASE("no server gets more transfers at once than is allowed, and another gets the rest") {
  Options options;
  options.max_files_per_host = 2;
  TableBench bench(options);
  bench.want(from("a", "x", 4));
  bench.want(from("b", "y", 4));
  CHECK(bench.staged(1) == "start 1 f0@0 (1), start 1 f1@0 (2)");
  CHECK(bench.staged(2) == "start 2 f0@0 (3), start 2 f1@0 (4)");
  CHECK(bench.done(3) == "start 2 f2@0 (5)");
  options.max_files_per_host = 3;
  CHECK(bench.set_options(options) == "start 1 f2@0 (6), start 2 f3@0 (7)");
}

TEST_CASE("of mirrors that fail differently the most hopeful failure says when to try again") {
  TableBench bench;
  bench.want(describe("a", 1, 1, 3));
  bench.staged(1);
  bench.done(1, errc::not_found);
  bench.done(2, errc::timed_out);
  bench.done(3, errc::credentials_rejected);
  CHECK(bench.status_of("a").last_error == errc::timed_out);
  CHECK(bench.status_of("a").next_try_in.value() < 100ms);
}

TEST_CASE("rejected credentials: a fresh source is asked for once, and the same generation goes on from it") {
  TableBench bench(refreshing());
  bench.want(describe("a", 1, 2, 2));
  bench.staged(1);  // two files: transfers 1 and 2
  CHECK(bench.done(1, errc::credentials_rejected) == "start 1 f0@1 (3)");
  CHECK(bench.done(3, errc::credentials_rejected) == "refresh f0 (3)");
  CHECK(bench.done(2) == "");
  CHECK(bench.refreshed(3, FileSource("http://fresh/f0")) == "start 1 f0@0 (4)");
  CHECK(bench.told() == "");
  CHECK(bench.done(4) == "publish 1");
}

TEST_CASE("a source that is rejected as well waits, and the next round may ask again") {
  TableBench bench(refreshing());
  bench.want(describe("a"));
  bench.staged(1);
  CHECK(bench.done(1, errc::credentials_rejected) == "refresh f0 (1)");
  CHECK(bench.refreshed(1, FileSource("http://fresh/f0")) == "start 1 f0@0 (2)");
  CHECK(bench.done(2, errc::credentials_rejected) == "");
  CHECK(bench.told() == "failed 1");
  CHECK(bench.status_of("a").last_error_class == ErrorClass::credentials);
  CHECK(bench.wake() == "start 1 f0@0 (3)");
  CHECK(bench.done(3, errc::credentials_rejected) == "refresh f0 (3)");
}

TEST_CASE("where there is no fresh source to be had, that is tried again soon") {
  TableBench bench(refreshing());
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1, errc::credentials_rejected);
  CHECK(bench.refreshed(1, std::nullopt, errc::refresh_failed) == "");
  CHECK(bench.status_of("a").last_error == errc::refresh_failed);
  CHECK(bench.status_of("a").next_try_in.value() < 100ms);
  CHECK(bench.wake() == "start 1 f0@0 (2)");
}

TEST_CASE("what is not wanted any more while its source is refreshed goes when that has been answered") {
  TableBench bench(refreshing());
  bench.want(describe("a"));
  bench.staged(1);
  bench.done(1, errc::credentials_rejected);
  CHECK(bench.unwant("a") == "");
  CHECK(bench.refreshed(1, FileSource("http://fresh/f0")) == "discard 1");
  bench.discarded(1);
  CHECK_FALSE(bench.knows("a"));

  bench.want(describe("b"));
  bench.staged(2);
  bench.done(2, errc::credentials_rejected);
  CHECK(bench.close() == "");
  CHECK(bench.refreshed(2, FileSource("http://fresh/f0")) == "");
  CHECK(bench.table.idle());
}

TEST_CASE("the same bytes wanted from elsewhere are gone on with, and other bytes begin anew") {
  DataChunk chunk = describe("a", 1, 2);
  for (auto& [name, source] : chunk.files) source.urls = {"http://lake/" + name + "?X-Amz-Signature=1"};
  DataChunk signed_anew = chunk;
  for (auto& [name, source] : signed_anew.files) source.urls = {"http://lake/" + name + "?X-Amz-Signature=2"};
  TableBench bench;
  bench.want(chunk);
  CHECK(bench.staged(1) == "start 1 f0@0 (1), start 1 f1@0 (2)");
  bench.done(1);
  CHECK(bench.done(2, errc::credentials_rejected) == "");
  CHECK(bench.state_of("a") == ChunkState::waiting);
  CHECK(bench.want(signed_anew) == "start 1 f1@0 (3)");
  CHECK(bench.want(describe("a", 2, 2)) == "stop (3)");
  CHECK(bench.done(3, errc::cancelled) == "discard 1");
  CHECK(bench.discarded(1) == "stage 2");
}

TEST_CASE("other limits count once it is filled, and it stays filled") {
  Options options;
  options.max_concurrent_files = 4;
  options.bytes_per_second = 0;
  options.when_filled = garner::FetchLimits{1, 1, 1, 1000};
  TableBench bench(options);
  bench.measured(1000, 0);
  CHECK(bench.limits.bytes_per_second == 0);  // nothing is missing, but nothing is there either
  CHECK_FALSE(bench.status().filled);
  bench.want(describe("a", 1, 2));
  CHECK(bench.staged(1) == "start 1 f0@0 (1), start 1 f1@0 (2)");
  bench.done(1);
  bench.done(2);
  CHECK_FALSE(bench.status().filled);
  bench.published(1);
  CHECK(bench.status().filled);
  CHECK(bench.limits == *options.when_filled);
  bench.want(describe("b", 1, 2));
  bench.want(describe("c", 1, 2));
  CHECK(bench.last_generation == 2);
  CHECK(bench.staged(2) == "start 2 f0@0 (3)");
  CHECK(bench.status().filled);
  options.when_filled.reset();
  CHECK(bench.set_options(options) == "stage 3, start 2 f1@0 (4)");
  CHECK(bench.limits.bytes_per_second == 0);
}

TEST_CASE("a mirror that only rests is waited for, where no other has the file") {
  TableBench bench;
  bench.want(from("b", "other"));
  bench.staged(1);
  bench.done(1, errc::server_busy, 2s);
  DataChunk chunk = from("a", "x");
  chunk.files.at("f0").urls.emplace_back("http://b/x/f0");
  bench.want(chunk);
  CHECK(bench.staged(2) == "start 2 f0@0 (2)");
  CHECK(bench.done(2, errc::not_found) == "");
  CHECK(bench.state_of("x") == ChunkState::waiting);
  CHECK(bench.status_of("x").next_try_in.value() < 3s);
}

TEST_CASE("a server that answers again gets more than one transfer, before the first one is through") {
  TableBench bench;
  bench.want(from("a", "x", 4));
  bench.staged(1);
  garner::core::TransferId ended = 0;
  while (ended < 20) {
    if (ended < bench.last_transfer) {
      bench.done(++ended, errc::timed_out);
    } else {
      REQUIRE(bench.wake() != "asleep");
    }
  }
  while (ended == bench.last_transfer) REQUIRE(bench.wake() != "asleep");
  REQUIRE(bench.last_transfer == ended + 1);
  bench.answered(bench.last_transfer);
  CHECK(bench.last_transfer > ended + 1);
}
