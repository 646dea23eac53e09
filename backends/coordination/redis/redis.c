#include "redis.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include "base/url.h"
#include "messages.h"
#include "tls.h"

#define LIST_BATCH     512 /* URLs, and then their entries, in one reply */
#define MEMBERS_BATCH  64
#define MEMBERS_MOST   4096
#define HOLD_BATCH     256
#define MAX_REVISION   ((uint64_t)1 << 53) /* Lua's numbers are exact up to there */
#define MAX_DOCUMENT   ((size_t)64 << 10)
#define MAX_HOLDERS    ((size_t)64 * (MC_ENDPOINT_SIZE + 1))
#define PRESENT_LEASES 3

static mc_status no_memory(mc_error *err) {
  return mc_error_set(err, MC_NO_MEMORY, REDIS_ORIGIN, "no memory for an entry");
}

static mc_status strange(mc_error *err) {
  return mc_error_set(err, MC_PROTOCOL, REDIS_ORIGIN, "Redis' reply is not what its script gives");
}

static mc_status check_key(const char *key, mc_error *err) {
  if (key_is_valid(key)) return MC_OK;
  return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "a key is 64 lower-case hex digits");
}

static bool is_text(const redisReply *reply) {
  return reply->type == REDIS_REPLY_STRING && strlen(reply->str) == (size_t)reply->len;
}

static bool is_number(const redisReply *reply) {
  return reply->type == REDIS_REPLY_INTEGER;
}

static bool is_array(const redisReply *reply, size_t least) {
  return reply->type == REDIS_REPLY_ARRAY && reply->elements >= least;
}

struct number {
  char text[24];
};

static struct number number_of(uint64_t value) {
  struct number number;
  snprintf(number.text, sizeof(number.text), "%llu", (unsigned long long)value);
  return number;
}

/* ---- entries ---- */

static mc_status decode_found(mc_entry **out, const redisReply *reply, const char *key, mc_error *err) {
  struct buf holders;
  if (!is_array(reply, 1) || reply->element[0]->type != REDIS_REPLY_STRING) return strange(err);
  mc_entry *entry = record_decode(key, reply->element[0]->str, (size_t)reply->element[0]->len);
  if (!entry) { /* nothing that helps anybody: what is found out next takes its place */
    return mc_error_set(err, MC_NOT_FOUND, REDIS_ORIGIN, "the entry of this URL can't be read");
  }
  buf_init(&holders, MAX_HOLDERS);
  for (size_t i = 1; i < reply->elements; i++) {
    const redisReply *holder = reply->element[i];
    if (!is_text(holder) || holder->len >= MC_ENDPOINT_SIZE || strpbrk(holder->str, " \t\r\n")) continue;
    if (holders.size) buf_append(&holders, " ", 1);
    buf_append_str(&holders, holder->str);
  }
  if (holders.size && !holders.failed) {
    entry->holders = holders.data;
    *out = entry_copy(entry);
    free(entry);
  } else {
    *out = entry;
  }
  buf_free(&holders);
  return *out ? MC_OK : no_memory(err);
}

static mc_status redis_lookup(mc_coordination *coordination, const char *key, mc_entry **out, mc_error *err) {
  redisReply *reply;
  mc_status status = check_key(key, err);
  if (!status) {
    status = pool_run(&reply, redis_of(coordination), SCRIPT_LOOKUP, (const char *const[]){key, NULL}, err);
  }
  if (status) return status;
  if (reply->type == REDIS_REPLY_NIL) {
    status = mc_error_set(err, MC_NOT_FOUND, REDIS_ORIGIN, "nothing is known of this URL");
  } else {
    status = decode_found(out, reply, key, err);
  }
  freeReplyObject(reply);
  return status;
}

static mc_status lost(mc_error *err) {
  return mc_error_set(err, MC_BUSY, REDIS_ORIGIN, "the claim is not held any more: its lease has run out");
}

