/* One transform of data.transforms as it is written: "random-resized-crop 224 scale 0.2 1". */
#ifndef TRAINRUN_DATALOADER_TRANSFORM_SPEC_H
#define TRAINRUN_DATALOADER_TRANSFORM_SPEC_H

#include <trainrun/status.h>

typedef enum dl_op_kind {
  DL_OP_DECODE,       /* channels: 0 as they are, 1 grey, 3 rgb */
  DL_OP_RESIZE_SHORT, /* height: of the shorter side */
  DL_OP_RESIZE,
  DL_OP_CENTER_CROP,
  DL_OP_RESIZED_CROP,
  DL_OP_RANDOM_CROP,
  DL_OP_FLIP,
  DL_OP_NORMALIZE,
  DL_OP_TO_FLOAT
} dl_op_kind;

typedef struct dl_op {
  dl_op_kind kind;
  uint32_t number; /* among the transforms of its kind, so that adding one of another kind shifts no random numbers */
  uint32_t height, width, pad, channels;
  double probability;
  double scale[2], ratio[2];
  size_t value_count; /* of mean and of std: 1, or one a channel */
  float mean[4], std[4];
} dl_op;

enum { DL_OPS_MAX = 16, DL_SIDE_MAX = 16384 };

/* TR_ERR_CONFIG names the spec and what its word takes, or the nearest word that there is. */
tr_status dl_op_parse(const char *spec, dl_op *op, tr_error *error);

#endif
