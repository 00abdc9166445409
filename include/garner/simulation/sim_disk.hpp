// SPDX-License-Identifier: BSL-1.0
//
// A disk that loses, tears and reorders what was not synced: what is there now, what is durable, what may be
// there after a crash, and the room that is left. How programs use it, and faults, are in sim_file_system.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/error.hpp"
#include "garner/simulation/decisions.hpp"
#include "garner/simulation/sim_volume.hpp"

namespace garner {

namespace detail {
class SimStateWriter;
}  // namespace detail

/// Paths are relative to the root, with `/` between names; the root's is empty.
///
/// A copy is a disk of its own in the same state, but that nothing of it is open or locked, and that it is sound.
///
/// Thread-safety: `SimFileSystem`'s operations on one disk and its copies may run at the same time; everything
/// else only while none does. Replays only where one thread uses it.
class SimDisk : private detail::SimVolume {
 public:
  using detail::SimVolume::Tree;

  explicit SimDisk(SimDiskOptions options = {}) : SimDisk(std::move(options), std::make_shared<detail::SimNames>()) {}

  SimDisk(SimDisk&&) = default;
  SimDisk(const SimDisk& other) : detail::SimVolume(other), used_(other.used_), boots_(other.boots_) {
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      nodes_[node].lock = 0;
      nodes_[node].handles = 0;
      give_back(node);
    }
  }
  SimDisk& operator=(const SimDisk&) = delete;
  SimDisk& operator=(SimDisk&&) = delete;
  ~SimDisk() = default;

  // What ends a run.

  /// Pulls the plug: gives the disk that the next start finds. Of this one every operation fails from now on with
  /// `errc::io_error`, and changes nothing.
  SimDisk crash(Decisions& decisions) {
    dead_ = true;
    return after_crash(decisions);
  }

  /// Kills the process: gives the disk with all that it wrote, as durable as it was. Of this one as after `crash`.
  /// A failed sync of a directory is forgiven, though: no program could know of one that another was told of.
  SimDisk kill() {
    dead_ = true;
    SimDisk out(*this);
    out.log_.forgive();
    out.health_ = health_;
    return out;
  }

  /// Takes the disk out of a machine that goes on: as `crash`, but for the machine.
  SimDisk unplug(Decisions& decisions) {
    SimDisk out = crash(decisions);
    out.boots_ = boots_;
    return out;
  }

