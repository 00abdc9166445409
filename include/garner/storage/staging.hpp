// SPDX-License-Identifier: BSL-1.0
//
// A generation while it is being fetched: its directory in `staging/`, and its files, each of which is checked and
// synced through the descriptor that wrote it. What becomes of it, the store decides (store_protocol.hpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/storage/checkpoint.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/incoming_file.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"
#include "garner/storage/unsynced_files.hpp"

namespace garner {

namespace detail {

/// What a staging and its files share, in the order of its life.
template <FileSystem F>
struct StagingArea {
  std::shared_ptr<StoreRoot<F>> root;
  DataChunk chunk;
  std::uint64_t number = 0;
  std::string name;  ///< in `staging/`
  typename F::Directory directory;
  UnsyncedFiles<F> unsynced;  ///< of those that are finished

  std::atomic<bool> met_no_space{false};  ///< the disk was too full for some of it
  std::atomic<std::uint64_t> taken{0};    ///< bytes that its files have taken of what is free

  std::mutex mutex;                        ///< guards the next three; held across no operation
  std::map<std::string, FoundFile> found;  ///< the files that are finished
  std::set<std::string> notes;             ///< names of the checkpoints that may be there
  bool sync_failed = false;                ///< bytes may be lost: none of it is published any more
  bool left_staging = false;               ///< published or taken away: `name` is not in `staging/` any more.
                                           ///< Only `publish` and `discard` look, which come one after another

  /// False where it cannot be written, which costs no more than bytes that another run fetches again.
  bool write_note(const std::string& note, std::string_view text) {
    if (remove_note(note)) return false;
    {
      const std::lock_guard lock(mutex);
      notes.insert(note);
    }
    std::error_code ec;
    typename F::File file = root->fs().create_file(directory, note, ec);
    if (!ec) ec = root->fs().write(file, 0, std::as_bytes(std::span(text)));
    return !ec && !root->fs().close(file);
  }

  std::error_code remove_note(const std::string& note) {
    {
      const std::lock_guard lock(mutex);
      if (!notes.contains(note)) return {};
    }
    const std::error_code ec = root->unless_missing(root->fs().remove_file(directory, note));
    const std::lock_guard lock(mutex);
    if (!ec) notes.erase(note);
    return ec;
  }

  /// Nothing but the files may be published.
  std::error_code remove_notes() {
    std::set<std::string> all;
    {
      const std::lock_guard lock(mutex);
      all = notes;
    }
    std::error_code ec;
    for (const std::string& note : all) {
      if (!ec) ec = remove_note(note);
    }
    return ec;
  }

  /// Takes away what an earlier run left that is none of this description's files, and learns which have a checkpoint.
  std::error_code adopt() {
    std::set<std::string> known;
    for (const auto& [file, source] : chunk.files) {
      for (const bool second : {false, true}) known.insert(checkpoint_name(file, second));
    }
    std::vector<std::string> others;
    std::error_code ec = root->fs().list(directory, [&](std::string_view entry, EntryKind kind) {
      std::string found_name(entry);
      if (kind == EntryKind::file && known.contains(found_name)) {
        notes.insert(std::move(found_name));
      } else if (!chunk.files.contains(found_name)) {
        others.push_back(std::move(found_name));
      }
    });
    for (const std::string& other : others) {
      if (!ec) ec = root->remove_tree(directory, other);
    }
    return ec;
  }
};

}  // namespace detail

/// One file of a staging area. One thread at a time. Default-constructed and after a finish that succeeded or failed to
/// sync it holds no file, and every call fails with `std::errc::bad_file_descriptor`.
template <FileSystem F>
class BasicStagedFile {
 public:
  /// From this size on a file's room is reserved when it is opened.
  static constexpr std::uint64_t reserve_from = detail::IncomingFile<F>::reserve_from;

  BasicStagedFile() = default;

