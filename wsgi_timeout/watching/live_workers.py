"""Reads what the live workers of one name serve, from their descriptions in Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from wsgi_timeout import identity
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.settings import SECRET_VARIABLE
from wsgi_timeout.store import keys, seals
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import text
from wsgi_timeout.target import may_be_one, normal

#: Seconds for which a description is not read again.
_READ_SECONDS = 30.0
#: Logs once that a description cannot be read; it is skipped each time.
_junk = LogOnce("a live worker's description")


@dataclass(frozen=True, slots=True)
class LiveWorkers:
    """What the live workers of one name serve."""

    #: Why one of them does not fit this process; empty if all do.
    mismatch: str
    #: The web functions that they serve; None unless their target is a stub.
    mounts: Mounts | None
    #: Whether any worker lives.
    alive: bool = False
    #: Why none of them can read our calls, where all have another wire version; else empty.
    other_version: str = ""
    #: One of them runs other code than this process, under a name that many apps have (`app`, `main`).
    other_code: bool = False
    #: Why none of them would run our calls, where all have another secret; else empty.
    other_secret: str = ""


class Descriptions:
    """The workers' descriptions of themselves, read again every few seconds in case somebody changes one."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        #: By worker, each with the time on the monotonic clock at which it was read.
        self._read: dict[str, tuple[list[bytes | None], float]] = {}

    def of_live_workers(self, leases: Iterable[bytes] | None = None) -> dict[str, list[bytes | None]]:
        """Return those of the live workers, by worker; a key that has another type is left out.

        `leases`: the workers that have one; None: they are asked for.
        """
        redis, now = self._queue.redis, time.monotonic()
        if leases is None:
            leases = redis.hkeys(keys.leases(self._queue.name))
        workers = [text(worker) for worker in leases or ()]
        known = {worker: self._read[worker] for worker in workers if worker in self._read}
        self._read = {worker: found for worker, found in known.items() if now - found[1] < _READ_SECONDS}
        missing = [worker for worker in workers if worker not in self._read]
        pipe = redis.pipeline(transaction=False)
        for worker in missing:
            pipe.hmget(keys.worker(worker), ("wire", "target", "mounts", seals.FINGERPRINT, *identity.FIELDS))
        found = pipe.execute(raise_on_error=False) if missing else ()
        for worker, description in zip(missing, found, strict=True):
            if not isinstance(description, Exception):
                self._read[worker] = description, now
        return {worker: self._read[worker][0] for worker in workers if worker in self._read}


def find(
    queue: Queue,
    target: str,
    descriptions: Descriptions | None = None,
    leases: Iterable[bytes] | None = None,
) -> LiveWorkers:
    """Return what the live workers of this name serve.

    `target` is what they should serve ("": anything), `leases` the workers that have one (None: they are
    asked for).
    """
    described = (descriptions or Descriptions(queue)).of_live_workers(leases)
    mounts: Mounts | None = None
    here = identity.describe(target)
    same, others, other_code = False, "", False
    secrets: set[str] = set()
    for worker, description in described.items():
        wire, theirs, mounted, secret, *told = description
        if wire is not None and wire.isdigit() and text(wire) != str(WIRE_VERSION):
            # It leaves our calls in the queue; during a deploy workers of our version may live too.
            others = _other_version(queue.name, worker, text(wire))
            continue
        same = True
        secrets.add(text(secret or b""))
        mismatch = _misfit(queue.name, worker, theirs, target)
        signs = {field: text(value) for field, value in zip(identity.FIELDS, told, strict=True) if value}
        if mismatch := mismatch or identity.conflict(queue.name, worker, signs, here):
            return LiveWorkers(mismatch, None)
        other_code = other_code or identity.other_code(queue.name, signs, here)
        with _junk:
            mounts = Mounts.loads(text(mounted)) if mounted else mounts
    return LiveWorkers(
        "",
        mounts,
        alive=bool(described),
        other_version="" if same else others,
        other_code=other_code,
        other_secret=_other_secret(queue.name, secrets),
    )


def _other_version(name: str, worker: str, wire: str) -> str:
    return (
        f"worker {worker} of queue wt:{name} speaks wire version {wire}, this process "
        f"{WIRE_VERSION}: run the same version of wsgi-timeout everywhere"
    )


def _other_secret(name: str, theirs: set[str]) -> str:
    # During a deploy that changes the secret, workers with the old and the new one live side by side.
    ours = seals.fingerprint()
    if not theirs or theirs & {"", ours}:
        return ""
    return (
        f"the workers of queue wt:{name} have {'another' if ours else 'a'} {SECRET_VARIABLE}, this process "
        f"has {'its own' if ours else 'none'}: they would refuse its requests. Set the same one everywhere"
    )


def _misfit(name: str, worker: str, theirs: bytes | None, target: str) -> str:
    if target and theirs is not None and not may_be_one(target, text(theirs)):
        return (
            f"queue wt:{name} is served by worker {worker} with target {text(theirs)!r}, "
            f"here it is {normal(target)!r}: give one of them another --name"
        )
    return ""
