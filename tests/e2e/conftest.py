"""Fixtures: what they start is ended with the test, also when it fails."""

import importlib
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grpc
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from cluster import RWXFS, Cluster, Getter, Mount, Redis  # noqa: E402
from harness import MODELCACHE, MODELCACHED, ROOT, Command, Modelcached, Nginx, Origin, Processes  # noqa: E402
from stores import MAKES, S3_MAKES, SERVERS  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds in a plain build")


def pytest_sessionstart(session):
    missing = [str(path) for path in (MODELCACHED, MODELCACHE) if not path.exists()]
    if missing and not session.config.option.collectonly:
        pytest.exit(f"not built: {', '.join(missing)}: build first, or set MODELCACHE_BUILD", returncode=2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """On a failure, show the ends of the servers' logs."""
    report = (yield).get_result()
    if report.when == "call" and report.failed and "folder" in item.funcargs:
        for log in sorted(item.funcargs["folder"].rglob("*log")):
            text = log.read_text(errors="replace") if log.is_file() else ""
            if text and log.name != "access.log":
                report.sections.append((f"{log.parent.name}/{log.name}", text[-6000:]))


@pytest.fixture
def folder():
    """A temporary folder that is removed afterwards."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="modelcache-e2e-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def processes(folder):
    started = Processes()
    yield started
    started.close()


@pytest.fixture
def make_nginx(processes, folder):
    """A function that starts an nginx."""
    numbers = itertools.count(1)
    return lambda **settings: Nginx(processes, folder / f"nginx{next(numbers)}", **settings).start()


@pytest.fixture
def nginx(make_nginx):
    """An nginx with the usual settings."""
    return make_nginx()


@pytest.fixture
def make_origin(processes, folder):
    """A function that starts an origin that misbehaves on demand."""
    numbers = itertools.count(1)
    return lambda **settings: Origin(processes, folder / f"origin{next(numbers)}", **settings).start()


@pytest.fixture
def origin(make_origin):
    """An origin that misbehaves on demand."""
    return make_origin()


@pytest.fixture
def make_server(processes, folder):
    """A function that starts a modelcached with further flags: make_server("--retries", 1)."""
    numbers = itertools.count(1)

    def make(*args, start=True, **settings):
        server = Modelcached(processes, folder / f"modelcached{next(numbers)}", args, **settings)
        return server.start() if start else server

    return make


@pytest.fixture
def server(make_server):
    """A modelcached with the usual settings."""
    return make_server()


@pytest.fixture
def make_client(processes, folder):
    """A function that makes a modelcache command with a home of its own, for a server or for none."""
    numbers = itertools.count(1)

    def make(server=None, **env):
        endpoint = {"MODELCACHE_ENDPOINT": server.endpoint} if server else {}
        return Command(processes, folder / f"client{next(numbers)}", endpoint | env)

    return make


@pytest.fixture
def client(make_client, server):
    """A modelcache command that is a client of `server`."""
    return make_client(server)


@pytest.fixture
def local(make_client):
    """A modelcache command with a cache of its own and no server."""
    return make_client()


# ---- clusters ----


@pytest.fixture
def make_redis(processes, folder):
    """A function that starts a Redis."""
    numbers = itertools.count(1)
    return lambda **settings: Redis(processes, folder / f"redis{next(numbers)}", **settings).start()


@pytest.fixture
def redis(make_redis):
    """A Redis that keeps nothing on disk."""
    return make_redis()


@pytest.fixture
def make_mounts(folder):
    """A function that mounts one folder so many times, as the machines of a network volume see it."""
    # Of their own: what a test has started in any order ends before them.
    processes, mounts = Processes(), []

    def make(count, *options):
        if not RWXFS.exists() or not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0:
            pytest.skip("nothing can be mounted here")
        backing = folder / "volume"
        backing.mkdir()
        for number in range(count):
            mounts.append(Mount(processes, backing, folder / f"mount{number}", *options))
        return [mount.path for mount in mounts]

    yield make
    for mount in mounts:
        mount.close()
    processes.close()


@pytest.fixture
def make_cluster(make_mounts, processes, folder, request):
    """A function that starts pods with further flags, over one storage folder and one Redis:
    make_cluster(3, "--retries", 1)."""
    numbers, made = itertools.count(1), []

    def make(count=3, *args, redis=None, start=True, **settings):
        redis = redis or request.getfixturevalue("redis")
        cluster = Cluster(processes, folder / f"cluster{next(numbers)}", redis, count, args, **settings)
        made.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def make_getter_process(processes, folder):
    """A function that starts a process with many clients."""
    numbers, made = itertools.count(1), []

    def make():
        made.append(Getter(processes, folder / f"getter{next(numbers)}"))
        return made[-1]

    yield make
    processes.close()
    for getter in made:
        getter.close()


@pytest.fixture
def getter(make_getter_process):
    """A process with many clients."""
    return make_getter_process()


# ---- object stores ----


@pytest.fixture(scope="session")
def store_server():
    """A function that gives the server of a make, which it starts the first time."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="modelcache-stores-"))
    processes, servers = Processes(), {}

    def get(make):
        if make not in servers:
            servers[make] = SERVERS[make](processes, folder / make).start()
        return servers[make]

    yield get
    processes.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_store(store_server):
    """A function that makes a bucket, a container or a repository of its own on the server of a make."""
    stores = []

    def make(name):
        stores.append(store_server(name).store())
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture(params=MAKES)
def store(request, make_store):
    """A store of each make."""
    return make_store(request.param)


@pytest.fixture(params=S3_MAKES)
def s3(request, make_store):
    """A bucket on each S3 server."""
    return make_store(request.param)


@pytest.fixture
def gcs(make_store):
    """A bucket of Google's kind."""
    return make_store("gcs")


@pytest.fixture
def azure(make_store):
    """A container of Azure's kind."""
    return make_store("azure")


@pytest.fixture
def hf(make_store):
    """A repository on a hub of its own."""
    return make_store("hf")


# ---- the control plane, from its .proto files alone ----


class Stubs:
    """What protoc makes of the .proto files."""

    def __init__(self, folder):
        folders = [ROOT / "proto/modelcache/v1", ROOT / "proto/grpc/health/v1"]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                *(f"-I{path}" for path in folders),
                f"--python_out={folder}",
                f"--grpc_python_out={folder}",
                "modelcache.proto",
                "health.proto",
            ],
            check=True,
        )
        sys.path.insert(0, str(folder))
        try:
            self.pb, self.pb_grpc, self.health, self.health_grpc = (
                importlib.import_module(name)
                for name in ("modelcache_pb2", "modelcache_pb2_grpc", "health_pb2", "health_pb2_grpc")
            )
        finally:
            sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    return Stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def dial(stubs):
    """A function that opens a channel to a server, and gives the service's stub."""
    channels = []

    def make(server):
        # A pool of its own: channels with the same arguments would share their connections.
        channel = grpc.insecure_channel(server.control, options=[("grpc.use_local_subchannel_pool", 1)])
        channels.append(channel)
        stub = stubs.pb_grpc.ModelCacheStub(channel)
        stub.channel = channel
        stub.health = stubs.health_grpc.HealthStub(channel)
        return stub

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture(params=["server", "local"])
def make_getter(request, make_client, make_server):
    """A function that makes a command with this environment: with a server that has it, or with none. Both ask every time
    whether something is new."""

    def make(env, *args):
        usual = {"MODELCACHE_REVALIDATE_AFTER": "1ms", "MODELCACHE_FALLBACK": "no"}
        if request.param == "local":
            return make_client(**env, **usual)
        return make_client(make_server("--revalidate-after", "1ms", *args, env=env), **usual)

    return make
