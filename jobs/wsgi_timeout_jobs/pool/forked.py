"""What a forked child does before it becomes a worker, and how it ends without running the parent's code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from wsgi_timeout import tracing
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.reloading import Reloader
from wsgi_timeout.target_hints import why_it_failed
from wsgi_timeout_jobs.apps.other_python.process import AppChanged
from wsgi_timeout_jobs.process.board import Board

#: Exit codes of a child.
EXIT_LOAD_FAILED = 3
EXIT_RELOAD = 4

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Signals for which gunicorn reopens logs or starts a new master; a pool ignores them.
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
#: Signals that are blocked during a fork.
HELD = (*STOPS, *IGNORED, signal.SIGHUP)


def be_child(
    work: Callable[[], None], board: Board, target: str, *, reload: bool, loaded_before: bool
) -> None:
    """Run `work` and end this process; never returns.

    `loaded_before`: another child has loaded the target, so its name is right.
    """
    code = 1
    reloader = Reloader() if reload else None
    try:
        _default_signals()
        if reloader:
            reloader.start()
        # Exit functions that the parent has registered must not run here; those of the app must.
        atexit._clear()  # noqa: SLF001
        work()
        tracing.flush()
        atexit._run_exitfuncs()  # noqa: SLF001
        code = EXIT_RELOAD if reloader else 0
    except AppChanged:
        code = EXIT_RELOAD
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        # In one write, so that lines of several processes do not mix.
        sys.stderr.write(_complaint(error, board, target))
        if not board.ready:
            code = _load_failed(error, reloader, loaded_before=loaded_before)
    finally:
        # Flushing may fail if nobody reads them; this process must end in any case.
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _complaint(error: BaseException, board: Board, target: str) -> str:
    if isinstance(error, ConfigurationError):
        return f"wsgi-timeout: {error}\n"
    failed = f"wsgi-timeout: importing {target!r} failed, see above{why_it_failed(target, error)}\n"
    end = "" if board.ready else failed
    return "".join(traceback.format_exception(error)) + end


def _load_failed(error: BaseException, reloader: Reloader | None, *, loaded_before: bool) -> int:
    """Return the exit code of a child that could not load the app; with `--reload` wait for an edit first."""
    mistyped = isinstance(error, ConfigurationError) and not loaded_before
    if reloader is None or mistyped:
        return EXIT_LOAD_FAILED
    reloader.wait()
    return EXIT_RELOAD


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, *STOPS, *IGNORED):
        signal.signal(number, signal.SIG_DFL)
    # The pool tells the child when to stop. Not SIG_IGN, which programs that the app starts would inherit.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
