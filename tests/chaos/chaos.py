"""The chaos run: see ./run and checker.py. A seed gives the same decisions; when they take effect is the machine's."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import cluster as clusters  # noqa: E402
from checker import Checker, Get  # noqa: E402
from harness import (  # noqa: E402
    CHUNK,
    KIB,
    MIB,
    MISSING,
    OK,
    SLOWNESS,
    UNAVAILABLE,
    Command,
    Nginx,
    Processes,
    sha256,
)

LEASE = 2.0 * SLOWNESS  # seconds
TIMEOUT = 20  # of a get, in seconds
GRACE = 30 * SLOWNESS  # on top, for slow machines
LARGEST = 24 * MIB
SIZES = [100, 64 * KIB, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77, LARGEST]
PATHS = [f"models/{number}.bin" for number in range(8)]
PODS_ARGS = [
    *("--revalidate-after", "500ms", "--negative-ttl", "200ms", "--memory-capacity", "64MiB", "--parallelism", 4),
    *("--drain", "1s"),
]
EPOCH = 1_600_000_000


class ChaosNginx(Nginx):
    """It writes down which version it sent."""

    CONFIG = Nginx.CONFIG.replace('"status":$status', '"status":$status,"etag":"$sent_http_etag"')


class Publisher(threading.Thread):
    """Publishes versions of the paths, one a time."""

    def __init__(self, world, dice):
        super().__init__(daemon=True)
        self.world, self.dice = world, dice
        self.kept = {path: [] for path in PATHS}  # (publication, bytes' seed and number) of what can be put back

    def run(self):
        for path in PATHS:
            self.publish_new(path)
        self.world.ready.set()
        while not self.world.quiet.wait(self.dice.expovariate(1.0)):
            path, what = self.dice.choice(PATHS), self.dice.random()
            if what < 0.1:
                self.delete(path)
            elif what < 0.25 and len(self.kept[path]) > 1:
                self.put(path, *self.dice.choice(self.kept[path][:-1]))
            else:
                self.publish_new(path)
        for path in PATHS:  # in the end all are there
            if self.world.checker.publications[path][-1].digest is None:
                self.publish_new(path)

    def publish_new(self, path):
        number, size = len(self.kept[path]) + 1, self.dice.choice(SIZES)
        age = number if self.dice.random() < 0.8 else -number  # an older Last-Modified is a new version, too
        self.put(path, number, size, age)
        self.kept[path].append((number, size, age))

    def put(self, path, number, size, age):
        head = f"{path} {number:08d}\n".encode()
        content = head + random.Random(f"{path}{number}").randbytes(size - len(head))
        file = self.world.nginx.files / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = self.world.folder / "new"
        new.write_bytes(content)
        modified = EPOCH + 3600 * age
        os.utime(new, (modified, modified))
        etag = f'"{modified:x}-{size:x}"'
        publication = self.world.checker.publish(path, hashlib.sha256(content).hexdigest(), size, etag)
        new.rename(file)
        self.world.checker.published(publication)

    def delete(self, path):
        publication = self.world.checker.publish(path, None)
        (self.world.nginx.files / path).unlink(missing_ok=True)
        self.world.checker.published(publication)


class AllPods:
    """The pods as a client can name them: it asks one, and the next when that is down."""

    def __init__(self, pods):
        self.endpoint = "modelcache://" + ",".join(pod.control for pod in pods)


class Client(threading.Thread):
    """Gets one path after the other: `self.get(path)` returns (status, digest, real digest, message)."""

    def __init__(self, world, name, server, dice):
        super().__init__(daemon=True)
        self.world, self.server, self.dice = world, server, dice
        self.name = name
        self.server_name = f"pod{server.number}" if hasattr(server, "number") else "service"

    def run(self):
        try:
            while not self.world.over.is_set():
                self.get_one(self.dice.choice(PATHS))
                self.world.over.wait(self.dice.uniform(0, 0.1))
        except Exception as error:  # the run has to know
            self.world.checker.broken(f"{self.name}: {type(error).__name__}: {error}")
            raise

    def get_one(self, path):
        began = time.monotonic()
        get = Get(self.name, self.server_name, path, began, 0, "")
        try:
            get.status, get.digest, get.real, get.message = self.get(self.world.nginx.url(path))
        except AssertionError as error:
            get.ended, get.message = time.monotonic(), str(error)
            self.world.checker.hung(get)
            raise
        get.ended = time.monotonic()
        self.world.checker.got(get)
        return get


class LongClient(Client):
    """In a process with others, for the whole run."""

    def __init__(self, world, name, server, dice, getter):
        super().__init__(world, name, server, dice)
        self.getter = getter
        self.client = getter.client(server, stall_timeout="3s", connect_timeout="1s", revalidate_after="500ms")

    def get(self, url):
        row = self.getter.get(self.client, url, LARGEST, timeout=TIMEOUT / SLOWNESS).wait((TIMEOUT + GRACE) / SLOWNESS)
        return row["status"], row.get("digest", ""), row.get("sha256", ""), row.get("message", "")


class CommandClient(Client):
    """A command for each get, with a cache that they share."""

    CODES = {OK: "ok", MISSING: "not_found", UNAVAILABLE: "unavailable"}

    def __init__(self, world, name, server, dice):
        super().__init__(world, name, server, dice)
        env = {
            "MODELCACHE_ENDPOINT": server.endpoint,
            "MODELCACHE_FALLBACK": "no",
            "MODELCACHE_REVALIDATE_AFTER": "500ms",
        }
        env |= {"MODELCACHE_STALL_TIMEOUT": "3s", "MODELCACHE_CONNECT_TIMEOUT": "1s"}
        self.command = Command(world.processes, world.folder / name, env)

    def get(self, url):
        out = self.command.folder / "out"
        result = self.command(
            "get", url, "-o", out, "--timeout", f"{TIMEOUT}s", timeout=(TIMEOUT + GRACE) / SLOWNESS, code=None
        )
        status = self.CODES.get(result.code, f"exit code {result.code}")
        if status != "ok":
            return status, "", "", result.err.strip().replace("\n", " ")[-300:]
        digest = sha256(out)
        out.unlink()
        return status, digest, digest, ""


class Nemesis(threading.Thread):
    """Does one bad thing after the other. Several of them at once leave each other's targets alone."""

    busy, lock = set(), threading.Lock()

    def __init__(self, world, dice):
        super().__init__(daemon=True)
        self.world, self.dice = world, dice
        self.done = threading.Event()

    def run(self):
        try:
            self.harm()
        finally:
            self.done.set()
        # What it has started ends with its thread, as what a process starts ends with the process.
        self.world.closed.wait()

    def harm(self):
        pods, redis = self.world.cluster.pods, self.world.redis
        kinds = [
            *[(self.kill_pod, pod) for pod in pods],
            *[(self.stop_pod, pod) for pod in pods],
            *[(self.sleep_pod, pod) for pod in pods],
            *[(self.partition, pod) for pod in pods],
            (self.pause_redis, redis),
            (self.restart_redis, redis),
            (self.set_back_redis, redis),
            (self.flush_redis, redis),
        ]
        try:
            while not self.world.quiet.wait(self.dice.expovariate(1 / 2.5)):
                what, target = self.dice.choice(kinds)
                with self.lock:
                    if target in self.busy:
                        continue
                    self.busy.add(target)
                try:
                    what(target)
                finally:
                    with self.lock:
                        self.busy.discard(target)
        except Exception as error:
            self.world.checker.broken(f"the chaos itself failed: {type(error).__name__}: {error}")
            raise

    @contextlib.contextmanager
    def event(self, kind, target, **facts):
        name = f"pod{target.number}" if hasattr(target, "number") else "Redis"
        event = self.world.checker.event(kind, name, **facts)
        print(f"{event.began - self.world.start:9.3f} {kind} {name}", file=self.world.log, flush=True)
        yield
        event.ended = time.monotonic()
        print(f"{event.ended - self.world.start:9.3f} end of {kind} {name}", file=self.world.log, flush=True)

    def last(self, least, most):
        self.world.quiet.wait(self.dice.uniform(least, most) * SLOWNESS)

    def kill_pod(self, pod):
        with self.event("kill", pod, forces=1):
            pod.killed = True
            pod.kill9()
            self.last(0, 4)
            pod.start()
            pod.killed = False

    def stop_pod(self, pod):
        with self.event("stop", pod, forces=1):
            pod.killed = True
            pod.stop()
            self.last(0, 2)
            pod.start()
            pod.killed = False

    def sleep_pod(self, pod):
        seconds = self.dice.choice([(0.1, 0.8), (1.5, 3)])
        with self.event("sleep", pod, forces=1):
            pod.pause()
            self.last(*(LEASE / SLOWNESS * share for share in seconds))
            pod.resume()

    def partition(self, pod):
        with self.event("partition", pod, forces=1, divides=True):
            pod.partition()
            self.last(0.5, 8)
            pod.mend()

    def redis_event(self, kind):
        return self.event(kind, self.world.redis, forces=len(self.world.cluster.pods), divides=True)

    def pause_redis(self, redis):
        with self.redis_event("pause"):
            redis.pause()
            self.last(0.5, 6)
            redis.resume()

    def restart_redis(self, redis):
        with self.redis_event("restart, empty,"):
            redis.kill()
            self.last(0, 3)
            redis.start_again()

    def set_back_redis(self, redis):
        with self.redis_event("restart, with what was some time ago,"):
            redis.save()
            self.last(1, 4)
            redis.kill()
            self.last(0, 2)
            redis.start_again(empty=False)

    def flush_redis(self, redis):
        with self.redis_event("flush"):
            redis("FLUSHALL")


