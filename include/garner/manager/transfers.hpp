// SPDX-License-Identifier: BSL-1.0
//
// The chunks that are being fetched, as the policies see them: staging areas, staged files, and the transfers
// that fill them. Does what it is told and reports; decides only whether a file can go on where it stopped.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/manager/fetched_part.hpp"
#include "garner/manager/file_origin.hpp"
#include "garner/manager/guarded.hpp"
#include "garner/manager/rate_meter.hpp"
#include "garner/policies/downloader.hpp"
#include "garner/policies/executor.hpp"
#include "garner/policies/storage.hpp"

namespace garner::detail {

/// Thread-safety: every member from any thread; the calls about one generation come in the order of the
/// protocol.
template <Storage S, Downloader D>
class Transfers {
 public:
  /// `spawn` runs a task on the executor; `now` tells the time; `report` takes the end of each transfer,
  /// `answered` that a server answers that was to be found out about, `sized` the bytes of a file whose size was not
  /// declared, and tells whether there is room.
  struct Hooks {
    std::function<void(Task)> spawn;
    std::function<Instant()> now;
    std::function<void(const ChunkId&, core::TransferId, const core::Outcome&)> report;
    std::function<void(const ChunkId&, core::TransferId)> answered;
    std::function<bool(const ChunkId&, core::TransferId, std::uint64_t)> sized;
  };

  struct Published {
    Generation generation;
    core::Outcome outcome;
  };

  /// After each `checkpoint_bytes` of a file another run could go on with it.
  Transfers(S& storage, D& downloader, std::uint64_t checkpoint_bytes, Hooks hooks)
      : storage_(storage), downloader_(downloader), checkpoint_bytes_(checkpoint_bytes), hooks_(std::move(hooks)) {}
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  /// Opens the staging area of a generation. Blocks.
  core::Outcome stage(const core::action::Stage& action) {
    std::optional<typename S::Staging> staging;
    const std::error_code error = guarded([&] {
      std::error_code ec;
      staging.emplace(storage_.stage(*action.chunk, action.number, ec));
      return ec;
    });
    if (error) return about_chunk(action.chunk->id, error);
    auto fetch = std::make_shared<Fetch>(std::move(*staging));
    for (const auto& [name, source] : action.chunk->files) fetch->files[name];
    const std::scoped_lock lock(mutex_);
    fetches_[action.number] = std::move(fetch);
    return {};
  }

  /// Makes a transfer known, so that `stop` can reach it from now on; the executor starts it.
  void start(const core::action::StartFile& action) {
    auto transfer = std::make_shared<Transfer>(*this, action);
    {
      const std::scoped_lock lock(mutex_);
      const std::shared_ptr<Fetch>& fetch = fetches_.at(action.number);
      transfer->fetch = fetch;
      transfer->file = &fetch->files.at(*action.name);
      transfers_[action.transfer] = transfer;
    }
    hooks_.spawn([this, transfer] { begin(transfer); });
  }

  /// Ends a transfer early. Its report comes all the same.
  void stop(core::TransferId id) {
    std::optional<typename D::Transfer> handle;
    {
      const std::scoped_lock lock(mutex_);
      const auto it = transfers_.find(id);
      if (it == transfers_.end()) return;
      it->second->stopped = true;
      handle = it->second->handle;
    }
    if (handle) cancel(*handle);
  }

  /// Each by itself; together where the storage can, since they share their syncs then. Blocks.
  std::vector<Published> publish(std::span<const core::action::Publish> actions) {
    std::vector<Published> out(actions.size());
    std::vector<std::shared_ptr<Fetch>> fetches;
    std::vector<PublishRequest<typename S::Staging>> requests;
    for (const core::action::Publish& action : actions) {
      fetches.push_back(find(action.number));
      requests.push_back({&fetches.back()->staging, {}, errc::policy_failed});
    }
    if constexpr (BatchStorage<S>) {
      const std::error_code thrown = guarded([&] { storage_.publish(std::span(requests)); });
      for (auto& request : requests) {
        if (request.error && thrown) request.error = thrown;
      }
    } else {
      for (auto& request : requests) {
        request.error = guarded([&] {
          std::error_code ec;
          request.generation = storage_.publish(*request.staging, ec);
          return ec;
        });
      }
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (requests[i].error) {
        out[i].outcome = about_chunk(actions[i].id, requests[i].error);
        continue;
      }
      out[i].generation = requests[i].generation;
      staged_.fetch_sub(out[i].generation.bytes, std::memory_order_relaxed);
      forget(actions[i].number);
    }
    return out;
  }

