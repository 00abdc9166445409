// SPDX-License-Identifier: BSL-1.0
//
// CurlDownloader against a good server and a broken one: statuses, ranges, lengths, how the work is done, and how
// transfers end. What a hostile server tries is in curl_hostile.cpp.
#include "garner/download/curl_downloader.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract/downloader_contract.hpp"
#include "support/fetching.hpp"
#include "support/http_server.hpp"

using garner::CurlDownloader;
using garner::errc;
using garner::SourceIdentity;
using garner::test::CheckedSink;
using garner::test::Exchange;
using garner::test::Fetching;
using garner::test::Gate;
using garner::test::pattern;

TEST_CASE("each status has its error, and its body is never data") {
  Fetching f;
  const std::vector<std::pair<std::string, errc>> cases = {{"400 Bad Request", errc::unexpected_status},
                                                           {"401 Unauthorized", errc::credentials_rejected},
                                                           {"403 Forbidden", errc::credentials_rejected},
                                                           {"404 Not Found", errc::not_found},
                                                           {"410 Gone", errc::not_found},
                                                           {"408 Request Timeout", errc::server_unavailable},
                                                           {"425 Too Early", errc::server_unavailable},
                                                           {"429 Too Many Requests", errc::server_busy},
                                                           {"500 Internal", errc::server_unavailable},
                                                           {"503 Unavailable", errc::server_busy},
                                                           {"599 Odd", errc::server_unavailable},
                                                           {"204 No Content", errc::unexpected_status},
                                                           {"201 Created", errc::unexpected_status},
                                                           {"304 Not Modified", errc::unexpected_status},
                                                           {"300 Multiple", errc::unexpected_status},
                                                           {"302 Found", errc::unexpected_status},
                                                           {"416 Range Not Satisfiable", errc::unexpected_status}};
  for (const auto& [said, error] : cases) {
    const std::string& status = said;  // clang 14 captures no structured binding
    CAPTURE(status);
    const bool bodiless = status.starts_with("204") || status.starts_with("304");
    const auto sink = f.answer([&](Exchange& e) { e.reply(status, bodiless ? "" : "<html>not data</html>"); });
    CHECK(sink->error() == error);
    CHECK(sink->result().http_status == std::stoi(status));
    CHECK_FALSE(sink->begun());
  }
  CHECK(f.server.connections() <= 2);  // a short error page does not cost a connection
}

TEST_CASE("Retry-After is told as the server said it") {
  Fetching f;
  const auto ask = [&](const std::string& value) {
    return f.answer([&](Exchange& e) { e.reply("503 Busy", "", "Retry-After: " + value + "\r\n"); })
        ->result()
        .retry_after;
  };
  CHECK(ask("120") == std::chrono::seconds(120));
  const auto far = ask("Fri, 31 Dec 2100 23:59:59 GMT");
  REQUIRE(far);
  CHECK(*far > std::chrono::hours(24));
}

TEST_CASE("from an offset on, the request has a range and the strongest validator there is") {
  Fetching f;
  const std::string file = pattern(1000);
  const auto ask = [&](const SourceIdentity& identity) {
    f.answer([&](Exchange& e) { e.serve(file); }, 400, identity);
    return f.server.requests().back();
  };
  CHECK(ask({1000, "\"v1\"", "Mon, 01 Jan 2024 00:00:00 GMT"}).field("range") == "bytes=400-");
  CHECK(ask({1000, "\"v1\"", "Mon, 01 Jan 2024 00:00:00 GMT"}).field("if-range") == "\"v1\"");
  CHECK(ask({1000, "W/\"v1\"", "Mon, 01 Jan 2024 00:00:00 GMT"}).field("if-range") == "Mon, 01 Jan 2024 00:00:00 GMT");
  CHECK(ask({1000, "W/\"v1\"", ""}).field("if-range") == "");
  CHECK(ask({1000, "\"a\"\r\nX-Smuggled: 1", ""}).fields.count("x-smuggled") == 0);
  f.answer([&](Exchange& e) { e.serve(file); });
  CHECK(f.server.requests().back().fields.count("range") == 0);
  CHECK(f.server.requests().back().fields.count("if-range") == 0);
  CHECK(f.server.requests().back().field("accept-encoding") == "identity");
}

