/* Why somebody waited for a batch: split at the moment at which the last bytes arrived. Before it the wait is charged to
 * what the request for them went through in that time, after it to decoding. What no one waited for is free. Pure. */
#ifndef TRAINRUN_DATALOADER_ACCOUNT_H
#define TRAINRUN_DATALOADER_ACCOUNT_H

#include <trainrun/dataloader.h>

/* A request, as its times tell (see tr_store_request). done_ns 0: nothing was read. */
typedef struct dl_arrival {
  uint64_t submitted_ns, first_byte_ns, done_ns, throttled_ns, retry_ns;
} dl_arrival;

dl_arrival dl_arrival_of(const tr_store_request *request);
/* Charges the wait [begin_ns, end_ns): every nanosecond once. `spent`: reads that were done while decoding, which come
 * out of what would be decoding. */
void dl_account_wait(tr_wait_account *account, const dl_arrival *arrival, const tr_wait_account *spent,
                     uint64_t begin_ns, uint64_t end_ns);
/* The whole time of one request, which was waited for. */
void dl_account_request(tr_wait_account *account, const tr_store_request *request, uint64_t begin_ns, uint64_t end_ns);

#endif
