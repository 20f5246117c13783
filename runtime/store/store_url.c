/* URLs as text: brace lists and joining. Pure.
 *
 * A brace group is a list {a,b} or a range {000..015} (whole numbers; padded with zeros to the width of its longer end
 * when either is written with leading zeros). Several groups multiply, the last one moves fastest, as in a shell. */
#include <stdio.h>
#include <string.h>
#include <trainrun/store.h>

enum { URL_BYTES_MAX = 8 << 10, GROUPS_MAX = 16, URLS_MAX = 1000000, TEXT_BYTES_MAX = 256 << 20 };

typedef struct brace_group {
  const char *literal; /* the text before the group */
  size_t literal_bytes;
  const char *body; /* between the braces */
  size_t body_bytes;
  bool range;
  bool down;
  uint64_t first;
  int width;
  uint64_t count; /* alternatives */
} brace_group;

typedef struct url_pattern {
  brace_group groups[GROUPS_MAX];
  size_t group_count;
  const char *tail; /* the text after the last group */
  uint64_t count;   /* URLs */
} url_pattern;

static tr_status fail(tr_error *error, const char *url, const char *what) {
  return tr_fail(error, TR_ERR_CONFIG, "'%s': %s", url, what);
}

/* Up to 18 digits and nothing else. */
static bool read_number(const char *text, size_t bytes, uint64_t *value) {
  if (bytes == 0 || bytes > 18) return false;
  uint64_t number = 0;
  for (size_t i = 0; i < bytes; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    number = number * 10 + (uint64_t)(text[i] - '0');
  }
  *value = number;
  return true;
}

static bool parse_range(brace_group *group) {
  const char *dots = memmem(group->body, group->body_bytes, "..", 2);
  if (dots == NULL) return false;
  const size_t a_bytes = (size_t)(dots - group->body), b_bytes = group->body_bytes - a_bytes - 2;
  uint64_t a = 0, b = 0;
  if (!read_number(group->body, a_bytes, &a) || !read_number(dots + 2, b_bytes, &b)) return false;
  const bool padded = (a_bytes > 1 && group->body[0] == '0') || (b_bytes > 1 && dots[2] == '0');
  group->range = true;
  group->down = a > b;
  group->first = a;
  group->width = padded ? (int)(a_bytes > b_bytes ? a_bytes : b_bytes) : 0;
  group->count = (a > b ? a - b : b - a) + 1;
  return true;
}

static tr_status parse_group(brace_group *group, const char *url, tr_error *error) {
  if (memchr(group->body, '{', group->body_bytes) != NULL) return fail(error, url, "a brace list inside a brace list");
  if (memchr(group->body, ',', group->body_bytes) == NULL) {
    if (parse_range(group)) return TR_OK;
    return fail(error, url, "a brace list is neither {a,b} nor {000..015}");
  }
  group->count = 1;
  for (size_t i = 0; i < group->body_bytes; i++) group->count += group->body[i] == ',';
  return TR_OK;
}

static tr_status parse(const char *url, url_pattern *pattern, tr_error *error) {
  pattern->count = 1;
  const char *at = url;
  for (;;) {
    const size_t literal_bytes = strcspn(at, "{}");
    if (at[literal_bytes] == '\0') break;
    if (at[literal_bytes] == '}') return fail(error, url, "a } without its {");
    if (pattern->group_count == GROUPS_MAX) return fail(error, url, "more than 16 brace lists");
    brace_group *group = &pattern->groups[pattern->group_count++];
    *group = (brace_group){.literal = at, .literal_bytes = literal_bytes, .body = at + literal_bytes + 1};
    const char *close = strchr(group->body, '}');
    if (close == NULL) return fail(error, url, "a { without its }");
    group->body_bytes = (size_t)(close - group->body);
    TR_TRY(parse_group(group, url, error));
    if (group->count > URLS_MAX / pattern->count)
      return fail(error, url, "the brace lists make more than 1,000,000 URLs");
    pattern->count *= group->count;
    at = close + 1;
  }
  pattern->tail = at;
  return TR_OK;
}

