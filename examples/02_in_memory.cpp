// SPDX-License-Identifier: BSL-1.0
//
// Everything in memory, on one thread, with the standard library alone: what a test of a program that uses garner
// wants. The clock is moved by hand, so a backoff of minutes takes no time, and each run is like the last one.
#include <garner/data_manager.hpp>
#include <garner/download/memory_downloader.hpp>
#include <garner/execution/inline_executor.hpp>
#include <garner/storage/memory_storage.hpp>

#include <chrono>
#include <iostream>
#include <string>

int main() {
  garner::MemoryOrigin origin;  // the "network": a map of URL to bytes
  origin.put("mem://lake/blocks", "genesis");
  origin.fail("mem://lake/blocks", {.error = garner::errc::server_unavailable}, 3);

  garner::DataManager manager(garner::MemoryStorage(), garner::MemoryDownloader(origin),
                              garner::InlineExecutor::manual());
  const auto dataset = garner::DatasetId::from_name("lake");
  const auto id = garner::ChunkId::from_name("lake/0-9");
  manager.download_chunk({id, dataset, {0, 10}, {{"blocks", "mem://lake/blocks"}}});

  // Nothing has happened yet: the executor has no thread, and runs what is due inside of a wait.
  std::cout << origin.transfers() << " transfers before the wait\n";
  const bool converged = manager.wait_converged(std::chrono::hours(1));
  std::cout << origin.transfers() << " after it, " << manager.status().attempts_failed << " of them failed, "
            << (converged ? "converged" : "not converged") << '\n';

  if (const auto pin = manager.find_chunk(dataset, 5)) {
    for (const std::byte byte : pin->location()->files.at("blocks")) std::cout << static_cast<char>(byte);
    std::cout << '\n';
  }
}
