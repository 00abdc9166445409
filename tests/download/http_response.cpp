// SPDX-License-Identifier: BSL-1.0
//
// The parsers of what a server says, without a server.
#include "garner/download/http_response.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

using garner::errc;
using garner::FetchRequest;
using garner::detail::ContentRange;
using garner::detail::HttpHead;
using garner::detail::Verdict;

namespace {

HttpHead read(std::initializer_list<std::string_view> lines) {
  HttpHead head(10'000);
  for (const std::string_view line : lines) REQUIRE(head.add_line(std::string(line) + "\r\n") == std::error_code());
  return head;
}

}  // namespace

TEST_CASE("a Content-Range is two numbers in order and a total, or a total alone") {
  const auto range = ContentRange::parse("bytes 5-9/10");
  REQUIRE(range);
  CHECK(range->first == 5);
  CHECK(range->last == 9);
  CHECK(range->total == 10);
  const auto unknown = ContentRange::parse("Bytes 0-0/*");
  REQUIRE(unknown);
  CHECK_FALSE(unknown->total);
  const auto none = ContentRange::parse("bytes */10");
  REQUIRE(none);
  CHECK_FALSE(none->first);
  for (const char* text : {"", "bytes", "bytes ", "bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "bytes -9/10",
                           "bytes 5-/10", "bytes 5-9/", "bytes +5-9/10", "bytes 5 - 9/10", "items 5-9/10",
                           "bytes 5-9/1e3", "bytes 0-18446744073709551615/*", "bytes 0-99999999999999999999/*"}) {
    CAPTURE(text);
    CHECK_FALSE(ContentRange::parse(text));
  }
}

TEST_CASE("a head is complete at its empty line, and informational ones before it do not count") {
  HttpHead head = read({"HTTP/1.1 100 Continue", "Content-Length: 7", ""});
  CHECK_FALSE(head.complete());
  for (const char* line : {"HTTP/1.1 200 OK\r\n", "content-LENGTH:\t 5 \r\n", "ETag: \"x\"\r\n", "\r\n"}) {
    CHECK(head.add_line(line) == std::error_code());
  }
  CHECK(head.complete());
  CHECK(head.status() == 200);
  CHECK(head.content_length == 5);
  CHECK(head.etag == "\"x\"");
  CHECK(head.add_line("Content-Length: trailer\r\n") == std::error_code());
  CHECK(head.content_length == 5);
}

TEST_CASE("a validator with control bytes, or too long, is none") {
  CHECK(read({"HTTP/1.1 200 OK", "ETag: \"a\x01\"", "Last-Modified: \x7f", ""}).etag.empty());
  CHECK(read({"HTTP/1.1 200 OK", "ETag: \"" + std::string(2000, 'x') + "\"", ""}).etag.empty());
  CHECK(garner::detail::if_range({10, "\"a\"\r\nX: y", "also\nbad"}) == "");
}

TEST_CASE("a body of unknown total is taken, where the range goes to the end that is known") {
  FetchRequest request;
  request.offset = 5;
  const HttpHead head = read({"HTTP/1.1 206 Partial", "Content-Range: bytes 5-9/*", ""});
  CHECK(garner::detail::judge(request, head, 100).kind == Verdict::Kind::data);
  request.size = 10;
  const Verdict verdict = garner::detail::judge(request, head, 100);
  CHECK(verdict.kind == Verdict::Kind::data);
  CHECK(verdict.body == 5);
  CHECK(verdict.identity.length == 10);
  request.size = 11;
  CHECK(garner::detail::judge(request, head, 100).error == errc::range_mismatch);
  request.size.reset();
  CHECK(garner::detail::judge(request, head, 9).error == errc::body_too_long);
}

TEST_CASE("Retry-After is a number of seconds or a date") {
  const auto parse = [](const std::string& text) {
    return garner::detail::parse_retry_after(
        text, 1000, [](const std::string& date) -> std::int64_t { return std::stoll(date.substr(1)); });
  };
  CHECK(parse("0") == std::chrono::seconds(0));
  CHECK(parse("30") == std::chrono::seconds(30));
  CHECK(parse("@1060") == std::chrono::seconds(60));
  CHECK_FALSE(parse("@1000"));
  CHECK_FALSE(parse("@-1"));
  CHECK_FALSE(parse(""));
  CHECK_FALSE(parse("30s"));
  CHECK(parse("18446744073709551615") == std::chrono::hours(24 * 3650));
}
