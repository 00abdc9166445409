// SPDX-License-Identifier: BSL-1.0
//
// The hands of the engine: performs the state machine's actions through the policies, and gives it the
// reports. What blocks is done by a task of its own; nothing here is decided.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/core/actions.hpp"
#include "garner/core/chunk_table.hpp"
#include "garner/manager/store_calls.hpp"
#include "garner/manager/transfers.hpp"
#include "garner/manager/validity.hpp"
#include "garner/policies.hpp"
#include "garner/status.hpp"

namespace garner::detail {

/// `Engine` has `spawn(task)`, `input(call)`, `now()`, `listing()`; and, inside of `input`, `table()`. Thread-safety:
/// `perform` one at a time, in the order of the actions; the rest from any thread.
template <class Engine, Storage S, Downloader D>
class Performer {
 public:
  Performer(Engine& engine, S& storage, D& downloader, std::uint64_t checkpoint_bytes)
      : engine_(engine),
        downloader_(downloader),
        store_(storage),
        transfers_(storage, downloader, checkpoint_bytes,
                   {[this](Task task) { engine_.spawn(std::move(task)); }, [this] { return engine_.now(); },
                    [this](const ChunkId& id, core::TransferId transfer, const core::Outcome& outcome) {
                      report(&core::ChunkTable::file_done, id, transfer, outcome);
                    },
                    [this](const ChunkId& id, core::TransferId transfer) {
                      report(&core::ChunkTable::answered, id, transfer);
                    },
                    [this](const ChunkId& id, core::TransferId transfer, std::uint64_t bytes) {
                      bool fits = false;
                      engine_.input([&](core::Instant now) { fits = engine_.table().sized(id, transfer, bytes, now); });
                      return fits;
                    }}) {}

  /// Does not block.
  void perform(core::Action& action) {
    std::visit([this](auto& what) { this->perform(what); }, action);
  }

  /// What is being re-read is read no further, from now on.
  void stop_reading() noexcept { stop_reading_ = true; }
  /// Bytes that were re-read since construction.
  [[nodiscard]] std::uint64_t bytes_verified() const noexcept { return bytes_verified_; }

  [[nodiscard]] Transfers<S, D>& transfers() noexcept { return transfers_; }
  [[nodiscard]] const Transfers<S, D>& transfers() const noexcept { return transfers_; }

  /// As the store last told.
  [[nodiscard]] StoreUsage usage() const {
    const std::scoped_lock lock(usage_mutex_);
    return usage_;
  }

  [[nodiscard]] std::vector<VolumeStatus> volumes() const {
    const std::scoped_lock lock(usage_mutex_);
    return volumes_;
  }

  /// Blocks.
  void refresh_usage() {
    after_usage([](core::Instant) {});
  }

 private:
  /// What the store holds now becomes known, and then, in the same input, `call(now)` is made. Blocks. Of several at
  /// once the one that asked last is believed.
  template <class Call>
  void after_usage(const Call& call) {
    const std::uint64_t turn = ++usage_turns_;
    // Before the store is asked: what comes meanwhile then counts twice rather than not at all.
    const std::uint64_t staged = transfers_.staged();
    const std::optional<StoreUsage> usage = store_.usage();
    std::vector<VolumeStatus> volumes;
    if (usage) volumes = store_.volumes();
    engine_.input([&](core::Instant now) {
      if (usage && turn > last_usage_) {
        last_usage_ = turn;
        if (!volumes.empty()) engine_.table().volumes_told(volumes, now);
        engine_.table().measured(*usage, staged, now);
        const std::scoped_lock lock(usage_mutex_);
        usage_ = *usage;
        volumes_.swap(volumes);
      }
      call(now);
    });
  }

  /// As the store last told: what can be staged again may be healthy.
  [[nodiscard]] bool any_unhealthy() const {
    const std::scoped_lock lock(usage_mutex_);
    return std::any_of(volumes_.begin(), volumes_.end(),
                       [](const VolumeStatus& volume) { return volume.state != VolumeState::healthy; });
  }

  void perform(core::action::Stage& action) {
    engine_.spawn([this, action] {
      const core::Outcome outcome = transfers_.stage(action);
      if (!outcome.ok() || any_unhealthy()) refresh_usage();
      report(&core::ChunkTable::staged, action.chunk->id, outcome);
    });
  }

  void perform(core::action::StartFile& action) { transfers_.start(action); }
  void perform(core::action::Limit& action) {
    if constexpr (LimitedDownloader<D>) {
      guarded([&] { downloader_.set_limits({action.limits.max_files_per_host, action.limits.bytes_per_second}); });
    }
  }
  void perform(core::action::StopFile& action) { transfers_.stop(action.transfer); }

  void perform(core::action::Refresh& action) {
    engine_.spawn([this, action] {
      std::optional<FileSource> source;
      const core::Outcome outcome = ask_for_source(action, source);
      report(&core::ChunkTable::refreshed, action.chunk->id, action.transfer, source, outcome);
    });
  }

  /// Of the caller, whose code it is that runs here: what it throws is its answer.
  core::Outcome ask_for_source(const core::action::Refresh& action, std::optional<FileSource>& source) const {
    std::string why;
    try {
      FileSource fresh = action.ask(*action.chunk, *action.name);
      const std::optional<Invalid> invalid =
          replace_source(*action.chunk, *action.name, fresh, engine_.limits(), engine_.downloader());
      if (!invalid) {
        source = std::move(fresh);
        return {};
      }
      why = invalid->code.message() + ": " + invalid->subject;
    } catch (const std::exception& error) {
      why = printable(redact_url(error.what()));
    } catch (...) {
      why = "an unknown exception";
    }
    core::Outcome failed;
    failed.error = errc::refresh_failed;
    failed.subject = "file '" + *action.name + "': " + why;
    return failed;
  }

