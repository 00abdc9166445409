// SPDX-License-Identifier: BSL-1.0
//
// The panel is drawn with three ECMA-48 sequences: cursor up, erase to the end of the screen, and colours.
#include "console.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

namespace worker {

namespace {

std::string_view colour_of(Style style) {
  switch (style) {
    case Style::plain: return "";
    case Style::bold: return "\x1b[1m";
    case Style::dim: return "\x1b[2m";
    case Style::good: return "\x1b[32m";
    case Style::bad: return "\x1b[31m";
  }
  return "";
}

bool is_set(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return value != nullptr && *value != '\0';
}

winsize window_of(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0) size = {};
  return size;
}

}  // namespace

Console::Console(std::FILE* out) : out_(out) {
  const char* term = std::getenv("TERM");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  terminal_ = isatty(fileno(out)) == 1 && term != nullptr && std::string_view(term) != "dumb";
  colours_ = terminal_ && !is_set("NO_COLOR");
}

std::size_t Console::width() const noexcept {
  const winsize size = window_of(out_);
  return size.ws_col > 0 ? size.ws_col : 80;
}

void Console::print(std::string_view text, Style style) {
  const std::lock_guard lock(mutex_);
  std::string out;
  erase_panel(out);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    append_styled(out, text.substr(0, end), style);
    out += '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  append_panel(out);
  write(out);
}

void Console::show_panel(std::vector<PanelLine> lines) {
  if (!terminal_) return;
  const std::lock_guard lock(mutex_);
  panel_ = std::move(lines);
  std::string out;
  erase_panel(out);
  append_panel(out);
  write(out);
}

void Console::hide_panel() {
  const std::lock_guard lock(mutex_);
  panel_.clear();
  std::string out;
  erase_panel(out);
  write(out);
}

void Console::erase_panel(std::string& out) {
  // A line that was drawn before the terminal became narrower takes several rows now.
  const std::size_t columns = width();
  std::size_t rows = 0;
  for (const std::size_t length : drawn_) rows += std::max<std::size_t>((length + columns - 1) / columns, 1);
  if (rows > 0) out += fmt::format("\x1b[{}A\r\x1b[J", rows);
  drawn_.clear();
}

void Console::append_styled(std::string& out, std::string_view text, Style style) const {
  const std::string_view colour = colours_ ? colour_of(style) : "";
  out += colour;
  out += text;
  if (!colour.empty()) out += "\x1b[0m";
}

void Console::append_panel(std::string& out) {
  // The cursor cannot go up past the top of the screen, so a panel that is too high would be drawn over and
  // over.
  const winsize size = window_of(out_);
  const std::size_t rows = size.ws_row > 1 ? size.ws_row - 1U : 24U;
  const std::size_t columns = width();
  for (const PanelLine& line : panel_) {
    if (drawn_.size() == rows) break;
    const std::string_view shown = std::string_view(line.text).substr(0, columns);
    append_styled(out, shown, line.style);
    out += '\n';
    drawn_.push_back(shown.size());
  }
}

void Console::write(const std::string& text) noexcept {
  // In one piece, so that a terminal shows no half-drawn panel. Where the reader is gone there is nobody to
  // tell.
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

}  // namespace worker
