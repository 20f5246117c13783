/* Philox4x32-10: ten rounds of two 32x32-bit multiplications, keyed by the seed, over a counter that says what for. */
#include <trainrun/rng.h>

__extension__ typedef unsigned __int128 u128;

static uint32_t multiply(uint32_t a, uint32_t b, uint32_t *high) {
  const uint64_t product = (uint64_t)a * b;
  *high = (uint32_t)(product >> 32);
  return (uint32_t)product;
}

tr_rng4 tr_rng(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b) {
  uint32_t c0 = (uint32_t)b, c1 = (uint32_t)(b >> 32);
  uint32_t c2 = (uint32_t)a, c3 = ((uint32_t)(a >> 32) & 0xFFFFu) | (purpose << 16);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint32_t high0, high1;
    const uint32_t low0 = multiply(0xD2511F53u, c0, &high0);
    const uint32_t low1 = multiply(0xCD9E8D57u, c2, &high1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (tr_rng4){{c0, c1, c2, c3}};
}

uint64_t tr_rng_u64(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b) {
  const tr_rng4 words = tr_rng(seed, purpose, a, b);
  return (uint64_t)words.v[0] | (uint64_t)words.v[1] << 32;
}

uint64_t tr_rng_below(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint64_t bound) {
  return (uint64_t)(((u128)tr_rng_u64(seed, purpose, a, b) * bound) >> 64);
}

uint64_t tr_hash_name(const char *name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (; *name != '\0'; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001B3u;
  return hash;
}
