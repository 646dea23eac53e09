"""A gate before an Azurite, which knows no tokens over plain HTTP: it gives tokens, as Microsoft Entra and the metadata service
of a machine do, asks for them, and does what a test wants with each request on its way.

    gate = Gate("http://127.0.0.1:PORT", "SAS").start()
    gate.env                       where an application, or the machine, gets its tokens, and where the service is
    gate.assertion = "…"           what an application has to show; it may be changed
    gate.revoke()                  the tokens that were given so far are good no more
    gate.on_read = f               called before each answer with content: f(number) -> None, or a status and headers
    gate.given, gate.reads         who was given tokens; the ranges that were asked for
"""

import http.client
import http.server
import json
import threading
import urllib.parse

PASSED_ON = ("range", "if-match", "x-ms-version", "x-ms-date")
DROPPED = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, status, **document):
        self.answer(status, json.dumps(document).encode())

    def do_POST(self):
        gate = self.server.gate
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        wanted = {"grant_type": "client_credentials", "scope": "https://storage.azure.com/.default", "client_id": "app"}
        shown = form.get("client_assertion") or form.get("client_secret")
        if self.path != "/tenant/oauth2/v2.0/token" or not wanted.items() <= form.items() or shown != gate.assertion:
            self.answer_json(401, error="invalid_client", error_description=f"AADSTS700024: not {shown}")
        else:
            self.answer_json(200, token_type="Bearer", expires_in=3599, access_token=gate.give("application"))

    def do_GET(self):
        gate = self.server.gate
        if self.path.startswith("/metadata/"):
            if self.headers["Metadata"] == "true" and "resource=https%3A%2F%2Fstorage.azure.com%2F" in self.path:
                self.answer_json(200, expires_in="3599", access_token=gate.give("machine"))
            else:
                self.answer_json(400, error="invalid_request")
        elif self.headers["Authorization"] not in gate.tokens:
            self.answer(401, headers={"x-ms-error-code": "InvalidAuthenticationInfo"})
        else:
            self.pass_on(gate)

    do_HEAD = do_GET

    def pass_on(self, gate):
        url = self.path + ("&" if "?" in self.path else "?") + gate.sas
        if self.command == "GET" and "comp=list" not in url:
            instead = gate.note_read(self.headers["Range"])
            if instead:
                self.answer(instead[0], headers=instead[1])
                return
        connection = http.client.HTTPConnection(*gate.store)
        try:
            headers = {name: self.headers[name] for name in PASSED_ON if self.headers[name]}
            connection.request(self.command, url, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in DROPPED}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            self.answer(answer.status, body, headers)
        finally:
            connection.close()


class Gate:
    def __init__(self, store, sas):
        address = urllib.parse.urlsplit(store)
        self.store, self.sas = (address.hostname, address.port), sas
        self.assertion, self.on_read = "shown", lambda number: None
        self.tokens, self.given, self.reads = set(), [], []
        self.lock = threading.Lock()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.gate = True, self
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {
            "AZURE_AUTHORITY_HOST": self.endpoint,
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": self.endpoint,
            "AZURE_STORAGE_BLOB_ENDPOINT": self.endpoint,
        }

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def give(self, whom):
        with self.lock:
            self.given.append(whom)
            token = f"eyJ.token.{len(self.given)}"
            self.tokens.add(f"Bearer {token}")
            return token

    def revoke(self):
        with self.lock:
            self.tokens = set()

    def note_read(self, wanted):
        with self.lock:
            self.reads.append(wanted)
            number = len(self.reads)
        return self.on_read(number)
