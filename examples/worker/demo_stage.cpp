// SPDX-License-Identifier: BSL-1.0
//
// Setting the stage, and the tools for what is played on it.
#include "demo_stage.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "content.hpp"
#include "text.hpp"

namespace worker {

namespace {

/// The published manifests in the source tree.
std::vector<std::filesystem::path> default_manifests() {
#ifdef GARNER_TEST_DATA_DIR
  const std::filesystem::path data = GARNER_TEST_DATA_DIR;
#else
  const auto data = std::filesystem::path(__FILE__).parent_path() / ".." / ".." / "tests" / "data";
#endif
  std::vector<std::filesystem::path> files = {data / "sqd-chunks.jsonl", data / "wikipedia-dumps.jsonl"};
  for (const auto& file : files) {
    if (!std::filesystem::exists(file)) {
      throw DemoStopped(fmt::format("{} is not there (any more): name one with --manifest", file.string()));
    }
  }
  return files;
}

}  // namespace

std::vector<NamedChunk> choose_chunks(const std::vector<NamedChunk>& chunks, std::size_t count) {
  std::map<std::string, std::vector<const NamedChunk*>> datasets;
  for (const NamedChunk& chunk : chunks) datasets[chunk.dataset].push_back(&chunk);
  std::vector<NamedChunk> out;
  for (std::size_t round = 0; out.size() < std::min(count, chunks.size()); ++round) {
    for (const auto& [name, members] : datasets) {
      if (round < members.size() && out.size() < count) out.push_back(*members[round]);
    }
  }
  return out;
}

Stage::Stage(const DemoOptions& chosen, Signals& signals)
    : options(chosen), console(stdout), directory("garner-demo", chosen.keep), signals_(signals) {
  const auto files = options.manifests.empty() ? default_manifests() : options.manifests;
  const Manifest whole = load_manifests(files);
  manifest.versions.emplace_back().downloaded = choose_chunks(whole.assignment(), options.chunks);
  heading("An origin on loopback");
  for (const auto& file : files) say(fmt::format("manifest {}", file.filename().string()));
  OriginOptions origin_options;
  origin_options.scale = options.scale;
  origin_options.seed = options.seed;
  origin_options.bytes_per_second = static_cast<double>(options.bytes_per_second);
  origin_options.faults = true;
  origin = std::make_unique<Origin>(manifest, origin_options);
  std::unordered_set<std::string> datasets;
  for (const NamedChunk& chunk : chunks()) datasets.insert(chunk.dataset);
  say(fmt::format("{} serves {} of {} ({}, {}), sizes at 1:{}", origin->url(), format_plural(origin->files(), "file"),
                  format_plural(chunks().size(), "chunk"), format_plural(datasets.size(), "dataset"),
                  format_bytes(origin->bytes()), options.scale));
  say(options.bytes_per_second > 0
          ? fmt::format("paced to {}/s (--pace 0: as fast as it goes); one file in ten misbehaves",
                        format_bytes(options.bytes_per_second))
          : "not paced; one file in ten misbehaves");
  const std::uint64_t room = std::filesystem::space(directory.path()).available;
  if (room < origin->bytes() + origin->bytes() / 4) {
    throw DemoStopped(fmt::format("{} has {} left, which is too little: see --scale, or set TMPDIR",
                                  directory.path().string(), format_bytes(room)));
  }
  // Delays of a demonstration: what is gone for a moment is asked for again after seconds, not minutes.
  manager_options.min_backoff = std::chrono::milliseconds(200);
  manager_options.max_backoff = std::chrono::seconds(2);
}

std::chrono::nanoseconds Stage::open() {
  const auto start = std::chrono::steady_clock::now();
  service = std::make_unique<Service>(data_dir(), manager_options);
  const auto end = std::chrono::steady_clock::now();
  service->learn(manifest);
  progress_ = std::make_unique<Progress>(console, service->failures(), false);
  progress_->set_lookups([this](const garner::ChunkId& id) { return service->name_of(id); },
                         [this](const garner::ChunkId& id) { return service->manager().chunk_status(id); });
  return end - start;
}

void Stage::start_lookups() {
  lookups = std::make_unique<Lookups>(service->manager(), chunks(), options.threads, mix(options.seed));
}

void Stage::stop_lookups() {
  if (!lookups) return;
  looked_up.merge(lookups->stop());
  lookups.reset();
}

void Stage::heading(std::string_view text) { console.print(fmt::format("\n== {}", text), Style::bold); }

void Stage::check(bool holds, const std::string& what) {
  console.print(fmt::format("  {}  {}", holds ? "ok  " : "FAIL", what), holds ? Style::good : Style::bad);
  if (holds) {
    ++checks_held;
  } else {
    checks_failed.push_back(what);
  }
}

bool Stage::wait_until(const std::function<bool()>& done, std::chrono::seconds limit) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + limit;
  std::uint64_t lookups_before = lookups ? lookups->count() : 0;
  Clock::time_point counted = Clock::now();
  double per_second = 0;
  while (true) {
    const bool is_done = done();
    if (const auto now = Clock::now(); lookups && now - counted > std::chrono::milliseconds(500)) {
      const std::uint64_t count = lookups->count();
      per_second = static_cast<double>(count - lookups_before) / std::chrono::duration<double>(now - counted).count();
      lookups_before = count;
      counted = now;
    }
    Frame frame = service->frame();
    if (per_second > 0) frame.note = fmt::format("lookups {}/s", format_count(static_cast<std::uint64_t>(per_second)));
    progress_->update(std::move(frame));
    if (is_done || Clock::now() >= end) {
      progress_->finish();
      return is_done;
    }
    if (signals_.wait(std::chrono::milliseconds(20))) {
      progress_->finish();
      throw Interrupted();
    }
  }
}

std::optional<Stage::Pin> Stage::pin(const NamedChunk& chunk) const {
  for (Pin& found : service->manager().find_chunks(chunk.description.dataset_id, chunk.description.block_range)) {
    if (found.id() == chunk.description.id) return std::move(found);
  }
  return std::nullopt;
}

bool Stage::serves_exactly(const std::unordered_set<garner::ChunkId>& ids) const {
  const auto listed = service->manager().list_chunks();
  const bool same_list = listed.size() == ids.size() &&
                         std::all_of(listed.begin(), listed.end(), [&](const auto& id) { return ids.contains(id); });
  return same_list && std::all_of(chunks().begin(), chunks().end(), [&](const NamedChunk& chunk) {
           const bool expected = ids.contains(chunk.description.id);
           const auto found =
               service->manager().find_chunk(chunk.description.dataset_id, chunk.description.block_range.begin);
           return pin(chunk).has_value() == expected && (found.has_value() || !expected);
         });
}

bool Stage::is_intact(const NamedChunk& chunk, const std::filesystem::path& path, std::uint64_t& bytes) const {
  return std::all_of(chunk.description.files.begin(), chunk.description.files.end(), [&](const auto& file) {
    std::uint64_t size = 0;
    const auto digest = digest_file(path / file.first, size);
    bytes += size;
    return digest.has_value() && digest == file.second.digest && size == file.second.size;
  });
}

}  // namespace worker
