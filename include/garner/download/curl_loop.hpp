// SPDX-License-Identifier: BSL-1.0
//
// One thread that runs transfers: an io_context, a libcurl multi handle with its connections, and the orders that
// other threads leave for it.
#pragma once

#include <curl/curl.h>
#include <pthread.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/download/curl_driver.hpp"
#include "garner/download/curl_lanes.hpp"
#include "garner/download/curl_pace.hpp"
#include "garner/download/curl_shared.hpp"
#include "garner/download/curl_transfer.hpp"
#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

/// Thread-safety: every member from any thread, but `join` from one. Idle, it does not wake.
/// Object lifetimes: `shared` outlives it. The destructor stops it and joins; not on its own thread.
class CurlLoop {
 public:
  CurlLoop(const CurlShared& shared, SharedBucket& bucket, std::size_t connections_per_host)
      : shared_(shared),
        lanes_(io_, shared.settings, [this] { reap(); }),
        pace_(io_, bucket, shared.settings, [this] { reap(); }),
        guard_(io_.get_executor()) {
    const auto share = [loops = shared.settings.loops](std::size_t all) {
      return static_cast<long>((all + loops - 1) / loops);
    };
    CURLM* const parallel = lanes_.parallel().multi();
    curl_multi_setopt(parallel, CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(connections_per_host));
    curl_multi_setopt(parallel, CURLMOPT_MAXCONNECTS, share(shared.settings.idle_connections));
    curl_multi_setopt(lanes_.shared().multi(), CURLMOPT_MAXCONNECTS, share(shared.settings.idle_connections));
    // The first one is made here, where an option that this libcurl does not have can still throw.
    spare_.push_back(std::make_unique<CurlTransfer>(shared_, lanes_, pace_));
    thread_ = std::thread([this] { run(); });
    thread_id_ = thread_.get_id();
  }
  CurlLoop(const CurlLoop&) = delete;
  CurlLoop& operator=(const CurlLoop&) = delete;
  ~CurlLoop() {
    stop();
    join();
  }

  /// Transfers that have not ended.
  [[nodiscard]] std::size_t load() const noexcept { return load_.load(std::memory_order_relaxed); }

