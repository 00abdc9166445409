// SPDX-License-Identifier: BSL-1.0
//
// The names in a data directory: written as DESIGN.md says, read back, and nothing else read.
#include "garner/storage/store_layout.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace {

using garner::ChunkId;
using garner::DatasetId;
using garner::Generation;
namespace layout = garner::store_layout;

const DatasetId dataset = DatasetId::from_name("d");
const ChunkId chunk = ChunkId::from_name("c");

TEST_CASE("a chunk's name says its range, its bytes, its id and its generation") {
  const Generation generation{chunk, dataset, {17, 21000000}, 12345678901, 3};
  CHECK(layout::chunk_name(generation) == "0000000017-0021000000-12345678901-" + chunk.to_hex() + ".3");
  CHECK(layout::qualified_name(generation) == dataset.to_hex() + '-' + layout::chunk_name(generation));
  CHECK(layout::staging_name({chunk, 3}) == chunk.to_hex() + ".3");
  CHECK(layout::dataset_name(dataset) == dataset.to_hex());
}

TEST_CASE("names sort as the blocks do, up to ten digits") {
  CHECK(layout::chunk_name({chunk, dataset, {9, 10}, 0, 1}) < layout::chunk_name({chunk, dataset, {10, 11}, 0, 1}));
}

TEST_CASE("what is written is read back") {
  std::mt19937_64 random(7);
  std::vector<std::uint64_t> numbers = {0, 1, 9999999999, 10000000000, UINT64_MAX - 1, UINT64_MAX};
  for (int i = 0; i < 50; ++i) numbers.push_back(random() >> (random() % 64));
  for (const std::uint64_t begin : numbers) {
    for (const std::uint64_t number : numbers) {
      if (begin == UINT64_MAX) continue;
      const Generation generation{chunk, dataset, {begin, UINT64_MAX}, number, number / 2};
      CHECK(layout::parse_chunk_name(layout::chunk_name(generation), dataset) == generation);
      CHECK(layout::parse_qualified_name(layout::qualified_name(generation)) == generation);
      CHECK(layout::qualified_name(generation).size() <= 255);
    }
  }
  CHECK(layout::parse_staging_name(layout::staging_name({chunk, UINT64_MAX / 2})) ==
        layout::StagingName{chunk, UINT64_MAX / 2});
  CHECK(layout::parse_dataset_name(layout::dataset_name(dataset)) == dataset);
}

TEST_CASE("a name without a generation is generation 0, which has no other name") {
  const std::string name = "0000000001-0000000002-0000000003-" + chunk.to_hex();
  const auto generation = layout::parse_chunk_name(name, dataset);
  REQUIRE(generation);
  CHECK(generation->number == 0);
  CHECK(layout::chunk_name(*generation) == name);
}

TEST_CASE("hostile chunk names are no names") {
  const std::string id = chunk.to_hex();
  std::string upper = id;
  for (char& c : upper) {
    if (c >= 'a') c = static_cast<char>(c - 'a' + 'A');
  }
  const std::string good = "0000000001-0000000002-0000000003-" + id + ".4";
  REQUIRE(layout::parse_chunk_name(good, dataset));
  const std::vector<std::string> bad = {
      "",
      ".",
      "..",
      "-",
      "---",
      id,
      good + " ",
      " " + good,
      good + "x",
      good + ".5",
      good + '\0',
      good + "/",
      "../" + good,
      "1-2-3-" + id + ".4",                                   // not padded
      "00000000001-0000000002-0000000003-" + id + ".4",       // padded too much
      "0000000001-0000000002-00000000003-" + id + ".4",       //
      "+000000001-0000000002-0000000003-" + id + ".4",        //
      "-000000001-0000000002-0000000003-" + id + ".4",        //
      "0x00000001-0000000002-0000000003-" + id + ".4",        //
      "0000000001-18446744073709551616-0000000003-" + id,     // 2^64
      "0000000001-99999999999999999999999-0000000003-" + id,  //
      "0000000002-0000000002-0000000003-" + id + ".4",        // an empty range
      "0000000003-0000000002-0000000003-" + id + ".4",        // a reversed one
      "0000000001-0000000002-0000000003-" + upper + ".4",     // another spelling of the same
      "0000000001-0000000002-0000000003-" + id.substr(1),     //
      "0000000001-0000000002-0000000003-0" + id,              //
      "0000000001-0000000002-0000000003-" + id + ".",         //
      "0000000001-0000000002-0000000003-" + id + ".0",        // generation 0 has no suffix
      "0000000001-0000000002-0000000003-" + id + ".04",       //
      "0000000001-0000000002-0000000003-" + id + ".-4",       //
      "0000000001-0000000002-0000000003-" + id + ".18446744073709551616",
      "0000000001-0000000002-0000000003-" + id + ".18446744073709551615",  // nothing would be above it
      "0000000001-0000000002-" + id + ".4",
      "0000000001_0000000002_0000000003_" + id + ".4",
  };
  for (const std::string& name : bad) {
    CAPTURE(name);
    CHECK_FALSE(layout::parse_chunk_name(name, dataset));
    CHECK_FALSE(layout::parse_qualified_name(dataset.to_hex() + '-' + name));
  }
  CHECK_FALSE(layout::parse_qualified_name(good));
  CHECK_FALSE(layout::parse_qualified_name(upper + '-' + good));
  CHECK_FALSE(layout::parse_qualified_name(dataset.to_hex() + good));
}

TEST_CASE("hostile staging and dataset names are no names") {
  const std::string id = chunk.to_hex();
  for (const std::string& name : {std::string(), id, id + ".", id + ".0", id + ".01", id + ".1.2", id + ".x", "." + id,
                                  id.substr(1) + ".1", id + ".18446744073709551616", "A" + id.substr(1) + ".1"}) {
    CAPTURE(name);
    CHECK_FALSE(layout::parse_staging_name(name));
  }
  for (const std::string& name :
       {std::string(), std::string("lost+found"), id + "0", id.substr(1), "A" + id.substr(1), "G" + id.substr(1)}) {
    CAPTURE(name);
    CHECK_FALSE(layout::parse_dataset_name(name));
  }
}

TEST_CASE("a name that parses is the one that would be written, whatever is done to it") {
  std::mt19937_64 random(11);
  const std::string alphabet = "0123456789abcdefABC.-/ x";
  const Generation generation{chunk, dataset, {17, 21}, 5, 12};
  int parsed = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string name = layout::chunk_name(generation);
    for (std::uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % name.size();
      const char c = alphabet[random() % alphabet.size()];
      switch (random() % 3) {
        case 0: name[at] = c; break;
        case 1: name.insert(at, 1, c); break;
        default: name.erase(at, 1); break;
      }
    }
    const auto found = layout::parse_chunk_name(name, dataset);
    if (!found) continue;
    ++parsed;
    if (layout::chunk_name(*found) != name) FAIL(name);
  }
  CHECK(parsed > 0);
}

}  // namespace
