"""Origins as they are: without ranges, of unknown size, slow, broken, changing, lying."""

import subprocess
import time

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


@pytest.mark.parametrize("wait", ["retry-after:1", "retry-date:2"])  # a date has no parts of a second
def test_retry_after_is_honoured(origin, server, make_client, folder, wait):
    model = origin.model("model.bin", CHUNK)
    origin.behave("model.bin", "status:503", wait, times=2)
    begin = time.monotonic()
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256
    assert time.monotonic() - begin > 2


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
    said = [line for line in result.err.splitlines() if "%" not in line]  # but for the progress
    assert len(said) == 1, "one line says what is wrong"
    assert not (folder / "out").exists()
    assert server.is_alive()
    assert object_files(server.storage, SIZE) == []


@pytest.mark.parametrize("status", [401, 403])
def test_the_origins_refusal_is_told(origin, server, make_client, folder, status):
    origin.model("model.bin", SIZE)
    origin.behave("model.bin", f"status:{status}")
    get(make_client(server), origin, folder, code=DENIED)


@pytest.mark.parametrize("told_by", ["both", "no-date", "no-etag", "weak-etag"])
def test_content_that_changes_during_the_download(origin, server, make_client, folder, told_by):
    """What has been read of the old version is dropped; the file is whole, and of the new one."""
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", told_by)
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


def test_nothing_of_ours_goes_to_another_host(origin, server, make_client, folder):
    """Nor what a redirect wants us to send there."""
    model = origin.model("model.bin", SIZE)
    origin.behave("*", "cookie")
    origin.behave("start.bin", "redirect:http://user:password@localhost:{port}/model.bin")
    make_client(server)("get", origin.url("start.bin?token=secret"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    followed = origin.requests("model.bin")
    assert followed
    for row in followed:
        assert row["host"] == f"localhost:{origin.port}"
        assert (row["authorization"], row["cookie"], row["query"]) == (None, None, "")


def test_signed_urls_that_expire(origin, server, make_client, folder):
    """Each redirect leads to a URL that is good for a few requests only: it is asked for again."""
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", "expiring:2")
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256


# ---- connections ----


def test_connections_are_used_again(origin, make_server, make_client, folder):
    """By HEAD and GET, by the parts of a lane, and by the next file."""
    server = make_server("--parallelism", 4)
    client = make_client(server)
    for number in range(2):
        model = origin.model(f"{number}.bin", 40 * CHUNK, seed=number)
        client("get", origin.url(f"{number}.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    rows = origin.requests()
    assert len([row for row in rows if row["method"] == "GET"]) > 8
    assert origin.bytes_sent() == 80 * CHUNK
    assert len({row["connection"] for row in rows}) <= 4
    gets = {row["connection"] for row in rows if row["method"] == "GET"}
    assert {row["connection"] for row in rows if row["method"] == "HEAD"} <= gets


def test_a_tree_takes_few_connections(origin, make_client, folder):
    for number in range(40):
        origin.model(f"tree/{number % 3}/{number}.bin", 1000 + number, seed=number)
    make_client()("tree", origin.url("tree/"), folder / "tree")
    assert len(list((folder / "tree").rglob("*.bin"))) == 40
    rows = origin.requests()
    assert len({row["connection"] for row in rows}) < len(rows) / 2


def test_a_body_without_ranges_is_read_on(origin, make_server, make_client, folder):
    """It can't begin in the middle: what is there is passed over."""
    server = make_server("--retries", 2)
    model = origin.model("model.bin", SIZE)
    origin.behave("model.bin", "no-ranges")
    origin.behave("model.bin", "truncate:40", method="GET", times=2)
    get(make_client(server), origin, folder)
    assert sha256(folder / "out") == model.sha256
    assert server.metric("restarts_total") == 0
    assert server.metric("download_bytes_total") == model.size


# ---- variables ----


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy(origin, make_server, make_client, folder, variable):
    """It is the proxy that knows the host, and that sees the server's requests alone."""
    server = make_server(env={variable: f"http://127.0.0.1:{origin.port}", "no_proxy": "elsewhere.invalid"})
    model = origin.model("model.bin", SIZE)
    client = make_client(server, MODELCACHE_FALLBACK="no")
    client("get", "http://models.invalid/model.bin", "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    for row in origin.requests("model.bin"):
        assert row["proxied"] and row["host"] == "models.invalid"
    client("get", "http://elsewhere.invalid/model.bin", "-o", folder / "out", "--timeout", "20s", code=UNAVAILABLE)
    client("get", "http://169.254.169.254/model.bin", "-o", folder / "out", "--timeout", "20s", code=DENIED)
    assert {row["host"] for row in origin.requests("model.bin")} == {"models.invalid"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of an authority that nobody knows: a file with it, and one with its key, too."""
    folder = tmp_path_factory.mktemp("certificate")
    args = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    args += ["-subj", "/CN=modelcache test", "-addext", "subjectAltName=IP:127.0.0.1"]
    args += ["-keyout", folder / "key", "-out", folder / "authority.pem"]
    subprocess.run(args, check=True, capture_output=True)
    (folder / "both").write_text((folder / "authority.pem").read_text() + (folder / "key").read_text())
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("variable", ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_certificate_authority_of_ones_own(make_origin, certificate, make_server, make_client, folder, variable):
    origin = make_origin(tls=certificate / "both")
    model = origin.model("model.bin", SIZE)
    value = certificate if variable == "SSL_CERT_DIR" else certificate / "authority.pem"
    get(make_client(make_server(env={variable: value}), MODELCACHE_FALLBACK="no"), origin, folder)
    assert sha256(folder / "out") == model.sha256


def test_a_certificate_that_nobody_vouches_for(make_origin, certificate, server, make_client, folder):
    origin = make_origin(tls=certificate / "both")
    origin.model("model.bin", SIZE)
    result = get(make_client(server), origin, folder, "--timeout", "20s", code=DENIED)
    assert "certificate" in result.err
    assert origin.requests("model.bin") == []
