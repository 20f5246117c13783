/* Ranks of one host over an inherited segment: the engine with everybody on one host. */
#include "engine.h"

tr_status tr_comm_open_shm(const tr_comm_shm_options *options, tr_comm **out, tr_error *error) {
  if (options->struct_bytes != sizeof *options)
    return tr_fail(error, TR_ERR_INVALID, "tr_comm_shm_options: wrong struct_bytes");
  if (options->rank < 0 || options->rank >= options->size || options->size > SEG_CAPACITY_MAX)
    return tr_fail(error, TR_ERR_INVALID, "collective: no rank %d of %d", options->rank, options->size);
  if (options->epoch == 0 || options->epoch > UINT32_MAX)
    return tr_fail(error, TR_ERR_INVALID, "collective: epochs are 1 to 2^32 - 1");
  engine_world world;
  TR_TRY(engine_world_create(options->allocator, options->rank, options->size, NULL, &world, error));
  const engine_options inner = {.backend = "shm",
                                .allocator = options->allocator,
                                .clock = options->clock,
                                .descriptor = options->descriptor,
                                .epoch = options->epoch,
                                .timeout_ns = options->timeout_ns,
                                .cores = options->cores};
  return engine_open(&inner, &world, out, error);
}
