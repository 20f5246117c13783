/* The failing store itself, which other rooms' tests trust. */
#include <criterion/criterion.h>
#include <string.h>

#include "support/fault_store.h"

static tr_store *memory_store(uint64_t capacity_bytes) {
  const tr_store_memory_options options = {.struct_bytes = sizeof options, .capacity_bytes = capacity_bytes};
  tr_store *store = NULL;
  cr_assert_eq(tr_store_memory_open(&options, &store, NULL), TR_OK);
  return store;
}

Test(fault_store, passes_on_what_is_not_to_fail) {
  ts_faults faults = {0};
  tr_store *store = ts_fault_store(memory_store(0), true, &faults);
  void *data = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_put(store, "a", "12345678", 8, false, NULL), TR_OK);
  cr_assert_eq(tr_store_get_all(store, NULL, "a", 100, &data, &bytes, NULL), TR_OK);
  cr_expect_str_eq((char *)data, "12345678");
  tr_free(NULL, data);
  cr_expect_eq(faults.puts, 1);
  cr_expect_eq(faults.gets, 1);
  cr_expect_eq(faults.heads, 1);
  cr_expect_eq(faults.bytes_read, 8);
  tr_store_destroy(store);
}

Test(fault_store, fails_the_nth_of_a_kind_blocking_or_not) {
  for (int blocking = 0; blocking < 2; blocking++) {
    ts_faults faults = {.fail_get = 2, .status = TR_ERR_STORE};
    tr_store *store = ts_fault_store(memory_store(0), true, &faults);
    cr_assert_eq(tr_store_put(store, "a", "12345678", 8, false, NULL), TR_OK);
    char buffer[8];
    for (int i = 1; i <= 3; i++) {
      tr_store_request request = {
          .struct_bytes = sizeof request, .verb = TR_STORE_GET, .key = "a", .buffer = buffer, .buffer_bytes = 8};
      tr_status status;
      if (blocking) {
        status = tr_store_get(store, "a", 0, buffer, 8, NULL, NULL);
      } else {
        cr_assert_eq(tr_store_submit(store, &request, NULL), TR_OK);
        status = tr_store_wait(store, &request, NULL);
      }
      cr_expect_eq(status, i == 2 ? TR_ERR_STORE : TR_OK);
    }
    tr_store_destroy(store);
  }
}

Test(fault_store, spoils_shortens_and_loses) {
  ts_faults faults = {.short_get = 1, .flip_get = 2, .lose_put = 2};
  tr_store *store = ts_fault_store(memory_store(0), true, &faults);
  char buffer[8];
  size_t bytes = 0;
  cr_assert_eq(tr_store_put(store, "a", "12345678", 8, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "b", "x", 1, false, NULL), TR_OK);
  cr_expect_eq(tr_store_get(store, "a", 0, buffer, 8, &bytes, NULL), TR_OK);
  cr_expect_eq(bytes, 4);
  cr_expect_eq(tr_store_get(store, "a", 0, buffer, 8, &bytes, NULL), TR_OK);
  cr_expect_eq(bytes, 8);
  cr_expect_neq(memcmp(buffer, "12345678", 8), 0);
  cr_expect_eq(tr_store_get(store, "a", 0, buffer, 8, &bytes, NULL), TR_OK);
  cr_expect_eq(memcmp(buffer, "12345678", 8), 0);
  cr_expect_eq(tr_store_get(store, "b", 0, buffer, 8, &bytes, NULL), TR_ERR_NOT_FOUND);
  tr_store_destroy(store);
}

Test(memory_store, says_no_space_beyond_its_capacity) {
  tr_store *store = memory_store(10);
  tr_error error;
  cr_expect_eq(tr_store_put(store, "a", "12345678", 8, false, NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, "b", "123", 3, false, &error), TR_ERR_NO_SPACE);
  cr_expect_not_null(strstr(error.message, "'b'"), "%s", error.message);
  cr_expect_eq(tr_store_put(store, "a", "1234567890", 10, false, NULL), TR_OK, "its own place counts");
  cr_expect_eq(tr_store_delete(store, "a", NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, "b", "123", 3, false, NULL), TR_OK);
  tr_store_destroy(store);
}
