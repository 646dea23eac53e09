"""Azure Blob Storage: a real Azurite behind a server and in-process."""

import base64
import datetime
import json
import os
import random
import sys

import pytest
from azure.storage.blob import ContentSettings, generate_container_sas
from harness import DENIED, MIB, MISSING, OK, ROOT, SANITIZER, USAGE

sys.path.insert(0, str(ROOT / "tests" / "support"))

from azure_gate import Gate

KEYS = [
    "plain.bin",
    "a folder/with space.bin",
    "plus+equals=at@.bin",
    "percent%20sign%.bin",
    "hash#mark.bin",
    "question?mark.bin",
    "ünïcode/模型.bin",
    "a&b;c,d'e(f)!g*h$.bin",
    '~tilde:colon[x]{y}|z^`".bin',
]


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def quoted(path):
    """What a URL has to quote: what would end the path, and escapes."""
    return path.replace("%", "%25").replace("?", "%3F")


@pytest.fixture(params=["server", "local"])
def make_getter(request, make_client, make_server):
    """A function that makes a command with a server that has these variables, or one without server that has them
    itself; both always ask the origin."""

    def make(env):
        fresh = {"MODELCACHE_REVALIDATE_AFTER": "1ms", "MODELCACHE_NEGATIVE_TTL": "0"}
        if request.param == "server":
            return make_client(make_server(env=env | fresh), MODELCACHE_FALLBACK="false", **fresh)
        return make_client(**env, **fresh)

    return make


@pytest.fixture
def getter(azure, make_getter):
    return make_getter(azure.env)


@pytest.fixture
def gate(azure):
    """In front of the store: it wants tokens."""
    gate = Gate(azure.server.endpoint, sas(azure)).start()
    yield gate
    gate.stop()


