"""OpenTelemetry spans of the web half, where that is set up in this process; nothing where it is not.

One trace holds a first request, its hops and the handler: the request's span is the parent that the worker's
instrumentation finds in the captured environ (`traceparent`), and the call's record keeps it for the hops.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

#: Where a request's environ has its span.
_KEY = "wsgi_timeout.span"
_HEADER = "traceparent"


class _RequestSpan:
    """The span of one request; it begins when the request does, though its parent may be known later."""

    def __init__(self, environ: Mapping[str, Any], hop: int) -> None:
        self._environ = environ
        self._hop = hop
        self._began = time.time_ns()
        self._span: Any = None
        self._status = 0

    def start(self, call: str = "") -> None:
        """Start it, in the trace of a call (`call`, a traceparent), of the caller, or in a new one."""
        if self._span is not None:
            return
        from opentelemetry import propagate, trace  # noqa: PLC0415 - only where it is loaded
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        around = trace.get_current_span().get_span_context()
        if call:
            parent = tracecontext.TraceContextTextMapPropagator().extract({_HEADER: call})
        elif around.is_valid:
            parent = None
        else:
            parent = propagate.extract(_headers(self._environ))
        method = self._environ["REQUEST_METHOD"]
        self._span = trace.get_tracer("wsgi_timeout").start_span(
            f"{method} (hop {self._hop})" if self._hop else method,
            parent,
            trace.SpanKind.INTERNAL if around.is_valid else trace.SpanKind.SERVER,
            {"http.request.method": method, "url.path": _path(self._environ)},
            [trace.Link(around)] if call and around.is_valid else None,
            self._began,
        )

    def headers(self) -> dict[str, str]:
        """Return what leads to this span as the parent, as headers of an environ."""
        from opentelemetry import propagate, trace  # noqa: PLC0415

        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(self._span))
        return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in carrier.items()}

    def traceparent(self) -> str:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        carrier: dict[str, str] = {}
        context = trace.set_span_in_context(self._span)
        tracecontext.TraceContextTextMapPropagator().inject(carrier, context)
        return carrier.get(_HEADER, "")

    def told(self, start_response: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `start_response` that notes the status."""

        def noting(status: str, *words: Any) -> Any:
            self._status = int(status[:3])
            return start_response(status, *words)

        return noting

    def end(self) -> None:
        self.start()  # of a hop whose call is unknown
        if self._status:
            self._span.set_attribute("http.response.status_code", self._status)
        self._span.end()


def request(
    environ: dict[str, Any], start_response: Callable[..., Any], *, hop: int
) -> AbstractContextManager[Callable[..., Any]]:
    """Have a span for a request, if OpenTelemetry is set up in this process; gives a `start_response`.

    `hop`: 0 for a first request, whose environ is given the span's headers; one on a result URL, whose
    span waits for `in_trace_of`.
    """
    return _spanned(environ, start_response, hop) if _is_set_up() else nullcontext(start_response)


def _is_set_up() -> bool:
    # redis-py loads the API wherever it is installed: without a provider of tracers its spans go nowhere.
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _spanned(
    environ: dict[str, Any], start_response: Callable[..., Any], hop: int
) -> Iterator[Callable[..., Any]]:
    span = environ[_KEY] = _RequestSpan(environ, hop)
    if not hop:
        span.start()
        environ.update(span.headers())
    try:
        yield span.told(start_response)
    finally:
        span.end()


def traceparent(environ: Mapping[str, Any]) -> str:
    """Return what the record of this request's call keeps; empty without a span."""
    span = environ.get(_KEY)
    return span.traceparent() if span else ""


def in_trace_of(environ: Mapping[str, Any], call: str) -> None:
    """Have a hop's span lie in the trace of its call; `call`: what `traceparent` gave."""
    if span := environ.get(_KEY):
        span.start(call)


def flush() -> None:
    """Have a process that ends send its spans: `atexit` functions of before a fork do not run."""
    if trace := sys.modules.get("opentelemetry.trace"):
        provider = trace.get_tracer_provider()
        if hasattr(provider, "force_flush"):
            provider.force_flush(5000)
    if datadog := sys.modules.get("ddtrace.trace"):
        datadog.tracer.flush()


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    return {
        key[5:].lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    }


def _path(environ: Mapping[str, Any]) -> str:
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
