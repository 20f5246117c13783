/* Checks that the builders of ops share. Each returns false after keeping the failure in the graph. */
#ifndef TRAINRUN_OPS_BUILD_PRIVATE_H
#define TRAINRUN_OPS_BUILD_PRIVATE_H

#include "graph_private.h"

/* Nothing has failed and the tensor exists. */
bool tr_build_ok(tr_graph *graph, const char *op, const char *name, tr_tensor tensor);
/* ... and is f32. */
bool tr_build_float(tr_graph *graph, const char *op, const char *name, tr_tensor tensor);
/* Its first dimension is the rows of the micro-batch. */
bool tr_build_rows(tr_graph *graph, const char *op, const char *name, tr_tensor tensor);
/* x is an image that the window fits. */
bool tr_build_window(tr_graph *graph, const char *op, const char *name, tr_tensor x, const int64_t kernel[2],
                     const int64_t stride[2], const int64_t padding[2], tr_window *window);

#endif
