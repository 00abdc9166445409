// SPDX-License-Identifier: BSL-1.0
//
// A generation while it is being fetched: its directory in `staging/`, and its files, each of which is checked and
// synced through the descriptor that wrote it. What becomes of it, the store decides (store_protocol.hpp).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_root.hpp"

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

  std::atomic<bool> met_no_space{false};  ///< the disk was too full for some of it

  std::mutex mutex;                        ///< guards the next two; held across no operation
  std::map<std::string, FoundFile> found;  ///< the files that are finished
  bool sync_failed = false;                ///< bytes may be lost: none of it is published any more
  bool left_staging = false;               ///< published or taken away: `name` is not in `staging/` any more.
                                           ///< Only `publish` and `discard` look, which come one after another
};

}  // namespace detail

/// One file of a staging area. One thread at a time. Default-constructed and after a finish that succeeded or failed to
/// sync it holds no file, and every call fails with `std::errc::bad_file_descriptor`.
template <FileSystem F>
class BasicStagedFile {
 public:
  /// From this size on a file's room is reserved when it is opened, so that a full disk shows before the transfer.
  static constexpr std::uint64_t reserve_from = std::uint64_t{1} << 20;

  BasicStagedFile() = default;

  /// Bytes that were written.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  /// Appends all of `bytes`, or none that counts. `errc::body_too_long` where they go beyond the declared size: none of
  /// them is written then.
  std::error_code write(std::span<const std::byte> bytes) {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (bytes.size() > asked_.size.value_or(std::numeric_limits<std::int64_t>::max()) - size_) {
      return errc::body_too_long;
    }
    const std::error_code ec = area_->root->fs().write(file_, size_, bytes);
    if (ec == errc::no_space) area_->met_no_space = true;
    if (ec) return ec;
    digests_->update(bytes);
    size_ += bytes.size();
    return {};
  }

  /// Empties the file.
  std::error_code restart() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const std::error_code ec = area_->root->fs().truncate(file_, 0);
    if (ec) return ec;
    size_ = 0;
    digests_->restart();
    return reserve();
  }

  /// Checks the size (`errc::body_too_short`) and the digest (`errc::digest_mismatch`), after which the file can be
  /// gone on with or restarted; then syncs and closes it. A failed sync is `errc::sync_failed`: the whole staging area
  /// can only be discarded then.
  std::error_code finish() {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    if (size_ < asked_.size.value_or(0)) return errc::body_too_short;
    const FoundFile found{size_, digests_->digests()};
    if (found.digests.asked != asked_.digest) return errc::digest_mismatch;
    const auto area = std::exchange(area_, nullptr);
    typename F::File file = std::move(file_);
    std::error_code ec = area->root->sync_file(file);
    const std::error_code close_error = area->root->fs().close(file);
    const std::lock_guard lock(area->mutex);
    if (ec) {
      area->sync_failed = true;
      return ec;
    }
    if (close_error) return close_error;
    area->found.insert_or_assign(name_, found);
    return {};
  }

 private:
  template <FileSystem>
  friend class BasicStaging;

  BasicStagedFile(std::shared_ptr<detail::StagingArea<F>> area, std::string name, typename F::File file)
      : area_(std::move(area)), name_(std::move(name)), asked_(area_->chunk.files.at(name_)), file_(std::move(file)) {
    digests_.emplace(asked_.digest ? std::optional(asked_.digest->algorithm()) : std::nullopt);
  }

  std::error_code reserve() {
    const std::uint64_t size = asked_.size.value_or(0);
    const std::error_code ec = size >= reserve_from ? area_->root->fs().reserve(file_, size) : std::error_code();
    if (ec == errc::no_space) area_->met_no_space = true;
    return ec;
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
  std::string name_;
  FileSource asked_;
  typename F::File file_;
  std::uint64_t size_ = 0;
  std::optional<DigestStream> digests_;
};

/// A generation's staging area. Dropping it keeps what is on disk, for the next start to take away.
template <FileSystem F>
class BasicStaging {
 public:
  BasicStaging() = default;

  /// A new, empty file for `name`, one of the description's names (else `errc::invalid_file_name`); what was staged
  /// under that name before is gone.
  BasicStagedFile<F> open(const std::string& name, std::error_code& ec) {
    ec = check(name);
    if (ec) return {};
    auto& fs = area_->root->fs();
    {
      const std::lock_guard lock(area_->mutex);
      area_->found.erase(name);
    }
    ec = area_->root->unless_missing(fs.remove_file(area_->directory, name));
    if (ec) return {};
    typename F::File handle = fs.create_file(area_->directory, name, ec);
    if (ec) return {};
    BasicStagedFile<F> file(area_, name, std::move(handle));
    ec = file.reserve();
    return ec ? BasicStagedFile<F>() : std::move(file);
  }

 private:
  template <FileSystem>
  friend class BasicStore;

  explicit BasicStaging(std::shared_ptr<detail::StagingArea<F>> area) : area_(std::move(area)) {}

  [[nodiscard]] std::error_code check(const std::string& name) const {
    if (!area_) return std::make_error_code(std::errc::bad_file_descriptor);
    const bool known = detail::is_portable_file_name(name) && area_->chunk.files.contains(name);
    if (!known || detail::fold_case(name) == store_layout::descriptor_file) return errc::invalid_file_name;
    return {};
  }

  std::shared_ptr<detail::StagingArea<F>> area_;
};

}  // namespace garner
