"""Pods over one storage folder and one Redis behave as one cache, whichever of them stops, pauses or is cut off."""

import contextlib
import hashlib
import json
import os

import pytest
from cluster import Sentinel
from harness import CHUNK, GIB, MIB, MISSING, OK, SANITIZER, SLOWNESS, UNAVAILABLE, object_files, sha256, wait_until
from tcp_proxy import Proxy

PODS = 3
CLIENTS = 20 if SANITIZER else 100  # of each pod
# What the loss of a downloader may cost: the chunks under way in two lanes, and what their sockets held.
TWO_LANES = ("--parallelism", 2)
LOSS = 2 * (CHUNK + 6 * MIB)
FULL = os.environ.get("MODELCACHE_TEST_FULL") == "1"  # at the sizes of production, some minutes each


def key_of(url):
    return hashlib.sha256(url.encode()).hexdigest()


def change(origin, path, size, seed, age):
    """Another version: other bytes, and a Last-Modified `age` seconds after the epoch of this test."""
    model = origin.model(path, size, seed)
    os.utime(model.path, (1_700_000_000 + age,) * 2)
    return model


def get(make_client, server, url, path, *args, code=OK, **env):
    """By a command that keeps nothing and does not go to the origin; the digest of what it got."""
    usual = {"MODELCACHE_STORAGE": "none", "MODELCACHE_FALLBACK": "no"}
    make_client(server, **usual | env)("get", url, "-o", path, *args, code=code)
    if code == OK:
        digest = sha256(path)
        path.unlink()
        return digest
    return None


def listed(make_client, server, prefix=""):
    """{URL: digest} of what the cache says it holds; None: it can't say now."""
    result = make_client(server)("ls", *([prefix] if prefix else []), "--json", code=None)
    assert result.code in (OK, UNAVAILABLE), result
    if result.code == UNAVAILABLE:
        return None
    return {row["url"]: (row.get("digest") or "").removeprefix("sha256:") for row in result.json_lines}


def status_of(make_client, server):
    return make_client(server)("status", "--json").json


def check(result, model):
    """A get of a getter."""
    assert result["status"] == "ok", result
    assert result["digest"] == model.sha256, result
    assert result["sha256"] in ("", model.sha256), result


def many(make_getter_process, cluster, count, url, size, share=10):
    """`count` gets at each pod, started at once. Of each `share` one has its bytes hashed, the others share memory."""
    started = []
    for pod in cluster:
        getter = make_getter_process()
        clients = [getter.client(pod, flights=1, parallelism=1) for _ in range(count)]
        started += [
            getter.get(client, url, size, "p" if number % share == 0 else "s", timeout=600 if FULL else 120)
            for number, client in enumerate(clients)
        ]
    return started


# ---- the herd ----


def test_one_download_for_the_clients_of_all_pods(nginx, make_cluster, make_getter_process):
    size = GIB if FULL else 16 * MIB if SANITIZER else 64 * MIB
    model = nginx.model("model.bin", size)
    cluster = make_cluster(PODS)
    for started in many(make_getter_process, cluster, CLIENTS, nginx.url("model.bin"), size, 50):
        check(started.wait(900 if FULL else 120), model)
    end = 0
    for first, past in nginx.ranges("model.bin", size):
        assert first == end, "a byte was asked for twice, or never"
        end = past
    assert nginx.bytes_sent("model.bin") == size
    assert cluster.total("downloads_total") == 1
    assert [path.name for path in object_files(cluster.storage)] == [model.sha256]


