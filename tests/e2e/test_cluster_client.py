"""The client of a service, when its servers come, go, restart and hang."""

import signal

from harness import CHUNK, MIB, OK, free_port, sha256, wait_until


def test_the_next_server_of_a_list_is_used(nginx, server, make_client, folder):
    """Two endpoints, the first without a server: no fallback is needed."""
    model = nginx.model("model.bin", 3 * CHUNK + 5)
    gone = f"127.0.0.1:{free_port()}"
    client = make_client(server, MODELCACHE_ENDPOINT=f"modelcache://{gone},{server.control}", MODELCACHE_FALLBACK="no")
    result = client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert server.metric("downloads_total") == 1
    assert len([line for line in result.err.splitlines() if gone in line]) == 1, result


def test_a_download_is_followed_while_it_lands(make_nginx, server, make_client, folder):
    """The client has bytes long before the server has the file."""
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 10 * CHUNK)
    client = make_client(server)
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("served_bytes_total") >= CHUNK, 60, "a chunk having been served")
    assert server.metric("downloads_total") == 0
    assert client.finish(process).code == OK
    assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_a_server_that_restarts_during_a_download(make_nginx, server, make_client, folder):
    """The client finds the download again by its name in the new process, and the right bytes."""
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 12 * CHUNK)
    client = make_client(server, MODELCACHE_RETRIES="8", MODELCACHE_FALLBACK="no")
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("served_bytes_total") >= 2 * CHUNK, 60, "some of it having been served")
    server.kill9()
    server.start()
    assert client.finish(process, timeout=120).code == OK
    assert sha256(folder / "out") == model.sha256
    assert server.metric("served_bytes_total") > 0


def test_a_server_that_freezes_during_a_download(make_nginx, server, make_client, folder):
    """Connections stay open and nothing comes any more: the client gets the rest elsewhere."""
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 10 * CHUNK)
    client = make_client(server, MODELCACHE_STALL_TIMEOUT="1s", MODELCACHE_CONNECT_TIMEOUT="1s", MODELCACHE_RETRIES="1")
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("served_bytes_total") >= CHUNK, 60, "a chunk having been served")
    server.processes.kill(server.process, signal.SIGSTOP)
    try:
        assert client.finish(process, timeout=120).code == OK
    finally:
        server.processes.kill(server.process, signal.SIGCONT)
    assert sha256(folder / "out") == model.sha256


def test_an_object_that_is_evicted_comes_again(nginx, make_server, make_client, folder):
    """What the server has forgotten since the client last asked is downloaded anew."""
    server = make_server()
    model = nginx.model("model.bin", 3 * CHUNK)
    for round_ in range(3):
        client = make_client(server)
        client("get", nginx.url("model.bin"), "-o", folder / f"out{round_}")
        assert sha256(folder / f"out{round_}") == model.sha256
        make_client(server)("evict", nginx.url("model.bin"))
    assert server.metric("downloads_total") == 3
