"""Crowds: 30,000 requests that wait on one machine, and 1,000 pollers at once."""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import click
import contestants
import psutil
import redis
from harness import Gunicorn, Pool, RedisServer, until
from rows import GEVENT_OURS, Row, commands, detail, memory

#: Of one web process; there are three.
CROWD = 10_000

_CLIENTS = """
import sys, load
port, count = map(int, sys.argv[1:])
crowd = load.Crowd(port, count)
print("sent", flush=True)
sys.stdin.readline()
crowd.answers(600)
print("answered", flush=True)
"""

_POLLERS = """
import asyncio, sys, time
from wsgi_timeout import Stub

stub = Stub("pollers")

@stub.function()
def slow(): ...

async def poll(call):
    try:
        await call.get.aio(timeout=0)
    except TimeoutError:
        return
    raise AssertionError("no worker runs this")

async def main(count, rounds):
    call = slow.spawn()
    await poll(call)
    for _ in range(rounds):
        began = time.perf_counter()
        await asyncio.gather(*[poll(call) for _ in range(count)])
        print(time.perf_counter() - began)

asyncio.run(main(*map(int, sys.argv[1:])))
"""


def async_pollers(server, quick):
    """1,000 coroutines of one process that ask for the same running call at once."""
    rounds = 3 if quick else 7
    env = {**contestants.env(server), "WSGI_TIMEOUT_SECRET": "benchmark"}
    command = [sys.executable, "-c", _POLLERS, "1000", str(rounds)]
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    seconds = [float(line) for line in output.split()]
    middle = statistics.median(seconds)
    what = "1,000 async pollers at once, `await call.get.aio(timeout=0)`"
    return [Row(what, f"{middle:.2f} s", "1 s at most", middle <= 1, [detail("ours", seconds, "s")])]


def three_crowds(count=CROWD):
    """Requests that wait in three gevent processes: their memory, what they cost, and their answers."""
    server = RedisServer()
    client = redis.Redis.from_url(server.url)
    env = contestants.env(server, max_waiting=count + 100, max_queued=4 * count, wait_seconds=600)
    app, config = "wsgi_timeout:gateway('apps:noop')", "python:quiet_conf"
    with ExitStack() as running:
        webs = []
        for _ in range(3):
            webs.append(
                Gunicorn(app, server.url, *GEVENT_OURS, env=env, cwd=contestants.FOLDER, config=config)
            )
            running.callback(webs[-1].stop)
        pool = Pool("apps:noop", None, server.url, "--processes", "1", env=env, cwd=contestants.FOLDER)
        running.callback(pool.stop)
        (worker,) = workers_of(webs, pool)
        idle, of_redis = sum(map(memory, webs)), client.info("memory")["used_memory"]
        worker.suspend()
        crowds = [running.enter_context(_crowd(web, count, env)) for web in webs]
        until(lambda: client.llen("rq:queue:wt:apps") >= 3 * count - 1, 600, "the crowds in the queue")
        size = (sum(map(memory, webs)) - idle) / (3 * count)
        of_redis = (client.info("memory")["used_memory"] - of_redis) / (3 * count)
        click.echo(f"{3 * count} wait: {size / 1000:.1f} KB each, {of_redis / 1000:.1f} KB of Redis each")
        before = time.monotonic(), cpu_seconds(webs), commands(client)
        time.sleep(10)
        seconds, cores, sent = (
            new - old
            for new, old in zip((time.monotonic(), cpu_seconds(webs), commands(client)), before, strict=True)
        )
        click.echo(
            f"meanwhile {sent / seconds:.0f} commands/s, {cores / seconds:.1%} of a core in the web processes"
        )
        worker.resume()
        began = time.monotonic()
        for crowd in crowds:
            crowd.stdin.write("\n")
            crowd.stdin.flush()
        for crowd in crowds:
            assert crowd.stdout.readline() == "answered\n"
        click.echo(f"all answered after {time.monotonic() - began:.1f} s by one worker process")
    server.close()


def workers_of(webs, pool):
    """Return the worker processes of a pool, once every web process answers."""
    for web in webs:
        contestants._ready(contestants.Contestant("ours", web, web.port, pool))  # noqa: SLF001
    return pool.workers()


def cpu_seconds(webs):
    processes = [child for web in webs for child in psutil.Process(web.pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _crowd(web, count, env):
    """Start clients in a process of their own, which may open so many connections."""
    crowd = subprocess.Popen(
        [sys.executable, "-c", _CLIENTS, str(web.port), str(count)],
        env={**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], *filter(None, sys.path)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert crowd.stdout.readline() == "sent\n"
    return crowd


ROWS = (async_pollers,)
