/* Sequential reading with inflation by ISA-L, which does about twice what zlib does: see gunzip.h. */
#include "gunzip.h"

#include <isa-l/igzip_lib.h>
#include <string.h>

enum { PIECE = 1 << 30 };

tr_status dl_stream_open(dl_stream *stream, const dl_file *file, const tr_allocator *allocator, const tr_clock *clock,
                         tr_error *error) {
  *stream = (dl_stream){.file = file, .allocator = allocator, .clock = clock};
  dl_window_init(&stream->window, file, allocator);
  tr_status status = dl_window_show(&stream->window, 0, file->bytes > 0, &stream->chunk, &stream->chunk_bytes, error);
  stream->offset = stream->chunk_bytes;
  stream->gzip = stream->chunk_bytes >= 2 && stream->chunk[0] == 0x1F && stream->chunk[1] == 0x8B;
  if (status == TR_OK && stream->gzip) {
    stream->inflate = tr_alloc(allocator, sizeof *stream->inflate);
    if (stream->inflate == NULL) {
      status = tr_fail_memory(error, "inflating", sizeof *stream->inflate);
    } else {
      isal_inflate_init(stream->inflate);
      stream->inflate->crc_flag = ISAL_GZIP;
    }
  }
  if (status != TR_OK) dl_stream_close(stream);
  return status;
}

void dl_stream_close(dl_stream *stream) {
  tr_free(stream->allocator, stream->inflate);
  dl_window_fini(&stream->window);
  stream->inflate = NULL;
}

static tr_status refill(dl_stream *stream, tr_error *error) {
  TR_TRY(dl_window_show(&stream->window, stream->offset, 1, &stream->chunk, &stream->chunk_bytes, error));
  stream->offset += stream->chunk_bytes;
  stream->chunk_at = 0;
  return TR_OK;
}

/* Where in the file the reading stands. */
static unsigned long long position(const dl_stream *stream) {
  return (unsigned long long)(stream->offset - (stream->chunk_bytes - stream->chunk_at));
}

static tr_status truncated(const dl_stream *stream, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: it ends at offset %llu with data missing", stream->file->url,
                 (unsigned long long)stream->file->bytes);
}

static bool at_end(const dl_stream *stream) {
  return stream->chunk_at == stream->chunk_bytes && stream->offset == stream->file->bytes;
}

/* A member that follows the one that ended, as `cat a.gz b.gz` makes. False at the end of the file. */
static tr_status next_member(dl_stream *stream, bool *there, tr_error *error) {
  *there = !at_end(stream);
  if (!*there) return TR_OK;
  if (stream->chunk_at == stream->chunk_bytes) TR_TRY(refill(stream, error));
  if (stream->chunk[stream->chunk_at] != 0x1F) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: bytes that are not gzip follow the end of the data at offset %llu",
                   stream->file->url, position(stream));
  }
  isal_inflate_reset(stream->inflate);
  stream->inflate->crc_flag = ISAL_GZIP;
  stream->member_done = false;
  return TR_OK;
}

static const char *reason(int code) {
  switch (code) {
    case ISAL_INCORRECT_CHECKSUM: return "wrong gzip CRC or length";
    case ISAL_INVALID_WRAPPER:
    case ISAL_UNSUPPORTED_METHOD: return "not a gzip header";
    default: return "invalid deflate data";
  }
}

/* Inflates into [to, to + bytes) until it is full or nothing is left; *made says how much came. */
static tr_status inflate_some(dl_stream *stream, void *to, size_t bytes, size_t *made, tr_error *error) {
  struct inflate_state *state = stream->inflate;
  *made = 0;
  while (*made < bytes || !stream->member_done) {
    if (stream->member_done) {
      bool there;
      TR_TRY(next_member(stream, &there, error));
      if (!there) return TR_OK;
    }
    if (stream->chunk_at == stream->chunk_bytes && stream->offset < stream->file->bytes) TR_TRY(refill(stream, error));
    const size_t room = bytes - *made < PIECE ? bytes - *made : PIECE;
    const size_t input = stream->chunk_bytes - stream->chunk_at;
    state->next_in = (uint8_t *)stream->chunk + stream->chunk_at; /* it only reads */
    state->avail_in = (uint32_t)input;
    state->next_out = (uint8_t *)to + *made;
    state->avail_out = (uint32_t)room;
    const int code = isal_inflate(state);
    stream->chunk_at = stream->chunk_bytes - state->avail_in;
    *made += room - state->avail_out;
    if (code < 0) {
      return tr_fail(error, TR_ERR_CORRUPT, "%s: %s near offset %llu", stream->file->url, reason(code),
                     position(stream));
    }
    stream->member_done = state->block_state == ISAL_BLOCK_FINISH;
    if (stream->member_done) continue;
    if (*made == bytes) return TR_OK;
    if (state->avail_in == 0 && stream->offset == stream->file->bytes && state->avail_out == room) {
      return truncated(stream, error);
    }
  }
  return TR_OK;
}

tr_status dl_stream_read(dl_stream *stream, void *to, size_t bytes, tr_error *error) {
  if (stream->gzip) {
    size_t made;
    TR_TRY(inflate_some(stream, to, bytes, &made, error));
    return made == bytes ? TR_OK : truncated(stream, error);
  }
  const size_t here = stream->chunk_bytes - stream->chunk_at;
  const size_t taken = bytes < here ? bytes : here;
  if (taken > 0) memcpy(to, stream->chunk + stream->chunk_at, taken);
  stream->chunk_at += taken;
  if (taken == bytes) return TR_OK;
  const size_t rest = bytes - taken;
  TR_TRY(dl_file_read(stream->file, stream->clock, stream->offset, (uint8_t *)to + taken, rest, NULL, error));
  stream->offset += rest;
  return TR_OK;
}

tr_status dl_stream_end(dl_stream *stream, tr_error *error) {
  if (stream->gzip) {
    uint8_t extra;
    size_t made;
    TR_TRY(inflate_some(stream, &extra, 1, &made, error));
    if (made == 0) return TR_OK;
    return tr_fail(error, TR_ERR_CORRUPT, "%s: more data than its header says, near offset %llu", stream->file->url,
                   position(stream));
  }
  if (at_end(stream)) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: %llu bytes too many: its header ends the data at offset %llu",
                 stream->file->url, (unsigned long long)stream->file->bytes - position(stream), position(stream));
}
