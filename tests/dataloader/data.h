/* Data sets made in memory for the tests of this room: stores, tar files, gzip, IDX, PNG and JPEG written by other code
 * than the one that reads them, and ranks that exchange bytes through shared memory. */
#ifndef TRAINRUN_TESTS_DATALOADER_DATA_H
#define TRAINRUN_TESTS_DATALOADER_DATA_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/dataloader.h>

#include "support/support.h"

#define EXPECT_OK(call)                                                                                                \
  do {                                                                                                                 \
    const tr_status expect_ok_ = (call);                                                                               \
    cr_assert_eq(expect_ok_, TR_OK, "%s: %s", tr_status_name(expect_ok_), e.message);                                  \
  } while (0)

/* The failure must be `status` and its message must hold `text`. */
#define EXPECT_FAIL(call, wanted, text)                                                                                \
  do {                                                                                                                 \
    const tr_status expect_fail_ = (call);                                                                             \
    cr_assert_eq(expect_fail_, wanted, "%s: %s", tr_status_name(expect_fail_), e.message);                             \
    cr_assert_not_null(strstr(e.message, text), "'%s' does not say '%s'", e.message, text);                            \
  } while (0)

/* Bytes that grow. */
typedef struct bytes {
  uint8_t *data;
  size_t count;
  size_t capacity; /* bytes_add's own */
} bytes;
void bytes_add(bytes *to, const void *data, size_t count);
void bytes_free(bytes *b);
bytes bytes_of_file(const char *path);

/* A string that lives as long as the process. */
char *kept(char *text);
/* The exit code of a program. */
int run_program(const char *const *arguments);

tr_stores *make_stores(const tr_allocator *allocator);
void put(tr_stores *stores, const char *url, const void *data, size_t count);
void put_bytes(tr_stores *stores, const char *url, bytes b);

/* Takes away the indexes that stand beside the data of a memory store ("memory://NAME/x"); how many there were. */
size_t forget_indexes(tr_stores *stores, const char *url);

bytes make_gzip(const void *data, size_t count);
/* type 0x08 u8, 0x0C i32, 0x0D f32; values are written big-endian from the host's. */
bytes make_idx(uint8_t type, const uint32_t *dims, uint8_t ndim, const void *values, size_t value_count);
/* A tar member with a ustar header; name at most 99 bytes. */
void tar_add(bytes *tar, const char *name, const void *data, size_t count);
void tar_add_text(bytes *tar, const char *name, const char *text);
void tar_add_typed(bytes *tar, char type, const char *name, const void *data, size_t count, uint64_t claimed);
void tar_end(bytes *tar);

bytes make_png(uint32_t height, uint32_t width, uint32_t channels, const uint8_t *pixels);
bytes make_jpeg(uint32_t height, uint32_t width, uint32_t channels, const uint8_t *pixels);

/* A data set of the test's own: `count` samples of an i32 "id" (the sample's number) and u8 "pixels" [5], as idx files
 * under memory://d/NAME. */
void put_numbered(tr_stores *stores, const char *prefix, uint32_t first, uint32_t count);

tr_device *make_cpu(const tr_allocator *allocator);

/* Ranks in processes made by ts_ranks: create before the fork. */
typedef struct exchange_area exchange_area;
exchange_area *exchange_area_make(int ranks, size_t bytes);
tr_exchange exchange_of(exchange_area *area, int rank, int ranks);

/* A few bits from a seed. */
static inline uint64_t noise(uint64_t seed, uint64_t i) { return tr_rng_u64(seed, TR_RNG_USER, 0, i); }

#endif
