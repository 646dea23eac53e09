"""Measure modelcache against what the machine can do, and write the ratios as JSON, as a table and as a plot.

Everything that is compared runs interleaved, round by round, and a ratio is taken within its round: machines are noisy
and two times an hour apart say nothing. Files are read again before each run, so that they are in memory.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import BUILD, Command, Modelcached, Nginx, Processes, sha256, wait_until  # noqa: E402
from measure import (  # noqa: E402
    GIB,
    MIB,
    Program,
    Sample,
    Servers,
    Table,
    Worker,
    children,
    cpu_seconds,
    interleave,
    machine,
    make_file,
    output_of,
    ratios,
    read_again,
)
from report import markdown, plot  # noqa: E402

import cluster_bench  # noqa: E402
import stores_bench  # noqa: E402

PROGRAMS = BUILD / "tests" / "bench"


class SlowOrigin:
    """slow_origin.py, with what is used of an Nginx."""

    def __init__(self, processes, folder, rate):
        self.processes, self.rate = processes, rate
        self.files = folder / "files"
        self.process = self.port = None

    def serve(self, model):
        args = [sys.executable, pathlib.Path(__file__).with_name("slow_origin.py"), model, str(self.rate)]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def bytes_sent(self, _):
        return int(requests.get(self.url("-/bytes"), timeout=10).text)

    def forget_requests(self):
        self.bytes_sent(None)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


class Bench:
    def __init__(self, options, folder, processes):
        self.options, self.folder, self.processes = options, folder, processes
        self.rounds = options.rounds
        self.programs = PROGRAMS
        self.table = Table()
        self.numbers = 0
        self.shm = None

    def nginx(self, rate=0):
        self.numbers += 1
        return Nginx(self.processes, self.folder / f"nginx{self.numbers}", workers=os.cpu_count(), rate=rate).start()

    def origin(self, rate, size):
        """One that serves one file of that size, and lets out `rate` bytes a second in all, 0: as many as it can."""
        self.numbers += 1
        origin = SlowOrigin(self.processes, self.folder / f"slow{self.numbers}", rate) if rate else self.nginx()
        model = origin.files / "model.bin"
        make_file(model, size)
        if rate:
            origin.serve(model)
        return origin, model

    def server(self, *args, env=None):
        self.numbers += 1
        return Modelcached(self.processes, self.folder / f"server{self.numbers}", args, env).start()

    def client(self, server, **env):
        self.numbers += 1
        env = {"MODELCACHE_ENDPOINT": server.endpoint, "MODELCACHE_STORAGE": "none"} | env
        return Command(self.processes, self.folder / f"client{self.numbers}", env)

    def alone(self, env):
        """A command that is a cache of its own."""
        self.numbers += 1
        return Command(self.processes, self.folder / f"alone{self.numbers}", env)

    def check(self, path, model):
        if sha256(path) != sha256(model):
            raise RuntimeError(f"{path} is not what the origin has")

    # ---- (a) a file that the server has ----

    def warm(self, server, url):
        """Have the server hold a file."""
        out = self.folder / "warm"
        self.client(server)("get", url, "-o", out, "--no-store", timeout=600)
        out.unlink()

    def hot(self):
        size = self.options.size
        nginx, server = self.nginx(), self.server()
        model = nginx.files / "model.bin"
        make_file(model, size)
        url = nginx.url("model.bin")
        self.warm(server, url)
        stored = next(path for path in server.storage.rglob("*") if path.is_file() and path.stat().st_size == size)
        out = self.destination(size)
        ours, theirs = Servers(server.process.pid), Servers(*children(nginx.process.pid))

        def get(*args):
            return Worker([PROGRAMS / "get_bench", server.endpoint, url, *args], ours)

        workers = {}
        for count in (1, 4):
            workers |= {
                f"raw, {count}": Worker([PROGRAMS / "raw", stored, count]),
                f"transport, {count}": Worker([PROGRAMS / "transport_bench", stored, count]),
                f"get, {count}": get(count, "buffer", size),
                f"raw to a file, {count}": Worker([PROGRAMS / "raw", stored, count, "file", out]),
                f"get to a file, {count}": get(count, "file", out),
            }
        runs = workers | {
            "nginx and curl": Program(["curl", "-sf", "-o", "/dev/null", url], theirs),
            "nginx and curl to a file": Program(["curl", "-sf", "-o", out, url], theirs),
        }

        def before():
            out.unlink(missing_ok=True)
            read_again(stored)
            read_again(model)

        samples = interleave(self.rounds, runs, before)
        out.unlink(missing_ok=True)
        for worker in workers.values():
            worker.close()
        for count in (1, 4):
            if workers[f"get, {count}"].answer["digest"] != sha256(model):
                raise RuntimeError("the digest is wrong")
        self.table.add_speeds("hot", size, samples)

        def add(name, fast, slow, *target, note=""):
            self.table.add("hot", name, ratios(samples[slow], samples[fast]), *target, note=note)

        for count, goal in ((1, 0.95), (4, 0.9)):
            lanes = f"{count} connection{'s' if count > 1 else ''}"
            add(f"get, verified ÷ raw sendfile → recv, {lanes}", f"get, {count}", f"raw, {count}", goal, True)
            note = "the transport alone: a get always verifies"
            bare = f"transport, {count}"
            add(f"transport, not verified ÷ raw, {lanes}", bare, f"raw, {count}", goal, True, note=note)
            add(f"get, verified ÷ transport, not verified, {lanes}", f"get, {count}", bare, 0.9, True)
            file = f"raw to a file, {count}"
            add(f"get to a file ÷ raw to a file, {lanes}", f"get to a file, {count}", file, 0.9, True)
            add(f"get to a file ÷ raw to a buffer, {lanes}", f"get to a file, {count}", f"raw, {count}")
        add("get to a buffer, 1 connection ÷ nginx and curl to /dev/null", "get, 1", "nginx and curl", 1.2, True)
        add("get to a buffer, 4 connections ÷ nginx and curl to /dev/null", "get, 4", "nginx and curl", 1.2, True)
        add("get to a file, 4 connections ÷ nginx and curl to a file", "get to a file, 4", "nginx and curl to a file")
        server.stop()
        nginx.stop()
        model.unlink()

    def destination(self, size):
        """Where the hot file is written to: memory, if there is room, so that no disk is measured."""
        shm = pathlib.Path("/dev/shm")
        if shm.is_dir() and shutil.disk_usage(shm).free > 2 * size:
            self.shm = pathlib.Path(tempfile.mkdtemp(prefix="modelcache-bench-", dir=shm))
            return self.shm / "out"
        return self.folder / "out"

    def close(self):
        if self.shm:
            shutil.rmtree(self.shm, ignore_errors=True)

    # ---- (b) a file that nobody has ----

    def cold(self):
        for rate, what in ((0, "an unlimited origin"), (100 * MIB, "an origin of 100 MiB/s")):
            self.cold_from(rate, what)

    def cold_from(self, rate, what):
        size = min(self.options.size, GIB) if rate == 0 else 512 * MIB
        origin, model = self.origin(rate, size)
        server = self.server("--parallelism", 4)
        url, out = origin.url("model.bin"), self.folder / "out"
        client = self.client(server)

        def before():
            if server.metric("downloads_total"):
                client("evict", url, code=None)
            out.unlink(missing_ok=True)
            read_again(model)

        def through_server():
            begin = time.monotonic()
            client("get", url, "-o", out, "--no-store", timeout=600)
            return Sample(time.monotonic() - begin)

        aria2 = ["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-d", self.folder, "-o", "out", url]
        samples = interleave(
            self.rounds,
            {
                "through the server": through_server,
                "curl": Program(["curl", "-sf", "-o", out, url]),
                "aria2c, 4 connections": Program(aria2),
            },
            before,
        )
        client("get", url, "-o", out, "--no-store")
        self.check(out, model)
        direct = ("curl", "aria2c, 4 connections")
        best = min(direct, key=lambda name: statistics.median(sample.seconds for sample in samples[name]))
        over = ratios(samples["through the server"], samples[best])
        self.table.add("cold", f"time through the server ÷ {best}, {what}", over, 1.1, False)
        server.stop()
        origin.stop()
        model.unlink()

    # ---- (c) many at once for a file that nobody has ----

    def herd(self):
        clients = 64
        for rate, what in ((0, "an unlimited origin"), (16 * MIB, "an origin of 16 MiB/s")):
            # The slow one takes seconds, beside which it doesn't matter how long 64 programs take to start.
            size = 64 * MIB if self.options.quick or rate else 256 * MIB
            self.herd_from(rate, what, clients, size)

    def herd_from(self, rate, what, clients, size):
        origin, model = self.origin(rate, size)
        server = self.server("--parallelism", 4)
        url, out = origin.url("model.bin"), self.folder / "out"
        commands = [self.client(server) for _ in range(clients)]
        ingress = []

        def before():
            if server.metric("downloads_total"):
                commands[0]("evict", url, code=None)
            for path in self.folder.glob("out*"):
                path.unlink()
            origin.forget_requests()
            read_again(model)

        def all_at_once():
            begin = time.monotonic()
            started = [
                command.start("get", url, "-o", f"{out}{number}", "--no-store", "-q")
                for number, command in enumerate(commands)
            ]
            for command, process in zip(commands, started, strict=True):
                result = command.finish(process, 600)
                if result.code != 0:
                    raise RuntimeError(repr(result))
            seconds = time.monotonic() - begin
            ingress.append(origin.bytes_sent("model.bin") / size)
            return Sample(seconds)

        aria2 = ["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-d", self.folder, "-o", "out", url]
        samples = interleave(
            self.rounds,
            {f"{clients} clients": all_at_once, "one aria2c, 4 connections": Program(aria2)},
            before,
        )
        self.table.add("herd", f"bytes out of the origin ÷ size, {what}", ingress, 1.0, False)
        over = ratios(samples[f"{clients} clients"], samples["one aria2c, 4 connections"])
        note = f"{clients} × {size // MIB} MiB; all of the clients are on this machine"
        # Without a limit it's this machine's cores that are measured: they move all that 64 machines would.
        target = (1.25, False) if rate else ()
        self.table.add("herd", f"last client ÷ a lone download, {what}", over, *target, note=note)
        server.stop()
        origin.stop()

    # ---- (d) the control plane ----

    def rpc(self):
        nginx, server = self.nginx(), self.server()
        nginx.model("model.bin", 64 * MIB)
        url = nginx.url("model.bin")
        self.warm(server, url)
        program = [PROGRAMS / "rpc_bench", server.control, url]
        middle, slow, rate, per_core = [], [], [], []
        for _ in range(self.rounds):
            answer = output_of([*program, "latency", 5000])
            middle.append(answer["p50_us"])
            slow.append(answer["p99_us"])
            before = cpu_seconds(server.process.pid)
            answer = output_of([*program, "rate", 3, 32])
            rate.append(answer["rate"])
            per_core.append(answer["calls"] / (cpu_seconds(server.process.pid) - before))
        self.table.add("rpc", "Fetch of a hot file, p50", middle, 200, False, "µs")
        self.table.add("rpc", "Fetch of a hot file, p99", slow, unit="µs")
        note = "client and server share the cores"
        self.table.add("rpc", "calls a second, 32 under way", rate, unit="1/s", note=note)
        self.table.add("rpc", "calls a second of one core of the server", per_core, 10000, True, "1/s")
        server.stop()
        nginx.stop()

    # ---- (e) object stores: see stores_bench.py ----

    def s3(self):
        stores_bench.one_object(self)

    def s3_tree(self):
        stores_bench.small_files(self)

    def s3_memory(self):
        stores_bench.memory(self)

    # ---- (f) several pods: see cluster_bench.py ----

    def cluster(self):
        cluster_bench.herd(self)

    def redirect(self):
        cluster_bench.redirect(self)

    def wakeup(self):
        cluster_bench.wakeup(self)

    def hotrpc(self):
        cluster_bench.hot_rpc(self)

    def million(self):
        cluster_bench.million(self)

    def waiting(self):
        """10,000 callers wait for one download that does not end."""
        count = 1000 if self.options.quick else 10000
        for connections in (100, count):
            samples = []
            for _ in range(min(self.rounds, 3)):
                samples.append(self.waiting_once(count, connections))
            name = f"memory of a waiting client, {count} on {connections} connections"
            self.table.add("rpc", name, samples, 30 * 1024, False, "bytes")

    def waiting_once(self, count, connections):
        nginx, server = self.nginx(rate=1), self.server("--stall-timeout", "1h", "--parallelism", 1)
        nginx.model("model.bin", 64 * MIB)
        # The first takes what the first costs.
        url = nginx.url("model.bin")
        first = holder(server, url, 1, 1)
        wait_until(lambda: server.metric("waiting_requests") == 1, 60, "the first caller's wait")
        before = server.memory()
        others = holder(server, url, count, connections)
        try:
            wait_until(lambda: server.metric("waiting_requests") == count + 1, 300, "all callers' wait")
            return (server.memory() - before) / count
        finally:
            for process in (others, first):
                process.kill()
                process.wait()
            server.kill9()
            nginx.stop()


def holder(server, url, count, connections):
    args = [PROGRAMS / "rpc_bench", server.control, url, "wait", count, connections]
    return subprocess.Popen([str(arg) for arg in args], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


PARTS = ("hot", "cold", "herd", "rpc", "waiting", "s3", "s3_tree", "s3_memory")
PARTS += ("cluster", "redirect", "wakeup", "hotrpc", "million")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=4, help="GiB of the hot file (default 4)")
    parser.add_argument("--quick", action="store_true", help="1 GiB, and less of the rest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=pathlib.Path, default=BUILD / "bench", help="where the results go")
    parser.add_argument("--work", help="a folder for the files (default: the system's for temporary ones)")
    options = parser.parse_args()
    options.size = int((1 if options.quick else options.size) * GIB)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is tidied up, and what is known written
    folder = pathlib.Path(tempfile.mkdtemp(prefix="modelcache-bench-", dir=options.work))
    folder.chmod(0o755)  # nginx's workers are another user
    processes = Processes()
    bench = Bench(options, folder, processes)
    try:
        for part in options.only:
            print(f"== {part}", flush=True)
            getattr(bench, part)()
    finally:
        processes.close()
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
        write(bench.table, options)


def write(table, options):
    """What was measured, also if something failed on the way."""
    if not table.rows:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "size": options.size,
        "rounds": options.rounds,
        "rows": table.rows,
        "speeds": table.speeds,
    }
    (options.out / "results.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    text = markdown(table.rows, table.speeds)
    (options.out / "results.md").write_text(text)
    plot(table.rows, options.out / "results.png")
    print(f"\n{text}\nIn {options.out}: results.json, results.md, results.png")


if __name__ == "__main__":
    main()
