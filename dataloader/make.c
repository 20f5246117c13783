/* Decoding into a row, through the transforms where there are any: see make.h. */
#include "make.h"

#include <string.h>

tr_status dl_make(const tr_dataset *dataset, const dl_sample *sample, size_t field, dl_kind kind, const char *path,
                  dl_value value, void *to, dl_scratch *scratch, tr_error *error) {
  if (sample->transforms == NULL) {
    return dl_decode(kind, path, &dataset->fields[field], value, scratch->allocator, to, error);
  }
  tr_field found = dataset->fields[field];
  if (dl_transforms_any_size(sample->transforms, field)) {
    TR_TRY(dl_decode_probe(kind, path, value, scratch->allocator, &found, error));
    TR_TRY(dl_field_finish(&found, error));
  }
  TR_TRY(dl_buffer_reserve(scratch->allocator, &scratch->decoded, found.bytes, error));
  TR_TRY(dl_decode(kind, path, &found, value, scratch->allocator, scratch->decoded.bytes, error));
  return dl_transforms_apply(sample->transforms, field, sample->epoch, sample->id, &found, scratch->decoded.bytes, to,
                             scratch, error);
}

tr_status dl_make_plain(const tr_dataset *dataset, const dl_sample *sample, size_t field, const void *from, void *to,
                        dl_scratch *scratch, tr_error *error) {
  const tr_field *as_stored = &dataset->fields[field];
  if (sample->transforms == NULL) {
    memcpy(to, from, as_stored->bytes);
    return TR_OK;
  }
  return dl_transforms_apply(sample->transforms, field, sample->epoch, sample->id, as_stored, from, to, scratch, error);
}
