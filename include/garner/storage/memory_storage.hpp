// SPDX-License-Identifier: BSL-1.0
//
// MemoryStorage: a Storage in memory, with the standard library alone. For tests and for what need not outlive the
// program; its "disk" is an object that can be handed to the next store, as a data directory is at a restart.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/ids.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/memory_disk.hpp"

namespace garner {

/// Location: a `std::shared_ptr<const MemoryChunk>`, null for a generation that the store does not hold.
///
/// Digests: SHA-256 is checked. Others need more than the standard library, so they are **not** checked unless the
/// constructor is given a check that knows them; sizes always are.
///
/// Thread-safety: as `Storage` asks. Copying is not offered; moving keeps what was staged valid.
class MemoryStorage {
 public:
  using Location = std::shared_ptr<const MemoryChunk>;
  /// Whether `bytes` have this digest. Called by any thread, several at a time.
  using DigestCheck = std::function<bool(const Digest& digest, std::span<const std::byte> bytes)>;

  using Disk = MemoryDisk;

  /// A file of a staging area. One thread at a time; default-constructed it holds none.
  class StagedFile {
   public:
    StagedFile() = default;

    [[nodiscard]] std::uint64_t size() const noexcept { return file_ ? file_->bytes.size() : 0; }

    std::error_code write(std::span<const std::byte> bytes) {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      if (bytes.size() > asked_.size.value_or(std::numeric_limits<std::uint64_t>::max()) - size()) {
        return errc::body_too_long;
      }
      if (!disk_->take(bytes.size())) return errc::no_space;
      try {
        file_->bytes.insert(file_->bytes.end(), bytes.begin(), bytes.end());
      } catch (const std::bad_alloc&) {
        disk_->give_back(bytes.size());
        return errc::no_space;
      }
      return {};
    }

    std::error_code restart() {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      disk_->give_back(size());
      file_->bytes.clear();
      file_->origin.clear();
      file_->checkpoint = 0;
      return {};
    }

    [[nodiscard]] std::string origin() const { return file_ ? file_->origin : std::string(); }
    std::error_code checkpoint(std::string_view origin) {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      file_->origin = origin;
      file_->checkpoint = file_->bytes.size();
      return {};
    }

    std::error_code finish() {
      if (!is_open()) return std::make_error_code(std::errc::bad_file_descriptor);
      if (size() < asked_.size.value_or(0)) return errc::body_too_short;
      if (asked_.digest && !(*check_)(*asked_.digest, file_->bytes)) return errc::digest_mismatch;
      file_->finished = true;
      return {};
    }

   private:
    friend class MemoryStorage;

    [[nodiscard]] bool is_open() const noexcept { return file_ && !file_->finished; }

    std::shared_ptr<Disk> disk_;
    std::shared_ptr<const DigestCheck> check_;
    FileSource asked_;
    std::shared_ptr<Disk::StagedBytes> file_;
  };

  class Staging {
   public:
    Staging() = default;

    /// `errc::invalid_file_name` for a name that is not in the description.
    StagedFile open(const std::string& name, std::error_code& ec) {
      const auto source = chunk_.files.find(name);
      if (!disk_ || source == chunk_.files.end() || !detail::is_portable_file_name(name)) {
        ec = disk_ ? make_error_code(errc::invalid_file_name) : std::make_error_code(std::errc::bad_file_descriptor);
        return {};
      }
      ec.clear();
      StagedFile file;
      file.disk_ = disk_;
      file.check_ = check_;
      file.asked_ = source->second;
      const std::lock_guard lock(disk_->mutex_);
      std::shared_ptr<Disk::StagedBytes>& slot = disk_->staged_[number_].files[name];
      if (!slot || !can_go_on(*slot, source->second)) {
        if (slot) disk_->give_back(slot->bytes.size());
        slot = std::make_shared<Disk::StagedBytes>();
        slot->asked = {{}, source->second.size, source->second.digest};
      }
      disk_->give_back(slot->bytes.size() - slot->checkpoint);
      slot->bytes.resize(slot->checkpoint);
      slot->finished = false;
      file.file_ = slot;
      return file;
    }

   private:
    friend class MemoryStorage;

    static bool can_go_on(const Disk::StagedBytes& left, const FileSource& asked) {
      return left.checkpoint != 0 && left.asked.size == asked.size && left.asked.digest == asked.digest;
    }

    std::shared_ptr<Disk> disk_;
    std::shared_ptr<const DigestCheck> check_;
    DataChunk chunk_;
    std::uint64_t number_ = 0;
  };

