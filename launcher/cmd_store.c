/* trainrun store: what is in a bucket or folder, and taking it away. Copying is in store_get.c and store_put.c. */
#include "location.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crew.h"

int cmd_store(const tr_cli *cli) { return cli_verb_run(cli); }

/* ---- ls ---------------------------------------------------------------------------------------------------------- */

typedef struct ls_call {
  const tr_cli *cli;
  tr_remote remote;
  tr_location at;
} ls_call;

static void print_json(const ls_call *call, const char *name, const tr_object_info *info) {
  char url[2 * TR_KEY_BYTES], when[32];
  tr_writer line;
  tr_writer_init(&line, NULL);
  location_url_of(&call->at, name, url, sizeof url);
  tr_write_text(&line, "{\"name\": ");
  tr_write_json_string(&line, name);
  tr_write_text(&line, ", \"url\": ");
  tr_write_json_string(&line, call->at.kind == LOCATION_OBJECT ? call->at.url : url);
  if (info == NULL) {
    tr_write_text(&line, ", \"folder\": true}\n");
  } else {
    tr_time_format(info->modified_ns, when);
    tr_write_text(&line, ", \"bytes\": %" PRIu64 ", \"modified\": \"%s\", \"etag\": ", info->bytes, when);
    tr_write_json_string(&line, info->etag);
    tr_write_text(&line, "}\n");
  }
  if (!line.failed) fwrite(line.data, 1, line.bytes, stdout);
  tr_writer_fini(&line);
}

static void print_object(const ls_call *call, const char *name, const tr_object_info *info) {
  char when[32], size[32];
  if (call->cli->json) {
    print_json(call, name, info);
    return;
  }
  tr_time_format(info->modified_ns, when);
  when[10] = ' ';
  when[19] = '\0';
  if (call->cli->human) {
    tr_format_bytes(info->bytes, size);
  } else {
    snprintf(size, sizeof size, "%" PRIu64, info->bytes);
  }
  printf("%s %12s %s\n", when, size, name);
}

static void print_folder(const ls_call *call, const char *name) {
  if (call->cli->json) {
    print_json(call, name, NULL);
  } else {
    printf("%32s %s\n", "PRE", name);
  }
}

static tr_status list_folder(const ls_call *call, tr_error *error) {
  tr_listing listing;
  const tr_list_entry *entry = NULL;
  const size_t skipped = strlen(call->at.prefix);
  tr_status status;
  listing_begin(&listing, call->at.store, call->at.prefix);
  while ((status = listing_next(&listing, &entry, error)) == TR_OK && entry != NULL) {
    const char *name = entry->key + skipped, *slash = strchr(name, '/');
    if (call->cli->recursive || slash == NULL) {
      if (name[0] != '\0') print_object(call, name, &entry->info);
      continue;
    }
    char folder[TR_KEY_BYTES];
    snprintf(folder, sizeof folder, "%.*s", (int)(slash + 1 - entry->key), entry->key);
    print_folder(call, folder + skipped);
    listing_skip(&listing, folder);
  }
  listing_end(&listing);
  return status;
}

int store_ls(const tr_cli *cli) {
  ls_call call = {.cli = cli};
  tr_error error;
  int code = remote_open(&call.remote, cli);
  if (code == 0) {
    tr_status status = location_find(call.remote.stores, cli->words[1], cli->recursive, &call.at, &error);
    if (status == TR_OK && call.at.kind == LOCATION_NOTHING) status = location_missing(&call.at, &error);
    if (status == TR_OK && call.at.kind == LOCATION_OBJECT) {
      const char *slash = strrchr(call.at.key, '/');
      print_object(&call, slash != NULL ? slash + 1 : call.at.key, &call.at.info);
    } else if (status == TR_OK) {
      status = list_folder(&call, &error);
    }
    if (status != TR_OK) code = remote_failed(&error);
  }
  remote_close(&call.remote);
  return code;
}

/* ---- rm ---------------------------------------------------------------------------------------------------------- */

