"""The control plane under stress: failures by name, clients that don't read or don't come, many that wait."""

import re
import subprocess
import threading
import time

import grpc
import pytest
from harness import BUILD, CHUNK, GIB, KIB, MIB, SLOWNESS, free_port, memory_allowance, scaled, wait_until
from test_badinput import FETCH, grpc_call, message
from test_server import tarpit

PATIENCE = 20 * SLOWNESS


@pytest.fixture
def slow(make_nginx):
    """An origin whose file takes for ever."""
    nginx = make_nginx(rate=KIB)
    nginx.model("model.bin", 8 * MIB)
    return nginx


def failure(call):
    """(code, modelcache-status, message) of a call that has to fail."""
    with pytest.raises(grpc.RpcError) as caught:
        result = call()
        if hasattr(result, "__iter__"):
            list(result)
    trailers = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), trailers.get("modelcache-status"), caught.value.details()


# ---- Fetch ----


# ---- errors ----


def test_each_failure_has_its_code_and_its_name(dial, stubs, make_server, nginx):
    server = make_server("--retries", 0, "--storage-capacity", "5MiB")
    nginx.model("big.bin", 8 * MIB)
    stub = dial(server)
    cases = [
        (nginx.url("nowhere.bin"), grpc.StatusCode.NOT_FOUND, "not_found", "404"),
        ("no url", grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument", "URL"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument", "URL"),
        ("file:///etc/passwd", grpc.StatusCode.PERMISSION_DENIED, "permission_denied", "schemes"),
        ("warp://x/y", grpc.StatusCode.UNIMPLEMENTED, "unsupported", "warp"),
        (f"http://127.0.0.1:{free_port()}/x", grpc.StatusCode.UNAVAILABLE, "unavailable", "connect"),
        (nginx.url("big.bin"), grpc.StatusCode.RESOURCE_EXHAUSTED, "no_space", ""),
    ]
    for url, code, name, text in cases:
        got = failure(lambda url=url: stub.Fetch(stubs.pb.FetchRequest(url=url), timeout=PATIENCE))
        assert got[:2] == (code, name), (url, got)
        assert text in got[2], (url, got)
        assert "\n" not in got[2]
    for call in (
        lambda: stub.Stat(stubs.pb.StatRequest(url="x://y"), timeout=PATIENCE),
        lambda: stub.List(stubs.pb.ListRequest(prefix="x://y", origin=True), timeout=PATIENCE),
        lambda: stub.Prefetch(stubs.pb.PrefetchRequest(url="x://y"), timeout=PATIENCE),
    ):
        assert failure(call)[:2] == (grpc.StatusCode.UNIMPLEMENTED, "unsupported")
    for call in (
        lambda: stub.Stat(stubs.pb.StatRequest(url=nginx.url("x"), cached=True), timeout=PATIENCE),
        lambda: stub.Evict(stubs.pb.EvictRequest(url=nginx.url("x")), timeout=PATIENCE),
    ):
        assert failure(call)[:2] == (grpc.StatusCode.NOT_FOUND, "not_found")
    assert server.metric("control_call_errors_total") == len(cases) + 5


def test_more_waiters_than_allowed_are_refused_as_such(dial, stubs, make_server, slow):
    """Not as a disk that is full."""
    server = make_server("--waiters", 1)
    stub = dial(server)
    first = stub.Fetch(stubs.pb.FetchRequest(url=slow.url("model.bin")), timeout=PATIENCE)
    next(first)
    second = failure(lambda: stub.Fetch(stubs.pb.FetchRequest(url=slow.url("model.bin")), timeout=PATIENCE))
    assert second[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "resource_exhausted")
    assert "waiters" in second[2]
    first.cancel()


@pytest.mark.slow
def test_a_message_that_does_not_come(dial, server):
    """A call whose message is never sent takes a place for ten seconds and no longer."""
    forever = threading.Event()

    def never():
        forever.wait(60 * SLOWNESS)
        yield b""

    call = dial(server).channel.stream_stream(FETCH)(never(), timeout=60 * SLOWNESS)
    try:
        code, _, text = failure(lambda: call)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "message" in text
    finally:
        forever.set()


