"""A gate before an S3 server, that does what a test wants with each request on its way; and an agent that gives keys, as
containers have one.

    gate = Gate("http://127.0.0.1:PORT").start()
    gate.on_request = f            called before each request is passed on: f(request)
    gate.on_body = f               called with each body of an object: f(request, body) -> body, or None to leave it
    gate.refused.add("ID")         what these keys sign is answered with ExpiredToken
    gate.make_keys = f             called for the agent's answers: f() -> (id, secret, token)
    gate.agent                     its URL
    gate.requests                  (method, path, headers) of each request to the store
    gate.given                     the ids that the agent has given
"""

import datetime
import http.client
import http.server
import json
import threading
import urllib.parse

NOT_PASSED_BACK = ("connection", "content-length", "date", "server", "transfer-encoding")
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", len(body) if length is None else length)
        self.end_headers()
        self.wfile.write(body)

    @property
    def signer(self):
        return self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        gate = self.server.gate
        if self.path == "/agent":
            self.answer(200, json.dumps(gate.give()).encode())
            return
        gate.requests.append((self.command, self.path, dict(self.headers.items())))
        if gate.on_request:
            gate.on_request(self)
        if self.signer in gate.refused:
            self.answer(400, b"" if self.command == "HEAD" else EXPIRED)
        else:
            self.forward(gate)

    def forward(self, gate):
        store = http.client.HTTPConnection(gate.store, timeout=60)
        store.request(self.command, self.path, headers=dict(self.headers.items()))  # Host is signed, too
        response = store.getresponse()
        body, length = response.read(), response.headers["Content-Length"]
        store.close()
        if response.status in (200, 206) and "list-type" not in self.path and gate.on_body and body:
            body = gate.on_body(self, body) or body
        back = [(name, value) for name, value in response.getheaders() if name.lower() not in NOT_PASSED_BACK]
        self.answer(response.status, body, back, length if self.command == "HEAD" else None)


class Gate:
    def __init__(self, store):
        self.store = urllib.parse.urlsplit(store).netloc
        self.requests, self.refused, self.given = [], set(), []
        self.on_request = self.on_body = self.make_keys = None

    def start(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.gate = True, self
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.agent = f"{self.endpoint}/agent"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def give(self):
        key, secret, token = self.make_keys()
        self.given.append(key)
        expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        return {
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
