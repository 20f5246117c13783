/* Making everything a trainer needs before its first step: data, model, plans, memory. */
#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

tr_tensor tr_model_input(const tr_model *model, const char *name) {
  for (size_t i = 0; i < model->field_count; i++) {
    const tr_field *field = &model->fields[i];
    if (strcmp(field->name, name) == 0) return tr_input(model->graph, name, field->dtype, field->ndim, field->shape);
  }
  char known[256] = "";
  for (size_t i = 0; i < model->field_count; i++) {
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", model->fields[i].name);
  }
  return tr_graph_fail(model->graph, "input '%s': the data has no such field; it has %s", name, known);
}

tr_status tr_trainer_bind(const tr_graph *graph, const tr_field *fields, size_t field_count, int32_t *input_field,
                          tr_error *error) {
  const int32_t inputs = tr_graph_input_count(graph);
  if (inputs > TR_FIELDS_MAX) return tr_fail(error, TR_ERR_INVALID, "the model has more than %d inputs", TR_FIELDS_MAX);
  for (int32_t i = 0; i < inputs; i++) {
    const char *name = tr_graph_input_name(graph, i);
    const tr_tensor_info info = tr_tensor_describe(graph, tr_graph_input_tensor(graph, i));
    size_t bytes = tr_dtype_bytes(info.dtype);
    for (uint32_t d = 1; d < info.ndim; d++) bytes *= (size_t)info.shape[d];
    input_field[i] = -1;
    for (size_t f = 0; f < field_count; f++) {
      if (strcmp(fields[f].name, name) == 0) input_field[i] = (int32_t)f;
    }
    if (input_field[i] < 0)
      return tr_fail(error, TR_ERR_MISMATCH, "the model's input '%s' is no field of the data", name);
    const tr_field *field = &fields[input_field[i]];
    if (field->dtype != info.dtype || field->bytes != bytes) {
      return tr_fail(error, TR_ERR_MISMATCH,
                     "input '%s': the model takes %zu bytes of %s a sample, the data has %zu of %s", name, bytes,
                     tr_dtype_name(info.dtype), field->bytes, tr_dtype_name(field->dtype));
    }
  }
  return TR_OK;
}

static tr_status build_graph(tr_trainer *trainer, bool training, const tr_field *fields, size_t field_count,
                             tr_graph **out, tr_error *error) {
  const tr_graph_options options = {
      .struct_bytes = sizeof options,
      .allocator = trainer->allocator,
      .device = trainer->session->device,
      .params = trainer->params,
      .rows = (int64_t)trainer->micro_batch,
      .training = training,
  };
  tr_graph *graph = NULL;
  TR_TRY(tr_graph_create(&options, &graph, error));
  const tr_model model = {.graph = graph, .session = trainer->session, .fields = fields, .field_count = field_count};
  const tr_status status = trainer->options->build(trainer->options->self, &model, error);
  if (status != TR_OK) {
    tr_graph_destroy(graph);
    return status;
  }
  *out = graph;
  return TR_OK;
}

static tr_status compile_graph(tr_trainer *trainer, tr_graph *graph, bool profile, tr_error *error) {
  const tr_graph_compile_options options = {
      .struct_bytes = sizeof options, .pool = trainer->session->pool, .profile = profile};
  return tr_graph_compile(graph, &options, error);
}

/* ---- Data ---- */

static tr_status open_eval_set(tr_trainer *trainer, const char *set, const char *label, tr_error *error) {
  if (trainer->eval_count >= TR_EVAL_SETS_MAX) {
    return tr_fail(error, TR_ERR_CONFIG, "data.valid: more than %d sets", TR_EVAL_SETS_MAX);
  }
  tr_eval_set *made = &trainer->eval_sets[trainer->eval_count];
  made->set = tr_arena_strdup(trainer->session->arena, set);
  made->label = tr_arena_strdup(trainer->session->arena, label);
  if (made->set == NULL || made->label == NULL) return tr_fail_memory(error, "data.valid", strlen(set));
  for (int32_t i = 0; i < TR_OUTPUTS_MAX; i++) made->values[i] = NAN;
  TR_TRY(tr_session_open_dataset(trainer->session, set, &made->dataset, error));
  made->field_count = tr_dataset_fields(made->dataset, &made->fields);
  trainer->eval_count++;
  return TR_OK;
}

