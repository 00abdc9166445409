// SPDX-License-Identifier: BSL-1.0
//
// DownloadManager over three worlds: in memory and on one thread, simulated, and curl against nginx.
#include "garner/download/download_manager.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/download/curl_downloader.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "garner/execution/inline_executor.hpp"
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_disk.hpp"
#include "garner/simulation/sim_downloader.hpp"
#include "garner/simulation/sim_file_system.hpp"
#include "garner/simulation/sim_machine.hpp"
#include "garner/simulation/sim_world.hpp"
#include "support/http_server.hpp"
#include "support/nginx.hpp"
#include "support/refusing_executor.hpp"
#include "support/temp_dir.hpp"

namespace {

using garner::AsioExecutor;
using garner::CurlDownloader;
using garner::Digest;
using garner::DownloadHandle;
using garner::DownloadManager;
using garner::DownloadOptions;
using garner::DownloadStatus;
using garner::Durability;
using garner::errc;
using garner::Error;
using garner::ExecutorRef;
using garner::FileSource;
using garner::InlineExecutor;
using garner::MemoryDownloader;
using garner::MemoryOrigin;
using garner::PosixFileSystem;
using garner::SeededDecisions;
using garner::SimCall;
using garner::SimDisk;
using garner::SimDownloader;
using garner::SimExecutor;
using garner::SimFault;
using garner::SimFaults;
using garner::SimFileSystem;
using garner::SimMachine;
using garner::SimNetwork;
using garner::SimOperation;
using garner::SimWorld;
using garner::test::Exchange;
using garner::test::HttpServer;
using garner::test::Nginx;
using garner::test::TempDir;
using std::chrono::milliseconds;
using std::chrono::seconds;

using Files = std::map<std::string, FileSource>;

std::string pattern_of(std::size_t size, char seed = 'a') {
  std::string bytes(size, seed);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<char>(static_cast<std::size_t>(seed) + i * 31 + i / 251);
  return bytes;
}

Digest digest_of(const std::string& bytes) {
  garner::DigestStream stream(garner::DigestAlgorithm::sha256);
  stream.update(std::as_bytes(std::span(bytes)));
  return *stream.digests().asked;
}

FileSource known(std::vector<std::string> urls, const std::string& bytes) {
  return {std::move(urls), bytes.size(), digest_of(bytes)};
}

/// Refuses what its test says.
struct Hooks final : garner::SimHooks {
  SimFault before(const SimCall& call) override {
    asked.push_back(std::string(to_string(call.operation)) + ' ' + call.path());
    return refuse ? refuse(call) : SimFault();
  }
  std::function<SimFault(const SimCall&)> refuse;
  std::vector<std::string> asked;
};

/// One thread, in memory: the downloader's transfers are tasks of the executor.
struct InMemory {
  using Executor = ExecutorRef<InlineExecutor>;
  using Manager = DownloadManager<MemoryDownloader, Executor, SimFileSystem>;

  explicit InMemory(const DownloadOptions& options = seeded())
      : manager(MemoryDownloader(origin, [this](std::function<void()> task) { executor.post(std::move(task)); }),
                Executor(executor), options, [this](const std::filesystem::path& path, std::error_code&) {
                  return SimFileSystem(disk, &hooks, path);
                }) {}

  static DownloadOptions seeded() {
    DownloadOptions options;
    options.seed = 1;
    return options;
  }

  /// Without what a download is not to leave.
  std::string contents(const std::string& name) const {
    const std::string* const bytes = disk->contents(name);
    return bytes != nullptr ? *bytes : "(none)";
  }
  std::size_t entries() const { return disk->tree().size(); }

