"""What the server refuses by itself, and what it never tells."""

import stat
import time

import pytest
from harness import CHUNK, DENIED, OK, sha256

SECRET = "TOPSECRETSIGNATURE"


@pytest.fixture
def strict(make_client, server):
    """A client that does not go to the origin by itself, so that what is seen is the server's answer."""
    return make_client(server, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="0")


def test_files_of_the_server_are_refused(strict, server, folder):
    secret = folder / "secret"
    secret.write_text("x" * 100)
    for url in (f"file://{secret}", f"file://localhost{secret}", str(secret), f"FILE://{secret}"):
        result = strict("get", url, "-o", folder / "out", code=DENIED)
        assert "file" in result.err
        assert not (folder / "out").exists()


def test_files_are_served_where_that_is_configured(make_server, make_client, folder):
    server = make_server("--schemes", "file,http,https")
    client = make_client(server, MODELCACHE_FALLBACK="no")
    (folder / "model").write_bytes(b"weights")
    client("get", f"file://{folder}/model", "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"weights"


def test_a_client_does_not_hand_its_own_files_around(make_client, server, folder):
    """What the server refuses is not fetched behind its back."""
    (folder / "secret").write_text("x")
    make_client(server)("get", f"file://{folder}/secret", "-o", folder / "out", code=DENIED)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ],
)
def test_link_local_addresses_are_refused(strict, folder, host):
    begin = time.monotonic()
    result = strict("get", f"http://{host}/latest/meta-data/", "-o", folder / "out", "--timeout", "20s", code=DENIED)
    assert time.monotonic() - begin < 15
    assert "link-local" in result.err or "metadata" in result.err, result


def test_a_redirect_to_a_link_local_address_is_refused(origin, strict, folder):
    origin.model("model.bin", 1000)
    for target in ("http://169.254.169.254/latest/", "http://[fe80::1]/", "http://2852039166/"):
        origin.behave("model.bin", f"redirect:{target}")
        strict("get", origin.url("model.bin"), "-o", folder / "out", "--timeout", "20s", code=DENIED)
        origin.behave("model.bin")
        assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://127.0.0.1/x", "ftp://127.0.0.1/x", "dict://127.0.0.1:1/x"]
)
def test_a_redirect_to_another_scheme_is_refused(origin, strict, folder, target):
    origin.model("model.bin", 1000)
    origin.behave("model.bin", f"redirect:{target}")
    result = strict("get", origin.url("model.bin"), "-o", folder / "out", "--timeout", "20s", code=None)
    assert result.code not in (OK, 2), result
    assert not (folder / "out").exists()


def test_the_trees_index_is_no_way_round(origin, strict, folder):
    origin.behave("dir/", "redirect-metadata")
    (origin.files / "dir").mkdir()
    strict("tree", origin.url("dir/"), folder / "tree", "--timeout", "20s", code=DENIED)


def test_secrets_in_a_query_are_not_told(origin, make_server, make_client, folder):
    """Signed URLs carry their secret in the query."""
    server = make_server("--log-level", "debug", "--retries", 0)
    model = origin.model("model.bin", 2 * CHUNK)
    client = make_client(server, MODELCACHE_RETRIES="0")
    query = f"?X-Amz-Signature={SECRET}&sig={SECRET}"
    said = client("get", origin.url("model.bin") + query, "-o", folder / "out", "-v")
    assert sha256(folder / "out") == model.sha256
    assert SECRET in origin.requests("model.bin")[0]["query"], "the origin has to see it"
    texts = [said.err]
    for path, mode in (
        ("missing.bin", None),
        ("broken.bin", "status:500"),
        ("refused.bin", "status:403"),
        ("cut.bin", "truncate:10"),
    ):
        if mode:
            origin.model(path, CHUNK)
            origin.behave(path, mode)
        result = client("get", origin.url(path) + query, "-o", folder / "x", "-v", "--timeout", "20s", code=None)
        assert result.code != OK
        texts.append(result.err)
    texts += [server.log_text(), server.page("/metrics").text]
    server.stop()
    texts += [client("get", origin.url("gone.bin") + query, "-o", folder / "x", "-v", code=None).err, server.log_text()]
    for text in texts:
        assert SECRET not in text, text


def test_user_information_in_a_url_is_refused_unseen(strict, server, folder):
    result = strict("get", f"http://user:{SECRET}@127.0.0.1:1/x", "-o", folder / "out", code=2)
    assert SECRET not in result.err + result.out + server.log_text()


def test_redirected_secrets_are_not_told(origin, make_server, make_client, folder):
    server = make_server("--log-level", "debug", "--retries", 0)
    origin.model("model.bin", 1000)
    origin.behave("model.bin", f"redirect:/missing.bin?token={SECRET}")
    result = make_client(server)("get", origin.url("model.bin"), "-o", folder / "out", "-v", code=None)
    assert result.code != OK
    for text in (result.err, server.log_text(), server.page("/metrics").text):
        assert SECRET not in text


def test_what_is_stored_is_private(nginx, server, client, folder):
    """Nobody else can write to it."""
    nginx.model("model.bin", 1000)
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    for storage in (server.storage, client.storage):
        for path in [storage, *storage.rglob("*")]:
            if not path.is_symlink():
                assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
