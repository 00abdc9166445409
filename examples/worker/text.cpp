// SPDX-License-Identifier: BSL-1.0
//
// How numbers and tables are written out.
#include "text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace worker {

namespace {

std::string format_three_digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  return value < 99.95 ? fmt::format("{:.1f}", value) : fmt::format("{:.0f}", value);
}

}  // namespace

std::string format_bytes(double bytes) {
  constexpr std::array units = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = std::max(bytes, 0.0);
  if (value < 999.5) return fmt::format("{:.0f} B", value);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{} {}", format_three_digits(value), units[unit]);
}

std::string format_bytes(std::uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

std::string format_duration(std::chrono::nanoseconds duration) {
  const auto ns = static_cast<double>(std::max<std::int64_t>(duration.count(), 0));
  if (ns < 999.5) return fmt::format("{:.0f} ns", ns);
  if (ns < 999.5e3) return fmt::format("{} us", format_three_digits(ns / 1e3));
  if (ns < 999.5e6) return fmt::format("{} ms", format_three_digits(ns / 1e6));
  if (ns < 59.95e9) return fmt::format("{} s", format_three_digits(ns / 1e9));
  const auto seconds = static_cast<std::uint64_t>(std::llround(ns / 1e9));
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  return fmt::format("{} h {} min", seconds / 3600, seconds % 3600 / 60);
}

std::string format_count(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string format_plural(std::uint64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", format_count(count), noun, count == 1 ? "" : "s");
}

std::string shorten(std::string_view text, std::size_t width) {
  constexpr std::string_view gap = "...";
  if (text.size() <= width) return std::string(text);
  if (width <= gap.size() + 2) return std::string(text.substr(0, width));
  const std::size_t tail = (width - gap.size()) / 2;
  const std::size_t head = width - gap.size() - tail;
  return fmt::format("{}{}{}", text.substr(0, head), gap, text.substr(text.size() - tail));
}

std::uint64_t parse_bytes(std::string_view text) {
  const auto fail = [&]() -> std::uint64_t {
    throw std::invalid_argument(fmt::format("'{}' is not a number of bytes (100, 64k, 1.5GB)", text));
  };
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || !std::isfinite(value)) return fail();
  std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.remove_suffix(1);
  if (unit.size() > 1) return fail();
  if (!unit.empty()) {
    const std::size_t power = std::string_view("kKmMgGtT").find(unit.front());
    if (power == std::string_view::npos) return fail();
    const std::size_t thousands = power / 2 + 1;
    value *= std::pow(1000.0, static_cast<double>(thousands));
  }
  return value < 1e18 ? static_cast<std::uint64_t>(std::llround(value)) : fail();
}

std::string Table::to_string() const {
  std::vector<std::size_t> widths(columns_.size(), 0);
  bool headed = false;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    widths[i] = columns_[i].heading.size();
    headed = headed || widths[i] > 0;
    for (const auto& row : rows_) widths[i] = std::max(widths[i], row.at(i).size());
  }
  std::string out;
  const auto line = [&](const auto& cell_of) {
    std::string text;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) text += "  ";
      text += columns_[i].align == Align::left ? fmt::format("{:<{}}", cell_of(i), widths[i])
                                               : fmt::format("{:>{}}", cell_of(i), widths[i]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + '\n';
  };
  if (headed) line([&](std::size_t i) -> const std::string& { return columns_[i].heading; });
  for (const auto& row : rows_) line([&](std::size_t i) -> const std::string& { return row[i]; });
  return out;
}

}  // namespace worker
