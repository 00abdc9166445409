// SPDX-License-Identifier: BSL-1.0
//
// (dataset, block) -> chunk, for readers that never wait: an immutable B+ tree behind one atomic pointer. A
// change copies the path to the leaf and nothing else; after a grace period (`core/epoch.hpp`) what it replaced is the
// room for the next one, or freed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/dataset_numbers.hpp"
#include "garner/core/epoch.hpp"
#include "garner/core/index_node.hpp"

namespace garner::core {

/// An index of block ranges, mostly disjoint and sometimes overlapping, in many datasets. It owns its values, each an
/// object that `Release` takes once no reader can come upon it any more.
///
/// All datasets share one tree, so that one store publishes changes to any of them: a dataset is a small number, and
/// positions are (dataset, block). Each node keeps the greatest end below each of its slots (an interval tree: Cormen
/// et al., Introduction to Algorithms, 14.3), which makes the last range that begins at or before a block *and* ends
/// after it an O(log n) question whatever overlaps. Mostly nothing does, and then that range is the last one that
/// begins at or before the block: this is looked for first, in the begins alone.
///
/// Thread-safety: `find`, `visit` and `visit_all` from any thread at any time. `insert`, `erase`, `publish` and
/// `collect` from one thread at a time. A change is seen by readers at the next `publish`, and all changes before it at
/// once.
template <class T, class Release = std::default_delete<T>>
class ChunkIndex {
 private:
  using Node = IndexNode<T>;
  using NodePtr = std::unique_ptr<Node>;

 public:
  using Key = IndexKey;
  using ValuePtr = std::unique_ptr<T, Release>;
  /// What no reader can see any more.
  using Garbage = std::variant<NodePtr, ValuePtr, DatasetNumbers::Replaced>;

  ChunkIndex() = default;
  ChunkIndex(const ChunkIndex&) = delete;
  ChunkIndex& operator=(const ChunkIndex&) = delete;
  /// No reader may be inside.
  ~ChunkIndex() {
    if (working_ != nullptr) destroy(working_);
  }

  Key insert(const DatasetId& dataset, const BlockRange& range, std::uint64_t asked, ValuePtr value) {
    const auto retire = [this](DatasetNumbers::Replaced replaced) { epochs_.retire(std::move(replaced)); };
    const Key key{datasets_.of(dataset, retire), range.begin, asked};
    Item item{key, {key.dataset, range.end}, {}};
    item.below.value = value.release();
    if (working_ == nullptr) {
      working_ = make_node(0).release();
      working_->put(0, item);
    } else if (Node* right = insert_below(working_, item)) {
      NodePtr root = make_node(working_->level + 1);
      root->put(0, item_of(working_));
      root->put(1, item_of(right));
      working_ = root.release();
    }
    ++size_;
    return key;
  }

  /// The key that `insert` gave for these.
  [[nodiscard]] Key key_of(const DatasetId& dataset, const BlockRange& range, std::uint64_t asked) const {
    return {datasets_.find(dataset).value(), range.begin, asked};
  }

  /// `key` is one that `insert` gave and that was not erased. What it stood for: not released before the next
  /// `collect`.
  T& erase(const Key& key) {
    T* erased = nullptr;
    working_ = erase_below(working_, key, erased);
    while (working_ != nullptr && working_->level > 0 && working_->size == 1) {
      Node* child = working_->slots[0].below.node;
      retire(working_);
      working_ = child;
    }
    --size_;
    return *erased;
  }

  /// Lets readers see the changes so far. O(1).
  void publish() {
    root_.store(working_, std::memory_order_seq_cst);
    ++batch_;
  }

