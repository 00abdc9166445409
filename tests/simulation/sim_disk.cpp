// SPDX-License-Identifier: BSL-1.0
//
// What a simulated disk may and may not keep in a crash: for small scripts every outcome, against a list that was
// written by hand.
#include "garner/simulation/sim_disk.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
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

#include "garner/simulation/sim_file_system.hpp"

namespace {

using garner::CrashMode;
using garner::ExhaustiveDecisions;
using garner::SeededDecisions;
using garner::SimDisk;
using garner::SimDiskOptions;
using garner::SimFault;
using garner::SimFileSystem;
using garner::TapeDecisions;
using Outcomes = std::set<std::string>;

/// A disk and short words for what is done on it. Everything must succeed.
class Script {
 public:
  explicit Script(CrashMode mode, std::uint64_t sector = 1024)
      : disk_(std::make_shared<SimDisk>(SimDiskOptions{mode, 1 << 20, sector})), fs_(disk_, &failing_) {}

  void mkdir(const std::string& path) { REQUIRE_FALSE(fs_.make_directory(parent(path), name(path))); }
  void create(const std::string& path) {
    std::error_code ec;
    fs_.create_file(parent(path), name(path), ec);
    REQUIRE_FALSE(ec);
  }
  void write(const std::string& path, std::string_view text, std::uint64_t at = 0) {
    REQUIRE_FALSE(fs_.write(open(path), at, std::as_bytes(std::span(text))));
  }
  void truncate(const std::string& path, std::uint64_t size) { REQUIRE_FALSE(fs_.truncate(open(path), size)); }
  void sync(const std::string& path) { REQUIRE_FALSE(fs_.sync_file(open(path))); }
  void sync_directory(const std::string& path) { REQUIRE_FALSE(fs_.sync_directory(directory(path))); }
  void fail_sync(const std::string& path) {
    failing_.fail = true;
    CHECK(fs_.sync_file(open(path)) == garner::errc::sync_failed);
    failing_.fail = false;
  }
  void fail_sync_directory(const std::string& path) {
    failing_.fail = true;
    CHECK(fs_.sync_directory(directory(path)) == garner::errc::sync_failed);
    failing_.fail = false;
  }
  void rename(const std::string& from, const std::string& to) {
    REQUIRE_FALSE(fs_.rename(parent(from), name(from), parent(to), name(to)));
  }
  void remove(const std::string& path) { REQUIRE_FALSE(fs_.remove_file(parent(path), name(path))); }
  void rmdir(const std::string& path) { REQUIRE_FALSE(fs_.remove_directory(parent(path), name(path))); }

  SimDisk& disk() { return *disk_; }
  [[nodiscard]] std::string now() const { return text_of(*disk_); }

  /// Each state that a crash may leave: "d/ d/a=hello" (a NUL is shown as 0).
  [[nodiscard]] Outcomes outcomes() const {
    Outcomes out;
    ExhaustiveDecisions all;
    do {
      out.insert(text_of(disk_->after_crash(all)));
    } while (all.next());
    check_queries(out);
    return out;
  }

  static std::string text_of(const SimDisk& disk) {
    std::string text;
    for (const auto& [path, contents] : disk.tree()) {
      text += text.empty() ? "" : " ";
      text += path + (contents ? '=' + *contents : "/");
    }
    for (char& c : text) c = c == '\0' ? '0' : c;
    return text;
  }

 private:
  struct Failing final : garner::SimHooks {
    bool fail = false;
    SimFault before(const garner::SimCall& call) override {
      const bool sync =
          call.operation == garner::SimOperation::sync_file || call.operation == garner::SimOperation::sync_directory;
      return {fail && sync ? make_error_code(garner::errc::io_error) : std::error_code(), 0, false};
    }
  };

