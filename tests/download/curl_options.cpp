// SPDX-License-Identifier: BSL-1.0
//
// What is chosen about HTTP (`Options::http`, `Options::allowed_hosts`), as a server sees it.
#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/error.hpp"
#include "garner/http_options.hpp"
#include "garner/status.hpp"
#include "support/certificate.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"
#include "support/nginx.hpp"
#include "support/temp_dir.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::HttpOptions;
using garner::Options;
using garner::test::Exchange;
using garner::test::Fetching;
using garner::test::HttpServer;
using garner::test::Nginx;
using garner::test::NginxTls;
using garner::test::TempDir;

namespace {

/// As a manager makes its downloader.
Fetching from(const HttpOptions& http) {
  Options options;
  options.http = http;
  return Fetching(CurlDownloader::from_options(options));
}

/// What construction says of `http`.
std::error_code rejection(const HttpOptions& http, std::string& subject) {
  Options options;
  options.http = http;
  try {
    const CurlDownloader downloader(options);
    return {};
  } catch (const garner::Error& error) {
    subject = error.what();
    return error.code();
  }
}

/// An nginx that wants a certificate of its clients.
struct Guarded {
  explicit Guarded(const std::string& password = {}) {
    garner::test::make_certificate(server_files.path(), "IP:127.0.0.1");
    garner::test::make_certificate(client_files.path(), "DNS:client", 3600, password);
    std::ofstream(root / "file") << "for friends";
  }

  [[nodiscard]] HttpOptions options() const {
    HttpOptions http;
    http.ca_bundle = server_files / "certificate.pem";
    http.client_certificate = client_files / "certificate.pem";
    http.client_key = client_files / "key.pem";
    return http;
  }

  TempDir root;
  TempDir server_files;
  TempDir client_files;
};

}  // namespace

TEST_CASE("the options of a manager are those of its downloader") {
  Options options;
  options.require_https = true;
  options.allowed_hosts = {"lake.example"};
  options.max_chunk_bytes = 77;
  options.http.user_agent = "me";
  options.http.low_speed_time = std::chrono::seconds(7);
  const garner::CurlSettings settings = CurlDownloader::from_options(options);
  CHECK(settings.require_https);
  CHECK(settings.allowed_hosts == options.allowed_hosts);
  CHECK(settings.max_file_bytes == 77);
  CHECK(settings.user_agent == "me");
  CHECK(settings.low_speed_time == std::chrono::seconds(7));
}

TEST_CASE("hostile 15: Options::allowed_hosts holds for the default downloader") {
  Options options;
  options.allowed_hosts = {"lake.example"};
  Fetching f(CurlDownloader::from_options(options));
  CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "ok"); })->error() == errc::connection_failed);
  CHECK(f.server.connections() == 0);
}

TEST_CASE("a server is told the user agent that was chosen") {
  HttpOptions http;
  http.user_agent = "worker/7";
  Fetching f = from(http);
  f.answer([](Exchange& e) { e.reply("200 OK", "ok"); });
  CHECK(f.server.requests().back().field("user-agent") == "worker/7");
}

TEST_CASE("a silent server is given up after the chosen time") {
  HttpOptions http;
  http.low_speed_time = std::chrono::seconds(1);
  Fetching f = from(http);
  CHECK(f.answer([](Exchange& e) { e.wait_for_hang_up(); })->error() == errc::timed_out);
}

TEST_CASE("a proxy is used where one was chosen, and its password is shown to nobody else") {
  HttpServer proxy;
  HttpOptions http;
  http.proxy = "http://me:s%3Acret@127.0.0.1:" + std::to_string(proxy.port());
  Fetching f = from(http);

  SUBCASE("for http it is asked for the whole URL, whose host need not resolve here") {
    proxy.on("http://lake.example/file", [](Exchange& e) { e.reply("200 OK", "by proxy"); });
    CHECK(f.fetch({"http://lake.example/file", 0, {}, {}})->bytes() == "by proxy");
    CHECK(proxy.requests().back().field("proxy-authorization") == "Basic bWU6czpjcmV0");
    CHECK(proxy.requests().back().fields.count("authorization") == 0);
  }
  SUBCASE("for https it is asked for a tunnel, and told nothing else") {
    const auto sink = f.fetch({"https://u:hunter2@lake.example/file", 0, {}, {}});
    CHECK(proxy.requests().back().method == "CONNECT");
    CHECK(proxy.requests().back().target == "lake.example:443");
    CHECK(proxy.requests().back().fields.count("authorization") == 0);
    CHECK(sink->error() == errc::connection_failed);
    CHECK(sink->result().detail.find("cret") == std::string::npos);
    CHECK(sink->result().detail.find("hunter2") == std::string::npos);
  }
  SUBCASE("what it says of itself is no answer of the server") {
    proxy.on("lake.example:443", [](Exchange& e) { e.reply("407 Proxy Authentication Required", "no"); });
    const auto sink = f.fetch({"https://lake.example/file", 0, {}, {}});
    CHECK(sink->error() == errc::connection_failed);
    CHECK_FALSE(sink->begun());
  }
}

