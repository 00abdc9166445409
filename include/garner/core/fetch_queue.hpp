// SPDX-License-Identifier: BSL-1.0
//
// The queue that chooses which chunk is fetched next. Decides only; how many are, and when, is in
// `core/chunk_turns.hpp`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/hosts.hpp"
#include "garner/ids.hpp"

namespace garner::core {

/// The chunks that wait for their turn. The dataset with the fewest missing chunks goes first, so that whole datasets
/// become answerable early; then the order of asking. The chunks of each server (that of the first file's mirrors)
/// stand in a lane of their own, so that one that rests holds up no other. O(log n) each, n being chunks and datasets.
class FetchQueue {
 private:
  using Rank = std::tuple<std::size_t, std::uint64_t, DatasetId>;  // missing, first asked, which
  using Queued = std::map<std::uint64_t, ChunkId>;                 // by order of asking

 public:
  /// Chunks that come from the same place.
  class Lane {
   public:
    [[nodiscard]] const std::vector<HostPtr>& hosts() const noexcept { return hosts_; }
    std::size_t active = 0;  ///< chunks that are being fetched

   private:
    friend class FetchQueue;

    /// Whether these are of its servers, as they are mostly written; false says nothing.
    [[nodiscard]] bool serves(const std::vector<std::string>& urls) const noexcept {
      return std::equal(urls.begin(), urls.end(), origins_.begin(), origins_.end(),
                        [](const std::string& url, const std::string& origin) {
                          return url.starts_with(origin) && url.size() > origin.size() && url[origin.size()] == '/';
                        });
    }

    std::vector<HostPtr> hosts_;
    std::vector<std::string> origins_;  // of each URL, in their order
    std::set<Rank> order_;
    std::optional<Rank> standing_;  // in `lanes_`: its first
  };
  using LanePtr = std::shared_ptr<Lane>;

  explicit FetchQueue(Hosts& hosts) : hosts_(hosts) {}

  /// Counts one more (`delta` = 1) or one less (-1) missing chunk of `dataset`, queued or not.
  void count_missing(const DatasetId& dataset, int delta) {
    const auto at = datasets_.try_emplace(dataset).first;
    change(at, [&] {
      at->second.missing = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(at->second.missing) + delta);
    });
  }

  /// `asked` is the chunk's place in the order of asking, and its own; `urls` are where it comes from next.
  void push(const DataChunk& chunk, std::uint64_t asked, const std::vector<std::string>& urls) {
    const auto at = datasets_.try_emplace(chunk.dataset_id).first;
    const LanePtr lane = lane_of(at->second, urls);
    change(at, [&] {
      auto& lanes = at->second.lanes;
      auto part = std::find_if(lanes.begin(), lanes.end(), [&](const Part& other) { return other.lane == lane; });
      if (part == lanes.end()) part = lanes.insert(part, Part{lane, {}, {}});
      part->queued.emplace(asked, chunk.id);
    });
  }

  void erase(const DatasetId& dataset, std::uint64_t asked) {
    const auto at = datasets_.find(dataset);
    change(at, [&] {
      for (Part& part : at->second.lanes) {
        if (part.queued.erase(asked) > 0) return;
      }
    });
  }

  /// Whose turn it is, and where it stands; it stays queued. Lanes that are not `open` are passed over.
  template <class Open>
  [[nodiscard]] std::optional<std::pair<ChunkId, LanePtr>> front(Open&& open) const {
    for (const auto& [rank, lane] : lanes_) {
      if (!open(*lane)) continue;
      const Dataset& dataset = datasets_.at(std::get<DatasetId>(rank));
      const auto part = std::find_if(dataset.lanes.begin(), dataset.lanes.end(),
                                     [at = lane](const Part& other) { return other.lane.get() == at; });
      return std::pair(part->queued.begin()->second, part->lane);
    }
    return std::nullopt;
  }

  [[nodiscard]] bool empty() const noexcept { return lanes_.empty(); }

