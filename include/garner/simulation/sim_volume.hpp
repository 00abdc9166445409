// SPDX-License-Identifier: BSL-1.0
//
// What is on a simulated disk, as a tree: files and directories, as they are now and as they are durable, and how they
// are found. What changes them, and what a crash makes of them, is in sim_disk.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "garner/simulation/sim_contents.hpp"
#include "garner/simulation/sim_tree.hpp"

namespace garner {

struct SimDiskOptions {
  CrashMode mode = CrashMode::adversarial;
  std::uint64_t capacity = std::uint64_t{1} << 30;  ///< bytes, of all files together
  std::uint64_t sector = 8;                         ///< bytes of a write that a crash keeps or loses together
  std::string name = {};                            ///< stands before its paths in a trace
};

/// Whether a disk does what it is asked to do at all.
enum class SimHealth : std::uint8_t {
  sound,
  read_only,  ///< every change is refused
  failing,    ///< every operation fails
};

constexpr std::string_view to_string(SimHealth health) noexcept {
  switch (health) {
    case SimHealth::sound: return "sound";
    case SimHealth::read_only: return "read-only";
    case SimHealth::failing: return "failing";
  }
  return "unknown";
}

namespace detail {

class SimVolume {
 public:
  /// Every path that is there; a file's bytes, or nothing for a directory.
  using Tree = std::map<std::string, std::optional<std::string>>;

  SimVolume& operator=(const SimVolume&) = delete;
  SimVolume& operator=(SimVolume&&) = delete;

 protected:
  static constexpr SimNode root_node = 0;
  struct Inode {
    bool directory = false;
    bool linked = true;  ///< has a name now
    bool freed = false;  ///< its room was given back
    bool tampered = false;
    std::uint32_t handles = 0;
    std::uint32_t failed_syncs = 0;
    SimNode parent = root_node;  ///< with `name` where it is, or was last
    SimName name = 0;
    std::uint64_t lock = 0;      ///< of which handle; 0: of none
    std::uint64_t reserved = 0;  ///< bytes that it has room for
    SimEntries entries;          ///< as they are now
    SimEntries durable;          ///< as they are in every crash, but for what is in the log
    SimContents contents;

    [[nodiscard]] std::uint64_t room() const noexcept { return std::max(reserved, contents.size()); }
  };

  SimVolume(SimDiskOptions options, std::shared_ptr<SimNames> names)
      : options_(std::move(options)), names_(std::move(names)), log_(options_.mode), nodes_(1) {
    nodes_[root_node].directory = true;
  }
  SimVolume(const SimVolume&) = default;
  SimVolume(SimVolume&&) = default;
  ~SimVolume() = default;

  /// Calls `step(directory, name)` for each name of `path`, until it gives none.
  template <class Step>
  static SimNode walk(std::string_view path, const Step& step) {
    SimNode node = root_node;
    while (!path.empty() && node != sim_none) {
      const std::size_t end = std::min(path.find('/'), path.size());
      node = step(node, path.substr(0, end));
      path.remove_prefix(std::min(end + 1, path.size()));
    }
    return node;
  }

  [[nodiscard]] SimNode find(SimNode directory, std::string_view name) const {
    const SimName number = names_->find(name);
    return number != sim_none ? nodes_[directory].entries.find(number) : sim_none;
  }

  [[nodiscard]] SimNode find(std::string_view path) const {
    return walk(path, [this](SimNode directory, std::string_view name) { return find(directory, name); });
  }

  /// What is at `path` in every crash. What a crash may keep of a name is what is durable of it, or what any of
  /// the pending changes of it made of it; no two of these are the same.
  [[nodiscard]] SimNode find_durable(std::string_view path) const {
    return walk(path, [this](SimNode directory, std::string_view name) {
      const SimName number = names_->find(name);
      const auto& changes = log_.changes();
      const bool settled = std::none_of(changes.begin(), changes.end(),
                                        [&](const SimChange& change) { return change.touches(directory, number); });
      return settled ? nodes_[directory].durable.find(number) : sim_none;
    });
  }

  /// The directory and the name; no directory where there is none.
  [[nodiscard]] std::pair<SimNode, std::string_view> place_of(std::string_view path) const {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return {root_node, path};
    const SimNode directory = find(path.substr(0, slash));
    const bool is_one = directory != sim_none && nodes_[directory].directory;
    return {is_one ? directory : sim_none, path.substr(slash + 1)};
  }

  /// Whether no change of this name, or of what it stands for, is pending.
  [[nodiscard]] bool is_settled(SimNode directory, std::string_view name) const {
    const SimName number = names_->find(name);
    const auto& changes = log_.changes();
    return number == sim_none || std::none_of(changes.begin(), changes.end(),
                                              [&](const auto& change) { return change.touches(directory, number); });
  }

  [[nodiscard]] bool never_below(SimNode node, std::string_view path) const {
    if (path.empty()) return false;
    const std::size_t end = std::min(path.find('/'), path.size());
    const SimName name = names_->find(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
    const SimNode durable = nodes_[node].durable.find(name);
    if (durable != sim_none && !never_below(durable, path)) return false;
    return std::all_of(log_.changes().begin(), log_.changes().end(), [&](const SimChange& change) {
      return change.to != node || change.to_name != name || never_below(change.node, path);
    });
  }

  [[nodiscard]] bool any_tampered(SimNode node) const {
    const auto& entries = nodes_[node].entries;
    return nodes_[node].tampered ||
           std::any_of(entries.begin(), entries.end(), [this](const auto& entry) { return any_tampered(entry.node); });
  }

  void add_to_tree(SimNode directory, const std::string& path, Tree& out) const {
    for (const auto& [name, node] : nodes_[directory].entries) {
      const std::string below = path.empty() ? names_->text(name) : path + '/' + names_->text(name);
      if (nodes_[node].directory) {
        out.emplace(below, std::nullopt);
        add_to_tree(node, below, out);
      } else {
        out.emplace(below, nodes_[node].contents.now());
      }
    }
  }

  /// Of `node`, of an entry of it, or where it was last.
  [[nodiscard]] std::string path_of(SimNode node, std::string_view name) const {
    std::string path(name);
    for (; node != root_node; node = nodes_[node].parent) {
      if (!path.empty()) path.insert(0, 1, '/');
      path.insert(0, names_->text(nodes_[node].name));
    }
    return path;
  }

  SimDiskOptions options_;
  std::shared_ptr<SimNames> names_;
  SimLog log_;
  std::vector<Inode> nodes_;
};

}  // namespace detail
}  // namespace garner
