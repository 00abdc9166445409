// SPDX-License-Identifier: BSL-1.0
//
// Whether a description can be wanted: what `validate` says of it, and what the downloader says of its URLs.
#pragma once

#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

/// The first thing that is wrong with `chunk`, or nothing.
template <Downloader D>
std::optional<Invalid> check(const DataChunk& chunk, const ChunkLimits& limits, const D& downloader) {
  if (std::optional<Invalid> invalid = validate(chunk, limits)) return invalid;
  for (const auto& [name, source] : chunk.files) {
    for (const std::string& url : source.urls) {
      const std::error_code error = guarded([&] { return downloader.check_url(url); });
      if (!error) continue;
      return Invalid{error,
                     "chunk " + chunk.id.to_hex() + ", file '" + name + "', URL '" + printable(redact_url(url)) + "'"};
    }
  }
  return std::nullopt;
}

/// `fresh` in the place of a source of `chunk`, where that can be wanted: what is known of the bytes stays as it was.
template <Downloader D>
std::optional<Invalid> replace_source(const DataChunk& chunk, const std::string& name, FileSource& fresh,
                                      const ChunkLimits& limits, const D& downloader) {
  const FileSource& source = chunk.files.at(name);
  fresh.size = source.size;
  fresh.digest = source.digest;
  DataChunk changed{chunk.id, chunk.dataset_id, chunk.block_range, {{name, fresh}}};
  return check(changed, limits, downloader);
}

}  // namespace garner::detail
