// SPDX-License-Identifier: BSL-1.0
//
// A downloader of one's own: it takes https URLs from a mirror on a disk, `DIR/host/path`. The other two policies are
// the defaults. What each member must promise is in garner/policies/downloader.hpp.
#include <garner/garner.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/temporary_directory.hpp"

class TreeDownloader {
 public:
  struct Transfer {};  // `start` returns when all is done, so there is never one to cancel

  explicit TreeDownloader(std::filesystem::path mirror) : mirror_(std::move(mirror)) {}

  std::error_code check_url(std::string_view url) const {
    if (!url.starts_with("https://")) return garner::errc::scheme_not_allowed;
    if (url.find("/..") != std::string_view::npos) return garner::errc::invalid_url;  // never out of the mirror
    return {};
  }

  Transfer start(const garner::FetchRequest& request, const std::shared_ptr<garner::FetchSink>& sink) {
    garner::FetchResult result;
    result.error = copy(request, *sink);
    sink->done(result);
    return {};
  }

  void cancel(const Transfer&) {}

 private:
  std::error_code copy(const garner::FetchRequest& request, garner::FetchSink& sink) const {
    const std::string path = mirror_.string() + request.url.substr(std::string_view("https:/").size());
    std::ifstream in(path, std::ios::binary);
    std::error_code error;
    const std::uint64_t length = std::filesystem::file_size(path, error);
    if (!in || error) return garner::errc::not_found;
    in.seekg(static_cast<std::streamoff>(request.offset));
    error = sink.begin(request.offset, {length, "", ""});
    for (std::vector<char> piece(256 * 1024); !error && in;) {
      in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
      error = sink.write(std::as_bytes(std::span(piece).first(static_cast<std::size_t>(in.gcount()))));
    }
    return in.bad() ? garner::errc::io_error : error;
  }

  std::filesystem::path mirror_;
};

static_assert(garner::diagnose_downloader<TreeDownloader>());  // says in a sentence what is missing

int main() {
  const support::TemporaryDirectory directory("garner-own-downloader");
  const std::filesystem::path mirror = directory.path() / "mirror";
  std::filesystem::create_directories(mirror / "lake.example");
  std::ofstream(mirror / "lake.example" / "blocks") << "from the mirror\n";

  garner::DataManager manager(garner::FilesystemStorage(directory.path() / "chunks"), TreeDownloader(mirror),
                              garner::AsioExecutor());
  const auto dataset = garner::DatasetId::from_name("lake");
  const auto id = garner::ChunkId::from_name("lake/0-9");
  manager.download_chunk({id, dataset, {0, 10}, {{"blocks", "https://lake.example/blocks"}}});
  manager.wait_converged(std::chrono::seconds(30));
  if (const auto pin = manager.find_chunk(dataset, 5)) {
    std::cout << std::ifstream(pin->path() / "blocks").rdbuf();
  }

  std::error_code error;
  manager.download_chunk({id, dataset, {0, 10}, {{"blocks", "https://lake.example/../../etc/passwd"}}}, error);
  std::cout << error.message() << '\n';
}
