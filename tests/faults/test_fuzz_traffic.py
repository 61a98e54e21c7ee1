"""Junk in the keys of calls that stream, upload, run functions or retry: both halves live and serve."""

import http.client
import json
import os
import random
import threading
import time
from contextlib import suppress

import pytest
import redis
from harness import ask, follow, until

from wsgi_timeout.store import keys, rq_state

SEED = int(os.environ.get("SEED", "20261128"))
ROUNDS = int(os.environ.get("ROUNDS", "40"))

#: What the web half is asked for: each makes keys of other kinds.
TRAFFIC = [
    ("GET", "/events", None),
    ("GET", "/download", None),
    ("POST", "/upload", b"x" * 300_000),
    ("POST", "/spawn", b""),
    ("POST", "/remote", b""),
]
#: Odd in any place; then what fits there, and comes at the wrong time.
ODD = [b"", b"\xff\xfe", b"-1", b"1e15", b"9" * 40, b"nan", b"0x10", b"[" * 20_000, b"\x02\xff", b"\0" * 9]
STATES = [b"queued", b"running", b"delayed", b"ended", b"complete", b"broken", b"done", b"lost", b"fc-", b"1"]
#: RQ's commands to a worker, none of them whole.
COMMANDS = [
    {"command": "stop-job"},
    {"command": "stop-job", "job_id": {"a": [1]}},
    {"command": "stop-job", "job_id": "fc-\udcff"},
    {"command": "kill-horses", "job_id": None},
    {"command": ["shutdown"]},
    {"command": None},
    ["shutdown"],
    7,
]
#: Written to inboxes of both halves, behind a call's id or none.
MESSAGES = [b"", b" ", b" 1", b" 1 99999999999 x", b" x y z", b" 1 5 \xff\xff\xff\xff\xffbody", b" 1 -3 abc"]

#: Patterns of keys, of which one with what is in it is chosen in each round.
PATTERNS = [
    *("wt:call:*", "wt:in:*", "wt:out:*", "wt:args:*", "wt:value:*", "rq:job:*"),
    *(
        "wt:delayed:*",
        "wt:asked:*",
        "wt:buffered:*",
        "wt:held:*",
        "wt:leases:*",
        "wt:inbox:*",
        "wt:sequence:*",
    ),
    *("wt:worker:*", "wt:web:*", "wt:failed:*", "wt:done:*", "wt:gone:*", "wt:gone-ids:*"),
    *("rq:queue:*", "rq:wip:*", "rq:worker:*", "rq:workers*", "rq:queues"),
]


class Junk:
    """Writes one odd thing at a time into keys that are in use, where it can be read as what it is not."""

    def __init__(self, client, seed):
        self._client, self._rng = client, random.Random(seed)
        #: What was written.
        self.done = []

    def write(self):
        pattern = self._rng.choice(PATTERNS)
        found = sorted(self._client.scan_iter(pattern, count=1000))
        if not found:
            return
        key = self._rng.choice(found)
        kind = self._client.type(key).decode()
        with suppress(redis.exceptions.ResponseError):  # it is gone, or another by now
            self.done.append((key, kind, getattr(self, f"_{kind}")(key)))

    def _value(self, key):
        if key.startswith(b"wt:inbox:"):
            ids = [found.removeprefix(b"wt:call:") for found in self._client.scan_iter("wt:call:*")]
            return self._rng.choice([b"\xff", *ids]) + self._rng.choice(MESSAGES)
        return self._rng.choice(ODD + STATES)

    def _string(self, key):
        value = self._value(key)
        self._client.set(key, value, keepttl=True)
        return value[:20]

    def _hash(self, key):
        fields = self._client.hkeys(key)
        field, value = self._rng.choice([*fields, b"\xff", b"0", b"window", b"seen"]), self._value(key)
        if self._rng.random() < 0.2:
            self._client.hdel(key, field)
            value = b"deleted"
        else:
            self._client.hset(key, field, value)
        return field[:40], value[:20]

    def _list(self, key):
        value, put = self._value(key), self._rng.choice(["lpush", "rpush"])
        getattr(self._client, put)(key, value)
        return put, value[:20]

    def _zset(self, key):
        members = self._client.zrange(key, 0, -1)
        member = self._rng.choice([*members, self._value(key)])
        score = self._rng.choice([0, -1, 1e300, float("inf"), float("-inf")])
        self._client.zadd(key, {member: score})
        return member[:40], score

    def _set(self, key):
        value = self._value(key)
        self._client.sadd(key, value)
        return value[:20]

    def command(self, worker):
        self._client.publish(rq_state.command_channel(worker), json.dumps(self._rng.choice(COMMANDS)))


def visit(site, number):
    """Ask for one kind of traffic; what comes of it is nobody's while there is junk."""
    method, target, body = TRAFFIC[number % len(TRAFFIC)]
    with suppress(OSError, http.client.HTTPException):
        ask(site.web.port, target, method, body=body)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_junk_in_what_calls_use(deploy, redis_server, seen):
    """Whatever becomes of the calls that it hits: no process ends, and new calls and functions are served."""
    site = deploy(
        "fuzzed:stub",
        pool=("--processes", "2", "--function-processes", "1"),
        secret="of the fuzz",
        wait_seconds=4,
        event_streams="resumable",
        inline_body=1000,
        buffer=100_000,
        abandon_after=5,
        retry_backoff=0.2,
        function_result_ttl=60,
    )
    junk, client, seconds = Junk(redis_server.client, SEED), redis_server.client, []
    for number in range(ROUNDS):
        threading.Thread(target=visit, args=(site, number), daemon=True).start()
        deadline = time.monotonic() + junk_seconds(number)
        while time.monotonic() < deadline:
            junk.write()
            time.sleep(0.05)
        with suppress(redis.exceptions.ResponseError):
            for worker in client.hkeys(keys.leases(site.name)):
                junk.command(worker.decode(errors="replace"))

        def served():
            return follow(site.web.port, "/fast")[-1].status == 200

        written = time.monotonic()
        until(served, 60, f"a new call after {junk.done[-12:]}")
        seconds.append(time.monotonic() - written)
    seen("a new call is served", seconds)
    until(lambda: follow(site.web.port, "/remote", "POST")[-1].status == 200, 60, "a function's result")
    assert site.pool.popen.poll() is None
    assert site.web.popen.poll() is None
    # What is odd in a key that all share must not reach the next test.
    client.flushdb()


def junk_seconds(number):
    """Return for how long junk is written beside one visit: while it begins, or until it should end."""
    return 0.3 if number % 2 else 0.9
