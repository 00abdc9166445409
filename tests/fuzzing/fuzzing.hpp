// SPDX-License-Identifier: BSL-1.0
//
// What every fuzzer uses. A fuzzer is one file here, with `LLVMFuzzerTestOneInput`; its first inputs are in
// corpus/NAME/, and words of its format, if any, in NAME.dict. CMake and tests/fuzz find it by themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

namespace fuzzing {

/// A property of the input: where it does not hold, the run ends here and the input is kept.
inline void require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::abort();
}

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Takes numbers off the front of the input; 0 where it ran out.
class Numbers {
 public:
  explicit Numbers(std::span<const std::uint8_t> input) : input_(input) {}

  std::uint64_t next(std::size_t bytes = 8) {
    std::uint64_t number = 0;
    for (; bytes > 0 && !input_.empty(); --bytes) {
      number = number << 8 | input_.front();
      input_ = input_.subspan(1);
    }
    return number;
  }

 private:
  std::span<const std::uint8_t> input_;
};

}  // namespace fuzzing
