"""Real processes for the end-to-end tests and the benchmarks: nginx as an origin, modelcached, the modelcache command.

Everything listens on 127.0.0.1 and writes below the folder it is given. A process that is started here is a group of
its own, is killed with its parent, and is registered with a `Processes`, whose `close` ends what still runs.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MODELCACHE_BUILD", "build"))
if not BUILD.is_absolute():
    BUILD = ROOT / BUILD
MODELCACHED = BUILD / "server" / "modelcached"
MODELCACHE = BUILD / "cli" / "modelcache"
ORIGIN = ROOT / "tests" / "support" / "origin.py"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

# A share of the full number of rounds, for builds that are slow; a factor on what a process may use of memory, for
# builds with a sanitizer; and one on how long things may take.
SCALE = float(os.environ.get("MODELCACHE_TEST_SCALE", "1"))
SANITIZER = os.environ.get("MODELCACHE_TEST_SANITIZER", "")
SLOWNESS = {"": 1, "address": 3, "thread": 6}[SANITIZER]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CHUNK = 4 * MIB

# Exit codes of the command.
OK, FAILURE, USAGE, MISSING, DENIED, UNAVAILABLE, NO_SPACE, CORRUPT = range(8)


def scaled(count):
    """`count` rounds, or fewer in a slow build."""
    return max(1, round(count * SCALE))


def memory_allowance(size):
    """What a process may use of memory where `size` bytes are enough for a plain build."""
    return size * {"": 1, "address": 4, "thread": 8}[SANITIZER]


def wait_until(condition, timeout=10, what="the condition"):
    """Poll for what nothing announces. Returns what `condition` returned."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout * SLOWNESS} s")
        time.sleep(0.01)


# Bound, so that no other test's free_port() finds the same, but not listening.
reserved = []


def free_port():
    """A port that is free, outside the range from which the kernel takes the ports of outgoing connections, and reserved
    for a server that sets SO_REUSEADDR, as servers do: it is still free when one that was killed comes back to it."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.SystemRandom().randrange(max(10000, low - 20000), low)
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.append(sock)
        return port
    raise RuntimeError("no free port")


def clean_environment(home, extra=None):
    """This process's environment without what would change how modelcache, curl or a store's client behave."""
    stores = r"AWS_.*|AZURE_.*|GOOGLE_.*|STORAGE_.*|GCE_METADATA_.*|HF_.*|HUGGING_FACE_.*|TRITON_.*"
    dropped = re.compile(rf"(MODELCACHE_.*|.*_proxy|.*_PROXY|CURL_.*|SSL_CERT_.*|NOTIFY_SOCKET|XDG_.*|{stores})$")
    env = {name: value for name, value in os.environ.items() if not dropped.match(name)}
    env.update(HOME=str(home), XDG_CACHE_HOME=str(pathlib.Path(home) / ".cache"), LC_ALL="C.UTF-8")
    env.update({name: str(value) for name, value in (extra or {}).items()})
    return env


def quote_all(text):
    return urllib.parse.quote(text, safe="")


# ---- files ----


class ModelFile:
    """A file of pseudo-random bytes: the same seed and size give the same bytes."""

    def __init__(self, path, size, seed):
        self.path, self.size, self.seed = pathlib.Path(path), size, seed
        self.path.parent.mkdir(parents=True, exist_ok=True)
        source, digest, left = random.Random(seed), hashlib.sha256(), size
        # Written beside it and renamed: an origin never serves a half-written file.
        temporary = self.path.with_name(f".{self.path.name}.new")
        with open(temporary, "wb") as out:
            while left:
                block = source.randbytes(min(left, 4 * MIB))
                digest.update(block)
                out.write(block)
                left -= len(block)
        temporary.rename(self.path)
        self.sha256 = digest.hexdigest()

    def bytes(self):
        return self.path.read_bytes()


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flip_byte(path, offset):
    """Damage one byte in place."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x55]))


