// SPDX-License-Identifier: BSL-1.0
//
// One file of a simulated disk: its bytes as they are read now, as they are durable, and the changes between.
// What of the changes a crash keeps is decided here; names and directories are in sim_disk.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "garner/simulation/decisions.hpp"

namespace garner::detail {

/// A crash keeps what was synced, and of each later change all, nothing, or, of a write, its size without its
/// bytes, its first sectors with or without the size, or its last sectors. Changes are kept independently of each other
/// and put on top of each other in their order.
///
/// A sync that failed forgets that its changes were dirty, as kernels do: they are read as before, no later
/// sync makes them durable, and yet a crash may find them there.
class SimContents {
 public:
  [[nodiscard]] const std::string& now() const noexcept { return now_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return now_.size(); }

  void write(std::uint64_t at, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    begin_change();
    changes_.push_back({at, static_cast<std::uint32_t>(log_.size()), static_cast<std::uint32_t>(text.size()),
                        Kind::write, State::dirty});
    log_ += text;
    put(now_, at, text);
  }

  void truncate(std::uint64_t size) {
    if (size == now_.size()) return;
    begin_change();
    changes_.push_back({size, 0, 0, Kind::truncate, State::dirty});
    now_.resize(static_cast<std::size_t>(size));
  }

  void sync() {
    const bool any_lost =
        std::any_of(changes_.begin(), changes_.end(), [](const Change& change) { return change.state == State::lost; });
    if (!any_lost) return forget();
    // What was lost stays lost beneath what is on top of it.
    for (Change& change : changes_) {
      if (change.state == State::dirty) change.state = State::durable;
    }
  }

  void fail_sync() {
    for (Change& change : changes_) {
      if (change.state == State::dirty) change.state = State::lost;
    }
  }

  /// Whether every crash leaves these bytes as they are now.
  [[nodiscard]] bool is_durable() const noexcept { return changes_.empty(); }

  /// What a crash leaves. `sector`: bytes that are kept or lost together.
  [[nodiscard]] std::string survive(Decisions& decisions, std::uint64_t sector) const {
    if (changes_.empty()) return now_;
    std::string out = durable_;
    for (const Change& change : changes_) {
      if (change.kind == Kind::truncate) {
        const bool keep = change.state == State::durable || decisions.choose(2) == 0;
        if (keep) out.resize(static_cast<std::size_t>(change.at));
      } else if (change.state == State::durable) {
        put(out, change.at, bytes_of(change));
      } else {
        keep_part(out, change, decisions, sector);
      }
    }
    return out;
  }

  /// Calls `part` with numbers and texts that together tell all of this apart from any other.
  template <class Part>
  void write_state(const Part& part) const {
    part(std::string_view(now_));
    part(static_cast<std::uint64_t>(changes_.size()));
    if (changes_.empty()) return;
    part(std::string_view(durable_));
    for (const Change& change : changes_) {
      part(change.at);
      part(static_cast<std::uint64_t>(change.kind) * 4 + static_cast<std::uint64_t>(change.state));
      part(bytes_of(change));
    }
  }

  /// Becomes what a crash left.
  void assign(std::string bytes) {
    now_ = std::move(bytes);
    forget();
  }

  /// Flips one bit of what is there now and of what is durable.
  void corrupt(std::uint64_t at, unsigned bit) {
    const auto flip = [at, bit](std::string& bytes) {
      if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    };
    flip(now_);
    flip(durable_);
  }

  /// Puts `bytes`, as far as the file goes, over what is there now and over what is durable.
  void overwrite(std::uint64_t at, std::span<const std::byte> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (std::string* to : {&now_, &durable_}) {
      if (at < to->size()) text.copy(to->data() + at, std::min(text.size(), to->size() - static_cast<std::size_t>(at)));
    }
  }

 private:
  enum class Kind : std::uint8_t { write, truncate };
  enum class State : std::uint8_t { dirty, lost, durable };

  struct Change {
    std::uint64_t at = 0;     ///< of a truncation: the new size
    std::uint32_t begin = 0;  ///< in `log_`
    std::uint32_t length = 0;
    Kind kind = Kind::write;
    State state = State::dirty;
  };

  [[nodiscard]] std::string_view bytes_of(const Change& change) const noexcept {
    return std::string_view(log_).substr(change.begin, change.length);
  }

  static void put(std::string& to, std::uint64_t at, std::string_view bytes) {
    const auto begin = static_cast<std::size_t>(at);
    if (to.size() < begin + bytes.size()) to.resize(begin + bytes.size());
    bytes.copy(to.data() + begin, bytes.size());
  }

  void keep_part(std::string& out, const Change& change, Decisions& decisions, std::uint64_t sector) const {
    const std::string_view bytes = bytes_of(change);
    const auto end = static_cast<std::size_t>(change.at) + bytes.size();
    const std::uint64_t first = change.at / sector;
    const std::uint64_t sectors = (end - 1) / sector - first + 1;
    // Torn in the middle only where it has one; a size without bytes only where it was longer than the file.
    const std::uint64_t outcome = decisions.choose(sectors > 1 ? 4 : 3);
    if (outcome == 0) return put(out, change.at, bytes);
    if (outcome == 1) return;
    const std::size_t cut =
        outcome == 2 ? 0 : static_cast<std::size_t>((first + 1 + decisions.choose(sectors - 1)) * sector - change.at);
    const std::uint64_t tear = outcome == 2 ? 1 : decisions.choose(3);
    if (tear != 0 && out.size() < end) out.resize(end);
    if (tear < 2) {
      put(out, change.at, bytes.substr(0, cut));
    } else {
      put(out, change.at + cut, bytes.substr(cut));
    }
  }

  void begin_change() {
    if (changes_.empty()) durable_ = now_;
  }

  void forget() {
    changes_.clear();
    log_.clear();
    durable_.clear();
  }

  std::string now_;
  std::string durable_;  ///< what was synced last; meaningless where there are no changes
  std::string log_;      ///< the bytes of all changes
  std::vector<Change> changes_;
};

}  // namespace garner::detail
