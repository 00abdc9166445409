// SPDX-License-Identifier: BSL-1.0
//
// The scan at a store's start: names alone tell what it holds and what was left half-done. No file is opened, nothing
// is stat'ed and nothing is changed; what was found to be taken away is taken away by `clean_up` (store_protocol.hpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include "garner/policies/storage.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// What an earlier run left half-done.
struct Leftovers {
  std::vector<Generation> doomed;    ///< in `chunks/` with a marker in `doomed/`
  std::vector<std::string> markers;  ///< in `doomed/`, of generations that are in `chunks/` no more
  std::vector<std::string> staging;  ///< names in `staging/`
  std::vector<std::string> trash;    ///< names in `trash/`
  std::vector<Generation> unmarked;  ///< that a power cut may bring back, and have no marker in `doomed/` yet

  void append(const Leftovers& more) {
    doomed.insert(doomed.end(), more.doomed.begin(), more.doomed.end());
    markers.insert(markers.end(), more.markers.begin(), more.markers.end());
    staging.insert(staging.end(), more.staging.begin(), more.staging.end());
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
  StoreScanner(StoreRoot<F>& root, const std::function<void(const Generation&)>& found) : root_(root), found_(found) {}

  StoreScan run() {
    const bool done = scan_doomed() && scan_staging() && scan_trash() && scan_quarantine() && scan_chunks();
    for (const std::string& name : markers_) {
      if (done) scan_.leftovers.markers.push_back(name);
    }
    return std::move(scan_);
  }

 private:
  using Directory = typename F::Directory;

  bool scan_doomed() {
    const auto marker = [this](std::string_view name, EntryKind kind) {
      if (name == store_layout::boot_file) return;
      const auto generation = store_layout::parse_qualified_name(name);
      if (kind != EntryKind::file || !generation) return unrecognised(store_layout::doomed_directory, name);
      saw(generation->number);
      markers_.emplace(name);
    };
    return scan(root_.doomed(), store_layout::doomed_directory, marker);
  }

  bool scan_staging() {
    const auto staged = [this](std::string_view name, EntryKind kind) {
      const auto staging = store_layout::parse_staging_name(name);
      if (kind != EntryKind::directory || !staging) return unrecognised(store_layout::staging_directory, name);
      saw(staging->number);
      scan_.leftovers.staging.emplace_back(name);
    };
    return check(root_.fs().list(root_.staging(), staged), store_layout::staging_directory);
  }

  bool scan_trash() {
    const auto removed = [this](std::string_view name, EntryKind kind) {
      const auto generation = store_layout::parse_qualified_name(name);
      if (kind != EntryKind::directory || !generation) return unrecognised(store_layout::trash_directory, name);
      saw(generation->number);
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
    return std::all_of(datasets.begin(), datasets.end(),
                       [this](const std::string& name) { return scan_dataset(name); });
  }

  bool scan_dataset(const std::string& name) {
    const std::string place = std::string(store_layout::chunks_directory) + '/' + name;
    const DatasetId id = *store_layout::parse_dataset_name(name);
    std::error_code ec;
    const Directory directory = root_.fs().open_directory(root_.chunks(), name, ec);
    bool is_empty = true;
    const auto chunk = [&](std::string_view entry, EntryKind kind) {
      const auto generation = store_layout::parse_chunk_name(entry, id);
      if (kind != EntryKind::directory || !generation) return unrecognised(place, entry);
      is_empty = false;  // of ours: what was published there made its name durable
      saw(generation->number);
      scan_.bytes += generation->bytes;
      // Most stores have no marker at all, and a million names are not worth writing down to find that out.
      if (!markers_.empty() && markers_.erase(name + '-' + std::string(entry)) != 0) {
        scan_.leftovers.doomed.push_back(*generation);
      } else {
        found_(*generation);
      }
    };
    if (!check(ec, place) || !scan(directory, place, chunk)) return false;
    if (is_empty) scan_.empty_datasets.push_back(name);
    return true;
  }

  /// Lists a directory whose entries count as durable once they were reported. An earlier process may have been killed
  /// between making them and syncing them, so they are synced first; that costs nothing where nothing is new.
  bool scan(const Directory& directory, const std::string& place, const EntryVisitor& visitor) {
    std::error_code ec = root_.sync_directory(directory);
    if (!ec) ec = root_.fs().list(directory, visitor);
    return check(ec, place);
  }

  bool check(std::error_code ec, const std::string& place) {
    if (!ec) return true;
    scan_.recovery.error = ec;
    scan_.recovery.subject = (root_.path() / place).string();
    return false;
  }

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
  std::unordered_set<std::string> markers_;
  StoreScan scan_;
};

}  // namespace garner::detail
