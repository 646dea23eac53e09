/* How a cache is set up. Every option is a row of one table, from which the flags, environment variables and
 * configuration keys of the programs, and the reference page, are made. */
#ifndef MODELCACHE_OPTIONS_H
#define MODELCACHE_OPTIONS_H

#include <modelcache/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mc_storage_ops;
struct mc_upstream_ops;
struct mc_coordination_ops;
struct mc_transport_ops;

typedef enum mc_verify {
  MC_VERIFY_NEVER, /* trust what is stored (what arrives over a wire is verified all the same) */
  /* An object's chunks are checked when this process first opens it, and when its file has changed; but not of one that
   * another member has just downloaded while this one waited for it, which has hashed it. */
  MC_VERIFY_STORED,
} mc_verify;

typedef enum mc_durable {
  MC_DURABLE_AUTO, /* on for a cache in this process, off for a client, whose copies can be had again */
  MC_DURABLE_OFF,
  MC_DURABLE_ON, /* fsync before an object becomes visible */
} mc_durable;

/* What holds for the URLs below a prefix; of several rules, the one with the longest prefix. What a rule does not say
 * is as the options say. */
typedef struct mc_origin_rule {
  const char *prefix; /* "s3://bucket/models": of it and what is below it, not of "s3://bucket/models2"; "s3://": all */
  bool allowed;       /* may be fetched (if its scheme may) */
  const char *credentials; /* the name of some in mc_options.credentials; "none": ask without; NULL: the usual places */
  const char *endpoint;    /* where its service is, if not in the usual place: "https://host:port" */
  const char *ca_file;     /* certificates, PEM, to trust instead of the system's */
  const char *proxy;       /* "http://host:port"; "none": directly; NULL: as the environment says */
  int64_t revalidate_after_ms; /* MC_INHERIT: as the option */
  uint32_t parallelism;        /* 0: as the option */
  uint64_t bandwidth;          /* bytes per second of all downloads below it together; 0: no limit */
  bool pin;                    /* what is fetched is pinned */
} mc_origin_rule;

#define MC_INHERIT INT64_MIN
#define MC_ORIGIN_RULE_INIT                                                                                            \
  { .allowed = true, .revalidate_after_ms = MC_INHERIT }

/* Credentials under a name, for rules. Which keys there are depends on the upstream: the docs list them. */
typedef struct mc_setting {
  const char *key, *value;
} mc_setting;
typedef struct mc_credentials {
  const char *name;
  const mc_setting *settings;
  size_t count;
} mc_credentials;

/* Begin with MC_OPTIONS_INIT or mc_options_init. Strings are copied by mc_open_options and stay the caller's. NULL and
 * 0 mean the default unless the table (mc_option_rows) says otherwise. */
