// SPDX-License-Identifier: BSL-1.0
//
// One generation on its way in: the order of its files, its mirrors, its rounds.
#include "garner/core/chunk_fetch.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

using garner::DataChunk;
using garner::FileSource;
using garner::core::ChunkFetch;
using garner::core::TransferId;

namespace {

ChunkFetch fetch_of(std::vector<std::size_t> mirrors) {
  DataChunk chunk;
  for (std::size_t i = 0; i < mirrors.size(); ++i) {
    FileSource source;
    for (std::size_t m = 0; m < mirrors[i]; ++m) source.urls.push_back("mem://" + std::to_string(m));
    chunk.files["f" + std::to_string(i)] = source;
  }
  return {7, std::make_shared<const DataChunk>(chunk), garner::content_fingerprint(chunk)};
}

}  // namespace

TEST_CASE("files are started in the order of their names, each from its first mirror") {
  ChunkFetch fetch = fetch_of({1, 2});
  CHECK(fetch.number() == 7);
  CHECK(fetch.has_pending());
  const auto first = fetch.start_next(11);
  CHECK(*first.name == "f0");
  CHECK(first.transfer == 11);
  CHECK(first.number == 7);
  CHECK(first.url == 0);
  CHECK(first.source == &fetch.chunk()->files.at("f0"));
  CHECK(*fetch.start_next(12).name == "f1");
  CHECK_FALSE(fetch.has_pending());
  CHECK(fetch.moving() == 2);
  CHECK(fetch.transfers() == std::vector<TransferId>{11, 12});
}

TEST_CASE("a fetch is complete once every file is done, in any order") {
  ChunkFetch fetch = fetch_of({1, 1});
  fetch.start_next(1);
  fetch.start_next(2);
  CHECK_FALSE(fetch.progressed());
  fetch.file_done(2);
  CHECK(fetch.progressed());
  CHECK_FALSE(fetch.complete());
  CHECK(fetch.transfers() == std::vector<TransferId>{1});
  fetch.file_done(1);
  CHECK(fetch.complete());
  CHECK(fetch.moving() == 0);
}

TEST_CASE("a file that failed is pending again with the next mirror, until each was tried once") {
  ChunkFetch fetch = fetch_of({3});
  for (std::size_t mirror = 0; mirror < 3; ++mirror) {
    REQUIRE(fetch.has_pending());
    CHECK(fetch.start_next(mirror).url == mirror);
    fetch.file_failed(mirror);
  }
  CHECK_FALSE(fetch.has_pending());
  CHECK_FALSE(fetch.complete());
  CHECK(fetch.moving() == 0);
}

TEST_CASE("a new round tries what failed at every mirror again, and keeps what is done") {
  ChunkFetch fetch = fetch_of({1, 2});
  fetch.start_next(1);
  fetch.start_next(2);
  fetch.file_done(1);
  fetch.file_failed(2);
  CHECK(fetch.start_next(3).url == 1);
  fetch.file_failed(3);
  CHECK_FALSE(fetch.has_pending());
  fetch.failure.subject = "x";
  fetch.new_round();
  CHECK_FALSE(fetch.progressed());
  CHECK(fetch.failure.ok());
  CHECK(fetch.failure.subject.empty());
  REQUIRE(fetch.has_pending());
  const auto again = fetch.start_next(4);
  CHECK(*again.name == "f1");
  CHECK(again.url == 0);
  fetch.file_done(4);
  CHECK(fetch.complete());
}

TEST_CASE("a new round goes on at the mirror after the one that a file stopped at") {
  ChunkFetch fetch = fetch_of({2});
  fetch.start_next(1);
  fetch.file_failed(1);
  fetch.start_next(2);
  fetch.file_failed(2);
  fetch.new_round();
  CHECK(fetch.start_next(3).url == 0);
  fetch.file_failed(3);
  fetch.new_round();
  CHECK(fetch.start_next(4).url == 1);
}
