#include "address.h"

#include <stdlib.h>
#include <string.h>

#include "base/url.h"

#define ORIGIN         "redis"
#define DEFAULT_PREFIX "modelcache:"
#define PORT           6379
#define SENTINEL_PORT  26379

static mc_status refuse(const char *why, mc_error *err) {
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN,
                      "coordination: %s; it is written redis://[USER:PASSWORD@]HOST[:PORT][/DB], "
                      "redis+unix:///PATH or redis+sentinel://HOST[:PORT],…/MASTER, with %%XX for what is special",
                      why);
}

/* Decode `size` bytes of `from` into a text of `room` bytes, its zero included. */
static bool take(char *to, size_t room, const char *from, size_t size) {
  return size < room && url_decode(to, from, size);
}

static bool take_number(uint32_t *out, const char *from, size_t size, uint32_t most) {
  uint32_t value = 0;
  if (size == 0 || size > 5 || strspn(from, "0123456789") < size) return false;
  for (size_t i = 0; i < size; i++) value = value * 10 + (uint32_t)(from[i] - '0');
  *out = value;
  return value <= most;
}

static mc_status take_host(struct redis_address *out, const char *from, size_t size, uint32_t port, mc_error *err) {
  if (out->host_count == REDIS_MAX_HOSTS) return refuse("it names more than 16 hosts", err);
  struct redis_host *host = &out->hosts[out->host_count];
  const char *end = from + size, *name_end = end;
  if (size && *from == '[') {
    name_end = memchr(from, ']', size);
    if (!name_end) return refuse("its host has no ']'", err);
    from++;
  } else if (size) {
    const char *colon = memchr(from, ':', size);
    if (colon) name_end = colon;
  }
  const char *rest = name_end < end && *name_end == ']' ? name_end + 1 : name_end;
  if (rest < end && (*rest != ':' || !take_number(&port, rest + 1, (size_t)(end - rest - 1), UINT16_MAX) || !port)) {
    return refuse("its port is no number", err);
  }
  if (name_end == from || !take(host->host, sizeof(host->host), from, (size_t)(name_end - from)) ||
      strpbrk(host->host, "@/, ")) {
    return refuse("its host is no name", err);
  }
  host->port = (uint16_t)port;
  out->host_count++;
  return MC_OK;
}

static mc_status take_hosts(struct redis_address *out, const char *from, size_t size, bool sentinels, mc_error *err) {
  const char *end = from + size;
  for (mc_status status;; from++) {
    const char *comma = sentinels ? memchr(from, ',', (size_t)(end - from)) : NULL;
    const char *stop = comma ? comma : end;
    status = take_host(out, from, (size_t)(stop - from), sentinels ? SENTINEL_PORT : PORT, err);
    if (status || !comma) return status;
    from = comma;
  }
}

static mc_status take_user(struct redis_address *out, const char *from, size_t size, mc_error *err) {
  const char *colon = memchr(from, ':', size);
  size_t name = colon ? (size_t)(colon - from) : size;
  if (!take(out->user, sizeof(out->user), from, name)) return refuse("its user's name can't be read", err);
  if (colon && !take(out->password, sizeof(out->password), colon + 1, size - name - 1)) {
    return refuse("its password can't be read", err);
  }
  return MC_OK;
}

