// SPDX-License-Identifier: BSL-1.0
//
// Holds numbered chunks in a directory, and writes down on stdout what it was asked, what it said and what it found:
// the program that tests/torturing/power_cuts and full_disk run on disks that fail. It ends when stdin does.
#include <garner/garner.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "torturing/numbered_chunks.hpp"

namespace torturing {
namespace {

constexpr const char* help =
    "usage: torture_hoard --data-dir DIR [--chunks N] [--scale BYTES] [--seed N] [--life N] [--without SYNCS] "
    "[storm]\n\n"
    "With 'storm' callers ask for chunks and delete them until it is killed; else it does what stdin says, a line "
    "each:\n"
    "  want NUMBER VERSION | drop NUMBER | wait MILLISECONDS | held | states | status | close\n"
    "--without files, directories or all: those syncs are left out, and a power cut has to show it\n";

struct Arguments {
  std::filesystem::path data_dir;
  std::uint64_t chunks = 24;
  std::uint64_t scale = 40'000;  ///< files are of this many bytes, about
  std::uint64_t seed = 1;
  std::uint64_t life = 0;  ///< versions are those of no other
  std::string without;
  bool storm = false;
};

/// The lines on stdout, each whole.
class Facts {
 public:
  void tell(std::string line) {
    line += '\n';
    const std::lock_guard lock(mutex_);
    for (std::string_view left = line; !left.empty();) {
      const ssize_t count = ::write(STDOUT_FILENO, left.data(), left.size());
      if (count < 0) ::_exit(4);  // nobody is there to read it
      left.remove_prefix(static_cast<std::size_t>(count));
    }
  }

 private:
  std::mutex mutex_;
};

template <class... Words>
std::string line(const Words&... words) {
  std::ostringstream out;
  const char* space = "";
  ((out << std::exchange(space, " ") << words), ...);
  return out.str();
}

/// What a power cut takes for a mistake: a file system whose syncs do nothing.
class Unsynced : public garner::PosixFileSystem {
 public:
  Unsynced(garner::PosixFileSystem fs, const std::string& without)
      : PosixFileSystem(std::move(fs)), files_(without != "directories"), directories_(without != "files") {}

  std::error_code sync_file(const File& file) const {
    return files_ ? std::error_code() : PosixFileSystem::sync_file(file);
  }
  std::error_code sync_directory(const Directory& directory) const {
    return directories_ ? std::error_code() : PosixFileSystem::sync_directory(directory);
  }
  void sync_together(std::span<garner::SyncRequest<File, Directory>> requests) const {
    for (auto& request : requests) {
      request.error = request.file != nullptr ? sync_file(*request.file) : sync_directory(*request.directory);
    }
  }

 private:
  bool files_;  ///< without them
  bool directories_;
};

garner::Options options() {
  garner::Options out;
  out.min_backoff = std::chrono::milliseconds(1);
  out.max_backoff = std::chrono::milliseconds(50);
  out.no_space_retry = std::chrono::milliseconds(20);
  out.staging_ttl = std::chrono::milliseconds(0);
  return out;
}

/// The order of its members is that of their ends: the manager is the first to go.
template <class Storage>
class Hoard {  // NOLINT(clang-analyzer-optin.performance.Padding)
 public:
  using Manager = garner::DataManager<Storage, garner::MemoryDownloader, garner::AsioExecutor>;
  using Ref = typename Manager::ChunkRef;

  Hoard(Arguments arguments, Storage storage)
      : arguments_(std::move(arguments)),
        manager_(std::move(storage),
                 garner::MemoryDownloader(origin_, [this](auto task) { asio::post(network_, std::move(task)); }),
                 garner::AsioExecutor(3), options()) {
    tell_held();
    facts_.tell("started");
    for (std::uint64_t number = 0; number < arguments_.chunks; ++number) numbers_.emplace(numbered_id(number), number);
    subscription_ = manager_.subscribe([this](const garner::Event& event) { observe(event); });
  }

  /// Callers, pinners and waiters, until stdin ends; then it is closed.
  void storm() {
    std::vector<std::thread> threads;
    for (std::uint64_t caller = 0; caller < callers; ++caller) threads.emplace_back([this, caller] { call(caller); });
    for (std::uint64_t pinner = 0; pinner < 2; ++pinner) threads.emplace_back([this, pinner] { pin(pinner); });
    threads.emplace_back([this] { converge(); });
    std::string ignored;
    while (std::getline(std::cin, ignored)) {
    }
    is_over_ = true;
    for (std::thread& thread : threads) thread.join();
    close();
  }

