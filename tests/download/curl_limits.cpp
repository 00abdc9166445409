// SPDX-License-Identifier: BSL-1.0
//
// Limits of CurlDownloader that change while it runs: connections a host, and bytes a second over all transfers. Times
// are asserted from below alone.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/policies/downloader.hpp"
#include "support/certificate.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"
#include "support/nginx.hpp"
#include "support/temp_dir.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::test::CheckedSink;
using garner::test::Exchange;
using garner::test::Fetching;
using garner::test::Gate;
using garner::test::HttpServer;
using garner::test::Nginx;
using garner::test::NginxTls;
using garner::test::pattern;
using garner::test::TempDir;
using Clock = std::chrono::steady_clock;

namespace {

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Starts `count` transfers of one URL.
std::vector<std::shared_ptr<CheckedSink>> start(CurlDownloader& downloader, const std::string& url, std::size_t count,
                                                std::optional<std::uint64_t> size = {}) {
  std::vector<std::shared_ptr<CheckedSink>> sinks;
  for (std::size_t i = 0; i < count; ++i) {
    sinks.push_back(std::make_shared<CheckedSink>());
    downloader.start({url, 0, {}, size}, sinks.back());
  }
  return sinks;
}

void finish(const std::vector<std::shared_ptr<CheckedSink>>& sinks, const std::string& bytes) {
  for (const auto& sink : sinks) {
    REQUIRE(sink->wait());
    CHECK(sink->error() == std::error_code());
    CHECK(sink->bytes() == bytes);
    CHECK(sink->complaints() == "");
  }
}

/// Answers so many requests only when all of them have come.
struct Crowd {
  explicit Crowd(int wanted) : missing(wanted) {}
  void arrive(Exchange& e) {
    {
      const std::lock_guard lock(mutex);
      if (--missing == 0) all.open();
    }
    e.reply(all.wait() ? "200 OK" : "503 Alone", "ok");
  }
  std::mutex mutex;
  int missing;
  Gate all;
};

}  // namespace

TEST_CASE("N bytes at a rate of R take at least N / R, whatever carries them") {
  Fetching f;
  const std::string file = pattern(300'000);
  SUBCASE("of a declared length") {
    f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  }
  SUBCASE("chunked") {
    f.server.on("/file", [&](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      for (std::size_t at = 0; at < file.size(); at += 1000) e.send("3e8\r\n" + file.substr(at, 1000) + "\r\n");
      e.send("0\r\n\r\n");
    });
  }
  SUBCASE("to the end of the connection") {
    f.server.on("/file", [&](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\n\r\n" + file);
      e.close();
    });
  }
  f.downloader.set_limits({8, 1'000'000});
  const auto begin = Clock::now();
  finish(start(f.downloader, f.server.url("/file"), 5), file);
  CHECK(seconds_since(begin) >= 5 * 0.3 - 0.1);
}

TEST_CASE("one byte after the other passes at a low rate, and slow by order is not too slow") {
  CurlDownloader::Settings settings;
  settings.low_speed_bytes_per_second = 10'000;
  settings.low_speed_time = std::chrono::seconds(1);
  Fetching f(settings);
  const std::string file = pattern(6'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  f.downloader.set_limits({8, 4'000});
  const auto begin = Clock::now();
  finish(start(f.downloader, f.server.url("/file"), 2), file);
  CHECK(seconds_since(begin) >= 12.0 / 4 - 0.1);
}

