// SPDX-License-Identifier: BSL-1.0
//
// All that a simulated disk is, as text to compare: what is read of it now, and what any crash may leave of it. For
// finding out that two runs have come to the same disk; it is not for reading, and not for keeping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "garner/simulation/sim_disk.hpp"

namespace garner::detail {

/// Numbers nodes in the order in which they are come by, so that it does not matter in which order they were made.
class SimStateWriter {
 public:
  explicit SimStateWriter(const SimDisk& disk) : disk_(disk), numbers_(disk.nodes_.size(), sim_none) {}

  std::string run() {
    add(static_cast<std::uint64_t>(disk_.options_.mode));
    add(disk_.options_.sector);
    add(disk_.options_.capacity);
    add(disk_.used_);
    add(disk_.boots_);
    add_node(SimDisk::root_node);
    for (const SimChange& change : disk_.log_.changes()) {
      add((change.removes_directory ? 1U : 0U) + (change.lost ? 2U : 0U));
      add_place(change.from, change.from_name);
      add_place(change.to, change.to_name);
      add_node(change.node);
    }
    return std::move(out_);
  }

 private:
  void add(std::uint64_t number) {
    for (; number >= 0x80; number >>= 7) out_ += static_cast<char>((number & 0x7f) | 0x80);
    out_ += static_cast<char>(number);
  }

  void add_text(std::string_view text) {
    add(text.size());
    out_ += text;
  }

  void add_place(SimNode directory, SimName name) {
    if (directory == sim_none) return add(0);
    add(1);
    add_node(directory);
    add_text(disk_.names_->text(name));
  }

  /// All of it the first time, then its number.
  void add_node(SimNode node) {
    std::uint32_t& number = numbers_[node];
    if (number != sim_none) return add(number);
    number = next_++;
    add(number);
    const SimDisk::Inode& inode = disk_.nodes_[node];
    add((inode.directory ? 1U : 0U) + (inode.linked ? 2U : 0U) + (inode.tampered ? 4U : 0U));
    add(inode.reserved);
    if (!inode.directory) return inode.contents.write_state([this](auto part) { add_part(part); });
    add_entries(inode.entries);
    add_entries(inode.durable);
  }

  void add_part(std::uint64_t number) { add(number); }
  void add_part(std::string_view text) { add_text(text); }

  void add_entries(const SimEntries& entries) {
    for (const SimEntries::Entry& entry : entries) add_place_of(entry);
    add(0);
  }

  void add_place_of(const SimEntries::Entry& entry) {
    add(1);
    add_text(disk_.names_->text(entry.name));
    add_node(entry.node);
  }

  const SimDisk& disk_;
  std::vector<std::uint32_t> numbers_;
  std::uint32_t next_ = 0;
  std::string out_;
};

}  // namespace garner::detail

namespace garner {

/// The same for two disks where no program that starts on them, and no crash, can tell one from the other. What is open
/// or locked does not count.
inline std::string sim_state(const SimDisk& disk) { return detail::SimStateWriter(disk).run(); }

}  // namespace garner
