// SPDX-License-Identifier: BSL-1.0
//
// One generation on its way in: which of its files are there, which are moving, which mirrors are left to try. Knows
// nothing of other chunks, of limits or of time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/fetch_queue.hpp"
#include "garner/core/hosts.hpp"
#include "garner/error.hpp"

namespace garner::core {

/// The files of one chunk while they are fetched.
class ChunkFetch {
 public:
  enum class Phase : std::uint8_t {
    staging,       ///< the staging area is being opened
    transferring,  ///< files move, or wait for a free transfer
    publishing,    ///< all files are there
    waiting,       ///< some file failed at every mirror; what is there is kept for the next round
    discarding,    ///< the staging area is being taken away
  };

  /// A transfer that has ended, and what its server is to be told of it.
  struct Ended {
    HostPtr host;
    std::uint64_t began;
  };

  ChunkFetch(std::uint64_t number, std::shared_ptr<const DataChunk> chunk, const ContentFingerprint& content,
             Hosts& hosts)
      : number_(number), chunk_(std::move(chunk)), content_(content) {
    files_.reserve(chunk_->files.size());
    for (const auto& [name, source] : chunk_->files) {
      File& file = files_.emplace_back();
      file.name = &name;
      set_source(file, {chunk_, &source}, hosts);
    }
  }

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  [[nodiscard]] const std::shared_ptr<const DataChunk>& chunk() const noexcept { return chunk_; }
  [[nodiscard]] const ContentFingerprint& content() const noexcept { return content_; }
  /// Files that are moving, or whose source is being refreshed.
  [[nodiscard]] std::size_t moving() const noexcept { return moving_; }

  Phase phase = Phase::staging;
  bool stopping = false;     ///< not wanted any more: to be discarded when nothing moves
  bool halted = false;       ///< its transfers were told to stop, and no more are started
  bool spoiled = false;      ///< the store failed under it: its staging cannot be trusted
  Outcome failure;           ///< of this round, the one that says most about when it is worth trying again
  FetchQueue::LanePtr lane;  ///< that it counts as active in

