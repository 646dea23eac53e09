"""Many clients at once cost the origin one download."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import CHUNK, MIB, OK, SANITIZER, sha256, wait_until

CLIENTS = 64


def get_all(clients, url, folder):
    """Every client gets the URL, all at once, keeping nothing but the file; the digests of what they got."""
    started = [client.start("get", url, "-o", folder / f"out{number}") for number, client in enumerate(clients)]

    def finish(number):
        result = clients[number].finish(started[number], timeout=240)
        assert result.code == OK, result
        digest = sha256(folder / f"out{number}")
        (folder / f"out{number}").unlink()
        return digest

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(finish, range(len(clients))))


@pytest.mark.slow
def test_64_clients_of_a_cold_file(nginx, server, make_client, folder):
    model = nginx.model("model.bin", 32 * MIB if SANITIZER else 256 * MIB)
    clients = [make_client(server, MODELCACHE_STORAGE="none") for _ in range(CLIENTS)]
    assert set(get_all(clients, nginx.url("model.bin"), folder)) == {model.sha256}

    end = 0
    for first, past in nginx.ranges("model.bin", model.size):
        assert first == end, "a byte was asked for twice, or never"
        end = past
    assert end == model.size
    assert nginx.bytes_sent("model.bin") == model.size
    assert server.metric("downloads_total") == 1


def test_clients_that_come_while_it_is_downloaded(make_nginx, server, make_client, folder):
    """They follow the download that is under way."""
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 5 * CHUNK)
    first, *others = [make_client(server) for _ in range(8)]
    process = first.start("get", nginx.url("model.bin"), "-o", folder / "first")
    wait_until(lambda: server.metric("flights_running") == 1, what="the download's start")
    assert set(get_all(others, nginx.url("model.bin"), folder)) == {model.sha256}
    assert first.finish(process).code == OK
    assert sha256(folder / "first") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_processes_that_share_a_folder(nginx, local, folder):
    """In-process caches in one storage folder: whoever wins, every copy is right and one object stays."""
    model = nginx.model("model.bin", 6 * CHUNK)
    assert set(get_all([local] * 8, nginx.url("model.bin"), folder)) == {model.sha256}
    sent = nginx.bytes_sent("model.bin")
    local("get", nginx.url("model.bin"), "-o", folder / "again")
    assert sha256(folder / "again") == model.sha256
    assert nginx.bytes_sent("model.bin") == sent


def test_many_files_at_once(nginx, make_server, make_client, folder):
    """More files than downloads are allowed at once: the others queue, and none is forgotten."""
    server = make_server("--flights", 2)
    models = [nginx.model(f"{number}.bin", CHUNK + number, seed=number) for number in range(16)]
    clients = [make_client(server) for _ in models]
    started = [
        client.start("get", nginx.url(model.path.name), "-o", folder / model.path.name)
        for client, model in zip(clients, models, strict=True)
    ]
    for client, process, model in zip(clients, started, models, strict=True):
        assert client.finish(process).code == OK
        assert sha256(folder / model.path.name) == model.sha256
        assert nginx.bytes_sent(model.path.name) == model.size


def test_a_client_that_gives_up_does_not_disturb_the_others(make_nginx, server, make_client, folder):
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 4 * CHUNK)
    leaving, staying = make_client(server), make_client(server)
    one = leaving.start("get", nginx.url("model.bin"), "-o", folder / "one")
    wait_until(lambda: server.metric("flights_running") == 1, what="the download's start")
    two = staying.start("get", nginx.url("model.bin"), "-o", folder / "two")
    wait_until(lambda: server.metric("waiting_requests") == 2, what="the second client's wait")
    leaving.kill9(one)
    assert staying.finish(two).code == OK
    assert sha256(folder / "two") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_a_download_without_a_caller_stops_and_resumes(make_nginx, server, make_client, folder):
    nginx = make_nginx(rate=2 * MIB)
    model = nginx.model("model.bin", 12 * CHUNK)
    client = make_client(server)
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("download_bytes_total") > 5 * CHUNK, 30, "some of it having been downloaded")
    client.kill9(process)
    wait_until(lambda: server.metric("flights_running") == 0, what="the download's end")
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert server.metric("resumed_bytes_total") > 0
