"""Which function calls have run on this machine, kept where a writer to Redis cannot reach it.

A call is signed, and its record could be put back as it was before it ran: by whoever can write to Redis,
as often as he likes. So each run is noted in a file of this user's before it begins, until the time is over
in which the call may run at all; that time is part of what is signed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

from wsgi_timeout.errors import PayloadRefused

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds that the clocks of two machines may differ.
_SKEW_SECONDS = 600.0
#: Seconds that a process waits for another one at the file.
_LOCKED_SECONDS = 5.0
#: Of so many notes one also forgets those that are over.
_FORGET_EVERY = 200
#: Runs of a call that has ended.
_NO_MORE = 1_000_000

_TABLE = "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, count INTEGER, until REAL) WITHOUT ROWID"
_NOTE = (
    "INSERT INTO runs VALUES (?, 1, ?) ON CONFLICT (id) DO UPDATE SET count = count + 1 WHERE count < ? "
    "RETURNING count"
)

_lock = threading.Lock()
_in_memory: dict[str, int] = {}


class _State:
    """What this process knows of the file."""

    notes = 0
    failed = False
    #: Open files by process: one that was opened before a fork is never used, nor closed, in the child.
    files: ClassVar[dict[int, sqlite3.Connection]] = {}


def begin(call_id: str, runs: int, until: float) -> None:
    """Note a run of a call, of which there may be `runs` up to `until`, a time since 1970.

    Raises:
        PayloadRefused: it has had all of them here, or its time is over.
    """
    now = time.time()
    if until and now > until + _SKEW_SECONDS:
        raise PayloadRefused(f"call {call_id} comes later than it may run: who else writes to this Redis?")
    if not _noted(call_id, runs, until + _SKEW_SECONDS, now):
        raise PayloadRefused(f"call {call_id} has run here already: who else writes to this Redis?")


def end(call_id: str) -> None:
    """Note that a call has ended: no run of it is left."""
    try:
        with _lock, _file() as file:
            file.execute("UPDATE runs SET count = ? WHERE id = ?", (_NO_MORE, call_id))
    except (OSError, sqlite3.Error):
        if call_id in _in_memory:
            _in_memory[call_id] = _NO_MORE


def _noted(call_id: str, runs: int, until: float, now: float) -> bool:
    try:
        with _lock, _file() as file:
            _State.notes += 1
            if _State.notes % _FORGET_EVERY == 1:
                file.execute("DELETE FROM runs WHERE until < ?", (now,))
            return file.execute(_NOTE, (call_id, until, runs)).fetchone() is not None
    except (OSError, sqlite3.Error) as error:
        if not _State.failed:
            _State.failed = True
            log.warning("which calls have run is noted in this process only: %s", error)
        with _lock:
            _in_memory[call_id] = _in_memory.get(call_id, 0) + 1
            return _in_memory[call_id] <= runs


def _file() -> sqlite3.Connection:
    """Return this process's connection; as a `with` block it is one transaction."""
    pid = os.getpid()
    if pid not in _State.files:
        path = _folder() / "runs.sqlite"
        path.touch(mode=0o600)
        # Any thread, one at a time: `_lock`.
        file = sqlite3.connect(path, timeout=_LOCKED_SECONDS, check_same_thread=False)
        # What a power cut takes is what ran in the last seconds before it.
        file.execute("PRAGMA synchronous = OFF")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(_TABLE)
        _State.files[pid] = file
    return _State.files[pid]


def _folder() -> Path:
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folder = base / "wsgi-timeout"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # No home, or one that cannot be written, as containers have.
        folder = Path(tempfile.gettempdir()) / f"wsgi-timeout-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else") from None
    return folder
