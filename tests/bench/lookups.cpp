// SPDX-License-Identifier: BSL-1.0
//
// The lookup table: `find_chunk` and the drop of its pin on random blocks of eight datasets, by one thread and by four,
// while a writer changes a thousand chunks a second. Beside it, the floor (a binary search in an array that nobody
// changes), what else could have been written, and what one change costs the index.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/core/chunk_index.hpp"
#include "garner/core/epoch.hpp"
#include "manager.hpp"
#include "measuring.hpp"

namespace {

/// A block, and the number of the chunk that has it.
struct Question {
  std::uint64_t number = 0;
  garner::BlockNumber block = 0;
};

class Questions {
 public:
  explicit Questions(std::uint64_t chunks, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t number = random() % chunks;
      questions_.push_back({number, bench::range_of(number).begin + random() % bench::blocks_a_chunk});
    }
  }
  const Question& next() { return questions_[at_++ % count]; }

 private:
  static constexpr std::size_t count = std::size_t{1} << 16;
  std::vector<Question> questions_;
  std::size_t at_ = 0;
};

double processor_nanoseconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

/// Nanoseconds of one thread for a lookup. What other processes take of the machine is no part of the first, and what
/// is spent asleep before a lock is no part of it either.
struct Cost {
  double processor;
  double wall;
};

/// `threads` of them do nothing but `ask(question)` for a while.
template <class Ask>
Cost time_lookups(unsigned threads, std::uint64_t chunks, bool hot, const Ask& ask) {
  std::atomic<unsigned> waiting{threads};
  std::atomic<bool> stop{false};
  std::vector<double> processor(threads);
  std::vector<double> wall(threads);
  std::vector<std::thread> running;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      Questions questions(hot ? 1 : chunks, hot ? 1 : i + 1);
      for (--waiting; waiting != 0;) std::this_thread::yield();
      std::uint64_t done = 0;
      std::uint64_t found = 0;
      const auto begin = bench::Clock::now();
      const double begin_processor = processor_nanoseconds();
      for (; !stop.load(std::memory_order_relaxed); done += 64) {
        for (int turn = 0; turn < 64; ++turn) found += ask(questions.next());
      }
      processor[i] = (processor_nanoseconds() - begin_processor) / static_cast<double>(done);
      wall[i] = bench::nanoseconds(bench::Clock::now() - begin) / static_cast<double>(done);
      if (found < done / 2) bench::fail("half of the chunks are not found");
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  stop = true;
  for (std::thread& thread : running) thread.join();
  return {bench::percentile(std::span(processor), 0.5), bench::percentile(std::span(wall), 0.5)};
}

void tell(const std::string& name, const Cost& cost) {
  bench::tell(name, cost.processor);
  bench::tell(name + " wall", cost.wall);
}

std::string named(const std::string& name, unsigned threads) { return name + " " + std::to_string(threads); }

/// Does `change()` a thousand times a second while it lives.
class Writer {
 public:
  template <class Change>
  explicit Writer(Change change)
      : thread_([this, change]() mutable {
          for (auto next = bench::Clock::now(); !stop_; next += std::chrono::milliseconds(1)) {
            change();
            std::this_thread::sleep_until(next);
          }
        }) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

using Held = std::shared_ptr<const garner::DataChunk>;

/// A binary search in a sorted array: no pin, no writer, no second thread.
class Floor {
 public:
  explicit Floor(std::uint64_t chunks) {
    for (std::uint64_t number = 0; number < chunks; ++number) {
      entries_.push_back({bench::dataset_of(number), bench::range_of(number), number});
    }
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.dataset, a.range.begin) < std::tie(b.dataset, b.range.begin);
    });
  }
  std::uint64_t operator()(const Question& asked) const {
    const garner::DatasetId& dataset = bench::dataset_of(asked.number);
    const auto at = std::upper_bound(entries_.begin(), entries_.end(), asked.block,
                                     [&](garner::BlockNumber block, const Entry& entry) {
                                       return std::tie(dataset, block) < std::tie(entry.dataset, entry.range.begin);
                                     });
    if (at == entries_.begin()) return 0;
    const Entry& entry = *std::prev(at);
    return entry.dataset == dataset && asked.block < entry.range.end ? 1 : 0;
  }

 private:
  struct Entry {
    garner::DatasetId dataset;
    garner::BlockRange range;
    std::uint64_t number;
  };
  std::vector<Entry> entries_;
};

/// A map under a lock that readers share.
class SharedMap {
 public:
  void insert(const garner::DataChunk& chunk) {
    const std::unique_lock lock(mutex_);
    chunks_[{chunk.dataset_id, chunk.block_range.begin}] = std::make_shared<const garner::DataChunk>(chunk);
  }
  void erase(const garner::DataChunk& chunk) {
    const std::unique_lock lock(mutex_);
    chunks_.erase({chunk.dataset_id, chunk.block_range.begin});
  }
  Held find(const Question& asked) const {
    const std::shared_lock lock(mutex_);
    auto at = chunks_.upper_bound({bench::dataset_of(asked.number), asked.block});
    if (at == chunks_.begin()) return nullptr;
    --at;
    return at->first.first == bench::dataset_of(asked.number) && asked.block < at->second->block_range.end ? at->second
                                                                                                           : nullptr;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::map<std::pair<garner::DatasetId, garner::BlockNumber>, Held> chunks_;
};

/// All chunks by id under a lock. Which of them has a block is found out by looking at them.
class ScannedMap {
 public:
  void insert(const garner::DataChunk& chunk) {
    const std::lock_guard lock(mutex_);
    chunks_[chunk.id] = std::make_shared<const garner::DataChunk>(chunk);
  }
  void erase(const garner::DataChunk& chunk) {
    const std::lock_guard lock(mutex_);
    chunks_.erase(chunk.id);
  }
  Held find(const Question& asked) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, chunk] : chunks_) {
      const garner::BlockRange& range = chunk->block_range;
      if (range.begin <= asked.block && asked.block < range.end &&
          chunk->dataset_id == bench::dataset_of(asked.number)) {
        return chunk;
      }
    }
    return nullptr;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<garner::ChunkId, Held> chunks_;
};

