// SPDX-License-Identifier: BSL-1.0
//
// Uses garner::core, and links nothing.
#include <garner/chunk.hpp>

int main() {
  const garner::DataChunk without_files;
  return garner::validate(without_files) ? 0 : 1;
}
