/* examples/hello_allreduce with a stamp: each rank prints when its first all-reduce was finished, on CLOCK_MONOTONIC. */
#include <stdio.h>
#include <trainrun/trainrun.h>

#include "lib/windows.h"

int main(int argc, char **argv) {
  tr_session *session = NULL;
  tr_error error = {.status = TR_OK};
  tr_status status = tr_session_open(argc, argv, NULL, &session, &error);
  if (status == TR_OK) {
    float sum = 1;
    status = tr_comm_all_reduce(tr_session_comm(session), &sum, 1, TR_F32, TR_SUM, NULL, &error);
    if (status == TR_OK)
      printf("{\"rank\": %d, \"sum\": %g, \"finished_ns\": %llu}\n", tr_session_rank(session), sum,
             (unsigned long long)bench_now_ns());
  }
  if (status != TR_OK) fprintf(stderr, "first_all_reduce: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
