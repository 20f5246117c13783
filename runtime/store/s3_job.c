/* A request under way: cut into exchanges, put together again, completed. Large reads are parts that several connections
 * fetch into the one buffer, all of them of one version of the object. */
#include <string.h>

#include "s3_private.h"

/* Of one read at a time, so that a few large ones do not hold every connection. */
enum { PARTS_AT_ONCE = 16 };

/* Reads that cannot bring a byte ask for the head alone: nothing is wanted, or past any object. */
static bool is_head_only(const tr_store_request *request) {
  return request->verb == TR_STORE_GET && (request->buffer_bytes == 0 || request->offset > INT64_MAX);
}

static size_t limit_of(const s3_job *job) { return job->known ? job->limit_bytes : job->request->buffer_bytes; }

bool s3_job_has_more(const s3_job *job) {
  if (job->failure != TR_OK) return false;
  if (job->request->verb != TR_STORE_GET || is_head_only(job->request)) return !job->begun;
  if (!job->begun) return true;
  return job->whole && job->issued_bytes < limit_of(job) && job->slots < PARTS_AT_ONCE;
}

/* Sizes of parts are whole megabytes, so that there are at most S3_PARTS of them. */
static size_t choose_part_bytes(size_t wanted) {
  const size_t megabyte = (size_t)1 << 20;
  const size_t least = (wanted / S3_PARTS / megabyte + 1) * megabyte;
  return least > S3_PART_BYTES ? least : S3_PART_BYTES;
}

static void start_read(s3_store *store, s3_job *job) {
  const tr_store_request *request = job->request;
  uint64_t bytes = 0;
  job->begun = job->known = job->has_crc = false;
  job->issued_bytes = 0;
  job->part_bytes = choose_part_bytes(request->buffer_bytes);
  job->whole = request->if_match != NULL;
  job->info = (tr_object_info){0};
  if (request->if_match != NULL && s3_known_find(store, request->key, request->if_match, &bytes, &job->crc)) {
    job->has_crc = request->offset == 0 && bytes <= request->buffer_bytes;
  }
}

void s3_job_begin(s3_store *store, s3_job *job, tr_store_request *request) {
  const tr_store_priority priority = request->priority;
  *job = (s3_job){.request = request};
  if (request->verb == TR_STORE_GET) start_read(store, job);
  if (store->active_tail[priority] != NULL) {
    store->active_tail[priority]->next_active = job;
  } else {
    store->active_head[priority] = job;
  }
  store->active_tail[priority] = job;
  store->jobs_of[priority]++;
}

static void remove_active(s3_store *store, s3_job *job) {
  const tr_store_priority priority = job->request->priority;
  s3_job *before = NULL;
  for (s3_job *at = store->active_head[priority]; at != job; at = at->next_active) before = at;
  if (before != NULL) {
    before->next_active = job->next_active;
  } else {
    store->active_head[priority] = job->next_active;
  }
  if (store->active_tail[priority] == job) store->active_tail[priority] = before;
  store->jobs_of[priority]--;
}

/* The request is its owner's again with the call of `done`. */
static void complete(s3_store *store, s3_job *job, tr_status status) {
  tr_store_request *request = job->request;
  remove_active(store, job);
  if (status == TR_OK) request->error = (tr_error){.status = TR_OK, .rank = -1};
  request->error.status = request->status = status;
  request->done_ns = s3_now(store);
  const uint64_t whole = request->done_ns - request->submitted_ns;
  if (request->throttled_ns > whole) request->throttled_ns = whole;
  if (request->retry_ns > whole - request->throttled_ns) request->retry_ns = whole - request->throttled_ns;
  job->request = NULL;
  request->done(request);
}

/* ---- Calls --------------------------------------------------------------------------------------------------------- */

