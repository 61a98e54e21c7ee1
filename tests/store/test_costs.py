"""What a call costs in Redis: commands and round trips, counted, so that they cannot creep up unseen."""

import http.client
import re
import threading
import time
from collections import Counter
from operator import itemgetter
from statistics import median

import pytest
from halves import BothHalves
from harness import ask, until

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.lua_scripts import digest
from wsgi_timeout.store.messages import CallRequest, FunctionRequest, ResponseHead
from wsgi_timeout.store.record import NewCall, Outcome, new_id, new_token

#: Requests of one count.
REQUESTS = 200
#: Commands that one call may cost, those inside scripts counted.
COMMANDS = 27
#: Commands a second of an idle web process and a pool of one worker, with a lease of ten seconds.
IDLE_COMMANDS = 5
#: What one renewal of its leases costs a pool.
RENEWAL_COMMANDS = 3
#: Round trips on a request's way: enqueue, take, finish, and the two that block for a call and for its end.
ROUND_TRIPS = 5
#: What every call needs: scripts and what they do to records, queue, job, registry and inbox.
ALWAYS = {
    *("evalsha", "blmove", "blmpop", "unlink", "exists"),
    *(
        "rpush",
        "lpush",
        "hincrby",
        "hget",
        "hdel",
        "time",
        "hset",
        "hmget",
        "expire",
        "zadd",
        "zrem",
        "lrem",
    ),
}

#: What a browser sends when a person goes to a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

HEAD = ResponseHead("200 OK", [("Content-Type", "text/plain")])


@pytest.fixture(scope="module")
def site(deploy):
    site = deploy(pool=("--processes", "1"), wait_seconds=20, log_level="WARNING")
    for _ in range(20):
        assert ask(site.web.port, "/fast").status == 200
    return site


def requests(port, count=REQUESTS, headers=None):
    """Send so many requests, one after the other, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(count):
        connection.request("GET", "/fast", headers=headers or {})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()


def commands(server):
    """Return how often each command was executed so far, inside of scripts too."""
    found = server.client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()})


def more_than_idle(count, action):
    """Return what `action` adds to what `count()` returns, without what is added by as much idle time."""
    start, started = count(), time.monotonic()
    action()
    end, seconds = count(), time.monotonic() - started
    time.sleep(seconds)
    return (end - start) - (count() - end)


class Monitor:
    """Notes what clients send while it is on: one word a command, no commands inside of scripts."""

    def __init__(self, server):
        self.sent = []
        self._monitor = server.client.monitor()
        self._thread = threading.Thread(target=self._run)
        self._server = server

    def __enter__(self):
        self._monitor.__enter__()
        self._thread.start()
        return self

    def _run(self):
        while True:
            heard = self._monitor.next_command()
            word, *rest = heard["command"].split(maxsplit=2)
            word = "DELETIONS" if rest[:1] == [digest("forget")] else word.upper()
            if word == "ECHO":
                return
            if heard["client_type"] != "lua":
                self.sent.append(word)

    def count(self):
        return Counter(self.sent)

    def __exit__(self, *_):
        self._server.client.echo("done")
        self._thread.join()
        self._monitor.__exit__(None, None, None)


def test_commands_of_a_request(site, redis_server):
    """A small request costs 27 commands from its first byte to the last trace of it."""
    spent = more_than_idle(lambda: commands(redis_server), lambda: requests(site.web.port))
    # Calls are deleted many at a time, by five commands; few at a time by a slow machine.
    deletions = 5 * (spent["unlink"] - REQUESTS)
    # Two and a half for what observers ask meanwhile, and recounts of the calls that they find.
    assert COMMANDS / 2 < (sum(spent.values()) - deletions) / REQUESTS < COMMANDS + 2.5, spent


@pytest.mark.parametrize("headers", [{}, NAVIGATION], ids=["program", "person"])
def test_round_trips_of_a_request(site, redis_server, headers):
    """A small request takes five round trips, a person's too, and none more to have its call deleted."""
    with Monitor(redis_server) as monitor:
        counted = more_than_idle(monitor.count, lambda: requests(site.web.port, headers=headers))
    deletions = counted.pop("DELETIONS", 0)
    # Observers look around every second or less often, while there are calls: on nobody's way.
    counted = {word: count for word, count in counted.items() if count >= REQUESTS / 2}
    assert sum(counted.values()) / REQUESTS < ROUND_TRIPS + 0.5, counted
    # After its answer, and for many calls at once when there are many.
    assert deletions <= REQUESTS
    assert set(counted) >= {"EVALSHA", "BLMOVE", "BLMPOP"}


