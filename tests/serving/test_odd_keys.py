"""Junk in every kind of key: each of the operator's commands answers, and names what is odd once."""

import json
import os
import random
from collections import Counter
from dataclasses import asdict, replace

import pytest
from call_steps import W1, ended, queued, running
from commands import run_here
from halves import BothHalves
from harness import RedisServer
from junk import kinds, write_junk

from wsgi_timeout.store import keys, rq_state, web_list
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.junk import OTHER_TYPE
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.watching.exposition import Exposition

SEED = int(os.environ.get("SEED", "20261128"))
ROUNDS = int(os.environ.get("ROUNDS", "4"))
NAME = "odd"
WEB = web_list.WebProcess("host:1", "waitress", 4.0, None, 100, 150.0, "", "0", 0.0)


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def calls(server):
    """Calls in each state, a worker and a web process of one name, on a server with nothing else."""
    with connect(server.url, connections=2) as client:
        client.flushall()
        calls = BothHalves(client, NAME)
        birth = rq_state.worker_fields(NAME, 42, "host", ("3.0.0", "3.11"))
        calls.workers.register(W1, "pool", {"target": "legacy:app", "parent": "41"}, birth)
        web_list.tell(client, NAME, replace(WEB, clock=float(client.time()[0])))
        yield calls


def filled(calls):
    """Return the id of one call in each state."""
    cancelled = running(calls)
    calls.end(cancelled.id, Outcome.CANCELLED, "cancelled", 600)
    found = {"ended": ended(calls), "running": running(calls), "queued": queued(calls)}
    calls.redis.zadd(keys.delayed(NAME), {found["queued"].id: 1})
    return {state: call.id for state, call in found.items()}


def commands(call_id):
    return [
        *(("calls",), ("calls", "--json"), ("calls", "--failed"), ("calls", "--failed", "--json")),
        *(("calls", "--name", NAME), ("workers",), ("workers", "--json"), ("health",), ("doctor",)),
        *(("show", call_id), ("show", call_id, "--json"), ("retry", call_id), ("cancel", call_id)),
        *(("drain", "host:41"), ("resume", NAME)),
    ]


@pytest.mark.timeout(300)
def test_every_command_answers(calls, server):
    """Seeded junk in fields, entries and in place of keys: no command raises, none names a key twice."""
    rng = random.Random(SEED)
    for _ in range(ROUNDS):
        ids = filled(calls)
        call_id = rng.choice(list(ids.values()))
        meant = kinds(NAME, W1, "pool", call_id, {})
        done = [write_junk(calls.redis, rng, key) for key in rng.choices(list(meant.values()), k=6)]
        for words in commands(call_id):
            code, output, errors = run_here(*words, url=server.url)
            assert code in {0, 1, 2}, done
            assert output + errors or "--json" in words, (words, done)
            named = Counter(line.split(" is left out")[0] for line in errors.splitlines())
            assert all(count == 1 for count in named.values()), (words, errors)
            if "--json" in words:
                [json.loads(line) for line in output.splitlines()]
        scraped = {family.name: family.samples for family in Exposition(server.url).collect()}
        assert scraped["wsgi_timeout_redis_up"][0].value == 1, done
        calls.redis.flushall()
        calls.workers.register(W1, "pool", {"target": "legacy:app"}, {})


#: What each command reads, but for RQ's list of queues.
READ = {
    ("calls",): ("rq:queue:wt:<name>", "rq:wip:wt:<name>", "wt:delayed:<name>", "wt:done:<name>"),
    ("calls", "--failed"): ("wt:failed:<name>",),
    ("show", "ID"): ("wt:call:<id>",),
    ("workers",): ("wt:worker:<worker>", "rq:worker:<worker>", "wt:held:<worker>"),
    ("health",): ("wt:leases:<name>",),
    ("doctor",): ("wt:web:<name>", "rq:queue:wt:<name>", "wt:buffered:<name>"),
}


@pytest.mark.parametrize("kinds_read", ["its own", "rq:queues"])
@pytest.mark.parametrize("words", READ, ids=" ".join)
def test_a_key_of_another_type_is_named(calls, server, words, kinds_read):
    """Each command says once which of the keys that it reads hold another type of value."""
    call_id = filled(calls)["running"]
    spelt = kinds(NAME, W1, "pool", call_id, {})
    odd = [spelt[kind] for kind in (READ[words] if kinds_read == "its own" else (kinds_read,))]
    for key in odd:
        calls.redis.set(key, "x")  # none of these is a string
    _, output, errors = run_here(*(call_id if word == "ID" else word for word in words), url=server.url)
    if words == ("show", "ID") and kinds_read == "rq:queues":
        assert call_id in output  # a call that is kept is found without it
        return
    for key in odd:
        if words == ("doctor",):
            assert output.count(f"warn  junk: {key}: {OTHER_TYPE}") == 1
        else:
            assert errors.count(f"{key} is left out: {OTHER_TYPE}") == 1


def test_doctor_leaves_out_what_no_web_process_told(calls, server):
    """What cannot be read, or has a value of another type, is named; the process beside it is looked at."""
    told = asdict(WEB)
    odd = [
        b"\xff 1 {}",
        b"1 x " + b"[" * 20_000,
        b"1 x null",
        b"nan x " + json.dumps(told).encode(),
        b"9" * 400 + b" x " + json.dumps(told).encode(),
        *(
            b"1 x " + json.dumps({**told, **change}).encode()
            for change in ({"process": 5}, {"threads": "4"}, {"clock": 10**400}, {"max_waiting": None})
        ),
    ]
    calls.redis.hset(keys.web(NAME), mapping=dict(enumerate(odd)))
    _, output, _ = run_here("doctor", url=server.url)
    assert output.count(f"junk: {keys.web(NAME)}: an entry is none of ours") == 1
    assert output.count(" of odd under waitress") == 1
