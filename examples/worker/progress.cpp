// SPDX-License-Identifier: BSL-1.0
//
// The look of the display, and when it is renewed.
#include "progress.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "text.hpp"

namespace worker {

namespace {

constexpr std::chrono::milliseconds redraw_interval(100);
constexpr std::chrono::seconds line_interval(5);
constexpr std::chrono::seconds failure_interval(1);
constexpr std::size_t failures_per_interval = 3;
constexpr std::size_t failing_shown = 5;

std::string bar(double share, std::size_t width) {
  const auto full = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  std::string out(width, ' ');
  std::fill_n(out.begin(), full, '=');
  if (full > 0 && full < width) out[full - 1] = '>';
  return out;
}

double share_done(const Frame& frame) {
  const std::size_t wanted = frame.wanted();
  return wanted == 0 ? 1.0 : static_cast<double>(frame.status.ready) / static_cast<double>(wanted);
}

/// Bytes outside ASCII would be counted as columns.
std::string ascii(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

std::string next_try(const FailingChunk& chunk) {
  if (!chunk.next_try_in) return "trying again";
  return fmt::format("again in {}", format_duration(std::max(*chunk.next_try_in, std::chrono::nanoseconds(0))));
}

std::string bytes_line(const Frame& frame) {
  const garner::Status& status = frame.status;
  std::string out = format_bytes(status.bytes_ready);
  if (frame.bytes_wanted > 0) {
    out += fmt::format(" of {}{}", frame.all_sizes_known ? "" : "at least ", format_bytes(frame.bytes_wanted));
  }
  out += fmt::format(" ready, {} received", format_bytes(status.bytes_received));
  if (status.bytes_wasted > 0) out += fmt::format(" ({} in vain)", format_bytes(status.bytes_wasted));
  return out + fmt::format(", {}/s", format_bytes(status.bytes_per_second));
}

std::string states_line(const garner::Status& status) {
  std::string out;
  const auto add = [&out](std::size_t count, std::string_view state, bool always) {
    if (count > 0 || always) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", format_count(count), state);
  };
  add(status.queued, "queued", true);
  add(status.downloading, "downloading", true);
  add(status.waiting, "waiting to retry", false);
  add(status.parked, "parked for space", false);
  add(status.checking, "being checked", false);
  add(status.draining, "draining", false);
  add(status.removing, "removing", false);
  return out;
}

}  // namespace

std::optional<std::chrono::nanoseconds> Frame::time_left() const {
  // Where all that is left waits for its next try, the rate says nothing.
  if (status.converged || status.queued + status.downloading == 0) return std::nullopt;
  double seconds = 0;
  if (all_sizes_known && status.bytes_per_second > 0 && bytes_wanted > status.bytes_ready) {
    seconds = static_cast<double>(bytes_wanted - status.bytes_ready) / status.bytes_per_second;
  } else if (!all_sizes_known && status.chunks_published > 0) {
    const double each = std::chrono::duration<double>(elapsed).count() / static_cast<double>(status.chunks_published);
    seconds = each * static_cast<double>(wanted() - status.ready);
  } else {
    return std::nullopt;
  }
  constexpr double longest = 1e6;  // more is no forecast
  if (seconds > longest) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

std::vector<PanelLine> draw(const Frame& frame, std::size_t width) {
  std::vector<PanelLine> lines;
  const double share = share_done(frame);
  const auto left = frame.time_left();
  const std::string right =
      fmt::format(" {}/{} chunks {:3.0f} %{}", format_count(frame.status.ready), format_count(frame.wanted()),
                  share * 100, left ? fmt::format("  {} left", format_duration(*left)) : "");
  // A bar of a steady width: the text beside it changes its own all the time.
  const std::size_t bar_width = std::clamp<std::size_t>(width > 50 ? width - 50 : 0, 10, 60);
  lines.push_back({fmt::format("[{}]{}", bar(share, bar_width), right), Style::bold});
  lines.push_back({fmt::format("  bytes   {}", bytes_line(frame))});
  lines.push_back({fmt::format("  state   {}", frame.status.converged ? "converged" : states_line(frame.status))});
  if (!frame.note.empty()) lines.push_back({fmt::format("  {}", frame.note)});
  if (frame.failing > 0)
    lines.push_back({fmt::format("  failing {}", format_plural(frame.failing, "chunk")), Style::bad});
  // The reason comes last: it is the longest, and tells the most by its beginning.
  const std::size_t name_width = std::clamp<std::size_t>(width / 3, 20, 60);
  for (const FailingChunk& chunk : frame.latest_failing) {
    lines.push_back({fmt::format("    {:<{}}  #{}, {}: {}", shorten(ascii(chunk.name), name_width), name_width,
                                 chunk.attempts, next_try(chunk), chunk.reason),
                     Style::dim});
  }
  return lines;
}

std::string describe(const Frame& frame) {
  std::string out = fmt::format("{}/{} chunks, {}; {}", frame.status.ready, frame.wanted(), bytes_line(frame),
                                frame.status.converged ? "converged" : states_line(frame.status));
  if (frame.failing > 0) out += fmt::format("; {} failing", frame.failing);
  if (!frame.note.empty()) out += "; " + frame.note;
  return out;
}

Progress::Progress(Console& console, const Failures& failures, bool timestamps)
    : console_(console), failures_(failures), timestamps_(timestamps), failures_shown_(failures.total()) {}

void Progress::set_lookups(NameOf name_of, StatusOf status_of) {
  name_of_ = std::move(name_of);
  status_of_ = std::move(status_of);
}

void Progress::update(Frame frame) {
  const Clock::time_point now = Clock::now();
  if (!console_.is_terminal()) log_failures(now);
  if (now < next_update_) return;
  next_update_ = now + (console_.is_terminal() ? Clock::duration(redraw_interval) : Clock::duration(line_interval));
  frame.elapsed = now - start_;
  frame.failing = failures_.count();
  if (!console_.is_terminal()) {
    std::string line = describe(frame);
    if (line == last_line_) return;  // nothing moves: a log says so by its silence
    log(line);
    last_line_ = std::move(line);
    return;
  }
  for (const Failure& failure : failures_.current(failing_shown)) {
    FailingChunk chunk{name_of_ ? name_of_(failure.id) : failure.id.to_hex(), failure.attempts, failure.error.message(),
                       std::nullopt};
    if (const auto status = status_of_ ? status_of_(failure.id) : std::nullopt) {
      chunk.next_try_in = status->next_try_in;
      chunk.attempts = std::max(chunk.attempts, status->attempts);
    }
    frame.latest_failing.push_back(std::move(chunk));
  }
  console_.show_panel(draw(frame, console_.width()));
}

void Progress::log_failures(Clock::time_point now) {
  if (now < next_failures_) return;
  if (failures_.total() == failures_shown_) return;
  next_failures_ = now + failure_interval;
  const auto shown = failures_.since(failures_shown_, failures_per_interval);
  for (const Failure& failure : shown) {
    log(fmt::format("{} failed, attempt {}: {} ({})", name_of_ ? name_of_(failure.id) : failure.id.to_hex(),
                    failure.attempts, failure.error.message(), failure.subject));
  }
  const std::uint64_t total = failures_.total();
  const std::uint64_t others = total - failures_shown_ - shown.size();
  if (others > 0) log(fmt::format("and {}", format_plural(others, "more failure")));
  failures_shown_ = total;
}

void Progress::log(const std::string& text, Style style) {
  if (!timestamps_ || console_.is_terminal()) return console_.print(text, style);
  console_.print(fmt::format("{:%FT%TZ} {}", fmt::gmtime(std::time(nullptr)), text), style);
}

}  // namespace worker
