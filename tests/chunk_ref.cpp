// SPDX-License-Identifier: BSL-1.0
//
// Pins: who owns what is pinned while it is listed, in slots and counted; when it is told that the last one is gone;
// and that on many threads at once.
#include "garner/chunk_ref.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "garner/core/epoch.hpp"
#include "garner/core/schedule.hpp"
#include "garner/storage/memory_storage.hpp"

using garner::ChunkId;
using garner::DatasetId;
using garner::Generation;
using garner::MemoryStorage;
using garner::core::Random;
using Host = garner::detail::PinHost<MemoryStorage>;
using Home = garner::detail::PinHome<MemoryStorage>;
using Pinned = garner::detail::Pinned<MemoryStorage>;
using Ref = garner::DataChunkRef<MemoryStorage>;

namespace {

class Drained final : public garner::detail::DrainListener {
 public:
  void drained(const Generation& generation, const void*) noexcept override {
    const std::scoped_lock lock(mutex_);
    numbers_.push_back(generation.number);
  }
  [[nodiscard]] std::size_t times() const {
    const std::scoped_lock lock(mutex_);
    return numbers_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> numbers_;
};

struct World {
  Drained told;
  std::shared_ptr<Host> host = std::make_shared<Host>(MemoryStorage(), &told);

  World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() { host->detach(); }

  /// As the index has it.
  const Pinned* list(std::uint64_t number = 1) const {
    const Generation generation{ChunkId::from_name("chunk"), DatasetId::from_name("dataset"), {0, 10}, 1, number, 0};
    const std::unique_ptr<const Home, garner::detail::Release> home(new Home(generation.dataset_id, host));
    const auto* const pinned = new Pinned(generation, *home);  // its owners delete it
    pinned->listed();
    return pinned;
  }
  [[nodiscard]] Ref pin(const Pinned* listed) const { return {*listed, host->slots()}; }
};

}  // namespace

TEST_CASE("what is listed is kept, and without a pin it is drained when it is unlisted") {
  World world;
  const Pinned* listed = world.list();
  CHECK(world.told.times() == 0);
  { const Ref ref = world.pin(listed); }
  CHECK(world.told.times() == 0);
  listed->unlisted();
  CHECK(world.told.times() == 1);
}

TEST_CASE("a pin keeps what is unlisted until it is dropped, however often it was moved and copied") {
  World world;
  const Pinned* listed = world.list(7);
  std::optional<Ref> ref = world.pin(listed);
  listed->unlisted();
  CHECK(world.told.times() == 0);
  CHECK(ref->generation() == 7);
  std::optional<Ref> moved = std::move(*ref);
  ref.reset();
  std::optional<Ref> copied = *moved;
  Ref again = *copied;
  moved.reset();
  CHECK(world.told.times() == 0);
  again = *copied;
  copied.reset();
  CHECK(again.generation() == 7);
  CHECK(world.told.times() == 0);
  Ref last = std::move(again);
  CHECK(world.told.times() == 0);
  const Pinned* other = world.list(8);
  last = world.pin(other);
  CHECK(world.told.times() == 1);
  other->unlisted();
}

TEST_CASE("a pin that is assigned to itself, or to what was moved from, stays what it was") {
  World world;
  const Pinned* listed = world.list(7);
  Ref ref = world.pin(listed);
  const Ref& same = ref;
  ref = same;
  CHECK(ref.generation() == 7);
  Ref other = std::move(ref);
  ref = std::move(other);
  CHECK(ref.generation() == 7);
  listed->unlisted();
  CHECK(world.told.times() == 0);
}

TEST_CASE("more pins than a thread has slots are counted, and all of them count") {
  World world;
  const Pinned* listed = world.list();
  std::vector<Ref> refs;
  refs.reserve(100);
  for (int i = 0; i < 100; ++i) refs.push_back(world.pin(listed));
  listed->unlisted();
  Random random(1);
  while (!refs.empty()) {
    CHECK(world.told.times() == 0);
    refs.erase(refs.begin() + static_cast<std::ptrdiff_t>(random.next() % refs.size()));
  }
  CHECK(world.told.times() == 1);
}

TEST_CASE("what is listed again while pins keep it is drained once, after the last of both times") {
  World world;
  const Pinned* listed = world.list();
  std::optional<Ref> first = world.pin(listed);
  listed->listed();
  std::optional<Ref> second = world.pin(listed);
  listed->unlisted();  // the first time is over for all readers only now
  CHECK(world.told.times() == 0);
  first.reset();
  std::optional<Ref> third = world.pin(listed);
  listed->unlisted();
  second.reset();
  CHECK(world.told.times() == 0);
  third.reset();
  CHECK(world.told.times() == 1);
}

TEST_CASE("a pin outlives the thread that took it, whose slots another thread then has") {
  World world;
  std::vector<Ref> refs;
  std::vector<const Pinned*> listed;
  for (std::uint64_t i = 0; i < 20; ++i) {
    listed.push_back(world.list(i));
    std::thread([&] {
      refs.push_back(world.pin(listed.back()));
      const Ref another = world.pin(listed.back());
    }).join();
  }
  for (const Pinned* pinned : listed) pinned->unlisted();
  CHECK(world.told.times() == 0);
  for (std::uint64_t i = 0; i < refs.size(); ++i) CHECK(refs[i].generation() == i);
  refs.clear();
  CHECK(world.told.times() == 20);
}

TEST_CASE("the last pin may be dropped after everything else is gone") {
  std::optional<Ref> ref;
  {
    World world;
    const Pinned* listed = world.list(7);
    ref = world.pin(listed);
    listed->unlisted();
  }
  CHECK(ref->generation() == 7);
  ref.reset();
}

TEST_CASE("threads that take, copy, hand on and drop pins while it is unlisted: it is drained once, and after them") {
  // What a reader may come upon, and a grace period, as the index has them.
  for (int round = 0; round < 200; ++round) {
    World world;
    using Garbage = std::unique_ptr<const Pinned, garner::detail::Unlist<MemoryStorage>>;
    garner::core::Epochs<Garbage> epochs;
    std::atomic<const Pinned*> shared = world.list();
    std::atomic<int> begun{0};
    std::atomic<std::uint64_t> alive{0};
    std::mutex mutex;
    std::vector<Ref> handed;
    const auto use = [&](std::uint64_t seed) {
      Random random(seed);
      ++begun;
      std::vector<Ref> mine;
      while (true) {
        {
          const auto guard = epochs.enter();
          const Pinned* listed = shared.load();
          if (listed == nullptr) break;
          mine.push_back(world.pin(listed));
        }
        if (random.next() % 3 == 0) mine.push_back(mine.back());
        if (random.next() % 4 == 0) {
          const std::scoped_lock lock(mutex);
          if (!handed.empty()) mine.front() = handed.back();
          handed.push_back(std::move(mine.back()));
          mine.pop_back();
        }
        if (mine.size() > random.next() % 30) mine.clear();
        for (const Ref& ref : mine) alive += ref.generation();
      }
      for (const Ref& ref : mine) CHECK(ref.generation() == 1);
      CHECK((mine.empty() || world.told.times() == 0));
    };
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) threads.emplace_back(use, static_cast<std::uint64_t>(round) * 3 + i);
    while (begun.load() < 3 || alive.load() < 20) std::this_thread::yield();
    epochs.retire(Garbage(shared.exchange(nullptr)));
    while (epochs.pending()) {
      std::vector<Garbage> garbage;
      epochs.collect(garbage);
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(world.told.times() == (handed.empty() ? 1 : 0));
    handed.clear();
    CHECK(world.told.times() == 1);
  }
}
