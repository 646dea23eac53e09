/* What other processes left: stages to go on with, or to remove, and damaged objects that become stages again.
 *
 * An owner that is gone for certain (its process was of this boot of this machine, and of this pid namespace) writes no
 * more: its stage is gone on with as it is. One that can't be looked at may only be paused, and writes on into its
 * files when it wakes up, whatever their names are by then: of its stage a copy is adopted, and what it was is removed.
 * Until then that has "doubt" in its name, for those who find it should the copying process die. */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define NOBODY "nobody"
#define DOUBT  ".doubt"

/* Take a name apart; false if it's not a stage's. */
static bool parse_name(const char *name, char key[KEY_SIZE], char owner[OWNER_SIZE]) {
  snprintf(key, KEY_SIZE, "%.64s", name);
  if (!key_is_valid(key) || name[KEY_SIZE - 1] != '.') return false;
  const char *from = name + KEY_SIZE, *last = strrchr(from, '.');
  if (!last || last - from >= OWNER_SIZE || strlen(name) >= NAME_SIZE) return false;
  snprintf(owner, OWNER_SIZE, "%.*s", (int)(last - from), from);
  return true;
}

/* ---- abandoned stages ---- */

/* What can be told of a stage from outside. */
struct found {
  char key[KEY_SIZE];
  bool abandoned;
  bool doubtful; /* who had it may still write to it */
  bool resumable;
  int64_t used_at;
};

static bool is_doubted(const char *owner) {
  size_t length = strlen(owner), mark = strlen(DOUBT);
  return length > mark && strcmp(owner + length - mark, DOUBT) == 0;
}

static bool look(struct found *found, const struct posix *self, const char *name) {
  char owner[OWNER_SIZE], path[PATH_SIZE];
  if (!parse_name(name, found->key, owner)) return false;
  int64_t data = posix_mtime_now(self, stage_file(path, self, name, "data"));
  int64_t journal = posix_mtime_now(self, stage_file(path, self, name, "journal"));
  int64_t folder =
      posix_mtime_now(self, posix_path(path, self, "stage/%s", name)); /* newer than both while it's being made */
  found->used_at = data > journal ? data : journal;
  if (folder > found->used_at) found->used_at = folder;
  struct stat st;
  found->resumable = stat(stage_file(path, self, name, "journal"), &st) == 0 && st.st_size > 0;
  found->used_at -= self->skew_ms;
  found->abandoned = strcmp(owner, NOBODY) == 0 || !owner_may_live(owner, found->used_at, self->orphan_ms);
  found->doubtful = is_doubted(owner) || (strcmp(owner, NOBODY) != 0 && owner_may_live(owner, 0, INT64_MAX));
  return true;
}

/* Make an abandoned stage ours. Of all who try, the rename of one succeeds. */
static bool take(char taken[NAME_SIZE], const struct posix *self, const char *name, const struct found *found) {
  char from[PATH_SIZE], to[PATH_SIZE], owner[OWNER_SIZE + sizeof(DOUBT)];
  utimensat(AT_FDCWD, stage_file(from, self, name, "journal"), NULL, 0); /* so that others see it's in use again */
  snprintf(owner, sizeof(owner), "%s%s", self->owner, found->doubtful ? DOUBT : "");
  stage_new_name(taken, found->key, owner);
  posix_path(from, self, "stage/%s", name);
  posix_path(to, self, "stage/%s", taken);
  if (rename(from, to) == 0) return true;
  return errno == ENOENT && access(to, F_OK) == 0; /* NFS: done, but the answer was lost and it was asked again */
}

struct cleaning {
  struct posix *self;
  int64_t age_ms;
  bool removed;
};

static bool clean_stage(void *user, const char *name) {
  struct cleaning *cleaning = user;
  struct found found;
  char taken[NAME_SIZE], path[PATH_SIZE];
  if (!look(&found, cleaning->self, name) || !found.abandoned) return true;
  /* By a clock that is off by a little, it may have been used in a moment: what has to go does all the same. */
  if (found.resumable && cleaning->age_ms && clock_wall_ms() - found.used_at < cleaning->age_ms) return true;
  if (!take(taken, cleaning->self, name, &found)) return true;
  int error = remove_all(posix_path(path, cleaning->self, "stage/%s", taken));
  if (error) log_warn(&cleaning->self->logger, ORIGIN, "can't remove the abandoned stage %s", path);
  cleaning->removed |= !error;
  return true;
}

bool posix_clean_stages(struct posix *self, int64_t age_ms) {
  char path[PATH_SIZE];
  struct cleaning cleaning = {.self = self, .age_ms = age_ms};
  posix_each(posix_path(path, self, "stage"), clean_stage, &cleaning, NULL);
  return cleaning.removed;
}

/* ---- adopting ---- */

struct adoption {
  struct posix *self;
  const char *key;
  struct stage *stage;
  int error; /* why one that was there could not be had */
};

static int give_away(const struct posix *self, const char *name, const char *owner) {
  char from[PATH_SIZE], to[PATH_SIZE], key[KEY_SIZE], free_name[NAME_SIZE];
  snprintf(key, sizeof(key), "%.64s", name);
  stage_new_name(free_name, key, owner);
  posix_path(from, self, "stage/%s", name);
  return rename(from, posix_path(to, self, "stage/%s", free_name)) ? errno : 0;
}

int stage_give_away(const struct posix *self, const char *name) {
  return give_away(self, name, NOBODY);
}

struct search {
  const struct posix *self;
  const char *key, *to;
  bool found;
};

static bool bring_back(void *user, const char *name) {
  struct search *search = user;
  char path[PATH_SIZE];
  bool same = posix_is_draft(name) && strncmp(name + KEY_SIZE, search->key, KEY_SIZE - 1) == 0;
  search->found = same && rename(posix_path(path, search->self, "objects/%.2s/%s", name, name), search->to) == 0;
  return !search->found;
}