  /// What `crash` would give; goes on.
  [[nodiscard]] SimDisk after_crash(Decisions& decisions) const {
    const std::vector<bool> kept = log_.survive(decisions);
    std::vector<detail::SimEntries> tree(nodes_.size());
    for (std::size_t i = 0; i < nodes_.size(); ++i) tree[i] = nodes_[i].durable;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (kept[i]) log_.changes()[i].apply([&tree](detail::SimNode node) -> auto& { return tree[node]; });
    }
    SimDisk out(options_, names_);
    copy_survivors(tree, root_node, out, root_node, decisions);
    out.boots_ = boots_ + 1;
    return out;
  }

  [[nodiscard]] bool dead() const noexcept { return dead_; }

  // What is there, for checks.

  [[nodiscard]] const SimDiskOptions& options() const noexcept { return options_; }

  /// A file's bytes as they are read now; nothing where no file is there. Valid until the disk is used.
  [[nodiscard]] const std::string* contents(std::string_view path) const {
    const detail::SimNode node = find(path);
    return node != detail::sim_none && !nodes_[node].directory ? &nodes_[node].contents.now() : nullptr;
  }

  [[nodiscard]] bool exists(std::string_view path) const { return find(path) != detail::sim_none; }

  [[nodiscard]] Tree tree() const {
    Tree out;
    add_to_tree(root_node, "", out);
    return out;
  }

  /// Whether in every crash that may come now the file is there with exactly these bytes.
  [[nodiscard]] bool always_durable(std::string_view path, std::string_view bytes) const {
    const detail::SimNode node = find_durable(path);
    return node != detail::sim_none && !nodes_[node].directory && nodes_[node].contents.is_durable() &&
           nodes_[node].contents.now() == bytes;
  }

  /// Whether in every crash that may come now the directory is there.
  [[nodiscard]] bool always_durable(std::string_view path) const {
    const detail::SimNode node = find_durable(path);
    return node != detail::sim_none && nodes_[node].directory;
  }

  /// Whether nothing is there now, nor may be after a crash.
  [[nodiscard]] bool never_there(std::string_view path) const { return never_below(root_node, path); }

  /// Whether the file, or any below the directory, was changed behind everyone's back.
  [[nodiscard]] bool tampered(std::string_view path) const {
    const detail::SimNode node = find(path);
    return node != detail::sim_none && any_tampered(node);
  }

  /// Changes to directories that a crash may lose.
  [[nodiscard]] std::size_t pending() const noexcept { return log_.size(); }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_; }
  /// Crashes that led to it: the machine was started anew after each.
  [[nodiscard]] std::uint64_t boots() const noexcept { return boots_; }
  [[nodiscard]] std::uint64_t free() const noexcept {
    return used_ < options_.capacity ? options_.capacity - used_ : 0;
  }
  /// Handles that are open.
  [[nodiscard]] std::size_t handles() const noexcept {
    std::size_t count = 0;
    for (const Inode& inode : nodes_) count += inode.handles;
    return count;
  }

  // What happens to it.

  void set_health(SimHealth health) noexcept { health_ = health; }
  [[nodiscard]] SimHealth health() const noexcept { return health_; }

  /// May be less than what is used.
  void set_capacity(std::uint64_t bytes) noexcept { options_.capacity = bytes; }

  /// Flips one bit of a file, behind everyone's back and for good. False where there is no such byte.
  bool corrupt(std::string_view path, std::uint64_t at, unsigned bit = 0) {
    const detail::SimNode node = find(path);
    if (node == detail::sim_none || nodes_[node].directory || at >= nodes_[node].contents.size()) return false;
    nodes_[node].contents.corrupt(at, bit);
    nodes_[node].tampered = true;
    return true;
  }

  /// Makes a file, or a directory where there are no bytes, behind everyone's back and for good. False where it cannot
  /// stand there.
  bool plant(std::string_view path, const std::optional<std::string>& bytes) {
    const auto [directory, name] = place_of(path);
    if (directory == detail::sim_none || !is_settled(directory, name) || find(directory, name) != detail::sim_none) {
      return false;
    }
    const auto node = static_cast<detail::SimNode>(nodes_.size());
    Inode& inode = nodes_.emplace_back();
    inode.directory = !bytes;
    inode.parent = directory;
    inode.name = names_->intern(name);
    inode.tampered = true;
    if (bytes) inode.contents.assign(*bytes);
    used_ += inode.room();
    nodes_[directory].entries.add(inode.name, node);
    nodes_[directory].durable.add(inode.name, node);
    return true;
  }

  /// Takes a file or an empty directory away, likewise. False where there is none.
  bool uproot(std::string_view path) {
    const auto [directory, name] = place_of(path);
    const detail::SimNode node = directory != detail::sim_none ? find(directory, name) : detail::sim_none;
    if (node == detail::sim_none || !nodes_[node].entries.empty() || !is_settled(directory, name)) return false;
    const detail::SimName number = nodes_[node].name;
    if (nodes_[directory].durable.find(number) != node) return false;
    nodes_[directory].entries.remove(number);
    nodes_[directory].durable.remove(number);
    nodes_[directory].tampered = true;
    nodes_[node].linked = false;
    give_back(node);
    return true;
  }

  /// Makes the oldest half of what is pending in directories durable, and all that is dirty in files: the kernel
  /// does it when time has passed.
  void write_back() {
    for (Inode& inode : nodes_) inode.contents.sync();
    write_back_directories();
  }

 private:
  friend class SimFileSystem;
  friend class SimHandle;
  friend class detail::SimStateWriter;
  friend struct SimCall;

  /// Beyond this many pending changes the oldest half is written back.
  static constexpr std::size_t max_pending = 64;

  SimDisk(SimDiskOptions options, std::shared_ptr<detail::SimNames> names)
      : detail::SimVolume(std::move(options), std::move(names)) {}

  void copy_survivors(const std::vector<detail::SimEntries>& tree, detail::SimNode from, SimDisk& out,
                      detail::SimNode to, Decisions& decisions) const {
    for (const auto& [name, node] : tree[from]) {
      const auto copy = static_cast<detail::SimNode>(out.nodes_.size());
      out.nodes_.emplace_back();
      out.nodes_[to].entries.add(name, copy);
      out.nodes_[to].durable.add(name, copy);
      out.nodes_[copy].directory = nodes_[node].directory;
      out.nodes_[copy].tampered = nodes_[node].tampered;
      out.nodes_[copy].parent = to;
      out.nodes_[copy].name = name;
      if (nodes_[node].directory) {
        copy_survivors(tree, node, out, copy, decisions);
      } else {
        out.nodes_[copy].contents.assign(nodes_[node].contents.survive(decisions, options_.sector));
        out.used_ += out.nodes_[copy].contents.size();
      }
    }
  }

  // What SimFileSystem does, once it has checked that it can be done.

  void change(const detail::SimChange& change) {
    change.apply([this](detail::SimNode node) -> auto& { return nodes_[node].entries; });
    Inode& inode = nodes_[change.node];
    inode.linked = change.to != detail::sim_none;
    if (inode.linked) {
      inode.parent = change.to;
      inode.name = change.to_name;
    }
    log_.add(change);
    give_back(change.node);
    if (log_.size() > max_pending) write_back_directories();
  }

  detail::SimNode make(detail::SimNode directory, std::string_view name, bool is_directory) {
    if (unused_.empty() && nodes_.size() >= collect_at_) collect();
    auto node = static_cast<detail::SimNode>(nodes_.size());
    if (unused_.empty()) {
      nodes_.emplace_back();
    } else {
      node = unused_.back();
      unused_.pop_back();
      nodes_[node] = Inode();
    }
    nodes_[node].directory = is_directory;
    change({.to = directory, .to_name = names_->intern(name), .node = node});
    return node;
  }

  /// Changes a file; what more room it needs than there is, it does not get.
  template <class Change>
  bool resize(detail::SimNode node, std::uint64_t room, const Change& change) {
    const std::uint64_t before = nodes_[node].room();
    if (room > before && room - before > free()) return false;
    change(nodes_[node]);
    used_ = used_ - before + nodes_[node].room();
    return true;
  }

  void sync_file(detail::SimNode node) {
    nodes_[node].contents.sync();
    // A journal commits the file's creation with it.
    if (options_.mode == CrashMode::ordered) {
      sync_changes([node](const detail::SimChange& change) { return change.node == node; });
    }
  }

  void sync_directory(detail::SimNode node) {
    const bool ordered = options_.mode == CrashMode::ordered;
    sync_changes([node, ordered](const detail::SimChange& change) {
      return change.touches(node) || (ordered && change.node == node);
    });
  }

  template <class Covers>
  void sync_changes(const Covers& covers) {
    log_.sync(covers, [this](const detail::SimChange& change) { apply_durably(change); });
  }

  void write_back_directories() {
    log_.write_back((log_.size() + 1) / 2, [this](const detail::SimChange& change) { apply_durably(change); });
  }

  void apply_durably(const detail::SimChange& change) {
    change.apply([this](detail::SimNode node) -> auto& { return nodes_[node].durable; });
  }

  /// Instead of a write to `file`.
  void misdirect(detail::SimNode file, std::string_view path, std::uint64_t at, std::span<const std::byte> bytes) {
    nodes_[file].tampered = true;
    const detail::SimNode other = find(path);
    if (other == detail::sim_none || nodes_[other].directory) return;
    nodes_[other].contents.overwrite(at, bytes);
    nodes_[other].tampered = true;
  }

  void open(detail::SimNode node) { ++nodes_[node].handles; }
  void close(detail::SimNode node, std::uint64_t handle) {
    --nodes_[node].handles;
    if (nodes_[node].lock == handle) nodes_[node].lock = 0;
    give_back(node);
  }

  /// The room of a file that nobody can reach any more.
  void give_back(detail::SimNode node) {
    Inode& inode = nodes_[node];
    if (inode.linked || inode.handles != 0 || inode.freed) return;
    inode.freed = true;
    used_ -= inode.room();
  }

  /// Finds inodes that are out of everyone's reach, a crash's too.
  void collect() {
    std::vector<bool> reached(nodes_.size(), false);
    reached[root_node] = true;
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      if (nodes_[node].linked || nodes_[node].handles != 0) reached[node] = true;
      for (const auto& entry : nodes_[node].durable) reached[entry.node] = true;
    }
    for (const detail::SimChange& change : log_.changes()) {
      reached[change.node] = true;
    }
    unused_.clear();
    for (detail::SimNode node = 0; node < nodes_.size(); ++node) {
      if (!reached[node]) unused_.push_back(node);
    }
    collect_at_ = std::max<std::size_t>(collect_at_, 2 * (nodes_.size() - unused_.size()));
  }

  std::vector<detail::SimNode> unused_;
  std::size_t collect_at_ = 128;
  std::uint64_t used_ = 0;
  std::uint64_t boots_ = 0;
  std::uint64_t last_handle_ = 0;
  bool dead_ = false;
  SimHealth health_ = SimHealth::sound;
};

}  // namespace garner
