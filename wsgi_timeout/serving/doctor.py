"""`wsgi-timeout doctor`: finds what is wrong with a deployment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving import doctor_processes, doctor_redis, doctor_rights
from wsgi_timeout.serving.doctor_proxy import Proxy
from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.settings import SECRET_VARIABLE, Settings, check_secret_length
from wsgi_timeout.store.redis_errors import ANY

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
    "VCAP_APPLICATION": ("Cloud Foundry", 900),
}

_CHECKS = (
    doctor_redis.server,
    doctor_redis.memory,
    doctor_redis.persistence,
    doctor_redis.durability,
    doctor_rights.rights,
    doctor_redis.clock,
    doctor_processes.workers,
    doctor_processes.web,
)


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
        check_secret_length()
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), "correct the environment")
        settings = Settings()
    else:
        yield Finding("settings", "ok", "those of this environment can be read")
    yield _wait(settings, environment)
    yield _secret(environment)
    try:
        client.ping()
    except ANY as error:
        yield Finding("redis", "fail", f"does not answer: {error}", "start it, or correct REDIS_URL")
        return
    for check in _CHECKS:
        yield from _guarded(check, client, settings)
    if public_url:
        yield from Proxy(client, public_url).examine(probe_seconds)


def _guarded(
    check: Callable[[Any, Settings], Iterator[Finding]], client: redis.Redis, settings: Settings
) -> Iterator[Finding]:
    try:
        yield from check(client, settings)
    except ANY as error:
        command = re.search(r"run the '([^']+)' command", str(error))
        remedy = f"give this user +{command[1]}" if command else "give this user the right"
        yield Finding(check.__name__, "warn", f"cannot be looked at: {error}", remedy)


def _wait(settings: Settings, environment: Mapping[str, str]) -> Finding:
    wait = settings.wait_seconds
    for variable, (platform, limit) in PLATFORMS.items():
        if variable in environment and wait >= limit:
            remedy = f"set WSGI_TIMEOUT_WAIT_SECONDS={limit - 5}"
            return Finding("wait", "fail", f"{platform} cuts after {limit} s, a wait has {wait:g} s", remedy)
    return Finding("wait", "ok", f"{wait:g} s; what proxies allow is measured by --public-url")


def _secret(environment: Mapping[str, str]) -> Finding:
    if environment.get(SECRET_VARIABLE):
        return Finding("secret", "ok", f"{SECRET_VARIABLE} is set")
    remedy = "set one in every process, as from `openssl rand -hex 32`"
    return Finding("secret", "warn", f"{SECRET_VARIABLE} is not set here", remedy)


def exit_code(findings: list[Finding]) -> int:
    """Return 1 if something fails, else 0."""
    return int(any(finding.verdict == "fail" for finding in findings))
