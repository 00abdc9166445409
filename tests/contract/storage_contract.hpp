// SPDX-License-Identifier: BSL-1.0
//
// What every Storage must do, as a suite that any author can run over a storage of their own: write a fixture as
// `StorageFixture` below asks and call `storage_contract<Fixture>()` in a TEST_CASE. Needs doctest and garner::core.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "contract/partial_contract.hpp"
#include "contract/staged_file_contract.hpp"
#include "contract/storage_steps.hpp"
#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"

namespace garner::contract {

template <StorageFixture Fixture>
void publishing_contract() {
  Fixture fixture;
  SUBCASE("an empty store recovers nothing") {
    Steps steps(fixture.open());
    CHECK(steps.found().empty());
    CHECK(steps.last_generation() == 0);
    CHECK(steps.store().usage().bytes_used == 0);
    CHECK_FALSE(steps.store().clean_up(garner::Partial::remove));
  }
  SUBCASE("what is published is whole, is told, and is there after a restart") {
    const std::map<std::string, std::string> files = {{"a.bin", "hello"}, {"b.bin", std::string(70000, 'x')}};
    Generation generation;
    {
      Steps steps(fixture.open());
      generation = steps.published("c", files);
      CHECK(generation == Generation{ChunkId::from_name("c"), DatasetId::from_name("d"), {10, 20}, 70005, 1});
      CHECK(fixture.read(steps.store(), generation, "a.bin") == "hello");
      CHECK(steps.store().usage().bytes_used == 70005);
      CHECK_FALSE(steps.verify(generation));
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == generation);
    CHECK(again.last_generation() == 1);
    CHECK(again.store().usage().bytes_used == 70005);
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    for (const auto& [name, text] : files) CHECK(fixture.read(again.store(), generation, name) == text);
    CHECK_FALSE(again.verify(generation));
  }
  SUBCASE("what is not published is not recovered, and its number is not given again") {
    const std::map<std::string, std::string> files = {{"a.bin", "hello"}};
    {
      Steps steps(fixture.open());
      steps.staged(chunk_of("c", files), files);
    }
    {
      Steps again(fixture.open());
      CHECK(again.found().empty());
      CHECK(again.last_generation() == 1);
      const Generation generation = again.published("c", files);
      CHECK(generation.number == 2);
      // What this run began is none of the clean-up's business.
      auto begun = again.staged(chunk_of("e", files), files);
      CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
      CHECK(fixture.read(again.store(), generation, "a.bin") == "hello");
      again.publish(begun);
    }
    Steps last(fixture.open());
    CHECK(last.found().size() == 2);
    CHECK(last.last_generation() == 3);
  }
  SUBCASE("a file that is not finished keeps the whole from being published") {
    Steps steps(fixture.open());
    auto staging = steps.stage(chunk_of("c", {{"a.bin", "hello"}, {"b.bin", "world"}}));
    auto first = steps.open(staging, "a.bin");
    REQUIRE_FALSE(first.write(bytes_of("hello")));
    REQUIRE_FALSE(first.finish());
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec);
    auto second = steps.open(staging, "b.bin");
    REQUIRE_FALSE(second.write(bytes_of("world")));
    steps.store().publish(staging, ec);
    CHECK(ec);
    REQUIRE_FALSE(second.finish());
    steps.publish(staging);
  }
  SUBCASE("several are published at once, each by itself, where the store can") {
    Steps steps(fixture.open());
    using S = std::remove_reference_t<decltype(steps.store())>;
    if constexpr (garner::BatchStorage<S>) {
      const std::map<std::string, std::string> files = {{"a.bin", "hello"}};
      auto one = steps.staged(chunk_of("c", files), files);
      auto unfinished = steps.stage(chunk_of("e", files));
      auto other = steps.staged(chunk_of("f", files), files);
      std::vector<garner::PublishRequest<typename S::Staging>> requests;
      for (auto* staging : {&one, &unfinished, &other}) requests.push_back({staging, {}, errc::policy_failed});
      steps.store().publish(std::span(requests));
      CHECK(requests[1].error);
      for (const std::size_t i : {0U, 2U}) {
        CHECK_FALSE(requests[i].error);
        CHECK(fixture.read(steps.store(), requests[i].generation, "a.bin") == "hello");
      }
      CHECK(steps.store().usage().bytes_used == 10);
      steps.store().publish(std::span(requests).first(0));
      auto file = steps.open(unfinished, "a.bin");
      REQUIRE_FALSE(file.write(bytes_of("hello")));
      REQUIRE_FALSE(file.finish());
      CHECK(fixture.read(steps.store(), steps.publish(unfinished), "a.bin") == "hello");
    }
  }
  SUBCASE("two generations of one chunk stand side by side") {
    {
      Steps steps(fixture.open());
      const Generation first = steps.published("c", {{"a.bin", "hello"}});
      const Generation second = steps.published("c", {{"a.bin", "world"}});
      CHECK(first.number != second.number);
      CHECK(fixture.read(steps.store(), first, "a.bin") == "hello");
      CHECK(fixture.read(steps.store(), second, "a.bin") == "world");
    }
    CHECK(Steps(fixture.open()).found().size() == 2);
  }
  SUBCASE("files of size zero are files") {
    Steps steps(fixture.open());
    const Generation generation = steps.published("c", {{"empty.bin", ""}, {"none.bin", ""}});
    CHECK(generation.bytes == 0);
    CHECK(fixture.read(steps.store(), generation, "empty.bin") == "");
    CHECK_FALSE(steps.verify(generation));
  }
  SUBCASE("numbers at the ends of their range are kept") {
    Generation generation;
    {
      Steps steps(fixture.open());
      generation = steps.published("c", {{"a.bin", "hello"}}, {UINT64_MAX - 1, UINT64_MAX});
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == generation);
  }
}

