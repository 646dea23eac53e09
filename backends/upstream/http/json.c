#include "json.h"

#include <string.h>

static const char *skip_space(const char *at, const char *end) {
  while (at < end && memchr(" \t\r\n", *at, 4)) at++;
  return at;
}

/* Whether an element comes next, at which the array is then. */
static bool goes_on(struct http_json_array *array) {
  bool first = !array->begun;
  array->begun = true;
  array->at = skip_space(array->at, array->end);
  if (array->at < array->end && *array->at == ']') return false;
  if (first) return true;
  array->broken = array->at == array->end || *array->at++ != ',';
  return !array->broken;
}

json_t *http_json_next(struct http_json_array *array) {
  json_error_t stopped;
  if (array->broken || !goes_on(array)) return NULL;
  size_t left = (size_t)(array->end - array->at);
  json_t *element = json_loadb(array->at, left < array->most ? left : array->most, JSON_DISABLE_EOF_CHECK, &stopped);
  array->broken = !element;
  if (element) array->at += stopped.position;
  return element;
}
