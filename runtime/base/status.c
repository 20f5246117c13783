/* Status codes and error messages. Everything here is plain memory and may be called from any thread. */
#include <trainrun/status.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *tr_status_name(tr_status status) {
  switch (status) {
    case TR_OK: return "ok";
    case TR_ERR_INVALID: return "invalid";
    case TR_ERR_CONFIG: return "config";
    case TR_ERR_NOT_FOUND: return "not-found";
    case TR_ERR_EXISTS: return "exists";
    case TR_ERR_CORRUPT: return "corrupt";
    case TR_ERR_CHANGED: return "changed";
    case TR_ERR_UNSUPPORTED: return "unsupported";
    case TR_ERR_DENIED: return "denied";
    case TR_ERR_MISMATCH: return "mismatch";
    case TR_ERR_NO_MEMORY: return "no-memory";
    case TR_ERR_NO_SPACE: return "no-space";
    case TR_ERR_IO: return "io";
    case TR_ERR_UNAVAILABLE: return "unavailable";
    case TR_ERR_STORE: return "store";
    case TR_ERR_THROTTLED: return "throttled";
    case TR_ERR_PEER: return "peer";
    case TR_ERR_ABORTED: return "aborted";
    case TR_ERR_TIMEOUT: return "timeout";
    case TR_ERR_STOPPED: return "stopped";
    case TR_ERR_DIVERGED: return "diverged";
    case TR_ERR_CANCELLED: return "cancelled";
    case TR_ERR_BUG: return "bug";
  }
  return "unknown";
}

int tr_status_exit_code(tr_status status) {
  switch (status) {
    case TR_OK:
    case TR_ERR_CANCELLED: return 0;    /* it did what its owner wanted */
    case TR_ERR_UNAVAILABLE: return 69; /* EX_UNAVAILABLE */
    case TR_ERR_STOPPED: return 75;     /* EX_TEMPFAIL: requeue me */
    case TR_ERR_CONFIG: return 78;      /* EX_CONFIG */
    default: return 1;
  }
}

/* Shortens `text`, which vsnprintf cut at `length` bytes, so that it does not end inside a UTF-8 character. */
static void trim_partial_character(char *text, size_t length) {
  size_t start = length;
  while (start > 0 && length - start < 4 && ((unsigned char)text[start - 1] & 0xC0) == 0x80) start--;
  if (start == 0) return;
  const unsigned char lead = (unsigned char)text[start - 1];
  const size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  if (wanted > 1 && length - (start - 1) < wanted) text[start - 1] = '\0';
}

static void format_message(char text[TR_ERROR_MESSAGE_BYTES], const char *format, va_list arguments) {
  const int length = vsnprintf(text, TR_ERROR_MESSAGE_BYTES, format, arguments);
  if (length < 0) {
    text[0] = '\0';
  } else if (length >= TR_ERROR_MESSAGE_BYTES) {
    trim_partial_character(text, TR_ERROR_MESSAGE_BYTES - 1);
  }
}

/* Appends as much of `tail` as there is room for. */
static void append(char text[TR_ERROR_MESSAGE_BYTES], const char *tail) {
  const size_t length = strlen(text);
  const size_t room = TR_ERROR_MESSAGE_BYTES - 1 - length;
  const size_t wanted = strlen(tail);
  memcpy(text + length, tail, wanted < room ? wanted : room);
  text[length + (wanted < room ? wanted : room)] = '\0';
  if (wanted > room) trim_partial_character(text, TR_ERROR_MESSAGE_BYTES - 1);
}

/* The message is built beside the error and copied last, because arguments may point into error->message. */
static tr_status fill(tr_error *error, tr_status status, const char message[TR_ERROR_MESSAGE_BYTES]) {
  error->status = status;
  error->rank = -1;
  memcpy(error->message, message, strlen(message) + 1);
  return status;
}

tr_status tr_fail(tr_error *error, tr_status status, const char *format, ...) {
  if (error == NULL) return status;
  char message[TR_ERROR_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  format_message(message, format, arguments);
  va_end(arguments);
  return fill(error, status, message);
}

tr_status tr_fail_errno(tr_error *error, tr_status status, int errno_value, const char *format, ...) {
  if (error == NULL) return status;
  char message[TR_ERROR_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  format_message(message, format, arguments);
  va_end(arguments);
  char buffer[128];
  append(message, ": ");
  append(message, strerror_r(errno_value, buffer, sizeof buffer));
  return fill(error, status, message);
}

tr_status tr_status_from_errno(int errno_value) {
  switch (errno_value) {
    case 0: return TR_OK;
    case ENOENT:
    case ENOTDIR: return TR_ERR_NOT_FOUND;
    case EEXIST: return TR_ERR_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return TR_ERR_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS: return TR_ERR_DENIED;
    case ENOMEM: return TR_ERR_NO_MEMORY;
    case ETIMEDOUT: return TR_ERR_TIMEOUT;
    default: return TR_ERR_IO;
  }
}

tr_status tr_error_context(tr_error *error, tr_status status, const char *format, ...) {
  if (error == NULL) return status;
  char message[TR_ERROR_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  format_message(message, format, arguments);
  va_end(arguments);
  append(message, ": ");
  append(message, error->message);
  memcpy(error->message, message, strlen(message) + 1);
  return error->status;
}
