// SPDX-License-Identifier: BSL-1.0
//
// The store's protocol on a simulated disk: a crash at each operation, with many outcomes each, recovery from it, and
// a crash in that. And that these checks fail where the protocol leaves out any of its syncs.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/storage_contract.hpp"
#include "garner/simulation/sim_file_system.hpp"

namespace {

using garner::CrashMode;
using garner::Decisions;
using garner::errc;
using garner::ExhaustiveDecisions;
using garner::Generation;
using garner::SeededDecisions;
using garner::SimCall;
using garner::SimDisk;
using garner::SimDiskOptions;
using garner::SimFault;
using garner::SimFileSystem;
using garner::SimOperation;
using garner::SimStorage;
using garner::contract::bytes_of;
using garner::contract::chunk_of;

class OnSimDisk {
 public:
  SimStorage open() { return SimStorage(SimFileSystem(disk_)); }
  [[nodiscard]] std::optional<std::string> read(const SimStorage& store, const Generation& generation,
                                                const std::string& name) const {
    const std::string* const contents = disk_->contents(path_of(store, generation, name));
    return contents != nullptr ? std::optional(*contents) : std::nullopt;
  }
  void damage(const SimStorage& store, const Generation& generation, const std::string& name) {
    REQUIRE(disk_->corrupt(path_of(store, generation, name), 3));
  }

 private:
  static std::string path_of(const SimStorage& store, const Generation& generation, const std::string& name) {
    return (store.location(generation) / name).lexically_relative("/sim").string();
  }

  std::shared_ptr<SimDisk> disk_ = std::make_shared<SimDisk>();
};

TEST_CASE("SimStorage is a Storage") { garner::contract::storage_contract<OnSimDisk>(); }

using Files = std::map<std::string, std::string>;

/// What is known of a generation.
enum class Must { be_there, be_gone, be_either };
struct Fact {
  Must must = Must::be_either;
  Files files;
  Generation generation;  ///< where it was published once
  std::string described;  ///< `chunk.json`, where it was read once
};
using Facts = std::map<std::uint64_t, Fact>;  // by the generation's number

/// Counts operations, and does to one of them what it is told to.
class Hooks final : public garner::SimHooks {
 public:
  std::uint64_t count = 0;
  std::uint64_t crash_at = UINT64_MAX;
  std::optional<SimDisk> snapshot;  ///< of the disk when it ended
  std::function<SimFault(const SimCall&, std::uint64_t)> fault;
  std::function<bool(const SimCall&)> lie;  ///< whether this sync does nothing
  SimDisk* disk = nullptr;

  SimFault before(const SimCall& call) override {
    const std::uint64_t number = count++;
    if (number == crash_at) {
      snapshot.emplace(*disk);
      disk->kill();
      return {};
    }
    if (lie && lie(call)) return {{}, 0, true};
    return fault ? fault(call, number) : SimFault();
  }
};

std::string path_of(const Generation& generation) {
  return std::string(garner::store_layout::chunks_directory) + '/' +
         garner::store_layout::dataset_name(generation.dataset_id) + '/' + garner::store_layout::chunk_name(generation);
}

/// A process that uses a store, and what it may rely on. Errors are met and noted, and it goes on.
class Process {
 public:
  Process(std::shared_ptr<SimDisk> disk, Hooks& hooks, Facts facts)
      : disk_(std::move(disk)), hooks_(hooks), facts_(std::move(facts)) {
    start();
  }

  [[nodiscard]] const Facts& facts() const { return facts_; }
  [[nodiscard]] const std::vector<std::string>& problems() const { return problems_; }
  [[nodiscard]] bool dead() const { return disk_->dead(); }
  [[nodiscard]] const std::vector<Generation>& held() const { return held_; }
  SimDisk& disk() { return *disk_; }
  SimStorage& store() { return *store_; }

  void clean_up() {
    if (!store_) return;
    const std::error_code ec = store_->clean_up(garner::Partial::remove);
    if (!std::exchange(fresh_, false) || ec || faults_ || dead()) return;
    for (const auto& [path, contents] : disk_->tree()) {
      for (const std::string_view place : {"staging/", "trash/", "doomed/"}) {
        // Markers of this boot stay until the next: a failed sync may have lost what they are about.
        const bool kept = path == "doomed/boot" || (same_boot_ && path.starts_with("doomed/"));
        if (path.starts_with(place) && !kept) problem("left after the clean-up: " + path);
      }
    }
    std::uint64_t bytes = 0;
    for (const Generation& generation : held_) bytes += generation.bytes;
    if (store_->usage().bytes_used != bytes && !dead()) problem("bytes used are counted wrong");
  }