typedef struct mc_options {
  size_t struct_size;
  const char *endpoint;      /* NULL: a cache in this process; "modelcache://HOST:PORT[,HOST:PORT…]": a client */
  const char *storage;       /* folder of the persistent tier; "none": keep nothing */
  const char *coordination;  /* "local", or "redis://HOST:PORT/DB" and its like */
  const char *schemes;       /* comma-separated URL schemes that may be fetched from an origin; NULL or "": none */
  uint64_t storage_capacity; /* bytes; 0: no limit but the disk's */
  uint64_t memory_capacity;  /* bytes of the memory tier; 0: no memory tier */
  int64_t storage_ttl_ms;    /* an object not used for this long is evicted; 0: never */
  int64_t memory_ttl_ms;
  bool memory_huge_pages;      /* ask the system for huge pages; without them it is as well, but for the speed */
  uint32_t high_watermark;     /* percent of the capacity: eviction begins */
  uint32_t low_watermark;      /* percent: it ends */
  int64_t revalidate_after_ms; /* ask the upstream whether a copy is current when it was checked longer ago */
  int64_t negative_ttl_ms;     /* remember that a URL does not exist for this long */
  int64_t refresh_ms;          /* check pinned and watched URLs by ourselves, as often as this at most; 0: don't */
  int64_t history_ms;          /* remember replaced versions, and keep their objects, for this long; 0: don't */
  int64_t stale_if_error_ms;   /* serve a copy that can't be revalidated for this long after its last check; -1: ever */
  bool stale_while_revalidate; /* serve the copy at hand at once, and revalidate behind the caller's back */
  mc_durable durable;
  mc_verify verify;
  uint32_t flights;     /* downloads at once; further ones queue */
  uint32_t waiters;     /* calls that may wait at once; further ones are refused */
  uint32_t parallelism; /* ranges of one file read at once */
  uint32_t retries;
  int64_t connect_timeout_ms;
  int64_t stall_timeout_ms;
  int64_t lease_ms;
  uint64_t tree_files; /* the most files of one tree */
  bool fallback;       /* client: go to the origin when the service can't be reached */
  bool allow_link_local;
  mc_logger logger;
  /* What holds for single origins, and the credentials that their rules name. Copied. */
  const mc_origin_rule *origins;
  size_t origin_count;
  const mc_credentials *credentials;
  size_t credentials_count;
  /* More backends, tried before the built-in ones: NULL-terminated arrays, or NULL. They must outlive the cache. */
  const struct mc_storage_ops *const *storage_backends;
  const struct mc_upstream_ops *const *upstream_backends;
  const struct mc_coordination_ops *const *coordination_backends;
  const struct mc_transport_ops *const *transport_backends;
} mc_options;

#define MC_OPTIONS_INIT mc_options_default()
MC_API void mc_options_init(mc_options *options);
static inline mc_options mc_options_default(void) {
  mc_options options;
  mc_options_init(&options);
  return options;
}

typedef enum mc_option_type {
  MC_OPTION_STRING,   /* const char * */
  MC_OPTION_BOOL,     /* bool: true, false, yes, no, on, off, 1, 0 */
  MC_OPTION_COUNT,    /* uint32_t */
  MC_OPTION_NUMBER,   /* uint64_t */
  MC_OPTION_SIZE,     /* uint64_t: bytes, with KiB, MiB, GiB, TiB (or k, m, g, t, KB, MB …, all powers of 1024) */
  MC_OPTION_DURATION, /* int64_t milliseconds: 250ms, 10s, 5m, 2h, 7d; "never" is 0 where allowed, "forever" is -1 */
  MC_OPTION_CHOICE,   /* int-sized enum: one of `choices` ("never|stored"), by position */
} mc_option_type;

typedef struct mc_option_row {
  const char *name; /* the configuration key; the flag is --name with '-' for '_'; NULL ends a table */
  const char *env;  /* the environment variable, or NULL */
  mc_option_type type;
  size_t offset;        /* of the member in the struct the table is for */
  const char *fallback; /* the default, as one would write it; "" for none */
  const char *choices;  /* MC_OPTION_CHOICE, else NULL */
  int64_t least, most;  /* numeric bounds, in the member's unit; both 0: none */
  const char *unit;     /* for the reference: "bytes", "duration", "" */
  const char *help;     /* one line */
} mc_option_row;

/* The table of mc_origin_rule, whose names are the keys of a rule in a configuration. What a rule does not say prints
 * as it is in MC_ORIGIN_RULE_INIT; MC_INHERIT prints as "". */
MC_API const mc_option_row *mc_origin_rule_rows(void);
/* The table of mc_options, ended by a row without a name. Static. */
MC_API const mc_option_row *mc_option_rows(void);
/* Parse `value` into the member of `options` that `row` describes. A string's memory is `value` itself: it must outlive
 * its use. MC_INVALID_ARGUMENT with a message that names the option and says what it takes. */
MC_API mc_status mc_option_parse(const mc_option_row *row, void *options, const char *value, mc_error *err);
/* Write the member's value as it would be written in a configuration, but for a password in a URL, which is a '*';
 * returns `text`. */
MC_API const char *mc_option_print(const mc_option_row *row, const void *options, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
