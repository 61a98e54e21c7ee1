"""Records on this machine which function calls have run, so that a copied call does not run again.

Whoever can write to Redis can restore the record of a signed call as it was before it ran. Therefore each
run is noted in a file of this user before it begins, and kept until the time after which the call may not
run any more. That time is part of what is signed.
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

#: How many seconds the clocks of two machines may differ.
_SKEW_SECONDS = 600.0
#: Seconds for which a process waits for the lock of the file.
_LOCKED_SECONDS = 5.0
#: Every so many notes, expired ones are deleted.
_FORGET_EVERY = 200
#: The number of runs noted for a call that has ended: more than it may have.
_NO_MORE = 1_000_000

_TABLE = "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, count INTEGER, until REAL) WITHOUT ROWID"
#: Without it what has expired is looked for in all notes: for 0.4 s in half a million, the file locked.
_INDEX = "CREATE INDEX IF NOT EXISTS runs_until ON runs (until)"
_FORGET = "DELETE FROM runs WHERE until < ?"
_NOTE = (
    "INSERT INTO runs VALUES (?, 1, ?) ON CONFLICT (id) DO UPDATE SET count = count + 1 WHERE count < ? "
    "RETURNING count"
)

_lock = threading.Lock()
_in_memory: dict[str, int] = {}


class _State:
    """The open file of this process, and what it has noted."""

    notes = 0
    #: The calls that run here, and may run again.
    more: ClassVar[set[str]] = set()
    failed = False
    #: Open files by process id: SQLite forbids using, or closing, in a child what was opened before the fork.
    files: ClassVar[dict[int, sqlite3.Connection]] = {}


def begin(call_id: str, runs: int, until: float) -> None:
    """Note that a run of a call begins.

    Args:
        call_id: the call.
        runs: how many runs it may have.
        until: when it may not run any more, in seconds since 1970.

    Raises:
        PayloadRefused: it has had all its runs on this machine, or `until` is over.
    """
    now = time.time()
    if until and now > until + _SKEW_SECONDS:
        raise PayloadRefused(f"call {call_id} comes later than it may run: who else writes to this Redis?")
    if not _noted(call_id, runs, until + _SKEW_SECONDS, now):
        raise PayloadRefused(f"call {call_id} has run here already: who else writes to this Redis?")
    if runs > 1:
        _State.more.add(call_id)


def end(call_id: str, *, again: bool = False) -> None:
    """Note that a run has ended; unless it runs `again`, the call may not run any more."""
    if call_id not in _State.more:
        return  # it has had its only run, or none
    _State.more.discard(call_id)
    if again:
        return
    try:
        with _lock:
            _file().execute("UPDATE runs SET count = ? WHERE id = ?", (_NO_MORE, call_id))
    except (OSError, sqlite3.Error):
        if call_id in _in_memory:
            _in_memory[call_id] = _NO_MORE


def _noted(call_id: str, runs: int, until: float, now: float) -> bool:
    try:
        with _lock:
            file = _file()
            _State.notes += 1
            if _State.notes % _FORGET_EVERY == 1:
                file.execute(_FORGET, (now,))
            # All rows: with the last one the statement commits itself.
            return bool(file.execute(_NOTE, (call_id, until, runs)).fetchall())
    except (OSError, sqlite3.Error) as error:
        if not _State.failed:
            _State.failed = True
            log.warning("which calls have run is noted in this process only: %s", error)
        with _lock:
            _in_memory[call_id] = _in_memory.get(call_id, 0) + 1
            return _in_memory[call_id] <= runs


def _file() -> sqlite3.Connection:
    """Return this process's connection; each statement commits itself."""
    pid = os.getpid()
    if pid not in _State.files:
        path = _folder() / "runs.sqlite"
        path.touch(mode=0o600)
        # All threads use it, one at a time: `_lock`.
        file = sqlite3.connect(path, timeout=_LOCKED_SECONDS, check_same_thread=False, isolation_level=None)
        # A power cut loses the notes of the last seconds only.
        file.execute("PRAGMA synchronous = OFF")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(_TABLE)
        file.execute(_INDEX)
        _State.files[pid] = file
    return _State.files[pid]


def _folder() -> Path:
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folder = base / "wsgi-timeout"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # There is no home folder, or it is read-only, as in containers.
        folder = Path(tempfile.gettempdir()) / f"wsgi-timeout-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else") from None
    return folder
