"""The live workers of one name, as they have described themselves."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import text
from wsgi_timeout.target import folder_of, is_generic, may_be_one, normal

#: A description that nobody of ours wrote is skipped at each look, and told of once.
_junk = LogOnce("a live worker's description")


@dataclass(frozen=True, slots=True)
class LiveWorkers:
    """What the live workers of one name serve."""

    #: What is wrong with one of them, empty if all fit.
    mismatch: str
    #: The web functions that they serve, None unless their target is a stub.
    mounts: Mounts | None
    #: Whether any worker lives.
    alive: bool = False
    #: Why nobody reads our calls: all of them speak another wire version. Empty if one speaks ours.
    other_version: str = ""


def find(queue: Queue, target: str) -> LiveWorkers:
    """Return what the live workers of this name serve; `target` is what they should ("": anything)."""
    workers = [text(worker) for worker in queue.redis.hkeys(keys.leases(queue.name))]
    pipe = queue.redis.pipeline(transaction=False)
    for worker in workers:
        pipe.hmget(keys.worker(worker), ("wire", "target", "folder", "mounts"))
    mounts: Mounts | None = None
    same, others = False, ""
    described = pipe.execute(raise_on_error=False) if workers else ()
    for worker, description in zip(workers, described, strict=True):
        if isinstance(description, Exception):
            continue  # of another type: nobody of ours wrote it
        wire, theirs, folder, mounted = description
        if wire is not None and wire.isdigit() and text(wire) != str(WIRE_VERSION):
            # It leaves our calls to who can read them, and may serve beside such a one: in a deploy.
            others = _other_version(queue.name, worker, text(wire))
            continue
        same = True
        mismatch = _misfit(queue.name, worker, theirs, target)
        if mismatch := mismatch or _elsewhere(queue.name, worker, folder, target):
            return LiveWorkers(mismatch, None)
        with _junk:
            mounts = Mounts.loads(text(mounted)) if mounted else mounts
    return LiveWorkers("", mounts, alive=bool(workers), other_version="" if same else others)


def _other_version(name: str, worker: str, wire: str) -> str:
    return (
        f"worker {worker} of queue wt:{name} speaks wire version {wire}, this process "
        f"{WIRE_VERSION}: run the same version of wsgi-timeout everywhere"
    )


def _misfit(name: str, worker: str, theirs: bytes | None, target: str) -> str:
    if target and theirs is not None and not may_be_one(target, text(theirs)):
        return (
            f"queue wt:{name} is served by worker {worker} with target {text(theirs)!r}, "
            f"here it is {normal(target)!r}: give one of them another --name"
        )
    return ""


def _elsewhere(name: str, worker: str, folder: bytes | None, target: str) -> str:
    """Return what is wrong with a worker that has another folder, where the name alone says little.

    Two apps are both `app:app` by chance: neither may get the other's requests.
    """
    here = folder_of(target)
    if folder is None or text(folder) == here or not is_generic(name):
        return ""
    return (
        f"queue wt:{name} is served by worker {worker} from {text(folder)}, this process runs from {here}, "
        f"and many apps are called {name!r}: it may be another app. Give each app a name of its own, by "
        "--name, name= or WSGI_TIMEOUT_NAME, the same for its web processes and workers"
    )
