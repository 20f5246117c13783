/* The only file that knows toml++: TOML text in, tr_value tree out.
 *
 * Tables of toml++ iterate sorted; here they are put back into the order of the file. No C++ exception leaves this
 * file: a syntax error becomes a place and a message, a failed allocation of toml++ becomes TR_ERR_NO_MEMORY. */

/* Release builds of toml++ turn its assertions into assumptions, and a few of them do not hold for malformed text. Here
 * they are checked always and throw. */
#undef NDEBUG
namespace {
[[noreturn]] void broken_assertion();
}
#define TOML_ASSERT(expr) (static_cast<bool>(expr) ? static_cast<void>(0) : broken_assertion())

#define TOML_EXCEPTIONS                 1
#define TOML_HEADER_ONLY                1
#define TOML_ENABLE_FORMATTERS          0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#define TOML_MAX_NESTED_VALUES          64

#include <toml++/toml.h>

#include "config_internal.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <vector>

namespace {

/* Thrown by the conversion, caught at the boundary. */
struct refused {
  tr_place place;
  const char *message;
};

void broken_assertion() { throw refused{tr_place{0, 0}, "this is no TOML"}; }

struct converter {
  tr_arena *arena;

  template <typename T>
  T *take(std::size_t count) {
    void *p = tr_arena_alloc(arena, count * sizeof(T));
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<T *>(p);
  }

  const char *text(std::string_view from, tr_place place) {
    if (from.find('\0') != std::string_view::npos) throw refused{place, "a string must not contain a NUL character"};
    const char *copy = tr_arena_strndup(arena, from.data(), from.size());
    if (copy == nullptr) throw std::bad_alloc();
    return copy;
  }

  static tr_place place_of(const toml::source_region &region) {
    return tr_place{static_cast<uint32_t>(region.begin.line), static_cast<uint32_t>(region.begin.column)};
  }

  void table(const toml::table &from, tr_value *to, int depth) {
    struct member {
      const toml::key *key;
      const toml::node *node;
    };
    std::vector<member> members;
    members.reserve(from.size());
    for (auto &&[key, node] : from) members.push_back(member{&key, &node});
    std::stable_sort(members.begin(), members.end(), [](const member &a, const member &b) {
      const auto &x = a.key->source().begin, &y = b.key->source().begin;
      return x.line != y.line ? x.line < y.line : x.column < y.column;
    });
    tr_value *items = take<tr_value>(members.size());
    for (std::size_t i = 0; i < members.size(); i++) {
      const tr_place key_place = place_of(members[i].key->source());
      items[i].key = text(members[i].key->str(), key_place);
      items[i].key_place = key_place;
      value(*members[i].node, &items[i], depth + 1);
    }
    to->type = TR_VALUE_TABLE;
    to->items = items;
    to->count = members.size();
  }

  void array(const toml::array &from, tr_value *to, int depth) {
    tr_value *items = take<tr_value>(from.size());
    for (std::size_t i = 0; i < from.size(); i++) value(from[i], &items[i], depth + 1);
    to->type = TR_VALUE_ARRAY;
    to->items = items;
    to->count = from.size();
  }

  void value(const toml::node &from, tr_value *to, int depth) {
    to->place = place_of(from.source());
    if (depth > TR_CONFIG_MAX_DEPTH) throw refused{to->place, "values are nested too deeply (at most 64)"};
    switch (from.type()) {
      case toml::node_type::table: table(*from.as_table(), to, depth); break;
      case toml::node_type::array: array(*from.as_array(), to, depth); break;
      case toml::node_type::string:
        to->type = TR_VALUE_STRING;
        to->text = text(from.as_string()->get(), to->place);
        break;
      case toml::node_type::integer:
        to->type = TR_VALUE_INTEGER;
        to->integer = from.as_integer()->get();
        to->real = static_cast<double>(to->integer);
        break;
      case toml::node_type::floating_point:
        to->type = TR_VALUE_REAL;
        to->real = from.as_floating_point()->get();
        break;
      case toml::node_type::boolean:
        to->type = TR_VALUE_BOOLEAN;
        to->integer = from.as_boolean()->get() ? 1 : 0;
        break;
      default: throw refused{to->place, "dates and times have no use in a job file; put the text in quotes"};
    }
  }
};

void say(tr_toml_mistake *mistake, tr_place place, const char *message) noexcept {
  static const char prefix[] = "Error while parsing ";
  mistake->place = place;
  if (std::strncmp(message, prefix, sizeof prefix - 1) == 0) {
    std::snprintf(mistake->message, sizeof mistake->message, "cannot read %s", message + sizeof prefix - 1);
  } else {
    std::snprintf(mistake->message, sizeof mistake->message, "%s", message);
  }
}

}  // namespace

extern "C" tr_status tr_toml_parse(const char *text, size_t bytes, tr_arena *arena, tr_value *root,
                                   tr_toml_mistake *mistake, tr_error *error) {
  try {
    if (tr_toml_scan(text, bytes, mistake) != TR_OK) return TR_ERR_CONFIG;
    const toml::table parsed = toml::parse(std::string_view(text, bytes));
    tr_value tree = {};
    tree.place = tr_place{1, 1};
    converter{arena}.table(parsed, &tree, 0);
    *root = tree;
    return TR_OK;
  } catch (const toml::parse_error &e) {
    say(mistake, converter::place_of(e.source()), std::string(e.description()).c_str());
    return TR_ERR_CONFIG;
  } catch (const refused &e) {
    say(mistake, e.place, e.message);
    return TR_ERR_CONFIG;
  } catch (const std::bad_alloc &) {
    return tr_fail_memory(error, "the job file", bytes);
  } catch (const std::exception &e) {
    return tr_fail(error, TR_ERR_BUG, "toml++ failed: %s", e.what());
  }
}
