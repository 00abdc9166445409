// SPDX-License-Identifier: BSL-1.0
//
// The pin: DataChunkRef keeps one generation of a chunk where it is and as it is. And what pins share with
// the manager that gave them, which they may outlive.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/pin_slots.hpp"
#include "garner/policies/storage.hpp"
#include "garner/served.hpp"

namespace garner {

namespace detail {

/// Is told that the last pin on a generation is gone.
class DrainListener {
 public:
  /// `pinned` tells apart the times that one generation was listed: it is an address, and nothing else has it before
  /// this returns. Does not block on I/O.
  virtual void drained(const Generation& generation, const void* pinned) noexcept = 0;

  DrainListener() = default;
  DrainListener(const DrainListener&) = delete;
  DrainListener& operator=(const DrainListener&) = delete;
  virtual ~DrainListener() = default;
};

/// The store, shared by the manager and all pins: it lives, and holds its lock, as long as any of them.
template <Storage S>
class PinHost {
 public:
  PinHost(S policy, DrainListener* listener) : storage(std::move(policy)), listener_(listener) {}

  [[nodiscard]] PinSlots& slots() const noexcept { return slots_; }

  void drained(const Generation& generation, const void* pinned) noexcept {
    calls_.fetch_add(1);
    if (DrainListener* listener = listener_.load()) listener->drained(generation, pinned);
    // Whoever detaches may end the listener as soon as this is zero, but not this object: the caller holds
    // it.
    calls_.fetch_sub(1);
    calls_.notify_all();
  }

  /// No call of the listener begins after this, and none is running when it returns.
  void detach() noexcept {
    listener_.store(nullptr);
    for (std::uint64_t calls = calls_.load(); calls != 0; calls = calls_.load()) calls_.wait(calls);
  }

  S storage;
  std::mutex ownership;  ///< who owns what is pinned

 private:
  PinSlots& slots_ = PinSlots::instance();
  std::atomic<DrainListener*> listener_;
  std::atomic<std::uint64_t> calls_{0};
};

// NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete): it takes each owner for the last
/// Ends what a pointer owned of something that counts its owners.
struct Release {
  template <class Counted>
  void operator()(const Counted* counted) const noexcept {
    counted->release();
  }
};

/// What all pins of one dataset share: its id, which is there once, and the store. As many chunks refer to it as there
/// are, so it counts them itself.
template <Storage S>
class PinHome : public DatasetHome {
 public:
  PinHome(const DatasetId& id, std::shared_ptr<PinHost<S>> where) : DatasetHome{id}, host(std::move(where)) {}
  PinHome(const PinHome&) = delete;
  PinHome& operator=(const PinHome&) = delete;

  void share() const noexcept { owners_.fetch_add(1, std::memory_order_relaxed); }
  void release() const noexcept {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  const std::shared_ptr<PinHost<S>> host;

 private:
  ~PinHome() = default;

  mutable std::atomic<std::uint64_t> owners_{1};  // who made it is the first
};

/// One generation that is or was listed. It is owned as long as the index has it or a slot holds it, and by each pin
/// that is counted: the last of them deletes it, which tells that it is drained.
template <Storage S>
class Pinned : public Served {
 public:
  /// Nobody owns it yet; `listed` comes first.
  Pinned(const Generation& generation, const PinHome<S>& of) : Served(generation, of) { of.share(); }

  // ---- owners

  /// The index has it from now on; and later no reader can come upon it there any more. It may be listed again before
  /// that.
  void listed() const {
    const std::scoped_lock lock(host().ownership);
    if (listings_ == 0 && slots_ == 0) share();
    ++listings_;
  }
  void unlisted() const noexcept {
    disown([this] {
      --listings_;
      slots_ += static_cast<std::uint32_t>(host().slots().watch(this));
    });
  }
  /// A slot that held it and was watched is free.
  void slot_dropped() const noexcept {
    disown([this] { --slots_; });
  }

