/* Who held up whom, and the one sentence that says so. Pure. */
#include "ledger.h"

#include <stdio.h>
#include <string.h>

/* Below this part of a step's time a cause is noise: nothing starves. */
static const double share_floor = 0.10;
/* Ranks of one host never compute exactly alike; a straggler costs the others more than this. */
static const double straggler_floor = 0.15;
/* A rank is to blame alone when it owns at least this part of a cause that others wait for. */
static const double alone_floor = 0.80;

tr_status tr_blame_init(tr_blame *blame, const tr_allocator *allocator, int32_t size, tr_error *error) {
  memset(blame, 0, sizeof *blame);
  blame->allocator = allocator;
  blame->size = size;
  blame->seconds = tr_calloc(allocator, (size_t)size * TR_CAUSE_COUNT, sizeof *blame->seconds);
  blame->own = tr_calloc(allocator, (size_t)size * TR_CAUSE_COUNT, sizeof *blame->own);
  if (blame->seconds != NULL && blame->own != NULL) return TR_OK;
  tr_blame_fini(blame);
  return tr_fail_memory(error, "the ledger", (size_t)size * TR_CAUSE_COUNT * 2 * sizeof(double));
}

void tr_blame_fini(tr_blame *blame) {
  tr_free(blame->allocator, blame->seconds);
  tr_free(blame->allocator, blame->own);
  blame->seconds = blame->own = NULL;
}

/* Causes that stall a rank by itself; compute and the update are what it is there for. */
static bool stalls(tr_cause cause) {
  switch (cause) {
    case TR_CAUSE_INDEXING:
    case TR_CAUSE_FIRST_BYTE:
    case TR_CAUSE_BANDWIDTH:
    case TR_CAUSE_THROTTLED:
    case TR_CAUSE_RETRY:
    case TR_CAUSE_DECODE:
    case TR_CAUSE_H2D:
    case TR_CAUSE_COLLECTIVE:
    case TR_CAUSE_CHECKPOINT: return true;
    default: return false;
  }
}

/* Why the others waited for rank r: the cause in which r's window exceeds the others' mean most. */
static tr_cause cause_of_lateness(const tr_window *windows, int32_t size, int32_t r) {
  tr_cause worst = TR_CAUSE_COMPUTE;
  double most = 0;
  for (int cause = 0; cause < TR_CAUSE_COUNT; cause++) {
    if (cause == TR_CAUSE_COLLECTIVE_WAIT || cause == TR_CAUSE_COLLECTIVE) continue;
    double others = 0;
    for (int32_t i = 0; i < size; i++) {
      if (i != r) others += (double)windows[i].charged_ns[cause];
    }
    const double excess = (double)windows[r].charged_ns[cause] - others / (size > 1 ? size - 1 : 1);
    if (excess > most) {
      most = excess;
      worst = (tr_cause)cause;
    }
  }
  return worst;
}

void tr_blame_add(tr_blame *blame, const tr_window *windows, double bytes) {
  const int32_t size = blame->size;
  const double to_mean_s = 1e-9 / size;
  for (int32_t i = 0; i < size; i++) {
    const tr_window *window = &windows[i];
    for (int cause = 0; cause < TR_CAUSE_COUNT; cause++) {
      const double mean_s = (double)window->charged_ns[cause] * to_mean_s;
      blame->window_s += mean_s;
      blame->own[i * TR_CAUSE_COUNT + cause] += (double)window->charged_ns[cause] * 1e-9;
      if (stalls((tr_cause)cause)) blame->seconds[i * TR_CAUSE_COUNT + cause] += mean_s;
    }
    const int32_t r = window->waited_for;
    if (r < 0 || r >= size || r == i) continue;
    const double waited_s = (double)window->charged_ns[TR_CAUSE_COLLECTIVE_WAIT] * to_mean_s;
    blame->seconds[r * TR_CAUSE_COUNT + cause_of_lateness(windows, size, r)] += waited_s;
  }
  blame->bytes += bytes;
  blame->windows++;
}

static const char *subject(tr_cause cause) {
  switch (cause) {
    case TR_CAUSE_DECODE: return "Decode-bound";
    case TR_CAUSE_H2D: return "Copy-bound";
    case TR_CAUSE_COLLECTIVE: return "Network-bound";
    case TR_CAUSE_CHECKPOINT: return "Checkpoint-bound";
    case TR_CAUSE_COMPUTE: return "Straggler";
    case TR_CAUSE_INDEXING: return "Index-bound";
    default: return "Held up";
  }
}

static const char *remedy(tr_cause cause) {
  switch (cause) {
    case TR_CAUSE_DECODE: return "decode less (smaller or raw samples) or give each worker more threads";
    case TR_CAUSE_CHECKPOINT: return "checkpoint less often or to a faster store";
    case TR_CAUSE_COLLECTIVE: return "use larger batches or a faster network";
    default: return NULL;
  }
}

/* What is waited for, in words. */
static const char *wait_of(tr_cause cause) {
  switch (cause) {
    case TR_CAUSE_FIRST_BYTE: return "the first byte";
    case TR_CAUSE_THROTTLED: return "a store that throttles (503, SlowDown)";
    case TR_CAUSE_RETRY: return "requests that failed and were sent again";
    default: return tr_cause_name(cause);
  }
}

