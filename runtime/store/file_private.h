/* What the files of the file store share. */
#ifndef TRAINRUN_STORE_FILE_PRIVATE_H
#define TRAINRUN_STORE_FILE_PRIVATE_H

#include <limits.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "store_engine.h"

#define TMP_PREFIX ".tmp-"

typedef struct file_store {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_store_engine *engine;
  char *root; /* absolute, without a slash at its end: "" for "/" */
  size_t root_bytes;
  atomic_ullong temporaries; /* numbers for names of files under way */
} file_store;

/* A file being written: nameless where the file system can do that (so that a kill leaves nothing), else under a
 * temporary name in the folder of its target. */
typedef struct new_file {
  int fd;
  int direct;          /* the same file past the page cache, -1: not open */
  char path[PATH_MAX]; /* the target */
  char name[PATH_MAX]; /* the temporary name; "" while nameless */
  size_t made_bytes;   /* of the shallowest folder that was made on the way, as a length of path; 0: none */
} new_file;

tr_status store_file_path(const file_store *store, const char *key, char path[PATH_MAX], tr_error *error);
void store_file_info(const struct stat *stat, tr_object_info *info);
bool store_file_is_temporary(const char *name);

/* file_write.c: begin, write at any offset, then either commit (durable and visible, or nothing) or abort. */
tr_status store_file_begin(file_store *store, const char *key, new_file *file, tr_error *error);
/* Long runs go past the page cache from here on, where memory and file system allow it: an upload is written once and read
 * by nobody soon, and copying it would cost more than writing it. */
void store_file_open_direct(new_file *file);
tr_status store_file_write(new_file *file, const void *data, size_t bytes, uint64_t offset, tr_error *error);
tr_status store_file_commit(file_store *store, new_file *file, bool if_absent, tr_object_info *info, tr_error *error);
void store_file_abort(new_file *file);
tr_status store_file_delete(const file_store *store, const char *key, tr_error *error);

/* file_list.c */
tr_status store_file_list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                          tr_error *error);
void store_file_list_free(void *self, tr_list_page *page);

/* file_upload.c */
tr_status store_file_upload_begin(void *self, const char *key, void **upload, tr_error *error);
tr_status store_file_upload_part(file_store *store, tr_store_request *request, tr_error *error);
tr_status store_file_upload_commit(void *self, void *upload, bool if_absent, tr_error *error);
void store_file_upload_abort(void *self, void *upload);
tr_status store_file_upload_sweep(void *self, const char *prefix, tr_error *error);

#endif
