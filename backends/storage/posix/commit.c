/* How a stage of the posix storage becomes an object.
 *
 *   a file of the commit         lies in                                            is seen as
 *   data                         stage/<name>/data, of a small file stage/<name>    the stage's
 *   data, in passage             objects/ab/<digest>.<key>.<random>                 nothing
 *   meta, a draft                objects/ab/<digest>.meta.<key>.<random>            nothing
 *   both, under their names      objects/ab/                                        the object
 *
 * The way from folder to folder may be a copy in truth, which can be seen in part and be cut off in the middle: it ends
 * at a name that means nothing. What gives a name that means something is a rename within the folder. A process that
 * dies while the data is in passage leaves a stage that has a journal alone: whoever adopts it finds the data by its
 * key. */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META   ".meta"
#define RANDOM 16 /* hex digits */

/* A name beside `to` that nothing else has: the stage's own key and number are in it. */
static void draft_name(char path[PATH_SIZE], const char *to, const char *stage) {
  snprintf(path, PATH_SIZE, "%.*s.%.64s%.17s", PATH_SIZE - NAME_SIZE, to, stage, strrchr(stage, '.'));
}

bool posix_is_draft(const char *name) {
  char key[KEY_SIZE];
  if (strlen(name) < KEY_SIZE) return false;
  const char *rest = name + KEY_SIZE - 1;
  if (strncmp(rest, META ".", strlen(META) + 1) == 0) rest += strlen(META);
  snprintf(key, sizeof(key), "%s", rest + 1);
  return *rest == '.' && key_is_valid(key) && strlen(rest) == KEY_SIZE + 1 + RANDOM && rest[KEY_SIZE] == '.';
}

/* Where the files of a commit go. */
struct commit {
  int meta_fd;
  char meta_draft[PATH_SIZE], meta[PATH_SIZE]; /* the draft of a nameless one has no name either */
  char passage[PATH_SIZE], data[PATH_SIZE];
};

/* Make the file of the meta. 0 or an errno. */
static int open_meta(struct commit *commit, const struct stage *stage) {
  static const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
  commit->meta_fd = -1;
  if (!*stage->name) return stage_open_nameless(&commit->meta_fd, storage_of(stage), 0666);
  draft_name(commit->meta_draft, commit->meta, stage->name);
  commit->meta_fd = open(commit->meta_draft, flags, 0666);
  if (commit->meta_fd >= 0) return 0;
  int error = errno == ENOENT ? posix_make_folder_of(commit->meta_draft) : errno;
  if (!error) commit->meta_fd = open(commit->meta_draft, flags, 0666);
  return error ? error : commit->meta_fd < 0 ? errno : 0;
}

/* Wait for all that the commit puts in place: the disk is told of all of it before the first wait, so that a file
 * system with a journal writes that once. 0 or an errno. */
static int flush_all(struct stage *stage, int meta) {
  struct posix *self = storage_of(stage);
  bool unsound;
  if (stage->unsound) return EIO;
  if (!*stage->name && !self->durable) return 0; /* no file system over a network */
  posix_begin_flush(self, stage->base.fd);
  posix_begin_flush(self, meta);
  posix_begin_flush(self, stage->record.fd);
  int error = posix_flush(self, stage->base.fd, &stage->unsound);
  if (!error) error = posix_flush(self, meta, &unsound);
  if (!error && stage->record.fd >= 0) error = posix_flush(self, stage->record.fd, &unsound);
  return error;
}

/* Give a nameless file its name. A link can't replace a file, a rename can: what is there may be half an object. 0 or
 * an errno. */
