// SPDX-License-Identifier: BSL-1.0
//
// What a hostile or mad server tries, and gets: HOSTILE.md, rows 13 to 33 as far as they concern one transfer.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "garner/download/host_filter.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::test::Exchange;
using garner::test::Fetching;
using garner::test::HttpServer;

namespace {

/// Sends the client elsewhere.
HttpServer::Script redirect(const std::string& location, const std::string& status = "302 Found") {
  return [=](Exchange& e) { e.reply(status, "moved", "Location: " + location + "\r\n"); };
}

}  // namespace

TEST_CASE("hostile 13: credentials go to their origin only, and into no message") {
  Fetching f;
  HttpServer other;
  const std::string with = "http://user:s%3Acret@127.0.0.1:" + std::to_string(f.server.port());
  const std::string basic = "Basic dXNlcjpzOmNyZXQ=";

  SUBCASE("to their origin") {
    const auto sink = f.fetch({with + "/missing", 0, {}, {}});
    CHECK(f.server.requests().back().field("authorization") == basic);
    CHECK(sink->error() == errc::not_found);
    CHECK(sink->result().detail.find("cret") == std::string::npos);
    CHECK(sink->result().detail.find("user") == std::string::npos);
    CHECK(sink->result().detail.find("127.0.0.1") != std::string::npos);
  }
  SUBCASE("to the next request without them: none") {
    f.fetch({with + "/missing", 0, {}, {}});
    f.fetch({f.server.url("/missing"), 0, {}, {}});
    CHECK(f.server.requests().back().fields.count("authorization") == 0);
  }
  SUBCASE("after a redirect within it") {
    f.server.on("/file", redirect("/missing"));
    const auto sink = f.fetch({with + "/file", 0, {}, {}});
    CHECK(f.server.requests().back().target == "/missing");
    CHECK(f.server.requests().back().field("authorization") == basic);
    CHECK(sink->result().detail.find("cret") == std::string::npos);
  }
  SUBCASE("hostile 17: not after a redirect to another origin") {
    f.server.on("/file", redirect(other.url("/file")));
    other.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
    CHECK(f.fetch({with + "/file", 0, {}, {}})->bytes() == "ok");
    CHECK(other.requests().back().fields.count("authorization") == 0);
  }
  SUBCASE("where the URL is rejected") {
    const auto sink = f.fetch({"http://user:cret@a b/", 0, {}, {}});
    CHECK(sink->error() == errc::invalid_url);
    CHECK(sink->result().detail.find("cret") == std::string::npos);
  }
}

TEST_CASE("hostile 13: a presigned URL's signature is in no message") {
  Fetching f;
  const auto sink = f.fetch({f.server.url("/missing?X-Amz-Signature=abcdef"), 0, {}, {}});
  CHECK(sink->error() == errc::not_found);
  CHECK(sink->result().detail.find("abcdef") == std::string::npos);
}

TEST_CASE("hostile 15: a host outside the allowed ones gets no byte, by name and by address") {
  CurlDownloader::Settings settings;
  SUBCASE("by name") { settings.allowed_hosts = {"lake.example"}; }
  SUBCASE("by an address in a URL") { settings.allowed_hosts = {"10.0.0.0/8", "::1"}; }
  Fetching f(settings);
  const auto sink = f.answer([](Exchange& e) { e.reply("200 OK", "secret"); });
  CHECK(sink->error() == errc::connection_failed);
  CHECK(sink->result().detail.find("not allowed") != std::string::npos);
  CHECK(f.server.connections() == 0);
}

TEST_CASE("hostile 15: an allowed name that resolves to an address that is not allowed gets no byte") {
  CurlDownloader::Settings settings;
  settings.allowed_hosts = {"localhost", "10.0.0.0/8"};
  Fetching f(settings);
  const auto sink = f.fetch({"http://localhost:" + std::to_string(f.server.port()) + "/file", 0, {}, {}});
  CHECK(sink->error() == errc::connection_failed);
  CHECK(sink->result().detail.find("address is not allowed") != std::string::npos);
  CHECK(f.server.connections() == 0);
}

