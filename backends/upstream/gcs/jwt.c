#include "jwt.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "base/buf.h"

#define ORIGIN   "gcs"
#define JWT_MAX  ((size_t)64 << 10)
#define SIGN_MAX 2048 /* bytes of a signature */

/* Base64 for URLs, without padding. */
static bool append_base64(struct buf *out, const void *data, size_t size) {
  unsigned char *text = buf_room(out, size / 3 * 4 + 5);
  if (!text) return false;
  int length = EVP_EncodeBlock(text, data, (int)size);
  while (length && text[length - 1] == '=') length--;
  for (int i = 0; i < length; i++) text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
  buf_added(out, (size_t)length);
  return true;
}

static bool append_json(struct buf *out, const json_t *json) {
  char *text = json_dumps(json, JSON_COMPACT);
  bool good = text && append_base64(out, text, strlen(text));
  free(text);
  return good;
}

/* A key with a password is none: nobody is asked for it. */
static int no_password(char *text, int size, int writing, void *user) {
  (void)text;
  (void)size;
  (void)writing;
  (void)user;
  return -1;
}

static EVP_PKEY *read_key(const char *pem) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
  BIO_free(bio);
  if (key && EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_size(key) <= SIGN_MAX) return key;
  EVP_PKEY_free(key);
  return NULL;
}

static bool append_signature(struct buf *out, EVP_PKEY *key) {
  unsigned char signature[SIGN_MAX];
  size_t size = sizeof(signature);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool good = context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(context, signature, &size, (const unsigned char *)out->data, out->size) == 1;
  EVP_MD_CTX_free(context);
  return good && buf_append(out, ".", 1) && append_base64(out, signature, size);
}

mc_status gcs_jwt_sign(char **out, const json_t *claims, const char *key, const char *key_id, mc_error *err) {
  EVP_PKEY *pair = read_key(key);
  if (!pair) {
    return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "its private_key is no RSA key in PEM without a password");
  }
  json_t *header = json_pack("{s:s,s:s,s:s*}", "alg", "RS256", "typ", "JWT", "kid", key_id);
  struct buf jwt;
  buf_init(&jwt, JWT_MAX);
  bool good = header && append_json(&jwt, header) && buf_append(&jwt, ".", 1) && append_json(&jwt, claims) &&
              append_signature(&jwt, pair);
  EVP_PKEY_free(pair);
  json_decref(header);
  *out = good ? buf_take(&jwt) : NULL;
  buf_free(&jwt);
  return *out ? MC_OK : mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for signing");
}
