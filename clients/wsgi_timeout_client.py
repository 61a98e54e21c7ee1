"""A client for slow requests and long streams behind wsgi-timeout: one file, only the standard library.

    from wsgi_timeout_client import get, post, stream

    answer = get("https://example.com/reports/2025", progress=print)
    print(answer.status, answer.text)

    with stream("https://example.com/chat", method="POST", json={"prompt": "Hello"}) as events:
        for event in events:
            print(event.data, end="")

Many HTTP libraries follow no redirects, or twenty: here a call is waited for as long as it runs. A
connection that breaks is made again, and waits for the same run. A server that knows nothing of
wsgi-timeout is asked as by any other client. Copy this file into your project; Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import http.client
import json as json_
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

__all__ = ["Cancelled", "Event", "Response", "Stream", "StreamLost", "get", "post", "stream"]

#: Who accepts this is answered 202 in place of a redirect to the result URL.
PENDING = "application/vnd.wsgi-timeout+json"
_CALL = "__wsgi_timeout_call="
_MAX_REDIRECTS = 20
#: Redirects of servers that know nothing of calls; those of a call are not counted.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Repeats of a GET whose connection broke before anything is known of a call.
_REPEATS = 2
#: Seconds between two looks at the status URL, and at `cancel`.
_STATUS_SECONDS = 2.0
_TICK_SECONDS = 0.1
_BROKEN = (OSError, http.client.HTTPException)
_LINE_END = re.compile(rb"\r\n|\r|\n")
#: What stands in a URL as it is; the rest is escaped.
_IN_URLS = "%/:=&?~#+!$,;'@()*[]|"
_MAX_RETRY_SECONDS = 300.0


class Cancelled(Exception):
    """`cancel` was set while the request was waited for; the call was cancelled on the server."""


class StreamLost(Exception):
    """The run that gave a stream has ended before its end: its worker died, it timed out, or it failed."""


@dataclass(frozen=True)
class Response:
    """A whole response."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes
    #: Where it was found in the end.
    url: str

    @property
    def text(self) -> str:
        return self.body.decode(self.headers.get_content_charset() or "utf-8", "replace")

    def json(self) -> Any:
        return json_.loads(self.body)


@dataclass(frozen=True)
class Event:
    """One event of a `text/event-stream`."""

    data: str
    event: str = "message"
    id: str = ""


def get(url: str, **options: Any) -> Response:
    """Ask for `url`, wait however long it takes, and return the whole response.

    Options, also of `post` and `stream`:

    headers    a mapping; sent to the server of `url` only
    timeout    seconds that a connection may be silent, 300 by default: more than the server waits
    patience   seconds without any answer after which a broken network is given up, 300 by default
    progress   called with the status of the call (a dict: state, position, progress, ...) every two
               seconds while it runs, in a thread of its own; what it raises cancels the call, and is
               raised here
    cancel     a `threading.Event`: once it is set the call is cancelled and `Cancelled` is raised
    context    an `ssl.SSLContext`

    Raises `OSError` or `http.client.HTTPException` when the network stays broken. An interrupt
    (Ctrl-C) cancels the call too.
    """
    return _Request("GET", url, None, **options).whole()


def post(url: str, body: bytes | None = None, *, json: Any = None, **options: Any) -> Response:
    """Send `body`, or a value as `json`, and return the whole response. Sent once, never repeated.

    Options and errors are those of `get`.
    """
    return _Request("POST", url, *_packed(body, json, options), **options).whole()


def stream(
    url: str, *, method: str = "GET", body: bytes | None = None, json: Any = None, **options: Any
) -> Stream:
    """Return a response that is read while it comes: iterate over it, and close it (a `with` block).

    A `text/event-stream` gives `Event`s, anything else `bytes`. A connection that breaks is made again
    where the server can go on; each event or byte comes once. Who leaves early cancels the call.
    Options are those of `get`; raises `StreamLost`, and what `get` raises.
    """
    return Stream(_Request(method, url, *_packed(body, json, options), **options))


