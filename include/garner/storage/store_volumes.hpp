// SPDX-License-Identifier: BSL-1.0
//
// A store of several volumes, each of them a complete data directory by itself: which of them takes what comes in. A
// store of one is that one, and nothing else. One volume is in store_volume.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"
#include "garner/policies/storage.hpp"
#include "garner/status.hpp"
#include "garner/storage/file_system.hpp"
#include "garner/storage/staging.hpp"
#include "garner/storage/store_layout.hpp"
#include "garner/storage/store_protocol.hpp"
#include "garner/storage/store_volume.hpp"
#include "garner/storage/volume_descriptions.hpp"

namespace garner {

/// A Storage over one or more `BasicStore`s, on each of which the protocol of store_protocol.hpp holds by itself: no
/// generation is on two volumes, and none of them needs another to be read. What is staged goes to the volume that has
/// the most free bytes, within its limits and less what is staged there already.
///
/// Thread-safety, lifetime and exceptions: as `BasicStore`.
template <FileSystem F>
class BasicVolumes {
 public:
  using Location = std::filesystem::path;  ///< absolute, of the generation's directory
  using Staging = BasicStaging<F>;
  using StagedFile = BasicStagedFile<F>;

  /// One volume, without limits. Throws as `BasicStore` does.
  explicit BasicVolumes(F fs, Durability durability = Durability::full, const QuarantineLimits& quarantine = {})
      : state_(std::make_unique<State>()) {
    VolumePlace<F> place{fs.path(), nullptr, no_limit, 0};
    state_->volumes.push_back(std::make_unique<Volume>(std::move(place), durability, quarantine));
    state_->volumes.front()->take(std::make_shared<BasicStore<F>>(std::move(fs), durability, quarantine));
  }

  /// As `places` says: there is at least one. Throws as `BasicStore` does where none can be opened; one of several is
  /// away then, unless what is wrong with it is no failure: it is in use, or of another format, or no directory.
  explicit BasicVolumes(std::vector<VolumePlace<F>> places, Durability durability = Durability::full,
                        const QuarantineLimits& quarantine = {})
      : state_(std::make_unique<State>()) {
    for (VolumePlace<F>& place : places) {
      state_->is_limited = state_->is_limited || place.max_bytes != no_limit || place.keep_free_bytes != 0;
      state_->volumes.push_back(std::make_unique<Volume>(std::move(place), durability, quarantine));
    }
    std::optional<Error> failed;
    std::uint32_t open = 0;
    for (std::uint32_t index = 0; index < count(); ++index) {
      try {
        volume(index).open();
        ++open;
      } catch (const Error& error) {
        for (const errc refusal : {errc::directory_in_use, errc::unknown_format, errc::not_a_directory}) {
          if (error.code() == refusal) throw;
        }
        if (!failed) failed = error;
      }
    }
    if (open == 0 && failed) throw Error(*failed);
  }

  /// Of several volumes, one that cannot be read is away; what the others describe of it is found there. New
  /// generations are numbered from above all that any volume has; while one is away what it has is not known, and a
  /// number that no store has come to by counting is above it, too.
  Recovery recover(const std::function<void(const Generation&)>& found) {
    if (count() == 1) return volume(0).store()->recover(found);
    Recovery out;
    bool any_away = false;
    std::optional<std::uint32_t> first;
    std::vector<Generation> all;
    for (std::uint32_t index = 0; index < count(); ++index) {
      Recovery one;
      std::vector<Generation> held;
      if (const auto store = volume(index).store()) {
        one = store->recover([&held](const Generation& generation) { held.push_back(generation); });
        if (one.error == errc::cancelled) return one;
        if (one.error) volume(index).forget();
      } else {
        any_away = true;
        continue;
      }
      out.last_generation = std::max(out.last_generation, one.last_generation);
      out.has_partial = out.has_partial || one.has_partial;
      if (one.error) {
        any_away = true;
        if (!out.error) std::tie(out.error, out.subject) = std::pair(one.error, one.subject);
        continue;
      }
      if (!first) first = index;
      for (Generation& generation : held) {
        generation.volume = index;
        found(generation);
      }
      all.insert(all.end(), held.begin(), held.end());
    }
    if (first) out.error.clear();
    state_->descriptions.compare(all, [&](const Generation& generation) {
      out.last_generation = std::max(out.last_generation, generation.number);
      found(generation);
    });
    if (any_away && first) out.last_generation = begin_stride(out.last_generation, *first);
    return out;
  }

