"""Responses that end with their connection: one that is cut off must not look complete.

To an HTTP/1.0 client, which nginx is to its upstream by default, a response without a length ends where
the connection does (RFC 9112 section 6.3, rule 8), and only a reset tells that it was cut off.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wsgi_timeout.serving.gunicorn_response import send_at_once

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

#: SO_LINGER: with the first, closing the connection, also when the process ends, resets it.
_RESET = struct.pack("ii", 1, 0)
_NORMAL = struct.pack("ii", 0, 0)


def reset_when_cut(app: WSGIApplication) -> WSGIApplication:
    """Return `app` under gunicorn, with its unframed responses reset if they break off."""

    def outer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = app(environ, start_response)
        send_at_once(start_response)
        # A newer client gets chunks from gunicorn where there is no length.
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.0" or isinstance(body, environ["wsgi.file_wrapper"]):
            return body
        response: Any = getattr(start_response, "__self__", None)
        return _Unframed(body, environ["gunicorn.socket"], lambda: response.response_length is None)

    return outer


class _Unframed:
    """An iterable whose connection is reset unless it comes to its end."""

    def __init__(self, body: Iterable[bytes], sock: socket.socket, is_unframed: Callable[[], bool]) -> None:
        self._body = body
        self._sock = sock
        self._is_unframed = is_unframed

    def __iter__(self) -> Iterator[bytes]:
        marked = False
        try:
            for item in self._body:
                if not marked and item and self._is_unframed():
                    marked = True
                    self._on_close(_RESET)
                yield item
        except Exception:
            if marked:
                # gunicorn would shut it down normally, which a client would take for the end of the response.
                self._sock.close()
            raise
        if marked:
            self._on_close(_NORMAL)

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()

    def _on_close(self, what: bytes) -> None:
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, what)
