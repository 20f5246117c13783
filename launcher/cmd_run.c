/* trainrun run, trainrun eval: understand the job, open its run, supervise its workers, say how it ended. */
#include "cli.h"
#include "supervise.h"
#include "summary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool speaks_utf8(const tr_cli *cli) {
  static const char *const names[] = {"LC_ALL=", "LC_CTYPE=", "LANG="}; /* the first that is there decides */
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    for (char *const *item = cli->environment; *item != NULL; item++) {
      if (strncmp(*item, names[i], strlen(names[i])) != 0 || (*item)[strlen(names[i])] == '\0') continue;
      return strcasestr(*item, "utf-8") != NULL || strcasestr(*item, "utf8") != NULL;
    }
  }
  return false;
}

static void say_plan(tr_term *term, const tr_cli *cli, const tr_job *job, const tr_plan *plan) {
  char text[256];
  plan_describe(plan, text, sizeof text);
  const char *name = tr_config_text(job->config, "name");
  (void)cli;
  term_note(term, "%s: %s", name != NULL ? name : "job", text);
}

static int dry_run(const tr_cli *cli, const tr_job *job, const tr_plan *plan) {
  char text[256];
  plan_describe(plan, text, sizeof text);
  const char *run_dir = tr_config_text(job->config, "run-dir");
  if (cli->json) {
    tr_writer writer;
    tr_writer_init(&writer, NULL);
    tr_write_text(&writer, "{\"name\": ");
    tr_write_json_string(&writer, tr_config_text(job->config, "name"));
    tr_write_text(&writer, ", \"nodes\": 1, \"workers\": %d, \"device\": \"%s\", \"backend\": \"%s\", \"command\": [",
                  plan->workers, plan->device, plan->backend);
    tr_write_json_string(&writer, plan->program);
    for (char **word = plan->argv + 1; *word != NULL; word++) {
      tr_write_text(&writer, ", ");
      tr_write_json_string(&writer, *word);
    }
    tr_write_text(&writer, "]}\n");
    fwrite(writer.data, 1, writer.bytes, stdout);
    tr_writer_fini(&writer);
    return 0;
  }
  printf("plan      %s\nname      %s\nprogram   %s", text, tr_config_text(job->config, "name"), plan->program);
  for (char **word = plan->argv + 1; *word != NULL; word++) printf(" %s", *word);
  printf("\nruns in   %s/%s\n(dry run: nothing was started)\n", run_dir, tr_config_text(job->config, "name"));
  return 0;
}

static void say_run(tr_term *term, const tr_cli *cli, const tr_run_info *info, bool eval) {
  if (eval) {
    term_note(term, "evaluates %s",
              info->resume_step >= 0 ? info->resume_url : "what [model] init gives: no checkpoint is there");
    return;
  }
  if (info->attempt > 1 && cli->run_id == NULL && info->resume_step < 0) {
    term_note(term, "goes on with run %s/%s (attempt %llu), which has no checkpoint: from the beginning", info->name,
              info->run_id, (unsigned long long)info->attempt);
  } else if (info->resume_step >= 0) {
    term_note(term, "resumes %s/%s from step %lld (attempt %llu)", info->name, info->run_id,
              (long long)info->resume_step, (unsigned long long)info->attempt);
  } else if (info->differs[0] != '\0') {
    term_note(term, "a new run %s/%s: the newest unfinished one has another '%s'", info->name, info->run_id,
              info->differs);
  }
}

static void say_end(tr_term *term, const tr_cli *cli, const tr_job *job, const tr_plan *plan, const tr_run *run) {
  const char *summary = tr_run_summary(run);
  const tr_run_info *info = tr_run_describe(run);
  if (summary == NULL) return;
  if (term->json) {
    size_t length = strlen(summary);
    while (length > 0 && summary[length - 1] == '\n') length--;
    term_record(term, "summary", summary, length);
    return;
  }
  if (term->quiet) return;
  if (plan->foreign && strstr(summary, "\"steps\":") == NULL) { /* it told us nothing to tabulate */
    term_note(term, "logs are in %s/logs/attempt_%llu", info->folder, (unsigned long long)info->attempt);
    return;
  }
  const tr_summary_style style = {
      .color = term->out.color, .blocks = speaks_utf8(cli), .folder = info->folder, .job = job->path};
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  summary_write(summary, &style, &writer);
  if (!writer.failed && writer.bytes > 0) term_text(term, (const char *)writer.data, writer.bytes);
  tr_writer_fini(&writer);
}

static int run_planned(const tr_cli *cli, const tr_job *job, const tr_plan *plan, tr_term *term) {
  tr_stores *stores = NULL;
  tr_run *run = NULL;
  tr_error error;
  int code;
  const tr_stores_options stores_options = {.struct_bytes = sizeof stores_options,
                                            .config = job->config,
                                            .environment = (const char *const *)cli->environment};
  const bool eval = strcmp(cli->command->name, "eval") == 0;
  tr_status status = tr_stores_create(&stores_options, &stores, &error);
  const tr_run_options options = {.struct_bytes = sizeof options,
                                  .stores = stores,
                                  .config = job->config,
                                  .run_id = cli->run_id,
                                  .fresh = cli->fresh,
                                  .eval = eval,
                                  .world_size = plan->workers,
                                  .device = plan->device};
  supervise_block_signals();
  if (status == TR_OK) status = tr_run_open(&options, &run, &error);
  if (status != TR_OK) {
    term_error(term, "%s", error.message);
    code = status == TR_ERR_EXISTS ? EXIT_UNAVAILABLE : tr_status_exit_code(status);
    goto done;
  }
  const tr_run_info *info = tr_run_describe(run);
  if (info->done) {
    term_note(term, "run %s/%s is done: nothing to do", info->name, info->run_id);
    code = 0;
    goto done;
  }
  say_run(term, cli, info, eval);
  code = supervise(cli, job, plan, run, term);
  say_end(term, cli, job, plan, run);
done:
  term_flush(term);
  tr_run_close(run);
  tr_stores_destroy(stores);
  return code;
}

int cmd_run(const tr_cli *cli) {
  if (cli->target == NULL) {
    fprintf(stderr, "trainrun: which job or program?\n  usage: trainrun %s\n", cli->command->usage);
    return EXIT_USAGE;
  }
  tr_job job;
  tr_plan plan = {0};
  static tr_term term; /* its buffers are large */
  term_init(&term, cli);
  const bool is_job = cli_is_job(cli->target);
  int code = EXIT_USAGE;
  if (!is_job && strcmp(cli->command->name, "eval") == 0) {
    fprintf(stderr, "trainrun: eval needs a job file (JOB.toml)\n");
    return code;
  }
  code = job_open_or_say(&job, cli, is_job ? JOB_FILE : JOB_PROGRAM, cli->target);
  if (code == 0) code = plan_make(&plan, cli, &job);
  if (code == 0 && cli->dry_run) {
    code = dry_run(cli, &job, &plan);
  } else if (code == 0) {
    say_plan(&term, cli, &job, &plan);
    code = run_planned(cli, &job, &plan, &term);
  }
  plan_close(&plan);
  job_close(&job);
  return code;
}
