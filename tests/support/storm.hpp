// SPDX-License-Identifier: BSL-1.0
//
// A manager in a storm: callers, pinners, observers that call back, faults and changing options, each on a thread of
// its own, and a model of what may be found meanwhile and must be found in the end. For any Storage; made for
// sanitizers.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"
#include "garner/data_manager.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "support/memory_world.hpp"
#include "support/refusing_executor.hpp"

namespace garner::test {

/// Chunks 0 to 8 come and go, each by the calls of one caller; 9 by those of an observer; the last two are replaced and
/// never deleted.
constexpr std::uint64_t storm_chunks = 12;
constexpr std::uint64_t storm_owned = 9;
constexpr std::uint64_t storm_callers = 3;

/// Version 1 or 2 of a chunk, of two files.
inline DataChunk storm_chunk(std::uint64_t number, int version) {
  DataChunk out = chunk("c" + std::to_string(number), number * 10, version);
  out.files["more"] = out.files.at("data").urls[0] + "/more";
  return out;
}

/// The version whose files are all there under the pin; 0 where it is not whole.
template <class Ref>
int version_of(const Ref& ref) {
  const auto read = [&ref](const std::string& name) {
    if constexpr (requires { ref.path(); }) {
      std::ifstream file(ref.path() / name, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file), {});
    } else {
      const auto place = ref.location();
      if (place == nullptr) return std::string();
      const auto& bytes = place->files.at(name);
      return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
  };
  for (const int version : {1, 2}) {
    const DataChunk expected = storm_chunk(ref.block_range().begin / 10, version);
    const bool whole = std::all_of(expected.files.begin(), expected.files.end(), [&](const auto& file) {
      return read(file.first) == "bytes of " + file.second.urls[0];
    });
    if (whole && ref.id() == expected.id) return version;
  }
  return 0;
}

/// What the calls about one chunk add up to. `download` is told before the call, `remove` after it has returned: so
/// while `turn` stays the same and odd, nobody may find the chunk. One caller at a time; `turn` for all.
struct StormModel {
  std::atomic<std::uint64_t> turn{1};
  std::atomic<int> version{0};  ///< wanted; 0: none

  void download(int wanted) {
    version = wanted;
    if (turn % 2 != 0) ++turn;
  }
  void remove() {
    version = 0;
    if (turn % 2 == 0) ++turn;
  }
};

template <class S>
class Storm {
 public:
  using Manager = DataManager<S, MemoryDownloader, Refusing<AsioExecutor>>;
  using Ref = typename Manager::ChunkRef;

  static Options quick() {
    Options options;
    options.min_backoff = std::chrono::microseconds(1);
    options.max_backoff = std::chrono::milliseconds(1);
    options.no_space_retry = std::chrono::milliseconds(1);
    return options;
  }

  /// `seed`: of all that is random in it; also says how many threads the manager has, and every fourth has an executor
  /// that refuses tasks.
  Storm(S storage, std::uint64_t seed) : seed_(seed) {
    for (std::uint64_t number = 0; number < storm_chunks; ++number) {
      for (const int version : {1, 2}) outside.offer(storm_chunk(number, version));
    }
    const auto admit = [this, count = std::make_shared<std::atomic<std::uint64_t>>(seed)](bool) {
      if (seed_ % 4 == 3 && core::Random(++*count).next() % 8 == 0) throw std::bad_alloc();
    };
    manager = std::make_unique<Manager>(
        std::move(storage),
        MemoryDownloader(outside.origin, [this](std::function<void()> f) { network_.post(std::move(f)); }),
        Refusing(AsioExecutor(1 + static_cast<unsigned>(seed % 3)), Refusing<AsioExecutor>::Admit(admit)), quick());
    second_ = subscribe_second();
    subscriptions_.push_back(manager->subscribe([this](const Event& event) { check_order(event); }));
    subscriptions_.push_back(manager->subscribe([this](const Event& event) { call_back(event); }));
    subscriptions_.push_back(manager->subscribe([](const Event&) { throw std::runtime_error("observer"); }));
  }

  /// Lets `calls` calls of each caller come over it. With `close`: two of them close it half-way.
  void rage(int calls, bool close = false) {
    stop_ = false;
    for (std::uint64_t number = storm_owned + 1; number < storm_chunks; ++number) download(number, 1);
    REQUIRE(manager->wait_converged(std::chrono::minutes(1)));
    std::vector<std::thread> callers;
    std::vector<std::thread> others;
    for (std::uint64_t i = 0; i < storm_callers; ++i) {
      callers.emplace_back([this, i, calls, close] { call(i, calls, close); });
    }
    for (std::uint64_t i = 0; i < 2; ++i) others.emplace_back([this, i] { pin(i); });
    others.emplace_back([this] { disturb(); });
    for (std::thread& thread : callers) thread.join();
    stop_ = true;
    for (std::thread& thread : others) thread.join();
    calm();
    CHECK(wrong == 0);
  }

