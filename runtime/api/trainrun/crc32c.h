/* CRC32C (Castagnoli, RFC 3720), in hardware where there is any. The checksum of objects, checkpoints and orders. */
#ifndef TRAINRUN_CRC32C_H
#define TRAINRUN_CRC32C_H

#include <trainrun/macros.h>

TR_BEGIN_C

/* The CRC of the bytes so far followed by data; start with 0. tr_crc32c(0, "123456789", 9) == 0xE3069283. */
TR_API uint32_t tr_crc32c(uint32_t crc, const void *data, size_t bytes);

/* CRC of A followed by B from the CRCs of both and the length of B. */
TR_API uint32_t tr_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b);

TR_END_C
#endif
