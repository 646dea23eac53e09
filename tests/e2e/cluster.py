"""A cluster on one machine: a real Redis, pods (modelcached) over one storage folder, and clients by the hundred.

Each pod reaches Redis through a proxy of its own, which can be cut: that is a partition of this pod from Redis. A
client may have an endpoint of the cluster, which leads to any pod, as a Kubernetes service does.
"""

import contextlib
import itertools
import json
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading

from harness import BUILD, ROOT, SLOWNESS, Modelcached, free_port, wait_until

sys.path.insert(0, str(ROOT / "tests" / "support"))

from tcp_proxy import Proxy  # noqa: E402

REDIS_SERVER = shutil.which("redis-server") or "/usr/bin/redis-server"
RWXFS = BUILD / "tests" / "rwx" / "rwxfs"
GETTER = BUILD / "tests" / "support" / "getter"
LEASE_MS = 2000 * SLOWNESS  # of the pods' claims


# ---- Redis ----


class RedisConnection:
    """As much of its protocol as the tests need: calls with their answers, and what comes unasked."""

    def __init__(self, address, password=None, user=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(20 * SLOWNESS)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")
        if password:
            self("AUTH", *([user] if user else []), password)

    def __call__(self, *words):
        self.send(*words)
        return self.receive()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(b"*%d\r\n%s" % (len(words), parts))

    def receive(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise RuntimeError(f"Redis: {rest}")
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode(errors="replace")
        return [self.receive() for _ in range(int(rest))] if rest != "-1" else None

    def close(self):
        # makefile() holds the descriptor; shut down, so that a thread in receive() ends.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.socket.close()


class Redis:
    """A redis-server on one port that writes nothing down unless it is told to."""

    def __init__(self, processes, folder, password=None, unix=False, replica_of=None):
        """`unix`: it listens on a socket file, `self.unix`, as well."""
        self.processes, self.folder = processes, pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.port, self.password, self.replica_of = free_port(), password, replica_of
        self.unix = str(self.folder / "socket") if unix else None
        self.process = None

    def start(self):
        args = [REDIS_SERVER, "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no"]
        args += ["--dir", self.folder, "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes"]
        args += ["--requirepass", self.password, "--masterauth", self.password] if self.password else []
        args += ["--unixsocket", self.unix] if self.unix else []
        args += ["--replicaof", "127.0.0.1", self.replica_of.port] if self.replica_of else []
        with open(self.folder / "log", "ab") as log:
            self.process = self.processes.start_server(args, stdout=log, stderr=log)
        wait_until(self.answers, 20, "Redis's first answer")
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(OSError, RuntimeError):
            return self("PING") == "PONG"

    def connect(self):
        return RedisConnection(("127.0.0.1", self.port), self.password)

    def __call__(self, *words):
        connection = self.connect()
        try:
            return connection(*words)
        finally:
            connection.close()

    def url(self, port=None, path="/0"):
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{port or self.port}{path}"

    def unix_url(self):
        secret = f":{self.password}@" if self.password else ""
        return f"redis+unix://{secret}{self.unix}"

    def pause(self):
        """It keeps its connections and answers nothing."""
        self.processes.kill(self.process, signal.SIGSTOP)

    def resume(self):
        self.processes.kill(self.process, signal.SIGCONT)

    def save(self):
        """What start_again(empty=False) brings back."""
        self("SAVE")

    def kill(self):
        self.processes.kill(self.process)
        self.process.wait(30)
        self.processes.forget(self.process)
        self.process = None

    def start_again(self, empty=True):
        """On the same port, with nothing, or with what it last saved."""
        if self.process:
            self.kill()
        if empty:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        return self.start()

    def monitor(self):
        return Monitor(self)


class Monitor:
    """What clients ask of a Redis: rows of (seconds, port of the client or "lua", [word…])."""

    ROW = re.compile(r"(\d+\.\d+) \[\d+ (?:[^\]]*:)?([^\]:]+)\] (.*)")

    def __init__(self, redis):
        self.connection, self.rows = redis.connect(), []
        self.connection.socket.settimeout(None)
        self.connection("MONITOR")
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError, ValueError):
            while True:
                seconds, port, words = self.ROW.fullmatch(self.connection.receive()).groups()
                self.rows.append((float(seconds), int(port) if port.isdigit() else port, split_words(words)))

    def commands(self, ports=None, since=0):
        """Those of the clients with these ports (None: of all), not what scripts do within."""
        return [row[2] for row in self.rows[since:] if row[1] != "lua" and (ports is None or row[1] in ports)]

    def close(self):
        self.connection.close()
        self.thread.join(10)


def split_words(text):
    """The words of a line, each in double quotes, with \\ before what is odd."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


class Sentinel:
    """A Sentinel that watches one master under the name "models", quick to fail over."""

    NAME = "models"

    def __init__(self, processes, folder, master):
        self.processes, self.folder, self.master = processes, pathlib.Path(folder), master
        self.folder.mkdir(parents=True)
        self.port, self.process = free_port(), None

    def start(self):
        config = self.folder / "sentinel.conf"
        name, password = self.NAME, self.master.password
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {name} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {name} {1000 * SLOWNESS}\n"
            f"sentinel failover-timeout {name} {3000 * SLOWNESS}\n"
            + (f"sentinel auth-pass {name} {password}\n" if password else "")
        )
        with open(self.folder / "log", "ab") as log:
            self.process = self.processes.start_server([REDIS_SERVER, config, "--sentinel"], stdout=log, stderr=log)
        wait_until(lambda: self.master_port() == self.master.port, 20, "the Sentinel knowing its master")
        wait_until(lambda: self.replicas() >= 1, 30, "the Sentinel knowing the replica")
        return self

    def __call__(self, *words):
        connection = RedisConnection(("127.0.0.1", self.port))
        try:
            return connection(*words)
        finally:
            connection.close()

    def master_port(self):
        with contextlib.suppress(OSError, RuntimeError):
            answer = self("SENTINEL", "get-master-addr-by-name", self.NAME)
            return int(answer[1]) if answer else None

    def replicas(self):
        """How many it could fail over to."""
        found = [dict(zip(row[::2], row[1::2], strict=True)) for row in self("SENTINEL", "replicas", self.NAME)]
        return sum(row["flags"] == "slave" and row["master-link-status"] == "ok" for row in found)

    def url(self):
        secret = f":{self.master.password}@" if self.master.password else ""
        return f"redis+sentinel://{secret}127.0.0.1:{self.port}/{self.NAME}"


# ---- pods ----


class Pod(Modelcached):
    """A modelcached of a cluster."""

    proxy = None  # between it and Redis; None: it asks Redis directly

    def pause(self):
        self.processes.kill(self.process, signal.SIGSTOP)

    def resume(self):
        self.processes.kill(self.process, signal.SIGCONT)

    def partition(self):
        """From Redis, as if every packet were lost."""
        self.proxy.cut()

    def mend(self):
        self.proxy.mend()

    @property
    def control_port(self):
        return int(self.control.rsplit(":", 1)[1])


class Cluster:
    """Pods over one storage folder and one Redis."""

    def __init__(
        self, processes, folder, redis, count=3, args=(), env=None, url=None, storages=None, lease_ms=LEASE_MS
    ):
        """`url`: of the coordination, when pods are not to go through proxies to `redis`. `storages`: where each pod
        finds the one folder, when it is mounted more than once."""
        self.folder, self.redis = pathlib.Path(folder), redis
        self.storage = self.folder / "storage"
        self.storage.mkdir(parents=True)
        self.pods = []
        for number in range(count):
            proxy = Proxy([redis.port]).start() if not url else None
            where = url or redis.url(proxy.port)
            flags = ["--coordination", where, "--lease", f"{lease_ms}ms", *args]
            storage = storages[number] if storages else self.storage
            pod = Pod(processes, self.folder / f"pod{number}", flags, env, storage)
            pod.proxy, pod.number = proxy, number
            self.pods.append(pod)
        self.service = Proxy([pod.control_port for pod in self.pods]).start()

    def start(self):
        for pod in self.pods:
            pod.start()
        return self

    def close(self):
        for pod in self.pods:
            if pod.process:
                pod.kill9()
        for proxy in [self.service, *(pod.proxy for pod in self.pods if pod.proxy)]:
            proxy.stop()

    def __getitem__(self, number):
        return self.pods[number]

    def __iter__(self):
        return iter(self.pods)

    @property
    def endpoint(self):
        """Of any pod."""
        return f"modelcache://127.0.0.1:{self.service.port}"

    def total(self, name):
        """A metric, over the pods that run."""
        return sum(pod.metric(name) for pod in self.pods if pod.is_alive())

    def downloader(self, timeout=20):
        """The pod that downloads something."""

        def find():
            found = [pod for pod in self.pods if pod.metric("download_bytes_total") > 0]
            return found[0] if found else None

        return wait_until(find, timeout, "a pod's download")

    def others(self, pod):
        return [other for other in self.pods if other is not pod]


# ---- volumes ----


class Mount:
    """A folder as one machine sees it on a network volume: tests/rwx/rwxfs.c."""

    def __init__(self, processes, backing, path, *options):
        self.processes, self.path = processes, pathlib.Path(path)
        self.path.mkdir(parents=True)
        self.process = processes.start_server([RWXFS, backing, path, *options], stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"rwxfs has not mounted {path}")

    def close(self):
        self.processes.kill(self.process)
        self.process.wait(30)
        self.processes.forget(self.process)
        subprocess.run(["umount", "-l", self.path], check=True)


# ---- clients ----


class Get:
    """A get under way."""

    def __init__(self):
        self.ended, self.progressed, self.result, self.progress = threading.Event(), threading.Event(), None, None

    def wait(self, timeout=60):
        """The result: see tests/support/getter.c."""
        if not self.ended.wait(timeout * SLOWNESS):
            raise AssertionError(
                f"a get has not ended within {timeout * SLOWNESS} s; its last progress: {self.progress}"
            )
        return self.result

    def has(self, size):
        """Whether so many bytes of it have come."""
        return self.progress is not None and self.progress["bytes"] >= size


class Getter:
    """Many clients in one process: tests/support/getter.c."""

    def __init__(self, processes, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        with open(self.log, "ab") as log:
            self.process = processes.start(
                [GETTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.lock, self.gets = threading.Lock(), {}
        self.ids, self.clients = itertools.count(1), itertools.count()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            row = json.loads(line)
            if "id" not in row:
                raise AssertionError(f"getter: {row}")
            get = self.gets[row["id"]]
            if "status" in row:
                get.result = row
                get.ended.set()
                del self.gets[row["id"]]
            else:
                get.progress = row
                get.progressed.set()
        for get in list(self.gets.values()):
            get.result = {"status": "the getter has ended"}
            get.ended.set()

    def order(self, *words):
        with self.lock:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()

    def client(self, server, **options):
        """Of a pod or a cluster; keeps nothing, and does not go to the origin."""
        with self.lock:
            number = next(self.clients)
        self.order("open", number, server.endpoint, *(f"{name}={value}" for name, value in options.items()))
        return number

    def get(self, client, url, most, how="p", timeout=60):
        get = Get()
        with self.lock:
            id_ = next(self.ids)
            self.gets[id_] = get
        self.order("get", id_, client, how, round(timeout * SLOWNESS * 1000), most, url)
        return get

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(60 * SLOWNESS)
        finally:
            self.thread.join(10)
