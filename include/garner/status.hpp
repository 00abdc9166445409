// SPDX-License-Identifier: BSL-1.0
//
// What a data manager is told and what it tells: options, the status of the whole and of one chunk, and
// events. Plain values, copied out; nothing here refers back to the manager.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/http_options.hpp"
#include "garner/policies/storage.hpp"

namespace garner {

/// How much of the publish protocol's syncing is done.
enum class Durability : std::uint8_t {
  full,     ///< ready means durable: what was found once is there after a power cut
  relaxed,  ///< nothing is synced: after a power cut (not after a mere crash of the process) chunks may be
            ///< missing, empty or partly zero, and the store has to be thrown away. For caches, and for
            ///< comparing.
};

/// What a start does with the chunks that it finds, before it serves them.
enum class StartupCheck : std::uint8_t {
  names,    ///< nothing: they are served as soon as their names were read
  sizes,    ///< each is served once its description was read and its files have the sizes that it says
  digests,  ///< each is served once all its bytes were read and are what was published
};

/// How much of a start its constructor waits for. It always takes the lock and checks the format, or throws.
enum class Startup : std::uint8_t {
  /// All names are read, and all that is there is known. Throws where it cannot be read.
  complete,
  /// Nothing more: names are read in the background, by one task of the executor, and what is there is served as it is
  /// found; of a store with several locations once all were read. What was not found yet is not found by lookups, and
  /// calls about it count as they do after a complete start, the last one of each id. Until all is known nothing is
  /// fetched, removed, checked or changed, and the manager has not converged; `Status::recovering` and the event
  /// `recovered` tell. Where the store cannot be read they tell that, too: what was found is served, and nothing else
  /// is done until the next start. `close` ends the reading early; a deletion of what had not been found by then is
  /// forgotten.
  background,
};

/// A place of a data directory that is made of several (`Options::locations`): a directory, as a rule of a disk of its
/// own, which is a complete data directory by itself.
struct Location {
  std::filesystem::path path;  ///< a relative one begins at the manager's data_dir; "." is that itself
  /// Of the files of all chunks that are put there.
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t keep_free_bytes = 0;  ///< on its disk, for others
  /// While nothing is mounted there it is away, and nothing is written into the directory below the mount.
  bool must_be_mount_point = false;
};

/// How much is fetched at once.
struct FetchLimits {
  std::size_t max_concurrent_chunks = 32;  ///< chunks being fetched, or published
  std::size_t max_concurrent_files = 8;    ///< transfers, over all chunks
  std::size_t max_files_per_host = 8;      ///< of them, from one server
  std::uint64_t bytes_per_second = 0;      ///< over all transfers; 0: as fast as it goes

  friend bool operator==(const FetchLimits&, const FetchLimits&) = default;
};

/// What can be chosen. All of it can be changed while the manager runs (`set_options`), except where it says
/// not.
struct Options {
  // What a description may hold.
  std::size_t max_files = 10;                              ///< files a chunk
  std::uint64_t max_chunk_bytes = std::uint64_t{1} << 40;  ///< declared sizes of one chunk, together
  bool require_https = false;                              ///< reject `http`; fixed at construction

  // Whom it talks to, and how; fixed at construction.
  /// Where not empty, nothing else is connected to. An entry is a host's name (`lake.example`), all names below one
  /// (`.lake.example`), or an address or network (`10.0.0.0/8`, `::1`). Where there are networks, the address that a
  /// name resolves to must lie in one of them too, so DNS cannot lead elsewhere.
  std::vector<std::string> allowed_hosts = {};
  HttpOptions http = {};

