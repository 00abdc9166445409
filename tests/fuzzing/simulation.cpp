// SPDX-License-Identifier: BSL-1.0
//
// Simulated lives whose every decision is taken off the input: the fuzzer looks for those that reach new code, where
// tests/simulate draws at random. Started with --make-corpus DIRECTORY it writes down what some seeds decide.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fuzzing/fuzzing.hpp"
#include "garner/simulation/decisions.hpp"
#include "simulation/lake.hpp"
#include "simulation/scenario.hpp"

namespace {

constexpr std::size_t steps = 60;

/// Decides as a seed does, and writes a tape that decides the same.
class Recorder final : public garner::Decisions {
 public:
  explicit Recorder(std::uint64_t seed) : seeded_(seed) {}

  std::uint64_t choose(std::uint64_t n) override {
    const std::uint64_t answer = seeded_.choose(n);
    std::string bytes;
    std::uint64_t left = answer;
    for (std::uint64_t rest = n - 1; rest != 0; rest >>= 8, left >>= 8)
      bytes.insert(bytes.begin(), static_cast<char>(left));
    tape_ += bytes;
    return answer;
  }
  void begin_part(std::uint64_t part) override { seeded_.begin_part(part); }

  [[nodiscard]] const std::string& tape() const noexcept { return tape_; }

 private:
  garner::SeededDecisions seeded_;
  std::string tape_;
};

/// The first seeds whose tapes are short: what they do is as much as the others do, with fewer faults.
void make_corpus(const std::string& directory) {
  constexpr std::size_t most_bytes = 1000;
  constexpr int tapes = 20;
  std::uint64_t seed = 0;
  for (int made = 0; made < tapes; ++seed) {
    Recorder recorder(seed);
    simulation::Scenario(recorder).run(steps);
    if (recorder.tape().size() > most_bytes) continue;
    garner::TapeDecisions tape(std::as_bytes(std::span(recorder.tape())));
    simulation::Scenario(tape).run(steps);
    fuzzing::require(tape.exhausted(), "a tape does not decide as its seed did");
    std::ofstream(directory + "/seed-" + std::to_string(seed), std::ios::binary) << recorder.tape();
    ++made;
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::span arguments(*argv, static_cast<std::size_t>(*argc));
  if (arguments.size() == 3 && std::string_view(arguments[1]) == "--make-corpus") {
    make_corpus(arguments[2]);
    std::exit(0);  // NOLINT(concurrency-mt-unsafe): no thread is there
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  garner::TapeDecisions decisions(std::as_bytes(std::span(data, size)));
  simulation::Scenario scenario(decisions);
  const std::optional<std::string> failure = scenario.run(steps);
  fuzzing::require(!failure, simulation::Lake::get().readable(failure.value_or("")));
  return 0;
}
