// SPDX-License-Identifier: BSL-1.0
//
// The simulated network: files at URLs, and the Downloader that moves them piece by piece, each piece a task of the
// world, with whatever a bad network and a bad server do to them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"
#include "garner/simulation/sim_world.hpp"

namespace garner {

/// How a server is, where it is not like most.
struct SimServer {
  bool has_validators = true;  ///< gives an ETag, so that transfers can go on where they stopped
  bool is_honest = false;      ///< flips no bit: for bytes that no digest guards
};

/// What servers hold, and what was asked of them. One thread. Outlives the downloaders.
class SimNetwork {
 public:
  explicit SimNetwork(SimWorld& world) : world_(world) {}

  /// A file, replaced where the URL has one.
  void put(const std::string& url, std::string bytes, SimServer server = {}) {
    File& file = files_[url];
    file.bytes = std::move(bytes);
    file.server = server;
    ++file.version;
  }

  [[nodiscard]] std::size_t active() const noexcept { return active_.size(); }  ///< transfers under way
  /// How many transfers are under way from each URL, where there are any.
  [[nodiscard]] const std::map<std::string, std::size_t>& active_by_url() const noexcept { return active_; }
  [[nodiscard]] std::uint64_t started() const noexcept { return started_; }  ///< transfers, so far
  [[nodiscard]] std::uint64_t bytes_moved() const noexcept { return bytes_moved_; }
  /// The most transfers that one URL ever had at the same time.
  [[nodiscard]] std::size_t most_per_url() const noexcept { return most_per_url_; }
  /// Bytes of the files of all transfers under way.
  [[nodiscard]] std::uint64_t bytes_in_flight() const {
    std::uint64_t bytes = 0;
    for (const auto& [url, transfers] : active_) {
      const auto file = files_.find(url);
      if (file != files_.end()) bytes += file->second.bytes.size() * transfers;
    }
    return bytes;
  }
  /// The most transfers under way at the same time since the last call.
  std::uint64_t take_most_active() noexcept { return std::exchange(most_active_, active_.size()); }

 private:
  friend class SimDownloader;
  struct File {
    std::string bytes;
    std::uint64_t version = 0;
    SimServer server;
  };

  SimWorld& world_;
  std::map<std::string, File> files_;
  std::map<std::string, std::size_t> active_;  // per URL
  std::uint64_t started_ = 0;
  std::uint64_t bytes_moved_ = 0;
  std::size_t most_per_url_ = 0;
  std::uint64_t most_active_ = 0;
};

/// Thread-safety: none, one thread. Lifetime: the network outlives it; its destructor drives the world until all its
/// transfers have ended.
class SimDownloader {
  struct Flow;

 public:
  using Transfer = std::weak_ptr<Flow>;

  explicit SimDownloader(SimNetwork& network) : state_(std::make_unique<State>(network)) {}
  SimDownloader(SimDownloader&&) noexcept = default;
  SimDownloader& operator=(SimDownloader&&) = delete;
  ~SimDownloader() {
    if (!state_) return;
    for (const auto& [number, flow] : state_->flows) flow->cancelled = true;
    while (!state_->flows.empty() && state_->network.world_.run_one_until(Instant::max())) {
    }
  }

  [[nodiscard]] std::error_code check_url(std::string_view url) const {
    return url.starts_with("http://") || url.starts_with("https://") ? std::error_code()
                                                                     : make_error_code(errc::scheme_not_allowed);
  }

  Transfer start(FetchRequest request, std::shared_ptr<FetchSink> sink) {
    SimNetwork& network = state_->network;
    if (network.world_.strikes(SimFaultKind::not_started)) throw std::system_error(errc::too_many_open_files);
    auto flow = std::make_shared<Flow>(*state_, std::move(request), std::move(sink));
    state_->flows.emplace(++network.started_, flow);
    flow->number = network.started_;
    const std::size_t active = ++network.active_[flow->request.url];
    network.most_per_url_ = std::max(network.most_per_url_, active);
    network.most_active_ = std::max<std::uint64_t>(network.most_active_, network.active_.size());
    network.world_.note("  get ", flow->request.url, " from ", std::to_string(flow->request.offset));
    Flow::later(flow, [](Flow& f) { f.respond(); });
    network.world_.may_switch();
    return flow;
  }

  void cancel(const Transfer& transfer) {
    const auto flow = transfer.lock();
    if (!flow || std::exchange(flow->cancelled, true) || flow->stalled == 0) return;
    flow->world().cancel(std::exchange(flow->stalled, 0));
    Flow::later(flow, [](Flow& f) { f.end(errc::cancelled); });
  }