  /// What the disk says of all crashes agrees with all crashes.
  void check_queries(const Outcomes& outcomes) const {
    std::set<std::string> paths = {"a",   "b", "d",   "d/a", "d/b", "e",     "e/a",
                                   "e/b", "x", "x/a", "d/x", "e/x", "d/x/a", "e/x/a"};
    const auto tree = disk_->tree();
    ExhaustiveDecisions all;
    std::map<std::string, std::set<std::optional<std::string>>> seen;
    do {
      const auto after = disk_->after_crash(all).tree();
      for (const std::string& path : paths) {
        const auto at = after.find(path);
        seen[path].insert(at == after.end() ? "(missing)" : at->second);
      }
    } while (all.next());
    for (const auto& entry : seen) {
      const auto& path = entry.first;
      const auto& states = entry.second;
      CAPTURE(path);
      CHECK(disk_->never_there(path) == (!tree.contains(path) && states == decltype(states){"(missing)"}));
      for (const auto& state : states) {
        const bool always = states.size() == 1 && state != "(missing)";
        if (state) CHECK(disk_->always_durable(path, *state) == always);
        if (!state) CHECK(disk_->always_durable(path) == always);
      }
    }
    CHECK(!outcomes.empty());
  }

  [[nodiscard]] const SimFileSystem::Directory& directory(const std::string& path) {
    if (path.empty()) return fs_.root();
    std::error_code ec;
    auto out = fs_.open_directory(parent(path), name(path), ec);
    REQUIRE_FALSE(ec);
    opened_.push_back(std::move(out));
    return opened_.back();
  }
  [[nodiscard]] const SimFileSystem::Directory& parent(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? fs_.root() : directory(path.substr(0, slash));
  }
  static std::string name(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  [[nodiscard]] SimFileSystem::File open(const std::string& path) {
    std::error_code ec;
    auto file = fs_.open_file(parent(path), name(path), garner::Access::write, ec);
    REQUIRE_FALSE(ec);
    return file;
  }

  Failing failing_;
  std::shared_ptr<SimDisk> disk_;
  SimFileSystem fs_;
  std::deque<SimFileSystem::Directory> opened_;
};

constexpr std::array modes = {CrashMode::ordered, CrashMode::adversarial};

/// Checks all outcomes of `script` in each mode.
template <class Body>
void check_outcomes(const Body& script, const Outcomes& ordered, const Outcomes& adversarial,
                    std::uint64_t sector = 1024) {
  for (const CrashMode mode : modes) {
    CAPTURE(static_cast<int>(mode));
    Script on(mode, sector);
    script(on);
    CHECK(on.outcomes() == (mode == CrashMode::ordered ? ordered : adversarial));
  }
}

template <class Body>
void check_outcomes(const Body& script, const Outcomes& both, std::uint64_t sector = 1024) {
  check_outcomes(script, both, both, sector);
}

void make_file(Script& on, const std::string& path, std::string_view text) {
  on.create(path);
  if (!text.empty()) on.write(path, text);
}

/// d/ with d/a, and e/; all durable.
void settle(Script& on) {
  on.mkdir("d");
  on.mkdir("e");
  make_file(on, "d/a", "hi");
  on.sync("d/a");
  on.sync_directory("d");
  on.sync_directory("");
}

TEST_CASE("what was not synced at all may be there in any part") {
  check_outcomes([](Script& on) { on.create("a"); }, {"", "a="});
  check_outcomes([](Script& on) { make_file(on, "a", "hi"); }, {"", "a=", "a=00", "a=hi"});
}

TEST_CASE("a synced file is whole where it is there, and its name is another matter") {
  const auto script = [](Script& on) {
    make_file(on, "a", "hi");
    on.sync("a");
  };
  check_outcomes(script, {"a=hi"}, {"", "a=hi"});
}

TEST_CASE("a synced name is there, and its bytes are another matter") {
  const auto script = [](Script& on) {
    make_file(on, "a", "hi");
    on.sync_directory("");
  };
  check_outcomes(script, {"a=", "a=00", "a=hi"});
}

TEST_CASE("a synced file with a synced name is there") {
  const auto script = [](Script& on) {
    make_file(on, "a", "hi");
    on.sync("a");
    on.sync_directory("");
  };
  check_outcomes(script, {"a=hi"});
}

TEST_CASE("a write is torn between sectors") {
  const auto script = [](Script& on) {
    make_file(on, "a", "abcdefgh");
    on.sync_directory("");
  };
  check_outcomes(script, {"a=", "a=abcdefgh", "a=00000000", "a=abcd", "a=abcd0000", "a=0000efgh"}, 4);
  const auto unaligned = [](Script& on) {
    make_file(on, "a", "xxxxxx");
    on.sync("a");
    on.sync_directory("");
    on.write("a", "yyyy", 2);
  };
  check_outcomes(unaligned, {"a=xxxxxx", "a=xxyyyy", "a=xxyyxx", "a=xxxxyy"}, 4);
}

TEST_CASE("later writes are kept without earlier ones") {
  const auto script = [](Script& on) {
    make_file(on, "a", "aaaa");
    on.sync("a");
    on.sync_directory("");
    on.write("a", "bb", 4);
    on.write("a", "c", 0);
  };
  check_outcomes(script, {"a=aaaa", "a=aaaabb", "a=aaaa00", "a=caaa", "a=caaabb", "a=caaa00"});
}

TEST_CASE("a truncation is kept or not") {
  const auto script = [](Script& on) {
    make_file(on, "a", "aaaa");
    on.sync("a");
    on.sync_directory("");
    on.truncate("a", 2);
  };
  check_outcomes(script, {"a=aa", "a=aaaa"});
}

TEST_CASE("a file is lost with its directory's name") {
  const auto unsynced = [](Script& on) {
    on.mkdir("d");
    make_file(on, "d/a", "hi");
    on.sync("d/a");
  };
  check_outcomes(unsynced, {"d/ d/a=hi"}, {"", "d/", "d/ d/a=hi"});
  const auto synced = [&unsynced](Script& on) {
    unsynced(on);
    on.sync_directory("d");
  };
  check_outcomes(synced, {"d/ d/a=hi"}, {"", "d/ d/a=hi"});
}

TEST_CASE("different names are kept in order by a journal and in any order without one") {
  const auto script = [](Script& on) {
    on.create("a");
    on.create("b");
  };
  check_outcomes(script, {"", "a=", "a= b="}, {"", "a=", "b=", "a= b="});
}

TEST_CASE("one name's changes are kept in order") {
  const auto script = [](Script& on) {
    on.create("a");
    on.remove("a");
    make_file(on, "a", "hi");
    on.sync("a");
  };
  check_outcomes(script, {"a=hi"}, {"", "a=", "a=hi"});
}

TEST_CASE("a rename happened or did not, and the sync of either directory makes it happen") {
  const auto script = [](Script& on) {
    settle(on);
    on.rename("d/a", "e/a");
  };
  check_outcomes(script, {"d/ d/a=hi e/", "d/ e/ e/a=hi"});
  for (const std::string directory : {"d", "e"}) {
    const auto synced = [&](Script& on) {
      script(on);
      on.sync_directory(directory);
    };
    check_outcomes(synced, {"d/ e/ e/a=hi"});
  }
}

TEST_CASE("renames of renames keep one name at every moment") {
  const auto script = [](Script& on) {
    settle(on);
    on.rename("d/a", "e/a");
    on.rename("e/a", "e/b");
  };
  check_outcomes(script, {"d/ d/a=hi e/", "d/ e/ e/a=hi", "d/ e/ e/b=hi"});
  const auto synced = [&](Script& on) {
    script(on);
    on.rename("e/b", "b");
    on.sync_directory("");
  };
  check_outcomes(synced, {"b=hi d/ e/"});
}

TEST_CASE("what is removed below a renamed directory may be missing under its old name") {
  const auto script = [](Script& on) {
    on.mkdir("d");
    on.mkdir("e");
    on.mkdir("d/x");
    make_file(on, "d/x/a", "hi");
    on.sync("d/x/a");
    for (const std::string directory : {"d/x", "d", ""}) on.sync_directory(directory);
    on.rename("d/x", "e/x");
    on.remove("e/x/a");
  };
  const std::string old_whole = "d/ d/x/ d/x/a=hi e/";
  const std::string old_empty = "d/ d/x/ e/";
  const std::string new_whole = "d/ e/ e/x/ e/x/a=hi";
  const std::string new_empty = "d/ e/ e/x/";
  check_outcomes(script, {old_whole, new_whole, new_empty}, {old_whole, old_empty, new_whole, new_empty});
  const auto synced = [&](Script& on) {
    script(on);
    on.sync_directory("d");
  };
  check_outcomes(synced, {new_whole, new_empty});
}

TEST_CASE("a removed directory was empty in every crash, so that what was renamed out of it is not lost") {
  const auto script = [](Script& on) {
    settle(on);
    on.rename("d/a", "e/a");
    on.rmdir("d");
  };
  check_outcomes(script, {"d/ d/a=hi e/", "d/ e/ e/a=hi", "e/ e/a=hi"});
}

TEST_CASE("a file whose sync failed reads well, syncs well, and is lost") {
  const auto script = [](Script& on) {
    on.create("a");
    on.sync_directory("");
    on.write("a", "hi");
    on.fail_sync("a");
    CHECK(on.now() == "a=hi");
    on.sync("a");
    CHECK(on.now() == "a=hi");
  };
  check_outcomes(script, {"a=", "a=00", "a=hi"});
  const auto more = [&](Script& on) {
    script(on);
    on.write("a", "yo", 2);
    on.sync("a");
  };
  check_outcomes(more, {"a=00yo", "a=hiyo"});
}

TEST_CASE("a name whose sync failed is lost, unless something is built on it") {
  const auto script = [](Script& on) {
    on.create("a");
    on.fail_sync_directory("");
    on.sync_directory("");
    on.create("b");
    on.sync_directory("");
    CHECK(on.now() == "a= b=");
  };
  check_outcomes(script, {"b=", "a= b="});
  const auto more = [&](Script& on) {
    script(on);
    on.rename("a", "e");
    on.sync_directory("");
  };
  check_outcomes(more, {"b= e="});
}

TEST_CASE("time makes all durable, a half at a time") {
  const auto script = [](Script& on) {
    make_file(on, "a", "hi");
    make_file(on, "b", "yo");
    on.disk().write_back();
  };
  check_outcomes(script, {"a=hi", "a=hi b=yo"});
  const auto more = [&](Script& on) {
    script(on);
    on.disk().write_back();
    CHECK(on.disk().pending() == 0);
  };
  check_outcomes(more, {"a=hi b=yo"});
}

TEST_CASE("a long log is written back in parts") {
  Script on(CrashMode::adversarial);
  for (int i = 0; i < 2000; ++i) {
    on.create("a");
    on.remove("a");
    CHECK(on.disk().pending() <= 64);
  }
}

TEST_CASE("a crash ends a disk, and what comes after it is settled") {
  for (const CrashMode mode : modes) {
    Script on(mode);
    settle(on);
    make_file(on, "b", "yo");
    SeededDecisions decisions(1);
    SimDisk after = on.disk().crash(decisions);
    CHECK(on.disk().dead());
    CHECK_FALSE(after.dead());
    CHECK(after.pending() == 0);
    CHECK(after.always_durable("d/a", "hi"));
    CHECK(after.always_durable("e"));
    CHECK(after.handles() == 0);
    CHECK(after.used() == 2 + (after.contents("b") != nullptr ? after.contents("b")->size() : 0));
  }
}

TEST_CASE("a killed process leaves all that it wrote, as durable as it was") {
  Script on(CrashMode::adversarial);
  make_file(on, "a", "hi");
  const Outcomes before = on.outcomes();
  const SimDisk after = on.disk().kill();
  CHECK(on.disk().dead());
  CHECK(after.tree() == SimDisk::Tree{{"a", "hi"}});
  CHECK(after.pending() == 1);
  Outcomes outcomes;
  ExhaustiveDecisions all;
  do {
    const SimDisk crashed = after.after_crash(all);
    const std::string* a = crashed.contents("a");
    outcomes.insert(a == nullptr ? "missing" : *a);
  } while (all.next());
  CHECK(outcomes.size() == before.size());
}

TEST_CASE("a corrupt bit stays") {
  Script on(CrashMode::ordered);
  settle(on);
  CHECK(on.disk().corrupt("d/a", 1));
  CHECK(on.now() == "d/ d/a=hh e/");
  CHECK(on.outcomes() == Outcomes{"d/ d/a=hh e/"});
  CHECK_FALSE(on.disk().corrupt("d/a", 2));
  CHECK_FALSE(on.disk().corrupt("d", 0));
}

/// The same random script in both modes.
void play(std::uint64_t seed, Script& on) {
  SeededDecisions decisions(seed);
  std::set<std::string> files;
  for (const std::string directory : {"d", "e"}) on.mkdir(directory);
  const std::array<std::string, 4> names = {"d/a", "d/b", "e/a", "e/b"};
  for (int step = 0; step < 9; ++step) {
    const std::string& name = names[decisions.choose(names.size())];
    const std::string& other = names[decisions.choose(names.size())];
    switch (decisions.choose(5)) {
      case 0:
        if (files.insert(name).second) on.create(name);
        break;
      case 1:
        // Each file's bytes are its own.
        if (files.contains(name) && on.disk().contents(name)->empty()) on.write(name, std::to_string(step));
        break;
      case 2:
        if (files.contains(name) && files.insert(other).second) {
          files.erase(name);
          on.rename(name, other);
        }
        break;
      case 3:
        if (files.erase(name) != 0) on.remove(name);
        break;
      default:
        if (decisions.choose(2) == 0)
          on.sync_directory(name.substr(0, 1));
        else if (files.contains(name))
          on.sync(name);
    }
  }
}

TEST_CASE("chance comes only by legal outcomes, and a journal's are a part of all that are legal") {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    CAPTURE(seed);
    Script ordered(CrashMode::ordered);
    Script adversarial(CrashMode::adversarial);
    play(seed, ordered);
    play(seed, adversarial);
    CHECK(ordered.now() == adversarial.now());
    const Outcomes few = ordered.outcomes();
    const Outcomes many = adversarial.outcomes();
    CHECK(many.contains(adversarial.now()));
    CHECK(std::includes(many.begin(), many.end(), few.begin(), few.end()));
    for (Script* on : {&ordered, &adversarial}) {
      const Outcomes& legal = on == &ordered ? few : many;
      Outcomes met;
      for (std::uint64_t i = 0; i < 50; ++i) {
        SeededDecisions decisions(i);
        met.insert(Script::text_of(on->disk().after_crash(decisions)));
      }
      CHECK(std::includes(legal.begin(), legal.end(), met.begin(), met.end()));
      TapeDecisions none({});
      CHECK(Script::text_of(on->disk().after_crash(none)) == on->now());
    }
  }
}

TEST_CASE("a seed replays, a tape runs out into zeros, and exhaustion comes by each answer once") {
  SeededDecisions one(7);
  SeededDecisions two(7);
  std::array<int, 3> counts{};
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t answer = one.choose(3);
    CHECK(answer == two.choose(3));
    ++counts.at(answer);
  }
  for (const int count : counts) CHECK(count > 900);

  const std::array tape = {std::byte{5}, std::byte{1}, std::byte{2}};
  TapeDecisions from(tape);
  CHECK(from.choose(1) == 0);
  CHECK(from.choose(4) == 1);
  CHECK(from.choose(1000) == 258);
  CHECK(from.exhausted());
  CHECK(from.choose(1000) == 0);

  ExhaustiveDecisions all;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> answers;
  do {
    const std::uint64_t first = all.choose(3);
    answers.emplace_back(first, first == 1 ? all.choose(2) : 9);
  } while (all.next());
  CHECK(answers == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{0, 9}, {1, 0}, {1, 1}, {2, 9}});
}

}  // namespace
