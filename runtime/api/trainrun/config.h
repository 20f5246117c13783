/* The settings of a job: one table of every knob, and a tree of values for what has no fixed name.
 *
 * A knob (key, type, unit, default, help) stands once in runtime/base/config_knobs.c; the parser, `--set`, TRAINRUN_*
 * environment variables, `check`, `schema` and docs/configuration.md all come from that table. Precedence: flag,
 * environment, job file, default; each value remembers where it came from.
 *
 * Parsing collects every mistake (not just the first) as diagnostics with line, column and a suggestion. A config is
 * immutable once made, so any thread may read it. This is the only place of the library that reads the environment, and
 * only through the tr_config_source that the caller fills. */
#ifndef TRAINRUN_CONFIG_H
#define TRAINRUN_CONFIG_H

#include <trainrun/bytes.h>

TR_BEGIN_C

/* ---- Values: a parsed TOML tree ------------------------------------------------------------------------------------ */

typedef enum tr_value_type {
  TR_VALUE_STRING,
  TR_VALUE_INTEGER,
  TR_VALUE_REAL,
  TR_VALUE_BOOLEAN,
  TR_VALUE_ARRAY,
  TR_VALUE_TABLE
} tr_value_type;

typedef struct tr_place {
  uint32_t line, column; /* 1-based, columns in code points; 0: not from a file */
} tr_place;

typedef struct tr_value {
  tr_value_type type;
  tr_place place;
  const char *key; /* own key inside a table, else NULL */
  tr_place key_place;
  const char *text;             /* STRING: after ${NAME:-default} */
  int64_t integer;              /* INTEGER, BOOLEAN */
  double real;                  /* REAL, INTEGER */
  const struct tr_value *items; /* ARRAY, TABLE: `count` values; a table keeps the order of the file */
  size_t count;
} tr_value;

/* A member of a table by key, or NULL (also when `table` is NULL or no table). */
TR_API const tr_value *tr_value_get(const tr_value *table, const char *key);

/* ---- The table of knobs -------------------------------------------------------------------------------------------- */

typedef enum tr_knob_type {
  TR_KNOB_STRING,
  TR_KNOB_INTEGER,
  TR_KNOB_REAL,
  TR_KNOB_BOOLEAN,
  TR_KNOB_BYTES,    /* "64MiB" */
  TR_KNOB_DURATION, /* "500ms" */
  TR_KNOB_COUNT,    /* integer >= 1, or "auto" (read as 0) */
  TR_KNOB_EVERY,    /* "200 steps", "1 epoch", "10m", "never": see tr_every */
  TR_KNOB_CHOICE,   /* one of `choices` */
  TR_KNOB_STRINGS,  /* a list of strings (one string is a list of one) */
  TR_KNOB_VALUE     /* a table or mixed: read with tr_config_find */
} tr_knob_type;

typedef struct tr_knob {
  const char *key; /* dotted: "train.micro-batch"; "storage.*.endpoint" for named tables */
  tr_knob_type type;
  const char *unit;         /* "bytes", "seconds", … or "" */
  const char *default_text; /* as TOML; "" none */
  const char *choices;      /* "auto|cpu|cuda" or NULL */
  const char *help;         /* one sentence */
  bool fingerprint;         /* part of what decides whether a run may be resumed */
  bool planned;             /* known, answers "planned, not in this version" when set */
} tr_knob;

TR_API const tr_knob *tr_config_knobs(size_t *count);

/* ---- Diagnostics --------------------------------------------------------------------------------------------------- */

typedef struct tr_diagnostic {
  tr_place place;
  uint32_t length; /* of what is underlined, in code points; 0: 1 */
  bool warning;
  const char *key;     /* dotted, or NULL */
  const char *message; /* "unknown key 'lerning-rate'" */
  const char *hint;    /* "did you mean 'lr'?", or NULL */
} tr_diagnostic;

typedef struct tr_diagnostics tr_diagnostics;
TR_API TR_MUST_USE tr_status tr_diagnostics_create(const tr_allocator *allocator, tr_diagnostics **out,
                                                   tr_error *error);
TR_API void tr_diagnostics_destroy(tr_diagnostics *diagnostics);
TR_API size_t tr_diagnostics_count(const tr_diagnostics *diagnostics);
TR_API size_t tr_diagnostics_errors(const tr_diagnostics *diagnostics);                     /* without warnings */
TR_API const tr_diagnostic *tr_diagnostics_at(const tr_diagnostics *diagnostics, size_t i); /* sorted by place */
/* For checks that only a program can make (its [params], say). printf message; hint may be NULL. */
TR_API void tr_diagnostics_add(tr_diagnostics *diagnostics, tr_place place, uint32_t length, bool warning,
                               const char *key, const char *hint, const char *format, ...) TR_PRINTF(7, 8);