  /// Observers call back no more.
  void calm() {
    const std::scoped_lock lock(calling_back_);
    stop_ = true;
  }

  /// After it: the last calls have won. Returns how many chunks are wanted.
  std::size_t agree(bool keep_pins = true) {
    manager->set_options(quick());
    for (auto& [url, held] : held_) {
      outside.origin.release(url);
      held = false;
    }
    if (!keep_pins || pins.size() > 100) pins.clear();
    REQUIRE(manager->wait_converged(std::chrono::minutes(1)));
    std::size_t wanted = 0;
    for (std::uint64_t number = 0; number < storm_chunks; ++number) {
      CAPTURE(number);
      const auto found = manager->find_chunk(dataset(), number * 10);
      CHECK((found ? version_of(*found) : 0) == model[number].version);
      if (model[number].version != 0) ++wanted;
    }
    for (const Ref& ref : pins) CHECK(version_of(ref) != 0);
    return wanted;
  }

  /// And nothing is left when the pins and the chunks are gone.
  void settle(bool keep_pins = true) {
    const std::size_t wanted = agree(keep_pins);
    pins.clear();
    REQUIRE(manager->wait_converged(std::chrono::minutes(1)));
    Status status = manager->status();
    CHECK(status.ready == wanted);
    CHECK(manager->list_chunks().size() == wanted);
    CHECK(status.queued + status.downloading + status.waiting + status.parked + status.draining + status.removing == 0);
    // Each completion counted once: what was published is there or was removed.
    CHECK(status.chunks_published == status.chunks_removed + wanted);
    manager->set_assignment({});
    REQUIRE(manager->wait_converged(std::chrono::minutes(1)));
    status = manager->status();
    CHECK(status.chunks_published == status.chunks_removed);
    CHECK(status.store_bytes_used == 0);
    CHECK(manager->list_chunks().empty());
    CHECK(wrong == 0);
  }

  /// Ends the manager while its pins are dropped on other threads; the last two stay good.
  void end() {
    const std::size_t kept = std::min<std::size_t>(pins.size(), 2);
    std::vector<std::thread> droppers;
    const std::size_t half = (pins.size() + kept) / 2;
    for (const auto& [first, last] : {std::pair(kept, half), std::pair(half, pins.size())}) {
      droppers.emplace_back([this, first = first, last = last] {
        for (std::size_t i = first; i < last; ++i) Ref(std::move(pins[i]));
      });
    }
    manager.reset();
    for (std::thread& thread : droppers) thread.join();
    pins.erase(pins.begin() + static_cast<std::ptrdiff_t>(kept), pins.end());
    for (const Ref& ref : pins) CHECK(version_of(ref) != 0);
    CHECK(closed_ == 1);
    CHECK(wrong == 0);
  }

  Outside outside;
  std::array<StormModel, storm_chunks> model;
  std::atomic<std::uint64_t> wrong{0};
  std::vector<Ref> pins;  ///< that pinners leave behind

 private:
  void download(std::uint64_t number, int version) {
    model[number].download(version);
    std::error_code error;
    manager->download_chunk(storm_chunk(number, version), error);
    if (error && !(closing_ && error == errc::closed)) ++wrong;
  }

  void remove(std::uint64_t number) {
    manager->delete_chunk(storm_chunk(number, 1).id);
    if (closing_) return;  // it may have come too late
    model[number].remove();
    if (manager->find_chunk(dataset(), number * 10)) ++wrong;
  }

  void call(std::uint64_t caller, int calls, bool close) {
    core::Random random(seed_ * 100 + caller);
    for (int i = 0; i < calls; ++i) {
      const std::uint64_t number = caller + storm_callers * (random.next() % (storm_owned / storm_callers));
      const int version = 1 + static_cast<int>(random.next() % 2);
      switch (random.next() % 8) {
        case 0:
          if (caller < 2) download(storm_owned + 1 + caller, version);
          break;
        case 1:
        case 2:
        case 3: download(number, version); break;
        case 4: {  // a pin of one's own, through a deletion and a change of mind
          const auto own = manager->find_chunk(dataset(), number * 10);
          const int before = own ? version_of(*own) : 1;
          remove(number);
          if (own && (before == 0 || version_of(*own) != before)) ++wrong;
          download(number, before == 0 ? 1 : before);
          if (own && version_of(*own) != before) ++wrong;
          break;
        }
        default: remove(number);
      }
      if (close && caller < 2 && i == calls / 2) {
        closing_ = true;
        manager->close();
        if (!manager->status().closed) ++wrong;
      }
    }
  }

