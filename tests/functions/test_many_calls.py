"""Many spawned calls, and what one costs on the way to Redis."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from faults.proxy import Proxy
from harness import APPS, Pool, environment, function_workers, joined

from wsgi_timeout import gather
from wsgi_timeout.functions.client import client

MIB = 1024 * 1024


def drain(redis_server, name, runs, count):
    """Spawn so many calls while nobody takes them, then have a pool run them; return their results."""
    env = {**environment(secret="any", log_level="WARNING"), "RUNS_FILE": str(runs)}
    with joined(redis_server.url, name, env):
        from spawned import counted

        calls = [counted.spawn(number) for number in range(count)]
        assert len({call.object_id for call in calls}) == count
        assert redis_server.client.llen(f"rq:queue:wt:{name}:functions") == count
        pool = Pool("spawned:stub", name, redis_server.url, "--processes", "1", env=env, cwd=APPS)
        try:
            return gather(*calls)
        finally:
            pool.stop()


def check(redis_server, name, tmp_path, count):
    runs = tmp_path / "runs"
    assert drain(redis_server, name, runs, count) == list(range(count))
    assert sorted(int(line) for line in runs.read_text().splitlines()) == list(range(count))
    assert redis_server.client.llen(f"rq:queue:wt:{name}:functions") == 0
    assert function_workers(redis_server, name) == 0
    assert redis_server.client.zcard(f"rq:wip:wt:{name}:functions") == 0


@pytest.mark.slow
def test_two_thousand_calls_run_once_each(redis_server, tmp_path):
    """Thousands of calls wait in the queue, and each runs exactly once."""
    check(redis_server, "thousands", tmp_path, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_thousand_calls_run_once_each(redis_server, tmp_path):
    """Fifty thousand calls wait in the queue, and each runs exactly once."""
    check(redis_server, "fifty-thousand", tmp_path, 50_000)


@pytest.fixture
def wire(redis_server, tmp_path):
    wire = Proxy(redis_server, tmp_path / "s", patience_seconds=0.02)
    yield wire
    wire.close()


@pytest.fixture
def app(wire):
    """The functions, spawned over the wire, with scripts and connection ready."""
    with joined(wire.url, "wire", environment(secret="any")):
        import spawned

        spawned.add.spawn(0).cancel()
        wire.clear()
        yield spawned
        client().redis.close()


def test_a_spawn_is_one_round_trip(app, wire):
    """A spawn with small arguments is one command, sent once and answered once."""
    call = app.add.spawn(1, b=[2] * 1000)
    assert (wire.commands(), wire.round_trips()) == (["EVALSHA"], 1)
    call.cancel()


def test_a_handle_costs_nothing(app, wire):
    """Nothing goes to Redis for a handle made from an id, and a look at the call is one round trip."""
    call = app.add.spawn(1)
    wire.clear()
    again = type(call).from_id(call.object_id)
    assert wire.commands() == []
    with pytest.raises(TimeoutError):
        again.get(timeout=0)
    assert (wire.commands(), wire.round_trips()) == (["HMGET"], 1)
    call.cancel()


def test_large_arguments_cost_a_round_trip_a_chunk(app, wire):
    """Large arguments cost one more round trip for each MiB that they begin."""
    call = app.digest.spawn(b"x" * (2 * MIB + 1))
    assert wire.commands() == ["MULTI", "HSET", "EXPIRE", "EXEC"] * 3 + ["EVALSHA"]
    assert wire.round_trips() == 4
    call.cancel()


@pytest.mark.slow
def test_many_may_spawn_at_once(app, redis_server):
    """Threads that spawn at once share a few connections, and lose nothing."""
    with ThreadPoolExecutor(8) as threads:
        calls = list(threads.map(app.add.spawn, range(400)))
    ids = {call.object_id.encode() for call in calls}
    assert len(ids) == 400
    assert ids <= set(redis_server.client.lrange("rq:queue:wt:wire:functions", 0, -1))
    for call in calls:
        call.cancel()
