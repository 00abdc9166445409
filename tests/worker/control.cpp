// SPDX-License-Identifier: BSL-1.0
//
// The example worker's answers: through its HTTP interface, and by itself.
#include "worker/control.hpp"

#include <doctest/doctest.h>
#include <httplib.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/temporary_directory.hpp"
#include "worker/control_client.hpp"
#include "worker/metrics.hpp"
#include "worker/origin.hpp"
#include "worker/service.hpp"

namespace {

using worker::ControlClient;
using worker::ControlServer;
using worker::Service;

/// A worker that keeps two chunks, [0, 10) and [10, 20) of "lake".
struct Worker {
  Worker() {
    std::istringstream lines(
        R"({"dataset":"lake","id":"lake/0","blocks":[0,10],"files":{"a":{"urls":["https://x/0a"],"size":100},"b":{"urls":["https://x/0b"],"size":50}}})"
        "\n"
        R"({"dataset":"lake","id":"lake/10","blocks":[10,20],"files":{"a":{"urls":["https://x/10a"],"size":0}}})");
    manifest = worker::parse_manifest(lines, "test");
    origin = std::make_unique<worker::Origin>(manifest, worker::OriginOptions{.scale = 1});
    service = std::make_unique<Service>(directory.path() / "data", garner::Options());
    service->assign(manifest.assignment());
    REQUIRE(service->manager().wait_converged(std::chrono::seconds(30)));
  }

  [[nodiscard]] std::filesystem::path control_file() const { return directory.path() / "control"; }

  support::TemporaryDirectory directory{"garner-control-test"};
  worker::Manifest manifest;
  std::unique_ptr<worker::Origin> origin;
  std::unique_ptr<Service> service;
};

void check_answers(worker::Backend& backend) {
  const auto rows = backend.list();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].name == "lake/0");
  CHECK(rows[0].id == garner::ChunkId::from_name("lake/0").to_hex());
  CHECK(rows[0].dataset == "lake");
  CHECK(rows[0].end == 10);
  CHECK(rows[0].state == "ready");
  CHECK(rows[0].files == 2);
  CHECK(rows[0].bytes == 150);
  CHECK(rows[1].name == "lake/10");

  const auto found = backend.find("lake", 9);
  REQUIRE(found.has_value());
  CHECK(found->chunk.name == "lake/0");
  REQUIRE(found->files.size() == 2);
  CHECK(std::filesystem::file_size(found->files[0].path) == 100);
  CHECK(found->files[0].digest.starts_with("sha256:"));
  CHECK(backend.find(garner::DatasetId::from_name("lake").to_hex(), 10)->chunk.name == "lake/10");
  CHECK_FALSE(backend.find("lake", 20).has_value());
  CHECK_FALSE(backend.find("sea", 9).has_value());

  CHECK(backend.remove("lake/0") == garner::ChunkId::from_name("lake/0").to_hex());
  CHECK_FALSE(backend.find("lake", 9).has_value());
  CHECK_FALSE(backend.remove("lake/5").has_value());
  CHECK(backend.remove(garner::ChunkId::from_name("lake/10").to_hex()).has_value());
  CHECK_FALSE(backend.remove("lake/10").has_value());
}

}  // namespace

TEST_CASE("a worker lists, finds and deletes by itself") {
  const Worker worker;
  check_answers(*worker.service);
  CHECK(worker.service->manager().wait_converged(std::chrono::seconds(30)));
  CHECK(worker.service->list().empty());
}

TEST_CASE("a worker lists, finds and deletes over HTTP") {
  const Worker worker;
  const ControlServer server(*worker.service, "127.0.0.1:0", worker.control_file());
  const auto client = ControlClient::connect(worker.control_file(), worker.service->data_dir());
  REQUIRE(client != nullptr);
  check_answers(*client);
}

TEST_CASE("a directory without a worker is answered from its names alone") {
  Worker worker;
  worker.service.reset();
  Service again(worker.directory.path() / "data", garner::Options());
  const auto rows = again.list();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].name.empty());
  CHECK(rows[0].dataset == garner::DatasetId::from_name("lake").to_hex());
  again.learn(worker.manifest);
  check_answers(again);
}

TEST_CASE("the control file is its owner's alone, and goes with the worker") {
  const Worker worker;
  {
    const ControlServer server(*worker.service, "127.0.0.1:0", worker.control_file());
    struct stat status {};
    REQUIRE(stat(worker.control_file().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    const auto address = worker::read_control_file(worker.control_file());
    REQUIRE(address.has_value());
    CHECK(address->url == server.url());
  }
  CHECK_FALSE(std::filesystem::exists(worker.control_file()));
  CHECK(ControlClient::connect(worker.control_file(), worker.service->data_dir()) == nullptr);
}

TEST_CASE("a control file that leads to another directory's worker is not followed") {
  const Worker worker;
  const ControlServer server(*worker.service, "127.0.0.1:0", worker.control_file());
  CHECK(ControlClient::connect(worker.control_file(), worker.directory.path() / "other") == nullptr);
}

TEST_CASE("nothing is deleted without the token") {
  const Worker worker;
  const ControlServer server(*worker.service, "127.0.0.1:0", worker.control_file());
  httplib::Client client(server.url());
  CHECK(client.Delete("/chunk?name=lake/0")->status == 401);
  CHECK(client.Delete("/chunk?name=lake/0", {{"Authorization", "Bearer "}})->status == 401);
  CHECK(worker.service->find("lake", 0).has_value());
}

TEST_CASE("status is JSON, metrics are Prometheus text, and nonsense is a 400") {
  const Worker worker;
  const ControlServer server(*worker.service, "127.0.0.1:0", worker.control_file());
  httplib::Client client(server.url());
  const auto status = nlohmann::json::parse(client.Get("/status")->body);
  CHECK(status["converged"] == true);
  CHECK(status["chunks"]["ready"] == 2);
  CHECK(status["bytes_ready"] == 150);
  const std::string metrics = client.Get("/metrics")->body;
  CHECK(metrics.find("garner_chunks{state=\"ready\"} 2\n") != std::string::npos);
  CHECK(metrics.find("# TYPE garner_received_bytes_total counter\n") != std::string::npos);
  CHECK(client.Get("/find?dataset=lake&block=x")->status == 400);
  CHECK(client.Get("/find?block=1")->status == 400);
  CHECK(client.Get("/nowhere")->status == 404);
}

TEST_CASE("a worker that cannot listen says so") {
  const Worker worker;
  for (const char* listen : {"127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "256.0.0.1:0"}) {
    CHECK_THROWS_AS(ControlServer(*worker.service, listen, worker.control_file()), std::runtime_error);
  }
  const ControlServer first(*worker.service, "127.0.0.1:0", worker.control_file());
  const std::string taken = first.url().substr(std::string("http://").size());
  CHECK_THROWS_AS(ControlServer(*worker.service, taken, worker.control_file()), std::runtime_error);
}

TEST_CASE("the control file lies beside the data directory, not in it") {
  CHECK(worker::default_control_file("/srv/data") == "/srv/data.control");
  CHECK(worker::default_control_file("/srv/data/") == "/srv/data.control");
  CHECK(worker::default_control_file("/srv/x/../data/.") == "/srv/data.control");
}
