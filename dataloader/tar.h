/* The regular members of a tar file, one after the other: ustar, GNU long names and pax headers (path, size).
 * Everything else (folders, links, devices, global headers) is passed over. Nothing is ever extracted: a name is only
 * text.
 *
 * Strict where bytes could be lost in silence: each header's checksum, sizes that fit the file, and a mark at the
 * end. */
#ifndef TRAINRUN_DATALOADER_TAR_H
#define TRAINRUN_DATALOADER_TAR_H

#include "window.h"

enum { DL_TAR_BLOCK = 512, DL_TAR_NAME_MAX = 4096 };

typedef struct dl_tar {
  dl_window *window;
  uint64_t at; /* of the next header */

  /* The member that dl_tar_next found. */
  char name[DL_TAR_NAME_MAX + 1];
  uint64_t offset, bytes; /* of its contents */
} dl_tar;

/* Starts at the beginning. */
void dl_tar_init(dl_tar *tar, dl_window *window);
/* *end: there is none left. */
tr_status dl_tar_next(dl_tar *tar, bool *end, tr_error *error);

/* A block of 512 bytes as a header: false where its checksum is wrong. *bytes: the size it gives. */
bool dl_tar_header_of(const uint8_t *block, uint64_t *bytes);

/* WebDataset's rule: the key is the name up to the first dot of its last part, the suffix what follows, in lower case.
 * False: the member is not part of a sample (no dot, hidden, or a name such as __meta__). */
bool dl_tar_split_name(const char *name, size_t *key_length, char suffix[64]);

#endif
