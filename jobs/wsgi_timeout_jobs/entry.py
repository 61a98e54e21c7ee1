"""The function that our RQ jobs name, by which RQ's own `rq worker` runs a call.

    WSGI_TIMEOUT_TARGET=legacy:app rq worker --serializer json wt:legacy

It works, but forks and loads the app for every call. Of the job only the call's id is used, and only a call
whose record says that it is queued is run.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
import time
from functools import partial
from typing import Any

import redis
import rq

from wsgi_timeout import identity
from wsgi_timeout import target as targets
from wsgi_timeout.compat import Self
from wsgi_timeout.current import enter_worker
from wsgi_timeout.settings import NAME_VARIABLE, TARGET_VARIABLE
from wsgi_timeout.store import keys, rq_state, seals
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, client_of
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.pauses import is_paused
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_connections import connection_class
from wsgi_timeout.store.redis_errors import ANY, what_happened
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching import live_workers
from wsgi_timeout.watching.leases import WORKER_DIED
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.apps.offered import of_target
from wsgi_timeout_jobs.attempt.function import FunctionRunner
from wsgi_timeout_jobs.attempt.request import RequestRunner
from wsgi_timeout_jobs.process.board import Board, Running
from wsgi_timeout_jobs.process.interrupts import SIGNAL, Interrupts

log = logging.getLogger("rq.worker")

_CALL_ID = re.compile(r"fc-[A-Za-z0-9_-]{8,64}")
#: Seconds to wait before a call that cannot run here is put back, to avoid a busy loop.
_PUT_BACK_SECONDS = 1.0
_KEEP_SECONDS = 0.5


def run_call(call_id: str) -> object:
    """Run a call in a process of `rq worker`; return an `rq.Retry` if it must run elsewhere."""
    job = rq.get_current_job()
    if job is None or not isinstance(call_id, str) or not _CALL_ID.fullmatch(call_id):
        raise ValueError(f"not a call of wsgi-timeout: {call_id!r}")
    name = rq_state.name_of_queue(job.origin)
    attempts = Attempts(_client(job.connection, connections=3), name)
    target = os.environ.get(TARGET_VARIABLE, "")
    trouble = (
        live_workers.find(attempts, target).mismatch
        if target
        else f"{TARGET_VARIABLE} is not set: set it to the app of queue {job.origin}, as in legacy:app"
    )
    if trouble or is_paused(attempts.redis, name):
        level = logging.ERROR if trouble else logging.INFO
        log.log(level, "call %s is put back: %s", call_id, trouble or "its queue is paused")
        time.sleep(_PUT_BACK_SECONDS)
        # Makes RQ put the job back at once, any number of times.
        return rq.Retry(max=10**9)
    enter_worker()
    with _Keeper(attempts, f"{job.worker_name}-{secrets.token_hex(4)}", target) as keeper:
        attempts.hold(call_id, keeper.worker)
        taken = attempts.take(call_id, keeper.worker, stock=True)
        if taken:
            keeper.runner(job.connection).run(0, taken)
    return None


class _Keeper:
    """Does for one call what a pool does for its children: the lease, cancels, the deadline."""

    def __init__(self, attempts: Attempts, worker: str, target: str) -> None:
        self.worker = worker
        self.board = Board(1)
        self.interrupts = Interrupts(partial(self.board.reason, 0))
        self._attempts = attempts
        self._workers = Workers.of(attempts)
        self._target = target
        self._inbox = secrets.token_urlsafe(12)
        self._ended = threading.Event()
        self._interrupted = False
        self._thread = threading.Thread(target=self._keep, name="wsgi-timeout-lease", daemon=True)

    def __enter__(self) -> Self:
        self.interrupts.install()
        info = {
            "target": targets.resolved(self._target),
            "wire": str(WIRE_VERSION),
            seals.FINGERPRINT: seals.fingerprint(),
            **identity.describe(self._target),
        }
        # RQ has registered its worker itself, so there are no fields of RQ's to add.
        self._workers.register(self.worker, self._inbox, info, {})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._workers.recover(self.worker, None, WORKER_DIED)

    def runner(self, connection: redis.Redis) -> RequestRunner | FunctionRunner:
        name, _, queue = self._attempts.name.partition(":")
        os.environ[NAME_VARIABLE] = name
        offered = of_target(targets.load(self._target), queue=queue)
        if queue:
            return FunctionRunner(offered.functions, self._attempts, self.interrupts, self.board)
        listener = Listener(partial(_client, connection, connections=1))
        return RequestRunner(offered.apps, self._attempts, listener, self.interrupts, self.board)

    def _keep(self) -> None:
        while not self._ended.wait(_KEEP_SECONDS):
            try:
                if self._workers.renew([self.worker]):
                    log.warning("worker %s lost its lease and is stopped", self.worker)
                    os.kill(os.getpid(), signal.SIGKILL)
                heard = self._attempts.redis.lpop(keys.inbox(self._inbox), 1000)
            except ANY as error:
                log.warning("%s; the call goes on", what_happened(error))
                continue
            for running in self.board.running():
                if running.settling:
                    continue
                if heard and running.call_id.encode() in heard:
                    self._interrupt(running, Outcome.CANCELLED)
                elif time.monotonic() >= running.deadline:
                    self._interrupt(running, Outcome.TIMEOUT)

    def _interrupt(self, running: Running, outcome: Outcome) -> None:
        if not self._interrupted:
            self._interrupted = True
            self.board.interrupt(running, outcome)
            # Sent to the main thread, in which the handler runs.
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)


def _client(connection: redis.Redis, *, connections: int) -> redis.Redis:
    """Return a client to the same server with our own timeouts: RQ's waits 415 s for a dead server."""
    pool = connection.connection_pool
    options = {key: value for key, value in pool.connection_kwargs.items() if key != "socket_timeout"}
    blocking: Any = redis.BlockingConnectionPool  # without annotations in redis-py
    return client_of(
        blocking(
            connection_class=connection_class(pool.connection_class),
            max_connections=connections,
            timeout=SOCKET_TIMEOUT,
            socket_timeout=SOCKET_TIMEOUT,
            **options,
        )
    )