  MemoryOrigin origin;
  InlineExecutor executor = InlineExecutor::manual();
  Hooks hooks;
  std::shared_ptr<SimDisk> disk = std::make_shared<SimDisk>();
  Manager manager;
};

DownloadStatus only(const DownloadHandle& handle) {
  REQUIRE(handle.wait());
  REQUIRE(handle.status().size() == 1);
  return handle.status().front();
}

TEST_CASE("files come into the directory under their names, whole and right, by batch and by pool") {
  for (const bool batch : {true, false}) {
    InMemory world;
    Files files;
    for (int i = 0; i < 20; ++i) {
      const std::string name = "file-" + std::to_string(i) + ".bin";
      const std::string bytes = pattern_of(static_cast<std::size_t>(i) * 9000, static_cast<char>('a' + i));
      world.origin.put("mem://lake/" + name, bytes);
      files[name] = i % 2 == 0 ? FileSource("mem://lake/" + name) : known({"mem://lake/" + name}, bytes);
    }
    const DownloadHandle handle =
        batch ? world.manager.batch_download(files, "/out") : world.manager.pool_download(files, "/out");
    CHECK(world.entries() == 0);
    CHECK(handle.succeeded());
    CHECK(world.entries() == 20);
    for (int i = 0; i < 20; ++i) {
      const std::string name = "file-" + std::to_string(i) + ".bin";
      CHECK(world.contents(name) == pattern_of(static_cast<std::size_t>(i) * 9000, static_cast<char>('a' + i)));
    }
    CHECK(world.origin.transfers() == 20);
    for (const DownloadStatus& file : handle.status()) {
      CHECK(file.done);
      CHECK(file.expected == file.received);
      CHECK(file.subject.empty());
    }
  }
}

TEST_CASE("no files are done at once") {
  InMemory world;
  CHECK(world.manager.batch_download({}, "/out").succeeded());
}

TEST_CASE("an invalid description is refused as a whole, and says what it is about") {
  InMemory world;
  world.origin.put("mem://lake/a", "a");
  const auto refused = [&](const Files& files) {
    Files all = files;
    all["fine"] = "mem://lake/a";
    try {
      world.manager.batch_download(all, "/out");
    } catch (const Error& error) {
      CHECK_FALSE(error.subject().empty());
      CHECK(error.subject().find("secret") == std::string::npos);
      return error.code();
    }
    return std::error_code();
  };
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "../a", "/etc/passwd", "a b", "a\nb", "caf\xc3\xa9"}) {
    CHECK(refused({{name, "mem://lake/a"}}) == errc::invalid_file_name);
  }
  CHECK(refused({{std::string(250, 'a'), "mem://lake/a"}}) == errc::invalid_file_name);
  CHECK(refused({{"FINE", "mem://lake/a"}}) == errc::duplicate_file_name);
  CHECK(refused({{"x", FileSource()}}) == errc::no_url);
  CHECK(refused({{"x", "mem://lake/a b"}}) == errc::invalid_url);
  CHECK(refused({{"x", "file:///etc/passwd"}}) == errc::scheme_not_allowed);
  CHECK(refused({{"x", "ftp://user:secret@lake/a"}}) == errc::scheme_not_allowed);
  CHECK(world.entries() == 0);
  CHECK(world.origin.transfers() == 0);
  CHECK(refused({{std::string(249, 'a'), "mem://lake/a"}, {"chunk.json", "mem://lake/a"}}) == std::error_code());
}

TEST_CASE("where a name is taken nothing is fetched, and nothing replaced") {
  InMemory world;
  world.origin.put("mem://lake/a", "new");
  std::error_code ec;
  SimFileSystem fs(world.disk);
  { auto file = fs.create_file(fs.root(), "a", ec); }
  REQUIRE_FALSE(fs.make_directory(fs.root(), "b"));
  const auto handle = world.manager.batch_download({{"a", "mem://lake/a"}, {"b", "mem://lake/a"}}, "/out");
  CHECK_FALSE(handle.succeeded());
  for (const DownloadStatus& file : handle.status()) {
    CHECK(file.error == std::errc::file_exists);
    CHECK(file.subject == "file '" + file.name + "' in /out");
  }
  CHECK(world.origin.transfers() == 0);
  CHECK(world.contents("a").empty());
}

