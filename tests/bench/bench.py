"""Measure modelcache against what the machine can do, and write the ratios as JSON, as a table and as a plot.

Everything that is compared runs interleaved, round by round, and a ratio is taken within its round: machines are noisy
and two times an hour apart say nothing. Files are read again before each run, so that they are in memory.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import (  # noqa: E402
    BUILD,
    GIB,
    MIB,
    Command,
    Modelcached,
    Nginx,
    Processes,
    sha256,
    wait_until,
)

PROGRAMS = BUILD / "tests" / "bench"


class Table:
    """What was measured: rows of a name, its samples, and what they should be."""

    def __init__(self):
        self.rows = []

    def add(self, part, name, samples, target=None, at_least=None, unit="ratio", note=""):
        """`target` with `at_least` True: to be reached; False: not to be passed; None: for information."""
        median = statistics.median(samples)
        reached = None if target is None else (median >= target if at_least else median <= target)
        self.rows.append(
            {
                "part": part,
                "name": name,
                "unit": unit,
                "median": median,
                "least": min(samples),
                "most": max(samples),
                "samples": samples,
                "target": target,
                "at_least": at_least,
                "reached": reached,
                "note": note,
            }
        )
        print(f"{part} {name}: {number(median)} ({number(min(samples))} … {number(max(samples))}) {unit}", flush=True)


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def ratios(above, below):
    return [a / b for a, b in zip(above, below, strict=True)]


def interleave(rounds, candidates, before=lambda: None):
    """Run each of the candidates once a round, each time another first; the seconds of each."""
    seconds = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            before()
            seconds[name].append(candidates[name]())
            print(f"  {name}: {seconds[name][-1]:.3f} s", flush=True)
    return seconds


def read_again(path):
    """Bring a file into the page cache."""
    buffer = bytearray(8 * MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def make_file(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        subprocess.run(["head", "-c", str(size), "/dev/urandom"], stdout=out, check=True)


def timed(args, **options):
    begin = time.monotonic()
    subprocess.run([str(arg) for arg in args], check=True, stdout=subprocess.DEVNULL, **options)
    return time.monotonic() - begin


class Worker:
    """A program that does its work once for each line on its input, and says in JSON how long it took."""

    def __init__(self, args):
        self.args = [str(arg) for arg in args]
        self.process = subprocess.Popen(self.args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer = None

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.args)} ended: {self.process.wait()}")
        self.answer = json.loads(line)
        return self.answer["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, options, folder, processes):
        self.options, self.folder, self.processes = options, folder, processes
        self.rounds = options.rounds
        self.table = Table()
        self.numbers = 0

    def nginx(self, rate=0):
        self.numbers += 1
        return Nginx(self.processes, self.folder / f"nginx{self.numbers}", workers=os.cpu_count(), rate=rate).start()

    def server(self, *args):
        self.numbers += 1
        return Modelcached(self.processes, self.folder / f"server{self.numbers}", args).start()

    def client(self, server, **env):
        self.numbers += 1
        env = {"MODELCACHE_ENDPOINT": server.endpoint, "MODELCACHE_STORAGE": "none"} | env
        return Command(self.processes, self.folder / f"client{self.numbers}", env)

    def check(self, path, model):
        if sha256(path) != sha256(model):
            raise RuntimeError(f"{path} is not what the origin has")

    # ---- (a) a file that the server has ----

    def hot(self):
        size = self.options.size
        nginx, server = self.nginx(), self.server()
        model = nginx.files / "model.bin"
        make_file(model, size)
        url = nginx.url("model.bin")
        self.client(server)("prefetch", url)
        wait_until(lambda: server.metric("downloads_total") == 1, 600, "the file being in the server")
        stored = next(path for path in server.storage.rglob("*") if path.is_file() and path.stat().st_size == size)
        out = self.folder / "out"

        def get(*args):
            return Worker([PROGRAMS / "get_bench", server.endpoint, url, *args])

        workers = {
            "raw, 1 connection": Worker([PROGRAMS / "raw", stored, 1]),
            "raw, 4 connections": Worker([PROGRAMS / "raw", stored, 4]),
            "get, 1 connection": get(1, "buffer", size),
            "get, 4 connections": get(4, "buffer", size),
            "get, 4 connections, file": get(4, "file", out),
        }
        runs = workers | {
            "nginx and curl": lambda: timed(["curl", "-sf", "-o", "/dev/null", url]),
            "nginx and curl, file": lambda: timed(["curl", "-sf", "-o", out, url]),
        }

        def before():
            out.unlink(missing_ok=True)
            read_again(stored)
            read_again(model)

        seconds = interleave(self.rounds, runs, before)
        for worker in workers.values():
            worker.close()
        if workers["get, 4 connections"].answer["digest"] != sha256(model):
            raise RuntimeError("the digest is wrong")
        note = "verified; what arrives over a wire always is"
        for connections, goal in ((1, 0.95), (4, 0.9)):
            name = f"{connections} connection{'s' if connections > 1 else ''}"
            samples = ratios(seconds[f"raw, {name}"], seconds[f"get, {name}"])
            self.table.add("hot", f"get to a buffer ÷ raw sendfile → recv, {name}", samples, goal, True, note=note)
        samples = ratios(seconds["raw, 4 connections"], seconds["get, 4 connections, file"])
        self.table.add("hot", "get to a file ÷ raw to a buffer, 4 connections", samples, note="pages are touched first")
        samples = ratios(seconds["nginx and curl"], seconds["get, 4 connections"])
        self.table.add("hot", "get to a buffer ÷ nginx and curl to /dev/null", samples)
        samples = ratios(seconds["nginx and curl, file"], seconds["get, 4 connections, file"])
        self.table.add("hot", "get to a file ÷ nginx and curl to a file", samples)
        server.stop()
        nginx.stop()
        model.unlink()

    # ---- (b) a file that nobody has ----

    def cold(self):
        for rate, what in ((0, "an unlimited origin"), (250 * MIB // 4, "an origin of 4 × 62.5 MiB/s")):
            self.cold_from(rate, what)

    def cold_from(self, rate, what):
        size = min(self.options.size, GIB)
        nginx, server = self.nginx(rate), self.server("--parallelism", 4)
        model, url, out = nginx.files / "model.bin", nginx.url("model.bin"), self.folder / "out"
        make_file(model, size)
        client = self.client(server)

        def before():
            if server.metric("downloads_total"):
                client("evict", url, code=None)
            out.unlink(missing_ok=True)
            read_again(model)

        def through_server():
            begin = time.monotonic()
            client("get", url, "-o", out, "--no-store", timeout=600)
            return time.monotonic() - begin

        aria2 = ["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-d", self.folder, "-o", "out", url]
        seconds = interleave(
            self.rounds,
            {
                "through the server": through_server,
                "curl": lambda: timed(["curl", "-sf", "-o", out, url]),
                "aria2c, 4 connections": lambda: timed(aria2),
            },
            before,
        )
        client("get", url, "-o", out, "--no-store")
        self.check(out, model)
        best = min(("curl", "aria2c, 4 connections"), key=lambda name: statistics.median(seconds[name]))
        samples = ratios(seconds["through the server"], seconds[best])
        self.table.add("cold", f"time through the server ÷ {best}, {what}", samples, 1.1, False)
        server.stop()
        nginx.stop()
        model.unlink()

    # ---- (c) many at once for a file that nobody has ----

    def herd(self):
        size = 256 * MIB // (4 if self.options.quick else 1)
        clients = 64
        for rate, what in ((0, "an unlimited origin"), (4 * MIB, "an origin of 4 × 4 MiB/s")):
            self.herd_from(rate, what, clients, size if rate == 0 else size // 4)

    def herd_from(self, rate, what, clients, size):
        nginx, server = self.nginx(rate), self.server("--parallelism", 4)
        model, url, out = nginx.files / "model.bin", nginx.url("model.bin"), self.folder / "out"
        make_file(model, size)
        commands = [self.client(server) for _ in range(clients)]
        ingress = []

        def before():
            if server.metric("downloads_total"):
                commands[0]("evict", url, code=None)
            for path in self.folder.glob("out*"):
                path.unlink()
            nginx.forget_requests()
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
            ingress.append(nginx.bytes_sent("model.bin") / size)
            return seconds

        aria2 = ["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-d", self.folder, "-o", "out", url]
        seconds = interleave(
            self.rounds, {f"{clients} clients": all_at_once, "one aria2c, 4 connections": lambda: timed(aria2)}, before
        )
        self.table.add("herd", f"bytes out of the origin ÷ size, {what}", ingress, 1.0, False)
        samples = ratios(seconds[f"{clients} clients"], seconds["one aria2c, 4 connections"])
        note = f"{clients} × {size // MIB} MiB; all of the clients are on this machine"
        self.table.add("herd", f"last client ÷ a lone download, {what}", samples, 1.25, False, note=note)
        server.stop()
        nginx.stop()

    # ---- (d) the control plane ----

    def rpc(self):
        nginx, server = self.nginx(), self.server()
        nginx.model("model.bin", 64 * MIB)
        url = nginx.url("model.bin")
        self.client(server)("prefetch", url)
        wait_until(lambda: server.metric("downloads_total") == 1, 60, "the file being in the server")
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
        self.table.add("rpc", "calls a second, 32 under way", rate, unit="1/s", note="client and server share the cores")
        self.table.add("rpc", "calls a second of one core of the server", per_core, 10000, True, "1/s")
        server.stop()
        nginx.stop()

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


def output_of(args):
    done = subprocess.run([str(arg) for arg in args], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


# ---- what comes out ----


def markdown(rows):
    lines = ["| part | what | median | least … most | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        target = "" if row["target"] is None else f"{'≥' if row['at_least'] else '≤'} {number(row['target'])}"
        mark = {None: "", True: "reached", False: "missed"}[row["reached"]]
        name = row["name"] + (f" ({row['note']})" if row["note"] else "")
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        spread = f"{number(row['least'])} … {number(row['most'])}"
        lines.append(f"| {row['part']} | {name} | {number(row['median'])}{unit} | {spread} | {target} | {mark} |")
    return "\n".join(lines) + "\n"


def plot(rows, path):
    """Each row that has a target, as a share of it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["target"]][::-1]
    figure, axes = pyplot.subplots(figsize=(11, 1 + 0.5 * len(rows)))
    for place, row in enumerate(rows):
        value, least, most = (row[key] / row["target"] for key in ("median", "least", "most"))
        axes.barh(place, value, color="#4a8f5d" if row["reached"] else "#b5533c", height=0.6)
        axes.plot([least, most], [place, place], color="black", linewidth=1.5)
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        axes.text(max(value, most) + 0.02, place, number(row["median"]) + unit, va="center", fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)))
    labels = [f"{row['name']}\n{'at least' if row['at_least'] else 'at most'} {number(row['target'])}" for row in rows]
    axes.set_yticklabels(labels, fontsize=8)
    axes.set_xlabel("median ÷ target; the line is the spread over the rounds")
    axes.set_xlim(0, None)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


PARTS = ("hot", "cold", "herd", "rpc", "waiting")


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

    folder = pathlib.Path(tempfile.mkdtemp(prefix="modelcache-bench-", dir=options.work))
    processes = Processes()
    bench = Bench(options, folder, processes)
    try:
        for part in options.only:
            print(f"== {part}", flush=True)
            getattr(bench, part)()
    finally:
        processes.close()
        shutil.rmtree(folder, ignore_errors=True)
        rows = bench.table.rows
        if rows:
            options.out.mkdir(parents=True, exist_ok=True)
            machine = {"cores": os.cpu_count(), "kernel": os.uname().release, "machine": os.uname().machine}
            document = {"machine": machine, "size": options.size, "rounds": options.rounds, "rows": rows}
            (options.out / "results.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            (options.out / "results.md").write_text(markdown(rows))
            with contextlib.suppress(ImportError):
                plot(rows, options.out / "results.png")
            print("\n" + markdown(rows) + f"\nIn {options.out}: results.json, results.md, results.png")


if __name__ == "__main__":
    main()
