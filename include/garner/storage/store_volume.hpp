// SPDX-License-Identifier: BSL-1.0
//
// One of the volumes of a store: where it is, what may be put there, and the store in it. Which of several is taken is
// decided in store_volumes.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/staging.hpp"
#include "garner/storage/store_protocol.hpp"

namespace garner {

/// Where a volume is, and its limits.
template <FileSystem F>
struct VolumePlace {
  std::filesystem::path path;  ///< absolute; what `F::path` will say
  std::function<F()> open;     ///< throws `Error`
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t keep_free_bytes = 0;
};

namespace detail {

/// Thread-safe, but for `open`, which is called by one thread at a time. Calls of the store are made outside of its
/// lock.
template <FileSystem F>
class Volume {
 public:
  using Store = BasicStore<F>;
  using Area = StagingArea<F>;

  Volume(VolumePlace<F> place, Durability durability, const QuarantineLimits& quarantine)
      : place_(std::move(place)), durability_(durability), quarantine_(quarantine) {}
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;
  ~Volume() = default;

  /// Throws as `BasicStore` does. What staging areas there are of an earlier opening stay that one's.
  void open() { take(std::make_shared<Store>(place_.open(), durability_, quarantine_)); }
  void take(std::shared_ptr<Store> store) {
    const std::lock_guard lock(mutex_);
    if (store_) store_->root_handle()->give_up();
    store_ = std::move(store);
    state_ = VolumeState::healthy;
    areas_.clear();
    ++openings_;
  }

  /// What is open cannot be used, and is to be opened anew.
  void forget() {
    const std::lock_guard lock(mutex_);
    store_.reset();
    state_ = VolumeState::away;
    openings_ = 0;  // it was not seen, as far as anyone was told
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return place_.path; }

  /// Null where it is away.
  [[nodiscard]] std::shared_ptr<Store> store() const {
    const std::lock_guard lock(mutex_);
    return state_ == VolumeState::away ? nullptr : store_;
  }

  /// Also while it is away, where it was open before.
  [[nodiscard]] std::shared_ptr<Store> opened() const {
    const std::lock_guard lock(mutex_);
    return store_;
  }

  [[nodiscard]] VolumeState state() const {
    const std::lock_guard lock(mutex_);
    return state_;
  }
  void set_state(VolumeState state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
  }

  /// Finds out what it can do now. Where it was away and could be opened anew only, `found` is called for each
  /// generation that it holds, and last for none; nothing that was staged on it before counts. Blocks; one thread at a
  /// time.
  void examine(const std::function<void(const Generation&)>& found) {
    std::shared_ptr<Store> store = opened();
    std::error_code ec = store ? store->root_handle()->probe_reading() : make_error_code(errc::io_error);
    if (ec == errc::too_many_open_files) return;  // says nothing of the disk
    if (ec) {
      // First it is told to be away: only what is away can come back.
      const bool was_away = state() == VolumeState::away;
      set_state(VolumeState::away);
      if (!was_away) return;
      std::vector<Generation> held;
      store = open_anew(held);
      if (!store) return;
      take(store);
      for (const Generation& generation : held) found(generation);
    }
    ec = store->probe_writing();
    if (ec == errc::too_many_open_files) return;
    set_state(ec ? VolumeState::read_only : VolumeState::healthy);
  }

  /// May block.
  [[nodiscard]] VolumeStatus status() const {
    Limits limits;
    return status(limits);
  }

  /// Bytes that nothing has been promised yet; nothing where there are fewer than `bytes`, or it was found not to be
  /// healthy: a store that says so of itself is to be asked, or it would never find out more. May block.
  [[nodiscard]] std::optional<std::uint64_t> room_for(std::uint64_t bytes) const {
    Limits limits;
    status(limits);
    const bool is_healthy = state() == VolumeState::healthy;
    const std::uint64_t room = std::min(less(limits.on_disk, limits.to_come), less(limits.allowed, limits.declared));
    if (!is_healthy || room < std::max<std::uint64_t>(bytes, 1)) return std::nullopt;
    return room;
  }