def object_files(storage, size=None):
    """The stored objects of a `posix` storage: the files whose name is the SHA-256 of their bytes."""
    found = []
    for path in (pathlib.Path(storage) / "objects").rglob("*"):
        if path.is_file() and not path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", path.name):
            if size is None or path.stat().st_size == size:
                found.append(path)
    return found


# ---- processes ----


class Processes:
    """The processes of one test."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = set()

    def start(self, args, **options):
        """Popen in a group of its own."""
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True} | options
        process = subprocess.Popen([str(arg) for arg in args], **options)
        with self.lock:
            self.running.add(process)
        return process

    def start_server(self, args, **options):
        """The same for a process that must not outlive this one, even if this one is killed."""
        return self.start(["setpriv", "--pdeathsig", "KILL", "--", *args], **options)

    def forget(self, process):
        with self.lock:
            self.running.discard(process)

    def kill(self, process, how=signal.SIGKILL):
        """Signal the whole group; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)

    def close(self):
        with self.lock:
            running, self.running = self.running, set()
        for process in running:
            self.kill(process)
        for process in running:
            process.wait(30)


class FolderWatch:
    """Wakes when an entry of a folder was made, written or renamed to."""

    IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE = 0x8, 0x80, 0x100

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = self.IN_CLOSE_WRITE | self.IN_MOVED_TO | self.IN_CREATE
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def wait(self, ready, process, timeout):
        """Until `ready` returns something, which is returned. None: the process has ended or the time is over."""
        deadline = time.monotonic() + timeout
        pidfd = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
            while not (result := ready()):
                left = deadline - time.monotonic()
                events = dict(poll.poll(left * 1000)) if left > 0 else {}
                if not events or pidfd in events:
                    return None
                os.read(self.fd, 65536)
            return result
        finally:
            os.close(pidfd)

    def close(self):
        os.close(self.fd)


class Nginx:
    """A real nginx that serves `self.files` and logs every request."""

    CONFIG = """
daemon off;
master_process {master};
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  types {{ text/html html; }}
  default_type application/octet-stream;
  log_format asked escape=json '{{"method":"$request_method","uri":"$request_uri","range":"$http_range",'
    '"status":$status,"bytes":$body_bytes_sent,"if_none_match":"$http_if_none_match",'
    '"if_modified_since":"$http_if_modified_since","authorization":"$http_authorization"}}';
  access_log {folder}/access.log asked;
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 60;
  keepalive_requests 100000;
  etag {etag};
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {files};
    limit_rate {rate};
    autoindex on;
    location = /-/status {{ stub_status; access_log off; limit_rate 0; }}
    {extra}
  }}
}}
"""

    def __init__(self, processes, folder, workers=0, rate=0, etag=True, extra=""):
        """`rate`: bytes per second of each response, 0 for no limit. `workers` 0: one process in all."""
        self.processes, self.folder = processes, pathlib.Path(folder)
        self.workers, self.rate, self.etag, self.extra = workers, rate, etag, extra
        self.files = self.folder / "files"
        self.files.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        self.port = free_port()
        self.process = None

    def start(self):
        config = self.folder / "nginx.conf"
        config.write_text(
            self.CONFIG.format(
                folder=self.folder,
                files=self.files,
                port=self.port,
                rate=self.rate,
                etag="on" if self.etag else "off",
                workers=max(self.workers, 1),
                master="on" if self.workers else "off",
                extra=self.extra,
            )
        )
        with open(self.folder / "output.log", "ab") as output:
            args = [NGINX, "-p", self.folder, "-c", config, "-e", self.folder / "error.log"]
            self.process = self.processes.start_server(args, stdout=output, stderr=output)
        wait_until(self.answers, 20, "nginx's first answer")
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"nginx ended: {(self.folder / 'error.log').read_text()[-2000:]}")
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.url("-/status"), timeout=5).ok

    def stop(self):
        """At once: connections are cut."""
        if self.process:
            self.processes.kill(self.process)
            self.process.wait(30)
            self.processes.forget(self.process)
            self.process = None

    def restart(self, **changes):
        """On the same port, with other settings."""
        self.stop()
        for name, value in changes.items():
            setattr(self, name, value)
        return self.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def model(self, path, size, seed=1):
        """Make a file to serve."""
        return ModelFile(self.files / path, size, seed)

    def requests(self, path=None, method=None):
        """What was asked for, in the order in which it ended; requests under way are waited for."""
        if self.process:
            wait_until(self.is_idle, 30, "nginx having answered everything")
        log = self.folder / "access.log"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [
            row
            for row in rows
            if (path is None or row["uri"].split("?")[0] == f"/{path}") and (method is None or row["method"] == method)
        ]

    def is_idle(self):
        # A request is logged before it ceases to be counted as reading or writing; the only one now is this one.
        text = requests.get(self.url("-/status"), timeout=5).text
        return re.search(r"Reading: 0 Writing: 1 ", text)

    def bytes_sent(self, path=None):
        return sum(row["bytes"] for row in self.requests(path, "GET"))

    def ranges(self, path, size):
        """The ranges that were answered in full or in part, sorted, as (first, one past the last)."""
        found = []
        for row in self.requests(path, "GET"):
            if row["status"] == 200 and row["bytes"]:
                found.append((0, size))
            elif row["status"] == 206:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", row["range"]).groups()
                found.append((int(first), min(int(last) + 1, size) if last else size))
        return sorted(found)

    def forget_requests(self):
        """Begin a new log."""
        self.requests()
        os.truncate(self.folder / "access.log", 0)


