/* Making and walking the index of a WebDataset shard, from the .idx file that DALI puts beside it or from the tar. */
#include "wds_index.h"

#include <string.h>

#include "tar.h"

enum { IDX_BYTES_MAX = 1 << 30, KEY_MAX = DL_TAR_NAME_MAX, SUFFIX_BYTES = 64, MEMBER_BYTES = 22 };

/* ---- Making ------------------------------------------------------------------------------------------------------ */

typedef struct maker {
  const dl_file *file;
  uint32_t suffix_count;
  char suffixes[DL_WDS_SUFFIXES_MAX][SUFFIX_BYTES];
  uint64_t last_sample[DL_WDS_SUFFIXES_MAX]; /* number of the last sample that had the suffix, from 1 */
  uint64_t samples;
  bool has_crc;
  tr_writer body;
  size_t count_at; /* where the member count of the sample at hand stands in the body */
  uint16_t members;
  char key[KEY_MAX + 1];
} maker;

static void end_sample(maker *m) {
  if (m->samples == 0 || m->body.failed) return;
  m->body.data[m->count_at] = (uint8_t)m->members;
  m->body.data[m->count_at + 1] = (uint8_t)(m->members >> 8);
}

static void begin_sample(maker *m, const char *key, size_t key_length) {
  end_sample(m);
  memcpy(m->key, key, key_length);
  m->key[key_length] = '\0';
  m->samples++;
  m->members = 0;
  tr_write_u16le(&m->body, (uint16_t)key_length);
  tr_write_bytes(&m->body, key, key_length);
  m->count_at = m->body.bytes;
  tr_write_u16le(&m->body, 0);
}

static tr_status suffix_number(maker *m, const char *suffix, uint32_t *number, tr_error *error) {
  for (*number = 0; *number < m->suffix_count; ++*number) {
    if (strcmp(m->suffixes[*number], suffix) == 0) return TR_OK;
  }
  if (m->suffix_count == DL_WDS_SUFFIXES_MAX) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: more than %d different suffixes", m->file->url, DL_WDS_SUFFIXES_MAX);
  }
  memcpy(m->suffixes[m->suffix_count++], suffix, strlen(suffix) + 1);
  return TR_OK;
}

static tr_status add_member(maker *m, const char *key, size_t key_length, const char *suffix, uint64_t offset,
                            uint64_t bytes, uint32_t crc32c, tr_error *error) {
  uint32_t number;
  TR_TRY(suffix_number(m, suffix, &number, error));
  const bool same = m->samples > 0 && strlen(m->key) == key_length && memcmp(m->key, key, key_length) == 0;
  if (!same) begin_sample(m, key, key_length);
  if (m->last_sample[number] == m->samples) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: sample '%.*s' has a second member .%s", m->file->url,
                   (unsigned long long)offset, (int)(key_length < 200 ? key_length : 200), key, suffix);
  }
  m->last_sample[number] = m->samples;
  m->members++;
  tr_write_u16le(&m->body, (uint16_t)number);
  tr_write_u64le(&m->body, offset);
  tr_write_u64le(&m->body, bytes);
  tr_write_u32le(&m->body, crc32c);
  return m->body.failed ? tr_fail_memory(error, "an index", m->body.bytes) : TR_OK;
}

static tr_status scan_members(maker *m, dl_tar *tar, dl_window *window, tr_error *error) {
  for (;;) {
    bool end;
    size_t key_length;
    char suffix[SUFFIX_BYTES];
    uint32_t crc32c;
    TR_TRY(dl_tar_next(tar, &end, error));
    if (end) return TR_OK;
    if (!dl_tar_split_name(tar->name, &key_length, suffix)) continue;
    TR_TRY(dl_window_crc(window, tar->offset, tar->bytes, &crc32c, error));
    TR_TRY(add_member(m, tar->name, key_length, suffix, tar->offset, tar->bytes, crc32c, error));
  }
}

static tr_status scan(const tr_dataset *dataset, maker *m, tr_error *error) {
  dl_tar *tar = tr_alloc(dataset->allocator, sizeof *tar);
  if (tar == NULL) return tr_fail_memory(error, "reading a tar file", sizeof *tar);
  dl_window window;
  dl_window_init(&window, m->file, dataset->allocator);
  dl_tar_init(tar, &window);
  m->has_crc = true;
  const tr_status status = scan_members(m, tar, &window, error);
  dl_window_fini(&window);
  tr_free(dataset->allocator, tar);
  return status;
}

/* ---- DALI's .idx ------------------------------------------------------------------------------------------------- */

/* The next word of a line; false at its end. */
static bool next_word(char **line, char **word) {
  while (**line == ' ') ++*line;
  if (**line == '\0') return false;
  *word = *line;
  *line += strcspn(*line, " ");
  if (**line == ' ') *(*line)++ = '\0';
  return true;
}

