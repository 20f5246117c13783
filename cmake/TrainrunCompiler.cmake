# How everything is compiled: the language, the warnings, the sanitizers. trainrun_defaults(target) applies it.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(THREADS_PREFER_PTHREAD_FLAG ON)

option(TRAINRUN_WERROR "Warnings are errors" ON)
set(TRAINRUN_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=: address,undefined or thread")
option(TRAINRUN_COVERAGE "Count executed lines (gcov)" OFF)

get_property(trainrun_multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT CMAKE_BUILD_TYPE AND NOT trainrun_multi_config)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release" FORCE)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# One binary for every x86-64 or arm64 machine: kernels pick their instruction set per function at run time, never by a
# flag. Contraction is off so that a sum has the same bits whatever the compiler and the build type.
set(TRAINRUN_COMPILE_OPTIONS -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-strict-aliasing
                             -fstack-protector-strong)
set(TRAINRUN_WARNINGS -Wall -Wextra)
set(TRAINRUN_WARNINGS_C -Wstrict-prototypes -Wmissing-prototypes)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # Locals that hide locals; `flag *flag` hides nothing that anyone could mean. Of lengths and of outputs that are written
  # on success only gcc knows too little: a message that is cut is cut on purpose, `return tr_fail(...)` never returns TR_OK.
  list(APPEND TRAINRUN_WARNINGS -Wshadow=local -Wno-format-truncation -Wno-maybe-uninitialized)
  # Fences are for atomics here; one that published plain memory would show as a race.
  if(TRAINRUN_SANITIZE MATCHES "thread")
    list(APPEND TRAINRUN_WARNINGS -Wno-tsan)
  endif()
else()
  list(APPEND TRAINRUN_WARNINGS -Wshadow)
endif()
if(TRAINRUN_WERROR)
  list(APPEND TRAINRUN_WARNINGS -Werror)
endif()

set(TRAINRUN_LINK_OPTIONS -Wl,--as-needed)
if(TRAINRUN_SANITIZE)
  list(APPEND TRAINRUN_COMPILE_OPTIONS -fsanitize=${TRAINRUN_SANITIZE} -fno-omit-frame-pointer -g)
  list(APPEND TRAINRUN_LINK_OPTIONS -fsanitize=${TRAINRUN_SANITIZE})
  if(TRAINRUN_SANITIZE MATCHES "undefined")
    list(APPEND TRAINRUN_COMPILE_OPTIONS -fno-sanitize-recover=all)
  endif()
endif()
if(TRAINRUN_COVERAGE)
  list(APPEND TRAINRUN_COMPILE_OPTIONS --coverage)
  list(APPEND TRAINRUN_LINK_OPTIONS --coverage)
endif()

function(trainrun_defaults target)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE TRAINRUN_VERSION="${PROJECT_VERSION}")
  target_compile_options(${target} PRIVATE ${TRAINRUN_COMPILE_OPTIONS} ${TRAINRUN_WARNINGS}
                                           "$<$<COMPILE_LANGUAGE:C>:${TRAINRUN_WARNINGS_C}>")
  target_link_options(${target} PRIVATE ${TRAINRUN_LINK_OPTIONS})
  set_target_properties(${target} PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
endfunction()
