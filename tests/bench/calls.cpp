// SPDX-License-Identifier: BSL-1.0
//
// The table of calls: how long `download_chunk` and `delete_chunk` take while four threads make a hundred thousand of
// them and what they ask for is fetched, what lookups feel of it, what an assignment of a million costs, and how often
// an idle manager wakes up. Beside them, the least that could have been done.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/garner.hpp"
#include "manager.hpp"
#include "measuring.hpp"

namespace {

constexpr unsigned callers = 4;
constexpr std::uint64_t calls_in_all = 100'000;
constexpr std::uint64_t held = 5'243;

template <class Call>
double time_call(const Call& call) {
  const auto begin = bench::Clock::now();
  call();
  return bench::nanoseconds(bench::Clock::now() - begin);
}

void tell_percentiles(const std::string& name, std::vector<double>& samples) {
  bench::tell(name + " p50", bench::percentile(std::span(samples), 0.5));
  bench::tell(name + " p99", bench::percentile(std::span(samples), 0.99));
  bench::tell(name + " p99.9", bench::percentile(std::span(samples), 0.999));
  bench::tell(name + " max", bench::percentile(std::span(samples), 1));
}

/// What a storm is over.
struct Storm {
  std::uint64_t ids = calls_in_all / callers * 2 / 3;  ///< for each caller; where these are few, again and again
  bool apart = true;                                   ///< whether each caller has its own
};

/// Every chunk is asked for, and every second one is deleted a while later.
template <class Download, class Delete>
void storm(const std::string& name, const Storm& over, const Download& download, const Delete& remove) {
  std::vector<std::vector<double>> downloads(callers);
  std::vector<std::vector<double>> deletions(callers);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < callers; ++i) {
    threads.emplace_back([&, i] {
      constexpr std::uint64_t chunks = calls_in_all / callers * 2 / 3;
      const std::uint64_t first = held + (over.apart ? i * over.ids : 0);
      for (std::uint64_t at = 0; at < chunks; ++at) {
        garner::DataChunk chunk = bench::chunk_of(first + at % over.ids);
        downloads[i].push_back(time_call([&] { download(std::move(chunk)); }));
        if (at % 2 == 0) continue;
        const garner::ChunkId gone = bench::id_of(first + at / 2 % over.ids);
        deletions[i].push_back(time_call([&] { remove(gone); }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (unsigned i = 1; i < callers; ++i) {
    downloads[0].insert(downloads[0].end(), downloads[i].begin(), downloads[i].end());
    deletions[0].insert(deletions[0].end(), deletions[i].begin(), deletions[i].end());
  }
  tell_percentiles(name + " download", downloads[0]);
  tell_percentiles(name + " delete", deletions[0]);
}

/// A lookup at a time, each of them timed, until `stop`.
template <class Manager>
std::vector<double> watch(const Manager& manager, const std::atomic<bool>& stop) {
  std::vector<double> samples;
  for (std::uint64_t number = 0; !stop; number = (number + 7919) % held) {
    const garner::BlockNumber block = bench::range_of(number).begin;
    samples.push_back(time_call([&] { return manager.find_chunk(bench::dataset_of(number), block).has_value(); }));
  }
  return samples;
}

void time_storm() {
  bench::MemoryWorld world(held);
  auto& manager = world.manager();
  const auto lookups = [&](const std::string& name, const auto& meanwhile) {
    std::atomic<bool> stop{false};
    std::vector<double> samples;
    std::thread watcher([&] { samples = watch(manager, stop); });
    meanwhile();
    stop = true;
    watcher.join();
    tell_percentiles(name, samples);
  };
  lookups("lookup at rest", [] { std::this_thread::sleep_for(std::chrono::milliseconds(500)); });
  const auto download = [&](garner::DataChunk chunk) { manager.download_chunk(std::move(chunk)); };
  const auto remove = [&](const garner::ChunkId& id) { manager.delete_chunk(id); };
  lookups("lookup in storm", [&] { storm("garner", {}, download, remove); });
  lookups("lookup in storm of ten", [&] { storm("garner ten", {10, false}, download, remove); });
}

/// A map and a queue under a lock, and nobody who empties the queue.
void time_bare_storm() {
  std::mutex mutex;
  std::unordered_map<garner::ChunkId, garner::DataChunk> chunks;
  std::deque<garner::ChunkId> queue;
  storm(
      "bare", {},
      [&](garner::DataChunk chunk) {
        const std::lock_guard lock(mutex);
        queue.push_back(chunk.id);
        chunks.insert_or_assign(chunk.id, std::move(chunk));
      },
      [&](const garner::ChunkId& id) {
        const std::lock_guard lock(mutex);
        queue.push_back(id);
        chunks.erase(id);
      });
}

void time_assignment(std::uint64_t chunks) {
  std::vector<garner::DataChunk> assignment;
  for (std::uint64_t number = 0; number < chunks; ++number) assignment.push_back(bench::chunk_of(number));
  const auto a_chunk = [&](double nanoseconds) { return nanoseconds / static_cast<double>(chunks); };

  std::vector<garner::DataChunk> sorted;
  bench::tell("sorted vector", a_chunk(time_call([&] {
                sorted = assignment;
                std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
              })));
  // Nothing is fetched: the time is the call's alone.
  garner::Options options;
  options.max_concurrent_chunks = 0;
  bench::MemoryWorld world(0, options);
  bench::tell("assignment", a_chunk(time_call([&] { world.manager().set_assignment(assignment); })));
  bench::tell("assignment again", a_chunk(time_call([&] { world.manager().set_assignment(assignment); })));
}

void time_idle(const std::filesystem::path& directory, std::uint64_t seconds) {
  garner::DataManager<> manager(directory);
  if (!manager.wait_converged(std::chrono::minutes(1))) bench::fail("an empty manager does not converge");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const std::uint64_t before = bench::context_switches();
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  // The main thread's own wake-up is one.
  bench::tell("idle switches", static_cast<double>(bench::context_switches() - before) - 1);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 3) bench::fail("usage: bench_calls DIRECTORY CHUNKS IDLE_SECONDS");
  time_bare_storm();
  time_storm();
  time_assignment(bench::parse_number(arguments[1]));
  time_idle(arguments[0], bench::parse_number(arguments[2]));
}
