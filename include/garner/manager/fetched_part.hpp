// SPDX-License-Identifier: BSL-1.0
//
// What is there of a file that was not fetched to its end, and how it is gone on with: whether it may be, and what is
// to be asked of a server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "garner/chunk.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

struct FetchedPart {
  std::uint64_t size = 0;   ///< bytes
  SourceIdentity identity;  ///< of these
  std::string url;          ///< that they came from, redacted: signatures may change; empty where that is not known
};

/// All bytes are there, of an earlier attempt. Nothing is to be asked of a server then.
inline bool is_whole(const FileSource& source, const FetchedPart& part) {
  return part.size != 0 && part.size == source.size.value_or(part.identity.length.value_or(0));
}

/// Whether what is there and what comes from `url`, redacted, are certain to be parts of the same bytes, or a digest
/// will tell.
inline bool can_resume(const FileSource& source, const FetchedPart& part, const std::string& url) {
  if (source.digest) return true;
  return part.url == url && !(part.identity.etag.empty() && part.identity.last_modified.empty());
}

/// For the rest of it, from the mirror `url`.
inline FetchRequest request_rest(const FileSource& source, const FetchedPart& part, std::size_t url) {
  FetchRequest request;
  request.url = source.urls[url];
  request.offset = part.size;
  if (request.offset > 0) {
    // Another mirror's validators mean nothing to this one.
    if (part.url == redact_url(request.url)) request.identity = part.identity;
    request.identity.length = part.identity.length;
  }
  request.size = source.size;
  request.headers = source.headers;
  return request;
}

}  // namespace garner::detail
