"""A gate before a fake-gcs-server, which lets everybody in: it asks for tokens, gives them to who signs for them, and does
what a test wants with each request on its way.

    gate = Gate("http://127.0.0.1:PORT").start()
    gate.account()                 a service account's file of credentials, as a dictionary
    gate.revoke()                  the tokens that were given so far are good no more
    gate.on_media = f              called before each answer with content; may change its body: f(request, body) -> body
    gate.requests                  (method, path, headers) of each request to the store
    gate.given                     how many tokens were
"""

import base64
import http.client
import http.server
import json
import threading
import time
import urllib.parse

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "reader@test.iam.gserviceaccount.com"
PASSED_ON = ("accept-encoding", "range")
PASSED_BACK = (
    "content-type",
    "content-length",
    "content-range",
    "content-encoding",
    "etag",
    "last-modified",
    "x-goog-",
)


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status, document, headers=()):
        self.answer(status, json.dumps(document).encode(), headers)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body, strict_parsing=True))
        token = self.server.gate.sign_in(form)
        if token:
            self.answer_json(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
        else:
            self.answer_json(400, {"error": "invalid_grant", "error_description": "not you"})

    def do_GET(self):
        gate = self.server.gate
        if self.path.startswith("/computeMetadata/"):
            well = self.headers["Metadata-Flavor"] == "Google"
            answer = {"access_token": gate.give(), "expires_in": 3599} if well else {}
            self.answer_json(200 if well else 403, answer, {"Metadata-Flavor": "Google"})
            return
        gate.requests.append((self.command, self.path, dict(self.headers.items())))
        if gate.closed and self.headers["Authorization"] not in gate.good:
            self.answer_json(401, {"error": {"code": 401, "errors": [{"reason": "authError"}], "message": "no"}})
            return
        self.forward(gate)

    def forward(self, gate):
        store = http.client.HTTPConnection(gate.store)
        headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
        store.request("GET", self.path, headers=headers)
        response = store.getresponse()
        body = response.read()
        store.close()
        if "alt=media" in self.path and gate.on_media:
            body = gate.on_media(self, body) or body
        back = {name: value for name, value in response.getheaders() if name.lower().startswith(PASSED_BACK)}
        self.answer(response.status, body, back)


class Gate:
    def __init__(self, store, closed=True):
        self.store, self.closed = urllib.parse.urlsplit(store).netloc, closed
        self.lock = threading.Lock()
        self.key = rsa.generate_private_key(65537, 2048)
        self.good, self.given, self.requests, self.on_media = set(), 0, [], None

    def start(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.gate = True, self
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def account(self):
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "client_email": EMAIL,
            "private_key_id": "1",
            "private_key": pem.decode(),
            "token_uri": f"{self.endpoint}/token",
        }

    def give(self):
        with self.lock:
            self.given += 1
            token = f"ya29.{self.given}"
            self.good.add(f"Bearer {token}")
            return token

    def revoke(self):
        with self.lock:
            self.good.clear()

    def sign_in(self, form):
        """A token for who signs with the key; None for others."""
        try:
            signed, signature = form["assertion"].rsplit(".", 1)
            self.key.public_key().verify(decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(decode(signed.split(".")[1]))
            well = claims["iss"] == EMAIL and claims["aud"] == f"{self.endpoint}/token"
            well = well and claims["iat"] - 10 <= time.time() < claims["exp"] <= claims["iat"] + 3600
            return self.give() if well and claims["scope"].endswith("/devstorage.read_only") else None
        except Exception:
            return None
