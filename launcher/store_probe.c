/* trainrun store probe: what one wants to know of a bucket before a run, in a few seconds.
 *
 * Everything that is written lies below URL/.trainrun-probe-<pid>-<time>/, is at most 32 objects of 8 MiB, and is removed
 * again, also when the probe is interrupted. */
#include "location.h"

#include "crew.h"

#include <trainrun/s3.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20, OBJECT_BYTES = 8 * MIB, OBJECTS = 32, SMALL_BYTES = 4096, SMALL_READS = 40, LEVELS = 3 };
#define LEVEL_NS 700000000ull

static const uint32_t levels[LEVELS] = {1, 8, OBJECTS};

typedef struct probe_answer {
  bool asked;
  tr_status status;
  char message[TR_ERROR_MESSAGE_BYTES];
} probe_answer;

typedef struct probe {
  tr_location at;
  const char *store_name;
  bool is_s3;
  tr_s3_description s3;
  char folder[TR_KEY_BYTES]; /* with a slash at its end */
  bool made[OBJECTS + 1];    /* objects of ours that may be there; the last is the small one */

  /* What GETs read: an object of ours, or the first that was there. */
  char readable[TR_KEY_BYTES];
  uint64_t readable_bytes;

  probe_answer list, get, put, delete, conditional; /* conditional: TR_ERR_EXISTS is right */
  double list_ms, first_byte_ms[3];                 /* p50, p90, p99 */
  uint32_t first_bytes;
  double get_rate[LEVELS], put_rate[LEVELS]; /* bytes a second; 0: not measured */
  bool has_skew;
  double skew_s; /* the server's clock less ours */
} probe;

/* The signals are blocked meanwhile and end the command afterwards. */
static bool interrupted(void) {
  sigset_t pending;
  return sigpending(&pending) == 0 && (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
                                       sigismember(&pending, SIGHUP) == 1);
}

static bool answer(probe_answer *to, tr_status status, const tr_error *error) {
  to->asked = true;
  to->status = status;
  snprintf(to->message, sizeof to->message, "%s", status != TR_OK ? error->message : "");
  return status == TR_OK;
}