 private:
  struct State {
    explicit State(SimNetwork& net) : network(net) {}
    SimNetwork& network;
    std::map<std::uint64_t, std::shared_ptr<Flow>> flows;
  };

  /// One transfer. Its steps are tasks of the world, each of which holds it.
  struct Flow : std::enable_shared_from_this<Flow> {
    Flow(State& owner, FetchRequest asked, std::shared_ptr<FetchSink> taker)
        : state(owner), request(std::move(asked)), sink(std::move(taker)) {}

    template <class Step>
    static void later(const std::shared_ptr<Flow>& flow, Step step) {
      flow->world().post([flow, step] { step(*flow); });
    }

    [[nodiscard]] SimWorld& world() const { return state.network.world_; }
    [[nodiscard]] std::uint64_t choose(std::uint64_t n) const { return world().decisions().choose(n); }

    /// The status line and the headers.
    void respond() {
      if (cancelled) return end(errc::cancelled);
      if (world().strikes(SimFaultKind::server_error)) {
        FetchResult result;
        result.http_status = choose(2) == 0 ? 503 : 429;
        result.detail = request.url + " answered " + std::to_string(result.http_status);
        if (choose(2) == 1) result.retry_after = std::chrono::seconds(static_cast<std::int64_t>(choose(100'000)) - 10);
        return end(errc::server_busy, std::move(result));
      }
      if (world().strikes(SimFaultKind::forbidden)) return end(errc::credentials_rejected);
      const auto file = state.network.files_.find(request.url);
      if (file == state.network.files_.end() || world().strikes(SimFaultKind::not_found)) return end(errc::not_found);

      bytes = file->second.bytes;
      SourceIdentity identity;
      identity.length = bytes.size();
      const SimServer server = file->second.server;
      if (server.has_validators) identity.etag = '"' + std::to_string(file->second.version) + '"';
      const bool changed = world().strikes(SimFaultKind::source_changed);
      if (changed) identity.etag = "\"changed\"";
      // If-Range: a validator that does not match, or none, gets the whole (RFC 9110, 13.1.5).
      const bool is_same = !identity.etag.empty() && request.identity.etag == identity.etag;
      at = request.offset > 0 && is_same ? request.offset : 0;
      if (at > bytes.size()) at = 0;
      if (at > 0 && world().strikes(SimFaultKind::wrong_range)) return end(errc::range_mismatch);
      if (!server.is_honest && !bytes.empty() && world().strikes(SimFaultKind::wrong_bytes)) {
        bytes[choose(bytes.size())] ^= 1;
      }
      if (request.size && world().strikes(SimFaultKind::long_body)) bytes += "and more";
      if (const std::error_code error = sink->begin(at, identity)) return end(error);
      next_piece();
    }

    void next_piece() {
      if (!cancelled && world().strikes(SimFaultKind::stall)) {
        stalled = world().post_at(world().now() + std::chrono::seconds(30), [self = shared_from_this()] {
          self->stalled = 0;
          self->end(self->cancelled ? errc::cancelled : errc::timed_out);
        });
        return;
      }
      later(shared_from_this(), [](Flow& flow) { flow.deliver(); });
    }

    void deliver() {
      if (cancelled && !world().strikes(SimFaultKind::late_completion)) return end(errc::cancelled);
      if (at == bytes.size()) return end({});
      if (world().strikes(SimFaultKind::connection_reset)) return end(errc::connection_failed);
      if (world().strikes(SimFaultKind::truncated_body)) return end(errc::body_too_short);
      const std::size_t left = bytes.size() - at;
      const std::size_t count = left - static_cast<std::size_t>(choose(left));
      if (request.size && at + count > *request.size) return end(errc::body_too_long);
      state.network.bytes_moved_ += count;
      const std::error_code error = sink->write(std::as_bytes(std::span(bytes).subspan(at, count)));
      if (error) return end(error);
      at += count;
      next_piece();
    }

    void end(std::error_code error, FetchResult result = {}) {
      if (std::exchange(ended, true)) return;
      const auto self = shared_from_this();
      result.error = error;
      if (world().trace) world().note("  end of ", request.url, error ? ": " + error.message() : std::string());
      SimNetwork& network = state.network;
      if (--network.active_[request.url] == 0) network.active_.erase(request.url);
      state.flows.erase(number);
      const auto taker = std::move(sink);
      taker->done(result);
    }

    State& state;
    FetchRequest request;
    std::shared_ptr<FetchSink> sink;
    std::uint64_t number = 0;
    bool cancelled = false;
    bool ended = false;
    std::uint64_t stalled = 0;  ///< the timer that ends it
    std::string bytes;
    std::size_t at = 0;
  };

  std::unique_ptr<State> state_;
};

static_assert(diagnose_downloader<SimDownloader>());

}  // namespace garner
