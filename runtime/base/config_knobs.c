/* The table of every knob of job.toml.
 *
 * Each row stands once: parsing, --set, TRAINRUN_* variables, the JSON Schema and docs/configuration.md are all made from
 * it. Rows are in the order of the reference: what belongs to no table first, then table by table. */
#include "config_internal.h"

#include <math.h>
#include <string.h>

enum { PLAIN = 0, FINGERPRINT = 1, PLANNED = 2 };

#define UNBOUNDED -HUGE_VAL, HUGE_VAL
#define FROM(low) low, HUGE_VAL
#define FORMATS   "auto|webdataset|mds|tokens|idx|csv|parquet"
#define WHOLE     9.2e18

/* clang-format off */
/* X(key, type, unit, default, choices, flags, min, max, shape, help) */
#define KNOBS(X) \
  X("name", STRING, "", "", NULL, PLAIN, UNBOUNDED, NAME, \
    "Name of the job; its runs lie in run-dir/name.") \
  X("program", STRING, "", "", NULL, FINGERPRINT, UNBOUNDED, PROGRAM, \
    "An SDK program: a path, or a name found beside trainrun.") \
  X("command", STRINGS, "", "", NULL, FINGERPRINT, UNBOUNDED, NONE, \
    "Any program with its arguments, started with torchrun's environment, in the place of program.") \
  X("seed", INTEGER, "", "0", NULL, FINGERPRINT, 0, WHOLE, NONE, \
    "Decides initial parameters, the order of samples, dropout and random transforms.") \
  X("run-dir", STRING, "", "\"runs\"", NULL, PLAIN, UNBOUNDED, CWD_PATH, \
    "Folder of all runs, relative to the working directory.") \
  X("cluster.nodes", INTEGER, "nodes", "1", NULL, PLAIN, 1, 1e6, NONE, \
    "Number of machines.") \
  X("cluster.min-nodes", INTEGER, "nodes", "", NULL, PLAIN, 1, 1e6, NONE, \
    "With max-nodes: the job may go on with this many machines.") \
  X("cluster.max-nodes", INTEGER, "nodes", "", NULL, PLAIN, 1, 1e6, NONE, \
    "With min-nodes: the job may grow to this many machines.") \
  X("cluster.workers-per-node", COUNT, "workers", "\"auto\"", NULL, PLAIN, 1, 65536, NONE, \
    "Workers on each machine; auto: one a GPU, on the CPU one a NUMA node.") \
  X("cluster.threads-per-worker", COUNT, "threads", "\"auto\"", NULL, PLAIN, 1, 65536, NONE, \
    "Compute threads of a worker; auto: the CPUs of the cgroup divided among the workers.") \
  X("cluster.device", CHOICE, "", "\"auto\"", "auto|cpu|cuda", PLAIN, UNBOUNDED, NONE, \
    "Where the graph runs.") \
  X("cluster.launcher", CHOICE, "", "\"auto\"", "auto|local|mpirun|slurm|join", PLAIN, UNBOUNDED, NONE, \
    "Who starts workers on other machines; auto: the allocation, then hosts, then this machine.") \
  X("cluster.backend", CHOICE, "", "\"auto\"", "auto|shm|net|mpi|nccl", PLAIN, UNBOUNDED, NONE, \
    "How workers exchange gradients.") \
  X("cluster.hosts", STRINGS, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Machines, each with an optional number of workers: \"n2:4\".") \
  X("cluster.interface", STRING, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Network interface between the machines.") \
  X("cluster.slurm.args", STRINGS, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Further arguments for Slurm.") \
  X("cluster.kubernetes.image", STRING, "", "", NULL, PLANNED, UNBOUNDED, NONE, \
    "Container image of the workers.") \
  X("cluster.kubernetes.namespace", STRING, "", "", NULL, PLANNED, UNBOUNDED, NONE, \
    "Namespace of the job.") \
  X("cluster.kubernetes.pod-template", STRING, "", "", NULL, PLANNED, UNBOUNDED, PATH, \
    "File with a pod template.") \
  X("env.set", VALUE, "", "", NULL, PLAIN, UNBOUNDED, SCALAR_MAP, \
    "Environment variables for the workers.") \
  X("env.pass", STRINGS, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Variables of the launcher that cross to other machines, as patterns: \"HF_*\".") \
  X("storage.*.buckets", STRINGS, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Buckets this table serves, as patterns; without any it is the default for all buckets.") \
  X("storage.*.endpoint", STRING, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "URL of an S3 server; without it Amazon's.") \
  X("storage.*.region", STRING, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Region that requests are signed for.") \
  X("storage.*.profile", STRING, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Profile of the AWS configuration files.") \
  X("storage.*.path-style", BOOLEAN, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Put the bucket into the path in the place of the host name; default: where there is an endpoint.") \
  X("storage.*.ca-file", STRING, "", "", NULL, PLAIN, UNBOUNDED, PATH, \
    "Certificate authorities that the server's certificate is checked with.") \
  X("storage.*.access-key", VALUE, "", "", NULL, PLAIN, UNBOUNDED, SECRET, \
    "Where the access key is: { env = \"NAME\" } or { file = \"PATH\" }.") \
  X("storage.*.secret-key", VALUE, "", "", NULL, PLAIN, UNBOUNDED, SECRET, \
    "Where the secret key is: { env = \"NAME\" } or { file = \"PATH\" }.") \
  X("storage.*.session-token", VALUE, "", "", NULL, PLAIN, UNBOUNDED, SECRET, \
    "Where the session token is: { env = \"NAME\" } or { file = \"PATH\" }.") \
  X("storage.*.sign", BOOLEAN, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "false: requests go without keys, as a public bucket allows; default: true.") \
  X("data.train", VALUE, "", "", NULL, FINGERPRINT, UNBOUNDED, TRAIN, \
    "What is trained on: a URL, a list, or [[data.train]] tables with name, url, weight, format, fields.") \
  X("data.valid", VALUE, "", "", NULL, FINGERPRINT, UNBOUNDED, VALID, \
    "What is evaluated on: a URL, a list, or [data.valid.NAME] tables with url, format, fields.") \
  X("data.format", CHOICE, "", "\"auto\"", FORMATS, PLAIN, UNBOUNDED, NONE, \
    "How samples are stored; auto: by the names of the files.") \
  X("data.fields", VALUE, "", "", NULL, FINGERPRINT, UNBOUNDED, TEXT_MAP, \
    "Names the program uses, each with the name it has in the data.") \
  X("data.batch-size", INTEGER, "samples", "64", NULL, FINGERPRINT, 1, 1e12, NONE, \
    "Samples of a step of the whole job, whatever the number of workers.") \
  X("data.shuffle", CHOICE, "", "true", "true|full|false", FINGERPRINT, UNBOUNDED, NONE, \
    "true: canonical streams and a window; full: any sample anywhere; false: in the order of the data.") \
  X("data.streams", INTEGER, "streams", "64", NULL, FINGERPRINT, 1, 1e6, NONE, \
    "Streams that the order of samples is woven from.") \
  X("data.transforms", STRINGS, "", "", NULL, FINGERPRINT, UNBOUNDED, NONE, \
    "Transforms of each training sample, in order, random ones by seed, epoch and sample.") \
  X("data.valid-transforms", STRINGS, "", "", NULL, FINGERPRINT, UNBOUNDED, NONE, \
    "Transforms of each validation sample.") \
  X("data.sequence-length", INTEGER, "tokens", "", NULL, FINGERPRINT, 1, 1e9, NONE, \
    "Tokens of a sample of text.") \
  X("data.prefetch", BYTES, "bytes", "\"256MiB\"", NULL, PLAIN, FROM(1), NONE, \
    "Memory of each worker for data read ahead.") \
  X("data.cache.dir", STRING, "", "", NULL, PLAIN, UNBOUNDED, PATH, \
    "Folder on each machine that keeps data once read.") \
  X("data.cache.size", BYTES, "bytes", "", NULL, PLAIN, FROM(1), NONE, \
    "Most that the folder may hold.") \
  X("data.cache.memory", BYTES, "bytes", "", NULL, PLAIN, FROM(1), NONE, \
    "Most that is kept in the memory of each machine.") \
  X("data.on-corrupt", CHOICE, "", "\"stop\"", "stop|skip", PLAIN, UNBOUNDED, NONE, \
    "A sample that cannot be decoded: stop the job, or skip it with weight 0 and record its number.") \
  X("train.epochs", INTEGER, "epochs", "", NULL, PLAIN, 1, 1e9, NONE, \
    "Length of the run in passes over the data; 1 where no length is given.") \
  X("train.steps", INTEGER, "steps", "", NULL, PLAIN, 1, 1e15, NONE, \
    "Length of the run in steps.") \
  X("train.samples", INTEGER, "samples", "", NULL, PLAIN, 1, 1e18, NONE, \
    "Length of the run in samples.") \
  X("train.tokens", INTEGER, "tokens", "", NULL, PLAIN, 1, 1e18, NONE, \
    "Length of the run in tokens.") \
  X("train.time", DURATION, "seconds", "", NULL, PLAIN, FROM(1), NONE, \
    "Length of the run in time.") \
  X("train.micro-batch", COUNT, "samples", "\"auto\"", NULL, FINGERPRINT, 1, 1e9, NONE, \
    "Rows computed at once; the rest of the batch is accumulated. auto: an eighth of the batch.") \
  X("train.precision", CHOICE, "", "\"fp32\"", "fp32|bf16", FINGERPRINT, UNBOUNDED, NONE, \
    "Number format of compute; bf16 keeps fp32 masters.") \
  X("train.recompute", BOOLEAN, "", "false", NULL, PLAIN, UNBOUNDED, NONE, \
    "Compute activations again in the backward pass to save memory.") \
  X("train.grad-clip", REAL, "", "", NULL, FINGERPRINT, FROM(0), NONE, \
    "Largest norm of the gradient; a larger one is scaled down. 0 or unset: no limit.") \
  X("train.eval-every", EVERY, "", "\"1 epoch\"", NULL, PLAIN, UNBOUNDED, NONE, \
    "How often data.valid is evaluated.") \
  X("train.early-stop.metric", STRING, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "Stop when this metric of the evaluation no longer gets better.") \
  X("train.early-stop.patience", INTEGER, "evaluations", "3", NULL, PLAIN, 1, 1e6, NONE, \
    "Evaluations without a better value before the job stops.") \
  X("optimizer.name", CHOICE, "", "\"adamw\"", "adamw|sgd", FINGERPRINT, UNBOUNDED, NONE, \
    "Rule of the update.") \
  X("optimizer.lr", REAL, "", "1e-3", NULL, FINGERPRINT, FROM(0), NONE, \
    "Learning rate, at its highest.") \
  X("optimizer.betas", VALUE, "", "[0.9, 0.999]", NULL, FINGERPRINT, UNBOUNDED, BETAS, \
    "Decay of the two moments of AdamW.") \
  X("optimizer.eps", REAL, "", "1e-8", NULL, FINGERPRINT, FROM(0), NONE, \
    "Added to the denominator of AdamW.") \
  X("optimizer.weight-decay", REAL, "", "0.01", NULL, FINGERPRINT, FROM(0), NONE, \
    "Weight decay, decoupled from the gradient in AdamW; the default of sgd is 0.") \
  X("optimizer.no-decay", STRINGS, "", "", NULL, FINGERPRINT, UNBOUNDED, NONE, \
    "Parameters without weight decay, as patterns: \"*.bias\".") \
  X("optimizer.momentum", REAL, "", "0", NULL, FINGERPRINT, 0, 1, NONE, \
    "Momentum of sgd.") \
  X("optimizer.schedule", CHOICE, "", "\"constant\"", "constant|linear|cosine", FINGERPRINT, UNBOUNDED, NONE, \
    "How the learning rate falls over the run.") \
  X("optimizer.warmup", STRING, "", "", NULL, FINGERPRINT, UNBOUNDED, WARMUP, \
    "Rise of the learning rate from 0 at the start: \"100 steps\", or a part of the run: \"3%\".") \
  X("optimizer.min-lr", REAL, "", "0", NULL, FINGERPRINT, FROM(0), NONE, \
    "Learning rate at the end of the schedule.") \
  X("optimizer.schedule-steps", INTEGER, "steps", "", NULL, FINGERPRINT, 1, 1e15, NONE, \
    "Steps until the end of the schedule; default: the length of the run.") \
  X("optimizer.shard", CHOICE, "", "\"auto\"", "auto|true|false", PLAIN, UNBOUNDED, NONE, \
    "Divide the state of the optimizer among the workers.") \
  X("model.init", STRING, "", "", NULL, FINGERPRINT, UNBOUNDED, PATH, \
    "Folder or URL with parameters to start from; a resume wins.") \
  X("params", VALUE, "", "", NULL, FINGERPRINT, UNBOUNDED, PARAMS, \
    "Settings that the program itself declares; see PROGRAM --describe.") \
  X("checkpoint.url", STRING, "", "", NULL, PLAIN, UNBOUNDED, PATH, \
    "Root of the checkpoints; default: the folder of the run.") \
  X("checkpoint.every", EVERY, "", "", NULL, PLAIN, UNBOUNDED, NONE, \
    "How often a checkpoint is written; unset: at the end and when the job is stopped.") \
  X("checkpoint.keep.last", INTEGER, "checkpoints", "2", NULL, PLAIN, 1, 1e6, NONE, \
    "Newest checkpoints that are kept.") \
  X("checkpoint.keep.best", STRING, "", "", NULL, PLAIN, UNBOUNDED, BEST, \
    "Also keep the best one: \"max accuracy\", \"min loss\".") \
  X("checkpoint.resume", STRING, "", "\"auto\"", NULL, PLAIN, UNBOUNDED, RESUME, \
    "auto: go on with the newest unfinished run of this job; never; or a checkpoint.") \
  X("failure.max-restarts", INTEGER, "restarts", "3", NULL, PLAIN, 0, 1e6, NONE, \
    "Restarts after failures of workers before the job gives up.") \
  X("failure.hang-timeout", DURATION, "seconds", "\"60s\"", NULL, PLAIN, FROM(1e6), NONE, \
    "Time without progress after which a worker counts as stuck.") \
  X("metrics.log-every", EVERY, "", "\"10 steps\"", NULL, PLAIN, UNBOUNDED, NONE, \
    "How often a line is written to metrics.jsonl and to the log.") \
  X("metrics.jsonl", BOOLEAN, "", "true", NULL, PLAIN, UNBOUNDED, NONE, \
    "Write metrics.jsonl into the folder of the run.") \
  X("metrics.tensorboard", VALUE, "", "", NULL, PLANNED, UNBOUNDED, ANY, \
    "Event files for TensorBoard.") \
  X("metrics.prometheus", VALUE, "", "", NULL, PLANNED, UNBOUNDED, ANY, \
    "A page of metrics for Prometheus.") \
  X("metrics.mlflow", VALUE, "", "", NULL, PLANNED, UNBOUNDED, ANY, \
    "A run in MLflow.") \
  X("as-written", VALUE, "", "", NULL, PLAIN, UNBOUNDED, PARAMS, \
    "Only in job.resolved.toml: keys of the fingerprint as the job file had them.")
/* clang-format on */

/* UNBOUNDED and FROM() expand to two arguments, so rows pass through one more macro before their columns are counted. */
#define KNOB_ROW(...) KNOB_COLUMNS(__VA_ARGS__)
#define KNOB_COLUMNS(key, type, unit, standard, choices, flags, low, high, shape, help)                                \
  {key, TR_KNOB_##type, unit, standard, choices, help, ((flags)&FINGERPRINT) != 0, ((flags)&PLANNED) != 0},
#define RULE_ROW(...)                                                                   RULE_COLUMNS(__VA_ARGS__)
#define RULE_COLUMNS(key, type, unit, standard, choices, flags, low, high, shape, help) {low, high, TR_SHAPE_##shape},

static const tr_knob knobs[] = {KNOBS(KNOB_ROW)};
static const tr_knob_rule rules[] = {KNOBS(RULE_ROW)};

enum { KNOB_COUNT = sizeof knobs / sizeof *knobs };

const tr_knob *tr_config_knobs(size_t *count) {
  if (count != NULL) *count = KNOB_COUNT;
  return knobs;
}

size_t tr_knob_index(const tr_knob *knob) { return (size_t)(knob - knobs); }

const tr_knob_rule *tr_knob_rule_of(const tr_knob *knob) { return &rules[tr_knob_index(knob)]; }

bool tr_knob_matches(const char *pattern, const char *key) {
  for (;;) {
    const size_t a = strcspn(pattern, "."), b = strcspn(key, ".");
    const bool any = a == 1 && *pattern == '*' && b > 0;
    if (!any && (a != b || memcmp(pattern, key, a) != 0)) return false;
    pattern += a;
    key += b;
    if (*pattern == '\0' || *key == '\0') return *pattern == *key;
    pattern++;
    key++;
  }
}

const tr_knob *tr_knob_find(const char *key) {
  for (size_t i = 0; i < KNOB_COUNT; i++) {
    if (tr_knob_matches(knobs[i].key, key)) return &knobs[i];
  }
  return NULL;
}

bool tr_knob_is_table(const char *path) {
  for (size_t i = 0; i < KNOB_COUNT; i++) {
    const char *pattern = knobs[i].key, *key = path;
    for (;;) {
      const size_t a = strcspn(pattern, "."), b = strcspn(key, ".");
      const bool any = a == 1 && *pattern == '*' && b > 0;
      if (!any && (a != b || memcmp(pattern, key, a) != 0)) break;
      if (key[b] == '\0') {
        if (pattern[a] == '.') return true;
        break;
      }
      if (pattern[a] == '\0') break;
      pattern += a + 1;
      key += b + 1;
    }
  }
  return false;
}

const char *tr_knob_type_words(const tr_knob *knob) {
  switch (knob->type) {
    case TR_KNOB_STRING: return "a string";
    case TR_KNOB_INTEGER: return "an integer";
    case TR_KNOB_REAL: return "a number";
    case TR_KNOB_BOOLEAN: return "true or false";
    case TR_KNOB_BYTES: return "a size such as \"64MiB\"";
    case TR_KNOB_DURATION: return "a time such as \"500ms\"";
    case TR_KNOB_COUNT: return "an integer or \"auto\"";
    case TR_KNOB_EVERY: return "a length such as \"200 steps\"";
    case TR_KNOB_CHOICE: return "one of the choices";
    case TR_KNOB_STRINGS: return "a list of strings";
    case TR_KNOB_VALUE: break;
  }
  switch (tr_knob_rule_of(knob)->shape) {
    case TR_SHAPE_TRAIN: return "a URL, a list of URLs or [[data.train]] tables";
    case TR_SHAPE_VALID: return "a URL, a list of URLs or [data.valid.NAME] tables";
    case TR_SHAPE_BETAS: return "a list of two numbers";
    case TR_SHAPE_SECRET: return "{ env = \"NAME\" } or { file = \"PATH\" }";
    default: return "a table";
  }
}
