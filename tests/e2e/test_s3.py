"""s3:// against real S3 servers of two makes."""

import base64
import hashlib
import json
import pathlib
import sys

import pytest
from harness import CHUNK, CORRUPT, DENIED, FAILURE, MIB, MISSING, OK, ROOT, UNAVAILABLE, USAGE, sha256

sys.path.insert(0, str(ROOT / "tests" / "support"))

import s3_gate  # noqa: E402

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
        fresh = {"MODELCACHE_REVALIDATE_AFTER": "1ms", "MODELCACHE_NEGATIVE_TTL": "0", "MODELCACHE_FALLBACK": "no"}
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
        assert "AWS_ACCESS_KEY_ID" in err and "the secret or the token is wrong" in err
        assert s3.env["AWS_SECRET_ACCESS_KEY"] not in err and "Signature=" not in err


def test_more_than_one_page(s3, make_getter, folder):
    names = [f"tree/part {number % 7}/{number:04}" for number in range(1050)]
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


# ---- versions, checksums, changes ----


@pytest.fixture
def make_gate():
    """A function that starts a gate before a store."""
    gates = []

    def make(store):
        gates.append(s3_gate.Gate(store.server.endpoint).start())
        return gates[-1]

    yield make
    for gate in gates:
        gate.stop()


def through(gate, store, **more):
    return store.env | {"AWS_ENDPOINT_URL": gate.endpoint} | more


def test_a_version_may_be_named(s3, make_getter, folder):
    s3.keep_versions()
    first = s3.put("file", b"one")["VersionId"]
    second = s3.put("file", b"the other")["VersionId"]
    getter = make_getter(s3.env)
    get(getter, s3.url(f"file?versionId={first}"), folder)
    assert (folder / "out").read_bytes() == b"one"
    get(getter, s3.url("file"), folder)
    assert (folder / "out").read_bytes() == b"the other"
    assert getter("stat", "--json", s3.url("file")).json["version"] == second
    s3.delete("file")
    get(getter, s3.url("file"), folder, MISSING)
    get(getter, s3.url(f"file?versionId={second}"), folder)
    assert "versionId" in get(getter, s3.url("file?version=1"), folder, USAGE).err


