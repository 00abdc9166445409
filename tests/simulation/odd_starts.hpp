// SPDX-License-Identifier: BSL-1.0
//
// Starts of a store that do not come up as they should: in a directory that is in use or that is not garner's, or with
// a disk that fails. All but the first on copies of a disk.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "garner/error.hpp"
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_hooks.hpp"

namespace simulation {

class OddStarts {
 public:
  /// `fail` takes what is wrong.
  OddStarts(const garner::SimDisk& disk, garner::Decisions& decisions, std::function<void(std::string)> fail)
      : disk_(disk), decisions_(decisions), fail_(std::move(fail)) {}

  /// `disk`: the one that a store holds.
  void while_in_use(const std::shared_ptr<garner::SimDisk>& disk) {
    const garner::SimDisk::Tree before = disk->tree();
    if (start(garner::SimFileSystem(disk)) != garner::errc::directory_in_use) fail_("a directory in use was opened");
    if (disk->tree() != before) fail_("a directory in use was changed");
  }

  void of_another_format() {
    const auto disk = std::make_shared<garner::SimDisk>(disk_);
    if (!disk->uproot("FORMAT")) return;
    disk->plant("FORMAT", decisions_.chance(1, 2) ? std::optional<std::string>("garner 2\n") : std::nullopt);
    const garner::SimDisk::Tree before = disk->tree();
    if (start(garner::SimFileSystem(disk)) != garner::errc::unknown_format) fail_("another format was opened");
    if (disk->tree() != before) fail_("another format was changed");
  }

  /// The next one finds what is there all the same.
  void that_fail() {
    const auto disk =
        decisions_.chance(1, 2) ? std::make_shared<garner::SimDisk>(disk_) : std::make_shared<garner::SimDisk>();
    Found expected;
    const std::error_code sound = start(garner::SimFileSystem(std::make_shared<garner::SimDisk>(*disk)), &expected);
    // One after another: compilers differ in which argument they evaluate first.
    const bool has_rival = decisions_.chance(1, 4);
    Failing hooks(disk, 1 + decisions_.choose(40), has_rival);
    start(garner::SimFileSystem(disk, &hooks));
    Found found;
    if (sound || start(garner::SimFileSystem(disk), &found) || found != expected) {
      fail_("after a start that failed another one finds something else");
    }
  }

 private:
  using Found = std::map<garner::ChunkId, std::uint64_t>;

  /// Fails one operation; or another process makes the lock file just before.
  class Failing final : public garner::SimHooks {
   public:
    Failing(std::shared_ptr<garner::SimDisk> disk, std::uint64_t at, bool has_rival)
        : disk_(std::move(disk)), left_(at), has_rival_(has_rival) {}

    garner::SimFault before(const garner::SimCall& call) override {
      garner::SimFault fault;
      if (has_rival_ && call.operation == garner::SimOperation::create_file && call.name == "LOCK") {
        disk_->plant("LOCK", "");
      }
      if (--left_ == 0) fault.error = garner::errc::io_error;
      return fault;
    }

   private:
    std::shared_ptr<garner::SimDisk> disk_;
    std::uint64_t left_;
    bool has_rival_;
  };

  static std::error_code start(garner::SimFileSystem fs, Found* found = nullptr) {
    try {
      garner::SimStorage store(std::move(fs));
      const garner::Recovery recovery = store.recover([found](const garner::Generation& generation) {
        if (found != nullptr) (*found)[generation.id] = std::max((*found)[generation.id], generation.number);
      });
      return recovery.error;
    } catch (const garner::Error& error) {
      return error.code();
    }
  }

  const garner::SimDisk& disk_;
  garner::Decisions& decisions_;
  std::function<void(std::string)> fail_;
};

}  // namespace simulation
