// SPDX-License-Identifier: BSL-1.0
//
// What is left of a transfer in a real directory, and what a hostile hand may have made of it before the next start.
#include "garner/storage/checkpoint.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "contract/storage_steps.hpp"
#include "garner/manager/file_origin.hpp"
#include "garner/storage/filesystem_storage.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;

namespace {

using garner::FilesystemStorage;
using garner::contract::bytes_of;
using garner::contract::chunk_of;
using garner::contract::Steps;
using garner::detail::checkpoint_name;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const fs::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  REQUIRE(file.flush().good());
}

/// A data directory in which a run has left "hello" and a checkpoint of "a.bin".
struct Left {
  Left() {
    Steps steps(FilesystemStorage(dir / "data"));
    auto area = steps.stage(asked);
    auto staged = steps.open(area, "a.bin");
    REQUIRE_FALSE(staged.write(bytes_of("hello")));
    REQUIRE_FALSE(staged.checkpoint("origin"));
  }

  /// What the next run has of the file; nothing where the file could not be opened.
  [[nodiscard]] std::optional<std::uint64_t> found() const {
    Steps again(FilesystemStorage(dir / "data"));
    auto area = again.stage(asked);
    std::error_code ec;
    const auto staged = area.open("a.bin", ec);
    return ec ? std::nullopt : std::optional(staged.size());
  }

  garner::test::TempDir dir;
  garner::DataChunk asked = chunk_of("c", {{"a.bin", "hello, world"}});
  fs::path staging = dir / "data/staging" / (asked.id.to_hex() + ".1");
  fs::path file = staging / "a.bin";
  fs::path note = staging / checkpoint_name("a.bin", true);
};

TEST_CASE("a checkpoint lies beside its file, in one of two names in turn") {
  const Left left;
  CHECK(fs::exists(left.note));
  CHECK_FALSE(fs::exists(left.staging / checkpoint_name("a.bin", false)));
  CHECK(left.found() == 5);
}

TEST_CASE("hostile 44: staging with no record of where it came from, or one that is not whole, begins anew") {
  const Left left;
  const std::string whole = read_file(left.note);
  SUBCASE("none") { fs::remove(left.note); }
  SUBCASE("empty") { write_file(left.note, ""); }
  SUBCASE("cut short") { write_file(left.note, whole.substr(0, whole.size() - 1)); }
  SUBCASE("endless") { write_file(left.note, whole + std::string(1 << 20, 'x')); }
  SUBCASE("another digest") {
    std::string other = whole;
    other[2] = other[2] == '0' ? '1' : '0';
    write_file(left.note, other);
  }
  SUBCASE("a link") {
    fs::rename(left.note, left.dir / "elsewhere");
    fs::create_symlink(left.dir / "elsewhere", left.note);
  }
  SUBCASE("a directory") {
    fs::remove(left.note);
    fs::create_directory(left.note);
  }
  CHECK(left.found() == 0);
}

TEST_CASE("hostile 44: staging that is shorter than its record, or has other bytes, begins anew") {
  const Left left;
  SUBCASE("shorter") { fs::resize_file(left.file, 4); }
  SUBCASE("changed") { write_file(left.file, "hullo"); }
  SUBCASE("zeros, as after a power cut") { write_file(left.file, std::string(5, '\0')); }
  SUBCASE("gone") { fs::remove(left.file); }
  SUBCASE("a link") {
    write_file(left.dir / "elsewhere", "hello");
    fs::remove(left.file);
    fs::create_symlink(left.dir / "elsewhere", left.file);
  }
  SUBCASE("a directory") {
    fs::remove(left.file);
    fs::create_directories(left.file / "deep");
  }
  CHECK(left.found() == 0);
  if (fs::exists(left.dir / "elsewhere")) CHECK(read_file(left.dir / "elsewhere") == "hello");
}

TEST_CASE("hostile 44: staging that is longer than its record is cut down to it") {
  const Left left;
  write_file(left.file, "hello, world, and more than was ever asked for");
  CHECK(left.found() == 5);
  CHECK(read_file(left.dir / "data/staging" / (left.asked.id.to_hex() + ".2") / "a.bin") == "hello");
}

TEST_CASE("hostile 44: a record of more bytes than the file may have is none") {
  const Left left;
  write_file(left.file, "hello, world!");
  garner::DigestStream digest;
  digest.update(bytes_of("hello, world!"));
  write_file(left.note, garner::detail::encode_checkpoint(
                            {13, digest.xxh3(), garner::detail::asked_of(left.asked.files.at("a.bin")), "origin"}));
  CHECK(left.found() == 0);
}

TEST_CASE("hostile 44: an origin that is no origin is not sent to anyone") {
  using garner::detail::parse_origin;
  garner::detail::FileOrigin origin{"https://host/a?token=REDACTED", {12, "\"etag\"", "Sun, 22 Nov 2026 17:00:00 GMT"}};
  CHECK(parse_origin(to_text(origin)) == origin);
  origin.identity = {};
  CHECK(parse_origin(to_text(origin)) == origin);
  for (const std::string text : {"", "url", "url\netag\nmodified", "url\netag\rInjected: yes\nmodified\n1",
                                 "url\netag\nmodified\n-1", "url\netag\nmodified\n1x", "url\ne\x7f\nmodified\n",
                                 "url\netag\nmodified\n1\n2", "url\netag\nmodified\n99999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_origin(text));
  }
}

}  // namespace
