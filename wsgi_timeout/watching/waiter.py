"""A waiter: one request, or one `get()`, that waits for a call in this process."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Mapping
from typing import Any

from wsgi_timeout.compat import Self
from wsgi_timeout.watching.sleep import new_sleep

# Linux reports that a client closed its side (RDHUP); other systems only that both sides are closed (HUP).
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Waiter:
    """Waits for one call, in a `with` block; the process's listener wakes it."""

    __slots__ = (
        "_leave",
        "_on_wake",
        "_sleep",
        "call_id",
        "carried",
        "chunks",
        "gone",
        "is_accepted",
        "running",
        "sock",
    )

    def __init__(
        self,
        leave: Callable[[Waiter], None],
        call_id: str,
        sock: int,
        on_wake: Callable[[], None] | None = None,
    ) -> None:
        self._leave = leave
        self._on_wake = on_wake
        self.call_id = call_id
        #: The client's file descriptor, -1 if it is not watched.
        self.sock = sock
        self._sleep = new_sleep()
        #: The response, if it came with the wake: see `Snapshot.carried`.
        self.carried = b""
        #: Whether its call is known to have been accepted.
        self.is_accepted = True
        #: The client has closed its connection.
        self.gone = False
        #: The call was running when its record was last looked at.
        self.running = False
        #: It waits for chunks of a body.
        self.chunks = False

    def before_acceptance(self) -> Self:
        """Wait for a call that was not sent yet: until `accepted`, a missing record means nothing."""
        self.is_accepted = False
        return self

    def accepted(self) -> None:
        """Note that the call was accepted: from now on a missing record means that it is gone."""
        self.is_accepted = True

    def for_chunks(self) -> Self:
        """Wait for chunks from now on. Records do not show them, so every check of the listener wakes it."""
        self.chunks = True
        return self

    def for_response(self) -> None:
        """Wait for the response again; wakes it once, since the response may already have come."""
        self.chunks = False
        self.wake()

    def looked(self, *, running: bool) -> None:
        """Note whether the call was running when its record was looked at."""
        self.running = running

    def news(self, state: bytes | None, head: bytes | None) -> bool:
        """Return whether the fields of the call's record are a reason to wake this waiter."""
        self.looked(running=state == b"running")
        return bool(self.chunks or head or state == b"ended" or (state is None and self.is_accepted))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def client_left(self) -> None:
        """Note that its client has closed the connection, and wake it."""
        self.gone = True
        self.wake()

    def wake(self, carried: bytes = b"") -> None:
        """End its `wait`; `carried` is the response, if it came with the wake."""
        self.carried = carried or self.carried
        if self._on_wake:
            self._on_wake()
        self._sleep.wake()

    def has_left(self) -> bool:
        """Return whether the client has closed its connection by now; only valid inside the `with` block."""
        if not self.gone and self.sock >= 0:
            poll = system_poll()
            poll.register(self.sock, GONE)
            return bool(poll.poll(0))
        return self.gone

    def reset(self) -> None:
        """Forget earlier wakes; called before looking at the call, so that a wake after the look counts."""
        self._sleep.reset()

    def wait(self, seconds: float) -> bool:
        """Block until the next wake, `seconds` at most; return whether there was one."""
        return self._sleep.wait(seconds)


def system_poll() -> select.poll:
    """Return the system's own poll, not gevent's: it is called with timeout 0, for thousands of sockets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")()  # type: ignore[no-any-return]
    return select.poll()


def client_socket(environ: Mapping[str, Any]) -> int:
    """Return the client's file descriptor if the server puts its socket into the environ, else -1."""
    for key in ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket"):
        sock = environ.get(key)
        if sock is not None and hasattr(sock, "fileno"):
            return int(sock.fileno())
    return -1