template <StorageFixture Fixture>
void removal_contract() {
  Fixture fixture;
  SUBCASE("what is discarded is gone, and leaves nothing to recover") {
    const std::map<std::string, std::string> files = {{"a.bin", "hello"}};
    {
      Steps steps(fixture.open());
      auto staging = steps.staged(chunk_of("c", files), files);
      CHECK_FALSE(steps.store().discard(staging));
      std::error_code ec;
      steps.store().publish(staging, ec);
      CHECK(ec);
    }
    Steps again(fixture.open());
    CHECK(again.found().empty());
    CHECK(again.last_generation() == 0);
  }
  SUBCASE("discarding after publishing takes nothing away") {
    Steps steps(fixture.open());
    auto staging = steps.staged(chunk_of("c", {{"a.bin", "hello"}}), {{"a.bin", "hello"}});
    const Generation generation = steps.publish(staging);
    CHECK_FALSE(steps.store().discard(staging));
    CHECK(fixture.read(steps.store(), generation, "a.bin") == "hello");
  }
  SUBCASE("what is removed is gone, now and after a restart, and its bytes are free") {
    Generation kept;
    {
      Steps steps(fixture.open());
      const Generation removed = steps.published("c", {{"a.bin", "hello"}});
      kept = steps.published("e", {{"a.bin", "world!"}});
      CHECK_FALSE(steps.store().remove(removed));
      CHECK(steps.store().usage().bytes_used == 6);
      CHECK(fixture.read(steps.store(), removed, "a.bin") == std::nullopt);
      CHECK(steps.verify(removed) == errc::no_such_generation);
      std::error_code ec;
      steps.store().describe(removed, ec);
      CHECK(ec == errc::no_such_generation);
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == kept);
    CHECK(again.store().usage().bytes_used == 6);
  }
  SUBCASE("what is quarantined is as good as removed") {
    Generation kept;
    {
      Steps steps(fixture.open());
      const Generation bad = steps.published("c", {{"a.bin", "hello"}});
      kept = steps.published("e", {{"a.bin", "world!"}});
      CHECK_FALSE(steps.store().quarantine(bad, "a reason"));
      CHECK(steps.store().usage().bytes_used == 6);
      CHECK(steps.verify(bad) == errc::no_such_generation);
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == kept);
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    CHECK(again.store().usage().bytes_used == 6);
  }
  SUBCASE("what is doomed is readable until it is removed, and is not recovered") {
    {
      Steps steps(fixture.open());
      const Generation generation = steps.published("c", {{"a.bin", "hello"}});
      CHECK_FALSE(steps.store().doom(generation));
      CHECK_FALSE(steps.store().doom(generation));
      CHECK(fixture.read(steps.store(), generation, "a.bin") == "hello");
    }
    {
      Steps again(fixture.open());
      CHECK(again.found().empty());
      CHECK(again.last_generation() == 1);
      CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
      CHECK(again.store().usage().bytes_used == 0);
      again.published("c", {{"a.bin", "hello"}});
    }
    Steps last(fixture.open());
    REQUIRE(last.found().size() == 1);
    CHECK(last.found().front().number == 2);
  }
  SUBCASE("what is spared is recovered") {
    {
      Steps steps(fixture.open());
      const Generation generation = steps.published("c", {{"a.bin", "hello"}});
      CHECK_FALSE(steps.store().doom(generation));
      CHECK_FALSE(steps.store().spare(generation));
      CHECK_FALSE(steps.store().spare(generation));
    }
    Steps again(fixture.open());
    CHECK(again.found().size() == 1);
    CHECK_FALSE(again.store().clean_up(garner::Partial::remove));
    CHECK_FALSE(again.verify(again.found().front()));
  }
  SUBCASE("what is doomed and removed leaves no mark on the next of its name") {
    {
      Steps steps(fixture.open());
      const Generation generation = steps.published("c", {{"a.bin", "hello"}});
      CHECK_FALSE(steps.store().doom(generation));
      CHECK_FALSE(steps.store().remove(generation));
    }
    {
      Steps again(fixture.open());
      CHECK(again.last_generation() == 0);
      again.published("c", {{"a.bin", "hello"}});
    }
    CHECK(Steps(fixture.open()).found().size() == 1);
  }
}

