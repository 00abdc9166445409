// SPDX-License-Identifier: BSL-1.0
//
// One transfer on one reusable libcurl easy handle: the request it sends, what it does with each piece of the answer,
// and how it ends. Redirects are followed here, hop by hop, so that each is held to the same rules.
#pragma once

#include <curl/curl.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "garner/chunk.hpp"
#include "garner/download/credentials.hpp"
#include "garner/download/curl_driver.hpp"
#include "garner/download/curl_errors.hpp"
#include "garner/download/curl_handle.hpp"
#include "garner/download/curl_lanes.hpp"
#include "garner/download/curl_pace.hpp"
#include "garner/download/curl_settings.hpp"
#include "garner/download/curl_shared.hpp"
#include "garner/download/curl_url.hpp"
#include "garner/download/gather_buffer.hpp"
#include "garner/download/host_filter.hpp"
#include "garner/download/http_response.hpp"
#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"

namespace garner::detail {

/// Used on its loop's thread only. Does not deliver `done`: its loop does, when it has let go of the handle.
class CurlTransfer final : public Paced {
 public:
  CurlTransfer(const CurlShared& shared, CurlLanes& lanes, CurlPace& pace)
      : shared_(shared),
        settings_(shared.settings),
        lanes_(lanes),
        pace_(pace),
        driver_(&lanes.parallel()),
        handle_(shared.settings),
        head_(shared.settings.max_header_bytes),
        buffer_(shared.settings.write_bytes) {
    set_up();
  }
  CurlTransfer(const CurlTransfer&) = delete;
  CurlTransfer& operator=(const CurlTransfer&) = delete;

  [[nodiscard]] CURL* easy() const { return handle_.easy(); }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// Of the multi handle that it is to be in.
  [[nodiscard]] CurlDriver& driver() const { return *driver_; }
  /// Whether it does more than wait for a connection that it may use.
  [[nodiscard]] bool has_begun() const { return begun_; }