  /// Bytes that were written.
  [[nodiscard]] std::uint64_t size() const noexcept { return file_.size(); }

  /// Appends all of `bytes`, or none that counts. `errc::body_too_long` where they go beyond the declared size: none of
  /// them is written then. `errc::io_error` where the area is one of a disk that was lost and came back.
  std::error_code write(std::span<const std::byte> bytes) {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (area_->root->is_given_up()) return errc::io_error;
    if (bytes.empty()) return {};
    return noted(file_.write(fs(), bytes));
  }

  /// Empties the file, and takes its checkpoint away.
  std::error_code restart() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const std::error_code ec = remove_checkpoint();
    return ec ? ec : noted(file_.restart(fs()));
  }

  /// Of the last checkpoint.
  [[nodiscard]] const std::string& origin() const noexcept { return origin_; }

  /// Written down in a small file beside this one, which is not synced. No error where that cannot be done: the one
  /// before counts then.
  std::error_code checkpoint(std::string_view origin) {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    write_checkpoint(*area_, {file_.size(), file_.xxh3(), detail::asked_of(asked_), std::string(origin)});
    origin_ = origin;
    return {};
  }

  /// Checks the size (`errc::body_too_short`) and the digest (`errc::digest_mismatch`), after which the file can be
  /// gone on with or restarted; then syncs and closes it, or, where it is small, leaves that to `publish`. A failed
  /// sync is `errc::sync_failed`: the whole staging area can only be discarded then.
  std::error_code finish() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    FoundFile found{file_.size(), {}};
    std::error_code ec = file_.check(found.digests);
    if (ec) return ec;
    // After a sync that failed nobody may go on with these bytes: not the next process either, to which they look well,
    // and which would be told of a good sync. So there is no checkpoint while they are synced.
    const std::string origin = origin_;
    ec = remove_checkpoint();
    if (ec) return ec;
    const auto area = std::exchange(area_, nullptr);
    typename F::File file = std::move(file_.handle());
    StoreRoot<F>& root = *area->root;
    // What has a checkpoint gets another one once it is synced: a later run need not fetch it again.
    if (origin.empty() && root.is_durable() && area->unsynced.offer(name_, found.size, file, root.unsynced())) {
      const std::lock_guard lock(area->mutex);
      area->found.insert_or_assign(name_, found);
      return {};
    }
    ec = root.sync_file(file);
    const std::error_code close_error = root.fs().close(file);
    {
      const std::lock_guard lock(area->mutex);
      area->sync_failed = area->sync_failed || ec;
      if (!ec && !close_error) area->found.insert_or_assign(name_, found);
    }
    if (ec || close_error) return ec ? ec : close_error;
    if (!origin.empty()) write_checkpoint(*area, {found.size, found.digests.xxh3, detail::asked_of(asked_), origin});
    return {};
  }

 private:
  template <FileSystem>
  friend class BasicStaging;

  BasicStagedFile(std::shared_ptr<detail::StagingArea<F>> area, std::string name, typename F::File file)
      : area_(std::move(area)),
        name_(std::move(name)),
        asked_(area_->chunk.files.at(name_)),
        file_(std::move(file), asked_) {}

  [[nodiscard]] F& fs() const noexcept { return area_->root->fs(); }

  void write_checkpoint(detail::StagingArea<F>& area, const detail::Checkpoint& checkpoint) {
    const std::string note = detail::encode_checkpoint(checkpoint);
    if (note.size() > detail::Checkpoint::max_size) return;
    if (!area.write_note(detail::checkpoint_name(name_, !second_), note)) return;
    area.remove_note(detail::checkpoint_name(name_, second_));
    second_ = !second_;
  }

  std::error_code remove_checkpoint() {
    origin_.clear();
    const std::error_code ec = area_->remove_note(detail::checkpoint_name(name_, false));
    return ec ? ec : area_->remove_note(detail::checkpoint_name(name_, true));
  }

  /// Goes back to the last checkpoint that another run wrote down; false where there is none that is true.
  bool go_on() {
    std::optional<detail::Checkpoint> last;
    for (const bool second : {false, true}) {
      std::error_code ec;
      const std::string note = area_->root->read_small_file(area_->directory, detail::checkpoint_name(name_, second),
                                                            detail::Checkpoint::max_size, ec);
      auto checkpoint = ec ? std::nullopt : detail::decode_checkpoint(note);
      if (!checkpoint || checkpoint->asked != detail::asked_of(asked_)) continue;
      if (last && last->size >= checkpoint->size) continue;
      last = std::move(checkpoint);
      second_ = second;
    }
    if (!last || last->size > file_.max_size()) return false;
    const auto is_right = [&last](const Xxh3& found) { return found == last->xxh3; };
    if (file_.take_over(fs(), last->size, is_right)) return false;
    origin_ = last->origin;
    return true;
  }

  std::error_code reserve() { return noted(file_.reserve(fs())); }

  /// Tells the area what the file has taken by now, and whether there was room.
  std::error_code noted(std::error_code ec) {
    if (ec == errc::no_space) area_->met_no_space = true;
    area_->taken += file_.taken() - std::exchange(taken_, file_.taken());
    return ec;
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
  std::string name_;
  FileSource asked_;
  detail::IncomingFile<F> file_;
  std::uint64_t taken_ = 0;
  std::string origin_;
  bool second_ = false;  ///< of the two names of its checkpoint, the one in use
};