  /// One owner more. Somebody owns it.
  void share() const noexcept { owners_.fetch_add(1, std::memory_order_relaxed); }
  /// The same, where somebody does; false where it is being deleted.
  [[nodiscard]] bool try_share() const noexcept {
    std::uint32_t owners = owners_.load(std::memory_order_relaxed);
    while (owners != 0) {
      if (owners_.compare_exchange_weak(owners, owners + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }
  /// One less.
  void release() const noexcept {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  [[nodiscard]] const S& storage() const noexcept { return host().storage; }
  [[nodiscard]] bool is_corrupt() const noexcept { return corrupt_.load(std::memory_order_acquire); }
  void condemn() const noexcept { corrupt_.store(true, std::memory_order_release); }

  [[nodiscard]] const DataChunk& description() const {
    if (const DataChunk* known = description_.load(std::memory_order_acquire)) return *known;
    std::error_code error;
    std::unique_ptr<const DataChunk> read;
    try {
      read = std::make_unique<const DataChunk>(host().storage.describe(generation(), error));
    } catch (const std::system_error& thrown) {
      error = thrown.code();
    } catch (...) {
      error = errc::policy_failed;
    }
    if (error || !read) throw Error(error, "chunk " + id.to_hex());
    const DataChunk* expected = nullptr;
    // Where another thread was faster, its description stays, as references to it may be out already.
    if (!description_.compare_exchange_strong(expected, read.get(), std::memory_order_acq_rel)) return *expected;
    return *read.release();
  }

 private:
  ~Pinned() {
    const std::unique_ptr<const PinHome<S>, Release> mine(&pin_home());
    delete description_.load(std::memory_order_acquire);
    host().drained(generation(), this);
  }

  [[nodiscard]] const PinHome<S>& pin_home() const noexcept { return static_cast<const PinHome<S>&>(*home); }
  [[nodiscard]] PinHost<S>& host() const noexcept { return *pin_home().host; }

  template <class Change>
  void disown(const Change& change) const noexcept {
    std::unique_ptr<const Pinned, Release> last;  // goes without the lock: it may report that it is drained
    const std::scoped_lock lock(host().ownership);
    change();
    if (listings_ == 0 && slots_ == 0) last.reset(this);
  }

  mutable std::atomic<bool> corrupt_{false};
  mutable std::atomic<std::uint32_t> owners_{0};  // all listings and watched slots together are one
  mutable std::uint32_t listings_ = 0;            // this and the next: under the host's `ownership`
  mutable std::uint32_t slots_ = 0;               // that are watched and hold it
  mutable std::atomic<const DataChunk*> description_{nullptr};
};

/// What the index does with what it has.
template <Storage S>
struct Unlist {
  void operator()(const Pinned<S>* pinned) const noexcept { pinned->unlisted(); }
};

}  // namespace detail

/// A pin on one generation of a chunk: until the last copy of it is dropped, the generation's files stay at
/// the same place and unchanged, whatever is called meanwhile; after `close()` and after the manager's
/// destruction too. The store's lock is held as long.
///
/// Cheap to take and to drop: a few nanoseconds for the first sixteen that a thread has at a time, and an atomic
/// increment for more of them and for copies. Dropping it never blocks on I/O. Thread-safety: distinct objects may be
/// used by distinct threads, whatever they pin; one object as an `int`.
template <Storage S>
class DataChunkRef {
 public:
  using Location = typename S::Location;

  /// For the manager, of what is listed now and cannot be destroyed before this returns.
  DataChunkRef(const detail::Pinned<S>& listed, detail::PinSlots& slots) noexcept
      : pin_(&listed), slot_(slots.take(&listed)) {
    if (slot_ == nullptr) pin_->share();
  }
  DataChunkRef(const DataChunkRef& other) noexcept : pin_(other.pin_) {
    if (pin_ != nullptr) pin_->share();
  }
  DataChunkRef(DataChunkRef&& other) noexcept
      : pin_(std::exchange(other.pin_, nullptr)), slot_(std::exchange(other.slot_, nullptr)) {}
  DataChunkRef& operator=(DataChunkRef other) noexcept {
    std::swap(pin_, other.pin_);
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~DataChunkRef() {
    const std::unique_ptr<const detail::Pinned<S>, detail::Release> counted(slot_ == nullptr ? pin_ : nullptr);
    if (slot_ == nullptr) return;
    // What is watched lives until it was told.
    if (detail::PinSlots::drop(*slot_)) pin_->slot_dropped();
  }

  [[nodiscard]] const ChunkId& id() const noexcept { return pin_->id; }
  [[nodiscard]] const DatasetId& dataset_id() const noexcept { return pin_->home->dataset_id; }
  [[nodiscard]] const BlockRange& block_range() const noexcept { return pin_->block_range; }
  /// Of all files together.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return pin_->bytes; }
  /// The number of this copy of the chunk; another copy of it has another.
  [[nodiscard]] std::uint64_t generation() const noexcept { return pin_->number; }

  /// The files, with their sizes and digests as found, and their URLs without secrets. The first call for a
  /// generation reads the store, later ones do not. Throws `Error` where that fails. Valid as long as a copy
  /// of this pin.
  [[nodiscard]] const std::map<std::string, FileSource>& files() const { return pin_->description().files; }

  /// Whether a scrub has found that it is not as it was published any more: then whatever was read of it is in doubt.
  /// True from then on, of all pins on this generation.
  [[nodiscard]] bool is_corrupt() const noexcept { return pin_->is_corrupt(); }

  /// Where the store has the chunk.
  [[nodiscard]] Location location() const { return pin_->storage().location(pin_->generation()); }

  /// The chunk's directory.
  [[nodiscard]] std::filesystem::path path() const requires std::convertible_to<Location, std::filesystem::path> {
    return location();
  }

 private:
  const detail::Pinned<S>* pin_;  // owned where there is no slot
  detail::PinSlots::Slot* slot_ = nullptr;
};
// NOLINTEND(clang-analyzer-cplusplus.NewDelete)

}  // namespace garner
