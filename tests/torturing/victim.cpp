// SPDX-License-Identifier: BSL-1.0
//
// The program that the torture kills and hands errors to. `run` lives one life on a data directory, the same system
// calls each time, and writes down outside of it, a line for each, what it was told for a fact. `check` is the fresh
// start afterwards: it holds what it finds against those facts.
#include <garner/garner.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "torturing/lake.hpp"

namespace torturing {
namespace {

using garner::DataManager;
using garner::InlineExecutor;
using garner::MemoryDownloader;
namespace layout = garner::store_layout;

/// `FilesystemStorage`, but the calls that it makes do not depend on what else the machine writes: many syncs are made
/// one syncfs in any case.
class Store : public garner::BasicVolumes<garner::PosixFileSystem> {
 public:
  Store(const std::filesystem::path& data_dir, const garner::Options& options)
      : BasicVolumes(garner::detail::places_of(data_dir, options, whatever_is_known), options.durability,
                     {options.quarantine_max_bytes, options.keep_free_bytes}) {}

 private:
  static constexpr std::uint64_t whatever_is_known = UINT64_MAX - 1;
};

using Manager = DataManager<Store, MemoryDownloader, InlineExecutor>;
using std::filesystem::directory_iterator;
using std::filesystem::path;

constexpr std::array together = {"f.1", "g.1", "h.1"};

// Of virtual time: longer than any delay after one failure.
constexpr std::chrono::hours patience(2);

std::unique_ptr<Manager> open(const path& data_dir, const garner::MemoryOrigin& origin,
                              std::chrono::nanoseconds staging_ttl = std::chrono::hours(24)) {
  garner::Options options;
  options.seed = 1;
  options.checkpoint_bytes = 1000;
  options.staging_ttl = staging_ttl;
  options.max_sync_threads = 0;  // all calls are one thread's, in the same order each time
  return std::make_unique<Manager>(Store(data_dir, options), MemoryDownloader(origin), InlineExecutor::manual(),
                                   options);
}

/// One write each, to a descriptor outside of the data directory.
class Facts {
 public:
  explicit Facts(int fd) : fd_(fd) {}

  void say(const std::string& fact) const {
    const std::string line = fact + '\n';
    if (::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
  }

 private:
  int fd_;
};

/// What went wrong, a line each: `lost`, `wrong`, `partial`, `revived`, `left` or `stuck`, and what it is about.
class Verdict {
 public:
  void add(const std::string& kind, const std::string& what) {
    std::cout << kind << ": " << what << std::endl;
    failed_ = true;
  }
  [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
  bool failed_ = false;
};

std::string describe(const garner::Status& status) {
  return std::to_string(status.ready) + " ready, " + std::to_string(status.queued + status.downloading) +
         " under way, " + std::to_string(status.waiting) + " waiting, " + std::to_string(status.parked) + " parked, " +
         std::to_string(status.draining) + " draining, " + std::to_string(status.removing) + " removing";
}

/// A life. What is told for a fact before the next step is what the manager answered.
class Story {
 public:
  Story(path data_dir, const Facts& facts) : data_dir_(std::move(data_dir)), facts_(facts) {
    // libcrypto reads its configuration when it is first used; the story begins afterwards.
    lake_.version("a.1");
  }

  int run() {
    facts_.say("begin");
    try {
      first_start();
      second_start();
    } catch (const garner::Error& error) {
      facts_.say(std::string("refused ") + error.what());
      return std::string(error.what()).find(data_dir_.string()) == std::string::npos ? 4 : 3;
    }
    facts_.say("end");
    return verdict_.failed() ? 1 : 0;
  }

