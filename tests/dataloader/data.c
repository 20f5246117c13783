/* See data.h. */
#include "data.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <zlib.h>

#include <jpeglib.h>
#include <png.h>

void bytes_add(bytes *to, const void *data, size_t count) {
  if (to->count + count + 1 > to->capacity) {
    to->capacity = (to->count + count + 1) * 3 / 2;
    to->data = realloc(to->data, to->capacity);
  }
  if (count > 0) memcpy(to->data + to->count, data, count);
  to->count += count;
}

void bytes_free(bytes *b) {
  free(b->data);
  *b = (bytes){0};
}

bytes bytes_of_file(const char *path) {
  bytes b = {0};
  b.data = (uint8_t *)ts_file_read(path, &b.count);
  cr_assert_not_null(b.data, "%s", path);
  return b;
}

char *kept(char *text) {
  static char *all[1024];
  static size_t count;
  cr_assert_lt(count, 1024);
  return all[count++] = text;
}

int run_program(const char *const *arguments) {
  ts_result result = ts_run(arguments, NULL);
  const int code = result.exit_code;
  if (code != 0) fprintf(stderr, "%s\n", result.err);
  ts_result_free(&result);
  return code;
}

tr_stores *make_stores(const tr_allocator *allocator) {
  const tr_stores_options options = {.struct_bytes = sizeof options, .allocator = allocator};
  tr_stores *stores = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_stores_create(&options, &stores, &e));
  return stores;
}

void put(tr_stores *stores, const char *url, const void *data, size_t count) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  EXPECT_OK(tr_stores_resolve(stores, url, &store, key, &e));
  EXPECT_OK(tr_store_put(store, key, data, count, false, &e));
}

void put_bytes(tr_stores *stores, const char *url, bytes b) { put(stores, url, b.data, b.count); }

typedef struct found_indexes {
  char keys[16][64];
  size_t count;
} found_indexes;

static tr_status note_index(void *self, const tr_list_entry *entry, tr_error *error) {
  found_indexes *found = self;
  (void)error;
  cr_assert_lt(found->count, 16);
  cr_assert_lt(snprintf(found->keys[found->count++], 64, "%s", entry->key), 64);
  return TR_OK;
}

size_t forget_indexes(tr_stores *stores, const char *url) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  found_indexes found = {0};
  EXPECT_OK(tr_stores_resolve(stores, url, &store, key, &e));
  EXPECT_OK(tr_store_walk(store, ".trainrun/", note_index, &found, &e));
  for (size_t i = 0; i < found.count; i++) EXPECT_OK(tr_store_delete(store, found.keys[i], &e));
  return found.count;
}

bytes make_gzip(const void *data, size_t count) {
  z_stream z = {0};
  cr_assert_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  bytes b = {.data = malloc(deflateBound(&z, count) + 64)};
  z.next_in = (Bytef *)data;
  z.avail_in = (uInt)count;
  z.next_out = b.data;
  z.avail_out = (uInt)(deflateBound(&z, count) + 64);
  cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
  b.count = z.total_out;
  deflateEnd(&z);
  return b;
}

static void add_big(bytes *b, uint32_t value) {
  const uint8_t big[] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
  bytes_add(b, big, 4);
}

bytes make_idx(uint8_t type, const uint32_t *dims, uint8_t ndim, const void *values, size_t value_count) {
  bytes b = {0};
  const uint8_t magic[] = {0, 0, type, ndim};
  bytes_add(&b, magic, 4);
  for (uint8_t i = 0; i < ndim; i++) add_big(&b, dims[i]);
  if (type == 0x08) {
    bytes_add(&b, values, value_count);
  } else {
    for (size_t i = 0; i < value_count; i++) {
      uint32_t word;
      memcpy(&word, (const uint8_t *)values + 4 * i, 4);
      add_big(&b, word);
    }
  }
  return b;
}

void tar_add_typed(bytes *tar, char type, const char *name, const void *data, size_t count, uint64_t claimed) {
  char header[513];
  memset(header, 0, sizeof header);
  snprintf(header, 100, "%s", name);
  memcpy(header + 100, "0000644\0000000000\0000000000", 23);
  snprintf(header + 124, 13, "%011llo", (unsigned long long)claimed);
  memcpy(header + 136, "00000000000", 12);
  header[156] = type;
  memcpy(header + 257, "ustar\00000", 8);
  memset(header + 148, ' ', 8);
  unsigned sum = 0;
  for (int i = 0; i < 512; i++) sum += (unsigned char)header[i];
  snprintf(header + 148, 8, "%06o", sum);
  bytes_add(tar, header, 512);
  if (count > 0) bytes_add(tar, data, count);
  static const char zeros[512];
  bytes_add(tar, zeros, (512 - count % 512) % 512);
}