def test_a_backlog_is_worked_off_with_fewer(site, redis_server):
    """While calls wait, a worker takes the next one with its script, and does not block for it."""
    queue = rq_state.queue_key(site.name)
    (worker,) = site.pool.workers()
    (worker_id,) = redis_server.client.hkeys(keys.leases(site.name))
    held = keys.held(worker_id.decode())
    crowd = [threading.Thread(target=requests, args=(site.web.port, 1)) for _ in range(40)]
    worker.suspend()
    for client in crowd:
        client.start()
    # Its BLMOVE, if it had sent one, has got one of them.
    until(lambda: sum(map(redis_server.client.llen, (queue, held))) == 40, what="the backlog")
    with Monitor(redis_server) as monitor:
        worker.resume()
        for client in crowd:
            client.join()
    counted = Counter(monitor.sent)
    # One that finds nothing more.
    assert counted["BLMOVE"] <= 3, counted
    assert counted["DELETIONS"] <= 40, counted


def test_nothing_is_paid_for_what_a_call_does_not_use(site, redis_server):
    """A small call makes no stream, no progress, no delayed entry, no arguments; a person's no note."""
    there, before = set(redis_server.client.scan_iter("wt:*")), commands(redis_server)
    requests(site.web.port, headers=NAVIGATION)
    spent = commands(redis_server) - before
    used = {name for name, count in spent.items() if count >= REQUESTS / 2}
    assert used <= ALWAYS, used - ALWAYS
    left = {key.split(b":")[1] for key in set(redis_server.client.scan_iter("wt:*")) - there}
    assert not left & {b"in", b"out", b"args", b"value", b"delayed", b"gone", b"first", b"hand"}


# -- with many calls pending


@pytest.fixture
def calls(redis_server):
    calls = BothHalves(connect(redis_server.url, connections=2), "costs")
    calls.workers.register("w", "pool", {"target": "x:app", "wire": "1", "folder": "/"}, {"birth": "now"})
    yield calls
    calls.workers.recover("w", None, "the test is over")
    for pattern in ("*costs*", "wt:call:*", "rq:job:*"):
        for batch in _batches(redis_server.client.scan_iter(pattern, 10_000)):
            redis_server.client.unlink(*batch)


def _batches(found, size=5000):
    batch = []
    for item in found:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


PENDING = """
for i = 1, ARGV[1] do
  local id = 'fc-pending-' .. redis.call('HINCRBY', KEYS[2], '#', 1)
  redis.call('RPUSH', KEYS[1], id)
  redis.call('HSET', 'wt:call:' .. id, 'state', 'queued', 'attempt', '0', 'name', 'costs',
    'seq', redis.call('HINCRBY', KEYS[2], '#', 1), 'request', '', 'inboxes', 'inbox', 'expires', ARGV[2],
    'result_ttl', '60', 'max_attempts', '1', 'bytes', '200')
  redis.call('EXPIRE', 'wt:call:' .. id, 600)
end
"""


def fill(calls, count):
    """Have so many calls wait in the queue."""
    script = calls.redis.register_script(PENDING)
    for _ in range(0, count, min(count, 5000)):
        script(
            keys=[rq_state.queue_key("costs"), keys.buffered("costs")],
            args=[min(count, 5000), int(time.time() * 1000) + 600_000],
        )


def a_request():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}
    return CallRequest(environ, b"", "", 60.0, 65536, 1 << 20, 1 << 20, 60.0, 60.0)


