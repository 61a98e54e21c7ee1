"""Runs an app as a PEP 3333 server must, and passes its response to a sink. Pure, without Redis.

Status and headers go out with the first non-empty chunk, or at the end: until then the app may replace them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, cast

from wsgi_timeout.store.messages import ResponseHead

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

# RFC 9110 section 5.6.2: a header name is a token.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5. gunicorn refuses these too; here the app sees the error.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 9112 section 4: digits of ASCII, and a reason that fits latin-1.
_STATUS = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")


class Sink(Protocol):
    """Takes a response."""

    def begin(self, head: ResponseHead) -> None: ...

    def write(self, chunk: bytes, *, last: bool) -> None:
        """Take a chunk; `last`: it is known that no other follows."""

    @property
    def more(self) -> Callable[[bytes], None] | None:
        """What takes each block that follows, none of them empty; None: `write` does."""

    def end(self) -> None: ...


class Capture:
    """Runs an app for one request."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head: ResponseHead | None = None
        self._sent = False
        self._iterable: Iterable[bytes] = ()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no reference cycle through the traceback
        elif self._head is not None:
            raise AssertionError("start_response was called a second time, without exc_info")
        headers = list(headers)  # a generator can be read once; a list may be changed later
        _check(status, headers)
        self._head = ResponseHead(status, headers)
        return self._write

    def run(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the app and pass on all that it yields; the caller must call `close` in any case."""
        returned: object = app(environ, self.start_response)
        if isinstance(returned, str | bytes) or returned is None:
            raise TypeError(f"the app returned {type(returned).__name__}, not an iterable of bytes")
        if callable(returned) and not (hasattr(returned, "__iter__") or hasattr(returned, "__getitem__")):
            raise TypeError(
                f"the app returned {returned!r}, not an iterable of bytes: if that is an app, the target is "
                "a factory, to be called in it, as in shop:create_app()"
            )
        self._iterable = cast("Iterable[bytes]", returned)
        # In a list the last chunk is known to be the last, so a small response needs no stream.
        known = len(self._iterable) if isinstance(self._iterable, list | tuple) else 0
        number, more = 0, None
        for chunk in self._iterable:
            if more is not None and chunk.__class__ is bytes and chunk:
                more(chunk)  # it may be a line of thousands
                continue
            number += 1
            self._pass_on(chunk, last=number == known)
            more = None if known else self._sink.more
        self._begin()
        self._sink.end()

    def close(self) -> None:
        close = getattr(self._iterable, "close", None)
        if close:
            close()

    def _write(self, chunk: bytes) -> None:
        self._pass_on(chunk, last=False)

    def _pass_on(self, chunk: bytes, *, last: bool) -> None:
        if not isinstance(chunk, bytes):
            raise TypeError(f"the app gave a chunk of type {type(chunk).__name__}, not bytes")
        if chunk:
            self._begin()
            self._sink.write(chunk, last=last)

    def _begin(self) -> None:
        if self._head is None:
            raise AssertionError("the app did not call start_response before its first byte or its end")
        if not self._sent:
            self._sent = True
            self._sink.begin(self._head)


def _check(status: str, headers: list[tuple[str, str]]) -> None:
    """Raise for what a server would refuse later, when the app could not see the error any more."""
    if not isinstance(status, str) or not _STATUS.fullmatch(status):
        raise ValueError(f"status {status!r}: must be text like '200 OK'")
    for item in headers:
        name, value = item
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header {item!r}: name and value must be str")
        if not _NAME.fullmatch(name):
            raise ValueError(f"header name {name!r}: not a token (RFC 9110 section 5.6.2)")
        if _CONTROL.search(value):
            raise ValueError(
                f"header {name}: value {value!r} holds CR, LF or NUL, or another control character"
            )
        value.encode("latin-1")
        if name.lower() == "content-length":
            int(value)  # raises what gunicorn raises
