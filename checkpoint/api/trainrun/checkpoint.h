/* Checkpoints: safetensors shards and a manifest whose existence is the checkpoint's.
 *
 * A checkpoint is a folder PREFIX/step-<n>/ of a store: shards `shard-00000-of-00004.safetensors`, then, written last by a
 * conditional put, `manifest.json` (step, cursor, fingerprint, data lock, tensors and where their pieces lie, sizes,
 * CRC32C, parent). Shards without a manifest are debris and are removed by retention. Formats: docs/formats.md.
 *
 * Each rank saves pieces (runs of elements of named tensors); on load any number of ranks read them, each byte once for
 * the whole job, handed on through the tr_ckpt_exchange given. Everything read is verified: an error names object and
 * offset. Thread rule: one thread uses an object; a save has a thread of its own in the background. */
#ifndef TRAINRUN_CHECKPOINT_H
#define TRAINRUN_CHECKPOINT_H

#include <trainrun/device.h>
#include <trainrun/store.h>

TR_BEGIN_C

enum { TR_TENSOR_NAME_BYTES = 160 };

/* Names of tensors that are no parameters of the model begin so: "optimizer.m/conv1.weight". */
#define TR_CKPT_OPTIMIZER "optimizer."

/* A run of elements [begin, begin + count) of the row-major tensor `name`. */
typedef struct tr_piece {
  const char *name; /* "conv1.weight", "optimizer.m/conv1.weight" */
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[6];
  uint64_t begin, count;
  void *data; /* host memory: read by save, written by load */
} tr_piece;

/* ---- Saving -------------------------------------------------------------------------------------------------------- */

/* The memory of a snapshot, kept from save to save, so that its pages are touched once. One save at a time uses it; a rank
 * that saves while it trains has one. `bytes` > 0: that much is taken at once and touched in the background, at low
 * priority; where it cannot be had, the save that needs it says so. */
typedef struct tr_ckpt_saver tr_ckpt_saver;
TR_API TR_MUST_USE tr_status tr_ckpt_saver_create(const tr_allocator *allocator, size_t bytes, tr_ckpt_saver **out,
                                                  tr_error *error);
TR_API void tr_ckpt_saver_destroy(tr_ckpt_saver *saver); /* after its saves */

typedef struct tr_ckpt_save tr_ckpt_save;
typedef struct tr_ckpt_save_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_store *store;
  const char *prefix; /* key of the run's checkpoint root: step-<n>/ is put below it */
  uint64_t step;
  int32_t rank, size;
  /* NULL: the pieces are copied before tr_ckpt_save_begin returns, and their memory is free again. Otherwise they are copied
   * in the background, into the saver's memory: until then no byte of them may be written, moved or freed without a
   * tr_ckpt_save_release of it. */
  tr_ckpt_saver *saver;
  uint64_t
      spread_ns; /* the upload may take so long, so that it costs those who compute little; ends once somebody waits */
} tr_ckpt_save_options;
/* Takes the snapshot (see saver) and starts to write this rank's shard in the background. A rank without pieces writes no
 * shard. Where the step is a checkpoint already its shards are left alone: with the same content the save succeeds, with
 * other content it fails with TR_ERR_EXISTS. */
TR_API TR_MUST_USE tr_status tr_ckpt_save_begin(const tr_ckpt_save_options *options, const tr_piece *pieces,
                                                size_t piece_count, tr_ckpt_save **out, tr_error *error);
/* On return [memory, memory + bytes) may be written: what of it the snapshot still lacks was copied first, by this thread or
 * the one that had begun. Any thread, several at once; one atomic load where all is copied. NULL, 0: everything. */
