"""What the benchmarks measure with: programs that do their work on demand, CPU time of all who take part, rounds."""

import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time
from typing import NamedTuple

MIB, GIB = 1 << 20, 1 << 30


class Sample(NamedTuple):
    """One run: how long it took, and the CPU seconds of the side that asks and of the one that answers."""

    seconds: float
    client: float = 0
    server: float = 0


def cpu_seconds(pid):
    """CPU time of a process so far, exact (the clock that clock_getcpuclockid names)."""
    return time.clock_gettime((~pid << 3) | 2)


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Servers:
    """The CPU time of some processes together."""

    def __init__(self, *pids):
        self.pids = pids

    def seconds(self):
        return sum(cpu_seconds(pid) for pid in self.pids)


class Worker:
    """A program that does its work once for each line on its input, and says in JSON how long it took."""

    def __init__(self, args, servers=None):
        self.args = [str(arg) for arg in args]
        self.servers = servers
        self.process = subprocess.Popen(self.args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer = None

    def __call__(self):
        before = self.servers.seconds() if self.servers else 0
        self.process.stdin.write("\n")
        with contextlib.suppress(BrokenPipeError):  # it has ended: told of below
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.args)} ended: {self.process.wait()}")
        self.answer = json.loads(line)
        server = self.servers.seconds() - before if self.servers else self.answer["peer_cpu"]
        return Sample(self.answer["seconds"], self.answer["cpu"], server)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


class Program:
    """A program that is started anew each time."""

    def __init__(self, args, servers=None):
        self.args, self.servers = [str(arg) for arg in args], servers

    def __call__(self):
        before = self.servers.seconds() if self.servers else 0
        used, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(self.args, check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        return Sample(seconds, client, self.servers.seconds() - before if self.servers else 0)


def interleave(rounds, candidates, before=lambda: None):
    """Run each of the candidates once a round, each time another first; the samples of each."""
    samples = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            before()
            sample = candidates[name]()
            samples[name].append(sample if isinstance(sample, Sample) else Sample(sample))
            print(f"  {name}: {samples[name][-1].seconds:.3f} s", flush=True)
    return samples


def ratios(above, below):
    """Of times, round by round."""
    return [a.seconds / b.seconds for a, b in zip(above, below, strict=True)]


class Table:
    """What was measured: ratios and other numbers with what they should be, and the speed of each candidate."""

    def __init__(self):
        self.rows, self.speeds = [], []

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

    def add_speeds(self, part, size, samples):
        """Bytes a second, and what they cost on both sides; absolute numbers, which say little on another day."""
        for name, runs in samples.items():
            row = {
                "part": part,
                "name": name,
                "gb_per_s": statistics.median(size / run.seconds / 1e9 for run in runs),
                "client_cpu_s_per_gb": statistics.median(run.client for run in runs) / size * 1e9,
                "server_cpu_s_per_gb": statistics.median(run.server for run in runs) / size * 1e9,
            }
            self.speeds.append(row)
            print(
                f"{part} {name}: {row['gb_per_s']:.2f} GB/s, CPU s/GB: client {row['client_cpu_s_per_gb']:.3f},"
                f" server {row['server_cpu_s_per_gb']:.3f}",
                flush=True,
            )


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


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


def output_of(args):
    done = subprocess.run([str(arg) for arg in args], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def machine():
    about = {"cores": len(os.sched_getaffinity(0)), "kernel": os.uname().release, "machine": os.uname().machine}
    text = pathlib.Path("/proc/cpuinfo").read_text()
    models = {line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")}
    return about | {"cpu": ", ".join(sorted(models))}
