/* What `store get` and `store put` share: see store_copy.h. */
#include "store_copy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "object_out.h"

enum { MIB = 1 << 20, PART_BYTES = 8 * MIB, POOL_BYTES = 256 * MIB, THREADS = 16, THREADS_MAX = 64 };

void copy_make_buffers(tr_copy *copy, uint64_t largest_bytes) {
  const uint64_t least = (largest_bytes / OBJECT_PARTS_MAX + MIB) / MIB * MIB;
  const uint64_t bytes = least > PART_BYTES ? least : PART_BYTES, count = POOL_BYTES / bytes;
  buffers_init(&copy->buffers, (size_t)bytes, (uint32_t)(count > 2 ? count : 2));
}

/* What consoles make to show an empty folder is no object that a file could be. */
static bool is_marker(const char *key) { return key[strlen(key) - 1] == '/'; }

static tr_status count(tr_copy *copy, uint64_t *largest, tr_error *error) {
  const tr_list_entry *entry = NULL;
  tr_listing listing;
  listing_begin(&listing, copy->from.store, copy->from.prefix);
  tr_status status;
  while ((status = listing_next(&listing, &entry, error)) == TR_OK && entry != NULL) {
    if (is_marker(entry->key)) continue;
    copy->objects++;
    copy->bytes += entry->info.bytes;
    if (entry->info.bytes > *largest) *largest = entry->info.bytes;
  }
  listing_end(&listing);
  return status;
}

tr_status copy_begin(tr_copy *copy, tr_error *error) {
  uint64_t largest = copy->from.info.bytes;
  if (copy->from.kind == LOCATION_NOTHING) return location_missing(&copy->from, error);
  if (copy->from.kind == LOCATION_OBJECT) {
    copy->objects = 1;
    copy->bytes = largest;
  } else {
    TR_TRY(count(copy, &largest, error));
    listing_begin(&copy->listing, copy->from.store, copy->from.prefix);
  }
  copy_make_buffers(copy, largest);
  return TR_OK;
}

static tr_status next(void *self, void *piece, bool *end, tr_error *error) {
  tr_copy *copy = self;
  tr_copy_item *item = piece;
  if (copy->from.kind == LOCATION_OBJECT) {
    const char *slash = strrchr(copy->from.key, '/');
    *end = copy->handed;
    copy->handed = true;
    snprintf(item->key, sizeof item->key, "%s", copy->from.key);
    snprintf(item->name, sizeof item->name, "%s", slash != NULL ? slash + 1 : copy->from.key);
    item->info = copy->from.info;
    return TR_OK;
  }
  const tr_list_entry *entry = NULL;
  do {
    TR_TRY(listing_next(&copy->listing, &entry, error));
  } while (entry != NULL && is_marker(entry->key));
  *end = entry == NULL;
  if (entry == NULL) return TR_OK;
  snprintf(item->key, sizeof item->key, "%s", entry->key);
  snprintf(item->name, sizeof item->name, "%s", entry->key + strlen(copy->from.prefix));
  item->info = entry->info;
  return TR_OK;
}

void copy_summary(const tr_copy *copy) {
  char amount[32], rate[48];
  if (copy->cli->quiet) return;
  const uint64_t objects = copy->copied_objects, bytes = copy->copied_bytes, skipped = copy->skipped_objects;
  const double seconds = progress_seconds(&copy->progress);
  if (copy->cli->json) {
    printf("{\"objects\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"skipped\": %" PRIu64 ", \"time_s\": %.6f}\n", objects,
           bytes, skipped, seconds);
    return;
  }
  if (objects == 0 && skipped > 0) {
    fprintf(stderr, "nothing to do: %" PRIu64 " object%s there already (--force copies again)\n", skipped,
            skipped == 1 ? " is" : "s are");
    return;
  }
  tr_format_bytes(bytes, amount);
  progress_rate(bytes, seconds, rate);
  fprintf(stderr, "%s %" PRIu64 " object%s, %s in %.1f s (%s)", strcmp(copy->verb, "get") == 0 ? "got" : "put", objects,
          objects == 1 ? "" : "s", amount, seconds, rate);
  if (skipped > 0) fprintf(stderr, "; %" PRIu64 " already there", skipped);
  fprintf(stderr, "\n");
}

static uint32_t thread_count(const tr_cli *cli, uint64_t objects) {
  uint64_t wanted = THREADS;
  if (cli->jobs != NULL && tr_parse_u64(cli->jobs, &wanted) && wanted > THREADS_MAX) wanted = THREADS_MAX;
  if (wanted > objects) wanted = objects;
  return (uint32_t)(wanted > 0 ? wanted : 1);
}

int copy_run(tr_copy *copy, tr_status (*work)(void *self, void *item, tr_error *error)) {
  tr_error error;
  const uint32_t threads = thread_count(copy->cli, copy->objects);
  progress_begin(&copy->progress, copy->cli, copy->verb, "objects", copy->bytes, copy->objects);
  const tr_crew_job job = {.self = copy,
                           .threads = threads,
                           .window = threads,
                           .piece_bytes = sizeof(tr_copy_item),
                           .next = next,
                           .work = work,
                           .progress = &copy->progress,
                           .stop = &copy->stop};
  const tr_status status = crew_run(&job, &error);
  listing_end(&copy->listing);
  progress_end(&copy->progress);
  if (status == TR_OK) {
    copy_summary(copy);
    return 0;
  }
  fprintf(stderr, "trainrun: %s\n", error.message);
  const uint64_t done = copy->copied_objects + copy->skipped_objects;
  fprintf(stderr, "  %" PRIu64 " of %" PRIu64 " object%s done; the same command goes on with the rest\n", done,
          copy->objects, copy->objects == 1 ? " is" : "s are");
  return crew_exit_code(&error);
}
