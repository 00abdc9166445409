// SPDX-License-Identifier: BSL-1.0
//
// Ids to names and back, around the data manager.
#include "service.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <system_error>
#include <tuple>
#include <unordered_set>
#include <utility>

namespace worker {

namespace {

constexpr garner::BlockRange all_blocks{0, std::numeric_limits<garner::BlockNumber>::max()};

std::vector<garner::DataChunk> descriptions_of(std::span<const NamedChunk> chunks) {
  std::vector<garner::DataChunk> out;
  out.reserve(chunks.size());
  for (const NamedChunk& chunk : chunks) out.push_back(chunk.description);
  return out;
}

}  // namespace

Service::Service(std::filesystem::path data_dir, const garner::Options& options)
    : data_dir_(std::move(data_dir)), manager_(std::make_unique<Manager>(data_dir_, options)) {
  subscription_ = manager_->subscribe([failures = failures_](const garner::Event& event) { failures->observe(event); });
}

void Service::learn(const Manifest& manifest) {
  const std::lock_guard lock(mutex_);
  for (const Version& version : manifest.versions) {
    for (const NamedChunk& chunk : version.downloaded) learn(chunk, false);
  }
}

void Service::assign(std::span<const NamedChunk> chunks) {
  manager_->set_assignment(descriptions_of(chunks));
  const std::lock_guard lock(mutex_);
  for (auto& [id, known] : known_) known.wanted = false;
  bytes_wanted_ = 0;
  sizes_missing_ = 0;
  for (const NamedChunk& chunk : chunks) learn(chunk, true);
}

void Service::add(std::span<const NamedChunk> chunks) {
  for (const NamedChunk& chunk : chunks) {
    manager_->download_chunk(chunk.description);
    const std::lock_guard lock(mutex_);
    learn(chunk, true);
  }
}

void Service::learn(const NamedChunk& chunk, bool wanted) {
  datasets_[chunk.description.dataset_id] = chunk.dataset;
  unlearn_wish(chunk.description.id);
  Known known{
      chunk.name, chunk.description.dataset_id, chunk.description.block_range, chunk.description.files.size(), 0, true,
      wanted};
  for (const auto& [name, source] : chunk.description.files) {
    known.bytes += source.size.value_or(0);
    known.all_sizes_known = known.all_sizes_known && source.size.has_value();
  }
  if (wanted) {
    bytes_wanted_ += known.bytes;
    if (!known.all_sizes_known) ++sizes_missing_;
  }
  known_[chunk.description.id] = std::move(known);
}

void Service::unlearn_wish(const garner::ChunkId& id) {
  const auto found = known_.find(id);
  if (found == known_.end() || !found->second.wanted) return;
  found->second.wanted = false;
  bytes_wanted_ -= found->second.bytes;
  if (!found->second.all_sizes_known) --sizes_missing_;
}

bool Service::holds(std::span<const NamedChunk> chunks) const {
  const std::vector<garner::ChunkId> held = manager_->list_chunks();
  const std::unordered_set<garner::ChunkId> ids(held.begin(), held.end());
  return ids.size() == chunks.size() && std::all_of(chunks.begin(), chunks.end(), [&ids](const NamedChunk& chunk) {
           return ids.contains(chunk.description.id);
         });
}

Frame Service::frame() const {
  Frame frame;
  frame.status = manager_->status();
  const std::lock_guard lock(mutex_);
  frame.bytes_wanted = bytes_wanted_;
  frame.all_sizes_known = sizes_missing_ == 0;
  return frame;
}

std::string Service::name_of(const garner::ChunkId& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(id);
  return found != known_.end() ? found->second.name : id.to_hex();
}

std::string Service::dataset_name(const garner::DatasetId& id) const {
  const auto found = datasets_.find(id);
  return found != datasets_.end() ? found->second : id.to_hex();
}

std::vector<garner::DatasetId> Service::held_datasets() const {
  // The manager lists chunks, not datasets; those that no manifest named are told by the layout of the
  // directory.
  std::set<garner::DatasetId> out;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, name] : datasets_) out.insert(id);
  }
  std::error_code error;
  for (std::filesystem::directory_iterator entry(data_dir_ / "chunks", error), end; !error && entry != end;
       entry.increment(error)) {
    if (const auto id = garner::DatasetId::try_from_hex(entry->path().filename().string())) out.insert(*id);
  }
  return {out.begin(), out.end()};
}

std::vector<Service::ChunkRef> Service::held() const {
  std::vector<ChunkRef> out;
  for (const garner::DatasetId& dataset : held_datasets()) {
    auto found = manager_->find_chunks(dataset, all_blocks);
    std::move(found.begin(), found.end(), std::back_inserter(out));
  }
  return out;
}

ChunkRow Service::row_of(const ChunkRef& ref) const {
  ChunkRow row;
  row.id = ref.id().to_hex();
  row.begin = ref.block_range().begin;
  row.end = ref.block_range().end;
  row.state = garner::to_string(garner::ChunkState::ready);
  row.bytes = ref.bytes();
  try {
    row.files = ref.files().size();
  } catch (const garner::Error& error) {
    row.error = error.what();  // one chunk's bad descriptor must not hide the others
  }
  const std::lock_guard lock(mutex_);
  row.dataset = dataset_name(ref.dataset_id());
  if (const auto found = known_.find(ref.id()); found != known_.end()) row.name = found->second.name;
  return row;
}

std::vector<ChunkRow> Service::list() {
  std::vector<ChunkRow> rows;
  std::unordered_set<garner::ChunkId> listed;
  for (const ChunkRef& ref : held()) {
    rows.push_back(row_of(ref));
    listed.insert(ref.id());
  }
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, known] : known_) {
      if (listed.contains(id)) continue;
      const auto status = manager_->chunk_status(id);
      if (!status) continue;
      rows.push_back({id.to_hex(), known.name, dataset_name(known.dataset), known.blocks.begin, known.blocks.end,
                      std::string(garner::to_string(status->state)), known.files, known.bytes, status->attempts,
                      status->last_error ? status->last_error.message() : ""});
    }
  }
  std::sort(rows.begin(), rows.end(), [](const ChunkRow& a, const ChunkRow& b) {
    return std::tie(a.dataset, a.begin, a.end, a.id) < std::tie(b.dataset, b.begin, b.end, b.id);
  });
  return rows;
}

std::optional<FoundChunk> Service::find(const std::string& dataset, std::uint64_t block) {
  auto ref = manager_->find_chunk(dataset_id_of(dataset), block);
  if (!ref) {
    const auto id = garner::DatasetId::try_from_hex(dataset);
    if (id) ref = manager_->find_chunk(*id, block);
  }
  if (!ref) return std::nullopt;
  FoundChunk found{row_of(*ref), ref->path().string(), {}};
  for (const auto& [name, source] : ref->files()) {
    found.files.push_back({name, (ref->path() / name).string(), source.size.value_or(0),
                           source.digest ? source.digest->to_string() : ""});
  }
  return found;
}

std::optional<std::string> Service::remove(const std::string& chunk) {
  const garner::ChunkId id = chunk_id_of(chunk);
  const auto status = manager_->chunk_status(id);
  if (!status || !(status->wanted || status->served)) return std::nullopt;
  manager_->delete_chunk(id);
  const std::lock_guard lock(mutex_);
  unlearn_wish(id);
  return id.to_hex();
}

}  // namespace worker
