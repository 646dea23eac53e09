/* XML documents of services, read with bounds: listings, errors, credentials. */
#ifndef UPSTREAM_HTTP_XML_H
#define UPSTREAM_HTTP_XML_H

#include <modelcache/types.h>

/* Told each element as it ends, after those in it: the names from the root down to it ("Error/Code"), and its text; ""
 * where there are elements in it. false: that was enough. */
typedef bool (*http_xml_visit)(void *user, const char *path, const char *text);

/* MC_PROTOCOL: it's no XML, or more of it than any service has use for: declarations of its own, long texts, elements
 * nested deeply. */
mc_status http_xml_read(const char *text, size_t size, http_xml_visit visit, void *user, mc_error *err);

#endif