TEST_CASE("hostile 26: a changed validator starts over, or stops a server that goes on regardless") {
  Fetching f;
  const std::string file = pattern(1000);
  const auto over = f.answer([&](Exchange& e) { e.serve(file, "\"v2\""); }, 400, {1000, "\"v1\"", ""});
  CHECK(over->error() == std::error_code());
  CHECK(over->offset() == 0);
  CHECK(over->bytes() == file);
  CHECK(over->identity() == SourceIdentity{1000, "\"v2\"", ""});

  const auto regardless = f.answer(
      [&](Exchange& e) {
        e.reply("206 Partial Content", file.substr(400), "ETag: \"v2\"\r\nContent-Range: bytes 400-999/1000\r\n");
      },
      400, {1000, "\"v1\"", ""});
  CHECK(regardless->error() == errc::source_changed);
  CHECK_FALSE(regardless->begun());
}

TEST_CASE("a 206 need not repeat the validators") {
  Fetching f;
  const auto sink = f.answer([](Exchange& e) { e.reply("206 P", "56789", "Content-Range: bytes 5-9/10\r\n"); }, 5,
                             {10, "\"v1\"", "yesterday"});
  CHECK(sink->error() == std::error_code());
  CHECK(sink->identity() == SourceIdentity{10, "\"v1\"", "yesterday"});
}

TEST_CASE("a 416 at the end of the file is its end, and elsewhere an error") {
  Fetching f;
  const auto ask = [&](const std::string& range, std::uint64_t offset, SourceIdentity identity) {
    return f.answer([&](Exchange& e) { e.reply("416 Range", "no such range", range); }, offset, std::move(identity));
  };
  const auto whole = ask("Content-Range: bytes */10\r\n", 10, {10, "\"v1\"", ""});
  CHECK(whole->error() == std::error_code());
  CHECK(whole->offset() == 10);
  CHECK(whole->bytes() == "");
  CHECK(ask("", 10, {10, "\"v1\"", ""})->error() == std::error_code());
  CHECK(ask("Content-Range: bytes */8\r\n", 10, {10, "\"v1\"", ""})->error() == errc::range_mismatch);
  CHECK(ask("", 5, {10, "\"v1\"", ""})->error() == errc::range_mismatch);
}

TEST_CASE("a body is read to its declared length, to its last chunk, or to the end of the connection") {
  Fetching f;
  CHECK(f.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")->bytes() == "hello");
  const auto chunked =
      f.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n");
  CHECK(chunked->error() == std::error_code());
  CHECK(chunked->bytes() == "hello");
  CHECK_FALSE(chunked->identity().length);
  const auto closed = f.answer("HTTP/1.1 200 OK\r\n\r\nhello");
  CHECK(closed->error() == std::error_code());
  CHECK(closed->bytes() == "hello");
  CHECK(f.answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            ->bytes() == "ok");
}

TEST_CASE("hostile 20: a connection that ends or breaks in any part of the exchange is an error of its own") {
  Fetching f;
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"v1\"\r\n\r\n";
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  struct Case {
    std::string sent;
    errc on_end;
    std::size_t kept;
  };
  const std::vector<Case> cases = {{"", errc::connection_failed, 0},
                                   {"HTT", errc::connection_failed, 0},
                                   {"HTTP/1.1 200 OK\r\nConte", errc::connection_failed, 0},
                                   {head.substr(0, head.size() - 2), errc::connection_failed, 0},
                                   {head, errc::body_too_short, 0},
                                   {head + std::string(999, 'x'), errc::body_too_short, 999},
                                   {chunked + "5\r\nhel", errc::body_too_short, 3},
                                   {chunked + "5\r\nhello\r\n", errc::body_too_short, 5}};
  for (const Case& c : cases) {
    CAPTURE(c.sent);
    const auto ended = f.answer(c.sent);
    CHECK(garner::classify(ended->error()) != garner::ErrorClass::local);
    if (c.sent.size() > 3 && c.sent.find("\r\n\r\n") == std::string::npos) {
      CHECK(garner::classify(ended->error()) != garner::ErrorClass::none);  // a cut head may be any of several
    } else {
      CHECK(ended->error() == c.on_end);
    }
    CHECK(ended->bytes().size() == c.kept);  // what came is kept, to go on from

    const auto broken = f.answer([sent = c.sent](Exchange& e) {
      e.send(sent);
      e.reset();
    });
    CHECK(garner::classify(broken->error()) != garner::ErrorClass::none);
    CHECK(garner::classify(broken->error()) != garner::ErrorClass::local);
  }
}

TEST_CASE("hostile 20: what was cut is resumed to the same bytes") {
  Fetching f;
  const std::string file = pattern(2'000'000);
  const auto cut = f.answer([&](Exchange& e) {
    e.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\nETag: \"v1\"\r\n\r\n" + file.substr(0, 1'234'567));
    e.close();
  });
  CHECK(cut->error() == errc::body_too_short);
  const auto rest = f.answer([&](Exchange& e) { e.serve(file); }, cut->bytes().size(), cut->identity(), file.size());
  CHECK(rest->error() == std::error_code());
  CHECK(cut->bytes() + rest->bytes() == file);
}

