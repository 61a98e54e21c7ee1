"""The parent of one worker process: what the worker's handlers detach, as daemons, stays below it.

Linux gives a process whose parent has ended to the nearest ancestor that asks for such orphans. A worker
itself must not ask: its app's `os.wait()` would return children that are not the app's. So each worker has a
small process of its own between the pool and itself, as a container has its init process. It reaps orphans;
and after a handler was interrupted, or the worker killed, it ends with the worker all that is below it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.descendants import end_descendants
from wsgi_timeout_jobs.process.dies_with_parent import die_with_parent
from wsgi_timeout_jobs.process.end_as import end_as

_PR_SET_CHILD_SUBREAPER = 36
_STDERR = 2


def fork_with_reaper(board: Board) -> tuple[int, int]:
    """Fork a worker process and its reaper, which both end with this process.

    Returns the pids of the worker and of its reaper; (0, 0) in the worker. On other systems than Linux there
    is no reaper, and both are the worker's.

    Raises:
        OSError: one of the two cannot be forked.
    """
    pool = os.getpid()
    if sys.platform != "linux":
        pid = os.fork()
        if pid == 0:
            die_with_parent(pool)
        return pid, pid
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as read, os.fdopen(write_fd, "wb", 0) as write:
        reaper = os.fork()
        if reaper == 0:
            _fork_worker(board, pool, write)
            return 0, 0
        write.close()
        pid_line = read.readline()
    if not pid_line:
        raise OSError(errno.EAGAIN, "a worker's process cannot be forked")
    return int(pid_line), reaper


def _fork_worker(board: Board, pool: int, write: IO[bytes]) -> None:
    """Fork the worker, and return in it; this process becomes its reaper, and never returns."""
    try:
        die_with_parent(pool)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        reaper = os.getpid()
        worker = os.fork()
        if worker == 0:
            die_with_parent(reaper)
            return
        # Signals are for the pool and the worker. These may come for the whole process group, as by Ctrl-C.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        _forget_handlers()
        write.write(b"%d\n" % worker)
        _close_files()
        code = _reap_until_end_of(worker)
        if code < 0 or board.interrupted:
            end_descendants()
        end_as(code)
    except BaseException:  # noqa: BLE001 - the last frame of this process
        os._exit(1)


def _forget_handlers() -> None:
    """Run none of the pool's signal handlers here.

    A library that starts a thread in each forked process, as OpenTelemetry's exporter, starts one here too,
    before signals are blocked: they reach that thread.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)


def _close_files() -> None:
    """Close the pool's connections and pipes, so that only the pool and the worker hold them open."""
    for number in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if number > _STDERR:
            with suppress(OSError):  # the one by which this folder was read
                os.close(number)


def _reap_until_end_of(worker: int) -> int:
    """Reap all that ends below this process; return the worker's exit code, negative: the signal's number."""
    while True:
        # The worker's pid stays its own until this process ends: the pool may send signals to it.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # only with WNOHANG
        if ended.si_pid == worker:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        os.waitpid(ended.si_pid, 0)
