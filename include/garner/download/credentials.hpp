// SPDX-License-Identifier: BSL-1.0
//
// What a request says about who asks: what its source brings along, and beside that what was chosen for its host. Not
// here: to which origins that may go.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "garner/chunk.hpp"
#include "garner/download/curl_url.hpp"
#include "garner/error.hpp"
#include "garner/http_header.hpp"
#include "garner/http_options.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

/// Reads `HttpOptions::credentials`, which says what the entries mean. Immutable, so thread-safe.
class CredentialStore {
 public:
  /// Throws `Error`, which names the host and shows no secret.
  explicit CredentialStore(const std::vector<HostCredentials>& all) {
    for (const HostCredentials& credentials : all) {
      const std::string subject = "credentials for " + printable(redact_url(credentials.host));
      if (const HttpHeader* header = find_invalid_header(credentials.headers)) {
        throw Error(errc::invalid_header, subject + ", " + describe_header(*header));
      }
      if (!is_header_value(credentials.bearer_token)) throw Error(errc::invalid_header, subject + ", bearer token");
      if (credentials.s3 && !is_header_value(credentials.s3->session_token)) {
        throw Error(errc::invalid_header, subject + ", session token");
      }
      const int ways = static_cast<int>(!credentials.bearer_token.empty()) +
                       static_cast<int>(!credentials.user.empty() || !credentials.password.empty()) +
                       static_cast<int>(credentials.s3.has_value());
      const std::string host = fold_case(credentials.host);
      const bool is_origin = host.find("://") != std::string::npos;
      CurlUrl url;
      const std::string name = is_origin ? host : "https://" + host.substr(host.starts_with('.') ? 1 : 0);
      const std::error_code error = CurlUrl::parse(name, false, url);
      // What is more than a host, or an origin, is a misunderstanding.
      const bool plain = !error && url.user().empty() && url.password().empty() &&
                         host.find_first_of("/?#@", is_origin ? host.find("://") + 3 : 0) == std::string::npos;
      if (!plain || ways > 1) throw Error(std::make_error_code(std::errc::invalid_argument), subject);
      std::string match = is_origin ? url.origin() : host.front() == '.' ? "." + url.host() : url.host();
      entries_.push_back({std::move(match), is_origin, credentials});
    }
  }

  /// Null where there is nothing for it.
  [[nodiscard]] const HostCredentials* find(const CurlUrl& url) const {
    if (entries_.empty()) return nullptr;
    const std::string host = url.scheme() == "https" ? url.host() : std::string();
    const std::string origin = url.origin();
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      if (entry.is_origin) return entry.match == origin;
      if (!entry.match.starts_with('.')) return entry.match == host;
      return host.size() > entry.match.size() && host.ends_with(entry.match);
    });
    return found != entries_.end() ? &found->credentials : nullptr;
  }

 private:
  struct Entry {
    std::string match;
    bool is_origin;
    HostCredentials credentials;
  };
  std::vector<Entry> entries_;
};

/// `url` as its signature must be made of it: its path and its query with everything encoded that may be, and the query
/// in order. Servers compute the signature from that, whatever was sent; libcurl 7.88 from what is sent.
inline std::string encode_for_signature(const std::string& url) {
  const auto encode = [](std::string_view text, char kept) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
      auto byte = static_cast<std::uint8_t>(text[at]);
      if (text[at] == '%' && at + 2 < text.size() && parse_hex(text.substr(at + 1, 2), &byte, 1)) at += 2;
      const char c = static_cast<char>(byte);
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == kept ||
                         c == '-' || c == '.' || c == '_' || c == '~';
      if (plain) {
        out += c;
      } else {
        out.append(1, '%').append(1, digits[byte >> 4]).append(1, digits[byte & 15]);
      }
    }
    return out;
  };
  const std::string whole = url.substr(0, url.find('#'));
  const std::size_t path = std::min(whole.find('/', whole.find("://") + 3), whole.size());
  const std::size_t query = std::min(whole.find('?', path), whole.size());
  std::vector<std::string> parameters;
  for (std::size_t at = query; at < whole.size();) {
    const std::size_t end = std::min(whole.find('&', at + 1), whole.size());
    const std::string parameter = whole.substr(at + 1, end - at - 1);
    const std::size_t name = std::min(parameter.find('='), parameter.size());
    if (!parameter.empty()) {
      const std::string value = parameter.substr(std::min(name + 1, parameter.size()));
      parameters.push_back(encode(parameter.substr(0, name), '~') + "=" + encode(value, '~'));
    }
    at = end;
  }
  std::sort(parameters.begin(), parameters.end());
  std::string out = whole.substr(0, path) + encode(whole.substr(path, query - path), '/');
  for (std::size_t i = 0; i < parameters.size(); ++i) out += (i == 0 ? "?" : "&") + parameters[i];
  return out;
}

/// Who asks, as one request says it.
struct Identification {
  std::vector<HttpHeader> headers;
  std::string user;
  std::string password;
  const S3Keys* s3 = nullptr;  ///< as long as the credentials that it is of

  /// Of a request for `url` that `source` headers came with; `host` may be null.
  static Identification of(const CurlUrl& url, const std::vector<HttpHeader>& source, const HostCredentials* host) {
    Identification out{source, url.user(), url.password(), nullptr};
    if (host == nullptr) return out;
    const auto has = [&out](std::string_view name) {
      return std::any_of(out.headers.begin(), out.headers.end(),
                         [&](const HttpHeader& header) { return same_token(header.name, name); });
    };
    const bool identified = !out.user.empty() || !out.password.empty() || has("authorization") || url.is_signed();
    std::vector<HttpHeader> more;
    for (const HttpHeader& header : host->headers) {
      if (!has(header.name) && !(identified && same_token(header.name, "authorization"))) more.push_back(header);
    }
    out.headers.insert(out.headers.end(), more.begin(), more.end());
    if (identified || has("authorization")) return out;
    if (!host->bearer_token.empty()) out.headers.push_back({"Authorization", "Bearer " + host->bearer_token});
    out.user = host->user;
    out.password = host->password;
    if (host->s3) {
      out.s3 = &*host->s3;
      // S3 wants to be told the digest of the body, which is empty; libcurl 7.88 does not tell it.
      const char* const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
      if (!has("x-amz-content-sha256")) out.headers.push_back({"x-amz-content-sha256", digest});
      if (!host->s3->session_token.empty()) out.headers.push_back({"x-amz-security-token", host->s3->session_token});
    }
    return out;
  }
};

}  // namespace garner::detail
