// SPDX-License-Identifier: BSL-1.0
//
// Calls into policies: whatever they throw becomes an error code.
#pragma once

#include <system_error>
#include <type_traits>
#include <utility>

#include "garner/error.hpp"

namespace garner::detail {

/// Runs `call()`, which returns nothing or a `std::error_code`. What it throws is returned: the code of a
/// `std::system_error`, `errc::policy_failed` for anything else.
template <class Call>
std::error_code guarded(Call&& call) noexcept {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Call>>) {
      std::forward<Call>(call)();
      return {};
    } else {
      return std::forward<Call>(call)();
    }
  } catch (const std::system_error& error) {
    return error.code() ? error.code() : make_error_code(errc::policy_failed);
  } catch (...) {
    return errc::policy_failed;
  }
}

}  // namespace garner::detail
