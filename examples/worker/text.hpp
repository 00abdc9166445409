// SPDX-License-Identifier: BSL-1.0
//
// Numbers and tables for people to read. Text in, text out.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace worker {

/// "0 B", "999 B", "1.50 kB", "23.4 MB", "123 GB": powers of 1000, three digits.
std::string format_bytes(double bytes);
std::string format_bytes(std::uint64_t bytes);

/// "87 ns", "1.20 us", "340 ms", "25.0 s", "3 min 20 s", "5 h 12 min".
std::string format_duration(std::chrono::nanoseconds duration);

/// "12,345,678".
std::string format_count(std::uint64_t count);

/// "1 chunk", "2 chunks".
std::string format_plural(std::uint64_t count, std::string_view noun);

/// `text` in at most `width` columns: where it is longer its middle is left out, since both ends of a name
/// tell more.
std::string shorten(std::string_view text, std::size_t width);

/// Reads "100", "64k", "100MB", "1.5 GB" (powers of 1000). Throws `std::invalid_argument`.
std::uint64_t parse_bytes(std::string_view text);

/// Rows of cells, in columns as wide as their widest cell. Columns of numbers are set to the right.
class Table {
 public:
  enum class Align { left, right };
  struct Column {
    std::string heading;
    Align align = Align::left;
  };

  /// Columns without any heading make a table without a heading line.
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// As many cells as there are columns.
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
  /// Lines that end in '\n'.
  [[nodiscard]] std::string to_string() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace worker
