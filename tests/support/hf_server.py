"""A Hugging Face Hub on loopback, which the real huggingface_hub client accepts, and the CDN behind it.

    hf_server.py FOLDER     serve FOLDER/[models|datasets|spaces]/ORG/NAME; print {"endpoint": …, "cdn": …} on one line

or in a thread, where a test has the repositories in its hands:

    with Hub() as hub:
        repo = hub.repo("org/name", private=True)
        commit = repo.commit({"config.json": b"{}", "model.safetensors": Lfs(b"…")})
        repo.commit({"config.json": None}, branch="next")
        hub.tokens = {"hf_good"}

Both listen on 127.0.0.1, on ports of their own, so the CDN is another host to a client. The hub answers for small files
itself, and redirects to the CDN for those in LFS. The CDN refuses any request that carries an Authorization header:
its URLs are signed, and the token is none of its business. `hub.requests` says what was asked for, without the tokens.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import hmac
import http.server
import io
import json
import os
import pathlib
import re
import secrets
import sys
import threading
import time
import urllib.parse

KINDS = ("models", "datasets", "spaces")
XET_MARK = b"xet"


class Lfs:
    """A file that is kept in LFS; `xet`: and in Xet, as those of newer repositories are. Bytes, or a path to them."""

    def __init__(self, data, xet=False):
        self.data, self.xet = data, xet


@dataclasses.dataclass
class Blob:
    """The content of a file, and its names: git's for what is in the repository, which for LFS is a pointer."""

    data: bytes | pathlib.Path
    lfs: bool = False
    xet: bool = False

    def __post_init__(self):
        self.size = self.data.stat().st_size if isinstance(self.data, pathlib.Path) else len(self.data)
        with self.open() as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if self.lfs:
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
            )
            self.pointer_size, self.oid = len(pointer), git_oid("blob", pointer)
        else:
            with self.open() as file:
                self.oid = git_oid("blob", file.read())
        self.xet_hash = hashlib.sha256(XET_MARK + self.sha256.encode()).hexdigest() if self.xet else None

    def open(self):
        return open(self.data, "rb") if isinstance(self.data, pathlib.Path) else io.BytesIO(self.data)

    def etag(self):
        return self.sha256 if self.lfs else self.oid


def git_oid(kind, content):
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


class Repo:
    """A repository: commits, which are whole sets of files, and the branches that point to them."""

    def __init__(self, hub, kind, name, private=False, gated=False):
        self.hub, self.kind, self.name, self.private, self.gated = hub, kind, name, private, gated
        self.commits, self.branches = {}, {}
        self.commit({})

    def commit(self, files, branch="main"):
        """Add files to those of a branch, which is made if need be, and move it there. None removes one. Returns the
        commit."""
        blobs = {path: self.blob(content) for path, content in files.items() if content is not None}
        with self.hub.lock:
            parent = self.branches.get(branch) or self.branches.get("main", "")
            tree = {path: blob for path, blob in self.commits.get(parent, {}).items() if path not in files} | blobs
            listing = "".join(f"{path}\0{blob.oid}\n" for path, blob in sorted(tree.items()))
            commit = git_oid("commit", f"{parent}\n{len(self.commits)}\n{self.name}\n{listing}".encode())
            self.commits[commit] = tree
            self.branches[branch] = commit
            for blob in blobs.values():
                self.hub.blobs[blob.sha256] = blob
        return commit

    def blob(self, content):
        if isinstance(content, Lfs):
            return Blob(content.data, lfs=True, xet=content.xet)
        return Blob(content)

    def move(self, branch, commit):
        """Point a branch, or a tag, to a commit."""
        with self.hub.lock:
            self.branches[branch] = commit

    def head(self, branch="main"):
        return self.branches[branch]

    def find(self, revision):
        """The commit that a branch, a tag or a commit names."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Refusal(Exception):
    """An answer that is an error, in the hub's way: what is wrong stands in the headers."""

    def __init__(self, status, code, message, commit=None):
        super().__init__(message)
        self.status, self.code, self.message, self.commit = status, code, message, commit


