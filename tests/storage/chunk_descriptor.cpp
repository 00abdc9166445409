// SPDX-License-Identifier: BSL-1.0
//
// chunk.json: what is written, that it is read back, and that nothing else is.
#include "garner/storage/chunk_descriptor.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

using garner::ChunkDescriptor;
using garner::decode_descriptor;
using garner::Digest;
using garner::encode_descriptor;
using garner::errc;
using garner::FoundFile;
using nlohmann::json;

ChunkDescriptor example() {
  ChunkDescriptor out;
  out.chunk.id = garner::ChunkId::from_name("c");
  out.chunk.dataset_id = garner::DatasetId::from_name("d");
  out.chunk.block_range = {7, UINT64_MAX};
  out.generation = 12;
  const Digest md5 = Digest::parse("md5:900150983cd24fb0d6963f7d28e17f72");
  out.chunk.files["a.bin"] = garner::FileSource({"http://host/a", "https://mirror/a?x=1"}, 3, md5);
  out.found["a.bin"] = FoundFile{3, {{1, 2, 3}, md5}};
  out.chunk.files["b.bin"] = garner::FileSource("http://host/b");
  out.found["b.bin"] = FoundFile{5000000000, {{4, 5, 6}, std::nullopt}};
  return out;
}

std::error_code error_of(std::string_view text) {
  std::error_code ec;
  const ChunkDescriptor read = decode_descriptor(text, ec);
  if (ec) CHECK(read == ChunkDescriptor());
  return ec;
}

/// What begins with `{` and has no check of its own, with the right one.
std::string checked(std::string text) {
  text.erase(text.rfind('}'));
  return text + garner::detail::check_member(text);
}

std::string checked(json document) {
  document.erase("check");
  return checked(document.dump());
}

/// The error of the example, with `change` made to its JSON, by someone who knows how to make the check right.
std::error_code error_after(const std::function<void(json&)>& change) {
  json document = json::parse(encode_descriptor(example()));
  change(document);
  return error_of(checked(document));
}

TEST_CASE("what is written is read back") {
  std::error_code ec;
  CHECK(decode_descriptor(encode_descriptor(example()), ec) == example());
  CHECK_FALSE(ec);
}

TEST_CASE("the descriptor tells what was asked for and what was found") {
  const json document = json::parse(encode_descriptor(example()));
  CHECK(document["version"] == 1);
  CHECK(document["end"] == UINT64_MAX);
  const json& asked = document["files"]["a.bin"]["asked"];
  CHECK(asked == json{{"size", 3}, {"digest", "md5:900150983cd24fb0d6963f7d28e17f72"}});
  CHECK(document["files"]["a.bin"]["found"]["digests"] ==
        json{"xxh3-128:01020300000000000000000000000000", "md5:900150983cd24fb0d6963f7d28e17f72"});
  CHECK(document["files"]["b.bin"]["asked"] == json::object());
  CHECK(document["files"]["b.bin"]["found"]["size"] == 5000000000);
}

TEST_CASE("what is described is what was found") {
  const garner::DataChunk described = example().described();
  CHECK(described.files.at("a.bin") == example().chunk.files.at("a.bin"));
  CHECK(described.files.at("b.bin").size == 5000000000);
  CHECK_FALSE(described.files.at("b.bin").digest);
}

TEST_CASE("no credential is written") {
  ChunkDescriptor descriptor = example();
  descriptor.chunk.files["b.bin"].urls = {"http://user:hunter2@host/b", "https://host/b?X-Amz-Signature=hunter2"};
  descriptor.chunk.files["b.bin"].headers = {{"Authorization", "Bearer hunter2"}};
  CHECK(encode_descriptor(descriptor).find("hunter2") == std::string::npos);
  CHECK(encode_descriptor(descriptor).find("Authorization") == std::string::npos);
}

TEST_CASE("the bound on a descriptor's size holds, whatever is in its URLs") {
  for (const char worst : {'x', '"', '\\', '\x01', '\xff'}) {
    ChunkDescriptor descriptor = example();
    descriptor.chunk.files["b.bin"].urls.assign(20, std::string(5000, worst));
    CHECK(encode_descriptor(descriptor).size() <= garner::detail::descriptor_size_bound(descriptor.chunk));
  }
  CHECK(encode_descriptor(example()).size() <= garner::detail::descriptor_size_bound(example().chunk));
}

TEST_CASE("a descriptor cut short anywhere is corrupt") {
  const std::string text = encode_descriptor(example());
  for (std::size_t size = 0; size + 1 < text.size(); ++size)
    CHECK(error_of(text.substr(0, size)) == errc::corrupt_chunk);
}

TEST_CASE("a descriptor of a later version is corrupt") {
  CHECK_FALSE(error_after([](json&) {}));
  CHECK(error_after([](json& document) { document["version"] = 2; }) == errc::corrupt_chunk);
  CHECK(error_after([](json& document) { document["version"] = "1"; }) == errc::corrupt_chunk);
}

