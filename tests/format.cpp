// SPDX-License-Identifier: BSL-1.0
//
// The public values as fmt prints them.
#include "garner/format.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

TEST_CASE("ids, ranges and digests are formatted as they are written down") {
  const auto id = garner::ChunkId::from_name("abc");
  CHECK(fmt::format("{}", id) == id.to_hex());
  CHECK(fmt::format("{}", garner::DatasetId::from_name("abc")) == id.to_hex());
  CHECK(fmt::format("{}", garner::BlockRange{3, 17}) == "[3, 17)");
  const std::string digest = "md5:" + std::string(32, 'a');
  CHECK(fmt::format("{}", garner::Digest::parse(digest)) == digest);
}

TEST_CASE("states, events and errors are formatted by name") {
  CHECK(fmt::format("{}", garner::ChunkState::publishing) == "publishing");
  CHECK(fmt::format("{}", garner::EventKind::chunk_ready) == "ready");
  CHECK(fmt::format("{}", garner::ErrorClass::wrong_bytes) == "wrong bytes");
  CHECK(fmt::format("{}", garner::errc::no_space) == "the store is full");
}

TEST_CASE("width and alignment apply to the text") {
  CHECK(fmt::format("{:>9}|{:<8}|{:^9}", garner::ChunkState::ready, garner::BlockRange{1, 2},
                    garner::EventKind::closed) == "    ready|[1, 2)  | closed  ");
  CHECK(fmt::format("{:.8}", garner::ChunkId::from_name("abc")) == "ba7816bf");
}
