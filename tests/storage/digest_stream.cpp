// SPDX-License-Identifier: BSL-1.0
//
// Digests against published vectors (FIPS 180-4, RFC 1321, xxHash), in one piece and in many.
#include "garner/storage/digest_stream.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace {

using garner::Digest;
using garner::DigestAlgorithm;
using garner::DigestStream;

std::string xxh3_of(std::string_view text) {
  DigestStream stream;
  stream.update(std::as_bytes(std::span(text)));
  const garner::FoundDigests found = stream.digests();
  CHECK_FALSE(found.asked);
  return garner::detail::format_hex(found.xxh3.data(), found.xxh3.size());
}

/// The digest of `text` given in pieces of `step` bytes.
Digest digest_of(std::string_view text, DigestAlgorithm algorithm, std::size_t step) {
  DigestStream stream(algorithm);
  for (std::size_t at = 0; at < text.size(); at += step) {
    stream.update(std::as_bytes(std::span(text.substr(at, step))));
  }
  return stream.digests().asked.value();
}

struct Vector {
  std::string_view text;
  std::string_view digest;
};

constexpr auto vectors = std::to_array<Vector>({
    {"", "md5:d41d8cd98f00b204e9800998ecf8427e"},
    {"abc", "md5:900150983cd24fb0d6963f7d28e17f72"},
    {"message digest", "md5:f96b697d7cb7938d525a2f31aaf161d0"},
    {"", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"},
    {"abc", "sha1:a9993e364706816aba3e25717850c26c9cd0d89d"},
    {"", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"",
     "sha512:"
     "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931b"
     "d4741"
     "7a81a538327af927da3e"},
    {"abc",
     "sha512:"
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d442"
     "3643c"
     "e80e2a9ac94fa54ca49f"},
});

TEST_CASE("each algorithm gives its published digests, in pieces of any size") {
  for (const Vector& vector : vectors) {
    const Digest expected = Digest::parse(vector.digest);
    CAPTURE(vector.digest);
    for (const std::size_t step : {std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
      CHECK(digest_of(vector.text, expected.algorithm(), step) == expected);
    }
  }
}

TEST_CASE("XXH3-128 is always there, in its canonical form") {
  CHECK(xxh3_of("") == "99aa06d3014798d86001c324468d497f");
  CHECK(xxh3_of("abc") == "06b05ab6733a618578af5f94892f3950");
  CHECK(xxh3_of(std::string(100000, 'x')) != xxh3_of(std::string(100001, 'x')));
}

TEST_CASE("digests may be asked for in the middle, and restart forgets") {
  DigestStream stream(DigestAlgorithm::sha256);
  const auto feed = [&stream](std::string_view text) { stream.update(std::as_bytes(std::span(text))); };
  feed("garbage");
  stream.restart();
  feed("ab");
  CHECK(stream.digests().asked == digest_of("ab", DigestAlgorithm::sha256, 1));
  DigestStream moved = std::move(stream);
  const std::string_view rest = "c";
  moved.update(std::as_bytes(std::span(rest)));
  CHECK(moved.digests().asked == digest_of("abc", DigestAlgorithm::sha256, 1));
  CHECK(moved.digests() == moved.digests());
}

}  // namespace