static int give_name(int fd, const char *to) {
  char from[64], draft[PATH_SIZE], name[NAME_SIZE];
  snprintf(from, sizeof(from), OWN_FILES "/%d", fd);
  if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return 0;
  if (errno == ENOENT) {
    int error = posix_make_folder_of(to);
    if (error || linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return error;
  }
  if (errno != EEXIST) return errno;
  stage_new_name(name, NO_KEY, "");
  draft_name(draft, to, name);
  if (linkat(AT_FDCWD, from, AT_FDCWD, draft, AT_SYMLINK_FOLLOW)) return errno;
  int error = rename(draft, to) ? errno : 0;
  if (error) unlink(draft);
  return error;
}

/* Take the data into the objects' folder, under a name that means nothing. 0 or an errno; ENOENT: the stage's folder
 * was taken away. */
static int bring(const struct stage *stage, const struct commit *commit) {
  const struct posix *self = storage_of(stage);
  char from[PATH_SIZE];
  bool unsound;
  if (!*stage->name) return 0;
  int error = posix_move(stage_data(from, stage), commit->passage);
  if (error || !self->shared || !self->durable) return error;
  struct stat ours, brought;
  if (fstat(stage->base.fd, &ours) || stat(commit->passage, &brought)) return errno;
  if (ours.st_ino == brought.st_ino) return 0;
  int fd = open(commit->passage, O_RDONLY | O_CLOEXEC); /* it is a copy, which was flushed by nobody */
  if (fd < 0) return errno;
  error = posix_flush(self, fd, &unsound);
  close(fd);
  return error;
}

/* Put record, meta and data in their places, in this order. 0 or an errno. */
static int place_all(struct stage *stage, const struct commit *commit) {
  bool is_named = *stage->name;
  int error = stage->record.fd >= 0 ? posix_record_place(&stage->record) : 0;
  if (!error)
    error = is_named ? posix_move(commit->meta_draft, commit->meta) : give_name(commit->meta_fd, commit->meta);
  if (!error) error = is_named ? posix_move(commit->passage, commit->data) : give_name(stage->base.fd, commit->data);
  return error;
}

/* Wait for the names. 0 or an errno. */
static int settle(struct stage *stage, const mc_digest *digest, bool has_record) {
  char hex[MC_DIGEST_HEX_SIZE];
  int error = has_record ? posix_record_settle(&stage->record, storage_of(stage)) : 0;
  mc_digest_hex(hex, digest);
  return error ? error : posix_flush_names(storage_of(stage), "objects", hex);
}

static int commit_files(struct stage *stage, const mc_digest *digest, const void *meta, size_t meta_size) {
  struct posix *self = storage_of(stage);
  struct commit commit;
  char path[PATH_SIZE];
  bool has_record = stage->record.fd >= 0;
  posix_object_file(commit.data, self, digest, "");
  posix_object_file(commit.meta, self, digest, META);
  if (*stage->name) draft_name(commit.passage, commit.data, stage->name);
  int error = open_meta(&commit, stage);
  if (!error) error = write_all(commit.meta_fd, meta, meta_size);
  if (!error) error = flush_all(stage, commit.meta_fd);
  if (!error && fchmod(stage->base.fd, 0444)) log_debug(&self->logger, ORIGIN, "can't make an object read-only");
  if (!error) error = bring(stage, &commit);
  if (!error) error = place_all(stage, &commit);
  if (error && *stage->name) { /* it may be committed again */
    if (commit.meta_fd >= 0) unlink(commit.meta_draft);
    rename(commit.passage, stage_data(path, stage));
  }
  if (!error) error = settle(stage, digest, has_record);
  if (commit.meta_fd >= 0 && close(commit.meta_fd) && !error) error = errno;
  posix_record_drop(&stage->record);
  return error;
}

mc_status posix_stage_record(mc_stage *base, const char *key, const void *data, size_t size, mc_error *err) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  if (!key_is_valid(key)) return stage_bad_key(err);
  posix_record_drop(&stage->record);
  int error = posix_record_draft(&stage->record, self, key, data, size);
  if (stage_is_full(error)) return stage_full(self, MC_SIZE_UNKNOWN, err);
  return error ? posix_error(err, error, "can't write a record into %s/records", self->root) : MC_OK;
}

mc_status posix_stage_commit(mc_stage *base, const mc_digest *digest, const void *meta, size_t meta_size,
                             mc_error *err) {
  struct stage *stage = stage_of(base);
  struct posix *self = storage_of(stage);
  char path[PATH_SIZE];
  int error = commit_files(stage, digest, meta, meta_size);
  if (posix_is_missing(error)) {
    return mc_error_set(err, MC_BUSY, ORIGIN, "another process has taken this download over; try again");
  }
  if (stage_is_full(error)) return stage_full(self, MC_SIZE_UNKNOWN, err);
  if (error) return posix_error(err, error, "can't put an object into %s", self->root);
  stage_close_files(stage); /* first: what is open keeps its folder alive on NFS */
  if (*stage->name && !stage->is_file) remove_all(posix_path(path, self, "stage/%s", stage->name));
  free(stage);
  return MC_OK;
}
