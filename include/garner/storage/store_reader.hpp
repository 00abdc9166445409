// SPDX-License-Identifier: BSL-1.0
//
// How a store reads what it has published: `chunk.json`, and the files compared with it. Nothing that lies there is
// trusted, and nothing is changed; how things come and go is in store_protocol.hpp and store_remover.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/digest_stream.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// Thread-safety: as its root.
template <FileSystem F>
class StoreReader {
 public:
  explicit StoreReader(StoreRoot<F>& root) : root_(root) {}

  /// `errc::corrupt_chunk` where it is not whole or is another generation's.
  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(generation, ec);
    const ChunkDescriptor descriptor = ec ? ChunkDescriptor() : read_descriptor(directory, generation, ec);
    return ec ? DataChunk() : descriptor.described();
  }

  /// The bytes of `chunk.json`, whatever they are.
  std::string descriptor_text(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(generation, ec);
    return ec ? std::string()
              : root_.read_small_file(directory, store_layout::descriptor_file, ChunkDescriptor::max_size, ec);
  }

  /// Whether it is in `chunks/`, doomed or not.
  [[nodiscard]] bool holds(const Generation& generation) const {
    std::error_code ec;
    const Directory directory = open(generation, ec);
    return !ec;
  }

  /// As `BasicStore` says.
  std::error_code verify(const Generation& generation, VerifyDepth depth, const VerifyProgress& progress) const {
    std::error_code ec;
    const Directory directory = open(generation, ec);
    if (ec) return ec;
    const ChunkDescriptor descriptor = read_descriptor(directory, generation, ec);
    if (ec) return ec;
    bool as_published = true;
    ec = fs().list(directory, [&](std::string_view name, EntryKind kind) {
      const bool known = name == store_layout::descriptor_file || descriptor.found.contains(std::string(name));
      as_published = as_published && known && kind == EntryKind::file;
    });
    if (!ec && !as_published) ec = errc::corrupt_chunk;
    for (const auto& [name, found] : descriptor.found) {
      if (ec) break;
      ec = depth == VerifyDepth::sizes ? verify_size(directory, name, found)
                                       : verify_bytes(directory, name, found, progress);
    }
    return ec;
  }

 private:
  using Directory = typename F::Directory;

  [[nodiscard]] F& fs() const noexcept { return root_.fs(); }

  Directory open(const Generation& generation, std::error_code& ec) const {
    const Directory dataset =
        fs().open_directory(root_.chunks(), store_layout::dataset_name(generation.dataset_id), ec);
    if (!ec) {
      Directory directory = fs().open_directory(dataset, store_layout::chunk_name(generation), ec);
      if (!ec) return directory;
    }
    if (ec == std::errc::no_such_file_or_directory) ec = errc::no_such_generation;
    if (ec == errc::not_a_directory) ec = errc::corrupt_chunk;
    return {};
  }

  /// What stands where a published file should be, or does not, is the chunk's fault; the rest is the disk's.
  static std::error_code as_corruption(std::error_code ec) {
    for (const std::errc wrong : {std::errc::no_such_file_or_directory, std::errc::too_many_symbolic_link_levels,
                                  std::errc::is_a_directory, std::errc::invalid_argument}) {
      if (ec == wrong) return errc::corrupt_chunk;
    }
    return ec;
  }

  ChunkDescriptor read_descriptor(const Directory& directory, const Generation& generation, std::error_code& ec) const {
    const std::string text =
        root_.read_small_file(directory, store_layout::descriptor_file, ChunkDescriptor::max_size, ec);
    ec = as_corruption(ec);
    if (ec) return {};
    ChunkDescriptor descriptor = decode_descriptor(text, ec);
    if (!ec && !agrees(descriptor, generation)) ec = errc::corrupt_chunk;
    return descriptor;
  }

  std::error_code verify_size(const Directory& directory, const std::string& name, const FoundFile& published) const {
    std::error_code ec;
    const FileStatus status = fs().status(directory, name, ec);
    if (ec) return as_corruption(ec);
    return status.size == published.size ? std::error_code() : make_error_code(errc::corrupt_chunk);
  }

  std::error_code verify_bytes(const Directory& directory, const std::string& name, const FoundFile& published,
                               const VerifyProgress& progress) const {
    std::error_code ec;
    typename F::File file = fs().open_file(directory, name, Access::read, ec);
    if (ec) return as_corruption(ec);
    // One byte more than there should be, so that a file that is no longer takes one read.
    constexpr std::size_t most = std::size_t{256} << 10;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(published.size, most - 1)) + 1);
    DigestStream digests;
    std::uint64_t size = 0;
    for (std::size_t count = buffer.size(); count == buffer.size();) {
      count = fs().read(file, size, buffer, ec);
      if (ec) return ec;
      digests.update(std::span(buffer).first(count));
      size += count;
      if (size > published.size) return errc::corrupt_chunk;
      if (!progress(count)) return errc::cancelled;
    }
    const bool same = size == published.size && digests.digests().xxh3 == published.digests.xxh3;
    return same ? std::error_code() : make_error_code(errc::corrupt_chunk);
  }

  StoreRoot<F>& root_;
};

}  // namespace garner::detail
