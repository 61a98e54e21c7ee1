"""Counts for Prometheus, if metrics are on in this process; if not, nothing is imported or counted.

`FAMILIES` has one row for each metric; docs/reference/metrics.md, the dashboard and the alert rules are
checked against it. Labels take few values: a route is the pattern that captured a request, never its path.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from wsgi_timeout.errors import ConfigurationError

#: The environ key, in web processes and workers, of the pattern by which a request was captured.
ROUTE_KEY = "wsgi_timeout.route"
#: The route of a call that was ended from outside its handler.
UNKNOWN_ROUTE = "unknown"
#: prometheus-client's variable: the folder in which the processes of one site keep their metrics.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: Seconds.
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_HOPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
#: How many routes one process tells apart: a program may have a thousand functions.
MOST_ROUTES = 100


class Family(NamedTuple):
    """One metric."""

    name: str
    #: counter, gauge, histogram; `redis`: a gauge that is asked of Redis at each scrape.
    kind: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


_CALL = ("name", "route")
FAMILIES = {
    family.name: family
    for family in (
        Family("wsgi_timeout_requests_total", "counter", (*_CALL, "code"), "Requests answered, hops too."),
        Family("wsgi_timeout_refused_total", "counter", ("name", "reason"), "Requests answered by an error."),
        Family("wsgi_timeout_hops", "histogram", _CALL, "Redirects before a delivered response.", _HOPS),
        Family("wsgi_timeout_waiting_requests", "gauge", ("name",), "Requests that wait for a call now."),
        Family("wsgi_timeout_waiting_requests_max", "gauge", ("name",), "How many may: max_waiting."),
        Family(
            "wsgi_timeout_accept_seconds", "histogram", _CALL, "Seconds until Redis accepted a call.", _SHORT
        ),
        Family("wsgi_timeout_calls_total", "counter", (*_CALL, "outcome"), "Calls that have ended."),
        Family("wsgi_timeout_attempts_total", "counter", (*_CALL, "kind"), "Runs: first, or again."),
        Family("wsgi_timeout_queue_seconds", "histogram", _CALL, "Seconds before the first run.", _LONG),
        Family("wsgi_timeout_run_seconds", "histogram", _CALL, "Seconds of a run.", _LONG),
        Family(
            "wsgi_timeout_record_seconds", "histogram", _CALL, "Seconds until an outcome was stored.", _SHORT
        ),
        Family("wsgi_timeout_interrupts_total", "counter", ("name", "reason"), "Handlers interrupted."),
        Family("wsgi_timeout_lost_leases_total", "counter", ("name",), "Workers given up as silent."),
        Family("wsgi_timeout_recovered_calls_total", "counter", ("name", "result"), "Dead workers' calls."),
        Family("wsgi_timeout_redis_up", "redis", (), "1 while Redis answers a scrape."),
        Family("wsgi_timeout_queued_calls", "redis", ("name",), "Calls that wait for a worker."),
        Family("wsgi_timeout_queue_head_age_seconds", "redis", ("name",), "How long the first has waited."),
        Family("wsgi_timeout_running_calls", "redis", ("name",), "Calls that run."),
        Family("wsgi_timeout_delayed_calls", "redis", ("name",), "Calls that wait for a retry."),
        Family("wsgi_timeout_workers", "redis", ("name",), "Live worker processes."),
        Family("wsgi_timeout_buffered_bytes", "redis", ("name",), "Bytes of requests and results in Redis."),
        Family("wsgi_timeout_buffered_bytes_max", "redis", ("name",), "Their budget: max_buffered_bytes."),
        Family("wsgi_timeout_redis_memory_bytes", "redis", (), "Memory that Redis uses."),
        Family("wsgi_timeout_redis_memory_max_bytes", "redis", (), "Its maxmemory; 0: none."),
    )
}


class _Counting:
    """The counters of this process; empty while metrics are off."""

    families: dict[str, Any] = {}  # noqa: RUF012 - the process's own
    #: prometheus-client's registry for a process that counts for itself alone.
    registry: Any = None
    #: The routes that were counted.
    routes: set[str] = set()  # noqa: RUF012 - the process's own


def start() -> None:
    """Count from now on, in the folder of `FOLDER_VARIABLE` if that is set, else for this process alone.

    Raises `ConfigurationError` if prometheus-client is not installed.
    """
    try:
        import prometheus_client  # noqa: PLC0415 - optional
    except ImportError:
        raise ConfigurationError(
            "metrics need prometheus-client: pip install prometheus-client, or unset "
            "WSGI_TIMEOUT_METRICS_PATH and leave --metrics-port out"
        ) from None
    if _Counting.families:
        return
    registry = _Counting.registry = prometheus_client.CollectorRegistry()
    for family in FAMILIES.values():
        given = (family.name, family.meaning, family.labels)
        if family.kind == "counter":
            _Counting.families[family.name] = prometheus_client.Counter(*given, registry=registry)
        elif family.kind == "gauge":
            _Counting.families[family.name] = prometheus_client.Gauge(
                *given, registry=registry, multiprocess_mode="livesum"
            )
        elif family.kind == "histogram":
            _Counting.families[family.name] = prometheus_client.Histogram(
                *given, buckets=family.buckets, registry=registry
            )


def on() -> bool:
    """Return whether metrics are on in this process."""
    return bool(_Counting.families)


def registry() -> Any:
    """Return the registry of this process alone; None: metrics are off."""
    return _Counting.registry


def folder() -> str:
    """Return the folder that the processes of this site share; empty: each counts for itself."""
    return os.environ.get(FOLDER_VARIABLE, "")


def count(metric: str, *labels: str, by: int = 1) -> None:
    """Raise a counter, or change a gauge; `labels` in the order of `FAMILIES`."""
    if _Counting.families:
        found = _Counting.families[f"wsgi_timeout_{metric}"]
        (found.labels(*_bounded(metric, labels)) if labels else found).inc(by)


def observe(metric: str, value: float, *labels: str) -> None:
    """Add one value to a histogram."""
    if _Counting.families:
        bounded = _bounded(metric, labels)
        _Counting.families[f"wsgi_timeout_{metric}"].labels(*bounded).observe(max(0.0, value))


def _bounded(metric: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return labels whose route is one of the first that this process has counted, else `*`."""
    if FAMILIES[f"wsgi_timeout_{metric}"].labels[:2] != _CALL or labels[1] in _Counting.routes:
        return labels
    if len(_Counting.routes) < MOST_ROUTES:
        _Counting.routes.add(labels[1])
        return labels
    return (labels[0], "*", *labels[2:])
