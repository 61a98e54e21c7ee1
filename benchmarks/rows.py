"""The rows: each measures one goal, all contestants alternating in one run."""

import http.client
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import contestants
import load
import psutil
import redis
from contestants import FOLDER, GEVENT
from harness import Gunicorn, Pool, Process, environment, until

KIB, MIB = 1024, 1024 * 1024
GEVENT_OURS = (
    *("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker"),
    *("--worker-connections", "12000", "--backlog", "8192"),
)


@dataclass
class Row:
    """One line of the table: a figure, the goal for it, and whether it was met."""

    what: str
    figure: str
    goal: str
    met: bool | None
    #: Figures behind it: contestant, median, smallest, largest, unit.
    details: list[tuple[str, float, float, float, str]] = field(default_factory=list)


def detail(name, values, unit):
    return (name, statistics.median(values), min(values), max(values), unit)


# -- one request


def single_requests(server, quick):
    """Latency at one client and throughput at 32: direct, floor and ours in turns."""
    rounds, count, seconds = (3, 150, 1) if quick else (7, 500, 3)
    with ExitStack() as running:
        three = [
            running.enter_context(start(server))
            for start in (contestants.direct, contestants.floor, contestants.ours)
        ]
        times, rates = {one.name: [] for one in three}, {one.name: [] for one in three}
        for _ in range(rounds):
            for one in three:
                times[one.name].append(1000 * load.latency(one.port, count))
            for one in three:
                rates[one.name].append(load.throughput(one.port, 32, seconds))
    middle = {name: statistics.median(values) for name, values in times.items()}
    added = (middle["ours"] - middle["direct"]) / (middle["floor"] - middle["direct"])
    share = statistics.median(rates["ours"]) / statistics.median(rates["floor"])
    return [
        Row(
            "added latency, 1 client: (ours - direct) / (floor - direct)",
            f"{added:.2f}",
            "1.7 at most (1.3 wished for)",
            added <= 1.7,
            [detail(name, values, "ms") for name, values in times.items()],
        ),
        Row(
            "requests/s at 32 clients: ours / floor",
            f"{share:.2f}",
            "0.8 at least (0.9 wished for)",
            share >= 0.8,
            [detail(name, values, "/s") for name, values in rates.items()],
        ),
    ]


#: How many times a peer's throughput ours is to be at least.
_AHEAD = {"rq.SimpleWorker": 4, "rq worker": 60, "Celery": 1, "Dramatiq": 1, "Huey": 1}


#: Rounds at least so long: 32 clients wait for seconds each for a worker that forks for every call.
_LEAST_SECONDS = {"rq worker": 6}


def against_peers(server, quick):
    """Throughput at 32 clients, ours and each peer in turns."""
    rounds, seconds = (2, 1) if quick else (5, 2)
    rows = []
    with contestants.ours(server) as ours:
        for start in contestants.PEERS:
            with start(server) as peer:
                rates = {peer.name: [], "ours": []}
                for _ in range(1 if quick and peer.name in _LEAST_SECONDS else rounds):
                    # What the last round left behind is worked off first.
                    load.latency(peer.port, 1)
                    rates[peer.name].append(
                        load.throughput(peer.port, 32, max(seconds, _LEAST_SECONDS.get(peer.name, 0)))
                    )
                    rates["ours"].append(load.throughput(ours.port, 32, seconds))
            factor = statistics.median(rates["ours"]) / statistics.median(rates[peer.name])
            goal = _AHEAD.get(peer.name)
            rows.append(
                Row(
                    f"requests/s at 32 clients: ours / {peer.name}",
                    f"{factor:.2f}",
                    f"{goal} at least" if goal else "none: it needs no Redis, and keeps nothing",
                    factor >= goal if goal else None,
                    [detail(name, values, "/s") for name, values in rates.items()],
                )
            )
    return rows


