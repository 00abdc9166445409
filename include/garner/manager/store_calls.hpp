// SPDX-License-Identifier: BSL-1.0
//
// The storage's calls about published generations, as the state machine wants them: an outcome each, whatever
// is thrown.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/policies/storage.hpp"

namespace garner::detail {

/// Every member blocks on I/O.
template <Storage S>
class StoreCalls {
 public:
  explicit StoreCalls(S& storage) : storage_(storage) {}

  core::Outcome doom(const Generation& generation) {
    return about(generation, guarded([&] { return storage_.doom(generation); }));
  }
  core::Outcome spare(const Generation& generation) {
    return about(generation, guarded([&] { return storage_.spare(generation); }));
  }
  core::Outcome remove(const Generation& generation) {
    std::error_code error = guarded([&] { return storage_.remove(generation); });
    if (error == errc::no_such_generation) error.clear();  // an earlier try went further than it said
    return about(generation, error);
  }
  core::Outcome quarantine(const Generation& generation, const std::string& reason) {
    std::error_code error = guarded([&] { return storage_.quarantine(generation, reason); });
    if (error == errc::no_such_generation) error.clear();  // as above
    return about(generation, error);
  }
  core::Outcome verify(const Generation& generation, VerifyDepth depth, const VerifyProgress& progress) const {
    return about(generation, guarded([&] { return storage_.verify(generation, depth, progress); }));
  }

  /// With an error, `chunk` is nothing.
  core::Outcome describe(const Generation& generation, std::optional<DataChunk>& chunk) const {
    const std::error_code error = guarded([&] {
      std::error_code ec;
      chunk = storage_.describe(generation, ec);
      return ec;
    });
    if (error) chunk.reset();
    return about(generation, error);
  }

  std::optional<StoreUsage> usage() const {
    std::optional<StoreUsage> usage;
    guarded([&] { usage = storage_.usage(); });
    return usage;
  }

  /// None where the storage has none.
  std::vector<VolumeStatus> volumes() const {
    std::vector<VolumeStatus> volumes;
    if constexpr (VolumeStorage<S>) guarded([&] { volumes = storage_.volumes(); });
    return volumes;
  }
  std::vector<VolumeStatus> examine(const std::function<void(const Generation&)>& found) {
    std::vector<VolumeStatus> volumes;
    if constexpr (VolumeStorage<S>) guarded([&] { volumes = storage_.examine(found); });
    return volumes;
  }

  core::Outcome clean_up(Partial partial) {
    return {guarded([&] { return storage_.clean_up(partial); }), "leftovers of the store", std::nullopt};
  }

 private:
  static core::Outcome about(const Generation& generation, std::error_code error) {
    if (!error) return {};
    return {error, "chunk " + generation.id.to_hex(), std::nullopt};
  }

  S& storage_;
};

}  // namespace garner::detail
