# The libraries trainrun stands on, as imported targets. What is missing is named with the Debian package that has it.
#
# A room links only what it uses; libtrainrun.so is linked --as-needed, so an unused one costs no start-up time.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

function(trainrun_package target module debian)
  string(MAKE_C_IDENTIFIER "TRAINRUN_${module}" prefix)
  pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${prefix}_FOUND)
    message(FATAL_ERROR "${module} is missing: apt-get install ${debian} (or run scripts/setup)")
  endif()
  add_library(${target} ALIAS PkgConfig::${prefix})
endfunction()

# trainrun_headers(TARGET MODULE DEBIAN): the headers alone, of a library that is opened at run time (decision 0041).
function(trainrun_headers target module debian)
  string(MAKE_C_IDENTIFIER "TRAINRUN_${module}" prefix)
  pkg_check_modules(${prefix} QUIET ${module})
  if(NOT ${prefix}_FOUND)
    message(FATAL_ERROR "${module} is missing: apt-get install ${debian} (or run scripts/setup)")
  endif()
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} SYSTEM INTERFACE ${${prefix}_INCLUDE_DIRS})
endfunction()

trainrun_package(jansson::jansson jansson libjansson-dev)
trainrun_package(isal::isal libisal libisal-dev)
trainrun_package(openssl::crypto libcrypto libssl-dev)
trainrun_package(zlib::zlib zlib zlib1g-dev)
trainrun_package(jpeg::jpeg libjpeg libjpeg-dev)
trainrun_package(png::png libpng libpng-dev)
trainrun_package(zstd::zstd libzstd libzstd-dev)
trainrun_headers(curl::headers libcurl libcurl4-openssl-dev)
trainrun_headers(crypto::headers libcrypto libssl-dev)

# toml++ brings no pkg-config file in Debian.
find_path(TRAINRUN_TOMLPLUSPLUS_INCLUDE toml++/toml.h)
if(NOT TRAINRUN_TOMLPLUSPLUS_INCLUDE)
  message(FATAL_ERROR "toml++ is missing: apt-get install libtomlplusplus-dev (or run scripts/setup)")
endif()
add_library(tomlplusplus::headers INTERFACE IMPORTED GLOBAL)
target_include_directories(tomlplusplus::headers SYSTEM INTERFACE "${TRAINRUN_TOMLPLUSPLUS_INCLUDE}")

# Only the MPI module needs it: without it everything else is built and `make mpi` says what to install.
find_package(MPI QUIET COMPONENTS C)
