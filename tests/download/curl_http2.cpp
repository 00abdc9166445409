// SPDX-License-Identifier: BSL-1.0
//
// HTTP/2: which transfers share a connection and which do not, against nginx, and what a bad server of HTTP/2 gets,
// frame by frame. HOSTILE.md holds over it as over HTTP/1.1; what is here is what could differ.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/error.hpp"
#include "support/certificate.hpp"
#include "support/nginx.hpp"
#include "support/temp_dir.hpp"
#include "support/tls_server.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::ErrorClass;
using garner::test::CheckedSink;
using garner::test::H2Server;
using garner::test::make_certificate;
using garner::test::Nginx;
using garner::test::NginxTls;
using garner::test::pattern;
using garner::test::TempDir;

namespace {

constexpr std::size_t small_bytes = 3'000;
constexpr std::size_t large_bytes = 3'000'000;

/// An nginx with files, and a downloader that trusts it. One loop, so that one connection is what is shared.
struct Lake {
  explicit Lake(bool http2 = true) {
    make_certificate(files.path(), "IP:127.0.0.1");
    std::ofstream(root / "small") << pattern(small_bytes);
    std::ofstream(root / "large") << pattern(large_bytes);
    server.emplace(root.path(), 0, NginxTls{files.path(), http2});
    settings.ca_bundle = files / "certificate.pem";
    settings.loops = 1;
    settings.connections_per_host = 4;
  }

  /// Fetches files, all at once.
  void fetch(CurlDownloader& downloader, const std::vector<std::string>& names, bool sized = true) const {
    std::vector<std::shared_ptr<CheckedSink>> sinks;
    for (const std::string& name : names) {
      const std::uint64_t size = name == "small" ? small_bytes : large_bytes;
      sinks.push_back(std::make_shared<CheckedSink>());
      downloader.start({server->origin() + "/" + name, 0, {}, sized ? std::optional(size) : std::nullopt},
                       sinks.back());
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      REQUIRE(sinks[i]->wait());
      CHECK(sinks[i]->error() == std::error_code());
      CHECK(sinks[i]->bytes() == pattern(names[i] == "small" ? small_bytes : large_bytes));
      CHECK(sinks[i]->complaints() == "");
    }
  }

  /// By which protocol each file was asked for, and over which connections: "HTTP/2.0 small".
  [[nodiscard]] std::map<std::string, std::set<std::string>> connections() const {
    std::map<std::string, std::set<std::string>> out;
    for (const std::string& line : server->access_log()) {
      std::istringstream words(line);
      std::string protocol;
      std::string connection;
      std::string status;
      std::string path;
      words >> protocol >> connection >> status >> path;
      if (status == "200") out[protocol + " " + path.substr(1)].insert(connection);
    }
    return out;
  }

  TempDir root;
  TempDir files;
  std::optional<Nginx> server;
  CurlDownloader::Settings settings;
};

/// What is fetched from a server that does one thing.
std::shared_ptr<CheckedSink> fetch_from(const H2Server& server, std::optional<std::uint64_t> size = 10) {
  CurlDownloader::Settings settings;
  settings.ca_bundle = server.certificate();
  settings.low_speed_time = std::chrono::seconds(1);
  CurlDownloader downloader(settings);
  auto sink = std::make_shared<CheckedSink>();
  downloader.start({server.url(), 0, {}, size}, sink);
  REQUIRE(sink->wait());
  CHECK(sink->complaints() == "");
  return sink;
}
std::shared_ptr<CheckedSink> answer(const char* behaviour, std::optional<std::uint64_t> size = 10) {
  return fetch_from(H2Server(behaviour), size);
}

}  // namespace

TEST_CASE("small files share one connection over HTTP/2, and large ones have a connection each over HTTP/1.1") {
  const Lake lake;
  CurlDownloader downloader(lake.settings);
  std::vector<std::string> names(200, "small");
  for (const std::size_t at : {0U, 50U, 100U, 150U}) names[at] = "large";
  lake.fetch(downloader, names);
  lake.fetch(downloader, names);  // with what both have left open
  const auto connections = lake.connections();
  CHECK(connections.size() == 2);
  CHECK(connections.at("HTTP/2.0 small").size() == 1);
  CHECK(connections.at("HTTP/1.1 large").size() >= 2);
  CHECK(connections.at("HTTP/1.1 large").size() <= 4);
}

TEST_CASE("a file whose size is not known is not small") {
  const Lake lake;
  CurlDownloader downloader(lake.settings);
  lake.fetch(downloader, {"small", "large"}, false);
  CHECK(lake.connections().count("HTTP/1.1 small") == 1);
  CHECK(lake.connections().count("HTTP/2.0 small") == 0);
}

TEST_CASE("what is left of a file counts, and how much of one that is small can be chosen") {
  Lake lake;
  SUBCASE("the rest of a large one is small") {
    CurlDownloader downloader(lake.settings);
    const auto sink = std::make_shared<CheckedSink>();
    downloader.start({lake.server->origin() + "/large", large_bytes - 5, {}, large_bytes}, sink);
    REQUIRE(sink->wait());
    CHECK(sink->bytes() == pattern(large_bytes).substr(large_bytes - 5));
    CHECK(lake.server->access_log().back().starts_with("HTTP/2.0"));
  }
  SUBCASE("all are") {
    lake.settings.http2_max_bytes = large_bytes;
    CurlDownloader downloader(lake.settings);
    lake.fetch(downloader, {"large", "large", "small"});
    CHECK(lake.connections().size() == 2);
    CHECK(lake.connections().at("HTTP/2.0 large").size() == 1);
  }
  SUBCASE("none is") {
    lake.settings.http2_max_bytes = 0;
    CurlDownloader downloader(lake.settings);
    lake.fetch(downloader, {"large", "small", "small"});
    CHECK(lake.connections().count("HTTP/2.0 small") == 0);
  }
}