static mc_status redis_publish(mc_coordination *coordination, const char *key, uint64_t token, const mc_entry *entry,
                               mc_error *err) {
  struct redis *self = redis_of(coordination);
  redisReply *reply;
  mc_status status = check_key(key, err);
  if (status) return status;
  if (entry->revision >= MAX_REVISION) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "an entry's revision is beyond any time");
  }
  char *record = record_encode(entry);
  if (!record) return no_memory(err);
  struct number number = number_of(token);
  status = pool_run(&reply, self, SCRIPT_PUBLISH,
                    (const char *const[]){key, self->member, number.text, record, entry->url, NULL}, err);
  free(record);
  if (status) return status;
  if (!is_text(reply)) {
    status = strange(err);
  } else if (strcmp(reply->str, "lost") == 0) {
    status = lost(err);
  } else if (strcmp(reply->str, "held") == 0) {
    status = mc_error_set(err, MC_BUSY, REDIS_ORIGIN, "the URL is claimed");
  } else if (strcmp(reply->str, "newer") == 0) {
    status = mc_error_set(err, MC_BUSY, REDIS_ORIGIN, "a newer entry is known of the URL");
  }
  freeReplyObject(reply);
  return status;
}

static mc_status redis_forget(mc_coordination *coordination, const char *key, mc_error *err) {
  struct redis *self = redis_of(coordination);
  redisReply *reply;
  mc_status status = check_key(key, err);
  if (!status) status = pool_run(&reply, self, SCRIPT_FORGET, (const char *const[]){key, self->member, NULL}, err);
  if (status) return status;
  if (!is_number(reply)) {
    status = strange(err);
  } else if (!reply->integer) {
    status = mc_error_set(err, MC_BUSY, REDIS_ORIGIN, "the URL is claimed");
  }
  freeReplyObject(reply);
  return status;
}

/* ---- listing ---- */

/* The first text, of bytes, after all that begin with `prefix`: "(…", or "+" if there is none. malloced. */
static char *end_of(const char *prefix) {
  size_t size = strlen(prefix);
  while (size && (unsigned char)prefix[size - 1] == 0xff) size--;
  char *end = malloc(size + 2);
  if (!end) return NULL;
  end[0] = size ? '(' : '+';
  memcpy(end + 1, prefix, size);
  if (size) end[size]++;
  end[size + 1] = 0;
  return end;
}

static char *bracket(char kind, const char *text) {
  size_t size = strlen(text) + 1;
  char *out = malloc(size + 1);
  if (!out) return NULL;
  out[0] = kind;
  memcpy(out + 1, text, size);
  return out;
}

/* The entries of some URLs. */
static mc_status ask_entries(redisReply **out, struct redis *self, const redisReply *urls, mc_error *err) {
  size_t room = strlen(self->address.prefix) + sizeof("entry:") + KEY_SIZE;
  const char *args[LIST_BATCH + 2] = {"MGET"};
  char *names = malloc(urls->elements * room);
  if (!names) return no_memory(err);
  for (size_t i = 0; i < urls->elements; i++) {
    char key[KEY_SIZE];
    key_of_url(key, urls->element[i]->str);
    snprintf(names + i * room, room, "%sentry:%s", self->address.prefix, key);
    args[i + 1] = names + i * room;
  }
  mc_status status = pool_ask(out, self, args, err);
  free(names);
  return status;
}

struct visitor {
  bool (*visit)(void *user, const mc_entry *entry);
  void *user;
};

static bool visit_all(const redisReply *urls, const redisReply *records, const struct visitor *visitor) {
  bool more = true;
  for (size_t i = 0; i < urls->elements && i < records->elements && more; i++) {
    char key[KEY_SIZE];
    const redisReply *record = records->element[i];
    if (record->type != REDIS_REPLY_STRING) continue; /* it was forgotten meanwhile */
    key_of_url(key, urls->element[i]->str);
    mc_entry *entry = record_decode(key, record->str, (size_t)record->len);
    if (entry) more = visitor->visit(visitor->user, entry);
    free(entry);
  }
  return more;
}

