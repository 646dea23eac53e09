"""Rules for origins in the server's configuration, what `origins check` tells of them, and what nobody tells."""

import json

import grpc
import pytest
from harness import CHUNK, DENIED, MISSING, OK, UNAVAILABLE, USAGE, free_port, sha256
from test_server import run, tarpit
from test_server_rpc import PATIENCE, failure

SECRET, SECRET_IN_FILE = "TOPSECRETVALUE", "TOPSECRETOFAFILE"


@pytest.fixture
def make_ruled(make_server, folder):
    """A function that starts a server with these rules and credentials. JSON is YAML."""

    def make(*args, origins=(), credentials=None):
        config = folder / "config.yaml"
        config.write_text(json.dumps({"origins": list(origins), "credentials": credentials or {}}))
        return make_server("--config", config, "--retries", 0, *args)

    return make


@pytest.fixture
def ruled(make_ruled, nginx):
    """A server whose clients get what is below open/ and not what is beside it."""
    nginx.model("model.bin", CHUNK)
    nginx.model("open/model.bin", CHUNK, seed=2)
    nginx.model("open/model.bin.private", CHUNK, seed=3)
    return make_ruled(
        origins=[
            {
                "prefix": nginx.url("open"),
                "revalidate_after": "10m",
                "parallelism": 2,
                "bandwidth": "500MiB",
                "pin": True,
            },
            {"prefix": nginx.url(""), "allowed": False},
            {"prefix": nginx.url("open/model.bin.private"), "allowed": False},
        ]
    )


@pytest.fixture
def strict(make_client, ruled):
    """Its client, which does not go to the origin by itself."""
    return make_client(ruled, MODELCACHE_FALLBACK="no", MODELCACHE_RETRIES="0")


# ---- what they do ----


def test_the_longest_prefix_wins(nginx, strict, folder):
    strict("get", nginx.url("open/model.bin"), "-o", folder / "out")
    assert sha256(folder / "out") == sha256(nginx.files / "open" / "model.bin")
    denied = [
        ["get", nginx.url("model.bin")],
        ["get", nginx.url("open2/model.bin")],
        ["stat", nginx.url("model.bin")],
        ["ls", "--origin", nginx.url("")],
        ["tree", nginx.url("other/"), folder / "tree"],
        ["prefetch", nginx.url("model.bin")],
    ]
    for args in denied:
        result = strict(*args, code=DENIED)
        assert f"by the rule for {nginx.url('')}" in result.err
        assert result.err.count("\n") == 1
    assert (
        f"the rule for {nginx.url('open/model.bin.private')}"
        in strict("get", nginx.url("open/model.bin.private"), code=DENIED).err
    )
    assert not nginx.requests("model.bin")


def test_what_a_rule_pins_is_pinned(nginx, strict, ruled, folder):
    strict("get", nginx.url("open/model.bin"), "-o", folder / "out")
    (row,) = strict("ls", "--json").json_lines
    assert row["pinned"]


def test_a_client_does_not_go_round_a_rule(nginx, ruled, make_client, folder):
    """Its fallback is for a service that can't be reached."""
    make_client(ruled)("get", nginx.url("model.bin"), "-o", folder / "out", code=DENIED)
    assert not nginx.requests("model.bin")


# ---- checking ----


def test_a_check_through_the_server(nginx, strict):
    found = strict("origins", "check", nginx.url("open/model.bin"), "--json").json
    assert found["rule"] == nginx.url("open")
    assert found["allowed"] is True
    assert found["upstream"] == "http"
    assert (found["revalidate_after_ms"], found["parallelism"], found["pin"]) == (600000, 2, True)
    assert found["bandwidth"] == 500 << 20
    assert (found["status"], found["size"]) == ("ok", CHUNK)
    assert found["etag"]
    text = strict("origins", "check", nginx.url("open/model.bin")).out
    for line in (
        f"rule           {nginx.url('open')}",
        "allowed        yes",
        "upstream       http",
        "revalidated    after 10 min",
        "parallelism    2",
        "bandwidth      500 MiB/s",
        "pinned         yes",
    ):
        assert line in text.splitlines()
    assert "stat           4.0 MiB, etag " in text
    assert not nginx.requests("open/model.bin", "GET"), "it asks, and gets nothing"


