/* What the files of the configuration share. Private to runtime/base.
 *
 * Loading goes: text -> raw tree (config_toml) -> environment and flags put into it (config_override) -> resolved tree,
 * in which ${NAME} is replaced (config_tree) -> every key looked up in the table of knobs, converted and checked
 * (config_convert, config_check) -> an immutable tr_config. The raw tree stays, because a fingerprint is made of strings
 * as they were written. */
#ifndef TR_BASE_CONFIG_INTERNAL_H
#define TR_BASE_CONFIG_INTERNAL_H

#include <trainrun/arena.h>
#include <trainrun/config.h>

TR_BEGIN_C

enum {
  TR_CONFIG_MAX_BYTES = 1 << 20,
  TR_CONFIG_MAX_DEPTH = 64,
  TR_CONFIG_MAX_VALUES = 100000,
  TR_CONFIG_PATH_BYTES = 256
};

/* ---- The table -------------------------------------------------------------------------------------------------- */

/* What a value must look like beyond its type, and which strings are paths. */
typedef enum tr_knob_shape {
  TR_SHAPE_NONE,
  TR_SHAPE_NAME,       /* a job's name: a folder */
  TR_SHAPE_PATH,       /* relative to the job file */
  TR_SHAPE_CWD_PATH,   /* relative to the working directory */
  TR_SHAPE_PROGRAM,    /* a path where it has a slash, else a name */
  TR_SHAPE_RESUME,     /* auto, never or a checkpoint */
  TR_SHAPE_WARMUP,     /* "100 steps" or "3%" */
  TR_SHAPE_BEST,       /* "max accuracy" */
  TR_SHAPE_TRAIN,      /* URL, list of URLs, list of tables */
  TR_SHAPE_VALID,      /* URL, list of URLs, table of tables */
  TR_SHAPE_TEXT_MAP,   /* names to strings */
  TR_SHAPE_SCALAR_MAP, /* names to strings, numbers, booleans */
  TR_SHAPE_BETAS,      /* two numbers in [0, 1) */
  TR_SHAPE_SECRET,     /* {env = "X"} or {file = "..."} */
  TR_SHAPE_PARAMS,     /* any table */
  TR_SHAPE_ANY
} tr_knob_shape;

typedef struct tr_knob_rule {
  double min, max;
  tr_knob_shape shape;
} tr_knob_rule;

/* The rule of a knob of the table. */
const tr_knob_rule *tr_knob_rule_of(const tr_knob *knob);
size_t tr_knob_index(const tr_knob *knob);
/* The knob of a concrete key ("storage.lake.endpoint"), or NULL. */
const tr_knob *tr_knob_find(const char *key);
/* True when some knob lies below `path`. */
bool tr_knob_is_table(const char *path);
/* True when a segment-wise match; '*' in the pattern stands for one segment. */
bool tr_knob_matches(const char *pattern, const char *key);
/* Words for messages: "an integer", and for the reference: "integer". */
const char *tr_knob_type_words(const tr_knob *knob);

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

typedef struct tr_toml_mistake {
  tr_place place;
  char message[256];
} tr_toml_mistake;

/* TR_ERR_CONFIG fills *mistake; what was allocated stays in the arena. */
tr_status tr_toml_parse(const char *text, size_t bytes, tr_arena *arena, tr_value *root, tr_toml_mistake *mistake,
                        tr_error *error);
/* Refuses what would be too much for the parser: nesting by dots, too many values. */
tr_status tr_toml_scan(const char *text, size_t bytes, tr_toml_mistake *mistake);

/* The first segment of a dotted path and what follows it (NULL at the end); false when it does not fit. */
bool tr_path_next(const char **path, char segment[TR_CONFIG_PATH_BYTES]);
const tr_value *tr_tree_find(const tr_value *root, const char *path);
/* Puts a value at a path, making tables on the way; false: no memory. */
bool tr_tree_set(tr_arena *arena, tr_value *root, const char *path, const tr_value *value);
void tr_tree_remove(tr_value *root, const char *path);
/* A small reader of the defaults in the table: scalars and flat lists. */
bool tr_tree_parse_default(tr_arena *arena, const char *text, tr_value *out);
/* Length in code points of the value or key at a place of the text; at least 1. */
uint32_t tr_source_token_length(const char *text, size_t bytes, tr_place place, bool key);

/* ---- Suggestions ------------------------------------------------------------------------------------------------ */

