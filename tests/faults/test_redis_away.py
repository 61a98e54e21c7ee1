"""Redis away or frozen with twenty calls running: none is lost, none runs twice, every result arrives."""

import hashlib
import os
import re
import signal
import time
from array import array
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from faults.proxy import Break
from harness import ask, follow, function_workers, joined, spawning_with, until

from wsgi_timeout.errors import RedisUnavailable
from wsgi_timeout.functions.client import client
from wsgi_timeout.store.connection import SOCKET_TIMEOUT

CALLS = 20
WAIT = 3.0
#: Seconds after an outage in which everything has arrived.
AFTER = 20.0
#: Seconds in which a new request is refused, however Redis is silent.
REFUSED = 20.0
#: Large enough for a stream both ways.
BODY = os.urandom(200_000)
NUMBERS = array("Q", range(50_000)).tobytes()

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SLOW = [pytest.mark.slow, pytest.mark.timeout(150)]
OUTAGES = [
    ("refused", 3),
    *(pytest.param("silent", seconds, marks=SLOW) for seconds in (4, 12)),
    *(pytest.param(how, seconds, marks=SLOW) for how in ("refused", "frozen") for seconds in (12, 30)),
]


@pytest.fixture
def outage(proxy, redis_server):
    """Return a function that takes Redis away, and one that brings it back."""

    def begin(how):
        if how == "refused":
            proxy.refuse()
        elif how == "silent":
            proxy.black_hole()
        else:
            os.kill(redis_server.process.pid, signal.SIGSTOP)

    def end():
        os.kill(redis_server.process.pid, signal.SIGCONT)
        proxy.heal()

    yield begin, end
    end()


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(CALLS + 1) as threads:
        yield threads


