// SPDX-License-Identifier: BSL-1.0
//
// Deferred reclamation: nothing is given back while a reader may see it, and everything is once they have left.
#include "garner/core/epoch.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

using Garbage = std::shared_ptr<const void>;
using Epochs = garner::core::Epochs<Garbage>;

namespace {

/// Counts its own end.
struct Counted {
  explicit Counted(int& count) : ended(count) {}
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { ++ended; }
  int& ended;
};

struct Reader {
  explicit Reader(const Epochs& epochs) : guard(epochs.enter()) {}
  Epochs::Guard guard;
};
std::unique_ptr<Reader> enter(const Epochs& epochs) { return std::make_unique<Reader>(epochs); }

void collect_and_destroy(Epochs& epochs) {
  std::vector<Garbage> garbage;
  epochs.collect(garbage);
}

}  // namespace

TEST_CASE("what is retired while nobody is inside is given back at once") {
  Epochs epochs;
  int ended = 0;
  CHECK_FALSE(epochs.pending());
  epochs.retire(std::make_unique<Counted>(ended));
  CHECK(epochs.pending());
  std::vector<Garbage> garbage;
  epochs.collect(garbage);
  CHECK(garbage.size() == 1);
  CHECK_FALSE(epochs.pending());
  CHECK(ended == 0);
  garbage.clear();
  CHECK(ended == 1);
}

TEST_CASE("what was retired while a reader is inside is kept until it has left") {
  Epochs epochs;
  int ended = 0;
  {
    const auto guard = epochs.enter();
    epochs.retire(std::make_unique<Counted>(ended));
    for (int i = 0; i < 5; ++i) collect_and_destroy(epochs);
    CHECK(ended == 0);
    CHECK(epochs.pending());
  }
  collect_and_destroy(epochs);
  CHECK(ended == 1);
  CHECK_FALSE(epochs.pending());
}

TEST_CASE("what is retired while older garbage waits has a wait of its own") {
  Epochs epochs;
  int ended = 0;
  {
    const auto guard = epochs.enter();
    epochs.retire(std::make_unique<Counted>(ended));
    collect_and_destroy(epochs);
    epochs.retire(std::make_unique<Counted>(ended));
    collect_and_destroy(epochs);
    CHECK(ended == 0);
  }
  {
    const auto guard = epochs.enter();
    collect_and_destroy(epochs);
    CHECK(ended <= 1);  // the second may have been seen by the reader that is inside
  }
  collect_and_destroy(epochs);
  CHECK(ended == 2);
}

TEST_CASE("readers that keep coming do not hold back what was retired before they came") {
  Epochs epochs;
  int ended = 0;
  auto inside = enter(epochs);
  epochs.retire(std::make_unique<Counted>(ended));
  for (int i = 0; i < 4; ++i) {
    collect_and_destroy(epochs);
    // The next enters before the last leaves, so there is always one inside.
    auto next = enter(epochs);
    inside = std::move(next);
  }
  CHECK(ended == 1);
}

TEST_CASE("garbage that is never collected ends with the epochs") {
  int ended = 0;
  {
    Epochs epochs;
    const auto other = std::make_unique<Epochs>();
    epochs.retire(std::make_unique<Counted>(ended));
    other->retire(std::make_unique<Counted>(ended));
    const auto guard = other->enter();
    collect_and_destroy(*other);
  }
  CHECK(ended == 2);
}

TEST_CASE("readers on many threads never see what was given back") {
  struct Box {
    std::uint64_t first;
    std::uint64_t second;
    ~Box() { first = second = 0; }
  };
  Epochs epochs;
  std::atomic<Box*> current{new Box{1, 1}};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> torn{0};
  std::vector<std::thread> readers;
  readers.reserve(3);
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const auto guard = epochs.enter();
        const Box* box = current.load(std::memory_order_seq_cst);
        if (box->first == 0 || box->first != box->second) ++torn;
      }
    });
  }
  for (std::uint64_t i = 2; i < 20000; ++i) {
    epochs.retire(std::unique_ptr<Box>(current.exchange(new Box{i, i}, std::memory_order_seq_cst)));
    if (i % 7 == 0) collect_and_destroy(epochs);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  collect_and_destroy(epochs);
  CHECK_FALSE(epochs.pending());
  CHECK(torn == 0);
  delete current.load();
}
