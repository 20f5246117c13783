/* WebDataset: tar files whose members with one key are a sample. Members are read in place, by the index; only those
 * that a field asks for, with one request where they lie together. */
#include <stdio.h>
#include <string.h>

#include "agree.h"
#include "decode.h"
#include "files.h"
#include "make.h"
#include "wds_index.h"

enum { KEY_SHOWN = 120 };
#define ABSENT UINT64_MAX

typedef struct place {
  uint64_t offset; /* ABSENT: the sample has no such member */
  uint32_t bytes;  /* UINT32_MAX: more than there may be */
  uint32_t crc32c;
} place;

typedef struct wds {
  dl_index index;
  /* The suffixes that fields need, each once; and how each field is made of one. */
  const char *suffixes[TR_FIELDS_MAX];
  size_t suffix_count;
  struct {
    size_t suffix;
    dl_kind kind;
    const char *path; /* JSON's */
  } made[TR_FIELDS_MAX];
  place *places;             /* [samples][suffix_count] */
  const uint8_t **sample_at; /* [samples] into the index: u16 length, key */
  bool *has_crc;             /* [shards] */
} wds;

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* The key for messages: what cannot be shown becomes '?'. */
static void show_key(const wds *self, uint64_t id, char text[KEY_SHOWN]) {
  const uint8_t *at = self->sample_at[id];
  size_t length = (size_t)at[0] | (size_t)at[1] << 8;
  if (length >= KEY_SHOWN) length = KEY_SHOWN - 1;
  for (size_t i = 0; i < length; i++) text[i] = at[2 + i] < 0x20 || at[2 + i] == 0x7F ? '?' : (char)at[2 + i];
  text[length] = '\0';
}

static tr_status missing(const tr_dataset *dataset, const dl_file *file, uint64_t id, size_t suffix, tr_error *error) {
  const wds *self = dataset->self;
  char key[KEY_SHOWN];
  show_key(self, id, key);
  return tr_fail(error, TR_ERR_CORRUPT, "%s: sample '%s' has no member .%s", file->url, key, self->suffixes[suffix]);
}

/* From the first byte that a field asks for to the last; members that no one can want, because they are beyond all
 * limits, are left out. */
static void wanted_range(const wds *self, uint64_t id, uint64_t *begin, uint64_t *end) {
  const place *places = self->places + id * self->suffix_count;
  *begin = UINT64_MAX;
  *end = 0;
  for (size_t i = 0; i < self->suffix_count; i++) {
    if (places[i].offset == ABSENT || places[i].bytes > DL_FIELD_BYTES_MAX) continue;
    *begin = places[i].offset < *begin ? places[i].offset : *begin;
    *end = places[i].offset + places[i].bytes > *end ? places[i].offset + places[i].bytes : *end;
  }
  if (*begin > *end) *begin = *end = 0;
}

/* All members of the sample. */
static void whole_range(dl_wds_members members, uint64_t *begin, uint64_t *end) {
  dl_wds_member member;
  *begin = UINT64_MAX;
  *end = 0;
  while (dl_wds_members_next(&members, &member)) {
    *begin = member.offset < *begin ? member.offset : *begin;
    *end = member.offset + member.bytes > *end ? member.offset + member.bytes : *end;
  }
  if (*begin > *end) *begin = *end = 0;
}

static bool wds_place(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place) {
  const wds *self = dataset->self;
  const uint64_t id = dataset->shard_first[shard] + index;
  uint64_t begin, end;
  if (whole) {
    whole_range(dl_wds_members_of(self->sample_at[id]), &begin, &end);
  } else {
    wanted_range(self, id, &begin, &end);
  }
  *place = (dl_place){.file = shard, .offset = begin, .bytes = end - begin};
  return true;
}

static tr_status wrong_bytes(const tr_dataset *dataset, size_t shard, uint64_t id, uint64_t offset, tr_error *error) {
  char key[KEY_SHOWN];
  show_key(dataset->self, id, key);
  return tr_fail(error, TR_ERR_CORRUPT,
                 "%s: offset %llu: sample '%s': the bytes are not those that were indexed (their CRC32C is another)",
                 dataset->files[shard].url, (unsigned long long)offset, key);
}

