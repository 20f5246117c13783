/* Transforms: see transform.h. There are none yet: a list of them is refused. */
#include "transform.h"

#include <string.h>

struct dl_transforms {
  const tr_allocator *allocator;
  const tr_field *fields;
  size_t field_count;
};

tr_status dl_transforms_create(const tr_allocator *allocator, uint64_t seed, const char *const *specs, size_t count,
                               const tr_field *fields, size_t field_count, dl_transforms **out, tr_error *error) {
  (void)seed;
  if (count > 0) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "data.transforms: '%.80s': planned, not in this version", specs[0]);
  }
  dl_transforms *transforms = tr_calloc(allocator, 1, sizeof *transforms);
  if (transforms == NULL) return tr_fail_memory(error, "transforms", sizeof *transforms);
  *transforms = (dl_transforms){.allocator = allocator, .fields = fields, .field_count = field_count};
  *out = transforms;
  return TR_OK;
}

void dl_transforms_destroy(dl_transforms *transforms) {
  if (transforms != NULL) tr_free(transforms->allocator, transforms);
}

const tr_field *dl_transforms_fields(const dl_transforms *transforms) { return transforms->fields; }

bool dl_transforms_any_size(const dl_transforms *transforms, size_t field) {
  (void)transforms, (void)field;
  return false;
}

tr_status dl_transforms_apply(const dl_transforms *transforms, size_t field, uint64_t epoch, uint64_t id,
                              const tr_field *found, const void *from, void *to, dl_scratch *scratch, tr_error *error) {
  (void)transforms, (void)field, (void)epoch, (void)id, (void)scratch, (void)error;
  memcpy(to, from, found->bytes);
  return TR_OK;
}
