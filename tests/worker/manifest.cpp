// SPDX-License-Identifier: BSL-1.0
//
// What the example worker reads as a manifest, and what it says about one that is bad.
#include "worker/manifest.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using worker::Manifest;
using worker::ManifestError;

namespace {

Manifest parse(const std::string& text, const worker::UrlCheck& check_url = {}) {
  std::istringstream in(text);
  return worker::parse_manifest(in, "m.jsonl", check_url);
}

std::vector<std::string> problems_of(const std::string& text, const worker::UrlCheck& check_url = {}) {
  try {
    parse(text, check_url);
  } catch (const ManifestError& error) {
    return error.problems();
  }
  return {};
}

std::string only_problem_of(const std::string& text) {
  const auto problems = problems_of(text);
  REQUIRE(problems.size() == 1);
  return problems.front();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string chunk_line(const std::string& id, const std::string& url = "https://lake.example/a") {
  return R"({"dataset":"lake","id":")" + id + R"(","blocks":[0,10],"files":{"a":{"urls":[")" + url + R"("]}}})";
}

std::string version_line(int number, const std::string& deleted, const std::vector<std::string>& chunks) {
  return fmt::format(R"({{"version":{},"delete":[{}],"download":[{}]}})", number, deleted, fmt::join(chunks, ",")) +
         "\n";
}

std::string with_file(const std::string& file) {
  return R"({"dataset":"lake","id":"x","blocks":[0,10],"files":)" + file + "}";
}

std::vector<std::string> names_of(const std::vector<worker::NamedChunk>& chunks) {
  std::vector<std::string> names;
  names.reserve(chunks.size());
  for (const auto& chunk : chunks) names.push_back(chunk.name);
  return names;
}

std::filesystem::path data(const std::string& name) { return std::filesystem::path(GARNER_TEST_DATA_DIR) / name; }

Manifest load(const std::vector<std::string>& names) {
  std::vector<std::filesystem::path> files;
  files.reserve(names.size());
  for (const std::string& name : names) files.push_back(data(name));
  return worker::load_manifests(files);
}

}  // namespace

TEST_CASE("a line becomes a description with the names it was made from") {
  const std::string digest(64, 'b');
  const Manifest manifest = parse(R"({"dataset":"s3://base","id":"base/0","blocks":[5,10],"files":{)"
                                  R"("b.parquet":{"urls":["https://one/b","https://two/b"],"size":7,)"
                                  R"("digest":"sha256:)" +
                                  digest + "\"}}}\n");
  REQUIRE(manifest.versions.size() == 1);
  CHECK_FALSE(manifest.versioned);
  CHECK(manifest.warnings.empty());
  const worker::NamedChunk& chunk = manifest.versions.front().downloaded.at(0);
  CHECK(chunk.name == "base/0");
  CHECK(chunk.dataset == "s3://base");
  CHECK(chunk.description.id == garner::ChunkId::from_name("base/0"));
  CHECK(chunk.description.dataset_id == garner::DatasetId::from_name("s3://base"));
  CHECK(chunk.description.block_range == garner::BlockRange{5, 10});
  const garner::FileSource& file = chunk.description.files.at("b.parquet");
  CHECK(file.urls == std::vector<std::string>{"https://one/b", "https://two/b"});
  CHECK(file.size == 7);
  CHECK(file.digest == garner::Digest::parse("sha256:" + digest));
}

TEST_CASE("64 hexadecimal digits are an id themselves, and 63 are a name") {
  const std::string hex(64, 'a');
  CHECK(worker::chunk_id_of(hex) == garner::ChunkId::from_hex(hex));
  CHECK(worker::chunk_id_of(hex.substr(1)) == garner::ChunkId::from_name(hex.substr(1)));
}

TEST_CASE("empty lines and carriage returns are nothing") {
  CHECK(parse(fmt::format("\n{}\r\n  \n", chunk_line("x"))).assignment().size() == 1);
}

TEST_CASE("the published manifests are read whole") {
  CHECK(load({"sqd-chunks.jsonl"}).assignment().size() == 1050);
  CHECK(load({"era1-mainnet.jsonl"}).assignment().size() == 1897);
  CHECK(load({"wikipedia-dumps.jsonl"}).assignment().size() == 250);
  CHECK(load({"sqd-chunks.jsonl", "wikipedia-dumps.jsonl"}).assignment().size() == 1300);
  const Manifest history = load({"erigon-mainnet-history.jsonl"});
  CHECK(history.versioned);
  CHECK(history.versions.size() == 115);
  CHECK(history.assignment(0).size() == 21);
  CHECK(history.assignment().size() == 76);
  CHECK(history.warnings.empty());
}

TEST_CASE("versions are applied in order: first what is deleted, then what is downloaded") {
  const Manifest manifest =
      parse(version_line(1, "", {chunk_line("a"), chunk_line("b")}) + version_line(2, R"("a")", {chunk_line("c")}) +
            version_line(5, R"("b","c")", {chunk_line("c", "https://lake.example/new"), chunk_line("a")}));
  CHECK(names_of(manifest.assignment(0)) == std::vector<std::string>{"a", "b"});
  CHECK(names_of(manifest.assignment(1)) == std::vector<std::string>{"b", "c"});
  const auto last = manifest.assignment(2);
  CHECK(names_of(last) == std::vector<std::string>{"c", "a"});
  CHECK(last[0].description.files.at("a").urls.front() == "https://lake.example/new");
}

