/* Trees: every file below a URL prefix, published together.
 *
 * `path` is a symbolic link to one version, a folder beside it named ".<name>.mc/<version>". A version's files are hard
 * links to the stored objects where the file system allows it, else copies; what the objects are is verified whenever
 * they are opened, so that a reader who writes to one harms no other. The former version stays until the next switch.
 * ".<name>.mc/.key" says what the tree is of, as the key of its URL (which may have a secret in its query) and
 * patterns, and by its mtime when that was last confirmed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/url.h"
#include "engine/engine.h"
#include "engine/patterns.h"

#define MAX_TOGETHER 128 /* gets under way at once: enough for all flights while half of them is started anew */
#define TELL_MS      100 /* how late the caller is told of a file that is there */
#define MAX_TRIES    3   /* more, when it changes meanwhile, or other gets of the same tree are in the way */
#define MARK         "/.key"

void mc_tree_options_init(mc_tree_options *options) {
  *options = (mc_tree_options){.struct_size = sizeof(*options)};
}

struct tree_file {
  char *path;       /* relative */
  mc_listed listed; /* what the listing said of it */
  uint64_t size;
  mc_digest digest;
  struct tree *tree;
  bool other; /* what came is of another version than that */
  mc_request *request;
  struct work_job job; /* puts `file` in place */
  mc_file *file;
};

struct tree {
  mc_cache *cache;
  const char *url;
  mc_tree_options options;
  struct patterns patterns;
  char key[KEY_SIZE]; /* of the URL and the patterns */
  struct tree_file *files;
  size_t count, capacity, passed_over;
  mc_upstream *from;    /* who listed them, */
  int64_t listed_at;    /* and when, or later */
  char *stage;          /* the folder of the version in the making */
  uint64_t total;       /* bytes, as far as the listing told */
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t changed;
  size_t running, done, told; /* files; told: of how many the caller knows */
  size_t enough;              /* so many that run need not wake who waits */
  uint64_t bytes;
  bool outdated; /* a file that came is of another version than was listed */
  mc_status status;
  mc_error error;
};

static bool add_file(void *user, const mc_listed *listed) {
  struct tree *tree = user;
  if (!path_is_safe(listed->path)) {
    tree->status = mc_error_set(&tree->error, MC_PROTOCOL, "tree", "the listing has a path that leaves the tree: %s",
                                listed->path);
    return false;
  }
  if (!patterns_pass(&tree->patterns, listed->path)) {
    tree->passed_over++;
    return true;
  }
  if (tree->count == tree->capacity) {
    size_t capacity = tree->capacity ? 2 * tree->capacity : 64;
    struct tree_file *files = realloc(tree->files, capacity * sizeof(*files));
    if (files) tree->files = files;
    if (files) tree->capacity = capacity;
  }
  char *path = tree->count < tree->capacity ? strdup(listed->path) : NULL;
  if (!path) {
    tree->status = mc_error_set(&tree->error, MC_NO_MEMORY, "tree", "no memory for a tree's list of files");
    return false;
  }
  tree->files[tree->count++] = (struct tree_file){.path = path, .listed = *listed};
  if (listed->size != MC_SIZE_UNKNOWN) tree->total += listed->size;
  return true;
}

/* ---- files ---- */

/* Do it, and once more after making the path's folder if that is missing. 0 or an errno. */
static int in_folder(int (*make)(const char *path, void *arg), char *path, void *arg) {
  int error = make(path, arg);
  if (error != ENOENT) return error;
  char *slash = strrchr(path, '/');
  *slash = 0;
  error = mkdir_all(path, 0755);
  *slash = '/';
  return error ? error : make(path, arg);
}

static int make_link(const char *path, void *arg) {
  return link(arg, path) ? errno : 0;
}

/* Never an existing file: it may be a link to a stored object. */
static int make_copy(const char *path, void *arg) {
  mc_file *file = arg;
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
  int error = fd < 0 ? errno : copy_fd(mc_file_fd(file), fd, mc_file_size(file));
  if (fd >= 0 && close(fd) && !error) error = errno;
  return error;
}

/* Put a file that was got at its place in the version: as a link, which takes no time; or, with `copy`, as it can be. 0
 * or an errno. */
