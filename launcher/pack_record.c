/* The record of a pack: see pack_record.h. */
#include "pack_record.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { VERSION = 1, RECORD_BYTES_MAX = 256 << 20 };

void pack_shard_key(const tr_pack_record *record, size_t number, char key[TR_KEY_BYTES]) {
  snprintf(key, TR_KEY_BYTES, "%s-%06zu.tar", record->name, number);
}

static void record_key(const tr_pack_record *record, char key[TR_KEY_BYTES]) {
  snprintf(key, TR_KEY_BYTES, "%s.pack.json", record->name);
}

/* The number in "NAME-000012.tar"; false: it is no shard of this name. */
static bool number_of(const tr_pack_record *record, const char *key, uint64_t *number) {
  const size_t length = strlen(record->name);
  char digits[32];
  const size_t count = strlen(key) > length ? strspn(key + length + 1, "0123456789") : 0;
  if (strncmp(key, record->name, length) != 0 || key[length] != '-' || count < 6 || count >= sizeof digits)
    return false;
  memcpy(digits, key + length + 1, count);
  digits[count] = '\0';
  return strcmp(key + length + 1 + count, ".tar") == 0 && tr_parse_u64(digits, number);
}

tr_status pack_record_add(tr_pack_record *record, const tr_pack_shard *shard, tr_error *error) {
  TR_TRY(
      tr_reserve(NULL, (void **)&record->shards, &record->capacity, record->count + 1, sizeof *record->shards, error));
  record->shards[record->count++] = *shard;
  return TR_OK;
}

tr_status pack_record_write(const tr_pack_record *record, tr_error *error) {
  char key[TR_KEY_BYTES];
  tr_writer text;
  tr_writer_init(&text, NULL);
  tr_write_text(&text,
                "{\n  \"version\": %d,\n  \"fingerprint\": \"%08x\",\n  \"samples\": %" PRIu64
                ",\n  \"complete\": %s,\n  \"shards\": [",
                VERSION, record->fingerprint, record->samples, record->complete ? "true" : "false");
  for (size_t i = 0; i < record->count; i++) {
    const tr_pack_shard *shard = &record->shards[i];
    pack_shard_key(record, i, key);
    const char *slash = strrchr(key, '/');
    tr_write_text(&text, "%s\n    {\"name\": ", i > 0 ? "," : "");
    tr_write_json_string(&text, slash != NULL ? slash + 1 : key);
    tr_write_text(&text, ", \"samples\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"crc32c\": \"%08x\"}", shard->samples,
                  shard->bytes, shard->crc32c);
  }
  tr_write_text(&text, "\n  ]\n}\n");
  record_key(record, key);
  const tr_status status = text.failed ? tr_fail_memory(error, "the record of a pack", text.bytes)
                                       : tr_store_put(record->store, key, text.data, text.bytes, false, error);
  tr_writer_fini(&text);
  return status;
}

/* Shards of the record that are there with their size. */
static tr_status take(tr_pack_record *record, const json_t *root, tr_error *error) {
  const json_t *shards = json_object_get(root, "shards");
  uint64_t samples = 0;
  for (size_t i = 0; i < json_array_size(shards); i++) {
    const json_t *one = json_array_get(shards, i);
    const char *crc = json_string_value(json_object_get(one, "crc32c"));
    tr_pack_shard shard = {.samples = (uint64_t)json_integer_value(json_object_get(one, "samples")),
                           .bytes = (uint64_t)json_integer_value(json_object_get(one, "bytes"))};
    char key[TR_KEY_BYTES];
    tr_object_info info;
    if (crc == NULL || sscanf(crc, "%" SCNx32, &shard.crc32c) != 1 || shard.samples == 0 ||
        shard.samples > record->samples - samples) {
      break;
    }
    pack_shard_key(record, i, key);
    const tr_status status = tr_store_head(record->store, key, &info, error);
    if (status == TR_ERR_NOT_FOUND || (status == TR_OK && info.bytes != shard.bytes)) break;
    if (status != TR_OK) return status;
    samples += shard.samples;
    TR_TRY(pack_record_add(record, &shard, error));
  }
  record->complete = samples == record->samples && json_is_true(json_object_get(root, "complete"));
  return TR_OK;
}

static tr_status read_record(tr_pack_record *record, bool *ours, tr_error *error) {
  char key[TR_KEY_BYTES], fingerprint[16];
  void *text = NULL;
  size_t bytes = 0;
  *ours = false;
  record_key(record, key);
  const tr_status status = tr_store_get_all(record->store, NULL, key, RECORD_BYTES_MAX, &text, &bytes, error);
  if (status != TR_OK) return status == TR_ERR_NOT_FOUND ? TR_OK : status;
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
  tr_free(NULL, text);
  const char *found = json_string_value(json_object_get(root, "fingerprint"));
  snprintf(fingerprint, sizeof fingerprint, "%08x", record->fingerprint);
  *ours = found != NULL && strcmp(found, fingerprint) == 0 &&
          json_integer_value(json_object_get(root, "version")) == VERSION &&
          (uint64_t)json_integer_value(json_object_get(root, "samples")) == record->samples;
  const tr_status taken = *ours ? take(record, root, error) : TR_OK;
  json_decref(root);
  return taken;
}

typedef struct visit_self {
  tr_pack_record *record;
  bool remove, other;
} visit_self;

static tr_status visit(void *self, const tr_list_entry *entry, tr_error *error) {
  visit_self *v = self;
  uint64_t number;
  if (!number_of(v->record, entry->key, &number)) return TR_OK;
  if (v->remove) return tr_store_delete(v->record->store, entry->key, error);
  v->other = true;
  return TR_OK;
}

static tr_status look(tr_pack_record *record, bool remove, bool *other, tr_error *error) {
  visit_self self = {.record = record, .remove = remove};
  char prefix[TR_KEY_BYTES];
  snprintf(prefix, sizeof prefix, "%s-", record->name);
  TR_TRY(tr_store_walk(record->store, prefix, visit, &self, error));
  *other = self.other;
  return TR_OK;
}

tr_status pack_record_find(tr_pack_record *record, bool *other, tr_error *error) {
  bool ours;
  TR_TRY(read_record(record, &ours, error));
  *other = false;
  return ours ? TR_OK : look(record, false, other, error);
}

tr_status pack_record_clear(tr_pack_record *record, tr_error *error) {
  char key[TR_KEY_BYTES];
  bool other;
  record->count = 0;
  record->complete = false;
  record_key(record, key);
  TR_TRY(tr_store_delete(record->store, key, error));
  return look(record, true, &other, error);
}

void pack_record_fini(tr_pack_record *record) {
  tr_free(NULL, record->shards);
  record->shards = NULL;
}