  /// Not while it is in a multi handle.
  void choose_lane() {
    const std::optional<std::uint64_t> size = request_.size ? request_.size : request_.identity.length;
    const bool left = size && *size >= request_.offset;
    // What shares a connection cannot be held up by itself.
    const bool may_share = left && pace_.rate() == 0;
    driver_ = &lanes_.choose(url_, may_share ? std::optional(*size - request_.offset) : std::nullopt);
    const bool shares = driver_ == &lanes_.shared();
    set(CURLOPT_HTTP_VERSION, static_cast<long>(shares ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    set(CURLOPT_PIPEWAIT, shares ? 1L : 0L);
    set(CURLOPT_CLOSESOCKETDATA, driver_);
  }

  /// No more of the body is taken: libcurl may go on with it for a hundred reads before it hears of anything else. On
  /// the loop's thread, from inside of the sink too.
  void cancel() noexcept { cancelled_ = true; }

  /// Prepares the handle. Where this is an error, the transfer is over, with that result.
  std::error_code assign(std::uint64_t id, FetchRequest request, std::shared_ptr<FetchSink> sink) {
    id_ = id;
    request_ = std::move(request);
    sink_ = std::move(sink);
    redirects_ = 0;
    cancelled_ = false;
    left_origin_ = false;
    error_ = CurlUrl::parse(request_.url, settings_.require_https, url_);
    const HttpHeader* const invalid = find_invalid_header(request_.headers);
    if (!error_ && invalid != nullptr) {
      error_ = errc::invalid_header;
      reason_ = describe_header(*invalid);
    }
    if (error_ && reason_.empty()) reason_ = "not fetched";
    if (!error_) prepare();
    return error_;
  }

  /// libcurl is done with the handle. True: so is the transfer. False: it goes on at another URL.
  bool finish(CURLcode code) {
    const bool stuck = code == CURLE_OPERATION_TIMEDOUT || code == CURLE_HTTP2;
    if (stuck && driver_ == &lanes_.shared()) lanes_.learn_alone(url_);
    if (!error_ && verdict_.kind == Verdict::Kind::redirect && answered_) return !follow();
    if (!error_ && answered_ && verdict_.kind == Verdict::Kind::refused) error_ = verdict_.error;
    if (error_ || (answered_ && verdict_.kind == Verdict::Kind::complete)) return true;
    if (code == CURLE_OK && !answered_) code = CURLE_GOT_NOTHING;  // it was cut within the head
    if (answered_) error_ = buffer_.flush(*sink_);  // also before a failure: the transfer resumes from there
    if (error_) return true;
    error_ = code == CURLE_OK ? check_end() : connect_error_ ? connect_error_ : error_of_curl(code, answered_);
    if (code != CURLE_OK && reason_.empty())
      reason_ = error_text_[0] != '\0' ? error_text_.data() : curl_easy_strerror(code);
    return true;
  }

  bool resume() override { return curl_easy_pause(easy(), CURLPAUSE_CONT) == CURLE_OK; }

  /// The end that somebody else decided on.
  void fail(std::error_code error) {
    if (!error_) error_ = error;
  }

  /// Leaves the transfer empty, for the next one.
  std::pair<std::shared_ptr<FetchSink>, FetchResult> take() {
    FetchResult result;
    result.error = error_;
    result.http_status = head_.status();
    if (error_) {
      const auto date = [](const std::string& text) { return std::int64_t{curl_getdate(text.c_str(), nullptr)}; };
      result.retry_after = parse_retry_after(head_.retry_after, std::int64_t{std::time(nullptr)}, date);
      result.detail = describe();
    }
    head_ = HttpHead(settings_.max_header_bytes);
    buffer_.clear();
    url_ = CurlUrl();
    error_ = {};
    reason_.clear();
    long opened = 0;
    curl_easy_getinfo(easy(), CURLINFO_NUM_CONNECTS, &opened);
    if (opened > 0) set_up();
    return {std::exchange(sink_, nullptr), std::move(result)};
  }

 private:
  struct Cleanup {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };

  /// Also after each transfer that opened a connection: perhaps because a kept one had just been closed, which libcurl
  /// counts, gives up at the sixth, and does not forget: the count is the handle's, not the transfer's.
  void set_up() {
    handle_.renew();
    signs_ = false;
    set(CURLOPT_PRIVATE, this);
    set(CURLOPT_ERRORBUFFER, error_text_.data());
    set(CURLOPT_HEADERFUNCTION, &CurlTransfer::on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &CurlTransfer::on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_OPENSOCKETFUNCTION, &CurlTransfer::on_open);
    set(CURLOPT_OPENSOCKETDATA, this);
    set(CURLOPT_CLOSESOCKETFUNCTION, &CurlDriver::close_socket);
#if LIBCURL_VERSION_NUM >= 0x075000
    set(CURLOPT_PREREQFUNCTION, &CurlTransfer::on_request);
    set(CURLOPT_PREREQDATA, this);
#endif
  }

  template <class Value>
  void set(CURLoption option, Value value) {
    handle_.set(option, value);
  }

  /// Sets up the handle for `url_`.
  void prepare() {
    head_ = HttpHead(settings_.max_header_bytes);
    verdict_ = {};
    begun_ = false;
    answered_ = false;
    ignored_ = 0;
    connect_error_ = {};
    error_text_[0] = '\0';
    if (!shared_.filter.allows_host(url_.host())) {
      error_ = redirects_ == 0 ? errc::connection_failed : errc::redirect_not_allowed;
      reason_ = "the host is not allowed";
      return;
    }
    headers_.reset();
    add_header("Accept-Encoding: identity");
    identify();
    set(CURLOPT_CURLU, url_.handle());
    choose_lane();
    handle_.set_speeds(pace_.rate());
    if (request_.offset == 0) {
      set(CURLOPT_RANGE, static_cast<const char*>(nullptr));
    } else {
      set(CURLOPT_RANGE, (std::to_string(request_.offset) + "-").c_str());
      const std::string validator = if_range(request_.identity);
      if (!validator.empty()) add_header("If-Range: " + validator);
    }
    set(CURLOPT_HTTPHEADER, headers_.get());
  }

  /// Says who asks: to the origin that was asked first, and to nobody else.
  void identify() {
    Identification who;
    if (!left_origin_) who = Identification::of(url_, request_.headers, shared_.credentials.find(url_));
    handle_.show_client_certificate(!left_origin_);
    for (const HttpHeader& header : who.headers) {
      add_header(header.name + (header.value.empty() ? ";" : ": " + header.value));
    }
    if (who.s3 != nullptr) {
      set(CURLOPT_AWS_SIGV4, ("aws:amz:" + who.s3->region + ":" + who.s3->service).c_str());
      who.user = who.s3->access_key;
      who.password = who.s3->secret_key;
      CurlUrl::parse(encode_for_signature(url_.text()), settings_.require_https, url_);
    } else if (std::exchange(signs_, false)) {
      set(CURLOPT_AWS_SIGV4, static_cast<const char*>(nullptr));
      set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    }
    signs_ = who.s3 != nullptr;
    const bool named = !who.user.empty() || !who.password.empty();
    set(CURLOPT_USERNAME, named ? who.user.c_str() : nullptr);
    set(CURLOPT_PASSWORD, named ? who.password.c_str() : nullptr);
  }

  void add_header(const std::string& line) {
    curl_slist* const longer = curl_slist_append(headers_.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(headers_.release());
    headers_.reset(longer);
  }

  /// False where the redirect may not be followed, or not begun.
  bool follow() {
    CurlUrl next;
    if (++redirects_ > settings_.max_redirects) {
      error_ = errc::redirect_not_allowed;
      reason_ = "too many redirects";
      return false;
    }
    error_ = url_.resolve(head_.location, settings_.require_https, next);
    if (error_) return false;
    left_origin_ = left_origin_ || next.origin() != url_.origin();
    url_ = std::move(next);
    prepare();
    return !error_;
  }

  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self) noexcept {
    return static_cast<CurlTransfer*>(self)->take_header({data, size}) ? size : 0;
  }

  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) noexcept {
    auto& transfer = *static_cast<CurlTransfer*>(self);
    const std::span<const std::byte> piece = std::as_bytes(std::span(data, size));
    if (transfer.is_data() && !transfer.may_take(piece.size())) return transfer.hold_back();
    return transfer.take_body(piece) ? size : 0;
  }

  static int on_request(void* self, char*, char*, int, int) noexcept {
    static_cast<CurlTransfer*>(self)->begun_ = true;
    return 0;
  }

  static curl_socket_t on_open(void* self, curlsocktype, curl_sockaddr* address) noexcept {
    auto& transfer = *static_cast<CurlTransfer*>(self);
    transfer.begun_ = true;
    const bool direct = transfer.settings_.proxy.empty();
    if (direct && !transfer.shared_.filter.allows_address(address_of(address->addr))) {
      transfer.reason_ = "the host's address is not allowed";
      return CURL_SOCKET_BAD;
    }
    const int fd = transfer.driver_->open_socket(address->family, address->socktype, address->protocol);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) transfer.connect_error_ = errc::too_many_open_files;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
  }

