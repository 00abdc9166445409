// SPDX-License-Identifier: BSL-1.0
//
// One generation on its way in: the order of its files, its mirrors, its rounds, its sources.
#include "garner/core/chunk_fetch.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "garner/core/hosts.hpp"

using garner::DataChunk;
using garner::ErrorClass;
using garner::FileSource;
using garner::core::ChunkFetch;
using garner::core::Hosts;
using garner::core::Mirror;
using garner::core::TransferId;
using garner::core::action::StartFile;

namespace {

Hosts hosts;

ChunkFetch fetch_of(std::vector<std::size_t> mirrors) {
  DataChunk chunk;
  for (std::size_t i = 0; i < mirrors.size(); ++i) {
    FileSource source;
    for (std::size_t m = 0; m < mirrors[i]; ++m) source.urls.push_back("mem://" + std::to_string(m));
    chunk.files["f" + std::to_string(i)] = source;
  }
  return {7, std::make_shared<const DataChunk>(chunk), garner::content_fingerprint(chunk), hosts};
}

/// From the first mirror that was not tried yet.
StartFile start_next(ChunkFetch& fetch, TransferId transfer) {
  return fetch.start_next(transfer, [](std::span<const Mirror> mirrors, bool) -> std::optional<std::size_t> {
    for (std::size_t i = 0; i < mirrors.size(); ++i) {
      if (!mirrors[i].tried) return i;
    }
    return std::nullopt;
  });
}

}  // namespace

TEST_CASE("files are started in the order of their names, each from its first mirror") {
  ChunkFetch fetch = fetch_of({1, 2});
  CHECK(fetch.number() == 7);
  CHECK(fetch.has_pending());
  const auto first = start_next(fetch, 11);
  CHECK(*first.name == "f0");
  CHECK(first.transfer == 11);
  CHECK(first.number == 7);
  CHECK(first.url == 0);
  CHECK(first.source.get() == &fetch.chunk()->files.at("f0"));
  CHECK(*start_next(fetch, 12).name == "f1");
  CHECK_FALSE(fetch.has_pending());
  CHECK(fetch.moving() == 2);
  CHECK(fetch.transfers() == std::vector<TransferId>{11, 12});
}

TEST_CASE("a fetch is complete once every file is done, in any order") {
  ChunkFetch fetch = fetch_of({1, 1});
  start_next(fetch, 1);
  start_next(fetch, 2);
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
    CHECK(start_next(fetch, mirror).url == mirror);
    fetch.file_failed(mirror, ErrorClass::transient);
  }
  CHECK_FALSE(fetch.has_pending());
  CHECK_FALSE(fetch.complete());
  CHECK(fetch.moving() == 0);
}

TEST_CASE("a new round tries what failed at every mirror again, and keeps what is done") {
  ChunkFetch fetch = fetch_of({1, 2});
  start_next(fetch, 1);
  start_next(fetch, 2);
  fetch.file_done(1);
  fetch.file_failed(2, ErrorClass::transient);
  CHECK(start_next(fetch, 3).url == 1);
  fetch.file_failed(3, ErrorClass::transient);
  CHECK_FALSE(fetch.has_pending());
  fetch.failure.subject = "x";
  fetch.new_round();
  CHECK_FALSE(fetch.progressed());
  CHECK(fetch.failure.ok());
  CHECK(fetch.failure.subject.empty());
  REQUIRE(fetch.has_pending());
  const auto again = start_next(fetch, 4);
  CHECK(*again.name == "f1");
  CHECK(again.url == 0);
  fetch.file_done(4);
  CHECK(fetch.complete());
}

TEST_CASE("where every mirror was tried and one rejected the credentials, another source may help, once a round") {
  ChunkFetch fetch = fetch_of({2});
  start_next(fetch, 1);
  fetch.file_failed(1, ErrorClass::credentials);
  CHECK_FALSE(fetch.needs_refresh(1));  // there is another mirror
  start_next(fetch, 2);
  fetch.file_failed(2, ErrorClass::transient);
  REQUIRE(fetch.needs_refresh(2));
  CHECK(*fetch.refresh(2).name == "f0");
  CHECK(fetch.moving() == 1);
  CHECK(fetch.transfers().empty());
  const FileSource fresh("mem://fresh");
  fetch.refreshed(2, &fresh, hosts);
  CHECK(fetch.moving() == 0);
  REQUIRE(fetch.has_pending());
  CHECK(start_next(fetch, 3).source->urls == fresh.urls);
  fetch.file_failed(3, ErrorClass::credentials);
  CHECK_FALSE(fetch.needs_refresh(3));
  CHECK_FALSE(fetch.has_pending());
  fetch.new_round();
  CHECK(start_next(fetch, 4).source->urls == fresh.urls);
  fetch.file_failed(4, ErrorClass::credentials);
  REQUIRE(fetch.needs_refresh(4));
  fetch.refresh(4);
  fetch.refreshed(4, nullptr, hosts);
  CHECK_FALSE(fetch.has_pending());
  CHECK(fetch.moving() == 0);
}

TEST_CASE("a description of the same bytes from elsewhere is gone on with, and what moves meanwhile goes on") {
  ChunkFetch fetch = fetch_of({1, 1, 1});
  start_next(fetch, 1);
  fetch.file_done(1);
  start_next(fetch, 2);
  start_next(fetch, 3);
  fetch.file_failed(3, ErrorClass::transient);
  DataChunk elsewhere = *fetch.chunk();
  for (auto& [name, source] : elsewhere.files) source.urls = {"mem://elsewhere"};
  CHECK_FALSE(
      fetch.is_of(elsewhere, garner::content_fingerprint(elsewhere)));  // without digests the URLs say what it is
  CHECK(fetch.is_of(elsewhere, fetch.content()));
  elsewhere.files.at("f1").size = 7;
  CHECK_FALSE(fetch.is_of(elsewhere, fetch.content()));
  elsewhere.files.at("f1").size.reset();
  const auto chunk = std::make_shared<const DataChunk>(elsewhere);
  fetch.take_sources(chunk, hosts);
  CHECK(fetch.chunk() == chunk);
  CHECK(fetch.transfers() == std::vector<TransferId>{2});
  const StartFile third = start_next(fetch, 4);
  CHECK(*third.name == "f2");
  CHECK(third.source->urls == std::vector<std::string>{"mem://elsewhere"});
  fetch.file_failed(2, ErrorClass::credentials);  // of the old source: nothing is known of the new one yet
  REQUIRE(fetch.has_pending());
  CHECK(start_next(fetch, 5).source->urls == std::vector<std::string>{"mem://elsewhere"});
  fetch.file_done(4);
  fetch.file_done(5);
  CHECK(fetch.complete());
}
