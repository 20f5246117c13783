/* Cutting a command into words: one pass with the quote that is open. */
#include "s3_words.h"

#include <string.h>

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

typedef struct cutter {
  s3_words *words;
  size_t bytes;
  bool in_word;
} cutter;

static bool put(cutter *c, char letter) {
  s3_words *words = c->words;
  if (c->bytes + 2 > sizeof words->text) return false;
  if (!c->in_word) {
    if (words->count == S3_WORDS_MAX) return false;
    words->items[words->count++] = words->text + c->bytes;
    c->in_word = true;
  }
  words->text[c->bytes] = letter;
  if (letter != '\0') c->bytes++;
  return true;
}

static void end_word(cutter *c) {
  if (!c->in_word) return;
  c->words->text[c->bytes++] = '\0';
  c->in_word = false;
}

bool s3_words_split(const char *command, s3_words *words, const char **wrong) {
  cutter c = {.words = words};
  char quote = '\0';
  bool fits = true;
  words->count = 0;
  for (; *command != '\0' && fits; command++) {
    const char letter = *command;
    if (quote == '\0' && is_blank(letter)) {
      end_word(&c);
    } else if (quote == '\0' && (letter == '\'' || letter == '"')) {
      quote = letter;
      fits = put(&c, '\0'); /* "" is a word too */
    } else if (letter == quote) {
      quote = '\0';
    } else if (letter == '\\' && quote != '\'') {
      const char next = command[1];
      if (next == '\0') {
        *wrong = "it ends in a backslash";
        return false;
      }
      if (quote == '"' && next != '"' && next != '\\') {
        fits = put(&c, letter);
      } else {
        fits = put(&c, next);
        command++;
      }
    } else {
      fits = put(&c, letter);
    }
  }
  end_word(&c);
  words->items[words->count] = NULL;
  *wrong = quote != '\0' ? "a quote does not end" : !fits ? "it is too long" : "it is empty";
  return quote == '\0' && fits && words->count > 0;
}
