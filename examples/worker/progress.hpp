// SPDX-License-Identifier: BSL-1.0
//
// Shows how far the manager is: a panel on a terminal, otherwise a plain line every few seconds and at each
// failure, not too many of them. `Frame` is what is shown, as a value; `draw` and `describe` turn it into
// text.
#pragma once

#include <garner/status.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "console.hpp"
#include "failures.hpp"

namespace worker {

/// A chunk that fails, with what people want to know about it.
struct FailingChunk {
  std::string name;
  std::uint64_t attempts = 0;
  std::string reason;
  std::optional<std::chrono::nanoseconds> next_try_in;
};

/// What is shown at one moment.
struct Frame {
  garner::Status status;
  std::uint64_t bytes_wanted = 0;  ///< of the wanted files whose size is known
  bool all_sizes_known = false;
  std::chrono::nanoseconds elapsed{};  ///< since the display began
  std::size_t failing = 0;
  std::vector<FailingChunk> latest_failing;
  std::string note;  ///< one more line of the caller's; may be empty

  [[nodiscard]] std::size_t wanted() const noexcept {
    return status.ready + status.queued + status.downloading + status.waiting + status.parked + status.checking;
  }
  /// The time that is left at the present rate, where that can be told.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> time_left() const;
};

/// The panel, for a terminal of `width` columns.
std::vector<PanelLine> draw(const Frame& frame, std::size_t width);
/// One line.
std::string describe(const Frame& frame);

/// Redraws the panel, or writes lines, when it is time to. One thread.
class Progress {
 public:
  using NameOf = std::function<std::string(const garner::ChunkId&)>;
  using StatusOf = std::function<std::optional<garner::ChunkStatus>(const garner::ChunkId&)>;

  /// `timestamps`: whether plain lines begin with the time of day.
  Progress(Console& console, const Failures& failures, bool timestamps);

  /// How a chunk is called, and its state; asked for the few that are shown.
  void set_lookups(NameOf name_of, StatusOf status_of);

  /// Shows `frame`, whose fields about failures and time are filled in here; does nothing where it is too
  /// early for the next one, unless `now` says so. To be called about ten times a second.
  void update(Frame frame);
  /// Writes a line that stays, with the time before it where lines have one.
  void log(const std::string& text, Style style = Style::plain);
  /// Takes the panel away.
  void finish() { console_.hide_panel(); }

 private:
  using Clock = std::chrono::steady_clock;

  void log_failures(Clock::time_point now);

  Console& console_;
  const Failures& failures_;
  const bool timestamps_;
  NameOf name_of_;
  StatusOf status_of_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point next_update_ = start_;
  Clock::time_point next_failures_ = start_;
  std::string last_line_;
  std::uint64_t failures_shown_ = 0;  ///< the order of the last one that was logged
};

}  // namespace worker
