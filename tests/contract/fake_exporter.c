#include "fake_exporter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <utlist.h>

#include "base/clock.h"

#define PATIENCE_MS 10000

static mc_status fake_open(void *user, const mc_content *content, mc_export *out, mc_error *err) {
  struct fake_exporter *fake = user;
  mc_status status = mc_error_set(err, MC_NOT_FOUND, "fake", "there is no such content");
  pthread_mutex_lock(&fake->lock);
  for (unsigned i = 0; i < fake->count && status; i++) {
    struct fake_content *at = &fake->contents[i];
    if (at->content.kind != content->kind || memcmp(at->content.id, content->id, sizeof(content->id)) != 0) continue;
    *out = (mc_export){.fd = at->fd, .size = at->size, .state = at};
    at->opens++;
    status = MC_OK;
  }
  pthread_cond_broadcast(&fake->changed);
  pthread_mutex_unlock(&fake->lock);
  return status;
}

static void fake_close(void *user, mc_export *export_) {
  struct fake_exporter *fake = user;
  struct fake_content *content = export_->state;
  pthread_mutex_lock(&fake->lock);
  content->closes++;
  pthread_cond_broadcast(&fake->changed);
  pthread_mutex_unlock(&fake->lock);
}

static mc_status fake_ready(void *user, mc_export *export_, uint64_t offset, uint64_t *bytes, void (*wake)(void *arg),
                            void *arg, mc_error *err) {
  struct fake_exporter *fake = user;
  struct fake_content *content = export_->state;
  mc_status status = MC_OK;
  pthread_mutex_lock(&fake->lock);
  uint64_t ready = offset < content->landed ? content->landed - offset : 0;
  export_->size = content->size;
  if (content->failed) {
    status = mc_error_set(err, MC_UNAVAILABLE, "fake", "the flight has failed");
  } else if (ready == 0 && offset < content->size) {
    struct fake_watch *watch = malloc(sizeof(*watch));
    if (!watch) abort();
    *watch = (struct fake_watch){.wake = wake, .arg = arg};
    LL_PREPEND(content->watches, watch);
    content->watched++;
  }
  if (ready < *bytes) *bytes = ready;
  pthread_cond_broadcast(&fake->changed);
  pthread_mutex_unlock(&fake->lock);
  return status;
}

static void fake_unwatch(void *user, mc_export *export_, void *arg) {
  struct fake_exporter *fake = user;
  struct fake_content *content = export_->state;
  struct fake_watch *watch, *next;
  pthread_mutex_lock(&fake->lock);
  LL_FOREACH_SAFE(content->watches, watch, next) {
    if (watch->arg != arg) continue;
    LL_DELETE(content->watches, watch);
    free(watch);
  }
  while (fake->waking) pthread_cond_wait(&fake->changed, &fake->lock);
  pthread_mutex_unlock(&fake->lock);
}

static mc_status fake_suspect(void *user, mc_export *export_, uint64_t offset, mc_error *err) {
  struct fake_exporter *fake = user;
  struct fake_content *content = export_->state;
  pthread_mutex_lock(&fake->lock);
  mc_status status = content->suspect_status;
  content->suspects++;
  content->suspect_offset = offset;
  pthread_cond_broadcast(&fake->changed);
  pthread_mutex_unlock(&fake->lock);
  return status ? mc_error_set(err, status, "fake", "the copy here is damaged too") : MC_OK;
}

static void fake_sent(void *user, uint64_t bytes) {
  struct fake_exporter *fake = user;
  pthread_mutex_lock(&fake->lock);
  fake->sent += bytes;
  pthread_mutex_unlock(&fake->lock);
}

void fake_init(struct fake_exporter *fake) {
  *fake = (struct fake_exporter){.exporter = {.user = fake,
                                              .open = fake_open,
                                              .close = fake_close,
                                              .ready = fake_ready,
                                              .unwatch = fake_unwatch,
                                              .suspect = fake_suspect,
                                              .sent = fake_sent}};
  pthread_mutex_init(&fake->lock, NULL);
  cond_init(&fake->changed);
}

