"""kill -9 at any moment: nothing wrong is served afterwards, nothing finished is downloaded again, the rest resumes."""

import os
import random
import time

import pytest
from harness import CHUNK, MIB, OK, SANITIZER, object_files, scaled, sha256, wait_until

ROUNDS = scaled(50)
RATE = 6 * MIB  # of one response
SIZE = 10 * CHUNK + 4321
LONGEST = 2.0 if SANITIZER else 1.2  # seconds from a start to the kill
# What one kill may cost: chunks under way in each lane of a download, and what the sockets held.
LOSS = 16 * (CHUNK + 2 * MIB)

pytestmark = pytest.mark.slow


def staging_rubbish(storage):
    """Files below a storage that belong to no object and no record, by size: a stage is as big as its object."""
    objects = set(object_files(storage))
    return [
        path
        for path in storage.rglob("*")
        if path.is_file() and path not in objects and path.stat().st_blocks * 512 >= CHUNK
    ]


def test_server_is_killed(make_nginx, make_server, make_client, folder):
    nginx = make_nginx(rate=RATE)
    server = make_server()
    dice = random.Random(20)
    finished, current, downloaded = [], None, 0
    for number in range(ROUNDS):
        if current is None:
            downloaded += 1
            current = nginx.model(f"{downloaded}.bin", SIZE, seed=downloaded)
            nginx.forget_requests()
        clients = [make_client(server, MODELCACHE_STORAGE="none", MODELCACHE_FALLBACK="no") for _ in range(3)]
        wanted = [current, current, dice.choice(finished or [current])]
        outs = [folder / f"out{index}" for index in range(3)]
        started = [
            client.start("get", nginx.url(model.path.name), "-o", out, "--timeout", "20s", "--retries", "0")
            for client, model, out in zip(clients, wanted, outs, strict=True)
        ]
        # The moment is what the test is about; there is no event to wait for.
        time.sleep(dice.uniform(0.02, LONGEST))
        server.kill9()
        for client, process, model, out in zip(clients, started, wanted, outs, strict=True):
            result = client.finish(process)
            if result.code == OK:
                assert sha256(out) == model.sha256, f"round {number}: wrong bytes"
            else:
                assert not out.exists(), f"round {number}: a file of a get that failed"
            out.unlink(missing_ok=True)
        server.start()
        if object_files(server.storage, SIZE) and len(object_files(server.storage, SIZE)) > len(finished):
            finished.append(current)
            current = None

    # What has begun is finished, all is right, and the finished was never asked for again.
    kills = ROUNDS
    nginx.restart(rate=0)
    client = make_client(server, MODELCACHE_STORAGE="none")
    if current:
        client("get", nginx.url(current.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == current.sha256
        assert nginx.bytes_sent(current.path.name) <= SIZE + kills * LOSS
    nginx.forget_requests()
    for model in finished:
        client("get", nginx.url(model.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.requests(method="GET") == []
    for path in object_files(server.storage):
        assert sha256(path) in {model.sha256 for model in [*finished, current] if model}
    server.restart()
    assert staging_rubbish(server.storage) == []


def test_download_resumes_after_a_kill(make_nginx, make_server, make_client, folder):
    nginx = make_nginx(rate=2 * MIB)
    server = make_server("--parallelism", 2)
    model = nginx.model("model.bin", 20 * CHUNK)
    client = make_client(server, MODELCACHE_STORAGE="none", MODELCACHE_FALLBACK="no")
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out", "--timeout", "60s", "--retries", "0")
    wait_until(lambda: server.metric("download_bytes_total") > 8 * CHUNK, 40, "some of it having been downloaded")
    server.kill9()
    client.finish(process)
    nginx.restart(rate=0)
    server.start()
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert server.metric("resumed_bytes_total") >= 5 * CHUNK
    # Two lanes, each with a chunk under way and what its socket held.
    assert nginx.bytes_sent("model.bin") <= model.size + 2 * (CHUNK + 6 * MIB)
    assert staging_rubbish(server.storage) == []


def test_another_version_is_not_resumed(make_nginx, make_server, make_client, folder):
    """The bytes of the old version are worth nothing: none of them is in the new one."""
    nginx = make_nginx(rate=2 * MIB)
    server = make_server()
    old = nginx.model("model.bin", 12 * CHUNK, seed=1)
    client = make_client(server, MODELCACHE_STORAGE="none", MODELCACHE_FALLBACK="no")
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out", "--timeout", "60s", "--retries", "0")
    wait_until(lambda: server.metric("download_bytes_total") > 4 * CHUNK, 40, "some of it having been downloaded")
    server.kill9()
    client.finish(process)
    new = nginx.model("model.bin", old.size, seed=2)
    later = time.time() + 10
    os.utime(new.path, (later, later))
    nginx.restart(rate=0)
    server.start()
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == new.sha256
    assert server.metric("resumed_bytes_total") == 0
    server.restart()
    assert staging_rubbish(server.storage) == []


def test_a_stage_that_was_damaged_is_not_trusted(make_nginx, make_server, make_client, folder):
    """Resumed bytes are checked against the journal: what the disk lost in the crash is downloaded again."""
    nginx = make_nginx(rate=2 * MIB)
    server = make_server()
    model = nginx.model("model.bin", 12 * CHUNK)
    client = make_client(server, MODELCACHE_STORAGE="none", MODELCACHE_FALLBACK="no")
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out", "--timeout", "60s", "--retries", "0")
    wait_until(lambda: server.metric("download_bytes_total") > 6 * CHUNK, 40, "some of it having been downloaded")
    server.kill9()
    client.finish(process)
    stage = max(staging_rubbish(server.storage), key=lambda path: path.stat().st_size)
    with open(stage, "r+b") as file:
        for offset in range(0, model.size, CHUNK):
            file.seek(offset + 17)
            byte = file.read(1)
            file.seek(offset + 17)
            file.write(bytes([byte[0] ^ 1]) if byte else b"\1")
    nginx.restart(rate=0)
    server.start()
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert server.metric("resumed_bytes_total") == 0


def test_clients_are_killed(make_nginx, make_client, folder):
    """The same for a client's folder: a cache in the process of the command, killed again and again."""
    nginx = make_nginx(rate=RATE)
    client = make_client()
    dice = random.Random(21)
    finished, number, kills = [], 0, 0
    model = None
    for _ in range(ROUNDS):
        if model is None:
            number += 1
            model = nginx.model(f"{number}.bin", SIZE, seed=number)
            nginx.forget_requests()
            kills = 0
        process = client.start("get", nginx.url(model.path.name), "-o", folder / "out")
        time.sleep(dice.uniform(0.02, LONGEST))
        client.kill9(process)
        kills += 1
        # A visible file is a whole one, whenever the kill came.
        if (folder / "out").exists():
            assert sha256(folder / "out") == model.sha256
            (folder / "out").unlink()
        if len(object_files(client.storage, SIZE)) > len(finished):
            assert nginx.bytes_sent(model.path.name) <= SIZE + kills * LOSS
            finished.append(model)
            model = None
    nginx.restart(rate=0)
    if model:
        client("get", nginx.url(model.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    nginx.forget_requests()
    for model in finished:
        client("get", nginx.url(model.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.requests(method="GET") == []
    assert staging_rubbish(client.storage) == []
    assert [path.name for path in folder.iterdir() if path.name.startswith((".out", "out."))] == []


def test_clients_of_a_server_are_killed(nginx, make_server, make_client, folder):
    """A client that is killed while it reads from a server disturbs nobody, and its folder stays right."""
    server = make_server()
    model = nginx.model("model.bin", 32 * CHUNK)
    make_client(server, MODELCACHE_STORAGE="none")("get", nginx.url("model.bin"), "-o", folder / "out")
    client = make_client(server)
    dice = random.Random(22)
    for _ in range(scaled(20)):
        process = client.start("get", nginx.url("model.bin"), "-o", folder / "killed")
        time.sleep(dice.uniform(0.005, 0.12 if not SANITIZER else 1.5))
        client.kill9(process)
        if (folder / "killed").exists():
            assert sha256(folder / "killed") == model.sha256
            (folder / "killed").unlink()
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size
    assert staging_rubbish(client.storage) == []
    for path in object_files(client.storage):
        assert sha256(path) == model.sha256
    assert server.is_alive()
