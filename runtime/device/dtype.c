/* Element types: how wide they are and what they are called. The names stand in manifests and messages. */
#include <trainrun/device.h>

size_t tr_dtype_bytes(tr_dtype dtype) {
  switch (dtype) {
    case TR_F32:
    case TR_I32: return 4;
    case TR_BF16:
    case TR_U16: return 2;
    case TR_U8: return 1;
    case TR_I64:
    case TR_F64: return 8;
  }
  return 0;
}

const char *tr_dtype_name(tr_dtype dtype) {
  switch (dtype) {
    case TR_F32: return "f32";
    case TR_BF16: return "bf16";
    case TR_I32: return "i32";
    case TR_U16: return "u16";
    case TR_U8: return "u8";
    case TR_I64: return "i64";
    case TR_F64: return "f64";
  }
  return "unknown";
}
