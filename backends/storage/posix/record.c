/* Records of the posix storage: one small file for each key, replaced by rename. */
#include "posix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define SUFFIX ".XXXXXX"

static mc_status record_file(char path[PATH_SIZE], const struct posix *self, const char *key, mc_error *err) {
  if (!key_is_valid(key)) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "a key is 64 lower-case hex digits");
  }
  posix_path(path, self, "records/%.2s/%s", key, key);
  return MC_OK;
}

int posix_record_draft(struct draft *out, const struct posix *self, const char *key, const void *data, size_t size) {
  char path[PATH_SIZE];
  *out = (struct draft){.fd = mkostemp(posix_path(path, self, "records/%.2s/%s" SUFFIX, key, key), O_CLOEXEC)};
  int error = out->fd < 0 ? errno : 0;
  if (error == ENOENT) {
    error = posix_make_folder_of(posix_path(path, self, "records/%.2s/%s" SUFFIX, key, key));
    if (!error) out->fd = mkostemp(path, O_CLOEXEC);
    if (!error && out->fd < 0) error = errno;
  }
  if (error) return error;
  if (!(out->path = strdup(path))) {
    error = ENOMEM;
    unlink(path);
  }
  if (!error) error = write_all(out->fd, data, size);
  if (!error && fchmod(out->fd, 0644)) error = errno;
  if (error) posix_record_drop(out);
  return error;
}

int posix_record_place(struct draft *draft) {
  char to[PATH_SIZE];
  snprintf(to, sizeof(to), "%.*s", (int)(strlen(draft->path) - strlen(SUFFIX)), draft->path);
  if (rename(draft->path, to)) return errno;
  close(draft->fd);
  draft->fd = -1;
  return 0;
}

int posix_record_settle(const struct draft *draft, struct posix *self) {
  const char *name = strrchr(draft->path, '/') + 1;
  return posix_flush_names(self, "records", name);
}

void posix_record_drop(struct draft *draft) {
  if (draft->fd >= 0 && draft->path) unlink(draft->path);
  if (draft->fd >= 0) close(draft->fd);
  free(draft->path);
  *draft = (struct draft){.fd = -1};
}

mc_status posix_record_put(mc_storage *storage, const char *key, const void *data, size_t size, mc_error *err) {
  struct posix *self = posix_of(storage);
  char path[PATH_SIZE];
  struct draft draft;
  bool unsound;
  mc_status status = record_file(path, self, key, err);
  if (status) return status;
  int error = posix_record_draft(&draft, self, key, data, size);
  if (!error) error = posix_flush(self, draft.fd, &unsound);
  if (!error) error = posix_record_place(&draft);
  if (!error) error = posix_record_settle(&draft, self);
  posix_record_drop(&draft);
  return error ? posix_error(err, error, "can't write %s", path) : MC_OK;
}

mc_status posix_record_get(mc_storage *storage, const char *key, void **data, size_t *size, size_t max, mc_error *err) {
  char path[PATH_SIZE];
  mc_status status = record_file(path, posix_of(storage), key, err);
  if (status) return status;
  status = posix_read_file(path, data, size, max, err);
  bool again = status == MC_NOT_FOUND && posix_look_again(posix_of(storage), "records", key);
  return again ? posix_read_file(path, data, size, max, err) : status;
}

mc_status posix_record_remove(mc_storage *storage, const char *key, mc_error *err) {
  char path[PATH_SIZE];
  mc_status status = record_file(path, posix_of(storage), key, err);
  if (status || unlink(path) == 0 || posix_is_missing(errno)) return status;
  return posix_error(err, errno, "can't remove %s", path);
}

struct scan {
  struct posix *self;
  bool (*visit)(void *user, const char *key, const void *data, size_t size);
  void *user;
  size_t max;
};

static bool scan_record(void *user, const char *name) {
  struct scan *scan = user;
  char path[PATH_SIZE];
  void *data;
  size_t size;
  mc_error err = MC_ERROR_INIT;
  if (!key_is_valid(name)) return true;
  posix_path(path, scan->self, "records/%.2s/%s", name, name);
  mc_status status = posix_read_file(path, &data, &size, scan->max, &err);
  if (status) { /* one that can't be read costs one record, not the start of the program */
    if (status != MC_NOT_FOUND) log_warn(&scan->self->logger, ORIGIN, "a record is left out: %s", err.message);
    return true;
  }
  bool go_on = scan->visit(scan->user, name, data, size);
  free(data);
  return go_on;
}

mc_status posix_record_scan(mc_storage *storage,
                            bool (*visit)(void *user, const char *key, const void *data, size_t size), void *user,
                            size_t max, mc_error *err) {
  struct scan scan = {posix_of(storage), visit, user, max};
  int error = posix_each_of(scan.self, "records", scan_record, &scan);
  return error ? posix_error(err, error, "can't read the folders of %s/records", scan.self->root) : MC_OK;
}

/* Drafts are named "<key>.<random>". */
static bool clean_record(void *user, const char *name) {
  struct posix *self = user;
  char key[KEY_SIZE], path[PATH_SIZE];
  snprintf(key, sizeof(key), "%.64s", name);
  if (!key_is_valid(key) || name[KEY_SIZE - 1] != '.') return true;
  posix_path(path, self, "records/%.2s/%s", key, name);
  if (clock_wall_ms() - posix_mtime(path) > HOUR_MS) unlink(path);
  return true;
}

void posix_clean_records(struct posix *self) {
  posix_each_of(self, "records", clean_record, self);
}
