// SPDX-License-Identifier: BSL-1.0
//
// Deferred reclamation: readers mark that they are inside, a writer learns when all that were inside at some
// moment have left. Not a lock: a reader never waits, and a writer never waits for a reader, it looks again
// later.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace garner::core {

/// Grace periods in the manner of sleepable RCU (McKenney, "Sleepable Read-Copy Update", LWN 2006): two sets
/// of reader counts, of which readers enter the current one, and a flip between them per grace period.
///
/// Why it is right. A reader increments a count and then loads the shared pointer; a writer replaces the
/// pointer and then reads the counts; all four are sequentially consistent. If the writer's read misses the
/// increment, the reader's load comes after the replacement and finds the new object. So what was replaced is
/// free once every count has been seen at zero after the replacement. With one set of counts that might never
/// happen, as new readers keep entering; so first the set that is not current is seen at zero (only late
/// readers can be in it), then the two are swapped, and then the other set is seen at zero.
///
/// `Garbage` owns what is not to be destroyed while a reader may see it; its destructor may do anything.
///
/// Thread-safety: `enter` from any thread; all else from one thread at a time.
template <class Garbage>
class Epochs {
 public:
  /// A reader's stay. Short: nothing that was retired during it is freed before it ends.
  class Guard {
   public:
    explicit Guard(std::atomic<std::uint64_t>& count) noexcept : count_(count) {
      count_.fetch_add(1, std::memory_order_seq_cst);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() { count_.fetch_sub(1, std::memory_order_release); }

   private:
    std::atomic<std::uint64_t>& count_;
  };

  [[nodiscard]] Guard enter() const noexcept {
    Stripe& stripe = stripes_[thread_number() % stripes];
    return Guard(stripe.inside[current_.load(std::memory_order_relaxed) & 1]);
  }

  /// Hands over what readers cannot reach any more, but may have reached before.
  void retire(Garbage garbage) { retired_.push_back(std::move(garbage)); }

  /// Appends to `out` what no reader can see any more. The caller destroys it, where its destructors do no
  /// harm.
  void collect(std::vector<Garbage>& out) {
    while (true) {
      if (phase_ == Phase::rest) {
        if (retired_.empty()) return;
        waiting_.swap(retired_);
        phase_ = Phase::late_readers;
      }
      if (phase_ == Phase::late_readers) {
        if (!left(current_.load(std::memory_order_relaxed) + 1)) return;
        current_.fetch_add(1, std::memory_order_seq_cst);
        phase_ = Phase::readers;
      }
      if (!left(current_.load(std::memory_order_relaxed) + 1)) return;
      out.insert(out.end(), std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
      if (waiting_.capacity() > 1024) std::vector<Garbage>().swap(waiting_);  // a great change is past
      waiting_.clear();
      phase_ = Phase::rest;
    }
  }

  /// Whether something is retired and not yet collected.
  [[nodiscard]] bool pending() const noexcept { return !retired_.empty() || !waiting_.empty(); }

 private:
  enum class Phase : std::uint8_t { rest, late_readers, readers };

  // Threads are spread over stripes so that their counts do not share a cache line.
  static constexpr std::size_t stripes = 16;
  struct alignas(64) Stripe {
    std::array<std::atomic<std::uint64_t>, 2> inside{};
  };

  static std::size_t thread_number() noexcept {
    static std::atomic<std::size_t> next{0};
    thread_local const std::size_t number = next.fetch_add(1, std::memory_order_relaxed);
    return number;
  }

  [[nodiscard]] bool left(std::uint64_t set) const noexcept {
    for (const Stripe& stripe : stripes_) {
      if (stripe.inside[set & 1].load(std::memory_order_seq_cst) != 0) return false;
    }
    return true;
  }

  mutable std::array<Stripe, stripes> stripes_;
  std::atomic<std::uint64_t> current_{0};
  Phase phase_ = Phase::rest;
  std::vector<Garbage> retired_;
  std::vector<Garbage> waiting_;
};

}  // namespace garner::core
