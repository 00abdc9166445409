// SPDX-License-Identifier: BSL-1.0
//
// (dataset, block) -> chunk, for readers that never wait: an immutable B+ tree behind one atomic pointer. A
// change copies the path to the leaf and nothing else; what it replaced is freed after a grace period
// (`core/epoch.hpp`).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/epoch.hpp"

namespace garner::core {

/// An index of block ranges, mostly disjoint and sometimes overlapping, in many datasets. `Value` is copied
/// out.
///
/// All datasets share one tree: a dataset is a small number, and positions are (dataset, block). Each node
/// keeps the greatest end below each of its slots (an interval tree: Cormen et al., Introduction to
/// Algorithms, 14.3), which makes the last range that begins at or before a block *and* ends after it an
/// O(log n) question whatever overlaps.
///
/// Thread-safety: `find`, `visit` and `visit_all` from any thread at any time. `insert`, `erase`, `publish`
/// and `collect` from one thread at a time. A change is seen by readers at the next `publish`, and all
/// changes before it at once.
template <class Value>
class ChunkIndex {
 public:
  /// Names one entry. `asked` is its own, and decides between ranges of one begin: the greatest wins.
  struct Key {
    std::uint32_t dataset = 0;
    BlockNumber begin = 0;
    std::uint64_t asked = 0;
    friend constexpr auto operator<=>(const Key&, const Key&) noexcept = default;
  };

  ChunkIndex() = default;
  ChunkIndex(const ChunkIndex&) = delete;
  ChunkIndex& operator=(const ChunkIndex&) = delete;
  /// No reader may be inside.
  ~ChunkIndex() {
    if (working_ != nullptr) destroy(working_);
    delete datasets_.load();
  }

  Key insert(const DatasetId& dataset, const BlockRange& range, std::uint64_t asked, Value value) {
    const Key key{number_of(dataset), range.begin, asked};
    Item item{key, {key.dataset, range.end}, nullptr, std::make_unique<Value>(std::move(value)).release()};
    if (working_ == nullptr) {
      working_ = std::make_unique<Node>(batch_, 0).release();
      put(*working_, 0, item);
    } else if (Node* right = insert_below(working_, item)) {
      auto root = std::make_unique<Node>(batch_, working_->level + 1);
      put(*root, 0, item_of(working_));
      put(*root, 1, item_of(right));
      working_ = root.release();
    }
    ++size_;
    return key;
  }

  /// `key` is one that `insert` gave and that was not erased.
  void erase(const Key& key) {
    working_ = erase_below(working_, key);
    while (working_ != nullptr && working_->level > 0 && working_->size == 1) {
      Node* child = working_->children[0];
      retire(working_);
      working_ = child;
    }
    --size_;
  }

  /// Lets readers see the changes so far. O(1).
  void publish() {
    root_.store(working_, std::memory_order_seq_cst);
    ++batch_;
  }

