/* The smallest SDK program: every rank gives 1, all get the number of ranks.
 *
 *   trainrun --workers 2 build/examples/hello_allreduce        or alone, or under mpirun -np 2 */
#include <stdio.h>
#include <trainrun/trainrun.h>

int main(int argc, char **argv) {
  tr_session *session = NULL;
  tr_error error = {.status = TR_OK};
  tr_status status = tr_session_open(argc, argv, NULL, &session, &error);
  if (status == TR_OK) {
    float sum = 1;
    status = tr_comm_all_reduce(tr_session_comm(session), &sum, 1, TR_F32, TR_SUM, NULL, &error);
    if (status == TR_OK) {
      printf("hello from rank %d of %d: the sum is %g\n", tr_session_rank(session), tr_session_size(session), sum);
    }
  }
  if (status != TR_OK && status != TR_ERR_CANCELLED) fprintf(stderr, "hello_allreduce: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