TEST_CASE("until it is done a file has another name, which nobody takes from it, and which a dead one has lost") {
  InMemory world;
  world.origin.put("mem://lake/a", pattern_of(100));
  std::error_code ec;
  SimFileSystem fs(world.disk);
  {
    const std::string earlier = "of an earlier run";
    auto left = fs.create_file(fs.root(), ".a.part", ec);
    CHECK_FALSE(fs.write(left, 0, std::as_bytes(std::span(earlier))));
  }
  world.origin.hold("mem://lake/a", 50);
  const auto first = world.manager.batch_download({{"a", "mem://lake/a"}}, "/out");
  world.executor.run_ready();
  CHECK(world.contents(".a.part") == pattern_of(100).substr(0, 50));
  CHECK(world.contents("a") == "(none)");
  CHECK(first.status().front().received == 50);
  CHECK(first.status().front().expected == 100);
  CHECK_FALSE(first.status().front().done);
  CHECK(only(world.manager.pool_download({{"a", "mem://lake/a"}}, "/out")).error == errc::directory_in_use);
  world.origin.release("mem://lake/a");
  CHECK(first.succeeded());
  CHECK(world.contents("a") == pattern_of(100));
  CHECK(world.entries() == 1);
}

TEST_CASE("a link in the place of the part is taken away, and not followed") {
  const TempDir dir;
  std::ofstream(dir / "victim") << "untouched";
  std::filesystem::create_directory(dir / "out");
  std::filesystem::create_symlink(dir / "victim", dir / "out/.a.part");
  std::filesystem::create_symlink(dir / "nowhere", dir / "out/b");
  MemoryOrigin origin;
  origin.put("mem://lake/a", "bytes");
  DownloadManager<MemoryDownloader, InlineExecutor, PosixFileSystem> manager(MemoryDownloader(origin),
                                                                             InlineExecutor::manual());
  const auto handle = manager.batch_download({{"a", "mem://lake/a"}, {"b", "mem://lake/a"}}, dir / "out");
  handle.wait();
  CHECK_FALSE(handle.status()[0].error);
  CHECK(handle.status()[1].error == std::errc::file_exists);
  CHECK(std::filesystem::file_size(dir / "victim") == 9);
  CHECK(std::filesystem::is_regular_file(std::filesystem::symlink_status(dir / "out/a")));
  CHECK_FALSE(std::filesystem::exists(dir / "nowhere"));

  std::filesystem::create_directory_symlink(dir / "out", dir / "link");
  CHECK_THROWS_AS(manager.batch_download({{"c", "mem://lake/a"}}, dir / "link"), Error);
  CHECK(manager.batch_download({{"c", "mem://lake/a"}}, dir / "new/below").succeeded());
  CHECK(std::filesystem::exists(dir / "new/below/c"));
}

