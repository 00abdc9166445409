// SPDX-License-Identifier: BSL-1.0
//
// Small parts on one thread, for tests/bench/compare: times, and with --iterations=N a fixed number of turns, so that
// the instructions of two versions can be counted and compared.
#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "garner/core/chunk_index.hpp"
#include "garner/core/chunk_table.hpp"
#include "garner/status.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/store_layout.hpp"
#include "manager.hpp"

namespace {

constexpr std::uint64_t held = 20'000;
using Index = garner::core::ChunkIndex<const std::uint64_t>;

const Index& index_of_held() {
  static const auto index = [] {
    auto out = std::make_unique<Index>();
    for (std::uint64_t number = 0; number < held; ++number) {
      out->insert(bench::dataset_of(number), bench::range_of(number), number,
                  std::make_unique<const std::uint64_t>(number));
    }
    out->publish();
    return out;
  }();
  return *index;
}

void find(benchmark::State& state) {
  const Index& index = index_of_held();
  std::uint64_t number = 0;
  for (auto turn : state) {
    (void)turn;
    number = (number + 7919) % held;
    benchmark::DoNotOptimize(index.find(bench::dataset_of(number), bench::range_of(number).begin,
                                        [](const std::uint64_t& value) { return value; }));
  }
}

void change_index(benchmark::State& state) {
  Index index;
  std::vector<Index::Garbage> garbage;
  std::uint64_t number = 0;
  for (auto turn : state) {
    (void)turn;
    const auto key = index.insert(bench::dataset_of(number), bench::range_of(number), number,
                                  std::make_unique<const std::uint64_t>(number));
    index.publish();
    if (number % 2 == 0) index.erase(key);
    index.publish();
    index.collect(garbage);
    garbage.clear();
    ++number;
  }
}

void want_and_forget(benchmark::State& state) {
  garner::core::ChunkTable table(garner::Options(), 1);
  std::uint64_t number = 0;
  for (auto turn : state) {
    (void)turn;
    table.download(garner::core::Wish(bench::chunk_of(number)), {});
    if (number >= 1000) table.remove(bench::id_of(number - 1000), {});
    table.actions().clear();
    ++number;
  }
}

void validate_chunk(benchmark::State& state) {
  const garner::DataChunk chunk = bench::chunk_of(1, 5);
  for (auto turn : state) {
    (void)turn;
    benchmark::DoNotOptimize(garner::validate(chunk, {10, std::uint64_t{1} << 40}));
  }
}

void parse_name(benchmark::State& state) {
  const garner::Generation generation{bench::id_of(1), bench::dataset_of(1), bench::range_of(1), 1'000'000, 7};
  const std::string name = garner::store_layout::chunk_name(generation);
  for (auto turn : state) {
    (void)turn;
    benchmark::DoNotOptimize(garner::store_layout::parse_chunk_name(name, generation.dataset_id));
  }
}

void digest(benchmark::State& state) {
  const std::vector<std::byte> bytes(std::size_t{64} << 10, std::byte{1});
  garner::DigestStream stream;
  for (auto turn : state) {
    (void)turn;
    stream.update(bytes);
  }
}

const std::array parts{benchmark::RegisterBenchmark("find", &find),
                       benchmark::RegisterBenchmark("change_index", &change_index),
                       benchmark::RegisterBenchmark("want_and_forget", &want_and_forget),
                       benchmark::RegisterBenchmark("validate_chunk", &validate_chunk),
                       benchmark::RegisterBenchmark("parse_name", &parse_name),
                       benchmark::RegisterBenchmark("digest", &digest)};

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view option = "--iterations=";
  if (argc > 1 && std::string_view(argv[argc - 1]).starts_with(option)) {
    const std::string_view text = std::string_view(argv[--argc]).substr(option.size());
    for (auto* const part : parts) part->Iterations(static_cast<std::int64_t>(bench::parse_number(text)));
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