TEST_CASE("a bad line is named by file, number and what is wrong with it") {
  const std::string good = chunk_line("good") + "\n";
  CHECK(contains(only_problem_of(good + "{\"dataset\":"), "m.jsonl:2: not JSON, column "));
  CHECK(contains(only_problem_of(good + "{\"\x7f\xc2\x9b"), "\"\\x7f\\xc2\\x9b"));
  CHECK(contains(only_problem_of("1e999"), "m.jsonl:1: not JSON, number overflow"));
  CHECK(contains(only_problem_of("[]"), "m.jsonl:1: not a JSON object"));
  CHECK(contains(only_problem_of("{}"), "'dataset' is missing"));
  CHECK(contains(only_problem_of(R"({"dataset":"","id":"x"})"), "'dataset' is empty"));
  CHECK(contains(only_problem_of(R"({"dataset":"d","id":7})"), "'id' is not text"));
  CHECK(contains(only_problem_of(R"({"dataset":"d\u001b[2J","id":"x"})"), "control characters"));
  CHECK(contains(only_problem_of(R"({"dataset":"d","id":"x","blocks":[0]})"), "'blocks' is not [begin, end]"));
  CHECK(contains(only_problem_of(R"({"dataset":"d","id":"x","blocks":[-1,5]})"), "'blocks' is not a whole number"));
  CHECK(contains(only_problem_of(R"({"dataset":"d","id":"x","blocks":[9,5],"files":{"a":{"urls":["http://h/"]}}})"),
                 "chunk 'x', blocks [9, 5): the block range is empty or reversed"));
  CHECK(contains(only_problem_of(with_file("{}")), "chunk 'x': the chunk has no files"));
  CHECK(contains(only_problem_of(with_file(R"({"../a":{"urls":["http://h/"]}})")), "file '../a': not a portable"));
  CHECK(contains(only_problem_of(with_file(R"({"a":{"urls":[]}})")), "file 'a': the file has no URL"));
  CHECK(contains(only_problem_of(with_file(R"({"a":{"urls":["http://h/"],"size":-1}})")), "'size' is not a whole"));
  CHECK(contains(only_problem_of(with_file(R"({"a":{"urls":["http://h/"],"size":1.5}})")), "'size' is not a whole"));
  CHECK(
      contains(only_problem_of(with_file(R"({"a":{"urls":["http://h/"],"digest":"sha256:00"}})")), "'digest': not a"));
  CHECK(contains(only_problem_of(good + good), "m.jsonl:2: chunk 'good' is there twice (first in m.jsonl:1)"));
}

TEST_CASE("a URL that the downloader would not take is a bad line, told without its secrets") {
  const auto problems = problems_of(chunk_line("x", "ftp://me:secret@lake.example/a"), [](std::string_view url) {
    return url.starts_with("http") ? std::error_code() : garner::make_error_code(garner::errc::scheme_not_allowed);
  });
  REQUIRE(problems.size() == 1);
  CHECK(contains(problems[0], "'ftp://lake.example/a': the URL's scheme is not allowed"));
}

TEST_CASE("all bad lines are found, and the first ten are shown") {
  std::string text;
  for (int i = 0; i < 25; ++i) text += fmt::format("nonsense\n{}\n", chunk_line(std::to_string(i)));
  try {
    parse(text);
    FAIL("not refused");
  } catch (const ManifestError& error) {
    CHECK(error.problems().size() == 25);
    const std::string shown = error.what();
    CHECK(std::count(shown.begin(), shown.end(), '\n') == 10);
    CHECK(shown.ends_with("and 15 more"));
  }
}

TEST_CASE("versions and chunks do not mix, and versions rise") {
  const std::string version = version_line(3, "", {});
  CHECK(contains(only_problem_of(version + chunk_line("x")), "m.jsonl:2: a chunk among versions"));
  CHECK(contains(only_problem_of(chunk_line("x") + "\n" + version), "m.jsonl:2: a version among chunks"));
  CHECK(contains(only_problem_of(version + version), "version 3 after version 3"));
  const std::string twice = version_line(1, "", {chunk_line("x"), chunk_line("x")});
  CHECK(contains(only_problem_of(twice), "chunk 'x' is there twice"));
}

TEST_CASE("an empty manifest and a missing file are refused, as an order to delete all they would be dear") {
  CHECK(only_problem_of("\n") == "the manifest is empty");
  CHECK_THROWS_AS(load({"no-such-file.jsonl"}), ManifestError);
  CHECK_THROWS_AS(load({"."}), ManifestError);
}

TEST_CASE("keys that are not known are told once each") {
  const Manifest manifest = parse(with_file(R"({"a":{"urls":["http://h/"],"digset":"x"}})") + "\n" +
                                  R"({"dataset":"d","id":"y","blocks":[0,1],"more":1,)"
                                  R"("files":{"a":{"urls":["http://h/"],"digset":"x"}}})");
  CHECK(manifest.warnings.size() == 2);
  CHECK(manifest.warnings.at(0) == "m.jsonl:1: 'digset' is not understood and not looked at");
}

TEST_CASE("another origin is asked by the path of the URL, without its query") {
  CHECK(worker::url_path("https://host/a/b?c=/d#e") == "/a/b");
  CHECK(worker::url_path("https://host") == "/");
  CHECK(worker::url_path("https://host?x=/y") == "/");
  Manifest manifest = parse(with_file(R"({"a":{"urls":["https://one/p/a?sig=1","https://two/p/a","https://two/q"]}})"));
  worker::redirect(manifest, "http://127.0.0.1:80/mirror/");
  CHECK(manifest.assignment().at(0).description.files.at("a").urls ==
        std::vector<std::string>{"http://127.0.0.1:80/mirror/p/a", "http://127.0.0.1:80/mirror/q"});
}
