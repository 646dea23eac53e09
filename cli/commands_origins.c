/* The command that tells how origins are asked: origins check. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void print_check_json(const char *url, const mc_origin_check *check) {
  const mc_access *access = &check->access;
  json_t *json =
      json_pack("{so so sb so so so so so}", "url", json_text(url), "rule", json_text_or_null(check->rule), "allowed",
                check->allowed, "upstream", json_text_or_null(check->upstream), "endpoint",
                json_text_or_null(access->endpoint), "credentials", json_text_or_null(access->credentials), "identity",
                json_text_or_null(access->identity), "expires_at_ms", json_time_or_null(access->expires_at));
  json_t *effect =
      json_pack("{sI sI sI sb}", "revalidate_after_ms", (json_int_t)check->revalidate_after_ms, "parallelism",
                (json_int_t)check->parallelism, "bandwidth", (json_int_t)check->bandwidth, "pin", check->pin);
  json_t *found =
      json_pack("{ss so so so so so}", "status", mc_status_name(check->error.status), "message",
                json_text_or_null(check->error.message), "size", json_size(check->size), "etag",
                json_text_or_null(check->validators.etag), "version", json_text_or_null(check->validators.version),
                "last_modified", json_time_or_null(check->validators.last_modified));
  bool whole = !json_object_update(json, effect) && !json_object_update(json, found);
  json_decref(effect);
  json_decref(found);
  if (!whole) json_decref(json);
  print_json(whole ? json : NULL);
}

/* A line, unless there is nothing to say. */
static void print_line(const char *name, const char *text) {
  char shown[MC_ERROR_MESSAGE_SIZE];
  if (*text) printf("%-13s  %s\n", name, printable(shown, sizeof(shown), text));
}

static void print_effect(const mc_origin_check *check) {
  char text[SHORT_TEXT];
  int64_t after = check->revalidate_after_ms;
  printf("revalidated    %s%s\n", after > 0 ? "after " : "",
         after > 0 ? human_span(text, after)
         : after   ? "never"
                   : "every time");
  printf("parallelism    %" PRIu32 "\n", check->parallelism);
  if (check->bandwidth) printf("bandwidth      %s/s\n", human_size(text, check->bandwidth));
  if (check->pin) printf("pinned         yes\n");
}

static void print_found(const mc_origin_check *check) {
  const mc_validators *found = &check->validators;
  char text[300], short_text[SHORT_TEXT];
  if (check->error.status) {
    snprintf(text, sizeof(text), "%s", mc_status_name(check->error.status));
    for (char *at = text; *at; at++) *at = *at == '_' ? ' ' : *at;
    printf("stat           %s: ", text);
    printf("%s\n", printable(text, sizeof(text), check->error.message));
    return;
  }
  printf("stat           %s",
         check->size == MC_SIZE_UNKNOWN ? "there, of unknown size" : human_size(short_text, check->size));
  if (*found->etag) printf(", etag %s", printable(text, sizeof(text), found->etag));
  if (*found->version) printf(", version %s", printable(text, sizeof(text), found->version));
  if (found->last_modified) printf(", last modified %s", human_time(short_text, found->last_modified * 1000));
  putchar('\n');
}

static void print_check(const char *url, const mc_origin_check *check) {
  char text[PRINTABLE_URL], time[SHORT_TEXT];
  print_line("url", printable_url(text, sizeof(text), url));
  print_line("rule", *check->rule ? check->rule : "none");
  print_line("allowed", check->allowed ? "yes" : "no");
  print_line("upstream", check->upstream);
  print_line("endpoint", check->access.endpoint);
  print_line("credentials", check->access.credentials);
  print_line("identity", check->access.identity);
  if (check->access.expires_at) print_line("expires", human_time(time, check->access.expires_at));
  print_effect(check);
  print_found(check);
}

int command_origins(mc_cache *cache, const struct command_line *line) {
  mc_origin_check check;
  mc_error error = MC_ERROR_INIT;
  const char *url = line->words[1];
  if (strcmp(line->words[0], "check") != 0) return usage("usage: modelcache origins check URL");
  if (mc_check_origin(&check, cache, url, line->timeout_ms, &error)) return fail(line, url, &error);
  if (line->json) {
    print_check_json(url, &check);
  } else {
    print_check(url, &check);
  }
  return exit_code_of(check.error.status);
}
