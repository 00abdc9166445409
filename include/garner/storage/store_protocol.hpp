// SPDX-License-Identifier: BSL-1.0
//
// The store's protocol: in which order things are written, synced and renamed so that a power cut at any moment leaves
// whole generations or none. It is a Storage over any FileSystem; `FilesystemStorage` is it on a real one.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/staging.hpp"
#include "garner/storage/store_datasets.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_publisher.hpp"
#include "garner/storage/store_quarantine.hpp"
#include "garner/storage/store_reader.hpp"
#include "garner/storage/store_recovery.hpp"
#include "garner/storage/store_remover.hpp"
#include "garner/storage/store_root.hpp"

namespace garner {

/// A Storage that keeps each generation as a directory. See `Storage` for what each member promises; here stands how.
///
/// A sync that failed means that bytes are lost (the kernel forgets that they were dirty, and the next sync succeeds).
/// So none is ever repeated on what it failed for, and nothing is renamed after it.
///
/// Thread-safety: as `Storage` asks. Lifetime: a `Staging` and its files keep the directory's lock; the store may be
/// moved meanwhile, and a moved-from store can only be destroyed.
template <FileSystem F>
class BasicStore {
 public:
  using Location = std::filesystem::path;  ///< absolute, of the generation's directory
  using Staging = BasicStaging<F>;
  using StagedFile = BasicStagedFile<F>;

  /// Opens the store in the root of `fs`. Throws `Error` as `StoreRoot` does.
  explicit BasicStore(F fs, Durability durability = Durability::full, const QuarantineLimits& limits = {})
      : state_(std::make_unique<State>(std::move(fs), durability, limits)) {}

  /// Reads names only (store_recovery.hpp). What an earlier process had no time to sync is synced before it is told.
  /// `known`: qualified names of generations that are told although they are doomed.
  Recovery recover(const std::function<void(const Generation&)>& found, const std::set<std::string>& known = {}) {
    detail::StoreScan scan = detail::StoreScanner<F>(root(), found, state_->is_recovery_stopped, known).run();
    state_->bytes_used += scan.bytes;
    state_->remover.leave(scan.leftovers);
    state_->datasets.distrust(scan.empty_datasets);
    state_->quarantine.found(std::move(scan.quarantined));
    const std::lock_guard lock(state_->mutex);
    state_->unrecognised = std::move(scan.unrecognised);
    return std::move(scan.recovery);
  }

  /// `recover` ends early, with `errc::cancelled`: within some thousand names.
  void stop_recovery() noexcept { state_->is_recovery_stopped = true; }

  /// What `recover` found that garner did not make: paths below the data directory. Left alone.
  [[nodiscard]] std::vector<std::string> unrecognised() const {
    const std::lock_guard lock(state_->mutex);
    return state_->unrecognised;
  }

  /// As `StoreRemover` says.
  std::error_code clean_up(Partial partial) {
    std::uint64_t freed = 0;
    const std::error_code ec = state_->remover.clean_up(partial, freed);
    give_back(freed);
    return ec;
  }
  std::error_code doom(const Generation& generation) { return state_->remover.doom(generation); }
  std::error_code spare(const Generation& generation) { return state_->remover.spare(generation); }
  std::error_code remove(const Generation& generation) {
    bool left = false;
    const std::error_code ec = state_->remover.remove(generation, left);
    if (left) give_back(generation.bytes);
    return ec;
  }

  /// As `remove`, into `quarantine/`; see `StoreQuarantine` for what becomes of it there.
  std::error_code quarantine(const Generation& generation, const std::string& reason) {
    bool left = false;
    bool kept = false;
    const std::error_code ec = state_->remover.set_aside(generation, left, kept);
    if (left) give_back(generation.bytes);
    if (kept) state_->quarantine.keep(generation, reason);
    return ec;
  }

  /// With what an earlier run had of this chunk, whatever its description was then: each file is looked at when it is
  /// opened. `errc::chunk_too_large` where the description would not fit into `chunk.json`.
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    ec.clear();
    if (detail::descriptor_size_bound(chunk) > ChunkDescriptor::max_size) ec = errc::chunk_too_large;
    if (!ec && is_read_only() && probe_writing()) ec = errc::read_only;
    if (ec) return {};
    state_->quarantine.make_room(declared_bytes(chunk).value_or(0));
    auto area = std::make_shared<detail::StagingArea<F>>();
    area->root = state_->root;
    area->chunk = chunk;
    area->number = number;
    area->name = store_layout::staging_name({chunk.id, number});
    const bool is_adopted = adopt_partial(chunk.id, area->name, ec);
    if (!ec && !is_adopted) ec = fs().make_directory(root().staging(), area->name);
    if (ec == errc::read_only) state_->is_read_only = true;
    if (ec) return {};
    area->directory = fs().open_directory(root().staging(), area->name, ec);
    Staging staging(std::move(area));
    if (!ec && is_adopted) ec = staging.area_->adopt();
    if (!ec) return staging;
    discard(staging);
    return {};
  }

  /// As `StorePublisher` says, each of `requests` by itself. `errc::body_too_short` where a file is not finished,
  /// `errc::sync_failed` where any of the syncs failed: then the staging can only be discarded.
  void publish(std::span<PublishRequest<Staging>> requests) {
    std::vector<typename detail::StorePublisher<F>::Request> asked;
    asked.reserve(requests.size());
    for (PublishRequest<Staging>& request : requests) {
      request.error = std::make_error_code(std::errc::bad_file_descriptor);
      if (request.staging->area_) asked.push_back({request.staging->area_.get()});
    }
    state_->publisher.publish(asked);
    auto at = asked.begin();
    for (PublishRequest<Staging>& request : requests) {
      if (!request.staging->area_) continue;
      request.generation = at->generation;
      request.error = at->error;
      if (!at->error || at->is_unsure) state_->bytes_used += at->generation.bytes;
      if (!at->error) state_->failed_fetches = 0;
      ++at;
    }
  }