def _packed(body: bytes | None, json: Any, options: dict[str, Any]) -> tuple[bytes | None]:
    if json is None:
        return (body,)
    options["headers"] = {"Content-Type": "application/json", **(options.get("headers") or {})}
    return (json_.dumps(json).encode(),)


class _Request:
    """One request, and the call that it may turn out to be."""

    def __init__(
        self,
        method: str,
        url: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 300.0,
        patience: float = 300.0,
        progress: Callable[[dict[str, Any]], object] | None = None,
        cancel: threading.Event | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.method, self.url, self.body = method, url, body
        self._origin = urlsplit(url)[:2]
        self.headers = {"Accept": "*/*", "User-Agent": "wsgi-timeout-client", **(headers or {})}
        accept = next(name for name in reversed(list(self.headers)) if name.lower() == "accept")
        self.headers[accept] += f", {PENDING};q=0.1"
        self._timeout, self._patience, self._context = timeout, patience, context
        self._progress, self._cancel = progress, cancel
        self.result_url = self.status_url = ""
        #: Since something new was received; when the first of them was.
        self._failures, self._broken_since = 0, 0.0
        self._connection: http.client.HTTPConnection | None = None
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._cancelling, self._cancelled = threading.Lock(), False

    # -- what is read from it

    def whole(self) -> Response:
        self.begin()
        try:
            while True:
                response = self.open()
                try:
                    body = response.read()
                except _BROKEN as error:
                    self.failed(error)
                    continue
                return Response(response.status, response.reason, response.headers, body, self.url)
        except (KeyboardInterrupt, SystemExit):
            self.cancel()
            raise
        finally:
            self.end()

    def begin(self) -> None:
        """Show progress, and look at `cancel`, from now on."""
        if self._progress or self._cancel:
            threading.Thread(target=self._watch, daemon=True).start()

    def open(self, more: Mapping[str, str | bytes] | None = None) -> http.client.HTTPResponse:
        """Return the response once it has begun, however many redirects it takes."""
        redirects = 0
        while True:
            try:
                response = self._send({**self.headers, **(more or {})})
                following = self._next(response)
                if not following and not self._is_proxys(response):
                    self._note(response)
                    self._check_cancelled()  # else it may be what a cancelled call is answered
                    return response
                reading = f"HTTP status {response.status} from a proxy"
                response.read()
            except _BROKEN as error:
                self.failed(error)
                continue
            if not following:
                self.failed(http.client.HTTPException(reading))
                continue
            self.received()
            redirects += _CALL not in following
            if redirects > _MAX_REDIRECTS:
                raise http.client.HTTPException(
                    f"more than {_MAX_REDIRECTS} redirects, the last to {following}"
                )
            self._follow(response.status, following)

    def received(self) -> None:
        """Note that there is something new: the network works."""
        self._failures = 0

    def failed(self, error: Exception, *, again: bool = True) -> None:
        """Pause before a repeat; raises the error where none is allowed (any more), or `Cancelled`."""
        self._check_cancelled(error)
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._broken_since = now
        if self.result_url:
            over = now - self._broken_since > self._patience or (self._failures > 1 and self._has_failed())
        else:
            over = self.method not in {"GET", "HEAD"} or self._failures > _REPEATS
        if over or not again:
            raise error
        self.pause(min(5.0, 0.25 * 2.0 ** min(self._failures, 8)))

    def pause(self, seconds: float) -> None:
        if self._cancel:
            self._cancel.wait(seconds)
        else:
            time.sleep(seconds)

    def _has_failed(self) -> bool:
        """Whether the call has ended without a whole response, so that its body will break off again."""
        return (self.status() or {}).get("outcome") not in {None, "done"}

    def _gives_up(self) -> bool:
        return self._error is not None or (self._cancel is not None and self._cancel.is_set())

    def _check_cancelled(self, error: Exception | None = None) -> None:
        if self._gives_up():
            self.cancel()  # here too: what is raised ends `_watch`, which may not have looked yet
        if self._error:
            raise self._error
        if self._cancel and self._cancel.is_set():
            raise Cancelled("cancelled while it was waited for") from error

    # -- one hop

    def _send(self, headers: Mapping[str, str | bytes]) -> http.client.HTTPResponse:
        self._check_cancelled()
        self._close()
        if urlsplit(self.url)[:2] != self._origin:
            secret = {"authorization", "cookie"}
            headers = {name: value for name, value in headers.items() if name.lower() not in secret}
        self._connection, target = self._connect(self.url, self._timeout)
        self._connection.request(self.method, target, body=self.body, headers=dict(headers))
        return self._connection.getresponse()

    def _connect(self, url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
        parts = urlsplit(url)
        if parts.scheme == "https":
            context = self._context or ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.netloc, timeout=timeout, context=context
            )
        elif parts.scheme == "http":
            connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        else:
            raise ValueError(f"URL {url!r}: must begin with http:// or https://")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return connection, quote(target, safe=_IN_URLS)

    def _next(self, response: http.client.HTTPResponse) -> str:
        """Return the URL to go on with, empty when this is the response itself."""
        # A header's bytes come as latin-1.
        location = (
            response.headers.get("Location", "").encode("latin-1", "replace").decode("utf-8", "replace")
        )
        pending = response.status == 202 and _CALL in location
        return urljoin(self.url, location) if location and (pending or response.status in _REDIRECTS) else ""

    def _is_proxys(self, response: http.client.HTTPResponse) -> bool:
        """Whether a gateway's error stands on a result URL, and not what the app or wsgi-timeout answers."""
        if not self.result_url or response.status not in {502, 503, 504}:
            return False
        if response.status != 503 and response.headers.get_content_type() == "application/problem+json":
            return False
        return not (self.status() or {}).get("delivered")

    def _follow(self, status: int, url: str) -> None:
        if _CALL in url:
            self.know(url)
        if _CALL in url or status == 303 or (status in {301, 302} and self.method == "POST"):
            self.method = "HEAD" if self.method == "HEAD" else "GET"
            self.body = None
            kept = {k: v for k, v in self.headers.items() if not k.lower().startswith("content-")}
            self.headers = kept
        self.url = url

    def _note(self, response: http.client.HTTPResponse) -> None:
        for link in response.headers.get_all("Link") or ():
            for url in re.findall(r'<([^<>]*)>\s*;\s*rel="?self"?', link):
                if _CALL in url:
                    self.know(urljoin(self.url, url))

    def know(self, result_url: str) -> None:
        self.result_url = result_url
        self.status_url = re.sub(r"&__wsgi_timeout_hop=\d+", "", result_url).replace(
            "__wsgi_timeout_call=", "__wsgi_timeout_status="
        )

    # -- beside it

    def status(self, method: str = "GET") -> dict[str, Any] | None:
        """Return what the status URL says, None if it says nothing."""
        if not self.status_url:
            return None
        try:
            connection, target = self._connect(self.status_url, 10.0)
            with contextlib.closing(connection):
                keep = {"authorization", "cookie", "user-agent"}
                headers = {name: value for name, value in self.headers.items() if name.lower() in keep}
                connection.request(method, target, headers=headers)
                found = json_.loads(connection.getresponse().read())
                return found if isinstance(found, dict) else None
        except (*_BROKEN, ValueError):
            return None

    def cancel(self) -> None:
        """Cancel the call on the server, once, and break the connection off."""
        with self._cancelling:
            if self.status_url and not self._cancelled:
                self._cancelled = True
                self.status("DELETE")
        self._break()

    def end(self) -> None:
        self._over.set()
        self._close()

    def _break(self) -> None:
        """Wake the thread that reads, and closes: `http.client` does not bear to be closed by another one."""
        if self._connection:
            with contextlib.suppress(OSError, AttributeError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        if self._connection:
            self._break()
            self._connection.close()

    def _watch(self) -> None:
        next_look = 0.0
        while not self._over.wait(_TICK_SECONDS):
            if self._gives_up():
                self.cancel()  # breaks the connection that was just being made, too
            elif self._progress and self.status_url and time.monotonic() >= next_look:
                self._show_progress(self._progress)
                next_look = time.monotonic() + _STATUS_SECONDS

    def _show_progress(self, progress: Callable[[dict[str, Any]], object]) -> None:
        found = self.status()
        if found and not self._over.is_set():
            try:
                progress(found)
            except BaseException as error:  # noqa: BLE001 - raised where the response is waited for
                self._error = error


class Stream:
    """A response that is read while it comes; what `stream` returns."""

    def __init__(self, request: _Request) -> None:
        self._request, self._first_url = request, request.url
        self._ended = False
        request.begin()
        try:
            self._response = request.open()
        except BaseException:
            self.close()
            raise
        self.status, self.headers, self.url = self._response.status, self._response.headers, request.url
        self._decoder = _Decoder() if self.headers.get_content_type() == "text/event-stream" else None
        #: The server goes on in the same run.
        self._resumable = any(_CALL in link for link in self.headers.get_all("Link") or ())
        self._received = self._skip = 0

    def __enter__(self) -> Stream:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; a call that still runs is cancelled."""
        if not self._ended:
            self._ended = True
            self._request.cancel()
        self._request.end()

    def __iter__(self) -> Iterator[Any]:
        while not self._ended:
            try:
                yield from self._read()
                if not (self._decoder and self._resumable and self._decoder.last_id):
                    self._ended = True
                    return
                self._request.pause(self._decoder.retry)  # it ended between two events: there may be more
            except _BROKEN as error:
                self._request.failed(error, again=self._has_place())
            self._reopen()

    def _read(self) -> Iterator[Any]:
        while piece := self._response.read1(65536):
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:]
            if piece:
                self._received += len(piece)
                self._request.received()
            if self._decoder is None:
                yield piece
                continue
            for event in self._decoder.feed(piece):
                if event.event == "wsgi-timeout-lost":
                    self._ended = True
                    raise StreamLost(event.data)
                yield event
        if self._response.length:  # read1() tells a short body by nothing else
            raise http.client.IncompleteRead(b"", self._response.length)

    def _has_place(self) -> bool:
        by_id = self._decoder and self._decoder.last_id and self._request.method == "GET"
        return bool(self._request.result_url or by_id)

    def _reopen(self) -> None:
        """Go on where it broke off."""
        request, decoder = self._request, self._decoder
        more: dict[str, str | bytes] = {}
        self._skip = 0
        request.url = request.result_url or self._first_url
        if decoder and decoder.last_id and (self._resumable or request.method == "GET"):
            request.url = request.url if self._resumable else self._first_url
            more["Last-Event-ID"] = decoder.last_id.encode()
            decoder.reset()
        elif self._resumable and not decoder:
            request.url += f"&__wsgi_timeout_offset={self._received}"
        else:
            self._skip = self._received
        request.method, request.body = "GET", None
        self._response = request.open(more)
        if self._response.status == 204:
            self._ended = True
        elif self._response.status != self.status:
            raise StreamLost(f"the stream cannot go on: its server answered {self._response.status}")


class _Decoder:
    """Takes an event stream apart, as the WHATWG's HTML standard says (section 9.2)."""

    def __init__(self) -> None:
        self.last_id, self.retry = "", 1.0
        self.reset()

    def reset(self) -> None:
        """Forget the event that was broken off."""
        self._rest, self._event = b"", ""
        self._data: list[str] = []
        # It counts once its event has ended: else that would be missing after a break between the two.
        self._id = self.last_id
        self._at_start, self._after_cr = True, False

    def feed(self, piece: bytes) -> Iterator[Event]:
        start = 1 if self._after_cr and piece.startswith(b"\n") else 0
        self._after_cr = piece.endswith(b"\r")
        for end in _LINE_END.finditer(piece, start):
            line, start = self._rest + piece[start : end.start()], end.end()
            self._rest = b""
            if self._at_start:
                line, self._at_start = line.removeprefix(b"\xef\xbb\xbf"), False
            if line:
                self._field(line.decode("utf-8", "replace"))
                continue
            self.last_id = self._id
            if self._data:
                yield Event("\n".join(self._data), self._event or "message", self.last_id)
            self._data, self._event = [], ""
        self._rest += piece[start:]

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = min(int(value[:9]) / 1000, _MAX_RETRY_SECONDS)
