"""The checker of the chaos run finds what it is there to find."""

import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "tests" / "chaos"))

from checker import Checker, Get  # noqa: E402


@pytest.fixture
def checker():
    """Of a path of which "a", "b", a deletion and "a" again were published, at 0, 10, 20 and 30 seconds, as 1 to 4."""
    made = Checker(grace=1)
    for number, digest in enumerate(["a", "b", None, "a"]):
        publication = made.publish("path", digest, 100 if digest else 0, digest or "", number * 10)
        made.published(publication)
        if number:
            made.publications["path"][number - 1].replaced = number * 10
    return made


def got(checker, digest, ended, client="one", server="service", **facts):
    status = facts.pop("status", "ok" if digest else "not_found")
    return checker.got(Get(client, server, "path", ended - 1, ended, status, digest or "", **facts))


def test_what_is_right(checker):
    for digest, ended in (("a", 5), ("a", 12), ("b", 15), (None, 25), ("a", 35), ("a", 36)):
        assert got(checker, digest, ended) is None
    assert got(checker, "a", 35, client="two") is None
    assert got(checker, None, 40, status="unavailable") is None
    assert checker.violations == []


def test_a_step_back(checker):
    assert got(checker, "b", 15) is None
    assert "1 after 2" in got(checker, "a", 16), "it had not been put back then"
    assert got(checker, None, 25) is None
    assert "2 after 3" in got(checker, "b", 26)
    assert len(checker.violations) == 2


def test_a_step_back_is_excused_only_between_pods_that_were_divided(checker):
    event = checker.event("partition", "pod0", divides=True)
    event.began, event.ended = 14, 15
    for server, excused in (("service", None), ("pod0", "publication 1 after 2")):
        assert got(checker, "b", 15, server, server) is None
        assert got(checker, "a", 16, server, server) == excused
    assert checker.excused == 1
    checker.strict = True
    assert got(checker, "a", 16, "service", "service")


def test_wrong_bytes(checker):
    assert "no version" in got(checker, "c", 15)
    assert "no version" in got(checker, "b", 5), "it was not there yet"
    assert "not that of the bytes" in got(checker, "a", 15, real="b")
    assert "always there" in got(checker, None, 15)
    assert "corrupt" in got(checker, None, 15, status="corrupt")


def test_downloads(checker):
    once = [{"path": "path", "etag": etag, "bytes": size} for etag, size in (("a", 100), ("b", 60), ("b", 40))]
    assert checker.downloads(once) == (200, 200)
    assert checker.downloads([*once, once[0]]) == (300, 200), "it was published twice"
    assert checker.violations == []
    checker.downloads([*once, once[1]])
    assert len(checker.violations) == 1
    checker.violations.clear()
    event = checker.event("kill", "pod0", forces=1)
    event.began, event.ended = 12, 13
    checker.downloads([*once, once[1]])
    assert checker.violations == []
    event.began, event.ended = 42, 43
    checker.downloads([*once, once[1]])
    assert len(checker.violations) == 1
