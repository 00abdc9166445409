// SPDX-License-Identifier: BSL-1.0
//
// MemoryDownloader beyond the contract: its faults, its holds, its counts.
#include "garner/download/memory_downloader.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract/downloader_contract.hpp"

using garner::errc;
using garner::MemoryDownloader;
using garner::test::CheckedSink;

namespace {

std::shared_ptr<CheckedSink> fetch(MemoryDownloader& downloader, garner::FetchRequest request) {
  auto sink = std::make_shared<CheckedSink>();
  downloader.start(std::move(request), sink);
  CHECK(sink->complaints() == "");
  return sink;
}

}  // namespace

TEST_CASE("an origin's files come and go while it is used") {
  MemoryDownloader::Origin origin;
  MemoryDownloader downloader(origin);
  CHECK(fetch(downloader, {"http://a/x", 0, {}, {}})->error() == errc::not_found);
  origin.put("http://a/x", "hello", "\"1\"");
  const auto sink = fetch(downloader, {"http://a/x", 0, {}, {}});
  CHECK(sink->bytes() == "hello");
  CHECK(sink->identity() == garner::SourceIdentity{5, "\"1\"", ""});
  origin.remove("http://a/x");
  CHECK(fetch(downloader, {"http://a/x", 0, {}, {}})->error() == errc::not_found);
  CHECK(origin.transfers("http://a/x") == 3);
  CHECK(origin.transfers() == 3);
  CHECK(origin.bytes() == 5);
}

TEST_CASE("a fault ends as many transfers as was said, before the answer or after some bytes") {
  MemoryDownloader::Origin origin;
  MemoryDownloader downloader(origin);
  origin.put("mem://x", "0123456789");
  origin.fail("mem://x", {errc::server_unavailable, 0, std::chrono::seconds(7)}, 2);
  origin.fail("mem://x", {errc::connection_failed, 4, {}});
  for (int i = 0; i < 2; ++i) {
    const auto sink = fetch(downloader, {"mem://x", 0, {}, {}});
    CHECK(sink->error() == errc::server_unavailable);
    CHECK(sink->result().retry_after == std::chrono::seconds(7));
    CHECK_FALSE(sink->begun());
  }
  const auto cut = fetch(downloader, {"mem://x", 0, {}, {}});
  CHECK(cut->error() == errc::connection_failed);
  CHECK(cut->bytes() == "0123");
  const auto rest = fetch(downloader, {"mem://x", 4, cut->identity(), {}});
  CHECK(rest->error() == std::error_code());
  CHECK(rest->bytes() == "456789");
}

TEST_CASE("a transfer is held where was said, and goes on when it is released") {
  MemoryDownloader::Origin origin;
  MemoryDownloader downloader(origin);
  origin.put("mem://x", "0123456789");
  origin.hold("mem://x", 3);
  const auto sink = fetch(downloader, {"mem://x", 0, {}, {}});
  CHECK(sink->bytes() == "012");
  CHECK_FALSE(sink->is_done());
  origin.put("mem://x", "other");  // not seen by what has begun
  origin.release("mem://x");
  CHECK(sink->is_done());
  CHECK(sink->bytes() == "0123456789");
}

TEST_CASE("a transfer that is held can be cancelled, and its release is nothing then") {
  MemoryDownloader::Origin origin;
  MemoryDownloader downloader(origin);
  origin.put("mem://x", "0123456789");
  origin.hold("mem://x");
  const auto sink = std::make_shared<CheckedSink>();
  const auto transfer = downloader.start({"mem://x", 0, {}, {}}, sink);
  CHECK_FALSE(sink->begun());
  downloader.cancel(transfer);
  CHECK(sink->error() == errc::cancelled);
  origin.release("mem://x");
  CHECK(sink->complaints() == "");
}

TEST_CASE("what was posted and never ran ends with the downloader") {
  MemoryDownloader::Origin origin;
  origin.put("mem://x", "0123456789");
  std::vector<std::function<void()>> posted;
  const auto sink = std::make_shared<CheckedSink>();
  {
    MemoryDownloader downloader(origin, [&](std::function<void()> task) { posted.push_back(std::move(task)); });
    downloader.start({"mem://x", 0, {}, {}}, sink);
    CHECK_FALSE(sink->is_done());
  }
  CHECK(sink->error() == errc::cancelled);
  for (const auto& task : posted) task();
  CHECK(sink->complaints() == "");
}