 private:
  /// Of a dataset, what stands in one lane.
  struct Part {
    LanePtr lane;
    Queued queued;
    std::optional<Rank> rank = {};  // by which it stands in the lane
  };
  struct Dataset {
    std::size_t missing = 0;
    std::vector<Part> lanes;  // a few; none is empty
  };
  using Datasets = std::unordered_map<DatasetId, Dataset>;

  /// The lanes of a dataset are looked through one by one: what comes from yet another place stands with the others.
  static constexpr std::size_t most_lanes = 16;

  template <class Change>
  void change(Datasets::iterator at, Change&& change) {
    Dataset& dataset = at->second;
    change();
    for (Part& part : dataset.lanes) {
      std::optional<Rank> rank;
      if (!part.queued.empty()) rank.emplace(dataset.missing, part.queued.begin()->first, at->first);
      if (rank == part.rank) continue;  // as mostly, where one more has come
      move(part.lane->order_, part.rank, rank);
      part.rank = rank;
      stand(*part.lane);
    }
    std::erase_if(dataset.lanes, [](const Part& part) { return part.queued.empty(); });
    if (dataset.lanes.empty() && dataset.missing == 0) datasets_.erase(at);
  }

  /// In the place of `from`, which is there if it is anything, comes `to`, if that is.
  template <class Set, class Value>
  static void move(Set& set, const std::optional<Value>& from, const std::optional<Value>& to) {
    if (!from) {
      if (to) set.insert(*to);
      return;
    }
    auto node = set.extract(*from);
    if (!to) return;
    node.value() = *to;
    set.insert(std::move(node));
  }

  void stand(Lane& lane) {
    std::optional<Rank> first;
    if (!lane.order_.empty()) first = *lane.order_.begin();
    if (first == lane.standing_) return;
    const auto place = [&lane](const std::optional<Rank>& rank) {
      return rank ? std::optional(std::pair(*rank, &lane)) : std::nullopt;
    };
    move(lanes_, place(lane.standing_), place(first));
    lane.standing_ = first;
  }

  LanePtr lane_of(const Dataset& dataset, const std::vector<std::string>& urls) {
    // As a rule where the others are.
    for (const Part& part : dataset.lanes) {
      if (part.lane->serves(urls)) return part.lane;
    }
    std::string key;
    for (const std::string& url : urls) key += origin_of(url) + '\n';
    const auto known = known_.find(key);
    const auto stands_here = [&](const Part& part) { return known != known_.end() && part.lane == known->second; };
    const bool is_new_here = std::none_of(dataset.lanes.begin(), dataset.lanes.end(), stands_here);
    if (is_new_here && dataset.lanes.size() >= most_lanes) {
      const auto awake = std::find_if(dataset.lanes.begin(), dataset.lanes.end(), [](const Part& part) {
        return std::any_of(part.lane->hosts_.begin(), part.lane->hosts_.end(),
                           [](const HostPtr& host) { return !host->rests_until; });
      });
      return (awake == dataset.lanes.end() ? dataset.lanes.front() : *awake).lane;
    }
    if (known != known_.end()) return known->second;
    if (known_.size() >= room_) forget_idle();
    auto lane = std::make_shared<Lane>();
    for (const std::string& url : urls) {
      HostPtr host = hosts_.at(url);
      lane->origins_.push_back(host->origin);
      if (std::find(lane->hosts_.begin(), lane->hosts_.end(), host) == lane->hosts_.end()) {
        lane->hosts_.push_back(std::move(host));
      }
    }
    known_.emplace(std::move(key), lane);
    return lane;
  }

  /// O(n), and rare.
  void forget_idle() {
    std::erase_if(known_, [](const auto& entry) { return entry.second.use_count() == 1; });
    room_ = std::max(most_idle, 2 * known_.size());
  }

  static constexpr std::size_t most_idle = 256;

  Hosts& hosts_;
  Datasets datasets_;
  std::unordered_map<std::string, LanePtr> known_;  // by the origins of their hosts
  std::size_t room_ = most_idle;
  std::set<std::pair<Rank, Lane*>> lanes_;  // that have something, by their first
};

}  // namespace garner::core
