"""The modelcache command, as people and scripts meet it."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest
from harness import (
    BUILD,
    CHUNK,
    DENIED,
    FAILURE,
    MIB,
    MISSING,
    MODELCACHE,
    OK,
    ROOT,
    SLOWNESS,
    UNAVAILABLE,
    USAGE,
    clean_environment,
    free_port,
    sha256,
    wait_until,
)

NOWHERE = "http://127.0.0.1:1/model.bin"
COMMANDS = ["get", "tree", "stat", "ls", "prefetch", "evict", "repair", "origins", "status"]


class Terminal:
    """The command at a terminal of so many columns; `text` is all that was shown."""

    def __init__(self, client, columns, *args, **env):
        self.client, self.text = client, ""
        self.fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = client.env | {"TERM": "xterm"} | env
        self.process = client.processes.start(
            [MODELCACHE, *args], env=clean_environment(client.folder, env), stdout=slave, stderr=slave
        )
        os.close(slave)

    def read_until(self, pattern, timeout=20):
        deadline = time.monotonic() + timeout * SLOWNESS
        while not re.search(pattern, self.text):
            left = deadline - time.monotonic()
            assert left > 0 and self.read(left), f"{pattern} did not appear in {self.text!r}"
        return self

    def read(self, timeout):
        """A piece more; False at the end."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += piece.decode(errors="replace")
        return bool(piece)

    def finish(self, timeout=60):
        while self.read(timeout * SLOWNESS):
            pass
        code = self.process.wait(timeout * SLOWNESS)
        self.client.processes.forget(self.process)
        os.close(self.fd)
        return code

    @property
    def lines(self):
        """What each drawing of the bottom line showed."""
        return [line for line in re.split(r"\r\x1b\[K|\r?\n", self.text) if line]


# ---- progress ----


@pytest.fixture
def slow(make_nginx):
    nginx = make_nginx(rate=2 * MIB)
    nginx.model("a-model-with-a-name.bin", 6 * CHUNK)
    return nginx


def test_progress_on_a_terminal(slow, local, folder):
    """One line that is drawn again, never wider than the terminal, with a bar, a rate and the time that is left."""
    url = slow.url("a-model-with-a-name.bin")
    terminal = Terminal(local, 100, "get", url, "-o", folder / "out", "--parallelism", "1")
    terminal.read_until(r"\[=+> *\] +\d+%.* MiB of 24\.0 MiB +[\d.]+ MiB/s +[\d.]+ s left")
    assert terminal.finish() == OK
    assert sha256(folder / "out") == sha256(slow.files / "a-model-with-a-name.bin")
    assert max(map(len, terminal.lines)) <= 100
    percents = [int(number) for number in re.findall(r"(\d+)%", terminal.text)]
    assert percents == sorted(percents)
    assert len(percents) >= 3
    assert terminal.lines[-1] == f"modelcache: {folder}/out: 24.0 MiB in " + terminal.lines[-1].split(" in ")[1]
    assert "\n" not in terminal.text[: terminal.text.index("modelcache:")]


def test_progress_on_a_narrow_terminal(slow, local, folder):
    url = slow.url("a-model-with-a-name.bin")
    terminal = Terminal(local, 40, "get", url, "-o", folder / "out", "--parallelism", "1")
    terminal.read_until(r"\d+%")
    assert terminal.finish() == OK
    drawn = re.findall(r"\r\x1b\[K([^\r\n]+)", terminal.text)
    assert max(len(line) for line in drawn if "modelcache:" not in line) <= 40


@pytest.mark.parametrize("how", [{"TERM": "dumb"}, {"quiet": "-q"}])
def test_no_bar_where_none_is_wanted(slow, local, folder, how):
    quiet = [how.pop("quiet")] if "quiet" in how else []
    terminal = Terminal(local, 80, "get", slow.url("a-model-with-a-name.bin"), "-o", folder / "out", *quiet, **how)
    assert terminal.finish() == OK
    assert "\x1b" not in terminal.text
    assert not quiet or not terminal.text


