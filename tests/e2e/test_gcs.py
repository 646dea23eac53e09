"""Google Cloud Storage: a real fake-gcs-server, and a gate before it that wants tokens."""

import gzip
import hashlib
import json
import os
import sys
import threading
import urllib.parse

import pytest
from harness import CORRUPT, DENIED, MIB, MISSING, ROOT, UNAVAILABLE, USAGE, sha256

sys.path.insert(0, str(ROOT / "tests" / "support"))

import gcs_gate  # noqa: E402

NAMES = [
    "plain.bin",
    "a b+c=d@e.bin",
    "50%.bin",
    "#hash?query&more.bin",
    "ünï/cödé ☃.bin",
    "a:b;c,d'e!.bin",
    "a%2Fb.bin",
]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def url_of(gcs, name):
    return gcs.url(urllib.parse.quote(name))


@pytest.fixture
def getter(make_getter, gcs):
    return make_getter(gcs.env)


@pytest.fixture
def make_gate(gcs):
    """A function that starts a gate before the store."""
    gates = []

    def make(**settings):
        gates.append(gcs_gate.Gate(gcs.server.endpoint, **settings).start())
        return gates[-1]

    yield make
    for gate in gates:
        gate.stop()


@pytest.fixture
def gate(make_gate):
    return make_gate()


