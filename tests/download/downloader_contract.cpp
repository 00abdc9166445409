// SPDX-License-Identifier: BSL-1.0
//
// The downloader contract over every downloader here.
#include "contract/downloader_contract.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <string>

#include "garner/download/curl_downloader.hpp"
#include "garner/download/memory_downloader.hpp"
#include "garner/execution/asio_executor.hpp"
#include "support/http_server.hpp"

namespace {

struct Curl {
  garner::CurlDownloader make() { return garner::CurlDownloader(); }
  std::string put(const std::string& bytes) {
    std::string url = server.url("/" + std::to_string(++count));
    replace(url, bytes);
    return url;
  }
  void replace(const std::string& url, const std::string& bytes) {
    const std::string etag = "\"" + std::to_string(++count) + "\"";
    server.on(url.substr(server.origin().size()),
              [bytes, etag](garner::test::Exchange& exchange) { exchange.serve(bytes, etag); });
  }
  std::string stall(const std::string& bytes, std::size_t after) {
    const std::string path = "/" + std::to_string(++count);
    server.on(path, [bytes, after](garner::test::Exchange& exchange) {
      exchange.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(bytes.size()) + "\r\n\r\n" +
                    bytes.substr(0, after));
      exchange.wait_for_hang_up();
    });
    return server.url(path);
  }
  std::string missing() const { return server.url("/missing"); }
  static std::string bad_url() { return "http://"; }
  static std::string bad_scheme() { return "file:///etc/passwd"; }

  garner::test::HttpServer server;
  int count = 0;
};

struct Memory {
  garner::MemoryDownloader make() const { return garner::MemoryDownloader(origin); }
  std::string put(const std::string& bytes) {
    std::string url = "mem://" + std::to_string(++count);
    origin.put(url, bytes);
    return url;
  }
  void replace(const std::string& url, const std::string& bytes) { origin.put(url, bytes); }
  std::string stall(const std::string& bytes, std::size_t after) {
    std::string url = put(bytes);
    origin.hold(url, after);
    return url;
  }
  static std::string missing() { return "mem://missing"; }
  static std::string bad_url() { return "mem://a b"; }
  static std::string bad_scheme() { return "file:///etc/passwd"; }

  garner::MemoryDownloader::Origin origin;
  int count = 0;
};

struct MemoryOnThreads : Memory {
  garner::MemoryDownloader make() {
    return garner::MemoryDownloader(origin, [this](garner::Task task) { executor.post(std::move(task)); });
  }
  garner::AsioExecutor executor{3};
};

}  // namespace

TEST_CASE("the downloader contract: CurlDownloader") { garner::test::downloader_contract<Curl>(); }
TEST_CASE("the downloader contract: MemoryDownloader, inline") { garner::test::downloader_contract<Memory>(); }
TEST_CASE("the downloader contract: MemoryDownloader, on an executor") {
  garner::test::downloader_contract<MemoryOnThreads>();
}
