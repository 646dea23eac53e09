"""What every client got, held against every version that was ever published.

A *publication* is what the origin has at a path from a moment on: bytes, or nothing (a deletion). Publications of a
path are numbered. A *rollback* is a publication whose bytes, ETag and Last-Modified are those of an earlier one: the
same file put back. A *get* is one call of one client, which does one at a time, with what came of it.

    true       a get that succeeded has the bytes of a publication of its path which had begun when the get ended, and
               the digest that it was told is the digest of the bytes
    missing    a get that was told that there is no such file: the path had been deleted before the get ended
    forward    for one client, at whichever pods it asks, each get of a path is of the same or a later publication as
               the get before. As bytes can have been published more than once, a get counts as the earliest publication
               that fits; what fits none is a step back
    honest     a get fails only in ways that another try may mend
    ends       a get ends by its deadline, and the grace of the slowest machine
    once       the origin sends no more of a version (an ETag of a path) than its size, once for each of its
               publications and once more for each event that can force it: see `Event.forces`

`forward` has one excuse. What the pods of a cluster know in common they know by Redis: a pod that can't reach it goes
on alone, asks the origin itself, and writes down what it found on the volume, where pods that can reach Redis do not
look until they hear of it. So a client that goes from one pod to another may step back while a pod, or Redis, is cut
off, but never at one and the same pod, and never without such an event. A step that was excused is counted.
"""

import dataclasses
import threading
import time

# What another try may mend.
TEMPORARY = {"unavailable", "deadline_exceeded", "cancelled", "changed", "busy", "resource_exhausted"}


@dataclasses.dataclass
class Publication:
    path: str
    number: int
    digest: str | None  # None: a deletion
    size: int
    etag: str
    began: float  # the origin may serve it from now on
    ended: float  # and serves nothing older to who asks from now on
    replaced: float = float("inf")


@dataclasses.dataclass
class Get:
    client: str
    server: str  # of the client: a pod, or the service in front of all
    path: str
    began: float
    ended: float
    status: str
    digest: str = ""  # what the client was told
    real: str = ""  # of its bytes, if they were hashed
    message: str = ""


@dataclasses.dataclass
class Event:
    kind: str
    target: str
    began: float
    ended: float = float("inf")
    forces: int = 0  # so many downloads of what is under way, or is asked for, while it lasts
    divides: bool = False  # pods know different things while it lasts


class Checker:
    def __init__(self, grace, strict=False):
        """`grace`: how long after its end an event may still show, in seconds. `strict`: no step back is excused."""
        self.grace, self.strict, self.lock = grace, strict, threading.Lock()
        self.publications, self.events, self.gets, self.violations = {}, [], [], []
        self.floors = {}  # (client, path): (the number of the publication it has seen, when the get ended)
        self.excused = 0

    # ---- what happens ----

    def publish(self, path, digest, size=0, etag="", began=None, ended=None):
        with self.lock:
            known = self.publications.setdefault(path, [])
            began = time.monotonic() if began is None else began
            known.append(Publication(path, len(known) + 1, digest, size, etag, began, ended or float("inf")))
            return known[-1]

    def published(self, publication):
        """The origin serves nothing older from now on."""
        with self.lock:
            publication.ended = time.monotonic()
            if publication.number > 1:
                self.publications[publication.path][publication.number - 2].replaced = publication.ended

    def event(self, kind, target, forces=0, divides=False):
        with self.lock:
            self.events.append(Event(kind, target, time.monotonic(), forces=forces, divides=divides))
            return self.events[-1]

    def got(self, get):
        """Look at a get that has ended."""
        with self.lock:
            self.gets.append(get)
            found = self.check(get)
            if found:
                self.violations.append((found, get))
            return found

    def hung(self, get):
        with self.lock:
            self.gets.append(get)
            self.violations.append(("it did not end", get))

    def broken(self, what):
        with self.lock:
            self.violations.append((what, None))

    # ---- the rules ----

    def check(self, get):
        if get.status not in ("ok", "not_found"):
            return None if get.status in TEMPORARY else f"it failed with {get.status}"
        if get.real and get.real != get.digest:
            return "the digest is not that of the bytes"
        digest = get.digest if get.status == "ok" else None
        known = [p for p in self.publications.get(get.path, []) if p.digest == digest and p.began <= get.ended]
        if not known:
            return "it is of no version that was published" if digest else "the file was always there"
        floor, seen = self.floors.get((get.client, get.path), (0, 0))
        fits = [p.number for p in known if p.number >= floor]
        if fits:
            self.floors[get.client, get.path] = (fits[0], get.ended)
            return None
        back = f"publication {known[-1].number} after {floor}"
        if get.server == "service" and not self.strict and self.divided(seen, get.ended):
            self.excused += 1
            return None
        return back

    def divided(self, began, ended):
        """Whether pods knew different things at some time between."""
        return any(e.divides and e.began <= ended and e.ended + self.grace >= began for e in self.events)

    def downloads(self, rows):
        """Rows of the origin's log, {path, etag, bytes}: returns (bytes, bytes if each version came once)."""
        sent = {}
        for row in rows:
            version = row["path"], row["etag"]
            sent[version] = sent.get(version, 0) + row["bytes"]
        once = 0
        for (path, etag), size in sent.items():
            versions = [p for p in self.publications.get(path, []) if p.etag == etag and p.digest]
            if not versions:
                if size:
                    self.broken(f"{path}: the origin sent {size} bytes of an unknown version {etag}")
                continue
            forced = sum(event.forces for event in self.events if any(self.overlap(event, p) for p in versions))
            allowed = versions[0].size * (len(versions) + forced)
            once += versions[0].size
            if size > allowed:
                self.broken(
                    f"{path}: the origin sent {size} bytes of publication {versions[0].number}, whose size is "
                    f"{versions[0].size}: {allowed} at most, with {forced} forced downloads"
                )
        return sum(sent.values()), once

    def overlap(self, event, publication):
        return event.began <= publication.replaced + self.grace and event.ended + self.grace >= publication.began

    # ---- what is shown ----

    def history(self, get, start):
        """Lines that tell what happened to a get's path before it: its client's gets, publications, events."""
        lines = []
        for p in self.publications.get(get.path, []):
            what = f"{p.digest[:12]} {p.size} bytes {p.etag}" if p.digest else "deleted"
            lines.append((p.began, f"publication {p.number}: {what}"))
        for e in self.events:
            lines.append((e.began, f"{e.kind} {e.target}"))
            if e.ended != float("inf"):
                lines.append((e.ended, f"end of {e.kind} {e.target}"))
        for g in self.gets:
            if g.path == get.path and (g.client == get.client or g.ended > get.began - 10):
                lines.append(
                    (g.ended, f"{g.client} got {g.status} {g.digest[:12]} in {g.ended - g.began:.2f} s {g.message}")
                )
        lines = [line for line in sorted(lines) if get.began - 60 < line[0] <= get.ended + 1]
        return [f"{moment - start:9.3f} {text}" for moment, text in lines[-120:]]