TEST_CASE("the next mirror is tried at once, and goes on where the last one stopped") {
  InMemory world;
  const std::string bytes = pattern_of(200'000);
  for (const char* host : {"mem://a/f", "mem://b/f", "mem://c/f"}) world.origin.put(host, bytes);
  world.origin.fail("mem://a/f", {errc::connection_failed, 100'000});
  world.origin.fail("mem://b/f", {errc::not_found});
  SUBCASE("where a digest tells whether they are the same bytes") {
    const auto handle =
        world.manager.batch_download({{"f", known({"mem://a/f", "mem://b/f", "mem://c/f"}, bytes)}}, "/out");
    CHECK_FALSE(only(handle).error);
    CHECK(world.origin.bytes() == 200'000);
  }
  SUBCASE("and otherwise from the start") {
    const auto handle =
        world.manager.batch_download({{"f", {{"mem://a/f", "mem://b/f", "mem://c/f"}, {}, {}}}}, "/out");
    CHECK_FALSE(only(handle).error);
    CHECK(world.origin.bytes() == 300'000);
  }
  CHECK(world.executor.now() == seconds(0));
  CHECK(world.contents("f") == bytes);
  CHECK(world.origin.transfers() == 3);
}

TEST_CASE("after a round the same mirror goes on where it stopped, if it still has the same bytes") {
  InMemory world;
  const std::string bytes = pattern_of(100'000);
  world.origin.put("mem://a/f", bytes, "\"v1\"");
  world.origin.fail("mem://a/f", {errc::connection_failed, 60'000});
  const auto handle = world.manager.pool_download({{"f", "mem://a/f"}}, "/out");
  SUBCASE("unchanged") {
    CHECK_FALSE(only(handle).error);
    CHECK(world.origin.bytes() == 100'000);
    CHECK(world.contents("f") == bytes);
  }
  SUBCASE("changed: from the start") {
    while (world.origin.bytes() < 60'000) world.executor.run_one_until(world.executor.now());
    world.executor.run_ready();
    CHECK(handle.status().front().error == errc::connection_failed);
    CHECK_FALSE(handle.status().front().done);
    world.origin.put("mem://a/f", "other", "\"v2\"");
    CHECK_FALSE(only(handle).error);
    CHECK(world.contents("f") == "other");
  }
  CHECK(world.executor.now() > seconds(0));
  CHECK(world.executor.now() <= milliseconds(100));
}

TEST_CASE("it ends with the last error after so many rounds, and after one where that cannot help") {
  DownloadOptions options = InMemory::seeded();
  options.attempts = 4;
  InMemory world(options);
  world.origin.put("mem://a/f", "bytes");
  const auto fetch = [&](const FileSource& source) {
    return only(world.manager.batch_download({{"f", source}}, "/out"));
  };
  SUBCASE("unreachable") {
    world.origin.fail("mem://a/f", {errc::connection_failed}, 100);
    const DownloadStatus file = fetch("mem://a/f");
    CHECK(file.error == errc::connection_failed);
    CHECK(file.subject == "file 'f' from mem://a/f");
    CHECK(world.origin.transfers() == 4);
    CHECK(world.executor.now() < milliseconds(100 + 200 + 400));
  }
  SUBCASE("gone") {
    CHECK(fetch({{"mem://b/f", "mem://c/f"}, {}, {}}).error == errc::not_found);
    CHECK(world.origin.transfers() == 2);
    CHECK(world.executor.now() == seconds(0));
  }
  SUBCASE("one is gone, and the other may mend") {
    world.origin.fail("mem://a/f", {errc::timed_out}, 3);
    CHECK_FALSE(fetch({{"mem://a/f", "mem://c/f"}, {}, {}}).error);
    CHECK(world.origin.transfers("mem://a/f") == 4);
    CHECK(world.origin.transfers("mem://c/f") == 3);
  }
  SUBCASE("wrong bytes") {
    CHECK(fetch(known({"mem://a/f"}, "other")).error == errc::digest_mismatch);
    CHECK(world.origin.transfers() == 4);
  }
  SUBCASE("too long") { CHECK(fetch({{"mem://a/f"}, 4, {}}).error == errc::body_too_long); }
  SUBCASE("too short") { CHECK(fetch({{"mem://a/f"}, 6, {}}).error == errc::body_too_short); }
  SUBCASE("Retry-After is waited for, within limits") {
    world.origin.fail("mem://a/f", {errc::server_unavailable, 0, seconds(7)});
    world.origin.fail("mem://a/f", {errc::server_unavailable, 0, seconds(7000)});
    CHECK_FALSE(fetch("mem://a/f").error);
    CHECK(world.executor.now() >= seconds(17));
    CHECK(world.executor.now() < seconds(18));
    return;
  }
  CHECK(world.entries() == (world.contents("f") == "bytes" ? 1 : 0));
}

TEST_CASE("progress is told, in order, and what a callback throws changes nothing") {
  InMemory world;
  const std::string bytes = pattern_of(300'000);
  world.origin.put("mem://a/f", bytes);
  world.origin.fail("mem://a/f", {errc::connection_failed, 100'000});
  std::vector<DownloadStatus> told;
  const auto handle = world.manager.batch_download({{"f", "mem://a/f"}}, "/out", [&](const DownloadStatus& file) {
    told.push_back(file);
    throw 1;
  });
  CHECK(handle.succeeded());
  REQUIRE(told.size() > 5);
  CHECK(told.front().received == 0);
  CHECK(told.front().expected == 300'000);
  CHECK(told.back().received == 300'000);
  CHECK(std::is_sorted(told.begin(), told.end(),
                       [](const DownloadStatus& a, const DownloadStatus& b) { return a.received < b.received; }));
  CHECK(std::count_if(told.begin(), told.end(), [](const DownloadStatus& file) { return file.done; }) == 1);
  CHECK(told.back().done);
}

TEST_CASE("what is cancelled ends, whatever it does, and leaves nothing") {
  DownloadOptions options = InMemory::seeded();
  options.max_concurrent_files = 2;
  InMemory world(options);
  world.origin.put("mem://a/held", pattern_of(1000));
  world.origin.hold("mem://a/held", 500);
  world.origin.fail("mem://a/waiting", {errc::connection_failed}, 100);
  world.origin.put("mem://a/queued", "never asked for");
  const auto handle =
      world.manager.batch_download({{"a", "mem://a/held"}, {"b", "mem://a/waiting"}, {"c", "mem://a/queued"}}, "/out");
  world.executor.run_ready();
  CHECK(world.entries() == 2);
  handle.cancel();
  CHECK(handle.wait());
  CHECK(world.executor.now() == seconds(0));
  for (const DownloadStatus& file : handle.status()) CHECK(file.error == errc::cancelled);
  CHECK(world.entries() == 0);
  CHECK(world.origin.transfers("mem://a/queued") == 0);
  handle.cancel();
}

TEST_CASE("the destructor cancels, and handles outlive it") {
  MemoryOrigin origin;
  origin.put("mem://a/held", pattern_of(1000));
  origin.hold("mem://a/held", 500);
  const TempDir dir;
  std::optional<DownloadHandle> handle;
  SUBCASE("on threads") {
    DownloadManager<MemoryDownloader, AsioExecutor, PosixFileSystem> manager(MemoryDownloader(origin), AsioExecutor(2));
    handle = manager.pool_download({{"f", "mem://a/held"}}, dir.path());
  }
  SUBCASE("on none") {
    DownloadManager<MemoryDownloader, InlineExecutor, PosixFileSystem> manager{MemoryDownloader(origin),
                                                                               InlineExecutor()};
    handle = manager.pool_download({{"f", "mem://a/held"}}, dir.path());
  }
  CHECK(handle->wait());
  CHECK(handle->status().front().error == errc::cancelled);
  handle->cancel();
  CHECK(std::filesystem::is_empty(dir.path()));
}

TEST_CASE("no more files are under way than was asked for") {
  DownloadOptions options = InMemory::seeded();
  options.max_concurrent_files = 3;
  InMemory world(options);
  Files files;
  for (int i = 0; i < 30; ++i) {
    const std::string url = "mem://a/" + std::to_string(i);
    world.origin.put(url, pattern_of(100));
    world.origin.hold(url, 50);
    files[std::to_string(i)] = url;
  }
  const auto first = world.manager.batch_download(files, "/first");
  Files others;
  for (const auto& [name, source] : files) others["other-" + name] = source;
  const auto second = world.manager.pool_download(others, "/first");
  for (std::size_t i = 0; i < 28; ++i) {
    world.executor.run_ready();
    CHECK(world.entries() == i + 3);
    for (const DownloadStatus& file : first.status()) {
      if (!file.done && file.received > 0) {
        world.origin.release("mem://a/" + file.name);
        break;
      }
    }
  }
  for (const auto& [name, source] : files) world.origin.release("mem://a/" + name);
  CHECK(first.succeeded());
  CHECK(second.succeeded());
  CHECK(world.entries() == 60);
}

TEST_CASE("a batch syncs one file after another, before its rename, and the directory after it") {
  for (const Durability durability : {Durability::full, Durability::relaxed}) {
    DownloadOptions options = InMemory::seeded();
    options.durability = durability;
    InMemory world(options);
    world.origin.put("mem://a/f", "bytes");
    CHECK(world.manager.batch_download({{"f", "mem://a/f"}}, "/out").succeeded());
    std::vector<std::string> steps;
    for (const std::string& step : world.hooks.asked) {
      if (step.starts_with("sync") || step.starts_with("rename")) steps.push_back(step);
    }
    if (durability == Durability::full) {
      CHECK(steps == std::vector<std::string>{"sync_file .f.part", "rename .f.part", "sync_directory "});
      CHECK(world.disk->always_durable("f", "bytes"));
    } else {
      CHECK(steps == std::vector<std::string>{"rename .f.part"});
    }
  }
}

TEST_CASE("what the disk refuses is the result, at once, and nothing stays under either name") {
  for (int i = 0; i <= static_cast<int>(SimOperation::free_space); ++i) {
    const auto refused = static_cast<SimOperation>(i);
    InMemory world;
    const std::string bytes = pattern_of(2 << 20);
    world.origin.put("mem://a/f", bytes);
    bool met = false;
    world.hooks.refuse = [&](const SimCall& call) {
      // Unlinking may fail as well; then nothing can be done about it.
      if (call.operation != refused || refused == SimOperation::remove_file) return SimFault();
      met = true;
      return SimFault{errc::io_error};
    };
    const DownloadStatus file = only(world.manager.batch_download({{"f", known({"mem://a/f"}, bytes)}}, "/out"));
    CAPTURE(to_string(refused));
    CHECK(met == static_cast<bool>(file.error));
    CHECK(world.entries() == (met ? 0 : 1));
    if (met) CHECK(file.subject == "file 'f' in /out");
    CHECK(world.origin.transfers() <= 1);
  }
}

TEST_CASE("a full disk shows before the transfer, where the size is known") {
  InMemory world;
  const std::string bytes = pattern_of(2 << 20);
  world.origin.put("mem://a/f", bytes);
  world.disk->set_capacity(1 << 20);
  CHECK(only(world.manager.batch_download({{"f", known({"mem://a/f"}, bytes)}}, "/out")).error == errc::no_space);
  CHECK(world.origin.transfers() == 0);
  CHECK(only(world.manager.batch_download({{"f", "mem://a/f"}}, "/out")).error == errc::no_space);
  CHECK(world.entries() == 0);
  CHECK(world.disk->used() == 0);
}

TEST_CASE("an executor that refuses loses no file, and a round that it cannot wait for is the last") {
  MemoryOrigin origin;
  const TempDir dir;
  InlineExecutor executor = InlineExecutor::manual();
  const auto refuse = [](bool) { throw std::bad_alloc(); };
  using Executor = garner::test::Refusing<ExecutorRef<InlineExecutor>>;
  DownloadManager<MemoryDownloader, Executor, PosixFileSystem> manager(
      MemoryDownloader(origin), Executor(ExecutorRef<InlineExecutor>(executor), refuse));
  origin.put("mem://a/f", "bytes");
  CHECK(manager.batch_download({{"f", "mem://a/f"}, {"g", "mem://a/f"}}, dir.path()).succeeded());
  origin.fail("mem://a/f", {errc::connection_failed}, 100);
  CHECK(only(manager.pool_download({{"h", "mem://a/f"}}, dir.path())).error == errc::policy_failed);
}

TEST_CASE("through everything that a simulated network, disk and power do, no file is other than it should be") {
  std::map<std::string, int> ends;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    SeededDecisions decisions(seed);
    SimWorld world(decisions);
    SimNetwork network(world);
    SimMachine machine(world);
    Files files;
    std::map<std::string, std::string> expected;
    for (int i = 0; i < 6; ++i) {
      const std::string name = std::to_string(i);
      const std::string bytes = pattern_of(1 + decisions.choose(5000), static_cast<char>('a' + i));
      expected[name] = bytes;
      network.put("http://a/" + name, bytes);
      network.put("http://b/" + name, bytes);
      files[name] = known({"http://a/" + name, "http://b/" + name}, bytes);
    }
    world.faults = SimFaults::swarm(decisions);
    DownloadOptions options;
    options.seed = seed + 1;
    options.max_concurrent_files = 1 + decisions.choose(6);
    if (decisions.choose(2) == 0) machine.end_after(1 + decisions.choose(200));
    std::vector<DownloadStatus> told;
    {
      DownloadManager<SimDownloader, SimExecutor, SimFileSystem> manager(
          SimDownloader(network), SimExecutor(world), options,
          [&](const std::filesystem::path&, std::error_code&) { return machine.file_system(); });
      const auto handle =
          decisions.choose(2) == 0 ? manager.batch_download(files, "/sim") : manager.pool_download(files, "/sim");
      CHECK(handle.wait());
      told = handle.status();
    }
    CHECK(network.active() == 0);
    const bool ended = machine.ended();
    // What it told before the power went is a fact.
    world.faults = {};
    if (!ended) machine.end_now();
    machine.start();
    for (const DownloadStatus& file : told) {
      CHECK(file.done);
      ++ends[file.error ? file.error.message() : "done"];
      const std::string* const contents = machine.disk().contents(file.name);
      if (!file.error) REQUIRE(contents != nullptr);
      if (contents != nullptr) CHECK(*contents == expected[file.name]);
    }
  }
  CHECK(ends.size() > 5);
  CHECK(ends["done"] > 300);
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST_CASE("curl, nginx and a directory: bytes as they were, from several threads") {
  const TempDir root;
  const TempDir out;
  Files files;
  const Nginx nginx(root.path());
  for (int i = 0; i < 60; ++i) {
    const std::string name = "file-" + std::to_string(i);
    const std::string bytes = pattern_of(static_cast<std::size_t>(i) * 20'000, static_cast<char>(i));
    std::ofstream(root / name, std::ios::binary) << bytes;
    files[name] = i % 3 == 0 ? FileSource(nginx.origin() + "/" + name)
                             : known({nginx.origin() + "/is-missing", nginx.origin() + "/" + name}, bytes);
  }
  files["missing"] = nginx.origin() + "/missing";
  DownloadManager<CurlDownloader, AsioExecutor, PosixFileSystem> manager;
  std::atomic<std::uint64_t> told{0};
  const auto batch = manager.batch_download(files, out / "batch", [&](const DownloadStatus&) { ++told; });
  const auto pool = manager.pool_download(files, out / "pool");
  CHECK_FALSE(batch.succeeded());
  CHECK(pool.wait(seconds(60)));
  CHECK(told > 0);
  for (const DownloadHandle& handle : {batch, pool}) {
    for (const DownloadStatus& file : handle.status()) {
      CAPTURE(file.subject);
      if (file.name == "missing") {
        CHECK(file.error == errc::not_found);
        CHECK(file.subject.find(nginx.origin() + "/missing") != std::string::npos);
      } else {
        CHECK_FALSE(file.error);
        CHECK(read(out / "batch" / file.name) == read(root / file.name));
        CHECK(read(out / "pool" / file.name) == read(root / file.name));
      }
    }
  }
  for (const char* directory : {"batch", "pool"}) {
    CHECK(std::distance(std::filesystem::directory_iterator(out / directory), {}) == 60);
  }
}

TEST_CASE("curl goes on with a range where a connection was cut, and ends when it is cancelled") {
  const TempDir out;
  HttpServer server;
  const std::string bytes = pattern_of(300'000);
  int times = 0;
  server.on("/cut", [&](Exchange& exchange) {
    if (++times == 1) {
      exchange.send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 300000\r\n\r\n" + bytes.substr(0, 200'000));
      exchange.close();
    } else {
      exchange.serve(bytes, "\"v1\"");
    }
  });
  DownloadManager<CurlDownloader, AsioExecutor, PosixFileSystem> manager;
  CHECK(manager.pool_download({{"cut", server.url("/cut")}}, out.path()).succeeded());
  CHECK(read(out / "cut") == bytes);
  CHECK(server.requests().back().field("range") == "bytes=200000-");

  const Nginx nginx(out.path(), 50'000);
  const auto slow =
      manager.batch_download({{"slow", nginx.origin() + "/cut"}}, out.path(), [&](const DownloadStatus&) {});
  slow.cancel();
  CHECK(slow.wait(seconds(60)));
  CHECK(slow.status().front().error == errc::cancelled);
  CHECK(std::distance(std::filesystem::directory_iterator(out.path()), {}) == 1);
}

}  // namespace
