/* One encoded value -> one sample of a field. Pure functions of bytes; any thread. What comes in is untrusted: each
 * decoder knows beforehand which type and shape must come out, and writes nothing beyond it.
 *
 * Errors say what is wrong with the bytes; the caller adds shard, key and offset. */
#ifndef TRAINRUN_DATALOADER_DECODE_H
#define TRAINRUN_DATALOADER_DECODE_H

#include "transform.h"

typedef enum dl_kind {
  DL_KIND_NONE = 0, /* nothing that can be batched */
  DL_KIND_RAW,      /* u8 [n] */
  DL_KIND_PNG,      /* u8 [h, w, c] with c = 1 (grey) or 3; alpha is dropped, 16 bits become 8 */
  DL_KIND_JPEG,     /* u8 [h, w, c] with c = 1 (grey) or 3 */
  DL_KIND_CLS,      /* i32, written in decimal */
  DL_KIND_JSON,     /* f32: a number, or [n] numbers, at a path */
  DL_KIND_NPY       /* the array's own type and shape */
} dl_kind;

typedef struct dl_value {
  const uint8_t *bytes;
  size_t count;
} dl_value;

/* Of a suffix such as "seg.png", by its last part. */
dl_kind dl_kind_of(const char *suffix);

/* Fills in dtype, ndim and shape. `path` is JSON's ("box.0"), else NULL. */
tr_status dl_decode_probe(dl_kind kind, const char *path, dl_value value, const tr_allocator *allocator,
                          tr_field *field, tr_error *error);
/* A value of another type or shape than the field's is TR_ERR_CORRUPT. */
tr_status dl_decode(dl_kind kind, const char *path, const tr_field *field, dl_value value,
                    const tr_allocator *allocator, void *to, tr_error *error);

/* Where the pixels of an image go, asked when its header has been read. */
typedef struct dl_image_sink dl_image_sink;
struct dl_image_sink {
  /* `found` is what the header says. *part is set to what is wanted of it: all of it at full size unless the decoder can do
   * `parts`. *to is set to room for that. */
  tr_status (*place)(dl_image_sink *sink, const tr_field *found, bool parts, dl_part *part, uint8_t **to,
                     tr_error *error);
};

/* The images: without a sink only the header is read. */
tr_status dl_png(dl_value value, const tr_allocator *allocator, tr_field *found, dl_image_sink *sink, tr_error *error);
tr_status dl_jpeg(dl_value value, tr_field *found, dl_image_sink *sink, tr_error *error);
/* A header that promises more bytes of pixels than so many bytes of file can hold is a lie: it makes no room for them. */
tr_status dl_image_believe(uint64_t pixel_bytes, uint64_t file_bytes, uint64_t most_a_byte, tr_error *error);
tr_status dl_npy(dl_value value, tr_field *found, const uint8_t **data, tr_error *error);

/* Whether it is one JSON value, UTF-8 and all. */
bool dl_is_json(const uint8_t *bytes, size_t count);

/* TR_OK where the two have one type and shape. */
tr_status dl_same_shape(const tr_field *expected, const tr_field *found, tr_error *error);
void dl_image_shape(tr_field *field, uint32_t height, uint32_t width, uint32_t channels);

enum { DL_IMAGE_SIDE_MAX = 65535 };

#endif
