// SPDX-License-Identifier: BSL-1.0
//
// A hash table of chunks that never stops to grow: no call pays for all that is in it. It owns nothing.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "garner/ids.hpp"

namespace garner::core {

/// Linear hashing (Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980): there is a bucket
/// for each node, and with each node that comes one bucket is split, with each that goes some may be joined. A `Node`
/// has an `id` and a `next`, which is the table's as long as it is in there. It is not touched by the destructor.
///
/// Thread-safety: none. Exception safety: an `insert` that throws has changed nothing.
template <class Node>
class IdTable {
 public:
  [[nodiscard]] Node* find(const ChunkId& id) const noexcept {
    if (buckets_ == 0) return nullptr;
    Node* node = *bucket_of(id);
    while (node != nullptr && node->id != id) node = node->next;
    return node;
  }

  /// No other one of its id is in there.
  void insert(Node& node) {
    if (size_ >= buckets_) split();
    push(*bucket_of(node.id), node);
    ++size_;
  }

  /// Takes out the one of this id, if it is there.
  Node* take(const ChunkId& id) noexcept {
    if (buckets_ == 0) return nullptr;
    Node** at = bucket_of(id);
    while (*at != nullptr && (*at)->id != id) at = &(*at)->next;
    Node* const node = *at;
    if (node == nullptr) return nullptr;
    *at = std::exchange(node->next, nullptr);
    --size_;
    // By two, so that no more than twice as many buckets are left as there are nodes, whatever there were.
    for (int i = 0; i < 2 && size_ < buckets_ / 2; ++i) join();
    return node;
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Calls `see(node)` for each; it changes nothing here.
  template <class See>
  void visit(See&& see) const {
    for (std::size_t i = 0; i < buckets_; ++i) {
      for (Node* node = *bucket(i); node != nullptr;) see(*std::exchange(node, node->next));
    }
  }

 private:
  static constexpr std::size_t segment = 256;
  using Segment = std::array<Node*, segment>;

  [[nodiscard]] Node** bucket(std::size_t at) const noexcept { return &(*segments_[at / segment])[at % segment]; }

  [[nodiscard]] Node** bucket_of(const ChunkId& id) const noexcept {
    const std::size_t mask = std::bit_ceil(buckets_) - 1;
    const std::size_t at = std::hash<ChunkId>()(id) & mask;
    return bucket(at < buckets_ ? at : at & (mask >> 1));
  }

  /// Whose nodes this bucket shares while it is not there.
  static std::size_t parent(std::size_t at) noexcept { return at - std::bit_floor(at); }

  static void push(Node*& bucket, Node& node) noexcept {
    node.next = bucket;
    bucket = &node;
  }

  void split() {
    if (buckets_ % segment == 0) segments_.push_back(std::make_unique<Segment>());
    ++buckets_;
    if (buckets_ == 1) return;
    for (Node* node = std::exchange(*bucket(parent(buckets_ - 1)), nullptr); node != nullptr;) {
      Node* const next = node->next;
      push(*bucket_of(node->id), *node);
      node = next;
    }
  }

  void join() noexcept {
    --buckets_;
    Node** const left = bucket(parent(buckets_));
    for (Node* node = std::exchange(*bucket(buckets_), nullptr); node != nullptr;) {
      Node* const next = node->next;
      push(*left, *node);
      node = next;
    }
    if (buckets_ % segment == 0) segments_.pop_back();
  }

  std::vector<std::unique_ptr<Segment>> segments_;
  std::size_t buckets_ = 0;
  std::size_t size_ = 0;
};

}  // namespace garner::core