  /// Takes a staging area away. What fails here is left for the store's `clean_up`. Blocks.
  core::Outcome discard(const core::action::Discard& action) {
    const std::shared_ptr<Fetch> fetch = find(action.number);
    for (auto& entry : fetch->files) {
      File& file = entry.second;
      guarded([&] {
        if (file.staged) waste(file.staged->size());
      });
      file.staged.reset();
    }
    const std::error_code error = guarded([&] { return storage_.discard(fetch->staging); });
    forget(action.number);
    return error ? about_chunk(action.id, error) : core::Outcome();
  }

  /// Lets go of all staging areas; the store keeps what is in them.
  void clear() {
    const std::scoped_lock lock(mutex_);
    fetches_.clear();
  }

  /// Bytes that were received for what is being fetched.
  [[nodiscard]] std::uint64_t staged() const noexcept { return staged_.load(std::memory_order_relaxed); }
  [[nodiscard]] const RateMeter& received() const noexcept { return received_; }
  /// Bytes of an earlier run that were gone on with.
  [[nodiscard]] std::uint64_t resumed() const noexcept { return resumed_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t wasted() const noexcept { return wasted_.load(std::memory_order_relaxed); }

 private:
  using StagedFile = typename S::StagedFile;

  struct File {
    std::optional<StagedFile> staged;
    FetchedPart part;              // that is there; its size as it was when the last transfer began
    std::uint64_t checkpoint = 0;  // of the bytes
  };

  struct Fetch {
    explicit Fetch(typename S::Staging area) : staging(std::move(area)) {}
    typename S::Staging staging;
    std::map<std::string, File> files;  // all of them, from the start
  };

  class Transfer final : public FetchSink, public std::enable_shared_from_this<Transfer> {
   public:
    Transfer(Transfers& transfers, core::action::StartFile start)
        : action(std::move(start)), url(redact_url(action.source->urls[action.url])), transfers_(transfers) {}

    std::error_code begin(std::uint64_t offset, const SourceIdentity& identity) override {
      if (action.finds_out) transfers_.hooks_.answered(action.chunk->id, action.transfer);
      return guarded([&]() -> std::error_code {
        if (offset != file->staged->size()) {
          if (offset != 0) return errc::range_mismatch;
          if (const std::error_code error = transfers_.restart(*file)) return error;
        }
        file->part.identity = identity;
        file->part.url = url;
        return transfers_.check_size(*this);
      });
    }

    std::error_code write(std::span<const std::byte> bytes) override {
      latest = transfers_.hooks_.now();
      received += bytes.size();
      transfers_.received_.add(latest, bytes.size());
      const std::error_code error = guarded([&] { return file->staged->write(bytes); });
      // What could not be written does not count as written, however much of it was.
      (error ? transfers_.wasted_ : transfers_.staged_).fetch_add(bytes.size(), std::memory_order_relaxed);
      return error ? error : transfers_.checkpoint(*this, transfers_.checkpoint_bytes_);
    }

    void done(const FetchResult& result) override {
      // Finishing syncs, and the thread that moves bytes is not to wait for that.
      transfers_.hooks_.spawn([self = this->shared_from_this(), result] { self->transfers_.finish(self, result); });
    }

    core::action::StartFile action;
    const std::string url;  // redacted
    Instant started{};
    Instant latest{};  // bytes came
    std::uint64_t received = 0;
    std::shared_ptr<Fetch> fetch;
    File* file = nullptr;                        // in `fetch`
    std::optional<typename D::Transfer> handle;  // guarded by the mutex of `Transfers`
    bool stopped = false;                        // likewise

   private:
    Transfers& transfers_;
  };

  /// On the executor.
  void begin(const std::shared_ptr<Transfer>& transfer) {
    FetchResult failed;
    failed.error = guarded([&] { return open(*transfer); });
    if (!failed.error && is_stopped(*transfer)) failed.error = errc::cancelled;
    if (failed.error || is_whole(*transfer->action.source, transfer->file->part)) return finish(transfer, failed);

    transfer->started = transfer->latest = hooks_.now();
    std::optional<typename D::Transfer> handle;
    failed.error = guarded([&] {
      const core::action::StartFile& action = transfer->action;
      handle = downloader_.start(request_rest(*action.source, transfer->file->part, action.url), transfer);
    });
    if (failed.error) return finish(transfer, failed);
    bool stopped = false;
    {
      const std::scoped_lock lock(mutex_);
      transfer->handle = handle;
      stopped = transfer->stopped;
    }
    // `stop` came before there was a handle to stop.
    if (stopped) cancel(*handle);
  }

  void cancel(const typename D::Transfer& handle) {
    guarded([&] { downloader_.cancel(handle); });
  }

  std::error_code open(Transfer& transfer) {
    File& file = *transfer.file;
    if (!file.staged) {
      std::error_code error;
      StagedFile opened = transfer.fetch->staging.open(*transfer.action.name, error);
      if (error) return error;
      file.staged.emplace(std::move(opened));
      take_over(transfer);
    } else if (const std::error_code error = file.staged->write({})) {
      return error;  // its volume is gone: known before anything is moved in vain
    }
    file.part.size = file.staged->size();
    if (file.part.size == 0) return {};
    return can_resume(*transfer.action.source, file.part, transfer.url) ? check_size(transfer) : restart(file);
  }

  /// What an earlier run had of the file.
  void take_over(const Transfer& transfer) {
    File& file = *transfer.file;
    const std::uint64_t size = file.staged->size();
    if (size == 0) return;
    staged_.fetch_add(size, std::memory_order_relaxed);
    resumed_.fetch_add(size, std::memory_order_relaxed);
    file.checkpoint = size;
    std::optional<FileOrigin> origin = parse_origin(file.staged->origin());
    if (!origin) return;
    file.part.identity = std::move(origin->identity);
    file.part.url = std::move(origin->url);
  }

  /// So that another run can go on from here, where `step` bytes have come since the last time, and enough in all.
  std::error_code checkpoint(const Transfer& transfer, std::uint64_t step) {
    File& file = *transfer.file;
    return guarded([&]() -> std::error_code {
      const std::uint64_t size = file.staged->size();
      if (size < checkpoint_bytes_ || size - file.checkpoint < step) return {};
      file.checkpoint = size;
      return file.staged->checkpoint(to_text({file.part.url, file.part.identity}));
    });
  }

  /// Tells the size of a file whose size was not declared; whether there is room for it.
  std::error_code check_size(const Transfer& transfer) {
    const std::optional<std::uint64_t>& length = transfer.file->part.identity.length;
    if (transfer.action.source->size || !length) return {};
    const bool fits = hooks_.sized(transfer.action.chunk->id, transfer.action.transfer, *length);
    return fits ? std::error_code() : errc::over_budget;
  }

  /// On the executor, after the downloader has let go of the sink.
  void finish(const std::shared_ptr<Transfer>& transfer, const FetchResult& result) {
    File& file = *transfer->file;
    core::Outcome outcome;
    outcome.error = result.error;
    outcome.bytes = transfer->received;
    outcome.took = transfer->latest - transfer->started;
    if (!outcome.error) outcome.error = guarded([&] { return file.staged->finish(); });
    const ErrorClass cls = classify(outcome.error);
    if (cls == ErrorClass::wrong_bytes) {
      if (const std::error_code error = guarded([&] { return restart(file); })) outcome.error = error;
    } else if (file.staged && !file.part.url.empty() && cls != ErrorClass::none && cls != ErrorClass::local) {
      // It may be long until it goes on, or be another run that does.
      checkpoint(*transfer, 1);
    }
    if (outcome.error) {
      const std::string& from = result.detail.empty() ? transfer->url : result.detail;
      outcome.subject = "file '" + *transfer->action.name + "' from " + from;
      outcome.retry_after = result.retry_after;
    }
    {
      const std::scoped_lock lock(mutex_);
      transfers_.erase(transfer->action.transfer);
    }
    hooks_.report(transfer->action.chunk->id, transfer->action.transfer, outcome);
  }

  std::error_code restart(File& file) {
    if (!file.staged) return {};
    waste(file.staged->size());
    file.part = {};
    file.checkpoint = 0;
    return file.staged->restart();
  }

  void waste(std::uint64_t bytes) noexcept {
    wasted_.fetch_add(bytes, std::memory_order_relaxed);
    staged_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  bool is_stopped(const Transfer& transfer) {
    const std::scoped_lock lock(mutex_);
    return transfer.stopped;
  }

  std::shared_ptr<Fetch> find(std::uint64_t number) {
    const std::scoped_lock lock(mutex_);
    return fetches_.at(number);
  }

  void forget(std::uint64_t number) {
    const std::scoped_lock lock(mutex_);
    fetches_.erase(number);
  }

  static core::Outcome about_chunk(const ChunkId& id, std::error_code error) {
    return {error, "chunk " + id.to_hex(), std::nullopt};
  }

  S& storage_;
  D& downloader_;
  const std::uint64_t checkpoint_bytes_;
  Hooks hooks_;
  RateMeter received_;
  std::atomic<std::uint64_t> resumed_{0};
  std::atomic<std::uint64_t> wasted_{0};
  std::atomic<std::uint64_t> staged_{0};
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Fetch>> fetches_;
  std::unordered_map<core::TransferId, std::shared_ptr<Transfer>> transfers_;
};

}  // namespace garner::detail
