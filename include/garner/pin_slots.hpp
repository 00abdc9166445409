// SPDX-License-Identifier: BSL-1.0
//
// Where threads write down what they are using, so that taking a pin costs a store and no counter that all threads
// share. Not here: what is pinned, and who waits for it (`chunk_ref.hpp`).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace garner::detail {

/// Hazard pointers (Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS 2004) that are
/// kept for as long as their holder likes, and by whatever thread: a few slots for each thread, in which it alone takes
/// places, and which any thread may free. Where all of its slots are taken, its pins are counted instead.
///
/// Why nothing is missed. A slot is taken inside of a grace period's guard (`core/epoch.hpp`), of something that was
/// listed then; so when that was unlisted and the grace period is over, every slot that holds it is seen, and none will
/// hold it again. `watch` then marks each of them with a compare-and-swap, and a slot is freed with an exchange: of the
/// two the second one sees the first. So either `watch` finds the slot free, or whoever frees it finds the mark and has
/// to tell.
///
/// Thread-safety: every member from any thread. Object lifetimes: there is one for the program, which is never
/// destroyed.
class PinSlots {
 public:
  using Slot = std::atomic<std::uintptr_t>;

  PinSlots(const PinSlots&) = delete;
  PinSlots& operator=(const PinSlots&) = delete;

  static PinSlots& instance() {
    static auto* const slots = new PinSlots;  // pins may outlive every static object
    return *slots;
  }

  /// A slot of this thread's that holds `pinned` now, which is aligned to two bytes at least; null where none is free.
  Slot* take(const void* pinned) noexcept {
    Block* const block = mine.of == this ? mine.block : begin_thread();
    if (block == nullptr) return nullptr;
    for (Slot& slot : block->slots) {
      // Acquired, so that who freed it has done so before whoever waits for that sees what stands here next.
      if (slot.load(std::memory_order_acquire) != 0) continue;
      slot.store(reinterpret_cast<std::uintptr_t>(pinned), std::memory_order_release);
      return &slot;
    }
    return nullptr;
  }

  /// Frees a slot. True where what it held is waited for: the caller tells that.
  [[nodiscard]] static bool drop(Slot& slot) noexcept {
    return (slot.exchange(0, std::memory_order_acq_rel) & watched) != 0;
  }

  /// Marks the slots that hold `pinned` and are not marked yet; returns how many they were.
  [[nodiscard]] std::size_t watch(const void* pinned) noexcept {
    const auto sought = reinterpret_cast<std::uintptr_t>(pinned);
    std::size_t found = 0;
    for (Block* block = blocks_.load(std::memory_order_acquire); block != nullptr; block = block->next) {
      for (Slot& slot : block->slots) {
        std::uintptr_t held = slot.load(std::memory_order_acquire);
        if (held != sought) continue;
        if (slot.compare_exchange_strong(held, held | watched, std::memory_order_acq_rel)) ++found;
      }
    }
    return found;
  }

 private:
  static constexpr std::uintptr_t watched = 1;
  static constexpr std::size_t slots_a_thread = 16;

  /// One thread's at a time. Two cache lines, and nobody else's.
  struct alignas(128) Block {
    std::array<Slot, slots_a_thread> slots{};
    Block* next = nullptr;
    std::atomic<bool> taken{true};
  };

  /// What this thread has, and of whom: each of several shared libraries may have an instance of its own.
  struct Mine {
    PinSlots* of;
    Block* block;
    bool ended;
  };

  /// Gives the thread's block to another one when it ends. What is pinned in it stays so.
  struct Leave {
    ~Leave() {
      if (mine.block != nullptr) mine.block->taken.store(false, std::memory_order_release);
      mine = {nullptr, nullptr, true};
    }
  };

  PinSlots() = default;

  Block* begin_thread() noexcept {
    if (mine.ended || mine.of != nullptr) return nullptr;
    thread_local const Leave leave;
    static_cast<void>(leave);
    mine.of = this;
    for (Block* block = blocks_.load(std::memory_order_acquire); block != nullptr; block = block->next) {
      if (!block->taken.load(std::memory_order_relaxed) && !block->taken.exchange(true, std::memory_order_acquire)) {
        return mine.block = block;
      }
    }
    auto* const block = new (std::nothrow) Block;
    if (block == nullptr) return nullptr;
    block->next = blocks_.load(std::memory_order_relaxed);
    while (!blocks_.compare_exchange_weak(block->next, block, std::memory_order_release, std::memory_order_relaxed)) {
    }
    return mine.block = block;
  }

  static inline thread_local constinit Mine mine{nullptr, nullptr, false};

  std::atomic<Block*> blocks_{nullptr};  // never fewer
};

}  // namespace garner::detail
