// SPDX-License-Identifier: BSL-1.0
//
// Whom to ask, and how the answers look.
#include "commands.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>

#include "control_client.hpp"
#include "control_json.hpp"
#include "service.hpp"
#include "text.hpp"

namespace worker {

namespace {

/// The data directory itself, without any download.
class OfflineStore : public Service {
 public:
  using Service::Service;

  /// Returns when the chunk is gone from the disk too: nobody else will see to it.
  std::optional<std::string> remove(const std::string& chunk) override {
    auto id = Service::remove(chunk);
    if (id) manager().wait_converged(std::chrono::seconds(30));
    return id;
  }
};

std::unique_ptr<Backend> open_backend(const CommandOptions& options) {
  const auto control_file =
      options.control_file.empty() ? default_control_file(options.data_dir) : options.control_file;
  if (auto client = ControlClient::connect(control_file, options.data_dir)) return client;
  // The manager would make a store of whatever it is given, and a question must not do that.
  if (!std::filesystem::exists(options.data_dir / "FORMAT")) {
    throw std::runtime_error(fmt::format("{}: not a data directory", options.data_dir.string()));
  }
  try {
    auto store = std::make_unique<OfflineStore>(options.data_dir, garner::Options());
    if (!options.manifests.empty()) store->learn(load_manifests(options.manifests));
    return store;
  } catch (const garner::Error& error) {
    if (error.code() != garner::errc::directory_in_use) throw;
    throw std::runtime_error(fmt::format("{}: held by a process that {} does not lead to", options.data_dir.string(),
                                         control_file.string()));
  }
}

std::string name_of(const ChunkRow& row) { return row.name.empty() ? row.id : row.name; }

void print_json(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

int list_chunks(const CommandOptions& options) {
  const std::vector<ChunkRow> rows = open_backend(options)->list();
  if (options.json) {
    print_json(rows);
    return 0;
  }
  using Align = Table::Align;
  Table table({{"DATASET"},
               {"BLOCKS", Align::right},
               {"", Align::right},
               {"STATE"},
               {"FILES", Align::right},
               {"BYTES", Align::right},
               {"CHUNK"},
               {"LAST ERROR"}});
  std::uint64_t ready = 0;
  std::uint64_t bytes = 0;
  for (const ChunkRow& row : rows) {
    const bool is_ready = row.state == garner::to_string(garner::ChunkState::ready);
    table.add({row.dataset, std::to_string(row.begin), std::to_string(row.end), row.state, std::to_string(row.files),
               format_bytes(row.bytes), name_of(row),
               row.error.empty() ? "" : fmt::format("{}, {} so far", row.error, row.attempts)});
    ready += is_ready ? 1 : 0;
    bytes += is_ready ? row.bytes : 0;
  }
  if (!table.empty()) fmt::print("{}\n", table.to_string());
  fmt::print("{}, {} ready with {}\n", format_plural(rows.size(), "chunk"), format_count(ready), format_bytes(bytes));
  return 0;
}

int find_chunk(const CommandOptions& options, const std::string& dataset, std::uint64_t block) {
  const auto found = open_backend(options)->find(dataset, block);
  if (!found) {
    fmt::print(stderr, "no chunk of {} serves block {}\n", dataset, block);
    return 1;
  }
  if (options.json) {
    print_json(*found);
    return 0;
  }
  fmt::print("chunk   {}\n", name_of(found->chunk));
  if (!found->chunk.name.empty()) fmt::print("id      {}\n", found->chunk.id);
  fmt::print("blocks  [{}, {})\npath    {}\n", found->chunk.begin, found->chunk.end, found->path);
  for (const FileRow& file : found->files)
    fmt::print("file    {}  {}  {}\n", file.name, format_bytes(file.bytes), file.digest);
  return 0;
}

int delete_chunk(const CommandOptions& options, const std::string& chunk) {
  const auto id = open_backend(options)->remove(chunk);
  if (!id) {
    fmt::print(stderr, "no chunk {}\n", chunk);
    return 1;
  }
  fmt::print("deleted {}\n", *id);
  return 0;
}

}  // namespace worker