  /// Remembers which generations this process has doomed and not removed yet: they may be pinned, and are no leftovers
  /// to another opening.
  void note_doomed(const Generation& generation, bool is_doomed) {
    const std::lock_guard lock(mutex_);
    if (is_doomed) {
      doomed_.insert(store_layout::qualified_name(generation));
    } else if (!doomed_.empty()) {
      doomed_.erase(store_layout::qualified_name(generation));
    }
  }

  /// What is staged on it counts until it is dropped, or gone.
  void add(const std::shared_ptr<Area>& area) {
    const std::lock_guard lock(mutex_);
    std::erase_if(areas_, [](const std::weak_ptr<Area>& weak) { return weak.expired(); });
    areas_.push_back(area);
  }
  void drop(const std::shared_ptr<Area>& area) {
    const std::lock_guard lock(mutex_);
    std::erase_if(areas_, [&](const std::weak_ptr<Area>& weak) { return weak.lock() == area; });
  }

 private:
  struct Limits {
    std::uint64_t on_disk = 0;   ///< bytes that may still be written
    std::uint64_t allowed = 0;   ///< bytes that may still be published
    std::uint64_t declared = 0;  ///< of what is being staged
    std::uint64_t to_come = 0;   ///< of that, not written yet
  };

  [[nodiscard]] std::set<std::string> doomed() const {
    const std::lock_guard lock(mutex_);
    return doomed_;
  }

  /// Null where that fails, with whatever error.
  std::shared_ptr<Store> open_anew(std::vector<Generation>& held) const {
    if (!place_.open) return nullptr;
    try {
      auto store = std::make_shared<Store>(place_.open(), durability_, quarantine_);
      const auto take = [&held](const Generation& generation) { held.push_back(generation); };
      const Recovery recovery = store->recover(take, doomed());
      store->give_up_partial();  // this run began anew elsewhere
      return recovery.error ? nullptr : store;
    } catch (const std::system_error&) {
      return nullptr;
    }
  }

  static std::uint64_t less(std::uint64_t bytes, std::uint64_t by) noexcept { return bytes - std::min(bytes, by); }

  VolumeStatus status(Limits& limits) const {
    VolumeStatus status;
    status.path = place_.path.string();
    std::shared_ptr<Store> store;
    {
      const std::lock_guard lock(mutex_);
      status.state = state_;
      status.openings = openings_;
      if (state_ != VolumeState::away) store = store_;
      for (const std::weak_ptr<Area>& weak : areas_) {
        const auto area = weak.lock();
        const std::uint64_t bytes = area ? declared_bytes(area->chunk).value_or(0) : 0;
        limits.declared += bytes;
        limits.to_come += area ? less(bytes, area->taken) : 0;
      }
    }
    if (!store) return status;
    const StoreUsage usage = store->usage();
    limits.on_disk = less(usage.bytes_free, place_.keep_free_bytes);
    limits.allowed = less(place_.max_bytes, usage.bytes_used);
    status.bytes_used = usage.bytes_used;
    if (status.state == VolumeState::healthy && store->is_read_only()) status.state = VolumeState::read_only;
    if (status.state == VolumeState::healthy) status.bytes_free = std::min(limits.on_disk, limits.allowed);
    return status;
  }

  VolumePlace<F> place_;
  Durability durability_;
  QuarantineLimits quarantine_;
  mutable std::mutex mutex_;  ///< guards the rest; held across no operation
  std::shared_ptr<Store> store_;
  VolumeState state_ = VolumeState::away;
  std::uint64_t openings_ = 0;
  std::vector<std::weak_ptr<Area>> areas_;
  std::set<std::string> doomed_;  ///< qualified names
};

}  // namespace detail
}  // namespace garner
