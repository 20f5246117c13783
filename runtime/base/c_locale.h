/* The C locale for a few calls of this thread, so that a program that chose a decimal comma still writes and reads
 * files with a decimal point. Private to runtime/base.
 *
 * glibc answers newlocale(LC_ALL_MASK, "C") with a constant object: nothing is allocated and nothing needs freeing. */
#ifndef TR_BASE_C_LOCALE_H
#define TR_BASE_C_LOCALE_H

#include <locale.h>

static inline locale_t tr_c_locale_enter(void) {
  const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  return c != (locale_t)0 ? uselocale(c) : (locale_t)0;
}

static inline void tr_c_locale_leave(locale_t before) {
  if (before != (locale_t)0) uselocale(before);
}

#endif
