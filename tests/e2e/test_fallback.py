"""The server is down: the client goes to the origin and says so once. It is back: the client uses it again."""

import pathlib
import signal

import pytest
from harness import CHUNK, MIB, OK, UNAVAILABLE, sha256, wait_until


def test_server_down_then_back(nginx, server, make_client, folder):
    one, two, three = (nginx.model(f"{number}.bin", 2 * CHUNK, seed=number) for number in range(3))
    client = make_client(server)

    server.stop()
    result = client("get", nginx.url("0.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == one.sha256
    said = [line for line in result.err.splitlines() if server.control in line]
    assert len(said) == 1, result
    assert nginx.bytes_sent("0.bin") == one.size

    server.start()
    client("get", nginx.url("1.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == two.sha256
    assert server.metric("downloads_total") == 1

    server.kill9()
    client("get", nginx.url("2.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == three.sha256


def test_it_says_so_once_for_many_files(nginx, server, make_client, folder):
    models = [nginx.model(f"{number}.bin", 1000 + number, seed=number) for number in range(8)]
    server.stop()
    client = make_client(server)
    (folder / "out").mkdir()
    result = client("get", *(nginx.url(model.path.name) for model in models), "-o", folder / "out")
    for model in models:
        assert sha256(folder / "out" / model.path.name) == model.sha256
    assert len([line for line in result.err.splitlines() if server.control in line]) == 1, result


def warnings_of(result, server):
    return [line for line in result.err.splitlines() if server.control in line]


def make_tree(nginx, count, size=1000):
    models = {
        f"{number:03d}.bin": nginx.model(f"tree/{number:03d}.bin", size + number, seed=number)
        for number in range(count)
    }
    return {name: model.sha256 for name, model in models.items()}


def read_tree(path):
    return {file.name: sha256(file) for file in path.iterdir()}


def test_it_says_so_once_for_a_tree(nginx, server, make_client, folder):
    """50 files, many of them at once."""
    digests = make_tree(nginx, 50)
    server.stop()
    result = make_client(server)("tree", nginx.url("tree/"), folder / "out")
    assert read_tree(folder / "out") == digests
    assert len(warnings_of(result, server)) == 1, result


def test_a_frozen_server_is_not_waited_for_by_each_file(nginx, server, make_client, folder):
    """What a call to it costs, the time until it is given up, is paid for the first files that go together, and not
    for the next ones. The kernel goes on accepting connections for a stopped process: they are counted."""
    digests = make_tree(nginx, 200)
    client = make_client(server, MODELCACHE_CONNECT_TIMEOUT="1s", MODELCACHE_STALL_TIMEOUT="1s")
    server.processes.kill(server.process, signal.SIGSTOP)
    try:
        result = client("tree", nginx.url("tree/"), folder / "out")
        waiting = connections_to(server.control)
    finally:
        server.processes.kill(server.process, signal.SIGCONT)
    assert read_tree(folder / "out") == digests
    assert len(warnings_of(result, server)) == 1, result
    # The listing is the first call: it finds out, with a question whether anybody lives. Later on it is asked again a
    # few times in all; without a memory it would be two connections for each file.
    assert waiting < 20, waiting


def connections_to(address):
    """The connections that a listener's process has not closed: it is stopped, so all that were ever made."""
    port = int(address.rsplit(":", 1)[1])
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[1].rsplit(":", 1)[1], 16) == port and row[3] != "0A" for row in rows)


@pytest.mark.slow
def test_a_server_that_comes_back_is_used_by_the_same_client(make_nginx, server, make_client, folder):
    """One process gets file after file; the server is down at first, then up, down and up again."""
    nginx = make_nginx(rate=100_000)  # which begins with what a second allows
    models = [nginx.model(f"{number}.bin", 130_000, seed=number) for number in range(18)]  # a second each
    server.stop()
    (folder / "out").mkdir()
    client = make_client(server, MODELCACHE_FLIGHTS=1)
    process = client.start("get", *(nginx.url(model.path.name) for model in models), "-o", folder / "out")
    log = nginx.folder / "access.log"  # nginx.requests() would wait until nothing is under way
    for _ in range(2):
        have = log.read_text().count("\n")
        wait_until(lambda have=have: log.read_text().count("\n") > have + 2, 30, "files from the origin")
        server.start()
        wait_until(lambda: server.metric("served_bytes_total") > 0, 30, "the server being used again")
        server.kill9()
    server.start()
    result = client.finish(process, timeout=120)
    assert result.code == OK, result
    for model in models:
        assert sha256(folder / "out" / model.path.name) == model.sha256
        assert nginx.bytes_sent(model.path.name) < 2 * model.size + 1
    assert 2 <= len(warnings_of(result, server)) <= 3, result  # one for each outage


def test_without_fallback_it_is_an_error(nginx, server, make_client, folder):
    nginx.model("model.bin", 1000)
    server.stop()
    client = make_client(server, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="1")
    result = client("get", nginx.url("model.bin"), "-o", folder / "out", code=UNAVAILABLE)
    assert server.control in result.err
    assert nginx.requests("model.bin") == []


def test_what_the_client_has_needs_neither_server_nor_origin(nginx, server, make_client, folder):
    model = nginx.model("model.bin", 2 * CHUNK)
    client = make_client(server)
    client("get", nginx.url("model.bin"), "-o", folder / "one")
    server.stop()
    nginx.stop()
    client("get", nginx.url("model.bin"), "-o", folder / "two")
    assert sha256(folder / "two") == model.sha256


def test_server_dies_during_a_serve(make_nginx, make_server, make_client, folder):
    """The client has a part from the server and gets the rest from the origin."""
    nginx = make_nginx(rate=2 * MIB)
    server = make_server()
    model = nginx.model("model.bin", 10 * CHUNK)
    client = make_client(server)
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("served_bytes_total") > 3 * CHUNK, 30, "some of it having been served")
    server.kill9()
    result = client.finish(process)
    assert result.code == OK, result
    assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") < 2 * model.size


def test_server_that_hangs_is_given_up(nginx, server, make_client, folder):
    """A stopped process accepts connections and never answers."""
    model = nginx.model("model.bin", 2 * CHUNK)
    client = make_client(server, MODELCACHE_STALL_TIMEOUT="1s", MODELCACHE_CONNECT_TIMEOUT="1s", MODELCACHE_RETRIES="0")
    server.processes.kill(server.process, signal.SIGSTOP)
    try:
        client("get", nginx.url("model.bin"), "-o", folder / "out", timeout=30)
    finally:
        server.processes.kill(server.process, signal.SIGCONT)
    assert sha256(folder / "out") == model.sha256


def test_origin_comes_back_during_a_download(make_nginx, make_server, make_client, folder):
    """The server's own retries bridge a restart of the origin."""
    nginx = make_nginx(rate=2 * MIB)
    server = make_server("--retries", 8)
    model = nginx.model("model.bin", 8 * CHUNK)
    client = make_client(server)
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("download_bytes_total") > 2 * CHUNK, 30, "some of it having been downloaded")
    nginx.restart(rate=0)
    assert client.finish(process).code == OK
    assert sha256(folder / "out") == model.sha256


def test_the_servers_errors_are_not_a_reason_to_go_elsewhere(nginx, server, make_client, folder):
    """What the server refused, or knows not to exist, is not fetched behind its back."""
    client = make_client(server)
    client("get", nginx.url("nowhere.bin"), "-o", folder / "out", code=3)
    assert len(nginx.requests("nowhere.bin")) == 1
