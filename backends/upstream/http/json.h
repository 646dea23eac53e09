/* Arrays in JSON documents of origins, one element at a time: the whole as a tree could be many times as large as the
 * text. */
#ifndef UPSTREAM_HTTP_JSON_H
#define UPSTREAM_HTTP_JSON_H

#include <stdbool.h>

#include <jansson.h>

struct http_json_array {
  const char *at, *end; /* at first: behind the '[', and behind the text */
  size_t most;          /* bytes of one element: what jansson makes of it is bounded */
  bool begun;
  bool broken; /* it could not be read to its end */
};

/* The next element, which the caller gives back; NULL: there is none, or `broken`. */
json_t *http_json_next(struct http_json_array *array);

#endif
