/* The nearest right key for a wrong one.
 *
 * Candidates are the keys of the same table, the last segments of keys of other tables (a key one level off is a common
 * mistake) and words that other systems use. A swap of neighbours, an insertion, a deletion and a replacement cost one
 * each; hyphen, underscore and case cost nothing. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

enum { WORD = 64 };

static char fold(char c) {
  if (c == '_') return '-';
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static int min2(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment distance of two short words; WORD where one is too long to be a slip of the other. */
static int distance(const char *a, const char *b) {
  const int n = (int)strnlen(a, WORD), m = (int)strnlen(b, WORD);
  if (n >= WORD || m >= WORD) return WORD;
  int rows[3][WORD + 1];
  int *before = rows[0], *last = rows[1], *now = rows[2];
  for (int j = 0; j <= m; j++) last[j] = j;
  for (int i = 1; i <= n; i++) {
    now[0] = i;
    for (int j = 1; j <= m; j++) {
      const int differ = fold(a[i - 1]) != fold(b[j - 1]);
      now[j] = min2(min2(now[j - 1], last[j]) + 1, last[j - 1] + differ);
      if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1])) {
        now[j] = min2(now[j], before[j - 2] + 1);
      }
    }
    int *rest = before;
    before = last;
    last = now;
    now = rest;
  }
  return last[m];
}

/* Two words are near when at most a third of the letters differ. */
static int allowed(const char *word) {
  const int length = (int)strnlen(word, WORD);
  return length <= 2 ? 0 : length <= 5 ? 1 : length / 3;
}

typedef struct synonym {
  const char *word, *key;
} synonym;

static const synonym synonyms[] = {
    {"learning-rate", "optimizer.lr"},
    {"lr-scheduler", "optimizer.schedule"},
    {"scheduler", "optimizer.schedule"},
    {"warmup-steps", "optimizer.warmup"},
    {"wd", "optimizer.weight-decay"},
    {"beta1", "optimizer.betas"},
    {"optim", "optimizer"},
    {"gradient-clip", "train.grad-clip"},
    {"max-grad-norm", "train.grad-clip"},
    {"clip-grad-norm", "train.grad-clip"},
    {"max-steps", "train.steps"},
    {"max-epochs", "train.epochs"},
    {"num-epochs", "train.epochs"},
    {"n-epochs", "train.epochs"},
    {"micro-batch-size", "train.micro-batch"},
    {"dtype", "train.precision"},
    {"gradient-checkpointing", "train.recompute"},
    {"batch", "data.batch-size"},
    {"global-batch-size", "data.batch-size"},
    {"seq-len", "data.sequence-length"},
    {"validation", "data.valid"},
    {"val", "data.valid"},
    {"test", "data.valid"},
    {"dataset", "data.train"},
    {"augmentations", "data.transforms"},
    {"workers", "cluster.workers-per-node"},
    {"gpus", "cluster.workers-per-node"},
    {"gpus-per-node", "cluster.workers-per-node"},
    {"nproc-per-node", "cluster.workers-per-node"},
    {"num-workers", "cluster.workers-per-node"},
    {"nnodes", "cluster.nodes"},
    {"num-threads", "cluster.threads-per-worker"},
    {"output-dir", "run-dir"},
    {"script", "program"},
    {"cmd", "command"},
    {"endpoint-url", "storage.*.endpoint"},
    {"ca-bundle", "storage.*.ca-file"},
    {"no-sign-request", "storage.*.sign"},
    {"anonymous", "storage.*.sign"},
    {"restarts", "failure.max-restarts"},
    {"timeout", "failure.hang-timeout"},
    {"save-every", "checkpoint.every"},
    {"hyperparameters", "params"},
};

typedef struct search {
  const char *path; /* the unknown key */
  const char *word; /* its last segment */
  size_t parent;    /* length of its table's path, without the dot */
  int best;         /* four times the distance, plus what makes a candidate less likely */
  char found[TR_CONFIG_PATH_BYTES];
} search;

static void consider(search *s, const char *word, const char *key, size_t key_length, int penalty) {
  const int d = distance(s->word, word);
  if (d > allowed(s->word) && d > allowed(word)) return;
  const int cost = 4 * d + penalty;
  if (cost >= s->best) return;
  s->best = cost;
  snprintf(s->found, sizeof s->found, "%.*s", (int)key_length, key);
}

