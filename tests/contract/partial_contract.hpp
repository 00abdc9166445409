// SPDX-License-Identifier: BSL-1.0
//
// What a Storage promises of chunks that one run did not fetch to their end: the next one goes on from the last
// checkpoint of each file, or from nothing. A part of the suite in contract/storage_contract.hpp.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "contract/storage_steps.hpp"
#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"

namespace garner::contract {

/// The files "a.bin" of "hello", with a digest, and "b.bin" of "world!", without.
inline DataChunk partial_chunk() {
  DataChunk chunk = chunk_of("c", {{"a.bin", "hello"}, {"b.bin", "world!"}});
  chunk.files["a.bin"].digest = Digest::parse(hello_sha256);
  return chunk;
}

/// A run that ends with "hel" and a checkpoint, one more byte, and "wor" and a checkpoint.
template <StorageFixture Fixture>
void leave_partial(Fixture& fixture) {
  Steps steps(fixture.open());
  auto staging = steps.stage(partial_chunk());
  auto a = steps.open(staging, "a.bin");
  REQUIRE_FALSE(a.write(bytes_of("h")));
  REQUIRE_FALSE(a.write({}));
  CHECK(a.size() == 1);
  REQUIRE_FALSE(a.checkpoint("before"));
  REQUIRE_FALSE(a.write(bytes_of("el")));
  REQUIRE_FALSE(a.checkpoint("of a"));
  CHECK(std::string(a.origin()) == "of a");
  REQUIRE_FALSE(a.write(bytes_of("X")));
  auto b = steps.open(staging, "b.bin");
  REQUIRE_FALSE(b.write(bytes_of("wor")));
  REQUIRE_FALSE(b.checkpoint("of b"));
}

template <class S>
typename S::StagedFile open_left(typename S::Staging& staging, const std::string& name) {
  std::error_code ec;
  auto file = staging.open(name, ec);
  REQUIRE_FALSE(ec);
  return file;
}

template <StorageFixture Fixture>
void partial_contract() {
  Fixture fixture;
  using S = std::remove_cvref_t<decltype(fixture.open())>;
  SUBCASE("a run goes on with each file from its last checkpoint, and publishes the whole") {
    leave_partial(fixture);
    Steps again(fixture.open());
    CHECK(again.found().empty());
    CHECK(again.recovery().has_partial);
    CHECK_FALSE(again.store().clean_up(Partial::keep));
    auto staging = again.stage(partial_chunk());
    auto a = open_left<S>(staging, "a.bin");
    CHECK(a.size() == 3);
    CHECK(std::string(a.origin()) == "of a");
    auto b = open_left<S>(staging, "b.bin");
    CHECK(b.size() == 3);
    CHECK(std::string(b.origin()) == "of b");
    REQUIRE_FALSE(a.write(bytes_of("lo")));
    REQUIRE_FALSE(a.finish());
    REQUIRE_FALSE(b.write(bytes_of("ld!")));
    REQUIRE_FALSE(b.finish());
    CHECK_FALSE(again.store().clean_up(Partial::remove));
    const Generation generation = again.publish(staging);
    CHECK(fixture.read(again.store(), generation, "a.bin") == "hello");
    CHECK(fixture.read(again.store(), generation, "b.bin") == "world!");
    CHECK_FALSE(again.verify(generation));
  }
  SUBCASE("a third run goes on where the second one stopped") {
    leave_partial(fixture);
    {
      Steps second(fixture.open());
      auto staging = second.stage(partial_chunk());
      auto b = open_left<S>(staging, "b.bin");
      REQUIRE_FALSE(b.write(bytes_of("l")));
      REQUIRE_FALSE(b.checkpoint("later"));
    }
    Steps third(fixture.open());
    auto staging = third.stage(partial_chunk());
    CHECK(open_left<S>(staging, "a.bin").size() == 3);
    auto b = open_left<S>(staging, "b.bin");
    CHECK(b.size() == 4);
    CHECK(std::string(b.origin()) == "later");
  }
  SUBCASE("a file of which something else is asked begins anew, and the others go on") {
    leave_partial(fixture);
    Steps again(fixture.open());
    DataChunk chunk = partial_chunk();
    chunk.files["b.bin"].size = 5;
    auto staging = again.stage(chunk);
    CHECK(open_left<S>(staging, "b.bin").size() == 0);
    CHECK(open_left<S>(staging, "a.bin").size() == 3);
  }
  SUBCASE("a file that is not asked for any more is not published") {
    leave_partial(fixture);
    Steps again(fixture.open());
    DataChunk chunk = partial_chunk();
    chunk.files.erase("b.bin");
    auto staging = again.stage(chunk);
    auto a = open_left<S>(staging, "a.bin");
    REQUIRE_FALSE(a.write(bytes_of("lo")));
    REQUIRE_FALSE(a.finish());
    const Generation generation = again.publish(staging);
    CHECK(generation.bytes == 5);
    CHECK_FALSE(fixture.read(again.store(), generation, "b.bin"));
    CHECK_FALSE(again.verify(generation));
  }
  SUBCASE("a file that was whole is whole, and one that was started over has no checkpoint") {
    {
      Steps steps(fixture.open());
      auto staging = steps.stage(partial_chunk());
      auto a = steps.open(staging, "a.bin");
      REQUIRE_FALSE(a.write(bytes_of("hello")));
      REQUIRE_FALSE(a.checkpoint("of a"));
      REQUIRE_FALSE(a.finish());
      auto b = steps.open(staging, "b.bin");
      REQUIRE_FALSE(b.write(bytes_of("wor")));
      REQUIRE_FALSE(b.checkpoint("of b"));
      REQUIRE_FALSE(b.restart());
      REQUIRE_FALSE(b.write(bytes_of("w")));
    }
    Steps again(fixture.open());
    auto staging = again.stage(partial_chunk());
    auto a = open_left<S>(staging, "a.bin");
    CHECK(a.size() == 5);
    CHECK_FALSE(a.finish());
    CHECK(open_left<S>(staging, "b.bin").size() == 0);
  }
  SUBCASE("a clean-up keeps what can be gone on with, and takes it away where it is told to") {
    leave_partial(fixture);
    {
      Steps again(fixture.open());
      CHECK_FALSE(again.store().clean_up(Partial::keep));
    }
    {
      Steps again(fixture.open());
      CHECK(again.recovery().has_partial);
      CHECK_FALSE(again.store().clean_up(Partial::remove));
      auto staging = again.stage(partial_chunk());
      CHECK(open_left<S>(staging, "a.bin").size() == 0);
      CHECK_FALSE(again.store().discard(staging));
    }
    Steps again(fixture.open());
    CHECK_FALSE(again.recovery().has_partial);
  }
}

}  // namespace garner::contract
