// SPDX-License-Identifier: BSL-1.0
//
// The scan at a store's start: names alone tell what it holds and what was left half-done. No file is opened, nothing
// is stat'ed and nothing is changed; what was found to be taken away is taken away by `clean_up` (store_protocol.hpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/fan_out.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// What an earlier run left half-done.
struct Leftovers {
  std::vector<Generation> doomed;    ///< in `chunks/` with a marker in `doomed/`
  std::vector<std::string> markers;  ///< in `doomed/`, of generations that are in `chunks/` no more
  std::vector<std::string> staging;  ///< names in `staging/`, to be taken away
  std::vector<std::string> partial;  ///< names in `staging/` that can be gone on with
  std::vector<std::string> trash;    ///< names in `trash/`
  std::vector<Generation> unmarked;  ///< that a power cut may bring back, and have no marker in `doomed/` yet

  void append(const Leftovers& more) {
    doomed.insert(doomed.end(), more.doomed.begin(), more.doomed.end());
    markers.insert(markers.end(), more.markers.begin(), more.markers.end());
    staging.insert(staging.end(), more.staging.begin(), more.staging.end());
    partial.insert(partial.end(), more.partial.begin(), more.partial.end());
    trash.insert(trash.end(), more.trash.begin(), more.trash.end());
    unmarked.insert(unmarked.end(), more.unmarked.begin(), more.unmarked.end());
  }
};

/// What a scan tells beside the generations that are held.
struct StoreScan {
  Recovery recovery;
  std::uint64_t bytes = 0;  ///< of all in `chunks/`, doomed or not
  Leftovers leftovers;
  std::vector<Generation> quarantined;      ///< in `quarantine/`
  std::vector<std::string> empty_datasets;  ///< names in `chunks/`
  std::vector<std::string> unrecognised;    ///< paths below the data directory, control bytes escaped
};

template <FileSystem F>
class StoreScanner {
 public:
  /// Ends early, with `errc::cancelled`, once `stopped`. `known`: names in `doomed/` that are no leftovers, and are
  /// found like all others.
  StoreScanner(StoreRoot<F>& root, const std::function<void(const Generation&)>& found,
               const std::atomic<bool>& stopped, std::set<std::string> known = {})
      : root_(root), found_(found), stopped_(stopped), known_(std::move(known)) {}

  StoreScan run() {
    const bool done = scan_doomed() && scan_staging() && scan_trash() && scan_quarantine() && scan_chunks();
    for (const std::string& name : markers_) {
      if (done) scan_.leftovers.markers.push_back(name);
    }
    return std::move(scan_);
  }

 private:
  using Directory = typename F::Directory;

  /// What was found in a part of a dataset's directory, or, at its end, in all of it that was not told yet.
  struct Found {
    const std::string* dataset = nullptr;  ///< its name
    std::vector<Generation> generations{};
    std::vector<std::string> unrecognised{};
    std::uint64_t last_generation = 0;  ///< of what is not recognised
    bool is_empty = false;              ///< the directory
    std::error_code error{};
  };
  static constexpr std::size_t told_at_once = 1024;

  /// Threads are made when as much as this was read and there is more: it takes some ten milliseconds. A dataset counts
  /// as much as so many names, since its directory is to be opened, synced and read.
  static constexpr std::size_t names_for_threads = 32'768;
  static constexpr std::size_t dataset_in_names = 256;
  static constexpr std::size_t most_threads = 8;

  bool scan_doomed() {
    const auto marker = [this](std::string_view name, EntryKind kind) {
      if (name == store_layout::boot_file) return;
      const auto generation = store_layout::parse_qualified_name(name);
      if (generation) saw(generation->number);
      if (kind != EntryKind::file || !generation) return unrecognised(store_layout::doomed_directory, name);
      if (!known_.contains(std::string(name))) markers_.emplace(name);
    };
    return scan(root_.doomed(), store_layout::doomed_directory, marker);
  }

  bool scan_staging() {
    const auto staged = [this](std::string_view name, EntryKind kind) {
      const auto staging = store_layout::parse_staging_name(name);
      if (staging) saw(staging->number);
      if (kind != EntryKind::directory || !staging) return unrecognised(store_layout::staging_directory, name);
      scan_.leftovers.partial.emplace_back(name);
      scan_.recovery.has_partial = true;
    };
    return check(root_.fs().list(root_.staging(), staged), store_layout::staging_directory);
  }

  bool scan_trash() {
    const auto removed = [this](std::string_view name, EntryKind kind) {
      const auto generation = store_layout::parse_qualified_name(name);
      if (generation) saw(generation->number);
      if (kind != EntryKind::directory || !generation) return unrecognised(store_layout::trash_directory, name);
      scan_.leftovers.trash.emplace_back(name);
    };
    return check(root_.fs().list(root_.trash(), removed), store_layout::trash_directory);
  }