  std::optional<Generation> publish(const std::string& name, const Files& files, const std::string& dataset = "d") {
    if (!store_) return {};
    fresh_ = false;
    const std::uint64_t number = ++last_;
    facts_[number] = {Must::be_either, files, {}, {}};
    garner::DataChunk chunk = chunk_of(name, files);
    chunk.dataset_id = garner::DatasetId::from_name(dataset);
    std::error_code ec;
    auto staging = store_->stage(chunk, number, ec);
    if (ec) return {};
    for (const auto& [file_name, text] : files) {
      auto file = staging.open(file_name, ec);
      const std::size_t half = text.size() / 2;
      if (!ec) ec = file.write(bytes_of(std::string_view(text).substr(0, half)));
      if (!ec) ec = file.write(bytes_of(std::string_view(text).substr(half)));
      if (!ec) ec = file.finish();
      if (ec) break;
    }
    Generation generation;
    if (!ec) generation = store_->publish(staging, ec);
    if (ec) {
      store_->discard(staging);
      return {};
    }
    know(number, Must::be_there);
    facts_[number].generation = generation;
    held_.push_back(generation);
    check_durable(facts_[number]);
    return generation;
  }
  void stage_only(const std::string& name, const Files& files) {
    if (!store_) return;
    fresh_ = false;
    std::error_code ec;
    auto staging = store_->stage(chunk_of(name, files), ++last_, ec);
    if (!ec) staging.open(files.begin()->first, ec);
  }
  /// False where it may be called again.
  bool remove(const Generation& generation) {
    if (!store_) return true;
    fresh_ = false;
    know(generation.number, Must::be_either);
    std::erase(held_, generation);
    removing_.insert(generation.number);
    if (store_->remove(generation)) return false;
    know_gone(generation);
    return true;
  }
  void doom(const Generation& generation) {
    if (!store_ || removing_.contains(generation.number)) return;
    fresh_ = false;
    know(generation.number, Must::be_either);
    if (!store_->doom(generation)) know(generation.number, Must::be_gone);
  }
  void spare(const Generation& generation) {
    if (!store_ || removing_.contains(generation.number)) return;
    know(generation.number, Must::be_either);
    if (!store_->spare(generation)) know(generation.number, Must::be_there);
  }
  /// Killed and started again; the disk forgets nothing.
  void restart() {
    if (dead() || !store_) return;
    store_.reset();
    disk_ = std::make_shared<SimDisk>(disk_->kill());
    start();
  }

  /// Of one that was told of: that no reader sees anything else.
  void check_readable() {
    if (dead() || !store_) return;
    for (const Generation& generation : held_) check_files(generation);
  }

 private:
  void start() {
    hooks_.disk = disk_.get();
    faults_ = hooks_.fault != nullptr;
    fresh_ = true;
    const std::string* boot = disk_->contents("doomed/boot");
    const std::string now = SimFileSystem(disk_).boot_id();
    same_boot_ = boot == nullptr || boot->size() != now.size() || *boot == now;
    held_.clear();
    removing_.clear();
    std::set<std::uint64_t> told;
    const auto found = [&](const Generation& generation) {
      // A crash that comes later finds it, too.
      told.insert(generation.number);
      held_.push_back(generation);
      Fact& fact = facts_[generation.number];
      if (fact.must == Must::be_gone) problem("it came back: " + path_of(generation));
      if (fact.files.empty()) problem("nobody published " + path_of(generation));
      fact.must = Must::be_there;
      fact.generation = generation;
    };
    try {
      store_.emplace(SimFileSystem(disk_, &hooks_));
      const garner::Recovery recovery = store_->recover(found);
      if (dead()) return;
      if (recovery.error) {
        if (!faults_) problem("no recovery: " + recovery.error.message());
        return store_.reset();
      }
      last_ = std::max(last_, recovery.last_generation);
    } catch (const garner::Error& error) {
      store_.reset();
      if (!dead() && !faults_) problem(std::string("no start: ") + error.what());
      return;
    }
    for (auto& [number, fact] : facts_) {
      if (told.contains(number)) continue;
      if (fact.must == Must::be_there) problem("it is lost: " + std::to_string(number));
      fact.must = Must::be_gone;
    }
    for (const Generation& generation : held_) {
      if (generation.number > last_) problem("a number may be given again: " + std::to_string(generation.number));
      check_files(generation);
      check_durable(facts_[generation.number]);
      check_described(facts_[generation.number]);
    }
  }