/// Chunks by the text of their dataset's and their own id under a lock. Who asks knows both, and has a copy of the
/// description.
class HashByName {
 public:
  void insert(const garner::DataChunk& chunk) {
    const std::lock_guard lock(mutex_);
    chunks_[name_of(chunk.dataset_id, chunk.id)] = chunk;
  }
  void erase(const garner::DataChunk& chunk) {
    const std::lock_guard lock(mutex_);
    chunks_.erase(name_of(chunk.dataset_id, chunk.id));
  }
  std::optional<garner::DataChunk> find(const Question& asked) const {
    const std::string name = name_of(bench::dataset_of(asked.number), bench::id_of(asked.number));
    const std::lock_guard lock(mutex_);
    const auto at = chunks_.find(name);
    return at == chunks_.end() ? std::nullopt : std::optional(at->second);
  }

 private:
  static std::string name_of(const garner::DatasetId& dataset, const garner::ChunkId& id) {
    return dataset.to_hex() + '/' + id.to_hex();
  }

  mutable std::mutex mutex_;
  std::unordered_map<std::string, garner::DataChunk> chunks_;
};

/// What changes: a chunk goes, and is back with the next change.
template <class Insert, class Erase>
auto changes(std::uint64_t chunks, Insert insert, Erase erase) {
  return [=, random = std::mt19937_64(7), gone = std::optional<garner::DataChunk>()]() mutable {
    if (gone) {
      insert(*std::exchange(gone, std::nullopt));
    } else {
      gone = bench::chunk_of(random() % chunks);
      erase(*gone);
    }
  };
}

template <class Baseline>
void time_baseline(const std::string& name, std::uint64_t chunks, Baseline& baseline) {
  const Writer writer(changes(
      chunks, [&](const auto& chunk) { baseline.insert(chunk); }, [&](const auto& chunk) { baseline.erase(chunk); }));
  for (const unsigned threads : {1U, 4U}) {
    const auto ask = [&](const Question& asked) { return baseline.find(asked) ? std::uint64_t{1} : std::uint64_t{0}; };
    tell(named(name, threads), time_lookups(threads, chunks, false, ask));
  }
}

/// The median of one chunk less, or one more, in the index itself.
double time_change(std::uint64_t chunks) {
  using Index = garner::core::ChunkIndex<const std::uint64_t>;
  Index index;
  std::vector<Index::Key> keys;
  std::vector<Index::Garbage> garbage;
  const auto insert = [&](std::uint64_t number) {
    return index.insert(bench::dataset_of(number), bench::range_of(number), number,
                        std::make_unique<const std::uint64_t>(number));
  };
  for (std::uint64_t number = 0; number < chunks; ++number) keys.push_back(insert(number));
  index.publish();
  std::mt19937_64 random(1);
  std::vector<double> samples;
  for (int turn = 0; turn < 20'000; ++turn) {
    const std::uint64_t number = random() % chunks;
    Index::Key key = keys[number];  // whoever changes something knows what
    for (const bool erase : {true, false}) {
      const auto begin = bench::Clock::now();
      if (erase) {
        index.erase(key);
      } else {
        key = insert(number);
      }
      index.publish();
      index.collect(garbage);
      samples.push_back(bench::nanoseconds(bench::Clock::now() - begin));
      garbage.clear();
    }
    keys[number] = key;
  }
  return bench::percentile(std::span(samples), 0.5);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 2) bench::fail("usage: bench_lookups CHUNKS ROUNDS");
  const std::uint64_t chunks = bench::parse_number(arguments[0]);
  const std::uint64_t rounds = bench::parse_number(arguments[1]);

  const Floor floor(chunks);
  bench::MemoryWorld world(chunks);
  SharedMap shared_map;
  ScannedMap scanned;
  HashByName hash;
  const bool scan = chunks <= 10'000;  // it is slow enough there
  for (std::uint64_t number = 0; number < chunks; ++number) {
    shared_map.insert(bench::chunk_of(number));
    hash.insert(bench::chunk_of(number));
    if (scan) scanned.insert(bench::chunk_of(number));
  }
  const auto ask = [&](const Question& asked) {
    return std::uint64_t{world.manager().find_chunk(bench::dataset_of(asked.number), asked.block).has_value()};
  };
  for (std::uint64_t round = 0; round < rounds; ++round) {
    tell("floor", time_lookups(1, chunks, false, floor));
    {
      const Writer writer(changes(
          chunks, [&](const auto& chunk) { world.manager().download_chunk(chunk); },
          [&](const auto& chunk) { world.manager().delete_chunk(chunk.id); }));
      for (const unsigned threads : {1U, 2U, 4U, 16U})
        tell(named("garner", threads), time_lookups(threads, chunks, false, ask));
    }
    for (const unsigned threads : {1U, 4U, 16U}) {
      tell(named("quiet", threads), time_lookups(threads, chunks, false, ask));
      tell(named("hot", threads), time_lookups(threads, chunks, true, ask));
    }
    time_baseline("shared map", chunks, shared_map);
    time_baseline("hash", chunks, hash);
    if (scan) time_baseline("scan", chunks, scanned);
    bench::tell("change", time_change(chunks));
  }
}
