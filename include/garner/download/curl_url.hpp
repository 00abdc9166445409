// SPDX-License-Identifier: BSL-1.0
//
// A URL as libcurl's own parser understands it, which is the only parser here: what was checked is what is fetched.
// Takes credentials out of it. Not here: which hosts are allowed.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/error.hpp"

namespace garner::detail {

/// Initialises libcurl, once for the program. It is not cleaned up: others in the program may use it too.
inline void init_curl() {
  static const CURLcode result = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (result != CURLE_OK) throw Error(std::make_error_code(std::errc::not_supported), "libcurl");
}

/// An `http` or `https` URL without credentials, which stand beside it. Thread-safe as a value is.
class CurlUrl {
 public:
  /// Empty; what `parse` and `resolve` fill.
  CurlUrl() = default;

  /// Reads a whole URL; no scheme is guessed. `errc::invalid_url` or `errc::scheme_not_allowed`, and then `out` is
  /// unchanged.
  static std::error_code parse(std::string_view text, bool require_https, CurlUrl& out) {
    if (!is_clean(text)) return errc::invalid_url;
    Handle handle(curl_url());
    if (handle == nullptr) return std::make_error_code(std::errc::not_enough_memory);
    return finish(std::move(handle), std::string(text), 0, require_https, out);
  }

  /// Follows `location`, absolute or relative, from here (RFC 3986, 5). Credentials of this URL go along to the same
  /// origin only; such as `location` brings along itself are ignored. Never from https to http. All that is wrong with
  /// it is `errc::redirect_not_allowed`.
  std::error_code resolve(const std::string& location, bool require_https, CurlUrl& out) const {
    CurlUrl next;
    Handle handle(curl_url_dup(handle_.get()));
    if (handle == nullptr) return std::make_error_code(std::errc::not_enough_memory);
    const bool secure = require_https || scheme() == "https";
    // A server's spaces and bytes above ASCII are encoded, as browsers do.
    if (finish(std::move(handle), location, CURLU_URLENCODE, secure, next) || !is_clean(next.text())) {
      return errc::redirect_not_allowed;
    }
    const bool same_origin = next.origin() == origin();
    next.user_ = same_origin ? user_ : std::string();
    next.password_ = same_origin ? password_ : std::string();
    out = std::move(next);
    return {};
  }

  /// Whether its query says already who asks, as a presigned URL's does.
  [[nodiscard]] bool is_signed() const {
    const std::string query = "&" + fold_case(part(CURLUPART_QUERY));
    for (const char* name : {"&x-amz-signature=", "&x-goog-signature=", "&signature=", "&sig="}) {
      if (query.find(name) != std::string::npos) return true;
    }
    return false;
  }

  /// For `CURLOPT_CURLU`; valid as long as this object.
  [[nodiscard]] CURLU* handle() const { return handle_.get(); }
  [[nodiscard]] const std::string& user() const { return user_; }
  [[nodiscard]] const std::string& password() const { return password_; }
  [[nodiscard]] std::string scheme() const { return part(CURLUPART_SCHEME); }
  /// Without the brackets of an IPv6 address.
  [[nodiscard]] std::string host() const {
    std::string host = part(CURLUPART_HOST);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    return fold_case(host);
  }
  /// Scheme, host and port.
  [[nodiscard]] std::string origin() const {
    return scheme() + "://" + host() + ":" + part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
  }
  /// The whole, without credentials. May hold a signature: not for people.
  [[nodiscard]] std::string text() const { return part(CURLUPART_URL); }

 private:
  struct Cleanup {
    void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
    void operator()(char* text) const { curl_free(text); }
  };
  using Handle = std::unique_ptr<CURLU, Cleanup>;

  /// Printable ASCII without spaces; libcurl would stop at a NUL.
  static bool is_clean(std::string_view text) {
    for (const char c : text) {
      if (c <= ' ' || c > '~') return false;
    }
    return !text.empty();
  }

  static std::error_code finish(Handle handle, const std::string& text, unsigned flags, bool require_https,
                                CurlUrl& out) {
    // Schemes that libcurl does not speak are read too, to tell them from what is no URL.
    const CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), flags | CURLU_NON_SUPPORT_SCHEME);
    if (code == CURLUE_OUT_OF_MEMORY) return std::make_error_code(std::errc::not_enough_memory);
    if (code != CURLUE_OK) return errc::invalid_url;
    CurlUrl url;
    url.handle_ = std::move(handle);
    const std::string scheme = fold_case(url.scheme());
    if (scheme != "https" && (require_https || scheme != "http")) return errc::scheme_not_allowed;
    if (url.host().empty()) return errc::invalid_url;
    if (!url.take(CURLUPART_USER, url.user_) || !url.take(CURLUPART_PASSWORD, url.password_)) {
      return errc::invalid_url;
    }
    std::string options;
    url.take(CURLUPART_OPTIONS, options);
    out = std::move(url);
    return {};
  }

  /// Moves a part out of the URL, decoded; false where its decoded form has control bytes.
  bool take(CURLUPart which, std::string& value) {
    char* text = nullptr;
    const CURLUcode code = curl_url_get(handle_.get(), which, &text, CURLU_URLDECODE);
    const std::unique_ptr<char, Cleanup> owner(text);
    if (code == CURLUE_OK && text != nullptr) value = text;
    curl_url_set(handle_.get(), which, nullptr, 0);
    return code != CURLUE_URLDECODE;
  }

  [[nodiscard]] std::string part(CURLUPart which, unsigned flags = 0) const {
    char* text = nullptr;
    const CURLUcode code = curl_url_get(handle_.get(), which, &text, flags);
    const std::unique_ptr<char, Cleanup> owner(text);
    return code == CURLUE_OK && text != nullptr ? std::string(text) : std::string();
  }

  Handle handle_;
  std::string user_;
  std::string password_;
};

}  // namespace garner::detail