static int place(struct tree *tree, const char *relative, mc_file *file, bool copy) {
  char *path = format_str("%s/%s", tree->stage, relative);
  if (!path) return ENOMEM;
  const char *from = mc_file_path(file);
  int error = copy ? in_folder(make_copy, path, file) : from ? in_folder(make_link, path, (void *)from) : EXDEV;
  free(path);
  return error;
}

static void file_end(struct tree_file *self, mc_status status, const mc_error *error) {
  struct tree *tree = self->tree;
  pthread_mutex_lock(&tree->lock);
  tree->outdated |= self->other;
  if (status && !tree->status) {
    tree->status = status;
    tree->error = *error;
  }
  if (!status) {
    tree->done++;
    tree->bytes += self->size;
  }
  tree->running--;
  /* To be woken for each of thousands of small files would take longer than the files. */
  if (tree->running <= tree->enough || tree->status) pthread_cond_signal(&tree->changed);
  pthread_mutex_unlock(&tree->lock);
}

static bool is_other(const struct tree_file *self) {
  const mc_file *file = self->file;
  struct hint hint = {.listed = self->listed};
  mc_entry entry = {.size = mc_file_size(file), .has_digest = true, .digest = *mc_file_digest(file)};
  entry.validators = *mc_file_validators(file);
  return hint_judge(&hint, &entry) == HINT_OTHER;
}

static void file_placed(struct tree_file *self, int errnum) {
  mc_error error = MC_ERROR_INIT;
  mc_status status = MC_OK;
  if (errnum) status = mc_error_errno(&error, errnum, "tree", "can't put %s in place", self->path);
  self->digest = *mc_file_digest(self->file);
  self->size = mc_file_size(self->file);
  self->other = is_other(self);
  mc_file_release(self->file);
  file_end(self, status, &error);
}

static void copy_job(struct work_job *job) {
  struct tree_file *self = (struct tree_file *)((char *)job - offsetof(struct tree_file, job));
  file_placed(self, place(self->tree, self->path, self->file, true));
}

/* A link is made at once, by the flight's thread; a copy, which may take long, by a job. */
static void file_done(void *user, mc_status status, mc_file *file, const mc_error *error) {
  struct tree_file *self = user;
  mc_error own = *error;
  self->file = file;
  self->job.run = copy_job;
  if (!status && place(self->tree, self->path, file, false) == 0) {
    file_placed(self, 0);
    return;
  }
  if (!status) {
    status = work_submit(self->tree->cache->job_pool, &self->job, &own);
    if (!status) return;
    mc_file_release(file);
  }
  file_end(self, status, &own);
}

/* Wait until no more than `enough` files are under way (or one has failed), telling the caller how it goes. */
static mc_status await_files(struct tree *tree, size_t enough, bool or_failed) {
  pthread_mutex_lock(&tree->lock);
  tree->enough = enough;
  for (;;) {
    if (tree->options.progress && tree->told != tree->done) {
      size_t done = tree->told = tree->done;
      uint64_t bytes = tree->bytes, total = tree->total > bytes ? tree->total : bytes;
      pthread_mutex_unlock(&tree->lock);
      tree->options.progress(tree->options.user, done, tree->count, bytes, total);
      pthread_mutex_lock(&tree->lock);
    } else if (tree->running <= enough || (or_failed && tree->status)) {
      break;
    } else if (tree->options.progress) {
      cond_wait_until(&tree->changed, &tree->lock, clock_ns() + TELL_MS * NS_PER_MS);
    } else {
      pthread_cond_wait(&tree->changed, &tree->lock);
    }
  }
  mc_status status = tree->status;
  pthread_mutex_unlock(&tree->lock);
  return status;
}

static void start_file(struct tree *tree, struct tree_file *file, int64_t deadline) {
  mc_get_options options = MC_GET_OPTIONS_INIT;
  mc_error error = MC_ERROR_INIT;
  mc_call call = {deadline, tree->options.cancel};
  options.flags = tree->options.flags & (MC_GET_REVALIDATE | MC_GET_PIN);
  options.cancel = tree->options.cancel;
  options.timeout_ms = deadline == INT64_MAX ? 0 : (deadline - clock_ns()) / NS_PER_MS + 1;
  file->tree = tree;
  pthread_mutex_lock(&tree->lock);
  tree->running++;
  pthread_mutex_unlock(&tree->lock);
  mc_status status = mc_call_check(&call, &error);
  char *url = url_join(tree->url, file->path);
  struct hint *hint = hint_new(&file->listed, tree->from, tree->listed_at);
  if (!status && !(url && hint)) status = mc_error_set(&error, MC_NO_MEMORY, "tree", "no memory for a file's request");
  if (status) {
    free(hint);
  } else {
    status = request_start(&file->request, tree->cache, url, &options, hint, file_done, file, &error);
  }
  free(url);
  if (status) file_end(file, status, &error);
}

