/* Copying block by block; see snapshot.h. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

/* Small enough that one who waits for a block waits for some tens of microseconds. */
enum { BLOCK_BYTES = 256 << 10 };
enum { BLOCK_FREE = 0, BLOCK_BUSY = 1, BLOCK_COPIED = 2 };

void ckpt_snapshot_init(ckpt_snapshot *snapshot, const tr_allocator *allocator, const tr_clock *clock) {
  *snapshot = (ckpt_snapshot){.allocator = allocator, .clock = clock};
  pthread_mutex_init(&snapshot->lock, NULL);
  pthread_cond_init(&snapshot->copied, NULL);
}

void ckpt_snapshot_fini(ckpt_snapshot *snapshot) {
  tr_free(snapshot->allocator, snapshot->blocks);
  tr_free(snapshot->allocator, snapshot->by_source);
  pthread_cond_destroy(&snapshot->copied);
  pthread_mutex_destroy(&snapshot->lock);
}

tr_status ckpt_snapshot_add(ckpt_snapshot *snapshot, const void *source, uint64_t offset, size_t bytes,
                            tr_error *error) {
  const size_t count = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
  if (count > UINT32_MAX - snapshot->block_count) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: a rank saves more than a snapshot holds");
  }
  TR_TRY(tr_reserve(snapshot->allocator, (void **)&snapshot->blocks, &snapshot->block_capacity,
                    snapshot->block_count + count, sizeof *snapshot->blocks, error));
  for (size_t at = 0; at < bytes; at += BLOCK_BYTES) {
    const size_t left = bytes - at;
    snapshot_block *made = &snapshot->blocks[snapshot->block_count++];
    made->source = (const uint8_t *)source + at;
    made->offset = offset + at;
    made->bytes = left < BLOCK_BYTES ? (uint32_t)left : BLOCK_BYTES;
    atomic_init(&made->state, BLOCK_FREE);
  }
  return TR_OK;
}

static int by_source(const void *a, const void *b, void *blocks) {
  const snapshot_block *x = (snapshot_block *)blocks + *(const uint32_t *)a;
  const snapshot_block *y = (snapshot_block *)blocks + *(const uint32_t *)b;
  const uintptr_t left = (uintptr_t)x->source, right = (uintptr_t)y->source;
  return left < right ? -1 : left > right;
}

tr_status ckpt_snapshot_begin(ckpt_snapshot *snapshot, uint8_t *image, tr_error *error) {
  snapshot->image = image;
  snapshot->by_source = tr_calloc(snapshot->allocator, snapshot->block_count + 1, sizeof *snapshot->by_source);
  if (snapshot->by_source == NULL) {
    return tr_fail_memory(error, "a snapshot", snapshot->block_count * sizeof *snapshot->by_source);
  }
  for (size_t i = 0; i < snapshot->block_count; i++) snapshot->by_source[i] = (uint32_t)i;
  if (snapshot->block_count > 0) {
    qsort_r(snapshot->by_source, snapshot->block_count, sizeof *snapshot->by_source, by_source, snapshot->blocks);
  }
  atomic_init(&snapshot->left, snapshot->block_count);
  return TR_OK;
}

/* Past the caches: nobody reads the image soon, and what the step has in them stays there. */
static void copy_past_caches(uint8_t *to, const uint8_t *from, size_t bytes) {
#if defined(__x86_64__)
  const size_t head = (size_t)(-(uintptr_t)to & 15);
  if (bytes >= 4096) {
    memcpy(to, from, head);
    to += head, from += head, bytes -= head;
    for (; bytes >= 64; to += 64, from += 64, bytes -= 64) {
      const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
      const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + 16));
      const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(from + 32));
      const __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(from + 48));
      _mm_stream_si128((__m128i *)(void *)to, a);
      _mm_stream_si128((__m128i *)(void *)(to + 16), b);
      _mm_stream_si128((__m128i *)(void *)(to + 32), c);
      _mm_stream_si128((__m128i *)(void *)(to + 48), d);
    }
    /* These stores are ordered by nothing else, not even by a release. */
    _mm_sfence();
  }
