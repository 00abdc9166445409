// SPDX-License-Identifier: BSL-1.0
//
// What the example worker shows of its progress, and of chunks that fail.
#include "worker/progress.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "worker/text.hpp"

using namespace std::chrono_literals;

namespace {

worker::Frame half_done() {
  worker::Frame frame;
  frame.status.ready = 200;
  frame.status.queued = 150;
  frame.status.downloading = 16;
  frame.status.waiting = 34;
  frame.status.bytes_ready = 500'000'000;
  frame.status.bytes_received = 510'000'000;
  frame.status.bytes_wasted = 3'000'000;
  frame.status.bytes_per_second = 100e6;
  frame.bytes_wanted = 1'500'000'000;
  frame.all_sizes_known = true;
  return frame;
}

garner::Event event_of(garner::EventKind kind, const std::string& chunk) {
  garner::Event event;
  event.kind = kind;
  event.id = garner::ChunkId::from_name(chunk);
  if (kind == garner::EventKind::chunk_failed) {
    event.error = garner::errc::not_found;
    event.subject = "file 'a'";
  }
  return event;
}

/// A console on a file, and what was written to it.
struct Log {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::tmpfile(), &std::fclose};

  [[nodiscard]] std::string text() const {
    std::rewind(file.get());
    std::string out;
    for (int c = std::fgetc(file.get()); c != EOF; c = std::fgetc(file.get())) out += static_cast<char>(c);
    return out;
  }
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("bytes, durations and counts are written with three digits and a unit") {
  CHECK(worker::format_bytes(std::uint64_t{0}) == "0 B");
  CHECK(worker::format_bytes(std::uint64_t{999}) == "999 B");
  CHECK(worker::format_bytes(std::uint64_t{1000}) == "1.00 kB");
  CHECK(worker::format_bytes(std::uint64_t{999'999}) == "1.00 MB");
  CHECK(worker::format_bytes(std::uint64_t{458'497'867'505}) == "458 GB");
  CHECK(worker::format_duration(87ns) == "87 ns");
  CHECK(worker::format_duration(1500ns) == "1.50 us");
  CHECK(worker::format_duration(21s) == "21.0 s");
  CHECK(worker::format_duration(200s) == "3 min 20 s");
  CHECK(worker::format_duration(5h + 12min) == "5 h 12 min");
  CHECK(worker::format_duration(-1s) == "0 ns");
  CHECK(worker::format_count(1234567) == "1,234,567");
  CHECK(worker::format_count(999) == "999");
  CHECK(worker::format_plural(1, "chunk") == "1 chunk");
  CHECK(worker::format_plural(0, "chunk") == "0 chunks");
}

TEST_CASE("numbers of bytes are read with their units, and nothing else is") {
  CHECK(worker::parse_bytes("100") == 100);
  CHECK(worker::parse_bytes("64k") == 64000);
  CHECK(worker::parse_bytes("1.5 GB") == 1'500'000'000);
  CHECK(worker::parse_bytes("0") == 0);
  for (const char* text : {"", "x", "-1", "1x", "1MBB", "nan", "inf", "1e30"}) {
    CHECK_THROWS_AS(worker::parse_bytes(text), std::invalid_argument);
  }
}

TEST_CASE("a long name keeps both its ends") {
  CHECK(worker::shorten("short", 10) == "short");
  CHECK(worker::shorten("abcdefghijklmnop", 10) == "abcd...nop");
  CHECK(worker::shorten("abcdefghijklmnop", 3) == "abc");
}

TEST_CASE("a table's columns are as wide as their widest cells") {
  worker::Table table({{"NAME"}, {"SIZE", worker::Table::Align::right}});
  table.add({"a", "1"});
  table.add({"longer", "1000"});
  CHECK(table.to_string() == "NAME    SIZE\na          1\nlonger  1000\n");
}

TEST_CASE("the panel tells chunks, bytes, rate, time left and states") {
  const auto lines = worker::draw(half_done(), 80);
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].text == "[==============>               ] 200/400 chunks  50 %  10.0 s left");
  CHECK(lines[1].text == "  bytes   500 MB of 1.50 GB ready, 510 MB received (3.00 MB in vain), 100 MB/s");
  CHECK(lines[2].text == "  state   150 queued, 16 downloading, 34 waiting to retry");
  for (const auto& line : lines) CHECK(line.text.size() <= 80);
}

TEST_CASE("chunks that fail are named with their attempts, their next try and the reason") {
  worker::Frame frame = half_done();
  frame.failing = 7;
  frame.latest_failing = {{"s3://ethereum-mainnet/0000000000/0000000000-0000573739-cd076ab0", 3, "not there", 1500ms},
                          {"k\xc3\xbcrzer", 1, "reset", std::nullopt}};
  const auto lines = worker::draw(frame, 80);
  REQUIRE(lines.size() == 6);
  CHECK(lines[3].text == "  failing 7 chunks");
  CHECK(lines[4].text == "    s3://ethereu...39-cd076ab0  #3, again in 1.50 s: not there");
  CHECK(lines[5].text == "    k??rzer                     #1, trying again: reset");
}

TEST_CASE("no time is foretold where all that is left waits, or the rate is nothing") {
  worker::Frame frame = half_done();
  CHECK(frame.time_left().has_value());
  frame.status.queued = frame.status.downloading = 0;
  CHECK_FALSE(frame.time_left().has_value());
  frame = half_done();
  frame.status.bytes_per_second = 0;
  CHECK_FALSE(frame.time_left().has_value());
  frame = half_done();
  frame.all_sizes_known = false;
  frame.status.chunks_published = 100;
  frame.elapsed = 10s;
  CHECK(frame.time_left() == 20s);
}

TEST_CASE("without a terminal there are plain lines, none of them twice, and no panel") {
  const Log log;
  {
    worker::Console console(log.file.get());
    CHECK_FALSE(console.is_terminal());
    const worker::Failures failures;
    worker::Progress progress(console, failures, false);
    progress.update(half_done());
    progress.update(half_done());  // too early
    progress.log("converged", worker::Style::good);
  }
  CHECK(log.text() ==
        "200/400 chunks, 500 MB of 1.50 GB ready, 510 MB received (3.00 MB in vain), 100 MB/s; "
        "150 queued, 16 downloading, 34 waiting to retry\nconverged\n");
}

TEST_CASE("without a terminal failures are logged as they come, a few at a time") {
  const Log log;
  {
    worker::Console console(log.file.get());
    worker::Failures failures;
    worker::Progress progress(console, failures, false);
    for (int i = 0; i < 10; ++i) failures.observe(event_of(garner::EventKind::chunk_failed, std::to_string(i)));
    progress.set_lookups([](const garner::ChunkId&) { return std::string("chunk"); }, nullptr);
    progress.update(half_done());
  }
  const std::string text = log.text();
  CHECK(contains(text, "chunk failed, attempt 1: the server does not have the file (file 'a')\n"));
  CHECK(contains(text, "and 7 more failures\n"));
}

TEST_CASE("a chunk counts as failing until it is ready or no longer wanted") {
  using Kind = garner::EventKind;
  worker::Failures failures;
  failures.observe(event_of(Kind::chunk_failed, "a"));
  failures.observe(event_of(Kind::chunk_failed, "b"));
  failures.observe(event_of(Kind::chunk_failed, "a"));
  CHECK(failures.count() == 2);
  CHECK(failures.total() == 3);
  const auto current = failures.current(5);
  REQUIRE(current.size() == 2);
  CHECK(current[0].id == garner::ChunkId::from_name("a"));
  CHECK(current[0].attempts == 2);
  CHECK(failures.current(1).size() == 1);
  CHECK(failures.since(2, 5).size() == 1);
  failures.observe(event_of(Kind::chunk_ready, "a"));
  failures.observe(event_of(Kind::chunk_removed, "b"));
  CHECK(failures.count() == 0);
  CHECK(failures.total() == 3);
}