 private:
  void first_start() {
    manager_ = open(data_dir_, origin_);
    want("a.1");
    settle();
    ready("a.1");
    want("b.1");  // both at once
    want("c.1");
    settle();
    ready("b.1");
    ready("c.1");

    auto pin = manager_->find_chunk(Lake::dataset("a"), 0);
    remove("a");
    settle();  // doomed
    facts_.say("deleted a");
    pinned(pin, "a.1");
    want("a.1");
    settle();  // spared: no byte moves
    ready("a.1");
    want("a.2");
    settle();  // a second generation, while the first is pinned
    ready("a.2");
    pinned(pin, "a.1");
    pin.reset();
    settle();

    pin = manager_->find_chunk(Lake::dataset("b"), 10);
    remove("b");
    settle();
    facts_.say("deleted b");
    pinned(pin, "b.1");
    pin.reset();
    settle();  // through the trash, and then its marker goes
    want("b.1");
    settle();
    ready("b.1");
    want("c.2");
    settle();  // the first generation goes
    ready("c.2");
    manager_->verify();
    settle();
    for (const char* title : {"a.2", "b.1", "c.2"}) ready(title);

    // What the next start finds: one that was deleted while pinned, and a transfer that was stopped half-way.
    pin = manager_->find_chunk(Lake::dataset("c"), 20);
    remove("c");
    settle();
    facts_.say("deleted c");
    origin_.hold("mem://e.1/rows", 70'000);
    want("e.1");
    manager_->wait_converged(std::chrono::seconds(1));
    manager_->close();
    pinned(pin, "c.2");
    manager_.reset();
    pin.reset();
    origin_.release("mem://e.1/rows");
  }

  void second_start() {
    manager_ = open(data_dir_, origin_);
    if (manager_->find_chunk(Lake::dataset("c"), 20)) verdict_.add("revived", "c in the second start");
    settle();
    for (const char* title : {"a.2", "b.1"}) ready(title);
    want("d.1");  // another dataset
    settle();
    ready("d.1");
    const std::vector<garner::DataChunk> assignment = {offered("a.2"), offered("d.1"), offered("e.1")};
    facts_.say("wanted e.1");
    facts_.say("deleting b");
    manager_->set_assignment(assignment);
    settle();
    facts_.say("deleted b");
    ready("e.1");
    want("l.1");
    settle();
    ready("l.1");
    remove("l");
    settle();  // cut down and removed
    facts_.say("deleted l");
    for (const char* title : together) want(title);
    settle();  // published at the same time, with one sync of the file system
    for (const char* title : together) ready(title);
    manager_->close();
    manager_.reset();
  }

  const garner::DataChunk& offered(const std::string& title) {
    const Version& version = lake_.version(title);
    if (offered_.insert(title).second) Lake::offer(version, origin_);
    return version.chunk;
  }

  void want(const std::string& title) {
    const garner::DataChunk& chunk = offered(title);
    facts_.say("wanted " + title);
    manager_->download_chunk(chunk);
  }

  void remove(const std::string& name) {
    facts_.say("deleting " + name);
    manager_->delete_chunk(Lake::id(name));
    for (const garner::ChunkId& id : manager_->list_chunks()) {
      if (id == Lake::id(name)) verdict_.add("revived", name + " is listed after its deletion");
    }
  }

  void settle() {
    if (!manager_->wait_converged(patience)) verdict_.add("stuck", describe(manager_->status()));
  }

  void ready(const std::string& title) {
    const Version& version = lake_.version(title);
    const auto pin = manager_->find_chunk(version.chunk.dataset_id, version.chunk.block_range.begin);
    if (!pin) return verdict_.add("lost", title + " is not served");
    if (is_whole(*pin, version)) facts_.say("ready " + title);
  }

  template <class Pin>
  void pinned(const Pin& pin, const std::string& title) {
    if (pin) is_whole(*pin, lake_.version(title));
  }

  /// The calls between these two facts are not the store's.
  template <class Pin>
  bool is_whole(const Pin& pin, const Version& version) {
    facts_.say("looking");
    const bool whole = Lake::is_whole(pin.path(), version);
    facts_.say("looked");
    if (!whole) verdict_.add("wrong", version.title() + " at " + pin.path().string());
    return whole;
  }

  path data_dir_;
  const Facts& facts_;
  Verdict verdict_;
  Lake lake_;
  garner::MemoryOrigin origin_;
  std::set<std::string> offered_;
  std::unique_ptr<Manager> manager_;
};

/// What may be there after the life that told these facts: for each chunk its versions, `""` for none.
using Allowed = std::map<std::string, std::set<std::string>>;

Allowed read_facts(const path& file) {
  Allowed allowed;
  for (const char* name : Lake::names) allowed[name] = {""};
  std::ifstream in(file);
  std::string kind;
  std::string about;
  for (std::string line; std::getline(in, line);) {
    const std::size_t space = line.find(' ');
    kind = line.substr(0, space);
    about = space == std::string::npos ? "" : line.substr(space + 1);
    if (kind == "wanted") allowed.at(about.substr(0, 1)).insert(about);
    if (kind == "ready") allowed.at(about.substr(0, 1)) = {about};
    if (kind == "deleting") allowed.at(about).insert("");
    if (kind == "deleted") allowed.at(about) = {""};
  }
  return allowed;
}

/// The fresh start.
class Check {
 public:
  explicit Check(path data_dir) : data_dir_(std::move(data_dir)) {}

  int run(Allowed allowed) {
    look_at_published();
    try {
      restart(std::move(allowed));
    } catch (const std::exception& error) {
      verdict_.add("stuck", std::string("a fresh start fails: ") + error.what());
    }
    std::cout << "served " << served_at_first_ << std::endl;
    return verdict_.failed() ? 1 : 0;
  }

 private:
  /// Before anything is started: what has its name in `chunks/` is whole.
  void look_at_published() {
    for (const path& directory : published()) {
      if (lake_.find_in(directory, name_of(directory)) == nullptr) verdict_.add("partial", directory.string());
    }
  }