def test_progress_elsewhere_is_a_plain_line_now_and_then(slow, local, folder):
    result = local("get", slow.url("a-model-with-a-name.bin"), "-o", folder / "out", "--parallelism", "1")
    assert re.search(r"^modelcache: a-model-with-a-name.bin +\d+% ", result.err, re.M)
    assert "\r" not in result.err and "\x1b" not in result.err
    assert len(result.err.splitlines()) <= 4
    assert not result.out


def test_waiting_says_why(slow, make_server, make_client):
    """A client of a server that downloads for another."""
    server = make_server("--flights", 1)
    blocker = make_client(server, MODELCACHE_FALLBACK="no")
    slow.model("other.bin", 8 * CHUNK, seed=2)
    first = blocker.start("get", slow.url("other.bin"))
    wait_until(lambda: server.metric("flights_running") == 1, what="the first download")
    second = make_client(server, MODELCACHE_FALLBACK="no")
    terminal = Terminal(second, 120, "get", slow.url("a-model-with-a-name.bin"))
    terminal.read_until("a-model-with-a-name.bin .*[a-z]{4}")
    second.processes.kill(terminal.process)
    terminal.finish()
    blocker.kill9(first)


def test_an_interrupted_get_goes_on(slow, local, folder):
    url = slow.url("a-model-with-a-name.bin")
    terminal = Terminal(local, 100, "get", url, "-o", folder / "out", "--parallelism", "1")
    terminal.read_until(r"[3-9]\d%")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 130
    assert "goes on from there" in terminal.lines[-1]
    assert not (folder / "out").exists()
    local("get", url, "-o", folder / "out")
    assert sha256(folder / "out") == sha256(slow.files / "a-model-with-a-name.bin")
    assert slow.bytes_sent("a-model-with-a-name.bin") < 2 * 6 * CHUNK


# ---- mistakes ----


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], USAGE, "See 'modelcache help'"),
        (["gett", NOWHERE], USAGE, "did you mean 'get'?"),
        (["download"], USAGE, "there is no command 'download'; see 'modelcache help'"),
        (["get"], USAGE, "usage: modelcache get URL"),
        (["stat"], USAGE, "usage: modelcache stat URL"),
        (["tree", NOWHERE], USAGE, "usage: modelcache tree URL DIR"),
        (["--verison"], USAGE, "did you mean --version?"),
        (["get", NOWHERE, "--quite"], USAGE, "did you mean --quiet?"),
        (["get", NOWHERE, "-x"], USAGE, "no option -x"),
        (["get", NOWHERE, "-o"], USAGE, "-o needs a value"),
        (["get", NOWHERE, "--timeout", "soon"], USAGE, "--timeout: 'soon' is not a duration"),
        (["get", NOWHERE, "--retries=-1"], USAGE, "--retries: '-1' is not a number"),
        (["stat", NOWHERE, "--pin"], USAGE, "'stat' does not take --pin"),
        (["get", "model.bin"], USAGE, "it has no scheme"),
        (["get", NOWHERE, "--endpoint", "somewhere"], USAGE, "'somewhere' is not HOST:PORT"),
        (["get", NOWHERE, "--endpoint", "http://host:1"], USAGE, "'http://host:1' is not HOST:PORT"),
        (["get", NOWHERE, "--no-store"], USAGE, "-o"),
        (["get", NOWHERE, NOWHERE, "-o", "-"], USAGE, "takes one URL"),
        (["get", NOWHERE, "-o", "-", "--json"], USAGE, "both want stdout"),
        (["get", NOWHERE, "-o", "/nowhere/out"], FAILURE, "there is no folder /nowhere for /nowhere/out"),
        (["get", NOWHERE, "-o", "/etc/passwd/out"], FAILURE, "can't write into /etc/passwd: Not a directory"),
        (["get", "http://127.0.0.1:1/", "-o", "/tmp"], USAGE, "names no file"),
        (["ls", "--origin"], USAGE, "--origin needs a URL"),
        (["ls", "--origin", "--after", NOWHERE, NOWHERE], USAGE, "--after is of what is cached"),
        (["repair", NOWHERE], USAGE, "usage: modelcache repair"),
        (["help", "nothing"], USAGE, "there is no command 'nothing'"),
        (["get", "ftp://host/x"], FAILURE, "ftp"),
        (["get", NOWHERE, "--retries", "0"], UNAVAILABLE, "127.0.0.1:1"),
    ],
)
def test_mistakes_are_one_clear_line(local, args, code, said):
    result = local(*args, code=code)
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("modelcache: ")
    assert not result.out