def test_who_waits_does_not_poll(origin, redis, make_cluster, make_getter_process):
    """While a download is under way nobody but its owner says a word of its URL in Redis, and what the pods say at
    fixed times, heartbeats and renewals, does not grow with the clients."""
    size = 6 * CHUNK
    model, url = origin.model("model.bin", size), origin.url("model.bin")
    cluster = make_cluster(PODS, *TWO_LANES)
    origin.hold("model.bin", size // 2)
    started = many(make_getter_process, cluster, 2, url, size)
    owner = cluster.downloader()

    def window():
        """What each pod says while the owner renews its claim four times."""
        monitor = redis.monitor()

        def renewals():
            return [row for row in monitor.commands(owner.proxy.ports) if any(key_of(url) in word for word in row)]

        wait_until(lambda: len(renewals()) >= 4, 60, "four renewals")
        said = [monitor.commands(pod.proxy.ports) for pod in cluster]
        monitor.close()
        return said

    wait_until(lambda: cluster.total("waiting_requests") >= 2 * PODS, 60, "all waiting")
    few = window()
    started += many(make_getter_process, cluster, CLIENTS, url, size)
    wait_until(lambda: cluster.total("waiting_requests") >= (2 + CLIENTS) * PODS, 60, "all waiting")
    crowd = window()
    for pod, before, after in zip(cluster, few, crowd, strict=True):
        assert len(after) <= len(before) * 2 + 10, (before, after)
        if pod is not owner:
            assert [row for row in after if any(key_of(url) in word for word in row)] == []
    origin.release("model.bin")
    for get_ in started:
        check(get_.wait(), model)
    assert origin.bytes_sent("model.bin") == size


def test_clients_of_another_pod_follow_the_download(origin, make_cluster, getter):
    """They have bytes that the downloader has, long before the origin has sent the last one."""
    size = 8 * CHUNK
    model = origin.model("model.bin", size)
    cluster = make_cluster(2, *TWO_LANES)
    origin.hold("model.bin", 5 * CHUNK)
    first = getter.get(getter.client(cluster[0]), origin.url("model.bin"), size)
    wait_until(lambda: cluster[0].metric("download_bytes_total") > 2 * CHUNK, what="some of it having been downloaded")
    second = getter.get(getter.client(cluster[1]), origin.url("model.bin"), size)
    wait_until(lambda: second.has(CHUNK), 20, "a chunk at the other pod's client")
    assert cluster[0].metric("served_bytes_total") >= CHUNK
    assert cluster.total("downloads_total") == 0
    origin.release("model.bin")
    check(first.wait(), model)
    check(second.wait(), model)
    assert origin.bytes_sent("model.bin") == size
    assert cluster[1].metric("download_bytes_total") == 0


def test_downloads_at_once_of_many_files(nginx, make_cluster, getter):
    """Each once, whoever was first."""
    cluster = make_cluster(PODS)
    models = [nginx.model(f"{number}.bin", CHUNK + number, seed=number) for number in range(20)]
    clients = [getter.client(pod) for pod in cluster]
    started = [
        (model, getter.get(client, nginx.url(model.path.name), 2 * CHUNK)) for model in models for client in clients
    ]
    for model, get_ in started:
        check(get_.wait(), model)
    for model in models:
        assert nginx.bytes_sent(model.path.name) == model.size


@pytest.mark.parametrize("habits", [(), ("--names=2000", "--attrs=2000"), ("--copy-renames",)])
def test_pods_with_mounts_of_their_own(nginx, make_mounts, make_cluster, make_client, getter, folder, habits):
    """One folder, mounted by each as a network volume is that shows late what others did, or copies what it renames."""
    cluster = make_cluster(2, storages=make_mounts(2, *habits))
    models = [nginx.model(f"{number}.bin", 3 * CHUNK + number, seed=number) for number in range(3)]
    clients = [getter.client(pod) for pod in cluster]
    started = [
        (model, getter.get(client, nginx.url(model.path.name), 4 * CHUNK)) for model in models for client in clients
    ]
    for model, get_ in started:
        check(get_.wait(), model)
    for model in models:
        assert nginx.bytes_sent(model.path.name) == model.size
        for pod in cluster:
            assert get(make_client, pod, nginx.url(model.path.name), folder / "out") == model.sha256
        assert nginx.bytes_sent(model.path.name) == model.size


# ---- pods that die ----


def test_the_downloader_is_killed(origin, make_cluster, getter):
    """Another goes on from what lies in the stage."""
    size = 16 * CHUNK
    model, url = origin.model("model.bin", size), origin.url("model.bin")
    cluster = make_cluster(PODS, *TWO_LANES)
    origin.hold("model.bin", 10 * CHUNK)
    first = getter.get(getter.client(cluster[0], retries=0), url, size)
    wait_until(lambda: cluster[0].metric("download_bytes_total") >= 9 * CHUNK, 30, "some of it having been downloaded")
    others = [getter.get(getter.client(pod), url, size) for pod in cluster.others(cluster[0])]
    wait_until(lambda: sum(pod.metric("waiting_requests") for pod in cluster.others(cluster[0])) == 2, 30, "the others")
    cluster[0].kill9()
    first.wait()
    origin.release("model.bin")
    for get_ in others:
        check(get_.wait(), model)
    assert origin.bytes_sent("model.bin") <= size + LOSS
    assert cluster.total("resumed_bytes_total") >= 5 * CHUNK
    assert cluster.total("downloads_total") == 1


def test_a_downloader_that_sleeps_beyond_its_lease(origin, make_cluster, make_client, getter, folder):
    """Another takes over, and finds a newer version. What the sleeper does when it wakes harms nobody."""
    size = 8 * CHUNK
    old, url = change(origin, "model.bin", size, 1, 0), origin.url("model.bin")
    cluster = make_cluster(PODS, *TWO_LANES, "--revalidate-after", "1h")
    origin.hold("model.bin", 5 * CHUNK)
    sleeping = getter.get(getter.client(cluster[0], stall_timeout="2s", retries=1), url, size)
    wait_until(lambda: cluster[0].metric("download_bytes_total") > 2 * CHUNK, 30, "some of it having been downloaded")
    others = [getter.get(getter.client(pod), url, size) for pod in cluster.others(cluster[0])]
    wait_until(lambda: sum(pod.metric("waiting_requests") for pod in cluster.others(cluster[0])) == 2, 30, "the others")
    cluster[0].pause()
    new = change(origin, "model.bin", size, 2, 60)
    try:
        taken = wait_until(
            lambda: [pod for pod in cluster.others(cluster[0]) if pod.metric("flights_running") >= 1], 30, "a new owner"
        )
        assert taken
        origin.release("model.bin")
        for get_ in others:
            check(get_.wait(), new)
    finally:
        cluster[0].resume()
    result = sleeping.wait()
    assert result["status"] != "ok" or result["sha256"] in (old.sha256, new.sha256)
    wait_until(lambda: cluster.total("flights_running") == 0, 30, "the sleeper's end")
    for pod in cluster:
        assert get(make_client, pod, url, folder / "out") == new.sha256
        assert listed(make_client, pod) == {url: new.sha256}
    cluster.redis.start_again()
    for pod in cluster:  # from the records
        wait_until(lambda pod=pod: listed(make_client, pod) == {url: new.sha256}, 30, "what Redis had")
    for path in object_files(cluster.storage):
        assert sha256(path) == path.name


def test_killed_pods_come_back(nginx, make_cluster, make_client, folder):
    """With nothing lost, and nothing downloaded again."""
    cluster = make_cluster(2)
    model = nginx.model("model.bin", 2 * CHUNK)
    assert get(make_client, cluster[0], nginx.url("model.bin"), folder / "out") == model.sha256
    for pod in cluster:
        pod.kill9()
    for pod in cluster:
        pod.start()
        assert get(make_client, pod, nginx.url("model.bin"), folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size


# ---- versions ----


def test_what_one_pod_revalidated_is_what_another_gives(nginx, make_cluster, make_client, folder):
    cluster = make_cluster(2, "--revalidate-after", "1h")
    url = nginx.url("model.bin")
    old = change(nginx, "model.bin", CHUNK, 1, 0)
    for pod in cluster:
        assert get(make_client, pod, url, folder / "out") == old.sha256
    new = change(nginx, "model.bin", CHUNK, 2, 60)
    assert get(make_client, cluster[1], url, folder / "out") == old.sha256
    assert get(make_client, cluster[0], url, folder / "out", "--refresh") == new.sha256
    nginx.forget_requests()
    assert get(make_client, cluster[1], url, folder / "out") == new.sha256
    assert nginx.requests() == []


def test_rollback(nginx, make_cluster, make_client, folder):
    """An older Last-Modified is a change as well; so is a file that is gone, and one that is back."""
    cluster = make_cluster(2, "--revalidate-after", "1h", "--negative-ttl", "1ms")
    url = nginx.url("model.bin")
    new = change(nginx, "model.bin", CHUNK, 2, 60)
    assert get(make_client, cluster[0], url, folder / "out") == new.sha256
    old = change(nginx, "model.bin", CHUNK, 1, 0)
    assert get(make_client, cluster[0], url, folder / "out", "--refresh") == old.sha256
    assert get(make_client, cluster[1], url, folder / "out") == old.sha256
    old.path.unlink()
    get(make_client, cluster[0], url, folder / "out", "--refresh", code=MISSING)
    get(make_client, cluster[1], url, folder / "out", code=MISSING)
    back = change(nginx, "model.bin", CHUNK, 1, 0)
    assert get(make_client, cluster[1], url, folder / "out", "--refresh") == back.sha256
    assert get(make_client, cluster[0], url, folder / "out") == back.sha256


def test_names_that_lead_nowhere_do_not_fill_redis(nginx, make_cluster, make_client, folder):
    cluster = make_cluster(1)
    get(make_client, cluster[0], nginx.url("nothing.bin"), folder / "out", code=MISSING)
    [key] = cluster.redis("KEYS", "modelcache:entry:*")
    assert 0 < cluster.redis("PTTL", key) <= 600_000
    assert cluster.redis("ZCARD", "modelcache:urls") == 0


def test_evicted_at_one_pod_is_evicted_at_all(nginx, make_cluster, make_client, folder):
    cluster = make_cluster(2, "--memory-capacity", "64MiB")
    model, url = nginx.model("model.bin", CHUNK), nginx.url("model.bin")
    for pod in cluster:
        for _ in range(3):
            assert get(make_client, pod, url, folder / "out") == model.sha256
    make_client(cluster[0])("evict", url)
    wait_until(lambda: object_files(cluster.storage) == [], 20, "the object's end")
    assert listed(make_client, cluster[1]) == {}
    assert get(make_client, cluster[1], url, folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == 2 * model.size


def test_watch_tells_of_what_another_pod_changed(nginx, make_cluster, make_client, folder):
    cluster = make_cluster(2, "--revalidate-after", "1h")
    url = nginx.url("models/model.bin")
    watcher = make_client(cluster[1])
    process = watcher.start("watch", nginx.url("models/"), "--json")
    try:
        assert json.loads(process.stdout.readline()) == {"event": "began"}
        for number in (1, 2):
            model = change(nginx, "models/model.bin", CHUNK, number, 60 * number)
            assert get(make_client, cluster[0], url, folder / "out", "--refresh") == model.sha256
            row = json.loads(process.stdout.readline())
            assert (row["url"], row["digest"].removeprefix("sha256:")) == (url, model.sha256)
    finally:
        watcher.kill9(process)


# ---- Redis lost ----


@contextlib.contextmanager
def paused(redis):
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


@contextlib.contextmanager
def killed(redis):
    redis.kill()
    yield
    redis.start_again()


@contextlib.contextmanager
def set_back(redis):
    """It comes back with less than it knew."""
    redis.kill()
    yield
    redis.start_again(empty=False)


@pytest.mark.parametrize("lost", [paused, killed, set_back])
def test_redis_is_lost(nginx, redis, make_cluster, make_client, folder, lost):
    """What is stored is served meanwhile, what is not stored is downloaded, by each pod once at most; then all is known
    again, and nothing is downloaded twice."""
    cluster = make_cluster(2, "--revalidate-after", "1h")
    models = {nginx.url(f"{number}.bin"): nginx.model(f"{number}.bin", CHUNK + number, number) for number in range(4)}
    for number, (url, model) in enumerate(models.items()):
        assert get(make_client, cluster[0], url, folder / "out") == model.sha256
        if number == 0:
            redis.save()
    late = nginx.url("late.bin")
    with lost(redis):
        for pod in cluster:  # the second has never opened any of them
            for url, model in models.items():
                assert get(make_client, pod, url, folder / "out") == model.sha256
        models[late] = nginx.model("late.bin", CHUNK + 4, 4)
        for pod in cluster:
            assert get(make_client, pod, late, folder / "out") == models[late].sha256
    expected = {url: model.sha256 for url, model in models.items()}
    for pod in cluster:
        wait_until(lambda pod=pod: listed(make_client, pod) == expected, 30, f"pod {pod.number} knowing all")
    assert nginx.bytes_sent("late.bin") <= 2 * models[late].size
    nginx.forget_requests()
    for pod in cluster:
        for url, model in models.items():
            assert get(make_client, pod, url, folder / "out") == model.sha256
    assert nginx.requests() == []
    repaired = make_client(cluster[0])("repair", "--dry-run", "--json").json
    assert (repaired["records"], repaired["missing"], repaired["older"]) == (5, 0, 0)
    fresh = nginx.model("fresh.bin", CHUNK, 9)  # and one download is for all again
    for pod in cluster:
        assert get(make_client, pod, nginx.url("fresh.bin"), folder / "out") == fresh.sha256
    assert nginx.bytes_sent("fresh.bin") == fresh.size


def test_redis_is_lost_during_a_download(origin, redis, make_cluster, getter):
    """Everybody ends with the right bytes, and no pod has downloaded it more than once."""
    size = 8 * CHUNK
    model, url = origin.model("model.bin", size), origin.url("model.bin")
    cluster = make_cluster(PODS, *TWO_LANES)
    origin.hold("model.bin", 4 * CHUNK)
    started = [getter.get(getter.client(pod), url, size, timeout=120) for pod in cluster for _ in range(3)]
    cluster.downloader()
    wait_until(lambda: cluster.total("waiting_requests") == 9, 30, "all waiting")
    redis.start_again()
    origin.release("model.bin")
    for get_ in started:
        check(get_.wait(120), model)
    assert origin.bytes_sent("model.bin") <= size * PODS
    assert [path.name for path in object_files(cluster.storage)] == [model.sha256]


def test_repair_forces_what_was_lost(nginx, redis, make_cluster, make_client, folder):
    cluster = make_cluster(1)
    model, url = nginx.model("model.bin", CHUNK), nginx.url("model.bin")
    assert get(make_client, cluster[0], url, folder / "out") == model.sha256
    redis("FLUSHALL")  # behind the pods' backs
    make_client(cluster[0])("repair")
    assert listed(make_client, cluster[0]) == {url: model.sha256}
    assert redis("ZCARD", "modelcache:urls") == 1


def test_failover(nginx, make_redis, processes, make_cluster, make_client, getter, folder):
    """The master dies, its replica takes over: stored files are served meanwhile, then all is one again."""
    master = make_redis(password="pass-word")
    replica = make_redis(password="pass-word", replica_of=master)
    sentinel = Sentinel(processes, folder / "sentinel", master).start()
    cluster = make_cluster(2, redis=master, url=sentinel.url())
    model, url = nginx.model("model.bin", CHUNK), nginx.url("model.bin")
    assert get(make_client, cluster[0], url, folder / "out") == model.sha256
    master.kill()
    for pod in cluster:
        assert get(make_client, pod, url, folder / "out") == model.sha256
    wait_until(lambda: sentinel.master_port() == replica.port, 60, "the failover")
    wait_until(lambda: replica("ROLE")[0] == "master", 60, "the new master")
    for pod in cluster:
        wait_until(lambda pod=pod: listed(make_client, pod) == {url: model.sha256}, 60, "the pods having found it")
    wait_until(lambda: replica("ZCARD", "modelcache:pods") == 2, 60, "both being there")
    fresh = nginx.model("fresh.bin", 8 * CHUNK, 2)
    started = [getter.get(getter.client(pod), nginx.url("fresh.bin"), fresh.size) for pod in cluster]
    for get_ in started:
        check(get_.wait(), fresh)
    assert nginx.bytes_sent("fresh.bin") == fresh.size
    for pod in cluster:
        assert "pass-word" not in pod.log_text() + json.dumps(status_of(make_client, pod))


def test_a_pod_that_is_cut_off(nginx, make_cluster, make_client, folder):
    """It serves what is stored, also what the others have downloaded since; and when it is back all agree."""
    cluster = make_cluster(2, "--revalidate-after", "1h")
    alone, other = cluster
    url = nginx.url("model.bin")
    old = change(nginx, "model.bin", CHUNK, 1, 0)
    for pod in cluster:
        assert get(make_client, pod, url, folder / "out") == old.sha256
    alone.partition()
    new = change(nginx, "model.bin", CHUNK, 2, 60)
    assert get(make_client, other, url, folder / "out", "--refresh") == new.sha256
    wait_until(lambda: get(make_client, alone, url, folder / "out") == new.sha256, 20, "the new version")
    both = nginx.model("both.bin", CHUNK, 3)
    for pod in cluster:
        assert get(make_client, pod, nginx.url("both.bin"), folder / "out") == both.sha256
    assert nginx.bytes_sent("both.bin") <= 2 * both.size
    mine = nginx.model("mine.bin", CHUNK, 4)
    assert get(make_client, alone, nginx.url("mine.bin"), folder / "out") == mine.sha256
    alone.mend()
    expected = {url: new.sha256, nginx.url("both.bin"): both.sha256, nginx.url("mine.bin"): mine.sha256}
    for pod in cluster:
        wait_until(lambda pod=pod: listed(make_client, pod) == expected, 30, f"pod {pod.number} knowing all")
    assert get(make_client, other, nginx.url("mine.bin"), folder / "out") == mine.sha256
    assert nginx.bytes_sent("mine.bin") == mine.size


# ---- ways to Redis ----


@pytest.mark.parametrize("way", ["password", "user", "socket", "database"])
def test_ways_to_redis(nginx, make_redis, make_cluster, make_client, folder, way):
    redis = make_redis(password="pass-word" if way != "user" else None, unix=way == "socket")
    url = {"socket": redis.unix_url(), "database": redis.url(path="/3")}.get(way, redis.url())
    if way == "user":
        redis("ACL", "SETUSER", "cache", "on", ">pass-word", "~*", "&*", "+@all")
        url = f"redis://cache:pass-word@127.0.0.1:{redis.port}/0"
    cluster = make_cluster(2, redis=redis, url=url)
    model = nginx.model("model.bin", CHUNK)
    for pod in cluster:
        assert get(make_client, pod, nginx.url("model.bin"), folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") == model.size
    for pod in cluster:
        assert "pass-word" not in pod.log_text() + json.dumps(status_of(make_client, pod))


def test_redis_comes_after_the_pods(nginx, redis, make_cluster, make_client, folder):
    redis.kill()
    cluster = make_cluster(2)
    model, url = nginx.model("model.bin", CHUNK), nginx.url("model.bin")
    for pod in cluster:
        assert get(make_client, pod, url, folder / "out") == model.sha256
    assert nginx.bytes_sent("model.bin") <= 2 * model.size
    redis.start_again()
    for pod in cluster:
        wait_until(lambda pod=pod: listed(make_client, pod) == {url: model.sha256}, 30, "the pods having found it")


@pytest.mark.parametrize("what", ["password", "rights"])
def test_redis_that_lets_nobody_in_is_out_of_reach(nginx, redis, make_cluster, make_client, folder, what):
    redis("ACL", "SETUSER", "cache", "on", ">pass-word", "~*", "&*", "+@all")
    cluster = make_cluster(2, url=f"redis://cache:pass-word@127.0.0.1:{redis.port}/0")
    old, new = nginx.model("old.bin", CHUNK), nginx.model("new.bin", CHUNK, 2)
    expected = {nginx.url("old.bin"): old.sha256, nginx.url("new.bin"): new.sha256}
    assert get(make_client, cluster[0], nginx.url("old.bin"), folder / "out") == old.sha256
    if what == "password":
        redis("ACL", "SETUSER", "cache", "resetpass", ">other")
        redis("CLIENT", "KILL", "USER", "cache")
    else:
        redis("ACL", "SETUSER", "cache", "-hget", "-get")
    for pod in cluster:
        assert get(make_client, pod, nginx.url("old.bin"), folder / "out", "--refresh") == old.sha256
        assert get(make_client, pod, nginx.url("new.bin"), folder / "out") == new.sha256
    redis("ACL", "SETUSER", "cache", "resetpass", ">pass-word", "+@all")
    for pod in cluster:
        wait_until(lambda pod=pod: listed(make_client, pod) == expected, 30, f"pod {pod.number} taking part again")


# ---- memory ----


def heat(make_client, pod, url, folder):
    """Until the pod has it in memory."""

    def hot():
        get(make_client, pod, url, folder / "out")
        return pod.metric("memory_objects") == 1

    wait_until(hot, 30, "the file being in memory")


def test_what_another_pod_has_in_memory_is_read_from_there(nginx, redis, make_cluster, make_client, getter, folder):
    cluster = make_cluster(2, "--memory-capacity", "128MiB")
    holder, asked = cluster
    model, url = nginx.model("model.bin", 4 * CHUNK), nginx.url("model.bin")
    heat(make_client, holder, url, folder)
    wait_until(lambda: redis("EXISTS", f"modelcache:holders:{model.sha256}") == 1, 20, "the holder being known")
    before = holder.metric("served_bytes_total"), asked.metric("served_bytes_total")
    check(getter.get(getter.client(asked), url, model.size).wait(), model)
    wait_until(
        lambda: holder.metric("served_bytes_total") - before[0] >= model.size, what="the holder having served it"
    )
    assert asked.metric("served_bytes_total") == before[1]


def test_the_holder_dies_in_the_middle_of_a_file(nginx, redis, make_cluster, make_client, getter, folder):
    cluster = make_cluster(2, "--memory-capacity", "128MiB", start=False)
    holder, asked = cluster
    wire = Proxy([int(holder.data.rsplit(":", 1)[1])]).start()
    holder.args += ["--advertise", f"127.0.0.1:{wire.port}"]
    cluster.start()
    try:
        model, url = nginx.model("model.bin", 8 * CHUNK), nginx.url("model.bin")
        heat(make_client, holder, url, folder)
        wait_until(lambda: redis("EXISTS", f"modelcache:holders:{model.sha256}") == 1, 20, "the holder being known")
        wire.cut_after(2 * CHUNK)
        started = getter.get(getter.client(asked, retries=4), url, model.size)
        assert wire.was_cut.wait(30 * SLOWNESS), "the client did not read from the holder"
        holder.kill9()
        wire.refuse()
        check(started.wait(), model)
        assert nginx.bytes_sent("model.bin") == model.size
    finally:
        wire.stop()


# ---- status ----


def members(make_client, pod):
    return {
        member["data"].removeprefix("tcp://"): member for member in status_of(make_client, pod)["cluster"]["members"]
    }


def test_status_shows_the_cluster(origin, make_cluster, make_client, getter):
    cluster = make_cluster(PODS, "--drain", "1s")
    everybody = {pod.data for pod in cluster}
    for pod in cluster:
        wait_until(lambda pod=pod: members(make_client, pod).keys() == everybody, 20, "all pods in the status")
    model, url = origin.model("model.bin", 2 * CHUNK), origin.url("model.bin")
    origin.hold("model.bin", CHUNK)
    started = getter.get(getter.client(cluster[0]), url, model.size)

    def flight():
        """As another pod tells it."""
        flights = members(make_client, cluster[1])[cluster[0].data]["flights"]
        return flights and flights[0]

    told = wait_until(flight, 20, "the flight in the status")
    assert (told["url"], told["total"]) == (url, model.size)
    origin.release("model.bin")
    check(started.wait(), model)
    cluster[2].stop()
    everybody.remove(cluster[2].data)
    wait_until(lambda: members(make_client, cluster[0]).keys() == everybody, 20, "the pod that has stopped being gone")
    cluster[1].kill9()
    everybody.remove(cluster[1].data)
    wait_until(lambda: members(make_client, cluster[0]).keys() == everybody, 30, "the pod that has died being gone")
