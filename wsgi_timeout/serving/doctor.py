"""`wsgi-timeout doctor`: finds what is wrong with a deployment."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import redis

from wsgi_timeout import secret
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.front.platforms import cut_by, shorter_than, wait_below
from wsgi_timeout.serving import doctor_processes, doctor_redis, doctor_rights
from wsgi_timeout.serving.doctor_proxy import Proxy
from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.settings import SECRET_VARIABLE, Settings
from wsgi_timeout.store import junk
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout.store.worker_list import list_workers

#: What is looked at, by the name that stands where a look is refused.
_CHECKS = {
    "server": doctor_redis.server,
    "memory": doctor_redis.memory,
    "persistence": doctor_redis.persistence,
    "durability": doctor_redis.durability,
    "rights": doctor_rights.rights,
    "clock": doctor_redis.clock,
    "workers": doctor_processes.workers,
    "web": doctor_processes.web,
}


def examine(
    client: redis.Redis,
    environment: Mapping[str, str],
    public_url: str = "",
    probe_seconds: float | None = None,
) -> Iterator[Finding]:
    """Yield what is found about settings, Redis, workers, web processes and, if it is given, the public URL.

    `probe_seconds`: how long a request through the public URL is held; None: as long as a wait, and 5 s.
    """
    try:
        settings = Settings.load()
        secret.check_length()
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), "correct the environment")
        settings = Settings()
    else:
        yield Finding(
            "settings", "ok", "the variables of this shell are good; running processes have their own"
        )
    try:
        client.ping()
    except ANY as error:
        yield Finding("redis", "fail", f"does not answer: {error}", "start it, or correct REDIS_URL")
        yield from _of_shell(settings.wait_seconds, environment)
        return
    with junk.collected() as odd:
        yield from _guarded("wait", partial(_waits, environment), client, settings)
        yield from _guarded("secret", partial(_secret, environment), client, settings)
        for name, check in _CHECKS.items():
            yield from _guarded(name, check, client, settings)
    for key, what in odd.items():
        yield Finding("junk", "warn", f"{key}: {what}", _remedy_of_junk(key, what))
    if public_url:
        yield from Proxy(client, public_url).examine(probe_seconds)


def _guarded(
    name: str, check: Callable[[Any, Settings], Iterator[Finding]], client: redis.Redis, settings: Settings
) -> Iterator[Finding]:
    try:
        yield from check(client, settings)
    except ANY as error:
        command = re.search(r"run the '([^']+)' command", str(error))
        remedy = f"give this user +{command[1]}" if command else "give this user the right"
        yield Finding(name, "warn", f"cannot be looked at: {error}", remedy)


def _waits(environment: Mapping[str, str], client: Any, settings: Settings) -> Iterator[Finding]:
    """Look at the wait of the web processes that run; while there are none, at the one that is set here."""
    waits: dict[float, list[str]] = {}
    for name, _, process in doctor_processes.running_web(client):
        waits.setdefault(process.wait_seconds, []).append(f"{process.process} of {name}")
    for wait, processes in waits.items():
        yield _wait(wait, f"in {', '.join(processes)}", environment)
    if not waits:
        yield from _of_shell(settings.wait_seconds, environment)


def _of_shell(wait: float, environment: Mapping[str, str]) -> Iterator[Finding]:
    yield _wait(wait, "for a web process with the variables of this shell; none runs", environment)


def _wait(wait: float, whose: str, environment: Mapping[str, str]) -> Finding:
    if found := cut_by(wait, environment):
        platform, limit = found
        remedy = f"set WSGI_TIMEOUT_WAIT_SECONDS={wait_below(limit)} for the web process"
        return Finding("wait", "fail", f"{wait:g} s {whose}, and {platform} cuts after {limit} s", remedy)
    shorter = shorter_than(wait)
    told = f"; too long behind one of these, which --public-url measures: {shorter}" if shorter else ""
    return Finding("wait", "ok", f"{wait:g} s {whose}{told}")


def _secret(environment: Mapping[str, str], client: Any, _settings: Settings) -> Iterator[Finding]:
    """Look whether the processes that run have a secret; while there are none, whether this shell has.

    A Redis that only its user can open, as that of `serve`, needs none: `serve` makes one for functions.
    """
    running = {process.secret for _, _, process in doctor_processes.running_web(client)}
    running |= {worker.secret for worker in list_workers(client)}
    whose = "in all processes that run" if running else "in this shell; no process runs"
    if running and "" not in running:
        yield Finding("secret", "ok", f"the processes that run have a {SECRET_VARIABLE}")
    elif not running and environment.get(SECRET_VARIABLE):
        yield Finding("secret", "ok", f"{SECRET_VARIABLE} is set in this shell; no process runs")
    elif doctor_redis.is_private(client):
        what = (
            f"{SECRET_VARIABLE} is not set, and not needed: only this user can open the socket of this Redis"
        )
        yield Finding("secret", "ok", what)
    else:
        what = f"{SECRET_VARIABLE} is not set {whose}: who can write to this Redis can change queued requests"
        remedy = (
            "nothing to do if only your own processes reach it, by firewall or password, and no functions "
            "are spawned; else set one and the same in every process, as from `openssl rand -hex 32`"
        )
        yield Finding("secret", "warn", what, remedy)


def _remedy_of_junk(key: str, what: str) -> str:
    remedy = "it is left out; look who else writes to this database"
    # Only then is nothing of ours lost with it.
    return f"{remedy}, and `redis-cli UNLINK {shlex.quote(key)}`" if what == junk.OTHER_TYPE else remedy


def exit_code(findings: list[Finding]) -> int:
    """Return 1 if something fails, else 0."""
    return int(any(finding.verdict == "fail" for finding in findings))
