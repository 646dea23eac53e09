#include "xml.h"

#include <limits.h>
#include <string.h>

#include <expat.h>

#include "base/buf.h"

#define ORIGIN    "http"
#define PATH_MOST 512
#define TEXT_MOST ((size_t)64 << 10)

struct reading {
  XML_Parser parser;
  http_xml_visit visit;
  void *user;
  char path[PATH_MOST];
  size_t length; /* of the path */
  struct buf text;
  bool leaf; /* no element has been in this one */
  bool enough;
  const char *problem;
};

static void stop(struct reading *reading, const char *problem) {
  reading->problem = problem;
  XML_StopParser(reading->parser, XML_FALSE);
}

static void begin_element(void *user, const char *name, const char **attributes) {
  struct reading *reading = user;
  size_t size = strlen(name), slash = reading->length > 0;
  (void)attributes;
  if (reading->length + slash + size >= PATH_MOST) {
    stop(reading, "its elements are nested too deeply");
    return;
  }
  if (slash) reading->path[reading->length] = '/';
  memcpy(reading->path + reading->length + slash, name, size + 1);
  reading->length += slash + size;
  reading->leaf = true;
  buf_clear(&reading->text);
}

static void take_text(void *user, const char *text, int size) {
  struct reading *reading = user;
  if (!buf_append(&reading->text, text, (size_t)size)) stop(reading, "a text in it is too long");
}

static void end_element(void *user, const char *name) {
  struct reading *reading = user;
  if (reading->problem || reading->enough) return; /* expat tells of an empty element's end after it was stopped */
  bool text = reading->leaf && reading->text.size > 0;
  if (!reading->visit(reading->user, reading->path, text ? reading->text.data : "")) {
    reading->enough = true;
    XML_StopParser(reading->parser, XML_FALSE);
  }
  size_t size = strlen(name);
  reading->length -= size < reading->length ? size + 1 : size;
  reading->path[reading->length] = 0;
  reading->leaf = false;
  buf_clear(&reading->text);
}

/* Entities are declared in it: there is no use for them but mischief. */
static void begin_doctype(void *user, const char *name, const char *system, const char *public, int subset) {
  (void)name;
  (void)system;
  (void)public;
  (void)subset;
  stop(user, "it has a document type declaration");
}

mc_status http_xml_read(const char *text, size_t size, http_xml_visit visit, void *user, mc_error *err) {
  struct reading reading = {.visit = visit, .user = user, .parser = XML_ParserCreate(NULL)};
  if (!reading.parser) return mc_error_set(err, MC_NO_MEMORY, ORIGIN, "no memory for XML");
  buf_init(&reading.text, TEXT_MOST);
  XML_SetUserData(reading.parser, &reading);
  XML_SetElementHandler(reading.parser, begin_element, end_element);
  XML_SetCharacterDataHandler(reading.parser, take_text);
  XML_SetStartDoctypeDeclHandler(reading.parser, begin_doctype);
  bool good = size <= INT_MAX && XML_Parse(reading.parser, text, (int)size, 1) == XML_STATUS_OK;
  if (!good && !reading.problem) reading.problem = XML_ErrorString(XML_GetErrorCode(reading.parser));
  XML_ParserFree(reading.parser);
  buf_free(&reading.text);
  if (good || reading.enough) return MC_OK;
  return mc_error_set(err, MC_PROTOCOL, ORIGIN, "the origin's answer can't be read as XML: %s",
                      reading.problem ? reading.problem : "?");
}
