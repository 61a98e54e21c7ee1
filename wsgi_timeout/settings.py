"""All settings: one frozen value, read from keyword arguments, Flask's config or the environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsgi_timeout.compat import Self
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.setting_kinds import (
    are_addresses,
    are_origins,
    check,
    check_environment,
    is_base_url,
    is_header_list,
    number,
    parse,
    text,
)

ENV_PREFIX = "WSGI_TIMEOUT_"
#: Threads of a web process beyond `max_waiting`, for requests that do not wait: 503s, fast routes, status.
RESERVE_THREADS = 16
#: Environment variables of ours that are not settings.
BIND_VARIABLE = "WSGI_TIMEOUT_BIND"
LOG_LEVEL_VARIABLE = "WSGI_TIMEOUT_LOG_LEVEL"
NAME_VARIABLE = "WSGI_TIMEOUT_NAME"
SECRET_VARIABLE = "WSGI_TIMEOUT_SECRET"  # noqa: S105 - its name
TARGET_VARIABLE = "WSGI_TIMEOUT_TARGET"
PYTHON_VARIABLE = "WSGI_TIMEOUT_PYTHON"
_OTHER_VARIABLES = frozenset(
    {BIND_VARIABLE, LOG_LEVEL_VARIABLE, NAME_VARIABLE, PYTHON_VARIABLE, SECRET_VARIABLE, TARGET_VARIABLE}
)

_KIB, _MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How calls are waited for, run and kept.

    Every field can be given as a keyword argument, as `WSGI_TIMEOUT_<FIELD>` in Flask's config, or
    as an environment variable of that name; `Settings.load` reads them. Sources of the defaults:
    `wait_seconds` is what Modal's web endpoints wait; the others were chosen, see `docs/decisions.md`.

    Raises `ConfigurationError` for a value of another type or out of its range.
    """

    wait_seconds: float = number(
        150.0, "s", "how long one HTTP request blocks before it is redirected", least=0.01
    )
    timeout: float = number(3600.0, "s", "how long a handler may run", least=0.01)
    page_after: float = number(
        5.0, "s", "after how long a person's browser is shown the waiting page, if `waiting_page` is `auto`"
    )
    waiting_page: str = text(
        "auto",
        "",
        "what a person's browser gets: `auto`, a page after `page_after`; `at-once`; `never`, redirects",
        {"auto", "at-once", "never"}.__contains__,
        "auto, at-once or never",
    )
    templates: str = text(
        "",
        "folder",
        "templates, texts and a stylesheet of yours for the pages that people see",
        lambda _text: True,
        "a folder",
    )
    wait_for_response: bool = number(default=True, unit="", meaning="`false`: answer 202 at once")
    durability: str = text(
        "server",
        "",
        "`fsync`: a call is accepted, begun and ended only when that is on Redis' disk (Redis 7.2, Valkey)",
        {"server", "fsync"}.__contains__,
        "server or fsync",
    )
    max_attempts: int = number(
        2, "", "runs of one call when workers die under it; 1 forbids a second", least=1
    )
    max_waiting: int = number(200, "requests", "requests that may wait in one web process", least=1)
    max_queued: int = number(10_000, "calls", "calls that may wait for a worker", least=1)
    max_request_body: int = number(10 * 1024 * _MIB, "bytes", "larger request bodies get 413")
    upload_timeout: float = number(
        60.0, "s", "how long a client may pause within its request body", least=0.01
    )
    min_upload_rate: int = number(
        500, "bytes/s", "a client that sends its body more slowly than this uses up `upload_timeout`", least=1
    )
    head_timeout: float = number(
        10.0, "s", "how long a client may take for the head of its request (our worker classes)", least=0.1
    )
    inline_body: int = number(64 * _KIB, "bytes", "bodies up to this travel with the call, without a stream")
    buffer: int = number(16 * _MIB, "bytes", "how much of one body lies in Redis while it is read", least=1)
    max_result: int = number(
        256 * _MIB, "bytes", "how far a response may grow that nobody reads yet", least=1
    )
    max_response_file: int = number(
        0, "bytes", "how much of a response the web process keeps in a file for a slow client; 0: nothing"
    )
    max_spooled_body: int = number(
        64 * _MIB, "bytes", "how much of a request body lies in Redis before its call begins", least=1
    )
    max_request_file: int = number(
        0, "bytes", "how much more of a request body the web process takes into a file before its call begins"
    )
    unread_timeout: float = number(
        600.0,
        "s",
        "how long a full response waits for a reader, and a client may take nothing of its response",
        least=0.01,
    )
    result_ttl: float = number(86_400.0, "s", "how long an unread result is kept", least=1)
    queue_ttl: float = number(86_400.0, "s", "how long a call may wait for a worker", least=1)
    max_buffered_bytes: int = number(
        4096 * _MIB, "bytes", "what all requests and results of one name may take in Redis, then 503", least=1
    )
    max_spawned: int = number(1_000_000, "calls", "function calls that may wait for a worker", least=1)
    max_payload: int = number(
        100 * _MIB, "bytes", "how large a function's arguments, or its result, may be", least=1
    )
    function_result_ttl: float = number(604_800.0, "s", "how long a function's result is kept", least=1)
    retry_backoff: float = number(
        1.0, "s", "pause before a function's first retry; doubled for each further one, up to 60 s", least=0
    )
    reader_timeout: float = number(
        8.0, "s", "how long an event stream, or lines of JSON, goes on after its reader has left", least=0.1
    )
    abandon_after: float = number(
        0.0,
        "s",
        "how long a handler goes on while nobody waits for it or asks for its status; 0: to its end",
    )
    event_streams: str = text(
        "plain",
        "",
        "`resumable`: event streams and lines of JSON go on in the same run after a lost connection",
        {"plain", "resumable"}.__contains__,
        "plain or resumable",
    )
    keepalive_seconds: float = number(
        15.0, "s", "how long a resumable event stream is silent before a comment is sent", least=0.1
    )
    resume_window: float = number(
        60.0, "s", "how long a resumable stream waits for its client, and keeps what it has read", least=0.1
    )
    delivery_grace: float = number(60.0, "s", "how long a delivered result can be had again", least=0)
    worker_wait: float = number(5.0, "s", "how long a request waits for a first worker to appear", least=0)
    lease_seconds: float = number(
        10.0, "s", "how long a worker may be silent before its calls are recovered", least=0.1
    )
    interrupt_grace: float = number(
        10.0,
        "s",
        "how long a handler may go on after a timeout or cancel, before its process is killed",
        least=0.1,
    )
    drain_delay: float = number(
        0.0,
        "s",
        "how long a web process that is told to stop goes on, with its ready URL at 503 (our worker classes)",
    )
    embedded_memory: int = number(
        0, "bytes", "`maxmemory` of `serve`'s embedded server; 0: a quarter of the machine's, or container's"
    )
    prefer: bool = number(
        default=False,
        unit="",
        meaning="`true`: follow `Prefer: respond-async` and `wait=N` (RFC 7240)",
    )
    idempotency_headers: str = text(
        "",
        "headers",
        "headers that may hold an idempotency key, as `Idempotency-Key`: a repeat joins the first call",
        is_header_list,
        "names of headers, with commas between them",
    )
    redirect_status: int = number(
        303,
        "",
        "status of the redirect to a result URL; 307 for clients that may not change POST into GET, "
        "and send the body again, which is dropped",
        one_of=(303, 307),
    )
    cors_origins: str = text(
        "",
        "origins",
        "origins whose pages may read our redirects and errors, and send preflights to our URLs; "
        "`*` for all, without cookies",
        are_origins,
        "origins as https://app.example.com, or *, with commas between them",
    )
    public_url: str = text(
        "",
        "URL",
        "scheme and host put before `result_url` in JSON answers",
        is_base_url,
        "a scheme and a host, as in https://example.com",
    )
    slow_queue_seconds: float = number(
        60.0, "s", "a call that waits longer for a worker is warned of, with what all workers do", least=0.1
    )
    log_format: str = text(
        "text",
        "",
        "`json`: an object a line in the logs of web processes and workers (environment only)",
        {"text", "json"}.__contains__,
        "text or json",
    )
    metrics_path: str = text(
        "",
        "path",
        "where web processes answer Prometheus, as `/__wsgi_timeout/metrics` (environment only, our worker "
        "classes)",
        lambda given: given.startswith("/"),
        "a path that begins with /",
    )
    trusted_proxies: str = text(
        "127.0.0.1,::1",
        "addresses",
        "peers whose `X-Forwarded-Prefix` is believed; `*` for all",
        are_addresses,
        "IP addresses, or *, with commas between them",
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            check(spec, getattr(self, spec.name))

    @property
    def durable(self) -> bool:
        """Whether calls are to be on disk before anybody relies on them."""
        return self.durability == "fsync"

    @classmethod
    def load(cls, config: Mapping[str, Any] | None = None, /, **given: Any) -> Self:
        """Read the settings: keyword arguments first, then Flask's `config`, then the environment.

        Args:
            config: Flask's `app.config`, or any mapping with `WSGI_TIMEOUT_...` keys.
            given: settings by the names of the fields; None stands for "not given".

        Returns:
            The settings; what is given nowhere has its default.

        Raises:
            ConfigurationError: an unknown keyword or environment variable of ours, or a bad value.
        """
        names = {spec.name: spec for spec in dataclasses.fields(cls)}
        check_environment({ENV_PREFIX + name.upper() for name in names} | _OTHER_VARIABLES, ENV_PREFIX)
        for name in given:
            if name not in names:
                raise ConfigurationError(f"unknown setting {name!r}: use one of {', '.join(names)}")
        values: dict[str, Any] = {}
        for name, spec in names.items():
            key = ENV_PREFIX + name.upper()
            for source in (config or {}, os.environ):
                if key in source:
                    values[name] = parse(key, str(spec.type), source[key])
                    break
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed.

        Args:
            changes: settings by the names of the fields.

        Raises:
            ConfigurationError: a bad value.
        """
        return dataclasses.replace(self, **changes)


def _described(spec: dataclasses.Field[Any]) -> str:
    facts = ", ".join(filter(None, (str(spec.type), spec.metadata["unit"], f"default {spec.default!r}")))
    return f"    {spec.name} ({facts}): {spec.metadata['meaning']}"


# The fields, for `help(Settings)`.
Settings.__doc__ = "\n".join(
    [(Settings.__doc__ or "").rstrip(), "", "    Fields:", *map(_described, dataclasses.fields(Settings))]
)


def environment_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as environment variables, for a child process."""
    return {ENV_PREFIX + name.upper(): str(value) for name, value in settings.items() if value is not None}