/* Get all files, a bounded number at once. When one fails the others are given up. */
static mc_status get_files(struct tree *tree, int64_t deadline, mc_error *err) {
  size_t started = 0;
  while (started < tree->count && !await_files(tree, MAX_TOGETHER / 2, true)) {
    for (size_t i = 0; i < MAX_TOGETHER / 2 && started < tree->count; i++) {
      start_file(tree, &tree->files[started++], deadline);
    }
  }
  mc_status status = await_files(tree, 0, true);
  for (size_t i = 0; i < started && status; i++) {
    if (tree->files[i].request) mc_request_cancel(tree->files[i].request);
  }
  await_files(tree, 0, false);
  for (size_t i = 0; i < started; i++) {
    mc_request_release(tree->files[i].request);
    tree->files[i].request = NULL; /* there may be another try */
  }
  if (status && err) *err = tree->error;
  return status;
}

/* ---- the version ---- */

static int by_path(const void *a, const void *b) {
  return strcmp(((const struct tree_file *)a)->path, ((const struct tree_file *)b)->path);
}

/* Sort the listing. A path that is there twice would be one file in the tree, and which of the two? */
static mc_status check_files(struct tree *tree, mc_error *err) {
  if (tree->status) {
    if (err) *err = tree->error;
    return tree->status;
  }
  if (tree->count == 0 && tree->passed_over) {
    return mc_error_set(err, MC_NOT_FOUND, "tree",
                        "the patterns let none of the %zu files through; they are compared with paths below that URL",
                        tree->passed_over);
  }
  if (tree->count == 0) return mc_error_set(err, MC_NOT_FOUND, "tree", "there is no file below that URL");
  qsort(tree->files, tree->count, sizeof(*tree->files), by_path);
  for (size_t i = 1; i < tree->count; i++) {
    if (strcmp(tree->files[i - 1].path, tree->files[i].path) != 0) continue;
    return mc_error_set(err, MC_PROTOCOL, "tree", "the listing has a path twice: %s", tree->files[i].path);
  }
  return MC_OK;
}

/* The version's name: a digest of all names and contents. false: no memory. */
static bool version_of(struct tree *tree, char hex[MC_DIGEST_HEX_SIZE]) {
  struct sha256 *hash = sha256_new();
  mc_digest digest;
  if (!hash) return false;
  for (size_t i = 0; i < tree->count; i++) {
    sha256_update(hash, tree->files[i].path, strlen(tree->files[i].path) + 1);
    sha256_update(hash, tree->files[i].digest.bytes, sizeof(tree->files[i].digest.bytes));
  }
  sha256_final(hash, &digest);
  sha256_free(hash);
  mc_digest_hex(hex, &digest);
  hex[32] = 0;
  return true;
}

/* When a version was put in place, in nanoseconds; 0: it is not there. */
static int64_t placed_at(const char *versions, const char *version) {
  struct stat st;
  char *path = version ? format_str("%s/%s", versions, version) : NULL;
  int64_t when = path && lstat(path, &st) == 0 ? (int64_t)st.st_ctim.tv_sec * NS_PER_S + st.st_ctim.tv_nsec : 0;
  free(path);
  return when;
}

/* Whether what lies beside the versions is of somebody who may still be at it. */
static bool is_in_work(const char *versions, const char *name) {
  struct stat st;
  char *path = format_str("%s/%s", versions, name);
  bool in_work =
      !path || (lstat(path, &st) == 0 && owner_may_live(name + 6, (int64_t)st.st_mtim.tv_sec * 1000, 24 * 3600 * 1000));
  free(path);
  return in_work;
}

