/* See s3_copy.h. SSE2 is part of every x86-64. */
#include "s3_copy.h"

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

void s3_copy_past_cache(void *to, const void *from, size_t bytes) {
  char *out = to;
  const char *in = from;
  const size_t first = (size_t)(-(uintptr_t)out & 63);
  if (bytes < first + 64) {
    memcpy(out, in, bytes);
    return;
  }
  memcpy(out, in, first);
  out += first, in += first, bytes -= first;
  for (; bytes >= 64; bytes -= 64, in += 64, out += 64) {
    const __m128i *source = (const __m128i *)in;
    __m128i *target = (__m128i *)out;
    const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
  /* Such stores are not ordered with others: whoever is told that the bytes are there must see them. */
  _mm_sfence();
  memcpy(out, in, bytes);
}
#else
void s3_copy_past_cache(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
#endif
