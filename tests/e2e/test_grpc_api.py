"""The control plane as somebody uses it who has nothing but the .proto files: stubs made from them, real gRPC channels,
and for the bytes a few lines that speak the data plane."""

import hashlib
import json
import socket
import struct
import threading
from urllib.parse import urlsplit

import grpc
import pytest
from harness import CHUNK, MIB, SLOWNESS, free_port, wait_until

PATIENCE = 30 * SLOWNESS
STATUS_KEY = "modelcache-status"


@pytest.fixture
def pb(stubs):
    return stubs.pb


@pytest.fixture
def stub(dial, server):
    return dial(server)


@pytest.fixture
def slow_nginx(make_nginx):
    return make_nginx(rate=MIB)


def fetch(stub, pb, url, **fields):
    """All events of one Fetch."""
    return list(stub.Fetch(pb.FetchRequest(url=url, **fields), timeout=PATIENCE))


def ticket_of(events):
    tickets = [event.ticket for event in events if event.WhichOneof("event") == "ticket"]
    assert tickets and events[-1].ticket == tickets[-1], "a Fetch ends with a ticket"
    return tickets[-1]


def error_of(call, code):
    """The error that a call ends with, of which the code and the form are checked."""
    with pytest.raises(grpc.RpcError) as caught:
        result = call()
        if not hasattr(result, "SerializeToString"):
            list(result)
    error = caught.value
    assert error.code() == code, (error.code(), error.details())
    assert error.details() and "\n" not in error.details()
    named = dict(error.trailing_metadata() or ()).get(STATUS_KEY)
    if named is not None and code != grpc.StatusCode.RESOURCE_EXHAUSTED and code != grpc.StatusCode.ABORTED:
        assert named.upper() in (code.name, "UNSUPPORTED", "CORRUPT", "IO", "PROTOCOL")
    return error


def receive(sock, size):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), MIB))
        assert piece, "the data plane closed the connection"
        data += piece
    return bytes(data)


