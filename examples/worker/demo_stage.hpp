// SPDX-License-Identifier: BSL-1.0
//
// What all parts of the demonstration use: its chunks, its origin, its directory, and how it shows and checks
// things.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "../support/temporary_directory.hpp"
#include "console.hpp"
#include "demo.hpp"
#include "lookups.hpp"
#include "manifest.hpp"
#include "origin.hpp"
#include "progress.hpp"
#include "service.hpp"
#include "signals.hpp"

namespace worker {

/// Thrown where the demonstration cannot go on.
class DemoStopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The first `count` of `chunks`, taken from each dataset in turn: all datasets, and long runs of blocks.
std::vector<NamedChunk> choose_chunks(const std::vector<NamedChunk>& chunks, std::size_t count);

/// Thrown where a signal came.
class Interrupted : public DemoStopped {
 public:
  Interrupted() : DemoStopped("interrupted") {}
};

class Stage {
 public:
  using Pin = Service::Manager::ChunkRef;

  /// Reads the manifests and starts the origin.
  Stage(const DemoOptions& chosen, Signals& signals);

  const DemoOptions options;
  Console console;
  Manifest manifest;  ///< one version: what is asked for, from the origin
  std::unique_ptr<Origin> origin;
  support::TemporaryDirectory directory;
  garner::Options manager_options;

  std::unique_ptr<Service> service;  ///< none between close and restart
  std::unique_ptr<Lookups> lookups;  ///< ends before the service
  LookupReport looked_up;            ///< by those that have ended
  std::size_t checks_held = 0;
  std::vector<std::string> checks_failed;

  [[nodiscard]] const std::vector<NamedChunk>& chunks() const noexcept { return manifest.versions.front().downloaded; }
  [[nodiscard]] std::filesystem::path data_dir() const { return directory.path() / "data"; }

  /// Opens the data directory and returns how long that took.
  std::chrono::nanoseconds open();
  void start_lookups();
  void stop_lookups();

  /// A heading.
  void heading(std::string_view text);
  void say(const std::string& text) { console.print("  " + text); }
  /// One thing that must be so. All of them together decide the exit code.
  void check(bool holds, const std::string& what);

  /// Waits, with the display up, until `done`; whether it came within `limit`. Throws `DemoStopped` on a
  /// signal.
  bool wait_until(const std::function<bool()>& done, std::chrono::seconds limit = std::chrono::minutes(10));
  bool wait_converged() {
    return wait_until([this] { return service->manager().status().converged; });
  }

  /// A pin on this very chunk, if it is served.
  [[nodiscard]] std::optional<Pin> pin(const NamedChunk& chunk) const;
  /// Whether `list_chunks` and the lookups answer with just these chunks.
  [[nodiscard]] bool serves_exactly(const std::unordered_set<garner::ChunkId>& ids) const;
  /// Whether each file in the chunk's directory has the digest of what the origin serves. Adds up the bytes
  /// read.
  [[nodiscard]] bool is_intact(const NamedChunk& chunk, const std::filesystem::path& path, std::uint64_t& bytes) const;

 private:
  Signals& signals_;
  std::unique_ptr<Progress> progress_;  ///< of `service`
};

/// The final table's material.
struct DemoResults {
  std::chrono::nanoseconds fetch_time{};
  garner::Status fetched;   ///< at the end of the fetch
  std::size_t deleted = 0;  ///< chunks
  std::size_t deleted_pinned = 0;
  std::size_t pinned_at_close = 0;
  std::chrono::nanoseconds recovery_time{};
  std::size_t recovered = 0;
  std::uint64_t verified_files = 0;
  std::uint64_t verified_bytes = 0;
};

// The parts, in their order. Each throws `DemoStopped` where nothing sensible can follow.
void fetch_under_lookups(Stage& stage, DemoResults& results);
void delete_and_restart(Stage& stage, DemoResults& results);
void verify_and_heal(Stage& stage, DemoResults& results);

}  // namespace worker
