/* Macros that every public header uses. Nothing here is an API of its own.
 *
 * TR_API marks what libtrainrun exports (all else is hidden), TR_MUST_USE a result that must be looked at,
 * TR_PRINTF a printf-like function. The headers compile as C17 and as C++17. */
#ifndef TRAINRUN_MACROS_H
#define TRAINRUN_MACROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define TR_BEGIN_C extern "C" {
#define TR_END_C   }
#else
#define TR_BEGIN_C
#define TR_END_C
#endif

#define TR_API                               __attribute__((visibility("default")))
#define TR_MUST_USE                          __attribute__((warn_unused_result))
#define TR_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))

/* Bytes of a cache line: counters of two threads or processes stand at least this far apart. */
#define TR_CACHE_LINE 64

#endif