def test_a_place_that_can_not_be_written_is_told_before_the_download(nginx, local, folder):
    nginx.model("model.bin", CHUNK)
    (folder / "closed").mkdir(mode=0o500)
    args = ["get", nginx.url("model.bin"), "-o", folder / "closed" / "out"]
    if os.geteuid() == 0:  # root may write anywhere but where nobody may
        args[-1] = folder / "missing" / "out"
    result = local(*args, code=FAILURE if os.geteuid() == 0 else DENIED)
    assert "folder" in result.err or "denied" in result.err
    assert not nginx.requests("model.bin")


def test_an_environment_that_is_wrong_names_its_variable(local):
    assert "MODELCACHE_RETRIES: 'x' is not a number" in local("status", env={"MODELCACHE_RETRIES": "x"}, code=USAGE).err


def test_a_service_that_is_down(local, nginx, folder):
    endpoint = f"127.0.0.1:{free_port()}"
    model = nginx.model("model.bin", CHUNK)
    result = local("get", nginx.url("model.bin"), "-o", folder / "out", "--endpoint", endpoint)
    assert sha256(folder / "out") == model.sha256
    assert result.err.count("\n") == 1 and endpoint in result.err, "it is said once that the origin was asked"
    assert (
        local("status", "--endpoint", endpoint, code=UNAVAILABLE).err.splitlines()[-1].startswith("modelcache: status")
    )
    result = local("get", nginx.url("x.bin"), "--endpoint", endpoint, "--no-fallback", "--retries", 0, code=UNAVAILABLE)
    assert endpoint in result.err


def test_exit_codes(nginx, local, folder):
    nginx.model("model.bin", CHUNK)
    local("get", nginx.url("nowhere.bin"), code=MISSING)
    local("get", "http://169.254.169.254/x", code=DENIED)
    local("get", nginx.url("model.bin"), "--cached", code=MISSING)
    # Of several, the first failure's; the others are got all the same.
    result = local("get", nginx.url("nowhere.bin"), nginx.url("model.bin"), "-o", folder / "many", code=MISSING)
    assert (folder / "many" / "model.bin").stat().st_size == CHUNK
    assert result.err.count("\n") == 1


def test_a_full_stdout_is_an_error(nginx, local):
    nginx.model("model.bin", CHUNK)
    with open("/dev/full", "w") as full:
        process = local.start("get", nginx.url("model.bin"), "-o", "-", stdout=full)
        result = local.finish(process)
    assert result.code == FAILURE
    assert "can't write to stdout" in result.err


def test_a_reader_that_leaves_is_no_news(nginx, local):
    nginx.model("model.bin", 8 * CHUNK)
    process = local.start("get", nginx.url("model.bin"), "-o", "-", text=False)
    process.stdout.read(10)
    process.stdout.close()
    process.stdout = None
    err = process.communicate(timeout=60 * SLOWNESS)[1]
    local.processes.forget(process)
    assert process.returncode == FAILURE
    assert not err


# ---- what it prints ----


