// SPDX-License-Identifier: BSL-1.0
//
// Which chunks fail at the moment, and why: collected from the manager's events.
#pragma once

#include <garner/status.hpp>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

namespace worker {

struct Failure {
  garner::ChunkId id;
  std::uint64_t attempts = 0;  ///< failed ones, since the chunk was last well
  std::uint64_t order = 0;     ///< of the last one; rises by one with each failure of any chunk
  std::error_code error;       ///< of the last one
  std::string subject;         ///< likewise: the file and the URL
};

/// Thread-safety: every member from any thread; `observe` is meant to be an observer of the manager.
class Failures {
 public:
  void observe(const garner::Event& event);

  /// The chunks that failed and are not ready yet, the latest first: at most `limit` of them.
  [[nodiscard]] std::vector<Failure> current(std::size_t limit) const;
  /// How many chunks those are in all.
  [[nodiscard]] std::size_t count() const;
  /// Failures with an order above `order`: at most `limit`, the earliest first.
  [[nodiscard]] std::vector<Failure> since(std::uint64_t order, std::size_t limit) const;
  /// How many failures there were so far: the order of the last one.
  [[nodiscard]] std::uint64_t total() const;

 private:
  template <class Less>
  std::vector<Failure> first(std::size_t limit, std::uint64_t above, Less less) const;

  mutable std::mutex mutex_;
  std::unordered_map<garner::ChunkId, Failure> failing_;
  std::uint64_t total_ = 0;
};

}  // namespace worker
