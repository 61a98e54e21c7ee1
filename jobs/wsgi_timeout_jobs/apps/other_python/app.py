"""A WSGI app of this process that passes its requests to the app process."""

from __future__ import annotations

import logging
import marshal
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from wsgi_timeout.current import ENVIRON_KEY, RunningCall
from wsgi_timeout.errors import CallInterrupted, UploadBroken, WsgiTimeoutError
from wsgi_timeout_jobs.apps.other_python.frames import unpack
from wsgi_timeout_jobs.apps.other_python.process import AppProcess, Connection
from wsgi_timeout_jobs.process import interrupts

log = logging.getLogger("wsgi_timeout.worker")

StartResponse = Callable[..., Callable[[bytes], None]]
_REPORT_BYTES = 8192
#: Frames after which the app sends no more chunks.
_ENDS = {b"E", b"L", b"A"}


class AppRaised(WsgiTimeoutError):
    """An exception that the app raised in its process; the message is its traceback."""


class OtherPythonApp:
    """A WSGI app that runs in the app process; bodies are passed on in both directions as they come."""

    def __init__(self, process: AppProcess) -> None:
        self._process = process
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for connection in process.connections:
            self._free.put(connection)
        self._running: dict[tuple[str, int], RunningCall] = {}
        threading.Thread(target=self._hear_reports, name="wsgi-timeout-progress", daemon=True).start()

    @property
    def own_front(self) -> tuple[str, bool] | None:
        """The name of the app's own `RequestTimeouts`, and whether it is configured; None: it has none."""
        return self._process.own_front

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Any:
        """Run one request."""
        return self._run(environ, start_response, inner=False)

    def inner(self, environ: dict[str, Any], start_response: StartResponse) -> Any:
        """Run one request by the `wsgi_app` that the app's own `RequestTimeouts` has replaced."""
        return self._run(environ, start_response, inner=True)

    def _run(self, environ: dict[str, Any], start_response: StartResponse, *, inner: bool) -> Any:
        call: RunningCall = environ[ENVIRON_KEY]
        exchange = _Exchange(call, self._free.get(), start_response, environ["wsgi.input"], self._over)
        self._running[call.id, call.attempt] = call
        try:
            return exchange.begin(environ, inner=inner)
        except BaseException:
            try:
                exchange.close()
            except AppRaised:
                log.exception("%s: close() of the response raised", call.id)
            raise

    def _over(self, call: RunningCall, connection: Connection) -> None:
        self._running.pop((call.id, call.attempt), None)
        self._free.put(connection)

    def _hear_reports(self) -> None:
        # Over a socket of their own: any thread may report, and processes that the app has forked too.
        while report := self._process.reports.recv(_REPORT_BYTES):
            call_id, attempt, done, total, message = (
                part.decode("utf-8", "replace") for part in unpack(report)
            )
            if (call := self._running.get((call_id, int(attempt)))) and done:
                call.report({"done": _number(done), "total": _number(total), "message": message})


class _List(list[bytes]):
    """All chunks of a short response, as a list, so that its end is known."""

    def __init__(self, chunks: list[bytes], close: Callable[[], None]) -> None:
        super().__init__(chunks)
        self.close = close


