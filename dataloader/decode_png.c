/* PNG by libpng, straight to where it is wanted. Colours are taken as they are stored: no gamma, no profile, alpha dropped, so
 * the bytes are those that PIL gives for the same file. Every checksum that is wrong is an error. */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "decode.h"

typedef struct png_job {
  const tr_allocator *allocator;
  dl_value value;
  size_t at;
  tr_field *found;
  dl_image_sink *sink;
  tr_status status;
  tr_error *error;
  jmp_buf failed;
} png_job;

enum { DEFLATE_MOST = 1032 }; /* bytes that deflate makes of one */

static void on_error(png_structp png, png_const_charp message) {
  png_job *job = png_get_error_ptr(png);
  if (job->status == TR_OK) job->status = tr_fail(job->error, TR_ERR_CORRUPT, "png: %s", message);
  longjmp(job->failed, 1);
}

static void on_warning(png_structp png, png_const_charp message) { (void)png, (void)message; }

static png_voidp on_malloc(png_structp png, png_alloc_size_t bytes) {
  png_job *job = png_get_mem_ptr(png);
  void *p = tr_alloc(job->allocator, bytes);
  if (p == NULL && job->status == TR_OK) job->status = tr_fail_memory(job->error, "decoding a png", bytes);
  return p;
}

static void on_free(png_structp png, png_voidp p) {
  png_job *job = png_get_mem_ptr(png);
  tr_free(job->allocator, p);
}

static void on_read(png_structp png, png_bytep to, size_t bytes) {
  png_job *job = png_get_io_ptr(png);
  if (bytes > job->value.count - job->at) png_error(png, "truncated");
  memcpy(to, job->value.bytes + job->at, bytes);
  job->at += bytes;
}

static void read_header(png_job *job, png_structp png, png_infop info) {
  png_set_read_fn(png, job, on_read);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_user_limits(png, DL_IMAGE_SIDE_MAX, DL_IMAGE_SIDE_MAX);
  png_set_chunk_cache_max(png, 1);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_read_info(png, info);
  const uint32_t channels = png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR ? 3 : 1;
  dl_image_shape(job->found, png_get_image_height(png, info), png_get_image_width(png, info), channels);
  job->status = dl_image_believe((uint64_t)png_get_rowbytes(png, info) * png_get_image_height(png, info),
                                 job->value.count, DEFLATE_MOST, job->error);
}

static void read_pixels(png_job *job, png_structp png, png_infop info) {
  const tr_field *found = job->found;
  dl_part whole;
  uint8_t *to = NULL;
  job->status = job->sink->place(job->sink, found, false, &whole, &to, job->error);
  if (job->status != TR_OK) return;
  const uint8_t color = png_get_color_type(png, info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const size_t stride = (size_t)(found->shape[1] * found->shape[2]);
  if (png_get_rowbytes(png, info) != stride) png_error(png, "its rows are not as long as they should be");
  for (int pass = 0; pass < passes; pass++) {
    for (int64_t y = 0; y < found->shape[0]; y++) {
      png_read_row(png, to + (size_t)y * stride, NULL);
    }
  }
  png_read_end(png, NULL);
}

static void run(png_job *job, png_structp png, png_infop info) {
  if (setjmp(job->failed) != 0) return;
  read_header(job, png, info);
  if (job->sink != NULL && job->status == TR_OK) read_pixels(job, png, info);
}

tr_status dl_png(dl_value value, const tr_allocator *allocator, tr_field *found, dl_image_sink *sink, tr_error *error) {
  png_job job = {.allocator = allocator, .value = value, .found = found, .sink = sink, .error = error};
  png_structp png = NULL;
  png_infop info = NULL;
  if (setjmp(job.failed) != 0) return job.status != TR_OK ? job.status : TR_ERR_CORRUPT;
  png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job, on_malloc, on_free);
  if (png != NULL) info = png_create_info_struct(png);
  if (info == NULL) {
    png_destroy_read_struct(&png, NULL, NULL);
    return job.status != TR_OK ? job.status : tr_fail_memory(error, "decoding a png", sizeof job);
  }
  run(&job, png, info);
  png_destroy_read_struct(&png, &info, NULL);
  return job.status;
}
