// SPDX-License-Identifier: BSL-1.0
//
// Signature Version 4 as a server checks it: made anew from the request that came, as AWS specifies it ("Create a
// signed AWS API request"), with nothing of what the client signed with but its keys.
#pragma once

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "garner/ids.hpp"
#include "support/http_server.hpp"

namespace garner::test {

inline std::string hmac_sha256(const std::string& key, const std::string& text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), out.data(), &size);
  return {out.begin(), out.begin() + size};
}

inline std::string hex(const std::string& bytes) {
  return detail::format_hex(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

inline std::string sha256_hex(const std::string& text) {
  detail::Sha256 hash;
  hash.update(std::string_view(text));
  const auto digest = hash.finish();
  return detail::format_hex(digest.data(), digest.size());
}

/// What comes between `before` and the next `end`.
inline std::string between(const std::string& text, const std::string& before, char end) {
  const std::size_t at = text.find(before);
  if (at == std::string::npos) return {};
  return text.substr(at + before.size(), text.find(end, at + before.size()) - at - before.size());
}

/// Decoded, and encoded as AWS does: everything but unreserved characters, and in a path the slash.
inline std::string uri_encode(std::string_view text, bool is_path) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    if (text[i] == '%') {
      byte = static_cast<unsigned char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    }
    const char c = static_cast<char>(byte);
    const bool plain = std::string_view("-._~").find(c) != std::string_view::npos || (c >= '0' && c <= '9') ||
                       (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (is_path && c == '/');
    std::array<char, 4> code{};
    std::snprintf(code.data(), code.size(), "%%%02X", static_cast<unsigned>(byte));
    out += plain ? std::string(1, c) : std::string(code.data());
  }
  return out;
}

/// Whether the request is signed with `secret`, for the region and service that it says itself.
inline bool has_valid_signature(const Exchange& request, const std::string& secret) {
  const std::string said = request.field("authorization");
  std::istringstream scope(between(said, "Credential=", ','));
  std::array<std::string, 5> parts;  // key, date, region, service, "aws4_request"
  for (std::string& part : parts) std::getline(scope, part, '/');
  const std::string signed_headers = between(said, "SignedHeaders=", ',');

  const std::string path = request.target.substr(0, request.target.find('?'));
  std::vector<std::string> parameters;
  if (path.size() < request.target.size()) {
    std::istringstream query(request.target.substr(path.size() + 1));
    for (std::string parameter; std::getline(query, parameter, '&');) {
      const std::size_t name = std::min(parameter.find('='), parameter.size());
      const std::string value = parameter.substr(std::min(name + 1, parameter.size()));
      parameters.push_back(uri_encode(parameter.substr(0, name), false) + "=" + uri_encode(value, false));
    }
  }
  std::sort(parameters.begin(), parameters.end());
  std::string canonical = request.method + "\n" + uri_encode(path, true) + "\n";
  for (std::size_t i = 0; i < parameters.size(); ++i) canonical += (i == 0 ? "" : "&") + parameters[i];
  canonical += "\n";
  std::istringstream names(signed_headers);
  for (std::string name; std::getline(names, name, ';');) {
    std::string value = request.field(name);
    const auto both_spaces = [](char a, char b) { return a == ' ' && b == ' '; };
    value.erase(std::unique(value.begin(), value.end(), both_spaces), value.end());
    canonical.append(name).append(":").append(value).append("\n");
  }
  const std::string given = request.field("x-amz-content-sha256");
  canonical += "\n" + signed_headers + "\n" + (given.empty() ? sha256_hex("") : given);

  const std::string text = "AWS4-HMAC-SHA256\n" + request.field("x-amz-date") + "\n" + parts[1] + "/" + parts[2] + "/" +
                           parts[3] + "/aws4_request\n" + sha256_hex(canonical);
  std::string key = "AWS4" + secret;
  for (std::size_t i = 1; i < parts.size(); ++i) key = hmac_sha256(key, parts[i]);
  // The host, and what of AWS's own is there, must be among what is signed.
  for (const auto& [name, value] : request.fields) {
    const bool must = name == "host" || name.starts_with("x-amz-");
    if (must && (";" + signed_headers + ";").find(";" + name + ";") == std::string::npos) return false;
  }
  return hex(hmac_sha256(key, text)) == said.substr(said.find("Signature=") + 10);
}

}  // namespace garner::test