TEST_CASE("hostile 15: allowed hosts are names, all below a name, addresses and networks") {
  const garner::detail::HostFilter any({});
  CHECK(any.allows_host("anything"));
  CHECK(any.allows_address(asio::ip::make_address("8.8.8.8")));
  const garner::detail::HostFilter some({"lake.example", ".pond.example", "10.0.0.0/8", "::1", "fd00::/8"});
  CHECK(some.allows_host("LAKE.example"));
  CHECK(some.allows_host("a.pond.example"));
  CHECK(some.allows_host("10.1.2.3"));
  CHECK(some.allows_host("::1"));
  CHECK_FALSE(some.allows_host("pond.example"));
  CHECK_FALSE(some.allows_host("xlake.example"));
  CHECK_FALSE(some.allows_host("11.0.0.1"));
  CHECK(some.allows_address(asio::ip::make_address("fd12::1")));
  CHECK(some.allows_address(asio::ip::make_address("::ffff:10.0.0.1")));
  CHECK_FALSE(some.allows_address(asio::ip::make_address("fe80::1")));
  CHECK_FALSE(some.allows_address(asio::ip::make_address("::ffff:127.0.0.1")));
  CHECK_FALSE(garner::detail::HostFilter({"lake.example"}).allows_host("10.0.0.1"));
  CHECK_THROWS_AS(garner::detail::HostFilter({"10.0.0.0/99"}), garner::Error);
}

TEST_CASE("hostile 16: a redirect to another scheme is not followed") {
  Fetching f;
  for (const char* location :
       {"file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "dict://127.0.0.1/x"}) {
    CAPTURE(location);
    const auto sink = f.answer(redirect(location));
    CHECK(sink->error() == errc::redirect_not_allowed);
    CHECK_FALSE(sink->begun());
  }
}

TEST_CASE("hostile 16: a redirect to a host that is not allowed is not followed") {
  CurlDownloader::Settings settings;
  settings.allowed_hosts = {"127.0.0.1"};
  Fetching f(settings);
  CHECK(f.answer(redirect("http://127.0.0.2/x"))->error() == errc::redirect_not_allowed);
}

TEST_CASE("hostile 18: five redirects are followed, six or a loop are not") {
  Fetching f;
  for (int i = 1; i <= 6; ++i) f.server.on("/" + std::to_string(i), redirect("/" + std::to_string(i - 1)));
  f.server.on("/0", [](Exchange& e) { e.serve("arrived"); });
  CHECK(f.fetch({f.server.url("/5"), 0, {}, {}})->bytes() == "arrived");
  CHECK(f.fetch({f.server.url("/5"), 3, {7, "\"v1\"", ""}, 7})->bytes() == "ived");
  CHECK(f.fetch({f.server.url("/6"), 0, {}, {}})->error() == errc::redirect_not_allowed);
  f.server.on("/loop", redirect("/loop", "308 Permanent"));
  const std::size_t before = f.server.requests().size();
  CHECK(f.fetch({f.server.url("/loop"), 0, {}, {}})->error() == errc::redirect_not_allowed);
  CHECK(f.server.requests().size() - before == 6);
}

TEST_CASE("hostile 19: a body that is longer than is known is dropped at the first byte too many") {
  Fetching f;
  const auto declared = f.answer("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", 5);
  CHECK(declared->error() == errc::body_too_long);
  CHECK_FALSE(declared->begun());
  const auto chunked = f.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n", 5);
  CHECK(chunked->error() == errc::body_too_long);
  CHECK(chunked->bytes() == "");
  CHECK(f.answer("HTTP/1.1 200 OK\r\n\r\nhello!", 5)->error() == errc::body_too_long);
}

TEST_CASE("hostile 19: an endless body of unknown length is cut at the limit") {
  CurlDownloader::Settings settings;
  settings.max_file_bytes = 1'000'000;
  Fetching f(settings);
  const auto endless = f.answer([](Exchange& e) {
    e.send("HTTP/1.1 200 OK\r\n\r\n");
    while (e.send(std::string(65536, 'x'))) {
    }
    e.close();
  });
  CHECK(endless->error() == errc::body_too_long);
  CHECK(endless->bytes().size() <= 1'000'000);
}

TEST_CASE("hostile 19: what follows a body of declared length is no part of it, nor of the next response") {
  Fetching f;
  const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
  const auto sink = f.answer([&](Exchange& e) { e.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + evil); });
  CHECK(sink->bytes() == "hello");
  CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "good"); })->bytes() == "good");
  CHECK(f.server.connections() == 2);
}