  // How much happens at once. A server that answers that it is too much (429, 503) gets less, until it bears more
  // again.
  std::size_t max_concurrent_chunks = 32;  ///< chunks being fetched, or published
  std::size_t max_concurrent_files = 8;    ///< transfers, over all chunks
  std::size_t max_files_per_host = 8;      ///< of them, from one server
  std::uint64_t bytes_per_second = 0;      ///< over all transfers, where the downloader can; 0: as fast as it goes
  /// In place of these four, from the moment on at which chunks are served and nothing that is wanted is missing: a
  /// worker that is being filled may take all that the network gives, and one that answers queries may not.
  /// `Status::filled` tells.
  std::optional<FetchLimits> when_filled = std::nullopt;

  // How much is kept. What does not fit waits, in its turn, until something was removed; nothing that is wanted is
  // removed for it.
  std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();  ///< of all chunks' files, held or being fetched
  std::uint64_t keep_free_bytes = 0;                                    ///< on the store's disk, for others

  // What is done with chunks that an earlier run did not fetch to their end.
  /// From the start on they are kept for so long, for being asked for again; not longer than there is room.
  std::chrono::nanoseconds staging_ttl = std::chrono::hours(1);
  /// So many bytes of each file, at most, are fetched again after a process was killed; fixed at construction.
  std::uint64_t checkpoint_bytes = std::uint64_t{8} << 20;

  // What is done about failures. Delays are full jitter: uniform in [0, min(max_backoff, min_backoff *
  // 2^attempt)].
  std::chrono::nanoseconds min_backoff = std::chrono::milliseconds(100);
  std::chrono::nanoseconds max_backoff = std::chrono::minutes(5);
  std::chrono::nanoseconds no_space_retry = std::chrono::seconds(30);  ///< while parked, and nothing is removed; a disk
                                                                       ///< that is not healthy is looked at that often

  /// Asked for where else to get one file of a chunk from, once its sources have rejected the credentials (401, 403: a
  /// presigned URL that has expired, as a rule). Called on the executor, where it may block, but must not call
  /// `close`; from several threads at once.
  /// Of what it returns the URLs and headers count; the bytes are still those that the description tells of. The
  /// transfer goes on where it was. Where it throws, or returns nothing that can be used, the file is tried again after
  /// a while.
  std::function<FileSource(const DataChunk& chunk, const std::string& file)> refresh = {};

  /// Whether a deleted chunk that is still pinned is taken back at once when it is wanted again (no byte
  /// moves).
  bool revive = true;

  Durability durability = Durability::full;  ///< fixed at construction
  /// Threads of `FilesystemStorage`, for each of its locations, that wait for the disk: syncs that run at the same time
  /// share what they cost. Made when there is something for them to do. 0: the executor's threads sync one thing after
  /// another. Fixed at construction.
  std::size_t max_sync_threads = 15;

  Startup startup = Startup::complete;  ///< fixed at construction

  // What is done about disks that forget.
  StartupCheck startup_check = StartupCheck::names;  ///< in the background; fixed at construction
  std::size_t max_concurrent_checks = 4;             ///< chunks that are checked after a start

  /// From the begin of one pass that re-reads all that is held to the begin of the next; the first begins at once.
  /// Zero: none but those that `verify` asks for.
  std::chrono::nanoseconds scrub_interval{};
  /// Of such a pass: after n bytes the next chunk waits until they are paid for. 0: as fast as it goes.
  std::uint64_t scrub_bytes_per_second = 0;

  /// Bytes of corrupt chunks that are set aside for whoever wants to know why. The oldest go first, and all where space
  /// is short. Fixed at construction.
  std::uint64_t quarantine_max_bytes = std::uint64_t{1} << 30;
  /// Where chunks are kept: each of them on the location with the most free bytes. None: in the data_dir alone, which
  /// otherwise is no location unless it is among them. Fixed at construction.
  std::vector<Location> locations = {};