def test_a_check_of_what_is_denied(nginx, strict):
    found = strict("origins", "check", nginx.url("model.bin"), "--json", code=DENIED).json
    assert (found["rule"], found["allowed"]) == (nginx.url(""), False)
    assert (found["upstream"], found["status"]) == (None, "permission_denied")
    assert "by the rule for" in found["message"]
    text = strict("origins", "check", nginx.url("model.bin"), code=DENIED).out
    assert "allowed        no" in text
    assert "stat           permission denied: it is not allowed by the rule for " in text


def test_a_check_ends_as_stat_does(nginx, strict):
    missing = strict("origins", "check", nginx.url("open/nowhere"), "--json", code=MISSING).json
    assert missing["status"] == "not_found"
    assert "404" in missing["message"]
    nothing = strict("origins", "check", f"http://127.0.0.1:{free_port()}/x", "--json", code=UNAVAILABLE).json
    assert (nothing["rule"], nothing["upstream"], nothing["status"]) == (None, "http", "unavailable")
    result = strict("origins", "check", "no url", code=USAGE)
    assert result.err.count("\n") == 1 and not result.out


def test_a_proxy_that_is_down_is_told(nginx, make_ruled, make_client):
    proxy = free_port()
    server = make_ruled(origins=[{"prefix": nginx.url(""), "proxy": f"http://127.0.0.1:{proxy}"}])
    result = make_client(server)("origins", "check", nginx.url("model.bin"), "--json", code=UNAVAILABLE)
    assert f"127.0.0.1 port {proxy}" in result.json["message"]


def test_a_check_in_this_process(nginx, local):
    nginx.model("model.bin", CHUNK)
    found = local("origins", "check", nginx.url("model.bin"), "--json").json
    assert (found["rule"], found["allowed"], found["upstream"]) == (None, True, "http")
    assert (found["revalidate_after_ms"], found["parallelism"], found["size"]) == (60000, 8, CHUNK)
    assert "rule           none" in local("origins", "check", nginx.url("model.bin")).out
    assert "usage: modelcache origins check URL" in local("origins", "chek", nginx.url("model.bin"), code=USAGE).err


def test_a_check_needs_the_service(nginx, strict, ruled):
    """Its rules and credentials are not here: what this process would do is no answer."""
    ruled.stop()
    result = strict("origins", "check", nginx.url("open/model.bin"), code=UNAVAILABLE)
    assert ruled.control in result.err and not result.out


def test_a_check_has_a_deadline(make_ruled, dial, stubs):
    with tarpit() as address:
        server = make_ruled(origins=[{"prefix": f"http://{address}/"}])
        stub = dial(server)
        request = stubs.pb.CheckOriginRequest(url=f"http://{address}/model.bin")
        assert failure(lambda: stub.CheckOrigin(request, timeout=0.5))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        stub.Status(stubs.pb.StatusRequest(), timeout=PATIENCE)
        none = failure(lambda: stub.CheckOrigin(stubs.pb.CheckOriginRequest(), timeout=PATIENCE))
        assert none[0] == grpc.StatusCode.INVALID_ARGUMENT


