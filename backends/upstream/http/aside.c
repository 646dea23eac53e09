#include "aside.h"

#include <stdlib.h>

#define MOST     64  /* each has a thread of libcurl's */
#define SLACK_MS 200 /* of libcurl's connect timeout */

struct aside_transfer {
  CURL *easy;
  CURLM *multi;
  struct aside_transfer *next;
};

void aside_init(struct aside *aside) {
  *aside = (struct aside){.list = NULL};
  pthread_mutex_init(&aside->lock, NULL);
}

static void transfer_free(struct aside_transfer *transfer) {
  curl_easy_cleanup(transfer->easy);
  curl_multi_cleanup(transfer->multi);
  free(transfer);
}

void aside_end(struct aside *aside) {
  while (aside->list) {
    struct aside_transfer *transfer = aside->list;
    aside->list = transfer->next;
    transfer_free(transfer);
  }
  pthread_mutex_destroy(&aside->lock);
}

static curl_socket_t no_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)user;
  (void)purpose;
  (void)address;
  return CURL_SOCKET_BAD;
}

static size_t nothing(char *data, size_t one, size_t size, void *user) {
  (void)data;
  (void)one;
  (void)size;
  (void)user;
  return 0;
}

void aside_put(struct aside *aside, CURL *easy, CURLM *multi) {
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, no_socket);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, nothing);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, nothing);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)INT32_MAX);
  struct aside_transfer *transfer = malloc(sizeof(*transfer));
  pthread_mutex_lock(&aside->lock);
  bool room = transfer && aside->count < MOST;
  if (room) {
    *transfer = (struct aside_transfer){easy, multi, aside->list};
    aside->list = transfer;
    aside->count++;
  }
  pthread_mutex_unlock(&aside->lock);
  if (room) return;
  free(transfer);
  curl_easy_cleanup(easy);
  curl_multi_cleanup(multi);
}

void aside_tend(struct aside *aside) {
  struct aside_transfer *kept = NULL, **end = &kept;
  unsigned freed = 0;
  pthread_mutex_lock(&aside->lock);
  struct aside_transfer *list = aside->list;
  aside->list = NULL; /* ours meanwhile, but counted */
  pthread_mutex_unlock(&aside->lock);
  if (!list) return;
  for (struct aside_transfer *transfer = list, *next; transfer; transfer = next) {
    int running = 0;
    next = transfer->next;
    if (curl_multi_perform(transfer->multi, &running) == CURLM_OK && running) {
      *end = transfer;
      end = &transfer->next;
    } else {
      transfer_free(transfer);
      freed++;
    }
  }
  pthread_mutex_lock(&aside->lock);
  *end = aside->list;
  aside->list = kept;
  aside->count -= freed;
  pthread_mutex_unlock(&aside->lock);
}

bool aside_is_due(CURL *easy, bool connects) {
  curl_off_t sent_at = 0; /* not 0 on a connection that is used again */
  curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &sent_at);
  return !connects && sent_at == 0;
}

long aside_connect_timeout_ms(int64_t timeout_ms) {
  if (timeout_ms <= 0) return 0; /* libcurl's default */
  return timeout_ms < INT32_MAX - SLACK_MS ? (long)timeout_ms + SLACK_MS : (long)INT32_MAX;
}
