// SPDX-License-Identifier: BSL-1.0
//
// What was found corrupt and is kept for whoever wants to know why: whole directories in `quarantine/`, each with its
// reason beside it, no more bytes of them than is allowed, the oldest going first. How they come there is in
// store_remover.hpp; nothing here is ever served.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/policies/storage.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner {

/// How much of it is kept, and for how long.
struct QuarantineLimits {
  std::uint64_t max_bytes = std::uint64_t{1} << 30;  ///< of files, and `entry_bytes` for each directory
  std::uint64_t keep_free_bytes = 0;                 ///< on the disk: less than that, and some of it goes

  static constexpr std::uint64_t entry_bytes = 4096;
};

namespace detail {

/// Thread-safe.
template <FileSystem F>
class StoreQuarantine {
 public:
  StoreQuarantine(std::shared_ptr<StoreRoot<F>> root, const QuarantineLimits& limits)
      : root_(std::move(root)), limits_(limits) {}

  /// What the start has found there, in any order.
  void found(std::vector<Generation> generations) {
    std::sort(generations.begin(), generations.end(),
              [](const Generation& a, const Generation& b) { return a.number < b.number; });
    const std::lock_guard lock(mutex_);
    for (const Generation& generation : generations) push(generation);
  }

  /// It stands there. Its reason is written as well as may be, and what is too much now goes.
  void keep(const Generation& generation, const std::string& reason) {
    const std::string name = store_layout::qualified_name(generation);
    root().write_small_file(root().quarantine(), store_layout::reason_name(name), reason + '\n');
    root().sync_directory(root().quarantine());
    {
      const std::lock_guard lock(mutex_);
      push(generation);
    }
    shrink([this] { return bytes_ > limits_.max_bytes; });
  }

  /// Sees to it that `bytes` more can be written, as far as what is kept here is in the way of that.
  void make_room(std::uint64_t bytes) {
    if (this->bytes() == 0) return;
    std::error_code ec;
    const std::uint64_t free = root().fs().free_space(ec);
    const std::uint64_t needed = bytes > std::numeric_limits<std::uint64_t>::max() - limits_.keep_free_bytes
                                     ? std::numeric_limits<std::uint64_t>::max()
                                     : bytes + limits_.keep_free_bytes;
    std::uint64_t gone = 0;
    shrink([&] { return ec || (free < needed && needed - free > gone); }, &gone);
  }

  /// All that may go.
  [[nodiscard]] std::uint64_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *root_; }

  static std::uint64_t size_of(const Generation& generation) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();  // names are anyone's: sums stay sums
    return std::min(generation.bytes, most * QuarantineLimits::entry_bytes) + QuarantineLimits::entry_bytes;
  }

  void push(const Generation& generation) {
    kept_.push_back(generation);
    bytes_ += size_of(generation);
  }

  /// Removes the oldest while `too_much()`, which is asked under the lock. What cannot be removed is the next start's.
  template <class TooMuch>
  void shrink(const TooMuch& too_much, std::uint64_t* gone = nullptr) {
    for (;;) {
      Generation oldest;
      {
        const std::lock_guard lock(mutex_);
        if (kept_.empty() || !too_much()) return;
        oldest = kept_.front();
        kept_.pop_front();
        bytes_ -= size_of(oldest);
      }
      if (gone != nullptr) *gone += size_of(oldest);
      take_away(oldest);
    }
  }

  /// An earlier process may have been killed before it synced where it was taken from: half of it must not come back.
  void take_away(const Generation& generation) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    const typename F::Directory dataset =
        root().fs().open_directory(root().chunks(), store_layout::dataset_name(generation.dataset_id), ec);
    if (root().unless_missing(ec)) return;
    if (!ec && root().sync_directory(dataset)) return;
    root().fs().remove_file(root().quarantine(), store_layout::reason_name(name));
    root().remove_tree(root().quarantine(), name, generation.bytes);
  }

  std::shared_ptr<StoreRoot<F>> root_;
  const QuarantineLimits limits_;
  mutable std::mutex mutex_;  ///< guards the next two; held across no operation
  std::deque<Generation> kept_;
  std::uint64_t bytes_ = 0;
};

}  // namespace detail
}  // namespace garner
