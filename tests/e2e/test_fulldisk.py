"""A disk that is full: a clear error, nothing corrupt, and the client has its file all the same where it can."""

import contextlib
import os
import subprocess

import pytest
from harness import CHUNK, MIB, NO_SPACE, OK, object_files, sha256


@pytest.fixture
def small_disk(folder):
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    point = folder / "small"
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "modelcache-test", point], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs: {mounted.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", "-l", point], check=False)


def fill(folder, leave):
    """Fill a file system up to `leave` bytes."""
    with open(folder / "filler", "wb") as file:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        with contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(free - leave, 1))


def test_servers_disk(nginx, small_disk, make_server, make_client, folder):
    server = make_server(storage=small_disk / "storage")
    small = nginx.model("small.bin", CHUNK, seed=1)
    large = nginx.model("large.bin", 40 * MIB, seed=2)
    client = make_client(server)
    client("get", nginx.url("small.bin"), "-o", folder / "out")

    # The server can't hold it: the client goes to the origin, or the server streams it.
    client("get", nginx.url("large.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == large.sha256
    assert "warn engine: " + nginx.url("large.bin") + " can't be kept" in server.log_text()
    # Without a way round, it is an error that says what is wrong.
    strict = make_client(server, MODELCACHE_FALLBACK="no")
    result = strict("get", nginx.url("large.bin"), "-o", folder / "strict", code=None)
    if result.code == OK:
        assert sha256(folder / "strict") == large.sha256
    else:
        assert result.code == NO_SPACE, result
        assert "room" in result.err
        assert not (folder / "strict").exists()

    # What it had is unharmed, and it goes on working.
    nginx.forget_requests()
    make_client(server)("get", nginx.url("small.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == small.sha256
    assert nginx.requests(method="GET") == []
    more = nginx.model("more.bin", 2 * CHUNK, seed=3)
    make_client(server)("get", nginx.url("more.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == more.sha256
    for path in object_files(server.storage):
        assert sha256(path) in (small.sha256, more.sha256)
    assert server.restart().is_alive()


def test_disk_fills_up_during_a_download_of_unknown_size(origin, small_disk, make_server, make_client, folder):
    server = make_server(storage=small_disk / "storage")
    content = origin.model("model.bin", 40 * MIB)
    origin.behave("model.bin", "chunked")
    make_client(server)("get", origin.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == content.sha256
    assert server.is_alive()
    assert object_files(server.storage, content.size) == []
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    assert free > 20 * MIB, "what could not be kept was left behind"


def test_clients_disk(nginx, small_disk, server, make_client, folder):
    """Its folder is full: it streams straight to where the file is wanted, keeping nothing."""
    model = nginx.model("model.bin", 40 * MIB)
    client = make_client(server, MODELCACHE_STORAGE=small_disk / "storage")
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert object_files(small_disk) == []


def test_local_clients_disk(nginx, small_disk, make_client, folder):
    model = nginx.model("model.bin", 40 * MIB)
    client = make_client(MODELCACHE_STORAGE=small_disk / "storage")
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256


def test_no_room_where_the_file_is_wanted(nginx, small_disk, server, make_client):
    nginx.model("model.bin", 40 * MIB)
    client = make_client(server)
    result = client("get", nginx.url("model.bin"), "-o", small_disk / "out", code=NO_SPACE)
    assert str(small_disk) in result.err
    assert list(small_disk.iterdir()) == []


def test_room_is_made_by_eviction(nginx, small_disk, make_server, make_client, folder):
    """No capacity is set, and the disk is full of older objects: they go."""
    server = make_server(storage=small_disk / "storage")
    client = make_client(server, MODELCACHE_STORAGE="none")
    for number in range(8):
        model = nginx.model(f"{number}.bin", 5 * MIB, seed=number)
        client("get", nginx.url(f"{number}.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert object_files(server.storage, 5 * MIB)
    assert server.metric("evicted_objects_total") > 0


def test_a_disk_that_is_full_from_the_start(nginx, small_disk, make_server, make_client, folder):
    server = make_server(storage=small_disk / "storage")
    fill(small_disk, 0)
    model = nginx.model("model.bin", CHUNK + 1)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    (small_disk / "filler").unlink()
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert len(object_files(server.storage, model.size)) == 1, "there is room again, and it was not kept"
