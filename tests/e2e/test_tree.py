"""A folder of files, got and published together."""

import json
import os
import pathlib

import pytest
from harness import CHUNK, FAILURE, MIB, MISSING, OK, UNAVAILABLE, USAGE, ModelFile, sha256

FILES = 200


def make_tree(nginx, name, version, count):
    """`count` files in nested folders; a dictionary of path and digest."""
    digests = {}
    for number in range(count):
        path = f"part{number % 7}/sub {number % 3}/file-{number:03d}.bin"
        model = nginx.model(f"{name}/{path}", 1000 + number * 37, seed=version * 1000 + number)
        os.utime(model.path, (1_700_000_000 + version,) * 2)
        digests[path] = model.sha256
    return digests


def read_tree(path):
    path = pathlib.Path(path)
    return {str(file.relative_to(path)): sha256(file) for file in path.rglob("*") if file.is_file()}


@pytest.fixture(params=["server", "local"])
def getter(request, make_client, make_server):
    """A command with a server, and one without; both ask the origin every time whether something is new."""
    if request.param == "server":
        return make_client(make_server("--revalidate-after", "1ms"), MODELCACHE_REVALIDATE_AFTER="1ms")
    return make_client(MODELCACHE_REVALIDATE_AFTER="1ms")


def test_200_files_and_a_new_version(nginx, getter, folder):
    digests = make_tree(nginx, "model", 1, FILES)
    target = folder / "tree"
    getter("tree", nginx.url("model/"), target, timeout=120)
    assert target.is_symlink()
    assert read_tree(target) == digests
    first = target.resolve()

    # A reader opens the tree and holds it over the switch.
    held = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    opened = open(target / "part0/sub 0/file-000.bin", "rb")
    sent = nginx.bytes_sent()

    # The same again: the same place, nothing is downloaded.
    getter("tree", nginx.url("model/"), target, timeout=120)
    assert target.resolve() == first
    assert sum(row["bytes"] for row in nginx.requests(method="GET") if row["uri"].endswith(".bin")) <= sent

    new = make_tree(nginx, "model", 2, FILES - 10)
    for path in set(digests) - set(new):
        (nginx.files / "model" / path).unlink()
    getter("tree", nginx.url("model/"), target, timeout=120)
    assert read_tree(target) == new
    assert target.resolve() != first

    # What the reader opened is the old version still, whole.
    with opened:
        assert opened.read() == ModelFile(folder / "old", 1000, 1000).bytes()
    assert read_tree(f"/proc/self/fd/{held}/") == digests
    os.close(held)


def test_the_tree_stays_while_its_origin_is_away(nginx, getter, folder):
    digests = make_tree(nginx, "model", 1, 12)
    make_tree(nginx, "other", 2, 3)
    target = folder / "tree"
    getter("tree", nginx.url("model/"), target)
    nginx.stop()
    result = getter("tree", nginx.url("model/"), target, "--json", "--retries", 0)
    assert json.loads(result.out) == {
        "url": nginx.url("model/"),
        "path": str(target),
        "files": 12,
        "bytes": sum(path.stat().st_size for path in target.rglob("*.bin")),
        "changed": False,
    }
    assert "stays as it was" in result.err
    assert read_tree(target) == digests
    # Not another one, and not for ever.
    getter("tree", nginx.url("other/"), target, "--retries", 0, code=UNAVAILABLE)
    getter("tree", nginx.url("model/"), target, "--retries", 0, "--stale-if-error", "1ms", code=UNAVAILABLE)
    assert read_tree(target) == digests
    nginx.start()
    getter("tree", nginx.url("other/"), target)
    assert len(read_tree(target)) == 3


def test_patterns_choose_the_files(nginx, getter, folder):
    digests = make_tree(nginx, "model", 1, 42)
    target = folder / "tree"

    def tree(*args, **options):
        return getter("tree", nginx.url("model/"), target, *args, "--retries", 0, **options)

    tree("--allow", "part3/", "--allow=part[45]/*", "--ignore", "*1/*", "--ignore", "*-00?.bin")
    chosen = {
        path: digest
        for path, digest in digests.items()
        if path[:5] in ("part3", "part4", "part5") and "sub 1" not in path and "-00" not in path
    }
    assert chosen and read_tree(target) == chosen
    fetched = {row["uri"] for row in nginx.requests(method="GET") if row["uri"].endswith(".bin")}
    assert len(fetched) == len(chosen)
    # The same path with other patterns is switched to another tree, and none but its own stays when the origin is away.
    tree("--ignore", "part3/")
    assert read_tree(target) == {path: digest for path, digest in digests.items() if path[:5] != "part3"}
    nginx.stop()
    tree("--ignore", "part3/")
    tree("--allow", "part3/", code=UNAVAILABLE)
    tree(code=UNAVAILABLE)
    nginx.start()
    tree()
    assert read_tree(target) == digests