static bool of_store(tr_cause cause) {
  return cause == TR_CAUSE_FIRST_BYTE || cause == TR_CAUSE_BANDWIDTH || cause == TR_CAUSE_THROTTLED ||
         cause == TR_CAUSE_RETRY;
}

/* As networks and stores are sold: decimal, "3.2 GB/s", "210 MB/s", "0.4 MB/s". */
static void format_rate(double bps, char text[32]) {
  const bool giga = bps >= 999.5e6, tenth = giga || bps < 9.95e6;
  const uint64_t units = (uint64_t)(bps / (giga ? 1e8 : tenth ? 1e5 : 1e6) + 0.5);
  if (tenth) {
    snprintf(text, 32, "%llu.%llu %s/s", (unsigned long long)(units / 10), (unsigned long long)(units % 10),
             giga ? "GB" : "MB");
  } else {
    snprintf(text, 32, "%llu MB/s", (unsigned long long)units);
  }
}

/* "needs 210 MB/s, got 50 MB/s; ", or nothing where it is not known. */
static void write_rate(const tr_blame *blame, char *text, size_t bytes) {
  double waited_s = 0;
  for (int32_t i = 0; i < blame->size * TR_CAUSE_COUNT; i++) {
    if (of_store((tr_cause)(i % TR_CAUSE_COUNT))) waited_s += blame->seconds[i];
  }
  const double busy_s = blame->window_s - waited_s;
  text[0] = '\0';
  if (blame->bytes <= 0 || busy_s <= 0) return;
  char needed[32], got[32];
  format_rate(blame->bytes / busy_s, needed);
  format_rate(blame->bytes / blame->window_s, got);
  snprintf(text, bytes, "needs %s, got %s; ", needed, got);
}

static void write_sentence(const tr_blame *blame, const char *source, double slowdown, tr_verdict *verdict) {
  char *text = verdict->sentence, who[32] = "", rate[96];
  const size_t bytes = sizeof verdict->sentence;
  const char *key = tr_cause_name(verdict->cause);
  const int percent = (int)(verdict->share * 100 + 0.5);
  if (verdict->rank >= 0) snprintf(who, sizeof who, "rank %d, ", (int)verdict->rank);
  if (of_store(verdict->cause)) {
    write_rate(blame, rate, sizeof rate);
    snprintf(text, bytes, "%s-bound (%s): %s%s%d %% of each step waits for %s", source, key, who, rate, percent,
             wait_of(verdict->cause));
    return;
  }
  switch (verdict->cause) {
    case TR_CAUSE_COMPUTE:
    case TR_CAUSE_OPTIMIZER:
    case TR_CAUSE_OTHER:
      snprintf(text, bytes,
               "Straggler (%s): the others wait for rank %d in %d %% of each step; its %s takes %.1fx theirs", key,
               (int)verdict->rank, percent, key, slowdown);
      return;
    default: break;
  }
  const char *advice = remedy(verdict->cause);
  snprintf(text, bytes, "%s (%s): %s%d %% of each step waits for %s%s%s", subject(verdict->cause), key, who, percent,
           key, advice != NULL ? "; " : "", advice != NULL ? advice : "");
}

/* How much longer rank r spends in a cause than the mean of the others. */
static double slowdown_of(const tr_blame *blame, int32_t r, tr_cause cause) {
  double others = 0;
  for (int32_t i = 0; i < blame->size; i++) {
    if (i != r) others += blame->own[i * TR_CAUSE_COUNT + cause];
  }
  others /= blame->size > 1 ? blame->size - 1 : 1;
  return others > 0 ? blame->own[r * TR_CAUSE_COUNT + cause] / others : 1;
}

void tr_blame_verdict(const tr_blame *blame, const char *source, tr_verdict *verdict) {
  memset(verdict, 0, sizeof *verdict);
  verdict->cause = TR_CAUSE_COUNT;
  verdict->rank = -1;
  for (int cause = 0; cause < TR_CAUSE_COUNT; cause++) {
    double sum = 0, most = 0;
    int32_t worst = 0;
    for (int32_t r = 0; r < blame->size; r++) {
      const double seconds = blame->seconds[r * TR_CAUSE_COUNT + cause];
      sum += seconds;
      if (seconds > most) {
        most = seconds;
        worst = r;
      }
    }
    const double share = blame->window_s > 0 ? sum / blame->window_s : 0;
    const bool alone = blame->size > 1 && sum > 0 && most / sum >= alone_floor;
    /* Without one rank to blame, waiting for others' compute is the jitter of the machine. */
    if (share < share_floor || share <= verdict->share) continue;
    if (!stalls((tr_cause)cause) && (!alone || share < straggler_floor)) continue;
    verdict->cause = (tr_cause)cause;
    verdict->share = share;
    verdict->rank = alone ? worst : -1;
  }
  if (verdict->cause == TR_CAUSE_COUNT) {
    snprintf(verdict->sentence, sizeof verdict->sentence, "nothing starves");
    return;
  }
  const double slowdown = verdict->rank >= 0 ? slowdown_of(blame, verdict->rank, verdict->cause) : 1;
  write_sentence(blame, source, slowdown, verdict);
}