/* The nearest right key for an unknown one; false when nothing is near. */
bool tr_config_suggest(const char *path, char hint[256]);
/* The nearest environment variable of a knob. */
bool tr_config_suggest_environment(const char *name, char hint[256]);
/* The nearest of "a|b|c". */
bool tr_config_suggest_choice(const char *choices, const char *text, char hint[256]);
/* TRAINRUN_TRAIN_MICRO_BATCH for train.micro-batch. */
void tr_config_environment_name(const char *key, char name[TR_CONFIG_PATH_BYTES]);

/* ---- Loading ---------------------------------------------------------------------------------------------------- */

typedef enum tr_origin { TR_FROM_DEFAULT, TR_FROM_FILE, TR_FROM_ENVIRONMENT, TR_FROM_FLAG } tr_origin;

typedef struct tr_setting {
  const tr_knob *knob;
  const char *key;
  bool set;
  tr_origin from;
  const char *origin;
  const tr_value *value; /* resolved; a default's own tree; NULL without either */
  const char *text;      /* STRING, CHOICE, and as written: BYTES, DURATION, EVERY */
  int64_t integer;       /* INTEGER, COUNT, BOOLEAN */
  double real;           /* REAL, INTEGER */
  uint64_t amount;       /* BYTES, DURATION (ns) */
  tr_every every;
  const char *const *items; /* STRINGS */
  size_t count;
} tr_setting;

struct tr_config {
  const tr_allocator *allocator;
  tr_arena *arena;
  const char *name;
  const char *directory; /* NULL: paths are not resolved */
  tr_value raw, root;
  tr_setting
      *settings; /* one a knob in the order of the table, then one a concrete key of a '*' knob and of [params] */
  size_t setting_count;
};

/* Who set a path by flag or environment; everything else came from the file. */
typedef struct tr_override_origin {
  struct tr_override_origin *next;
  const char *path;
  const char *origin; /* "flag --set", "environment TRAINRUN_SEED" */
  tr_origin from;
} tr_override_origin;

typedef struct tr_loader {
  const tr_config_source *source;
  tr_diagnostics *diagnostics;
  tr_config *config;
  tr_arena *arena;
  tr_override_origin *overrides;
  bool no_memory;
} tr_loader;

void *tr_loader_alloc(tr_loader *loader, size_t bytes);
const tr_override_origin *tr_loader_origin(const tr_loader *loader, const char *path);

/* A mistake at a value, or at a key where `at_key`. `hint` may be NULL. */
void tr_loader_mistake(tr_loader *loader, const char *path, const tr_value *value, bool at_key, const char *hint,
                       const char *format, ...) TR_PRINTF(6, 7);

void tr_loader_apply_environment(tr_loader *loader);
void tr_loader_apply_flags(tr_loader *loader);
/* A length of the run from a flag replaces one from the environment, and that one from the job file. */
void tr_loader_drop_weaker_lengths(tr_loader *loader);
/* raw -> resolved */
void tr_loader_resolve(tr_loader *loader);
/* Converts one value; false when it was refused. `raw` is the value before ${NAME}. */
bool tr_loader_convert(tr_loader *loader, const char *path, const tr_value *value, const tr_value *raw,
                       tr_setting *setting);
/* Same for a default, which is right by construction. */
bool tr_setting_default(tr_arena *arena, const tr_knob *knob, tr_setting *setting);
/* Shapes of one converted setting. */
void tr_loader_check_shape(tr_loader *loader, const char *path, const tr_value *value, const tr_setting *setting);
/* Rules between keys. */
void tr_loader_check_rules(tr_loader *loader);

bool tr_parse_every(const char *text, tr_every *every);

const tr_setting *tr_config_setting(const tr_config *config, const char *key);

/* ---- Diagnostics ------------------------------------------------------------------------------------------------ */

void tr_diagnostics_addv(tr_diagnostics *diagnostics, tr_place place, uint32_t length, bool warning, const char *key,
                         const char *hint, const char *format, va_list arguments);
/* True when the bytes before `at` end in a key that holds a secret and an equals sign: what follows is not shown. */
bool tr_config_is_secret_at(const char *line, size_t at);
/* No more are kept: looking for hints and places is a waste. */
bool tr_diagnostics_full(const tr_diagnostics *diagnostics);
bool tr_diagnostics_failed(const tr_diagnostics *diagnostics);

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

void tr_write_toml_string(tr_writer *writer, const char *text);
/* What the job file said for a key whose fingerprint is its text as written; NULL for all other keys. */
const tr_value *tr_config_as_written(const tr_config *config, const tr_setting *setting);

TR_END_C
#endif
