"""What a URL was before, by whom it is kept current, and who is told."""

import contextlib
import hashlib
import json
import os

import pytest
from harness import CHUNK, MISSING, OK, SLOWNESS, USAGE, sha256, wait_until

INTERRUPTED = 130
NOW = ("--revalidate-after", "1ms")
ENV = {"MODELCACHE_REVALIDATE_AFTER": "1ms", "MODELCACHE_FALLBACK": "no"}


def change(nginx, path, size, seed, age):
    """Another version: other bytes, and a Last-Modified `age` seconds after the epoch of this test."""
    model = nginx.model(path, size, seed)
    os.utime(model.path, (1_700_000_000 + age,) * 2)
    return model


def history(client, url):
    return [
        (row["digest"].removeprefix("sha256:"), row["stored"]) for row in client("history", url, "--json").json_lines
    ]


@contextlib.contextmanager
def watching(client, *args):
    """A `watch --json` that has begun: a function that gives its next document."""
    process = client.start("watch", "--json", *args)
    try:

        def news():
            return json.loads(process.stdout.readline())

        assert news() == {"event": "began"}
        yield news
    finally:
        process.terminate()
        assert client.finish(process).code == INTERRUPTED


# ---- history ----


def test_history_and_digest(nginx, server, make_server, make_client, folder):
    """A version of before is got by its digest, through a client's own cache, and is not the current one for that."""
    server = make_server(*NOW)
    client, other = make_client(server, **ENV), make_client(server, **ENV)
    url = nginx.url("model.bin")
    models = [change(nginx, "model.bin", 2 * CHUNK + 17, 1, 0)]
    client("get", url, "-o", folder / "out")
    models.append(change(nginx, "model.bin", 2 * CHUNK + 17, 2, 60))
    client("get", url, "-o", folder / "out")
    assert history(client, url) == [(models[0].sha256, True)]
    nginx.forget_requests()
    for command in (client, other, other):
        command("get", url, "--digest", f"sha256:{models[0].sha256}", "-o", folder / "old")
        assert sha256(folder / "old") == models[0].sha256
    assert nginx.requests() == []
    for command in (client, other):
        command("get", url, "-o", folder / "out")
        assert sha256(folder / "out") == models[1].sha256
        command("get", url, "--digest", models[1].sha256, "-o", folder / "out")
        assert sha256(folder / "out") == models[1].sha256
    server.restart()
    assert history(client, url) == [(models[0].sha256, True)]
    make_client(server, **ENV)("get", url, "--digest", models[0].sha256, "-o", folder / "old", "--no-store")
    assert sha256(folder / "old") == models[0].sha256


def test_without_a_server(nginx, local, folder):
    env = {"MODELCACHE_REVALIDATE_AFTER": "1ms"}
    url = nginx.url("model.bin")
    old = change(nginx, "model.bin", CHUNK, 1, 60)
    local("get", url, "-o", folder / "out", env=env)
    change(nginx, "model.bin", CHUNK, 2, 0)  # an older one: rolled back
    local("get", url, "-o", folder / "out", env=env)
    assert history(local, url) == [(old.sha256, True)]
    local("get", url, "--digest", old.sha256, "-o", folder / "old", "--cached")
    assert sha256(folder / "old") == old.sha256
    assert "stored" in local("history", url).out


def test_digests_that_can_not_be_had(nginx, server, make_client, folder):
    client = make_client(server, **ENV)
    url = nginx.url("model.bin")
    nginx.model("model.bin", CHUNK, seed=1)
    other = nginx.model("other.bin", CHUNK, seed=2)
    for path in ("model.bin", "other.bin"):
        client("get", nginx.url(path), "-o", folder / "out")
    fresh = make_client(server, **ENV)
    for digest in ("0" * 64, other.sha256):
        result = fresh("get", url, "--digest", digest, "-o", folder / "none", code=MISSING)
        assert "no version of it that is remembered" in result.err
    for args in (("--digest", "12"), ("--digest", other.sha256, "--refresh"), ("--digest", other.sha256, "--pin")):
        client("get", url, *args, "-o", folder / "none", code=USAGE)
    client("history", nginx.url("never.bin"), code=MISSING)
    assert not (folder / "none").exists()