TEST_CASE("a server without HTTP/2 is asked over several connections after its first answer") {
  const Lake lake(false);
  CurlDownloader downloader(lake.settings);
  lake.fetch(downloader, std::vector<std::string>(200, "small"));
  const auto connections = lake.connections();
  CHECK(connections.size() == 1);
  CHECK(connections.at("HTTP/1.1 small").size() > 1);
  CHECK(connections.at("HTTP/1.1 small").size() <= 5);  // four, and the one that was to be shared
}

TEST_CASE("transfers over a shared connection are cancelled one by one") {
  const Lake lake;
  CurlDownloader downloader(lake.settings);
  std::vector<std::shared_ptr<CheckedSink>> sinks;
  for (int i = 0; i < 200; ++i) {
    sinks.push_back(std::make_shared<CheckedSink>());
    const auto transfer = downloader.start({lake.server->origin() + "/small", 0, {}, small_bytes}, sinks.back());
    if (i % 3 == 0) downloader.cancel(transfer);
  }
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    REQUIRE(sinks[i]->wait());
    const bool cancelled = i % 3 == 0 && sinks[i]->error() == errc::cancelled;
    if (!cancelled) CHECK(sinks[i]->bytes() == pattern(small_bytes));
    CHECK(sinks[i]->complaints() == "");
  }
}

TEST_CASE("the test's own server of HTTP/2 is one") {
  const auto sink = answer("good", 5);
  CHECK(sink->error() == std::error_code());
  CHECK(sink->bytes() == "hello");
  CHECK(sink->identity() == garner::SourceIdentity{5, "\"v1\"", ""});
  CHECK(answer("unknown_length", 5)->bytes() == "hello");
}

TEST_CASE("hostile 19 over HTTP/2: a body that is longer than is known is dropped") {
  CHECK(answer("good", 4)->error() == errc::body_too_long);
  CHECK(answer("unknown_length", 4)->error() == errc::body_too_long);
  CHECK(answer("endless")->error() == errc::body_too_long);
  const auto contradicted = answer("long");
  CHECK(contradicted->error() == errc::connection_failed);  // as the library under libcurl sees it
  CHECK(contradicted->bytes().size() <= 5);
}

TEST_CASE("hostile 20 over HTTP/2: a stream or a connection that ends early, in each part, is tried again") {
  for (const char* behaviour : {"short", "reset", "refused", "hang_up", "hang_up_early", "go_away", "not_http2"}) {
    CAPTURE(behaviour);
    const auto sink = answer(behaviour);
    CHECK(garner::classify(sink->error()) == ErrorClass::transient);
    CHECK(sink->bytes() == std::string("hello").substr(0, sink->bytes().size()));
  }
  CHECK(answer("unknown_length")->error() == errc::body_too_short);
  CHECK(answer("unknown_length")->bytes() == "hello");  // what came is kept, to go on from
}

TEST_CASE("hostile 16, 23 and 24 over HTTP/2: redirects to http, error pages and encodings") {
  CHECK(answer("to_http")->error() == errc::redirect_not_allowed);
  CHECK(answer("forbidden")->error() == errc::credentials_rejected);
  CHECK(answer("encoded")->error() == errc::encoding_not_allowed);
}

TEST_CASE("hostile 29 over HTTP/2: silence is cut, and the connection that fell silent is left alone") {
  const auto late = answer("silent_body");
  CHECK(late->error() == errc::timed_out);
  CHECK(late->bytes() == "hello");

  const H2Server server("silent");
  CurlDownloader::Settings settings;
  settings.ca_bundle = server.certificate();
  settings.low_speed_time = std::chrono::seconds(1);
  settings.loops = 1;
  CurlDownloader downloader(settings);
  for (int i = 0; i < 2; ++i) {
    const auto sink = std::make_shared<CheckedSink>();
    downloader.start({server.url(), 0, {}, 10}, sink);
    REQUIRE(sink->wait());
    // The second asks by HTTP/1.1, and this server answers in frames all the same.
    CHECK(sink->error() == (i == 0 ? errc::timed_out : errc::malformed_response));
  }
}

TEST_CASE("hostile 30 over HTTP/2: endless and huge headers are cut at a cap") {
  CHECK(answer("large_head")->error() == errc::malformed_response);
  CHECK(answer("informational")->error() == errc::malformed_response);
  for (const char* behaviour : {"many_fields", "trailers"}) {
    CAPTURE(behaviour);
    CHECK(answer(behaviour)->error() != std::error_code());  // the library under libcurl has caps of its own
  }
}

TEST_CASE("hostile 31 over HTTP/2: lengths and a status that cannot be are dropped") {
  for (const char* behaviour : {"two_lengths", "odd_length", "odd_status"}) {
    CAPTURE(behaviour);
    const auto sink = answer(behaviour);
    CHECK(sink->error() == errc::connection_failed);
    CHECK_FALSE(sink->begun());
  }
}
