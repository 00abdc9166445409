// SPDX-License-Identifier: BSL-1.0
//
// Which hosts may be connected to: by name, and again by the address that the name resolved to. No I/O.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/ip/address.hpp>
#include <asio/ip/network_v4.hpp>
#include <asio/ip/network_v6.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/error.hpp"

namespace garner::detail {

/// Of an IPv4 or IPv6 socket.
inline asio::ip::address address_of(const sockaddr& address) {
  if (address.sa_family == AF_INET6) {
    asio::ip::address_v6::bytes_type bytes;
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    std::copy_n(v6.sin6_addr.s6_addr, bytes.size(), bytes.begin());
    return asio::ip::address_v6(bytes);
  }
  return asio::ip::address_v4(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
}

/// Reads `Options::allowed_hosts`, which says what the entries mean. Immutable, so thread-safe.
class HostFilter {
 public:
  /// Throws `Error` for an entry that is a network and does not parse.
  explicit HostFilter(const std::vector<std::string>& entries) {
    for (const std::string& entry : entries) {
      std::error_code error;
      const auto address = asio::ip::make_address(entry, error);
      const bool slash = entry.find('/') != std::string::npos;
      if (error && !slash) {
        names_.push_back(fold_case(entry));
      } else if (!slash) {
        networks_.emplace_back(address.is_v4() ? Network(asio::ip::network_v4(address.to_v4(), 32))
                                               : Network(asio::ip::network_v6(address.to_v6(), 128)));
      } else {
        networks_.push_back(parse_network(entry));
      }
    }
  }

  /// `host` as a URL has it: a name, or an address without brackets.
  [[nodiscard]] bool allows_host(const std::string& host) const {
    std::error_code error;
    const auto address = asio::ip::make_address(host, error);
    if (!error) return allows_address(address) && (names_.empty() || !networks_.empty());
    const auto matches = [folded = fold_case(host)](const std::string& name) {
      return name.starts_with('.') ? folded.size() > name.size() && folded.ends_with(name) : folded == name;
    };
    return names_.empty() || std::any_of(names_.begin(), names_.end(), matches);
  }

  /// The address that is about to be connected to.
  [[nodiscard]] bool allows_address(asio::ip::address address) const {
    if (networks_.empty()) return true;
    if (address.is_v6() && address.to_v6().is_v4_mapped()) {
      address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
    }
    return std::any_of(networks_.begin(), networks_.end(), [&](const Network& n) { return n.contains(address); });
  }

 private:
  struct Network {
    explicit Network(const asio::ip::network_v4& network) : base(network.network()), prefix(network.prefix_length()) {}
    explicit Network(const asio::ip::network_v6& network) : base(network.network()), prefix(network.prefix_length()) {}

    [[nodiscard]] bool contains(const asio::ip::address& address) const {
      if (address.is_v4() != base.is_v4()) return false;
      if (base.is_v4()) return asio::ip::network_v4(address.to_v4(), prefix).network() == base.to_v4();
      return asio::ip::network_v6(address.to_v6(), prefix).network() == base.to_v6();
    }

    asio::ip::address base;
    unsigned short prefix;
  };

  static Network parse_network(const std::string& entry) {
    std::error_code error;
    const auto v4 = asio::ip::make_network_v4(entry, error);
    if (!error) return Network(v4);
    const auto v6 = asio::ip::make_network_v6(entry, error);
    if (error) throw Error(std::make_error_code(std::errc::invalid_argument), "allowed host " + printable(entry));
    return Network(v6);
  }

  std::vector<std::string> names_;
  std::vector<Network> networks_;
};

}  // namespace garner::detail
