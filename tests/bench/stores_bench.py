"""Object stores: what they have, got by us and by the clients that people use for it, from the same server.

All of it is on one machine, so that the server's work is part of every time: a ratio says how much more, or less, our side
costs. Every client writes a file of its own, which no cache held before.
"""

import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import threading
import time

from harness import sha256, wait_until
from measure import GIB, MIB, Program, Sample, Servers, interleave, make_file, ratios, read_again
from stores import REGION, SERVERS, TOOLS

SMALL_FILES, SMALL_SIZE = 5000, 20_000


class Clients:
    """Programs that read S3, with what lets them in."""

    def __init__(self, bench, store):
        self.store = store
        home = bench.folder / "home"
        (home / ".aws").mkdir(parents=True, exist_ok=True)
        # The client of the AWS command that is its fastest: the CRT's, told how fast the line is.
        transfer = "preferred_transfer_client = crt\n  target_bandwidth = 100Gb/s\n"
        (home / ".aws" / "config").write_text(
            f"[default]\nregion = {REGION}\ns3 =\n  {transfer}  addressing_style = path\n"
        )
        (home / "rclone.conf").write_text(
            f"[store]\ntype = s3\nprovider = Other\nenv_auth = true\nregion = {REGION}\n"
            f"endpoint = {store.server.endpoint}\nforce_path_style = true\n"
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MODELCACHE"))}
        self.env = clean | store.env | {"HOME": str(home), "RCLONE_CONFIG": str(home / "rclone.conf")}

    def program(self, *args):
        return EnvProgram(args, self.env, Servers(self.store.server.process.pid))

    @property
    def endpoint(self):
        return "--endpoint-url", self.store.server.endpoint

    def s5cmd(self, *args):
        return self.program(TOOLS / "s5cmd", *self.endpoint, *args)

    def objects(self, key, out):
        """Each client's way to get one object."""
        source, rclone = f"s3://{self.store.bucket}/{key}", f"store:{self.store.bucket}/{key}"
        streams = ("--multi-thread-streams", "8", "--multi-thread-cutoff", "64M")
        return {
            "s5cmd": self.s5cmd("cp", "--concurrency", "8", source, out),
            "aws (CRT)": self.program(TOOLS / "aws", *self.endpoint, "s3", "cp", "--quiet", source, out),
            "rclone": self.program(TOOLS / "rclone", "copyto", *streams, rclone, out),
        }

    def trees(self, prefix, out):
        source, rclone = f"s3://{self.store.bucket}/{prefix}*", f"store:{self.store.bucket}/{prefix}"
        many = ("--transfers", "64", "--checkers", "64", "--s3-list-version", "2", "--fast-list", "--no-traverse")
        return {
            "s5cmd": self.s5cmd("cp", source, f"{out}/"),
            "rclone": self.program(TOOLS / "rclone", "copy", *many, rclone, out),
        }


class EnvProgram(Program):
    def __init__(self, args, env, servers):
        super().__init__(args, servers)
        self.env = env

    def __call__(self):
        def run():
            subprocess.run(self.args, check=True, stdout=subprocess.DEVNULL, env=self.env)

        return timed(run, self.servers)


def timed(work, servers=None):
    """One run of something that starts processes and waits for their end."""
    before = servers.seconds() if servers else 0
    used, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return Sample(seconds, client, servers.seconds() - before if servers else 0)


def store_of(bench, make):
    bench.numbers += 1
    return SERVERS[make](bench.processes, bench.folder / f"{make}{bench.numbers}").start().store()


def put_large(store, key, path):
    """A file that is not held in memory."""
    store.client.upload_file(str(path), store.bucket, key)


def best_of(samples, names):
    return min(names, key=lambda name: statistics.median(sample.seconds for sample in samples[name]))


# ---- one object ----


def one_object(bench):
    for make in ("minio", "versitygw"):
        one_object_of(bench, make)


def one_object_of(bench, make):
    size = bench.options.size
    store = store_of(bench, make)
    model, out, kept = bench.folder / "s3.bin", bench.folder / "out", bench.folder / "kept"
    make_file(model, size)
    put_large(store, "model.bin", model)
    digest = sha256(model)
    model.unlink()
    server = bench.server(env=store.env)
    url, client = store.url("model.bin"), bench.client(server)
    origin = Servers(store.server.process.pid)

    def clean():
        if server.metric("downloads_total"):
            client("evict", url, code=None)
        out.unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        subprocess.run(["sync", "-f", bench.folder], check=True)  # nobody pays for what another left to be written
        for path in store.server.data.rglob("*"):
            if path.is_file() and path.stat().st_size >= MIB:
                read_again(path)

    def get(storage, *args):
        client = bench.alone(store.env | {"MODELCACHE_STORAGE": str(storage)})
        return lambda: timed(lambda: client("get", url, "-o", out, *args, timeout=600), origin)

    def through_server():
        both = Servers(store.server.process.pid, server.process.pid)
        return timed(lambda: client("get", url, "-o", out, "--no-store", timeout=600), both)

    tools = Clients(bench, store).objects("model.bin", out)
    ours = {
        "get, straight to a file": get("none"),
        "get, kept and linked": get(kept),
        "get through a server": through_server,
    }
    samples = interleave(bench.rounds, ours | tools, clean)
    get(kept)()
    if sha256(out) != digest:
        raise RuntimeError("the object is not what it was")
    bench.table.add_speeds(f"s3 ({make})", size, samples)
    best = best_of(samples, tools)
    for name in ours:
        over = ratios(samples[name], samples[best])
        bench.table.add("s3", f"time of a cold {name} ÷ {best}, {make}", over, 1.05, False)
    clean()
    server.stop()
    store.server.stop()
    shutil.rmtree(store.server.folder)


# ---- many small files ----


def small_files(bench):
    for make in ("minio", "versitygw"):
        small_files_of(bench, make)


def small_files_of(bench, make):
    count = SMALL_FILES // 10 if bench.options.quick else SMALL_FILES
    store, places = store_of(bench, make), bench.folder / "places"
    store.put_many({f"tree/{i % 50:02}/{i:05}.bin": os.urandom(SMALL_SIZE) for i in range(count)})
    url, clients = store.url("tree/"), Clients(bench, store)

    def fresh():
        """A folder for each run: what is removed is removed at the end, as a file system is slow for a while after it
        has freed many small files, for whoever comes next."""
        bench.numbers += 1
        place = places / str(bench.numbers)
        place.mkdir(parents=True)
        subprocess.run(["sync", "-f", place], check=True)
        return place

    def tree(durable, again=False):
        def run():
            place = fresh()
            env = store.env | {"MODELCACHE_STORAGE": str(place / "kept"), "MODELCACHE_DURABLE": durable}
            client = bench.alone(env)
            if again:
                client("tree", url, place / "tree", timeout=600)
            begin = time.monotonic()
            client("tree", url, place / "tree", timeout=600)
            sample = Sample(time.monotonic() - begin)
            check_tree(place / "tree", count)
            return sample

        return run

    def tool(name):
        def run():
            place = fresh()
            sample = clients.trees("tree/", place / "tree")[name]()
            check_tree(place / "tree", count)
            return sample

        return run

    tools = {name: tool(name) for name in clients.trees("", "")}
    ours = {"tree, durable": tree("on"), "tree": tree("off"), "tree that is there already": tree("off", again=True)}
    samples = interleave(bench.rounds, ours | tools)
    best = best_of(samples, tools)
    for name in ours:
        over = ratios(samples[name], samples[best])
        bench.table.add("s3 tree", f"time of a {name} ÷ {best}, {count} × 20 kB, {make}", over, 1.0, False)
    store.server.stop()
    shutil.rmtree(places)
    shutil.rmtree(store.server.folder)


def check_tree(path, count):
    found = sum(1 for file in pathlib.Path(f"{path}/").resolve().rglob("*") if file.is_file())
    if found != count:
        raise RuntimeError(f"{found} files came, and not {count}")


# ---- the memory of many large downloads ----


def memory(bench):
    """By versitygw, whose objects are files: one file under eight names is eight objects, and takes the room of one."""
    objects, size = 8, bench.options.size
    store = store_of(bench, "versitygw")
    first = store.server.data / store.bucket / "0.bin"
    make_file(first, size)
    for number in range(1, objects):
        os.link(first, first.with_name(f"{number}.bin"))
    server = bench.server(env=store.env)
    client = bench.client(server)
    client("stat", store.url("0.bin"))  # what the first request of all costs is not a download's
    samples = []
    for _ in range(1 if size >= 4 * GIB else bench.rounds):
        idle, done = server.memory(), server.metric("downloads_total")
        pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak begins anew
        threads = [
            threading.Thread(target=bench.client(server), args=("prefetch", store.url(f"{number}.bin")))
            for number in range(objects)
        ]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: server.metric("downloads_total") == done + objects, 1200, "all downloads")
        seconds = time.monotonic() - begin
        samples.append((server.memory("VmHWM") - idle) / MIB)
        print(f"  {objects} × {size / GIB:.0f} GiB in {seconds:.1f} s", flush=True)
        for number in range(objects):
            client("evict", store.url(f"{number}.bin"), code=None)
    note = f"peak of the server's RSS over idle, {objects} × {size / GIB:.0f} GiB at once"
    bench.table.add("s3 memory", f"memory of {objects} cold downloads", samples, 200, False, "MiB", note=note)
    server.stop()
    store.server.stop()
    shutil.rmtree(store.server.folder)
