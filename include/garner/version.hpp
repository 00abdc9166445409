// SPDX-License-Identifier: BSL-1.0
//
// The version of garner, and its only copy: CMake, Meson and the single header read it from here.
#pragma once

#define GARNER_VERSION_MAJOR 0
#define GARNER_VERSION_MINOR 1
#define GARNER_VERSION_PATCH 0