TEST_CASE("hostile 22: an error page with status 200 is dropped where the size is known") {
  Fetching f;
  CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "<html>sorry</html>"); }, 0, {}, 1000)->error() ==
        errc::body_too_short);
}

TEST_CASE("hostile 23: a long error page is not read to its end") {
  Fetching f;
  const auto sink = f.answer([](Exchange& e) {
    e.send("HTTP/1.1 404 Not Found\r\n\r\n");
    while (e.send(std::string(4096, 'x'))) {
    }
    e.close();
  });
  CHECK(sink->error() == errc::not_found);
  CHECK_FALSE(sink->begun());
}

TEST_CASE("hostile 24: an encoding that was not asked for is dropped") {
  Fetching f;
  for (const char* encoding :
       {"Content-Encoding: gzip\r\n", "Content-Encoding: br\r\n", "content-encoding: identity, gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip\r\n"}) {
    CAPTURE(encoding);
    const auto sink = f.answer(std::string("HTTP/1.1 200 OK\r\n") + encoding + "\r\n\x1f\x8b junk");
    CHECK(sink->error() == errc::encoding_not_allowed);
    CHECK_FALSE(sink->begun());
  }
  CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "ok", "Content-Encoding: identity\r\n"); })->bytes() == "ok");
}

TEST_CASE("hostile 25: a 206 with another range or length than asked is dropped") {
  Fetching f;
  for (const char* range :
       {"", "Content-Range: bytes 4-9/10\r\n", "Content-Range: bytes 6-9/10\r\n", "Content-Range: bytes 5-8/10\r\n",
        "Content-Range: bytes 5-9/11\r\n", "Content-Range: bytes 5-9/9\r\n", "Content-Range: bytes 9-5/10\r\n",
        "Content-Range: lines 5-9/10\r\n", "Content-Range: bytes 5-9\r\n", "Content-Range: bytes */10\r\n",
        "Content-Range: bytes 5-18446744073709551615/10\r\n", "Content-Range: bytes 5-10/11\r\n"}) {
    CAPTURE(range);
    const auto sink = f.answer([&](Exchange& e) { e.reply("206 Partial", "56789", range); }, 5, {10, "", ""});
    CHECK(sink->error() == errc::range_mismatch);
    CHECK_FALSE(sink->begun());
  }
  const auto unasked = f.answer([](Exchange& e) { e.reply("206 P", "01234", "Content-Range: bytes 0-4/10\r\n"); });
  CHECK(unasked->error() == errc::range_mismatch);
}

TEST_CASE("hostile 25: a 200 to a range request starts over") {
  Fetching f;
  const auto sink = f.answer([](Exchange& e) { e.reply("200 OK", "0123456789"); }, 5, {10, "\"v1\"", ""});
  CHECK(sink->error() == std::error_code());
  CHECK(sink->offset() == 0);
  CHECK(sink->bytes() == "0123456789");
}

TEST_CASE("hostile 27: names from the server are ignored") {
  Fetching f;
  const auto sink = f.answer([](Exchange& e) {
    e.reply("200 OK", "ok", "Content-Disposition: attachment; filename=\"../../x\"\r\nContent-Location: /etc/x\r\n");
  });
  CHECK(sink->bytes() == "ok");
}