class Origin:
    """tests/support/origin.py, which serves `self.files` and misbehaves on demand: its docstring lists the modes."""

    def __init__(self, processes, folder, tls=None):
        """`tls`: a file with a certificate and its key."""
        self.processes, self.folder, self.tls = processes, pathlib.Path(folder), tls
        self.files = self.folder / "files"
        self.files.mkdir(parents=True)
        self.process, self.port = None, 0

    def start(self):
        args = [
            sys.executable,
            ORIGIN,
            "--root",
            self.files,
            "--port",
            self.port,
            "--log",
            self.folder / "requests.log",
        ]
        args += ["--tls", self.tls] if self.tls else []
        with open(self.folder / "output.log", "ab") as output:
            self.process = self.processes.start_server(args, stdout=subprocess.PIPE, stderr=output, text=True)
        self.port = int(self.process.stdout.readline())  # the only line that it writes
        return self

    def url(self, path, host="127.0.0.1"):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/{path}"

    def model(self, path, size, seed=1):
        """Make a file to serve."""
        return ModelFile(self.files / path, size, seed)

    def control(self, what, **query):
        answer = requests.get(self.url(f"__{what}"), params=query, timeout=40 * SLOWNESS, verify=self.tls or True)
        answer.raise_for_status()
        return answer.text

    def behave(self, path, *modes, **limits):
        """Add a behaviour of a path, or of "*": for requests of one `method`, `after` some, some `times`. Without modes:
        forget all of that path's."""
        escaped = [":".join([name, *map(quote_all, value)]) for name, *value in (mode.split(":", 1) for mode in modes)]
        self.control("behave", path=path if path == "*" else f"/{path}", mode=",".join(escaped), **limits)

    def hold(self, path, size):
        """When that much of it has been sent in all, nothing more comes until it is released."""
        self.behave(path, f"hold:{size}")

    def release(self, path):
        self.control("release", path=f"/{path}")
        self.behave(path)

    def requests(self, path=None, method=None):
        """What was asked for, in the order in which it ended; requests under way are waited for."""
        rows = [json.loads(line) for line in self.control("log").splitlines()]
        return [
            row for row in rows if path in (None, row["path"].removeprefix("/")) and method in (None, row["method"])
        ]

    def bytes_sent(self, path=None):
        return sum(row["sent"] for row in self.requests(path))


