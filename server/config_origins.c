/* The two keys of the YAML file whose values are not plain: 'origins', a list of rules, and 'credentials'. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

struct place {
  struct reading *reading;
  const char *path; /* of the file */
  yaml_parser_t *parser;
  yaml_event_t event; /* the one to be looked at */
  const char *section;
  const char *name; /* of the credentials, or NULL */
};

static int wrong_in(struct place *place, size_t line, const char *key, const char *text) {
  return complain(place->reading, "%.200s:%zu: %s: %.60s%s%.60s%s%s", place->path, line, place->section,
                  place->name ? place->name : "", place->name ? ": " : "", key, *key ? ": " : "", text);
}

static size_t line_of(const struct place *place) {
  return place->event.start_mark.line + 1;
}

static int wrong(struct place *place, const char *key, const char *text) {
  return wrong_in(place, line_of(place), key, text);
}

static int next(struct place *place) {
  yaml_event_delete(&place->event);
  if (yaml_parser_parse(place->parser, &place->event)) return -1;
  const char *problem = place->parser->problem;
  return wrong_in(place, place->parser->problem_mark.line + 1, "", problem ? problem : "this is not YAML");
}

/* The plain text that the event is, malloced. */
static int take_text(struct place *place, const char *key, char **out) {
  const yaml_event_t *event = &place->event;
  if (event->type != YAML_SCALAR_EVENT) {
    return wrong(place, key, *key ? "it takes one plain value" : "a key is a plain name");
  }
  const char *text = (const char *)event->data.scalar.value;
  bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  if (event->data.scalar.length != strlen(text)) return wrong(place, key, "a zero byte is no part of a text");
  if (plain && (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)) {
    return wrong(place, key, "it has no value; leave the line out for the default");
  }
  *out = strdup(text);
  return *out ? -1 : wrong(place, key, "no memory");
}

/* Call `take` for each item of a list, or for each key of a mapping, until the event that ends it. */
static int each(struct place *place, yaml_event_type_t end, void *to, int (*take)(struct place *place, void *to)) {
  int code = next(place);
  while (code < 0 && place->event.type != end) {
    code = take(place, to);
    if (code < 0) code = next(place);
  }
  return code;
}

/* ---- origins ---- */

struct rule {
  mc_origin_rule *rule;
  uint32_t given; /* 1 << row */
};

static int unknown_key(struct place *place, const char *key) {
  char text[300] = "there is no such key in a rule; there is: ";
  for (const mc_option_row *row = mc_origin_rule_rows(); row->name; row++) {
    size_t used = strlen(text);
    snprintf(text + used, sizeof(text) - used, "%s%s", row->name, row[1].name ? ", " : "");
  }
  return wrong(place, key, text);
}

/* `value` becomes the rule's, where it is a text. */
static int set_key(struct place *place, struct rule *to, const mc_option_row *row, char *value) {
  mc_error error = MC_ERROR_INIT;
  mc_status status = mc_option_parse(row, to->rule, value, &error);
  const char *what = error.message; /* it begins with the row's own name */
  if (strncmp(what, row->name, strlen(row->name)) == 0) what += strlen(row->name) + 2;
  int code = status ? wrong(place, row->name, what) : -1;
  if (row->type != MC_OPTION_STRING || !*value) free(value);
  return code;
}

static int take_rule_key(struct place *place, void *user) {
  struct rule *to = user;
  const mc_option_row *row = mc_origin_rule_rows();
  char *key, *value;
  int code = take_text(place, "", &key);
  if (code >= 0) return code;
  while (row->name && strcmp(row->name, key) != 0) row++;
  uint32_t bit = 1u << (row - mc_origin_rule_rows());
  if (!row->name) code = unknown_key(place, key);
  if (row->name && to->given & bit) code = wrong(place, key, "it is set twice");
  free(key);
  to->given |= bit;
  if (code < 0) code = next(place);
  if (code < 0) code = take_text(place, row->name, &value);
  return code < 0 ? set_key(place, to, row, value) : code;
}

static int take_rule(struct place *place, void *user) {
  mc_options *options = user;
  size_t line = line_of(place), count = options->origin_count;
  if (place->event.type != YAML_MAPPING_START_EVENT) {
    return wrong(place, "", "a rule is 'key: value' lines, the first of them '- prefix: URL'");
  }
  mc_origin_rule *rules = realloc((void *)options->origins, (count + 1) * sizeof(*rules));
  if (!rules) return wrong(place, "", "no memory");
  options->origins = rules;
  options->origin_count = count + 1;
  struct rule to = {.rule = &rules[count]};
  *to.rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  int code = each(place, YAML_MAPPING_END_EVENT, &to, take_rule_key);
  if (code < 0 && !to.rule->prefix) code = wrong_in(place, line, "", "the rule has no prefix");
  return code;
}