/* One batch from *from on, which is moved behind it; NULL: that was the last. */
static mc_status list_some(struct redis *self, char **from, const char *end, const struct visitor *visitor,
                           mc_error *err) {
  char set[REDIS_TEXT_SIZE + 8];
  struct number most = number_of(LIST_BATCH);
  redisReply *urls, *records = NULL;
  snprintf(set, sizeof(set), "%surls", self->address.prefix);
  mc_status status =
      pool_ask(&urls, self, (const char *const[]){"ZRANGEBYLEX", set, *from, end, "LIMIT", "0", most.text, NULL}, err);
  free(*from);
  *from = NULL;
  if (status) return status;
  if (!is_array(urls, 0) || urls->elements > LIST_BATCH) status = strange(err);
  for (size_t i = 0; !status && i < urls->elements; i++) {
    if (!is_text(urls->element[i])) status = strange(err);
  }
  if (!status && urls->elements) status = ask_entries(&records, self, urls, err);
  if (!status && records) {
    if (!is_array(records, 0)) {
      status = strange(err);
    } else if (visit_all(urls, records, visitor) && urls->elements == LIST_BATCH) {
      *from = bracket('(', urls->element[LIST_BATCH - 1]->str);
      if (!*from) status = no_memory(err);
    }
  }
  freeReplyObject(urls);
  freeReplyObject(records);
  return status;
}

static mc_status redis_list(mc_coordination *coordination, const char *prefix, const char *after,
                            bool (*visit)(void *user, const mc_entry *entry), void *user, mc_error *err) {
  struct visitor visitor = {visit, user};
  bool later = after && strcmp(after, prefix) >= 0;
  char *from = later ? bracket('(', after) : bracket('[', prefix), *end = end_of(prefix);
  mc_status status = from && end ? MC_OK : no_memory(err);
  while (from && !status) status = list_some(redis_of(coordination), &from, end, &visitor, err);
  free(from);
  free(end);
  return status;
}

/* ---- claims ---- */

static mc_status redis_claim(mc_coordination *coordination, const char *key, mc_claim *claim, mc_error *err) {
  struct redis *self = redis_of(coordination);
  struct number lease = number_of((uint64_t)self->lease_ms);
  redisReply *reply;
  mc_status status = check_key(key, err);
  if (!status) {
    status = pool_run(&reply, self, SCRIPT_CLAIM, (const char *const[]){key, self->member, lease.text, NULL}, err);
  }
  if (status) return status;
  if (!is_array(reply, 3) || !is_number(reply->element[0]) || !is_text(reply->element[1]) ||
      !is_text(reply->element[2]) || !*reply->element[2]->str || reply->element[2]->len >= sizeof(claim->owner)) {
    status = strange(err);
  } else {
    claim->granted = reply->element[0]->integer == 1;
    claim->token = strtoull(reply->element[1]->str, NULL, 10);
    strcpy(claim->owner, reply->element[2]->str);
    if (!claim->token) status = strange(err);
  }
  freeReplyObject(reply);
  return status;
}

static mc_status redis_renew(mc_coordination *coordination, const char *key, uint64_t token, const mc_claim_news *news,
                             mc_error *err) {
  struct redis *self = redis_of(coordination);
  struct number number = number_of(token), lease = number_of((uint64_t)self->lease_ms);
  redisReply *reply;
  mc_status status = check_key(key, err);
  if (status) return status;
  char *text = news ? claim_news_encode(news) : NULL;
  if (news && !text) return no_memory(err);
  status = pool_run(&reply, self, SCRIPT_RENEW,
                    (const char *const[]){key, self->member, lease.text, number.text, text ? text : "", NULL}, err);
  free(text);
  if (status) return status;
  if (!is_number(reply)) {
    status = strange(err);
  } else if (!reply->integer) {
    status = lost(err);
  }
  freeReplyObject(reply);
  return status;
}