TEST_CASE("a descriptor that is too long, too deep or not UTF-8 is corrupt") {
  json document = json::parse(encode_descriptor(example()));
  document.erase("check");
  const std::string text = document.dump();
  const std::string rest = text.substr(1);
  CHECK_FALSE(error_of(checked(text)));
  CHECK_FALSE(error_of(checked('{' + std::string(1000, ' ') + rest)));
  CHECK(error_of(checked('{' + std::string(ChunkDescriptor::max_size, ' ') + rest)) == errc::corrupt_chunk);
  CHECK(error_of(std::string(ChunkDescriptor::max_size, '[')) == errc::corrupt_chunk);
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  CHECK(error_of(checked("{\"x\":" + deep + "," + rest)) == errc::corrupt_chunk);
  CHECK(error_of(checked("{\"x\":\"\xff\xfe\"," + rest)) == errc::corrupt_chunk);
}

TEST_CASE("a member that is missing or of another type is corrupt") {
  const json whole = json::parse(encode_descriptor(example()));
  const std::vector<json> others = {nullptr, -1, 1.5, "text", json::array({1}), json::object({{"x", 1}}), true};
  const json flat = whole.flatten();
  for (auto member = flat.begin(); member != flat.end(); ++member) {
    const std::string& pointer = member.key();
    const json& value = member.value();
    CAPTURE(pointer);
    if (value.is_null()) continue;  // an object with nothing in it
    for (const json& other : others) {
      if (other.type() == value.type()) continue;
      json changed = whole;
      changed[json::json_pointer(pointer)] = other;
      if (pointer != "/check") CHECK(error_of(checked(changed)) == errc::corrupt_chunk);
    }
  }
  CHECK(error_of(json::parse(encode_descriptor(example())).dump()) == errc::corrupt_chunk);  // no check at its end
  for (const char* key : {"version", "chunk_id", "dataset_id", "begin", "end", "generation", "files"}) {
    CHECK(error_after([key](json& document) { document.erase(key); }) == errc::corrupt_chunk);
  }
  for (const char* key : {"urls", "asked", "found"}) {
    CHECK(error_after([key](json& document) { document["files"]["a.bin"].erase(key); }) == errc::corrupt_chunk);
    CHECK(error_after([key](json& document) { document["files"]["a.bin"][key] = 7; }) == errc::corrupt_chunk);
  }
}

TEST_CASE("a descriptor that names something outside its directory is corrupt") {
  for (const char* name : {"../x", "/etc/passwd", "..", "a/b", "", ".hidden", "chunk.json", "CHUNK.json"}) {
    const auto rename = [name](json& document) { document["files"][name] = document["files"]["a.bin"]; };
    CHECK(error_after(rename) == errc::corrupt_chunk);
  }
}

TEST_CASE("a descriptor whose finding is not what it asked for is corrupt") {
  CHECK(error_after([](json& document) { document["files"]["a.bin"]["asked"]["size"] = 4; }) == errc::corrupt_chunk);
  CHECK(error_after([](json& document) { document["files"]["a.bin"]["found"]["digests"].erase(1); }) ==
        errc::corrupt_chunk);
  CHECK(error_after([](json& document) { document["files"]["a.bin"]["found"]["digests"].erase(0); }) ==
        errc::corrupt_chunk);
}

TEST_CASE("a descriptor agrees with the name that says the same, and with no other") {
  const ChunkDescriptor descriptor = example();
  const garner::Generation name{descriptor.chunk.id, descriptor.chunk.dataset_id, {7, UINT64_MAX}, 5000000003, 12};
  CHECK(agrees(descriptor, name));
  const auto differs = [&](const std::function<void(garner::Generation&)>& change) {
    garner::Generation other = name;
    change(other);
    return !agrees(descriptor, other);
  };
  CHECK(differs([](auto& other) { other.id = {}; }));
  CHECK(differs([](auto& other) { other.dataset_id = {}; }));
  CHECK(differs([](auto& other) { other.block_range.begin = 8; }));
  CHECK(differs([](auto& other) { other.bytes = 1; }));
  CHECK(differs([](auto& other) { other.number = 13; }));
  ChunkDescriptor overflow = descriptor;
  overflow.found["a.bin"].size = UINT64_MAX;
  CHECK_FALSE(overflow.bytes());
  CHECK_FALSE(agrees(overflow, name));
}

TEST_CASE("one flipped bit anywhere is corrupt: what is fetched anew is fetched by what stands here") {
  const std::string text = encode_descriptor(example());
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      CHECK(error_of(damaged) == errc::corrupt_chunk);
    }
  }
}

TEST_CASE("random damage with a right check is noticed or harmless, never fatal") {
  json document = json::parse(encode_descriptor(example()));
  document.erase("check");
  const std::string text = document.dump();
  std::mt19937_64 random(5);
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = text;
    for (std::uint64_t edits = 1 + random() % 4; edits > 0; --edits) {
      damaged[random() % (damaged.size() - 1)] = static_cast<char>(random());
    }
    std::error_code ec;
    const ChunkDescriptor read = decode_descriptor(checked(damaged), ec);
    if (!ec && decode_descriptor(encode_descriptor(read), ec) != read && !ec) {
      // Redaction may shorten a URL that the damage made look like one with credentials; then it must be stable.
      const std::string again = encode_descriptor(read);
      CHECK(encode_descriptor(decode_descriptor(again, ec)) == again);
    }
  }
}

}  // namespace
