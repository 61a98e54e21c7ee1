"""The background thread of a web process: it watches live and dead workers, and closes dropped responses."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store import rq_state, web_list
from wsgi_timeout.store.connection import eviction
from wsgi_timeout.store.record import text
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout.store.web_list import WebProcess
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching import live_workers
from wsgi_timeout.watching.leases import LOOK_SECONDS, LeaseWatch
from wsgi_timeout.watching.listener import Listener

log = logging.getLogger("wsgi_timeout")

#: Seconds for which a worker may run other code, as in a deploy, before that is logged.
_DEPLOY_SECONDS = 3.0
#: Seconds between two looks for queues of functions, and the same while nothing happens; a new worker's are
#: looked for at once.
_QUEUES_SECONDS = 5.0
_QUIET_QUEUES_SECONDS = 15.0
#: Seconds between two looks, while nothing happens here, whether there is any call: pools look every second.
_QUIET_SECONDS = 5.0


class Housekeeper:
    """Asks Redis in a thread of its own: making a `Housekeeper`, and reading its attributes, never blocks."""

    def __init__(
        self,
        workers: Workers,
        target: str,
        lease_seconds: float,
        closing: deque[Callable[[], None]],
        listener: Listener,
        described: Callable[[], WebProcess],
    ) -> None:
        """Take `workers` with a connection of their own, and the `target` that workers should serve.

        `closing` ends what was dropped unclosed; `listener` knows the calls that this process waits for;
        `described` returns what it tells of itself.
        """
        #: What the live workers serve; None: no check has succeeded yet.
        self.live_workers: live_workers.LiveWorkers | None = None
        #: Why no check has succeeded.
        self.trouble = "it has not answered yet"
        self._closing = closing
        self._listener = listener
        self._described = described
        self._next_told = 0.0
        self._workers = workers
        self._target = target
        self._lease_seconds = lease_seconds
        self._descriptions = live_workers.Descriptions(workers)
        #: A watch for each queue: that of the web calls, and those of functions.
        self._leases = {workers.name: LeaseWatch(workers, lease_seconds)}
        self._queues = {workers.name: workers}
        self._workers_seen: set[bytes] = set()
        self._next_queues = 0.0
        #: Whether Redis had no call of these queues when it was last asked, and when it is asked next.
        self._empty, self._next_empty = False, 0.0
        #: Since when a worker with other code was seen, on the monotonic clock; negative: it was logged.
        self._other_code_since: float | None = None
        self._looked_at_server = False
        self._log_once = LogOnce("housekeeper")
        #: Counts the checks of the workers; a caller that needs fresh data waits for one that starts later.
        self._turn = threading.Condition()
        self._begun = self._ended = self._wanted = 0
        threading.Thread(target=self._run, name="wsgi-timeout-housekeeper", daemon=True).start()

    def check_now(self, seconds: float) -> None:
        """Have the workers checked now; return when that was done, or failed, or after `seconds`."""
        with self._turn:
            wanted = self._wanted = self._begun + 1
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._ended >= wanted, seconds)

    def _run(self) -> None:
        while True:
            with self._turn:
                self._begun += 1
            looked = False
            with self._log_once:
                looked = self._look_at_workers()
            with self._turn:
                self._ended = self._begun
                self._turn.notify_all()
            self._do_the_rest(looked=looked)
            with self._turn:
                self._turn.wait_for(lambda: self._wanted > self._begun, LOOK_SECONDS)

    def _do_the_rest(self, *, looked: bool) -> None:
        """Do what no caller of `check_now` waits for; an error in one part leaves the others to be done."""
        while self._closing:
            with self._log_once:
                self._closing.popleft()()
        # First, so that this process does not find a call abandoned that it waits for itself.
        for part in (self._note_waiters, self._look_for_queues, self._look_whether_empty):
            with self._log_once:
                part()
        for name, leases in self._leases.items():
            with self._log_once:
                leases.step(looked=looked and name == self._workers.name, empty=self._empty)
        for part in (self._look_at_server, self._tell_of_itself):
            with self._log_once:
                part()

    def _note_waiters(self) -> None:
        """Tell Redis which calls this process waits for, so that they are neither abandoned nor deleted."""
        with suppress(*ANY):
            self._workers.wanted(self._listener.waited_for())
            self._workers.reading(self._listener.reading())

    def _look_at_workers(self) -> bool:
        """Look at the leases and at who holds them; return whether Redis has answered."""
        try:
            leases = self._leases[self._workers.name].look_at_leases()
            seen = live_workers.find(self._workers, self._target, self._descriptions, leases)
        except ANY as error:
            self.trouble = str(error)
            # A listener that rests does not know that requests have no chance now.
            self._listener.rouse()
            return False
        except Exception as error:
            self.trouble = repr(error)
            raise
        before = self.live_workers or live_workers.LiveWorkers("", None)
        trouble = seen.mismatch or seen.other_version or seen.other_secret
        if trouble and trouble not in {before.mismatch, before.other_version, before.other_secret}:
            log.error("requests are refused: %s", trouble)
        self._warn_of_other_code(seen.other_code)
        # While no worker lives, assume that the next ones serve what the last ones did.
        self.live_workers = replace(seen, mounts=seen.mounts or before.mounts)
        if leases.keys() != self._workers_seen:
            self._workers_seen, self._next_queues = set(leases), 0.0
        return True

    def _look_whether_empty(self) -> None:
        """Ask whether there is anything to look at, while this process itself knows of nothing."""
        if not self._listener.rests:
            self._empty, self._next_empty = False, 0.0
        elif time.monotonic() >= self._next_empty:
            with suppress(*ANY):
                self._empty = all(queue.is_empty() for queue in self._queues.values())
            self._next_empty = time.monotonic() + _QUIET_SECONDS

    def _warn_of_other_code(self, seen: bool) -> None:  # noqa: FBT001
        """Log once if a worker runs other code for longer than a deploy takes: it may be another app."""
        if not seen:
            self._other_code_since = None
            return
        since = self._other_code_since = self._other_code_since or time.monotonic()
        if since > 0 and time.monotonic() - since > _DEPLOY_SECONDS:
            self._other_code_since = -1.0
            log.warning(
                "a worker of queue wt:%s runs other code than %s here. In a deploy that passes; if it stays, "
                "two apps share this name: give each its own by --name, name= or WSGI_TIMEOUT_NAME",
                self._workers.name,
                self._target,
            )

    def _look_for_queues(self) -> None:
        """Watch the queues of functions too, so that their calls are recovered as well."""
        if time.monotonic() < self._next_queues:
            return
        with suppress(*ANY):
            for key in self._workers.redis.smembers(rq_state.QUEUES):
                name = text(key).removeprefix(rq_state.queue_key(""))
                if name.startswith(f"{self._workers.name}:") and name not in self._leases:
                    self._queues[name] = Workers(self._workers.redis, name)
                    self._leases[name] = LeaseWatch(self._queues[name], self._lease_seconds)
            seconds = _QUIET_QUEUES_SECONDS if self._listener.rests else _QUEUES_SECONDS
            self._next_queues = time.monotonic() + seconds

    def _look_at_server(self) -> None:
        if self._looked_at_server:
            return
        with suppress(*ANY):
            if trouble := eviction(self._workers.redis):
                log.warning(trouble)
            self._looked_at_server = True

    def _tell_of_itself(self) -> None:
        if time.monotonic() < self._next_told:
            return
        with suppress(*ANY):
            web_list.tell(self._workers.redis, self._workers.name, self._described())
            self._next_told = time.monotonic() + web_list.TOLD_SECONDS