  /// Seeds the jitter; fixed at construction. 0: a different one each time.
  std::uint64_t seed = 0;
};

/// Counts assignments (`set_assignment`), from 1.
using Epoch = std::uint64_t;

/// Where a chunk is in its life.
enum class ChunkState : std::uint8_t {
  queued,       ///< wanted, waiting for its turn
  downloading,  ///< wanted, bytes are moving
  publishing,   ///< wanted, whole, being made durable
  waiting,      ///< wanted, waiting to be tried again
  parked,       ///< wanted, waiting for space, or for a store that takes nothing
  ready,        ///< whole, durable and served
  draining,     ///< not wanted, still pinned
  removing,     ///< not wanted, being taken away
  checking,     ///< wanted, found by the start, and not served before it was checked (`Options::startup_check`)
};

constexpr std::string_view to_string(ChunkState state) noexcept {
  switch (state) {
    case ChunkState::queued: return "queued";
    case ChunkState::downloading: return "downloading";
    case ChunkState::publishing: return "publishing";
    case ChunkState::waiting: return "waiting";
    case ChunkState::parked: return "parked";
    case ChunkState::ready: return "ready";
    case ChunkState::draining: return "draining";
    case ChunkState::removing: return "removing";
    case ChunkState::checking: return "checking";
  }
  return "unknown";
}

/// One chunk, at the moment of asking.
struct ChunkStatus {
  ChunkState state = ChunkState::queued;
  bool wanted = false;
  bool served = false;         ///< `find_chunk` can return it now (perhaps an older generation of it)
  std::uint64_t attempts = 0;  ///< failed attempts since it was wanted or last ready
  std::error_code last_error;  ///< of the last failed attempt
  ErrorClass last_error_class = ErrorClass::none;
  std::string last_error_subject;  ///< the file and the redacted URL that failed, or the store's path
  std::optional<std::chrono::nanoseconds> next_try_in;  ///< from now; where the state is waiting or parked
};

/// A pass that re-reads what is held, at the moment of asking; where none is running, the last one.
struct ScrubStatus {
  bool running = false;
  std::size_t chunks_done = 0;   ///< re-read, or gone before their turn
  std::size_t chunks_total = 0;  ///< held when it began
  std::uint64_t bytes_done = 0;  ///< of the chunks that were re-read
  std::size_t corrupt = 0;       ///< found; each is told as a `chunk_failed` event
  std::size_t unreadable = 0;    ///< the disk did not give the bytes; likewise, and served on
  std::uint64_t passes = 0;      ///< that came to their end, since construction
};

/// The whole, at the moment of asking.
struct Status {
  // Wanted chunks; their sum is what is wanted.
  std::size_t ready = 0;  ///< served, and as they are wanted
  std::size_t queued = 0;
  std::size_t downloading = 0;  ///< includes publishing
  std::size_t waiting = 0;      ///< to be tried again
  std::size_t parked = 0;       ///< for space
  std::size_t checking = 0;     ///< found by the start, and not served before that was checked
  // Generations that are not wanted any more.
  std::size_t draining = 0;  ///< still pinned
  std::size_t removing = 0;
  std::size_t away = 0;  ///< wanted or not, on a volume that is set aside

  std::uint64_t bytes_ready = 0;         ///< of all generations that are served
  std::uint64_t bytes_received = 0;      ///< over the network, since construction
  std::uint64_t bytes_resumed = 0;       ///< that an earlier run had received, and were gone on with
  std::uint64_t bytes_wasted = 0;        ///< of both, thrown away
  double bytes_per_second = 0;           ///< received, over the last few seconds
  std::uint64_t chunks_published = 0;    ///< since construction
  std::uint64_t chunks_removed = 0;      ///< corrupt ones included
  std::uint64_t chunks_quarantined = 0;  ///< of those, corrupt ones, which the store may have set aside
  std::uint64_t attempts_failed = 0;
  std::uint64_t bytes_reserved = 0;    ///< for what is being fetched, as far as sizes are known
  std::uint64_t store_bytes_used = 0;  ///< as the store last told
  std::uint64_t store_bytes_free = 0;
  std::uint64_t bytes_verified = 0;  ///< re-read, since construction
  ScrubStatus scrub;
  std::vector<VolumeStatus> volumes;  ///< likewise; none where the storage does not tell

