// SPDX-License-Identifier: BSL-1.0
//
// Who asks: headers of a source, credentials of a host, signatures; where they go, and where never. HOSTILE.md, rows 13
// and 17. Against a real S3 server: download/s3.
#include "garner/download/credentials.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/error.hpp"
#include "garner/http_header.hpp"
#include "garner/http_options.hpp"
#include "support/aws_signature.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::HostCredentials;
using garner::HttpHeader;
using garner::S3Keys;
using garner::detail::CredentialStore;
using garner::detail::CurlUrl;
using garner::detail::encode_for_signature;
using garner::test::Exchange;
using garner::test::Fetching;
using garner::test::HttpServer;

namespace {

using Headers = std::vector<HttpHeader>;

/// A downloader that has credentials for a server.
struct Known {
  explicit Known(HostCredentials credentials) : fetching(settings(std::move(credentials), server.origin())) {
    server.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
  }
  static CurlDownloader::Settings settings(HostCredentials credentials, const std::string& origin) {
    CurlDownloader::Settings settings;
    if (credentials.host.empty()) credentials.host = origin;
    settings.credentials = {std::move(credentials)};
    return settings;
  }

  /// What the server was asked with.
  Exchange ask(const std::string& url, Headers headers = {}) {
    fetching.fetch({url, 0, {}, {}, std::move(headers)});
    return server.requests().back();
  }

  HttpServer server;
  Fetching fetching;
};

HostCredentials with_token() {
  HostCredentials out;
  out.headers = {{"X-Tenant", "seven"}};
  out.bearer_token = "hunter2";
  return out;
}

HostCredentials with_keys() {
  HostCredentials out;
  out.s3 = S3Keys{"AKIDEXAMPLE", "hunter2", "", "eu-west-1", "s3"};
  return out;
}

CurlUrl parse(const std::string& text) {
  CurlUrl url;
  REQUIRE(CurlUrl::parse(text, false, url) == std::error_code());
  return url;
}

}  // namespace

TEST_CASE("a source's headers go along with its request") {
  Fetching f;
  f.server.on("/file", [](Exchange& e) { e.serve("0123456789"); });
  const Headers headers = {{"Authorization", "Bearer abc"}, {"X-Empty", ""}, {"X-Two", "a: b; c"}};
  CHECK(f.fetch({f.server.url("/file"), 4, {10, "\"v1\"", ""}, 10, headers})->bytes() == "456789");
  const Exchange request = f.server.requests().back();
  CHECK(request.field("authorization") == "Bearer abc");
  CHECK(request.fields.count("x-empty") == 1);
  CHECK(request.field("x-empty") == "");
  CHECK(request.field("x-two") == "a: b; c");
  CHECK(request.field("range") == "bytes=4-");
  CHECK(request.field("if-range") == "\"v1\"");
  CHECK(request.field("accept-encoding") == "identity");

  SUBCASE("and not with the next one") {
    f.fetch({f.server.url("/file"), 0, {}, {}});
    CHECK(f.server.requests().back().fields.count("authorization") == 0);
    CHECK(f.server.requests().back().fields.count("x-two") == 0);
  }
}

TEST_CASE("a header that validation would reject is not sent, and nothing is, and its value is in no message") {
  Fetching f;
  for (const HttpHeader& header : Headers{{"Host", "hunter2"},
                                          {"range", "bytes=0-hunter2"},
                                          {"X-A", "hunter2\r\nX-B: 1"},
                                          {"X A: hunter2", "hunter2"},
                                          {"Proxy-Authorization", "hunter2"}}) {
    const auto sink = f.fetch({f.server.url("/file"), 0, {}, {}, {header}});
    CHECK(sink->error() == errc::invalid_header);
    CHECK(sink->result().detail.find("hunter2") == std::string::npos);
  }
  CHECK(f.server.connections() == 0);
}

