"""Runs an ASGI app for WSGI requests: one event loop per process, in a thread of its own.

ASGI 3.0, HTTP and lifespan. The handler's thread reads the request body when the app asks for it, and
yields each body message before the app goes on after its `send`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from wsgi_timeout.http.urls import raw_path
from wsgi_timeout_jobs.apps.lifespan import AsgiApp, Lifespan, Message

log = logging.getLogger("wsgi_timeout.worker")

_READ = 64 * 1024
#: Seconds in which a cancelled request must end.
_PATIENCE_SECONDS = 10.0


class AsgiBridge:
    """Runs an ASGI app for WSGI requests, many side by side."""

    def __init__(self, app: AsgiApp) -> None:
        """Start the loop and the app's lifespan; raises `ConfigurationError` if its startup fails."""
        self._app = app
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="wsgi-timeout-asgi", daemon=True).start()
        #: The tasks of requests; tasks that the app creates by itself are not in it.
        self._requests: set[asyncio.Task[Any]] = set()
        self._lifespan = Lifespan(app, self._loop)
        self._lifespan.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Cancel the requests that still run, since nobody waits for them; end the app's lifespan."""
        ended = asyncio.run_coroutine_threadsafe(self._cancel_requests(), self._loop)
        with suppress(TimeoutError):
            ended.result(_PATIENCE_SECONDS)
        self._lifespan.stop()

    async def _cancel_requests(self) -> None:
        left = tuple(self._requests)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scope = _scope(environ, self._lifespan.state)
        return _Exchange(self._app, self._loop, self._requests, scope, environ, start_response)


class _Exchange:
    """One request: the WSGI side is iterated over, the ASGI side runs as a task in the loop."""

    def __init__(
        self,
        app: AsgiApp,
        loop: asyncio.AbstractEventLoop,
        requests: set[asyncio.Task[Any]],
        scope: Message,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> None:
        self._loop = loop
        self._requests = requests
        self._input = environ["wsgi.input"]
        self._start_response = start_response
        self._events: queue.SimpleQueue[tuple[str, Any, asyncio.Future[Any] | None]] = queue.SimpleQueue()
        self._body_ended = not _has_body(environ)
        self._request_told = False
        self._complete = False
        #: The app has returned or raised.
        self._ended = False
        #: The future that the app awaits while its body message is sent.
        self._sending: asyncio.Future[Any] | None = None
        self._gone = asyncio.Event()
        #: The app's task; None once closed, since it keeps alive what the app has left open.
        self._task: Future[None] | None = asyncio.run_coroutine_threadsafe(self._run(app, scope), loop)

    # -- in the loop

    async def _run(self, app: AsgiApp, scope: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        # A cancelled task refers to its frames: without this a reference cycle keeps their objects alive.
        del task
        try:
            await app(scope, self._receive, self._send)
        except BaseException as error:
            self._events.put(("raised", error, None))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._events.put(("returned", None, None))

    async def _receive(self) -> Message:
        if self._request_told and self._body_ended:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        body = b"" if self._body_ended else await self._ask("read", None)
        self._request_told = True
        if not body:
            self._body_ended = True
        return {"type": "http.request", "body": body, "more_body": not self._body_ended}

    async def _send(self, message: Message) -> None:
        if self._complete:
            return
        await self._ask(message["type"], message)

    async def _ask(self, kind: str, message: Any) -> Any:
        done: asyncio.Future[Any] = self._loop.create_future()
        self._events.put((kind, message, done))
        return await done

    # -- in the handler's thread

    def __iter__(self) -> Iterator[bytes]:
        started = False
        while not self._complete:
            kind, message, done = self._next(None)
            if kind == "read":
                self._answer_read(done)
            elif kind == "http.response.start":
                started = True
                self._start_response(_status(message["status"]), _headers(message.get("headers", ())))
                self._answer(done, None)
            elif kind == "http.response.body":
                self._complete = not message.get("more_body", False)
                self._sending = done
                yield bytes(message.get("body", b""))
                self._answer(done, None)
            elif kind == "raised":
                raise message
            elif kind == "returned":
                what = "before its response was complete" if started else "without a response"
                raise RuntimeError(f"the ASGI app returned {what}")
            else:
                self._answer(done, None)  # a message of an extension that the scope did not offer

    def close(self) -> None:
        """Let background tasks end after a complete response; cancel an incomplete one."""
        self._loop.call_soon_threadsafe(self._gone.set)
        self._answer(self._sending, None)
        try:
            if self._complete:
                self._let_end(None)
        finally:
            # The handler was interrupted: cancel the app's task.
            task, self._task = self._task, None
            if task:
                task.cancel()
            del task
            try:
                self._let_end(_PATIENCE_SECONDS)
            except queue.Empty:
                log.error("the ASGI app goes on %g s after it was cancelled", _PATIENCE_SECONDS)

    def _let_end(self, seconds: float | None) -> None:
        while not self._ended:
            kind, message, done = self._next(seconds)
            if kind == "raised" and not isinstance(message, asyncio.CancelledError):
                when = "after its response" if self._complete else "when it was cancelled"
                log.error("the ASGI app raised %s", when, exc_info=message)
            self._answer(done, b"" if kind == "read" else None)

    def _next(self, seconds: float | None) -> tuple[str, Any, asyncio.Future[Any] | None]:
        event = self._events.get(timeout=seconds)
        self._ended = event[0] in {"raised", "returned"}
        return event

    def _answer_read(self, done: asyncio.Future[Any] | None) -> None:
        try:
            body = self._input.read1(_READ) if hasattr(self._input, "read1") else self._input.read(_READ)
        except Exception as error:  # noqa: BLE001 - a broken upload is the app's to see
            self._fail(done, error)
        else:
            self._answer(done, body)

    def _answer(self, done: asyncio.Future[Any] | None, value: Any) -> None:
        if done is not None:
            self._loop.call_soon_threadsafe(_set_result, done, value)

    def _fail(self, done: asyncio.Future[Any] | None, error: Exception) -> None:
        if done is not None:
            self._loop.call_soon_threadsafe(_set_exception, done, error)


def _scope(environ: dict[str, Any], state: dict[str, Any]) -> Message:
    root_path = environ.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace")
    raw = raw_path(environ)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2] or "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        # The whole path, including root_path, as ASGI 3.0 says.
        "path": unquote_to_bytes(raw.encode("latin-1")).decode("utf-8", "replace"),
        "raw_path": raw.encode("latin-1"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": root_path,
        "headers": _request_headers(environ),
        "client": _address(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")),
        "server": _address(environ.get("SERVER_NAME"), environ.get("SERVER_PORT")),
        "state": state.copy(),
        "extensions": {"wsgi_timeout": {"call": environ.get("wsgi_timeout.call")}},
    }


def _request_headers(environ: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    headers = []
    for key, value in environ.items():
        name = key.removeprefix("HTTP_")
        if key.startswith("HTTP_") or (key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value):
            headers.append((name.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")))
    return headers


def _has_body(environ: dict[str, Any]) -> bool:
    # Without a length there may be a body too, from a chunked request.
    return bool(environ.get("CONTENT_LENGTH", "1") != "0")


def _address(host: str | None, port: str | None) -> tuple[str, int] | None:
    return (host, int(port or 0)) if host else None


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} "


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in headers]


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