def test_help_can_be_read(local):
    pages = [local("help"), local("--help"), local("-h")]
    assert len({page.out for page in pages}) == 1
    for command in COMMANDS:
        assert re.search(rf"^  {command}\b", pages[0].out, re.M)
        page = local("help", command)
        assert page.out == local(command, "--help").out
        assert page.out.startswith(f"Usage: modelcache {command}")
        pages.append(page)
    for page in pages:
        assert max(map(len, page.out.splitlines())) <= 80
        assert "Exit codes: 0 done" in page.out
        assert not page.err
    assert local("version").out == local("--version").out


def test_files_go_where_they_are_wanted(nginx, local, folder):
    models = [nginx.model(f"dir/{name}.bin", 1000 + number, seed=number) for number, name in enumerate("ab")]
    urls = [nginx.url("dir/a.bin"), nginx.url("dir/b.bin")]
    # No place: where it is in the cache.
    paths = local("get", *urls).out.splitlines()
    assert [sha256(path) for path in paths] == [model.sha256 for model in models]
    # A file, a folder that is there, one that is not, stdout.
    local("get", urls[0], "-o", folder / "file")
    assert sha256(folder / "file") == models[0].sha256
    (folder / "there").mkdir()
    local("get", urls[0], "-o", folder / "there")
    assert sha256(folder / "there" / "a.bin") == models[0].sha256
    local("get", *urls, "-o", folder / "new" / "folder")
    assert sha256(folder / "new" / "folder" / "b.bin") == models[1].sha256
    local("get", urls[0] + "?x=y", "-o", f"{folder}/slash/")
    assert sha256(folder / "slash" / "a.bin") == models[0].sha256
    process = local.start("get", urls[1], "-o", "-", text=False)
    assert process.communicate(timeout=60)[0] == models[1].bytes()
    local.processes.forget(process)
    # Options anywhere, and the end of options.
    local("-qo", folder / "again", "get", "--", urls[0])
    assert sha256(folder / "again") == models[0].sha256


def documented(command):
    """The keys that docs/command.md gives for a command's JSON."""
    text = (ROOT / "docs" / "command.md").read_text()
    row = re.search(rf"^\| `{command}` \|(.*)\|$", text, re.M)
    return set(re.findall(r"`(\w+)`", row[1]))


@pytest.mark.parametrize("where", ["server", "local"])
def test_json_is_as_documented(nginx, make_client, server, folder, where):
    client = make_client(server) if where == "server" else make_client()
    model = nginx.model("dir/model.bin", CHUNK + 1)
    nginx.model("dir/other.bin", 5)
    url = nginx.url("dir/model.bin")

    def rows(*args, code=OK):
        result = client(*args, "--json", code=code)
        assert (not result.err) or code
        return result.json_lines

    (got,) = rows("get", url, "-o", folder / "out")
    assert got.keys() == documented("get")
    assert got["digest"] == f"sha256:{model.sha256}"
    assert (got["url"], got["path"], got["size"], got["cached"]) == (url, f"{folder}/out", CHUNK + 1, False)
    (got,) = rows("get", url)
    assert sha256(got["path"]) == model.sha256
    (tree,) = rows("tree", nginx.url("dir/"), folder / "tree")
    assert tree.keys() == documented("tree")
    assert (tree["files"], tree["bytes"], tree["changed"]) == (2, CHUNK + 6, True)
    (stat,) = rows("stat", url)
    assert stat.keys() == documented("stat")
    assert stat["size"] == CHUNK + 1
    listed = rows("ls")
    assert {row["url"] for row in listed} == {url, nginx.url("dir/other.bin")}
    assert listed[0].keys() == documented("ls")
    below = rows("ls", "--origin", nginx.url("dir/"))
    assert sorted(row["path"] for row in below) == ["model.bin", "other.bin"]
    assert below[0].keys() == documented("ls --origin")
    first = min(row["url"] for row in listed)
    assert [row["url"] for row in rows("ls", "--limit", "1")] == [first]
    assert [row["url"] for row in rows("ls", "--after", first)] == [row["url"] for row in listed if row["url"] != first]
    (repair,) = rows("repair", "--dry-run")
    assert repair.keys() == documented("repair")
    assert (repair["records"], repair["entries"], repair["objects"], repair["dry_run"]) == (2, 2, 2, True)
    (check,) = rows("origins", "check", url)
    assert check.keys() == documented("origins check")
    (prefetch,) = rows("prefetch", url)
    assert prefetch.keys() == documented("prefetch")
    (status,) = rows("status")
    assert status.keys() == documented("status")
    assert status["counters"]
    (evict,) = rows("evict", url)
    assert evict.keys() == documented("evict")
    (failed,) = rows("get", nginx.url("nowhere.bin"), code=MISSING)
    assert failed.keys() == documented("a failure")
    assert failed["error"] == "not_found"


