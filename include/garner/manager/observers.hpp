// SPDX-License-Identifier: BSL-1.0
//
// Who is told, and what is still to be told to them. Events wait here until a task delivers them, so that an
// observer that is slow, throws or calls the manager back disturbs nobody.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "garner/status.hpp"

namespace garner::detail {

/// Thread-safety: every member from any thread. `deliver` by one thread at a time.
class Observers {
 public:
  using Observer = std::function<void(const Event&)>;

  Subscription subscribe(Observer observer) {
    const std::scoped_lock lock(state_->mutex);
    const std::uint64_t number = ++state_->last_number;
    state_->observers.emplace_back(number, std::make_shared<const Observer>(std::move(observer)));
    return Subscription([weak = std::weak_ptr<State>(state_), number] {
      if (const auto state = weak.lock()) state->unsubscribe(number);
    });
  }

  /// Keeps `event` for those who are subscribed now. True where the caller is to see to a `deliver`.
  bool push(const Event& event) {
    const std::scoped_lock lock(state_->mutex);
    if (state_->observers.empty()) return false;
    if (state_->events.size() >= max_waiting) {
      state_->events.clear();
      state_->events.push_back(dropped());
    }
    state_->events.push_back(event);
    return !std::exchange(state_->delivering, true);
  }

  /// Tells everybody everything that waits.
  void deliver() {
    std::unique_lock lock(state_->mutex);
    state_->thread = std::this_thread::get_id();
    while (!state_->events.empty()) {
      const Event event = std::move(state_->events.front());
      state_->events.pop_front();
      auto observers = state_->observers;
      for (const auto& [number, observer] : observers) {
        if (!state_->is_subscribed(number)) continue;
        lock.unlock();
        try {
          (*observer)(event);
        } catch (...) {  // NOLINT(bugprone-empty-catch): what an observer throws concerns nobody else
        }
        lock.lock();
      }
      lock.unlock();
      observers.clear();  // it may hold the last of one that has unsubscribed, which may own anything
      lock.lock();
    }
    state_->thread = {};
    state_->delivering = false;
  }

  /// Whether the calling thread is inside an observer of this manager.
  [[nodiscard]] bool is_observing() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->thread == std::this_thread::get_id();
  }

 private:
  static constexpr std::size_t max_waiting = 65536;

  static Event dropped() {
    Event event;
    event.kind = EventKind::events_dropped;
    return event;
  }

  struct State {
    [[nodiscard]] bool is_subscribed(std::uint64_t number) const {
      return std::any_of(observers.begin(), observers.end(), [number](const auto& o) { return o.first == number; });
    }
    void unsubscribe(std::uint64_t number) {
      std::shared_ptr<const Observer> last;  // destroyed outside of the lock: it may own anything
      const std::scoped_lock lock(mutex);
      const auto it =
          std::find_if(observers.begin(), observers.end(), [number](const auto& o) { return o.first == number; });
      if (it == observers.end()) return;
      last = std::move(it->second);
      observers.erase(it);
    }

    std::mutex mutex;
    std::vector<std::pair<std::uint64_t, std::shared_ptr<const Observer>>> observers;
    std::deque<Event> events;
    std::uint64_t last_number = 0;
    bool delivering = false;
    std::thread::id thread;
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace garner::detail