static void read_part_call(s3_job *job, s3_slot *slot) {
  const tr_store_request *request = job->request;
  const size_t left = limit_of(job) - job->issued_bytes;
  size_t wanted = left < job->part_bytes ? left : job->part_bytes;
  const uint64_t offset = request->offset + job->issued_bytes;
  /* Servers count in signed 64 bits. */
  if (wanted > (uint64_t)INT64_MAX - offset + 1) wanted = (size_t)((uint64_t)INT64_MAX - offset + 1);
  slot->call = (s3_call){.method = S3_GET, .key = request->key, .ranged = true, .offset = offset, .wanted = wanted};
  slot->into = (char *)request->buffer + job->issued_bytes;
  slot->part_index = job->issued_bytes / job->part_bytes;
  job->issued_bytes += wanted;
  const char *etag = job->known ? job->info.etag : request->if_match;
  if (etag != NULL && strlen(etag) < TR_ETAG_BYTES) strcpy(slot->call.if_match, etag);
}

static tr_status make_call(s3_job *job, s3_slot *slot, tr_error *error) {
  const tr_store_request *request = job->request;
  switch ((int)request->verb) {
    case TR_STORE_GET:
      if (!is_head_only(request)) {
        read_part_call(job, slot);
        return TR_OK;
      }
      slot->call = (s3_call){.method = S3_HEAD, .key = request->key};
      if (request->if_match != NULL && strlen(request->if_match) < TR_ETAG_BYTES) {
        strcpy(slot->call.if_match, request->if_match);
      }
      return TR_OK;
    case TR_STORE_PUT:
    case TR_STORE_PART:
      slot->call = (s3_call){.method = S3_PUT,
                             .key = request->key,
                             .body = request->data,
                             .body_bytes = request->data_bytes,
                             .has_crc = true,
                             .crc = tr_crc32c(0, request->data, request->data_bytes),
                             .if_absent = request->verb == TR_STORE_PUT && request->if_absent};
      return request->verb == TR_STORE_PART ? s3_upload_call(request, &slot->call, slot->part_query, error) : TR_OK;
    case TR_STORE_HEAD: slot->call = (s3_call){.method = S3_HEAD, .key = request->key}; return TR_OK;
    case TR_STORE_DELETE: slot->call = (s3_call){.method = S3_DELETE, .key = request->key}; return TR_OK;
    default: slot->call = ((s3_ask *)request->user)->call; return TR_OK;
  }
}

void s3_job_issue(s3_store *store, s3_job *job, s3_slot *slot) {
  slot->job = job;
  slot->twin = NULL;
  slot->phase = S3_PHASE_MAIN;
  slot->state = S3_SLOT_WAITING;
  slot->retry = (s3_retry){0};
  slot->done_bytes = slot->expected_bytes = 0;
  slot->crc = 0;
  slot->part_index = 0;
  slot->repeated = slot->renewed = slot->skewed = slot->unreachable = false;
  slot->throttled_ns = slot->retry_ns = slot->waits_since_ns = slot->failed_ns = 0;
  job->begun = true;
  job->slots++;
  store->slots_of[job->request->priority]++;
  const tr_status status = make_call(job, slot, &job->request->error);
  if (status != TR_OK) {
    s3_job_slot_done(store, slot, status);
    return;
  }
  if (slot->call.ranged) s3_hedge_count(store);
  s3_slot_send(slot);
}

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