  [[nodiscard]] bool is_multiplexed() const {
    long version = 0;
    return curl_easy_getinfo(easy(), CURLINFO_HTTP_VERSION, &version) == CURLE_OK &&
           version >= static_cast<long>(CURL_HTTP_VERSION_2_0);
  }

  bool take_header(std::string_view line) {
    error_ = head_.add_line(line);
    if (error_) return false;
    if (answered_ || !head_.complete()) return true;
    answered_ = true;
    if (driver_ == &lanes_.shared() && !is_multiplexed()) lanes_.learn_alone(url_);
    verdict_ = judge(request_, head_, settings_.max_file_bytes);
    received_ = 0;
    switch (verdict_.kind) {
      case Verdict::Kind::redirect:
      case Verdict::Kind::refused: return head_.content_length.value_or(0) <= most_ignored;
      case Verdict::Kind::complete:
      case Verdict::Kind::data: break;
    }
    limit_ = verdict_.body.value_or(request_.size.value_or(settings_.max_file_bytes));
    error_ = sink_->begin(verdict_.offset, verdict_.identity);
    return !error_;
  }

  [[nodiscard]] bool is_data() const { return answered_ && verdict_.kind == Verdict::Kind::data; }

  bool may_take(std::size_t bytes) {
    if (driver_ == &lanes_.parallel()) return pace_.admit(*this, bytes);
    pace_.charge(bytes);
    return true;
  }