  Generation publish(Staging& staging, std::error_code& ec) {
    PublishRequest<Staging> request{&staging};
    publish(std::span(&request, 1));
    ec = request.error;
    return ec ? Generation() : request.generation;
  }

  std::error_code discard(Staging& staging) {
    if (!staging.area_) return {};
    note_failed_sync(*staging.area_);
    if (std::exchange(staging.area_->left_staging, true)) return {};
    staging.area_->unsynced.take();
    const std::error_code ec = root().remove_tree(root().staging(), staging.area_->name);
    if (staging.area_->met_no_space) state_->quarantine.make_room(std::numeric_limits<std::uint64_t>::max());
    if (!ec) return {};
    detail::Leftovers leftovers;
    leftovers.staging.push_back(staging.area_->name);
    state_->remover.leave(leftovers);
    return ec;
  }

  /// Computed from the name; the disk is not asked.
  [[nodiscard]] Location location(const Generation& generation) const {
    return root().path() / store_layout::chunk_path(generation);
  }

  /// Reads `chunk.json`: `errc::corrupt_chunk` where it is not whole or is another generation's.
  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    return reader().describe(generation, ec);
  }

  /// Compares the directory's entries with the names in `chunk.json`, and what it says of each with the size or, with
  /// `VerifyDepth::digests`, with size and XXH3-128. `errc::io_error` where the disk does not give the bytes.
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    return reader().verify(generation, depth, progress);
  }

  /// What is set aside counts as free: it goes when the room is needed.
  [[nodiscard]] StoreUsage usage() const {
    std::error_code ec;
    const std::uint64_t free = fs().free_space(ec);
    return {state_->bytes_used.load(), ec ? 0 : free + state_->quarantine.bytes()};
  }

  /// After two fetches in a row whose syncs failed, or where the file system says so: `stage` fails then with
  /// `errc::read_only`, until it could write something and sync that. What is there can be read.
  [[nodiscard]] bool is_read_only() const noexcept { return state_->is_read_only; }

  /// Finds out whether something can be written and synced; where it can, the store is not read-only.
  std::error_code probe_writing() {
    const std::lock_guard lock(state_->probe_mutex);
    if (const std::error_code ec = root().probe_writing()) return ec;
    state_->failed_fetches = 0;
    state_->is_read_only = false;
    return {};
  }

  /// Whether `stage` would go on with what an earlier run had of this chunk.
  [[nodiscard]] bool has_partial(const ChunkId& id) const { return state_->remover.has_partial(id); }
  void give_up_partial() { state_->remover.give_up_partial(); }

  /// The bytes of `chunk.json`, whatever they are.
  std::string descriptor_text(const Generation& generation, std::error_code& ec) const {
    return reader().descriptor_text(generation, ec);
  }

  /// Whether it is in `chunks/`, doomed or not.
  [[nodiscard]] bool holds(const Generation& generation) const { return reader().holds(generation); }

  /// What else is kept in this directory, and how well it does.
  [[nodiscard]] const std::shared_ptr<StoreRoot<F>>& root_handle() const noexcept { return state_->root; }

 private:
  struct State {
    State(F fs, Durability durability, const QuarantineLimits& limits)
        : root(std::make_shared<StoreRoot<F>>(std::move(fs), durability)),
          datasets(*root),
          remover(root, datasets),
          publisher(*root, datasets, remover),
          quarantine(root, limits) {}

    std::shared_ptr<StoreRoot<F>> root;  ///< shared with the staging areas
    std::atomic<std::uint64_t> bytes_used{0};
    std::atomic<unsigned> failed_fetches{0};  ///< in a row, by syncs
    std::atomic<bool> is_read_only{false};
    std::atomic<bool> is_recovery_stopped{false};
    detail::StoreDatasets<F> datasets;
    detail::StoreRemover<F> remover;
    detail::StorePublisher<F> publisher;
    detail::StoreQuarantine<F> quarantine;
    typename F::Mutex probe_mutex;  ///< held while it is found out whether it is read-only yet
    std::mutex mutex;               ///< guards the next one
    std::vector<std::string> unrecognised;
  };

  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *state_->root; }
  [[nodiscard]] F& fs() const noexcept { return state_->root->fs(); }
  [[nodiscard]] detail::StoreReader<F> reader() const { return detail::StoreReader<F>(root()); }

  /// A second try, into new files, that fails like the first one says that it is the disk.
  void note_failed_sync(detail::StagingArea<F>& area) {
    const std::lock_guard lock(area.mutex);
    if (area.sync_failed && ++state_->failed_fetches >= 2) state_->is_read_only = true;
  }

  /// Of what has left `chunks/`. What somebody put there in the place of a chunk was never counted.
  void give_back(std::uint64_t bytes) noexcept {
    std::uint64_t used = state_->bytes_used.load();
    while (!state_->bytes_used.compare_exchange_weak(used, used - std::min(used, bytes))) {
    }
  }

  /// Renames what an earlier run had of this chunk; false where there is nothing.
  bool adopt_partial(const ChunkId& id, const std::string& name, std::error_code& ec) {
    const std::string partial = state_->remover.take_partial(id);
    if (partial.empty()) return false;
    ec = fs().rename(root().staging(), partial, root().staging(), name);
    if (!ec) return true;
    detail::Leftovers leftovers;
    leftovers.staging.push_back(partial);
    state_->remover.leave(leftovers);
    return false;
  }

  std::unique_ptr<State> state_;
};

}  // namespace garner
