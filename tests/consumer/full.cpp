// SPDX-License-Identifier: BSL-1.0
//
// Uses all of garner, with the default policies.
#include <filesystem>
#include <garner/garner.hpp>

int main() {
  const std::filesystem::path directory = "consumer_data";
  const garner::DataManager<> manager(directory);
  return manager.list_chunks().empty() ? 0 : 1;
}