  /// Until `resume`: libcurl then comes with the same bytes again.
  std::size_t hold_back() {
    // From now on it is the pace that looks for stalls.
    handle_.stop_stall_rule();
    driver_->keep_connection(easy());
    // The sink is to see bytes as they come, and not a buffer's worth every now and then.
    if (buffer_.size() >= pace_.rate() / 10) error_ = buffer_.flush(*sink_);
    return error_ ? 0 : CURL_WRITEFUNC_PAUSE;
  }

  bool take_body(std::span<const std::byte> piece) {
    if (cancelled_) {
      error_ = errc::cancelled;
      return false;
    }
    if (!answered_) {
      error_ = errc::malformed_response;
      return false;
    }
    if (!is_data()) {
      // A short one is read to its end for the sake of the connection.
      ignored_ += piece.size();
      return ignored_ <= most_ignored;
    }
    if (piece.size() > limit_ - received_) {
      error_ = errc::body_too_long;
      return false;
    }
    received_ += piece.size();
    error_ = buffer_.add(piece, verdict_.body && received_ == limit_, *sink_);
    return !error_;
  }

  [[nodiscard]] std::error_code check_end() const {
    if (verdict_.body && received_ < *verdict_.body) return errc::body_too_short;
    if (request_.size && verdict_.offset + received_ < *request_.size) return errc::body_too_short;
    return {};
  }

  [[nodiscard]] std::string describe() const {
    std::string text = redact_url(url_.handle() != nullptr ? url_.text() : request_.url);
    if (redirects_ > 0) text += " (redirected from " + redact_url(request_.url) + ")";
    if (head_.status() != 0) text += ", status " + std::to_string(head_.status());
    if (!reason_.empty()) text += " (" + printable(reason_) + ")";
    return text;
  }

  /// Of a body that is not data; more of it is not worth a connection.
  static constexpr std::size_t most_ignored = 16 * 1024;

  const CurlShared& shared_;
  const CurlSettings& settings_;  // of `shared_`
  CurlLanes& lanes_;
  CurlPace& pace_;
  CurlDriver* driver_;
  std::array<char, CURL_ERROR_SIZE> error_text_{};
  std::unique_ptr<curl_slist, Cleanup> headers_;
  CurlUrl url_;
  CurlHandle handle_;

  std::uint64_t id_ = 0;
  FetchRequest request_;
  std::shared_ptr<FetchSink> sink_;
  unsigned redirects_ = 0;
  bool cancelled_ = false;
  bool signs_ = false;        // the handle is set to sign
  bool left_origin_ = false;  // for one that was redirected to; coming back to it changes nothing

  HttpHead head_;
  Verdict verdict_;
  bool begun_ = false;          // it has a connection, or opens one
  bool answered_ = false;       // the head was whole, and judged
  std::uint64_t received_ = 0;  // of the body that is data
  std::uint64_t limit_ = 0;     // the most that it may be
  std::size_t ignored_ = 0;
  GatherBuffer buffer_;

  std::error_code error_;  // set where we ended it; else libcurl's result decides
  std::error_code connect_error_;
  std::string reason_;
};

}  // namespace garner::detail
