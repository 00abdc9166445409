// SPDX-License-Identifier: BSL-1.0
//
// The Storage policy: its requirement table, the concept made of one named fragment a row, and a diagnosis
// with one sentence a fragment.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "garner/chunk.hpp"

namespace garner {

/// Names one published generation of a chunk: all that a store must tell of it without opening a file.
struct Generation {
  ChunkId id;
  DatasetId dataset_id;
  BlockRange block_range;
  std::uint64_t bytes = 0;   ///< of all its files
  std::uint64_t number = 0;  ///< its own: no other generation in this store has it
  std::uint32_t volume = 0;  ///< which of the store's volumes holds it; the store's own, opaque to the manager

  friend bool operator==(const Generation&, const Generation&) = default;
};

/// What `recover` found.
struct Recovery {
  std::error_code error;
  std::string subject;                ///< with an error: the path that it is about
  std::uint64_t last_generation = 0;  ///< the greatest number that is in use anywhere, leftovers included
  bool has_partial = false;           ///< chunks that an earlier run did not fetch to their end can be gone on with
};

/// What `clean_up` does with chunks that an earlier run did not fetch to their end.
enum class Partial : std::uint8_t { keep, remove };

/// How much of a generation is looked at.
enum class VerifyDepth : std::uint8_t {
  sizes,  ///< the description is read, and each file's kind and size compared with it; no file is opened for its bytes
  digests,  ///< every byte is read
};

/// Is told of each block that was read; false: no more is to be read.
using VerifyProgress = std::function<bool(std::uint64_t bytes)>;

struct StoreUsage {
  std::uint64_t bytes_used = 0;  ///< by published generations
  std::uint64_t bytes_free = 0;  ///< left for more
};

/// What a volume can do, as it was examined last.
enum class VolumeState : std::uint8_t {
  healthy,
  read_only,  ///< its generations are served; nothing is put there, and nothing there is removed
  away,       ///< set aside: nothing of it can be read
};

constexpr std::string_view to_string(VolumeState state) noexcept {
  switch (state) {
    case VolumeState::healthy: return "healthy";
    case VolumeState::read_only: return "read-only";
    case VolumeState::away: return "away";
  }
  return "unknown";
}

/// One of the places, each with limits of its own, that a store puts generations in.
struct VolumeStatus {
  std::string path;  ///< or what else people know it by
  VolumeState state = VolumeState::healthy;
  std::uint64_t bytes_used = 0;  ///< by published generations; 0 while it is away
  std::uint64_t bytes_free = 0;  ///< that may still be put there, within its limits; 0 where it is not healthy
  /// How often it was opened: a volume that was away and has come back as another opening has told by `found`
  /// what it holds, and holds nothing else.
  std::uint64_t openings = 0;
};

/// A staging area all of whose files are finished, and what became of it.
template <class Staging>
struct PublishRequest {
  Staging* staging;            ///< lent
  Generation generation = {};  ///< where there is no error
  std::error_code error = {};
};

/// Storage
/// =======
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.recover(found)`           | `Recovery`        | called first and once; calls `found(generation)` for each that |
/// |                              |                   | is published and not doomed, before it returns and one after   |
/// |                              |                   | another. Opens none of them                                    |
/// | `s.clean_up(partial)`        | `std::error_code` | takes away what an earlier run left half-done (doomed, half    |
/// |                              |                   | removed), what could not be discarded since, and, as `partial` |
/// |                              |                   | says, what could be gone on with; after an error it is called  |
/// |                              |                   | again, later                                                   |
/// | `s.stage(chunk, number, ec)` | `S::Staging`      | a staging area for this generation: empty, or with what an     |
/// |                              |                   | earlier run had of this chunk; with an error, nothing, or what |
/// |                              |                   | the next `clean_up` takes away                                 |
/// | `staging.open(name, ec)`     | `S::StagedFile`   | the staged file of this name: as it was at its last            |
/// |                              |                   | checkpoint, by an earlier run too, or empty                    |
/// | `file.size()`                | `std::uint64_t`   | the bytes that it has                                          |
/// | `file.write(bytes)`          | `std::error_code` | appends all of them; of none, tells whether more can be        |
/// |                              |                   | written, as far as that is known without trying                |
/// | `file.checkpoint(origin)`    | `std::error_code` | a later run opens the file with the bytes that it has now, and |
/// |                              |                   | with `origin`, as far as that can be done                      |
/// | `file.origin()`              | `std::string`     | of the last checkpoint, if by an earlier run                   |
/// | `file.restart()`             | `std::error_code` | empties it; there is no checkpoint any more                    |
/// | `file.finish()`              | `std::error_code` | it is whole: its size and digest are as the description says   |
/// |                              |                   | (or an error); it is durable, or will be when it is published  |
/// | `s.publish(staging, ec)`     | `Generation`      | all of it, durable, or nothing. Every file was finished        |
/// | `s.discard(staging)`         | `std::error_code` | the staging area is gone, or is the next `clean_up`'s          |
/// | `s.location(generation)`     | `S::Location`     | where it is; const, does not block                             |
/// | `s.describe(generation, ec)` | `DataChunk`       | the description it was staged with, sizes and digests as       |
/// |                              |                   | found, URLs redacted; const                                    |
/// | `s.doom(generation)`         | `std::error_code` | from now on the next start does not recover it; durable. After |
/// |                              |                   | an error, of this or of `spare`, either may be the case        |
/// | `s.spare(generation)`        | `std::error_code` | takes a `doom` back, that of one that failed too; durable      |
/// | `s.remove(generation)`       | `std::error_code` | gone, durably; its location is free. Called again after an     |
/// |                              |                   | error, and then goes on where it stopped                       |
/// | `s.quarantine(generation,    | `std::error_code` | as `remove`, of one that is corrupt: it may be kept for        |
/// |   reason)`                   |                   | whoever wants to know why, but not for ever                    |
/// | `s.verify(generation, depth, | `std::error_code` | `errc::corrupt_chunk` where it disagrees with what was         |
/// |   progress)`                 |                   | published; `errc::cancelled` where `progress(bytes)`, which is |
/// |                              |                   | called after each block that was read, says false; const       |
/// | `s.usage()`                  | `StoreUsage`      | const                                                          |
///
/// A store of several volumes that can fail one by one has these, too (`VolumeStorage`); a store may also have them
/// and one volume.
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.volumes()`                | `std::vector<     | as examined last; the same ones from construction on, and a    |
/// |                              | VolumeStatus>`    | generation's `volume` is an index into them; const             |
/// | `s.examine(found)`           | `std::vector<     | finds out what each volume can do now. Of one that has come    |
/// |                              | VolumeStatus>`    | back and was opened anew: calls `found(generation)` for each   |
/// |                              |                   | that it holds, as `recover` does                               |
///
/// One that publishes several generations for less than each by itself, since they can share their syncs, has this, too
/// (`BatchStorage`); small chunks come so.
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.publish(requests)`        |                   | each as `s.publish(staging, ec)`, and by itself: of            |
/// |                              |                   | `std::span<PublishRequest<S::Staging>>`, each with an error    |
/// |                              |                   | before. Those that have none afterwards were published, also   |
/// |                              |                   | where it throws                                                |
///
/// One that may take long to recover can have this, too (`StoppableStorage`):
///
/// | expression                   | result            | must promise                                                   |
/// |------------------------------|-------------------|----------------------------------------------------------------|
/// | `s.stop_recovery()`          | `void`            | `recover` returns soon, with `errc::cancelled` where it has    |
/// |                              |                   | not told all; what it has told can be doomed then. Called by   |
/// |                              |                   | any thread, also before `recover` and after it; does not block |
///
/// `recover` may tell of generations on a volume that is away: they are wanted, and `describe` may know them from
/// elsewhere. Every other operation on a volume that is away fails. The manager calls `examine` after operations have
/// failed and from time to time while a volume is not healthy, once at a time, and where there is more than one volume.
///
/// Thread-safety: members may be called at the same time for different generations. One generation's calls come one
/// after another, except that its staged files are opened and written at the same time, each by one thread.
/// Throws: may throw; a `std::system_error`'s code counts as returned, anything else as `errc::policy_failed`.
/// A start in the background (`Options::startup`) calls `recover` on the executor. Until it has returned nothing else
/// is called but `location` and `describe`, for generations that were told, `volumes` before, and `stop_recovery`; and
/// after an error no more than these.
/// Blocking: everything but `location` may block, and is called on the executor, but for `size`, `write`, `restart` and
/// `checkpoint`, which are called by the thread that has the bytes. `describe` is also called by whoever asks a pin.
/// Ends: the store outlives the manager where pins do. Dropping a `Staging` or a `StagedFile` keeps what is on disk.
/// In return: only generations that `recover` or `publish` gave are named, and none after its `remove`. A generation is
/// removed when nobody holds a pin on it.
// clang-format off
namespace fragments {
template <class S>
concept storage_moves = std::move_constructible<S>;
template <class S>
concept storage_recovers = requires(S& s, const std::function<void(const Generation&)>& found) {
  { s.recover(found) } -> std::same_as<Recovery>;
};
template <class S>
concept storage_cleans_up = requires(S& s) {
  { s.clean_up(Partial::keep) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_has_staging = requires { typename S::Staging; } && std::movable<typename S::Staging>;
template <class S>
concept storage_stages =
    !storage_has_staging<S> || requires(S& s, const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
      { s.stage(chunk, number, ec) } -> std::same_as<typename S::Staging>;
    };
template <class S>
concept storage_has_staged_file = requires { typename S::StagedFile; } && std::movable<typename S::StagedFile>;
template <class S>
concept storage_opens_files =
    !storage_has_staging<S> || !storage_has_staged_file<S> ||
    requires(typename S::Staging& staging, const std::string& name, std::error_code& ec) {
      { staging.open(name, ec) } -> std::same_as<typename S::StagedFile>;
    };
template <class S>
concept storage_writes_files =
    !storage_has_staged_file<S> || requires(typename S::StagedFile& file, std::span<const std::byte> bytes) {
      { file.size() } -> std::convertible_to<std::uint64_t>;
      { file.write(bytes) } -> std::same_as<std::error_code>;
      { file.restart() } -> std::same_as<std::error_code>;
      { file.finish() } -> std::same_as<std::error_code>;
    };
template <class S>
concept storage_keeps_checkpoints =
    !storage_has_staged_file<S> || requires(typename S::StagedFile& file, std::string_view origin) {
      { file.origin() } -> std::convertible_to<std::string>;
      { file.checkpoint(origin) } -> std::same_as<std::error_code>;
    };
template <class S>
concept storage_publishes =
    !storage_has_staging<S> || requires(S& s, typename S::Staging& staging, std::error_code& ec) {
      { s.publish(staging, ec) } -> std::same_as<Generation>;
    };
template <class S>
concept storage_discards = !storage_has_staging<S> || requires(S& s, typename S::Staging& staging) {
  { s.discard(staging) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_locates =
    requires { typename S::Location; } && requires(const S& s, const Generation& generation) {
      { s.location(generation) } -> std::same_as<typename S::Location>;
    };
template <class S>
concept storage_describes = requires(const S& s, const Generation& generation, std::error_code& ec) {
  { s.describe(generation, ec) } -> std::same_as<DataChunk>;
};
template <class S>
concept storage_dooms = requires(S& s, const Generation& generation) {
  { s.doom(generation) } -> std::same_as<std::error_code>;
  { s.spare(generation) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_removes = requires(S& s, const Generation& generation) {
  { s.remove(generation) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_quarantines = requires(S& s, const Generation& generation, const std::string& reason) {
  { s.quarantine(generation, reason) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_verifies = requires(const S& s, const Generation& generation, const VerifyProgress& progress) {
  { s.verify(generation, VerifyDepth::digests, progress) } -> std::same_as<std::error_code>;
};
template <class S>
concept storage_tells_usage = requires(const S& s) {
  { s.usage() } -> std::same_as<StoreUsage>;
};
template <class S>
concept storage_publishes_batches = requires(S& s, std::span<PublishRequest<typename S::Staging>> requests) {
  s.publish(requests);
};
template <class S>
concept storage_has_volumes = requires(S& s, const S& as_const, const std::function<void(const Generation&)>& found) {
  { as_const.volumes() } -> std::same_as<std::vector<VolumeStatus>>;
  { s.examine(found) } -> std::same_as<std::vector<VolumeStatus>>;
};
}  // namespace fragments

template <class S>
concept Storage =
    fragments::storage_moves<S> && fragments::storage_recovers<S> && fragments::storage_cleans_up<S> &&
    fragments::storage_has_staging<S> && fragments::storage_stages<S> && fragments::storage_has_staged_file<S> &&
    fragments::storage_opens_files<S> && fragments::storage_writes_files<S> && fragments::storage_keeps_checkpoints<S> &&
    fragments::storage_publishes<S> &&
    fragments::storage_discards<S> && fragments::storage_locates<S> && fragments::storage_describes<S> &&
    fragments::storage_dooms<S> && fragments::storage_removes<S> && fragments::storage_quarantines<S> &&
    fragments::storage_verifies<S> && fragments::storage_tells_usage<S>;

template <class S>
concept VolumeStorage = Storage<S> && fragments::storage_has_volumes<S>;

template <class S>
concept BatchStorage = Storage<S> && fragments::storage_publishes_batches<S>;

template <class S>
concept StoppableStorage = Storage<S> && requires(S& s) { s.stop_recovery(); };
// clang-format on

/// Compiles where `S` is a Storage; otherwise each requirement that it misses is one sentence.
template <class S>
constexpr bool diagnose_storage() {
  static_assert(fragments::storage_moves<S>, "garner: a Storage must be move-constructible.");
  static_assert(fragments::storage_recovers<S>,
                "garner: a Storage must have recover(const std::function<void(const garner::Generation&)>&) that "
                "returns a garner::Recovery.");
  static_assert(fragments::storage_cleans_up<S>,
                "garner: a Storage must have clean_up(garner::Partial) that returns a std::error_code.");
  static_assert(fragments::storage_has_staging<S>, "garner: a Storage must have a movable type Staging.");
  static_assert(fragments::storage_stages<S>,
                "garner: a Storage must have stage(const garner::DataChunk&, std::uint64_t, std::error_code&) that "
                "returns its Staging.");
  static_assert(fragments::storage_has_staged_file<S>, "garner: a Storage must have a movable type StagedFile.");
  static_assert(fragments::storage_opens_files<S>,
                "garner: a Storage's Staging must have open(const std::string&, std::error_code&) that returns a "
                "StagedFile.");
  static_assert(fragments::storage_writes_files<S>,
                "garner: a Storage's StagedFile must have size(), and write(std::span<const std::byte>), restart() "
                "and finish() that return a std::error_code.");
  static_assert(fragments::storage_keeps_checkpoints<S>,
                "garner: a Storage's StagedFile must have origin() that returns a std::string, and "
                "checkpoint(std::string_view) that returns a std::error_code.");
  static_assert(fragments::storage_publishes<S>,
                "garner: a Storage must have publish(Staging&, std::error_code&) that returns a garner::Generation.");
  static_assert(fragments::storage_discards<S>,
                "garner: a Storage must have discard(Staging&) that returns a std::error_code.");
  static_assert(fragments::storage_locates<S>,
                "garner: a Storage must have a type Location, and location(const garner::Generation&) const that "
                "returns it.");
  static_assert(fragments::storage_describes<S>,
                "garner: a Storage must have describe(const garner::Generation&, std::error_code&) const that returns "
                "a garner::DataChunk.");
  static_assert(fragments::storage_dooms<S>,
                "garner: a Storage must have doom(const garner::Generation&) and spare(const garner::Generation&) "
                "that return a std::error_code.");
  static_assert(fragments::storage_removes<S>,
                "garner: a Storage must have remove(const garner::Generation&) that returns a std::error_code.");
  static_assert(fragments::storage_quarantines<S>,
                "garner: a Storage must have quarantine(const garner::Generation&, const std::string&) that returns a "
                "std::error_code.");
  static_assert(fragments::storage_verifies<S>,
                "garner: a Storage must have verify(const garner::Generation&, garner::VerifyDepth, const "
                "garner::VerifyProgress&) const that returns a std::error_code.");
  static_assert(fragments::storage_tells_usage<S>,
                "garner: a Storage must have usage() const that returns a garner::StoreUsage.");
  return Storage<S>;
}

}  // namespace garner
