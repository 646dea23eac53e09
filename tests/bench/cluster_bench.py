"""A cluster: pods over one folder and one Redis, all of them on this machine, whose cores they share with the origin, and
with the clients.

The clients of a herd are threads of one program, swarm.c, which says what each of them does; nginx's are threads of the
same program.
"""

import http.server
import json
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

from cluster import Redis
from harness import Modelcached, Nginx, wait_until
from measure import (
    GIB,
    MIB,
    Program,
    Servers,
    Worker,
    children,
    cpu_seconds,
    interleave,
    make_file,
    output_of,
    ratios,
    read_again,
)

CLIENTS = 300
WAITERS = 50


class Pods:
    """So many pods over one folder and one Redis."""

    def __init__(self, bench, count, *args):
        bench.numbers += 1
        self.folder = bench.folder / f"pods{bench.numbers}"
        self.redis = Redis(bench.processes, self.folder / "redis").start()
        self.bench, self.args = bench, args
        self.servers = [self.server(number, *args).start() for number in range(count)]

    def server(self, number, *args):
        args = ("--coordination", self.redis.url(), *args)
        return Modelcached(self.bench.processes, self.folder / f"pod{number}", args, storage=self.folder / "storage")

    def cpu(self):
        return Servers(*(server.process.pid for server in self.servers), self.redis.process.pid)

    def evict(self, url):
        if any(server.metric("downloads_total") for server in self.servers):
            self.bench.client(self.servers[0])("evict", url, code=None)

    def stop(self):
        for server in self.servers:
            if server.process:
                server.stop()
        self.redis.kill()
        shutil.rmtree(self.folder)


# ---- a herd at several pods ----


class CachingNginx(Nginx):
    """In front of an origin, with everything that lets many callers of a new file cost one download of it."""

    CONFIG = Nginx.CONFIG.replace(
        "  etag ", "  proxy_cache_path {folder}/cache keys_zone=models:10m inactive=1d;\n  etag "
    )
    LOCATION = """
    location / {{
      proxy_pass http://127.0.0.1:{port};
      proxy_http_version 1.1;
      proxy_cache models;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
      proxy_cache_lock_age 1h;
      proxy_buffers 16 256k;
      proxy_buffer_size 64k;
      proxy_busy_buffers_size 512k;
    }}"""

    def __init__(self, bench, origin):
        bench.numbers += 1
        extra = self.LOCATION.format(port=origin.port)
        super().__init__(bench.processes, bench.folder / f"nginx{bench.numbers}", 2, extra=extra)

    def seconds(self):
        """CPU time of the workers that run now."""
        return sum(cpu_seconds(pid) for pid in children(self.process.pid))

    def empty(self):
        self.stop()
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self.start()


def herd(bench):
    slow = 4 * MIB
    for rate, what in ((0, "an unlimited origin"), (slow, f"an origin of {slow // MIB} MiB/s")):
        # What leaves the slow one is CLIENTS times as much at the other end: these cores move that, and little more.
        size = 32 * MIB if rate else 64 * MIB if bench.options.quick else GIB
        herd_from(bench, rate, what, size)


def herd_from(bench, rate, what, size):
    origin, model = bench.origin(rate, size)
    pods, proxy = Pods(bench, 3, "--parallelism", 4), CachingNginx(bench, origin).start()
    url, out = origin.url("model.bin"), bench.folder / "out"
    swarm = [bench.programs / "swarm", model, CLIENTS]
    ours = {
        f"{CLIENTS} clients, {count_of(count, 'pod')}": Worker(
            [*swarm, "cluster", url, *(server.control for server in pods.servers[:count])], pods.cpu()
        )
        for count in (1, 2, 3)
    }
    theirs = {f"{CLIENTS} clients, nginx proxy_cache": Worker([*swarm, "http", proxy.url("model.bin")], proxy)}
    ingress = {name: [] for name in ours | theirs}

    def before():
        pods.evict(url)
        proxy.empty()
        out.unlink(missing_ok=True)
        origin.forget_requests()
        read_again(model)

    def counted(name, worker):
        def run():
            sample = worker()
            ingress[name].append(origin.bytes_sent("model.bin") / size)
            return sample

        return run

    aria2 = ["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-d", bench.folder, "-o", "out", url]
    direct = {"curl": Program(["curl", "-sf", "-o", out, url]), "aria2c, 4 connections": Program(aria2)}
    many = {name: counted(name, worker) for name, worker in (ours | theirs).items()}
    samples = interleave(bench.rounds, many | direct, before)
    for worker in (ours | theirs).values():
        worker.close()
    best = min(direct, key=lambda name: statistics.median(sample.seconds for sample in samples[name]))
    add_herd(bench, what, size, samples, ingress, (list(ours), *theirs, best))
    pods.stop()
    proxy.stop()
    shutil.rmtree(proxy.folder)
    origin.stop()
    model.unlink()


