/* The order of samples: a pure function of (seed, epoch, index, mode), never of the number of workers.
 *
 * TR_SHUFFLE_STREAMS: the blocks are permuted and laid end to end in one list; the list is cut into streams of equal
 * length, counted in samples, wherever the cuts fall; inside a stream, windows are permuted (or, without windows, each block
 * in itself). Samples are drawn from the streams in turn (draw t is stream t % streams, offset t / streams), a batch is the
 * next batch_size draws, and its rows are sorted by stream. So a stream reads one window after the other, all streams end
 * theirs at the same draw, contiguous rows come from contiguous streams, a rank that takes a run of rows keeps to its own few
 * shards, and the position of any row is computed without walking there. */
#include "sampler.h"

#include <string.h>

#include "permutation.h"

enum {
  STREAMS_DEFAULT = 64,
  /* Streams of a handful of samples would shuffle nothing: where there is less data there are fewer streams. */
  STREAM_SAMPLES_MIN = 64
};
/* Numbers of permutations have so many bits. */
#define NUMBER_MASK (((uint64_t)1 << 56) - 1)

struct tr_sampler {
  const tr_allocator *allocator;
  uint64_t seed;
  tr_shuffle shuffle;
  uint64_t batch_size;
  uint64_t samples;
  uint64_t streams;
  uint64_t window; /* 0: blocks are permuted instead */
  size_t block_count;
  uint64_t *block_first; /* [block_count + 1] id of the first sample of each block */

  /* Of the epoch that was asked for last. */
  bool has_epoch;
  uint64_t epoch;
  dl_permutation all;
  uint64_t *list_block; /* [block_count] the permuted list of blocks */
  uint64_t *list_first; /* [block_count + 1] samples before each in the list */
};

static tr_status check_options(const tr_sampler_options *options, uint64_t *samples, tr_error *error) {
  if (options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "sampler: the options are of another version of trainrun");
  }
  if (options->batch_size == 0) return tr_fail(error, TR_ERR_INVALID, "sampler: the batch size is 0");
  if ((int)options->shuffle < TR_SHUFFLE_NONE || options->shuffle > TR_SHUFFLE_FULL) {
    return tr_fail(error, TR_ERR_INVALID, "sampler: shuffle mode %d is unknown", (int)options->shuffle);
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < options->block_count; i++) {
    if (__builtin_add_overflow(sum, options->block_samples[i], &sum) || sum > INT64_MAX) {
      return tr_fail(error, TR_ERR_INVALID, "sampler: more than 2^63 samples");
    }
  }
  *samples = sum;
  return TR_OK;
}

static uint64_t streams_of(const tr_sampler_options *options, uint64_t samples) {
  const uint64_t wanted = options->streams > 0 ? options->streams : STREAMS_DEFAULT;
  const uint64_t most = samples / STREAM_SAMPLES_MIN;
  return most == 0 ? 1 : wanted < most ? wanted : most;
}

tr_status tr_sampler_create(const tr_sampler_options *options, tr_sampler **out, tr_error *error) {
  uint64_t samples;
  TR_TRY(check_options(options, &samples, error));
  tr_sampler *sampler = tr_calloc(options->allocator, 1, sizeof *sampler);
  if (sampler == NULL) return tr_fail_memory(error, "a sampler", sizeof *sampler);
  const size_t count = options->block_count;
  sampler->allocator = options->allocator;
  sampler->seed = options->seed;
  sampler->shuffle = options->shuffle;
  sampler->batch_size = options->batch_size;
  sampler->samples = samples;
  sampler->streams = streams_of(options, samples);
  sampler->window = options->window;
  sampler->block_count = count;
  if (options->shuffle == TR_SHUFFLE_STREAMS) {
    sampler->block_first = tr_calloc(options->allocator, count + 1, sizeof(uint64_t));
    sampler->list_first = tr_calloc(options->allocator, count + 1, sizeof(uint64_t));
    sampler->list_block = tr_calloc(options->allocator, count + 1, sizeof(uint64_t));
    if (sampler->block_first == NULL || sampler->list_first == NULL || sampler->list_block == NULL) {
      tr_sampler_destroy(sampler);
      return tr_fail_memory(error, "the order of blocks", (count + 1) * sizeof(uint64_t));
    }
    for (size_t i = 0; i < count; i++) {
      sampler->block_first[i + 1] = sampler->block_first[i] + options->block_samples[i];
    }
  }
  *out = sampler;
  return TR_OK;
}

void tr_sampler_destroy(tr_sampler *sampler) {
  if (sampler == NULL) return;
  tr_free(sampler->allocator, sampler->block_first);
  tr_free(sampler->allocator, sampler->list_first);
  tr_free(sampler->allocator, sampler->list_block);
  tr_free(sampler->allocator, sampler);
}

