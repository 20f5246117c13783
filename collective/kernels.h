/* Element-wise combination of two buffers into one or two. Outputs may be the inputs themselves, never shifted
 * copies. */
#ifndef TRAINRUN_COLLECTIVE_KERNELS_H
#define TRAINRUN_COLLECTIVE_KERNELS_H

#include <trainrun/collective.h>

/* n elements of a and b into to and, where it is not NULL, into also. Buffers are aligned to an element. */
typedef void (*comm_combine_fn)(void *to, void *also, const void *a, const void *b, size_t n);

/* The best for this machine; f32, f64, i32, i64 with SUM, MAX, MIN. NaN wins over numbers in MAX and MIN. Integers wrap
 * around. */
comm_combine_fn comm_combine(tr_dtype dtype, tr_reduce_op op);

#endif