  void start(std::uint64_t id, FetchRequest request, std::shared_ptr<FetchSink> sink) {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped_) {
        orders_.push_back({id, std::move(request), std::move(sink)});
        load_.fetch_add(1, std::memory_order_relaxed);
        return wake();
      }
    }
    sink->done(cancelled());
  }

  void cancel(std::uint64_t id) {
    if (std::this_thread::get_id() == thread_id_) {
      if (const auto found = running_.find(id); found != running_.end()) found->second->cancel();
    }
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    orders_.push_back({id, {}, nullptr});
    wake();
  }

  /// The rate is the bucket's.
  void set_limits(std::size_t connections_per_host) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    asio::post(io_, [this, connections_per_host] { apply(connections_per_host); });
  }

  /// Ends all transfers soon, and the thread after their `done`.
  void stop() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    asio::post(io_, [this] { shut_down(); });
  }

  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  /// To start a transfer, or without a sink to cancel one.
  struct Order {
    std::uint64_t id;
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
  };
  using TransferPtr = std::unique_ptr<CurlTransfer>;

  static FetchResult cancelled() {
    FetchResult result;
    result.error = errc::cancelled;
    return result;
  }

  void run() {
    // Signals are the program's business, and are handled on its own threads.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    io_.run();
  }

  /// With the lock held. One wake-up serves all orders that come before it is heard.
  void wake() {
    if (std::exchange(woken_, true)) return;
    asio::post(io_, [this] { obey(); });
  }

  void obey() {
    std::vector<Order> orders;
    {
      const std::lock_guard lock(mutex_);
      woken_ = false;
      orders.swap(orders_);
    }
    for (Order& order : orders) {
      if (order.sink != nullptr) {
        begin(std::move(order));
      } else if (const auto found = running_.find(order.id); found != running_.end()) {
        end(*found->second, errc::cancelled);
      }
    }
    reap();
  }

  void begin(Order order) {
    TransferPtr transfer;
    if (!spare_.empty()) {
      transfer = std::move(spare_.back());
      spare_.pop_back();
    }
    FetchResult failed;
    try {
      if (transfer == nullptr) transfer = std::make_unique<CurlTransfer>(shared_, lanes_, pace_);
      CurlTransfer& started = *transfer;
      const std::error_code error = started.assign(order.id, std::move(order.request), order.sink);
      running_.emplace(order.id, std::move(transfer));
      if (error || !add(started)) end(started, errc::connection_failed);
      return;
    } catch (const std::exception& error) {
      failed.error = std::make_error_code(std::errc::not_enough_memory);
      failed.detail = error.what();
    }
    load_.fetch_sub(1, std::memory_order_relaxed);
    order.sink->done(failed);
  }

  static bool add(CurlTransfer& transfer) {
    return curl_multi_add_handle(transfer.driver().multi(), transfer.easy()) == CURLM_OK;
  }

  /// Delivers `done`, with `error` unless the transfer has one of its own; a transfer is spent after it.
  void end(CurlTransfer& transfer, std::error_code error = {}) {
    curl_multi_remove_handle(transfer.driver().multi(), transfer.easy());
    transfer.driver().sweep();
    pace_.forget(transfer);
    if (error) transfer.fail(error);
    const auto found = running_.find(transfer.id());
    auto [sink, result] = transfer.take();
    if (spare_.size() < most_spare) spare_.push_back(std::move(found->second));
    running_.erase(found);
    load_.fetch_sub(1, std::memory_order_relaxed);
    sink->done(result);
  }

  /// Takes leave of the transfers that have ended.
  void reap() {
    for (const auto& [ended, stalled] : pace_.take_ended()) {
      auto& transfer = static_cast<CurlTransfer&>(*ended);
      transfer.finish(stalled ? CURLE_OPERATION_TIMEDOUT : CURLE_WRITE_ERROR);
      end(transfer);
    }
    reap(lanes_.parallel());
    reap(lanes_.shared());
    if (lanes_.take_news()) disperse();
    if (running_.empty()) lanes_.rest();
  }

  void reap(CurlDriver& driver) {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(driver.multi(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CurlTransfer* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      driver.keep_connection(transfer->easy());
      curl_multi_remove_handle(driver.multi(), transfer->easy());
      if (transfer->finish(code)) {
        end(*transfer);
      } else if (!add(*transfer)) {
        end(*transfer, errc::connection_failed);
      }
    }
  }

  /// Sends those that wait for a shared connection, and will not find one, on connections of their own.
  void disperse() {
    std::vector<CurlTransfer*> waiting;
    for (const auto& [id, transfer] : running_) {
      if (!transfer->has_begun() && &transfer->driver() == &lanes_.shared()) waiting.push_back(transfer.get());
    }
    for (CurlTransfer* transfer : waiting) start_again(*transfer);
  }

  void start_again(CurlTransfer& transfer) {
    curl_multi_remove_handle(transfer.driver().multi(), transfer.easy());
    transfer.choose_lane();
    if (!add(transfer)) end(transfer, errc::connection_failed);
  }

  void apply(std::size_t connections_per_host) {
    const auto connections = static_cast<long>(connections_per_host);
    curl_multi_setopt(lanes_.parallel().multi(), CURLMOPT_MAX_HOST_CONNECTIONS, connections);
    // libcurl looks at those that wait for a connection when one becomes free, and not when more are allowed.
    std::vector<CurlTransfer*> waiting;
    for (const auto& [id, transfer] : running_) {
      if (!transfer->has_begun()) waiting.push_back(transfer.get());
    }
    for (CurlTransfer* transfer : waiting) start_again(*transfer);
    pace_.refresh();
    reap();
  }

  void shut_down() {
    obey();
    while (!running_.empty()) end(*running_.begin()->second, errc::cancelled);
    spare_.clear();
    pace_.rest();
    lanes_.shut_down();
    guard_.reset();
  }

  /// Handles that are kept for the next transfers, with their buffers.
  static constexpr std::size_t most_spare = 8;

  const CurlShared& shared_;
  asio::io_context io_{1};
  CurlLanes lanes_;
  CurlPace pace_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  std::unordered_map<std::uint64_t, TransferPtr> running_;
  std::vector<TransferPtr> spare_;
  std::atomic<std::size_t> load_{0};

  std::mutex mutex_;
  std::vector<Order> orders_;
  bool woken_ = false;
  bool stopped_ = false;

  std::thread thread_;
  std::thread::id thread_id_;  // as `thread_` says, until it is joined
};

}  // namespace garner::detail