def read(ticket, offset=0, length=None):
    """Bytes by a ticket: one request to the data plane, and the frames that answer it."""
    length = ticket.size - offset if length is None else length
    endpoint = urlsplit(ticket.endpoints[0])
    assert endpoint.scheme == "tcp"
    content = ticket.digest if ticket.complete else ticket.flight
    request = struct.pack(
        "<4sBBBBIIQQ32s", b"MCDP", 1, 1, 0, 1 if ticket.complete else 2, 7, 0, offset, length, content
    )
    data = bytearray()
    with socket.create_connection((endpoint.hostname, endpoint.port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        while len(data) < length:
            magic, version, kind, _, _, number, status, at, size, _ = struct.unpack("<4sBBBBIIQQ32s", receive(sock, 64))
            assert (magic, version, number) == (b"MCDP", 1, 7)
            if kind == 5:
                raise AssertionError(f"status {status}: {receive(sock, size).decode()}")
            if kind == 2:
                assert at == offset + len(data)
                data += receive(sock, size)
    return bytes(data)


# ---- Fetch ----


def test_fetch_and_read(nginx, server, stub, pb):
    model = nginx.model("model.bin", 2 * CHUNK + 77)
    events = fetch(stub, pb, nginx.url("model.bin"))
    ticket = ticket_of(events)
    assert ticket.complete
    assert not ticket.cached
    assert ticket.digest.hex() == model.sha256
    assert ticket.flight == b""
    assert ticket.size == model.size
    assert ticket.chunk_size == CHUNK
    assert len(ticket.chunks) == 3 * 16
    assert ticket.validators.etag or ticket.validators.last_modified
    assert hashlib.sha256(read(ticket)).hexdigest() == model.sha256
    assert read(ticket, CHUNK - 5, 10) == model.bytes()[CHUNK - 5 : CHUNK + 5]

    again = ticket_of(fetch(stub, pb, nginx.url("model.bin")))
    assert again.cached
    assert (again.digest, again.chunks, again.size) == (ticket.digest, ticket.chunks, ticket.size)
    known = ticket_of(fetch(stub, pb, nginx.url("model.bin"), known_digest=ticket.digest))
    assert known.digest == ticket.digest
    assert known.chunks == b""
    other = ticket_of(fetch(stub, pb, nginx.url("model.bin"), known_digest=bytes(32)))
    assert other.chunks == ticket.chunks
    assert nginx.bytes_sent("model.bin") == model.size


def test_fetch_of_an_empty_file(nginx, stub, pb):
    nginx.model("empty.bin", 0)
    ticket = ticket_of(fetch(stub, pb, nginx.url("empty.bin")))
    assert ticket.complete
    assert (ticket.size, ticket.chunks) == (0, b"")
    assert ticket.digest == hashlib.sha256(b"").digest()


def test_progress(slow_nginx, stub, pb):
    model = slow_nginx.model("model.bin", 4 * MIB)
    events = fetch(stub, pb, slow_nginx.url("model.bin"))
    progress = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    assert len(progress) > 1
    loading = [news for news in progress if news.phase == pb.Progress.DOWNLOADING]
    assert loading
    assert all(news.WhichOneof("has_total") and news.total == model.size for news in loading)
    assert [news.bytes for news in loading] == sorted(news.bytes for news in loading)
    assert all(news.bytes <= model.size for news in loading)
    assert all(news.reason for news in progress)
    assert ticket_of(events).digest.hex() == model.sha256


def test_quiet(slow_nginx, stub, pb):
    slow_nginx.model("model.bin", 3 * MIB)
    events = fetch(stub, pb, slow_nginx.url("model.bin"), quiet=True)
    assert [event.WhichOneof("event") for event in events] == ["ticket"]


def test_follow(slow_nginx, server, stub, pb):
    """What is downloaded can be read by the first ticket, before the second one comes."""
    model = slow_nginx.model("model.bin", 2 * CHUNK)
    call = stub.Fetch(pb.FetchRequest(url=slow_nginx.url("model.bin"), follow=True, quiet=True), timeout=PATIENCE)
    first = next(call).ticket
    assert not first.complete
    assert len(first.flight) == 32
    assert first.digest == b""
    assert (first.size, first.chunks) == (model.size, b"")
    assert hashlib.sha256(read(first)).hexdigest() == model.sha256
    second = next(call).ticket
    assert second.complete
    assert second.digest.hex() == model.sha256
    assert list(call) == []
    # Of what is there already there is nothing to follow.
    events = fetch(stub, pb, slow_nginx.url("model.bin"), follow=True)
    assert ticket_of(events).cached


def test_many_on_one_channel(nginx, server, stub, pb):
    model = nginx.model("model.bin", CHUNK + 1)
    calls = [stub.Fetch(pb.FetchRequest(url=nginx.url("model.bin")), timeout=PATIENCE) for _ in range(50)]
    for call in calls:
        assert ticket_of(list(call)).digest.hex() == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_revalidate(nginx, stub, pb):
    nginx.model("model.bin", 1000, seed=1)
    before = ticket_of(fetch(stub, pb, nginx.url("model.bin")))
    new = nginx.model("model.bin", 1001, seed=2)
    assert ticket_of(fetch(stub, pb, nginx.url("model.bin"))).digest == before.digest  # young enough
    assert ticket_of(fetch(stub, pb, nginx.url("model.bin"), revalidate=True)).digest.hex() == new.sha256


def test_what_was_listed_need_not_be_asked(nginx, make_server, dial, pb):
    """A caller says which version a listing told him of: to him it will do, and others get nothing wrong for it."""
    stub = dial(make_server("--revalidate-after", "1ms"))
    model = nginx.model("model.bin", 1000, seed=1)
    other = nginx.model("other.bin", 1000, seed=2)
    url = nginx.url("model.bin")
    first = ticket_of(fetch(stub, pb, url))
    fetch(stub, pb, nginx.url("other.bin"))

    def asked():
        return len(nginx.requests("model.bin"))

    before = asked()
    listed = pb.Listed(size=1000, validators=first.validators)
    assert ticket_of(fetch(stub, pb, url, listed=listed)).digest.hex() == model.sha256
    assert ticket_of(fetch(stub, pb, url, listed=listed, revalidate=True)).digest == first.digest
    assert asked() == before > 0
    lies = [
        pb.Listed(size=1000, digest=bytes.fromhex(other.sha256)),
        pb.Listed(size=7, validators=first.validators),
        pb.Listed(size=1000, validators=pb.Validators(etag='"another"')),
        pb.Listed(size=1000, validators=pb.Validators(last_modified=1)),
        pb.Listed(size=1000, validators=pb.Validators(etag="x" * 10000)),
        pb.Listed(digest=b"short"),
    ]
    for lie in lies:
        before = asked()
        assert ticket_of(fetch(stub, pb, url, listed=lie)).digest.hex() == model.sha256
        assert asked() > before
        assert ticket_of(fetch(stub, pb, url, listed=listed)).digest.hex() == model.sha256


# ---- the other calls ----


def test_stat(nginx, stub, pb):
    model = nginx.model("model.bin", 12345)
    url = nginx.url("model.bin")
    error_of(lambda: stub.Stat(pb.StatRequest(url=url, cached=True), timeout=PATIENCE), grpc.StatusCode.NOT_FOUND)
    entry = stub.Stat(pb.StatRequest(url=url), timeout=PATIENCE).entry
    assert entry.url == url
    assert entry.WhichOneof("has_size") and entry.size == model.size
    assert entry.validators.etag
    assert entry.digest == b""
    assert nginx.bytes_sent("model.bin") <= 1  # it was not got for that
    fetch(stub, pb, url)
    cached = stub.Stat(pb.StatRequest(url=url, cached=True), timeout=PATIENCE).entry
    assert cached.digest.hex() == model.sha256
    assert cached.fetched_at_ms > 1_600_000_000_000
    assert cached.checked_at_ms >= cached.fetched_at_ms
    assert not cached.pinned
    assert not cached.missing


def test_list(nginx, stub, pb):
    names = [f"d/{number:03d}.bin" for number in range(150)] + ["d/sub/x y%.bin"]
    models = {name: nginx.model(name, 10 + number, seed=number) for number, name in enumerate(names)}
    batches = list(stub.List(pb.ListRequest(prefix=nginx.url("d/"), origin=True), timeout=PATIENCE))
    listed = [item for batch in batches for item in batch.listed]
    assert sorted(item.path for item in listed) == sorted(name[2:] for name in names)
    assert all(not item.WhichOneof("has_size") or item.size == models[f"d/{item.path}"].size for item in listed)
    assert not any(batch.entries for batch in batches)

    def entries(prefix):
        return [
            entry for batch in stub.List(pb.ListRequest(prefix=prefix), timeout=PATIENCE) for entry in batch.entries
        ]

    assert entries("") == []
    for name in names[:100]:
        fetch(stub, pb, nginx.url(name))
    urls = [entry.url for entry in entries(nginx.url("d/"))]
    assert urls == sorted(nginx.url(name) for name in names[:100])
    assert [entry.url for entry in entries(nginx.url("d/007"))] == [nginx.url("d/007.bin")]
    assert entries(nginx.url("e/")) == []
    error_of(
        lambda: stub.List(pb.ListRequest(prefix=nginx.url("e/"), origin=True), timeout=PATIENCE),
        grpc.StatusCode.NOT_FOUND,
    )


def test_prefetch_and_watch(nginx, stub, pb):
    """Prefetch returns at once; Watch says when it is there, and of which version."""
    model = nginx.model("d/model.bin", CHUNK, seed=1)
    nginx.model("e/model.bin", 1000)
    url = nginx.url("d/model.bin")
    watch = stub.Watch(pb.WatchRequest(prefix=nginx.url("d/")), timeout=PATIENCE)
    only = stub.Watch(pb.WatchRequest(prefix=url), timeout=PATIENCE)
    begun(watch, only)
    stub.Prefetch(pb.PrefetchRequest(url=nginx.url("e/model.bin")), timeout=PATIENCE)
    stub.Prefetch(pb.PrefetchRequest(url=url, pin=True), timeout=PATIENCE)
    for news in (watch, only):
        entry = next(news).entry  # the other folder is none of its news
        assert entry.url == url
        assert entry.digest.hex() == model.sha256
        assert entry.pinned
    new = nginx.model("d/model.bin", CHUNK - 1, seed=2)
    fetch(stub, pb, url, revalidate=True)
    assert next(watch).entry.digest.hex() == new.sha256
    watch.cancel()
    only.cancel()
    assert watch.code() == grpc.StatusCode.CANCELLED


def begun(*watches):
    """An event without an entry says that what changes from then on is told."""
    assert not any(next(watch).HasField("entry") for watch in watches)


def test_evict(nginx, stub, pb):
    model = nginx.model("model.bin", 54321)
    url = nginx.url("model.bin")
    fetch(stub, pb, url)
    assert stub.Evict(pb.EvictRequest(url=url), timeout=PATIENCE).bytes == model.size
    error_of(lambda: stub.Stat(pb.StatRequest(url=url, cached=True), timeout=PATIENCE), grpc.StatusCode.NOT_FOUND)
    error_of(lambda: stub.Evict(pb.EvictRequest(url=url), timeout=PATIENCE), grpc.StatusCode.NOT_FOUND)
    assert not ticket_of(fetch(stub, pb, url)).cached
    assert nginx.bytes_sent("model.bin") == 2 * model.size


def test_status(nginx, server, stub, pb):
    nginx.model("model.bin", 1000)
    fetch(stub, pb, nginx.url("model.bin"))
    state = json.loads(stub.Status(pb.StatusRequest(), timeout=PATIENCE).json)
    assert state["counters"]["downloads_total"] == 1
    assert state["flights"] == []


def test_health(server, stubs, dial, pb):
    stub = dial(server)
    health = stubs.health_grpc.HealthStub(stub.channel)
    serving = stubs.health.HealthCheckResponse.SERVING
    for service in ("", "modelcache.v1.ModelCache"):
        assert health.Check(stubs.health.HealthCheckRequest(service=service), timeout=PATIENCE).status == serving
    watch = health.Watch(stubs.health.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == serving
    for _ in range(3):  # what was asked later, on the same connection, has been answered: it is told of what comes
        stub.Status(pb.StatusRequest(), timeout=PATIENCE)
    server.process.terminate()
    assert next(watch).status == stubs.health.HealthCheckResponse.NOT_SERVING
    error_of(lambda: watch, grpc.StatusCode.UNAVAILABLE)
    assert server.process.wait(PATIENCE) == 0


# ---- what goes wrong ----


BAD_URLS = ["", "model.bin", "http://host:99999/x", "http://127.0.0.1:1/" + "x" * 10000, "http://127.0.0.1:1/%zz"]


@pytest.mark.parametrize("method", ["Fetch", "Stat", "Prefetch", "Evict"])
def test_bad_urls(stub, pb, method):
    for url in BAD_URLS:
        request = getattr(pb, f"{method}Request")(url=url)
        error_of(
            lambda request=request: getattr(stub, method)(request, timeout=PATIENCE), grpc.StatusCode.INVALID_ARGUMENT
        )


def test_what_the_server_may_not_get(stub, pb):
    url = "file:///etc/passwd"
    for ask in (
        lambda: stub.Fetch(pb.FetchRequest(url=url), timeout=PATIENCE),
        lambda: stub.Stat(pb.StatRequest(url=url), timeout=PATIENCE),
        lambda: stub.List(pb.ListRequest(prefix="file:///etc/", origin=True), timeout=PATIENCE),
    ):
        error_of(ask, grpc.StatusCode.PERMISSION_DENIED)


def test_errors_of_the_origin(make_nginx, make_server, dial, pb):
    nginx = make_nginx(extra="location = /secret.bin { return 403; } location = /broken.bin { return 500; }")
    stub = dial(make_server("--retries", 0))
    rows = [("nowhere.bin", "NOT_FOUND"), ("secret.bin", "PERMISSION_DENIED"), ("broken.bin", "UNAVAILABLE")]
    for name, code in rows:
        for ask in (
            lambda name=name: stub.Fetch(pb.FetchRequest(url=nginx.url(name)), timeout=PATIENCE),
            lambda name=name: stub.Stat(pb.StatRequest(url=nginx.url(name)), timeout=PATIENCE),
        ):
            error_of(ask, getattr(grpc.StatusCode, code))
    gone = f"http://127.0.0.1:{free_port()}/x"
    error = error_of(lambda: stub.Fetch(pb.FetchRequest(url=gone), timeout=PATIENCE), grpc.StatusCode.UNAVAILABLE)
    assert gone.split("/")[2] in error.details()


def test_no_room(nginx, make_server, dial, pb):
    """A server that tells its own status says which of the limits it was."""
    nginx.model("model.bin", 2 * CHUNK)
    stub = dial(make_server("--storage-capacity", "1MiB"))
    error = error_of(
        lambda: stub.Fetch(pb.FetchRequest(url=nginx.url("model.bin")), timeout=PATIENCE),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
    assert dict(error.trailing_metadata()).get(STATUS_KEY, "no_space") == "no_space"


def test_unknown_methods(stub):
    for path in (
        "/modelcache.v1.ModelCache/Nope",
        "/modelcache.v2.ModelCache/Fetch",
        "/x",
        "/grpc.health.v1.Health/No",
    ):
        call = stub.channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        error_of(lambda call=call: call(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)


def test_messages_that_are_none(stub, server):
    call = stub.channel.unary_stream(
        "/modelcache.v1.ModelCache/Fetch", request_serializer=bytes, response_deserializer=bytes
    )
    for message in (b"\xff" * 20, b"\x0a\x7f", b"\x0a\x02\xff\xfe" + b"\x08" * 3):
        error_of(lambda message=message: call(message, timeout=PATIENCE), grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(b"\x0a" + b"\x80" * 4 + b"x" * (8 * MIB), timeout=PATIENCE))
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
    assert server.is_alive()


def waiting(server):
    return server.metric("waiting_requests")


def test_a_deadline(make_nginx, server, stub, pb):
    nginx = make_nginx(rate=100_000)
    nginx.model("model.bin", 8 * MIB)
    url = nginx.url("model.bin")
    other = stub.Fetch(pb.FetchRequest(url=url), timeout=PATIENCE)
    next(other)
    call = stub.Fetch(pb.FetchRequest(url=url), timeout=0.5)
    error_of(lambda: call, grpc.StatusCode.DEADLINE_EXCEEDED)
    wait_until(lambda: waiting(server) == 1, 10, "only the other call waiting")
    assert other.is_active()  # its download goes on
    other.cancel()


def test_a_cancelled_call(make_nginx, server, stub, pb):
    """The server learns of it; the last one that leaves ends the download."""
    nginx = make_nginx(rate=100_000)
    nginx.model("model.bin", 8 * MIB)
    calls = [stub.Fetch(pb.FetchRequest(url=nginx.url("model.bin")), timeout=PATIENCE) for _ in range(3)]
    for call in calls:
        next(call)
    wait_until(lambda: waiting(server) == 3, 10, "three calls waiting")
    for left, call in ((2, calls[0]), (1, calls[1]), (0, calls[2])):
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED
        wait_until(lambda left=left: waiting(server) == left, 10, "the server having noticed")
    wait_until(lambda: server.metric("flights_running") == 0, 10, "the download having ended")


def test_a_client_that_vanishes(make_nginx, server, dial, pb):
    nginx = make_nginx(rate=100_000)
    nginx.model("model.bin", 8 * MIB)
    stub = dial(server)
    call = stub.Fetch(pb.FetchRequest(url=nginx.url("model.bin")), timeout=PATIENCE)
    next(call)
    stub.channel.close()
    wait_until(lambda: waiting(server) == 0 and server.metric("flights_running") == 0, 10, "the server having noticed")


def test_a_watcher_ends_with_its_deadline(stub, pb):
    error_of(lambda: stub.Watch(pb.WatchRequest(prefix=""), timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)


def test_stop_ends_watchers(server, stub, pb):
    watch = stub.Watch(pb.WatchRequest(prefix=""), timeout=PATIENCE)
    begun(watch)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(error_of(lambda: watch, grpc.StatusCode.UNAVAILABLE)))
    thread.start()
    assert server.stop() == 0
    thread.join(PATIENCE)
    assert ended
