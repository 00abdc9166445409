# SPDX-License-Identifier: BSL-1.0
#
# find_package(garner) gives garner::core (the standard library alone) and garner::garner (with the default policies).
# find_package(garner COMPONENTS core) gives the first and looks for no dependency. Written by hand, since CMake and
# Meson install the same files and Meson cannot export CMake targets.

if(NOT TARGET garner::core)
  get_filename_component(garner_include_dir "${CMAKE_CURRENT_LIST_DIR}/../../../include" ABSOLUTE)
  add_library(garner::core INTERFACE IMPORTED)
  target_compile_features(garner::core INTERFACE cxx_std_20)
  target_include_directories(garner::core INTERFACE "${garner_include_dir}")
  unset(garner_include_dir)
endif()

if(NOT garner_FIND_COMPONENTS)
  set(garner_FIND_COMPONENTS garner)
  set(garner_FIND_REQUIRED_garner TRUE)
endif()

if("garner" IN_LIST garner_FIND_COMPONENTS AND NOT TARGET garner::garner)
  include("${CMAKE_CURRENT_LIST_DIR}/garnerDependencies.cmake")
  if(TARGET garner::dependencies)
    add_library(garner::garner INTERFACE IMPORTED)
    target_link_libraries(garner::garner INTERFACE garner::core garner::dependencies)
  endif()
endif()

foreach(component IN LISTS garner_FIND_COMPONENTS)
  if(NOT TARGET garner::${component} AND garner_FIND_REQUIRED_${component})
    set(garner_FOUND FALSE)
    if(NOT garner_NOT_FOUND_MESSAGE)
      set(garner_NOT_FOUND_MESSAGE "garner has no component '${component}'")
    endif()
  endif()
endforeach()
