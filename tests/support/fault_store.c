/* The failing store; see fault_store.h. A request that is passed on is a copy, so that its results can be spoilt before
 * the caller sees them. */
#include "support/fault_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fault_store {
  tr_store *inner;
  bool own_inner;
  const tr_store_ops *ops;
  void *self; /* the inner store's */
  ts_faults *faults;
} fault_store;

typedef struct passed_on {
  tr_store_request copy;
  tr_store_request *original;
  fault_store *store;
  bool short_read, flip, repeat;
} passed_on;

static uint64_t count(uint64_t *counter) { return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

static bool hits(const ts_faults *faults, uint64_t number, uint64_t at) {
  return at != 0 && (number == at || (faults->forever && number > at));
}

static tr_status fault(const ts_faults *faults, const char *what, uint64_t number, tr_error *error) {
  const tr_status status = faults->status != TR_OK ? faults->status : TR_ERR_IO;
  return tr_fail(error, status, "fault store: %s number %llu fails", what, (unsigned long long)number);
}

/* TR_OK, or the failure ordered for this request; sets what is to be spoilt or lost. */
static tr_status judge(ts_faults *faults, const tr_store_request *request, passed_on *passed, bool *lost,
                       tr_error *error) {
  if (faults->delay_ns > 0) tr_clock_sleep_ns(NULL, faults->delay_ns);
  const uint64_t any = count(&faults->any);
  uint64_t number = 0, at = 0;
  const char *what = "";
  switch (request->verb) {
    case TR_STORE_GET:
      number = count(&faults->gets), at = faults->fail_get, what = "get";
      passed->short_read = hits(faults, number, faults->short_get);
      passed->flip = hits(faults, number, faults->flip_get);
      break;
    case TR_STORE_PUT:
    case TR_STORE_PART:
      number = count(&faults->puts), at = faults->fail_put, what = "put";
      *lost = hits(faults, number, faults->lose_put);
      passed->repeat = hits(faults, number, faults->repeat_put);
      break;
    case TR_STORE_HEAD: number = count(&faults->heads), at = faults->fail_head, what = "head"; break;
    case TR_STORE_DELETE: number = count(&faults->deletes), at = faults->fail_delete, what = "delete"; break;
  }
  if (hits(faults, number, at)) return fault(faults, what, number, error);
  if (hits(faults, any, faults->fail_any)) return fault(faults, what, number, error);
  return TR_OK;
}

static void finish(passed_on *passed) {
  tr_store_request *original = passed->original;
  const tr_store_request *copy = &passed->copy;
  original->status = copy->status;
  original->error = copy->error;
  original->bytes = copy->bytes;
  original->info = copy->info;
  original->submitted_ns = copy->submitted_ns;
  original->first_byte_ns = copy->first_byte_ns;
  original->done_ns = copy->done_ns;
  if (copy->status != TR_OK || copy->verb != TR_STORE_GET) return;
  if (passed->short_read) original->bytes /= 2;
  if (passed->flip && original->bytes > 0) ((unsigned char *)original->buffer)[original->bytes / 2] ^= 0x10;
  __atomic_add_fetch(&passed->store->faults->bytes_read, original->bytes, __ATOMIC_RELAXED);
}

static void begin_flight(ts_faults *faults) {
  const uint64_t now = count(&faults->in_flight);
  uint64_t most = __atomic_load_n(&faults->most_in_flight, __ATOMIC_RELAXED);
  while (now > most &&
         !__atomic_compare_exchange_n(&faults->most_in_flight, &most, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static void end_flight(ts_faults *faults) { __atomic_sub_fetch(&faults->in_flight, 1, __ATOMIC_RELAXED); }

static void inner_done(tr_store_request *copy) {
  passed_on *passed = copy->user;
  tr_store_request *original = passed->original;
  if (passed->store->faults->hold_ns > 0) tr_clock_sleep_ns(NULL, passed->store->faults->hold_ns);
  end_flight(passed->store->faults);
  finish(passed);
  free(passed);
  original->done(original);
}

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  fault_store *store = self;
  passed_on *passed = calloc(1, sizeof *passed);
  if (passed == NULL) return tr_fail_memory(error, "a request", sizeof *passed);
  bool lost = false;
  request->status = judge(store->faults, request, passed, &lost, &request->error);
  if (request->status != TR_OK || lost) {
    if (lost) request->bytes = request->data_bytes;
    free(passed);
    request->done(request);
    return TR_OK;
  }
  passed->copy = *request;
  passed->copy.done = inner_done;
  passed->copy.user = passed;
  passed->original = request;
  passed->store = store;
  begin_flight(store->faults);
  const tr_status status = store->ops->submit(store->self, &passed->copy, error);
  if (status != TR_OK) {
    end_flight(store->faults);
    free(passed);
  }
  return status;
}

static void run(void *self, tr_store_request *request) {
  fault_store *store = self;
  passed_on passed = {.original = request, .store = store};
  bool lost = false;
  request->status = judge(store->faults, request, &passed, &lost, &request->error);
  if (lost) request->bytes = request->data_bytes;
  if (request->status != TR_OK || lost) return;
  for (int turn = passed.repeat ? 0 : 1; turn < 2; turn++) {
    passed.copy = *request;
    store->ops->run(store->self, &passed.copy);
  }
  finish(&passed);
}

static tr_status list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                      tr_error *error) {
  fault_store *store = self;
  const uint64_t number = count(&store->faults->lists), any = count(&store->faults->any);
  if (hits(store->faults, number, store->faults->fail_list) || hits(store->faults, any, store->faults->fail_any)) {
    return fault(store->faults, "list", number, error);
  }
  return store->ops->list(store->self, prefix, after, max_keys, page, error);
}

static void list_free(void *self, tr_list_page *page) {
  fault_store *store = self;
  store->ops->list_free(store->self, page);
}

static tr_status upload_begin(void *self, const char *key, void **upload, tr_error *error) {
  fault_store *store = self;
  return store->ops->upload_begin(store->self, key, upload, error);
}

static tr_status upload_commit(void *self, void *upload, bool if_absent, tr_error *error) {
  fault_store *store = self;
  const uint64_t number = count(&store->faults->commits), any = count(&store->faults->any);
  if (hits(store->faults, number, store->faults->fail_commit) || hits(store->faults, any, store->faults->fail_any)) {
    store->ops->upload_abort(store->self, upload);
    return fault(store->faults, "commit", number, error);
  }
  return store->ops->upload_commit(store->self, upload, if_absent, error);
}

static void upload_abort(void *self, void *upload) {
  fault_store *store = self;
  store->ops->upload_abort(store->self, upload);
}

static tr_status upload_sweep(void *self, const char *prefix, tr_error *error) {
  fault_store *store = self;
  count(&store->faults->sweeps);
  return store->ops->upload_sweep != NULL ? store->ops->upload_sweep(store->self, prefix, error) : TR_OK;
}

static void destroy(void *self) {
  fault_store *store = self;
  if (store->own_inner) tr_store_destroy(store->inner);
  free(store);
}

tr_store *ts_fault_store(tr_store *inner, bool own_inner, ts_faults *faults) {
  fault_store *store = calloc(1, sizeof *store);
  tr_store *made = NULL;
  if (store != NULL) {
    *store = (fault_store){.inner = inner, .own_inner = own_inner, .faults = faults};
    store->ops = tr_store_vtable(inner, &store->self);
    const tr_store_ops ops = {
        .struct_bytes = sizeof ops,
        .name = "fault",
        .submit = submit,
        .run = store->ops->run != NULL ? run : NULL,
        .list = list,
        .list_free = list_free,
        .upload_begin = upload_begin,
        .upload_commit = upload_commit,
        .upload_abort = upload_abort,
        .upload_sweep = upload_sweep,
        .part_bytes_min = store->ops->part_bytes_min,
        .destroy = destroy,
    };
    if (tr_store_create(NULL, &ops, store, &made, NULL) == TR_OK) return made;
  }
  fprintf(stderr, "fault store: out of memory\n");
  exit(1);
}
