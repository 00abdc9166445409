// SPDX-License-Identifier: BSL-1.0
//
// How a store takes things away: generations that are doomed, spared and removed, staging areas that are discarded, and
// what was left half-done. The other half of the protocol, how things come in, is in store_protocol.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/ids.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/shared_sync.hpp"
#include "garner/storage/store_datasets.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_recovery.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// Thread-safety: as `Storage` asks.
template <FileSystem F>
class StoreRemover {
 public:
  StoreRemover(std::shared_ptr<StoreRoot<F>> root, StoreDatasets<F>& datasets)
      : root_(std::move(root)), datasets_(datasets) {}
  StoreRemover(const StoreRemover&) = delete;
  StoreRemover& operator=(const StoreRemover&) = delete;
  /// Markers that could not be made or taken away are tried once more: nobody knows of them afterwards.
  ~StoreRemover() {
    for (const auto& [name, is_doomed] : std::exchange(pending_, {})) mark(name, is_doomed);
  }

  /// Leaves `leftovers` to the next `clean_up`.
  void leave(const Leftovers& leftovers) {
    const std::lock_guard lock(mutex_);
    leftovers_.append(leftovers);
  }

  /// Whether an earlier run had something of this chunk.
  [[nodiscard]] bool has_partial(const ChunkId& id) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(leftovers_.partial.begin(), leftovers_.partial.end(),
                       [&id](const std::string& name) { return store_layout::parse_staging_name(name)->id == id; });
  }

  /// Nothing of an earlier run is gone on with: all of it is for the next `clean_up`.
  void give_up_partial() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string>& partial = leftovers_.partial;
    leftovers_.staging.insert(leftovers_.staging.end(), partial.begin(), partial.end());
    partial.clear();
  }

  /// The name in `staging/` of what an earlier run had of this chunk, the newest, which is the caller's now; or empty.
  std::string take_partial(const ChunkId& id) {
    const std::lock_guard lock(mutex_);
    std::vector<std::string>& partial = leftovers_.partial;
    auto newest = partial.end();
    std::uint64_t number = 0;
    for (auto at = partial.begin(); at != partial.end(); ++at) {
      const auto name = store_layout::parse_staging_name(*at);
      if (name->id != id || name->number < number) continue;
      number = name->number;
      newest = at;
    }
    if (newest == partial.end()) return {};
    std::string name = std::move(*newest);
    partial.erase(newest);
    return name;
  }

  /// Takes away what `recover` found half-done, and what could not be discarded since. Goes on where something fails,
  /// keeps it for the next call, and returns the first error. `freed`: bytes that have left `chunks/`.
  std::error_code clean_up(Partial partial, std::uint64_t& freed) {
    Leftovers leftovers;
    {
      const std::lock_guard lock(mutex_);
      leftovers = std::exchange(leftovers_, {});
      auto& to = partial == Partial::keep ? leftovers_.partial : leftovers.staging;
      to.insert(to.end(), leftovers.partial.begin(), leftovers.partial.end());
    }
    Leftovers left;
    std::error_code first;
    freed = 0;
    const auto failed = [&first](std::error_code ec) {
      first = first ? first : ec;
      return static_cast<bool>(ec);
    };
    for (const Generation& generation : leftovers.unmarked) {
      if (failed(doom(generation))) left.unmarked.push_back(generation);
    }
    for (const Generation& generation : leftovers.doomed) {
      bool has_left = false;
      const std::error_code ec = remove(generation, has_left);
      // What somebody else has taken away will not come back by being asked for.
      if (ec != errc::no_such_generation && failed(ec)) left.doomed.push_back(generation);
      freed += has_left ? generation.bytes : 0;
    }
    for (const std::string& name : leftovers.staging) {
      if (failed(root().remove_tree(root().staging(), name))) left.staging.push_back(name);
    }
    left.trash = clean_trash(leftovers.trash, failed);
    // Last: while a power cut may bring a doomed generation back, its marker stays.
    if (first || failed(remove_markers(leftovers.markers))) left.markers = leftovers.markers;
    const std::lock_guard lock(mutex_);
    leftovers_.append(left);
    return first;
  }

  std::error_code doom(const Generation& generation) { return mark(store_layout::qualified_name(generation), true); }
  std::error_code spare(const Generation& generation) { return mark(store_layout::qualified_name(generation), false); }

  /// Into `trash/` by one rename, then a sync of where it was, then unlinked little by little. Where that sync fails
  /// it stays in `trash/` whole, and is doomed: a power cut may bring it back, and must not bring back half of it, nor
  /// have it served. After any error it can be called again, and goes on where it stopped. `left`: in this call it has
  /// left `chunks/`, or was found to have been taken from there by somebody else.
  std::error_code remove(const Generation& generation, bool& left) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    left = false;
    auto dataset = datasets_.open(generation.dataset_id, ec);
    if (!ec && removal_of(name) == Removal::none) {
      ec = throw_away(dataset.directory(), store_layout::chunk_name(generation), name);
      left = !ec;
      if (left) sync_removal(name, dataset);
    }
    if (ec == std::errc::no_such_file_or_directory || ec == errc::not_a_directory) return gone(name, left);
    return ec ? ec : finish_removal(generation, name);
  }

  /// As `remove`, but into `quarantine/`, where it stays. What cannot go there is removed: it is corrupt, and no start
  /// must find it. `kept`: it stands there, and will not come back.
  std::error_code set_aside(const Generation& generation, bool& left, bool& kept) {
    const std::string name = store_layout::qualified_name(generation);
    std::error_code ec;
    left = kept = false;
    auto dataset = datasets_.open(generation.dataset_id, ec);
    if (ec) return remove(generation, left);
    if (removal_of(name) == Removal::none) {
      if (fs().rename(dataset.directory(), store_layout::chunk_name(generation), root().quarantine(), name)) {
        return remove(generation, left);
      }
      left = true;
      sync_removal(name, dataset);
    }
    bool is_durable = false;
    ec = finish_removal(generation, name, &is_durable);
    if (ec || !is_durable) return ec;
    std::error_code there;
    fs().open_directory(root().quarantine(), name, there);
    kept = there != std::errc::no_such_file_or_directory;
    return {};
  }

  /// Renames a generation into `trash/`. What stands there under its name, whose number is its alone, is a leftover.
  std::error_code throw_away(const typename F::Directory& dataset, const std::string& name,
                             const std::string& trash_name) {
    std::error_code ec = fs().rename(dataset, name, root().trash(), trash_name);
    if (ec != std::errc::file_exists) return ec;
    ec = root().remove_tree(root().trash(), trash_name);
    return ec ? ec : fs().rename(dataset, name, root().trash(), trash_name);
  }

 private:
  /// How far the removal of a generation has come.
  enum class Removal : std::uint8_t { none, lost, durable };

  [[nodiscard]] StoreRoot<F>& root() const noexcept { return *root_; }
  [[nodiscard]] F& fs() const noexcept { return root_->fs(); }

  [[nodiscard]] Removal removal_of(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto at = removals_.find(name);
    return at == removals_.end() ? Removal::none : at->second;
  }

  void note_removal(const std::string& name, Removal removal) {
    const std::lock_guard lock(mutex_);
    if (removal == Removal::none) {
      removals_.erase(name);
    } else {
      removals_.insert_or_assign(name, removal);
    }
  }

  /// Its bytes are given back once.
  std::error_code gone(const std::string& name, bool& left) {
    const std::lock_guard lock(mutex_);
    left = removals_.erase(name) == 0 && gone_.insert(name).second;
    return errc::no_such_generation;
  }

  /// What comes once it has left `chunks/`: until that is durable it counts as lost.
  void sync_removal(const std::string& name, typename StoreDatasets<F>::Dataset& dataset) {
    note_removal(name, Removal::lost);
    if (!dataset.sync()) note_removal(name, Removal::durable);
  }

  /// What comes then.
  std::error_code finish_removal(const Generation& generation, const std::string& name, bool* is_durable = nullptr) {
    const Removal removal = removal_of(name);
    std::error_code ec;
    if (removal == Removal::lost) {
      ec = doom(generation);
    } else {
      // Its marker goes when it cannot come back any more, or it might come back undoomed.
      ec = spare(generation);
      if (!ec) ec = root().remove_tree(root().trash(), name, generation.bytes);
    }
    if (!ec) note_removal(name, Removal::none);
    if (is_durable != nullptr) *is_durable = removal == Removal::durable;
    return ec;
  }

  /// Syncs each dataset before what was removed from it is unlinked: an earlier process may have been killed between.
  /// Returns what it could not remove.
  template <class Failed>
  std::vector<std::string> clean_trash(const std::vector<std::string>& names, const Failed& failed) {
    std::map<DatasetId, std::error_code> synced;
    std::vector<std::string> left;
    for (const std::string& name : names) {
      const Generation generation = *store_layout::parse_qualified_name(name);
      const auto [at, is_new] = synced.try_emplace(generation.dataset_id);
      if (is_new) {
        auto dataset = datasets_.open(generation.dataset_id, at->second);
        at->second = at->second ? root().unless_missing(at->second) : dataset.sync();
      }
      if (failed(at->second ? at->second : root().remove_tree(root().trash(), name))) left.push_back(name);
    }
    return left;
  }

  /// Sees to it that there is a marker of this name in `doomed/`, an empty file, or that there is none. Of one name one
  /// after another, as all calls about one generation are.
  std::error_code mark(const std::string& name, bool is_doomed) {
    const std::error_code ec = is_doomed ? make_marker(name) : take_marker(name);
    const std::lock_guard lock(mutex_);
    if (ec) {
      pending_[name] = is_doomed;
    } else {
      pending_.erase(name);
    }
    return ec;
  }

  // After a failed sync what is seen of a marker may not be what is on the disk, and the next sync does not tell: only
  // a new change of it, and that one's sync, do. What was not changed is as durable as it was, and stays untouched.

  std::error_code make_marker(const std::string& name) {
    std::error_code ec = enter_boot();
    const auto ticket = doomed_syncs_.join();
    if (!ec && is_unsure(name)) ec = root().unless_missing(fs().remove_file(root().doomed(), name));
    if (!ec) ec = create_marker(name);
    if (ec == std::errc::file_exists) return {};
    return ec ? ec : sync_marker(name, ticket);
  }

  std::error_code take_marker(const std::string& name) {
    const auto ticket = doomed_syncs_.join();
    std::error_code ec = fs().remove_file(root().doomed(), name);
    if (ec == std::errc::no_such_file_or_directory) {
      if (!is_unsure(name)) return {};
      ec = create_marker(name);
      if (!ec) ec = fs().remove_file(root().doomed(), name);
    }
    if (!ec) ec = sync_marker(name, ticket);
    // As long as it may still be on the disk it must be seen here, for the next start too, which would neither know it
    // for doomed nor its number for taken.
    if (ec) create_marker(name);
    return ec;
  }

  std::error_code create_marker(const std::string& name) {
    std::error_code ec;
    typename F::File marker = fs().create_file(root().doomed(), name, ec);
    if (!ec) fs().close(marker);  // there is nothing in it to be lost
    return ec;
  }

  std::error_code sync_marker(const std::string& name, const typename SharedSync<F>::Ticket& ticket) {
    note_unsure(name, true);
    const std::error_code ec = doomed_syncs_.commit(ticket, [this] { return root().sync_directory(root().doomed()); });
    if (!ec) note_unsure(name, false);
    return ec;
  }

  [[nodiscard]] bool is_unsure(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    return unsure_.contains(name);
  }

  void note_unsure(const std::string& name, bool is_unsure) {
    const std::lock_guard lock(mutex_);
    if (is_unsure) {
      unsure_.insert(name);
    } else {
      unsure_.erase(name);
    }
  }

  /// Writes down in which boot of the machine markers are made, before the first one, and finds out whether those that
  /// are there are of an earlier one. Not synced: whatever a power cut leaves of it is not this boot's. Where it cannot
  /// be written, as on a full disk, which has room for a marker yet, the boot counts as not known.
  std::error_code enter_boot() {
    const std::lock_guard lock(boot_mutex_);
    if (boot_entered_) return {};
    const std::string now = fs().boot_id();
    std::error_code ec;
    const std::string then = root().read_small_file(root().doomed(), store_layout::boot_file, now.size(), ec);
    if (root().unless_missing(ec)) return ec;
    const bool is_known = !ec && !now.empty() && then.size() == now.size();
    is_new_boot_ = is_new_boot_ || (is_known && then != now);
    boot_entered_ = is_known && then == now;
    if (boot_entered_) return {};
    ec = root().unless_missing(fs().remove_file(root().doomed(), store_layout::boot_file));
    if (!ec) boot_entered_ = write_boot(now);
    return ec;
  }

  /// A part of it is as good as none.
  bool write_boot(const std::string& id) {
    std::error_code ec;
    typename F::File file = fs().create_file(root().doomed(), store_layout::boot_file, ec);
    if (!ec) ec = fs().write(file, 0, std::as_bytes(std::span(id)));
    return !ec && !fs().close(file);
  }

  /// Of generations that are gone as far as one can see. A sync that failed in an earlier process of this boot may have
  /// lost that, and no later sync tells: a power cut may bring them back, and then they are to be known for doomed.
  std::error_code remove_markers(const std::vector<std::string>& names) {
    if (const std::error_code ec = enter_boot()) return ec;
    {
      const std::lock_guard lock(boot_mutex_);
      if (!is_new_boot_) return {};
    }
    for (const std::string& name : names) {
      if (const std::error_code ec = mark(name, false)) return ec;
    }
    return {};
  }

  std::shared_ptr<StoreRoot<F>> root_;
  StoreDatasets<F>& datasets_;
  SharedSync<F> doomed_syncs_{1};  ///< of `doomed/`
  typename F::Mutex boot_mutex_;   ///< held while the boot is found out; guards the next two
  bool boot_entered_ = false;
  bool is_new_boot_ = false;             ///< the machine was started anew since the last process
  mutable std::mutex mutex_;             ///< guards the rest; held across no operation
  std::set<std::string> unsure_;         ///< markers whose last change is not known to be durable
  std::map<std::string, bool> pending_;  ///< markers that are to be there, or not, and failed to be
  Leftovers leftovers_;
  std::map<std::string, Removal> removals_;  ///< that have begun and not ended, by their name in `trash/`
  std::set<std::string> gone_;               ///< that somebody else has taken away
};

}  // namespace garner::detail