  void obey() {
    std::string text;
    while (std::getline(std::cin, text)) {
      std::istringstream words(text);
      std::string command;
      std::uint64_t first = 0;
      std::uint64_t second = 0;
      words >> command >> first >> second;
      if (command == "want") {
        want(first, second);
      } else if (command == "drop") {
        drop(first);
      } else if (command == "wait") {
        facts_.tell(manager_.wait_converged(std::chrono::milliseconds(first)) ? "converged" : "not converged");
      } else if (command == "held") {
        tell_held();
      } else if (command == "states") {
        tell_states();
      } else if (command == "status") {
        const garner::Status status = manager_.status();
        facts_.tell(line("status", status.ready, status.queued, status.downloading, status.waiting, status.parked,
                         status.draining, status.removing, status.attempts_failed, status.chunks_published));
      } else if (command == "close") {
        break;
      }
      facts_.tell(".");
    }
    close();
  }

 private:
  static constexpr std::uint64_t callers = 3;

  void close() {
    subscription_.reset();
    manager_.close();
    facts_.tell("closed");
  }

  void observe(const garner::Event& event) {
    const auto number = numbers_.find(event.id);
    if (event.kind == garner::EventKind::chunk_removed && number != numbers_.end()) {
      facts_.tell(line("gone", number->second, event.generation));
    } else if (event.kind == garner::EventKind::chunk_failed && number != numbers_.end()) {
      facts_.tell(line("failed", number->second, event.error.message()));
    }
    const std::lock_guard lock(moved_mutex_);
    moved_.notify_all();
  }

  /// Comes back when something has happened, or when nothing does.
  void await_news() {
    std::unique_lock lock(moved_mutex_);
    moved_.wait_for(lock, std::chrono::milliseconds(3));
  }

  void want(std::uint64_t number, std::uint64_t version) {
    const garner::DataChunk chunk = numbered_chunk(number, version, arguments_.scale);
    for (const auto& [name, source] : chunk.files) {
      origin_.put(source.urls.front(), numbered_file_bytes(source.urls.front(), arguments_.scale));
    }
    facts_.tell(line("want", number, version));
    manager_.download_chunk(chunk);
  }

  void drop(std::uint64_t number) {
    facts_.tell(line("drop", number));
    manager_.delete_chunk(numbered_id(number));
  }

  std::optional<Ref> find(std::uint64_t number) {
    return manager_.find_chunk(numbered_dataset(number), number * numbered_blocks);
  }

  /// The answer about each chunk that is served.
  void tell_held() {
    for (std::uint64_t dataset = 0; dataset < numbered_datasets; ++dataset) {
      for (const Ref& ref : manager_.find_chunks(numbered_dataset(dataset), {0, UINT64_MAX})) {
        const Look look = look_at(ref, arguments_.scale);
        if (look.wrong.empty() && !look.unreadable) {
          facts_.tell(line("held", look.number, look.version, ref.generation()));
        } else {
          tell_bad(ref, look);
        }
      }
    }
  }

  void tell_bad(const Ref& ref, const Look& look) {
    facts_.tell(look.wrong.empty()
                    ? line("unreadable", look.number, ref.generation(), look.unreadable.message())
                    : line("wrong", look.number, look.version, ref.generation(), ref.path().string(), look.wrong));
  }

  void tell_states() {
    for (std::uint64_t number = 0; number < arguments_.chunks; ++number) {
      if (const auto status = manager_.chunk_status(numbered_id(number))) {
        facts_.tell(line("state", number, garner::to_string(status->state), status->served ? 1 : 0, status->attempts,
                         garner::to_string(status->last_error_class), "|", status->last_error.message()));
      }
    }
  }

  /// One caller has a part of the chunks for itself, so what it finds is what its own calls have come to.
  void call(std::uint64_t caller) {
    garner::core::Random random(mix(arguments_.seed) ^ caller);
    struct Own {
      std::uint64_t version = 0;  ///< wanted; 0: none
      std::uint64_t again = 0;    ///< the last that was deleted and wanted again
      std::uint64_t told = 0;     ///< the last generation that was told
    };
    std::map<std::uint64_t, Own> own;
    std::uint64_t version = arguments_.life * 1'000'000 + caller;
    while (!is_over_) {
      const std::uint64_t number = caller + callers * (random.next() % (arguments_.chunks / callers));
      Own& chunk = own[number];
      const std::shared_lock lock(calling_);
      switch (random.next() % 8) {
        case 0:
        case 1:
        case 2:
          drop(number);
          chunk.version = 0;
          if (find(number)) facts_.tell(line("wrong", number, 0, 0, "it is found after it was deleted"));
          break;
        case 3:  // a change of mind
          if (chunk.version != 0) {
            drop(number);
            want(number, chunk.version);
            chunk.again = chunk.version;
            chunk.told = 0;
            break;
          }
          [[fallthrough]];
        case 4:
        case 5:
          version += callers;
          chunk.version = version;
          want(number, version);
          break;
        default: break;
      }
      await_news();
      for (auto& [each, known] : own) {
        if (known.version == 0) continue;
        const auto ref = find(each);
        if (!ref || ref->generation() == known.told) continue;
        const Look look = look_at(*ref, arguments_.scale);
        if (!look.wrong.empty()) tell_bad(*ref, look);
        if (!look.wrong.empty() || look.unreadable) continue;
        // One that was there already is taken back, and that is durable when it has converged.
        facts_.tell(line(look.version != known.again ? "ready" : "revived", each, look.version, ref->generation()));
        known.told = ref->generation();
      }
    }
  }