  /// Appends to `out` what no reader can see any more, erased values among it: the caller destroys it,
  /// outside its locks. Nothing may be unpublished.
  void collect(std::vector<Epochs::Garbage>& out) { epochs_.collect(out); }
  /// Whether `collect` will have more to give once the readers that are inside now have left.
  [[nodiscard]] bool pending() const noexcept { return epochs_.pending(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Of the ranges that contain `block`, the one of the greatest begin; among equals, the one asked for last.
  [[nodiscard]] std::optional<Value> find(const DatasetId& dataset, BlockNumber block) const {
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = lookup(dataset);
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (!number || root == nullptr) return std::nullopt;
    const Value* value = find_last(*root, Key{*number, block, latest}, Position{*number, block});
    if (value == nullptr) return std::nullopt;
    return *value;
  }

  /// Calls `take(value)` for each range that meets `range`, by begin and then by order of asking.
  template <class Take>
  void visit(const DatasetId& dataset, const BlockRange& range, Take&& take) const {
    if (range.begin >= range.end) return;
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = lookup(dataset);
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (number && root != nullptr) {
      visit_below(*root, Position{*number, range.begin}, Key{*number, range.end, 0}, take);
    }
  }

  /// Calls `take(value)` for all.
  template <class Take>
  void visit_all(Take&& take) const {
    const auto guard = epochs_.enter();
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (root != nullptr) visit_below(*root, Position{}, Key{~std::uint32_t{0}, ~BlockNumber{0}, latest}, take);
  }

 private:
  static constexpr std::uint64_t latest = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::size_t capacity = 32;

  struct Position {
    std::uint32_t dataset = 0;
    BlockNumber block = 0;
    friend constexpr auto operator<=>(const Position&, const Position&) noexcept = default;
  };

  /// Sorted slots: of a leaf (level 0) the entries, of a branch its children with their first key and
  /// greatest end.
  struct Node {
    Node(std::uint64_t made_in, std::size_t height) : batch(made_in), level(height) {}
    std::uint64_t batch;  // made in; while that is unpublished, the node may be changed in place
    std::size_t level;
    std::size_t size = 0;
    std::array<Key, capacity> keys;
    std::array<Position, capacity> ends;
    std::array<Node*, capacity> children{};
    std::array<Value*, capacity> values{};

    /// The last slot whose key is not after `key`; `size` where there is none.
    [[nodiscard]] std::size_t last_not_after(const Key& key) const {
      const auto end = keys.begin() + static_cast<std::ptrdiff_t>(size);
      const auto it = std::upper_bound(keys.begin(), end, key);
      return it == keys.begin() ? size : static_cast<std::size_t>(it - keys.begin()) - 1;
    }
    [[nodiscard]] Position greatest_end() const {
      return *std::max_element(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(size));
    }
  };

  struct Item {
    Key key;
    Position end;
    Node* child;
    Value* value;
  };

  struct Datasets {
    std::vector<std::pair<DatasetId, std::uint32_t>> sorted;
  };

  // -- readers

  [[nodiscard]] std::optional<std::uint32_t> lookup(const DatasetId& dataset) const {
    const Datasets* datasets = datasets_.load(std::memory_order_seq_cst);
    if (datasets == nullptr) return std::nullopt;
    const auto it = std::lower_bound(datasets->sorted.begin(), datasets->sorted.end(), dataset,
                                     [](const auto& entry, const DatasetId& id) { return entry.first < id; });
    if (it == datasets->sorted.end() || it->first != dataset) return std::nullopt;
    return it->second;
  }

  static const Value* find_last(const Node& node, const Key& bound, const Position& position) {
    const std::size_t last = node.last_not_after(bound);
    if (last == node.size) return nullptr;
    for (std::size_t i = last + 1; i-- > 0;) {
      if (node.ends[i] <= position) continue;
      if (node.level == 0) return node.values[i];
      // Below any but the last of these slots every key is within the bound, so the answer is there for
      // certain.
      if (const Value* value = find_last(*node.children[i], bound, position)) return value;
    }
    return nullptr;
  }

  template <class Take>
  static void visit_below(const Node& node, const Position& after, const Key& before, Take& take) {
    for (std::size_t i = 0; i < node.size && node.keys[i] < before; ++i) {
      if (node.ends[i] <= after) continue;
      if (node.level == 0) {
        take(*node.values[i]);
      } else {
        visit_below(*node.children[i], after, before, take);
      }
    }
  }

  // -- the writer

  std::uint32_t number_of(const DatasetId& dataset) {
    if (const auto number = lookup(dataset)) return *number;
    auto grown = std::make_unique<Datasets>();
    std::unique_ptr<Datasets> old(datasets_.load());
    if (old) grown->sorted = old->sorted;
    const auto number = static_cast<std::uint32_t>(grown->sorted.size());
    grown->sorted.emplace_back(dataset, number);
    std::sort(grown->sorted.begin(), grown->sorted.end());
    datasets_.store(grown.release(), std::memory_order_seq_cst);
    if (old) epochs_.retire(std::move(old));
    return number;
  }

  void retire(Node* node) { epochs_.retire(std::unique_ptr<Node>(node)); }

  /// `node` itself where readers cannot see it yet, else a copy of it that they cannot.
  Node* writable(Node* node) {
    if (node->batch == batch_) return node;
    auto copy = std::make_unique<Node>(*node);
    copy->batch = batch_;
    retire(node);
    return copy.release();
  }

  static Item item_of(Node* node) { return {node->keys[0], node->greatest_end(), node, nullptr}; }

  static void set(Node& node, std::size_t at, const Item& item) {
    node.keys[at] = item.key;
    node.ends[at] = item.end;
    node.children[at] = item.child;
    node.values[at] = item.value;
  }

  static Item get(const Node& node, std::size_t at) {
    return {node.keys[at], node.ends[at], node.children[at], node.values[at]};
  }

  static void put(Node& node, std::size_t at, const Item& item) {
    for (std::size_t i = node.size; i > at; --i) set(node, i, get(node, i - 1));
    set(node, at, item);
    ++node.size;
  }

  static void take_out(Node& node, std::size_t at) {
    for (std::size_t i = at; i + 1 < node.size; ++i) set(node, i, get(node, i + 1));
    --node.size;
  }

  /// Puts `item` into `node`, which is writable; returns the right half where it had to be split.
  Node* put_or_split(Node& node, std::size_t at, const Item& item) {
    if (node.size < capacity) {
      put(node, at, item);
      return nullptr;
    }
    // Chunks mostly arrive in order of their blocks: then the left node is left full.
    const std::size_t half = at == node.size ? node.size : node.size / 2;
    auto right = std::make_unique<Node>(batch_, node.level);
    for (std::size_t i = half; i < node.size; ++i) put(*right, right->size, get(node, i));
    node.size = half;
    if (at > half || half == capacity) {
      put(*right, at - half, item);
    } else {
      put(node, at, item);
    }
    return right.release();
  }

  Node* insert_below(Node*& node, const Item& item) {
    node = writable(node);
    std::size_t at = node->last_not_after(item.key);
    if (node->level == 0) return put_or_split(*node, at == node->size ? 0 : at + 1, item);
    if (at == node->size) at = 0;
    Node* right = insert_below(node->children[at], item);
    set(*node, at, item_of(node->children[at]));
    return right == nullptr ? nullptr : put_or_split(*node, at + 1, item_of(right));
  }

  Node* erase_below(Node* node, const Key& key) {
    node = writable(node);
    const std::size_t at = node->last_not_after(key);
    if (node->level == 0) {
      epochs_.retire(std::unique_ptr<Value>(node->values[at]));
      take_out(*node, at);
    } else if (Node* child = erase_below(node->children[at], key)) {
      set(*node, at, item_of(child));
      // A branch may have one child: appending starts one with it.
      if (child->size < capacity / 4 && node->size > 1) merge(*node, at + 1 < node->size ? at : at - 1);
    } else {
      take_out(*node, at);
    }
    if (node->size > 0) return node;
    retire(node);
    return nullptr;
  }

  /// Merges the children at `at` and right of it where they fit into one with room to grow.
  void merge(Node& node, std::size_t at) {
    if (node.children[at]->size + node.children[at + 1]->size > capacity * 3 / 4) return;
    Node* left = writable(node.children[at]);
    Node* right = node.children[at + 1];
    for (std::size_t i = 0; i < right->size; ++i) put(*left, left->size, get(*right, i));
    retire(right);
    set(node, at, item_of(left));
    take_out(node, at + 1);
  }

  static void destroy(Node* node) {
    for (std::size_t i = 0; i < node->size; ++i) {
      if (node->level > 0) {
        destroy(node->children[i]);
      } else {
        delete node->values[i];
      }
    }
    delete node;
  }

  Epochs epochs_;
  std::atomic<const Node*> root_{nullptr};
  std::atomic<Datasets*> datasets_{nullptr};
  Node* working_ = nullptr;
  std::uint64_t batch_ = 1;
  std::size_t size_ = 0;
};

}  // namespace garner::core
