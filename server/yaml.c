#include "yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define ORIGIN "config"

struct reading {
  const char *name;
  yaml_parser_t parser;
  yaml_event_t event;
};

static mc_status fail(const struct reading *reading, size_t line, const char *what, mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s:%zu: %s", reading->name, line + 1, what);
}

/* The next event replaces the one before. */
static mc_status next(struct reading *reading, mc_error *err) {
  yaml_event_delete(&reading->event);
  if (yaml_parser_parse(&reading->parser, &reading->event)) return MC_OK;
  const char *problem = reading->parser.problem;
  return fail(reading, reading->parser.problem_mark.line, problem ? problem : "this is not YAML", err);
}

static size_t line_of(const struct reading *reading) {
  return reading->event.start_mark.line;
}

/* The text of the event, a scalar, malloced. What has a zero byte inside would be cut short without a word. */
static mc_status scalar(char **out, struct reading *reading, const char *what, mc_error *err) {
  if (reading->event.type != YAML_SCALAR_EVENT) return fail(reading, line_of(reading), what, err);
  const char *text = (const char *)reading->event.data.scalar.value;
  if (strlen(text) != reading->event.data.scalar.length) {
    return fail(reading, line_of(reading), "a zero byte has no place here", err);
  }
  *out = strdup(text);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to read %s", reading->name);
}

static mc_status read_pair(struct reading *reading, yaml_pair *pair, void *user, mc_error *err) {
  char *key = NULL, *value = NULL;
  mc_error why = MC_ERROR_INIT;
  size_t line = line_of(reading);
  mc_status status = scalar(&key, reading, "an option's name is a plain word", err);
  if (!status) status = next(reading, err);
  if (!status) status = scalar(&value, reading, "an option has one value; lists and maps have no place here", err);
  if (!status && (status = pair(user, key, value, &why))) {
    mc_error_set(err, status, ORIGIN, "%s:%zu: %s", reading->name, line + 1, why.message);
  }
  free(key);
  free(value);
  return status;
}

static mc_status read_mapping(struct reading *reading, yaml_pair *pair, void *user, mc_error *err) {
  mc_status status;
  while (!(status = next(reading, err)) && reading->event.type != YAML_MAPPING_END_EVENT) {
    status = read_pair(reading, pair, user, err);
    if (status) return status;
  }
  return status;
}

static bool is_empty_scalar(const yaml_event_t *event) {
  return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0;
}

static mc_status read_stream(struct reading *reading, yaml_pair *pair, void *user, mc_error *err) {
  bool had_document = false;
  mc_status status;
  while (!(status = next(reading, err)) && reading->event.type != YAML_STREAM_END_EVENT) {
    switch (reading->event.type) {
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
      break;
    case YAML_DOCUMENT_START_EVENT:
      if (had_document) return fail(reading, line_of(reading), "a second document begins here", err);
      had_document = true;
      break;
    case YAML_MAPPING_START_EVENT:
      status = read_mapping(reading, pair, user, err);
      if (status) return status;
      break;
    default:
      if (is_empty_scalar(&reading->event)) break;
      return fail(reading, line_of(reading), "this is not a map of 'option: value' lines", err);
    }
  }
  return status;
}

mc_status yaml_parse(const char *name, const void *text, size_t size, yaml_pair *pair, void *user, mc_error *err) {
  struct reading reading = {.name = name};
  if (!yaml_parser_initialize(&reading.parser)) {
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to read %s", name);
  }
  yaml_parser_set_input_string(&reading.parser, text, size);
  mc_status status = read_stream(&reading, pair, user, err);
  yaml_event_delete(&reading.event);
  yaml_parser_delete(&reading.parser);
  return status;
}

mc_status yaml_read(const char *path, yaml_pair *pair, void *user, mc_error *err) {
  FILE *file = fopen(path, "re");
  if (!file) return mc_error_errno(err, errno, ORIGIN, "can't read the configuration %s", path);
  mc_status status = MC_OK;
  char *text = malloc(YAML_FILE_MAX + 1);
  size_t size = text ? fread(text, 1, YAML_FILE_MAX + 1, file) : 0;
  if (!text) {
    status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory to read %s", path);
  } else if (ferror(file)) {
    status = mc_error_errno(err, errno, ORIGIN, "can't read the configuration %s", path);
  } else if (size > YAML_FILE_MAX) {
    status = mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is longer than %zu bytes", path, YAML_FILE_MAX);
  }
  if (!status) status = yaml_parse(path, text, size, pair, user, err);
  free(text);
  fclose(file);
  return status;
}