  void pin(std::uint64_t pinner) {
    core::Random random(seed_ * 100 + 10 + pinner);
    std::vector<std::pair<Ref, int>> held;
    while (!stop_) {
      const std::uint64_t number = random.next() % storm_chunks;
      const std::uint64_t turn = model[number].turn;
      auto found = manager->find_chunk(dataset(), number * 10 + 5);
      if (found && turn % 2 != 0 && model[number].turn == turn) ++wrong;
      if (!found && number > storm_owned) ++wrong;  // the old one serves until there is a new one
      if (found) held.emplace_back(*found, version_of(*found));
      for (auto& ref : manager->find_chunks(dataset(), {0, storm_chunks * 10})) {
        if (random.next() % 8 == 0) held.emplace_back(ref, version_of(ref));
      }
      for (const auto& [ref, version] : held) {
        if (version == 0 || (random.next() % 4 == 0 && version_of(ref) != version)) ++wrong;
        if (random.next() % 8 == 0 && ref.files().size() != 2) ++wrong;
      }
      if (held.size() > 20) held.clear();
    }
    const std::scoped_lock lock(mutex_);
    for (auto& [ref, version] : held) pins.push_back(std::move(ref));
  }

  void disturb() {
    core::Random random(seed_ * 100 + 20);
    while (!stop_) {
      Options options = quick();
      options.max_concurrent_chunks = 1 + random.next() % 4;
      options.max_concurrent_files = 1 + random.next() % 4;
      options.revive = random.next() % 2 == 0;
      manager->set_options(options);
      const auto listed = manager->list_chunks();
      if (std::set<ChunkId>(listed.begin(), listed.end()).size() != listed.size()) ++wrong;
      if (manager->status().ready > storm_chunks) ++wrong;
      static_cast<void>(manager->chunk_status(storm_chunk(random.next() % storm_chunks, 1).id));
      if (random.next() % 4 == 0) manager->verify();
      if (random.next() % 16 == 0) static_cast<void>(manager->wait_converged(std::chrono::microseconds(50)));
      const auto brief = manager->subscribe([owned = std::make_shared<int>()](const Event&) { ++*owned; });
      const std::string url = storm_chunk(random.next() % storm_owned, 1 + static_cast<int>(random.next() % 2))
                                  .files.at(random.next() % 2 == 0 ? "data" : "more")
                                  .urls[0];
      const auto error = random.next() % 2 == 0 ? errc::connection_failed : errc::digest_mismatch;
      if (random.next() % 2 == 0) outside.origin.fail(url, {error, random.next() % 9, {}});
      if (held_[url]) {
        outside.origin.release(url);
        held_[url] = false;
      } else if (random.next() % 4 == 0) {
        outside.origin.hold(url, random.next() % 5);
        held_[url] = true;
      }
    }
  }

  // ---- observers

  /// Of each generation: ready, unlisted, ready, …, removed; one event at a time, and none after `closed`.
  void check_order(const Event& event) {
    if (inside_.exchange(true) || closed_ != 0) ++wrong;
    bool& listed = listed_[event.generation];
    const bool gone = gone_.contains(event.generation);
    if (event.kind == EventKind::chunk_ready && (std::exchange(listed, true) || gone)) ++wrong;
    if (event.kind == EventKind::chunk_unlisted && (!std::exchange(listed, false) || gone)) ++wrong;
    if (event.kind == EventKind::chunk_removed && (listed || !gone_.insert(event.generation).second)) ++wrong;
    if (event.kind == EventKind::events_dropped) ++wrong;
    if (event.kind == EventKind::closed) ++closed_;
    inside_ = false;
  }

  void call_back(const Event& /*event*/) {
    const std::scoped_lock lock(calling_back_);
    if (stop_) return;
    switch (random_.next() % 8) {
      case 0: download(storm_owned, 1 + static_cast<int>(random_.next() % 2)); break;
      case 1: remove(storm_owned); break;
      case 2: manager->set_options(quick()); break;
      case 3:
        // Whoever unsubscribes on this thread knows that there is no call from now on.
        second_.reset();
        second_is_on_ = false;
        break;
      case 4: second_ = subscribe_second(); break;
      case 5:
        if (closing_) manager->close();
        break;
      default:
        for (const Ref& ref : manager->find_chunks(dataset(), {0, storm_chunks * 10})) {
          if (version_of(ref) == 0) ++wrong;
        }
    }
  }

  Subscription subscribe_second() {
    second_.reset();
    second_is_on_ = true;
    return manager->subscribe([this](const Event&) {
      if (!second_is_on_) ++wrong;
    });
  }

  std::uint64_t seed_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> closing_{false};
  std::mutex calling_back_;  // held by the observer that does
  std::map<std::string, bool> held_;
  std::mutex mutex_;  // guards `pins` while there are pinners
  // Of the observers:
  std::atomic<bool> inside_{false};
  std::atomic<int> closed_{0};
  std::map<std::uint64_t, bool> listed_;
  std::set<std::uint64_t> gone_;
  core::Random random_{seed_};
  bool second_is_on_ = false;
  std::vector<Subscription> subscriptions_;
  Subscription second_;
  AsioExecutor network_{2};

 public:
  std::unique_ptr<Manager> manager;
};

}  // namespace garner::test