  /// Keeps some pins for a while, and reads what is under them.
  void pin(std::uint64_t pinner) {
    garner::core::Random random(mix(arguments_.seed + 1) ^ pinner);
    std::vector<Ref> pins;
    while (!is_over_) {
      if (auto ref = find(random.next() % arguments_.chunks)) pins.push_back(std::move(*ref));
      if (!pins.empty()) {
        const std::size_t at = random.next() % pins.size();
        const Look look = look_at(pins[at], arguments_.scale);
        if (!look.wrong.empty()) tell_bad(pins[at], look);
        if (random.next() % 3 == 0) pins.erase(pins.begin() + static_cast<std::ptrdiff_t>(at));
      }
      if (pins.size() > 8) pins.clear();
      await_news();
    }
  }

  /// Now and then nobody calls until all is as it was asked to be.
  void converge() {
    garner::core::Random random(mix(arguments_.seed + 2));
    while (!is_over_) {
      for (std::uint64_t news = random.next() % 40; news > 0 && !is_over_; --news) await_news();
      const std::unique_lock lock(calling_);
      if (manager_.wait_converged(std::chrono::milliseconds(200))) facts_.tell("converged");
    }
  }

  Arguments arguments_;
  garner::MemoryOrigin origin_;
  Facts facts_;
  std::map<garner::ChunkId, std::uint64_t> numbers_;
  std::mutex moved_mutex_;
  std::condition_variable moved_;
  std::shared_mutex calling_;
  std::atomic<bool> is_over_{false};
  asio::thread_pool network_{2};
  Manager manager_;
  garner::Subscription subscription_;
};

template <class Storage>
void run(const Arguments& arguments, Storage storage) {
  Hoard<Storage> hoard(arguments, std::move(storage));
  arguments.storm ? hoard.storm() : hoard.obey();
}

std::uint64_t number_of(const std::string& text) {
  std::size_t used = 0;
  const std::uint64_t number = std::stoull(text, &used);
  if (used != text.size()) throw std::invalid_argument(text);
  return number;
}

Arguments parse(const std::vector<std::string>& words) {
  Arguments out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "storm") {
      out.storm = true;
      continue;
    }
    const std::string& value = words.at(i + 1);
    if (words[i] == "--data-dir") {
      out.data_dir = value;
    } else if (words[i] == "--chunks") {
      out.chunks = number_of(value);
    } else if (words[i] == "--scale") {
      out.scale = number_of(value);
    } else if (words[i] == "--seed") {
      out.seed = number_of(value);
    } else if (words[i] == "--life") {
      out.life = number_of(value);
    } else if (words[i] == "--without") {
      out.without = value;
    } else {
      throw std::invalid_argument(words[i]);
    }
    ++i;
  }
  if (out.data_dir.empty()) throw std::invalid_argument("no --data-dir");
  return out;
}

}  // namespace
}  // namespace torturing

int main(int argc, char** argv) {
  torturing::Arguments arguments;
  try {
    arguments = torturing::parse({argv + 1, argv + argc});
  } catch (const std::logic_error& problem) {
    std::cerr << problem.what() << '\n' << torturing::help;
    return 2;
  }
  try {
    if (arguments.without.empty()) {
      torturing::run(arguments, garner::FilesystemStorage(arguments.data_dir));
      return 0;
    }
    torturing::Unsynced fs(garner::detail::open_data_directory(arguments.data_dir, garner::Durability::relaxed, 0),
                           arguments.without);
    torturing::run(arguments, garner::BasicStore<torturing::Unsynced>(std::move(fs)));
    return 0;
  } catch (const garner::Error& error) {
    std::cout << "cannot start: " << error.code() << ' ' << error.what() << std::endl;
    return 3;
  }
}
