// SPDX-License-Identifier: BSL-1.0
//
// The JSON that the control server sends and its client reads: one definition for both.
#pragma once

#include <nlohmann/json.hpp>

#include "backend.hpp"

namespace worker {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ChunkRow, id, name, dataset, begin, end, state, files, bytes, attempts, error)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FileRow, name, path, bytes, digest)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FoundChunk, chunk, path, files)

}  // namespace worker