TEST_CASE("hostile 29: a trickle is cut below a rate limit too") {
  CurlDownloader::Settings settings;
  settings.low_speed_bytes_per_second = 1'000;
  settings.low_speed_time = std::chrono::seconds(2);
  Fetching f(settings);
  f.downloader.set_limits({8, 20'000});
  const auto sink = f.answer([](Exchange& e) {
    // Enough to be held up once, so that it is not libcurl any more that looks.
    e.send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 100000\r\n\r\n" + std::string(30'000, 'x'));
    e.wait_for_hang_up();
  });
  CHECK(sink->error() == errc::timed_out);
  CHECK(sink->bytes().size() == 30'000);
}

TEST_CASE("a rate holds over TLS, and for what would share a connection") {
  const TempDir root;
  const TempDir files;
  garner::test::make_certificate(files.path(), "IP:127.0.0.1");
  const std::string file = pattern(300'000);
  std::ofstream(root / "file") << file;
  const Nginx server(root.path(), 0, NginxTls{files.path()});
  CurlDownloader::Settings settings;
  settings.ca_bundle = files / "certificate.pem";
  CurlDownloader downloader(settings);
  const std::string url = server.origin() + "/file";
  SUBCASE("from the begin") {
    downloader.set_limits({8, 1'000'000});
    const auto begin = Clock::now();
    finish(start(downloader, url, 4, file.size()), file);
    CHECK(seconds_since(begin) >= 4 * 0.3 - 0.1);
  }
  SUBCASE("set while they run") {
    const auto sinks = start(downloader, url, 20, file.size());
    downloader.set_limits({8, 3'000'000});
    finish(sinks, file);
  }
}

TEST_CASE("a rate can be lifted and set while transfers run, and nothing is lost") {
  Fetching f;
  const std::string file = pattern(3'000'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  f.downloader.set_limits({8, 10'000});
  const auto sinks = start(f.downloader, f.server.url("/file"), 8);
  REQUIRE(sinks.front()->wait_for_bytes(1));
  for (const std::uint64_t rate : {1'000'000U, 0U, 50'000U, 20'000'000U, 0U}) f.downloader.set_limits({8, rate});
  finish(sinks, file);
}

TEST_CASE("a transfer that is held up can be cancelled, and a downloader with such can end") {
  const std::string file = pattern(1'000'000);
  HttpServer server;
  server.on("/file", [&](Exchange& e) { e.serve(file); });
  std::vector<std::shared_ptr<CheckedSink>> sinks;
  {
    CurlDownloader downloader;
    downloader.set_limits({8, 10'000});
    const auto cancelled = std::make_shared<CheckedSink>();
    const auto transfer = downloader.start({server.url("/file"), 0, {}, {}}, cancelled);
    sinks = start(downloader, server.url("/file"), 20);
    REQUIRE(cancelled->wait_for_bytes(1));
    downloader.cancel(transfer);
    REQUIRE(cancelled->wait());
    CHECK(cancelled->error() == errc::cancelled);
  }
  for (const auto& sink : sinks) {
    CHECK(sink->error() == errc::cancelled);
    CHECK(sink->complaints() == "");
  }
}

TEST_CASE("a sink's error after a pause ends the transfer with it") {
  Fetching f;
  const std::string file = pattern(200'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  f.downloader.set_limits({8, 400'000});
  const auto sink = std::make_shared<CheckedSink>();
  sink->write_error = std::make_error_code(std::errc::no_space_on_device);
  sink->write_error_from = 50'000;
  f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink);
  REQUIRE(sink->wait());
  CHECK(sink->error() == std::errc::no_space_on_device);
  CHECK(sink->complaints() == "");
}

TEST_CASE("more connections are used as soon as more are allowed") {
  CurlDownloader::Settings settings;
  settings.loops = 1;
  settings.connections_per_host = 1;
  Fetching f(settings);
  Crowd crowd(4);
  f.server.on("/file", [&](Exchange& e) { crowd.arrive(e); });
  const auto sinks = start(f.downloader, f.server.url("/file"), 4);
  CHECK_FALSE(sinks.back()->wait(std::chrono::seconds(1)));
  f.downloader.set_limits({4, 0});
  finish(sinks, "ok");
}

TEST_CASE("fewer connections are opened as soon as fewer are allowed, whatever the number of loops") {
  Fetching f;
  f.downloader.set_limits({1, 0});
  f.server.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
  finish(start(f.downloader, f.server.url("/file"), 50), "ok");
  CHECK(f.server.connections() == 1);
}
