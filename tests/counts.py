"""Count test results, for tests/run and .ci/run.

counts.py meson FILE   the line "passed failed skipped meson" of a meson testlog.json
counts.py junit FILE   the same of a JUnit file, "pytest"; a file that is missing is one failure
counts.py sum FILE     print all lines, then "N passed, N failed[, N skipped]"; the exit code says if all passed
"""

import json
import pathlib
import sys
import xml.etree.ElementTree


def meson(path):
    """What meson calls an expected failure has passed; everything but OK and a skip has failed."""
    results = [json.loads(line)["result"] for line in path.read_text().splitlines()] if path.exists() else []
    passed = sum(result in ("OK", "EXPECTEDFAIL") for result in results)
    skipped = results.count("SKIP")
    return passed, len(results) - passed - skipped if results else 1, skipped


def junit(path):
    if not path.exists():
        return 0, 1, 0
    suites = list(xml.etree.ElementTree.parse(path).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors if tests else 1
    return max(tests - failures - errors - skipped, 0), failed, skipped


def total(path):
    sums = [0, 0, 0]
    for line in path.read_text().splitlines():
        *numbers, what = line.split(" ", 3)
        sums = [a + int(b) for a, b in zip(sums, numbers, strict=True)]
        print("{:>6} passed {:>4} failed {:>4} skipped  {}".format(*numbers, what))
    passed, failed, skipped = sums
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed and not failed else 1


def main():
    how, path = sys.argv[1], pathlib.Path(sys.argv[2])
    if how == "sum":
        return total(path)
    print(*{"meson": meson, "junit": junit}[how](path), {"meson": "meson", "junit": "pytest"}[how])
    return 0


if __name__ == "__main__":
    sys.exit(main())
