// SPDX-License-Identifier: BSL-1.0
//
// Passes over all that is held: who is to be re-read next, and when. Knows ids, bytes and the time; what a chunk is,
// and whether it can be re-read just now, is known to whoever asks.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"
#include "garner/ids.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// A pass goes round: it begins behind the chunk that was re-read last, the first one at a place that `seed` chooses.
/// So what was not re-read for the longest time comes first, and a worker that is started again and again does not
/// always re-read the same chunks, nor does one that is asked for a pass again and again.
///
/// Each member is O(log n) or less; of a pass that is replaced, the ids are freed.
class Scrub {
 public:
  explicit Scrub(std::uint64_t seed) {
    Random random(seed);
    std::array<std::uint8_t, 32> bytes{};
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
    last_ = ChunkId(bytes);
  }

  /// Whether the time has come for the next pass, which begins with a list of what is held.
  [[nodiscard]] bool is_due(const Options& options, Instant now) const {
    const std::optional<Instant> at = due(options);
    return at && *at <= now;
  }

  /// The list was asked for.
  void list() { listing_ = true; }

  /// Begins a pass over `ids`, which are in their order, in the place of the one that is running; what that one had is
  /// in `ids` then, to be freed where it holds nobody up. A `paced` one keeps to `Options::scrub_bytes_per_second`, and
  /// does not take the place of one that need not.
  void begin(std::vector<ChunkId>& ids, bool paced, Instant now) {
    if (paced) listing_ = false;
    if (is_stopped_ || (paced && status_.running && !paced_)) return;
    paced_ = paced;
    began_ = now;
    first_ = static_cast<std::size_t>(std::upper_bound(ids.begin(), ids.end(), last_) - ids.begin());
    ids_.swap(ids);
    next_ = 0;
    ++pass_;
    const std::uint64_t passes = status_.passes;
    status_ = {};
    status_.running = true;
    status_.chunks_total = ids_.size();
    status_.passes = passes;
  }

  /// Whose turn it is; nothing where none is running, where it is not time yet, or while one is being re-read.
  [[nodiscard]] std::optional<ChunkId> turn(const Options& options, Instant now) {
    is_held_up_ = false;
    if (reading_ || next_ == ids_.size() || now < next_at(options)) return std::nullopt;
    return ids_[(first_ + next_) % ids_.size()];
  }

  /// The chunk whose turn it was is not held any more.
  void skip() {
    ++next_;
    ++status_.chunks_done;
  }

  /// It cannot be re-read before something else was reported, which leads to another look at whose turn it is.
  void hold_up() { is_held_up_ = true; }

  /// It is being re-read.
  void read(std::uint64_t bytes, Instant now) {
    last_ = ids_[(first_ + next_) % ids_.size()];
    ++next_;
    reading_ = pass_;
    read_at_ = now;
    read_bytes_ = bytes;
  }

  enum class Result : std::uint8_t { whole, corrupt, unreadable, cancelled };

  /// It was.
  void done(Result result) {
    // What was found is news for the pass that has begun meanwhile, too; but that one re-reads the chunk itself.
    if (result == Result::corrupt) ++status_.corrupt;
    if (result == Result::unreadable) ++status_.unreadable;
    if (std::exchange(reading_, std::nullopt) != pass_) return;
    ++status_.chunks_done;
    status_.bytes_done += read_bytes_;
  }

  /// Whether the pass has just come to its end. True once; `ids` is then to be freed where it holds nobody up.
  bool ends(std::vector<ChunkId>& ids) {
    if (!status_.running || reading_ || next_ != ids_.size()) return false;
    status_.running = false;
    ++status_.passes;
    ids.swap(ids_);
    next_ = 0;
    return true;
  }

  /// When to look again. Nothing where something else comes first.
  [[nodiscard]] std::optional<Instant> wake(const Options& options) const {
    if (reading_ || is_held_up_) return std::nullopt;
    return next_ == ids_.size() ? due(options) : next_at(options);
  }

  /// No pass begins or goes on any more.
  void stop() {
    is_stopped_ = true;
    std::vector<ChunkId>().swap(ids_);
    next_ = 0;
    status_.running = false;
  }

  [[nodiscard]] const ScrubStatus& status() const noexcept { return status_; }

 private:
  /// Of the next pass.
  [[nodiscard]] std::optional<Instant> due(const Options& options) const {
    if (options.scrub_interval <= Instant{} || status_.running || listing_ || is_stopped_) return std::nullopt;
    return began_ ? later(*began_, options.scrub_interval) : Instant{};
  }

  /// After `n` bytes, `n / rate` later; so that the rate does not depend on how long it took to read them.
  [[nodiscard]] Instant next_at(const Options& options) const {
    if (!paced_ || options.scrub_bytes_per_second == 0) return Instant{};
    const double seconds = static_cast<double>(read_bytes_) / static_cast<double>(options.scrub_bytes_per_second);
    constexpr double most = 1e9;  // thirty years
    return later(read_at_, Instant(static_cast<std::int64_t>(std::min(seconds, most) * 1e9)));
  }

  static Instant later(Instant at, Instant by) { return by > Instant::max() - at ? Instant::max() : at + by; }

  std::vector<ChunkId> ids_;
  std::size_t first_ = 0;
  std::size_t next_ = 0;  ///< counted from the first
  ChunkId last_;          ///< re-read
  std::uint64_t pass_ = 0;
  std::optional<std::uint64_t> reading_;  ///< for which pass
  Instant read_at_{};
  std::uint64_t read_bytes_ = 0;
  std::optional<Instant> began_;
  bool paced_ = false;
  bool listing_ = false;
  bool is_held_up_ = false;
  bool is_stopped_ = false;
  ScrubStatus status_;
};

}  // namespace garner::core
