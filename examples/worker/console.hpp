// SPDX-License-Identifier: BSL-1.0
//
// One output stream, shared by lines that stay and a panel of a few lines that is redrawn in place below
// them. Where the stream is no terminal there is no panel.
#pragma once

#include <cstddef>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace worker {

enum class Style { plain, bold, dim, good, bad };

/// One line of a panel. Printable ASCII; what does not fit the terminal's width is cut off.
struct PanelLine {
  std::string text;
  Style style = Style::plain;
};

/// Thread-safety: every member from any thread.
class Console {
 public:
  /// Writes to `out`, which outlives it. Colours: on a terminal, unless NO_COLOR is set (no-color.org).
  explicit Console(std::FILE* out);
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;
  /// The panel is taken away, so that the next program's prompt stands at the start of a line.
  ~Console() { hide_panel(); }

  /// Whether a panel can be shown: a terminal that can move its cursor.
  [[nodiscard]] bool is_terminal() const noexcept { return terminal_; }
  /// Columns of the terminal at this moment; 80 where nobody knows.
  [[nodiscard]] std::size_t width() const noexcept;

  /// Writes lines that stay, above the panel. A last '\n' is added where there is none.
  void print(std::string_view text, Style style = Style::plain);
  /// Draws the panel anew.
  void show_panel(std::vector<PanelLine> lines);
  void hide_panel();

 private:
  void erase_panel(std::string& out);
  void append_styled(std::string& out, std::string_view text, Style style) const;
  void append_panel(std::string& out);
  void write(const std::string& text) noexcept;

  std::FILE* out_;
  bool terminal_;
  bool colours_;
  std::mutex mutex_;
  std::vector<PanelLine> panel_;
  std::vector<std::size_t> drawn_;  ///< the lengths of the panel's lines that are on the screen
};

}  // namespace worker
