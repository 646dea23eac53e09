"""s3:// against real S3 servers of two makes."""

import hashlib
import os
import pathlib

import pytest
from harness import CHUNK, DENIED, MIB, MISSING, OK, UNAVAILABLE, USAGE, sha256

NAMES = [
    "plain.bin",
    "with space",
    "plus+and=at@",
    "percent%41 %zz",
    "hash#query?amp&semi;",
    "ünï/ço dé/日本.bin",
    "quotes'\"(paren)!*~[x]{y}",
    "deep/er/and/deeper/file.onnx",
]


def data_of(name, size=None):
    """Bytes that depend on the name."""
    seed = hashlib.sha256(name.encode()).digest()
    size = size if size is not None else 1000 + seed[0]
    return (seed * (size // 32 + 1))[:size]


def escaped(store, name):
    """The URL with the characters that a URL has other uses for escaped."""
    return store.url(name.replace("%", "%25").replace("?", "%3F"))


@pytest.fixture(params=["server", "local"])
def make_getter(request, make_client, make_server):
    """A function that makes a command of which the requests of a bucket come from a server, or from itself; what is new
    is asked for every time."""

    def make(env, *flags):
        fresh = {"MODELCACHE_REVALIDATE_AFTER": "1ms", "MODELCACHE_NEGATIVE_TTL": "0"}
        if request.param == "server":
            return make_client(
                make_server("--revalidate-after", "1ms", "--negative-ttl", "0", *flags, env=env), **fresh
            )
        options = dict(zip(flags[::2], flags[1::2]))
        return make_client(
            **env, **fresh, **{f"MODELCACHE_{k[2:].replace('-', '_').upper()}": v for k, v in options.items()}
        )

    return make


def get(getter, url, folder, code=OK, **options):
    return getter("get", url, "-o", folder / "out", code=code, **options)


def test_names(s3, make_getter, folder):
    for name in NAMES:
        s3.put(name, data_of(name))
    getter = make_getter(s3.env)
    for name in NAMES:
        get(getter, escaped(s3, name), folder)
        assert (folder / "out").read_bytes() == data_of(name)
    getter("tree", s3.url(), folder / "tree")
    found = {str(path.relative_to(folder / "tree")) for path in (folder / "tree").rglob("*") if path.is_file()}
    assert found == set(NAMES)
    for name in NAMES:
        assert (folder / "tree" / name).read_bytes() == data_of(name)


def test_triton_url(s3, make_getter, folder):
    s3.put("a/b c.bin", data_of("triton"))
    getter = make_getter({k: v for k, v in s3.env.items() if "ENDPOINT" not in k})
    address = s3.server.endpoint.removeprefix("http://")
    for url in (s3.triton_url("a/b c.bin"), f"s3://{address}/{s3.bucket}/a/b c.bin"):
        get(getter, url, folder)
        assert (folder / "out").read_bytes() == data_of("triton")


def test_empty_and_large(s3, make_getter, folder):
    s3.put("empty", b"")
    large = data_of("large", 70 * MIB + 17)
    s3.put("large", large)
    getter = make_getter(s3.env)
    get(getter, s3.url("empty"), folder)
    assert (folder / "out").read_bytes() == b""
    get(getter, s3.url("large"), folder)
    assert sha256(folder / "out") == hashlib.sha256(large).hexdigest()


def test_a_new_version_is_found(s3, make_getter, folder):
    getter = make_getter(s3.env)
    for number in range(3):
        s3.put("model", data_of(f"version {number}", 5000))
        get(getter, s3.url("model"), folder)
        assert (folder / "out").read_bytes() == data_of(f"version {number}", 5000)


def test_what_is_not_there(s3, make_getter, folder):
    s3.put("folder/file", b"x")
    getter = make_getter(s3.env)
    assert "does not exist" in get(getter, s3.url("missing"), folder, MISSING).err
    assert "no bucket" in get(getter, "s3://no-such-bucket-at-all/x", folder, MISSING).err
    assert "bucket" in get(getter, s3.url(), folder, MISSING).err
    get(getter, s3.url("folder/"), folder, MISSING)
    get(getter, s3.url("folder"), folder, MISSING)
    assert "does not exist" in getter("tree", s3.url("nothing/"), folder / "tree", code=MISSING).err


def test_wrong_credentials(s3, make_getter, folder):
    s3.put("file", b"x")
    for wrong in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}):
        getter = make_getter(s3.env | wrong)
        err = get(getter, s3.url("file"), folder, DENIED).err
        assert "AWS_ACCESS_KEY_ID" in err and "secret is wrong" in err
        assert s3.env["AWS_SECRET_ACCESS_KEY"] not in err and "Signature=" not in err


def test_more_than_one_page(s3, make_getter, folder):
    names = [f"tree/part {number % 7}/{number:04}" for number in range(2100)]
    s3.put_many({name: name.encode() for name in names})
    s3.put("tree2/other", b"x")
    getter = make_getter(s3.env)
    getter("tree", s3.url("tree/"), folder / "tree", timeout=120)
    found = sorted(str(path.relative_to(folder)) for path in (folder / "tree").rglob("*") if path.is_file())
    assert found == sorted(names)
    for name in names[::100]:
        assert (folder / name).read_text() == name


def test_virtual_hosts(s3, make_getter, folder):
    home = folder / "home"
    (home / ".aws").mkdir(parents=True)
    pathlib.Path(home / ".aws/config").write_text("[default]\ns3 =\n    addressing_style = virtual\n")
    s3.put("a folder/+", b"virtual")
    env = s3.virtual_host_env | {"AWS_CONFIG_FILE": str(home / ".aws/config")}
    get(make_getter(env), s3.url("a folder/+"), folder)
    assert (folder / "out").read_bytes() == b"virtual"
