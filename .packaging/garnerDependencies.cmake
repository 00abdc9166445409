# SPDX-License-Identifier: BSL-1.0
#
# What garner::garner needs beside the standard library, said once: the build and the installed package both read
# this. Defines garner::dependencies, or leaves garner_NOT_FOUND_MESSAGE.

include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(CURL)
find_dependency(OpenSSL COMPONENTS Crypto)
find_dependency(fmt)
find_dependency(nlohmann_json)

# These two come without a CMake package in most distributions.
find_path(GARNER_ASIO_INCLUDE_DIR asio.hpp)
find_path(GARNER_XXHASH_INCLUDE_DIR xxhash.h)
find_library(GARNER_XXHASH_LIBRARY xxhash)
mark_as_advanced(GARNER_ASIO_INCLUDE_DIR GARNER_XXHASH_INCLUDE_DIR GARNER_XXHASH_LIBRARY)
foreach(needed GARNER_ASIO_INCLUDE_DIR GARNER_XXHASH_INCLUDE_DIR GARNER_XXHASH_LIBRARY)
  if(NOT ${needed})
    set(garner_FOUND FALSE)
    set(garner_NOT_FOUND_MESSAGE "garner needs asio and xxhash; ${needed} was not found")
    return()
  endif()
endforeach()

if(NOT TARGET garner::dependencies)
  add_library(garner::dependencies INTERFACE IMPORTED)
  target_include_directories(garner::dependencies INTERFACE ${GARNER_ASIO_INCLUDE_DIR} ${GARNER_XXHASH_INCLUDE_DIR})
  target_compile_definitions(garner::dependencies INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED)
  target_link_libraries(
    garner::dependencies
    INTERFACE Threads::Threads CURL::libcurl OpenSSL::Crypto fmt::fmt nlohmann_json::nlohmann_json
              ${GARNER_XXHASH_LIBRARY})
endif()
