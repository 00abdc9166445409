// SPDX-License-Identifier: BSL-1.0
//
// The example worker's embedded origin: what it serves, and how it misbehaves.
#include "worker/origin.hpp"

#include <doctest/doctest.h>
#include <httplib.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/loopback_origin.hpp"
#include "support/temporary_directory.hpp"

namespace {

worker::Manifest manifest_of(std::size_t files, std::uint64_t size) {
  std::string text;
  for (std::size_t i = 0; i < files; ++i) {
    const std::string name = std::to_string(i);
    text.append(R"({"dataset":"lake","id":")").append(name);
    text.append(R"(","blocks":[0,10],"files":{"a":{"urls":["https://lake.example/)").append(name);
    text.append(R"("],"size":)").append(std::to_string(size)).append("}}}\n");
  }
  std::istringstream in(text);
  return worker::parse_manifest(in, "test");
}

garner::FileSource& file_of(worker::Manifest& manifest, std::size_t chunk) {
  return manifest.versions.front().downloaded.at(chunk).description.files.at("a");
}

std::string bytes_of(const worker::Content& content, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '\0');
  content.fill(offset, bytes);
  return bytes;
}

garner::Digest digest_of(const std::string& bytes) {
  const support::TemporaryDirectory directory("garner-origin-test");
  const auto path = directory.path() / "file";
  std::ofstream(path, std::ios::binary) << bytes;
  std::uint64_t size = 0;
  const auto digest = worker::digest_file(path, size);
  REQUIRE(digest.has_value());
  CHECK(size == bytes.size());
  return *digest;
}

}  // namespace

TEST_CASE("content is the same from each offset on") {
  const worker::Content content{7, 1000};
  const std::string whole = bytes_of(content, 0, 1000);
  for (const std::size_t offset : {0U, 1U, 7U, 8U, 9U, 500U, 993U, 999U, 1000U}) {
    for (const std::size_t count : {0U, 1U, 3U, 8U, 17U}) {
      if (offset + count > whole.size()) continue;
      CHECK(bytes_of(content, offset, count) == whole.substr(offset, count));
    }
  }
  CHECK(bytes_of({8, 1000}, 0, 1000) != whole);
  CHECK(std::set<char>(whole.begin(), whole.end()).size() > 200);
}

