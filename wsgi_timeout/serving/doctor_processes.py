"""What the doctor looks at in web processes and workers, as they have described themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from wsgi_timeout import identity
from wsgi_timeout.serving.doctor_redis import of_clock
from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.settings import SECRET_VARIABLE, Settings
from wsgi_timeout.store import gauges, seals
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.pauses import is_paused
from wsgi_timeout.store.web_list import SILENT_SECONDS, WebProcess, list_web
from wsgi_timeout.store.worker_list import ListedWorker, list_workers

_OTHER_SECRET = f"the {SECRET_VARIABLE} of this shell is another one"


def workers(client: Any, settings: Settings) -> Iterator[Finding]:
    """Look at the live workers of each name."""
    found = list_workers(client)
    if not found:
        yield Finding("workers", "fail", "none is running", "start them: wsgi-timeout worker TARGET")
    of_web = {name for name, _, _ in running_web(client)}
    for name in names(client):
        of_name = [worker for worker in found if worker.name == name]
        if of_name:
            yield _of_name(name, of_name)
        elif found:
            yield from _unserved(client, name, of_web)
        if of_name or name in of_web:
            yield from _queue(client, name, settings)
    yield from _clocks(found)


def _unserved(client: Any, name: str, of_web: set[str]) -> Iterator[Finding]:
    """Tell of a name without workers if anybody needs them; it may be of an app that is not used any more."""
    queued = _gauges(client, name).get("queued_calls", 0)
    if queued or name in of_web:
        what = f"none of {name} is running, and {queued:.0f} calls wait"
        remedy = f"start them: wsgi-timeout worker TARGET, with --name {name.partition(':')[0]}"
        yield Finding("workers", "fail", what, remedy)


def _of_name(name: str, of_name: list[ListedWorker]) -> Finding:
    # One whose record has expired, or was deleted, tells nothing.
    targets = {worker.target for worker in of_name} - {""}
    wires = {worker.wire for worker in of_name} - {""}
    versions = {worker.version for worker in of_name} - {""}
    secrets = {worker.secret for worker in of_name}
    what = f"{len(of_name)} of {name}, target {', '.join(sorted(targets))}"
    if len(targets) > 1:
        return Finding("workers", "fail", f"{what}: more than one app", "give each app a --name of its own")
    if wires - {str(WIRE_VERSION)}:
        what += f": wire version {', '.join(sorted(wires))}, here {WIRE_VERSION}"
        return Finding("workers", "warn", what, "finish the upgrade: one version of wsgi-timeout everywhere")
    if versions - {identity.version()}:
        what += f": wsgi-timeout {', '.join(sorted(versions))}, here {identity.version()}"
        return Finding("workers", "warn", what, "finish the upgrade: one version of wsgi-timeout everywhere")
    if len(secrets) > 1 or _is_other(secrets):
        what += f": not all have the same {SECRET_VARIABLE}" if len(secrets) > 1 else f": {_OTHER_SECRET}"
        return Finding("workers", "fail", what, "set the same one in web processes and workers")
    return Finding("workers", "ok", f"{what}, wsgi-timeout {identity.version()}, wire {WIRE_VERSION}")


def _is_other(secrets: set[str]) -> bool:
    """Return whether processes have another secret than this shell, which may have none: it needs none."""
    here = seals.fingerprint()
    return bool(here) and secrets != {here}


def _queue(client: Any, name: str, settings: Settings) -> Iterator[Finding]:
    if is_paused(client, name):
        remedy = f"`wsgi-timeout resume {name.partition(':')[0]}`, or `rq resume`"
        yield Finding("queue", "warn", f"queue wt:{name} is paused: no calls are taken", remedy)
    found = _gauges(client, name)
    age = found.get("queue_head_age_seconds", 0.0)
    if age > settings.slow_queue_seconds:
        what = (
            f"the first of {found.get('queued_calls', 0):.0f} calls of wt:{name} has waited for {age:.0f} s"
        )
        yield Finding("queue", "warn", what, "start more workers, or look at `wsgi-timeout calls`")


def _gauges(client: Any, name: str) -> dict[str, float]:
    return {metric: value for metric, _, value in gauges.of_name(client, name)}


def _clocks(found: list[ListedWorker]) -> Iterator[Finding]:
    """Check the clocks of the machines of workers."""
    for host in sorted({worker.hostname for worker in found if worker.hostname}):
        told = [worker.clock_ahead for worker in found if worker.hostname == host]
        ahead = [seconds for seconds in told if seconds is not None]
        if ahead:
            yield of_clock(f"{host}, of workers,", max(ahead, key=abs))


def running_web(client: Any) -> list[tuple[str, float, WebProcess]]:
    """Return the web processes that have not ended: name, Redis' clock when it told of itself, and what."""
    found = list_web(client)
    return [
        (name, told, process)
        for name, of_name in sorted(found.items())
        for told, process in of_name
        if not process.has_ended()
    ]


def web(client: Any, _settings: Settings) -> Iterator[Finding]:
    """Look at web processes that have handled a request: server, threads, timeouts against the wait."""
    found = running_web(client)
    if not found:
        remedy = "send a request through it, and look again"
        yield Finding("web", "warn", "no web process has handled a request in the last minute", remedy)
    now = client.time()[0]
    for name, told, process in found:
        if now - told > SILENT_SECONDS:
            what = f"{process.process} of {name} has been silent for {now - told:.0f} s"
            remedy = "unless it was stopped: it has died, hangs, or does not reach Redis; look at its log"
            yield Finding("web", "warn", what, remedy)
            continue
        secrets = {worker.secret for worker in list_workers(client, name)}
        yield _of_web(name, process, secrets)
        yield of_clock(f"{process.process}, a web process,", process.clock - told)


def _of_web(name: str, process: WebProcess, secrets: set[str]) -> Finding:
    threads = math.inf if process.threads is None else process.threads
    timeout = math.inf if process.timeout is None else process.timeout
    many = "any number of" if math.isinf(threads) else f"{threads:g}"
    what = f"{process.process} of {name} under {process.server or 'an unknown server'}, {many} threads"
    ours = "run gunicorn with -c python:wsgi_timeout.gunicorn_conf"
    if timeout <= process.wait_seconds:
        what += f", ends a request after {timeout:g} s: the wait of {process.wait_seconds:g} s is cut"
        return Finding("web", "warn", what, f"{ours}, or set WSGI_TIMEOUT_WAIT_SECONDS below it")
    if threads <= process.max_waiting:
        what += f", not more than max_waiting={process.max_waiting}: waiting requests can use all of them"
        return Finding("web", "warn", what, f"{ours}, or give it more threads")
    if secrets - {process.secret} or _is_other({process.secret}):
        what += (
            f": its workers have another {SECRET_VARIABLE}"
            if secrets - {process.secret}
            else f": {_OTHER_SECRET}"
        )
        return Finding("web", "fail", what, "set the same one in web processes and workers")
    if process.version != identity.version():
        what += f": wsgi-timeout {process.version}, here {identity.version()}"
        return Finding("web", "warn", what, "finish the upgrade: one version of wsgi-timeout everywhere")
    return Finding("web", "ok", f"{what}, a wait of {process.wait_seconds:g} s")
