// SPDX-License-Identifier: BSL-1.0
//
// The contract of a Storage, over those that garner brings.
#include "contract/storage_contract.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "garner/storage/filesystem_storage.hpp"
#include "garner/storage/memory_storage.hpp"
#include "support/temp_dir.hpp"

namespace {

using garner::Digest;
using garner::errc;
using garner::FilesystemStorage;
using garner::Generation;
using garner::MemoryStorage;
using garner::contract::bytes_of;
using garner::contract::chunk_of;
using garner::contract::storage_contract;

template <garner::Durability durability>
class OnDisk {
 public:
  FilesystemStorage open() {
    garner::Options options;
    options.durability = durability;
    return FilesystemStorage(dir_ / "data", options);
  }
  static std::optional<std::string> read(const FilesystemStorage& store, const Generation& generation,
                                         const std::string& name) {
    std::ifstream file(store.location(generation) / name, std::ios::binary);
    if (!file) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static void damage(const FilesystemStorage& store, const Generation& generation, const std::string& name) {
    std::fstream file(store.location(generation) / name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3);
    file.put('!');
    REQUIRE(file.good());
  }

 private:
  garner::test::TempDir dir_;
};

class InMemory {
 public:
  MemoryStorage open() { return MemoryStorage(disk_); }
  static std::optional<std::string> read(const MemoryStorage& store, const Generation& generation,
                                         const std::string& name) {
    const MemoryStorage::Location chunk = store.location(generation);
    if (!chunk || !chunk->files.contains(name)) return std::nullopt;
    std::string text;
    for (const std::byte byte : chunk->files.at(name)) text += static_cast<char>(byte);
    return text;
  }
  static void damage(const MemoryStorage& store, const Generation& generation, const std::string& name) {
    const_cast<garner::MemoryChunk&>(*store.location(generation)).files.at(name).at(3) ^= std::byte{1};
  }

 private:
  std::shared_ptr<MemoryStorage::Disk> disk_ = std::make_shared<MemoryStorage::Disk>();
};

TEST_CASE("FilesystemStorage is a Storage") { storage_contract<OnDisk<garner::Durability::full>>(); }
TEST_CASE("FilesystemStorage without syncs is a Storage") { storage_contract<OnDisk<garner::Durability::relaxed>>(); }
TEST_CASE("MemoryStorage is a Storage") { storage_contract<InMemory>(); }

TEST_CASE("a MemoryStorage has room for its capacity, staged bytes included") {
  MemoryStorage store(std::uint64_t{8});
  std::error_code ec;
  auto staging = store.stage(chunk_of("c", {{"a.bin", "hello"}, {"b.bin", "world"}}), 1, ec);
  auto first = staging.open("a.bin", ec);
  auto second = staging.open("b.bin", ec);
  CHECK_FALSE(first.write(bytes_of("hello")));
  CHECK(second.write(bytes_of("worl")) == errc::no_space);
  CHECK(second.size() == 0);
  CHECK_FALSE(second.write(bytes_of("wor")));
  CHECK(store.usage().bytes_free == 0);
  CHECK(store.usage().bytes_used == 0);
  CHECK_FALSE(first.restart());
  CHECK_FALSE(second.write(bytes_of("ld")));
  CHECK(store.usage().bytes_free == 3);
  CHECK_FALSE(store.discard(staging));
  CHECK(store.usage().bytes_free == 8);
}

TEST_CASE("a MemoryStorage's location keeps its bytes when the generation is removed and the store is gone") {
  MemoryStorage::Location location;
  {
    MemoryStorage store;
    garner::contract::Steps steps(std::move(store));
    const Generation generation = steps.published("c", {{"a.bin", "hello"}});
    location = steps.store().location(generation);
    CHECK_FALSE(steps.store().remove(generation));
    CHECK(steps.store().location(generation) == nullptr);
  }
  CHECK(location->files.at("a.bin").size() == 5);
}

TEST_CASE("a MemoryStorage checks the digests that its check knows") {
  garner::DataChunk chunk = chunk_of("c", {{"a.bin", "hello"}});
  chunk.files["a.bin"].digest = Digest::parse("md5:00000000000000000000000000000000");
  const auto finish = [&chunk](MemoryStorage store) {
    std::error_code ec;
    auto staging = store.stage(chunk, 1, ec);
    auto file = staging.open("a.bin", ec);
    CHECK_FALSE(file.write(bytes_of("hello")));
    return file.finish();
  };
  CHECK(finish(MemoryStorage()) == std::error_code());
  const auto refuse = [](const Digest&, std::span<const std::byte>) { return false; };
  CHECK(finish(MemoryStorage(std::make_shared<MemoryStorage::Disk>(), refuse)) == errc::digest_mismatch);
}

TEST_CASE("a MemoryStorage's disk is used by one store at a time") {
  const auto disk = std::make_shared<MemoryStorage::Disk>();
  {
    const MemoryStorage store(disk);
    CHECK_THROWS_AS(MemoryStorage{disk}, garner::Error);
  }
  CHECK_NOTHROW(MemoryStorage{disk});
}

}  // namespace
