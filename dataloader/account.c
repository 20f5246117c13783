/* Splitting waits: see account.h. */
#include "account.h"

enum { THROTTLED, RETRY, FIRST_BYTE, BANDWIDTH, CAUSES };

dl_arrival dl_arrival_of(const tr_store_request *request) {
  return (dl_arrival){.submitted_ns = request->submitted_ns,
                      .first_byte_ns = request->first_byte_ns,
                      .done_ns = request->done_ns,
                      .throttled_ns = request->throttled_ns,
                      .retry_ns = request->retry_ns};
}

static uint64_t *entry(tr_wait_account *account, int cause) {
  uint64_t *const entries[CAUSES] = {&account->throttled_ns, &account->retry_ns, &account->first_byte_ns,
                                     &account->bandwidth_ns};
  return entries[cause];
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* How long the request was in each of them; they add up to done_ns - submitted_ns. */
static void durations_of(const dl_arrival *arrival, uint64_t durations[CAUSES]) {
  uint64_t left = arrival->done_ns > arrival->submitted_ns ? arrival->done_ns - arrival->submitted_ns : 0;
  durations[THROTTLED] = least(arrival->throttled_ns, left);
  left -= durations[THROTTLED];
  durations[RETRY] = least(arrival->retry_ns, left);
  left -= durations[RETRY];
  const uint64_t before = durations[THROTTLED] + durations[RETRY];
  uint64_t first = arrival->first_byte_ns > arrival->submitted_ns ? arrival->first_byte_ns - arrival->submitted_ns : 0;
  first = first > before ? first - before : 0;
  durations[FIRST_BYTE] = least(first, left);
  durations[BANDWIDTH] = left - durations[FIRST_BYTE];
}

/* A span of time charged in the proportions of `durations`, to the last nanosecond. */
static void charge_alike(tr_wait_account *account, const uint64_t durations[CAUSES], uint64_t wait_ns) {
  double whole = 0;
  int largest = 0;
  for (int i = 0; i < CAUSES; i++) {
    whole += (double)durations[i];
    if (durations[i] > durations[largest]) largest = i;
  }
  uint64_t left = wait_ns;
  for (int i = 0; i < CAUSES && whole > 0; i++) {
    const uint64_t part = least((uint64_t)((double)wait_ns * ((double)durations[i] / whole)), left);
    *entry(account, i) += part;
    left -= part;
  }
  *(whole > 0 ? entry(account, largest) : &account->other_ns) += left;
}

/* [begin_ns, end_ns) lies before the arrival. While it had not been asked for it waited behind others of its kind, so that
 * time is charged as its own was; then the parts of its life follow each other, waiting to be let in first. */
static void charge_arrival(tr_wait_account *account, const dl_arrival *arrival, uint64_t begin_ns, uint64_t end_ns) {
  uint64_t durations[CAUSES];
  durations_of(arrival, durations);
  if (begin_ns < arrival->submitted_ns) {
    const uint64_t queued_until = least(arrival->submitted_ns, end_ns);
    charge_alike(account, durations, queued_until - begin_ns);
    begin_ns = queued_until;
  }
  uint64_t at = arrival->submitted_ns;
  for (int i = 0; i < CAUSES && begin_ns < end_ns; i++) {
    at += durations[i];
    if (at <= begin_ns) continue;
    const uint64_t until = least(at, end_ns);
    *entry(account, i) += until - begin_ns;
    begin_ns = until;
  }
  account->other_ns += end_ns - begin_ns;
}

void dl_account_wait(tr_wait_account *account, const dl_arrival *arrival, const tr_wait_account *spent,
                     uint64_t begin_ns, uint64_t end_ns) {
  const uint64_t arrived_ns = arrival->done_ns > begin_ns ? least(arrival->done_ns, end_ns) : begin_ns;
  if (arrived_ns > begin_ns) charge_arrival(account, arrival, begin_ns, arrived_ns);
  const uint64_t reads[CAUSES] = {spent->throttled_ns, spent->retry_ns, spent->first_byte_ns, spent->bandwidth_ns};
  const uint64_t read_ns = least(end_ns - arrived_ns,
                                 reads[THROTTLED] + reads[RETRY] + reads[FIRST_BYTE] + reads[BANDWIDTH]);
  if (read_ns > 0) charge_alike(account, reads, read_ns);
  account->decode_ns += end_ns - arrived_ns - read_ns;
}

void dl_account_request(tr_wait_account *account, const tr_store_request *request, uint64_t begin_ns, uint64_t end_ns) {
  dl_arrival arrival = dl_arrival_of(request);
  arrival.submitted_ns = begin_ns;
  arrival.done_ns = end_ns;
  uint64_t durations[CAUSES];
  durations_of(&arrival, durations);
  for (int i = 0; i < CAUSES; i++) *entry(account, i) += durations[i];
}