/* "ext offset size name" again and again: the members of one sample, whose keys must agree. */
static bool take_line(maker *m, char *line, uint64_t *end) {
  char *extension, *offset_text, *size_text, *name;
  const uint64_t samples = m->samples;
  while (next_word(&line, &extension)) {
    uint64_t offset, bytes;
    size_t key_length;
    char suffix[SUFFIX_BYTES];
    if (!next_word(&line, &offset_text) || !next_word(&line, &size_text) || !next_word(&line, &name)) return false;
    if (!tr_parse_u64(offset_text, &offset) || !tr_parse_u64(size_text, &bytes)) return false;
    if (offset % DL_TAR_BLOCK != 0 || offset < *end + DL_TAR_BLOCK) return false;
    if (offset > m->file->bytes || bytes > m->file->bytes - offset) return false;
    if (strlen(name) > DL_TAR_NAME_MAX || !dl_tar_split_name(name, &key_length, suffix)) return false;
    if (strcasecmp(suffix, extension) != 0) return false;
    if (add_member(m, name, key_length, suffix, offset, bytes, 0, NULL) != TR_OK) return false;
    *end = offset + (bytes + DL_TAR_BLOCK - 1) / DL_TAR_BLOCK * DL_TAR_BLOCK;
  }
  return m->samples == samples + 1;
}

/* A header of that size stands before the contents. */
static bool header_is_there(const tr_dataset *dataset, const maker *m, uint64_t offset, uint64_t bytes) {
  uint8_t block[DL_TAR_BLOCK];
  uint64_t found;
  return dl_file_read(m->file, dataset->clock, offset - DL_TAR_BLOCK, block, sizeof block, NULL, NULL) == TR_OK &&
         dl_tar_header_of(block, &found) && found == bytes;
}

static bool nothing_follows(const tr_dataset *dataset, const maker *m, uint64_t end) {
  uint8_t block[DL_TAR_BLOCK];
  if (dl_file_read(m->file, dataset->clock, end, block, sizeof block, NULL, NULL) != TR_OK) return false;
  for (size_t i = 0; i < sizeof block; i++) {
    if (block[i] != 0) return false;
  }
  return true;
}

/* The .idx may be of an older tar: the first and the last member must be where it says, and nothing after them. */
static bool is_of_this_tar(const tr_dataset *dataset, const maker *m, uint64_t end) {
  tr_reader reader = tr_reader_of(m->body.data, m->body.bytes);
  tr_read_bytes(&reader, tr_read_u16le(&reader));
  tr_read_u16le(&reader);
  tr_read_u16le(&reader);
  const uint64_t first = tr_read_u64le(&reader), first_bytes = tr_read_u64le(&reader);
  reader.at = m->body.bytes - (MEMBER_BYTES - 2);
  const uint64_t last = tr_read_u64le(&reader), last_bytes = tr_read_u64le(&reader);
  return !reader.failed && header_is_there(dataset, m, first, first_bytes) &&
         header_is_there(dataset, m, last, last_bytes) && nothing_follows(dataset, m, end);
}

static bool parse_idx(const tr_dataset *dataset, maker *m, char *text) {
  uint64_t count, end = 0;
  char *line = strsep(&text, "\n");
  if (strncmp(line, "v1.2 ", 5) != 0 || !tr_parse_u64(line + 5, &count) || count == 0) return false;
  while ((line = strsep(&text, "\n")) != NULL) {
    if (*line != '\0' && !take_line(m, line, &end)) return false;
  }
  return m->samples == count && !m->body.failed && is_of_this_tar(dataset, m, end);
}

/* Whether the index beside the shard could be used; where not, the maker is as it was. */
static bool use_idx(const tr_dataset *dataset, maker *m) {
  const size_t length = strlen(m->file->key);
  char key[TR_KEY_BYTES];
  void *text = NULL;
  size_t bytes;
  if (length < 4 || length >= sizeof key || strcmp(m->file->key + length - 4, ".tar") != 0) return false;
  memcpy(key, m->file->key, length - 4);
  memcpy(key + length - 4, ".idx", 5);
  if (tr_store_get_all(m->file->store, dataset->allocator, key, IDX_BYTES_MAX, &text, &bytes, NULL) != TR_OK) {
    return false;
  }
  const bool good = memchr(text, '\0', bytes) == NULL && parse_idx(dataset, m, text);
  tr_free(dataset->allocator, text);
  if (good) return true;
  tr_logf(dataset->log, TR_LOG_WARNING, "the index beside %s is not of this file: the file itself is read",
          m->file->url);
  m->suffix_count = 0;
  m->samples = 0;
  m->key[0] = '\0';
  memset(m->last_sample, 0, sizeof m->last_sample);
  tr_writer_fini(&m->body);
  return false;
}

