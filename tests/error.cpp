// SPDX-License-Identifier: BSL-1.0
//
// The error codes, their texts and classes, and the exception.
#include "garner/error.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <ostream>
#include <set>
#include <string>
#include <system_error>

using garner::classify;
using garner::errc;
using garner::ErrorClass;

TEST_CASE("every error code has a class, and a text of its own") {
  std::set<std::string> texts;
  for (int value = 1; value <= static_cast<int>(errc::policy_failed); ++value) {
    CAPTURE(value);
    const std::error_code code(value, garner::error_category());
    REQUIRE(garner::detail::find_error(value) != nullptr);
    CHECK(classify(code) != ErrorClass::none);
    CHECK(texts.insert(code.message()).second);
  }
  CHECK(garner::detail::find_error(0) == nullptr);
  CHECK(garner::detail::find_error(static_cast<int>(errc::policy_failed) + 1) == nullptr);
}

TEST_CASE("a number that is no error code has a text and is a local failure") {
  const std::error_code code(4711, garner::error_category());
  CHECK(code.message() == "unknown error");
  CHECK(classify(code) == ErrorClass::local);
}

TEST_CASE("the enumerators convert to codes of one category") {
  const std::error_code code = errc::no_space;
  CHECK(code.category() == garner::error_category());
  CHECK(std::string(code.category().name()) == "garner");
  CHECK(code == errc::no_space);
  CHECK(code != errc::io_error);
}

TEST_CASE("the class of an error decides what is done about it, as section 7 of the design says") {
  CHECK(classify({}) == ErrorClass::none);
  for (const errc code : {errc::resolve_failed, errc::connection_failed, errc::timed_out, errc::server_unavailable,
                          errc::body_too_short, errc::tls_failed}) {
    CHECK(classify(code) == ErrorClass::transient);
  }
  for (const errc code : {errc::digest_mismatch, errc::range_mismatch, errc::source_changed, errc::body_too_long,
                          errc::redirect_not_allowed, errc::encoding_not_allowed, errc::malformed_response}) {
    CHECK(classify(code) == ErrorClass::wrong_bytes);
  }
  for (const errc code : {errc::io_error, errc::read_only, errc::sync_failed, errc::too_many_open_files,
                          errc::corrupt_chunk, errc::policy_failed}) {
    CHECK(classify(code) == ErrorClass::local);
  }
  CHECK(classify(errc::credentials_rejected) == ErrorClass::credentials);
  CHECK(classify(errc::not_found) == ErrorClass::gone);
  CHECK(classify(errc::no_space) == ErrorClass::no_space);
  CHECK(classify(errc::cancelled) == ErrorClass::cancelled);
  CHECK(classify(errc::invalid_url) == ErrorClass::invalid);
}

TEST_CASE("an error of another category is classified by its condition") {
  CHECK(classify(std::make_error_code(std::errc::no_space_on_device)) == ErrorClass::no_space);
  CHECK(classify(std::error_code(ENOSPC, std::system_category())) == ErrorClass::no_space);
  CHECK(classify(std::error_code(EDQUOT, std::system_category())) == ErrorClass::no_space);
  CHECK(classify(std::error_code(EDQUOT, std::generic_category())) == ErrorClass::no_space);
  CHECK(classify(std::error_code(ECONNRESET, std::system_category())) == ErrorClass::transient);
  CHECK(classify(std::make_error_code(std::errc::network_down)) == ErrorClass::transient);
  CHECK(classify(std::make_error_code(std::errc::operation_canceled)) == ErrorClass::cancelled);
  CHECK(classify(std::make_error_code(std::errc::io_error)) == ErrorClass::local);
  CHECK(classify(std::make_error_code(std::errc::read_only_file_system)) == ErrorClass::local);
}

TEST_CASE("an Error names its subject, and is a std::system_error") {
  const garner::Error error(errc::invalid_url, "file 'a'");
  CHECK(error.subject() == "file 'a'");
  CHECK(error.code() == errc::invalid_url);
  CHECK(std::string(error.what()).find("file 'a'") != std::string::npos);
  CHECK(std::string(error.what()).find("not a valid URL") != std::string::npos);
  const std::system_error& base = error;
  CHECK(base.code() == errc::invalid_url);
}

TEST_CASE("every error class has a name of its own") {
  std::set<std::string> names;
  for (int value = 0; value <= static_cast<int>(ErrorClass::cancelled); ++value) {
    const std::string name(to_string(static_cast<ErrorClass>(value)));
    CHECK(name != "unknown");
    CHECK(names.insert(name).second);
  }
  CHECK(to_string(static_cast<ErrorClass>(200)) == "unknown");
}