typedef struct rm_call {
  const tr_cli *cli;
  tr_remote remote;
  tr_location at;
  tr_listing listing;
  atomic_bool stop;
  uint64_t removed;
} rm_call;

typedef struct rm_piece {
  char key[TR_KEY_BYTES];
} rm_piece;

static tr_status rm_next(void *self, void *piece, bool *end, tr_error *error) {
  rm_call *call = self;
  const tr_list_entry *entry = NULL;
  TR_TRY(listing_next(&call->listing, &entry, error));
  *end = entry == NULL;
  if (entry != NULL) snprintf(((rm_piece *)piece)->key, TR_KEY_BYTES, "%s", entry->key);
  return TR_OK;
}

static tr_status rm_one(void *self, void *piece, tr_error *error) {
  rm_call *call = self;
  return call->cli->dry_run ? TR_OK : tr_store_delete(call->at.store, ((rm_piece *)piece)->key, error);
}

static void say_removed(rm_call *call, const char *url) {
  call->removed++;
  if (call->cli->json) {
    tr_writer line;
    tr_writer_init(&line, NULL);
    tr_write_text(&line, "{\"url\": ");
    tr_write_json_string(&line, url);
    tr_write_text(&line, ", \"removed\": %s}\n", call->cli->dry_run ? "false" : "true");
    if (!line.failed) fwrite(line.data, 1, line.bytes, stdout);
    tr_writer_fini(&line);
  } else if (!call->cli->quiet) {
    printf("%s %s\n", call->cli->dry_run ? "would remove" : "removed", url);
  }
}

static tr_status rm_take(void *self, void *piece, tr_error *error) {
  rm_call *call = self;
  char url[2 * TR_KEY_BYTES];
  (void)error;
  location_url_of(&call->at, ((rm_piece *)piece)->key + strlen(call->at.prefix), url, sizeof url);
  say_removed(call, url);
  return TR_OK;
}

static int remove_folder(rm_call *call) {
  uint64_t threads = 16;
  tr_error error;
  if (call->at.local && call->at.key[0] == '\0') {
    fprintf(stderr, "trainrun: '%s' is the root of this machine's files; it is not removed\n", call->at.url);
    return EXIT_USAGE;
  }
  if (!call->cli->recursive) {
    fprintf(stderr, "trainrun: '%s' is a folder of objects; --recursive removes all of it (--dry-run shows what)\n",
            call->at.url);
    return EXIT_USAGE;
  }
  if (call->cli->jobs != NULL && (!tr_parse_u64(call->cli->jobs, &threads) || threads == 0 || threads > 64))
    threads = 16;
  listing_begin(&call->listing, call->at.store, call->at.prefix);
  const tr_crew_job job = {.self = call,
                           .threads = (uint32_t)threads,
                           .window = (uint32_t)threads * 4,
                           .piece_bytes = sizeof(rm_piece),
                           .next = rm_next,
                           .work = rm_one,
                           .take = rm_take,
                           .stop = &call->stop};
  const tr_status status = crew_run(&job, &error);
  listing_end(&call->listing);
  if (status == TR_OK) return 0;
  fprintf(stderr, "trainrun: %s\n", error.message);
  return crew_exit_code(&error);
}

int store_rm(const tr_cli *cli) {
  rm_call call = {.cli = cli};
  tr_error error;
  int code = remote_open(&call.remote, cli);
  if (code == 0) {
    tr_status status = location_find(call.remote.stores, cli->words[1], cli->recursive, &call.at, &error);
    if (status == TR_OK && call.at.kind == LOCATION_NOTHING) status = location_missing(&call.at, &error);
    if (status == TR_OK && call.at.kind == LOCATION_FOLDER) {
      code = remove_folder(&call);
    } else if (status == TR_OK) {
      if (!cli->dry_run) status = tr_store_delete(call.at.store, call.at.key, &error);
      if (status == TR_OK) say_removed(&call, call.at.url);
    }
    if (status != TR_OK) code = remote_failed(&error);
  }
  remote_close(&call.remote);
  return code;
}