static void key_of(const probe *p, uint32_t i, char key[TR_KEY_BYTES]) {
  snprintf(key, TR_KEY_BYTES, "%s%02u", p->folder, i);
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

static void probe_list(probe *p) {
  tr_error error;
  tr_list_page page = {0};
  void *self;
  const tr_store_ops *ops = tr_store_vtable(p->at.store, &self);
  const uint64_t begin = tr_clock_now_ns(NULL);
  const tr_status status = ops->list(self, p->at.prefix, NULL, 100, &page, &error);
  p->list_ms = (double)(tr_clock_now_ns(NULL) - begin) * 1e-6;
  if (!answer(&p->list, status, &error)) return;
  for (size_t i = 0; i < page.count; i++) {
    if (page.entries[i].info.bytes <= p->readable_bytes) continue;
    snprintf(p->readable, sizeof p->readable, "%s", page.entries[i].key);
    p->readable_bytes = page.entries[i].info.bytes;
  }
  ops->list_free(self, &page);
}

/* Writes the small object; its time says what the server's clock says. */
static void probe_put(probe *p, const uint8_t *data) {
  char key[TR_KEY_BYTES];
  tr_error error;
  tr_object_info info;
  key_of(p, OBJECTS, key);
  p->made[OBJECTS] = true;
  const int64_t before = tr_clock_wall_ns(NULL);
  if (!answer(&p->put, tr_store_put(p->at.store, key, data, SMALL_BYTES, false, &error), &error)) return;
  const int64_t after = tr_clock_wall_ns(NULL);
  if (tr_store_head(p->at.store, key, &info, NULL) == TR_OK) {
    p->has_skew = true;
    p->skew_s = (double)(info.modified_ns - (before + after) / 2) * 1e-9;
  }
  snprintf(p->readable, sizeof p->readable, "%s", key);
  p->readable_bytes = SMALL_BYTES;
  const tr_status again = tr_store_put(p->at.store, key, data, SMALL_BYTES, true, &error);
  answer(&p->conditional, again, &error);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void probe_first_byte(probe *p, uint8_t *buffer) {
  double times[SMALL_READS];
  uint32_t count = 0;
  tr_error error;
  if (p->readable[0] == '\0') return;
  for (; count < SMALL_READS && !interrupted(); count++) {
    tr_store_request request = {.struct_bytes = sizeof request,
                                .verb = TR_STORE_GET,
                                .key = p->readable,
                                .buffer = buffer,
                                .buffer_bytes = SMALL_BYTES};
    tr_status status = tr_store_submit(p->at.store, &request, &error);
    if (status == TR_OK) status = tr_store_wait(p->at.store, &request, &error);
    if (!answer(&p->get, status, &error)) return;
    const uint64_t first = request.first_byte_ns > 0 ? request.first_byte_ns : request.done_ns;
    times[count] = (double)(first - request.submitted_ns) * 1e-6;
  }
  if (count == 0) return;
  qsort(times, count, sizeof *times, by_value);
  p->first_bytes = count;
  p->first_byte_ms[0] = times[count / 2];
  p->first_byte_ms[1] = times[count * 9 / 10];
  p->first_byte_ms[2] = times[count * 99 / 100];
}

/* Keeps `connections` requests under way for a while; bytes a second, 0 where one failed. */
static double throughput(probe *p, tr_store_verb verb, uint32_t connections, uint8_t *memory, probe_answer *said) {
  tr_store_request requests[OBJECTS];
  char keys[OBJECTS][TR_KEY_BYTES];
  uint64_t begin = tr_clock_now_ns(NULL), bytes = 0, now = begin;
  uint32_t pending = 0, next = 0, oldest = 0;
  tr_status status = TR_OK;
  tr_error error;
  const uint64_t size = verb == TR_STORE_PUT || p->readable_bytes > OBJECT_BYTES ? OBJECT_BYTES : p->readable_bytes;
  while (pending > 0 || (status == TR_OK && now - begin < LEVEL_NS)) {
    while (status == TR_OK && pending < connections && now - begin < LEVEL_NS && !interrupted()) {
      const uint32_t i = next % connections;
      const bool own = verb == TR_STORE_PUT || p->made[0];
      own ? key_of(p, i, keys[i]) : (void)snprintf(keys[i], sizeof keys[i], "%s", p->readable);
      requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i], .verb = verb, .key = keys[i]};
      requests[i].data = verb == TR_STORE_PUT ? memory : NULL;
      requests[i].data_bytes = verb == TR_STORE_PUT ? OBJECT_BYTES : 0;
      requests[i].buffer = verb == TR_STORE_GET ? memory + (size_t)i * OBJECT_BYTES : NULL;
      requests[i].buffer_bytes = verb == TR_STORE_GET ? (size_t)size : 0;
      p->made[i] = p->made[i] || verb == TR_STORE_PUT;
      status = tr_store_submit(p->at.store, &requests[i], &error);
      pending += status == TR_OK;
      next += status == TR_OK;
    }
    if (pending == 0) break;
    const tr_status one = tr_store_wait(p->at.store, &requests[oldest++ % connections],
                                        status == TR_OK ? &error : NULL);
    if (status == TR_OK) status = one;
    if (one == TR_OK) bytes += requests[(oldest - 1) % connections].bytes;
    pending--;
    now = tr_clock_now_ns(NULL);
  }
  if (status != TR_OK) answer(said, status, &error);
  return status == TR_OK && now > begin ? (double)bytes * 1e9 / (double)(now - begin) : 0;
}

static void probe_throughput(probe *p, uint8_t *memory) {
  for (uint32_t i = 0; i < LEVELS && p->put.status == TR_OK && p->put.asked && !interrupted(); i++) {
    p->put_rate[i] = throughput(p, TR_STORE_PUT, levels[i], memory, &p->put);
  }
  if (p->made[0]) p->readable_bytes = OBJECT_BYTES;
  for (uint32_t i = 0; i < LEVELS && p->get.status == TR_OK && p->get.asked && !interrupted(); i++) {
    p->get_rate[i] = throughput(p, TR_STORE_GET, levels[i], memory, &p->get);
  }
}

