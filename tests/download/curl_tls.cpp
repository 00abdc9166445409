// SPDX-License-Identifier: BSL-1.0
//
// CurlDownloader over TLS: which certificates it accepts, and that it never goes back to none. Needs the `openssl`
// program. HOSTILE.md, rows 16 and 32.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"
#include "support/tls_server.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::test::Fetching;
using garner::test::TlsServer;

namespace {

const std::string ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

CurlDownloader::Settings trusting(const TlsServer& server) {
  CurlDownloader::Settings settings;
  settings.ca_bundle = server.certificate();
  return settings;
}

}  // namespace

TEST_CASE("a certificate of a trusted authority, for this host, is accepted") {
  const TlsServer server("IP:127.0.0.1", 3600, ok);
  Fetching f(trusting(server));
  const auto sink = f.fetch({server.url(), 0, {}, {}});
  CHECK(sink->error() == std::error_code());
  CHECK(sink->bytes() == "ok");
}

TEST_CASE("hostile 32: a self-signed certificate is not accepted") {
  const TlsServer server("IP:127.0.0.1", 3600, ok);
  Fetching f;
  const auto sink = f.fetch({server.url(), 0, {}, {}});
  CHECK(sink->error() == errc::tls_failed);
  CHECK_FALSE(sink->begun());
}

TEST_CASE("hostile 32: an expired certificate is not accepted") {
  const TlsServer server("IP:127.0.0.1", -3600, ok);
  Fetching f(trusting(server));
  CHECK(f.fetch({server.url(), 0, {}, {}})->error() == errc::tls_failed);
}

TEST_CASE("hostile 32: a certificate for another host is not accepted") {
  const TlsServer server("DNS:other.example", 3600, ok);
  Fetching f(trusting(server));
  CHECK(f.fetch({server.url(), 0, {}, {}})->error() == errc::tls_failed);
}

TEST_CASE("hostile 32: a server without TLS is not talked to without it") {
  CurlDownloader::Settings settings;
  settings.connect_timeout = std::chrono::milliseconds(500);  // it waits for a request, we for a handshake
  Fetching f(settings);
  const auto sink = f.fetch({"https" + f.server.url("/file").substr(4), 0, {}, {}});
  CHECK(sink->error() == errc::timed_out);
  CHECK_FALSE(sink->begun());
  CHECK(f.server.connections() == 1);
  CHECK(f.server.requests().empty());
}

TEST_CASE("hostile 20 over TLS: what is cut in any part is tried again, and a size tells what TLS does not") {
  const auto answer = [](const char* behaviour, std::optional<std::uint64_t> size = {}) {
    const garner::test::H2Server server(behaviour);
    CurlDownloader::Settings settings;
    settings.ca_bundle = server.certificate();
    settings.http2_max_bytes = 0;
    return Fetching(settings).fetch({server.url(), 0, {}, size});
  };
  for (const char* behaviour : {"raw_declared_cut", "raw_declared_closed", "raw_declared_reset", "raw_head_cut",
                                "raw_nothing", "raw_chunked_cut"}) {
    CAPTURE(behaviour);
    const auto sink = answer(behaviour);
    CHECK(garner::classify(sink->error()) == garner::ErrorClass::transient);
    CHECK((sink->bytes().empty() || sink->bytes() == "hello"));
  }
  CHECK(answer("raw_declared_closed")->error() == errc::body_too_short);
  CHECK(answer("raw_declared_closed")->bytes() == "hello");
  CHECK(answer("raw_declared_cut")->bytes() == "hello");  // what came is kept, to go on from
  CHECK(answer("raw_endless_closed")->bytes() == "hello");
  CHECK(answer("raw_endless_closed", 5)->error() == std::error_code());
  CHECK(answer("raw_endless_cut", 10)->error() == errc::body_too_short);
}

TEST_CASE("hostile 16: a redirect from https to http is not followed") {
  garner::test::HttpServer plain;
  plain.on("/file", [](garner::test::Exchange& e) { e.reply("200 OK", "ok"); });
  const TlsServer server("IP:127.0.0.1", 3600,
                         "HTTP/1.1 302 Found\r\nLocation: " + plain.url("/file") + "\r\nContent-Length: 0\r\n\r\n");
  Fetching f(trusting(server));
  const auto sink = f.fetch({server.url(), 0, {}, {}});
  CHECK(sink->error() == errc::redirect_not_allowed);
  CHECK(plain.connections() == 0);
}

TEST_CASE("a connection whose handshake fails is closed at once") {
  // libcurl does not say so (CurlDriver), and the server would wait for ever.
  CurlDownloader::Settings settings;
  settings.connect_timeout = std::chrono::milliseconds(500);
  Fetching f(settings);
  const auto open_descriptors = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto before = open_descriptors();
  for (int i = 0; i < 3; ++i) {
    CHECK(f.fetch({"https" + f.server.url("/file").substr(4), 0, {}, {}})->error() == errc::timed_out);
  }
  CHECK(open_descriptors() <= before + 1);  // the server may not have seen the last one's end yet
}