template <StorageFixture Fixture>
void reading_contract() {
  Fixture fixture;
  SUBCASE("the description comes back with what was found and without secrets") {
    DataChunk asked = chunk_of("c", {{"a.bin", "hello"}, {"b.bin", ""}});
    asked.files["a.bin"].digest = Digest::parse(hello_sha256);
    asked.files["b.bin"].size.reset();
    {
      Steps steps(fixture.open());
      auto staging = steps.staged(asked, {{"a.bin", "hello"}, {"b.bin", "unknown"}});
      steps.publish(staging);
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    std::error_code ec;
    const DataChunk described = again.store().describe(again.found().front(), ec);
    REQUIRE_FALSE(ec);
    DataChunk expected = asked;
    expected.files["a.bin"].urls = {redact_url(asked.files["a.bin"].urls.front())};
    for (auto& [name, source] : expected.files) source.headers.clear();
    expected.files["b.bin"].urls = {redact_url(asked.files["b.bin"].urls.front())};
    expected.files["b.bin"].size = 7;
    CHECK(described == expected);
    CHECK(described.files.at("a.bin").urls.front().find("secret") == std::string::npos);
  }
  SUBCASE("one changed byte is found by verify, in this generation alone") {
    Steps steps(fixture.open());
    const Generation bad = steps.published("c", {{"a.bin", "hello"}, {"b.bin", std::string(600000, 'x')}});
    const Generation good = steps.published("e", {{"a.bin", "hello"}});
    CHECK_FALSE(steps.verify(bad));
    fixture.damage(steps.store(), bad, "b.bin");
    CHECK(steps.verify(bad) == errc::corrupt_chunk);
    CHECK_FALSE(steps.verify(good));
  }
  SUBCASE("verify tells what it reads, and reads no more where that is not wanted") {
    Steps steps(fixture.open());
    const Generation generation = steps.published("c", {{"a.bin", "hello"}, {"b.bin", std::string(600000, 'x')}});
    std::uint64_t read = 0;
    std::uint64_t blocks = 0;
    const auto tell = [&](std::uint64_t bytes) { return read += bytes, ++blocks, true; };
    CHECK_FALSE(steps.store().verify(generation, VerifyDepth::digests, tell));
    CHECK(read == 600005);
    read = blocks = 0;
    const auto stop = [&](std::uint64_t bytes) { return tell(bytes), false; };
    CHECK(steps.store().verify(generation, VerifyDepth::digests, stop) == errc::cancelled);
    CHECK(blocks == 1);
  }
  SUBCASE("where sizes alone are compared, no byte is read, and a changed one is not found") {
    Steps steps(fixture.open());
    const Generation generation = steps.published("c", {{"a.bin", "hello"}, {"b.bin", "world"}});
    const auto never = [](std::uint64_t) { return false; };
    CHECK_FALSE(steps.store().verify(generation, VerifyDepth::sizes, never));
    fixture.damage(steps.store(), generation, "b.bin");
    CHECK_FALSE(steps.store().verify(generation, VerifyDepth::sizes, never));
    CHECK(steps.verify(generation) == errc::corrupt_chunk);
  }
  SUBCASE("a moved store goes on with what was staged") {
    auto first = fixture.open();
    REQUIRE_FALSE(first.recover([](const Generation&) {}).error);
    std::error_code ec;
    auto staging = first.stage(chunk_of("c", {{"a.bin", "hello"}}), 1, ec);
    REQUIRE_FALSE(ec);
    auto second = std::move(first);
    auto file = staging.open("a.bin", ec);
    REQUIRE_FALSE(ec);
    REQUIRE_FALSE(file.write(bytes_of("hello")));
    REQUIRE_FALSE(file.finish());
    const Generation generation = second.publish(staging, ec);
    REQUIRE_FALSE(ec);
    CHECK(fixture.read(second, generation, "a.bin") == "hello");
  }
}

/// The whole suite. Call it in a TEST_CASE of its own.
template <StorageFixture Fixture>
void storage_contract() {
  publishing_contract<Fixture>();
  staged_file_contract<Fixture>();
  partial_contract<Fixture>();
  removal_contract<Fixture>();
  reading_contract<Fixture>();
}

}  // namespace garner::contract
