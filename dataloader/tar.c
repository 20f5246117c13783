/* Walking a tar file: see tar.h. Everything read here is untrusted. */
#include "tar.h"

#include <string.h>

enum {
  NAME_AT = 0,
  NAME_BYTES = 100,
  SIZE_AT = 124,
  SIZE_BYTES = 12,
  CHECKSUM_AT = 148,
  CHECKSUM_BYTES = 8,
  TYPE_AT = 156,
  MAGIC_AT = 257,
  PREFIX_AT = 345,
  PREFIX_BYTES = 155,
  PADDING_MAX = 1 << 20 /* after the end mark; tar pads to 10 KiB */
};

void dl_tar_init(dl_tar *tar, dl_window *window) {
  tar->window = window;
  tar->at = 0;
  tar->name[0] = '\0';
  tar->offset = tar->bytes = 0;
}

static tr_status corrupt(const dl_tar *tar, uint64_t offset, const char *what, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: %s", tar->window->file->url, (unsigned long long)offset,
                 what);
}

/* Octal digits between blanks, or GNU's base 256. */
static bool parse_number(const uint8_t *at, size_t bytes, uint64_t *number) {
  uint64_t value = 0;
  if (at[0] & 0x80) {
    if (at[0] != 0x80) return false;
    for (size_t i = 1; i < bytes; i++) {
      if (value >> 55 != 0) return false;
      value = value << 8 | at[i];
    }
    *number = value;
    return true;
  }
  size_t i = 0;
  while (i < bytes && at[i] == ' ') i++;
  for (; i < bytes && at[i] >= '0' && at[i] <= '7'; i++) value = value * 8 + (uint64_t)(at[i] - '0');
  for (; i < bytes; i++) {
    if (at[i] != ' ' && at[i] != '\0') return false;
  }
  *number = value;
  return true;
}

static bool checksum_is_right(const uint8_t *block) {
  uint64_t stored;
  if (!parse_number(block + CHECKSUM_AT, CHECKSUM_BYTES, &stored)) return false;
  uint64_t sum = 0;
  int64_t signed_sum = 0; /* as some old tars had it */
  for (size_t i = 0; i < DL_TAR_BLOCK; i++) {
    const bool inside = i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_BYTES;
    sum += inside ? ' ' : block[i];
    signed_sum += inside ? ' ' : (int8_t)block[i];
  }
  return stored == sum || (signed_sum >= 0 && stored == (uint64_t)signed_sum);
}

bool dl_tar_header_of(const uint8_t *block, uint64_t *bytes) {
  return checksum_is_right(block) && parse_number(block + SIZE_AT, SIZE_BYTES, bytes);
}

static bool is_zero(const uint8_t *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (data[i] != 0) return false;
  }
  return true;
}

static void name_from_header(dl_tar *tar, const uint8_t *block) {
  const char *prefix = (const char *)block + PREFIX_AT, *name = (const char *)block + NAME_AT;
  /* GNU's own format ("ustar  ") keeps other things where ustar has the prefix. */
  const bool ustar = memcmp(block + MAGIC_AT, "ustar\0", 6) == 0;
  const size_t prefix_length = ustar ? strnlen(prefix, PREFIX_BYTES) : 0;
  size_t used = 0;
  if (prefix_length > 0) {
    memcpy(tar->name, prefix, prefix_length);
    tar->name[prefix_length] = '/';
    used = prefix_length + 1;
  }
  const size_t name_length = strnlen(name, NAME_BYTES);
  memcpy(tar->name + used, name, name_length);
  tar->name[used + name_length] = '\0';
}

/* ---- Headers that describe the next member ----------------------------------------------------------------------- */

typedef struct described {
  bool has_name, has_size;
  uint64_t bytes;
} described;

static tr_status take_name(dl_tar *tar, uint64_t at, const uint8_t *text, size_t length, described *next,
                           tr_error *error) {
  const size_t end = strnlen((const char *)text, length);
  if (end > DL_TAR_NAME_MAX) return corrupt(tar, at, "a name of more than 4096 bytes", error);
  memcpy(tar->name, text, end);
  tar->name[end] = '\0';
  next->has_name = true;
  return TR_OK;
}

/* One record is "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
static tr_status take_pax(dl_tar *tar, uint64_t at, const uint8_t *data, size_t bytes, described *next,
                          tr_error *error) {
  while (bytes > 0 && *data != '\0') {
    size_t length = 0, digits = 0;
    for (; digits < bytes && digits < 8 && data[digits] >= '0' && data[digits] <= '9'; digits++) {
      length = length * 10 + (size_t)(data[digits] - '0');
    }
    const uint8_t *key = data + digits + 1;
    if (digits == 0 || digits >= bytes || data[digits] != ' ' || length > bytes || length < digits + 3 ||
        data[length - 1] != '\n') {
      return corrupt(tar, at, "a broken pax header", error);
    }
    const uint8_t *equals = memchr(key, '=', length - digits - 1);
    if (equals == NULL) return corrupt(tar, at, "a broken pax header", error);
    const size_t key_length = (size_t)(equals - key);
    const uint8_t *value = equals + 1;
    const size_t value_length = (size_t)(data + length - 1 - value);
    if (key_length == 4 && memcmp(key, "path", 4) == 0) {
      TR_TRY(take_name(tar, at, value, value_length, next, error));
    } else if (key_length == 4 && memcmp(key, "size", 4) == 0) {
      char text[24] = "";
      if (value_length >= sizeof text) return corrupt(tar, at, "a broken size in a pax header", error);
      memcpy(text, value, value_length);
      if (!tr_parse_u64(text, &next->bytes)) return corrupt(tar, at, "a broken size in a pax header", error);
      next->has_size = true;
    } else if (key_length >= 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
      return corrupt(tar, at, "a sparse member, which is not read", error);
    }
    data += length;
    bytes -= length;
  }
  return TR_OK;
}

static tr_status take_description(dl_tar *tar, uint8_t type, uint64_t at, uint64_t bytes, described *next,
                                  tr_error *error) {
  const uint8_t *data;
  size_t shown;
  if (type != 'L' && type != 'x') return TR_OK;
  if (bytes > DL_WINDOW_BYTES / 2) return corrupt(tar, at, "a header of more than 512 KiB", error);
  TR_TRY(dl_window_show(tar->window, at, (size_t)bytes, &data, &shown, error));
  if (type == 'L') {
    /* A pax path goes before it, whichever comes first. */
    return next->has_name ? TR_OK : take_name(tar, at, data, (size_t)bytes, next, error);
  }
  return take_pax(tar, at, data, (size_t)bytes, next, error);
}

