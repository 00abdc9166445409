// SPDX-License-Identifier: BSL-1.0
//
// DataManager: the face of the library. It validates what it is told, hands it to the engine, and answers
// lookups from the index; what decides is in `core/`, what does is in `manager/` and the policies.
#pragma once

#include <chrono>
#include <concepts>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/chunk_ref.hpp"
#include "garner/error.hpp"
#include "garner/manager/engine.hpp"
#include "garner/policies.hpp"
#include "garner/status.hpp"

namespace garner {

/// Where a class given as a policy is not one: says in one sentence each what it misses.
template <class S, class D, class E>
class DataManager {
  static_assert(diagnose_storage<S>() && diagnose_downloader<D>() && diagnose_executor<E>());
};

/// Makes a local store converge to the chunks that were asked for, and hands out pins on those that are
/// there.
///
/// `download_chunk`, `delete_chunk` and `set_assignment` set a desired state, in which the last call about an
/// id wins; the store converges to it in the background. `find_chunk`, `find_chunks` and `list_chunks` tell
/// what is served: whole, verified, durable chunks. Their effects are linearizable: after `delete_chunk`
/// returned, no thread finds the chunk.
///
/// *Thread-safety*: every member may be called from any thread at any time. None blocks on I/O; only
/// `wait_converged` and `close` wait. Lookups take no lock that a writer takes.
///
/// *Object lifetimes*: owns its policies. The destructor closes. Pins (`ChunkRef`) may outlive the manager,
/// and keep the store. The manager must not be destroyed by one of its own observers, nor, with a borrowed
/// executor, by a task of it.
///
/// *Exception safety*: a call that throws has changed nothing. `std::bad_alloc` inside a background task ends
/// the program.
template <Storage S, Downloader D, Executor E>
class DataManager<S, D, E> {
 public:
  using ChunkRef = DataChunkRef<S>;

  /// Opens the store at `data_dir`, with the other policies made from `options`. Reads the names of what is there (or
  /// leaves that to the background, `Options::startup`), and nothing else; what more is to be checked before it is
  /// served (`Options::startup_check`) is checked in the background. Throws `Error` that names the path:
  /// `errc::directory_in_use`, `errc::unknown_format`, …
  explicit DataManager(std::filesystem::path data_dir, Options options = {}) requires
      std::constructible_from<S, std::filesystem::path, const Options&> && std::constructible_from<D, const Options&> &&
      std::default_initializable<E> : DataManager(S(std::move(data_dir), options), D(options), E(), options) {}

  /// With policies of one's own. Throws `Error` where the storage's `recover` fails, unless that is called in the
  /// background.
  DataManager(S storage, D downloader, E executor, Options options = {})
      : engine_(std::move(storage), std::move(downloader), std::move(executor), options) {}

  /// Wants `chunk`. Throws `Error` where the description is invalid (nothing has changed then) or after
  /// `close`.
  void download_chunk(DataChunk chunk) {
    if (const std::optional<Invalid> invalid = want(std::move(chunk))) throw Error(invalid->code, invalid->subject);
  }

  /// As above, with the error in `error`, which is cleared on success.
  void download_chunk(DataChunk chunk, std::error_code& error) {
    const std::optional<Invalid> invalid = want(std::move(chunk));
    error = invalid ? invalid->code : std::error_code();
  }

  /// Does not want the chunk any more. It is not found from now on, and removed once the last pin on it is
  /// dropped. Nothing happens where it is unknown, or after `close`.
  void delete_chunk(const ChunkId& id) noexcept {
    engine_.input([&](core::Instant now) { engine_.table().remove(id, now); });
  }

  /// The chunks that `find_chunk` can return now, by dataset and range.
  [[nodiscard]] std::vector<ChunkId> list_chunks() const { return engine_.listing().ids(); }

  /// A pin on the chunk that has `block`. Where ranges overlap: the one of the greatest begin; among equals,
  /// the one asked for last.
  [[nodiscard]] std::optional<ChunkRef> find_chunk(const DatasetId& dataset, BlockNumber block) const {
    return engine_.listing().find(dataset, block);
  }