static tr_status wds_check(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, const uint8_t *bytes,
                           size_t count, tr_error *error) {
  (void)count;
  const wds *self = dataset->self;
  const uint64_t id = dataset->shard_first[shard] + index;
  if (!self->has_crc[shard]) return TR_OK;
  uint64_t begin, end;
  if (whole) {
    dl_wds_members members = dl_wds_members_of(self->sample_at[id]);
    dl_wds_member member;
    whole_range(members, &begin, &end);
    while (dl_wds_members_next(&members, &member)) {
      if (tr_crc32c(0, bytes + (member.offset - begin), (size_t)member.bytes) == member.crc32c) continue;
      return wrong_bytes(dataset, shard, id, member.offset, error);
    }
    return TR_OK;
  }
  const place *places = self->places + id * self->suffix_count;
  wanted_range(self, id, &begin, &end);
  for (size_t i = 0; i < self->suffix_count; i++) {
    if (places[i].offset == ABSENT || places[i].bytes > DL_FIELD_BYTES_MAX) continue;
    if (tr_crc32c(0, bytes + (places[i].offset - begin), places[i].bytes) == places[i].crc32c) continue;
    return wrong_bytes(dataset, shard, id, places[i].offset, error);
  }
  return TR_OK;
}

/* values[] shows each member that fields are made of. */
static tr_status find_values(const tr_dataset *dataset, const dl_file *file, uint64_t id, const uint8_t *bytes,
                             dl_value *values, tr_error *error) {
  const wds *self = dataset->self;
  const place *places = self->places + id * self->suffix_count;
  uint64_t begin, end;
  wanted_range(self, id, &begin, &end);
  for (size_t i = 0; i < self->suffix_count; i++) {
    if (places[i].offset == ABSENT) return missing(dataset, file, id, i, error);
    if (places[i].bytes > DL_FIELD_BYTES_MAX) {
      return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: a member of more than 1 GiB", file->url,
                     (unsigned long long)places[i].offset);
    }
    values[i] = (dl_value){.bytes = bytes + (places[i].offset - begin), .count = (size_t)places[i].bytes};
  }
  return TR_OK;
}

static tr_status blame(const tr_dataset *dataset, const dl_file *file, uint64_t id, size_t field, tr_status status,
                       tr_error *error) {
  const wds *self = dataset->self;
  const size_t suffix = self->made[field].suffix;
  char key[KEY_SHOWN];
  show_key(self, id, key);
  return tr_error_context(error, status, "%s: offset %llu: sample '%s', field '%s' (.%s)", file->url,
                          (unsigned long long)self->places[id * self->suffix_count + suffix].offset, key,
                          dataset->fields[field].name, self->suffixes[suffix]);
}

static tr_status wds_decode(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                            void *const *to, dl_scratch *scratch, tr_error *error) {
  (void)count;
  const wds *self = dataset->self;
  const dl_file *file = &dataset->files[sample->shard];
  dl_value values[TR_FIELDS_MAX];
  TR_TRY(find_values(dataset, file, sample->id, bytes, values, error));
  for (size_t i = 0; i < dataset->field_count; i++) {
    const tr_status status = dl_make(dataset, sample, i, self->made[i].kind, self->made[i].path,
                                     values[self->made[i].suffix], to[i], scratch, error);
    if (status != TR_OK) return blame(dataset, file, sample->id, i, status, error);
  }
  return TR_OK;
}

static void wds_name(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes) {
  char key[KEY_SHOWN];
  show_key(dataset->self, dataset->shard_first[shard] + index, key);
  snprintf(text, text_bytes, "%s: %s", dl_url_name(dataset->files[shard].url), key);
}

/* How a member is shown: JSON and class numbers as what they are, text as text, all else as bytes. */
static tr_raw_kind kind_of_raw(const char *suffix, const uint8_t *data, size_t bytes) {
  const char *dot = strrchr(suffix, '.');
  const char *last = dot != NULL ? dot + 1 : suffix;
  if (strcmp(last, "json") == 0 || strcmp(last, "cls") == 0) {
    return dl_is_json(data, bytes) ? TR_RAW_JSON : TR_RAW_BYTES;
  }
  return strcmp(last, "txt") == 0 || strcmp(last, "text") == 0 ? TR_RAW_TEXT : TR_RAW_BYTES;
}

