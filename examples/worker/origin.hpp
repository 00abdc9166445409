// SPDX-License-Identifier: BSL-1.0
//
// An origin on loopback for a manifest whose own URLs cannot be reached: serves its names with bytes made
// from a seed, sizes scaled down, and rewrites the manifest to itself, with digests that are true. It can
// misbehave on request.
#pragma once

#include <garner/chunk.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "content.hpp"
#include "manifest.hpp"

namespace support {
class LoopbackOrigin;
struct Reply;
struct Request;
}  // namespace support

namespace worker {

/// What an origin does wrong, each kind to a few of its files and not for ever.
enum class Fault : std::uint8_t {
  none,
  unavailable,  ///< 503 with Retry-After
  reset,        ///< the connection breaks in the middle of the body
  wrong_bytes,  ///< the first mirror has the right length and one wrong byte; the second one is good
  missing,      ///< 404, as while a new chunk has not reached every server
};
inline constexpr std::size_t fault_kinds = 5;
std::string_view to_string(Fault fault) noexcept;

struct OriginOptions {
  std::uint64_t scale = 64;  ///< a file of N bytes becomes one of N / scale
  std::uint64_t seed = 1;
  double bytes_per_second = 0;  ///< over all connections; 0 is as fast as it goes
  bool faults = false;
  unsigned threads = 2;
};

class Origin {
 public:
  /// Starts to serve all files of `manifest`, and rewrites their URLs, sizes and digests. Files with one URL
  /// path are one file here. Where the manifest has no size, one is drawn from the seed. Takes a second for
  /// each gigabyte and core: the digests are computed.
  Origin(Manifest& manifest, OriginOptions options);
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;
  ~Origin();

  [[nodiscard]] std::string url() const;
  [[nodiscard]] std::size_t files() const noexcept { return files_.size(); }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }  ///< of all files
  [[nodiscard]] std::uint64_t requests() const noexcept { return requests_; }
  /// How often it misbehaved so far.
  [[nodiscard]] std::uint64_t faults(Fault kind) const noexcept { return faults_[static_cast<std::size_t>(kind)]; }

 private:
  struct File {
    File(const Content& bytes, Fault kind) : content(bytes), fault(kind) {}

    Content content;
    std::string etag;
    std::optional<garner::Digest> digest;  ///< set before the first request
    Fault fault;
    std::atomic<unsigned> requests = 0;
  };

  void add_file(const std::string& path, const garner::FileSource& source);
  void compute_digests();
  support::Reply answer(const support::Request& request);
  support::Reply misbehave(File& file);

  OriginOptions options_;
  std::unordered_map<std::string, std::unique_ptr<File>> files_;  ///< by the path of its URL
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t> requests_ = 0;
  std::array<std::atomic<std::uint64_t>, fault_kinds> faults_{};
  std::unique_ptr<support::LoopbackOrigin> server_;  // last: it calls `answer` from its first moment to its last
};

}  // namespace worker