  /// `disk`: empty, or what an earlier store left. Throws `Error` with `errc::directory_in_use` where another store has
  /// it. `check`: what digests are checked with.
  explicit MemoryStorage(std::shared_ptr<Disk> disk = std::make_shared<Disk>(), DigestCheck check = check_sha256)
      : disk_(std::move(disk)), check_(std::make_shared<const DigestCheck>(std::move(check))) {
    const std::lock_guard lock(disk_->mutex_);
    if (std::exchange(disk_->in_use_, true)) throw Error(errc::directory_in_use, "memory");
  }
  /// As above, on a new disk of `capacity` bytes.
  explicit MemoryStorage(std::uint64_t capacity) : MemoryStorage(std::make_shared<Disk>(capacity)) {}

  MemoryStorage(MemoryStorage&&) noexcept = default;
  MemoryStorage& operator=(MemoryStorage&&) = delete;
  MemoryStorage(const MemoryStorage&) = delete;
  MemoryStorage& operator=(const MemoryStorage&) = delete;
  ~MemoryStorage() {
    if (!disk_) return;
    const std::lock_guard lock(disk_->mutex_);
    disk_->in_use_ = false;
  }

  Recovery recover(const std::function<void(const Generation&)>& found) {
    Recovery recovery;
    std::vector<Generation> held;
    {
      const std::lock_guard lock(disk_->mutex_);
      const auto saw = [&recovery](std::uint64_t number) {
        recovery.last_generation = std::max(recovery.last_generation, number);
      };
      for (auto& [number, staged] : disk_->staged_) staged.is_partial = true, saw(number);
      recovery.has_partial = !disk_->staged_.empty();
      for (const std::uint64_t number : disk_->doomed_) leftovers_.push_back(number), saw(number);
      for (const auto& [number, generation] : disk_->held_) {
        saw(number);
        if (!disk_->doomed_.contains(number)) held.push_back(describe_briefly(number, generation));
      }
    }
    for (const Generation& generation : held) found(generation);
    return recovery;
  }

  std::error_code clean_up(Partial partial) {
    const std::lock_guard lock(disk_->mutex_);
    for (const std::uint64_t number : std::exchange(leftovers_, {})) erase(number);
    if (partial == Partial::keep) return {};
    for (auto at = disk_->staged_.begin(); at != disk_->staged_.end();) {
      const auto staged = at++;
      if (staged->second.is_partial) erase_staged(staged->first);
    }
    return {};
  }

  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    Staging staging;
    {
      const std::lock_guard lock(disk_->mutex_);
      const bool is_new = !disk_->held_.contains(number) && !disk_->staged_.contains(number);
      ec = is_new ? std::error_code() : std::make_error_code(std::errc::file_exists);
      if (ec) return staging;
      Disk::Staged& staged = disk_->staged_[number] = take_partial(chunk.id);
      staged.chunk = chunk;
      drop_unnamed(staged);
    }
    staging.disk_ = disk_;
    staging.check_ = check_;
    staging.chunk_ = chunk;
    staging.number_ = number;
    return staging;
  }

  Generation publish(Staging& staging, std::error_code& ec) {
    const std::lock_guard lock(disk_->mutex_);
    const auto staged = disk_->staged_.find(staging.number_);
    ec = staged == disk_->staged_.end() ? std::make_error_code(std::errc::bad_file_descriptor) : std::error_code();
    if (ec) return {};
    const auto& files = staged->second.files;
    const bool whole = files.size() == staging.chunk_.files.size() &&
                       std::all_of(files.begin(), files.end(), [](const auto& file) { return file.second->finished; });
    if (!whole) ec = errc::body_too_short;
    if (ec) return {};
    Disk::Held held{staging.chunk_, std::make_shared<MemoryChunk>(), {}};
    for (auto& [name, source] : held.described.files) {
      for (std::string& url : source.urls) url = redact_url(url);
      source.headers.clear();
      std::vector<std::byte>& bytes = held.chunk->files[name] = std::move(files.at(name)->bytes);
      source.size = bytes.size();
      held.checksums[name] = checksum(bytes);
    }
    disk_->staged_.erase(staged);
    disk_->held_bytes_ += bytes_of(held);
    const auto at = disk_->held_.insert_or_assign(staging.number_, std::move(held)).first;
    return describe_briefly(staging.number_, at->second);
  }

  std::error_code discard(Staging& staging) {
    const std::lock_guard lock(disk_->mutex_);
    erase_staged(staging.number_);
    return {};
  }