def a_call(request):
    return NewCall(new_id(), new_token(), "/", "GET", request, 1, 1_000_000, 60.0, 10**12)


def cost(redis_server, action):
    """Return what an action executes, by command, as the median of twenty."""
    action()
    spent = []
    for _ in range(20):
        before = commands(redis_server)
        action()
        spent.append(commands(redis_server) - before)
    # What others of this server run now and then is in fewer than half of them.
    medians = {name: median(each[name] for each in spent) for name in set().union(*spent) - {"info"}}
    return {name: round(count) for name, count in medians.items() if count}


def costs(redis_server, calls):
    """Return the costs of all that a call goes through, and of a look at it."""
    placed = a_call(a_request())
    calls.enqueue(placed, "inbox")

    def through():
        calls.enqueue(a_call(a_request()), "inbox")
        taken = calls.attempts.take("", "w")
        calls.attempts.finish(
            taken.attempt,
            Outcome.DONE,
            60,
            response=(HEAD, b"ok"),
        )

    def spawn():
        request = FunctionRequest("f", b"", 60.0, 0, 1.0, 65536, 1 << 20, 60.0)
        calls.enqueue(a_call(request), "inbox")

    return {
        "through": cost(redis_server, through),
        "spawn": cost(redis_server, spawn),
        "status": cost(redis_server, lambda: calls.status(placed.id)),
        "authorize": cost(redis_server, lambda: calls.authorize(placed.id, placed.token, "/")),
        "renew": cost(redis_server, lambda: calls.workers.renew(["w"])),
    }


@pytest.mark.timeout(120)
def test_the_cost_does_not_grow_with_what_is_pending(redis_server, calls):
    """With 100,000 calls pending each step costs what it costs with a few."""
    fill(calls, 30)
    few = costs(redis_server, calls)
    fill(calls, 100_000)
    many = costs(redis_server, calls)
    assert calls.redis.llen(rq_state.queue_key("costs")) > 100_000
    assert many == few
    assert sum(few["through"].values()) <= COMMANDS
    assert sum(few["status"].values()) <= 8


@pytest.mark.timeout(120)
def test_the_place_in_a_long_queue_is_told_at_once(redis_server, calls):
    """The last of 100,000 learns its place as fast as the first one: no list is walked."""
    fill(calls, 100_000)
    last = a_call(a_request())
    calls.enqueue(last, "inbox")

    def at_once():
        redis_server.client.config_resetstat()
        assert int(calls.status(last.id)["position"]) == 100_001
        stats = redis_server.client.info("commandstats")
        return (
            not re.search("lrange|lpos", " ".join(stats)) and stats["cmdstat_evalsha"]["usec_per_call"] < 2000
        )

    # Again, as others of this server read lists of their own now and then.
    until(at_once, 5, "a status in constant time")


# -- last, since by now nothing has happened for a while


def test_commands_while_nothing_happens(site, redis_server):
    """An idle web process and a pool send Redis few commands: nobody blocks in a look at an inbox."""
    until(lambda: not redis_server.client.exists(keys.buffered(site.name)), 15, "the last recount")
    until(lambda: redis_server.client.info("clients")["blocked_clients"] == 1, 15, "a worker blocks alone")
    least = min((idle_commands(redis_server) for _ in range(3)), key=itemgetter(0))
    assert 1 < least[0] < IDLE_COMMANDS, least


def idle_commands(redis_server):
    """Return how many commands a second came in three seconds, but for more frequent renewals, and which."""
    before, began = commands(redis_server), time.monotonic()
    time.sleep(3)
    spent, seconds = commands(redis_server) - before, time.monotonic() - began
    # One look at all types every minute, and what others ask for this count.
    for name in ("type", "info"):
        del spent[name]
    # A lease of two seconds is renewed five times as often.
    more_often = RENEWAL_COMMANDS * (spent["evalsha"] / seconds - 0.33)
    return sum(spent.values()) / seconds - more_often, spent