TEST_CASE("hostile 28: a Retry-After that is negative, past or garbage is none, and a huge one does not overflow") {
  Fetching f;
  const auto ask = [&](const std::string& value) {
    return f.answer([&](Exchange& e) { e.reply("429 Slow", "", "Retry-After: " + value + "\r\n"); })
        ->result()
        .retry_after;
  };
  for (const char* none : {"-5", "", "soon", "1.5", "99999999999999999999999", "Mon, 01 Jan 1990 00:00:00 GMT"}) {
    CAPTURE(none);
    CHECK_FALSE(ask(none));
  }
  REQUIRE(ask("1000000000"));
  REQUIRE(ask("10000000000000"));
  CHECK(*ask("10000000000000") > std::chrono::hours(1));
}

TEST_CASE("hostile 29: silence and a trickle are cut by the low-speed rule") {
  CurlDownloader::Settings settings;
  settings.low_speed_bytes_per_second = 1000;
  settings.low_speed_time = std::chrono::seconds(1);
  Fetching f(settings);
  SUBCASE("a byte at a time") {
    const auto sink = f.answer([](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"v1\"\r\n\r\n");
      // A server's pace, and nothing that the test waits for.
      while (e.send("x")) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      e.close();
    });
    CHECK(sink->error() == errc::timed_out);
    CHECK(sink->bytes().size() >= 5);
    CHECK(sink->bytes().size() < 1000);
  }
  SUBCASE("before the headers") {
    const auto sink = f.answer([](Exchange& e) { e.wait_for_hang_up(); });
    CHECK(sink->error() == errc::timed_out);
  }
  SUBCASE("after the headers, and what came is kept") {
    const auto sink = f.answer([](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"v1\"\r\n\r\nabc");
      e.wait_for_hang_up();
    });
    CHECK(sink->error() == errc::timed_out);
    CHECK(sink->bytes() == "abc");
    CHECK(sink->identity().etag == "\"v1\"");
  }
}

TEST_CASE("hostile 30: endless and huge headers are cut at the cap") {
  Fetching f;
  SUBCASE("many") {
    const auto sink = f.answer([](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\n");
      while (e.send("X-Filler: " + std::string(1000, 'x') + "\r\n")) {
      }
      e.close();
    });
    CHECK(sink->error() == errc::malformed_response);
  }
  SUBCASE("one without an end") {
    const auto sink = f.answer([](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nX-Filler: ");
      while (e.send(std::string(4096, 'x'))) {
      }
      e.close();
    });
    CHECK(sink->error() == errc::malformed_response);
  }
  SUBCASE("informational responses for ever") {
    const auto sink = f.answer([](Exchange& e) {
      while (e.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")) {
      }
      e.close();
    });
    CHECK(sink->error() == errc::malformed_response);
  }
  SUBCASE("trailers for ever") {
    const auto sink = f.answer([](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n");
      while (e.send("X-Filler: " + std::string(1000, 'x') + "\r\n")) {
      }
      e.close();
    });
    CHECK(sink->error() == errc::malformed_response);
  }
}

