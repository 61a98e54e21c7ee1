"""A call's steps, done by hand: accepted, taken, ended, each as a process of ours does it."""

import contextlib

from halves import BothHalves

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.messages import CallRequest, ResponseHead
from wsgi_timeout.store.record import Attempt, NewCall, Outcome, new_id, new_token
from wsgi_timeout.store.streams import Limits, StreamWriter

W1, W2 = "calls-w1", "calls-w2"


HEAD = ResponseHead("200 OK", [("Content-Type", "text/plain")])
ROOMY = Limits(1000, 1000)


@contextlib.contextmanager
def fresh_calls(redis_server, name, *, workers=(W1,)):
    client = connect(redis_server.url + "?db=1", connections=2)
    client.flushdb()
    calls = BothHalves(client, name)
    for worker in workers:
        be_born(calls, worker)
    yield calls
    client.flushdb()
    client.close()


def be_born(calls, worker):
    birth = rq_state.worker_fields(calls.name, 42, "host", ("3.0.0", "3.11"))
    calls.workers.register(worker, f"pool-of-{worker}", {"target": "legacy:app"}, birth)


def a_request(**changes):
    values = {
        "environ": {"REQUEST_METHOD": "GET", "PATH_INFO": "/slow"},
        "body": b"",
        "entry": "",
        "timeout": 30.0,
        "inline_body": 100,
        "buffer": 1000,
        "max_result": 1000,
        "unread_timeout": 10.0,
        "result_ttl": 600.0,
    }
    return CallRequest(**{**values, **changes})


def a_call(**changes):
    """Return a call; one whose request has no body has it in a stream."""
    values = {
        "id": new_id(),
        "token": new_token(),
        "path": "/slow",
        "method": "GET",
        "request": a_request(),
        "max_attempts": 2,
        "max_queued": 10,
        "max_buffered_bytes": 10**9,
        "queue_ttl": 60.0,
    }
    values |= changes
    if values["request"].body is None:
        values.setdefault("payload_key", keys.request_body(values["id"]))
    return NewCall(**values)


def queued(calls, inbox="", **changes):
    call = a_call(**changes)
    calls.enqueue(call, inbox)
    return call


def hold(calls, worker=W1):
    """Move the next call to a worker, as its BLMOVE does."""
    moved = calls.redis.lmove(rq_state.queue_key(calls.name), keys.held(worker), "LEFT", "RIGHT")
    return moved.decode()


def running(calls, worker=W1, inbox="", **changes):
    """Return a call whose first attempt runs."""
    call = queued(calls, inbox, **changes)
    assert hold(calls, worker) == call.id
    assert calls.attempts.take(call.id, worker) is not None
    return call


def ended(calls, worker=W1, **changes):
    """Return a call that was answered."""
    call = running(calls, worker, **changes)
    calls.attempts.finish(Attempt(call.id, 1, worker), Outcome.DONE, 600, response=(HEAD, b"body"))
    return call


def response_stream(calls, call_id, attempt, limits=ROOMY, budget=None):
    head = HEAD.pack()
    return StreamWriter(
        calls.scripts, call_id, "writer", limits, ttl=60, attempt=attempt, head=head, budget=budget
    )


def queue(calls):
    return [item.decode() for item in calls.redis.lrange(rq_state.queue_key(calls.name), 0, -1)]


def woken(calls, inbox):
    return {item.partition(b" ")[0].decode() for item in calls.redis.lrange(keys.inbox(inbox), 0, -1)}


def everything(calls):
    """Return all that is in the database but wakes, which may come twice, and what the next recount mends."""
    read = {
        b"hash": calls.redis.hgetall,
        b"list": lambda key: calls.redis.lrange(key, 0, -1),
        b"set": calls.redis.smembers,
        b"zset": lambda key: calls.redis.zrange(key, 0, -1, withscores=True),
        b"string": calls.redis.get,
    }
    found = (key for key in calls.redis.scan_iter() if not key.startswith((b"wt:inbox:", b"wt:buffered:")))
    return {key: read[calls.redis.type(key)](key) for key in found}


def traces(calls, call):
    """Return the keys that name a call, or list it."""
    name = call.id.encode()
    return [key for key, value in everything(calls).items() if name in key or name in repr(value).encode()]


def forget(calls, call_id):
    """Delete a record, as its TTL would."""
    calls.redis.delete(keys.call(call_id))
