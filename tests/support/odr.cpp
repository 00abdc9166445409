// SPDX-License-Identifier: BSL-1.0
//
// A second translation unit that includes all headers and does nothing. It is linked into every test program of the
// whole library, where a function that lacks `inline` is then defined twice and does not link.
#include <garner/garner.hpp>