uint64_t tr_sampler_size(const tr_sampler *sampler) { return sampler->samples; }

uint64_t tr_sampler_batches(const tr_sampler *sampler) {
  return sampler->samples / sampler->batch_size + (sampler->samples % sampler->batch_size != 0);
}

static void enter_epoch(tr_sampler *sampler, uint64_t epoch) {
  if (sampler->has_epoch && sampler->epoch == epoch) return;
  sampler->has_epoch = true;
  sampler->epoch = epoch;
  if (sampler->shuffle == TR_SHUFFLE_FULL) {
    sampler->all = dl_permutation_of(sampler->seed, epoch, DL_SHUFFLED_ALL, 0, sampler->samples);
    return;
  }
  const dl_permutation blocks = dl_permutation_of(sampler->seed, epoch, DL_SHUFFLED_BLOCKS, 0, sampler->block_count);
  for (size_t i = 0; i < sampler->block_count; i++) {
    const uint64_t block = dl_permute(&blocks, i);
    sampler->list_block[i] = block;
    sampler->list_first[i + 1] = sampler->list_first[i] + sampler->block_first[block + 1] - sampler->block_first[block];
  }
}

/* Draws of the streams before `stream` among the first `draws` of the epoch. */
static uint64_t drawn_before(const tr_sampler *sampler, uint64_t stream, uint64_t draws) {
  const uint64_t left = draws % sampler->streams;
  return draws / sampler->streams * stream + (stream < left ? stream : left);
}

typedef struct place {
  uint64_t stream, offset;
} place;

/* Which stream a row of a batch comes from, and where in it: the last stream with no more than `row` rows before it. */
static place place_of(const tr_sampler *sampler, uint64_t position) {
  const uint64_t row = position % sampler->batch_size;
  const uint64_t begin = position - row;
  const uint64_t left = sampler->samples - begin;
  const uint64_t end = begin + (left < sampler->batch_size ? left : sampler->batch_size);
  uint64_t low = 0, high = sampler->streams;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    if (drawn_before(sampler, middle, end) - drawn_before(sampler, middle, begin) <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint64_t rows_before = drawn_before(sampler, low, end) - drawn_before(sampler, low, begin);
  const uint64_t drawn = begin / sampler->streams + (low < begin % sampler->streams);
  return (place){.stream = low, .offset = drawn + row - rows_before};
}

/* Where in the list the sample stands that a stream delivers at `offset`: its window is permuted in itself. */
static uint64_t list_index(const tr_sampler *sampler, place at) {
  const uint64_t first = drawn_before(sampler, at.stream, sampler->samples);
  if (sampler->window == 0) return first + at.offset;
  const uint64_t length = drawn_before(sampler, at.stream + 1, sampler->samples) - first;
  const uint64_t window = at.offset / sampler->window;
  const uint64_t window_first = window * sampler->window;
  const uint64_t window_size = length - window_first < sampler->window ? length - window_first : sampler->window;
  const uint64_t number = (at.stream << 32 | (window & 0xFFFFFFFFu)) & NUMBER_MASK;
  const dl_permutation shuffled = dl_permutation_of(sampler->seed, sampler->epoch, DL_SHUFFLED_WINDOW, number,
                                                    window_size);
  return first + window_first + dl_permute(&shuffled, at.offset - window_first);
}

/* The sample at a position of the list. Without windows its block is permuted in itself, by the number of its first
 * sample. */
static uint64_t id_at(const tr_sampler *sampler, uint64_t index) {
  size_t low = 0, high = sampler->block_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (sampler->list_first[middle] <= index) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint64_t block = sampler->list_block[low], offset = index - sampler->list_first[low];
  const uint64_t first = sampler->block_first[block];
  if (sampler->window > 0) return first + offset;
  const dl_permutation shuffled = dl_permutation_of(sampler->seed, sampler->epoch, DL_SHUFFLED_WINDOW,
                                                    first & NUMBER_MASK, sampler->block_first[block + 1] - first);
  return first + dl_permute(&shuffled, offset);
}

uint64_t dl_sampler_round(const tr_sampler *sampler) {
  return sampler->shuffle == TR_SHUFFLE_STREAMS ? sampler->window * sampler->streams : 0;
}

uint64_t tr_sampler_at(tr_sampler *sampler, uint64_t epoch, uint64_t position) {
  if (sampler->shuffle == TR_SHUFFLE_NONE || position >= sampler->samples) return position;
  enter_epoch(sampler, epoch);
  if (sampler->shuffle == TR_SHUFFLE_FULL) return dl_permute(&sampler->all, position);
  return id_at(sampler, list_index(sampler, place_of(sampler, position)));
}