/* As compilers print: "job.toml:3:1: error: …", the line, a caret, "help: …". `text` is the job file's. */
TR_API void tr_diagnostics_write(const tr_diagnostics *diagnostics, const char *source_name, const char *text,
                                 bool color, tr_writer *writer);

/* ---- Reading ------------------------------------------------------------------------------------------------------- */

typedef struct tr_config tr_config;

typedef struct tr_override {
  const char *key;    /* dotted */
  const char *value;  /* TOML; where it does not parse, the text itself; ${NAME} is not replaced */
  const char *origin; /* "--set", "--workers", … */
} tr_override;

typedef struct tr_config_source {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const char *text;             /* TOML; NULL: an all-default job */
  size_t text_bytes;            /* at most 1 MiB, else an error */
  const char *name;             /* for messages: the path as the user wrote it */
  const char *directory;        /* what relative paths of the job file are relative to; NULL: not resolved */
  const tr_override *overrides; /* later ones win */
  size_t override_count;
  /* NULL-terminated "NAME=value" strings as in environ, for TRAINRUN_<KEY> (train.micro-batch ->
   * TRAINRUN_TRAIN_MICRO_BATCH) and ${NAME}; NULL: no environment. */
  const char *const *environment;
} tr_config_source;

/* Parses, converts, checks every knob. Returns TR_ERR_CONFIG when a diagnostic is an error (*out stays unset);
 * diagnostics may be NULL, then the first mistake is the error's message. */
TR_API TR_MUST_USE tr_status tr_config_load(const tr_config_source *source, tr_diagnostics *diagnostics,
                                            tr_config **out, tr_error *error);
TR_API void tr_config_destroy(tr_config *config);

/* True when the key was given by anyone (not only by its default). */
TR_API bool tr_config_is_set(const tr_config *config, const char *key);
/* "flag --workers", "environment TRAINRUN_SEED", "job.toml:12:5", "default". */
TR_API const char *tr_config_origin(const tr_config *config, const char *key);

/* Typed readers of knobs. A key that is no knob or has another type is a bug of the caller: asserts. */
TR_API const char *tr_config_text(const tr_config *config, const char *key); /* STRING, CHOICE; NULL when unset */
TR_API int64_t tr_config_integer(const tr_config *config, const char *key);  /* INTEGER, COUNT (0 = auto) */
TR_API double tr_config_real(const tr_config *config, const char *key);      /* REAL, INTEGER */
TR_API bool tr_config_boolean(const tr_config *config, const char *key);
TR_API uint64_t tr_config_bytes(const tr_config *config, const char *key);
TR_API uint64_t tr_config_duration_ns(const tr_config *config, const char *key);
TR_API size_t tr_config_strings(const tr_config *config, const char *key, const char *const **items);

/* "1 epoch", "200 steps", "10m", "50000 samples", "1000000 tokens"; all zero when unset and for "never". */
typedef struct tr_every {
  double epochs;
  uint64_t steps, samples, tokens, time_ns;
} tr_every;
TR_API tr_every tr_config_every(const tr_config *config, const char *key);

/* A value anywhere in the tree by dotted path ("params.width", "data.valid"), after overrides; NULL when not set. A VALUE
 * knob that has a default (optimizer.betas) gives it. A path segment with a dot in it stands in quotes. */
TR_API const tr_value *tr_config_find(const tr_config *config, const char *path);
TR_API const tr_value *tr_config_root(const tr_config *config);

/* Where a relative path of the job file lies: joined with the file's directory; URLs and absolute paths unchanged. Paths
 * from flags and run-dir are relative to the working directory and come back unchanged. tr_alloc'ed; NULL: no memory. */
TR_API char *tr_config_path(const tr_config *config, const tr_allocator *allocator, const char *key, const char *path);

/* The whole job, every knob that has a value, as TOML that loads to the same config; paths absolute; secrets only as the
 * references they were ({env=…}, {file=…}). Defaults are written out too, so tr_config_is_set is true for them in what is
 * loaded from it. The table [as-written] keeps what the fingerprint of the original is made of. */
TR_API void tr_config_write_toml(const tr_config *config, tr_writer *writer);
/* {"key": value, …} of all knobs and tables that are part of the fingerprint, keys sorted, as compact JSON. Two runs
 * with equal text may resume one another. Strings are as written (not resolved). */
TR_API void tr_config_write_fingerprint(const tr_config *config, tr_writer *writer);
/* The first key in which two fingerprints differ, into key[128]; false when they are equal. */
TR_API bool tr_config_fingerprint_differs(const char *a, const char *b, char key[128]);

/* JSON Schema (draft 2020-12) of job.toml, and docs/configuration.md, both from the table. */
TR_API void tr_config_write_schema(tr_writer *writer);
TR_API void tr_config_write_reference(tr_writer *writer);

TR_END_C
#endif
