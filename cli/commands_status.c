/* The command that shows how a cache, a service or a cluster is doing. What it shows may come from any member: nothing
 * is believed to be there, or to be of a type. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static uint64_t number(json_t *object, const char *name) {
  json_int_t value = json_integer_value(json_object_get(object, name));
  return value > 0 ? (uint64_t)value : 0;
}

static uint64_t counter(json_t *status, const char *name) {
  return number(json_object_get(status, "counters"), name);
}

static const char *text_of(json_t *object, const char *name, char *text, size_t size) {
  const char *value = json_string_value(json_object_get(object, name));
  return printable(text, size, value ? value : "?");
}

/* ---- one cache ---- */

static void print_tier(json_t *status, const char *tier) {
  char name[64], used[SHORT_TEXT], capacity[SHORT_TEXT];
#define TIER(what) (snprintf(name, sizeof(name), "%s_%s", tier, what), counter(status, name))
  uint64_t objects = TIER("objects"), bytes = TIER("bytes"), most = TIER("capacity_bytes"), open = TIER("open_objects");
#undef TIER
  snprintf(name, sizeof(name), "%s_objects", tier);
  if (!json_object_get(json_object_get(status, "counters"), name)) return;
  printf("%-12s %s in %" PRIu64 " object%s", tier, human_size(used, bytes), objects, objects == 1 ? "" : "s");
  if (most) printf(", of %s", human_size(capacity, most));
  printf(", %" PRIu64 " in use\n", open);
}

/* "93%" of the gets that got something; "-" where there was none. */
static const char *rate(char text[SHORT_TEXT], json_t *of, const char *hits) {
  uint64_t all = counter(of, "hits_total") + counter(of, "misses_total");
  if (all) {
    snprintf(text, SHORT_TEXT, "%.0f%%", 100.0 * (double)counter(of, hits) / (double)all);
  } else {
    strcpy(text, "-");
  }
  return text;
}

static void print_counters(json_t *status) {
  char a[SHORT_TEXT], b[SHORT_TEXT], c[SHORT_TEXT];
  printf("gets         %" PRIu64 ": %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " errors\n",
         counter(status, "gets_total"), counter(status, "hits_total"), counter(status, "misses_total"),
         counter(status, "get_errors_total"));
  printf("hits         %s from memory, %s at other members, %s from storage\n", rate(a, status, "hits_memory_total"),
         rate(b, status, "hits_members_total"), rate(c, status, "hits_storage_total"));
  printf("downloaded   %s in %" PRIu64 " downloads, %s resumed\n",
         human_size(a, counter(status, "download_bytes_total")), counter(status, "downloads_total"),
         human_size(b, counter(status, "resumed_bytes_total")));
  printf("served       %s\n", human_size(a, counter(status, "served_bytes_total")));
  if (counter(status, "corrupt_chunks_total")) {
    printf("corrupt      %" PRIu64 " chunks, found and mended\n", counter(status, "corrupt_chunks_total"));
  }
  printf("now          %" PRIu64 " downloads, %" PRIu64 " calls waiting\n", counter(status, "flights_running"),
         counter(status, "waiting_requests"));
}

/* ---- the members ---- */

static int by_name(const void *a, const void *b) {
  char one[300], other[300];
  json_t *const *first = a, *const *second = b;
  int order = strcmp(text_of(*first, "name", one, sizeof(one)), text_of(*second, "name", other, sizeof(other)));
  if (order) return order;
  return strcmp(text_of(*first, "id", one, sizeof(one)), text_of(*second, "id", other, sizeof(other)));
}

/* "1.2 GiB/8.0 GiB" */
static const char *room(char text[2 * SHORT_TEXT], json_t *member, const char *name) {
  char used[SHORT_TEXT], most[SHORT_TEXT];
  json_t *tier = json_object_get(member, name);
  uint64_t capacity = number(tier, "capacity");
  human_size(used, number(tier, "bytes"));
  if (!json_is_object(tier)) {
    strcpy(text, "-");
  } else if (capacity) {
    snprintf(text, 2 * SHORT_TEXT, "%s/%s", used, human_size(most, capacity));
  } else {
    strcpy(text, used);
  }
  return text;
}

static void print_member(json_t *member) {
  char name[64], data[300], age[SHORT_TEXT], memory[2 * SHORT_TEXT], storage[2 * SHORT_TEXT];
  char a[SHORT_TEXT], b[SHORT_TEXT], c[SHORT_TEXT], d[SHORT_TEXT];
  json_t *seen = json_object_get(member, "age_ms");
  printf("  %-20s %-8s %-19s %-19s %5s %5s %5s %5s  %s\n", text_of(member, "name", name, sizeof(name)),
         human_span(age, json_is_integer(seen) ? json_integer_value(seen) : -1), room(memory, member, "memory"),
         room(storage, member, "storage"), rate(a, member, "hits_total"), rate(b, member, "hits_memory_total"),
         rate(c, member, "hits_members_total"), rate(d, member, "hits_storage_total"),
         text_of(member, "data", data, sizeof(data)));
}