  void check_files(const Generation& generation) {
    const Fact& fact = facts_[generation.number];
    for (const auto& [name, text] : fact.files) {
      const std::string* const contents = disk_->contents(path_of(generation) + '/' + name);
      if (contents == nullptr || *contents != text) problem("not whole: " + path_of(generation) + '/' + name);
    }
  }
  /// Read once; then it stays as it was.
  void check_described(Fact& fact) {
    const std::string* const text = disk_->contents(path_of(fact.generation) + "/chunk.json");
    if (text != nullptr && *text == fact.described) return;
    std::error_code ec;
    store_->describe(fact.generation, ec);
    if (dead() || faults_) return;
    if (ec || text == nullptr) return problem("it is not described: " + ec.message());
    fact.described = *text;
  }
  /// Visible implies durable.
  void check_durable(const Fact& fact) {
    if (dead()) return;
    for (const auto& [name, text] : fact.files) {
      const std::string path = path_of(fact.generation) + '/' + name;
      if (!disk_->always_durable(path, text)) problem("visible and not durable: " + path);
    }
  }
  /// Nothing of it may come back, unless it would be known for doomed.
  void know_gone(const Generation& generation) {
    know(generation.number, Must::be_gone);
    const std::string marker = "doomed/" + garner::store_layout::qualified_name(generation);
    if (dead() || disk_->never_there(path_of(generation)) || disk_->always_durable(marker, "")) return;
    problem("removed and may come back: " + path_of(generation));
  }
  /// What an operation told that the crash ran into is known to nobody.
  void know(std::uint64_t number, Must must) {
    if (!dead()) facts_[number].must = must;
  }
  void problem(std::string text) { problems_.push_back(std::move(text)); }

  std::shared_ptr<SimDisk> disk_;
  Hooks& hooks_;
  Facts facts_;
  std::optional<SimStorage> store_;
  std::vector<Generation> held_;
  std::set<std::uint64_t> removing_;  ///< a `remove` began: nothing else is asked of it any more
  std::uint64_t last_ = 0;
  bool faults_ = false;    ///< operations may fail without a reason
  bool fresh_ = true;      ///< nothing was done but the start
  bool same_boot_ = true;  ///< as far as the store can tell
  std::vector<std::string> problems_;
};

using Script = std::function<void(Process&)>;
using Fault = std::function<SimFault(const SimCall&, std::uint64_t)>;

/// Runs scripts, ends them everywhere, recovers, and gathers what was wrong.
class Sweep {
 public:
  explicit Sweep(CrashMode mode) : mode_(mode) {}

  std::function<bool(const SimCall&)> lie;  ///< all along, in recoveries too
  std::size_t outcomes = 6;                 ///< of each crash, at most; all of them where they are fewer
  std::size_t depth = 1;                    ///< of crashes within recoveries
  std::set<std::string> problems;
  std::uint64_t crashes = 0;

  /// With a crash at each operation, and one after the last.
  void crash_everywhere(const Script& script) {
    bool ended = true;
    for (std::uint64_t at = 0; ended; ++at) ended = crash_once(script, at, nullptr);
  }

  /// With each operation refused in its turn, and a crash at its end.
  void refuse_everything(const Script& script, std::error_code error, const Script& then) {
    bool met = true;
    for (std::uint64_t at = 0; met; ++at) {
      met = false;
      const Fault once = [&, at](const SimCall& call, std::uint64_t number) {
        if (number != at) return SimFault();
        met = true;
        return SimFault{error, call.bytes / 2, false};
      };
      crash_once(
          [&](Process& process) {
            script(process);
            then(process);
          },
          UINT64_MAX, once);
    }
  }

