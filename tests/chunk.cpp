// SPDX-License-Identifier: BSL-1.0
//
// What makes a description valid, row by row of the list of hostile inputs; what a URL looks like without its secrets;
// and which descriptions count as the same content.
#include "garner/chunk.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

using garner::BlockRange;
using garner::ChunkId;
using garner::ChunkLimits;
using garner::content_fingerprint;
using garner::DataChunk;
using garner::DatasetId;
using garner::Digest;
using garner::errc;
using garner::FileSource;
using garner::redact_url;

namespace {

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

DataChunk good_chunk() {
  DataChunk chunk;
  chunk.id = ChunkId::from_name("chunk");
  chunk.dataset_id = DatasetId::from_name("dataset");
  chunk.block_range = {10, 20};
  chunk.files["blocks.parquet"] = "http://host/blocks.parquet";
  return chunk;
}

DataChunk with_name(const std::string& name) {
  DataChunk chunk = good_chunk();
  chunk.files[name] = "http://host/file";
  return chunk;
}

DataChunk with_url(const std::string& url) {
  DataChunk chunk = good_chunk();
  chunk.files["blocks.parquet"] = url;
  return chunk;
}

std::error_code verdict(const DataChunk& chunk, const ChunkLimits& limits = {}) {
  const auto invalid = garner::validate(chunk, limits);
  if (!invalid) return {};
  CHECK(invalid->subject.find(chunk.id.to_hex()) != std::string::npos);
  for (const char c : invalid->subject) CHECK((c >= ' ' && c <= '~'));
  return invalid->code;
}

Digest digest(std::string_view text) { return Digest::parse(text); }

const std::string sha256_text = "sha256:" + std::string(64, 'b');

}  // namespace

TEST_CASE("a plain description is valid") {
  CHECK_FALSE(verdict(good_chunk()));
  CHECK_FALSE(verdict(with_name("A-b_c.0")));
  CHECK_FALSE(verdict(with_name(std::string(255, 'x'))));
  CHECK_FALSE(verdict(with_name("a..b")));
}

TEST_CASE("hostile 1: a file name with a path in it is rejected") {
  for (const char* name : {"../x", "a/../../x", "a/b", "/", "a\\b", "..\\x", "a/", "./a"}) {
    CAPTURE(name);
    CHECK(verdict(with_name(name)) == errc::invalid_file_name);
  }
}

TEST_CASE("hostile 2: an absolute file name, a home or a drive letter is rejected") {
  for (const char* name : {"/etc/passwd", "~", "~root", "C:x", "C:", R"(\\server\share)"}) {
    CAPTURE(name);
    CHECK(verdict(with_name(name)) == errc::invalid_file_name);
  }
}

TEST_CASE("hostile 3: a file name with any byte outside of the portable set is rejected") {
  const std::string portable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  for (int value = 0; value < 256; ++value) {
    const char c = static_cast<char>(static_cast<std::uint8_t>(value));
    const bool allowed = portable.find(c) != std::string::npos;
    CAPTURE(value);
    CHECK(verdict(with_name(std::string("a") + c + "b")) ==
          (allowed ? std::error_code() : make_error_code(errc::invalid_file_name)));
  }
  CHECK(verdict(with_name(".hidden")) == errc::invalid_file_name);
  CHECK(verdict(with_name("bl\xc3\xb6"
                          "cke")) == errc::invalid_file_name);
  CHECK(verdict(with_name(std::string("a\0b", 3))) == errc::invalid_file_name);
}

TEST_CASE("hostile 4: an empty file name, a dot, two dots, or more than 255 bytes is rejected") {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string(256, 'a'), std::string(100000, 'a')}) {
    CAPTURE(name.size());
    CHECK(verdict(with_name(name)) == errc::invalid_file_name);
  }
}

TEST_CASE("hostile 5: two file names that are equal but for case are rejected") {
  CHECK(verdict(with_name("Blocks.parquet")) == errc::duplicate_file_name);
  CHECK(verdict(with_name("BLOCKS.PARQUET")) == errc::duplicate_file_name);
  CHECK_FALSE(verdict(with_name("blocks_parquet")));
}

