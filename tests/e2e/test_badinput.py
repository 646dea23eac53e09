"""Bytes that nobody should send, on every port; URLs and listings that nobody should write."""

import os
import random
import socket
import struct
import subprocess
from urllib.parse import quote

import pytest
from harness import (
    CHUNK,
    DENIED,
    FAILURE,
    GIB,
    MIB,
    MISSING,
    OK,
    SLOWNESS,
    USAGE,
    clean_environment,
    memory_allowance,
    sha256,
    wait_until,
)

PORTS = ["control", "data", "web"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FETCH = "/modelcache.v1.ModelCache/Fetch"


def frame(kind, flags, stream, payload=b"", length=None):
    """An HTTP/2 frame, with a length of its own choice."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10 * SLOWNESS)


def throw(address, *pieces):
    """Send what can be sent, then listen until the server has had enough or a moment has passed."""
    with connect(address) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(1)
            while sock.recv(65536):
                pass
        except OSError:
            pass


def check_that_it_works(server, nginx, make_client, folder):
    assert server.is_alive()
    (folder / "out").unlink(missing_ok=True)
    model = nginx.model("works.bin", CHUNK + 99)
    make_client(server, MODELCACHE_FALLBACK="no")("get", nginx.url("works.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256


# ---- the command's input ----


@pytest.mark.parametrize(
    "url",
    [
        "",
        "model.bin",
        "http://",
        "http:///path",
        "http://host:99999/x",
        "http://host:port/x",
        "http://ho st/x",
        "http://127.0.0.1:1/%zz",
        "http://127.0.0.1:1/a%00b",
        "http://127.0.0.1:1/a\nb",
        "http://[::1/x",
        "://x/y",
        "http://127.0.0.1:1/" + "x" * 100_000,
    ],
)
def test_malformed_urls(make_client, server, folder, url):
    for client in (make_client(), make_client(server)):
        result = client("get", url, "-o", folder / "out", "--timeout", "10s", code=USAGE)
        assert result.err.count("\n") == 1
        assert len(result.err) < 2000
    assert server.metric("flights_total") == 0


def test_unknown_schemes(make_client, server, folder):
    for client in (make_client(), make_client(server)):
        result = client("get", "warp://host/x", "-o", folder / "out", code=None)
        assert result.code in (FAILURE, DENIED), result
        assert "warp" in result.err


def test_hosts_that_do_not_answer(local, folder):
    local("get", "http://127.0.0.1:1/x", "-o", folder / "out", "--retries", "1", code=5)
    result = local("get", "http://nowhere.invalid/x", "-o", folder / "out", "--retries", "0", code=None)
    assert result.code in (MISSING, 5)
    assert "nowhere.invalid" in result.err


def test_odd_names_are_fine(nginx, client, folder):
    for number, name in enumerate(
        ["with space.bin", "ünïcödé.bin", "100%.bin", "a+b&c=d;e.bin", "#hash?.bin", "'\"`$.bin"]
    ):
        model = nginx.model(name, 100 + number, seed=number)
        client("get", nginx.url(quote(name)), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256, name


# ---- wrong bytes on every port ----


@pytest.mark.parametrize("port", PORTS)
def test_garbage(nginx, server, make_client, folder, port):
    address, dice = getattr(server, port), random.Random(port)
    throw(address)
    for size in (1, 4, 16, 100, 5000, 300_000):
        for _ in range(5):
            throw(address, dice.randbytes(size))
        throw(address, b"\0" * size)
        throw(address, b"\xff" * size)
    throw(address, b"GET / HTTP/1.1\r\n\r\n")
    throw(address, b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    throw(address, b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n" * 2)
    throw(address, b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n")
    assert server.memory("VmHWM") < memory_allowance(200 * MIB)
    check_that_it_works(server, nginx, make_client, folder)


@pytest.mark.parametrize(
    "frames",
    [
        (frame(0, 0, 1, length=0xFFFFFF),),
        (frame(4, 0, 0), frame(1, 4, 1, b"\xff" * 1000)),
        (frame(4, 0, 0), frame(0, 0, 7, b"data of no stream")),
        (frame(4, 0, 0), frame(9, 0, 0, b"\0" * 16000) * 50),
        (frame(4, 0, 0, b"\0" * 7),),
        (frame(4, 0, 0), frame(8, 0, 0, b"\0\0\0\0")),
        (frame(4, 0, 0), frame(99, 255, 2**31 - 1, b"?" * 100) * 1000),
        (frame(4, 0, 0), frame(6, 0, 0, b"\0" * 8) * 20000),
    ],
    ids=["huge", "hpack", "stray data", "continuation", "settings", "window", "unknown", "pings"],
)
def test_wrong_http2_frames(nginx, server, make_client, folder, frames):
    throw(server.control, PREFACE, *frames)
    check_that_it_works(server, nginx, make_client, folder)


def grpc_call(server, folder, path, body, headers=()):
    """curl as a gRPC client that does not mind its manners; the trailers and headers of the answer."""
    source = folder / "body"
    if isinstance(body, bytes):
        source.write_bytes(body)
    else:
        with open(source, "wb") as file:  # a prefix that is followed by a hole
            file.write(body[0])
            file.truncate(len(body[0]) + body[1])
    args = ["curl", "-s", "--http2-prior-knowledge", "--max-time", str(20 * SLOWNESS), "-X", "POST", "-T", source]
    args += ["-D", "-", "-o", "/dev/null", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    for header in headers:
        args += ["-H", header]
    done = subprocess.run(
        [*args, f"http://{server.control}{path}"], capture_output=True, text=True, env=clean_environment(folder)
    )
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line), done.returncode


def message(payload, flag=0, length=None):
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


def test_a_message_of_a_gigabyte(nginx, server, make_client, folder):
    """Neither one that is announced, nor one that is sent, is taken in."""
    answer, code = grpc_call(server, folder, FETCH, message(b"\x0a\x05http:", length=GIB))
    assert code != 0 or answer.get("grpc-status") not in (None, "0"), answer
    answer, code = grpc_call(server, folder, FETCH, (struct.pack(">BI", 0, GIB), GIB))
    assert code != 0 or answer.get("grpc-status") == "8", answer
    assert server.memory("VmHWM") < memory_allowance(200 * MIB)
    check_that_it_works(server, nginx, make_client, folder)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (FETCH, message(b"\xff\xff\xff\xff\xff"), {"3", "13"}),
        (FETCH, message(b"\x0a\xff\xff\xff\xff\x0f"), {"3", "13"}),
        (FETCH, message(b""), {"3"}),
        (FETCH, message(b"\x0a\x07no url!"), {"3"}),
        (FETCH, message(b"\x0a\x03\xff\xfe\xfd"), {"3", "13"}),
        (FETCH, message(b"\x0a\x02hi", flag=1), {"3", "12", "13"}),
        (FETCH, message(b"\x0a" + b"\x90\x4e" + b"http://h/" + b"x" * 9991), {"3"}),
        ("/modelcache.v1.ModelCache/Nothing", message(b""), {"12"}),
        ("/another.Service/Call", message(b""), {"12"}),
        ("/", message(b""), {"12"}),
    ],
    ids=["protobuf", "length", "empty", "url", "utf8", "compressed", "long url", "method", "service", "root"],
)
def test_wrong_grpc_messages(server, folder, path, body, status):
    answer, _ = grpc_call(server, folder, path, body)
    assert answer.get("grpc-status") in status, answer
    assert server.is_alive()


def test_connections_that_say_nothing(nginx, server, make_client, folder):
    """They take a place and no more."""
    silent = [connect(getattr(server, port)) for port in ("control", "data") for _ in range(200)]
    silent += [connect(server.web) for _ in range(20)]
    try:
        check_that_it_works(server, nginx, make_client, folder)
        assert server.memory() < memory_allowance(250 * MIB)
        assert server.threads() < 100
    finally:
        for sock in silent:
            sock.close()
    wait_until(lambda: server.open_files() < 120, 30, "their descriptors' end")


def test_too_many_connections(nginx, make_server, make_client, folder):
    """Beyond the limit they are refused; afterwards all is as before."""
    server = make_server("--max-connections", 16)
    held = [connect(server.data) for _ in range(16)]
    wait_until(lambda: server.metric("data_connections") == 16, what="the connections")
    with connect(server.data) as one_more:
        one_more.settimeout(10 * SLOWNESS)
        answer = b"?"
        while answer:
            try:
                answer = one_more.recv(4096)
            except ConnectionResetError:
                answer = b""
    for sock in held:
        sock.close()
    wait_until(lambda: server.metric("data_connections") == 0, what="the end of the connections")
    check_that_it_works(server, nginx, make_client, folder)


# ---- listings ----

EVIL_LINKS = [
    "../../../../../../tmp/evil-1",
    "/etc/passwd",
    "..%2f..%2f..%2fevil-2",
    "%2e%2e/%2e%2e/evil-3",
    "sub/../../evil-4",
    "a/%2e%2e/%2e%2e/evil-5",
    "..\\..\\evil-6",
    "//127.0.0.1:1/evil-7",
    "http://127.0.0.1:1/evil-8",
    "file:///etc/passwd",
    "evil%00-9",
    "evil%0a-10",
    "x" * 300 + "-evil",
    "javascript:alert(1)",
    "?C=N&O=D",
    "#top",
    ".",
    "..",
    "./",
    "",
]


@pytest.fixture(params=["server", "local"])
def getter(request, make_client, make_server):
    if request.param == "local":
        return make_client(MODELCACHE_RETRIES="0")
    return make_client(make_server("--retries", 0), MODELCACHE_RETRIES="0")


def all_files(path):
    return {os.path.relpath(os.path.join(where, name), path) for where, _, names in os.walk(path) for name in names}


@pytest.mark.parametrize("link", EVIL_LINKS)
def test_a_link_that_leads_out_of_the_tree(origin, getter, folder, link):
    """It is left out, or the listing is refused: nothing is written elsewhere."""
    good = origin.model("dir/good.bin", 100)
    (origin.files / "evil.html").write_text(f'<html><a href="good.bin">good.bin</a><a href="{link}">evil</a></html>')
    origin.behave("dir/", "index:evil.html")
    before = all_files(folder) | {"client1"}
    result = getter("tree", origin.url("dir/"), folder / "trees" / "tree", "--timeout", "20s", code=None)
    for name in all_files(folder) - before:
        assert name.startswith(("client", "modelcached", "trees/")), name
        assert "evil" not in name, name
    if result.code == OK:
        assert all_files((folder / "trees" / "tree").resolve()) == {"good.bin"}
        assert sha256(folder / "trees" / "tree" / "good.bin") == good.sha256
    else:
        assert not (folder / "trees" / "tree").exists()


def test_a_listing_without_an_end(origin, getter, folder):
    """A folder that contains itself, and one with a million links."""
    (origin.files / "loop").mkdir()
    (origin.files / "loop.html").write_text('<html><a href="more/">more/</a></html>')
    origin.behave("*", "index:loop.html")
    result = getter("tree", origin.url("loop/"), folder / "tree", "--timeout", "60s", code=None, timeout=90)
    assert result.code != OK
    origin.behave("*")
    links = "".join(f'<a href="file-{number}.bin">{number}</a>\n' for number in range(1_000_000))
    (origin.files / "many.html").write_text(f"<html>{links}</html>")
    (origin.files / "many").mkdir()
    origin.behave("many/", "index:many.html")
    result = getter("tree", origin.url("many/"), folder / "tree", "--timeout", "60s", code=None, timeout=90)
    assert result.code != OK
    assert not (folder / "tree").exists()
