"""`wsgi-timeout calls --failed`: what ended otherwise than done, in a list that is bounded."""

import json
import os
import subprocess
import sys

import pytest
from call_steps import W1, W2, be_born, ended, fresh_calls, queued, running
from harness import environment

from wsgi_timeout.store import keys
from wsgi_timeout.store.failed_calls import FailedCall, failed_calls
from wsgi_timeout.store.record import Attempt, Outcome

#: What the list keeps of one name.
KEPT = 1000


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "shop") as calls:
        yield calls


def listed(redis_server, *options):
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "calls", *options]
    env = {**environment(), "REDIS_URL": redis_server.url + "?db=1", "PATH": os.environ["PATH"]}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.slow
def test_each_fate_but_done_is_listed(calls, redis_server):
    """Lost, cancelled, timed out and raised calls stand there with what they were, the newest first."""
    ended(calls)
    be_born(calls, W2)
    lost = running(calls, W2, method="POST", path="/orders")
    calls.workers.recover(W2, None, "its worker died while it ran (signal 9)")
    raised = running(calls, method="CALL", path="slow_operation")
    detail = "Traceback:\n" + "  deep\n" * 1000 + "ValueError: as intended"
    calls.attempts.finish(Attempt(raised.id, 1, W1), Outcome.RAISED, 600, detail=detail)
    cancelled = queued(calls, path="/slow")
    calls.end(cancelled.id, Outcome.CANCELLED, "cancelled", 600)

    rows = [json.loads(line) for line in listed(redis_server, "--failed", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == [cancelled.id, raised.id, lost.id]
    assert [row["call"] for row in rows] == ["GET /slow", "slow_operation()", "POST /orders"]
    assert [(row["outcome"], row["attempts"]) for row in rows] == [
        ("cancelled", 0),
        ("raised", 1),
        ("lost", 1),
    ]
    assert {row["name"] for row in rows} == {"shop"}
    assert rows[2]["detail"] == "its worker died while it ran (signal 9)"
    assert len(rows[1]["detail"]) == 500
    assert rows[0]["when"].endswith("+00:00")

    head, *lines = listed(redis_server, "--failed").stdout.splitlines()
    assert head.split() == ["ID", "NAME", "CALL", "OUTCOME", "ATTEMPTS", "WHEN", "DETAIL"]
    assert [line.split()[0] for line in lines] == [cancelled.id, raised.id, lost.id]
    assert lines[1].endswith("ValueError: as intended")
    assert len(listed(redis_server, "--failed", "--limit", "1").stdout.splitlines()) == 2
    assert len(listed(redis_server, "--failed", "--name", "bakery").stdout.splitlines()) == 1


def test_a_repeat_lists_nothing_twice(calls):
    """An outcome whose reply was lost, and that is recorded again, is one line."""
    call = running(calls)
    for _ in range(2):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.RAISED, 600, detail="as intended")
        calls.end(call.id, Outcome.TIMEOUT, "late", 600)
    (found,) = failed_calls(calls.redis, None, 100)
    assert isinstance(found, FailedCall)
    assert found.outcome == "raised"


def test_the_list_is_bounded(calls):
    """The list keeps the last thousand, small whatever the calls were, and goes by itself in the end."""
    for number in range(KEPT + 50):
        call = queued(calls, path="/" + "long" * 500, max_queued=KEPT * 2)
        calls.end(call.id, Outcome.CANCELLED, f"{'why ' * 500}{number}", 600)
    key = keys.failed(calls.name)
    assert calls.redis.llen(key) == KEPT
    assert calls.redis.memory_usage(key) < KEPT * 1024
    assert 0 < calls.redis.ttl(key) <= keys.FAILED_TTL
    details = [call.detail.rpartition(" ")[2] for call in failed_calls(calls.redis, "shop", KEPT)]
    assert sorted(map(int, details)) == list(range(50, KEPT + 50))


def test_a_call_that_is_done_costs_nothing(calls):
    """A call that is done writes to no list."""
    ended(calls)
    assert not calls.redis.exists(keys.failed(calls.name))


def test_what_cannot_be_listed_is_said(tmp_path):
    """A Redis that is away is one line that says so."""
    env = {**environment(), "REDIS_URL": f"unix://{tmp_path}/none", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "calls", "--failed"]
    away = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert away.returncode == 2
    assert away.stderr.startswith("wsgi-timeout: Redis does not answer: ")
    assert "Traceback" not in away.stderr