def add_herd(bench, what, size, samples, ingress, names):
    ours, theirs, best = names
    note = f"{CLIENTS} × {size // MIB} MiB, all on this machine"
    bench.table.add_speeds(f"cluster, {what}", CLIENTS * size, {name: samples[name] for name in (*ours, theirs)})
    for name in ours:
        bench.table.add("cluster", f"bytes out of the origin ÷ size, {name}, {what}", ingress[name], 1.0, False)
        if max(ingress[name]) != 1 or min(ingress[name]) != 1:
            print(f"  the bytes out of the origin are not those of one download: {ingress[name]}", file=sys.stderr)
    bench.table.add("cluster", f"bytes out of the origin ÷ size, {theirs}, {what}", ingress[theirs])
    for name in ours:
        over = ratios(samples[name], samples[best])
        # As in the other herd: without a limit it's the cores that are measured.
        target = () if "unlimited" in what else (1.25, False)
        bench.table.add("cluster", f"last of {name} ÷ a lone {best}, {what}", over, *target, note=note)
    bench.table.add("cluster", f"last of {theirs} ÷ a lone {best}, {what}", ratios(samples[theirs], samples[best]))
    for name in ours:
        over = ratios(samples[name], samples[theirs])
        note = "ours compare every chunk with its hash, nginx's throw the bytes away"
        bench.table.add("cluster", f"last of {name} ÷ of {theirs}, {what}", over, 1.0, False, note=note)


def count_of(count, what):
    return f"{count} {what}{'s' if count > 1 else ''}"


# ---- a pod that lacks the object in memory, and one that has it ----


def redirect(bench):
    nginx = bench.nginx()
    pods = Pods(bench, 0)
    # The second has no memory tier: it lacks every object for good.
    has = pods.server(0, "--memory-capacity", GIB).start()
    lacks = pods.server(1).start()
    pods.servers = [has, lacks]
    for size, times in ((MIB, 200), (256 * MIB, 4)):
        redirect_of(bench, nginx, pods, size, times)
    pods.stop()
    nginx.stop()


def redirect_of(bench, nginx, pods, size, times):
    has, lacks = pods.servers
    path = f"{size // MIB}.bin"
    make_file(nginx.files / path, size)
    url, held = nginx.url(path), int(has.metric("memory_bytes"))
    wait_until(lambda: in_memory(bench, has, url, held + size), 60, "the object's being in memory")
    gets = {
        name: Worker(
            [bench.programs / "get_bench", server.endpoint, url, 1, "buffer", size], Servers(server.process.pid)
        )
        for name, server in (("has", has), ("lacks", lacks))
    }
    # The last of a holder's news is that it has it: a ticket of the other pod names it.
    wait_until(lambda: from_holder(has, lacks, gets["lacks"], size), 60, "the other pod's tickets' naming the holder")

    def many(worker):
        return lambda: sum(worker().seconds for _ in range(times))

    before = has.metric("served_bytes_total"), lacks.metric("served_bytes_total")
    samples = interleave(bench.rounds, {name: many(worker) for name, worker in gets.items()})
    sent = has.metric("served_bytes_total") - before[0], lacks.metric("served_bytes_total") - before[1]
    for worker in gets.values():
        worker.close()
    name = f"hot get of {size // MIB} MiB at a pod that lacks it in memory ÷ at the one that has it"
    note = f"{sent[0] / (sum(sent) or 1):.0%} of the bytes came from the one that has it"
    bench.table.add("redirect", name, ratios(samples["lacks"], samples["has"]), 1.05, False, note=note)


def in_memory(bench, server, url, least):
    bench.client(server)("get", url, "-o", bench.folder / "warm", "--no-store", timeout=600)
    return server.metric("memory_bytes") >= least


