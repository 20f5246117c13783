/* Statuses, their exit codes, and messages that are cut, extended and put into context. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <trainrun/status.h>

static const tr_status all[] = {
    TR_OK,          TR_ERR_INVALID,     TR_ERR_CONFIG,   TR_ERR_NOT_FOUND, TR_ERR_EXISTS,    TR_ERR_CORRUPT,
    TR_ERR_CHANGED, TR_ERR_UNSUPPORTED, TR_ERR_DENIED,   TR_ERR_MISMATCH,  TR_ERR_NO_MEMORY, TR_ERR_NO_SPACE,
    TR_ERR_IO,      TR_ERR_UNAVAILABLE, TR_ERR_STORE,    TR_ERR_THROTTLED, TR_ERR_PEER,      TR_ERR_ABORTED,
    TR_ERR_TIMEOUT, TR_ERR_STOPPED,     TR_ERR_DIVERGED, TR_ERR_CANCELLED, TR_ERR_BUG,
};
enum { ALL = sizeof all / sizeof *all };

Test(status, names_are_distinct_and_lower_case) {
  for (size_t i = 0; i < ALL; i++) {
    const char *name = tr_status_name(all[i]);
    cr_assert(name[0] != '\0' && strspn(name, "abcdefghijklmnopqrstuvwxyz-") == strlen(name), "%s", name);
    for (size_t j = 0; j < i; j++) cr_assert_str_neq(name, tr_status_name(all[j]));
  }
  cr_assert_str_eq(tr_status_name((tr_status)12345), "unknown");
}

Test(status, exit_codes_follow_sysexits) {
  cr_assert_eq(tr_status_exit_code(TR_OK), 0);
  cr_assert_eq(tr_status_exit_code(TR_ERR_CONFIG), 78);
  cr_assert_eq(tr_status_exit_code(TR_ERR_UNAVAILABLE), 69);
  cr_assert_eq(tr_status_exit_code(TR_ERR_STOPPED), 75);
  cr_assert_eq(tr_status_exit_code(TR_ERR_CORRUPT), 1);
}

Test(status, fail_fills_the_error_and_returns_the_status) {
  tr_error error = {.rank = 7};
  cr_assert_eq(tr_fail(&error, TR_ERR_CORRUPT, "%s at %d", "shard", 12), TR_ERR_CORRUPT);
  cr_assert_eq(error.status, TR_ERR_CORRUPT);
  cr_assert_eq(error.rank, -1);
  cr_assert_str_eq(error.message, "shard at 12");
  cr_assert_eq(tr_fail(NULL, TR_ERR_IO, "nobody listens"), TR_ERR_IO);
}

Test(status, a_message_may_be_made_from_itself) {
  tr_error error;
  tr_fail(&error, TR_ERR_IO, "inner");
  tr_fail(&error, TR_ERR_STORE, "outer (%s)", error.message);
  cr_assert_str_eq(error.message, "outer (inner)");
}

Test(status, a_long_message_is_cut_at_a_character) {
  char text[2 * TR_ERROR_MESSAGE_BYTES];
  for (int lead = 0; lead < 4; lead++) {
    memset(text, 'x', sizeof text);
    size_t at = (size_t)lead;
    for (; at + 3 < sizeof text; at += 3) memcpy(text + at, "\xE2\x82\xAC", 3); /* the euro sign */
    text[at] = '\0';
    tr_error error;
    tr_fail(&error, TR_ERR_IO, "%s", text);
    const size_t length = strlen(error.message);
    cr_assert_gt(length, TR_ERROR_MESSAGE_BYTES - 5);
    cr_assert_eq((length - (size_t)lead) % 3, 0, "cut inside a character after %zu bytes", length);
  }
}

Test(status, fail_errno_says_what_the_system_said) {
  tr_error error;
  cr_assert_eq(tr_fail_errno(&error, TR_ERR_NOT_FOUND, ENOENT, "open %s", "/x"), TR_ERR_NOT_FOUND);
  cr_assert_str_eq(error.message, "open /x: No such file or directory");
}

Test(status, errno_values_map_to_statuses) {
  cr_assert_eq(tr_status_from_errno(ENOENT), TR_ERR_NOT_FOUND);
  cr_assert_eq(tr_status_from_errno(ENOSPC), TR_ERR_NO_SPACE);
  cr_assert_eq(tr_status_from_errno(EDQUOT), TR_ERR_NO_SPACE);
  cr_assert_eq(tr_status_from_errno(EACCES), TR_ERR_DENIED);
  cr_assert_eq(tr_status_from_errno(ENOMEM), TR_ERR_NO_MEMORY);
  cr_assert_eq(tr_status_from_errno(EBADF), TR_ERR_IO);
}

Test(status, context_stands_before_the_message_and_keeps_rank_and_status) {
  tr_error error;
  tr_fail(&error, TR_ERR_PEER, "connection reset");
  error.rank = 3;
  cr_assert_eq(tr_error_context(&error, TR_ERR_PEER, "step %d", 9), TR_ERR_PEER);
  cr_assert_str_eq(error.message, "step 9: connection reset");
  cr_assert_eq(error.rank, 3);
  cr_assert_eq(tr_error_context(NULL, TR_ERR_IO, "x"), TR_ERR_IO);
}