static tr_status open_eval_sets(tr_trainer *trainer, tr_error *error) {
  const tr_value *valid = tr_config_find(trainer->session->config, "data.valid");
  if (valid == NULL) return TR_OK;
  if (valid->type != TR_VALUE_TABLE || tr_value_get(valid, "url") != NULL)
    return open_eval_set(trainer, "valid", "", error);
  for (size_t i = 0; i < valid->count; i++) {
    char set[128];
    snprintf(set, sizeof set, "valid.%s", valid->items[i].key);
    TR_TRY(open_eval_set(trainer, set, valid->items[i].key, error));
  }
  return TR_OK;
}

static tr_status open_data(tr_trainer *trainer, tr_error *error) {
  tr_session *session = trainer->session;
  tr_session_phase(session, TR_PHASE_INDEXING, TR_CAUSE_INDEXING);
  if (!session->facts.eval) {
    TR_TRY(tr_session_open_dataset(session, "train", &trainer->dataset, error));
    trainer->field_count = tr_dataset_fields(trainer->dataset, &trainer->fields);
    tr_dataset_write_lock(trainer->dataset, &trainer->data_lock);
    tr_write_u8(&trainer->data_lock, 0);
    if (trainer->data_lock.failed) return tr_fail_memory(error, "data.lock.json", trainer->data_lock.bytes);
    if (trainer->rank == 0) {
      tr_session_send(session, "lock", (const char *)trainer->data_lock.data, trainer->data_lock.bytes - 1);
    }
  }
  TR_TRY(open_eval_sets(trainer, error));
  if (session->facts.eval && trainer->eval_count == 0)
    return tr_fail(error, TR_ERR_CONFIG, "eval: the job has no data.valid");
  tr_session_phase(session, TR_PHASE_STARTING, TR_CAUSE_STARTUP);
  return TR_OK;
}

/* ---- Model ---- */

static tr_status check_names(const tr_params *params, tr_error *error) {
  for (int32_t i = 0; i < tr_params_size(params); i++) {
    const char *name = tr_params_info(params, i).name;
    if (strncmp(name, TR_CKPT_OPTIMIZER, strlen(TR_CKPT_OPTIMIZER)) == 0) {
      return tr_fail(error, TR_ERR_INVALID,
                     "parameter '%s': names that begin with '" TR_CKPT_OPTIMIZER "' are the optimizer's", name);
    }
  }
  return TR_OK;
}

static tr_status build_model(tr_trainer *trainer, tr_error *error) {
  const bool profile = trainer->session->facts.profile;
  TR_TRY(tr_params_create(trainer->allocator, &trainer->params, error));
  if (trainer->dataset != NULL) {
    TR_TRY(build_graph(trainer, true, trainer->fields, trainer->field_count, &trainer->graph, error));
  }
  for (size_t i = 0; i < trainer->eval_count; i++) {
    tr_eval_set *set = &trainer->eval_sets[i];
    TR_TRY(build_graph(trainer, false, set->fields, set->field_count, &set->graph, error));
  }
  TR_TRY(check_names(trainer->params, error));
  TR_TRY(tr_params_seal(trainer->params, trainer->session->device, error));
  if (trainer->graph != NULL) {
    TR_TRY(compile_graph(trainer, trainer->graph, profile, error));
    TR_TRY(tr_trainer_bind(trainer->graph, trainer->fields, trainer->field_count, trainer->input_field, error));
  }
  for (size_t i = 0; i < trainer->eval_count; i++) {
    tr_eval_set *set = &trainer->eval_sets[i];
    TR_TRY(compile_graph(trainer, set->graph, false, error));
    TR_TRY(tr_trainer_bind(set->graph, set->fields, set->field_count, set->input_field, error));
  }
  const tr_graph *any = trainer->graph != NULL ? trainer->graph : trainer->eval_sets[0].graph;
  trainer->output_count = tr_graph_output_count(any);
  trainer->scalar_count = trainer->output_count + TR_SCALAR_COUNT;
  if (trainer->output_count < 1) return tr_fail(error, TR_ERR_INVALID, "the model sets no loss (tr_graph_loss)");
  tr_params_initialize(trainer->params, trainer->seed);
  return TR_OK;
}

/* ---- Plans and memory ---- */