def paths_below(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


# ---- objects ----


def test_names_sizes_and_versions(gcs, getter, folder):
    files = {name: os.urandom(1000 + number) for number, name in enumerate(NAMES)} | {"empty": b""}
    gcs.put_many(files)
    for name, data in files.items():
        getter("get", url_of(gcs, name), "-o", folder / "out")
        assert (folder / "out").read_bytes() == data, name
    blob = gcs.put("plain.bin", b"another version")
    getter("get", gcs.url("plain.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"another version"
    told = getter("stat", "--json", gcs.url("plain.bin")).json
    assert told["size"] == 15 and str(blob.generation) in json.dumps(told)


def test_a_large_file_comes_in_parts(gcs, make_gate, make_getter, folder):
    gate = make_gate(closed=False)
    source = folder / "source"
    source.write_bytes(os.urandom(1 * MIB) * 70 + b"end")
    gcs.put_file("large.bin", source)
    make_getter({"STORAGE_EMULATOR_HOST": gate.endpoint})("get", gcs.url("large.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == sha256(source)
    ranges = [headers["Range"] for _, path, headers in gate.requests if "alt=media" in path]
    assert len(ranges) == len(set(ranges)) > 1
    assert all("generation=" in path for _, path, _ in gate.requests if "alt=media" in path)


def test_what_is_stored_compressed_comes_as_it_is_stored(gcs, getter, folder):
    data = gzip.compress(b"model " * 100000)
    blob = gcs.blob("model.gz")
    blob.content_encoding = "gzip"
    blob.upload_from_string(data, content_type="text/plain")
    getter("get", gcs.url("model.gz"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == data


def test_a_composed_object(gcs, getter, folder):
    parts = [os.urandom(300000), os.urandom(5)]
    for number, part in enumerate(parts):
        gcs.put(f"part{number}", part)
    gcs.blob("composed").compose([gcs.blob("part0"), gcs.blob("part1")])
    getter("get", gcs.url("composed"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"".join(parts)


def test_what_is_not_there(gcs, getter, folder):
    gcs.put("folder/file", b"x")
    for url in (gcs.url("nothing"), gcs.url("folder/"), gcs.url("folder"), "gs://no-such-bucket/file"):
        assert url in getter("get", url, "-o", folder / "out", code=MISSING).err
    assert "is a bucket" in getter("get", gcs.url(), "-o", folder / "out", code=MISSING).err
    for url in ("gs://UPPER/file", gcs.url("file?versionId=1")):
        assert "gs://bucket/object" in getter("get", url, "-o", folder / "out", code=USAGE).err
    getter("tree", gcs.url("nowhere/"), folder / "tree", code=MISSING)


def test_a_generation_may_be_named(gcs, getter, folder):
    generation = gcs.put("file", b"one").generation
    getter("get", gcs.url(f"file?generation={generation}"), "-o", folder / "out")
    getter("get", gcs.url(f"file?generation={generation + 1}"), "-o", folder / "no", code=MISSING)
    assert (folder / "out").read_bytes() == b"one"


# ---- trees ----


def test_a_tree_of_more_than_a_page(gcs, getter, folder):
    files = {f"tree/{number % 9}/file {number:04}+.bin": b"%d" % number for number in range(1100)}
    gcs.put_many(files | {"tree/marker/": b"", "treetop": b"no part of it"})
    getter("tree", gcs.url("tree/"), folder / "tree", timeout=120)
    assert paths_below(folder / "tree") == {name[5:]: digest(data) for name, data in files.items()}
    gcs.put("tree/new", b"new")
    gcs.delete("tree/0/file 0000+.bin")
    getter("tree", gcs.url("tree/"), folder / "tree", timeout=120)
    found = paths_below(folder / "tree")
    assert found["new"] == digest(b"new") and "0/file 0000+.bin" not in found and len(found) == 1100


# ---- what goes wrong ----


def test_another_version_during_the_download(gcs, make_gate, make_getter, folder):
    gate = make_gate(closed=False)
    new, once = os.urandom(9 * MIB), threading.Lock()
    gcs.put("model.bin", os.urandom(20 * MIB))

    def change(request, body):
        """The first answer is cut, and what is missing of it is there no more."""
        if not once.acquire(blocking=False):
            return None
        gcs.put("model.bin", new)
        request.close_connection = True
        return body[: MIB + 7]

    gate.on_media = change
    make_getter({"STORAGE_EMULATOR_HOST": gate.endpoint})("get", gcs.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == new


def test_bytes_that_are_not_what_was_stored(gcs, make_gate, make_getter, folder):
    gate = make_gate(closed=False)
    gcs.put("model.bin", os.urandom(MIB))
    gate.on_media = lambda request, body: body[:-1] + bytes([body[-1] ^ 1])
    getter = make_getter({"STORAGE_EMULATOR_HOST": gate.endpoint, "MODELCACHE_RETRIES": "0"})
    # A client that reads behind the download may hear no more than that the service has lost the file.
    codes = (CORRUPT, UNAVAILABLE)
    assert getter("get", gcs.url("model.bin"), "-o", folder / "out", code=None).code in codes
    assert not (folder / "out").exists()
    assert (
        getter("tree", gcs.url(), folder / "tree", code=None).code in codes
    )  # only the content's head tells the checksum
    assert not (folder / "tree").exists()


# ---- credentials ----


@pytest.fixture
def make_ruled(gcs, make_server, make_client, folder):
    """A function that makes a client of a server that looks for gs:// at the gate, with these credentials."""

    def make(gate, credentials=None, **env):
        rule = {"prefix": gcs.url(), "endpoint": gate.endpoint} | ({"credentials": "team"} if credentials else {})
        config = folder / "config.yaml"
        config.write_text(json.dumps({"origins": [rule], "credentials": {"team": credentials} if credentials else {}}))
        server = make_server("--config", config, env={"NO_GCE_CHECK": "true"} | env)
        return make_client(server, MODELCACHE_FALLBACK="no")

    return make


def test_a_service_account(gcs, gate, make_ruled, folder):
    data = os.urandom(30 * MIB)
    gcs.put("model.bin", data)
    key = folder / "key.json"
    key.write_text(json.dumps(gate.account()))
    client = make_ruled(gate, GOOGLE_APPLICATION_CREDENTIALS=key)
    client("get", gcs.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    assert gate.given == 1
    told = client("origins", "check", gcs.url("model.bin")).out
    assert "GOOGLE_APPLICATION_CREDENTIALS (service_account" in told and gcs_gate.EMAIL in told


def test_tokens_that_are_revoked_halfway(gcs, gate, make_ruled, folder):
    """Each range is asked for with the token that is good then."""
    data, once = os.urandom(40 * MIB), threading.Lock()
    gcs.put("model.bin", data)
    key = folder / "key.json"
    key.write_text(json.dumps(gate.account()))
    client = make_ruled(gate, {"file": str(key)})

    def revoke(request, body):
        """The first answer is cut: at least the rest of it is asked for with another token."""
        if not once.acquire(blocking=False):
            return None
        gate.revoke()
        request.close_connection = True
        return body[: MIB + 7]

    gate.on_media = revoke
    client("get", gcs.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    assert gate.given == 2


def test_the_machines_own_token(gcs, gate, make_ruled, folder):
    gcs.put("model.bin", b"model")
    client = make_ruled(gate, GCE_METADATA_HOST=gate.endpoint.removeprefix("http://"), NO_GCE_CHECK="")
    client("get", gcs.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"model" and gate.given == 1


def test_tritons_file(gcs, gate, make_ruled, folder):
    gcs.put("model.bin", b"model")
    (folder / "key.json").write_text(json.dumps(gate.account()))
    (folder / "triton.json").write_text(json.dumps({"gs": {"": "/nowhere", gcs.url(): str(folder / "key.json")}}))
    make_ruled(gate, TRITON_CLOUD_CREDENTIAL_PATH=folder / "triton.json")(
        "get", gcs.url("model.bin"), "-o", folder / "out"
    )
    assert (folder / "out").read_bytes() == b"model"


def test_who_is_not_let_in_is_told_why(gcs, gate, make_ruled, make_gate, folder):
    gcs.put("model.bin", b"model")
    err = make_ruled(gate)("get", gcs.url("model.bin"), "-o", folder / "out", code=DENIED).err
    assert "HTTP 401" in err and "none: " in err
    err = make_ruled(gate, {"token": "ya29.hunter2"})(
        "get", gcs.url("model.bin"), "-o", folder / "out", code=DENIED
    ).err
    assert "'team', by the rule" in err and "hunter2" not in err
    key = folder / "key.json"
    other = make_gate()
    key.write_text(json.dumps(gate.account() | {"private_key": other.account()["private_key"]}))
    client = make_ruled(gate, GOOGLE_APPLICATION_CREDENTIALS=key)
    err = client("get", gcs.url("model.bin"), "-o", folder / "out", code=DENIED).err
    assert "invalid_grant" in err and str(key) in err and "PRIVATE" not in err
