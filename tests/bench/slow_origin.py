"""An HTTP origin behind a narrow line: whatever is asked for, and over however many connections, no more than so many
bytes a second leave it. (nginx's limit_rate is one of each response, and lets its first second's bytes out at once.)

  slow_origin.py FILE BYTES_PER_SECOND

Serves FILE under any path, prints its port, and lives until its input ends. /-/bytes tells what was sent since it was
last asked.
"""

import http.server
import os
import re
import sys
import threading
import time

PIECE = 64 << 10


class Line:
    """Lets pieces out one after the other, each as long as it takes on the wire."""

    def __init__(self, rate):
        self.rate, self.lock, self.free_at, self.sent = rate, threading.Lock(), 0, 0

    def wait(self, size):
        with self.lock:
            self.sent += size
            begin = max(self.free_at, time.monotonic())
            self.free_at = begin + size / self.rate
        time.sleep(max(0, begin - time.monotonic()))

    def take_sent(self):
        with self.lock:
            sent, self.sent = self.sent, 0
        return sent


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        if self.path == "/-/bytes":
            body = str(self.server.line.take_sent()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.answer(True)

    def answer(self, with_body):
        file = os.fstat(self.server.fd)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, file.st_size - 1
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{file.st_size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{file.st_mtime_ns:x}"')
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        while with_body and first <= last:
            size = min(PIECE, last + 1 - first)
            self.server.line.wait(size)
            first += os.sendfile(self.wfile.fileno(), self.server.fd, first, size)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_):
        pass  # the client went away


def main():
    server = Server(("127.0.0.1", 0), Handler)
    server.fd, server.line = os.open(sys.argv[1], os.O_RDONLY), Line(int(sys.argv[2]))
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
