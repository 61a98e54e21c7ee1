"""The socket on which `serve` listens: one that systemd has opened, or one of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from wsgi_timeout.errors import ConfigurationError

_BACKLOG = 2048
#: The first socket that systemd hands over (sd_listen_fds(3)).
_FIRST_GIVEN = 3


def listen(bind: str) -> socket.socket:
    """Return a listening socket that children may inherit.

    Where systemd, or whoever does as it does, hands one over, it is that one and `bind` is not read: it stays
    open while `serve` is stopped and started, so that no connection is refused.

    Raises:
        ConfigurationError: `bind` makes no sense, or is in use, or several sockets were handed over.
    """
    sock = _given() or _opened(bind)
    sock.set_inheritable(True)
    return sock


def _given() -> socket.socket | None:
    # They are for the process with this id, not for its children.
    meant, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if meant != str(os.getpid()) or count in {"", "0"}:
        return None
    if count != "1":
        raise ConfigurationError(
            f"LISTEN_FDS={count}: systemd hands over {count} sockets; have one ListenStream"
        )
    try:
        return socket.socket(fileno=_FIRST_GIVEN)
    except OSError as error:
        raise ConfigurationError(
            f"LISTEN_FDS=1, but no socket was handed over: {error.strerror}; unset LISTEN_FDS to use --bind"
        ) from None


def _opened(bind: str) -> socket.socket:
    if bind.startswith("unix:"):
        return _listen_at(Path(bind.removeprefix("unix:")))
    host, colon, port = bind.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"  # as gunicorn reads ":8000"
    if not (colon and port.isdigit()):  # a port alone must not listen on every address
        raise ConfigurationError(f"--bind {bind!r}: write HOST:PORT, as in 127.0.0.1:8000")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        # create_server() adds words of its own to an errno's; getaddrinfo()'s numbers are below zero.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {bind}: {reason}; choose another with --bind HOST:PORT"
        ) from None


def _listen_at(path: Path) -> socket.socket:
    """Listen on a unix socket; a file that nobody listens on is left over, and replaced."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(path)) != 0:
                    path.unlink()  # else bind() says that it is in use
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot listen on unix:{path}: {error.strerror or error}; choose another path with --bind"
        ) from None
    return sock
