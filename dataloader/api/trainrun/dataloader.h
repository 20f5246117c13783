/* Samples in order: a data set, the order of its samples, and batches that are ready before they are asked for.
 *
 * A data set is a list of shards in one format with named fields. The order of samples is a pure function of (seed, epoch,
 * index, mode) and of nothing found or measured; a rank takes a contiguous run of whole micro-batches of each global
 * batch. The last batch of an epoch may be short: each sample is delivered exactly once an epoch.
 *
 * Thread rule: one thread uses a loader; its prefetch threads are its own. A steady step allocates nothing.
 * The room knows no communicator: where ranks must agree (building an index, say) it calls the tr_exchange given. */
#ifndef TRAINRUN_DATALOADER_H
#define TRAINRUN_DATALOADER_H

#include <trainrun/device.h>
#include <trainrun/store.h>

TR_BEGIN_C

/* What this room needs of a sibling: ranks that exchange bytes. Blocking and collective; NULL: one rank alone. */
typedef struct tr_exchange {
  size_t struct_bytes;
  int32_t rank, size;
  /* bytes of each rank, in rank order, into out (size * bytes). */
  tr_status (*all_gather)(void *self, const void *in, size_t bytes, void *out, tr_error *error);
  tr_status (*broadcast)(void *self, void *buffer, size_t bytes, int32_t root, tr_error *error);
  void *self;
} tr_exchange;

/* ---- The cache of a node ----------------------------------------------------------------------------------------- */

/* Data once read, kept in memory and then in a folder; both bounded. Keyed by store, key, ETag and offset, so that a new
 * version of an object is another entry; every entry is checked (CRC32C) when it is read; an entry that was torn by a
 * crash is never served. All workers of a node that open one with the same options share it: one fetches, the others
 * wait. It stands in front of a store as a store of its own, so that more such layers can stand behind it.
 *
 * What is kept stays while the data in use name it; when both are full, what is not in them is read past the cache. */
typedef struct tr_cache tr_cache;

typedef struct tr_cache_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const char *dir;             /* NULL: memory alone */
  uint64_t dir_bytes;          /* of all that use the folder; 0: as much as is free there, less a tenth */
  uint64_t memory_bytes;       /* of the node, shared by its workers; 0: what is on its way to the folder alone */
  const tr_exchange *exchange; /* NULL: one worker alone; used while opening only */
} tr_cache_options;
/* Collective over the exchange. */
TR_API TR_MUST_USE tr_status tr_cache_open(const tr_cache_options *options, tr_cache **out, tr_error *error);
/* After every data set that uses it is closed, before the stores that it stands in front of. */
TR_API void tr_cache_close(tr_cache *cache);

/* A store in front of `inner`: reads of a known version (if_match) go through the cache, everything else is passed on. A
 * fresh read takes what is kept of its range out and fetches it again.
 * `identity` names the store for all processes and runs ("s3://bucket"). The same `inner` gives the same store, which is
 * the cache's own. Data sets do this for themselves. */
TR_API TR_MUST_USE tr_status tr_cache_wrap(tr_cache *cache, tr_store *inner, const char *identity, tr_store **out,
                                           tr_error *error);

/* Of all workers of the node since it was opened. Hits and misses are reads of chunks. */
typedef struct tr_cache_stats {
  size_t struct_bytes;
  uint64_t memory_hits, disk_hits, misses;
  uint64_t waited_hits; /* somebody was fetching it already */
  uint64_t fetched_bytes, served_bytes, evicted_bytes, damaged;
} tr_cache_stats;
TR_API void tr_cache_stats_get(const tr_cache *cache, tr_cache_stats *stats);

/* ---- Data sets --------------------------------------------------------------------------------------------------- */

typedef struct tr_dataset tr_dataset;

enum { TR_FIELDS_MAX = 16, TR_FIELD_NAME_BYTES = 64 };

/* Where a field comes from: WebDataset's suffix ("png", "cls", "json.box": numbers in a JSON member), an IDX file's
 * suffix to the URL ("-images-idx3-ubyte", with or without ".gz"), an MDS column or a member of a JSON column
 * ("meta.box"), "tokens" or "targets" of files of tokens, a CSV column, several joined ("x1,x2") or all that no other field
 * names ("*"); CSV is f32, or i32 where the source ends in ":i32". */
typedef struct tr_field_source {
  const char *name;
  const char *source;
} tr_field_source;

typedef struct tr_dataset_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_stores *stores;
  const char *const
      *urls; /* with braces; for idx a prefix, for mds folders, for the others shards or a folder of them */
  size_t url_count;
  const char *format; /* "auto", "idx", "webdataset", "mds", "tokens", "csv"; NULL: auto */
  const tr_field_source
      *fields; /* none: the format's own (idx: image, label; tokens: tokens, targets; csv and mds: every
                                    column that can be one; webdataset: suffixes of the first sample) */
  size_t field_count;
  const char *index_folder; /* where an index that cannot stand beside the data is kept (a URL); NULL: not kept */
  const tr_exchange *exchange;
  tr_cache *cache;          /* borrowed; NULL: none */
  uint64_t sequence_length; /* tokens of a sample; 0: not given */
  /* The same list as the loader's: the data set's fields are then as they come out of it, and images may differ in size
   * where it decides one. */
  const char *const *transforms;
  size_t transform_count;
} tr_dataset_options;

