/* Ranges that many samples share packed: unpacked once, kept while they are wanted. See fetch.h. */
#include "fetch.h"
#include "files.h"

enum { READS_AGAIN = 2, PACKED_LEAST = 3 };

uint32_t dl_fetch_packed_count(uint64_t packed_bytes, uint64_t largest) {
  if (largest == 0) return 0;
  const uint64_t count = packed_bytes / largest;
  return count < PACKED_LEAST ? PACKED_LEAST : count > DL_FETCH_PACKED_MAX ? DL_FETCH_PACKED_MAX : (uint32_t)count;
}

static bool is_free(const dl_packed *packed) {
  return packed->place.bytes == 0 || (packed->users == 0 && packed->state == DL_PACKED_READY);
}

static bool is_of(const dl_packed *packed, const dl_place *place) {
  const bool failed = packed->state == DL_PACKED_READY && packed->status != TR_OK;
  return packed->place.bytes == place->bytes && packed->place.file == place->file &&
         packed->place.offset == place->offset && !(failed && packed->users == 0);
}

uint32_t dl_fetch_packed_entry(dl_fetch *fetch, const dl_place *place, bool may_make, bool *made) {
  uint32_t oldest = UINT32_MAX;
  for (uint32_t i = 0; i < fetch->packed_count; i++) {
    dl_packed *packed = &fetch->packed[i];
    if (is_of(packed, place)) {
      packed->last_used = fetch->plans;
      return i;
    }
    if (is_free(packed) && (oldest == UINT32_MAX || packed->last_used < fetch->packed[oldest].last_used)) oldest = i;
  }
  if (oldest == UINT32_MAX || !may_make) return UINT32_MAX;
  const dl_buffer kept = fetch->packed[oldest].data;
  fetch->packed[oldest] = (dl_packed){.place = *place, .last_used = fetch->plans, .data = kept};
  *made = true;
  return oldest;
}

void dl_fetch_packed_arrived(dl_fetch *fetch, uint32_t extent) {
  for (uint32_t i = 0; i < fetch->packed_count; i++) {
    dl_packed *packed = &fetch->packed[i];
    if (packed->place.bytes == 0 || packed->state != DL_PACKED_ARRIVING || packed->extent != extent) continue;
    packed->state = DL_PACKED_HERE;
    packed->arrival = fetch->extents[extent].arrival;
  }
}

bool dl_fetch_take_packed(dl_fetch *fetch, uint32_t *packed) {
  for (uint32_t i = 0; i < fetch->packed_count; i++) {
    if (fetch->packed[i].place.bytes == 0 || fetch->packed[i].state != DL_PACKED_HERE) continue;
    fetch->packed[i].state = DL_PACKED_UNPACKING;
    *packed = i;
    return true;
  }
  return false;
}

static tr_status unpack_bytes(const tr_dataset *dataset, dl_packed *packed, const uint8_t *bytes, tr_error *error) {
  return dataset->format->unpack(dataset, packed->place.file, bytes, (size_t)packed->place.bytes, packed->data.bytes,
                                 (size_t)packed->place.unpacked_bytes, error);
}

void dl_fetch_unpack(dl_fetch *fetch, uint32_t number, dl_scratch *scratch) {
  dl_packed *packed = &fetch->packed[number];
  const dl_extent *extent = &fetch->extents[packed->extent];
  const dl_place *place = &packed->place;
  tr_error *error = &packed->error;
  tr_status status = dl_buffer_reserve(fetch->allocator, &packed->data, (size_t)place->unpacked_bytes, error);
  if (status == TR_OK) {
    status = extent->failed
                 ? TR_ERR_CORRUPT
                 : unpack_bytes(fetch->dataset, packed, extent->bytes + (place->offset - extent->span.offset), error);
  }
  /* What came wrong, or not at all, is asked for again by this thread alone. */
  for (int again = 0; again < READS_AGAIN && status == TR_ERR_CORRUPT; again++) {
    status = dl_buffer_reserve(scratch->allocator, &scratch->stored, (size_t)place->bytes, error);
    if (status != TR_OK) break;
    status = dl_file_read_again(&fetch->dataset->files[place->file], fetch->clock, place->offset, scratch->stored.bytes,
                                (size_t)place->bytes, &scratch->account, error);
    if (status == TR_OK) status = unpack_bytes(fetch->dataset, packed, scratch->stored.bytes, error);
  }
  packed->status = status;
}

void dl_fetch_packed_done(dl_fetch *fetch, uint32_t number) {
  dl_packed *packed = &fetch->packed[number];
  packed->state = DL_PACKED_READY;
  dl_fetch_release(fetch, packed->extent);
}
