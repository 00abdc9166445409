// SPDX-License-Identifier: BSL-1.0
//
// A million chunks: memory grows with the ids alone and is given back, and a call costs no more than at a thousand.
// Work is counted (allocations, tasks, bytes), never timed; so this program has an operator new of its own.
#include <doctest/doctest.h>

#include <malloc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <ostream>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/core/actions.hpp"
#include "garner/core/chunk_table.hpp"
#include "garner/data_manager.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/policies/minimal.hpp"
#include "support/memory_world.hpp"
#include "support/refusing_executor.hpp"

namespace {

std::atomic<std::uint64_t> allocations{0};
std::atomic<std::uint64_t> live_bytes{0};

}  // namespace

// The sanitizers have an operator new of their own, and hooks in it.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GARNER_TEST_ALLOCATION_HOOKS
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GARNER_TEST_ALLOCATION_HOOKS
#endif

#ifdef GARNER_TEST_ALLOCATION_HOOKS
// NOLINTBEGIN(bugprone-reserved-identifier): their names
extern "C" {
std::size_t __sanitizer_get_allocated_size(const volatile void* memory);
void __sanitizer_malloc_hook(const volatile void* /*memory*/, std::size_t size) {
  ++allocations;
  live_bytes += size;
}
void __sanitizer_free_hook(const volatile void* memory) {
  if (memory != nullptr) live_bytes -= __sanitizer_get_allocated_size(memory);
}
}
// NOLINTEND(bugprone-reserved-identifier)
#else
namespace {

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  ++allocations;
  live_bytes += malloc_usable_size(memory);
  return memory;
}

