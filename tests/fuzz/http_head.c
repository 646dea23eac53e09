/* Any lines as the head of a response: what is taken from them is in bounds, and says one thing. */
#include <string.h>

#include "backends/upstream/http/client.h"
#include "fuzz.h"

#define DAY_MS 86400000

static const struct http_dialect dialect = {.fields = {"link", "x-repo-commit"}};

static void check_head(const struct http_head *head) {
  CHECK(!head->chunked || head->length == MC_SIZE_UNKNOWN);
  CHECK(!head->has_range || head->first <= head->last);
  CHECK(!head->has_range || head->total == MC_SIZE_UNKNOWN || head->last < head->total);
  CHECK(!head->has_range || head->last != MC_SIZE_UNKNOWN);
  CHECK(memchr(head->etag, 0, sizeof(head->etag)));
  for (const char *c = head->etag; *c; c++) CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
  CHECK(head->last_modified >= 0);
  CHECK(head->retry_after_ms >= -1 && head->retry_after_ms <= DAY_MS);
  CHECK(head->status == 0 && head->cut < 4);
  for (int i = 0; i < 2; i++) CHECK(memchr(head->fields[i], 0, HTTP_FIELD_SIZE));
}

/* The first two bytes are a status, for the message; the rest is lines. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct http_head head;
  http_head_init(&head);
  check_head(&head);
  if (size < 2) return 0;
  long status = (data[0] << 8 | data[1]) % 1000;
  for (const uint8_t *at = data + 2, *end = data + size; at < end;) {
    const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
    size_t length = newline ? (size_t)(newline - at) + 1 : (size_t)(end - at);
    http_head_line(&head, &dialect, (const char *)at, length);
    check_head(&head);
    at += length;
  }
  mc_error err = MC_ERROR_INIT;
  head.status = status;
  mc_status meaning = http_status(&head, "https://host/path?secret", &err);
  CHECK((meaning == MC_OK) == (status == 200 || status == 206));
  CHECK(meaning == MC_OK || (err.status == meaning && err.message[0] && !strstr(err.message, "secret")));
  return 0;
}
