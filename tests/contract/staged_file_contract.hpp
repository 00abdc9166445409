// SPDX-License-Identifier: BSL-1.0
//
// What a Storage promises of staged files: their sizes, their digests, restarts, and files that are written at the same
// time. A part of the suite in contract/storage_contract.hpp.
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

}  // namespace garner::contract