# ---- health ----


def test_health(dial, stubs, make_server, slow):
    server = make_server("--drain", "10m")
    stub, health = dial(server), stubs.health
    request = health.HealthCheckRequest
    for name in ("", "modelcache.v1.ModelCache"):
        assert stub.health.Check(request(service=name), timeout=PATIENCE).status == health.HealthCheckResponse.SERVING
    assert failure(lambda: stub.health.Check(request(service="x"), timeout=PATIENCE))[0] == grpc.StatusCode.NOT_FOUND
    watch = stub.health.Watch(request(), timeout=6 * PATIENCE)
    assert next(watch).status == health.HealthCheckResponse.SERVING
    unknown = stub.health.Watch(request(service="x"), timeout=PATIENCE)
    assert next(unknown).status == health.HealthCheckResponse.SERVICE_UNKNOWN
    held = stub.Fetch(stubs.pb.FetchRequest(url=slow.url("model.bin")), timeout=6 * PATIENCE)
    next(held)
    server.process.terminate()
    assert next(watch).status == health.HealthCheckResponse.NOT_SERVING
    assert failure(lambda: watch)[:2] == (grpc.StatusCode.UNAVAILABLE, "unavailable")
    next(held)  # goes on while the server drains
    held.cancel()
    assert server.process.wait(30 * SLOWNESS) == 0, "it ends when the last call has"


# ---- Watch, List, Status ----


def test_watch_brings_news(dial, stubs, server, nginx):
    model = nginx.model("a/model.bin", CHUNK)
    nginx.model("b/model.bin", CHUNK, seed=2)
    stub = dial(server)
    watch = stub.Watch(stubs.pb.WatchRequest(prefix=nginx.url("a/")), timeout=2 * PATIENCE)
    assert not next(watch).HasField("entry")  # it has begun
    for folder in "ba":
        list(stub.Fetch(stubs.pb.FetchRequest(url=nginx.url(f"{folder}/model.bin")), timeout=PATIENCE))
    entry = next(watch).entry
    assert entry.url == nginx.url("a/model.bin")
    assert entry.digest.hex() == model.sha256
    assert stub.Evict(stubs.pb.EvictRequest(url=entry.url), timeout=PATIENCE).bytes >= CHUNK
    assert next(watch).entry.missing
    watch.cancel()
    wait_until(lambda: server.metric("control_calls_open") == 0, what="the watch's end")


def test_a_long_list_waits_for_its_reader(dial, stubs, make_server, folder):
    """More than the server holds ready of it: nothing is left out, and little memory is taken."""
    count = scaled(20000) + 3000
    (folder / "many").mkdir()
    for number in range(count):
        (folder / "many" / f"{number:06}-{'x' * 100}").touch()
    server = make_server("--schemes", "file")
    stub = dial(server)
    call = stub.List(stubs.pb.ListRequest(prefix=f"file://{folder}/many/", origin=True), timeout=6 * PATIENCE)
    first = next(call)
    # Others are answered while it is not read.
    assert '"version"' in stub.Status(stubs.pb.StatusRequest(), timeout=PATIENCE).json
    paths = [listed.path for response in (first, *call) for listed in response.listed]
    assert len(paths) == len(set(paths)) == count


def test_a_dead_origin_keeps_nobody_else_waiting(dial, stubs, make_server, nginx):
    """However many ask for it: Status and Stat of other origins are answered."""
    server = make_server("--stall-timeout", "10m")
    nginx.model("model.bin", 1000)
    stub = dial(server)
    with tarpit() as address:
        calls = [stub.Stat.future(stubs.pb.StatRequest(url=f"http://{address}/{n}"), timeout=600) for n in range(100)]
        wait_until(lambda: server.metric("control_calls_open") == 100, what="the calls")
        stat = stub.Stat(stubs.pb.StatRequest(url=nginx.url("model.bin")), timeout=PATIENCE)
        assert stat.entry.size == 1000
        stub.Status(stubs.pb.StatusRequest(), timeout=PATIENCE)
        stub.Evict.future(stubs.pb.EvictRequest(url=nginx.url("x")), timeout=PATIENCE).exception()
        assert server.threads() < 100
        for call in calls:
            call.cancel()
        server.kill9()


