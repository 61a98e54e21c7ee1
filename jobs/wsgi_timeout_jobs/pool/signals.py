"""The signals that a pool takes, as gunicorn takes them, and what it tells systemd."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from contextlib import suppress

from wsgi_timeout.terminal import has_terminal
from wsgi_timeout_jobs.pool.children import Children
from wsgi_timeout_jobs.pool.forked import IGNORED, STOPS

log = logging.getLogger("wsgi_timeout.pool")


def install(children: Children) -> int:
    """Install the pool's signal handlers; return a file descriptor that is readable after a signal.

    TERM, INT and QUIT stop the pool and let running calls end, a second one does not. HUP loads the app
    anew. USR1 and USR2 do nothing.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *IGNORED):
        signal.signal(number, lambda *_: None)

    def stop(*_: object) -> None:
        if children.stopping_since is None or children.draining:
            tell_systemd("STOPPING=1")
            children.stop()
        else:
            children.stop_now()

    had_terminal = has_terminal()

    def hang_up(*_: object) -> None:
        if children.stopping_since is not None:
            return
        if had_terminal and not has_terminal():
            stop()  # the terminal was closed
        else:
            children.reload()

    for number in STOPS:
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, hang_up)
    return read


def wait(wakeup: int, seconds: float) -> None:
    """Block until a signal, `seconds` at most; `wakeup` is what `install` returned."""
    select.select([wakeup], [], [], seconds)
    with suppress(BlockingIOError):
        while os.read(wakeup, 4096):
            pass


def tell_systemd(state: str) -> None:
    """Send a state such as "READY=1" to systemd, as sd_notify(3) does, if it started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(state.encode())
    except OSError as error:
        log.warning("systemd could not be told %s: %s", state, error)
