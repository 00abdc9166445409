// SPDX-License-Identifier: BSL-1.0
//
// What every Downloader must do, as a suite that can be run over one's own: call `downloader_contract<Fixture>()` in a
// doctest test case. And the sink that it uses, which checks how it is called.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::test {

/// Remembers what it was given, and each call that a Downloader must not make.
class CheckedSink final : public FetchSink {
 public:
  std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) override {
    const Visit visit(*this);
    const std::lock_guard lock(mutex_);
    if (begins_++ != 0) complain("begin was called twice");
    offset_ = offset;
    identity_ = identity;
    changed_.notify_all();
    return begin_error;
  }

  std::error_code write(std::span<const std::byte> bytes) override {
    const Visit visit(*this);
    if (on_write) on_write();
    const std::lock_guard lock(mutex_);
    if (begins_ == 0) complain("write came before begin");
    if (failed_) complain("write came after an error");
    for (const std::byte byte : bytes) bytes_ += static_cast<char>(byte);
    writes_.push_back(bytes.size());
    changed_.notify_all();
    if (write_error && bytes_.size() >= write_error_from) {
      failed_ = true;
      return write_error;
    }
    return {};
  }

  void done(const FetchResult& result) override {
    {
      const Visit visit(*this);
      if (on_done) on_done();
    }
    const std::lock_guard lock(mutex_);
    if (dones_++ != 0) complain("done was called twice");
    result_ = result;
    changed_.notify_all();
  }

  /// Waits for `done`; false where it does not come in time.
  bool wait(std::chrono::seconds timeout = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [this] { return dones_ > 0; });
  }
  bool wait_for_bytes(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return bytes_.size() >= count || dones_ > 0; });
  }

  [[nodiscard]] FetchResult result() const { return get(result_); }
  [[nodiscard]] std::error_code error() const { return get(result_).error; }
  [[nodiscard]] std::string bytes() const { return get(bytes_); }
  [[nodiscard]] std::vector<std::size_t> writes() const { return get(writes_); }
  [[nodiscard]] std::uint64_t offset() const { return get(offset_); }
  [[nodiscard]] SourceIdentity identity() const { return get(identity_); }
  [[nodiscard]] bool begun() const { return get(begins_) > 0; }
  [[nodiscard]] bool is_done() const { return get(dones_) > 0; }
  /// Empty where it was called as it must be.
  [[nodiscard]] std::string complaints() const { return get(complaints_); }

  // Set before the transfer starts.
  std::error_code begin_error;
  std::error_code write_error;
  std::size_t write_error_from = 0;
  std::function<void()> on_write;
  std::function<void()> on_done;

 private:
  struct Visit {
    explicit Visit(CheckedSink& visited) : sink(visited) {
      if (sink.visitors_.fetch_add(1) != 0) sink.complain_alone("two threads at a time");
      if (sink.is_done()) sink.complain_alone("a call came after done");
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() { sink.visitors_.fetch_sub(1); }
    CheckedSink& sink;
  };

  template <class Value>
  Value get(const Value& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }
  void complain(const char* text) { complaints_ += std::string(text) + "; "; }
  void complain_alone(const char* text) {
    const std::lock_guard lock(mutex_);
    complain(text);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<int> visitors_{0};
  int begins_ = 0;
  int dones_ = 0;
  bool failed_ = false;
  std::uint64_t offset_ = 0;
  SourceIdentity identity_;
  std::string bytes_;
  std::vector<std::size_t> writes_;
  FetchResult result_;
  std::string complaints_;
};

/// Bytes that differ from place to place.
inline std::string pattern(std::size_t size) {
  std::string out(size, '\0');
  std::uint32_t state = 12345;
  for (char& c : out) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return out;
}

/// The contract of DESIGN's section 4. A `Fixture` is default-constructible, has an origin, and offers
///
///     make()                          a new downloader that reaches the origin
///     std::string put(bytes)          the URL of a file with these bytes; the origin knows ranges and validators
///     void replace(url, bytes)        other bytes, with another validator
///     std::string stall(bytes, n)     the URL of a file of which the origin sends n bytes, and then nothing
///     std::string missing()           the URL of no file
///     bad_url(), bad_scheme()         what `check_url` rejects
template <class Fixture>
void downloader_contract() {
  Fixture fixture;
  using D = std::decay_t<decltype(fixture.make())>;
  static_assert(Downloader<D>);
  const auto fetch = [](D& downloader, FetchRequest request) {
    auto sink = std::make_shared<CheckedSink>();
    downloader.start(std::move(request), sink);
    REQUIRE(sink->wait());
    CHECK(sink->complaints() == "");
    return sink;
  };
  D downloader = fixture.make();
  const std::string file = pattern(300'000);

  SUBCASE("moves a file's bytes, and tells what identifies them") {
    const auto sink = fetch(downloader, {fixture.put(file), 0, {}, file.size()});
    CHECK(sink->error() == std::error_code());
    CHECK(sink->offset() == 0);
    CHECK(sink->bytes() == file);
    CHECK(sink->identity().length == file.size());
    CHECK((sink->identity().etag != "" || sink->identity().last_modified != ""));
  }
  SUBCASE("moves a file of no bytes") {
    const auto sink = fetch(downloader, {fixture.put(""), 0, {}, 0});
    CHECK(sink->error() == std::error_code());
    CHECK(sink->begun());
    CHECK(sink->bytes() == "");
  }
  SUBCASE("goes on from an offset, where the source is the same") {
    const std::string url = fixture.put(file);
    const auto first = fetch(downloader, {url, 0, {}, {}});
    const auto rest = fetch(downloader, {url, 100'000, first->identity(), file.size()});
    CHECK(rest->error() == std::error_code());
    CHECK(rest->offset() == 100'000);
    CHECK(rest->bytes() == file.substr(100'000));
    CHECK(rest->identity().length == file.size());
  }
  SUBCASE("starts over, where the source is another") {
    const std::string url = fixture.put(file);
    const auto first = fetch(downloader, {url, 0, {}, {}});
    const std::string other = pattern(200'000) + "!";
    fixture.replace(url, other);
    const auto again = fetch(downloader, {url, 100'000, first->identity(), {}});
    CHECK(again->error() == std::error_code());
    CHECK(again->offset() == 0);
    CHECK(again->bytes() == other);
    CHECK(again->identity() != first->identity());
  }
  SUBCASE("has nothing to do from the end on") {
    const std::string url = fixture.put(file);
    const auto first = fetch(downloader, {url, 0, {}, {}});
    const auto rest = fetch(downloader, {url, file.size(), first->identity(), file.size()});
    CHECK(rest->error() == std::error_code());
    CHECK(rest->offset() == file.size());
    CHECK(rest->bytes() == "");
  }
  SUBCASE("takes no more, and no fewer, bytes than are known to be there") {
    CHECK(fetch(downloader, {fixture.put(file), 0, {}, file.size() - 1})->error() == errc::body_too_long);
    CHECK(fetch(downloader, {fixture.put(file), 0, {}, file.size() + 1})->error() == errc::body_too_short);
  }
  SUBCASE("says what is missing") {
    const auto sink = fetch(downloader, {fixture.missing(), 0, {}, {}});
    CHECK(sink->error() == errc::not_found);
    CHECK_FALSE(sink->begun());
  }
  SUBCASE("rejects URLs that are none, and schemes that are not allowed") {
    CHECK(downloader.check_url(fixture.put("x")) == std::error_code());
    CHECK(downloader.check_url(fixture.bad_url()) == errc::invalid_url);
    CHECK(downloader.check_url(fixture.bad_scheme()) == errc::scheme_not_allowed);
    CHECK(fetch(downloader, {fixture.bad_url(), 0, {}, {}})->error() == errc::invalid_url);
    CHECK(fetch(downloader, {fixture.bad_scheme(), 0, {}, {}})->error() == errc::scheme_not_allowed);
  }
  SUBCASE("stops at the sink's error, and reports that") {
    const std::error_code full = errc::no_space;
    const auto sink = std::make_shared<CheckedSink>();
    SUBCASE("of begin") { sink->begin_error = full; }
    SUBCASE("of write") { sink->write_error = full; }
    downloader.start({fixture.put(file), 0, {}, {}}, sink);
    REQUIRE(sink->wait());
    CHECK(sink->error() == full);
    CHECK(sink->complaints() == "");
  }
  SUBCASE("cancels a transfer that is waiting for bytes") {
    const auto sink = std::make_shared<CheckedSink>();
    const auto transfer = downloader.start({fixture.stall(file, 1000), 0, {}, {}}, sink);
    downloader.cancel(transfer);
    downloader.cancel(transfer);
    REQUIRE(sink->wait());
    CHECK(sink->error() == errc::cancelled);
    CHECK(sink->complaints() == "");
  }
  SUBCASE("a cancellation after the end changes nothing") {
    const auto sink = std::make_shared<CheckedSink>();
    const auto transfer = downloader.start({fixture.put(file), 0, {}, {}}, sink);
    REQUIRE(sink->wait());
    downloader.cancel(transfer);
    CHECK(fetch(downloader, {fixture.put(file), 0, {}, {}})->bytes() == file);
    CHECK(sink->complaints() == "");
    CHECK(sink->error() == std::error_code());
  }
  SUBCASE("a cancellation of no transfer does nothing") { downloader.cancel(typename D::Transfer{}); }
  SUBCASE("a sink may start the next transfer from its done") {
    const std::string url = fixture.put(file);
    const auto second = std::make_shared<CheckedSink>();
    const auto first = std::make_shared<CheckedSink>();
    first->on_done = [&] { downloader.start({url, 0, {}, {}}, second); };
    downloader.start({url, 0, {}, {}}, first);
    REQUIRE(first->wait());
    REQUIRE(second->wait());
    CHECK(second->bytes() == file);
  }
  SUBCASE("many threads start and cancel at once") {
    const std::string url = fixture.put(file);
    std::vector<std::shared_ptr<CheckedSink>> sinks(40);
    for (auto& sink : sinks) sink = std::make_shared<CheckedSink>();
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t i = t; i < sinks.size(); i += 4) {
          const auto transfer = downloader.start({url, 0, {}, {}}, sinks[i]);
          if (i % 8 >= 4) downloader.cancel(transfer);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < sinks.size(); ++i) {
      REQUIRE(sinks[i]->wait());
      CHECK(sinks[i]->complaints() == "");
      if (sinks[i]->error() != errc::cancelled) CHECK(sinks[i]->bytes() == file);
      if (i % 8 < 4) CHECK(sinks[i]->error() == std::error_code());
    }
  }
  SUBCASE("its destructor ends what is running, with its done") {
    std::vector<std::shared_ptr<CheckedSink>> sinks;
    {
      D doomed = fixture.make();
      for (int i = 0; i < 5; ++i) {
        sinks.push_back(std::make_shared<CheckedSink>());
        doomed.start({fixture.stall(file, 1000), 0, {}, {}}, sinks.back());
      }
    }
    for (const auto& sink : sinks) {
      CHECK(sink->is_done());
      CHECK(sink->error() == errc::cancelled);
      CHECK(sink->complaints() == "");
      CHECK(sink.use_count() == 1);
    }
  }
  if constexpr (LimitedDownloader<D>) {
    SUBCASE("where it has limits, they hold, and can be changed and lifted while it runs") {
      downloader.set_limits({2, 1'500'000});
      const auto begin = std::chrono::steady_clock::now();
      CHECK(fetch(downloader, {fixture.put(file), 0, {}, {}})->bytes() == file);
      CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(100));  // 0.3 MB, less 0.1 s
      downloader.set_limits({1, 1'000});
      const auto sink = std::make_shared<CheckedSink>();
      downloader.start({fixture.put(file), 0, {}, {}}, sink);
      downloader.set_limits({8, 0});
      REQUIRE(sink->wait());
      CHECK(sink->bytes() == file);
    }
  }
  SUBCASE("is moved with what is running") {
    const auto sink = std::make_shared<CheckedSink>();
    const auto transfer = downloader.start({fixture.stall(file, 1000), 0, {}, {}}, sink);
    D moved = std::move(downloader);
    moved.cancel(transfer);
    REQUIRE(sink->wait());
    CHECK(sink->error() == errc::cancelled);
  }
}

}  // namespace garner::test