def from_holder(has, lacks, get, size):
    before = has.metric("served_bytes_total")
    get()
    return has.metric("served_bytes_total") - before >= size


# ---- how soon those who wait at another pod are told ----


class GatedOrigin:
    """One whose files lack their last byte until the gate opens."""

    SIZE = 64 << 10

    def __init__(self):
        self.gate, self.sent_at = threading.Event(), 0
        self.content = bytes(range(256)) * (self.SIZE // 256)
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.head()

            def do_GET(self):
                content = self.head()
                self.wfile.write(content[:-1])
                origin.gate.wait()
                self.wfile.write(content[-1:])
                origin.sent_at = time.monotonic()

            def head(self):
                # Each name has a content of its own.
                content = self.path.encode().ljust(256) + origin.content[256:]
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                part = content[int(asked[1]) : int(asked[2] or origin.SIZE) + 1] if asked else content
                self.send_response(206 if asked else 200)
                if asked:
                    first = int(asked[1])
                    self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{origin.SIZE}")
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", f'"{self.path}"')
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                return part

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def stop(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


def wakeup(bench):
    flights = 20 if bench.options.quick else 200
    origin, pods = GatedOrigin(), Pods(bench, 2)
    args = [bench.programs / "wakeup", *(server.control for server in pods.servers), WAITERS]
    program = Talker(args)
    news = News(pods.redis)
    cuts = {"the origin's last byte": [], "Redis's news of it": []}
    for flight in range(flights):
        origin.gate.clear()
        url = origin.url(f"{flight}.bin")
        program.ask(url)
        if program.answer()["waiting"] != WAITERS:
            raise RuntimeError("not all of them wait")
        time.sleep(0.02)  # told that they wait is not asleep yet
        origin.gate.set()
        answer = program.answer()
        ends = origin.sent_at, news.came_at(url)
        for times, end in zip(cuts.values(), ends, strict=True):
            times.append((max(answer["waiters"]) - end) * 1e6)
    program.close()
    news.close()
    note = f"the last of {WAITERS} calls at another pod, of {flights} downloads"
    for name, times in cuts.items():
        for share in (50, 99):
            cut = sorted(times)[min(len(times) - 1, len(times) * share // 100)]
            bench.table.add("wakeup", f"complete ticket after {name}, p{share}", [cut], unit="µs", note=note)
    pods.stop()
    origin.stop()


class News:
    """When Redis told its subscribers, of whom this is one, that a URL is published: that is the end of its download."""

    def __init__(self, redis):
        self.connection, self.times, self.changed = redis.connect(), {}, threading.Condition()
        self.connection("SUBSCRIBE", "modelcache:news")
        self.connection.socket.settimeout(None)
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while True:
            try:
                message = self.connection.receive()
            except (OSError, ValueError):
                return
            now, document = time.monotonic(), json.loads(message[2])
            with self.changed:
                if document["now"]:
                    self.times.setdefault(document["now"]["url"], now)
                self.changed.notify()

    def came_at(self, url):
        with self.changed:
            if not self.changed.wait_for(lambda: url in self.times, 10):
                raise RuntimeError("Redis did not tell that the file is there")
            return self.times[url]

    def close(self):
        self.connection.close()
        self.thread.join()


class Talker:
    """A program that is asked and answers in lines, more than one to a question."""

    def __init__(self, args):
        args = [str(arg) for arg in args]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended: {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


# ---- the control plane with Redis behind it, and without ----


def hot_rpc(bench):
    nginx, alone, pods = bench.nginx(), bench.server(), Pods(bench, 1)
    nginx.model("model.bin", 64 * MIB)
    url, servers = nginx.url("model.bin"), {"local": alone, "Redis": pods.servers[0]}
    for server in servers.values():
        bench.warm(server, url)
    seen = {(name, what): [] for name in servers for what in ("p50_us", "p99_us", "rate", "per_core")}
    for turn in range(bench.rounds):
        for name in list(servers)[:: -1 if turn % 2 else 1]:
            server = servers[name]
            program = [bench.programs / "rpc_bench", server.control, url]
            answer = output_of([*program, "latency", 500 if bench.options.quick else 5000])
            for what in ("p50_us", "p99_us"):
                seen[name, what].append(answer[what])
            before = cpu_seconds(server.process.pid)
            answer = output_of([*program, "rate", 3, 32])
            seen[name, "rate"].append(answer["rate"])
            seen[name, "per_core"].append(answer["calls"] / (cpu_seconds(server.process.pid) - before))
    for name in servers:
        bench.table.add("hotrpc", f"Fetch of a hot file, {name}, p50", seen[name, "p50_us"], unit="µs")
        bench.table.add("hotrpc", f"Fetch of a hot file, {name}, p99", seen[name, "p99_us"], unit="µs")
        bench.table.add("hotrpc", f"calls a second, 32 under way, {name}", seen[name, "rate"], unit="1/s")
        row = f"calls a second of one core of the server, {name}"
        bench.table.add("hotrpc", row, seen[name, "per_core"], unit="1/s")
    for what, row in (("p50_us", "p50"), ("rate", "calls a second"), ("per_core", "calls a second of one core")):
        over = [a / b for a, b in zip(seen["Redis", what], seen["local", what], strict=True)]
        bench.table.add("hotrpc", f"{row}, Redis ÷ local", over, note="client, server and Redis share the cores")
    pods.stop()
    alone.stop()
    nginx.stop()


# ---- a million entries ----


def million(bench):
    count = 50_000 if bench.options.quick else 1_000_000
    pods = Pods(bench, 0)
    few = 1000
    for entries in (few, count):
        fill(bench, pods, 0 if entries == few else few, entries)
        measure_entries(bench, pods, entries)
    pods.stop()


def fill(bench, pods, begin, end):
    def used():
        return int(re.search(r"used_memory:(\d+)", pods.redis("INFO", "memory"))[1])

    before = used()
    answer = output_of([bench.programs / "fill", pods.redis.url(), begin, end, 8])
    each = (used() - before) / (end - begin)
    print(f"  {end - begin} entries put there in {answer['seconds']:.1f} s", flush=True)
    if end - begin > 1000:
        bench.table.add("million", f"Redis's memory of an entry, {end:,} of them", [each], unit="bytes")


def url_of(number):
    """As fill.c makes them."""
    return f"http://models.example/team-{number // 100000:02}/model-{number // 100:05}/{number:07}.safetensors"


def measure_entries(bench, pods, count):
    bench.numbers += 1
    server, listed = pods.server(bench.numbers), bench.folder / "list"
    begun = time.monotonic()
    server.start()
    ready, client = time.monotonic() - begun, bench.client(server)
    # The pod goes through the entries when it starts; a repair waits for that, and then does it by itself.
    client("repair", "--dry-run", timeout=600)
    both, begun = time.monotonic() - begun, time.monotonic()
    client("repair", "--dry-run", timeout=600)
    repair = time.monotonic() - begun
    everything, page, evict, status = "ls of all", "ls of 1,000 from the middle", "evict of one", "status"
    times = {everything: [], page: [], evict: [], status: []}

    def command(name, *args):
        begun = time.monotonic()
        with open(listed, "w") as out:
            result = client.finish(client.start(*args, stdout=out), 600)
        times[name].append((time.monotonic() - begun) * 1e3)
        if result.code != 0:
            raise RuntimeError(f"modelcache {' '.join(map(str, args))}: {result.err}")
        return listed.read_text().count("\n")

    for turn in range(bench.rounds):
        # From the end: each round has one less.
        last, middle = count - 1 - turn, count // 2
        found = command(everything, "ls", "--timeout", "600s")
        some = command(page, "ls", "--after", url_of(middle), "--limit", 1000)
        if (found, some) != (last + 1, min(1000, last - middle)):
            raise RuntimeError(f"the lists of {last + 1} entries have {found} and {some} lines")
        command(evict, "evict", url_of(last))
        command(status, "status")
    size = f"{count:,} entries"
    bench.table.add("million", f"start of a pod until it is ready, {size}", [ready], unit="s")
    bench.table.add("million", f"start of a pod until its references are made, {size}", [both - repair], unit="s")
    bench.table.add("million", f"repair --dry-run, {size}", [repair], unit="s", note="no records in storage")
    bench.table.add("million", f"RSS of the pod, {size}", [server.memory() / MIB], unit="MiB")
    for name, samples in times.items():
        note = "the command's own start is part of it"
        bench.table.add("million", f"{name}, {size}", samples, unit="ms", note=note)
    server.stop()
    # All are needed for what comes next.
    fill(bench, pods, count - bench.rounds, count)
