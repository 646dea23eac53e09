"""The stores that the other tests stand on: each is what it says, as its own client sees it."""

import base64
import hashlib
import os
import subprocess
import sys
import urllib.parse

import pytest
import requests

from harness import MIB, SANITIZER

pytestmark = pytest.mark.skipif(bool(SANITIZER), reason="nothing of ours runs here")


@pytest.fixture
def hf_python(hf, folder):
    """A function that runs a piece of Python with the real huggingface_hub, without a token unless it is given one."""

    def run(code, **env):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        clean |= {"HF_HOME": str(folder / "hf"), "HF_ENDPOINT": hf.endpoint, "HF_HUB_DISABLE_XET": "1"}
        code = f"import huggingface_hub as hub\nrepo = {hf.name!r}\n{code}"
        result = subprocess.run(
            [sys.executable, "-c", code], env=clean | env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        return result.stdout.strip() if result.returncode == 0 else result.stderr.strip().splitlines()

    return run


def test_put_get_delete(store):
    data = os.urandom(MIB + 17)
    store.put("a folder/ünï+=@.bin", data)
    store.put_many({f"many/{number:03}": b"%d" % number for number in range(50)})
    assert store.get("a folder/ünï+=@.bin") == data
    assert store.get("many/049") == b"49"
    assert store.url("many/049").endswith("/many/049")
    store.delete("many/049")
    with pytest.raises(Exception, match="404|not exist|NoSuchKey|Entry not found|No such object"):
        store.get("many/049")


def test_put_file(store, folder):
    source = folder / "source"
    source.write_bytes(os.urandom(9 * MIB))
    store.put_file("dir/large", source)
    assert store.get("dir/large") == source.read_bytes()


def test_stores_are_apart(make_store):
    for make in ("minio", "azure"):
        one, other = make_store(make), make_store(make)
        one.put("file", b"one")
        other.put("file", b"other")
        assert one.get("file") == b"one"


# ---- S3 ----


def test_s3_checks_signatures(s3):
    from botocore.exceptions import ClientError

    s3.put("file", b"data")
    wrong = s3.server.client(aws_secret_access_key="not it")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.get_object(Bucket=s3.bucket, Key="file")


def test_s3_ranges_conditions_and_checksums(s3):
    from botocore.exceptions import ClientError

    where = {"Bucket": s3.bucket, "Key": "file"}
    first = s3.put("file", b"0123456789", ChecksumAlgorithm="SHA256")["ETag"]
    part = s3.client.get_object(**where, Range="bytes=2-4", IfMatch=first)
    assert (part["Body"].read(), part["ContentRange"]) == (b"234", "bytes 2-4/10")
    head = s3.client.head_object(**where, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"0123456789").digest()).decode()
    s3.put("file", b"9876543210")
    with pytest.raises(ClientError, match="412|PreconditionFailed"):
        s3.client.get_object(**where, Range="bytes=2-4", IfMatch=first)


def test_s3_buckets_as_hosts(s3):
    from botocore.config import Config

    s3.put("a/file", b"data")
    endpoint = s3.virtual_host_env["AWS_ENDPOINT_URL"]
    config = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
    client = s3.server.client(endpoint=endpoint, config=config)
    url = client.generate_presigned_url("get_object", {"Bucket": s3.bucket, "Key": "a/file"})
    host = f"{s3.bucket}.{urllib.parse.urlsplit(endpoint).netloc}"
    assert host in url
    # Not every resolver knows that names below localhost are this machine.
    answer = requests.get(url.replace(host, f"127.0.0.1:{s3.server.port}"), headers={"Host": host})
    assert answer.content == b"data"


def test_s3_lists_by_pages(s3):
    s3.put_many({f"dir/{number:03}": b"x" for number in range(25)})
    pages = s3.client.get_paginator("list_objects_v2").paginate(
        Bucket=s3.bucket, Prefix="dir/", PaginationConfig={"PageSize": 10}
    )
    pages = [[entry["Key"] for entry in page["Contents"]] for page in pages]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert sum(pages, []) == [f"dir/{number:03}" for number in range(25)]


def test_s3_versions(s3):
    s3.keep_versions()
    old = s3.put("file", b"old")["VersionId"]
    s3.put("file", b"new")
    assert s3.get("file") == b"new"
    assert s3.client.get_object(Bucket=s3.bucket, Key="file", VersionId=old)["Body"].read() == b"old"


def test_s3_session_token(make_store):
    from botocore.exceptions import ClientError

    store = make_store("minio")
    store.put("file", b"data")
    key, secret, token = store.server.temporary_keys()
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    where = {"Bucket": store.bucket, "Key": "file"}
    assert store.server.client(**keys, aws_session_token=token).get_object(**where)["Body"].read() == b"data"
    with pytest.raises(ClientError):
        store.server.client(**keys).get_object(**where)


# ---- Google and Azure ----


def test_gcs_generations_and_ranges(gcs):
    first = gcs.put("file", b"0123456789").generation
    assert gcs.blob("file").download_as_bytes(start=2, end=4) == b"234"
    assert gcs.put("file", b"new").generation != first
    assert [blob.name for blob in gcs.client.list_blobs(gcs.bucket)] == ["file"]


