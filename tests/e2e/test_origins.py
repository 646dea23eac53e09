"""Origins as they are: without ranges, of unknown size, slow, broken, changing, lying."""

import pytest
from harness import CHUNK, CORRUPT, DENIED, MIB, OK, UNAVAILABLE, object_files, sha256

SIZE = 6 * CHUNK + 777


def get(client, origin, folder, *flags, code=OK, timeout=60):
    return client("get", origin.url("model.bin"), "-o", folder / "out", *flags, code=code, timeout=timeout)


@pytest.mark.parametrize(
    "mode", ["no-ranges", "lying-ranges", "chunked", "unframed", "no-head", "head-lies", "no-validators", "weak-etag"]
)
def test_it_is_got_all_the_same(origin, server, make_client, folder, mode):
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", mode)
    for _ in range(2):
        get(make_client(server), origin, folder)
        assert sha256(folder / "out") == model.sha256
    if mode in ("no-ranges", "chunked", "unframed", "no-head", "weak-etag"):
        assert origin.bytes_sent("model.bin") - len(b"no HEAD here\n") <= model.size


@pytest.mark.parametrize("mode", ["reset:40", "truncate:40", "drop", "status:503", "bad-chunk", "cap:100000"])
def test_a_failure_that_passes_is_bridged(origin, server, make_client, folder, mode):
    """The first answers are bad, the later ones good."""
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", mode, method="GET", times=3)
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256


def test_retry_after_is_honoured(origin, server, make_client, folder):
    model = origin.model("model.bin", CHUNK)
    origin.behave("model.bin", "status:503", "retry-after:1", times=2)
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256


def test_a_stalled_body_is_given_up(origin, make_server, make_client, folder):
    server = make_server("--stall-timeout", "1s")
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", "stall:30", method="GET", times=2)
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256


@pytest.mark.parametrize("mode", ["drop", "status:500", "truncate:50", "garbage", "redirect-loop", "status:429"])
def test_a_failure_that_stays_is_an_error(origin, make_server, make_client, folder, mode):
    server = make_server("--retries", 1, "--stall-timeout", "2s")
    origin.model("model.bin", SIZE)
    origin.behave("model.bin", mode)
    client = make_client(server, MODELCACHE_RETRIES="1", MODELCACHE_STALL_TIMEOUT="2s")
    result = get(client, origin, folder, "--timeout", "30s", code=None)
    assert result.code not in (OK, 2), result
    assert result.err.strip()
    assert not (folder / "out").exists()
    assert server.is_alive()
    assert object_files(server.storage, SIZE) == []


@pytest.mark.parametrize("status", [401, 403])
def test_the_origins_refusal_is_told(origin, server, make_client, folder, status):
    origin.model("model.bin", SIZE)
    origin.behave("model.bin", f"status:{status}")
    get(make_client(server), origin, folder, code=DENIED)


def test_content_that_changes_during_the_download(origin, server, make_client, folder):
    """What has been read of the old version is dropped; the file is whole, and of the new one."""
    model = origin.model("model.bin", SIZE)
    inverted = bytes(255 - byte for byte in model.bytes())
    origin.behave("model.bin", "slow:4000000", method="GET", times=4)
    origin.behave("model.bin", "change", method="GET", after=3)
    origin.behave("model.bin", "change", method="HEAD", after=1)
    get(make_client(server), origin, folder)
    assert (folder / "out").read_bytes() == inverted
    assert server.metric("restarts_total") >= 1


def test_content_that_always_changes(origin, make_server, make_client, folder):
    """Every request has another version: an error in the end, never a mixture."""
    server = make_server("--retries", 1)
    model = origin.model("model.bin", SIZE)
    inverted = bytes(255 - byte for byte in model.bytes())
    for number in range(0, 200, 2):
        origin.behave("model.bin", "change", method="GET", after=number, times=1)
    result = get(make_client(server), origin, folder, "--timeout", "30s", code=None)
    if result.code == OK:
        assert (folder / "out").read_bytes() in (inverted, model.bytes())
    else:
        assert result.code == UNAVAILABLE, result
        assert not (folder / "out").exists()


