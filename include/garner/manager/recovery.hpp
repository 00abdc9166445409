// SPDX-License-Identifier: BSL-1.0
//
// What the store holds at a start, told to the state machine: all of it before anybody knows the manager, or in the
// background while it is in use. Nothing is decided here.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/core/schedule.hpp"
#include "garner/error.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"

namespace garner::detail {

/// `Engine` has `input(call)`, `now()`, `refresh_usage()`; and, inside of `input`, `table()` and `take_actions()`. Each
/// of both ways once at most.
template <class Engine, Storage S>
class StoreRecovery {
 public:
  StoreRecovery(Engine& engine, S& storage) : engine_(engine), storage_(storage) {}

  /// While nobody knows the engine. Blocks. With an error the engine is of no use.
  Recovery at_once() {
    const auto take = [this](const Generation& generation) {
      engine_.table().recovered(generation);
      engine_.take_actions();
    };
    Recovery recovery =
        read([this](std::vector<VolumeStatus> volumes) { engine_.table().volumes_are(std::move(volumes)); }, take);
    if (recovery.error) return recovery;
    engine_.table().recovery_done(recovery, engine_.now());
    engine_.refresh_usage();
    return recovery;
  }

  /// On the executor. Blocks.
  void in_background() {
    std::vector<Generation> found;
    const auto tell = [&] {
      engine_.input([&](core::Instant) {
        for (const Generation& generation : found) engine_.table().recovered(generation);
      });
      found.clear();
    };
    std::size_t most = 1;  // the first ones at once, and then several at a time
    const auto take = [&](const Generation& generation) {
      found.push_back(generation);
      if (found.size() < most) return;
      tell();
      most = std::min(2 * most, most_at_once);
    };
    Recovery recovery;
    recovery.error = errc::cancelled;
    if (!stopped_) {
      recovery = read(
          [this](std::vector<VolumeStatus> volumes) {
            engine_.input([&](core::Instant) { engine_.table().volumes_are(std::move(volumes)); });
          },
          take);
    }
    tell();
    if (!recovery.error) engine_.refresh_usage();  // before anything is put there
    engine_.input([&](core::Instant now) { engine_.table().recovery_done(recovery, now); });
  }

  /// What runs in the background ends soon, if the store can do that.
  void stop() noexcept {
    stopped_ = true;
    if constexpr (StoppableStorage<S>) guarded([this] { storage_.stop_recovery(); });
  }

 private:
  static constexpr std::size_t most_at_once = 64;  // under the lock

  template <class VolumesAre, class Take>
  Recovery read(const VolumesAre& volumes_are, const Take& take) {
    Recovery recovery;
    const std::error_code thrown = guarded([&] {
      if constexpr (VolumeStorage<S>) {
        if (storage_.volumes().size() > 1) {
          std::vector<Generation> all;  // which volumes are away is known when all have been read
          recovery = storage_.recover([&all](const Generation& generation) { all.push_back(generation); });
          volumes_are(storage_.volumes());
          std::for_each(all.begin(), all.end(), take);
          return;
        }
      }
      recovery = storage_.recover(take);
    });
    if (thrown) recovery.error = thrown;
    return recovery;
  }

  Engine& engine_;
  S& storage_;
  std::atomic<bool> stopped_{false};
};

}  // namespace garner::detail