/* Where `path` leads now: the last part of its link, malloced; NULL if it is no link. */
static char *version_now(const char *path) {
  char target[4096];
  ssize_t length = readlink(path, target, sizeof(target) - 1);
  if (length <= 0) return NULL;
  target[length] = 0;
  char *slash = strrchr(target, '/');
  return strdup(slash ? slash + 1 : target);
}

static bool leads_to(const char *path, const char *version) {
  char *now = version_now(path);
  bool leads = !now || strcmp(now, version) == 0; /* when in doubt, yes */
  free(now);
  return leads;
}

/* Remove a version, unless `path` leads to it: also if that is since a moment ago. */
static void remove_version(const struct tree *tree, const char *path, const char *versions, const char *version) {
  char *from = format_str("%s/%s", versions, version), *away = format_str("%s.old", tree->stage);
  if (from && away && !leads_to(path, version) && rename(from, away) == 0) {
    if (!leads_to(path, version) || rename(away, from)) remove_all(away);
  }
  free(from);
  free(away);
}

/* Remove stages that were left and, with `now`, the versions that came before `before`. Those that came after it are
 * of others, who have switched to them meanwhile or are about to. */
static void remove_old(const struct tree *tree, const char *path, const char *versions, const char *now,
                       const char *before) {
  DIR *dir = opendir(versions);
  struct dirent *entry;
  int64_t since = placed_at(versions, before);
  while (dir && (entry = readdir(dir))) {
    const char *name = entry->d_name;
    if (name[0] == '.') continue;
    if (strncmp(name, "stage.", 6) == 0) {
      char *left = is_in_work(versions, name) ? NULL : format_str("%s/%s", versions, name);
      if (left) remove_all(left);
      free(left);
    } else if (now && since && strcmp(name, now) != 0 && strcmp(name, before) != 0 &&
               placed_at(versions, name) <= since) {
      remove_version(tree, path, versions, name);
    }
  }
  if (dir) closedir(dir);
}

static mc_status publish_tree(struct tree *tree, const char *path, const char *versions, bool *changed, mc_error *err) {
  char version[MC_DIGEST_HEX_SIZE];
  if (!version_of(tree, version)) return mc_error_set(err, MC_NO_MEMORY, "tree", "no memory to hash");
  const char *slash = strrchr(versions, '/');
  char *to = format_str("%s/%s", versions, version),
       *target = format_str("%s/%s", slash ? slash + 1 : versions, version);
  char *link_path = format_str("%s.link", tree->stage); /* a name by which it's known whose it is */
  int error = to && target && link_path ? 0 : ENOMEM;
  pthread_mutex_lock(&tree->cache->tree_lock);
  char *before = version_now(path);
  *changed = !before || strcmp(before, version) != 0;
  if (!error && rename(tree->stage, to)) {
    if (errno == EEXIST || errno == ENOTEMPTY) { /* it is there already, from before or by another process */
      utimensat(AT_FDCWD, to, NULL, 0);          /* so that nobody takes it for an old one */
      remove_all(tree->stage);
    } else {
      error = errno;
    }
  }
  if (!error && *changed) {
    if (symlink(target, link_path) || rename(link_path, path)) error = errno;
    if (error) unlink(link_path);
  }
  /* A former version stays until the next switch. */
  if (!error) remove_old(tree, path, versions, *changed ? version : NULL, before);
  bool there = !error && access(to, F_OK) == 0;
  pthread_mutex_unlock(&tree->cache->tree_lock);
  free(before);
  free(to);
  free(target);
  free(link_path);
  if (!error && !there) { /* an old one that was there already, and that another took for too old */
    return mc_error_set(err, MC_BUSY, "tree", "other gets of %s keep removing this version; try again", path);
  }
  return error ? mc_error_errno(err, error, "tree", "can't publish the tree at %s", path) : MC_OK;
}

/* Where the tree is to be: the caller's path without slashes at its end, or <storage>/trees/<key>/current. */
static mc_status find_place(char **out, const struct tree *tree, const char *path, mc_error *err) {
  const char *folder = tree->cache->folder;
  if (!path && !folder) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "tree", "this cache has no folder of its own: name a path");
  }
  char *place_at = path ? strdup(path) : format_str("%s/trees/%s/current", folder, tree->key);
  if (!place_at) return mc_error_set(err, MC_NO_MEMORY, "tree", "no memory for a tree");
  size_t end = strlen(place_at);
  while (end > 1 && place_at[end - 1] == '/') place_at[--end] = 0;
  if (end == 0 || end >= sizeof(((mc_tree_result *)0)->path)) {
    free(place_at);
    return mc_error_set(err, MC_INVALID_ARGUMENT, "tree", "a tree's path has 1 to %zu bytes",
                        sizeof(((mc_tree_result *)0)->path) - 1);
  }
  *out = place_at;
  return MC_OK;
}

