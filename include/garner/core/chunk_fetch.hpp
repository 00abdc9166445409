// SPDX-License-Identifier: BSL-1.0
//
// One generation on its way in: which of its files are there, which are moving, which mirror is next. Knows
// nothing of other chunks, of limits or of time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"

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

  ChunkFetch(std::uint64_t number, std::shared_ptr<const DataChunk> chunk, const ContentFingerprint& content)
      : number_(number), chunk_(std::move(chunk)), content_(content) {
    files_.reserve(chunk_->files.size());
    for (const auto& [name, source] : chunk_->files) files_.push_back({&name, &source});
  }

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  [[nodiscard]] const std::shared_ptr<const DataChunk>& chunk() const noexcept { return chunk_; }
  [[nodiscard]] const ContentFingerprint& content() const noexcept { return content_; }
  [[nodiscard]] std::size_t moving() const noexcept { return moving_; }

  Phase phase = Phase::staging;
  bool stopping = false;  ///< not wanted any more: to be discarded when nothing moves
  bool halted = false;    ///< its transfers were told to stop, and no more are started
  bool spoiled = false;   ///< the store failed under it: its staging cannot be trusted
  Outcome failure;        ///< of this round, the last one

  [[nodiscard]] bool has_pending() const {
    return std::any_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::pending; });
  }
  [[nodiscard]] bool complete() const {
    return std::all_of(files_.begin(), files_.end(), [](const File& file) { return file.state == State::done; });
  }
  /// Whether any file was finished in this round.
  [[nodiscard]] bool progressed() const noexcept { return progressed_; }

  /// Starts the next pending file; there is one.
  action::StartFile start_next(TransferId transfer) {
    File& file = *std::find_if(files_.begin(), files_.end(), [](const File& f) { return f.state == State::pending; });
    file.state = State::moving;
    file.transfer = transfer;
    ++moving_;
    return {transfer, number_, chunk_, file.name, file.source, file.url};
  }

  /// The transfers that are under way.
  [[nodiscard]] std::vector<TransferId> transfers() const {
    std::vector<TransferId> out;
    for (const File& file : files_) {
      if (file.state == State::moving) out.push_back(file.transfer);
    }
    return out;
  }

  void file_done(TransferId transfer) {
    find(transfer).state = State::done;
    progressed_ = true;
    --moving_;
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

  /// The transfer failed: its file is pending again with the next mirror, until each was tried once in this
  /// round.
  void file_failed(TransferId transfer) {
    File& file = find(transfer);
    file.url = (file.url + 1) % file.source->urls.size();
    file.state = ++file.tried < file.source->urls.size() ? State::pending : State::failed;
    --moving_;
  }

  /// What failed may be tried again, at every mirror.
  void new_round() {
    for (File& file : files_) {
      file.tried = 0;
      if (file.state == State::failed) file.state = State::pending;
    }
    progressed_ = false;
    failure = {};
  }

 private:
  enum class State : std::uint8_t { pending, moving, done, failed };
  struct File {
    const std::string* name;
    const FileSource* source;
    State state = State::pending;
    std::size_t url = 0;
    std::size_t tried = 0;
    TransferId transfer = 0;
    std::uint64_t bytes = 0;  // as a server told, where it was not declared
  };

  File& find(TransferId transfer) {
    return *std::find_if(files_.begin(), files_.end(), [transfer](const File& file) {
      return file.state == State::moving && file.transfer == transfer;
    });
  }

  std::uint64_t number_;
  std::shared_ptr<const DataChunk> chunk_;
  ContentFingerprint content_;
  std::vector<File> files_;
  std::size_t moving_ = 0;
  bool progressed_ = false;
};

}  // namespace garner::core