TEST_CASE("the digest of a content is that of its bytes") {
  for (const std::uint64_t size : {0U, 1U, 1000U, 300000U}) {
    const worker::Content content{size, size};
    CHECK(content.digest() == digest_of(bytes_of(content, 0, static_cast<std::size_t>(size))));
  }
  CHECK(worker::Content{}.digest().to_string() ==
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_CASE("a manifest is rewritten to the origin, with scaled sizes and digests of what is served") {
  worker::Manifest manifest = manifest_of(3, 6400);
  const worker::Origin origin(manifest, {.scale = 64, .seed = 5});
  CHECK(origin.files() == 3);
  CHECK(origin.bytes() == 300);
  httplib::Client client(origin.url());
  for (std::size_t i = 0; i < 3; ++i) {
    const garner::FileSource& file = file_of(manifest, i);
    REQUIRE(file.urls == std::vector<std::string>{origin.url() + "/" + std::to_string(i)});
    CHECK(file.size == 100);
    const auto reply = client.Get("/" + std::to_string(i));
    REQUIRE(reply);
    CHECK(reply->status == 200);
    CHECK(reply->body.size() == 100);
    CHECK(file.digest == digest_of(reply->body));
  }
  CHECK(client.Get("/3")->status == 404);
  CHECK(origin.requests() == 4);
}

TEST_CASE("the same seed serves the same bytes, another one others") {
  worker::Manifest one = manifest_of(1, 6400);
  worker::Manifest same = one;
  worker::Manifest other = one;
  const worker::Origin a(one, {.seed = 1});
  const worker::Origin b(same, {.seed = 1});
  const worker::Origin c(other, {.seed = 2});
  CHECK(file_of(one, 0).digest == file_of(same, 0).digest);
  CHECK(file_of(one, 0).digest != file_of(other, 0).digest);
}

TEST_CASE("a file without a size gets one from the seed, and an empty one stays empty") {
  worker::Manifest manifest = manifest_of(2, 0);
  file_of(manifest, 1).size.reset();
  const worker::Origin origin(manifest, {.scale = 1024});
  CHECK(file_of(manifest, 0).size == 0);
  CHECK(file_of(manifest, 1).size >= 256);
  CHECK(file_of(manifest, 1).size <= 256 * 1024);
  CHECK(httplib::Client(origin.url()).Get("/0")->status == 200);
}

TEST_CASE("ranges are served with If-Range, and the whole where the validator is another") {
  worker::Manifest manifest = manifest_of(1, 100);
  const worker::Origin origin(manifest, {.scale = 1});
  httplib::Client client(origin.url());
  const auto whole = client.Get("/0");
  const std::string etag = whole->get_header_value("ETag");
  CHECK(etag.size() > 2);

  const auto rest = client.Get("/0", {{"Range", "bytes=40-"}, {"If-Range", etag}});
  CHECK(rest->status == 206);
  CHECK(rest->get_header_value("Content-Range") == "bytes 40-99/100");
  CHECK(rest->body == whole->body.substr(40));

  CHECK(client.Get("/0", {{"Range", "bytes=10-19"}})->body == whole->body.substr(10, 10));
  CHECK(client.Get("/0", {{"Range", "bytes=90-1000"}})->body == whole->body.substr(90));
  const auto changed = client.Get("/0", {{"Range", "bytes=40-"}, {"If-Range", "\"other\""}});
  CHECK(changed->status == 200);
  CHECK(changed->body == whole->body);
  const auto beyond = client.Get("/0", {{"Range", "bytes=100-"}});
  CHECK(beyond->status == 416);
  CHECK(beyond->get_header_value("Content-Range") == "bytes */100");

  const auto head = client.Head("/0");
  CHECK(head->status == 200);
  CHECK(head->get_header_value("Content-Length") == "100");
  CHECK(client.Post("/0")->status == 405);
}

TEST_CASE("a tenth of the files misbehaves, each kind of fault among them, and all are served in the end") {
  worker::Manifest manifest = manifest_of(400, 64 * 1024);
  const worker::Origin origin(manifest, {.scale = 1, .faults = true});
  httplib::Client client(origin.url());
  client.set_keep_alive(true);
  std::size_t with_bad_mirror = 0;
  for (std::size_t i = 0; i < 400; ++i) {
    const garner::FileSource& file = file_of(manifest, i);
    for (const std::string& url : file.urls) {
      const std::string path = worker::url_path(url);
      const auto wanted = [&] {
        const auto reply = client.Get(path);
        return reply && reply->status == 200 && reply->body.size() == file.size &&
               digest_of(reply->body) == *file.digest;
      };
      if (url != file.urls.back()) {
        ++with_bad_mirror;
        CHECK_FALSE(wanted());
        continue;
      }
      bool served = false;
      for (int attempt = 0; attempt < 3 && !served; ++attempt) served = wanted();
      CHECK(served);
    }
  }
  for (std::size_t kind = 1; kind < worker::fault_kinds; ++kind) {
    CHECK(origin.faults(static_cast<worker::Fault>(kind)) > 0);
  }
  CHECK(origin.faults(worker::Fault::none) == 0);
  CHECK(origin.faults(worker::Fault::wrong_bytes) == with_bad_mirror);
}

TEST_CASE("a server keeps to its rate") {
  const support::LoopbackOrigin origin(
      [](const support::Request&) { return support::Reply::of(std::string(400000, 'x')); }, 1, 4e6);
  httplib::Client client(origin.url());
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 2; ++i) CHECK(client.Get("/")->body.size() == 400000);
  // 0.2 s worth of bytes, of which the last piece goes out before its time is up.
  CHECK(std::chrono::steady_clock::now() - start > std::chrono::milliseconds(120));
}
