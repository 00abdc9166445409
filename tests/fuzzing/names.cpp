// SPDX-License-Identifier: BSL-1.0
//
// The names in a data directory: any text that parses is the very name that would be written, and any generation is
// read back from its name.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fuzzing/fuzzing.hpp"
#include "garner/ids.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/store_layout.hpp"

namespace {

using fuzzing::require;
namespace layout = garner::store_layout;

void read(std::string_view name) {
  const garner::DatasetId dataset = garner::DatasetId::from_name("any");
  if (const auto id = layout::parse_dataset_name(name)) {
    require(layout::dataset_name(*id) == name, "a dataset's name is not the one that is written");
  }
  if (const auto generation = layout::parse_chunk_name(name, dataset)) {
    require(layout::chunk_name(*generation) == name, "a chunk's name is not the one that is written");
    require(generation->dataset_id == dataset, "a chunk's name names another dataset");
  }
  if (const auto generation = layout::parse_qualified_name(name)) {
    require(layout::qualified_name(*generation) == name, "a qualified name is not the one that is written");
  }
  if (const auto staging = layout::parse_staging_name(name)) {
    require(layout::staging_name(*staging) == name, "a staging area's name is not the one that is written");
  }
}

template <class Id>
Id any_id(fuzzing::Numbers& numbers) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(numbers.next(1));
  return Id(bytes);
}

void write(fuzzing::Numbers numbers) {
  garner::Generation generation;
  generation.number = numbers.next();
  generation.bytes = numbers.next();
  generation.block_range.begin = numbers.next();
  generation.block_range.end = numbers.next();
  generation.id = any_id<garner::ChunkId>(numbers);
  generation.dataset_id = any_id<garner::DatasetId>(numbers);
  const std::string name = layout::chunk_name(generation);
  const std::string qualified = layout::qualified_name(generation);
  require(qualified.size() <= 213, "a name is longer than is promised");
  const auto read = layout::parse_chunk_name(name, generation.dataset_id);
  // A number that leaves none above it is nobody's.
  const bool is_numbered = generation.number <= garner::detail::most_generations;
  const bool is_valid = generation.block_range.begin < generation.block_range.end && is_numbered;
  require(read.has_value() == is_valid,
          "a chunk's name is read where it should not be, or not where it should: " + name);
  require(!read || *read == generation, "a chunk's name is read as another one's: " + name);
  require(layout::parse_qualified_name(qualified) == read, "a qualified name is read as another one's: " + qualified);
  if (generation.number == 0 || !is_numbered) return;
  const layout::StagingName staging{generation.id, generation.number};
  require(layout::parse_staging_name(layout::staging_name(staging)) == staging,
          "a staging area's name is read as another one's");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read(fuzzing::text(data, size));
  write(fuzzing::Numbers({data, size}));
  return 0;
}