def read_tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_get_stat_and_a_new_version(azure, getter, folder):
    data = noise(5 * MIB + 3)
    tag = azure.put("model.bin", data)["etag"]
    url = azure.url("model.bin")
    getter("get", url, "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    told = getter("stat", url, "--json").json
    assert (told["size"], told["etag"]) == (len(data), tag)
    data = noise(1000, 2)
    azure.put("model.bin", data)
    getter("get", url, "-o", folder / "out")
    assert (folder / "out").read_bytes() == data
    host = url.replace(azure.account, f"{azure.account}.blob.core.windows.net", 1)
    getter("get", host, "-o", folder / "out2")
    assert (folder / "out2").read_bytes() == data
    azure.delete("model.bin")
    getter("get", url, "-o", folder / "out", code=MISSING)


def test_names_with_characters_of_all_kinds(azure, getter, folder):
    files = {path: path.encode() for path in KEYS}
    azure.put_many(files)
    for path in KEYS:
        getter("get", azure.url(quoted(path)), "-o", folder / "out")
        assert (folder / "out").read_bytes() == path.encode(), path
    getter("tree", azure.url(), folder / "tree")
    assert read_tree((folder / "tree").resolve()) == files


def test_empty_and_large(azure, getter, folder):
    azure.put("empty", b"")
    getter("get", azure.url("empty"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b""
    large = noise(MIB) * 97 + b"end"
    azure.put("large", large)
    getter("get", azure.url("large"), "-o", folder / "out", timeout=120)
    assert (folder / "out").read_bytes() == large


def test_the_md5_that_is_kept_with_a_blob(azure, getter, local, folder):
    """What has come is compared with it, in a tree too, where nothing but the listing and the content is asked for."""
    azure.put("sums/wrong", b"not what it says")
    azure.blob("sums/wrong").set_http_headers(ContentSettings(content_md5=bytearray(16)))
    for command, target in (("get", "out"), ("tree", "tree")):
        url = azure.url("sums/" if command == "tree" else "sums/wrong")
        flags = ("-o", folder / target) if command == "get" else (folder / target,)
        assert getter(command, url, *flags, code=None).code != OK
        assert not (folder / target).exists()
        assert "MD5" in local(command, url, *flags, env=azure.env, code=None).err
        assert not (folder / target).exists()


@pytest.mark.slow
def test_tree_of_several_pages(azure, getter, folder):
    """The service gives at most 5000 at once; of which a sanitizer learns no more than of a few."""
    files = {f"models/{n % 9}/{n:05}": b"%d" % n for n in range(100 if SANITIZER else 5100)}
    azure.put_many(files)
    azure.put("models2/x", b"of another folder")
    azure.put("models/folder/", b"")
    azure.put("models/of/a/hierarchical/account", b"", metadata={"hdi_isfolder": "true"})
    getter("tree", azure.url("models/"), folder / "tree", timeout=300)
    assert read_tree((folder / "tree").resolve()) == {
        path.removeprefix("models/"): data for path, data in files.items()
    }
    listed = getter("ls", azure.url("models/"), "--origin", "--json", timeout=120).json_lines
    assert len(listed) == len(files)
    getter("tree", azure.url("nothing/"), folder / "none", code=MISSING)
    getter("get", azure.url("models/of/a/hierarchical/account"), "-o", folder / "out", code=MISSING)


def test_a_tree_of_which_some_is_new(azure, getter, folder):
    files = {f"models/{n % 3}/{n:03}.bin": noise(1000 + n, n) for n in range(60)}
    azure.put_many(files)
    getter("tree", azure.url("models/"), folder / "tree")
    first = (folder / "tree").resolve()
    getter("tree", azure.url("models/"), folder / "tree")
    assert (folder / "tree").resolve() == first
    files["models/1/001.bin"] = b"another"
    azure.put("models/1/001.bin", b"another")
    azure.delete("models/0/000.bin")
    del files["models/0/000.bin"]
    getter("tree", azure.url("models/"), folder / "tree")
    assert (folder / "tree").resolve() != first
    assert read_tree((folder / "tree").resolve()) == {
        path.removeprefix("models/"): data for path, data in files.items()
    }


def test_a_snapshot(azure, getter, folder):
    azure.put("model.bin", b"the former one")
    snapshot = azure.blob("model.bin").create_snapshot()["snapshot"]
    azure.put("model.bin", b"the current one")
    getter("get", azure.url(f"model.bin?snapshot={snapshot}"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"the former one"
    getter("get", azure.url("model.bin?sig=abc"), "-o", folder / "out", code=USAGE)


def test_content_that_changes_during_the_download(azure, gate, make_getter, folder):
    """What was read of the old version is dropped, since no part of the new one is taken for it."""
    azure.put("model.bin", noise(40 * MIB, 1))
    new = noise(40 * MIB, 2)
    getter = make_getter(application(gate, folder))

    def change(number):
        if number == 4:
            azure.put("model.bin", new)

    gate.on_read = change
    getter("get", azure.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == new


# ---- credentials ----


def sas(azure, permission="rl", hours=1):
    expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    return generate_container_sas(
        azure.account, azure.container, account_key=azure.server.KEY, permission=permission, expiry=expiry
    )


def test_variables(azure, make_client, folder):
    """An account's key or a SAS, with the endpoint of the service or of the account."""
    azure.put("model.bin", b"content")
    account = {"AZURE_STORAGE_ACCOUNT": azure.account}
    for env in (
        account | {"AZURE_STORAGE_KEY": azure.server.KEY, "AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint},
        {"AZURE_STORAGE_KEY": azure.server.KEY, "AZURE_STORAGE_SERVICE_ENDPOINT": azure.server.endpoint},
        account | {"AZURE_STORAGE_SAS_TOKEN": sas(azure), "AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint},
        {"AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={azure.endpoint};SharedAccessSignature={sas(azure)}"},
    ):
        client = make_client(**env)
        client("get", azure.url("model.bin"), "-o", folder / "out")
        assert (folder / "out").read_bytes() == b"content"
        client("tree", azure.url(), folder / f"tree{len(os.listdir(folder))}")


def test_rules_and_triton(azure, make_server, make_client, folder):
    azure.put("model.bin", b"content")
    (folder / "sas").write_text(f"?{sas(azure)}\n")
    (folder / "key").write_text(f"{azure.server.KEY}\n")
    named = {
        "key": {"account_key": azure.server.KEY},
        "sas": {"account": azure.account, "sas": sas(azure)},
        "sas-file": {"sas_file": str(folder / "sas")},
        "key-file": {"account_key_file": str(folder / "key")},
        "connection": {"connection_string": azure.connection},
    }
    for name, settings in named.items():
        rule = {"prefix": f"as://{azure.account}/", "credentials": name, "endpoint": azure.server.endpoint}
        config = folder / f"{name}.yaml"
        config.write_text(json.dumps({"origins": [rule], "credentials": {name: settings}}))
        server = make_server("--config", config, "--log-level", "debug")
        client = make_client(server, MODELCACHE_FALLBACK="false")
        client("get", azure.url("model.bin"), "-o", folder / "out")
        assert (folder / "out").read_bytes() == b"content"
        told = client("origins", "check", azure.url("model.bin")).out + server.log_text()
        assert f"'{name}'" in told and "sig=" not in told and azure.server.KEY not in told
    triton = folder / "triton.json"
    other = {"account_str": "another", "account_key": base64.b64encode(b"of another").decode()}
    mine = {"account_str": azure.account, "account_key": azure.server.KEY}
    triton.write_text(json.dumps({"as": {"": other, f"as://{azure.account}": mine}}))
    env = {"TRITON_CLOUD_CREDENTIAL_PATH": triton, "AZURE_STORAGE_BLOB_ENDPOINT": azure.server.endpoint}
    make_client(**env)("get", azure.url("model.bin"), "-o", folder / "out2")
    assert (folder / "out2").read_bytes() == b"content"


def test_what_is_not_let_in_is_told(azure, make_client, folder):
    azure.put("model.bin", b"content")
    wrong = base64.b64encode(b"not the key").decode()
    endpoint = {"AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint}
    late, blind = sas(azure, hours=-1), sas(azure, permission="w")
    account = endpoint | {"AZURE_STORAGE_ACCOUNT": azure.account}
    for env, said in (
        (endpoint | {"AZURE_STORAGE_KEY": wrong}, "AZURE_STORAGE_KEY"),
        (account | {"AZURE_STORAGE_SAS_TOKEN": late}, "AZURE_STORAGE_SAS_TOKEN"),
        (account | {"AZURE_STORAGE_SAS_TOKEN": blind}, "right to read"),
    ):
        for command in (("get", azure.url("model.bin"), "-o", folder / "out"), ("tree", azure.url(), folder / "tree")):
            result = make_client(**env)(*command, "--retries", 0, code=DENIED)
            assert said in result.err, result
            assert wrong not in result.err and "sig=" not in result.err, result
    client = make_client(**azure.env)
    nowhere = f"as://{azure.account}/no-such-container/model.bin"
    assert "no such container" in client("get", nowhere, "-o", folder / "out", code=MISSING).err
    assert "is a container" in client("get", azure.url(), "-o", folder / "out", code=MISSING).err
    for url in ("as://127.0.0.1:10000/account/c/x", "as://account/", "as://x.blob.example.com/c/x", "as://UPPER/c/x"):
        assert "as://ACCOUNT/CONTAINER/PATH" in client("get", url, "-o", folder / "out", code=USAGE).err


def test_a_public_container(azure, make_client, folder):
    azure.put("model.bin", b"content")
    azure.client.get_container_client(azure.container).set_container_access_policy({}, public_access="container")
    # There is a metadata service for nobody at this address, which is found out once.
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1", "AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint}
    client = make_client(**env)
    client("get", azure.url("model.bin"), "-o", folder / "out")
    client("tree", azure.url(), folder / "tree")
    assert (folder / "tree" / "model.bin").read_bytes() == b"content"
    azure.client.get_container_client(azure.container).set_container_access_policy({}, public_access=None)
    result = client("get", azure.url("model.bin"), "-o", folder / "out", "--refresh", code=None)
    assert result.code in (DENIED, MISSING) and "without" in result.err, result


# ---- identities ----


def application(gate, folder):
    (folder / "assertion").write_text(f"{gate.assertion}\n")
    names = {"AZURE_CLIENT_ID": "app", "AZURE_TENANT_ID": "tenant"}
    return gate.env | names | {"AZURE_FEDERATED_TOKEN_FILE": str(folder / "assertion")}


def test_a_token_that_expires_halfway(azure, gate, make_getter, folder):
    """What has come stays, and the file with the assertion is read again."""
    data = noise(MIB) * 60 + b"end"
    azure.put("model.bin", data)
    getter = make_getter(application(gate, folder))

    def expire(number):
        if number == 3:
            gate.assertion = "another"
            (folder / "assertion").write_text("another")
            gate.revoke()

    gate.on_read = expire
    getter("get", azure.url("model.bin"), "-o", folder / "out", timeout=120)
    assert (folder / "out").read_bytes() == data
    assert gate.given == ["application"] * 2
    assert len(set(gate.reads)) > 3 and None not in gate.reads, "it is read in several ranges"


def test_who_gets_no_token_is_told_why(azure, gate, make_getter, folder):
    azure.put("model.bin", b"content")
    getter = make_getter(application(gate, folder))
    (folder / "assertion").write_text("wrong-and-secret")
    result = getter("get", azure.url("model.bin"), "-o", folder / "out", "--retries", 0, code=DENIED)
    assert "AADSTS700024" in result.err and "AZURE_FEDERATED_TOKEN_FILE" in result.err, result
    assert "wrong-and-secret" not in result.err, result
    secret = {name: value for name, value in application(gate, folder).items() if "FEDERATED" not in name}
    make_getter(secret | {"AZURE_CLIENT_SECRET": gate.assertion})("get", azure.url("model.bin"), "-o", folder / "out")
    assert (folder / "out").read_bytes() == b"content"


def test_the_machines_identity_and_a_service_that_is_busy(azure, gate, make_getter, folder):
    files = {f"models/{number}": b"%d" % number for number in range(30)}
    azure.put_many(files)
    busy = (503, {"x-ms-error-code": "ServerBusy", "Retry-After": "1"})
    gate.on_read = lambda number: busy if number == 2 else None
    getter = make_getter(gate.env)
    getter("tree", azure.url(), folder / "tree")
    assert read_tree((folder / "tree").resolve()) == files
    assert gate.given == ["machine"], "one token for all"
    assert len(gate.reads) == len(files) + 1