@pytest.fixture(scope="module")
def site(deploy, proxy):
    pool = ("--processes", "2", "--threads", str(CALLS // 2))
    return deploy(server=proxy, pool=pool, wait_seconds=WAIT, worker_wait=1)


def nobody_was_given_up(*processes):
    for process in processes:
        assert not re.search(r"no sign of life|given up|was lost|Traceback", process.output), process.output


@pytest.mark.parametrize(("how", "seconds"), OUTAGES)
def test_requests(site, threads, outage, gate, seen, how, seconds):
    """What runs while Redis is away runs on, and each client gets its answer after it; new ones get a 503."""
    begin, end = outage
    name = f"{how}-{seconds}"
    uploads = [f"/hash?tag={name}-upload-{n}&file={gate}" for n in range(CALLS // 2)]
    reads = [f"/numbers?tag={name}-read-{n}&size={len(NUMBERS)}&file={gate}" for n in range(CALLS // 2)]
    uploading = [threads.submit(follow, site.web.port, path, "POST", body=BODY) for path in uploads]
    reading = [threads.submit(follow, site.web.port, path) for path in reads]
    sent = time.monotonic()
    until(lambda: len([run for run in site.runs() if run.startswith(f"{name}-")]) == CALLS, 20, "all at work")

    begin(how)
    began = time.monotonic()
    refused = []
    while (gone := time.monotonic() - began) < seconds:
        if gone > seconds / 2:
            gate.touch()  # handlers end while nobody can be told
        asked = time.monotonic()
        answer = ask(site.web.port, f"/fast?tag=new-{name}-{len(refused)}")
        refused.append(time.monotonic() - asked)
        assert (answer.status, int(answer.header("Retry-After")) > 0) == (503, True)
    gate.touch()
    end()
    back = time.monotonic()

    _, late = wait([*uploading, *reading], AFTER)
    seen("until the last answer, from the end of the outage", [time.monotonic() - back])
    seen("until a new request was refused", refused)
    assert len(late) == 0
    # At the pace of the wait, however fast a Redis that is away can be noticed.
    assert (
        max(len(future.result()) for future in (*uploading, *reading)) <= (time.monotonic() - sent) / WAIT + 2
    )
    answers = [future.result() for future in uploading]
    expected = {"length": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
    assert [(chain[-1].status, chain[-1].json) for chain in answers] == [(200, expected)] * len(uploads)
    answers = [future.result() for future in reading]
    assert [(chain[-1].status, chain[-1].body == NUMBERS) for chain in answers] == [(200, True)] * len(reads)
    runs = [run.split()[0] for run in site.runs() if run.startswith(f"{name}-")]
    whole = [tag for tag in runs if tag.endswith("-whole")]
    assert len(runs) == len(set(runs)) == CALLS + len(whole)
    assert len(whole) == len(uploads)
    assert max(refused) < REFUSED
    assert ask(site.web.port, "/fast").status == 200
    # What was sent into a silence is executed when the server wakes, and then it is too late.
    assert [run for run in site.runs() if run.startswith(f"new-{name}-")] == []
    nobody_was_given_up(site.web, site.pool)


@pytest.mark.parametrize("how", ["refused", pytest.param("silent", marks=SLOW)])
def test_a_pool_that_starts_meanwhile(site, outage, how):
    """A pool that is started while Redis is away comes up when it is back, and says what it waits for."""
    begin, end = outage
    begin(how)
    pool = site.start_pool("--processes", "1", wait=False)
    try:
        pool.wait_for(r"Redis is away \(", 20)
        end()
        pool.wait_until_ready()
        nobody_was_given_up(pool)
    finally:
        assert pool.stop() == 0


@pytest.fixture(scope="module")
def functions(deploy, proxy):
    options = ("--processes", "1", "--function-processes", "2", "--threads", str(CALLS // 2))
    site = deploy("spawned:stub", server=proxy, pool=options, secret="any", worker_wait=10)
    until(lambda: function_workers(site.redis, site.name) == 2, 20, "the processes for functions")
    with joined(proxy.url, site.name, site.env) as patch:
        patch.setenv("WSGI_TIMEOUT_WORKER_WAIT", "0")
        import spawned

        yield site, spawned
        client().redis.close()


@pytest.mark.parametrize(("how", "seconds"), OUTAGES)
def test_functions(functions, threads, outage, gate, seen, how, seconds):
    """A wait for a result goes on through an outage; a poll says that it is not there yet."""
    site, app = functions
    begin, end = outage
    tag = f"function-{how}-{seconds}"
    calls = [app.held_blob.spawn(str(gate), tag, size) for size in (10, 3_000_000) * (CALLS // 2)]
    until(lambda: len(site.runs(tag)) == CALLS, 20, "all at work")
    timeouts = (None, 100) * (CALLS // 2)
    results = [threads.submit(call.get, timeout) for call, timeout in zip(calls, timeouts, strict=True)]
    records = [f"wt:call:{call.object_id}" for call in calls]
    until(lambda: all(site.redis.client.hget(record, "inboxes") for record in records), what="all who wait")

    begin(how)
    began = time.monotonic()
    while (gone := time.monotonic() - began) < seconds:
        if gone > seconds / 2:
            gate.touch()
        with pytest.raises(TimeoutError):
            calls[0].get(timeout=0)
        with pytest.raises(RedisUnavailable):
            app.add.spawn(1)
    gate.touch()
    end()
    back = time.monotonic()

    _, late = wait(results, AFTER)
    seen("until the last result, from the end of the outage", [time.monotonic() - back])
    assert len(late) == 0
    assert [len(future.result()) for future in results] == [10, 3_000_000] * (CALLS // 2)
    assert len(site.runs(tag)) == CALLS
    assert {call.status()["attempts"] for call in calls} == {1}
    assert app.add.spawn(1).get(timeout=20) == 1
    nobody_was_given_up(site.pool)


@pytest.mark.slow
def test_a_spawn_whose_reply_stays_away_is_sent_again(functions, threads, proxy, seen):
    """A spawn that was accepted, and hears nothing of it in time, is no refusal: sent again, it runs once."""
    site, app = functions
    swallowed = []

    def accepted(exchange):
        if not swallowed and b"CALL" in exchange.words and b"accepted" in exchange.reply:
            proxy.black_hole()
            swallowed.append(exchange)
        return False

    def heal_later():
        try:
            until(lambda: swallowed, 20, "the acceptance")
            time.sleep(SOCKET_TIMEOUT + 2)
        finally:
            proxy.heal()

    proxy.clear()
    proxy.break_at(Break.AFTER, accepted)
    healing = threads.submit(heal_later)
    with spawning_with(worker_wait=20.0):
        call = app.counted.spawn(7)
    healing.result(30)
    healed = time.monotonic()
    assert sum(b"CALL" in exchange.words for exchange in proxy.exchanges) >= 2
    assert call.get(timeout=20) == 7
    seen("the result, after the silence", [time.monotonic() - healed])
    assert site.runs("7") == ["7"]
    client().redis.close()


def test_a_full_redis(functions, threads, redis_server, gate):
    """While Redis takes no writes a spawn is refused; what runs ends, and its waiters get it."""
    site, app = functions
    call = app.held_blob.spawn(str(gate), "full", 10)
    until(lambda: site.runs("full"), 20, "the function at work")
    redis_server.client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(RedisUnavailable, match="maxmemory"):
            app.add.spawn(1)
        waiting = threads.submit(call.get)
        with pytest.raises(TimeoutError):
            call.get(timeout=0.2)
        gate.touch()
        assert waiting.result(20) == b"x" * 10
    finally:
        redis_server.client.config_set("maxmemory", "0")
    assert app.add.spawn(1).get(timeout=20) == 1
    nobody_was_given_up(site.pool)


def test_a_slow_redis(site, proxy, seen):
    """With a Redis that takes its time for every command a request is slower, and right."""
    proxy.delay_seconds = 0.05
    began = time.monotonic()
    try:
        answers = follow(site.web.port, "/mirror?tag=slow", "POST", body=BODY)
    finally:
        proxy.delay_seconds = 0.0
    seen("0.2 MB up and down", [time.monotonic() - began])
    assert (answers[-1].status, answers[-1].body == BODY) == (200, True)
    assert len(site.runs("slow")) == 1


def test_a_redis_that_comes_byte_by_byte(site, proxy, seen):
    """Commands and replies that come in pieces of one byte are put together right."""
    proxy.piece_bytes = 1
    began = time.monotonic()
    try:
        answers = follow(site.web.port, "/mirror?tag=bytes", "POST", body=BODY[:70_000])
    finally:
        proxy.piece_bytes = 0
    seen("70 kB up and down", [time.monotonic() - began])
    assert (answers[-1].status, answers[-1].body == BODY[:70_000]) == (200, True)
    assert len(site.runs("bytes")) == 1


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=SLOW)])
def test_connections_that_break_all_the_time(site, proxy, threads, seconds):
    """However often all connections break, each request runs once and is answered in full."""
    end = time.monotonic() + seconds

    def ask_on(number):
        count = 0
        # A busy machine may need longer for as many answers.
        while time.monotonic() < end or count < seconds:
            count += 1
            tag = f"breaking-{seconds}-{number}-{count}"
            answer = follow(site.web.port, f"/mirror?tag={tag}", "POST", body=BODY)[-1]
            assert (answer.status, answer.body == BODY) == (200, True), answer
            assert len(site.runs(tag)) == 1

    asking = [threads.submit(ask_on, number) for number in range(6)]
    cuts = 0
    while not all(future.done() for future in asking) and time.monotonic() < end + AFTER:
        wait(asking, 0.3)
        proxy.cut()
        cuts += 1
    done, late = wait(asking, 0)
    for future in done:
        future.result()
    # They had their answers while connections broke.
    assert len(late) == 0
    assert cuts >= seconds
    nobody_was_given_up(site.web, site.pool)