void tar_add(bytes *tar, const char *name, const void *data, size_t count) {
  tar_add_typed(tar, '0', name, data, count, count);
}

void tar_add_text(bytes *tar, const char *name, const char *text) { tar_add(tar, name, text, strlen(text)); }

void tar_end(bytes *tar) {
  static const char zeros[1024];
  bytes_add(tar, zeros, sizeof zeros);
}

bytes make_png(uint32_t height, uint32_t width, uint32_t channels, const uint8_t *pixels) {
  png_image image = {.version = PNG_IMAGE_VERSION, .width = width, .height = height};
  image.format = channels == 1 ? PNG_FORMAT_GRAY : channels == 4 ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  bytes b = {0};
  png_alloc_size_t count = 0;
  cr_assert(png_image_write_get_memory_size(image, count, 0, pixels, 0, NULL));
  b.data = malloc(count);
  cr_assert(png_image_write_to_memory(&image, b.data, &count, 0, pixels, 0, NULL));
  b.count = count;
  return b;
}

bytes make_jpeg(uint32_t height, uint32_t width, uint32_t channels, const uint8_t *pixels) {
  struct jpeg_compress_struct info;
  struct jpeg_error_mgr manager;
  unsigned char *data = NULL;
  unsigned long count = 0;
  info.err = jpeg_std_error(&manager);
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, &data, &count);
  info.image_width = width;
  info.image_height = height;
  info.input_components = (int)channels;
  info.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < height) {
    JSAMPROW row = (JSAMPROW)(pixels + (size_t)info.next_scanline * width * channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  return (bytes){.data = data, .count = count};
}

void put_numbered(tr_stores *stores, const char *prefix, uint32_t first, uint32_t count) {
  int32_t *ids = malloc((count + 1) * sizeof *ids);
  uint8_t *pixels = malloc(count * 5 + 1);
  for (uint32_t i = 0; i < count; i++) {
    ids[i] = (int32_t)(first + i);
    for (uint32_t j = 0; j < 5; j++) pixels[i * 5 + j] = (uint8_t)((first + i) * 7 + j);
  }
  const uint32_t dims[] = {count, 5};
  bytes id_file = make_idx(0x0C, dims, 1, ids, count), pixel_file = make_idx(0x08, dims, 2, pixels, count * 5);
  char *id_url = ts_format("%s-id", prefix), *pixel_url = ts_format("%s-pixels", prefix);
  put_bytes(stores, id_url, id_file);
  put_bytes(stores, pixel_url, pixel_file);
  bytes_free(&id_file);
  bytes_free(&pixel_file);
  free(id_url);
  free(pixel_url);
  free(ids);
  free(pixels);
}

tr_device *make_cpu(const tr_allocator *allocator) {
  const tr_device_options options = {.struct_bytes = sizeof options, .allocator = allocator, .kind = TR_DEVICE_CPU};
  tr_device *device = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_device_open(&options, &device, &e));
  return device;
}

struct exchange_area {
  pthread_barrier_t barrier;
  size_t bytes;
  _Alignas(64) uint8_t data[];
};

exchange_area *exchange_area_make(int ranks, size_t count) {
  exchange_area *area = mmap(NULL, sizeof *area + count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq(area, MAP_FAILED);
  area->bytes = count;
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&area->barrier, &attributes, (unsigned)ranks);
  return area;
}

typedef struct member {
  exchange_area *area;
  int rank, ranks;
} member;

static tr_status all_gather(void *self, const void *in, size_t count, void *out, tr_error *error) {
  const member *m = self;
  (void)error;
  if (count * (size_t)m->ranks > m->area->bytes) abort();
  memcpy(m->area->data + count * (size_t)m->rank, in, count);
  pthread_barrier_wait(&m->area->barrier);
  memcpy(out, m->area->data, count * (size_t)m->ranks);
  pthread_barrier_wait(&m->area->barrier);
  return TR_OK;
}

static tr_status broadcast(void *self, void *buffer, size_t count, int32_t root, tr_error *error) {
  const member *m = self;
  (void)error;
  if (count > m->area->bytes) abort();
  if (m->rank == root) memcpy(m->area->data, buffer, count);
  pthread_barrier_wait(&m->area->barrier);
  memcpy(buffer, m->area->data, count);
  pthread_barrier_wait(&m->area->barrier);
  return TR_OK;
}

tr_exchange exchange_of(exchange_area *area, int rank, int ranks) {
  static member self; /* one a process */
  self = (member){area, rank, ranks};
  return (tr_exchange){.struct_bytes = sizeof(tr_exchange),
                       .rank = rank,
                       .size = ranks,
                       .all_gather = all_gather,
                       .broadcast = broadcast,
                       .self = &self};
}
