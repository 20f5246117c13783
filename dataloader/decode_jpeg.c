/* JPEG by libjpeg, straight to where it is wanted; smaller where that is enough, and only the part that is wanted: what
 * is around it has its bits read and no pixels made, what is below it is not read. The slow integer DCT and libjpeg's own
 * upsampling, which give the same bytes with and without SIMD. Data that stops or makes no sense is an error, not a grey
 * rest; padding between markers, which real collections have, is not. */
#include <stdio.h>

#include <jerror.h>
#include <jpeglib.h>
#include <setjmp.h>
#include <string.h>

#include "decode.h"

typedef struct jpeg_job {
  struct jpeg_error_mgr manager; /* first: libjpeg hands back a pointer to it */
  tr_status status;
  tr_error *error;
  jmp_buf failed;
} jpeg_job;

/* A progressive block of 64 pixels takes a bit of its own at least, and chroma, stored as a sixteenth, becomes three. */
enum { PIXELS_A_BYTE = 1536, MARGIN = 8 };

static void fail(j_common_ptr info) {
  jpeg_job *job = (jpeg_job *)info->err;
  char message[JMSG_LENGTH_MAX];
  info->err->format_message(info, message);
  const bool memory = info->err->msg_code == JERR_OUT_OF_MEMORY;
  job->status = tr_fail(job->error, memory ? TR_ERR_NO_MEMORY : TR_ERR_CORRUPT, "jpeg: %s", message);
  longjmp(job->failed, 1);
}

static void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_NOT_SEQUENTIAL: fail(info); break;
    default: break;
  }
}

static void on_output(j_common_ptr info) { (void)info; }

/* Columns [part->left, part->left + part->width) by way of a row that may be longer. */
static void read_part(struct jpeg_decompress_struct *info, const dl_part *part, uint8_t *to) {
  const uint32_t channels = (uint32_t)info->num_components;
  uint32_t first = 0;
#if defined(LIBJPEG_TURBO_VERSION_NUMBER)
  /* Upsampling looks at neighbours, so the edges of what is read must not be those of what is used. */
  JDIMENSION left = part->left > MARGIN ? part->left - MARGIN : 0;
  JDIMENSION right = part->left + part->width + MARGIN;
  if (right > info->output_width) right = info->output_width;
  JDIMENSION width = right - left;
  jpeg_crop_scanline(info, &left, &width);
  if (part->top > 0) jpeg_skip_scanlines(info, part->top);
  first = left;
#endif
  JSAMPARRAY row = info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE, info->output_width * channels, 1);
  while (info->output_scanline < part->top) jpeg_read_scanlines(info, row, 1);
  for (uint32_t y = 0; y < part->height; y++) {
    jpeg_read_scanlines(info, row, 1);
    memcpy(to + (size_t)y * part->width * channels, row[0] + (size_t)(part->left - first) * channels,
           (size_t)part->width * channels);
  }
}

static void read_pixels(jpeg_job *job, struct jpeg_decompress_struct *info, const tr_field *found,
                        dl_image_sink *sink) {
  dl_part part;
  uint8_t *to = NULL;
  job->status = sink->place(sink, found, true, &part, &to, job->error);
  if (job->status != TR_OK) return;
  info->scale_num = 1;
  info->scale_denom = part.shrink;
  info->out_color_space = info->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info->dct_method = JDCT_ISLOW;
  jpeg_start_decompress(info);
  if (part.height != info->output_height || part.width != info->output_width) {
    read_part(info, &part, to);
    return; /* an unfinished image is given up when the decoder is destroyed */
  }
  const size_t stride = (size_t)info->output_width * (size_t)info->num_components;
  while (info->output_scanline < info->output_height) {
    JSAMPROW row = to + info->output_scanline * stride;
    jpeg_read_scanlines(info, &row, 1);
  }
  jpeg_finish_decompress(info);
}

static void decode(jpeg_job *job, struct jpeg_decompress_struct *info, dl_value value, tr_field *found,
                   dl_image_sink *sink) {
  jpeg_mem_src(info, value.bytes, value.count);
  jpeg_read_header(info, TRUE);
  if (info->num_components != 1 && info->num_components != 3) {
    job->status = tr_fail(job->error, TR_ERR_CORRUPT, "jpeg: %d colour components; 1 and 3 are known",
                          info->num_components);
    return;
  }
  dl_image_shape(found, info->image_height, info->image_width, (uint32_t)info->num_components);
  job->status = dl_image_believe((uint64_t)info->image_height * info->image_width * (uint64_t)info->num_components,
                                 value.count, PIXELS_A_BYTE, job->error);
  if (sink != NULL && job->status == TR_OK) read_pixels(job, info, found, sink);
}

tr_status dl_jpeg(dl_value value, tr_field *found, dl_image_sink *sink, tr_error *error) {
  jpeg_job job = {.error = error};
  struct jpeg_decompress_struct info;
  memset(&info, 0, sizeof info); /* so that a failure in create leaves nothing to free */
  if (value.count == 0) return tr_fail(error, TR_ERR_CORRUPT, "jpeg: empty");
  info.err = jpeg_std_error(&job.manager);
  job.manager.error_exit = fail;
  job.manager.emit_message = on_message;
  job.manager.output_message = on_output;
  if (setjmp(job.failed) == 0) {
    jpeg_create_decompress(&info);
    decode(&job, &info, value, found, sink);
  }
  jpeg_destroy_decompress(&info);
  return job.status;
}
