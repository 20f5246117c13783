# What `cmake --install` puts where: library and modules in lib/, the command and the examples in bin/ (a job's
# `program = "name"` is found beside trainrun), headers in include/trainrun/, trainrun.pc and a CMake package.
# Everything is found relative to itself, so that the tree can be moved.
if(NOT TARGET trainrun_shared)
  return()
endif()

include(CMakePackageConfigHelpers)

install(TARGETS trainrun_shared EXPORT trainrun LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(dir IN LISTS trainrun_api_dirs)
  install(DIRECTORY "${dir}/trainrun" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
endforeach()

file(RELATIVE_PATH trainrun_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix/")
string(REGEX REPLACE "/$" "" trainrun_prefix "${trainrun_prefix}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/trainrun.pc.in" "${PROJECT_BINARY_DIR}/trainrun.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/trainrun.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(trainrun_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/trainrun)
set_target_properties(trainrun_shared PROPERTIES EXPORT_NAME trainrun)
install(EXPORT trainrun NAMESPACE trainrun:: FILE trainrunConfig.cmake DESTINATION ${trainrun_package_dir})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/trainrunConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/trainrunConfigVersion.cmake" DESTINATION ${trainrun_package_dir})
