/* What the files of this room share about a data set: its files, its fields, and the table a format fills.
 *
 * A data set is opened by one thread and then only read, by any number of threads. Opening is collective where there is
 * a tr_exchange: every phase that can fail on one rank alone ends in dl_agree, so that all ranks go on or all fail. */
#ifndef TRAINRUN_DATALOADER_DATASET_H
#define TRAINRUN_DATALOADER_DATASET_H

#include <pthread.h>
#include <trainrun/dataloader.h>

/* One object of the data set as it was when it was opened. */
typedef struct dl_file {
  const char *url;
  const char *key;
  tr_store *store;
  uint64_t bytes;
  char etag[TR_ETAG_BYTES];
  uint64_t samples;
} dl_file;

/* Memory that grows to what was needed at most. */
typedef struct dl_buffer {
  uint8_t *bytes;
  size_t capacity;
} dl_buffer;

/* Rooms for what stands between a stored value and its field: the decoded image, two for the results of transforms by
 * turns, the image resized across only, the weights of a resize. */
typedef enum dl_room { DL_ROOM_DECODED, DL_ROOM_EVEN, DL_ROOM_ODD, DL_ROOM_ACROSS, DL_ROOM_AXES, DL_ROOMS } dl_room;

/* What one thread needs to read samples: memory, and the account of its reads. Each buffer has one owner, so that none is
 * taken away from under another. */
typedef struct dl_scratch {
  const tr_allocator *allocator;
  const tr_clock *clock;
  dl_buffer stored;          /* dataset.c's: what came from the store */
  dl_buffer decoded;         /* a format's: values before they are made into rows */
  dl_buffer rooms[DL_ROOMS]; /* make.c's and the transforms': dl_scratch_room */
  uint8_t *bytes;            /* for formats and decoders: dl_scratch_reserve */
  size_t capacity;
  tr_wait_account account;
  /* The packed range that was unpacked last; whole while packed_bytes > 0. */
  dl_buffer unpacked;
  size_t packed_file;
  uint64_t packed_offset, packed_bytes;
} dl_scratch;

/* Where the stored bytes of a sample are: one range of one file (members that are not wanted are read over). */
typedef struct dl_place {
  size_t file;
  uint64_t offset, bytes;
  /* The range is a packed unit that many samples share (a zstd shard): it is unpacked once, and the sample's bytes are
   * [inner_offset, inner_offset + inner_bytes) of the unpacked_bytes that come out. 0: not packed. */
  uint64_t unpacked_bytes, inner_offset, inner_bytes;
} dl_place;

typedef struct dl_transforms dl_transforms; /* transform.h */

/* Which sample, for whom. */
typedef struct dl_sample {
  uint64_t id, epoch;
  size_t shard;
  uint64_t index;                  /* in the shard */
  const dl_transforms *transforms; /* NULL: none */
} dl_sample;

/* Reading is in steps, so that many ranges can be under way at once and each step can run on any thread: place (a pure
 * look-up in the index), the read itself, unpack for packed ranges, check, decode. */
typedef struct dl_format {
  const char *name;
  /* Collective. Finds files, fields and the samples of each shard (dl_dataset_set_shards). */
  tr_status (*open)(tr_dataset *dataset, tr_error *error);
  void (*close)(tr_dataset *dataset);
  /* False where the sample is in memory already: what follows then gets no bytes. `whole`: all that is stored of the
   * sample, for `raw`, and not only what fields need. Inside the file, always. */
  bool (*place)(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place);
  /* Fills all of `unpacked`, or TR_ERR_CORRUPT: then the range is read again. NULL where nothing is packed. */
  tr_status (*unpack)(const tr_dataset *dataset, size_t file, const uint8_t *packed, size_t packed_bytes,
                      uint8_t *unpacked, size_t unpacked_bytes, tr_error *error);
  /* Whether the bytes of the place (`whole` as it was asked for) are those that were indexed: TR_OK, or TR_ERR_CORRUPT
   * that names shard, key and offset; then they are read again. NULL where nothing is known about them. */
  tr_status (*check)(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, const uint8_t *bytes,
                     size_t count, tr_error *error);
  tr_status (*decode)(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                      void *const *to, dl_scratch *scratch, tr_error *error);
  /* For tr_dataset_raw: `bytes` is the `whole` place. */
  tr_status (*raw)(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                   tr_raw_visit visit, void *self, tr_error *error);
  void (*name_sample)(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes);
} dl_format;