  /// False where the script came to its end before.
  bool crash_once(const Script& script, std::uint64_t at, const Fault& fault) {
    Hooks hooks;
    hooks.crash_at = at;
    hooks.fault = fault;
    hooks.lie = lie;
    auto disk = std::make_shared<SimDisk>(SimDiskOptions{mode_, std::uint64_t{1} << 20, 64});
    Process process(disk, hooks, {});
    script(process);
    process.check_readable();
    note(process);
    const bool ended = process.dead();
    if (!ended) hooks.snapshot.emplace(process.disk());
    after_end(*hooks.snapshot, process.facts(), depth, at);
    return ended;
  }

 private:
  void after_end(const SimDisk& snapshot, const Facts& facts, std::size_t levels, std::uint64_t seed) {
    // A killed process, then a crash.
    recover(SimDisk(snapshot).kill(), facts, levels, seed);
    ExhaustiveDecisions all;
    std::size_t count = 0;
    std::vector<SimDisk> found;
    do found.push_back(snapshot.after_crash(all));
    while (++count <= outcomes && all.next());
    if (count > outcomes) {
      found.clear();
      for (std::size_t i = 0; i < outcomes; ++i) {
        SeededDecisions decisions(seed * outcomes + i);
        found.push_back(snapshot.after_crash(decisions));
      }
    }
    for (const SimDisk& disk : found) recover(disk, facts, levels, ++seed);
  }

  void recover(const SimDisk& disk, const Facts& facts, std::size_t levels, std::uint64_t seed) {
    ++crashes;
    std::uint64_t operations = 0;
    {
      Hooks hooks;
      hooks.lie = lie;
      Process first(std::make_shared<SimDisk>(disk), hooks, facts);
      first.clean_up();
      operations = hooks.count;
      first.publish("again", {{"a.bin", "again"}});
      // It tells the same, however often.
      first.restart();
      first.clean_up();
      note(first);
    }
    if (levels == 0) return;
    SeededDecisions decisions(seed);
    Hooks hooks;
    hooks.lie = lie;
    hooks.crash_at = decisions.choose(operations);
    Process interrupted(std::make_shared<SimDisk>(disk), hooks, facts);
    interrupted.clean_up();
    note(interrupted);
    if (!hooks.snapshot) return;
    const std::size_t few = std::exchange(outcomes, 2);
    after_end(*hooks.snapshot, interrupted.facts(), levels - 1, decisions.choose(1U << 30));
    outcomes = few;
  }

  void note(const Process& process) { problems.insert(process.problems().begin(), process.problems().end()); }

  CrashMode mode_;
};

constexpr std::array modes = {CrashMode::ordered, CrashMode::adversarial};
const Files two_files = {{"a.bin", "hello"}, {"b.bin", std::string(100, 'x')}};
const Files other_files = {{"a.bin", "world!"}};

const std::map<std::string, Script> scripts = {
    {"publish",
     [](Process& process) {
       process.publish("c", two_files);
       process.publish("c", other_files);
       process.publish("e", other_files, "another");
     }},
    {"remove",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       const auto second = process.publish("e", other_files);
       if (first) process.remove(*first);
       if (second) process.remove(*second);
       process.publish("c", other_files);
     }},
    {"doom and remove",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       const auto second = process.publish("e", other_files);
       if (first) process.doom(*first);
       if (second) process.doom(*second);
       if (first) process.remove(*first);
     }},
    {"doom and spare",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       for (int i = 0; i < 2 && first; ++i) {
         process.doom(*first);
         process.spare(*first);
       }
     }},
    {"remove again",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       if (first) process.doom(*first);
       if (first && !process.remove(*first)) process.remove(*first);
     }},
    {"doom again",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       if (!first) return;
       process.doom(*first);
       process.spare(*first);
       process.doom(*first);
     }},
    {"restart and clean up",
     [](Process& process) {
       const auto first = process.publish("c", two_files);
       process.publish("e", other_files);
       process.stage_only("f", other_files);
       if (first) process.doom(*first);
       process.restart();
       process.clean_up();
       process.publish("c", other_files);
       process.stage_only("g", other_files);
       process.restart();
       process.clean_up();
     }},
};

