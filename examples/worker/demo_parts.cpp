// SPDX-License-Identifier: BSL-1.0
//
// The parts of the demonstration: what is done, and what must then be so.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "demo_stage.hpp"
#include "text.hpp"

namespace worker {

namespace {

using Ids = std::unordered_set<garner::ChunkId>;

/// A chunk that was deleted while it was pinned.
struct Pinned {
  const NamedChunk* chunk;
  Stage::Pin pin;
};

bool all_intact(const Stage& stage, const std::vector<Pinned>& pins, DemoResults& results) {
  return std::all_of(pins.begin(), pins.end(), [&](const Pinned& pinned) {
    results.verified_files += pinned.chunk->description.files.size();
    return stage.is_intact(*pinned.chunk, pinned.pin.path(), results.verified_bytes);
  });
}

Ids all_ids(const Stage& stage) {
  Ids ids;
  for (const NamedChunk& chunk : stage.chunks()) ids.insert(chunk.description.id);
  return ids;
}

std::uint64_t bytes_of(const Stage& stage) {
  std::uint64_t bytes = 0;
  for (const NamedChunk& chunk : stage.chunks()) {
    for (const auto& [name, source] : chunk.description.files) bytes += source.size.value_or(0);
  }
  return bytes;
}

/// Deletes every tenth chunk under a pin, and the one after it without. Returns the pins.
std::vector<Pinned> delete_under_pins(Stage& stage, Ids& held, DemoResults& results) {
  stage.heading("Deleting chunks, half of them pinned");
  std::vector<Pinned> pins;
  std::vector<std::filesystem::path> unpinned;
  const auto& chunks = stage.chunks();
  for (std::size_t i = 0; i + 1 < chunks.size(); i += 10) {
    auto kept = stage.pin(chunks[i]);
    const auto other = stage.pin(chunks[i + 1]);
    if (!kept || !other) throw DemoStopped("a chunk that was fetched is not found");
    pins.push_back({&chunks[i], std::move(*kept)});
    unpinned.push_back(other->path());
  }
  for (std::size_t i = 0; i + 1 < chunks.size(); i += 10) {
    for (const NamedChunk& chunk : {std::cref(chunks[i]), std::cref(chunks[i + 1])}) {
      stage.service->manager().delete_chunk(chunk.description.id);
      stage.lookups->expect_deleted(chunk.description.id);
      held.erase(chunk.description.id);
    }
  }
  results.deleted = 2 * pins.size();
  results.deleted_pinned = pins.size();
  stage.check(stage.serves_exactly(held),
              fmt::format("none of the {} deleted chunks is found or listed", results.deleted));
  stage.check(stage.wait_converged(), "the store converges, with the pins held");
  const auto gone = [](const std::filesystem::path& path) { return !std::filesystem::exists(path); };
  stage.check(std::all_of(unpinned.begin(), unpinned.end(), gone), "the directories of the unpinned ones are gone");
  const garner::Status status = stage.service->manager().status();
  stage.check(status.draining == pins.size(), fmt::format("{} draining", status.draining));
  stage.check(all_intact(stage, pins, results), "the pinned ones' files are where they were, byte for byte");
  return pins;
}

void revive(Stage& stage, Ids& held, const Pinned& pinned) {
  const auto received = stage.service->manager().status().bytes_received;
  const garner::DataChunk& description = pinned.chunk->description;
  stage.lookups->expect_any(description.id);
  stage.service->manager().download_chunk(description);
  held.insert(description.id);
  const auto found = stage.pin(*pinned.chunk);
  stage.check(found && found->path() == pinned.pin.path(),
              "one that is wanted again is back at once, in the same place");
  stage.check(stage.service->manager().status().bytes_received == received, "for which no byte was received");
}

/// Drops all pins but two.
void drop_pins(Stage& stage, const Ids& held, std::vector<Pinned>& pins, DemoResults& results) {
  stage.heading("Dropping the pins, all but two");
  std::vector<std::filesystem::path> paths;
  for (std::size_t i = 2; i < pins.size(); ++i) {
    if (!held.contains(pins[i].chunk->description.id)) paths.push_back(pins[i].pin.path());
  }
  pins.erase(pins.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(pins.size(), 2)), pins.end());
  const auto all_gone = [&paths] {
    return std::none_of(paths.begin(), paths.end(), [](const auto& path) { return std::filesystem::exists(path); });
  };
  stage.check(stage.wait_until(all_gone), fmt::format("{} more removed", paths.size()));
  const auto still = static_cast<std::size_t>(std::count_if(
      pins.begin(), pins.end(), [&](const Pinned& pinned) { return !held.contains(pinned.chunk->description.id); }));
  results.pinned_at_close = still;
  stage.check(stage.wait_until([&] { return stage.service->manager().status().draining == still; }),
              fmt::format("{} still draining", still));
  stage.check(stage.serves_exactly(held), fmt::format("the other {} are served", held.size()));
}

void restart(Stage& stage, const Ids& held, std::vector<Pinned>& pins, DemoResults& results) {
  stage.heading("Closing, and starting again on the same directory");
  stage.stop_lookups();
  stage.service->manager().close();
  stage.check(stage.serves_exactly(held), "lookups go on after the close");
  stage.service.reset();
  stage.check(all_intact(stage, pins, results),
              fmt::format("the manager is gone, and {} are still whole", format_plural(pins.size(), "pinned chunk")));
  try {
    stage.open();
    stage.check(false, "the directory stays locked as long as there are pins");
  } catch (const garner::Error& error) {
    stage.check(error.code() == garner::errc::directory_in_use, "the directory stays locked as long as there are pins");
  }
  pins.clear();
  results.recovery_time = stage.open();
  results.recovered = stage.service->manager().list_chunks().size();
  stage.say(
      fmt::format("found {} in {}", format_plural(results.recovered, "chunk"), format_duration(results.recovery_time)));
  stage.check(stage.serves_exactly(held), "the same chunks are found as before, and none that was deleted under a pin");
  std::vector<NamedChunk> wanted;
  for (const NamedChunk& chunk : stage.chunks()) {
    if (held.contains(chunk.description.id)) wanted.push_back(chunk);
  }
  stage.service->assign(wanted);
  stage.check(stage.wait_converged(), "they are assigned again, and the store converges");
  stage.check(stage.service->manager().status().bytes_received == 0, "without one byte received");
}

/// Changes the first byte of one of the chunk's files where it lies, as a bad disk would.
void spoil(const std::filesystem::path& directory, const NamedChunk& chunk) {
  for (const auto& [name, source] : chunk.description.files) {
    if (source.size == 0) continue;
    const std::filesystem::path path = directory / name;
    std::filesystem::permissions(path, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const int byte = file.get();
    file.seekp(0);
    file.put(static_cast<char>(byte ^ 1));
    if (!file.flush()) throw DemoStopped(fmt::format("{} cannot be changed", path.string()));
    return;
  }
}

/// The manager is to find the bad byte, stop serving the chunk, and fetch it anew.
void heal(Stage& stage, const NamedChunk& chunk) {
  stage.heading("A disk that changes a byte");
  const std::filesystem::path path = stage.pin(chunk)->path();
  spoil(path, chunk);
  std::uint64_t bytes = 0;
  stage.check(!stage.is_intact(chunk, path, bytes), fmt::format("{} is spoiled where it lies", chunk.name));
  const std::uint64_t published = stage.service->manager().status().chunks_published;
  stage.service->manager().verify();
  const bool healed = stage.wait_until([&] {
    const garner::Status status = stage.service->manager().status();
    return status.chunks_published > published && status.converged;
  });
  const auto pin = stage.pin(chunk);
  stage.check(healed && pin && pin->path() != path && stage.is_intact(chunk, pin->path(), bytes),
              "verify() finds it, and it is fetched anew");
}

}  // namespace

void fetch_under_lookups(Stage& stage, DemoResults& results) {
  stage.heading(fmt::format("Fetching {} while {} look them up", format_plural(stage.chunks().size(), "chunk"),
                            format_plural(stage.options.threads, "thread")));
  stage.open();
  stage.start_lookups();
  const auto start = std::chrono::steady_clock::now();
  stage.service->assign(stage.chunks());
  if (!stage.wait_converged()) throw DemoStopped("the store did not converge");
  results.fetch_time = std::chrono::steady_clock::now() - start;
  results.fetched = stage.service->manager().status();
  stage.check(results.fetched.ready == stage.chunks().size(), "every chunk is ready");
  stage.check(stage.serves_exactly(all_ids(stage)), "each is listed, and each is found by its blocks");
  std::uint64_t faults = 0;
  for (std::size_t kind = 1; kind < fault_kinds; ++kind) faults += stage.origin->faults(static_cast<Fault>(kind));
  stage.check(results.fetched.bytes_ready == bytes_of(stage),
              fmt::format("in spite of {} they have all their bytes", format_plural(faults, "fault")));
}

void delete_and_restart(Stage& stage, DemoResults& results) {
  Ids held = all_ids(stage);
  std::vector<Pinned> pins = delete_under_pins(stage, held, results);
  revive(stage, held, pins.back());
  drop_pins(stage, held, pins, results);
  restart(stage, held, pins, results);
}

void verify_and_heal(Stage& stage, DemoResults& results) {
  stage.heading("Reading back");
  stage.start_lookups();
  // A sample, so that this does not take longer than the fetch did: at most half a gigabyte.
  constexpr std::uint64_t sample = 500'000'000;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  bool intact = true;
  const NamedChunk* victim = nullptr;
  for (const NamedChunk& chunk : stage.chunks()) {
    if (bytes >= sample) break;
    const auto pin = stage.pin(chunk);
    if (!pin) continue;
    intact = stage.is_intact(chunk, pin->path(), bytes) && intact;
    files += chunk.description.files.size();
    if (pin->bytes() > 0) victim = &chunk;
  }
  results.verified_files += files;
  results.verified_bytes += bytes;
  stage.check(intact && files > 0, fmt::format("{} with {} have the digests of what the origin serves",
                                               format_plural(files, "file"), format_bytes(bytes)));
  if (victim != nullptr) heal(stage, *victim);
}

}  // namespace worker
