# trainrun_room(NAME [API dir] DEPENDS room... LIBRARIES target... [OPTIONS flag...]): one room of the house.
#
# All *.c and *.cc files of the current folder become the static library trainrun_<NAME>. It sees its own public headers
# and those of the rooms it depends on (and, through them, further down), nothing else: an include that goes up or
# sideways does not compile. A room without sources yet is an interface with headers only.

set_property(GLOBAL PROPERTY TRAINRUN_ROOMS "")
set_property(GLOBAL PROPERTY TRAINRUN_API_DIRS "")

function(trainrun_room name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "API" "DEPENDS;LIBRARIES;OPTIONS")
  if(NOT arg_API)
    set(arg_API "${CMAKE_CURRENT_SOURCE_DIR}/api")
  endif()
  get_filename_component(api "${arg_API}" ABSOLUTE)
  set_property(GLOBAL APPEND PROPERTY TRAINRUN_API_DIRS "${api}")
  list(TRANSFORM arg_DEPENDS PREPEND trainrun_)

  set(target trainrun_${name})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.c" "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  if(NOT sources)
    message(STATUS "${name}: no sources yet")
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE "${api}")
    target_link_libraries(${target} INTERFACE ${arg_DEPENDS})
    return()
  endif()

  add_library(${target} STATIC ${sources})
  trainrun_defaults(${target})
  target_compile_options(${target} PRIVATE ${arg_OPTIONS})
  target_include_directories(${target} PUBLIC "${api}")
  target_link_libraries(${target} PUBLIC ${arg_DEPENDS} PRIVATE ${arg_LIBRARIES} Threads::Threads m ${CMAKE_DL_LIBS})
  set_target_properties(${target} PROPERTIES ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/rooms")
  set_property(GLOBAL APPEND PROPERTY TRAINRUN_ROOMS ${target})
  set_property(GLOBAL APPEND PROPERTY TRAINRUN_LIBRARIES ${arg_LIBRARIES})
endfunction()

# trainrun_module(NAME SOURCES file... LIBRARIES target...): libtrainrun_<NAME>.so, opened at run time, beside
# libtrainrun.so. It links nothing of trainrun: it gets a host table and gives its own back.
function(trainrun_module name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES;INCLUDES")
  set(target trainrun_${name})
  add_library(${target} MODULE ${arg_SOURCES})
  trainrun_defaults(${target})
  target_include_directories(${target} PRIVATE ${arg_INCLUDES})
  target_link_libraries(${target} PRIVATE ${arg_LIBRARIES})
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}"
                        BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

# trainrun_program(NAME FOLDER folder SOURCES file... [LIBRARIES target...]): an executable in build/FOLDER, linked to
# libtrainrun.so as a user's program is. It finds the library from where it stands, in the build as when installed: one
# path for both, since CMake would pad two of unequal length with empty entries, which mean the working directory.
function(trainrun_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "FOLDER" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  trainrun_defaults(${name})
  target_link_libraries(${name} PRIVATE trainrun ${arg_LIBRARIES} Threads::Threads m)
  set(built "$ORIGIN/..")
  if(arg_FOLDER STREQUAL ".")
    set(built "$ORIGIN")
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${arg_FOLDER}"
                        BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "${built};$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endfunction()