static mc_status take_option(struct redis_address *out, const char *from, size_t size, mc_error *err) {
  const struct {
    const char *name;
    char *to;
    size_t room;
  } texts[] = {
      {"password_file", out->password_file, sizeof(out->password_file)},
      {"sentinel_password_file", out->sentinel_password_file, sizeof(out->sentinel_password_file)},
      {"prefix", out->prefix, sizeof(out->prefix)},
      {"ca_file", out->ca_file, sizeof(out->ca_file)},
      {"cert_file", out->cert_file, sizeof(out->cert_file)},
      {"key_file", out->key_file, sizeof(out->key_file)},
  };
  const char *equals = memchr(from, '=', size);
  size_t name = equals ? (size_t)(equals - from) : size, value = equals ? size - name - 1 : 0;
  if (!value) return refuse("an option behind its '?' has no value", err);
  if (name == 2 && memcmp(from, "db", 2) == 0) {
    return take_number(&out->db, equals + 1, value, UINT16_MAX) ? MC_OK : refuse("db is no number", err);
  }
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    if (strlen(texts[i].name) != name || memcmp(texts[i].name, from, name) != 0) continue;
    if (take(texts[i].to, texts[i].room, equals + 1, value)) return MC_OK;
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "coordination: the value of '%s' can't be read",
                        texts[i].name);
  }
  return refuse("there is no such option behind its '?'; there is: db, prefix, password_file, sentinel_password_file, "
                "ca_file, cert_file, key_file",
                err);
}

static mc_status take_options(struct redis_address *out, const char *query, mc_error *err) {
  mc_status status = MC_OK;
  while (*query && !status) {
    size_t size = strcspn(query, "&");
    if (size) status = take_option(out, query, size, err);
    query += size + (query[size] != 0);
  }
  return status;
}

/* What follows the authority: "[/DB]", or "/MASTER[/DB]". */
static mc_status take_path(struct redis_address *out, const char *from, size_t size, bool sentinels, mc_error *err) {
  const char *end = from + size;
  if (from < end) from++; /* its '/' */
  if (sentinels) {
    const char *slash = memchr(from, '/', (size_t)(end - from)), *stop = slash ? slash : end;
    if (stop == from || !take(out->master, sizeof(out->master), from, (size_t)(stop - from))) {
      return refuse("it doesn't name what the Sentinels watch", err);
    }
    from = slash ? slash + 1 : end;
  }
  if (from < end && !take_number(&out->db, from, (size_t)(end - from), UINT16_MAX)) {
    return refuse("its database is no number", err);
  }
  return MC_OK;
}

static mc_status check(const struct redis_address *address, mc_error *err) {
  if (address->password[0] && address->password_file[0]) {
    return refuse("it has a password and a password_file", err);
  }
  if (!address->tls && (address->ca_file[0] || address->cert_file[0] || address->key_file[0])) {
    return refuse("ca_file, cert_file and key_file need rediss://", err);
  }
  if (!address->cert_file[0] != !address->key_file[0]) return refuse("cert_file and key_file need each other", err);
  return MC_OK;
}

mc_status redis_address_parse(struct redis_address *out, const char *text, mc_error *err) {
  static const char *const schemes[] = {"redis://", "rediss://", "redis+unix://", "redis+sentinel://"};
  enum { PLAIN, TLS, SOCKET, SENTINEL, NONE } form = PLAIN;
  *out = (struct redis_address){.prefix = DEFAULT_PREFIX};
  while (form < NONE && strncmp(text, schemes[form], strlen(schemes[form])) != 0) form++;
  if (form == NONE) return refuse("it is no address of Redis", err);
  text += strlen(schemes[form]);
  out->tls = form == TLS;
  size_t authority = strcspn(text, "/?"), whole = strcspn(text, "?"), user = 0;
  for (size_t i = 0; i < authority; i++) user = text[i] == '@' ? i + 1 : user;
  mc_status status = user ? take_user(out, text, user - 1, err) : MC_OK;
  const char *path = text + authority;
  if (status) return status;
  if (form == SOCKET) {
    if (user != authority) return refuse("a socket's path begins with '/'", err);
    if (whole - authority < 2 || !take(out->path, sizeof(out->path), path, whole - authority)) {
      return refuse("its path can't be read", err);
    }
  } else {
    status = take_hosts(out, text + user, authority - user, form == SENTINEL, err);
    if (!status) status = take_path(out, path, whole - authority, form == SENTINEL, err);
  }
  if (!status && text[whole]) status = take_options(out, text + whole + 1, err);
  return status ? status : check(out, err);
}

void redis_address_wipe(struct redis_address *address) {
  explicit_bzero(address, sizeof(*address));
}