class _Exchange:
    """One request, from its environ to the end of `close()`; iterating over it yields the app's chunks.

    An interrupt must not cut a frame off. While this process waits for the app process, interrupts are passed
    on to that, and come back as an exception of the app.
    """

    def __init__(
        self,
        call: RunningCall,
        connection: Connection,
        start_response: StartResponse,
        body: Any,
        over: Callable[[RunningCall, Connection], None],
    ) -> None:
        self._call = call
        self._over = over
        self.connection = connection
        self._start_response = start_response
        self._body = body
        self._write: Callable[[bytes], None]
        self._first: tuple[bytes, bytes]
        self._interrupts = interrupts.installed()
        #: Why the app was interrupted; empty if it was not.
        self._interruption = ""
        #: The app sends no more chunks.
        self._ended = False
        #: The app process is to close the iterable, at our command, or by itself where the body is whole.
        self._closable = True
        #: The app process has sent all that Content-Length announces at once, and waits for no command.
        self._whole = False
        self._closed = False

    def begin(self, environ: dict[str, Any], *, inner: bool) -> _Exchange | _List:
        """Send the request; return when the app has returned, and has begun its response."""
        self._pass_interrupts_on()
        self._send_call(environ, inner=inner)
        while (found := self._next())[0] == b"W":  # the app called write()
            self._take_interrupts()
            self._write(found[1])
            self._pass_interrupts_on()
        self._take_interrupts()
        self._first = found
        return _List(unpack(found[1])[1:], self.close) if found[0] == b"L" else self

    def __iter__(self) -> Iterator[bytes]:
        found = self._first
        while found[0] != b"E":
            yield found[1]
            self._pass_interrupts_on()
            found = self._next()
            self._take_interrupts()

    def close(self) -> None:
        """Have the app process close the app's iterable; raise what that raised."""
        if self._closed:
            return
        self._closed = True
        self._pass_interrupts_on()
        try:
            if not self._ended or self._closable:
                self._end_it()
        finally:
            self._over(self._call, self.connection)
            self._take_interrupts()

    def _end_it(self) -> None:
        if not self._whole:
            # The interrupt is sent before the X; after it, it could hit the app's `close()`.
            if not self._ended:
                self.connection.process.interrupt()
            self.connection.send(b"X")
        while not self._ended or self._closable:
            kind, payload = self._receive()
            if kind == b"Z":
                if parts := unpack(payload):
                    self._raise(parts)
                return

    def _send_call(self, environ: dict[str, Any], *, inner: bool) -> None:
        small = self._body.getvalue() if hasattr(self._body, "getvalue") else None
        texts = {key: value for key, value in environ.items() if type(value) is str}
        call = (self._call.id, self._call.attempt, small, texts)
        self.connection.send(b"C", marshal.dumps((inner, call), 2))

    def _next(self) -> tuple[bytes, bytes]:
        """Return the next frame about the response; an exception of the app is raised here."""
        while True:
            kind, payload = self._receive()
            if kind == b"H":
                self._start(payload)
            elif kind == b"K":
                self._whole = True
                body = 4 + int.from_bytes(payload[:4], "big")
                self._start(payload[4:body])
                return b"D", payload[body:]
            elif kind == b"N":
                self._send_body(int.from_bytes(payload, "big"))
            elif kind == b"A":
                self._take_interrupts()
                self._raise(unpack(payload))
            else:
                return kind, payload

    def _start(self, head: bytes) -> None:
        status, *headers = head.decode("latin-1").split("\n")
        self._write = self._start_response(status, list(zip(headers[::2], headers[1::2], strict=True)))

    def _send_body(self, size: int) -> None:
        self._take_interrupts()
        try:
            kind, piece = b"I", self._body.read1(size)
        except UploadBroken as error:
            kind, piece = b"B", str(error).encode()
        self._pass_interrupts_on()
        self.connection.send(kind, piece)

    def _receive(self) -> tuple[bytes, bytes]:
        kind, payload = self.connection.receive()
        if kind in _ENDS:
            self._ended = True
            self._closable = payload == b"1" if kind == b"E" else bool(unpack(payload)[0])
        return kind, payload

    def _raise(self, parts: list[bytes]) -> NoReturn:
        _, interrupted, _, _, traceback = (part.decode("utf-8", "replace") for part in parts)
        raised = AppRaised(f"\n{traceback}")
        if interrupted and self._interruption:
            raise CallInterrupted(self._interruption) from raised  # for the log: where it stood
        raise raised

    def _pass_interrupts_on(self) -> None:
        """From now on pass interrupts on to the app process."""
        if self._interrupts:
            self._interrupts.pass_to = self._pass_on

    def _take_interrupts(self) -> None:
        """From now on interrupts are raised in this process."""
        if self._interrupts:
            self._interrupts.pass_to = None

    def _pass_on(self, reason: str) -> None:
        self._interruption = reason
        self.connection.process.interrupt()


def _number(text: str) -> float | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
