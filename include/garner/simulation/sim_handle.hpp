// SPDX-License-Identifier: BSL-1.0
//
// What a program has open on a simulated disk: a file, or a directory. What it can do with that is in
// sim_file_system.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "garner/simulation/sim_disk.hpp"

namespace garner {

/// Something open on a disk, which it keeps. Closes when it is destroyed, and the world is not asked.
class SimHandle {
 public:
  SimHandle() = default;
  SimHandle(SimHandle&&) noexcept = default;
  SimHandle& operator=(SimHandle&& other) noexcept {
    if (this != &other) {
      close();
      disk_ = std::move(other.disk_);
      node_ = other.node_;
      seen_ = other.seen_;
      number_ = other.number_;
    }
    return *this;
  }
  SimHandle(const SimHandle&) = delete;
  SimHandle& operator=(const SimHandle&) = delete;
  ~SimHandle() { close(); }

 private:
  friend class SimFileSystem;

  /// The disk's guard is held.
  SimHandle(std::shared_ptr<SimDisk> disk, detail::SimNode node)
      : disk_(std::move(disk)), node_(node), seen_(disk_->nodes_[node].failed_syncs), number_(++disk_->last_handle_) {
    disk_->open(node_);
  }

  void close() noexcept {
    if (!disk_) return;
    {
      const std::lock_guard lock(disk_->names_->guard);
      disk_->close(node_, number_);
    }
    disk_.reset();
  }

  std::shared_ptr<SimDisk> disk_;
  detail::SimNode node_ = detail::sim_none;
  mutable std::uint32_t seen_ = 0;  ///< of the failed syncs
  std::uint64_t number_ = 0;
};

}  // namespace garner
