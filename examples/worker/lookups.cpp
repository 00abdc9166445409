// SPDX-License-Identifier: BSL-1.0
//
// The loop of one thread, and how it tells a wrong answer from one that was overtaken.
#include "lookups.hpp"

#include <chrono>
#include <utility>

#include "content.hpp"

namespace worker {

namespace {

// Bursts with a pause between them: on four cores, threads that never rest would only measure how they share
// them with the transfers and with the origin, which is in this process too.
constexpr std::size_t burst = 256;
constexpr std::chrono::microseconds rest(200);

}  // namespace

Lookups::Lookups(const Service::Manager& manager, const std::vector<NamedChunk>& chunks, unsigned threads,
                 std::uint64_t seed)
    : manager_(manager), reports_(threads) {
  for (const NamedChunk& chunk : chunks) {
    auto target = std::make_unique<Target>();
    target->dataset = chunk.description.dataset_id;
    target->blocks = chunk.description.block_range;
    places_.emplace(chunk.description.id, targets_.size());
    targets_.push_back(std::move(target));
  }
  for (unsigned i = 0; i < threads; ++i) {
    threads_.emplace_back([this, i, seed] { reports_[i] = run(mix(seed + i)); });
  }
}

void Lookups::expect_deleted(const garner::ChunkId& id) {
  auto& changes = targets_[places_.at(id)]->changes;
  if (changes % 2 == 0) ++changes;
}

void Lookups::expect_any(const garner::ChunkId& id) {
  auto& changes = targets_[places_.at(id)]->changes;
  if (changes % 2 == 1) ++changes;
}

bool Lookups::is_forbidden(const garner::ChunkId& id, const std::vector<std::uint32_t>& before) const {
  const auto place = places_.find(id);
  if (place == places_.end()) return true;  // nobody ever asked for it
  const std::uint32_t then = before[place->second];
  return then % 2 == 1 && targets_[place->second]->changes == then;
}

LookupReport Lookups::run(std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  LookupReport report;
  std::vector<std::uint32_t> before(targets_.size());
  while (!stopping_) {
    for (std::size_t i = 0; i < targets_.size(); ++i) before[i] = targets_[i]->changes;
    for (std::size_t i = 0; i < burst; ++i) {
      seed = mix(seed);
      const Target& target = *targets_[static_cast<std::size_t>(seed % targets_.size())];
      const garner::BlockNumber block = target.blocks.begin + mix(seed) % (target.blocks.end - target.blocks.begin);
      const auto start = Clock::now();
      auto ref = manager_.find_chunk(target.dataset, block);
      const bool found = ref.has_value();
      const garner::ChunkId id = found ? ref->id() : garner::ChunkId();
      const bool right = !found || (ref->dataset_id() == target.dataset && ref->block_range().contains(block));
      ref.reset();
      report.nanoseconds.record(static_cast<std::uint64_t>((Clock::now() - start).count()));
      if (found) ++report.found;
      if (!right || (found && is_forbidden(id, before))) ++report.wrong;
    }
    count_ += burst;
    std::this_thread::sleep_for(rest);
  }
  return report;
}

const LookupReport& Lookups::stop() {
  stopping_ = true;
  if (threads_.empty()) return total_;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (const LookupReport& report : reports_) total_.merge(report);
  return total_;
}

}  // namespace worker
