/* The values of an MDS sample: how a column's encoding is written, and what its bytes mean.
 *
 * Numbers become i32 (integers) or f32; an array keeps its type where the batch has one of that kind, else the next that
 * holds it (int8 and int16: i32, uint32 and uint64: i64, float16: f32); a value that does not fit is TR_ERR_CORRUPT. */
#ifndef TRAINRUN_DATALOADER_MDS_VALUE_H
#define TRAINRUN_DATALOADER_MDS_VALUE_H

#include "decode.h"

typedef enum dl_mds_kind {
  DL_MDS_BYTES,
  DL_MDS_TEXT,
  DL_MDS_NUMBER,
  DL_MDS_TEXT_INTEGER,
  DL_MDS_TEXT_REAL,
  DL_MDS_ARRAY,
  DL_MDS_PIL,
  DL_MDS_JPEG,
  DL_MDS_PNG,
  DL_MDS_JSON,
  DL_MDS_LIST /* of images: only as it is stored */
} dl_mds_kind;

enum { DL_MDS_DIMENSIONS_MAX = 5 };

typedef struct dl_mds_encoding {
  dl_mds_kind kind;
  uint8_t type;  /* of a number or an array, as in an array's header: bits + 1 signed, + 2 float; 0: in the value */
  uint32_t ndim; /* of an array; 0: in the value */
  int64_t shape[DL_MDS_DIMENSIONS_MAX];
  uint64_t size; /* in bytes; 0: variable */
} dl_mds_encoding;

/* Error messages begin with "encoding ..."; pickled columns are refused. */
tr_status dl_mds_encoding_parse(const char *text, dl_mds_encoding *as, tr_error *error);
/* Whether it can be a field as it is; a JSON column needs a path. */
bool dl_mds_batchable(const dl_mds_encoding *as);
/* How decode.h calls it; NONE: it is read by dl_mds_decode. */
dl_kind dl_mds_kind_of(const dl_mds_encoding *as);
/* *data shows the elements, in `room` or in the value; NULL: only what it is, in *found. */
tr_status dl_mds_decode(const dl_mds_encoding *as, dl_value value, const tr_allocator *allocator, dl_buffer *room,
                        tr_field *found, const uint8_t **data, tr_error *error);
/* For tr_dataset_raw: what a value is; a number is written as JSON to `numbers` (and *data stays as it was). */
tr_raw_kind dl_mds_show(const dl_mds_encoding *as, dl_value value, tr_writer *numbers, bool *written);

#endif