  /// Appends to `out` what no reader can see any more, erased values among it, but for nodes that are kept for the next
  /// changes (less than 100 KB). The caller destroys it, outside its locks. Nothing may be unpublished.
  void collect(std::vector<Garbage>& out) {
    epochs_.collect(out);
    // The next change copies a path again, mostly of as many nodes: they cost no allocation then.
    std::erase_if(out, [this](Garbage& garbage) {
      auto* node = std::get_if<NodePtr>(&garbage);
      if (node == nullptr || spare_.size() >= most_spare) return false;
      spare_.push_back(std::move(*node));
      return true;
    });
  }
  /// Whether `collect` will have more to give once the readers that are inside now have left.
  [[nodiscard]] bool pending() const noexcept { return epochs_.pending(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Of the ranges that contain `block`, the one of the greatest begin; among equals, the one asked for last: what
  /// `take(value)` makes of it. The value is not released before `take` has returned.
  template <class Take>
  [[nodiscard]] std::optional<std::invoke_result_t<Take, T&>> find(const DatasetId& dataset, BlockNumber block,
                                                                   Take&& take) const {
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = datasets_.find(dataset);
    const Node* root = root_.load(std::memory_order_seq_cst);
    if (!number || root == nullptr) return std::nullopt;
    const Position position{*number, block};
    T* value = find_disjoint(*root, position);
    if (value == nullptr) value = find_last(*root, position);
    if (value == nullptr) return std::nullopt;
    return take(*value);
  }

  /// Calls `take(value)` for each range that meets `range`, by begin and then by order of asking.
  template <class Take>
  void visit(const DatasetId& dataset, const BlockRange& range, Take&& take) const {
    if (range.begin >= range.end) return;
    const auto guard = epochs_.enter();
    const std::optional<std::uint32_t> number = datasets_.find(dataset);
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
    if (root != nullptr) visit_below(*root, Position{}, Key{~std::uint32_t{0}, latest, latest}, take);
  }

 private:
  using Position = IndexPosition;
  using Item = typename Node::Item;

  static constexpr std::uint64_t latest = Node::latest;
  static constexpr std::size_t capacity = Node::capacity;
  static constexpr std::size_t most_spare = 64;

  // -- readers

  /// The last range that begins at or before `position`, where it ends after it: then it is the answer. Null says
  /// nothing.
  static T* find_disjoint(const Node& root, const Position& position) noexcept {
    const Node* node = &root;
    while (true) {
      const std::size_t count = node->count_not_after(position);
      if (count == 0) return nullptr;
      const auto& slot = node->slots[count - 1];
      if (node->level == 0) {
        return slot.end > position.block && node->datasets[count - 1] == position.dataset ? slot.below.value : nullptr;
      }
      node = slot.below.node;
      node->prefetch();
    }
  }

  static T* find_last(const Node& node, const Position& position) noexcept {
    for (std::size_t i = node.count_not_after(position); i-- > 0;) {
      if (node.end(i) <= position) continue;
      if (node.level == 0) return node.slots[i].below.value;
      // Below any but the last of these slots every key is within the bound, so the answer is there for
      // certain.
      if (T* value = find_last(*node.slots[i].below.node, position)) return value;
    }
    return nullptr;
  }

  template <class Take>
  static void visit_below(const Node& node, const Position& after, const Key& before, Take& take) {
    for (std::size_t i = 0; i < node.size && node.key(i) < before; ++i) {
      if (node.end(i) <= after) continue;
      if (node.level == 0) {
        take(*node.slots[i].below.value);
      } else {
        visit_below(*node.slots[i].below.node, after, before, take);
      }
    }
  }

  // -- the writer

  void retire(Node* node) { epochs_.retire(NodePtr(node)); }

  /// An empty one, that readers cannot see.
  NodePtr make_node(std::size_t level) { return take_spare(Node(batch_, level)); }

  NodePtr take_spare(const Node& as) {
    if (spare_.empty()) return std::make_unique<Node>(as);
    NodePtr node = std::move(spare_.back());
    spare_.pop_back();
    *node = as;
    return node;
  }

  /// `node` itself where readers cannot see it yet, else a copy of it that they cannot.
  Node* writable(Node* node) {
    if (node->batch == batch_) return node;
    NodePtr copy = take_spare(*node);
    copy->batch = batch_;
    retire(node);
    return copy.release();
  }

  static Item item_of(Node* node) {
    Item item{node->key(0), node->greatest_end(), {}};
    item.below.node = node;
    return item;
  }

  /// Puts `item` into `node`, which is writable; returns the right half where it had to be split.
  Node* put_or_split(Node& node, std::size_t at, const Item& item) {
    if (node.size < capacity) {
      node.put(at, item);
      return nullptr;
    }
    // Chunks mostly arrive in order of their blocks, or nearly so: then the left node is left full, or nearly so.
    const std::size_t half = at >= capacity * 3 / 4 ? at : capacity / 2;
    NodePtr right = make_node(node.level);
    for (std::size_t i = half; i < node.size; ++i) right->put(right->size, node.item(i));
    node.shrink(half);
    if (at > half || half == capacity) {
      right->put(at - half, item);
    } else {
      node.put(at, item);
    }
    return right.release();
  }

  Node* insert_below(Node*& node, const Item& item) {
    node = writable(node);
    const std::size_t count = node->count_not_after(item.key);
    if (node->level == 0) return put_or_split(*node, count, item);
    const std::size_t at = count == 0 ? 0 : count - 1;
    Node* right = insert_below(node->slots[at].below.node, item);
    node->set(at, item_of(node->slots[at].below.node));
    return right == nullptr ? nullptr : put_or_split(*node, at + 1, item_of(right));
  }

  Node* erase_below(Node* node, const Key& key, T*& erased) {
    node = writable(node);
    const std::size_t at = node->count_not_after(key) - 1;
    if (node->level == 0) {
      erased = node->slots[at].below.value;
      epochs_.retire(ValuePtr(erased));
      node->take_out(at);
    } else if (Node* child = erase_below(node->slots[at].below.node, key, erased)) {
      node->set(at, item_of(child));
      // A branch may have one child: appending starts one with it.
      if (child->size < capacity / 4 && node->size > 1) merge(*node, at + 1 < node->size ? at : at - 1);
    } else {
      node->take_out(at);
    }
    if (node->size > 0) return node;
    retire(node);
    return nullptr;
  }

  /// Merges the children at `at` and right of it where they fit into one with room to grow.
  void merge(Node& node, std::size_t at) {
    Node* right = node.slots[at + 1].below.node;
    if (node.slots[at].below.node->size + right->size > capacity * 3 / 4) return;
    Node* left = writable(node.slots[at].below.node);
    for (std::size_t i = 0; i < right->size; ++i) left->put(left->size, right->item(i));
    retire(right);
    node.set(at, item_of(left));
    node.take_out(at + 1);
  }

  static void destroy(Node* node) {
    for (std::size_t i = 0; i < node->size; ++i) {
      if (node->level > 0) {
        destroy(node->slots[i].below.node);
      } else {
        ValuePtr(node->slots[i].below.value).reset();
      }
    }
    delete node;
  }

  Epochs<Garbage> epochs_;
  std::vector<NodePtr> spare_;
  std::atomic<const Node*> root_{nullptr};
  DatasetNumbers datasets_;
  Node* working_ = nullptr;
  std::uint64_t batch_ = 1;
  std::size_t size_ = 0;
};

}  // namespace garner::core
