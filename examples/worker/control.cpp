// SPDX-License-Identifier: BSL-1.0
//
// The routes, and the control file.
#include "control.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <httplib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "control_json.hpp"
#include "metrics.hpp"

namespace worker {

namespace {

using nlohmann::json;

constexpr std::string_view help =
    "GET /status\nGET /chunks\nGET /find?dataset=NAME&block=NUMBER\nDELETE /chunk?name=NAME\nGET /metrics\n";

json status_json(Service& service) {
  const garner::Status status = service.manager().status();
  return {{"data_dir", std::filesystem::weakly_canonical(service.data_dir()).string()},
          {"pid", getpid()},
          {"chunks",
           {{"ready", status.ready},
            {"queued", status.queued},
            {"downloading", status.downloading},
            {"waiting", status.waiting},
            {"parked", status.parked},
            {"draining", status.draining},
            {"removing", status.removing},
            {"checking", status.checking}}},
          {"bytes_ready", status.bytes_ready},
          {"bytes_received", status.bytes_received},
          {"bytes_wasted", status.bytes_wasted},
          {"bytes_per_second", status.bytes_per_second},
          {"chunks_published", status.chunks_published},
          {"chunks_removed", status.chunks_removed},
          {"attempts_failed", status.attempts_failed},
          {"store_bytes_used", status.store_bytes_used},
          {"store_bytes_free", status.store_bytes_free},
          {"assigned_epoch", status.assigned_epoch},
          {"converged_epoch", status.converged_epoch},
          {"converged", status.converged}};
}

void reply_json(httplib::Response& response, const json& value, int status = 200) {
  response.status = status;
  // Names come from manifests and requests: what is no UTF-8 is replaced.
  response.set_content(value.dump(2, ' ', false, json::error_handler_t::replace) + "\n", "application/json");
}

void reply_error(httplib::Response& response, int status, const std::string& text) {
  reply_json(response, {{"error", text}}, status);
}

std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

/// The host and the port of "HOST:PORT" or "[HOST]:PORT".
std::pair<std::string, int> split_listen(const std::string& listen) {
  const std::size_t colon = listen.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const char* const end = listen.data() + listen.size();
    const auto [rest, error] = std::from_chars(listen.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end) port = -1;
  }
  if (port < 0 || port > 65535) throw std::runtime_error(fmt::format("'{}' is not HOST:PORT", listen));
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host.empty() ? "127.0.0.1" : host, port};
}

}  // namespace

std::filesystem::path default_control_file(const std::filesystem::path& data_dir) {
  std::filesystem::path directory = std::filesystem::absolute(data_dir).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();  // "data/"
  directory += ".control";
  return directory;
}

std::optional<ControlAddress> read_control_file(const std::filesystem::path& file) {
  std::ifstream in(file);
  ControlAddress address;
  if (!std::getline(in, address.url) || !std::getline(in, address.token)) return std::nullopt;
  if (!address.url.starts_with("http://")) return std::nullopt;
  return address;
}

ControlServer::ControlServer(Service& service, const std::string& listen, std::filesystem::path control_file)
    : service_(service), control_file_(std::move(control_file)), server_(std::make_unique<httplib::Server>()) {
  server_->new_task_queue = [] { return new httplib::ThreadPool(2); };  // httplib deletes it
  // Its own default sets SO_REUSEPORT, with which two workers could share one port.
  server_->set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  add_routes();
  const auto [host, wanted_port] = split_listen(listen);
  const int port = wanted_port == 0                           ? server_->bind_to_any_port(host)
                   : server_->bind_to_port(host, wanted_port) ? wanted_port
                                                              : -1;
  if (port < 0) throw std::runtime_error(fmt::format("cannot listen on {}", listen));
  const bool is_v6 = host.find(':') != std::string::npos;
  address_ = {fmt::format("http://{}:{}", is_v6 ? fmt::format("[{}]", host) : host, port), random_token()};
  write_control_file();
  thread_ = std::thread([this] {
    server_->listen_after_bind();
    stopped_ = true;
  });
}

ControlServer::~ControlServer() {
  // Removed first: whoever reads it from now on must not find a worker that is going away. Another worker may
  // have replaced it by its own meanwhile.
  const auto on_disk = read_control_file(control_file_);
  std::error_code ignored;
  if (on_disk && on_disk->token == address_.token) std::filesystem::remove(control_file_, ignored);
  while (!server_->is_running() && !stopped_) std::this_thread::yield();  // stop() before that would be lost
  server_->stop();
  thread_.join();
}

void ControlServer::add_routes() {
  server_->Get("/", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(std::string(help), "text/plain");
  });
  server_->Get("/status", [this](const httplib::Request&, httplib::Response& response) {
    reply_json(response, status_json(service_));
  });
  server_->Get("/chunks",
               [this](const httplib::Request&, httplib::Response& response) { reply_json(response, service_.list()); });
  server_->Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    const Metrics metrics([this] { return service_.manager().status(); });
    response.set_content(metrics.to_text(), "text/plain; version=0.0.4");
  });
  server_->Get("/find", [this](const httplib::Request& request, httplib::Response& response) {
    const std::string block_text = request.get_param_value("block");
    std::uint64_t block = 0;
    const char* const end = block_text.data() + block_text.size();
    const auto [rest, error] = std::from_chars(block_text.data(), end, block);
    if (!request.has_param("dataset") || error != std::errc() || rest != end) {
      return reply_error(response, 400, "needs dataset=NAME and block=NUMBER");
    }
    const auto found = service_.find(request.get_param_value("dataset"), block);
    if (!found) return reply_error(response, 404, "no chunk serves this block");
    reply_json(response, *found);
  });
  server_->Delete("/chunk", [this](const httplib::Request& request, httplib::Response& response) {
    if (request.get_header_value("Authorization") != "Bearer " + address_.token) {
      return reply_error(response, 401, "needs the token from the control file");
    }
    const auto id = service_.remove(request.get_param_value("name"));
    if (!id) return reply_error(response, 404, "no such chunk");
    reply_json(response, {{"deleted", *id}});
  });
}

void ControlServer::write_control_file() const {
  // Written aside and renamed: a reader sees all of it or none.
  std::filesystem::path aside = control_file_;
  aside += fmt::format(".{}", getpid());
  const std::string text = fmt::format("{}\n{}\n", address_.url, address_.token);
  ::unlink(aside.c_str());
  const int descriptor = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  const bool written =
      descriptor >= 0 && ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (written && ::rename(aside.c_str(), control_file_.c_str()) == 0) return;
  if (written) error = errno;
  ::unlink(aside.c_str());
  throw std::system_error(error, std::generic_category(), control_file_.string());
}

}  // namespace worker