/* Whether nothing is at `path`, or a link to one of our versions. A link of somebody else's is not ours to switch. */
static bool is_free(const char *path, const char *versions) {
  struct stat st;
  char target[4096];
  if (lstat(path, &st)) return true;
  ssize_t length = S_ISLNK(st.st_mode) ? readlink(path, target, sizeof(target) - 1) : -1;
  const char *slash = strrchr(versions, '/'), *name = slash ? slash + 1 : versions;
  size_t size = strlen(name);
  return length > (ssize_t)size && memcmp(target, name, size) == 0 && target[size] == '/';
}

/* The folder of the versions that `path` leads to. malloced; NULL: no memory. */
static char *versions_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? format_str("%.*s/.%s.mc", (int)(slash - path), path, slash + 1) : format_str(".%s.mc", path);
}

static mc_status prepare(struct tree *tree, const char *path, const char *versions, mc_error *err) {
  char owner[OWNER_SIZE];
  uint32_t number;
  owner_name(owner);
  random_bytes(&number, sizeof(number));
  tree->stage = format_str("%s/stage.%s.%08x", versions, owner, number);
  int error = tree->stage ? mkdir_all(tree->stage, 0755) : ENOMEM;
  return error ? mc_error_errno(err, error, "tree", "can't make a folder for %s", path) : MC_OK;
}

/* ---- the tree of before ---- */

/* Without it the tree is only not kept when its origin can't be asked. */
static void leave_mark(const struct tree *tree, const char *versions) {
  char *mark = format_str("%s" MARK, versions);
  if (mark) file_replace(mark, tree->key, KEY_SIZE - 1, 0644, false);
  free(mark);
}

/* Whether what is published is of this URL and these patterns, and was confirmed not too long ago. */
static bool is_marked(const struct tree *tree, const char *versions) {
  struct stat st;
  void *text = NULL;
  size_t size;
  char *mark = format_str("%s" MARK, versions);
  bool marked = mark && stat(mark, &st) == 0 && file_read(mark, &text, &size, KEY_SIZE) == 0;
  marked = marked && strcmp(text, tree->key) == 0;
  int64_t limit = tree->cache->options.stale_if_error_ms;
  if (marked && limit >= 0) marked = clock_wall_ms() - (int64_t)st.st_mtim.tv_sec * 1000 < limit;
  free(text);
  free(mark);
  return marked;
}

