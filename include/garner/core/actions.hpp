// SPDX-License-Identifier: BSL-1.0
//
// What the state machine wants done, and the outcomes that come back. Values only: who performs an action, on
// which thread and how, is not known here.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// Names one transfer of one file; never used twice.
using TransferId = std::uint64_t;

/// What `download_chunk` asks for, with its fingerprint computed where no lock is held.
struct Wish {
  explicit Wish(DataChunk description)
      : chunk(std::make_shared<const DataChunk>(std::move(description))),
        content(content_fingerprint(*chunk)),
        bytes(declared_bytes(*chunk)) {}

  std::shared_ptr<const DataChunk> chunk;
  ContentFingerprint content;
  std::optional<std::uint64_t> bytes;  ///< declared
};

/// How an action ended.
struct Outcome {
  std::error_code error;
  std::string subject;                                  ///< with an error: the file and redacted URL, or the path
  std::optional<std::chrono::nanoseconds> retry_after;  ///< as a server asked
  std::uint64_t bytes = 0;                              ///< of a transfer: that it moved, ...
  std::chrono::nanoseconds took{};                      ///< ... from its start to its last

  [[nodiscard]] bool ok() const noexcept { return !error; }
};

/// Each action but the last six is answered by exactly one report: `staged`, `file_done`, and so on.
namespace action {

/// Open a staging area for a new generation.
struct Stage {
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
};
/// Fetch one file of a staged generation, from the `url`-th of its mirrors.
struct StartFile {
  TransferId transfer;
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
  const std::string* name;  ///< into `chunk`
  std::shared_ptr<const FileSource> source;
  std::size_t url;
  bool finds_out = false;  ///< whether its server is well again: `answered` is to tell as soon as it answers
};
/// Ask for a new source of one file, whose credentials were rejected.
struct Refresh {
  TransferId transfer;  ///< that was told so
  std::uint64_t number;
  std::shared_ptr<const DataChunk> chunk;
  const std::string* name;  ///< into `chunk`
  std::function<FileSource(const DataChunk&, const std::string&)> ask = {};
};
struct Publish {
  ChunkId id;
  std::uint64_t number;
};
/// Take a staging area away. Nothing writes to it any more.
struct Discard {
  ChunkId id;
  std::uint64_t number;
};
/// Make sure that the next start does not find this generation: it is still pinned, or its removal has failed. To be
/// asked about first, by `withdraw_doom`.
struct Doom {
  Generation generation;
};
struct Spare {
  Generation generation;
};
/// Take a generation away. Nobody has a pin on it.
struct Remove {
  Generation generation;
};
struct Describe {
  Generation generation;
};
/// As Remove, of one that is corrupt.
struct Quarantine {
  Generation generation;
  std::string reason;
};
struct Verify {
  Generation generation;
  VerifyDepth depth;
};

/// Tell the ids of all that is listed, for a pass over them.
struct ListHeld {};

/// Take away what was left half-done.
struct CleanUp {
  Partial partial;
};

/// Find out what each volume can do. `found` comes before the report, for each generation on one that was opened anew.
struct Examine {};

/// From now on, for a downloader that can be told.
struct Limit {
  FetchLimits limits;
};
/// End a transfer early. Its `file_done` comes all the same.
struct StopFile {
  TransferId transfer;
};
/// They are many, and nobody needs them any more.
struct FreeIds {
  std::vector<ChunkId> ids;
};
/// Serve a generation / serve it no more. Performed before the call that caused it returns.
struct List {
  Generation generation;
  std::uint64_t asked;
};
struct Unlist {
  Generation generation;
  std::uint64_t asked;  ///< as it was listed
};
/// Tell all pins on it that it is corrupt; it is not listed. Likewise at once.
struct Condemn {
  Generation generation;
};

}  // namespace action

using Action = std::variant<action::Stage, action::StartFile, action::Refresh, action::Publish, action::Discard,
                            action::Doom, action::Spare, action::Remove, action::Quarantine, action::Describe,
                            action::Verify, action::ListHeld, action::CleanUp, action::Examine, action::Limit,
                            action::StopFile, action::FreeIds, action::List, action::Unlist, action::Condemn, Event>;

/// Keeps the room for a few: a great assignment is not to hold its memory for ever.
inline void clear(std::vector<Action>& actions) {
  if (actions.capacity() <= 128) return actions.clear();
  std::vector<Action>().swap(actions);
}

/// What is to be done, in order, and how much of it is still to be reported on.
class ActionList {
 protected:
  template <class Done>
  void act(Done action) {
    constexpr bool reported = !std::is_same_v<Done, action::Limit> && !std::is_same_v<Done, action::StopFile> &&
                              !std::is_same_v<Done, action::FreeIds> && !std::is_same_v<Done, action::List> &&
                              !std::is_same_v<Done, action::Unlist> && !std::is_same_v<Done, action::Condemn>;
    if (reported) ++unreported_;
    actions_.emplace_back(std::move(action));
  }

  void notify(EventKind kind, const ChunkId& id, std::uint64_t number) {
    Event event;
    event.kind = kind;
    event.id = id;
    event.generation = number;
    actions_.emplace_back(std::move(event));
  }

  void notify_failure(const ChunkId& id, std::uint64_t number, const Outcome& outcome) {
    notify(EventKind::chunk_failed, id, number);
    auto& event = std::get<Event>(actions_.back());
    event.error = outcome.error;
    event.subject = outcome.subject;
  }

  void notify_volume(EventKind kind, const std::string& path) {
    notify(kind, {}, 0);
    std::get<Event>(actions_.back()).subject = path;
  }

  std::vector<Action> actions_;
  std::size_t unreported_ = 0;
};

}  // namespace garner::core
