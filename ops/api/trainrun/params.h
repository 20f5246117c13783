/* Parameters: one flat layout for values, gradients and moments.
 *
 * An element has the same offset in the fp32 values, in the gradient and in each moment. The layout is cut into blocks of
 * TR_PARAM_BLOCK elements, independent of the world size, on which slices, norm partials, snapshots and checksums start.
 * Regions, in order: TRAINED (with a gradient; parameters in the order of their making, so that backward finishes from
 * the end to the beginning), STATE (batch-norm running statistics: their slot in the gradient carries the statistics of
 * a micro-batch, summed like gradients), FROZEN (values only). Each region starts on a block, each parameter on 64 bytes;
 * padding is zero and stays zero. A tied weight is one entry that several ops read.
 *
 * Several graphs share one tr_params. Add parameters (mostly by building graphs), then seal, then use the memory. One thread
 * until sealed; afterwards the rules of the trainer (only the update writes values). */
#ifndef TRAINRUN_PARAMS_H
#define TRAINRUN_PARAMS_H

#include <trainrun/device.h>

TR_BEGIN_C

enum { TR_PARAM_BLOCK = 4096, TR_NDIM_MAX = 6, TR_NAME_BYTES = 120 };

typedef struct tr_params tr_params;
typedef int32_t tr_param; /* index in order of making; -1: none */

typedef enum tr_param_role { TR_PARAM_TRAINED = 0, TR_PARAM_STATE = 1, TR_PARAM_FROZEN = 2 } tr_param_role;

typedef enum tr_init_kind {
  TR_INIT_ZEROS = 0,
  TR_INIT_CONSTANT = 1, /* a */
  TR_INIT_UNIFORM = 2,  /* [a, b) */
  TR_INIT_NORMAL = 3    /* mean a, standard deviation b (Box-Muller) */
} tr_init_kind;

typedef struct tr_init {
  tr_init_kind kind;
  float a, b;
} tr_init;

typedef struct tr_param_spec {
  size_t struct_bytes;
  const char *name; /* unique: "conv1.weight"; [a-zA-Z0-9._/-], shorter than TR_NAME_BYTES */
  uint32_t ndim;    /* 1..TR_NDIM_MAX */
  int64_t shape[TR_NDIM_MAX];
  tr_param_role role;
  tr_init init;
} tr_param_spec;

typedef struct tr_param_info {
  const char *name;
  uint32_t ndim;
  int64_t shape[TR_NDIM_MAX];
  tr_param_role role;
  uint64_t offset; /* elements, in the flat layout (after sealing) */
  uint64_t count;  /* elements, without padding */
  tr_init init;
} tr_param_info;

TR_API TR_MUST_USE tr_status tr_params_create(const tr_allocator *allocator, tr_params **out, tr_error *error);
TR_API void tr_params_destroy(tr_params *params);

/* Adds, or finds the one of that name: then shape and role must agree (TR_ERR_INVALID otherwise). */
TR_API TR_MUST_USE tr_status tr_params_add(tr_params *params, const tr_param_spec *spec, tr_param *out,
                                           tr_error *error);
TR_API tr_param tr_params_find(const tr_params *params, const char *name);
TR_API int32_t tr_params_size(const tr_params *params); /* number of parameters */
TR_API tr_param_info tr_params_info(const tr_params *params, tr_param param);

/* Lays out and allocates the values (zeroed) on `device`. */
TR_API TR_MUST_USE tr_status tr_params_seal(tr_params *params, tr_device *device, tr_error *error);
/* Fills values from their init: rng(seed, TR_RNG_INIT, hash of the name, element / 4), so a parameter's start does not
 * depend on which others there are. */
TR_API void tr_params_initialize(tr_params *params, uint64_t seed);

TR_API float *tr_params_values(tr_params *params);        /* host memory, 64-byte aligned, tr_params_count long */
TR_API uint64_t tr_params_count(const tr_params *params); /* elements of all regions, whole blocks */
TR_API uint64_t tr_params_gradient_count(const tr_params *params); /* TRAINED + STATE, whole blocks */
TR_API uint64_t tr_params_trained_count(const tr_params *params);  /* TRAINED, whole blocks */

/* Rises whenever values change outside a graph's sight (update, load, initialise): packed copies compare it. */
TR_API void tr_params_touch(tr_params *params);
TR_API uint64_t tr_params_version(const tr_params *params);

/* params_crc32c of summary.json: CRC32C of the little-endian fp32 values, names sorted bytewise, without padding. */
TR_API uint32_t tr_params_crc32c(const tr_params *params);

TR_END_C
#endif