/* Count the files of a version. false: it can't be read. */
static bool count_files(mc_tree_result *out, char *folder) {
  FTS *walk = fts_open((char *const[]){folder, NULL}, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
  FTSENT *entry;
  bool readable = walk != NULL;
  while (walk && (entry = fts_read(walk))) {
    readable = readable && entry->fts_info != FTS_ERR && entry->fts_info != FTS_DNR && entry->fts_info != FTS_NS;
    if (entry->fts_info != FTS_F) continue;
    out->files++;
    out->bytes += (uint64_t)entry->fts_statp->st_size;
  }
  if (walk) fts_close(walk);
  return readable && out->files > 0;
}

/* Whether, after the upstream could not be asked, the tree that is published will do. */
static bool keep_before(mc_tree_result *out, struct tree *tree, const char *path, const char *versions,
                        mc_status status, const char *why) {
  if (status != MC_UNAVAILABLE && status != MC_DEADLINE_EXCEEDED) return false;
  char *version = version_now(path), *folder = version ? format_str("%s/%s", versions, version) : NULL;
  mc_tree_result counted = {0};
  bool keeps = folder && is_marked(tree, versions) && count_files(&counted, folder);
  free(version);
  free(folder);
  if (!keeps) return false;
  out->files = counted.files;
  out->bytes = counted.bytes;
  stat_add(tree->cache, STAT_STALE, 1);
  log_warn(tree->cache->logger, "tree", "%s stays as it was: %s", path, why);
  return true;
}

static void forget_files(struct tree *tree) {
  for (size_t i = 0; i < tree->count; i++) free(tree->files[i].path);
  tree->count = 0;
  tree->total = 0;
  tree->status = MC_OK;
}

/* Get what was listed, and publish it: MC_BUSY, or MC_CHANGED where that is not what was listed any more, of which some
 * files came before and some behind the change. Unless it is the last try: what never rests is never of one version. */
static mc_status make_version(mc_tree_result *out, struct tree *tree, const char *path, const char *versions,
                              const mc_call *call, bool last, mc_error *err) {
  tree->done = 0;
  tree->bytes = 0;
  tree->outdated = false;
  mc_status status = prepare(tree, path, versions, err);
  if (!status) status = get_files(tree, call->deadline, err);
  if (!last && (tree->outdated || status == MC_NOT_FOUND)) {
    status = mc_error_set(err, MC_CHANGED, "tree", "%s changes while it is got", path);
  } else if (!status) {
    if (tree->outdated) log_warn(tree->cache->logger, "tree", "%s changes whenever it is got", path);
    status = publish_tree(tree, path, versions, &out->changed, err);
  }
  if (status && tree->stage) remove_all(tree->stage);
  free(tree->stage);
  tree->stage = NULL;
  return status;
}

/* Get what is there now, and publish it. */
static mc_status renew(mc_tree_result *out, struct tree *tree, const char *path, const char *versions,
                       const mc_call *call, mc_error *err) {
  if (!is_free(path, versions)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, "tree",
                        "%s is there already and is not a tree of this cache; name a path that is free", path);
  }
  mc_status status;
  int tries = 0;
  do {
    mc_error error = MC_ERROR_INIT;
    forget_files(tree);
    tree->listed_at = clock_wall_ms();
    status = route_list(&tree->from, tree->cache, tree->url, add_file, tree, call, &error);
    if (status && keep_before(out, tree, path, versions, status, error.message)) return MC_OK;
    if (status && err) *err = error;
    if (!status) status = check_files(tree, err);
    if (!status) status = make_version(out, tree, path, versions, call, tries == MAX_TRIES, err);
  } while ((status == MC_BUSY || status == MC_CHANGED) && tries++ < MAX_TRIES);
  if (status) return status;
  leave_mark(tree, versions);
  out->files = tree->count;
  out->bytes = tree->bytes;
  return MC_OK;
}

mc_status mc_get_tree(mc_tree_result *out, mc_cache *cache, const char *url, const char *path,
                      const mc_tree_options *options, mc_error *err) {
  struct tree tree = {.cache = cache};
  char *normal = NULL, *place_at = NULL, *versions = NULL;
  mc_tree_options_init(&tree.options);
  if (options) {
    memcpy(&tree.options, options,
           options->struct_size < sizeof(tree.options) ? options->struct_size : sizeof(tree.options));
  }
  int64_t deadline = deadline_in_ms(tree.options.timeout_ms);
  pthread_mutex_init(&tree.lock, NULL);
  cond_init(&tree.changed);
  mc_call call = {deadline, tree.options.cancel};
  tree.patterns = (struct patterns){tree.options.allow, tree.options.ignore};
  mc_status status = patterns_check(&tree.patterns, err);
  if (!status) status = url_of_folder(&normal, url, err);
  tree.url = normal;
  if (!status && !patterns_key(tree.key, &tree.patterns, normal)) {
    status = mc_error_set(err, MC_NO_MEMORY, "tree", "no memory for a tree");
  }
  if (!status) status = find_place(&place_at, &tree, path, err);
  if (!status && !(versions = versions_of(place_at))) {
    status = mc_error_set(err, MC_NO_MEMORY, "tree", "no memory for a tree");
  }
  mc_tree_result result = {.struct_size = sizeof(result)};
  if (!status) status = renew(&result, &tree, place_at, versions, &call, err);
  if (!status && out) {
    snprintf(result.path, sizeof(result.path), "%s", place_at);
    *out = result;
  }
  forget_files(&tree);
  free(tree.files);
  free(tree.stage);
  free(versions);
  free(place_at);
  free(normal);
  pthread_mutex_destroy(&tree.lock);
  pthread_cond_destroy(&tree.changed);
  return status;
}
