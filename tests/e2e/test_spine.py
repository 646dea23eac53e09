"""The main job: a client asks a server for a URL, the server downloads it once, and both keep what they have."""

import json
import re

import pytest
import requests
from harness import CHUNK, MIB, MISSING, OK, UNAVAILABLE, USAGE, sha256, wait_until

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 12345]


@pytest.mark.parametrize("size", SIZES)
def test_cold_then_hot(nginx, make_client, server, folder, size):
    model = nginx.model("m/model.bin", size)
    for number in range(2):
        client = make_client(server)
        client("get", nginx.url("m/model.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256, f"client {number}"
    assert nginx.bytes_sent("m/model.bin") == size


def test_without_a_server_it_works_in_process(nginx, local, folder):
    model = nginx.model("model.bin", 3 * CHUNK + 1)
    for _ in range(2):
        local("get", nginx.url("model.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_ranges_are_read_in_parallel_and_each_byte_once(nginx, client, folder):
    model = nginx.model("model.bin", 64 * MIB)
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    ranges = nginx.ranges("model.bin", model.size)
    assert len(ranges) > 1
    end = 0
    for first, past in ranges:
        assert first == end
        end = past
    assert end == model.size
    assert nginx.bytes_sent("model.bin") == model.size


def test_the_clients_copy_is_used_again_without_asking(nginx, client, server, folder):
    model = nginx.model("model.bin", CHUNK + 5)
    client("get", nginx.url("model.bin"), "-o", folder / "one")
    served = server.metric("served_bytes_total")
    assert served == model.size
    client("get", nginx.url("model.bin"), "-o", folder / "two")
    assert sha256(folder / "two") == model.sha256
    assert server.metric("served_bytes_total") == served


def test_json_says_what_was_got(nginx, client, folder):
    model = nginx.model("model.bin", CHUNK + 5)
    result = client("get", nginx.url("model.bin"), "-o", folder / "out", "--json").json
    assert result["url"] == nginx.url("model.bin")
    assert result["size"] == model.size
    assert result["digest"].removeprefix("sha256:") == model.sha256
    assert result["cached"] is False


def test_several_urls_at_once(nginx, client, folder):
    models = [nginx.model(f"{name}.bin", CHUNK + number, seed=number) for number, name in enumerate("abc")]
    (folder / "out").mkdir()
    client("get", *(nginx.url(model.path.name) for model in models), "-o", folder / "out")
    for model in models:
        assert sha256(folder / "out" / model.path.name) == model.sha256


def test_urls_that_mean_the_same_are_the_same(nginx, make_client, server, folder):
    model = nginx.model("a/model.bin", CHUNK)
    for url in (nginx.url("a/model.bin"), nginx.url("a/b/../model.bin"), nginx.url("%61/./model.bin#part")):
        make_client(server)("get", url.replace("http:", "HTTP:"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent() == model.size


def test_the_same_content_under_two_urls_is_stored_once(nginx, client, server, folder):
    one, two = nginx.model("one.bin", 2 * CHUNK, seed=7), nginx.model("two.bin", 2 * CHUNK, seed=7)
    for model in (one, two):
        client("get", nginx.url(model.path.name), "-o", folder / "out")
    stored = sum(path.stat().st_blocks * 512 for path in server.storage.rglob("*") if path.is_file())
    assert stored < one.size + two.size


def test_what_is_stored_survives_a_restart(nginx, make_client, server, folder):
    model = nginx.model("model.bin", 2 * CHUNK + 9)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert server.stop() == OK
    server.start()
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "again")
    assert sha256(folder / "again") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_stat_ls_evict(nginx, client, server, folder):
    model = nginx.model("dir/model.bin", CHUNK + 3)
    url = nginx.url("dir/model.bin")
    stat = client("stat", url, "--json").json
    assert stat["size"] == model.size
    assert nginx.bytes_sent() == 0, "stat must not download"
    client("get", url, "-o", folder / "out")
    assert [entry["url"] for entry in client("ls", "--json").json_lines] == [url]
    client("evict", url)
    client("evict", url, code=MISSING)
    client("get", url, "-o", folder / "out")
    assert nginx.bytes_sent("dir/model.bin") == 2 * model.size


def test_a_prefetch_that_fails_is_in_the_log(nginx, client, server):
    client("prefetch", nginx.url("nowhere.bin"))
    wait_until(lambda: "nowhere.bin is not to be had" in server.log_text(), what="a word about it")
    assert "404" in server.log_text()


def test_prefetch_downloads_behind_the_callers_back(nginx, client, server, folder):
    model = nginx.model("model.bin", 3 * CHUNK)
    client("prefetch", nginx.url("model.bin"))
    wait_until(lambda: server.metric("downloads_total") == 1, what="the download")
    client("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_status_is_a_json_document(client, server):
    assert isinstance(client("status", "--json").json, dict)


def test_progress_is_plain_lines_without_a_terminal(make_nginx, make_client, server, folder):
    nginx = make_nginx(rate=4 * MIB)
    nginx.model("model.bin", 8 * CHUNK)
    result = make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert "\r" not in result.out + result.err
    assert "\x1b" not in result.out + result.err


def test_a_missing_file_is_said_to_be_missing(nginx, client, folder):
    result = client("get", nginx.url("nowhere.bin"), "-o", folder / "out", code=MISSING)
    assert "nowhere.bin" in result.err
    assert result.err.count("\n") <= 2
    assert not (folder / "out").exists()


def test_a_deadline_ends_the_call(make_nginx, make_client, server, folder):
    nginx = make_nginx(rate=MIB)
    nginx.model("model.bin", 64 * MIB)
    result = make_client(server)(
        "get", nginx.url("model.bin"), "-o", folder / "out", "--timeout", "500ms", code=UNAVAILABLE, timeout=20
    )
    assert result.err
    assert not (folder / "out").exists()


def test_usage_errors(client):
    client("get", code=USAGE)
    client("--no-such-flag", code=USAGE)
    client("no-such-command", code=USAGE)
    client("get", "http://127.0.0.1:1/x", "--timeout", "soon", code=USAGE)


def test_web_pages(server):
    assert server.page("/healthz").status_code == 200
    assert server.page("/readyz").status_code == 200
    metrics = server.page("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    for line in metrics.text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) modelcache_\w+ .+|modelcache_\w+(\{.*\})? [0-9.e+-]+", line), line
    assert server.page("/nowhere").status_code == 404
    assert requests.post(f"http://{server.web}/metrics", timeout=10).status_code == 405


def test_ports_file_tells_the_ports_that_were_chosen(make_server, make_client, nginx, folder):
    server = make_server(start=False)
    server.control = server.data = server.web = "127.0.0.1:0"
    server.start()
    for address in (server.control, server.data, server.web):
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", address)
    model = nginx.model("model.bin", CHUNK)
    make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == model.sha256


def test_a_taken_port_is_a_clear_error(server, make_server):
    second = make_server(start=False)
    second.control = server.control
    with pytest.raises(AssertionError, match="did not start"):
        second.start()
    assert server.control.split(":")[1] in second.log_text()
    assert server.is_alive()


def test_sigterm_lets_transfers_end(make_nginx, make_client, server, folder):
    nginx = make_nginx(rate=4 * MIB)
    model = nginx.model("model.bin", 6 * CHUNK)
    client = make_client(server)
    process = client.start("get", nginx.url("model.bin"), "-o", folder / "out")
    wait_until(lambda: server.metric("flights_running") == 1, what="the download's start")
    assert server.stop() == OK
    result = client.finish(process)
    # Either the server finished it while it drained, or the client went to the origin: never an error, never wrong.
    assert result.code == OK, result
    assert sha256(folder / "out") == model.sha256


def test_configuration_is_one_table(make_server, folder):
    """A file, the environment and flags set the same options; each beats the one before."""
    config = folder / "config.yaml"
    config.write_text("storage_capacity: 3GiB\nretries: 7\nparallelism: 5\n")
    server = make_server(
        "--config", config, "--parallelism", 2, "--print-config", env={"MODELCACHE_RETRIES": "1"}, start=False
    )
    with pytest.raises(AssertionError, match="did not start"):
        server.start()
    printed = server.log_text()
    assert re.search(r'^storage_capacity: "3GiB"', printed, re.M)
    assert re.search(r'^retries: "1"', printed, re.M)
    assert re.search(r'^parallelism: "2"', printed, re.M)


def test_json_logs(make_server):
    server = make_server("--log-format", "json")
    assert server.stop() == OK
    lines = server.log_text().splitlines()
    assert lines
    for line in lines:
        assert {"level", "message"} <= json.loads(line).keys()


def test_memory_tier_serves_what_the_folder_lost(nginx, make_server, make_client, folder):
    server = make_server("--memory-capacity", "64MiB")
    model = nginx.model("model.bin", 2 * CHUNK)
    for _ in range(2):
        make_client(server)("get", nginx.url("model.bin"), "-o", folder / "out")
        assert sha256(folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


def test_nothing_is_left_running_or_open(nginx, make_client, server, folder):
    """Threads, descriptors and memory do not grow with the number of files."""
    models = [nginx.model(f"{number}.bin", 3 * MIB, seed=number) for number in range(24)]
    client = make_client(server)
    (folder / "out").mkdir()

    def get(some):
        client("get", *(nginx.url(model.path.name) for model in some), "-o", folder / "out")

    get(models[:8])
    threads, files = server.threads(), server.open_files()
    get(models[8:])
    wait_until(lambda: server.threads() <= threads + 2, what="the threads' end")
    wait_until(lambda: server.open_files() <= files + 8, what="the descriptors' end")
