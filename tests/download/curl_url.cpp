// SPDX-License-Identifier: BSL-1.0
//
// URLs: what is accepted, what is taken out of them, where redirects may lead. HOSTILE.md, rows 11 to 14.
#include "garner/download/curl_url.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "garner/download/curl_downloader.hpp"

using garner::errc;
using garner::detail::CurlUrl;

namespace {

CurlUrl parse(std::string_view text) {
  CurlUrl url;
  REQUIRE(CurlUrl::parse(text, false, url) == std::error_code());
  return url;
}

}  // namespace

TEST_CASE("hostile 11: a URL that does not parse, or has CR, LF, a space or a NUL in it, is rejected") {
  const garner::CurlDownloader downloader;
  for (const std::string_view text :
       {"", "http://", "http:", "://a/b", "a/b", "lake.example/file", "//lake.example/file", "http://a b/",
        "http://a/b c", "http://a/\r\nX: y", "http://a/\n", "http://a/\t", "http://a\x7f/", "http://u@v@b/",
        "http://a:99999/", "http://a:x/", "http://[::1/", "http://a/\xc3\xa9", "http://u%0d%0aX:p@a/"}) {
    CAPTURE(text);
    CHECK(downloader.check_url(text) == errc::invalid_url);
  }
  CHECK(downloader.check_url(std::string_view("http://a\0.b/", 12)) == errc::invalid_url);
  for (const std::string_view text : {"http://a", "https://a/b?c=d#e", "HTTP://A/", "http://127.0.0.1:8080/x",
                                      "http://[::1]:80/", "http://u:p@a/", "http://a/%20%0d%0a"}) {
    CAPTURE(text);
    CHECK(downloader.check_url(text) == std::error_code());
  }
}

TEST_CASE("hostile 12: a scheme that is not http or https is rejected") {
  const garner::CurlDownloader downloader;
  for (const std::string_view text :
       {"file:///etc/passwd", "FILE:///etc/passwd", "gopher://a/", "scp://a/b", "dict://a/b", "ftp://a/b", "ldap://a/b",
        "smb://a/b", "telnet://a/", "javascript://a/", "httpx://a/", "ws://a/"}) {
    CAPTURE(text);
    CHECK(downloader.check_url(text) == errc::scheme_not_allowed);
  }
}

TEST_CASE("hostile 12: http is rejected where https is required") {
  garner::Options options;
  options.require_https = true;
  const garner::CurlDownloader downloader(options);
  CHECK(downloader.check_url("http://a/") == errc::scheme_not_allowed);
  CHECK(downloader.check_url("https://a/") == std::error_code());
}

TEST_CASE("hostile 13: credentials are taken out of a URL") {
  const CurlUrl url = parse("https://us%40er:p%2Fw%3A%23@lake.example/a?b=c");
  CHECK(url.user() == "us@er");
  CHECK(url.password() == "p/w:#");
  CHECK(url.text() == "https://lake.example/a?b=c");
}

TEST_CASE("hostile 14: what was checked is what is fetched") {
  CHECK(parse("http://a#@b/").host() == "a");
  CHECK(parse("http://a?@b/").host() == "a");
  CHECK(parse("http://a/@b/").host() == "a");
  CHECK(parse("http://127.1/").host() == "127.0.0.1");
  CHECK(parse("http://0x7f000001/").host() == "127.0.0.1");
  CHECK(parse("http://LAKE.example/").host() == "lake.example");
  CHECK(parse("http://[::1]/").host() == "::1");
}

TEST_CASE("an origin is the scheme, the host and the port, said or implied") {
  CHECK(parse("http://a/x").origin() == parse("http://A:80/y?z").origin());
  CHECK(parse("http://a/").origin() != parse("https://a/").origin());
  CHECK(parse("http://a/").origin() != parse("http://a:81/").origin());
  CHECK(parse("http://a/").origin() != parse("http://b/").origin());
}

TEST_CASE("a redirect is resolved from where it was said") {
  const CurlUrl from = parse("http://u:p@a:81/dir/file?q=1");
  CurlUrl next;
  REQUIRE(from.resolve("other", false, next) == std::error_code());
  CHECK(next.text() == "http://a:81/dir/other");
  REQUIRE(from.resolve("/top?x=y z", false, next) == std::error_code());
  CHECK(next.text().find(' ') == std::string::npos);
  REQUIRE(from.resolve("//b/x", false, next) == std::error_code());
  CHECK(next.text() == "http://b/x");
}

TEST_CASE("hostile 17: credentials follow to the same origin only, and none come from a server") {
  const CurlUrl from = parse("http://u:p@a/file");
  CurlUrl next;
  REQUIRE(from.resolve("/else", false, next) == std::error_code());
  CHECK(next.user() == "u");
  CHECK(next.password() == "p");
  for (const char* location : {"http://b/file", "https://a/file", "http://a:81/file", "http://x:y@b/file"}) {
    CAPTURE(location);
    REQUIRE(from.resolve(location, false, next) == std::error_code());
    CHECK(next.user() == "");
    CHECK(next.password() == "");
    CHECK(next.text().find('@') == std::string::npos);
  }
  REQUIRE(from.resolve("http://x:y@a/file", false, next) == std::error_code());
  CHECK(next.user() == "u");
}

TEST_CASE("hostile 16: a redirect to another scheme, or from https to http, is not allowed") {
  CurlUrl next;
  for (const char* location : {"file:///etc/passwd", "ftp://a/b", "gopher://a/", "javascript:alert(1)", "http://"}) {
    CAPTURE(location);
    CHECK(parse("http://a/").resolve(location, false, next) == errc::redirect_not_allowed);
  }
  CHECK(parse("https://a/").resolve("http://a/", false, next) == errc::redirect_not_allowed);
  CHECK(parse("https://a/").resolve("https://b/", false, next) == std::error_code());
  CHECK(parse("http://a/").resolve("https://a/", false, next) == std::error_code());
}
