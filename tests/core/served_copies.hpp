// SPDX-License-Identifier: BSL-1.0
//
// What serves generations, for the tests of the chunk table: as the manager tells it of each that is listed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "garner/served.hpp"

namespace garner::test {

/// Each is there as long as this, as an index would have those that are listed.
class ServedCopies {
 public:
  detail::Served& of(const Generation& generation) {
    std::unique_ptr<Copy>& copy = copies_[{generation.id, generation.number}];
    if (!copy) copy = std::make_unique<Copy>(generation);
    return *copy;
  }

 private:
  struct Copy : detail::DatasetHome, detail::Served {
    explicit Copy(const Generation& generation)
        : DatasetHome{generation.dataset_id}, Served(generation, static_cast<const DatasetHome&>(*this)) {}
  };

  std::map<std::pair<ChunkId, std::uint64_t>, std::unique_ptr<Copy>> copies_;
};

}  // namespace garner::test
