// SPDX-License-Identifier: BSL-1.0
//
// How the programs behind tests/simulate read their options.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <system_error>

namespace simulation {

[[noreturn]] inline void refuse(const std::string& what) {
  std::cerr << "simulate: " << what << "; see --help\n";
  std::exit(2);  // NOLINT(concurrency-mt-unsafe): no thread is there
}

inline std::uint64_t number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) refuse('\'' + std::string(text) + "' is not a number");
  return out;
}

}  // namespace simulation
