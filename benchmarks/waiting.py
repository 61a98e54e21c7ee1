"""Rows of many at once: requests that wait, handlers that sleep, and one answer among them."""

import http.client
import statistics
import time
from contextlib import ExitStack

import contestants
import load
import psutil
import redis
from contestants import FOLDER, GEVENT
from harness import Gunicorn, Pool, until
from rows import GEVENT_OURS, Row, detail, memory


def _connections(client):
    """Return how many connections our web process holds."""
    return sum(one["name"] == contestants.WEB_NAME for one in client.client_list())


def waiting_gevent(server, quick):
    """Requests that wait in one gevent process, and how fast all are answered when they can be."""
    count = 1000 if quick else 10_000
    client = redis.Redis.from_url(server.url)
    seen = {"floor": [], "ours": []}
    for _ in range(1 if quick else 5):
        for name, rounds in seen.items():
            rounds.append(_crowd(server, client, name, count))
    memory, seconds = ({name: [one[i] for one in seen[name]] for name in seen} for i in (0, 1))
    size = statistics.median(memory["ours"])
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["floor"])
    connections = max(one[2] for one in seen["ours"])
    return [
        Row(
            f"memory of a waiting request, {count} in one gevent process",
            f"{size:.1f} KB",
            "15 KB at most",
            size <= 15,
            [detail(name, values, "KB") for name, values in memory.items()],
        ),
        Row(
            f"Redis connections of that process while {count} wait",
            str(connections),
            "4 at most",
            connections <= 4,
        ),
        Row(
            f"time until all {count} are answered: ours / floor",
            f"{ratio:.2f}",
            "1.2 at most",
            ratio <= 1.2,
            [detail(name, values, "s") for name, values in seconds.items()],
        ),
    ]


def _crowd(server, client, name, count):
    """Return KB of each of so many waiters, seconds until all are answered, and the web's connections."""
    with ExitStack() as running:
        if name == "ours":
            start = contestants.ours(server, GEVENT_OURS, max_waiting=count + 100, max_queued=count * 2)
        else:
            start = contestants.floor(server, GEVENT)
        one = running.enter_context(start)
        load.latency(one.port, 50)
        queue = "rq:queue:wt:apps" if name == "ours" else "floor:queue"
        workers = one.worker.workers() if name == "ours" else [psutil.Process(one.worker.pid)]
        idle = memory(one.web)
        for worker in workers:
            worker.suspend()
        crowd = load.Crowd(one.port, count)
        # A stopped worker's blocking pop has got one of them.
        until(lambda: client.llen(queue) >= count - 1, 120, "the crowd in the queue")
        size = (memory(one.web) - idle) / count / 1000
        connections = _connections(client)
        started = time.monotonic()
        for worker in workers:
            worker.resume()
        last = max(moment for moment, _ in crowd.answers(120))
        return size, last - started, connections


def waiting_gthread(server, quick):
    """Requests that wait in one gthread process, a thread each."""
    del quick
    count = 300
    client = redis.Redis.from_url(server.url)
    with contestants.ours(server, max_waiting=count + 10) as one:
        load.latency(one.port, 50)
        (worker,) = one.worker.workers()
        idle = memory(one.web)
        worker.suspend()
        crowd = load.Crowd(one.port, count)
        until(lambda: client.llen("rq:queue:wt:apps") >= count - 1, 60, "the crowd in the queue")
        size = (memory(one.web) - idle) / count / 1000
        worker.resume()
        crowd.answers(60)
    return [
        Row(
            f"memory of a waiting request, {count} in one gthread process",
            f"{size:.0f} KB",
            "40 KB at most",
            size <= 40,
        )
    ]


def sleeping_handlers(server, quick):
    """Handlers that sleep in one worker process with threads."""
    count = 100 if quick else 500
    pool = ("--processes", "1", "--threads", str(count))
    with contestants.ours(server, app="held:app", pool=pool, max_waiting=count + 10) as one:
        load.latency(one.port, 50)
        idle, started = memory(one.worker), time.monotonic()
        crowd = load.Crowd(one.port, count, "/sleep?seconds=4")
        time.sleep(3)
        size = (memory(one.worker) - idle) / count / 1000
        crowd.answers(60)
        seconds = time.monotonic() - started
    return [
        Row(
            f"memory of a sleeping handler, {count} in one worker process",
            f"{size:.0f} KB",
            "30 KB at most",
            size <= 30,
        ),
        Row(f"time of {count} handlers that sleep 4 s, side by side", f"{seconds:.1f} s", "none", None),
    ]


def first_byte(server, quick):
    """From a handler's end to the first byte at its client, while others wait in the same process."""
    crowd_size, count = (100, 100) if quick else (1000, 500)
    client = redis.Redis.from_url(server.url)
    env = contestants.env(server, max_waiting=crowd_size + 100, max_queued=crowd_size * 2)
    with ExitStack() as running:
        web = Gunicorn(
            "held:two_queues()", server.url, *GEVENT_OURS, env=env, cwd=FOLDER, config="python:quiet_conf"
        )
        running.callback(web.stop)
        pools = {}
        for name in ("slow", "quick"):
            pools[name] = Pool("held:app", name, server.url, "--processes", "1", env=env, cwd=FOLDER)
            running.callback(pools[name].stop)
        load.latency(web.port, 20, "/slow/")
        (worker,) = pools["slow"].workers()
        worker.suspend()
        crowd = load.Crowd(web.port, crowd_size, "/slow/")
        until(lambda: client.llen("rq:queue:wt:slow") >= crowd_size - 1, 60, "the crowd in the queue")
        delays = sorted(_delay(web.port) for _ in range(count))
        worker.resume()
        crowd.answers(60)
    middle, late = 1000 * delays[count // 2], 1000 * delays[int(count * 0.99)]
    goal = "p50 1 ms, p99 3 ms at most"
    what = f"from a handler's end to the first byte, {crowd_size} others waiting"
    return [Row(what, f"p50 {middle:.2f} ms, p99 {late:.2f} ms", goal, middle <= 1 and late <= 3)]


def _delay(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/quick/stamped")
    answer = connection.getresponse()
    arrived = time.monotonic()
    answer.read()
    connection.close()
    return arrived - float(answer.headers["X-Ended"])


ROWS = (waiting_gevent, waiting_gthread, sleeping_handlers, first_byte)
