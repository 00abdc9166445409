// SPDX-License-Identifier: BSL-1.0
//
// The three policies of a data manager: what each must offer, what it must promise, and what it is promised
// in return. One header each, with its requirement table, its concept and its diagnosis; and the smallest
// model of each.
#pragma once

#include "garner/policies/downloader.hpp"
#include "garner/policies/executor.hpp"
#include "garner/policies/minimal.hpp"
#include "garner/policies/storage.hpp"