#endif
  memcpy(to, from, bytes);
}

static bool claim(snapshot_block *block) {
  unsigned expected = BLOCK_FREE;
  return atomic_compare_exchange_strong_explicit(&block->state, &expected, BLOCK_BUSY, memory_order_acquire,
                                                 memory_order_acquire);
}

/* Both sides are sequentially consistent: a waiter counts itself and then looks at the state, this changes the state and
 * then looks at the counter, so one of the two sees the other. */
static void mark_copied(ckpt_snapshot *snapshot, snapshot_block *block) {
  atomic_store(&block->state, BLOCK_COPIED);
  /* Whoever reads 0 reads what all of these released: they are one release sequence. */
  atomic_fetch_sub_explicit(&snapshot->left, 1, memory_order_release);
  if (atomic_load(&snapshot->waiters) == 0) return;
  pthread_mutex_lock(&snapshot->lock);
  pthread_cond_broadcast(&snapshot->copied);
  pthread_mutex_unlock(&snapshot->lock);
}

static void wait_copied(ckpt_snapshot *snapshot, snapshot_block *block) {
  atomic_fetch_add(&snapshot->waiters, 1);
  pthread_mutex_lock(&snapshot->lock);
  while (atomic_load(&block->state) != BLOCK_COPIED) pthread_cond_wait(&snapshot->copied, &snapshot->lock);
  pthread_mutex_unlock(&snapshot->lock);
  atomic_fetch_sub(&snapshot->waiters, 1);
}

/* On return the block is copied, by this thread or another. */
static void ensure_copied(ckpt_snapshot *snapshot, snapshot_block *block) {
  if (claim(block)) {
    copy_past_caches(snapshot->image + block->offset, block->source, block->bytes);
    mark_copied(snapshot, block);
  } else if (atomic_load_explicit(&block->state, memory_order_acquire) != BLOCK_COPIED) {
    wait_copied(snapshot, block);
  }
}

void ckpt_snapshot_copy(ckpt_snapshot *snapshot, uint64_t end) {
  while (snapshot->next < snapshot->block_count && snapshot->blocks[snapshot->next].offset < end) {
    ensure_copied(snapshot, &snapshot->blocks[snapshot->next++]);
  }
}

bool ckpt_snapshot_is_copied(const ckpt_snapshot *snapshot) {
  return atomic_load_explicit(&snapshot->left, memory_order_acquire) == 0;
}

void ckpt_snapshot_abandon(ckpt_snapshot *snapshot) {
  for (; snapshot->next < snapshot->block_count; snapshot->next++) {
    snapshot_block *block = &snapshot->blocks[snapshot->next];
    if (claim(block)) mark_copied(snapshot, block);
  }
}

/* The first of by_source whose block may reach beyond `begin`: a block is BLOCK_BYTES at most. */
static size_t first_near(const ckpt_snapshot *snapshot, uintptr_t begin) {
  size_t low = 0, high = snapshot->block_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const snapshot_block *block = &snapshot->blocks[snapshot->by_source[middle]];
    if ((uintptr_t)block->source + BLOCK_BYTES <= begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void ckpt_snapshot_release(ckpt_snapshot *snapshot, const void *memory, size_t bytes) {
  if (ckpt_snapshot_is_copied(snapshot)) return;
  const uintptr_t begin = (uintptr_t)memory, end = memory != NULL ? begin + bytes : UINTPTR_MAX;
  const uint64_t begun_ns = tr_clock_now_ns(snapshot->clock);
  for (size_t i = first_near(snapshot, begin); i < snapshot->block_count; i++) {
    snapshot_block *block = &snapshot->blocks[snapshot->by_source[i]];
    if ((uintptr_t)block->source >= end) break;
    if ((uintptr_t)block->source + block->bytes > begin) ensure_copied(snapshot, block);
  }
  atomic_fetch_add_explicit(&snapshot->blocked_ns, tr_clock_now_ns(snapshot->clock) - begun_ns, memory_order_relaxed);
}
