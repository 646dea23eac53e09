"""When a copy is served, asked about, replaced or dropped: validators, ages, 404s, capacity and pins."""

import os

import pytest
from harness import CHUNK, MIB, MISSING, SLOWNESS, UNAVAILABLE, object_files, sha256, wait_until

ALWAYS = ("--revalidate-after", "1ms")


def conditional(rows):
    return [row for row in rows if row["if_none_match"] or row["if_modified_since"] or row["method"] == "HEAD"]


def change(nginx, path, size, seed, age):
    """Another version: other bytes, and a Last-Modified `age` seconds after the epoch of this test."""
    model = nginx.model(path, size, seed)
    os.utime(model.path, (1_700_000_000 + age,) * 2)
    return model


def check_new_version(nginx, client, folder):
    old = change(nginx, "model.bin", 2 * CHUNK, 1, 0)
    for _ in range(3):
        client("get", nginx.url("model.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == old.sha256
    assert nginx.bytes_sent("model.bin") == old.size
    nginx.forget_requests()
    # The same size: only the validators tell.
    new = change(nginx, "model.bin", old.size, 2, 60)
    for _ in range(2):
        client("get", nginx.url("model.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == new.sha256
    assert nginx.bytes_sent("model.bin") == new.size


def test_new_version_by_etag(nginx, make_server, make_client, folder):
    client = make_client(make_server(*ALWAYS), MODELCACHE_REVALIDATE_AFTER="1ms")
    check_new_version(nginx, client, folder)


def test_new_version_by_last_modified(make_nginx, make_server, make_client, folder):
    client = make_client(make_server(*ALWAYS), MODELCACHE_REVALIDATE_AFTER="1ms")
    check_new_version(make_nginx(etag=False), client, folder)


def test_a_young_copy_is_not_asked_about(nginx, make_server, make_client, folder):
    server = make_server("--revalidate-after", "1h")
    model = nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    asked = len(nginx.requests())
    for _ in range(3):
        make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert len(nginx.requests()) == asked


@pytest.mark.parametrize("keeps", [(), ("--no-store",)])
def test_refresh_goes_through_to_the_origin(nginx, make_server, make_client, folder, keeps):
    """Not only to a server whose copy is young."""
    client = make_client(make_server("--revalidate-after", "1h"), MODELCACHE_REVALIDATE_AFTER="1h")
    old = change(nginx, "model.bin", CHUNK, 1, 0)
    client("get", nginx.url("model.bin"), "-o", folder / "out", *keeps)
    new = change(nginx, "model.bin", CHUNK, 2, 60)
    client("get", nginx.url("model.bin"), "-o", folder / "out", *keeps)
    assert sha256(folder / "out") == old.sha256
    client("get", nginx.url("model.bin"), "-o", folder / "out", "--refresh", *keeps)
    assert sha256(folder / "out") == new.sha256


def test_stale_if_error(nginx, make_server, make_client, folder):
    server = make_server(*ALWAYS, "--stale-if-error", "1h", "--retries", 0)
    model = nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    nginx.stop()
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "again")
    assert sha256(folder / "again") == model.sha256
    assert server.metric("stale_total") >= 1


def test_too_stale_for_an_error(nginx, make_server, make_client, folder):
    server = make_server(*ALWAYS, "--stale-if-error", "1ms", "--retries", 0)
    nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    nginx.stop()
    client = make_client(server, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="0")
    client("get", nginx.url("model.bin"), "-o", folder / "again", "--timeout", "20s", code=UNAVAILABLE)
    assert not (folder / "again").exists()


def test_stale_while_revalidate(nginx, make_server, make_client, folder):
    server = make_server(*ALWAYS, "--stale-while-revalidate")
    old = change(nginx, "model.bin", 2 * CHUNK, 1, 0)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    new = change(nginx, "model.bin", 2 * CHUNK, 2, 60)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == old.sha256, "the copy at hand comes at once"
    wait_until(lambda: server.metric("downloads_total") == 2, what="the download behind the caller's back")

    def is_new():
        make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
        return sha256(folder / "out") == new.sha256

    wait_until(is_new, what="the new version")


def test_404_is_remembered_for_a_while(nginx, make_server, make_client, folder):
    server = make_server("--negative-ttl", f"{2 * SLOWNESS}s")
    for _ in range(3):
        make_client(server)("get", nginx.url("late.bin"), "-o", folder / "out", code=MISSING)
    assert len(nginx.requests("late.bin")) == 1
    model = nginx.model("late.bin", 1000)

    def is_there():
        return make_client(server)("get", nginx.url("late.bin"), "-o", folder / "out", code=None).code == 0

    wait_until(is_there, 15, "the end of the negative entry")
    assert sha256(folder / "out") == model.sha256


def test_eviction_keeps_to_the_capacity(nginx, make_server, make_client, folder):
    server = make_server("--storage-capacity", "64MiB")
    client = make_client(server, MODELCACHE_STORAGE="none")
    models = [nginx.model(f"{number}.bin", 10 * MIB, seed=number) for number in range(12)]
    client("get", nginx.url("0.bin"), "-o", folder / "out")
    client("prefetch", nginx.url("0.bin"), "--pin")
    for model in models[1:]:
        client("get", nginx.url(model.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
        wait_until(
            lambda: sum(path.stat().st_size for path in object_files(server.storage, 10 * MIB)) <= 64 * MIB,
            what="the eviction",
        )
    assert server.metric("evicted_bytes_total") >= 50 * MIB
    # The pinned one and the youngest are there; the oldest of the others is not.
    nginx.forget_requests()
    for model in (models[0], models[-1]):
        client("get", nginx.url(model.path.name), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.requests(method="GET") == []
    client("get", nginx.url("1.bin"), "-o", folder / "out")
    assert nginx.bytes_sent("1.bin") == models[1].size


def test_the_order_of_use_survives_a_restart(nginx, make_server, make_client, folder):
    server = make_server("--storage-capacity", "50MiB", "--high-watermark", 90, "--low-watermark", 85)
    client = make_client(server, MODELCACHE_STORAGE="none")
    models = [nginx.model(f"{number}.bin", 10 * MIB, seed=number) for number in range(5)]
    for model in models[:4]:
        client("get", nginx.url(model.path.name), "-o", folder / "out")
    server.restart()
    client("get", nginx.url("4.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("evicted_objects_total") == 1, what="the eviction")
    assert {sha256(path) for path in object_files(server.storage)} == {model.sha256 for model in models[1:]}


def test_a_file_larger_than_the_capacity(nginx, make_server, make_client, folder):
    """The server can't keep it; the client has it all the same, from the server or from the origin."""
    server = make_server("--storage-capacity", "16MiB")
    model = nginx.model("model.bin", 40 * MIB)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert object_files(server.storage, model.size) == []


def test_time_to_live(nginx, make_server, make_client, folder):
    server = make_server("--storage-ttl", "1s")
    model = nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: object_files(server.storage, model.size) == [], 90, "the end of its time")
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