  [[nodiscard]] Location location(const Generation& generation) const {
    const std::lock_guard lock(disk_->mutex_);
    const Disk::Held* held = find(generation);
    return held != nullptr ? held->chunk : nullptr;
  }

  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const std::lock_guard lock(disk_->mutex_);
    const Disk::Held* held = find(generation);
    ec = held != nullptr ? std::error_code() : make_error_code(errc::no_such_generation);
    return held != nullptr ? held->described : DataChunk();
  }

  std::error_code doom(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    disk_->doomed_.insert(generation.number);
    return {};
  }

  std::error_code spare(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    disk_->doomed_.erase(generation.number);
    return {};
  }

  std::error_code remove(const Generation& generation) {
    const std::lock_guard lock(disk_->mutex_);
    if (find(generation) == nullptr) return errc::no_such_generation;
    erase(generation.number);
    return {};
  }

  /// Memory is too dear to keep it.
  std::error_code quarantine(const Generation& generation, const std::string& /*reason*/) { return remove(generation); }

  /// A file is a block.
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    Disk::Held held;
    {
      const std::lock_guard lock(disk_->mutex_);
      const Disk::Held* at = find(generation);
      if (at == nullptr) return errc::no_such_generation;
      held = *at;
    }
    const auto& files = held.chunk->files;
    if (files.size() != held.checksums.size()) return errc::corrupt_chunk;
    for (const auto& [name, bytes] : files) {
      const auto published = held.checksums.find(name);
      if (published == held.checksums.end()) return errc::corrupt_chunk;
      if (held.described.files.at(name).size != bytes.size()) return errc::corrupt_chunk;
      if (depth == VerifyDepth::sizes) continue;
      if (published->second != checksum(bytes)) return errc::corrupt_chunk;
      if (!progress(bytes.size())) return errc::cancelled;
    }
    return {};
  }

  [[nodiscard]] StoreUsage usage() const {
    StoreUsage usage;
    const std::lock_guard lock(disk_->mutex_);
    usage.bytes_used = disk_->held_bytes_;
    usage.bytes_free = disk_->capacity_ - disk_->used_.load();
    return usage;
  }

  /// The default check: true where `bytes` have `digest`, or where it is not a SHA-256.
  static bool check_sha256(const Digest& digest, std::span<const std::byte> bytes) {
    if (digest.algorithm() != DigestAlgorithm::sha256) return true;
    detail::Sha256 hash;
    hash.update(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    const auto found = hash.finish();
    return std::equal(found.begin(), found.end(), digest.data());
  }

 private:
  /// 64-bit FNV-1a (draft-eastlake-fnv): tells a changed byte, and no more is wanted of it.
  static std::uint64_t checksum(std::span<const std::byte> bytes) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3U;
    return hash;
  }

  static std::uint64_t bytes_of(const Disk::Held& held) noexcept {
    std::uint64_t bytes = 0;
    for (const auto& [name, source] : held.described.files) bytes += source.size.value_or(0);
    return bytes;
  }

  static Generation describe_briefly(std::uint64_t number, const Disk::Held& held) {
    const DataChunk& chunk = held.described;
    return {chunk.id, chunk.dataset_id, chunk.block_range, bytes_of(held), number};
  }

  [[nodiscard]] const Disk::Held* find(const Generation& generation) const {
    const auto at = disk_->held_.find(generation.number);
    return at != disk_->held_.end() && at->second.described.id == generation.id ? &at->second : nullptr;
  }

  /// What an earlier store had of this chunk, taken out of the disk; or nothing.
  Disk::Staged take_partial(const ChunkId& id) {
    const auto left = std::find_if(disk_->staged_.begin(), disk_->staged_.end(), [&id](const auto& staged) {
      return staged.second.is_partial && staged.second.chunk.id == id;
    });
    if (left == disk_->staged_.end()) return {};
    Disk::Staged staged = std::move(disk_->staged_.extract(left).mapped());
    staged.is_partial = false;
    return staged;
  }

  /// Files that the description does not name any more.
  void drop_unnamed(Disk::Staged& staged) {
    std::erase_if(staged.files, [&](const auto& file) {
      const bool is_named = staged.chunk.files.contains(file.first);
      if (!is_named) disk_->give_back(file.second->bytes.size());
      return !is_named;
    });
  }

  void erase_staged(std::uint64_t number) {
    const auto staged = disk_->staged_.find(number);
    if (staged == disk_->staged_.end()) return;
    for (const auto& [name, file] : staged->second.files) disk_->give_back(file->bytes.size());
    disk_->staged_.erase(staged);
  }

  /// All that there is of this generation.
  void erase(std::uint64_t number) {
    erase_staged(number);
    if (const auto held = disk_->held_.find(number); held != disk_->held_.end()) {
      disk_->give_back(bytes_of(held->second));
      disk_->held_bytes_ -= bytes_of(held->second);
      disk_->held_.erase(held);
    }
    disk_->doomed_.erase(number);
  }

  std::shared_ptr<Disk> disk_;
  std::shared_ptr<const DigestCheck> check_;
  std::vector<std::uint64_t> leftovers_;
};

static_assert(Storage<MemoryStorage>);

}  // namespace garner