TEST_CASE("no server, and no name, is a transient error") {
  Fetching f;
  std::string dead;
  {
    const garner::test::HttpServer gone;
    dead = gone.url("/file");
  }
  const auto refused = f.fetch({dead, 0, {}, {}});
  CHECK(refused->error() == errc::connection_failed);
  CHECK(refused->result().http_status == 0);
  CHECK(refused->result().detail.find("127.0.0.1") != std::string::npos);
  CHECK(f.fetch({"http://no-such-host.invalid/file", 0, {}, {}})->error() == errc::resolve_failed);
}

TEST_CASE("small pieces are gathered, and what is left comes at the end") {
  CurlDownloader::Settings settings;
  settings.write_bytes = 256 * 1024;
  Fetching f(settings);
  const std::string file = pattern(1'000'000);
  const auto sink = f.answer([&](Exchange& e) { e.serve(file); });
  CHECK(sink->bytes() == file);
  CHECK(sink->writes() == std::vector<std::size_t>{262'144, 262'144, 262'144, 213'568});
  const auto chunked = f.answer([&](Exchange& e) {
    e.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (std::size_t at = 0; at < file.size(); at += 1000) e.send("3e8\r\n" + file.substr(at, 1000) + "\r\n");
    e.send("0\r\n\r\n");
  });
  CHECK(chunked->bytes() == file);
  CHECK(chunked->writes() == sink->writes());
}

TEST_CASE("all transfers share a few connections, which are kept alive") {
  CurlDownloader::Settings settings;
  settings.connections_per_host = 4;
  settings.connect_timeout = std::chrono::milliseconds(2000);
  Fetching f(settings);
  const std::string file = pattern(10'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  for (int round = 0; round < 2; ++round) {
    std::vector<std::shared_ptr<CheckedSink>> sinks;
    for (int i = 0; i < 100; ++i) {
      sinks.push_back(std::make_shared<CheckedSink>());
      f.downloader.start({f.server.url("/file"), 0, {}, file.size()}, sinks.back());
    }
    for (const auto& sink : sinks) {
      REQUIRE(sink->wait());
      CHECK(sink->error() == std::error_code());
      CHECK(sink->bytes() == file);
      CHECK(sink->writes().size() == 1);
    }
  }
  CHECK(f.server.requests().size() == 200);
  CHECK(f.server.connections() <= 4);
}

TEST_CASE("a transfer that waits for a connection is not timed out by its wait") {
  CurlDownloader::Settings settings;
  settings.loops = 1;
  settings.connections_per_host = 1;
  settings.connect_timeout = std::chrono::milliseconds(300);
  Fetching f(settings);
  Gate gate;
  f.server.on("/slow", [&](Exchange& e) {
    e.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    gate.wait();
    e.send("k");
  });
  f.server.on("/file", [](Exchange& e) { e.reply("200 OK", "ok"); });
  const auto slow = std::make_shared<CheckedSink>();
  const auto waiting = std::make_shared<CheckedSink>();
  f.downloader.start({f.server.url("/slow"), 0, {}, {}}, slow);
  f.downloader.start({f.server.url("/file"), 0, {}, {}}, waiting);
  CHECK_FALSE(waiting->wait(std::chrono::seconds(1)));
  gate.open();
  REQUIRE(waiting->wait());
  CHECK(waiting->bytes() == "ok");
  CHECK(f.server.connections() == 1);
}