def crc32c(data):
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return base64.b64encode((crc ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32C"])
def test_checksums_are_checked(make_store, make_gate, make_getter, folder, algorithm):
    store = make_store("minio")
    data = data_of("sum", 100_000)
    store.put(
        "file",
        data,
        **({"ChecksumCRC32C": crc32c(data)} if algorithm == "CRC32C" else {"ChecksumAlgorithm": algorithm}),
    )
    gate = make_gate(store)
    getter = make_getter(through(gate, store), "--retries", "0")
    gate.on_body = lambda request, body: bytes([body[0] ^ 1]) + body[1:]
    result = get(getter, store.url("file"), folder, None)
    assert result.code in (CORRUPT, UNAVAILABLE) and not (folder / "out").exists()
    gate.on_body = None
    get(getter, store.url("file"), folder)
    assert (folder / "out").read_bytes() == data


def test_a_change_halfway_is_noticed(s3, make_gate, make_getter, folder):
    gate, size = make_gate(s3), 10 * CHUNK
    s3.put("file", data_of("old", size))
    new, seen = data_of("new", size), []

    def change(request):
        if request.command == "GET":
            seen.append(request.headers.get("If-Match"))
            if len(seen) == 4:
                s3.put("file", new)

    gate.on_request = change
    get(make_getter(through(gate, s3)), s3.url("file"), folder)
    assert sha256(folder / "out") == hashlib.sha256(new).hexdigest()
    assert all(seen) and len(set(seen)) == 2


def test_a_tree_is_not_asked_about_file_by_file(s3, make_gate, make_client, folder):
    gate = make_gate(s3)
    s3.put_many({f"tree/{number}": b"%d" % number for number in range(40)})
    make_client(**through(gate, s3))("tree", s3.url("tree/"), folder / "tree")
    assert len(list((folder / "tree").iterdir())) == 40
    assert [method for method, _, _ in gate.requests].count("HEAD") == 0


def test_the_region_is_found_out(s3, make_gate, make_getter, folder):
    gate = make_gate(s3)
    s3.put("file", b"here")
    s3.put("other", b"here, too")
    getter = make_getter(through(gate, s3, AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1"))
    get(getter, s3.url("file"), folder)
    assert (folder / "out").read_bytes() == b"here"
    getter("tree", s3.url(), folder / "tree")
    assert (folder / "tree" / "other").read_bytes() == b"here, too"


# ---- credentials ----


def without_keys(store):
    return {name: value for name, value in store.env.items() if "KEY" not in name}


def test_keys_that_expire_halfway(make_store, make_gate, make_getter, folder):
    store = make_store("minio")
    gate, data = make_gate(store), data_of("long", 10 * CHUNK)
    store.put("file", data)
    gate.make_keys = store.server.temporary_keys
    gets = []

    def expire(request):
        gets.extend([request.signer] if request.command == "GET" and request.headers.get("Range") else [])
        if len(gets) == 4:
            gate.refused.add(gets[0])

    gate.on_request = expire
    env = without_keys(store) | {"AWS_ENDPOINT_URL": gate.endpoint, "AWS_CONTAINER_CREDENTIALS_FULL_URI": gate.agent}
    get(make_getter(env), store.url("file"), folder)
    assert sha256(folder / "out") == hashlib.sha256(data).hexdigest()
    assert len(gate.given) == 2 and set(gets) == set(gate.given)


def test_a_role_of_a_profile(make_store, make_getter, folder):
    """MinIO is STS, too."""
    store = make_store("minio")
    store.put("file", b"by a role")
    (folder / "credentials").write_text(
        f"[base]\naws_access_key_id = {store.server.ACCESS_KEY}\naws_secret_access_key = {store.server.SECRET_KEY}\n"
    )
    (folder / "config").write_text(
        "[profile worker]\nrole_arn = arn:aws:iam::000000000000:role/any\nsource_profile = base\n"
    )
    files = {"AWS_SHARED_CREDENTIALS_FILE": folder / "credentials", "AWS_CONFIG_FILE": folder / "config"}
    getter = make_getter(without_keys(store) | {"AWS_PROFILE": "worker"} | {k: str(v) for k, v in files.items()})
    get(getter, store.url("file"), folder)
    assert (folder / "out").read_bytes() == b"by a role"


def test_tritons_file(s3, make_getter, folder):
    s3.put("models/file", b"triton")
    keys = {"key_id": s3.server.ACCESS_KEY, "secret_key": s3.server.SECRET_KEY, "region": s3.env["AWS_REGION"]}
    path = folder / "credentials.json"
    path.write_text(json.dumps({"s3": {"": {"key_id": "no", "secret_key": "no"}, s3.triton_url("models"): keys}}))
    getter = make_getter({"TRITON_CLOUD_CREDENTIAL_PATH": str(path), "AWS_EC2_METADATA_DISABLED": "true"})
    get(getter, s3.triton_url("models/file"), folder)
    assert (folder / "out").read_bytes() == b"triton"


def test_public_and_private(s3, make_getter, folder):
    s3.put("file", b"x")
    err = get(make_getter(without_keys(s3)), s3.url("file"), folder, DENIED).err
    assert "without credentials" in err and "AWS_ACCESS_KEY_ID" in err
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{s3.bucket}", f"arn:aws:s3:::{s3.bucket}/*"],
            }
        ],
    }
    s3.client.put_bucket_policy(Bucket=s3.bucket, Policy=json.dumps(policy))
    get(make_getter(without_keys(s3)), s3.url("file"), folder)
    assert (folder / "out").read_bytes() == b"x"


def test_a_rule(s3, make_server, make_client, folder):
    s3.put("file", b"by a rule")
    config = folder / "config.yaml"
    rule = {"prefix": s3.url(), "endpoint": s3.server.endpoint, "credentials": "team"}
    (folder / "secret").write_text(f"{s3.server.SECRET_KEY}\n")
    keys = {"access_key_id": s3.server.ACCESS_KEY, "secret_access_key_file": str(folder / "secret")}
    team = keys | {"region": s3.env["AWS_REGION"], "addressing_style": "path"}
    config.write_text(json.dumps({"origins": [rule], "credentials": {"team": team}}))
    client = make_client(make_server("--config", config), MODELCACHE_FALLBACK="no")
    get(client, s3.url("file"), folder)
    assert (folder / "out").read_bytes() == b"by a rule"
    told = client("origins", "check", s3.url("file"), "--json").json
    assert told["upstream"] == "s3" and told["endpoint"] == s3.server.endpoint
    assert "team" in told["credentials"] and told["identity"] == s3.server.ACCESS_KEY
    assert told["size"] == 9 and s3.server.SECRET_KEY not in json.dumps(told)


def test_what_is_not_supported_says_so(make_getter, folder):
    (folder / "config").write_text("[default]\ncredential_process = /bin/false\n")
    err = get(make_getter({"AWS_CONFIG_FILE": str(folder / "config")}), "s3://bucket/file", folder, FAILURE).err
    assert "credential_process" in err and "AWS_PROFILE" in err
