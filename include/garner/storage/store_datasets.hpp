// SPDX-License-Identifier: BSL-1.0
//
// The directories of `chunks/`, one for each dataset, while they are used: how one is made durable before anything is
// renamed into it, and how all who use it at the same time share its syncs.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/shared_sync.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// Thread-safety: all members at the same time. Lifetime: outlives each `Dataset` that it gave. What is kept of a
/// dataset goes with the last who uses it.
template <FileSystem F>
class StoreDatasets {
  /// What all who use one dataset share.
  struct Shared {
    typename F::Mutex making;  ///< held while it is made durable
    SharedSync<F> syncs{2};    ///< each through the descriptor of a `Dataset`
    std::size_t users = 0;
  };
  using AllShared = std::map<DatasetId, Shared>;

  struct Leave {
    StoreDatasets* datasets;
    void operator()(const typename AllShared::value_type* shared) const noexcept { datasets->leave(shared->first); }
  };
  using Share = std::unique_ptr<typename AllShared::value_type, Leave>;

 public:
  /// A dataset's directory, open, in the hand of one who is going to change it.
  class Dataset {
   public:
    [[nodiscard]] const typename F::Directory& directory() const noexcept { return directory_; }

    /// Once, after the change: what `SharedSync::commit` says.
    std::error_code sync() {
      return share_->second.syncs.commit(ticket_, [this] { return root_->sync_directory(directory_); });
    }

   private:
    friend class StoreDatasets;
    // Joined before it is opened, as `SharedSync` asks.
    Dataset(StoreRoot<F>& root, Share share)
        : root_(&root), share_(std::move(share)), ticket_(share_->second.syncs.join()) {}

    StoreRoot<F>* root_;
    Share share_;
    typename SharedSync<F>::Ticket ticket_;
    typename F::Directory directory_;
  };

  explicit StoreDatasets(StoreRoot<F>& root) : root_(root) {}
  StoreDatasets(const StoreDatasets&) = delete;
  StoreDatasets& operator=(const StoreDatasets&) = delete;
  ~StoreDatasets() = default;

  /// One that is there.
  Dataset open(const DatasetId& id, std::error_code& ec) {
    ec.clear();
    return open(share(id), ec);
  }

  /// The same, made and durable.
  Dataset make(const DatasetId& id, std::error_code& ec) {
    Share share = this->share(id);
    {
      // One that is there was synced by whoever made it, under this lock, or by `recover`; but for one that failed to
      // be synced and then could not be removed. That is still to be removed, and made anew.
      const std::lock_guard making(share->second.making);
      const std::string name = store_layout::dataset_name(id);
      ec = is_lost(name) ? remove(name) : std::error_code();
      if (!ec) ec = make_durable(name);
    }
    return open(std::move(share), ec);
  }

  /// These are there, and nobody knows whether they are durable: whoever made them may have failed to sync that, and no
  /// later sync would tell.
  void distrust(const std::vector<std::string>& names) {
    const std::lock_guard lock(mutex_);
    lost_.insert(names.begin(), names.end());
  }

 private:
  Share share(const DatasetId& id) {
    const std::lock_guard lock(mutex_);
    const auto at = shared_.try_emplace(id).first;
    ++at->second.users;
    return Share(&*at, Leave{this});
  }

  void leave(const DatasetId& id) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = shared_.find(id);
    if (--at->second.users == 0) shared_.erase(at);
  }

  Dataset open(Share share, std::error_code& ec) {
    const std::string name = store_layout::dataset_name(share->first);
    Dataset dataset(root_, std::move(share));
    if (!ec) dataset.directory_ = root_.fs().open_directory(root_.chunks(), name, ec);
    return dataset;
  }

  std::error_code make_durable(const std::string& name) {
    const auto ticket = syncs_.join();
    std::error_code ec = root_.fs().make_directory(root_.chunks(), name);
    if (ec == std::errc::file_exists) return {};
    if (ec) return ec;
    ec = syncs_.commit(ticket, [this] { return root_.sync_directory(root_.chunks()); });
    if (ec) remove(name);
    return ec;
  }

  [[nodiscard]] bool is_lost(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return lost_.contains(name);
  }

  /// A name that was not synced is on the disk for certain only once it was changed anew, and that was synced. So the
  /// directory is removed, and made anew by whoever needs it; and where a stranger's file is in it, it is renamed and
  /// renamed back. A power cut may leave it under the other name, with nothing of ours in it; that name is nobody's
  /// then.
  std::error_code remove(const std::string& name) {
    const auto ticket = syncs_.join();
    std::error_code ec = root_.unless_missing(root_.fs().remove_directory(root_.chunks(), name));
    if (ec == std::errc::directory_not_empty) {
      const std::string aside = name + store_layout::lost_suffix;
      ec = root_.fs().rename(root_.chunks(), name, root_.chunks(), aside);
      if (!ec) ec = root_.fs().rename(root_.chunks(), aside, root_.chunks(), name);
      if (!ec) ec = syncs_.commit(ticket, [this] { return root_.sync_directory(root_.chunks()); });
    }
    const std::lock_guard lock(mutex_);
    if (ec) {
      lost_.insert(name);
    } else {
      lost_.erase(name);
    }
    return ec;
  }

  StoreRoot<F>& root_;
  SharedSync<F> syncs_{1};  ///< of `chunks/`
  std::mutex mutex_;        ///< guards the next two; held across no operation
  AllShared shared_;
  std::set<std::string> lost_;  ///< names of directories that were made, and failed to be synced or removed
};

}  // namespace garner::detail
