#include "machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"

#define ORIGIN      "gcs"
#define HOST        "169.254.169.254" /* no name: looking one up may take long where there is no such service */
#define PATH        "/computeMetadata/v1/instance/service-accounts/default/token"
#define FLAVOR      "Metadata-Flavor: Google"
#define ANSWER_MAX  ((size_t)64 << 10)
#define PATIENCE_MS 5000

static const struct http_dialect dialect = {.name = ORIGIN, .fields = {"metadata-flavor"}};

/* Other clouds have something else at the same address: only an answer with the flavor counts. */
mc_status gcs_machine_token(struct gcs_token *out, const char **why, const char *host, struct http_client *client,
                            const mc_call *call, mc_error *err) {
  static const char *const headers[] = {FLAVOR, NULL};
  char *url = format_str("http://%s" PATH, host ? host : HOST);
  struct buf answer;
  struct http_head head;
  struct http_request request = {.method = "GET",
                                 .url = url,
                                 .dialect = &dialect,
                                 .headers = headers,
                                 .follow = HTTP_FOLLOW_NONE,
                                 .of_machine = true};
  mc_call hurried = {deadline_earlier(call->deadline, deadline_in_ms(PATIENCE_MS)), call->cancel};
  *out = (struct gcs_token){.text = NULL};
  if (!url) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for a token");
  buf_init(&answer, ANSWER_MAX);
  mc_status status = http_ask_text(client, &request, &answer, &head, &hurried, err);
  bool ours = strcmp(head.fields[0], "Google") == 0;
  if (mc_call_check(call, NULL)) {
    status = mc_call_check(call, err);
  } else if (ours && !status) {
    status = gcs_token_parse(out, answer.data, answer.size, err);
  } else if (ours && head.status == 404) {
    *why = "the machine has no service account";
    status = MC_OK;
  } else if (!ours && host) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the metadata service, at GCE_METADATA_HOST, does not answer");
  } else if (!ours) {
    *why = "nothing is in GOOGLE_APPLICATION_CREDENTIALS, in gcloud's folder, at a metadata service";
    status = MC_OK;
  } else if (status == MC_DEADLINE_EXCEEDED) {
    status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "the metadata service does not answer in time");
  }
  buf_wipe(&answer);
  free(url);
  return status;
}
