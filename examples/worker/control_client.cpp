// SPDX-License-Identifier: BSL-1.0
//
// One request a question. A 404 is an answer; any other failure is thrown.
#include "control_client.hpp"

#include <fmt/format.h>
#include <httplib.h>

#include <stdexcept>
#include <system_error>

#include "control_json.hpp"

namespace worker {

namespace {

using nlohmann::json;

httplib::Client client_of(const ControlAddress& address) {
  httplib::Client client(address.url);
  client.set_connection_timeout(2);
  client.set_read_timeout(60);  // a long list may take its time
  return client;
}

/// The reply's JSON; nothing where it is a 404.
std::optional<json> read(const httplib::Result& result, const std::string& url) {
  if (!result) throw std::runtime_error(fmt::format("{}: {}", url, httplib::to_string(result.error())));
  if (result->status == 404) return std::nullopt;
  if (result->status != 200)
    throw std::runtime_error(fmt::format("{}: status {}: {}", url, result->status, result->body));
  return json::parse(result->body);
}

}  // namespace

std::unique_ptr<ControlClient> ControlClient::connect(const std::filesystem::path& control_file,
                                                      const std::filesystem::path& data_dir) {
  const auto address = read_control_file(control_file);
  if (!address) return nullptr;
  const httplib::Result result = client_of(*address).Get("/status");
  if (!result || result->status != 200) return nullptr;
  const json status = json::parse(result->body, nullptr, false);
  if (!status.is_object() || !status.contains("data_dir")) return nullptr;
  std::error_code error;
  if (status["data_dir"] != std::filesystem::weakly_canonical(data_dir, error).string()) return nullptr;
  return std::make_unique<ControlClient>(*address);
}

std::vector<ChunkRow> ControlClient::list() {
  const auto reply = read(client_of(address_).Get("/chunks"), address_.url);
  return reply ? reply->get<std::vector<ChunkRow>>() : std::vector<ChunkRow>();
}

std::optional<FoundChunk> ControlClient::find(const std::string& dataset, std::uint64_t block) {
  const httplib::Params query{{"dataset", dataset}, {"block", std::to_string(block)}};
  const auto reply = read(client_of(address_).Get("/find", query, httplib::Headers()), address_.url);
  if (!reply) return std::nullopt;
  return reply->get<FoundChunk>();
}

std::optional<std::string> ControlClient::remove(const std::string& chunk) {
  const std::string path = httplib::append_query_params("/chunk", {{"name", chunk}});
  const auto reply =
      read(client_of(address_).Delete(path, {{"Authorization", "Bearer " + address_.token}}), address_.url);
  if (!reply) return std::nullopt;
  return reply->at("deleted").get<std::string>();
}

}  // namespace worker