/* Resolves the shards (URL, size, ETag), reads or builds the index (all ranks together), knows the fields from the first
 * sample. Errors name shard and offset. */
TR_API TR_MUST_USE tr_status tr_dataset_open(const tr_dataset_options *options, tr_dataset **out, tr_error *error);
TR_API void tr_dataset_close(tr_dataset *dataset);

/* What tr_dataset_index did. */
typedef struct tr_dataset_index_report {
  size_t struct_bytes;
  const char *format;
  uint64_t shards, samples, bytes;
  double seconds;
  bool built;             /* false: it was there already, or the format needs none */
  char url[TR_KEY_BYTES]; /* where it is kept; "" where the format needs none */
} tr_dataset_index_report;
/* Makes the index of a data set before a job needs it, and keeps it in `folder_url` (NULL: beside the data, where
 * tr_dataset_open looks first). An index that cannot be kept is an error here. */
TR_API TR_MUST_USE tr_status tr_dataset_index(const tr_dataset_options *options, const char *folder_url,
                                              tr_dataset_index_report *report, tr_error *error);

typedef struct tr_field {
  char name[TR_FIELD_NAME_BYTES];
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[5]; /* of one sample */
  size_t bytes;     /* of one sample */
} tr_field;
TR_API uint64_t tr_dataset_size(const tr_dataset *dataset);         /* samples */
TR_API uint64_t tr_dataset_stored_bytes(const tr_dataset *dataset); /* of all shards, as they are stored */
TR_API size_t tr_dataset_fields(const tr_dataset *dataset, const tr_field **fields);
TR_API const char *tr_dataset_format(const tr_dataset *dataset);
/* Shards as blocks for the sampler: samples of each, in order. A block is about 1 MiB of a shard, so that it is read at
 * once; a packed shard is one block. */
TR_API size_t tr_dataset_blocks(const tr_dataset *dataset, const uint64_t **block_samples);
/* "train-003.tar: 000127" for messages, into text. */
TR_API void tr_dataset_sample_name(const tr_dataset *dataset, uint64_t id, char *text, size_t text_bytes);
/* Decodes one sample: to[i] receives field i, transformed (random ones as of seed 0 and epoch 0) where the data set was
 * opened with transforms. Any thread. TR_ERR_CORRUPT names shard, key and offset. */
TR_API TR_MUST_USE tr_status tr_dataset_read(tr_dataset *dataset, uint64_t id, void *const *to, tr_error *error);

/* One sample as it is stored, undecoded: its key and each value under its stored name, whether or not a field asks for
 * it. Reads from the store. */
typedef enum tr_raw_kind { TR_RAW_BYTES, TR_RAW_TEXT, TR_RAW_JSON } tr_raw_kind;
typedef struct tr_raw_value {
  const char *name;
  tr_raw_kind kind; /* JSON: a number or another JSON value, as text */
  const void *data; /* not ended by a NUL; valid during the call */
  size_t bytes;
} tr_raw_value;
typedef tr_status (*tr_raw_visit)(void *self, const char *key, const tr_raw_value *values, size_t count,
                                  tr_error *error);
TR_API TR_MUST_USE tr_status tr_dataset_raw(tr_dataset *dataset, uint64_t id, tr_raw_visit visit, void *self,
                                            tr_error *error);

/* data.lock.json: format, fields, and of each shard URL, bytes, ETag, samples. */
TR_API void tr_dataset_write_lock(const tr_dataset *dataset, tr_writer *writer);
/* Equal, or TR_ERR_MISMATCH that names the first shard that changed and how. */
TR_API TR_MUST_USE tr_status tr_dataset_check_lock(const tr_dataset *dataset, const char *lock, size_t lock_bytes,
                                                   tr_error *error);

/* ---- The order of samples (pure) --------------------------------------------------------------------------------- */

typedef enum tr_shuffle { TR_SHUFFLE_NONE = 0, TR_SHUFFLE_STREAMS = 1, TR_SHUFFLE_FULL = 2 } tr_shuffle;

typedef struct tr_sampler tr_sampler;
typedef struct tr_sampler_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  uint64_t seed;
  tr_shuffle shuffle;
  uint64_t streams;              /* of TR_SHUFFLE_STREAMS; 0: 64; fewer where a stream would have under 64 samples */
  uint64_t window;               /* samples of a stream shuffled together; 0: each block in itself */
  const uint64_t *block_samples; /* copied */
  size_t block_count;
  uint64_t batch_size;
} tr_sampler_options;
/* What the data set says about its order: fills in blocks and window, and lowers `streams` where shards are packed, since each
 * stream then needs a whole unpacked shard in memory. A function of the index alone. Whoever wants the order of a
 * tr_loader goes through it. */