def test_no_history(nginx, make_server, make_client, folder):
    client = make_client(make_server(*NOW, "--history", "never"), **ENV)
    url = nginx.url("model.bin")
    for age in range(2):
        model = change(nginx, "model.bin", CHUNK, age, age)
        client("get", url, "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert history(client, url) == []


def check_rollback_and_deletion(put, delete, url, client, folder):
    """Each is a change, whatever its date: `put(number)` gives the digest of version `number`."""
    digests = []
    for number in (1, 2, 1):
        digests.append(put(number))
        client("get", url, "-o", folder / "out")
        assert sha256(folder / "out") == digests[-1]
    assert history(client, url) == [(digests[1], True), (digests[0], True)]
    delete()
    client("get", url, "-o", folder / "gone", code=MISSING)
    assert [row[0] for row in history(client, url)] == [digests[2], digests[1], digests[0]]
    client("get", url, "--digest", digests[1], "-o", folder / "old")
    assert sha256(folder / "old") == digests[1]
    assert put(2) == digests[1]
    client("get", url, "-o", folder / "out")
    assert sha256(folder / "out") == digests[1]


def test_rollback_and_deletion(nginx, make_server, make_client, folder):
    server = make_server(*NOW, "--negative-ttl", "1ms")
    client = make_client(server, MODELCACHE_NEGATIVE_TTL="1ms", **ENV)
    check_rollback_and_deletion(
        lambda number: change(nginx, "model.bin", CHUNK, number, number * 60).sha256,
        lambda: (nginx.files / "model.bin").unlink(),
        nginx.url("model.bin"),
        client,
        folder,
    )


@pytest.mark.parametrize("make", ["minio"])
def test_rollback_and_deletion_in_a_store(make_store, make, make_server, make_client, folder):
    store = make_store(make)
    server = make_server(*NOW, "--negative-ttl", "1ms", env=store.env)
    client = make_client(server, MODELCACHE_NEGATIVE_TTL="1ms", **ENV)

    def put(number):
        data = bytes([number]) * CHUNK
        store.put("model.bin", data)
        return hashlib.sha256(data).hexdigest()

    check_rollback_and_deletion(put, lambda: store.delete("model.bin"), store.url("model.bin"), client, folder)


# ---- the refresher ----


def test_what_is_pinned_is_kept_current(nginx, make_server, make_client, folder):
    """Nobody asks for it, and it is new all the same; what isn't pinned is left alone."""
    server = make_server("--revalidate-after", "100ms", "--refresh", "1s")
    client = make_client(server, **ENV)
    url = nginx.url("pinned.bin")
    change(nginx, "pinned.bin", CHUNK, 1, 0)
    nginx.model("other.bin", CHUNK, seed=3)
    client("prefetch", url, "--pin")
    client("get", nginx.url("other.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("downloads_total") == 2, what="both files")
    nginx.forget_requests()
    wait_until(lambda: nginx.requests("pinned.bin"), what="it being checked")
    with watching(client, url) as news:
        new = change(nginx, "pinned.bin", CHUNK, 2, 60)
        event = news()
    assert (event["event"], event["url"], event["digest"]) == ("changed", url, f"sha256:{new.sha256}")
    server.restart()  # what is pinned is known from its record
    checked = len(nginx.requests("pinned.bin"))
    wait_until(lambda: len(nginx.requests("pinned.bin")) > checked, what="it being checked")
    assert nginx.requests("other.bin") == []


def test_what_is_watched_is_kept_current(nginx, make_server, make_client, folder):
    server = make_server("--revalidate-after", "100ms", "--refresh", "1s", "--negative-ttl", "100ms")
    client = make_client(server, **ENV)
    url = nginx.url("a/model.bin")
    change(nginx, "a/model.bin", CHUNK, 1, 0)
    client("get", url, "-o", folder / "out")
    with watching(client, nginx.url("a/")) as news:
        for seed in (2, 3):
            new = change(nginx, "a/model.bin", CHUNK, seed, 60 * seed)
            assert news()["digest"] == f"sha256:{new.sha256}"
        (nginx.files / "a" / "model.bin").unlink()
        assert news()["event"] == "missing"
        back = change(nginx, "a/model.bin", CHUNK, 4, 300)
        assert news()["digest"] == f"sha256:{back.sha256}"


# ---- watch ----


def test_watch_goes_on_after_a_restart(nginx, make_server, make_client, folder):
    """And says that something may have been missed."""
    server = make_server(*NOW)
    client = make_client(server, **ENV)
    url = nginx.url("model.bin")
    with watching(client, url) as news:
        model = change(nginx, "model.bin", CHUNK, 1, 0)
        client("get", url, "-o", folder / "out")
        assert news()["digest"] == f"sha256:{model.sha256}"
        server.restart()
        assert news() == {"event": "gap"}
        model = change(nginx, "model.bin", CHUNK, 2, 60)
        client("get", url, "-o", folder / "out")
        assert news()["digest"] == f"sha256:{model.sha256}"
        client("evict", url)
        assert news()["event"] == "missing"


def test_watch_with_another_server(nginx, make_server, make_client, folder):
    servers = [make_server(*NOW), make_server(*NOW)]
    endpoint = ",".join([servers[0].endpoint, servers[1].control])
    client = make_client(MODELCACHE_ENDPOINT=endpoint, **ENV)
    with watching(client, "") as news:
        servers[0].kill9()
        assert news() == {"event": "gap"}
        model = nginx.model("model.bin", CHUNK)
        client("get", nginx.url("model.bin"), "-o", folder / "out", timeout=60 * SLOWNESS)
        assert news()["digest"] == f"sha256:{model.sha256}"


def test_watch_ends_with_its_reader(server, client):
    process = client.start("watch", "--json")
    assert json.loads(process.stdout.readline()) == {"event": "began"}
    process.stdout.close()
    assert process.wait(30 * SLOWNESS) == OK
    client.processes.forget(process)