/* The owner of a stage died while its data was on the way to be an object (see commit.c). 0 or an errno. */
static int find_data(struct posix *self, const char *name, const char *key) {
  char path[PATH_SIZE];
  struct search search = {self, key, stage_file(path, self, name, "data"), false};
  int error = posix_each_of(self, "objects", bring_back, &search);
  return error ? error : search.found ? 0 : ENOENT;
}

/* Open a stage that was taken. Its data is read-only if its owner died between making it so and its rename. */
static int open_taken(struct stage **out, struct posix *self, const char *name, const char *key) {
  char path[PATH_SIZE];
  int error = stage_open_files(out, self, name, 0);
  if (error == ENOENT && (error = find_data(self, name, key)) == 0) error = stage_open_files(out, self, name, 0);
  if (error == EACCES && chmod(stage_file(path, self, name, "data"), 0644) == 0) {
    error = stage_open_files(out, self, name, 0);
  }
  return error;
}

/* Copy a file of a stage. 0 or an errno. */
static int copy_file(const struct posix *self, const char *from, const char *to, const char *file) {
  char path[PATH_SIZE];
  int in = open(stage_file(path, self, from, file), O_RDONLY | O_CLOEXEC);
  int out = in < 0 ? -1 : open(stage_file(path, self, to, file), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  int error = out < 0 ? errno : copy_fd_sparse(in, out);
  if (in >= 0) close(in);
  if (out >= 0 && close(out) && !error) error = errno;
  return error;
}

/* Open a copy of a stage that was taken. The journal is read first: what it says has landed is in the data by then. And
 * it comes to be last: a copy that was cut off has none. 0 or an errno. */
static int copy_taken(struct stage **out, struct posix *self, const char *name, const char *key) {
  char copy[NAME_SIZE], path[PATH_SIZE];
  void *journal = NULL;
  size_t size = 0;
  int error = file_read(stage_file(path, self, name, "journal"), &journal, &size, JOURNAL_MAX);
  if (!error) error = stage_make_folder(copy, self, key);
  if (error) {
    free(journal);
    return error;
  }
  error = copy_file(self, name, copy, "data");
  if (error == ENOENT && (error = find_data(self, name, key)) == 0) error = copy_file(self, name, copy, "data");
  if (!error) error = file_replace(stage_file(path, self, copy, "journal"), journal, size, 0644, false);
  if (!error) error = stage_open_files(out, self, copy, 0);
  if (error) remove_all(posix_path(path, self, "stage/%s", copy));
  free(journal);
  return error;
}

static bool adopt(void *user, const char *name) {
  struct adoption *adoption = user;
  struct posix *self = adoption->self;
  struct found found;
  char taken[NAME_SIZE], path[PATH_SIZE];
  if (strncmp(name, adoption->key, KEY_SIZE - 1) != 0 || !look(&found, self, name)) return true;
  if (!found.abandoned || !take(taken, self, name, &found)) return true;
  int error = (found.doubtful ? copy_taken : open_taken)(&adoption->stage, self, taken, found.key);
  bool useless = posix_is_missing(error) || stage_is_full(error); /* it has no data, or there is no room for a copy */
  if (error && !useless) {
    /* Want of descriptors or memory passes, and what was downloaded should outlast it. */
    give_away(self, taken, found.doubtful ? NOBODY DOUBT : NOBODY);
    adoption->error = error;
    return false;
  }
  if ((error || found.doubtful) && remove_all(posix_path(path, self, "stage/%s", taken))) {
    log_warn(&self->logger, ORIGIN, "can't remove the abandoned stage %s", path);
  }
  return error != 0;
}

mc_status posix_stage_resume(mc_storage *storage, const char *key, mc_stage **out, mc_error *err) {
  struct adoption adoption = {.self = posix_of(storage), .key = key};
  char path[PATH_SIZE];
  if (!key_is_valid(key)) return stage_bad_key(err);
  int error = posix_each(posix_path(path, adoption.self, "stage"), adopt, &adoption, NULL);
  if (error) return posix_error(err, error, "can't look into %s", path);
  if (adoption.error) return posix_error(err, adoption.error, "can't open a download in %s", path);
  if (!adoption.stage) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "no download of this was left to be resumed");
  *out = &adoption.stage->base;
  return MC_OK;
}

mc_status posix_restage(mc_storage *storage, const mc_digest *digest, const char *key, mc_stage **out, mc_error *err) {
  struct posix *self = posix_of(storage);
  struct stage *stage = NULL;
  char object[PATH_SIZE], path[PATH_SIZE], name[NAME_SIZE];
  if (!key_is_valid(key)) return stage_bad_key(err);
  posix_object_file(object, self, digest, "");
  if (access(object, F_OK)) return posix_missing(err, errno, object);
  int error = stage_make_folder(name, self, key);
  if (error) return posix_error(err, error, "can't make a folder in %s/stage", self->root);
  if (rename(object, stage_file(path, self, name, "data"))) {
    error = errno;
  } else {
    if (chmod(path, 0644)) log_debug(&self->logger, ORIGIN, "can't change the mode of %s", path);
    unlink(posix_object_file(object, self, digest, ".meta"));
    error = stage_open_files(&stage, self, name, 0);
  }
  if (!error) {
    *out = &stage->base;
    return MC_OK;
  }
  remove_all(posix_path(path, self, "stage/%s", name));
  if (posix_is_missing(error)) return mc_error_set(err, MC_NOT_FOUND, ORIGIN, "%s has just been removed", object);
  return posix_error(err, error, "can't take %s back", object);
}
