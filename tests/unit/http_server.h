/* A web server that answers each request as a test scripts, and notes what it was asked. One connection at a time. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <pthread.h>

#define HTTP_SERVER_REQUESTS 64
#define HTTP_SERVER_REQUEST  4096 /* the bytes of one, with its body */

struct http_server {
  int fd;
  pthread_t thread;
  char origin[64]; /* "http://127.0.0.1:port" */
  pthread_mutex_t lock;
  char *script[HTTP_SERVER_REQUESTS];
  unsigned scripted, asked, connections;
  char requests[HTTP_SERVER_REQUESTS][HTTP_SERVER_REQUEST];
};

void http_server_start(struct http_server *server);
/* The clients' connections are closed already. */
void http_server_stop(struct http_server *server);

/* What the next request that has no answer yet gets. A "…" in it: the connection is closed there if nothing follows,
 * else what follows is written again and again until the client has gone; "……": nothing more comes until then. */
void http_server_script(struct http_server *server, const char *answer, ...) __attribute__((format(printf, 2, 3)));

unsigned http_server_asked(struct http_server *server);
unsigned http_server_connections(struct http_server *server);
/* The text of a request, counted from 0; "" if it has not come. */
const char *http_server_request(struct http_server *server, unsigned index);

#endif