static void clean_up(probe *p) {
  char key[TR_KEY_BYTES];
  for (uint32_t i = 0; i <= OBJECTS; i++) {
    tr_error error;
    if (!p->made[i]) continue;
    key_of(p, i, key);
    const tr_status status = tr_store_delete(p->at.store, key, &error);
    if (p->put.status == TR_OK && (!p->delete.asked || p->delete.status == TR_OK)) answer(&p->delete, status, &error);
  }
}

/* ---- Telling ----------------------------------------------------------------------------------------------------- */

static const char *word(const probe_answer *a) {
  if (!a->asked) return "not tried";
  switch (a->status) {
    case TR_OK: return "yes";
    case TR_ERR_DENIED: return "denied";
    default: return "failed";
  }
}

static const char *conditional_word(const probe *p) {
  if (!p->conditional.asked) return "not tried";
  if (p->conditional.status == TR_ERR_EXISTS) return "honoured";
  return p->conditional.status == TR_OK ? "ignored" : "failed";
}

static void print_answer(const char *name, const probe_answer *a) {
  printf("%-18s %s%s%s\n", name, word(a), a->asked && a->status != TR_OK ? ": " : "",
         a->asked && a->status != TR_OK ? a->message : "");
}

static void print_rates(const char *name, const double *rates) {
  bool any = false;
  printf("%-18s", name);
  for (uint32_t i = 0; i < LEVELS; i++) {
    char amount[32];
    if (rates[i] <= 0) continue;
    tr_format_bytes((uint64_t)rates[i], amount);
    printf("%s %s/s with %u", any ? "," : "", amount, levels[i]);
    any = true;
  }
  printf(any ? " under way\n" : " not measured\n");
}

static void print_text(const probe *p) {
  const tr_s3_description *s3 = &p->s3;
  printf("%-18s %s (%s)\n", "url", p->at.url, p->store_name);
  if (p->is_s3) {
    printf("%-18s %s, region %s\n", "endpoint", s3->endpoint, s3->region);
    s3->key_id[0] == '\0'
        ? printf("%-18s none, requests are not signed\n", "key")
        : printf("%-18s %s, from %s\n", "key", s3->key_id, s3->keys_from[0] != '\0' ? s3->keys_from : "its source");
  }
  print_answer("list", &p->list);
  if (p->list.status == TR_OK) printf("%-18s %.1f ms\n", "  answers in", p->list_ms);
  print_answer("get", &p->get);
  print_answer("put", &p->put);
  print_answer("delete", &p->delete);
  printf("%-18s %s\n", "conditional put", conditional_word(p));
  if (p->first_bytes > 0) {
    printf("%-18s %.2f ms median, %.2f ms p90, %.2f ms p99\n", "first byte", p->first_byte_ms[0], p->first_byte_ms[1],
           p->first_byte_ms[2]);
  }
  print_rates("GET", p->get_rate);
  print_rates("PUT", p->put_rate);
  /* Times of objects are often whole seconds. */
  if (p->has_skew) {
    const bool near = p->skew_s > -2 && p->skew_s < 2;
    near ? printf("%-18s as this machine's\n", "clock")
         : printf("%-18s %.0f s %s this machine's\n", "clock", p->skew_s < 0 ? -p->skew_s : p->skew_s,
                  p->skew_s < 0 ? "behind" : "ahead of");
  }
}

static void write_rates(tr_writer *out, const char *name, const double *rates) {
  tr_write_text(out, ", \"%s\": {", name);
  for (uint32_t i = 0; i < LEVELS; i++) {
    tr_write_text(out, "%s\"%u\": ", i > 0 ? ", " : "", levels[i]);
    rates[i] > 0 ? tr_write_text(out, "%.0f", rates[i]) : tr_write_text(out, "null");
  }
  tr_write_text(out, "}");
}

