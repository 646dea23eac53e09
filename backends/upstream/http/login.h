/* Credentials for web servers, of which only rules tell: who a request comes from is said to the site that the rule is
 * for, and to none that it redirects to. */
#ifndef UPSTREAM_HTTP_LOGIN_H
#define UPSTREAM_HTTP_LOGIN_H

#include "client.h"
#include "keys.h"

/* MC_INVALID_ARGUMENT if the credentials that rules for http and https name can't be used; for `open`. */
mc_status http_login_check(const mc_upstream_config *config, const struct keybook *book, mc_error *err);
/* Add what the rule's credentials say to a request's headers. */
mc_status http_login(struct http_target *target, const struct keybook_page *page, mc_error *err);

#endif
