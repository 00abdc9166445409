// SPDX-License-Identifier: BSL-1.0
//
// The HTTP interface of a running worker, and the file that tells others where it is:
//
//   GET /status          JSON           GET /find?dataset=D&block=N   JSON; 404 where no chunk serves the
//   block GET /chunks          JSON           DELETE /chunk?name=C          JSON; a name or an id; needs the
//   file's token GET /metrics         Prometheus     GET /                         this list
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "service.hpp"

namespace httplib {
class Server;
}  // namespace httplib

namespace worker {

/// What the control file holds, a line each. The file is its owner's alone (mode 0600), so the token keeps
/// others on the machine, and web pages that its users look at, from deleting chunks.
struct ControlAddress {
  std::string url;
  std::string token;
};

/// The control file of a data directory, beside it: nothing foreign lies inside.
std::filesystem::path default_control_file(const std::filesystem::path& data_dir);
/// Nothing where there is no such file, or another kind of file.
std::optional<ControlAddress> read_control_file(const std::filesystem::path& file);

/// Answers from construction to destruction.
class ControlServer {
 public:
  /// Listens on `listen` ("127.0.0.1:0"; port 0 is any that is free) and writes the control file, which is
  /// removed at the end. `service` outlives it. Throws `std::runtime_error`.
  ControlServer(Service& service, const std::string& listen, std::filesystem::path control_file);
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();

  [[nodiscard]] const std::string& url() const noexcept { return address_.url; }

 private:
  void add_routes();
  void write_control_file() const;

  Service& service_;
  const std::filesystem::path control_file_;
  ControlAddress address_;
  std::unique_ptr<httplib::Server> server_;
  std::atomic<bool> stopped_ = false;  ///< the server ended, by itself too
  std::thread thread_;
};

}  // namespace worker
