// SPDX-License-Identifier: BSL-1.0
//
// Starts on a directory that has many chunks, and removals. One step a call, so that tests/bench/run can drop the
// caches and time other programs in between:
//
//   names DIRECTORY CHUNKS    makes a store of so many chunks, by their names alone: their directories are empty
//   start DIRECTORY           opens it: seconds until all are listed, until one is found, bytes of memory a chunk
//   background DIRECTORY      likewise in the background: seconds until the constructor returns, a lookup is answered, all is
//                             known
//   fill DIRECTORY CHUNKS BYTES   makes a store of so many chunks of five files of so many bytes each
//   remove DIRECTORY         removes all of them
//   fill_large, remove_large DIRECTORY   the same with chunks of 200 MB, and lookups of others at rest and meanwhile
//   memory CHUNKS             bytes of memory of a chunk with five files that was fetched, not counting the store's
#include <malloc.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "garner/garner.hpp"
#include "manager.hpp"
#include "measuring.hpp"

namespace {

constexpr std::size_t files_a_chunk = 5;
constexpr std::uint64_t stay = 1000;  ///< chunks that are looked up while others are removed

double heap_bytes() {
  const auto info = ::mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
}

using Lake = garner::DataManager<garner::FilesystemStorage, garner::MemoryDownloader, garner::AsioExecutor>;

garner::Options relaxed() {
  garner::Options options;
  options.durability = garner::Durability::relaxed;
  return options;
}

void converge(auto& manager) {
  if (!manager.wait_converged(std::chrono::minutes(30))) bench::fail("not converged after half an hour");
}

void make_names(const std::filesystem::path& directory, std::uint64_t chunks) {
  { const garner::FilesystemStorage store(directory, relaxed()); }
  for (std::uint64_t number = 0; number < chunks; ++number) {
    const garner::Generation generation{bench::id_of(number), bench::dataset_of(number), bench::range_of(number), 1,
                                        number + 1};
    const std::filesystem::path path = directory / garner::store_layout::chunk_path(generation);
    if (number < bench::datasets) std::filesystem::create_directory(path.parent_path());
    std::filesystem::create_directory(path);
  }
}

void start(const std::filesystem::path& directory) {
  const double heap = heap_bytes();
  const auto begin = bench::Clock::now();
  const auto manager = std::make_unique<garner::DataManager<>>(directory);
  const bool found = manager->find_chunk(bench::dataset_of(0), 0).has_value();
  bench::tell("first lookup", bench::seconds(bench::Clock::now() - begin));
  const std::size_t chunks = manager->list_chunks().size();
  bench::tell("all listed", bench::seconds(bench::Clock::now() - begin));
  if (!found || chunks == 0) bench::fail("what is there was not found");
  converge(*manager);
  bench::tell("chunks", static_cast<double>(chunks));
  bench::tell("bytes a chunk", (heap_bytes() - heap) / static_cast<double>(chunks));
}

/// A lookup that finds something, whatever is read first.
bool finds_any(const garner::DataManager<>& manager) {
  for (std::uint64_t dataset = 0; dataset < bench::datasets; ++dataset) {
    if (!manager.find_chunks(bench::dataset_of(dataset), {0, UINT64_MAX}).empty()) return true;
  }
  return false;
}

void start_in_background(const std::filesystem::path& directory) {
  garner::Options options;
  options.startup = garner::Startup::background;
  const auto begin = bench::Clock::now();
  const garner::DataManager<> manager(directory, options);
  bench::tell("constructed", bench::seconds(bench::Clock::now() - begin));
  while (!finds_any(manager)) std::this_thread::yield();
  bench::tell("first lookup", bench::seconds(bench::Clock::now() - begin));
  if (!manager.status().recovering) bench::fail("all was known before anything was found");
  while (manager.status().recovering) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  bench::tell("all known", bench::seconds(bench::Clock::now() - begin));
}

void fill(const std::filesystem::path& directory, std::uint64_t chunks, std::uint64_t bytes) {
  garner::MemoryOrigin origin;
  origin.put(bench::url, std::string(bytes, 'x'));
  Lake manager(garner::FilesystemStorage(directory, relaxed()), garner::MemoryDownloader(origin),
               garner::AsioExecutor(), relaxed());
  for (std::uint64_t number = 0; number < chunks; ++number) {
    manager.download_chunk(bench::chunk_of(number, files_a_chunk));
  }
  converge(manager);
}

/// `stay` more chunks are in the directory and are looked up.
std::vector<double> time_lookups(const garner::DataManager<>& manager, const std::atomic<bool>& stop) {
  std::vector<double> samples;
  for (std::uint64_t number = 0; !stop; number = (number + 1) % stay) {
    const auto begin = bench::Clock::now();
    const bool found = manager.find_chunk(bench::dataset_of(number), bench::range_of(number).begin).has_value();
    samples.push_back(bench::nanoseconds(bench::Clock::now() - begin));
    if (!found) bench::fail("a chunk that was to stay is not found");
  }
  return samples;
}

void remove(const std::filesystem::path& directory) {
  garner::DataManager<> manager(directory);
  converge(manager);
  const auto begin = bench::Clock::now();
  manager.set_assignment({});
  converge(manager);
  bench::tell("removed", bench::seconds(bench::Clock::now() - begin));
}

/// Chunks `stay` and on are removed, one by one.
void remove_large(const std::filesystem::path& directory) {
  garner::DataManager<> manager(directory);
  converge(manager);
  const auto lookups = [&](const std::string& name, const auto& meanwhile) {
    std::atomic<bool> stop{false};
    std::vector<double> samples;
    std::thread watcher([&] { samples = time_lookups(manager, stop); });
    meanwhile();
    stop = true;
    watcher.join();
    bench::tell(name + " p99", bench::percentile(std::span(samples), 0.99));
    bench::tell(name + " p99.9", bench::percentile(std::span(samples), 0.999));
  };
  lookups("lookup at rest", [] { std::this_thread::sleep_for(std::chrono::milliseconds(500)); });
  lookups("lookup in removal", [&] {
    for (std::uint64_t number = stay; number < stay + 4; ++number) {
      manager.delete_chunk(bench::id_of(number));
      converge(manager);
    }
  });
}

/// `stay` small chunks, and four of 200 MB.
void fill_large(const std::filesystem::path& directory) {
  garner::MemoryOrigin origin;
  origin.put(bench::url, "x");
  origin.put("mem://lake/large", std::string(200'000'000 / files_a_chunk, 'x'));
  Lake manager(garner::FilesystemStorage(directory, relaxed()), garner::MemoryDownloader(origin),
               garner::AsioExecutor(), relaxed());
  for (std::uint64_t number = 0; number < stay + 4; ++number) {
    garner::DataChunk chunk = bench::chunk_of(number, files_a_chunk);
    for (auto& [name, source] : chunk.files) source = number < stay ? bench::url : "mem://lake/large";
    manager.download_chunk(std::move(chunk));
  }
  converge(manager);
}

void measure_memory(std::uint64_t chunks) {
  garner::MemoryOrigin origin;
  origin.put(bench::url, "x");
  const auto disk = std::make_shared<garner::MemoryStorage::Disk>();
  const double heap = heap_bytes();
  auto manager = std::make_unique<bench::MemoryWorld::Manager>(
      garner::MemoryStorage(disk), garner::MemoryDownloader(origin), garner::AsioExecutor());
  for (std::uint64_t number = 0; number < chunks; ++number) {
    manager->download_chunk(bench::chunk_of(number, files_a_chunk));
  }
  converge(*manager);
  const double with_manager = heap_bytes() - heap;
  manager.reset();
  bench::tell("bytes a chunk", (with_manager - (heap_bytes() - heap)) / static_cast<double>(chunks));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string step = arguments.empty() ? "" : arguments[0];
  const auto number = [&](std::size_t at) { return bench::parse_number(arguments.at(at)); };
  if (step == "names" && arguments.size() == 3) {
    make_names(arguments[1], number(2));
  } else if (step == "start" && arguments.size() == 2) {
    start(arguments[1]);
  } else if (step == "background" && arguments.size() == 2) {
    start_in_background(arguments[1]);
  } else if (step == "fill" && arguments.size() == 4) {
    fill(arguments[1], number(2), number(3));
  } else if (step == "fill_large" && arguments.size() == 2) {
    fill_large(arguments[1]);
  } else if (step == "remove" && arguments.size() == 2) {
    remove(arguments[1]);
  } else if (step == "remove_large" && arguments.size() == 2) {
    remove_large(arguments[1]);
  } else if (step == "memory" && arguments.size() == 2) {
    measure_memory(number(1));
  } else {
    bench::fail("usage: as at the top of tests/bench/start.cpp");
  }
}
