#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/builtin.h"
#include "fake_await.h"
#include "fake_storage.h"

struct rule {
  unsigned calls, from, to; /* fails those from..to */
  mc_status status;
  bool holds, one, lets_pass; /* one: it lets all further ones pass */
};

struct wrapper {
  mc_storage base;
  mc_storage *inner;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct rule rules[FAKE_OPS];
static unsigned held;

void fake_storage_fail(enum fake_op op, unsigned nth, unsigned count, mc_status status) {
  pthread_mutex_lock(&lock);
  rules[op].from = rules[op].calls + nth;
  rules[op].to = rules[op].from + count - 1;
  rules[op].status = status;
  pthread_mutex_unlock(&lock);
}

void fake_storage_hold(enum fake_op op, bool hold) {
  pthread_mutex_lock(&lock);
  rules[op].holds = hold;
  rules[op].one = rules[op].lets_pass = false;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

void fake_storage_hold_one(enum fake_op op) {
  pthread_mutex_lock(&lock);
  rules[op].holds = rules[op].one = true;
  rules[op].lets_pass = false;
  pthread_mutex_unlock(&lock);
}

void fake_storage_await_held(unsigned count) {
  await_counter(&held, count, &lock, &changed);
}

unsigned fake_storage_calls(enum fake_op op) {
  pthread_mutex_lock(&lock);
  unsigned calls = rules[op].calls;
  pthread_mutex_unlock(&lock);
  return calls;
}

void fake_storage_reset(void) {
  pthread_mutex_lock(&lock);
  memset(rules, 0, sizeof(rules));
  pthread_mutex_unlock(&lock);
}

static mc_status call(enum fake_op op, mc_error *err) {
  pthread_mutex_lock(&lock);
  unsigned number = ++rules[op].calls;
  if (rules[op].holds && !rules[op].lets_pass) {
    held++;
    rules[op].lets_pass = rules[op].one;
    pthread_cond_broadcast(&changed);
    while (rules[op].holds) pthread_cond_wait(&changed, &lock);
    held--;
  }
  bool fails = number >= rules[op].from && number <= rules[op].to;
  mc_status status = fails ? mc_error_set(err, rules[op].status, "faulty", "told to fail") : MC_OK;
  pthread_mutex_unlock(&lock);
  return status;
}

static mc_storage *inner_of(mc_storage *self) {
  return ((struct wrapper *)self)->inner;
}

/* A stage belongs to the inner storage while that works on it. */
static mc_storage *enter(mc_stage *stage) {
  mc_storage *self = stage->storage;
  stage->storage = inner_of(self);
  return self;
}

static mc_status leave(mc_stage *stage, mc_storage *self, mc_status status) {
  stage->storage = self;
  return status;
}

static mc_status adopt(mc_stage **out, mc_storage *self, mc_status status) {
  if (!status) (*out)->storage = self;
  return status;
}

static void wrap_close(mc_storage *self) {
  inner_of(self)->ops->close(inner_of(self));
  free(self);
}

static mc_status wrap_open_object(mc_storage *self, const mc_digest *digest, int *fd, uint64_t *size, mc_error *err) {
  mc_status status = call(FAKE_OPEN_OBJECT, err);
  return status ? status : inner_of(self)->ops->open_object(inner_of(self), digest, fd, size, err);
}

static mc_status wrap_read_meta(mc_storage *self, const mc_digest *digest, void **meta, size_t *size, size_t max,
                                mc_error *err) {
  mc_status status = call(FAKE_READ_META, err);
  return status ? status : inner_of(self)->ops->read_meta(inner_of(self), digest, meta, size, max, err);
}

static mc_status wrap_remove_object(mc_storage *self, const mc_digest *digest, mc_error *err) {
  mc_status status = call(FAKE_REMOVE_OBJECT, err);
  return status ? status : inner_of(self)->ops->remove_object(inner_of(self), digest, err);
}

static bool wrap_object_path(mc_storage *self, const mc_digest *digest, char *path, size_t size) {
  return inner_of(self)->ops->object_path(inner_of(self), digest, path, size);
}

static mc_status wrap_scan(mc_storage *self, bool (*visit)(void *user, const mc_stored *stored), void *user,
                           mc_error *err) {
  return inner_of(self)->ops->scan(inner_of(self), visit, user, err);
}

static mc_status wrap_look(mc_storage *self, const mc_digest *digest, mc_stored *out, mc_error *err) {
  mc_status status = call(FAKE_LOOK, err);
  return status ? status : inner_of(self)->ops->look(inner_of(self), digest, out, err);
}

static mc_status wrap_free_bytes(mc_storage *self, uint64_t *bytes, mc_error *err) {
  return inner_of(self)->ops->free_bytes(inner_of(self), bytes, err);
}

static mc_status wrap_stage_create(mc_storage *self, const char *key, uint64_t size, mc_stage **out, mc_error *err) {
  mc_status status = call(FAKE_STAGE_CREATE, err);
  return status ? status : adopt(out, self, inner_of(self)->ops->stage_create(inner_of(self), key, size, out, err));
}

static mc_status wrap_stage_resume(mc_storage *self, const char *key, mc_stage **out, mc_error *err) {
  mc_status status = call(FAKE_STAGE_RESUME, err);
  return status ? status : adopt(out, self, inner_of(self)->ops->stage_resume(inner_of(self), key, out, err));
}

static mc_status wrap_restage(mc_storage *self, const mc_digest *digest, const char *key, mc_stage **out,
                              mc_error *err) {
  mc_status status = call(FAKE_RESTAGE, err);
  return status ? status : adopt(out, self, inner_of(self)->ops->restage(inner_of(self), digest, key, out, err));
}

static mc_status wrap_stage_resize(mc_stage *stage, uint64_t size, mc_error *err) {
  mc_status status = call(FAKE_STAGE_RESIZE, err);
  if (status) return status;
  mc_storage *self = enter(stage);
  return leave(stage, self, stage->storage->ops->stage_resize(stage, size, err));
}

static mc_status wrap_stage_append(mc_stage *stage, const void *data, size_t size, mc_error *err) {
  mc_status status = call(FAKE_STAGE_APPEND, err);
  if (status) return status;
  mc_storage *self = enter(stage);
  return leave(stage, self, stage->storage->ops->stage_append(stage, data, size, err));
}

static mc_status wrap_stage_journal(mc_stage *stage, void **data, size_t *size, size_t max, mc_error *err) {
  mc_storage *self = enter(stage);
  return leave(stage, self, stage->storage->ops->stage_journal(stage, data, size, max, err));
}

static mc_status wrap_stage_commit(mc_stage *stage, const mc_digest *digest, const void *meta, size_t meta_size,
                                   mc_error *err) {
  mc_status status = call(FAKE_STAGE_COMMIT, err);
  if (status) return status;
  mc_storage *self = enter(stage);
  status = stage->storage->ops->stage_commit(stage, digest, meta, meta_size, err);
  if (status) stage->storage = self;
  return status;
}

static mc_status wrap_stage_record(mc_stage *stage, const char *key, const void *data, size_t size, mc_error *err) {
  mc_status status = call(FAKE_RECORD_PUT, err);
  if (status) return status;
  mc_storage *self = enter(stage);
  return leave(stage, self, stage->storage->ops->stage_record(stage, key, data, size, err));
}

static void wrap_stage_close(mc_stage *stage, bool keep) {
  enter(stage);
  stage->storage->ops->stage_close(stage, keep);
}

static mc_status wrap_record_put(mc_storage *self, const char *key, const void *data, size_t size, mc_error *err) {
  mc_status status = call(FAKE_RECORD_PUT, err);
  return status ? status : inner_of(self)->ops->record_put(inner_of(self), key, data, size, err);
}

static mc_status wrap_record_get(mc_storage *self, const char *key, void **data, size_t *size, size_t max,
                                 mc_error *err) {
  mc_status status = call(FAKE_RECORD_GET, err);
  return status ? status : inner_of(self)->ops->record_get(inner_of(self), key, data, size, max, err);
}

static mc_status wrap_record_remove(mc_storage *self, const char *key, mc_error *err) {
  return inner_of(self)->ops->record_remove(inner_of(self), key, err);
}

static mc_status wrap_record_scan(mc_storage *self,
                                  bool (*visit)(void *user, const char *key, const void *data, size_t size), void *user,
                                  size_t max, mc_error *err) {
  mc_status status = call(FAKE_RECORD_SCAN, err);
  return status ? status : inner_of(self)->ops->record_scan(inner_of(self), visit, user, max, err);
}

static mc_status open_posix(mc_storage **out, const mc_storage_config *config, mc_error *err);
static mc_status open_memory(mc_storage **out, const mc_storage_config *config, mc_error *err);

#define BASE_OPS                                                                                                       \
  .abi = MC_STORAGE_ABI, .close = wrap_close, .open_object = wrap_open_object, .read_meta = wrap_read_meta,            \
  .remove_object = wrap_remove_object, .scan = wrap_scan, .stage_create = wrap_stage_create,                           \
  .stage_resize = wrap_stage_resize, .stage_commit = wrap_stage_commit, .stage_close = wrap_stage_close

static const mc_storage_ops faulty = {
    .name = "faulty",
    .flags = MC_STORAGE_PERSISTENT,
    .open = open_posix,
    .object_path = wrap_object_path,
    .look = wrap_look,
    .free_bytes = wrap_free_bytes,
    .stage_resume = wrap_stage_resume,
    .stage_append = wrap_stage_append,
    .stage_journal = wrap_stage_journal,
    .restage = wrap_restage,
    .stage_record = wrap_stage_record,
    .record_put = wrap_record_put,
    .record_get = wrap_record_get,
    .record_remove = wrap_record_remove,
    .record_scan = wrap_record_scan,
    BASE_OPS,
};
static const mc_storage_ops faulty_memory = {.name = "memory", .open = open_memory, BASE_OPS};

const mc_storage_ops *const fake_storages[] = {&faulty, &faulty_memory, NULL};

static mc_status open_wrapped(mc_storage **out, const mc_storage_ops *ops, const char *name,
                              const mc_storage_config *config, mc_error *err) {
  struct wrapper *self = calloc(1, sizeof(*self));
  assert_non_null(self);
  self->base.ops = ops;
  for (size_t i = 0; builtin_storages[i]; i++) {
    if (strcmp(builtin_storages[i]->name, name) != 0) continue;
    mc_status status = builtin_storages[i]->open(&self->inner, config, err);
    if (status) {
      free(self);
      return status;
    }
  }
  assert_non_null(self->inner);
  *out = &self->base;
  return MC_OK;
}

static mc_status open_posix(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  return open_wrapped(out, &faulty, "posix", config, err);
}

static mc_status open_memory(mc_storage **out, const mc_storage_config *config, mc_error *err) {
  return open_wrapped(out, &faulty_memory, "memory", config, err);
}
