// SPDX-License-Identifier: BSL-1.0
//
// The publish protocol: many staging areas at a time, so that their syncs share what a sync costs. Each becomes a
// generation of its own, or fails by itself.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/staging.hpp"
#include "garner/storage/store_datasets.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_remover.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// Thread-safe; one area is published by one thread at a time.
template <FileSystem F>
class StorePublisher {
 public:
  using Area = StagingArea<F>;

  struct Request {
    Area* area;
    Generation generation = {};
    std::error_code error = {};
    bool is_unsure = false;  ///< failed, and the next start may find it: its bytes count until it is taken away
  };

  StorePublisher(StoreRoot<F>& root, StoreDatasets<F>& datasets, StoreRemover<F>& remover)
      : root_(root), datasets_(datasets), remover_(remover) {}

  /// Of each: `chunk.json` written; that, the staging directory, and those of its files synced that are not yet;
  /// renamed; its new parent synced. Only then is it published. After a failed sync none is, and what was renamed is
  /// taken back.
  void publish(std::span<Request> requests) {
    for (Request& request : requests) request.error = seal(*request.area, request.generation);
    sync(requests);
    enter(requests);
    for (Request& request : requests) {
      Area& area = *request.area;
      if (request.error == errc::no_space) area.met_no_space = true;
      const std::lock_guard lock(area.mutex);
      area.sync_failed = area.sync_failed || request.error == errc::sync_failed;
    }
  }

 private:
  /// Writes `chunk.json`, which waits to be synced with the files.
  std::error_code seal(Area& area, Generation& generation) {
    if (area.left_staging) return std::make_error_code(std::errc::bad_file_descriptor);
    ChunkDescriptor descriptor{area.chunk, area.number, {}};
    {
      const std::lock_guard lock(area.mutex);
      if (area.sync_failed) return errc::sync_failed;
      if (area.found.size() != area.chunk.files.size()) return errc::body_too_short;
      descriptor.found = area.found;
    }
    const auto bytes = descriptor.bytes();
    if (!bytes) return errc::chunk_too_large;
    generation = {area.chunk.id, area.chunk.dataset_id, area.chunk.block_range, *bytes, area.number};
    const std::string text = encode_descriptor(descriptor);
    // Of an earlier attempt, which may have run out of space here.
    area.unsynced.drop(store_layout::descriptor_file);
    std::error_code ec = root_.unless_missing(root_.fs().remove_file(area.directory, store_layout::descriptor_file));
    if (!ec) ec = area.remove_notes();
    if (ec) return ec;
    typename F::File file = root_.fs().create_file(area.directory, store_layout::descriptor_file, ec);
    if (!ec) ec = root_.fs().write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) area.unsynced.put(store_layout::descriptor_file, std::move(file));
    return ec;
  }

  void sync(std::span<Request> requests) {
    std::vector<Request*> owners;
    std::deque<typename F::File> files;  // which stay where they are
    std::vector<SyncRequest<typename F::File, typename F::Directory>> syncs;
    for (Request& request : requests) {
      if (request.error) continue;
      for (typename F::File& file : request.area->unsynced.take()) {
        files.push_back(std::move(file));
        owners.push_back(&request);
        syncs.push_back({&files.back()});
      }
      owners.push_back(&request);
      syncs.push_back({nullptr, &request.area->directory});
    }
    root_.sync_together(syncs);
    for (std::size_t i = 0; i < syncs.size(); ++i) {
      std::error_code ec = syncs[i].error;
      const std::error_code close_error =
          syncs[i].file != nullptr ? root_.fs().close(*syncs[i].file) : std::error_code();
      if (!ec) ec = close_error;
      if (!owners[i]->error) owners[i]->error = ec;
    }
  }

  void enter(std::span<Request> requests) {
    std::map<DatasetId, std::vector<Request*>> by_dataset;
    for (Request& request : requests) {
      if (!request.error) by_dataset[request.generation.dataset_id].push_back(&request);
    }
    for (auto& [id, group] : by_dataset) enter(group);
  }

  /// Renames what is to be in one dataset, and makes that durable.
  void enter(std::vector<Request*>& group) {
    std::error_code ec;
    auto dataset = datasets_.make(group.front()->generation.dataset_id, ec);
    for (Request* request : group) {
      const std::string name = store_layout::chunk_name(request->generation);
      request->error = ec ? ec : root_.fs().rename(root_.staging(), request->area->name, dataset.directory(), name);
      if (!request->error) request->area->left_staging = true;
    }
    std::erase_if(group, [](const Request* request) { return bool(request->error); });
    if (group.empty()) return;
    ec = dataset.sync();
    if (!ec) return;
    for (Request* request : group) {
      request->error = ec;
      take_back(dataset.directory(), *request);
    }
  }

  /// A power cut may bring its new name back: it stays in `trash/` whole until the next start, and is not to be served.
  void take_back(const typename F::Directory& dataset, Request& request) {
    const Generation& generation = request.generation;
    Leftovers leftovers;
    const std::string name = store_layout::chunk_name(generation);
    if (remover_.throw_away(dataset, name, store_layout::qualified_name(generation))) {
      leftovers.doomed.push_back(generation);
      request.is_unsure = true;
    }
    if (remover_.doom(generation)) leftovers.unmarked.push_back(generation);
    remover_.leave(leftovers);
  }

  StoreRoot<F>& root_;
  StoreDatasets<F>& datasets_;
  StoreRemover<F>& remover_;
};

}  // namespace garner::detail
