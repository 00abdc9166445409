// SPDX-License-Identifier: BSL-1.0
//
// The state machine under random calls and random reports, each legal where it comes, against a model that knows only
// what was asked for last. A seed replays.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/served_copies.hpp"
#include "core/table_bench.hpp"
#include "garner/core/chunk_table.hpp"

namespace {

using garner::DataChunk;
using garner::errc;
using garner::FileSource;
using garner::Generation;
using garner::Options;
using garner::core::Outcome;
using garner::core::Random;
namespace action = garner::core::action;
using namespace std::chrono_literals;

constexpr int names = 5;

constexpr int versions = 3;

/// Made once: ids are digests.
const DataChunk& describe(int name, int version) {
  static const std::vector<DataChunk> all = [] {
    std::vector<DataChunk> out;
    for (int n = 0; n < names; ++n) {
      for (int v = 0; v < versions; ++v) {
        out.push_back(garner::test::describe("c" + std::to_string(n), v, 1 + static_cast<std::size_t>(v),
                                             1 + static_cast<std::size_t>(n) % 2));
      }
    }
    return out;
  }();
  const int index = name * versions + version;
  return all.at(static_cast<std::size_t>(index));
}

/// What the store and the network know of one generation.
struct Held {
  int name = 0;
  std::uint64_t asked = 0;  ///< as it was listed
  int version = 0;
  enum class State { staging, staged, publishing, published, discarding, removing } state = State::staging;
  std::set<std::uint64_t> moving;  // transfers
  std::set<std::string> done;      // files
  bool busy = false;               // an operation of the store is under way
  bool listed = false;
  bool ever_listed = false;
  bool doomed = false;
  int pins = 0;
  bool drain_due = false;  // nobody holds it, and that is still to be told
  bool drained = false;    // it was told
  bool unchecked = false;  // found by the start, and not known to be whole
  bool corrupt = false;
};

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed), options_(random_options()), table_(options_, seed) {
    if (below(2) == 0) recover();
    for (int step = 0; step < 120; ++step) {
      if (below(3) == 0) {
        call();
      } else {
        report();
      }
      look();
    }
    come_to_rest();
    close();
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_.next() % n; }
  bool chance(std::uint64_t of_hundred) { return below(100) < of_hundred; }

  Options random_options() {
    Options options;
    options.max_concurrent_chunks = 1 + below(4);
    options.max_concurrent_files = 1 + below(4);
    options.max_files_per_host = 1 + below(4);
    if (chance(50)) options.refresh = [](const DataChunk&, const std::string&) { return FileSource(); };
    options.revive = chance(80);
    options.startup_check = chance(50) ? garner::StartupCheck::names : garner::StartupCheck::digests;
    options.max_concurrent_checks = 1 + below(2);
    options.scrub_interval = chance(50) ? 1s : 0s;
    options.scrub_bytes_per_second = below(2) * 5;
    return options;
  }

  static garner::ChunkId id_of(int name) { return describe(name, 0).id; }

  Generation generation(std::uint64_t number) const {
    const DataChunk& chunk = describe(held_.at(number).name, held_.at(number).version);
    return {chunk.id, chunk.dataset_id, chunk.block_range, 7, number};
  }

  // ---- inputs

  void recover() {
    for (std::uint64_t number = 1 + below(3); number < 8; number += 1 + below(3)) {
      Held held;
      held.name = static_cast<int>(below(names));
      held.version = static_cast<int>(below(versions));
      held.state = Held::State::published;
      held.unchecked = options_.startup_check != garner::StartupCheck::names;
      held_[number] = held;
      // The newest of each serves.
      desired_[held.name] = held.version;
      table_.recovered(generation(number));
      perform();
    }
    table_.recovery_done({{}, {}, 10, false}, {});
    perform();
    last_number_ = 10;
    look();
  }

  void call() {
    const int name = static_cast<int>(below(names));
    const int version = static_cast<int>(below(versions));
    switch (below(12)) {
      case 0: {
        std::map<int, int> assigned;
        for (int n = 0; n < names; ++n) {
          if (chance(50)) assigned[n] = static_cast<int>(below(versions));
        }
        std::vector<garner::core::Wish> wishes;
        wishes.reserve(assigned.size());
        for (const auto& [n, v] : assigned) wishes.emplace_back(describe(n, v));
        table_.assign(wishes, now_);
        desired_ = assigned;
        break;
      }
      case 1: {
        options_ = random_options();
        Options options = options_;
        table_.set_options(options, now_);
        break;
      }
      case 2: {
        std::vector<garner::ChunkId> all;
        all.reserve(names);
        for (int n = 0; n < names; ++n) all.push_back(id_of(n));
        std::sort(all.begin(), all.end());
        table_.verify(all, now_);
        break;
      }
      case 3:
      case 4:
      case 5:
      case 6:
        table_.remove(id_of(name), now_);
        desired_.erase(name);
        break;
      default: table_.download(garner::core::Wish(describe(name, version)), now_); desired_[name] = version;
    }
    perform();
  }

  /// Somebody pins, somebody lets go, an action ends, or the time comes.
  void report() {
    switch (below(6)) {
      case 0: return pin();
      case 1: return unpin();
      case 2: return wake();
      default: break;
    }
    if (pending_.empty()) return;
    answer(below(pending_.size()));
  }

  void pin() {
    for (auto& [number, held] : held_) {
      if (held.listed && chance(30)) ++held.pins;
    }
  }

  void unpin() {
    for (auto& [number, held] : held_) {
      if (held.pins > 0 && chance(50) && --held.pins == 0 && !held.listed) held.drain_due = true;
      if (!held.drain_due || chance(30)) continue;
      held.drain_due = false;
      held.drained = true;
      table_.drained(generation(number), now_);
      perform();
      return;  // what was asked for may have changed the map
    }
  }

  void wake() {
    const auto at = table_.next_wake();
    if (!at) return;
    now_ = std::max(now_, *at);
    table_.woken(now_);
    perform();
  }

  Outcome fault() {
    static constexpr errc errors[] = {errc::timed_out,          errc::not_found,   errc::digest_mismatch,
                                      errc::no_space,           errc::io_error,    errc::cancelled,
                                      errc::server_unavailable, errc::server_busy, errc::credentials_rejected};
    if (!faults_ || !chance(25)) return {};
    return {errors[below(std::size(errors))], "fault", std::nullopt};
  }

  /// Each answer is one that a store or a network could give.
  void answer(std::size_t at) {
    const garner::core::Action task = pending_[at];
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(at));
    std::visit([this](const auto& what) { answer(what); }, task);
    perform();
  }

  void answer(const action::Stage& task) {
    const Outcome outcome = fault();
    const auto id = task.chunk->id;
    if (outcome.ok()) {
      held_.at(task.number).state = Held::State::staged;
    } else {
      held_.erase(task.number);
    }
    table_.staged(id, outcome, now_);
  }
  void answer(const action::StartFile& task) {
    Held& held = held_.at(task.number);
    held.moving.erase(task.transfer);
    --transfers_;
    Outcome outcome = fault();
    if (outcome.ok() && stopped_.contains(task.transfer) && chance(80)) outcome.error = errc::cancelled;
    if (outcome.ok()) held.done.insert(*task.name);
    table_.file_done(task.chunk->id, task.transfer, outcome, now_);
  }
  void answer(const action::Refresh& task) {
    held_.at(task.number).moving.erase(task.transfer);
    const bool is_found = !faults_ || chance(70);
    const std::optional<FileSource> source = is_found ? std::optional(task.chunk->files.at(*task.name)) : std::nullopt;
    Outcome outcome;
    if (!is_found) outcome.error = errc::refresh_failed;
    table_.refreshed(task.chunk->id, task.transfer, source, outcome, now_);
  }
  void answer(const action::Publish& task) {
    Held& held = held_.at(task.number);
    const Outcome outcome = fault();
    held.state = outcome.ok() ? Held::State::published : Held::State::staged;
    table_.published(task.id, outcome.ok() ? generation(task.number) : Generation(), outcome, now_);
  }
  void answer(const action::Discard& task) {
    held_.erase(task.number);
    table_.discarded(task.id, fault(), now_);
  }
  void answer(const action::Examine&) { REQUIRE(false); }
  void answer(const action::CleanUp&) { table_.cleaned_up(fault(), now_); }
  void answer(const action::Doom& task) {
    Held& held = end_operation(task.generation);
    if (table_.withdraw_doom(task.generation, now_)) return;
    const Outcome outcome = fault();
    // One that failed may have made its marker.
    held.doomed = held.doomed || outcome.ok() || chance(50);
    table_.doomed(task.generation, outcome, now_);
  }
  void answer(const action::Spare& task) {
    Held& held = end_operation(task.generation);
    const Outcome outcome = fault();
    held.doomed = held.doomed && !outcome.ok();
    table_.spared(task.generation, outcome, now_);
  }
  void answer(const action::Remove& task) {
    end_operation(task.generation);
    const Outcome outcome = fault();
    if (outcome.ok()) held_.erase(task.generation.number);
    table_.removed(task.generation, outcome, now_);
  }
  void answer(const action::Quarantine& task) { answer(action::Remove{task.generation}); }
  void answer(const action::Describe& task) {
    const Held& held = end_operation(task.generation);
    std::optional<DataChunk> chunk = describe(held.name, held.version);
    const Outcome outcome = fault();
    if (!outcome.ok()) chunk.reset();
    table_.described(task.generation, outcome, chunk, now_);
  }
  void answer(const action::Verify& task) {
    Held& held = end_operation(task.generation);
    Outcome outcome;
    if (faults_ && chance(20)) outcome.error = chance(50) ? errc::corrupt_chunk : errc::io_error;
    held.unchecked = held.unchecked && !outcome.ok();
    held.corrupt = held.corrupt || outcome.error == errc::corrupt_chunk;
    const DataChunk& chunk = describe(held.name, held.version);
    table_.verified(task.generation, outcome, chunk, now_);
  }
  void answer(const action::ListHeld&) {
    std::vector<garner::ChunkId> all;
    for (const auto& [number, held] : held_) {
      if (held.listed) all.push_back(id_of(held.name));
    }
    std::sort(all.begin(), all.end());
    table_.held(all, now_);
  }
  void answer(const action::Limit&) {}
  void answer(const action::StopFile&) {}
  void answer(const action::FreeIds&) {}
  void answer(const action::Condemn&) {}
  void answer(const action::List&) {}
  void answer(const action::Unlist&) {}
  void answer(const garner::Event&) {}

  Held& end_operation(const Generation& of) {
    Held& held = held_.at(of.number);
    REQUIRE(held.busy);
    held.busy = false;
    return held;
  }

  // ---- what is asked for, each with what must hold before it

  void perform() {
    for (garner::core::Action& task : std::exchange(table_.actions(), {})) {
      std::visit([this](const auto& what) { asked(what); }, task);
      const bool reported =
          !std::holds_alternative<action::Limit>(task) && !std::holds_alternative<action::StopFile>(task) &&
          !std::holds_alternative<action::FreeIds>(task) && !std::holds_alternative<action::List>(task) &&
          !std::holds_alternative<action::Unlist>(task) && !std::holds_alternative<action::Condemn>(task) &&
          !std::holds_alternative<garner::Event>(task);
      if (reported) pending_.push_back(std::move(task));
    }
  }

  void asked(const action::Stage& task) {
    REQUIRE_FALSE(closed_);
    REQUIRE(task.number > last_number_);
    last_number_ = task.number;
    Held held;
    for (held.name = 0; id_of(held.name) != task.chunk->id;) ++held.name;
    for (held.version = 0; !(describe(held.name, held.version) == *task.chunk);) ++held.version;
    held_[task.number] = held;
  }
  void asked(const action::StartFile& task) {
    REQUIRE_FALSE(closed_);
    REQUIRE(task.transfer > last_transfer_);
    last_transfer_ = task.transfer;
    Held& held = held_.at(task.number);
    REQUIRE(held.state == Held::State::staged);
    REQUIRE_FALSE(held.done.contains(*task.name));
    REQUIRE(task.url < task.source->urls.size());
    held.moving.insert(task.transfer);
    ++transfers_;
    REQUIRE(transfers_ <= options_.max_concurrent_files);
  }
  void asked(const action::Refresh& task) {
    REQUIRE_FALSE(closed_);
    Held& held = held_.at(task.number);
    REQUIRE(held.state == Held::State::staged);
    REQUIRE_FALSE(held.done.contains(*task.name));
    held.moving.insert(task.transfer);
  }
  void asked(const action::FreeIds&) {}
  void asked(const action::Limit&) {}
  void asked(const action::StopFile& task) { stopped_.insert(task.transfer); }
  void asked(const action::Publish& task) {
    Held& held = held_.at(task.number);
    REQUIRE(held.state == Held::State::staged);
    REQUIRE(held.moving.empty());
    REQUIRE(held.done.size() == describe(held.name, held.version).files.size());
    held.state = Held::State::publishing;
  }
  void asked(const action::Discard& task) {
    Held& held = held_.at(task.number);
    REQUIRE(held.state == Held::State::staged);
    REQUIRE(held.moving.empty());
    held.state = Held::State::discarding;
  }
  void asked(const action::Examine&) { REQUIRE(false); }  // there is one volume
  void asked(const action::CleanUp&) {
    REQUIRE_FALSE(closed_);
    for (const auto& task : pending_) REQUIRE_FALSE(std::holds_alternative<action::CleanUp>(task));
  }
  void begin_operation(const Generation& on) {
    Held& held = held_.at(on.number);
    REQUIRE(held.state == Held::State::published);
    REQUIRE_FALSE(held.busy);
    held.busy = true;
  }
  void asked(const action::Doom& task) { begin_operation(task.generation); }
  void asked(const action::Spare& task) { begin_operation(task.generation); }
  void asked(const action::Describe& task) { begin_operation(task.generation); }
  void asked(const action::Verify& task) { begin_operation(task.generation); }
  void asked(const action::ListHeld&) {
    REQUIRE_FALSE(closed_);
    for (const auto& task : pending_) REQUIRE_FALSE(std::holds_alternative<action::ListHeld>(task));
  }
  void asked(const action::Condemn& task) { REQUIRE(held_.contains(task.generation.number)); }
  void asked(const action::Remove& task) {
    REQUIRE_FALSE(closed_);
    begin_operation(task.generation);
    const Held& held = held_.at(task.generation.number);
    REQUIRE_FALSE(held.listed);
    REQUIRE(held.pins == 0);
    REQUIRE((held.drained || !held.ever_listed));
  }
  void asked(const action::Quarantine& task) { asked(action::Remove{task.generation}); }
  void asked(const action::List& task) {
    Held& held = held_.at(task.generation.number);
    REQUIRE(held.state == Held::State::published);
    REQUIRE_FALSE(held.listed);
    REQUIRE_FALSE((held.unchecked || held.corrupt));
    held.listed = held.ever_listed = true;
    held.drained = held.drain_due = false;  // the report is of an older listing
    held.asked = task.asked;
    table_.served(served_.of(task.generation));
  }
  void asked(const action::Unlist& task) {
    Held& held = held_.at(task.generation.number);
    REQUIRE(held.listed);
    REQUIRE(held.asked == task.asked);
    held.listed = false;
    held.drain_due = held.pins == 0;
  }
  void asked(const garner::Event&) {}

  // ---- what must hold after each step

  void look() {
    bool right = true;
    std::set<int> listed;
    for (const auto& [number, held] : held_) {
      if (!held.listed) continue;
      right = right && listed.insert(held.name).second;  // one copy of each
      right = right && desired_.contains(held.name);     // what was deleted last is not found
    }
    right = right && table_.idle() == pending_.empty();
    garner::Status status;
    table_.fill(status);
    right =
        right && status.ready + status.queued + status.downloading + status.waiting + status.parked + status.checking ==
                     desired_.size();
    for (int name = 0; name < names; ++name) {
      const auto known = table_.chunk_status(id_of(name), now_);
      right = right && (known && known->wanted) == desired_.contains(name);
      right = right && (known && known->served) == listed.contains(name);
    }
    right = right && (!table_.settled() || listed.size() == desired_.size());
    REQUIRE(right);
  }

  void come_to_rest() {
    faults_ = false;
    options_.scrub_interval = {};
    Options options = options_;
    table_.set_options(options, now_);
    perform();
    for (int round = 0; round < 10000; ++round) {
      if (!pending_.empty()) {
        answer(below(pending_.size()));
      } else if (std::any_of(held_.begin(), held_.end(),
                             [](const auto& h) { return h.second.pins > 0 || h.second.drain_due; })) {
        unpin();
      } else if (table_.next_wake()) {
        wake();
      } else {
        break;
      }
      look();
    }
    REQUIRE(pending_.empty());
    REQUIRE(table_.settled());
    std::map<int, int> served;
    for (const auto& [number, held] : held_) {
      REQUIRE(held.listed);
      REQUIRE_FALSE(held.doomed);
      served[held.name] = held.version;
    }
    REQUIRE(served == desired_);
  }

  void close() {
    faults_ = true;
    for (int step = 0; step < 15; ++step) chance(60) ? call() : report();
    table_.close(now_);
    closed_ = true;
    faults_ = false;
    perform();
    while (!pending_.empty()) answer(below(pending_.size()));
    REQUIRE(table_.idle());
    for (const auto& [number, held] : held_) {
      // What the next start would find is what was served.
      if (held.state == Held::State::published) REQUIRE(held.listed != held.doomed);
      REQUIRE(held.moving.empty());
    }
  }

  Random random_;
  Options options_;
  garner::test::ServedCopies served_;
  garner::core::ChunkTable table_;
  std::chrono::nanoseconds now_{};
  std::map<int, int> desired_;  // name -> version: the model
  std::map<std::uint64_t, Held> held_;
  std::vector<garner::core::Action> pending_;
  std::set<std::uint64_t> stopped_;
  std::uint64_t last_number_ = 0;
  std::uint64_t last_transfer_ = 0;
  std::size_t transfers_ = 0;  // under way
  bool faults_ = true;
  bool closed_ = false;
};

}  // namespace

TEST_CASE("whatever is called and reported, the last call about an id wins, and all rests in the end") {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    CAPTURE(seed);
    const World world(seed);
  }
}