  bool scan_quarantine() {
    const auto kept = [this](std::string_view name, EntryKind kind) {
      const bool is_reason = kind == EntryKind::file && name.ends_with(store_layout::reason_suffix);
      const std::string_view of = is_reason ? name.substr(0, name.size() - store_layout::reason_suffix.size()) : name;
      const auto generation = store_layout::parse_qualified_name(of);
      const bool is_known = generation && (is_reason || kind == EntryKind::directory);
      if (!is_known) return unrecognised(store_layout::quarantine_directory, name);
      saw(generation->number);
      if (!is_reason) scan_.quarantined.push_back(*generation);
    };
    return check(root_.fs().list(root_.quarantine(), kept), store_layout::quarantine_directory);
  }

  bool scan_chunks() {
    std::vector<std::string> datasets;
    const auto dataset = [&](std::string_view name, EntryKind kind) {
      if (kind != EntryKind::directory || !store_layout::parse_dataset_name(name)) {
        return unrecognised(store_layout::chunks_directory, name);
      }
      datasets.emplace_back(name);
    };
    if (!scan(root_.chunks(), store_layout::chunks_directory, dataset)) return false;
    std::span<const std::string> rest(datasets);
    std::size_t names = 0;
    const auto take = [&](Found found) {
      names += found.generations.size();
      return this->take(std::move(found));
    };
    for (; !rest.empty() && !scan_.recovery.error; rest = rest.subspan(1)) {
      names += dataset_in_names;
      if (F::concurrent && rest.size() > 1 && names > names_for_threads) {
        const std::size_t threads = std::min<std::size_t>(std::thread::hardware_concurrency(), most_threads);
        const auto work = [this](const std::string& name, const auto& give) { this->scan_dataset(name, give); };
        FanOut<Found>::run(rest, threads, work, take);
        break;
      }
      scan_dataset(rest.front(), take);
    }
    return !scan_.recovery.error;
  }

  /// Of several datasets at the same time: changes nothing here, and tells `bool give(Found)`.
  template <class Give>
  void scan_dataset(const std::string& name, const Give& give) const {
    const DatasetId id = *store_layout::parse_dataset_name(name);
    Found found{.dataset = &name, .is_empty = true};
    const Directory directory = root_.fs().open_directory(root_.chunks(), name, found.error);
    bool goes_on = true;
    const auto chunk = [&](std::string_view entry, EntryKind kind) {
      const auto generation = store_layout::parse_chunk_name(entry, id);
      if (generation && kind == EntryKind::directory) {
        found.is_empty = false;  // of ours: what was published there made its name durable
        found.generations.push_back(*generation);
      } else {
        found.unrecognised.emplace_back(entry);
        if (generation) found.last_generation = std::max(found.last_generation, generation->number);
      }
      if (found.generations.size() + found.unrecognised.size() < told_at_once) return;
      goes_on = goes_on && give(std::exchange(found, {.dataset = &name}));
      found.generations.reserve(told_at_once);
    };
    if (!found.error) found.error = list_synced(directory, chunk);
    if (goes_on) give(std::move(found));
  }

  bool take(Found found) {
    const std::string place = std::string(store_layout::chunks_directory) + '/' + *found.dataset;
    if (stopped_) return check(errc::cancelled, place);
    for (const Generation& generation : found.generations) {
      saw(generation.number);
      scan_.bytes += generation.bytes;
      // Most stores have no marker at all, and a million names are not worth writing down to find that out.
      if (!markers_.empty() && markers_.erase(store_layout::qualified_name(generation)) != 0) {
        scan_.leftovers.doomed.push_back(generation);
      } else {
        found_(generation);
      }
    }
    for (const std::string& entry : found.unrecognised) unrecognised(place, entry);
    saw(found.last_generation);
    if (!check(found.error, place)) return false;
    if (found.is_empty) scan_.empty_datasets.push_back(*found.dataset);
    return true;
  }

  /// Lists a directory whose entries count as durable once they were reported. An earlier process may have been killed
  /// between making them and syncing them, so they are synced first; that costs nothing where nothing is new.
  std::error_code list_synced(const Directory& directory, const EntryVisitor& visitor) const {
    const std::error_code ec = root_.sync_directory(directory);
    return ec ? ec : root_.fs().list(directory, visitor);
  }

  bool scan(const Directory& directory, const std::string& place, const EntryVisitor& visitor) {
    return check(list_synced(directory, visitor), place);
  }

  bool check(std::error_code ec, const std::string& place) {
    if (!ec) return true;
    scan_.recovery.error = ec;
    scan_.recovery.subject = (root_.path() / place).string();
    return false;
  }

  /// Of names of another kind than they should be, too: what stands there keeps its name from being used once more.
  void saw(std::uint64_t number) { scan_.recovery.last_generation = std::max(scan_.recovery.last_generation, number); }

  void unrecognised(const std::string& place, std::string_view name) {
    std::string path = place + '/';
    for (; !name.empty(); name.remove_prefix(std::min<std::size_t>(name.size(), 64))) {
      path += printable(name.substr(0, 64));
    }
    scan_.unrecognised.push_back(std::move(path));
  }

  StoreRoot<F>& root_;
  const std::function<void(const Generation&)>& found_;
  const std::atomic<bool>& stopped_;
  std::set<std::string> known_;
  std::unordered_set<std::string> markers_;
  StoreScan scan_;
};

}  // namespace garner::detail