TEST_CASE("a host's credentials go along with every request of it") {
  SUBCASE("a token and headers") {
    Known known(with_token());
    const Exchange request = known.ask(known.server.url("/file"));
    CHECK(request.field("authorization") == "Bearer hunter2");
    CHECK(request.field("x-tenant") == "seven");
  }
  SUBCASE("a user and a password") {
    HostCredentials credentials;
    credentials.user = "user";
    credentials.password = "s:cret";
    Known known(credentials);
    CHECK(known.ask(known.server.url("/file")).field("authorization") == "Basic dXNlcjpzOmNyZXQ=");
  }
  SUBCASE("keys, as a signature") {
    HostCredentials credentials = with_keys();
    credentials.s3->session_token = "temporary";
    Known known(credentials);
    const Exchange request = known.ask(known.server.url("/file"));
    const std::string said = request.field("authorization");
    CHECK(said.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
    CHECK(said.find("/eu-west-1/s3/aws4_request") != std::string::npos);
    CHECK(said.find("x-amz-security-token") != std::string::npos);
    CHECK(said.find("hunter2") == std::string::npos);
    CHECK(request.field("x-amz-security-token") == "temporary");
    CHECK(request.fields.count("x-amz-date") == 1);
    CHECK(request.fields.count("x-amz-content-sha256") == 1);
  }
}

TEST_CASE("a signature is the one that a server makes of the request, whatever its path, its query and its headers") {
  HostCredentials credentials = with_keys();
  SUBCASE("with keys that stay") {}
  SUBCASE("with temporary keys") { credentials.s3->session_token = "FwoGZXIvYXdzEJr//a+b=="; }
  SUBCASE("for another service") { credentials.s3->service = "execute-api"; }
  Known known(credentials);
  for (const char* target :
       {"/file", "/", "/a/b.parquet", "/date=2024-01-01/part+0.parquet", "/%41%2b%c3%a4/x%20y", "/a?versionId=abc",
        "/a?z=1&a=2", "/a?flag&list-type=2&prefix=x/y", "/a?x=%7e%2F&y=a+b", "/a?b=&a", "/it's/(a)/!$&,;:@*"}) {
    CAPTURE(target);
    const Exchange plain = known.ask(known.server.url(target));
    CHECK(garner::test::has_valid_signature(plain, "hunter2"));
    CHECK_FALSE(garner::test::has_valid_signature(plain, "hunter3"));
    const Exchange more =
        known.ask(known.server.url(target), {{"X-Own", "a  b"}, {"x-amz-request-payer", "requester"}});
    CHECK(garner::test::has_valid_signature(more, "hunter2"));
  }
  const auto rest = known.fetching.fetch({known.server.url("/file"), 1, {2, "\"v1\"", ""}, 2});
  CHECK(garner::test::has_valid_signature(known.server.requests().back(), "hunter2"));
  CHECK(known.server.requests().back().field("range") == "bytes=1-");
}

TEST_CASE("what a source brings along itself comes before its host's credentials") {
  SUBCASE("a header of the same name") {
    Known known(with_token());
    const Exchange request = known.ask(known.server.url("/file"), {{"x-tenant", "eight"}});
    CHECK(request.field("x-tenant") == "eight");
    CHECK(request.field("authorization") == "Bearer hunter2");
  }
  SUBCASE("an Authorization header") {
    Known known(with_keys());
    CHECK(known.ask(known.server.url("/file"), {{"authorization", "Bearer own"}}).field("authorization") ==
          "Bearer own");
  }
  SUBCASE("a user in its URL") {
    Known known(with_token());
    const std::string url = "http://user:s%3Acret@" + known.server.url("/file").substr(7);
    const Exchange request = known.ask(url);
    CHECK(request.field("authorization") == "Basic dXNlcjpzOmNyZXQ=");
    CHECK(request.field("x-tenant") == "seven");
  }
  SUBCASE("a signature in its query") {
    Known known(with_keys());
    CHECK(known.ask(known.server.url("/file?X-Amz-Signature=abc")).fields.count("authorization") == 0);
  }
}

TEST_CASE("hostile 17: headers, tokens and signatures stay behind on the way to another origin") {
  HttpServer other;
  const auto clean = [](const Exchange& request) {
    for (const char* name :
         {"authorization", "x-own", "x-tenant", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}) {
      CAPTURE(name);
      CHECK(request.fields.count(name) == 0);
    }
  };
  HostCredentials signing = with_keys();
  signing.s3->session_token = "temporary";
  for (const HostCredentials& credentials : {with_token(), signing}) {
    Known known(credentials);
    known.server.on("/away", [&](Exchange& e) { e.reply("302 F", "", "Location: " + other.url("/file") + "\r\n"); });
    known.server.on("/near", [](Exchange& e) { e.reply("302 F", "", "Location: /file\r\n"); });
    const Headers headers = {{"X-Own", "hunter2"}};

    other.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
    const auto sink = known.fetching.fetch({known.server.url("/away"), 0, {}, {}, headers});
    CHECK(sink->bytes() == "ok");
    clean(other.requests().back());

    // Nor are they back where that leads home again,
    other.on("/file", [&](Exchange& e) { e.reply("302 F", "", "Location: " + known.server.url("/file") + "\r\n"); });
    known.fetching.fetch({known.server.url("/away"), 0, {}, {}, headers});
    CHECK(known.server.requests().back().target == "/file");
    clean(known.server.requests().back());
    // nor sent to where a redirect leads from outside.
    known.fetching.fetch({other.url("/file"), 0, {}, {}});
    CHECK(known.server.requests().back().target == "/file");
    clean(known.server.requests().back());
    // Within the origin they go along.
    known.fetching.fetch({known.server.url("/near"), 0, {}, {}, headers});
    CHECK(known.server.requests().back().target == "/file");
    CHECK(known.server.requests().back().field("x-own") == "hunter2");
    CHECK(known.server.requests().back().fields.count("authorization") == 1);
  }
}

TEST_CASE("hostile 13: headers, tokens and keys are in no message") {
  HostCredentials credentials;
  SUBCASE("a token") { credentials = with_token(); }
  SUBCASE("keys") { credentials = with_keys(); }
  SUBCASE("a password") {
    credentials.user = "me";
    credentials.password = "hunter2";
  }
  Known known(credentials);
  const std::vector<HttpServer::Script> answers = {
      [](Exchange& e) { e.reply("403 Forbidden", "no"); },
      [](Exchange& e) { e.close(); },
      [](Exchange& e) { e.reply("302 F", "", "Location: file:///x\r\n"); },
      [](Exchange& e) { e.send("garbage\r\n\r\n"); },
  };
  for (const auto& answer : answers) {
    known.server.on("/file", answer);
    const auto sink = known.fetching.fetch({known.server.url("/file"), 0, {}, {}, {{"X-Own", "hunter2"}}});
    CHECK(sink->error() != std::error_code());
    CHECK(sink->result().detail.find("hunter2") == std::string::npos);
    CHECK(sink->result().detail.find("AKID") == std::string::npos);
  }
}

TEST_CASE("credentials are for a name over https, for all names below one, or for an origin") {
  const auto one = [](const std::string& host) {
    HostCredentials credentials;
    credentials.host = host;
    credentials.bearer_token = host;
    return credentials;
  };
  const CredentialStore store({one("Lake.example"), one(".pond.example"), one("http://10.0.0.7:9000"),
                               one("https://river.example"), one("pond.example")});
  const auto find = [&](const std::string& url) {
    const HostCredentials* found = store.find(parse(url));
    return found != nullptr ? found->host : std::string();
  };
  CHECK(find("https://lake.example/x") == "Lake.example");
  CHECK(find("https://LAKE.example:8443/x") == "Lake.example");
  CHECK(find("http://lake.example/x") == "");
  CHECK(find("https://a.lake.example/x") == "");
  CHECK(find("https://lake.example.evil.example/x") == "");
  CHECK(find("https://a.pond.example/x") == ".pond.example");
  CHECK(find("https://pond.example/x") == "pond.example");
  CHECK(find("https://evilpond.example/x") == "");
  CHECK(find("http://10.0.0.7:9000/x") == "http://10.0.0.7:9000");
  CHECK(find("https://10.0.0.7:9000/x") == "");
  CHECK(find("http://10.0.0.7/x") == "");
  CHECK(find("https://river.example:443/x") == "https://river.example");
  CHECK(find("https://river.example:8443/x") == "");
}

TEST_CASE("credentials that cannot be meant are rejected at construction, and the error shows no secret") {
  const auto rejected = [](const HostCredentials& credentials) -> std::error_code {
    try {
      const CurlDownloader downloader(Known::settings(credentials, "x"));
      return {};
    } catch (const garner::Error& error) {
      CHECK(std::string(error.what()).find("hunter2") == std::string::npos);
      return error.code();
    }
  };
  HostCredentials credentials = with_token();
  for (const char* host : {"", ".", "https://", "lake.example/path", "https://lake.example/path", "ftp://lake.example",
                           "https://me:hunter2@lake.example", "lake example", "*.lake.example:x"}) {
    CAPTURE(host);
    credentials.host = host;
    const CredentialStore none({});
    CHECK_THROWS_AS(const CredentialStore store({credentials}), garner::Error);
  }
  credentials.host = "lake.example";
  CHECK(rejected(credentials) == std::error_code());
  credentials.user = "and a user";
  CHECK(rejected(credentials) == std::errc::invalid_argument);
  credentials = with_token();
  credentials.bearer_token = "hunter2\r\nX-B: 1";
  CHECK(rejected(credentials) == errc::invalid_header);
  credentials = with_token();
  credentials.headers = {{"Host", "hunter2"}};
  CHECK(rejected(credentials) == errc::invalid_header);
  credentials = with_keys();
  credentials.s3->session_token = "hunter2\n";
  CHECK(rejected(credentials) == errc::invalid_header);
}

TEST_CASE("what is signed is encoded as servers encode it before they check") {
  CHECK(encode_for_signature("http://h/a/b.c~d_e-f") == "http://h/a/b.c~d_e-f");
  CHECK(encode_for_signature("http://h:1/date=2024/a+b") == "http://h:1/date%3D2024/a%2Bb");
  CHECK(encode_for_signature("http://h/%41%2f%c3%a4%") == "http://h/A/%C3%A4%25");
  CHECK(encode_for_signature("http://h/a?z=1&a=x/y&b#f") == "http://h/a?a=x%2Fy&b=&z=1");
  CHECK(encode_for_signature("http://h") == "http://h");
}
