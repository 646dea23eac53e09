"""An HTTP/1.1 origin that tells the truth, or lies on demand, and writes down what it did.

    origin.py [--root .] [--port 0] [--log FILE] [--tls CERTIFICATE_AND_KEY]

It listens on 127.0.0.1 and prints its port on a line of its own. Files below the root are served with ranges, ETag and
Last-Modified; a folder is an index page. Asked as a forward proxy, for absolute URLs, it serves their paths itself.

Behaviour is chosen for a path ("*" for all) at the control endpoint, or in the query of the request itself:

    GET /__behave?path=/a.bin&mode=MODE[,MODE…][&method=GET][&after=N][&times=N]
    GET /a.bin?mode=MODE[,MODE…][&method=GET][&after=N][&times=N]

for requests of that method alone, after the first N of them, N times. `mode=` (empty) forgets what was set for a path.
The modes, each with its value behind a ':' (a comma within it as %252C):

    ranges          no-ranges         ignore Range, announce nothing
                    lying-ranges      announce ranges, then send the whole
                    cap:N             answer ranges with N bytes at most
                    wrong-range       answer with another range than the one that was asked for
    length          chunked           chunks, no length, no ranges
                    unframed          neither a length nor chunks: the end of the connection is the end of the body
                    huge              the length is 10 GB, the body one byte
                    longer:N          N more bytes than there are
    HEAD            no-head           405
                    head-lies         HEAD says that the file is empty
    validators      no-etag, no-date, weak-etag
                    no-validators     neither on GET, both on HEAD
                    change            the other version: every byte inverted, another ETag, a Last-Modified a day later
                    sneaky            as `change`, with the ETag and Last-Modified of before
    digests         digest:KIND       true, false (a wrong one) or part (of a multipart upload)
    the connection  reset:PERCENT     cut (RST) after that part of the body
                    truncate:PERCENT  close after that part of the body, a chunked one without its end
                    stall:PERCENT     send that part of the body, then nothing, until the client has gone
                    drop              close without an answer
                    slow:N            N bytes a second
                    hold:N            when that many bytes of the path have been sent, by all such requests together,
                                      nothing more until GET /__release?path=…
    answers         status:N          an error page with that status
                    retry-after:N     with the header, in seconds; retry-date:N as a date that is N seconds from now
                    endless-head      headers, until the client has gone
                    bad-chunk         a chunk whose size is no number
                    garbage           not HTTP
                    encoded           Content-Encoding: gzip, though it isn't
                    cookie            with a cookie
    redirects       redirect:URL      {port} is this port; redirect-loop, -metadata, -other-host and -file
                    expiring:N        to a signed URL, which is good for N requests
    indexes         index:FILE        the page of a folder is that file

The log is one JSON line for each request that ended: method, path, query, proxied, host, range, authorization, cookie,
status, connection: its number, and sent: bytes of the body. GET /__log waits until no request is under way and answers with the lines; GET /__reset forgets
the lines, the behaviours and the signatures. Neither is logged.
"""

import argparse
import base64
import email.utils
import hashlib
import html
import http.server
import itertools
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse

PIECE = 1 << 18
HELD_PIECE = 1 << 16
INVERTED = bytes(255 - i for i in range(256))
HUGE = 10_000_000_000


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


class Rule:
    """One behaviour, for some requests of a path."""

    def __init__(self, path, query):
        self.path, self.method = path, query.get("method")
        self.after, self.times = int(query.get("after", 0)), int(query.get("times", 1 << 60))
        self.modes, self.seen = {}, 0
        for mode in filter(None, query.get("mode", "").split(",")):
            name, _, value = mode.partition(":")
            self.modes[name] = urllib.parse.unquote(value)

    def take(self, method):
        """The modes for the next request of that method."""
        if self.method and self.method != method:
            return {}
        self.seen += 1
        return self.modes if self.after < self.seen <= self.after + self.times else {}


