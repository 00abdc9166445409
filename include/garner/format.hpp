// SPDX-License-Identifier: BSL-1.0
//
// fmt formatters of the public values: ids as hex, ranges as [begin, end), digests, states, events and error
// codes by name. Takes the standard string format specification (width, alignment).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <system_error>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/ids.hpp"
#include "garner/status.hpp"

namespace garner::detail {

template <class Tag>
std::string as_text(const BasicId<Tag>& id) {
  return id.to_hex();
}
inline std::string as_text(const Digest& digest) { return digest.to_string(); }
inline std::string as_text(const BlockRange& range) { return fmt::format("[{}, {})", range.begin, range.end); }
inline std::string_view as_text(ChunkState state) { return to_string(state); }
inline std::string_view as_text(EventKind kind) { return to_string(kind); }
inline std::string_view as_text(ErrorClass cls) { return to_string(cls); }
inline std::string as_text(errc code) { return make_error_code(code).message(); }

/// Formats a `T` as the text that `as_text(const T&)` gives for it.
template <class T>
struct TextFormatter : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const T& value, Context& context) const {
    return fmt::formatter<std::string_view>::format(as_text(value), context);
  }
};

}  // namespace garner::detail

template <class Tag>
struct fmt::formatter<garner::BasicId<Tag>> : garner::detail::TextFormatter<garner::BasicId<Tag>> {};
template <>
struct fmt::formatter<garner::Digest> : garner::detail::TextFormatter<garner::Digest> {};
template <>
struct fmt::formatter<garner::BlockRange> : garner::detail::TextFormatter<garner::BlockRange> {};
template <>
struct fmt::formatter<garner::ChunkState> : garner::detail::TextFormatter<garner::ChunkState> {};
template <>
struct fmt::formatter<garner::EventKind> : garner::detail::TextFormatter<garner::EventKind> {};
template <>
struct fmt::formatter<garner::ErrorClass> : garner::detail::TextFormatter<garner::ErrorClass> {};
template <>
struct fmt::formatter<garner::errc> : garner::detail::TextFormatter<garner::errc> {};
