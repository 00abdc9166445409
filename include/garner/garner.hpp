// SPDX-License-Identifier: BSL-1.0
//
// All of garner, in the order in which to read it: a header includes only what stands above it here, or in
// its own folder. This is also the one place where the default policies are named.
#pragma once

// Not sorted: the order is the point.
// clang-format off
// The vocabulary.
#include "garner/version.hpp"
#include "garner/error.hpp"
#include "garner/ids.hpp"
#include "garner/keyed_hash.hpp"
#include "garner/http_header.hpp"
#include "garner/chunk.hpp"
#include "garner/http_options.hpp"
#include "garner/policies.hpp"
#include "garner/status.hpp"
#include "garner/served.hpp"
#include "garner/chunk_ref.hpp"

// Decides, and does nothing.
#include "garner/core/epoch.hpp"
#include "garner/core/dataset_numbers.hpp"
#include "garner/core/index_node.hpp"
#include "garner/core/chunk_index.hpp"
#include "garner/core/schedule.hpp"
#include "garner/core/scrub.hpp"
#include "garner/core/chunk_table.hpp"

// Does it.
#include "garner/manager/engine.hpp"
#include "garner/data_manager.hpp"

// The policies.
#include "garner/storage/filesystem_storage.hpp"
#include "garner/storage/memory_storage.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/execution/async_wait.hpp"
#include "garner/execution/inline_executor.hpp"

// Two parts that stand by themselves.
#include "garner/execution/executor_ref.hpp"
#include "garner/execution/task_pool.hpp"
#include "garner/download/download_manager.hpp"

// A seeded world to run them in.
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_world.hpp"
#include "garner/simulation/sim_machine.hpp"
#include "garner/simulation/sim_downloader.hpp"

// For people.
#include "garner/format.hpp"
// clang-format on

namespace garner {

template <class S = FilesystemStorage, class D = CurlDownloader, class E = AsioExecutor>
class DataManager;

template <class E = AsioExecutor>
class TaskPool;

template <class D = CurlDownloader, class E = AsioExecutor, class F = PosixFileSystem>
class DownloadManager;

}  // namespace garner