class Hub:
    """The hub and its CDN. What is set here holds from the next request on."""

    def __init__(self):
        self.lock = threading.Condition()
        self.repos, self.blobs = {}, {}
        self.tokens = set()  # those that are good
        self.page_size = 1000  # of a tree's listing
        self.resolve_cache = False  # redirect to a relative URL also for small files, as the real one may
        self.requests, self.busy, self.failures = [], 0, []
        self.signing_key = secrets.token_bytes(32)
        self.servers, self.threads = [], []
        self.endpoint = self.cdn = None

    def start(self):
        for name, handler in (("endpoint", HubHandler), ("cdn", CdnHandler)):
            server = Server(("127.0.0.1", 0), handler)
            server.hub = self
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            self.servers.append(server)
            self.threads.append(thread)
            setattr(self, name, f"http://127.0.0.1:{server.server_port}")
        return self

    def stop(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
        for thread in self.threads:
            thread.join()
        self.servers, self.threads = [], []

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def repo(self, name, kind="models", **settings):
        """The repository of that name, which is made if need be. `private`: there for those with a token alone; `gated`:
        seen by all, its files for those with a token."""
        with self.lock:
            if (kind, name) not in self.repos:
                self.repos[kind, name] = Repo(self, kind, name)
            repo = self.repos[kind, name]
            for setting, value in settings.items():
                setattr(repo, setting, value)
            return repo

    def load(self, folder):
        """Repositories from a folder; files of 1 MiB and more are in LFS."""
        for kind in KINDS:
            for path in sorted(pathlib.Path(folder, kind).glob("*/*")):
                files = {}
                for file in sorted(path.rglob("*")):
                    if file.is_file():
                        large = file.stat().st_size >= 1 << 20
                        files[file.relative_to(path).as_posix()] = Lfs(file) if large else file
                self.repo(f"{path.parent.name}/{path.name}", kind).commit(files)

    def expire_urls(self):
        """The CDN takes none of the URLs that were handed out so far."""
        self.signing_key = secrets.token_bytes(32)

    def fail(self, status, times=1, match="", **headers):
        """Answer the next requests whose path has `match` in it with an error; header names with _ for -."""
        with self.lock:
            fixed = {name.replace("_", "-"): str(value) for name, value in headers.items()}
            self.failures.append([times, match, status, fixed])

    def take_failure(self, path):
        with self.lock:
            for failure in self.failures:
                if failure[0] and failure[1] in path:
                    failure[0] -= 1
                    return failure[2:]
        return None

    def sign(self, sha256):
        return hmac.new(self.signing_key, sha256.encode(), "sha256").hexdigest()

    def asked(self, server=None, method=None, path=""):
        """The requests that ended, once none is under way: of the "hub" or the "cdn", of a method, with that in the path."""
        with self.lock:
            self.lock.wait_for(lambda: not self.busy, 30)
            return [
                row
                for row in self.requests
                if server in (None, row["server"]) and method in (None, row["method"]) and path in row["path"]
            ]

    def refusals(self):
        """How often the CDN was shown a credential."""
        return sum(row["status"] == 400 for row in self.asked("cdn"))

    def forget_requests(self):
        with self.lock:
            self.lock.wait_for(lambda: not self.busy, 30)
            self.requests.clear()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """A client that goes away is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server_name = ""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.handle_one()

    def do_GET(self):
        self.handle_one()

    def handle_one(self):
        hub = self.server.hub
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        row = {
            "server": self.server_name,
            "method": self.command,
            "path": urllib.parse.unquote(url.path),
            "range": self.headers.get("Range"),
            "authorized": "Authorization" in self.headers,
            "status": 0,
            "sent": 0,
        }
        self.row = row
        with hub.lock:
            hub.busy += 1
        try:
            failure = hub.take_failure(row["path"])
            if failure:
                self.answer(failure[0], b"failed on demand\n", **failure[1])
            else:
                self.route([urllib.parse.unquote(part) for part in url.path.split("/")[1:]])
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            if refusal.commit:
                headers["X-Repo-Commit"] = refusal.commit
            headers = {name: value for name, value in headers.items() if value}
            self.answer(refusal.status, json.dumps({"error": refusal.message}).encode(), **headers)
        finally:
            with contextlib.suppress(OSError):
                self.wfile.flush()
            with hub.lock:
                hub.busy -= 1
                hub.requests.append(row)
                hub.lock.notify_all()

    def begin(self, status, length, headers):
        self.row["status"] = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status, body=b"", **headers):
        self.begin(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)
            self.row["sent"] = len(body)

    def answer_json(self, document, **headers):
        self.answer(200, json.dumps(document).encode(), **{"Content-Type": "application/json"} | headers)

    def answer_blob(self, blob, **headers):
        """The whole, or the one range that is asked for."""
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{blob.etag()}"'} | headers
        if self.headers.get("If-None-Match") == headers["ETag"]:
            return self.answer(304, **headers)
        if self.headers.get("If-Match") not in (None, headers["ETag"]):
            return self.answer(412, **headers)
        first, end, status = 0, blob.size, 200
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match and any(match.groups()) and self.headers.get("If-Range") in (None, headers["ETag"]):
            low, high = match.groups()
            first = int(low) if low else max(0, blob.size - int(high))
            end = min(blob.size, int(high) + 1) if low and high else blob.size
            if first >= end:
                return self.answer(416, **headers, **{"Content-Range": f"bytes */{blob.size}"})
            status, headers["Content-Range"] = 206, f"bytes {first}-{end - 1}/{blob.size}"
        self.begin(status, end - first, headers)
        if self.command != "HEAD":
            with blob.open() as file:
                self.send(file, first, end - first)

    def send(self, file, first, left):
        self.wfile.flush()
        if isinstance(file, io.BytesIO):
            self.wfile.write(file.getbuffer()[first : first + left])
            self.row["sent"] += left
        while left and not isinstance(file, io.BytesIO):
            sent = os.sendfile(self.connection.fileno(), file.fileno(), first, min(left, 1 << 24))
            if not sent:
                raise ConnectionError("the file was cut")
            first, left = first + sent, left - sent
            self.row["sent"] += sent


class HubHandler(Handler):
    server_name = "hub"

    def route(self, parts):
        if parts == ["api", "whoami-v2"]:
            self.require_good_token(needed=True)
            return self.answer_json({"type": "user", "name": "tester", "auth": {"type": "access_token"}})
        if parts[0] == "api" and len(parts) >= 3:
            return self.route_api(parts[1], parts[2:])
        kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
        for at in (1, 2):  # the oldest repositories have no organisation
            if len(parts) > at + 2 and parts[at] == "resolve":
                return self.resolve(kind, "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]))
        raise Refusal(404, None, "Not found")

    def route_api(self, kind, parts):
        if kind == "resolve-cache" and len(parts) > 4:
            return self.resolve_cached(parts[0], "/".join(parts[1:3]), parts[3], "/".join(parts[4:]))
        if kind not in KINDS:
            raise Refusal(404, None, "Not found")
        words = ("tree", "revision", "refs", "xet-read-token")
        at = next((i for i in (1, 2) if len(parts) > i and parts[i] in words), len(parts))
        repo = self.find_repo(kind, "/".join(parts[:at]))
        what, rest = parts[at] if at < len(parts) else "revision", parts[at + 1 :]
        if what == "tree" and rest:
            return self.tree(repo, rest[0], "/".join(rest[1:]).strip("/"))
        if what == "revision":
            return self.info(repo, "/".join(rest) or "main")
        if what == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in repo.branches.items()
            ]
            return self.answer_json({"branches": branches, "tags": [], "converts": []})
        raise Refusal(404, None, "Not found")

    # ---- who may ----

    def require_good_token(self, needed):
        """Whether there is a token. One that isn't good is refused also where none is needed."""
        value = self.headers.get("Authorization")
        if value is not None and value.removeprefix("Bearer ") not in self.server.hub.tokens:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        if needed and value is None:
            raise Refusal(401, None, "Invalid username or password.")
        return value is not None

    def find_repo(self, kind, name):
        """One that is private isn't there for those who may not see it, and what isn't there might be private."""
        known = self.require_good_token(needed=False)
        repo = self.server.hub.repos.get((kind, name))
        if repo is None or (repo.private and not known):
            message = "Repository not found" if known else "Invalid username or password."
            raise Refusal(404 if known else 401, "RepoNotFound", message)
        return repo

    def find_commit(self, repo, revision):
        commit = repo.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # ---- what there is ----

    def info(self, repo, revision):
        commit = self.find_commit(repo, revision)
        self.answer_json(
            {
                "_id": git_oid("repo", repo.name.encode())[:24],
                "id": repo.name,
                "modelId": repo.name,
                "author": repo.name.split("/")[0],
                "sha": commit,
                "lastModified": "2024-01-01T00:00:00.000Z",
                "createdAt": "2024-01-01T00:00:00.000Z",
                "private": bool(repo.private),
                "gated": "auto" if repo.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(repo.commits[commit])],
            }
        )

    def tree(self, repo, revision, folder):
        commit = self.find_commit(repo, revision)
        entries = list(self.entries(repo.commits[commit], folder, self.flag("recursive")))
        if folder and not entries:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}", commit)
        hub = self.server.hub
        size = min(hub.page_size, int(self.query.get("limit") or hub.page_size))
        first = int(self.query.get("cursor") or 0)
        headers = {"X-Repo-Commit": commit}
        if first + size < len(entries):
            query = urllib.parse.urlencode(self.query | {"cursor": first + size, "limit": size})
            path = urllib.parse.urlsplit(self.path).path
            headers["Link"] = f'<{hub.endpoint}{path}?{query}>; rel="next"'
        self.answer_json(entries[first : first + size], **headers)

    def flag(self, name):
        return self.query.get(name, "").lower() in ("1", "true")

    def entries(self, tree, folder, recursive):
        """The files and the folders below a folder, in the order of their paths."""
        prefix = f"{folder}/" if folder else ""
        found = {}
        for path, blob in tree.items():
            if not path.startswith(prefix):
                continue
            steps = path[len(prefix) :].split("/")
            for depth in range(1, len(steps) if recursive else min(len(steps), 2)):
                parent = prefix + "/".join(steps[:depth])
                found[parent] = {
                    "type": "directory",
                    "oid": git_oid("tree", parent.encode()),
                    "size": 0,
                    "path": parent,
                }
            if recursive or len(steps) == 1:
                found[path] = self.file_entry(path, blob)
        return (found[path] for path in sorted(found))

    def file_entry(self, path, blob):
        entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
        if blob.xet:
            entry["xetHash"] = blob.xet_hash
        if self.flag("expand"):
            entry["lastCommit"] = {"id": "0" * 40, "title": "a commit", "date": "2024-01-01T00:00:00.000Z"}
            entry["securityFileStatus"] = None
        return entry

    # ---- a file ----

    def find_file(self, kind, name, revision, path):
        repo = self.find_repo(kind, name)
        if repo.gated and not self.require_good_token(needed=False):
            raise Refusal(401, "GatedRepo", f"Access to {kind[:-1]} {name} is restricted. You must be authenticated.")
        commit = self.find_commit(repo, revision)
        blob = repo.commits[commit].get(path)
        if blob is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", commit)
        return commit, blob

    def resolve(self, kind, name, revision, path):
        hub = self.server.hub
        commit, blob = self.find_file(kind, name, revision, path)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.etag()}"'}
        if blob.lfs:
            query = urllib.parse.urlencode({"Expires": int(time.time()) + 3600, "Signature": hub.sign(blob.sha256)})
            headers["Location"] = f"{hub.cdn}/repos/{blob.sha256[:2]}/{blob.sha256}?{query}"
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(blob.size)}
            if blob.xet:
                headers["X-Xet-Hash"] = blob.xet_hash
                headers["Link"] = f'<{hub.endpoint}/api/{kind}/{name}/xet-read-token/{commit}>; rel="xet-auth"'
            return self.answer(302, b"Found. Redirecting\n", **headers)
        if hub.resolve_cache:
            quoted = urllib.parse.quote(path)
            headers["Location"] = f"/api/resolve-cache/{kind}/{name}/{commit}/{quoted}"
            return self.answer(307, b"Temporary Redirect\n", **headers)
        return self.answer_blob(blob, **headers)

    def resolve_cached(self, kind, name, commit, path):
        commit, blob = self.find_file(kind, name, commit, path)
        return self.answer_blob(blob, **{"X-Repo-Commit": commit})


class CdnHandler(Handler):
    server_name = "cdn"

    def route(self, parts):
        hub = self.server.hub
        if "Authorization" in self.headers or "Cookie" in self.headers:
            return self.answer(400, b"Only one auth mechanism allowed\n")
        sha256 = parts[-1]
        if not hmac.compare_digest(self.query.get("Signature", ""), hub.sign(sha256)):
            return self.answer(403, b"Request has expired\n")
        blob = hub.blobs.get(sha256)
        if blob is None:
            return self.answer(404, b"Not found\n")
        return self.answer_blob(blob)


def main():
    parser = argparse.ArgumentParser(description="A Hugging Face Hub on loopback")
    parser.add_argument("folder")
    folder = parser.parse_args().folder
    with Hub() as hub:
        hub.load(folder)
        print(json.dumps({"endpoint": hub.endpoint, "cdn": hub.cdn}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
