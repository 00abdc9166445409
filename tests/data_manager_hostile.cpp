// SPDX-License-Identifier: BSL-1.0
//
// Rows of HOSTILE.md that a transfer alone cannot show: what the default policies together make of a bad mirror, and
// where credentials must not turn up.
#include <doctest/doctest.h>
#include <garner/garner.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/http_server.hpp"
#include "support/temp_dir.hpp"

using garner::DataChunk;
using garner::Digest;
using garner::FileSource;
using garner::test::Exchange;
using garner::test::HttpServer;
using garner::test::TempDir;

namespace {

constexpr std::chrono::seconds patience(30);
const std::string hello_sha256 = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

DataChunk chunk_of(FileSource source) {
  DataChunk chunk;
  chunk.id = garner::ChunkId::from_name("c");
  chunk.dataset_id = garner::DatasetId::from_name("d");
  chunk.block_range = {0, 10};
  chunk.files["file"] = std::move(source);
  return chunk;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// All that lies in a directory, names and bytes.
std::string everything_in(const std::filesystem::path& directory) {
  std::string all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    all += entry.path().string() + "\n";
    if (entry.is_regular_file()) all += read(entry.path()) + "\n";
  }
  return all;
}

/// What a manager fetched of the first mirror and the second.
std::string fetch_past(HttpServer::Script bad, std::optional<std::uint64_t> size) {
  HttpServer server;
  server.on("/bad", std::move(bad));
  server.on("/good", [](Exchange& e) { e.serve("hello"); });
  const TempDir data_dir;
  garner::DataManager<> manager(data_dir.path());
  const DataChunk chunk =
      chunk_of(FileSource({server.url("/bad"), server.url("/good")}, size, Digest::parse(hello_sha256)));
  manager.download_chunk(chunk);
  REQUIRE(manager.wait_converged(patience));
  CHECK(server.requests().size() >= 2);
  const auto pin = manager.find_chunk(chunk.dataset_id, 0);
  REQUIRE(pin);
  return read(pin->path() / "file");
}

}  // namespace

TEST_CASE("hostile 21: wrong bytes of the right length are dropped, and the next mirror is asked") {
  CHECK(fetch_past([](Exchange& e) { e.serve("jello"); }, 5) == "hello");
  CHECK(fetch_past([](Exchange& e) { e.serve("jello"); }, std::nullopt) == "hello");
}

TEST_CASE("hostile 22: an error page with status 200 is dropped where only a digest is known") {
  CHECK(fetch_past([](Exchange& e) { e.reply("200 OK", "<html>sorry</html>"); }, std::nullopt) == "hello");
}

TEST_CASE("hostile 13: credentials are in no file of a store, no event and no status") {
  HttpServer server;
  const TempDir data_dir;
  const std::string body(300'000, 'x');
  garner::Options options;
  options.checkpoint_bytes = 10'000;
  garner::HostCredentials credentials;
  credentials.host = server.origin();
  credentials.headers = {{"X-Host", "hunter2-host"}};
  credentials.bearer_token = "hunter2-token";
  options.http.credentials = {credentials};

  std::mutex mutex;
  std::string told;
  std::atomic<int> asked{0};
  server.on("/file", [&](Exchange& e) {
    CHECK(e.field("x-own") == "hunter2-own");
    CHECK(e.field("x-host") == "hunter2-host");
    switch (++asked) {
      case 1: return static_cast<void>(e.reply("503 Busy", "hunter2-body"));
      case 2:
        // Enough for a note of where it came from.
        e.send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 300000\r\n\r\n" + body.substr(0, 280'000));
        return e.close();
      default: return static_cast<void>(e.serve(body));
    }
  });
  garner::DataManager<> manager(data_dir.path(), options);
  const auto subscription = manager.subscribe([&](const garner::Event& event) {
    const std::lock_guard lock(mutex);
    told += event.subject + "\n" + event.error.message() + "\n" + everything_in(data_dir.path() / "staging");
  });
  DataChunk chunk = chunk_of(server.url("/file?X-Amz-Signature=hunter2-signature"));
  chunk.files["file"].headers = {{"X-Own", "hunter2-own"}};
  manager.download_chunk(chunk);
  const bool converged = manager.wait_converged(patience);
  CAPTURE(manager.chunk_status(chunk.id)->last_error_subject);
  REQUIRE(converged);
  CHECK(server.requests().size() >= 3);
  CHECK(everything_in(data_dir.path()).find("hunter2") == std::string::npos);
  CHECK(manager.chunk_status(chunk.id)->last_error_subject.find("hunter2") == std::string::npos);
  const auto pin = manager.find_chunk(chunk.dataset_id, 0);
  REQUIRE(pin);
  CHECK(read(pin->path() / "file") == body);
  manager.close();
  const std::lock_guard lock(mutex);
  CHECK(told.find("127.0.0.1") != std::string::npos);
  CHECK(told.find("hunter2") == std::string::npos);
}