s3_refusal s3_job_check_head(s3_slot *slot) {
  s3_job *job = slot->job;
  s3_reply *reply = &slot->reply;
  const s3_call *call = &slot->call;
  const uint64_t first = call->offset + slot->done_bytes;
  if (reply->http == 206) {
    if (!reply->has_range || reply->range_begin != first) return S3_REFUSAL_NO_RANGE;
  } else {
    /* The whole object, which is right where no more was asked for. */
    if (!reply->has_length || first != 0 || reply->length > call->wanted) return S3_REFUSAL_NO_RANGE;
    reply->total = reply->range_end = reply->length;
  }
  reply->info.bytes = reply->total;
  if (job->known && (strcmp(job->info.etag, reply->info.etag) != 0 || job->info.bytes != reply->total)) {
    return S3_REFUSAL_CHANGED;
  }
  const uint64_t after = reply->total > call->offset ? reply->total - call->offset : 0;
  slot->expected_bytes = after < call->wanted ? (size_t)after : call->wanted;
  if (reply->range_end != call->offset + slot->expected_bytes) return S3_REFUSAL_NO_RANGE;
  if (!job->known) {
    const tr_store_request *request = job->request;
    const uint64_t there = reply->total - request->offset;
    job->info = reply->info;
    job->limit_bytes = there < request->buffer_bytes ? (size_t)there : request->buffer_bytes;
    job->known = job->whole = true;
  }
  if (reply->has_crc && reply->http == 200) {
    job->has_crc = true;
    job->crc = reply->crc;
  }
  return S3_REFUSAL_NONE;
}

/* From the checksums of the parts, which arrived in any order. */
static bool checksum_fits(const s3_job *job) {
  uint32_t crc = 0;
  for (size_t at = 0, part = 0; at < job->limit_bytes; at += job->part_bytes, part++) {
    const size_t left = job->limit_bytes - at;
    const size_t bytes = left < job->part_bytes ? left : job->part_bytes;
    crc = tr_crc32c_combine(crc, job->part_crc[part], bytes);
  }
  return crc == job->crc;
}

/* Every part is there. False: the object is fetched again. */
static bool finish_read(s3_store *store, s3_job *job, tr_status *status) {
  tr_store_request *request = job->request;
  request->info = job->info;
  request->bytes = job->limit_bytes;
  const bool whole = request->offset == 0 && job->limit_bytes == job->info.bytes;
  if (!job->has_crc || !whole || checksum_fits(job)) return true;
  store->retries++;
  if (++job->refetches < store->policy.attempts) {
    start_read(store, job);
    return false;
  }
  char name[200];
  s3_message_name(store, request->key, name, sizeof name);
  *status = tr_fail(&request->error, TR_ERR_CORRUPT,
                    "%s: the bytes do not have the checksum CRC32C %08x that the object should have, %u times; it was "
                    "damaged in the store or on the way",
                    name, (unsigned)job->crc, (unsigned)job->refetches);
  request->bytes = 0;
  return true;
}

static void stop_others(s3_store *store, s3_job *job) {
  for (uint32_t i = 0; i < store->slot_count && job->slots > 0; i++) {
    if (store->slots[i].job == job) s3_slot_release(&store->slots[i]);
  }
}

static void release_with_twin(s3_slot *slot) {
  if (slot->twin != NULL) {
    slot->twin->twin = NULL;
    s3_slot_release(slot->twin);
    slot->twin = NULL;
  }
  s3_slot_release(slot);
}

void s3_job_slot_done(s3_store *store, s3_slot *slot, tr_status failure) {
  s3_job *job = slot->job;
  tr_store_request *request = job->request;
  if (request->first_byte_ns == 0) request->first_byte_ns = slot->first_byte_ns;
  if (slot->throttled_ns > request->throttled_ns) request->throttled_ns = slot->throttled_ns;
  if (slot->retry_ns > request->retry_ns) request->retry_ns = slot->retry_ns;
  job->part_crc[slot->part_index] = slot->crc;
  release_with_twin(slot);
  if (failure != TR_OK) {
    job->failure = failure;
    stop_others(store, job);
    complete(store, job, failure);
    return;
  }
  if (job->slots > 0) return;
  tr_status status = TR_OK;
  if (request->verb == TR_STORE_GET && !is_head_only(request)) {
    if (!job->known || job->issued_bytes < job->limit_bytes) return; /* more parts are to come */
    if (!finish_read(store, job, &status)) return;
  }
  complete(store, job, status);
}