TEST_CASE("hostile 31: a Content-Length that is double, absurd or contradicted, and bad chunks, are dropped") {
  Fetching f;
  for (const char* fields :
       {"Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2, 2\r\n", "Content-Length: -2\r\n", "Content-Length: two\r\n", "Content-Length: \r\n",
        "Content-Length: 99999999999999999999999999\r\n", "Content-Length : 2\r\n", "Content-Length: 0x2\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\n 0\r\n", "no colon\r\n"}) {
    CAPTURE(fields);
    const auto sink = f.answer(std::string("HTTP/1.1 200 OK\r\n") + fields + "\r\nok");
    CHECK(sink->error() == errc::malformed_response);
    CHECK_FALSE(sink->begun());
  }
  CHECK(f.answer("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nok")->error() == errc::body_too_long);
  for (const char* chunks :
       {"xyz\r\nok\r\n", "-2\r\nok\r\n", "2\r\nokok\r\n0\r\n\r\n", "ffffffffffffffffff\r\nok\r\n"}) {
    CAPTURE(chunks);
    const auto sink = f.answer(std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") + chunks);
    CHECK(garner::classify(sink->error()) != garner::ErrorClass::none);
    CHECK(garner::classify(sink->error()) != garner::ErrorClass::local);
  }
}

TEST_CASE(
    "hostile 31: each way of bad chunked coding ends the transfer, and what came before it is no more than was sent") {
  Fetching f;
  struct Case {
    const char* sent;
    errc error;
    const char* kept;
  };
  for (const Case& c : std::vector<Case>{
           {"", errc::body_too_short, ""},
           {"5", errc::body_too_short, ""},
           {"5\r\n", errc::body_too_short, ""},
           {"5\r\nhello", errc::body_too_short, "hello"},
           {"5\r\nhello\r\n0\r\n", errc::body_too_short, "hello"},
           {"\r\nhello\r\n0\r\n\r\n", errc::connection_failed, ""},
           {"xyz\r\nhello\r\n0\r\n\r\n", errc::connection_failed, ""},
           {"-5\r\nhello\r\n0\r\n\r\n", errc::connection_failed, ""},
           {" 5\r\nhello\r\n0\r\n\r\n", errc::connection_failed, ""},
           {"0x5\r\nhello\r\n0\r\n\r\n", errc::connection_failed, ""},
           {"ffffffffffffffffff\r\nhello\r\n", errc::connection_failed, ""},
           {"7fffffffffffffff\r\nhello\r\n", errc::body_too_short, "hello\r\n"},
           {"5\r\nhello!\r\n0\r\n\r\n", errc::connection_failed, "hello"},
           {"5\r\nhello5\r\nhello\r\n0\r\n\r\n", errc::connection_failed, "hello"},
       }) {
    CAPTURE(c.sent);
    const auto sink = f.answer(std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") + c.sent);
    CHECK(sink->error() == c.error);
    CHECK(sink->bytes() == c.kept);
  }
}

TEST_CASE("without a descriptor for a connection it is the local error that it is, and the next transfer is well") {
  Fetching f;
  f.server.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(next);
  for (const rlim_t left : {rlim_t{0}, rlim_t{1}}) {  // none, and one but not the second that Asio needs
    CAPTURE(left);
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(next) + left;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    const auto sink = f.fetch({f.server.url("/file"), 0, {}, {}});
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(sink->error() == errc::too_many_open_files);
    CHECK(garner::classify(sink->error()) == garner::ErrorClass::local);
  }
  CHECK(f.fetch({f.server.url("/file"), 0, {}, {}})->bytes() == "ok");
}

TEST_CASE("hostile 31: what is not HTTP is a malformed response") {
  Fetching f;
  for (const char* bytes : {"SSH-2.0-OpenSSH_9.2\r\n", "hello, world, this is no HTTP at all\r\n\r\n",
                            "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"}) {
    CAPTURE(bytes);
    const auto sink = f.answer(bytes);
    CHECK(sink->error() == errc::malformed_response);
    CHECK_FALSE(sink->begun());
  }
}

TEST_CASE("hostile 33: proxies of the environment are ignored") {
  HttpServer proxy;
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"}) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): no transfer runs, and the server's threads read no environment
    ::setenv(name, proxy.origin().c_str(), 1);
  }
  {
    Fetching f;
    CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "direct"); })->bytes() == "direct");
  }
  CHECK(proxy.connections() == 0);
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"}) {
    ::unsetenv(name);  // NOLINT(concurrency-mt-unsafe): as above
  }
}

TEST_CASE("hostile 33: a .netrc is ignored") {
  const auto home = std::filesystem::temp_directory_path() / ("garner-netrc-" + std::to_string(::getpid()));
  std::filesystem::create_directory(home);
  std::ofstream(home / ".netrc") << "machine 127.0.0.1 login user password secret\n";
  const char* const before = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe): the only thread
  const std::string restore = before != nullptr ? before : "/";
  ::setenv("HOME", home.c_str(), 1);  // NOLINT(concurrency-mt-unsafe): the only thread
  {
    Fetching f;
    CHECK(f.answer([](Exchange& e) { e.reply("200 OK", "ok"); })->bytes() == "ok");
    CHECK(f.server.requests().back().fields.count("authorization") == 0);
  }
  ::setenv("HOME", restore.c_str(), 1);  // NOLINT(concurrency-mt-unsafe): the only thread, again
  std::filesystem::remove_all(home);
}
