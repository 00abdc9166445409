// SPDX-License-Identifier: BSL-1.0
//
// What an observer was told, and what is wrong with it: each thing once, in the order in which it happened.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "garner/error.hpp"
#include "garner/status.hpp"

namespace simulation {

inline constexpr std::size_t event_kinds = 12;
inline constexpr std::size_t error_classes = 9;

class Ledger {
 public:
  /// Of one life of a manager, which begins with these chunks served, and these generations held.
  template <class Refs>
  void begin(const Refs& served, const std::set<std::pair<garner::ChunkId, std::uint64_t>>& held) {
    served_.clear();
    removed_.clear();
    published_ = held;
    published_bytes_ = 0;
    all_published_known_ = true;
    complete_ = true;
    closed_ = false;
    for (const auto& ref : served) {
      served_[ref.id()] = ref.generation();
      published_.emplace(ref.id(), ref.generation());
    }
  }

  /// As `take`, of what is ready; `served`: what can be found at that moment.
  template <class Refs>
  void take_ready(const garner::Event& event, const Refs& served) {
    take(event);
    if (published_.contains({event.id, event.generation})) return;
    const auto ref = std::find_if(served.begin(), served.end(), [&event](const auto& other) {
      return other.id() == event.id && other.generation() == event.generation;
    });
    all_published_known_ = all_published_known_ && ref != served.end();
    if (ref == served.end()) return;
    published_.emplace(event.id, event.generation);
    published_bytes_ += ref->bytes();
  }

  void take(const garner::Event& event) {
    ++events_[static_cast<std::size_t>(event.kind)];
    if (closed_) problem("an event after the last one");
    switch (event.kind) {
      case garner::EventKind::chunk_ready:
        if (!served_.emplace(event.id, event.generation).second) problem("ready twice");
        if (removed_.contains({event.id, event.generation})) problem("ready after it was removed");
        break;
      case garner::EventKind::chunk_unlisted:
        if (!served_.contains(event.id) || served_[event.id] != event.generation)
          problem("unlisted and was not served");
        served_.erase(event.id);
        break;
      case garner::EventKind::chunk_removed:
        if (!removed_.emplace(event.id, event.generation).second) problem("removed twice");
        if (served_.contains(event.id) && served_[event.id] == event.generation) problem("removed while it was served");
        all_published_known_ = all_published_known_ && published_.contains({event.id, event.generation});
        break;
      case garner::EventKind::chunk_failed:
        ++classes_[static_cast<std::size_t>(garner::classify(event.error))];
        if (!event.error || event.subject.empty()) problem("a failure without a reason");
        break;
      case garner::EventKind::recovered:
        if (event.error) problem("the store cannot be read");
        break;
      case garner::EventKind::converged:
      case garner::EventKind::scrubbed:
      case garner::EventKind::volume_away:
      case garner::EventKind::volume_read_only:
      case garner::EventKind::volume_healthy: break;
      case garner::EventKind::events_dropped: complete_ = false; break;
      case garner::EventKind::closed: closed_ = true; break;
    }
  }

  /// Nothing where events were dropped.
  [[nodiscard]] std::optional<std::map<garner::ChunkId, std::uint64_t>> served() const {
    if (!complete_) return std::nullopt;
    return served_;
  }
  /// Bytes of all that was published since the start; nothing where that is not known.
  [[nodiscard]] std::optional<std::uint64_t> published_bytes() const {
    if (!complete_ || !all_published_known_) return std::nullopt;
    return published_bytes_;
  }
  /// The first thing that was wrong.
  [[nodiscard]] const std::optional<std::string>& wrong() const noexcept { return wrong_; }
  [[nodiscard]] const std::array<std::uint64_t, event_kinds>& events() const noexcept { return events_; }
  [[nodiscard]] const std::array<std::uint64_t, error_classes>& classes() const noexcept { return classes_; }

 private:
  void problem(const char* what) {
    if (complete_ && !wrong_) wrong_ = std::string("an observer was told: ") + what;
  }

  std::map<garner::ChunkId, std::uint64_t> served_;
  /// By number too: disks that were never there together may have come to the same one.
  std::set<std::pair<garner::ChunkId, std::uint64_t>> removed_;
  std::set<std::pair<garner::ChunkId, std::uint64_t>> published_;  ///< and found by the start
  std::uint64_t published_bytes_ = 0;
  bool all_published_known_ = true;
  bool complete_ = true;
  bool closed_ = false;
  std::optional<std::string> wrong_;
  std::array<std::uint64_t, event_kinds> events_{};
  std::array<std::uint64_t, error_classes> classes_{};
};

}  // namespace simulation