class State:
    """What the requests share."""

    def __init__(self, root, log):
        self.root, self.log, self.busy = pathlib.Path(root).resolve(), log, 0
        self.lock, self.connections = threading.Condition(), itertools.count(1)
        self.reset()

    def control(self, path, query):
        with self.lock:
            if path == "/__behave":
                rule = Rule(query["path"], query)
                if "hold" in rule.modes:
                    self.held[rule.path] = int(rule.modes["hold"])
                self.rules = self.rules + [rule] if rule.modes else [r for r in self.rules if r.path != rule.path]
            elif path == "/__reset":
                self.reset()
                self.lock.notify_all()
            elif path == "/__release":
                self.held.pop(query["path"], None)
                self.lock.notify_all()
            elif path == "/__log":
                self.lock.wait_for(lambda: self.busy == 0, 30)
                return "".join(line + "\n" for line in self.lines).encode()
            return b""

    def modes(self, method, path, target, query):
        with self.lock:
            rules = [rule for rule in self.rules if rule.path in ("*", path)]
            if "mode" in query:
                rules.append(self.asked.setdefault(target, Rule(path, query)))
            modes = {}
            for rule in rules:
                modes |= rule.take(method)
            return modes

    def reset(self):
        self.rules, self.asked, self.lines, self.signed, self.held = [], {}, [], {}, {}

    def may_send(self, path, size):
        """Wait until `size` more bytes of a path may be sent that is held back."""
        with self.lock:
            while self.held.get(path, size) < size:
                self.lock.wait()
            if path in self.held:
                self.held[path] -= size

    def count(self, busy, line=None):
        with self.lock:
            self.busy += busy
            if line:
                self.lines.append(json.dumps(line))
                print(*self.lines[-1:], file=self.log, flush=True)
            self.lock.notify_all()

    def sign(self, path, uses):
        with self.lock:
            self.signed[str(len(self.signed))] = uses
            return f"{path}?signature={len(self.signed) - 1}"

    def use(self, signature):
        with self.lock:
            self.signed[signature] = self.signed.get(signature, 0) - 1
            return self.signed[signature] >= 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout, wbufsize = 120, PIECE

    def setup(self):
        super().setup()
        self.number = next(self.server.state.connections)

    def log_message(self, *args):
        pass

    def do_GET(self):
        state = self.server.state
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.status, self.sent = 0, 0
        if url.path.startswith("/__"):
            return self.page(200, state.control(url.path, query))
        path = urllib.parse.unquote(url.path)
        state.count(1)
        try:
            self.answer(path, query, state.modes(self.command, path, self.path, query))
            self.wfile.flush()
        except OSError:  # the client has gone, or we have cut it off
            self.close_connection = True
        finally:
            line = {"method": self.command, "path": path, "query": url.query, "proxied": bool(url.netloc)}
            line |= {name.lower(): self.headers[name] for name in ("Host", "Range", "Authorization", "Cookie")}
            state.count(-1, line | {"status": self.status, "connection": self.number, "sent": self.sent})

    do_HEAD = do_GET

    def answer(self, path, query, modes):
        if "signature" in query and not self.server.state.use(query["signature"]):
            self.page(403, b"the signature has expired\n")
        elif "drop" in modes:
            self.close_connection = True
        elif "garbage" in modes:
            self.wfile.write(b"this is not the protocol that you are looking for\r\n\r\n")
            self.close_connection = True
        elif "endless-head" in modes:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                self.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        elif "no-head" in modes and self.command == "HEAD":
            self.page(405, b"no HEAD here\n")
        elif target := self.redirection(path, query, modes):
            self.page(302, b"over there\n", {"Location": target})
        elif "status" in modes:
            headers = {"Retry-After": modes["retry-after"]} if "retry-after" in modes else {}
            if "retry-date" in modes:
                headers["Retry-After"] = http_date(time.time() + int(modes["retry-date"]))
            self.page(int(modes["status"]), b"an error page\n" * 10, headers)
        else:
            self.serve(path, modes)

    def redirection(self, path, query, modes):
        port = self.server.server_port
        if "expiring" in modes and "signature" not in query:
            return self.server.state.sign(path, int(modes["expiring"]))
        targets = {
            "redirect": modes.get("redirect", "").replace("{port}", str(port)),
            "redirect-file": "file:///etc/passwd",
            "redirect-loop": self.path,
            "redirect-metadata": "http://169.254.169.254/latest/meta-data/",
            "redirect-other-host": f"http://localhost:{port}{urllib.parse.quote(path)}",
        }
        return next((targets[name] for name in targets if name in modes), None)

    def page(self, status, body, headers=None):
        self.head(status, {"Content-Length": str(len(body))} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)
            self.sent += len(body)

    def head(self, status, headers):
        self.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def serve(self, path, modes):
        root = self.server.state.root
        file = root / (modes["index"] if "index" in modes else path.lstrip("/"))
        if not file.resolve().is_relative_to(root) or not file.exists():
            return self.page(404, b"nothing here\n")
        if file.is_dir():
            return self.page(200, self.index(file), {"Content-Type": "text/html"})
        with open(file, "rb") as stream:
            self.serve_file(stream, path, modes)

    def index(self, folder):
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
        links = "".join(f'<a href="{urllib.parse.quote(name)}">{html.escape(name)}</a>\n' for name in names)
        return f'<html><a href="../">../</a>\n{links}</html>\n'.encode()

    def serve_file(self, stream, path, modes):
        size = HUGE if "huge" in modes else os.fstat(stream.fileno()).st_size
        first, last = 0, size - 1
        headers = self.facts(stream, modes)
        whole = {"no-ranges", "chunked", "unframed"} & modes.keys()
        headers |= {} if whole else {"Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        ranged = bool(wanted) and not whole and "lying-ranges" not in modes
        if ranged:
            first = int(wanted[1])
            last = min(int(wanted[2] or size), size - 1)
            if first > last:
                return self.page(416, b"", {"Content-Range": f"bytes */{size}"})
            if "cap" in modes:
                last = min(last, first + int(modes["cap"]) - 1)
            shift = 1 if "wrong-range" in modes else 0
            headers["Content-Range"] = f"bytes {first + shift}-{last + shift}/{size + shift}"
        length = last - first + 1 + int(modes.get("longer", 0))
        if self.command == "HEAD" and "head-lies" in modes:
            length = 0
        if "chunked" in modes or "bad-chunk" in modes:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers |= {"Connection": "close"} if "unframed" in modes else {"Content-Length": str(length)}
        self.head(206 if ranged else 200, headers)
        if self.command != "HEAD":
            self.body(stream, first, 1 if "huge" in modes else length, path, modes)

    def facts(self, stream, modes):
        """The headers that describe a version."""
        stat, headers, changed = os.fstat(stream.fileno()), {}, "change" in modes
        bare = "no-validators" in modes and self.command != "HEAD"
        if "no-etag" not in modes and not bare:
            weak = "W/" if "weak-etag" in modes else ""
            headers["ETag"] = f'{weak}"{stat.st_mtime_ns:x}-{stat.st_size:x}{"-other" if changed else ""}"'
        if "no-date" not in modes and not bare:
            headers["Last-Modified"] = http_date(stat.st_mtime + 86400 * changed)
        headers |= {"Content-Encoding": "gzip"} if "encoded" in modes else {}
        headers |= {"Set-Cookie": "session=1; Path=/"} if "cookie" in modes else {}
        kind = modes.get("digest")
        if kind == "part":
            headers["x-amz-checksum-sha256"] = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-2"
        elif kind:
            stream.seek(0)
            digest = hashlib.sha256(stream.read() + (b"" if kind == "true" else b"!")).digest()
            headers["Repr-Digest"] = f"sha-512=:AAAA:, sha-256=:{base64.b64encode(digest).decode()}:"
        return headers

    def body(self, stream, first, length, path, modes):
        cuts = [name for name in ("reset", "truncate", "stall") if name in modes]
        end = length * int(modes[cuts[0]]) // 100 if cuts else length
        rate = int(modes.get("slow", 0))
        invert = {"change", "sneaky"} & modes.keys()
        chunked = "chunked" in modes or "bad-chunk" in modes
        stream.seek(first)
        sent = 0
        while sent < end:
            size = min(end - sent, max(1, rate // 20) if rate else PIECE)
            if "hold" in modes:
                self.wfile.flush()
                size = min(size, HELD_PIECE)
                self.server.state.may_send(path, size)
            piece = stream.read(size) or b"x" * size  # past the end, for `longer`
            piece = piece.translate(INVERTED) if invert else piece
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            sent += len(piece)
            self.sent = sent
            if rate:
                self.wfile.flush()
                time.sleep(len(piece) / rate)
        if cuts or "huge" in modes:
            self.wfile.flush()
            self.cut(cuts[0] if cuts else "truncate")
        elif chunked:
            self.wfile.write(b"nonsense\r\n" if "bad-chunk" in modes else b"0\r\n\r\n")
        self.close_connection |= bool({"unframed", "bad-chunk"} & modes.keys())

    def cut(self, how):
        self.close_connection = True
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if how == "stall":
            self.connection.settimeout(None)
            self.rfile.read(1)  # returns when the client closes


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, address)


def main():
    parser = argparse.ArgumentParser()
    for option in ("--root", "--port", "--log", "--tls"):
        parser.add_argument(option)
    parser.set_defaults(root=".", port="0", log=os.devnull)
    args = parser.parse_args()
    server = Server(("127.0.0.1", int(args.port)), Handler)
    server.state = State(args.root, open(args.log, "a"))
    if args.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