static void list_members(const wds *self, const dl_wds_walk *walk, uint64_t id, const uint8_t *bytes, uint64_t begin,
                         tr_arena *arena, tr_raw_value *values) {
  dl_wds_members members = dl_wds_members_of(self->sample_at[id]);
  dl_wds_member member;
  for (size_t i = 0; dl_wds_members_next(&members, &member); i++) {
    const char *text = walk->suffixes[member.suffix].text;
    values[i].name = tr_arena_strndup(arena, text, walk->suffixes[member.suffix].length);
    values[i].data = bytes + (member.offset - begin);
    values[i].bytes = (size_t)member.bytes;
    if (values[i].name != NULL) values[i].kind = kind_of_raw(values[i].name, values[i].data, values[i].bytes);
  }
}

static tr_status wds_raw(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                         tr_raw_visit visit, void *visitor, tr_error *error) {
  (void)count;
  const wds *self = dataset->self;
  const uint64_t id = dataset->shard_first[shard] + index;
  const dl_wds_members members = dl_wds_members_of(self->sample_at[id]);
  uint64_t begin, end;
  whole_range(members, &begin, &end);
  tr_arena *arena = NULL;
  TR_TRY(tr_arena_create(dataset->allocator, 4096, &arena, error));
  dl_wds_walk *walk = tr_arena_alloc(arena, sizeof *walk);
  tr_raw_value *values = tr_arena_alloc(arena, members.left * sizeof *values);
  const uint8_t *at = self->sample_at[id];
  const char *key = tr_arena_strndup(arena, (const char *)at + 2, (size_t)at[0] | (size_t)at[1] << 8);
  tr_status status = TR_OK;
  if (walk == NULL || values == NULL || key == NULL || !dl_wds_walk_begin(walk, self->index.parts[shard])) {
    status = tr_fail_memory(error, "a sample", sizeof *walk);
  } else {
    list_members(self, walk, id, bytes, begin, arena, values);
    for (uint16_t i = 0; status == TR_OK && i < members.left; i++) {
      if (values[i].name == NULL) status = tr_fail_memory(error, "a sample", sizeof *walk);
    }
    if (status == TR_OK) status = visit(visitor, key, values, members.left, error);
  }
  tr_arena_destroy(arena);
  return status;
}

/* ---- Fields ------------------------------------------------------------------------------------------------------ */

/* Which suffixes the first sample of the data set has, and its number. */
static bool first_sample(const tr_dataset *dataset, dl_wds_walk *walk) {
  const wds *self = dataset->self;
  for (size_t i = 0; i < dataset->file_count; i++) {
    if (dl_wds_walk_begin(walk, self->index.parts[i]) && dl_wds_walk_sample(walk)) return true;
  }
  return false;
}

static tr_status add_default_fields(tr_dataset *dataset, tr_error *error) {
  dl_wds_walk *walk = tr_alloc(dataset->allocator, sizeof *walk);
  if (walk == NULL) return tr_fail_memory(error, "an index", sizeof *walk);
  tr_status status = TR_OK;
  if (!first_sample(dataset, walk)) {
    status = tr_fail(error, TR_ERR_CORRUPT, "data %s: holds no samples", dataset->files[0].url);
  }
  for (uint16_t i = 0; status == TR_OK && i < walk->member_count; i++) {
    dl_wds_member member;
    if (!dl_wds_walk_member(walk, &member)) break;
    char suffix[64];
    const size_t length = walk->suffixes[member.suffix].length;
    memcpy(suffix, walk->suffixes[member.suffix].text, length);
    suffix[length] = '\0';
    if (dl_kind_of(suffix) == DL_KIND_NONE) {
      tr_logf(dataset->log, TR_LOG_INFO, "data: members .%s are not read: they cannot be batched as they are", suffix);
    } else {
      status = dl_dataset_add_field(dataset, suffix, suffix, error);
    }
  }
  if (status == TR_OK && dataset->field_count == 0) {
    status = tr_fail(error, TR_ERR_CONFIG,
                     "data %s: no member of its first sample can be batched; name fields in data.fields: png, jpg, "
                     "jpeg, cls, json.PATH, npy, raw, bin",
                     dataset->files[0].url);
  }
  tr_free(dataset->allocator, walk);
  return status;
}