# ---- many ----


class Waiters:
    """Calls that wait, by a client that costs little."""

    def __init__(self, server, url, count, connections):
        args = [BUILD / "tests/bench/rpc_bench", server.control, url, "wait", count, connections]
        self.process = subprocess.Popen(
            [str(arg) for arg in args], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.server, self.count = server, count

    def __enter__(self):
        wait_until(lambda: self.server.metric("waiting_requests") == self.count, 120, "all callers' wait")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_waiting_clients_cost_little(make_server, slow):
    count = 2000
    server = make_server("--stall-timeout", "10m", "--parallelism", 1)
    url = slow.url("model.bin")
    with Waiters(server, url, 1, 1):
        before, threads = server.memory(), server.threads()
    wait_until(lambda: server.metric("flights_running") == 0, what="the end of the first")
    with Waiters(server, url, count, 50):
        assert (server.memory() - before) / count < memory_allowance(30000)
        assert server.threads() <= threads + 3
    wait_until(lambda: server.metric("waiting_requests") == 0, 30, "the end of calls whose client is gone")
    wait_until(lambda: server.metric("control_calls_open") == 0, 30, "the calls' end")


def test_a_message_of_a_gigabyte_hits_nobody_else(make_server, slow, folder):
    server = make_server("--stall-timeout", "10m", "--parallelism", 1)
    with Waiters(server, slow.url("model.bin"), 500, 50) as others:
        grpc_call(server, folder, FETCH, ((GIB).to_bytes(5, "big"), GIB))
        grpc_call(server, folder, FETCH, message(b"\x0a", length=GIB))
        assert server.memory("VmHWM") < memory_allowance(200 * MIB)
        assert server.metric("waiting_requests") == 500
        assert others.process.poll() is None


def test_progress_is_told_less_often_to_many(dial, stubs, make_server, slow):
    """One waiter hears four times a second, thousands much less: together ten thousand messages a second at most."""
    server = make_server("--stall-timeout", "10m", "--parallelism", 1)
    stub = dial(server)

    def pause():
        """The shortest time between two events of one phase."""
        call = stub.Fetch(stubs.pb.FetchRequest(url=slow.url("model.bin")), timeout=6 * PATIENCE)
        times = []
        for event in call:
            if event.progress.phase == stubs.pb.Progress.DOWNLOADING:
                times.append(time.monotonic())
            if len(times) == 4:
                break
        call.cancel()
        return times[3] - times[1]

    alone = pause()
    with Waiters(server, slow.url("model.bin"), 5000, 20):
        among_many = pause()
    assert among_many > 0.8, "5000 × 100 µs, twice"
    assert alone < among_many


def test_calls_that_come_and_go(dial, stubs, server, nginx):
    """Starts, cancels, ends and deadlines against each other: nothing is left, nothing is wrong."""
    nginx.model("model.bin", 64 * KIB)
    stub = dial(server)
    wrong = []

    def client(number):
        for turn in range(scaled(60)):
            url = nginx.url("model.bin" if turn % 3 else f"nowhere{number}.bin")
            call = stub.Fetch(stubs.pb.FetchRequest(url=url, revalidate=turn % 2 == 0), timeout=PATIENCE)
            try:
                if turn % 4 == 1:
                    call.cancel()
                for event in call:
                    if turn % 4 == 2:
                        call.cancel()
                    if event.ticket.complete and event.ticket.size != 64 * KIB:
                        wrong.append(event)
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND):
                    wrong.append(error)
            watch = stub.Watch(stubs.pb.WatchRequest(prefix=""), timeout=PATIENCE)
            watch.cancel()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    wait_until(lambda: server.metric("control_calls_open") == 0, 30, "the calls' end")
    wait_until(lambda: server.metric("flights_running") == 0, 30, "the flights' end")
    assert not re.search(r"\berror\b", server.log_text())