  /// Pins on all chunks that meet `range`, by begin.
  [[nodiscard]] std::vector<ChunkRef> find_chunks(const DatasetId& dataset, BlockRange range) const {
    return engine_.listing().find_all(dataset, range);
  }

  /// Wants these chunks and no others, in one step: no reader sees a part of it. Throws as `download_chunk`
  /// does, at the first description that is invalid, and has changed nothing then. Returns the assignment's
  /// number, which `Status::converged_epoch` reaches.
  Epoch set_assignment(std::span<const DataChunk> chunks) {
    const ChunkLimits limits = engine_.limits();
    std::vector<core::Wish> wishes;
    wishes.reserve(chunks.size());
    for (const DataChunk& chunk : chunks) {
      if (const std::optional<Invalid> invalid = check(chunk, limits)) throw Error(invalid->code, invalid->subject);
      wishes.emplace_back(chunk);
    }
    std::optional<Epoch> epoch;
    engine_.input([&](core::Instant now) {
      if (!engine_.table().closed()) epoch = engine_.table().assign(wishes, now);
    });
    if (!epoch) throw Error(errc::closed, "set_assignment");
    return *epoch;
  }

  /// Waits until nothing wanted is missing, and nothing unwanted is left unpinned; false where that takes
  /// longer than `timeout`, or the manager was closed before, or the store could not be read
  /// (`Status::recovery_error`). With an executor that has no threads of its own, runs its tasks; then one thread at a
  /// time should: what another one has run is not seen before there is a task, or the timeout.
  bool wait_converged(std::chrono::nanoseconds timeout) { return engine_.wait_converged(timeout); }

  /// Counts, bytes and rates; the cost does not depend on how many chunks there are.
  [[nodiscard]] Status status() const { return engine_.status(); }

  /// Nothing where the chunk is neither wanted nor held.
  [[nodiscard]] std::optional<ChunkStatus> chunk_status(const ChunkId& id) const { return engine_.chunk_status(id); }

  /// Calls `observer` for each event from now on, one at a time and in order, on the executor. It may throw,
  /// be slow and call the manager back (but not destroy it); what it throws is dropped, and where it is
  /// slower than what happens, events are dropped and it is told so.
  [[nodiscard]] Subscription subscribe(std::function<void(const Event&)> observer) {
    return engine_.observers().subscribe(std::move(observer));
  }

  /// Changes the limits while it runs. Options that are fixed at construction are ignored.
  void set_options(Options options) { engine_.set_options(options); }

  /// Asks for everything that is held to be re-read and compared with what was published, and for every disk of a store
  /// of several to be looked at, in the background and as fast as it goes; a pass that is running begins anew. What is
  /// corrupt is not served any more, is told as a `chunk_failed` event, and is fetched anew; `Status::scrub` tells how
  /// far it is. While a start in the background goes on: of what it has found by now, and once it has ended.
  void verify() {
    std::vector<ChunkId> all = engine_.listing().sorted_ids();
    engine_.input([&](core::Instant now) { engine_.table().verify(all, now); });
  }

  /// Stops all transfers, keeps what they have for the next start, and waits for what is under way in the
  /// store; never for a pin. Called by an observer, it waits for nothing. Lookups go on until the manager is
  /// destroyed; other calls fail with `errc::closed` or do nothing.
  void close() { engine_.close(); }

 private:
  std::optional<Invalid> check(const DataChunk& chunk, const ChunkLimits& limits) const {
    return detail::check(chunk, limits, engine_.downloader());
  }

  std::optional<Invalid> want(DataChunk chunk) {
    if (std::optional<Invalid> invalid = check(chunk, engine_.limits())) return invalid;
    const core::Wish wish(std::move(chunk));
    bool closed = false;
    engine_.input([&](core::Instant now) {
      closed = engine_.table().closed();
      engine_.table().download(wish, now);
    });
    if (closed) return Invalid{errc::closed, "chunk " + wish.chunk->id.to_hex()};
    return std::nullopt;
  }

  detail::Engine<S, D, E> engine_;
};

template <Storage S, Downloader D, Executor E>
DataManager(S, D, E) -> DataManager<S, D, E>;
template <Storage S, Downloader D, Executor E>
DataManager(S, D, E, Options) -> DataManager<S, D, E>;

}  // namespace garner
