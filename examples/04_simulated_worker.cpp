// SPDX-License-Identifier: BSL-1.0
//
// A test of your own worker on a simulated machine: whatever fails and whenever the power is cut, what it answers is
// right.
#include <chrono>
#include <iostream>
#include <optional>
#include <string>

#include "garner/data_manager.hpp"
#include "garner/simulation/sim_downloader.hpp"
#include "garner/simulation/sim_machine.hpp"

const garner::DatasetId dataset = garner::DatasetId::from_name("lake");

/// Yours: on any policies, those that you deploy and those of the simulation.
template <class Manager>
std::optional<std::string> answer(const Manager& manager, const garner::SimDisk& disk, garner::BlockNumber block) {
  const auto pin = manager.find_chunk(dataset, block);
  if (!pin) return std::nullopt;
  return *disk.contents(pin->path().lexically_relative("/sim").string() + "/blocks");
}

int main() {
  int answers = 0, wrong = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    garner::SeededDecisions decisions(seed);  // the same seed, the same run
    garner::SimWorld world(decisions);
    garner::SimNetwork network(world);
    garner::SimMachine machine(world);
    network.put("http://lake/blocks", "all of them");
    for (int life = 0; life < 4; ++life) {
      machine.start();
      world.faults = {};  // only once the store is open this seed's faults begin
      garner::DataManager manager(machine.storage(), garner::SimDownloader(network), garner::SimExecutor(world));
      world.faults = garner::SimFaults::swarm(decisions);
      world.faults[garner::SimFaultKind::wrong_bytes] = 0;  // without a digest nothing can notice those
      world.faults[garner::SimFaultKind::misdirected] = 0;  // nor these, before the next verify()
      machine.end_after(1 + decisions.choose(100), garner::SimEnd::power_cut);
      manager.download_chunk({garner::ChunkId::from_name("c"), dataset, {0, 9}, {{"blocks", "http://lake/blocks"}}});
      for (int task = 0; task < 1000 && !machine.ended(); ++task) {
        world.run_one_until(world.now() + std::chrono::minutes(1));
        const std::optional<std::string> told = answer(manager, machine.disk(), 4);
        answers += told ? 1 : 0;
        wrong += told && *told != "all of them" ? 1 : 0;
      }
    }
  }
  std::cout << (answers > 0 ? "many" : "no") << " answers, " << wrong << " of them wrong\n";
}