def test_azure_signatures_etags_and_pages(azure):
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError, ResourceModifiedError
    from azure.storage.blob import BlobServiceClient

    first = azure.put("file", b"0123456789")["etag"]
    assert azure.blob("file").download_blob(2, 3).readall() == b"234"
    azure.put("file", b"new")
    with pytest.raises(ResourceModifiedError):
        azure.blob("file").download_blob(etag=first, match_condition=MatchConditions.IfNotModified)
    azure.put_many({f"dir/{number}": b"x" for number in range(5)})
    pages = azure.client.get_container_client(azure.container).list_blobs("dir/", results_per_page=2).by_page()
    assert [len(list(page)) for page in pages] == [2, 2, 1]
    wrong = BlobServiceClient(azure.endpoint, {"account_name": azure.account, "account_key": "bm90IGl0"}, retry_total=0)
    with wrong, pytest.raises(HttpResponseError, match="AuthorizationFailure|Authenticat"):
        wrong.get_blob_client(azure.container, "file").download_blob()


# ---- Hugging Face, by the real client ----


def test_hf_files(hf, hf_python):
    large = os.urandom(2 * MIB)
    commit = hf.repo.commit({"config.json": b"{}", "sub/dir/model.safetensors": hf.file(large), "a b+ü.txt": b"text"})
    code = "print(open(hub.hf_hub_download(repo, {!r}), 'rb').read().hex())"
    assert bytes.fromhex(hf_python(code.format("config.json"))) == b"{}"
    assert bytes.fromhex(hf_python(code.format("a b+ü.txt"))) == b"text"
    assert bytes.fromhex(hf_python(code.format("sub/dir/model.safetensors"), HF_TOKEN=hf.token)) == large
    assert hf_python("print(hub.model_info(repo).sha)") == commit
    assert hf.hub.asked("cdn", "GET") and not hf.hub.refusals()


def test_hf_cdn_refuses_tokens(hf):
    hf.put("large", b"large", lfs=True)
    headers = {"Authorization": f"Bearer {hf.token}"}
    answer = requests.get(f"{hf.endpoint}/{hf.name}/resolve/main/large", headers=headers, allow_redirects=False)
    assert (answer.status_code, answer.headers["X-Linked-Size"]) == (302, "5")
    assert requests.get(answer.headers["Location"], headers={"Range": "bytes=1-2"}).content == b"ar"
    assert requests.get(answer.headers["Location"], headers=headers).status_code == 400
    assert hf.hub.refusals() == 1
    hf.hub.expire_urls()
    assert requests.get(answer.headers["Location"]).status_code == 403


@pytest.mark.parametrize("cached", [False, True])
def test_hf_snapshot(hf, hf_python, folder, cached):
    """More files than a page lists, some in LFS and in Xet; a branch that moves."""
    hf.hub.page_size, hf.hub.resolve_cache = 10, cached
    files = {f"dir{number % 3}/file{number}": b"%d" % number for number in range(25)}
    hf.put_many(files)
    hf.put("weights.bin", os.urandom(MIB), xet=True)
    code = (
        "import pathlib\n"
        "root = pathlib.Path(hub.snapshot_download(repo, revision='main'))\n"
        "print(root.name, sum(path.is_file() for path in root.rglob('*')))"
    )
    assert hf_python(code) == f"{hf.repo.head()} 26"
    assert len(hf.hub.asked("hub", path="/tree/")) >= 3
    old = hf.repo.head()
    hf.delete("weights.bin")
    assert hf_python(code) == f"{hf.repo.head()} 25"
    hf.repo.move("main", old)
    assert hf_python("print(len(hub.list_repo_files(repo)))") == "26"
    assert hf_python(f"print(len(hub.list_repo_files(repo, revision={hf.repo.commit({'x': b'x'})!r})))") == "27"


def test_hf_kinds_and_branches(hf, hf_python):
    hf.hub.repo("org/set", "datasets").commit({"data.csv": b"a,b\n"}, branch="refs/pr/1")
    code = "print(hub.hf_hub_download('org/set', 'data.csv', repo_type='dataset', revision='refs/pr/1'))"
    assert hf_python(code).endswith("data.csv")
    assert "RevisionNotFoundError" in "".join(hf_python("hub.hf_hub_download(repo, 'x', revision='nowhere')"))
    assert "EntryNotFoundError" in "".join(hf_python("hub.hf_hub_download(repo, 'x')"))
    assert "RepositoryNotFoundError" in "".join(hf_python("hub.hf_hub_download('org/none', 'x')"))


def test_hf_private_and_gated(hf, hf_python):
    hf.put("file", b"data")
    code = "print(open(hub.hf_hub_download(repo, 'file', force_download=True)).read())"
    hf.hub.repo(hf.name, private=True)
    assert "RepositoryNotFoundError" in "".join(hf_python(code))
    assert hf_python(code, HF_TOKEN=hf.token) == "data"
    hf.hub.repo(hf.name, private=False, gated=True)
    assert "GatedRepoError" in "".join(hf_python(code))
    assert hf_python(code, HF_TOKEN=hf.token) == "data"
    hf.hub.tokens.clear()
    assert "401" in "".join(hf_python(code, HF_TOKEN=hf.token))
    hf.hub.tokens.add(hf.token)
    hf.hub.fail(503, match="/resolve/")
    assert "503" in "".join(hf_python(code, HF_TOKEN=hf.token))
    assert hf_python(code, HF_TOKEN=hf.token) == "data"
