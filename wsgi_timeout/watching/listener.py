"""One listener per process wakes all requests that wait in it.

A waiting request needs a thread or a greenlet, but no connection. Scripts that change a call push its id to
the inbox of each process that waits for it, and the listener pops its own inbox. The inbox is a list and not
pub/sub, so that no message is lost during a reconnect. A reply with popped messages can still be lost, so
the listener also checks its calls every two seconds, two thousand at a time.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import redis

from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands
from wsgi_timeout.store.record import text
from wsgi_timeout.store.redis_errors import ANY, UNAVAILABLE, ConnectionLost, ErrorReply, what_happened
from wsgi_timeout.watching.forgetting import Forgetting
from wsgi_timeout.watching.waiter import GONE, Waiter, client_socket, system_poll

log = logging.getLogger("wsgi_timeout")

#: Seconds between two checks for disconnected clients, and for a stop.
TICK_SECONDS = 0.5
#: Seconds between two checks of the calls' records, for wakes that were lost.
RECHECK_SECONDS = 2.0
#: How many calls one such check looks at; if there are more, they take turns.
_LOOKS = 2000
_PAUSE_SECONDS = 0.2
_BATCH = 1000
#: After so many seconds without a waiter Redis is not asked any more, and the connection is closed.
_REST_SECONDS = 5.0
#: Seconds after which a resting thread looks by itself whether there is something to do.
_LONG_SECONDS = 60.0


class _Process:
    """State that all listeners of this process share, including those made while it stops."""

    draining = False


class Listener:
    """Pops this process's inbox in one thread, which starts with the first waiter (so after any fork)."""

    def __init__(self, make_client: Callable[[], redis.Redis]) -> None:
        #: The inbox's random name; process ids repeat.
        self.inbox = secrets.token_urlsafe(12)
        #: True while Redis does not answer: send it nothing.
        self.away = False
        self._answered = time.monotonic()
        self._make_client = make_client
        self._waiters: dict[str, tuple[Waiter, ...]] = {}
        self._sockets: dict[int, Waiter] = {}
        self._poll = system_poll()
        self._lock = threading.Lock()
        #: Ends the thread's rest.
        self._wanted = threading.Condition(self._lock)
        #: Whether nobody waits here, nor did lately.
        self.rests = True
        self._last_used = 0.0
        #: The process in which the thread runs; 0: none does.
        self._runs_in = 0
        self._forgetting = Forgetting()
        self._looked = 0
        self._pop: Callable[[], list[bytes]] | None = None
        self._next_recheck = 0.0
        self._log_once = LogOnce("listener")

    def check(self, seconds: float = 0.0) -> None:
        """Raise `ConnectionLost` if Redis has been away for `seconds`, so that callers need not ask it."""
        if self.away and time.monotonic() - self._answered >= seconds:
            raise ConnectionLost("it has not answered lately")

    @property
    def draining(self) -> bool:
        """Whether the process was told to stop; waiting requests then answer at once."""
        return _Process.draining

    def waiter(
        self,
        call_id: str,
        environ: Mapping[str, Any] | None = None,
        on_wake: Callable[[], None] | None = None,
    ) -> Waiter:
        """Return a waiter for a call, to be used in a `with` block.

        Args:
            call_id: the call.
            environ: of the request that waits; its client's connection is then watched too.
            on_wake: called in the listener's thread at each wake, for code that does not block in `wait`.
        """
        waiter = Waiter(self.leave, call_id, client_socket(environ) if environ else -1, on_wake)
        with self._lock:
            # Before anything is registered: this raises if no thread can be started.
            self._start()
            self._waiters[call_id] = (*self._waiters.get(call_id, ()), waiter)
            if waiter.sock >= 0:
                self._sockets[waiter.sock] = waiter
                self._poll.register(waiter.sock, GONE)
            if self.rests:
                self._wanted.notify()
        return waiter

    def rouse(self) -> None:
        """Have Redis asked again, though nobody waits: others found that it does not answer."""
        with self._lock:
            self._last_used = time.monotonic()
            self._wanted.notify()

    def waited_for(self) -> list[str]:
        """Return the ids of the calls that have a waiter here."""
        with self._lock:
            return list(self._waiters)

    def leave(self, waiter: Waiter) -> None:
        """End what `waiter` began."""
        with self._lock:
            others = tuple(other for other in self._waiters[waiter.call_id] if other is not waiter)
            if others:
                self._waiters[waiter.call_id] = others
            else:
                del self._waiters[waiter.call_id]
            if self._sockets.get(waiter.sock) is waiter:
                del self._sockets[waiter.sock]
                self._poll.unregister(waiter.sock)

    def reading(self) -> list[str]:
        """Return the ids of the calls whose bodies are on their way here."""
        with self._lock:
            return [call_id for call_id, waiters in self._waiters.items() if any(w.chunks for w in waiters)]

    def forget_soon(self, name: str, call_id: str, attempt: int) -> None:
        """Delete an ended call with a later look at the inbox, many at a time; at the latest after a tick."""
        self._forgetting.add(name, call_id, attempt)
        with self._lock:
            if self.rests:
                self._wanted.notify()

    def _forget_last(self) -> None:
        if self._forgetting:
            # Over a new connection: the listener's own is in a blocking read, which under gevent may not end.
            with suppress(*ANY):
                self._forgetting.forget(Commands(self._make_client(), retries=0))

    def _start(self) -> None:
        # Not by `is_alive`: gevent's lets all other greenlets run, which then stand in line for our lock.
        if self._runs_in == os.getpid():
            return
        self._runs_in = os.getpid()
        try:
            threading.Thread(target=self._run, name="wsgi-timeout-listener", daemon=True).start()
        except BaseException:
            self._runs_in = 0
            raise

    def _run(self) -> None:
        try:
            self._go_on()
        finally:
            self._runs_in = 0

    def _go_on(self) -> None:
        client = self._make_client()
        commands = Commands(client, retries=0)
        atexit.register(self._forget_last)
        next_tick = self._next_recheck = self._last_used = time.monotonic()
        while True:
            with self._log_once:
                self._rest(client)
                self._listen(commands)
            if time.monotonic() >= next_tick:
                with self._log_once:
                    self._tick()
                next_tick = time.monotonic() + TICK_SECONDS

    def _rest(self, client: redis.Redis) -> None:
        """Return at once while there are waiters, or were lately; else when there is one."""
        with self._lock:
            while not self._is_used():
                if not self.rests:
                    # Else the server, or what lies between, might cut it off, which looks like an outage.
                    client.connection_pool.disconnect()
                self.rests = True
                self._wanted.wait(_LONG_SECONDS)
            self.rests = False

    def _is_used(self) -> bool:
        now = time.monotonic()
        if self._waiters or self._forgetting or self.away:
            self._last_used = now
        return now - self._last_used < _REST_SECONDS

    def _listen(self, commands: Commands) -> None:
        was_away = self.away
        try:
            self._pop = self._pop or _popper(commands, keys.inbox(self.inbox))
            self._answered = time.monotonic()
            for message in self._pop():
                self._wake(message)
            self._forgetting.forget_due(commands)
            # Before waiters are woken: while `away` is set they do not ask Redis.
            self.away = False
            if was_away or time.monotonic() >= self._next_recheck:
                self._recheck(commands, everybody=was_away)
                self._next_recheck = time.monotonic() + RECHECK_SECONDS
        except UNAVAILABLE as error:
            if not was_away:
                log.warning("listener: %s; requests go on waiting", what_happened(error))
            self._lost_touch()
        except ErrorReply as error:
            self._lost_touch()
            # Another program has written something else to the inbox's key.
            log.error("listener: %s; its inbox is made anew", error)
            commands.send("UNLINK", keys.inbox(self.inbox))
        except Exception:
            # Messages may have been lost with it: the next check looks at all waiters.
            self._lost_touch()
            raise

    def _lost_touch(self) -> None:
        self.away, self._pop = True, None
        time.sleep(_PAUSE_SECONDS)

    def _wake(self, message: bytes) -> None:
        call_id, _, carried = message.partition(b" ")
        with self._lock:
            waiters = self._waiters.get(text(call_id), ())
        for waiter in waiters:
            waiter.wake(carried)

    def _tick(self) -> None:
        with self._lock:
            for sock, _ in self._poll.poll(0):
                self._sockets[sock].client_left()
            everybody = [w for waiters in self._waiters.values() for w in waiters] if self.draining else []
        for waiter in everybody:
            waiter.wake()

    def _recheck(self, commands: Commands, *, everybody: bool) -> None:
        # Not those whose calls are being sent: an answer from before their acceptance would look like a loss.
        with self._lock:
            waiting = [one for one in self._waiters.items() if any(w.is_accepted for w in one[1])]
        if len(waiting) > _LOOKS and not everybody:
            start = self._looked % len(waiting)
            self._looked = start + _LOOKS
            waiting = (waiting + waiting)[start : start + _LOOKS]
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            answers = commands.send_all(
                [("HMGET", keys.call(call_id), "state", "head") for call_id, _ in batch]
            )
            for (_, waiters), answer in zip(batch, answers, strict=True):
                for waiter in waiters:
                    # An error here means that the record is none of ours; the waiter's own look says so.
                    if isinstance(answer, Exception) or waiter.news(*answer):
                        waiter.wake()


def drain() -> None:
    """Have all requests that wait in this process, now or later, answer within a second.

    Only sets a flag, since signal handlers call it.
    """
    _Process.draining = True


def _popper(commands: Commands, inbox: str) -> Callable[[], list[bytes]]:
    """Return a function that blocks for messages, `TICK_SECONDS` at most, and returns all that came."""
    try:
        info: bytes = commands.send("INFO", "server")
    except ErrorReply:
        info = b"redis_version:6"  # this user may not call INFO: use commands that all versions know
    found = re.search(rb"redis_version:(\d+)", info)

    def pop() -> list[bytes]:
        answer = commands.send("BLMPOP", TICK_SECONDS, 1, inbox, "LEFT", "COUNT", _BATCH)
        return answer[1] if answer else []

    def pop_before_7() -> list[bytes]:
        first = commands.send("BLPOP", inbox, TICK_SECONDS)
        rest = commands.send("LPOP", inbox, _BATCH) if first else None
        return ([first[1]] if first else []) + (rest or [])

    return pop if found is None or int(found[1]) >= 7 else pop_before_7
