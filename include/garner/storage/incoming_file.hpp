// SPDX-License-Identifier: BSL-1.0
//
// A file while its bytes come: written in order, never beyond the size that was declared, and digested as they go by.
// Not here: what it is called, how it is made durable, and what becomes of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/file_system.hpp"

namespace garner::detail {

/// One thread at a time. Throws, beside what the file system throws, what `DigestStream` does.
template <FileSystem F>
class IncomingFile {
 public:
  /// From this size on a file's room is reserved, so that a full disk shows before the transfer.
  static constexpr std::uint64_t reserve_from = std::uint64_t{1} << 20;

  IncomingFile() = default;
  /// `file`: open for reading and writing. Of `asked` the size and the digest count.
  IncomingFile(typename F::File file, const FileSource& asked)
      : file_(std::move(file)), size_asked_(asked.size), digest_asked_(asked.digest) {
    digests_.emplace(asked.digest ? std::optional(asked.digest->algorithm()) : std::nullopt);
  }

  [[nodiscard]] typename F::File& handle() noexcept { return file_; }
  /// Bytes that were written.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// Bytes that it has taken of what was free.
  [[nodiscard]] std::uint64_t taken() const noexcept { return std::max(size_, reserved_); }
  /// That it may have.
  [[nodiscard]] std::uint64_t max_size() const noexcept {
    return size_asked_.value_or(std::numeric_limits<std::int64_t>::max());
  }

  /// Makes sure of the room for the declared size, where that is worth it.
  std::error_code reserve(F& fs) {
    const std::uint64_t size = size_asked_.value_or(0);
    const bool is_large = size >= reserve_from;
    const std::error_code ec = is_large ? fs.reserve(file_, size) : std::error_code();
    reserved_ = is_large && !ec ? size : 0;
    return ec;
  }

  /// Appends all of `bytes`, or none that counts. `errc::body_too_long` where they go beyond the declared size: none of
  /// them is written then.
  std::error_code write(F& fs, std::span<const std::byte> bytes) {
    if (bytes.size() > max_size() - size_) return errc::body_too_long;
    const std::error_code ec = fs.write(file_, size_, bytes);
    if (ec) return ec;
    digests_->update(bytes);
    size_ += bytes.size();
    return {};
  }

  /// Empties it.
  std::error_code restart(F& fs) {
    const std::error_code ec = fs.truncate(file_, 0);
    if (ec) return ec;
    size_ = 0;
    digests_->restart();
    return reserve(fs);
  }

  /// Takes the first `size` bytes that are in the file as written, and cuts off what follows. Asks before that whether
  /// their XXH3 is the right one: `is_right(xxh3)`.
  template <class IsRight>
  std::error_code take_over(F& fs, std::uint64_t size, const IsRight& is_right) {
    std::error_code ec;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(size, std::size_t{256} << 10)));
    while (size_ < size && !ec) {
      const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(size - size_, buffer.size()));
      const std::size_t count = fs.read(file_, size_, std::span(buffer).first(most), ec);
      if (!ec && count == 0) ec = errc::io_error;
      if (ec) return ec;
      digests_->update(std::span(buffer).first(count));
      size_ += count;
    }
    return is_right(digests_->xxh3()) ? fs.truncate(file_, size_) : make_error_code(errc::digest_mismatch);
  }

  [[nodiscard]] Xxh3 xxh3() const noexcept { return digests_->xxh3(); }

  /// Whether this is all (`errc::body_too_short`), and the right bytes (`errc::digest_mismatch`).
  std::error_code check(FoundDigests& found) const {
    if (size_ < size_asked_.value_or(0)) return errc::body_too_short;
    found = digests_->digests();
    if (found.asked != digest_asked_) return errc::digest_mismatch;
    return {};
  }

 private:
  typename F::File file_;
  std::optional<std::uint64_t> size_asked_;
  std::optional<Digest> digest_asked_;
  std::uint64_t size_ = 0;
  std::uint64_t reserved_ = 0;
  std::optional<DigestStream> digests_;
};

}  // namespace garner::detail