def redis_commands(server, quick):
    """Commands in Redis for one request, those inside of scripts counted."""
    count = 100 if quick else 300
    client = redis.Redis.from_url(server.url)
    counted = {}
    for start in (contestants.floor, contestants.ours, contestants.simple_worker):
        with start(server) as one:
            before = sum(stats["calls"] for stats in client.info("commandstats").values())
            load.latency(one.port, count)
            after = sum(stats["calls"] for stats in client.info("commandstats").values())
        counted[one.name] = (after - before) / count
    return [
        Row(
            "Redis commands a call",
            f"{counted['ours']:.1f}",
            "28 at most",
            counted["ours"] <= 28.5,
            [(name, value, value, value, "commands") for name, value in counted.items()],
        )
    ]


# -- many that wait


def memory(process):
    """Return the bytes that the children of a process do not share with anybody."""
    children = psutil.Process(process.pid).children(recursive=True)
    return sum(child.memory_full_info().uss for child in children)


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
        workers = psutil.Process(one.worker.pid).children() or [psutil.Process(one.worker.pid)]
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
        (worker,) = psutil.Process(one.worker.pid).children()
        idle = memory(one.web)
        worker.suspend()
        crowd = load.Crowd(one.port, count)
        until(lambda: client.llen("rq:queue:wt:apps") >= count - 1, 60, "the crowd in the queue")
        size = (memory(one.web) - idle) / count / 1000
        worker.resume()
        crowd.answers(60)
    return [
        Row(f"memory of a waiting request, {count} in one gthread process", f"{size:.0f} KB", "none", None)
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
            "250 KB at most",
            size <= 250,
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
        (worker,) = psutil.Process(pools["slow"].pid).children()
        worker.suspend()
        crowd = load.Crowd(web.port, crowd_size, "/slow/")
        until(lambda: client.llen("rq:queue:wt:slow") >= crowd_size - 1, 60, "the crowd in the queue")
        delays = sorted(_delay(web.port) for _ in range(count))
        worker.resume()
        crowd.answers(60)
    middle, late = 1000 * delays[count // 2], 1000 * delays[int(count * 0.99)]
    goal = "p50 2 ms, p99 15 ms at most"
    what = f"from a handler's end to the first byte, {crowd_size} others waiting"
    return [Row(what, f"p50 {middle:.2f} ms, p99 {late:.2f} ms", goal, middle <= 2 and late <= 15)]


def _delay(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/quick/stamped")
    answer = connection.getresponse()
    arrived = time.monotonic()
    answer.read()
    connection.close()
    return arrived - float(answer.headers["X-Ended"])


# -- bodies


def bodies(server, quick):
    """Large bodies each way, against what Redis alone passes in the same chunks."""
    # More than `max_spooled_body`, which would lie in Redis before its call begins.
    size, rounds = (128 * MIB, 1) if quick else (1024 * MIB, 5)
    rates = {"Redis alone": [], "up": [], "down": []}
    client = redis.Redis.from_url(server.url)
    with contestants.ours(server, app="held:app", max_request_body=4 << 30) as one:
        load.latency(one.port, 20)
        family = (one.web, one.worker)
        idle, used = sum(map(memory, family)), client.info("memory")["used_memory"]
        grown = 0
        for _ in range(rounds):
            with _Peak(lambda: sum(map(memory, family)) + client.info("memory")["used_memory"]) as peak:
                rates["up"].append(size / MIB / load.upload(one.port, "/hash", size))
                rates["down"].append(size / MIB / load.download(one.port, f"/bytes/{size}", size))
            grown = max(grown, (peak.value - idle - used) / 1e6)
            rates["Redis alone"].append(_redis_alone(server, size))
    alone = statistics.median(rates["Redis alone"])
    rows = [
        Row(
            f"{size // MIB} MiB {way}: ours / Redis alone in the same chunks",
            f"{statistics.median(rates[way]) / alone:.2f}",
            f"{share} at least",
            statistics.median(rates[way]) >= share * alone,
            [
                detail("ours", rates[way], "MiB/s"),
                detail("Redis alone", rates["Redis alone"], "MiB/s"),
            ],
        )
        for way, share in (("up", 0.8), ("down", 0.9))
    ]
    what = "growth of memory meanwhile: web, worker and Redis, summed"
    return [*rows, Row(what, f"{grown:.0f} MB", "40 MB at most", grown <= 40)]


def _redis_alone(server, size):
    """Return the MiB/s of one process that writes chunks and another that takes them."""
    code = (
        "import sys, redis; client = redis.Redis.from_url(sys.argv[1]); chunk = bytes(256 * 1024)\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    if sys.argv[3] == 'write':\n"
        "        client.rpush('alone', chunk)\n"
        "    else:\n"
        "        client.blpop(['alone'], 10)\n"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", code, server.url, str(size // (256 * KIB))]
    running = [subprocess.Popen([*command, what]) for what in ("write", "take")]
    for process in running:
        assert process.wait() == 0
    return size / MIB / (time.monotonic() - started)


class _Peak:
    """The largest of what a function returns while it is on."""

    def __init__(self, measure: Callable[[], int]):
        self.value = 0
        self._measure = measure
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def _run(self):
        while not self._done.wait(0.05):
            self.value = max(self.value, self._measure())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


# -- what costs nothing


def fast_route(server, quick):
    """A route that `only` leaves in the web process."""
    code = (
        "import timeit, held\n"
        "environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'QUERY_STRING': 'a=b', 'SCRIPT_NAME': ''}\n"
        "bare = lambda environ, start_response: ()\n"
        "front = held.front_before(bare)\n"
        "def seconds(callable, count):\n"
        "    return min(timeit.repeat(lambda: callable(environ, None), number=count, repeat=5)) / count\n"
        f"count = {20_000 if quick else 100_000}\n"
        "print(1e6 * (seconds(front, count) - seconds(bare, count)))\n"
    )
    env = {**contestants.env(server), "REDIS_URL": "redis://127.0.0.1:1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout
    microseconds = float(output)
    what = "a route that stays in the web process (its Redis is not there)"
    return [Row(what, f"{microseconds:.1f} us", "under 20 us", microseconds < 20)]


def idle_memory(server, quick):
    """An idle web process that serves an app which is heavy to import."""
    del quick
    with (
        contestants.direct(server, app="heavy:app") as direct,
        contestants.ours(server, app="heavy:app") as ours,
    ):
        load.latency(ours.port, 20)
        sizes = {one.name: memory(one.web) / 1e6 for one in (direct, ours)}
    return [
        Row(
            "memory of an idle web process, its app holds 67 MB: ours - direct",
            f"{sizes['ours'] - sizes['direct']:.0f} MB",
            "the app is not loaded in it",
            sizes["ours"] - sizes["direct"] < -30,
            [(name, size, size, size, "MB") for name, size in sizes.items()],
        )
    ]


def start(server, quick):
    """`wsgi-timeout serve` to its first answer."""
    del server
    times = []
    for _ in range(2 if quick else 5):
        with _served() as (port, started):
            until(lambda: _answers(port), 20, "the first answer")
            times.append(time.monotonic() - started)
    middle = statistics.median(times)
    what = "`wsgi-timeout serve` to its first answer"
    return [Row(what, f"{middle:.2f} s", "under 2 s", middle < 2, [detail("ours", times, "s")])]


@contextmanager
def _served():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        env = {**environment(), "XDG_STATE_HOME": state, "PYTHONPATH": ""}
        command = [
            sys.executable,
            "-m",
            "wsgi_timeout.serving.cli",
            "serve",
            "held:app",
            "--bind",
            f"127.0.0.1:{port}",
        ]
        started = time.monotonic()
        server = Process(command, env=env, cwd=FOLDER)
        try:
            yield port, started
        finally:
            server.stop(signal.SIGINT)


def _answers(port):
    try:
        return load.latency(port, 1) > 0
    except (OSError, AssertionError):
        time.sleep(0.02)
        return False


ROWS = (
    single_requests,
    redis_commands,
    against_peers,
    waiting_gevent,
    waiting_gthread,
    sleeping_handlers,
    first_byte,
    bodies,
    fast_route,
    idle_memory,
    start,
)