static void redis_abandon(mc_coordination *coordination, const char *key, uint64_t token) {
  struct number number = number_of(token);
  redisReply *reply;
  mc_error err = MC_ERROR_INIT;
  if (!key_is_valid(key)) return;
  struct redis *self = redis_of(coordination);
  if (pool_run(&reply, self, SCRIPT_ABANDON, (const char *const[]){key, number.text, NULL}, &err) == MC_OK) {
    freeReplyObject(reply);
  } else {
    log_debug(self->logger, REDIS_ORIGIN, "a claim wasn't given back: %s", err.message);
  }
}

/* ---- members ---- */

static mc_status leave(struct redis *self, mc_error *err) {
  redisReply *reply;
  mc_status status = pool_run(&reply, self, SCRIPT_LEAVE, (const char *const[]){"", self->member, NULL}, err);
  if (!status) freeReplyObject(reply);
  return status;
}

/* Somebody may have emptied it, and no connection broke; and another member may have filled it since. */
static void hear_birth(struct redis *self, bool filled, uint64_t born) {
  pthread_mutex_lock(&self->lock);
  if ((self->filled && !filled) || (self->born && self->born != born)) {
    self->emptied = true;
    subscriber_wake(self);
  }
  self->filled = filled;
  self->born = born;
  pthread_mutex_unlock(&self->lock);
}

static mc_status redis_present(mc_coordination *coordination, const char *document, mc_error *err) {
  struct redis *self = redis_of(coordination);
  struct number ms = number_of((uint64_t)self->lease_ms * PRESENT_LEASES);
  redisReply *reply;
  if (!document) return leave(self, err);
  if (strlen(document) > MAX_DOCUMENT) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "a member's document has at most 64 KiB");
  }
  mc_status status =
      pool_run(&reply, self, SCRIPT_PRESENT, (const char *const[]){"", self->member, document, ms.text, NULL}, err);
  if (status) return status;
  if (is_array(reply, 2) && is_number(reply->element[0]) && is_text(reply->element[1])) {
    hear_birth(self, reply->element[0]->integer == 1, strtoull(reply->element[1]->str, NULL, 10));
  } else {
    status = strange(err);
  }
  freeReplyObject(reply);
  return status;
}

static bool visit_members(const redisReply *reply,
                          bool (*visit)(void *user, const char *member_id, const char *document, int64_t age_ms),
                          void *user) {
  bool more = true;
  for (size_t i = 1; i + 2 < reply->elements && more; i += 3) {
    redisReply **member = &reply->element[i];
    if (!is_text(member[0]) || !is_text(member[1]) || !is_number(member[2])) continue;
    if (member[0]->len >= sizeof(((mc_claim *)0)->owner) || member[1]->len > MAX_DOCUMENT) continue;
    more = visit(user, member[0]->str, member[1]->str, member[2]->integer);
  }
  return more;
}

static mc_status redis_members(mc_coordination *coordination,
                               bool (*visit)(void *user, const char *member_id, const char *document, int64_t age_ms),
                               void *user, mc_error *err) {
  struct redis *self = redis_of(coordination);
  bool more = true;
  for (unsigned from = 0; more && from < MEMBERS_MOST; from += MEMBERS_BATCH) {
    struct number first = number_of(from), last = number_of(from + MEMBERS_BATCH - 1);
    redisReply *reply;
    mc_status status =
        pool_run(&reply, self, SCRIPT_MEMBERS, (const char *const[]){"", first.text, last.text, NULL}, err);
    if (status) return status;
    if (!is_array(reply, 1) || !is_number(reply->element[0])) {
      freeReplyObject(reply);
      return strange(err);
    }
    more = reply->element[0]->integer == MEMBERS_BATCH;
    if (!visit_members(reply, visit, user)) more = false;
    freeReplyObject(reply);
  }
  return MC_OK;
}

static mc_status hold_some(struct redis *self, const mc_digest *digests, size_t count, const char *endpoint,
                           const char *ms, mc_error *err) {
  char hex[HOLD_BATCH][MC_DIGEST_HEX_SIZE];
  const char *args[HOLD_BATCH + 4] = {"", endpoint, ms};
  redisReply *reply;
  for (size_t i = 0; i < count; i++) args[i + 3] = mc_digest_hex(hex[i], &digests[i]);
  mc_status status = pool_run(&reply, self, SCRIPT_HOLD, args, err);
  if (!status) freeReplyObject(reply);
  return status;
}