extern const dl_format dl_format_webdataset, dl_format_mds, dl_format_tokens, dl_format_idx, dl_format_csv;

struct tr_dataset {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_stores *stores;
  tr_cache *cache;             /* NULL: none */
  const tr_exchange *exchange; /* NULL: one rank; used while opening only */
  tr_arena *arena;             /* everything small */
  const char *index_folder;
  uint64_t sequence_length; /* tokens of a sample; 0: not given */
  bool index_strict;        /* tr_dataset_index: in one place only, and there it must be kept */
  bool index_built;         /* by this opening */
  const char *index_url;    /* where it was found or kept; NULL: nowhere */

  const char **urls; /* as written, braces expanded */
  size_t url_count;
  const dl_format *format;
  void *self; /* the format's */

  dl_file *files; /* files_per_shard of each shard, in order */
  size_t file_count, files_per_shard;
  size_t shard_count;
  uint64_t *shard_first; /* [shard_count + 1] ids of the first samples */
  uint64_t *block_samples;
  size_t block_count;
  uint64_t window; /* samples of a stream shuffled together; 0: each block in itself */

  tr_field fields[TR_FIELDS_MAX]; /* as decoded */
  const char *sources[TR_FIELDS_MAX];
  size_t field_count;
  dl_transforms *transforms; /* of tr_dataset_fields and tr_dataset_read; NULL: none */
  bool in_memory;            /* reading a sample does no I/O */
  /* Bytes of the largest packed range once it is unpacked; 0: nothing is packed. Set before dl_dataset_set_shards. */
  uint64_t unpacked_bytes_max;

  /* Of tr_dataset_read and tr_dataset_raw: whoever gets the lock may use it, so that samples read one after the other
   * share what is unpacked. */
  pthread_mutex_t lock;
  dl_scratch scratch;
};

/* Which sample `id` is; id < tr_dataset_size. */
dl_sample dl_dataset_sample(const tr_dataset *dataset, uint64_t epoch, uint64_t id, const dl_transforms *transforms);
/* The bytes of a sample's place, read and checked in the calling thread; NULL where they are in memory. They stay until
 * the scratch is used for another. */
tr_status dl_dataset_bring(const tr_dataset *dataset, const dl_sample *sample, bool whole, bool fresh,
                           dl_scratch *scratch, const uint8_t **bytes, size_t *count, tr_error *error);
/* Reads, checks and decodes one sample in the calling thread; `fresh`: what was read of it before was wrong, so that no
 * cache is believed. */
tr_status dl_dataset_read(const tr_dataset *dataset, const dl_sample *sample, bool fresh, void *const *to,
                          dl_scratch *scratch, tr_error *error);
/* Samples that are shuffled together: as many as make about a mebibyte, a power of two up to 512. And samples of a block
 * that a stream reads through: up to eight such windows, as long as each of 64 streams has four blocks. So what a rank
 * reads ahead holds runs of some mebibytes of each of its streams. Part of the order: the rules never change. */
uint64_t dl_window_samples(uint64_t stored_bytes, uint64_t samples);
uint64_t dl_block_samples(uint64_t window, uint64_t samples);
/* After files[].samples of each shard's first file are known: ids and blocks. */
tr_status dl_dataset_set_shards(tr_dataset *dataset, tr_error *error);
/* The fields as asked for by name and source; shape comes later. Checks names. */
tr_status dl_dataset_add_field(tr_dataset *dataset, const char *name, const char *source, tr_error *error);
/* Fills in bytes from dtype and shape; refuses samples beyond DL_FIELD_BYTES_MAX. */
tr_status dl_field_finish(tr_field *field, tr_error *error);
/* The last part of a URL. */
const char *dl_url_name(const char *url);

#define DL_FIELD_BYTES_MAX ((uint64_t)1 << 30)

void dl_scratch_init(dl_scratch *scratch, const tr_allocator *allocator, const tr_clock *clock);
void dl_scratch_fini(dl_scratch *scratch);
tr_status dl_scratch_reserve(dl_scratch *scratch, size_t bytes, tr_error *error);
/* Makes room for `bytes` bytes; what was in it is lost where it grows. */
tr_status dl_buffer_reserve(const tr_allocator *allocator, dl_buffer *buffer, size_t bytes, tr_error *error);
/* `bytes` bytes, 16-byte aligned, with whatever is in them; what was in the room is lost. */
tr_status dl_scratch_room(dl_scratch *scratch, dl_room room, size_t bytes, void *out, tr_error *error);

#endif
