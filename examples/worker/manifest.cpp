// SPDX-License-Identifier: BSL-1.0
//
// The manifest's parser. One bad line is one problem; all lines are read before any is reported.
#include "manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <istream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace worker {

namespace {

using nlohmann::json;

constexpr std::size_t shown_problems = 10;

/// What is wrong with the line that is being read.
class BadLine : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw BadLine(fmt::format(text, std::forward<Args>(args)...));
}

const json& member(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) fail("'{}' is missing", key);
  return *found;
}

std::string name_of(const json& value, std::string_view what) {
  if (!value.is_string()) fail("'{}' is not text", what);
  const auto& name = value.get_ref<const std::string&>();
  if (name.empty()) fail("'{}' is empty", what);
  // Names are printed: what could move a terminal's cursor is no name.
  if (std::any_of(name.begin(), name.end(), [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; })) {
    fail("'{}' has control characters in it", what);
  }
  return name;
}

std::uint64_t number_of(const json& value, std::string_view what) {
  if (!value.is_number_unsigned()) fail("'{}' is not a whole number from 0 to 2^64-1", what);
  return value.get<std::uint64_t>();
}

garner::FileSource parse_file(const json& value, const std::string& name, const UrlCheck& check_url) {
  const std::string where = fmt::format("file '{}'", garner::detail::printable(name));
  if (!value.is_object()) fail("{} is not an object", where);
  garner::FileSource source;
  const json& urls = member(value, "urls");
  if (!urls.is_array()) fail("{}: 'urls' is not an array", where);
  for (const json& url : urls) {
    if (!url.is_string()) fail("{}: a URL is not text", where);
    source.urls.push_back(url.get<std::string>());
    const std::error_code error = check_url ? check_url(source.urls.back()) : std::error_code();
    if (error) {
      fail("{}: '{}': {}", where, garner::detail::printable(garner::redact_url(source.urls.back())), error.message());
    }
  }
  if (const auto size = value.find("size"); size != value.end()) source.size = number_of(*size, "size");
  if (const auto digest = value.find("digest"); digest != value.end()) {
    if (!digest->is_string()) fail("{}: 'digest' is not text", where);
    source.digest = garner::Digest::try_parse(digest->get_ref<const std::string&>());
    if (!source.digest) fail("{}: 'digest': {}", where, make_error_code(garner::errc::invalid_digest).message());
  }
  return source;
}

NamedChunk parse_chunk(const json& value, const UrlCheck& check_url) {
  if (!value.is_object()) fail("a chunk is not an object");
  NamedChunk chunk;
  chunk.dataset = name_of(member(value, "dataset"), "dataset");
  chunk.name = name_of(member(value, "id"), "id");
  chunk.description.id = chunk_id_of(chunk.name);
  chunk.description.dataset_id = dataset_id_of(chunk.dataset);
  const json& blocks = member(value, "blocks");
  if (!blocks.is_array() || blocks.size() != 2) fail("'blocks' is not [begin, end]");
  chunk.description.block_range = {number_of(blocks[0], "blocks"), number_of(blocks[1], "blocks")};
  const json& files = member(value, "files");
  if (!files.is_object()) fail("'files' is not an object");
  for (const auto& [name, file] : files.items()) {
    chunk.description.files.emplace(name, parse_file(file, name, check_url));
  }
  if (const auto invalid = garner::validate(chunk.description)) {
    // The subject begins with the id in hexadecimal; the line's number and the name say more.
    const std::size_t comma = invalid->subject.find(", ");
    fail("chunk '{}'{}: {}", chunk.name, comma == std::string::npos ? "" : invalid->subject.substr(comma),
         invalid->code.message());
  }
  return chunk;
}

Version parse_version(const json& value, const UrlCheck& check_url) {
  Version version;
  version.number = number_of(member(value, "version"), "version");
  std::set<std::string> names;
  if (const auto deleted = value.find("delete"); deleted != value.end()) {
    if (!deleted->is_array()) fail("'delete' is not an array");
    for (const json& name : *deleted) version.deleted.push_back(name_of(name, "delete"));
  }
  if (const auto downloads = value.find("download"); downloads != value.end()) {
    if (!downloads->is_array()) fail("'download' is not an array");
    for (const json& chunk : *downloads) {
      version.downloaded.push_back(parse_chunk(chunk, check_url));
      const std::string& name = version.downloaded.back().name;
      if (!names.insert(name).second) fail("chunk '{}' is there twice", name);
    }
  }
  return version;
}

json parse_json(const std::string& line) {
  try {
    json value = json::parse(line);
    if (!value.is_object()) fail("not a JSON object");
    return value;
  } catch (const json::exception& error) {  // a number that no double can hold is no parse_error
    std::string text = error.what();        // "[json.exception.parse_error.101] parse error at line 1, column 7: …"
    text.erase(0, std::min(text.find("] "), text.size() - 2) + 2);
    if (const std::size_t column = text.find("column "); column != std::string::npos) text.erase(0, column);
    fail("not JSON, {}", garner::detail::printable(text));  // it quotes the line
  }
}

/// Reads lines into one manifest, which may come from several files.
class Reader {
 public:
  explicit Reader(const UrlCheck& check_url) : check_url_(check_url) {}

