// SPDX-License-Identifier: BSL-1.0
//
// What the tests of CurlDownloader have in common: a server, a downloader on it, and one call that fetches.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "contract/downloader_contract.hpp"
#include "garner/download/curl_downloader.hpp"
#include "support/http_server.hpp"

namespace garner::test {

/// A CurlDownloader and its origin. Every fetch waits for its end, and checks how the sink was called.
struct Fetching {
  explicit Fetching(CurlDownloader::Settings settings = {}) : downloader(std::move(settings)) {}

  std::shared_ptr<CheckedSink> fetch(FetchRequest request) {
    auto sink = std::make_shared<CheckedSink>();
    downloader.start(std::move(request), sink);
    REQUIRE(sink->wait());
    CHECK(sink->complaints() == "");
    return sink;
  }

  /// Fetches from a script.
  std::shared_ptr<CheckedSink> answer(HttpServer::Script script, std::uint64_t offset = 0, SourceIdentity identity = {},
                                      std::optional<std::uint64_t> size = {}) {
    server.on("/file", std::move(script));
    return fetch({server.url("/file"), offset, std::move(identity), size});
  }
  /// Fetches what a server says that then hangs up.
  std::shared_ptr<CheckedSink> answer(const std::string& bytes, std::optional<std::uint64_t> size = {}) {
    return answer(
        [bytes](Exchange& exchange) {
          exchange.send(bytes);
          exchange.close();
        },
        0, {}, size);
  }

  HttpServer server;
  CurlDownloader downloader;
};

}  // namespace garner::test