/// A generation's staging area. Dropping it keeps what is on disk, for the next start to take away.
template <FileSystem F>
class BasicStaging {
 public:
  BasicStaging() = default;

  /// The file for `name`, one of the description's names (else `errc::invalid_file_name`): as it was at its last
  /// checkpoint, or empty.
  BasicStagedFile<F> open(const std::string& name, std::error_code& ec) {
    ec = check(name);
    if (ec) return {};
    {
      const std::lock_guard lock(area_->mutex);
      area_->found.erase(name);
    }
    area_->unsynced.drop(name);
    typename F::File handle = fs().create_file(area_->directory, name, ec);
    if (ec == std::errc::file_exists) {
      std::optional<BasicStagedFile<F>> left = open_left(name);
      ec.clear();
      if (left) return *std::move(left);
      // A new file, and not this one emptied: a sync of it may have failed for an earlier process, and no later one
      // tells.
      ec = area_->root->remove_tree(area_->directory, name);
      for (const bool second : {false, true}) {
        if (!ec) ec = area_->remove_note(detail::checkpoint_name(name, second));
      }
      if (!ec) handle = fs().create_file(area_->directory, name, ec);
    }
    if (ec) return {};
    BasicStagedFile<F> file(area_, name, std::move(handle));
    ec = file.reserve();
    return ec ? BasicStagedFile<F>() : std::move(file);
  }

 private:
  template <FileSystem>
  friend class BasicStore;
  template <FileSystem>
  friend class BasicVolumes;

  explicit BasicStaging(std::shared_ptr<detail::StagingArea<F>> area) : area_(std::move(area)) {}

  [[nodiscard]] F& fs() const noexcept { return area_->root->fs(); }

  /// What stands there already, where it can be gone on with.
  std::optional<BasicStagedFile<F>> open_left(const std::string& name) {
    std::error_code ec;
    typename F::File handle = fs().open_file(area_->directory, name, Access::write, ec);
    if (ec) return std::nullopt;
    BasicStagedFile<F> file(area_, name, std::move(handle));
    if (!file.go_on()) return std::nullopt;
    return file;
  }

  [[nodiscard]] std::error_code check(const std::string& name) const {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const bool known = detail::is_portable_file_name(name) && area_->chunk.files.contains(name);
    if (!known || detail::fold_case(name) == store_layout::descriptor_file) return errc::invalid_file_name;
    return {};
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
};

}  // namespace garner