TEST_CASE("hostile 15: a host that is not allowed is not asked of a proxy, and the proxy itself need not be allowed") {
  HttpServer proxy;
  proxy.on("http://lake.example/file", [](Exchange& e) { e.reply("200 OK", "by proxy"); });
  Options options;
  options.http.proxy = proxy.origin();
  options.allowed_hosts = {"lake.example", "10.0.0.0/8"};
  Fetching f(CurlDownloader::from_options(options));
  CHECK(f.fetch({"http://lake.example/file", 0, {}, {}})->bytes() == "by proxy");
  const int before = proxy.connections();
  CHECK(f.fetch({"http://other.example/file", 0, {}, {}})->error() == errc::connection_failed);
  CHECK(f.fetch({"http://127.0.0.9/file", 0, {}, {}})->error() == errc::connection_failed);
  CHECK(proxy.connections() == before);
}

TEST_CASE("a client's certificate opens what is closed without it") {
  std::string password;
  SUBCASE("") {}
  SUBCASE("with a key that a password guards") { password = "opensesame"; }
  const Guarded guarded(password);
  const Nginx server(guarded.root.path(), 0,
                     NginxTls{guarded.server_files.path(), true, guarded.client_files / "certificate.pem"});
  HttpOptions http = guarded.options();
  http.client_key_password = password;
  CHECK(from(http).fetch({server.origin() + "/file", 0, {}, {}})->bytes() == "for friends");
  http.client_certificate.clear();
  http.client_key.clear();
  const auto without = from(http).fetch({server.origin() + "/file", 0, {}, {}});
  CHECK(without->error() == errc::unexpected_status);  // nginx answers 400
}

TEST_CASE("hostile 17: a client's certificate is not shown after a redirect to another origin") {
  const Guarded guarded;
  const Nginx server(guarded.root.path(), 0,
                     NginxTls{guarded.server_files.path(), true, guarded.client_files / "certificate.pem"});
  Fetching f = from(guarded.options());
  const auto sink =
      f.answer([&](Exchange& e) { e.reply("302 Found", "", "Location: " + server.origin() + "/file\r\n"); });
  CHECK(sink->error() == errc::unexpected_status);
  CHECK(f.fetch({server.origin() + "/file", 0, {}, {}})->bytes() == "for friends");
}

TEST_CASE("what cannot be used is rejected at construction, and the error shows no secret") {
  const TempDir files;
  garner::test::make_certificate(files.path(), "DNS:client");
  std::string subject;
  HttpOptions http;
  SUBCASE("a proxy that is no URL") {
    http.proxy = "http://me:hunter2@a b";
    CHECK(rejection(http, subject) == errc::invalid_url);
  }
  SUBCASE("a proxy of another kind") {
    http.proxy = "ftp://me:hunter2@proxy";
    CHECK(rejection(http, subject) == errc::scheme_not_allowed);
  }
  SUBCASE("a file that is not there") {
    http.ca_bundle = files / "no.pem";
    CHECK(rejection(http, subject) == std::errc::no_such_file_or_directory);
    CHECK(subject.find("no.pem") != std::string::npos);
  }
  SUBCASE("a key without a certificate") {
    http.client_key = files / "key.pem";
    CHECK(rejection(http, subject) == std::errc::invalid_argument);
  }
  SUBCASE("a user agent of two lines") {
    http.user_agent = "me\r\nX-Smuggled: 1";
    CHECK(rejection(http, subject) == std::errc::invalid_argument);
  }
  CHECK(subject.find("hunter2") == std::string::npos);
  CHECK(subject != "");
}