TEST_CASE("a connection that the server closed meanwhile is replaced without an error") {
  CurlDownloader::Settings settings;
  settings.loops = 1;
  Fetching f(settings);
  // Often enough for it to be closed now before, now while the next request is sent.
  for (int i = 0; i < 1000; ++i) {
    const auto sink = f.answer([](Exchange& e) {
      e.reply("200 OK", "ok");
      e.close();
    });
    CAPTURE(sink->result().detail);
    CHECK(sink->error() == std::error_code());
  }
}

TEST_CASE("a sink's error in the middle stops the transfer there") {
  Fetching f;
  const std::string file = pattern(2'000'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  const auto sink = std::make_shared<CheckedSink>();
  sink->write_error = std::make_error_code(std::errc::no_space_on_device);
  sink->write_error_from = 500'000;
  f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink);
  REQUIRE(sink->wait());
  CHECK(sink->error() == std::errc::no_space_on_device);
  CHECK(sink->bytes().size() == 524'288);
  CHECK(sink->complaints() == "");
}

TEST_CASE("a transfer can be cancelled at each step") {
  Fetching f;
  const std::string file = pattern(1'000'000);
  Gate arrived;
  const auto sink = std::make_shared<CheckedSink>();
  CurlDownloader::Transfer transfer;
  SUBCASE("before it has connected") { transfer = f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink); }
  SUBCASE("while its name is resolved") {
    transfer = f.downloader.start({"http://no-such-host.invalid/file", 0, {}, {}}, sink);
  }
  SUBCASE("before the answer") {
    f.server.on("/file", [&](Exchange& e) {
      arrived.open();
      e.wait_for_hang_up();
    });
    transfer = f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink);
    REQUIRE(arrived.wait());
  }
  SUBCASE("in the middle of the body") {
    f.server.on("/file", [&](Exchange& e) {
      e.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + file.substr(0, 600'000));
      e.wait_for_hang_up();
    });
    transfer = f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink);
    REQUIRE(sink->wait_for_bytes(500'000));
  }
  f.downloader.cancel(transfer);
  REQUIRE(sink->wait());
  const bool over_before = sink->error() == errc::not_found || sink->error() == errc::resolve_failed;
  CHECK((sink->error() == errc::cancelled || over_before));
  CHECK(sink->complaints() == "");
}

TEST_CASE("a sink may cancel its own transfer") {
  Fetching f;
  const std::string file = pattern(50'000'000);
  f.server.on("/file", [&](Exchange& e) { e.serve(file); });
  const auto sink = std::make_shared<CheckedSink>();
  Gate started;
  CurlDownloader::Transfer transfer;
  sink->on_write = [&] {
    started.wait();
    f.downloader.cancel(transfer);
  };
  transfer = f.downloader.start({f.server.url("/file"), 0, {}, {}}, sink);
  started.open();
  REQUIRE(sink->wait());
  CHECK(sink->error() == errc::cancelled);
  CHECK(sink->bytes().size() < file.size());
}

TEST_CASE("the destructor does not wait for what is queued, and a done may still start and cancel") {
  garner::test::HttpServer server;
  server.on("/file", [](Exchange& e) { e.wait_for_hang_up(); });
  std::vector<std::shared_ptr<CheckedSink>> sinks;
  std::vector<std::shared_ptr<CheckedSink>> late;
  {
    CurlDownloader downloader;
    for (int i = 0; i < 50; ++i) {
      sinks.push_back(std::make_shared<CheckedSink>());
      late.push_back(std::make_shared<CheckedSink>());
      sinks.back()->on_done = [&downloader, &server, again = late.back()] {
        downloader.cancel(downloader.start({server.url("/file"), 0, {}, {}}, again));
      };
      downloader.start({server.url("/file"), 0, {}, {}}, sinks.back());
    }
  }
  for (const auto& all : {sinks, late}) {
    for (const auto& sink : all) {
      CHECK(sink->is_done());
      CHECK(sink->error() == errc::cancelled);
      CHECK(sink->complaints() == "");
    }
  }
}
