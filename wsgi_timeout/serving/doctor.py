"""`wsgi-timeout doctor`: what is wrong with a deployment, before it is noticed at night."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving.health import READY
from wsgi_timeout.settings import SECRET_VARIABLE, Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout.store.worker_list import list_workers

_OLDEST_REDIS = (6, 2)
_CLOCK_SECONDS = 5.0
#: Seconds after which these platforms cut a request, by a variable that they set.
PLATFORMS = {
    "DYNO": ("Heroku", 30),
    "AWS_LAMBDA_FUNCTION_NAME": ("AWS Lambda behind API Gateway", 29),
    "K_SERVICE": ("Cloud Run, by its default", 300),
    "WEBSITE_SITE_NAME": ("Azure App Service", 230),
    "RENDER": ("Render", 100),
    "FLY_APP_NAME": ("Fly.io", 60),
    "RAILWAY_ENVIRONMENT": ("Railway", 900),
    "GAE_ENV": ("App Engine standard", 60),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    check: str
    verdict: Literal["ok", "warn", "fail"]
    what: str
    #: What to do; empty if all is well.
    remedy: str = ""


def examine(client: redis.Redis, environment: Mapping[str, str], public_url: str) -> Iterator[Finding]:
    """Yield what is found about Redis, the workers, the settings and, if it is given, the public URL."""
    try:
        settings = Settings.load()
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), "correct the environment")
        settings = Settings()
    yield from _settings(settings, environment)
    try:
        client.ping()
    except ANY as error:
        yield Finding("redis", "fail", f"does not answer: {error}", "start it, or correct REDIS_URL")
    else:
        for check in (_server, _memory, _persistence, _rights, _clock, _workers):
            yield from _guarded(check, client, settings)
    if public_url:
        yield _public(public_url)


def _guarded(
    check: Callable[[Any, Settings], Iterator[Finding]], client: redis.Redis, settings: Settings
) -> Iterator[Finding]:
    try:
        yield from check(client, settings)
    except ANY as error:
        yield Finding(
            check.__name__.strip("_"), "warn", f"cannot be looked at: {error}", "give this user the right"
        )


def _settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    wait = settings.wait_seconds
    for variable, (platform, limit) in PLATFORMS.items():
        if variable in environment and wait >= limit:
            remedy = f"set WSGI_TIMEOUT_WAIT_SECONDS={limit - 5}"
            yield Finding("wait", "fail", f"{platform} cuts after {limit} s, a wait has {wait:g} s", remedy)
    if environment.get(SECRET_VARIABLE):
        yield Finding("secret", "ok", f"{SECRET_VARIABLE} is set")
    else:
        remedy = "set one in every process, as from `openssl rand -hex 32`, if functions are spawned"
        yield Finding("secret", "warn", f"{SECRET_VARIABLE} is not set here", remedy)


def _server(client: Any, _settings: Settings) -> Iterator[Finding]:
    info = client.info()
    version = str(info.get("redis_version", "0"))
    kind = f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}"
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        yield Finding("version", "fail", kind, "use Redis 6.2 or newer, or Valkey")
    else:
        yield Finding("version", "ok", kind)
    if info.get("cluster_enabled"):
        yield Finding("cluster", "fail", "cluster mode is on", "use one server, or a primary with Sentinel")
    if info.get("role", "master") != "master":
        yield Finding(
            "role", "fail", "this is a replica, which takes no writes", "set REDIS_URL to the primary"
        )


def _memory(client: Any, settings: Settings) -> Iterator[Finding]:
    info = client.info("memory")
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    used = f"{int(info.get('used_memory', 0)) // 2**20} MiB used"
    if policy != "noeviction":
        yield Finding(
            "eviction", "fail", f"maxmemory-policy {policy} throws calls away", "set it to noeviction"
        )
    if not limit:
        remedy = "set maxmemory, to twice max_buffered_bytes or more"
        yield Finding("memory", "warn", f"{used}, maxmemory is not set: a full machine kills it", remedy)
    elif limit < settings.max_buffered_bytes:
        budget = settings.max_buffered_bytes // 2**20
        what = f"maxmemory is {limit // 2**20} MiB, max_buffered_bytes {budget} MiB"
        yield Finding("memory", "warn", what, "set WSGI_TIMEOUT_MAX_BUFFERED_BYTES to half of maxmemory")
    else:
        yield Finding("memory", "ok", f"{used} of {limit // 2**20} MiB")


def _persistence(client: Any, _settings: Settings) -> Iterator[Finding]:
    info = client.info("persistence")
    if not info.get("aof_enabled"):
        remedy = "set appendonly yes"
        yield Finding("persistence", "warn", "no append-only file: a restart loses every call", remedy)
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "persistence", "fail", "the append-only file cannot be written", "look at the server's disk"
        )
    else:
        yield Finding("persistence", "ok", "append-only")


def _rights(client: Any, _settings: Settings) -> Iterator[Finding]:
    try:
        client.eval(
            "redis.call('SET', KEYS[1], '1', 'EX', 5) return redis.call('DEL', KEYS[1])", 1, keys.PROBE
        )
    except ANY as error:
        yield Finding(
            "rights", "fail", f"a script may not write wt:*: {error}", "see the ACL in the documentation"
        )
    else:
        yield Finding("rights", "ok", "scripts may write")


def _clock(client: Any, _settings: Settings) -> Iterator[Finding]:
    seconds, microseconds = client.time()
    ahead = time.time() - seconds - microseconds / 1e6
    if abs(ahead) > _CLOCK_SECONDS:
        what = f"this machine's clock is {ahead:+.0f} s from Redis' machine's"
        yield Finding("clocks", "warn", what, "run an NTP client on both")
    else:
        yield Finding("clocks", "ok", f"{ahead:+.2f} s from Redis' machine's")


def _workers(client: Any, _settings: Settings) -> Iterator[Finding]:
    workers = list_workers(client)
    if not workers:
        yield Finding("workers", "fail", "none lives", "start them: wsgi-timeout worker TARGET")
    for name in sorted({worker.name for worker in workers}):
        of_name = [worker for worker in workers if worker.name == name]
        targets = {worker.target for worker in of_name}
        wires = {worker.wire for worker in of_name} - {""}
        what = f"{len(of_name)} of {name}, target {', '.join(sorted(targets))}"
        if len(targets) > 1:
            yield Finding("workers", "fail", f"{what}: not one app", "give each app a --name of its own")
        elif wires - {str(WIRE_VERSION)}:
            what += f": wire version {', '.join(sorted(wires))}, here {WIRE_VERSION}"
            yield Finding(
                "workers", "warn", what, "finish the upgrade: one version of wsgi-timeout everywhere"
            )
        else:
            yield Finding("workers", "ok", what)


def _public(public_url: str) -> Finding:
    parts = urlsplit(public_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(parts.netloc, timeout=10)) as connection:
            connection.request("GET", parts.path.rstrip("/") + READY)
            response = connection.getresponse()
            body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Finding("public URL", "fail", f"{public_url} does not answer: {error}", "look at the proxy")
    if response.status != http.client.OK or body != b"ok\n":
        what = f"{public_url}{READY} answers {response.status}, not our web process"
        return Finding(
            "public URL", "fail", what, "have the proxy pass this path on, and use our worker class"
        )
    return Finding("public URL", "ok", f"{public_url} leads to a ready web process")


def exit_code(findings: list[Finding]) -> int:
    """Return 1 if something fails, else 0."""
    return int(any(finding.verdict == "fail" for finding in findings))
