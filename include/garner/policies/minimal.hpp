// SPDX-License-Identifier: BSL-1.0
//
// The smallest class that conforms to each policy: what to copy when writing one of one's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/policies/downloader.hpp"
#include "garner/policies/executor.hpp"
#include "garner/policies/storage.hpp"

/// Compiled here, run in the tests, and good for nothing else.
namespace garner::minimal {

/// Runs tasks when its caller says so, and keeps no time of its own: timers are due at once. One thread only.
class Executor {
 public:
  using Timer = std::shared_ptr<Task>;

  void post(Task task) { tasks_->push_back(std::make_shared<Task>(std::move(task))); }
  Timer post_at(Instant, Task task) {
    post(std::move(task));
    return tasks_->back();
  }
  void cancel(Timer& timer) {
    if (timer) *timer = nullptr;
  }
  [[nodiscard]] Instant now() const { return {}; }
  bool run_one_until(Instant) {
    if (tasks_->empty()) return false;
    const Timer task = std::move(tasks_->front());
    tasks_->pop_front();
    if (*task) (*task)();
    return true;
  }

 private:
  std::shared_ptr<std::deque<Timer>> tasks_ = std::make_shared<std::deque<Timer>>();
};

/// Every URL's bytes are the URL itself.
class Downloader {
 public:
  using Transfer = int;

  [[nodiscard]] std::error_code check_url(std::string_view) const { return {}; }
  Transfer start(const FetchRequest& request, const std::shared_ptr<FetchSink>& sink) {
    FetchResult result;
    result.error = sink->begin(0, {});
    if (!result.error) result.error = sink->write(std::as_bytes(std::span(request.url)));
    sink->done(result);
    return 0;
  }
  void cancel(Transfer) {}
};

/// Swallows every byte and remembers only what it was told to hold.
class Storage {
 public:
  using Location = std::uint64_t;
  struct StagedFile {
    std::uint64_t bytes = 0;
    [[nodiscard]] std::uint64_t size() const { return bytes; }
    std::error_code write(std::span<const std::byte> more) { return bytes += more.size(), std::error_code(); }
    std::error_code restart() { return bytes = 0, std::error_code(); }
    [[nodiscard]] std::string origin() const { return {}; }
    std::error_code checkpoint(std::string_view) { return {}; }
    std::error_code finish() { return {}; }
  };
  struct Staging {
    DataChunk chunk;
    std::uint64_t number = 0;
    StagedFile open(const std::string&, std::error_code&) { return {}; }
  };

  Recovery recover(const std::function<void(const Generation&)>&) { return {}; }
  std::error_code clean_up(Partial) { return {}; }
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code&) { return {chunk, number}; }
  Generation publish(Staging& staging, std::error_code&) {
    held_[staging.number] = staging.chunk;
    return {staging.chunk.id, staging.chunk.dataset_id, staging.chunk.block_range, 0, staging.number};
  }
  std::error_code discard(Staging&) { return {}; }
  [[nodiscard]] Location location(const Generation& generation) const { return generation.number; }
  DataChunk describe(const Generation& generation, std::error_code&) const { return held_.at(generation.number); }
  std::error_code doom(const Generation&) { return {}; }
  std::error_code spare(const Generation&) { return {}; }
  std::error_code remove(const Generation& generation) { return held_.erase(generation.number), std::error_code(); }
  std::error_code quarantine(const Generation& generation, const std::string&) { return remove(generation); }
  [[nodiscard]] std::error_code verify(const Generation&, VerifyDepth, const VerifyProgress&) const { return {}; }
  [[nodiscard]] StoreUsage usage() const { return {}; }

 private:
  std::map<std::uint64_t, DataChunk> held_;
};

static_assert(garner::Executor<Executor> && garner::Downloader<Downloader> && garner::Storage<Storage>);

}  // namespace garner::minimal