/* "json.box.0" and "meta.json.box": the member up to "json", then the path in it. */
static const char *json_path(const char *source, size_t *member_length) {
  for (const char *at = source; (at = strstr(at, "json.")) != NULL; at += 5) {
    if (at != source && at[-1] != '.') continue;
    *member_length = (size_t)(at - source) + 4;
    return at[5] != '\0' ? at + 5 : NULL;
  }
  return NULL;
}

static tr_status add_suffix(tr_dataset *dataset, const char *text, size_t length, size_t *number, tr_error *error) {
  wds *self = dataset->self;
  char *suffix = tr_arena_strndup(dataset->arena, text, length);
  if (suffix == NULL) return tr_fail_memory(error, "a field", length);
  for (char *c = suffix; *c != '\0'; c++) {
    if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
  }
  for (*number = 0; *number < self->suffix_count; ++*number) {
    if (strcmp(self->suffixes[*number], suffix) == 0) return TR_OK;
  }
  self->suffixes[self->suffix_count++] = suffix;
  return TR_OK;
}

static tr_status resolve_field(tr_dataset *dataset, size_t i, tr_error *error) {
  wds *self = dataset->self;
  const char *source = dataset->sources[i][0] == '.' ? dataset->sources[i] + 1 : dataset->sources[i];
  size_t length = strlen(source);
  const char *path = json_path(source, &length);
  self->made[i].path = path;
  self->made[i].kind = path != NULL ? DL_KIND_JSON : dl_kind_of(source);
  if (self->made[i].kind == DL_KIND_NONE) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data field '%s': members .%s cannot be made into a batch; png, jpg, jpeg, cls, json.PATH, npy, raw "
                   "and bin can",
                   dataset->fields[i].name, source);
  }
  return add_suffix(dataset, source, path != NULL ? length : strlen(source), &self->made[i].suffix, error);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static void place_member(const wds *self, const dl_wds_walk *walk, const dl_wds_member *member, place *places) {
  const size_t length = walk->suffixes[member->suffix].length;
  for (size_t i = 0; i < self->suffix_count; i++) {
    if (strlen(self->suffixes[i]) == length &&
        memcmp(self->suffixes[i], walk->suffixes[member->suffix].text, length) == 0) {
      places[i] = (place){.offset = member->offset,
                          .bytes = member->bytes > DL_FIELD_BYTES_MAX ? UINT32_MAX : (uint32_t)member->bytes,
                          .crc32c = member->crc32c};
    }
  }
}

static void place_samples(tr_dataset *dataset, dl_wds_walk *walk) {
  wds *self = dataset->self;
  uint64_t id = 0;
  for (size_t shard = 0; shard < dataset->file_count; shard++) {
    dl_wds_walk_begin(walk, self->index.parts[shard]);
    self->has_crc[shard] = walk->has_crc;
    for (; dl_wds_walk_sample(walk); id++) {
      place *places = self->places + id * self->suffix_count;
      self->sample_at[id] = (const uint8_t *)walk->key - 2;
      for (size_t i = 0; i < self->suffix_count; i++) places[i] = (place){.offset = ABSENT};
      for (uint16_t i = 0; i < walk->member_count; i++) {
        dl_wds_member member;
        if (dl_wds_walk_member(walk, &member)) place_member(self, walk, &member, places);
      }
    }
  }
}

