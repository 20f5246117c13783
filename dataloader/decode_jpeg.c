/* JPEG by libjpeg, straight into the batch. The slow integer DCT and plain upsampling, which give the same bytes with
 * and without SIMD. Data that stops or makes no sense is an error, not a grey rest; padding between markers, which real
 * collections have, is not. */
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

static void decode(jpeg_job *job, struct jpeg_decompress_struct *info, dl_value value, tr_field *found,
                   const tr_field *expected, uint8_t *to) {
  jpeg_mem_src(info, value.bytes, value.count);
  jpeg_read_header(info, TRUE);
  if (info->num_components != 1 && info->num_components != 3) {
    job->status = tr_fail(job->error, TR_ERR_CORRUPT, "jpeg: %d colour components; 1 and 3 are known",
                          info->num_components);
    return;
  }
  dl_image_shape(found, info->image_height, info->image_width, (uint32_t)info->num_components);
  if (to == NULL) return;
  job->status = dl_same_shape(expected, found, job->error);
  if (job->status != TR_OK) return;
  info->out_color_space = info->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info->dct_method = JDCT_ISLOW;
  jpeg_start_decompress(info);
  const size_t stride = (size_t)(expected->shape[1] * expected->shape[2]);
  while (info->output_scanline < info->output_height) {
    JSAMPROW row = to + info->output_scanline * stride;
    jpeg_read_scanlines(info, &row, 1);
  }
  jpeg_finish_decompress(info);
}

tr_status dl_jpeg(dl_value value, tr_field *found, const tr_field *expected, void *to, tr_error *error) {
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
    decode(&job, &info, value, found, expected, to);
  }
  jpeg_destroy_decompress(&info);
  return job.status;
}
