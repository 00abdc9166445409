// SPDX-License-Identifier: BSL-1.0
//
// A state machine on a bench: calls and reports go in, and the actions that come out are read as one line of text. For
// the tests of the chunk table.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/served_copies.hpp"
#include "garner/core/chunk_table.hpp"

namespace garner::test {

/// A description; `name` is its id, `version` its content.
inline DataChunk describe(const std::string& name, int version = 1, std::size_t files = 1, std::size_t mirrors = 1) {
  DataChunk chunk;
  chunk.id = ChunkId::from_name(name);
  chunk.dataset_id = DatasetId::from_name("dataset");
  chunk.block_range = {0, 10};
  for (std::size_t f = 0; f < files; ++f) {
    FileSource source;
    for (std::size_t m = 0; m < mirrors; ++m) {
      source.urls.push_back("mem://" + std::to_string(m) + "/" + name + "/" + std::to_string(version) + "/" +
                            std::to_string(f));
    }
    chunk.files["f" + std::to_string(f)] = source;
  }
  return chunk;
}

/// Actions are written as "stage 1, start 1 f0@0 (1)": generations by number, transfers in brackets, mirrors behind the
/// at-sign. Events are kept apart.
class TableBench {
 public:
  explicit TableBench(const Options& options = {}) : table(options, 1) {}

  core::ChunkTable table;
  std::chrono::nanoseconds now{};
  std::vector<Event> events;
  FetchLimits limits;                    ///< as they were told last
  std::vector<std::uint64_t> condemned;  ///< generations whose pins were told that they are corrupt

  /// What was asked for since the last time.
  std::string asked() {
    std::string out;
    for (core::Action& action : std::exchange(table.actions(), {})) {
      std::string text = std::visit([this](auto& todo) { return note(todo); }, action);
      if (text.empty()) continue;
      out += out.empty() ? text : ", " + text;
    }
    return out;
  }

  /// The kinds of the events since the last time, for instance "ready 1, failed 2".
  std::string told() {
    asked();
    std::string out;
    for (const Event& event : std::exchange(events, {})) {
      out += (out.empty() ? "" : ", ") + std::string(to_string(event.kind)) + " " + std::to_string(event.generation);
    }
    return out;
  }

  // ---- calls; each returns what it led to

  std::string want(const DataChunk& chunk) {
    table.download(core::Wish(chunk), now);
    return asked();
  }
  std::string unwant(const std::string& name) {
    table.remove(ChunkId::from_name(name), now);
    return asked();
  }
  std::string assign(const std::vector<DataChunk>& chunks) {
    table.assign(std::vector<core::Wish>(chunks.begin(), chunks.end()), now);
    return asked();
  }
  std::string verify(const std::vector<std::string>& names) {
    std::vector<ChunkId> ids;
    ids.reserve(names.size());
    for (const std::string& name : names) ids.push_back(ChunkId::from_name(name));
    std::sort(ids.begin(), ids.end());
    table.verify(ids, now);
    return asked();
  }
  /// What is listed, for a pass that the table has begun by itself.
  std::string held(const std::vector<std::string>& names) {
    std::vector<ChunkId> ids;
    ids.reserve(names.size());
    for (const std::string& name : names) ids.push_back(ChunkId::from_name(name));
    std::sort(ids.begin(), ids.end());
    table.held(ids, now);
    return asked();
  }
  std::string set_options(Options options) {
    table.set_options(options, now);
    return asked();
  }
  std::string close() {
    table.close(now);
    return asked();
  }
  /// Lets the time come at which the table wants to be woken; "asleep" where there is none.
  std::string wake() {
    const auto at = table.next_wake();
    if (!at) return "asleep";
    now = std::max(now, *at);
    table.woken(now);
    return asked();
  }

  // ---- reports

