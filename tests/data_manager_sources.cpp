// SPDX-License-Identifier: BSL-1.0
//
// Where bytes come from: URLs that expire, wishes for the same bytes from elsewhere, servers that ask for less.
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/status.hpp"
#include "support/memory_world.hpp"

using garner::DataChunk;
using garner::errc;
using garner::ErrorClass;
using garner::FileSource;
using garner::Options;
using garner::test::chunk;
using garner::test::content;
using garner::test::dataset;
using garner::test::make_manager;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

const std::string bytes = "thirty bytes of the lake's own";
const std::string etag = "\"1\"";

std::string signed_url(int signature) { return "http://lake/data?X-Amz-Signature=s" + std::to_string(signature); }

/// A chunk whose only URL is signed, and expires after `good` bytes of it.
DataChunk expiring(Outside& outside, std::size_t good) {
  DataChunk wanted = chunk("a");
  wanted.files["data"] = FileSource({signed_url(1)}, bytes.size(), std::nullopt);
  outside.origin.put(signed_url(1), bytes, etag);
  outside.origin.put(signed_url(2), bytes, etag);
  if (good > 0) outside.origin.fail(signed_url(1), {errc::connection_failed, good});
  outside.origin.fail(signed_url(1), {errc::credentials_rejected}, 100);
  return wanted;
}

}  // namespace

TEST_CASE("an expired URL is replaced by Options::refresh, and the transfer goes on where it was") {
  Outside outside;
  std::vector<std::string> asked;
  Options options;
  options.refresh = [&asked](const DataChunk& chunk, const std::string& file) {
    asked.push_back(file + " of " + chunk.id.to_hex());
    return FileSource(signed_url(2));
  };
  auto manager = make_manager(outside, options);
  const DataChunk wanted = expiring(outside, 12);
  manager.download_chunk(wanted);
  REQUIRE(manager.wait_converged(1min));
  CHECK(asked == std::vector<std::string>{"data of " + wanted.id.to_hex()});
  CHECK(outside.origin.bytes() == bytes.size());
  CHECK(manager.status().bytes_wasted == 0);
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == bytes);
}

TEST_CASE("without Options::refresh, a wish with fresh URLs for the same bytes goes on where the old one was") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk wanted = expiring(outside, 12);
  manager.download_chunk(wanted);
  CHECK_FALSE(manager.wait_converged(10s));
  CHECK(manager.chunk_status(wanted.id)->last_error_class == ErrorClass::credentials);
  wanted.files["data"].urls = {signed_url(2)};
  manager.download_chunk(wanted);
  REQUIRE(manager.wait_converged(1s));
  CHECK(outside.origin.bytes() == bytes.size());
  CHECK(manager.status().chunks_published == 1);
}

TEST_CASE("a wish for other bytes at the same place begins anew") {
  Outside outside;
  auto manager = make_manager(outside);
  DataChunk wanted = expiring(outside, 12);
  manager.download_chunk(wanted);
  CHECK_FALSE(manager.wait_converged(10s));
  const std::string other = "http://elsewhere/data";
  outside.origin.put(other, "other bytes");
  wanted.files["data"] = other;
  manager.download_chunk(wanted);
  REQUIRE(manager.wait_converged(1s));
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == "other bytes");
  CHECK(manager.status().bytes_wasted == 12);
}

TEST_CASE("a refresh that fails is tried again soon, and its error names the file and no secret") {
  Outside outside;
  int calls = 0;
  Options options;
  options.refresh = [&calls](const DataChunk&, const std::string&) -> FileSource {
    switch (++calls) {
      case 1: throw std::runtime_error("the signing service is away");
      case 2: throw 42;
      case 3: return {"ftp://nowhere/data?token=secret"};
      case 4: return {};
      default: return {signed_url(2)};
    }
  };
  auto manager = make_manager(outside, options);
  const DataChunk wanted = expiring(outside, 0);
  std::vector<std::string> told;
  const auto subscription = manager.subscribe([&told](const garner::Event& event) {
    if (event.kind == garner::EventKind::chunk_failed && event.error == errc::refresh_failed) {
      told.push_back(event.subject);
    }
  });
  manager.download_chunk(wanted);
  REQUIRE(manager.wait_converged(10s));
  REQUIRE(told.size() == 4);
  for (const std::string& subject : told) {
    CHECK(subject.find("file 'data'") != std::string::npos);
    CHECK(subject.find("secret") == std::string::npos);
  }
  CHECK(told[0].find("the signing service is away") != std::string::npos);
  CHECK(calls == 5);
}

TEST_CASE("what a fresh source says of the bytes does not count") {
  Outside outside;
  Options options;
  options.refresh = [](const DataChunk&, const std::string&) { return FileSource({signed_url(2)}, 3, std::nullopt); };
  auto manager = make_manager(outside, options);
  manager.download_chunk(expiring(outside, 5));
  REQUIRE(manager.wait_converged(1min));
  CHECK(content(manager.find_chunk(dataset(), 0).value()) == bytes);
}

TEST_CASE("a server that asks for less holds up no chunk from another, and converges in the end") {
  Outside outside;
  Options options;
  options.max_concurrent_chunks = 2;
  auto manager = make_manager(outside, options);
  std::vector<DataChunk> busy;
  for (int i = 0; i < 10; ++i) {
    DataChunk wanted = chunk("busy" + std::to_string(i), static_cast<garner::BlockNumber>(i) * 10);
    wanted.files["data"] = "http://busy/" + std::to_string(i);
    outside.offer(wanted);
    outside.origin.fail(wanted.files["data"].urls[0], {errc::server_busy, 0, 1min});
    manager.download_chunk(wanted);
    busy.push_back(wanted);
  }
  DataChunk other = chunk("idle", 1000);
  other.files["data"] = "http://idle/data";
  outside.offer(other);
  manager.download_chunk(other);
  outside.run();
  CHECK(manager.find_chunk(dataset(), 1000));
  CHECK(manager.status().ready == 1);
  // Its chunks were not even begun, but for those that it refused.
  CHECK(outside.origin.transfers() <= 3);
  REQUIRE(manager.wait_converged(1h));
  CHECK(manager.status().ready == 11);
}
