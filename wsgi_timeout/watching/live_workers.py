"""The live workers of one name, as they have described themselves."""

from __future__ import annotations

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
    #: One of them runs other code than is here, by a name that many apps have.
    other_code: bool = False
    #: Why none of them would run our requests: all have another secret. Empty if one takes them.
    other_secret: str = ""


def find(queue: Queue, target: str) -> LiveWorkers:
    """Return what the live workers of this name serve; `target` is what they should ("": anything)."""
    workers = [text(worker) for worker in queue.redis.hkeys(keys.leases(queue.name))]
    pipe = queue.redis.pipeline(transaction=False)
    for worker in workers:
        pipe.hmget(keys.worker(worker), ("wire", "target", "mounts", seals.FINGERPRINT, *identity.FIELDS))
    mounts: Mounts | None = None
    here = identity.describe(target)
    same, others, other_code = False, "", False
    secrets: set[str] = set()
    described = pipe.execute(raise_on_error=False) if workers else ()
    for worker, description in zip(workers, described, strict=True):
        if isinstance(description, Exception):
            continue  # of another type: nobody of ours wrote it
        wire, theirs, mounted, secret, *told = description
        if wire is not None and wire.isdigit() and text(wire) != str(WIRE_VERSION):
            # It leaves our calls to workers of our version, which may live too: in a deploy.
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
        alive=bool(workers),
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
    # Beside such a one there may be others for a moment: in a deploy that changes it.
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