static mc_status redis_hold(mc_coordination *coordination, const mc_digest *digests, size_t count, const char *endpoint,
                            int64_t ms, mc_error *err) {
  struct number number = number_of(ms > 0 ? (uint64_t)ms : 0);
  mc_status status = MC_OK;
  if (!*endpoint || strlen(endpoint) >= MC_ENDPOINT_SIZE || strpbrk(endpoint, " \t\r\n")) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN, "a holder's endpoint is one word");
  }
  for (size_t done = 0; done < count && !status; done += HOLD_BATCH) {
    size_t some = count - done < HOLD_BATCH ? count - done : HOLD_BATCH;
    status = hold_some(redis_of(coordination), digests + done, some, endpoint, number.text, err);
  }
  return status;
}

static mc_status redis_filled(mc_coordination *coordination, mc_error *err) {
  struct redis *self = redis_of(coordination);
  char name[REDIS_TEXT_SIZE + 8];
  redisReply *reply;
  snprintf(name, sizeof(name), "%sfilled", self->address.prefix);
  mc_status status = pool_ask(&reply, self, (const char *const[]){"SET", name, "1", NULL}, err);
  if (status) return status;
  freeReplyObject(reply);
  pthread_mutex_lock(&self->lock);
  self->filled = true;
  pthread_mutex_unlock(&self->lock);
  return MC_OK;
}

/* ---- opening ---- */

static mc_status redis_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err);

static void free_self(struct redis *self) {
  pthread_cond_destroy(&self->changed);
  pthread_mutex_destroy(&self->lock);
  redis_address_wipe(&self->address);
  free(self);
}

static void redis_close(mc_coordination *coordination) {
  struct redis *self = redis_of(coordination);
  pthread_mutex_lock(&self->lock);
  bool up = self->state == REDIS_UP;
  pthread_mutex_unlock(&self->lock);
  if (up) leave(self, NULL);
  subscriber_stop(self);
  pool_close(self);
  free_self(self);
}

extern const mc_coordination_ops redis_coordination_ops;
const mc_coordination_ops redis_coordination_ops = {
    .abi = MC_COORDINATION_ABI,
    .name = "redis",
    .flags = MC_COORDINATION_SHARED,
    .open = redis_open,
    .close = redis_close,
    .lookup = redis_lookup,
    .claim = redis_claim,
    .renew = redis_renew,
    .publish = redis_publish,
    .abandon = redis_abandon,
    .wait = redis_wait,
    .forget = redis_forget,
    .list = redis_list,
    .present = redis_present,
    .members = redis_members,
    .hold = redis_hold,
    .filled = redis_filled,
};

static mc_status redis_open(mc_coordination **out, const mc_coordination_config *config, mc_error *err) {
  size_t room = sizeof(((struct redis *)0)->member);
  if (!config->member_id || !*config->member_id || strlen(config->member_id) >= room || config->lease_ms <= 0) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, REDIS_ORIGIN,
                        "a member's id has 1 to %zu bytes, and a lease a length", room - 1);
  }
  struct redis *self = calloc(1, sizeof(*self));
  if (!self) return no_memory(err);
  self->base.ops = &redis_coordination_ops;
  strcpy(self->member, config->member_id);
  self->lease_ms = config->lease_ms;
  self->logger = config->logger;
  self->event = config->event;
  self->user = config->user;
  pthread_mutex_init(&self->lock, NULL);
  cond_init(&self->changed);
  mc_status status = redis_address_parse(&self->address, config->location ? config->location : "", err);
  if (!status && self->address.tls) status = tls_is_there(err);
  if (!status) status = subscriber_start(self, err);
  if (status) {
    free_self(self);
    return status;
  }
  *out = &self->base;
  return MC_OK;
}