static tr_status plan_buckets(tr_trainer *trainer, tr_error *error) {
  const tr_bucket_options options = {
      .struct_bytes = sizeof options,
      .count = tr_params_gradient_count(trainer->params),
      .block = TR_PARAM_BLOCK,
      .bucket_bytes = 1 << 20,
  };
  return tr_bucket_plan(&options, trainer->buckets, TR_BUCKETS_MAX, &trainer->bucket_count, error);
}

static tr_status allocate_buffers(tr_trainer *trainer, tr_error *error) {
  const uint64_t leaves = (trainer->batch_size + trainer->micro_batch - 1) / trainer->micro_batch;
  /* A short last batch has fewer leaves and other runs; none needs more buffers than the longest run can. */
  uint32_t most = 1;
  for (uint64_t count = 1; count <= leaves; count++) {
    const uint64_t begin = tr_split_begin(count, (uint64_t)trainer->size, (uint64_t)trainer->rank);
    const uint64_t end = tr_split_end(count, (uint64_t)trainer->size, (uint64_t)trainer->rank);
    const uint32_t buffers = end > begin ? tr_tree_buffers(count, begin, end) : 1;
    if (buffers > most) most = buffers;
  }
  if (most > TR_BUFFERS_MAX) return tr_fail(error, TR_ERR_INVALID, "train.micro-batch is too small for the batch");
  const uint64_t count = tr_params_gradient_count(trainer->params);
  const size_t scalar_bytes = (size_t)trainer->scalar_count * sizeof(double);
  for (uint32_t i = 0; i < most; i++) {
    void *memory = NULL;
    TR_TRY(tr_comm_alloc(trainer->comm, count * sizeof(float), &memory, error));
    trainer->gradients[i] = memory;
    TR_TRY(tr_comm_alloc(trainer->comm, scalar_bytes, &memory, error));
    trainer->scalars[i] = memory;
  }
  trainer->buffer_count = most;
  return TR_OK;
}

static tr_status allocate_vote(tr_trainer *trainer, tr_error *error) {
  const uint64_t size = (uint64_t)trainer->size;
  trainer->block_count = tr_params_trained_count(trainer->params) / TR_PARAM_BLOCK;
  trainer->blocks_a_rank = (trainer->block_count + size - 1) / size;
  trainer->ballot_bytes = sizeof(tr_ballot) + trainer->blocks_a_rank * sizeof(double);
  trainer->ballots = tr_calloc(trainer->allocator, size, trainer->ballot_bytes);
  trainer->partials = tr_calloc(trainer->allocator, trainer->block_count + 1, sizeof(double));
  trainer->windows = tr_calloc(trainer->allocator, size, sizeof *trainer->windows);
  if (trainer->ballots == NULL || trainer->partials == NULL || trainer->windows == NULL) {
    return tr_fail_memory(error, "the vote", size * trainer->ballot_bytes);
  }
  return tr_blame_init(&trainer->blame, trainer->allocator, trainer->size, error);
}

static tr_status plan(tr_trainer *trainer, tr_error *error) {
  const tr_config *config = trainer->session->config;
  const uint64_t samples = tr_dataset_size(trainer->dataset);
  trainer->batches = (samples + trainer->batch_size - 1) / trainer->batch_size;
  trainer->sample_bytes = (double)tr_dataset_stored_bytes(trainer->dataset) / (double)samples;
  trainer->length = tr_length_of(config);
  trainer->total_steps = tr_length_steps(&trainer->length, trainer->batches, samples, trainer->batch_size, 1);
  trainer->log_every = tr_config_every(config, "metrics.log-every");
  trainer->eval_every = tr_config_every(config, "train.eval-every");
  trainer->checkpoint_every = tr_config_every(config, "checkpoint.every");
  trainer->grad_clip = tr_config_is_set(config, "train.grad-clip") ? tr_config_real(config, "train.grad-clip") : 0;
  TR_TRY(tr_lr_schedule_of(config, trainer->total_steps, &trainer->schedule, error));
  TR_TRY(tr_optimizer_create(trainer->allocator, config, trainer->params, trainer->session->pool, &trainer->optimizer,
                             error));
  TR_TRY(plan_buckets(trainer, error));
  TR_TRY(allocate_buffers(trainer, error));
  return allocate_vote(trainer, error);
}

