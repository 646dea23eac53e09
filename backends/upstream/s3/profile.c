#include "profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/io.h"
#include "base/text.h"

#define ORIGIN      "s3"
#define FILE_MAX    ((size_t)1 << 20)
#define ENTRIES_MAX 10000

enum kind { PROFILE, SERVICES, OTHER };

/* The pieces lie in the file's text. */
struct entry {
  enum s3_profile_file file;
  enum kind kind;
  const char *section;
  const char *group; /* the key that it is indented below; NULL: none */
  const char *key;   /* NULL: stands for the section itself */
  const char *value;
};

struct text {
  char *data;
  size_t size;
};

struct s3_profiles {
  struct text texts[2]; /* of each file */
  struct entry *entries;
  size_t count, capacity;
};

struct s3_profiles *s3_profiles_new(void) {
  return calloc(1, sizeof(struct s3_profiles));
}

void s3_profiles_free(struct s3_profiles *profiles) {
  if (!profiles) return;
  for (int i = 0; i < 2; i++) {
    if (profiles->texts[i].data) OPENSSL_cleanse(profiles->texts[i].data, profiles->texts[i].size);
    free(profiles->texts[i].data);
  }
  free(profiles->entries);
  free(profiles);
}

/* ---- reading a file ---- */

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

/* Cut the space around a piece of text, in place. */
static char *trim(char *text) {
  while (is_space(*text)) text++;
  size_t size = strlen(text);
  while (size && is_space(text[size - 1])) size--;
  text[size] = 0;
  return text;
}

static bool append(struct s3_profiles *profiles, const struct entry *entry) {
  if (profiles->count == profiles->capacity) {
    size_t capacity = profiles->capacity ? 2 * profiles->capacity : 32;
    struct entry *entries = realloc(profiles->entries, capacity * sizeof(*entries));
    if (!entries) return false;
    profiles->entries = entries;
    profiles->capacity = capacity;
  }
  profiles->entries[profiles->count++] = *entry;
  return true;
}

/* "[default]", "[profile NAME]", "[services NAME]" of config; "[NAME]" of credentials. */
static void begin_section(struct entry *entry, enum s3_profile_file file, char *line) {
  char *end = strchr(line, ']');
  if (end) *end = 0;
  char *name = trim(line + 1);
  size_t word = strcspn(name, " \t");
  bool two = name[word] != 0;
  bool profile = two && word == 7 && strncmp(name, "profile", 7) == 0;
  bool services = two && word == 8 && strncmp(name, "services", 8) == 0;
  *entry = (struct entry){.file = file, .kind = OTHER, .section = name};
  if (file == S3_CREDENTIALS || strcmp(name, "default") == 0) {
    entry->kind = PROFILE;
  } else if (profile || services) {
    entry->kind = profile ? PROFILE : SERVICES;
    entry->section = trim(name + word);
  }
  char *quoted = (char *)(uintptr_t)entry->section;
  size_t size = strlen(quoted);
  if (size >= 2 && (quoted[0] == '"' || quoted[0] == '\'') && quoted[size - 1] == quoted[0]) {
    quoted[size - 1] = 0;
    entry->section++;
  }
}

/* A comment behind a value has space before it. */
static void cut_comment(char *value) {
  for (char *at = value; *at; at++) {
    if ((*at == '#' || *at == ';') && at > value && is_space(at[-1])) {
      *at = 0;
      return;
    }
  }
}

/* "key = value", indented if it belongs to the key before. false: it is neither. */
static bool take_line(struct entry *entry, char *line, const char **parent) {
  char *equals = strchr(line, '=');
  bool indented = is_space(*line);
  if (!equals || (indented && !*parent)) return false;
  *equals = 0;
  cut_comment(equals + 1);
  char *key = trim(line);
  for (char *at = key; *at; at++) *at = ascii_lower(*at);
  entry->key = key;
  entry->value = trim(equals + 1);
  entry->group = indented ? *parent : NULL;
  if (!indented) *parent = *entry->value ? NULL : key;
  return *key != 0;
}

static mc_status take_text(struct s3_profiles *profiles, enum s3_profile_file file, const char *name, mc_error *err) {
  struct entry section = {.kind = OTHER, .section = ""};
  const char *parent = NULL;
  for (char *line = profiles->texts[file].data, *next; line; line = next) {
    next = strchr(line, '\n');
    if (next) *next++ = 0;
    struct entry entry = section;
    const char *first = line + strspn(line, " \t\r");
    if (!*first || *first == '#' || *first == ';') continue;
    if (*line == '[') {
      begin_section(&section, file, line);
      entry = section;
      parent = NULL;
    } else if (!take_line(&entry, line, &parent)) {
      continue;
    }
    if (profiles->count >= ENTRIES_MAX) {
      return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s has more than 10000 lines that count", name);
    }
    if (!append(profiles, &entry)) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for profiles");
  }
  return MC_OK;
}

