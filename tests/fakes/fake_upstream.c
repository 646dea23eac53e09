#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/hash.h"
#include "fake_await.h"
#include "fake_upstream.h"

#define CONTENTS 256
#define PIECE    ((uint64_t)64 << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct fake_content *contents[2][CONTENTS];

struct upstream {
  mc_upstream base;
  int which;
};

/* What a source was opened for: the version of then. */
struct source {
  mc_source base;
  struct fake_content *content;
  mc_validators validators;
  uint64_t size;
  bool ranges;
  bool listed; /* it was opened by what a listing said */
};

void fake_lock(void) {
  pthread_mutex_lock(&lock);
}

void fake_unlock(void) {
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

/* ---- contents ---- */

static void fill(struct fake_content *content, uint64_t size, uint32_t seed) {
  uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  uint8_t *data = malloc(size + 8);
  assert_non_null(data);
  for (uint64_t at = 0; at < size; at += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    memcpy(data + at, &state, 8);
  }
  free(content->data);
  content->data = data;
  content->size = size;
  memset(&content->validators, 0, sizeof(content->validators));
  snprintf(content->validators.etag, sizeof(content->validators.etag), "\"%u-%llu\"", seed, (unsigned long long)size);
  sha256_of(&content->digest, data, size);
  assert_true(size <= FAKE_MAX_CHUNKS * MC_CHUNK_SIZE);
  for (uint32_t i = 0; i * MC_CHUNK_SIZE < size; i++) {
    xxh128_of(&content->hashes[i], data + i * MC_CHUNK_SIZE, chunk_length(size, i));
  }
}

static struct fake_content *find(int which, const char *name) {
  for (size_t i = 0; i < CONTENTS && contents[which][i]; i++) {
    if (strcmp(contents[which][i]->name, name) == 0) return contents[which][i];
  }
  return NULL;
}

struct fake_content *fake_add(int which, const char *name, uint64_t size, uint32_t seed) {
  struct fake_content *content = calloc(1, sizeof(*content));
  assert_non_null(content);
  snprintf(content->name, sizeof(content->name), "%s", name);
  content->gate = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  content->lowest_read = UINT64_MAX;
  fill(content, size, seed);
  fake_lock();
  size_t at = 0;
  while (at < CONTENTS && contents[which][at]) at++;
  assert_true(at < CONTENTS);
  contents[which][at] = content;
  fake_unlock();
  return content;
}

void fake_change(struct fake_content *content, uint64_t size, uint32_t seed) {
  fake_lock();
  fill(content, size, seed);
  fake_unlock();
}

void fake_release(struct fake_content *content) {
  uint64_t one = 1;
  fake_lock();
  content->stalls = false;
  assert_int_equal(write(content->gate, &one, sizeof(one)), sizeof(one));
  fake_unlock();
}

void fake_await(const unsigned *counter, unsigned least) {
  await_counter(counter, least, &lock, &changed);
}

unsigned fake_count(const unsigned *counter) {
  pthread_mutex_lock(&lock);
  unsigned count = *counter;
  pthread_mutex_unlock(&lock);
  return count;
}

void fake_reset_counts(struct fake_content *content) {
  fake_lock();
  content->stats = content->opens = content->opens_unchanged = content->opens_listed = content->reads =
      content->closes = 0;
  content->bytes = 0;
  content->lowest_read = UINT64_MAX;
  memset(content->chunk_bytes, 0, sizeof(content->chunk_bytes));
  fake_unlock();
}

void fake_clear(void) {
  for (int which = 0; which < 2; which++) {
    for (size_t i = 0; i < CONTENTS && contents[which][i]; i++) {
      assert_int_equal(contents[which][i]->stalled, 0);
      close(contents[which][i]->gate);
      free(contents[which][i]->data);
      free(contents[which][i]);
      contents[which][i] = NULL;
    }
  }
}

/* ---- the upstream ---- */

static struct fake_content *content_of(mc_upstream *self, const char *url) {
  return find(((struct upstream *)self)->which, url + strlen("fake://"));
}

static mc_status no_such(const char *url, mc_error *err) {
  return mc_error_set(err, MC_NOT_FOUND, "fake", "there is no %s", url);
}

static void tell_checksum(const struct fake_content *content, mc_checksum *checksum) {
  struct checksum *sum;
  assert_int_equal(checksum_new(&sum, content->tells_checksum, content->size, NULL), MC_OK);
  checksum_update(sum, content->data, content->size);
  checksum_final(sum, checksum);
  checksum_free(sum);
  if (content->tells_wrong_checksum) checksum->bytes[0] ^= 1;
}

/* With the lock held. */
static void tell(const struct fake_content *content, mc_info *info) {
  info->has_digest = content->tells_digest || content->tells_wrong_digest;
  info->digest = content->digest;
  if (content->tells_wrong_digest) info->digest.bytes[0] ^= 1;
  if (content->tells_checksum) tell_checksum(content, &info->checksum);
  if (!content->tells_chunks) return;
  info->chunks.size = content->size;
  info->chunks.hashes = content->hashes;
  chunk_count(content->size, &info->chunks.count);
}

static void describe(const struct fake_content *content, mc_info *info, bool late) {
  *info = (mc_info){.size = content->claims_size ? content->claims_size : content->size};
  info->validators = content->validators;
  info->ranges = !content->no_ranges;
  if (content->unknown_size) info->size = MC_SIZE_UNKNOWN;
  if (late || !content->tells_late) tell(content, info);
}

static mc_status fake_stat(mc_upstream *self, const char *url, mc_info *info, const mc_call *call, mc_error *err) {
  mc_status status = mc_call_check(call, err);
  fake_lock();
  struct fake_content *content = content_of(self, url);
  if (content) content->stats++;
  if (!status && content && content->open_fails)
    status = mc_error_set(err, content->open_fails, "fake", "told to fail");
  if (!status && (!content || content->missing)) status = no_such(url, err);
  if (!status) describe(content, info, false);
  fake_unlock();
  return status;
}

static mc_status fake_explain(mc_upstream *self, const char *url, mc_access *access, const mc_call *call,
                              mc_error *err) {
  mc_status status = mc_call_check(call, err);
  fake_lock();
  struct fake_content *content = content_of(self, url);
  if (!status && content && content->explain_fails) {
    status = mc_error_set(err, content->explain_fails, "fake", "told to have no credentials");
  }
  fake_unlock();
  *access = (mc_access){.endpoint = "fake://host", .credentials = "FAKE_TOKEN", .identity = "somebody"};
  access->expires_at = FAKE_EXPIRES_AT;
  return status;
}

static bool is_known(const struct fake_content *content, const mc_validators *known, uint64_t size) {
  const mc_validators *now = &content->validators;
  if (content->says_unchanged_always) return true;
  if (!known || size != content->size) return false;
  if (now->version[0] && known->version[0]) return strcmp(now->version, known->version) == 0;
  if (now->etag[0] && known->etag[0]) return strcmp(now->etag, known->etag) == 0;
  return now->last_modified && now->last_modified == known->last_modified;
}

/* Wait at the gate. With the lock held, which is let go of meanwhile. */
static mc_status stall(struct fake_content *content, const mc_call *call, mc_error *err) {
  struct pollfd fds[] = {{.fd = content->gate, .events = POLLIN}, {.fd = mc_cancel_fd(call->cancel), .events = POLLIN}};
  mc_status status = MC_OK;
  content->stalled++;
  fake_unlock();
  while (!status && !(fds[0].revents & POLLIN)) {
    status = mc_call_check(call, err);
    if (!status) poll(fds, 2, deadline_poll_ms(call->deadline));
  }
  fake_lock();
  content->stalled--;
  return status;
}

static mc_status fake_source_open(mc_upstream *self, const mc_open_args *args, mc_source **out, mc_info *info,
                                  const mc_call *call, mc_error *err) {
  mc_status status = mc_call_check(call, err);
  struct source *source = calloc(1, sizeof(*source));
  assert_non_null(source);
  *out = NULL;
  fake_lock();
  struct fake_content *content = content_of(self, args->url);
  if (content) content->opens++;
  if (!status && content && content->open_fails)
    status = mc_error_set(err, content->open_fails, "fake", "told to fail");
  bool listed = content && args->listed; /* without a look at what is there now */
  if (!status && (!content || content->missing) && !listed) status = no_such(args->url, err);
  if (!status && content->opens_say && content->stalls) {
    mc_upstream_progress progress = {7, 70, content->opens_say};
    if (args->progress) args->progress(args->progress_user, &progress);
    status = stall(content, call, err);
  }
  assert_false(args->listed && args->known);
  bool unchanged = !status && is_known(content, args->known, args->known_size);
  if (unchanged) {
    content->opens_unchanged++;
    *info = (mc_info){.size = MC_SIZE_UNKNOWN, .validators = content->validators, .unchanged = true};
  } else if (!status && listed) {
    content->opens_listed++;
    *info = (mc_info){.size = args->listed->size, .validators = args->listed->validators, .ranges = true};
    info->has_digest = args->listed->has_digest;
    info->digest = args->listed->digest;
    *source = (struct source){{self}, content, info->validators, info->size, true, true};
  } else if (!status) {
    describe(content, info, false);
    *source = (struct source){{self}, content, content->validators, content->size, info->ranges, false};
  }
  fake_unlock();
  if (status || unchanged) {
    free(source);
    return status;
  }
  *out = &source->base;
  return MC_OK;
}

static mc_status changed_now(struct source *source, mc_error *err) {
  if (source->content->missing) return mc_error_set(err, MC_CHANGED, "fake", "it has gone");
  const char *etag = source->validators.etag; /* a listing may have told none */
  bool same = !*etag || strcmp(source->content->validators.etag, etag) == 0;
  if (same && (source->size == source->content->size || !source->listed)) return MC_OK;
  return mc_error_set(err, MC_CHANGED, "fake", "another version is there");
}

/* What happens at this byte. With the lock held. */
static mc_status happen(struct source *source, uint64_t offset, const mc_call *call, mc_error *err) {
  struct fake_content *content = source->content;
  mc_status status = MC_OK;
  bool stalls = offset >= content->stalls_at && (!content->stalls_to || offset < content->stalls_to);
  if (content->stalls && stalls) status = stall(content, call, err);
  if (!status && content->changes && offset >= content->size / 2) {
    content->changes--;
    fill(content, content->size, 1000 + content->changes);
  }
  if (!status) status = changed_now(source, err);
  if (!status && content->fails && offset >= content->fails_at) {
    content->fails--;
    status = mc_error_set(err, content->fails_with, "fake", "told to fail at byte %llu", (unsigned long long)offset);
  }
  return status;
}

/* The next bytes, up to what the test has something happen at. */
static size_t next_piece(const struct fake_content *content, uint64_t offset, uint64_t end) {
  uint64_t piece = end - offset < PIECE ? end - offset : PIECE;
  uint64_t marks[] = {content->stalls ? content->stalls_at : 0, content->fails ? content->fails_at : 0};
  for (size_t i = 0; i < 2; i++) {
    if (marks[i] > offset && marks[i] - offset < piece) piece = marks[i] - offset;
  }
  return (size_t)piece;
}

static void take(struct fake_content *content, uint8_t *to, uint64_t offset, size_t size) {
  uint32_t chunk = (uint32_t)(offset / MC_CHUNK_SIZE);
  memcpy(to, content->data + offset, size);
  if (content->flips && chunk == content->flips_chunk && offset % MC_CHUNK_SIZE == 0) {
    content->flips--;
    to[0] ^= 0x55;
  }
  content->bytes += size;
  content->chunk_bytes[chunk] += size;
}

static mc_status fake_source_read(mc_source *base, mc_sink *sink, const mc_call *call, mc_error *err) {
  struct source *source = (struct source *)base;
  struct fake_content *content = source->content;
  uint8_t *buffer = malloc(PIECE);
  assert_non_null(buffer);
  mc_status status = MC_OK;
  fake_lock();
  content->reads++;
  if (sink->offset < content->lowest_read) content->lowest_read = sink->offset;
  bool whole = sink->offset == 0 && (sink->end == MC_SIZE_UNKNOWN || sink->end == source->size);
  if (!whole && (!source->ranges || content->pretends_ranges)) {
    status = mc_error_set(err, MC_UNSUPPORTED, "fake", "there are no ranges");
  }
  uint64_t end = sink->end < source->size ? sink->end : source->size;
  while (!status && sink->offset < end) {
    uint64_t in_chunk = MC_CHUNK_SIZE - sink->offset % MC_CHUNK_SIZE;
    size_t piece = next_piece(content, sink->offset, end - sink->offset < in_chunk ? end : sink->offset + in_chunk);
    status = happen(source, sink->offset, call, err);
    if (status) break;
    take(content, buffer, sink->offset, piece);
    fake_unlock();
    status = sink->write(sink, buffer, piece, err);
    fake_lock();
  }
  if (!status && sink->end != MC_SIZE_UNKNOWN && sink->offset < sink->end) {
    status = mc_error_set(err, MC_PROTOCOL, "fake", "fewer bytes than it promised");
  }
  fake_unlock();
  free(buffer);
  return status;
}

static mc_status fake_source_finish(mc_source *base, mc_info *info, const mc_open_args *args, const mc_call *call,
                                    mc_error *err) {
  struct source *source = (struct source *)base;
  (void)args;
  mc_status status = mc_call_check(call, err);
  fake_lock();
  if (!status && source->content->tells_late) tell(source->content, info);
  fake_unlock();
  return status;
}

static void fake_source_close(mc_source *base) {
  struct source *source = (struct source *)base;
  fake_lock();
  source->content->closes++;
  fake_unlock();
  free(source);
}

/* Every content whose name begins with the folder's. */
static mc_status fake_list(mc_upstream *self, const char *url, size_t max,
                           bool (*visit)(void *user, const mc_listed *listed), void *user, const mc_call *call,
                           mc_error *err) {
  int which = ((struct upstream *)self)->which;
  const char *folder = url + strlen("fake://");
  mc_status status = mc_call_check(call, err);
  size_t count = 0;
  for (size_t i = 0; i < CONTENTS && !status; i++) {
    fake_lock();
    struct fake_content *content = contents[which][i];
    bool inside = content && !content->missing && strncmp(content->name, folder, strlen(folder)) == 0;
    mc_listed listed = {.path = inside ? content->name + strlen(folder) : "", .size = inside ? content->size : 0};
    if (inside && content->lists_version) listed.validators = content->validators;
    if (inside && content->lists_digest) listed.digest = content->digest;
    listed.has_digest = inside && content->lists_digest;
    if (inside && content->open_fails) status = mc_error_set(err, content->open_fails, "fake", "told to fail");
    fake_unlock();
    if (status || !inside) continue;
    if (count++ == max) return mc_error_set(err, MC_RESOURCE_EXHAUSTED, "fake", "more than %zu files", max);
    if (!visit(user, &listed)) return MC_OK;
  }
  return status;
}

static void fake_close(mc_upstream *self) {
  free(self);
}

static mc_status open_as(mc_upstream **out, const mc_upstream_ops *ops, int which) {
  struct upstream *self = calloc(1, sizeof(*self));
  assert_non_null(self);
  self->base.ops = ops;
  self->which = which;
  *out = &self->base;
  return MC_OK;
}

static mc_status open_first(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  (void)config;
  (void)err;
  return open_as(out, &fake_upstream, 0);
}

static mc_status open_second(mc_upstream **out, const mc_upstream_config *config, mc_error *err) {
  (void)config;
  (void)err;
  return open_as(out, &fake_second_upstream, 1);
}

static const char *const schemes[] = {"fake", NULL};

#define OPS(own_name, own_open)                                                                                        \
  {                                                                                                                    \
    .abi = MC_UPSTREAM_ABI, .name = own_name, .schemes = schemes, .open = own_open, .close = fake_close,               \
    .stat = fake_stat, .source_open = fake_source_open, .source_read = fake_source_read,                               \
    .source_finish = fake_source_finish, .source_close = fake_source_close, .list = fake_list,                         \
    .explain = fake_explain,                                                                                           \
  }

const mc_upstream_ops fake_upstream = OPS("fake", open_first);
const mc_upstream_ops fake_second_upstream = OPS("fake-second", open_second);
