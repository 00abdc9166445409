// SPDX-License-Identifier: BSL-1.0
//
// What the digest that is always on takes of a processor: seconds a gigabyte, in the pieces in which the downloader
// hands bytes over, which were written a moment ago and so are in the cache.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <vector>

#include "garner/download/curl_settings.hpp"
#include "garner/storage/digest_stream.hpp"
#include "measuring.hpp"

namespace {

double processor_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

int main() {
  constexpr std::uint64_t gigabyte = 1'000'000'000;
  constexpr int streams = 8;  // as many as there are transfers, each with a buffer of its own
  const garner::CurlSettings settings;
  std::vector<std::vector<std::byte>> pieces(streams, std::vector<std::byte>(settings.write_bytes, std::byte{1}));
  std::vector<garner::DigestStream> digests(streams);
  double spent = 0;
  std::size_t at = 0;
  for (std::uint64_t done = 0; done < gigabyte; done += settings.write_bytes, at = (at + 1) % streams) {
    std::fill(pieces[at].begin(), pieces[at].end(), static_cast<std::byte>(done));
    const double begin = processor_seconds();
    digests[at].update(pieces[at]);
    spent += processor_seconds() - begin;
  }
  bench::tell("digest", spent);
}
