"""Registers a worker, unless its queue is served by workers of another app."""

from __future__ import annotations

import os
import socket
import sys

import rq

from wsgi_timeout import identity
from wsgi_timeout import target as targets
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.retrying import retry
from wsgi_timeout.store import rq_state, seals
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching import live_workers
from wsgi_timeout.watching.leases import LeaseWatch
from wsgi_timeout_jobs.process.options import WorkerOptions

_LOOK_SECONDS = 0.5


def refuse_conflict(workers: Workers, attempts: Attempts, options: WorkerOptions) -> None:
    """Raise `ConfigurationError` if live workers of another app, or wire version, serve this queue."""
    watch = LeaseWatch(workers, options.lease_seconds)

    def check() -> None:
        if conflict := live_workers.find(attempts, options.target).mismatch:
            # A crashed worker is registered until its lease is lost, which perhaps only this process notices.
            watch.step()
            raise ConfigurationError(f"{conflict}; this worker is refused")

    retry(check, (ConfigurationError,), pause=_LOOK_SECONDS, seconds=options.patience)


def register(workers: Workers, options: WorkerOptions, mounts: str) -> None:
    """Register this worker for web processes, pools and RQ; `mounts`: a stub's web functions as JSON."""
    info = {
        "target": targets.resolved(options.target),
        "wire": str(WIRE_VERSION),
        seals.FINGERPRINT: seals.fingerprint(),
        "mounts": mounts,
        "parent": str(options.pool_pid),
        "version": identity.version(),
        **identity.describe(options.target),
    }
    versions = (rq.__version__, sys.version.split()[0])
    birth = rq_state.worker_fields(workers.name, os.getpid(), socket.gethostname(), versions)
    workers.register(options.worker, options.pool_inbox, info, birth)
