/* All of ops: parameters, graphs, flat passes. */
#ifndef TRAINRUN_OPS_H
#define TRAINRUN_OPS_H

#include <trainrun/flat.h>
#include <trainrun/graph.h>
#include <trainrun/params.h>

#endif
