/* Credentials as the engine uses them: a copy, renewed before it expires or when the server refuses it. The source may
 * block (it runs a program, or asks a server), so a thread that lives as long as one question asks it. */
#include <signal.h>
#include <string.h>

#include "s3_private.h"

#define REFRESH_BEFORE_NS INT64_C(300000000000)
#define REFRESH_EVERY_NS  UINT64_C(30000000000)

static bool is_whole(const tr_s3_credentials *credentials) {
  return memchr(credentials->access_key, '\0', sizeof credentials->access_key) != NULL &&
         memchr(credentials->secret_key, '\0', sizeof credentials->secret_key) != NULL &&
         memchr(credentials->session_token, '\0', sizeof credentials->session_token) != NULL &&
         credentials->access_key[0] != '\0' && strpbrk(credentials->access_key, "\r\n") == NULL &&
         strpbrk(credentials->session_token, "\r\n") == NULL;
}

static tr_status ask(s3_store *store, bool renew, tr_error *error) {
  tr_s3_credentials got = {0};
  tr_status status = store->source.get(store->source.self, renew, &got, error);
  if (status == TR_OK && !is_whole(&got)) {
    status = tr_fail(error, TR_ERR_CONFIG, "s3: the credentials have no access key, or one that is no such thing");
  }
  if (status == TR_OK) {
    pthread_mutex_lock(&store->lock);
    store->credentials = got;
    store->credentials_version++;
    pthread_mutex_unlock(&store->lock);
  }
  explicit_bzero(&got, sizeof got);
  return status;
}

tr_status s3_credentials_first(s3_store *store, tr_error *error) {
  return store->sign ? ask(store, false, error) : TR_OK;
}

static void *thread_main(void *argument) {
  s3_store *store = argument;
  tr_error error = {.status = TR_OK, .rank = -1};
  const tr_status status = ask(store, store->fetch_renew, &error);
  pthread_mutex_lock(&store->lock);
  store->fetch_status = status;
  store->fetch_error = error;
  store->fetched = true;
  pthread_mutex_unlock(&store->lock);
  s3_sockets_wake(store);
  return NULL;
}

void s3_credentials_renew(s3_store *store, bool renew) {
  if (store->fetching) return;
  sigset_t all, before;
  store->fetch_renew = renew;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&store->fetch_thread, NULL, thread_main, store);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  store->fetching = true;
  if (code == 0) {
    store->fetch_joinable = true;
    return;
  }
  store->fetch_status = tr_fail_errno(&store->fetch_error, TR_ERR_IO, code, "s3: starting a thread");
  store->fetched = true;
}

static void wake_parked(s3_store *store, tr_status status, const tr_error *error) {
  for (uint32_t i = 0; i < store->slot_count; i++) {
    s3_slot *slot = &store->slots[i];
    if (slot->state != S3_SLOT_PARKED) continue;
    if (status == TR_OK) {
      s3_slot_resend(slot);
    } else {
      slot->job->request->error = *error;
      s3_job_slot_done(store, slot, status);
    }
  }
}

static void begin_early(s3_store *store, uint64_t now_ns) {
  if (!store->sign || now_ns < store->refresh_due_ns) return;
  pthread_mutex_lock(&store->lock);
  const int64_t expires = store->credentials.expires_ns;
  pthread_mutex_unlock(&store->lock);
  if (expires == 0 || tr_clock_wall_ns(store->clock) + REFRESH_BEFORE_NS < expires) return;
  store->refresh_due_ns = now_ns + REFRESH_EVERY_NS;
  s3_credentials_renew(store, tr_clock_wall_ns(store->clock) >= expires);
}

void s3_credentials_poll(s3_store *store, uint64_t now_ns) {
  if (!store->fetching) {
    begin_early(store, now_ns);
    return;
  }
  pthread_mutex_lock(&store->lock);
  const bool fetched = store->fetched;
  const tr_status status = store->fetch_status;
  const tr_error error = store->fetch_error;
  pthread_mutex_unlock(&store->lock);
  if (!fetched) return;
  if (store->fetch_joinable) pthread_join(store->fetch_thread, NULL);
  store->fetching = store->fetched = store->fetch_joinable = false;
  if (status != TR_OK)
    tr_logf(store->log, TR_LOG_WARNING, "renewing the credentials of s3://%s: %s", store->bucket, error.message);
  wake_parked(store, status, &error);
}

void s3_credentials_fini(s3_store *store) {
  if (store->fetch_joinable) pthread_join(store->fetch_thread, NULL);
  explicit_bzero(&store->credentials, sizeof store->credentials);
}