void uncounted(void* memory) noexcept {
  live_bytes -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) { return counted(std::malloc(size)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto to = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(to, (size + to - 1) / to * to));
}
void operator delete(void* memory) noexcept { uncounted(memory); }
void operator delete(void* memory, std::size_t) noexcept { uncounted(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { uncounted(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { uncounted(memory); }
#endif

using garner::ChunkId;
using garner::DataChunk;
using garner::Generation;
using garner::Options;
using garner::Status;
using garner::core::Wish;
using garner::test::DrivenFromOutside;
using garner::test::Outside;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t thousand = 1000;
constexpr std::uint64_t million = 1000 * 1000;

/// Holds nothing, so that what is measured is the manager's.
class Forgetful : public garner::minimal::Storage {
 public:
  struct Staging {
    DataChunk chunk;
    std::uint64_t number = 0;
    StagedFile open(const std::string&, std::error_code&) { return {}; }
  };
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code&) { return {chunk, number}; }
  Generation publish(Staging& staging, std::error_code&) {
    return {staging.chunk.id, staging.chunk.dataset_id, staging.chunk.block_range, 0, staging.number};
  }
  std::error_code discard(Staging&) { return {}; }
  DataChunk describe(const Generation&, std::error_code& ec) const {
    ec = garner::errc::no_such_generation;
    return {};
  }
  std::error_code remove(const Generation&) { return {}; }
};

using Manager = garner::DataManager<Forgetful, garner::MemoryDownloader, garner::test::Refusing<DrivenFromOutside>>;

/// The `number`-th chunk; in another order than that of the ids.
DataChunk numbered(std::uint64_t number) {
  static const std::array datasets{garner::test::dataset("a"), garner::test::dataset("b"), garner::test::dataset("c")};
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < 8; ++i)
    bytes.at(i) = static_cast<std::uint8_t>((number * 0x9e3779b97f4a7c15U) >> (i * 8));
  DataChunk chunk;
  chunk.id = ChunkId(bytes);
  chunk.dataset_id = datasets.at(number % datasets.size());
  chunk.block_range = {number * 10, number * 10 + 10};
  chunk.files["f"] = "mem://f";
  return chunk;
}

// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): there is one
struct World {
  World() {
    outside.origin.put("mem://f", "f");
    outside.run();
    before = live_bytes;
  }

  [[nodiscard]] std::uint64_t bytes() const { return live_bytes - before; }

  Outside outside;
  std::uint64_t tasks = 0;
  Manager manager{Forgetful(),
                  garner::MemoryDownloader(outside.origin),
                  {DrivenFromOutside(outside.clock), [this](bool) { ++tasks; }}};
  std::uint64_t before = 0;
};

struct Cost {
  std::uint64_t allocations = 0;
  std::uint64_t tasks = 0;
};

template <class Call>
Cost cost_of(World& world, const Call& call) {
  const Cost before{allocations, world.tasks};
  call();
  world.outside.run();
  return {allocations - before.allocations, world.tasks - before.tasks};
}

/// Of a call about one chunk, among `amount` that are ready.
std::vector<Cost> costs_at(World& world, std::uint64_t amount) {
  Manager& manager = world.manager;
  const DataChunk more = numbered(amount / 2 + million * 10);
  const DataChunk held = numbered(amount / 2);
  return {
      cost_of(world, [&] { manager.download_chunk(held); }),
      cost_of(world, [&] { manager.download_chunk(more); }),
      cost_of(world, [&] { manager.delete_chunk(more.id); }),
      cost_of(world, [&] { manager.delete_chunk(held.id); }),
      cost_of(world, [&] { manager.download_chunk(held); }),
      cost_of(world, [&] { CHECK(manager.find_chunk(held.dataset_id, held.block_range.begin)); }),
      cost_of(world, [&] { CHECK(manager.find_chunks(held.dataset_id, held.block_range).size() == 1); }),
      cost_of(world, [&] { CHECK(manager.chunk_status(held.id)->served); }),
      cost_of(world, [&] { CHECK(manager.status().ready == amount); }),
      cost_of(world, [&] { manager.set_options({}); }),
  };
}

/// The depth of a tree is the logarithm of what it holds: for all these amounts, less than twice as much.
void check_same_order(const std::vector<Cost>& small, const std::vector<Cost>& large) {
  for (std::size_t i = 0; i < small.size(); ++i) {
    CAPTURE(i);
    CHECK(large[i].tasks <= small[i].tasks + 1);
    CHECK(large[i].allocations <= 2 * small[i].allocations + 4);
  }
}

/// The table alone, of one place for a fetch, which never ends.
struct Table : garner::core::ChunkTable {
  Table() : ChunkTable(one_at_a_time(), 1) {}
  static Options one_at_a_time() {
    Options options;
    options.max_concurrent_chunks = 1;
    return options;
  }
};

/// All of one content, whose digest is computed once.
std::vector<Wish> make_wishes(std::uint64_t amount) {
  std::vector<Wish> wishes(amount, Wish(numbered(0)));
  for (std::uint64_t i = 0; i < amount; ++i) wishes[i].chunk = std::make_shared<const DataChunk>(numbered(i));
  return wishes;
}

template <class Call>
std::uint64_t allocations_of(const Call& call) {
  const std::uint64_t before = allocations;
  call();
  return allocations - before;
}

/// What the tables keep for the next so many: an array of pointers each.
constexpr std::uint64_t kept(std::uint64_t amount) { return 200'000 + amount * 32; }

}  // namespace

TEST_CASE("hostile 45: a million ids: memory grows with them alone and is given back, and calls stay cheap") {
  std::vector<std::vector<std::uint64_t>> costs;
  std::vector<std::uint64_t> bytes_each;
  for (const std::uint64_t amount : {thousand, million}) {
    CAPTURE(amount);
    const std::vector<Wish> wishes = make_wishes(amount + 1);
    const std::uint64_t before = live_bytes;
    Table table;
    for (std::uint64_t i = 0; i < amount; ++i) table.download(wishes[i], {});
    for (std::uint64_t i = 0; i < amount; i += 7) table.download(wishes[i], {});
    CHECK(table.actions().size() == 2);
    bytes_each.push_back((live_bytes - before) / amount);
    const DataChunk& some = *wishes[amount / 2].chunk;
    costs.push_back({
        allocations_of([&] { table.download(wishes[amount], {}); }),
        allocations_of([&] { table.remove(wishes[amount].chunk->id, {}); }),
        allocations_of([&] { table.remove(some.id, {}); }),
        allocations_of([&] { table.download(wishes[amount / 2], {}); }),
        allocations_of([&] { CHECK(table.chunk_status(some.id, {})->wanted); }),
        allocations_of([&] {
          Options options;
          table.set_options(options, {});
        }),
    });
    for (const Wish& wish : wishes) table.remove(wish.chunk->id, {});
    CHECK(table.actions().size() < 100);
    CHECK(live_bytes - before < kept(amount));
  }
  CHECK(bytes_each[1] < 2 * bytes_each[0]);
  for (std::size_t i = 0; i < costs[0].size(); ++i) {
    CAPTURE(i);
    CHECK(costs[1][i] <= 2 * costs[0][i] + 4);
  }
}

TEST_CASE("hostile 45: many chunks that are ready: memory grows with them alone, and calls stay cheap") {
  std::vector<std::vector<Cost>> costs;
  std::vector<std::uint64_t> bytes_each;
  for (const std::uint64_t amount : {thousand, 20 * thousand}) {
    CAPTURE(amount);
    World world;
    const Cost all = cost_of(world, [&] {
      for (std::uint64_t i = 0; i < amount; ++i) world.manager.download_chunk(numbered(i));
    });
    CHECK(all.tasks < amount * 8);
    bytes_each.push_back(world.bytes() / amount);
    costs.push_back(costs_at(world, amount));
    const std::uint64_t held = world.bytes();
    const Cost again = cost_of(world, [&] {
      for (std::uint64_t i = 0; i < amount; ++i) world.manager.download_chunk(numbered(i));
    });
    CHECK(again.tasks == 0);
    CHECK(world.bytes() <= held + 1000);
    for (std::uint64_t i = 0; i < amount; ++i) world.manager.delete_chunk(numbered(i).id);
    world.outside.run();
    CHECK(world.manager.list_chunks().empty());
    CHECK(world.manager.status().chunks_removed == world.manager.status().chunks_published);
    CHECK(world.bytes() < kept(amount));
  }
  CHECK(bytes_each[1] < 2 * bytes_each[0]);
  check_same_order(costs[0], costs[1]);
}

TEST_CASE("hostile 45: an assignment of a million: a repeated one adds nothing, and an empty one gives all back") {
  std::vector<std::uint64_t> bytes_each;
  for (const std::uint64_t amount : {thousand, million}) {
    CAPTURE(amount);
    const std::vector<Wish> wishes = make_wishes(amount);
    const std::uint64_t before = live_bytes;
    Table table;
    CHECK(allocations_of([&] { table.assign(wishes, {}); }) < 8 * amount);
    CHECK(table.actions().size() == 2);
    const std::uint64_t held = live_bytes - before;
    bytes_each.push_back(held / amount);
    CHECK(allocations_of([&] { table.assign(wishes, {}); }) <= 2 * amount);
    CHECK(table.actions().size() == 2);
    CHECK(live_bytes - before < held + 1000);
    table.assign({}, {});
    Status status;
    table.fill(status);
    CHECK(status.queued + status.downloading == 0);
    CHECK(live_bytes - before < kept(amount));
  }
  CHECK(bytes_each[1] < 2 * bytes_each[0]);
}

TEST_CASE("hostile 45: an assignment of many to a manager: all is done for each once, and given back") {
  constexpr std::uint64_t amount = 20 * thousand;
  World world;
  const std::uint64_t without = live_bytes;
  std::vector<DataChunk> chunks;
  for (std::uint64_t i = 0; i < amount; ++i) chunks.push_back(numbered(i));
  const std::uint64_t mine = live_bytes - without;
  CHECK(cost_of(world, [&] { world.manager.set_assignment(chunks); }).tasks < amount * 8);
  CHECK(world.manager.status().ready == amount);
  CHECK(cost_of(world, [&] { world.manager.set_assignment(chunks); }).tasks == 0);
  CHECK(cost_of(world, [&] { world.manager.set_assignment({}); }).tasks < amount * 4);
  CHECK(world.manager.status().chunks_removed == amount);
  CHECK(world.bytes() - mine < kept(amount));
}