TEST_CASE("hostile 6: a file name that the store uses itself is rejected, in any case") {
  for (const char* name : {"chunk.json", "Chunk.json", "CHUNK.JSON"}) {
    CHECK(verdict(with_name(name)) == errc::reserved_file_name);
  }
  CHECK_FALSE(verdict(with_name("chunk.json5")));
}

TEST_CASE("hostile 7: a description without files, or with too many, is rejected") {
  DataChunk chunk = good_chunk();
  chunk.files.clear();
  CHECK(verdict(chunk) == errc::no_files);
  for (int i = 0; i < 10; ++i) chunk.files["f" + std::to_string(i)] = "http://host/f";
  CHECK_FALSE(verdict(chunk));
  chunk.files["f10"] = "http://host/f";
  CHECK(verdict(chunk) == errc::too_many_files);
  CHECK_FALSE(verdict(chunk, {.max_files = 11}));
  CHECK(verdict(good_chunk(), {.max_files = 0}) == errc::too_many_files);
}

TEST_CASE("hostile 8: sizes that overflow alone or in their sum, or are above the limit, are rejected") {
  const auto sized = [](std::vector<std::uint64_t> sizes) {
    DataChunk chunk = good_chunk();
    chunk.files.clear();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      chunk.files["f" + std::to_string(i)] = FileSource({"http://host/f"}, sizes[i], std::nullopt);
    }
    return chunk;
  };
  const ChunkLimits no_limit{.max_chunk_bytes = most};
  CHECK_FALSE(verdict(sized({most}), no_limit));
  CHECK_FALSE(verdict(sized({most, 0}), no_limit));
  CHECK_FALSE(verdict(sized({most - 1, 1}), no_limit));
  CHECK(verdict(sized({most, 1}), no_limit) == errc::chunk_too_large);
  CHECK(verdict(sized({1, most}), no_limit) == errc::chunk_too_large);
  CHECK(verdict(sized({most / 2 + 1, most / 2 + 1}), no_limit) == errc::chunk_too_large);

  CHECK(verdict(sized({most})) == errc::chunk_too_large);
  CHECK_FALSE(verdict(sized({60, 40}), {.max_chunk_bytes = 100}));
  CHECK(verdict(sized({60, 41}), {.max_chunk_bytes = 100}) == errc::chunk_too_large);
  CHECK(verdict(sized({101}), {.max_chunk_bytes = 100}) == errc::chunk_too_large);
  CHECK_FALSE(verdict(sized({0, 0})));
}

TEST_CASE("hostile 9: a digest of the wrong length, with odd hex or of an unknown algorithm is rejected") {
  for (const std::string& text :
       {std::string(), std::string("sha256"), std::string("sha256:"), "sha256:" + std::string(63, 'a'),
        "sha256:" + std::string(65, 'a'), "sha256:" + std::string(66, 'a'), "sha1:" + std::string(64, 'a'),
        "md5:" + std::string(31, 'a'), "sha512:" + std::string(127, 'a'), "sha256:" + std::string(63, 'a') + "g",
        "sha3:" + std::string(64, 'a'), "SHA256:" + std::string(64, 'a'), ":" + std::string(64, 'a'),
        " sha256:" + std::string(64, 'a'), "sha256: " + std::string(63, 'a'), std::string(64, 'a')}) {
    CAPTURE(text);
    CHECK_FALSE(Digest::try_parse(text));
    try {
      Digest::parse(text);
      FAIL("did not throw");
    } catch (const garner::Error& error) {
      CHECK(error.code() == errc::invalid_digest);
    }
  }
}

TEST_CASE("a digest of each algorithm is read in either case, and told in lower case") {
  for (const auto& [name, bytes] :
       std::vector<std::pair<std::string, std::size_t>>{{"md5", 16}, {"sha1", 20}, {"sha256", 32}, {"sha512", 64}}) {
    const Digest found = digest(name + ":" + std::string(bytes, 'A') + std::string(bytes, '7'));
    CHECK(found.size() == bytes);
    CHECK(found.data()[0] == 0xaa);
    CHECK(found.data()[bytes - 1] == 0x77);
    CHECK(to_string(found.algorithm()) == name);
    CHECK(found.to_string() == name + ":" + std::string(bytes, 'a') + std::string(bytes, '7'));
    CHECK(found == digest(found.to_string()));
  }
  CHECK(digest(sha256_text) != digest("sha256:" + std::string(64, 'c')));
}

