/* CRC32C by ISA-L, which chooses the fastest way of this CPU, and the combination of two CRCs.
 *
 * A CRC of A followed by B is the CRC of A times x^(8 * bytes of B), modulo the polynomial, plus the CRC of B. In the
 * reflected notation used here bit 31 is x^0. */
#include <trainrun/crc32c.h>

#include <isa-l/crc.h>

enum { MAX_CALL = 1 << 30 }; /* ISA-L counts in int */

uint32_t tr_crc32c(uint32_t crc, const void *data, size_t bytes) {
  /* ISA-L's prototype lacks a const; it only reads. */
  unsigned char *at = (unsigned char *)(uintptr_t)data;
  uint32_t state = ~crc;
  while (bytes > 0) {
    const int now = bytes < (size_t)MAX_CALL ? (int)bytes : MAX_CALL;
    state = crc32_iscsi(at, now, state);
    at += now;
    bytes -= (size_t)now;
  }
  return ~state;
}

static uint32_t multiply_modulo(uint32_t a, uint32_t b) {
  const uint32_t polynomial = 0x82F63B78u;
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1u) != 0 ? (b >> 1) ^ polynomial : b >> 1;
  }
  return product;
}

uint32_t tr_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b) {
  uint32_t shift = 0x80000000u; /* x^0 */
  uint32_t power = 0x00800000u; /* x^8, squared for each bit of the length */
  for (; bytes_b != 0; bytes_b >>= 1) {
    if (bytes_b & 1u) shift = multiply_modulo(shift, power);
    power = multiply_modulo(power, power);
  }
  return multiply_modulo(shift, crc_a) ^ crc_b;
}
