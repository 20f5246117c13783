/* CRC32C: known answers, a bitwise twin, pieces and combination. */
#include <criterion/criterion.h>
#include <string.h>
#include <trainrun/crc32c.h>
#include <trainrun/rng.h>

static uint32_t plain(uint32_t crc, const unsigned char *data, size_t bytes) {
  crc = ~crc;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1u) != 0 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
  }
  return ~crc;
}

static void fill(unsigned char *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) data[i] = (unsigned char)tr_rng(1, TR_RNG_USER, 0, i).v[0];
}

Test(crc32c, gives_the_known_answers) {
  unsigned char bytes[32];
  cr_assert_eq(tr_crc32c(0, "", 0), 0);
  cr_assert_eq(tr_crc32c(0, NULL, 0), 0);
  cr_assert_eq(tr_crc32c(0, "123456789", 9), 0xE3069283u);
  memset(bytes, 0, sizeof bytes);
  cr_assert_eq(tr_crc32c(0, bytes, 32), 0x8A9136AAu); /* RFC 3720, B.4 */
  memset(bytes, 0xFF, sizeof bytes);
  cr_assert_eq(tr_crc32c(0, bytes, 32), 0x62A8AB43u);
  for (size_t i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
  cr_assert_eq(tr_crc32c(0, bytes, 32), 0x46DD794Eu);
}

Test(crc32c, equals_its_plain_twin_at_any_length_and_alignment) {
  static unsigned char data[5000];
  fill(data, sizeof data);
  for (size_t length = 0; length < 300; length++) {
    for (size_t offset = 0; offset < 9; offset++) {
      cr_assert_eq(tr_crc32c(0, data + offset, length), plain(0, data + offset, length));
    }
  }
  cr_assert_eq(tr_crc32c(0x1234, data, sizeof data), plain(0x1234, data, sizeof data));
}

Test(crc32c, goes_on_where_it_stopped) {
  unsigned char data[1000];
  fill(data, sizeof data);
  const uint32_t whole = tr_crc32c(0, data, sizeof data);
  for (size_t cut = 0; cut <= sizeof data; cut += 7) {
    cr_assert_eq(tr_crc32c(tr_crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
  }
}

Test(crc32c, combines_two_parts) {
  unsigned char data[1000];
  fill(data, sizeof data);
  const uint32_t whole = tr_crc32c(0, data, sizeof data);
  for (size_t cut = 0; cut <= sizeof data; cut += 3) {
    const uint32_t a = tr_crc32c(0, data, cut), b = tr_crc32c(0, data + cut, sizeof data - cut);
    cr_assert_eq(tr_crc32c_combine(a, b, sizeof data - cut), whole, "cut at %zu", cut);
  }
}

Test(crc32c, combining_is_associative_for_huge_parts) {
  const uint64_t huge = UINT64_C(1) << 45;
  const uint32_t a = 0x11111111, b = 0x22222222, c = 0x33333333;
  const uint32_t left = tr_crc32c_combine(tr_crc32c_combine(a, b, huge), c, huge + 5);
  cr_assert_eq(left, tr_crc32c_combine(a, tr_crc32c_combine(b, c, huge + 5), 2 * huge + 5));
}
