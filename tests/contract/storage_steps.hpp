// SPDX-License-Identifier: BSL-1.0
//
// What the Storage contract is told with: the fixture that it asks for, and the steps of its tests.
#pragma once

#include <doctest/doctest.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/policies/storage.hpp"

namespace garner::contract {

/// What a fixture must have; it is default-constructed afresh for each case.
///   open()                           a store on the fixture's place; opened again, after the last store is gone,
///                                    it is the same place after a restart
///   read(store, generation, name)    the bytes of a published file, as its readers see them, or nothing
///   damage(store, generation, name)  changes one byte of a published file behind the store's back
template <class F>
concept StorageFixture = std::default_initializable<F> &&
    requires(F& fixture, const Generation& generation, const std::string& name) {
  requires Storage<std::remove_cvref_t<decltype(fixture.open())>>;
  { fixture.read(fixture.open(), generation, name) } -> std::same_as<std::optional<std::string>>;
  fixture.damage(fixture.open(), generation, name);
};

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// Of "hello".
inline constexpr std::string_view hello_sha256 =
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// A chunk of dataset "d" with files whose sizes are declared.
inline DataChunk chunk_of(std::string_view name, const std::map<std::string, std::string>& files,
                          BlockRange range = {10, 20}) {
  DataChunk chunk{ChunkId::from_name(name), DatasetId::from_name("d"), range, {}};
  for (const auto& [file, text] : files) {
    chunk.files[file] = FileSource({"http://user:secret@host/" + file + "?token=abc"}, text.size(), std::nullopt);
    chunk.files[file].headers = {{"Authorization", "Bearer secret"}};
  }
  return chunk;
}

/// One store and the steps of a test on it. Every step must succeed.
template <class S>
class Steps {
 public:
  explicit Steps(S store) : store_(std::move(store)) {
    recovery_ = store_.recover([this](const Generation& generation) { found_.push_back(generation); });
    REQUIRE_FALSE(recovery_.error);
    last_ = recovery_.last_generation;
  }

  S& store() { return store_; }
  [[nodiscard]] const std::vector<Generation>& found() const { return found_; }
  [[nodiscard]] const Recovery& recovery() const { return recovery_; }
  [[nodiscard]] std::uint64_t last_generation() const { return last_; }
  std::uint64_t next() { return ++last_; }

  typename S::Staging stage(const DataChunk& chunk) {
    std::error_code ec;
    auto staging = store_.stage(chunk, next(), ec);
    REQUIRE_FALSE(ec);
    return staging;
  }

  typename S::StagedFile open(typename S::Staging& staging, const std::string& name) const {
    std::error_code ec;
    auto file = staging.open(name, ec);
    REQUIRE_FALSE(ec);
    CHECK(file.size() == 0);
    return file;
  }

  typename S::Staging staged(const DataChunk& chunk, const std::map<std::string, std::string>& files) {
    auto staging = stage(chunk);
    for (const auto& [name, text] : files) {
      auto file = open(staging, name);
      REQUIRE_FALSE(file.write(bytes_of(text)));
      REQUIRE_FALSE(file.finish());
    }
    return staging;
  }

  Generation publish(typename S::Staging& staging) {
    std::error_code ec;
    const Generation generation = store_.publish(staging, ec);
    REQUIRE_FALSE(ec);
    return generation;
  }

  /// Of all its bytes, where not said otherwise.
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth = VerifyDepth::digests) const {
    return store_.verify(generation, depth, [](std::uint64_t) { return true; });
  }

  Generation published(std::string_view name, const std::map<std::string, std::string>& files,
                       BlockRange range = {10, 20}) {
    auto staging = staged(chunk_of(name, files, range), files);
    return publish(staging);
  }

 private:
  S store_;
  Recovery recovery_;
  std::vector<Generation> found_;
  std::uint64_t last_ = 0;
};

template <class S>
Steps(S) -> Steps<S>;

}  // namespace garner::contract