TR_API void tr_dataset_order(const tr_dataset *dataset, tr_sampler_options *options);
TR_API TR_MUST_USE tr_status tr_sampler_create(const tr_sampler_options *options, tr_sampler **out, tr_error *error);
TR_API void tr_sampler_destroy(tr_sampler *sampler);
TR_API uint64_t tr_sampler_size(const tr_sampler *sampler);    /* samples an epoch */
TR_API uint64_t tr_sampler_batches(const tr_sampler *sampler); /* an epoch: ceil(size / batch_size) */
/* The sample at position [0, size) of an epoch; row r of batch k is position k * batch_size + r. O(1) in the number of
 * samples. Not thread-safe only in that the last epoch's block order is kept; use one sampler a thread. */
TR_API uint64_t tr_sampler_at(tr_sampler *sampler, uint64_t epoch, uint64_t position);

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

/* The whole state of resume: the next batch to deliver. */
typedef struct tr_cursor {
  uint64_t epoch;
  uint64_t batch; /* within the epoch */
} tr_cursor;

/* Why next() blocked; nanoseconds that add up to the time it blocked. */
typedef struct tr_wait_account {
  uint64_t first_byte_ns, bandwidth_ns, throttled_ns, retry_ns, decode_ns, other_ns;
} tr_wait_account;

/* Runs on a prefetch thread for each decoded sample of a program's own transform; a failure is the sample's. */
typedef tr_status (*tr_sample_map)(void *self, uint64_t epoch, uint64_t id, void *const *fields, tr_error *error);

typedef struct tr_loader tr_loader;
typedef struct tr_loader_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_trace *trace;
  tr_device *device;   /* batch buffers are its pinned memory */
  tr_dataset *dataset; /* borrowed */
  uint64_t seed;
  tr_shuffle shuffle;
  uint64_t streams;
  uint64_t batch_size;  /* of the whole job */
  uint64_t micro_batch; /* rows */
  int32_t rank, size;
  tr_cursor cursor;
  uint64_t epochs;         /* end after this many; 0: never */
  uint64_t prefetch_bytes; /* bound of all buffers; at least two steps' worth is used */
  uint32_t threads;        /* of decode; 0: 1 */
  bool skip_corrupt;       /* on-corrupt = "skip": the row keeps its place with weight 0 */
  /* "random-resized-crop 224", "flip", "normalize imagenet": in order, random ones by (seed, epoch, sample id). */
  const char *const *transforms;
  size_t transform_count;
  tr_sample_map map; /* after the transforms */
  void *map_self;
} tr_loader_options;
TR_API TR_MUST_USE tr_status tr_loader_open(const tr_loader_options *options, tr_loader **out, tr_error *error);
TR_API void tr_loader_close(tr_loader *loader);
/* As they come out of the transforms. */
TR_API size_t tr_loader_fields(const tr_loader *loader, const tr_field **fields);
TR_API uint64_t tr_loader_batches(const tr_loader *loader); /* an epoch */

/* One global batch as this rank sees it. Leaves are micro-batches: leaf_count = ceil(rows / micro_batch), this rank's run
 * is tr_split(leaf_count, size, rank). */
typedef struct tr_batch_info {
  uint64_t epoch, batch;
  uint64_t rows; /* of the whole job; less than batch_size at the end of an epoch */
  uint64_t leaf_count, leaf_begin, leaf_end;
  bool last_of_epoch;
} tr_batch_info;

typedef struct tr_micro_batch {
  uint64_t leaf;
  uint64_t row_offset;       /* of its first row in the global batch */
  uint32_t row_count;        /* rows that are there; the buffers hold micro_batch rows, the rest zero */
  const uint64_t *ids;       /* [row_count] global sample ids */
  const float *row_weight;   /* [micro_batch] 1, or 0 for a missing or skipped row */
  const void *const *fields; /* [field] -> [micro_batch, shape...] in pinned memory */
} tr_micro_batch;

/* Begins the next global batch. *end is set, and nothing else, when all epochs are delivered. */
TR_API TR_MUST_USE tr_status tr_loader_begin(tr_loader *loader, tr_batch_info *info, bool *end, tr_error *error);
/* The micro-batches leaf_begin..leaf_end-1 in order. Buffers stay valid until tr_loader_commit. Adds to *account (may be
 * NULL) the time blocked. */
TR_API TR_MUST_USE tr_status tr_loader_next(tr_loader *loader, tr_micro_batch *batch, tr_wait_account *account,
                                            tr_error *error);
/* Ends the batch: its buffers go back to the ring and the cursor moves. Without it the same batch can be begun again. */
TR_API void tr_loader_commit(tr_loader *loader);
TR_API tr_cursor tr_loader_cursor(const tr_loader *loader);
/* Ids of rows that were skipped as corrupt in committed batches and not yet handed out (4096 are kept); returns how
 * many were written. */
TR_API size_t tr_loader_skipped(tr_loader *loader, uint64_t *ids, size_t capacity);

TR_END_C
#endif