  std::string staged(std::uint64_t number, std::error_code error = {}) {
    table.staged(chunks_.at(number)->id, outcome(error), now);
    return asked();
  }
  std::string done(core::TransferId transfer, std::error_code error = {},
                   std::optional<std::chrono::nanoseconds> retry_after = std::nullopt) {
    core::Outcome result = outcome(error);
    result.retry_after = retry_after;
    table.file_done(chunks_.at(transfers_.at(transfer))->id, transfer, result, now);
    return asked();
  }
  /// With `moved` bytes in `took`.
  std::string done_at(core::TransferId transfer, std::uint64_t moved, std::chrono::nanoseconds took) {
    core::Outcome result;
    result.bytes = moved;
    result.took = took;
    table.file_done(chunks_.at(transfers_.at(transfer))->id, transfer, result, now);
    return asked();
  }
  std::string refreshed(core::TransferId transfer, const std::optional<FileSource>& source,
                        std::error_code error = {}) {
    table.refreshed(chunks_.at(transfers_.at(transfer))->id, transfer, source, outcome(error), now);
    return asked();
  }
  std::string answered(core::TransferId transfer) {
    table.answered(chunks_.at(transfers_.at(transfer))->id, transfer, now);
    return asked();
  }
  bool sized(core::TransferId transfer, std::uint64_t bytes) {
    return table.sized(chunks_.at(transfers_.at(transfer))->id, transfer, bytes, now);
  }
  std::string measured(std::uint64_t free, std::uint64_t staged) {
    table.measured({0, free}, staged, now);
    return asked();
  }
  std::string published(std::uint64_t number, std::error_code error = {}) {
    table.published(chunks_.at(number)->id, error ? Generation() : generation(number), outcome(error), now);
    return asked();
  }
  std::string discarded(std::uint64_t number, std::error_code error = {}) {
    table.discarded(chunks_.at(number)->id, outcome(error), now);
    return asked();
  }
  std::string cleaned_up(std::error_code error = {}) {
    table.cleaned_up(outcome(error), now);
    return asked();
  }
  std::string drained(std::uint64_t number) {
    table.drained(generation(number), now);
    return asked();
  }
  /// "withdrawn", where it is, and what that leads to.
  std::string about_to_doom(std::uint64_t number) {
    const bool is_withdrawn = table.withdraw_doom(generation(number), now);
    const std::string next = asked();
    return is_withdrawn ? "withdrawn: " + next : next;
  }
  std::string doomed(std::uint64_t number, std::error_code error = {}) {
    table.doomed(generation(number), outcome(error), now);
    return asked();
  }
  std::string spared(std::uint64_t number, std::error_code error = {}) {
    table.spared(generation(number), outcome(error), now);
    return asked();
  }
  std::string removed(std::uint64_t number, std::error_code error = {}) {
    table.removed(generation(number), outcome(error), now);
    return asked();
  }
  std::string described(std::uint64_t number, const std::optional<DataChunk>& chunk,
                        std::error_code error = errc::corrupt_chunk) {
    table.described(generation(number), chunk ? core::Outcome() : outcome(error), chunk, now);
    return asked();
  }
  std::string verified(std::uint64_t number, std::error_code error = {}, const std::optional<DataChunk>& chunk = {}) {
    table.verified(generation(number), outcome(error), chunk, now);
    return asked();
  }

  /// Found in the store at the start.
  std::string recovered(const DataChunk& chunk, std::uint64_t number) {
    chunks_[number] = std::make_shared<const DataChunk>(chunk);
    table.recovered(generation(number));
    return asked();
  }
  /// All of it was told.
  std::string recovery_done() {
    table.recovery_done({}, {});
    return asked();
  }

  /// Two volumes; generations of a number from 1000 to 4999 are on the second.
  void two_volumes(VolumeState second = VolumeState::healthy, std::uint64_t openings = 1) {
    table.volumes_are(volumes(second, openings));
  }
  static std::vector<VolumeStatus> volumes(VolumeState second, std::uint64_t openings = 1) {
    return {{"/one", VolumeState::healthy, 0, 0, 1}, {"/two", second, 0, 0, openings}};
  }
  std::string examined(VolumeState second, std::uint64_t openings = 1) {
    table.examined(volumes(second, openings), now);
    return asked();
  }
  std::string found(const DataChunk& chunk, std::uint64_t number) {
    chunks_[number] = std::make_shared<const DataChunk>(chunk);
    table.found(generation(number), now);
    return asked();
  }