static tr_status refuse_planned(const tr_config *config, tr_error *error) {
  if (strcmp(tr_config_text(config, "train.precision"), "fp32") != 0) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "train.precision = \"bf16\": planned, not in this version");
  }
  if (tr_config_boolean(config, "train.recompute")) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "train.recompute: planned, not in this version");
  }
  return TR_OK;
}

static void say_plan(const tr_trainer *trainer) {
  const uint64_t leaves = (trainer->batch_size + trainer->micro_batch - 1) / trainer->micro_batch;
  if (trainer->rank != 0 || trainer->dataset == NULL) return;
  tr_logf(trainer->session->log, TR_LOG_INFO,
          "batch %llu = %llu micro-batches of %llu over %d workers; %llu samples, %llu steps an epoch",
          (unsigned long long)trainer->batch_size, (unsigned long long)leaves, (unsigned long long)trainer->micro_batch,
          (int)trainer->size, (unsigned long long)tr_dataset_size(trainer->dataset),
          (unsigned long long)trainer->batches);
  if ((uint64_t)trainer->size > leaves) {
    tr_logf(
        trainer->session->log, TR_LOG_WARNING,
        "%d workers and %llu micro-batches: %llu workers have nothing to compute; set train.micro-batch = %llu or less",
        (int)trainer->size, (unsigned long long)leaves, (unsigned long long)((uint64_t)trainer->size - leaves),
        (unsigned long long)(trainer->batch_size / (uint64_t)trainer->size > 0
                                 ? trainer->batch_size / (uint64_t)trainer->size
                                 : 1));
  }
}

tr_status tr_trainer_setup(tr_trainer *trainer, tr_error *error) {
  tr_session *session = trainer->session;
  trainer->allocator = session->allocator;
  trainer->comm = session->comm;
  trainer->rank = session->comm_info.rank;
  trainer->size = session->comm_info.size;
  trainer->seed = tr_session_seed(session);
  trainer->batch_size = (uint64_t)tr_config_integer(session->config, "data.batch-size");
  trainer->micro_batch = tr_session_micro_batch(session);
  trainer->best_metric = trainer->last_loss = NAN;
  trainer->last_checkpoint = -1;
  tr_writer_init(&trainer->data_lock, session->allocator);
  tr_writer_init(&trainer->fingerprint, session->allocator);
  TR_TRY(refuse_planned(session->config, error));
  if (session->facts.trace) {
    TR_TRY(tr_trace_create(session->allocator, trainer->rank, 1 << 16, &session->trace, error));
  }
  tr_config_write_fingerprint(session->config, &trainer->fingerprint);
  tr_write_u8(&trainer->fingerprint, 0);
  if (trainer->fingerprint.failed) return tr_fail_memory(error, "the fingerprint", trainer->fingerprint.bytes);
  TR_TRY(open_data(trainer, error));
  TR_TRY(build_model(trainer, error));
  if (trainer->dataset == NULL) {
    trainer->batches = 1;
    return allocate_vote(trainer, error);
  }
  TR_TRY(plan(trainer, error));
  say_plan(trainer);
  return TR_OK;
}

void tr_trainer_fini(tr_trainer *trainer) {
  tr_trainer_save_fini(trainer);
  tr_loader_close(trainer->loader);
  tr_dataset_close(trainer->dataset);
  for (size_t i = 0; i < TR_EVAL_SETS_MAX; i++) {
    tr_graph_destroy(trainer->eval_sets[i].graph);
    tr_dataset_close(trainer->eval_sets[i].dataset);
  }
  tr_graph_destroy(trainer->graph);
  tr_optimizer_destroy(trainer->optimizer);
  tr_params_destroy(trainer->params);
  for (uint32_t i = 0; i < TR_BUFFERS_MAX; i++) {
    if (trainer->gradients[i] != NULL) tr_comm_free(trainer->comm, trainer->gradients[i]);
    if (trainer->scalars[i] != NULL) tr_comm_free(trainer->comm, trainer->scalars[i]);
  }
  tr_free(trainer->allocator, trainer->ballots);
  tr_free(trainer->allocator, trainer->partials);
  tr_free(trainer->allocator, trainer->windows);
  tr_blame_fini(&trainer->blame);
  tr_writer_fini(&trainer->data_lock);
  tr_writer_fini(&trainer->fingerprint);
}