  // Of a start in the background (`Options::startup`).
  bool recovering = false;         ///< it is not known yet what the store holds
  std::error_code recovery_error;  ///< the store could not be read, ...
  std::string recovery_subject;    ///< ... at this path

  Epoch assigned_epoch = 0;   ///< of the last `set_assignment`; 0 before the first
  Epoch converged_epoch = 0;  ///< the last one that the store had converged to
  bool filled = false;        ///< it had converged once, and served chunks then (`Options::when_filled`)
  bool converged = false;     ///< nothing wanted is missing, nothing unwanted is left unpinned
  bool closed = false;
};

enum class EventKind : std::uint8_t {
  chunk_ready,       ///< served from now on
  chunk_unlisted,    ///< not found from now on; `generation` may still be pinned
  chunk_removed,     ///< a generation is gone from the store
  chunk_failed,      ///< an attempt failed; it will be tried again
  converged,         ///< nothing wanted is missing, nothing unwanted is left unpinned
  scrubbed,          ///< a pass that re-read all that is held has ended; `Status::scrub` tells of it
  volume_away,       ///< a volume failed and is set aside; what it held is fetched again elsewhere
  volume_read_only,  ///< nothing can be written to a volume; what it holds is served
  volume_healthy,    ///< a volume is as it should be again
  recovered,         ///< a start in the background knows what the store holds or, with an error, could not read it
  events_dropped,    ///< an observer was so slow that events were dropped: look at `status` afresh
  closed,            ///< the last event
};

constexpr std::string_view to_string(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::chunk_ready: return "ready";
    case EventKind::chunk_unlisted: return "unlisted";
    case EventKind::chunk_removed: return "removed";
    case EventKind::chunk_failed: return "failed";
    case EventKind::converged: return "converged";
    case EventKind::scrubbed: return "scrubbed";
    case EventKind::volume_away: return "volume away";
    case EventKind::volume_read_only: return "volume read-only";
    case EventKind::volume_healthy: return "volume healthy";
    case EventKind::recovered: return "recovered";
    case EventKind::events_dropped: return "events dropped";
    case EventKind::closed: return "closed";
  }
  return "unknown";
}

/// Something that happened. Events about one chunk arrive in the order in which they happened.
struct Event {
  EventKind kind = EventKind::converged;
  ChunkId id;                    ///< of the `chunk_…` kinds
  std::uint64_t generation = 0;  ///< likewise
  std::error_code error;         ///< `chunk_failed`, `recovered`
  std::string subject;           ///< `chunk_failed`: the file and the redacted URL, or the store's path;
                                 ///< `volume_…`: the volume's path; `recovered`, with an error: the path
  Epoch epoch = 0;               ///< `converged`: the assignment converged to
};

/// Keeps an observer subscribed; dropping it unsubscribes. After that no new call of the observer begins; one
/// that is running on another thread may still finish. May be dropped inside the observer, and after the
/// manager is gone.
class Subscription {
 public:
  Subscription() = default;
  explicit Subscription(std::function<void()> unsubscribe) : unsubscribe_(std::move(unsubscribe)) {}
  Subscription(Subscription&& other) noexcept : unsubscribe_(std::exchange(other.unsubscribe_, nullptr)) {}
  Subscription& operator=(Subscription&& other) noexcept {
    if (this != &other) {
      reset();
      unsubscribe_ = std::exchange(other.unsubscribe_, nullptr);
    }
    return *this;
  }
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription() { reset(); }

  void reset() noexcept {
    if (auto unsubscribe = std::exchange(unsubscribe_, nullptr)) unsubscribe();
  }

 private:
  std::function<void()> unsubscribe_;
};

}  // namespace garner