/* Alternative `i` of a group into `to`; returns its bytes. */
static size_t write_alternative(const brace_group *group, uint64_t i, char *to, size_t room) {
  if (group->range) {
    const uint64_t number = group->down ? group->first - i : group->first + i;
    return (size_t)snprintf(to, room, "%0*llu", group->width, (unsigned long long)number);
  }
  const char *at = group->body, *end = group->body + group->body_bytes;
  for (; i > 0; i--) at = (const char *)memchr(at, ',', (size_t)(end - at)) + 1;
  const char *comma = memchr(at, ',', (size_t)(end - at));
  const size_t bytes = (size_t)((comma != NULL ? comma : end) - at);
  memcpy(to, at, bytes);
  return bytes;
}

/* URL number `index`, in mixed radix over the groups. `text` has room: no alternative is longer than its group's text
 * or 20 digits. */
static size_t write_url(const url_pattern *pattern, uint64_t index, char *text, size_t room) {
  uint64_t choice[GROUPS_MAX];
  for (size_t g = pattern->group_count; g > 0; g--) {
    choice[g - 1] = index % pattern->groups[g - 1].count;
    index /= pattern->groups[g - 1].count;
  }
  size_t at = 0;
  for (size_t g = 0; g < pattern->group_count; g++) {
    const brace_group *group = &pattern->groups[g];
    memcpy(text + at, group->literal, group->literal_bytes);
    at += group->literal_bytes;
    at += write_alternative(group, choice[g], text + at, room - at);
  }
  const size_t tail_bytes = strlen(pattern->tail);
  memcpy(text + at, pattern->tail, tail_bytes + 1);
  return at + tail_bytes;
}

tr_status tr_url_expand(tr_arena *arena, const char *url, const char *const **urls, size_t *count, tr_error *error) {
  if (url == NULL || url[0] == '\0') return tr_fail(error, TR_ERR_CONFIG, "a URL is empty");
  if (strlen(url) >= URL_BYTES_MAX) return tr_fail(error, TR_ERR_CONFIG, "'%.60s…': the URL is too long", url);
  url_pattern pattern = {0};
  TR_TRY(parse(url, &pattern, error));
  const char **list = tr_arena_alloc(arena, (size_t)pattern.count * sizeof *list);
  if (list == NULL) return tr_fail_memory(error, "a list of URLs", (size_t)pattern.count * sizeof *list);
  size_t total = 0;
  for (uint64_t i = 0; i < pattern.count; i++) {
    char text[URL_BYTES_MAX + GROUPS_MAX * 24];
    const size_t bytes = write_url(&pattern, i, text, sizeof text);
    total += bytes;
    if (total > TEXT_BYTES_MAX) return fail(error, url, "the brace lists make more than 256 MiB of text");
    list[i] = tr_arena_strndup(arena, text, bytes);
    if (list[i] == NULL) return tr_fail_memory(error, "a list of URLs", total);
  }
  *urls = list;
  *count = (size_t)pattern.count;
  return TR_OK;
}

const char *tr_url_join(tr_arena *arena, const char *base, const char *path) {
  size_t base_bytes = strlen(base);
  while (path[0] == '/') path++;
  if (path[0] == '\0') return tr_arena_strdup(arena, base);
  if (base_bytes == 0) return tr_arena_strdup(arena, path);
  /* The slashes of "memory://" and that of the root itself are no separators to be dropped. */
  const char *scheme = strstr(base, "://");
  size_t kept = scheme != NULL ? (size_t)(scheme - base) + 3 : 0;
  if (base[kept] == '/') kept++;
  while (base_bytes > kept && base[base_bytes - 1] == '/') base_bytes--;
  const char *slash = base[base_bytes - 1] == '/' ? "" : "/";
  return tr_arena_printf(arena, "%.*s%s%s", (int)base_bytes, base, slash, path);
}
