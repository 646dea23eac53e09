/* Index pages of web servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/upstream/http/http.h"

#define FOLDER "http://host:8080/models/the%20one/?signature=x"

/* The names of a page with a space behind each, or the status's name. */
static const char *names_of(const char *text) {
  static char names[4096];
  struct index_page page;
  mc_error err = MC_ERROR_INIT;
  mc_status status = http_index_parse(&page, FOLDER, text, strlen(text), 1000, &err);
  names[0] = 0;
  if (status) {
    assert_int_equal(err.status, status);
    assert_true(err.message[0]);
    assert_int_equal(page.count, 0);
    return mc_status_name(status);
  }
  for (size_t i = 0; i < page.count; i++) {
    strcat(names, page.names[i].name);
    strcat(names, " ");
  }
  http_index_free(&page);
  return names;
}

#define A(href) "<a href=\"" href "\">x</a>\n"

static void pages_of_real_servers(void **state) {
  (void)state;
  /* nginx */
  assert_string_equal(
      names_of("<html>\r\n<head><title>Index of /m/</title></head>\r\n<body>\r\n<h1>Index of /m/</h1><hr>"
               "<pre><a href=\"../\">../</a>\r\n<a href=\"sub/\">sub/</a> 01-Jan-2024 00:00  -\r\n"
               "<a href=\"a%20b.bin\">a b.bin</a>  01-Jan-2024 00:00  5\r\n</pre><hr></body></html>"),
      "a b.bin sub/ ");
  /* Apache: sorting, the parent from the root, icons */
  assert_string_equal(
      names_of(
          "<table><tr><th><a href=\"?C=N;O=D\">Name</a></th></tr>\n"
          "<tr><td><a href=\"/models/\">Parent Directory</a></td></tr>\n"
          "<tr><td><a href=\"w.bin\"><img src=\"/icons/b.gif\"></a></td><td><a href=\"w.bin\">w.bin</a></td></tr>"),
      "w.bin ");
  /* Python */
  assert_string_equal(names_of("<ul>\n<li><a href=\"config.json\">config.json</a></li>\n"
                               "<li><a href=\"q%3Fa%26b.bin\">q?a&amp;b.bin</a></li>\n</ul>"),
                      "config.json q?a&b.bin ");
  /* Tomcat and IIS: from the root */
  assert_string_equal(names_of(A("/models/the%20one/a.bin") A("/models/the%20one/sub/") A("/models/the%20one/")
                                   A("/models/other/b.bin")),
                      "a.bin sub/ ");
  /* Caddy, Go: ./ */
  assert_string_equal(names_of(A("./a.bin") A("./sub/") A("./") A(".")), "a.bin sub/ ");
}

static void html_as_people_write_it(void **state) {
  (void)state;
  assert_string_equal(names_of("<A class=x\n HREF='one' title=\"a > b\">1</A><a title='href=no' href = two >"
                               "<a href=three><a\thref=\"four\"/><a name=five><abbr href=six><a href><a href=>"),
                      "four one three two ");
  assert_string_equal(names_of("<!-- <a href=\"hidden\"> --><a href=\"shown\">"), "shown ");
  assert_string_equal(names_of(A("one") "<a href=\"without an end"), "one ");
  assert_string_equal(names_of(A("one") "<!-- " A("two")), "one ");
  assert_string_equal(names_of("<a"), "");
  assert_string_equal(names_of("<a "), "");
  assert_string_equal(names_of(""), "");
  assert_string_equal(names_of("no page at all"), "");
  assert_string_equal(names_of(A("a&amp;b") A("&lt;c&gt;") A("d&#39;&quot;")), "<c> a&b d'\" ");
}

static void links_elsewhere_are_no_entries(void **state) {
  (void)state;
  assert_string_equal(names_of(A("/etc/passwd") A("//other/x") A("http://other/x") A("file:///etc/passwd")
                                   A("javascript:alert(1)") A("mailto:me@x") A("?C=N&O=D") A("#top") A(".") A("..")
                                       A("../") A("") A("./") A("x?y") A("sub/deeper.bin") A("good")),
                      "good ");
  char page[8000];
  snprintf(page, sizeof(page), "<a href=\"data:%05000d\">" A("good"), 0);
  assert_string_equal(names_of(page), "good ");
}