TEST_CASE("a crash at each operation loses nothing that was told and brings nothing back") {
  for (const CrashMode mode : modes) {
    for (const auto& entry : scripts) {
      const std::string& name = entry.first;
      Sweep sweep(mode);
      sweep.crash_everywhere(entry.second);
      CAPTURE(static_cast<int>(mode));
      CAPTURE(name);
      for (const std::string& problem : sweep.problems) FAIL_CHECK(problem);
      CHECK(sweep.crashes > 100);
    }
  }
}

bool is(const SimCall& call, SimOperation operation, const std::string& place, std::ptrdiff_t slashes) {
  if (call.operation != operation) return false;
  const std::string path = call.path();
  return path.starts_with(place) && std::count(path.begin(), path.end(), '/') == slashes;
}

TEST_CASE("these checks see each sync that is left out") {
  struct Mistake {
    const char* name;
    std::function<bool(const SimCall&)> left_out;
    bool seen_by_journal;  ///< whether it shows on a journaled file system, too
  };
  const SimOperation file = SimOperation::sync_file;
  const SimOperation directory = SimOperation::sync_directory;
  const std::vector<Mistake> mistakes = {
      {"of a staged file", [&](const SimCall& call) { return is(call, file, "staging/", 2); }, true},
      {"of the bytes of the format", [&](const SimCall& call) { return is(call, file, "FORMAT", 0); }, true},
      {"of the staging directory", [&](const SimCall& call) { return is(call, directory, "staging/", 1); }, false},
      {"of the dataset's directory", [&](const SimCall& call) { return is(call, directory, "chunks/", 1); }, true},
      {"of the directory of datasets", [&](const SimCall& call) { return is(call, directory, "chunks", 0); }, false},
      {"of the doomed", [&](const SimCall& call) { return is(call, directory, "doomed", 0); }, true},
      {"of the data directory", [&](const SimCall& call) { return call.operation == directory && call.path().empty(); },
       false},
  };
  for (const Mistake& mistake : mistakes) {
    for (const CrashMode mode : modes) {
      Sweep sweep(mode);
      sweep.lie = mistake.left_out;
      sweep.depth = 0;
      sweep.outcomes = 3;
      for (const auto& [name, script] : scripts) {
        if (sweep.problems.empty()) sweep.crash_everywhere(script);
      }
      CAPTURE(static_cast<int>(mode));
      CAPTURE(mistake.name);
      CHECK(sweep.problems.empty() == !(mode == CrashMode::adversarial || mistake.seen_by_journal));
    }
  }
}

/// What may go on at the same time with two generations, which `prepare_two` published.
struct Both {
  std::optional<Generation> first, second;
};
Both prepare_two(Process& process) { return {process.publish("c", two_files), process.publish("e", other_files)}; }
using Act = void (*)(Process&, const Generation&);
const std::map<std::string, Act> acts = {
    {"publish", [](Process& process, const Generation&) { process.publish("f", other_files, "new"); }},
    {"remove", [](Process& process, const Generation& generation) { process.remove(generation); }},
    {"doom", [](Process& process, const Generation& generation) { process.doom(generation); }},
    {"doom and spare",
     [](Process& process, const Generation& generation) {
       process.doom(generation);
       process.spare(generation);
     }},
};

/// At each operation of `outer` that lets others run, `inner` runs; and each of `inner`'s fails in its turn.
void run_at_once(Sweep& sweep, Act outer, Act inner) {
  bool inner_ran = true;
  for (std::uint64_t at = 0; inner_ran; ++at) {
    inner_ran = false;
    bool failed = true;
    for (std::uint64_t failing = 0; failed; ++failing) {
      failed = false;
      std::uint64_t outer_count = 0;
      std::uint64_t inner_count = 0;
      std::function<void()> run_inner;
      enum { idle, waiting, running, done } state = idle;
      const Fault fault = [&](const SimCall& call, std::uint64_t) {
        if (state == running && inner_count++ == failing) {
          failed = true;
          return SimFault{errc::io_error, 0, false};
        }
        if (state == waiting && outer_count++ >= at && call.may_switch) {
          state = running;
          inner_ran = true;
          run_inner();
          state = done;
        }
        return SimFault();
      };
      const Script script = [&](Process& process) {
        const auto [first, second] = prepare_two(process);
        run_inner = [&process, inner, other = *second] { inner(process, other); };
        state = waiting;
        outer(process, *first);
      };
      sweep.crash_once(script, UINT64_MAX, fault);
    }
  }
}