static tr_status build(const tr_dataset *dataset, size_t shard, tr_writer *part, tr_error *error) {
  maker *m = tr_calloc(dataset->allocator, 1, sizeof *m);
  if (m == NULL) return tr_fail_memory(error, "an index", sizeof *m);
  m->file = &dataset->files[shard];
  tr_writer_init(&m->body, dataset->allocator);
  const tr_status status = use_idx(dataset, m) ? TR_OK : scan(dataset, m, error);
  if (status == TR_OK) {
    end_sample(m);
    tr_write_u64le(part, m->samples);
    tr_write_u8(part, m->has_crc);
    tr_write_u32le(part, m->suffix_count);
    for (uint32_t i = 0; i < m->suffix_count; i++) {
      tr_write_u8(part, (uint8_t)strlen(m->suffixes[i]));
      tr_write_bytes(part, m->suffixes[i], strlen(m->suffixes[i]));
    }
    tr_write_bytes(part, m->body.data, m->body.bytes);
  }
  tr_writer_fini(&m->body);
  tr_free(dataset->allocator, m);
  return status;
}

/* ---- Walking ----------------------------------------------------------------------------------------------------- */

bool dl_wds_walk_begin(dl_wds_walk *walk, dl_index_part part) {
  walk->reader = tr_reader_of(part.data, part.bytes);
  walk->walked = 0;
  walk->samples = tr_read_u64le(&walk->reader);
  walk->has_crc = tr_read_u8(&walk->reader) != 0;
  walk->suffix_count = tr_read_u32le(&walk->reader);
  if (walk->reader.failed || walk->suffix_count > DL_WDS_SUFFIXES_MAX) return false;
  for (uint32_t i = 0; i < walk->suffix_count; i++) {
    walk->suffixes[i].length = tr_read_u8(&walk->reader);
    walk->suffixes[i].text = tr_read_bytes(&walk->reader, walk->suffixes[i].length);
    if (walk->suffixes[i].text == NULL || walk->suffixes[i].length >= SUFFIX_BYTES) return false;
  }
  return true;
}

bool dl_wds_walk_sample(dl_wds_walk *walk) {
  if (walk->walked == walk->samples) return false;
  walk->walked++;
  walk->key_length = tr_read_u16le(&walk->reader);
  walk->key = tr_read_bytes(&walk->reader, walk->key_length);
  walk->member_count = tr_read_u16le(&walk->reader);
  return !walk->reader.failed;
}

bool dl_wds_walk_member(dl_wds_walk *walk, dl_wds_member *member) {
  member->suffix = tr_read_u16le(&walk->reader);
  member->offset = tr_read_u64le(&walk->reader);
  member->bytes = tr_read_u64le(&walk->reader);
  member->crc32c = tr_read_u32le(&walk->reader);
  return !walk->reader.failed;
}

static uint64_t little(const uint8_t *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i > 0; i--) value = value << 8 | at[i - 1];
  return value;
}

dl_wds_members dl_wds_members_of(const uint8_t *sample) {
  const uint8_t *count = sample + 2 + little(sample, 2);
  return (dl_wds_members){.at = count + 2, .left = (uint16_t)little(count, 2)};
}

bool dl_wds_members_next(dl_wds_members *members, dl_wds_member *member) {
  if (members->left == 0) return false;
  members->left--;
  member->suffix = (uint16_t)little(members->at, 2);
  member->offset = little(members->at + 2, 8);
  member->bytes = little(members->at + 10, 8);
  member->crc32c = (uint32_t)little(members->at + 18, 4);
  members->at += MEMBER_BYTES;
  return true;
}

static tr_status check(const tr_dataset *dataset, size_t shard, dl_index_part part, tr_error *error) {
  const dl_file *file = &dataset->files[shard];
  dl_wds_walk *walk = tr_alloc(dataset->allocator, sizeof *walk);
  if (walk == NULL) return tr_fail_memory(error, "an index", sizeof *walk);
  bool good = dl_wds_walk_begin(walk, part);
  while (good && dl_wds_walk_sample(walk)) {
    for (uint16_t i = 0; good && i < walk->member_count; i++) {
      dl_wds_member member;
      good = dl_wds_walk_member(walk, &member) && member.suffix < walk->suffix_count && member.offset <= file->bytes &&
             member.bytes <= file->bytes - member.offset;
    }
  }
  good = good && walk->walked == walk->samples && !walk->reader.failed && tr_reader_left(&walk->reader) == 0;
  tr_free(dataset->allocator, walk);
  return good ? TR_OK : tr_fail(error, TR_ERR_CORRUPT, "the index of %s is broken", file->url);
}

const dl_index_format dl_wds_index_format = {.build = build, .check = check};