TR_API void tr_ckpt_save_release(tr_ckpt_save *save, const void *memory, size_t bytes);
/* Time that calls of release spent in copying or waiting, all threads together. */
TR_API uint64_t tr_ckpt_save_blocked_ns(const tr_ckpt_save *save);
/* *done when this rank's shard is durable or failed; then the status says which. Never blocks. */
TR_API tr_status tr_ckpt_save_poll(tr_ckpt_save *save, bool *done, tr_error *error);
/* Blocks until it is. From here on the shard is written as fast as it can be. */
TR_API tr_status tr_ckpt_save_wait(tr_ckpt_save *save, tr_error *error);
/* This rank's part of the manifest (JSON), valid until destroy: gather it on the committing rank. */
TR_API const char *tr_ckpt_save_record(const tr_ckpt_save *save, size_t *bytes);
/* Gives up what is not written yet (the requests under way are waited for) and frees the pieces' memory as release does. An
 * uncommitted shard stays as debris for retention. */
TR_API void tr_ckpt_save_destroy(tr_ckpt_save *save);

/* CRC32C of the tensors that the records of all ranks hold together: their bytes one after the other, the tensors in the
 * bytewise order of their names, without those whose name begins with `without` (NULL: all). Pure: from the pieces' CRCs. */
TR_API TR_MUST_USE tr_status tr_ckpt_records_crc32c(const tr_allocator *allocator, const char *const *records,
                                                    size_t record_count, const char *without, uint32_t *crc32c,
                                                    tr_error *error);

/* What else a manifest says. Texts are JSON and are kept as they are; NULL: null. */
typedef struct tr_ckpt_meta {
  size_t struct_bytes;
  uint64_t step;
  uint64_t epoch, batch; /* cursor: the next batch */
  uint64_t samples;
  uint32_t order_crc32c, params_crc32c;
  int32_t world_size;
  const char *run_id;
  const char *fingerprint;
  const char *data_lock;
  const char *state; /* whatever else resumes: best metric, schedule, isa class, … */
  int64_t parent;    /* step of the checkpoint before, -1: none */
  double metric;     /* for keep-best; NAN: not evaluated */
} tr_ckpt_meta;
/* One rank, after all ranks' saves are known to be durable: writes the manifest. A manifest that is there already with
 * the same content counts as success; another: TR_ERR_EXISTS. */
TR_API TR_MUST_USE tr_status tr_ckpt_commit(const tr_ckpt_save_options *options, const tr_ckpt_meta *meta,
                                            const char *const *records, size_t record_count, tr_error *error);

/* ---- Loading ------------------------------------------------------------------------------------------------------- */

/* Ranks that exchange bytes, as in dataloader.h; NULL: one rank alone. */
typedef struct tr_ckpt_exchange {
  size_t struct_bytes;
  int32_t rank, size;
  tr_status (*broadcast)(void *self, void *buffer, size_t bytes, int32_t root, tr_error *error);
  void *self;
} tr_ckpt_exchange;

typedef struct tr_ckpt tr_ckpt;
/* `folder` is the key of step-<n>. Reads and checks the manifest (limits: 64 MiB, depth 32; pieces inside their shards,
 * tensors covered without holes). TR_ERR_NOT_FOUND without a manifest, TR_ERR_CORRUPT with what and where. */
TR_API TR_MUST_USE tr_status tr_ckpt_open(const tr_allocator *allocator, tr_store *store, const char *folder,
                                          tr_ckpt **out, tr_error *error);
/* The same by all ranks: one reads the manifest for all. */
TR_API TR_MUST_USE tr_status tr_ckpt_open_together(const tr_allocator *allocator, tr_store *store, const char *folder,
                                                   const tr_ckpt_exchange *exchange, tr_ckpt **out, tr_error *error);
TR_API void tr_ckpt_close(tr_ckpt *ckpt);
TR_API const tr_ckpt_meta *tr_ckpt_describe(const tr_ckpt *ckpt);
TR_API uint64_t tr_ckpt_bytes(const tr_ckpt *ckpt); /* of all shards */

typedef struct tr_ckpt_tensor {
  const char *name;
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[6];
} tr_ckpt_tensor;
TR_API size_t tr_ckpt_tensors(const tr_ckpt *ckpt, const tr_ckpt_tensor **tensors);