  /// As `BasicStore`.
  void stop_recovery() noexcept {
    for (const auto& volume : state_->volumes) {
      if (const auto store = volume->opened()) store->stop_recovery();
    }
  }

  /// What `recover` found that garner did not make, on all volumes.
  [[nodiscard]] std::vector<std::string> unrecognised() const {
    std::vector<std::string> out;
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) {
        for (std::string& path : store->unrecognised()) out.push_back(std::move(path));
      }
    }
    return out;
  }

  /// As `BasicStore`, of all volumes; the first error.
  std::error_code clean_up(Partial partial) {
    std::error_code first;
    for (std::uint32_t index = 0; index < count(); ++index) {
      const auto store = volume(index).store();
      const std::error_code ec = store ? store->clean_up(partial) : std::error_code();
      if (!first) first = ec;
    }
    state_->descriptions.clean_up();
    return first;
  }

  /// Where an earlier run had something of the chunk, or else on the volume with the most free bytes; `errc::no_space`
  /// where none has room for all that is declared.
  Staging stage(const DataChunk& chunk, std::uint64_t number, std::error_code& ec) {
    ec = any_healthy() ? errc::no_space : errc::read_only;
    for (const Candidate& candidate : candidates_for(chunk)) {
      Volume& volume = this->volume(candidate.index);
      const auto store = volume.store();
      if (!store) continue;
      Staging staging = store->stage(chunk, number, ec);
      if (ec == errc::read_only && count() > 1) {
        volume.set_state(VolumeState::read_only);
        continue;
      }
      if (!ec) volume.add(staging.area_);
      return staging;
    }
    return {};
  }

  /// As `BasicStore`. `errc::io_error` where its volume is away, or was opened anew since.
  void publish(std::span<PublishRequest<Staging>> requests) {
    std::map<std::uint32_t, std::vector<std::size_t>> by_volume;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      PublishRequest<Staging>& request = requests[i];
      const std::optional<std::uint32_t> index = index_of(*request.staging);
      request.error = request.staging->area_ ? make_error_code(errc::io_error)
                                             : std::make_error_code(std::errc::bad_file_descriptor);
      if (index) by_volume[*index].push_back(i);
    }
    for (const auto& [index, members] : by_volume) {
      const auto store = volume(index).store();
      if (!store) continue;
      std::vector<PublishRequest<Staging>> part;
      for (const std::size_t i : members) part.push_back(requests[i]);
      store->publish(std::span(part));
      // All are told first: what follows may throw, and changes nothing about that.
      for (std::size_t i = 0; i < part.size(); ++i) {
        part[i].generation.volume = index;
        requests[members[i]] = part[i];
      }
      for (const PublishRequest<Staging>& request : part) {
        if (request.error) continue;
        volume(index).drop(request.staging->area_);
        state_->descriptions.keep(request.generation);
      }
    }
  }
  Generation publish(Staging& staging, std::error_code& ec) {
    PublishRequest<Staging> request{&staging};
    publish(std::span(&request, 1));
    ec = request.error;
    return ec ? Generation() : request.generation;
  }

  std::error_code discard(Staging& staging) {
    const std::optional<std::uint32_t> index = index_of(staging);
    if (!index) return {};  // found by the opening since
    volume(*index).drop(staging.area_);
    return volume(*index).opened()->discard(staging);
  }

  [[nodiscard]] Location location(const Generation& generation) const {
    return volume(generation.volume).path() / store_layout::chunk_path(generation);
  }

  DataChunk describe(const Generation& generation, std::error_code& ec) const {
    const auto store = volume(generation.volume).store();
    ec = store ? std::error_code() : make_error_code(errc::io_error);
    DataChunk chunk = store ? store->describe(generation, ec) : DataChunk();
    if (!ec || count() == 1) return chunk;
    std::error_code elsewhere;
    chunk = state_->descriptions.find(generation, elsewhere);
    if (!elsewhere) ec.clear();
    return chunk;
  }

  std::error_code doom(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      const std::error_code ec = state_->descriptions.drop(generation);
      if (count() > 1) volume(generation.volume).note_doomed(generation, true);
      return ec ? ec : store.doom(generation);
    });
  }
  std::error_code spare(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      const std::error_code ec = store.spare(generation);
      if (ec) return ec;
      volume(generation.volume).note_doomed(generation, false);
      state_->descriptions.keep(generation);
      return ec;
    });
  }
  std::error_code remove(const Generation& generation) {
    return with(generation, [&](BasicStore<F>& store) {
      std::error_code ec = state_->descriptions.drop(generation);
      if (!ec) ec = store.remove(generation);
      if (!ec) volume(generation.volume).note_doomed(generation, false);
      return ec;
    });
  }
  std::error_code quarantine(const Generation& generation, const std::string& reason) {
    return with(generation, [&](BasicStore<F>& store) {
      std::error_code ec = state_->descriptions.drop(generation);
      if (!ec) ec = store.quarantine(generation, reason);
      if (!ec) volume(generation.volume).note_doomed(generation, false);
      return ec;
    });
  }
  [[nodiscard]] std::error_code verify(const Generation& generation, VerifyDepth depth,
                                       const VerifyProgress& progress) const {
    return with(generation, [&](const BasicStore<F>& store) { return store.verify(generation, depth, progress); });
  }

  /// The sums of all volumes: free is what may still be put there, within their limits.
  [[nodiscard]] StoreUsage usage() const {
    StoreUsage usage;
    for (const VolumeStatus& volume : volumes()) {
      usage.bytes_used += volume.bytes_used;
      usage.bytes_free += volume.bytes_free;
    }
    return usage;
  }

  /// With one volume there is nothing to be found out: what fails is told by what fails.
  std::vector<VolumeStatus> examine(const std::function<void(const Generation&)>& found) {
    for (std::uint32_t index = 0; count() > 1 && index < count(); ++index) {
      volume(index).examine([index, &found](Generation generation) {
        generation.volume = index;
        found(generation);
      });
    }
    return volumes();
  }

  [[nodiscard]] std::vector<VolumeStatus> volumes() const {
    std::vector<VolumeStatus> out;
    for (const auto& volume : state_->volumes) out.push_back(volume->status());
    return out;
  }

 private:
  using Volume = detail::Volume<F>;

  static constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

  struct State {
    std::vector<std::unique_ptr<Volume>> volumes;
    bool is_limited = false;  ///< any of them
    detail::VolumeDescriptions<F> descriptions{volumes};
  };

  struct Candidate {
    std::uint64_t room;
    std::uint32_t index;
  };

  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(state_->volumes.size()); }
  [[nodiscard]] Volume& volume(std::uint32_t index) const { return *state_->volumes.at(index); }

  [[nodiscard]] bool any_healthy() const {
    return std::any_of(state_->volumes.begin(), state_->volumes.end(),
                       [](const auto& volume) { return volume->state() == VolumeState::healthy; });
  }

  /// Those that have room for the chunk; the one that has a part of it first, and then the one with the most room.
  [[nodiscard]] std::vector<Candidate> candidates_for(const DataChunk& chunk) const {
    if (count() == 1 && !state_->is_limited) return {{0, 0}};
    const std::uint64_t bytes = declared_bytes(chunk).value_or(0);
    std::vector<Candidate> out;
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto room = volume(index).room_for(bytes)) out.push_back({*room, index});
    }
    std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) { return a.room > b.room; });
    std::stable_partition(out.begin(), out.end(), [&](const Candidate& candidate) {
      const auto store = volume(candidate.index).store();
      return store && store->has_partial(chunk.id);
    });
    return out;
  }

  /// Of the volume that it is on; nothing where that was opened anew since.
  std::optional<std::uint32_t> index_of(const Staging& staging) const {
    for (std::uint32_t index = 0; staging.area_ && index < count(); ++index) {
      const auto store = volume(index).opened();
      if (store && store->root_handle() == staging.area_->root) return index;
    }
    return std::nullopt;
  }

  template <class Call>
  std::error_code with(const Generation& generation, const Call& call) const {
    const auto store = volume(generation.volume).store();
    return store ? call(*store) : make_error_code(errc::io_error);
  }

  /// While a volume is away its numbers are not known. So each start without one begins a stride of numbers of its own,
  /// and writes that down on all that are there. `first` of these: starts that have none in common do not come to the
  /// same.
  [[nodiscard]] std::uint64_t begin_stride(std::uint64_t number, std::uint64_t first) const {
    constexpr std::uint64_t stride = std::uint64_t{1} << 32;
    std::uint64_t last = number / stride;
    std::vector<std::uint64_t> written(count(), 0);
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) written[index] = store->root_handle()->read_stride();
      last = std::max(last, written[index]);
    }
    if (last > UINT64_MAX / stride - 1 - count()) return number;
    do ++last;
    while (last % count() != first);
    for (std::uint32_t index = 0; index < count(); ++index) {
      if (const auto store = volume(index).store()) store->root_handle()->write_stride(last, written[index]);
    }
    return last * stride;
  }

  std::unique_ptr<State> state_;
};

}  // namespace garner
