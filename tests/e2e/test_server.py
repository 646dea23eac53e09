"""modelcached as a program: its configuration, its ports, its logs, its pages, its start and its end."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading

import pytest
import requests
from harness import (
    CHUNK,
    KIB,
    MIB,
    MODELCACHED,
    OK,
    ROOT,
    SLOWNESS,
    USAGE,
    Modelcached,
    clean_environment,
    free_port,
    sha256,
    wait_until,
)
from prometheus_client.parser import text_string_to_metric_families


def run(folder, *args, env=None, timeout=20):
    """To its end; returns (code, stdout, stderr)."""
    done = subprocess.run(
        [str(arg) for arg in (MODELCACHED, *args)],
        capture_output=True,
        text=True,
        env=clean_environment(folder, env),
        timeout=timeout * SLOWNESS,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def tarpit():
    """The address of a host that takes connections and never says a word."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        yield f"127.0.0.1:{sock.getsockname()[1]}"


# ---- configuration ----


def test_without_any_option_it_runs(processes, folder, make_client, nginx):
    """The ports are set only because others may have the usual ones."""
    ports = folder / "ports.json"
    env = {f"MODELCACHED_{plane}": "127.0.0.1:0" for plane in ("CONTROL", "DATA", "WEB")}
    env["MODELCACHED_PORTS_FILE"] = ports
    process = processes.start_server(
        [MODELCACHED], env=clean_environment(folder, env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(ports.exists, 20, "the start")
    model = nginx.model("model.bin", CHUNK + 1)
    client = make_client(MODELCACHE_ENDPOINT=json.loads(ports.read_text())["control"], MODELCACHE_FALLBACK="no")
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert (folder / ".cache" / "modelcached").is_dir(), "the server has a folder of its own"
    assert not (folder / ".cache" / "modelcache").exists()
    process.terminate()
    assert process.wait(30) == 0


def test_a_file_the_environment_and_flags(folder):
    config = folder / "config.yaml"
    config.write_text('storage_capacity: 3GiB\nretries: 7\nparallelism: 5\nadvertise: "a\\x07\\\\b\\"c"\n')
    args = ["--config", config, "--parallelism", 2, "--print-config"]
    code, printed, err = run(folder, *args, env={"MODELCACHE_RETRIES": "1", "MODELCACHE_PARALLELISM": "9"})
    assert (code, err) == (0, "")
    assert 'storage_capacity: "3GiB"\n' in printed
    assert 'retries: "1"\n' in printed
    assert 'parallelism: "2"\n' in printed
    assert f'storage: "{folder}/.cache/modelcached"\n' in printed
    again = folder / "again.yaml"
    again.write_text(printed)
    assert run(folder, "--config", again, "--print-config") == (0, printed, "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--retrys", "3"], "did you mean '--retries'"),
        (["--retries", "many"], "--retries: 'many' is not a number"),
        (["--storage"], "--storage needs a value"),
        (["start"], "not 'start'"),
        (["--coordination", "redis://:SECRET@host:port/0"], "coordination: its port is no number"),
        (["--control", "somewhere"], "control: can't listen on 'somewhere'"),
        (["--control", "127.0.0.1:http"], "HOST:PORT"),
        (["--control", "127.0.0.1:70000"], "HOST:PORT"),
        (["--control", "::1:7440"], "in brackets"),
        (["--control", "192.0.2.1:7440"], "not an address of this machine"),
        (["--web", "nowhere.invalid:1"], "nowhere.invalid"),
        (["--low-watermark", "99"], "low_watermark"),
        (["--advertise", "cache:port"], "advertise: 'cache:port' is not HOST or HOST:PORT"),
        (["--advertise", "2001:db8::1"], "[2001:db8::1]:7441"),
    ],
)
def test_mistakes_are_one_clear_line(folder, args, said):
    ports = [f"--{plane}=127.0.0.1:0" for plane in ("control", "data", "web")]
    code, out, err = run(folder, *ports, *args)
    assert code == USAGE, err
    assert said in err
    assert err.count("\n") == 1
    assert not out
    assert "SECRET" not in err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("scheme", ["", "modelcache://"])
def test_a_server_is_no_client_of_itself(folder, host, scheme):
    """MODELCACHE_ENDPOINT is set for clients, and the server is started in the same environment: it would wait for itself."""
    port = free_port()
    code, _, err = run(
        folder,
        *("--control", f"{host}:{port}", "--data", "127.0.0.1:0", "--web", "none", "--storage", folder / "s"),
        env={"MODELCACHE_ENDPOINT": f"{scheme}127.0.0.1:{port}"},
    )
    assert code == USAGE, err
    assert "own address" in err and "MODELCACHE_ENDPOINT" in err
    assert err.count("\n") == 1