  void restart(Allowed allowed) {
    {
      auto manager = open(data_dir_, origin_);
      served_at_first_ = manager->list_chunks().size();
      compare(*manager, allowed);
      settle(*manager);
      areas_are_clean({layout::trash_directory});
      compare(*manager, allowed);
      // As its own check sees it.
      manager->verify();
      settle(*manager);
      compare(*manager, allowed);
      no_failures(*manager);

      std::vector<garner::DataChunk> assignment;
      for (const char* title : {"a.2", "b.1", "c.2", "d.1", "e.1"}) {
        assignment.push_back(Lake::offer(lake_.version(title), origin_).chunk);
        allowed[std::string(title, 1)] = {title};
      }
      for (const char* name : {"f", "g", "h", "l"}) allowed[name] = {""};
      manager->set_assignment(assignment);
      settle(*manager);
      areas_are_clean({layout::trash_directory});
      compare(*manager, allowed);
      no_failures(*manager);
    }
    // Nobody has asked for what else the victim did not fetch to its end.
    auto manager = open(data_dir_, origin_, std::chrono::nanoseconds(0));
    compare(*manager, allowed);
    settle(*manager);
    areas_are_clean();
    manager->set_assignment({});
    settle(*manager);
    areas_are_clean();
    if (!published().empty()) verdict_.add("left", "there are chunks after all were deleted");
  }

  /// What is served is one of the versions that may be, and each byte of it.
  void compare(const Manager& manager, const Allowed& allowed) {
    for (const auto& [name, versions] : allowed) {
      const auto pin = manager.find_chunk(Lake::dataset(name), static_cast<garner::BlockNumber>(name[0] - 'a') * 10);
      const Version* const version = pin ? lake_.find_in(pin->path(), name) : nullptr;
      if (pin && version == nullptr) {
        verdict_.add("wrong", name + " at " + pin->path().string());
      } else if (!versions.contains(version != nullptr ? version->title() : "")) {
        verdict_.add(version == nullptr ? "lost" : "revived",
                     version == nullptr ? *versions.begin() : version->title());
      }
    }
    for (const garner::ChunkId& id : manager.list_chunks()) {
      if (Lake::name_of(id).empty()) verdict_.add("wrong", "foreign: " + id.to_hex());
    }
  }

  void settle(Manager& manager) {
    if (!manager.wait_converged(patience)) verdict_.add("stuck", describe(manager.status()));
  }

  void no_failures(const Manager& manager) {
    if (manager.status().attempts_failed != 0) verdict_.add("wrong", "an attempt failed, or the store's own check did");
  }

  /// Nothing is left half-done, and no name is there but the layout's.
  void areas_are_clean(const std::vector<const char*>& empty = {layout::staging_directory, layout::trash_directory}) {
    for (const char* const area : empty) {
      for (const auto& entry : directory_iterator(data_dir_ / area)) verdict_.add("left", entry.path().string());
    }
    std::set<std::string> held;
    for (const path& directory : published()) {
      held.insert(directory.parent_path().filename().string() + '-' + directory.filename().string());
    }
    // Other markers stay until the machine was started anew.
    for (const auto& entry : directory_iterator(data_dir_ / layout::doomed_directory)) {
      const std::string name = entry.path().filename().string();
      const bool known = name == layout::boot_file || layout::parse_qualified_name(name);
      if (!known || held.contains(name)) verdict_.add("left", entry.path().string());
    }
    constexpr std::array top = {layout::lock_file,           layout::format_file,      layout::chunks_directory,
                                layout::staging_directory,   layout::doomed_directory, layout::trash_directory,
                                layout::quarantine_directory};
    for (const auto& entry : directory_iterator(data_dir_)) {
      if (std::find(top.begin(), top.end(), entry.path().filename()) == top.end()) {
        verdict_.add("left", entry.path().string());
      }
    }
  }

  [[nodiscard]] std::vector<path> published() const {
    std::vector<path> out;
    std::error_code missing;
    for (const auto& dataset : directory_iterator(data_dir_ / layout::chunks_directory, missing)) {
      for (const auto& chunk : directory_iterator(dataset)) out.push_back(chunk.path());
    }
    return out;
  }

  static std::string name_of(const path& directory) {
    const auto dataset = layout::parse_dataset_name(directory.parent_path().filename().string());
    const auto generation = dataset ? layout::parse_chunk_name(directory.filename().string(), *dataset) : std::nullopt;
    return generation ? Lake::name_of(generation->id) : "";
  }

  path data_dir_;
  Verdict verdict_;
  Lake lake_;
  garner::MemoryOrigin origin_;
  std::size_t served_at_first_ = 0;
};

}  // namespace
}  // namespace torturing

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments, arguments + count);
  if (words.size() == 4 && words[1] == "run") {
    const torturing::Facts facts(std::stoi(words[3]));
    return torturing::Story(words[2], facts).run();
  }
  if (words.size() == 4 && words[1] == "check") {
    return torturing::Check(words[2]).run(torturing::read_facts(words[3]));
  }
  std::cerr << "usage: victim run DATA_DIR DESCRIPTOR    the facts go to the descriptor\n"
               "       victim check DATA_DIR FACTS       the facts are in the file\n";
  return 2;
}
