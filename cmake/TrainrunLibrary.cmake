# libtrainrun.so: every room whole, only the TR_API symbols visible.
#
# Binding is lazy and dependencies are few on purpose: a worker is at its first all-reduce within milliseconds.

get_property(trainrun_rooms GLOBAL PROPERTY TRAINRUN_ROOMS)
get_property(trainrun_api_dirs GLOBAL PROPERTY TRAINRUN_API_DIRS)
list(REMOVE_DUPLICATES trainrun_api_dirs)

if(NOT trainrun_rooms)
  message(STATUS "libtrainrun: no room has sources yet")
  return()
endif()

set(trainrun_map "${PROJECT_SOURCE_DIR}/cmake/libtrainrun.map")
set(trainrun_objects ${trainrun_rooms})
list(TRANSFORM trainrun_objects REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
add_library(trainrun_shared SHARED ${trainrun_objects})
trainrun_defaults(trainrun_shared)
get_property(trainrun_libraries GLOBAL PROPERTY TRAINRUN_LIBRARIES)
list(REMOVE_DUPLICATES trainrun_libraries)
target_link_libraries(trainrun_shared PRIVATE ${trainrun_libraries} Threads::Threads m ${CMAKE_DL_LIBS})
target_link_options(trainrun_shared PRIVATE -Wl,-Bsymbolic-functions -Wl,--version-script=${trainrun_map}
                                            -Wl,--hash-style=gnu)
# A sanitizer's own symbols are resolved by the program; otherwise nothing may be left open.
if(NOT TRAINRUN_SANITIZE)
  target_link_options(trainrun_shared PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(trainrun_shared PROPERTIES OUTPUT_NAME trainrun SOVERSION ${PROJECT_VERSION_MAJOR}
  VERSION ${PROJECT_VERSION} LINK_DEPENDS "${trainrun_map}" LINKER_LANGUAGE CXX
  LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
foreach(dir IN LISTS trainrun_api_dirs)
  target_include_directories(trainrun_shared INTERFACE "$<BUILD_INTERFACE:${dir}>")
endforeach()
target_include_directories(trainrun_shared INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
# Within the tree `trainrun` means the library; the command of that name is the target trainrun_command.
add_library(trainrun ALIAS trainrun_shared)