def test_a_mistake_in_a_file_names_its_line(folder):
    config = folder / "config.yaml"
    config.write_text("web: none\nretries: 3\nretries: 4\n")
    code, _, err = run(folder, "--config", config)
    assert code == USAGE
    assert err == f"modelcached: {config}:3: retries: it is set twice; the first time in line 2\n"


def test_help_can_be_read(folder):
    code, out, err = run(folder, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    printed = run(folder, "--print-config")[1]
    for name in re.findall(r"^(?:# )?(\w+):", printed, re.M):
        assert re.search(rf"^  --(\[no-\])?{name.replace('_', '-')}\b", out, re.M), name


@pytest.mark.parametrize("page", ["options", "metrics"])
def test_the_reference_in_docs_is_current(folder, page):
    code, out, _ = run(folder, "--print-reference", page)
    assert code == 0
    assert (ROOT / "docs" / f"{page}.md").read_text() == out, f"print it again: modelcached --print-reference {page}"


# ---- ports ----


@pytest.mark.parametrize("plane", ["control", "data", "web"])
def test_a_taken_port_is_a_clear_error(server, folder, plane):
    taken = getattr(server, plane)
    ports = {name: "127.0.0.1:0" for name in ("control", "data", "web")} | {plane: taken}
    code, _, err = run(folder, *(f"--{name}={address}" for name, address in ports.items()), "--storage", folder / "s")
    assert code == 1, err
    assert err.count("\n") == 1
    assert taken in err
    assert "in use" in err
    assert server.is_alive()


def test_connections_beyond_the_descriptors_do_not_end_it(processes, folder, make_client):
    """Silent connections may take what there is of descriptors: when they are gone, all is as before."""

    class Narrow(Modelcached):
        def command(self):
            return ["prlimit", "--nofile=120", "--", *super().command()]

    server = Narrow(processes, folder / "narrow").start()
    host, port = server.control.split(":")
    client = make_client(server)
    held = [socket.create_connection((host, int(port)), timeout=10 * SLOWNESS) for _ in range(300)]
    wait_until(lambda: "descriptors are in use" in server.log_text(), 20, "a word about it")
    assert server.page("/healthz").ok, "some are kept for the rest"
    for sock in held:
        sock.close()
    wait_until(lambda: client("status", code=None).code == OK, 30, "the control plane's answer")
    assert server.log_text().count("descriptors are in use") == 1


@pytest.mark.parametrize("host", ["localhost", "localhost:{port}", "[::1]", "[::1]:{port}"])
def test_it_is_reached_as_it_is_advertised(make_server, make_client, nginx, folder, host):
    model = nginx.model("model.bin", MIB)
    port = free_port()
    server = make_server("--data", f"[::]:{port}", "--advertise", host.format(port=port))
    make_client(server, MODELCACHE_FALLBACK="no")("get", nginx.url("model.bin"), "-o", folder / "copy")
    assert sha256(folder / "copy") == model.sha256


# ---- the end ----


@pytest.fixture
def slow(make_nginx):
    """An origin whose file takes half an hour."""
    nginx = make_nginx(rate=4 * KIB)
    nginx.model("model.bin", 8 * MIB)
    return nginx


def waiting(server, client, nginx):
    """A client that waits for a download."""
    process = client.start("get", nginx.url("model.bin"), "--timeout", "60s", env={"MODELCACHE_FALLBACK": "no"})
    wait_until(lambda: server.metric("waiting_requests") == 1, what="a waiting call")
    return process


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_it_drains_and_a_second_signal_ends_it_at_once(make_server, make_client, slow, first):
    server = make_server("--drain", "10m")
    process = waiting(server, make_client(server), slow)
    assert server.page("/readyz").status_code == 200
    server.process.send_signal(first)
    wait_until(lambda: server.page("/readyz").status_code == 503, what="being not ready")
    assert server.page("/healthz").status_code == 200
    with pytest.raises(OSError):
        wait_until(lambda: socket.create_connection(server.control.split(":"), timeout=5).close(), 5)
    assert server.is_alive()
    assert process.poll() is None, "the call goes on"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10 * SLOWNESS) == -signal.SIGTERM


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_drain_has_a_deadline(make_server, make_client, slow, how):
    server = make_server("--drain", "300ms")
    client = make_client(server, MODELCACHE_RETRIES="0")
    process = waiting(server, client, slow)
    server.process.send_signal(how)
    assert server.process.wait(15 * SLOWNESS) == 0
    assert client.finish(process).code == 5
    assert "stopped" in server.log_text().splitlines()[-1]


def test_a_dead_origin_does_not_hold_the_end(make_server, make_client):
    server = make_server("--drain", "200ms", "--stall-timeout", "10m")
    with tarpit() as address:
        client = make_client(server)
        process = client.start("stat", f"http://{address}/x", "--timeout", "10m")
        wait_until(lambda: server.metric("control_calls_open") == 1, what="the call")
        server.process.terminate()
        assert server.process.wait(20 * SLOWNESS) == 0
        client.kill9(process)