  [[nodiscard]] bool has_pending() const {
    return std::any_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::pending; });
  }
  [[nodiscard]] bool complete() const {
    return std::all_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::done; });
  }
  /// Where the next file comes from.
  [[nodiscard]] const std::vector<std::string>& next_urls() const {
    const auto pending =
        std::find_if(files_.begin(), files_.end(), [](const File& file) { return file.state == State::pending; });
    return (pending == files_.end() ? files_.front() : *pending).source->urls;
  }
  /// Whether any file was finished in this round.
  [[nodiscard]] bool progressed() const noexcept { return progressed_; }

  /// Where no pending file can begin, because all servers that it is left with are resting: until when.
  [[nodiscard]] std::optional<Instant> rest_until() const {
    std::optional<Instant> first;
    for (const File& file : files_) {
      if (file.state != State::pending) continue;
      const std::optional<Instant> until = Hosts::rest_until(file.mirrors);
      if (!until) return std::nullopt;
      if (!first || *until < *first) first = until;
    }
    return first;
  }

  /// Whether `can_choose` says so of the mirrors of any pending file.
  template <class CanChoose>
  [[nodiscard]] bool can_start(CanChoose&& can_choose) const {
    return std::any_of(files_.begin(), files_.end(), [&](const File& file) {
      return file.state == State::pending && can_choose(std::span<const Mirror>(file.mirrors));
    });
  }

  /// Starts the first pending file of whose mirrors `choose(mirrors, any)` tells one; there is such a file. `any`: what
  /// is there of it can be gone on with from any of them, as a digest tells whether that was right.
  template <class Choose>
  action::StartFile start_next(TransferId transfer, Choose&& choose) {
    std::optional<std::size_t> mirror;
    File& file = *std::find_if(files_.begin(), files_.end(), [&](const File& candidate) {
      if (candidate.state != State::pending) return false;
      mirror = choose(std::span<const Mirror>(candidate.mirrors), candidate.source->digest.has_value());
      return mirror.has_value();
    });
    file.state = State::moving;
    file.transfer = transfer;
    file.url = *mirror;
    file.host = file.mirrors[*mirror].host;
    file.began = Hosts::began(*file.host);
    ++moving_;
    return {transfer, number_, chunk_, file.name, file.source, file.url, Hosts::is_on_probation(*file.host)};
  }

  /// The transfers that are under way.
  [[nodiscard]] std::vector<TransferId> transfers() const {
    std::vector<TransferId> out;
    for (const File& file : files_) {
      if (file.state == State::moving) out.push_back(file.transfer);
    }
    return out;
  }

  Ended file_done(TransferId transfer) {
    File& file = find(transfer);
    file.state = State::done;
    progressed_ = true;
    --moving_;
    return {file.host, file.began};
  }

  /// Its server answers.
  void answered(TransferId transfer) {
    const File& file = find(transfer);
    Hosts::answered(*file.host, file.began);
  }

  /// A server has told the size of a file.
  void sized(TransferId transfer, std::uint64_t bytes) { find(transfer).bytes = bytes; }

  /// Bytes of all files, as far as they are known.
  [[nodiscard]] std::uint64_t reserved() const noexcept {
    std::uint64_t total = 0;
    for (const File& file : files_) {
      const std::uint64_t bytes = file.source->size.value_or(file.bytes);
      total = bytes > UINT64_MAX - total ? UINT64_MAX : total + bytes;
    }
    return total;
  }

  /// The transfer failed: its file is pending again with the mirrors that were not tried yet in this round. Those of a
  /// source that has come since all are.
  Ended file_failed(TransferId transfer, ErrorClass cls) {
    File& file = find(transfer);
    --moving_;
    if (!std::exchange(file.is_old, false)) {
      file.mirrors[file.url].tried = true;
      file.was_rejected = file.was_rejected || cls == ErrorClass::credentials;
    }
    file.state = is_exhausted(file) ? State::failed : State::pending;
    return {file.host, file.began};
  }

  /// Whether another source may help: every mirror was tried, and one at least rejected the credentials. Once a round.
  [[nodiscard]] bool needs_refresh(TransferId transfer) {
    const File& file = *at(transfer);
    return file.state == State::failed && file.was_rejected && !file.was_refreshed;
  }

  /// To be answered by `refreshed`.
  action::Refresh refresh(TransferId transfer) {
    File& file = *at(transfer);
    file.state = State::refreshing;
    file.was_refreshed = true;
    ++moving_;
    return {transfer, number_, chunk_, file.name, {}};
  }

  /// There is another source for the file, unless there is none.
  void refreshed(TransferId transfer, const FileSource* source, Hosts& hosts) {
    File& file = *at(transfer);
    --moving_;
    if (std::exchange(file.is_old, false)) {
      file.state = State::pending;
      return;
    }
    file.state = State::failed;
    if (source == nullptr) return;
    set_source(file, std::make_shared<const FileSource>(*source), hosts);
    file.was_rejected = false;
    file.state = State::pending;
  }

  /// Whether `chunk` names the same bytes, from elsewhere perhaps.
  [[nodiscard]] bool is_of(const DataChunk& chunk, const std::optional<ContentFingerprint>& content) const {
    const auto same = [](const auto& mine, const auto& other) { return mine.second.size == other.second.size; };
    return content == content_ &&
           std::equal(chunk_->files.begin(), chunk_->files.end(), chunk.files.begin(), chunk.files.end(), same);
  }

  /// From now on the sources are those of `chunk`, which names the same bytes. What is moving goes on as it is.
  void take_sources(const std::shared_ptr<const DataChunk>& chunk, Hosts& hosts) {
    auto file = files_.begin();
    for (const auto& [name, source] : chunk->files) {
      file->name = &name;
      file->is_old = file->state == State::moving || file->state == State::refreshing;
      set_source(*file, {chunk, &source}, hosts);
      file->was_rejected = file->was_refreshed = false;
      if (file->state == State::failed) file->state = State::pending;
      ++file;
    }
    chunk_ = chunk;
    if (!spoiled) failure = {};
  }

  /// What failed may be tried again, at every mirror.
  void new_round() {
    for (File& file : files_) {
      for (Mirror& mirror : file.mirrors) mirror.tried = false;
      file.was_rejected = file.was_refreshed = false;
      if (file.state == State::failed) file.state = State::pending;
    }
    progressed_ = false;
    failure = {};
  }

 private:
  enum class State : std::uint8_t { pending, moving, refreshing, done, failed };
  struct File {
    const std::string* name = nullptr;
    std::shared_ptr<const FileSource> source;
    std::vector<Mirror> mirrors;  // its URLs, in their order
    State state = State::pending;
    bool was_rejected = false;   // in this round, by some mirror
    bool was_refreshed = false;  // in this round
    bool is_old = false;         // what is under way is about a source that was replaced meanwhile
    TransferId transfer = 0;     // the last one, as are the next three
    std::size_t url = 0;
    HostPtr host;
    std::uint64_t began = 0;
    std::uint64_t bytes = 0;  // as a server told, where it was not declared
  };

  static void set_source(File& file, std::shared_ptr<const FileSource> source, Hosts& hosts) {
    file.source = std::move(source);
    file.mirrors.clear();
    file.mirrors.reserve(file.source->urls.size());
    for (const std::string& url : file.source->urls) file.mirrors.push_back({hosts.at(url)});
  }

  static bool is_exhausted(const File& file) {
    return std::all_of(file.mirrors.begin(), file.mirrors.end(), [](const Mirror& mirror) { return mirror.tried; });
  }

  std::vector<File>::iterator at(TransferId transfer) {
    return std::find_if(files_.begin(), files_.end(), [=](const File& file) { return file.transfer == transfer; });
  }
  File& find(TransferId transfer) { return *at(transfer); }

  std::uint64_t number_;
  std::shared_ptr<const DataChunk> chunk_;
  ContentFingerprint content_;
  std::vector<File> files_;
  std::size_t moving_ = 0;
  bool progressed_ = false;
};

}  // namespace garner::core