/* ---- credentials; no message has a value in it ---- */

static void wipe(char *text) {
  if (text) explicit_bzero(text, strlen(text));
  free(text);
}

/* Takes over `key` and `value`. */
static int add_setting(struct place *place, mc_credentials *to, char *key, char *value) {
  mc_setting *settings = realloc((void *)to->settings, (to->count + 1) * sizeof(*settings));
  if (!settings) {
    free(key);
    wipe(value);
    return wrong(place, "", "no memory");
  }
  to->settings = settings;
  settings[to->count++] = (mc_setting){key, value};
  return -1;
}

static bool is_set(const mc_credentials *credentials, const char *key) {
  for (size_t i = 0; i < credentials->count; i++) {
    if (strcmp(credentials->settings[i].key, key) == 0) return true;
  }
  return false;
}

/* "key: value", or "key_file: path", of a file that is read when the value is needed. */
static int take_setting(struct place *place, void *user) {
  mc_credentials *to = user;
  char *key, *value = NULL;
  int code = take_text(place, "", &key);
  if (code >= 0) return code;
  if (is_set(to, key)) code = wrong(place, key, "it is set twice");
  if (code < 0) code = next(place);
  if (code < 0) code = take_text(place, key, &value);
  if (code < 0) return add_setting(place, to, key, value);
  free(key);
  return code;
}

static int take_credentials(struct place *place, void *user) {
  mc_options *options = user;
  size_t count = options->credentials_count;
  char *name;
  int code = take_text(place, "", &name);
  if (code >= 0) return code;
  for (size_t i = 0; code < 0 && i < count; i++) {
    if (strcmp(options->credentials[i].name, name) == 0) code = wrong(place, name, "there are two of this name");
  }
  mc_credentials *list = code < 0 ? realloc((void *)options->credentials, (count + 1) * sizeof(*list)) : NULL;
  if (!list) {
    if (code < 0) code = wrong(place, name, "no memory");
    free(name);
    return code;
  }
  options->credentials = list;
  options->credentials_count = count + 1;
  list[count] = (mc_credentials){.name = name};
  code = next(place);
  place->name = name;
  if (code < 0 && place->event.type != YAML_MAPPING_START_EVENT) {
    code = wrong(place, "", "it takes 'key: value' lines of its own");
  }
  if (code < 0) code = each(place, YAML_MAPPING_END_EVENT, &list[count], take_setting);
  place->name = NULL;
  return code;
}

/* ---- both ---- */

const char *const config_sections[] = {"origins", "credentials", NULL};

int config_read_section(struct reading *reading, const char *section, const char *path, yaml_parser_t *parser) {
  struct place place = {.reading = reading, .path = path, .parser = parser, .section = section};
  mc_options *options = &reading->options->cache;
  bool rules = strcmp(section, "origins") == 0;
  int code = next(&place);
  if (code < 0 && place.event.type != (rules ? YAML_SEQUENCE_START_EVENT : YAML_MAPPING_START_EVENT)) {
    code = wrong(&place, "",
                 rules ? "it takes a list of rules, each '- prefix: URL' and further 'key: value' lines"
                       : "it takes names, and below each 'key: value' lines");
  }
  if (code < 0 && rules) code = each(&place, YAML_SEQUENCE_END_EVENT, options, take_rule);
  if (code < 0 && !rules) code = each(&place, YAML_MAPPING_END_EVENT, options, take_credentials);
  yaml_event_delete(&place.event);
  return code;
}

void config_free_sections(struct server_options *options) {
  mc_options *own = &options->cache;
  for (size_t i = 0; i < own->origin_count; i++) {
    for (const mc_option_row *row = mc_origin_rule_rows(); row->name; row++) {
      if (row->type == MC_OPTION_STRING) free(*(char **)((char *)&own->origins[i] + row->offset));
    }
  }
  for (size_t i = 0; i < own->credentials_count; i++) {
    const mc_credentials *credentials = &own->credentials[i];
    for (size_t k = 0; k < credentials->count; k++) {
      free((char *)credentials->settings[k].key);
      wipe((char *)credentials->settings[k].value);
    }
    free((void *)credentials->settings);
    free((char *)credentials->name);
  }
  free((void *)own->origins);
  free((void *)own->credentials);
  own->origins = NULL;
  own->credentials = NULL;
  own->origin_count = own->credentials_count = 0;
}