static void write_answer(tr_writer *out, const char *name, const probe_answer *a) {
  tr_write_text(out, ", \"%s\": {\"answer\": \"%s\"", name, word(a));
  if (a->asked && a->status != TR_OK) {
    tr_write_text(out, ", \"why\": ");
    tr_write_json_string(out, a->message);
  }
  tr_write_text(out, "}");
}

static void print_json(const probe *p) {
  tr_writer out;
  tr_writer_init(&out, NULL);
  tr_write_text(&out, "{\"url\": ");
  tr_write_json_string(&out, p->at.url);
  tr_write_text(&out, ", \"store\": \"%s\"", p->store_name);
  if (p->is_s3) {
    const char *const texts[][2] = {{"endpoint", p->s3.endpoint},
                                    {"region", p->s3.region},
                                    {"access_key", p->s3.key_id},
                                    {"keys_from", p->s3.keys_from}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
      tr_write_text(&out, ", \"%s\": ", texts[i][0]);
      tr_write_json_string(&out, texts[i][1]);
    }
  }
  write_answer(&out, "list", &p->list);
  write_answer(&out, "get", &p->get);
  write_answer(&out, "put", &p->put);
  write_answer(&out, "delete", &p->delete);
  tr_write_text(&out, ", \"conditional_put\": \"%s\"", conditional_word(p));
  if (p->first_bytes > 0) {
    tr_write_text(&out, ", \"first_byte_ms\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f}", p->first_byte_ms[0],
                  p->first_byte_ms[1], p->first_byte_ms[2]);
  }
  write_rates(&out, "get_bytes_per_s", p->get_rate);
  write_rates(&out, "put_bytes_per_s", p->put_rate);
  if (p->has_skew) tr_write_text(&out, ", \"clock_skew_s\": %.1f", p->skew_s);
  tr_write_text(&out, "}\n");
  if (!out.failed) fwrite(out.data, 1, out.bytes, stdout);
  tr_writer_fini(&out);
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

static tr_status run(probe *p, const tr_cli *cli, tr_error *error) {
  void *self;
  const size_t bytes = (size_t)OBJECTS * OBJECT_BYTES;
  p->store_name = tr_store_vtable(p->at.store, &self)->name;
  uint8_t *memory = tr_alloc(NULL, bytes);
  if (memory == NULL) return tr_fail_memory(error, "the probe", bytes);
  for (size_t i = 0; i < OBJECT_BYTES; i += 8) { /* nothing that a server could squeeze */
    const uint64_t noise = tr_rng_u64(1, TR_RNG_USER, 0, i);
    memcpy(memory + i, &noise, 8);
  }
  snprintf(p->folder, sizeof p->folder, "%s.trainrun-probe-%ld-%" PRIx64 "/", p->at.prefix, (long)getpid(),
           (uint64_t)tr_clock_wall_ns(NULL));
  probe_list(p);
  p->s3.struct_bytes = sizeof p->s3;
  p->is_s3 = tr_store_s3_describe(p->at.store, &p->s3, NULL) == TR_OK; /* the keys are those that were used */
  probe_put(p, memory);
  probe_first_byte(p, memory + OBJECT_BYTES);
  probe_throughput(p, memory);
  clean_up(p);
  cli->json ? print_json(p) : print_text(p);
  tr_free(NULL, memory);
  return TR_OK;
}

int store_probe(const tr_cli *cli) {
  probe *p = tr_calloc(NULL, 1, sizeof *p);
  tr_remote remote;
  tr_error error;
  sigset_t signals, before;
  int code = remote_open(&remote, cli);
  if (code == 0 && p != NULL) {
    tr_status status = location_resolve(remote.stores, cli->words[1], &p->at, &error);
    crew_block_signals(&signals, &before);
    if (status == TR_OK) status = run(p, cli, &error);
    if (status != TR_OK) code = remote_failed(&error);
    /* Nothing at all worked: the bucket cannot be used. */
    if (status == TR_OK && p->list.status != TR_OK && p->put.status != TR_OK) code = 1;
    sigprocmask(SIG_SETMASK, &before, NULL);
  }
  remote_close(&remote);
  tr_free(NULL, p);
  return code;
}