  void read(std::istream& in, const std::string& source) {
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const std::string where = fmt::format("{}:{}", source, number);
      try {
        add(parse_json(line), where);
      } catch (const BadLine& problem) {
        problems_.push_back(fmt::format("{}: {}", where, problem.what()));
      }
    }
    if (in.bad()) problems_.push_back(fmt::format("{}: cannot be read", source));
  }

  void add_problem(std::string problem) { problems_.push_back(std::move(problem)); }

  Manifest finish() {
    // A file that was cut to nothing must not pass for an order to drop all that is held.
    if (problems_.empty() && manifest_.versions.empty()) add_problem("the manifest is empty");
    if (!problems_.empty()) throw ManifestError(std::move(problems_));
    return std::move(manifest_);
  }

 private:
  void add(const json& value, const std::string& where) {
    const bool versioned = value.contains("version");
    if (first_line_.empty()) {
      first_line_ = where;
      manifest_.versioned = versioned;
    } else if (versioned != manifest_.versioned) {
      fail("a {} among {} ({} is one)", versioned ? "version" : "chunk", versioned ? "chunks" : "versions",
           first_line_);
    }
    warn_of_unknown_keys(value, where);
    if (versioned) {
      Version version = parse_version(value, check_url_);
      if (!manifest_.versions.empty() && version.number <= manifest_.versions.back().number) {
        fail("version {} after version {}", version.number, manifest_.versions.back().number);
      }
      manifest_.versions.push_back(std::move(version));
      return;
    }
    NamedChunk chunk = parse_chunk(value, check_url_);
    const auto [first, is_new] = lines_.emplace(chunk.description.id, where);
    if (!is_new) fail("chunk '{}' is there twice (first in {})", chunk.name, first->second);
    if (manifest_.versions.empty()) manifest_.versions.emplace_back();
    manifest_.versions.front().downloaded.push_back(std::move(chunk));
  }

  /// A misspelt "digest" must not pass for a file that has none without a word.
  void warn_of_unknown_keys(const json& line, const std::string& where) {
    const auto check = [&](const json& object, std::initializer_list<std::string_view> known) {
      if (!object.is_object()) return;
      for (const auto& [key, unused] : object.items()) {
        if (std::find(known.begin(), known.end(), key) != known.end() || !warned_.insert(key).second) continue;
        manifest_.warnings.push_back(
            fmt::format("{}: '{}' is not understood and not looked at", where, garner::detail::printable(key)));
      }
    };
    const auto check_chunk = [&](const json& chunk) {
      check(chunk, {"dataset", "id", "blocks", "files"});
      if (!chunk.is_object()) return;
      const auto files = chunk.find("files");
      if (files == chunk.end() || !files->is_object()) return;
      for (const json& file : *files) check(file, {"urls", "size", "digest"});
    };
    if (!line.contains("version")) return check_chunk(line);
    check(line, {"version", "delete", "download"});
    if (const auto chunks = line.find("download"); chunks != line.end() && chunks->is_array()) {
      for (const json& chunk : *chunks) check_chunk(chunk);
    }
  }

  const UrlCheck& check_url_;
  Manifest manifest_;
  std::vector<std::string> problems_;
  std::string first_line_;
  std::unordered_map<garner::ChunkId, std::string> lines_;  ///< where each chunk was read
  std::set<std::string> warned_;
};

}  // namespace

garner::ChunkId chunk_id_of(std::string_view name) {
  if (const auto id = garner::ChunkId::try_from_hex(name)) return *id;
  return garner::ChunkId::from_name(name);
}

garner::DatasetId dataset_id_of(std::string_view name) { return garner::DatasetId::from_name(name); }

std::vector<NamedChunk> Manifest::assignment(std::size_t index) const {
  // The last version that touches a chunk decides, so walk back and take each chunk once.
  std::unordered_set<garner::ChunkId> decided;
  std::vector<NamedChunk> out;
  for (std::size_t i = index + 1; i-- > 0;) {
    const Version& version = versions.at(i);
    for (std::size_t j = version.downloaded.size(); j-- > 0;) {
      const NamedChunk& chunk = version.downloaded[j];
      if (decided.insert(chunk.description.id).second) out.push_back(chunk);
    }
    for (const std::string& name : version.deleted) decided.insert(chunk_id_of(name));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

ManifestError::ManifestError(std::vector<std::string> problems)
    : std::runtime_error([&problems] {
        std::string text;
        for (std::size_t i = 0; i < std::min(problems.size(), shown_problems); ++i) {
          text += (i > 0 ? "\n" : "") + problems[i];
        }
        if (problems.size() > shown_problems) text += fmt::format("\nand {} more", problems.size() - shown_problems);
        return text;
      }()),
      problems_(std::move(problems)) {}

Manifest parse_manifest(std::istream& in, const std::string& source, const UrlCheck& check_url) {
  Reader reader(check_url);
  reader.read(in, source);
  return reader.finish();
}

Manifest load_manifests(std::span<const std::filesystem::path> files, const UrlCheck& check_url) {
  Reader reader(check_url);
  for (const std::filesystem::path& file : files) {
    std::ifstream in(file);
    if (in && !std::filesystem::is_directory(file)) {
      reader.read(in, file.string());
    } else {
      reader.add_problem(fmt::format("{}: cannot be opened", file.string()));
    }
  }
  return reader.finish();
}

std::string url_path(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const std::size_t authority = scheme == std::string_view::npos ? 0 : scheme + 3;
  const std::size_t end = std::min(url.find_first_of("?#", authority), url.size());
  const std::size_t path = url.substr(0, end).find('/', authority);
  return path == std::string_view::npos ? "/" : std::string(url.substr(path, end - path));
}

void redirect(Manifest& manifest, std::string_view base_url) {
  while (base_url.ends_with('/')) base_url.remove_suffix(1);
  for (Version& version : manifest.versions) {
    for (NamedChunk& chunk : version.downloaded) {
      for (auto& [name, source] : chunk.description.files) {
        std::vector<std::string> urls;
        for (const std::string& url : source.urls) {
          std::string there = std::string(base_url) + url_path(url);
          if (std::find(urls.begin(), urls.end(), there) == urls.end()) urls.push_back(std::move(there));
        }
        source.urls = std::move(urls);
      }
    }
  }
}

}  // namespace worker