class Modelcached:
    """One modelcached with a storage folder of its own, always on the same ports."""

    START_TIMEOUT = 20

    def __init__(self, processes, folder, args=(), env=None, storage=None):
        self.processes, self.folder = processes, pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.args, self.env = [str(arg) for arg in args], env or {}
        self.storage = pathlib.Path(storage or self.folder / "storage")
        self.log = self.folder / "log"
        self.ports_file = self.folder / "ports"
        self.control, self.data, self.web = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.process = None

    def command(self):
        return [
            MODELCACHED,
            "--control",
            self.control,
            "--data",
            self.data,
            "--web",
            self.web,
            "--storage",
            self.storage,
            "--ports-file",
            self.ports_file,
            *self.args,
        ]

    def start(self):
        self.ports_file.unlink(missing_ok=True)
        watch = FolderWatch(self.folder)
        try:
            with open(self.log, "ab") as log:
                self.process = self.processes.start_server(
                    self.command(), stdout=log, stderr=log, env=clean_environment(self.folder, self.env)
                )
            text = watch.wait(self.read_ports, self.process, self.START_TIMEOUT * SLOWNESS)
        finally:
            watch.close()
        if not text:
            raise AssertionError(f"modelcached did not start ({self.process.poll()}): {self.log_text()[-4000:]}")
        ports = json.loads(text)
        self.control, self.data, self.web = ports["control"], ports["data"], ports["web"]
        return self

    def read_ports(self):
        return self.ports_file.read_text() if self.ports_file.exists() else None

    @property
    def endpoint(self):
        return f"modelcache://{self.control}"

    def stop(self, timeout=30):
        """Politely; returns the exit code."""
        self.process.terminate()
        code = self.process.wait(timeout * SLOWNESS)
        self.ended()
        return code

    def kill9(self):
        self.processes.kill(self.process)
        self.process.wait(30)
        self.ended()

    def ended(self):
        self.processes.forget(self.process)
        self.process = None

    def restart(self):
        if self.process:
            self.stop()
        return self.start()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def memory(self, field="VmRSS"):
        """Bytes of memory: VmRSS now, VmHWM at most so far."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M).group(1)) * KIB

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def page(self, path):
        return requests.get(f"http://{self.web}{path}", timeout=10 * SLOWNESS)

    def metrics(self):
        """Every sample of /metrics; those with labels under the name with its braces."""
        answer = self.page("/metrics")
        answer.raise_for_status()
        samples = {}
        for line in answer.text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name):
        return self.metrics()[f"modelcache_{name}"]


class CommandResult:
    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    @property
    def json(self):
        """The one document."""
        return json.loads(self.out)

    @property
    def json_lines(self):
        """The documents on each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def __repr__(self):
        return f"{' '.join(map(str, self.args))}\nexit code {self.code}\n{self.out[-2000:]}\n{self.err[-2000:]}"


class Command:
    """The modelcache command with a home folder, hence a storage, of its own."""

    def __init__(self, processes, folder, env=None):
        self.processes, self.folder, self.env = processes, pathlib.Path(folder), env or {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = self.folder / ".cache" / "modelcache"

    def start(self, *args, env=None, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return self.processes.start(
            [MODELCACHE, *args], env=clean_environment(self.folder, self.env | (env or {})), **options
        )

    def finish(self, process, timeout=60):
        try:
            out, err = process.communicate(timeout=timeout * SLOWNESS)
        except subprocess.TimeoutExpired as expired:
            self.processes.kill(process)
            out, err = process.communicate()
            raise AssertionError(f"{process.args} took more than {timeout * SLOWNESS} s: {err}") from expired
        finally:
            self.processes.forget(process)
        return CommandResult(process.args, process.returncode, out, err)

    def __call__(self, *args, timeout=60, env=None, code=OK):
        """Run it to its end, which must be `code` (None: any)."""
        result = self.finish(self.start(*args, env=env), timeout)
        assert code is None or result.code == code, f"expected exit code {code}: {result!r}"
        return result

    def kill9(self, process):
        self.processes.kill(process)
        process.communicate()
        self.processes.forget(process)