mc_status s3_profiles_add(struct s3_profiles *profiles, enum s3_profile_file file, const char *name, const char *text,
                          size_t size, mc_error *err) {
  struct text *copy = &profiles->texts[file];
  if (memchr(text, 0, size)) return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s is no text", name);
  copy->data = malloc(size + 1);
  if (!copy->data) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for profiles");
  memcpy(copy->data, text, size);
  copy->data[size] = 0;
  copy->size = size;
  return take_text(profiles, file, name, err);
}

/* Where a file is: as a variable says, or in the home folder. NULL: nowhere, or no memory. */
static char *path_of(const struct s3_environment *environment, enum s3_variable variable, const char *usual) {
  const char *path = environment->values[variable], *home = environment->values[S3_HOME];
  if (!path) return home ? format_str("%s/%s", home, usual) : NULL;
  if (strncmp(path, "~/", 2) == 0 && home) return format_str("%s/%s", home, path + 2);
  return strdup(path);
}

static mc_status read_file(struct s3_profiles *profiles, enum s3_profile_file file, const char *path, mc_error *err) {
  void *text = NULL;
  size_t size = 0;
  int error = path ? file_read(path, &text, &size, FILE_MAX) : ENOENT;
  if (error == ENOENT || error == ENOTDIR) return MC_OK;
  char buffer[128];
  if (error) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "can't read %.200s: %s", path,
                        strerror_r(error, buffer, sizeof(buffer)));
  }
  mc_status status = s3_profiles_add(profiles, file, path, text, size, err);
  OPENSSL_cleanse(text, size);
  free(text);
  return status;
}

mc_status s3_profiles_read(struct s3_profiles **out, const struct s3_environment *environment, mc_error *err) {
  struct s3_profiles *profiles = s3_profiles_new();
  char *credentials = path_of(environment, S3_CREDENTIALS_FILE, ".aws/credentials");
  char *config = path_of(environment, S3_CONFIG_FILE, ".aws/config");
  mc_status status = MC_OK;
  if (!profiles) status = mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for profiles");
  if (!status) status = read_file(profiles, S3_CREDENTIALS, credentials, err);
  if (!status) status = read_file(profiles, S3_CONFIG, config, err);
  free(credentials);
  free(config);
  if (status) s3_profiles_free(profiles);
  *out = status ? NULL : profiles;
  return status;
}

/* ---- looking things up ---- */

/* "s3.endpoint_url" is the key of a group. */
static bool is_key(const struct entry *entry, const char *key) {
  const char *dot = strchr(key, '.');
  if (!entry->key || !dot != !entry->group) return false;
  if (!dot) return strcmp(entry->key, key) == 0;
  size_t size = (size_t)(dot - key);
  return strncmp(entry->group, key, size) == 0 && entry->group[size] == 0 && strcmp(entry->key, dot + 1) == 0;
}

/* What is said last counts. */
static const char *find(const struct s3_profiles *profiles, enum s3_profile_file file, enum kind kind,
                        const char *section, const char *key) {
  const char *found = NULL;
  for (size_t i = 0; i < profiles->count; i++) {
    const struct entry *entry = &profiles->entries[i];
    if (entry->file == file && entry->kind == kind && strcmp(entry->section, section) == 0 && is_key(entry, key)) {
      found = entry->value;
    }
  }
  return found && *found ? found : NULL;
}

bool s3_profiles_have(const struct s3_profiles *profiles, const char *profile) {
  for (size_t i = 0; i < profiles->count; i++) {
    const struct entry *entry = &profiles->entries[i];
    if (entry->kind == PROFILE && strcmp(entry->section, profile) == 0) return true;
  }
  return false;
}

const char *s3_profiles_value_in(const struct s3_profiles *profiles, enum s3_profile_file file, const char *profile,
                                 const char *key) {
  return find(profiles, file, PROFILE, profile, key);
}

const char *s3_profiles_value(const struct s3_profiles *profiles, const char *profile, const char *key) {
  const char *value = find(profiles, S3_CREDENTIALS, PROFILE, profile, key);
  return value ? value : find(profiles, S3_CONFIG, PROFILE, profile, key);
}

const char *s3_profiles_endpoint(const struct s3_profiles *profiles, const char *profile, const char *service) {
  const char *services = s3_profiles_value(profiles, profile, "services");
  bool s3 = strcmp(service, "s3") == 0;
  const char *key = s3 ? "s3.endpoint_url" : "sts.endpoint_url";
  const char *found = services ? find(profiles, S3_CONFIG, SERVICES, services, key) : NULL;
  if (!found) found = s3_profiles_value(profiles, profile, key); /* as a plugin of the aws command has it */
  return found ? found : s3_profiles_value(profiles, profile, "endpoint_url");
}
