"""A function call runs once, whoever writes to Redis: what has run is noted where he cannot reach it."""

import os
import time

import pytest
from harness import APPS, Pool, environment, joined, until

from wsgi_timeout.errors import PayloadRefused
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout_jobs.attempt import run_once

SECRET = "of these tests, and long enough too"


@pytest.fixture
def notes(monkeypatch, tmp_path):
    """A folder of its own for the notes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    files = {}
    monkeypatch.setattr(run_once._State, "files", files)
    yield tmp_path
    for file in files.values():
        file.close()


@pytest.mark.parametrize("place", ["a file", "memory"])
def test_runs_are_counted(notes, monkeypatch, place):
    """A call runs as often as is signed, and no more once it has ended; also where no file can be written."""
    if place == "memory":
        monkeypatch.setattr(run_once, "_folder", lambda: (_ for _ in ()).throw(OSError("read-only")))
    later = time.time() + 1000
    run_once.begin(f"fc-one-{place}", 1, later)
    with pytest.raises(PayloadRefused, match="has run here already"):
        run_once.begin(f"fc-one-{place}", 1, later)
    run_once.begin(f"fc-three-{place}", 3, later)
    run_once.begin(f"fc-three-{place}", 3, later)
    run_once.end(f"fc-three-{place}")
    with pytest.raises(PayloadRefused, match="has run here already"):
        run_once.begin(f"fc-three-{place}", 3, later)


@pytest.mark.usefixtures("notes")
def test_what_is_too_late_does_not_run():
    """A call whose time is over is refused, since its note may be gone."""
    with pytest.raises(PayloadRefused, match="later than it may run"):
        run_once.begin("fc-late", 1, time.time() - 10_000)


def test_the_file_is_private(notes):
    """Nobody else on the machine reads which calls have run."""
    run_once.begin("fc-private", 1, time.time() + 1000)
    assert (notes / "wsgi-timeout" / "runs.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("notes")
def test_what_has_expired_is_found_by_its_time():
    """To forget expired notes, those of all other calls are not read, nor the file locked meanwhile."""
    run_once.begin("fc-kept", 1, time.time() + 1000)
    (file,) = run_once._State.files.values()
    plan = file.execute(f"EXPLAIN QUERY PLAN {run_once._FORGET}", (time.time(),)).fetchall()
    assert all("runs_until" in step for *_, step in plan)


@pytest.mark.slow
def test_a_call_that_is_put_back_into_the_queue_does_not_run_again(redis_server, tmp_path):
    """Its record is restored as it was before it ran: it is refused, by another process of the pool too."""
    name = f"once-{os.getpid()}"
    env = {**environment(secret=SECRET), "RUNS_FILE": os.devnull, "XDG_STATE_HOME": str(tmp_path)}
    with joined(redis_server.url, name, env):
        import spawned

        ran = tmp_path / "ran"
        call = spawned.touch.spawn(str(ran))
        redis = client().redis
        record = redis.dump(keys.call(call.object_id))
        job = redis.dump(rq_state.job_key(call.object_id))
        pool = Pool("spawned:stub", name, redis_server.url, "--function-processes", "2", env=env, cwd=APPS)
        try:
            call.get(timeout=30)
            ran.unlink()
            for _ in range(4):
                redis.restore(keys.call(call.object_id), 60_000, record, replace=True)
                redis.restore(rq_state.job_key(call.object_id), 60_000, job, replace=True)
                redis.rpush(rq_state.queue_key(f"{name}:functions"), call.object_id)
                until(lambda: call.status()["state"] == "ended", 20, what="its end")
                with pytest.raises(PayloadRefused, match="has run here already"):
                    call.get(timeout=30)
            assert not ran.exists()
        finally:
            pool.stop()