def test_ten_gigabytes_with_one_byte(origin, make_server, make_client, folder):
    server = make_server("--retries", 1, "--stall-timeout", "2s")
    origin.model("model.bin", 1000)
    origin.behave("model.bin", "huge")
    client = make_client(server, MODELCACHE_RETRIES="1", MODELCACHE_STALL_TIMEOUT="2s")
    result = get(client, origin, folder, "--timeout", "40s", code=None)
    assert result.code not in (OK, 2), result
    assert not (folder / "out").exists()
    for storage in (server.storage, client.storage):
        used = sum(path.stat().st_blocks * 512 for path in storage.rglob("*") if path.is_file())
        assert used < 64 * MIB, "space stays taken for a file that will never come"
    assert server.memory("VmHWM") < 400 * MIB
    server.stop()


def test_more_bytes_than_were_announced(origin, make_server, make_client, folder):
    """What comes after the announced length belongs to no file."""
    server = make_server("--retries", 1)
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", "longer:5000", method="GET")
    result = get(make_client(server, MODELCACHE_RETRIES="1"), origin, folder, "--timeout", "30s", code=None)
    if result.code == OK:
        assert sha256(folder / "out") == model.sha256
    else:
        assert not (folder / "out").exists()


@pytest.mark.parametrize("mode", ["endless-head", "encoded", "wrong-range"])
def test_nonsense_is_refused(origin, make_server, make_client, folder, mode):
    server = make_server("--retries", 0)
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", mode)
    client = make_client(server, MODELCACHE_RETRIES="0", MODELCACHE_FALLBACK="no")
    result = get(client, origin, folder, "--timeout", "30s", code=None)
    if result.code == OK:
        assert sha256(folder / "out") == model.sha256
    else:
        assert not (folder / "out").exists()
    assert server.is_alive()
    assert server.memory("VmHWM") < 400 * MIB


def test_a_digest_that_the_origin_states_is_checked(origin, make_server, make_client, folder):
    server = make_server("--retries", 0, "--revalidate-after", "1ms")
    client = make_client(server, MODELCACHE_RETRIES="0")
    origin.model("model.bin", SIZE)
    origin.behave("model.bin", "digest:false")
    result = get(client, origin, folder, "--timeout", "30s", code=CORRUPT)
    assert "SHA-256" in result.err
    assert not (folder / "out").exists()
    origin.behave("model.bin")
    for seed, kind in ((2, "true"), (3, "part")):  # what S3 says of parts is no digest of the whole
        model = origin.model("model.bin", SIZE, seed)
        origin.behave("model.bin", f"digest:{kind}")
        get(client, origin, folder, "--refresh")
        assert sha256(folder / "out") == model.sha256
        origin.behave("model.bin")


def test_a_new_version_that_is_not_what_its_digest_says(origin, make_server, make_client, folder):
    """It can't be had: the copy of before is served, as after any failure to revalidate, and never the new bytes."""
    server = make_server("--retries", 0, "--revalidate-after", "1ms")
    client = make_client(server, MODELCACHE_RETRIES="0")
    model = origin.model("model.bin", SIZE)
    get(client, origin, folder)
    origin.model("model.bin", SIZE, seed=2)
    origin.behave("model.bin", "digest:false")
    get(client, origin, folder, "--refresh", "--timeout", "30s")
    assert sha256(folder / "out") == model.sha256
    assert server.metric("stale_total") >= 1


def test_redirects_are_followed(origin, server, make_client, folder):
    model = origin.model("model.bin", SIZE)
    origin.model("elsewhere.bin", SIZE)
    origin.behave("model.bin", "redirect:/elsewhere.bin")
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256


def test_signed_urls_that_expire(origin, server, make_client, folder):
    """Each redirect leads to a URL that is good for a few requests only: it is asked for again."""
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", "expiring:2")
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256
