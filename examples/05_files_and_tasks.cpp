// SPDX-License-Identifier: BSL-1.0
//
// Two parts that work without a data manager: files into a directory, and tasks with results. What stands between the
// two marks is in the README as it is here.
#include <garner/garner.hpp>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

// [readme]
void fetch_and_count(const std::filesystem::path& directory, const std::string& origin) {
  garner::AsioExecutor executor(2);

  garner::DownloadManager downloads{garner::CurlDownloader(), garner::ExecutorRef(executor)};
  const auto download = downloads.batch_download(
      {{"blocks.jsonl", garner::FileSource({origin + "/mirror/blocks.jsonl", origin + "/blocks.jsonl"}, 29, {})},
       {"logs.jsonl", origin + "/logs.jsonl"}},
      directory);  // returns at once; each file appears when it is whole
  download.wait();
  for (const garner::DownloadStatus& file : download.status()) {
    std::cout << file.name << ": " << (file.error ? file.error.message() : "fetched") << '\n';
  }

  garner::TaskPool pool{garner::ExecutorRef(executor), {.max_concurrent = 2}};
  auto lines = pool.execute([&] { return std::ifstream(directory / "blocks.jsonl"); }).then([](std::ifstream file) {
    int count = 0;
    for (std::string line; std::getline(file, line);) ++count;
    return count;
  });
  std::cout << lines.get() << " lines\n";  // or what one of the two threw
}
// [readme]

#include "support/loopback_origin.hpp"
#include "support/temporary_directory.hpp"

int main() {
  const support::LoopbackOrigin origin([](const support::Request& request) {
    if (request.target == "/blocks.jsonl") return support::Reply::of("{\"number\": 0}\n{\"number\": 99}\n");
    return support::Reply::of("no such file\n", 404);
  });
  const support::TemporaryDirectory directory("garner-files-and-tasks");
  fetch_and_count(directory.path() / "files", origin.url());
}
