#include "tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <hiredis/hiredis_ssl.h>

#define ORIGIN "redis"

mc_status tls_is_there(mc_error *err) {
  (void)err;
  return MC_OK;
}

static mc_status bad_file(const char *what, const char *file, mc_error *err) {
  unsigned long code = ERR_get_error();
  const char *why = code ? ERR_reason_error_string(code) : NULL;
  ERR_clear_error();
  return mc_error_set(err, MC_INVALID_ARGUMENT, ORIGIN, "%s: %s can't be used: %s", what, file, why ? why : "?");
}

static mc_status load_files(SSL_CTX *context, const struct redis_address *address, mc_error *err) {
  if (!address->ca_file[0]) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (SSL_CTX_load_verify_locations(context, address->ca_file, NULL) != 1) {
    return bad_file("ca_file", address->ca_file, err);
  }
  if (!address->cert_file[0]) return MC_OK;
  if (SSL_CTX_use_certificate_chain_file(context, address->cert_file) != 1) {
    return bad_file("cert_file", address->cert_file, err);
  }
  if (SSL_CTX_use_PrivateKey_file(context, address->key_file, SSL_FILETYPE_PEM) != 1) {
    return bad_file("key_file", address->key_file, err);
  }
  return MC_OK;
}

/* hiredis' own contexts don't ask whose the certificate is. */
static bool expect_host(SSL *tls, const char *host) {
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1) return true;
  return SSL_set_tlsext_host_name(tls, host) == 1 && SSL_set1_host(tls, host) == 1;
}

mc_status tls_begin(redisContext *link, const struct redis_address *address, const char *host, const char *where,
                    mc_error *err) {
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  if (!context) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for TLS");
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  mc_status status = load_files(context, address, err);
  SSL *tls = status ? NULL : SSL_new(context);
  SSL_CTX_free(context); /* `tls` has its own reference */
  if (status) return status;
  if (!tls || !expect_host(tls, host)) {
    SSL_free(tls);
    return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for TLS");
  }
  if (redisInitiateSSL(link, tls) == REDIS_OK) return MC_OK; /* the link owns it */
  long code = SSL_get_verify_result(tls);
  const char *why = code != X509_V_OK ? X509_verify_cert_error_string(code) : link->errstr;
  status = mc_error_set(err, MC_UNAVAILABLE, ORIGIN, "Redis at %s can't be reached: TLS: %s", where, why);
  SSL_free(tls);
  ERR_clear_error();
  return status;
}