class World:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.processes, self.checker = Processes(), Checker(GRACE, options.strict)
        self.ready, self.quiet, self.over, self.closed = (threading.Event() for _ in range(4))
        self.start, self.log = time.monotonic(), open(folder / "events.log", "w")

    def dice(self, name):
        return random.Random(f"{self.options.seed} {name}")

    def run(self):
        self.nginx = ChaosNginx(self.processes, self.folder / "nginx", rate=6 * MIB).start()
        self.redis = clusters.Redis(self.processes, self.folder / "redis").start()
        self.cluster = clusters.Cluster(
            self.processes, self.folder, self.redis, self.options.pods, PODS_ARGS, lease_ms=round(LEASE * 1000)
        ).start()
        publisher = Publisher(self, self.dice("publisher"))
        publisher.start()
        self.ready.wait(60)
        self.getters = [clusters.Getter(self.processes, self.folder / f"getter{number}") for number in range(2)]
        clients = self.clients()
        chaos = [Nemesis(self, self.dice(f"nemesis {number}")) for number in range(2)]
        for thread in [*clients, *chaos]:
            thread.start()
        self.watch(self.start + 60 * self.options.minutes, clients)
        self.quiet.set()
        publisher.join(120 * SLOWNESS)
        for thread in chaos:
            if not thread.done.wait(120 * SLOWNESS):
                self.checker.broken("the chaos itself hangs")
        if not self.checker.violations:
            self.converge()
        self.over.set()
        for client in clients:
            client.join(TIMEOUT + GRACE)
        self.sent, self.once = self.count_downloads()

    def clients(self):
        made = []
        for number in range(2):
            for server in [*self.cluster.pods, self.cluster, AllPods(self.cluster.pods)]:
                name = f"client{len(made)}"
                made.append(LongClient(self, name, server, self.dice(name), self.getters[number]))
        for server in (self.cluster, self.cluster.pods[0]):
            name = f"command{len(made)}"
            made.append(CommandClient(self, name, server, self.dice(name)))
        return made

    def watch(self, until, clients):
        """Until the time is over, or a rule is broken."""
        for pod in self.cluster:
            pod.killed = False
        while time.monotonic() < until and not self.checker.violations:
            self.quiet.wait(0.2)
            for pod in self.cluster:
                process = pod.process
                if process and not pod.killed and process.poll() is not None and not pod.killed:
                    self.checker.broken(
                        f"pod{pod.number} ended by itself with {process.returncode}: {pod.log_text()[-3000:]}"
                    )
            for getter in self.getters:
                if getter.process.poll() is not None:
                    self.checker.broken(f"a client's process ended with {getter.process.returncode}: {getter.log}")

    def converge(self):
        """All is well again: every pod gives what the origin has, and the coordination knows what the records say."""
        deadline = time.monotonic() + 60 * SLOWNESS
        for pod in self.cluster:
            client = LongClient(self, f"last{pod.number}", pod, None, self.getters[0])
            for path in PATHS:
                newest = self.checker.publications[path][-1].digest
                while (get := client.get_one(path)).digest != newest:
                    if time.monotonic() > deadline:
                        self.checker.violations.append(
                            ("it is not what the origin has, long after the last event", get)
                        )
                        return
                    time.sleep(0.1)
        command = Command(self.processes, self.folder / "repair", {"MODELCACHE_ENDPOINT": self.cluster[0].endpoint})
        while True:
            result = command("repair", "--dry-run", "--json", code=None)
            if result.code == OK and (result.json["missing"], result.json["older"]) == (0, 0):
                return
            if time.monotonic() > deadline:
                self.checker.broken(f"repair, long after the last event: {result!r}")
                return
            time.sleep(0.1)

    def count_downloads(self):
        rows = [
            {"path": row["uri"].lstrip("/"), "etag": row["etag"], "bytes": row["bytes"]}
            for row in self.nginx.requests(method="GET")
            if row["status"] in (200, 206)
        ]
        return self.checker.downloads(rows)

    def close(self):
        self.quiet.set()
        self.over.set()
        self.processes.close()
        self.closed.set()
        if hasattr(self, "cluster"):
            self.cluster.close()
        self.log.close()

    def report(self):
        checker, counts = self.checker, {}
        for what, get in checker.violations[:10]:
            print(f"\nVIOLATION {what}")
            if get:
                print(
                    f"{get.client} at {get.server} of {get.path}, {get.began - self.start:.3f} to "
                    f"{get.ended - self.start:.3f}: {get.status} {get.digest} {get.message}"
                )
                print("\n".join(checker.history(get, self.start)))
        for get in checker.gets:
            counts[get.status] = counts.get(get.status, 0) + 1
        kinds = {}
        for event in checker.events:
            kinds[event.kind.split(",")[0]] = kinds.get(event.kind.split(",")[0], 0) + 1
        publications = sum(len(known) for known in checker.publications.values())
        print(f"\ngets: {json.dumps(counts)}; events: {json.dumps(kinds)}")
        print(
            f"{len(checker.gets)} gets of {publications} publications through {len(checker.events)} events; "
            f"the origin sent {getattr(self, 'sent', 0) / max(getattr(self, 'once', 0), 1):.2f} of what was fetched; "
            f"{checker.excused} steps back excused; {len(checker.violations)} violations; seed {self.options.seed}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--pods", type=int, default=3)
    parser.add_argument("--strict", action="store_true", help="excuse no step back")
    parser.add_argument("--keep", metavar="FOLDER", help="leave logs and storage there")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    folder = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="modelcache-chaos-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    world = World(options, folder)
    try:
        world.run()
    finally:
        world.close()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    world.report()
    # A run in which next to nothing was got shows nothing.
    useful = sum(get.status == "ok" for get in world.checker.gets)
    if useful * 2 < len(world.checker.gets):
        print("FAILED: most gets failed")
        return 1
    return 1 if world.checker.violations else 0


if __name__ == "__main__":
    sys.exit(main())