TEST_CASE("hostile 10: an empty or a reversed block range is rejected, and the greatest end is fine") {
  const auto ranged = [](std::uint64_t begin, std::uint64_t end) {
    DataChunk chunk = good_chunk();
    chunk.block_range = {begin, end};
    return verdict(chunk);
  };
  CHECK(ranged(0, 0) == errc::empty_block_range);
  CHECK(ranged(7, 7) == errc::empty_block_range);
  CHECK(ranged(8, 7) == errc::empty_block_range);
  CHECK(ranged(most, most) == errc::empty_block_range);
  CHECK(ranged(most, 0) == errc::empty_block_range);
  CHECK_FALSE(ranged(0, most));
  CHECK_FALSE(ranged(most - 1, most));
}

TEST_CASE("hostile 11: a file without a URL, or a URL with control bytes, spaces or non-ASCII in it is rejected") {
  DataChunk chunk = good_chunk();
  chunk.files["blocks.parquet"] = FileSource();
  CHECK(verdict(chunk) == errc::no_url);
  for (const std::string& url :
       {std::string(), std::string("http://h/\r\nX: y"), std::string("http://h/a b"), std::string("http://h/\t"),
        std::string("http://h/a\0b", 12), std::string("http://h/\x7f"), std::string("http://h/\xc3\xbc"),
        std::string(" http://h/"), std::string("http://h/\n")}) {
    CAPTURE(url);
    CHECK(verdict(with_url(url)) == errc::invalid_url);
  }
  SUBCASE("any mirror counts, not only the first") {
    chunk.files["blocks.parquet"] = FileSource({"http://h/a", "http://h/a b"}, std::nullopt, std::nullopt);
    CHECK(verdict(chunk) == errc::invalid_url);
  }
}