/* ---- Members ----------------------------------------------------------------------------------------------------- */

/* What follows the end mark must be padding: another archive behind it would be lost in silence. */
static tr_status check_end(dl_tar *tar, tr_error *error) {
  const uint64_t end = tar->window->file->bytes;
  if (end - tar->at > PADDING_MAX)
    return corrupt(tar, tar->at, "more than 1 MiB follows the end of the archive", error);
  while (tar->at < end) {
    const uint8_t *data;
    size_t shown;
    const uint64_t left = end - tar->at;
    const size_t piece = left < DL_TAR_BLOCK ? (size_t)left : DL_TAR_BLOCK;
    TR_TRY(dl_window_show(tar->window, tar->at, piece, &data, &shown, error));
    if (!is_zero(data, piece)) return corrupt(tar, tar->at, "data follows the end of the archive", error);
    tar->at += piece;
  }
  return TR_OK;
}

/* Type '0' and its old and new names hold files; '1' to '6' (links, devices, folders) hold nothing whatever size they
 * give. */
static bool is_regular(uint8_t type) { return type == '0' || type == '\0' || type == '7'; }
static bool is_empty(uint8_t type) { return type >= '1' && type <= '6'; }

tr_status dl_tar_next(dl_tar *tar, bool *end, tr_error *error) {
  const uint64_t file_bytes = tar->window->file->bytes;
  described next = {0};
  for (;;) {
    const uint8_t *block;
    size_t shown;
    uint64_t bytes;
    const uint64_t header = tar->at;
    if (header == file_bytes || file_bytes - header < DL_TAR_BLOCK) {
      return corrupt(tar, header, "truncated: it ends without the mark of the end of the archive", error);
    }
    TR_TRY(dl_window_show(tar->window, header, DL_TAR_BLOCK, &block, &shown, error));
    if (is_zero(block, DL_TAR_BLOCK)) {
      if (next.has_name || next.has_size) return corrupt(tar, header, "a long name without its member", error);
      *end = true;
      return check_end(tar, error);
    }
    if (header == 0 && block[0] == 0x1F && block[1] == 0x8B) {
      return tr_fail(error, TR_ERR_UNSUPPORTED, "%s: compressed tar is not read (samples are read in place); unpack it",
                     tar->window->file->url);
    }
    if (!dl_tar_header_of(block, &bytes))
      return corrupt(tar, header, "not a tar header (its checksum is wrong)", error);
    const uint8_t type = block[TYPE_AT];
    if (type == 'S') return corrupt(tar, header, "a sparse member, which is not read", error);
    const bool describes = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    if (!describes && next.has_size) bytes = next.bytes;
    if (is_empty(type)) bytes = 0;
    const uint64_t contents = header + DL_TAR_BLOCK;
    if (bytes > file_bytes - contents) return corrupt(tar, header, "truncated: a member reaches past the end", error);
    const uint64_t padded = (bytes + DL_TAR_BLOCK - 1) / DL_TAR_BLOCK * DL_TAR_BLOCK;
    tar->at = padded > file_bytes - contents ? file_bytes : contents + padded;
    if (describes) {
      TR_TRY(take_description(tar, type, contents, bytes, &next, error));
      continue;
    }
    if (is_regular(type)) {
      /* The block is shown still: nothing was asked of the window since. */
      if (!next.has_name) name_from_header(tar, block);
      tar->offset = contents;
      tar->bytes = bytes;
      *end = false;
      return TR_OK;
    }
    next = (described){0};
  }
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* A first part such as "__meta__" marks what is not a sample. */
static bool is_meta(const char *name) {
  const size_t length = strcspn(name, "/");
  return length >= 4 && memcmp(name, "__", 2) == 0 && memcmp(name + length - 2, "__", 2) == 0;
}

bool dl_tar_split_name(const char *name, size_t *key_length, char suffix[64]) {
  const char *slash = strrchr(name, '/');
  const char *last = slash != NULL ? slash + 1 : name;
  const char *dot = strchr(last, '.');
  if (dot == NULL || dot == last || dot[1] == '\0' || is_meta(name)) return false;
  const size_t length = strlen(dot + 1);
  if (length >= 64) return false;
  for (size_t i = 0; i <= length; i++) {
    const char c = dot[1 + i];
    suffix[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
  }
  *key_length = (size_t)(dot - name);
  return true;
}
