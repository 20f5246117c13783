/* The text of a manifest; docs/formats.md describes it. One content has one text: the same checkpoint committed twice is
 * the same bytes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "manifest.h"

enum { CRC_AT = 11, COVERED_AT = 21 };

static void write_text_or_null(tr_writer *writer, const char *key, const char *text) {
  tr_write_text(writer, ",\"%s\":", key);
  if (text != NULL) {
    tr_write_json_string(writer, text);
  } else {
    tr_write_text(writer, "null");
  }
}

static void write_meta(tr_writer *writer, const tr_ckpt_meta *meta) {
  tr_write_text(writer, "\"format\":\"trainrun-checkpoint\",\"version\":%d", MANIFEST_VERSION);
  tr_write_text(writer, ",\"step\":%llu,\"epoch\":%llu,\"batch\":%llu,\"samples\":%llu", (unsigned long long)meta->step,
                (unsigned long long)meta->epoch, (unsigned long long)meta->batch, (unsigned long long)meta->samples);
  tr_write_text(writer, ",\"order_crc32c\":\"%08x\",\"params_crc32c\":\"%08x\",\"world_size\":%d", meta->order_crc32c,
                meta->params_crc32c, (int)meta->world_size);
  if (meta->parent >= 0) {
    tr_write_text(writer, ",\"parent\":%lld", (long long)meta->parent);
  } else {
    tr_write_text(writer, ",\"parent\":null");
  }
  tr_write_text(writer, ",\"metric\":");
  if (isfinite(meta->metric)) {
    tr_write_json_real(writer, meta->metric);
  } else {
    tr_write_text(writer, "null");
  }
  write_text_or_null(writer, "run_id", meta->run_id);
  write_text_or_null(writer, "fingerprint", meta->fingerprint);
  write_text_or_null(writer, "data_lock", meta->data_lock);
  write_text_or_null(writer, "state", meta->state);
}

static void write_tensor(tr_writer *writer, const ckpt_manifest *manifest, size_t t) {
  const tr_ckpt_tensor *tensor = &manifest->tensors[t];
  tr_write_text(writer, "\n{\"name\":");
  tr_write_json_string(writer, tensor->name);
  tr_write_text(writer, ",\"dtype\":\"%s\",\"shape\":[", tr_dtype_name(tensor->dtype));
  for (uint32_t i = 0; i < tensor->ndim; i++) {
    tr_write_text(writer, i == 0 ? "%lld" : ",%lld", (long long)tensor->shape[i]);
  }
  tr_write_text(writer, "],\"pieces\":[");
  for (size_t i = manifest->first_piece[t]; i < manifest->first_piece[t + 1]; i++) {
    const ckpt_piece *piece = &manifest->pieces[i];
    tr_write_text(writer, "%s[%u,%llu,%llu,%llu,\"%08x\"]", i == manifest->first_piece[t] ? "" : ",", piece->shard,
                  (unsigned long long)piece->offset, (unsigned long long)piece->begin, (unsigned long long)piece->count,
                  piece->crc32c);
  }
  tr_write_text(writer, "]}");
}

void ckpt_manifest_write(const ckpt_manifest *manifest, tr_writer *writer) {
  tr_write_text(writer, "{\"crc32c\":\"00000000\",");
  write_meta(writer, &manifest->meta);
  tr_write_text(writer, ",\n\"shards\":[");
  for (size_t i = 0; i < manifest->shard_count; i++) {
    const ckpt_shard *shard = &manifest->shards[i];
    tr_write_text(writer, i == 0 ? "\n{\"name\":" : ",\n{\"name\":");
    tr_write_json_string(writer, shard->name);
    tr_write_text(writer, ",\"bytes\":%llu,\"header_bytes\":%llu,\"header_crc32c\":\"%08x\"}",
                  (unsigned long long)shard->bytes, (unsigned long long)shard->header_bytes, shard->header_crc32c);
  }
  tr_write_text(writer, "],\n\"tensors\":[");
  for (size_t t = 0; t < manifest->tensor_count; t++) {
    if (t > 0) tr_write_text(writer, ",");
    write_tensor(writer, manifest, t);
  }
  tr_write_text(writer, "]}\n");
  if (writer->failed) return;
  char digits[9];
  snprintf(digits, sizeof digits, "%08x", tr_crc32c(0, writer->data + COVERED_AT, writer->bytes - COVERED_AT));
  memcpy(writer->data + CRC_AT, digits, 8);
}
