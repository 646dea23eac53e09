/* A hub in small, over http_origin's pages: one for each file, one for each folder that is listed, and one that says
 * which commit a branch is. A commit has the number of the version that was put last, and is there for files that were
 * not put again since: as after a history was squashed. Files are plain ones, or, of hf_lfs_origin, in LFS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/hf/address.h"
#include "base/buf.h"
#include "base/checksum.h"
#include "base/io.h"
#include "http_origin.h"
#include "upstream_origins.h"

extern const mc_upstream_ops hf_upstream_ops;

#define REPO      "org/name"
#define ROOT      "hf://" REPO "/"
#define RESOLVE   "/" REPO "/resolve/"
#define API       "/api/models/" REPO
#define BRANCH    "/branch" /* the page */
#define DIGITS    40        /* of a commit */
#define MAX_FILES 32
#define MAX_TEXTS 1024
#define TEXT_MAX  ((size_t)1 << 16)

struct origin {
  struct http_origin *server;
  mc_origin_rule rule;
  bool lfs;
  char endpoint[64];
  char *texts[MAX_TEXTS]; /* what was answered at some time, but files */
  unsigned text_count, count;
  struct file {
    char *name;
    const struct thing *thing;
    char oid[41];
  } files[MAX_FILES];
};

static void must(bool holds) {
  if (!holds) abort();
}

/* ---- targets and paths ---- */

/* RESOLVE "REVISION/PATH" is the page "/file/PATH", API "/tree/COMMIT/FOLDER?…" is "/tree/FOLDER". */
static bool read_target(struct http_asked *out, const char *target) {
  bool file = strncmp(target, RESOLVE, strlen(RESOLVE)) == 0;
  out->about = !file;
  if (strncmp(target, API "/revision/", strlen(API "/revision/")) == 0) {
    snprintf(out->path, sizeof(out->path), BRANCH);
    return true;
  }
  if (!file && strncmp(target, API "/tree/", strlen(API "/tree/")) != 0) return false;
  const char *revision = target + strlen(file ? RESOLVE : API "/tree/"), *path = strchr(revision, '/');
  if (!path) return false;
  if (file) out->version = (unsigned)strtoul(revision, NULL, 10); /* of a branch none */
  out->or_before = true;
  snprintf(out->path, sizeof(out->path), "/%s%.*s", file ? "file" : "tree", (int)strcspn(path, "?"), path);
  return true;
}

/* Malloced. */
static char *path_of(const char *name, bool tree) {
  struct buf path;
  buf_init(&path, TEXT_MAX);
  buf_append_str(&path, tree ? "/tree/" : "/file/");
  hf_escape(&path, name, !tree);
  return buf_take(&path);
}

/* ---- documents ---- */

static void put_text(struct origin *origin, const char *path, char *text) {
  must(path && text && origin->text_count < MAX_TEXTS);
  origin->texts[origin->text_count++] = text;
  http_origin_put(origin->server, path, text, strlen(text));
}

/* No name of the tests has what JSON would escape. */
static void append_file(struct buf *text, const struct file *file, bool lfs) {
  char digest[MC_DIGEST_HEX_SIZE];
  buf_printf(text, "{\"type\": \"file\", \"oid\": \"%s\", \"size\": %zu, \"path\": \"%s\"", file->oid,
             file->thing->size, file->name);
  if (lfs) buf_printf(text, ", \"lfs\": {\"oid\": \"%s\"}", mc_digest_hex(digest, &file->thing->digest));
  buf_append_str(text, "}");
}

/* `folder` without a '/' at its end. */
static void list(struct origin *origin, const char *folder) {
  struct buf text;
  size_t size = strlen(folder);
  char *path = path_of(folder, true);
  buf_init(&text, TEXT_MAX);
  buf_append_str(&text, "[");
  for (unsigned i = 0; i < origin->count; i++) {
    const struct file *file = &origin->files[i];
    if (strncmp(file->name, folder, size) != 0 || file->name[size] != '/') continue;
    if (text.size > 1) buf_append_str(&text, ", ");
    append_file(&text, file, origin->lfs);
  }
  buf_append_str(&text, "]");
  put_text(origin, path, buf_take(&text));
  free(path);
}

static void hf_mislead(struct origin *origin, const char *folder) {
  char *name = strndup(folder, strlen(folder) - 1), *path = path_of(name, true);
  put_text(origin, path, format_str("[{\"type\": \"file\", \"size\": 1, \"path\": \"%s/../../etc/passwd\"}]", name));
  free(name);
  free(path);
}

/* ---- the origin ---- */

static void put_branch(struct origin *origin, unsigned version) {
  put_text(origin, BRANCH, format_str("{\"sha\": \"%0*u\"}", DIGITS, version));
}