  void perform(core::action::Publish& action) {
    {
      const std::scoped_lock lock(publishes_mutex_);
      publishes_.push_back(action);
      if (publishers_ == max_publishers) return;
      ++publishers_;
    }
    engine_.spawn([this] { publish_some(); });
  }

  /// What came while others were being published is published together: alone it is at once, and with a thousand others
  /// for a fraction of a thousand times what it takes.
  void publish_some() {
    std::vector<core::action::Publish> some;
    {
      const std::scoped_lock lock(publishes_mutex_);
      const auto end = publishes_.begin() + static_cast<std::ptrdiff_t>(std::min(publishes_.size(), max_together));
      some.assign(publishes_.begin(), end);
      publishes_.erase(publishes_.begin(), end);
    }
    if (!some.empty()) {
      const auto published = transfers_.publish(some);
      after_usage([&](core::Instant now) {
        for (std::size_t i = 0; i < some.size(); ++i) {
          engine_.table().published(some[i].id, published[i].generation, published[i].outcome, now);
        }
      });
    }
    {
      const std::scoped_lock lock(publishes_mutex_);
      if (publishes_.empty()) {
        --publishers_;
        return;
      }
    }
    engine_.spawn([this] { publish_some(); });
  }

  void perform(core::action::Discard& action) {
    engine_.spawn([this, action] {
      const core::Outcome outcome = transfers_.discard(action);
      after_usage([&](core::Instant now) { engine_.table().discarded(action.id, outcome, now); });
    });
  }

  void perform(core::action::Doom& action) {
    engine_.spawn([this, generation = action.generation] {
      bool is_withdrawn = false;
      engine_.input([&](core::Instant now) { is_withdrawn = engine_.table().withdraw_doom(generation, now); });
      if (is_withdrawn) return;
      const core::Outcome outcome = store_.doom(generation);
      report(&core::ChunkTable::doomed, generation, outcome);
    });
  }

  void perform(core::action::Spare& action) {
    engine_.spawn([this, generation = action.generation] {
      const core::Outcome outcome = store_.spare(generation);
      report(&core::ChunkTable::spared, generation, outcome);
    });
  }

  void perform(core::action::Remove& action) {
    engine_.spawn([this, generation = action.generation] { removed(generation, store_.remove(generation)); });
  }

  void perform(core::action::Quarantine& action) {
    engine_.spawn([this, what = std::move(action)] {
      removed(what.generation, store_.quarantine(what.generation, what.reason));
    });
  }

  void removed(const Generation& generation, const core::Outcome& outcome) {
    after_usage([&](core::Instant now) { engine_.table().removed(generation, outcome, now); });
  }

  void perform(core::action::Describe& action) {
    engine_.spawn([this, generation = action.generation] {
      std::optional<DataChunk> chunk;
      const core::Outcome outcome = store_.describe(generation, chunk);
      report(&core::ChunkTable::described, generation, outcome, chunk);
    });
  }

  void perform(core::action::Verify& action) {
    engine_.spawn([this, generation = action.generation, depth = action.depth] {
      const core::Outcome outcome = store_.verify(generation, depth, [this](std::uint64_t bytes) {
        bytes_verified_ += bytes;
        return !stop_reading_;
      });
      std::optional<DataChunk> chunk;
      if (!outcome.ok()) store_.describe(generation, chunk);
      report(&core::ChunkTable::verified, generation, outcome, chunk);
    });
  }

  void perform(core::action::ListHeld& /*action*/) {
    engine_.spawn([this] {
      std::vector<ChunkId> ids = engine_.listing().sorted_ids();
      engine_.input([&](core::Instant now) { engine_.table().held(ids, now); });
    });
  }

  void perform(core::action::CleanUp& action) {
    engine_.spawn([this, partial = action.partial] {
      const core::Outcome outcome = store_.clean_up(partial);
      after_usage([&](core::Instant now) { engine_.table().cleaned_up(outcome, now); });
    });
  }

  void perform(core::action::FreeIds& action) { std::vector<ChunkId>().swap(action.ids); }
  void perform(core::action::Examine& /*action*/) {
    engine_.spawn([this] {
      const std::vector<VolumeStatus> volumes =
          store_.examine([this](const Generation& generation) { report(&core::ChunkTable::found, generation); });
      after_usage([&](core::Instant now) { engine_.table().examined(volumes, now); });
    });
  }

  // The engine performed these when they were decided.
  void perform(const core::action::List&) {}
  void perform(const core::action::Unlist&) {}
  void perform(const core::action::Condemn&) {}
  void perform(const Event&) {}

  template <class Report, class... Args>
  void report(Report input, const Args&... args) {
    engine_.input([&](core::Instant now) { (engine_.table().*input)(args..., now); });
  }

  static constexpr std::size_t max_publishers = BatchStorage<S> ? 2 : std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_together = BatchStorage<S> ? 64 : 1;

  Engine& engine_;
  D& downloader_;
  StoreCalls<S> store_;
  Transfers<S, D> transfers_;
  std::atomic<bool> stop_reading_{false};
  std::atomic<std::uint64_t> bytes_verified_{0};
  std::atomic<std::uint64_t> usage_turns_{0};
  std::uint64_t last_usage_ = 0;  // of those, the latest that has told; inside of `input`
  std::mutex publishes_mutex_;    // guards the next two
  std::deque<core::action::Publish> publishes_;
  std::size_t publishers_ = 0;  // tasks
  mutable std::mutex usage_mutex_;
  StoreUsage usage_;
  std::vector<VolumeStatus> volumes_;
};

}  // namespace garner::detail