static tr_status take_index(tr_dataset *dataset, tr_error *error) {
  wds *self = dataset->self;
  for (size_t i = 0; i < dataset->file_count; i++) {
    tr_reader reader = tr_reader_of(self->index.parts[i].data, self->index.parts[i].bytes);
    dataset->files[i].samples = tr_read_u64le(&reader);
  }
  TR_TRY(dl_dataset_set_shards(dataset, error));
  const size_t samples = (size_t)tr_dataset_size(dataset);
  if (dataset->field_count == 0) TR_TRY(add_default_fields(dataset, error));
  for (size_t i = 0; i < dataset->field_count; i++) TR_TRY(resolve_field(dataset, i, error));
  self->places = tr_calloc(dataset->allocator, samples, self->suffix_count * sizeof *self->places);
  self->sample_at = tr_calloc(dataset->allocator, samples, sizeof *self->sample_at);
  self->has_crc = tr_arena_alloc(dataset->arena, dataset->file_count * sizeof *self->has_crc);
  dl_wds_walk *walk = tr_alloc(dataset->allocator, sizeof *walk);
  tr_status status = TR_OK;
  if (self->places == NULL || self->sample_at == NULL || self->has_crc == NULL || walk == NULL) {
    status = tr_fail_memory(error, "the index", samples * self->suffix_count * sizeof *self->places);
  } else {
    place_samples(dataset, walk);
  }
  tr_free(dataset->allocator, walk);
  return status;
}

/* Types and shapes are those of the first sample. */
static tr_status probe_values(tr_dataset *dataset, const dl_file *file, const uint8_t *bytes, tr_error *error) {
  const wds *self = dataset->self;
  dl_value values[TR_FIELDS_MAX];
  TR_TRY(find_values(dataset, file, 0, bytes, values, error));
  for (size_t i = 0; i < dataset->field_count; i++) {
    tr_status status = dl_decode_probe(self->made[i].kind, self->made[i].path, values[self->made[i].suffix],
                                       dataset->allocator, &dataset->fields[i], error);
    if (status == TR_OK) status = dl_field_finish(&dataset->fields[i], error);
    if (status != TR_OK) return blame(dataset, file, 0, i, status, error);
  }
  return TR_OK;
}

static tr_status probe(tr_dataset *dataset, tr_error *error) {
  if (tr_dataset_size(dataset) == 0) return TR_OK;
  const dl_sample first = dl_dataset_sample(dataset, 0, 0, NULL);
  const uint8_t *bytes;
  size_t count;
  TR_TRY(dl_dataset_bring(dataset, &first, false, false, &dataset->scratch, &bytes, &count, error));
  return probe_values(dataset, &dataset->files[first.shard], bytes, error);
}

static tr_status list_files(tr_dataset *dataset, dl_candidate **out, tr_error *error) {
  wds *self = tr_arena_alloc(dataset->arena, sizeof *self);
  dl_candidate *list = tr_arena_alloc(dataset->arena, dataset->url_count * sizeof *list);
  if (self == NULL || list == NULL)
    return tr_fail_memory(error, "the list of shards", dataset->url_count * sizeof *list);
  for (size_t i = 0; i < dataset->url_count; i++) list[i].url = dataset->urls[i];
  self->index.allocator = dataset->allocator;
  dataset->self = self;
  dataset->files_per_shard = 1;
  *out = list;
  return TR_OK;
}

static tr_status wds_open(tr_dataset *dataset, tr_error *error) {
  dl_candidate *list = NULL;
  tr_status status = dl_agree(dataset->exchange, list_files(dataset, &list, error), error);
  if (status == TR_OK) status = dl_files_find(dataset, list, dataset->url_count, error);
  if (status != TR_OK) return status;
  wds *self = dataset->self;
  status = dl_index_open(dataset, &dl_wds_index_format, &self->index, error);
  if (status != TR_OK) return status;
  status = take_index(dataset, error);
  if (status == TR_OK) status = probe(dataset, error);
  return dl_agree(dataset->exchange, status, error);
}

static void wds_close(tr_dataset *dataset) {
  wds *self = dataset->self;
  if (self == NULL) return;
  tr_free(dataset->allocator, self->places);
  tr_free(dataset->allocator, self->sample_at);
  dl_index_fini(&self->index);
}

const dl_format dl_format_webdataset = {.name = "webdataset",
                                        .open = wds_open,
                                        .close = wds_close,
                                        .place = wds_place,
                                        .check = wds_check,
                                        .decode = wds_decode,
                                        .raw = wds_raw,
                                        .name_sample = wds_name};
