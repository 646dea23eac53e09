/* Reading a configuration file: one flat YAML mapping of names to values. */
#ifndef SERVER_YAML_H
#define SERVER_YAML_H

#include <modelcache/error.h>

#define YAML_FILE_MAX ((size_t)1 << 20)

/* One `key: value`. Both are valid during the call; a failure ends the reading. */
typedef mc_status yaml_pair(void *user, const char *key, const char *value, mc_error *err);

/* Report each pair of the text, in order. Errors begin with "NAME:LINE: ". MC_INVALID_ARGUMENT for anything but a flat
 * mapping; an empty document is an empty mapping. */
mc_status yaml_parse(const char *name, const void *text, size_t size, yaml_pair *pair, void *user, mc_error *err);
/* The same for a file of at most YAML_FILE_MAX bytes. Blocks on the disk. */
mc_status yaml_read(const char *path, yaml_pair *pair, void *user, mc_error *err);

#endif
