// SPDX-License-Identifier: BSL-1.0
//
// Gathers the small pieces in which a body arrives into writes of a size that file systems like. libcurl hands out at
// most 16 KB at a time, and a write of that size costs more than its copy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>

#include "garner/policies/downloader.hpp"

namespace garner::detail {

/// Used by one thread at a time. Its memory comes with the first piece that has to wait, and stays.
class GatherBuffer {
 public:
  explicit GatherBuffer(std::size_t capacity) : capacity_(std::max<std::size_t>(capacity, 1)) {}

  /// Takes `piece`; whole buffers go to `sink`, whose error is returned. The `last` piece goes at once.
  std::error_code add(std::span<const std::byte> piece, bool last, FetchSink& sink) {
    // What needs not wait is not copied: all of a small file, as a rule.
    if (size_ == 0 && last) return piece.empty() ? std::error_code() : sink.write(piece);
    if (memory_ == nullptr) memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity_);
    while (!piece.empty()) {
      const std::size_t count = std::min(piece.size(), capacity_ - size_);
      std::memcpy(memory_.get() + size_, piece.data(), count);
      size_ += count;
      piece = piece.subspan(count);
      if (size_ == capacity_) {
        if (const std::error_code error = flush(sink)) return error;
      }
    }
    return last ? flush(sink) : std::error_code();
  }

  /// Gives the sink what is there.
  std::error_code flush(FetchSink& sink) {
    if (size_ == 0) return {};
    const std::size_t count = size_;
    size_ = 0;
    return sink.write({memory_.get(), count});
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  void clear() { size_ = 0; }

 private:
  std::size_t capacity_;
  std::size_t size_ = 0;
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace garner::detail
