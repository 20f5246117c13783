/* Counter-based randomness: Philox4x32-10 (Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * A value is a pure function of (seed, purpose, a, b) where a is an epoch or step and b a global sample id or a canonical
 * element number. Never feed it a rank, a thread, a row or a call count: that would tie bits to the number of workers. */
#ifndef TRAINRUN_RNG_H
#define TRAINRUN_RNG_H

#include <trainrun/macros.h>

TR_BEGIN_C

/* What the numbers are for; two purposes never share a stream. Values are part of what a run's bits depend on. */
typedef enum tr_rng_purpose {
  TR_RNG_INIT = 1,      /* a: hash of the parameter's name, b: element / 4 */
  TR_RNG_DROPOUT = 2,   /* a: step, b: (op number << 48) + global row * elements per row / 4 ... see ops */
  TR_RNG_SHUFFLE = 3,   /* a: epoch, b: round or position */
  TR_RNG_TRANSFORM = 4, /* a: epoch, b: global sample id */
  TR_RNG_RETRY = 5,     /* jitter: never bits of a result */
  /* The data loader's transforms. a: epoch + (which of the transforms of this kind * 16 + try) << 40, b: sample id */
  TR_RNG_RESIZED_CROP = 6,
  TR_RNG_CROP = 7,
  TR_RNG_FLIP = 8,
  TR_RNG_USER = 1000 /* programs start here */
} tr_rng_purpose;

typedef struct tr_rng4 {
  uint32_t v[4];
} tr_rng4;

/* Four independent uniform 32-bit words. Key: seed (64 bits); counter: (b low, b high, a low 32, a high 16 | purpose<<16). */
TR_API tr_rng4 tr_rng(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b);

/* One 64-bit word of the same. */
TR_API uint64_t tr_rng_u64(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b);

/* [0, bound) without bias worth speaking of (multiply-high of 64 bits). bound > 0. */
TR_API uint64_t tr_rng_below(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint64_t bound);

/* A word as a float in [0, 1) with 24 bits. */
static inline float tr_rng_unit(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

/* FNV-1a of a name, 64 bits: a canonical number for something that has only a name. */
TR_API uint64_t tr_hash_name(const char *name);

TR_END_C
#endif