TEST_CASE("a header that garner writes itself, that is malformed or too much is rejected, and its value is not shown") {
  const auto verdict_of = [](std::vector<garner::HttpHeader> headers) {
    DataChunk chunk = good_chunk();
    chunk.files["blocks.parquet"].headers = std::move(headers);
    const auto invalid = garner::validate(chunk);
    if (!invalid) return std::error_code();
    CHECK(invalid->subject.find("hunter2") == std::string::npos);
    CHECK(invalid->subject.find(chunk.id.to_hex()) != std::string::npos);
    CHECK(invalid->subject.find("blocks.parquet") != std::string::npos);
    return invalid->code;
  };
  CHECK_FALSE(verdict_of({}));
  CHECK_FALSE(verdict_of({{"Authorization", "Bearer hunter2"}, {"X-Amz-Security-Token", "a/b+c=="}, {"x", ""}}));
  CHECK_FALSE(verdict_of({{"X-Text", "with a space and \xc3\xa4"}}));
  for (const char* name : {"",
                           "X A",
                           "X:A",
                           ":path",
                           "X\r\nY",
                           "X\x7f",
                           "\xc3\xa4",
                           "Authorization: hunter2",
                           "(x)",
                           "Host",
                           "RANGE",
                           "if-range",
                           "Accept-Encoding",
                           "Content-Length",
                           "Transfer-Encoding",
                           "Connection",
                           "TE",
                           "Trailer",
                           "Upgrade",
                           "Expect",
                           "Keep-Alive",
                           "User-Agent",
                           "Proxy-Authorization",
                           "proxy-connection"}) {
    CAPTURE(name);
    CHECK(verdict_of({{name, "hunter2"}}) == errc::invalid_header);
  }
  for (const std::string& value :
       {std::string("hunter2\r\nX: y"), std::string("hunter2\n"), std::string("\rhunter2"), std::string("hunter2\0", 8),
        std::string("hunter2\x7f"), std::string(" hunter2"), std::string("hunter2 "), std::string(20'000, 'x')}) {
    CAPTURE(value);
    CHECK(verdict_of({{"X-A", value}}) == errc::invalid_header);
  }
  CHECK_FALSE(verdict_of(std::vector<garner::HttpHeader>(32, {"X-A", "b"})));
  CHECK(verdict_of(std::vector<garner::HttpHeader>(33, {"X-A", "b"})) == errc::invalid_header);
}

TEST_CASE("hostile 13: a credential is redacted from every shown URL") {
  CHECK(redact_url("http://user:pass@host/x") == "http://host/x");
  CHECK(redact_url("http://user@host") == "http://host");
  CHECK(redact_url("http://:pass@host/") == "http://host/");
  CHECK(redact_url("https://user:pass@host:8443/a/b?c=d") == "https://host:8443/a/b?c=d");
  SUBCASE("an unescaped at-sign or colon in the password") {
    CHECK(redact_url("http://user:p@ss@host/x") == "http://host/x");
    CHECK(redact_url("http://u:p:w@host/x") == "http://host/x");
    CHECK(redact_url("http://u@p@host/") == "http://host/");
  }
  SUBCASE("a password that ends the authority early") {
    for (const char* url : {"http://user:pa/word@host/x", "http://user:pa?word@host/x", "http://user:pa#word@host/x",
                            "http://user:pa\\word@host/x", "http://user:/word@host/x"}) {
      CAPTURE(url);
      const std::string shown = redact_url(url);
      if (std::string_view(url).find(":/word") == std::string_view::npos) CHECK(shown == "http://host/x");
      if (std::string_view(url).find(":/word") == std::string_view::npos)
        CHECK(shown.find("word") == std::string::npos);
    }
  }
  SUBCASE("a query behind such a password") {
    CHECK(redact_url("http://user:pa?word@host/x?sig=abc") == "http://host/x?redacted");
  }
  SUBCASE("text that is no URL") {
    for (const char* url : {"user:pass@host/x", "//user:pass@host/x", "http:/user:pass@host/x", "http:user:pass@host/x",
                            "http:\\\\user:pass@host/x", "user:pass@host/http://other/", "http:///user:pass@host/",
                            "@user:pass@", "://user:pass@host/", "a b://user:pass@host"}) {
      CAPTURE(url);
      CHECK(redact_url(url).find("pass") == std::string::npos);
    }
  }
  SUBCASE("it does not reach the message of a rejection either") {
    const auto invalid = garner::validate(with_url("http://user:pass@host/a b"));
    REQUIRE(invalid);
    CHECK(invalid->subject.find("pass") == std::string::npos);
    CHECK(invalid->subject.find("http://host/a b") != std::string::npos);
  }
}

TEST_CASE("a signature or a token in a query is redacted, and a harmless query is not") {
  CHECK(redact_url("https://h/p?X-Amz-Signature=abc&X-Amz-Date=1") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p?AWSAccessKeyId=abc") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p?TOKEN=c") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p?client_secret=c") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p?se=1&sig=c") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p#access_token=abc") == "https://h/p?redacted");
  CHECK(redact_url("https://h/p?v=2#part") == "https://h/p?v=2#part");
  CHECK(redact_url("https://h/signature/key") == "https://h/signature/key");
}

TEST_CASE("a URL without secrets is shown as it is") {
  for (const char* url : {"http://host", "http://host/", "http://host:80/a@b", "http://host/a?x=y@z",
                          "http://host/a#b@c", "http://a#@b/", "mem://a/b", "", "x", "http://", "http://[::1]:80/x"}) {
    CHECK(redact_url(url) == url);
  }
}

TEST_CASE("what a redacted query asks for still tells one URL from another, and its signature does not") {
  const std::string one = redact_url("https://h/p?key=a.parquet&X-Amz-Signature=abc");
  CHECK(one.starts_with("https://h/p?redacted-"));
  CHECK(one.find("parquet") == std::string::npos);
  CHECK(one == redact_url("https://h/p?X-Amz-Signature=other&key=a.parquet"));
  CHECK(one != redact_url("https://h/p?key=b.parquet&X-Amz-Signature=abc"));
  CHECK(redact_url(one) == one);
}

TEST_CASE("redacting twice is redacting once") {
  for (const char* url : {"http://u:p@h/x?token=1", "u:p@h", "http://h/p#key", "http://u:p/w@h@i/?sig"}) {
    CHECK(redact_url(redact_url(url)) == redact_url(url));
  }
}

TEST_CASE("a block range is half-open") {
  constexpr BlockRange range{10, 20};
  static_assert(range.contains(10) && range.contains(19) && !range.contains(20) && !range.contains(9));
  static_assert(range.meets({0, 11}) && range.meets({19, 30}) && range.meets({12, 13}) && range.meets({0, 100}));
  static_assert(!range.meets({0, 10}) && !range.meets({20, 30}));
  CHECK(BlockRange{1, 2} < BlockRange{1, 3});
}

TEST_CASE("a file source converts from one URL") {
  const FileSource source = "http://h/x";
  CHECK(source.urls == std::vector<std::string>{"http://h/x"});
  CHECK_FALSE(source.size);
  CHECK_FALSE(source.digest);
}

TEST_CASE("descriptions that cannot differ in a byte have one fingerprint") {
  const DataChunk chunk = good_chunk();
  CHECK(content_fingerprint(chunk) == content_fingerprint(good_chunk()));

  SUBCASE("where there is a digest, the mirrors do not count") {
    DataChunk here = chunk;
    DataChunk there = chunk;
    here.files["blocks.parquet"] = FileSource({"http://a/x"}, 5, digest(sha256_text));
    there.files["blocks.parquet"] = FileSource({"http://b/x", "http://c/x"}, 5, digest(sha256_text));
    CHECK(content_fingerprint(here) == content_fingerprint(there));
  }
  SUBCASE("a size that is told or not does not count") {
    DataChunk sized = chunk;
    sized.files["blocks.parquet"].size = 5;
    CHECK(content_fingerprint(sized) == content_fingerprint(chunk));
  }
  SUBCASE("headers do not count: they say who asks, and not for what") {
    DataChunk other = chunk;
    other.files["blocks.parquet"].headers = {{"Authorization", "Bearer abc"}};
    CHECK(content_fingerprint(other) == content_fingerprint(chunk));
    CHECK_FALSE(other == chunk);  // but it is another description, and the new headers are used
  }
  SUBCASE("where there is none, a new signature does not count") {
    CHECK(content_fingerprint(with_url("http://h/x?X-Amz-Signature=1")) ==
          content_fingerprint(with_url("http://u:p@h/x?X-Amz-Signature=2")));
  }
}

TEST_CASE("descriptions that may differ in a byte have two fingerprints") {
  const DataChunk chunk = good_chunk();
  std::vector<DataChunk> others(8, chunk);
  others[0].id = ChunkId::from_name("other");
  others[1].dataset_id = DatasetId::from_name("other");
  others[2].block_range.begin = 11;
  others[3].block_range.end = 21;
  others[4].files["blocks.parquet"] = "http://host/other";
  others[5].files["blocks.parquet"].urls.emplace_back("http://mirror/blocks.parquet");
  others[6].files["blocks.parquet"].digest = digest(sha256_text);
  others[7].files["more"] = "http://host/more";
  for (std::size_t i = 0; i < others.size(); ++i) {
    CAPTURE(i);
    CHECK(content_fingerprint(others[i]) != content_fingerprint(chunk));
  }
  SUBCASE("and text cannot move from one field to the next") {
    DataChunk a = chunk;
    DataChunk b = chunk;
    a.files = {{"ab", FileSource("c")}};
    b.files = {{"a", FileSource("bc")}};
    CHECK(content_fingerprint(a) != content_fingerprint(b));
  }
}

TEST_CASE("a chunk's size is known where the size of each file is") {
  DataChunk chunk = good_chunk();
  CHECK_FALSE(garner::declared_bytes(chunk));
  chunk.files["blocks.parquet"].size = 40;
  CHECK(garner::declared_bytes(chunk) == 40);
  chunk.files["more"] = FileSource({"http://h/more"}, 2, std::nullopt);
  CHECK(garner::declared_bytes(chunk) == 42);
  chunk.files["still_more"] = "http://h/still_more";
  CHECK_FALSE(garner::declared_bytes(chunk));
}

TEST_CASE("hostile text is printed as ASCII, and not at any length") {
  CHECK(garner::detail::printable("a\nb\x80") == "a\\x0ab\\x80");
  CHECK(garner::detail::printable(std::string(1000, '\0')).size() == 120 * 4 + 3);
}
