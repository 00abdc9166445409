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

namespace garner {

namespace detail {

/// Is told that the last pin on a generation is gone.
class DrainListener {
 public:
  /// `serial` tells apart the times that one generation was listed. Does not block on I/O.
  virtual void drained(const Generation& generation, std::uint64_t serial) noexcept = 0;

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

  void drained(const Generation& generation, std::uint64_t serial) noexcept {
    calls_.fetch_add(1);
    if (DrainListener* listener = listener_.load()) listener->drained(generation, serial);
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

/// One generation that is or was listed. It owns itself as long as the index has it or a slot holds it, and each pin that
/// is counted owns it too.
template <Storage S>
class Pinned : public std::enable_shared_from_this<Pinned<S>> {
 public:
  Pinned(const Generation& generation, std::uint64_t serial, std::shared_ptr<PinHost<S>> host)
      : generation_(generation), serial_(serial), host_(std::move(host)) {}
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() {
    delete description_.load(std::memory_order_acquire);
    host_->drained(generation_, serial_);
  }

  [[nodiscard]] const Generation& generation() const noexcept { return generation_; }

  /// The index has it from now on; and later no reader can come upon it there any more. It may be listed again before that.
  void listed() const {
    const std::scoped_lock lock(host_->ownership);
    if (self_ == nullptr) self_ = this->shared_from_this();
    ++listings_;
  }
  void unlisted() const noexcept {
    disown([this] {
      --listings_;
      slots_ += host_->slots().watch(this);
    });
  }
  /// A slot that held it and was watched is free.
  void slot_dropped() const noexcept {
    disown([this] { --slots_; });
  }

  [[nodiscard]] const S& storage() const noexcept { return host_->storage; }
  [[nodiscard]] bool is_corrupt() const noexcept { return corrupt_.load(std::memory_order_acquire); }
  void condemn() const noexcept { corrupt_.store(true, std::memory_order_release); }

  [[nodiscard]] const DataChunk& description() const {
    if (const DataChunk* known = description_.load(std::memory_order_acquire)) return *known;
    std::error_code error;
    std::unique_ptr<const DataChunk> read;
    try {
      read = std::make_unique<const DataChunk>(host_->storage.describe(generation_, error));
    } catch (const std::system_error& thrown) {
      error = thrown.code();
    } catch (...) {
      error = errc::policy_failed;
    }
    if (error || !read) throw Error(error, "chunk " + generation_.id.to_hex());
    const DataChunk* expected = nullptr;
    // Where another thread was faster, its description stays, as references to it may be out already.
    if (!description_.compare_exchange_strong(expected, read.get(), std::memory_order_acq_rel)) return *expected;
    return *read.release();
  }

 private:
  template <class Change>
  void disown(const Change& change) const noexcept {
    std::shared_ptr<const Pinned> last;  // dropped without the lock: it reports that it is drained
    const std::scoped_lock lock(host_->ownership);
    change();
    if (listings_ == 0 && slots_ == 0) last.swap(self_);
  }

  Generation generation_;
  std::uint64_t serial_;
  std::shared_ptr<PinHost<S>> host_;
  mutable std::shared_ptr<const Pinned> self_;  // this and the next two: under the host's `ownership`
  mutable std::size_t listings_ = 0;
  mutable std::size_t slots_ = 0;  // that are watched and hold it
  mutable std::atomic<const DataChunk*> description_{nullptr};
  mutable std::atomic<bool> corrupt_{false};
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
/// Cheap to take and to drop: a few nanoseconds for the first sixteen that a thread has at a time, and an atomic increment
/// for more of them and for copies. Dropping it never blocks on I/O.
/// Thread-safety: distinct objects may be used by distinct threads, whatever they pin; one object as an
/// `int`.
template <Storage S>
class DataChunkRef {
 public:
  using Location = typename S::Location;

  /// For the manager, of what is listed now and cannot be destroyed before this returns.
  DataChunkRef(const detail::Pinned<S>& listed, detail::PinSlots& slots) noexcept : slot_(slots.take(&listed)) {
    pin_ = slot_ != nullptr ? Pin(Pin(), &listed) : listed.shared_from_this();
  }
  DataChunkRef(const DataChunkRef& other) noexcept
      : pin_(other.slot_ != nullptr ? other.pin_->shared_from_this() : other.pin_) {}
  DataChunkRef(DataChunkRef&& other) noexcept
      : pin_(std::move(other.pin_)), slot_(std::exchange(other.slot_, nullptr)) {}
  DataChunkRef& operator=(DataChunkRef other) noexcept {
    pin_.swap(other.pin_);
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~DataChunkRef() {
    // What is watched lives until it was told.
    if (slot_ != nullptr && detail::PinSlots::drop(*slot_)) pin_->slot_dropped();
  }

  [[nodiscard]] const ChunkId& id() const noexcept { return pin_->generation().id; }
  [[nodiscard]] const DatasetId& dataset_id() const noexcept { return pin_->generation().dataset_id; }
  [[nodiscard]] const BlockRange& block_range() const noexcept { return pin_->generation().block_range; }
  /// Of all files together.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return pin_->generation().bytes; }
  /// The number of this copy of the chunk; another copy of it has another.
  [[nodiscard]] std::uint64_t generation() const noexcept { return pin_->generation().number; }

  /// The files, with their sizes and digests as found, and their URLs without secrets. The first call for a
  /// generation reads the store, later ones do not. Throws `Error` where that fails. Valid as long as a copy
  /// of this pin.
  [[nodiscard]] const std::map<std::string, FileSource>& files() const { return pin_->description().files; }

  /// Whether a scrub has found that it is not as it was published any more: then whatever was read of it is in doubt. True
  /// from then on, of all pins on this generation.
  [[nodiscard]] bool is_corrupt() const noexcept { return pin_->is_corrupt(); }

  /// Where the store has the chunk.
  [[nodiscard]] Location location() const { return pin_->storage().location(pin_->generation()); }

  /// The chunk's directory.
  [[nodiscard]] std::filesystem::path path() const requires std::convertible_to<Location, std::filesystem::path> {
    return location();
  }

 private:
  using Pin = std::shared_ptr<const detail::Pinned<S>>;

  Pin pin_;  // owns it only where there is no slot
  detail::PinSlots::Slot* slot_ = nullptr;
};

}  // namespace garner
