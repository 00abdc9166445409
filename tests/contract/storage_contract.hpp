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
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

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
    CHECK_FALSE(steps.store().clean_up());
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
      CHECK_FALSE(steps.store().verify(generation));
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == generation);
    CHECK(again.last_generation() == 1);
    CHECK(again.store().usage().bytes_used == 70005);
    CHECK_FALSE(again.store().clean_up());
    for (const auto& [name, text] : files) CHECK(fixture.read(again.store(), generation, name) == text);
    CHECK_FALSE(again.store().verify(generation));
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
      CHECK_FALSE(again.store().clean_up());
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
    CHECK_FALSE(steps.store().verify(generation));
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
void staged_file_contract() {
  Fixture fixture;
  SUBCASE("bytes come in pieces, and the size counts them") {
    Steps steps(fixture.open());
    DataChunk chunk = chunk_of("c", {{"a.bin", ""}});
    chunk.files["a.bin"].size.reset();
    auto staging = steps.stage(chunk);
    auto file = steps.open(staging, "a.bin");
    std::string all;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{300000}}) {
      const std::string piece(size, static_cast<char>('a' + all.size() % 26));
      REQUIRE_FALSE(file.write(bytes_of(piece)));
      all += piece;
      CHECK(file.size() == all.size());
    }
    REQUIRE_FALSE(file.finish());
    const Generation generation = steps.publish(staging);
    CHECK(generation.bytes == all.size());
    CHECK(fixture.read(steps.store(), generation, "a.bin") == all);
  }
  SUBCASE("a byte beyond the declared size is refused, a byte short is noticed") {
    Steps steps(fixture.open());
    auto staging = steps.stage(chunk_of("c", {{"a.bin", "hello"}}));
    auto file = steps.open(staging, "a.bin");
    CHECK(file.write(bytes_of("hello!")) == errc::body_too_long);
    CHECK(file.size() <= 5);
    REQUIRE_FALSE(file.restart());
    REQUIRE_FALSE(file.write(bytes_of("hell")));
    CHECK(file.finish() == errc::body_too_short);
    REQUIRE_FALSE(file.write(bytes_of("o")));
    CHECK(file.write(bytes_of("!")) == errc::body_too_long);
    CHECK(file.finish() == std::error_code());
    CHECK(fixture.read(steps.store(), steps.publish(staging), "a.bin") == "hello");
  }
  SUBCASE("wrong bytes of the right length are told by their digest, and can be fetched again") {
    Steps steps(fixture.open());
    DataChunk chunk = chunk_of("c", {{"a.bin", "hello"}});
    chunk.files["a.bin"].digest = Digest::parse(hello_sha256);
    auto staging = steps.stage(chunk);
    auto file = steps.open(staging, "a.bin");
    REQUIRE_FALSE(file.write(bytes_of("jello")));
    CHECK(file.finish() == errc::digest_mismatch);
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec);
    REQUIRE_FALSE(file.restart());
    CHECK(file.size() == 0);
    REQUIRE_FALSE(file.write(bytes_of("hel")));
    REQUIRE_FALSE(file.write(bytes_of("lo")));
    REQUIRE_FALSE(file.finish());
    CHECK(fixture.read(steps.store(), steps.publish(staging), "a.bin") == "hello");
  }
  SUBCASE("restart leaves nothing of what was longer") {
    Steps steps(fixture.open());
    DataChunk chunk = chunk_of("c", {{"a.bin", ""}});
    chunk.files["a.bin"].size.reset();
    auto staging = steps.stage(chunk);
    auto file = steps.open(staging, "a.bin");
    REQUIRE_FALSE(file.write(bytes_of(std::string(100000, 'x'))));
    REQUIRE_FALSE(file.restart());
    REQUIRE_FALSE(file.write(bytes_of("short")));
    REQUIRE_FALSE(file.finish());
    CHECK(fixture.read(steps.store(), steps.publish(staging), "a.bin") == "short");
  }
  SUBCASE("opened again, a file is empty again") {
    Steps steps(fixture.open());
    auto staging = steps.staged(chunk_of("c", {{"a.bin", "hello"}}), {{"a.bin", "hello"}});
    auto file = steps.open(staging, "a.bin");
    std::error_code ec;
    steps.store().publish(staging, ec);
    CHECK(ec);
    REQUIRE_FALSE(file.write(bytes_of("world")));
    REQUIRE_FALSE(file.finish());
    CHECK(fixture.read(steps.store(), steps.publish(staging), "a.bin") == "world");
  }
  SUBCASE("a name that the description does not have is refused") {
    Steps steps(fixture.open());
    auto staging = steps.stage(chunk_of("c", {{"a.bin", "hello"}}));
    for (const std::string name : {"b.bin", "../a.bin", "", "."}) {
      std::error_code ec;
      staging.open(name, ec);
      CHECK(ec == errc::invalid_file_name);
    }
  }
  SUBCASE("the files of one staging area are written at the same time") {
    Steps steps(fixture.open());
    std::map<std::string, std::string> files;
    for (char c = 'a'; c < 'i'; ++c) files[std::string(1, c) + ".bin"] = std::string(200000, c);
    auto staging = steps.stage(chunk_of("c", files));
    std::vector<typename std::remove_cvref_t<decltype(steps.store())>::StagedFile> opened;
    opened.reserve(files.size());
    for (const auto& [name, text] : files) opened.push_back(steps.open(staging, name));
    std::vector<std::thread> threads;
    threads.reserve(files.size());
    std::array<std::error_code, 8> errors;
    auto file = opened.begin();
    auto* error = errors.data();
    for (const auto& [name, bytes] : files) {
      threads.emplace_back([&text = bytes, &to = *file++, &ec = *error++] {
        for (std::size_t at = 0; at < text.size() && !ec; at += 10000) {
          ec = to.write(bytes_of(std::string_view(text).substr(at, 10000)));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::error_code& ec : errors) CHECK_FALSE(ec);
    for (auto& done : opened) CHECK_FALSE(done.finish());
    const Generation generation = steps.publish(staging);
    for (const auto& [name, text] : files) CHECK(fixture.read(steps.store(), generation, name) == text);
  }
  SUBCASE("different generations are staged, published and removed at the same time") {
    Steps steps(fixture.open());
    auto& store = steps.store();
    const std::map<std::string, std::string> files = {{"a.bin", "hello"}};
    std::vector<std::thread> threads;
    threads.reserve(4);
    std::array<std::error_code, 4> errors;
    for (std::size_t i = 0; i < errors.size(); ++i) {
      threads.emplace_back([&store, &files, &ec = errors[i], i] {
        for (std::uint64_t round = 0; round < 10 && !ec; ++round) {
          DataChunk chunk = chunk_of("c" + std::to_string(i), files);
          chunk.dataset_id = DatasetId::from_name("d" + std::to_string(round));
          auto staging = store.stage(chunk, 1 + round * 4 + i, ec);
          if (ec) return;
          auto file = staging.open("a.bin", ec);
          if (!ec) ec = file.write(bytes_of("hello"));
          if (!ec) ec = file.finish();
          if (ec) return;
          const Generation generation = store.publish(staging, ec);
          if (!ec) ec = store.doom(generation);
          if (!ec && round % 2 == 0) ec = store.remove(generation);
          if (!ec && round % 2 != 0) ec = store.spare(generation);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::error_code& ec : errors) CHECK_FALSE(ec);
    CHECK(store.usage().bytes_used == 4 * 5 * 5);
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
      CHECK(steps.store().verify(removed) == errc::no_such_generation);
      std::error_code ec;
      steps.store().describe(removed, ec);
      CHECK(ec == errc::no_such_generation);
    }
    Steps again(fixture.open());
    REQUIRE(again.found().size() == 1);
    CHECK(again.found().front() == kept);
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
      CHECK_FALSE(again.store().clean_up());
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
    CHECK_FALSE(again.store().clean_up());
    CHECK_FALSE(again.store().verify(again.found().front()));
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
    expected.files["b.bin"].urls = {redact_url(asked.files["b.bin"].urls.front())};
    expected.files["b.bin"].size = 7;
    CHECK(described == expected);
    CHECK(described.files.at("a.bin").urls.front().find("secret") == std::string::npos);
  }
  SUBCASE("one changed byte is found by verify, in this generation alone") {
    Steps steps(fixture.open());
    const Generation bad = steps.published("c", {{"a.bin", "hello"}, {"b.bin", std::string(600000, 'x')}});
    const Generation good = steps.published("e", {{"a.bin", "hello"}});
    CHECK_FALSE(steps.store().verify(bad));
    fixture.damage(steps.store(), bad, "b.bin");
    CHECK(steps.store().verify(bad) == errc::corrupt_chunk);
    CHECK_FALSE(steps.store().verify(good));
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
  removal_contract<Fixture>();
  reading_contract<Fixture>();
}

}  // namespace garner::contract
