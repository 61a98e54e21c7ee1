"""A waiter for one call in this process: the listener wakes it."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable

from wsgi_timeout.compat import Self

# Linux tells a closed connection without a read; elsewhere a hang-up is seen when both ways close.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Waiter:
    """Waits for a call, until the end of a `with` block."""

    __slots__ = (
        "_accepted",
        "_asleep",
        "_leave",
        "_on_wake",
        "call_id",
        "carried",
        "chunks",
        "gone",
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
        # A lock that is free when there was a wake: an Event would cost 2 KB of each of 10,000 waiters.
        self._asleep = threading.Lock()
        self._asleep.acquire()
        #: The response, if it came with the wake: see `calls.Snapshot.carried`.
        self.carried = b""
        self._accepted = True
        #: Its client has closed the connection.
        self.gone = False
        #: It was running when its record was looked at last.
        self.running = False
        #: It waits for chunks of a body.
        self.chunks = False

    def before_acceptance(self) -> Self:
        """Wait for a call that is to be sent yet: that it has no record means nothing, until `accepted`."""
        self._accepted = False
        return self

    def accepted(self) -> None:
        """Note that the call was accepted: when its record is missing, that is the end of it."""
        self._accepted = True

    def for_chunks(self) -> Self:
        """Wait for chunks from now on, which no look at the call's record can show."""
        self.chunks = True
        return self

    def for_response(self) -> None:
        """Wait for the response again; the wake for it may have been taken for one about chunks."""
        self.chunks = False
        self.wake()

    def looked(self, *, running: bool) -> None:
        """Note whether the call was running when its record was looked at."""
        self.running = running

    def news(self, state: bytes | None, head: bytes | None) -> bool:
        """Whether there may be news for it in what a look at the call's record has found."""
        self.looked(running=state == b"running")
        return bool(self.chunks or head or state == b"ended" or (state is None and self._accepted))

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
        try:
            self._asleep.release()
        except RuntimeError:
            return  # it was woken already

    def has_left(self) -> bool:
        """Return whether the client has closed its connection by now; call it while the waiter waits."""
        if not self.gone and self.sock >= 0:
            poll = system_poll()
            poll.register(self.sock, GONE)
            return bool(poll.poll(0))
        return self.gone

    def reset(self) -> None:
        """Call before looking at what is waited for: a wake after the look is then not missed."""
        self._asleep.acquire(blocking=False)

    def wait(self, seconds: float) -> bool:
        """Block until the next wake, for so many seconds at most; returns whether there was one."""
        return self._asleep.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX)))


def system_poll() -> select.poll:
    """Return the system's poll, not gevent's: ours never blocks, and looks at thousands at once."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")()  # type: ignore[no-any-return]
    return select.poll()
