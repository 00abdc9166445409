// SPDX-License-Identifier: BSL-1.0
//
// garner's side of the download tables: a manager with all defaults, but for its durability, that is told to hold what
// a list names, and ends when it does. With --idle it holds nothing, to show what a manager needs for itself.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "garner/garner.hpp"
#include "measuring.hpp"

namespace {

std::vector<garner::DataChunk> read_chunks(const std::string& list, const std::string& origin) {
  std::map<std::string, garner::DataChunk> chunks;
  for (const bench::ListedFile& file : bench::read_list(list)) {
    const std::filesystem::path path = file.path;
    const std::string name = path.parent_path().string();
    const auto [at, is_new] = chunks.try_emplace(name);
    garner::DataChunk& chunk = at->second;
    if (is_new) {
      chunk.id = garner::ChunkId::from_name(name);
      chunk.dataset_id = garner::DatasetId::from_name("bench");
      chunk.block_range = {100 * chunks.size(), 100 * chunks.size() + 100};
    }
    garner::FileSource source(origin + "/" + file.path);
    source.size = file.size;
    chunk.files.emplace(path.filename().string(), std::move(source));
  }
  std::vector<garner::DataChunk> out;
  out.reserve(chunks.size());
  for (auto& [name, chunk] : chunks) out.push_back(std::move(chunk));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 4) bench::fail("usage: bench_fetch PORT LIST DIRECTORY relaxed|durable|idle");
  const std::string& mode = arguments[3];
  garner::Options options;
  options.durability = mode == "relaxed" ? garner::Durability::relaxed : garner::Durability::full;

  const auto begin = bench::Clock::now();
  garner::DataManager<> manager(arguments[2], options);
  if (mode != "idle") manager.set_assignment(read_chunks(arguments[1], "http://127.0.0.1:" + arguments[0]));
  if (!manager.wait_converged(std::chrono::minutes(10))) bench::fail("not converged after ten minutes");
  bench::tell("converged", bench::seconds(bench::Clock::now() - begin));
  bench::tell("peak", static_cast<double>(bench::peak_bytes()));
}