void fake_free(struct fake_exporter *fake) {
  for (unsigned i = 0; i < fake->count; i++) {
    struct fake_content *content = &fake->contents[i];
    assert_int_equal(content->opens, content->closes);
    assert_null(content->watches);
    if (content->room) munmap(content->data, content->room);
    close(content->fd);
  }
  pthread_cond_destroy(&fake->changed);
  pthread_mutex_destroy(&fake->lock);
}

static struct fake_content *add(struct fake_exporter *fake, mc_content_kind kind, uint64_t size, uint64_t landed,
                                uint64_t known_size) {
  assert_true(fake->count < FAKE_CONTENTS);
  struct fake_content *content = &fake->contents[fake->count];
  *content =
      (struct fake_content){.owner = fake, .content.kind = kind, .room = size, .size = known_size, .landed = landed};
  memset(content->content.id, (int)fake->count + 1, sizeof(content->content.id));
  content->fd = memfd_create("content", MFD_CLOEXEC);
  assert_true(content->fd >= 0);
  assert_int_equal(ftruncate(content->fd, (off_t)size), 0);
  if (size) content->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, content->fd, 0);
  assert_ptr_not_equal(content->data, MAP_FAILED);
  uint64_t state = fake->count + 1;
  for (uint64_t i = 0; i + sizeof(state) <= size; i += sizeof(state)) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    memcpy(content->data + i, &state, sizeof(state));
  }
  pthread_mutex_lock(&fake->lock);
  fake->count++;
  pthread_mutex_unlock(&fake->lock);
  return content;
}

struct fake_content *fake_add(struct fake_exporter *fake, mc_content_kind kind, uint64_t size) {
  return add(fake, kind, size, size, size);
}

struct fake_content *fake_add_flight(struct fake_exporter *fake, uint64_t size, bool unknown) {
  return add(fake, MC_CONTENT_FLIGHT, size, 0, unknown ? MC_SIZE_UNKNOWN : size);
}

/* With the lock held: call the watchers, without it, and take it again. */
static void wake_all(struct fake_content *content) {
  struct fake_exporter *fake = content->owner;
  struct fake_watch *taken = content->watches, *watch, *next;
  content->watches = NULL;
  fake->waking++;
  pthread_mutex_unlock(&fake->lock);
  LL_FOREACH_SAFE(taken, watch, next) {
    watch->wake(watch->arg);
    free(watch);
  }
  pthread_mutex_lock(&fake->lock);
  fake->waking--;
  pthread_cond_broadcast(&fake->changed);
}

void fake_land(struct fake_content *content, uint64_t landed) {
  pthread_mutex_lock(&content->owner->lock);
  content->landed = landed;
  wake_all(content);
  pthread_mutex_unlock(&content->owner->lock);
}

void fake_finish(struct fake_content *content) {
  pthread_mutex_lock(&content->owner->lock);
  content->size = content->landed = content->room;
  wake_all(content);
  pthread_mutex_unlock(&content->owner->lock);
}

void fake_fail(struct fake_content *content) {
  pthread_mutex_lock(&content->owner->lock);
  content->failed = true;
  wake_all(content);
  pthread_mutex_unlock(&content->owner->lock);
}

static void await(struct fake_content *content, const unsigned *counter, unsigned count, const char *what) {
  struct fake_exporter *fake = content->owner;
  int64_t deadline = deadline_in_ms(PATIENCE_MS);
  bool in_time = true;
  pthread_mutex_lock(&fake->lock);
  while (*counter < count && in_time) in_time = cond_wait_until(&fake->changed, &fake->lock, deadline);
  unsigned reached = *counter;
  pthread_mutex_unlock(&fake->lock);
  if (reached < count) fail_msg("waited in vain for %u %s, there were %u", count, what, reached);
}

void fake_await_watched(struct fake_content *content, unsigned count) {
  await(content, &content->watched, count, "watches");
}

void fake_await_closes(struct fake_content *content, unsigned count) {
  await(content, &content->closes, count, "closes");
}

void fake_await_suspects(struct fake_content *content, unsigned count) {
  await(content, &content->suspects, count, "suspects");
}
