"""The hub: a server that the hub's own client accepts, and the content network behind it."""

import hashlib
import json
import os
import threading
import urllib.parse

import pytest
from harness import DENIED, MIB, MISSING, UNAVAILABLE, USAGE, sha256

NAMES = [
    "plain.bin",
    "a b+c=d@e.bin",
    "50%.bin",
    "#hash?query&more.bin",
    "ünï/cödé ☃.bin",
    "a:b;c,d'e!.bin",
]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def quoted(hf, name):
    return hf.url(urllib.parse.quote(name))


def paths_below(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def getter(make_getter, hf):
    return make_getter(hf.env)


@pytest.fixture
def make_local(make_client):
    return lambda env: make_client(**env, MODELCACHE_REVALIDATE_AFTER="1ms")


# ---- files ----


@pytest.mark.parametrize("near", [False, True], ids=["direct", "resolve-cache"])
def test_names_sizes_and_versions(hf, getter, folder, near):
    hf.hub.resolve_cache = near
    files = {name: os.urandom(1000 + number) for number, name in enumerate(NAMES)} | {"empty": b""}
    hf.put_many(files)
    hf.put("lfs.bin", files["plain.bin"], lfs=True)
    for name, data in (files | {"lfs.bin": files["plain.bin"]}).items():
        getter("get", quoted(hf, name), "-o", folder / "out")
        assert (folder / "out").read_bytes() == data, name
    for data, lfs in ((b"another version", False), (b"and one in LFS", True)):
        hf.put("plain.bin", data, lfs=lfs)
        getter("get", hf.url("plain.bin"), "-o", folder / "out")
        assert (folder / "out").read_bytes() == data
        assert getter("stat", "--json", hf.url("plain.bin")).json["size"] == len(data)
    assert hf.hub.refusals() == 0


@pytest.mark.parametrize("kind", ["models", "datasets", "spaces"])
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_kinds_of_repositories_and_of_files(hf, getter, folder, kind, xet):
    data = os.urandom(MIB)
    hf.hub.repo("org/kind", kind).commit({"a/model.bin": hf.file(data, True, xet), "small": b"small"})
    for name, content in (("a/model.bin", data), ("small", b"small")):
        getter("get", f"hf://{kind}/org/kind/{name}", "-o", folder / "out")
        assert (folder / "out").read_bytes() == content
    assert hf.hub.refusals() == 0


def test_revisions(hf, getter, folder):
    first = hf.put("file", b"one")
    hf.put("file", b"two")
    hf.put("file", b"three", branch="feature/x")
    hf.put("file", b"four", branch="refs/pr/1")
    for revision, data in ((first, b"one"), ("main", b"two"), ("feature%2Fx", b"three"), ("refs/pr/1", b"four")):
        getter("get", hf.url("file", revision), "-o", folder / "out")
        assert (folder / "out").read_bytes() == data
    assert "no revision 'v9'" in getter("get", hf.url("file", "v9"), "-o", folder / "out", code=MISSING).err


def test_a_large_file_comes_in_parts_by_one_link(hf, getter, folder):
    source = folder / "source"
    source.write_bytes(os.urandom(1 * MIB) * 70 + b"end")
    hf.put_file("large.bin", source)
    getter("get", hf.url("large.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == sha256(source)
    parts = hf.hub.asked("cdn", "GET")
    assert len(parts) > 1 and hf.hub.refusals() == 0
    assert len(hf.hub.asked("hub", "GET", "large.bin")) < len(parts)


def test_what_is_not_there(hf, getter, folder):
    hf.put("folder/file", b"x")
    for url in (hf.url("nothing"), hf.url("folder/"), hf.url("folder"), hf.url(), "hf://org/no-such/file"):
        assert "hf://" in getter("get", url, "-o", folder / "out", code=MISSING).err
    for url in ("hf://gpt2", "hf://buckets/org/name/x", hf.url("file?x=1"), "hf://org/na%20me/x"):
        assert "ORG/NAME" in getter("get", url, "-o", folder / "out", code=USAGE).err
    getter("tree", hf.url("nowhere/"), folder / "tree", code=MISSING)


# ---- trees ----


def test_a_tree_of_more_than_a_page_is_one_listing(hf, getter, folder):
    hf.hub.page_size = 100
    files = {f"tree/{number % 9}/file {number:04}+.bin": b"%d" % number for number in range(350)}
    hf.put_many(files | {"treetop": b"no part of it"})
    getter("tree", hf.url("tree/"), folder / "tree", timeout=120)
    assert paths_below(folder / "tree") == {name[5:]: digest(data) for name, data in files.items()}
    assert len(hf.hub.asked("hub", path=f"/api/models/{hf.name}/tree/")) == 4
    if "MODELCACHE_ENDPOINT" not in getter.env:
        assert not hf.hub.asked("hub", "HEAD")  # the listing told all
    hf.put("tree/new", os.urandom(2 * MIB))
    hf.delete("tree/0/file 0000+.bin")
    getter("tree", hf.url("tree/"), folder / "tree", timeout=120)
    found = paths_below(folder / "tree")
    assert "new" in found and "0/file 0000+.bin" not in found and len(found) == 350
    assert len(hf.hub.asked("hub", "GET", "/resolve/")) <= 352


def test_a_whole_repository(hf, getter, folder):
    files = {"README.md": b"# hello", "model.safetensors": os.urandom(3 * MIB), "sub/empty": b""}
    hf.put_many(files)
    expected = {name: digest(data) for name, data in files.items()}
    getter("tree", hf.url(), folder / "tree")
    assert paths_below(folder / "tree") == expected
    getter("tree", f"hf://{hf.name}@main/", folder / "pinned")
    assert paths_below(folder / "pinned") == expected


# ---- what goes wrong ----


def test_a_branch_that_moves_during_the_download(hf, make_local, folder):
    """Reads are of the commit that was found."""
    old, new = os.urandom(40 * MIB), os.urandom(9 * MIB)
    first = hf.put("model.bin", old)
    getter, moved = make_local(hf.env), threading.Event()
    sign = hf.hub.sign

    def sign_and_move(name):
        if not moved.is_set() and hf.hub.asked_for_bytes():
            moved.set()
            hf.put("model.bin", new)
        return sign(name)

    hf.hub.asked_for_bytes = lambda: any(row["method"] == "GET" for row in hf.hub.requests)
    hf.hub.sign = sign_and_move
    getter("get", hf.url("model.bin"), "-o", folder / "out")
    assert moved.is_set() and (folder / "out").read_bytes() == old
    assert hf.hub.asked("hub", "GET", first)
    getter("get", hf.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == new


def test_links_that_expire_during_the_download(hf, make_local, folder):
    data = os.urandom(60 * MIB)
    hf.put("model.bin", data)
    getter, times = make_local(hf.env), threading.Semaphore(2)
    sign = hf.hub.sign

    def sign_and_expire(name):
        if hf.hub.asked_for_bytes() and times.acquire(blocking=False):
            hf.hub.expire_urls()
        return sign(name)

    hf.hub.asked_for_bytes = lambda: any(row["server"] == "cdn" for row in hf.hub.requests)
    hf.hub.sign = sign_and_expire
    getter("get", hf.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    assert any(row["status"] == 403 for row in hf.hub.asked("cdn"))


def test_a_hub_that_is_busy(hf, make_local, folder):
    hf.put("model.bin", b"model")
    hf.hub.fail(429, match="/resolve/", Retry_After=1)
    hf.hub.fail(503, match="/resolve/")
    getter = make_local(hf.env)
    getter("get", hf.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"model"
    hf.hub.fail(429, times=100, match="/resolve/", RateLimit='"resolvers";r=0;t=172')
    err = make_local(hf.env)("get", hf.url("model.bin"), "-o", folder / "never", code=UNAVAILABLE).err
    assert "in 172 s" in err


# ---- tokens ----


def test_private_and_gated_repositories_want_a_token(hf, getter, make_local, folder):
    hf.put("model.bin", b"model")
    for setting in ("private", "gated"):
        hf.hub.repo(hf.name, **{setting: True})
        getter("get", hf.url("model.bin"), "-o", folder / "out")
        err = make_local({"HF_ENDPOINT": hf.endpoint})("get", hf.url("model.bin"), "-o", folder / "no", code=DENIED).err
        assert "HF_TOKEN" in err and "hf auth login" in err
        assert ("accept its conditions at" in err) == (setting == "gated" and not hf.repo.private)
        hf.hub.repo(hf.name, private=False)
    bad = hf.env | {"HF_TOKEN": "hf_hunter2"}
    err = make_local(bad)("get", hf.url("model.bin"), "-o", folder / "no", code=DENIED).err
    assert "does not take the token of HF_TOKEN" in err and "hunter2" not in err
    hf.hub.repo(hf.name, private=True)
    off = hf.env | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    err = make_local(off)("get", hf.url("model.bin"), "-o", folder / "no", code=DENIED).err
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN is set" in err


def test_a_token_in_a_file_that_is_renewed_during_the_download(hf, make_local, folder):
    data = os.urandom(8 * MIB)
    hf.put("model.bin", data)
    hf.put("config.json", b"{}")
    hf.hub.repo(hf.name, private=True)
    file = folder / "token"
    file.write_text(hf.token + "\n")
    getter = make_local({"HF_ENDPOINT": hf.endpoint, "HF_TOKEN_PATH": file})
    sign = hf.hub.sign

    def sign_and_change(name):
        """Between the look and the read."""
        if hf.hub.tokens == {hf.token}:
            hf.hub.tokens = {"hf_next"}
            file.write_text("hf_next")
        return sign(name)

    hf.hub.sign = sign_and_change
    getter("get", hf.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    assert any(row["status"] == 401 for row in hf.hub.asked("hub"))
    told = getter("origins", "check", hf.url("config.json")).out
    assert str(file) in told and "hf_next" not in told


def test_a_rules_token(hf, make_server, make_client, folder):
    hf.put("model.bin", b"model")
    hf.hub.repo(hf.name, private=True)
    config = folder / "config.yaml"
    rule = {"prefix": f"hf://{hf.name}", "endpoint": hf.endpoint, "credentials": "team"}
    config.write_text(json.dumps({"origins": [rule], "credentials": {"team": {"token": hf.token}}}))
    client = make_client(make_server("--config", config), MODELCACHE_FALLBACK="no")
    client("get", hf.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"model"


# ---- beside the hub's own client ----


def test_the_hubs_own_client_sees_the_same(hf, getter, folder):
    files = {"README.md": b"# hello", "model.safetensors": os.urandom(2 * MIB), "sub/config.json": b"{}"}
    hf.put_many(files)
    theirs = hf.client.snapshot_download(hf.name, local_dir=folder / "theirs")
    getter("tree", hf.url(), folder / "ours")
    seen = {name: found for name, found in paths_below(folder / "theirs").items() if not name.startswith(".cache")}
    assert theirs and paths_below(folder / "ours") == seen


@pytest.mark.parametrize(
    "allow, ignore",
    [
        (["*.json"], []),
        (["*.json", "onnx/"], ["*.bin"]),
        ([], ["onnx/", "*.md"]),
        (["?onfig.json", "*/deep*"], ["*[!a-z]1*"]),
        (["[a-cr]*", "ünï/?.bin"], ["b[0-9]*"]),
        (["nothing like this", "onnx/weights/*"], ["onnx"]),
    ],
)
def test_the_hubs_own_client_chooses_the_same(hf, make_local, folder, allow, ignore):
    names = ["README.md", "config.json", "a.bin", "b1.bin", "b[0-9].bin", "c-1.md", "ünï/é.bin", "ünï/éé.bin"]
    names += ["onnx/model.bin", "onnx/config.json", "onnx/weights/1.data", "onnx/deep/Config.JSON", "x/onnx/y.bin"]
    hf.put_many({name: name.encode() for name in names})
    hf.client.snapshot_download(
        hf.name, local_dir=folder / "theirs", allow_patterns=allow or None, ignore_patterns=ignore
    )
    flags = [f"--allow={pattern}" for pattern in allow] + [f"--ignore={pattern}" for pattern in ignore]
    make_local(hf.env)("tree", hf.url(), folder / "ours", *flags)
    seen = {name: found for name, found in paths_below(folder / "theirs").items() if not name.startswith(".cache")}
    assert seen and paths_below(folder / "ours") == seen
