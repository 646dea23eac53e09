/* What the files of the posix storage share. posix.c says how the folder is laid out. */
#ifndef STORAGE_POSIX_H
#define STORAGE_POSIX_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include <modelcache/backend/storage.h>

#define ORIGIN "posix" /* of messages */

/* A path inside the storage; posix_open leaves room for the longest name. */
#define PATH_SIZE 4096

#define HOUR_MS   (60 * 60 * 1000LL)
#define DAY_MS    (24 * HOUR_MS)

/* Nothing in it changes after posix_open, but for what is atomic: no lock is needed. */
struct posix {
  mc_storage base; /* first: callers see no more */
  char *root;      /* absolute */
  char owner[OWNER_SIZE];
  bool durable;
  bool shared;       /* other machines may see the folder, too, or we can't tell */
  bool nameless;     /* files can be made without a name, and given one later */
  int64_t orphan_ms; /* how long another machine's stage must lie still to have lost its owner */
  int64_t skew_ms;   /* how far the storage's clock, which sets the times of files, is ahead of ours */
  mc_logger logger;
  atomic_bool objects_settled[256], records_settled[256]; /* the folders ab whose own names were flushed */
};

static inline struct posix *posix_of(mc_storage *storage) {
  return (struct posix *)storage;
}

/* ---- posix.c ---- */

/* "<root>/…"; returns `path`. */
char *posix_path(char path[PATH_SIZE], const struct posix *self, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
char *posix_object_file(char path[PATH_SIZE], const struct posix *self, const mc_digest *digest, const char *suffix);
/* As mc_error_errno, but never MC_NOT_FOUND: that is for what was asked for, not for a folder that has gone. */
mc_status posix_error(mc_error *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* That `path` can't be had: MC_NOT_FOUND if it isn't there. */
mc_status posix_missing(mc_error *err, int errnum, const char *path);
/* Whether a file isn't there; on NFS that can also be found out late. */
bool posix_is_missing(int errnum);
/* A name that was missing, <root>/<kind>/ab/…, may be so in this machine's memory alone: have the folders it is in
 * asked for anew. True: look once more. */
bool posix_look_again(const struct posix *self, const char *kind, const char *hex);
/* A whole small file. MC_NOT_FOUND, MC_RESOURCE_EXHAUSTED. */
mc_status posix_read_file(const char *path, void **data, size_t *size, size_t max, mc_error *err);
/* Rename, making the folder of `to` when it is missing. `from` is a name that nothing else ever had. 0 or an errno. */
int posix_move(const char *from, const char *to);
/* Learn of writes to a file that failed late and, if it is to be durable, wait for the disk. Network file systems write
 * when they like, and tell of a failure when a descriptor of the file, as good as a copy, is closed. The kernel may
 * then have dropped what it could not write, and says so only once: a second flush that succeeds would mean nothing,
 * and *unsound is set. 0 or an errno. */
int posix_flush(const struct posix *self, int fd, bool *unsound);
/* Have the disk begin with a file that is flushed after others: what waits then for the first waits for all of them. */
void posix_begin_flush(const struct posix *self, int fd);
/* If it is durable, wait until the disk has the names in <root>/<kind>/ab, where `hex` begins with ab. 0 or an errno.
 */
int posix_flush_names(struct posix *self, const char *kind, const char *hex);
/* Make the folder of `path`. 0 or an errno. */
int posix_make_folder_of(const char *path);
/* Milliseconds since 1970; 0 if there is no such file. */
int64_t posix_mtime(const char *path);
/* The same, not as this machine remembers it, where other machines may have written to it. */
int64_t posix_mtime_now(const struct posix *self, const char *path);
/* Call `visit` with each name in the folder `path` until it returns false, which sets *stopped (may be NULL). Hidden
 * names are left out; a folder that is missing is empty. 0 or an errno. */
int posix_each(const char *path, bool (*visit)(void *user, const char *name), void *user, bool *stopped);
/* The same for all names below <root>/<kind>/00 … ff. */
int posix_each_of(struct posix *self, const char *kind, bool (*visit)(void *user, const char *name), void *user);

/* ---- stage.c, adopt.c, commit.c ---- */

/* Whether files can be made without a name, and be given one by way of /proc. */
bool posix_can_be_nameless(const struct posix *self);
/* Remove what dead owners left: what can't be resumed, and all that is at least `age_ms` old. True if anything was. */
bool posix_clean_stages(struct posix *self, int64_t age_ms);
/* Whether `name` in objects/ab is of a commit under way, of an object of the digest that it begins with. */
bool posix_is_draft(const char *name);

mc_status posix_stage_create(mc_storage *storage, const char *key, uint64_t size, mc_stage **out, mc_error *err);
mc_status posix_stage_resume(mc_storage *storage, const char *key, mc_stage **out, mc_error *err);
mc_status posix_stage_resize(mc_stage *base, uint64_t size, mc_error *err);
mc_status posix_stage_append(mc_stage *base, const void *data, size_t size, mc_error *err);
mc_status posix_stage_journal(mc_stage *base, void **data, size_t *size, size_t max, mc_error *err);
mc_status posix_stage_commit(mc_stage *base, const mc_digest *digest, const void *meta, size_t meta_size,
                             mc_error *err);
mc_status posix_stage_record(mc_stage *base, const char *key, const void *data, size_t size, mc_error *err);
void posix_stage_close(mc_stage *base, bool keep);
mc_status posix_restage(mc_storage *storage, const mc_digest *digest, const char *key, mc_stage **out, mc_error *err);

/* ---- record.c ---- */

/* A record that is written, and does not have its name yet. */
struct draft {
  int fd;     /* -1: there is none */
  char *path; /* its name and ".XXXXXX" */
};

/* 0 or an errno. */
int posix_record_draft(struct draft *out, const struct posix *self, const char *key, const void *data, size_t size);
/* Give it its name. It is still to be dropped. 0 or an errno. */
int posix_record_place(struct draft *draft);
/* Flush the names where it is. 0 or an errno. */
int posix_record_settle(const struct draft *draft, struct posix *self);
/* Remove it, unless it was placed. None is fine. */
void posix_record_drop(struct draft *draft);
/* Remove what crashed writers left. */
void posix_clean_records(struct posix *self);

mc_status posix_record_put(mc_storage *storage, const char *key, const void *data, size_t size, mc_error *err);
mc_status posix_record_get(mc_storage *storage, const char *key, void **data, size_t *size, size_t max, mc_error *err);
mc_status posix_record_remove(mc_storage *storage, const char *key, mc_error *err);
mc_status posix_record_scan(mc_storage *storage,
                            bool (*visit)(void *user, const char *key, const void *data, size_t size), void *user,
                            size_t max, mc_error *err);

#endif