def test_metrics_outlive_the_calls(make_server, make_client, nginx, folder):
    """A transfer holds the end, while there is no control plane any more."""
    model = nginx.model("model.bin", 64 * MIB)
    server = make_server("--drain", "10m", "--stall-timeout", "10m")
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "copy")
    digest = bytes.fromhex(model.sha256)
    with socket.create_connection(server.data.split(":"), timeout=10 * SLOWNESS) as held:
        held.sendall(struct.pack("<4sBBBBIIQQ32s", b"MCDP", 1, 1, 0, 1, 1, 0, 0, model.size, digest))
        assert held.recv(64), "the transfer has begun"
        server.process.terminate()
        wait_until(lambda: server.metric("control_calls_total") == 0, what="the control plane's end")
        assert server.metric("served_bytes_total") > 0
        assert server.page("/readyz").status_code == 503
    assert server.process.wait(20 * SLOWNESS) == 0


# ---- systemd ----


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(make_server, folder, abstract):
    name = f"\0modelcached-test-{os.getpid()}-{free_port()}" if abstract else str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(10 * SLOWNESS)
        server = make_server(env={"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert sock.recv(100) == b"READY=1"
        assert requests.get(f"http://{server.web}/readyz", timeout=10).ok
        assert server.stop() == OK
        assert sock.recv(100) == b"STOPPING=1"


# ---- logs ----


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_is_one_line(folder, form):
    odd = f'{folder}/no folder\n\x1b[31m"\\\x9b/ports'
    code, _, err = run(
        folder,
        *(f"--{plane}=127.0.0.1:0" for plane in ("control", "data", "web")),
        "--ports-file",
        odd,
        "--log-format",
        form,
    )
    assert code == 1
    assert err.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)
    if form == "json":
        line = json.loads(err)
        assert line.keys() == {"time", "level", "origin", "message"}
        assert line["level"] == "error"
        assert '"\\' in line["message"]
    else:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z error modelcached: ", err)


def test_the_log_level(make_server):
    for level, lines in (("error", 0), ("info", 3)):
        server = make_server("--log-level", level)
        assert server.stop() == OK
        assert len(server.log_text().splitlines()) == lines, server.log_text()


def test_passwords_and_queries_are_not_logged(make_server, make_client, folder):
    server = make_server("--log-level", "debug", "--retries", 0)
    client = make_client(server, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="0")
    url = f"http://user:PASSWORD@127.0.0.1:{free_port()}/x?token=QUERY"
    for command in ("get", "stat", "prefetch", "evict"):
        err = client(command, url, code=None).err
        assert "PASSWORD" not in err and "QUERY" not in err, err
    err = client("status", code=None).out
    log = server.log_text() + server.page("/metrics").text + err
    server.stop()
    assert "PASSWORD" not in log + server.log_text() and "QUERY" not in log + server.log_text()


# ---- pages ----


def test_metrics_are_what_prometheus_reads(make_server, make_client, nginx, folder):
    server = make_server("--memory-capacity", "64MiB")
    nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    make_client(server)("get", nginx.url("nowhere.bin"), "-o", folder / "out", code=None)
    values = {}
    for family in text_string_to_metric_families(server.page("/metrics").text):
        (sample,) = family.samples
        assert sample.name.startswith("modelcache_")
        assert sample.name not in values
        assert family.type in ("counter", "gauge"), family
        assert family.documentation
        assert sample.name.endswith("_total") == (family.type == "counter")
        values[sample.name] = sample.value
    assert min(values.values()) >= 0
    assert values["modelcache_downloads_total"] == 1
    assert values["modelcache_control_calls_total"] >= 2
    assert values["modelcache_control_call_errors_total"] >= 1
    assert values["modelcache_control_calls_open"] == 0
    reference = (ROOT / "docs" / "metrics.md").read_text()
    for line in server.page("/metrics").text.splitlines():
        name = re.match(r"# TYPE (\w+)", line)
        assert not name or name[1] == "modelcache_build_info" or f"`{name[1]}`" in reference, line


def test_pages_under_load(server):
    """More at once than it has places for: all are answered in the end, or refused, and it goes on."""
    codes = []

    def ask():
        with contextlib.suppress(requests.RequestException):
            codes.append(server.page("/metrics").status_code)

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(200) >= 50
    assert server.page("/healthz").text == "ok\n"
    assert requests.head(f"http://{server.web}/metrics", timeout=10).headers["Content-Length"] != "0"


def test_no_web_pages_where_none_are_wanted(make_server, make_client):
    server = make_server(start=False)
    server.web = "none"
    server.start()
    assert server.web == "none"
    make_client(server)("status")
    assert pathlib.Path(f"/proc/{server.process.pid}").exists()