static struct origin *hf_start(mc_upstream_config *config) {
  static const struct http_face face = {read_target, "X-Repo-Commit", DIGITS, "X-Error-Code: EntryNotFound"};
  struct origin *origin = calloc(1, sizeof(*origin));
  must(origin != NULL);
  origin->server = http_origin_start();
  http_origin_speak(origin->server, &face);
  put_branch(origin, 0);
  snprintf(origin->endpoint, sizeof(origin->endpoint), "http://127.0.0.1:%u", http_origin_port(origin->server));
  origin->rule = (mc_origin_rule)MC_ORIGIN_RULE_INIT;
  origin->rule.prefix = "hf://";
  origin->rule.endpoint = origin->endpoint;
  origin->rule.credentials = "none";
  config->origins = &origin->rule;
  config->origin_count = 1;
  return origin;
}

static struct origin *lfs_start(mc_upstream_config *config) {
  struct origin *origin = hf_start(config);
  origin->lfs = true;
  return origin;
}

static void hf_stop(struct origin *origin) {
  http_origin_stop(origin->server);
  while (origin->text_count) free(origin->texts[--origin->text_count]);
  while (origin->count) free(origin->files[--origin->count].name);
  free(origin);
}

static const char *hf_root(const struct origin *origin) {
  (void)origin;
  return ROOT;
}

static struct file *find(struct origin *origin, const char *name) {
  for (unsigned i = 0; i < origin->count; i++) {
    if (strcmp(origin->files[i].name, name) == 0) return &origin->files[i];
  }
  return NULL;
}

static void name_blob(struct file *file) {
  struct checksum *sum;
  mc_checksum git;
  must(checksum_new(&sum, MC_CHECKSUM_GIT, file->thing->size, NULL) == MC_OK);
  checksum_update(sum, file->thing->data, file->thing->size);
  checksum_final(sum, &git);
  checksum_free(sum);
  for (size_t i = 0; i < 20; i++) snprintf(file->oid + 2 * i, 3, "%02x", git.bytes[i]);
}

static void hf_put(struct origin *origin, const char *name, const struct thing *thing) {
  char *path = path_of(name, false), digest[MC_DIGEST_HEX_SIZE];
  struct file *file = find(origin, name);
  if (!file) {
    must(origin->count < MAX_FILES);
    file = &origin->files[origin->count++];
    file->name = strdup(name);
  }
  file->thing = thing;
  name_blob(file);
  unsigned version = http_origin_put(origin->server, path, thing->data, thing->size);
  http_origin_tag(origin->server, path, origin->lfs ? mc_digest_hex(digest, &thing->digest) : file->oid);
  free(path);
  for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
    char *folder = strndup(name, (size_t)(slash - name));
    list(origin, folder);
    free(folder);
  }
  put_branch(origin, version);
}

static void hf_remove(struct origin *origin, const char *name) {
  char *path = path_of(name, false);
  struct file *file = find(origin, name);
  must(file != NULL);
  http_origin_remove(origin->server, path);
  free(path);
  free(file->name);
  *file = origin->files[--origin->count];
}

static void set(struct origin *origin, const char *name, const struct http_behaviour *behaviour) {
  bool file = find(origin, name) != NULL;
  char *folder = strndup(name, strlen(name) - 1), *path = path_of(file ? name : folder, !file);
  http_origin_behave(origin->server, path, behaviour);
  free(folder);
  free(path);
}

static void hf_forbid(struct origin *origin, const char *name) {
  set(origin, name, &(struct http_behaviour){.status = 403});
}

static void hf_behave(struct origin *origin, const char *name, enum how how, uint64_t at, unsigned times) {
  const struct file *file = find(origin, name);
  uint64_t size = file ? file->thing->size : 0;
  struct http_behaviour behaviour = http_behaviour_of(how, at, times, size);
  set(origin, name, &behaviour);
}

static struct counts hf_counts(struct origin *origin) {
  struct http_counts counts = http_origin_counts(origin->server);
  return (struct counts){counts.connections, counts.requests, counts.body_bytes};
}

#define HF_ORIGIN(digest, begin)                                                                                       \
  {                                                                                                                    \
    .upstream = &hf_upstream_ops, .can = HTTP_CAN, .tells_digest = (digest), .start = (begin), .stop = hf_stop,        \
    .root = hf_root, .put = hf_put, .remove = hf_remove, .forbid = hf_forbid, .behave = hf_behave,                     \
    .mislead = hf_mislead, .counts = hf_counts,                                                                        \
  }

const struct origin_ops hf_origin = HF_ORIGIN(false, hf_start), hf_lfs_origin = HF_ORIGIN(true, lfs_start);