void check_at_once(const std::string& outer, const std::string& inner) {
  for (const CrashMode mode : modes) {
    Sweep sweep(mode);
    sweep.depth = 0;
    sweep.outcomes = 2;
    run_at_once(sweep, acts.at(outer), acts.at(inner));
    CAPTURE(static_cast<int>(mode));
    CAPTURE(outer);
    CAPTURE(inner);
    for (const std::string& problem : sweep.problems) FAIL_CHECK(problem);
  }
}

void check_refused(const std::string& name) {
  for (const CrashMode mode : modes) {
    for (const errc error : {errc::io_error, errc::no_space}) {
      if (error == errc::no_space && mode == CrashMode::ordered) continue;
      Sweep sweep(mode);
      sweep.depth = 0;
      sweep.outcomes = 3;
      sweep.refuse_everything(scripts.at(name), error, [](Process& process) { process.publish("last", other_files); });
      CAPTURE(static_cast<int>(mode));
      CAPTURE(name);
      for (const std::string& problem : sweep.problems) FAIL_CHECK(problem);
    }
  }
}

TEST_CASE("an operation that fails loses nothing that was told and brings nothing back") {
  for (const auto& [name, script] : scripts) {
    check_refused(name);
  }
}

TEST_CASE("what one generation's failure spoils for another's, the other is told") {
  for (const auto& [outer, act] : acts) {
    for (const auto& [inner, other] : acts) {
      check_at_once(outer, inner);
    }
  }
}

/// A random life: `steps` calls, some of which fail, restarts, and a crash somewhere.
void live(Process& process, Decisions& decisions, int steps) {
  std::map<std::uint64_t, Generation> held;
  const auto recount = [&] {
    held.clear();
    for (const Generation& generation : process.held()) held[generation.number] = generation;
  };
  recount();
  for (int step = 0; step < steps && !process.dead(); ++step) {
    auto any = held.begin();
    if (!held.empty()) std::advance(any, static_cast<std::ptrdiff_t>(decisions.choose(held.size())));
    const std::string name(1, static_cast<char>('a' + decisions.choose(3)));
    switch (decisions.choose(10)) {
      case 0:
        process.restart();
        recount();
        break;
      case 1: process.clean_up(); break;
      case 2: process.stage_only(name, other_files); break;
      case 3:
      case 4:
        if (held.empty()) break;
        if (process.remove(any->second) || decisions.choose(4) == 0) held.erase(any);
        break;
      case 5:
        if (!held.empty()) process.doom(any->second);
        break;
      case 6:
        if (!held.empty()) process.spare(any->second);
        break;
      default: {
        const auto made = process.publish(name, decisions.choose(2) == 0 ? two_files : other_files, name);
        if (made) held[made->number] = *made;
      }
    }
  }
}

void live_and_crash(std::uint64_t seed, bool with_faults, std::set<std::string>& problems) {
  SeededDecisions decisions(seed);
  const CrashMode mode = modes.at(decisions.choose(2));
  Sweep sweep(mode);
  sweep.outcomes = 4;
  SeededDecisions faults(seed + 1);
  const std::array errors = {errc::io_error, errc::no_space, errc::read_only, errc::too_many_open_files};
  const Fault fault = [&](const SimCall& call, std::uint64_t) {
    if (faults.choose(40) != 0) return SimFault();
    return SimFault{errors.at(faults.choose(errors.size())), faults.choose(call.bytes + 1), false};
  };
  sweep.crash_once([&](Process& process) { live(process, decisions, 30); }, decisions.choose(600),
                   with_faults ? fault : Fault());
  for (const std::string& problem : sweep.problems) problems.insert(std::to_string(seed) + ": " + problem);
}

TEST_CASE("random lives end in crashes that lose nothing and bring nothing back") {
  std::set<std::string> problems;
  for (std::uint64_t seed = 0; seed < 200; ++seed) live_and_crash(seed, false, problems);
  for (const std::string& problem : problems) FAIL_CHECK(problem);
}

TEST_CASE("random lives with faults end in crashes that lose nothing and bring nothing back") {
  std::set<std::string> problems;
  for (std::uint64_t seed = 0; seed < 200; ++seed) live_and_crash(seed, true, problems);
  for (const std::string& problem : problems) FAIL_CHECK(problem);
}

}  // namespace