static void names_that_lead_out_refuse_the_page(void **state) {
  (void)state;
  static const char *const links[] = {
      "../../x",
      "..%2f..%2fx",
      "%2e%2e/%2e%2e/x",
      "sub/../../x",
      "a/%2e%2e/%2e%2e/x",
      "..\\x",
      "a%00b",
      "a%0ab",
      "%",
      "a%zz",
      "a%2fb%2f..",
      "a//b",
      "%2e%2e",
      "/models/the%20one/..",
      "/models/the%20one/../../x",
      "./../x",
      "a&amp;/../../x",
      "%5c",
      "..%2f",
  };
  for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++) {
    char page[200];
    snprintf(page, sizeof(page), A("good") "<a href=\"%s\">", links[i]);
    assert_string_equal(names_of(page), "protocol");
  }
  char page[4000];
  snprintf(page, sizeof(page), "<a href=\"%0300d\">", 1);
  assert_string_equal(names_of(page), "protocol");
  snprintf(page, sizeof(page), "<a href=\"%03000d\">", 1);
  assert_string_equal(names_of(page), "protocol");
}

static void nginx_json(void **state) {
  (void)state;
  static const char text[] =
      "[\r\n{ \"name\":\"sub\", \"type\":\"directory\", \"mtime\":\"Thu, 01 Jan 1970 00:01:40 GMT\" },\r\n"
      "{ \"name\":\"a b.bin\", \"type\":\"file\", \"mtime\":\"Thu, 01 Jan 1970 00:01:40 GMT\", \"size\":12345678901 "
      "},\r\n"
      "{ \"name\":\"pipe\", \"type\":\"other\" },"
      "{ \"name\":\"bare\", \"type\":\"file\", \"size\": -1 }\r\n]\r\n";
  struct index_page page;
  assert_int_equal(http_index_parse(&page, FOLDER, text, sizeof(text) - 1, 10, NULL), MC_OK);
  assert_int_equal(page.count, 3);
  assert_string_equal(page.names[0].name, "a b.bin");
  assert_int_equal(page.names[0].size, 12345678901);
  assert_int_equal(page.names[0].modified, 100);
  assert_string_equal(page.names[1].name, "bare");
  assert_int_equal(page.names[1].size, MC_SIZE_UNKNOWN);
  assert_string_equal(page.names[2].name, "sub/");
  http_index_free(&page);
  assert_string_equal(names_of("[]"), "");
  assert_string_equal(names_of(" \n[ ] "), "");
}

static void json_that_is_wrong(void **state) {
  (void)state;
  static const char *const pages[] = {
      "[",          "[1]",
      "[{}]",       "[{\"name\":1,\"type\":\"file\"}]",
      "[{]",        "[{\"name\":\"a\",\"type\":\"file\"}",
      "[null,]",    "[{\"name\":\"a\",\"type\":\"file\"},]",
      "[[[[[[[[",   "[{\"name\":\"a\",\"type\":\"file\"} {\"name\":\"b\",\"type\":\"file\"}]",
      "[\"\xff\"]",
  };
  for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++) assert_string_equal(names_of(pages[i]), "protocol");
  static const char *const names[] = {"..", ".", "", "a/b", "/a", "../x", "a\\\\b", "a\\u0000b", "a\\nb", "a/"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    for (int folder = 0; folder < 2; folder++) {
      char page[200];
      snprintf(page, sizeof(page), "[{\"name\":\"%s\",\"type\":\"%s\"}]", names[i], folder ? "directory" : "file");
      assert_string_equal(names_of(page), "protocol");
    }
  }
}

static void names_are_sorted_and_each_is_there_once(void **state) {
  (void)state;
  assert_string_equal(names_of(A("b") A("a") A("b") A("c/") A("a")), "a b c/ ");
}

static void there_is_a_limit_on_names(void **state) {
  (void)state;
  struct index_page page;
  mc_error err = MC_ERROR_INIT;
  static const char twice[] = A("a") A("a") A("b") A("b");
  assert_int_equal(http_index_parse(&page, FOLDER, twice, sizeof(twice) - 1, 2, &err), MC_OK);
  assert_int_equal(page.count, 2);
  http_index_free(&page);
  assert_int_equal(http_index_parse(&page, FOLDER, twice, sizeof(twice) - 1, 1, &err), MC_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(err.message, "tree_files"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pages_of_real_servers),
      cmocka_unit_test(html_as_people_write_it),
      cmocka_unit_test(links_elsewhere_are_no_entries),
      cmocka_unit_test(names_that_lead_out_refuse_the_page),
      cmocka_unit_test(nginx_json),
      cmocka_unit_test(json_that_is_wrong),
      cmocka_unit_test(names_are_sorted_and_each_is_there_once),
      cmocka_unit_test(there_is_a_limit_on_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
