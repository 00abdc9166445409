// SPDX-License-Identifier: BSL-1.0
//
// Fetches from an nginx on this link, whatever it is like, with timeouts that are shorter than a transfer takes. The
// link is made by lossy_link.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "garner/garner.hpp"
#include "support/nginx.hpp"
#include "support/temp_dir.hpp"

namespace {

using garner::test::Nginx;
using garner::test::TempDir;
using Clock = std::chrono::steady_clock;

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// That this namespace's loopback interface has received.
std::uint64_t bytes_on_link() {
  std::istringstream interfaces(read("/proc/self/net/dev"));
  for (std::string line; std::getline(interfaces, line);) {
    const std::size_t name = line.find("lo:");
    if (name != std::string::npos) return std::stoull(line.substr(name + 3));
  }
  throw std::runtime_error("no loopback interface");
}

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

void fetch() {
  constexpr std::size_t chunks = 5;
  constexpr std::size_t bytes_each = 1'000'000;
  const TempDir lake;
  const TempDir store;
  garner::core::Random random(1);
  for (std::size_t i = 0; i < chunks; ++i) {
    std::string bytes(bytes_each, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.next());
    std::ofstream(lake / std::to_string(i), std::ios::binary) << bytes;
  }
  const Nginx nginx(lake.path());

  garner::CurlSettings settings;
  settings.connect_timeout = std::chrono::seconds(2);
  settings.low_speed_time = std::chrono::seconds(2);
  garner::Options options;
  options.min_backoff = std::chrono::milliseconds(10);
  options.max_backoff = std::chrono::milliseconds(100);
  garner::DataManager manager(garner::FilesystemStorage(store.path()), garner::CurlDownloader(settings),
                              garner::AsioExecutor(), options);
  const auto dataset = garner::DatasetId::from_name("lossy");
  const std::uint64_t before = bytes_on_link();
  const auto began = Clock::now();
  for (std::size_t i = 0; i < chunks; ++i) {
    const std::string name = std::to_string(i);
    manager.download_chunk(
        {garner::ChunkId::from_name(name), dataset, {i, i + 1}, {{"f", nginx.origin() + "/" + name}}});
  }
  const bool converged = manager.wait_converged(std::chrono::seconds(60));
  const std::chrono::duration<double> took = Clock::now() - began;
  const garner::Status status = manager.status();
  const std::uint64_t moved = bytes_on_link() - before;
  std::cout << chunks * bytes_each << " bytes in " << took.count() << " s, " << status.attempts_failed
            << " failed attempts, " << status.bytes_received << " bytes received, " << status.bytes_wasted
            << " thrown away, " << moved << " bytes on the link\n";

  require(converged, "not all was fetched");
  require(status.attempts_failed > 0, "no connection was reset");
  for (std::size_t i = 0; i < chunks; ++i) {
    const auto pin = manager.find_chunk(dataset, i);
    require(pin && read(pin->path() / "f") == read(lake / std::to_string(i)), "a chunk has other bytes");
  }
  // All transfers share the link, so each takes most of the time.
  require(took > 2 * settings.low_speed_time, "the link was too fast to show a limit of the whole");
  require(status.bytes_wasted == 0 && status.bytes_received == chunks * bytes_each, "bytes were fetched twice");
  require(moved < 2 * chunks * bytes_each, "much more went over the link than was asked for");
}

}  // namespace

int main() {
  try {
    fetch();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
