/* Questions of the store itself (lists, uploads): they go through the engine as requests do, and block who asks. */
#include <string.h>

#include "s3_private.h"

static void on_done(tr_store_request *request) {
  s3_ask *ask = request->user;
  s3_store *store = request->private_store;
  pthread_mutex_lock(&store->lock);
  ask->done = true;
  pthread_cond_broadcast(&store->answered);
  pthread_mutex_unlock(&store->lock);
}

tr_status s3_ask_run(s3_store *store, s3_ask *ask, tr_error *error) {
  ask->request = (tr_store_request){.struct_bytes = sizeof ask->request,
                                    .verb = S3_ASK,
                                    .key = ask->call.key,
                                    .done = on_done,
                                    .user = ask,
                                    .private_store = store};
  ask->done = false;
  TR_TRY(s3_engine_submit(store, &ask->request, error));
  pthread_mutex_lock(&store->lock);
  while (!ask->done) pthread_cond_wait(&store->answered, &store->lock);
  pthread_mutex_unlock(&store->lock);
  if (error != NULL && ask->request.status != TR_OK) *error = ask->request.error;
  return ask->request.status;
}

void s3_ask_fini(s3_store *store, s3_ask *ask) {
  tr_free(store->allocator, ask->answer);
  ask->answer = NULL;
  ask->answer_bytes = ask->answer_capacity = 0;
}