# ---- what can't be right ----


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("origins: [{prefix: s3://b/, credentials: team}]", "the origin rule for s3://b/: credentials: there are none"),
        ("origins: [{prefix: s3://b/, endpoint: minio}]", "the origin rule for s3://b/: endpoint: "),
        ("origins: [{prefix: s3://b/, ca_file: /nowhere.pem}]", "the origin rule for s3://b/: ca_file: No such file"),
        ("origins: [{prefix: s3://b}, {prefix: s3://b/}]", "the origin rule for s3://b/: there are two of them"),
        ("origins: [{prefix: bucket}]", "the origin rule for bucket: prefix: "),
        (f"origins: [{{prefix: 'https://u:{SECRET}@host/'}}]", "the origin rule for https://host/: prefix: "),
        ("schemes: http,htps", "schemes: there is no scheme 'htps'; there is: http, https, "),
        (f"credentials: {{hub: {{token: {SECRET}, token: {SECRET}}}}}", ":1: credentials: hub: token: it is set twice"),
        ("credentials: {hub: {token_file: /nowhere}}", "the credentials 'hub': token_file: /nowhere: No such file"),
        (
            f"credentials: {{hub: {{token: {SECRET}, token_file: /x}}}}",
            "the credentials 'hub': token_file is there twice",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(folder, config, said):
    (folder / "config.yaml").write_text(config + "\n")
    ports = ["--control", "127.0.0.1:0", "--data", "127.0.0.1:0", "--web", "none"]
    code, _, err = run(folder, "--config", folder / "config.yaml", "--storage", folder / "s", *ports)
    assert code == USAGE
    assert said in err
    assert err.count("\n") == 1
    assert SECRET not in err


# ---- secrets ----


def test_secrets_are_never_told(nginx, make_ruled, make_client, dial, stubs, folder):
    model = nginx.model("model.bin", CHUNK)
    (folder / "token").write_text(SECRET_IN_FILE + "\n")
    server = make_ruled(
        "--log-level",
        "debug",
        origins=[
            {"prefix": nginx.url(""), "credentials": "team"},
            {"prefix": f"http://127.0.0.1:{free_port()}/", "credentials": "hub"},
        ],
        credentials={
            "team": {"user": "me", "password": SECRET},
            "hub": {"token_file": str(folder / "token")},
        },
    )
    client = make_client(server)
    client("get", nginx.url("model.bin"), "-o", folder / "out", "-v")
    assert sha256(folder / "out") == model.sha256
    texts = []
    for url in (nginx.url("model.bin"), nginx.url("nowhere"), f"http://127.0.0.1:{free_port()}/x"):
        for args in (["origins", "check"], ["origins", "check", "--json"], ["get"], ["stat"], ["ls", "--origin"]):
            result = client(*args, url, "-v", code=None)
            texts += [result.out, result.err]
    texts.append(client("status", "--json").out)
    texts.append(
        str(dial(server).CheckOrigin(stubs.pb.CheckOriginRequest(url=nginx.url("model.bin")), timeout=PATIENCE))
    )
    code, out, err = run(folder, "--config", folder / "config.yaml", "--print-config")
    assert (code, err) == (OK, "")
    assert 'password": "***"' in out
    assert f'"token_file": "{folder / "token"}"' in out, "where it is, not what"
    texts += [out, server.log_text(), server.page("/metrics").text]
    server.stop()
    texts.append(server.log_text())
    for text in texts:
        assert SECRET not in text and SECRET_IN_FILE not in text, text


def test_a_web_server_gets_what_its_rule_names(nginx, make_ruled, make_client, folder):
    for path in ("private/model.bin", "model.bin"):
        nginx.model(path, CHUNK)
    (folder / "token").write_text(SECRET_IN_FILE + "\n")
    rules = [{"prefix": nginx.url("private/"), "credentials": "hub"}]
    client = make_client(make_ruled(origins=rules, credentials={"hub": {"token_file": str(folder / "token")}}))
    for path in ("private/model.bin", "model.bin"):
        client("get", nginx.url(path), "-o", folder / "out")
    client("ls", "--origin", nginx.url("private/"))
    for row in nginx.requests():
        private = row["uri"].startswith("/private/")
        assert row["authorization"] == (f"Bearer {SECRET_IN_FILE}" if private else ""), row
    assert "'hub', by the rule" in client("origins", "check", nginx.url("private/model.bin")).out


def test_the_configuration_is_printed_as_it_can_be_read(folder):
    (folder / "config.yaml").write_text(
        "origins:\n  - prefix: s3://b/\n    revalidate_after: never\n    proxy: none\n  - {prefix: 's3://c/', allowed: no}\n"
    )
    printed = run(folder, "--config", folder / "config.yaml", "--print-config")[1]
    assert 'origins:\n  - prefix: "s3://b/"\n    proxy: "none"\n    revalidate_after: "never"\n' in printed
    (folder / "again.yaml").write_text(printed)
    assert run(folder, "--config", folder / "again.yaml", "--print-config")[1] == printed
