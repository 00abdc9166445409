// SPDX-License-Identifier: BSL-1.0
//
// What a simulated disk is made of but files' bytes: names, entries, and the log of changes to directories that
// are not durable yet, which decides what of them a crash may keep. No operation and no error is here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/simulation/decisions.hpp"

namespace garner {

/// What a crash keeps of the changes to directories that were not synced. What was synced it always keeps.
enum class CrashMode : std::uint8_t {
  ordered,      ///< all of them up to some moment: a journaled file system (ext4, xfs). A sync makes durable
                ///< what came before what it promises
  adversarial,  ///< any, in each directory and for each name on its own, as long as none comes without those
                ///< before it on the same name. All that POSIX lets a program count on
};

namespace detail {

using SimName = std::uint32_t;
using SimNode = std::uint32_t;
inline constexpr std::uint32_t sim_none = UINT32_MAX;

/// Numbers for names. Shared by a disk and its copies; `guard` is theirs.
class SimNames {
 public:
  std::mutex guard;

  SimName intern(std::string_view text) {
    if (const auto at = numbers_.find(text); at != numbers_.end()) return at->second;
    const auto number = static_cast<SimName>(texts_.size());
    numbers_.emplace(texts_.emplace_back(text), number);
    return number;
  }
  [[nodiscard]] SimName find(std::string_view text) const {
    const auto at = numbers_.find(text);
    return at != numbers_.end() ? at->second : sim_none;
  }
  [[nodiscard]] const std::string& text(SimName name) const { return texts_[name]; }

 private:
  std::deque<std::string> texts_;
  std::unordered_map<std::string_view, SimName> numbers_;
};

/// A directory's entries, in the order in which they came.
class SimEntries {
 public:
  struct Entry {
    SimName name;
    SimNode node;
  };

  [[nodiscard]] SimNode find(SimName name) const noexcept {
    for (const Entry& entry : entries_) {
      if (entry.name == name) return entry.node;
    }
    return sim_none;
  }
  void add(SimName name, SimNode node) { entries_.push_back({name, node}); }
  void remove(SimName name) {
    entries_.erase(
        std::find_if(entries_.begin(), entries_.end(), [name](const Entry& entry) { return entry.name == name; }));
  }
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  [[nodiscard]] auto begin() const noexcept { return entries_.begin(); }
  [[nodiscard]] auto end() const noexcept { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
};

/// One change of one or, by a rename, two directories.
struct SimChange {
  SimNode from = sim_none;  ///< the directory that loses `from_name`; none where something is made
  SimName from_name = 0;
  SimNode to = sim_none;  ///< the directory that gets `to_name`; none where something is removed
  SimName to_name = 0;
  SimNode node = sim_none;  ///< what is made, removed or renamed
  bool removes_directory = false;
  bool lost = false;  ///< its sync failed: no later sync makes it durable, and a crash may keep it yet

  [[nodiscard]] bool touches(SimNode directory) const noexcept { return from == directory || to == directory; }
  [[nodiscard]] bool touches(SimNode directory, SimName name) const noexcept {
    return (from == directory && from_name == name) || (to == directory && to_name == name);
  }

  /// Whether this cannot be durable unless `earlier` is: they are about the same name, or this removes the
  /// directory that `earlier` is in, which has to be empty.
  [[nodiscard]] bool needs(const SimChange& earlier) const noexcept {
    return (from != sim_none && earlier.touches(from, from_name)) || (to != sim_none && earlier.touches(to, to_name)) ||
           (removes_directory && earlier.touches(node));
  }

  /// Does it. `entries_of(SimNode)`: a directory's `SimEntries&`.
  template <class EntriesOf>
  void apply(const EntriesOf& entries_of) const {
    if (from != sim_none) entries_of(from).remove(from_name);
    if (to != sim_none) entries_of(to).add(to_name, node);
  }
};

/// The changes that are not durable, in their order.
class SimLog {
 public:
  explicit SimLog(CrashMode mode) noexcept : mode_(mode) {}

  [[nodiscard]] bool empty() const noexcept { return changes_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return changes_.size(); }
  [[nodiscard]] const std::vector<SimChange>& changes() const noexcept { return changes_; }
  void add(const SimChange& change) { changes_.push_back(change); }

  /// Makes durable what a sync of what `covers` selects promises; `apply` is called with each in their order.
  template <class Covers, class Apply>
  void sync(const Covers& covers, const Apply& apply) {
    std::size_t end = 0;
    marks_.assign(changes_.size(), false);
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (changes_[i].lost || !covers(changes_[i])) continue;
      marks_[i] = true;
      end = i + 1;
    }
    if (end == 0) return;
    if (mode_ == CrashMode::ordered) {
      for (std::size_t i = 0; i < end; ++i) marks_[i] = !changes_[i].lost;
    }
    add_needed(marks_, end);
    take_out(marks_, apply);
  }

  void fail_sync(SimNode directory) {
    for (SimChange& change : changes_) change.lost = change.lost || change.touches(directory);
  }

  /// What was lost is as good as what was never synced.
  void forgive() {
    for (SimChange& change : changes_) change.lost = false;
  }

  /// Makes the oldest `count` durable, lost or not: time passed, and the kernel wrote them.
  template <class Apply>
  void write_back(std::size_t count, const Apply& apply) {
    marks_.assign(changes_.size(), false);
    std::fill_n(marks_.begin(), std::min(count, changes_.size()), true);
    take_out(marks_, apply);
  }

  /// What a crash keeps, one for each change. An `ExhaustiveDecisions` comes by each legal set once.
  [[nodiscard]] std::vector<bool> survive(Decisions& decisions) const {
    std::vector<bool> kept(changes_.size(), false);
    if (mode_ == CrashMode::ordered) {
      const auto ordered =
          std::count_if(changes_.begin(), changes_.end(), [](const SimChange& change) { return !change.lost; });
      auto count = static_cast<std::uint64_t>(ordered);
      count -= decisions.choose(count + 1);
      for (std::size_t i = 0; i < kept.size() && count != 0; ++i) {
        if (changes_[i].lost) continue;
        kept[i] = true;
        --count;
      }
      add_needed(kept, kept.size());
    }
    const std::uint64_t yes = changes_.empty() ? 0 : std::uint64_t{1} << (2 * decisions.lean(3));  // 1, 4, 16
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const bool open = mode_ == CrashMode::adversarial || (changes_[i].lost && !kept[i]);
      if (open && has_needed(kept, i)) kept[i] = !decisions.chance(yes, 17);
    }
    return kept;
  }

 private:
  void add_needed(std::vector<bool>& marks, std::size_t end) const {
    for (std::size_t i = end; i-- > 0;) {
      if (!marks[i]) continue;
      for (std::size_t j = 0; j < i; ++j) {
        if (!marks[j] && changes_[i].needs(changes_[j])) marks[j] = true;
      }
    }
  }

  [[nodiscard]] bool has_needed(const std::vector<bool>& marks, std::size_t i) const {
    for (std::size_t j = 0; j < i; ++j) {
      if (!marks[j] && changes_[i].needs(changes_[j])) return false;
    }
    return true;
  }

  template <class Apply>
  void take_out(const std::vector<bool>& marks, const Apply& apply) {
    std::size_t left = 0;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (marks[i]) {
        apply(changes_[i]);
      } else {
        changes_[left++] = changes_[i];
      }
    }
    changes_.resize(left);
  }

  CrashMode mode_;
  std::vector<SimChange> changes_;
  std::vector<bool> marks_;  ///< of `sync`; kept for its memory
};

}  // namespace detail
}  // namespace garner