  // ---- short cuts

  /// Wants a chunk of one file and answers all until it is ready. Nothing else is under way.
  void make_ready(const DataChunk& chunk) {
    want(chunk);
    const std::uint64_t number = last_generation;
    staged(number);
    for (std::size_t i = 0; i < chunk.files.size(); ++i) done(last_transfer - chunk.files.size() + 1 + i);
    published(number);
  }

  [[nodiscard]] Generation generation(std::uint64_t number) const {
    const DataChunk& chunk = *chunks_.at(number);
    return {chunk.id, chunk.dataset_id, chunk.block_range, 100, number, number >= 1000 && number < 5000 ? 1U : 0U};
  }
  [[nodiscard]] ChunkStatus status_of(const std::string& name) const {
    return table.chunk_status(ChunkId::from_name(name), now).value();
  }
  [[nodiscard]] ChunkState state_of(const std::string& name) const { return status_of(name).state; }
  [[nodiscard]] bool knows(const std::string& name) const {
    return table.chunk_status(ChunkId::from_name(name), now).has_value();
  }
  [[nodiscard]] Status status() const {
    Status status;
    table.fill(status);
    return status;
  }

  std::uint64_t last_generation = 0;
  core::TransferId last_transfer = 0;

 private:
  static core::Outcome outcome(std::error_code error) { return {error, error ? "subject" : "", std::nullopt}; }

  std::string note(const core::action::Stage& todo) {
    chunks_[todo.number] = todo.chunk;
    last_generation = todo.number;
    return "stage " + std::to_string(todo.number);
  }
  std::string note(const core::action::StartFile& todo) {
    transfers_[todo.transfer] = todo.number;
    last_transfer = todo.transfer;
    return "start " + std::to_string(todo.number) + " " + *todo.name + "@" + std::to_string(todo.url) + " (" +
           std::to_string(todo.transfer) + ")";
  }
  std::string note(const core::action::Limit& todo) {
    limits = todo.limits;
    return "";
  }
  std::string note(const core::action::Refresh& todo) {
    return "refresh " + *todo.name + " (" + std::to_string(todo.transfer) + ")";
  }
  std::string note(const core::action::StopFile& todo) { return "stop (" + std::to_string(todo.transfer) + ")"; }
  std::string note(const core::action::Publish& todo) { return "publish " + std::to_string(todo.number); }
  std::string note(const core::action::Discard& todo) { return "discard " + std::to_string(todo.number); }
  std::string note(const core::action::ListHeld&) { return "list held"; }
  std::string note(const core::action::FreeIds&) { return ""; }
  std::string note(const core::action::CleanUp&) { return "clean up"; }
  std::string note(const core::action::Examine&) { return "examine"; }
  std::string note(const core::action::Doom& todo) { return "doom " + std::to_string(todo.generation.number); }
  std::string note(const core::action::Spare& todo) { return "spare " + std::to_string(todo.generation.number); }
  std::string note(const core::action::Remove& todo) { return "remove " + std::to_string(todo.generation.number); }
  std::string note(const core::action::Quarantine& todo) {
    return "quarantine " + std::to_string(todo.generation.number);
  }
  std::string note(const core::action::Describe& todo) { return "describe " + std::to_string(todo.generation.number); }
  std::string note(const core::action::Verify& todo) {
    const std::string number = std::to_string(todo.generation.number);
    return (todo.depth == VerifyDepth::sizes ? "verify sizes " : "verify ") + number;
  }
  std::string note(const core::action::List& todo) {
    table.served(served_.of(todo.generation));
    return "list " + std::to_string(todo.generation.number);
  }
  std::string note(const core::action::Unlist& todo) { return "unlist " + std::to_string(todo.generation.number); }
  std::string note(const core::action::Condemn& todo) {
    condemned.push_back(todo.generation.number);
    return "";
  }
  std::string note(const Event& event) {
    events.push_back(event);
    return "";
  }

  ServedCopies served_;
  std::map<std::uint64_t, std::shared_ptr<const DataChunk>> chunks_;
  std::map<core::TransferId, std::uint64_t> transfers_;
};

}  // namespace garner::test