def test_what_others_chose_is_shown_without_its_control_characters(nginx, local):
    """Names and validators come from elsewhere."""
    nginx.model("esc%1b[31m.bin", 10)
    result = local("get", nginx.url("esc%251b%5B31m.bin?token=SECRET"), "--verbose")
    listed = local("ls").out + local("stat", nginx.url("x%1b%07.bin"), code=None).err + result.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", listed)
    assert "SECRET" not in listed


def test_the_endpoint_comes_from_a_flag_or_the_environment(server, local, nginx):
    nginx.model("model.bin", CHUNK)
    for endpoint in (server.control, f"modelcache://{server.control}"):
        assert "the service at" in local("status", "--endpoint", endpoint).out
        assert "the service at" in local("status", env={"MODELCACHE_ENDPOINT": endpoint}).out
    assert "in this process" in local("status").out
    gone = {"MODELCACHE_ENDPOINT": f"127.0.0.1:{free_port()}"}
    assert "the service at" in local("status", "--endpoint", server.control, env=gone).out


def test_no_space_on_the_server_is_told_as_that(nginx, make_server, make_client, folder):
    """As in this process: exit code 6, not that of a limit that passes."""
    nginx.model("model.bin", 8 * MIB)
    local = make_client()
    assert local("get", nginx.url("model.bin"), "--storage-capacity", "5MiB", code=6).err
    library = max((BUILD / "src").glob("libmodelcache.so*"), key=lambda path: path.stat().st_size)
    if b"modelcache-status" not in library.read_bytes():
        pytest.skip("the client does not read modelcache-status yet")
    server = make_server("--storage-capacity", "5MiB")
    client = make_client(server, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="0")
    assert client("get", nginx.url("model.bin"), code=6).err


def test_completion_knows_commands_and_flags(folder):
    script = f"""
      source {ROOT}/cli/completion.bash
      COMP_WORDS=({MODELCACHE} "$1"); COMP_CWORD=1; _modelcache; echo "${{COMPREPLY[@]}}"
    """

    def complete(word):
        return subprocess.run(
            ["bash", "-c", script, "bash", word],
            capture_output=True,
            text=True,
            env=clean_environment(folder),
            check=True,
        ).stdout.split()

    assert complete("pre") == ["prefetch"]
    assert set(complete("--st")) == {
        "--storage",
        "--storage-capacity",
        "--storage-ttl",
        "--stale-if-error",
        "--stale-while-revalidate",
        "--stall-timeout",
    }


def test_a_service_that_answers_nonsense(local, folder):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        endpoint = f"127.0.0.1:{sock.getsockname()[1]}"
        process = local.start("status", "--endpoint", endpoint, "--stall-timeout", "1s", "--connect-timeout", "1s")
        peer, _ = sock.accept()
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        peer.close()
        result = local.finish(process)
    assert result.code in (FAILURE, UNAVAILABLE), result
    assert endpoint in result.err
    assert json.dumps(result.err).count("\\n") <= 3