/* True when the first `parent` bytes of the path are the pattern's table, in which case *child is what follows. */
static bool in_same_table(const search *s, const char *pattern, const char **child) {
  if (s->parent == 0) {
    *child = pattern;
    return true;
  }
  const char *key = s->path;
  for (;;) {
    const size_t a = strcspn(pattern, "."), b = strcspn(key, ".");
    const bool any = a == 1 && *pattern == '*';
    if (pattern[a] != '.' || (!any && (a != b || memcmp(pattern, key, a) != 0))) return false;
    pattern += a + 1;
    key += b + 1;
    if ((size_t)(key - s->path) > s->parent) break;
  }
  *child = pattern;
  return true;
}

static void consider_knobs(search *s) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  for (size_t i = 0; i < count; i++) {
    const char *key = knobs[i].key, *child = NULL;
    if (strcmp(key, "as-written") == 0) continue;
    if (in_same_table(s, key, &child)) {
      char word[WORD];
      const size_t length = strcspn(child, ".");
      if (length < sizeof word && strncmp(child, "*", length) != 0) {
        snprintf(word, sizeof word, "%.*s", (int)length, child);
        consider(s, word, key, (size_t)(child - key) + length, 0);
      }
    }
    const char *last = strrchr(key, '.');
    if (last != NULL) consider(s, last + 1, key, strlen(key), 2);
    /* early-stop-metric, keep-last: the dot written as a hyphen. */
    const char *middle = strchr(key, '.');
    if (middle != NULL && strchr(middle + 1, '.') != NULL) consider(s, middle + 1, key, strlen(key), 2);
    if (middle != NULL) consider(s, key, key, strlen(key), 3);
  }
}

/* The part of a full key that a user writes inside the table of the unknown one, or NULL. */
static const char *relative(const search *s, const char *key) {
  const char *child = NULL;
  return in_same_table(s, key, &child) ? child : NULL;
}

bool tr_config_suggest(const char *path, char hint[256]) {
  search s = {.path = path, .best = 1 << 20};
  const char *dot = strrchr(path, '.');
  s.word = dot != NULL ? dot + 1 : path;
  s.parent = dot != NULL ? (size_t)(dot - path) : 0;
  consider_knobs(&s);
  for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++) {
    consider(&s, synonyms[i].word, synonyms[i].key, strlen(synonyms[i].key), 1);
  }
  if (s.found[0] == '\0') return false;
  const char *inside = relative(&s, s.found);
  if (inside != NULL && (s.parent > 0 || strchr(s.found, '.') == NULL)) {
    snprintf(hint, 256, "did you mean '%.200s'?", inside);
  } else {
    snprintf(hint, 256, "did you mean '%.200s'?", s.found);
  }
  return true;
}

void tr_config_environment_name(const char *key, char name[TR_CONFIG_PATH_BYTES]) {
  size_t at = (size_t)snprintf(name, TR_CONFIG_PATH_BYTES, "TRAINRUN_");
  for (; *key != '\0' && at + 1 < TR_CONFIG_PATH_BYTES; key++) {
    const char c = *key;
    name[at++] = c == '.' || c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
  }
  name[at] = '\0';
}

bool tr_config_suggest_environment(const char *name, char hint[256]) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  int best = allowed(name) < 4 ? allowed(name) : 4;
  bool found = false;
  for (size_t i = 0; i < count; i++) {
    char candidate[TR_CONFIG_PATH_BYTES];
    tr_config_environment_name(knobs[i].key, candidate);
    /* The common prefix says nothing. */
    int d = distance(name + 9, candidate + 9);
    const char *dot = strrchr(knobs[i].key, '.');
    if (dot != NULL) {
      char last[TR_CONFIG_PATH_BYTES];
      tr_config_environment_name(dot + 1, last);
      if (strcmp(last, name) == 0) d = 1;
    }
    if (d > best || (d == best && found) || d > allowed(name + 9)) continue;
    best = d;
    found = true;
    snprintf(hint, 256, "did you mean '%.200s'?", candidate);
  }
  return found;
}

bool tr_config_suggest_choice(const char *choices, const char *text, char hint[256]) {
  int best = WORD;
  while (*choices != '\0') {
    char choice[WORD];
    const size_t length = strcspn(choices, "|");
    snprintf(choice, sizeof choice, "%.*s", (int)length, choices);
    const int d = distance(text, choice);
    if (d < best && (d <= allowed(text) || d <= allowed(choice))) {
      best = d;
      snprintf(hint, 256, "did you mean \"%s\"?", choice);
    }
    choices += length + (choices[length] == '|');
  }
  return best < WORD;
}
