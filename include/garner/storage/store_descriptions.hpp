// SPDX-License-Identifier: BSL-1.0
//
// Descriptions of what is on the other volumes of a store: copies of their `chunk.json`, so that a chunk whose volume
// is away can be fetched again. Nothing depends on them but that: they are written unsynced, and compared when read.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/storage/chunk_descriptor.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_root.hpp"

namespace garner::detail {

/// Those that one volume keeps: `descriptions/{dataset id}-{chunk name}`, made when there is something to be kept.
template <FileSystem F>
class StoreDescriptions {
 public:
  explicit StoreDescriptions(StoreRoot<F>& root) : root_(root) {}

  /// As far as that is possible.
  std::error_code write(const Generation& generation, std::string_view text) {
    std::error_code ec = fs().make_directory(fs().root(), store_layout::descriptions_directory);
    if (ec == std::errc::file_exists) ec.clear();
    if (ec) return ec;
    const Directory directory = open(ec);
    const std::string name = store_layout::qualified_name(generation);
    if (!ec) ec = root_.unless_missing(fs().remove_file(directory, name));
    if (ec) return ec;
    typename F::File file = fs().create_file(directory, name, ec);
    if (!ec) ec = fs().write(file, 0, std::as_bytes(std::span(text)));
    if (!ec) ec = fs().close(file);
    return ec;
  }

  /// `errc::no_such_generation` where there is none, `errc::corrupt_chunk` where it is another's or not whole.
  DataChunk read(const Generation& generation, std::error_code& ec) const {
    const Directory directory = open(ec);
    std::string text;
    if (!ec) {
      text = root_.read_small_file(directory, store_layout::qualified_name(generation), ChunkDescriptor::max_size, ec);
    }
    if (ec == std::errc::no_such_file_or_directory) ec = errc::no_such_generation;
    if (ec) return {};
    const ChunkDescriptor descriptor = decode_descriptor(text, ec);
    if (!ec && !agrees(descriptor, generation)) ec = errc::corrupt_chunk;
    return ec ? DataChunk() : descriptor.described();
  }

  /// Gone, durably. No error where there is none.
  std::error_code remove(const Generation& generation) {
    std::error_code ec;
    const Directory directory = open(ec);
    if (!ec) ec = fs().remove_file(directory, store_layout::qualified_name(generation));
    if (ec == std::errc::no_such_file_or_directory) return {};
    return ec ? ec : root_.sync_directory(directory);
  }

  /// Calls `found(generation)` for each; what does not read as one is left alone.
  std::error_code list(const std::function<void(const Generation&)>& found) const {
    std::error_code ec;
    const Directory directory = open(ec);
    if (ec) return root_.unless_missing(ec);
    return fs().list(directory, [&found](std::string_view name, EntryKind kind) {
      const auto generation = store_layout::parse_qualified_name(name);
      if (kind == EntryKind::file && generation) found(*generation);
    });
  }

 private:
  using Directory = typename F::Directory;

  [[nodiscard]] F& fs() const noexcept { return root_.fs(); }

  Directory open(std::error_code& ec) const {
    return fs().open_directory(fs().root(), store_layout::descriptions_directory, ec);
  }

  StoreRoot<F>& root_;
};

}  // namespace garner::detail