static void print_members(json_t *cluster, const char *coordination) {
  json_t *members = json_object_get(cluster, "members"), *said = json_object_get(cluster, "coordination");
  size_t count = json_array_size(members);
  json_t **sorted = calloc(count + 1, sizeof(*sorted));
  char span[SHORT_TEXT];
  if (json_is_false(json_object_get(said, "reachable"))) {
    int64_t since = wall_ms() - json_integer_value(json_object_get(said, "since_ms"));
    printf("cluster      %s can't be reached, for %s: this is what one member knows\n", coordination,
           human_span(span, since < 0 ? 0 : since));
  } else {
    printf("cluster      %zu member%s, by %s\n", count, count == 1 ? "" : "s", coordination);
  }
  printf("  %-20s %-8s %-19s %-19s %5s %5s %5s %5s  %s\n", "MEMBER", "SEEN", "MEMORY", "STORAGE", "HITS", "MEM", "ELSE",
         "DISK", "DATA");
  for (size_t i = 0; sorted && i < count; i++) sorted[i] = json_array_get(members, i);
  if (sorted) qsort(sorted, count, sizeof(*sorted), by_name);
  for (size_t i = 0; sorted && i < count; i++) print_member(sorted[i]);
  free(sorted);
}

/* ---- flights ---- */

static bool is_downloading(json_t *flight) {
  const char *phase = json_string_value(json_object_get(flight, "phase"));
  return phase && strcmp(phase, "downloading") == 0;
}

/* Count a member's flight among those of its URL: who downloads tells how far it is, and all waiters count. */
static void add_flight(json_t *groups, json_t *flight, const char *member) {
  const char *key = json_string_value(json_object_get(flight, "key"));
  if (!key) return;
  json_t *group = json_object_get(groups, key);
  if (!group) {
    group = json_pack("{si si}", "waiters", 0, "members", 0);
    json_object_set_new(groups, key, group);
  }
  json_int_t waiters = (json_int_t)(number(group, "waiters") + number(flight, "waiters"));
  json_object_set_new(group, "waiters", json_integer(waiters));
  json_object_set_new(group, "members", json_integer((json_int_t)number(group, "members") + 1));
  if (json_object_get(group, "flight") && !is_downloading(flight)) return;
  json_object_set(group, "flight", flight);
  json_object_set_new(group, "at", json_text(member));
}

static void print_group(json_t *group, bool cluster) {
  char done[SHORT_TEXT], total[SHORT_TEXT], speed[SHORT_TEXT], url[512], phase[32], at[64];
  json_t *flight = json_object_get(group, "flight"), *size = json_object_get(flight, "total");
  uint64_t members = number(group, "members");
  printf("  %s: %s", text_of(flight, "url", url, sizeof(url)), text_of(flight, "phase", phase, sizeof(phase)));
  if (cluster) printf(" at %s", text_of(group, "at", at, sizeof(at)));
  printf(", %s of %s, %s/s, %" PRIu64 " waiting", human_size(done, number(flight, "bytes")),
         human_size(total, size ? number(flight, "total") : MC_SIZE_UNKNOWN), human_size(speed, number(flight, "rate")),
         number(group, "waiters"));
  if (members > 1) printf(" at %" PRIu64 " members", members);
  printf("\n");
}

/* Those of the answering member as they are now, those of the others as they told last. */
static void print_flights(json_t *status) {
  json_t *groups = json_object(), *flight, *member, *group, *own = json_object_get(status, "member");
  json_t *members = json_object_get(json_object_get(status, "cluster"), "members");
  const char *key, *id = json_string_value(json_object_get(own, "id"));
  size_t i, k;
  char name[64];
  text_of(own, "name", name, sizeof(name));
  json_array_foreach(json_object_get(status, "flights"), i, flight) add_flight(groups, flight, name);
  json_array_foreach(members, i, member) {
    const char *other = json_string_value(json_object_get(member, "id"));
    if (id && other && strcmp(id, other) == 0) continue;
    text_of(member, "name", name, sizeof(name));
    json_array_foreach(json_object_get(member, "flights"), k, flight) add_flight(groups, flight, name);
  }
  json_object_foreach(groups, key, group) print_group(group, members != NULL);
  json_decref(groups);
}

/* ---- the command ---- */

static void print_status(json_t *status, const char *endpoint) {
  char text[512];
  json_t *cluster = json_object_get(status, "cluster");
  printf("modelcache   %s", text_of(status, "version", text, sizeof(text)));
  printf(", %s%s\n", endpoint ? "the service at " : "in this process", endpoint ? endpoint : "");
  printf("folder       %s\n", text_of(status, "storage", text, sizeof(text)));
  print_tier(status, "storage");
  print_tier(status, "memory");
  if (endpoint) print_counters(status); /* those of this process, which has done nothing yet, say nothing */
  if (cluster) print_members(cluster, text_of(status, "coordination", text, sizeof(text)));
  if (endpoint || cluster) print_flights(status);
}

int command_status(mc_cache *cache, const struct command_line *line) {
  mc_error error = MC_ERROR_INIT;
  char *text;
  const char *endpoint = line->options.endpoint;
  if (mc_status_json(&text, cache, &error)) return fail(line, endpoint ? endpoint : "", &error);
  json_t *status = json_loads(text, 0, NULL);
  if (!json_is_object(status)) {
    mc_error_set(&error, MC_PROTOCOL, "cli", "the answer is no JSON document");
    fail(line, endpoint ? endpoint : "", &error);
  } else if (line->json) {
    print_json(json_incref(status));
  } else {
    print_status(status, endpoint);
  }
  int code = json_is_object(status) ? EXIT_DONE : EXIT_FAILED;
  json_decref(status);
  mc_free(text);
  return code;
}