/* Fills the wanted pieces (which must exist with that dtype and shape: TR_ERR_MISMATCH names the first that does not).
 * Collective over the exchange: each byte is read from the store by one rank and handed on. CRC32C of each piece is
 * verified. Wanted pieces may differ from rank to rank and be cut otherwise than when saved. */
TR_API TR_MUST_USE tr_status tr_ckpt_read(tr_ckpt *ckpt, const tr_piece *pieces, size_t piece_count,
                                          const tr_ckpt_exchange *exchange, tr_error *error);
/* Reads every byte and checks every checksum. */
TR_API TR_MUST_USE tr_status tr_ckpt_verify(tr_ckpt *ckpt, tr_error *error);

/* ---- Many checkpoints ---------------------------------------------------------------------------------------------- */

typedef struct tr_ckpt_entry {
  uint64_t step;
  double metric; /* NAN: not evaluated */
  uint64_t bytes;
  int64_t modified_ns;
} tr_ckpt_entry;
/* Committed checkpoints below prefix, by step; entries with tr_alloc. */
TR_API TR_MUST_USE tr_status tr_ckpt_list(const tr_allocator *allocator, tr_store *store, const char *prefix,
                                          tr_ckpt_entry **entries, size_t *count, tr_error *error);
/* Manifest first, then the shards. */
TR_API TR_MUST_USE tr_status tr_ckpt_remove(const tr_allocator *allocator, tr_store *store, const char *prefix,
                                            uint64_t step, tr_error *error);
/* Shards first, verified as they pass, then the manifest. */
TR_API TR_MUST_USE tr_status tr_ckpt_copy(const tr_allocator *allocator, tr_store *from, const char *from_folder,
                                          tr_store *to, const char *to_folder, tr_error *error);

typedef struct tr_ckpt_export_options {
  size_t struct_bytes;
  uint64_t file_bytes; /* a file holds so many, but for a larger tensor; 0: 5 GB, as Hugging Face cuts */
  const char *without; /* tensors whose name begins so are left out: TR_CKPT_OPTIMIZER; NULL: none */
} tr_ckpt_export_options;
/* Writes the tensors, whole and under their own names, as other programs read them: model.safetensors, or
 * model-00001-of-0000N.safetensors and then model.safetensors.index.json. Streamed, verified as they pass. Files of these
 * names are replaced. */
TR_API TR_MUST_USE tr_status tr_ckpt_export(tr_ckpt *ckpt, tr_store *to, const char *to_folder,
                                            const tr_ckpt_export_options *options, tr_error *error);

typedef enum tr_keep_best { TR_BEST_NONE = 0, TR_BEST_MIN = 1, TR_BEST_MAX = 2 } tr_keep_best;
typedef struct tr_retain_options {
  size_t struct_bytes;
  uint64_t last;  /* newest so many; at least 1 is always kept */
  uint64_t every; /* and every step that is a multiple; 0: none */
  tr_keep_best best;
} tr_retain_options;
/* Which entries may go: remove[i] for entries sorted by step. Pure. */
TR_API void tr_retain_plan(const tr_retain_options *options, const tr_ckpt_entry *entries, size_t count, bool *remove);
/* Applies the plan and clears debris of steps other than `in_progress` (UINT64_MAX: none): uncommitted folders, and shards
 * in committed ones that their manifest does not name. */
TR_API TR_MUST_USE tr_status tr_ckpt_retain(const tr_allocator *allocator, tr_store *store, const char *prefix,
                                            const tr_retain_options *options, uint64_t in_progress, tr_error *error);

/* A launcher claims epoch n of a run before it may commit: epochs/<n> by a conditional put. TR_ERR_EXISTS: someone did. */
TR_API TR_MUST_USE tr_status tr_ckpt_claim_epoch(tr_store *store, const char *prefix, uint64_t epoch,
                                                 const char *claim_json, tr_error *error);
/* The highest epoch claimed, 0 for none. */
TR_API TR_MUST_USE tr_status tr_ckpt_last_epoch(tr_store *store, const char *prefix, uint64_t *epoch, tr_error *error);

TR_END_C
#endif
