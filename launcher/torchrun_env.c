/* What torchrun gives its workers, so that a script written for it runs unchanged.
 *
 * TORCHELASTIC_USE_AGENT_STORE is "False": rank 0 itself serves the store at MASTER_ADDR:MASTER_PORT, as env:// rendezvous
 * does wherever no agent says otherwise. Each attempt gets a new port, since the old one may linger. */
#include "environment.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void torchrun_environment(tr_environment *environment, const torchrun_place *place) {
  environment_set(environment, "RANK", "%d", place->rank);
  environment_set(environment, "WORLD_SIZE", "%d", place->world_size);
  environment_set(environment, "LOCAL_RANK", "%d", place->local_rank);
  environment_set(environment, "LOCAL_WORLD_SIZE", "%d", place->local_world_size);
  environment_set(environment, "GROUP_RANK", "%d", place->group_rank);
  environment_set(environment, "GROUP_WORLD_SIZE", "%d", place->group_world_size);
  environment_set(environment, "ROLE_RANK", "%d", place->rank);
  environment_set(environment, "ROLE_WORLD_SIZE", "%d", place->world_size);
  environment_set(environment, "ROLE_NAME", "%s", "default");
  environment_set(environment, "MASTER_ADDR", "%s", place->master_address);
  environment_set(environment, "MASTER_PORT", "%u", (unsigned)place->master_port);
  environment_set(environment, "TORCHELASTIC_RESTART_COUNT", "%llu", (unsigned long long)place->restarts);
  environment_set(environment, "TORCHELASTIC_MAX_RESTARTS", "%llu", (unsigned long long)place->max_restarts);
  environment_set(environment, "TORCHELASTIC_RUN_ID", "%s", place->run_id);
  environment_set(environment, "TORCHELASTIC_USE_AGENT_STORE", "%s", "False");
  environment_set(environment, "TORCHELASTIC_ERROR_FILE", "%s", place->error_file);
  if (environment_get(environment, "TORCH_NCCL_ASYNC_ERROR_HANDLING") == NULL) {
    environment_set(environment, "TORCH_NCCL_ASYNC_ERROR_HANDLING", "1");
  }
  if (place->local_world_size > 1 && environment_get(environment, "OMP_NUM_THREADS") == NULL) {
    environment_set(environment, "OMP_NUM_THREADS", "1");
  }
  /* Not torchrun's: a pipe must not hold back what a script prints until its end. */
  if (environment_get(environment, "PYTHONUNBUFFERED") == NULL) environment_set(environment, "PYTHONUNBUFFERED", "1");
}

uint16_t torchrun_free_port(void) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}};
  socklen_t bytes = sizeof address;
  uint16_t port = 0;
  if (descriptor < 0) return 0;
  if (bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0 &&
      getsockname(descriptor, (struct sockaddr *)&address, &bytes) == 0) {
    port = ntohs(address.sin_port);
  }
  close(descriptor);
  return port;
}
