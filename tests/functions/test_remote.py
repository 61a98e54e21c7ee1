"""`remote`: nobody but its caller has the call's id, so nothing is kept or done that he does not wait for."""

import signal
import sys

import pytest
from harness import APPS, Process, until

from wsgi_timeout.errors import CallTimedOut
from wsgi_timeout.store import keys

pytestmark = pytest.mark.usefixtures("here")


def records(site):
    """Return the records of the site's functions, by key."""
    redis = site.redis.client
    found = {key: redis.hgetall(key) for key in redis.scan_iter(keys.call("*"))}
    name = f"{site.name}:functions".encode()
    return {key: record for key, record in found.items() if record.get(b"name") == name}


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
def test_a_result_is_not_kept_when_it_was_had(app, site, size):
    """What was returned lies in Redis no more, also in chunks, and is not counted any more."""
    before = set(site.redis.client.scan_iter("wt:value:*"))
    assert len(app.blob.remote(size)) == size
    assert set(site.redis.client.scan_iter("wt:value:*")) <= before
    until(lambda: not records(site), what="no record")
    until(lambda: int(site.redis.client.hget(keys.buffered(f"{site.name}:functions"), "*") or 0) < 1000)


def test_an_exception_is_not_kept_either(app, site):
    """Nor is what a function raised."""
    with pytest.raises(ValueError, match="xxx"):
        app.raises_long.remote(3)
    until(lambda: not records(site), what="no record")


def test_who_is_interrupted_cancels_what_he_waits_for(app, site, gate):
    """A handler that times out in `remote` ends the call there: its process is free for others."""
    call = app.waits_for.spawn(str(gate), "inner")
    until(lambda: site.runs("inner"), 20, "the inner call")
    with pytest.raises(CallTimedOut):
        call.get()
    inner = [key for key in records(site) if not key.endswith(call.object_id.encode())]
    assert len(inner) == 1
    until(lambda: records(site)[inner[0]][b"state"] == b"ended", what="its end")
    assert records(site)[inner[0]][b"outcome"] == b"cancelled"
    assert app.add.remote(1, 2) == 3


CALLER = "import sys, spawned; spawned.held.remote(*sys.argv[1:])"


@pytest.mark.slow
def test_a_caller_that_was_killed_is_waited_for_by_nobody(app, site, gate):
    """Its call is cancelled once it has not said for long that it waits; no result is kept for it."""
    own = {**site.env, "REDIS_URL": site.redis.url, "WSGI_TIMEOUT_NAME": site.name}
    before = set(records(site))
    caller = Process([sys.executable, "-c", CALLER, gate, "orphan"], env=own, cwd=APPS)
    until(lambda: site.runs("orphan"), what="the run")
    ((key, record),) = [(key, record) for key, record in records(site).items() if key not in before]
    assert int(record[b"result_ttl"]) <= 600
    call_id, asked = key.decode().removeprefix(keys.call("")), keys.abandon_times(f"{site.name}:functions")
    due = site.redis.client.zscore(asked, call_id)
    # While it lives it says again and again that it waits.
    until(lambda: site.redis.client.zscore(asked, call_id) > due, what="another word of the caller")
    caller.stop(signal.SIGKILL)
    site.redis.client.zadd(asked, {call_id: 1})
    until(lambda: site.runs("orphan-finally"), what="the end of the function")
    until(lambda: site.redis.client.hget(key, "outcome") == b"cancelled", what="a cancelled call")
    assert app.add.remote(1, 2) == 3


def test_what_was_returned_leaves_no_note(app, site):
    """Once it has its result nothing says that its caller waits."""
    asked = keys.abandon_times(f"{site.name}:functions")
    before = set(site.redis.client.zrange(asked, 0, -1))
    assert app.add.remote(1, 2) == 3
    until(lambda: set(site.redis.client.zrange(asked, 0, -1)) <= before, what="no note")