def test_patterns_that_choose_nothing(nginx, local, folder):
    make_tree(nginx, "model", 1, 3)
    url, target = nginx.url("model/"), folder / "tree"
    assert "none of the 3 files" in local("tree", url, target, "--allow", "*.json", code=MISSING).err
    assert not target.exists()
    assert "a pattern to ignore" in local("tree", url, target, "--ignore", "", code=USAGE).err
    assert "a pattern to allow" in local("tree", url, target, "--allow", "x" * 2000, code=USAGE).err
    assert "does not take --allow" in local("get", url, "--allow", "*", code=USAGE).err


def test_a_failed_update_changes_nothing(nginx, getter, folder):
    digests = make_tree(nginx, "model", 1, 12)
    target = folder / "tree"
    getter("tree", nginx.url("model/"), target)
    make_tree(nginx, "model", 2, 12)
    hidden = nginx.files / "model" / "part3/sub 0/file-003.bin"
    hidden.unlink()
    os.mkfifo(hidden)  # listed, and can't be read
    result = getter("tree", nginx.url("model/"), target, "--retries", "0", "--timeout", "20s", code=None)
    assert result.code != OK
    assert read_tree(target) == digests


def test_a_folder_that_is_no_tree_is_left_alone(nginx, local, folder):
    make_tree(nginx, "model", 1, 3)
    target = folder / "mine"
    target.mkdir()
    (target / "precious").write_text("keep me")
    result = local("tree", nginx.url("model/"), target, code=None)
    assert result.code in (FAILURE, USAGE)
    assert str(target) in result.err
    assert (target / "precious").read_text() == "keep me"
    assert not target.is_symlink()


def test_a_link_that_is_not_ours_is_left_alone(nginx, local, folder):
    make_tree(nginx, "tree", 1, 1)
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder / "elsewhere")
    assert "not a tree" in local("tree", nginx.url("tree/"), folder / "link", code=USAGE).err
    assert os.readlink(folder / "link") == str(folder / "elsewhere")
    assert not list((folder / "elsewhere").iterdir())


def test_a_missing_tree(nginx, local, folder):
    local("tree", nginx.url("nowhere/"), folder / "tree", code=MISSING)
    assert not (folder / "tree").is_symlink()


def test_a_limit_on_files(nginx, local, folder):
    make_tree(nginx, "model", 1, 20)
    result = local("tree", nginx.url("model/"), folder / "tree", "--tree-files", "10", code=None)
    assert result.code not in (OK, USAGE)
    assert "10" in result.err
    assert not (folder / "tree").exists()


def test_trees_share_what_is_the_same(nginx, local, folder):
    for number, name in enumerate("ab"):
        nginx.model(f"{name}/weights.bin", 2 * CHUNK, seed=5)
        nginx.model(f"{name}/config.bin", 100, seed=number)
    for name in ("a", "b"):
        local("tree", nginx.url(f"{name}/"), folder / name)
    used = {}
    for path in folder.joinpath("client1").rglob("*"):
        if path.is_file() and not path.is_symlink():
            used[path.stat().st_ino] = path.stat().st_blocks * 512
    assert sum(used.values()) < 3 * CHUNK + MIB, "the weights were stored twice"


def test_several_at_once_switch_to_whole_trees(nginx, make_client, make_server, folder):
    """Commands that update one path at the same time: it is always a whole version."""
    server = make_server("--revalidate-after", "1ms")
    digests = make_tree(nginx, "model", 1, 30)
    client = make_client(server)
    started = [client.start("tree", nginx.url("model/"), folder / "tree") for _ in range(4)]
    for process in started:
        assert client.finish(process).code == OK
        assert read_tree(folder / "tree") == digests
