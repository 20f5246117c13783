/* All of runtime/base: what every other room stands on. */
#ifndef TRAINRUN_BASE_H
#define TRAINRUN_BASE_H

#include <trainrun/alloc.h>
#include <trainrun/arena.h>
#include <trainrun/bytes.h>
#include <trainrun/clock.h>
#include <trainrun/config.h>
#include <trainrun/crc32c.h>
#include <trainrun/log.h>
#include <trainrun/macros.h>
#include <trainrun/rng.h>
#include <trainrun/split.h>
#include <trainrun/status.h>
#include <trainrun/trace.h>

#endif
